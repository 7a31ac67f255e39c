//! Durable state of ZeroClaw's plugins, as versions in a store of Persist.

use async_trait::async_trait;
use persist_host::guest::{Guest, GuestError, Ledger, Limits};
use persist_host::snapshot::{Expect, SaveOptions, Store};
use zeroclaw_plugins::PluginCapability;
use zeroclaw_plugins::instance::PluginInstanceScope;
use zeroclaw_plugins::services::{
    PluginStateBackend, PluginStateError, PluginStateKey, PluginStateValue,
};

type Result<T> = std::result::Result<T, PluginStateError>;

/// State of all plugins of a host. Each admitted instance has a scope of its own: the package is
/// the agent, and capability and binding are the session. A key is a name, and a revision is a
/// version.
pub struct PersistState {
    store: Store,
    limits: Limits,
    ledger: Ledger,
}

impl PersistState {
    /// Keeps state in `store`. The limits hold for each instance.
    pub fn new(store: Store, limits: Limits) -> Self {
        let ledger = Ledger::new(&limits);
        Self {
            store,
            limits,
            ledger,
        }
    }

    /// Returns the view of the store that an instance has.
    fn guest(&self, instance: &PluginInstanceScope) -> Result<Guest> {
        let id = instance.id();
        let capability = match id.capability() {
            PluginCapability::Tool => "tool",
            PluginCapability::Channel => "channel",
            PluginCapability::Memory => "memory",
            PluginCapability::Observer => "observer",
            PluginCapability::Skill => "skill",
        };
        let session = format!("{capability}.{}", id.binding());
        let scope = self.store.scope(id.package(), Some(&session));
        let scope = scope.map_err(|error| convert(error.into()))?;
        let guest = Guest::builder(scope).limits(self.limits.clone());
        Ok(guest.ledger(&self.ledger).build())
    }
}

#[async_trait]
impl PluginStateBackend for PersistState {
    async fn get(
        &self,
        instance: &PluginInstanceScope,
        key: &PluginStateKey,
    ) -> Result<Option<PluginStateValue>> {
        let guest = self.guest(instance)?;
        let found = guest.load(key.as_str(), None).await.map_err(convert)?;
        Ok(found.map(|found| PluginStateValue::new(found.info.version, found.state.into())))
    }

    async fn put(
        &self,
        instance: &PluginInstanceScope,
        key: &PluginStateKey,
        value: &[u8],
        expected_revision: Option<u64>,
    ) -> Result<u64> {
        let guest = self.guest(instance)?;
        let key = key.as_str();
        let expect = match expected_revision {
            None => Expect::Absent,
            Some(revision) => {
                // A tombstone has a version too, but is no value that a plugin could replace.
                if !is_value(&guest, key, revision).await? {
                    return Err(PluginStateError::Conflict);
                }
                Expect::Version(revision)
            }
        };
        let options = SaveOptions::expecting(expect);
        let saved = guest.save(key, value.to_vec().into(), options).await;
        Ok(saved.map_err(convert)?.version)
    }

    async fn delete(
        &self,
        instance: &PluginInstanceScope,
        key: &PluginStateKey,
        expected_revision: u64,
    ) -> Result<()> {
        let guest = self.guest(instance)?;
        let key = key.as_str();
        let expect = Expect::Version(expected_revision);
        match guest.delete(key, expect).await.map_err(convert) {
            Err(PluginStateError::Conflict) => {
                // To a plugin, a key that was deleted is not there.
                let head = guest.stat(key, None).await.map_err(convert)?;
                match head {
                    Some(head) if !head.deleted => Err(PluginStateError::Conflict),
                    _ => Err(PluginStateError::NotFound),
                }
            }
            outcome => outcome.map(drop),
        }
    }
}

/// Returns true if a version exists and is not a tombstone.
async fn is_value(guest: &Guest, key: &str, version: u64) -> Result<bool> {
    match guest.stat(key, Some(version)).await.map_err(convert) {
        Ok(info) => Ok(info.is_some_and(|info| !info.deleted)),
        Err(PluginStateError::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Converts an error. Plugins get no text with it, so the log has the rest.
fn convert(error: GuestError) -> PluginStateError {
    match error {
        GuestError::Conflict { .. } => PluginStateError::Conflict,
        GuestError::NotFound => PluginStateError::NotFound,
        GuestError::Denied { .. } => PluginStateError::AccessDenied,
        GuestError::QuotaExceeded { .. } | GuestError::TooLarge { .. } => {
            PluginStateError::QuotaExceeded
        }
        GuestError::Invalid(_) => PluginStateError::InvalidKey,
        // Also an unknown outcome: the plugin reads the key before it tries again.
        error => {
            tracing::warn!(%error, "the state of a plugin is unavailable");
            PluginStateError::Unavailable
        }
    }
}
