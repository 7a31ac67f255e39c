//! Traces and metrics of `persist serve` over OTLP, by the standard variables `OTEL_*`.

mod metrics;
mod traces;
mod variables;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::Resource;
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
            log_last("traces", traces.finish());
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

/// Returns the error of a variable that no exporter can be built with.
fn refused(error: &ExporterBuildError) -> Usage {
    let what = format!("OTEL_EXPORTER_OTLP_*: {}", redact(&error.to_string()));
    Usage::new(what).with_hint("correct the variable, or set OTEL_SDK_DISABLED=true")
}

/// Returns the attributes of this process: those of the environment, and else its own name.
fn resource() -> Resource {
    let builder = || {
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        Resource::builder().with_attribute(version)
    };
    let resource = builder().build();
    let name = resource.get(&Key::from_static_str("service.name"));
    let is_named = name.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if is_named {
        resource
    } else {
        builder().with_service_name("persist").build()
    }
}

/// Logs once when the collector fails, and when it answers again.
#[derive(Debug)]
struct CollectorState {
    failed: &'static str,
    recovered: &'static str,
    is_failing: AtomicBool,
}

impl CollectorState {
    fn new(failed: &'static str, recovered: &'static str) -> Self {
        Self {
            failed,
            recovered,
            is_failing: AtomicBool::new(false),
        }
    }

    /// Records the outcome of an export, and returns it.
    fn record(&self, done: OTelSdkResult) -> OTelSdkResult {
        match &done {
            Ok(()) if self.is_failing.swap(false, Ordering::Relaxed) => {
                tracing::warn!("{}", self.recovered);
            }
            Err(error) if !self.is_failing.swap(true, Ordering::Relaxed) => {
                let error = redact(&error.to_string()).into_owned();
                tracing::warn!("{}: {error}", self.failed);
            }
            _ => {}
        }
        done
    }
}
