//! Medians of things that take turns.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Runs `work` and tells how long it took.
pub(crate) fn time<T>(work: impl FnOnce() -> Result<T>) -> Result<(Duration, T)> {
    let started = Instant::now();
    let result = work()?;
    Ok((started.elapsed(), result))
}

/// The middle one.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How often `ours` fits into `theirs`.
pub(crate) fn ratio(theirs: Duration, ours: Duration) -> f64 {
    theirs.as_secs_f64() / ours.as_secs_f64()
}

/// Milliseconds with three digits that mean something.
pub(crate) fn millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1e3;
    match millis {
        ..10.0 => format!("{millis:.2}"),
        ..100.0 => format!("{millis:.1}"),
        _ => format!("{millis:.0}"),
    }
}

pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        ..0x10_0000 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_not_moved_by_one_slow_turn() {
        let mut times = [3, 900, 1, 2, 4].map(Duration::from_millis);
        assert_eq!(median(&mut times), Duration::from_millis(3));
    }
}
