//! Many writers of one name, in one process and in many.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;
use std::sync::Arc;

use persist_host::snapshot::{Error, Expect, SaveOptions, Store};
use persist_host::storage::{Local, Memory, Storage};
use persist_tests::{block_on, persist, run_ok, save, scope, tempdir, text};
use serde_json::Value;

async fn race(storage: Arc<dyn Storage>) {
    const WRITERS: u64 = 8;
    const SAVES: u64 = 5;
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let scope = scope(storage.clone());
            tokio::spawn(async move {
                let mut saved = Vec::new();
                for n in 0..SAVES {
                    let state = format!("{writer}.{n}");
                    saved.push((save(&scope, "memory", &state).await.version, state));
                }
                saved
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for task in tasks {
        acknowledged.extend(task.await.expect("no panic"));
    }
    let scope = scope(storage);
    let versions: BTreeSet<_> = acknowledged.iter().map(|(version, _)| *version).collect();
    assert_eq!(versions, (1..=WRITERS * SAVES).collect());
    for (version, state) in acknowledged {
        let snapshot = scope
            .load("memory", Some(version))
            .await
            .expect("loads")
            .expect("is there");
        assert_eq!(text(&snapshot.state), state);
    }
}

#[test]
fn every_acknowledged_save_of_racing_tasks_is_there_and_numbered() {
    let dir = tempdir();
    block_on(async {
        race(Arc::new(Memory::new())).await;
        race(Arc::new(Local::new(dir.path()))).await;
    });
}

#[test]
fn one_of_many_that_expect_the_same_version_wins() {
    let dir = tempdir();
    block_on(async {
        let local: Arc<dyn Storage> = Arc::new(Local::new(dir.path()));
        for head in 0..10 {
            let tasks: Vec<_> = (0..8)
                .map(|_| {
                    // A store each, as processes would have.
                    let scope = Store::new(local.clone())
                        .scope("bot", None)
                        .expect("a name");
                    let expect = match head {
                        0 => Expect::Absent,
                        head => Expect::Version(head),
                    };
                    let options = SaveOptions::expecting(expect);
                    tokio::spawn(async move { scope.save("memory", "x".into(), options).await })
                })
                .collect();
            let mut winners = 0;
            for task in tasks {
                match task.await.expect("no panic") {
                    Ok(info) => {
                        assert_eq!(info.version, head + 1);
                        winners += 1;
                    }
                    Err(Error::Conflict { head: now }) => assert_eq!(now, Some(head + 1)),
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(winners, 1);
        }
    });
}

#[test]
fn every_acknowledged_save_of_racing_processes_is_there_and_numbered() {
    const PROCESSES: usize = 24;
    let dir = tempdir();
    let children: Vec<_> = (0..PROCESSES)
        .map(|n| {
            let mut child = persist(dir.path())
                .args(["save", "bot/memory", "--json"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("persist starts");
            let mut stdin = child.stdin.take().expect("piped");
            write!(stdin, "state {n}").expect("persist reads");
            child
        })
        .collect();
    let mut versions = BTreeSet::new();
    for (n, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().expect("persist ends");
        assert!(output.status.success());
        let saved: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let address = saved["address"].as_str().expect("an address");
        assert_eq!(run_ok(dir.path(), &["cat", address]), format!("state {n}"));
        assert!(
            versions.insert(address.to_owned()),
            "{address} was acknowledged twice"
        );
    }
    let history = run_ok(dir.path(), &["history", "-q", "bot/memory"]);
    assert_eq!(history.lines().count(), PROCESSES);
}
