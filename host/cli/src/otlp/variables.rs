//! Standard variables that choose what is sent, checked before the service begins. The exporters
//! read the others, and ignore what they do not understand.

use std::time::Duration;

use opentelemetry_sdk::metrics::Temporality;
use persist_host::storage::{Environment, redact};

use crate::error::Usage;

/// Time between two exports of metrics, by OpenTelemetry's specification.
const EXPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Variables of one signal. Of two, the first is for this signal, and the other for all.
pub(super) struct Signal {
    exporter: &'static str,
    endpoint: [&'static str; 2],
    protocol: [&'static str; 2],
    timeout: [&'static str; 2],
}

pub(super) const TRACES: Signal = Signal {
    exporter: "OTEL_TRACES_EXPORTER",
    endpoint: [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ],
    protocol: [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ],
    timeout: [
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ],
};

pub(super) const METRICS: Signal = Signal {
    exporter: "OTEL_METRICS_EXPORTER",
    endpoint: [
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ],
    protocol: [
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ],
    timeout: [
        "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ],
};

impl Signal {
    /// Returns true if the environment names a collector for this signal.
    pub(super) fn is_wanted(&self, environment: &Environment) -> Result<bool, Usage> {
        let is_disabled = text(environment, "OTEL_SDK_DISABLED");
        if is_disabled.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(false);
        }
        let exporter = text(environment, self.exporter);
        match exporter.as_deref() {
            Some("none") => return Ok(false),
            None | Some("otlp") => {}
            Some(other) => {
                let what = format!("{} is {}, not otlp or none", self.exporter, shown(other));
                return Err(Usage::new(what).with_hint("write otlp or none"));
            }
        }
        if exporter.is_none() && first(environment, self.endpoint).is_none() {
            return Ok(false);
        }
        if let Some((name, protocol)) = first(environment, self.protocol)
            && protocol != "http/protobuf"
        {
            let protocol = shown(&protocol);
            let what = format!("{name} is {protocol}; Persist sends http/protobuf only");
            let hint = "write http/protobuf, and name the collector's port for it, usually 4318";
            return Err(Usage::new(what).with_hint(hint));
        }
        if let Some((name, value)) = first(environment, self.timeout) {
            milliseconds(name, &value)?;
        }
        Ok(true)
    }
}

/// Returns the time between two exports of metrics.
pub(super) fn export_interval(environment: &Environment) -> Result<Duration, Usage> {
    const NAME: &str = "OTEL_METRIC_EXPORT_INTERVAL";
    match text(environment, NAME) {
        Some(value) => milliseconds(NAME, &value),
        None => Ok(EXPORT_INTERVAL),
    }
}

/// Returns the temporality that the collector prefers.
pub(super) fn temporality(environment: &Environment) -> Result<Temporality, Usage> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let Some(value) = text(environment, NAME) else {
        return Ok(Temporality::Cumulative);
    };
    value.parse().map_err(|()| {
        let what = format!("{NAME} is {}", shown(&value));
        Usage::new(what).with_hint("write cumulative, delta or lowmemory")
    })
}

/// Returns a time of at least one millisecond: the exporter of metrics would send without a pause.
fn milliseconds(name: &str, value: &str) -> Result<Duration, Usage> {
    match value.parse() {
        Ok(count) if count > 0 => Ok(Duration::from_millis(count)),
        _ => {
            let what = format!("{name} is {}, not milliseconds", shown(value));
            Err(Usage::new(what).with_hint("write a number of milliseconds, such as 10000"))
        }
    }
}

/// Returns a variable without the spaces around it; none where nothing is left.
fn text(environment: &Environment, name: &str) -> Option<String> {
    let value = environment.get(name)?.to_str()?.trim().to_owned();
    (!value.is_empty()).then_some(value)
}

fn first(environment: &Environment, names: [&'static str; 2]) -> Option<(&'static str, String)> {
    let mut names = names.into_iter();
    names.find_map(|name| text(environment, name).map(|value| (name, value)))
}

fn shown(value: &str) -> String {
    format!("{:?}", redact(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&'static str, &'static str)]) -> Environment {
        variables.iter().copied().collect()
    }

    #[test]
    fn a_signal_is_sent_where_a_collector_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        for signal in [&TRACES, &METRICS] {
            let is = |variables: &[(&'static str, &'static str)]| {
                let wanted = signal.is_wanted(&environment(variables));
                wanted.expect("no mistake")
            };
            assert!(!is(&[]));
            assert!(is(&[endpoint]));
            assert!(is(&[(signal.endpoint[0], "http://127.0.0.1:4318")]));
            assert!(is(&[(signal.exporter, "otlp")]), "the usual port");
            assert!(!is(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]));
            assert!(is(&[endpoint, ("OTEL_SDK_DISABLED", "false")]));
            assert!(!is(&[endpoint, (signal.exporter, "none")]));
            assert!(!is(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]));
        }
    }

    #[test]
    fn one_signal_alone_may_be_turned_off() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        let environment = environment(&[endpoint, ("OTEL_METRICS_EXPORTER", "none")]);
        assert!(TRACES.is_wanted(&environment).expect("no mistake"));
        assert!(!METRICS.is_wanted(&environment).expect("no mistake"));
    }

    #[test]
    fn a_value_that_cannot_be_used_is_refused_and_its_variable_is_named() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
        for signal in [&TRACES, &METRICS] {
            for (name, value) in [
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                (signal.protocol[0], "http/json"),
                (signal.exporter, "zipkin"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
                (signal.timeout[0], "0"),
            ] {
                let error = signal.is_wanted(&environment(&[endpoint, (name, value)]));
                let error = error.expect_err(value);
                assert!(error.to_string().starts_with(name), "{error}");
                assert!(error.hint.is_some());
            }
            // The variable of the signal counts before that of all signals.
            let own = (signal.protocol[0], "http/protobuf");
            let all = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
            let wanted = signal.is_wanted(&environment(&[endpoint, own, all]));
            assert!(wanted.expect("no mistake"));
        }
    }

    #[test]
    fn pace_and_temporality_of_metrics_are_checked() {
        let interval =
            |value| export_interval(&environment(&[("OTEL_METRIC_EXPORT_INTERVAL", value)]));
        assert_eq!(interval("").expect("no mistake"), EXPORT_INTERVAL);
        let second = interval(" 1000 ").expect("no mistake");
        assert_eq!(second, Duration::from_secs(1));
        for value in ["0", "-1", "1s", "1.5"] {
            let error = interval(value).expect_err(value).to_string();
            assert!(
                error.starts_with("OTEL_METRIC_EXPORT_INTERVAL is"),
                "{error}"
            );
        }
        let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        let chosen = |value| temporality(&environment(&[(name, value)]));
        assert_eq!(chosen("").expect("no mistake"), Temporality::Cumulative);
        assert_eq!(chosen("Delta").expect("no mistake"), Temporality::Delta);
        let error = chosen("latest").expect_err("unknown").to_string();
        assert!(error.starts_with(name), "{error}");
    }

    #[test]
    fn secrets_in_a_variable_are_not_shown() {
        let address = "http://user:s3cr3t-0f-mine@host";
        for name in [
            "OTEL_METRICS_EXPORTER",
            "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        ] {
            let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", address);
            let error = METRICS.is_wanted(&environment(&[endpoint, (name, address)]));
            let error = error.expect_err("refused").to_string();
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }
}
