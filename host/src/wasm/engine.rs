//! Engines that agents are compiled for and run in.
//!
//! A run begins with memory, tables and a stack from the operating system, and gives them back.
//! Threads of one process wait for each other there: with two of them, fewer runs begin in a
//! second than with one. So these are taken from a pool that is reserved once, and cleared after a
//! run. Only address space is reserved; memory is used as agents use it.
//!
//! An agent that no place in the pool fits runs in a second engine, which asks the operating system
//! for each run. So does every agent where the pool cannot be reserved.

use std::path::Path;

use wasmtime::component::{Component, Linker};
use wasmtime::error::Context as _;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::cache;
use super::cpu_time::TICK;
use super::features;
use super::host::add_to_linker;
use super::run_error::RunError;
use super::state::AgentState;
use crate::guest::{HOST_STACK, Limits, to_usize};

/// Concurrent runs for which there is a pool. Each takes 8 GiB of address space, of which a process
/// has 128 TiB.
const MAX_POOLED_RUNS: u64 = 4096;

/// Parts of an agent that a place in the pool is for: more than the toolchains make. An agent is
/// one module with a memory, and some small ones that connect it.
const MEMORIES: u32 = 2;
const TABLES: u32 = 4;
const CORE_INSTANCES: u32 = 20;

/// Largest linear memory that WebAssembly has with 32-bit addresses.
const MEMORY_SIZE: usize = 1 << 32;

/// Bytes of a memory that stay allocated for the next run: clearing them takes less time than
/// giving them back. Where the system tells which pages a run has written, only those are cleared
/// and kept; elsewhere the first bytes, written or not.
const RESIDENT_WRITTEN: usize = 2 << 20;
const RESIDENT_FIRST: usize = 256 << 10;

/// Bytes of a table that stay allocated.
const RESIDENT_TABLE: usize = 16 << 10;

/// An engine with the imports of agents.
pub(super) struct Linked {
    pub(super) engine: Engine,
    pub(super) linker: Linker<AgentState>,
    /// Packages that the embedder's own functions provide.
    pub(super) packages: Vec<String>,
}

/// Imports that an embedder adds.
pub(super) struct OwnImports {
    pub(super) package: String,
    pub(super) add: AddImports,
}

/// Function of an embedder that adds imports to a linker.
type AddImports = Box<dyn Fn(&mut Linker<AgentState>) -> wasmtime::Result<()> + Send>;

/// The engines of a host.
pub(super) struct Engines {
    pooled: Option<Linked>,
    on_demand: Linked,
}

impl Engines {
    pub(super) fn new(
        limits: &Limits,
        cache: Option<&Path>,
        imports: &[OwnImports],
    ) -> Result<Self, RunError> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .max_wasm_stack(to_usize(limits.stack))
            .async_stack_size(to_usize(limits.stack.saturating_add(HOST_STACK)))
            .cache(cache.and_then(cache::open));
        features::pin(&mut config);
        let on_demand = Linked::new(&config, imports).map_err(|error| failed(&error))?;
        let pooled = pool(limits).and_then(|pool| {
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
            Linked::new(&config, imports)
                .inspect_err(|error| {
                    tracing::warn!("runs are slower, as no memory can be reserved: {error:#}");
                })
                .ok()
        });
        let engines = Self { pooled, on_demand };
        engines.tick()?;
        Ok(engines)
    }

    /// Compiles a component for the pool or, where it does not fit, for no pool.
    pub(super) fn compile(&self, component: &[u8]) -> wasmtime::Result<(&Linked, Component)> {
        let pooled = self.pooled.as_ref();
        let compiled = pooled.and_then(|linked| Some((linked, linked.compile(component).ok()?)));
        match compiled {
            Some(compiled) => Ok(compiled),
            // If it is not too large but wrong, it is wrong here, too.
            None => Ok((&self.on_demand, self.on_demand.compile(component)?)),
        }
    }

    /// Returns an engine that says whether a module is valid.
    pub(super) fn validator(&self) -> &Engine {
        &self.on_demand.engine
    }

    /// Counts time for all stores of the engines, as long as they live.
    fn tick(&self) -> Result<(), RunError> {
        let engines = [Some(&self.on_demand), self.pooled.as_ref()];
        let engines = engines.into_iter().flatten().map(|linked| &linked.engine);
        let engines: Vec<_> = engines.map(Engine::weak).collect();
        let run = move || {
            loop {
                for engine in &engines {
                    let Some(engine) = engine.upgrade() else {
                        return;
                    };
                    engine.increment_epoch();
                }
                std::thread::sleep(TICK);
            }
        };
        let thread = std::thread::Builder::new().name("persist-ticker".into());
        thread.spawn(run).map(drop).map_err(|error| {
            RunError::Engine(format!("cannot start a thread to count time: {error}"))
        })
    }
}

impl Linked {
    fn new(config: &Config, imports: &[OwnImports]) -> wasmtime::Result<Self> {
        let engine = Engine::new(config)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        #[cfg(feature = "http")]
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        add_to_linker(&mut linker, AgentState::snapshots)?;
        #[cfg(feature = "blobstore")]
        super::blobstore::add_to_linker(&mut linker, AgentState::blobs)?;
        for own in imports {
            let package = &own.package;
            let add = (own.add)(&mut linker);
            add.with_context(|| format!("cannot add the imports of {package}"))?;
        }
        Ok(Self {
            engine,
            linker,
            packages: imports.iter().map(|own| own.package.clone()).collect(),
        })
    }

    fn compile(&self, component: &[u8]) -> wasmtime::Result<Component> {
        Component::new(&self.engine, component)
    }
}

fn failed(error: &wasmtime::Error) -> RunError {
    RunError::Engine(format!("{error:#}"))
}

/// Returns a pool with a place for each run that the limits allow; none for more runs than there is
/// address space for.
fn pool(limits: &Limits) -> Option<PoolingAllocationConfig> {
    if limits.runs > MAX_POOLED_RUNS {
        return None;
    }
    let runs = u32::try_from(limits.runs).ok()?;
    let storage = to_usize(limits.instance_storage);
    let resident = if PoolingAllocationConfig::is_pagemap_scan_available() {
        RESIDENT_WRITTEN
    } else {
        RESIDENT_FIRST
    };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(runs)
        .max_component_instance_size(storage)
        .total_stacks(runs)
        .total_core_instances(runs * CORE_INSTANCES)
        .max_core_instances_per_component(CORE_INSTANCES)
        .max_core_instance_size(storage)
        .total_memories(runs * MEMORIES)
        .max_memories_per_component(MEMORIES)
        .max_memories_per_module(MEMORIES)
        .max_memory_size(MEMORY_SIZE)
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(resident)
        .total_tables(runs * TABLES)
        .max_tables_per_component(TABLES)
        .max_tables_per_module(TABLES)
        .table_elements(to_usize(limits.table_elements))
        .table_keep_resident(RESIDENT_TABLE);
    Some(pool)
}
