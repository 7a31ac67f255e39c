//! Traces and metrics of `persist serve` over OTLP, by the standard variables `OTEL_*`.

mod collector;
mod metrics;
mod traces;
mod variables;

use std::time::{Duration, Instant};

use opentelemetry_sdk::error::OTelSdkResult;
use persist_host::storage::{Environment, redact};

use crate::error::Usage;
use crate::logging::BoxedLayer;
use metrics::Metrics;
use traces::Traces;

pub(crate) use metrics::meter;
pub(crate) use traces::follow;

/// Longest time for the last spans and metrics at the end of the process.
const LAST: Duration = Duration::from_secs(2);

/// Exports the spans and the metrics of this process.
#[derive(Debug)]
pub(crate) struct Exporters {
    traces: Option<Traces>,
    metrics: Option<Metrics>,
}

impl Exporters {
    /// Returns the exporters that the environment asks for.
    pub(crate) fn of(environment: &Environment) -> Result<Self, Usage> {
        Ok(Self {
            traces: Traces::of(environment)?,
            metrics: Metrics::of(environment)?,
        })
    }

    /// Returns the layer that passes the spans of Persist to the exporter, if there is one.
    pub(crate) fn layer(&self) -> Option<BoxedLayer> {
        self.traces.as_ref().map(Traces::layer)
    }

    /// Sends the last spans and metrics at the same time. A collector that does not answer costs
    /// [`LAST`].
    pub(crate) fn finish(self) {
        let deadline = Instant::now() + LAST;
        let last_metrics = self.metrics.map(Metrics::finish);
        if let Some(traces) = self.traces {
            log_last("traces", traces.finish(LAST));
        }
        if let Some(last) = last_metrics {
            let left = deadline.saturating_duration_since(Instant::now());
            log_last("metrics", last.sent_within(left));
        }
    }
}

fn log_last(what: &str, sent: OTelSdkResult) {
    if let Err(error) = sent {
        let error = redact(&error.to_string()).into_owned();
        tracing::debug!("the last {what} were not sent: {error}");
    }
}
