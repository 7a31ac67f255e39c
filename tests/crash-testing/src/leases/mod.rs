//! Hosts that work on one agent under leases, and sleep, lose their network and come back while
//! clocks jump.
//!
//! A turn loads the state, computes, and saves without an expectation. Each version says which
//! version it was computed from, and the number of the lease that it was saved under. Afterwards:
//!
//! - Every version was computed from the version before it: no two turns from one state.
//! - The numbers of leases never go down: once a later holder has saved, no earlier one does.
//! - What was acknowledged is there, once.
//!
//! Terms last 20 ms here, and a host sleeps or is cut off for up to three times the time after
//! which others take over. Local clocks are this process's: a clock that jumps is that by which the
//! storage tells the ages of leases, which makes hosts take over leases that are good, or believe
//! in leases that are not.

mod host;
mod processes;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fastrand::Rng;
use persist_host::snapshot::{
    Error, Info, Lease, LeaseOptions, SaveOptions, Scope, Store, Version,
};
use persist_host::storage::Memory;
use tokio::task::JoinSet;

use crate::{Plan, Report, Target};
use host::HostStorage;
pub use processes::{in_processes, worker};

/// The target, as the laboratory runs it.
pub const TARGET: Target = Target {
    name: "leases",
    about: "hosts with leases that sleep, are cut off and come back while clocks jump",
    count: 1000,
    run,
};

/// One history of processes for so many in memory.
const OF_PROCESSES: u64 = 20;

fn run(plan: Plan) -> Result<Report> {
    let mut report = in_memory(plan.seed, plan.count, None)?;
    let lab = std::env::current_exe().context("find this program")?;
    report.add(in_processes(&lab, plan.seed, plan.count / OF_PROCESSES)?);
    Ok(report)
}

/// A bug that is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A holder saves as it does without a lease: on whatever version is the newest.
    SavesAny,
    /// A holder that looks whether its lease is the newest sees the list of the moment at which it
    /// acquired the lease.
    OldListBelieved,
}

const AGENT: &str = "bot";
const NAME: &str = "memory";

const HOSTS: usize = 3;

/// Leases that a host tries to get.
const LEASES: usize = 6;

const TERM: Duration = Duration::from_millis(20);

/// Histories that go on at the same time: they sleep more than they work.
const AT_ONCE: u64 = 48;

/// `count` histories, over a bug that was planted, if one was: then the first that shows it is the
/// last.
///
/// # Errors
/// Where none can be made.
pub fn in_memory(seed: u64, count: u64, bug: Option<Bug>) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let next = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..AT_ONCE.min(count) {
            let next = Arc::clone(&next);
            tasks.spawn(async move {
                let mut found = Found::default();
                loop {
                    let history = next.fetch_add(1, Ordering::Relaxed);
                    if history >= count {
                        return Ok::<_, anyhow::Error>(found);
                    }
                    let seed = seed.wrapping_mul(1_000_003).wrapping_add(history);
                    found.add(race(seed, bug).await?);
                    if bug.is_some() && !found.violations.is_empty() {
                        next.store(count, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut found = Found::default();
        while let Some(task) = tasks.join_next().await {
            found.add(task??);
        }
        Ok(found.report("in memory"))
    })
}

/// One history.
async fn race(seed: u64, bug: Option<Bug>) -> Result<Found> {
    let memory = Memory::new();
    let log = Arc::new(Mutex::new(Found::default()));
    let rng = |part: u64| Rng::with_seed(seed.wrapping_mul(31).wrapping_add(part));
    let store = Store::new(Arc::new(memory.clone()));
    store.init().await?;
    let mut hosts = JoinSet::new();
    let mut storages = Vec::new();
    for number in 0..HOSTS {
        let part = number as u64;
        let inner = Arc::new(memory.clone());
        let storage = HostStorage::new(inner, rng(10 + part), bug);
        let storage = Arc::new(storage);
        storages.push(Arc::clone(&storage));
        let host = Host {
            number,
            term: TERM,
            store: Store::new(storage.clone()),
            storage,
            bug,
            log: Arc::clone(&log),
            acknowledge: |_, _| {},
        };
        hosts.spawn(host.work(rng(20 + part)));
    }
    let trouble = tokio::spawn(trouble(storages, rng(1)));
    while let Some(host) = hosts.join_next().await {
        host?;
    }
    trouble.abort();
    let mut found = {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *log)
    };
    found.histories = 1;
    let scope = store.scope(AGENT, None)?;
    let mut history = scope.history(NAME, None, 10_000).await?;
    history.reverse();
    found.audit(seed, &history);
    Ok(found)
}

/// Troubles the hosts until it is aborted.
async fn trouble(hosts: Vec<Arc<HostStorage>>, mut rng: Rng) {
    loop {
        tokio::time::sleep(TERM.mul_f64(rng.f64())).await;
        let host = &hosts[rng.usize(..hosts.len())];
        let long = TERM.mul_f64(1.0 + 4.0 * rng.f64());
        match rng.u32(0..8) {
            0..2 => host.sleep_for(long),
            2..4 => host.cut_for(long),
            4..6 => host.jump(),
            _ => {}
        }
    }
}

/// A host that works on the agent.
struct Host {
    number: usize,
    term: Duration,
    store: Store,
    storage: Arc<HostStorage>,
    bug: Option<Bug>,
    log: Arc<Mutex<Found>>,
    /// Is told of each save that was acknowledged.
    acknowledge: fn(Version, &str),
}

impl Host {
    async fn work(self, mut rng: Rng) {
        let mut options = LeaseOptions::default();
        options.term = self.term;
        options.wait = 4 * self.term;
        options.holder = format!("host-{}", self.number);
        for _ in 0..LEASES {
            self.storage.forget_lists();
            let Ok(mut lease) = self.store.lease(AGENT, None, &options).await else {
                tokio::time::sleep(self.term).await;
                continue;
            };
            self.count(|found| found.leases += 1);
            if rng.bool() {
                lease.renew_in_background();
            }
            for _ in 0..rng.u32(1..4) {
                if let Err(Error::LeaseLost { .. }) = self.turn(&lease, &mut rng).await {
                    self.count(|found| found.lost += 1);
                    // An agent may try again all the same.
                    if rng.bool() {
                        break;
                    }
                }
                if rng.bool() && lease.renew().await.is_err() {
                    self.count(|found| found.not_renewed += 1);
                }
            }
            if rng.u32(0..4) == 0 {
                // It dies: nothing is released.
                self.storage.cut_for(self.term);
            } else {
                // It ends with its term.
                let _ = lease.release().await;
            }
        }
    }

    /// Loads, computes and saves.
    async fn turn(&self, lease: &Lease, rng: &mut Rng) -> std::result::Result<(), Error> {
        let scope = match self.bug {
            Some(Bug::SavesAny) => self.store.scope(AGENT, None)?,
            _ => lease.scope(),
        };
        self.storage.awake().await;
        let base = load(&scope).await?;
        tokio::time::sleep(self.term.mul_f64(rng.f64() / 2.0)).await;
        self.storage.awake().await;
        let turn = format!("{:016x}", rng.u64(..));
        let options = SaveOptions::default()
            .with_label("turn", &turn)
            .with_label("base", base.to_string())
            .with_label("lease", lease.number().to_string());
        let saved = scope.save(NAME, turn.clone().into(), options).await;
        if let Ok(info) = &saved {
            (self.acknowledge)(info.version, &turn);
        }
        self.count(|found| match &saved {
            Ok(info) => found.saved.push((info.version, turn)),
            Err(Error::Conflict { .. }) => found.conflicts += 1,
            Err(_) => {}
        });
        saved.map(drop)
    }

    fn count(&self, count: impl FnOnce(&mut Found)) {
        count(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Loads the newest state; 0: nothing was saved.
async fn load(scope: &Scope) -> std::result::Result<Version, Error> {
    let loaded = scope.load(NAME, None).await?;
    Ok(loaded.map_or(0, |loaded| loaded.info.version))
}

/// Findings in some histories.
#[derive(Debug, Default)]
struct Found {
    histories: u64,
    leases: u64,
    lost: u64,
    conflicts: u64,
    not_renewed: u64,
    /// Acknowledged versions, and their turns.
    saved: Vec<(Version, String)>,
    versions: u64,
    violations: Vec<String>,
}

impl Found {
    fn add(&mut self, other: Self) {
        self.histories += other.histories;
        self.leases += other.leases;
        self.lost += other.lost;
        self.conflicts += other.conflicts;
        self.not_renewed += other.not_renewed;
        self.versions += other.versions;
        self.violations.extend(other.violations);
    }

    /// Judges the versions of a history, the oldest first.
    fn audit(&mut self, seed: u64, history: &[Info]) {
        self.versions += history.len() as u64;
        let mut newest_lease = 0;
        for (info, expected) in history.iter().zip(1..) {
            let version = info.version;
            let base = number(info, "base");
            let lease = number(info, "lease");
            if version != expected {
                self.wrong(seed, format!("version {expected} is missing"));
                return;
            }
            if base != Some(version - 1) {
                let what = format!("version {version} was computed from version {base:?}");
                self.wrong(seed, what);
            }
            if lease < Some(newest_lease) {
                let what = format!(
                    "version {version} was saved under lease {lease:?}, after one was under lease \
                     {newest_lease}"
                );
                self.wrong(seed, what);
            }
            newest_lease = lease.unwrap_or_default();
        }
        for (version, turn) in std::mem::take(&mut self.saved) {
            let saved = history.iter().find(|info| info.version == version);
            if saved.and_then(|info| label(info, "turn")) != Some(&turn) {
                self.wrong(seed, format!("acknowledged version {version} is not there"));
            }
        }
    }

    fn wrong(&mut self, seed: u64, what: String) {
        self.violations.push(format!("history {seed}: {what}"));
    }

    fn report(self, place: &str) -> Report {
        let Self {
            leases,
            lost,
            conflicts,
            not_renewed,
            versions,
            ..
        } = self;
        let mut report = Report::default();
        let what = match leases {
            // Processes tell what they saved, and nothing more.
            0 => format!("{place}: {versions} versions"),
            _ => format!(
                "{place}: {leases} leases, {versions} versions, {lost} saves refused to hosts that \
             had lost their lease, {conflicts} conflicts, {not_renewed} leases not renewed"
            ),
        };
        report.tried(&what, self.histories);
        report.violations = self.violations;
        report
    }
}

fn label<'a>(info: &'a Info, key: &str) -> Option<&'a String> {
    let label = info.labels.iter().find(|(label, _)| label == key);
    label.map(|(_, value)| value)
}

fn number(info: &Info, key: &str) -> Option<u64> {
    label(info, key)?.parse().context("a number").ok()
}

#[cfg(test)]
mod tests;
