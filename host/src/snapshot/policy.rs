//! Store-wide policy: the grace period and the retention rules, kept in the store itself.
//!
//! Every host of a store follows the same policy, whatever its own settings say. Each change of the
//! policy is a version of a reserved name, made by the same conditional create as every other
//! version; the highest one is current. A host reads the policy before its first write, and again
//! once it is older than half the grace period.
//!
//! A change of the grace period is safe while hosts run. docs/src/durability.md, "The grace period
//! belongs to the store", argues why:
//! - A host that reads a longer grace period trusts heads that it saw before by the shorter one
//!   ([`PolicyCache::is_good`]).
//! - A prune spares versions by every grace period that another host may still follow
//!   ([`Store::prune_grace`]).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::clock::{self, Moment};
use super::commit::Commit;
use super::format::Encoder;
use super::layout::POLICY_NAME;
use super::offload::spawn_cpu;
use super::{
    Error, Expect, Name, RawVersion, Result, Retention, Scope, Store, StoreOptions, Version,
};
use crate::storage::List;

/// A policy is some hundred bytes.
const MAX_POLICY: u64 = 64 * 1024;

/// The grace period of a store unless another one was chosen.
pub(super) const DEFAULT_GRACE: Duration = Duration::from_secs(60 * 60);

/// The longest grace period: a prune need not look at policies that were replaced longer ago.
const MAX_GRACE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Versions of the policy that a prune looks at.
const MAX_HISTORY: usize = 1000;

/// The longest age of the grace period that a prune goes by.
const PRUNE_REFRESH: Duration = Duration::from_secs(60);

/// The policy of a store, which all its hosts follow.
///
/// ```
/// # use std::sync::Arc;
/// use persist_host::snapshot::{Expect, Policy, Store};
/// # use persist_host::storage::Memory;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # let store = Store::new(Arc::new(Memory::new()));
/// let mut policy = Policy::default();
/// policy.retention = None; // Keep every version.
/// store.set_policy(&policy, Expect::Any).await?;
/// assert_eq!(store.policy().await?.policy, policy);
/// # Ok::<(), persist_host::snapshot::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// Grace period: a version that was the newest within this time is not pruned. At most 30 days;
    /// 1 hour by default.
    pub grace: Duration,
    /// Versions to keep of each name. None: every version is kept until an operator prunes.
    pub retention: Option<Retention>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grace: DEFAULT_GRACE,
            retention: Some(Retention::default()),
        }
    }
}

/// The policy that a store has now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CurrentPolicy {
    /// The policy. Of a store without one: a grace period of 1 hour, and every version is kept.
    pub policy: Policy,
    /// Its version; none where the store has no policy, as one that an older Persist made.
    pub version: Option<Version>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredPolicy {
    grace_ms: u64,
    // Not parsed at once: an older build saves by the grace period even if it does not know all
    // rules.
    #[serde(default)]
    retention: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRetention {
    keep_last: usize,
    keep_within_ms: u64,
    keep_hourly: usize,
    keep_daily: usize,
    keep_weekly: usize,
}

/// One version of the policy, as far as this build understands it.
#[derive(Clone, Debug)]
struct ReadPolicy {
    grace: Duration,
    /// None where the rules are of a later build.
    retention: Option<Option<Retention>>,
    /// When the host that wrote it did so, by its clock: milliseconds since 1970 UTC.
    created_at: u64,
}

impl ReadPolicy {
    fn parse(json: &[u8], version: Version, created_at: u64) -> Result<Self> {
        let stored: StoredPolicy = serde_json::from_slice(json).map_err(|error| {
            Error::corrupt(format!(
                "version {version} of the store's policy is not valid: {error}; `persist policy \
                 set` writes a new one"
            ))
        })?;
        let retention = match stored.retention {
            serde_json::Value::Null => Some(None),
            rules => serde_json::from_value::<StoredRetention>(rules)
                .ok()
                .map(|rules| Some(rules.into())),
        };
        Ok(Self {
            grace: Duration::from_millis(stored.grace_ms).min(MAX_GRACE),
            retention,
            created_at,
        })
    }
}

impl From<StoredRetention> for Retention {
    fn from(stored: StoredRetention) -> Self {
        Self {
            keep_last: stored.keep_last,
            keep_within: Duration::from_millis(stored.keep_within_ms),
            keep_hourly: stored.keep_hourly,
            keep_daily: stored.keep_daily,
            keep_weekly: stored.keep_weekly,
        }
    }
}

impl From<&Retention> for StoredRetention {
    fn from(rules: &Retention) -> Self {
        Self {
            keep_last: rules.keep_last,
            keep_within_ms: millis(rules.keep_within),
            keep_hourly: rules.keep_hourly,
            keep_daily: rules.keep_daily,
            keep_weekly: rules.keep_weekly,
        }
    }
}

impl Policy {
    fn to_json(&self) -> Result<Vec<u8>> {
        if self.grace > MAX_GRACE {
            return Err(Error::Invalid(
                "the grace period is longer than 30 days".into(),
            ));
        }
        let retention = self.retention.as_ref().map(StoredRetention::from);
        let stored = StoredPolicy {
            // Not shorter than it was asked for.
            grace_ms: millis(self.grace + Duration::from_nanos(999_999)),
            retention: serde_json::to_value(retention).expect("numbers are JSON"),
        };
        let mut json = serde_json::to_vec_pretty(&stored).expect("numbers are JSON");
        json.push(b'\n');
        Ok(json)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The policy as this process read it last.
#[derive(Debug, Default)]
pub(super) struct PolicyCache {
    state: Mutex<Option<CachedPolicy>>,
    prune: Mutex<Option<CachedPruneGrace>>,
    /// One task reads; others wait for what it finds.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug)]
struct CachedPolicy {
    version: Option<Version>,
    /// The grace period that this process trusts heads by.
    grace: Duration,
    retention: Option<Retention>,
    /// A moment before the last read began.
    read_at: Moment,
    /// Grace periods that this process followed before, and when each ended.
    earlier: Vec<EarlierGrace>,
}

#[derive(Clone, Copy, Debug)]
struct EarlierGrace {
    grace: Duration,
    ended: Moment,
}

#[derive(Clone, Copy, Debug)]
struct CachedPruneGrace {
    grace: Duration,
    good_for: Duration,
    read_at: Moment,
}

impl PolicyCache {
    /// Returns whether a change may go on from a head that was seen after `since`, without another
    /// look.
    pub(super) fn is_good(&self, since: Moment) -> bool {
        let state = self.state();
        let Some(known) = &*state else {
            return false;
        };
        if !known.is_fresh() {
            return false;
        }
        // A longer grace period holds for heads that were seen after it was read. A prune that
        // began before that spares versions by the shorter one.
        let followed = known
            .earlier
            .iter()
            .filter(|earlier| !earlier.ended.is_before(since))
            .map(|earlier| earlier.grace)
            .fold(known.grace, Duration::min);
        since.elapsed() < followed / 2
    }

    /// Returns the rules by which old versions are removed without an operator; none where every
    /// version is kept.
    pub(super) fn retention(&self) -> Option<Retention> {
        self.state()
            .as_ref()
            .and_then(|known| known.retention.clone())
    }

    fn is_fresh(&self) -> bool {
        self.state().as_ref().is_some_and(CachedPolicy::is_fresh)
    }

    /// Notes what a read found that began after `read_at`. Returns whether the policy is another
    /// one than before.
    fn learn(
        &self,
        version: Option<Version>,
        grace: Duration,
        retention: Option<Retention>,
        read_at: Moment,
    ) -> bool {
        let mut state = self.state();
        let last = state.take();
        let is_new = last.as_ref().is_none_or(|last| last.version != version);
        let mut earlier = Vec::new();
        if let Some(last) = last {
            earlier = last.earlier;
            // None of them is trusted for longer than half the longest grace period.
            earlier.retain(|earlier| earlier.ended.elapsed() < MAX_GRACE);
            if last.grace != grace {
                earlier.push(EarlierGrace {
                    grace: last.grace,
                    ended: Moment::now(),
                });
            }
        }
        *state = Some(CachedPolicy {
            version,
            grace,
            retention,
            read_at,
            earlier,
        });
        is_new
    }

    fn state(&self) -> MutexGuard<'_, Option<CachedPolicy>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn of(grace: Duration) -> Self {
        let cache = Self::default();
        cache.learn(Some(1), grace, None, Moment::now());
        cache
    }
}

impl CachedPolicy {
    fn is_fresh(&self) -> bool {
        self.read_at.elapsed() < self.grace / 2
    }
}

impl Store {
    /// Reads the policy that this store has now.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where it cannot be read; [`Error::Unsupported`] where a later build wrote
    /// rules that this one does not know; [`Error::Storage`].
    pub async fn policy(&self) -> Result<CurrentPolicy> {
        let Some((version, read)) = self.read_policy(None).await? else {
            return Ok(CurrentPolicy {
                policy: Policy {
                    retention: None,
                    ..Policy::default()
                },
                version: None,
            });
        };
        let retention = read.retention.ok_or_else(|| unknown_rules(version))?;
        Ok(CurrentPolicy {
            policy: Policy {
                grace: read.grace,
                retention,
            },
            version: Some(version),
        })
    }

    /// Opens the file of the newest policy as it is stored, to keep it elsewhere; none where the
    /// store has no policy.
    ///
    /// # Errors
    /// Errors of [`Scope::stored`].
    pub async fn stored_policy(&self) -> Result<Option<RawVersion>> {
        let scope = self.policy_scope();
        match scope.head(&policy_name()).await? {
            Some(head) => scope.stored(POLICY_NAME, head.version).await.map(Some),
            None => Ok(None),
        }
    }

    /// Writes the next version of the policy, which every host follows from the next time that it
    /// reads the policy: at the latest after half the grace period. A prune spares versions by the
    /// longer of both grace periods until then. Returns the version.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the grace period is longer than 30 days; [`Error::Conflict`] where
    /// `expect` does not hold; then as [`Scope::save`].
    pub async fn set_policy(&self, policy: &Policy, expect: Expect) -> Result<Version> {
        policy.to_json()?;
        self.policy_scope().ensure_initialized().await?;
        let version = self.write_policy(policy, expect).await?;
        // Another version may be the newest already.
        self.read_into_cache().await?;
        Ok(version)
    }

    /// Writes the first policy of a store that is being made, as this process's options say.
    /// Another host may be first.
    pub(super) async fn write_first_policy(&self) -> Result<()> {
        let StoreOptions {
            grace, retention, ..
        } = &self.shared.options;
        let policy = Policy {
            grace: (*grace).min(MAX_GRACE),
            retention: retention.clone(),
        };
        match self.write_policy(&policy, Expect::Absent).await {
            Ok(_) | Err(Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn write_policy(&self, policy: &Policy, expect: Expect) -> Result<Version> {
        let json = policy.to_json()?;
        let media_type = Some("application/json".to_owned());
        let scope = self.policy_scope();
        let mut commit = Commit::new(&scope, &policy_name(), expect, media_type, Vec::new());
        let encode = move || Ok(Encoder::encode(&json));
        let (bytes, encoded) = spawn_cpu(0, encode).await?;
        commit.buffer(bytes);
        Ok(commit.finish(&encoded).await?.version)
    }

    /// Reads the policy unless what this process knows of it is younger than half the grace period.
    /// To be called before every change.
    pub(super) async fn refresh_policy(&self) -> Result<()> {
        let cache = &self.shared.policy;
        if cache.is_fresh() {
            return Ok(());
        }
        let _reading = cache.reading.lock().await;
        if cache.is_fresh() {
            return Ok(());
        }
        self.read_into_cache().await
    }

    async fn read_into_cache(&self) -> Result<()> {
        let options = &self.shared.options;
        let read_at = Moment::now();
        let read = self.read_policy(None).await?;
        let Some((version, policy)) = read else {
            // Hosts of an older build follow their own settings: neither grace period is exceeded.
            let grace = options.grace.min(DEFAULT_GRACE);
            if self.shared.policy.learn(None, grace, None, read_at) {
                tracing::info!(
                    "no version is pruned automatically: this store has no policy; create one with \
                     `persist policy set`"
                );
            }
            return Ok(());
        };
        let retention = policy.retention.clone().flatten();
        let is_new =
            self.shared
                .policy
                .learn(Some(version), policy.grace, retention.clone(), read_at);
        if is_new {
            self.report_differences(version, &policy);
        }
        Ok(())
    }

    /// Logs where this host's own options differ from the policy. Options that have their default
    /// value were not chosen.
    fn report_differences(&self, version: Version, policy: &ReadPolicy) {
        let options = &self.shared.options;
        let default = StoreOptions::default();
        if options.grace != default.grace && options.grace != policy.grace {
            tracing::warn!(
                version,
                "this host's setting is ignored: the store's policy has a grace period of {:?}, \
                 the setting {:?}; change it with `persist policy set`",
                policy.grace,
                options.grace
            );
        }
        match &policy.retention {
            Some(rules)
                if options.retention != default.retention && options.retention != *rules =>
            {
                tracing::warn!(
                    version,
                    "this host's settings are ignored: the store's policy has other retention \
                     rules; change them with `persist policy set`"
                );
            }
            None => tracing::warn!(
                version,
                "this host prunes nothing: the store's policy has rules that this version of \
                 Persist does not know"
            ),
            Some(_) => {}
        }
    }

    /// Returns the grace period that a prune must spare versions by: the longest that any host may
    /// follow at this moment.
    ///
    /// A policy that was replaced counts until its own grace period has passed since: a host
    /// follows it for at most half of that.
    pub(super) async fn prune_grace(&self) -> Result<Duration> {
        let cached = *self.prune_cache();
        if let Some(cached) = cached
            && cached.read_at.elapsed() < cached.good_for
        {
            return Ok(cached.grace);
        }
        let read_at = Moment::now();
        let (current, grace) = self.read_prune_grace().await?;
        *self.prune_cache() = Some(CachedPruneGrace {
            grace,
            good_for: (current / 2).min(PRUNE_REFRESH),
            read_at,
        });
        Ok(grace)
    }

    /// The current grace period, and the longest that counts.
    async fn read_prune_grace(&self) -> Result<(Duration, Duration)> {
        let dir = self.policy_scope().dir_of(&policy_name());
        let list = List::new(&dir).with_limit(MAX_HISTORY).with_meta();
        let page = self.shared.storage.list(&list).await?;
        // A storage whose clock is ahead at this moment must not make the history look older than
        // it is.
        let host = SystemTime::now();
        let now = page.now.map_or(host, |now| now.min(host));
        let mut current = None;
        let mut longest = Duration::ZERO;
        // How long ago the version above was made, by its trailer and by the storage: the shorter.
        let mut replaced: Option<Duration> = None;
        for (version, meta) in super::retention::versions_in(page.entries)? {
            // What is from the future is new.
            let stored = now.duration_since(meta.created).unwrap_or_default();
            let age = replaced.replace(stored);
            if age.is_some_and(|age| age > MAX_GRACE) {
                break;
            }
            let grace = match self.read_policy(Some(version)).await {
                Ok(Some((_, policy))) => {
                    let claimed = clock::claimed_age(policy.created_at, now, MAX_GRACE);
                    replaced = Some(claimed.map_or(stored, |claimed| claimed.min(stored)));
                    policy.grace
                }
                Ok(None) => continue,
                // The longest that it can have been.
                Err(Error::Corrupt { .. } | Error::Unsupported { .. }) if age.is_some() => {
                    MAX_GRACE
                }
                Err(error) => return Err(error),
            };
            if age.is_none_or(|age| age <= grace) {
                longest = longest.max(grace);
            }
            current.get_or_insert(grace);
        }
        Ok(match current {
            Some(current) => (current, longest),
            // Hosts of an older build follow their own settings.
            None => {
                let grace = self.shared.options.grace.max(DEFAULT_GRACE);
                (grace, grace)
            }
        })
    }

    /// Reads the newest policy, or version `at`.
    async fn read_policy(&self, at: Option<Version>) -> Result<Option<(Version, ReadPolicy)>> {
        let scope = self.policy_scope();
        let Some(snapshot) = scope.load_at_most(POLICY_NAME, at, MAX_POLICY).await? else {
            return Ok(None);
        };
        let version = snapshot.info.version;
        let policy = ReadPolicy::parse(&snapshot.state, version, snapshot.info.created_at)?;
        Ok(Some((version, policy)))
    }

    /// The scope of the store's own names, which no agent can have.
    fn policy_scope(&self) -> Scope {
        Scope {
            store: self.clone(),
            agent: Name::reserved(),
            session: None,
        }
    }

    fn prune_cache(&self) -> MutexGuard<'_, Option<CachedPruneGrace>> {
        let cache = &self.shared.policy.prune;
        cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn policy_name() -> Name {
    Name::new(POLICY_NAME).expect("a name")
}

pub(super) fn unknown_rules(version: Version) -> Error {
    Error::unsupported(format!(
        "version {version} of the store's policy has retention rules that this version of Persist \
         does not know"
    ))
    .with_hint("use a newer version of Persist")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(work)
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let mut policy = Policy::default();
        for retention in [None, Some(Retention::default())] {
            policy.retention = retention;
            let json = policy.to_json().expect("JSON");
            let read = ReadPolicy::parse(&json, 1, 0).expect("a policy");
            assert_eq!(read.grace, policy.grace);
            assert_eq!(read.retention, Some(policy.retention.clone()));
        }
    }

    #[test]
    fn rules_of_a_later_build_prune_nothing_and_keep_the_grace_period() {
        let json =
            br#"{"grace_ms": 5000, "retention": {"keep_last": 1, "keep_yearly": 3}, "later": 1}"#;
        let read = ReadPolicy::parse(json, 1, 0).expect("a policy");
        assert_eq!(read.grace, Duration::from_secs(5));
        assert_eq!(read.retention, None);
    }

    #[test]
    fn heads_seen_under_a_shorter_grace_are_trusted_by_it() {
        let second = Duration::from_secs(1);
        let hour = Duration::from_secs(3600);
        let cache = PolicyCache::of(Duration::from_millis(20));
        let before = Moment::now();
        std::thread::sleep(Duration::from_millis(20));
        cache.learn(Some(2), hour, None, Moment::now());
        assert!(!cache.is_good(before), "half of 20 ms has passed");
        assert!(cache.is_good(Moment::now()));
        // A shorter one holds at once.
        cache.learn(Some(3), second, None, Moment::now());
        assert!(cache.is_good(Moment::now()));
        cache.learn(Some(4), Duration::ZERO, None, Moment::now());
        assert!(!cache.is_good(Moment::now()));
    }

    #[test]
    fn an_unknown_or_old_policy_trusts_no_head() {
        assert!(!PolicyCache::default().is_good(Moment::now()));
        let cache = PolicyCache::of(Duration::from_millis(10));
        std::thread::sleep(Duration::from_millis(10));
        assert!(!cache.is_good(Moment::now()));
    }

    #[test]
    fn a_grace_period_over_thirty_days_is_refused() {
        let policy = Policy {
            grace: MAX_GRACE + Duration::from_secs(1),
            ..Policy::default()
        };
        assert!(matches!(policy.to_json(), Err(Error::Invalid(_))));
        let store = Store::new(std::sync::Arc::new(crate::storage::Memory::new()));
        let set = block_on(store.set_policy(&policy, Expect::Any));
        assert!(matches!(set, Err(Error::Invalid(_))));
    }
}
