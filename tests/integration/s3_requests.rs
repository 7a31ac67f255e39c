//! Costs of calls on S3, in requests.

use persist_host::snapshot::{Expect, SaveOptions, Scope};
use persist_host::storage::{ErrorKind, Key};
use persist_servers::Kind;
use persist_tests::proxy::Proxy;
use persist_tests::store::TestStore;
use persist_tests::{block_on, load, save, version_file};

/// The requests of a call, by the names that S3 has for them.
async fn asked<T>(proxy: &Proxy, call: impl Future<Output = T>) -> Vec<&'static str> {
    proxy.forget();
    call.await;
    proxy.operations()
}

#[test]
fn a_call_costs_the_same_requests_at_one_version_and_at_thousands() {
    // `PERSIST_TEST_VERSIONS` asks for more.
    let asked_for = std::env::var("PERSIST_TEST_VERSIONS").ok();
    let many = asked_for.map_or(2500, |count| count.parse().expect("a number"));
    let place = TestStore::on(Kind::SeaweedFs);
    let (proxy, proxied) = place.proxied();
    block_on(async {
        save(&place.scope(), "memory", "first").await;
        let mut head = 1;
        for filled in [1, many] {
            fill(&place, head, filled).await;
            head = filled;
            let scope = proxied.scope();
            // A process introduces itself once.
            save(&scope, "other", "x").await;
            let looked = asked(&proxy, save(&scope, "memory", "next")).await;
            assert_eq!(looked, ["ListObjectsV2", "PutObject"], "at {head}");
            let known = asked(&proxy, save(&scope, "memory", "next")).await;
            assert_eq!(known, ["PutObject"], "at {head}");
            head += 3;
            let expected = asked(&proxy, save_on(&scope, head - 1)).await;
            assert_eq!(expected, ["PutObject"], "at {head}");

            let cold = proxied.scope();
            let loaded = asked(&proxy, load(&cold, "memory")).await;
            assert_eq!(loaded, ["ListObjectsV2", "GetObject"], "at {head}");
            let stat = asked(&proxy, cold.stat("memory", None)).await;
            assert_eq!(stat, ["ListObjectsV2", "GetObject"], "at {head}");
            let page = asked(&proxy, cold.history("memory", None, 2)).await;
            assert_eq!(page, ["ListObjectsV2", "GetObject", "GetObject"]);
            let numbers = asked(&proxy, cold.versions("memory", None, 1000)).await;
            assert_eq!(numbers, ["ListObjectsV2"]);
        }
        let newest = place.scope().versions("memory", None, 1).await;
        assert_eq!(newest.expect("a page"), [many + 3]);
    });
}

/// Saves where this version is the newest.
async fn save_on(scope: &Scope, version: u64) {
    let options = SaveOptions::expecting(Expect::Version(version));
    let saved = scope.save("memory", "next".into(), options).await;
    assert_eq!(saved.expect("saves").version, version + 1);
}

#[test]
fn a_loaded_head_is_saved_again_in_one_request() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    block_on(async {
        let scopes = [place.scope(), place.scope()];
        for scope in &scopes {
            save(scope, "other", "x").await;
        }
        save(&scopes[0], "memory", "first").await;
        // An agent that comes to one host and then to another, as its requests do.
        for head in 1..6 {
            let scope = &scopes[head % 2];
            load(scope, "memory").await.expect("is there");
            let saved = asked(&proxy, save_on(scope, head as u64)).await;
            assert_eq!(saved, ["PutObject"], "at {head}");
        }
    });
}

#[test]
fn hosts_that_share_a_name_soon_look_before_they_save() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    block_on(async {
        let one = place.scope();
        let other = place.scope();
        for scope in [&one, &other] {
            save(scope, "other", "x").await;
            save(scope, "memory", "x").await;
        }
        let looked = ["ListObjectsV2", "PutObject"];
        // What it knows is out of date: the create is refused, then it looks.
        let refused = asked(&proxy, save(&one, "memory", "x")).await;
        assert_eq!(refused, [&["PutObject", "GetObject"][..], &looked].concat());
        save(&other, "memory", "x").await;
        for _ in 0..3 {
            for scope in [&one, &other] {
                assert_eq!(asked(&proxy, save(scope, "memory", "x")).await, looked);
            }
        }
        // Alone again, it notices that.
        for expected in [&looked[..], &looked, &["PutObject"], &["PutObject"]] {
            assert_eq!(asked(&proxy, save(&one, "memory", "x")).await, expected);
        }
        let all = place.scope().versions("memory", None, 100).await;
        assert_eq!(all.expect("a page").len(), 2 + 2 + 6 + 4);
    });
}

#[test]
fn names_after_a_name_before_the_prefix_are_listed_without_start_after() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    block_on(async {
        let scope = place.scope();
        for name in ["apple", "note-1", "note-2"] {
            save(&scope, name, "x").await;
        }
        for (after, listed, sent) in [
            ("apple", &["note-1", "note-2"][..], false),
            ("note-1", &["note-2"][..], true),
        ] {
            proxy.forget();
            let names = scope.names("note", Some(after), 100).await.expect("a page");
            let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
            assert_eq!(names, listed, "after {after}");
            let is_sent = proxy.seen().iter().any(|seen| {
                let query = seen.uri.query().unwrap_or_default();
                query.contains("start-after=")
            });
            assert_eq!(is_sent, sent, "after {after}");
        }
    });
}

/// Makes versions up to `last`, of the bytes of version 1: as a history of that length would lie
/// there.
async fn fill(place: &TestStore, head: u64, last: u64) {
    let storage = place.storage();
    let key = |version: u64| {
        let key = format!("bot/~/memory/{}", version_file(version));
        Key::new(key).expect("a key")
    };
    let whole = persist_host::storage::ReadRange::Suffix(1 << 20);
    let first = storage.read(&key(1), whole).await.expect("is there").bytes;
    let mut versions = head + 1..=last;
    while !versions.is_empty() {
        let made = versions.by_ref().take(16).map(|version| {
            let storage = storage.clone();
            let key = key(version);
            let body = vec![first.clone()];
            tokio::spawn(async move { storage.create(&key, body).await })
        });
        for made in made.collect::<Vec<_>>() {
            match made.await.expect("no panic") {
                // An attempt whose answer came too late made it.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made.expect("creates"),
            }
        }
    }
}
