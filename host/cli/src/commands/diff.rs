//! How two states differ.

use std::io;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use persist_host::snapshot::{Error, Info, Reader, Store};
use serde_json::{Value, json};
use similar::TextDiff;

use super::{CHUNK, nothing};
use crate::address::Address;
use crate::error::Hinted;
use crate::print::{self, Out};
use crate::text::{self, plain};
use crate::when::{At, When};

/// Larger states are compared by their hashes only: such a difference is not readable, and both are
/// held in memory.
const MAX: u64 = 4 << 20;

/// JSON that is longer a value a line is compared as the text that it is.
const MAX_PRETTY: usize = 16 << 20;

/// A difference that takes longer to find is shown coarser.
const PATIENCE: Duration = Duration::from_secs(2);

/// Compare two versions: size, hash, time and, for text and JSON, the state
///
/// JSON is compared in an indented form, one value a line. States over 4 MiB are compared by hash
/// only.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist diff bot/memory
  persist diff bot/memory@3 bot/memory@7
  persist diff bot/memory --at yesterday")]
pub(crate) struct Diff {
    /// Address: agent/name or agent/session/name; @N selects version N [default: the newest]
    from: Address,
    /// Address to compare with FROM [default: FROM, compared with the version before it]
    to: Option<Address>,
    /// Compare the newest version of FROM that was created at TIME or before with TO [default: the
    /// newest version]: 2026-11-26T14:05 (local time unless it has a zone), 2026-11-26, 14:05,
    /// `yesterday 14:05` or `2h ago`
    #[arg(long, value_name = "TIME")]
    at: Option<When>,
}

/// One side of a comparison.
struct Side {
    address: String,
    info: Info,
    /// None where the state is too large to be shown.
    state: Option<Bytes>,
}

impl Diff {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let at = At { at: self.at };
        let (from, to) = match self.to {
            Some(to) if self.at.is_some() => (at.of(store, &self.from, out).await?, to),
            None if self.at.is_some() => {
                let name = Address {
                    version: None,
                    ..self.from.clone()
                };
                (at.of(store, &name, out).await?, self.from)
            }
            Some(to) => (self.from, to),
            None => (before(store, &self.from, out).await?, self.from),
        };
        let from = side(store, &from).await?;
        let to = side(store, &to).await?;
        let same = (from.info.deleted, &from.info.sha256) == (to.info.deleted, &to.info.sha256);
        let value = json!({
            "from": print::info(&from.address, &from.info),
            "to": print::info(&to.address, &to.info),
            "same": same,
        });
        Ok(out.print(&value, || text(&from, &to, same))?)
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
            *newest.first().ok_or_else(|| nothing(address))?
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
    let info = scope.stat(name, address.version).await?;
    let info = info.ok_or_else(|| nothing(address))?;
    let version = Some(info.version);
    let state = if info.size > MAX {
        None
    } else {
        match scope.reader(name, version).await? {
            Some(mut reader) => Some(whole(&mut reader).await?),
            None => Some(Bytes::new()),
        }
    };
    Ok(Side {
        address: address.at(info.version),
        info,
        state,
    })
}

async fn whole(reader: &mut Reader) -> Result<Bytes> {
    let mut state = Vec::new();
    loop {
        let piece = reader.read(state.len() as u64, CHUNK).await?;
        if piece.is_empty() {
            return Ok(state.into());
        }
        state.extend_from_slice(&piece);
    }
}

fn text(from: &Side, to: &Side, same: bool) -> String {
    let mut lines = vec![
        format!("from        {}", summary(from)),
        format!("to          {}", summary(to)),
        format!("size        {}", change(from.info.size, to.info.size)),
    ];
    let millis = to.info.created_at.abs_diff(from.info.created_at);
    let apart = humantime::format_duration(Duration::from_secs(millis / 1000));
    lines.push(format!("apart       {apart}"));
    lines.push(if same {
        "state       the same".into()
    } else {
        format!("state       {}", difference(from, to))
    });
    lines.join("\n")
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

/// Describes the difference that people can see.
fn difference(from: &Side, to: &Side) -> String {
    let (Some(old), Some(new)) = (&from.state, &to.state) else {
        return "differs and is too large to show; `persist cat` prints each".into();
    };
    let texts = match (as_json(old), as_json(new)) {
        // Where it is the same as JSON, its numbers, spaces or order may not be.
        (Some(old), Some(new)) if old != new => Some(("as JSON", old, new)),
        _ => as_text(old)
            .zip(as_text(new))
            .map(|(old, new)| ("as text", old, new)),
    };
    let Some((how, old, new)) = texts else {
        let first = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        return format!("differs from byte {first} on; not text");
    };
    let mut config = TextDiff::configure();
    let diff = config.timeout(PATIENCE).diff_lines(&old, &new);
    let mut hunks = diff.unified_diff();
    let hunks = hunks.context_radius(3).header(&from.address, &to.address);
    format!("differs, {how}:\n{}", plain(hunks.to_string().trim_end()))
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
