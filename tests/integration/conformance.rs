//! The suite for storages, on ours; and on storages with a bug, which it must find.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::{self, Faulty, Forward, ListFault};
use persist_host::snapshot::{self, SaveOptions, Store};
use persist_host::storage::{
    Call, Entry, Error, ErrorKind, Key, List, Local, Memory, Object, Page, Part, ReadRange,
    RecursiveList, RecursivePage, Result, Storage, Upload, Watch,
};
use persist_tests::{block_on, tempdir};

#[test]
fn memory_conforms() {
    let memory = Memory::new();
    let report = block_on(conformance::run(&|| Arc::new(memory.clone())));
    assert!(report.is_ok(), "{report}");
}

#[test]
fn the_local_disk_conforms() {
    let dir = tempdir();
    let report = block_on(conformance::run(&|| Arc::new(Local::new(dir.path()))));
    assert!(report.is_ok(), "{report}");
}

/// Gives each temporary file a second name before it gets its own, as `cp -al` of a store does.
#[derive(Debug)]
struct Backup {
    dir: PathBuf,
    next: AtomicU64,
}

impl Watch for Backup {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        if let Call::Link(temporary, _) = call {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            std::fs::hard_link(temporary, self.dir.join(number.to_string()))?;
        }
        Ok(())
    }

    fn after(&self, _: Call<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_local_disk_conforms_while_temporary_files_are_linked() {
    let dir = tempdir();
    let backup = dir.path().join("backup");
    std::fs::create_dir(&backup).expect("a directory");
    let backup = Arc::new(Backup {
        dir: backup,
        next: AtomicU64::new(0),
    });
    let root = dir.path().join("store");
    let open = || -> Arc<dyn Storage> { Arc::new(Local::watched(&root, backup.clone())) };
    let report = block_on(conformance::run(&open));
    assert!(report.is_ok(), "{report}");
    assert!(backup.next.load(Ordering::Relaxed) > 100, "links are made");
}

#[test]
fn wrong_lists_are_found() {
    for &fault in ListFault::ALL {
        let memory = Memory::new();
        let open = || -> Arc<dyn Storage> {
            let mut faulty = Faulty::new(Arc::new(memory.clone()));
            faulty.list_fault = Some(fault);
            Arc::new(faulty)
        };
        let about_lists = |claim: &str| claim.starts_with("a list");
        let report = block_on(conformance::run_some(&open, about_lists));
        assert!(!report.is_ok(), "{fault:?} is not found");
    }
}

#[test]
fn a_storage_with_wrong_lists_is_refused_before_the_first_save() {
    for &fault in ListFault::ALL {
        let memory = Memory::new();
        let mut faulty = Faulty::new(Arc::new(memory.clone()));
        faulty.list_fault = Some(fault);
        let scope = Store::new(Arc::new(faulty)).scope("bot", None);
        let scope = scope.expect("a scope");
        let saved = block_on(scope.save("memory", "x".into(), SaveOptions::default()));
        let is_refused = matches!(saved, Err(snapshot::Error::Unsupported { .. }));
        assert!(is_refused, "{fault:?}: {saved:?}");
        let list = List::new("").with_limit(10);
        let left = block_on(memory.list(&list)).expect("a page").entries;
        assert_eq!(left, [], "{fault:?} leaves something");
    }
}

/// Bug of a storage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    CreateOverwrites,
    CreateChecksThenWrites,
    CreateDropsTheLastPiece,
    CreateSaysDenied,
    UploadIsVisibleEarly,
    UploadOverwrites,
    UploadChecksThenWrites,
    UploadDropsAPiece,
    ReplaceKeepsTheOld,
    ReadIgnoresTheStart,
    ReadOfNothingIsEmpty,
    SuffixIsOneShort,
    ListIsUnsorted,
    ListIsStale,
    ListRepeatsTheLast,
    ListForgetsMore,
    ListIgnoresThePrefix,
    ListShowsDirectoriesAsObjects,
    ListTellsNoTimes,
    ListTellsOtherSizes,
    RecursiveListForgetsTheRest,
    RecursiveListStaysDirect,
    DeleteDoesNothing,
    DeleteOfNothingFails,
}

const BUGS: &[(Bug, &str)] = &[
    (Bug::CreateOverwrites, "what is there is not created again"),
    (Bug::CreateChecksThenWrites, "one of many creates wins"),
    (Bug::CreateDropsTheLastPiece, "what is created is read back"),
    (Bug::CreateSaysDenied, "what is there is not created again"),
    (
        Bug::UploadIsVisibleEarly,
        "an upload is visible when it is finished",
    ),
    (Bug::UploadOverwrites, "an upload does not overwrite"),
    (Bug::UploadChecksThenWrites, "one of many uploads wins"),
    (
        Bug::UploadDropsAPiece,
        "an upload is visible when it is finished",
    ),
    (Bug::ReplaceKeepsTheOld, "what is replaced is new"),
    (
        Bug::ReadIgnoresTheStart,
        "a range is exactly what was asked for",
    ),
    (Bug::ReadOfNothingIsEmpty, "what is not there is not found"),
    (
        Bug::SuffixIsOneShort,
        "a range is exactly what was asked for",
    ),
    (
        Bug::ListIsUnsorted,
        "a list is in order, and its pages meet",
    ),
    (Bug::ListIsStale, "a list shows a change at once"),
    (
        Bug::ListRepeatsTheLast,
        "a list is in order, and its pages meet",
    ),
    (
        Bug::ListForgetsMore,
        "a list is in order, and its pages meet",
    ),
    (Bug::ListIgnoresThePrefix, "a list keeps to its prefix"),
    (
        Bug::ListShowsDirectoriesAsObjects,
        "a list shows directories with something in them",
    ),
    (Bug::ListTellsNoTimes, "a list tells sizes and times"),
    (Bug::ListTellsOtherSizes, "a list tells sizes and times"),
    (
        Bug::RecursiveListForgetsTheRest,
        "a recursive list shows every object once",
    ),
    (
        Bug::RecursiveListStaysDirect,
        "a recursive list shows every object once",
    ),
    (Bug::DeleteDoesNothing, "what is deleted is gone"),
    (Bug::DeleteOfNothingFails, "what is deleted is gone"),
];

#[test]
fn every_planted_bug_is_found_by_the_claim_that_it_breaks() {
    for &(bug, claim) in BUGS {
        let memory = Memory::new();
        let stale = Arc::default();
        let open = || -> Arc<dyn Storage> {
            Arc::new(Planted {
                inner: memory.clone(),
                bug,
                stale: Arc::clone(&stale),
            })
        };
        let report = block_on(conformance::run_some(&open, |wanted| wanted == claim));
        let found = (report.checked, report.failures.len());
        assert_eq!(found, (1, 1), "{bug:?} is not found by {claim:?}");
    }
}

/// A good storage with one bug.
#[derive(Debug)]
struct Planted {
    inner: Memory,
    bug: Bug,
    /// The page of the list before.
    stale: Arc<Mutex<Option<(String, Page)>>>,
}

#[async_trait]
impl Forward for Planted {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.inner.clone())
    }

    fn location(&self) -> String {
        "a storage with a bug".into()
    }

    // To be probed, as a storage of others is.
    fn supports_conditional_create(&self) -> bool {
        false
    }

    async fn create(&self, key: &Key, mut body: Vec<Bytes>) -> Result<()> {
        match self.bug {
            Bug::CreateOverwrites => self.inner.delete(key).await?,
            Bug::CreateChecksThenWrites => {
                look_then_clear(&self.inner, key).await?;
            }
            Bug::CreateDropsTheLastPiece if body.len() > 1 => drop(body.pop()),
            _ => {}
        }
        match self.inner.create(key, body).await {
            Err(_) if self.bug == Bug::CreateSaysDenied => Err(Error::new(ErrorKind::Denied, "no")),
            result => result,
        }
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(Box::new(PlantedUpload {
            storage: self.inner.clone(),
            bug: self.bug,
            key: key.clone(),
            pieces: Vec::new(),
        }))
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        match self.bug {
            Bug::ReplaceKeepsTheOld => self.inner.upload(key).await,
            _ => self.inner.replace(key).await,
        }
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        let range = match (self.bug, range) {
            (Bug::ReadIgnoresTheStart, ReadRange::Bounded(range)) => {
                ReadRange::Bounded(0..range.end)
            }
            (Bug::SuffixIsOneShort, ReadRange::Suffix(len)) if len < 1 << 20 => {
                ReadRange::Suffix(len - 1)
            }
            (_, range) => range,
        };
        match self.inner.read(key, range).await {
            Err(_) if self.bug == Bug::ReadOfNothingIsEmpty => Ok(Part::new(Bytes::new(), 0, 0)),
            result => result,
        }
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        let mut list = list.clone();
        let after = list.after.clone();
        if self.bug == Bug::ListIgnoresThePrefix {
            list.prefix = "";
        }
        let mut page = self.inner.list(&list).await?;
        match self.bug {
            Bug::ListIsUnsorted => page.entries.reverse(),
            Bug::ListRepeatsTheLast if list.limit > 1 => {
                page.entries.splice(0..0, after);
                page.entries.truncate(list.limit);
            }
            Bug::ListForgetsMore => page.more = false,
            Bug::ListShowsDirectoriesAsObjects => {
                for entry in &mut page.entries {
                    *entry = Entry::object(entry.name());
                }
            }
            Bug::ListTellsNoTimes => page.now = None,
            Bug::ListTellsOtherSizes => {
                for entry in &mut page.entries {
                    if let Entry::Object(Object {
                        meta: Some(meta), ..
                    }) = entry
                    {
                        meta.size += 1;
                    }
                }
            }
            Bug::ListIsStale => {
                let fresh = (list.dir.to_owned(), page.clone());
                let before = self.stale.lock().expect("no panic").replace(fresh);
                if let Some((_, stale)) = before.filter(|(dir, _)| dir == list.dir) {
                    page = stale;
                }
            }
            _ => {}
        }
        Ok(page)
    }

    async fn list_recursive(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        let mut page = self.inner.list_recursive(list).await?;
        match self.bug {
            Bug::RecursiveListForgetsTheRest => page.next = None,
            Bug::RecursiveListStaysDirect => {
                page.objects.retain(|object| !object.name.contains('/'));
            }
            _ => {}
        }
        Ok(page)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match self.bug {
            Bug::DeleteDoesNothing => Ok(()),
            Bug::DeleteOfNothingFails => {
                self.inner.read(key, ReadRange::Suffix(1)).await?;
                self.inner.delete(key).await
            }
            _ => self.inner.delete(key).await,
        }
    }
}

/// Looks, and makes room a moment later: what another writer made meanwhile is lost.
async fn look_then_clear(storage: &Memory, key: &Key) -> Result<()> {
    let is_there = storage.read(key, ReadRange::Suffix(1)).await.is_ok();
    tokio::task::yield_now().await;
    if !is_there {
        storage.delete(key).await?;
    }
    Ok(())
}

#[derive(Debug)]
struct PlantedUpload {
    storage: Memory,
    bug: Bug,
    key: Key,
    pieces: Vec<Bytes>,
}

#[async_trait]
impl Upload for PlantedUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        if self.bug == Bug::UploadIsVisibleEarly {
            self.storage.delete(&self.key).await?;
            self.storage.create(&self.key, vec![piece.clone()]).await?;
        }
        self.pieces.push(piece);
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<()> {
        match self.bug {
            Bug::UploadOverwrites | Bug::UploadIsVisibleEarly => {
                self.storage.delete(&self.key).await?
            }
            Bug::UploadChecksThenWrites => look_then_clear(&self.storage, &self.key).await?,
            Bug::UploadDropsAPiece if self.pieces.len() > 1 => drop(self.pieces.remove(1)),
            _ => {}
        }
        self.storage.create(&self.key, self.pieces).await
    }
}
