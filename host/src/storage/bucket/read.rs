//! Parts of an object: ranged GETs, resumed where the stream broke, several at once where there is
//! much to read.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::stopped_error;
use crate::storage::retry::{Attempt, AttemptError, RetryDecision, RetryLoop};
use crate::storage::{Error, ErrorKind, Part, ReadRange, Result};

/// An object that ranges are asked of. Clones share its connections.
pub(in crate::storage) trait Source: Clone + Send + Sync + 'static {
    type Body: Body;

    /// The call that asks for a range, as the manual of the server names it.
    const CALL: &'static str;

    /// Begins such a call.
    fn begin(&self) -> RetryLoop<'_>;

    /// Asks once. With a `tag`, of the object that it names, or of none.
    fn ask(
        &self,
        tries: &mut RetryLoop<'_>,
        wanted: &Wanted,
        tag: Option<&str>,
    ) -> impl Future<Output = Attempt<Answer<Self::Body>>> + Send;
}

/// The bytes of an answer, as they come.
pub(in crate::storage) trait Body: Send {
    /// The next of them; none at the end.
    ///
    /// # Errors
    /// Why no more came, in words.
    fn next(&mut self) -> impl Future<Output = std::result::Result<Option<Bytes>, String>> + Send;
}

/// Number of bytes that are read in one request, and number of these requests that are under way
/// for one read.
const PIECE: u64 = 8 << 20;
const AT_ONCE: usize = 4;

/// A suffix as long as this is the whole object. Servers keep lengths in signed numbers.
const WHOLE: u64 = 1 << 53;

/// How often a read begins anew because the object was replaced under it.
const MAX_RESTARTS: usize = 5;

/// Range that a request asks for; never empty, as HTTP cannot express an empty range.
#[derive(Clone, Debug)]
pub(in crate::storage) enum Wanted {
    All,
    Suffix(u64),
    Span(Range<u64>),
}

impl Wanted {
    /// Returns whether an object of `size` bytes has some of what is asked for.
    fn begins_below(&self, size: u64) -> bool {
        match self {
            Self::All | Self::Suffix(_) => size > 0,
            Self::Span(span) => span.start < size,
        }
    }

    /// The value of the header `Range`, where one is needed.
    pub(in crate::storage) fn header(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Suffix(len) => Some(format!("bytes=-{len}")),
            Self::Span(span) => Some(format!("bytes={}-{}", span.start, span.end - 1)),
        }
    }
}

/// Information about an object from the first answer.
#[derive(Clone, Debug)]
pub(in crate::storage) struct About {
    /// Range of the bytes that were asked for.
    range: Range<u64>,
    size: u64,
    /// Which object it is, where the server says.
    tag: Option<String>,
}

/// Answer to a GET.
pub(in crate::storage) enum Answer<B> {
    Bytes(About, B),
    /// The object ends before what was asked for; its size, where the server says.
    Beyond(Option<u64>),
    /// It is not the object any more that was asked for.
    Replaced,
}

impl<B> Answer<B> {
    /// Returns the meaning of a refusal with `status`, and with the `size` of the object where the
    /// refusal gives one.
    pub(in crate::storage) fn refused(
        status: u16,
        size: Option<u64>,
        wanted: &Wanted,
        tag: Option<&str>,
    ) -> Option<Self> {
        match (status, wanted) {
            (412, _) if tag.is_some() => Some(Self::Replaced),
            (416, Wanted::Suffix(_) | Wanted::Span(_)) => Some(Self::Beyond(size)),
            _ => None,
        }
    }
}

impl About {
    /// From the headers `Content-Range` and `Content-Length` of an answer, which must hold what was
    /// asked for.
    pub(in crate::storage) fn new(
        call: &str,
        wanted: &Wanted,
        range: Option<&str>,
        len: Option<u64>,
        tag: Option<String>,
    ) -> Attempt<Self> {
        let (range, size) = match range {
            Some(text) => content_range(text).ok_or_else(|| odd(call, "an invalid range"))?,
            None => {
                let size = len.ok_or_else(|| odd(call, "an object without a length"))?;
                (0..size, size)
            }
        };
        let expected = match wanted {
            Wanted::All => 0..size,
            Wanted::Suffix(len) => size.saturating_sub(*len)..size,
            Wanted::Span(span) => span.start..span.end.min(size),
        };
        if range != expected || len.is_some_and(|len| len != range.end - range.start) {
            return Err(odd(call, "a range that was not requested"));
        }
        Ok(Self { range, size, tag })
    }

    /// Returns true if it is the object that `tag` names. Some servers do not honour the condition.
    fn is(&self, tag: Option<&str>) -> bool {
        tag.is_none() || self.tag.as_deref() == tag
    }

    fn beyond(size: u64) -> Self {
        Self {
            range: size..size,
            size,
            tag: None,
        }
    }
}

/// `bytes 0-99/1234`.
fn content_range(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let first = first.parse().ok()?;
    let last = last.parse::<u64>().ok()?;
    let size = size.parse().ok()?;
    let end = last.checked_add(1)?;
    (first < end && end <= size).then_some((first..end, size))
}

/// A proxy may have answered: another may do better.
fn odd(call: &str, what: &str) -> AttemptError {
    let what = format!("{call} returned {what}");
    AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
}

/// Reads `range` of the object.
pub(in crate::storage) async fn read(source: &impl Source, range: ReadRange) -> Result<Part> {
    for _ in 0..MAX_RESTARTS {
        let part = match range.clone() {
            ReadRange::Suffix(len) => suffix(source, len).await?,
            ReadRange::Bounded(span) => bounded(source, span).await?,
        };
        if let Some(part) = part {
            return Ok(part);
        }
    }
    let what = "the object was replaced during every read";
    Err(Error::new(ErrorKind::Unavailable, what))
}

async fn suffix(source: &impl Source, len: u64) -> Result<Option<Part>> {
    let wanted = match len {
        WHOLE.. => Wanted::All,
        len => Wanted::Suffix(len.max(1)),
    };
    let mut bytes = BytesMut::new();
    let Some(about) = fetch(source, wanted, None, &mut bytes).await? else {
        return Ok(None);
    };
    Ok(Some(match len {
        0 => nothing(about.size, about.size),
        _ => part(bytes, about.range.start, about.size),
    }))
}

async fn bounded(source: &impl Source, span: Range<u64>) -> Result<Option<Part>> {
    let most = span.start.saturating_add(PIECE);
    let first = span.start..span.end.clamp(span.start + 1, most);
    let mut bytes = BytesMut::new();
    let Some(about) = fetch(source, Wanted::Span(first), None, &mut bytes).await? else {
        return Ok(None);
    };
    let rest = about.range.end..span.end.min(about.size);
    if span.is_empty() || bytes.is_empty() {
        return Ok(Some(nothing(span.start, about.size)));
    }
    if !rest.is_empty() {
        match pieces(source, rest, about.tag, &bytes).await? {
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

/// `head`, and `rest` of the object that `tag` names, read into one buffer by several requests at
/// once.
async fn pieces<S: Source>(
    source: &S,
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
            let source = source.clone();
            let tag = tag.clone();
            reading.spawn(async move {
                let start = span.start;
                let wanted = Wanted::Span(span);
                let about = fetch(&source, wanted, tag.as_deref(), &mut piece).await?;
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

/// Appends what is wanted to `bytes`, in as many requests as it takes; none where the object is not
/// the one that `tag` names, or was replaced meanwhile.
async fn fetch<S: Source>(
    source: &S,
    wanted: Wanted,
    tag: Option<&str>,
    bytes: &mut BytesMut,
) -> Result<Option<About>> {
    let before = bytes.len();
    let mut tries = source.begin();
    let mut about: Option<About> = None;
    loop {
        let (ask, pin) = match &about {
            None => (wanted.clone(), tag),
            Some(about) => {
                let got = (bytes.len() - before) as u64;
                let rest = about.range.start + got..about.range.end;
                (Wanted::Span(rest), about.tag.as_deref())
            }
        };
        let (found, mut body) = match source.ask(&mut tries, &ask, pin).await {
            Ok(Answer::Bytes(found, body)) if found.is(pin) => (found, body),
            Ok(Answer::Bytes(..) | Answer::Replaced) => return Ok(None),
            Ok(Answer::Beyond(said)) => {
                let size = match said {
                    Some(size) => size,
                    None => size(source).await?,
                };
                // A range of what is there was refused: that is no sign of damage.
                if ask.begins_below(size) {
                    let what = format!("{} of an existing range was refused: status 416", S::CALL);
                    let error = Error::new(ErrorKind::Unavailable, what);
                    tries
                        .again(AttemptError::new(RetryDecision::Stop, error))
                        .await?;
                    continue;
                }
                return Ok(Some(About::beyond(size)));
            }
            Err(fault) => {
                tries.again(fault).await?;
                continue;
            }
        };
        let len = (found.range.end - found.range.start) as usize;
        about.get_or_insert(found);
        let had = bytes.len();
        let Err(fault) = drain::<S>(&tries, &mut body, bytes, len).await else {
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

/// The size of an object, from a server that does not say it where a range lies beyond the end.
async fn size(source: &impl Source) -> Result<u64> {
    let mut tries = source.begin();
    loop {
        match source.ask(&mut tries, &Wanted::All, None).await {
            Ok(Answer::Bytes(about, _)) => return Ok(about.size),
            Ok(Answer::Beyond(size)) => return Ok(size.unwrap_or(0)),
            Ok(Answer::Replaced) => return Ok(0),
            Err(fault) => tries.again(fault).await?,
        }
    }
}

/// Reads a body of `len` bytes to its end, as long as it goes on.
async fn drain<S: Source>(
    tries: &RetryLoop<'_>,
    body: &mut S::Body,
    bytes: &mut BytesMut,
    len: usize,
) -> Attempt<()> {
    let stall = tries.stall();
    let end = bytes.len() + len;
    let broken = |kind, why: &str| {
        let what = format!("the response to {} {why}", S::CALL);
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
        let about = |range: Option<&str>, len, wanted: Wanted| {
            About::new("GET", &wanted, range, Some(len), None).map(|about| about.size)
        };
        let right = Some("bytes 10-19/100");
        let end = Some("bytes 10-19/20");
        assert_eq!(about(right, 10, Wanted::Span(10..20)).ok(), Some(100));
        about(right, 10, Wanted::Span(10..21)).expect_err("too short");
        about(right, 10, Wanted::Span(9..20)).expect_err("another start");
        about(right, 10, Wanted::Suffix(10)).expect_err("not the end");
        assert_eq!(about(end, 10, Wanted::Suffix(10)).ok(), Some(20));
        about(end, 9, Wanted::Suffix(10)).expect_err("a wrong length");
        about(None, 100, Wanted::Suffix(10)).expect_err("ranges are ignored");
        assert_eq!(about(None, 5, Wanted::Suffix(10)).ok(), Some(5), "shorter");
    }
}
