//! The threads that compress and decompress: one pool for the process, so that many agents at once
//! do not mean many threads.

use std::sync::OnceLock;

use rayon::{ThreadPool, ThreadPoolBuilder};

/// Runs `work` in the pool and waits for it. Must not be called where waiting keeps others from
/// running.
pub(super) fn run<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    static POOL: OnceLock<Option<ThreadPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        // As many threads as processors, which is rayon's default.
        let builder = ThreadPoolBuilder::new().thread_name(|n| format!("persist-block-{n}"));
        builder.build().ok()
    });
    match pool {
        Some(pool) => pool.install(work),
        // A process that may not start threads works on the one that it has.
        None => work(),
    }
}
