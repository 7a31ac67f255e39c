//! Runs agents: components of the world `persist:snapshot/agent`, with limits on everything.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};
use wasmtime::component::Linker;
use wasmtime::{Config, Engine, Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;

use super::bindings::AgentPre;
use super::cache;
use super::compile::{Provided, compile};
use super::cpu_time::TICK;
use super::features;
use super::host::add_to_linker;
#[cfg(feature = "http")]
use super::http::{HttpHooks, TlsConfig};
use super::run_error::RunError;
use super::run_options::RunOptions;
use super::state::AgentState;
use crate::guest::{Guest, Ledger, Limits, RunPermit, to_usize};

/// Runs agents, each call in a store of its own: an agent keeps what it saved, and nothing else.
///
/// An agent has clocks, random numbers and its snapshots. It has no files and no network; what it
/// prints is captured. Its input and environment are empty, or what [`RunOptions`] give it.
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
    /// Packages that the embedder's own functions provide.
    packages: Vec<String>,
    limits: Limits,
    ledger: Ledger,
    compiling: Arc<Semaphore>,
    running: Semaphore,
    #[cfg(feature = "http")]
    tls: Arc<TlsConfig>,
}

/// Builds an [`AgentHost`].
pub struct AgentHostBuilder {
    limits: Limits,
    cache: Option<PathBuf>,
    imports: Vec<(String, AddImports)>,
}

/// Function of an embedder that adds imports to the linker.
type AddImports = Box<dyn FnOnce(&mut Linker<AgentState>) -> wasmtime::Result<()> + Send>;

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

/// A run's places, until it is dropped.
struct Turn<'a> {
    _of_scope: RunPermit,
    _of_host: SemaphorePermit<'a>,
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
            imports: Vec::new(),
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
            let provided = Provided {
                linker: &shared.linker,
                packages: &shared.packages,
            };
            let compiled = compile(&shared.engine, provided, &shared.limits, bytes);
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

impl std::fmt::Debug for AgentHostBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let packages: Vec<_> = self.imports.iter().map(|(package, _)| package).collect();
        f.debug_struct("AgentHostBuilder")
            .field("limits", &self.limits)
            .field("cache", &self.cache)
            .field("imports", &packages)
            .finish()
    }
}

impl AgentHostBuilder {
    /// Sets what all guests of this host may use together, and what one run may use where its
    /// [`Guest`] does not say.
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

    /// Adds imports of the host's own, beside those of Persist and WASI: `add` defines them in the
    /// linker, and `package` is the package of their interfaces (or the name of an import that is
    /// in no interface). An agent whose imports are in no known package is refused by name. Call it
    /// once for each package.
    ///
    /// The functions get the run's [`AgentState`] with the value of [`RunOptions::data`]. Persist
    /// does not limit what they do.
    ///
    /// ```
    /// # fn example() -> Result<(), persist_host::wasm::RunError> {
    /// use persist_host::wasm::{AgentHost, AgentState};
    /// use persist_host::wasmtime::StoreContextMut;
    ///
    /// struct Player {
    ///     name: String,
    /// }
    ///
    /// let host = AgentHost::builder()
    ///     .imports("game:world", |linker| {
    ///         linker.instance("game:world/players@1.0.0")?.func_wrap(
    ///             "current",
    ///             |store: StoreContextMut<'_, AgentState>, (): ()| {
    ///                 let player = store.data().data::<Player>();
    ///                 Ok((player.map_or(String::new(), |player| player.name.clone()),))
    ///             },
    ///         )
    ///     })
    ///     .build()?;
    /// # Ok(()) }
    /// # example().unwrap();
    /// ```
    #[must_use]
    pub fn imports(
        mut self,
        package: impl Into<String>,
        add: impl FnOnce(&mut Linker<AgentState>) -> wasmtime::Result<()> + Send + 'static,
    ) -> Self {
        self.imports.push((package.into(), Box::new(add)));
        self
    }

    /// The host.
    ///
    /// # Errors
    /// [`RunError::Engine`] where this machine cannot run compiled WebAssembly, or a function of
    /// [`AgentHostBuilder::imports`] fails.
    pub fn build(self) -> Result<AgentHost, RunError> {
        let engine = |error: wasmtime::Error| RunError::Engine(format!("{error:#}"));
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(to_usize(self.limits.stack))
            .cache(self.cache.as_deref().and_then(cache::open));
        features::pin(&mut config);
        let compiler = Engine::new(&config).map_err(engine)?;
        let mut linker = Linker::new(&compiler);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(engine)?;
        #[cfg(feature = "http")]
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).map_err(engine)?;
        add_to_linker(&mut linker, AgentState::snapshots).map_err(engine)?;
        let mut packages = Vec::new();
        for (package, add) in self.imports {
            add(&mut linker).map_err(|error| {
                RunError::Engine(format!("cannot add the imports of {package}: {error:#}"))
            })?;
            packages.push(package);
        }
        tick(&compiler)?;
        Ok(AgentHost {
            shared: Arc::new(Shared {
                engine: compiler,
                linker,
                packages,
                ledger: Ledger::new(&self.limits),
                compiling: Arc::new(permits(self.limits.compilations)),
                running: permits(self.limits.runs),
                #[cfg(feature = "http")]
                tls: Arc::default(),
                limits: self.limits,
            }),
        })
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
        let guest = guest.with_defaults(&shared.limits, &shared.ledger);
        let limits = guest.limits().clone();
        let stdout = MemoryOutputPipe::new(to_usize(limits.output));
        let stderr = MemoryOutputPipe::new(to_usize(limits.output));
        #[cfg(feature = "http")]
        let http = HttpHooks::new(options.http.clone(), Arc::clone(&shared.tls), &limits);
        #[cfg(feature = "http")]
        let denied_hosts = http.denied();
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
        let answer = match self.turn(state.guest()).await {
            Ok(_turn) => self.answer(self.store(state), &options.args, &limits).await,
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

    /// Waits for a place among the runs of the scope, then among all.
    async fn turn(&self, guest: &Guest) -> Result<Turn<'_>, RunError> {
        let shared = &self.host.shared;
        let places = async {
            let of_scope = guest.run_permit().await;
            let of_host = shared.running.acquire();
            Ok(Turn {
                _of_scope: of_scope.map_err(|error| RunError::Engine(error.to_string()))?,
                _of_host: of_host
                    .await
                    .map_err(|error| RunError::Engine(error.to_string()))?,
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

#[cfg(test)]
mod tests {
    use wasmtime::StoreContextMut;

    use super::*;
    use crate::snapshot;
    use crate::storage::Memory;

    struct Player(&'static str);

    fn add_players(linker: &mut Linker<AgentState>) -> wasmtime::Result<()> {
        let current = |store: StoreContextMut<'_, AgentState>, (): ()| {
            let player = store.data().data::<Player>().map(|player| player.0);
            Ok((player.unwrap_or("no player").to_owned(),))
        };
        let mut players = linker.instance("game:world/players@1.0.0")?;
        players.func_wrap("current", current)
    }

    fn block_on<T>(test: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(test)
    }

    async fn load(builder: AgentHostBuilder) -> Result<Agent, RunError> {
        let wasm = wat::parse_str(include_str!("../../testdata/own_import.wat"));
        let host = builder.cache(None).build().expect("a host");
        host.load(&wasm.expect("a component")).await
    }

    #[test]
    fn imports_of_the_host_are_linked_and_get_the_data_of_the_run() {
        block_on(async {
            let builder = AgentHost::builder().imports("game:world", add_players);
            let agent = load(builder).await.expect("an agent");
            let scope = snapshot::Store::new(Arc::new(Memory::new())).scope("bot", None);
            let guest = Guest::new(scope.expect("a name"));
            let options = RunOptions::default().data(Player("Ada"));
            let answer = agent.run_with(guest.clone(), &options).await.answer;
            assert_eq!(answer.expect("an answer"), "Ada");
            let answer = agent.run(guest, &[]).await.answer;
            assert_eq!(answer.expect("an answer"), "no player");
        });
    }

    #[test]
    fn an_import_that_no_host_function_provides_is_refused_by_name() {
        block_on(async {
            let other = |_: &mut Linker<AgentState>| Ok(());
            let builder = AgentHost::builder().imports("game:sound", other);
            let error = load(builder).await.expect_err("refused").to_string();
            let named = "it imports game:world/players@1.0.0, which this host does not provide";
            assert!(error.contains(named), "{error}");
            assert!(error.contains("game:sound"), "{error}");
        });
    }

    #[test]
    fn a_host_whose_imports_cannot_be_added_is_not_built() {
        let twice = |linker: &mut Linker<AgentState>| {
            add_players(linker)?;
            add_players(linker)
        };
        let built = AgentHost::builder().imports("game:world", twice).build();
        let error = built.expect_err("refused").to_string();
        assert!(
            error.contains("cannot add the imports of game:world"),
            "{error}"
        );
    }
}
