//! Runs of a small agent that begin in a second: `AgentHost` beside bare wasmtime and a save
//! without a guest.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use persist_host::snapshot::{SaveOptions, Scope, Store};
use persist_host::storage::Memory;
use persist_host::wasm::{Agent, AgentHost, Limits, SnapshotCtx};
use tokio::runtime::Builder;
use tokio::task::yield_now;
use wasmtime::component::{Component, InstancePre, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::Options;
use crate::table::Table;

/// Agent that saves five bytes.
pub(crate) const SAVES: &str = include_str!("../../../host/testdata/save.wat");

/// Component with a memory and a function that returns a number.
const BARE: &str = r#"(component
  (core module $module
    (memory (export "memory") 2)
    (func (export "run") (result i32) (i32.const 7)))
  (core instance $instance (instantiate $module))
  (func (export "run") (result u32) (canon lift (core func $instance "run"))))"#;

/// Runs of one task before it lets others go on.
const BURST: u64 = 64;

/// Tasks that run at the same time.
const TASKS: [u64; 3] = [1, 2, 8];

/// Target duration of a run, as a multiple of its parts, and target for two tasks, as a multiple of
/// the runs of one.
const RUN_AIM: f64 = 1.5;
const TASKS_AIM: f64 = 1.7;

/// Saves after which a task takes another store: those in memory keep all versions.
const SAVES_OF_STORE: u64 = 100;

/// Returns Markdown.
pub(crate) fn run(options: &Options) -> Result<String> {
    let seconds = if options.quick { 0.5 } else { 2.0 };
    let rounds = if options.quick { 1 } else { 5 };
    let agent = agent()?;
    let [on_demand, pooled] = [false, true].map(bare);
    let (on_demand, pooled) = (on_demand?, pooled?);
    let mut table = Table::new([
        "thousand a second",
        "1 task",
        "2 tasks",
        "8 tasks",
        "2 to 1",
    ]);
    let mut rates: [[Vec<f64>; 3]; 5] = Default::default();
    for _ in 0..rounds {
        for (column, tasks) in TASKS.into_iter().enumerate() {
            let counter = || Counter::new(tasks, seconds);
            let measured = [
                counter().measure(checksum)?,
                counter().measure(|counter| instantiate(on_demand.clone(), counter))?,
                counter().measure(|counter| instantiate(pooled.clone(), counter))?,
                counter().measure(save)?,
                counter().measure(|counter| run_agent(agent.clone(), counter))?,
            ];
            for (rates, rate) in rates.iter_mut().zip(measured) {
                rates[column].push(rate);
            }
        }
    }
    let what = [
        "CRC-32 of 64 KiB: tasks that share nothing but the processors",
        "bare wasmtime, memory on demand: instantiate and call",
        "bare wasmtime, pooled memory: instantiate and call",
        "`Scope::save` of 5 bytes in memory, no guest",
        "`Agent::run` of an agent that saves 5 bytes in memory",
    ];
    let medians = rates.map(|of_tasks| of_tasks.map(median));
    for (what, medians) in what.into_iter().zip(&medians) {
        let mut row = vec![what.to_owned()];
        row.extend(medians.map(|rate| format!("{:.1}", rate / 1e3)));
        row.push(format!("{:.2}x", medians[1] / medians[0]));
        table.row(row);
    }
    let mut text = String::new();
    writeln!(text, "### Activation\n\n{table}")?;
    text += &aims(&medians)?;
    Ok(text)
}

/// Aims of [`Agent::run`], beside what it cannot do without.
fn aims([processors, _, pooled, save, run]: &[[f64; 3]; 5]) -> Result<String> {
    let of_one = (1.0 / run[0]) / (1.0 / pooled[0] + 1.0 / save[0]);
    let of_two = run[1] / run[0];
    let said = |is_met| if is_met { "met" } else { "missed" };
    let mut text = String::new();
    writeln!(
        text,
        "- a run takes at most {RUN_AIM} times as long as a bare instance and a save without a \
         guest: {of_one:.2}x, {}.",
        said(of_one <= RUN_AIM)
    )?;
    writeln!(
        text,
        "- two tasks run at least {TASKS_AIM} times as many agents as one: {of_two:.2}x, {}. The \
         two processors do {:.2}x of what one does.",
        said(of_two >= TASKS_AIM),
        processors[1] / processors[0]
    )?;
    Ok(text)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

/// Counts what tasks do until the time is over.
#[derive(Clone)]
struct Counter {
    tasks: u64,
    seconds: f64,
    done: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Counter {
    fn new(tasks: u64, seconds: f64) -> Self {
        Self {
            tasks,
            seconds,
            done: Arc::default(),
            over: Arc::default(),
        }
    }

    /// Counts one more, and says whether to go on.
    async fn goes_on(&self) -> bool {
        if self.done.fetch_add(1, Relaxed).is_multiple_of(BURST) {
            yield_now().await;
        }
        !self.over.load(Relaxed)
    }

    /// Returns how many a second the tasks did.
    fn measure<F>(self, task: impl Fn(Counter) -> F) -> Result<f64>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let runtime = Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let tasks: Vec<_> = (0..self.tasks)
                .map(|_| tokio::spawn(task(self.clone())))
                .collect();
            tokio::time::sleep(Duration::from_millis(100)).await;
            let (before, started) = (self.done.load(Relaxed), Instant::now());
            tokio::time::sleep(Duration::from_secs_f64(self.seconds)).await;
            let done = self.done.load(Relaxed) - before;
            let rate = done as f64 / started.elapsed().as_secs_f64();
            self.over.store(true, Relaxed);
            for task in tasks {
                task.await??;
            }
            Ok(rate)
        })
    }
}

type Bare = (Engine, InstancePre<()>);

fn bare(pooled: bool) -> Result<Bare> {
    let mut config = Config::new();
    config.concurrency_support(false);
    if pooled {
        let mut pool = PoolingAllocationConfig::new();
        pool.linear_memory_keep_resident(256 << 10);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    }
    let engine = Engine::new(&config).map_err(error)?;
    let component = Component::new(&engine, wat::parse_str(BARE)?);
    let component = component.and_then(|it| Linker::new(&engine).instantiate_pre(&it));
    let component = component.map_err(error)?;
    Ok((engine, component))
}

async fn instantiate((engine, component): Bare, counter: Counter) -> Result<()> {
    while counter.goes_on().await {
        let once = async {
            let mut store = wasmtime::Store::new(&engine, ());
            let instance = component.instantiate_async(&mut store).await?;
            let run = instance.get_typed_func::<(), (u32,)>(&mut store, "run")?;
            run.call_async(&mut store, ()).await
        };
        once.await.map_err(error)?;
    }
    Ok(())
}

fn scope() -> Result<Scope> {
    Ok(Store::new(Arc::new(Memory::new())).scope("bench", None)?)
}

/// Computes a checksum of what stays in the cache of a processor: two tasks do what two processors
/// can.
async fn checksum(counter: Counter) -> Result<()> {
    let bytes = vec![1; 64 << 10];
    while counter.goes_on().await {
        std::hint::black_box(crc32fast::hash(std::hint::black_box(&bytes)));
    }
    Ok(())
}

async fn save(counter: Counter) -> Result<()> {
    loop {
        let scope = scope()?;
        for _ in 0..SAVES_OF_STORE {
            if !counter.goes_on().await {
                return Ok(());
            }
            let saved = scope.save("memory", "hello".into(), SaveOptions::default());
            saved.await?;
        }
    }
}

/// Limits that none of the measured runs meets.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.saves_per_minute = 1 << 40;
    limits.reads_per_minute = 1 << 40;
    limits
}

fn agent() -> Result<Agent> {
    let host = AgentHost::builder().limits(limits()).cache(None).build()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(host.load(&wat::parse_str(SAVES)?))?)
}

async fn run_agent(agent: Agent, counter: Counter) -> Result<()> {
    loop {
        let guest = SnapshotCtx::builder(scope()?).limits(limits()).build();
        for _ in 0..SAVES_OF_STORE {
            if !counter.goes_on().await {
                return Ok(());
            }
            let ran = agent.run(guest.clone(), &[]).await;
            ran.answer.context("a run failed")?;
        }
    }
}

fn error(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}
