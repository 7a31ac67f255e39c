//! States at keys of the caller's own choice, outside any agent's scope.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use flate2::write::GzDecoder;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::clock;
use super::format::{Encoder, TrailerFields, is_of_trailer};
use super::offload::spawn_cpu;
use super::read::{Object, Reader};
use super::{Compression, Error, Result, layout};
use crate::storage::{self, ErrorKind, Key, ReadRange, Storage};

/// Number of bytes that are read from a file or a stream at once.
const CHUNK: usize = 1 << 20;

/// Stored bytes that are decompressed at once where nothing says what they hold: 4 MiB at the most.
const SIP: usize = 4 * 1024;

/// Pieces that a [`StateStream`] is ahead of its reader.
const AHEAD: usize = 2;

/// Options of an [`Adapter`].
///
/// ```
/// use persist_host::snapshot::AdapterOptions;
///
/// let mut options = AdapterOptions::default();
/// options.max_state = 64 << 20;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdapterOptions {
    /// Bytes of one state that [`Adapter::load`] holds in memory; 1 GiB. Nothing tells how much a
    /// gzip file of others decompresses to: 3 MB may be 3 GB. [`Adapter::load_stream`] has no
    /// limit, as it holds a few MiB at a time.
    pub max_state: u64,
    /// Compression of the states that are saved.
    pub compression: Compression,
}

impl Default for AdapterOptions {
    fn default() -> Self {
        Self {
            max_state: 1 << 30,
            compression: Compression::default(),
        }
    }
}

/// Saves and loads states at keys of the caller's own choice, such as
/// `agent1/large_snapshot.json.gz`.
///
/// The files are those that a [`Scope`](super::Scope) makes: gzip, with a trailer that is
/// verified when they are loaded. It also loads plain gzip files that others made. There are no
/// versions here: a save replaces what was there, in one step. Keys that belong to scopes are
/// refused.
///
/// ```
/// # use std::path::PathBuf;
/// use persist_host::snapshot::Adapter;
/// use persist_host::storage::StorageConfig;
/// use tokio::io::AsyncReadExt;
///
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let adapter = Adapter::new(StorageConfig::local(dir.path()).build()?);
/// adapter.save_stream(&b"{\"turns\": []}"[..], "agent1/large_snapshot.json.gz").await?;
///
/// let mut stream = adapter.load_stream("agent1/large_snapshot.json.gz").await?;
/// let mut state = String::new();
/// stream.read_to_string(&mut state).await?;
/// assert_eq!(state, "{\"turns\": []}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Adapter {
    storage: Arc<dyn Storage>,
    options: AdapterOptions,
}

impl Adapter {
    /// States in `storage`.
    pub fn new(storage: Arc<dyn Storage>) -> Self {
        Self::with_options(storage, AdapterOptions::default())
    }

    /// States in `storage`, with options.
    pub fn with_options(storage: Arc<dyn Storage>, options: AdapterOptions) -> Self {
        Self { storage, options }
    }

    /// Saves `state` at `key`, in place of what is there.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `key` cannot be one, or belongs to a scope; [`Error::Storage`].
    pub async fn save(&self, state: &[u8], key: &str) -> Result<()> {
        self.save_stream(state, key).await
    }

    /// Loads the whole state at `key`, verified.
    ///
    /// # Errors
    /// [`Error::NotFound`] where nothing is there; [`Error::Corrupt`] where it is not what was
    /// saved, or no gzip; [`Error::TooLarge`] where the state is over
    /// [`AdapterOptions::max_state`]; [`Error::Storage`].
    pub async fn load(&self, key: &str) -> Result<Bytes> {
        let max = self.options.max_state;
        let mut stream = self.open_stream(key, max).await?;
        let mut state = Vec::new();
        while let Some(piece) = stream.next().await? {
            let size = state.len() as u64 + piece.len() as u64;
            if size > max {
                return Err(Error::TooLarge { size, max });
            }
            state.extend_from_slice(&piece);
        }
        Ok(state.into())
    }

    /// Returns true if an object exists at `key`.
    ///
    /// # Errors
    /// [`Error::Storage`]: where this cannot be known, it is not `false`.
    pub async fn exists(&self, key: &str) -> Result<bool> {
        match self
            .storage
            .read(&own_key(key)?, ReadRange::Suffix(1))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what is at `key`. What is not there is removed already.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub async fn delete(&self, key: &str) -> Result<()> {
        Ok(self.storage.delete(&own_key(key)?).await?)
    }

    /// Saves what `state` gives, to its end, at `key`, in place of what is there. Nothing changes
    /// before all of it is durable. Memory: as [`Writer`](super::Writer).
    ///
    /// # Errors
    /// Errors of [`Adapter::save`]; an error of `state` itself is an [`Error::Storage`], and
    /// nothing was saved.
    pub async fn save_stream(&self, mut state: impl AsyncRead + Unpin, key: &str) -> Result<()> {
        let key = own_key(key)?;
        let mut upload = self.storage.replace(&key).await?;
        let mut encoder = Encoder::new(self.options.compression);
        let mut chunk = vec![0; CHUNK];
        loop {
            let len = state.read(&mut chunk).await.map_err(|error| {
                storage::Error::new(ErrorKind::Unavailable, "cannot read the state to save")
                    .with_source(error)
            })?;
            if len == 0 {
                break;
            }
            let mut rest = &chunk[..len];
            while !rest.is_empty() {
                rest = encoder.fill(rest);
                if encoder.is_full() {
                    let compressed = spawn_cpu(u64::MAX, move || Ok((encoder.compress(), encoder)));
                    let output;
                    (output, encoder) = compressed.await?;
                    for piece in output {
                        upload.write(piece).await?;
                    }
                }
            }
        }
        let (rest, encoded) = spawn_cpu(encoder.size(), move || Ok(encoder.finish())).await?;
        let (trailer, _) = encoded.build_trailer(&TrailerFields {
            agent: "",
            session: None,
            name: key.as_str(),
            version: 0,
            parent: None,
            parent_sha256: None,
            created_at: clock::unix_millis(),
            media_type: None,
            labels: &[],
            nonce: &format!("{:032x}", crate::random::u128()),
        });
        for piece in rest.into_iter().chain([trailer]) {
            upload.write(piece).await?;
        }
        Ok(upload.finish().await?)
    }

    /// Reads the state at `key` in pieces. Each was verified by itself; whether all of them are
    /// what was saved, only the end of the stream says: an error, or none.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Corrupt`] and [`Error::Storage`], here or from the stream.
    pub async fn load_stream(&self, key: &str) -> Result<StateStream> {
        self.open_stream(key, u64::MAX).await
    }

    /// Opens a stream. A state whose trailer says that it has more than `max` bytes is refused
    /// before it is read.
    async fn open_stream(&self, key: &str, max: u64) -> Result<StateStream> {
        let key = own_key(key)?;
        let not_found = || Error::NotFound(format!("nothing is at {key}"));
        let object = match Object::find(&self.storage, &key).await {
            Err(error) if error.is_missing_object() => return Err(not_found()),
            object => object?,
        };
        let (sender, receiver) = mpsc::channel(AHEAD);
        match object {
            Some(object) if object.trailer.is_tombstone() => return Err(not_found()),
            Some(object) => {
                let size = object.trailer.metadata.size;
                if size > max {
                    return Err(Error::TooLarge { size, max });
                }
                object.frame().await?;
                check_key(&object, &key)?;
                let reader = Reader::new(object, key.as_str(), 0);
                tokio::spawn(async move {
                    if let Err(error) = send_blocks(reader, &sender).await {
                        // No receiver is left if the stream was dropped.
                        let _ = sender.send(Err(error.at(&key))).await;
                    }
                });
            }
            None => {
                let storage = Arc::clone(&self.storage);
                let runtime = Handle::current();
                tokio::task::spawn_blocking(move || {
                    let end = send_plain(&*storage, &key, &runtime, &sender);
                    if let Err(error) = end {
                        // No receiver is left if the stream was dropped.
                        let _ = sender.blocking_send(Err(error.at(&key)));
                    }
                });
            }
        }
        Ok(StateStream {
            receiver,
            piece: Bytes::new(),
        })
    }
}

/// A key that belongs to no scope, and to no part of the store itself.
fn own_key(key: &str) -> Result<Key> {
    let checked = Key::new(key).map_err(|error| Error::Invalid(error.to_string()))?;
    if !layout::is_reserved(&checked) {
        Ok(checked)
    } else {
        Err(Error::Invalid(format!(
            "the key {key} has the form of a version, a pin or a part of the store"
        )))
    }
}

/// Compares the key that an adapter saved a file at with the key that it is read at. One may be the
/// end of the other, where the storage is opened at another level now. The file of a version may be
/// read at any key.
fn check_key(object: &Object, key: &Key) -> Result<()> {
    let metadata = &object.trailer.metadata;
    let saved = metadata.name.as_str();
    let read = key.as_str();
    let ends_in = |long: &str, short: &str| {
        let rest = long.strip_suffix(short);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
    };
    if !metadata.agent.is_empty() || ends_in(saved, read) || ends_in(read, saved) {
        return Ok(());
    }
    Err(Error::Misplaced {
        saved_as: object.saved_as(),
        object: Some(key.to_string()),
    })
}

/// Sends the state of a file with a trailer. The reader verifies the whole of it before it gives
/// the last piece.
async fn send_blocks(mut reader: Reader, sender: &mpsc::Sender<Result<Bytes>>) -> Result<()> {
    let mut offset = 0;
    loop {
        let piece = reader.read(offset, usize::MAX).await?;
        offset += piece.len() as u64;
        // The rest of a dropped stream has no receiver.
        if piece.is_empty() || sender.send(Ok(piece)).await.is_err() {
            return Ok(());
        }
    }
}

/// Sends the state of a plain gzip file. Runs on a thread of its own: nothing says how much its
/// bytes decompress to.
fn send_plain(
    storage: &dyn Storage,
    key: &Key,
    runtime: &Handle,
    sender: &mpsc::Sender<Result<Bytes>>,
) -> Result<()> {
    let mut plain = Plain::default();
    let mut offset = 0;
    loop {
        let range = ReadRange::Bounded(offset..offset + CHUNK as u64);
        let part = runtime.block_on(storage.read(key, range))?;
        if part.bytes.is_empty() {
            break;
        }
        offset += part.bytes.len() as u64;
        for sip in part.bytes.chunks(SIP) {
            let state = plain.write(sip)?;
            if !state.is_empty() && sender.blocking_send(Ok(state)).is_err() {
                return Ok(());
            }
        }
    }
    if offset == 0 {
        return Err(Error::corrupt("it is empty, not gzip"));
    }
    let state = plain.end_member()?;
    if !state.is_empty() {
        // As above: a dropped stream has no receiver.
        let _ = sender.blocking_send(Ok(state));
    }
    Ok(())
}

/// Decompresses gzip that others made, one member after the other.
struct Plain {
    member: GzDecoder<Vec<u8>>,
}

impl Default for Plain {
    fn default() -> Self {
        Self {
            member: GzDecoder::new(Vec::new()),
        }
    }
}

impl Plain {
    /// Takes the next stored bytes, and gives what they decompress to.
    fn write(&mut self, mut stored: &[u8]) -> Result<Bytes> {
        let mut state = Vec::new();
        while !stored.is_empty() {
            match self.member.write(stored).map_err(not_gzip)? {
                // The member is over, and the next one begins here.
                0 => state.extend_from_slice(&self.end_member()?),
                len => stored = &stored[len..],
            }
        }
        state.append(self.member.get_mut());
        Ok(state.into())
    }

    /// Ends a member, and gives what is left of its content.
    fn end_member(&mut self) -> Result<Bytes> {
        let member = std::mem::replace(&mut self.member, GzDecoder::new(Vec::new()));
        // A file with a trailer that could not be told from its last bytes: they are not what was
        // written.
        let extra = member.header().and_then(|header| header.extra());
        if extra.is_some_and(is_of_trailer) {
            return Err(Error::corrupt("the end of its trailer is damaged"));
        }
        Ok(member.finish().map_err(not_gzip)?.into())
    }
}

fn not_gzip(error: io::Error) -> Error {
    Error::corrupt(format!("it is not complete gzip: {error}"))
}

/// A state that is read from front to back, as it arrives: by pieces, or as [`AsyncRead`].
#[derive(Debug)]
pub struct StateStream {
    receiver: mpsc::Receiver<Result<Bytes>>,
    /// Rest of the last piece, for `AsyncRead`.
    piece: Bytes,
}

impl StateStream {
    /// The next piece of the state, verified; none at the end.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where what is stored is not what was saved; [`Error::Storage`]. Nothing
    /// follows an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.piece.is_empty() {
            self.receiver.recv().await.transpose()
        } else {
            Ok(Some(std::mem::take(&mut self.piece)))
        }
    }
}

impl AsyncRead for StateStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.piece.is_empty() {
            match ready!(self.receiver.poll_recv(context)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => {
                    let kind = match &error {
                        Error::Corrupt { .. } => io::ErrorKind::InvalidData,
                        _ => io::ErrorKind::Other,
                    };
                    return Poll::Ready(Err(io::Error::new(kind, error)));
                }
            }
        }
        let len = buffer.remaining().min(self.piece.len());
        buffer.put_slice(&self.piece.split_to(len));
        Poll::Ready(Ok(()))
    }
}
