//! Runs agents: components of the world `persist:snapshot/agent`, with limits on everything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit, oneshot};
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{Config, Engine, ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};

use super::budget::Budget;
use super::cache;
use super::catch_unwind::catch_panic;
use super::compile::compile;
use super::cpu_time::{Meter, TICK};
use super::ctx::{SnapshotCtx, SnapshotView};
use super::features;
use super::generated::AgentPre;
use super::host::add_to_linker;
use super::ledger::Ledger;
use super::limits::{Limits, size};

/// Runs agents, each call in a store of its own: an agent keeps what it saved, and nothing else.
///
/// An agent has clocks, random numbers and its snapshots. It has no files, no network and no
/// environment; what it prints is captured.
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
    engine: Engine,
    linker: Linker<AgentState>,
    limits: Limits,
    ledger: Ledger,
    compiling: Arc<Semaphore>,
    running: Semaphore,
}

/// Builds an [`AgentHost`].
#[derive(Debug)]
pub struct AgentHostBuilder {
    limits: Limits,
    cache: Option<PathBuf>,
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
}

/// A run's places, until it is dropped.
struct Turn<'a> {
    _of_scope: OwnedSemaphorePermit,
    _of_host: SemaphorePermit<'a>,
}

/// Why an agent could not be loaded, or has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The bytes are no agent.
    #[error("this is not an agent: {0}")]
    NotAnAgent(String),
    /// The agent came to its end, and gave this reason for having no answer.
    #[error("the agent answered with an error: {}", or_none(.0))]
    Failed(String),
    /// The agent's own code trapped.
    #[error("the agent trapped: {0}; what it saved before is kept")]
    Trapped(String),
    /// The agent ended its process, as a program does, in place of an answer.
    #[error("the agent exited without an answer; what it saved before is kept")]
    Exited,
    /// The agent's own code ran longer than [`Limits::cpu`].
    #[error(
        "the agent was stopped after {0:?} of CPU time (limit `cpu`); what it saved before is kept"
    )]
    CpuLimit(Duration),
    /// The run took longer than [`Limits::wall_clock`].
    #[error("the agent was stopped after {0:?} (limit `wall-clock`); what it saved before is kept")]
    WallClockLimit(Duration),
    /// It was not compiled within [`Limits::compile_time`].
    #[error("the agent was not compiled within {0:?} (limit `compile-time`)")]
    CompileTimeLimit(Duration),
    /// The run did not get its turn within [`Limits::run_wait`], and did not begin.
    #[error("the agent did not start within {0:?} (limit `run-wait`): too many other runs")]
    WaitLimit(Duration),
    /// The host itself failed in a call of the agent: a defect of this program, or of what it is
    /// built of.
    #[error("the host failed in a call of the agent: {0}; what it saved before is kept")]
    Host(String),
    /// The host could not be set up.
    #[error("the WebAssembly engine could not be set up: {0}")]
    Engine(String),
}

impl RunError {
    /// Returns what to do about the error, for a person.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Exited => Some("return an answer from `run`"),
            Self::CpuLimit(_) => Some("raise the limit `cpu`"),
            Self::WallClockLimit(_) => Some("raise the limit `wall-clock`"),
            Self::CompileTimeLimit(_) => Some("try again later, or raise the limit `compile-time`"),
            Self::WaitLimit(_) => {
                Some("try again later, or raise the limit `runs-of-scope`, `runs` or `run-wait`")
            }
            Self::Host(_) => Some("report this as a bug of Persist"),
            Self::NotAnAgent(_) | Self::Failed(_) | Self::Trapped(_) | Self::Engine(_) => None,
        }
    }
}

/// A reason that an agent gave.
fn or_none(reason: &str) -> &str {
    match reason {
        "" => "no reason was given",
        reason => reason,
    }
}

impl AgentHost {
    /// A host with default limits, which keeps compiled code in the user's cache directory.
    ///
    /// # Errors
    /// [`RunError::Engine`] where this machine cannot run compiled WebAssembly.
    pub fn new() -> Result<Self, RunError> {
        Self::builder().build()
    }

    /// A host with default limits, which keeps compiled code in the user's cache directory.
    pub fn builder() -> AgentHostBuilder {
        AgentHostBuilder {
            limits: Limits::default(),
            cache: dirs::cache_dir().map(|dir| dir.join("persist")),
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
            let compiled = compile(&shared.engine, &shared.linker, &shared.limits, bytes);
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

impl AgentHostBuilder {
    /// Sets what all guests of this host may use together, and what one run may use where its
    /// [`SnapshotCtx`] does not say.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the directory for compiled code; none compiles anew each time.
    ///
    /// Code from there runs as this process, without a sandbox. So the directory is made with mode
    /// 0700, and is not used, with a warning, where it or something in it belongs to another user,
    /// others can write to it, or can replace it or a directory above it.
    #[must_use]
    pub fn cache(mut self, directory: Option<PathBuf>) -> Self {
        self.cache = directory;
        self
    }

    /// The host.
    ///
    /// # Errors
    /// [`RunError::Engine`] where this machine cannot run compiled WebAssembly.
    pub fn build(self) -> Result<AgentHost, RunError> {
        let engine = |error: wasmtime::Error| RunError::Engine(format!("{error:#}"));
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(size(self.limits.stack))
            .cache(self.cache.as_deref().and_then(cache::open));
        features::pin(&mut config);
        let compiler = Engine::new(&config).map_err(engine)?;
        let mut linker = Linker::new(&compiler);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(engine)?;
        add_to_linker(&mut linker, AgentState::snapshots).map_err(engine)?;
        tick(&compiler)?;
        Ok(AgentHost {
            shared: Arc::new(Shared {
                engine: compiler,
                linker,
                ledger: Ledger::new(&self.limits),
                compiling: Arc::new(permits(self.limits.compilations)),
                running: permits(self.limits.runs),
                limits: self.limits,
            }),
        })
    }
}

impl Agent {
    /// Runs the agent once. `ctx` says which snapshots it sees. Where [`Limits::runs_of_scope`] of
    /// its scope are under way, or [`Limits::runs`] of all, it waits for its turn, for
    /// [`Limits::run_wait`] at the most.
    pub async fn run(&self, ctx: SnapshotCtx, args: &[String]) -> RunOutput {
        let shared = &self.host.shared;
        let ctx = ctx.on_host(&shared.limits, &shared.ledger);
        let limits = ctx.limits.clone();
        let stdout = MemoryOutputPipe::new(size(limits.output));
        let stderr = MemoryOutputPipe::new(size(limits.output));
        let answer = match self.turn(&ctx).await {
            Ok(_turn) => {
                let store = self.store(ctx, &stdout, &stderr);
                self.answer(store, args, &limits).await
            }
            Err(error) => Err(error),
        };
        RunOutput {
            answer,
            stdout: stdout.contents(),
            stderr: stderr.contents(),
        }
    }

    /// Waits for a place among the runs of the scope, then among all.
    async fn turn(&self, ctx: &SnapshotCtx) -> Result<Turn<'_>, RunError> {
        let shared = &self.host.shared;
        let closed = |error: AcquireError| RunError::Engine(error.to_string());
        let places = async {
            let of_scope = ctx.account.run().await.map_err(closed)?;
            let of_host = shared.running.acquire().await.map_err(closed)?;
            Ok(Turn {
                _of_scope: of_scope,
                _of_host: of_host,
            })
        };
        let longest = shared.limits.run_wait;
        let too_long = |_| Err(RunError::WaitLimit(longest));
        tokio::time::timeout(longest, places)
            .await
            .unwrap_or_else(too_long)
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
        match tokio::time::timeout(limits.wall_clock, catch_panic(call)).await {
            Ok(Ok(Ok(answer))) => answer.map_err(RunError::Failed),
            Ok(Ok(Err(error))) => Err(trapped(&error, limits, store.data().memory.refused)),
            Ok(Err(panic)) => Err(RunError::Host(panic)),
            Err(_) => Err(RunError::WallClockLimit(limits.wall_clock)),
        }
    }

    fn store(
        &self,
        ctx: SnapshotCtx,
        stdout: &MemoryOutputPipe,
        stderr: &MemoryOutputPipe,
    ) -> Store<AgentState> {
        let limits = &ctx.limits;
        let fuel = ctx.hostcall_fuel();
        let handles = size(limits.handles);
        let mut table = ResourceTable::new();
        table.set_max_capacity(handles);
        let state = AgentState {
            wasi: wasi(stdout, stderr),
            table,
            memory: Budget::new(size(limits.memory)),
            table_elements: Budget::new(size(limits.table_elements)),
            meter: Meter::new(limits.cpu),
            snapshots: ctx,
        };
        let mut store = Store::new(&self.host.shared.engine, state);
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

/// Compilers call themselves for what is nested.
const COMPILER_STACK: usize = 8 << 20;

/// Random bytes of one call: it is the host that makes them, and its time is not the guest's.
const MAX_RANDOM: u64 = 1 << 20;

/// Clocks, random numbers and captured output. A socket that may connect to nothing is still a
/// descriptor of the host.
fn wasi(stdout: &MemoryOutputPipe, stderr: &MemoryOutputPipe) -> WasiCtx {
    WasiCtx::builder()
        .stdout(stdout.clone())
        .stderr(stderr.clone())
        .allow_tcp(false)
        .allow_udp(false)
        .max_random_size(MAX_RANDOM)
        .build()
}

fn permits(limit: u64) -> Semaphore {
    Semaphore::new(size(limit).min(Semaphore::MAX_PERMITS))
}

pub(super) struct AgentState {
    snapshots: SnapshotCtx,
    wasi: WasiCtx,
    table: ResourceTable,
    memory: Budget,
    table_elements: Budget,
    meter: Meter,
}

impl AgentState {
    fn snapshots(&mut self) -> SnapshotView<'_> {
        SnapshotView::new(&self.snapshots, &mut self.table)
    }
}

impl WasiView for AgentState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl ResourceLimiter for AgentState {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.memory.grow(current, desired))
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.table_elements.grow(current, desired))
    }

    fn instances(&self) -> usize {
        size(self.snapshots.limits.instances)
    }

    fn tables(&self) -> usize {
        size(self.snapshots.limits.tables)
    }

    fn memories(&self) -> usize {
        size(self.snapshots.limits.memories)
    }
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
        Some(trap) => trap.to_string(),
        None => in_our_words(format!("{:#}", error.root_cause()), limits),
    };
    if memory_refused {
        // Most toolchains end in `unreachable` then, which alone says nothing.
        let max = limits.memory >> 20;
        why.push_str(&format!(" (it requested more memory than its {max} MiB)"));
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

/// Counts time for all stores of an engine, as long as it lives.
fn tick(engine: &Engine) -> Result<(), RunError> {
    let engine = engine.weak();
    let run = move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new()
        .name("persist-ticker".into())
        .spawn(run)
        .map(drop)
        .map_err(|error| RunError::Engine(format!("cannot start a thread to count time: {error}")))
}
