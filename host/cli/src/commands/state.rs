//! Single states: shown, printed, saved, deleted, brought back, forked.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use persist_host::snapshot::{Error, Expect, Info, SaveOptions, Scope, Store, Version, Writer};

use super::{CHUNK, changed, deleted, expect, nothing};
use crate::address::Address;
use crate::error::{Code, Hinted, Usage};
use crate::exit::snapshot_code;
use crate::interrupt::Interrupt;
use crate::print::{self, Out};
use crate::progress::Progress;
use crate::stdio;
use crate::stores::Create;
use crate::text::Plainly;

/// Show the metadata of a version
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist show bot/memory
  persist show bot/memory@3 --json")]
pub(crate) struct Show {
    /// Address: agent/name or agent/session/name; @N selects version N [default: the newest]
    address: Address,
}

/// Print the state of a version
///
/// Writes the bytes unchanged, with --json too. On a terminal, control characters are escaped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist cat bot/memory
  persist cat bot/memory@3 > memory.json")]
pub(crate) struct Cat {
    /// Address: agent/name or agent/session/name; @N selects version N [default: the newest]
    address: Address,
}

/// Save a file or standard input as the next version
///
/// If another process saves the name while a state over 8 MiB is uploaded, a FILE is uploaded
/// again. Standard input cannot be read again, so the save fails with a conflict.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist save bot/memory memory.json --media-type application/json
  date | persist save bot/memory --label by=hand --expect 7")]
pub(crate) struct Save {
    /// Address of the name: agent/name or agent/session/name
    address: Address,
    /// File to save, or - for standard input [default: standard input, if it is not empty or is a
    /// pipe]
    file: Option<PathBuf>,
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    pub(crate) create: Create,
    /// Record the media type of the state, such as application/json
    #[arg(long, value_name = "MEDIA_TYPE")]
    media_type: Option<String>,
    /// Attach a label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
}

/// Delete a name; its older versions stay and can be restored
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist rm bot/memory
  persist rm bot/memory --expect 7")]
pub(crate) struct Rm {
    /// Address of the name: agent/name or agent/session/name
    address: Address,
    #[command(flatten)]
    expected: Expected,
}

/// Restore an older version by saving its state as the next version
///
/// Prints the command that undoes the restore. If the version is the newest, nothing is changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist restore bot/memory@3
  persist restore bot/memory@3 --expect 7")]
pub(crate) struct Restore {
    /// Address of the version: agent/name@N or agent/session/name@N
    address: Address,
    #[command(flatten)]
    expected: Expected,
}

/// Copy the state of a version to another name, agent or session
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist fork bot/memory bot/experiment
  persist fork bot/monday/memory@3 bot/tuesday/memory --expect absent")]
pub(crate) struct Fork {
    /// Address: agent/name or agent/session/name; @N selects version N [default: the newest]
    from: Address,
    /// Address of the name: agent/name or agent/session/name
    to: Address,
    #[command(flatten)]
    expected: Expected,
}

/// Condition on the newest version.
#[derive(Debug, Args)]
struct Expected {
    /// Fail unless the newest version is VERSION: a number, `absent` or `any` [default: any]
    #[arg(long, value_name = "VERSION", default_value = "any", value_parser = expect,
    hide_default_value = true)]
    expect: Expect,
}

impl Show {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let address = &self.address;
        let name = self.address.name.as_str();
        let scope = address.scope(store)?;
        let info = scope.stat(name, address.version).await?;
        let info = info.ok_or_else(|| nothing(address))?;
        let pinned = scope.pins(name).await?.contains(&info.version);
        let text = address.at(info.version);
        let mut value = print::info(&text, &info);
        value["pinned"] = pinned.into();
        Ok(out.print(&value, || print::details(&text, &info, pinned))?)
    }
}

impl Cat {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let address = &self.address;
        let name = self.address.name.as_str();
        let scope = address.scope(store)?;
        let Some(mut reader) = scope.reader(name, address.version).await? else {
            // Nothing at all, or a tombstone: these are different news.
            let info = scope.stat(name, address.version).await?;
            let info = info.ok_or_else(|| nothing(address))?;
            return Err(deleted(address, &info, out));
        };
        let mut stdout = io::stdout().lock();
        let mut plainly = stdout.is_terminal().then(Plainly::default);
        let mut progress = match plainly {
            Some(_) => Progress::none(),
            None => Progress::bytes(out, "printed", Some(reader.info().size)),
        };
        let mut offset = 0;
        loop {
            let piece = reader.read(offset, CHUNK).await;
            let piece = match offset {
                0 => piece?,
                _ => piece.with_context(|| {
                    format!("printed and verified only the first {offset} bytes")
                })?,
            };
            if piece.is_empty() {
                let rest = plainly.map(Plainly::end).unwrap_or_default();
                let written = stdout.write_all(rest.as_bytes());
                return Ok(written
                    .and_then(|()| stdout.flush())
                    .map_err(stdio::of_output)?);
            }
            let written = match &mut plainly {
                Some(plainly) => stdout.write_all(plainly.piece(&piece).as_bytes()),
                None => stdout.write_all(&piece),
            };
            written.map_err(stdio::of_output)?;
            offset += piece.len() as u64;
            progress.add(piece.len() as u64);
        }
    }
}

impl Save {
    pub(crate) async fn run(self, store: &Store, interrupt: &Interrupt, out: Out) -> Result<()> {
        let address = &self.address;
        address.whole_name(
            "`persist save` creates a new version; to save only after this one, add --expect",
        )?;
        let implied = self.file.is_none();
        let file = self.file.unwrap_or_else(|| "-".into());
        let mut options = SaveOptions::expecting(self.expected.expect);
        options.media_type = self.media_type;
        options.labels = self.label;
        let scope = address.scope(store)?;
        // Before the whole state is read.
        store.require().await?;
        let mut attempts = 1;
        let info = loop {
            let (input, size) = open(&file)?;
            // What was read of a pipe cannot be read again.
            let again = options.expect == Expect::Any && size.is_some() && attempts < MAX_ATTEMPTS;
            let mut progress = Progress::bytes(out, "saved", size);
            let send = async {
                let mut writer = scope.writer(address.name.as_str(), options.clone()).await?;
                let len = pour(input, &file, &mut writer, &mut progress).await?;
                if implied && len == 0 && !is_piped() {
                    return Err(Usage::new("standard input is empty and not a pipe")
                        .with_hint("name a FILE, or write - to save an empty state")
                        .into());
                }
                anyhow::Ok(interrupt.uninterruptible(writer.finish()).await?)
            };
            match send.await {
                Err(error) if again && is_conflict(&error) => attempts += 1,
                Err(error) if options.expect == Expect::Any => return Err(overtaken(error)),
                sent => break sent?,
            }
        };
        changed(address, &info, "saved", out)
    }
}

/// Exit code of a conflict.
const CONFLICT: u8 = 4;

/// Attempts to send a file while other saves of its name come first.
const MAX_ATTEMPTS: usize = 100;

/// Explains a conflict of a save that expects nothing: the newest version is no help.
fn overtaken(error: anyhow::Error) -> anyhow::Error {
    if !is_conflict(&error) {
        return error;
    }
    let what = "conflict: another save of this name came first while the state was sent, so \
        nothing was saved";
    let hint = "run the command again; a FILE is sent again automatically, standard input cannot";
    let error = Code(CONFLICT, what.into()).into();
    let hint = hint.into();
    Hinted { error, hint }.into()
}

fn is_conflict(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Conflict { .. }))
}

/// Source of the data to save.
type Input = Box<dyn Read + Send>;

/// The file to save, and its length where that is known.
fn open(file: &Path) -> Result<(Input, Option<u64>)> {
    match file.to_str() {
        Some("-") if io::stdin().is_terminal() => {
            Err(Usage::new("no state: standard input is a terminal")
                .with_hint("name a FILE, or pipe the state to standard input")
                .into())
        }
        Some("-") => Ok((Box::new(io::stdin()), None)),
        _ => {
            let opened =
                File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
            let size = opened.metadata().ok().filter(|metadata| metadata.is_file());
            Ok((Box::new(opened), size.map(|metadata| metadata.len())))
        }
    }
}

/// Returns true where standard input is a pipe or a socket. A closed one is /dev/null.
fn is_piped() -> bool {
    let Ok(metadata) = rustix::fs::fstat(io::stdin()) else {
        return false;
    };
    let kind = rustix::fs::FileType::from_raw_mode(metadata.st_mode);
    matches!(
        kind,
        rustix::fs::FileType::Fifo | rustix::fs::FileType::Socket
    )
}

/// Writes all of the input, and returns its length.
async fn pour(
    mut input: Input,
    file: &Path,
    writer: &mut Writer,
    progress: &mut Progress,
) -> Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut total = 0;
    loop {
        // On a thread of its own: the writer of a pipe may be slow, and uploads and
        // signals go on meanwhile.
        let reading = tokio::task::spawn_blocking(move || {
            let len = input.read(&mut chunk);
            (input, chunk, len)
        });
        let len;
        (input, chunk, len) = reading.await?;
        match len {
            Ok(0) => return Ok(total),
            Ok(len) => {
                writer.write(&chunk[..len]).await?;
                total += len as u64;
                progress.add(len as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("nothing was saved: cannot read {}", file.display()));
            }
        }
    }
}

impl Rm {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let address = &self.address;
        address.whole_name(
            "`persist rm` deletes the whole name; to delete only if this version is the newest, \
             add --expect",
        )?;
        let scope = address.scope(store)?;
        let deletion = scope.delete(address.name.as_str(), self.expected.expect);
        let info = deletion.await.map_err(|error| {
            let is_full = snapshot_code(&error) == 8;
            let error = anyhow::Error::new(error);
            if !is_full {
                return error;
            }
            let purge = out.command("purge", &address.name());
            let hint = format!(
                "a deletion needs a little space: run `persist prune`, or `{purge} --now` if no \
                 host writes this name"
            );
            Hinted { error, hint }.into()
        })?;
        changed(address, &info, "deleted", out)?;
        undo(&scope, address, info.parent, out).await;
        Ok(())
    }
}

impl Restore {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let address = &self.address;
        let name = self.address.name.as_str();
        let Some(version) = address.version else {
            let example = address.at(1);
            return Err(Usage::new("the address has no version to restore")
                .with_hint(format!("add a version, as in {example}"))
                .into());
        };
        let scope = address.scope(store)?;
        let expect = self.expected.expect;
        if let Some(info) = newest_already(&scope, name, version, expect).await? {
            let text = address.at(version);
            let line = || format!("{text} is the newest version; nothing was changed");
            let value = print::event("unchanged", &text, &info);
            return Ok(out.print(&value, line)?);
        }
        let info = scope.restore(name, version, expect).await?;
        changed(address, &info, "restored", out)?;
        undo(&scope, address, info.parent, out).await;
        Ok(())
    }
}

/// The version, verified, where it is the newest and holds a state: restoring it would only
/// duplicate it.
async fn newest_already(
    scope: &Scope,
    name: &str,
    version: Version,
    expect: Expect,
) -> Result<Option<Info>> {
    let is_expected = expect == Expect::Any || expect == Expect::Version(version);
    if !is_expected || scope.versions(name, None, 1).await? != [version] {
        return Ok(None);
    }
    let verified = scope.verify(name, Some(version)).await?;
    Ok(verified
        .map(|verified| verified.info)
        .filter(|info| !info.deleted))
}

impl Fork {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let from = &self.from;
        let to = &self.to;
        to.whole_name(
            "`persist fork` creates a new version; to create it only after this one, add --expect",
        )?;
        let scope = from.scope(store)?;
        let target = to.scope(store)?;
        let name = from.name.as_str();
        let new_name = to.name.as_str();
        let expect = self.expected.expect;
        let info = scope
            .fork_to(name, from.version, &target, new_name, expect)
            .await?;
        changed(to, &info, "forked", out)?;
        undo(&target, to, info.parent, out).await;
        Ok(())
    }
}

/// Tells the command that makes a name again what it was in version `before`. Of what cannot be
/// read there is none.
async fn undo(scope: &Scope, address: &Address, before: Option<Version>, out: Out) {
    let command = match before {
        None => out.command("rm", &address.name()),
        Some(before) => match scope.stat(address.name.as_str(), Some(before)).await {
            Ok(Some(info)) if info.deleted => out.command("rm", &address.name()),
            Ok(Some(_)) => out.command("restore", &address.at(before)),
            _ => return,
        },
    };
    out.note(format_args!("to undo: {command}"));
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.into(), value.into()))
        .ok_or_else(|| "write KEY=VALUE".into())
}
