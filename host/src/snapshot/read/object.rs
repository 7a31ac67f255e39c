//! The file of one version: its trailer, and the bytes of its blocks.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

#[cfg(feature = "guest")]
use crate::snapshot::Info;
use crate::snapshot::format::{Footer, Metadata, Trailer};
use crate::snapshot::offload::spawn_cpu;
use crate::snapshot::shared::ScopeRef;
use crate::snapshot::{Error, MAX_ENCODED, Name, Result, Version, name};
use crate::storage::{ErrorKind, Key, ReadRange, Storage};

/// Number of bytes that are read from the end of an object at first: a small object whole, else its
/// trailer.
const SUFFIX: u64 = 256 * 1024;

/// Stored bytes that are read of a version to tell what is known of it.
#[cfg(feature = "guest")]
pub(crate) fn stat_cost(info: &Info) -> u64 {
    info.stored_size.min(SUFFIX)
}

/// One stored version whose trailer is verified.
#[derive(Debug)]
pub(crate) struct Object {
    storage: Arc<dyn Storage>,
    pub(super) key: Key,
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
    pub(super) async fn decode(
        this: &Arc<Self>,
        blocks: Range<usize>,
        framed: Bytes,
    ) -> Result<Bytes> {
        let size = this.trailer.metadata.size;
        let state = Self::work(this, size, blocks, framed, Trailer::read_blocks);
        Ok(state.await?.into())
    }

    /// Compares blocks with their checksums, in what [`Self::fetch`] returned.
    pub(crate) async fn verify_stored(
        this: &Arc<Self>,
        blocks: Range<usize>,
        framed: Bytes,
    ) -> Result<()> {
        let len = framed.len() as u64;
        Self::work(this, len, blocks, framed, Trailer::verify_blocks).await
    }

    /// Computes something of blocks, whose frame is verified. The work grows with `bytes`.
    async fn work<T: Send + 'static>(
        this: &Arc<Self>,
        bytes: u64,
        blocks: Range<usize>,
        framed: Bytes,
        work: fn(&Trailer, Range<usize>, &[u8]) -> Result<T>,
    ) -> Result<T> {
        let object = Arc::clone(this);
        let work = move || {
            let trailer = &object.trailer;
            let stored = trailer.unframed(&blocks, &framed);
            let done = stored.and_then(|stored| work(trailer, blocks, stored));
            done.map_err(|error| error.at(&object.key))
        };
        spawn_cpu(bytes, work).await
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
