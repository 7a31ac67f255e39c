//! Objects in the memory of this process: for tests, and for hosts that want nothing to stay.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Entry, Error, ErrorKind, Key, List, Object, ObjectMeta, Page, Part, ReadRange, Result, Storage,
    StorageIdentity, Upload,
};

/// Keeps objects in memory. Clones share them; they are gone when the last clone is dropped.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    objects: Arc<Mutex<BTreeMap<String, Kept>>>,
}

#[derive(Debug)]
struct Kept {
    bytes: Bytes,
    created: SystemTime,
}

impl From<Bytes> for Kept {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            created: SystemTime::now(),
        }
    }
}

impl Memory {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn begin(&self, key: &Key, replace: bool) -> Box<dyn Upload> {
        Box::new(MemoryUpload {
            memory: self.clone(),
            key: key.clone(),
            replace,
            pieces: Vec::new(),
        })
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        // Every change is one insert or remove, so a panic elsewhere leaves nothing half-made.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Storage for Memory {
    fn location(&self) -> String {
        "memory".into()
    }

    fn backend(&self) -> &'static str {
        "memory"
    }

    fn identity(&self) -> StorageIdentity {
        let namespace = format!("memory at {:p}", Arc::as_ptr(&self.objects));
        StorageIdentity::new(namespace, "")
    }

    fn supports_conditional_create(&self) -> bool {
        true
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        let mut objects = self.objects();
        if objects.contains_key(key.as_str()) {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "the object already exists",
            ));
        }
        objects.insert(key.as_str().into(), Bytes::from(body.concat()).into());
        Ok(())
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(self.begin(key, false))
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(self.begin(key, true))
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        let objects = self.objects();
        let object = &objects
            .get(key.as_str())
            .ok_or_else(|| Error::new(ErrorKind::NotFound, "no such object"))?
            .bytes;
        let size = object.len() as u64;
        let range = range.of(size);
        Ok(Part {
            bytes: object.slice(range.start as usize..range.end as usize),
            start: range.start,
            size,
        })
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        let dir = match list.dir {
            "" => String::new(),
            dir => format!("{dir}/"),
        };
        let objects = self.objects();
        let below = objects
            .range::<String, _>((Bound::Included(&dir), Bound::Unbounded))
            .map_while(|(key, kept)| Some((key.strip_prefix(&dir)?, kept)));
        let mut page = Page {
            now: list.meta.then(SystemTime::now),
            ..Page::default()
        };
        for (rest, kept) in below {
            let entry = match rest.split_once('/') {
                Some((name, _)) => Entry::Dir(name.into()),
                None => Entry::Object(Object {
                    name: rest.into(),
                    meta: list.meta.then(|| ObjectMeta {
                        size: kept.bytes.len() as u64,
                        created: kept.created,
                    }),
                }),
            };
            if !entry.name().starts_with(list.prefix)
                || list.after.as_ref().is_some_and(|after| entry <= *after)
                || page.entries.last() == Some(&entry)
            {
                continue;
            }
            if page.entries.len() == list.limit.max(1) {
                page.more = true;
                break;
            }
            page.entries.push(entry);
        }
        Ok(page)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.objects().remove(key.as_str());
        Ok(())
    }
}

#[derive(Debug)]
struct MemoryUpload {
    memory: Memory,
    key: Key,
    replace: bool,
    pieces: Vec<Bytes>,
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.pieces.push(piece);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        if self.replace {
            let object = Bytes::from(self.pieces.concat());
            self.memory
                .objects()
                .insert(self.key.as_str().into(), object.into());
            return Ok(());
        }
        self.memory.create(&self.key, self.pieces).await
    }
}
