//! Histories of processes: this program again, three times, on one directory. Each tells its
//! acknowledged saves on its standard output; its parent stops it for longer than a lease is good,
//! wakes it, and kills one.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fastrand::Rng;
use persist_host::snapshot::{Store, Version};
use persist_host::storage::Local;
use rustix::process::{Pid, Signal, kill_process};

use super::host::HostStorage;
use super::{AGENT, Found, HOSTS, Host, NAME};
use crate::Report;
use crate::steps::runtime;

/// Term of a lease; a disk is slower than memory.
const TERM: Duration = Duration::from_millis(60);

/// `count` histories of processes that are `lab`, one after the other.
///
/// # Errors
/// Where none can be made.
pub fn in_processes(lab: &Path, seed: u64, count: u64) -> Result<Report> {
    let mut found = Found::default();
    for history in 0..count {
        let seed = seed.wrapping_mul(1_000_003).wrapping_add(history);
        found.add(race(lab, seed)?);
    }
    Ok(found.report("of processes"))
}

fn race(lab: &Path, seed: u64) -> Result<Found> {
    let dir = tempfile::tempdir()?;
    let store = Store::new(Arc::new(Local::new(dir.path())));
    runtime()?.block_on(store.init())?;
    let mut hosts = (0..HOSTS)
        .map(|number| Process::start(lab, dir.path(), seed, number))
        .collect::<Result<Vec<_>>>()?;
    trouble(&mut hosts, &mut Rng::with_seed(seed))?;
    let mut found = Found {
        histories: 1,
        ..Found::default()
    };
    for host in hosts {
        found.saved.extend(host.saved()?);
    }
    let scope = store.scope(AGENT, None)?;
    let mut history = runtime()?.block_on(scope.history(NAME, None, 10_000))?;
    history.reverse();
    found.audit(seed, &history);
    Ok(found)
}

/// Stops processes, and kills one in every second history, until all are done.
fn trouble(hosts: &mut [Process], rng: &mut Rng) -> Result<()> {
    let mut may_kill = rng.bool();
    loop {
        std::thread::sleep(TERM.mul_f64(rng.f64()));
        let mut alive = Vec::new();
        for host in &mut *hosts {
            if host.child.try_wait()?.is_none() {
                alive.push(host);
            }
        }
        if alive.is_empty() {
            return Ok(());
        }
        let host = &alive[rng.usize(..alive.len())];
        match rng.u32(0..12) {
            0..8 => {
                host.signal(Signal::STOP)?;
                std::thread::sleep(TERM.mul_f64(1.0 + 2.0 * rng.f64()));
                host.signal(Signal::CONT)?;
            }
            8 if may_kill => {
                may_kill = false;
                host.signal(Signal::KILL)?;
            }
            _ => {}
        }
    }
}

/// A host that is a process.
struct Process {
    child: Child,
    saved: JoinHandle<Vec<(Version, String)>>,
}

impl Process {
    fn start(lab: &Path, dir: &Path, seed: u64, number: usize) -> Result<Self> {
        let mut child = Command::new(lab)
            .args([crate::WORKER, "lease"])
            .arg(dir)
            .args([seed.to_string(), number.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", lab.display()))?;
        let stdout = child.stdout.take().context("it was piped")?;
        let saved = std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // A line that was cut off was not said.
            let saved = lines.filter_map(|line| {
                let (version, turn) = line.strip_suffix('.')?.split_once(' ')?;
                Some((version.parse().ok()?, turn.to_owned()))
            });
            saved.collect()
        });
        Ok(Self { child, saved })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Returns the acknowledged saves of the process, after it has ended.
    fn saved(mut self) -> Result<Vec<(Version, String)>> {
        self.child.wait()?;
        match self.saved.join() {
            Ok(saved) => Ok(saved),
            Err(_) => bail!("the reader of a host's lines panicked"),
        }
    }
}

/// Runs a host process. Its arguments are the directory, the seed and its number.
///
/// # Errors
/// Where the arguments are not those.
pub fn worker(args: &[String]) -> Result<()> {
    let [dir, seed, number] = args else {
        bail!("a host has a directory, a seed and a number");
    };
    let (seed, number): (u64, usize) = (seed.parse()?, number.parse()?);
    let rng = |part: u64| Rng::with_seed(seed.wrapping_mul(31).wrapping_add(part));
    let part = number as u64;
    let local = Arc::new(Local::new(dir));
    let storage = Arc::new(HostStorage::new(local, rng(10 + part), None));
    let host = Host {
        number,
        term: TERM,
        store: Store::new(storage.clone()),
        storage,
        bug: None,
        log: Arc::default(),
        acknowledge: |version, turn| {
            // Without its parent, a host has no one to report to, and ends.
            let mut out = std::io::stdout().lock();
            if writeln!(out, "{version} {turn}.")
                .and_then(|()| out.flush())
                .is_err()
            {
                std::process::exit(1);
            }
        },
    };
    runtime()?.block_on(host.work(rng(20 + part)));
    Ok(())
}
