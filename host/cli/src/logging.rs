//! Logs, and the line that tells a person why a command waits.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Level;
use tracing::field::{Field, Visit};
use tracing_subscriber::Registry;
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::stdio::{say, stderr_is_coloured};
use crate::text::one_line;

/// Target of the events that tell of a call that is sent again.
const RETRY: &str = "persist_host::retry";

/// Milliseconds of a call that a person does not notice.
const SHORT: u64 = 500;

/// Layer that [`start`] adds.
pub(crate) type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Logs to standard error as `filter` says. A command that `reports` errors tells them itself:
/// unless the filter is the user's own, a call that is given up is not logged besides.
/// `is_watched`: a person looks, and is told of a wait. `traces` exports spans.
pub(crate) fn start(
    filter: &str,
    is_users: bool,
    reports: bool,
    is_watched: bool,
    traces: Option<BoxedLayer>,
) {
    let mut filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .parse_lossy(filter);
    if reports
        && !is_users
        && let Ok(quiet) = "persist_host::storage::retry=error".parse()
    {
        filter = filter.add_directive(quiet);
    }
    let logs = tracing_subscriber::fmt::layer()
        .with_ansi(stderr_is_coloured())
        .with_writer(std::io::stderr)
        .with_filter(filter);
    let retries = Targets::new().with_target(RETRY, Level::DEBUG);
    let waits = is_watched.then(|| Waits::default().with_filter(retries));
    let layers = tracing_subscriber::registry().with(traces);
    layers.with(logs).with(waits).init();
}

/// Tells once that the storage does not answer, and for how long it is asked again.
#[derive(Debug, Default)]
struct Waits {
    is_told: AtomicBool,
}

impl<S: tracing::Subscriber> Layer<S> for Waits {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut wait = Wait::default();
        event.record(&mut wait);
        if wait.lasts < SHORT || self.is_told.swap(true, Ordering::Relaxed) {
            return;
        }
        say(format_args!("{wait}"));
    }
}

/// The fields of such an event that a person wants to know.
#[derive(Debug, Default)]
struct Wait {
    server: String,
    error: String,
    attempt: u64,
    /// Milliseconds since the call began, and until it is given up.
    lasts: u64,
    until: u64,
}

impl Visit for Wait {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "attempt" => self.attempt = value,
            "lasts_ms" => self.lasts = value,
            "until_ms" => self.until = value,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "server" {
            self.server = value.into();
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "error" {
            self.error = format!("{value:?}");
        }
    }
}

/// Such as `waiting for the storage: ListObjectsV2: Connection refused; attempt 3 at Amazon S3,
/// retrying for up to 29 seconds (press Ctrl-C to stop)`.
impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, error, .. } = self;
        let (server, error) = (one_line(server), one_line(error));
        let seconds = self.until.div_ceil(1000);
        write!(
            f,
            "waiting for the storage: {error}; attempt {} at {server}, retrying for up to \
             {seconds} seconds (press Ctrl-C to stop)",
            self.attempt.max(1)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_announced_with_server_cause_attempt_and_end() {
        let wait = Wait {
            server: "https://storage.test".into(),
            error: "ListObjectsV2: refused\nerror: forged".into(),
            attempt: 3,
            lasts: 700,
            until: 28_400,
        };
        let said = wait.to_string();
        for part in [
            "https://storage.test",
            "ListObjectsV2: refused",
            "attempt 3",
            "29 seconds",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}
