//! Runs agents: components of the world `persist:snapshot/agent`, with limits on everything.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use wasi_preview1_component_adapter_provider as preview1;
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{
    Cache, CacheConfig, Config, Engine, Module, ResourceLimiter, Store, Trap, UpdateDeadline,
};
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::ctx::{SnapshotCtx, SnapshotView};
use super::generated::AgentPre;
use super::host::add_to_linker;
use super::limits::Limits;
use super::meter::{Meter, TICK};

/// Runs agents, each call in a store of its own: an agent keeps what it saved, and nothing else.
///
/// An agent has clocks, random numbers and its snapshots. It has no files, no network and no environment; what it
/// prints is captured.
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
    compiling: Semaphore,
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

/// A run that has ended, one way or another. What the agent saved before is kept; writers that it did not finish are
/// aborted, and nothing of them is visible.
#[derive(Debug)]
pub struct Ran {
    /// What the agent answered, or why it has no answer.
    pub answer: Result<String, RunError>,
    /// What it printed, up to [`Limits::output`].
    pub stdout: Bytes,
    /// What it printed as errors, up to [`Limits::output`].
    pub stderr: Bytes,
}

/// Why an agent could not be loaded, or has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The bytes are no agent.
    #[error("this is not an agent: {0}")]
    NotAnAgent(String),
    /// The agent came to its end, and gave this reason for having no answer.
    #[error("the agent answered with an error: {0}")]
    Failed(String),
    /// The agent's own code trapped.
    #[error("the agent trapped: {0}; what it saved before is kept")]
    Trapped(String),
    /// The agent's own code ran longer than [`Limits::cpu`].
    #[error("the agent used its {0:?} of CPU time and was stopped; what it saved before is kept")]
    CpuLimit(Duration),
    /// The run took longer than [`Limits::wall_clock`].
    #[error("the agent did not end within {0:?} and was stopped; what it saved before is kept")]
    WallClockLimit(Duration),
    /// The host could not be set up.
    #[error("the WebAssembly engine could not be set up: {0}")]
    Engine(String),
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

    /// Compiles an agent: a component, or a core module that carries its world in a custom section, as wit-bindgen leaves it
    /// there (a Rust library for `wasm32-unknown-unknown`, or a WASI 0.1 reactor).
    ///
    /// Two are compiled at a time, on threads where this may take long. How long is bounded only by
    /// [`Limits::component`], so load what you chose, not what a guest sends.
    ///
    /// # Errors
    /// [`RunError::NotAnAgent`] where it is not one, or wants imports that this host does not give.
    pub async fn load(&self, bytes: &[u8]) -> Result<Agent, RunError> {
        let max = self.shared.limits.component;
        if bytes.len() > max {
            let what = format!("it is {} bytes, and the limit is {max}", bytes.len());
            return Err(RunError::NotAnAgent(what));
        }
        // A compilation cannot be stopped: a few that never end must not take the threads that the disk needs.
        let permit = self.shared.compiling.acquire().await;
        let _permit = permit.map_err(|error| RunError::Engine(error.to_string()))?;
        let (host, bytes) = (self.clone(), bytes.to_vec());
        let compile = move || host.compile(bytes);
        match tokio::task::spawn_blocking(compile).await {
            Ok(agent) => agent,
            // Compilers are large, and the bytes are anyone's.
            Err(error) if error.is_panic() => {
                let what = "the compiler failed on it; build it again, with a current toolchain";
                Err(RunError::NotAnAgent(what.into()))
            }
            Err(error) => Err(RunError::Engine(error.to_string())),
        }
    }

    fn compile(&self, bytes: Vec<u8>) -> Result<Agent, RunError> {
        let bytes = component_of(&self.shared.engine, bytes)?;
        let component =
            Component::new(&self.shared.engine, bytes).map_err(|error| unsound(&error))?;
        let pre = self.shared.linker.instantiate_pre(&component);
        let pre = pre.map_err(|error| not_an_agent(&error))?;
        Ok(Agent {
            host: self.clone(),
            pre: AgentPre::new(pre).map_err(|error| another_world(&error))?,
        })
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
    /// Sets what one run may use.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the directory for compiled code; none compiles anew each time. Whoever can write there can run
    /// code as this process.
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
        config.epoch_interruption(true).cache(self.open_cache());
        let compiler = Engine::new(&config).map_err(engine)?;
        let mut linker = Linker::new(&compiler);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(engine)?;
        add_to_linker(&mut linker, AgentState::snapshots).map_err(engine)?;
        tick(&compiler)?;
        Ok(AgentHost {
            shared: Arc::new(Shared {
                engine: compiler,
                linker,
                limits: self.limits,
                compiling: Semaphore::new(COMPILING),
            }),
        })
    }

    /// A cache saves time and nothing else: without one, everything works as well.
    fn open_cache(&self) -> Option<Cache> {
        let mut config = CacheConfig::new();
        config.with_directory(self.cache.as_ref()?);
        Cache::new(config)
            .inspect_err(|error| tracing::warn!(%error, "compiled agents are not cached"))
            .ok()
    }
}

impl Agent {
    /// Runs the agent once. `ctx` says which snapshots it sees.
    pub async fn run(&self, ctx: SnapshotCtx, args: &[String]) -> Ran {
        let limits = &self.host.shared.limits;
        let stdout = MemoryOutputPipe::new(limits.output);
        let stderr = MemoryOutputPipe::new(limits.output);
        let mut store = self.store(ctx, &stdout, &stderr);
        let call = async {
            let agent = self.pre.instantiate_async(&mut store).await?;
            agent.call_run(&mut store, args).await
        };
        let answer = match tokio::time::timeout(limits.wall_clock, call).await {
            Ok(Ok(answer)) => answer.map_err(RunError::Failed),
            Ok(Err(error)) => Err(trapped(&error, limits, store.data().memory.refused)),
            Err(_) => Err(RunError::WallClockLimit(limits.wall_clock)),
        };
        Ran {
            answer,
            stdout: stdout.contents(),
            stderr: stderr.contents(),
        }
    }

    fn store(
        &self,
        ctx: SnapshotCtx,
        stdout: &MemoryOutputPipe,
        stderr: &MemoryOutputPipe,
    ) -> Store<AgentState> {
        let limits = &self.host.shared.limits;
        let fuel = ctx.hostcall_fuel();
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let state = AgentState {
            snapshots: ctx,
            wasi: WasiCtx::builder()
                .stdout(stdout.clone())
                .stderr(stderr.clone())
                .build(),
            table,
            memory: Budget::new(limits.memory),
            table_elements: Budget::new(limits.table_elements),
            counts: [limits.instances, limits.tables, limits.memories],
            meter: Meter::new(limits.cpu),
        };
        let mut store = Store::new(&self.host.shared.engine, state);
        store.limiter(|state| state);
        store.set_hostcall_fuel(fuel);
        store.call_hook(|mut store, hook| {
            let meter = &mut store.data_mut().meter;
            match hook.entering_host() {
                true => meter.leave_guest(),
                false => meter.enter_guest(),
            }
            Ok(())
        });
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|store| match store.data().meter.is_used_up() {
            true => Err(CpuLimitReached.into()),
            // Other agents on this thread get their turn.
            false => Ok(UpdateDeadline::Yield(1)),
        });
        store
    }
}

/// Compilations at the same time. Each takes all processors for a part of its work.
const COMPILING: usize = 2;

/// Handles of one run, WASI's included: more than any toolchain needs, and little memory.
const MAX_HANDLES: usize = 1024;

struct AgentState {
    snapshots: SnapshotCtx,
    wasi: WasiCtx,
    table: ResourceTable,
    memory: Budget,
    table_elements: Budget,
    /// Instances, tables and memories that there may be.
    counts: [usize; 3],
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

/// What all memories, or all tables, of one run share.
struct Budget {
    used: usize,
    max: usize,
    /// Whether there was too little left for what was asked.
    refused: bool,
}

impl Budget {
    fn new(max: usize) -> Self {
        Self {
            used: 0,
            max,
            refused: false,
        }
    }

    fn grow(&mut self, from: usize, to: usize) -> bool {
        let used = self.used.saturating_add(to.saturating_sub(from));
        let fits = used <= self.max;
        if fits {
            self.used = used;
        }
        self.refused |= !fits;
        fits
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
        self.counts[0]
    }

    fn tables(&self) -> usize {
        self.counts[1]
    }

    fn memories(&self) -> usize {
        self.counts[2]
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the CPU time is used up")]
struct CpuLimitReached;

fn trapped(error: &wasmtime::Error, limits: &Limits, memory_refused: bool) -> RunError {
    if error.is::<CpuLimitReached>() {
        return RunError::CpuLimit(limits.cpu);
    }
    let mut why = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => format!("{:#}", error.root_cause()),
    };
    if memory_refused {
        // Most toolchains end in `unreachable` then, which alone says nothing.
        let max = limits.memory >> 20;
        why.push_str(&format!(" (it asked for more memory than its {max} MiB)"));
    }
    RunError::Trapped(why)
}

fn not_an_agent(error: &wasmtime::Error) -> RunError {
    RunError::NotAnAgent(format!("{error:#}"))
}

fn unsound(error: &wasmtime::Error) -> RunError {
    RunError::NotAnAgent(format!(
        "it is damaged, or of a later WebAssembly: {error:#}; build it or copy it again"
    ))
}

fn another_world(error: &wasmtime::Error) -> RunError {
    RunError::NotAnAgent(format!(
        "{error:#}; an agent exports `run: func(args: list<string>) -> result<string, string>`, as the world \
         persist:snapshot/agent says"
    ))
}

/// The component that `bytes` are, or that a core module says it wants to be.
fn component_of(engine: &Engine, bytes: Vec<u8>) -> Result<Vec<u8>, RunError> {
    if !bytes.starts_with(b"\0asm") {
        let what =
            "it does not begin as WebAssembly does; give the .wasm file that your build made";
        return Err(RunError::NotAnAgent(what.into()));
    }
    // A component and a core module differ in the layer, the two bytes after the version.
    if bytes.get(6..8) != Some(&[0, 0]) {
        return Ok(bytes);
    }
    // The encoder takes for granted that the module is whole.
    Module::validate(engine, &bytes).map_err(|error| unsound(&error))?;
    wit_component::ComponentEncoder::default()
        .module(&bytes)
        // Used only where the module imports WASI 0.1, as C and Go do.
        .and_then(|encoder| {
            encoder.adapter(
                preview1::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                preview1::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
        })
        .and_then(|encoder| encoder.encode())
        .map_err(|error| {
            RunError::NotAnAgent(format!(
                "it is a core module that cannot be made a component: {error:#}"
            ))
        })
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
        .map_err(|error| RunError::Engine(format!("no thread to count time: {error}")))
}
