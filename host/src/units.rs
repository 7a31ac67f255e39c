//! One grammar for durations and one for sizes: in limits, settings and options of the command.

use std::time::Duration;

/// The units of a size, without the plain byte.
pub(crate) const SIZE_UNITS: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A text that is not a duration or not a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseUnitError {
    /// The text is not a duration.
    #[error("not a duration such as 90s, 12h or 30d")]
    Duration,
    /// The text is not a size.
    #[error("not a whole number of bytes, or one with KiB, MiB, GiB or TiB")]
    Size,
}

/// Parses a duration, such as `500ms`, `5 min`, `1d` or `1h 30m`.
///
/// # Errors
/// [`ParseUnitError::Duration`].
///
/// ```
/// use std::time::Duration;
/// use persist_host::units::parse_duration;
///
/// assert_eq!(parse_duration("1d")?, Duration::from_secs(24 * 60 * 60));
/// assert!(parse_duration("90").is_err());
/// # Ok::<(), persist_host::units::ParseUnitError>(())
/// ```
pub fn parse_duration(text: &str) -> Result<Duration, ParseUnitError> {
    humantime::parse_duration(text).map_err(|_| ParseUnitError::Duration)
}

/// Parses a size in bytes, such as `4096`, `200 B` or `64 MiB`.
///
/// # Errors
/// [`ParseUnitError::Size`].
///
/// ```
/// use persist_host::units::parse_size;
///
/// assert_eq!(parse_size("64 MiB")?, 64 << 20);
/// assert!(parse_size("64M").is_err());
/// # Ok::<(), persist_host::units::ParseUnitError>(())
/// ```
pub fn parse_size(text: &str) -> Result<u64, ParseUnitError> {
    exact_size(text).ok_or(ParseUnitError::Size)
}

/// Parses a size without rounding. The crate `bytesize` computes in floating point, caps what does
/// not fit, and reads `+1` and `64M`, which is 64,000,000 there.
fn exact_size(text: &str) -> Option<u64> {
    let mut units = SIZE_UNITS.iter().copied().chain([("B", 1), ("", 1)]);
    let (unit, factor) = units.find(|(unit, _)| text.ends_with(unit))?;
    let digits = text.strip_suffix(unit)?.trim_end();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_units_of_limits_and_of_retention() {
        for (text, millis) in [
            ("0s", 0),
            ("500ms", 500),
            ("1500 ms", 1500),
            ("30 s", 30_000),
            ("5 min", 300_000),
            ("2h", 7_200_000),
            ("1d", 86_400_000),
            ("1h 30m", 5_400_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "3", "-1s", "s", "soon", "99999999999999999999s"] {
            assert_eq!(
                parse_duration(text),
                Err(ParseUnitError::Duration),
                "{text}"
            );
        }
    }

    #[test]
    fn sizes_are_exact() {
        for (text, bytes) in [
            ("0", 0),
            ("4097", 4097),
            ("200 B", 200),
            ("7KiB", 7 << 10),
            ("3  TiB", 3 << 40),
            ("9007199254740993 B", 9_007_199_254_740_993),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "+1",
            "-1",
            "1.5 KiB",
            "64M",
            "MiB",
            "99999999 TiB",
            " 1",
        ] {
            assert_eq!(parse_size(text), Err(ParseUnitError::Size), "{text}");
        }
    }
}
