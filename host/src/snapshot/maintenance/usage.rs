//! Storage usage of a scope.

#[cfg(feature = "guest")]
use std::sync::Arc;

#[cfg(feature = "guest")]
use crate::snapshot::{Name, Retention, name};
use crate::snapshot::{Result, Scope, layout};
use crate::storage::RecursiveList;

/// Objects that are listed together.
const PAGE: usize = 1000;

/// Storage usage of the versions of a scope, tombstones too. Pins, which are empty, are not
/// counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Names that have at least one version.
    pub names: u64,
    /// Versions of all of them.
    pub versions: u64,
    /// Bytes of their files.
    pub bytes: u64,
}

impl Scope {
    /// Counts what this scope takes of its storage: one list for each thousand versions, of all
    /// names together. What is saved meanwhile may be counted or not.
    ///
    /// # Errors
    /// [`Error::Storage`](crate::snapshot::Error::Storage).
    pub async fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        // The name of the version before: those of one name stand together.
        let mut last: Option<String> = None;
        self.each_version(|name, size| {
            if last.as_deref() != Some(name) {
                usage.names += 1;
                last = Some(name.to_owned());
            }
            usage.versions += 1;
            usage.bytes += size;
        })
        .await?;
        Ok(usage)
    }

    /// Lists the names starting with `prefix` that have more than `count` versions, as cheaply as
    /// [`Scope::usage`].
    #[cfg(feature = "guest")]
    pub(crate) async fn names_with_more_versions_than(
        &self,
        count: usize,
        prefix: &str,
    ) -> Result<Vec<Name>> {
        let prefix = name::encode(prefix);
        let mut found = Vec::new();
        let mut last = String::new();
        let mut versions = 0;
        self.each_version(|name, _| {
            if last != name {
                last = name.to_owned();
                versions = 0;
            }
            versions += 1;
            if versions == count + 1 && name.starts_with(&prefix) {
                found.extend(Name::from_encoded(name));
            }
        })
        .await?;
        Ok(found)
    }

    /// Returns the rules by which the store's policy removes old versions; none where it keeps
    /// every version.
    #[cfg(feature = "guest")]
    pub(crate) async fn policy_retention(&self) -> Result<Option<Retention>> {
        Ok(self.inner.store.policy().await?.policy.retention)
    }

    /// Calls `see` with the encoded name and the size of each version.
    async fn each_version(&self, mut see: impl FnMut(&str, u64)) -> Result<()> {
        let dir = self.inner.dir();
        let mut token = None;
        loop {
            let list = RecursiveList {
                dir: &dir,
                token,
                limit: PAGE,
                meta: true,
            };
            let page = self.inner.storage().list_recursive(&list).await?;
            for object in &page.objects {
                if let Some(name) = layout::name_of_version(&object.name) {
                    see(name, object.meta.map_or(0, |meta| meta.size));
                }
            }
            token = page.next;
            if token.is_none() {
                return Ok(());
            }
        }
    }

    /// Which store this is a scope of: the same for all that share one, as long as one of them
    /// lives.
    #[cfg(feature = "guest")]
    pub(crate) fn store_id(&self) -> usize {
        Arc::as_ptr(&self.inner.store.shared).addr()
    }
}
