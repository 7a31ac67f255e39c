//! Answers of S3 that are specific to it, when something fails: completions, conflicts, lost and
//! late answers.
//!
//! The server is a real one (SeaweedFS); the proxy before it does the harm.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use persist_host::snapshot::{Error, SaveOptions, Scope};
use persist_host::storage::{ErrorKind, Key, List, ReadRange};
use persist_servers::Kind;
use persist_tests::proxy::{Fault, Proxy, Reply, Seen};
use persist_tests::store::{TestStore, is_probe};
use persist_tests::{block_on, load, noise, save};

const OLD: &str = "old";

/// More than a part, so that it is uploaded in several; and more than one read.
fn large() -> Bytes {
    noise(7, (9 << 20) + 5).into()
}

/// A store in which nothing is saved under the name `new`, behind a proxy.
async fn ready() -> (Proxy, TestStore, Scope) {
    let place = TestStore::on(Kind::SeaweedFs);
    let (proxy, proxied) = place.proxied();
    let scope = proxied.scope();
    save(&scope, "old", OLD).await;
    proxy.forget();
    (proxy, place, scope)
}

/// Meets the first request of this kind, and no later one.
fn first(proxy: &Proxy, operation: &'static str, fault: Fault) {
    let met = AtomicBool::new(false);
    proxy.rule(move |_, seen| {
        let first =
            seen.operation() == operation && !is_probe(seen) && !met.swap(true, Ordering::Relaxed);
        first.then(|| fault.clone())
    });
}

#[test]
fn a_completion_is_looked_at_whatever_it_answers() {
    let error_body = Reply::s3(200, "InternalError");
    for (fault, makes) in [
        // The server did it, and then says that it did not.
        (Fault::DoneThen(Reply::s3(404, "NoSuchUpload")), true),
        (Fault::DoneThen(Reply::s3(412, "PreconditionFailed")), true),
        (
            Fault::DoneThen(Reply::s3(409, "ConditionalRequestConflict")),
            true,
        ),
        // Without a word of why.
        (Fault::DoneThen(Reply::new(404, "")), true),
        (Fault::DoneThen(Reply::new(410, "")), true),
        (Fault::DoneThen(error_body.clone()), true),
        (Fault::DoneThen(Reply::new(200, "")), true),
        // It did not, and a second attempt does.
        (Fault::Reply(error_body), true),
        // It did not, and says so in ways that cannot be believed.
        (Fault::Reply(Reply::s3(404, "NoSuchUpload")), false),
        (Fault::Reply(Reply::new(404, "")), false),
        (Fault::Reply(Reply::s3(412, "PreconditionFailed")), false),
    ] {
        block_on(async {
            let (proxy, place, scope) = ready().await;
            first(&proxy, "CompleteMultipartUpload", fault.clone());
            let saved = scope.save("new", large(), SaveOptions::default()).await;
            let mut writer = scope
                .writer("stream", SaveOptions::default())
                .await
                .expect("a writer");
            first(&proxy, "CompleteMultipartUpload", fault.clone());
            writer.write(&large()).await.expect("writes");
            let streamed = writer.finish().await;
            assert_eq!(proxy.faults(), 1, "{fault:?}");
            for (name, outcome) in [("new", saved), ("stream", streamed)] {
                let there = place.scope().versions(name, None, 9).await.expect("a page");
                match &outcome {
                    Ok(info) => assert_eq!(there, [info.version], "{name} {fault:?}"),
                    Err(Error::UnknownOutcome { .. }) => {}
                    Err(_) => assert!(there.is_empty(), "{name} {fault:?}: {outcome:?}"),
                }
                assert!(outcome.is_ok() || !makes, "{name} {fault:?}: {outcome:?}");
            }
        });
    }
}

#[test]
fn a_create_that_was_done_and_denied_is_recognised_as_ours() {
    for fault in [
        Fault::DoneThen(Reply::s3(412, "PreconditionFailed")),
        Fault::DoneThen(Reply::s3(409, "ConditionalRequestConflict")),
        Fault::DoneThen(Reply::s3(503, "SlowDown")),
        Fault::ReplyLost,
    ] {
        block_on(async {
            let (proxy, place, scope) = ready().await;
            first(&proxy, "PutObject", fault.clone());
            let saved = save(&scope, "new", "new").await;
            assert_eq!(proxy.faults(), 1);
            let there = place.scope().versions("new", None, 9).await;
            assert_eq!(there.expect("a page"), [saved.version], "{fault:?}");
        });
    }
}

/// Successes that are not of S3: what the login page of a network or a proxy answers.
fn foreign() -> [Reply; 3] {
    [
        Reply::new(200, ""),
        Reply::new(200, "<html>Log in to this network</html>"),
        Reply::new(204, ""),
    ]
}

#[test]
fn a_put_that_another_service_answers_is_not_acknowledged() {
    for reply in foreign() {
        block_on(async {
            let (proxy, place, scope) = ready().await;
            first(&proxy, "PutObject", Fault::Reply(reply.clone()));
            let saved = save(&scope, "new", "new").await;
            assert_eq!(proxy.faults(), 1, "{reply:?}");
            let there = place.scope().versions("new", None, 9).await;
            assert_eq!(there.expect("a page"), [saved.version], "{reply:?}");
        });
    }
}

#[test]
fn an_upload_that_another_service_answers_is_not_acknowledged() {
    for operation in [
        "CreateMultipartUpload",
        "UploadPart",
        "CompleteMultipartUpload",
    ] {
        for reply in foreign() {
            block_on(async {
                let (proxy, place, scope) = ready().await;
                first(&proxy, operation, Fault::Reply(reply.clone()));
                let saved = scope.save("new", large(), SaveOptions::default()).await;
                let saved = saved.unwrap_or_else(|error| panic!("{operation} {reply:?}: {error}"));
                assert_eq!(proxy.faults(), 1, "{operation} {reply:?}");
                let there = place.scope().load("new", Some(saved.version)).await;
                let there = there.expect("loads").expect("is there");
                assert_eq!(there.state.len(), large().len(), "{operation} {reply:?}");
            });
        }
    }
}

#[test]
fn a_deletion_that_another_service_answers_is_sent_again() {
    block_on(async {
        let place = TestStore::on(Kind::SeaweedFs);
        let (proxy, proxied) = place.proxied();
        let storage = proxied.storage();
        let key = Key::new("other/object").expect("a key");
        let created = storage.create(&key, vec!["x".into()]).await;
        created.expect("created");
        let page = Reply::new(200, "<html>Log in to this network</html>");
        first(&proxy, "DeleteObject", Fault::Reply(page));
        storage.delete(&key).await.expect("deleted");
        assert_eq!(proxy.faults(), 1);
        let read = storage.read(&key, ReadRange::Suffix(1)).await;
        let error = read.expect_err("the object is still there");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    });
}

#[test]
fn a_conflict_that_settles_nothing_is_tried_again() {
    block_on(async {
        let (proxy, _, scope) = ready().await;
        let conflict = Reply::s3(409, "ConditionalRequestConflict");
        first(&proxy, "PutObject", Fault::Reply(conflict));
        assert_eq!(save(&scope, "new", "new").await.version, 1);
        assert_eq!(proxy.faults(), 1);
    });
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    for status in [429, 503] {
        block_on(async {
            let (proxy, _, scope) = ready().await;
            let slow = Reply::s3(status, "SlowDown").header("retry-after", "1");
            first(&proxy, "PutObject", Fault::Reply(slow));
            let started = Instant::now();
            save(&scope, "new", "new").await;
            assert_eq!(proxy.faults(), 1);
            assert!(started.elapsed() >= Duration::from_secs(1));
        });
    }
}

#[test]
fn a_missing_response_is_an_error_after_the_retry_budget() {
    for (reply, kinds) in [
        (Reply::s3(503, "SlowDown"), [ErrorKind::Throttled; 2]),
        (Reply::s3(429, "SlowDown"), [ErrorKind::Throttled; 2]),
        (Reply::s3(403, "AccessDenied"), [ErrorKind::Denied; 2]),
        (
            Reply::s3(403, "ExpiredToken"),
            [ErrorKind::Unauthenticated; 2],
        ),
        (
            Reply::s3(500, "InternalError"),
            [ErrorKind::Unavailable, ErrorKind::Timeout],
        ),
    ] {
        block_on(async {
            let place = TestStore::on(Kind::SeaweedFs);
            let (proxy, proxied) = place.proxied();
            let mut config = proxied.config();
            config.retry.attempt = Duration::from_millis(500);
            config.retry.budget = Duration::from_secs(1);
            let storage = config.build().expect("a storage");
            let scope = persist_tests::scope(storage);
            save(&place.scope(), "old", OLD).await;
            let always = reply.clone();
            proxy.rule(move |_, _| Some(Fault::Reply(always.clone())));
            let failed = scope.load("old", None).await;
            assert!(
                matches!(&failed, Err(Error::Storage(error)) if kinds.contains(&error.kind())),
                "{reply:?}: {failed:?}"
            );
            let said = failed.map(drop).expect_err("failed").to_string();
            assert!(said.contains("PLANNED-REQUEST-ID"), "{said}");
            let saved = scope.save("new", "x".into(), SaveOptions::default()).await;
            assert!(saved.is_err());
            proxy.forget();
            assert_eq!(save(&scope, "new", "x").await.version, 1);
        });
    }
}

/// Returns the length of a suffix that a request asks for.
fn suffix(seen: &Seen) -> Option<u64> {
    let range = seen.header("range")?;
    range.strip_prefix("bytes=-")?.parse().ok()
}

#[test]
fn objects_are_read_from_servers_that_answer_a_long_suffix_wrong() {
    // Five of twelve servers that were tried answer so, each in its own way.
    let foreign = Reply::new(206, "x").header("content-range", "bytes 0-0/-1");
    for wrong in [
        Reply::s3(500, "InternalError"),
        Reply::s3(400, "InvalidArgument"),
        Reply::s3(416, "InvalidRange"),
        Reply::new(200, "other bytes"),
        foreign,
    ] {
        block_on(async {
            let (_proxy, place, scope) = ready().await;
            save(&scope, "large", &"x".repeat(10)).await;
            let state = large();
            scope
                .save("large", state.clone(), SaveOptions::default())
                .await
                .expect("saves");
            let (proxy, cold) = place.proxied();
            let cold = cold.scope();
            let answer = wrong.clone();
            // All but the second version of the large state are shorter than what is asked for.
            proxy.rule(move |_, seen| {
                let is_large = seen.uri.path().ends_with("/large/9999999997-0000000002.gz");
                (suffix(seen).is_some() && !is_large).then(|| Fault::Reply(answer.clone()))
            });
            assert_eq!(load(&cold, "old").await.as_deref(), Some(OLD), "{wrong:?}");
            // Its size is not known from a list.
            let first = cold.load("large", Some(1)).await.expect("loads");
            assert_eq!(first.expect("is there").state, "x".repeat(10));
            let loaded = cold.load("large", Some(2)).await.expect("loads");
            assert!(loaded.expect("is there").state == state, "{wrong:?}");
            let loaded = cold.load("large", None).await.expect("loads");
            assert!(loaded.expect("is there").state == state, "{wrong:?}");
            assert_eq!(proxy.faults(), 0, "{wrong:?}");
        });
    }
}

#[test]
fn a_listed_size_that_is_out_of_date_is_not_believed() {
    block_on(async {
        let place = TestStore::on(Kind::SeaweedFs);
        let storage = place.storage();
        let key = Key::new("a/b").expect("a key");
        let replace = async |text: &str| {
            let other = place.storage();
            let mut upload = other.replace(&key).await.expect("begins");
            upload.write(text.to_owned().into()).await.expect("writes");
            upload.finish().await.expect("replaces");
        };
        for (listed, there) in [("short", "longer than it was"), ("long enough", "short")] {
            replace(listed).await;
            storage.list(&List::new("a")).await.expect("lists");
            replace(there).await;
            for len in [6, 100] {
                let part = storage.read(&key, ReadRange::Suffix(len)).await;
                let part = part.expect("reads");
                let start = there.len().saturating_sub(len as usize);
                assert_eq!(part.bytes, &there.as_bytes()[start..], "{listed} {len}");
                assert_eq!(part.size, there.len() as u64);
            }
        }
    });
}
