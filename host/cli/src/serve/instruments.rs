//! Instruments of metrics. Each measurement is recorded once, for `/metrics` and for OTLP.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "otlp")]
use opentelemetry::KeyValue;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of the buckets of durations, in seconds: from a write to a fast disk to a request
/// that is retried.
const BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

/// Labels of a series.
pub(super) trait Labels:
    Clone + fmt::Debug + EncodeLabelSet + Eq + Hash + Send + Sync + 'static
{
    /// Returns the attributes that stand for these labels in OTLP. `metric` has a name of
    /// OpenTelemetry, whose conventions say which attributes it has.
    #[cfg(feature = "otlp")]
    fn attributes(&self, metric: &str) -> Vec<KeyValue>;
}

/// Histogram of durations.
#[derive(Clone, Debug)]
pub(super) struct Durations<L> {
    name: &'static str,
    description: &'static str,
    shown: Family<L, Histogram, fn() -> Histogram>,
    #[cfg(feature = "otlp")]
    sent: opentelemetry::metrics::Histogram<f64>,
}

/// Counter of bytes.
#[derive(Clone, Debug)]
pub(super) struct Bytes<L> {
    name: &'static str,
    description: &'static str,
    shown: Family<L, Counter>,
    #[cfg(feature = "otlp")]
    sent: opentelemetry::metrics::Counter<u64>,
}

/// A number that is read when it is shown or sent.
pub(super) struct Observed {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    /// Unit in OTLP, such as `{run}`.
    #[cfg_attr(
        not(feature = "otlp"),
        expect(dead_code, reason = "Prometheus has no such units")
    )]
    pub(super) unit: &'static str,
    pub(super) kind: ObservedKind,
    /// Returns the number; none where it is not known.
    pub(super) read: Arc<dyn Fn() -> Option<u64> + Send + Sync>,
}

/// Kind of an observed number.
#[derive(Clone, Copy, Debug)]
pub(super) enum ObservedKind {
    /// A count that only grows.
    Total,
    /// A number at this moment.
    Current,
}

/// Returns the name that Prometheus has for a metric of OpenTelemetry.
fn prometheus_name(name: &str) -> String {
    name.replace('.', "_")
}

fn histogram() -> Histogram {
    Histogram::new(BOUNDS)
}

impl<L: Labels> Durations<L> {
    pub(super) fn new(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            description,
            shown: Family::new_with_constructor(histogram),
            #[cfg(feature = "otlp")]
            sent: crate::otlp::meter()
                .f64_histogram(name)
                .with_description(description)
                .with_unit("s")
                .with_boundaries(BOUNDS.to_vec())
                .build(),
        }
    }

    pub(super) fn record(&self, labels: &L, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.shown.get_or_create(labels).observe(seconds);
        #[cfg(feature = "otlp")]
        self.sent.record(seconds, &labels.attributes(self.name));
    }

    /// Shows the histogram at `/metrics`.
    pub(super) fn register(&self, registry: &mut Registry) {
        let name = prometheus_name(self.name);
        registry.register_with_unit(name, self.description, Unit::Seconds, self.shown.clone());
    }
}

impl<L: Labels> Bytes<L> {
    pub(super) fn new(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            description,
            shown: Family::default(),
            #[cfg(feature = "otlp")]
            sent: crate::otlp::meter()
                .u64_counter(name)
                .with_description(format!("Bytes of: {description}"))
                .with_unit("By")
                .build(),
        }
    }

    pub(super) fn add(&self, labels: &L, bytes: u64) {
        self.shown.get_or_create(labels).inc_by(bytes);
        #[cfg(feature = "otlp")]
        self.sent.add(bytes, &labels.attributes(self.name));
    }

    /// Shows the counter at `/metrics`.
    pub(super) fn register(&self, registry: &mut Registry) {
        let name = prometheus_name(self.name);
        let description = format!("Bytes of: {}", self.description);
        registry.register_with_unit(name, description, Unit::Bytes, self.shown.clone());
    }
}

impl Observed {
    /// Shows the number at `/metrics`, and sends it.
    pub(super) fn register(self, registry: &mut Registry) {
        #[cfg(feature = "otlp")]
        self.send();
        registry.register_collector(Box::new(self));
    }

    #[cfg(feature = "otlp")]
    fn send(&self) {
        let meter = crate::otlp::meter();
        let read = Arc::clone(&self.read);
        // The meter keeps the instruments.
        match self.kind {
            ObservedKind::Total => drop(
                meter
                    .u64_observable_counter(self.name)
                    .with_description(self.description)
                    .with_unit(self.unit)
                    .with_callback(move |observer| {
                        if let Some(count) = read() {
                            observer.observe(count, &[]);
                        }
                    })
                    .build(),
            ),
            ObservedKind::Current => drop(
                meter
                    .i64_observable_up_down_counter(self.name)
                    .with_description(self.description)
                    .with_unit(self.unit)
                    .with_callback(move |observer| {
                        if let Some(count) = read() {
                            observer.observe(signed(count), &[]);
                        }
                    })
                    .build(),
            ),
        }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(count) = (self.read)() else {
            return Ok(());
        };
        let name = prometheus_name(self.name);
        match self.kind {
            ObservedKind::Total => {
                let counter = ConstCounter::new(count);
                let kind = counter.metric_type();
                counter.encode(encoder.encode_descriptor(&name, self.description, None, kind)?)
            }
            ObservedKind::Current => {
                let gauge = ConstGauge::new(signed(count));
                let kind = gauge.metric_type();
                gauge.encode(encoder.encode_descriptor(&name, self.description, None, kind)?)
            }
        }
    }
}
