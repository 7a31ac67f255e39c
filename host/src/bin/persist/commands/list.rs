//! Lists: of names, and of the versions of one.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{Error, Info, Store};

use super::nothing;
use crate::address::{self, Address, Place};
use crate::exit::{Damaged, Unlisted};
use crate::print::{self, Out};

/// List names, with their newest version: size, bytes at rest, time, labels
///
/// The list is held a page at a time, whatever its length. It costs two requests for each name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist ls
  persist ls bot/monday --all
  persist ls --json | jq -r .address")]
pub(crate) struct Ls {
    /// agent, or agent/session [default: everything]
    place: Option<Place>,
    /// Show deleted names too
    #[arg(long)]
    all: bool,
}

/// List the versions of a name, newest first
///
/// The list is held a page at a time, whatever its length. It costs a request for each version.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist history bot/memory
  persist history bot/memory@100 -n 10")]
pub(crate) struct History {
    /// agent/name or agent/session/name; with @N only versions below N
    address: Address,
    /// Show at most so many
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<usize>,
}

impl Ls {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let (mut shown, mut damaged) = (0, 0);
        let mut unlisted = Unlisted::default();
        let selection = self.place.as_ref().map(Place::selection);
        let mut heads = store.heads(&selection.unwrap_or_default());
        loop {
            let head = match heads.next().await {
                Ok(Some(head)) => head,
                Ok(None) => break,
                // A directory that cannot be listed hides no other.
                Err(error) if store.is_of_one_place(&error).await => {
                    unlisted.add(&error);
                    print::say(format_args!("error: {error}"));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let scope = &head.scope;
            let address = address::address(scope.agent(), scope.session(), &head.name);
            match head.info {
                Ok(info) if info.deleted && !self.all => {}
                Ok(info) => {
                    shown += 1;
                    line(&format!("{address}@{}", info.version), &info, false, out)?;
                }
                Err(error) => {
                    damaged += 1;
                    out.damaged(&address, &error)?;
                }
            }
        }
        if shown + damaged == 0 && unlisted.0.is_none() {
            // An empty list and a mistyped name look the same otherwise.
            let whose = self
                .place
                .as_ref()
                .map(|place| format!("nothing of {place}"));
            let whose = whose.unwrap_or_else(|| "nothing".into());
            out.note(format_args!("{whose} is saved in {}", store.location()));
            if let Some(place) = &self.place {
                hint(store, place, out).await?;
            }
        }
        Damaged::none_of(damaged)?;
        unlisted.none()
    }
}

/// Where what is asked for as a session is a name.
async fn hint(store: &Store, place: &Place, out: Out) -> Result<()> {
    let Some(name) = &place.session else {
        return Ok(());
    };
    let scope = store.scope(place.agent.as_str(), None)?;
    if !scope.versions(name.as_str(), None, 1).await?.is_empty() {
        let history = out.command("history", &place.to_string());
        out.note(format_args!("{place} is a name: see {history}"));
    }
    Ok(())
}

impl History {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let Self { address, limit } = self;
        let (scope, name) = (address.scope(store)?, address.name.as_str());
        let limit = limit.unwrap_or(usize::MAX);
        let pins: BTreeSet<_> = scope.pins(name).await?.into_iter().collect();
        let mut past = scope.past(name, address.version, limit)?;
        let (mut shown, mut damaged) = (0, 0);
        while let Some((version, info)) = past.next().await? {
            shown += 1;
            let text = address.at(version);
            match info {
                Ok(info) => line(&text, &info, pins.contains(&version), out)?,
                Err(error) => {
                    damaged += 1;
                    out.damaged(&text, &error)?;
                }
            }
        }
        match address.version {
            _ if shown > 0 || limit == 0 => Damaged::none_of(damaged),
            None => Err(nothing(&address).into()),
            Some(version) => {
                let name = address.name();
                Err(Error::NotFound(format!("{name} has no versions below {version}")).into())
            }
        }
    }
}

fn line(address: &str, info: &Info, pinned: bool, out: Out) -> Result<()> {
    let mut value = print::info(address, info);
    value["pinned"] = pinned.into();
    Ok(out.print(&value, || match pinned {
        true => format!("{}  pinned", print::line(address, info)),
        false => print::line(address, info),
    })?)
}
