//! Metrics of the service. `/metrics` shows them in the text format of OpenMetrics, which
//! Prometheus reads. OTLP sends the same, with the attributes of OpenTelemetry's conventions.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
#[cfg(feature = "otlp")]
use opentelemetry::KeyValue;
use persist_host::snapshot::Store;
use persist_host::storage::Counts;
use persist_host::telemetry::{Layer, Measurement, Recorder};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::instruments::{self, Bytes, Labels, Observed, ObservedKind};

pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Outcome of what succeeded.
const OK: &str = "ok";

/// Labels of the store's operations. None is chosen by an agent or a client, so that the number of
/// series stays small.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct OperationLabels {
    backend: &'static str,
    operation: &'static str,
    outcome: &'static str,
}

impl Labels for OperationLabels {
    #[cfg(feature = "otlp")]
    fn attributes(&self, metric: &str) -> Vec<KeyValue> {
        if metric != Layer::Storage.duration_metric() {
            return vec![
                KeyValue::new("backend", self.backend),
                KeyValue::new("operation", self.operation),
                KeyValue::new("outcome", self.outcome),
            ];
        }
        let mut attributes = vec![
            KeyValue::new("db.system.name", self.backend),
            KeyValue::new("db.operation.name", self.operation),
        ];
        if self.outcome != OK {
            attributes.push(KeyValue::new("error.type", self.outcome));
        }
        attributes
    }
}

/// Labels of requests, by OpenTelemetry's conventions for HTTP.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HttpLabels {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u16,
    url_scheme: &'static str,
}

impl Labels for HttpLabels {
    #[cfg(feature = "otlp")]
    fn attributes(&self, _: &str) -> Vec<KeyValue> {
        let status = self.http_response_status_code;
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.http_request_method),
            KeyValue::new("http.route", self.http_route.clone()),
            KeyValue::new("http.response.status_code", i64::from(status)),
            KeyValue::new("url.scheme", self.url_scheme),
        ];
        if status >= 500 {
            attributes.push(KeyValue::new("error.type", status.to_string()));
        }
        attributes
    }
}

/// Label of runs: `ok`, or the code of the error.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RunLabels {
    outcome: String,
}

impl Labels for RunLabels {
    #[cfg(feature = "otlp")]
    fn attributes(&self, _: &str) -> Vec<KeyValue> {
        vec![KeyValue::new("outcome", self.outcome.clone())]
    }
}

/// Durations of runs, without the time in the queue.
#[derive(Clone, Debug)]
pub(super) struct RunDurations(instruments::Durations<RunLabels>);

impl Default for RunDurations {
    fn default() -> Self {
        Self(instruments::Durations::new(
            "persist.run.duration",
            "Runs of agents, without the time in the queue",
        ))
    }
}

impl RunDurations {
    /// Records the end of a run, with the code of its error.
    pub(super) fn ended(&self, code: Option<&str>, took: Duration) {
        let outcome = code.unwrap_or(OK).to_owned();
        self.0.record(&RunLabels { outcome }, took);
    }
}

/// Metrics of one layer of the store.
#[derive(Debug)]
struct OfLayer {
    layer: Layer,
    durations: instruments::Durations<OperationLabels>,
    bytes: Bytes<OperationLabels>,
}

/// Durations and bytes of the store's operations.
#[derive(Debug)]
pub(super) struct Durations([OfLayer; 3]);

impl Default for Durations {
    fn default() -> Self {
        Self(Layer::ALL.map(|layer| {
            let description = layer.description();
            OfLayer {
                layer,
                durations: instruments::Durations::new(layer.duration_metric(), description),
                bytes: Bytes::new(layer.bytes_metric(), description),
            }
        }))
    }
}

impl Recorder for Durations {
    fn record(&self, measurement: &Measurement) {
        let Some(metrics) = self.0.iter().find(|one| one.layer == measurement.layer) else {
            return;
        };
        let labels = OperationLabels {
            backend: measurement.backend,
            operation: measurement.operation,
            outcome: measurement.outcome,
        };
        metrics.durations.record(&labels, measurement.duration);
        if measurement.bytes > 0 {
            metrics.bytes.add(&labels, measurement.bytes);
        }
    }
}

/// All metrics of the service.
pub(super) struct Metrics {
    registry: Registry,
    requests: instruments::Durations<HttpLabels>,
    /// Scheme of the URL of each request.
    scheme: &'static str,
}

/// Numbers of runs that are at work, and of those that wait.
pub(super) type RunNumbers = Arc<dyn Fn() -> (usize, usize) + Send + Sync>;

impl Metrics {
    pub(super) fn new(
        durations: Arc<Durations>,
        runs: RunDurations,
        current_runs: RunNumbers,
        store: Store,
        scheme: &'static str,
    ) -> Self {
        let mut registry = Registry::default();
        for of in &durations.0 {
            of.durations.register(&mut registry);
            of.bytes.register(&mut registry);
        }
        let requests = instruments::Durations::new(
            "http.server.request.duration",
            "Requests of clients, until the response begins",
        );
        requests.register(&mut registry);
        runs.0.register(&mut registry);
        for observed in numbers_of_runs(current_runs) {
            observed.register(&mut registry);
        }
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("persist_build", "Version of Persist", version);
        for observed in counts_of_requests(&store) {
            observed.register(&mut registry);
        }
        Self {
            registry,
            requests,
            scheme,
        }
    }

    /// Records the response to a request of a client.
    pub(super) fn answered(
        &self,
        method: &'static str,
        route: String,
        status: StatusCode,
        took: Duration,
    ) {
        let labels = HttpLabels {
            http_request_method: method,
            http_route: route,
            http_response_status_code: status.as_u16(),
            url_scheme: self.scheme,
        };
        self.requests.record(&labels, took);
    }

    /// Returns all metrics.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // A string takes all that is written to it.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Returns the metrics of the runs at this moment.
fn numbers_of_runs(numbers: RunNumbers) -> [Observed; 2] {
    let observed = |name, description, read| Observed {
        name,
        description,
        unit: "{run}",
        kind: ObservedKind::Current,
        read,
    };
    let active = Arc::clone(&numbers);
    let count = |count: usize| u64::try_from(count).ok();
    [
        observed(
            "persist.runs.active",
            "Runs at work",
            Arc::new(move || count(active().0)),
        ),
        observed(
            "persist.runs.waiting",
            "Runs that wait for another run of the same agent or session",
            Arc::new(move || count(numbers().1)),
        ),
    ]
}

/// Returns the metrics of the requests to the server of the storage.
fn counts_of_requests(store: &Store) -> [Observed; 5] {
    let observed = |name, description, unit, count: fn(&Counts) -> u64| {
        let store = store.clone();
        Observed {
            name,
            description,
            unit,
            kind: ObservedKind::Total,
            read: Arc::new(move || store.counts().as_ref().map(count)),
        }
    };
    [
        observed(
            "persist.storage.requests",
            "Requests to the storage, with retries",
            "{request}",
            |counts| counts.requests,
        ),
        observed(
            "persist.storage.retries",
            "Requests to the storage that were retries",
            "{request}",
            |counts| counts.repeated,
        ),
        observed(
            "persist.storage.throttled",
            "Requests that the storage throttled",
            "{request}",
            |counts| counts.throttled,
        ),
        observed(
            "persist.storage.failures",
            "Calls of the storage that failed after retries",
            "{call}",
            |counts| counts.given_up,
        ),
        observed(
            "persist.storage.unknown_outcomes",
            "Changes of unknown outcome",
            "{change}",
            |counts| counts.unanswered,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use persist_host::snapshot::{SaveOptions, StoreOptions};
    use persist_host::storage::Memory;

    use super::*;

    #[test]
    fn saves_and_requests_are_counted_and_names_are_not_shown() {
        let durations = Arc::new(Durations::default());
        let options = StoreOptions::default();
        let store = Store::with_recorder(Arc::new(Memory::new()), options, durations.clone());
        let runs = RunDurations::default();
        let current = Arc::new(|| (1, 2));
        let metrics = Metrics::new(durations, runs, current, store.clone(), "http");
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime").block_on(async {
            let scope = store.scope("secret-agent", None).expect("a scope");
            for _ in 0..3 {
                let saved = scope.save("secret-plan", "x".into(), SaveOptions::default());
                saved.await.expect("saved");
            }
        });
        let took = Duration::from_millis(3);
        metrics.answered(
            "GET",
            "/v1/agents/{agent}/names".into(),
            StatusCode::OK,
            took,
        );
        let text = metrics.text();
        // The first save also commits the policy of the store.
        for line in [
            "# TYPE db_client_operation_duration_seconds histogram",
            "# UNIT db_client_operation_duration_seconds seconds",
            "persist_commit_duration_seconds_count{backend=\"memory\",operation=\"save\",\
             outcome=\"ok\"} 4",
            "http_server_request_duration_seconds_bucket{le=\"0.005\",\
             http_request_method=\"GET\",http_route=\"/v1/agents/{agent}/names\",\
             http_response_status_code=\"200\",url_scheme=\"http\"} 1",
            "persist_runs_active 1",
            "persist_runs_waiting 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in:\n{text}");
        }
        assert!(
            text.contains("persist_storage_io_bytes_total{backend=\"memory\""),
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }
}
