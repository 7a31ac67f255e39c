//! Objects in a bucket, on a server.
//!
//! [`Bucket`] is a [`Storage`](super::Storage) over a [`Driver`], which says what a provider can do
//! in one request.
//! Amazon S3 and Google Cloud Storage are two drivers. For another provider, write a driver:
//! [`conformance`](crate::conformance) says whether it keeps what a store needs.
//!
//! # What a bucket does
//! | call | requests |
//! |---|---|
//! | `create` of at most one part | [`Driver::put`] |
//! | `create` of more, `upload` | [`Driver::begin`], [`Driver::part`] for each part, [`Driver::complete`] |
//! | `read` | [`Driver::get`]; of more than 8 MiB, one for each 8 MiB, four at a time |
//! | `list` | [`Driver::list`] for each 1000 entries |
//! | `delete` | [`Driver::delete`] |
//! | `sweep` | [`Driver::list_uploads`] for each page of uploads, [`Driver::abort`] for each that is removed |
//!
//! A request is sent again as [`Retry`](crate::storage::Retry) says. Where an attempt had no
//! answer, an acknowledgement of the next one is verified: the end of the object is read, and
//! compared with what was sent. A server that is not the provider's own is probed before a store is
//! trusted to it (see [`probe`](crate::storage::probe)).

mod backend;
mod create;
mod driver;
mod error_response;
mod list;
mod range;
mod read;
mod settings;
mod shared;
mod sizes;
mod sweep;
mod tail;
mod unsent;
mod upload;

use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;

pub use super::retry::{Attempt, AttemptError, RetryDecision};
pub use driver::{
    After, Body, Completion, Directories, Driver, ListRequest, ListResponse, ListedObject,
    ListedUpload, Mode, Progress, Request, Stored, UploadList, UploadMarker, UploadPart, Uploads,
};
#[cfg(feature = "s3")]
pub(super) use error_response::word;
pub use error_response::{
    Classification, ErrorResponse, Failure, foreign_response, innermost, refuse_page,
    transport_error,
};
pub use range::{GetResponse, ObjectInfo, ObjectRange};
pub use settings::Settings;
#[cfg(any(feature = "s3", feature = "gcs"))]
pub(super) use settings::{check_endpoint, directory, not_an_endpoint, variable, wrong};
pub use shared::Bucket;

/// The longest answer that is read as a whole, in bytes: a list of 1000 keys of 1 KiB each has a
/// tenth of it.
pub const MAX_ANSWER: usize = 16 << 20;

/// Returns the media type of an object. Never with a content encoding: a server that decompressed
/// what it sends would break every range.
pub fn content_type(key: &str) -> &'static str {
    match key.rsplit_once('.') {
        Some((_, "gz")) => "application/gzip",
        Some((_, "json")) => "application/json",
        _ => "application/octet-stream",
    }
}

/// Returns a call of a library without a subscriber of `tracing`. Libraries log headers, with
/// signatures and tokens, and bodies, at levels that anybody may turn on.
pub fn unlogged<F: Future>(send: F) -> tracing::instrument::WithDispatch<F> {
    send.with_subscriber(NoSubscriber::new())
}
