//! How long a guest's own code has run. Time in the host does not count.

use std::time::{Duration, Instant};

/// How often a guest is interrupted to look at the time: the error of the meter, and what a runaway guest
/// gets over its limit.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The CPU time of one run.
#[derive(Debug)]
pub(super) struct Meter {
    limit: Duration,
    used: Duration,
    /// When the guest's code began to run; none while the host runs.
    entered: Option<Instant>,
}

impl Meter {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            used: Duration::ZERO,
            entered: None,
        }
    }

    pub(super) fn enter_guest(&mut self) {
        self.entered = Some(Instant::now());
    }

    pub(super) fn leave_guest(&mut self) {
        if let Some(entered) = self.entered.take() {
            // A guest is interrupted every tick: if more time has passed, it was this thread that waited
            // for a processor, and another program that used it.
            self.used += entered.elapsed().min(2 * TICK);
        }
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.used > self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_the_host_does_not_count() {
        let mut meter = Meter::new(Duration::from_nanos(1));
        std::thread::sleep(Duration::from_millis(2));
        assert!(!meter.is_used_up());
        meter.enter_guest();
        std::thread::sleep(Duration::from_millis(2));
        meter.leave_guest();
        assert!(meter.is_used_up());
    }
}
