//! Every state in which a crash may leave the disk is built in a folder, and opened by the real
//! code.
//!
//! The real code is run over a watch that records what it makes, writes and syncs. After each call
//! of that trace, `disk` says what a crash may leave; `check` looks at it with the real code:
//! nothing that was acknowledged is lost, nothing is torn, nothing that was removed comes back, and
//! the next save, delete and load work. That next save is recorded in turn for some states, and
//! crashed again.

mod check;
mod disk;
#[cfg(test)]
mod mutants;
mod scenario;
mod trace;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use fastrand::Rng;
use persist_host::snapshot::SaveOptions;
use persist_host::storage::{Local, Storage};

use crate::steps::{runtime, scope};
use crate::{Plan, Report, folder};
use check::Claims;
use disk::{Disk, Tree};
use scenario::{SCENARIOS, Scenario, Story, Wrap};
use trace::{Op, Recorder};

/// Crashes of the recovery are tried for one in this many states.
const RECOVERIES: usize = 50;

/// The target.
///
/// # Errors
/// Where the real code fails while it is recorded.
pub fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::default();
    // Further rounds differ in the states, in the order in which hosts take turns, and in what is
    // tried of what is random.
    for round in 0.. {
        let before = report.total();
        for scenario in SCENARIOS {
            let seed = plan.seed.wrapping_add(round * 1000);
            report.add(explore(scenario, seed, REAL)?);
            if report.total() >= plan.count && round > 0 {
                return Ok(report);
            }
        }
        if report.total() >= plan.count || report.total() == before || !report.violations.is_empty()
        {
            break;
        }
    }
    Ok(report)
}

/// Code that is crashed: the real code, or code with a planted bug that must be found.
#[derive(Clone, Copy)]
struct Subject {
    storage: Wrap,
    trace: fn(Vec<Op>) -> Vec<Op>,
    /// True if a crash of the save after a crash is tried, too.
    recover: bool,
    /// One in this many states is tried.
    sample: usize,
}

const REAL: Subject = Subject {
    storage: |local| Arc::new(local),
    trace: |ops| ops,
    recover: true,
    sample: 1,
};

/// A moment of a trace at which there is a crash.
struct Moment {
    at: usize,
    disk: Disk,
    seed: u64,
}

/// Crashes one scenario everywhere.
fn explore(scenario: &Scenario, seed: u64, subject: Subject) -> Result<Report> {
    let base = folder()?;
    let mut story = scenario.record(base.path(), seed, subject.storage)?;
    story.ops = (subject.trace)(story.ops);
    let mut disk = Disk::default();
    let mut rng = Rng::with_seed(seed);
    let mut moments = Vec::new();
    for (at, op) in story.ops.iter().enumerate() {
        disk.apply(op);
        moments.push(Moment {
            at: at + 1,
            disk: disk.clone(),
            seed: rng.u64(..),
        });
    }
    let crash = |moment: &Moment, tried: &Tried| {
        let claims = Claims::at(&story, &story.ops[..moment.at]);
        let place = |broken| {
            let trace = tail(&story, moment.at);
            format!("{}, seed {seed}: {broken}\n{trace}", scenario.name)
        };
        tried.crash(&moment.disk, moment.seed, &claims, subject, &place)
    };
    let tried = Tried::default();
    for_each(&moments, |moment| crash(moment, &tried))?;
    Ok(tried.report(scenario.name))
}

/// Does `work` for each of `items`, on all processors.
fn for_each<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let worker = || {
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                work(item)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, _>| worker.join().expect("no panic");
        workers.into_iter().try_for_each(join)
    })
}

/// Record of what was tried in one scenario.
#[derive(Debug, Default)]
struct Tried {
    /// Hashes of the states, with what is claimed of them.
    states: Mutex<HashSet<u64>>,
    recoveries: AtomicUsize,
    violations: Mutex<Vec<String>>,
}

impl Tried {
    /// Tries every choice of one crash.
    fn crash(
        &self,
        disk: &Disk,
        seed: u64,
        claims: &Claims,
        subject: Subject,
        place: &dyn Fn(String) -> String,
    ) -> Result<()> {
        let mut rng = Rng::with_seed(seed);
        for choice in disk.choices(&mut rng) {
            let tree = disk.crash(&choice);
            if rng.usize(..subject.sample) != 0 || !self.is_new(&tree, claims) {
                continue;
            }
            let base = folder()?;
            disk::build(&tree, base.path())?;
            let recover = subject.recover && rng.usize(..RECOVERIES) == 0;
            if let Some(broken) = claims.broken_in(base.path())? {
                self.found(place(format!("{broken}\nafter {choice:?}")));
            } else if recover {
                let recover = false;
                let subject = Subject { recover, ..subject };
                self.crash_again(&tree, rng.u64(..), claims, subject, place)?;
            }
        }
        Ok(())
    }

    /// Records the first save after a crash, and crashes it.
    fn crash_again(
        &self,
        tree: &Tree,
        seed: u64,
        claims: &Claims,
        subject: Subject,
        place: &dyn Fn(String) -> String,
    ) -> Result<()> {
        let base = folder()?;
        disk::build(tree, base.path())?;
        let recorder = Recorder::new(base.path(), seed);
        let storage = Local::watched(base.path().join("store"), recorder.host(None));
        let save = async {
            let scope = scope(Arc::new(storage) as Arc<dyn Storage>);
            let state = Bytes::from_static(b"recovered");
            scope.save("recovery", state, SaveOptions::default()).await
        };
        runtime()?.block_on(save)?;
        let mut disk = Disk::of(tree);
        for op in recorder.take() {
            disk.apply(&op);
            self.recoveries.fetch_add(1, Ordering::Relaxed);
            self.crash(&disk, seed, claims, subject, &|broken| {
                place(format!("{broken}, in a crash while the next save was made"))
            })?;
        }
        Ok(())
    }

    fn is_new(&self, tree: &Tree, claims: &Claims) -> bool {
        let mut hasher = DefaultHasher::new();
        tree.hash(&mut hasher);
        claims.marks.hash(&mut hasher);
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.insert(hasher.finish())
    }

    fn found(&self, violation: String) {
        let mut found = self
            .violations
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        found.push(violation);
    }

    fn report(self, name: &str) -> Report {
        let mut report = Report::default();
        let states = self
            .states
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        report.tried(&format!("crash states: {name}"), states.len() as u64);
        let found = self.violations.into_inner();
        let found = found.unwrap_or_else(PoisonError::into_inner);
        // One of each, the shortest.
        report
            .violations
            .extend(found.into_iter().min_by_key(String::len));
        report
    }
}

/// Returns the last operations before a crash, from the step that was under way.
fn tail(story: &Story, at: usize) -> String {
    let begin = story.ops[..at]
        .iter()
        .rposition(|op| matches!(op, Op::Begin(_)))
        .unwrap_or(0);
    let lines = story.ops[begin..at].iter().map(|op| match op {
        Op::Write(path, bytes) => format!("  Write({path:?}, {} bytes)\n", bytes.len()),
        Op::Begin(step) => format!(
            "  Begin({step}) {:.200}\n",
            format!("{:?}", story.deeds[*step])
        ),
        op => format!("  {op:?}\n"),
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(name: &str) -> &'static Scenario {
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
        found.expect("a scenario of that name")
    }

    fn record(name: &str, seed: u64) -> (tempfile::TempDir, Story) {
        let base = folder().expect("a folder");
        let story = scenario(name).record(base.path(), seed, REAL.storage);
        (base, story.expect("is recorded"))
    }

    #[test]
    fn no_crash_state_is_wrong() {
        let large = |scenario: &&Scenario| scenario.name.contains("sent before");
        for scenario in SCENARIOS.iter().filter(|scenario| !large(scenario)) {
            let report = explore(scenario, 1, Subject { sample: 10, ..REAL }).expect("is recorded");
            assert_eq!(report.violations, [""; 0], "{}", scenario.name);
            assert!(report.total() > 10, "{}: {report}", scenario.name);
        }
    }

    #[test]
    fn the_model_sees_what_the_disk_holds() {
        let (base, story) = record("a purge, and life after it", 1);
        let mut disk = Disk::default();
        for op in &story.ops {
            disk.apply(op);
        }
        assert_eq!(disk.seen(), disk::read(base.path()).expect("readable"));
    }

    #[test]
    fn hosts_take_turns_as_the_seed_says() {
        let order = |seed| {
            let (_base, story) = record("two hosts save one name", seed);
            let kinds = story.ops.iter().map(|op| match op {
                Op::Begin(step) | Op::End(step) => format!("{step}"),
                op => format!("{:?}", std::mem::discriminant(op)),
            });
            kinds.collect::<Vec<_>>()
        };
        assert_eq!(order(1), order(1));
        assert!((2..10).any(|seed| order(seed) != order(1)));
    }
}
