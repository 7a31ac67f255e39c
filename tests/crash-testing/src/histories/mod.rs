//! Races of savers, loaders, deleters, restorers, pruners, purgers and expiries: each is a history
//! that must be explained by one change after the other (linearizability).
//!
//! | where | handles | what befalls them |
//! |---|---|---|
//! | memory | tasks, a `Store` each | slow calls; lost answers and requests; requests that arrive after they were given up; writers that sleep longer than the grace |
//! | disk | the same, a `Local` each | lost answers; sleep right before a version gets its name |
//! | processes | this program again, a `Local` each | stopped for longer than the grace (SIGSTOP), killed (SIGKILL) |
//!
//! A history's seed says what each worker asks and what befalls it, not how the scheduler mixes
//! them: what a violation prints is the recorded history itself, as small as it can be made.
//!
//! Hosts have settings of their own, which the store's policy overrules; in every third history the
//! grace period of the policy changes meanwhile. In three of eight the clock of the storage jumps.

mod check;
mod event;
mod fault_storage;
mod model;
mod processes;
mod script;
mod steps;

pub use fault_storage::Bug;
pub use processes::worker;
pub(crate) use {
    check::{History, Verdict},
    event::{Answer, Call, Event, Record, Wanted, ask, name_of, to_large},
    model::State,
    processes::Lines,
};

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fastrand::Rng;
use persist_host::conformance::{Fault, Faulty};
use persist_host::snapshot::{Expect, Policy, Retention, Store, StoreOptions};
use persist_host::storage::{ErrorKind, Local, Memory, Storage};
use tokio::task::JoinSet;

use crate::links::LinkCountBelieved;
use crate::{Plan, Report, Target};
use event::{Micros, scope};
use fault_storage::{Clock, Disturbed, FaultStorage};
use script::{Shape, Worker};

/// Percentage of histories on disk, and of those of processes.
const SHARE: u64 = 10;

/// Histories that go on at the same time, where they sleep more than they work.
const AT_ONCE: usize = 16;

/// Histories that go on at the same time, where each is four processes.
const AT_ONCE_OF_PROCESSES: usize = 3;

/// How histories in memory are made.
const MEMORY: Shape = Shape {
    seed: 0,
    workers: 4,
    calls: 12,
    names: 2,
    grace: 40,
};

/// How those on disk are: a file system's clock is coarser.
const DISK: Shape = Shape {
    names: 1,
    grace: 120,
    ..MEMORY
};

/// How those of processes are, whose calls are slower still.
const PROCESSES: Shape = Shape { grace: 200, ..DISK };

/// The target, as the laboratory runs it.
pub const TARGET: Target = Target {
    name: "histories",
    about: "racing changes, lost answers and writers that sleep, checked for linearizability",
    count: 2000,
    run,
};

fn run(plan: Plan) -> Result<Report> {
    let share = plan.count * SHARE / 100;
    let mut report = in_memory(plan.seed, plan.count - 2 * share, None)?;
    report.add(on_disk(plan.seed, share, None)?);
    let lab = std::env::current_exe().context("find this program")?;
    report.add(in_processes(&lab, plan.seed, share)?);
    Ok(report)
}

/// `count` histories in memory, over a bug that was planted, if one was: then the first that shows
/// it is the last.
///
/// # Errors
/// Where none can be made.
pub fn in_memory(seed: u64, count: u64, bug: Option<Bug>) -> Result<Report> {
    histories(
        ("in memory", AT_ONCE),
        (seed, count),
        bug.is_some(),
        move |seed| async move {
            let shape = Shape { seed, ..MEMORY };
            let memory = Memory::new();
            let storages = || Arc::new(memory.clone()) as Arc<dyn Storage>;
            Ok((shape, race(shape, &|_| storages(), bug).await))
        },
    )
}

/// `count` histories on the disk, in a folder that is gone afterwards; over a bug that was planted,
/// if one was.
///
/// # Errors
/// Where none can be made.
pub fn on_disk(seed: u64, count: u64, bug: Option<Bug>) -> Result<Report> {
    histories(
        ("on disk", AT_ONCE),
        (seed, count),
        bug.is_some(),
        move |seed| async move {
            let shape = Shape { seed, ..DISK };
            let dir = tempfile::tempdir()?;
            let storage = |mut rng: Rng| -> Arc<dyn Storage> {
                let backup = dir.path().join(format!("backup-{:x}", rng.u64(..)));
                let disturbed = Disturbed::new(rng, shape.grace(), backup);
                let disturbed = Arc::new(disturbed.expect("a directory for links"));
                let links = disturbed.links();
                let local = Local::watched(dir.path().join("store"), disturbed);
                match bug {
                    Some(Bug::LinkCountBelieved) => Arc::new(LinkCountBelieved::new(local, links)),
                    _ => Arc::new(local),
                }
            };
            Ok((shape, race(shape, &storage, bug).await))
        },
    )
}

/// `count` histories of processes; `lab` is the program that they are.
///
/// # Errors
/// Where none can be made.
pub fn in_processes(lab: &Path, seed: u64, count: u64) -> Result<Report> {
    let lab = lab.to_owned();
    histories(
        ("of processes", AT_ONCE_OF_PROCESSES),
        (seed, count),
        false,
        move |seed| {
            let lab = lab.clone();
            async move {
                let shape = Shape { seed, ..PROCESSES };
                let events =
                    tokio::task::spawn_blocking(move || processes::race(&lab, shape)).await??;
                Ok((shape, events))
            }
        },
    )
}

/// Makes histories and checks each of them.
fn histories<F: Future<Output = Result<(Shape, Vec<Event>)>> + Send + 'static>(
    (place, at_once): (&str, usize),
    (seed, count): (u64, u64),
    first_only: bool,
    make: impl Fn(u64) -> F + Clone + Send + 'static,
) -> Result<Report> {
    let next = Arc::new(AtomicU64::new(0));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()?;
    let found = runtime.block_on(async {
        let mut tasks = JoinSet::new();
        for _ in 0..at_once {
            let next = Arc::clone(&next);
            let make = make.clone();
            tasks.spawn(async move {
                let mut found = Found::default();
                loop {
                    let history = next.fetch_add(1, Ordering::Relaxed);
                    if history >= count {
                        return Ok::<_, anyhow::Error>(found);
                    }
                    let (shape, events) =
                        make(seed.wrapping_mul(1_000_003).wrapping_add(history)).await?;
                    found.judge(&shape, &events);
                    if first_only && !found.violations.is_empty() {
                        next.store(count, Ordering::Relaxed);
                    }
                }
            });
        }
        let mut found = Found::default();
        while let Some(task) = tasks.join_next().await {
            found.add(task??);
        }
        Ok::<_, anyhow::Error>(found)
    })?;
    Ok(found.report(place))
}

/// Several workers at once on one storage, then a look at everything.
async fn race(
    shape: Shape,
    storage: &(dyn Fn(Rng) -> Arc<dyn Storage> + Sync),
    bug: Option<Bug>,
) -> Vec<Event> {
    let log = Arc::new(Log::default());
    let mut workers = JoinSet::new();
    let mut weathers = Vec::new();
    // A prune spares versions by the first policy, too, for as long as its grace period.
    let mut first = options(shape, shape.workers);
    first.grace = shape.grace();
    let keeper = Store::with_options(storage(shape.rng(3)), first);
    let made = keeper.set_policy(&policy(shape.grace()), Expect::Any).await;
    made.expect("a store with a policy");
    let changes = tokio::spawn(change_policy(keeper, shape));
    let is_wrong = shape.has_wrong_clock() || bug == Some(Bug::TrailerIgnored);
    let clock = Arc::new(Clock::new(is_wrong));
    for number in 0..shape.workers {
        let part = |part: u64| shape.rng(100 * part + number as u64);
        // Who saves whatever is there is the one whose cache nothing but a lost race corrects.
        let bug = bug.filter(|bug| *bug != Bug::CachedHead || number == 0);
        let believes = bug == Some(Bug::SleeperBelieved) && number != script::KEEPER;
        let policy = if believes {
            Some(fault_storage::policies_of_an_hour().await)
        } else {
            None
        };
        let weather = FaultStorage::new(
            storage(part(1)),
            part(2),
            shape.grace(),
            bug,
            Arc::clone(&clock),
        );
        let weather = Arc::new(weather.with_policy(policy));
        weathers.push(Arc::clone(&weather));
        let record: Arc<dyn Record> = log.clone();
        workers.spawn(async move {
            let faulty = Arc::new(Faulty::new(weather.clone()));
            let store = Store::with_options(faulty.clone(), options(shape, number));
            let before = |rng: &mut Rng, call: Call| {
                weather.expect(call);
                if call.makes() && rng.u32(0..100) < 15 {
                    faulty.plan(fault(rng, shape.grace()));
                }
            };
            Worker::new(shape, number)
                .careless(bug == Some(Bug::ExpiryUnconditional))
                .work(&scope(&store), &record, &before)
                .await;
        });
    }
    while workers.join_next().await.is_some() {}
    changes.abort();
    for weather in weathers {
        weather.calm().await;
    }
    let store = Store::with_options(storage(shape.rng(1)), options(shape, 0));
    audit(&store, shape, &(log.clone() as Arc<dyn Record>)).await;
    log.take()
}

/// Looks at everything that is there.
async fn audit(store: &Store, shape: Shape, record: &Arc<dyn Record>) {
    for name in 0..shape.names {
        ask(&scope(store), (shape.workers, name), Call::Audit, record).await;
    }
}

/// The settings of one host. Each has others; the store's policy overrules them.
fn options(shape: Shape, number: usize) -> StoreOptions {
    let mut options = StoreOptions::default();
    options.grace = match number % 4 {
        0 => Duration::from_secs(60 * 60),
        1 => shape.grace(),
        2 => shape.grace() / 4,
        _ => shape.grace() * 4,
    };
    if number % 4 == 3 {
        options.retention = Some(Retention::nothing());
    }
    options
}

/// The policy of a store that nothing but an operator prunes.
fn policy(grace: Duration) -> Policy {
    let mut policy = Policy::default();
    (policy.grace, policy.retention) = (grace, None);
    policy
}

/// Changes the grace period again and again, where the history has such changes; it is never
/// shorter than [`Shape::shortest_grace`].
async fn change_policy(store: Store, shape: Shape) {
    let mut rng = shape.rng(4);
    while shape.has_policy_changes() {
        tokio::time::sleep(shape.grace().mul_f64(0.5 + 2.0 * rng.f64())).await;
        let grace = shape.shortest_grace() * rng.u32(1..5);
        // The storage does not fail here; another change may be first.
        let _ = store.set_policy(&policy(grace), Expect::Any).await;
    }
}

fn fault(rng: &mut Rng, grace: Duration) -> Fault {
    match rng.u32(0..7) {
        0 | 1 => Fault::ReplyLost,
        2 => Fault::RequestLost,
        3 => Fault::NotDurable,
        4 => Fault::OwnRetry,
        5 => Fault::Fails(ErrorKind::Throttled),
        _ => Fault::AnsweredLate(grace.mul_f64(0.3 + rng.f64())),
    }
}

/// Collects events in the order in which they are answered.
#[derive(Default)]
struct Log(Mutex<Vec<Event>>);

impl Log {
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Record for Log {
    fn record(&self, event: &Event) {
        // Who shares a process with us does not die alone: each call is answered.
        if event.answered.is_some() {
            let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            events.push(event.clone());
        }
    }
}

/// Findings in some histories.
#[derive(Debug, Default)]
struct Found {
    histories: u64,
    calls: u64,
    unknown: u64,
    slow: u64,
    pruned: u64,
    violations: Vec<String>,
}

impl Found {
    fn judge(&mut self, shape: &Shape, events: &[Event]) {
        self.histories += 1;
        for event in events {
            self.count(shape, event);
        }
        let seed = shape.seed;
        let grace = Micros::try_from(shape.shortest_grace().as_micros()).unwrap_or(Micros::MAX);
        let wrong = events.iter().find(|event| event.is_wrong());
        if let Some(wrong) = wrong {
            self.violations.push(format!("history {seed}: {wrong:?}"));
        }
        let history = History {
            before: &[],
            events,
            grace,
        };
        for name in 0..shape.names {
            match history.check(name) {
                Verdict::Linear(_) => {}
                // An end that comes earlier is decided sooner, and is as wrong.
                Verdict::GivenUp | Verdict::Not => {
                    self.violations.push(match history.smallest(name) {
                        Some(witness) => format!(
                            "history {seed}: on name-{name} no order of these explains the \
                             answers:{witness}"
                        ),
                        None => format!(
                            "history {seed}: it takes too long to decide on name-{name}:{}",
                            history.of_name(name)
                        ),
                    })
                }
            }
        }
    }

    fn count(&mut self, shape: &Shape, event: &Event) {
        self.calls += 1;
        match &event.answered {
            None | Some((_, Answer::Unknown(_))) => self.unknown += 1,
            Some((_, Answer::Pruned(removed))) => self.pruned += removed.len() as u64,
            _ => {}
        }
        let took = event
            .answered
            .as_ref()
            .map_or(0, |answered| answered.0 - event.asked);
        self.slow += u64::from(took > shape.grace * 1000);
    }

    fn add(&mut self, other: Self) {
        self.histories += other.histories;
        self.calls += other.calls;
        self.unknown += other.unknown;
        self.slow += other.slow;
        self.pruned += other.pruned;
        self.violations.extend(other.violations);
    }

    fn report(self, place: &str) -> Report {
        let Self {
            calls,
            unknown,
            slow,
            pruned,
            ..
        } = self;
        let mut report = Report::default();
        let what = format!(
            "{place}: {calls} calls, {unknown} of unknown outcome, {slow} longer than the grace, \
             {pruned} versions pruned"
        );
        report.tried(&what, self.histories);
        report.violations = self.violations;
        report
    }
}

#[cfg(test)]
mod tests;
