//! The objects of a lease: what is in them, how they are found, and how old they are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

#[cfg(doc)]
use crate::snapshot::Error;
use crate::snapshot::clock::Moment;
use crate::snapshot::lease_timing::expiry;
use crate::snapshot::shared::{LeaseRecord, LeaseState, ObservedLease, ScopeRef, StoreRef};
use crate::snapshot::{Name, Result, layout};
use crate::storage::{Entry, ErrorKind, Key, List, ReadRange, RecursiveList};

/// Bytes of an object of a lease that are read, at most.
const MAX_OBJECT: u64 = 64 << 10;

/// Objects that are listed together.
const PAGE: usize = 1000;

/// The newest state of the lease of a scope.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LeaseInfo {
    /// The agent.
    pub agent: Name,
    /// The session; none for what belongs to no session.
    pub session: Option<Name>,
    /// Number of its newest object.
    pub number: u64,
    /// State of the lease.
    pub state: LeaseState,
    /// The holder; of a lease that was broken, the operator who broke it.
    pub holder: String,
    /// Time between two renewals.
    pub term: Duration,
    /// Time since the last renewal, where the storage tells.
    pub age: Option<Duration>,
}

impl LeaseInfo {
    /// Time that is left before another host may take over; none where the lease is not held, or
    /// the storage does not tell how old it is. Zero: it may be taken over now.
    pub fn remaining(&self) -> Option<Duration> {
        let age = self.age.filter(|_| self.state == LeaseState::Held)?;
        Some(expiry(self.term).saturating_sub(age))
    }
}

/// The newest object of a lease.
#[derive(Clone, Debug)]
pub(super) struct Newest {
    pub(super) number: u64,
    pub(super) record: LeaseRecord,
    /// Time since it was made. None: the storage does not tell.
    pub(super) age: Option<Duration>,
    /// Objects below it.
    pub(super) older: Vec<u64>,
}

impl ScopeRef {
    /// The agent and the session.
    pub(super) fn place(&self) -> (&Name, Option<&Name>) {
        (self.agent(), self.session())
    }

    fn lease_dir(&self) -> String {
        layout::lease_dir(self.agent(), self.session())
    }

    fn lease_key(&self, number: u64) -> Result<Key> {
        let dir = self.lease_dir();
        let segment = layout::lease_segment(number);
        Ok(Key::new(format!("{dir}/{segment}"))?)
    }

    /// Finds the newest object: a list, and a read unless this process knows the object.
    pub(super) async fn newest_lease(&self) -> Result<Option<Newest>> {
        let dir = self.lease_dir();
        loop {
            let list = List::new(&dir).with_limit(PAGE).with_meta();
            let page = self.storage().list(&list).await?;
            let mut numbers = Vec::new();
            let mut age = None;
            for entry in &page.entries {
                if let Entry::Object(object) = entry
                    && let Some(number) = layout::parse_lease(&object.name)
                {
                    if numbers.is_empty() {
                        // Both times are the storage's.
                        age = page.now.zip(object.meta).map(|(now, meta)| {
                            now.duration_since(meta.created).unwrap_or_default()
                        });
                    }
                    numbers.push(number);
                }
            }
            let [number, older @ ..] = &numbers[..] else {
                return Ok(None);
            };
            let Some(observed) = self.observed_lease(&dir, *number, Moment::now()).await? else {
                // Removed since it was listed: there is a newer one.
                continue;
            };
            let seen_for = observed.since.elapsed_boot();
            return Ok(Some(Newest {
                number: *number,
                record: (*observed.record).clone(),
                age: age.map(|age| age.max(seen_for)).or(Some(seen_for)),
                older: older.to_vec(),
            }));
        }
    }

    async fn observed_lease(
        &self,
        dir: &str,
        number: u64,
        since: Moment,
    ) -> Result<Option<ObservedLease>> {
        let known = &self.store.shared.leases;
        if let Some(observed) = known.get(dir, number) {
            return Ok(Some(observed));
        }
        let Some(record) = self.read_lease(number).await? else {
            return Ok(None);
        };
        let observed = ObservedLease {
            number,
            record: Arc::new(record),
            since,
        };
        known.insert(dir, observed.clone());
        Ok(Some(observed))
    }

    /// Reads an object of the lease; none where it is not there.
    pub(super) async fn read_lease(&self, number: u64) -> Result<Option<LeaseRecord>> {
        let key = self.lease_key(number)?;
        let range = ReadRange::Bounded(0..MAX_OBJECT);
        match self.storage().read(&key, range).await {
            Ok(part) => Ok(Some(LeaseRecord::parse(&part.bytes, self.place()))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates an object of the lease. Returns false where another one has this number.
    ///
    /// # Errors
    /// [`Error::Storage`]; also where the outcome is not known.
    pub(super) async fn create_lease(&self, number: u64, record: &LeaseRecord) -> Result<bool> {
        let json = serde_json::to_vec(record).expect("names and numbers are JSON");
        let key = self.lease_key(number)?;
        let created = self.storage().create(&key, vec![Bytes::from(json)]).await;
        let Err(error) = created else {
            let observed = ObservedLease {
                number,
                record: Arc::new(record.clone()),
                since: Moment::now(),
            };
            self.store.shared.leases.insert(&self.lease_dir(), observed);
            return Ok(true);
        };
        let is_unclear = matches!(
            error.kind(),
            ErrorKind::AlreadyExists | ErrorKind::OutcomeUnknown | ErrorKind::NotDurable
        );
        if !is_unclear {
            return Err(error.into());
        }
        match self.read_lease(number).await? {
            Some(found) => Ok(found.id == record.id && found.state == record.state),
            None if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            None => Err(error.into()),
        }
    }

    /// Removes objects that are not the newest. One that stays is removed with the next lease.
    pub(super) async fn remove_leases(&self, numbers: &[u64]) {
        for number in numbers {
            let Ok(key) = self.lease_key(*number) else {
                continue;
            };
            if let Err(error) = self.storage().delete(&key).await {
                tracing::debug!(%error, "an old object of a lease was not removed");
                return;
            }
        }
    }

    /// Returns the newest state of the lease; none where the scope was never leased.
    pub(crate) async fn lease_info(&self) -> Result<Option<LeaseInfo>> {
        let newest = self.newest_lease().await?;
        if newest.is_none() {
            self.store.check_empty().await?;
        }
        Ok(newest.map(|newest| self.info_of(newest)))
    }

    pub(super) fn info_of(&self, newest: Newest) -> LeaseInfo {
        LeaseInfo {
            agent: self.agent().clone(),
            session: self.session().cloned(),
            number: newest.number,
            state: newest.record.state,
            term: newest.record.term(),
            holder: newest.record.holder,
            age: newest.age,
        }
    }
}

impl StoreRef {
    /// Lists the leases of all scopes that were ever leased.
    pub(crate) async fn leases(&self) -> Result<Vec<LeaseInfo>> {
        let scopes = self.leased_scopes().await?;
        let mut leases = Vec::with_capacity(scopes.len());
        for scope in scopes {
            leases.extend(scope.lease_info().await?);
        }
        Ok(leases)
    }

    async fn leased_scopes(&self) -> Result<Vec<ScopeRef>> {
        let dir = layout::leases_dir();
        let mut scopes = Vec::new();
        let mut last = String::new();
        let mut token = None;
        loop {
            let list = RecursiveList {
                dir: &dir,
                token,
                limit: PAGE,
                meta: false,
            };
            let page = self.storage().list_recursive(&list).await?;
            for object in &page.objects {
                let Some((agent, session)) = layout::scope_of_lease(&object.name) else {
                    continue;
                };
                let (of_scope, _) = object.name.rsplit_once('/').unwrap_or_default();
                if of_scope != last {
                    last = of_scope.to_owned();
                    scopes.push(self.scope(&agent, session));
                }
            }
            token = page.next;
            if token.is_none() {
                break;
            }
        }
        if scopes.is_empty() {
            self.check_empty().await?;
        }
        Ok(scopes)
    }
}
