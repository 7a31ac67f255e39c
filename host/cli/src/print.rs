//! How results are printed: for people, or one JSON value a line.

use std::fmt;
use std::io::{self, Write as _};
use std::time::{Duration, UNIX_EPOCH};

use persist_host::snapshot::{self, Info, Name};
use persist_host::storage::redact;
use serde_json::{Value, json};

use crate::address::{Address, is_unseen};
use crate::exit;
use crate::table::{self, Column};

/// A value as JSON, in which characters that a terminal obeys or does not show are escaped.
pub(crate) fn seen(value: &Value) -> String {
    let json = value.to_string();
    // The parts that are not strings are ASCII without control characters.
    if !json.chars().any(is_unseen) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unseen(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                escaped += &format!("\\u{unit:04x}");
            }
        } else {
            escaped.push(c)
        }
    }
    escaped
}

/// Destination and format of the results.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    pub(crate) json: bool,
    /// Nothing beside results and errors.
    pub(crate) quiet: bool,
    /// The options that lead another command to the same store, each with a space behind it, as a
    /// shell takes them.
    pub(crate) options: &'static str,
}

impl Out {
    /// Prints a value as JSON or, where that was not asked for, what `text` makes of it.
    pub(crate) fn print(self, value: &Value, text: impl FnOnce() -> String) -> io::Result<()> {
        let line = if self.json { seen(value) } else { text() };
        self.write(format!("{line}\n").as_bytes())
    }

    /// Writes results.
    pub(crate) fn write(self, bytes: &[u8]) -> io::Result<()> {
        results(bytes)
    }

    /// Says something beside the results that a person may want to know.
    pub(crate) fn note(self, what: fmt::Arguments<'_>) {
        if !self.quiet {
            say(what);
        }
    }

    /// The command that does this to an address, as it can be pasted into a shell.
    pub(crate) fn command(self, verb: &str, address: &str) -> String {
        let end_of_options = if address.starts_with('-') { "-- " } else { "" };
        format!(
            "persist {verb} {}{end_of_options}{}",
            self.options,
            quoted(address)
        )
    }

    /// Reports an error of one entry on standard error, on one line: what a file says of itself may
    /// look like lines of ours.
    pub(crate) fn error(self, code: u8, what: fmt::Arguments<'_>) {
        let what = what.to_string();
        if self.json {
            exit::print_json(code, &what, None);
        } else {
            say(format_args!("error: {}", one_line(&what)));
        }
    }

    /// Reports something that was listed and cannot be read, so that the list can go on.
    pub(crate) fn damaged(self, address: &str, why: &snapshot::Error) -> io::Result<()> {
        let code = exit::snapshot_code(why);
        if !self.json {
            self.error(code, format_args!("{address}: {why}"));
            if let Some(hint) = why.hint() {
                say(format_args!("hint: {}", one_line(&hint)));
            }
            return Ok(());
        }
        let error = exit::value(code, &why.to_string(), why.hint().as_deref());
        self.print(&extend(located(address), error), String::new)
    }
}

/// Writes results to standard output.
pub(crate) fn results(bytes: &[u8]) -> io::Result<()> {
    io::stdout().lock().write_all(bytes).map_err(of_output)
}

/// Says of an error that it is the output that failed, and not the storage.
pub(crate) fn of_output(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("write to standard output: {error}"))
}

/// Says something beside the results, on standard error. Its reader may be gone, and that is
/// no reason to fail. It may repeat an argument, that holds a secret.
pub(crate) fn say(what: fmt::Arguments<'_>) {
    let text = what.to_string();
    let _ = writeln!(io::stderr().lock(), "{}", redact(&text));
}

/// Quotes a text as one word of a shell. Agents choose names, and people paste what is printed.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:@%+=,~".contains(c);
    if !word.is_empty() && !word.starts_with('~') && word.chars().all(is_plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Returns the keys that every line about a name has: its address, and the parts of the address.
pub(crate) fn located(address: &str) -> Value {
    let parsed = address.parse::<Address>().ok();
    let part = |part: fn(&Address) -> Option<&Name>| {
        let part = parsed.as_ref().and_then(part);
        part.map(Name::as_str)
    };
    json!({
        "address": address,
        "agent": part(|address| Some(&address.agent)),
        "session": part(|address| address.session.as_ref()),
        "name": part(|address| Some(&address.name)),
        "version": parsed.as_ref().and_then(|address| address.version),
    })
}

/// Adds the keys of one object to another.
pub(crate) fn extend(mut value: Value, more: Value) -> Value {
    if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
        value.extend(more);
    }
    value
}

/// Returns the information about a version, with the address that it can be reached at.
pub(crate) fn info(address: &str, info: &Info) -> Value {
    let labels = info.labels.iter();
    let labels: serde_json::Map<_, _> = labels
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect();
    extend(
        located(address),
        json!({
            "parent": info.parent,
            "deleted": info.deleted,
            "size": info.size,
            "stored_size": info.stored_size,
            "sha256": info.sha256,
            "created_at": rfc3339(info.created_at),
            "media_type": info.media_type,
            "labels": labels,
        }),
    )
}

/// Returns the information about a version, with its address and the change that was made.
pub(crate) fn event(event: &str, address: &str, info: &Info) -> Value {
    extend(json!({ "event": event }), self::info(address, info))
}

/// Writes milliseconds since 1970 as a time in UTC; none for a time after the year 9999.
pub(crate) fn rfc3339(millis: u64) -> Option<String> {
    const MAX_MILLIS: u64 = 253_402_300_799_999;
    let time = UNIX_EPOCH + Duration::from_millis(millis);
    (millis <= MAX_MILLIS).then(|| humantime::format_rfc3339_millis(time).to_string())
}

/// The columns of a list of names.
pub(crate) const NAMES: [Column; 5] = [
    table::text("ADDRESS"),
    table::number("SIZE"),
    table::number("AT REST"),
    table::text("CREATED"),
    table::text("LABELS"),
];

/// The columns of a history.
pub(crate) const VERSIONS: [Column; 6] = [
    NAMES[0],
    NAMES[1],
    NAMES[2],
    NAMES[3],
    table::text("PIN"),
    NAMES[4],
];

/// The row of a version; in a history it tells whether the version is pinned.
pub(crate) fn cells(address: &str, info: &Info, pinned: Option<bool>) -> Vec<String> {
    let size = if info.deleted {
        "deleted".into()
    } else {
        bytes(info.size)
    };
    let labels = info.labels.iter();
    let labels = labels.map(|(k, v)| format!("{}={}", one_line(k), one_line(v)));
    let mut cells = vec![
        address.to_owned(),
        size,
        bytes(info.stored_size),
        time(info.created_at),
    ];
    cells.extend(pinned.map(|pinned| if pinned { "pinned" } else { "" }.to_owned()));
    cells.push(labels.collect::<Vec<_>>().join(" "));
    cells
}

/// All that is known of a version.
pub(crate) fn details(address: &str, info: &Info, pinned: bool) -> String {
    let mut lines = vec![
        format!("address     {address}"),
        format!("version     {}", info.version),
        format!(
            "parent      {}",
            info.parent
                .map_or("none".into(), |parent| parent.to_string())
        ),
        format!("created     {}", time(info.created_at)),
    ];
    if info.deleted {
        lines.push("deleted     yes".into())
    } else {
        lines.push(format!(
            "size        {} ({} bytes)",
            bytes(info.size),
            info.size
        ))
    }
    lines.push(format!(
        "at rest     {} ({} bytes)",
        bytes(info.stored_size),
        info.stored_size
    ));
    lines.push(format!("sha256      {}", info.sha256));
    if pinned {
        lines.push("pinned      yes".into());
    }
    lines.extend(
        info.media_type
            .iter()
            .map(|text| format!("media type  {}", one_line(text))),
    );
    let labels = info.labels.iter();
    lines.extend(labels.map(|(k, v)| format!("label       {}={}", one_line(k), one_line(v))));
    lines.join("\n")
}

/// A size in the unit that suits it.
pub(crate) fn bytes(count: u64) -> String {
    let mut size = count as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while size >= 1024.0 {
        let Some(next) = units.next() else { break };
        (size, unit) = (size / 1024.0, next);
    }
    match unit {
        "B" => format!("{count} B"),
        unit => format!("{size:.1} {unit}"),
    }
}

/// Writes a count with its noun.
pub(crate) fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

/// A moment that is told in milliseconds since 1970, UTC.
pub(crate) fn time(millis: u64) -> String {
    // A trailer may say any number; four digits of year are as far as people go.
    let time = UNIX_EPOCH + Duration::from_millis(millis.min(253_402_300_799_999));
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A guest's text on a person's terminal: without its control characters, which could move the
/// cursor or worse. Lines and tabs stay.
pub(crate) fn plain(text: &str) -> String {
    escaped(text, |c| is_unseen(c) && !matches!(c, '\n' | '\t'))
}

/// Escapes the control characters of a guest's text that is part of a line, so that it cannot begin
/// another line.
pub(crate) fn one_line(text: &str) -> String {
    escaped(text, is_unseen)
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if is_bad(c) {
            escaped.extend(c.escape_default())
        } else {
            escaped.push(c)
        }
    }
    escaped
}

/// Shows a state on a terminal, a piece after the other: as [`plain`] does, and with bytes that are
/// no text replaced.
#[derive(Debug, Default)]
pub(crate) struct Plainly {
    /// The beginning of a character whose end is in the next piece.
    rest: Vec<u8>,
}

impl Plainly {
    /// Returns the next piece as it can be shown.
    pub(crate) fn piece(&mut self, piece: &[u8]) -> String {
        self.rest.extend_from_slice(piece);
        let bytes = std::mem::take(&mut self.rest);
        let end = bytes
            .utf8_chunks()
            .last()
            .map_or(&[][..], |last| last.invalid());
        // A character that is whole or wrong is told from one that goes on: it has four bytes at
        // most.
        let goes_on = !end.is_empty() && bytes.ends_with(end) && is_begun(end);
        let (now, rest) = bytes.split_at(bytes.len() - if goes_on { end.len() } else { 0 });
        self.rest = rest.into();
        plain(&String::from_utf8_lossy(now))
    }

    /// Returns what is left.
    pub(crate) fn end(self) -> String {
        plain(&String::from_utf8_lossy(&self.rest))
    }
}

/// Returns true where bytes are the beginning of a character.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// Writes what a guest printed: bit for bit into a file or a pipe, and plain on a terminal.
pub(crate) fn from_guest(mut to: impl io::Write + io::IsTerminal, bytes: &[u8]) -> io::Result<()> {
    if to.is_terminal() {
        to.write_all(plain(&String::from_utf8_lossy(bytes)).as_bytes())
    } else {
        to.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_said_in_a_unit_that_suits_them() {
        let sizes = [0, 1023, 1024, 1536, 5 << 30].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
    }

    #[test]
    fn a_guest_cannot_write_to_the_terminal() {
        assert_eq!(plain("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\n");
        assert_eq!(plain("a\u{202e}b\u{2028}c"), "a\\u{202e}b\\u{2028}c");
        assert_eq!(one_line("v\nbot/memory@9\t1 B"), "v\\nbot/memory@9\\t1 B");
        assert_eq!(one_line("naïve 日本 🦀"), "naïve 日本 🦀");
    }

    #[test]
    fn json_shows_no_character_that_a_terminal_obeys() {
        let text = "\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{e0041}é\u{3164}";
        let value = json!({ "label": text });
        let shown = seen(&value);
        assert!(
            shown.is_ascii() || shown.replace('é', "").is_ascii(),
            "{shown}"
        );
        assert!(!shown.chars().any(char::is_control), "{shown:?}");
        let read: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!(read, value);
    }

    #[test]
    fn a_state_in_pieces_is_shown_as_it_is_whole() {
        let text = "naïve 日本 🦀 \u{1b}]52;c;AAAA\u{7} \u{9b}2J\n".as_bytes();
        let broken = [text, &[0xff, b'x', 0xf0, 0x9f]].concat();
        for size in 1..9 {
            let mut plainly = Plainly::default();
            let mut shown: String = broken
                .chunks(size)
                .map(|piece| plainly.piece(piece))
                .collect();
            shown += &plainly.end();
            assert_eq!(shown, plain(&String::from_utf8_lossy(&broken)), "{size}");
            assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{shown:?}");
        }
    }

    #[test]
    fn a_word_that_is_pasted_into_a_shell_is_one_word() {
        for (word, safe) in [
            ("bot/memory@3", "bot/memory@3"),
            ("bot/my notes@2", "'bot/my notes@2'"),
            ("bot/$(touch x)", "'bot/$(touch x)'"),
            ("bot/it's", r"'bot/it'\''s'"),
            ("~root/x", "'~root/x'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), safe);
        }
        let out = Out {
            json: false,
            quiet: false,
            options: "--storage 's3://b?region=r' ",
        };
        assert_eq!(
            out.command("restore", "-dash/x@1"),
            "persist restore --storage 's3://b?region=r' -- -dash/x@1"
        );
    }
}
