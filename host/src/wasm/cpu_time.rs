//! Measures the CPU time of a guest's own code. Time in the host does not count, nor does time in
//! which the thread waited for a processor.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How often a guest is interrupted to look at its time: what a runaway guest gets over its limit.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// The CPU time of one run.
#[derive(Debug)]
pub(super) struct Meter {
    limit: Duration,
    used: Duration,
    /// This thread's CPU time when the guest's code began to run; none while the host runs. A guest
    /// changes threads only while the host runs.
    entered: Option<Duration>,
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
        self.entered = Some(thread_time());
    }

    pub(super) fn leave_guest(&mut self) {
        if let Some(entered) = self.entered.take() {
            self.used += thread_time().saturating_sub(entered);
        }
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.used > self.limit
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(time.tv_sec.unsigned_abs(), nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_guests_own_work_counts() {
        let work = || (0..20_000_000_u64).fold(0, |sum, n| std::hint::black_box(sum ^ n));
        let mut meter = Meter::new(Duration::ZERO);
        work();
        assert!(!meter.is_used_up(), "work of the host");
        meter.limit = Duration::from_millis(15);
        meter.enter_guest();
        std::thread::sleep(Duration::from_millis(30));
        meter.leave_guest();
        assert!(!meter.is_used_up(), "time in which nothing ran");
        meter.limit = Duration::from_micros(1);
        meter.enter_guest();
        work();
        meter.leave_guest();
        assert!(meter.is_used_up());
    }
}
