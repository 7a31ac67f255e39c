//! Other programs beside a store on the local disk: backups by hard links, and disks that are
//! unmounted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use persist_host::snapshot::{Error, SaveOptions, Scope, Store, StoreOptions};
use persist_host::storage::{Call, ErrorKind, Local, Watch};
use persist_tests::{block_on, load, save, scope, tempdir};

fn local(dir: &Path) -> Scope {
    scope(Arc::new(Local::new(dir)))
}

/// Is given a count, the temporary file and the name that it is to get.
type Act = Box<dyn Fn(u64, &Path, &Path) + Send + Sync>;

/// Acts as another program just before a file gets its name.
struct Beside {
    is_on: AtomicBool,
    count: AtomicU64,
    act: Act,
}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beside").finish_non_exhaustive()
    }
}

impl Beside {
    fn new(act: impl Fn(u64, &Path, &Path) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            is_on: AtomicBool::new(false),
            count: AtomicU64::new(0),
            act: Box::new(act),
        })
    }

    fn start(&self) {
        self.is_on.store(true, Ordering::SeqCst);
    }
}

impl Watch for Beside {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        if let Call::Link(temporary, name) = call
            && self.is_on.load(Ordering::SeqCst)
        {
            let count = self.count.fetch_add(1, Ordering::SeqCst);
            (self.act)(count, temporary, name);
        }
        Ok(())
    }

    fn after(&self, _: Call<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// A store whose temporary files get a second name before each link, as `cp -al` of the store gives
/// them.
fn backed_up(dir: &Path) -> (Scope, Arc<Beside>) {
    let backup = dir.join("backup");
    fs::create_dir(&backup).expect("a directory");
    let watch = Beside::new(move |count, temporary, _| {
        fs::hard_link(temporary, backup.join(count.to_string())).expect("links");
    });
    let local = Local::watched(dir.join("store"), watch.clone());
    (scope(Arc::new(local)), watch)
}

#[test]
fn a_lost_race_is_lost_though_a_backup_linked_the_temporary_file() {
    let dir = tempdir();
    let (ours, backup) = backed_up(dir.path());
    let other = local(&dir.path().join("store"));
    block_on(async {
        save(&ours, "memory", "first").await;
        backup.start();
        for round in 0..10 {
            // This process still believes in its own last version, and loses the race for the next
            // one.
            let theirs = save(&other, "memory", &format!("theirs {round}")).await;
            let saved = save(&ours, "memory", &format!("ours {round}")).await;
            assert!(saved.version > theirs.version, "{saved:?}");
            let loaded = ours.load("memory", Some(theirs.version)).await;
            let state = loaded.expect("loads").expect("is there").state;
            assert_eq!(&state[..], format!("theirs {round}").as_bytes());
        }
        let versions = ours.versions("memory", None, 100).await;
        assert_eq!(versions.expect("a page").len(), 21);
    });
}

#[test]
fn a_lost_stream_conflicts_though_a_backup_linked_the_temporary_file() {
    let dir = tempdir();
    let (ours, backup) = backed_up(dir.path());
    let other = local(&dir.path().join("store"));
    block_on(async {
        save(&ours, "memory", "first").await;
        let large = persist_tests::noise(1, 10 << 20);
        let writer = ours.writer("memory", SaveOptions::default()).await;
        let mut writer = writer.expect("a writer");
        writer.write(&large).await.expect("writes");
        backup.start();
        save(&other, "memory", "theirs").await;
        let finished = writer.finish().await;
        assert!(
            matches!(finished, Err(Error::Conflict { head: Some(2) })),
            "{finished:?}"
        );
        assert_eq!(load(&ours, "memory").await.as_deref(), Some("theirs"));
    });
}

#[test]
fn a_temporary_file_that_another_program_replaced_is_not_acknowledged() {
    let dir = tempdir();
    let watch = Beside::new(|_, temporary, _| {
        fs::remove_file(temporary).expect("removes");
        fs::write(temporary, "another program's").expect("writes");
    });
    let ours = scope(Arc::new(Local::watched(dir.path(), watch.clone())));
    block_on(async {
        save(&ours, "memory", "first").await;
        watch.start();
        let saved = ours.save("memory", "second".into(), SaveOptions::default());
        let saved = saved.await;
        assert!(
            matches!(saved, Err(Error::UnknownOutcome { version: 2, .. })),
            "{saved:?}"
        );
    });
}

/// A store on a disk that can be unmounted and mounted again, as a host sees it.
struct Disk {
    root: PathBuf,
    away: PathBuf,
}

impl Disk {
    fn new(dir: &Path) -> Self {
        let root = dir.join("mount/store");
        fs::create_dir_all(&root).expect("a directory");
        Self {
            root,
            away: dir.join("away"),
        }
    }

    fn unmount(&self) {
        fs::rename(&self.root, &self.away).expect("renames");
    }

    /// The directory below the mount point.
    fn show_mount_point(&self) {
        fs::create_dir(&self.root).expect("a directory");
    }

    fn mount(&self) {
        let _ = fs::remove_dir_all(&self.root);
        fs::rename(&self.away, &self.root).expect("renames");
    }
}

fn is_of_the_root(result: &Result<impl std::fmt::Debug, Error>) -> bool {
    matches!(result, Err(Error::Storage(error))
        if error.kind() == ErrorKind::Unavailable
            && error.to_string().contains("store's directory"))
}

#[test]
fn an_unmounted_disk_is_an_error_for_every_call() {
    for shows_mount_point in [true, false] {
        let dir = tempdir();
        let disk = Disk::new(dir.path());
        let scope = local(&disk.root);
        block_on(async {
            save(&scope, "memory", "one").await;
            disk.unmount();
            if shows_mount_point {
                disk.show_mount_point();
            }
            let options = SaveOptions::default();
            let saved = scope.save("memory", "two".into(), options.clone()).await;
            assert!(is_of_the_root(&saved), "{saved:?}");
            let other = scope.save("other", "new".into(), options).await;
            assert!(is_of_the_root(&other), "{other:?}");
            let loaded = scope.load("memory", None).await;
            assert!(is_of_the_root(&loaded), "{loaded:?}");
            let names = scope.names("", None, 10).await;
            assert!(is_of_the_root(&names), "{names:?}");
            let deleted = scope.unpin("memory", 1).await;
            assert!(is_of_the_root(&deleted), "{deleted:?}");
            if shows_mount_point {
                let left = fs::read_dir(&disk.root).expect("readable").count();
                assert_eq!(left, 0, "nothing is made below the mount point");
            } else {
                assert!(!disk.root.exists(), "nothing is made in its place");
            }
            disk.mount();
            // The same directory is back.
            assert_eq!(save(&scope, "memory", "two").await.version, 2);
            assert_eq!(load(&scope, "memory").await.as_deref(), Some("two"));
        });
    }
}

#[test]
fn another_store_under_the_same_path_is_an_error() {
    let dir = tempdir();
    let disk = Disk::new(dir.path());
    let scope = local(&disk.root);
    block_on(async {
        save(&scope, "memory", "one").await;
        disk.unmount();
        save(&local(&disk.root), "memory", "another store's").await;
        let loaded = scope.load("memory", None).await;
        assert!(is_of_the_root(&loaded), "{loaded:?}");
        let saved = scope.save("memory", "two".into(), SaveOptions::default());
        let saved = saved.await;
        assert!(is_of_the_root(&saved), "{saved:?}");
    });
}

#[test]
fn a_place_without_a_store_is_an_error_where_none_may_be_made() {
    let dir = tempdir();
    let mut options = StoreOptions::default();
    options.create = false;
    block_on(async {
        let open = || Store::with_options(Arc::new(Local::new(dir.path())), options.clone());
        let scope = open().scope("bot", None).expect("a name");
        let saved = scope.save("memory", "x".into(), SaveOptions::default());
        let saved = saved.await;
        assert!(matches!(saved, Err(Error::NoStore { .. })), "{saved:?}");
        let loaded = scope.load("memory", None).await;
        assert!(matches!(loaded, Err(Error::NoStore { .. })), "{loaded:?}");
        let names = scope.names("", None, 1).await;
        assert!(matches!(names, Err(Error::NoStore { .. })), "{names:?}");
        let policy = open().policy().await;
        assert!(matches!(policy, Err(Error::NoStore { .. })), "{policy:?}");
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
        save(&local(dir.path()), "memory", "one").await;
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("one"));
        assert_eq!(save(&scope, "memory", "two").await.version, 2);
    });
}
