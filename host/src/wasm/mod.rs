//! Access of guests to snapshots: the host side of `persist:snapshot`, and a runner for agents.
//!
//! - [`add_to_linker`] gives a wasmtime program of your own the imports that agents call. You keep
//!   your `T`, your `Engine`, your `ResourceTable` and your runtime; each store has a
//!   [`SnapshotCtx`], which says what its guest sees ([`Rights`]) and how much ([`Limits`]).
//! - [`AgentHost`] runs agents of the world `persist:snapshot/agent` with limits on everything.
//! - A [`Ledger`] counts what guests use, so that many instances of one guest have one allowance.

mod agent;
mod budget;
mod cache;
mod catch_unwind;
mod compile;
mod cpu_time;
mod ctx;
mod error;
mod features;
mod host;
mod ledger;
mod limits;
mod precheck;
mod rights;
mod storage_quota;

pub use agent::{Agent, AgentHost, AgentHostBuilder, RunError, RunOutput};
pub use ctx::{SnapshotCtx, SnapshotCtxBuilder, SnapshotView};
pub use host::{ReaderHandle, WriterHandle, add_to_linker};
pub use ledger::Ledger;
pub use limits::{Limit, LimitError, Limits};
pub use rights::{Rights, UnknownRight};

mod generated {
    wasmtime::component::bindgen!({
        path: "wit",
        world: "agent",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "persist:snapshot/store.writer": super::WriterHandle,
            "persist:snapshot/store.reader": super::ReaderHandle,
        },
        trappable_error_type: {
            "persist:snapshot/types.error" => super::error::GuestError,
        },
    });
}
