//! Logs, and the line that tells a person why a command waits.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Level;
use tracing::field::{Field, Visit};
use tracing_subscriber::filter::{EnvFilter, LevelFilter, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::stdio::{say, stderr_is_coloured};
use crate::text::one_line;

/// Target of the events that tell of a call that is sent again.
const RETRY: &str = "persist_host::retry";

/// Milliseconds of a call that a person does not notice.
const SHORT: u64 = 500;

/// Logs to standard error as `filter` says. A command that `reports` errors tells them itself:
/// unless the filter is the user's own, a call that is given up is not logged besides.
/// `is_watched`: a person looks, and is told of a wait.
pub(crate) fn start(filter: &str, is_users: bool, reports: bool, is_watched: bool) {
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
    tracing_subscriber::registry().with(logs).with(waits).init();
}

/// Tells once that the storage does not answer, and that it is asked again.
#[derive(Debug, Default)]
struct Waits {
    is_told: AtomicBool,
}

impl<S: tracing::Subscriber> Layer<S> for Waits {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut retry = Retry::default();
        event.record(&mut retry);
        if retry.lasts < SHORT || self.is_told.swap(true, Ordering::Relaxed) {
            return;
        }
        let error = one_line(&retry.error);
        say(format_args!(
            "waiting for the storage: {error}; retrying (press Ctrl-C to stop)"
        ));
    }
}

/// The fields of such an event that a person wants to know.
#[derive(Debug, Default)]
struct Retry {
    lasts: u64,
    error: String,
}

impl Visit for Retry {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "lasts_ms" {
            self.lasts = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "error" {
            self.error = format!("{value:?}");
        }
    }
}
