//! `persist serve`, over HTTP. Each answer is validated against the OpenAPI document that the
//! service itself serves.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
    let wrong = [("authorization", "Bearer persist_0000")];
    assert_eq!(service.plain("GET", "/v1/agents", &wrong, "").status, 401);
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
         http_route=\"/v1/agents/{agent}/run\",http_response_status_code=\"200\"} 1",
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
             http_route=\"/v1/agents/{{agent}}/run\",http_response_status_code=\"{status}\"}}"
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
