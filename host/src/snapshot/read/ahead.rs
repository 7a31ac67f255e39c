//! Stored bytes of a version from front to back, fetched before they are asked for.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tracing::Instrument as _;

use super::object::Object;
use crate::snapshot::Result;
use crate::snapshot::ordered_tasks::OrderedTasks;

/// Blocks that are fetched in one request.
pub(super) const GROUP: usize = 4;

/// Groups that are on their way while one state is read from front to back.
pub(crate) const GROUPS: usize = 2;

/// The same while it is loaded as a whole, into memory that it takes anyway.
pub(super) const GROUPS_OF_LOAD: usize = 8;

/// The same where several states are verified at once.
pub(super) const GROUPS_OF_VERIFICATION: usize = 1;

/// Groups of blocks of one object, in order. While the caller has one, the next ones are fetched.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    object: Arc<Object>,
    /// The block that the caller gets next, and the one that is fetched next.
    position: usize,
    next: usize,
    fetching: OrderedTasks<Bytes>,
}

impl ReadAhead {
    /// Begins at a block, with at most `groups` on their way.
    pub(crate) fn new(object: &Arc<Object>, block: usize, groups: usize) -> Self {
        Self {
            object: Arc::clone(object),
            position: block,
            next: block,
            fetching: OrderedTasks::new(groups),
        }
    }

    /// Returns the block that the next group begins with.
    pub(crate) fn position(&self) -> usize {
        self.position
    }

    /// Returns the next group and its bytes, as [`Object::fetch`] does; none after the last one.
    pub(crate) async fn next(&mut self) -> Result<Option<(Range<usize>, Bytes)>> {
        let blocks = self.object.trailer.blocks();
        let bytes = loop {
            if self.next == blocks {
                break self.fetching.next().await?;
            }
            let group = self.next..blocks.min(self.next + GROUP);
            self.next = group.end;
            // A task that is stopped ends later than this: it must not keep the object.
            let fetch = self.object.read_unread(&self.object.trailer.framed(&group));
            if let Some(bytes) = self.fetching.push(fetch.in_current_span()).await? {
                break Some(bytes);
            }
        };
        Ok(bytes.map(|bytes| {
            let group = self.position..blocks.min(self.position + GROUP);
            self.position = group.end;
            let framed = self.object.trailer.framed(&group);
            (group, self.object.complete(&framed, bytes))
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;
    use crate::snapshot::{Error, Expect, SaveOptions, Scope, Snapshot, Store};
    use crate::storage::{self, Key, List, Memory, Page, Part, ReadRange, Storage, Upload};

    const BLOCK: usize = 1 << 20;

    /// Storage in memory that notes which ranges are read.
    #[derive(Debug, Default)]
    struct Noted {
        memory: Memory,
        ranges: Mutex<Vec<Range<u64>>>,
    }

    impl Noted {
        fn reads(&self) -> usize {
            self.ranges.lock().expect("not poisoned").len()
        }
    }

    #[async_trait]
    impl Storage for Noted {
        fn location(&self) -> String {
            self.memory.location()
        }

        fn supports_conditional_create(&self) -> bool {
            true
        }

        async fn create(&self, key: &Key, body: Vec<Bytes>) -> storage::Result<()> {
            self.memory.create(key, body).await
        }

        async fn upload(&self, key: &Key) -> storage::Result<Box<dyn Upload>> {
            self.memory.upload(key).await
        }

        async fn replace(&self, key: &Key) -> storage::Result<Box<dyn Upload>> {
            self.memory.replace(key).await
        }

        async fn read(&self, key: &Key, range: ReadRange) -> storage::Result<Part> {
            if let ReadRange::Bounded(range) = &range {
                let mut ranges = self.ranges.lock().expect("not poisoned");
                ranges.push(range.clone());
            }
            self.memory.read(key, range).await
        }

        async fn list(&self, list: &List<'_>) -> storage::Result<Page> {
            self.memory.list(list).await
        }

        async fn delete(&self, key: &Key) -> storage::Result<()> {
            self.memory.delete(key).await
        }
    }

    /// Bytes that do not shrink, so that a block is a megabyte in the storage, too.
    fn noise(len: usize) -> Bytes {
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes = std::iter::repeat_with(|| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        });
        bytes.take(len).collect()
    }

    /// A state of three groups and a part of a block.
    async fn saved() -> (Arc<Noted>, Scope, Bytes) {
        let storage = Arc::new(Noted::default());
        let scope = Store::new(storage.clone()).scope("bot", None);
        let scope = scope.expect("a scope");
        let state = noise(3 * GROUP * BLOCK + 17);
        let saved = scope.save("memory", state.clone(), SaveOptions::default());
        saved.await.expect("saved");
        (storage, scope, state)
    }

    /// Waits until tasks have had their turn.
    async fn settle() {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_follows_is_fetched_before_it_is_asked_for() {
        let (storage, scope, state) = saved().await;
        let reader = scope.reader("memory", None).await.expect("opened");
        let mut reader = reader.expect("a state");
        reader.read(0, BLOCK).await.expect("the first block");
        settle().await;
        assert_eq!(storage.reads(), 1);
        reader.read(BLOCK as u64, 1).await.expect("the next one");
        settle().await;
        assert_eq!(storage.reads(), 4, "the group, and two that follow");
        // Another place: what was fetched is of no use.
        let at = 9 * BLOCK;
        let piece = reader.read(at as u64, 5).await.expect("a range");
        assert!(piece == state[at..at + 5]);
        settle().await;
        assert_eq!(storage.reads(), 5);
        // Nothing is fetched twice from there to the end.
        let mut at = 10 * BLOCK;
        while at < state.len() {
            let piece = reader.read(at as u64, BLOCK).await.expect("a range");
            assert!(piece == state[at..at + piece.len()]);
            at += piece.len();
        }
        assert_eq!(storage.reads(), 6);
    }

    #[cfg(feature = "guest")]
    #[tokio::test]
    async fn a_reader_of_a_guest_fetches_what_it_is_asked_for() {
        let (storage, scope, _) = saved().await;
        let reader = scope.reader("memory", None).await.expect("opened");
        let mut reader = reader.expect("a state").without_read_ahead();
        for block in [0, BLOCK, 2 * BLOCK] {
            reader.read(block as u64, BLOCK).await.expect("a block");
        }
        settle().await;
        assert_eq!(storage.reads(), 2, "the first block, and a group");
    }

    #[tokio::test]
    async fn a_load_fetches_each_byte_once() {
        let (storage, scope, state) = saved().await;
        let loaded = scope.load("memory", None).await.expect("loads");
        assert!(loaded.expect("a state").state == state);
        let mut ranges = storage.ranges.lock().expect("not poisoned").clone();
        ranges.sort_by_key(|range| range.start);
        assert_eq!(ranges.len(), 3, "the end was read before");
        assert_eq!(ranges[0].start, 0);
        assert!(ranges.windows(2).all(|two| two[0].end == two[1].start));
    }

    /// Stores the version again, with one bit changed.
    async fn damage(storage: &Noted, at: usize) {
        let key = Key::new("bot/~/memory/9999999998-0000000001.gz").expect("a key");
        let whole = ReadRange::Suffix(u64::MAX);
        let part = storage.memory.read(&key, whole).await.expect("there");
        let mut bytes = part.bytes.to_vec();
        bytes[at] ^= 1;
        let mut upload = storage.memory.replace(&key).await.expect("begins");
        upload.write(bytes.into()).await.expect("written");
        upload.finish().await.expect("replaced");
    }

    #[tokio::test]
    async fn each_way_to_read_finds_damage_in_each_group() {
        let is_corrupt = |error: Error| matches!(error, Error::Corrupt { .. });
        for group in 0..3 {
            let (storage, scope, state) = saved().await;
            let begin = group * GROUP * BLOCK;
            damage(&storage, begin + BLOCK / 2).await;
            let loaded = scope.load("memory", None).await.map(drop);
            assert!(is_corrupt(loaded.expect_err("damaged")), "{group}");
            let verified = scope.verify("memory", None).await.map(drop);
            assert!(is_corrupt(verified.expect_err("damaged")), "{group}");
            let restored = scope.restore("memory", 1, Expect::Any);
            let restored = restored.await.map(drop);
            assert!(is_corrupt(restored.expect_err("damaged")), "{group}");

            // What comes before is read, whatever was fetched meanwhile.
            let reader = scope.reader("memory", None).await.expect("opened");
            let mut reader = reader.expect("a state");
            let mut at = 0;
            let error = loop {
                match reader.read(at as u64, BLOCK).await {
                    Ok(piece) => {
                        assert!(piece == state[at..at + piece.len()]);
                        at += piece.len();
                    }
                    Err(error) => break error,
                }
            };
            assert!(is_corrupt(error), "{group}");
            assert!(at <= begin && at + GROUP * BLOCK > begin, "{group}: {at}");
            // And what comes after, too.
            let end = state.len() as u64 - 5;
            assert_eq!(reader.read(end, 9).await.expect("sound").len(), 5);
        }
    }

    #[tokio::test]
    async fn a_copy_is_the_same_state() {
        let (_, scope, state) = saved().await;
        let restored = scope.restore("memory", 1, Expect::Any).await;
        let version = restored.expect("restored").version;
        let loaded = scope.load("memory", Some(version)).await.expect("loads");
        let Snapshot { state: copy, .. } = loaded.expect("a state");
        assert!(copy == state);
    }
}
