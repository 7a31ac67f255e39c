//! Many agents on many hosts: what they ask of a bucket, and the simulation of more of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use persist_host::snapshot::Store;
use persist_host::storage::{Memory, Storage};
use persist_servers::Kind as Server;
use persist_simulation::{
    Call, Host, Kind, Logged, Outage, Plan, Provider, Report, Step, Steps, name_of, run_turns,
    simulate,
};
use persist_tests::block_on;
use persist_tests::store::TestStore;

/// A term that does not end in a test.
const HOUR: Duration = Duration::from_secs(60 * 60);

fn steps() -> Steps {
    block_on(Steps::record()).expect("records")
}

/// Starts so many hosts, and returns them with the log of each.
fn hosts(count: usize, storage: impl Fn() -> Arc<dyn Storage>) -> Vec<(Host, Arc<Logged>)> {
    let start = |number| {
        let log = Arc::new(Logged::new(storage()));
        let host = Host::start(&format!("host-{number}"), log.clone(), HOUR);
        (host, log)
    };
    (0..count).map(start).collect()
}

#[test]
fn the_same_seed_gives_the_same_result() {
    let steps = steps();
    let run = |seed| {
        let plan = Plan {
            seed,
            ..Plan::new(300)
        };
        simulate(&plan, &steps)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    assert_eq!(steps, self::steps(), "the library asks for the same");
}

/// 10² agents; `PERSIST_TEST_AGENTS` asks for more.
#[test]
fn a_simulated_turn_costs_the_requests_of_a_real_one() {
    let asked_for = std::env::var("PERSIST_TEST_AGENTS").ok();
    let agents = asked_for.map_or(100, |count| count.parse().expect("a number"));
    let (proxy, place) = TestStore::on(Server::SeaweedFs).proxied();
    let hosts = hosts(4, || place.storage());
    let measured = block_on(async {
        Store::new(place.storage()).init().await.expect("a store");
        let hosts: Vec<_> = hosts.iter().map(|(host, _)| host.clone()).collect();
        // Another test counts the requests that a process sends once.
        for (number, host) in hosts.iter().enumerate() {
            let warm_up = host.turn(&format!("warm-up-{number}")).await;
            warm_up.expect("a turn");
        }
        proxy.forget();
        run_turns(&hosts, agents, 2, false).await.expect("turns");
        let asked = proxy.operations();
        let names = ["ListObjectsV2", "GetObject", "PutObject", "DeleteObject"];
        let count = |name: &str| asked.iter().filter(|asked| **asked == name).count() as u64;
        let counts = names.map(count);
        assert_eq!(counts.iter().sum::<u64>(), asked.len() as u64, "others");
        counts
    });
    let plan = Plan::new(agents).calm();
    let steps = steps();
    let simulated = simulate(&plan, &steps);
    let at_start = |kind| u64::from(plan.hosts) * steps.count(Step::Start, kind);
    let requests = Kind::ALL.map(|kind| simulated.count(kind) - at_start(kind));
    println!("{agents} agents: measured {measured:?}, simulated {requests:?}");
    for (kind, measured) in Kind::ALL.into_iter().zip(measured) {
        let simulated = requests[kind as usize];
        let apart = simulated.abs_diff(measured) as f64 / measured.max(1) as f64;
        assert!(
            apart < 0.01,
            "{kind:?}: {measured} measured, {simulated} simulated"
        );
    }
    assert_eq!(simulated.turns, 2 * u64::from(agents));
}

#[test]
fn every_simulated_turn_ends_in_spite_of_dead_hosts_and_an_outage() {
    let steps = steps();
    for provider in [Provider::S3, Provider::Gcs] {
        let mut plan = Plan::new(2000);
        plan.provider = provider;
        let report = simulate(&plan, &steps);
        println!("{report}");
        assert_eq!(report.turns, 2 * 2000, "{report:?}");
        assert!(report.take_over.count > 0, "{report:?}");
        // The expiry of the lease, and a look of the host that waits.
        let longest = plan.term.mul_f64(1.5 + 0.25 * 1.1) + Duration::from_secs(1);
        assert!(report.take_over.longest < longest, "{:?}", report.take_over);
    }
}

#[test]
fn hosts_do_not_come_back_together_after_an_outage() {
    let steps = steps();
    let peak = |has_jitter| {
        let plan = Plan {
            has_jitter,
            dead: None,
            outage: Some(Outage {
                start: Duration::from_secs(400),
                length: Duration::from_secs(20),
            }),
            ..Plan::new(5000)
        };
        let report: Report = simulate(&plan, &steps);
        report.peak_after_outage / report.mean_rate
    };
    let (with, without) = (peak(true), peak(false));
    println!("peak after the outage: {with:.1} times the mean, {without:.1} without jitter");
    // The mean is that of the first minutes, and the outage leaves 20 seconds of work behind.
    assert!(with < 30.0, "{with}");
    assert!(without > 100.0, "{without}");
}

#[test]
fn a_key_is_written_once_and_removed_once() {
    let steps = steps();
    for step in Step::ALL {
        let mut written = BTreeSet::new();
        for request in steps.of(step) {
            if let Some(number) = request.number.filter(|_| request.kind.is_write()) {
                assert!(written.insert(number), "{step:?}: {:?}", steps.of(step));
            }
        }
    }
}

/// Returns true for a call about what belongs to no agent, which each process makes when it starts,
/// then at most once a minute or in half a grace period. `docs/src/scale.md` lists them.
fn is_documented(kind: Kind, target: &str) -> bool {
    match kind {
        Kind::Read => target == "~/store.json" || target.starts_with("~/~/policy/"),
        // The second is looked at when a process starts, and tells the storage's time to a prune.
        Kind::List => target == "~/~/policy" || target == "~",
        Kind::Create | Kind::Delete => target.starts_with("~/clock-"),
    }
}

/// Calls of hosts, by what they are about.
#[derive(Debug, Default)]
struct Calls {
    of_agents: BTreeMap<String, usize>,
    changes: BTreeMap<(Kind, String), usize>,
    reads: BTreeMap<(Kind, String), usize>,
}

/// Runs turns of agents that move from host to host, and checks what each host asks for that
/// belongs to no agent.
fn calls_of_turns(agents: u32, turns: usize) -> Calls {
    let memory = Memory::new();
    let hosts = hosts(8, || Arc::new(memory.clone()));
    block_on(async {
        let store = Store::new(Arc::new(memory.clone()));
        store.init().await.expect("a store");
        let started: Vec<_> = hosts.iter().map(|(host, _)| host.clone()).collect();
        let ran = run_turns(&started, agents, turns, true).await;
        ran.expect("turns");
        for host in started {
            host.wait_idle().await;
        }
    });
    let names: BTreeSet<_> = (0..agents).map(name_of).collect();
    let mut calls = Calls::default();
    for (_, log) in &hosts {
        let mut shared = BTreeMap::<_, usize>::new();
        for Call { kind, target } in log.take() {
            let path = target.strip_prefix("~/lease/").unwrap_or(&target);
            let agent = path.split('/').next().unwrap_or_default();
            if !names.contains(agent) {
                assert!(is_documented(kind, &target), "{kind:?} {target}");
                *shared.entry((kind, target)).or_default() += 1;
                continue;
            }
            *calls.of_agents.entry(agent.to_owned()).or_default() += 1;
            let counts = if kind.is_write() {
                &mut calls.changes
            } else {
                &mut calls.reads
            };
            *counts.entry((kind, target)).or_default() += 1;
        }
        // Once when the process starts, and once for the first prune.
        assert!(shared.values().all(|count| *count <= 2), "{shared:?}");
    }
    calls
}

#[test]
fn no_host_asks_for_what_all_agents_share() {
    let calls = calls_of_turns(100, 3);
    let [least, most] = [
        calls.of_agents.values().min(),
        calls.of_agents.values().max(),
    ];
    assert_eq!(least, most, "each agent costs the same");
    // So many versions that they are pruned.
    for (calls, turns) in [(calls, 3), (calls_of_turns(8, 33), 33)] {
        let Calls { changes, reads, .. } = calls;
        assert!(changes.values().all(|count| *count == 1), "{changes:?}");
        let most = reads.values().max().expect("reads");
        assert!(*most <= 3 * turns + 2, "{most} of {turns} turns: {reads:?}");
    }
}
