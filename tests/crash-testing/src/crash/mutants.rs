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

/// Returns the violations that are found in the scenario `name` where the trace is changed in this
/// way.
fn found(name: &str, trace: fn(Vec<Op>) -> Vec<Op>) -> String {
    found_in(name, Subject { trace, ..REAL })
}

fn found_in(name: &str, subject: Subject) -> String {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == name);
    let scenario = scenario.expect("a scenario of that name");
    let subject = Subject {
        recover: false,
        sample: 2,
        ..subject
    };
    let mut found = (1..20).flat_map(|seed| {
        let report = explore(scenario, seed, subject).expect("is recorded");
        report.violations
    });
    found.next().unwrap_or_default()
}

#[test]
fn a_missing_sync_of_a_directory_is_found() {
    let found = found("small saves", |mut ops| {
        ops.retain(|op| !matches!(op, Op::SyncDir(_)));
        ops
    });
    assert!(found.contains("acknowledged"), "{found}");
}

#[test]
fn a_missing_sync_of_a_file_is_found() {
    let found = found("small saves", |mut ops| {
        ops.retain(|op| !matches!(op, Op::SyncFile(_)));
        ops
    });
    assert!(found.contains("torn"), "{found}");
}

#[test]
fn writing_in_place_is_found() {
    let found = found("small saves", in_place);
    assert!(found.contains("torn"), "{found}");
}

#[test]
fn renaming_over_the_head_is_found() {
    let storage: super::Wrap = |local| Arc::new(RenameOver(local));
    let found = found_in("two hosts save one name", Subject { storage, ..REAL });
    assert!(found.contains("another state"), "{found}");
}

#[test]
fn a_purge_before_its_tombstone_is_found() {
    let found = found("a purge, and life after it", |ops| {
        by_step(ops, |step| {
            let (mut first, rest): (Vec<_>, Vec<_>) = step.into_iter().partition(removes_a_version);
            first.extend(rest);
            first
        })
    });
    let expected = ["acknowledged", "before its tombstone"];
    assert!(
        expected.iter().any(|words| found.contains(words)),
        "{found}"
    );
}

#[test]
fn a_purge_that_begins_with_the_newest_is_found() {
    let found = found("a purge, and life after it", |ops| {
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
    assert!(found.contains("not the oldest"), "{found}");
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
            Op::Create(path) => {
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
