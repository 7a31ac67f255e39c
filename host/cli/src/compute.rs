//! Long computations, such as comparisons, off the threads of the async runtime.

use std::num::NonZero;
use std::sync::LazyLock;
use std::thread;

use anyhow::Result;
use tokio::sync::Semaphore;

static SLOTS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(slots()));

/// Returns the number of computations at a time. It leaves one processor for other work.
fn slots() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZero::get);
    processors.saturating_sub(1).max(1)
}

/// Runs `work` on a thread for blocking work, after the computations that came before it.
pub(crate) async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    let slot = SLOTS.acquire().await?;
    let computed = tokio::task::spawn_blocking(move || {
        let result = work();
        // The work goes on if its caller goes away, and keeps its slot until here.
        drop(slot);
        result
    });
    Ok(computed.await?)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn computations_at_a_time_are_limited() {
        static ACTIVE: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        let work = || {
            let active = ACTIVE.fetch_add(1, Ordering::SeqCst) + 1;
            MOST.fetch_max(active, Ordering::SeqCst);
            thread::sleep(Duration::from_millis(20));
            ACTIVE.fetch_sub(1, Ordering::SeqCst);
        };
        let tasks: Vec<_> = (0..slots() + 3)
            .map(|_| tokio::spawn(compute(work)))
            .collect();
        for task in tasks {
            task.await.expect("no panic").expect("computed");
        }
        assert!(MOST.load(Ordering::SeqCst) <= slots());
    }
}
