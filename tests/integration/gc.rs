//! Leftovers of saves that were never finished, and how they are found and removed.

use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use persist_host::conformance::Forward;
use persist_host::snapshot::{Error, GcOptions, SaveOptions, Store};
use persist_host::storage::{ErrorKind, Key, List, Local, Memory, Page, Result, Storage, Swept};
use persist_servers::Kind;
use persist_tests::proxy::{Fault, Reply};
use persist_tests::store::{TestStore, is_probe};
use persist_tests::{block_on, load, noise, on_every_storage, save, tempdir};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Of any age.
const ANY: Duration = Duration::ZERO;

async fn gc(store: &Store, older_than: Duration, dry_run: bool) -> Swept {
    let options = options(older_than, dry_run);
    store.gc(&options).await.expect("sweeps")
}

fn options(older_than: Duration, dry_run: bool) -> GcOptions {
    let mut options = GcOptions::default();
    options.older_than = older_than;
    options.dry_run = dry_run;
    options
}

#[test]
fn where_nothing_was_left_nothing_is_found() {
    on_every_storage(async |storage| {
        let store = Store::new(storage);
        assert_eq!(gc(&store, ANY, false).await, Swept::default());
        let scope = store.scope("bot", None).expect("a name");
        save(&scope, "memory", "kept").await;
        assert_eq!(gc(&store, ANY, false).await, Swept::default());
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("kept"));
    });
}

#[test]
fn only_temporary_files_of_dead_processes_are_removed() {
    let dir = tempdir();
    block_on(async {
        let store = Store::new(Arc::new(Local::new(dir.path())));
        let scope = store.scope("bot", None).expect("a name");
        save(&scope, "memory", "first").await;
        let mut living = scope
            .writer("stream", SaveOptions::default())
            .await
            .expect("a writer");
        let state = noise(1, 20 << 20);
        living.write(&state).await.expect("writes");
        let left = dir.path().join("~/tmp/0123456789abcdef0123456789abcdef");
        std::fs::write(&left, "half a file").expect("writes");

        assert_eq!(gc(&store, HOUR, false).await.removed, 0, "too young");
        let found = gc(&store, ANY, true).await;
        assert_eq!((found.removed, found.bytes), (1, 11));
        assert!(left.exists(), "a dry run removes nothing");
        assert_eq!(gc(&store, ANY, false).await, found);
        assert!(!left.exists());
        living.finish().await.expect("it was left alone");
        let loaded = scope.load("stream", None).await.expect("loads");
        assert!(loaded.expect("is there").state == state);
    });
}

/// Objects in memory, as they look two hours later.
#[derive(Debug)]
struct Later(Memory);

#[async_trait]
impl Forward for Later {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.0.clone())
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        let mut page = self.0.list(list).await?;
        page.now = page.now.map(|now| now + 2 * HOUR);
        Ok(page)
    }
}

#[test]
fn probes_of_a_host_that_died_are_removed_once_no_host_can_be_at_it() {
    block_on(async {
        let memory = Memory::new();
        let store = Store::new(Arc::new(memory.clone()));
        save(&store.scope("bot", None).expect("a name"), "memory", "x").await;
        let probe = Key::new("~/probe-0123456789abcdef0123456789abcdef-1").expect("a key");
        let made = memory.create(&probe, vec!["probe\n".into()]).await;
        made.expect("creates");
        // Whatever is asked, it is spared for an hour.
        assert_eq!(gc(&store, ANY, false).await.removed, 0);
        let later = Store::new(Arc::new(Later(memory)));
        assert_eq!(gc(&later, 3 * HOUR, false).await.removed, 0);
        let found = gc(&later, HOUR, true).await;
        assert_eq!((found.removed, found.bytes), (1, 6));
        assert_eq!(gc(&later, HOUR, false).await, found);
        assert_eq!(gc(&later, ANY, false).await.removed, 0);
    });
}

/// Leaves an upload of 20 MiB that its process does not live to complete.
fn die_in_an_upload(place: &TestStore) {
    let (proxy, proxied) = place.proxied();
    let mut child = proxied
        .command()
        .args(["save", "bot/large", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("persist starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(&noise(1, 20 << 20)).expect("persist reads");
    let sent = || {
        let seen = proxy.seen().into_iter();
        let mut sent = seen.filter(|seen| seen.operation() == "UploadPart" && !is_probe(seen));
        sent.any(|seen| seen.answer.is_some())
    };
    while !sent() {
        assert!(child.try_wait().expect("it can be asked").is_none());
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("it is killed");
    child.wait().expect("it ends");
}

#[test]
fn old_uploads_are_removed_and_other_stores_are_untouched() {
    for kind in [Kind::SeaweedFs, Kind::Ministack] {
        let place = TestStore::on(kind);
        let other = TestStore::on(kind);
        die_in_an_upload(&place);
        block_on(async {
            let store = Store::new(place.storage());
            let mut elsewhere = other
                .scope()
                .writer("stream", SaveOptions::default())
                .await
                .expect("a writer");
            let state = noise(2, 20 << 20);
            elsewhere.write(&state).await.expect("writes");

            assert_eq!(gc(&store, HOUR, false).await.removed, 0, "too young");
            assert_eq!(gc(&store, ANY, true).await.removed, 1, "{kind:?}");
            assert_eq!(gc(&store, ANY, false).await.removed, 1, "{kind:?}");
            assert_eq!(gc(&store, ANY, true).await.removed, 0, "{kind:?}");
            elsewhere.finish().await.expect("it was left alone");
            // No caller knows of unfinished saves.
            assert_eq!(load(&place.scope(), "large").await, None);
        });
    }
}

#[test]
fn a_save_whose_upload_is_swept_is_not_acknowledged() {
    block_on(async {
        let place = TestStore::on(Kind::SeaweedFs);
        let store = Store::new(place.storage());
        let scope = place.scope();
        save(&scope, "memory", "first").await;
        let mut writer = scope
            .writer("memory", SaveOptions::default())
            .await
            .expect("a writer");
        writer.write(&noise(1, 20 << 20)).await.expect("writes");
        assert_eq!(gc(&store, ANY, false).await.removed, 1);
        let refused = writer.finish().await;
        assert!(refused.is_err(), "{refused:?}");
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("first"));
    });
}

#[test]
fn a_missing_list_uploads_permission_is_named() {
    block_on(async {
        let place = TestStore::on(Kind::SeaweedFs);
        save(&place.scope(), "memory", "x").await;
        let (proxy, proxied) = place.proxied();
        proxy.rule(|_, seen| {
            (seen.operation() == "ListMultipartUploads")
                .then(|| Fault::Reply(Reply::s3(403, "AccessDenied")))
        });
        let denied = Store::new(proxied.storage())
            .gc(&options(HOUR, false))
            .await;
        assert!(
            matches!(&denied, Err(Error::Storage(error)) if error.kind() == ErrorKind::Denied
                && error.hint().is_some_and(|hint| hint.contains("s3:ListBucketMultipartUploads"))),
            "{denied:?}"
        );
    });
}
