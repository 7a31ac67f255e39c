//! Traces over OTLP.

use std::time::Duration;

use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use persist_host::storage::Environment;
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Layer;

use super::collector::{CollectorState, refused, resource};
use super::variables::TRACES;
use crate::error::Usage;
use crate::logging::BoxedLayer;

/// Exports the spans of this process.
#[derive(Debug)]
pub(super) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Returns the exporter that the environment asks for; none where it names no collector.
    pub(super) fn of(environment: &Environment) -> Result<Option<Self>, Usage> {
        if !TRACES.is_wanted(environment)? {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| refused(&error))?;
        let exporter = Reported {
            exporter,
            state: CollectorState::new(
                "cannot send traces, which are dropped",
                "the collector takes traces again",
            ),
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource())
            .build();
        Ok(Some(Self { provider }))
    }

    /// Returns the layer that passes the spans of Persist to the exporter.
    pub(super) fn layer(&self) -> BoxedLayer {
        // Not the spans of other crates: an exporter would trace its own requests.
        let ours = Targets::new().with_target("persist", Level::INFO);
        let layer = tracing_opentelemetry::layer::<Registry>()
            .with_tracer(self.provider.tracer("persist"))
            .with_location(false)
            .with_threads(false)
            .with_target(false);
        layer.with_filter(ours).boxed()
    }

    /// Sends the last spans, or gives up after a time.
    pub(super) fn finish(self, within: Duration) -> OTelSdkResult {
        self.provider.shutdown_with_timeout(within)
    }
}

/// Makes a span a part of the trace that a request names in its header `traceparent`.
pub(crate) fn follow(span: &Span, headers: &HeaderMap) {
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    // A span that is not exported has no parent.
    let _ = span.set_parent(context);
}

/// Logs the failures of the collector.
#[derive(Debug)]
struct Reported {
    exporter: SpanExporter,
    state: CollectorState,
}

impl opentelemetry_sdk::trace::SpanExporter for Reported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.state.record(self.exporter.export(batch).await)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
