//! All hostile guests at once beside honest ones, and what that costs the host.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use persist_host::snapshot::{Scope, Store};
use persist_host::storage::Local;
use persist_host::wasm::{AgentHost, Limits, SnapshotCtx};
use persist_tests::{block_on, tempdir, text};

use super::guests::GUESTS;
use super::{aftermath, host, limits, play};

const HONEST: usize = 10;

/// Calls of an honest agent, and the answers that it gets.
const DAY: [(&str, &str); 9] = [
    ("save memory 1000", "version 1"),
    ("save memory 2000 1", "version 2"),
    ("open w log", "open"),
    ("write w 100000", "written"),
    ("finish w", "version 1"),
    ("stat log", "version 1 saved size 100000"),
    ("names  9", "[log memory]"),
    ("delete log", "version 2"),
    ("history memory 9", "[2 1]"),
];

async fn honest_day(host: AgentHost, scope: Scope) {
    let ctx = SnapshotCtx::new(scope);
    let answers = play(&host, ctx, &DAY.map(|(line, _)| line)).await;
    assert_eq!(answers, DAY.map(|(_, answer)| answer));
}

/// Every guest in a scope of its own, and ten that are honest, all at once.
async fn crowd(host: &AgentHost, store: &Store) {
    let scope = |agent: &str| store.scope(agent, None).expect("a name");
    let honest: Vec<_> = (0..HONEST)
        .map(|n| tokio::spawn(honest_day(host.clone(), scope(&format!("honest-{n}")))))
        .collect();
    let hostile: Vec<_> = GUESTS
        .iter()
        .map(|guest| {
            let host = host.clone();
            let scope = scope(guest.claim);
            tokio::spawn(async move { guest.attack(&host, &scope).await })
        })
        .collect();
    for day in honest {
        day.await.expect("an honest agent is not harmed");
    }
    for attack in hostile {
        attack.await.expect("ends as alone");
    }
}

#[test]
fn forty_hostile_guests_beside_ten_honest_agents_change_nothing_for_them() {
    const { assert!(GUESTS.len() >= 40) };
    let dir = tempdir();
    let store = Store::new(Arc::new(Local::new(dir.path())));
    block_on(async {
        crowd(&host(), &store).await;
        for guest in GUESTS {
            let scope = store.scope(guest.claim, None).expect("a name");
            aftermath(&host(), &scope, dir.path(), guest.claim).await;
        }
    });
}

/// In a process of its own: what other tests hold is not counted.
#[test]
fn the_memory_of_the_host_stays_within_its_bound() {
    let test = std::env::current_exe().expect("this binary has a path");
    let run = Command::new(test)
        .args([
            "--exact",
            "hostile::crowd::memory_of_a_crowd",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .expect("starts");
    let said = format!("{}{}", text(&run.stdout), text(&run.stderr));
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
#[ignore = "runs in a process of its own, as part of the_memory_of_the_host_stays_within_its_bound"]
fn memory_of_a_crowd() {
    let mut few = limits();
    few.runs = 4;
    few.inline_size = 16 << 20;
    // Each guest ends as alone: as many as run at once find room for all that each may open.
    few.host_writers = few.runs * few.open_writers;
    few.host_readers = few.runs * few.open_readers;
    few.instance_storage = 8 << 20;
    few.compilations = 1;
    // The guests are not fewer for it: they wait for their turn.
    let host = AgentHost::builder()
        .limits(few.clone())
        .build()
        .expect("a host");
    let dir = tempdir();
    let store = Store::new(Arc::new(Local::new(dir.path())));
    block_on(async {
        // Compiled agents are cached: the second crowd compiles little, which the bound leaves out.
        crowd(&host, &store).await;
        let before = resident("VmRSS");
        std::fs::write("/proc/self/clear_refs", "5").expect("the peak begins anew");
        let again = store_of(&dir);
        crowd(&host, &again).await;
        let peak = resident("VmHWM");
        let bound = few.memory_bound();
        println!(
            "{} MiB before, at most {} MiB, bound {} MiB",
            before >> 20,
            peak >> 20,
            bound >> 20
        );
        assert!(
            peak.saturating_sub(before) <= bound,
            "{peak} - {before} > {bound}"
        );
    });
}

fn store_of(dir: &tempfile::TempDir) -> Store {
    Store::new(Arc::new(Local::new(dir.path().join("again"))))
}

/// Bytes of memory of this process.
fn resident(what: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let line = status
        .lines()
        .find(|line| line.starts_with(what))
        .expect("a line");
    let kib = line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") << 10
}

#[test]
fn the_bound_of_memory_follows_its_limits() {
    let mut limits = Limits::default();
    let bound = limits.memory_bound();
    limits.memory += 1 << 20;
    assert_eq!(limits.memory_bound() - bound, limits.runs << 20);
    limits.cpu = Duration::ZERO;
    assert_eq!(limits.memory_bound() - bound, limits.runs << 20);
}
