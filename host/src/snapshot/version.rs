//! Version numbers and the last segment of their keys.

/// The version of a name: 1 for its first save, one more for every later change.
pub type Version = u64;

/// The highest version there can be.
pub const MAX_VERSION: Version = 9_999_999_999;

/// How the files of this store end.
pub(crate) const SUFFIX: &str = ".gz";

/// The last segment of a version's key. The newest sorts first, so that the head is the first key
/// of a list, however long the history is.
pub(crate) fn segment(version: Version) -> String {
    debug_assert!((1..=MAX_VERSION).contains(&version));
    format!("{:010}-{version:010}{SUFFIX}", MAX_VERSION - version)
}

/// The version whose key ends in `segment`; none for anything that is not exactly such a segment.
pub(crate) fn parse(segment: &str) -> Option<Version> {
    let (_, version) = segment.strip_suffix(SUFFIX)?.split_once('-')?;
    let version = version
        .parse()
        .ok()
        .filter(|v| (1..=MAX_VERSION).contains(v))?;
    (self::segment(version) == segment).then_some(version)
}

/// How the segment of a pin begins: it sorts after every version.
pub(crate) const PIN: &str = "pin-";

/// The last segment of the key of a version's pin.
pub(crate) fn pin_segment(version: Version) -> String {
    format!("{PIN}{version}")
}

/// The version whose pin's key ends in `segment`.
pub(crate) fn parse_pin(segment: &str) -> Option<Version> {
    let version = segment.strip_prefix(PIN)?.parse().ok()?;
    ((1..=MAX_VERSION).contains(&version) && pin_segment(version) == segment).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_sorts_first() {
        assert_eq!(segment(42), "9999999957-0000000042.gz");
        assert!(segment(43) < segment(42));
        assert!(segment(MAX_VERSION) < segment(1));
    }

    #[test]
    fn only_the_exact_segment_is_a_version() {
        assert_eq!(parse("9999999957-0000000042.gz"), Some(42));
        for other in [
            "",
            "pin-42",
            "9999999957-0000000042",
            "9999999957-0000000042.gz2",
            "9999999957-42.gz",
            "9999999956-0000000042.gz",
            "9999999999-0000000000.gz",
            "9999999957-+000000042.gz",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_exact_segment_is_a_pin() {
        assert_eq!(parse_pin(&pin_segment(42)), Some(42));
        for other in [
            "pin-",
            "pin-0",
            "pin-042",
            "pin-+42",
            "pin-10000000000",
            "42",
        ] {
            assert_eq!(parse_pin(other), None, "{other}");
        }
    }
}
