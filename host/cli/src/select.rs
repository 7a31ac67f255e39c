//! Selection of names and versions, which commands share.

use anyhow::Result;
use clap::{Args, ValueEnum};
use persist_host::snapshot::{Error, Info, Selection, Store};

use crate::address::SelectionArg;
use crate::commands::nowhere;
use crate::error::Hinted;
use crate::when::When;

/// Names that a command is for.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Names {
    /// Agents, sessions or names: agent, agent/session/, agent/name or agent/session/name; each
    /// part may be a glob, such as 'bot-*/memory' [default: everything]
    #[arg(value_name = "SELECTION")]
    pub(crate) selections: Vec<SelectionArg>,
}

impl Names {
    /// Returns true if no name is excluded.
    pub(crate) fn is_everything(&self) -> bool {
        self.selections.is_empty()
    }

    /// Returns the names, as one selection.
    pub(crate) fn selection(&self) -> Selection {
        if self.is_everything() {
            return Selection::All;
        }
        Selection::union(self.selections.iter().map(|one| one.0.clone()))
    }

    /// Refuses an argument that matches nothing, before anything is done for the others.
    pub(crate) async fn require(&self, store: &Store) -> Result<()> {
        for selection in &self.selections {
            require(store, selection).await?;
        }
        Ok(())
    }
}

/// Refuses a selection that matches nothing.
pub(crate) async fn require(store: &Store, selection: &SelectionArg) -> Result<()> {
    if is_empty(store, &selection.0).await? {
        return Err(not_found(store, selection).await);
    }
    Ok(())
}

/// Returns the error for a selection that matches nothing.
pub(crate) async fn not_found(store: &Store, selection: &SelectionArg) -> anyhow::Error {
    let SelectionArg(selection, text) = selection;
    if !matches!(selection, Selection::Matching(_)) {
        return nowhere(store, selection).await;
    }
    let what = format!("nothing matches {text} in {}", store.location());
    let error = Error::NotFound(what).into();
    let hint = "run `persist ls` to list names".to_owned();
    Hinted { error, hint }.into()
}

async fn is_empty(store: &Store, selection: &Selection) -> Result<bool, Error> {
    let found = match selection {
        Selection::All => {
            store.require().await?;
            return Ok(false);
        }
        Selection::Name(agent, session, name) => {
            let scope = store.scope(agent.as_str(), session.as_ref().map(|one| one.as_str()))?;
            let versions = scope.versions(name.as_str(), None, 1).await;
            versions.map(|versions| versions.is_empty())
        }
        _ => store
            .walk(selection)
            .next()
            .await
            .map(|next| next.is_none()),
    };
    match found {
        // The command meets it, too, and tells of the rest.
        Err(error) if store.is_of_one_place(&error).await => Ok(false),
        found => found,
    }
}

/// Conditions on versions.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Filter {
    /// Show only versions created at TIME or later, such as yesterday or '2h ago'
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<When>,
    /// Show only versions created at TIME or before
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<When>,
    /// Show only versions with this label; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Show only pinned versions; in a list of names, only names with a pinned version
    #[arg(long)]
    pub(crate) pinned: bool,
    /// Show only tombstones
    #[arg(long)]
    pub(crate) deleted: bool,
}

impl Filter {
    /// Returns true if there is no condition.
    pub(crate) fn is_empty(&self) -> bool {
        let Self {
            since,
            until,
            label,
            pinned,
            deleted,
        } = self;
        since.is_none() && until.is_none() && label.is_empty() && !pinned && !deleted
    }

    /// Returns true if a version meets the conditions, apart from pins.
    pub(crate) fn accepts(&self, info: &Info) -> bool {
        let has = |wanted: &String| {
            info.labels.iter().any(|(key, value)| {
                key == wanted || wanted.split_once('=') == Some((key.as_str(), value.as_str()))
            })
        };
        self.since.is_none_or(|since| info.created_at >= since.0)
            && self.until.is_none_or(|until| info.created_at <= until.0)
            && (!self.deleted || info.deleted)
            && self.label.iter().all(has)
    }
}

/// Order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortKey {
    /// Agent, session and name
    #[default]
    Name,
    /// Newest first
    Time,
    /// Largest first
    Size,
    /// Most versions first
    Versions,
}

/// Order and length of a list.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Order {
    /// Sort by KEY; all rows are held in memory [default: name]
    #[arg(long, value_name = "KEY", hide_default_value = true)]
    pub(crate) sort: Option<SortKey>,
    /// Reverse the order
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Print at most COUNT rows [default: all]
    #[arg(long, short = 'n', value_name = "COUNT")]
    pub(crate) limit: Option<usize>,
}

/// Key that rows are sorted by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rank {
    pub(crate) time: u64,
    pub(crate) size: u64,
    pub(crate) versions: u64,
}

impl Order {
    /// Returns true if all rows must be known before the first is printed.
    pub(crate) fn needs_all(self) -> bool {
        self.reverse || self.sort.is_some_and(|key| key != SortKey::Name)
    }

    /// Sorts rows that are in the order of their names, and cuts off what is over the limit.
    pub(crate) fn apply<T>(self, rows: &mut Vec<T>, rank: impl Fn(&T) -> Rank) {
        let key = self.sort.unwrap_or_default();
        rows.sort_by(|a, b| {
            let (a, b) = (rank(a), rank(b));
            match key {
                SortKey::Name => std::cmp::Ordering::Equal,
                SortKey::Time => b.time.cmp(&a.time),
                SortKey::Size => b.size.cmp(&a.size),
                SortKey::Versions => b.versions.cmp(&a.versions),
            }
        });
        if self.reverse {
            rows.reverse();
        }
        rows.truncate(self.limit.unwrap_or(usize::MAX));
    }
}
