//! Lists: of names, and of the versions of one.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{Error, Info, Selection, Store};

use super::{nothing, nothing_matches};
use crate::address::{self, Address, Listed};
use crate::audit;
use crate::error::{Damaged, Hinted};
use crate::exit::{Unlisted, snapshot_code};
use crate::print::{self, Out};
use crate::table::{self, Column, Table};
use crate::text::{bytes, one_line, time};

/// The columns of a list of names.
const NAMES: [Column; 5] = [
    table::text("ADDRESS"),
    table::number("SIZE"),
    table::number("AT REST"),
    table::text("CREATED"),
    table::text("LABELS"),
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
        label.map_or_else(|| "-".to_owned(), |(_, value)| one_line(value))
    };
    vec![
        address.to_owned(),
        time(info.created_at),
        label(audit::BY),
        label(audit::VIA),
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
    let is_audit = |key: &str| [audit::BY, audit::VIA].contains(&key);
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
/// Results are printed a page at a time. Cost: two requests for each name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist ls
  persist ls bot/monday/ --all
  persist ls bot/memory
  persist ls --json | jq -r .address")]
pub(crate) struct Ls {
    /// Agent, session or name: agent, agent/session/, agent/name or agent/session/name; @N selects
    /// version N. agent/x lists both the name x and the session x [default: everything]
    #[arg(value_name = "SELECTION")]
    listed: Option<Listed>,
    /// Include deleted names
    #[arg(long)]
    all: bool,
}

/// List the versions of a name, newest first
///
/// Results are printed a page at a time. Cost: a request for each version.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist history bot/memory
  persist history bot/memory@100 -n 10")]
pub(crate) struct History {
    /// Address: agent/name or agent/session/name; @N lists only versions below N
    address: Address,
    /// Print at most COUNT versions [default: all]
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<usize>,
    /// Print who created each version, from where and with which command, instead of sizes and
    /// labels
    #[arg(long)]
    changes: bool,
}

impl Ls {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let mut rows = Rows {
            all: self.all,
            shown: 0,
            damaged: 0,
            unlisted: Unlisted::default(),
            table: Table::new(out, &NAMES),
            out,
        };
        let selections = match &self.listed {
            None => vec![Selection::All],
            Some(Listed::Agent(agent)) => vec![Selection::Agent(agent.clone())],
            Some(Listed::Session(agent, session)) => {
                vec![Selection::Session(agent.clone(), session.clone())]
            }
            Some(Listed::Either(address)) => {
                // What is asked for by its name is shown, deleted or not.
                rows.all = true;
                let session = Selection::Session(address.agent.clone(), Some(address.name.clone()));
                vec![address.selection(), session]
            }
            Some(Listed::Address(address)) => {
                return one(store, address, out).await;
            }
        };
        for (n, selection) in selections.iter().enumerate() {
            if n > 0 {
                rows.all = self.all;
            }
            rows.add(store, selection).await?;
        }
        if rows.shown + rows.damaged == 0 && rows.unlisted.0.is_none() {
            let (what, hint) = match &self.listed {
                Some(Listed::Either(address)) => {
                    let what =
                        format!("nothing matches {} in {}", address.name(), store.location());
                    (what, None)
                }
                _ => nothing_matches(store, &selections[0]).await?,
            };
            out.note(format_args!("{what}"));
            if let Some(hint) = hint {
                out.note(format_args!("hint: {hint}"));
            }
        }
        rows.table.flush()?;
        Damaged::none_of(rows.damaged)?;
        rows.unlisted.none()
    }
}

/// The lines of a list of names.
struct Rows {
    /// Shows deleted names, too.
    all: bool,
    shown: usize,
    damaged: usize,
    unlisted: Unlisted,
    table: Table,
    out: Out,
}

impl Rows {
    async fn add(&mut self, store: &Store, selection: &Selection) -> Result<()> {
        let mut heads = store.heads(selection);
        loop {
            let head = match heads.next().await {
                Ok(Some(head)) => head,
                Ok(None) => return Ok(()),
                // A directory that cannot be listed hides no other.
                Err(error) if store.is_of_one_place(&error).await => {
                    self.unlisted.add(&error);
                    let code = snapshot_code(&error);
                    self.out.error(code, format_args!("{error}"));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let scope = &head.scope;
            let address = address::address(scope.agent(), scope.session(), &head.name);
            match head.info {
                Ok(info) if info.deleted && !self.all => {}
                Ok(info) => {
                    self.shown += 1;
                    let address = format!("{address}@{}", info.version);
                    line(&mut self.table, &address, &info, None)?;
                }
                Err(error) => {
                    self.damaged += 1;
                    self.out.damaged(&address, &error)?;
                }
            }
        }
    }
}

/// Shows one version: the newest, or the one of the address.
async fn one(store: &Store, address: &Address, out: Out) -> Result<()> {
    let scope = address.scope(store)?;
    let info = scope.stat(address.name.as_str(), address.version).await?;
    let info = info.ok_or_else(|| nothing(address))?;
    let mut table = Table::new(out, &NAMES);
    line(&mut table, &address.at(info.version), &info, None)?;
    Ok(table.flush()?)
}

impl History {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let Self {
            address,
            limit,
            changes,
        } = self;
        let scope = address.scope(store)?;
        let name = address.name.as_str();
        let limit = limit.unwrap_or(usize::MAX);
        let pins: BTreeSet<_> = scope.pins(name).await?.into_iter().collect();
        let mut past = scope.past(name, address.version, limit)?;
        let mut shown = 0;
        let mut damaged = 0;
        let columns: &[Column] = if changes { &CHANGES } else { &VERSIONS };
        let mut table = Table::new(out, columns);
        while let Some((version, info)) = past.next().await? {
            shown += 1;
            let text = address.at(version);
            match info {
                Ok(info) if changes => {
                    let mut value = print::info(&text, &info);
                    value["pinned"] = pins.contains(&version).into();
                    table.row(&value, || change(&text, &info))?;
                }
                Ok(info) => line(&mut table, &text, &info, Some(pins.contains(&version)))?,
                Err(error) => {
                    damaged += 1;
                    out.damaged(&text, &error)?;
                }
            }
        }
        table.flush()?;
        match address.version {
            _ if shown > 0 || limit == 0 => Damaged::none_of(damaged),
            None => Err(nothing(&address).into()),
            Some(version) => {
                let name = address.name();
                let error = Error::NotFound(format!("{name} has no versions below {version}"));
                let hint = format!("run `{}` to list versions", out.command("history", &name));
                let error = error.into();
                Err(Hinted { error, hint }.into())
            }
        }
    }
}

fn line(table: &mut Table, address: &str, info: &Info, pinned: Option<bool>) -> Result<()> {
    let mut value = print::info(address, info);
    // A list of names does not look for pins.
    if let Some(pinned) = pinned {
        value["pinned"] = pinned.into();
    }
    Ok(table.row(&value, || cells(address, info, pinned))?)
}
