//! Hard links to temporary files, as `cp -al` and backup tools make them; and the bug that they
//! show.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::Forward;
use persist_host::storage::{Call, ErrorKind, Key, Local, Result, Storage, Upload};

/// Time between two backups: shorter than a save takes on a disk.
const PAUSE: Duration = Duration::from_millis(1);

/// Backups that are kept before all of them are removed: links keep the space of what they link.
const KEPT: usize = 50;

/// Directory of temporary files, below a store's root.
const TEMPORARY: &str = "~/tmp";

/// Makes hard links to the files of a store, like a backup that takes immutable files as they are.
#[derive(Debug)]
pub(crate) struct Backup {
    /// On the file system of the store, and outside it.
    dir: PathBuf,
    next: AtomicU64,
}

impl Backup {
    pub(crate) fn new(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        Ok(Self {
            dir,
            next: AtomicU64::new(0),
        })
    }

    /// Gives a file another name. It may be gone by now: then there is nothing to link.
    pub(crate) fn link(&self, file: &Path) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let _ = fs::hard_link(file, self.dir.join(number.to_string()));
    }

    /// Links every temporary file of the store at `root`.
    pub(crate) fn link_temporary(&self, root: &Path) {
        let Ok(files) = fs::read_dir(root.join(TEMPORARY)) else {
            return;
        };
        for file in files.flatten() {
            self.link(&file.path());
        }
    }

    /// Removes all links that were made.
    fn clear(&self) {
        let Ok(links) = fs::read_dir(&self.dir) else {
            return;
        };
        for link in links.flatten() {
            let _ = fs::remove_file(link.path());
        }
    }
}

/// Links the temporary files of a store again and again, while its hosts are at work.
#[derive(Debug)]
pub(crate) struct Backups {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backups {
    /// Begins to link what is in the store at `root` to `dir`.
    pub(crate) fn begin(root: &Path, dir: PathBuf) -> io::Result<Self> {
        let root = root.to_owned();
        let backup = Backup::new(dir)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                for _ in 0..KEPT {
                    backup.link_temporary(&root);
                    std::thread::sleep(PAUSE);
                }
                backup.clear();
            }
        });
        Ok(Self {
            is_over,
            thread: Some(thread),
        })
    }

    /// Waits until no more links are made.
    pub(crate) fn end(self) {
        drop(self);
    }
}

impl Drop for Backups {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("no panic");
        }
    }
}

/// Remembers whether the temporary file of a failed `link(2)` had more than one name.
#[derive(Debug, Default)]
pub(crate) struct LinkCount(AtomicBool);

impl LinkCount {
    /// Is told of a call that was made.
    pub(crate) fn after(&self, call: Call<'_>, done: bool) {
        if let Call::Link(temporary, _) = call
            && !done
        {
            let names = fs::metadata(temporary).map_or(0, |metadata| metadata.nlink());
            self.0.store(names > 1, Ordering::SeqCst);
        }
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

/// A local disk with a bug: it takes a second name of its temporary file for the proof that the
/// file got its name.
#[derive(Debug)]
pub(crate) struct LinkCountBelieved {
    local: Local,
    count: Arc<LinkCount>,
}

impl LinkCountBelieved {
    /// `count` is told of the calls of `local`, which has one user at a time.
    pub(crate) fn new(local: Local, count: Arc<LinkCount>) -> Self {
        Self { local, count }
    }
}

/// Turns a lost race into a success where the link count says so: this is the bug.
fn believe(count: &LinkCount, made: Result<()>) -> Result<()> {
    match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && count.take() => Ok(()),
        made => made,
    }
}

#[async_trait]
impl Forward for LinkCountBelieved {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.local.clone())
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        self.count.take();
        believe(&self.count, self.local.create(key, body).await)
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        Ok(Box::new(BelievingUpload {
            upload: self.local.upload(key).await?,
            count: Arc::clone(&self.count),
        }))
    }
}

#[derive(Debug)]
struct BelievingUpload {
    upload: Box<dyn Upload>,
    count: Arc<LinkCount>,
}

#[async_trait]
impl Upload for BelievingUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.upload.write(piece).await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        self.count.take();
        believe(&self.count, self.upload.finish().await)
    }
}
