//! Retention of a history: pruning, pins, purges.

use std::time::{Duration, UNIX_EPOCH};

use anstyle::Style;
use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{
    Expiry, KeepReason, LabelRule, Policy, PruneDecision, Purge as Wait, Retention, Scope,
    Selection, Severity, Store, Version,
};
use serde_json::json;

use super::{confirm, explain, missing, nowhere, printed};
use crate::address::{self, Address, SelectionArg, Target};
use crate::error::{Damaged, Found, Hinted, Usage};
use crate::exit::snapshot_code;
use crate::interrupt::Interrupt;
use crate::print::{self, Out};
use crate::progress::Progress;
use crate::select::{self, Conditions, Names, Rank};
use crate::settings::Settings;
use crate::stdio::WARNING;
use crate::table::{self, Column, Table};
use crate::text;
use crate::when::{At, Past};

/// Remove old versions that no retention rule keeps
///
/// A version is kept if any rule keeps it. Always kept: the newest version of each name, versions
/// that were the newest within the store's grace period, and pinned versions. --keep-* options
/// replace the retention rules of the store's policy, which `persist policy` shows.
///
/// If the policy has expiry rules, names that were not saved for that long are deleted, and purged
/// after the same time again. Names with a pinned version, or with a version that a label rule
/// keeps, do not expire.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist prune --dry-run
  persist prune bot/memory --keep-last 5 --keep-daily 30
  persist prune bot --keep-within 7d")]
pub(crate) struct Prune {
    #[command(flatten)]
    names: Names,
    /// Remove nothing; print each version and the rule that keeps it
    #[arg(long)]
    dry_run: bool,
    /// Print only totals
    #[arg(long)]
    summary: bool,
    #[command(flatten)]
    rules: KeepRules,
    #[command(flatten)]
    conditions: Conditions,
    /// Apply PERSIST_GRACE even if it is shorter than the store's grace period. Stop every host of
    /// the store first: a host that is saving may lose what it saves
    #[arg(long)]
    all_hosts_stopped: bool,
}

/// The columns of a plan.
const COLUMNS: [Column; 5] = [
    table::text("ACTION"),
    table::address("ADDRESS"),
    table::number("AT REST"),
    table::text("STORED"),
    table::words("RULE"),
];

/// Retention rules on the command line.
#[derive(Debug, Args)]
pub(super) struct KeepRules {
    /// Keep the COUNT newest versions of each name
    #[arg(long, value_name = "COUNT")]
    keep_last: Option<usize>,
    /// Keep versions that were the newest within DURATION, such as 12h or 30d
    #[arg(long, value_name = "DURATION", value_parser = persist_host::units::parse_duration)]
    keep_within: Option<Duration>,
    /// Keep the newest version of each of the last COUNT hours that have one (UTC)
    #[arg(long, value_name = "COUNT")]
    keep_hourly: Option<usize>,
    /// Keep the newest version of each of the last COUNT days that have one (UTC)
    #[arg(long, value_name = "COUNT")]
    keep_daily: Option<usize>,
    /// Keep the newest version of each of the last COUNT weeks that have one (Monday to Sunday,
    /// UTC)
    #[arg(long, value_name = "COUNT")]
    keep_weekly: Option<usize>,
    /// Keep the newest version of each of the last COUNT months that have one (UTC)
    #[arg(long, value_name = "COUNT")]
    keep_monthly: Option<usize>,
    /// Keep the newest version of each of the last COUNT years that have one (UTC)
    #[arg(long, value_name = "COUNT")]
    keep_yearly: Option<usize>,
    /// Keep versions that have the label KEY, with VALUE if it is given; may be repeated. Cost: a
    /// request for each version that no other rule keeps
    #[arg(long, value_name = "KEY[=VALUE]")]
    keep_label: Vec<LabelRule>,
}

/// Pin versions, so that they are not pruned; `persist purge` removes pinned versions too
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist pin bot/memory@3
  persist pin bot/memory@3 bot/notes@7
  persist pin 'bot-*/memory' --at now
  persist pin bot --label release")]
pub(crate) struct Pin {
    #[command(flatten)]
    versions: Versions,
}

/// Remove the pins of versions, so that they can be pruned
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist unpin bot/memory@3
  persist unpin bot --pinned
  persist unpin 'bot-*/memory' --pinned --until '30d ago'")]
pub(crate) struct Unpin {
    #[command(flatten)]
    versions: Versions,
}

/// Versions that are selected by their numbers, by a time, or by conditions.
#[derive(Debug, Args)]
struct Versions {
    /// Addresses of versions: agent/name@N or agent/session/name@N; with --at or a condition
    /// agents, sessions or names, of which each part may be a glob
    #[arg(value_name = "SELECTION", required = true)]
    targets: Vec<Target>,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    conditions: Conditions,
}

/// Delete names and remove their whole history permanently, pinned versions too
///
/// Asks for confirmation. A tombstone stays, so that version numbers continue. Versions that were
/// the newest within the grace period of the store are kept, because a host that is saving may need
/// them; the exit code is then 10. Run the command again after the grace period, or add --now if no
/// host writes the name. If the bucket keeps noncurrent versions or soft-deleted objects, copies of
/// the removed objects stay there as long as the bucket keeps them. `persist copy` from another
/// store that has the versions brings them back.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist purge bot/memory
  persist purge bot/memory --yes --now
  persist purge bot --dry-run
  persist purge bot/monday/ bot/tuesday/
  persist purge 'bot-*' --deleted --until '90d ago'")]
pub(crate) struct Purge {
    /// Agents, sessions or names: agent, agent/session/, agent/name or agent/session/name; each
    /// part may be a glob, such as 'bot-*/memory'
    #[arg(value_name = "SELECTION", required = true)]
    targets: Vec<Target>,
    #[command(flatten)]
    conditions: Conditions,
    /// Remove nothing; print the names and the number of versions of each
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    /// Remove versions within the grace period too. Stop every host that writes the name first: a
    /// host that is saving may lose what it saves
    #[arg(long)]
    now: bool,
}

impl Prune {
    pub(crate) async fn run(self, store: &Store, settings: &Settings, out: Out) -> Result<()> {
        let whole = self.names.is_everything();
        store.require().await?;
        self.names.require(store).await?;
        let plan = self.plan(store, settings, out).await?;
        let selection = self.names.selection();
        let lists = if self.dry_run {
            !self.summary
        } else {
            !self.summary && (out.json || !out.quiet)
        };
        let mut names = self.conditions.walk(store, &self.names.selections).await?;
        let mut sum = Sum::default();
        let mut progress = Progress::items(out, "pruned names:", None);
        let mut table = Table::new(out, &COLUMNS);
        while let Some((scope, name)) = names.next().await? {
            let address = address::address(scope.agent(), scope.session(), &name);
            let name = name.as_str();
            let rules = &plan.retention;
            let fates = match (plan.shorter_grace, self.dry_run) {
                (None, true) => scope.plan_prune(name, rules).await?,
                (None, false) => scope.prune(name, rules).await?,
                (Some(grace), true) => {
                    scope
                        .plan_prune_with_hosts_stopped(name, rules, grace)
                        .await?
                }
                (Some(grace), false) => scope.prune_with_hosts_stopped(name, rules, grace).await?,
            };
            let expiry = plan.expire(&scope, name).await?;
            sum.names += u64::from(!fates.is_empty());
            for fate in &fates {
                sum.add(fate);
                if lists && (self.dry_run || fate.keep.is_none()) {
                    progress.aside(|| plan.line(&address, fate, &mut table))?;
                }
            }
            sum.add_expiry(expiry);
            progress.aside(|| plan.expiry_line(&address, &scope, &fates, expiry, &mut table))?;
            progress.add(1);
        }
        drop(progress);
        printed(table.flush(), "pruned")?;
        if sum.versions == 0 && !whole {
            return Err(nowhere(store, &selection).await);
        }
        sum.print(self.dry_run, out)?;
        names.end(out)
    }

    /// Decides by which rules to prune: the options, else the store's policy, else the settings
    /// where the store has no policy.
    async fn plan(&self, store: &Store, settings: &Settings, out: Out) -> Result<Plan> {
        let current = store.policy().await?;
        let retention = match (
            self.rules.given(),
            current.version,
            current.policy.retention.clone(),
        ) {
            (Some(given), _, _) => given,
            (None, None, _) => settings.retention()?,
            (None, Some(_), Some(rules)) => {
                if settings.has_retention()? && settings.retention()? != rules {
                    out.note(format_args!(
                        "warning: the settings PERSIST_KEEP_* are ignored: the store has a \
                         policy\nhint: change it with `persist policy set`"
                    ));
                }
                rules
            }
            (None, Some(_), None) => {
                return Err(Usage::new("the store's policy keeps every version")
                    .with_hint("add --keep-last COUNT or another --keep option")
                    .into());
            }
        };
        let grace = current.policy.grace;
        let policy = current.policy;
        let mut shorter_grace = None;
        match settings.grace()? {
            Some(own) if own < grace && self.all_hosts_stopped => shorter_grace = Some(own),
            Some(own) if own < grace && !self.dry_run => {
                let own = text::duration(own);
                let grace = text::duration(grace);
                let name = settings.name("PERSIST_GRACE");
                return Err(Usage::new(format!(
                    "{name} is {own}, which is shorter than the store's grace period of {grace}: \
                     a host that is saving could lose what it saves"
                ))
                .with_hint(
                    "remove the setting, change the grace period with `persist policy set \
                     --grace`, or stop every host of the store and add --all-hosts-stopped",
                )
                .into());
            }
            Some(own) if own != grace => out.note(format_args!(
                "warning: {} is ignored: the store's grace period is {}",
                settings.name("PERSIST_GRACE"),
                text::duration(grace)
            )),
            _ => {}
        }
        Ok(Plan {
            retention,
            grace,
            shorter_grace,
            policy,
            dry_run: self.dry_run,
        })
    }
}

impl KeepRules {
    /// Returns the rules that are given; the others keep nothing. None: no rule is given.
    pub(super) fn given(&self) -> Option<Retention> {
        let is_given = self.keep_last.is_some()
            || self.keep_within.is_some()
            || self.keep_hourly.is_some()
            || self.keep_daily.is_some()
            || self.keep_weekly.is_some()
            || self.keep_monthly.is_some()
            || self.keep_yearly.is_some()
            || !self.keep_label.is_empty();
        is_given.then(|| {
            let mut retention = Retention::nothing();
            self.change(&mut retention);
            retention
        })
    }

    /// Puts the rules that are given in place of those of `retention`.
    pub(super) fn change(&self, retention: &mut Retention) {
        let counts = [
            (self.keep_last, &mut retention.keep_last),
            (self.keep_hourly, &mut retention.keep_hourly),
            (self.keep_daily, &mut retention.keep_daily),
            (self.keep_weekly, &mut retention.keep_weekly),
            (self.keep_monthly, &mut retention.keep_monthly),
            (self.keep_yearly, &mut retention.keep_yearly),
        ];
        for (given, rule) in counts {
            *rule = given.unwrap_or(*rule);
        }
        retention.keep_within = self.keep_within.unwrap_or(retention.keep_within);
        if !self.keep_label.is_empty() {
            retention.keep_labels.clone_from(&self.keep_label);
        }
    }
}

/// The rules of one prune.
struct Plan {
    retention: Retention,
    /// The store's grace period.
    grace: Duration,
    /// A shorter one to go by, as all hosts are stopped.
    shorter_grace: Option<Duration>,
    policy: Policy,
    dry_run: bool,
}

/// Totals of a prune.
#[derive(Default)]
struct Sum {
    names: u64,
    versions: u64,
    removed: u64,
    bytes: u64,
    /// Names that were deleted because they were not saved for long.
    expired: u64,
    /// Names of which all versions but the tombstone were removed because they expired long ago.
    purged: u64,
}

impl Sum {
    fn add_expiry(&mut self, expiry: Expiry) {
        match expiry {
            Expiry::Expired(..) => self.expired += 1,
            Expiry::Purged(..) => self.purged += 1,
            _ => {}
        }
    }

    fn add(&mut self, fate: &PruneDecision) {
        self.versions += 1;
        if fate.keep.is_none() {
            self.removed += 1;
            self.bytes += fate.stored_size;
        }
    }

    fn print(&self, dry_run: bool, out: Out) -> Result<()> {
        let Self {
            names,
            versions,
            removed,
            bytes,
            expired,
            purged,
        } = self;
        let value = json!({
            "event": "pruned", "dry_run": dry_run, "names": names, "versions": versions,
            "removed": removed, "bytes": bytes, "expired": expired, "purged": purged,
        });
        let text = || {
            let would = if dry_run { "would remove" } else { "removed" };
            let bytes = text::bytes(*bytes);
            let versions = text::count(*versions, "version");
            let names = text::count(*names, "name");
            let expired = match (expired, purged) {
                (0, 0) => String::new(),
                (expired, purged) => {
                    let expired = text::count(*expired, "name");
                    let purged = text::count(*purged, "name");
                    let (expire, purge) = if dry_run {
                        ("would expire", "would purge")
                    } else {
                        ("expired", "purged")
                    };
                    format!("; {expire} {expired}, {purge} {purged} that expired before")
                }
            };
            format!("{would} {removed} of {versions} of {names}, {bytes}{expired}")
        };
        let printing = if dry_run {
            out.result(&value, text)
        } else {
            out.print(&value, text)
        };
        printed(printing, "pruned")
    }
}

impl Plan {
    fn line(&self, address: &str, fate: &PruneDecision, table: &mut Table) -> Result<()> {
        let address = format!("{address}@{}", fate.version);
        let since = fate.created.duration_since(UNIX_EPOCH).unwrap_or_default();
        let created = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let (rule, why) = self.why(fate.keep);
        let value = print::extend(
            print::located(&address),
            json!({
                "keep": fate.keep.is_some(), "rule": rule,
                "stored_size": fate.stored_size, "stored_at": text::rfc3339(created),
            }),
        );
        let style = match fate.keep {
            Some(_) => Style::new(),
            None => WARNING,
        };
        let cells = || {
            let does = match (fate.keep, self.dry_run) {
                (Some(_), _) => "keep",
                (None, true) => "remove",
                (None, false) => "removed",
            };
            let bytes = text::bytes(fate.stored_size);
            let time = text::time(created);
            vec![does.to_owned(), address, bytes, time, why]
        };
        printed(table.styled_row(&value, style, cells), "pruned")
    }

    /// Deletes the name if the policy says that it expires, or tells whether it would be.
    async fn expire(&self, scope: &Scope, name: &str) -> Result<Expiry> {
        let Some(after) = self.expire_after(scope) else {
            return Ok(Expiry::None);
        };
        let expiring = scope.expire(name, after, &self.retention, self.dry_run);
        Ok(expiring.await?)
    }

    fn expire_after(&self, scope: &Scope) -> Option<Duration> {
        self.policy.expire_after(scope.agent(), scope.session())
    }

    /// A line about a name that expires, or would expire but for a pin or a label.
    fn expiry_line(
        &self,
        address: &str,
        scope: &Scope,
        fates: &[PruneDecision],
        expiry: Expiry,
        table: &mut Table,
    ) -> Result<()> {
        let after = self.expire_after(scope).unwrap_or_default();
        let after = text::duration(after);
        let (keep, does, rule, why) = match expiry {
            Expiry::Expired(..) => (
                false,
                "expire",
                "expired",
                format!("not saved within {after}"),
            ),
            Expiry::Purged(..) => {
                let why = format!("expired, and not saved within {after} after that");
                (false, "purge", "expired-before", why)
            }
            Expiry::Pinned => {
                let why = format!("not saved within {after}, but a version is pinned");
                (true, "keep", "expiry-pinned", why)
            }
            Expiry::Labelled => {
                let why = format!("not saved within {after}, but a label rule keeps a version");
                (true, "keep", "expiry-label", why)
            }
            Expiry::Unreadable => {
                let why = format!("not saved within {after}, but its newest version is damaged");
                (true, "keep", "expiry-unreadable", why)
            }
            Expiry::Conflict => {
                let why = "another host changed the name at the same time".to_owned();
                (true, "keep", "expiry-conflict", why)
            }
            _ => return Ok(()),
        };
        let (version, removed) = match expiry {
            Expiry::Expired(_, Some(tombstone)) => (Some(tombstone), "expired"),
            Expiry::Expired(head, None) => (Some(head), does),
            Expiry::Purged(tombstone, _) => {
                (Some(tombstone), if self.dry_run { does } else { "purged" })
            }
            _ => (fates.first().map(|fate| fate.version), does),
        };
        let address = match version {
            Some(version) => format!("{address}@{version}"),
            None => address.to_owned(),
        };
        let head = fates.first();
        let since = head.map(|fate| fate.created.duration_since(UNIX_EPOCH).unwrap_or_default());
        let created = u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let stored_size = head.map_or(0, |fate| fate.stored_size);
        let value = print::extend(
            print::located(&address),
            json!({
                "keep": keep, "rule": rule,
                "stored_size": stored_size, "stored_at": text::rfc3339(created),
            }),
        );
        let cells = || {
            let bytes = text::bytes(stored_size);
            vec![removed.to_owned(), address, bytes, text::time(created), why]
        };
        printed(table.row(&value, cells), "pruned")
    }

    /// The rule, for programs and for people.
    fn why(&self, keep: Option<KeepReason>) -> (&'static str, String) {
        let Retention {
            keep_within,
            keep_last,
            keep_hourly,
            keep_daily,
            keep_weekly,
            keep_monthly,
            keep_yearly,
            ..
        } = &self.retention;
        let time = text::duration;
        match keep {
            None => ("none", "no rule keeps it".into()),
            Some(KeepReason::Head) => ("head", "newest".into()),
            Some(KeepReason::Recent) => {
                let grace = time(self.shorter_grace.unwrap_or(self.grace));
                ("recent", format!("newest within the last {grace}"))
            }
            Some(KeepReason::Pinned) => ("pinned", "it is pinned".into()),
            Some(KeepReason::Last) => ("last", format!("one of the newest {keep_last}")),
            Some(KeepReason::Within) => {
                let within = time(*keep_within);
                ("within", format!("newest within the last {within}"))
            }
            Some(KeepReason::Hourly) => {
                let why = format!("newest of its hour, of the last {keep_hourly} hours");
                ("hourly", why)
            }
            Some(KeepReason::Daily) => {
                let why = format!("newest of its day, of the last {keep_daily} days");
                ("daily", why)
            }
            Some(KeepReason::Weekly) => {
                let why = format!("newest of its week, of the last {keep_weekly} weeks");
                ("weekly", why)
            }
            Some(KeepReason::Monthly) => {
                let why = format!("newest of its month, of the last {keep_monthly} months");
                ("monthly", why)
            }
            Some(KeepReason::Yearly) => {
                let why = format!("newest of its year, of the last {keep_yearly} years");
                ("yearly", why)
            }
            Some(KeepReason::Labelled) => ("label", "a label rule keeps it".into()),
            Some(_) => ("other", "a rule keeps it".into()),
        }
    }
}

impl Pin {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let versions = self.versions.pick("pin", store, out).await?;
        for (scope, address, version) in &versions.picked {
            let name = address.name.as_str();
            if let Err(error) = scope.pin(name, *version).await {
                return Err(explain(store, scope, address, error).await);
            }
            let address = address.at(*version);
            tell("pinned", &address, &out.command("unpin", &address), out)?;
        }
        versions.end()
    }
}

impl Unpin {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        store.require().await?;
        let versions = self.versions.pick("unpin", store, out).await?;
        for (scope, address, version) in &versions.picked {
            let name = address.name.as_str();
            let version = *version;
            if scope.pins(name).await?.contains(&version) {
                scope.unpin(name, version).await?
            } else {
                out.note(format_args!(
                    "warning: {} was not pinned",
                    address.at(version)
                ))
            }
            let address = address.at(version);
            tell("unpinned", &address, &out.command("pin", &address), out)?;
        }
        versions.end()
    }
}

/// Versions that were selected.
#[derive(Default)]
struct PickedVersions {
    picked: Vec<(Scope, Address, Version)>,
    /// Number of names with a version that could not be read.
    damaged: usize,
}

impl PickedVersions {
    fn end(&self) -> Result<()> {
        Damaged::none_of(self.damaged)
    }
}

impl Versions {
    /// Returns the versions, of which none was looked for if all have their numbers. Every argument
    /// is tested before the first version is returned.
    async fn pick(&self, verb: &str, store: &Store, out: Out) -> Result<PickedVersions> {
        let mut versions = PickedVersions::default();
        let mut selections = Vec::new();
        for target in &self.targets {
            match target {
                Target::Version(address) if self.at.at.is_some() => {
                    self.at.of(store, address, out).await?;
                }
                Target::Version(address) if !self.conditions.is_empty() => {
                    return Err(
                        Usage::new("conditions select versions, and the address has one")
                            .with_hint(format!("write {}, or remove the condition", address.name()))
                            .into(),
                    );
                }
                Target::Version(address) => {
                    let number = address.version.unwrap_or_default();
                    let address = address.clone();
                    let scope = address.scope(store)?;
                    versions.picked.push((scope, address, number));
                }
                Target::Names(selection) => selections.push(selection.clone()),
            }
        }
        let has_conditions = self.at.at.is_some() || !self.conditions.is_empty();
        if let (Some(selection), false) = (selections.first(), has_conditions) {
            let example = match Address::of(&selection.0) {
                Some(address) => format!("add a version, as in {}", address.at(1)),
                None => {
                    format!("add a condition, such as --at now for the newest version to {verb}")
                }
            };
            return Err(Usage::new(format!("the address has no version to {verb}"))
                .with_hint(example)
                .into());
        }
        if !selections.is_empty() {
            self.matching(&selections, store, out, &mut versions)
                .await?;
        }
        Ok(versions)
    }

    /// Adds the versions of names that meet the conditions.
    async fn matching(
        &self,
        selections: &[SelectionArg],
        store: &Store,
        out: Out,
        versions: &mut PickedVersions,
    ) -> Result<()> {
        for selection in selections {
            select::require(store, selection).await?;
        }
        let filter = &self.conditions.filter;
        let union = Selection::union(selections.iter().map(|one| one.0.clone()));
        let mut walk = store.walk(&union);
        let mut ranked = Vec::new();
        while let Some((scope, name)) = walk.next().await? {
            let address = Address::in_scope(&scope, name.clone());
            let pins = if filter.pinned {
                scope.pins(name.as_str()).await?
            } else {
                Vec::new()
            };
            let mut infos = Vec::new();
            let mut unreadable = |version: Version, error| {
                versions.damaged += 1;
                out.damaged(&address.at(version), &error)
            };
            if let Some(when) = self.at.at {
                match when.find(&scope, &name).await? {
                    // A pin of a tombstone would keep no state.
                    Past::Version(info) if !info.deleted || filter.deleted => infos.push(info),
                    Past::Unreadable(version, error) => unreadable(version, error)?,
                    _ => {}
                }
            } else {
                let mut past = scope.past(name.as_str(), None, usize::MAX)?;
                while let Some((version, info)) = past.next().await? {
                    match info {
                        Ok(info) => infos.push(info),
                        Err(error) => unreadable(version, error)?,
                    }
                }
            }
            infos.retain(|info| {
                filter.accepts(info) && (!filter.pinned || pins.contains(&info.version))
            });
            for info in infos {
                let rank = Rank {
                    time: info.created_at,
                    size: info.size,
                    versions: 0,
                };
                ranked.push((rank, (scope.clone(), address.clone(), info.version)));
            }
        }
        if ranked.is_empty() && versions.damaged == 0 {
            let texts = selections.iter().map(|selection| selection.1.as_str());
            return Err(select::no_match(store, texts));
        }
        self.conditions.order.apply(&mut ranked, |(rank, _)| *rank);
        versions
            .picked
            .extend(ranked.into_iter().map(|(_, one)| one));
        Ok(())
    }
}

fn tell(event: &str, address: &str, undo: &str, out: Out) -> Result<()> {
    let value = json!({ "event": event, "undo": undo });
    let value = print::extend(value, print::located(address));
    let text = || format!("{event} {address}");
    printed(out.print(&value, text), &format!("{address} is {event}"))
}

impl Purge {
    pub(crate) async fn run(self, store: &Store, interrupt: &Interrupt, out: Out) -> Result<()> {
        let mut selections = Vec::new();
        for target in &self.targets {
            match target {
                Target::Names(selection) => selections.push(selection.clone()),
                Target::Version(address) => {
                    address.whole_name("`persist purge` removes the whole history of a name")?;
                }
            }
        }
        let one = match &selections[..] {
            [selection] if !self.dry_run && self.conditions.is_empty() => Address::of(&selection.0),
            _ => None,
        };
        if let Some(address) = one {
            let scope = address.scope(store)?;
            // Before the question: a missing name needs no confirmation.
            let name = address.name.as_str();
            if scope.versions(name, None, 1).await?.is_empty() {
                return Err(missing(store, &address).await);
            }
            if !self.yes {
                let name = address.name();
                ask(&name, "the name", &name, store, interrupt)?;
            }
            let kept = self.one(&address, &scope, out).await?;
            return self.conclude(kept, &[address.name()], out);
        }
        self.all(store, &selections, interrupt, out).await
    }

    /// Purges every name of selections.
    async fn all(
        &self,
        store: &Store,
        selections: &[SelectionArg],
        interrupt: &Interrupt,
        out: Out,
    ) -> Result<()> {
        for selection in selections {
            select::require(store, selection).await?;
        }
        let mut names = self.conditions.walk(store, selections).await?;
        let mut addresses = Vec::new();
        let mut versions = 0;
        while let Some((scope, name)) = names.next().await? {
            let fates = scope
                .plan_prune(name.as_str(), &Retention::default())
                .await?;
            let count = fates.len() as u64;
            if count == 0 {
                continue;
            }
            versions += count;
            let address = Address::in_scope(&scope, name);
            if self.dry_run {
                let text = address.name();
                let value = print::extend(
                    json!({ "event": "purgeable", "versions": count }),
                    print::located(&text),
                );
                let line = || format!("would purge {text}: {}", text::count(count, "version"));
                printed(out.result(&value, line), "nothing is removed")?;
            }
            addresses.push(address);
        }
        if self.dry_run {
            return names.end(out);
        }
        let typed: Vec<_> = selections.iter().map(|one| one.1.clone()).collect();
        let text = typed.join(" ");
        if !self.yes && !addresses.is_empty() {
            let names = text::count(addresses.len() as u64, "name");
            let versions = text::count(versions, "version");
            let what = format!("{text} ({names} with {versions})");
            ask(&what, &text, &text, store, interrupt)?;
        }
        let mut kept = 0;
        for address in &addresses {
            let scope = address.scope(store)?;
            kept += self.one(address, &scope, out).await?;
        }
        names.end(out)?;
        // The names that were purged now meet other conditions.
        let again = if self.conditions.is_empty() {
            typed
        } else {
            addresses.iter().map(Address::name).collect()
        };
        self.conclude(kept, &again, out)
    }

    /// Purges a name, and returns the number of versions that are kept for the grace period.
    async fn one(&self, address: &Address, scope: &Scope, out: Out) -> Result<u64> {
        let name = address.name.as_str();
        let wait = if self.now {
            Wait::Now
        } else {
            Wait::AfterGrace
        };
        let purged = scope.purge(name, wait).await.map_err(|error| {
            let is_full = snapshot_code(&error) == 8;
            let error = anyhow::Error::new(error);
            if !is_full || self.now {
                return error;
            }
            let purge = out.command("purge", &address.name());
            let hint = format!(
                "a purge needs a little space: run `persist prune`, or `{purge} --now` if no host \
                 writes this name"
            );
            Hinted { error, hint }.into()
        })?;
        let removed = purged.removed;
        let kept = purged.kept;
        let text = match purged.tombstone {
            Some(tombstone) => address.at(tombstone),
            None => address.name(),
        };
        let value = print::extend(
            json!({ "event": "purged", "removed": removed, "kept": kept, "undo": null }),
            print::located(&text),
        );
        let line = || {
            let rest = match purged.tombstone {
                Some(_) => format!("{text} is a tombstone"),
                None => {
                    "no version number was left for a tombstone, so numbering starts again at 1"
                        .into()
                }
            };
            format!(
                "purged {}: {} removed; {rest}",
                address.name(),
                text::count(removed, "version")
            )
        };
        printed(
            out.print(&value, line),
            &format!("{} is purged", address.name()),
        )?;
        Ok(kept)
    }

    /// An error if versions are kept.
    fn conclude(&self, kept: u64, what: &[String], out: Out) -> Result<()> {
        if kept > 0 {
            let versions = text::count(kept, "version");
            let again = out.command_for("purge", what);
            let what = format!("kept {versions} newer than the grace period");
            let hint = format!("run `{again}` again after it, or add --now");
            let severity = Severity::Warning;
            let error = Found { severity, what }.into();
            return Err(Hinted { error, hint }.into());
        }
        Ok(())
    }
}

/// Has a person type what is removed; a mistyped command is the likelier one.
fn ask(
    what: &str,
    to_type: &str,
    answer: &str,
    store: &Store,
    interrupt: &Interrupt,
) -> Result<()> {
    let what = format!("the history of {what} in {}", store.location());
    let question = format!("This permanently removes {what}. Type {to_type} to continue: ");
    confirm(&what, &question, answer, interrupt)
}
