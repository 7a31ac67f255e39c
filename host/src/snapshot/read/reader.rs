//! One version, read in any order.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::ahead::{GROUP, ReadAhead};
use crate::snapshot::format::{BLOCK, Decoder, Footer, Metadata, Sums, Trailer};
use crate::snapshot::offload::spawn_cpu;
use crate::snapshot::shared::ScopeRef;
use crate::snapshot::{Error, Info, MAX_ENCODED, Name, Result, Snapshot, Version, name};
use crate::storage::{ErrorKind, Key, ReadRange, Storage};

/// Number of bytes that are read from the end of an object at first: a small object whole, else its
/// trailer.
const SUFFIX: u64 = 256 * 1024;

/// Stored bytes that are read of a version to tell what is known of it.
#[cfg(feature = "guest")]
pub(crate) fn stat_cost(info: &Info) -> u64 {
    info.stored_size.min(SUFFIX)
}

/// Groups of blocks that are on their way while a reader goes from front to back, and while a whole
/// state is loaded.
const AHEAD_OF_READER: usize = 2;
const AHEAD_OF_LOAD: usize = 8;

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
            ahead: AHEAD_OF_READER,
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

/// One stored version whose trailer is verified.
#[derive(Debug)]
pub(crate) struct Object {
    storage: Arc<dyn Storage>,
    key: Key,
    pub(crate) trailer: Trailer,
    /// The end of the object, as far as it was read already, and where that begins.
    suffix: (u64, Bytes),
}

impl Object {
    /// Reads the trailer: one request, or two where the index is long.
    pub(crate) async fn open(storage: &Arc<dyn Storage>, key: &Key) -> Result<Self> {
        Self::find(storage, key).await?.ok_or_else(|| {
            let what =
                "it does not end with a footer: it is truncated, or was not written by Persist";
            Error::corrupt(what).at(key)
        })
    }

    /// Reads the trailer: one request, or two where the index is long. Returns `None` if the object
    /// has no trailer at all.
    pub(crate) async fn find(storage: &Arc<dyn Storage>, key: &Key) -> Result<Option<Self>> {
        let part = storage.read(key, ReadRange::Suffix(SUFFIX)).await?;
        let about = |error: Error| error.at(key);
        let Some(footer) = Footer::find(&part.bytes) else {
            return Ok(None);
        };
        let footer = footer.check(part.size).map_err(about)?;
        let (start, bytes) = if footer.member >= part.start {
            (part.start, part.bytes)
        } else {
            let rest = footer.member..part.start;
            let head = read_exactly(&**storage, key, rest.clone()).await?;
            (rest.start, [head, part.bytes].concat().into())
        };
        let trailer = &bytes[(footer.member - start) as usize..];
        let trailer = Trailer::parse(trailer, footer).map_err(about)?;
        Ok(Some(Self {
            storage: Arc::clone(storage),
            key: key.clone(),
            trailer,
            suffix: (start, bytes),
        }))
    }

    /// The whole state, verified.
    pub(crate) async fn load(self, name: &Name, version: Version) -> Result<Snapshot> {
        let object = Arc::new(self);
        let info = object.trailer.info(name.as_str(), version);
        let state = Self::decode_all(&object).await;
        Ok(Snapshot {
            info,
            state: state.map_err(|error| error.at(&object.key))?.into(),
        })
    }

    async fn decode_all(this: &Arc<Self>) -> Result<Vec<u8>> {
        let trailer = &this.trailer;
        let blocks = trailer.blocks();
        if blocks <= GROUP {
            let member = this.fetch(&(0..blocks)).await?;
            let object = Arc::clone(this);
            let read = move || {
                let trailer = &object.trailer;
                let decoder = Decoder::new(trailer)?.add(trailer, 0..blocks, &member)?;
                decoder.finish(trailer)
            };
            return spawn_cpu(trailer.metadata.size, read).await;
        }
        let mut decoder = Decoder::new(trailer)?;
        let mut groups = ReadAhead::new(this, 0, AHEAD_OF_LOAD);
        while let Some((group, bytes)) = groups.next().await? {
            let object = Arc::clone(this);
            let add = move || decoder.add(&object.trailer, group, &bytes);
            decoder = spawn_cpu(trailer.metadata.size, add).await?;
        }
        let object = Arc::clone(this);
        spawn_cpu(trailer.metadata.size, move || {
            decoder.finish(&object.trailer)
        })
        .await
    }

    /// Returns the bytes before and after the blocks, verified: all that a tombstone has besides
    /// its trailer.
    pub(crate) async fn frame(&self) -> Result<(Bytes, Bytes)> {
        let blocks = self.trailer.stored(0..self.trailer.blocks());
        let head = self.bytes(0..blocks.start).await?;
        let tail = self.bytes(blocks.end..self.trailer.footer.member).await?;
        let sound = self.trailer.verify_frame(&head, &tail);
        sound.map_err(|error| error.at(&self.key))?;
        Ok((head, tail))
    }

    /// Verifies every byte, in bounded memory.
    pub(crate) async fn verify(self, name: &Name, version: Version) -> Result<VerifyReport> {
        let object = Arc::new(self);
        let trailer = &object.trailer;
        let metadata = &trailer.metadata;
        let blocks = trailer.blocks();
        if blocks == 0 {
            object.frame().await?;
        }
        let mut sums = Sums::default();
        let mut groups = ReadAhead::new(&object, 0, AHEAD_OF_READER);
        while let Some((group, bytes)) = groups.next().await? {
            let state = Self::decode(&object, group, bytes).await?;
            sums = spawn_cpu(metadata.size, move || Ok(sums.and(&state))).await?;
        }
        sums.verify(metadata)
            .map_err(|error| error.at(&object.key))?;
        Ok(VerifyReport {
            info: trailer.info(name.as_str(), version),
        })
    }

    /// Compares the version that the file was saved as with the version that its key stands for.
    pub(crate) fn check_place(
        &self,
        scope: &ScopeRef,
        name: &Name,
        version: Version,
    ) -> Result<()> {
        let metadata = &self.trailer.metadata;
        let session = scope.session().map(Name::as_str);
        let is_here = metadata.agent == scope.agent().as_str()
            && metadata.session.as_deref() == session
            && metadata.name == name.as_str()
            && metadata.version == version;
        if is_here {
            return Ok(());
        }
        Err(Error::Misplaced {
            saved_as: self.saved_as(),
            object: Some(self.key.to_string()),
        })
    }

    /// Returns the address that the file was saved at. The file chose its text: it is made safe to
    /// show.
    pub(crate) fn saved_as(&self) -> String {
        let Metadata {
            agent,
            session,
            name,
            version,
            ..
        } = &self.trailer.metadata;
        if agent.is_empty() && *version == 0 {
            let key: String = name.chars().take(MAX_ENCODED).collect();
            return format!("{} by an adapter", key.escape_default());
        }
        let parts = [Some(agent), session.as_ref(), Some(name)];
        let parts: Vec<_> = parts
            .into_iter()
            .flatten()
            .map(|part| shown(part))
            .collect();
        format!("{}@{version}", parts.join("/"))
    }

    /// Reads the stored bytes of blocks, and with the first and the last one also those before and
    /// after them, in one request.
    pub(crate) async fn fetch(&self, blocks: &Range<usize>) -> Result<Bytes> {
        self.bytes(self.trailer.framed(blocks)).await
    }

    /// Returns the state of blocks, verified, from what [`Self::fetch`] returned.
    async fn decode(this: &Arc<Self>, blocks: Range<usize>, framed: Bytes) -> Result<Bytes> {
        let object = Arc::clone(this);
        let read = move || {
            let trailer = &object.trailer;
            let stored = trailer.unframed(&blocks, &framed);
            let state = stored.and_then(|stored| trailer.read_blocks(blocks, stored));
            state.map_err(|error| error.at(&object.key))
        };
        Ok(spawn_cpu(this.trailer.metadata.size, read).await?.into())
    }

    /// Returns what [`Self::fetch`] returned, whose blocks it compares with their checksums.
    pub(crate) async fn verify_stored(
        this: &Arc<Self>,
        blocks: Range<usize>,
        framed: Bytes,
    ) -> Result<Bytes> {
        let object = Arc::clone(this);
        let len = framed.len() as u64;
        let verify = move || {
            let trailer = &object.trailer;
            let stored = trailer.unframed(&blocks, &framed);
            let sound = stored.and_then(|stored| trailer.verify_blocks(blocks, stored));
            sound.map_err(|error| error.at(&object.key))?;
            Ok(framed)
        };
        spawn_cpu(len, verify).await
    }

    /// Stored bytes, from what was read already where it has them.
    pub(crate) async fn bytes(&self, range: Range<u64>) -> Result<Bytes> {
        let unread = self.read_unread(&range).await?;
        Ok(self.complete(&range, unread))
    }

    /// Reads the part of a range that was not read with the trailer. It does not keep the object,
    /// whose trailer may be long.
    pub(super) fn read_unread(
        &self,
        range: &Range<u64>,
    ) -> impl Future<Output = Result<Bytes>> + Send + use<> {
        let (storage, key) = (Arc::clone(&self.storage), self.key.clone());
        let (start, _) = self.suffix;
        let unread = range.start.min(start)..range.end.min(start);
        async move {
            if unread.is_empty() {
                return Ok(Bytes::new());
            }
            read_exactly(&*storage, &key, unread).await
        }
    }

    /// Returns a range, of which `unread` was not read with the trailer.
    pub(super) fn complete(&self, range: &Range<u64>, unread: Bytes) -> Bytes {
        let (start, suffix) = &self.suffix;
        if range.end <= *start {
            return unread;
        }
        let [from, to] = [range.start.max(*start), range.end].map(|at| (at - start) as usize);
        if unread.is_empty() {
            return suffix.slice(from..to);
        }
        [&unread, &suffix[from..to]].concat().into()
    }
}

/// A name out of a trailer, as a person can paste it into an address.
fn shown(name: &str) -> String {
    let mut shown = String::new();
    for c in name.chars().take(MAX_ENCODED) {
        match c {
            '/' | '@' | '~' => shown.push_str(&name::encode(c.encode_utf8(&mut [0; 4]))),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

async fn read_exactly(storage: &dyn Storage, key: &Key, range: Range<u64>) -> Result<Bytes> {
    let len = range.end - range.start;
    let part = match storage.read(key, ReadRange::Bounded(range)).await {
        Ok(part) => part,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::NotFound(
                "this version was pruned while it was read".into(),
            ));
        }
        Err(error) => return Err(error.into()),
    };
    if part.bytes.len() as u64 == len {
        Ok(part.bytes)
    } else {
        Err(Error::corrupt("it was truncated while it was read").at(key))
    }
}
