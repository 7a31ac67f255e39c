//! Metrics over OTLP. The service records them in the instruments of [`meter`].

use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use opentelemetry::global;
use opentelemetry::metrics::Meter;
use opentelemetry_otlp::{MetricExporter, Protocol, WithExportConfig as _};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use persist_host::storage::Environment;

use super::collector::{CollectorState, refused, resource};
use super::variables::{self, METRICS};
use crate::error::Usage;

/// Exports the metrics of this process.
#[derive(Debug)]
pub(super) struct Metrics {
    provider: SdkMeterProvider,
}

/// The export of the last metrics, which a thread of its own does.
#[derive(Debug)]
pub(super) struct LastExport(Receiver<OTelSdkResult>);

/// Returns the meter of this process. Without an exporter, its instruments do nothing.
pub(crate) fn meter() -> Meter {
    global::meter("persist")
}

impl Metrics {
    /// Returns the exporter that the environment asks for; none where it names no collector.
    pub(super) fn of(environment: &Environment) -> Result<Option<Self>, Usage> {
        if !METRICS.is_wanted(environment)? {
            return Ok(None);
        }
        let interval = variables::export_interval(environment)?;
        let temporality = variables::temporality(environment)?;
        let exporter = MetricExporter::builder()
            .with_temporality(temporality)
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| refused(&error))?;
        let exporter = Reported {
            exporter,
            state: CollectorState::new("cannot send metrics", "the collector takes metrics again"),
        };
        let reader = PeriodicReader::builder(exporter)
            .with_interval(interval)
            .build();
        let provider = SdkMeterProvider::builder()
            .with_reader(reader)
            .with_resource(resource())
            .build();
        global::set_meter_provider(provider.clone());
        Ok(Some(Self { provider }))
    }

    /// Begins to send the last metrics.
    pub(super) fn finish(self) -> LastExport {
        let (sender, receiver) = mpsc::channel();
        // The SDK waits for its exporter longer than this process does.
        std::thread::spawn(move || {
            // The process may have ended its wait.
            let _ = sender.send(self.provider.shutdown());
        });
        LastExport(receiver)
    }
}

impl LastExport {
    /// Waits until the metrics are sent.
    pub(super) fn sent_within(self, timeout: Duration) -> OTelSdkResult {
        let sent = self.0.recv_timeout(timeout);
        sent.unwrap_or(Err(OTelSdkError::Timeout(timeout)))
    }
}

/// Logs the failures of the collector.
#[derive(Debug)]
struct Reported {
    exporter: MetricExporter,
    state: CollectorState,
}

impl PushMetricExporter for Reported {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.state.record(self.exporter.export(metrics).await)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
