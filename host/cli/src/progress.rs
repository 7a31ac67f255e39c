//! Progress of a long command, on a terminal only.

use std::borrow::Cow;
use std::fmt;
use std::io::IsTerminal as _;
use std::pin::pin;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use persist_host::storage::redact;

use crate::print::Out;
use crate::stdio::say;
use crate::text::one_line;

/// Shorter work shows no progress.
const AFTER: Duration = Duration::from_secs(1);

/// Shorter work without a measure, such as a compilation, is not announced.
const SILENT: Duration = Duration::from_millis(500);

/// Time between two pictures of a spinner.
const TICK: Duration = Duration::from_millis(100);

/// A line on a person's terminal, which is gone with this value.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Since when it is not shown yet; none: it is shown, or never will be.
    hidden_since: Option<Instant>,
}

impl Progress {
    /// Of bytes, such as "printed 12 MiB of 30 MiB".
    pub(crate) fn bytes(out: Out, done: &'static str, total: Option<u64>) -> Self {
        let style = match total {
            Some(_) => "{msg} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
            None => "{msg} {bytes}, {bytes_per_sec}",
        };
        Self::new(out, done, total, style)
    }

    /// Of things that are counted, such as "checked 12 of 30 names".
    pub(crate) fn items(out: Out, done: &'static str, total: Option<u64>) -> Self {
        let style = match total {
            Some(_) => "{msg} {human_pos} of {human_len}, {rate}, {eta} left",
            None => "{msg} {human_pos}, {rate}",
        };
        Self::new(out, done, total, style)
    }

    /// None at all.
    pub(crate) fn none() -> Self {
        Self {
            bar: ProgressBar::hidden(),
            hidden_since: None,
        }
    }

    fn new(out: Out, done: impl Into<Cow<'static, str>>, total: Option<u64>, style: &str) -> Self {
        if !is_watched(out) {
            return Self::none();
        }
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(style) {
            let rate = |state: &ProgressState, to: &mut dyn fmt::Write| {
                // It has nowhere to fail to.
                let _ = write!(to, "{:.0}/s", state.per_sec());
            };
            bar.set_style(style.with_key("rate", rate));
        }
        bar.set_message(done);
        Self {
            bar,
            hidden_since: Some(Instant::now()),
        }
    }

    /// Adds to the work that is done.
    pub(crate) fn add(&mut self, done: u64) {
        self.bar.inc(done);
        if self
            .hidden_since
            .is_some_and(|since| since.elapsed() > AFTER)
        {
            self.hidden_since = None;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Prints something while the line is out of the way.
    pub(crate) fn aside<T>(&self, print: impl FnOnce() -> T) -> T {
        self.bar.suspend(print)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Waits for work that tells nothing of its progress. If it takes long, a person's terminal shows
/// `doing`, such as "compiling notes.wasm", and the seconds since, until it ends.
pub(crate) async fn spin<T>(out: Out, doing: &str, work: impl Future<Output = T>) -> T {
    let doing = redact(&one_line(doing)).into_owned();
    let progress = Progress::new(out, doing, None, "{spinner} {msg} {elapsed}");
    let is_watched = progress.hidden_since.is_some();
    announced(work, tokio::time::sleep(SILENT), || {
        if is_watched {
            progress.bar.set_draw_target(ProgressDrawTarget::stderr());
            progress.bar.enable_steady_tick(TICK);
        }
    })
    .await
}

/// Waits for work, and calls `announce` if it has not ended after the pause.
async fn announced<T>(
    work: impl Future<Output = T>,
    pause: impl Future,
    announce: impl FnOnce(),
) -> T {
    let mut work = pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return done,
        _ = pause => announce(),
    }
    work.await
}

/// Does work whose programs may print to standard error. If it takes long, a line on a person's
/// terminal says what is done.
pub(crate) fn note_if_slow<T>(out: Out, doing: &str, work: impl FnOnce() -> T) -> T {
    if !is_watched(out) {
        return work();
    }
    let (ended, end) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if end.recv_timeout(SILENT) == Err(RecvTimeoutError::Timeout) {
                say(format_args!("{}", one_line(doing)));
            }
        });
        let done = work();
        drop(ended);
        done
    })
}

/// Returns true if a person watches the output.
pub(crate) fn is_watched(out: Out) -> bool {
    !out.quiet && !out.json && std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn work_is_announced_while_it_goes_on_and_only_after_the_pause() {
        let is_announced = Cell::new(false);
        let announce = || is_announced.set(true);
        announced(ready(()), ready(()), announce).await;
        assert!(!is_announced.get(), "it ended before the pause");

        let (end, work) = tokio::sync::oneshot::channel();
        let done = announced(work, ready(()), move || {
            let _ = end.send("done");
        });
        assert_eq!(
            done.await,
            Ok("done"),
            "the work ends after it was announced"
        );

        let work = async {
            tokio::task::yield_now().await;
        };
        announced(work, pending::<()>(), announce).await;
        assert!(!is_announced.get(), "the pause did not end");
    }
}
