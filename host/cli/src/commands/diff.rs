//! How two states differ.

use std::io;
use std::time::Duration;

use anstyle::Style;
use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{Error, Info, Reader, Store};
use serde_json::{Value, json};
use similar::TextDiff;

use super::{CHUNK, explain, missing};
use crate::address::{Address, Target};
use crate::compute::compute;
use crate::error::{Hinted, Usage};
use crate::print::{self, Out};
use crate::select::{Conditions, Missed};
use crate::stdio::{BAD, DIM, GOOD, stdout_is_coloured};
use crate::text::{self, painted, plain};
use crate::when::{At, When};

/// States up to this size are held whole, and so is the part in which larger ones differ. A longer
/// difference is not readable.
const MAX: u64 = 4 << 20;

/// JSON that is longer a value a line is compared as the text that it is.
const MAX_PRETTY: usize = 16 << 20;

/// A difference that takes longer to find is shown coarser.
const PATIENCE: Duration = Duration::from_secs(2);

/// Compare two versions: size, hash, time and the state
///
/// Shows at which bytes the states differ and, for text, the lines. JSON up to 4 MiB is compared in
/// an indented form, one value a line. Of larger states, the lines are shown if the part that
/// differs is text of at most 4 MiB. Memory does not grow with the states.
///
/// Of an agent, a session or a glob, compares each name as FROM alone. Conditions select names by
/// their newest version. Names with one version, and with --at names that did not exist then, are
/// left alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist diff bot/memory
  persist diff bot/memory@3 bot/memory@7
  persist diff bot/memory --at yesterday
  persist diff bot --since '2h ago'")]
pub(crate) struct Diff {
    /// Address: agent/name or agent/session/name; @N selects version N [default: the newest]. Or an
    /// agent or a session, agent or agent/session/, of which each part may be a glob
    #[arg(value_name = "FROM")]
    from: Target,
    /// Address to compare with FROM [default: FROM, compared with the version before it]
    to: Option<Address>,
    /// Compare the newest version of FROM that was created at TIME or before with TO [default: the
    /// newest version]: 2026-11-26T14:05 (local time unless it has a zone), 2026-11-26, 14:05,
    /// `yesterday 14:05` or `2h ago`
    #[arg(long, value_name = "TIME")]
    at: Option<When>,
    #[command(flatten)]
    conditions: Conditions,
}

/// One side of a comparison.
struct Side {
    address: String,
    info: Info,
    /// None where there is no state, as in a tombstone.
    reader: Option<Reader>,
}

impl Side {
    /// Returns the bytes of the state from `start` to before `end`.
    async fn read(&mut self, start: u64, end: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let Some(reader) = &mut self.reader else {
            return Ok(bytes);
        };
        while start + (bytes.len() as u64) < end {
            let at = start + bytes.len() as u64;
            let len = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let piece = reader.read(at, len).await?;
            if piece.is_empty() {
                break;
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes)
    }
}

/// Bytes in which two states differ. A byte that only the longer one has differs.
#[derive(Debug, Default)]
struct Bytes {
    /// First and last byte that differs.
    range: Option<(u64, u64)>,
    /// Bytes that differ, at the same offset of both.
    changed: u64,
    /// Runs of such bytes.
    ranges: u64,
    /// Bytes at the end that are the same, counted from the end of each.
    same_end: u64,
    /// Line of the first byte that differs, from 1.
    line: u64,
    /// Offset at which this line begins.
    line_start: u64,
    /// One of the states is not text.
    is_binary: bool,
}

/// Lines in which two states differ.
struct Lines {
    /// `json` or `text`.
    format: &'static str,
    /// A unified difference.
    diff: String,
}

impl Diff {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let address = match &self.from {
            Target::Version(address) => {
                self.conditions.none_of_versions()?;
                Some(address.clone())
            }
            Target::Names(selection) => {
                Address::of(&selection.0).filter(|_| self.conditions.is_empty())
            }
        };
        let Some(address) = address else {
            return self.each(store, out).await;
        };
        let at = At { at: self.at };
        let (from, to) = match self.to {
            Some(to) if self.at.is_some() => (at.of(store, &address, out).await?, to),
            None if self.at.is_some() => {
                let name = Address {
                    version: None,
                    ..address.clone()
                };
                (at.of(store, &name, out).await?, address)
            }
            Some(to) => (address, to),
            None => (before(store, &address, out).await?, address),
        };
        let compared = Comparison::of(store, &from, &to).await?;
        Ok(out.result(&compared.value(), || compared.text())?)
    }

    /// Compares each of several names with what it was.
    async fn each(&self, store: &Store, out: Out) -> Result<()> {
        let Target::Names(selection) = &self.from else {
            return Ok(());
        };
        if self.to.is_some() {
            let what = "TO is for one name, and FROM selects several or has a condition";
            return Err(Usage::new(what)
                .with_hint("remove TO, or write two addresses and no condition")
                .into());
        }
        let selections = std::slice::from_ref(selection);
        let picked = self.conditions.pick(store, selections).await?;
        let mut missed = Missed::new(out);
        missed.unreadable(&picked.unreadable)?;
        let mut compared = 0_u64;
        let mut unchanged = 0_u64;
        for head in picked.heads {
            let name = Address::in_scope(&head.scope, head.name);
            let newest = match head.info {
                Ok(info) => info.version,
                Err(error) => {
                    missed.damaged(&name.name(), &error)?;
                    continue;
                }
            };
            let older = match self.at {
                None => {
                    let older = head.scope.versions(name.name.as_str(), Some(newest), 1);
                    older.await?.first().copied()
                }
                Some(when) => {
                    let past = when.find(&head.scope, &name.name).await?;
                    match missed.past(&name, when, past)? {
                        None => continue,
                        Some(info) if info.version == newest => {
                            unchanged += 1;
                            continue;
                        }
                        Some(info) => Some(info.version),
                    }
                }
            };
            let Some(older) = older else {
                let version = name.at(newest);
                out.note(format_args!("{version} has no version before it"));
                continue;
            };
            let [from, to] = [older, newest].map(|version| Address {
                version: Some(version),
                ..name.clone()
            });
            // A damaged version does not hide the others.
            let comparison = match Comparison::of(store, &from, &to).await {
                Ok(comparison) => comparison,
                Err(error) => match error.downcast::<Error>() {
                    Ok(error) if store.is_of_one_place(&error).await => {
                        missed.damaged(&from.name(), &error)?;
                        continue;
                    }
                    Ok(error) => return Err(error.into()),
                    Err(error) => return Err(error),
                },
            };
            let gap = if compared > 0 { "\n" } else { "" };
            compared += 1;
            out.result(&comparison.value(), || gap.to_owned() + &comparison.text())?;
        }
        if unchanged > 0 {
            let names = text::count(unchanged, "name");
            out.note(format_args!("{names} did not change"));
        }
        missed.end(compared + unchanged > 0)
    }
}

/// Two versions and their difference.
pub(crate) struct Comparison {
    from: Side,
    to: Side,
    same: bool,
    /// None where the states are the same, or one of them is deleted.
    difference: Option<(Bytes, Option<Lines>)>,
}

impl Comparison {
    /// Compares the versions that two addresses name.
    pub(crate) async fn of(store: &Store, from: &Address, to: &Address) -> Result<Self> {
        let mut from = side(store, from).await?;
        let mut to = side(store, to).await?;
        let same = (from.info.deleted, &from.info.sha256) == (to.info.deleted, &to.info.sha256);
        let longer = from.info.size.max(to.info.size);
        let mut difference = None;
        if !same && !from.info.deleted && !to.info.deleted {
            let mut bytes = compared(&mut from, &mut to).await?;
            let lines = lines(&mut from, &mut to, &bytes).await?;
            bytes.is_binary |= lines.is_none() && longer <= MAX;
            difference = Some((bytes, lines));
        }
        Ok(Self {
            from,
            to,
            same,
            difference,
        })
    }

    /// Returns the comparison as JSON.
    pub(crate) fn value(&self) -> Value {
        let Self { from, to, .. } = self;
        let difference = self.difference.as_ref();
        let longer = from.info.size.max(to.info.size);
        json!({
            "from": print::info(&from.address, &from.info),
            "to": print::info(&to.address, &to.info),
            "same": self.same,
            "bytes": difference.map(|(bytes, _)| bytes.value(longer)),
            "format": difference.and_then(|(bytes, lines)| match lines {
                Some(lines) => Some(lines.format),
                None => bytes.is_binary.then_some("binary"),
            }),
            "diff": difference.and_then(|(_, lines)| Some(lines.as_ref()?.diff.as_str())),
        })
    }

    fn text(&self) -> String {
        text(&self.from, &self.to, self.same, self.difference.as_ref())
    }
}

/// The version before the one that is meant.
async fn before(store: &Store, address: &Address, out: Out) -> Result<Address> {
    let scope = address.scope(store)?;
    let name = address.name.as_str();
    let version = match address.version {
        Some(version) => version,
        None => {
            let newest = scope.versions(name, None, 1).await?;
            match newest.first() {
                Some(&newest) => newest,
                None => return Err(missing(store, address).await),
            }
        }
    };
    let older = scope.versions(name, Some(version), 1).await?;
    match older.first() {
        Some(&older) => Ok(Address {
            version: Some(older),
            ..address.clone()
        }),
        None => {
            let error = Error::NotFound(format!("no version before {}", address.at(version)));
            let history = out.command("history", &address.name());
            let hint = format!("run `{history}` to list versions");
            let error = error.into();
            Err(Hinted { error, hint }.into())
        }
    }
}

async fn side(store: &Store, address: &Address) -> Result<Side> {
    let scope = address.scope(store)?;
    let name = address.name.as_str();
    let info = match scope.stat(name, address.version).await {
        Ok(Some(info)) => info,
        Ok(None) => return Err(missing(store, address).await),
        Err(error) => return Err(explain(store, &scope, address, error).await),
    };
    let reader = scope.reader(name, Some(info.version)).await?;
    Ok(Side {
        address: address.at(info.version),
        info,
        reader,
    })
}

/// Compares two states, a piece after the other.
async fn compared(from: &mut Side, to: &mut Side) -> Result<Bytes> {
    let mut found = Bytes {
        line: 1,
        ..Bytes::default()
    };
    let shorter = from.info.size.min(to.info.size);
    let longer = from.info.size.max(to.info.size);
    let mut was_different = false;
    let mut at = 0;
    while at < shorter {
        let end = shorter.min(at + CHUNK as u64);
        let old = from.read(at, end).await?;
        let new = to.read(at, end).await?;
        let is_same = old == new;
        // Text has no NUL, and other files have many.
        found.is_binary |= old.contains(&0) || new.contains(&0);
        for (offset, (a, b)) in (at..).zip(old.iter().zip(&new)) {
            if is_same && found.range.is_some() {
                // Nothing in this piece counts.
                was_different = false;
                break;
            }
            if a == b {
                was_different = false;
                if found.range.is_none() && *a == b'\n' {
                    found.line += 1;
                    found.line_start = offset + 1;
                }
                continue;
            }
            let first = found.range.map_or(offset, |(first, _)| first);
            found.range = Some((first, offset));
            found.changed += 1;
            found.ranges += u64::from(!was_different);
            was_different = true;
        }
        at = end;
    }
    if longer > shorter {
        let first = found.range.map_or(shorter, |(first, _)| first);
        found.range = Some((first, longer - 1));
        found.changed += longer - shorter;
        found.ranges += u64::from(!was_different);
    }
    found.same_end = match found.range {
        Some((_, last)) if longer == shorter => longer - 1 - last,
        range => same_end(from, to, range.map_or(shorter, |(first, _)| first)).await?,
    };
    Ok(found)
}

/// Counts the bytes at the ends of two states that are the same, but none of the first `start`.
async fn same_end(from: &mut Side, to: &mut Side, start: u64) -> Result<u64> {
    let sizes = [from.info.size, to.info.size];
    let most = sizes[0].min(sizes[1]).saturating_sub(start);
    let mut same = 0;
    while same < most {
        let more = most.min(same + CHUNK as u64);
        let old = from.read(sizes[0] - more, sizes[0] - same).await?;
        let new = to.read(sizes[1] - more, sizes[1] - same).await?;
        let pairs = old.iter().rev().zip(new.iter().rev());
        let here = pairs.take_while(|(a, b)| a == b).count() as u64;
        same += here;
        if same < more {
            break;
        }
    }
    Ok(same)
}

impl Bytes {
    fn value(&self, longer: u64) -> Value {
        json!({
            "first": self.range.map(|(first, _)| first),
            "last": self.range.map(|(_, last)| last),
            "changed": self.changed,
            "ranges": self.ranges,
            "share": self.changed as f64 / longer.max(1) as f64,
            "same_at_end": self.same_end,
        })
    }

    fn text(&self, longer: u64) -> String {
        let (first, last) = self.range.unwrap_or_default();
        let share = 100.0 * self.changed as f64 / longer.max(1) as f64;
        let ranges = text::count(self.ranges, "range");
        let end = match self.same_end {
            0 => String::new(),
            1 => "; the last byte is the same".into(),
            same => format!("; the last {same} bytes are the same"),
        };
        format!(
            "differs from byte {first} on: {} of {longer} bytes ({share:.1} %) in {ranges}, the \
             last at byte {last}{end}",
            self.changed
        )
    }
}

fn text(from: &Side, to: &Side, same: bool, difference: Option<&(Bytes, Option<Lines>)>) -> String {
    let mut lines = vec![
        format!("from        {}", summary(from)),
        format!("to          {}", summary(to)),
        format!("size        {}", change(from.info.size, to.info.size)),
    ];
    let millis = to.info.created_at.abs_diff(from.info.created_at);
    let apart = humantime::format_duration(Duration::from_secs(millis / 1000));
    let order = if to.info.created_at < from.info.created_at {
        "earlier"
    } else {
        "later"
    };
    lines.push(format!("created     {apart} {order}"));
    let longer = from.info.size.max(to.info.size);
    lines.push(match difference {
        None if same => "state       the same, by SHA-256".into(),
        None => "state       only one of them is deleted".into(),
        Some((bytes, None)) => {
            let why = if bytes.is_binary {
                "not text"
            } else {
                "too much of it to show"
            };
            format!("state       {}; {why}", bytes.text(longer))
        }
        Some((bytes, Some(lines))) => {
            let Lines { format, diff } = lines;
            let how = match *format {
                "json" => "as JSON",
                _ => "as text",
            };
            let shown = coloured(&plain(diff.trim_end()));
            format!(
                "state       {}\ndiffers, {how}:\n{shown}",
                bytes.text(longer)
            )
        }
    });
    lines.join("\n")
}

/// Colours the lines of a unified difference by their first characters.
fn coloured(diff: &str) -> String {
    let is_coloured = stdout_is_coloured();
    let lines = diff.lines().map(|line| {
        let style = match line.as_bytes() {
            [b'+', ..] => GOOD,
            [b'-', ..] => BAD,
            [b'@', b'@', ..] => DIM,
            _ => Style::new(),
        };
        painted(is_coloured, style, line)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn summary(side: &Side) -> String {
    let info = &side.info;
    let what = if info.deleted {
        "deleted".to_owned()
    } else {
        format!("sha256 {}", info.sha256.get(..16).unwrap_or_default())
    };
    format!("{}  {}  {what}", side.address, text::time(info.created_at))
}

fn change(from: u64, to: u64) -> String {
    let sign = if to < from { "-" } else { "+" };
    let by = text::bytes(to.abs_diff(from));
    format!("{} -> {} ({sign}{by})", text::bytes(from), text::bytes(to))
}

/// Returns the difference that people can see; none where a state is not text, or too much differs.
async fn lines(from: &mut Side, to: &mut Side, bytes: &Bytes) -> Result<Option<Lines>> {
    let [old_size, new_size] = [from.info.size, to.info.size];
    let names = [from.address.clone(), to.address.clone()];
    if old_size <= MAX && new_size <= MAX {
        let old = from.read(0, old_size).await?;
        let new = to.read(0, new_size).await?;
        return compute(move || lines_of_whole(&old, &new, &names)).await;
    }
    // Whole lines, of which the first begins before the first byte that differs.
    let start = bytes.line_start;
    let [old_end, new_end] = [old_size, new_size].map(|size| size - bytes.same_end);
    let rest = bytes.same_end.min(CHUNK as u64);
    if old_end.max(new_end).saturating_sub(start) > MAX {
        return Ok(None);
    }
    let end = from.read(old_end, old_end + rest).await?;
    let line_end = end.iter().position(|byte| *byte == b'\n');
    let line_end = match line_end {
        Some(at) => at as u64 + 1,
        None if rest == bytes.same_end => rest,
        // The line is too long to be read.
        None => return Ok(None),
    };
    let old = from.read(start, old_end + line_end).await?;
    let new = to.read(start, new_end + line_end).await?;
    let names = names.map(|name| format!("{name} (from line {})", bytes.line));
    compute(move || lines_of_text(&old, &new, &names)).await
}

/// Compares two whole states as JSON, or else as text.
fn lines_of_whole(old: &[u8], new: &[u8], names: &[String; 2]) -> Option<Lines> {
    match (as_json(old), as_json(new)) {
        // Where it is the same as JSON, its numbers, spaces or order may not be.
        (Some(old), Some(new)) if old != new => Some(Lines {
            format: "json",
            diff: unified(&old, &new, names),
        }),
        _ => lines_of_text(old, new, names),
    }
}

fn lines_of_text(old: &[u8], new: &[u8], names: &[String; 2]) -> Option<Lines> {
    let (old, new) = as_text(old).zip(as_text(new))?;
    Some(Lines {
        format: "text",
        diff: unified(&old, &new, names),
    })
}

fn unified(old: &str, new: &str, names: &[String; 2]) -> String {
    let mut config = TextDiff::configure();
    let diff = config.timeout(PATIENCE).diff_lines(old, new);
    let mut hunks = diff.unified_diff();
    hunks
        .context_radius(3)
        .header(&names[0], &names[1])
        .to_string()
}

/// JSON, a value a line; none where it is none, or becomes longer than anybody reads: brackets
/// within brackets are indented.
fn as_json(state: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(state).ok()?;
    // A number or a word alone is better read as the text that it is.
    if !value.is_object() && !value.is_array() {
        return None;
    }
    let mut pretty = Limited(Vec::new());
    serde_json::to_writer_pretty(&mut pretty, &value).ok()?;
    String::from_utf8(pretty.0).ok().map(|text| text + "\n")
}

/// A text of at most [`MAX_PRETTY`] bytes.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PRETTY {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn as_text(state: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(state).ok()?;
    (!text.contains('\0')).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::time::Instant;

    use persist_host::snapshot::{Name, SaveOptions};
    use persist_host::storage::Memory;

    use super::*;

    #[tokio::test]
    async fn a_long_comparison_leaves_the_threads_of_the_runtime_free() {
        const LINES: u64 = 200_000;
        let store = Store::new(Arc::new(Memory::new()));
        let scope = store.scope("bot", None).expect("a scope");
        for factor in [1, 7919] {
            let lines = (0..LINES).map(|line| format!("{}\n", line * factor % LINES));
            let state = lines.collect::<String>();
            let saved = scope.save("x", state.into(), SaveOptions::default()).await;
            saved.expect("saved");
        }
        let side = |version| Address {
            agent: scope.agent().clone(),
            session: None,
            name: Name::new("x").expect("a name"),
            version: Some(version),
        };
        let longest = Cell::new(Duration::ZERO);
        let others = async {
            while longest.get() < Duration::MAX {
                let begun = Instant::now();
                tokio::time::sleep(Duration::from_millis(5)).await;
                longest.set(longest.get().max(begun.elapsed()));
            }
        };
        let begun = Instant::now();
        let (from, to) = (side(1), side(2));
        let compared = tokio::select! {
            compared = Comparison::of(&store, &from, &to) => compared.expect("compared"),
            () = others => unreachable!("it has no end"),
        };
        assert!(compared.value()["diff"].is_string());
        let (whole, longest) = (begun.elapsed(), longest.get());
        assert!(longest * 2 < whole, "{longest:?} of {whole:?}");
    }
}
