//! Turns of agents, each of which is done once, however often its call is repeated.
//!
//! A call is done in two steps, and the engine keeps the result of the first one. [`Turns::heads`]
//! looks which versions exist. [`Turns::run`] runs the agent under the lease of its scope, and
//! labels each version that it saves with the call's id. When the second step is repeated, it reads
//! the versions that came after the first step. If one of them has the label, an earlier attempt
//! saved it, and the agent is not run again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use persist_host::guest::Guest;
use persist_host::snapshot::{Error, Info, Lease, LeaseOptions, Scope, Store, Version};
use persist_host::wasm::{Agent, RunError};

/// Label with the id of the call that saved a version.
pub(crate) const LABEL: &str = "persist.call";

/// Names that are listed with one request.
const PAGE: usize = 1000;

/// Newest version of each name of a scope.
pub(crate) type Heads = BTreeMap<String, Version>;

/// Runs an agent for each call.
#[derive(Debug)]
pub(crate) struct Turns {
    pub(crate) store: Store,
    pub(crate) agent: Agent,
    pub(crate) lease: LeaseOptions,
}

/// Result of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Answer of the agent; none where an earlier attempt of the call ran it.
    pub(crate) answer: Option<String>,
    /// The versions that the call saved, as `NAME@VERSION`.
    pub(crate) versions: Vec<String>,
}

/// Reason why a call has no result.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Another attempt may succeed: another host works on the agent, or the storage failed.
    Retry(String),
    /// Another attempt would fail in the same way.
    Final(String),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Retry(error.to_string())
    }
}

impl Turns {
    /// Returns the newest version of each name, for [`Turns::run`].
    ///
    /// # Errors
    /// Wrong keys are final, errors of the storage are not.
    pub(crate) async fn heads(&self, key: &str) -> Result<Heads, Failure> {
        let scope = self.scope(key)?;
        let mut heads = Heads::new();
        for name in names(&scope).await? {
            let newest = scope.versions(&name, None, 1).await?;
            heads.extend(newest.first().map(|version| (name, *version)));
        }
        Ok(heads)
    }

    /// Runs the agent, unless an earlier attempt of the call has saved something.
    ///
    /// # Errors
    /// A lease of another host and errors of the storage are worth a retry, as is a run that has
    /// lost its lease. An agent that fails is final.
    pub(crate) async fn run(
        &self,
        key: &str,
        call: &str,
        heads: &Heads,
        args: &[String],
    ) -> Result<Turn, Failure> {
        let mut lease = self.scope(key)?.lease(&self.lease).await?;
        lease.renew_in_background();
        let turn = self.run_leased(&lease, call, heads, args).await;
        // If this fails, the lease ends with its term.
        let _ = lease.release().await;
        turn
    }

    async fn run_leased(
        &self,
        lease: &Lease,
        call: &str,
        heads: &Heads,
        args: &[String],
    ) -> Result<Turn, Failure> {
        let saved = saved_by(&lease.scope(), call, heads).await?;
        if !saved.is_empty() {
            return Ok(Turn {
                answer: None,
                versions: saved,
            });
        }
        // An earlier attempt may save after this look, if its host is cut off or sleeps. Then this
        // run must not add its turn to that one: its saves are refused, and the call is repeated.
        lease.freeze();
        let label = [(LABEL.to_owned(), call.to_owned())];
        let versions = Arc::<Mutex<Vec<String>>>::default();
        let saves = Arc::clone(&versions);
        let guest = Guest::builder(lease.scope().with_host_labels(label))
            .on_change(move |info| {
                let mut saves = saves.lock().unwrap_or_else(PoisonError::into_inner);
                saves.push(address(info));
            })
            .build();
        match self.agent.run(guest, args).await.answer {
            Ok(answer) => Ok(Turn {
                answer: Some(answer),
                versions: std::mem::take(
                    &mut *versions.lock().unwrap_or_else(PoisonError::into_inner),
                ),
            }),
            // The agent's own error, too, may come from the lost lease.
            Err(error) if lease.is_lost() => Err(Failure::Retry(error.to_string())),
            Err(error @ (RunError::WaitLimit(_) | RunError::Lease(_))) => {
                Err(Failure::Retry(error.to_string()))
            }
            Err(error) => Err(Failure::Final(error.to_string())),
        }
    }

    /// Returns the scope of a key, which is `AGENT` or `AGENT/SESSION`.
    fn scope(&self, key: &str) -> Result<Scope, Failure> {
        let (agent, session) = match key.split_once('/') {
            Some((agent, session)) => (agent, Some(session)),
            None => (key, None),
        };
        let scope = self.store.scope(agent, session);
        scope.map_err(|error| Failure::Final(error.to_string()))
    }
}

/// Returns the versions above `heads` that the call has saved.
async fn saved_by(scope: &Scope, call: &str, heads: &Heads) -> Result<Vec<String>, Error> {
    let mut saved = Vec::new();
    for name in names(scope).await? {
        // The look at the newest version is also what the lease's saves are based on.
        let newest = scope
            .stat(&name, None)
            .await?
            .map_or(0, |info| info.version);
        let before = heads.get(&name).copied().unwrap_or(0);
        let new = usize::try_from(newest.saturating_sub(before)).unwrap_or(usize::MAX);
        let mut past = scope.past(&name, None, new)?;
        while let Some((_, info)) = past.next().await? {
            let info = info?;
            let mut labels = info.labels.iter();
            if labels.any(|(key, value)| key == LABEL && value == call) {
                saved.push(address(&info));
            }
        }
    }
    saved.reverse();
    Ok(saved)
}

fn address(info: &Info) -> String {
    format!("{}@{}", info.name, info.version)
}

/// Returns all names of a scope. A store that does not exist yet has none.
async fn names(scope: &Scope) -> Result<Vec<String>, Error> {
    let mut all: Vec<String> = Vec::new();
    loop {
        let last = all.last().map(String::as_str);
        let page = match scope.names("", last, PAGE).await {
            Err(Error::NoStore { .. }) => return Ok(all),
            page => page?,
        };
        if page.is_empty() {
            return Ok(all);
        }
        let is_last = page.len() < PAGE;
        all.extend(page.into_iter().map(|name| name.as_str().to_owned()));
        if is_last {
            return Ok(all);
        }
    }
}
