//! Lets sandboxed WebAssembly agents save and load versioned snapshots of their state.
//!
//! Give the guests of your own wasmtime program the imports of `persist:snapshot`. You keep your
//! `T`, your engine, your table and your runtime:
//!
//! ```
//! # #[cfg(feature = "wasm")]
//! # mod example {
//! use persist_host::snapshot::Store;
//! use persist_host::storage::StorageConfig;
//! use persist_host::wasm::{SnapshotCtx, SnapshotView, add_to_linker};
//! use wasmtime::component::{Component, Linker, ResourceTable};
//! use wasmtime::Engine;
//!
//! struct Host {
//!     snapshots: SnapshotCtx, // what this guest sees
//!     table: ResourceTable,   // its handles
//! }
//!
//! # pub async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let wasm = wat::parse_str(include_str!("../testdata/save.wat"))?;
//! let engine = Engine::default();
//! let mut linker = Linker::new(&engine);
//! add_to_linker(&mut linker, |host: &mut Host| {
//!     SnapshotView::new(&host.snapshots, &mut host.table)
//! })?;
//!
//! # let path = dir.path();
//! let store = Store::new(StorageConfig::local(path).build()?);
//! let scope = store.scope("weather-bot", None)?; // chosen by you, never by the guest
//! let host = Host { snapshots: SnapshotCtx::new(scope.clone()), table: ResourceTable::new() };
//!
//! let fuel = host.snapshots.hostcall_fuel();
//! let mut guest = wasmtime::Store::new(&engine, host);
//! guest.set_hostcall_fuel(fuel); // what one call may bring into this process
//! let component = Component::new(&engine, wasm)?;
//! let instance = linker.instantiate_async(&mut guest, &component).await?;
//! type Run = (Result<String, String>,);
//! let run = instance.get_typed_func::<(Vec<String>,), Run>(&mut guest, "run")?;
//! let (answer,) = run.call_async(&mut guest, (vec![],)).await?;
//!
//! assert_eq!(answer, Ok("saved".into()));
//! let snapshot = scope.load("memory", None).await?.expect("the guest saved it");
//! assert_eq!(&snapshot.state[..], b"hello");
//! # Ok(()) }
//! # }
//! # #[cfg(feature = "wasm")]
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example::main()).unwrap();
//! ```
//!
//! Of the guest, the calls limit what it may ask of the store ([`wasm::Limits`]). Its memory and
//! CPU time are yours to limit, with wasmtime's `ResourceLimiter` and epochs.
//!
//! No engine of your own? [`wasm::AgentHost`] runs agents with limits on everything. No guests at
//! all? A native program uses [`snapshot`] alone, with `default-features = false`, and pulls in no
//! wasmtime.
//!
//! # Layers
//! | module | knows | does not know |
//! |---|---|---|
//! | [`storage`] | objects under keys, created once | what a snapshot is |
//! | [`snapshot`] | versions, history, integrity, the file format | what a guest is |
//! | [`guest`] | guests, their scopes, rights and limits | which engine runs them |
//! | [`wasm`] | wasmtime, its types and agents | how limits are counted |
//!
//! # Features
//! | feature | gives | default |
//! |---|---|---|
//! | `wasm` | [`wasm`]: `add_to_linker` and the runner; turns on `guest` | yes |
//! | `guest` | [`guest`]: calls of guests for the bindings of any engine | yes |
//! | `http` | outgoing HTTP of agents, to hosts that the embedder allows | no |
//! | `keyvalue` | `wasm::keyvalue`: `wasi:keyvalue` and Spin's interface, for guests | no |
//! | `blobstore` | `wasm::blobstore`: `wasi:blobstore` for guests; turns on `keyvalue` | no |
//! | `s3` | [`storage`] on Amazon S3 | no |
//! | `gcs` | [`storage`] on Google Cloud Storage | no |
//! | `bucket` | [`storage`] in a bucket of another provider, over a driver of your own | with `s3` and `gcs` |
//! | `metrics` | [`telemetry`] to the crate `metrics` | no |
//! | `testing` | `conformance`: the suite that a storage must pass, and faults to test with | no |
//!
//! # Requirements
//! - **Unix.** Linux is what the tests run on. Windows is refused at compile time.
//! - **wasmtime 48**, the long-term support release, re-exported as [`wasmtime`]. Its team
//!   publishes security fixes for it until August 2028. Each release of this crate names one
//!   wasmtime.
//! - **Rust 1.95** or newer. A release that needs a newer compiler raises the minor version.

#![deny(missing_docs)]
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(feature = "wasm"),
    expect(rustdoc::broken_intra_doc_links, reason = "links to `wasm`")
)]

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(feature = "guest")]
pub mod guest;
mod hex;
mod random;
pub mod snapshot;
pub mod storage;
pub mod telemetry;
#[cfg(feature = "guest")]
pub mod units;
#[cfg(feature = "wasm")]
pub mod wasm;

/// The engine whose types are in the public interface of [`wasm`].
#[cfg(feature = "wasm")]
pub use wasmtime;

#[cfg(not(unix))]
compile_error!("persist-host needs a Unix system: its local storage uses link(2) and fsync(2)");
