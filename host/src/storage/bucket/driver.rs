//! The trait of a provider of buckets: its single requests.
//!
//! A [`Driver`] builds requests and reads responses. [`Bucket`](super::Bucket) does the rest, once
//! for all providers: retries and time limits, parts of large objects, ranges of large reads, pages
//! of lists, and the check of a create whose response was lost.
//!
//! # Rules for every method
//! - One request, sent once. The retries of an SDK are off.
//! - Keys are complete: they begin with the prefix of [`Settings`].
//! - A response is believed only if it is one of the provider's. The login page of a network
//!   answers 200, too: see [`foreign_response`](super::foreign_response).
//! - An [`AttemptError`] says what the caller cannot find out: whether to send the request again,
//!   and whether it may have been done although no response says so.
//! - No secret is in an error. No text of the server is, except a short word such as an error code
//!   ([`ErrorResponse`](super::ErrorResponse) takes care of both).

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;

use super::range::{GetResponse, ObjectRange};
use super::settings::Settings;
use crate::storage::retry::Attempt;
use crate::storage::{ObjectMeta, StorageIdentity};

/// A provider of buckets: what it can do in one request, each under the rules at the top of this
/// module.
///
/// Methods may be written as `async fn`.
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// An upload in parts that the server knows of, such as its ID.
    type Upload: Clone + Send + Sync + 'static;

    /// Receipt that the server returned for a part, and wants back when the object is completed.
    type Receipt: Send + Sync + 'static;

    /// The bytes of a response, as they arrive. [`Bytes`] is one, for a response that was read
    /// whole.
    type Body: Body;

    /// How the provider takes uploads in parts.
    const UPLOADS: Uploads;

    /// How the provider lists directories.
    const DIRECTORIES: Directories = Directories::InOrder;

    /// True if the provider limits how often one object may be written, as GCS does: once a second.
    /// A create that is refused for that reason looks for the object before it is sent again.
    const LIMITS_WRITES: bool = false;

    /// Returns the settings of the bucket that every provider has.
    fn settings(&self) -> &Settings;

    /// Returns the name that the provider's manual gives to a request, for messages.
    fn name(&self, request: Request) -> &'static str;

    /// Returns the identity of the objects of the bucket.
    fn identity(&self) -> StorageIdentity {
        let settings = self.settings();
        StorageIdentity::bucket(
            Some(&settings.server),
            "",
            &settings.bucket,
            &settings.prefix,
        )
    }

    /// Makes sure that there are credentials, before each attempt.
    fn ready(&self) -> impl Future<Output = Attempt<()>> + Send {
        async { Ok(()) }
    }

    /// Looks for other credentials, after the server refused these. Returns true if it found some.
    fn renew(&self) -> impl Future<Output = bool> + Send {
        async { false }
    }

    /// Creates an object in one request, or replaces it, as `mode` says. With [`Mode::Create`], of
    /// several writers at the same time exactly one succeeds; the others fail with
    /// [`ErrorKind::AlreadyExists`](crate::storage::ErrorKind::AlreadyExists).
    fn put(
        &self,
        key: &str,
        body: Bytes,
        mode: Mode,
    ) -> impl Future<Output = Attempt<Stored>> + Send;

    /// Begins an upload in parts.
    fn begin(&self, key: &str, mode: Mode) -> impl Future<Output = Attempt<Self::Upload>> + Send;

    /// Sends a part. [`Uploads::at_once`] of one upload are sent at the same time.
    fn part(
        &self,
        key: &str,
        upload: &Self::Upload,
        part: &UploadPart,
    ) -> impl Future<Output = Attempt<Progress<Self::Receipt>>> + Send;

    /// Makes the object of an upload visible, under the same condition as [`Driver::put`].
    ///
    /// An upload that is gone may have been completed by an earlier attempt, so that is an unclear
    /// error without a retry: the caller looks at the object.
    fn complete(
        &self,
        key: &str,
        upload: &Self::Upload,
        completion: &Completion<Self::Receipt>,
        mode: Mode,
    ) -> impl Future<Output = Attempt<Progress<Stored>>> + Send;

    /// Makes the server forget an upload. One that is gone is no error.
    fn abort(&self, key: &str, upload: &Self::Upload) -> impl Future<Output = Attempt<()>> + Send;

    /// Reads a range of an object; with a `tag`, of the object that an earlier response gave this
    /// tag, and no other.
    fn get(
        &self,
        key: &str,
        range: &ObjectRange,
        tag: Option<&str>,
    ) -> impl Future<Output = Attempt<GetResponse<Self::Body>>> + Send;

    /// Lists objects.
    fn list(&self, list: &ListRequest) -> impl Future<Output = Attempt<ListResponse>> + Send;

    /// Deletes an object. One that is gone is no error.
    fn delete(&self, key: &str) -> impl Future<Output = Attempt<()>> + Send;

    /// Lists the uploads in parts that were begun and neither completed nor aborted, or returns
    /// none if the provider forgets them by itself.
    fn list_uploads(
        &self,
        after: &UploadMarker,
    ) -> impl Future<Output = Attempt<Option<UploadList<Self::Upload>>>> + Send {
        let _ = after;
        async { Ok(None) }
    }

    /// Returns whether an object that exists is encrypted as the settings request, or none if the
    /// provider does not say. Asked once, where no response to a write confirmed it.
    fn is_encrypted(&self, key: &str) -> impl Future<Output = Attempt<Option<bool>>> + Send {
        let _ = key;
        async { Ok(None) }
    }
}

/// A request, to name it in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// [`Driver::put`].
    Put,
    /// [`Driver::begin`].
    Begin,
    /// [`Driver::part`].
    Part,
    /// [`Driver::complete`].
    Complete,
    /// [`Driver::abort`].
    Abort,
    /// [`Driver::get`].
    Get,
    /// [`Driver::list`].
    List,
    /// [`Driver::list_uploads`].
    ListUploads,
    /// [`Driver::delete`].
    Delete,
}

impl Request {
    /// Returns true if the request changes what can be seen, so that a lost response leaves an
    /// unknown outcome.
    pub(super) fn is_change(self) -> bool {
        matches!(self, Self::Put | Self::Complete | Self::Delete)
    }
}

/// Condition of a write: it says if an object may exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It must not exist.
    Create,
    /// It may exist, and is replaced in one step.
    Replace,
}

/// How a provider takes uploads in parts.
#[derive(Clone, Copy, Debug)]
pub struct Uploads {
    /// Parts of one upload that are sent at the same time: 1 if each part must follow the one
    /// before.
    pub at_once: usize,
    /// The most parts of one upload.
    pub max_parts: u32,
    /// True if the completion carries the last part; false if every part is sent before.
    pub completed_by_last_part: bool,
}

/// How a provider lists directories, which are the common prefixes of keys up to a `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directories {
    /// Objects and directories are in one order, which is that of keys, and share the limit of a
    /// page.
    InOrder,
    /// Like [`Directories::InOrder`]; but a server of another maker may order directories by their
    /// names, without the `/` that ends their keys.
    InOrderOrByName,
    /// A page with objects may show directories that come after the last object, and be continued
    /// before them.
    BesideObjects,
}

/// A part of an upload.
#[derive(Clone, Debug)]
pub struct UploadPart {
    /// Number of the part, from 1.
    pub number: u32,
    /// Bytes of the object before this part.
    pub offset: u64,
    /// Bytes of the part; never empty.
    pub body: Bytes,
}

/// The parts that complete an upload.
#[derive(Debug)]
pub struct Completion<R> {
    /// Receipts of the parts, in order.
    pub receipts: Vec<R>,
    /// The last part, where [`Uploads::completed_by_last_part`] is true.
    pub last: Option<UploadPart>,
    /// Length of the object, in bytes.
    pub size: u64,
    /// CRC-32C of the object.
    pub crc32c: u32,
}

/// How much of a part a server took.
#[derive(Debug)]
pub enum Progress<T> {
    /// All of it.
    Whole(T),
    /// Its first bytes, this many of them: at least 1. The rest is sent as another part.
    Taken(u64),
}

/// An object that a server says it stored.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// False if the response does not confirm the encryption that was requested; true if none was.
    pub encryption_confirmed: bool,
}

impl Default for Stored {
    fn default() -> Self {
        Self {
            encryption_confirmed: true,
        }
    }
}

/// The bytes of a response, as they arrive.
pub trait Body: Send {
    /// Returns the next bytes, or none at the end.
    ///
    /// # Errors
    /// Why no more came, as the end of a sentence.
    fn next(&mut self) -> impl Future<Output = Result<Option<Bytes>, String>> + Send;
}

impl Body for Bytes {
    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        let rest = std::mem::take(self);
        Ok((!rest.is_empty()).then_some(rest))
    }
}

/// Selection of the keys to list.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// Only keys with this prefix.
    pub prefix: String,
    /// True to list the keys that have another `/` after the prefix as directories; false to list
    /// every key.
    pub directories: bool,
    /// Only what comes after this; what comes before may be in the response, and is skipped. Not
    /// with a token.
    pub after: Option<After>,
    /// The most entries of the response, from 1 to 1000.
    pub limit: usize,
    /// Token of the page before.
    pub token: Option<String>,
}

/// Beginning of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// After this key.
    Key(String),
    /// After all keys of this directory; without the `/` at its end.
    Directory(String),
}

/// A page of a list, in the order of keys.
#[derive(Clone, Debug, Default)]
pub struct ListResponse {
    /// The objects.
    pub objects: Vec<ListedObject>,
    /// The directories: their keys, with the `/` at the end.
    pub directories: Vec<String>,
    /// True if there is another page.
    pub more: bool,
    /// Token of the next page.
    pub token: Option<String>,
    /// The server's time, if it says.
    pub now: Option<SystemTime>,
}

/// An object in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: String,
    /// Its size and time, if the server says both and its own time.
    pub meta: Option<ObjectMeta>,
}

/// Beginning of a page of a list of uploads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UploadMarker {
    /// After the uploads for this key,
    pub key: Option<String>,
    /// up to the one of this ID.
    pub id: Option<String>,
}

/// A page of a list of uploads.
#[derive(Clone, Debug)]
pub struct UploadList<U> {
    /// The uploads.
    pub uploads: Vec<ListedUpload<U>>,
    /// Beginning of the next page, if there is one.
    pub next: Option<UploadMarker>,
    /// The server's time, if it says.
    pub now: Option<SystemTime>,
}

/// An upload in a list.
#[derive(Clone, Debug)]
pub struct ListedUpload<U> {
    /// Key of its object.
    pub key: String,
    /// The upload.
    pub upload: U,
    /// When it began, if the server says.
    pub began: Option<SystemTime>,
}
