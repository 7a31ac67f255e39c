//! The collector that spans and metrics are sent to: the process that it is told about, and its
//! failures.

use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry::{Key, KeyValue};
use opentelemetry_otlp::ExporterBuildError;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use persist_host::storage::redact;

use crate::error::Usage;

/// Returns the error of a variable that no exporter can be built with.
pub(super) fn refused(error: &ExporterBuildError) -> Usage {
    let what = format!("OTEL_EXPORTER_OTLP_*: {}", redact(&error.to_string()));
    Usage::new(what).with_hint("correct the variable, or set OTEL_SDK_DISABLED=true")
}

/// Returns the attributes of this process: those of the environment, and else its own name.
pub(super) fn resource() -> Resource {
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
pub(super) struct CollectorState {
    failed: &'static str,
    recovered: &'static str,
    is_failing: AtomicBool,
}

impl CollectorState {
    pub(super) fn new(failed: &'static str, recovered: &'static str) -> Self {
        Self {
            failed,
            recovered,
            is_failing: AtomicBool::new(false),
        }
    }

    /// Records the outcome of an export, and returns it.
    pub(super) fn record(&self, done: OTelSdkResult) -> OTelSdkResult {
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
