//! Moves CPU-bound work, such as compression and hashing, off the threads of the async runtime.

use super::Result;
use crate::storage::{ErrorKind, task};

/// Work on fewer bytes is done in place: handing it over would take longer.
const SMALL: u64 = 64 * 1024;

/// Runs `work`, which processes `bytes` bytes, on a thread for CPU-bound work.
pub(crate) async fn spawn_cpu<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if bytes < SMALL {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(task::stopped(error, ErrorKind::Unavailable, "a computation").into()),
    }
}
