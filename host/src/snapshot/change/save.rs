//! Saves a whole state, and deletes a name.

use bytes::Bytes;

use crate::snapshot::commit::Commit;
use crate::snapshot::format::{Encoded, Encoder};
use crate::snapshot::history::commit_and_prune;
use crate::snapshot::offload::spawn_cpu;
use crate::snapshot::shared::ScopeRef;
use crate::snapshot::{Error, Expect, Info, Name, Result, SaveOptions};

impl ScopeRef {
    /// Saves `state` as the next version of `name`, with options that were checked.
    pub(crate) async fn save(
        &self,
        name: &Name,
        state: Bytes,
        options: SaveOptions,
    ) -> Result<Info> {
        let size = state.len() as u64;
        let max = self.max_state();
        if size > max {
            return Err(Error::TooLarge { size, max });
        }
        self.prepare_change().await?;
        let mut commit = Commit::new(
            self,
            name,
            options.expect,
            options.media_type,
            options.labels,
        );
        commit.check_early().await?;
        let compression = self.store.shared.options.compression;
        let encode = move || Ok(Encoder::encode(&state, compression));
        let (bytes, encoded) = spawn_cpu(size, encode).await?;
        commit.buffer(bytes);
        commit_and_prune(commit, &encoded).await
    }

    /// Makes a tombstone the next version.
    pub(crate) async fn delete(&self, name: &Name, expect: Expect) -> Result<Info> {
        let mut commit = Commit::new(self, name, expect, None, Vec::new());
        // What is known may be out of date, and deleting nothing must write nothing.
        let head = self.head(name).await?;
        commit.check_early().await?;
        let Some(head) = head else {
            return Err(self.missing(name, None));
        };
        // A head that cannot be read, for whatever reason, must not keep its name from being
        // deleted.
        if let Ok(trailer) = self.trailer(name, head.version).await
            && trailer.is_tombstone()
        {
            return Err(self.deleted_already(name, head.version));
        }
        self.prepare_change().await?;
        let (bytes, tombstone) = Encoded::tombstone();
        commit.buffer(bytes);
        commit_and_prune(commit, &tombstone).await
    }
}
