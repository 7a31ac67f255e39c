//! Parts of an object: ranged GETs, resumed where the stream broke, several at once where there is
//! much to read.

use std::ops::Range;

use bytes::BytesMut;
use tokio::task::JoinSet;

use super::driver::{Body as _, Driver, Request};
use super::range::{GetResponse, ObjectInfo, ObjectRange};
use super::shared::Bucket;
use crate::storage::retry::{Attempt, AttemptError, RetryDecision, RetryLoop};
use crate::storage::{Error, ErrorKind, Part, ReadRange, Result, task};

/// Number of bytes that are read in one request, and number of these requests that are under way
/// for one read.
const PIECE: u64 = 8 << 20;
const AT_ONCE: usize = 4;

/// A suffix as long as this is the whole object. Servers keep lengths in signed numbers.
const WHOLE: u64 = 1 << 53;

/// How often a read begins anew because the object was replaced under it.
const MAX_RESTARTS: usize = 5;

/// An object, by its key in the bucket.
#[derive(Debug)]
struct Object<D: Driver> {
    bucket: Bucket<D>,
    full: String,
}

impl<D: Driver> Clone for Object<D> {
    fn clone(&self) -> Self {
        Self {
            bucket: self.bucket.clone(),
            full: self.full.clone(),
        }
    }
}

impl<D: Driver> Object<D> {
    fn begin(&self) -> RetryLoop<'_> {
        self.bucket.begin(Request::Get, &self.full, 0)
    }

    /// Asks once.
    async fn ask(
        &self,
        tries: &mut RetryLoop<'_>,
        range: &ObjectRange,
        tag: Option<&str>,
    ) -> Attempt<GetResponse<D::Body>> {
        let get = self.bucket.driver().get(&self.full, range, tag);
        self.bucket.attempt(tries, get).await
    }

    fn call(&self) -> &'static str {
        self.bucket.name(Request::Get)
    }
}

impl<D: Driver> Bucket<D> {
    /// Reads `range` of the object at `full`.
    pub(super) async fn read_range(&self, full: String, range: ReadRange) -> Result<Part> {
        let object = Object {
            bucket: self.clone(),
            full,
        };
        for _ in 0..MAX_RESTARTS {
            let part = match range.clone() {
                ReadRange::Suffix(len) => suffix(&object, len).await?,
                ReadRange::Bounded(span) => bounded(&object, span).await?,
            };
            if let Some(part) = part {
                return Ok(part);
            }
        }
        let what = "the object was replaced during every read";
        Err(Error::new(ErrorKind::Unavailable, what))
    }
}

async fn suffix<D: Driver>(object: &Object<D>, len: u64) -> Result<Option<Part>> {
    let is_own = object.bucket.settings().is_own_server;
    let known = object.bucket.shared.sizes.take(&object.full);
    let range = match len {
        WHOLE.. => ObjectRange::All,
        1.. if !is_own && known.is_none_or(|size| size <= len) => {
            return short(object, len, known).await;
        }
        len => ObjectRange::Suffix(len.max(1)),
    };
    let mut bytes = BytesMut::new();
    let Some(info) = fetch(object, range, None, &mut bytes).await? else {
        return Ok(None);
    };
    Ok(Some(match len {
        0 => nothing(info.size, info.size),
        _ => part(bytes, info.range.start, info.size),
    }))
}

/// Reads the end of an object that is surely or probably not longer than `len`: from its beginning,
/// as many servers answer a suffix wrong that is longer than the object. `known` is the size that
/// was listed, if any.
async fn short<D: Driver>(
    object: &Object<D>,
    len: u64,
    known: Option<u64>,
) -> Result<Option<Part>> {
    // An object that was listed as empty may not be it any more.
    let end = known.filter(|size| *size > 0).unwrap_or(len);
    let mut bytes = BytesMut::new();
    let Some(info) = fetch(object, ObjectRange::Span(0..end), None, &mut bytes).await? else {
        return Ok(None);
    };
    if info.size == info.range.end {
        return Ok(Some(part(bytes, info.range.start, info.size)));
    }
    // It is longer.
    bytes.clear();
    let rest = info.size.saturating_sub(len)..info.size;
    let range = ObjectRange::Span(rest.clone());
    let tag = info.tag.as_deref();
    let found = fetch(object, range, tag, &mut bytes).await?;
    Ok(found.map(|info| part(bytes, rest.start, info.size)))
}

async fn bounded<D: Driver>(object: &Object<D>, span: Range<u64>) -> Result<Option<Part>> {
    let most = span.start.saturating_add(PIECE);
    let first = span.start..span.end.clamp(span.start + 1, most);
    let mut bytes = BytesMut::new();
    let Some(info) = fetch(object, ObjectRange::Span(first), None, &mut bytes).await? else {
        return Ok(None);
    };
    let rest = info.range.end..span.end.min(info.size);
    if span.is_empty() || bytes.is_empty() {
        return Ok(Some(nothing(span.start, info.size)));
    }
    if !rest.is_empty() {
        match pieces(object, rest, info.tag, &bytes).await? {
            Some(all) => bytes = all,
            None => return Ok(None),
        }
    }
    Ok(Some(part(bytes, span.start, info.size)))
}

fn part(bytes: BytesMut, start: u64, size: u64) -> Part {
    Part {
        bytes: bytes.freeze(),
        start,
        size,
    }
}

fn nothing(start: u64, size: u64) -> Part {
    part(BytesMut::new(), start.min(size), size)
}

/// `head`, and `rest` of the object that `tag` names, read into one buffer by several requests at
/// once.
async fn pieces<D: Driver>(
    object: &Object<D>,
    rest: Range<u64>,
    tag: Option<String>,
    head: &[u8],
) -> Result<Option<BytesMut>> {
    let too_long = |_| {
        let what = "out of memory for a read";
        Error::new(ErrorKind::Unsupported, what)
    };
    let len = usize::try_from(rest.end - rest.start).map_err(too_long)?;
    let mut whole = BytesMut::with_capacity(head.len() + len);
    whole.extend_from_slice(head);
    let mut free = whole.split_off(head.len());
    let mut reading = JoinSet::new();
    let mut read = Vec::new();
    let mut next = rest.start;
    while next < rest.end || !reading.is_empty() {
        if next < rest.end && reading.len() < AT_ONCE {
            let span = next..rest.end.min(next + PIECE);
            next = span.end;
            // A piece is at most 8 MiB.
            let tail = free.split_off((span.end - span.start) as usize);
            let mut piece = std::mem::replace(&mut free, tail);
            let object = object.clone();
            let tag = tag.clone();
            reading.spawn(async move {
                let start = span.start;
                let range = ObjectRange::Span(span);
                let info = fetch(&object, range, tag.as_deref(), &mut piece).await?;
                Ok::<_, Error>(info.map(|_| (start, piece)))
            });
            continue;
        }
        match reading.join_next().await {
            Some(Ok(Ok(Some(piece)))) => read.push(piece),
            Some(Ok(Ok(None))) => return Ok(None),
            Some(Ok(Err(error))) => return Err(error),
            Some(Err(stopped)) => {
                return Err(task::stopped(stopped, ErrorKind::Unavailable, "a request"));
            }
            None => {}
        }
    }
    read.sort_by_key(|(start, _)| *start);
    for (_, piece) in read {
        // Side by side in one buffer: nothing is copied.
        whole.unsplit(piece);
    }
    Ok(Some(whole))
}

/// Appends a range to `bytes`, in as many requests as it takes; none where the object is not the
/// one that `tag` names, or was replaced meanwhile.
async fn fetch<D: Driver>(
    object: &Object<D>,
    range: ObjectRange,
    tag: Option<&str>,
    bytes: &mut BytesMut,
) -> Result<Option<ObjectInfo>> {
    let before = bytes.len();
    let mut tries = object.begin();
    let mut info: Option<ObjectInfo> = None;
    loop {
        let (ask, pin) = match &info {
            None => (range.clone(), tag),
            Some(info) => {
                let got = (bytes.len() - before) as u64;
                let rest = info.range.start + got..info.range.end;
                (ObjectRange::Span(rest), info.tag.as_deref())
            }
        };
        let (found, mut body) = match object.ask(&mut tries, &ask, pin).await {
            Ok(GetResponse::Bytes(found, body)) if found.is(pin) => (found, body),
            Ok(GetResponse::Bytes(..) | GetResponse::Replaced) => return Ok(None),
            Ok(GetResponse::Beyond(said)) => {
                let size = match said {
                    Some(size) => size,
                    None => size(object).await?,
                };
                // A range of what is there was refused: that is no sign of damage.
                if ask.begins_below(size) {
                    let call = object.call();
                    let what = format!("{call} of an existing range was refused: status 416");
                    let error = Error::new(ErrorKind::Unavailable, what);
                    tries
                        .again(AttemptError::new(RetryDecision::Stop, error))
                        .await?;
                    continue;
                }
                return Ok(Some(ObjectInfo::beyond(size)));
            }
            Err(fault) => {
                tries.again(fault).await?;
                continue;
            }
        };
        let len = (found.range.end - found.range.start) as usize;
        info.get_or_insert(found);
        let had = bytes.len();
        let Err(fault) = drain(object, &tries, &mut body, bytes, len).await else {
            return Ok(info);
        };
        if info.as_ref().is_some_and(|info| info.tag.is_none()) {
            // The rest might be of another object.
            bytes.truncate(before);
            info = None;
        } else if bytes.len() > had {
            tries.progressed();
        }
        tries.again(fault).await?;
    }
}

/// The size of an object, from a server that does not say it where a range lies beyond the end.
async fn size<D: Driver>(object: &Object<D>) -> Result<u64> {
    let mut tries = object.begin();
    loop {
        match object.ask(&mut tries, &ObjectRange::All, None).await {
            Ok(GetResponse::Bytes(info, _)) => return Ok(info.size),
            Ok(GetResponse::Beyond(size)) => return Ok(size.unwrap_or(0)),
            Ok(GetResponse::Replaced) => return Ok(0),
            Err(fault) => tries.again(fault).await?,
        }
    }
}

/// Reads a body of `len` bytes to its end, as long as it goes on.
async fn drain<D: Driver>(
    object: &Object<D>,
    tries: &RetryLoop<'_>,
    body: &mut D::Body,
    bytes: &mut BytesMut,
    len: usize,
) -> Attempt<()> {
    let stall = tries.stall();
    let end = bytes.len() + len;
    let broken = |kind, why: &str| {
        let what = format!("the response to {} {why}", object.call());
        AttemptError::unclear(Error::new(kind, what))
    };
    while bytes.len() < end {
        let chunk = match tokio::time::timeout(stall, body.next()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Err(broken(ErrorKind::Unavailable, "is truncated")),
            Ok(Err(why)) => {
                let why = format!("was interrupted: {why}");
                return Err(broken(ErrorKind::Unavailable, &why));
            }
            Err(_) => {
                let why = format!("stopped for {stall:?}");
                return Err(broken(ErrorKind::Timeout, &why));
            }
        };
        if chunk.len() > end - bytes.len() {
            return Err(broken(
                ErrorKind::Unavailable,
                "is longer than its declared length",
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(())
}
