//! A state as a tree of JSON, as text, or as bytes: a piece of it at a time, however large it is.

use maud::{Markup, html};
use persist_host::snapshot::{Info, Name, Reader, Scope};

use super::page::decimal;
use super::tree;
use super::visit::{Place, Visit};
use crate::compute::compute;
use crate::serve::app::App;
use crate::serve::problem::{Problem, Result};
use crate::text;

/// JSON up to this size is shown as a tree.
const MAX_TREE: u64 = 4 << 20;

/// Bytes of a page of text, and of one of bytes.
const TEXT: u64 = 64 << 10;
const HEX: u64 = 4 << 10;

/// Bytes in a row.
const ROW: usize = 16;

/// Ways to show a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    Tree,
    Text,
    Hex,
}

impl View {
    const ALL: [Self; 3] = [Self::Tree, Self::Text, Self::Hex];

    fn key(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Text => "text",
            Self::Hex => "hex",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Tree => "JSON",
            Self::Text => "Text",
            Self::Hex => "Bytes",
        }
    }
}

/// Returns the state as the fields ask for it, or as its content suggests.
pub(super) async fn state(
    visit: &Visit,
    place: &Place,
    name: &Name,
    scope: &Scope,
    info: &Info,
) -> Result<Markup> {
    let fields = &visit.fields;
    let reader = scope.reader(name.as_str(), Some(info.version)).await?;
    let mut reader = reader.ok_or_else(super::visit::nothing)?;
    let wanted = fields.text("view");
    let wanted = View::ALL
        .into_iter()
        .find(|view| Some(view.key()) == wanted);
    let offset = fields.version("offset")?.unwrap_or(0);
    if offset > info.size {
        return Err(Problem::usage(format!(
            "the state has only {} bytes",
            info.size
        )));
    }
    let mut note = None;
    let mut tree = None;
    if matches!(wanted, None | Some(View::Tree)) {
        match json(&visit.app, &mut reader, info).await? {
            Ok(found) => tree = Some(found),
            Err(why) => note = wanted.map(|_| why),
        }
    }
    let view = match (wanted, &tree) {
        (None | Some(View::Tree), Some(_)) => View::Tree,
        (Some(View::Hex), _) => View::Hex,
        (Some(_), _) => View::Text,
        (None, None) => {
            let start = read(&mut reader, 0, HEX).await?;
            if is_text(&start) {
                View::Text
            } else {
                View::Hex
            }
        }
    };
    let pages = Pages {
        place,
        name,
        info,
        view,
    };
    let shown = match tree {
        Some(tree) => tree,
        None if view == View::Hex => {
            let start = offset - offset % ROW as u64;
            let bytes = read(&mut reader, start, HEX).await?;
            let end = start + bytes.len() as u64;
            html! {
                pre .state tabindex="0" role="region" aria-label="Bytes" { (hex(start, &bytes)) }
                (pages.links(start, end, HEX))
            }
        }
        None => {
            let bytes = read(&mut reader, offset, TEXT).await?;
            let (skipped, shown, used) = text_of(offset, &bytes);
            let start = offset + skipped as u64;
            let end = offset + used as u64;
            html! {
                pre .state.wrapped tabindex="0" role="region" aria-label="Text" dir="ltr" {
                    (shown)
                }
                (pages.links(start, end, TEXT))
            }
        }
    };
    Ok(html! {
        h2 { "State" }
        (pages.views())
        @if let Some(note) = note { p .alert role="status" { (note) } }
        @if info.size == 0 { p { "The state has no bytes." } } @else { (shown) }
    })
}

/// Returns the state as a tree, or why it is none.
async fn json(
    app: &App,
    reader: &mut Reader,
    info: &Info,
) -> Result<std::result::Result<Markup, &'static str>> {
    if info.size > MAX_TREE {
        return Ok(Err(
            "The state is larger than 4 MiB, so it is shown as text.",
        ));
    }
    let start = read(reader, 0, HEX).await?;
    // What does not begin like JSON is not read as JSON.
    let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
    if !first.is_some_and(|byte| matches!(byte, b'{' | b'[')) {
        return Ok(Err("The state is not a JSON object or array."));
    }
    let _permit = app.computing().await?;
    let bytes = read(reader, 0, info.size).await?;
    let made = compute(move || tree::tree(&bytes)).await?;
    Ok(made.ok_or("The state is not JSON."))
}

/// Reads bytes of a state.
async fn read(reader: &mut Reader, offset: u64, len: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let len = usize::try_from(len).unwrap_or(usize::MAX);
    while bytes.len() < len {
        let at = offset + bytes.len() as u64;
        let piece = reader.read(at, len - bytes.len()).await?;
        if piece.is_empty() {
            break;
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Returns true for bytes that are text, but for a character that is cut off at the end.
fn is_text(bytes: &[u8]) -> bool {
    let valid = match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    valid && !bytes.contains(&0)
}

/// Returns a page of text: the bytes of a character before it that are left out, the text, and the
/// bytes up to the last whole character.
fn text_of(offset: u64, bytes: &[u8]) -> (usize, String, usize) {
    let continued = bytes
        .iter()
        .take(3)
        .take_while(|byte| **byte & 0xc0 == 0x80);
    let skipped = if offset == 0 { 0 } else { continued.count() };
    let last = bytes.utf8_chunks().last();
    let end = last.map_or(&[][..], |chunk| chunk.invalid());
    let is_cut = std::str::from_utf8(end).is_err_and(|error| error.error_len().is_none());
    // A state of nothing else ends with it.
    let used = if is_cut && bytes.len() as u64 == TEXT {
        bytes.len() - end.len()
    } else {
        bytes.len()
    };
    let shown = bytes.get(skipped..used).unwrap_or_default();
    (skipped, text::plain(&String::from_utf8_lossy(shown)), used)
}

/// Returns rows of bytes: offset, hexadecimal, and ASCII.
fn hex(start: u64, bytes: &[u8]) -> String {
    let mut rows = String::new();
    for (at, row) in bytes.chunks(ROW).enumerate() {
        let cells: Vec<_> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let ascii = row.iter().map(|byte| match byte {
            b' '..=b'~' => char::from(*byte),
            _ => '.',
        });
        let ascii: String = ascii.collect();
        let offset = start + (at * ROW) as u64;
        let width = ROW * 3 - 1;
        rows += &format!("{offset:08x}  {:width$}  {ascii}\n", cells.join(" "));
    }
    rows
}

/// Links to other views and to other parts of the state.
struct Pages<'a> {
    place: &'a Place,
    name: &'a Name,
    info: &'a Info,
    view: View,
}

impl Pages<'_> {
    fn url(&self, view: View, offset: u64) -> String {
        let version = decimal(self.info.version);
        let offset = offset.to_string();
        let mut query = vec![("version", version.as_str()), ("view", view.key())];
        if offset != "0" {
            query.push(("offset", &offset));
        }
        self.place.name_url("/version", self.name, &query)
    }

    fn views(&self) -> Markup {
        html! {
            nav aria-label="Views of the state" { ul .tabs { @for view in View::ALL {
                li {
                    a href=(self.url(view, 0)) aria-current=[(view == self.view).then_some("true")]
                        { (view.label()) }
                }
            } } }
        }
    }

    fn links(&self, start: u64, end: u64, page: u64) -> Markup {
        let size = self.info.size;
        let offset = start.saturating_sub(page);
        html! {
            p .muted { "Bytes " (start) " to " (end) " of " (size) }
            div .actions {
                @if start > 0 {
                    a .button href=(self.url(self.view, 0)) { "Beginning" }
                    a .button href=(self.url(self.view, offset)) { "Back" }
                }
                @if end < size {
                    a .button href=(self.url(self.view, end)) { "Next" }
                    a .button href=(self.url(self.view, size.saturating_sub(page))) { "End" }
                }
            }
            @if start > 0 || end < size { (self.jump()) }
        }
    }

    fn jump(&self) -> Markup {
        html! {
            form .row action="/version" {
                @for (key, value) in self.place.pairs() {
                    input type="hidden" name=(key) value=(value);
                }
                input type="hidden" name="name" value=(self.name.as_str());
                input type="hidden" name="version" value=(self.info.version);
                input type="hidden" name="view" value=(self.view.key());
                label for="offset" { "Go to byte" }
                input #offset type="number" name="offset" min="0" max=(self.info.size) required;
                button { "Go" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_text_lose_no_character() {
        let text = "aé日🦀".repeat(20_000);
        let state = text.as_bytes();
        let mut offset = 0;
        let mut shown = String::new();
        while offset < state.len() {
            let end = state.len().min(offset + TEXT as usize);
            let (skipped, page, used) = text_of(offset as u64, &state[offset..end]);
            assert_eq!(skipped, 0, "the page before ends with a whole character");
            shown += &page;
            offset += used;
        }
        assert!(shown == text);
        // From any offset.
        let (skipped, page, _) = text_of(2, &state[2..10]);
        assert_eq!(skipped, 1);
        assert!(page.starts_with('日'), "{page}");
    }

    #[test]
    fn a_page_of_text_goes_on_whatever_the_bytes_are() {
        for byte in [0x80, 0xf0, 0xff, 0] {
            let bytes = vec![byte; TEXT as usize];
            let (skipped, _, used) = text_of(1, &bytes);
            assert!(skipped <= 3 && used > TEXT as usize - 4, "{byte}");
        }
        assert_eq!(text_of(0, b"a\xe2\x80\xaeb").1, "a\\u{202e}b");
        assert_eq!(text_of(0, b"a\xf0\x9f").2, 3, "the end of the state");
    }

    #[test]
    fn bytes_are_shown_in_rows() {
        let shown = hex(16, b"<b>\0\xff");
        assert_eq!(shown, format!("00000010  {:47}  <b>..\n", "3c 62 3e 00 ff"));
    }
}
