//! Access of wasmtime guests to snapshots: the bindings of `persist:snapshot`, and a runner for
//! agents.
//!
//! - [`add_to_linker`] gives a wasmtime program of your own the imports that agents call. You keep
//!   your `T`, your `Engine`, your `ResourceTable` and your runtime; each store has a
//!   [`SnapshotCtx`], which says what its guest sees ([`Rights`]) and how much ([`Limits`]).
//! - [`AgentHost`] runs agents of the world `persist:snapshot/agent` with limits on everything.
//! - `keyvalue`, with the feature of this name, gives guests the key-value interfaces of WASI and
//!   Spin.
//! - `blobstore`, with the feature of this name, gives guests `wasi:blobstore`.
//! - A [`Ledger`] counts what guests use, so that many instances of one guest have one allowance.
//!
//! Rights, limits and accounting are in [`guest`](crate::guest), which knows no engine. Here, types
//! are converted.

mod agent;
mod bindings;
#[cfg(feature = "blobstore")]
pub mod blobstore;
mod budget;
mod builder;
mod cache;
mod compile;
mod convert;
mod cpu_time;
mod engine;
mod error;
mod features;
mod host;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "keyvalue")]
pub mod keyvalue;
mod output;
mod precheck;
mod run_error;
mod run_options;
mod state;
mod view;

pub use agent::{Agent, AgentHost, RunOutput};
pub use builder::AgentHostBuilder;
pub use compile::componentize;
pub use host::add_to_linker;
#[cfg(feature = "http")]
pub use http::{HttpPolicy, HttpPolicyError};
pub use output::{LiveOutput, OutputReader, StdStream, live_output};
pub use run_error::RunError;
pub use run_options::RunOptions;
pub use state::AgentState;
pub use view::SnapshotView;

pub use crate::guest::{
    Guest as SnapshotCtx, GuestBuilder as SnapshotCtxBuilder, GuestReader as ReaderHandle,
    GuestWriter as WriterHandle, Ledger, Limit, LimitError, Limits, Rights, UnknownRight,
};
