//! Histories of processes: this program again, several times, on one directory. Each says on its
//! standard output, a line of JSON each, what it asks and what it is answered, and when; its parent
//! stops, wakes and kills it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use persist_host::snapshot::{Expect, Store};
use persist_host::storage::Local;
use rustix::process::{Pid, Signal, kill_process};

use crate::links::Backups;

use super::event::{Event, Record, scope};
use super::script::{Shape, Worker};
use super::{Log, audit, options, policy};

/// One history of processes that are `lab`.
pub(super) fn race(lab: &Path, shape: Shape) -> Result<Vec<Event>> {
    let dir = tempfile::tempdir()?;
    let store = dir.path().join("store");
    make_store(&store, shape)?;
    let backup = Backups::begin(&store, dir.path().join("backup"))?;
    let mut workers = (0..shape.workers)
        .map(|number| Process::start(lab, &store, shape, number))
        .collect::<Result<Vec<_>>>()?;
    // All at once, when each is there.
    for worker in &mut workers {
        worker.go()?;
    }
    trouble(&mut workers, shape)?;
    let mut events = Vec::new();
    for worker in workers {
        let told = worker.events()?.into_iter();
        events.extend(told.map(Event::on_a_healthy_disk));
    }
    backup.end();
    events.extend(last_look(&store, shape)?);
    Ok(events)
}

/// Makes the store with its policy, which the settings of the workers differ from.
fn make_store(dir: &Path, shape: Shape) -> Result<()> {
    // A prune spares versions by the first policy, too, for as long as its grace period.
    let mut first = options(shape, shape.workers);
    first.grace = shape.grace();
    let store = Store::with_options(Arc::new(Local::new(dir)), first);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let policy = policy(shape.grace());
    runtime.block_on(store.set_policy(&policy, Expect::Any))?;
    Ok(())
}

fn last_look(dir: &Path, shape: Shape) -> Result<Vec<Event>> {
    let log = Arc::new(Log::default());
    let record: Arc<dyn Record> = log.clone();
    let store = Store::with_options(Arc::new(Local::new(dir)), options(shape, 0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(audit(&store, shape, &record));
    Ok(log.take())
}

/// Stops processes for longer than the grace, and kills one, until all are done.
fn trouble(workers: &mut [Process], shape: Shape) -> Result<()> {
    let mut rng = shape.rng(1);
    let mut may_kill = rng.bool();
    loop {
        std::thread::sleep(shape.grace().mul_f64(rng.f64() / 3.0));
        let mut alive = Vec::new();
        for worker in &mut *workers {
            if worker.child.try_wait()?.is_none() {
                alive.push(worker);
            }
        }
        if alive.is_empty() {
            return Ok(());
        }
        let count = alive.len();
        let worker = &mut alive[rng.usize(..count)];
        match rng.u32(0..10) {
            0..6 => worker.stop_for(shape.grace().mul_f64(1.1 + 1.5 * rng.f64()))?,
            6 if may_kill => {
                may_kill = false;
                worker.signal(Signal::KILL)?;
            }
            _ => {}
        }
    }
}

/// A worker that is a process.
struct Process {
    child: Child,
    lines: JoinHandle<Vec<Event>>,
}

impl Process {
    fn start(lab: &Path, dir: &Path, shape: Shape, number: usize) -> Result<Self> {
        let mut child = Command::new(lab)
            .args([crate::WORKER, "history"])
            .arg(dir)
            .arg(serde_json::to_string(&shape)?)
            .arg(number.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", lab.display()))?;
        let stdout = child.stdout.take().context("it was piped")?;
        let lines = std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // A line that was cut off was not said.
            lines
                .filter_map(|line| serde_json::from_str(&line).ok())
                .collect()
        });
        Ok(Self { child, lines })
    }

    fn go(&mut self) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("it was piped")?;
        Ok(stdin.write_all(b"go\n")?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    fn stop_for(&self, time: Duration) -> Result<()> {
        self.signal(Signal::STOP)?;
        std::thread::sleep(time);
        self.signal(Signal::CONT)
    }

    /// Returns the calls of the process and their answers, after the process has ended.
    fn events(mut self) -> Result<Vec<Event>> {
        self.child.wait()?;
        let Ok(lines) = self.lines.join() else {
            bail!("the reader of a worker's lines panicked");
        };
        let mut events: Vec<Event> = Vec::new();
        for event in lines {
            match events.last_mut() {
                Some(last) if last.answered.is_none() => *last = event,
                _ => events.push(event),
            }
        }
        Ok(events)
    }
}

/// Runs a worker process of a history. Its arguments are the directory, the shape and its number.
///
/// # Errors
/// Where the arguments are not those.
pub fn worker(args: &[String]) -> Result<()> {
    let [dir, shape, number] = args else {
        bail!("a worker of a history has a directory, a shape and a number");
    };
    let (shape, number): (Shape, usize) = (serde_json::from_str(shape)?, number.parse()?);
    let store = Store::with_options(Arc::new(Local::new(dir)), options(shape, number));
    let scope = scope(&store);
    std::io::stdin().read_line(&mut String::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let record: Arc<dyn Record> = Arc::new(Lines);
    runtime.block_on(Worker::new(shape, number).work(&scope, &record, &|_: &mut Rng, _| {}));
    Ok(())
}

/// Says events on standard output.
pub(crate) struct Lines;

impl Record for Lines {
    fn record(&self, event: &Event) {
        let mut line = serde_json::to_vec(event).expect("numbers and text are JSON");
        line.push(b'\n');
        // Without its parent, a worker has no one to report to, and ends.
        let mut out = std::io::stdout().lock();
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            std::process::exit(1);
        }
    }
}
