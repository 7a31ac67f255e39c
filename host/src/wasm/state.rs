//! State of one run: what the agent may use, and how much of it is used.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use wasmtime::ResourceLimiter;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::budget::Budget;
use super::cpu_time::Meter;
use super::output::OutputPipe;
use super::run_options::RunOptions;
use super::view::SnapshotView;
use crate::guest::{Guest, to_usize};

/// Data of one run of an agent: the `T` of its store and of its linker.
///
/// Functions that [`AgentHostBuilder::imports`](super::AgentHostBuilder::imports) adds get it. It
/// implements [`WasiView`], which has the table for their resources.
pub struct AgentState {
    guest: Guest,
    data: Option<Arc<dyn Any + Send + Sync>>,
    #[cfg(feature = "keyvalue")]
    buckets: crate::guest::Buckets,
    wasi: WasiCtx,
    table: ResourceTable,
    memory: Budget,
    table_elements: Budget,
    pub(super) meter: Meter,
    #[cfg(feature = "http")]
    http: super::http::HttpState,
}

impl AgentState {
    pub(super) fn new(
        guest: Guest,
        options: &RunOptions,
        #[cfg(feature = "keyvalue")] buckets: crate::guest::Buckets,
        stdout: &OutputPipe,
        stderr: &OutputPipe,
        #[cfg(feature = "http")] http: super::http::HttpHooks,
    ) -> Self {
        let limits = guest.limits();
        let mut table = ResourceTable::new();
        table.set_max_capacity(to_usize(limits.handles));
        Self {
            wasi: wasi(options, stdout, stderr),
            table,
            memory: Budget::new(to_usize(limits.memory)),
            table_elements: Budget::new(to_usize(limits.table_elements)),
            meter: Meter::new(limits.cpu),
            #[cfg(feature = "http")]
            http: super::http::HttpState::new(http),
            data: options.data.clone(),
            #[cfg(feature = "keyvalue")]
            buckets,
            guest,
        }
    }

    /// Returns the view of the store that the run has.
    pub fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Returns the value that [`RunOptions::data`](super::RunOptions::data) set, if it is a `D`.
    pub fn data<D: Any + Send + Sync>(&self) -> Option<&D> {
        self.data.as_ref()?.downcast_ref()
    }

    pub(super) fn snapshots(&mut self) -> SnapshotView<'_> {
        SnapshotView::new(&self.guest, &mut self.table)
    }

    #[cfg(feature = "keyvalue")]
    pub(super) fn key_values(&mut self) -> super::keyvalue::KeyValueView<'_> {
        super::keyvalue::KeyValueView::new(&mut self.buckets, &mut self.table)
    }

    #[cfg(feature = "blobstore")]
    pub(super) fn blobs(&mut self) -> super::blobstore::BlobStoreView<'_> {
        super::blobstore::BlobStoreView::new(&mut self.buckets, &mut self.table)
    }

    /// Returns true if a memory was not allowed to grow.
    pub(super) fn memory_was_refused(&self) -> bool {
        self.memory.refused
    }
}

impl fmt::Debug for AgentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentState")
            .field("guest", &self.guest)
            .finish_non_exhaustive()
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

#[cfg(feature = "http")]
impl wasmtime_wasi_http::WasiHttpView for AgentState {
    fn http(&mut self) -> wasmtime_wasi_http::WasiHttpCtxView<'_> {
        self.http.view(&mut self.table)
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
        to_usize(self.guest.limits().instances)
    }

    fn tables(&self) -> usize {
        to_usize(self.guest.limits().tables)
    }

    fn memories(&self) -> usize {
        to_usize(self.guest.limits().memories)
    }
}

/// Random bytes of one call: it is the host that makes them, and its time is not the guest's.
const MAX_RANDOM: u64 = 1 << 20;

/// Clocks, random numbers, the given input and environment, and captured output. A socket that may
/// connect to nothing is still a descriptor of the host.
fn wasi(options: &RunOptions, stdout: &OutputPipe, stderr: &OutputPipe) -> WasiCtx {
    WasiCtx::builder()
        .stdin(MemoryInputPipe::new(options.stdin.clone()))
        .envs(&options.env)
        .stdout(stdout.clone())
        .stderr(stderr.clone())
        .allow_tcp(false)
        .allow_udp(false)
        .max_random_size(MAX_RANDOM)
        .build()
}
