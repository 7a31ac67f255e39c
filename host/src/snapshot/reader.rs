//! One version, read in any order.

use std::ops::Range;

use bytes::Bytes;

use super::commit::Change;
use super::format::{BLOCK, Encoded, Footer, Trailer, copy_of};
use super::{Error, Info, Name, Result, Scope, Snapshot, Version};
use crate::storage::{self, Key, ReadRange, Storage};

/// What is read from the end of an object at first: a small object whole, else its trailer.
const SUFFIX: u64 = 256 * 1024;

/// One version of a name. It stays that version, whatever is saved meanwhile.
///
/// Memory: one block of 1 MiB, its stored bytes, and the first 256 KiB that were read.
#[derive(Debug)]
pub struct Reader {
    object: Object,
    info: Info,
    /// The block that was read last.
    block: Option<(usize, Bytes)>,
}

impl Reader {
    pub(super) fn new(object: Object, name: &Name, version: Version) -> Self {
        Self {
            info: object.trailer.info(name.as_str(), version),
            object,
            block: None,
        }
    }

    /// What is known of it.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// At most `len` verified bytes of the state from `offset`: fewer is not the end, none is.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where what is stored is not what was saved; [`Error::NotFound`] where the version was
    /// pruned meanwhile; [`Error::Storage`].
    pub async fn read(&mut self, offset: u64, len: usize) -> Result<Bytes> {
        if offset >= self.info.size || len == 0 {
            return Ok(Bytes::new());
        }
        let block = (offset / BLOCK as u64) as usize;
        let state = match &self.block {
            Some((at, state)) if *at == block => state.clone(),
            _ => {
                let state = self.object.block(block).await?;
                self.block = Some((block, state.clone()));
                state
            }
        };
        let start = (offset % BLOCK as u64) as usize;
        Ok(state.slice(start..state.len().min(start.saturating_add(len))))
    }
}

/// One stored version whose trailer is verified.
#[derive(Debug)]
pub(crate) struct Object {
    scope: Scope,
    key: Key,
    pub(crate) trailer: Trailer,
    /// The end of the object, as far as it was read already, and where that begins.
    suffix: (u64, Bytes),
}

impl Object {
    /// Reads the trailer: one request, or two where the index is long.
    pub(crate) async fn open(scope: &Scope, key: Key) -> Result<Self> {
        let part = scope
            .storage()
            .read(&key, ReadRange::Suffix(SUFFIX))
            .await?;
        let about = |error: Error| at(&key, error);
        let footer = Footer::parse(&part.bytes, part.size).map_err(about)?;
        let (start, bytes) = match footer.member < part.start {
            false => (part.start, part.bytes),
            true => {
                let rest = footer.member..part.start;
                let head = read_exactly(scope.storage(), &key, rest.clone()).await?;
                (rest.start, [head, part.bytes].concat().into())
            }
        };
        let trailer = &bytes[(footer.member - start) as usize..];
        let trailer = Trailer::parse(trailer, footer).map_err(about)?;
        Ok(Self {
            scope: scope.clone(),
            key,
            trailer,
            suffix: (start, bytes),
        })
    }

    /// The whole state, verified.
    pub(crate) async fn load(self, name: &Name, version: Version) -> Result<Snapshot> {
        let info = self.trailer.info(name.as_str(), version);
        let member = self.bytes(0..self.trailer.footer.member).await?;
        let (key, trailer) = (self.key, self.trailer);
        let state = compute(member.len(), move || trailer.read_state(&member)).await;
        Ok(Snapshot {
            info,
            state: state.map_err(|error| at(&key, error))?.into(),
        })
    }

    /// Puts the state member into another change, piece by piece, verified.
    pub(crate) async fn copy(&self, change: &mut Change) -> Result<Encoded> {
        let blocks = self.trailer.stored(0..self.trailer.blocks());
        let head = self.bytes(0..blocks.start).await?;
        let tail = self.bytes(blocks.end..self.trailer.footer.member).await?;
        let about = |error| at(&self.key, error);
        self.trailer.verify_frame(&head, &tail).map_err(about)?;
        change.send(vec![head]).await?;
        for block in 0..self.trailer.blocks() {
            let stored = self.bytes(self.trailer.stored(block..block + 1)).await?;
            self.trailer.verify_block(block, &stored).map_err(about)?;
            change.send(vec![stored]).await?;
        }
        change.keep(vec![tail]);
        Ok(copy_of(&self.trailer))
    }

    async fn block(&self, block: usize) -> Result<Bytes> {
        let stored = self.bytes(self.trailer.stored(block..block + 1)).await?;
        let mut state = Vec::new();
        self.trailer
            .read_block(block, &stored, &mut state)
            .map_err(|error| at(&self.key, error))?;
        Ok(state.into())
    }

    /// Stored bytes, from what was read already where it has them.
    async fn bytes(&self, range: Range<u64>) -> Result<Bytes> {
        let (start, suffix) = &self.suffix;
        match range.start.checked_sub(*start) {
            Some(from) => Ok(suffix.slice(from as usize..(range.end - start) as usize)),
            None if range.end > *start => {
                let head =
                    read_exactly(self.scope.storage(), &self.key, range.start..*start).await?;
                let tail = &suffix[..(range.end - start) as usize];
                Ok([&head, tail].concat().into())
            }
            None => read_exactly(self.scope.storage(), &self.key, range).await,
        }
    }
}

async fn read_exactly(storage: &dyn Storage, key: &Key, range: Range<u64>) -> Result<Bytes> {
    let len = range.end - range.start;
    let part = storage.read(key, ReadRange::Bounded(range)).await?;
    match part.bytes.len() as u64 == len {
        true => Ok(part.bytes),
        false => Err(at(
            key,
            Error::corrupt("it became shorter while it was read"),
        )),
    }
}

/// Says of which object an error is.
fn at(key: &Key, error: Error) -> Error {
    match error {
        Error::Corrupt { what, .. } => Error::Corrupt {
            what,
            object: Some(key.to_string()),
        },
        error => error,
    }
}

/// Below this, a computation is done before another thread has heard of it.
const SMALL: usize = 64 * 1024;

/// Runs what costs time by the byte where it does not keep others waiting.
pub(crate) async fn compute<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if bytes < SMALL {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(storage::Error::new(
                storage::ErrorKind::Unavailable,
                "the runtime shut down during a computation",
            )
            .with_source(error)
            .into()),
        },
    }
}
