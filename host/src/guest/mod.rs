//! Calls of a guest to its store, with rights, limits, accounting and errors, without any engine.
//!
//! A [`Guest`] has one async method for each function of `persist:snapshot`, with plain Rust types.
//! Each method checks the [`Rights`] of the guest, compares every size with its [`Limits`], counts
//! usage in a [`Ledger`] and returns a [`GuestError`], which has the error cases of the contract.
//! An engine's bindings convert types, call these methods and do nothing else. The bindings for
//! wasmtime are in `persist_host::wasm`.
//!
//! ```
//! # use std::sync::Arc;
//! use persist_host::guest::{Guest, GuestError, Rights};
//! use persist_host::snapshot::{SaveOptions, Store};
//! use persist_host::storage::Memory;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let store = Store::new(Arc::new(Memory::new()));
//! let guest = Guest::builder(store.scope("bot", None)?)
//!     .rights(Rights::all().under("notes/"))
//!     .build();
//!
//! let info = guest.save("notes/1", "rain".into(), SaveOptions::default()).await?;
//! assert_eq!(info.version, 1);
//! let denied = guest.load("secrets", None).await.unwrap_err();
//! assert_eq!(denied, GuestError::Denied { right: "load" });
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod allowance;
mod buckets;
mod calls;
mod context;
mod error;
mod ledger;
mod limits;
mod lock;
mod reader;
mod rights;
mod storage_quota;
mod writer;

pub use buckets::{
    Bucket, BucketError, Buckets, CompareAndSwap, DEFAULT_BUCKET, KeyPage, ObjectNames, SwapError,
};
pub use calls::GuestLimits;
pub use context::{Guest, GuestBuilder};
pub use error::GuestError;
pub use ledger::{Ledger, RunPermit};
#[cfg(feature = "wasm")]
#[cfg(feature = "wasm")]
pub(crate) use limits::{HOST_STACK, to_usize};
pub use limits::{Limit, LimitError, Limits};
pub use reader::GuestReader;
pub use rights::{Rights, UnknownRight};
pub use writer::GuestWriter;
