//! Copies between stores, and what was compared.

use anyhow::{Context as _, Result};
use clap::Args;
use persist_host::snapshot::{
    CopyOptions, CopyOutcome, Error, Info, Name, Scope, Selection, Store, Version, Walk, layout,
};
use persist_host::storage::IdentityRelation;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{confirm, nowhere, printed};
use crate::address;
use crate::error::{Code, Conflicts, Damaged, Usage};
use crate::exit::snapshot_code;
use crate::interrupt::Interrupt;
use crate::print::{self, Out};
use crate::progress::{self, Progress};
use crate::select::{Conditions, Names};
use crate::stores::{Create, Stores};
use crate::text;
use crate::when::{Past, When};

/// Exit codes of entries that could not be copied.
const CONFLICT: u8 = 4;
const DAMAGED: u8 = 6;
const TOO_HIGH: u8 = 8;
const ATTENTION: u8 = 10;

/// Copy versions to another store and verify each copied version
///
/// Versions keep their addresses; tombstones and pins are copied too. Each copied version is read
/// back and compared byte by byte. A version that exists in TO is not overwritten: its checksum is
/// compared, or with --read-data every byte. An interrupted copy can be run again and copies the
/// rest. A version that cannot be read or written is reported and skipped, and the exit code is not
/// 0. Versions that exist only in TO are counted, and removed with --delete.
///
/// Stop the hosts of TO during the copy. `persist prune` counts the age of a copied version from
/// the time of the copy. Both stores use the same settings. A URL can set its own after a question
/// mark: endpoint, region and profile for S3, endpoint for Google Cloud Storage.
///
/// With --at, copies of each name only the version that was the newest then, under its number and
/// without its pin; a name that was deleted then is left out. A name whose versions of that time
/// are pruned is reported, and the exit code is then 6. A newer version in TO stays the newest.
///
/// Conditions select names by their newest version in FROM, and --delete removes nothing of other
/// names. A name whose newest version cannot be read is reported and left out, and the exit code is
/// then 6.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist copy file:///var/lib/agents s3://bucket/agents --create
  persist copy s3://bucket/agents gs://bucket/agents bot
  persist copy s3://bucket/agents file:///backup --since yesterday
  persist copy s3://bucket/agents file:///incident bot --at 2026-11-26T14:05 --create
  persist copy gs://bucket/agents file:///backup bot/monday/memory --read-data
  persist copy s3://bucket/agents file:///backup --delete --dry-run
  persist copy file:///backup s3://bucket/agents bot --repair
  persist copy 's3://old?endpoint=http://nas:9000&profile=nas' s3://new")]
pub(crate) struct Copy {
    /// URL of the source store: file:///absolute/path, s3://bucket/prefix or gs://bucket/prefix
    #[arg(value_name = "FROM_URL")]
    from: String,
    /// URL of the destination store
    #[arg(value_name = "TO_URL")]
    to: String,
    #[command(flatten)]
    names: Names,
    /// Copy of each name the newest version that was created at TIME or before: 2026-11-26T14:05
    /// (local time unless it has a zone), 2026-11-26, 14:05, `yesterday 14:05` or `2h ago`
    #[arg(long, value_name = "TIME", conflicts_with = "delete")]
    at: Option<When>,
    #[command(flatten)]
    how: How,
    #[command(flatten)]
    mirror: Mirror,
    #[command(flatten)]
    conditions: Conditions,
    #[command(flatten)]
    create: Create,
    /// Ignored: FROM_URL and TO_URL name the stores
    // Hides the global option, which names one store.
    #[arg(long, hide = true)]
    storage: Option<String>,
}

/// Changes of the destination besides copied versions.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Mirror {
    /// Change nothing; print what would be copied, repaired and removed. Missing versions are
    /// verified by their trailers, and with --read-data completely
    #[arg(long)]
    dry_run: bool,
    /// Replace versions in TO that fail verification. Reads every byte in both stores; a version
    /// is replaced only if the one in FROM is intact
    #[arg(long)]
    repair: bool,
    /// Remove names, versions and pins from TO that FROM does not have, after everything is copied
    /// and verified. Nothing is removed if a version could not be copied, or if TO has a name with
    /// a version that is newer than all in FROM
    #[arg(long)]
    delete: bool,
    /// With --delete, also remove versions that are newer than all versions of the name in FROM
    #[arg(long, requires = "delete")]
    delete_newer: bool,
    /// Do not ask before versions are removed
    #[arg(long, short, requires = "delete")]
    yes: bool,
}

/// How versions are copied and compared.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct How {
    /// Compare every byte of existing versions, not only their checksums
    #[arg(long)]
    read_data: bool,
    /// Print only totals
    #[arg(long)]
    summary: bool,
    /// Copy versions whose numbers are more than 1,000,000 above the newest in the destination, or
    /// near the maximum
    #[arg(long)]
    any_version: bool,
}

impl How {
    fn options(self, mirror: Mirror) -> CopyOptions {
        let mut options = CopyOptions::default();
        options.read_data = self.read_data;
        options.any_version = self.any_version;
        options.dry_run = mirror.dry_run;
        options.repair = mirror.repair;
        options
    }
}

impl Copy {
    pub(crate) async fn run(
        self,
        stores: &Stores<'_>,
        interrupt: &Interrupt,
        out: Out,
    ) -> Result<()> {
        if self.storage.is_some() {
            out.note(format_args!(
                "warning: --storage is ignored: FROM_URL and TO_URL name the stores"
            ));
        }
        let from = stores.at(&self.from)?;
        apart(&from, &stores.at(&self.to)?)?;
        from.require().await?;
        self.names.require(&from).await?;
        let to = stores.copy_of(&from.policy().await?, &self.to, self.create)?;
        let selections = &self.names.selections;
        let (selection, unreadable) = self.conditions.select(&from, selections).await?;
        for (address, error) in &unreadable {
            out.damaged(address, error)?;
        }
        let how = Ways {
            how: self.how,
            mirror: self.mirror,
            at: self.at,
        };
        if selection != Selection::union([]) {
            copy(&from, &to, &selection, how, interrupt, out).await?;
        }
        Damaged::none_of(unreadable.len())
    }
}

/// All options of a copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ways {
    pub(crate) how: How,
    pub(crate) mirror: Mirror,
    /// Point in time of which each name is copied; none: every version.
    pub(crate) at: Option<When>,
}

/// Copies what is selected, name by name, and prints a line for each and what was compared.
pub(crate) async fn copy(
    from: &Store,
    to: &Store,
    selection: &Selection,
    how: Ways,
    interrupt: &Interrupt,
    out: Out,
) -> Result<()> {
    // Both are understood before anything is copied.
    from.is_there().await?;
    to.require().await?;
    if how.mirror.delete {
        require_shared_name(from, to, selection).await?;
    }
    let total = if progress::is_watched(out) {
        Some(count(from, selection).await?)
    } else {
        None
    };
    let mut progress = Progress::items(out, "copied names:", total);
    let mut sum = Sum::new(how);
    let mut walk = from.walk(selection);
    let mut others = Others::new(to, selection, out);
    loop {
        let (scope, name) = match walk.next().await {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(error) if from.is_of_one_place(&error).await => {
                let code = snapshot_code(&error);
                progress.aside(|| out.error(code, format_args!("skipped: {error}")));
                sum.skipped.add(&error, 1);
                continue;
            }
            Err(error) => return Err(error).with_context(|| sum.so_far()),
        };
        let tally = copy_name(&scope, &name, to, how)
            .await
            .with_context(|| sum.so_far())?;
        others.skip_to(&scope, &name, &mut sum).await?;
        progress.add(1);
        if tally.is_empty() {
            continue;
        }
        progress.aside(|| tally.print(how.how.summary, out))?;
        sum.add(tally);
    }
    drop(progress);
    if sum.names == 0 && sum.skipped.count == 0 {
        return Err(match how.at {
            None => nowhere(from, selection).await,
            Some(when) => {
                let (from, when) = (from.location(), when.shown());
                Error::NotFound(format!("nothing that matches in {from} existed at {when}")).into()
            }
        });
    }
    others.count_rest(&mut sum).await?;
    sum.remove_surplus(to, interrupt, out).await?;
    sum.conclude(from, to, out)
}

/// Refuses to remove anything from a destination that has names, none of which is in the source:
/// one of the two is the wrong store.
async fn require_shared_name(from: &Store, to: &Store, selection: &Selection) -> Result<()> {
    let mut walk = to.walk(selection);
    let mut is_empty = true;
    while let Some((scope, name)) = walk.next().await? {
        if scope.versions(name.as_str(), None, 1).await?.is_empty() {
            continue;
        }
        is_empty = false;
        let source = from.scope(scope.agent().as_str(), scope.session().map(Name::as_str))?;
        if !source.versions(name.as_str(), None, 1).await?.is_empty() {
            return Ok(());
        }
    }
    if is_empty {
        return Ok(());
    }
    let from = from.location();
    let to = to.location();
    let what = format!("--delete would remove everything: no name of {to} is in {from}");
    Err(Usage::new(what)
        .with_hint("check that the first URL is the source; remove names with `persist purge`")
        .into())
}

/// Names, versions and pins that only the destination has, of one name.
#[derive(Debug)]
struct Surplus {
    scope: Scope,
    name: Name,
    address: String,
    /// True where the source has nothing under this name.
    is_whole: bool,
    /// Ascending.
    versions: Vec<Version>,
    /// Those of `versions` that are newer than every version in the source. Of a whole name, none.
    newer: Vec<Version>,
    pins: Vec<Version>,
}

impl Surplus {
    /// A name that only the destination has.
    async fn whole(scope: Scope, name: Name) -> Result<Self> {
        let mut versions: Vec<Version> = Vec::new();
        loop {
            let before = versions.last().copied();
            let page = scope.versions(name.as_str(), before, 10_000).await?;
            if page.is_empty() {
                break;
            }
            versions.extend(page);
        }
        versions.reverse();
        let pins = scope.pins(name.as_str()).await?;
        Ok(Self {
            address: address::address(scope.agent(), scope.session(), &name),
            is_whole: true,
            scope,
            name,
            versions,
            newer: Vec::new(),
            pins,
        })
    }

    /// Removes them. A removal that is cut short leaves what a shorter history would be.
    async fn remove(&self) -> Result<()> {
        let name = self.name.as_str();
        let is_newer = |version: &&Version| self.newer.contains(version);
        let newer = self.newer.iter().rev().copied();
        let older = self.versions.iter().filter(|version| !is_newer(version));
        let order: Vec<_> = newer.chain(older.copied()).collect();
        self.scope.remove_with_hosts_stopped(name, &order).await?;
        for &pin in &self.pins {
            self.scope.unpin(name, pin).await?;
        }
        Ok(())
    }

    fn text(&self) -> String {
        let address = &self.address;
        let versions = text::count(self.versions.len() as u64, "version");
        let pins = match self.pins.len() {
            0 => String::new(),
            pins => format!(", {}", text::count(pins as u64, "pin")),
        };
        let newer = match self.newer.as_slice() {
            [] => String::new(),
            [.., newest] => format!(
                "; {} newer than every version in the source, up to @{newest}",
                self.newer.len()
            ),
        };
        let whole = if self.is_whole { " (whole name)" } else { "" };
        format!("{address}: {versions}{pins}{whole}{newer}")
    }

    fn print(&self, dry_run: bool, out: Out) -> Result<()> {
        let value = json!({
            "event": "removed", "dry_run": dry_run, "versions": self.versions,
            "newer_than_source": self.newer, "pins": self.pins, "whole_name": self.is_whole,
        });
        let value = print::extend(value, print::located(&self.address));
        let line = || {
            let removed = if dry_run { "would remove" } else { "removed" };
            format!("{removed} {}", self.text())
        };
        let done = format!("{} is removed", self.address);
        printed(out.print(&value, line), &done)
    }
}

/// Lines of a question about what is removed.
const SHOWN: usize = 20;

/// The names of the destination, beside those of the source: both are walked in the order of their
/// keys.
struct Others {
    to: Store,
    out: Out,
    walk: Walk,
    next: Option<(Scope, Name)>,
    more: bool,
}

impl Others {
    fn new(to: &Store, selection: &Selection, out: Out) -> Self {
        Self {
            to: to.clone(),
            out,
            walk: to.walk(selection),
            next: None,
            more: true,
        }
    }

    async fn peek(&mut self, sum: &mut Sum) -> Result<Option<&(Scope, Name)>> {
        while self.next.is_none() && self.more {
            match self.walk.next().await {
                Ok(Some(next)) => self.next = Some(next),
                Ok(None) => self.more = false,
                Err(error) if self.to.is_of_one_place(&error).await => {
                    let code = snapshot_code(&error);
                    self.out
                        .error(code, format_args!("in the destination: {error}"));
                    sum.skipped.add(&error, 1);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.next.as_ref())
    }

    /// Counts the names before this one of the source, and passes it over.
    async fn skip_to(&mut self, scope: &Scope, name: &Name, sum: &mut Sum) -> Result<()> {
        let to = order(scope, name);
        while let Some((scope, name)) = self.peek(sum).await? {
            let at = order(scope, name);
            if at > to {
                return Ok(());
            }
            let next = self.next.take();
            if at < to {
                sum.add_name_only_there(next).await?;
            }
        }
        Ok(())
    }

    async fn count_rest(&mut self, sum: &mut Sum) -> Result<()> {
        while self.peek(sum).await?.is_some() {
            let next = self.next.take();
            sum.add_name_only_there(next).await?;
        }
        Ok(())
    }
}

/// Position of a name in a walk: directories are listed as their keys sort.
fn order(scope: &Scope, name: &Name) -> [String; 3] {
    let session = layout::session_segment(scope.session());
    [scope.agent().encoded(), session, name.encoded()].map(|segment| format!("{segment}/"))
}

/// Refuses two stores of which one is the other, or lies within it: each would find the other's
/// files among its own.
pub(super) fn apart(from: &Store, to: &Store) -> Result<(), Usage> {
    match from.identity().relation_to(&to.identity()) {
        IdentityRelation::Different => Ok(()),
        IdentityRelation::Same => {
            let place = from.location();
            let what = format!("source and destination are the same store: {place}");
            Err(Usage::new(what).with_hint("name two stores"))
        }
        IdentityRelation::Inside | IdentityRelation::Contains => {
            let from = from.location();
            let to = to.location();
            Err(
                Usage::new(format!("one store is within the other: {from} and {to}"))
                    .with_hint("name two stores of which none contains the other"),
            )
        }
    }
}

/// How many names there are: it takes a list for each thousand of an agent's, and tells how long
/// the rest will take.
async fn count(store: &Store, selection: &Selection) -> Result<u64> {
    let mut walk = store.walk(selection);
    let mut count = 0;
    while walk.next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

async fn copy_name(scope: &Scope, name: &Name, to: &Store, how: Ways) -> Result<Tally> {
    let address = address::address(scope.agent(), scope.session(), name);
    let mut tally = Tally::new(address, how.mirror);
    let options = how.how.options(how.mirror);
    if let Some(when) = how.at {
        let why = match when.find(scope, name).await? {
            Past::Version(info) if !info.deleted => {
                let copying = scope.copy_version_to(name.as_str(), info.version, to, options);
                if let Some(outcome) = copying.await? {
                    tally.add(outcome);
                }
                return Ok(tally);
            }
            Past::Version(_) | Past::NotYet | Past::Nothing => return Ok(tally),
            Past::Unreadable(version, error) => {
                tally.add(CopyOutcome::Damaged(version, error));
                return Ok(tally);
            }
            Past::Pruned(oldest) => {
                let when = when.shown();
                format!("skipped: its versions at {when} are pruned; the oldest is {oldest}")
            }
        };
        tally.skipped.count += 1;
        tally.skipped.damaged = true;
        tally.unlisted = Some((DAMAGED, why));
        return Ok(tally);
    }
    let copying = scope.copy_to(name.as_str(), to, options, |copied| tally.add(copied));
    copying.await?;
    let has_surplus = !tally.only_there.is_empty() || !tally.pins_only_there.is_empty();
    if how.mirror.delete && has_surplus {
        let session = scope.session().map(Name::as_str);
        let versions = tally.only_there.clone();
        let is_newer = |version: &&Version| Some(**version) > tally.highest;
        // Without a version in the source, it is the whole name.
        let is_whole = tally.highest.is_none();
        let newer = versions.iter().filter(|v| !is_whole && is_newer(v));
        tally.surplus = Some(Surplus {
            scope: to.scope(scope.agent().as_str(), session)?,
            name: name.clone(),
            address: tally.address.clone(),
            is_whole,
            newer: newer.copied().collect(),
            versions,
            pins: tally.pins_only_there.clone(),
        });
    }
    Ok(tally)
}

/// Entries that were left out, and the exit code for them.
#[derive(Default)]
struct Skipped {
    count: u64,
    damaged: bool,
    denied: bool,
    too_high: bool,
}

impl Skipped {
    fn add(&mut self, error: &Error, count: u64) {
        self.count += count;
        match snapshot_code(error) {
            5 => self.denied = true,
            _ => self.damaged = true,
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.damaged |= other.damaged;
        self.denied |= other.denied;
        self.too_high |= other.too_high;
    }
}

/// The outcome for one name.
struct Tally {
    address: String,
    mirror: Mirror,
    /// The highest version of the source that was met.
    highest: Option<Version>,
    /// Versions that are the same on both sides.
    proof: Proof,
    made: u64,
    made_bytes: u64,
    /// Versions that were there before, of which only the trailers were compared.
    by_trailer: u64,
    /// Versions that were there before, and are the same.
    existed: u64,
    /// Versions of the destination that were damaged, and are replaced.
    repaired: Vec<Version>,
    /// Versions that differ in the destination.
    conflicts: Vec<Version>,
    /// The newest version over there, where nothing here is as new.
    destination_newer: Option<Version>,
    /// Versions left out, with the exit code and the reason.
    damaged: Vec<(Version, u8, String)>,
    /// Why nothing could be copied.
    unlisted: Option<(u8, String)>,
    skipped: Skipped,
    /// Ascending.
    only_there: Vec<Version>,
    pins_only_there: Vec<Version>,
    pins_only_here: Vec<Version>,
    /// Pins that a dry run did not copy.
    pins_missing: Vec<Version>,
    surplus: Option<Surplus>,
}

/// Versions that are the same on both sides, and one hash of all that is known of them: address,
/// size, hash of the state, bytes at rest.
#[derive(Clone, Default)]
pub(crate) struct Proof {
    pub(crate) versions: u64,
    pub(crate) bytes: u64,
    hash: Sha256,
}

impl Proof {
    pub(crate) fn add(&mut self, address: &str, info: &Info) {
        self.versions += 1;
        self.bytes += info.stored_size;
        let Info {
            version,
            size,
            sha256,
            stored_size,
            ..
        } = info;
        let line = format!("{address}@{version} {size} {sha256} {stored_size}\n");
        self.hash.update(line.as_bytes());
    }

    pub(crate) fn digest(&self) -> String {
        hex::encode(self.hash.clone().finalize())
    }
}

impl Tally {
    fn new(address: String, mirror: Mirror) -> Self {
        Self {
            address,
            mirror,
            highest: None,
            proof: Proof::default(),
            made: 0,
            made_bytes: 0,
            by_trailer: 0,
            existed: 0,
            repaired: Vec::new(),
            conflicts: Vec::new(),
            destination_newer: None,
            damaged: Vec::new(),
            unlisted: None,
            skipped: Skipped::default(),
            only_there: Vec::new(),
            pins_only_there: Vec::new(),
            pins_only_here: Vec::new(),
            pins_missing: Vec::new(),
            surplus: None,
        }
    }

    /// Returns true if nothing is saved under the name.
    fn is_empty(&self) -> bool {
        self.proof.versions == 0
            && self.made == 0
            && self.conflicts.is_empty()
            && self.repaired.is_empty()
            && self.skipped.count == 0
    }

    fn add(&mut self, copied: CopyOutcome) {
        if let Some(version) = version_here(&copied) {
            self.highest = self.highest.max(Some(version));
        }
        match copied {
            CopyOutcome::Made(info) => {
                self.made += 1;
                self.made_bytes += info.stored_size;
                self.proof.add(&self.address, &info);
            }
            CopyOutcome::Missing(info) => {
                self.made += 1;
                self.made_bytes += info.stored_size;
            }
            CopyOutcome::Same { info, read } => {
                self.existed += 1;
                self.by_trailer += u64::from(!read);
                self.proof.add(&self.address, &info);
            }
            CopyOutcome::Repaired(info) => {
                self.repaired.push(info.version);
                self.proof.add(&self.address, &info);
            }
            CopyOutcome::Repairable(info, _) => self.repaired.push(info.version),
            CopyOutcome::Conflict(version) => self.conflicts.push(version),
            CopyOutcome::DestinationNewer(_) if self.mirror.delete_newer => {}
            CopyOutcome::DestinationNewer(version) => self.destination_newer = Some(version),
            CopyOutcome::Damaged(version, error) => {
                self.skipped.add(&error, 1);
                let code = snapshot_code(&error);
                self.damaged.push((version, code, error.to_string()));
            }
            CopyOutcome::DamagedThere(version, error) => {
                self.skipped.add(&error, 1);
                let what = format!("left unchanged: in the destination: {error}");
                self.damaged.push((version, snapshot_code(&error), what));
            }
            CopyOutcome::TooHigh(version) => {
                self.skipped.count += 1;
                self.skipped.too_high = true;
                let what = "not copied: its number is far above the newest version of the \
                    destination, or near the maximum; add --any-version to copy it";
                self.damaged.push((version, TOO_HIGH, what.into()));
            }
            CopyOutcome::Unlisted(error) => {
                self.skipped.add(&error, 1);
                let what = format!("skipped: {error}");
                self.unlisted = Some((snapshot_code(&error), what));
            }
            CopyOutcome::UnlistedThere(error) => {
                self.skipped.add(&error, 1);
                let what = format!("skipped: in the destination: {error}");
                self.unlisted = Some((snapshot_code(&error), what));
            }
            CopyOutcome::OnlyThere(version) => self.only_there.push(version),
            CopyOutcome::PinOnlyThere(version) => self.pins_only_there.push(version),
            CopyOutcome::PinMissing(version) => self.pins_missing.push(version),
            CopyOutcome::PinOnlyHere(version) => self.pins_only_here.push(version),
            // A later library may tell of more.
            _ => {}
        }
    }

    fn print(&self, summary: bool, out: Out) -> Result<()> {
        let address = &self.address;
        let versions = self.proof.versions;
        let made = self.made;
        for version in &self.conflicts {
            out.error(
                CONFLICT,
                format_args!(
                    "{address}@{version}: left unchanged: the destination has a different version \
                     {version}"
                ),
            );
        }
        if let Some(version) = self.destination_newer {
            out.error(
                CONFLICT,
                format_args!(
                    "{address}@{version}: left unchanged: it exists only in the destination and \
                     is newer than every version in the source"
                ),
            );
        }
        for (version, code, what) in &self.damaged {
            out.error(*code, format_args!("{address}@{version}: {what}"));
        }
        if let Some((code, what)) = &self.unlisted {
            out.error(*code, format_args!("{address}: {what}"));
        }
        for version in &self.pins_only_here {
            out.error(
                ATTENTION,
                format_args!("{address}@{version}: the pin could not be copied"),
            );
        }
        if summary {
            return Ok(());
        }
        let damaged: Vec<_> = self.damaged.iter().map(|(version, ..)| version).collect();
        let dry_run = self.mirror.dry_run;
        let value = json!({
            "event": "copied", "dry_run": dry_run,
            "versions": versions, "copied": made, "bytes": self.made_bytes,
            "compared_by_trailer": self.by_trailer,
            "repaired": self.repaired,
            "conflicts": self.conflicts,
            "destination_newer": self.destination_newer,
            "damaged": damaged,
            "versions_only_in_destination": self.only_there.len(),
            "pins_only_in_destination": self.pins_only_there.len(),
            "pins_only_in_source": self.pins_only_here,
            "pins_missing": self.pins_missing,
        });
        let value = print::extend(value, print::located(address));
        let text = || {
            let bytes = text::bytes(self.made_bytes);
            let before = self.existed;
            let only_there = match self.only_there.len() {
                0 => String::new(),
                more => format!("; {more} more only in the destination"),
            };
            let repaired = match self.repaired.len() {
                0 => String::new(),
                repaired if dry_run => format!("; {repaired} damaged and repairable"),
                repaired => format!("; {repaired} repaired"),
            };
            let pins = match self.pins_missing.len() {
                0 => String::new(),
                pins => format!("; {} to copy", text::count(pins as u64, "pin")),
            };
            let copied = if dry_run { "would copy" } else { "copied" };
            format!(
                "{copied} {address}: {}, {bytes}; {before} existed{repaired}{pins}{only_there}",
                text::count(made, "version")
            )
        };
        printed(out.print(&value, text), &format!("{address} is copied"))
    }
}

/// Returns the version of the source that an outcome is about.
fn version_here(copied: &CopyOutcome) -> Option<Version> {
    match copied {
        CopyOutcome::Made(info)
        | CopyOutcome::Same { info, .. }
        | CopyOutcome::Missing(info)
        | CopyOutcome::Repaired(info)
        | CopyOutcome::Repairable(info, _) => Some(info.version),
        CopyOutcome::Conflict(version)
        | CopyOutcome::Damaged(version, _)
        | CopyOutcome::DamagedThere(version, _)
        | CopyOutcome::TooHigh(version) => Some(*version),
        _ => None,
    }
}

/// The outcome for all names.
struct Sum {
    how: Ways,
    names: u64,
    proof: Proof,
    made: u64,
    made_bytes: u64,
    by_trailer: u64,
    existed: u64,
    repaired: u64,
    conflicts: usize,
    skipped: Skipped,
    names_only_there: u64,
    versions_only_there: u64,
    pins_only_there: u64,
    pins_only_here: u64,
    pins_missing: u64,
    digests: Sha256,
    /// To be removed from the destination.
    surplus: Vec<Surplus>,
    removed_names: u64,
    removed_versions: u64,
    removed_pins: u64,
}

impl Sum {
    fn new(how: Ways) -> Self {
        Self {
            how,
            names: 0,
            proof: Proof::default(),
            made: 0,
            made_bytes: 0,
            by_trailer: 0,
            existed: 0,
            repaired: 0,
            conflicts: 0,
            skipped: Skipped::default(),
            names_only_there: 0,
            versions_only_there: 0,
            pins_only_there: 0,
            pins_only_here: 0,
            pins_missing: 0,
            digests: Sha256::new(),
            surplus: Vec::new(),
            removed_names: 0,
            removed_versions: 0,
            removed_pins: 0,
        }
    }

    async fn add_name_only_there(&mut self, next: Option<(Scope, Name)>) -> Result<()> {
        self.names_only_there += 1;
        if let (Some((scope, name)), true) = (next, self.how.mirror.delete) {
            self.surplus.push(Surplus::whole(scope, name).await?);
        }
        Ok(())
    }

    /// Removes what only the destination has, where that is asked for, and everything else is
    /// copied and verified.
    async fn remove_surplus(&mut self, to: &Store, interrupt: &Interrupt, out: Out) -> Result<()> {
        let mirror = self.how.mirror;
        if self.surplus.is_empty() {
            return Ok(());
        }
        if self.conflicts > 0 || self.skipped.count > 0 || self.pins_only_here > 0 {
            out.note(format_args!(
                "warning: nothing is removed from the destination: the copy is not complete"
            ));
            return Ok(());
        }
        let surplus = std::mem::take(&mut self.surplus);
        if !mirror.dry_run && !mirror.yes {
            let versions: usize = surplus.iter().map(|one| one.versions.len()).sum();
            let names = text::count(surplus.len() as u64, "name");
            let versions = text::count(versions as u64, "version");
            let shown = surplus.iter().take(SHOWN);
            let mut lines: Vec<_> = shown.map(|one| format!("  {}", one.text())).collect();
            if surplus.len() > SHOWN {
                lines.push(format!("  and {} more", surplus.len() - SHOWN));
            }
            let what = format!(
                "{versions} of {names} that only the destination has, from {}",
                to.location()
            );
            let question = format!(
                "{}\nThis permanently removes {what}. Type yes to continue: ",
                lines.join("\n")
            );
            confirm(&what, &question, "yes", interrupt)?;
        }
        for one in surplus {
            if !mirror.dry_run {
                one.remove().await?;
                self.removed_names += u64::from(one.is_whole);
                self.removed_versions += one.versions.len() as u64;
                self.removed_pins += one.pins.len() as u64;
            }
            one.print(mirror.dry_run, out)?;
        }
        if !mirror.dry_run {
            self.names_only_there = 0;
            self.versions_only_there = 0;
            self.pins_only_there = 0;
        }
        Ok(())
    }

    fn add(&mut self, tally: Tally) {
        self.names += 1;
        self.proof.versions += tally.proof.versions;
        self.proof.bytes += tally.proof.bytes;
        self.digests.update(tally.proof.digest().as_bytes());
        self.made += tally.made;
        self.made_bytes += tally.made_bytes;
        self.by_trailer += tally.by_trailer;
        self.existed += tally.existed;
        self.repaired += tally.repaired.len() as u64;
        self.conflicts += tally.conflicts.len() + usize::from(tally.destination_newer.is_some());
        self.skipped.merge(&tally.skipped);
        self.versions_only_there += tally.only_there.len() as u64;
        self.pins_only_there += tally.pins_only_there.len() as u64;
        self.pins_only_here += tally.pins_only_here.len() as u64;
        self.pins_missing += tally.pins_missing.len() as u64;
        self.surplus.extend(tally.surplus);
    }

    fn so_far(&self) -> String {
        format!("stopped after {}", text::count(self.names, "name"))
    }

    /// True where everything that was selected in the source is in the destination.
    fn is_complete(&self) -> bool {
        let left = self.made + self.repaired + self.pins_missing;
        self.conflicts == 0
            && self.skipped.count == 0
            && self.pins_only_here == 0
            && (!self.how.mirror.dry_run || left == 0)
    }

    fn conclude(self, from: &Store, to: &Store, out: Out) -> Result<()> {
        let digest = hex::encode(self.digests.clone().finalize());
        let versions = self.proof.versions;
        let bytes = self.proof.bytes;
        let only_there = self.names_only_there + self.versions_only_there + self.pins_only_there;
        // Said only of bytes that were read on both sides.
        let is_whole = self.how.at.is_none();
        let is_identical =
            self.is_complete() && only_there == 0 && self.by_trailer == 0 && is_whole;
        let value = json!({
            "event": "summary", "dry_run": self.how.mirror.dry_run,
            "complete": self.is_complete(), "identical": is_identical,
            "names": self.names, "versions": versions, "bytes": bytes,
            "copied": self.made, "copied_bytes": self.made_bytes,
            "compared_by_trailer": self.by_trailer, "repaired": self.repaired,
            "removed_names": self.removed_names, "removed_versions": self.removed_versions,
            "removed_pins": self.removed_pins,
            "conflicts": self.conflicts, "skipped": self.skipped.count,
            "names_only_in_destination": self.names_only_there,
            "versions_only_in_destination": self.versions_only_there,
            "pins_only_in_destination": self.pins_only_there,
            "pins_only_in_source": self.pins_only_here,
            "digest": digest, "from": from.location(), "to": to.location(),
        });
        printed(
            out.print(&value, || self.text(&digest, is_identical)),
            "everything is copied",
        )?;
        if self.skipped.damaged {
            return Err(Code(6, "some versions could not be copied".into()).into());
        }
        if self.conflicts > 0 {
            return Err(Conflicts(self.conflicts).into());
        }
        if self.skipped.too_high {
            return Err(Code(
                8,
                "some versions were not copied because of their numbers".into(),
            )
            .into());
        }
        if self.skipped.denied {
            return Err(Code(
                5,
                "some versions could not be copied: permission denied".into(),
            )
            .into());
        }
        if self.pins_only_here > 0 {
            return Err(Code(10, "some pins could not be copied".into()).into());
        }
        Ok(())
    }

    fn text(&self, digest: &str, is_identical: bool) -> String {
        let count = |number| text::count(number, "version");
        let versions = count(self.proof.versions);
        let names = text::count(self.names, "name");
        let bytes = text::bytes(self.proof.bytes);
        let mut lines = Vec::new();
        let dry_run = self.how.mirror.dry_run;
        if dry_run {
            let made = count(self.made);
            let bytes = text::bytes(self.made_bytes);
            lines.push(format!("dry run: would copy {made}, {bytes}"));
        } else if self.made > 0 || self.proof.versions == 0 {
            let made = count(self.made);
            let bytes = text::bytes(self.made_bytes);
            lines.push(format!(
                "copied {made}, {bytes}; read back and compared byte by byte"
            ));
        }
        if self.repaired > 0 {
            let repaired = count(self.repaired);
            lines.push(if dry_run {
                format!("would repair {repaired} in the destination")
            } else {
                format!(
                    "repaired {repaired} in the destination; read back and compared byte by byte"
                )
            });
        }
        if self.removed_versions + self.removed_pins > 0 {
            let versions = count(self.removed_versions);
            let pins = text::count(self.removed_pins, "pin");
            lines.push(format!(
                "removed {versions} and {pins} from the destination"
            ));
        }
        let before = self.existed;
        if before > 0 {
            let read = self.how.how.read_data || self.how.mirror.repair;
            let how = match (read, self.by_trailer) {
                (true, _) | (_, 0) => "read on both sides and compared byte by byte",
                _ => "compared by the checksum of the trailer (--read-data compares every byte)",
            };
            lines.push(format!("existed: {}; {how}", count(before)));
        }
        let only_there = [
            (self.names_only_there, "name"),
            (self.versions_only_there, "version"),
            (self.pins_only_there, "pin"),
        ];
        let only_there: Vec<_> = only_there
            .into_iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, what)| text::count(number, what))
            .collect();
        if !only_there.is_empty() {
            let what = only_there.join(", ");
            lines.push(format!("only in the destination: {what}"));
        }
        let verdict = match (self.is_complete(), is_identical) {
            (_, true) => "identical",
            (true, false) => "complete",
            (false, _) => "NOT complete",
        };
        lines.push(format!(
            "{verdict}: {versions} of {names}, {bytes}, in both; digest {digest}"
        ));
        lines.join("\n")
    }
}
