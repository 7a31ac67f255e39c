//! Texts for people and shells: sizes, times, quoting, and escapes of what a terminal obeys.

use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use anstyle::Style;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::unseen::is_unseen;

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

/// Quotes a text as one word of a shell. Agents choose names, and people paste what is printed.
pub(crate) fn quoted(word: &str) -> String {
    match shlex::try_quote(word) {
        Ok(quoted) => quoted.into_owned(),
        // Neither a name nor an argument of a process contains NUL.
        Err(_) => quoted(&word.replace('\0', "")),
    }
}

/// Writes milliseconds since 1970 as a time in UTC; none for a time after the year 9999.
pub(crate) fn rfc3339(millis: u64) -> Option<String> {
    const MAX_MILLIS: u64 = 253_402_300_799_999;
    let time = UNIX_EPOCH + Duration::from_millis(millis);
    (millis <= MAX_MILLIS).then(|| humantime::format_rfc3339_millis(time).to_string())
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

/// Writes milliseconds since 1970 for people: RFC 3339 in the time zone of this process, with the
/// offset from UTC.
pub(crate) fn time(millis: u64) -> String {
    static ZONE: OnceLock<TimeZone> = OnceLock::new();
    time_in(millis, ZONE.get_or_init(TimeZone::system))
}

fn time_in(millis: u64, zone: &TimeZone) -> String {
    // A trailer may say any number.
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    let time = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX);
    let time = time.to_zoned(zone.clone());
    let offset = if time.offset().is_zero() { "Z" } else { "%:z" };
    time.strftime(&format!("%Y-%m-%dT%H:%M:%S{offset}"))
        .to_string()
}

/// Returns a text in a style, where colours are shown.
pub(crate) fn painted(is_coloured: bool, style: Style, text: &str) -> String {
    if is_coloured && !style.is_plain() && !text.is_empty() {
        format!("{style}{text}{style:#}")
    } else {
        text.to_owned()
    }
}

/// Returns a duration as options take it: with days, and neither months nor years, which have no
/// length that everyone agrees on.
pub(crate) fn duration(time: Duration) -> String {
    let days = time.as_secs() / DAY;
    let rest = time - Duration::from_secs(days * DAY);
    match (days, rest) {
        (0, rest) => humantime::format_duration(rest).to_string(),
        (days, Duration::ZERO) => format!("{days}d"),
        (days, rest) => format!("{days}d {}", humantime::format_duration(rest)),
    }
}

const DAY: u64 = 24 * 60 * 60;

/// Letters to insert, remove or change to make one word of the other.
pub(crate) fn distance(one: &str, other: &str) -> usize {
    strsim::levenshtein(one, other)
}

/// Returns the word of a list that another word is a misspelling of.
pub(crate) fn nearest<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.len() / 3).min(3);
    let near = words
        .into_iter()
        .map(|known| (distance(word, known), known));
    let near = near.filter(|(letters, _)| *letters <= most);
    near.min_by_key(|(letters, _)| *letters)
        .map(|(_, known)| known)
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
pub(crate) struct Plainly(TextDecoder);

impl Plainly {
    /// Returns the next piece as it can be shown.
    pub(crate) fn piece(&mut self, piece: &[u8]) -> String {
        plain(&self.0.piece(piece))
    }

    /// Returns what is left.
    pub(crate) fn end(mut self) -> String {
        plain(&self.0.end())
    }
}

/// Decodes UTF-8 that comes in pieces, as [`String::from_utf8_lossy`] decodes the whole.
#[derive(Debug, Default)]
pub(crate) struct TextDecoder {
    /// The beginning of a character whose end is in the next piece.
    rest: Vec<u8>,
}

impl TextDecoder {
    /// Returns the text of the next piece, up to its last whole character.
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
        String::from_utf8_lossy(now).into_owned()
    }

    /// Returns the text of what is left: a character that was not finished.
    pub(crate) fn end(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned()
    }
}

/// Returns true where bytes are the beginning of a character.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sizes_are_said_in_a_unit_that_suits_them() {
        let sizes = [0, 1023, 1024, 1536, 5 << 30].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
    }

    #[test]
    fn times_are_local_and_tell_their_zone() {
        let millis = 1_795_000_000_123;
        let utc = time_in(millis, &TimeZone::UTC);
        assert_eq!(utc, "2026-11-18T11:06:40Z");
        let tehran = TimeZone::fixed(
            jiff::tz::offset(3).saturating_add(jiff::SignedDuration::from_mins(30)),
        );
        assert_eq!(time_in(millis, &tehran), "2026-11-18T14:36:40+03:30");
        assert!(time_in(u64::MAX, &tehran).starts_with("9999-12-"));
        assert_eq!(rfc3339(millis).as_deref(), Some("2026-11-18T11:06:40.123Z"));
    }

    #[test]
    fn a_duration_is_shown_in_days_and_can_be_typed_back() {
        for (seconds, shown) in [
            (0, "0s"),
            (3600, "1h"),
            (DAY, "1d"),
            (90 * DAY, "90d"),
            (36 * DAY + 43_200, "36d 12h"),
        ] {
            let time = Duration::from_secs(seconds);
            assert_eq!(duration(time), shown);
            assert_eq!(humantime::parse_duration(shown), Ok(time), "{shown}");
        }
    }

    #[test]
    fn only_a_misspelling_is_close() {
        for (one, other, letters) in [
            ("--sort", "--storage", 4),
            ("--storge", "--storage", 1),
            ("--dryrun", "--dry-run", 1),
            ("", "ab", 2),
        ] {
            assert_eq!(distance(one, other), letters, "{one} {other}");
        }
        assert_eq!(nearest("memroy", ["memory", "runs"]), Some("memory"));
        assert_eq!(nearest("bucket", ["s3_bucket", "gcs_bucket"]), None);
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
            ("bot/it's", r#""bot/it's""#),
            (r"bot/it's $x\y", r#""bot/it's "'$x'"\\y""#),
            ("bot/~/50%", "'bot/~/50%'"),
            ("bot/日本", "'bot/日本'"),
            ("a\0b", "ab"),
            ("~root/x", "'~root/x'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), safe);
            let words = shlex::split(safe).expect("whole quotes");
            assert_eq!(words, [word.replace('\0', "")]);
        }
    }
}
