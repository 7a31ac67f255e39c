//! Traces of `persist serve` over OTLP, as the standard variables `OTEL_*` say.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Key, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use persist_host::storage::{Environment, redact};
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::Layer;

use crate::error::Usage;
use crate::logging::BoxedLayer;

/// Longest time for the last spans at the end of the process.
const LAST: Duration = Duration::from_secs(2);

/// Exports the spans of this process.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
}

impl Traces {
    /// Returns the exporter that the environment asks for; none where it names no collector.
    pub(crate) fn of(environment: &Environment) -> Result<Option<Self>, Usage> {
        if !is_wanted(environment)? {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| {
                let what = format!("OTEL_EXPORTER_OTLP_*: {}", redact(&error.to_string()));
                Usage::new(what).with_hint("correct the variable, or set OTEL_SDK_DISABLED=true")
            })?;
        let exporter = Reported {
            exporter,
            is_failing: AtomicBool::new(false),
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource())
            .build();
        Ok(Some(Self { provider }))
    }

    /// Returns the layer that passes the spans of Persist to the exporter.
    pub(crate) fn layer(&self) -> BoxedLayer {
        // Not the spans of other crates: an exporter would trace its own requests.
        let ours = Targets::new().with_target("persist", Level::INFO);
        let layer = tracing_opentelemetry::layer::<Registry>()
            .with_tracer(self.provider.tracer("persist"))
            .with_location(false)
            .with_threads(false)
            .with_target(false);
        layer.with_filter(ours).boxed()
    }

    /// Sends the last spans. A collector that does not answer costs [`LAST`].
    pub(crate) fn finish(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST) {
            tracing::debug!(
                "the last traces were not sent: {}",
                redact(&error.to_string())
            );
        }
    }
}

/// Makes a span a part of the trace that a request names in its header `traceparent`.
pub(crate) fn follow(span: &Span, headers: &HeaderMap) {
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    // A span that is not exported has no parent.
    let _ = span.set_parent(context);
}

/// Returns true if the environment names a collector.
fn is_wanted(environment: &Environment) -> Result<bool, Usage> {
    let text = |name: &str| {
        let value = environment.get(name)?.to_str()?.trim().to_owned();
        (!value.is_empty()).then_some(value)
    };
    let first = |names: [&'static str; 2]| {
        let mut names = names.into_iter();
        names.find_map(|name| text(name).map(|value| (name, value)))
    };
    if text("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    let exporter = text("OTEL_TRACES_EXPORTER");
    match exporter.as_deref() {
        Some("none") => return Ok(false),
        None | Some("otlp") => {}
        Some(other) => {
            let other = redact(other);
            let what = format!("OTEL_TRACES_EXPORTER is {other:?}, not otlp or none");
            return Err(Usage::new(what).with_hint("write otlp or none"));
        }
    }
    let endpoint = first([
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ]);
    if exporter.is_none() && endpoint.is_none() {
        return Ok(false);
    }
    let protocol = first([
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ]);
    match protocol {
        Some((name, protocol)) if protocol != "http/protobuf" => {
            let protocol = redact(&protocol);
            let what = format!("{name} is {protocol:?}; Persist sends http/protobuf only");
            let hint = "write http/protobuf, and name the collector's port for it, usually 4318";
            Err(Usage::new(what).with_hint(hint))
        }
        _ => Ok(true),
    }
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
struct Reported {
    exporter: SpanExporter,
    is_failing: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Reported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let done = self.exporter.export(batch).await;
        match &done {
            Ok(()) if self.is_failing.swap(false, Ordering::Relaxed) => {
                tracing::warn!("the collector takes traces again");
            }
            Err(error) if !self.is_failing.swap(true, Ordering::Relaxed) => {
                let error = redact(&error.to_string()).into_owned();
                tracing::warn!("cannot send traces, which are dropped: {error}");
            }
            _ => {}
        }
        done
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(variables: &[(&str, &str)]) -> Result<bool, Usage> {
        is_wanted(&variables.iter().copied().collect())
    }

    #[test]
    fn traces_are_sent_where_a_collector_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        let is = |variables: &[(&str, &str)]| wanted(variables).expect("no mistake");
        assert!(!is(&[]));
        assert!(is(&[endpoint]));
        assert!(is(&[("OTEL_TRACES_EXPORTER", "otlp")]), "the usual port");
        assert!(!is(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]));
        assert!(is(&[endpoint, ("OTEL_SDK_DISABLED", "false")]));
        assert!(!is(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]));
        assert!(!is(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]));
    }

    #[test]
    fn what_cannot_be_sent_is_refused_and_names_its_variable() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
        ] {
            let error = wanted(&[endpoint, (name, value)]).expect_err(value);
            assert!(error.to_string().starts_with(name), "{error}");
            assert!(error.hint.is_some());
        }
        // That of traces counts before that of all signals.
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        let all = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        assert!(wanted(&[endpoint, traces, all]).expect("no mistake"));
    }
}
