//! Traces of `persist serve` over OTLP. The receiver is a small one of our own: no collector can be
//! installed from the registries that the tests use. It decodes what it gets with the messages of
//! OpenTelemetry.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use persist_tests::http_server::{HttpServer, Received, respond};
use persist_tests::{guest, persist, tempdir};
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

/// Starts a receiver that takes everything.
fn collector() -> HttpServer {
    let close = "connection: close\r\n";
    HttpServer::start(move |_, stream| respond(stream, "200 OK", close, ""))
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
    let url = collector.url("");
    let service = service(
        dir.path(),
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=s3cr3t-0f-mine"),
            ("OTEL_SERVICE_NAME", "agents-of-the-test"),
        ],
    );
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let path = "/v1/agents/bot-7/run";
    let headers = [("traceparent", parent.as_str())];
    let ran = service.run(path, &["save", "plan-7", "hello"], &headers);
    assert_eq!(ran.status, 200);
    // The last spans are sent at the end.
    assert_eq!(service.end("-TERM"), Some(0));
    let received = collector.received();
    assert!(!received.is_empty(), "nothing was sent");
    for request in &received {
        assert_eq!(request.line, "POST /v1/traces");
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
fn a_dead_collector_costs_no_run_and_no_secret() {
    let dir = tempdir();
    // It takes each request, and answers none.
    let silent = HttpServer::start(|_, _| std::thread::sleep(Duration::from_secs(60)));
    let url = silent.url("").replace("//", "//user:s3cr3t-0f-mine@");
    let service = service(
        dir.path(),
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=s3cr3t-0f-mine"),
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
    while !log().contains("cannot send traces") {
        std::thread::yield_now();
    }
    assert_eq!(service.end("-TERM"), Some(0));
    let log = log();
    assert_eq!(log.matches("cannot send traces").count(), 1, "{log}");
    assert!(!log.contains("s3cr3t"), "{log}");
}

#[test]
fn nothing_is_sent_where_traces_are_turned_off() {
    let dir = tempdir();
    let collector = collector();
    let url = collector.url("");
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str());
    let service = service(dir.path(), &[endpoint, ("OTEL_SDK_DISABLED", "true")]);
    let ran = service.run("/v1/agents/bot/run", &["save", "x", "hello"], &[]);
    assert_eq!(ran.status, 200);
    assert_eq!(service.end("-TERM"), Some(0));
    assert!(collector.received().is_empty());
}
