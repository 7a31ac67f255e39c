//! Lists: of names, and of the versions of one.

use std::collections::BTreeSet;

use anstyle::Style;
use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{Error, Info, Name, Scope, Selection, Store, Version};
use serde_json::json;

use super::{explain, missing as missing_name};
use crate::address::{self, Address, SelectionArg, Target};
use crate::audit;
use crate::error::{Damaged, Hinted, Usage};
use crate::exit::{self, Unlisted, snapshot_code};
use crate::print::{self, Out};
use crate::select::{Filter, Order, Rank, SortKey, count, no_match, not_found};
use crate::stdio::DIM;
use crate::table::{self, Column, Table};
use crate::text::{self, bytes, one_line, time};
use crate::when::{At, Past};

/// The columns of a list of names.
const NAMES: [Column; 5] = [
    table::address("ADDRESS"),
    table::number("SIZE"),
    table::number("AT REST"),
    table::text("CREATED"),
    table::words("LABELS"),
];

/// The columns of a history.
const VERSIONS: [Column; 6] = [
    NAMES[0],
    NAMES[1],
    NAMES[2],
    NAMES[3],
    table::text("PIN"),
    NAMES[4],
];

/// The columns of a history that tells who created each version.
const CHANGES: [Column; 4] = [NAMES[0], NAMES[3], table::text("BY"), table::text("VIA")];

/// The row of a version that tells who created it. A version without these labels was saved by an
/// agent, by a host that records nothing, or before they were recorded.
fn change(address: &str, info: &Info) -> Vec<String> {
    let label = |wanted: &str| {
        let mut labels = info.labels.iter();
        let label = labels.find(|(key, _)| key == wanted);
        label.map(|(_, value)| one_line(value))
    };
    let none = || "-".to_owned();
    let mut via = label(audit::VIA).unwrap_or_else(none);
    if let Some(by) = label(audit::MOVED_BY) {
        let with = label(audit::MOVED_VIA).unwrap_or_else(none);
        via += &format!(", moved by {by} with {with}");
    }
    vec![
        address.to_owned(),
        time(info.created_at),
        label(audit::BY).unwrap_or_else(none),
        via,
    ]
}

/// The row of a version; in a history it tells whether the version is pinned.
fn cells(address: &str, info: &Info, pinned: Option<bool>) -> Vec<String> {
    let size = if info.deleted {
        "deleted".into()
    } else {
        bytes(info.size)
    };
    // `history --changes` has columns for who created a version.
    let audit = [audit::BY, audit::VIA, audit::MOVED_BY, audit::MOVED_VIA];
    let is_audit = |key: &str| audit.contains(&key);
    let labels = info.labels.iter().filter(|(key, _)| !is_audit(key));
    let labels = labels.map(|(k, v)| format!("{}={}", one_line(k), one_line(v)));
    let mut cells = vec![
        address.to_owned(),
        size,
        bytes(info.stored_size),
        time(info.created_at),
    ];
    cells.extend(pinned.map(|pinned| if pinned { "pinned" } else { "" }.to_owned()));
    cells.push(labels.collect::<Vec<_>>().join(" "));
    cells
}

/// List names with the size, time and labels of their newest version
///
/// Results are printed a page at a time. Cost: two requests for each name; with --at one more for
/// each version that was created later.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist ls
  persist ls bot/memory
  persist ls bot/monday/ --all
  persist ls 'bot-*/memory' --sort time -n 10
  persist ls bot --at 'yesterday 14:05'
  persist ls --json | jq -r .address")]
pub(crate) struct Ls {
    /// Agents, sessions or names: agent, agent/session/, agent/name or agent/session/name; each
    /// part may be a glob, such as 'bot-*/memory'. @N selects version N. agent/x lists both the
    /// name x and the session x [default: everything]
    #[arg(value_name = "SELECTION", value_parser = address::listed)]
    targets: Vec<Target>,
    /// Include deleted names
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    at: At,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    order: Order,
    /// Print only totals
    #[arg(long)]
    summary: bool,
}

/// List the versions of names, newest first
///
/// Results are printed a page at a time. Cost: a request for each version.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist history bot/memory
  persist history bot/memory@100 -n 10
  persist history bot --since yesterday --sort time
  persist history 'bot-*' --label by=hand")]
pub(crate) struct History {
    /// Agents, sessions or names: agent, agent/session/, agent/name or agent/session/name; each
    /// part may be a glob, such as 'bot-*/memory'. @N lists only versions below N
    #[arg(value_name = "SELECTION", required = true)]
    targets: Vec<Target>,
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    order: Order,
    /// Print only totals
    #[arg(long)]
    summary: bool,
    /// Print who created each version, from where and with which command, instead of sizes and
    /// labels
    #[arg(long)]
    changes: bool,
}

/// Totals of a list.
#[derive(Debug, Default)]
struct Totals {
    /// Rows, deleted ones included.
    rows: u64,
    deleted: u64,
    size: u64,
    stored_size: u64,
}

impl Totals {
    fn add(&mut self, info: &Info) {
        self.rows += 1;
        self.deleted += u64::from(info.deleted);
        self.size += info.size;
        self.stored_size += info.stored_size;
    }

    /// Prints the totals of `what`: names or versions.
    fn print(&self, what: &str, out: Out) -> Result<()> {
        let mut value = json!({
            "event": "listed", "deleted": self.deleted, "size": self.size,
            "stored_size": self.stored_size,
        });
        value[format!("{what}s")] = self.rows.into();
        let line = || {
            let deleted = match self.deleted {
                0 => String::new(),
                deleted => format!(", {deleted} of them deleted"),
            };
            format!(
                "{}{deleted}: {} of state, {} at rest",
                text::count(self.rows, what),
                bytes(self.size),
                bytes(self.stored_size)
            )
        };
        Ok(out.result(&value, line)?)
    }
}

/// One row of a list.
struct Row {
    address: String,
    info: Info,
    /// None where the list does not look for pins.
    pinned: Option<bool>,
    /// Number of versions, where the rows are sorted by it.
    versions: u64,
}

/// Rows on their way to a table.
struct Rows {
    order: Order,
    held: Vec<Row>,
    shown: usize,
    damaged: usize,
    unlisted: Unlisted,
    /// Counts instead of rows.
    totals: Option<Totals>,
    /// Shows who created each version.
    changes: bool,
    table: Table,
    out: Out,
}

impl Rows {
    fn new(out: Out, columns: &[Column], order: Order, summary: bool) -> Self {
        Self {
            totals: summary.then(Totals::default),
            changes: false,
            order,
            held: Vec::new(),
            shown: 0,
            damaged: 0,
            unlisted: Unlisted::default(),
            table: Table::new(out, columns),
            out,
        }
    }

    /// Returns true if the list is as long as it may be.
    fn is_full(&self) -> bool {
        let limit = self.order.limit.unwrap_or(usize::MAX);
        !self.order.needs_all() && self.shown >= limit
    }

    fn add(&mut self, row: Row) -> Result<()> {
        self.shown += 1;
        if self.order.needs_all() {
            self.held.push(row);
            return Ok(());
        }
        self.print(&row)
    }

    fn print(&mut self, row: &Row) -> Result<()> {
        if let Some(totals) = &mut self.totals {
            totals.add(&row.info);
            return Ok(());
        }
        line(&mut self.table, row, self.changes)
    }

    fn damaged(&mut self, address: &str, error: &Error) -> Result<()> {
        self.damaged += 1;
        Ok(self.out.damaged(address, error)?)
    }

    /// Tells of a directory that cannot be listed, which hides no other.
    fn unlisted(&mut self, error: &Error) {
        self.unlisted.add(error);
        let code = snapshot_code(error);
        self.out.error(code, format_args!("{error}"));
    }

    /// Prints the rows that were held, and the totals of `what` they are: names or versions.
    fn flush(&mut self, what: &str) -> Result<()> {
        let mut held = std::mem::take(&mut self.held);
        self.order.apply(&mut held, |row| Rank {
            time: row.info.created_at,
            size: row.info.size,
            versions: row.versions,
        });
        for row in &held {
            self.print(row)?;
        }
        self.table.flush()?;
        match &self.totals {
            Some(totals) if self.shown > 0 || what == "name" => totals.print(what, self.out),
            _ => Ok(()),
        }
    }

    /// Returns true if nothing was met, not even what cannot be read.
    fn is_empty(&self) -> bool {
        self.shown + self.damaged == 0 && self.unlisted.0.is_none()
    }

    /// An error if something could not be read, or matches nothing.
    fn end(self, mut missing: Vec<anyhow::Error>) -> Result<()> {
        let last = missing.pop();
        for error in missing {
            self.out
                .error(exit::code(&error), format_args!("{error:#}"));
        }
        Damaged::none_of(self.damaged)?;
        self.unlisted.none()?;
        last.map_or(Ok(()), Err)
    }
}

impl Ls {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let mut rows = Rows::new(out, &NAMES, self.order, self.summary);
        // A name that two arguments select has one row.
        let mut seen = (self.targets.len() > 1).then(BTreeSet::new);
        let mut missing = Vec::new();
        if self.targets.is_empty() {
            self.names(store, &Selection::All, &mut seen, &mut rows)
                .await?;
        }
        for target in &self.targets {
            // A target that a full list leaves out may match or not.
            if rows.is_full() {
                break;
            }
            let met = match target {
                Target::Version(address) => self.version(store, address, &mut rows).await?,
                Target::Names(SelectionArg(selection, _)) => {
                    let mut met = self.names(store, selection, &mut seen, &mut rows).await?;
                    if let Selection::Name(agent, None, name) = selection {
                        let session = Selection::Session(agent.clone(), Some(name.clone()));
                        met += self.names(store, &session, &mut seen, &mut rows).await?;
                    }
                    met
                }
            };
            if met > 0 {
                continue;
            }
            missing.push(match target {
                Target::Version(address) => missing_name(store, address).await,
                Target::Names(selection) => not_found(store, selection).await,
            });
        }
        rows.flush("name")?;
        if rows.is_empty() && missing.is_empty() {
            self.nothing(store, out).await?;
        }
        rows.end(missing)
    }

    /// Tells that no row was printed: an error if rows were asked for.
    async fn nothing(&self, store: &Store, out: Out) -> Result<()> {
        if !self.filter.is_empty() || self.at.at.is_some() || !self.targets.is_empty() {
            let location = store.location();
            let texts: Vec<_> = self.targets.iter().map(Target::text).collect();
            let what = match &texts[..] {
                [] => format!("nothing matches the options in {location}"),
                texts => format!("nothing matches {} in {location}", texts.join(" ")),
            };
            let hint = if self.all || self.filter.deleted {
                "remove an option to list more names"
            } else {
                "add --all to include deleted names"
            };
            let error = Error::NotFound(what).into();
            let hint = hint.to_owned();
            return Err(Hinted { error, hint }.into());
        }
        let location = store.location();
        let has_names = store.walk(&Selection::All).next().await?.is_some();
        if has_names && self.order.limit != Some(0) {
            out.note(format_args!(
                "every name in {location} is deleted\nhint: add --all to include deleted names"
            ));
        } else {
            out.note(format_args!("nothing is saved in {location}"));
        }
        Ok(())
    }

    /// Adds the rows of a selection, and returns the number of names that it matches.
    async fn names(
        &self,
        store: &Store,
        selection: &Selection,
        seen: &mut Option<BTreeSet<String>>,
        rows: &mut Rows,
    ) -> Result<usize> {
        let mut heads = store.heads(selection);
        let mut met = 0;
        while !rows.is_full() {
            let head = match heads.next().await {
                Ok(Some(head)) => head,
                Ok(None) => break,
                Err(error) if store.is_of_one_place(&error).await => {
                    met += 1;
                    rows.unlisted(&error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            met += 1;
            let scope = &head.scope;
            let address = address::address(scope.agent(), scope.session(), &head.name);
            if seen
                .as_mut()
                .is_some_and(|seen| !seen.insert(address.clone()))
            {
                continue;
            }
            let (version, info) = match (self.at.at, head.info) {
                (None, Ok(info)) => (info.version, Ok(info)),
                (None, Err(error)) => (0, Err(error)),
                (Some(when), _) => match when.find(scope, &head.name).await? {
                    Past::Version(info) => (info.version, Ok(info)),
                    Past::Unreadable(version, error) => (version, Err(error)),
                    Past::NotYet | Past::Pruned(_) | Past::Nothing => continue,
                },
            };
            let info = match info {
                Ok(info) => info,
                Err(error) if version > 0 => {
                    rows.damaged(&format!("{address}@{version}"), &error)?;
                    continue;
                }
                Err(error) => {
                    rows.damaged(&address, &error)?;
                    continue;
                }
            };
            // What is asked for by its name is shown, deleted or not.
            let is_asked_for = matches!(selection, Selection::Name(..));
            if info.deleted && !(self.all || self.filter.deleted || is_asked_for) {
                continue;
            }
            self.add(scope, &head.name, info, rows).await?;
        }
        Ok(met)
    }

    /// Adds the row of one version.
    async fn version(&self, store: &Store, address: &Address, rows: &mut Rows) -> Result<usize> {
        if self.at.at.is_some() {
            return Err(
                Usage::new("an address with a version and --at select different versions")
                    .with_hint(format!("write {}, or remove --at", address.name()))
                    .into(),
            );
        }
        let scope = address.scope(store)?;
        let info = scope.stat(address.name.as_str(), address.version).await;
        match info {
            Err(error) => Err(explain(store, &scope, address, error).await),
            Ok(None) => Ok(0),
            Ok(Some(info)) => {
                self.add(&scope, &address.name, info, rows).await?;
                Ok(1)
            }
        }
    }

    async fn add(&self, scope: &Scope, name: &Name, info: Info, rows: &mut Rows) -> Result<()> {
        if !self.filter.accepts(&info) {
            return Ok(());
        }
        if self.filter.pinned && scope.pins(name.as_str()).await?.is_empty() {
            return Ok(());
        }
        let versions = match self.order.sort {
            Some(SortKey::Versions) => count(scope, name).await?,
            _ => 0,
        };
        let address = address::address(scope.agent(), scope.session(), name);
        rows.add(Row {
            address: format!("{address}@{}", info.version),
            info,
            pinned: None,
            versions,
        })
    }
}

impl History {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let columns: &[Column] = if self.changes { &CHANGES } else { &VERSIONS };
        let mut rows = Rows::new(out, columns, self.order, self.summary);
        rows.changes = self.changes;
        let mut seen = (self.targets.len() > 1).then(BTreeSet::new);
        let mut missing = Vec::new();
        for target in &self.targets {
            // A target that a full list leaves out may match or not.
            if rows.is_full() {
                break;
            }
            let met = match target {
                Target::Version(address) => {
                    let scope = address.scope(store)?;
                    let before = address.version;
                    self.name(&scope, &address.name, before, &mut rows).await?
                }
                Target::Names(SelectionArg(selection, _)) => {
                    self.names(store, selection, &mut seen, &mut rows).await?
                }
            };
            if met > 0 || self.order.limit == Some(0) {
                continue;
            }
            missing.push(match target {
                Target::Version(address) => {
                    let name = address.name();
                    let before = address.version.unwrap_or_default();
                    let error = Error::NotFound(format!("{name} has no versions below {before}"));
                    let hint = format!("run `{}` to list versions", out.command("history", &name));
                    let error = error.into();
                    Hinted { error, hint }.into()
                }
                Target::Names(selection) => not_found(store, selection).await,
            });
        }
        rows.flush("version")?;
        if rows.is_empty() && missing.is_empty() && self.order.limit != Some(0) {
            let texts: Vec<_> = self.targets.iter().map(Target::text).collect();
            missing.push(no_match(store, texts.iter().map(String::as_str)));
        }
        rows.end(missing)
    }

    async fn names(
        &self,
        store: &Store,
        selection: &Selection,
        seen: &mut Option<BTreeSet<String>>,
        rows: &mut Rows,
    ) -> Result<usize> {
        let mut walk = store.walk(selection);
        let mut met = 0;
        while !rows.is_full() {
            let (scope, name) = match walk.next().await {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(error)
                    if !matches!(selection, Selection::Name(..))
                        && store.is_of_one_place(&error).await =>
                {
                    met += 1;
                    rows.unlisted(&error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let address = address::address(scope.agent(), scope.session(), &name);
            if seen.as_mut().is_some_and(|seen| !seen.insert(address)) {
                met += 1;
                continue;
            }
            met += self.name(&scope, &name, None, rows).await?;
        }
        Ok(met)
    }

    /// Adds the versions of a name, and returns the number of versions that were met.
    async fn name(
        &self,
        scope: &Scope,
        name: &Name,
        before: Option<Version>,
        rows: &mut Rows,
    ) -> Result<usize> {
        let address = address::address(scope.agent(), scope.session(), name);
        let pins: BTreeSet<_> = scope.pins(name.as_str()).await?.into_iter().collect();
        // No version is read for nothing.
        let limit = match self.order.limit {
            Some(limit) if self.filter.is_empty() && !self.order.needs_all() => {
                limit.saturating_sub(rows.shown)
            }
            _ => usize::MAX,
        };
        let mut past = scope.past(name.as_str(), before, limit)?;
        let mut met = 0;
        while !rows.is_full() {
            let Some((version, info)) = past.next().await? else {
                break;
            };
            met += 1;
            let text = format!("{address}@{version}");
            let pinned = pins.contains(&version);
            match info {
                Ok(info) if self.filter.accepts(&info) && (pinned || !self.filter.pinned) => {
                    rows.add(Row {
                        address: text,
                        info,
                        pinned: Some(pinned),
                        versions: 0,
                    })?;
                }
                Ok(_) => {}
                Err(error) => rows.damaged(&text, &error)?,
            }
        }
        Ok(met)
    }
}

fn line(table: &mut Table, row: &Row, changes: bool) -> Result<()> {
    let Row {
        address,
        info,
        pinned,
        ..
    } = row;
    let mut value = print::info(address, info);
    // A list of names does not look for pins.
    if let Some(pinned) = pinned {
        value["pinned"] = (*pinned).into();
    }
    let style = if info.deleted { DIM } else { Style::new() };
    Ok(table.styled_row(&value, style, || {
        if changes {
            change(address, info)
        } else {
            cells(address, info, *pinned)
        }
    })?)
}
