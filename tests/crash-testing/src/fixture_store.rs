//! A store in memory, in which any bytes can be put at any key, and every way of reading them.

use anyhow::Result;
use bytes::Bytes;
use persist_host::snapshot::{
    Adapter, Error, Expect, Name, Scope, Snapshot, Store, VerifyReport, Version,
};
use persist_host::storage::{Key, Memory, Storage as _};
use sha2::{Digest as _, Sha256};
use std::future::Future;
use std::io::Read as _;
use std::sync::Arc;
use tokio::runtime::Runtime;

use crate::version_key::version_file;

/// A store in memory, and the thread that waits for it.
#[derive(Debug)]
pub struct FixtureStore {
    runtime: Runtime,
    memory: Memory,
    /// Store through which versions are read.
    pub store: Store,
    /// Adapter through which files without versions are read.
    pub adapter: Adapter,
}

/// A version of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whose it is.
    pub agent: String,
    /// In which session; none is across all.
    pub session: Option<String>,
    /// The name.
    pub name: String,
    /// The version.
    pub version: Version,
}

impl Place {
    /// Returns the key of its file.
    ///
    /// # Errors
    /// Where one of the names is none.
    pub fn key(&self) -> Result<Key> {
        let agent = Name::new(&*self.agent)?;
        let session = self.session.as_deref().map(Name::new).transpose()?;
        let session = session.as_ref().map_or("~", Name::encoded);
        let agent = agent.encoded();
        let name = Name::new(&*self.name)?;
        let name = name.encoded();
        let segment = version_file(self.version);
        Ok(Key::new(format!("{agent}/{session}/{name}/{segment}"))?)
    }
}

impl FixtureStore {
    /// An empty one.
    ///
    /// # Errors
    /// Where no runtime is to be had.
    pub fn new() -> Result<Self> {
        let memory = Memory::new();
        Ok(Self {
            runtime: tokio::runtime::Builder::new_current_thread().build()?,
            store: Store::new(Arc::new(memory.clone())),
            adapter: Adapter::new(Arc::new(memory.clone())),
            memory,
        })
    }

    /// Waits.
    pub fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(what)
    }

    /// Puts `bytes` at `key`, whatever was there.
    ///
    /// # Errors
    /// None that is expected of memory.
    pub fn put(&self, key: &Key, bytes: Bytes) -> Result<()> {
        Ok(self.wait(async {
            let mut upload = self.memory.replace(key).await?;
            upload.write(bytes).await?;
            upload.finish().await
        })?)
    }

    /// Takes away what is at `key`.
    ///
    /// # Errors
    /// None that is expected of memory.
    pub fn remove(&self, key: &Key) -> Result<()> {
        Ok(self.wait(self.memory.delete(key))?)
    }

    /// The file at `key`.
    ///
    /// # Errors
    /// Where nothing is there.
    pub fn file(&self, key: &Key) -> Result<Bytes> {
        let all = persist_host::storage::ReadRange::Suffix(u64::MAX);
        Ok(self.wait(self.memory.read(key, all))?.bytes)
    }

    fn scope(&self, place: &Place) -> Result<Scope, Error> {
        self.store.scope(&place.agent, place.session.as_deref())
    }

    /// Loads a version, like [`Scope::load`].
    ///
    /// # Errors
    /// As that.
    pub fn load(&self, place: &Place) -> Result<Option<Snapshot>, Error> {
        let scope = self.scope(place)?;
        self.wait(scope.load(&place.name, Some(place.version)))
    }

    /// The whole state by a [`Reader`](persist_host::snapshot::Reader), from front to back in
    /// ranges of `range` bytes.
    ///
    /// # Errors
    /// What the reader said, and what it gave before.
    pub fn read(&self, place: &Place, range: usize) -> Result<Option<Vec<u8>>, (Vec<u8>, Error)> {
        let mut state = Vec::new();
        let read = async {
            let scope = self.scope(place)?;
            let Some(mut reader) = scope.reader(&place.name, Some(place.version)).await? else {
                return Ok(false);
            };
            loop {
                let piece = reader.read(state.len() as u64, range).await?;
                if piece.is_empty() {
                    return Ok(true);
                }
                state.extend_from_slice(&piece);
            }
        };
        match self.wait(read) {
            Ok(found) => Ok(found.then_some(state)),
            Err(error) => Err((state, error)),
        }
    }

    /// Verifies a version, like [`Scope::verify`].
    ///
    /// # Errors
    /// As that.
    pub fn verify(&self, place: &Place) -> Result<Option<VerifyReport>, Error> {
        let scope = self.scope(place)?;
        self.wait(scope.verify(&place.name, Some(place.version)))
    }

    /// The state of what [`Scope::fork`] makes of it; the fork is taken away again.
    ///
    /// # Errors
    /// As that.
    pub fn fork(&self, place: &Place) -> Result<Option<Bytes>, Error> {
        let scope = self.scope(place)?;
        let fork = scope.fork(&place.name, Some(place.version), "fork", Expect::Any);
        let info = match self.wait(fork) {
            // A tombstone has no state to fork.
            Err(Error::NotFound(_)) => return Ok(None),
            forked => forked?,
        };
        let forked = Place {
            name: "fork".into(),
            version: info.version,
            ..place.clone()
        };
        let state = self.load(&forked);
        if let Ok(key) = forked.key() {
            // What is left of it in memory could only slow down what follows.
            let _ = self.remove(&key);
        }
        Ok(state?.map(|snapshot| snapshot.state))
    }
}

/// Lower-case hex of the SHA-256.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Returns the bytes that `zcat` prints.
///
/// # Errors
/// What it complains about.
pub fn zcat(file: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut state = Vec::new();
    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut state)?;
    Ok(state)
}
