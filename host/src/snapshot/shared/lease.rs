//! A lease that is held, the objects of leases, and what this process knows of them. `lease/` reads
//! and creates the objects.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::snapshot::clock::{Moment, unix_millis};
use crate::snapshot::lease_timing::expiry;
use crate::snapshot::{Error, Name, Result, Version};

/// Scopes whose newest lease object this process remembers, at most.
const MAX_OBSERVED: usize = 10_000;

/// Term that is assumed for an object that cannot be read.
const UNKNOWN_TERM: Duration = Duration::from_secs(60);

/// State of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LeaseState {
    /// A host holds it, or held it when it died.
    Held,
    /// Its holder released it.
    Released,
    /// An operator broke it.
    Broken,
}

impl LeaseState {
    /// Names the state, as reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Released => "released",
            Self::Broken => "broken",
        }
    }
}

/// Content of an object of a lease. Fields that a later build adds are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaseRecord {
    pub(crate) agent: String,
    pub(crate) session: Option<String>,
    pub(crate) state: LeaseState,
    pub(crate) holder: String,
    /// Tells the holds of one holder apart.
    pub(crate) id: String,
    pub(crate) term_ms: u64,
    /// For people: the clock of the host that made the object.
    at_ms: u64,
}

impl LeaseRecord {
    pub(crate) fn new(
        (agent, session): (&Name, Option<&Name>),
        state: LeaseState,
        holder: &str,
        term: Duration,
    ) -> Self {
        Self {
            agent: agent.as_str().into(),
            session: session.map(|session| session.as_str().into()),
            state,
            holder: holder.into(),
            id: format!("{:032x}", crate::random::u128()),
            term_ms: u64::try_from(term.as_millis()).unwrap_or(u64::MAX),
            at_ms: unix_millis(),
        }
    }

    /// Returns the record with another state, made now.
    pub(crate) fn with_state(&self, state: LeaseState) -> Self {
        Self {
            state,
            at_ms: unix_millis(),
            ..self.clone()
        }
    }

    pub(crate) fn term(&self) -> Duration {
        Duration::from_millis(self.term_ms)
    }

    pub(crate) fn parse(bytes: &[u8], scope: (&Name, Option<&Name>)) -> Self {
        // An object that another program made, or a later build, counts as a lease: it ends when
        // it is not renewed.
        serde_json::from_slice(bytes).unwrap_or_else(|_| Self {
            id: String::new(),
            ..Self::new(scope, LeaseState::Held, "unknown", UNKNOWN_TERM)
        })
    }
}

/// The newest lease objects that this process saw, and since when.
#[derive(Debug, Default)]
pub(crate) struct Observations(Mutex<HashMap<String, ObservedLease>>);

#[derive(Clone, Debug)]
pub(crate) struct ObservedLease {
    pub(crate) number: u64,
    pub(crate) record: Arc<LeaseRecord>,
    pub(crate) since: Moment,
}

impl Observations {
    pub(crate) fn get(&self, dir: &str, number: u64) -> Option<ObservedLease> {
        let observed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        observed
            .get(dir)
            .filter(|observed| observed.number == number)
            .cloned()
    }

    pub(crate) fn insert(&self, dir: &str, seen: ObservedLease) {
        let mut observed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if observed.len() >= MAX_OBSERVED && !observed.contains_key(dir) {
            // Each costs a read again.
            observed.clear();
        }
        observed.insert(dir.to_owned(), seen);
    }
}

/// A lease that this process holds, as far as it knows.
#[derive(Debug)]
pub(crate) struct HeldLease {
    agent: Name,
    session: Option<Name>,
    pub(crate) record: LeaseRecord,
    /// Number of the object with which it was acquired.
    pub(crate) acquired: u64,
    current: Mutex<CurrentLease>,
    /// The host that took over; empty where that is not known, or the lease was released.
    lost_to: Mutex<Option<String>>,
    /// Newest versions that were seen under this lease, by encoded name.
    seen: Mutex<HashMap<String, SeenHead>>,
    /// Set once changes are made only on the versions that were seen before.
    is_frozen: AtomicBool,
    /// Set when a change was refused because the lease is frozen.
    is_superseded: AtomicBool,
    /// Held while an object is created.
    pub(crate) changing: tokio::sync::Mutex<()>,
}

/// The newest object of a lease that is held.
#[derive(Clone, Debug)]
pub(crate) struct CurrentLease {
    pub(crate) number: u64,
    /// A moment before it was created.
    pub(crate) since: Moment,
    /// Objects that are to be removed, ascending.
    pub(crate) objects: Vec<u64>,
}

/// The newest version of a name, as it was seen under a lease.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenHead {
    /// 0: nothing was saved.
    pub(crate) version: Version,
    /// True if the lease was the newest at a moment after the version was seen.
    pub(crate) verified: bool,
}

/// How a version came to be known under a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was read.
    Read,
    /// It was the newest version at a moment before one at which the lease was verified.
    Verified,
    /// It was created under the lease.
    Created,
}

impl HeldLease {
    /// A lease that was acquired with the object `number`, after the object `last` of another
    /// holder, by a call that began at `since`.
    pub(crate) fn new(
        (agent, session): (&Name, Option<&Name>),
        record: LeaseRecord,
        (last, number): (u64, u64),
        since: Moment,
    ) -> Self {
        let objects = [last, number].into_iter().filter(|number| *number > 0);
        Self {
            agent: agent.clone(),
            session: session.cloned(),
            record,
            acquired: number,
            current: Mutex::new(CurrentLease {
                number,
                since,
                objects: objects.collect(),
            }),
            lost_to: Mutex::default(),
            seen: Mutex::default(),
            is_frozen: AtomicBool::new(false),
            is_superseded: AtomicBool::new(false),
            changing: tokio::sync::Mutex::default(),
        }
    }

    pub(crate) fn remaining(&self) -> Duration {
        let since = self.current().since;
        expiry(self.record.term()).saturating_sub(since.elapsed())
    }

    pub(crate) fn current(&self) -> MutexGuard<'_, CurrentLease> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn seen(&self, name: &Name) -> Option<SeenHead> {
        let seen = self.all_seen().get(name.encoded()).copied();
        // A frozen lease knows all names.
        seen.or_else(|| {
            self.is_frozen().then_some(SeenHead {
                version: 0,
                verified: false,
            })
        })
    }

    /// Takes note of the newest version of a name; 0: nothing was saved. A frozen lease notes only
    /// versions of its own.
    pub(crate) fn observe(&self, name: &Name, version: Version, origin: Origin) {
        let mut seen = self.all_seen();
        if origin == Origin::Read && self.is_frozen() {
            return;
        }
        let verified = origin != Origin::Read;
        let new = SeenHead { version, verified };
        let known = seen.entry(name.encoded().to_owned()).or_insert(new);
        if version > known.version {
            *known = new;
        } else if version == known.version {
            known.verified |= verified;
        }
    }

    pub(crate) fn freeze(&self) {
        // Under the lock: a read that is under way notes its version before, or not at all.
        let _seen = self.all_seen();
        self.is_frozen.store(true, Relaxed);
    }

    pub(crate) fn is_frozen(&self) -> bool {
        self.is_frozen.load(Relaxed)
    }

    /// Refuses all further changes under a frozen lease, and returns their error. The lease is
    /// still to be released.
    pub(crate) fn supersede(&self) -> Error {
        self.is_superseded.store(true, Relaxed);
        self.lost("")
    }

    pub(crate) fn is_superseded(&self) -> bool {
        self.is_superseded.load(Relaxed)
    }

    /// Returns true if the lease is known to have ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.lost_to().is_some()
    }

    /// Refuses to go on with a lease that is known to have ended.
    pub(crate) fn check(&self) -> Result<()> {
        match &*self.lost_to() {
            None if self.is_superseded() => Err(self.lost("")),
            None => Ok(()),
            Some(holder) => Err(self.lost(holder)),
        }
    }

    /// Takes note of the end of the lease, and returns the error for what was to be done under it.
    pub(crate) fn end(&self, holder: String) -> Error {
        let error = self.lost(&holder);
        *self.lost_to() = Some(holder);
        error
    }

    fn lost(&self, holder: &str) -> Error {
        Error::LeaseLost {
            scope: described_scope(&self.agent, self.session.as_ref()),
            holder: (!holder.is_empty()).then(|| holder.to_owned()),
        }
    }

    fn lost_to(&self) -> MutexGuard<'_, Option<String>> {
        self.lost_to.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn all_seen(&self) -> MutexGuard<'_, HashMap<String, SeenHead>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the name of a scope for messages about its lease.
pub(crate) fn described_scope(agent: &Name, session: Option<&Name>) -> String {
    match session {
        Some(session) => format!("session {session} of agent {agent}"),
        None => format!("agent {agent}"),
    }
}
