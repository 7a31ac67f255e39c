//! One version, read in any order.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::ahead::{GROUP, GROUPS, ReadAhead};
use super::object::Object;
#[cfg(doc)]
use crate::snapshot::Error;
use crate::snapshot::format::{BLOCK, Sums};
use crate::snapshot::offload::spawn_cpu;
use crate::snapshot::{Info, Result, Version};

/// One version of a name. It stays that version, whatever is saved meanwhile.
///
/// Memory: one block of 1 MiB and its stored bytes, and 256 KiB. Where it is read from front to
/// back: four blocks, and the stored bytes of twelve, as those that follow are fetched meanwhile.
#[derive(Debug)]
pub struct Reader {
    object: Arc<Object>,
    info: Info,
    /// The blocks that were read last, and their state.
    blocks: Range<usize>,
    state: Bytes,
    /// Groups on their way, at most, and those that are.
    ahead: usize,
    fetching: Option<ReadAhead>,
    /// Stored bytes of all blocks that were read.
    fetched: u64,
    /// The sums of the state from its beginning, and the block that goes on from there.
    sums: (Sums, usize),
}

impl Reader {
    pub(crate) fn new(object: Object, name: &str, version: Version) -> Self {
        Self {
            info: object.trailer.info(name, version),
            object: Arc::new(object),
            blocks: 0..0,
            state: Bytes::new(),
            ahead: GROUPS,
            fetching: None,
            fetched: 0,
            sums: (Sums::default(), 0),
        }
    }

    /// Fetches nothing before it is asked for.
    #[cfg(feature = "guest")]
    pub(crate) fn without_read_ahead(mut self) -> Self {
        self.ahead = 0;
        self
    }

    /// Returns whether the byte at `offset` can be read without asking the storage.
    #[cfg(feature = "guest")]
    pub(crate) fn holds(&self, offset: u64) -> bool {
        offset >= self.info.size || self.blocks.contains(&((offset / BLOCK as u64) as usize))
    }

    /// Stored bytes that this reader has asked the storage for so far, its opening apart.
    #[cfg(feature = "guest")]
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched
    }

    /// Returns the information about the version.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Returns at most `len` verified bytes of the state from `offset`: fewer is not the end, none
    /// is.
    ///
    /// A range is as sound as its blocks. A reader that goes from the beginning to the end has
    /// verified the whole file when it gets the last piece: its header, its end, and the SHA-256 of
    /// the state.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where what is stored is not what was saved; [`Error::NotFound`] where the
    /// version was pruned meanwhile; [`Error::Storage`].
    pub async fn read(&mut self, offset: u64, len: usize) -> Result<Bytes> {
        if self.info.size == 0 {
            self.object.frame().await?;
        }
        if offset >= self.info.size || len == 0 {
            return Ok(Bytes::new());
        }
        let block = (offset / BLOCK as u64) as usize;
        if !self.blocks.contains(&block) {
            let (blocks, framed) = self.fetch(block).await?;
            // Not beside those that follow.
            self.blocks = blocks.start..blocks.start;
            self.state = Bytes::new();
            let stored = self.object.trailer.stored(blocks.clone());
            self.fetched += stored.end - stored.start;
            let state = Object::decode(&self.object, blocks.clone(), framed).await?;
            self.sum(&blocks, &state).await?;
            self.state = state;
            self.blocks = blocks;
        }
        let start = (offset - (self.blocks.start * BLOCK) as u64) as usize;
        let end = self.state.len().min(start.saturating_add(len));
        Ok(self.state.slice(start..end))
    }

    /// Fetches a block, and those that follow if the last read ended before it: who goes on will
    /// want them, too.
    async fn fetch(&mut self, block: usize) -> Result<(Range<usize>, Bytes)> {
        // If this fails or is cancelled, the next read begins anew.
        let ahead = self.fetching.take();
        let goes_on = block > 0 && block == self.blocks.end;
        if goes_on && self.ahead > 0 {
            let ahead = ahead.filter(|ahead| ahead.position() == block);
            let mut ahead =
                ahead.unwrap_or_else(|| ReadAhead::new(&self.object, block, self.ahead));
            if let Some(group) = ahead.next().await? {
                self.fetching = Some(ahead);
                return Ok(group);
            }
        }
        let len = if goes_on { GROUP } else { 1 };
        let blocks = block..self.object.trailer.blocks().min(block + len);
        let bytes = self.object.fetch(&blocks).await?;
        Ok((blocks, bytes))
    }

    /// Adds blocks to the sums where they go on from what was read before, and compares the sums at
    /// the end.
    async fn sum(&mut self, blocks: &Range<usize>, state: &Bytes) -> Result<()> {
        let (sums, next) = &self.sums;
        if blocks.start != *next {
            return Ok(());
        }
        let before = sums.clone();
        let piece = state.clone();
        let sums = spawn_cpu(piece.len() as u64, move || Ok(before.and(&piece))).await?;
        if blocks.end == self.object.trailer.blocks() {
            let verified = sums.clone().verify(&self.object.trailer.metadata);
            verified.map_err(|error| error.at(&self.object.key))?;
        }
        self.sums = (sums, blocks.end);
        Ok(())
    }
}

/// A version of which every byte was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Information about the version.
    pub info: Info,
}
