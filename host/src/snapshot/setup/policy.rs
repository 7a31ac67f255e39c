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
//!   (`PolicyCache::is_good`).
//! - A prune spares versions by every grace period that another host may still follow
//!   (`StoreRef::prune_grace`).

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::snapshot::clock::{self, Moment};
use crate::snapshot::commit::Commit;
use crate::snapshot::format::Encoder;
use crate::snapshot::layout::POLICY_NAME;
use crate::snapshot::offload::spawn_cpu;
use crate::snapshot::read::versions_in;
use crate::snapshot::shared::{CachedPruneGrace, DEFAULT_GRACE, MAX_GRACE, ScopeRef, StoreRef};
use crate::snapshot::{
    Error, Expect, ExpireRule, LabelRule, Name, Result, Retention, StoreOptions, Version,
};
use crate::storage::List;

/// A policy is some hundred bytes.
const MAX_POLICY: u64 = 64 * 1024;

/// Versions of the policy that a prune looks at.
const MAX_HISTORY: usize = 1000;

/// The shortest time after which a name may expire. 0 is more likely meant to say never.
const MIN_EXPIRY: Duration = Duration::from_millis(1);

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
    /// Names that expire: each is deleted once it was not saved for some time; none. The most
    /// specific rule counts for a name. Only [`Scope::expire`](crate::snapshot::Scope::expire)
    /// does so, which a prune by the command calls; no host does it beside saves.
    pub expire: Vec<ExpireRule>,
}

impl Policy {
    /// Returns the time after which the names of a scope expire; none: never.
    ///
    /// ```
    /// use std::time::Duration;
    /// use persist_host::snapshot::{ExpireRule, Name, Policy};
    ///
    /// let day = Duration::from_secs(24 * 60 * 60);
    /// let bot = Name::new("bot")?;
    /// let mut policy = Policy::default();
    /// policy.expire = vec![
    ///     ExpireRule::new(None, None, Some(90 * day)),
    ///     ExpireRule::new(Some(bot.clone()), None, None),
    /// ];
    /// assert_eq!(policy.expire_after(&bot, None), None);
    /// assert_eq!(policy.expire_after(&Name::new("other")?, None), Some(90 * day));
    /// # Ok::<(), persist_host::snapshot::Error>(())
    /// ```
    pub fn expire_after(&self, agent: &Name, session: Option<&Name>) -> Option<Duration> {
        let ranked = self.expire.iter().filter_map(|rule| {
            let rank = rule.rank(agent, session)?;
            Some((rank, rule))
        });
        ranked.max_by_key(|(rank, _)| *rank)?.1.after
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            grace: DEFAULT_GRACE,
            retention: Some(Retention::default()),
            expire: Vec::new(),
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
    // An older build ignores it and expires nothing.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    expire: serde_json::Value,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredExpireRule {
    agent: Option<Name>,
    session: Option<Name>,
    after_ms: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLabelRule {
    key: String,
    value: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRetention {
    keep_last: usize,
    keep_within_ms: u64,
    keep_hourly: usize,
    keep_daily: usize,
    keep_weekly: usize,
    // Left out where they keep nothing: an older build prunes nothing by rules it does not know.
    #[serde(default, skip_serializing_if = "is_zero")]
    keep_monthly: usize,
    #[serde(default, skip_serializing_if = "is_zero")]
    keep_yearly: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    keep_labels: Vec<StoredLabelRule>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// One version of the policy, as far as this build understands it.
#[derive(Clone, Debug)]
struct ReadPolicy {
    grace: Duration,
    /// None where the rules are of a later build.
    retention: Option<Option<Retention>>,
    /// None where the rules are of a later build.
    expire: Option<Vec<ExpireRule>>,
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
        let expire = match stored.expire {
            serde_json::Value::Null => Some(Vec::new()),
            rules => serde_json::from_value::<Vec<StoredExpireRule>>(rules)
                .ok()
                .map(|rules| rules.into_iter().map(Into::into).collect()),
        };
        Ok(Self {
            grace: Duration::from_millis(stored.grace_ms).min(MAX_GRACE),
            retention,
            expire,
            created_at,
        })
    }
}

impl From<StoredExpireRule> for ExpireRule {
    fn from(stored: StoredExpireRule) -> Self {
        let after = stored.after_ms.map(Duration::from_millis);
        Self::new(stored.agent, stored.session, after)
    }
}

impl From<&ExpireRule> for StoredExpireRule {
    fn from(rule: &ExpireRule) -> Self {
        Self {
            agent: rule.agent.clone(),
            session: rule.session.clone(),
            after_ms: rule.after.map(millis),
        }
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
            keep_monthly: stored.keep_monthly,
            keep_yearly: stored.keep_yearly,
            keep_labels: stored
                .keep_labels
                .into_iter()
                .map(|rule| LabelRule::new(rule.key, rule.value))
                .collect(),
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
            keep_monthly: rules.keep_monthly,
            keep_yearly: rules.keep_yearly,
            keep_labels: rules
                .keep_labels
                .iter()
                .map(|rule| StoredLabelRule {
                    key: rule.key.clone(),
                    value: rule.value.clone(),
                })
                .collect(),
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
        let too_soon = |rule: &ExpireRule| {
            let after = rule.after;
            after.is_some_and(|after| after < self.grace.max(MIN_EXPIRY))
        };
        if self.expire.iter().any(too_soon) {
            return Err(Error::Invalid(
                "the time after which names expire is 0, or shorter than the grace period".into(),
            ));
        }
        let retention = self.retention.as_ref().map(StoredRetention::from);
        let expire: Vec<_> = self.expire.iter().map(StoredExpireRule::from).collect();
        let expire = if expire.is_empty() {
            serde_json::Value::Null
        } else {
            serde_json::to_value(expire).expect("names and numbers are JSON")
        };
        let stored = StoredPolicy {
            // Not shorter than it was asked for.
            grace_ms: millis(self.grace + Duration::from_nanos(999_999)),
            retention: serde_json::to_value(retention).expect("numbers are JSON"),
            expire,
        };
        let mut json = serde_json::to_vec_pretty(&stored).expect("numbers are JSON");
        json.push(b'\n');
        Ok(json)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl StoreRef {
    /// Reads the policy that this store has now.
    pub(crate) async fn policy(&self) -> Result<CurrentPolicy> {
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
        let expire = read.expire.ok_or_else(|| unknown_rules(version))?;
        Ok(CurrentPolicy {
            policy: Policy {
                grace: read.grace,
                retention,
                expire,
            },
            version: Some(version),
        })
    }

    /// Writes the next version of the policy. Returns the version.
    pub(crate) async fn set_policy(&self, policy: &Policy, expect: Expect) -> Result<Version> {
        policy.to_json()?;
        self.ensure_initialized().await?;
        let version = self.write_policy(policy, expect).await?;
        // Another version may be the newest already.
        self.read_into_cache().await?;
        Ok(version)
    }

    /// Writes the first policy of a store that is being made, as this process's options say.
    /// Another host may be first.
    pub(crate) async fn write_first_policy(&self) -> Result<()> {
        let StoreOptions {
            grace,
            retention,
            expire,
            ..
        } = &self.shared.options;
        let policy = Policy {
            grace: (*grace).min(MAX_GRACE),
            retention: retention.clone(),
            expire: expire.clone(),
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
        let compression = self.shared.options.compression;
        let encode = move || Ok(Encoder::encode(&json, compression));
        let (bytes, encoded) = spawn_cpu(0, encode).await?;
        commit.buffer(bytes);
        Ok(commit.finish(&encoded).await?.version)
    }

    /// Reads the policy unless what this process knows of it is younger than half the grace period.
    /// To be called before every change.
    pub(crate) async fn refresh_policy(&self) -> Result<()> {
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
    pub(crate) async fn prune_grace(&self) -> Result<Duration> {
        let cached = *self.shared.policy.prune();
        if let Some(cached) = cached
            && cached.read_at.elapsed() < cached.good_for
        {
            return Ok(cached.grace);
        }
        let read_at = Moment::now();
        let (current, grace) = self.read_prune_grace().await?;
        *self.shared.policy.prune() = Some(CachedPruneGrace {
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
        for (version, meta) in versions_in(page.entries)? {
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
        let Some(snapshot) = scope.load_at_most(&policy_name(), at, MAX_POLICY).await? else {
            return Ok(None);
        };
        let version = snapshot.info.version;
        let policy = ReadPolicy::parse(&snapshot.state, version, snapshot.info.created_at)?;
        Ok(Some((version, policy)))
    }

    /// The scope of the store's own names, which no agent can have.
    pub(crate) fn policy_scope(&self) -> ScopeRef {
        self.scope(&Name::reserved(), None)
    }
}

pub(crate) fn policy_name() -> Name {
    Name::new(POLICY_NAME).expect("a name")
}

pub(crate) fn unknown_rules(version: Version) -> Error {
    Error::unsupported(format!(
        "version {version} of the store's policy has retention rules that this version of Persist \
         does not know"
    ))
    .with_hint("use a newer version of Persist")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Store;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(work)
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let mut policy = Policy::default();
        let rules = Retention {
            keep_monthly: 12,
            keep_yearly: 3,
            keep_labels: vec![
                LabelRule::new("release", None),
                LabelRule::new("kind", Some("audit".into())),
            ],
            ..Retention::default()
        };
        let day = Duration::from_secs(24 * 60 * 60);
        let bot = Name::new("bot/1").expect("a name");
        let expire = vec![
            ExpireRule::new(None, None, Some(day)),
            ExpireRule::new(Some(bot.clone()), None, None),
            ExpireRule::new(Some(bot.clone()), Some(bot), Some(2 * day)),
        ];
        for (retention, expire) in [
            (None, Vec::new()),
            (Some(Retention::default()), Vec::new()),
            (Some(rules), expire),
        ] {
            policy.retention = retention;
            policy.expire = expire;
            let json = policy.to_json().expect("JSON");
            let read = ReadPolicy::parse(&json, 1, 0).expect("a policy");
            assert_eq!(read.grace, policy.grace);
            assert_eq!(read.retention, Some(policy.retention.clone()));
            assert_eq!(read.expire, Some(policy.expire.clone()));
        }
    }

    #[test]
    fn the_most_specific_rule_says_when_a_name_expires() {
        let name = |text: &str| Name::new(text).expect("a name");
        let hours = |hours: u64| Some(Duration::from_secs(hours * 60 * 60));
        let mut policy = Policy::default();
        let (bot, monday) = (name("bot"), name("monday"));
        policy.expire = vec![
            ExpireRule::new(Some(bot.clone()), Some(monday.clone()), hours(3)),
            ExpireRule::new(None, None, hours(1)),
            ExpireRule::new(Some(bot.clone()), None, hours(2)),
        ];
        assert_eq!(policy.expire_after(&name("other"), Some(&monday)), hours(1));
        assert_eq!(policy.expire_after(&bot, None), hours(2));
        assert_eq!(policy.expire_after(&bot, Some(&bot)), hours(2));
        assert_eq!(policy.expire_after(&bot, Some(&monday)), hours(3));
        policy.expire.truncate(1);
        assert_eq!(policy.expire_after(&bot, None), None);
        policy.expire[0].after = Some(Duration::ZERO);
        assert!(matches!(policy.to_json(), Err(Error::Invalid(_))));
        policy.expire[0].after = Some(policy.grace - Duration::from_secs(1));
        assert!(matches!(policy.to_json(), Err(Error::Invalid(_))));
    }

    #[test]
    fn a_policy_without_new_rules_is_what_an_older_build_reads() {
        let json = Policy::default().to_json().expect("JSON");
        let json = String::from_utf8(json).expect("text");
        for new in ["expire", "keep_monthly", "keep_yearly", "keep_labels"] {
            assert!(!json.contains(new), "{json}");
        }
    }

    #[test]
    fn rules_of_a_later_build_prune_nothing_and_keep_the_grace_period() {
        let json =
            br#"{"grace_ms": 5000, "retention": {"keep_last": 1, "keep_decades": 3}, "later": 1}"#;
        let read = ReadPolicy::parse(json, 1, 0).expect("a policy");
        assert_eq!(read.grace, Duration::from_secs(5));
        assert_eq!(read.retention, None);
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
