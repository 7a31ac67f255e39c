//! Kills the process that saves, at any moment and over and over, and opens the store anew after
//! each.
//!
//! Two processes share a store on the real disk, each with two agents that save, stream, delete,
//! restore, fork, prune, purge and expire. They say on a pipe what they ask and what they are
//! answered;
//! each is killed (SIGKILL) 0 to 30 ms after it asked for something, most soon. Then everything
//! that is there is loaded and verified, by the model that the histories are checked against: each
//! acknowledged version is there with its bytes unless an acknowledged prune took it, the one call
//! that was under way happened whole or not at all, and nothing else changed.
//!
//! At the end one save sweeps what the dead left: then every file of the store is a version, or the
//! store's own.

mod bugs;
mod worker;

pub use bugs::Bug;
pub use worker::worker;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use persist_host::snapshot::{SaveOptions, Store};
use persist_host::storage::Local;

use crate::histories::{Call, Event, History, Record, State, Verdict, ask, name_of};
use crate::links::Backups;
use crate::{Plan, Report, Target};
use worker::{AGENTS, GRACE_MS, NAMES, agent};

/// Processes that share a store.
const PROCESSES: usize = 2;

/// Percentage of kills of processes that are the first of their store.
const NEW_STORES: u64 = 5;

/// Calls that a process begins before it is killed, at most.
const CALLS: usize = 12;

/// How long after a call began the kill comes, at most, in milliseconds. Most come soon: a save
/// takes one or two.
const LATEST_MS: f64 = 30.0;

/// How long the last save may take to sweep what is left, on the slowest disk.
const SWEEP: Duration = Duration::from_secs(60);

/// The target, as the laboratory runs it.
pub const TARGET: Target = Target {
    name: "kill",
    about: "processes killed at any moment on the real disk, and the store opened anew after each",
    count: 1200,
    run,
};

fn run(plan: Plan) -> Result<Report> {
    let lab = std::env::current_exe().context("find this program")?;
    kills(&lab, plan.seed, plan.count, None)
}

/// Kills `lab`, this program, `count` times; over a bug that was planted, if one was.
///
/// # Errors
/// Where it cannot be started.
pub fn kills(lab: &Path, seed: u64, count: u64, bug: Option<Bug>) -> Result<Report> {
    let new = count * NEW_STORES / 100;
    let mut report = Report::default();
    for number in 0..new {
        let part = one_store(
            lab,
            seed.wrapping_mul(1_000_003).wrapping_add(number),
            1,
            bug,
        )?;
        report.add(part.report("of a store's first processes"));
    }
    report.add(one_store(lab, seed, count - new, bug)?.report("of processes that share one store"));
    Ok(report)
}

/// Findings in one store.
#[derive(Debug, Default)]
struct Found {
    kills: u64,
    calls: u64,
    answered: u64,
    violations: Vec<String>,
}

impl Found {
    fn report(self, what: &str) -> Report {
        let mut report = Report::default();
        report.tried(what, self.kills);
        report.tried("calls that were answered before a kill", self.answered);
        report.tried("calls that a kill fell into", self.calls - self.answered);
        report.violations = self.violations;
        report
    }
}

/// A store that lives on for all its kills.
fn one_store(lab: &Path, seed: u64, kills: u64, bug: Option<Bug>) -> Result<Found> {
    let base = tempfile::tempdir()?;
    let dir = base.path().join("store");
    let _backups = Backups::begin(&dir, base.path().join("backup"))?;
    let mut rng = Rng::with_seed(seed);
    let mut found = Found::default();
    let mut states = BTreeMap::new();
    for round in 0.. {
        let processes = PROCESSES.min((kills - found.kills) as usize);
        if processes == 0 || !found.violations.is_empty() {
            break;
        }
        let victims = (0..processes)
            .map(|number| Victim::start(lab, &dir, &mut rng, (round, number), bug))
            .collect::<Result<Vec<_>>>()?;
        let mut events = Vec::new();
        for victim in victims {
            events.extend(victim.end()?);
        }
        found.kills += processes as u64;
        found.calls += events.len() as u64;
        found.answered += events
            .iter()
            .filter(|event| event.answered.is_some())
            .count() as u64;
        let at = format!("seed {seed}, after kill {}", found.kills);
        // Few prunes of a process end before it is killed. Without others, names would get more
        // versions than the checker can order.
        let is_pruned = round % ROUNDS_BETWEEN_PRUNES == ROUNDS_BETWEEN_PRUNES - 1;
        let wrong = look(&dir, &events, &mut states, is_pruned)?;
        found
            .violations
            .extend(wrong.into_iter().map(|what| format!("{at}: {what}")));
    }
    if found.violations.is_empty() {
        let left = litter(&dir, &mut states)?;
        found
            .violations
            .extend(left.into_iter().map(|what| format!("seed {seed}: {what}")));
    }
    Ok(found)
}

/// Rounds of kills after which the versions of each name are pruned to a few.
const ROUNDS_BETWEEN_PRUNES: u32 = 8;

/// Known state of each name of each agent.
type States = BTreeMap<(usize, usize), State>;

/// Opens the store anew, loads everything, and compares it with what was acknowledged.
fn look(dir: &Path, events: &[Event], states: &mut States, is_pruned: bool) -> Result<Vec<String>> {
    let mut wrong: Vec<_> = events
        .iter()
        .filter(|event| event.is_wrong())
        .map(|event| format!("{event:?}"))
        .collect();
    let audits = audit(dir, is_pruned)?;
    for who in 0..PROCESSES * AGENTS {
        let mut of_agent: Vec<_> = events
            .iter()
            .filter(|event| event.worker == who)
            .cloned()
            .collect();
        of_agent.extend(audits.iter().filter(|event| event.worker == who).cloned());
        wrong.extend(
            of_agent
                .iter()
                .filter(|e| e.call == Call::Audit && e.is_wrong())
                .map(|e| format!("{e:?}")),
        );
        let state = |name| states.get(&(who, name)).cloned().unwrap_or_default();
        let before: Vec<State> = (0..NAMES).map(state).collect();
        let history = History {
            before: &before,
            events: &of_agent,
            grace: GRACE_MS * 1000,
        };
        for (name, known) in before.iter().enumerate() {
            match history.check(name) {
                Verdict::Linear(after) => drop(states.insert((who, name), after)),
                Verdict::Not | Verdict::GivenUp => {
                    let had: Vec<_> = known.whats().collect();
                    let cannot_be = match history.smallest(name) {
                        Some(witness) => format!("these cannot be:{witness}"),
                        None => "it takes too long to decide what came after".into(),
                    };
                    wrong.push(format!("{} had {had:?}, and {cannot_be}", agent(who)));
                }
            }
        }
    }
    Ok(wrong)
}

fn audit(dir: &Path, is_pruned: bool) -> Result<Vec<Event>> {
    let log = Arc::new(Log::default());
    let record: Arc<dyn Record> = log.clone();
    let store = Store::new(Arc::new(Local::new(dir)));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    runtime.block_on(async {
        for who in 0..PROCESSES * AGENTS {
            let scope = store.scope(&agent(who), None)?;
            for name in 0..NAMES {
                if is_pruned {
                    ask(&scope, (who, name), Call::Prune { keep: 4 }, &record).await;
                }
                ask(&scope, (who, name), Call::Audit, &record).await;
            }
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(std::mem::take(
        &mut log.0.lock().unwrap_or_else(PoisonError::into_inner),
    ))
}

#[derive(Default)]
struct Log(Mutex<Vec<Event>>);

impl Record for Log {
    fn record(&self, event: &Event) {
        if event.answered.is_some() {
            let mut events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            events.push(event.clone());
        }
    }
}

/// Saves once more, as the next process would, and says what is left that is no version and not the
/// store's own.
fn litter(dir: &Path, states: &mut States) -> Result<Vec<String>> {
    let store = Store::new(Arc::new(Local::new(dir)));
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let saved = runtime.block_on(async {
        let scope = store.scope("the next", None)?;
        scope
            .save(&name_of(0), "one more".into(), SaveOptions::default())
            .await
    });
    if let Err(error) = saved {
        return Ok(vec![format!("the next process cannot save: {error}")]);
    }
    // The sweep goes on beside what its process does next.
    let temporary = dir.join("~/tmp");
    let begun = std::time::Instant::now();
    while std::fs::read_dir(&temporary)?.next().is_some() && begun.elapsed() < SWEEP {
        std::thread::sleep(Duration::from_millis(5));
    }
    let versions: usize = states.values().map(|state| state.whats().count()).sum();
    let files = files(dir)?;
    let is_gz = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "gz");
    let is_policy = |path: &PathBuf| path.starts_with(dir.join("~")) && is_gz(path);
    let is_version = |path: &&PathBuf| is_gz(path) && !is_policy(path);
    let mut wrong = Vec::new();
    let strange: Vec<_> = files
        .iter()
        .filter(|path| !is_gz(path) && !path.ends_with("~/store.json"))
        // A prune that was killed may leave one of 6 bytes, which may be another host's at any
        // moment: `gc` removes it.
        .filter(|path| !path.to_string_lossy().contains("/~/clock-"))
        .map(|path| path.strip_prefix(dir).unwrap_or(path).display().to_string())
        .collect();
    if !strange.is_empty() {
        wrong.push(format!("the dead left {}", strange.join(", ")));
    }
    let there = files.iter().filter(is_version).count();
    if there != versions + 1 {
        wrong.push(format!(
            "{there} files are versions, and {} should be",
            versions + 1
        ));
    }
    Ok(wrong)
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(self::files(&entry.path())?)
        } else {
            files.push(entry.path())
        }
    }
    Ok(files)
}

/// A process that will be killed.
struct Victim {
    child: Child,
    lines: JoinHandle<Vec<Event>>,
    asked: Receiver<()>,
    /// How many calls it begins before.
    calls: usize,
    /// And how long after the last of them it is killed.
    delay: Duration,
}

impl Victim {
    fn start(
        lab: &Path,
        dir: &Path,
        rng: &mut Rng,
        (round, number): (u32, usize),
        bug: Option<Bug>,
    ) -> Result<Self> {
        let mut child = Command::new(lab)
            .args([crate::WORKER, "kill"])
            .arg(dir)
            .args([
                number.to_string(),
                round.to_string(),
                rng.u64(..).to_string(),
            ])
            .args(bug.map(Bug::name))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", lab.display()))?;
        let stdout = child.stdout.take().context("it was piped")?;
        let (tell, asked) = channel();
        let lines = std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // A line that was cut off was not said.
            let events = lines.filter_map(|line| serde_json::from_str::<Event>(&line).ok());
            events
                .inspect(|event| {
                    if event.answered.is_none() {
                        // Calls are not counted any more after the kill was sent.
                        let _ = tell.send(());
                    }
                })
                .collect()
        });
        let late = rng.f64();
        Ok(Self {
            child,
            lines,
            asked,
            calls: rng.usize(1..=CALLS),
            delay: Duration::from_secs_f64(late * late * late * LATEST_MS / 1000.0),
        })
    }

    /// Waits for its moment, kills it, and says what it asked and was answered.
    fn end(mut self) -> Result<Vec<Event>> {
        let begun = (0..self.calls)
            .take_while(|_| self.asked.recv().is_ok())
            .count();
        std::thread::sleep(self.delay);
        self.child.kill()?;
        self.child.wait()?;
        let Ok(lines) = self.lines.join() else {
            bail!("the reader of a worker's lines panicked");
        };
        if begun < self.calls {
            bail!("a worker ended by itself");
        }
        let mut events: Vec<Event> = Vec::new();
        for event in lines {
            let open = events
                .iter_mut()
                .rev()
                .find(|open| open.worker == event.worker);
            match open {
                Some(open) if open.answered.is_none() => *open = event.on_a_healthy_disk(),
                _ => events.push(event),
            }
        }
        Ok(events)
    }
}
