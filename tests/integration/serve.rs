//! `persist serve`, over HTTP. Each answer is validated against the OpenAPI document that the
//! service itself serves.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use persist_tests::{block_on, guest, persist, run_fails, run_ok, tempdir, text, toolchains};
use serde_json::{Value, json};

/// A service, and a token that it takes for everything.
pub(crate) struct Service {
    child: Child,
    pub(crate) address: String,
    pub(crate) token: String,
    document: Value,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value
            .unwrap_or_else(|| panic!("{name}: {:?}", self.headers))
            .to_str()
            .expect("text")
    }
}

/// Makes a token, and returns it with its lines of the manifest.
pub(crate) fn token(dir: &Path, rights: &str, agents: &str) -> (String, String) {
    let words = [
        "token", "new", "--json", "--rights", rights, "--agents", agents,
    ];
    let made: Value = serde_json::from_str(&run_ok(dir, &words)).expect("JSON");
    let part = |key: &str| made[key].as_str().expect("text").to_owned();
    (part("token"), part("manifest"))
}

pub(crate) fn manifest(dir: &Path, component: &Path, more: &str) -> PathBuf {
    let file = dir.join("agents.toml");
    let component = component.display();
    let text = format!("[[agents]]\nname = \"bot*\"\ncomponent = \"{component}\"\n{more}\n");
    fs::write(&file, text).expect("written");
    file
}

impl Service {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::with(dir, &guest("test_guest"), &[])
    }

    pub(crate) fn with(dir: &Path, component: &Path, options: &[&str]) -> Self {
        let (token, entry) = token(dir, "admin", "*");
        let manifest = manifest(dir, component, &entry);
        Self::of(dir, &manifest, token, options)
    }

    pub(crate) fn of(dir: &Path, manifest: &Path, token: String, options: &[&str]) -> Self {
        let command = persist(&dir.join("store"));
        Self::spawn(command, "127.0.0.1:0", manifest, token, options)
    }

    /// Starts a service by a command that names its store.
    pub(crate) fn spawn(
        mut command: Command,
        listen: &str,
        manifest: &Path,
        token: String,
        options: &[&str],
    ) -> Self {
        let manifest = manifest.to_str().expect("text");
        let mut child = command
            .args([
                "serve",
                "--json",
                "--listen",
                listen,
                "--manifest",
                manifest,
            ])
            .args(options)
            .stdout(Stdio::piped())
            .spawn()
            .expect("persist starts");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(event["event"], "listening");
        let url = event["url"].as_str().expect("text");
        let address = url.strip_prefix("http://").expect("no TLS").to_owned();
        let mut service = Self {
            child,
            address,
            token,
            document: Value::Null,
        };
        let document = service.plain("GET", "/v1/openapi.json", &[], "");
        service.document = document.json();
        service
    }

    /// Returns the most memory that the process has had so far, in bytes.
    pub(crate) fn peak_memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.expect("a line").trim().trim_end_matches(" kB");
        kib.parse::<usize>().expect("a number") << 10
    }

    /// Sends a request without a token, whose answer is not validated.
    pub(crate) fn plain(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        block_on(async {
            let stream = tokio::net::TcpStream::connect(&self.address)
                .await
                .expect("connects");
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .expect("HTTP");
            tokio::spawn(connection);
            let mut request = Request::builder().method(method).uri(path);
            if headers.iter().all(|(name, _)| *name != "host") {
                request = request.header("host", &self.address);
            }
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let request = request.body(Full::new(Bytes::from(body.to_owned())));
            let reply = sender
                .send_request(request.expect("valid"))
                .await
                .expect("a reply");
            let (head, body) = reply.into_parts();
            Reply {
                status: head.status,
                headers: head.headers,
                body: body.collect().await.expect("a whole body").to_bytes(),
            }
        })
    }

    /// Sends a request with the token, and validates the answer against the document.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Reply {
        let token = format!("Bearer {}", self.token);
        let mut all = vec![("authorization", token.as_str())];
        all.extend(headers);
        let reply = self.plain(method, path, &all, body);
        self.validate(method, path, &reply);
        reply
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "")
    }

    pub(crate) fn run(&self, path: &str, args: &[&str], headers: &[(&str, &str)]) -> Reply {
        let body = json!({ "args": args }).to_string();
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.send("POST", path, &headers, &body)
    }

    fn validate(&self, method: &str, path: &str, reply: &Reply) {
        const URL: &str = "https://localhost/openapi.json";
        let segments: Vec<_> = path.split('?').next().expect("a path").split('/').collect();
        let paths = self.document["paths"].as_object().expect("paths");
        let item = paths.iter().find(|(template, _)| {
            let parts: Vec<_> = template.split('/').collect();
            let is_same = |(part, word): (&&str, &&str)| part.starts_with('{') || part == word;
            parts.len() == segments.len() && parts.iter().zip(&segments).all(is_same)
        });
        let (template, item) = item.unwrap_or_else(|| panic!("no path is {path}"));
        let method = method.to_ascii_lowercase();
        let escaped = template.replace('~', "~0").replace('/', "~1");
        let responses = &item[&method]["responses"];
        let status = reply.status.as_str();
        let status = if responses[status].is_null() {
            "default"
        } else {
            status
        };
        assert_eq!(
            status == "default",
            !reply.status.is_success() && status != "304"
        );
        let Some(content) = responses[status]["content"].as_object() else {
            return assert!(reply.body.is_empty(), "{path}");
        };
        let media_type = reply.header("content-type");
        if !content.contains_key(media_type) {
            return assert!(
                content.contains_key("application/octet-stream"),
                "{media_type}"
            );
        }
        if !media_type.ends_with("json") {
            return;
        }
        let media_type = media_type.replace('/', "~1");
        let at = format!(
            "{URL}#/paths/{escaped}/{method}/responses/{status}/content/{media_type}/schema"
        );
        let at = at.replace('{', "%7B").replace('}', "%7D");
        let mut compiler = boon::Compiler::new();
        compiler
            .add_resource(URL, self.document.clone())
            .expect("a document");
        let mut schemas = boon::Schemas::new();
        let schema = compiler.compile(&at, &mut schemas);
        let schema = schema.unwrap_or_else(|error| panic!("{at}: {error:#}"));
        let value = reply.json();
        let valid = schemas.validate(&value, schema);
        valid.unwrap_or_else(|error| panic!("{path}: {value}: {error}"));
    }

    /// Sends a signal, and returns the exit code; none after SIGKILL.
    pub(crate) fn end(mut self, signal: &str) -> Option<i32> {
        self.signal(signal);
        self.child.wait().expect("it ends").code()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("kill runs").success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_service_is_refused_where_everyone_could_use_it() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let file = manifest(dir.path(), &guest("test_guest"), "");
    let file = file.to_str().expect("text");
    let refused = run_fails(&store, &["serve", "--manifest", file], 2);
    assert!(
        refused.contains("the manifest has no [[tokens]]"),
        "{refused}"
    );
    assert!(
        refused.contains("hint: run `persist token new`"),
        "{refused}"
    );
    let words = [
        "serve",
        "--manifest",
        file,
        "--no-auth",
        "--listen",
        "0.0.0.0:0",
    ];
    let refused = run_fails(&store, &words, 2);
    assert!(
        refused.contains("0.0.0.0:0 is not a loopback address"),
        "{refused}"
    );
    fs::write(dir.path().join("bad.wasm"), "no component").expect("written");
    let file = manifest(dir.path(), Path::new("bad.wasm"), "");
    let words = [
        "serve",
        "--check",
        "--manifest",
        file.to_str().expect("text"),
    ];
    let refused = run_fails(&store, &words, 2);
    assert!(
        refused.contains("agents[0] \"bot*\": component: "),
        "{refused}"
    );
}

#[test]
fn options_without_sense_are_usage_errors() {
    let dir = tempdir();
    for (option, value, why) in [
        ("--queue", "0", "0 is not in 1..=1000000"),
        ("--max-connections", "0", "0 is not in 1..=1000000"),
        (
            "--max-connections",
            "18446744073709551615",
            "is not in 1..=1000000",
        ),
        ("--idle-timeout", "1000000000y", "the maximum is 7days"),
    ] {
        let words = ["serve", "--manifest", "agents.toml", option, value];
        let refused = run_fails(&dir.path().join("store"), &words, 2);
        assert!(
            refused.contains(option) && refused.contains(why),
            "{refused}"
        );
    }
}

#[test]
fn a_name_of_a_host_is_no_address_to_listen_on() {
    let dir = tempdir();
    let words = ["serve", "--manifest", "none", "--listen", "localhost:7999"];
    let refused = run_fails(&dir.path().join("store"), &words, 2);
    assert!(refused.contains("such as 127.0.0.1:7070"), "{refused}");
}

#[test]
fn a_body_of_another_shape_is_refused_in_the_words_of_json() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let json_type = [("content-type", "application/json")];
    for (path, body, expected) in [
        ("names/x/restore", "1", "expected an object"),
        (
            "names/x/restore",
            "{\"version\": \"1\"}",
            "expected a whole number from 0",
        ),
        ("names/x/fork", "1", "expected an object"),
        ("run", "1", "expected an object"),
        ("run", "{\"args\": 1}", "expected an array"),
    ] {
        let path = format!("/v1/agents/bot/{path}");
        let refused = service.send("POST", &path, &json_type, body);
        assert_eq!(refused.status, 400, "{path}");
        let detail = refused.json()["detail"].clone();
        let detail = detail.as_str().expect("text");
        assert!(detail.contains(expected), "{path}: {detail}");
        assert!(refused.json()["hint"].is_string());
    }
}

#[test]
fn a_request_that_no_route_takes_is_a_problem_and_no_page_to_guess() {
    let dir = tempdir();
    let service = Service::with(dir.path(), &guest("test_guest"), &["--no-console"]);
    let html = [("accept", "text/html")];
    for (method, path, status) in [("GET", "/none", 404), ("POST", "/v1/agents", 405)] {
        let refused = service.plain(method, path, &html, "");
        assert_eq!(refused.status, status, "{path}");
        assert_eq!(refused.header("content-type"), "application/problem+json");
        assert_eq!(refused.header("x-content-type-options"), "nosniff");
    }
}

#[test]
fn a_request_needs_a_token_with_the_right_for_the_agent() {
    let dir = tempdir();
    let (reader, entry) = token(dir.path(), "read", "bot-1");
    let file = manifest(dir.path(), &guest("test_guest"), &entry);
    let service = Service::of(dir.path(), &file, reader, &[]);
    assert_eq!(service.plain("GET", "/healthz", &[], "").status, 200);
    assert_eq!(service.plain("GET", "/readyz", &[], "").status, 200);
    let none = service.plain("GET", "/v1/agents", &[], "");
    assert_eq!(none.status, 401);
    assert_eq!(none.header("www-authenticate"), "Bearer");
    assert!(text(&none.body).contains("send the header"));
    let wrong = [("authorization", "Bearer persist_0000")];
    let wrong = service.plain("GET", "/v1/agents", &wrong, "");
    assert_eq!(wrong.status, 401);
    let hint = wrong.json()["hint"].clone();
    assert!(hint.as_str().expect("text").contains("of the manifest"));
    assert_eq!(service.get("/v1/agents/bot-1/names").status, 200);
    assert_eq!(service.get("/v1/agents/bot-2/names").status, 403);
    assert_eq!(
        service.run("/v1/agents/bot-1/run", &["echo"], &[]).status,
        403
    );
    let path = "/v1/agents/bot-1/names/x/state";
    assert_eq!(service.send("PUT", path, &[], "x").status, 403);
}

#[test]
fn a_list_names_no_agent_of_other_tokens() {
    let dir = tempdir();
    let (all, first) = token(dir.path(), "admin", "*");
    let (reader, second) = token(dir.path(), "read", "bot-b*");
    let entries = format!("{first}\n{second}");
    let file = manifest(dir.path(), &guest("test_guest"), &entries);
    let service = Service::of(dir.path(), &file, all, &[]);
    let agents = ["bot-a", "bot-b1", "bot-b2", "bot-c"];
    for agent in agents {
        let path = format!("/v1/agents/{agent}/names/x/state");
        assert_eq!(service.send("PUT", &path, &[], "x").status, 201);
    }
    let listed = |service: &Service| {
        let (mut names, mut after) = (Vec::new(), String::new());
        loop {
            let page = service.get(&format!("/v1/agents?limit=1{after}")).json();
            let name = |value: &Value| value.as_str().map(str::to_owned);
            let next = name(&page["next"]);
            let name = name(&page["names"][0]);
            assert_eq!(name, next, "{page}");
            let Some(name) = name else {
                return names;
            };
            after = format!("&after={name}");
            names.push(name);
        }
    };
    assert_eq!(listed(&service), agents);
    let reading = Service::of(dir.path(), &file, reader, &[]);
    assert_eq!(listed(&reading), ["bot-b1", "bot-b2"]);
    let whole = reading.get("/v1/agents").json();
    let expected = json!({ "names": ["bot-b1", "bot-b2"], "next": null });
    assert_eq!(whole, expected);
}

#[test]
fn metrics_need_their_right_and_name_no_agent() {
    let dir = tempdir();
    let (scraper, entry) = token(dir.path(), "metrics", "*");
    let (user, other) = token(dir.path(), "run,read,save", "*");
    let file = manifest(
        dir.path(),
        &guest("test_guest"),
        &format!("{entry}\n{other}"),
    );
    let service = Service::of(dir.path(), &file, scraper, &[]);
    assert_eq!(service.plain("GET", "/metrics", &[], "").status, 401);
    let user = format!("Bearer {user}");
    let as_user = [("authorization", user.as_str())];
    assert_eq!(service.plain("GET", "/metrics", &as_user, "").status, 403);
    assert_eq!(service.get("/v1/agents").status, 403);
    let headers = [as_user[0], ("content-type", "application/json")];
    let body = json!({ "args": ["save", "plan-7", "hello"] }).to_string();
    let ran = service.plain("POST", "/v1/agents/bot-7/run", &headers, &body);
    assert_eq!(ran.status, 200);
    let metrics = service.get("/metrics");
    assert_eq!(metrics.status, 200);
    let media_type = metrics.header("content-type");
    assert!(media_type.starts_with("application/openmetrics-text; version=1.0.0"));
    let text = text(&metrics.body);
    for series in [
        "db_client_operation_duration_seconds_count{backend=\"local\",operation=\"create\",\
         outcome=\"ok\"} ",
        "persist_guest_call_duration_seconds_count{backend=\"local\",operation=\"save\",\
         outcome=\"ok\"} 1",
        "http_server_request_duration_seconds_count{http_request_method=\"POST\",\
         http_route=\"/v1/agents/{agent}/run\",http_response_status_code=\"200\",\
         url_scheme=\"http\"} 1",
    ] {
        assert!(text.contains(series), "{series} in:\n{text}");
    }
    assert!(
        !text.contains("bot-7") && !text.contains("plan-7"),
        "{text}"
    );
}

#[test]
fn metrics_count_runs_saves_refusals_and_queues() {
    let dir = tempdir();
    let options = ["--queue", "2", "--grace", "1ms"];
    let service = Service::with(dir.path(), &guest("test_guest"), &options);
    let value = |series: &str| {
        let metrics = service.get("/metrics");
        let text = text(&metrics.body);
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse::<f64>().expect("a number"))
    };
    let of_run = |status: u16| {
        format!(
            "http_server_request_duration_seconds_count{{http_request_method=\"POST\",\
             http_route=\"/v1/agents/{{agent}}/run\",http_response_status_code=\"{status}\",\
             url_scheme=\"http\"}}"
        )
    };
    let saves = "persist_commit_duration_seconds_count{backend=\"local\",operation=\"save\",\
                 outcome=\"ok\"}";
    let runs =
        |outcome: &str| format!("persist_run_duration_seconds_count{{outcome=\"{outcome}\"}}");
    let path = "/v1/agents/bot/run";
    // The first save also makes the store and its policy.
    assert_eq!(service.run(path, &["save", "x", "one"], &[]).status, 200);
    let saved = value(saves);
    assert_eq!(service.run(path, &["save", "x", "two"], &[]).status, 200);
    let state = "/v1/agents/bot/names/x/state";
    assert_eq!(service.send("PUT", state, &[], "three").status, 200);
    assert_eq!(value(saves), saved + 2.0);
    assert_eq!(service.run(path, &["error", "no luck"], &[]).status, 422);
    assert_eq!((value(&runs("ok")), value(&runs("agent"))), (2.0, 1.0));
    let body = "{\"args\": [\"echo\"]}";
    assert_eq!(service.plain("POST", path, &[], body).status, 401);
    assert_eq!((value(&of_run(200)), value(&of_run(401))), (2.0, 1.0));
    std::thread::scope(|scope| {
        let looping = scope.spawn(|| service.run(path, &["save-and-loop", "y", "hello"], &[]));
        while (value("persist_runs_active"), value("persist_runs_waiting")) != (1.0, 0.0) {
            std::thread::yield_now();
        }
        let waiting = scope.spawn(|| service.run(path, &["echo"], &[]));
        while (value("persist_runs_active"), value("persist_runs_waiting")) != (1.0, 1.0) {
            std::thread::yield_now();
        }
        assert_eq!(service.run(path, &["echo"], &[]).status, 429);
        assert_eq!(value(&of_run(429)), 1.0);
        service.signal("-TERM");
        // Aborted: an answer, or a closed connection.
        let _ = (looping.join(), waiting.join());
    });
    assert_eq!(service.end("-0"), Some(0));
}

#[test]
fn without_tokens_requests_of_web_pages_are_refused() {
    let dir = tempdir();
    let file = manifest(dir.path(), &guest("test_guest"), "");
    let service = Service::of(dir.path(), &file, String::new(), &["--no-auth"]);
    assert_eq!(service.plain("GET", "/v1/agents", &[], "").status, 200);
    let origin = [("origin", "https://example.com")];
    assert_eq!(service.plain("GET", "/v1/agents", &origin, "").status, 403);
    let mut stream = TcpStream::connect(&service.address).expect("connects");
    let request = "GET /v1/agents HTTP/1.1\r\nhost: example.com\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("written");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 403 "), "{reply}");
    // A script or an image of a page has no origin.
    for (site, status) in [("cross-site", 403), ("same-site", 403), ("none", 200)] {
        let site = [("sec-fetch-site", site)];
        assert_eq!(service.plain("GET", "/v1/agents", &site, "").status, status);
    }
    let hosts = [("host", "localhost"), ("host", "example.com")];
    assert_eq!(service.plain("GET", "/v1/agents", &hosts, "").status, 403);
    for path in [
        "/v1/agents",
        "/healthz",
        "/",
        "/no-path",
        "/assets/console.js",
    ] {
        let reply = service.plain("GET", path, &[], "");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin");
    }
}

#[test]
fn a_run_returns_its_answer_and_its_versions() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let path = "/v1/agents/bot/sessions/monday/run";
    let ran = service.run(path, &["save", "x", "hello"], &[]);
    assert_eq!(ran.status, 200);
    assert_eq!(ran.json()["answer"], "version 1");
    assert_eq!(ran.json()["versions"][0]["address"], "bot/monday/x@1");
    let failed = service.run(path, &["error", "no luck"], &[]);
    assert_eq!(
        (failed.status.as_u16(), &failed.json()["code"]),
        (422, &json!("agent"))
    );
    assert_eq!(
        service.run("/v1/agents/other/run", &["echo"], &[]).status,
        404
    );
    let unknown = [("content-type", "application/json")];
    let unknown = service.send("POST", path, &unknown, "{\"arg\": []}");
    assert_eq!(unknown.status, 400);
    assert_eq!(service.send("POST", path, &[], "{}").status, 415);
    let events = service.run(
        path,
        &["save", "x", "again"],
        &[("accept", "text/event-stream")],
    );
    let events = text(&events.body).to_owned();
    let kinds = events
        .lines()
        .filter_map(|line| line.strip_prefix("event: "));
    assert_eq!(kinds.collect::<Vec<_>>(), ["saved", "answer"], "{events}");
    let sessions = service.get("/v1/agents/bot/sessions").json();
    assert_eq!(sessions["names"], json!(["monday"]));
}

/// Begins a run of `bot` in a stream that nothing has been read of.
fn begin_run(service: &Service, args: &[&str], headers: &str) -> TcpStream {
    let body = json!({ "args": args }).to_string();
    let mut stream = TcpStream::connect(&service.address).expect("connects");
    write!(
        stream,
        "POST /v1/agents/bot/run HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\naccept: text/event-stream\r\n{headers}\
         content-length: {}\r\n\r\n{body}",
        service.address,
        service.token,
        body.len()
    )
    .expect("written");
    stream
}

/// Begins a run of `bot`, and returns its events as they come: their names and the lines of data.
fn run_events(
    service: &Service,
    args: &[&str],
    headers: &str,
) -> impl Iterator<Item = (String, String)> + use<> {
    let mut lines = BufReader::new(begin_run(service, args, headers)).lines();
    let mut next = move || {
        lines.find_map(|line| {
            let line = line.expect("a line");
            let (field, value) = line.split_once(": ")?;
            ["event", "data"].contains(&field).then(|| value.to_owned())
        })
    };
    std::iter::from_fn(move || Some((next()?, next().expect("data"))))
}

/// Returns the hexadecimal digits of a step of the guest's scenario `print`.
fn step(stream: &str, bytes: &[u8]) -> String {
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    format!("{stream}:{}", digits.collect::<String>())
}

/// Saves the next version of a name that an agent waits for.
fn go(service: &Service) {
    let saved = service.send("PUT", "/v1/agents/bot/names/go/state", &[], "go");
    assert!(saved.status.is_success());
}

#[test]
fn output_of_a_run_comes_while_the_run_continues() {
    let dir = tempdir();
    let service = Service::with(dir.path(), &guest("wasi_guest"), &[]);
    let steps = [
        step("out", b"hello\n"),
        step("err", b"oh\n"),
        step("out", b"bye\n"),
    ];
    let args = ["print", "go", &steps[0], &steps[1], &steps[2]];
    let key = "idempotency-key: turn-1\r\n";
    let mut first = run_events(&service, &args, key);
    let event = |name: &str, text: &str| (name.to_owned(), json!({ "text": text }).to_string());
    // The run waits until the test has seen each text.
    assert_eq!(first.next(), Some(event("stdout", "hello\n")));
    let mut second = run_events(&service, &args, key);
    assert_eq!(
        second.next(),
        Some(event("stdout", "hello\n")),
        "joined late"
    );
    go(&service);
    assert_eq!(first.next(), Some(event("stderr", "oh\n")));
    go(&service);
    assert_eq!(first.next(), Some(event("stdout", "bye\n")));
    let (name, answer) = first.next().expect("the last event");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(
        (name.as_str(), &answer["answer"]),
        ("answer", &json!("printed"))
    );
    assert_eq!(answer["stdout"], "hello\nbye\n");
    let rest: Vec<_> = second.by_ref().take(3).map(|(name, _)| name).collect();
    assert_eq!(rest, ["stderr", "stdout", "answer"]);
    // The answer is kept, and the output is only in it.
    let (name, answer) = run_events(&service, &args, key).next().expect("an event");
    assert_eq!(name, "answer");
    assert!(answer.contains("\"replayed\":\"memory\""), "{answer}");
}

#[test]
fn output_of_a_run_is_text_whatever_the_agent_prints() {
    let dir = tempdir();
    let service = Service::with(dir.path(), &guest("wasi_guest"), &[]);
    // A character in two pieces; a byte that begins none; one that no one sees; one that has no
    // end, and is told when the run has ended.
    let pieces: [&[u8]; 4] = [b"a\xc3", b"\xa9\xff\n", b"\xe2\x80\xae", b"\n\ndata: x\xc3"];
    let steps: Vec<_> = pieces.iter().map(|piece| step("out", piece)).collect();
    let mut args = vec!["print", "go"];
    args.extend(steps.iter().map(String::as_str));
    let mut events = run_events(&service, &args, "");
    let mut printed = String::new();
    for (turn, expected) in ["a", "é\u{fffd}\n", "\u{202e}", "\n\ndata: x"]
        .iter()
        .enumerate()
    {
        if turn > 0 {
            go(&service);
        }
        let (name, data) = events.next().expect("an event");
        assert!(!data.contains('\u{202e}'), "escaped: {data}");
        let data: Value = serde_json::from_str(&data).expect("JSON");
        let text = data["text"].as_str().expect("text");
        assert_eq!((name.as_str(), text), ("stdout", *expected));
        printed += text;
    }
    let (name, data) = events.next().expect("an event");
    assert_eq!(
        (name.as_str(), data.as_str()),
        ("stdout", "{\"text\":\"\u{fffd}\"}")
    );
    printed += "\u{fffd}";
    let (name, answer) = events.next().expect("an event");
    assert_eq!(name, "answer");
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    assert_eq!(answer["stdout"], printed);
}

#[test]
fn a_run_does_not_wait_for_a_client_that_does_not_read_its_output() {
    // More than the buffers of both ends of a connection take.
    const FLOOD: usize = 48 << 20;
    let dir = tempdir();
    let (token, entry) = token(dir.path(), "admin", "*");
    let limits = format!("limits = {{ output = \"64MiB\" }}\n{entry}");
    let file = manifest(dir.path(), &guest("wasi_guest"), &limits);
    // The only connection is free again when the client that does not read has lost it.
    let options = ["--idle-timeout", "2s", "--max-connections", "1"];
    let service = Service::of(dir.path(), &file, token, &options);
    let bytes = FLOOD.to_string();
    let mut deaf = begin_run(&service, &["flood", "done", &bytes], "");
    let end = Instant::now() + Duration::from_secs(60);
    while service.get("/v1/agents/bot/names/done/state").status != 200 {
        assert!(Instant::now() < end, "the run waits for the client");
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut rest = Vec::new();
    // Ends with an error where the service reset the connection.
    let _ = deaf.read_to_end(&mut rest);
    assert!(rest.len() < FLOOD, "{}", rest.len());
    assert!(!String::from_utf8_lossy(&rest).contains("event: answer"));
    drop(deaf);
    // One that reads gets all of it.
    let args = ["flood", "again", &bytes];
    let mut length = 0;
    for (name, data) in run_events(&service, &args, "") {
        let data: Value = serde_json::from_str(&data).expect("JSON");
        match name.as_str() {
            "stdout" => length += data["text"].as_str().expect("text").len(),
            "saved" => {}
            _ => {
                let whole = data["stdout"].as_str().expect("text");
                assert_eq!((name.as_str(), whole.len()), ("answer", FLOOD));
                break;
            }
        }
    }
    assert_eq!(length, FLOOD);
}

#[test]
fn a_failure_of_the_storage_is_not_kept_under_a_key() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let key = [("idempotency-key", "turn-1")];
    let args = ["save", "x", "hello"];
    let run = || service.run("/v1/agents/bot/run", &args, &key).json();
    // A file is where the directory of the name belongs.
    let names = dir.path().join("store/bot/~");
    fs::create_dir_all(&names).expect("created");
    fs::write(names.join("x"), "").expect("written");
    for _ in 0..2 {
        let failed = run();
        assert_eq!(failed["status"], 503, "{failed}");
        assert_eq!(failed["replayed"], Value::Null, "{failed}");
        let hint = failed["hint"].as_str().expect("a hint");
        assert!(hint.contains("send the request again"), "{hint}");
    }
    fs::remove_file(names.join("x")).expect("removed");
    assert_eq!(run()["answer"], "version 1");
    assert_eq!(run()["replayed"], "memory");
    // A mistake of the agent's own is kept.
    let key = [("idempotency-key", "turn-2")];
    let missing = ["delete", "missing"];
    let run = || service.run("/v1/agents/bot/run", &missing, &key).json();
    assert_eq!(run()["replayed"], Value::Null);
    assert_eq!(run()["replayed"], "memory");
}

#[test]
fn a_repeated_key_runs_once_also_after_kill_9() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let path = "/v1/agents/bot/run";
    let key = [("idempotency-key", "turn-1")];
    let first = service.run(path, &["save", "x", "hello"], &key);
    let again = service.run(path, &["save", "x", "hello"], &key);
    assert_eq!(again.json()["answer"], first.json()["answer"]);
    assert_eq!(again.json()["replayed"], "memory");
    assert_eq!(service.run(path, &["save", "x", "other"], &key).status, 422);
    // In the midst of a run that has saved.
    let args = ["save-and-loop", "y", "hello"];
    let key = [("idempotency-key", "turn-2")];
    let (address, token) = (service.address.clone(), service.token.clone());
    let body = json!({ "args": args }).to_string();
    let mut stream = TcpStream::connect(&address).expect("connects");
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\nidempotency-key: turn-2\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("written");
    while service.get("/v1/agents/bot/names/y/history").status != 200 {
        std::thread::yield_now();
    }
    assert_eq!(service.end("-KILL"), None);
    let file = dir.path().join("agents.toml");
    let service = Service::of(dir.path(), &file, token, &[]);
    let again = service.run(path, &args, &key).json();
    assert_eq!(again["replayed"], "versions");
    assert_eq!(again["answer"], Value::Null);
    assert_eq!(again["versions"][0]["address"], "bot/y@1");
    assert_eq!(again["versions"].as_array().map(Vec::len), Some(1));
    let history = service.get("/v1/agents/bot/names/y/history").json();
    assert_eq!(history["versions"].as_array().map(Vec::len), Some(1));
    assert_eq!(service.run(path, &["echo"], &key).status, 422);
}

#[test]
fn runs_wait_in_a_bounded_queue_and_end_with_the_service() {
    let dir = tempdir();
    let options = ["--queue", "1", "--grace", "1ms"];
    let service = Service::with(dir.path(), &guest("test_guest"), &options);
    let path = "/v1/agents/bot/run";
    std::thread::scope(|scope| {
        let looping = scope.spawn(|| service.run(path, &["save-and-loop", "x", "hello"], &[]));
        while service.get("/v1/agents/bot/names/x").status != 200 {
            std::thread::yield_now();
        }
        let busy = service.run(path, &["echo"], &[]);
        assert_eq!(busy.status, 429);
        assert_eq!(busy.header("retry-after"), "1");
        let other = service.run("/v1/agents/bot-2/run", &["echo", "hi"], &[]);
        assert_eq!(other.json()["answer"], "hi");
        service.signal("-TERM");
        // Aborted: an answer, or a closed connection.
        let _ = looping.join();
    });
    assert_eq!(service.end("-0"), Some(0));
}

#[test]
fn changes_of_a_state_may_be_conditional() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let path = "/v1/agents/bot/names/x/state";
    let absent = [
        ("if-none-match", "*"),
        ("content-type", "text/plain"),
        ("persist-label-turn", "1"),
    ];
    let saved = service.send("PUT", path, &absent, "0123456789");
    assert_eq!(
        (saved.status.as_u16(), saved.header("etag")),
        (201, "\"1\"")
    );
    let labels = &saved.json()["labels"];
    assert_eq!(
        (&labels["turn"], &labels["persist.by"]),
        (&json!("1"), &json!("token"))
    );
    let conflict = service.send("PUT", path, &absent, "other");
    assert_eq!(
        (conflict.status.as_u16(), &conflict.json()["head"]),
        (412, &json!(1))
    );
    assert_eq!(
        service
            .send("PUT", path, &[("if-match", "\"1\"")], "second")
            .status,
        200
    );
    assert_eq!(
        service
            .send("PUT", path, &[("if-match", "\"1\"")], "third")
            .status,
        412
    );
    let loaded = service.get(path);
    assert_eq!(
        (&loaded.body[..], loaded.header("etag")),
        (&b"second"[..], "\"2\"")
    );
    assert_eq!(
        service
            .send("GET", path, &[("if-none-match", "\"2\"")], "")
            .status,
        304
    );
    let range = service.send(
        "GET",
        &format!("{path}?version=1"),
        &[("range", "bytes=2-4")],
        "",
    );
    assert_eq!((range.status.as_u16(), &range.body[..]), (206, &b"234"[..]));
    assert_eq!(range.header("content-range"), "bytes 2-4/10");
    let outside = service.send("GET", path, &[("range", "bytes=6-")], "");
    assert_eq!(
        (outside.status.as_u16(), outside.header("content-range")),
        (416, "bytes */6")
    );
    let name = "/v1/agents/bot/names/x";
    assert_eq!(
        service
            .send("DELETE", name, &[("if-match", "\"1\"")], "")
            .status,
        412
    );
    assert_eq!(
        service
            .send("DELETE", name, &[("if-match", "\"2\"")], "")
            .status,
        200
    );
    assert_eq!(service.get(path).status, 404);
    let json_type = [("content-type", "application/json")];
    let restored = service.send(
        "POST",
        &format!("{name}/restore"),
        &json_type,
        "{\"version\": 1}",
    );
    assert_eq!(restored.json()["version"], 4);
    let forked = "{\"name\": \"copy\", \"agent\": \"bot-2\", \"session\": \"s\"}";
    let forked = service.send("POST", &format!("{name}/fork"), &json_type, forked);
    assert_eq!(
        (forked.status.as_u16(), &forked.json()["address"]),
        (201, &json!("bot-2/s/copy@1"))
    );
    let diff = service.get(&format!("{name}/diff?from=2&to=4")).json();
    assert_eq!(diff["same"], false);
    assert_eq!(
        service
            .send("PUT", &format!("{name}/pins/1"), &[], "")
            .json()["pins"],
        json!([1])
    );
    assert_eq!(
        service.get(&format!("{name}/pins")).json()["pins"],
        json!([1])
    );
    assert_eq!(
        service
            .send("DELETE", &format!("{name}/pins/1"), &[], "")
            .json()["pins"],
        json!([])
    );
    let page = service.get(&format!("{name}/history?limit=2")).json();
    assert_eq!(
        (page["versions"].as_array().map(Vec::len), &page["next"]),
        (Some(2), &json!(3))
    );
    let names = service.get("/v1/agents/bot/names").json();
    assert_eq!(names["names"], json!(["x"]));
    assert_eq!(
        service.get("/v1/agents").json()["names"],
        json!(["bot-2", "bot"])
    );
}

#[test]
fn a_failed_condition_tells_the_newest_version() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let name = "/v1/agents/bot/names/x";
    let state = format!("{name}/state");
    let head = |method: &str, tag: &str| {
        let path: &str = if method == "PUT" { &state } else { name };
        let failed = service.send(method, path, &[("if-match", tag)], "");
        assert_eq!(failed.status, 412, "{method} {tag}");
        failed.json()["head"].as_u64()
    };
    let tags = ["W/\"2\"", "\"abc\"", "\"99999999999999999999\"", "\"1\""];
    assert_eq!(head("PUT", "\"abc\""), None, "nothing is saved");
    for turn in ["one", "two"] {
        let saved = service.send("PUT", &state, &[], turn);
        assert!(saved.status.is_success());
    }
    for tag in tags {
        assert_eq!(head("PUT", tag), Some(2), "{tag}");
        assert_eq!(head("DELETE", tag), Some(2), "{tag}");
    }
    assert_eq!(service.send("DELETE", name, &[], "").status, 200);
    for tag in tags.into_iter().chain(["*"]) {
        assert_eq!(head("PUT", tag), Some(3), "{tag}, after a deletion");
    }
}

#[test]
fn a_part_of_a_state_and_an_encoded_body_are_refused() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let path = "/v1/agents/bot/names/x/state";
    let put = |header: &str, value: &str| {
        let reply = service.send("PUT", path, &[(header, value)], "AB");
        let detail = reply.json()["detail"].as_str().map(str::to_owned);
        (reply.status.as_u16(), detail.unwrap_or_default())
    };
    assert_eq!(put("content-encoding", "identity").0, 201);
    let (status, detail) = put("content-range", "bytes 0-1/10");
    assert_eq!(status, 400);
    assert!(detail.contains("Content-Range"), "{detail}");
    for coding in ["gzip", "identity, br"] {
        let (status, detail) = put("content-encoding", coding);
        assert_eq!(status, 415, "{coding}");
        assert!(detail.contains("Content-Encoding"), "{detail}");
    }
    let coded = [("content-encoding", "gzip")];
    let ran = service.run("/v1/agents/bot/run", &["echo"], &coded);
    assert_eq!(ran.status, 415);
    let mut stream = TcpStream::connect(&service.address).expect("connects");
    let request = format!(
        "PUT {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
         connection: close\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nCD\r\n0\r\n\r\n",
        service.token
    );
    stream.write_all(request.as_bytes()).expect("written");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("a reply");
    assert!(reply.starts_with("HTTP/1.1 501 "), "{reply}");
    let kept = service.get(path);
    assert_eq!((kept.header("etag"), &kept.body[..]), ("\"1\"", &b"AB"[..]));
}

/// Damages the metadata of a version of `bot/x` in the store of a folder.
fn damage(dir: &Path, version: u64) {
    let versions = fs::read_dir(dir.join("store/bot/~/x")).expect("a name");
    let end = format!("-{version:010}.gz");
    let file = versions
        .map(|file| file.expect("a file").path())
        .find(|file| file.to_str().is_some_and(|file| file.ends_with(&end)));
    let file = file.expect("the version");
    let mut bytes = fs::read(&file).expect("read");
    let at = bytes.len() - 30;
    bytes[at] ^= 0xff;
    fs::remove_file(&file).expect("removed");
    fs::write(&file, bytes).expect("written");
}

#[test]
fn a_damaged_version_does_not_hide_the_others_of_a_history() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let name = "/v1/agents/bot/names/x";
    let save = || service.send("PUT", &format!("{name}/state"), &[], "x");
    for _ in 0..4 {
        assert!(save().status.is_success());
    }
    damage(dir.path(), 3);
    let page = |query: &str| {
        let page = service.get(&format!("{name}/history{query}"));
        assert_eq!(page.status, 200, "{query}");
        let page = page.json();
        let versions = page["versions"].as_array().expect("versions").iter();
        let versions: Vec<_> = versions
            .filter_map(|info| info["version"].as_u64())
            .collect();
        (versions, page["unreadable"].clone(), page["next"].clone())
    };
    assert_eq!(page(""), (vec![4, 2, 1], json!([3]), json!(1)));
    assert_eq!(page("?limit=2"), (vec![4], json!([3]), json!(3)));
    let only = page("?limit=1&before=4");
    assert_eq!(only, (vec![], json!([3]), json!(3)));
    assert_eq!(page("?before=1"), (vec![], json!([]), json!(null)));
}

#[test]
fn no_name_is_in_the_log_above_the_level_debug() {
    let dir = tempdir();
    let (token, entry) = token(dir.path(), "admin", "*");
    let file = manifest(dir.path(), &guest("test_guest"), &entry);
    let log = dir.path().join("log");
    let mut command = persist(&dir.path().join("store"));
    command.stderr(fs::File::create(&log).expect("a log"));
    let service = Service::spawn(command, "127.0.0.1:0", &file, token, &[]);
    let state = "/v1/agents/bot/names/x/state";
    assert_eq!(service.send("PUT", state, &[], "x").status, 201);
    damage(dir.path(), 1);
    assert_eq!(service.get(state).status, 500);
    assert_eq!(service.end("-TERM"), Some(0));
    let log = fs::read_to_string(log).expect("a log");
    assert!(log.contains("a request failed"), "{log}");
    assert!(log.contains("corrupt"), "{log}");
    assert!(!log.contains("bot") && !log.contains(".gz"), "{log}");
}

#[test]
fn changes_of_clients_tell_the_token_and_the_address() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let service = Service::start(dir.path());
    let json_type = [("content-type", "application/json")];
    let names = "/v1/agents/bot/names";
    let x = format!("{names}/x");
    let forged = [("persist-label-persist.by", "ann@ops-1")];
    let state = format!("{x}/state");
    assert_eq!(service.send("PUT", &state, &forged, "one").status, 400);
    assert_eq!(service.send("PUT", &state, &[], "one").status, 201);
    let fork = format!("{x}/fork");
    let forked = service.send("POST", &fork, &json_type, "{\"name\": \"y\"}");
    assert_eq!(forked.status, 201);
    assert_eq!(service.send("DELETE", &x, &[], "").status, 200);
    let restore = format!("{x}/restore");
    let restored = service.send("POST", &restore, &json_type, "{\"version\": 1}");
    assert_eq!(restored.status, 200);
    let by = |address: &str| {
        let history = run_ok(&store, &["history", "--changes", "--json", address]);
        let lines = history.lines();
        let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let label = |line: &Value, key: &str| line["labels"][key].as_str().map(str::to_owned);
        let lines = lines.map(|line| (label(&line, "persist.by"), label(&line, "persist.via")));
        lines.collect::<Vec<_>>()
    };
    let client = (
        Some("token".to_owned()),
        Some("persist serve, 127.0.0.1".to_owned()),
    );
    assert_eq!(by("bot/x"), vec![client.clone(); 3]);
    assert_eq!(by("bot/y"), [client]);
    let told = run_ok(&store, &["history", "--changes", "bot/y"]);
    assert!(
        told.contains("token") && told.contains("persist serve, 127.0.0.1"),
        "{told}"
    );
    // Versions that an agent saves are its own.
    let ran = service.run("/v1/agents/bot/run", &["save", "z", "hello"], &[]);
    assert_eq!(ran.status, 200);
    assert_eq!(by("bot/z"), [(None, None)]);
    drop(service);
    let (token, entry) = token(dir.path(), "admin", "*");
    let file = manifest(dir.path(), &guest("test_guest"), &entry);
    let mut command = persist(&store);
    command.env("PERSIST_AUDIT", "off");
    let service = Service::spawn(command, "127.0.0.1:0", &file, token, &[]);
    let state = format!("{names}/quiet/state");
    assert_eq!(service.send("PUT", &state, &[], "one").status, 201);
    assert_eq!(by("bot/quiet"), [(None, None)]);
}

#[test]
fn hostile_names_are_names_or_refused() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let at = |name: &str| format!("/v1/agents/bot/names/{name}/state");
    for name in ["a%00b", "%0a", "%ff", "%1b", &"x".repeat(201)] {
        assert_eq!(
            service.send("PUT", &at(name), &[], "x").status,
            400,
            "{name}"
        );
    }
    let names = [
        "..",
        "%2e%2e%2f%2e%2e",
        "%3cscript%3e",
        "%e2%80%8fx",
        "%252e",
    ];
    for name in names {
        assert_eq!(
            service.send("PUT", &at(name), &[], name).status,
            201,
            "{name}"
        );
        assert_eq!(&service.get(&at(name)).body[..], name.as_bytes());
    }
    let listed = service.get("/v1/agents/bot/names");
    assert!(listed.body.is_ascii(), "a mark that no one sees is escaped");
    let listed = listed.json()["names"].as_array().map(Vec::len);
    assert_eq!(listed, Some(names.len()));
    let typed = [("content-type", "text/html")];
    service.send("PUT", &at("page"), &typed, "<script>");
    let page = service.get(&at("page"));
    assert_eq!(page.header("content-disposition"), "attachment");
    assert_eq!(page.header("x-content-type-options"), "nosniff");
    assert_eq!(
        page.header("content-security-policy"),
        "sandbox; default-src 'none'"
    );
}

#[test]
fn a_component_is_loaded_anew_and_a_broken_one_is_not() {
    let dir = tempdir();
    let file = dir.path().join("agent.wasm");
    fs::copy(guest("test_guest"), &file).expect("copied");
    let service = Service::with(dir.path(), Path::new("agent.wasm"), &[]);
    let path = "/v1/agents/bot/run";
    let echo = || service.run(path, &["echo", "hi"], &[]).json()["answer"].clone();
    assert_eq!(echo(), "hi");
    fs::write(&file, "no component").expect("written");
    assert_eq!(echo(), "hi");
    fs::copy(guest("wasi_guest"), &file).expect("copied");
    let json_type = [("content-type", "application/json")];
    let body = json!({ "args": ["stdin"], "stdin": "from the body" }).to_string();
    let ran = service.send("POST", path, &json_type, &body);
    assert_eq!(ran.json()["answer"], "from the body");
}

#[test]
fn a_slow_client_loses_its_connection() {
    let dir = tempdir();
    let options = ["--idle-timeout", "100ms", "--max-connections", "1"];
    let service = Service::with(dir.path(), &guest("test_guest"), &options);
    let mut slow = TcpStream::connect(&service.address).expect("connects");
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost:")
        .expect("written");
    let mut rest = Vec::new();
    // Ends when the service closes the connection, which the only place is then free again.
    let _ = slow.read_to_end(&mut rest);
    assert_eq!(service.plain("GET", "/healthz", &[], "").status, 200);
    // One that reads no response.
    let mut deaf = TcpStream::connect(&service.address).expect("connects");
    let request = "GET /v1/openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let requests = request.repeat(1000);
    // Fails when the service closes the connection; without that, waits for ever.
    while deaf.write_all(requests.as_bytes()).is_ok() {}
    assert_eq!(service.plain("GET", "/healthz", &[], "").status, 200);
    let long = "x".repeat(100 << 10);
    let long = service.plain("GET", "/healthz", &[("x-long", &long)], "");
    assert_eq!(long.status, 431);
}

/// Sends a request whose body of 60,000 bytes comes in pieces, one each 100 ms, and returns the
/// beginning of the answer.
fn send_slowly(service: &Service, head: &str, piece: &[u8]) -> String {
    let mut stream = TcpStream::connect(&service.address).expect("connects");
    let address = &service.address;
    let token = &service.token;
    write!(
        stream,
        "{head} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: 60000\r\n\r\n"
    )
    .expect("written");
    let pause = Some(Duration::from_millis(100));
    stream.set_read_timeout(pause).expect("a timeout");
    let began = Instant::now();
    let mut left = 60_000;
    while began.elapsed() < Duration::from_secs(20) {
        let len = piece.len().min(left);
        // Fails where the service has answered and closed.
        let _ = stream.write_all(&piece[..len]);
        left -= len;
        let mut answer = [0; 12];
        if stream.read_exact(&mut answer).is_ok() {
            return String::from_utf8_lossy(&answer).into_owned();
        }
    }
    "no answer".to_owned()
}

#[test]
fn a_body_that_drips_is_refused_and_a_slow_one_is_not() {
    let dir = tempdir();
    let options = ["--idle-timeout", "1s"];
    let service = Service::with(dir.path(), &guest("test_guest"), &options);
    for head in [
        "POST /sign-in",
        "POST /v1/agents/bot/run",
        "POST /v1/agents/bot/names/x/restore",
        "PUT /v1/agents/bot/names/x/state",
    ] {
        assert_eq!(send_slowly(&service, head, b" "), "HTTP/1.1 408", "{head}");
    }
    // 20 kB a second, for three times as long as the timeout.
    let slow = send_slowly(&service, "PUT /v1/agents/bot/names/x/state", &[b'x'; 2000]);
    assert_eq!(slow, "HTTP/1.1 201");
}

#[test]
fn a_head_that_is_not_complete_does_not_delay_the_end() {
    let dir = tempdir();
    let service = Service::with(dir.path(), &guest("test_guest"), &["--grace", "25s"]);
    let mut half = TcpStream::connect(&service.address).expect("connects");
    half.write_all(b"GET /healthz HTTP/1.1\r\nhost:")
        .expect("written");
    assert_eq!(service.plain("GET", "/healthz", &[], "").status, 200);
    let began = Instant::now();
    assert_eq!(service.end("-TERM"), Some(0));
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn the_document_is_valid_and_a_generated_client_works() {
    let dir = tempdir();
    let service = Service::start(dir.path());
    let document = dir.path().join("openapi.json");
    fs::write(&document, service.document.to_string()).expect("written");
    let settings = dir.path().join("client.yml");
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text_too = format!("content_type_overrides:\n  {openmetrics:?}: text/plain\n");
    fs::write(&settings, text_too + "post_hooks: []\n").expect("written");
    let packages = toolchains().with_file_name("tools").join("api-client");
    let python = |words: &[&str]| {
        let mut python = std::process::Command::new("python3");
        let done = python.args(words).current_dir(dir.path());
        let done = done.env("PYTHONPATH", &packages).output();
        let done = done.expect("Python starts");
        let told = text(&done.stdout).to_owned() + text(&done.stderr);
        assert!(done.status.success(), "{words:?}: {told}");
        told
    };
    python(&["-m", "openapi_spec_validator", "openapi.json"]);
    python(&[
        "-m",
        "openapi_python_client",
        "generate",
        "--path=openapi.json",
        "--meta=none",
        "--output-path=client",
        "--config=client.yml",
        "--fail-on-warning",
    ]);
    let program = include_str!("../api-client/use_client.py");
    let url = format!("http://{}", service.address);
    let told = python(&["-c", program, &url, &service.token]);
    assert_eq!(told, "every operation was called\n");
}

/// Opens the stream of changes, and returns its lines.
fn changes(service: &Service) -> impl Iterator<Item = String> + use<> {
    let mut stream = TcpStream::connect(&service.address).expect("connects");
    write!(
        stream,
        "GET /v1/changes HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
        service.address, service.token
    )
    .expect("written");
    let lines = BufReader::new(stream).lines();
    lines.map(|line| line.expect("a line"))
}

#[test]
fn each_client_is_told_when_it_misses_no_change() {
    let dir = tempdir();
    let service = Service::with(dir.path(), &guest("test_guest"), &["--poll", "20ms"]);
    let mut first = changes(&service);
    assert!(first.any(|line| line == "event: ready"));
    let mut second = changes(&service);
    assert!(second.any(|line| line == "event: ready"));
    let path = "/v1/agents/bot/names/x/state";
    assert_eq!(service.send("PUT", path, &[], "x").status, 201);
    let mut events = first.filter(|line| line.starts_with("event: "));
    assert_eq!(events.next().as_deref(), Some("event: saved"), "told once");
}

/// Opens the stream of changes with a token, and returns it with its status line.
fn watch(service: &Service, token: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(&service.address).expect("connects");
    write!(
        stream,
        "GET /v1/changes HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\r\n",
        service.address
    )
    .expect("written");
    let mut status = String::new();
    let mut head = BufReader::new(stream.try_clone().expect("a stream"));
    head.read_line(&mut status).expect("a line");
    (stream, status)
}

#[test]
fn one_token_does_not_take_all_places_of_clients_that_watch() {
    const MAX_OF_TOKEN: usize = 16;
    let dir = tempdir();
    let (narrow, entry) = token(dir.path(), "read", "bot-1");
    let (other, other_entry) = token(dir.path(), "read", "*");
    let file = manifest(
        dir.path(),
        &guest("test_guest"),
        &(entry + "\n" + &other_entry),
    );
    let options = ["--idle-timeout", "100ms"];
    let service = Service::of(dir.path(), &file, other.clone(), &options);
    let ok = "HTTP/1.1 200 OK\r\n";
    let mut watching = Vec::new();
    for _ in 0..MAX_OF_TOKEN {
        let (stream, status) = watch(&service, &narrow);
        assert_eq!(status, ok);
        watching.push(stream);
    }
    let (_, status) = watch(&service, &narrow);
    assert!(status.starts_with("HTTP/1.1 429 "), "{status}");
    let (_other, status) = watch(&service, &other);
    assert_eq!(status, ok);
    // A client that goes away leaves its place.
    watching.pop();
    let began = Instant::now();
    while watch(&service, &narrow).1 != ok {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "no place is free"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_stream_tells_changes_of_other_processes() {
    let dir = tempdir();
    let service = Service::with(dir.path(), &guest("test_guest"), &["--poll", "20ms"]);
    let mut lines = changes(&service);
    assert!(lines.any(|line| line == "event: ready"));
    let state = dir.path().join("state");
    fs::write(&state, "by another process").expect("written");
    let state = state.to_str().expect("text");
    run_ok(&dir.path().join("store"), &["save", "bot/x", state]);
    assert!(lines.any(|line| line == "event: saved"));
    let data = lines.next().expect("data");
    assert!(data.contains("\"address\":\"bot/x@1\""), "{data}");
}
