//! Counters: values that are incremented.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Bucket, BucketError};
use crate::guest::GuestError;
use crate::random;
use crate::snapshot::{Expect, SaveOptions};

/// Attempts of one increment. Each attempt that fails means that another change was made.
const MAX_ATTEMPTS: u32 = 64;

/// Longest wait after an attempt that failed, in milliseconds.
const MAX_WAIT: u64 = 64;

/// Longest number, with its sign: that of `i64::MIN` and of `u64::MAX`.
const MAX_DIGITS: usize = 20;

type Result<T> = std::result::Result<T, BucketError>;

impl Bucket {
    /// Adds `delta` to the counter `key`, and returns the new value. A key without a value counts
    /// as 0. The value is decimal text, such as `42`.
    ///
    /// Increments by any number of guests and hosts at the same time are all counted: each is a
    /// compare-and-swap that is repeated after a conflict.
    ///
    /// # Errors
    /// [`BucketError::Other`] if the value is not a decimal number or the new value does not fit,
    /// and nothing is changed; [`BucketError`].
    pub async fn increment_u64(&self, key: &str, delta: u64) -> Result<u64> {
        let range = 0..=i128::from(u64::MAX);
        let value = self.increment(key, delta.into(), range).await?;
        u64::try_from(value).map_err(|error| BucketError::other(error.to_string()))
    }

    /// Adds `delta`, which may be negative, to a counter as [`Bucket::increment_u64`] does.
    ///
    /// # Errors
    /// Errors of [`Bucket::increment_u64`].
    pub async fn increment_i64(&self, key: &str, delta: i64) -> Result<i64> {
        let range = i64::MIN.into()..=i64::MAX.into();
        let value = self.increment(key, delta.into(), range).await?;
        i64::try_from(value).map_err(|error| BucketError::other(error.to_string()))
    }

    async fn increment(&self, key: &str, delta: i128, range: RangeInclusive<i128>) -> Result<i128> {
        let name = self.name_of(key)?;
        let guest = self.guest();
        for attempt in 0..MAX_ATTEMPTS {
            let found = guest.load(&name, None).await;
            let (value, expect) = match found.map_err(|error| self.error(error))? {
                Some(snapshot) => (
                    parse(&snapshot.state, &range)?,
                    Expect::Version(snapshot.info.version),
                ),
                None => (0, Expect::Absent),
            };
            let value = value + delta;
            if !range.contains(&value) {
                return Err(BucketError::other(format!(
                    "the counter would become {value}; it holds {} to {}",
                    range.start(),
                    range.end()
                )));
            }
            let options = SaveOptions::expecting(expect);
            match guest.save(&name, value.to_string().into(), options).await {
                Ok(_) => return Ok(value),
                Err(GuestError::Conflict { .. }) => wait(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(BucketError::other(format!(
            "conflict: other writers changed the counter during {MAX_ATTEMPTS} attempts; try again"
        )))
    }
}

/// Waits for a random time, so that guests that were in conflict are not in conflict again.
async fn wait(attempt: u32) {
    let longest = MAX_WAIT.min(1 << attempt.min(16));
    let wait = random::u128() % u128::from(longest);
    tokio::time::sleep(Duration::from_millis(wait as u64)).await;
}

/// Reads decimal text: digits, after a `-` if the number is negative.
fn parse(value: &[u8], range: &RangeInclusive<i128>) -> Result<i128> {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let is_decimal = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(value).ok();
    let number = number.filter(|_| is_decimal && value.len() <= MAX_DIGITS);
    let number = number.and_then(|text| text.parse().ok());
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            BucketError::other(format!(
                "the value is not a counter: it must be decimal text, such as 42, from {} to {}",
                range.start(),
                range.end()
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_decimal_text_and_nothing_else() {
        let range = -9..=i128::from(u64::MAX);
        for (text, number) in [("0", 0), ("-0", 0), ("42", 42), ("-9", -9), ("007", 7)] {
            assert_eq!(parse(text.as_bytes(), &range), Ok(number), "{text}");
        }
        let most = u64::MAX.to_string();
        assert_eq!(parse(most.as_bytes(), &range), Ok(u64::MAX.into()));
        for value in [
            &b""[..],
            b"-",
            b"+1",
            b" 1",
            b"1\n",
            b"1.0",
            b"0x1",
            b"--1",
            b"-10",
            b"18446744073709551616",
            b"000000000000000000001",
            &[5, 0, 0, 0, 0, 0, 0, 0],
            "٣".as_bytes(),
        ] {
            let error = parse(value, &range).expect_err("refused").to_string();
            assert!(error.contains("decimal text"), "{value:?}: {error}");
        }
    }
}
