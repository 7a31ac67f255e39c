//! Values of a bucket as objects, which are read and written in pieces.

use std::collections::VecDeque;

use super::{Bucket, BucketError};
use crate::guest::limits::to_u32;
use crate::guest::{GuestReader, GuestWriter};
use crate::snapshot::{Info, SaveOptions};

type Result<T> = std::result::Result<T, BucketError>;

/// Names that one call of [`ObjectNames::next`] returns at most.
const MAX_NAMES: usize = 10_000;

impl Bucket {
    /// Opens the newest value of a key for reading in pieces; none if it has none.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn reader(&self, key: &str) -> Result<Option<GuestReader>> {
        let name = self.name_of(key)?;
        Ok(self.guest().reader(&name, None).await?)
    }

    /// Opens a writer of the next value of a key. Only
    /// [`GuestWriter::finish`](crate::guest::GuestWriter::finish) changes the value.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn writer(&self, key: &str) -> Result<GuestWriter> {
        let name = self.name_of(key)?;
        let options = SaveOptions::default();
        Ok(self.guest().writer(&name, options).await?)
    }

    /// Returns information about the value of a key; none if it has none.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn info(&self, key: &str) -> Result<Option<Info>> {
        let name = self.name_of(key)?;
        let info = self.guest().stat(&name, None).await?;
        Ok(info.filter(|info| !info.deleted))
    }

    /// Copies the value of a key to a key of the same bucket or of another, without its labels.
    /// Returns false if it has none.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn copy(&self, key: &str, to: &Self, to_key: &str) -> Result<bool> {
        let Some(mut reader) = self.reader(key).await? else {
            return Ok(false);
        };
        let mut writer = to.writer(to_key).await?;
        let piece = self.guest().limits().chunk.min(to.guest().limits().chunk);
        let mut offset = 0;
        loop {
            let piece = reader.read(offset, to_u32(piece)).await?;
            if piece.is_empty() {
                writer.finish().await?;
                return Ok(true);
            }
            writer.write(&piece).await?;
            offset += piece.len() as u64;
        }
    }

    /// Moves the value of a key as [`copy`](Self::copy) copies it. If deleting the first one
    /// fails, both have the value.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn move_to(&self, key: &str, to: &Self, to_key: &str) -> Result<bool> {
        if self.is_same(key, to, to_key)? {
            return Ok(self.info(key).await?.is_some());
        }
        let copied = self.copy(key, to, to_key).await?;
        if copied {
            self.delete(key).await?;
        }
        Ok(copied)
    }

    /// Deletes all values, one after another. An error leaves those before it deleted.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn clear(&self) -> Result<()> {
        let mut cursor = None;
        loop {
            let page = self.keys(cursor.as_deref()).await?;
            self.delete_many(page.keys).await?;
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Returns the keys that have a value, to be read in pieces.
    ///
    /// # Errors
    /// [`BucketError::AccessDenied`] if the guest may not list.
    pub fn object_names(&self) -> Result<ObjectNames> {
        if !self.guest().rights.list {
            return Err(BucketError::AccessDenied);
        }
        Ok(ObjectNames {
            bucket: self.clone(),
            found: VecDeque::new(),
            place: Place::Start,
        })
    }

    /// Returns true if two keys are one name of one scope.
    fn is_same(&self, key: &str, to: &Self, to_key: &str) -> Result<bool> {
        let same_name = self.name_of(key)? == to.name_of(to_key)?;
        let scopes = [self, to].map(|bucket| {
            let scope = &bucket.guest().scope;
            (scope.store_id(), scope.agent(), scope.session())
        });
        Ok(same_name && scopes[0] == scopes[1])
    }
}

/// List of the keys of a bucket that have a value, read in pieces.
#[derive(Clone, Debug)]
pub struct ObjectNames {
    bucket: Bucket,
    found: VecDeque<String>,
    place: Place,
}

/// Place of the next page of a list.
#[derive(Clone, Debug)]
enum Place {
    Start,
    After(String),
    End,
}

impl ObjectNames {
    /// Returns up to `len` further keys, and true if there are no more. May return fewer keys than
    /// `len` before the end.
    ///
    /// # Errors
    /// [`BucketError`].
    pub async fn next(&mut self, len: u64) -> Result<(Vec<String>, bool)> {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(MAX_NAMES);
        // One more than asked for, so that the end is known.
        while self.found.len() <= len {
            let cursor = match &self.place {
                Place::Start => None,
                Place::After(key) => Some(key.as_str()),
                Place::End => break,
            };
            let page = self.bucket.keys(cursor).await?;
            self.found.extend(page.keys);
            self.place = page.next.map_or(Place::End, Place::After);
        }
        let count = len.min(self.found.len());
        let keys = self.found.drain(..count).collect();
        Ok((keys, self.found.is_empty()))
    }
}
