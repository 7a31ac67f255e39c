//! Work that costs time by the byte, kept away from the threads on which others wait.

use super::Result;
use crate::storage::{self, ErrorKind};

/// Below this, the work is done before another thread has heard of it.
const SMALL: u64 = 64 * 1024;

/// Runs `work`, which goes through `bytes` bytes, where it does not keep others waiting.
pub(crate) async fn compute<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if bytes < SMALL {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => {
                let what = "the runtime shut down during a computation";
                Err(storage::Error::new(ErrorKind::Unavailable, what)
                    .with_source(error)
                    .into())
            }
        },
    }
}
