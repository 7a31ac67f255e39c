//! Protocols with a bug, each of which must be found: so the laboratory can fail.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::Forward;
use persist_host::storage::{Key, Local, Result, Storage, Upload};

use super::scenario::SCENARIOS;
use super::trace::Op;
use super::{REAL, Subject, explore};

/// Fails unless the scenario `name`, with its trace changed in this way, has a violation that says
/// one of `expected`.
fn finds(name: &str, expected: &[&str], trace: fn(Vec<Op>) -> Vec<Op>) {
    finds_in(name, expected, Subject { trace, ..REAL });
}

/// Searches as [`finds`] does, in all crashes of one recording after the other. One bug may show
/// itself in several ways, and crashes are tried side by side: so which way comes first is chance.
fn finds_in(name: &str, expected: &[&str], subject: Subject) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.expect("a scenario of that name");
    let subject = Subject {
        recover: false,
        sample: 2,
        ..subject
    };
    let mut others = Vec::new();
    for seed in 1..20 {
        let report = explore(scenario, seed, subject).expect("is recorded");
        let is_expected = |found: &String| expected.iter().any(|words| found.contains(words));
        if report.violations.iter().any(is_expected) {
            return;
        }
        others.extend(report.violations);
    }
    panic!("{expected:?} was not found, but {others:#?}");
}

#[test]
fn a_missing_sync_of_a_directory_is_found() {
    finds("small saves", &["acknowledged"], |mut ops| {
        ops.retain(|op| !matches!(op, Op::SyncDir(_)));
        ops
    });
}

#[test]
fn a_missing_sync_of_a_file_is_found() {
    finds("small saves", &["torn"], |mut ops| {
        ops.retain(|op| !matches!(op, Op::SyncFile(_)));
        ops
    });
}

#[test]
fn writing_in_place_is_found() {
    finds("small saves", &["torn"], in_place);
}

#[test]
fn renaming_over_the_head_is_found() {
    let storage: super::Wrap = |local| Arc::new(RenameOver(local));
    let subject = Subject { storage, ..REAL };
    finds_in("two hosts save one name", &["another state"], subject);
}

#[test]
fn a_purge_before_its_tombstone_is_found() {
    let expected = ["acknowledged", "before its tombstone"];
    finds("a purge, and life after it", &expected, |ops| {
        by_step(ops, |step| {
            let (mut first, rest): (Vec<_>, Vec<_>) = step.into_iter().partition(removes_a_version);
            first.extend(rest);
            first
        })
    });
}

#[test]
fn a_purge_that_begins_with_the_newest_is_found() {
    finds("a purge, and life after it", &["not the oldest"], |ops| {
        by_step(ops, |step| {
            let mut removals: Vec<_> = step
                .iter()
                .filter(|op| removes_a_version(op))
                .cloned()
                .collect();
            let change = |op| {
                if removes_a_version(&op) {
                    removals.pop().expect("as many as there are")
                } else {
                    op
                }
            };
            step.into_iter().map(change).collect()
        })
    });
}

fn removes_a_version(op: &Op) -> bool {
    matches!(op, Op::Remove(path) if path.extension().is_some_and(|end| end == "gz"))
}

/// Gives each file its last name when it is created.
fn in_place(ops: Vec<Op>) -> Vec<Op> {
    let mut planted = Vec::new();
    for (at, op) in ops.iter().enumerate() {
        let named = |path: &PathBuf| {
            ops[at..].iter().find_map(|op| match op {
                Op::Link(from, to) | Op::Rename(from, to) if from == path => Some(to.clone()),
                _ => None,
            })
        };
        match op {
            Op::Create(path) | Op::CreateUnnamed(path) => {
                planted.push(op.clone());
                planted.extend(named(path).map(|to| Op::Link(path.clone(), to)));
            }
            Op::Link(..) | Op::Rename(..) => {}
            op => planted.push(op.clone()),
        }
    }
    planted
}

/// Changes what is done between the marks of each step.
fn by_step(ops: Vec<Op>, change: impl Fn(Vec<Op>) -> Vec<Op>) -> Vec<Op> {
    let mut planted = Vec::new();
    let mut step = Vec::new();
    for op in ops {
        match op {
            Op::Begin(_) | Op::End(_) => {
                planted.extend(change(std::mem::take(&mut step)));
                planted.push(op);
            }
            op => step.push(op),
        }
    }
    planted.extend(change(step));
    planted
}

/// A storage that renames over the version that is there, as one without conditions would.
#[derive(Debug)]
struct RenameOver(Local);

#[async_trait]
impl Forward for RenameOver {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.0.clone())
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        if !key.as_str().ends_with(".gz") {
            return self.0.create(key, body).await;
        }
        let mut upload = self.0.replace(key).await?;
        for piece in body {
            upload.write(piece).await?;
        }
        upload.finish().await
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.0.replace(key).await
    }
}
