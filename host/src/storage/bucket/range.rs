//! Ranges of objects: what is requested, and what a response has.

use std::ops::Range;

use super::error_response::foreign_response;
use crate::storage::retry::Attempt;

/// Response to a read.
#[derive(Debug)]
pub enum GetResponse<B> {
    /// The range, and where it lies in the object.
    Bytes(ObjectInfo, B),
    /// The object ends before the range: its size, if the server says.
    Beyond(Option<u64>),
    /// The object is not the one that the tag names.
    Replaced,
}

/// The object that a response is about.
#[derive(Clone, Debug)]
pub struct ObjectInfo {
    /// Range of the bytes that the response has.
    pub range: Range<u64>,
    /// Size of the object, in bytes.
    pub size: u64,
    /// Tag that changes when the object is replaced, if the server has one.
    pub tag: Option<String>,
}

/// A range of an object that is read in one request; never empty, as HTTP cannot express an empty
/// range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectRange {
    /// The whole object.
    All,
    /// The last bytes, this many, or the whole object where it is shorter.
    Suffix(u64),
    /// From `start` up to, not including, `end`; cut at the end of the object.
    Span(Range<u64>),
}

impl ObjectRange {
    /// Returns whether an object of `size` bytes has some of the range.
    pub(super) fn begins_below(&self, size: u64) -> bool {
        match self {
            Self::All | Self::Suffix(_) => size > 0,
            Self::Span(span) => span.start < size,
        }
    }

    /// Returns the value of the header `Range`, where one is needed.
    pub fn header(&self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Suffix(len) => Some(format!("bytes=-{len}")),
            Self::Span(span) => Some(format!("bytes={}-{}", span.start, span.end - 1)),
        }
    }

    /// Returns the bytes that the range has in an object of `size` bytes.
    pub fn of(&self, size: u64) -> Range<u64> {
        match self {
            Self::All => 0..size,
            Self::Suffix(len) => size.saturating_sub(*len)..size,
            Self::Span(span) => span.start..span.end.min(size),
        }
    }
}

impl<B> GetResponse<B> {
    /// Returns the meaning of a refusal with `status`, and with the `size` of the object where the
    /// refusal gives one; none where it is an error.
    pub fn refused(
        status: u16,
        size: Option<u64>,
        range: &ObjectRange,
        tag: Option<&str>,
    ) -> Option<Self> {
        match (status, range) {
            (412, _) if tag.is_some() => Some(Self::Replaced),
            (416, ObjectRange::Suffix(_) | ObjectRange::Span(_)) => Some(Self::Beyond(size)),
            _ => None,
        }
    }
}

impl ObjectInfo {
    /// Returns what the headers `Content-Range` and `Content-Length` of a response say, which must
    /// be about the range that was requested. `name` is that of the request.
    ///
    /// # Errors
    /// An unclear attempt where it is another range.
    pub fn from_headers(
        name: &str,
        requested: &ObjectRange,
        content_range: Option<&str>,
        content_length: Option<u64>,
        tag: Option<String>,
    ) -> Attempt<Self> {
        let foreign = |what| foreign_response(name, what);
        let (range, size) = match content_range {
            Some(text) => range_and_size(text).ok_or_else(|| foreign("has an invalid range"))?,
            None => {
                let size = content_length.ok_or_else(|| foreign("has no length"))?;
                (0..size, size)
            }
        };
        let len = range.end - range.start;
        if range != requested.of(size) || content_length.is_some_and(|said| said != len) {
            return Err(foreign("has a range that was not requested"));
        }
        Ok(Self { range, size, tag })
    }

    /// Returns true if it is the object that `tag` names. Some servers do not honour the condition.
    pub(super) fn is(&self, tag: Option<&str>) -> bool {
        tag.is_none() || self.tag.as_deref() == tag
    }

    pub(super) fn beyond(size: u64) -> Self {
        Self {
            range: size..size,
            size,
            tag: None,
        }
    }
}

/// `bytes 0-99/1234`. An empty object has no first byte: some servers (fake-gcs-server) say
/// `bytes 0--1/0`.
fn range_and_size(text: &str) -> Option<(Range<u64>, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let size = size.parse().ok()?;
    if size == 0 {
        return Some((0..0, 0));
    }
    let (first, last) = range.split_once('-')?;
    let first = first.parse().ok()?;
    let last = last.parse::<u64>().ok()?;
    let end = last.checked_add(1)?;
    (first < end && end <= size).then_some((first..end, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_makes_no_sense_is_not_believed() {
        assert_eq!(range_and_size("bytes 0-99/1234"), Some((0..100, 1234)));
        assert_eq!(range_and_size("bytes 0--1/0"), Some((0..0, 0)));
        for bad in [
            "",
            "bytes */10",
            "bytes 5-4/10",
            "bytes 0-10/10",
            "bytes 0-18446744073709551615/10",
            "items 0-1/2",
        ] {
            assert_eq!(range_and_size(bad), None, "{bad}");
        }
    }

    #[test]
    fn another_range_than_the_one_that_was_asked_for_is_refused() {
        let info = |range: Option<&str>, len, wanted: ObjectRange| {
            ObjectInfo::from_headers("GET", &wanted, range, Some(len), None).map(|info| info.size)
        };
        let right = Some("bytes 10-19/100");
        let end = Some("bytes 10-19/20");
        assert_eq!(info(right, 10, ObjectRange::Span(10..20)).ok(), Some(100));
        info(right, 10, ObjectRange::Span(10..21)).expect_err("too short");
        info(right, 10, ObjectRange::Span(9..20)).expect_err("another start");
        info(right, 10, ObjectRange::Suffix(10)).expect_err("not the end");
        assert_eq!(info(end, 10, ObjectRange::Suffix(10)).ok(), Some(20));
        info(end, 9, ObjectRange::Suffix(10)).expect_err("a wrong length");
        info(None, 100, ObjectRange::Suffix(10)).expect_err("ranges are ignored");
        assert_eq!(
            info(None, 5, ObjectRange::Suffix(10)).ok(),
            Some(5),
            "shorter"
        );
    }
}
