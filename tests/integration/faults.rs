//! Every backend with a fault at each request of each operation. Whatever happens: the outcome is
//! never misreported, and the next call works.
//!
//! The servers are real ones; the proxy before them does the harm.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use persist_host::snapshot::{Error, Expect, Result, SaveOptions, Scope};
use persist_servers::Kind;
use persist_tests::proxy::{Fault, Proxy, Reply, Seen};
use persist_tests::store::{SERVERS, TestStore};
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

/// Result that an operation reports: what it did, or found.
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
    server: Kind,
    operation: Operation,
    request: usize,
    fault: Fault,
    /// True if the caller should not notice: the fault passes, and the request that it met is sent
    /// again.
    passes: bool,
}

/// Runs a case, and says whether the operation had a request for it to meet.
async fn judge(case: &Case) -> bool {
    let place = TestStore::on(case.server).unprobed();
    let honest = place.scope();
    save(&honest, "old", OLD).await;
    if case.operation == Operation::LoadLarge {
        let saved = honest.save("large", large(), SaveOptions::default()).await;
        saved.expect("saves");
    }
    let (proxy, proxied) = place.proxied();
    let scope = persist_tests::scope(proxied.impatient().build().expect("a storage"));
    let request = case.request;
    let fault = case.fault.clone();
    proxy.rule(move |number, seen| {
        (number == request && fits(&proxied, &fault, seen)).then(|| fault.clone())
    });
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

/// Only objects carry checksums: a bit of a list that another one takes the place of is TLS's to
/// find.
fn fits(place: &TestStore, fault: &Fault, seen: &Seen) -> bool {
    !matches!(fault, Fault::Corrupt) || place.reads(seen)
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
fn judge_all(operations: &'static [Operation], faults: impl Fn(&TestStore) -> Vec<(Fault, bool)>) {
    const AT_ONCE: usize = 8;
    /// More than any operation asks.
    const MOST: usize = 40;
    block_on(async {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        let all = SERVERS.into_iter().flat_map(|server| {
            let operations = operations.iter().map(move |operation| (server, *operation));
            operations.collect::<Vec<_>>()
        });
        for (server, operation) in all {
            for (fault, passes) in faults(&TestStore::on(server).unprobed()) {
                let turns = Arc::clone(&turns);
                tasks.spawn(async move {
                    let mut met = 0;
                    for request in 0..MOST {
                        let _turn = turns.acquire().await.expect("open");
                        let case = Case {
                            server,
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
                    assert!(
                        (1..MOST).contains(&met),
                        "{server:?} {operation:?} {fault:?}: {met}"
                    );
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

/// Returns the faults that are temporary: they are over when the request is sent again.
fn that_pass(place: &TestStore) -> Vec<(Fault, bool)> {
    let answers = [503, 429, 500].map(|status| place.refusal(status));
    let connections = [
        Fault::CutUpload,
        Fault::RequestLost,
        Fault::ReplyLost,
        Fault::DoneThen(place.refusal(500)),
        Fault::CutDownload,
        Fault::Latency(Duration::from_millis(50)),
        Fault::Reply(Reply::new(502, "<html>bad gateway</html>")),
    ];
    let all = connections.into_iter().chain(answers.map(Fault::Reply));
    all.map(|fault| (fault, true)).collect()
}

#[test]
fn a_fault_that_passes_is_noticed_by_nobody() {
    judge_all(&SMALL, that_pass);
}

#[test]
fn a_short_fault_during_a_large_save_has_no_effect() {
    judge_all(&LARGE, |place| {
        let some = that_pass(place).into_iter().filter(|(fault, _)| {
            matches!(
                fault,
                Fault::CutUpload | Fault::ReplyLost | Fault::CutDownload | Fault::DoneThen(_)
            )
        });
        some.collect()
    });
}

#[test]
fn an_answer_that_never_comes_is_not_waited_for_for_ever() {
    judge_all(
        &[Operation::Save, Operation::Load, Operation::LoadLarge],
        |_| vec![(Fault::Stall, true), (Fault::StallBody, true)],
    );
}

#[test]
fn an_answer_that_is_damaged_is_never_believed() {
    let damaged = |_: &TestStore| vec![(Fault::Truncate, true), (Fault::Corrupt, false)];
    judge_all(&SMALL, damaged);
    judge_all(&[Operation::LoadLarge], damaged);
}

#[test]
fn a_refusal_is_an_error_of_its_kind_and_changes_nothing() {
    judge_all(&SMALL, |place| {
        let refusals = [403, 400].map(|status| Fault::Reply(place.refusal(status)));
        refusals.map(|fault| (fault, false)).into()
    });
}
