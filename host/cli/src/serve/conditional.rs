//! Conditional requests and ranges (RFC 9110). The entity tag of a state is its version.

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use persist_host::snapshot::{Expect, Scope, Version};

use super::problem::{Problem, Result};

/// Entity tags of a header.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    List(Vec<Tag>),
}

impl Tags {
    /// Returns the version of a list of one strong tag.
    fn only(&self) -> Option<Version> {
        match self {
            Self::List(list) => match list.as_slice() {
                [tag] if !tag.weak => tag.version,
                _ => None,
            },
            Self::Any => None,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    version: Option<Version>,
}

/// Returns the entity tag of a version.
pub(super) fn etag(version: Version) -> String {
    format!("\"{version}\"")
}

/// Reads all lines of a header as one list.
fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>> {
    let lines: Vec<_> = headers.get_all(name).iter().collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let lines = lines.iter().map(|line| line.to_str());
    let lines: Vec<_> = lines
        .collect::<std::result::Result<_, _>>()
        .map_err(|_| Problem::usage(format!("the header {name} is not text")))?;
    Ok(Some(lines.join(", ")))
}

fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Tags>> {
    let Some(text) = text(headers, &name)? else {
        return Ok(None);
    };
    if text.trim() == "*" {
        return Ok(Some(Tags::Any));
    }
    let mut list = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (weak, tag) = match rest.strip_prefix("W/") {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        let parts = tag.strip_prefix('"').and_then(|tag| tag.split_once('"'));
        let Some((tag, more)) = parts else {
            let what = format!("the header {name} is not a list of entity tags");
            return Err(Problem::usage(what).hint("write a version in quotes, such as \"7\""));
        };
        let is_plain = !tag.starts_with(['0', '+']);
        list.push(Tag {
            weak,
            version: tag.parse().ok().filter(|_| is_plain),
        });
        rest = more.trim_start().trim_start_matches(',').trim_start();
    }
    Ok(Some(Tags::List(list)))
}

/// Answer to a conditional read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    Proceed,
    NotModified,
}

/// Decides a conditional read of a version that is there.
pub(super) fn of_read(headers: &HeaderMap, version: Version, is_newest: bool) -> Result<Read> {
    match tags(headers, header::IF_MATCH)? {
        Some(Tags::List(list)) if !has_strong(&list, version) => {
            return Err(if is_newest {
                failed(Some(version))
            } else {
                let what = format!("conflict: the version that is read is {version}");
                Problem::new(StatusCode::PRECONDITION_FAILED, "conflict", what)
            });
        }
        _ => {}
    }
    let is_same = match tags(headers, header::IF_NONE_MATCH)? {
        None => false,
        Some(Tags::Any) => true,
        // Weak comparison, as RFC 9110 asks for here.
        Some(Tags::List(list)) => list.iter().any(|tag| tag.version == Some(version)),
    };
    Ok(if is_same {
        Read::NotModified
    } else {
        Read::Proceed
    })
}

/// Returns what a conditional change expects.
pub(super) async fn of_change(headers: &HeaderMap, scope: &Scope, name: &str) -> Result<Expect> {
    let if_match = tags(headers, header::IF_MATCH)?;
    let if_none_match = tags(headers, header::IF_NONE_MATCH)?;
    match (if_match, if_none_match) {
        (None, None) => Ok(Expect::Any),
        (None, Some(Tags::Any)) => Ok(Expect::Absent),
        (None, Some(Tags::List(_))) => {
            let what = "If-None-Match: a change takes only *";
            Err(Problem::usage(what).hint("use If-Match with the version that you read"))
        }
        (Some(_), Some(_)) => Err(Problem::usage(
            "If-Match and If-None-Match exclude each other",
        )),
        (Some(tags), None) => {
            if let Some(version) = tags.only() {
                return Ok(Expect::Version(version));
            }
            let newest = scope.stat(name, None).await?;
            let head = newest.as_ref().filter(|newest| !newest.deleted);
            match (tags, head.map(|head| head.version)) {
                (Tags::Any, Some(head)) => Ok(Expect::Version(head)),
                (Tags::List(list), Some(head)) if has_strong(&list, head) => {
                    Ok(Expect::Version(head))
                }
                _ => Err(failed(newest.map(|newest| newest.version))),
            }
        }
    }
}

fn has_strong(list: &[Tag], version: Version) -> bool {
    let mut strong = list.iter().filter(|tag| !tag.weak);
    strong.any(|tag| tag.version == Some(version))
}

/// Returns the error of a condition that does not hold.
fn failed(head: Option<Version>) -> Problem {
    let status = StatusCode::PRECONDITION_FAILED;
    let what = match head {
        Some(head) => format!("conflict: the newest version is {head}"),
        None => "conflict: nothing is saved under this name".into(),
    };
    let mut problem = Problem::new(status, "conflict", what);
    problem.more.insert("head".into(), serde_json::json!(head));
    problem.hint("load the newest version and try again")
}

/// Returns the bytes of a state that a request asks for, first and last; none for all. Several
/// ranges and other units are ignored, as RFC 9110 allows.
pub(super) fn range(
    headers: &HeaderMap,
    version: Version,
    size: u64,
) -> Result<Option<(u64, u64)>> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if headers.contains_key(header::IF_RANGE)
        && text(header::IF_RANGE) != Some(etag(version).as_str())
    {
        return Ok(None);
    }
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.trim().split_once('-')) else {
        return Ok(None);
    };
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Longer than any state, and still a number.
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = match (number(first), number(last)) {
        (Some(first), None) if last.is_empty() => (first, u64::MAX),
        (Some(first), Some(last)) if first <= last => (first, last),
        (None, Some(0)) if first.is_empty() => return Err(Problem::unsatisfiable(size)),
        (None, Some(suffix)) if first.is_empty() => (size.saturating_sub(suffix), u64::MAX),
        _ => return Ok(None),
    };
    if first < size {
        Ok(Some((first, last.min(size - 1))))
    } else {
        Err(Problem::unsatisfiable(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let lines = lines.iter();
        let lines = lines.map(|(name, value)| (name.clone(), value.parse().expect("a value")));
        lines.collect()
    }

    #[test]
    fn a_read_compares_entity_tags() {
        let read = |name, value| of_read(&headers(&[(name, value)]), 7, true);
        for same in ["\"7\"", "W/\"7\"", "*", "\"6\", \"7\""] {
            let answer = read(header::IF_NONE_MATCH, same).expect("valid");
            assert_eq!(answer, Read::NotModified, "{same}");
        }
        for other in ["\"6\"", "\"07\"", "\"+7\"", "\"x\""] {
            let answer = read(header::IF_NONE_MATCH, other).expect("valid");
            assert_eq!(answer, Read::Proceed, "{other}");
            assert!(read(header::IF_MATCH, other).is_err(), "{other}");
        }
        assert!(
            read(header::IF_MATCH, "W/\"7\"").is_err(),
            "strong comparison"
        );
        assert!(read(header::IF_MATCH, "\"7\"").is_ok());
        assert!(read(header::IF_MATCH, "7").is_err(), "no entity tag");
        for (is_newest, head) in [(true, Some(7)), (false, None)] {
            let other = of_read(&headers(&[(header::IF_MATCH, "\"6\"")]), 7, is_newest);
            let problem = other.expect_err("another version");
            let told = problem.more.get("head").and_then(serde_json::Value::as_u64);
            assert_eq!(told, head);
        }
    }

    #[test]
    fn a_range_lies_within_the_state() {
        let range = |text| range(&headers(&[(header::RANGE, text)]), 7, 10);
        let found = |text| range(text).expect("satisfiable");
        assert_eq!(found("bytes=0-3"), Some((0, 3)));
        assert_eq!(found("bytes=4-"), Some((4, 9)));
        assert_eq!(found("bytes=-3"), Some((7, 9)));
        assert_eq!(found("bytes=-30"), Some((0, 9)));
        assert_eq!(found("bytes=5-99999999999999999999999"), Some((5, 9)));
        for ignored in [
            "bytes=3-1",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=-",
            "bytes=x-1",
        ] {
            assert_eq!(found(ignored), None, "{ignored}");
        }
        for outside in ["bytes=10-", "bytes=99999999999999999999999-", "bytes=-0"] {
            assert!(range(outside).is_err(), "{outside}");
        }
    }

    #[test]
    fn a_range_of_another_version_is_ignored() {
        let of = |tag| {
            let lines = [(header::RANGE, "bytes=0-1"), (header::IF_RANGE, tag)];
            range(&headers(&lines), 7, 10).expect("satisfiable")
        };
        assert_eq!(of("\"7\""), Some((0, 1)));
        assert_eq!(of("\"6\""), None);
        assert_eq!(of("W/\"7\""), None);
    }
}
