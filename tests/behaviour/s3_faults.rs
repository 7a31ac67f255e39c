//! S3 with a fault at each request of each operation. Whatever happens: the outcome is never misreported, and the next call works.
//!
//! The server is a real one (SeaweedFS); the proxy before it does the harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use persist_host::snapshot::{Error, Expect, Result, SaveOptions, Scope, Store};
use persist_host::storage::{ErrorKind, StorageConfig};
use persist_servers::{Fault, Kind, Proxy, Reply, Seen};
use persist_tests::s3::Place;
use persist_tests::{block_on, noise, save};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// An operation on a store in which another host saved `old`, and for `LoadLarge` also `large`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operation {
    Save,
    SaveLarge,
    Delete,
    Restore,
    Load,
    LoadLarge,
    Stat,
    History,
    Names,
}

const SMALL: [Operation; 7] = [
    Operation::Save,
    Operation::Delete,
    Operation::Restore,
    Operation::Load,
    Operation::Stat,
    Operation::History,
    Operation::Names,
];

const LARGE: [Operation; 2] = [Operation::SaveLarge, Operation::LoadLarge];

const OLD: &str = "old";

/// More than a part, so that it is uploaded in several; and more than one read.
fn large() -> Bytes {
    noise(7, (9 << 20) + 5).into()
}

/// What an operation says that it did, or found.
#[derive(Debug)]
enum Said {
    /// This version of this name is now there.
    Made(&'static str, u64),
    Read,
}

impl Operation {
    async fn run(self, scope: &Scope) -> Result<Said> {
        let any = SaveOptions::default;
        match self {
            Self::Save => {
                let info = scope.save("new", "new".into(), any()).await?;
                Ok(Said::Made("new", info.version))
            }
            Self::SaveLarge => {
                let info = scope.save("new", large(), any()).await?;
                Ok(Said::Made("new", info.version))
            }
            Self::Delete => {
                let info = scope.delete("old", Expect::Any).await?;
                Ok(Said::Made("old", info.version))
            }
            Self::Restore => {
                let info = scope.restore("old", 1, Expect::Any).await?;
                Ok(Said::Made("old", info.version))
            }
            Self::Load => {
                let loaded = scope.load("old", None).await?.expect("it is there");
                assert_eq!(loaded.state, OLD, "a load returned other bytes");
                Ok(Said::Read)
            }
            Self::LoadLarge => {
                let loaded = scope.load("large", None).await?.expect("it is there");
                assert!(loaded.state == large(), "a load returned other bytes");
                Ok(Said::Read)
            }
            Self::Stat => {
                let info = scope.stat("old", None).await?.expect("it is there");
                assert_eq!((info.version, info.size), (1, OLD.len() as u64));
                Ok(Said::Read)
            }
            Self::History => {
                let page = scope.history("old", None, 10).await?;
                assert_eq!(page.len(), 1, "a page forgot a version");
                Ok(Said::Read)
            }
            Self::Names => {
                let names = scope.names("", None, 10).await?;
                assert!(!names.is_empty(), "a page forgot a name");
                Ok(Said::Read)
            }
        }
    }

    /// The version that it makes.
    fn makes(self) -> Option<(&'static str, u64)> {
        match self {
            Self::Save | Self::SaveLarge => Some(("new", 1)),
            Self::Delete | Self::Restore => Some(("old", 2)),
            _ => None,
        }
    }
}

/// One operation with one fault.
#[derive(Clone, Debug)]
struct Case {
    operation: Operation,
    request: usize,
    fault: Fault,
    /// Whether nobody should notice: the fault passes, and what it met is sent again.
    passes: bool,
}

/// Runs a case, and says whether the operation had a request for it to meet.
async fn judge(case: &Case) -> bool {
    let place = Place::on(Kind::SeaweedFs);
    let honest = place.scope();
    save(&honest, "old", OLD).await;
    if case.operation == Operation::LoadLarge {
        let saved = honest.save("large", large(), SaveOptions::default()).await;
        saved.expect("saves");
    }
    let (proxy, proxied) = place.proxied();
    let scope = impatient(&proxied.config());
    let (request, fault) = (case.request, case.fault.clone());
    proxy
        .rule(move |number, seen| (number == request && fits(&fault, seen)).then(|| fault.clone()));
    let outcome = case.operation.run(&scope).await;
    if proxy.seen().len() <= case.request {
        outcome.unwrap_or_else(|error| panic!("{case:?}: without a fault: {error}"));
        return false;
    }
    check(case, &proxy, &honest, &outcome).await;
    proxy.forget();
    again(case, &scope, &honest).await;
    true
}

/// Only objects carry checksums in S3: a bit that another one takes the place of in a list is TLS's to find.
fn fits(fault: &Fault, seen: &Seen) -> bool {
    !matches!(fault, Fault::Corrupt) || seen.operation() == "GetObject"
}

/// A host that does not wait long for an answer that never comes.
fn impatient(config: &StorageConfig) -> Scope {
    let mut config = config.clone();
    config.retry.attempt = Duration::from_secs(2);
    config.retry.stall = Duration::from_secs(2);
    let store = Store::new(config.build().expect("a storage"));
    store.scope("bot", None).expect("a name")
}

/// That what was said is so.
async fn check(case: &Case, proxy: &Proxy, honest: &Scope, outcome: &Result<Said>) {
    let seen = || format!("{case:?}: {outcome:?} after {:?}", proxy.operations());
    assert!(outcome.is_ok() || !case.passes, "{}", seen());
    let Some((name, version)) = case.operation.makes() else {
        return;
    };
    let there = honest.versions(name, None, 10).await.expect("a page");
    match outcome {
        Ok(Said::Made(made, number)) => {
            assert_eq!((*made, *number), (name, version), "{}", seen());
            assert_eq!(there.first(), Some(&version), "{}", seen());
            let state = honest.load(name, Some(version)).await.expect("loads");
            assert_eq!(
                state.map(|s| s.state),
                made_of(case.operation),
                "{}",
                seen()
            );
        }
        // It may be there, or not.
        Err(Error::UnknownOutcome { .. }) => {}
        _ => assert!(!there.contains(&version), "{}", seen()),
    }
}

/// The state of what an operation makes.
fn made_of(operation: Operation) -> Option<Bytes> {
    match operation {
        Operation::Save => Some("new".into()),
        Operation::SaveLarge => Some(large()),
        Operation::Restore => Some(OLD.into()),
        _ => None,
    }
}

/// That the same host goes on.
async fn again(case: &Case, scope: &Scope, honest: &Scope) {
    save(scope, "next", "next").await;
    let loaded = honest.load("next", None).await.expect("loads");
    assert_eq!(loaded.expect("is there").state, "next", "{case:?}");
}

/// Runs cases for each request of each operation, some at a time.
fn judge_all(operations: &'static [Operation], faults: Vec<(Fault, bool)>) {
    const AT_ONCE: usize = 8;
    /// More than any operation asks.
    const MOST: usize = 40;
    block_on(async {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for &operation in operations {
            for (fault, passes) in faults.clone() {
                let turns = Arc::clone(&turns);
                tasks.spawn(async move {
                    let mut met = 0;
                    for request in 0..MOST {
                        let _turn = turns.acquire().await.expect("open");
                        let case = Case {
                            operation,
                            request,
                            fault: fault.clone(),
                            passes,
                        };
                        if !judge(&case).await {
                            break;
                        }
                        met += 1;
                    }
                    // The simplest reads ask once.
                    assert!((1..MOST).contains(&met), "{operation:?} {fault:?}: {met}");
                    met
                });
            }
        }
        let mut cases = 0;
        while let Some(met) = tasks.join_next().await {
            cases += met.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        println!("{cases} cases");
    });
}

/// What happens on a bad day, and is over when the request is sent again.
fn that_pass() -> Vec<(Fault, bool)> {
    let answers = [
        Reply::s3(503, "SlowDown"),
        Reply::s3(429, "TooManyRequests"),
        Reply::s3(500, "InternalError"),
        Reply::new(502, "<html>bad gateway</html>"),
    ];
    let connections = [
        Fault::CutUpload,
        Fault::RequestLost,
        Fault::ReplyLost,
        Fault::DoneThen(Reply::s3(500, "InternalError")),
        Fault::CutDownload,
        Fault::Latency(Duration::from_millis(50)),
    ];
    let all = connections.into_iter().chain(answers.map(Fault::Reply));
    all.map(|fault| (fault, true)).collect()
}

#[test]
fn a_fault_that_passes_is_noticed_by_nobody() {
    judge_all(&SMALL, that_pass());
}

#[test]
fn a_fault_that_passes_in_the_middle_of_a_large_state_is_noticed_by_nobody() {
    let some = that_pass().into_iter().filter(|(fault, _)| {
        matches!(
            fault,
            Fault::CutUpload | Fault::ReplyLost | Fault::CutDownload | Fault::DoneThen(_)
        )
    });
    judge_all(&LARGE, some.take(4).collect());
}

#[test]
fn an_answer_that_never_comes_is_not_waited_for_for_ever() {
    let stalls = vec![(Fault::Stall, true), (Fault::StallBody, true)];
    judge_all(
        &[Operation::Save, Operation::Load, Operation::LoadLarge],
        stalls,
    );
}

#[test]
fn an_answer_that_is_damaged_is_never_believed() {
    let damaged = vec![(Fault::Truncate, true), (Fault::Corrupt, false)];
    judge_all(&SMALL, damaged.clone());
    judge_all(&[Operation::LoadLarge], damaged);
}

#[test]
fn a_refusal_is_an_error_of_its_kind_and_changes_nothing() {
    let refusals = vec![
        (Fault::Reply(Reply::s3(403, "AccessDenied")), false),
        (Fault::Reply(Reply::s3(400, "InvalidArgument")), false),
    ];
    judge_all(&SMALL, refusals);
}

/// A store in which nothing is saved under the name `new`, behind a proxy.
async fn ready() -> (Proxy, Place, Scope) {
    let place = Place::on(Kind::SeaweedFs);
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
        let first = seen.operation() == operation && !met.swap(true, Ordering::Relaxed);
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
        (Fault::DoneThen(error_body.clone()), true),
        (Fault::DoneThen(Reply::new(200, "")), true),
        // It did not, and a second attempt does.
        (Fault::Reply(error_body), true),
        // It did not, and says so in ways that cannot be believed.
        (Fault::Reply(Reply::s3(404, "NoSuchUpload")), false),
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
fn an_answer_that_stays_away_is_an_error_of_its_kind_once_the_budget_is_spent() {
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
            let place = Place::on(Kind::SeaweedFs);
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
