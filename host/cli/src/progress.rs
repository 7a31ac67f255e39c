//! How far a long command is: on a terminal only, and only once it took a second.

use std::fmt;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::print::Out;

/// Shorter work shows no progress.
const AFTER: Duration = Duration::from_secs(1);

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

    fn new(out: Out, done: &'static str, total: Option<u64>, style: &str) -> Self {
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

/// Returns true if a person watches the output.
pub(crate) fn is_watched(out: Out) -> bool {
    !out.quiet && !out.json && std::io::stderr().is_terminal()
}
