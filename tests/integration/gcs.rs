//! Google Cloud Storage, on a server that others wrote: fake-gcs-server. What it cannot show
//! (credentials that are refused, keys of KMS, wrong checksums, answers that are lost) the proxy
//! before it says.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use persist_host::conformance;
use persist_host::snapshot::{Adapter, Error, SaveOptions, Scope};
use persist_host::storage::{ErrorKind, Gcs, Key, ReadRange, StorageConfig};
use persist_servers::Kind;
use persist_tests::gcs::{json, operation, operations, param, refusal};
use persist_tests::proxy::{Fault, Proxy, Seen};
use persist_tests::store::TestStore;
use persist_tests::{block_on, guest, load, noise, save, text};
use tokio::io::AsyncReadExt as _;

#[test]
fn fake_gcs_server_conforms() {
    let place = TestStore::on(Kind::FakeGcs);
    let report = block_on(conformance::run(&|| place.storage()));
    assert!(report.is_ok(), "{report}");
}

#[test]
fn an_agent_remembers_on_gcs_from_one_run_to_the_next() {
    let place = TestStore::on(Kind::FakeGcs);
    let agent = guest("chat_memory");
    let ok = |args: &[&str]| {
        let output = place.command().args(args).output().expect("starts");
        let said = text(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        text(&output.stdout).to_owned()
    };
    let agent = agent.to_str().expect("text");
    ok(&["run", agent, "--", "say", "I live in Oslo"]);
    ok(&["run", agent, "--", "say", "and I like rain"]);
    assert!(ok(&["run", agent, "--", "recall", "Oslo"]).contains("I live in Oslo"));
    let listed = ok(&["ls", "-q"]);
    assert!(listed.starts_with("chat_memory/memory@2"), "{listed}");
    assert_eq!(
        ok(&["history", "-q", "chat_memory/memory"]).lines().count(),
        2
    );
}

#[test]
fn a_bucket_that_is_not_there_is_said_to_be_missing() {
    let place = TestStore::on(Kind::FakeGcs).with_bucket("no-such-bucket");
    for args in [&["ls"][..], &["cat", "bot/memory"], &["rm", "bot/memory"]] {
        let output = place.command().args(args).output().expect("starts");
        let said = text(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(said.contains("PERSIST_GCS_BUCKET"), "{args:?}: {said}");
    }
}

/// A state of several parts, and of more than one read.
fn state() -> Bytes {
    noise(7, (17 << 20) + 5).into()
}

async fn save_large(scope: &Scope, name: &str) -> persist_host::snapshot::Result<u64> {
    let saved = scope.save(name, state(), SaveOptions::default()).await;
    saved.map(|info| info.version)
}

/// A store in which `old` is saved, behind a proxy that saw nothing yet.
async fn ready(change: impl FnOnce(&mut StorageConfig)) -> (Proxy, TestStore, Scope) {
    let place = TestStore::on(Kind::FakeGcs).unprobed();
    save(&place.scope(), "old", "old").await;
    let (proxy, proxied) = place.proxied();
    let mut config = proxied.config();
    change(&mut config);
    let scope = persist_tests::scope(config.build().expect("a storage"));
    (proxy, place, scope)
}

/// Meets the first request of this kind, and no later one.
fn first(proxy: &Proxy, kind: &'static str, fault: Fault) {
    let met = AtomicBool::new(false);
    proxy.rule(move |_, seen| {
        let first = operation(seen) == kind
            && !seen.uri.path().contains("store.json")
            && param(seen, "name").is_none_or(|name| name.ends_with(".gz"))
            && !met.swap(true, Ordering::Relaxed);
        first.then(|| fault.clone())
    });
}

#[test]
fn a_call_costs_as_few_requests_as_it_can() {
    block_on(async {
        let (proxy, _, scope) = ready(|_| {}).await;
        save(&scope, "memory", "first").await;
        proxy.forget();
        save(&scope, "memory", "next").await;
        assert_eq!(operations(&proxy), ["insert"]);
        proxy.forget();
        load(&scope, "memory").await;
        assert_eq!(operations(&proxy), ["list", "get"]);
        proxy.forget();
        save(&scope, "large", "small yet").await;
        // The first upload of a process tries the server.
        save_large(&scope, "another").await.expect("saves");
        proxy.forget();
        save_large(&scope, "large").await.expect("saves");
        let asked = operations(&proxy);
        assert_eq!(asked, ["list", "begin", "part", "part", "last part"]);
        proxy.forget();
        let loaded = scope.load("large", None).await.expect("loads");
        assert!(loaded.expect("is there").state == state());
    });
}

#[test]
fn objects_are_created_with_condition_and_key_and_no_encoding() {
    let key = "projects/p/locations/l/keyRings/r/cryptoKeys/k";
    block_on(async {
        let (proxy, _, scope) = ready(|config| config.gcs_kms_key = Some(key.into())).await;
        save(&scope, "small", "small").await;
        save_large(&scope, "large").await.expect("saves");
        let seen = proxy.seen();
        let made = |seen: &&Seen| ["begin", "insert"].contains(&operation(seen));
        let made: Vec<_> = seen.iter().filter(made).collect();
        assert!(made.len() >= 2);
        for request in made {
            assert_eq!(param(request, "kmsKeyName").as_deref(), Some(key));
            assert_eq!(param(request, "ifGenerationMatch").as_deref(), Some("0"));
            assert_eq!(param(request, "contentEncoding"), None);
            assert_eq!(request.header("content-encoding"), None);
            assert_eq!(request.header("authorization"), None);
        }
    });
}

#[test]
fn a_save_whose_answer_is_lost_or_denied_is_recognised_as_ours() {
    for fault in [
        Fault::ReplyLost,
        Fault::CutDownload,
        Fault::DoneThen(refusal(412, "conditionNotMet")),
        Fault::DoneThen(refusal(500, "internalError")),
        Fault::DoneThen(refusal(503, "backendError")),
    ] {
        for kind in ["insert", "last part"] {
            block_on(async {
                let (proxy, place, scope) = ready(|_| {}).await;
                first(&proxy, kind, fault.clone());
                let saved = match kind {
                    "insert" => save(&scope, "new", "new").await.version,
                    _ => save_large(&scope, "new").await.expect("saves"),
                };
                assert_eq!(proxy.faults(), 1, "{kind} {fault:?}");
                let there = place.scope().versions("new", None, 9).await;
                assert_eq!(there.expect("a page"), [saved], "{kind} {fault:?}");
            });
        }
    }
}

#[test]
fn an_insert_that_names_no_generation_is_not_acknowledged() {
    for object in ["{}", "{\"error\":{\"code\":500}}"] {
        for kind in ["insert", "last part"] {
            block_on(async {
                let (proxy, place, scope) = ready(|_| {}).await;
                first(&proxy, kind, Fault::Reply(json(200, object)));
                let saved = match kind {
                    "insert" => save(&scope, "new", "new").await.version,
                    _ => save_large(&scope, "new").await.expect("saves"),
                };
                assert_eq!(proxy.faults(), 1, "{kind} {object}");
                let there = place.scope().versions("new", None, 9).await;
                assert_eq!(there.expect("a page"), [saved], "{kind} {object}");
            });
        }
    }
}

#[test]
fn a_list_or_deletion_that_another_service_answers_is_sent_again() {
    block_on(async {
        let (proxy, _, scope) = ready(|_| {}).await;
        first(&proxy, "list", Fault::Reply(json(200, "{}")));
        let versions = scope.versions("old", None, 9).await;
        assert_eq!(proxy.faults(), 1);
        assert_eq!(versions.expect("a page"), [1]);

        let place = TestStore::on(Kind::FakeGcs);
        let (proxy, proxied) = place.proxied();
        let storage = proxied.storage();
        let key = Key::new("other/object").expect("a key");
        let created = storage.create(&key, vec!["x".into()]).await;
        created.expect("created");
        let page = "<html>Log in to this network</html>";
        first(&proxy, "delete", Fault::Reply(json(200, page)));
        storage.delete(&key).await.expect("deleted");
        assert_eq!(proxy.faults(), 1);
        let read = storage.read(&key, ReadRange::Suffix(1)).await;
        let error = read.expect_err("the object is still there");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_completion_that_nobody_made_is_unknown_and_never_done() {
    for status in [404, 410] {
        block_on(async {
            let (proxy, place, scope) = ready(|_| {}).await;
            first(
                &proxy,
                "last part",
                Fault::Reply(refusal(status, "notFound")),
            );
            let saved = save_large(&scope, "new").await;
            assert!(
                matches!(saved, Err(Error::UnknownOutcome { .. })),
                "{saved:?}"
            );
            let there = place.scope().versions("new", None, 9).await;
            assert!(there.expect("a page").is_empty());
        });
    }
}

#[test]
fn an_object_of_other_bytes_than_were_sent_is_removed() {
    for kind in ["insert", "last part"] {
        block_on(async {
            let (proxy, place, scope) = ready(|_| {}).await;
            let other = "{\"name\":\"x\",\"bucket\":\"b\",\"generation\":\"1\",\"size\":\"1\",\"crc32c\":\"AAAAAA==\"}";
            first(&proxy, kind, Fault::DoneThen(json(200, other)));
            let saved = match kind {
                "insert" => scope
                    .save("new", "new".into(), SaveOptions::default())
                    .await
                    .map(|i| i.version),
                _ => save_large(&scope, "new").await,
            };
            let asked = operations(&proxy);
            assert!(asked.contains(&"delete"), "{kind}: {asked:?}");
            let there = place
                .scope()
                .versions("new", None, 9)
                .await
                .expect("a page");
            match saved {
                // It was sent again.
                Ok(version) => assert_eq!(there, [version], "{kind}"),
                Err(error) => assert!(there.is_empty(), "{kind}: {error}"),
            }
        });
    }
}

#[test]
fn a_repeated_refusal_is_an_error_with_a_hint() {
    for (reply, kinds, word) in [
        (
            refusal(401, "authError"),
            [ErrorKind::Unauthenticated; 2],
            "credentials",
        ),
        (
            refusal(403, "forbidden"),
            [ErrorKind::Denied; 2],
            "storage.objects.list",
        ),
        (
            refusal(429, "rateLimitExceeded"),
            [ErrorKind::Throttled; 2],
            "later",
        ),
        (
            refusal(403, "rateLimitExceeded"),
            [ErrorKind::Throttled; 2],
            "later",
        ),
        (
            refusal(503, "backendError"),
            [ErrorKind::Unavailable, ErrorKind::Timeout],
            "is available",
        ),
    ] {
        block_on(async {
            let (proxy, _, scope) = ready(|config| {
                config.gcs_timeout = Some(Duration::from_millis(500));
                config.retry.budget = Duration::from_secs(1);
            })
            .await;
            let always = reply.clone();
            proxy.rule(move |_, _| Some(Fault::Reply(always.clone())));
            let failed = scope.load("old", None).await;
            assert!(
                matches!(&failed, Err(Error::Storage(error)) if kinds.contains(&error.kind())),
                "{reply:?}: {failed:?}"
            );
            let error = failed.map(drop).expect_err("failed");
            let said = format!("{error}: {}", error.hint().unwrap_or_default());
            assert!(said.contains("PLANNED-REQUEST-ID"), "{said}");
            assert!(said.contains(word), "{said}");
            assert!(!said.contains("as planned"), "{said}");
            proxy.forget();
            assert_eq!(save(&scope, "new", "x").await.version, 1);
        });
    }
}

#[test]
fn an_object_that_changed_is_neither_read_nor_removed() {
    block_on(async {
        let (proxy, place, scope) = ready(|_| {}).await;
        first(&proxy, "get", Fault::Reply(refusal(412, "conditionNotMet")));
        let loaded = scope.load("old", None).await;
        assert!(matches!(&loaded, Err(Error::Storage(_))), "{loaded:?}");
        assert_eq!(load(&scope, "old").await.as_deref(), Some("old"));

        let key = Key::new("adapter/key").expect("a key");
        let (proxy, proxied) = place.proxied();
        let storage = proxied.storage();
        let made = storage.create(&key, vec!["kept".into()]).await;
        made.expect("creates");
        first(
            &proxy,
            "delete",
            Fault::Reply(refusal(412, "conditionNotMet")),
        );
        storage.delete(&key).await.expect_err("it was refused");
        let there = storage.read(&key, ReadRange::Suffix(9)).await;
        assert_eq!(there.expect("is there").bytes, "kept");
    });
}

#[test]
fn a_key_that_the_server_does_not_confirm_is_said_once() {
    let place = TestStore::on(Kind::FakeGcs);
    let mut save = place.command();
    save.args(["save", "bot/memory"]).env(
        "PERSIST_GCS_KMS_KEY",
        "projects/p/locations/l/keyRings/r/cryptoKeys/k",
    );
    let saved = crate::s3::with_bytes(&mut save, &noise(1, 10 << 20));
    let said = text(&saved.stderr);
    assert!(saved.status.success(), "{said}");
    assert_eq!(
        said.matches("does not confirm the requested encryption")
            .count(),
        1,
        "{said}"
    );
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    for status in [429, 503] {
        block_on(async {
            let (proxy, _, scope) = ready(|_| {}).await;
            let slow = refusal(status, "").header("retry-after", "1");
            first(&proxy, "list", Fault::Reply(slow));
            let started = Instant::now();
            load(&scope, "old").await;
            assert_eq!(proxy.faults(), 1);
            assert!(started.elapsed() >= Duration::from_secs(1));
        });
    }
}

/// Refuses the second write of one object within a second, as Google does; deletions count, too.
fn limit_writes(proxy: &Proxy) {
    let last = Mutex::new(HashMap::<String, Instant>::new());
    proxy.rule(move |_, seen| {
        let name = match operation(seen) {
            "insert" | "begin" => param(seen, "name")?,
            "delete" => seen.uri.path().to_owned(),
            _ => return None,
        };
        let mut last = last.lock().expect("no panic");
        let is_soon = last
            .get(&name)
            .is_some_and(|time| time.elapsed() < Duration::from_secs(1));
        if is_soon {
            return Some(Fault::Reply(refusal(429, "rateLimitExceeded")));
        }
        last.insert(name, Instant::now());
        None
    });
}

#[test]
fn ninety_hosts_save_at_once_although_each_object_is_written_once_a_second() {
    block_on(async {
        let place = TestStore::on(Kind::FakeGcs).unprobed();
        let (proxy, proxied) = place.proxied();
        limit_writes(&proxy);
        let mut hosts = tokio::task::JoinSet::new();
        for host in 0..90 {
            // A storage of its own, as another process has. The store is not there yet.
            let scope = persist_tests::scope(proxied.config().build().expect("a storage"));
            hosts.spawn(async move {
                let name = format!("name-{host}");
                scope.save(&name, "x".into(), SaveOptions::default()).await
            });
        }
        while let Some(saved) = hosts.join_next().await {
            let saved = saved.expect("no panic").expect("saves");
            assert_eq!(saved.version, 1);
        }
        assert!(proxy.faults() > 0, "the limit was met");
        let names = place.scope().names("name-", None, 100).await;
        assert_eq!(names.expect("a page").len(), 90);
    });
}

#[test]
fn a_throttled_create_looks_for_the_object_of_another_writer() {
    block_on(async {
        let place = TestStore::on(Kind::FakeGcs);
        let (proxy, proxied) = place.proxied();
        let storage = proxied.storage();
        let key = Key::new("other/object").expect("a key");
        let created = place.storage().create(&key, vec!["first".into()]).await;
        created.expect("created");
        // Its turn would never come.
        proxy.rule(|_, seen| {
            let refusal = refusal(429, "rateLimitExceeded");
            (operation(seen) == "insert").then_some(Fault::Reply(refusal))
        });
        let lost = storage.create(&key, vec!["second".into()]).await;
        let lost = lost.expect_err("another was first");
        assert_eq!(lost.kind(), ErrorKind::AlreadyExists);
        assert_eq!(operations(&proxy), ["insert", "get"]);
    });
}

#[test]
fn a_state_replaced_during_a_read_is_never_mixed() {
    block_on(async {
        let place = TestStore::on(Kind::FakeGcs);
        let (proxy, proxied) = place.proxied();
        let key = Key::new("adapter/key.gz").expect("a key");
        let put = async |byte: u8| {
            let mut put = place.storage().replace(&key).await.expect("begins");
            put.write(vec![byte; 20 << 20].into())
                .await
                .expect("writes");
            put.finish().await.expect("finishes");
        };
        put(1).await;
        // The object is another one as soon as the first piece was read.
        let (reading, mut read) = tokio::sync::mpsc::unbounded_channel();
        let gets = AtomicUsize::new(0);
        proxy.rule(move |_, _| {
            if gets.fetch_add(1, Ordering::Relaxed) == 0 {
                let _ = reading.send(());
            }
            Some(Fault::Latency(Duration::from_millis(100)))
        });
        let storage = proxied.storage();
        let all = storage.read(&key, ReadRange::Bounded(0..20 << 20));
        let (part, ()) = tokio::join!(all, async {
            read.recv().await;
            put(2).await;
        });
        let part = part.expect("reads");
        let byte = part.bytes[0];
        assert!(part.bytes.iter().all(|other| *other == byte));
    });
}

#[test]
fn a_stream_replaces_the_object_at_a_key_of_the_caller() {
    const KEY: &str = "agent1/large_snapshot.json.gz";
    block_on(async {
        let adapter = Adapter::new(TestStore::on(Kind::FakeGcs).storage());
        for state in [
            Bytes::from_static(b"small"),
            state(),
            noise(8, 9 << 20).into(),
        ] {
            let saved = adapter.save_stream(&state[..], KEY).await;
            saved.expect("saves");
            let mut stream = adapter.load_stream(KEY).await.expect("loads");
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.expect("reads");
            assert!(back == state);
        }
    });
}

/// A server of tokens, each another, and a file of credentials that names it.
fn account(dir: &std::path::Path) -> (Proxy, std::path::PathBuf) {
    let server = Proxy::start("nowhere");
    server.rule(|number, _| {
        let token = format!(
            "{{\"access_token\":\"PLANTED-TOKEN-{number}\",\"expires_in\":3600,\"token_type\":\"Bearer\"}}"
        );
        Some(Fault::Reply(json(200, token)))
    });
    let file = dir.join("credentials.json");
    let content = format!(
        "{{\"type\":\"authorized_user\",\"client_id\":\"id\",\"client_secret\":\"PLANTED-SECRET\",\
         \"refresh_token\":\"PLANTED-REFRESH\",\"token_uri\":\"{}/token\"}}",
        server.endpoint()
    );
    std::fs::write(&file, content).expect("writes");
    (server, file)
}

#[test]
fn every_request_carries_the_token_of_the_file_that_is_named() {
    let dir = persist_tests::tempdir();
    let (_tokens, file) = account(dir.path());
    block_on(async {
        let (proxy, _, scope) = ready(|config| config.gcs_credentials = Some(file)).await;
        save(&scope, "small", "small").await;
        save_large(&scope, "large").await.expect("saves");
        load(&scope, "small").await;
        let seen = proxy.seen();
        assert!(seen.len() > 5);
        for request in &seen {
            let token = request.header("authorization").unwrap_or_default();
            assert!(
                token.starts_with("Bearer PLANTED-TOKEN-"),
                "{}",
                operation(request)
            );
        }
    });
}

#[test]
fn a_token_that_is_refused_is_asked_for_anew_once() {
    let dir = persist_tests::tempdir();
    let (_tokens, file) = account(dir.path());
    block_on(async {
        let (proxy, _, scope) = ready(|config| config.gcs_credentials = Some(file)).await;
        let refused = Mutex::new(None::<String>);
        // Whatever token comes first has expired.
        proxy.rule(move |_, seen| {
            let token = seen.header("authorization").map(str::to_owned);
            let mut refused = refused.lock().expect("no panic");
            let first = refused.get_or_insert_with(|| token.clone().unwrap_or_default());
            (token.as_ref() == Some(first)).then(|| Fault::Reply(refusal(401, "authError")))
        });
        assert_eq!(load(&scope, "old").await.as_deref(), Some("old"));
        assert_eq!(proxy.faults(), 1);
    });
}

#[test]
fn credentials_that_cannot_be_had_say_so_and_show_nothing() {
    let dir = persist_tests::tempdir();
    let (tokens, file) = account(dir.path());
    tokens.rule(|_, _| Some(Fault::Reply(json(400, "{\"error\":\"invalid_grant\"}"))));
    let broken = dir.path().join("broken.json");
    std::fs::write(&broken, "PLANTED-SECRET").expect("writes");
    let missing = dir.path().join("missing.json");
    for file in [file, broken, missing] {
        block_on(async {
            let (proxy, _, scope) = ready(|config| config.gcs_credentials = Some(file)).await;
            let failed = scope.load("old", None).await;
            assert!(
                matches!(&failed,
                Err(Error::Storage(error)) if error.kind() == ErrorKind::Unauthenticated),
                "{failed:?}"
            );
            let said = format!(
                "{failed:?} {}",
                failed.as_ref().map(drop).expect_err("failed")
            );
            assert!(!said.contains("PLANTED"), "{said}");
            assert!(said.contains("GOOGLE_APPLICATION_CREDENTIALS"), "{said}");
            assert!(proxy.seen().is_empty());
        });
    }
}

#[test]
fn on_a_machine_of_googles_the_metadata_server_is_asked_for_a_token() {
    let metadata = Proxy::start("nowhere");
    metadata.rule(|_, _| {
        let token =
            "{\"access_token\":\"PLANTED-TOKEN\",\"expires_in\":3600,\"token_type\":\"Bearer\"}";
        Some(Fault::Reply(json(200, token)))
    });
    let home = persist_tests::tempdir();
    let mut host = TestStore::on(Kind::FakeGcs).command();
    host.env_remove("STORAGE_EMULATOR_HOST")
        .env(
            "GCE_METADATA_HOST",
            metadata.endpoint().trim_start_matches("http://"),
        )
        .env("HOME", home.path())
        // Nothing reaches Google.
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .arg("ls")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut host = host.spawn().expect("persist starts");
    let asked = |seen: &Seen| {
        seen.uri.path().ends_with("/token") && seen.header("metadata-flavor") == Some("Google")
    };
    for _ in 0..600 {
        if metadata.seen().iter().any(asked) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    host.kill().expect("it goes on trying");
    host.wait().expect("it ends");
    assert!(metadata.seen().iter().any(asked), "{:?}", metadata.seen());
}

#[test]
fn a_bucket_is_validated_as_far_as_the_account_may() {
    block_on(async {
        let (proxy, place) = TestStore::on(Kind::FakeGcs).proxied();
        let gcs = |place: &TestStore| Gcs::new(&place.config()).expect("a storage");
        assert!(gcs(&place).bucket_is_there().await.expect("answers"));
        proxy.rule(|_, _| Some(Fault::Reply(refusal(403, "forbidden"))));
        assert!(!gcs(&place).bucket_is_there().await.expect("no failure"));
        proxy.forget();
        let missing = place.with_bucket("no-such-bucket");
        let error = gcs(&missing).bucket_is_there().await.expect_err("missing");
        assert_eq!(error.kind(), ErrorKind::Config);
    });
}

#[test]
fn logs_show_no_credentials_or_payloads_and_keys_only_at_debug() {
    let dir = persist_tests::tempdir();
    let (_tokens, file) = account(dir.path());
    let place = TestStore::on(Kind::FakeGcs);
    for level in ["warn", "debug", "trace"] {
        let log = logged(&place, &file, level);
        for word in ["PLANTED", "Bearer"] {
            let found = log.lines().find(|line| line.contains(word));
            assert_eq!(found, None, "{level}");
        }
        let shown = log.contains("secret-name");
        assert_eq!(shown, level != "warn", "{level}");
    }
}

/// Returns the log of calls that are sent again, and of one that is given up.
fn logged(place: &TestStore, file: &std::path::Path, level: &str) -> String {
    let (proxy, proxied) = place.proxied();
    let mut config = proxied.config();
    config.gcs_credentials = Some(file.to_owned());
    let storage = config.build().expect("a storage");
    config.gcs_timeout = Some(Duration::from_millis(2000));
    config.retry.budget = Duration::from_millis(2500);
    let hurried = config.build().expect("a storage");
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level.parse::<tracing::Level>().expect("a level"))
        .with_ansi(false)
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .finish();
    // On this thread alone: other tests log elsewhere.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let scope = persist_tests::scope(storage);
            for (name, after) in [("secret-name", 0), ("secret-name", 1)] {
                proxy.plan(after, Fault::Reply(refusal(503, "backendError")));
                save(&scope, name, "PLANTED-PAYLOAD").await;
            }
            proxy.rule(|_, _| Some(Fault::Reply(refusal(503, "backendError"))));
            let scope = persist_tests::scope(hurried);
            scope.load("secret-name", None).await.expect_err("given up");
        });
    });
    log.text()
}

/// A log in memory.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        let bytes = self.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("text")
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
