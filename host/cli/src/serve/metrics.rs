//! Metrics of the service, in the text format of OpenMetrics, which Prometheus reads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use persist_host::snapshot::Store;
use persist_host::telemetry::{Layer, Measurement, Recorder};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the buckets of durations, in seconds: from a write to a fast disk to a request
/// that is retried.
const BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Labels of the store's operations. None is chosen by an agent or a client, so that the number of
/// series stays small.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct Labels {
    backend: &'static str,
    operation: &'static str,
    outcome: &'static str,
}

/// Labels of requests, by OpenTelemetry's conventions for HTTP.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HttpLabels {
    http_request_method: &'static str,
    http_route: String,
    http_response_status_code: u32,
}

/// Label of runs: `ok`, or the code of the error.
#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RunLabels {
    outcome: String,
}

/// Durations of runs, without the time in the queue.
#[derive(Clone, Debug)]
pub(super) struct RunDurations(Histograms<RunLabels>);

impl Default for RunDurations {
    fn default() -> Self {
        Self(histograms())
    }
}

impl RunDurations {
    /// Records the end of a run, with the code of its error.
    pub(super) fn ended(&self, code: Option<&str>, took: Duration) {
        let outcome = code.unwrap_or("ok").to_owned();
        let labels = RunLabels { outcome };
        self.0.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

/// Metrics of one layer of the store.
#[derive(Debug)]
struct OfLayer {
    layer: Layer,
    durations: Histograms<Labels>,
    bytes: Family<Labels, Counter>,
}

/// Durations and bytes of the store's operations.
#[derive(Debug)]
pub(super) struct Durations([OfLayer; 3]);

/// All metrics of the service.
pub(super) struct Metrics {
    registry: Registry,
    requests: Histograms<HttpLabels>,
}

/// Counts of requests to the server of the storage.
#[derive(Debug)]
struct StorageRequests(Store);

/// Numbers of runs at this moment.
pub(super) type RunNumbers = Box<dyn Fn() -> (usize, usize) + Send + Sync>;

/// Runs that are at work, and runs that wait.
struct CurrentRuns(RunNumbers);

impl fmt::Debug for CurrentRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CurrentRuns")
    }
}

impl Collector for CurrentRuns {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (active, waiting) = (self.0)();
        for (name, what, count) in [
            ("persist_runs_active", "Runs at work", active),
            (
                "persist_runs_waiting",
                "Runs that wait for another run of the same agent or session",
                waiting,
            ),
        ] {
            let gauge = ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, what, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}

fn histogram() -> Histogram {
    Histogram::new(BOUNDS)
}

fn histograms<L: Clone + Eq + std::hash::Hash>() -> Histograms<L> {
    Family::new_with_constructor(histogram)
}

/// Returns the name that Prometheus has for a metric of OpenTelemetry.
fn name(name: &str) -> String {
    name.replace('.', "_")
}

impl Default for Durations {
    fn default() -> Self {
        Self(Layer::ALL.map(|layer| OfLayer {
            layer,
            durations: histograms(),
            bytes: Family::default(),
        }))
    }
}

impl Recorder for Durations {
    fn record(&self, measurement: &Measurement) {
        let Some(metrics) = self.0.iter().find(|one| one.layer == measurement.layer) else {
            return;
        };
        let labels = Labels {
            backend: measurement.backend,
            operation: measurement.operation,
            outcome: measurement.outcome,
        };
        let seconds = measurement.duration.as_secs_f64();
        metrics.durations.get_or_create(&labels).observe(seconds);
        if measurement.bytes > 0 {
            metrics
                .bytes
                .get_or_create(&labels)
                .inc_by(measurement.bytes);
        }
    }
}

impl Metrics {
    pub(super) fn new(
        durations: Arc<Durations>,
        runs: RunDurations,
        current_runs: RunNumbers,
        store: Store,
    ) -> Self {
        let mut registry = Registry::default();
        for of in &durations.0 {
            let what = of.layer.description();
            let metric = name(of.layer.duration_metric());
            registry.register_with_unit(metric, what, Unit::Seconds, of.durations.clone());
            let metric = name(of.layer.bytes_metric());
            let what = format!("Bytes of: {what}");
            registry.register_with_unit(metric, what, Unit::Bytes, of.bytes.clone());
        }
        let requests = histograms();
        let what = "Requests of clients, until the response begins";
        let metric = "http_server_request_duration";
        registry.register_with_unit(metric, what, Unit::Seconds, requests.clone());
        let what = "Runs of agents, without the time in the queue";
        registry.register_with_unit("persist_run_duration", what, Unit::Seconds, runs.0);
        registry.register_collector(Box::new(CurrentRuns(current_runs)));
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("persist_build", "Version of Persist", version);
        registry.register_collector(Box::new(StorageRequests(store)));
        Self { registry, requests }
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
            http_response_status_code: status.as_u16().into(),
        };
        self.requests
            .get_or_create(&labels)
            .observe(took.as_secs_f64());
    }

    /// Returns all metrics.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // A string takes all that is written to it.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Collector for StorageRequests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(counts) = self.0.counts() else {
            return Ok(());
        };
        for (name, what, count) in [
            (
                "requests",
                "Requests to the storage, with retries",
                counts.requests,
            ),
            (
                "retries",
                "Requests to the storage that were retries",
                counts.repeated,
            ),
            (
                "throttled",
                "Requests that the storage throttled",
                counts.throttled,
            ),
            (
                "failures",
                "Calls of the storage that failed after retries",
                counts.given_up,
            ),
            (
                "unknown_outcomes",
                "Changes of unknown outcome",
                counts.unanswered,
            ),
        ] {
            let name = format!("persist_storage_{name}");
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(&name, what, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
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
        let current = Box::new(|| (1, 2));
        let metrics = Metrics::new(durations, runs, current, store.clone());
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
             http_response_status_code=\"200\"} 1",
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
