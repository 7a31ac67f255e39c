//! Trace of a run's calls to the disk, call by call.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;
use persist_host::storage::{Call, Watch};

/// One effect on the disk, or a mark in between. Paths are relative to where the store's own
/// directory is made.
#[derive(Clone, Debug)]
pub(super) enum Op {
    MakeDir(PathBuf),
    Create(PathBuf),
    /// Makes a file that has no name; the path stands for it.
    CreateUnnamed(PathBuf),
    Write(PathBuf, Arc<[u8]>),
    SyncFile(PathBuf),
    SyncDir(PathBuf),
    Link(PathBuf, PathBuf),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    /// A step begins; nothing of it is on the disk yet.
    Begin(usize),
    /// A step was acknowledged.
    End(usize),
}

/// Records the calls of any number of hosts on one directory, in the order in which they were made.
#[derive(Debug)]
pub(super) struct Recorder {
    base: PathBuf,
    ops: Mutex<Vec<Op>>,
    turns: Turns,
}

impl Recorder {
    pub(super) fn new(base: &Path, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            base: base.to_owned(),
            ops: Mutex::default(),
            turns: Turns::new(seed),
        })
    }

    /// The watch of one host. Hosts with a number take turns, as the seed says.
    pub(super) fn host(self: &Arc<Self>, number: Option<usize>) -> Arc<dyn Watch> {
        Arc::new(Host {
            recorder: Arc::clone(self),
            number,
        })
    }

    /// Waits for the turn of a host.
    pub(super) fn turn(&self, number: Option<usize>) {
        if let Some(number) = number {
            self.turns.wait(number);
        }
    }

    /// Lets a number of hosts run, each until it is [done](Recorder::done).
    pub(super) fn take_turns(&self, hosts: usize) {
        self.turns.lock().running = hosts;
    }

    pub(super) fn done(&self) {
        self.turns.leave();
    }

    pub(super) fn mark(&self, op: Op) {
        self.ops().push(op);
    }

    /// Returns the operations that were recorded since the last time.
    pub(super) fn take(&self) -> Vec<Op> {
        std::mem::take(&mut *self.ops())
    }

    fn ops(&self) -> MutexGuard<'_, Vec<Op>> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, call: Call<'_>) {
        let path = |path: &Path| path.strip_prefix(&self.base).ok().map(Path::to_owned);
        let op = match call {
            Call::MakeDir(at) => path(at).map(Op::MakeDir),
            Call::SyncDir(at) => path(at).map(Op::SyncDir),
            Call::CreateFile(at) => path(at).map(Op::Create),
            Call::CreateUnnamed(at) => path(at).map(Op::CreateUnnamed),
            Call::WriteFile(at, bytes) => path(at).map(|at| Op::Write(at, bytes.into())),
            Call::SyncFile(at) => path(at).map(Op::SyncFile),
            Call::Link(from, to) => path(from).zip(path(to)).map(|(a, b)| Op::Link(a, b)),
            Call::RenameNoReplace(from, to) | Call::Rename(from, to) => {
                path(from).zip(path(to)).map(|(a, b)| Op::Rename(a, b))
            }
            Call::Remove(at) => path(at).map(Op::Remove),
            _ => None,
        };
        self.ops().extend(op);
    }
}

#[derive(Debug)]
struct Host {
    recorder: Arc<Recorder>,
    number: Option<usize>,
}

impl Watch for Host {
    fn before(&self, _: Call<'_>) -> io::Result<()> {
        self.recorder.turn(self.number);
        Ok(())
    }

    fn after(&self, call: Call<'_>, done: bool) -> io::Result<()> {
        if done {
            self.recorder.record(call);
        }
        Ok(())
    }

    fn allows_unnamed(&self) -> bool {
        true
    }
}

/// Lets one host go on at a time, and only when each of the others waits: so the order follows from
/// the seed alone.
#[derive(Debug)]
struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    rng: Rng,
    waiting: BTreeSet<usize>,
    running: usize,
    next: Option<usize>,
}

impl Turns {
    fn new(seed: u64) -> Self {
        Self {
            state: Mutex::new(State {
                rng: Rng::with_seed(seed),
                waiting: BTreeSet::new(),
                running: 0,
                next: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, number: usize) {
        let mut state = self.lock();
        if state.running == 0 && state.waiting.is_empty() {
            // The hosts do not take turns yet.
            return;
        }
        state.waiting.insert(number);
        state.running -= 1;
        self.choose(&mut state);
        while state.next != Some(number) {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.next = None;
        state.waiting.remove(&number);
        state.running += 1;
    }

    fn leave(&self) {
        let mut state = self.lock();
        state.running -= 1;
        self.choose(&mut state);
    }

    fn choose(&self, state: &mut State) {
        if state.running == 0 && state.next.is_none() && !state.waiting.is_empty() {
            let number = state.rng.usize(..state.waiting.len());
            state.next = state.waiting.iter().nth(number).copied();
            self.changed.notify_all();
        }
    }
}
