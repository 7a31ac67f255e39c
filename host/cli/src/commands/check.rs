//! Verification that the stored data is what was saved.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{
    CheckSummary, Error, Finding, FindingKind, Name, ReadData, Scope, Selection, Severity, Store,
    Version, layout,
};
use serde_json::{Value, json};

use super::compare::compare;
use super::copy::apart;
use super::{missing, nowhere};
use crate::address::{self, Address, SelectionArg, Target};
use crate::error::{Damaged, Found};
use crate::exit::{self, snapshot_code};
use crate::print::{self, Out};
use crate::progress::Progress;
use crate::select::{self, Conditions, Names};
use crate::stdio::{self, BAD, DIM, WARNING, say, stderr_is_coloured, stdout_is_coloured};
use crate::stores::Stores;
use crate::table::{self, Column, Table};
use crate::text::{self, one_line, painted};
use crate::when::{At, Past, When};

/// Verify every byte of versions
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist verify bot/memory
  persist verify bot/memory@3 --json
  persist verify 'bot-*/memory'")]
pub(crate) struct Verify {
    /// Addresses, or agents, sessions or names, of which each part may be a glob; @N selects
    /// version N [default: the newest]
    #[arg(value_name = "SELECTION", required = true)]
    targets: Vec<Target>,
}

/// Check the stored data for damage
///
/// Verifies the length and the trailer of each version. The trailer holds the metadata and the
/// checksums of the blocks; the blocks are read only with --read-data or --sample. Exit code 6:
/// data is damaged. 5: this account may not read all data, and the rest is undamaged. 10: warnings
/// only. Cost: a request for each version, and with --read-data a request for each 8 MiB.
///
/// With --against, also compares the store with another one that has the same versions, such as a
/// copy of it, by version numbers and trailers. A version of the other store that is newer than
/// every version of the name in this store is damage (lost). An older version that is missing is a
/// warning if the store's policy keeps it; otherwise it counts as pruned. Versions that only this
/// store has are not reported.
///
/// With --at, checks of each name only the version that was the newest then: what a restore to that
/// time needs. A name whose versions of that time are pruned is a warning.
///
/// Conditions select names by their newest version in this store. A name whose newest version
/// cannot be read is checked whatever the conditions are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist check
  persist check bot --read-data
  persist check --since yesterday --read-data
  persist check bot --at 'yesterday 14:05' --read-data
  persist check --sample 5% --json
  persist check --against s3://backup/agents")]
pub(crate) struct Check {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    conditions: Conditions,
    /// Read and verify every byte
    #[arg(long, conflicts_with = "sample")]
    read_data: bool,
    /// Read and verify every byte of PERCENT of the versions, chosen at random
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    sample: Option<f64>,
    /// Print only totals
    #[arg(long)]
    summary: bool,
    /// Report versions that the store at URL has and this store does not have, or has with other
    /// content
    #[arg(long, value_name = "URL", conflicts_with = "at")]
    against: Option<String>,
}

impl Verify {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let mut damaged = 0;
        // A name that two arguments select is verified once.
        let mut seen = BTreeSet::new();
        for target in &self.targets {
            let selection = match target {
                Target::Version(address) => {
                    verify(store, address, out).await?;
                    continue;
                }
                Target::Names(selection) => selection,
            };
            if let Some(address) = Address::of(&selection.0) {
                if !seen.insert(address.name()) {
                    continue;
                }
                verify(store, &address, out).await?;
                continue;
            }
            select::require(store, selection).await?;
            let mut walk = store.walk(&selection.0);
            while let Some((scope, name)) = walk.next().await? {
                let address = Address::in_scope(&scope, name);
                if !seen.insert(address.name()) {
                    continue;
                }
                // A damaged version does not hide the others.
                match verify(store, &address, out).await {
                    Err(error) if exit::code(&error) == 6 => {
                        damaged += 1;
                        out.error(6, format_args!("{}: {error:#}", address.name()));
                    }
                    verified => verified?,
                }
            }
        }
        Damaged::none_of(damaged)
    }
}

async fn verify(store: &Store, address: &Address, out: Out) -> Result<()> {
    let scope = address.scope(store)?;
    let verified = scope.verify(address.name.as_str(), address.version).await?;
    let Some(verified) = verified else {
        return Err(missing(store, address).await);
    };
    let info = &verified.info;
    let text = address.at(info.version);
    let value = print::event("verified", &text, info);
    out.print(&value, || {
        let size = text::bytes(info.size);
        let stored = text::bytes(info.stored_size);
        format!(
            "verified {text}: {size} of state, {stored} stored, sha256 {}",
            info.sha256
        )
    })?;
    Ok(())
}

impl Check {
    pub(crate) async fn run(self, stores: &Stores<'_>, store: &Store, out: Out) -> Result<()> {
        let against = match &self.against {
            None => None,
            Some(url) => {
                let other = stores.at(url)?;
                apart(&other, store)?;
                other.require().await?;
                Some(other)
            }
        };
        let read = match (self.read_data, self.sample) {
            (true, _) => ReadData::All,
            (false, Some(share)) => ReadData::Sample(share),
            (false, None) => ReadData::None,
        };
        let whole = self.names.is_everything() && self.conditions.is_empty();
        // A name that this store lost may be in the other.
        if let Err(missing) = self.names.require(store).await {
            match &against {
                Some(other) if self.names.require(other).await.is_ok() => {}
                _ => return Err(missing),
            }
        }
        let selections = &self.names.selections;
        let (mut selection, unreadable) = self.conditions.select(store, selections).await?;
        if !unreadable.is_empty() {
            let damaged = unreadable.iter().map(|(address, _)| {
                let name = address.parse::<SelectionArg>();
                name.map(|name| name.0)
            });
            let damaged = damaged.collect::<Result<Vec<_>>>()?;
            selection = Selection::union(std::iter::once(selection).chain(damaged));
        }
        let mut lines = Lines::new(out, self.summary);
        let mut counts = Counts::default();
        let past = match self.at.at {
            None => None,
            Some(when) => Some(past(store, &selection, when).await?),
        };
        let mut progress = Progress::items(out, "checked versions:", None);
        let mut printed = Ok(());
        let mut misplaced = Misplaced::default();
        let each = |_: &CheckSummary, finding: Option<&Finding>| {
            let Some(finding) = finding else {
                return progress.add(1);
            };
            counts.add(finding.kind.severity());
            if !out.json && misplaced.takes(finding) {
                return;
            }
            // A finding that cannot be printed does not stop the check.
            if let Err(error) = progress.aside(|| tell(finding, &mut lines)) {
                printed = Err(error);
            }
        };
        let pruned = past.as_ref().map_or(0, |past| past.pruned.len() as u64);
        let mut checked = match &past {
            None => store.check(&selection, read, each).await?,
            Some(past) => {
                let versions = past.versions.iter().cloned();
                store.check_versions(versions, read, each).await?
            }
        };
        drop(progress);
        misplaced.print(&mut lines).or_else(|error| {
            printed = Err(error);
            std::io::Result::Ok(())
        })?;
        if let Some(past) = past {
            if past.versions.is_empty() && pruned == 0 {
                return Err(past.nothing(store));
            }
            let told = past.print_pruned(&mut lines);
            super::printed(told, "the store is checked")?;
            counts.warnings += pruned;
            checked.findings += pruned;
        }
        if checked.versions + checked.findings == 0 {
            // A disk that is not mounted is no store that was checked.
            store.require().await?;
        }
        let mut compared = Compared::default();
        if let Some(other) = against {
            compared.run(store, &other, &selection, &mut lines).await?;
        }
        super::printed(lines.flush(), "the store is checked")?;
        if checked.versions + checked.findings + compared.versions == 0 && !whole {
            return Err(nowhere(store, &selection).await);
        }
        super::printed(printed, "the store is checked")?;
        counts.damaged += compared.lost;
        counts.denied += compared.denied;
        counts.warnings += compared.missing + compared.differing + compared.unread;
        conclude(&checked, &compared, &counts, out)
    }
}

/// Versions that were the newest at a point in time.
struct PastVersions {
    when: When,
    versions: Vec<(Scope, Name, Version)>,
    /// Names whose versions of that time are pruned, with the oldest that is left.
    pruned: Vec<(Scope, Name, Version)>,
}

/// Returns the version of each name that was the newest at a time.
async fn past(store: &Store, selection: &Selection, when: When) -> Result<PastVersions> {
    let mut past = PastVersions {
        when,
        versions: Vec::new(),
        pruned: Vec::new(),
    };
    let mut walk = store.walk(selection);
    while let Some((scope, name)) = walk.next().await? {
        match when.find(&scope, &name).await? {
            Past::Version(info) => past.versions.push((scope, name, info.version)),
            // The check tells why.
            Past::Unreadable(version, _) => past.versions.push((scope, name, version)),
            Past::Pruned(oldest) => past.pruned.push((scope, name, oldest)),
            Past::NotYet | Past::Nothing => {}
        }
    }
    Ok(past)
}

impl PastVersions {
    fn nothing(&self, store: &Store) -> anyhow::Error {
        let when = self.when.shown();
        let what = format!(
            "nothing that matches in {} existed at {when}",
            store.location()
        );
        Error::NotFound(what).into()
    }

    /// Prints a line for each name whose versions of that time are pruned.
    fn print_pruned(&self, lines: &mut Lines) -> std::io::Result<()> {
        for (scope, name, oldest) in &self.pruned {
            let (agent, session) = (scope.agent(), scope.session());
            let what = format!(
                "its versions at {} are pruned; the oldest is @{oldest}",
                self.when.shown()
            );
            let line = Line {
                severity: Severity::Warning,
                kind: "pruned",
                key: &layout::version_key(agent, session, name, *oldest),
                address: Some(address::address(agent, session, name)),
                what: &what,
                hint: None,
            };
            lines.print(&line)?;
        }
        Ok(())
    }
}

/// Misplaced versions, which a moved directory has many of: a line for each name.
#[derive(Default)]
struct Misplaced(Vec<(String, Vec<Version>, Finding)>);

impl Misplaced {
    /// Takes a finding about a misplaced version.
    fn takes(&mut self, finding: &Finding) -> bool {
        let (FindingKind::Misplaced, Some((scope, name, version))) =
            (finding.kind, &finding.version)
        else {
            return false;
        };
        let address = address::address(scope.agent(), scope.session(), name);
        match self.0.last_mut() {
            Some((last, versions, _)) if *last == address => versions.push(*version),
            _ => self.0.push((address, vec![*version], finding.clone())),
        }
        true
    }

    /// Prints a line for each name, with what is wrong with the first version that was met.
    fn print(self, lines: &mut Lines) -> std::io::Result<()> {
        for (address, versions, finding) in self.0 {
            if versions.len() == 1 {
                tell(&finding, lines)?;
                continue;
            }
            let count = text::count(versions.len() as u64, "version");
            let first = versions.first().copied().unwrap_or_default();
            let what = format!("of @{first}: {}", finding.what);
            let line = Line {
                severity: FindingKind::Misplaced.severity(),
                kind: FindingKind::Misplaced.as_str(),
                key: &format!("{count}, such as @{first}"),
                address: Some(address),
                what: if lines.table.is_some() {
                    &what
                } else {
                    &finding.what
                },
                hint: hint(FindingKind::Misplaced),
            };
            lines.print(&line)?;
        }
        Ok(())
    }
}

/// Findings, by severity.
#[derive(Default)]
struct Counts {
    damaged: u64,
    denied: u64,
    warnings: u64,
}

impl Counts {
    fn add(&mut self, severity: Severity) {
        match severity {
            Severity::Damage => self.damaged += 1,
            Severity::Denied => self.denied += 1,
            Severity::Note => {}
            // A severity of a later version of the library is counted as a warning.
            _ => self.warnings += 1,
        }
    }
}

/// The outcome of a comparison with another store.
#[derive(Default)]
struct Compared {
    /// Versions of the other store.
    versions: u64,
    lost: u64,
    missing: u64,
    pruned: u64,
    differing: u64,
    /// Versions and names of the other store that could not be compared.
    unread: u64,
    denied: u64,
}

impl Compared {
    /// Number of findings.
    fn findings(&self) -> u64 {
        self.lost + self.missing + self.differing + self.unread + self.denied
    }

    /// Compares every name of the other store, and prints a line for each version that differs.
    async fn run(
        &mut self,
        store: &Store,
        other: &Store,
        selection: &Selection,
        lines: &mut Lines,
    ) -> Result<()> {
        let out = lines.out;
        let policy = store.policy().await?;
        let mut progress = Progress::items(out, "compared names:", None);
        let mut walk = other.walk(selection);
        loop {
            let (scope, name) = match walk.next().await {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error) if other.is_of_one_place(&error).await => {
                    self.unread += 1;
                    let code = snapshot_code(&error);
                    progress.aside(|| out.error(code, format_args!("skipped: {error}")));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let found = compare(&scope, &name, store, &policy).await?;
            let address = address::address(scope.agent(), scope.session(), &name);
            let mut line = |severity, kind, version: Version, what: &str, hint| {
                let key = layout::version_key(scope.agent(), scope.session(), &name, version);
                let line = Line {
                    severity,
                    kind,
                    key: &key,
                    address: Some(format!("{address}@{version}")),
                    what,
                    hint,
                };
                lines.print(&line)
            };
            let place = other.location();
            self.versions += found.compared;
            self.lost += found.lost.len() as u64;
            self.missing += found.missing.len() as u64;
            self.pruned += found.pruned;
            self.differing += found.differing.len() as u64;
            self.unread += found.unread.len() as u64;
            let done = "the store is compared";
            for info in &found.lost {
                let what = format!("missing here, and newer than every version here; in {place}");
                let hint = Some("copy it back with `persist repair --from URL`");
                let version = info.version;
                let printed =
                    progress.aside(|| line(Severity::Damage, "lost", version, &what, hint));
                super::printed(printed, done)?;
            }
            for info in &found.missing {
                let what = format!("missing here, and the store's policy keeps it; in {place}");
                let hint = Some("copy it back with `persist repair --from URL`");
                let version = info.version;
                let printed =
                    progress.aside(|| line(Severity::Warning, "missing", version, &what, hint));
                super::printed(printed, done)?;
            }
            for &version in &found.differing {
                let what = format!("differs from the version in {place}");
                let printed =
                    progress.aside(|| line(Severity::Warning, "differs", version, &what, None));
                super::printed(printed, done)?;
            }
            for (version, error) in &found.unread {
                let what = format!("cannot be compared: in the other store: {error}");
                let printed =
                    progress.aside(|| line(Severity::Warning, "unread", *version, &what, None));
                super::printed(printed, done)?;
            }
            if let Some(error) = &found.unlisted {
                let code = snapshot_code(error);
                if code == 5 {
                    self.denied += 1;
                } else {
                    self.unread += 1;
                }
                progress.aside(|| {
                    out.error(code, format_args!("{address}: cannot be compared: {error}"));
                });
            }
            progress.add(1);
        }
        Ok(())
    }
}

/// A finding as it is printed.
struct Line<'a> {
    severity: Severity,
    kind: &'a str,
    key: &'a str,
    address: Option<String>,
    what: &'a str,
    hint: Option<&'a str>,
}

/// Columns of findings on a terminal.
const COLUMNS: [Column; 4] = [
    table::text("SEVERITY"),
    table::text("KIND"),
    table::address("ADDRESS"),
    table::wrapped("FINDING"),
];

/// Findings on their way out: a table on a terminal, and one line each elsewhere.
struct Lines {
    out: Out,
    table: Option<Table>,
    /// Prints none of them.
    is_summary: bool,
}

impl Lines {
    fn new(out: Out, is_summary: bool) -> Self {
        let is_table = !out.json && !out.quiet && stdio::columns().is_some();
        Self {
            out,
            is_summary,
            table: is_table.then(|| Table::new(out, &COLUMNS)),
        }
    }

    /// Prints a finding. A stranger may have chosen the key and what the file says.
    fn print(&mut self, line: &Line<'_>) -> std::io::Result<()> {
        if self.is_summary {
            return Ok(());
        }
        let out = self.out;
        let value = line.value();
        let style = match line.severity {
            Severity::Damage | Severity::Denied => BAD,
            Severity::Note => DIM,
            _ => WARNING,
        };
        if let Some(table) = &mut self.table {
            return table.styled_row(&value, style, || line.cells());
        }
        if out.quiet && !out.json {
            // A problem is never kept quiet. It is no result that was asked for.
            say(format_args!(
                "{}",
                painted(stderr_is_coloured(), style, &line.text())
            ));
            return Ok(());
        }
        out.print(&value, || {
            painted(stdout_is_coloured(), style, &line.text())
        })
    }

    /// Prints the rows that are held.
    fn flush(&mut self) -> std::io::Result<()> {
        self.table.as_mut().map_or(Ok(()), Table::flush)
    }
}

impl Line<'_> {
    fn value(&self) -> Value {
        let value = json!({
            "severity": self.severity.as_str(), "kind": self.kind, "key": self.key,
            "message": self.what, "hint": self.hint,
        });
        let address = self.address.as_deref();
        let mut value = print::extend(value, print::located(address.unwrap_or_default()));
        if address.is_none() {
            value["address"] = Value::Null;
        }
        value
    }

    fn text(&self) -> String {
        let severity = self.severity.as_str();
        let kind = self.kind;
        let what = one_line(self.what);
        let key = one_line(self.key);
        let place = match &self.address {
            None => key,
            Some(address) => format!("{address} ({key})"),
        };
        let hint = self
            .hint
            .map(|hint| format!("; {hint}"))
            .unwrap_or_default();
        format!("{severity:<8} {kind:<15} {place}: {what}{hint}")
    }

    fn cells(&self) -> Vec<String> {
        let key = one_line(self.key);
        let mut finding = one_line(self.what);
        finding += &self
            .hint
            .map(|hint| format!("; {hint}"))
            .unwrap_or_default();
        let place = match &self.address {
            None => key,
            Some(address) => {
                finding += &format!(" ({key})");
                address.clone()
            }
        };
        let severity = self.severity.as_str().to_owned();
        vec![severity, self.kind.to_owned(), place, finding]
    }
}

fn tell(finding: &Finding, lines: &mut Lines) -> std::io::Result<()> {
    let address = finding.version.as_ref().map(|(scope, name, version)| {
        let name = address::address(scope.agent(), scope.session(), name);
        format!("{name}@{version}")
    });
    lines.print(&Line {
        severity: finding.kind.severity(),
        kind: finding.kind.as_str(),
        key: &finding.key,
        address,
        what: &finding.what,
        hint: hint(finding.kind),
    })
}

/// Returns what to do about a finding, if the finding itself does not say it.
fn hint(kind: FindingKind) -> Option<&'static str> {
    match kind {
        FindingKind::Misplaced => Some(
            "adopt the newest with `persist repair`, or move the file to the key of that version",
        ),
        FindingKind::Corrupt => Some("restore an older version, or copy it again from a backup"),
        FindingKind::Unsupported => Some("use a newer version of Persist"),
        FindingKind::Unreadable => Some("check the disk"),
        FindingKind::InTheWay | FindingKind::Foreign => Some("move it elsewhere"),
        FindingKind::DanglingPin => Some("remove the pin with `persist unpin`"),
        _ => None,
    }
}

fn conclude(checked: &CheckSummary, compared: &Compared, counts: &Counts, out: Out) -> Result<()> {
    let Counts {
        damaged,
        denied,
        warnings,
    } = *counts;
    let CheckSummary {
        names,
        versions,
        read,
        bytes,
        findings,
        ..
    } = *checked;
    let notes = findings - (damaged + denied + warnings).saturating_sub(compared.findings());
    let findings = findings + compared.findings();
    let value = json!({
        "event": "checked", "names": names, "versions": versions, "read": read, "bytes": bytes,
        "findings": findings, "damaged": damaged, "denied": denied, "warnings": warnings,
        "compared": compared.versions, "lost": compared.lost, "missing": compared.missing,
        "pruned": compared.pruned, "differing": compared.differing,
    });
    let summary = out.print(&value, || {
        let bytes = text::bytes(bytes);
        let compared = match compared.versions {
            0 => String::new(),
            versions => format!(
                "\ncompared {}: {} lost, {} missing, {} different, {} pruned",
                text::count(versions, "version"),
                compared.lost,
                compared.missing,
                compared.differing,
                compared.pruned
            ),
        };
        format!(
            "checked {} of {}, {bytes} stored, {read} read completely: {damaged} damaged, \
             {denied} denied, {}, {}{compared}",
            text::count(versions, "version"),
            text::count(names, "name"),
            text::count(warnings, "warning"),
            text::count(notes, "note")
        )
    });
    super::printed(summary, "the store is checked")?;
    let found = |severity, what: String| Err(Found { severity, what }.into());
    if damaged > 0 {
        return found(Severity::Damage, format!("damaged: {damaged}"));
    }
    if denied > 0 {
        let what = format!("permission denied: {denied}; no damage in what could be read");
        return found(Severity::Denied, what);
    }
    if warnings > 0 {
        let what = "no damage; the warnings above need attention";
        return found(Severity::Warning, what.into());
    }
    Ok(())
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(number) if (0.0..=100.0).contains(&number) => Ok(number / 100.0),
        _ => Err("write a share of the versions from 0% to 100%".into()),
    }
}
