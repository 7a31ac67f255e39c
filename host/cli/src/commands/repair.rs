//! Repairs that an operator asks for.

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{
    CopyOptions, CopyOutcome, Error, Expect, Finding, FindingKind, GcOptions, Name, ReadData,
    SavedAs, Scope, Selection, Severity, Store, Version, layout,
};
use serde_json::{Value, json};

use super::compare::compare;
use super::copy::apart;
use super::{missing, nowhere, print_undo, printed};
use crate::address::{self, Address, SelectionArg};
use crate::error::{Damaged, Found, Hinted, Usage};
use crate::exit::snapshot_code;
use crate::print::{self, Out};
use crate::stores::{Create, Stores};
use crate::text::one_line;

/// Repair what `persist check` finds; without --yes, print what would be done
///
/// Removes links, pipes and empty directories where a version belongs, pins of missing versions
/// and old leftovers; sets permissions of files that this account owns; creates a missing store
/// header; and adopts the newest version of a name if its file names another address. With --from,
/// replaces damaged versions by those of another store, and copies versions that this store lost;
/// each is read and verified before anything is replaced, and again after it. Stop the hosts that
/// write a name before its newest version is copied back. What cannot be repaired is printed, and
/// the exit code is that of `persist check`.
///
/// A version is misplaced if its file names another address; it cannot be loaded. If the newest
/// version of a name is misplaced, every byte of its file is verified, and its state is saved again
/// as the next version of the name where the file is, with the label persist.adopted-from. If files
/// of one name are swapped, the file that was saved as the newest version is adopted. No file is
/// removed or overwritten, and the command that undoes the adoption is printed. To repair without
/// this command, move the files back.
///
/// --adopt without --yes adopts only, and at once. ADDRESS@N adopts version N.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist repair
  persist repair --from s3://backup/agents --read-data
  persist repair --from s3://backup/agents --read-data --yes
  persist repair bot2 --adopt
  persist repair bot2/memory@3 --adopt")]
pub(crate) struct Repair {
    /// Agent, session, name or version: agent, agent/session/, agent/name or agent/session/name,
    /// with @N for version N [default: everything]
    #[arg(value_name = "SELECTION")]
    target: Option<Target>,
    /// Save misplaced versions as the next version of the name where they are
    #[arg(long, conflicts_with_all = ["from", "yes", "read_data", "remove_foreign"])]
    adopt: bool,
    /// Copy damaged and lost versions from the store at URL
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Read and verify every byte, as `persist check --read-data` does
    #[arg(long)]
    read_data: bool,
    /// Also remove files that Persist did not create
    #[arg(long)]
    remove_foreign: bool,
    /// Repair, instead of printing what would be done
    #[arg(long, short)]
    yes: bool,
}

/// How often the store is checked again: a repair may show what it hid, such as a directory that
/// could not be listed.
const PASSES: usize = 4;

/// The names to repair, or one version.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Names(Selection),
    Version(Address, Version),
}

impl std::str::FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if !text.contains('@') {
            return Ok(Self::Names(text.parse::<SelectionArg>()?.0));
        }
        let address: Address = text.parse()?;
        match address.version {
            Some(version) => Ok(Self::Version(address, version)),
            None => anyhow::bail!("no version number after the @"),
        }
    }
}

impl Repair {
    pub(crate) async fn run(self, stores: &Stores<'_>, store: &Store, out: Out) -> Result<()> {
        if self.adopt {
            return match self.target {
                Some(target) => adopt_all(target, store, out).await,
                None => Err(Usage::new("--adopt needs a SELECTION")
                    .with_hint("name the agent, session or name that was moved")
                    .into()),
            };
        }
        let whole = self.target.is_none();
        let selection = match self.target {
            None => Selection::All,
            Some(Target::Names(selection)) => selection,
            Some(Target::Version(address, _)) => {
                let what = "only --adopt takes the address of a version";
                let hint = format!("write {}", address.name());
                return Err(Usage::new(what).with_hint(hint).into());
            }
        };
        let other = match &self.from {
            None => None,
            Some(url) => {
                let other = stores.at(url)?;
                apart(&other, store)?;
                other.require().await?;
                Some(other)
            }
        };
        let repairs = Repairs {
            stores,
            store,
            other,
            selection,
            read: if self.read_data {
                ReadData::All
            } else {
                ReadData::None
            },
            remove_foreign: self.remove_foreign,
            out,
        };
        repairs.run(self.yes, whole).await
    }
}

/// Repairs of a store.
struct Repairs<'a> {
    stores: &'a Stores<'a>,
    store: &'a Store,
    other: Option<Store>,
    selection: Selection,
    read: ReadData,
    remove_foreign: bool,
    out: Out,
}

/// One thing to repair.
struct Step {
    severity: Severity,
    kind: &'static str,
    key: String,
    address: Option<String>,
    what: String,
    action: Action,
}

/// How something is repaired.
enum Action {
    RemoveObstacle,
    RemoveForeign,
    RestoreAccess,
    Unpin,
    CollectGarbage,
    CreateHeader,
    Adopt(Adoption),
    /// From the scope in the other store.
    Copy(Scope, Name, Version),
    /// Nothing can be done, for this reason.
    None(String),
}

/// Adoption of the file at the key of a version, which is intact.
struct Adoption {
    scope: Scope,
    name: Name,
    version: Version,
    /// The newest version of the name, above which the state is saved.
    newest: Version,
}

/// File to adopt for a name whose newest version is misplaced.
async fn adopted_version(scope: &Scope, name: &Name, newest: Version) -> Result<Version, Error> {
    let is_of_name = |saved: &SavedAs| {
        saved.agent == scope.agent().as_str()
            && saved.session.as_deref() == scope.session().map(Name::as_str)
            && saved.name == name.as_str()
    };
    let of_newest = scope.saved_as(name.as_str(), newest, false).await?;
    if !is_of_name(&of_newest) {
        return Ok(newest);
    }
    // Files of one name are swapped: one of them may be that of the newest version.
    let mut before = Some(newest);
    loop {
        let page = scope.versions(name.as_str(), before, 1000).await?;
        for &version in &page {
            match scope.saved_as(name.as_str(), version, false).await {
                Ok(saved) if is_of_name(&saved) && saved.version == newest => return Ok(version),
                // It is a finding of its own, or pruned.
                Ok(_) | Err(Error::Corrupt { .. } | Error::NotFound(_)) => {}
                Err(Error::Unsupported { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        before = page.last().copied();
        if before.is_none() {
            return Ok(newest);
        }
    }
}

impl Action {
    fn as_str(&self) -> &'static str {
        match self {
            Self::RemoveObstacle | Self::RemoveForeign => "remove",
            Self::RestoreAccess => "set-permissions",
            Self::Unpin => "unpin",
            Self::CollectGarbage => "gc",
            Self::CreateHeader => "create-header",
            Self::Adopt(..) => "adopt",
            Self::Copy(..) => "copy",
            Self::None(_) => "none",
        }
    }
}

/// Numbers of steps.
#[derive(Default)]
struct Counts {
    planned: u64,
    done: u64,
    unmendable: u64,
    /// The worst of what is left.
    worst: Option<Severity>,
    /// Names with an adopted version.
    adopted: Vec<String>,
}

impl Repairs<'_> {
    async fn run(&self, yes: bool, whole: bool) -> Result<()> {
        let mut counts = Counts::default();
        for pass in 0..PASSES {
            let (steps, versions) = self.find().await?;
            if versions == 0 && steps.is_empty() {
                self.store.require().await?;
                if !whole {
                    return Err(nowhere(self.store, &self.selection).await);
                }
            }
            let mut left = Vec::new();
            let mut done = 0;
            for step in steps {
                if !yes || matches!(step.action, Action::None(_)) || pass + 1 == PASSES {
                    left.push((step, None));
                    continue;
                }
                match self.repair(&step).await? {
                    Ok(how) => {
                        done += 1;
                        if let Action::Adopt(Adoption { scope, name, .. }) = &step.action {
                            counts.adopted.push(address_of(scope, name));
                        }
                        self.print(&step, "done", &how)?;
                    }
                    Err(why) => left.push((step, Some(why))),
                }
            }
            counts.done += done;
            if done == 0 {
                for (step, failed) in left {
                    counts.worst = counts.worst.max(Some(step.severity));
                    let (status, how) = match (failed, &step.action) {
                        (Some(why), _) => ("failed", why),
                        (None, Action::None(why)) => ("unmendable", why.clone()),
                        (None, action) => ("planned", action.as_str().to_owned()),
                    };
                    match status {
                        "planned" => counts.planned += 1,
                        _ => counts.unmendable += 1,
                    }
                    self.print(&step, status, &how)?;
                }
                break;
            }
        }
        self.conclude(&counts, yes)
    }

    /// Finds what is wrong, and what can be done about it.
    async fn find(&self) -> Result<(Vec<Step>, u64)> {
        let mut findings: Vec<Finding> = Vec::new();
        let checked = self.store.check(&self.selection, self.read, |_, finding| {
            findings.extend(finding.cloned());
        });
        let checked = checked.await?;
        let mut steps = Vec::new();
        let mut has_garbage = false;
        for finding in findings {
            let address = finding.version.as_ref().map(|(scope, name, version)| {
                let name = address::address(scope.agent(), scope.session(), name);
                format!("{name}@{version}")
            });
            let action = self.action(&finding).await?;
            // One collection removes all of it.
            if matches!(action, Action::CollectGarbage) && std::mem::replace(&mut has_garbage, true)
            {
                continue;
            }
            steps.push(Step {
                severity: finding.kind.severity(),
                kind: finding.kind.as_str(),
                key: finding.key,
                address,
                what: finding.what,
                action,
            });
        }
        let mut versions = checked.versions;
        if let Some(other) = &self.other {
            versions += self.find_lost(other, &mut steps).await?;
        }
        Ok((steps, versions))
    }

    /// Adds the versions that the other store has and this one lost. Returns how many versions the
    /// other store has.
    async fn find_lost(&self, other: &Store, steps: &mut Vec<Step>) -> Result<u64> {
        let policy = self.store.policy().await?;
        let mut versions = 0;
        let mut walk = other.walk(&self.selection);
        while let Some((scope, name)) = walk.next().await? {
            let found = compare(&scope, &name, self.store, &policy).await?;
            versions += found.compared;
            let lost = found
                .lost
                .iter()
                .map(|info| (info, Severity::Damage, "lost"));
            let missing = found.missing.iter();
            let missing = missing.map(|info| (info, Severity::Warning, "missing"));
            let mut both: Vec<_> = missing.chain(lost).collect();
            both.sort_by_key(|(info, ..)| info.version);
            for (info, severity, kind) in both {
                let version = info.version;
                let address = address::address(scope.agent(), scope.session(), &name);
                steps.push(Step {
                    severity,
                    kind,
                    key: layout::version_key(scope.agent(), scope.session(), &name, version),
                    address: Some(format!("{address}@{version}")),
                    what: format!("missing here; in {}", other.location()),
                    action: Action::Copy(scope.clone(), name.clone(), version),
                });
            }
        }
        Ok(versions)
    }

    async fn action(&self, finding: &Finding) -> Result<Action> {
        let none = |why: &str| Ok(Action::None(why.to_owned()));
        match (finding.kind, &finding.version) {
            (FindingKind::Corrupt, Some((scope, name, version))) => {
                self.copy_action(scope, name, *version).await
            }
            (FindingKind::Misplaced, Some((scope, name, version))) => {
                self.adopt_action(scope, name, *version).await
            }
            (FindingKind::InTheWay, _) if self.store.has_obstacle(&finding.key).await? => {
                Ok(Action::RemoveObstacle)
            }
            (FindingKind::InTheWay | FindingKind::Foreign, _) => {
                if self.remove_foreign {
                    Ok(Action::RemoveForeign)
                } else {
                    none("it may be of use to another program; add --remove-foreign to remove it")
                }
            }
            (FindingKind::Denied, _) => Ok(Action::RestoreAccess),
            (FindingKind::DanglingPin, _) => Ok(Action::Unpin),
            (FindingKind::MissingStoreHeader, _) => Ok(Action::CreateHeader),
            (FindingKind::Leftover, _) if finding.key == layout::ARCHIVE_MANIFEST => {
                Ok(Action::RemoveForeign)
            }
            (FindingKind::Leftover, _) => Ok(Action::CollectGarbage),
            (FindingKind::UnlistedUploads, _) => {
                none("add a lifecycle rule that aborts incomplete uploads")
            }
            (FindingKind::Unsupported, _) => none("use a newer version of Persist"),
            (FindingKind::Unreadable, _) => none("check the disk or the server"),
            _ => none("restore an older version, or a backup"),
        }
    }

    /// Adopts the newest version of a name, if that is misplaced and its file intact.
    async fn adopt_action(&self, scope: &Scope, name: &Name, version: Version) -> Result<Action> {
        let none = |why: &str| Ok(Action::None(why.to_owned()));
        let key = name.as_str();
        let newest = scope.versions(key, None, 1).await?;
        let newest = newest.first().copied().unwrap_or(version);
        let adopted = match scope.stat(key, Some(newest)).await {
            Err(Error::Misplaced { .. }) => adopted_version(scope, name, newest).await?,
            // Nothing is to be adopted.
            _ => 0,
        };
        if adopted != version && version == newest {
            let at = format!("{}@{adopted}", address_of(scope, name));
            return none(&format!(
                "the file at {at} is that of this version, and is adopted"
            ));
        }
        if adopted != version {
            return none(
                "not the newest version; move the file to the key of the version that it names, \
                 or remove it by hand",
            );
        }
        match scope.saved_as(key, version, true).await {
            Ok(saved) if saved.deleted => none("it is a tombstone, and holds no state"),
            Ok(_) => Ok(Action::Adopt(Adoption {
                scope: scope.clone(),
                name: name.clone(),
                version,
                newest,
            })),
            Err(error @ (Error::Corrupt { .. } | Error::NotFound(_))) => {
                none(&format!("it cannot be adopted: {error}"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Copies a damaged version again, if the other store has it intact.
    async fn copy_action(&self, scope: &Scope, name: &Name, version: Version) -> Result<Action> {
        let Some(other) = &self.other else {
            let why = "copy it from a backup with --from URL, or restore an older version";
            return Ok(Action::None(why.into()));
        };
        let session = scope.session().map(Name::as_str);
        let source = other.scope(scope.agent().as_str(), session)?;
        let mut options = repair_options();
        options.dry_run = true;
        let copied = source.copy_version_to(name.as_str(), version, self.store, options);
        Ok(match copied.await? {
            Some(CopyOutcome::Repairable(..) | CopyOutcome::Missing(_)) => {
                Action::Copy(source, name.clone(), version)
            }
            Some(CopyOutcome::Damaged(_, error)) => {
                Action::None(format!("it is damaged in the other store, too: {error}"))
            }
            None => Action::None("the other store does not have this version".into()),
            Some(_) => Action::None("the other store has a different version".into()),
        })
    }

    /// Makes one repair: how, or why not. An error of the whole store ends the command.
    async fn repair(&self, step: &Step) -> Result<Result<String, String>> {
        let repaired = match self.attempt(step).await {
            Ok(repaired) => repaired,
            Err(error) => {
                let is_local = match error.downcast_ref::<Error>() {
                    // Another process repaired it, or saved.
                    Some(Error::Conflict { .. } | Error::Invalid(_) | Error::NotFound(_)) => true,
                    Some(error) => {
                        snapshot_code(error) == 5 || self.store.is_of_one_place(error).await
                    }
                    None => false,
                };
                if !is_local {
                    return Err(error);
                }
                Err(format!("{error:#}"))
            }
        };
        Ok(repaired)
    }

    async fn attempt(&self, step: &Step) -> Result<Result<String, String>> {
        let key = &step.key;
        let done = |done: bool, how: &str, why: &str| {
            Ok(if done {
                Ok(how.to_owned())
            } else {
                Err(why.to_owned())
            })
        };
        match &step.action {
            Action::RemoveObstacle => {
                let removed = self.store.remove_obstacle(key).await?;
                done(
                    removed,
                    "removed",
                    "it is a file, or a directory that is not empty",
                )
            }
            Action::RemoveForeign => {
                let removed = self.store.remove_foreign(key).await?;
                done(removed, "removed", "it is a directory; remove it by hand")
            }
            Action::RestoreAccess => {
                let set = self.store.restore_access(key).await?;
                done(
                    set,
                    "permissions are set",
                    "change the rights of this account",
                )
            }
            Action::Unpin => {
                let removed = self.store.remove_dangling_pin(key).await?;
                done(removed, "unpinned", "the version exists")
            }
            Action::CollectGarbage => {
                let swept = self.store.gc(&GcOptions::default()).await?;
                let why = "it is younger than one day; run `persist gc` later";
                done(swept.removed > 0, "leftovers are removed", why)
            }
            Action::CreateHeader => {
                // It is found missing only where there are versions.
                self.stores.making(Create::YES)?.init().await?;
                done(true, "created", "")
            }
            Action::Adopt(Adoption {
                scope,
                name,
                version,
                newest,
            }) => {
                let expect = Expect::Version(*newest);
                let (info, saved_as) = scope.adopt(name.as_str(), Some(*version), expect).await?;
                let new = info.version;
                Ok(Ok(format!(
                    "adopted as version {new}; it was saved as {saved_as}"
                )))
            }
            Action::Copy(source, name, version) => {
                let options = repair_options();
                let copied = source.copy_version_to(name.as_str(), *version, self.store, options);
                Ok(match copied.await? {
                    Some(CopyOutcome::Made(_) | CopyOutcome::Same { .. }) => Ok("copied".into()),
                    Some(CopyOutcome::Repaired(_)) => Ok("replaced by the intact version".into()),
                    Some(CopyOutcome::Damaged(_, error) | CopyOutcome::DamagedThere(_, error)) => {
                        Err(error.to_string())
                    }
                    None => Err("the other store does not have this version any more".into()),
                    Some(_) => Err("this store has a different version by now".into()),
                })
            }
            Action::None(why) => Ok(Err(why.clone())),
        }
    }

    fn print(&self, step: &Step, status: &str, how: &str) -> Result<()> {
        let Step {
            kind, key, what, ..
        } = step;
        let severity = step.severity.as_str();
        let action = step.action.as_str();
        let address = step.address.as_deref();
        let value = json!({
            "event": "repair", "severity": severity, "kind": kind, "key": key, "message": what,
            "action": action, "status": status, "result": how,
        });
        let mut value = print::extend(value, print::located(address.unwrap_or_default()));
        if address.is_none() {
            value["address"] = Value::Null;
        }
        let line = || {
            let key = one_line(key);
            let place = match address {
                None => key,
                Some(address) => format!("{address} ({key})"),
            };
            let what = one_line(what);
            match (status, &step.action) {
                ("planned", Action::Adopt(Adoption { newest, .. })) => format!(
                    "would {action} {kind} {place} as version {}: {what}; every byte of it is \
                     verified",
                    newest + 1
                ),
                ("planned", _) => format!("would {action} {kind} {place}: {what}"),
                (status, _) => format!("{status}: {kind} {place}: {what}; {}", one_line(how)),
            }
        };
        printed(self.out.print(&value, line), "repairs are made")
    }

    fn conclude(&self, counts: &Counts, yes: bool) -> Result<()> {
        let &Counts {
            planned,
            done,
            unmendable,
            worst,
            ref adopted,
        } = counts;
        let undo = (!adopted.is_empty()).then(|| self.out.command_for("rm", adopted));
        let value = json!({
            "event": "repaired", "dry_run": !yes, "planned": planned, "done": done,
            "unmendable": unmendable, "undo": undo,
        });
        let line = || {
            let planned = if yes {
                String::new()
            } else {
                format!("{planned} can be repaired, ")
            };
            format!("{planned}{done} repaired, {unmendable} cannot be repaired")
        };
        printed(self.out.print(&value, line), "repairs are made")?;
        print_undo(undo.as_deref(), self.out);
        let Some(severity) = worst else {
            return Ok(());
        };
        let (severity, what) = match (unmendable, planned) {
            (0, _) => (Severity::Warning, "nothing was changed".to_owned()),
            (left, _) => (severity, format!("cannot be repaired: {left}")),
        };
        let error = Found { severity, what }.into();
        if planned > 0 && !yes {
            let hint = "add --yes to repair".to_owned();
            return Err(Hinted { error, hint }.into());
        }
        Err(error)
    }
}

fn repair_options() -> CopyOptions {
    let mut options = CopyOptions::default();
    options.repair = true;
    options.any_version = true;
    options
}

/// Adopts misplaced versions at once.
async fn adopt_all(target: Target, store: &Store, out: Out) -> Result<()> {
    let selection = match target {
        Target::Names(selection) => selection,
        Target::Version(address, version) => {
            let scope = address.scope(store)?;
            if scope
                .versions(address.name.as_str(), None, 1)
                .await?
                .is_empty()
            {
                return Err(missing(store, &address).await);
            }
            let undo = adopt(&scope, &address.name, version, Expect::Any, out).await?;
            print_undo(Some(&out.command("rm", &undo)), out);
            return Ok(());
        }
    };
    let mut names = 0;
    let mut failed = 0;
    let mut adopted = Vec::new();
    let mut heads = store.heads(&selection);
    while let Some(head) = heads.next().await? {
        names += 1;
        let (scope, name) = (&head.scope, &head.name);
        match head.info {
            Err(Error::Misplaced { .. }) => {
                let newest = scope.versions(name.as_str(), None, 1).await?;
                let Some(&newest) = newest.first() else {
                    continue;
                };
                let version = adopted_version(scope, name, newest).await?;
                let expect = Expect::Version(newest);
                adopted.push(adopt(scope, name, version, expect, out).await?);
            }
            Err(error) => {
                failed += 1;
                let name = address_of(&head.scope, &head.name);
                out.damaged(&name, &error)?;
            }
            Ok(_) => {}
        }
    }
    if names == 0 {
        return Err(nowhere(store, &selection).await);
    }
    if !adopted.is_empty() {
        print_undo(Some(&out.command_for("rm", &adopted)), out);
    }
    Damaged::none_of(failed)
}

/// Adopts a version, and returns the address of its name.
async fn adopt(
    scope: &Scope,
    name: &Name,
    version: Version,
    expect: Expect,
    out: Out,
) -> Result<String> {
    let (info, saved_as) = scope.adopt(name.as_str(), Some(version), expect).await?;
    let whole = address_of(scope, name);
    let address = format!("{whole}@{}", info.version);
    let mut value = print::event("adopted", &address, &info);
    value["saved_as"] = saved_as.clone().into();
    value["undo"] = out.command("rm", &whole).into();
    let line = || format!("adopted {address}, which was saved as {saved_as}");
    printed(out.print(&value, line), &format!("{address} is adopted"))?;
    Ok(whole)
}

fn address_of(scope: &Scope, name: &Name) -> String {
    address::address(scope.agent(), scope.session(), name)
}
