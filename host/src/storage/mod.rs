//! Storage backends, which hold the bytes.
//!
//! A [`Storage`] keeps immutable objects under keys. It knows nothing of snapshots: no versions, no
//! compression, no guests. Everything above it rests on one primitive that every backend has:
//! [`Storage::create`] makes an object that was not there, whole and durable, or fails.
//!
//! # Why not a file system interface?
//!
//! Renames, appends and locks mean different things on a disk and in a bucket. Exclusive creation
//! means the same on all of them (`link(2)`, `If-None-Match: *`, `ifGenerationMatch=0`), and is
//! enough for atomic saves, compare-and-swap between machines, and history.
//!
//! # Backends
//! | backend | objects are | with |
//! |---|---|---|
//! | [`Local`] | files under a directory | always |
//! | `S3` | objects of a bucket, on Amazon S3 or a server that honours conditional writes as it does | feature `s3` |
//! | `Gcs` | objects of a bucket on Google Cloud Storage | feature `gcs` |
//! | `bucket::Bucket` | objects of a bucket of another provider, over a driver of your own | feature `bucket` |
//! | [`Memory`] | in this process, for tests | always |
//!
//! [`StorageConfig`] says which one, from a program, the environment or a URL. [`Retry`] says when
//! a call to a server is sent again.

#[cfg(feature = "bucket")]
pub mod bucket;
mod build;
mod config;
mod endpoint;
mod environment;
mod error;
#[cfg(feature = "gcs")]
mod gcs;
mod identity;
mod interface;
mod key;
mod local;
mod memory;
mod names;
mod pager;
pub mod probe;
mod recorded;
mod retry;
#[cfg(feature = "s3")]
mod s3;
mod secret;
pub(crate) mod task;
mod types;

pub use config::{
    S3Checksums, S3Credentials, S3Encryption, StorageBackend, StorageConfig, absolute_local_path,
    local_path,
};
pub use endpoint::Endpoint;
pub use environment::Environment;
pub use error::{Error, ErrorKind, Result};
#[cfg(feature = "gcs")]
pub use gcs::{Gcs, GcsDriver};
pub use identity::{IdentityRelation, StorageIdentity};
#[cfg(any(test, feature = "testing"))]
pub(crate) use interface::list_by_directory;
pub use interface::{Storage, Upload};
pub use key::Key;
#[cfg(any(test, feature = "testing"))]
pub use local::{Call, Watch};
pub use local::{Local, Modes, parse_mode};
pub use memory::Memory;
pub use pager::Pager;
pub(crate) use recorded::Recorded;
pub use retry::Retry;
#[cfg(feature = "s3")]
pub use s3::{S3, S3Driver};
pub use secret::{redact, secret_in};
pub use types::{
    Counts, Entry, List, Object, ObjectMeta, Page, Part, ReadRange, RecursiveList, RecursivePage,
    Sweep, Swept,
};
