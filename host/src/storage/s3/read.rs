//! Parts of an object: ranged GETs, resumed where the stream broke, several at once where there is much to read.

use std::ops::Range;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ServerSideEncryption;
use bytes::BytesMut;
use tokio::task::JoinSet;

use super::answer::Refusal;
use super::{Operation, S3, fault, innermost, unlogged};
use crate::storage::retry::{Attempt, Fault};
use crate::storage::{Error, ErrorKind, Key, Part, ReadRange, Result};

const GET: Operation = Operation {
    name: "GetObject",
    permission: "s3:GetObject on the objects of the bucket",
    change: false,
};

/// What is read in one request, and how many of these are under way for one read.
const PIECE: u64 = 8 << 20;
const AT_ONCE: usize = 4;

/// A suffix as long as this is the whole object. Servers keep lengths in signed numbers.
const WHOLE: u64 = 1 << 53;

/// How often a read begins anew because the object was replaced under it.
const MAX_RESTARTS: usize = 5;

/// What a request asks for; never nothing, for which HTTP has no words.
#[derive(Clone, Debug)]
enum Wanted {
    All,
    Suffix(u64),
    Span(Range<u64>),
}

/// What is known of an object from the first answer.
#[derive(Clone, Debug)]
struct About {
    /// Where the bytes that were asked for are.
    range: Range<u64>,
    size: u64,
    /// Which object it is, where the server says.
    tag: Option<String>,
}

/// What a GET was answered with.
enum Answer {
    Bytes(About, ByteStream),
    /// The object ends before what was asked for; its size, where the server says.
    Beyond(Option<u64>),
    /// It is not the object any more that was asked for.
    Replaced,
}

/// Reads `range` of the object at `key`.
pub(super) async fn read(s3: &S3, key: &Key, range: ReadRange) -> Result<Part> {
    for _ in 0..MAX_RESTARTS {
        let part = match range.clone() {
            ReadRange::Suffix(len) => suffix(s3, key, len).await?,
            ReadRange::Bounded(span) => bounded(s3, key, span).await?,
        };
        if let Some(part) = part {
            return Ok(part);
        }
    }
    let what = "the object was replaced each time that it was read";
    Err(Error::new(ErrorKind::Unavailable, what))
}

async fn suffix(s3: &S3, key: &Key, len: u64) -> Result<Option<Part>> {
    let wanted = match len {
        WHOLE.. => Wanted::All,
        len => Wanted::Suffix(len.max(1)),
    };
    let mut bytes = BytesMut::new();
    let Some(about) = fetch(s3, key, wanted, None, &mut bytes).await? else {
        return Ok(None);
    };
    Ok(Some(match len {
        0 => nothing(about.size, about.size),
        _ => part(bytes, about.range.start, about.size),
    }))
}

async fn bounded(s3: &S3, key: &Key, span: Range<u64>) -> Result<Option<Part>> {
    let first = span.start
        ..span
            .end
            .clamp(span.start + 1, span.start.saturating_add(PIECE));
    let mut bytes = BytesMut::new();
    let Some(about) = fetch(s3, key, Wanted::Span(first), None, &mut bytes).await? else {
        return Ok(None);
    };
    let rest = about.range.end..span.end.min(about.size);
    if span.is_empty() || bytes.is_empty() {
        return Ok(Some(nothing(span.start, about.size)));
    }
    if !rest.is_empty() {
        match pieces(s3, key, rest, about.tag, &bytes).await? {
            Some(all) => bytes = all,
            None => return Ok(None),
        }
    }
    Ok(Some(part(bytes, span.start, about.size)))
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

/// `head`, and `rest` of the object that `tag` names, read into one buffer by several requests at once.
async fn pieces(
    s3: &S3,
    key: &Key,
    rest: Range<u64>,
    tag: Option<String>,
    head: &[u8],
) -> Result<Option<BytesMut>> {
    let too_long = |_| {
        Error::new(
            ErrorKind::Unsupported,
            "a read of more than there is memory for",
        )
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
            let (s3, key, tag) = (s3.clone(), key.clone(), tag.clone());
            reading.spawn(async move {
                let start = span.start;
                let about =
                    fetch(&s3, &key, Wanted::Span(span), tag.as_deref(), &mut piece).await?;
                Ok::<_, Error>(about.map(|_| (start, piece)))
            });
            continue;
        }
        match reading.join_next().await {
            Some(Ok(Ok(Some(piece)))) => read.push(piece),
            Some(Ok(Ok(None))) => return Ok(None),
            Some(Ok(Err(error))) => return Err(error),
            Some(Err(stopped)) => return Err(stopped_error(stopped)),
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

pub(super) fn stopped_error(stopped: tokio::task::JoinError) -> Error {
    match stopped.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => {
            let what = "the runtime shut down during a request";
            Error::new(ErrorKind::Unavailable, what).with_source(error)
        }
    }
}

/// Appends what is wanted to `bytes`, in as many requests as it takes; none where the object is not the one that `tag` names, or was
/// replaced meanwhile.
async fn fetch(
    s3: &S3,
    key: &Key,
    wanted: Wanted,
    tag: Option<&str>,
    bytes: &mut BytesMut,
) -> Result<Option<About>> {
    let full = s3.full(key);
    let before = bytes.len();
    let mut tries = s3.begin(&GET, &full, 0);
    let mut about: Option<About> = None;
    loop {
        let (ask, pin) = match &about {
            None => (wanted.clone(), tag),
            Some(about) => {
                let got = (bytes.len() - before) as u64;
                (
                    Wanted::Span(about.range.start + got..about.range.end),
                    about.tag.as_deref(),
                )
            }
        };
        let (found, mut body) = match s3.attempt(&mut tries, get(s3, &full, &ask, pin)).await {
            Ok(Answer::Bytes(found, body)) => (found, body),
            Ok(Answer::Beyond(Some(size))) => return Ok(Some(beyond(size))),
            Ok(Answer::Beyond(None)) => return Ok(Some(beyond(size(s3, &full).await?))),
            Ok(Answer::Replaced) => return Ok(None),
            Err(fault) => {
                tries.again(fault).await?;
                continue;
            }
        };
        let len = (found.range.end - found.range.start) as usize;
        about.get_or_insert(found);
        let had = bytes.len();
        let Err(fault) = drain(s3, &mut body, bytes, len).await else {
            return Ok(about);
        };
        if about.as_ref().is_some_and(|about| about.tag.is_none()) {
            // The rest might be of another object.
            bytes.truncate(before);
            about = None;
        } else if bytes.len() > had {
            tries.progressed();
        }
        tries.again(fault).await?;
    }
}

fn beyond(size: u64) -> About {
    About {
        range: size..size,
        size,
        tag: None,
    }
}

/// The size of an object, from a server that does not say it where a range lies beyond the end.
async fn size(s3: &S3, full: &str) -> Result<u64> {
    let last = Wanted::Suffix(1);
    let ask = || get(s3, full, &last, None);
    match s3.call(&GET, full, 0, ask).await? {
        Answer::Bytes(about, _) => Ok(about.size),
        Answer::Beyond(size) => Ok(size.unwrap_or(0)),
        Answer::Replaced => Ok(0),
    }
}

/// What the object is encrypted with, as the server says where it is read.
pub(super) async fn encryption(s3: &S3, full: &str) -> Result<Option<ServerSideEncryption>> {
    let get = || async {
        let get = s3
            .client()
            .get_object()
            .bucket(&s3.settings().bucket)
            .key(full)
            .range("bytes=-1");
        match unlogged(get.send()).await {
            Ok(answer) => Ok(answer.server_side_encryption),
            Err(error) => Err(fault(&GET, &error)),
        }
    };
    s3.call(&GET, full, 0, get).await
}

/// One request.
async fn get(s3: &S3, full: &str, wanted: &Wanted, tag: Option<&str>) -> Attempt<Answer> {
    let range = match wanted {
        Wanted::All => None,
        Wanted::Suffix(len) => Some(format!("bytes=-{len}")),
        Wanted::Span(span) => Some(format!("bytes={}-{}", span.start, span.end - 1)),
    };
    let get = s3
        .client()
        .get_object()
        .bucket(&s3.settings().bucket)
        .key(full)
        .set_range(range)
        .set_if_match(tag.map(str::to_owned));
    let error = match unlogged(get.send()).await {
        Ok(answer) => {
            let about = about(&answer, wanted)?;
            return Ok(Answer::Bytes(about, answer.body));
        }
        Err(error) => error,
    };
    match (Refusal::of(&error), wanted) {
        (Some(refusal), _) if refusal.status == 412 && tag.is_some() => Ok(Answer::Replaced),
        // A last byte that is not there is missing from an empty object only.
        (Some(refusal), Wanted::Suffix(_)) if refusal.status == 416 => Ok(Answer::Beyond(Some(0))),
        (Some(refusal), _) if refusal.status == 416 => Ok(Answer::Beyond(refusal.size)),
        _ => Err(fault(&GET, &error)),
    }
}

/// What the answer holds, which must be what was asked for.
fn about(answer: &GetObjectOutput, wanted: &Wanted) -> Attempt<About> {
    let len = answer
        .content_length()
        .and_then(|len| u64::try_from(len).ok());
    let (range, size) = match answer.content_range() {
        Some(text) => content_range(text).ok_or_else(|| odd("a range that cannot be read"))?,
        None => {
            let size = len.ok_or_else(|| odd("an object without its length"))?;
            (0..size, size)
        }
    };
    let expected = match wanted {
        Wanted::All => 0..size,
        Wanted::Suffix(len) => size.saturating_sub(*len)..size,
        Wanted::Span(span) => span.start..span.end.min(size),
    };
    if range != expected || len.is_some_and(|len| len != range.end - range.start) {
        return Err(odd("another range than the one that was asked for"));
    }
    Ok(About {
        range,
        size,
        tag: answer.e_tag().map(str::to_owned),
    })
}

/// `bytes 0-99/1234`.
fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, size) = (
        first.parse().ok()?,
        last.parse::<u64>().ok()?,
        size.parse().ok()?,
    );
    let end = last.checked_add(1)?;
    (first < end && end <= size).then_some((first..end, size))
}

/// A proxy may have answered: another may do better.
fn odd(what: &str) -> Fault {
    let what = format!("GetObject was answered with {what}");
    Fault::unclear(Error::new(ErrorKind::Unavailable, what))
}

/// Reads a body of `len` bytes to its end, as long as it goes on.
async fn drain(s3: &S3, body: &mut ByteStream, bytes: &mut BytesMut, len: usize) -> Attempt<()> {
    let stall = s3.settings().retry.stall;
    let end = bytes.len() + len;
    let broken = |what: String| Fault::unclear(Error::new(ErrorKind::Unavailable, what));
    while bytes.len() < end {
        let chunk = match tokio::time::timeout(stall, body.try_next()).await {
            Ok(Ok(Some(chunk))) => chunk,
            Ok(Ok(None)) => return Err(broken("the answer to GetObject ends too early".into())),
            Ok(Err(error)) => {
                return Err(broken(format!(
                    "the answer to GetObject broke off: {}",
                    innermost(&error)
                )));
            }
            Err(_) => {
                let what = format!("the answer to GetObject stood still for {stall:?}");
                return Err(Fault::unclear(Error::new(ErrorKind::Timeout, what)));
            }
        };
        if chunk.len() > end - bytes.len() {
            return Err(broken(
                "the answer to GetObject is longer than it says".into(),
            ));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_makes_no_sense_is_not_believed() {
        assert_eq!(content_range("bytes 0-99/1234"), Some((0..100, 1234)));
        for bad in [
            "",
            "bytes */10",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes 0-18446744073709551615/10",
            "items 0-1/2",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }

    #[test]
    fn another_range_than_the_one_that_was_asked_for_is_refused() {
        let answer = |range: Option<&str>, len| {
            GetObjectOutput::builder()
                .set_content_range(range.map(str::to_owned))
                .content_length(len)
                .build()
        };
        let right = answer(Some("bytes 10-19/100"), 10);
        about(&right, &Wanted::Span(10..20)).expect("as asked");
        about(&right, &Wanted::Span(10..21)).expect_err("too short");
        about(&right, &Wanted::Span(9..20)).expect_err("another start");
        about(&right, &Wanted::Suffix(10)).expect_err("not the end");
        about(&answer(Some("bytes 10-19/20"), 10), &Wanted::Suffix(10)).expect("the end");
        about(&answer(Some("bytes 10-19/20"), 9), &Wanted::Suffix(10)).expect_err("a wrong length");
        about(&answer(None, 100), &Wanted::Suffix(10)).expect_err("ranges are ignored");
        about(&answer(None, 5), &Wanted::Suffix(10)).expect("the whole is shorter");
    }
}
