//! JSON as a tree that can be folded. Numbers, strings and repeated keys are shown as they are
//! written: a parser would change some of them.

use std::fmt;

use maud::{Markup, html};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::text;

/// Values of a tree, entries of one object or array, and levels, at most. The text has them all.
const MAX_VALUES: usize = 2000;
const MAX_ENTRIES: usize = 500;
const MAX_DEPTH: usize = 32;

/// Characters of a string, at most.
const MAX_STRING: usize = 2000;

/// Entries up to this level are unfolded.
const OPEN: usize = 2;

/// Returns a state as a tree; none where it is not JSON.
pub(super) fn tree(state: &[u8]) -> Option<Markup> {
    let value: &RawValue = serde_json::from_slice(state).ok()?;
    let mut left = MAX_VALUES;
    Some(html! { div .tree { (node(None, value.get(), 0, &mut left)) } })
}

/// The entries of an object or array, and how many are left out.
struct Entries<'a> {
    shown: Vec<(Option<String>, &'a RawValue)>,
    hidden: usize,
}

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Entries {
            shown: Vec::new(),
            hidden: 0,
        };
        while entries.shown.len() < MAX_ENTRIES {
            match map.next_entry::<String, &RawValue>()? {
                Some((key, value)) => entries.shown.push((Some(key), value)),
                None => return Ok(entries),
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            entries.hidden += 1;
        }
        Ok(entries)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut entries = Entries {
            shown: Vec::new(),
            hidden: 0,
        };
        while entries.shown.len() < MAX_ENTRIES {
            match seq.next_element::<&RawValue>()? {
                Some(value) => entries.shown.push((None, value)),
                None => return Ok(entries),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            entries.hidden += 1;
        }
        Ok(entries)
    }
}

fn node(key: Option<&str>, json: &str, depth: usize, left: &mut usize) -> Markup {
    *left = left.saturating_sub(1);
    let is_object = json.starts_with('{');
    if !is_object && !json.starts_with('[') {
        return html! { div .leaf { (label(key)) (scalar(json)) } };
    }
    let entries = if depth < MAX_DEPTH {
        serde_json::from_str::<Entries<'_>>(json).ok()
    } else {
        None
    };
    let Some(entries) = entries else {
        return html! { div .leaf { (label(key)) span .muted { "… too deep: see the text" } } };
    };
    let count = entries.shown.len() + entries.hidden;
    let what = if is_object {
        text::count(count as u64, "key")
    } else {
        text::count(count as u64, "value")
    };
    let mut hidden = entries.hidden;
    let mut children = Vec::new();
    for (at, (key, value)) in entries.shown.iter().enumerate() {
        if *left == 0 {
            hidden += entries.shown.len() - at;
            break;
        }
        let index = at.to_string();
        let key = match key {
            Some(key) => serde_json::Value::from(key.as_str()).to_string(),
            None => index,
        };
        children.push(node(Some(&key), value.get(), depth + 1, left));
    }
    html! {
        details open[depth < OPEN] {
            summary {
                (label(key))
                span .muted { @if is_object { "{" } @else { "[" } (what)
                    @if is_object { "}" } @else { "]" } }
            }
            div .entries {
                @for child in &children { (child) }
                @if hidden > 0 {
                    div .leaf.muted { "… " (hidden) " more: see the text" }
                }
            }
        }
    }
}

fn label(key: Option<&str>) -> Markup {
    html! { @if let Some(key) = key {
        bdi .key { (shown(key)) } ": "
    } }
}

fn scalar(json: &str) -> Markup {
    let class = match json.as_bytes().first() {
        Some(b'"') => "string",
        Some(b't' | b'f' | b'n') => "word",
        _ => "numeral",
    };
    html! { bdi class=(class) { (shown(json)) } }
}

/// Returns the beginning of a text on one line.
fn shown(text: &str) -> String {
    match text.char_indices().nth(MAX_STRING) {
        Some((end, _)) => {
            let rest = text.len() - end;
            format!("{}… {rest} more bytes", text::one_line(&text[..end]))
        }
        None => text::one_line(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Option<String> {
        tree(json.as_bytes()).map(|tree| tree.into_string())
    }

    #[test]
    fn values_are_shown_as_they_are_written() {
        let json = r#"{"a": 12345678901234567890123, "a": 1.50, "e": 1e400, "s": "\u0041<b>"}"#;
        let tree = of(json).expect("JSON");
        for text in [
            "12345678901234567890123",
            "1.50",
            "1e400",
            "\\u0041&lt;b&gt;",
        ] {
            assert!(tree.contains(text), "{text}: {tree}");
        }
        assert_eq!(tree.matches("&quot;a&quot;").count(), 2, "{tree}");
    }

    #[test]
    fn a_tree_is_no_markup_and_turns_no_text() {
        let tree = of("{\"<script>\u{202e}\": \"</div>\u{200f}\"}").expect("JSON");
        assert!(!tree.contains("<script>"), "{tree}");
        assert_eq!(tree.matches("</div>").count(), 3, "{tree}");
        assert!(!tree.contains(['\u{202e}', '\u{200f}']), "{tree}");
    }

    #[test]
    fn a_tree_is_bounded() {
        let long = format!("[{}0]", "0,".repeat(1_000_000));
        let tree = of(&long).expect("JSON");
        assert!(tree.contains("… 999501 more: see the text"));
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        let tree = of(&deep).expect("JSON");
        assert!(tree.contains("too deep"));
        let wide = format!("[{}[]]", "[0,0,0,0,0,0],".repeat(1000));
        assert!(of(&wide).expect("JSON").len() < 1 << 20);
        let string = format!("[\"{}\"]", "x".repeat(1 << 20));
        assert!(of(&string).expect("JSON").len() < 1 << 14);
    }

    #[test]
    fn what_is_not_json_is_no_tree() {
        for json in ["", "{", "[1,]", "{\"a\"}", "[] x", "\u{feff}{}"] {
            assert!(of(json).is_none(), "{json}");
        }
        assert!(tree(b"[\"\xff\"]").is_none(), "not UTF-8");
    }
}
