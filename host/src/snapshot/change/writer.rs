//! A state saved piece by piece.

#[cfg(feature = "guest")]
use crate::snapshot::Expect;
use crate::snapshot::commit::Commit;
use crate::snapshot::format::Encoder;
use crate::snapshot::history::commit_and_prune;
use crate::snapshot::offload::spawn_cpu;
use crate::snapshot::shared::ScopeRef;
use crate::snapshot::{Compression, Error, Info, Name, Result, SaveOptions};

/// A state that is being saved piece by piece. Nothing is visible before [`Writer::finish`]
/// returned ok; dropping the writer aborts.
///
/// Memory: 4 MiB of state, and at most 12 MiB of compressed pieces, whatever the size of the state.
///
/// ```
/// # use std::sync::Arc;
/// use persist_host::snapshot::{SaveOptions, Store};
/// use persist_host::storage::Memory;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = Store::new(Arc::new(Memory::new()));
/// let scope = store.scope("agent", None)?;
/// let mut writer = scope.writer("log", SaveOptions::default()).await?;
/// for line in ["one\n", "two\n"] {
///     writer.write(line.as_bytes()).await?;
/// }
/// let info = writer.finish().await?;
/// assert_eq!((info.version, info.size), (1, 8));
/// # Ok::<(), persist_host::snapshot::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Writer {
    commit: Commit,
    encoder: Encoder,
    max_state: u64,
    /// Set by the first error: what was written is not whole any more.
    failed: bool,
}

impl Writer {
    /// Opens a writer with options that were checked.
    pub(crate) async fn open(scope: &ScopeRef, name: &Name, options: SaveOptions) -> Result<Self> {
        scope.prepare_change().await?;
        let mut commit = Commit::new(
            scope,
            name,
            options.expect,
            options.media_type,
            options.labels,
        );
        commit.check_early().await?;
        Ok(Self {
            commit,
            encoder: Encoder::new(scope.store.shared.options.compression),
            max_state: scope.max_state(),
            failed: false,
        })
    }

    /// Opens a writer as [`Writer::open`] does, but takes [`Expect::Any`] to mean the head that is
    /// there now: `persist:snapshot` promises this to its guests, since they cannot write again
    /// what they have written.
    #[cfg(feature = "guest")]
    pub(crate) async fn open_from_head(
        scope: &ScopeRef,
        name: &Name,
        mut options: SaveOptions,
    ) -> Result<Self> {
        if options.expect == Expect::Any && scope.lease.is_none() {
            let head = scope.head(name).await?;
            options.expect = head.map_or(Expect::Absent, |head| Expect::Version(head.version));
        }
        Self::open(scope, name, options).await
    }

    /// Refuses a state of more than `max` bytes, where that is less than the limit of the store.
    #[must_use]
    pub fn at_most(mut self, max: u64) -> Self {
        self.max_state = self.max_state.min(max);
        self
    }

    /// Appends to the state. After an error the writer can only be dropped.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where the state grows over the limit of the scope; [`Error::Conflict`]
    /// where pieces are sent for the first time and the expectation does not hold any more;
    /// [`Error::Storage`].
    pub async fn write(&mut self, piece: &[u8]) -> Result<()> {
        self.check()?;
        self.failed = true;
        let size = self.encoder.size().saturating_add(piece.len() as u64);
        if size > self.max_state {
            let max = self.max_state;
            return Err(Error::TooLarge { size, max });
        }
        let mut rest = piece;
        while !rest.is_empty() {
            rest = self.encoder.fill(rest);
            if self.encoder.is_full() {
                self.compress().await?;
            }
        }
        self.failed = false;
        Ok(())
    }

    /// Commits what was written as the next version.
    ///
    /// # Errors
    /// [`Error::Conflict`] where another save came first and pieces were sent already, which cannot
    /// be sent again as another version, even with [`Expect::Any`](crate::snapshot::Expect::Any);
    /// [`Error::UnknownOutcome`]; [`Error::Storage`]. The outcome of a future that is dropped is
    /// unknown, too.
    pub async fn finish(mut self) -> Result<Info> {
        self.check()?;
        let size = self.encoder.size();
        let encoder = self.encoder;
        let (rest, encoded) = spawn_cpu(size, move || Ok(encoder.finish())).await?;
        self.commit.buffer(rest);
        commit_and_prune(self.commit, &encoded).await
    }

    async fn compress(&mut self) -> Result<()> {
        // It comes back with its output; if it does not, this writer has failed and is not used
        // again.
        let mut encoder = std::mem::replace(&mut self.encoder, Encoder::new(Compression::None));
        let compress = move || Ok((encoder.compress(), encoder));
        let (output, encoder) = spawn_cpu(u64::MAX, compress).await?;
        self.encoder = encoder;
        self.commit.push(output).await
    }

    fn check(&self) -> Result<()> {
        if !self.failed {
            Ok(())
        } else {
            Err(Error::Invalid(
                "a writer cannot continue after an error; open a new one".into(),
            ))
        }
    }
}
