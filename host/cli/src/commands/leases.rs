//! The `persist leases` command: the hosts that work on agents.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::{Args, Subcommand};
use persist_host::snapshot::{Error, LeaseInfo, LeaseState, Name, Selection, Store};
use serde_json::{Value, json};

use super::printed;
use crate::address::{self, SelectionArg};
use crate::audit;
use crate::error::{Hinted, Usage};
use crate::print::{self, Out};
use crate::settings::Settings;
use crate::table::{self, Column, Table};
use crate::text;

const COLUMNS: [Column; 5] = [
    table::address("LEASE"),
    table::words("HOLDER"),
    table::text("STATE"),
    table::number("RENEWED"),
    table::number("EXPIRES"),
];

/// Show which host holds the lease of each agent and session
///
/// `persist run --lease` and hosts that are set up so hold the lease of an agent or session while
/// they work on it, so that no two hosts compute the same turn. Cost: a list request for each
/// thousand leases, and two requests for each.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist leases
  persist leases --all --json
  persist leases break bot/monday")]
pub(crate) struct Leases {
    #[command(subcommand)]
    action: Option<Action>,
    /// Show leases that were released or broken, too
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    Break(Break),
}

/// End the lease of an agent or session, so that another host may work on it at once
///
/// For a host that is known to be dead or cut off. If its holder is at work, it may save what it
/// computes until another host saves; then its next save fails. No saved version is lost.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist leases break bot
  persist leases break bot/monday")]
struct Break {
    /// Agent or agent/session; an agent alone is what belongs to no session
    #[arg(value_name = "SCOPE")]
    scope: ScopeArg,
}

/// An agent, or a session of it.
#[derive(Clone, Debug)]
struct ScopeArg {
    agent: Name,
    session: Option<Name>,
}

impl FromStr for ScopeArg {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        // A session is selected with a slash at its end.
        let trimmed = text.trim_end_matches('/');
        let selected = if trimmed.contains('/') {
            format!("{trimmed}/")
        } else {
            trimmed.to_owned()
        };
        match selected.parse::<SelectionArg>()?.0 {
            Selection::Agent(agent) => Ok(Self {
                agent,
                session: None,
            }),
            Selection::Session(agent, session) => Ok(Self { agent, session }),
            _ => Err(Usage::new("not an agent or session")
                .with_hint("write agent or agent/session")
                .into()),
        }
    }
}

impl Leases {
    pub(crate) async fn run(self, store: &Store, settings: &Settings, out: Out) -> Result<()> {
        store.require().await?;
        match self.action {
            None => show(store, self.all, out).await,
            Some(Action::Break(of)) => of.run(store, settings, out).await,
        }
    }
}

impl Break {
    async fn run(self, store: &Store, settings: &Settings, out: Out) -> Result<()> {
        let ScopeArg { agent, session } = self.scope;
        let scope = store.scope(agent.as_str(), session.as_ref().map(Name::as_str))?;
        let labels = audit::labels(settings.environment(), "leases break");
        let by = labels.first().map_or("persist leases break", |(_, by)| by);
        let address = address_of(&agent, session.as_ref());
        let Some(broken) = scope.break_lease(by).await? else {
            let what = Error::NotFound(format!("no host holds a lease of {address}"));
            let hint = "run `persist leases` to list leases";
            let (error, hint) = (what.into(), hint.into());
            return Err(Hinted { error, hint }.into());
        };
        let mut value = value(&broken);
        value["event"] = "lease-broken".into();
        let text = || {
            let holder = text::one_line(&broken.holder);
            format!("broke the lease of {address}, which {holder} held")
        };
        printed(out.print(&value, text), "the lease is broken")
    }
}

async fn show(store: &Store, all: bool, out: Out) -> Result<()> {
    let mut table = Table::new(out, &COLUMNS);
    let mut shown = 0;
    for lease in store.leases().await? {
        if !all && lease.state != LeaseState::Held {
            continue;
        }
        shown += 1;
        table.row(&value(&lease), || cells(&lease))?;
    }
    if shown == 0 {
        out.note(format_args!(
            "no host holds a lease in {}",
            store.location()
        ));
    }
    Ok(table.flush()?)
}

/// The address of what is leased.
fn address_of(agent: &Name, session: Option<&Name>) -> String {
    match session {
        None => address::part(agent),
        session => address::session_address(agent, session),
    }
}

/// The state of a lease: a lease that is held may have expired.
fn state(lease: &LeaseInfo) -> &'static str {
    match lease.remaining() {
        Some(Duration::ZERO) => "expired",
        _ => lease.state.as_str(),
    }
}

fn cells(lease: &LeaseInfo) -> Vec<String> {
    let seconds = |time: Option<Duration>, before: &str, after: &str| match time {
        Some(time) => format!("{before}{} s{after}", time.as_secs()),
        None => "-".to_owned(),
    };
    vec![
        address_of(&lease.agent, lease.session.as_ref()),
        text::one_line(&lease.holder),
        state(lease).to_owned(),
        seconds(lease.age, "", " ago"),
        seconds(lease.remaining().filter(|left| !left.is_zero()), "in ", ""),
    ]
}

fn value(lease: &LeaseInfo) -> Value {
    let expires = lease.remaining().and_then(|left| {
        let since = (SystemTime::now() + left).duration_since(UNIX_EPOCH).ok()?;
        text::rfc3339(u64::try_from(since.as_millis()).ok()?)
    });
    let (agent, session) = (&lease.agent, lease.session.as_ref());
    let located = json!({
        "address": address_of(agent, session), "agent": agent.as_str(),
        "session": session.map(Name::as_str), "name": null, "version": null,
    });
    let of_lease = json!({
        "state": state(lease),
        "holder": lease.holder,
        "number": lease.number,
        "term_seconds": lease.term.as_secs_f64(),
        "age_seconds": lease.age.map(|age| age.as_secs_f64()),
        "expires_at": expires,
    });
    print::extend(located, of_lease)
}
