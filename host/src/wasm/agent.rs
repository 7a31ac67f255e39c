//! Runs agents: components of the world `persist:snapshot/agent`, with limits on everything.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use wasmtime::{Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use super::bindings::AgentPre;
use super::compile::compile;
use super::engine::Engines;
#[cfg(feature = "http")]
use super::http::{HttpHooks, TlsConfig};
use super::output::OutputPipe;
use super::run_error::RunError;
use super::run_options::RunOptions;
use super::state::AgentState;
use crate::guest::{Guest, Ledger, Limits, RunPermit, to_usize};
use crate::snapshot::{Lease, LeaseOptions};

/// Runs agents, each call in a store of its own: an agent keeps what it saved, and nothing else.
///
/// An agent has clocks, random numbers and its snapshots. It has no files and no network. What it
/// prints is captured, and [`RunOptions::output`] lets the host read it meanwhile. Its input and
/// environment are empty, or what [`RunOptions`] give it.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use persist_host::snapshot::Store;
/// use persist_host::storage::StorageConfig;
/// use persist_host::wasm::{AgentHost, SnapshotCtx};
///
/// let host = AgentHost::new()?;
/// let agent = host.load(&std::fs::read("agent.wasm")?).await?;
///
/// let store = Store::new(StorageConfig::default_local().build()?);
/// let scope = store.scope("my-agent", None)?;
/// let ran = agent.run(SnapshotCtx::new(scope), &["hello".into()]).await;
/// println!("{}", ran.answer?);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct AgentHost {
    shared: Arc<Shared>,
}

struct Shared {
    engines: Engines,
    limits: Limits,
    lease: Option<LeaseOptions>,
    ledger: Ledger,
    compiling: Arc<Semaphore>,
    running: Semaphore,
    #[cfg(feature = "http")]
    tls: Arc<TlsConfig>,
}

/// An agent that is compiled and linked, ready to run any number of times, also at once.
#[derive(Clone)]
pub struct Agent {
    host: AgentHost,
    pre: AgentPre<AgentState>,
}

/// A run that has ended, one way or another. What the agent saved before is kept; writers that it
/// did not finish are aborted, and nothing of them is visible.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunOutput {
    /// Answer of the agent, or the reason why it has no answer.
    pub answer: Result<String, RunError>,
    /// Standard output of the agent, up to [`Limits::output`].
    pub stdout: Bytes,
    /// Standard error of the agent, up to [`Limits::output`].
    pub stderr: Bytes,
    /// Hosts that the agent tried to send HTTP requests to, and that [`RunOptions::http`] does not
    /// allow: at most eight, each as [`HttpPolicy::allow`](super::HttpPolicy::allow) takes it.
    #[cfg(feature = "http")]
    pub denied_hosts: Vec<String>,
}

/// A run's places, until it is dropped, and its lease.
struct Turn<'a> {
    lease: Option<Lease>,
    _of_scope: RunPermit,
    _of_host: SemaphorePermit<'a>,
}

impl AgentHost {
    pub(super) fn with_engines(
        engines: Engines,
        limits: Limits,
        lease: Option<LeaseOptions>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                engines,
                ledger: Ledger::new(&limits),
                compiling: Arc::new(permits(limits.compilations)),
                running: permits(limits.runs),
                #[cfg(feature = "http")]
                tls: Arc::default(),
                limits,
                lease,
            }),
        }
    }

    /// Compiles an agent: a component, or a core module that carries its world in a custom section,
    /// as wit-bindgen leaves it there (a Rust library for `wasm32-unknown-unknown`, or a WASI 0.1
    /// reactor).
    ///
    /// [`Limits::compilations`] are compiled at a time, on threads where this may take long. One
    /// cannot be stopped: after [`Limits::compile_time`] it is no longer waited for, and it keeps
    /// its place until it ends. So load what you chose, not what a guest sends.
    ///
    /// # Errors
    /// [`RunError::NotAnAgent`] where it is not one, is over a limit, or wants imports that this
    /// host does not give; [`RunError::CompileTimeLimit`].
    pub async fn load(&self, bytes: &[u8]) -> Result<Agent, RunError> {
        let limits = &self.shared.limits;
        let max = limits.component;
        if bytes.len() as u64 > max {
            let what = format!(
                "it has {} bytes, and the limit `component` is {max}",
                bytes.len()
            );
            return Err(RunError::NotAnAgent(what));
        }
        let too_long = |_| Err(RunError::CompileTimeLimit(limits.compile_time));
        let compiled = tokio::time::timeout(limits.compile_time, self.compiled(bytes));
        let pre = compiled.await.unwrap_or_else(too_long)?;
        Ok(Agent {
            host: self.clone(),
            pre,
        })
    }

    async fn compiled(&self, bytes: &[u8]) -> Result<AgentPre<AgentState>, RunError> {
        let permit = Arc::clone(&self.shared.compiling).acquire_owned().await;
        let permit = permit.map_err(|error| RunError::Engine(error.to_string()))?;
        let shared = Arc::clone(&self.shared);
        let bytes = bytes.to_vec();
        let (answer, compiled) = oneshot::channel();
        let work = move || {
            // Held to the end, whether anyone still waits or not.
            let _permit = permit;
            let compiled = compile(&shared.engines, &shared.limits, bytes);
            let _ = answer.send(compiled);
        };
        // A thread of its own: a runtime waits for its threads when it ends, and this one may take
        // for ever.
        std::thread::Builder::new()
            .name("persist-compile".into())
            .stack_size(COMPILER_STACK)
            .spawn(work)
            .map_err(|error| {
                RunError::Engine(format!("cannot start a thread to compile: {error}"))
            })?;
        // Compilers are large, and the bytes are anyone's: a panic ends its thread.
        compiled.await.unwrap_or_else(|_| {
            let what = "the compiler failed; build it again with a current toolchain";
            Err(RunError::NotAnAgent(what.into()))
        })
    }

    /// Returns the ledger that counts what the host's agents use; give it to contexts of guests
    /// that run elsewhere and share it.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }
}

impl std::fmt::Debug for AgentHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentHost")
            .field("limits", &self.shared.limits)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent")
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Agent {
    /// Runs the agent once. `guest` says which snapshots it sees. If [`Limits::runs_of_scope`] of
    /// its scope are under way, or [`Limits::runs`] of all scopes, the run waits for its turn, for
    /// at most [`Limits::run_wait`].
    pub async fn run(&self, guest: Guest, args: &[String]) -> RunOutput {
        let options = RunOptions::default().args(args);
        self.run_with(guest, &options).await
    }

    /// Runs the agent once, as [`run`](Self::run) does, with an input and an environment.
    pub async fn run_with(&self, guest: Guest, options: &RunOptions) -> RunOutput {
        let shared = &self.host.shared;
        let mut guest = guest.with_defaults(&shared.limits, &shared.ledger);
        let limits = guest.limits().clone();
        let live = options.output.as_ref();
        let [stdout, stderr] = OutputPipe::pair(live, to_usize(limits.output));
        #[cfg(feature = "http")]
        let http = HttpHooks::new(options.http.clone(), Arc::clone(&shared.tls), &limits);
        #[cfg(feature = "http")]
        let denied_hosts = http.denied();
        let answer = match self.turn(&mut guest).await {
            Ok(mut turn) => {
                #[cfg(feature = "keyvalue")]
                let buckets = options.buckets(&guest, &shared.limits, &shared.ledger);
                let state = AgentState::new(
                    guest,
                    options,
                    #[cfg(feature = "keyvalue")]
                    buckets,
                    &stdout,
                    &stderr,
                    #[cfg(feature = "http")]
                    http,
                );
                let store = self.store(state);
                let answer = self.answer(store, &options.args, &limits).await;
                release(turn.lease.take()).await;
                answer
            }
            Err(error) => Err(error),
        };
        RunOutput {
            answer,
            stdout: stdout.contents(),
            stderr: stderr.contents(),
            #[cfg(feature = "http")]
            denied_hosts: denied_hosts(),
        }
    }

    /// Waits for a place among the runs of the scope, then for its lease, then for a place among
    /// all: a scope that waits blocks no other.
    async fn turn(&self, guest: &mut Guest) -> Result<Turn<'_>, RunError> {
        let shared = &self.host.shared;
        let longest = shared.limits.run_wait;
        let too_long = |_| RunError::WaitLimit(longest);
        let waiting = Instant::now();
        let of_scope = tokio::time::timeout(longest, guest.run_permit()).await;
        let of_scope = of_scope.map_err(too_long)?;
        let left = longest.saturating_sub(waiting.elapsed());
        let lease = self.lease(guest).await?;
        let of_host = tokio::time::timeout(left, shared.running.acquire()).await;
        let of_host = of_host.map_err(too_long)?;
        Ok(Turn {
            lease,
            _of_scope: of_scope.map_err(|error| RunError::Engine(error.to_string()))?,
            _of_host: of_host.map_err(|error| RunError::Engine(error.to_string()))?,
        })
    }

    /// Acquires the lease of a guest's scope, where the host uses leases.
    async fn lease(&self, guest: &mut Guest) -> Result<Option<Lease>, RunError> {
        let Some(options) = &self.host.shared.lease else {
            return Ok(None);
        };
        let lease = guest.acquire_lease(options).await;
        let mut lease = lease.map_err(|error| RunError::Lease(Box::new(error)))?;
        lease.renew_in_background();
        Ok(Some(lease))
    }

    async fn answer(
        &self,
        mut store: Store<AgentState>,
        args: &[String],
        limits: &Limits,
    ) -> Result<String, RunError> {
        let call = async {
            let agent = self.pre.instantiate_async(&mut store).await?;
            agent.call_run(&mut store, args).await
        };
        // A panic of the host in this call ends this run alone. What it may leave half-made is in
        // the store, which is dropped.
        let call = AssertUnwindSafe(call).catch_unwind();
        match tokio::time::timeout(limits.wall_clock, call).await {
            Ok(Ok(Ok(answer))) => answer.map_err(RunError::Failed),
            Ok(Ok(Err(error))) => Err(trapped(&error, limits, store.data().memory_was_refused())),
            Ok(Err(panic)) => Err(RunError::Host(panic_text(&*panic))),
            Err(_) => Err(RunError::WallClockLimit(limits.wall_clock)),
        }
    }

    fn store(&self, state: AgentState) -> Store<AgentState> {
        let fuel = state.guest().hostcall_fuel();
        let handles = to_usize(state.guest().limits().handles);
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(fuel);
        store.set_max_component_handles(handles);
        store.call_hook(|mut store, hook| {
            let meter = &mut store.data_mut().meter;
            if hook.entering_host() {
                meter.leave_guest()
            } else {
                meter.enter_guest()
            }
            Ok(())
        });
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| {
            if store.data().meter.is_used_up() {
                Err(CpuLimitReached.into())
            } else {
                Ok(UpdateDeadline::Yield(1))
            }
        });
        store
    }
}

/// Ends the lease of a run that has ended. One that stays ends with its term.
async fn release(lease: Option<Lease>) {
    let Some(lease) = lease else { return };
    if let Err(error) = lease.release().await {
        tracing::warn!("the lease of a run was not released; it ends with its term");
        tracing::debug!(%error, "a lease was not released");
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".into())
}

/// Compilers call themselves for what is nested.
const COMPILER_STACK: usize = 8 << 20;

fn permits(limit: u64) -> Semaphore {
    Semaphore::new(to_usize(limit).min(Semaphore::MAX_PERMITS))
}

#[derive(Debug, thiserror::Error)]
#[error("the CPU time is used up")]
struct CpuLimitReached;

fn trapped(error: &wasmtime::Error, limits: &Limits, memory_refused: bool) -> RunError {
    if error.is::<CpuLimitReached>() {
        return RunError::CpuLimit(limits.cpu);
    }
    if error.is::<I32Exit>() {
        // Its status is lost on the way, but for whether it was 0.
        return RunError::Exited;
    }
    let mut why = match error.downcast_ref::<Trap>() {
        // An overflow of a stack that lies in the memory is only known as this.
        Some(trap @ Trap::MemoryOutOfBounds) => {
            format!(
                "{trap} (an invalid pointer, or a recursion deeper than the stack of the agent)"
            )
        }
        Some(trap @ Trap::StackOverflow) => format!("{trap} (limit `stack`)"),
        Some(trap) => trap.to_string(),
        None => in_our_words(format!("{:#}", error.root_cause()), limits),
    };
    if memory_refused {
        // Most toolchains end in `unreachable` then, which alone says nothing.
        let max = limits.get("memory").unwrap_or_default();
        why.push_str(&format!(" (it requested more memory than its {max})"));
    }
    RunError::Trapped(why)
}

/// Rewrites the engine's message about a limit and adds the limit's name: the engine has no types
/// for these.
fn in_our_words(why: String, limits: &Limits) -> String {
    const COUNTS: [(&str, &str); 3] = [
        ("instance count too high", "instances"),
        ("memory count too high", "memories"),
        ("table count too high", "tables"),
    ];
    if why.contains("fuel allocated for hostcalls") {
        let max = limits.hostcall_fuel() >> 20;
        return format!(
            "one call passed more than {max} MiB to the host (limit `inline-size`); use a writer"
        );
    }
    match COUNTS.iter().find(|(theirs, _)| why.contains(theirs)) {
        Some((_, limit)) => format!("{why} (limit `{limit}`)"),
        None => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_for_lack_of_memory_shows_the_limit_with_its_unit() {
        let mut limits = Limits::default();
        for value in ["100 KiB", "3 MiB"] {
            limits.set("memory", value).expect("a limit");
            let error = trapped(&wasmtime::Error::msg("unreachable"), &limits, true);
            let expected = format!("more memory than its {value})");
            assert!(error.to_string().contains(&expected), "{error}");
        }
    }
}
