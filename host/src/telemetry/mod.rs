//! Durations, outcomes and sizes of operations, for metrics and traces.
//!
//! A store that is opened with [`Store::with_recorder`](crate::snapshot::Store::with_recorder)
//! passes its [`Recorder`] one [`Measurement`] for each call of a guest, each commit and each call
//! of the storage. A measurement holds no agent, session, name or key, so that the number of time
//! series does not grow with the data.
//!
//! The same operations are spans of `tracing` at the level info, with or without a recorder:
//! `guest_call`, `commit`, `storage_call`, and `storage_request` for each request to a server, with
//! its attempts. A span has the hash of a name, and never the name.
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicU64, Ordering};
//!
//! use persist_host::snapshot::{SaveOptions, Store, StoreOptions};
//! use persist_host::storage::Memory;
//! use persist_host::telemetry::{Layer, Measurement, Recorder};
//!
//! /// Bytes of all versions that were saved.
//! #[derive(Debug, Default)]
//! struct Saved(AtomicU64);
//!
//! impl Recorder for Saved {
//!     fn record(&self, measurement: &Measurement) {
//!         if measurement.layer == Layer::Commit {
//!             self.0.fetch_add(measurement.bytes, Ordering::Relaxed);
//!         }
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let saved = Arc::new(Saved::default());
//! let storage = Arc::new(Memory::new());
//! let store = Store::with_recorder(storage, StoreOptions::default(), saved.clone());
//! let scope = store.scope("weather-bot", None)?;
//! let info = scope.save("memory", "rain".into(), SaveOptions::default()).await?;
//! assert!(saved.0.load(Ordering::Relaxed) >= info.stored_size);
//! # Ok::<(), persist_host::snapshot::Error>(())
//! # }).unwrap();
//! ```
//!
//! With the feature `metrics`, `MetricsRecorder` passes measurements to the crate `metrics`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
#[cfg(feature = "guest")]
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

/// Outcome of an operation that succeeded.
const OK: &str = "ok";

/// Outcome of an operation whose caller did not wait for its end.
const CANCELLED: &str = "cancelled";

/// Receives the measurements of a store.
pub trait Recorder: fmt::Debug + Send + Sync + 'static {
    /// Receives the measurement of an operation that ended. The operation waits for this call, so
    /// it must not block.
    fn record(&self, measurement: &Measurement);
}

/// Duration, outcome and size of an operation that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Measurement {
    /// Layer of the operation.
    pub layer: Layer,
    /// Backend of the store: `local`, `memory`, `s3`, `gcs`, or the name that a storage of another
    /// kind returns.
    pub backend: &'static str,
    /// Name of the operation, such as `create`.
    pub operation: &'static str,
    /// `ok`, `cancelled`, or the kind of the error, such as `already_exists`.
    pub outcome: &'static str,
    /// Time that the operation took, with retries. For an upload in pieces, the time between the
    /// pieces is not part of it.
    pub duration: Duration,
    /// Bytes that were sent or received, as far as the operation succeeded.
    pub bytes: u64,
}

/// Layer of an operation. An operation of a layer calls operations of the layers below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Layer {
    /// Call of a guest.
    Guest,
    /// Commit of one version.
    Commit,
    /// Call of the storage.
    Storage,
}

impl Layer {
    /// All layers.
    pub const ALL: [Self; 3] = [Self::Guest, Self::Commit, Self::Storage];

    /// Returns the name of the histogram of durations, in seconds.
    pub fn duration_metric(self) -> &'static str {
        match self {
            Self::Guest => "persist.guest.call.duration",
            Self::Commit => "persist.commit.duration",
            // Of OpenTelemetry's conventions for clients of databases.
            Self::Storage => "db.client.operation.duration",
        }
    }

    /// Returns the name of the counter of bytes.
    pub fn bytes_metric(self) -> &'static str {
        match self {
            Self::Guest => "persist.guest.call.io",
            Self::Commit => "persist.commit.io",
            Self::Storage => "persist.storage.io",
        }
    }

    /// Returns the description of the layer's operations, for the help of a metric.
    pub fn description(self) -> &'static str {
        match self {
            Self::Guest => "Calls of guests",
            Self::Commit => "Commits of versions",
            Self::Storage => "Calls of the storage, with retries",
        }
    }
}

/// Passes measurements to the recorder of the crate `metrics` that is installed.
#[cfg(feature = "metrics")]
#[derive(Clone, Copy, Debug, Default)]
pub struct MetricsRecorder;

#[cfg(feature = "metrics")]
impl MetricsRecorder {
    /// Returns the recorder, and describes its metrics.
    pub fn new() -> Self {
        for layer in Layer::ALL {
            let what = layer.description();
            metrics::describe_histogram!(layer.duration_metric(), metrics::Unit::Seconds, what);
            metrics::describe_counter!(layer.bytes_metric(), metrics::Unit::Bytes, what);
        }
        Self
    }
}

#[cfg(feature = "metrics")]
impl Recorder for MetricsRecorder {
    fn record(&self, measurement: &Measurement) {
        let labels = [
            ("backend", measurement.backend),
            ("operation", measurement.operation),
            ("outcome", measurement.outcome),
        ];
        let layer = measurement.layer;
        metrics::histogram!(layer.duration_metric(), &labels).record(measurement.duration);
        if measurement.bytes > 0 {
            metrics::counter!(layer.bytes_metric(), &labels).increment(measurement.bytes);
        }
    }
}

/// Error that has a fixed name for each of its kinds.
pub(crate) trait Outcome {
    /// Returns the name of the kind.
    fn outcome(&self) -> &'static str;
}

/// Recorder of a store, if it has one, with the label of its backend.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    backend: &'static str,
    recorder: Option<Arc<dyn Recorder>>,
}

impl Telemetry {
    pub(crate) fn new(backend: &'static str, recorder: Option<Arc<dyn Recorder>>) -> Self {
        Self { backend, recorder }
    }

    /// Returns the label of the backend.
    pub(crate) fn backend(&self) -> &'static str {
        self.backend
    }

    /// Begins an operation. `span` may have the empty fields `bytes` and `outcome`.
    pub(crate) fn begin(&self, layer: Layer, operation: &'static str, span: Span) -> Pending {
        Pending {
            recorder: self.recorder.clone(),
            span,
            since: None,
            measurement: Measurement {
                layer,
                backend: self.backend,
                operation,
                outcome: CANCELLED,
                duration: Duration::ZERO,
                bytes: 0,
            },
        }
    }
}

#[cfg(feature = "guest")]
impl Telemetry {
    /// Begins a call of a guest. `object` names what it is about.
    pub(crate) fn begin_guest_call(
        &self,
        operation: &'static str,
        object: impl FnOnce() -> String,
    ) -> Pending {
        let span = tracing::info_span!(
            "guest_call",
            backend = self.backend,
            operation,
            object = %hashed(&object()),
            bytes = Empty,
            outcome = Empty,
        );
        self.begin(Layer::Guest, operation, span)
    }
}

/// Operation that has not ended. Dropping it records it.
#[derive(Debug)]
pub(crate) struct Pending {
    recorder: Option<Arc<dyn Recorder>>,
    span: Span,
    /// Begin of the work that is done now.
    since: Option<Instant>,
    measurement: Measurement,
}

impl Pending {
    /// Does the whole operation, or its last part. The work is put in a box: measurements are
    /// nested, and each would have the state of those below it on the stack.
    pub(crate) fn last<T, E: Outcome>(
        self,
        work: impl Future<Output = Result<T, E>>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> impl Future<Output = Result<T, E>> {
        let work = Box::pin(work);
        async move {
            let mut pending = self;
            let result = pending.part(work, bytes).await;
            if result.is_ok() {
                pending.measurement.outcome = OK;
            }
            result
        }
    }

    /// Does a part of the operation. If no other part follows, the operation was cancelled, unless
    /// this part fails. The work is put in a box, as [`Pending::last`] does.
    pub(crate) fn part<T, E: Outcome>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
        bytes: impl FnOnce(&T) -> u64,
    ) -> impl Future<Output = Result<T, E>> {
        let work = Box::pin(work);
        async move {
            self.since = self.recorder.is_some().then(Instant::now);
            let result = work.instrument(self.span.clone()).await;
            self.pause();
            match &result {
                Ok(value) => self.measurement.bytes += bytes(value),
                Err(error) => self.measurement.outcome = error.outcome(),
            }
            result
        }
    }

    fn pause(&mut self) {
        if let Some(since) = self.since.take() {
            self.measurement.duration += since.elapsed();
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.pause();
        self.span.record("outcome", self.measurement.outcome);
        self.span.record("bytes", self.measurement.bytes);
        if let Some(recorder) = &self.recorder {
            recorder.record(&self.measurement);
        }
    }
}

/// Returns the hash of a name or a key, which may be logged above the level debug: equal names have
/// equal hashes.
pub(crate) fn hashed(name: &str) -> String {
    crate::hex::hex(&Sha256::digest(name.as_bytes())[..6])
}

#[cfg(test)]
mod tests;
#[cfg(all(test, feature = "bucket"))]
pub(crate) use tests::closed_spans;
