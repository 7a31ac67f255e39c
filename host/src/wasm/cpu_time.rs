//! Measures the CPU time of a guest's own code. Time in the host does not count, nor does time in
//! which the thread waited for a processor.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How often a guest is interrupted to look at its time: what a runaway guest gets over its limit.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Length from which a stretch of the guest's code is measured by the thread's CPU time. That is a
/// system call, and a guest that saves some bytes would make a dozen.
const LONG: Duration = Duration::from_millis(1);

/// The CPU time of one run.
///
/// A stretch between two calls of the host counts with the time of the clock, but no more than a
/// tick: it cannot be longer unless the thread waited for a processor. After a long one, the next
/// counts with the CPU time of its thread. So of a guest that computes for long, only the first
/// stretch may count with time in which it waited.
#[derive(Debug)]
pub(super) struct Meter {
    limit: Duration,
    used: Duration,
    /// When the guest's code began to run; none while the host runs. A guest changes threads only
    /// while the host runs.
    entered: Option<Entered>,
    last_was_long: bool,
}

#[derive(Clone, Copy, Debug)]
enum Entered {
    Clock(Instant),
    /// The thread's CPU time.
    Cpu(Duration),
}

impl Meter {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            used: Duration::ZERO,
            entered: None,
            last_was_long: false,
        }
    }

    pub(super) fn enter_guest(&mut self) {
        self.entered = Some(if self.last_was_long {
            Entered::Cpu(thread_time())
        } else {
            Entered::Clock(Instant::now())
        });
    }

    pub(super) fn leave_guest(&mut self) {
        let used = match self.entered.take() {
            Some(Entered::Clock(entered)) => entered.elapsed().min(TICK),
            Some(Entered::Cpu(entered)) => thread_time().saturating_sub(entered),
            None => return,
        };
        self.used += used;
        self.last_was_long = used >= LONG;
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

    #[test]
    fn after_a_long_stretch_no_wait_for_a_processor_counts() {
        let wait = |meter: &mut Meter| {
            meter.enter_guest();
            std::thread::sleep(Duration::from_millis(15));
            meter.leave_guest();
        };
        let mut meter = Meter::new(TICK + TICK / 2);
        for _ in 0..5 {
            wait(&mut meter);
        }
        // The first, and each that came after one in which nothing was computed.
        let counted = meter.used;
        assert!(counted <= 3 * TICK + TICK / 2, "{counted:?}");
    }

    #[test]
    fn short_stretches_add_up() {
        let mut meter = Meter::new(Duration::from_millis(2));
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(20) {
            meter.enter_guest();
            let from = Instant::now();
            while from.elapsed() < Duration::from_micros(100) {}
            meter.leave_guest();
        }
        assert!(meter.is_used_up());
    }
}
