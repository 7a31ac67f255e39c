//! Leases: on every backend, in runs, in the command, and beside the other commands.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use persist_host::guest::Guest;
use persist_host::snapshot::{Error, Lease, LeaseOptions, LeaseState, Store};
use persist_host::storage::{Local, Memory};
use persist_host::wasm::{AgentHost, RunError};
use persist_servers::Kind;
use persist_tests::store::{TestStore, json, on_each_backend};
use persist_tests::{
    block_on, guest, load, persist, run_fails, run_ok, save, tempdir, test_guest, text,
};

/// Options with a term that no test waits for.
fn hour(holder: &str) -> LeaseOptions {
    let mut options = LeaseOptions::default();
    options.term = Duration::from_secs(60 * 60);
    options.holder = holder.into();
    options
}

/// Leases an agent, or a session of it, as a host does that then dies.
pub(crate) fn lease_and_die(dir: &Path, agent: &str, session: Option<&str>) {
    block_on(async {
        let store = Store::new(Arc::new(Local::new(dir)));
        let lease = store.lease(agent, session, &hour("host-a")).await;
        std::mem::forget(lease.expect("it is free"));
    });
}

#[test]
fn one_of_many_hosts_gets_a_lease_on_every_backend() {
    for place in on_each_backend() {
        block_on(async {
            save(&place.scope(), "memory", "x").await;
            let hosts: Vec<_> = (0..4).map(|_| place.scope()).collect();
            let mut tasks = Vec::new();
            for (number, scope) in hosts.iter().cloned().enumerate() {
                let options = hour(&format!("host-{number}"));
                tasks.push(tokio::spawn(async move { scope.lease(&options).await }));
            }
            let mut held: Vec<Lease> = Vec::new();
            for task in tasks {
                match task.await.expect("no panic") {
                    Ok(lease) => held.push(lease),
                    Err(Error::Leased { .. }) => {}
                    Err(error) => panic!("{}: {error}", place.name()),
                }
            }
            let [lease] = &held[..] else {
                panic!("{}: {} holders", place.name(), held.len());
            };
            lease.renew().await.expect("renewed");
            let info = hosts[0].lease_info().await.expect("reads");
            let info = info.expect("it is leased");
            assert_eq!(info.holder, lease.holder(), "{}", place.name());
            let left = info.remaining().expect("it is held");
            assert!(left > Duration::from_secs(5000), "{left:?}");
            held.remove(0).release().await.expect("released");
            let next = hosts[1].lease(&hour("next")).await;
            next.expect("it is free").release().await.expect("released");
        });
    }
}

#[test]
fn a_lease_costs_one_create_a_term_and_a_list_for_the_first_save_of_a_name() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    block_on(async {
        let scope = place.scope();
        save(&scope, "other", "x").await;
        let asked = || {
            let asked = proxy.operations();
            proxy.forget();
            asked
        };
        asked();
        let lease = scope.lease(&hour("host")).await.expect("it is free");
        assert_eq!(asked(), ["ListObjectsV2", "PutObject"]);
        lease.renew().await.expect("renewed");
        assert_eq!(asked(), ["PutObject"]);
        lease.renew().await.expect("renewed");
        // Providers do not charge for a deletion.
        assert_eq!(asked(), ["PutObject", "DeleteObject"]);
        let leased = lease.scope();
        let list = "ListObjectsV2";
        // The head is looked at once more, as it is without a lease.
        save(&leased, "memory", "x").await;
        assert_eq!(asked(), [list, list, list, "PutObject"]);
        save(&leased, "memory", "x").await;
        assert_eq!(asked(), ["PutObject"]);
        load(&leased, "other").await;
        assert_eq!(asked(), [list, "GetObject"]);
        save(&leased, "other", "x").await;
        assert_eq!(asked(), [list, "PutObject"]);
        lease.release().await.expect("released");
        assert_eq!(asked(), ["PutObject", "DeleteObject", "DeleteObject"]);
        let again = scope.lease(&hour("host")).await.expect("it is free");
        assert_eq!(asked(), ["ListObjectsV2", "PutObject"]);
        std::mem::forget(again);
        let other = place.scope();
        save(&other, "other", "x").await;
        asked();
        other.lease(&hour("other")).await.expect_err("it is held");
        assert_eq!(asked(), ["ListObjectsV2", "GetObject"]);
    });
}

#[test]
fn a_run_holds_the_lease_of_its_agent() {
    block_on(async {
        let store = Store::new(Arc::new(Memory::new()));
        let host = AgentHost::builder().lease(Some(hour("runner"))).build();
        let host = host.expect("a host");
        let agent = test_guest(&host).await;
        let scope = store.scope("bot", None).expect("a scope");
        let args = ["save".to_owned(), "memory".into(), "10".into()];
        let lease = scope.lease(&hour("other")).await.expect("it is free");
        let ran = agent.run(Guest::new(scope.clone()), &args).await;
        let refused = ran.answer.expect_err("another host holds the lease");
        let text = refused.to_string();
        assert!(matches!(refused, RunError::Lease(_)), "{text}");
        assert!(
            text.contains("agent bot is leased by other until 2"),
            "{text}"
        );
        lease.release().await.expect("released");

        let seen = Arc::new(Mutex::new(None));
        let during = Arc::clone(&seen);
        let looking = scope.clone();
        let look = move || block_on(looking.lease_info()).expect("reads");
        let ctx = Guest::builder(scope.clone()).on_change(move |_| {
            let look = look.clone();
            let info = std::thread::spawn(look).join().expect("no panic");
            *during.lock().expect("no panic") = info;
        });
        let ran = agent.run(ctx.build(), &args).await;
        ran.answer.expect("it is free");
        let during = seen
            .lock()
            .expect("no panic")
            .take()
            .expect("it was leased");
        assert_eq!(
            (during.state, &*during.holder),
            (LeaseState::Held, "runner")
        );
        let after = scope
            .lease_info()
            .await
            .expect("reads")
            .expect("it was leased");
        assert_eq!(after.state, LeaseState::Released);
    });
}

#[test]
fn a_run_whose_lease_was_taken_over_cannot_save_over_the_new_holder() {
    block_on(async {
        let store = Store::new(Arc::new(Memory::new()));
        let host = AgentHost::builder().lease(Some(hour("runner"))).build();
        let agent = test_guest(&host.expect("a host")).await;
        let scope = store.scope("bot", None).expect("a scope");
        let other = scope.clone();
        let take_over = move || {
            block_on(async {
                other.break_lease("operator").await.expect("broken");
                let lease = other.lease(&hour("other")).await.expect("it is free");
                let scope = lease.scope();
                save(&scope, "memory", "theirs").await;
                std::mem::forget(lease);
            });
        };
        let ctx = Guest::builder(scope.clone()).on_change(move |info| {
            if info.version == 1 {
                std::thread::spawn(take_over.clone())
                    .join()
                    .expect("no panic");
            }
        });
        let args = [
            "script",
            "save memory 10",
            "save memory 10",
            "load memory",
            "save memory 10",
        ];
        let ran = agent.run(ctx.build(), &args.map(str::to_owned)).await;
        let answer = ran.answer.expect("an answer");
        let refused = "other lease-lost another host works on this agent now";
        assert_eq!(answer.matches(refused).count(), 2, "{answer}");
        let newest = scope.load("memory", None).await.expect("loads");
        assert_eq!(&newest.expect("is there").state[..], b"theirs");
    });
}

#[test]
fn the_command_runs_under_a_lease_and_shows_and_breaks_it() {
    let dir = tempdir();
    let dir = dir.path();
    let agent = guest("chat_memory");
    let agent = agent.to_str().expect("text");
    let run = |lease: &[&'static str]| {
        let mut args = vec!["run", agent, "--agent", "bot"];
        args.extend(lease);
        args.extend(["--", "say", "hello"]);
        args
    };
    run_ok(dir, &run(&["--lease", "30s"]));
    assert_eq!(run_ok(dir, &["leases"]), "");
    lease_and_die(dir, "bot", None);
    lease_and_die(dir, "bot", Some("monday"));
    let shown = run_ok(dir, &["leases"]);
    let rows: Vec<_> = shown.lines().skip(1).collect();
    assert!(rows[0].starts_with("bot/monday/  host-a  held"), "{shown}");
    assert!(rows[1].starts_with("bot          host-a  held"), "{shown}");
    let said = run_fails(dir, &run(&["--lease", "30s", "--lease-wait", "10ms"]), 4);
    let expected = "error: the agent did not start: agent bot is leased by host-a until 2";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("\nhint: wait for the other host"), "{said}");
    // A run without a lease asks for none.
    run_ok(dir, &run(&[]));
    let broken = run_ok(dir, &["leases", "break", "bot"]);
    assert_eq!(broken, "broke the lease of bot, which host-a held\n");
    run_ok(dir, &["leases", "break", "bot/monday"]);
    run_ok(dir, &run(&["--lease", "30s"]));
    let said = run_fails(dir, &["leases", "break", "bot/monday/"], 3);
    assert!(
        said.contains("no host holds a lease of bot/monday/"),
        "{said}"
    );
    assert!(said.contains("\nhint: run `persist leases`"), "{said}");
    run_fails(dir, &["leases", "break", "bot/*"], 2);
    let said = run_fails(dir, &run(&["--lease", "0s"]), 2);
    assert!(said.contains("the term of a lease is 0s"), "{said}");
}

#[test]
fn other_commands_pass_over_leases() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let copy = dir.path().join("copy");
    let archive = dir.path().join("archive.tar");
    let archive = archive.to_str().expect("text");
    let url = |dir: &Path| format!("file://{}", dir.display());
    let show = |dir: &Path| {
        let args = [
            &["ls"][..],
            &["history", "bot"],
            &["stats"],
            &["prune", "--dry-run"],
        ];
        let shown = args.map(|args| run_ok(dir, args));
        let usage = block_on(async {
            let store = Store::new(Arc::new(Local::new(dir)));
            let scope = store.scope("bot", None).expect("a scope");
            scope.usage().await.expect("counts")
        });
        (shown, usage)
    };
    persist(&store);
    for _ in 0..2 {
        run_ok(&store, &["save", "bot/notes", "Cargo.toml"]);
        run_ok(&store, &["save", "bot/monday/notes", "Cargo.toml"]);
    }
    let before = show(&store);
    lease_and_die(&store, "bot", None);
    lease_and_die(&store, "bot", Some("monday"));
    lease_and_die(&store, "only-leased", None);
    assert_eq!(show(&store), before);
    let checked = persist(&store)
        .args(["check", "--json"])
        .output()
        .expect("persist starts");
    let checked = json(text(&checked.stdout));
    assert_eq!(checked.len(), 1, "{checked:?}");
    assert_eq!(checked[0]["findings"], 0, "{checked:?}");
    let swept = run_ok(&store, &["gc", "--older-than", "0s"]);
    assert!(swept.starts_with("removed 0 leftovers"), "{swept}");
    run_ok(&store, &["prune", "--keep-last", "1"]);
    run_ok(&store, &["copy", &url(&store), &url(&copy), "--create"]);
    run_ok(&store, &["export", archive]);
    run_ok(&store, &["import", archive, "--storage", &url(&copy)]);
    run_ok(&store, &["repair", "--yes"]);
    assert!(!copy.join("~/lease").exists());
    assert_eq!(show(&copy).1, show(&store).1);
    run_ok(&store, &["purge", "bot", "--yes", "--now"]);
    let agents = block_on(async {
        let store = Store::new(Arc::new(Local::new(&store)));
        let leases = store.leases().await.expect("lists");
        assert_eq!(leases.len(), 3);
        store.agents(None, 10).await.expect("lists").len()
    });
    assert_eq!(agents, 1, "an agent that saved nothing is none");
}
