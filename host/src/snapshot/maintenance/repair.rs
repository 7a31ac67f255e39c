//! Repairs of single findings of a check. Each looks again before it changes anything: another
//! process may have repaired or saved meanwhile.

use crate::snapshot::shared::{ScopeRef, check};
#[cfg(doc)]
use crate::snapshot::{Error, FindingKind};
use crate::snapshot::{Name, Result, Scope, Store, Version, layout};
use crate::storage::{ErrorKind, Key, ReadRange};

/// Address that the file of a version was saved at. A file may say anything of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedAs {
    /// The agent.
    pub agent: String,
    /// The session; none for the agent's own names.
    pub session: Option<String>,
    /// The name.
    pub name: String,
    /// The version.
    pub version: Version,
    /// True for a tombstone, which holds no state.
    pub deleted: bool,
}

impl Scope {
    /// Returns the address that the file at the key of a version was saved at: another one is that
    /// of a [`FindingKind::Misplaced`]. With `read_data`, verifies every byte of the file.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such version; [`Error::Corrupt`]; [`Error::Storage`].
    pub async fn saved_as(&self, name: &str, version: Version, read_data: bool) -> Result<SavedAs> {
        let name = Name::new(name)?;
        let object = match self.inner.object_of_any(&name, version).await {
            Err(error) if error.is_missing_object() => {
                return Err(self.inner.missing(&name, Some(version)));
            }
            object => object?,
        };
        let metadata = &object.trailer.metadata;
        let saved_as = SavedAs {
            agent: metadata.agent.clone(),
            session: metadata.session.clone(),
            name: metadata.name.clone(),
            version: metadata.version,
            deleted: object.trailer.is_tombstone(),
        };
        if read_data {
            object.verify(&name, version).await?;
        }
        Ok(saved_as)
    }
}

impl Store {
    /// Removes what lies at the key of a [`FindingKind::InTheWay`] and is no file: a link, a named
    /// pipe or an empty directory. Returns false where nothing like that lies there, as in a
    /// bucket.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the store is of a later format; [`Error::Storage`].
    pub async fn remove_obstacle(&self, key: &str) -> Result<bool> {
        let storage = self.inner.storage();
        check(storage).await?;
        Ok(storage.remove_obstacle(&Key::new(key)?).await?)
    }

    /// Returns true where something lies at a key that [`Store::remove_obstacle`] removes.
    ///
    /// # Errors
    /// Errors of [`Store::remove_obstacle`].
    pub async fn has_obstacle(&self, key: &str) -> Result<bool> {
        let storage = self.inner.storage();
        Ok(storage.has_obstacle(&Key::new(key)?).await?)
    }

    /// Sets the permissions of a file or directory that this account owns and may not use, the
    /// subject of a [`FindingKind::Denied`]. Returns false where permissions are not the reason, or
    /// the storage has none.
    ///
    /// # Errors
    /// Errors of [`Store::remove_obstacle`].
    pub async fn restore_access(&self, key: &str) -> Result<bool> {
        let storage = self.inner.storage();
        check(storage).await?;
        Ok(storage.restore_access(&Key::new(key)?).await?)
    }

    /// Removes an object that Persist did not create, the subject of a [`FindingKind::Foreign`].
    /// Returns false for a directory, and for every key that a version, a pin or the store itself
    /// may have.
    ///
    /// # Errors
    /// Errors of [`Store::remove_obstacle`].
    pub async fn remove_foreign(&self, key: &str) -> Result<bool> {
        let storage = self.inner.storage();
        check(storage).await?;
        let key = Key::new(key)?;
        if layout::is_reserved(&key) {
            return Ok(false);
        }
        match storage.read(&key, ReadRange::Suffix(1)).await {
            Ok(_) => {
                storage.delete(&key).await?;
                Ok(true)
            }
            // Removed by another process, or a directory, which is no object.
            Err(error) if [ErrorKind::NotFound, ErrorKind::Unsupported].contains(&error.kind()) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes the pin at the key of a [`FindingKind::DanglingPin`], unless its version exists by
    /// now. Returns false where it does, or where the key is not that of a pin.
    ///
    /// # Errors
    /// Errors of [`Store::remove_obstacle`].
    pub async fn remove_dangling_pin(&self, key: &str) -> Result<bool> {
        let storage = self.inner.storage();
        check(storage).await?;
        let Some((scope, name, version)) = self.pin_of(key) else {
            return Ok(false);
        };
        let version_key = scope.key(&name, version)?;
        match storage.read(&version_key, ReadRange::Suffix(1)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                storage.delete(&scope.pin_key(&name, version)?).await?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The version that the pin at a key protects.
    fn pin_of(&self, key: &str) -> Option<(ScopeRef, Name, Version)> {
        let mut segments = key.split('/');
        let agent = Name::from_encoded(segments.next()?)?;
        let session = match segments.next()? {
            layout::NO_SESSION => None,
            session => Some(Name::from_encoded(session)?),
        };
        let name = Name::from_encoded(segments.next()?)?;
        let version = layout::parse_pin(segments.next()?)?;
        if segments.next().is_some() {
            return None;
        }
        Some((self.inner.scope(&agent, session), name, version))
    }
}
