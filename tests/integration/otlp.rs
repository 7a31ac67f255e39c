//! Traces and metrics of `persist serve` over OTLP. The receiver is a small one of our own: no
//! collector can be installed from the registries that the tests use. It decodes what it gets with
//! the messages of OpenTelemetry.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};
use opentelemetry_proto::tonic::trace::v1::Span;
use persist_tests::http_server::{HttpServer, Received, respond};
use persist_tests::{guest, persist, tempdir, text};
use prost::Message as _;

use crate::serve::{Service, manifest, token};

/// Starts a service with these variables, whose log goes to a file.
fn service(dir: &Path, variables: &[(&str, &str)]) -> Service {
    let (token, entry) = token(dir, "admin", "*");
    let manifest = manifest(dir, &guest("test_guest"), &entry);
    let log = std::fs::File::create(dir.join("log")).expect("a file");
    let mut command = persist(&dir.join("store"));
    command.envs(variables.iter().copied()).stderr(log);
    Service::spawn(command, "127.0.0.1:0", &manifest, token, &[])
}

/// Starts a service that sends to a collector, with a secret in a header and one more variable.
fn service_of(dir: &Path, collector: &HttpServer, more: (&str, &str)) -> Service {
    let url = collector.url("");
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=s3cr3t-0f-mine");
    service(dir, &[endpoint, headers, more])
}

/// Starts a receiver that takes everything.
fn collector() -> HttpServer {
    let close = "connection: close\r\n";
    HttpServer::start(move |_, stream| respond(stream, "200 OK", close, ""))
}

/// Returns the requests that a receiver got so far at one of its addresses.
fn sent_to(collector: &HttpServer, line: &str) -> Vec<Received> {
    let mut received = collector.received();
    received.retain(|request| request.line == line);
    received
}

fn spans(requests: &[Received]) -> Vec<Span> {
    let requests = requests.iter().map(|request| {
        let decoded = ExportTraceServiceRequest::decode(&*request.body);
        decoded.expect("a message of OTLP")
    });
    let resources = requests.flat_map(|request| request.resource_spans);
    let scopes = resources.flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).collect()
}

#[test]
fn a_run_is_one_trace_from_the_request_to_the_storage() {
    let dir = tempdir();
    let collector = collector();
    let more = ("OTEL_SERVICE_NAME", "agents-of-the-test");
    let service = service_of(dir.path(), &collector, more);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let path = "/v1/agents/bot-7/run";
    let headers = [("traceparent", parent.as_str())];
    let ran = service.run(path, &["save", "plan-7", "hello"], &headers);
    assert_eq!(ran.status, 200);
    // The last spans are sent at the end.
    assert_eq!(service.end("-TERM"), Some(0));
    let received = sent_to(&collector, "POST /v1/traces");
    assert!(!received.is_empty(), "nothing was sent");
    for request in &received {
        assert_eq!(request.header("x-api-key"), Some("s3cr3t-0f-mine"));
        let bytes = String::from_utf8_lossy(&request.body);
        assert!(bytes.contains("agents-of-the-test"), "{bytes}");
        assert!(
            !bytes.contains("bot-7") && !bytes.contains("plan-7"),
            "{bytes}"
        );
    }
    let spans = spans(&received);
    let of_trace: HashMap<_, _> = spans
        .iter()
        .filter(|span| hex(&span.trace_id) == trace)
        .map(|span| (hex(&span.span_id), span))
        .collect();
    let creates = of_trace.values().copied().filter(|span| is_create(span));
    // The names of such a span and of those around it, and the parent of the outermost.
    let chains: Vec<_> = creates
        .map(|span| {
            let mut names = Vec::new();
            let mut at = Some(span);
            let mut outermost = String::new();
            while let Some(span) = at {
                names.push(span.name.as_str());
                outermost = hex(&span.parent_span_id);
                at = of_trace.get(&outermost).copied();
            }
            (names, outermost)
        })
        .collect();
    let request = "POST /v1/agents/{agent}/run";
    let names = vec!["storage_call", "commit", "guest_call", "agent_run", request];
    let of_client = "b7ad6b7169203331".to_owned();
    assert!(chains.contains(&(names, of_client)), "{chains:#?}");
}

fn is_create(span: &Span) -> bool {
    let create = Value::StringValue("create".into());
    let mut attributes = span.attributes.iter();
    span.name == "storage_call"
        && attributes.any(|one| {
            let value = one.value.as_ref().and_then(|value| value.value.as_ref());
            one.key == "operation" && value == Some(&create)
        })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_dead_collector_delays_no_run_and_its_log_shows_no_secret() {
    let dir = tempdir();
    // It takes each request, and answers none.
    let silent = HttpServer::start(|_, _| std::thread::sleep(Duration::from_secs(60)));
    let url = silent.url("").replace("//", "//user:s3cr3t-0f-mine@");
    let service = service(
        dir.path(),
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cr3t-0f-mine"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "4"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
            ("RUST_LOG", "debug"),
        ],
    );
    let path = "/v1/agents/bot/run";
    for _ in 0..20 {
        assert_eq!(service.run(path, &["save", "x", "hello"], &[]).status, 200);
    }
    let log = || std::fs::read_to_string(dir.path().join("log")).expect("a log");
    // More than one export of metrics has failed by then.
    while !log().contains("cannot send traces") || sent_to(&silent, "POST /v1/metrics").len() < 3 {
        std::thread::yield_now();
    }
    assert_eq!(service.end("-TERM"), Some(0));
    let log = log();
    assert_eq!(log.matches("cannot send traces").count(), 1, "{log}");
    assert_eq!(log.matches("cannot send metrics").count(), 1, "{log}");
    assert!(!log.contains("s3cr3t"), "{log}");
}

#[test]
fn nothing_is_sent_where_the_sdk_is_disabled() {
    let dir = tempdir();
    let collector = collector();
    let service = service_of(dir.path(), &collector, ("OTEL_SDK_DISABLED", "true"));
    let ran = service.run("/v1/agents/bot/run", &["save", "x", "hello"], &[]);
    assert_eq!(ran.status, 200);
    assert_eq!(service.end("-TERM"), Some(0));
    assert!(collector.received().is_empty());
}

#[test]
fn a_signal_that_is_turned_off_is_not_sent() {
    let dir = tempdir();
    let collector = collector();
    let service = service_of(dir.path(), &collector, ("OTEL_METRICS_EXPORTER", "none"));
    let ran = service.run("/v1/agents/bot/run", &["save", "x", "hello"], &[]);
    assert_eq!(ran.status, 200);
    assert_eq!(service.end("-TERM"), Some(0));
    assert!(!sent_to(&collector, "POST /v1/traces").is_empty());
    assert!(sent_to(&collector, "POST /v1/metrics").is_empty());
}

/// Returns the metrics of the newest export.
fn newest_metrics(collector: &HttpServer) -> Vec<Metric> {
    let received = sent_to(collector, "POST /v1/metrics");
    let newest = received.last().expect("metrics were sent");
    let decoded = ExportMetricsServiceRequest::decode(&*newest.body);
    let resources = decoded.expect("a message of OTLP").resource_metrics;
    let scopes = resources.into_iter().flat_map(|one| one.scope_metrics);
    scopes.flat_map(|scope| scope.metrics).collect()
}

fn is_cumulative(temporality: i32) -> bool {
    temporality == AggregationTemporality::Cumulative as i32
}

/// Returns the labels that Prometheus has for these attributes, with the names of `/metrics`.
fn labels(metric: &str, attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<_, _> = attributes
        .iter()
        .map(|one| {
            let value = match one.value.as_ref().and_then(|value| value.value.as_ref()) {
                Some(Value::StringValue(text)) => text.clone(),
                Some(Value::IntValue(number)) => number.to_string(),
                other => panic!("{}: {other:?}", one.key),
            };
            (one.key.replace('.', "_"), value)
        })
        .collect();
    // The conventions for databases have other names, and no error for success.
    if metric == "db.client.operation.duration" {
        let outcome = labels.remove("error_type").unwrap_or_else(|| "ok".into());
        labels.insert("outcome".into(), outcome);
        for (convention, name) in [
            ("db_system_name", "backend"),
            ("db_operation_name", "operation"),
        ] {
            let value = labels
                .remove(convention)
                .expect("an attribute of the conventions");
            labels.insert(name.into(), value);
        }
    }
    // The page tells it by the status.
    if metric == "http.server.request.duration"
        && let Some(error) = labels.remove("error_type")
    {
        assert_eq!(Some(&error), labels.get("http_response_status_code"));
    }
    labels
}

type Series = BTreeMap<(String, BTreeMap<String, String>), f64>;

/// Returns what Prometheus would make of these metrics.
fn as_prometheus(metrics: &[Metric]) -> Series {
    let mut series = Series::new();
    for metric in metrics {
        let unit = match metric.unit.as_str() {
            "s" => "_seconds",
            "By" => "_bytes",
            unit if unit.starts_with('{') => "",
            unit => panic!("{}: {unit}", metric.name),
        };
        let name = format!("{}{unit}", metric.name.replace('.', "_"));
        match metric.data.as_ref().expect("data") {
            Data::Sum(sum) => {
                assert!(is_cumulative(sum.aggregation_temporality));
                let suffix = if sum.is_monotonic { "_total" } else { "" };
                for point in &sum.data_points {
                    let value = match point.value {
                        Some(Number::AsInt(number)) => number as f64,
                        other => panic!("{name}: {other:?}"),
                    };
                    let labels = labels(&metric.name, &point.attributes);
                    series.insert((format!("{name}{suffix}"), labels), value);
                }
            }
            Data::Histogram(histogram) => {
                assert!(is_cumulative(histogram.aggregation_temporality));
                for point in &histogram.data_points {
                    let labels = labels(&metric.name, &point.attributes);
                    let count = point.count as f64;
                    let key = |suffix: &str| (format!("{name}{suffix}"), labels.clone());
                    series.insert(key("_count"), count);
                    series.insert(key("_sum"), point.sum.expect("a sum"));
                    let mut sum = 0;
                    let bounds = point.explicit_bounds.iter().map(f64::to_string);
                    let bounds = bounds.chain(["+Inf".to_owned()]);
                    for (bound, count) in bounds.zip(&point.bucket_counts) {
                        sum += count;
                        let mut key = key("_bucket");
                        key.1.insert("le".into(), bound);
                        series.insert(key, sum as f64);
                    }
                }
            }
            other => panic!("{name}: {other:?}"),
        }
    }
    series
}

/// Returns the series of a page of OpenMetrics. No value of a label has a comma or a quote.
fn of_page(page: &str) -> Series {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let labels = labels.trim_end_matches('}').split(',');
            let labels = labels.filter(|label| !label.is_empty()).map(|label| {
                let (key, value) = label.split_once('=').expect("a label");
                let value = value.trim_matches('"');
                // A whole number has a point on the page.
                let value = match (key, value.parse::<f64>()) {
                    ("le", Ok(bound)) if bound.is_finite() => bound.to_string(),
                    _ => value.to_owned(),
                };
                (key.to_owned(), value)
            });
            let value = value.parse().expect("a number");
            ((name.to_owned(), labels.collect()), value)
        })
        .collect()
}

#[test]
fn the_metrics_that_are_sent_are_those_of_the_page() {
    let dir = tempdir();
    let collector = collector();
    let more = ("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=one");
    let service = service_of(dir.path(), &collector, more);
    let path = "/v1/agents/bot-7/run";
    for _ in 0..3 {
        assert_eq!(
            service.run(path, &["save", "plan-7", "hello"], &[]).status,
            200
        );
    }
    let trap = service.run(path, &["trap"], &[]);
    assert!(trap.status.is_server_error() || trap.status.is_client_error());
    assert_eq!(service.get("/v1/agents/bot-7/names/none").status, 404);
    let page = service.get("/metrics");
    let shown = of_page(text(&page.body));
    // The last metrics are sent at the end; until then, a minute would have to pass.
    assert!(sent_to(&collector, "POST /v1/metrics").is_empty());
    assert_eq!(service.end("-TERM"), Some(0));
    let received = sent_to(&collector, "POST /v1/metrics");
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].header("x-api-key"), Some("s3cr3t-0f-mine"));
    let bytes = String::from_utf8_lossy(&received[0].body);
    for part in [
        "service.name",
        "persist",
        "service.version",
        "service.instance.id",
    ] {
        assert!(bytes.contains(part), "{part} in {bytes}");
    }
    assert!(
        !bytes.contains("bot-7") && !bytes.contains("plan-7"),
        "{bytes}"
    );
    let sent = as_prometheus(&newest_metrics(&collector));
    let names = |series: &Series| -> BTreeSet<String> {
        series.keys().map(|(name, _)| name.clone()).collect()
    };
    let mut shown_names = names(&shown);
    // The resource has the version.
    assert!(shown_names.remove("persist_build_info"));
    assert_eq!(names(&sent), shown_names);
    for (key, value) in &shown {
        if key.0 == "persist_build_info" {
            continue;
        }
        let sent = sent
            .get(key)
            .unwrap_or_else(|| panic!("{key:?} in {sent:#?}"));
        // The store may be read after the page.
        let is_same = if key.0.starts_with("persist_run") || key.0.starts_with("persist_commit") {
            (sent - value).abs() < 1e-9
        } else {
            sent >= value
        };
        assert!(is_same, "{key:?}: {sent}, not {value}");
    }
    let ran = BTreeMap::from([("outcome".to_owned(), "ok".to_owned())]);
    assert_eq!(
        sent[&("persist_run_duration_seconds_count".to_owned(), ran)],
        3.0
    );
}

#[test]
fn metrics_are_sent_at_the_interval() {
    let dir = tempdir();
    let collector = collector();
    let url = collector.url("/own/address");
    let service = service(
        dir.path(),
        &[
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &url),
            ("OTEL_METRIC_EXPORT_INTERVAL", "20"),
        ],
    );
    assert_eq!(
        service
            .run("/v1/agents/bot/run", &["save", "x", "y"], &[])
            .status,
        200
    );
    while sent_to(&collector, "POST /own/address").len() < 3 {
        std::thread::yield_now();
    }
    assert_eq!(service.end("-TERM"), Some(0));
    assert!(sent_to(&collector, "POST /v1/traces").is_empty());
}

#[test]
fn a_check_of_the_manifest_sends_no_metrics() {
    let dir = tempdir();
    let collector = collector();
    let (_, entry) = token(dir.path(), "admin", "*");
    let manifest = manifest(dir.path(), &guest("test_guest"), &entry);
    let mut command = persist(&dir.path().join("store"));
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url(""));
    let checked = command
        .args(["serve", "--check", "--manifest"])
        .arg(&manifest);
    assert!(checked.output().expect("persist starts").status.success());
    assert!(sent_to(&collector, "POST /v1/metrics").is_empty());
}

#[test]
fn a_variable_of_metrics_that_cannot_be_used_is_a_usage_error() {
    let dir = tempdir();
    let (_, entry) = token(dir.path(), "admin", "*");
    let manifest = manifest(dir.path(), &guest("test_guest"), &entry);
    for (name, value) in [
        ("OTEL_METRICS_EXPORTER", "prometheus"),
        ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "10s"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        (
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
            "latest",
        ),
    ] {
        let mut command = persist(&dir.path().join("store"));
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9");
        command.env("OTEL_TRACES_EXPORTER", "none").env(name, value);
        let failed = command
            .args(["serve", "--manifest"])
            .arg(&manifest)
            .output();
        let failed = failed.expect("persist starts");
        let error = text(&failed.stderr);
        assert_eq!(failed.status.code(), Some(2), "{error}");
        assert!(error.starts_with(&format!("error: {name} is ")), "{error}");
    }
}
