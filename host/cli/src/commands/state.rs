//! Single states: shown, printed, saved, deleted, brought back, forked.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use persist_host::snapshot::{
    Error, Expect, Info, Name, SaveOptions, Scope, Selection, Store, Version, Writer,
};
use serde_json::Value;

use super::bulk::{self, Action, Confirm, Head, Plan};
use super::{CHUNK, changed, deleted, expect, explain, missing};
use crate::address::{Address, SelectionArg, Target};
use crate::error::{Code, Hinted, Usage};
use crate::exit::snapshot_code;
use crate::interrupt::Interrupt;
use crate::print::{self, Out};
use crate::progress::Progress;
use crate::select::{Conditions, Missed};
use crate::stdio;
use crate::stores::Create;
use crate::text::Plainly;
use crate::when::{At, Past, When};

/// Show the metadata of versions
///
/// Conditions select names by their newest version.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist show bot/memory
  persist show bot/memory@3 --json
  persist show bot/memory --at '2h ago'
  persist show bot --since yesterday --sort time -n 3")]
pub(crate) struct Show {
    /// Addresses, or agents, sessions or names, of which each part may be a glob; @N selects
    /// version N [default: the newest]
    #[arg(value_name = "SELECTION", required = true)]
    targets: Vec<Target>,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    conditions: Conditions,
}

/// Print the state of a version
///
/// Writes the bytes unchanged, with --json too. On a terminal, control characters are escaped.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist cat bot/memory
  persist cat bot/memory@3 > memory.json
  persist cat bot/memory --at 2026-11-26T14:05")]
pub(crate) struct Cat {
    /// Address: agent/name or agent/session/name; @N selects version N [default: the newest]
    address: Address,
    #[command(flatten)]
    at: At,
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

/// Delete names; their older versions stay and can be restored
///
/// Asks for confirmation, unless one name is given. A name that gets a newer version meanwhile is
/// not deleted, and the exit code is then 4. Prints the command that undoes the deletion.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist rm bot/memory
  persist rm bot/memory --expect 7
  persist rm bot/monday/ --dry-run
  persist rm bot 'test-*' --yes")]
pub(crate) struct Rm {
    /// Agents, sessions or names: agent, agent/session/, agent/name or agent/session/name; each
    /// part may be a glob, such as 'bot-*/memory'
    #[arg(value_name = "SELECTION", required = true)]
    targets: Vec<Target>,
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    conditions: Conditions,
    #[command(flatten)]
    confirm: Confirm,
}

/// Rename a name, a session or an agent, with its history
///
/// Saves every version again under the new name, with its time, its labels and its pin, and then
/// deletes the old name. The label persist.forked-from tells the address that a version comes from.
/// The old versions stay until they are pruned or purged. Nothing is renamed to a name that has a
/// state. A name that gets a newer version meanwhile is not deleted, and the exit code is then 4.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist mv bot/memory bot/notes
  persist mv bot helper --dry-run
  persist mv bot/monday/ bot/tuesday/")]
pub(crate) struct Mv {
    /// Agent, session or name: agent, agent/session/, agent/name or agent/session/name
    from: SelectionArg,
    /// New agent, session or name, of the same form as FROM
    to: SelectionArg,
    #[command(flatten)]
    conditions: Conditions,
    #[command(flatten)]
    confirm: Confirm,
}

/// Restore an older version by saving its state as the next version
///
/// Prints the command that undoes the restore. If the version is the newest, nothing is changed.
///
/// --at restores every name of an agent or a session as it was at a point in time, deleted names
/// too. The time of a version is that of the clock of the host that saved it. Names that did not
/// exist then are left alone, unless --delete-new is given. A name that gets a newer version
/// meanwhile is not restored, and the exit code is then 4.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist restore bot/memory@3
  persist restore bot/memory@3 --expect 7
  persist restore bot --at 2026-11-26T14:05 --dry-run
  persist restore bot/monday/ 'helper-*' --at '2h ago'")]
pub(crate) struct Restore {
    /// Addresses of versions: agent/name@N or agent/session/name@N; with --at agents, sessions or
    /// names, of which each part may be a glob
    #[arg(value_name = "SELECTION", required = true)]
    targets: Vec<Target>,
    #[command(flatten)]
    expected: Expected,
    /// Restore names as they were at TIME: 2026-11-26T14:05 (local time unless it has a zone),
    /// 2026-11-26, 14:05, `yesterday 14:05` or `2h ago`
    #[arg(long, value_name = "TIME")]
    at: Option<When>,
    /// Delete the names that did not exist at TIME
    #[arg(long, requires = "at")]
    delete_new: bool,
    #[command(flatten)]
    conditions: Conditions,
    #[command(flatten)]
    confirm: Confirm,
}

/// Copy the state of a version to another name, or the states of an agent or a session to another
///
/// The label persist.forked-from tells the address and the version that a state comes from. For an
/// agent or a session, nothing is changed if a name of the destination has a state, unless --expect
/// any is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist fork bot/memory bot/experiment
  persist fork bot/monday/memory@3 bot/tuesday/memory --expect absent
  persist fork bot bot-test --at yesterday
  persist fork bot/monday/ bot/tuesday/")]
pub(crate) struct Fork {
    /// Address: agent/name or agent/session/name; @N selects version N [default: the newest]. Or an
    /// agent or a session: agent or agent/session/
    from: Target,
    /// Address of the name: agent/name or agent/session/name; or an agent or a session, as FROM
    to: Target,
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    conditions: Conditions,
    #[command(flatten)]
    confirm: Confirm,
}

/// Condition on the newest version.
#[derive(Debug, Args)]
struct Expected {
    /// Fail unless the newest version is VERSION: a number, `absent` or `any` [default: any]
    #[arg(long, value_name = "VERSION", value_parser = expect)]
    expect: Option<Expect>,
}

impl Expected {
    fn expect(&self) -> Expect {
        self.expect.unwrap_or_default()
    }

    /// Refuses the condition for several names.
    fn none(&self) -> Result<()> {
        match self.expect {
            None | Some(Expect::Any) => Ok(()),
            Some(_) => Err(Usage::new("--expect is for one name")
                .with_hint("remove --expect: a name that changes meanwhile is never overwritten")
                .into()),
        }
    }
}

impl Show {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let mut shown = Shown::default();
        let mut missed = Missed::new(out);
        // Conditions and an order are for all selections together.
        let mut together = Vec::new();
        for target in &self.targets {
            let address = match target {
                Target::Version(address) => {
                    self.conditions.none_of_versions()?;
                    address.clone()
                }
                Target::Names(selection) if !self.conditions.is_empty() => {
                    together.push(selection.clone());
                    continue;
                }
                Target::Names(selection) => match Address::of(&selection.0) {
                    Some(address) => address,
                    None => {
                        let selections = std::slice::from_ref(selection);
                        self.names(store, selections, &mut shown, &mut missed)
                            .await?;
                        continue;
                    }
                },
            };
            let address = self.at.of(store, &address, out).await?;
            shown.one(store, &address, out).await?;
        }
        if !together.is_empty() {
            self.names(store, &together, &mut shown, &mut missed)
                .await?;
        }
        missed.end(shown.count > 0)
    }

    /// Shows the names that selections and conditions select.
    async fn names(
        &self,
        store: &Store,
        selections: &[SelectionArg],
        shown: &mut Shown,
        missed: &mut Missed,
    ) -> Result<()> {
        let picked = self.conditions.pick(store, selections).await?;
        missed.unreadable(&picked.unreadable)?;
        for head in picked.heads {
            let address = Address::in_scope(&head.scope, head.name);
            let found = match (self.at.at, head.info) {
                (None, Ok(info)) => Some(info),
                (None, Err(error)) => {
                    missed.damaged(&address.name(), &error)?;
                    None
                }
                (Some(when), _) => {
                    let past = when.find(&head.scope, &address.name).await?;
                    missed.past(&address, when, past)?
                }
            };
            if let Some(info) = found {
                let out = missed.out();
                shown.version(&head.scope, &address, &info, out).await?;
            }
        }
        Ok(())
    }
}

/// Versions that were shown.
#[derive(Default)]
struct Shown {
    count: u64,
}

impl Shown {
    /// Shows the version that an address names.
    async fn one(&mut self, store: &Store, address: &Address, out: Out) -> Result<()> {
        let name = address.name.as_str();
        let scope = address.scope(store)?;
        let info = match scope.stat(name, address.version).await {
            Ok(Some(info)) => info,
            Ok(None) => return Err(missing(store, address).await),
            Err(error) => return Err(explain(store, &scope, address, error).await),
        };
        self.version(&scope, address, &info, out).await
    }

    /// Shows a version.
    async fn version(
        &mut self,
        scope: &Scope,
        address: &Address,
        info: &Info,
        out: Out,
    ) -> Result<()> {
        let name = address.name.as_str();
        let pinned = scope.pins(name).await?.contains(&info.version);
        let text = address.at(info.version);
        let mut value = print::info(&text, info);
        value["pinned"] = pinned.into();
        let gap = if self.count > 0 { "\n" } else { "" };
        self.count += 1;
        Ok(out.result(&value, || {
            gap.to_owned() + &print::details(&text, info, pinned)
        })?)
    }
}

impl Cat {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let address = &self.at.of(store, &self.address, out).await?;
        let name = self.address.name.as_str();
        let scope = address.scope(store)?;
        let reader = match scope.reader(name, address.version).await {
            Ok(reader) => reader,
            Err(error) => return Err(explain(store, &scope, address, error).await),
        };
        let Some(mut reader) = reader else {
            // Nothing at all, or a tombstone: these are different news.
            let info = scope.stat(name, address.version).await?;
            let Some(info) = info else {
                return Err(missing(store, address).await);
            };
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
        let mut options = SaveOptions::expecting(self.expected.expect());
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
        // A person who saves a file is told nothing that costs another request.
        let before = if out.json {
            undo(&scope, address, info.parent, out).await
        } else {
            None
        };
        changed(address, &info, "saved", before.as_deref(), out)
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
    pub(crate) async fn run(self, store: &Store, interrupt: &Interrupt, out: Out) -> Result<()> {
        let mut selections = Vec::new();
        for target in &self.targets {
            match target {
                Target::Names(selection) => selections.push(selection.clone()),
                Target::Version(address) => {
                    address.whole_name(
                        "`persist rm` deletes the whole name; to delete only if this version is \
                         the newest, add --expect",
                    )?;
                }
            }
        }
        if let [SelectionArg(selection, _)] = &selections[..]
            && let Some(address) = Address::of(selection)
            && !self.confirm.dry_run
            && self.conditions.is_empty()
        {
            let deletion = self.one(store, &address, out);
            return interrupt.uninterruptible(deletion).await;
        }
        self.expected.none()?;
        let mut plan = Plan::new("delete", "deleted", out);
        for entry in plan.pick(store, &selections, &self.conditions).await? {
            if entry.info.as_ref().is_ok_and(|info| info.deleted) {
                plan.unchanged += 1;
                continue;
            }
            let mut target = bulk::Target::from(entry);
            // A version that cannot be read must not keep its name from being deleted.
            if target.head.is_none() {
                let name = target.name.as_str();
                let newest = target.scope.versions(name, None, 1).await?;
                target.head = newest.first().map(|&version| Head {
                    version,
                    deleted: false,
                });
            }
            plan.steps.push((target, Action::Delete));
        }
        plan.run(self.confirm, true, store, interrupt).await
    }

    async fn one(&self, store: &Store, address: &Address, out: Out) -> Result<()> {
        let scope = address.scope(store)?;
        let deletion = scope.delete(address.name.as_str(), self.expected.expect());
        let deletion = deletion.await;
        if let Err(Error::NotFound(_)) = deletion {
            return Err(nothing_to_delete(store, &scope, address, out).await);
        }
        let info = deletion.map_err(|error| {
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
        let undo = undo(&scope, address, info.parent, out).await;
        changed(address, &info, "deleted", undo.as_deref(), out)
    }
}

impl Restore {
    pub(crate) async fn run(self, store: &Store, interrupt: &Interrupt, out: Out) -> Result<()> {
        let mut addresses = Vec::new();
        let mut selections = Vec::new();
        for target in &self.targets {
            match target {
                Target::Version(address) => addresses.push(address.clone()),
                Target::Names(selection) => selections.push(selection.clone()),
            }
        }
        if self.at.is_none() && selections.is_empty() {
            self.conditions.none_of_versions()?;
        }
        match (self.at, &selections[..], &addresses[..]) {
            (None, [], [address]) if !self.confirm.dry_run => {
                let restoring = self.one(store, address, out);
                interrupt.uninterruptible(restoring).await
            }
            (None, [], _) => self.versions(store, &addresses, interrupt, out).await,
            (None, [selection, ..], _) => {
                let example = match Address::of(&selection.0) {
                    Some(address) => format!("add a version, as in {}", address.at(1)),
                    None => "add --at TIME, such as --at '2h ago'".to_owned(),
                };
                let example = example + ", or add --at TIME";
                Err(Usage::new("the address has no version to restore")
                    .with_hint(example)
                    .into())
            }
            (Some(_), _, [address, ..]) => Err(Usage::new(format!(
                "the address has a version, @{}, and --at selects another",
                address.version.unwrap_or_default()
            ))
            .with_hint(format!("write {}, or remove --at", address.name()))
            .into()),
            (Some(when), _, []) => {
                self.expected.none()?;
                let mut plan = Plan::new("restore", "restored", out);
                for entry in plan.pick(store, &selections, &self.conditions).await? {
                    plan.back_to(when, entry, self.delete_new).await?;
                }
                let is_one = matches!(&selections[..], [SelectionArg(Selection::Name(..), _)]);
                plan.run(self.confirm, !is_one, store, interrupt).await
            }
        }
    }

    /// Restores several versions.
    async fn versions(
        &self,
        store: &Store,
        addresses: &[Address],
        interrupt: &Interrupt,
        out: Out,
    ) -> Result<()> {
        self.expected.none()?;
        let mut plan = Plan::new("restore", "restored", out);
        for address in addresses {
            let scope = address.scope(store)?;
            let name = address.name.as_str();
            let info = scope.stat(name, address.version).await?;
            let Some(info) = info else {
                return Err(missing(store, address).await);
            };
            if info.deleted {
                return Err(deleted(address, &info, out));
            }
            let newest = scope.versions(name, None, 1).await?;
            if newest.first() == Some(&info.version) {
                plan.unchanged += 1;
                continue;
            }
            let newest = newest.first().copied().unwrap_or_default();
            // A version that cannot be read is no reason to keep it.
            let head = scope.stat(name, Some(newest)).await;
            let target = bulk::Target {
                scope,
                name: address.name.clone(),
                head: Some(Head {
                    version: newest,
                    deleted: head.is_ok_and(|head| head.is_some_and(|head| head.deleted)),
                }),
            };
            plan.steps.push((target, Action::Restore(info.version)));
        }
        plan.run(self.confirm, addresses.len() > 1, store, interrupt)
            .await
    }

    async fn one(&self, store: &Store, address: &Address, out: Out) -> Result<()> {
        let name = address.name.as_str();
        let version = address.version.unwrap_or_default();
        let scope = address.scope(store)?;
        let expect = self.expected.expect();
        if let Some(info) = newest_already(&scope, name, version, expect).await? {
            let text = address.at(version);
            let line = || format!("{text} is the newest version; nothing was changed");
            let mut value = print::event("unchanged", &text, &info);
            value["undo"] = Value::Null;
            return Ok(out.print(&value, line)?);
        }
        let info = match scope.restore(name, version, expect).await {
            Ok(info) => info,
            Err(error) => return Err(explain(store, &scope, address, error).await),
        };
        let undo = undo(&scope, address, info.parent, out).await;
        changed(address, &info, "restored", undo.as_deref(), out)
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
    pub(crate) async fn run(self, store: &Store, interrupt: &Interrupt, out: Out) -> Result<()> {
        let to = match &self.to {
            Target::Names(selection) => selection,
            Target::Version(address) => {
                address.whole_name(
                    "`persist fork` creates a new version; to create it only after this one, add \
                     --expect",
                )?;
                return Ok(());
            }
        };
        let from = match &self.from {
            Target::Version(address) => Some(address.clone()),
            Target::Names(selection) => Address::of(&selection.0),
        };
        match (&self.from, from, Address::of(&to.0)) {
            (_, Some(from), Some(to)) if !self.confirm.dry_run && self.conditions.is_empty() => {
                let from = self.at.of(store, &from, out).await?;
                let forking = self.one(store, &from, &to, out);
                interrupt.uninterruptible(forking).await
            }
            (Target::Names(from), ..) => self.whole(store, from, to, interrupt, out).await,
            (Target::Version(_), ..) => Err(Usage::new("one version is forked to one name")
                .with_hint("write the address of a name as TO, no --dry-run and no condition")
                .into()),
        }
    }

    /// Forks every name of an agent or a session.
    async fn whole(
        &self,
        store: &Store,
        from: &SelectionArg,
        to: &SelectionArg,
        interrupt: &Interrupt,
        out: Out,
    ) -> Result<()> {
        let mut plan = Plan::new("fork", "forked", out);
        let overwrites = self.expected.expect == Some(Expect::Any);
        if !overwrites && self.expected.expect != Some(Expect::Absent) {
            self.expected.none()?;
        }
        let renamed = Renamed::new(store, from, to)?;
        for entry in plan
            .pick(store, std::slice::from_ref(from), &self.conditions)
            .await?
        {
            let old = bulk::Target::from(entry);
            let version = match (self.at.at, old.head) {
                (None, Some(head)) if head.deleted => {
                    plan.leave(old.address(), "it is deleted");
                    continue;
                }
                (None, Some(head)) => head.version,
                (None, None) => {
                    plan.fail(old.address(), 6, "its newest version cannot be read");
                    continue;
                }
                (Some(when), _) => match when.find(&old.scope, &old.name).await? {
                    Past::Version(info) if !info.deleted => info.version,
                    Past::Unreadable(version, error) => {
                        let why = format!("version {version} cannot be read: {error}");
                        plan.fail(old.address(), snapshot_code(&error), why);
                        continue;
                    }
                    Past::Pruned(oldest) => {
                        let why = format!("its versions of that time are pruned up to {oldest}");
                        plan.fail(old.address(), 10, why);
                        continue;
                    }
                    _ => {
                        plan.leave(old.address(), "it did not exist at that time");
                        continue;
                    }
                },
            };
            let target = renamed.target(&old, overwrites).await?;
            let action = Action::Fork(old.scope, old.name, version);
            plan.steps.push((target, action));
        }
        plan.run(self.confirm, true, store, interrupt).await
    }

    async fn one(&self, store: &Store, from: &Address, to: &Address, out: Out) -> Result<()> {
        let scope = from.scope(store)?;
        let target = to.scope(store)?;
        let name = from.name.as_str();
        let new_name = to.name.as_str();
        let expect = self.expected.expect();
        let forked = scope
            .fork_to(name, from.version, &target, new_name, expect)
            .await;
        let info = match forked {
            Ok(info) => info,
            Err(error) => return Err(explain(store, &scope, from, error).await),
        };
        let undo = undo(&target, to, info.parent, out).await;
        changed(to, &info, "forked", undo.as_deref(), out)
    }
}

impl Mv {
    pub(crate) async fn run(self, store: &Store, interrupt: &Interrupt, out: Out) -> Result<()> {
        let mut plan = Plan::new("move", "moved", out);
        let renamed = Renamed::new(store, &self.from, &self.to)?;
        for entry in plan
            .pick(store, std::slice::from_ref(&self.from), &self.conditions)
            .await?
        {
            let old = bulk::Target::from(entry);
            match old.head {
                Some(head) if head.deleted => plan.leave(old.address(), "it is deleted"),
                None => plan.fail(old.address(), 6, "its newest version cannot be read"),
                Some(head) => {
                    let target = renamed.target(&old, false).await?;
                    let action = Action::Move(old.scope, old.name, head.version);
                    plan.steps.push((target, action));
                }
            }
        }
        let is_one = matches!(self.from.0, Selection::Name(..));
        plan.run(self.confirm, !is_one, store, interrupt).await
    }
}

/// Returns the error for a name that has no state to delete, with what to do about it.
async fn nothing_to_delete(
    store: &Store,
    scope: &Scope,
    address: &Address,
    out: Out,
) -> anyhow::Error {
    let name = address.name.as_str();
    match scope.stat(name, None).await {
        Ok(Some(info)) => {
            let error = format!(
                "{} is already deleted, by version {}",
                address.name(),
                info.version
            );
            let error = Error::NotFound(error).into();
            let hint = match info.parent {
                Some(parent) => out.command("restore", &address.at(parent)),
                None => out.command("history", &address.name()),
            };
            let hint = format!("run `{hint}` to bring it back");
            Hinted { error, hint }.into()
        }
        _ => missing(store, address).await,
    }
}

/// Names of an agent, a session or a name under new names.
struct Renamed<'a> {
    store: &'a Store,
    agent: &'a Name,
    /// None: names keep their sessions.
    session: Option<Option<&'a Name>>,
    /// None: names keep the last part of their addresses.
    name: Option<&'a Name>,
}

impl<'a> Renamed<'a> {
    fn new(store: &'a Store, from: &SelectionArg, to: &'a SelectionArg) -> Result<Self> {
        let (agent, session, name) = match (&from.0, &to.0) {
            (from, to) if from == to => {
                let what = "source and destination are the same";
                return Err(Usage::new(what).with_hint("write two addresses").into());
            }
            (Selection::Agent(_), Selection::Agent(agent)) => (agent, None, None),
            (Selection::Session(..), Selection::Session(agent, session)) => {
                (agent, Some(session.as_ref()), None)
            }
            (Selection::Name(..), Selection::Name(agent, session, name)) => {
                (agent, Some(session.as_ref()), Some(name))
            }
            _ => {
                let what = format!("{} and {} are not of the same form", from.1, to.1);
                let hint = "write two agents (bot), two sessions (bot/monday/) or two names \
                            (bot/memory)";
                return Err(Usage::new(what).with_hint(hint).into());
            }
        };
        Ok(Self {
            store,
            agent,
            session,
            name,
        })
    }

    /// Returns the new name, and its newest version. One that has a state is refused, unless it
    /// may be overwritten.
    async fn target(&self, old: &bulk::Target, overwrites: bool) -> Result<bulk::Target> {
        let session = self.session.unwrap_or(old.scope.session());
        let name = self.name.unwrap_or(&old.name);
        let scope = self
            .store
            .scope(self.agent.as_str(), session.map(Name::as_str))?;
        let info = scope.stat(name.as_str(), None).await?;
        let head = info.map(|info| Head {
            version: info.version,
            deleted: info.deleted,
        });
        let target = bulk::Target {
            scope,
            name: name.clone(),
            head,
        };
        match head {
            Some(head) if !head.deleted && !overwrites => {
                let error = Error::Conflict {
                    head: Some(head.version),
                };
                let address = target.address();
                let error = anyhow::Error::from(error).context(format!("{address} has a state"));
                let hint = format!("choose another destination, or delete {address} first");
                Err(Hinted { error, hint }.into())
            }
            _ => Ok(target),
        }
    }
}

/// Returns the command that makes a name again what it was in version `before`; none if that
/// version cannot be read.
async fn undo(
    scope: &Scope,
    address: &Address,
    before: Option<Version>,
    out: Out,
) -> Option<String> {
    let Some(before) = before else {
        return Some(out.command("rm", &address.name()));
    };
    match scope.stat(address.name.as_str(), Some(before)).await {
        Ok(Some(info)) if info.deleted => Some(out.command("rm", &address.name())),
        Ok(Some(_)) => Some(out.command("restore", &address.at(before))),
        _ => None,
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.into(), value.into()))
        .ok_or_else(|| "write KEY=VALUE".into())
}
