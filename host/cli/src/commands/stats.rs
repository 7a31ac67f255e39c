//! How much is saved, by whom, and how it grows.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{Name, PruneDecision, Retention, Scope, Store};
use serde_json::{Value, json};

use crate::address;
use crate::print::{self, Out};
use crate::progress::Progress;
use crate::select::{Names, Order, Rank};
use crate::table::{self, Column, Table};
use crate::text;

/// Days that the picture shows.
const DAYS: usize = 14;

const COLUMNS: [Column; 5] = [
    table::address("NAME"),
    table::number("VERSIONS"),
    table::number("AT REST"),
    table::text("14 DAYS"),
    table::number("GROWTH/DAY"),
];

const WITH_STATES: [Column; 6] = [
    COLUMNS[0],
    COLUMNS[1],
    COLUMNS[2],
    table::number("STATES"),
    COLUMNS[3],
    COLUMNS[4],
];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Show the number of versions, stored bytes and growth of each name and agent
///
/// The 14 DAYS column has a bar for each of the last 14 days, oldest first: the bytes that were
/// stored on that day and still exist. The time is that of the file, so a copied version counts for
/// the day of the copy. GROWTH/DAY is the mean of these days. Cost: two list requests for each name
/// and one more for each thousand versions; with --states a request for each version.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist stats
  persist stats bot --states
  persist stats 'bot-*' --sort size -n 10
  persist stats --json | jq -r 'select(.of == \"name\" and .versions > 1000) | .address'")]
pub(crate) struct Stats {
    #[command(flatten)]
    names: Names,
    /// Read the metadata of each version, and show the total size of the states
    #[arg(long)]
    states: bool,
    /// Print only totals
    #[arg(long)]
    summary: bool,
    #[command(flatten)]
    order: Order,
}

/// The names that a row is about.
#[derive(Clone, Copy)]
enum Of<'a> {
    /// One name, by its address.
    Name(&'a str),
    Agent(&'a Name),
    All,
}

impl Of<'_> {
    /// Returns the keys of the row that tell what it is about.
    fn value(self) -> Value {
        match self {
            Self::Name(address) => print::extend(json!({ "of": "name" }), print::located(address)),
            Self::Agent(agent) => json!({
                "of": "agent", "address": address::part(agent), "agent": agent.as_str(),
                "session": null, "name": null, "version": null,
            }),
            Self::All => json!({
                "of": "all", "address": null, "agent": null, "session": null, "name": null,
                "version": null,
            }),
        }
    }
}

/// Of a name, an agent, or all.
#[derive(Clone, Default)]
struct Figures {
    /// Time of the newest version that exists, in milliseconds since 1970.
    newest: u64,
    names: u64,
    versions: u64,
    bytes: u64,
    states: u64,
    /// Versions whose states are not counted.
    unread: u64,
    days: [u64; DAYS],
}

impl Stats {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let selection = self.names.selection();
        let mut progress = Progress::items(out, "counted names:", None);
        store.require().await?;
        self.names.require(store).await?;
        let mut walk = store.walk(&selection);
        let mut all = Figures::default();
        let mut of_agent = Figures::default();
        let mut agent: Option<Name> = None;
        // The rows of names and of agents, where all must be known before the first is printed.
        let mut names = Vec::new();
        let mut agents = Vec::new();
        let order = self.order;
        let mut left = order.limit.unwrap_or(usize::MAX);
        let mut left_agents = left;
        let states = self.states;
        let mut table = Table::new(
            out,
            if states {
                &WITH_STATES[..]
            } else {
                &COLUMNS[..]
            },
        );
        while let Some((scope, name)) = walk.next().await? {
            let figures = figures(&scope, &name, states).await?;
            if self.summary {
                all.add(&figures);
                progress.add(1);
                continue;
            }
            if let Some(done) = agent.as_ref().filter(|agent| *agent != scope.agent()) {
                let of_agent = std::mem::take(&mut of_agent);
                if order.needs_all() {
                    agents.push((done.clone(), of_agent));
                } else if left_agents > 0 {
                    left_agents -= 1;
                    progress.aside(|| of_agent.print(Of::Agent(done), states, &mut table))?;
                }
            }
            agent = Some(scope.agent().clone());
            let address = address::address(scope.agent(), scope.session(), &name);
            of_agent.add(&figures);
            all.add(&figures);
            if order.needs_all() {
                names.push((address, figures));
            } else if left > 0 {
                left -= 1;
                progress.aside(|| figures.print(Of::Name(&address), states, &mut table))?;
            }
            progress.add(1);
        }
        drop(progress);
        if let Some(agent) = agent {
            agents.push((agent, of_agent));
        }
        order.apply(&mut names, |(_, figures)| figures.rank());
        for (address, figures) in &names {
            figures.print(Of::Name(address), states, &mut table)?;
        }
        // Without an order, all but the last agent have their rows.
        let rest = Order {
            limit: order.limit.map(|_| left_agents),
            ..order
        };
        rest.apply(&mut agents, |(_, figures)| figures.rank());
        for (agent, figures) in &agents {
            figures.print(Of::Agent(agent), states, &mut table)?;
        }
        if all.versions == 0 {
            out.note(format_args!("nothing is saved in {}", store.location()));
        }
        if all.unread > 0 {
            let versions = text::count(all.unread, "version");
            out.note(format_args!(
                "warning: {versions} cannot be read and are not counted\nhint: run `persist check`"
            ));
        }
        all.print(Of::All, states, &mut table)?;
        Ok(table.flush()?)
    }
}

async fn figures(scope: &Scope, name: &Name, states: bool) -> Result<Figures> {
    let fates = scope
        .plan_prune(name.as_str(), &Retention::default())
        .await?;
    let mut figures = Figures {
        names: u64::from(!fates.is_empty()),
        ..Figures::default()
    };
    let now = SystemTime::now();
    for PruneDecision {
        stored_size,
        created,
        ..
    } in &fates
    {
        figures.versions += 1;
        figures.bytes += stored_size;
        let since = created.duration_since(UNIX_EPOCH).unwrap_or_default();
        figures.newest = figures.newest.max(since.as_millis() as u64);
        let age = now.duration_since(*created).unwrap_or_default();
        let days = (age.as_secs() / DAY.as_secs()) as usize;
        if let Some(day) = DAYS.checked_sub(days + 1) {
            figures.days[day] += stored_size;
        }
    }
    if states {
        let mut past = scope.past(name.as_str(), None, usize::MAX)?;
        while let Some((_, info)) = past.next().await? {
            match info {
                Ok(info) => figures.states += info.size,
                Err(_) => figures.unread += 1,
            }
        }
    }
    Ok(figures)
}

impl Figures {
    /// Returns what rows are sorted by: the size is that at rest.
    fn rank(&self) -> Rank {
        Rank {
            time: self.newest,
            size: self.bytes,
            versions: self.versions,
        }
    }

    fn add(&mut self, other: &Self) {
        self.newest = self.newest.max(other.newest);
        self.names += other.names;
        self.versions += other.versions;
        self.bytes += other.bytes;
        self.states += other.states;
        self.unread += other.unread;
        for (day, bytes) in self.days.iter_mut().zip(other.days) {
            *day += bytes;
        }
    }

    fn print(&self, of: Of<'_>, states: bool, table: &mut Table) -> Result<()> {
        let Self {
            names,
            versions,
            bytes,
            days,
            ..
        } = self;
        let growth = days.iter().sum::<u64>() / DAYS as u64;
        let figures = json!({
            "names": names, "versions": versions, "bytes": bytes, "days": days, "growth": growth,
        });
        let mut value = print::extend(of.value(), figures);
        if states {
            value["states"] = self.states.into();
            value["unread"] = self.unread.into();
        }
        let cells = || {
            let what = match of {
                Of::Name(address) => address.to_owned(),
                Of::Agent(agent) => {
                    let agent = address::part(agent);
                    format!("= {agent}, {}", text::count(*names, "name"))
                }
                Of::All => format!("= everything, {}", text::count(*names, "name")),
            };
            let mut cells = vec![what, versions.to_string(), text::bytes(*bytes)];
            if states {
                cells.push(text::bytes(self.states));
            }
            cells.extend([picture(days), text::bytes(growth)]);
            cells
        };
        Ok(table.row(&value, cells)?)
    }
}

/// One column for each day, of eight heights; a day on which nothing was made has none.
fn picture(days: &[u64; DAYS]) -> String {
    const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = days.iter().copied().max().unwrap_or_default();
    let column = |bytes: &u64| match bytes {
        0 => ' ',
        // The highest day has the last of the heights.
        bytes => HEIGHTS[(u128::from(bytes - 1) * 8 / u128::from(most)) as usize],
    };
    days.iter().map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_as_high_as_the_days_are() {
        let mut days = [0; DAYS];
        (days[0], days[1], days[2], days[13]) = (1, 4, 8, 8);
        assert_eq!(picture(&days), "▁▄█          █");
        assert_eq!(picture(&[0; DAYS]), " ".repeat(DAYS));
        assert_eq!(picture(&[u64::MAX; DAYS]), "█".repeat(DAYS));
    }
}
