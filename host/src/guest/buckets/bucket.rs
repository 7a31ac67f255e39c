//! Calls on one bucket.

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{BucketError, key};
use crate::guest::rights::Right;
use crate::guest::{Guest, GuestError};
use crate::snapshot::{self, Expect, Name, SaveOptions, stat_cost};

type Result<T> = std::result::Result<T, BucketError>;

/// Versions that a list of keys looks at together.
const LOOKED_AT_TOGETHER: usize = 8;

/// A bucket that a guest opened.
#[derive(Clone, Debug)]
pub struct Bucket {
    name: String,
    guest: Guest,
    prefix: String,
}

/// A page of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPage {
    /// Keys that have a value. Empty only if there are no more.
    pub keys: Vec<String>,
    /// Cursor of the next page; none if there are no more keys.
    pub next: Option<String>,
}

impl Bucket {
    pub(super) fn new(name: impl Into<String>, guest: Guest, prefix: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            guest,
            prefix: prefix.into(),
        }
    }

    /// Name of the bucket.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The guest whose scope, rights and limits the bucket has.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Returns the value of a key; none if it has none.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let name = self.name_of(key)?;
        let snapshot = self.guest.load(&name, None).await;
        let snapshot = snapshot.map_err(|error| self.error(error))?;
        Ok(snapshot.map(|snapshot| snapshot.state))
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn set(&self, key: &str, value: Bytes) -> Result<()> {
        let name = self.name_of(key)?;
        let saved = self.guest.save(&name, value, SaveOptions::default()).await;
        saved.map(drop).map_err(|error| self.error(error))
    }

    /// Deletes the value of a key. A key without a value stays without.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn delete(&self, key: &str) -> Result<()> {
        let name = self.name_of(key)?;
        match self.guest.delete(&name, Expect::Any).await {
            Ok(_) | Err(GuestError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns true if a key has a value.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn exists(&self, key: &str) -> Result<bool> {
        let name = self.name_of(key)?;
        let info = self.guest.stat(&name, None).await?;
        Ok(info.is_some_and(|info| !info.deleted))
    }

    /// Returns a page of the keys that have a value, from the start or from a cursor that an
    /// earlier page returned. Cursors stay good: also in other runs, and after changes.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn keys(&self, cursor: Option<&str>) -> Result<KeyPage> {
        let mut after = cursor.map(|cursor| self.place(cursor)).transpose()?;
        loop {
            let names = self.guest.names(&self.prefix, after.as_deref(), u32::MAX);
            let names = names.await?;
            let Some(last) = names.last() else {
                return Ok(KeyPage::default());
            };
            let last = last.to_string();
            let keys = self.with_values(names).await?;
            // A page without keys would look like the end.
            if !keys.is_empty() {
                let next = last.strip_prefix(&self.prefix).map(Into::into);
                return Ok(KeyPage { keys, next });
            }
            after = Some(last);
        }
    }

    /// Returns all keys that have a value.
    ///
    /// # Errors
    /// [`BucketError::Other`] if they have more bytes than the limit `inline-size`;
    /// [`BucketError`].
    pub async fn all_keys(&self) -> Result<Vec<String>> {
        let max = self.guest.limits().inline_size;
        let mut all = Vec::new();
        let mut bytes = 0;
        let mut cursor = None;
        loop {
            let page = self.keys(cursor.as_deref()).await?;
            bytes += page.keys.iter().map(|key| key.len() as u64).sum::<u64>();
            if bytes > max {
                return Err(BucketError::other(format!(
                    "too large: the keys have more than {max} bytes (limit `inline-size`)"
                )));
            }
            all.extend(page.keys);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// Returns the values of several keys, in their order.
    ///
    /// # Errors
    /// [`BucketError::Other`] if the values have more bytes than the limit `inline-size`;
    /// [`BucketError`].
    pub async fn get_many(&self, keys: Vec<String>) -> Result<Vec<(String, Option<Bytes>)>> {
        let max = self.guest.limits().inline_size;
        let mut bytes = 0;
        let mut found = Vec::new();
        // One after another: the host holds the values until the guest has all of them.
        for key in keys {
            let value = self.get(&key).await?;
            bytes += value.as_ref().map_or(0, |value| value.len() as u64);
            if bytes > max {
                return Err(BucketError::other(format!(
                    "too large: the values have more than {max} bytes (limit `inline-size`); get \
                     fewer keys"
                )));
            }
            found.push((key, value));
        }
        Ok(found)
    }

    /// Sets several values, one after another. An error leaves those before it set.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn set_many(&self, values: Vec<(String, Bytes)>) -> Result<()> {
        for (key, value) in values {
            self.set(&key, value).await?;
        }
        Ok(())
    }

    /// Deletes several values, one after another. An error leaves those before it deleted.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn delete_many(&self, keys: Vec<String>) -> Result<()> {
        for key in keys {
            self.delete(&key).await?;
        }
        Ok(())
    }

    /// Returns the name that stands for a key.
    pub(super) fn name_of(&self, key: &str) -> Result<String> {
        key::name_of(&self.prefix, key)
    }

    /// Converts an error about a value.
    pub(super) fn error(&self, error: GuestError) -> BucketError {
        match error {
            GuestError::TooLarge { size } => {
                let max = self.guest.limits().inline_size;
                BucketError::other(format!(
                    "too large: the value has {size} bytes, and the limit `inline-size` is {max}"
                ))
            }
            error => error.into(),
        }
    }

    /// Returns the name that a cursor stands for.
    fn place(&self, cursor: &str) -> Result<String> {
        let invalid = || BucketError::other("invalid cursor; list from the start");
        if cursor.len() > snapshot::MAX_ENCODED {
            return Err(invalid());
        }
        let name = format!("{}{cursor}", self.prefix);
        Name::new(name.clone()).map_err(|_| invalid())?;
        Ok(name)
    }

    /// Returns the keys of names whose newest version is not a tombstone. The guest was allowed to
    /// list the names.
    async fn with_values(&self, names: Vec<Name>) -> Result<Vec<String>> {
        let guest = &self.guest;
        let _call = guest.allowance.call().await?;
        let keys = names.into_iter().filter_map(|name| {
            let key = key::key_of(name.as_str().strip_prefix(&self.prefix)?)?;
            Some((name, key))
        });
        let looked = stream::iter(keys).map(|(name, key)| async move {
            guest.rights.check(Right::List, name.as_str())?;
            guest.allowance.read()?;
            match guest.scope.stat(name.as_str(), None).await {
                Ok(Some(info)) => {
                    guest.allowance.has_read(0, stat_cost(&info));
                    Ok((!info.deleted).then_some(key))
                }
                Ok(None) => Ok(None),
                // The key has a value. An error for all keys would hide the others.
                Err(snapshot::Error::Corrupt { .. }) => Ok(Some(key)),
                Err(error) => Err(GuestError::from(error)),
            }
        });
        let looked = looked.buffered(LOOKED_AT_TOGETHER).try_collect();
        let looked: Vec<_> = guest.allowance.report(looked.await)?;
        Ok(looked.into_iter().flatten().collect())
    }
}
