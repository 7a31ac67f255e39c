//! Changes of several names: planned, confirmed, made one after the other, and undone with one
//! command.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{Error, Expect, HeadEntry, Info, Name, Scope, Store, Version};
use serde_json::json;

use super::printed;
use crate::address::{self, SelectionArg};
use crate::error::{Code, Usage};
use crate::exit::snapshot_code;
use crate::interrupt::Interrupt;
use crate::print::{self, Out};
use crate::select::Conditions;
use crate::text::{self, one_line};
use crate::when::{Past, When};

/// Changes that are listed before a question.
const LISTED: usize = 20;

/// How a change of several names is confirmed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Confirm {
    /// Change nothing; print the changes
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// A name and its newest version when the change was planned.
pub(crate) struct Target {
    pub(crate) scope: Scope,
    pub(crate) name: Name,
    /// None: nothing was saved under the name.
    pub(crate) head: Option<Head>,
}

#[derive(Clone, Copy)]
pub(crate) struct Head {
    pub(crate) version: Version,
    pub(crate) deleted: bool,
}

/// A change of one name.
pub(crate) enum Action {
    Restore(Version),
    Delete,
    /// Saves this version of another name as the next version.
    Fork(Scope, Name, Version),
    /// Saves every version of another name, and deletes the other name.
    Move(Scope, Name, Version),
}

/// The changes of a command.
pub(crate) struct Plan {
    /// Past participle of the change, such as restored.
    pub(crate) done: &'static str,
    /// The change as a command, such as restore.
    pub(crate) verb: &'static str,
    pub(crate) steps: Vec<(Target, Action)>,
    /// Names that already are as they would become.
    pub(crate) unchanged: u64,
    /// Names that are left alone, and why.
    left_alone: Vec<(String, String)>,
    /// Exit code for names that could not be changed.
    code: Option<u8>,
    out: Out,
}

impl Target {
    pub(crate) fn address(&self) -> String {
        address::address(self.scope.agent(), self.scope.session(), &self.name)
    }

    /// The name is changed only if it did not change since the plan.
    fn expect(&self) -> Expect {
        match self.head {
            None => Expect::Absent,
            Some(head) => Expect::Version(head.version),
        }
    }
}

impl From<HeadEntry> for Target {
    fn from(entry: HeadEntry) -> Self {
        let head = entry.info.as_ref().ok().map(|info| Head {
            version: info.version,
            deleted: info.deleted,
        });
        Self {
            scope: entry.scope,
            name: entry.name,
            head,
        }
    }
}

impl Plan {
    pub(crate) fn new(verb: &'static str, done: &'static str, out: Out) -> Self {
        Self {
            done,
            verb,
            steps: Vec::new(),
            unchanged: 0,
            left_alone: Vec::new(),
            code: None,
            out,
        }
    }

    /// Returns the names that a change is for, each with its newest version.
    pub(crate) async fn pick(
        &mut self,
        store: &Store,
        selections: &[SelectionArg],
        conditions: &Conditions,
    ) -> Result<Vec<HeadEntry>> {
        let picked = conditions.pick(store, selections).await?;
        for (address, error) in picked.unreadable {
            let why = format!("its newest version cannot be read: {error}");
            self.fail(address, snapshot_code(&error), why);
        }
        Ok(picked.heads)
    }

    /// Leaves a name alone, and says why.
    pub(crate) fn leave(&mut self, address: String, why: impl Into<String>) {
        self.left_alone.push((address, why.into()));
    }

    /// Leaves a name alone that should have been changed.
    pub(crate) fn fail(&mut self, address: String, code: u8, why: impl Into<String>) {
        self.code.get_or_insert(code);
        self.leave(address, why);
    }

    /// Plans to put a name back to a point in time.
    pub(crate) async fn back_to(
        &mut self,
        when: When,
        entry: HeadEntry,
        deletes_new: bool,
    ) -> Result<()> {
        let target = Target::from(entry);
        let address = target.address();
        let Some(head) = target.head else {
            let why = "the newest version cannot be read; restore an older one by its number";
            self.fail(address, 6, why);
            return Ok(());
        };
        let gone = match when.find(&target.scope, &target.name).await? {
            Past::Version(info) if info.version == head.version => {
                self.unchanged += 1;
                return Ok(());
            }
            Past::Version(info) if info.deleted => "it was deleted at that time",
            Past::Version(info) => {
                // Another version may hold the same state, as one does that was restored already.
                if !head.deleted && is_same(&target, head.version, &info).await? {
                    self.unchanged += 1;
                } else {
                    self.steps.push((target, Action::Restore(info.version)));
                }
                return Ok(());
            }
            Past::NotYet => "it did not exist at that time",
            Past::Pruned(oldest) => {
                let why = format!("its versions of that time are pruned; the oldest is {oldest}");
                self.fail(address, 10, why);
                return Ok(());
            }
            Past::Unreadable(version, error) => {
                let why = format!("version {version} cannot be read: {error}");
                self.fail(address, snapshot_code(&error), why);
                return Ok(());
            }
            Past::Nothing => return Ok(()),
        };
        if head.deleted {
            self.unchanged += 1;
        } else if deletes_new {
            self.steps.push((target, Action::Delete));
        } else {
            self.leave(address, format!("{gone}; --delete-new deletes it"));
        }
        Ok(())
    }

    /// Makes the changes, and prints each, the names that are left alone, and how to undo it.
    pub(crate) async fn run(
        mut self,
        confirm: Confirm,
        asks: bool,
        store: &Store,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let out = self.out;
        for (address, why) in std::mem::take(&mut self.left_alone) {
            let value = print::extend(
                json!({ "event": "left-alone", "reason": why }),
                print::located(&address),
            );
            let line = || format!("left alone {address}: {}", one_line(&why));
            printed(out.print(&value, line), "nothing is changed")?;
        }
        if confirm.dry_run {
            for (target, action) in &self.steps {
                let address = target.address();
                let value = print::extend(
                    json!({ "event": "planned", "change": action.verb(), "from": action.from() }),
                    print::located(&address),
                );
                let line = || format!("would {}", action.line(target));
                printed(out.result(&value, line), "nothing is changed")?;
            }
            return self.end(true, self.steps.len() as u64, 0, Undo::new(out));
        }
        if asks && !confirm.yes && !self.steps.is_empty() {
            self.ask(&store.location(), interrupt)?;
        }
        let mut undo = Undo::new(out);
        let mut changed = 0;
        let mut failed = 0;
        for (target, action) in std::mem::take(&mut self.steps) {
            let address = target.address();
            match interrupt.uninterruptible(action.make(&target, out)).await {
                Ok(info) => {
                    changed += 1;
                    undo.add(&target, &action);
                    let text = format!("{address}@{}", info.version);
                    let does = action.done();
                    let line = || match action.from() {
                        Some(from) => format!("{does} {from} to {text}"),
                        None => format!("{does} {text}"),
                    };
                    // The last line undoes all of them.
                    let mut value = print::event(does, &text, &info);
                    value["undo"] = serde_json::Value::Null;
                    printed(out.print(&value, line), does)?;
                }
                // The name changed since the plan, or its files are damaged; the others are not.
                Err(error) if is_of_one_name(store, &error).await => {
                    failed += 1;
                    let code = snapshot_code(&error);
                    self.code.get_or_insert(code);
                    out.error(code, format_args!("{address}: {error}"));
                }
                Err(error) => {
                    undo.print();
                    return Err(anyhow::Error::from(error)
                        .context(format!("{address} and the names after it are not changed")));
                }
            }
        }
        self.end(false, changed, failed, undo)
    }

    fn end(&self, dry_run: bool, changed: u64, failed: u64, mut undo: Undo) -> Result<()> {
        let out = self.out;
        let command = undo.command();
        let value = json!({
            "event": "changed", "dry_run": dry_run, "changed": changed,
            "unchanged": self.unchanged, "failed": failed, "undo": command,
        });
        let line = || {
            let would = if dry_run { "would be " } else { "" };
            let mut line = format!("{} {would}{}", text::count(changed, "name"), self.done);
            if self.unchanged > 0 {
                line += &format!(", {} unchanged", self.unchanged);
            }
            if failed > 0 {
                line += &format!(", {failed} failed");
            }
            line
        };
        printed(out.print(&value, line), &format!("names are {}", self.done))?;
        undo.print();
        match self.code {
            None => Ok(()),
            Some(4) => Err(Code(
                4,
                "conflict: a name got a newer version meanwhile; it is left as it is".into(),
            )
            .into()),
            Some(code) => Err(Code(code, "some names could not be changed".into()).into()),
        }
    }

    fn ask(&self, place: &str, interrupt: &Interrupt) -> Result<()> {
        let names = text::count(self.steps.len() as u64, "name");
        let verb = self.verb;
        if !io::stdin().is_terminal() {
            return Err(Usage::new(format!(
                "refusing to {verb} {names} in {place} without confirmation: standard input is \
                 not a terminal"
            ))
            .with_hint("add --yes to confirm, or --dry-run to see the changes")
            .into());
        }
        let mut question = String::new();
        for (target, action) in self.steps.iter().take(LISTED) {
            question += &format!("  {}\n", action.line(target));
        }
        if let Some(more) = self.steps.len().checked_sub(LISTED + 1) {
            question += &format!("  and {} more\n", more + 1);
        }
        question += &format!("Make these changes of {names} in {place}? [y/N] ");
        let mut stderr = io::stderr();
        stderr.write_all(text::plain(&question).as_bytes())?;
        stderr.flush()?;
        let mut answer = String::new();
        interrupt.ask(|| io::stdin().lock().read_line(&mut answer).map(drop))?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(Usage::new("nothing was changed: the answer is not yes").into()),
        }
    }
}

/// Returns true if a version holds the state of another, with its media type and its own labels.
async fn is_same(target: &Target, version: Version, other: &Info) -> Result<bool> {
    let info = target
        .scope
        .stat(target.name.as_str(), Some(version))
        .await?;
    let own = |info: &Info| -> Vec<(String, String)> {
        let labels = info.labels.iter();
        let own = labels.filter(|(key, _)| !key.starts_with("persist."));
        own.cloned().collect()
    };
    Ok(info.is_some_and(|info| {
        info.sha256 == other.sha256
            && info.media_type == other.media_type
            && own(&info) == own(other)
    }))
}

/// Returns true if other names can be changed despite an error.
async fn is_of_one_name(store: &Store, error: &Error) -> bool {
    match error {
        Error::Conflict { .. } | Error::NotFound(_) | Error::TooLarge { .. } => true,
        Error::UnknownOutcome { .. } => false,
        error => store.is_of_one_place(error).await,
    }
}

impl Action {
    fn verb(&self) -> &'static str {
        match self {
            Self::Restore(_) => "restore",
            Self::Delete => "delete",
            Self::Fork(..) => "fork",
            Self::Move(..) => "move",
        }
    }

    fn done(&self) -> &'static str {
        match self {
            Self::Restore(_) => "restored",
            Self::Delete => "deleted",
            Self::Fork(..) => "forked",
            Self::Move(..) => "moved",
        }
    }

    /// Returns the address that the state comes from, if it is another name's.
    fn from(&self) -> Option<String> {
        match self {
            Self::Restore(_) | Self::Delete => None,
            Self::Fork(scope, name, version) | Self::Move(scope, name, version) => {
                let address = address::address(scope.agent(), scope.session(), name);
                Some(format!("{address}@{version}"))
            }
        }
    }

    /// Describes the change.
    fn line(&self, target: &Target) -> String {
        let address = target.address();
        match (self, self.from()) {
            (Self::Restore(version), _) => format!("restore {address}@{version}"),
            (action, Some(from)) => format!("{} {from} to {address}", action.verb()),
            (action, None) => format!("{} {address}", action.verb()),
        }
    }

    async fn make(&self, target: &Target, out: Out) -> Result<Info, Error> {
        let Target { scope, name, .. } = target;
        let expect = target.expect();
        match self {
            Self::Restore(version) => scope.restore(name.as_str(), *version, expect).await,
            Self::Delete => scope.delete(name.as_str(), expect).await,
            Self::Fork(from, old, version) => {
                let version = Some(*version);
                from.fork_to(old.as_str(), version, scope, name.as_str(), expect)
                    .await
            }
            Self::Move(from, old, _) => {
                let address = address::address(from.agent(), from.session(), old);
                let copied =
                    from.fork_history_to(old.as_str(), scope, name.as_str(), |at, copy| {
                        if let Err(error) = copy {
                            let code = snapshot_code(&error);
                            let what = format_args!("{address}@{at} was left out: {error}");
                            out.error(code, what);
                        }
                    });
                let (newest, info) = copied.await?;
                let deletion = from.delete(old.as_str(), Expect::Version(newest)).await;
                if deletion.is_err() {
                    let copy = target.address();
                    let rm = out.command("rm", &copy);
                    out.note(format_args!(
                        "warning: {address} is not deleted; {copy} is a copy of it\nhint: run \
                         `{rm}` before you move it again"
                    ));
                }
                deletion?;
                Ok(info)
            }
        }
    }
}

/// The commands that undo the changes that were made. They are printed when it is dropped, as an
/// interruption may end the others.
struct Undo {
    restore: Vec<String>,
    delete: Vec<String>,
    is_printed: bool,
    out: Out,
}

impl Undo {
    fn new(out: Out) -> Self {
        Self {
            restore: Vec::new(),
            delete: Vec::new(),
            is_printed: false,
            out,
        }
    }

    fn add(&mut self, target: &Target, action: &Action) {
        match target.head {
            Some(head) if !head.deleted => {
                let address = target.address();
                self.restore.push(format!("{address}@{}", head.version));
            }
            _ => self.delete.push(target.address()),
        }
        if let Action::Move(..) = action {
            self.restore.extend(action.from());
        }
    }

    fn command(&self) -> Option<String> {
        let commands = [("rm", &self.delete), ("restore", &self.restore)];
        let commands: Vec<_> = commands
            .into_iter()
            .filter(|(_, addresses)| !addresses.is_empty())
            .map(|(verb, addresses)| self.out.command_for(verb, addresses))
            .collect();
        (!commands.is_empty()).then(|| commands.join(" && "))
    }

    fn print(&mut self) {
        self.is_printed = true;
        if let Some(command) = self.command() {
            self.out.note(format_args!("to undo: {command}"));
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if !self.is_printed {
            self.print();
        }
    }
}
