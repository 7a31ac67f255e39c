//! Selection of names and versions, which commands share.

use anyhow::Result;
use clap::{Args, ValueEnum};
use persist_host::snapshot::{Error, HeadEntry, Info, Name, Scope, Selection, Store, Walk};

use crate::address::{self, Address, SelectionArg};
use crate::commands::nowhere;
use crate::error::{Damaged, Hinted, Usage};
use crate::print::Out;
use crate::when::{Past, When};

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
    /// Select only versions created at TIME or later, such as yesterday or '2h ago'
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<When>,
    /// Select only versions created at TIME or before
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<When>,
    /// Select only versions with this label; may be repeated
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub(crate) label: Vec<String>,
    /// Select only pinned versions; of names, only those with a pinned version
    #[arg(long)]
    pub(crate) pinned: bool,
    /// Select only tombstones
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
    /// Sort by KEY; all that is sorted is held in memory [default: name]
    #[arg(long, value_name = "KEY", hide_default_value = true)]
    pub(crate) sort: Option<SortKey>,
    /// Reverse the order
    #[arg(long)]
    pub(crate) reverse: bool,
    /// Stop after COUNT names or versions [default: all]
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

/// Conditions on names, by their newest versions, and which of them come first.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Conditions")]
pub(crate) struct Conditions {
    #[command(flatten)]
    pub(crate) filter: Filter,
    #[command(flatten)]
    pub(crate) order: Order,
}

/// Names that meet conditions.
#[derive(Debug, Default)]
pub(crate) struct Picked {
    pub(crate) heads: Vec<HeadEntry>,
    /// Names whose newest version cannot be read, so that the conditions cannot be applied.
    pub(crate) unreadable: Vec<(String, Error)>,
}

impl Conditions {
    /// Returns true if every name is selected.
    pub(crate) fn is_empty(&self) -> bool {
        let Order {
            sort,
            reverse,
            limit,
        } = self.order;
        self.filter.is_empty() && sort.is_none() && !reverse && limit.is_none()
    }

    /// Refuses conditions where versions are given by their numbers.
    pub(crate) fn none_of_versions(&self) -> Result<(), Usage> {
        if self.is_empty() {
            return Ok(());
        }
        Err(
            Usage::new("conditions select names, and an address has a version")
                .with_hint("remove the condition, or write names and --at TIME"),
        )
    }

    /// Returns the names of selections that meet the conditions, as one selection, and those to
    /// which the conditions cannot be applied.
    pub(crate) async fn select(
        &self,
        store: &Store,
        selections: &[SelectionArg],
    ) -> Result<(Selection, Vec<(String, Error)>)> {
        if self.is_empty() {
            return Ok((union(selections), Vec::new()));
        }
        let picked = self.pick(store, selections).await?;
        let names = picked.heads.into_iter().map(|head| {
            let (agent, session) = (head.scope.agent(), head.scope.session());
            Selection::Name(agent.clone(), session.cloned(), head.name)
        });
        Ok((Selection::union(names), picked.unreadable))
    }

    /// Returns the names of selections that meet the conditions, one after the other.
    pub(crate) async fn walk(
        &self,
        store: &Store,
        selections: &[SelectionArg],
    ) -> Result<Matching> {
        if self.is_empty() {
            return Ok(Matching::All(Box::new(store.walk(&union(selections)))));
        }
        let picked = self.pick(store, selections).await?;
        Ok(Matching::Picked(
            picked.heads.into_iter(),
            picked.unreadable,
        ))
    }

    /// Returns the names of selections whose newest version meets the conditions. Each selection
    /// that matches nothing is an error, and so is a result without a name. Without conditions a
    /// name is returned even if its newest version cannot be read.
    pub(crate) async fn pick(&self, store: &Store, selections: &[SelectionArg]) -> Result<Picked> {
        for selection in selections {
            require(store, selection).await?;
        }
        let mut heads = store.heads(&union(selections));
        let mut picked = Picked::default();
        let mut ranked = Vec::new();
        while let Some(head) = heads.next().await? {
            if self.is_empty() {
                picked.heads.push(head);
                continue;
            }
            let info = match &head.info {
                Ok(info) => info,
                Err(_) => {
                    let scope = &head.scope;
                    let address = address::address(scope.agent(), scope.session(), &head.name);
                    if let Err(error) = head.info {
                        picked.unreadable.push((address, error));
                    }
                    continue;
                }
            };
            if !self.filter.accepts(info) {
                continue;
            }
            let name = &head.name;
            if self.filter.pinned && head.scope.pins(name.as_str()).await?.is_empty() {
                continue;
            }
            let versions = match self.order.sort {
                Some(SortKey::Versions) => count(&head.scope, name).await?,
                _ => 0,
            };
            let rank = Rank {
                time: info.created_at,
                size: info.size,
                versions,
            };
            ranked.push((rank, head));
        }
        if self.is_empty() {
            return Ok(picked);
        }
        if ranked.is_empty() && picked.unreadable.is_empty() {
            let texts = selections.iter().map(|selection| selection.1.as_str());
            return Err(no_match(store, texts));
        }
        self.order.apply(&mut ranked, |(rank, _)| *rank);
        picked.heads = ranked.into_iter().map(|(_, head)| head).collect();
        Ok(picked)
    }
}

/// Names that meet conditions, or all names.
pub(crate) enum Matching {
    All(Box<Walk>),
    Picked(std::vec::IntoIter<HeadEntry>, Vec<(String, Error)>),
}

impl Matching {
    /// Returns the next name.
    pub(crate) async fn next(&mut self) -> Result<Option<(Scope, Name)>, Error> {
        match self {
            Self::All(walk) => walk.next().await,
            Self::Picked(heads, _) => Ok(heads.next().map(|head| (head.scope, head.name))),
        }
    }

    /// Reports the names to which the conditions could not be applied.
    pub(crate) fn end(self, out: Out) -> Result<()> {
        let Self::Picked(_, unreadable) = self else {
            return Ok(());
        };
        for (address, error) in &unreadable {
            out.damaged(address, error)?;
        }
        Damaged::none_of(unreadable.len())
    }
}

/// Selected names of which a command shows nothing, and why.
pub(crate) struct Missed {
    damaged: usize,
    /// Message for the last name that did not exist at the time.
    absent: Option<String>,
    out: Out,
}

impl Missed {
    pub(crate) fn new(out: Out) -> Self {
        Self {
            damaged: 0,
            absent: None,
            out,
        }
    }

    pub(crate) fn out(&self) -> Out {
        self.out
    }

    /// Reports a name whose newest version cannot be read.
    pub(crate) fn damaged(&mut self, address: &str, error: &Error) -> Result<()> {
        self.damaged += 1;
        Ok(self.out.damaged(address, error)?)
    }

    /// Reports names to which conditions cannot be applied.
    pub(crate) fn unreadable(&mut self, names: &[(String, Error)]) -> Result<()> {
        for (address, error) in names {
            self.damaged(address, error)?;
        }
        Ok(())
    }

    /// Returns the version of a name at a time; without one, reports why.
    pub(crate) fn past(
        &mut self,
        address: &Address,
        when: When,
        past: Past,
    ) -> Result<Option<Info>> {
        let name = address.name();
        match past {
            Past::Version(info) => return Ok(Some(info)),
            Past::Unreadable(version, error) => self.damaged(&address.at(version), &error)?,
            Past::Nothing => {}
            Past::NotYet => {
                let what = format!("{name} did not exist at {}", when.shown());
                self.out.note(format_args!("{what}"));
                self.absent = Some(what);
            }
            Past::Pruned(oldest) => {
                self.damaged += 1;
                let when = when.shown();
                let what = format_args!(
                    "the versions of {name} at {when} are pruned; the oldest is {oldest}"
                );
                self.out.error(6, what);
            }
        }
        Ok(None)
    }

    /// Returns an error if a name could not be read, or if nothing was shown.
    pub(crate) fn end(self, is_any_shown: bool) -> Result<()> {
        Damaged::none_of(self.damaged)?;
        match self.absent {
            Some(what) if !is_any_shown => Err(Error::NotFound(what).into()),
            _ => Ok(()),
        }
    }
}

/// Returns one selection for several; everything for none.
fn union(selections: &[SelectionArg]) -> Selection {
    match selections {
        [] => Selection::All,
        selections => Selection::union(selections.iter().map(|one| one.0.clone())),
    }
}

/// Returns the error for conditions that nothing in the selections meets.
pub(crate) fn no_match<'a>(
    store: &Store,
    selections: impl IntoIterator<Item = &'a str>,
) -> anyhow::Error {
    let texts: Vec<_> = selections.into_iter().collect();
    let what = match &texts[..] {
        [] => "nothing matches the options".to_owned(),
        texts => format!("nothing matches {} with these options", texts.join(" ")),
    };
    let error = Error::NotFound(format!("{what} in {}", store.location())).into();
    let hint = "remove an option to select more".to_owned();
    Hinted { error, hint }.into()
}

/// Counts the versions of a name.
pub(crate) async fn count(scope: &Scope, name: &Name) -> Result<u64, Error> {
    let mut before = None;
    let mut count = 0;
    loop {
        let versions = scope.versions(name.as_str(), before, 1000).await?;
        count += versions.len() as u64;
        before = versions.last().copied();
        if before.is_none() {
            return Ok(count);
        }
    }
}
