//! Servers that do not keep what a store needs, and how they are refused before the first save.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::Forward;
use persist_host::snapshot::{Error, Expect, GcOptions, SaveOptions, Scope, Store};
use persist_host::storage::probe::Way;
use persist_host::storage::{
    self, ErrorKind, Key, List, Memory, Page, ReadRange, RecursiveList, Storage, StorageConfig,
};
use persist_servers::Kind;
use persist_tests::proxy::{Fault, Proxy, Reply, Seen};
use persist_tests::store::{Backend, SERVERS, TestStore};
use persist_tests::{block_on, gcs, load, noise, save, text};

/// More than a part.
fn large() -> Bytes {
    noise(3, (9 << 20) + 5).into()
}

/// Fault of a server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bug {
    None,
    /// It looks whether an object is there, and writes it afterwards.
    LooksThenWrites,
    /// It acknowledges one of several writers and keeps the bytes of another.
    KeepsForeign,
    /// It refuses the header of a store as being there, and does not show it.
    HidesHeader,
    /// It keeps all objects from being deleted.
    KeepsAll,
}

/// A server in memory, which is none of Amazon's or Google's.
#[derive(Clone, Debug)]
struct Server {
    memory: Memory,
    name: &'static str,
    bug: Bug,
    creates: Arc<AtomicUsize>,
}

impl Server {
    fn new(bug: Bug) -> Self {
        Self {
            memory: Memory::new(),
            name: "http://server.example",
            bug,
            creates: Arc::default(),
        }
    }

    fn scope(&self) -> Scope {
        persist_tests::scope(Arc::new(self.clone()))
    }

    /// Keys of all objects.
    async fn keys(&self) -> Vec<String> {
        let list = RecursiveList::new("");
        let page = self.memory.list_recursive(&list).await.expect("a page");
        page.objects.into_iter().map(|object| object.name).collect()
    }

    async fn overwrite(&self, key: &Key, body: &[Bytes]) -> storage::Result<()> {
        let mut upload = self.memory.replace(key).await?;
        for piece in body {
            upload.write(piece.clone()).await?;
        }
        upload.finish().await
    }
}

#[async_trait]
impl Forward for Server {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.memory.clone())
    }

    fn location(&self) -> String {
        self.name.into()
    }

    // To be probed, as a storage of others is.
    fn supports_conditional_create(&self) -> bool {
        false
    }

    fn unknown_server(&self) -> Option<String> {
        Some(self.name.into())
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> storage::Result<()> {
        self.creates.fetch_add(1, Ordering::Relaxed);
        let is_there = || self.memory.read(key, ReadRange::Suffix(1));
        match self.bug {
            Bug::LooksThenWrites if is_there().await.is_err() => {
                tokio::task::yield_now().await;
                self.overwrite(key, &body).await
            }
            Bug::KeepsForeign if is_there().await.is_ok() => {
                self.overwrite(key, &body).await?;
                Err(storage::Error::new(ErrorKind::AlreadyExists, "it is there"))
            }
            Bug::HidesHeader if key.as_str() == "~/store.json" => {
                Err(storage::Error::new(ErrorKind::AlreadyExists, "it is there"))
            }
            _ => self.memory.create(key, body).await,
        }
    }

    async fn delete(&self, key: &Key) -> storage::Result<()> {
        match self.bug {
            Bug::KeepsAll => Err(storage::Error::new(
                ErrorKind::Denied,
                "retentionPolicyNotMet",
            )),
            _ => self.memory.delete(key).await,
        }
    }
}

async fn try_save(scope: &Scope) -> Result<u64, Error> {
    let saved = scope
        .save("memory", "x".into(), SaveOptions::default())
        .await;
    saved.map(|info| info.version)
}

#[test]
fn servers_without_exclusive_creates_are_refused_before_a_save() {
    for bug in [Bug::LooksThenWrites, Bug::KeepsForeign] {
        block_on(async {
            let server = Server::new(bug);
            for _ in 0..2 {
                let refused = try_save(&server.scope()).await.expect_err("is refused");
                let said = format!("{refused}: {}", refused.hint().unwrap_or_default());
                let is_unsupported = matches!(refused, Error::Unsupported { .. });
                assert!(
                    is_unsupported && said.contains("nothing was saved"),
                    "{said}"
                );
                assert_eq!(server.keys().await, [""; 0], "{bug:?} leaves something");
            }
        });
    }
}

#[test]
fn a_server_is_probed_once_for_each_store_and_server() {
    block_on(async {
        let server = Server::new(Bug::None);
        try_save(&server.scope()).await.expect("saves");
        let probed = server.creates.swap(0, Ordering::Relaxed);
        assert!(probed > 80, "{probed} creates");
        try_save(&server.scope()).await.expect("saves");
        // The header once more, and the version.
        assert_eq!(server.creates.swap(0, Ordering::Relaxed), 2);

        // The same objects behind another server.
        let copied = Server {
            name: "http://copy.example",
            ..server.clone()
        };
        try_save(&copied.scope()).await.expect("saves");
        let probed = copied.creates.swap(0, Ordering::Relaxed);
        assert!(probed > 80, "{probed} creates");
        let worse = Server {
            name: "http://worse.example",
            bug: Bug::LooksThenWrites,
            ..server.clone()
        };
        try_save(&worse.scope()).await.expect_err("is refused");
        let left = server.keys().await;
        assert!(!left.iter().any(|key| key.contains("probe-")), "{left:?}");
    });
}

#[test]
fn a_server_that_refuses_the_header_and_does_not_show_it_gets_no_save() {
    block_on(async {
        let server = Server::new(Bug::HidesHeader);
        let refused = try_save(&server.scope()).await;
        assert!(
            matches!(refused, Err(Error::Unsupported { .. })),
            "{refused:?}"
        );
        let keys = server.keys().await;
        assert!(!keys.iter().any(|key| key.starts_with("bot/")), "{keys:?}");
    });
}

#[test]
fn a_bucket_that_keeps_deleted_objects_can_hold_a_store() {
    block_on(async {
        let server = Server::new(Bug::KeepsAll);
        assert_eq!(try_save(&server.scope()).await.expect("saves"), 1);
        assert_eq!(try_save(&server.scope()).await.expect("saves"), 2);
    });
    // The same with the answer of Google's.
    let (proxy, place) = TestStore::on(Kind::FakeGcs).proxied();
    proxy.rule(|_, seen| {
        let refusal = gcs::refusal(403, "retentionPolicyNotMet");
        (gcs::operation(seen) == "delete").then_some(Fault::Reply(refusal))
    });
    block_on(async {
        assert_eq!(save(&place.scope(), "memory", "x").await.version, 1);
        assert!(proxy.faults() > 0, "probes were deleted");
    });
}

#[test]
fn another_service_in_the_place_of_a_store_is_called_so() {
    for body in ["<html>log in</html>", "{\"error\":\"not found\"}"] {
        block_on(async {
            let memory = Memory::new();
            let key = Key::new("~/store.json").expect("a key");
            memory
                .create(&key, vec![body.into()])
                .await
                .expect("creates");
            let refused = try_save(&persist_tests::scope(Arc::new(memory))).await;
            let said = refused.expect_err("is refused").to_string();
            assert!(said.contains("another service answers"), "{said}");
            assert!(!said.contains("restore an older version"), "{said}");
        });
    }
}

#[test]
fn directory_buckets_are_refused_by_name() {
    let refused = StorageConfig::s3_with_bucket("agents--use1-az4--x-s3".into()).build();
    let said = refused.expect_err("is refused").to_string();
    assert!(said.contains("directory bucket"), "{said}");
}

#[test]
fn real_servers_that_keep_conditions_pass_every_probe() {
    block_on(async {
        for storage in [
            TestStore::probed(Kind::FakeGcs).storage(),
            TestStore::probed(Kind::Ministack).storage(),
        ] {
            storage::probe::lists(&storage)
                .await
                .expect("lists in order");
            let raced = storage::probe::race(&storage, Way::Single).await;
            raced.expect("keeps conditions");
        }
        let storage = TestStore::probed(Kind::FakeGcs).storage();
        let raced = storage::probe::race(&storage, Way::Parts).await;
        raced.expect("keeps conditions of uploads");
    });
}

#[test]
fn a_server_that_puts_parts_together_without_a_look_takes_no_large_state() {
    block_on(async {
        let place = TestStore::probed(Kind::SeaweedFs);
        for _ in 0..2 {
            let scope = place.scope();
            save(&scope, "memory", "small").await;
            let refused = scope.save("memory", large(), SaveOptions::default()).await;
            let error = refused.expect_err("is refused");
            let said = format!("{error}: {}", error.hint().unwrap_or_default());
            assert!(
                said.contains("in parts") && said.contains("nothing was saved"),
                "{said}"
            );
            assert_eq!(load(&scope, "memory").await.as_deref(), Some("small"));
        }
        let mut options = GcOptions::default();
        (options.older_than, options.dry_run) = (Duration::ZERO, true);
        let left = Store::new(place.storage()).gc(&options).await;
        assert_eq!(
            left.expect("lists").removed,
            0,
            "nothing is left of the probes"
        );
    });
}

/// Tells the requests that make an object visible: in one request, and in parts.
fn creates(place: &TestStore, way: Way) -> fn(&Seen) -> bool {
    match (place.backend(), way) {
        (Backend::S3, Way::Single) => |seen| seen.operation() == "PutObject",
        (Backend::S3, Way::Parts) => |seen| seen.operation() == "CompleteMultipartUpload",
        (Backend::Gcs, Way::Single) => |seen| gcs::operation(seen) == "insert",
        (Backend::Gcs, Way::Parts) => |seen| gcs::operation(seen) == "last part",
        (Backend::Local, _) => |_| false,
    }
}

/// Answers as a server that made the object that it was sent.
fn made(place: &TestStore, seen: &Seen) -> Reply {
    match place.backend() {
        Backend::Local | Backend::S3 => {
            let done =
                "<CompleteMultipartUploadResult><ETag>0</ETag></CompleteMultipartUploadResult>";
            Reply::new(200, done).header("etag", "\"0\"")
        }
        Backend::Gcs => {
            let total = seen
                .header("content-range")
                .and_then(|range| range.rsplit_once('/'));
            let size = total.map_or("0", |(_, total)| total);
            let object = format!("{{\"name\":\"x\",\"generation\":\"1\",\"size\":\"{size}\"}}");
            gcs::json(200, object)
        }
    }
}

/// Loses the first request that makes an object visible, and acknowledges the second, which does
/// not come to the server either.
fn acknowledge_the_second(proxy: &Proxy, place: &TestStore, way: Way) {
    let (met, place, creates) = (AtomicUsize::new(0), place.clone(), creates(place, way));
    proxy.rule(move |_, seen| {
        if !creates(seen) {
            return None;
        }
        match met.fetch_add(1, Ordering::Relaxed) {
            0 => Some(Fault::RequestLost),
            1 => Some(Fault::Reply(made(&place, seen))),
            _ => None,
        }
    });
}

#[test]
fn an_acknowledgement_after_a_lost_answer_is_verified() {
    for place in SERVERS.map(TestStore::on) {
        for (way, other_is_first) in [Way::Single, Way::Parts]
            .into_iter()
            .flat_map(|way| [(way, false), (way, true)])
        {
            block_on(async {
                let name = format!("{way:?}-{other_is_first}");
                let honest = place.scope();
                let (proxy, proxied) = place.proxied();
                let scope = proxied.scope();
                save(&scope, &name, "first").await;
                let expect = SaveOptions::expecting(Expect::Version(1));
                let mut writer = scope.writer(&name, expect).await.expect("a writer");
                if way == Way::Parts {
                    writer.write(&large()).await.expect("writes");
                }
                if other_is_first {
                    save(&honest, &name, "another's").await;
                }
                acknowledge_the_second(&proxy, &place, way);
                let finished = writer.finish().await;
                assert_eq!(proxy.faults(), 2, "{place:?} {name}");
                let there = load(&honest, &name).await;
                if other_is_first {
                    let is_conflict = matches!(finished, Err(Error::Conflict { head: Some(2) }));
                    assert!(is_conflict, "{place:?} {name}: {finished:?}");
                    assert_eq!(there.as_deref(), Some("another's"));
                } else {
                    let is_unknown = matches!(finished, Err(Error::UnknownOutcome { .. }));
                    assert!(is_unknown, "{place:?} {name}: {finished:?}");
                    assert_eq!(there.as_deref(), Some("first"));
                }
            });
        }
    }
}

#[test]
fn a_good_server_whose_answers_are_lost_passes_the_probe_of_uploads() {
    for fault in [Fault::ReplyLost, Fault::RequestLost] {
        block_on(async {
            let (proxy, place) = TestStore::probed(Kind::FakeGcs).proxied();
            let count = AtomicUsize::new(0);
            proxy.rule(move |_, seen| {
                let is_met = gcs::operation(seen) == "last part"
                    && count.fetch_add(1, Ordering::Relaxed).is_multiple_of(3);
                is_met.then(|| fault.clone())
            });
            let raced = storage::probe::race(&place.storage(), Way::Parts).await;
            raced.expect("keeps conditions");
            assert!(proxy.faults() > 0);
        });
    }
}

#[test]
fn a_probe_that_is_refused_for_another_reason_is_not_remembered() {
    block_on(async {
        let (proxy, place) = TestStore::probed(Kind::FakeGcs).proxied();
        let scope = place.scope();
        save(&scope, "memory", "small").await;
        proxy.rule(|_, seen| {
            let refusal = gcs::refusal(400, "invalid");
            (gcs::operation(seen) == "begin").then_some(Fault::Reply(refusal))
        });
        let options = SaveOptions::default;
        scope
            .save("memory", large(), options())
            .await
            .expect_err("is refused");
        proxy.forget();
        let saved = place.scope().save("memory", large(), options()).await;
        assert_eq!(saved.expect("saves").version, 2);
    });
}

/// Begins an upload of a part under a key, and leaves it.
async fn leave_upload(storage: &Arc<dyn Storage>, key: &str) {
    let key = Key::new(key).expect("a key");
    let upload = storage.upload_in_parts(&key, "part".into()).await;
    std::mem::forget(upload.expect("begins"));
}

#[test]
fn gc_leaves_the_uploads_of_other_programs() {
    block_on(async {
        let place = TestStore::on(Kind::SeaweedFs);
        save(&place.scope(), "memory", "x").await;
        let storage = place.storage();
        let own = "bot/~/memory/9999999997-0000000002.gz";
        for key in [own, "backups/db.dump", "videos/2026/cam1.mp4"] {
            leave_upload(&storage, key).await;
        }
        let store = Store::new(Arc::clone(&storage));
        let mut options = GcOptions::default();
        options.older_than = Duration::ZERO;
        assert_eq!(store.gc(&options).await.expect("removes").keys, [own]);
        options.all_uploads = true;
        let mut swept = store.gc(&options).await.expect("removes");
        swept.keys.sort();
        assert_eq!(swept.keys, ["backups/db.dump", "videos/2026/cam1.mp4"]);
        assert_eq!(store.gc(&options).await.expect("removes").removed, 0);
    });
}

#[test]
fn uploads_are_listed_without_a_prefix_as_minio_wants_it() {
    block_on(async {
        let place = TestStore::on(Kind::SeaweedFs);
        save(&place.scope(), "memory", "x").await;
        let (proxy, proxied) = place.proxied();
        // MinIO lists nothing where there is a prefix that is no key.
        proxy.rule(|_, seen| {
            let is_asked = seen.operation() == "ListMultipartUploads";
            let query = seen.uri.query().unwrap_or_default();
            let empty = "<ListMultipartUploadsResult></ListMultipartUploadsResult>";
            (is_asked && query.contains("prefix=")).then(|| Fault::Reply(Reply::new(200, empty)))
        });
        leave_upload(&place.storage(), "bot/~/memory/9999999997-0000000002.gz").await;
        let mut options = GcOptions::default();
        options.older_than = Duration::ZERO;
        let swept = Store::new(proxied.storage()).gc(&options).await;
        assert_eq!(swept.expect("removes").removed, 1);
    });
}

#[test]
fn gc_works_without_listing_uploads_and_without_a_store() {
    let place = TestStore::on(Kind::SeaweedFs);
    let (proxy, proxied) = place.proxied();
    proxy.rule(|_, seen| {
        let is_asked = seen.operation() == "ListMultipartUploads";
        is_asked.then(|| Fault::Reply(Reply::s3(501, "NotImplemented")))
    });
    block_on(async {
        let probe = Key::new("~/probe-0-upload").expect("a key");
        let body = vec![Bytes::from_static(b"probe")];
        place.storage().create(&probe, body).await.expect("creates");
    });
    let output = proxied
        .command()
        .args(["gc", "--json"])
        .output()
        .expect("persist starts");
    let printed = text(&output.stdout);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(printed.contains("\"uploads_listed\":false"), "{printed}");
    assert!(
        said.contains("were not removed: this server cannot list them"),
        "{said}"
    );

    // Younger than an hour, a probe may be another host's. Without a store, it is looked at all the
    // same.
    let memory = Memory::new();
    let probe = Key::new("~/probe-0-upload").expect("a key");
    block_on(async {
        memory.create(&probe, vec![]).await.expect("creates");
        let later = Pages {
            memory: memory.clone(),
            change: age,
        };
        let swept = Store::new(Arc::new(later)).gc(&GcOptions::default()).await;
        assert_eq!(swept.expect("removes").keys, ["~/probe-0-upload"]);
        memory
            .read(&probe, ReadRange::Suffix(1))
            .await
            .expect_err("is removed");
    });
}

/// A storage in memory whose pages are changed before they are returned.
#[derive(Debug)]
struct Pages {
    memory: Memory,
    change: fn(&mut Page),
}

#[async_trait]
impl Forward for Pages {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.memory.clone())
    }

    async fn list(&self, list: &List<'_>) -> storage::Result<Page> {
        let mut list = list.clone();
        loop {
            let mut page = self.memory.list(&list).await?;
            list.after = page.entries.last().cloned();
            (self.change)(&mut page);
            // A server that leaves an entry out shows the next one in its place.
            if !page.entries.is_empty() || !page.more {
                return Ok(page);
            }
        }
    }
}

/// Makes objects look two days older.
fn age(page: &mut Page) {
    let two_days = Duration::from_secs(2 * 24 * 60 * 60);
    page.now = page.now.map(|now| now + two_days);
}

/// Leaves version 2 out.
fn forget_version_2(page: &mut Page) {
    let is_other = |name: &str| name != "9999999997-0000000002.gz";
    page.entries.retain(|entry| is_other(entry.name()));
}

#[test]
fn no_message_advises_to_remove_an_acknowledged_version() {
    block_on(async {
        let memory = Memory::new();
        let honest = persist_tests::scope(Arc::new(memory.clone()));
        for state in ["one", "two"] {
            save(&honest, "memory", state).await;
        }
        let scope = persist_tests::scope(Arc::new(Pages {
            memory,
            change: forget_version_2,
        }));
        let refused = try_save(&scope).await.expect_err("is refused");
        let message = refused.to_string();
        assert!(
            message.contains("version 2 and does not list it"),
            "{message}"
        );
        let hint = refused.hint().unwrap_or_default();
        assert!(hint.contains("do not remove this version"), "{hint}");
        assert_eq!(load(&honest, "memory").await.as_deref(), Some("two"));
    });
}

#[test]
fn a_file_is_sent_again_where_another_save_comes_first() {
    let dir = persist_tests::tempdir();
    let file = dir.path().join("state");
    std::fs::write(&file, large()).expect("writes");
    let place = TestStore::on(Kind::SeaweedFs);
    save_once(&place);
    let (proxy, proxied) = place.proxied();
    let other = place.clone();
    let met = AtomicUsize::new(0);
    proxy.rule(move |_, seen| {
        // Another host saves while the parts are under way.
        if seen.operation() == "UploadPart" && met.fetch_add(1, Ordering::Relaxed) == 0 {
            let other = other.clone();
            std::thread::spawn(move || save_once(&other))
                .join()
                .expect("no panic");
        }
        None
    });
    let mut command = proxied.command();
    command.args(["save", "bot/memory"]).arg(&file);
    let output = command.output().expect("persist starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let versions = block_on(async { place.scope().versions("memory", None, 9).await });
    assert_eq!(versions.expect("a page"), [3, 2, 1]);
    let newest = block_on(async { place.scope().load("memory", None).await });
    assert!(newest.expect("loads").expect("is there").state == large());
}

/// Saves a small state as another host.
fn save_once(place: &TestStore) {
    block_on(async { save(&place.scope(), "memory", "another's").await });
}
