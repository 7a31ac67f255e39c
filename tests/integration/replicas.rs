//! Several `persist serve` over one store: leases, and replicas behind a proxy that end, die and
//! sleep.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use persist_servers::Kind;
use persist_tests::http_server::{HttpServer, respond};
use persist_tests::store::TestStore;
use persist_tests::{block_on, guest, guest_on, persist, run_ok, tempdir};
use serde_json::{Value, json};

use crate::netns::{Forward, Network};
use crate::restate::Restate;
use crate::serve::{Service, manifest, token};

/// Starts two services over one store, whose manifest has this lease.
fn two(dir: &Path, component: &Path, lease: &str, agent: &str) -> [Service; 2] {
    let (token, entry) = token(dir, "admin", "*");
    let more = format!("{agent}\n{entry}\n[lease]\n{lease}\n");
    let file = manifest(dir, component, &more);
    let options = ["--grace", "1ms"];
    [0, 1].map(|_| Service::of(dir, &file, token.clone(), &options))
}

const RUN: &str = "/v1/agents/bot/run";

#[test]
fn an_agent_runs_on_one_replica_at_a_time() {
    let dir = tempdir();
    // Where a release takes a request, a process that ends must wait for it.
    let place = TestStore::on(Kind::SeaweedFs);
    let (token, entry) = token(dir.path(), "admin", "*");
    let lease = "[lease]\nterm = \"1h\"\nwait = \"0s\"";
    let more = format!("{entry}\n{lease}");
    let file = manifest(dir.path(), &guest("test_guest"), &more);
    let [one, other] = [0, 1].map(|_| {
        let options = ["--grace", "1ms"];
        Service::spawn(
            place.command(),
            "127.0.0.1:0",
            &file,
            token.clone(),
            &options,
        )
    });
    scope(|scope| {
        let looping = scope.spawn(|| one.run(RUN, &["save-and-loop", "x", "hello"], &[]));
        while other.get("/v1/agents/bot/names/x").status != 200 {
            std::thread::yield_now();
        }
        let refused = other.run(RUN, &["save", "x", "other"], &[]);
        assert_eq!(refused.status, 503);
        assert_eq!(refused.header("retry-after"), "30");
        let problem = refused.json();
        assert_eq!(problem["code"], "conflict");
        assert_eq!(problem["detail"], "another host works on agent bot");
        let beside = other.run("/v1/agents/bot/sessions/monday/run", &["echo", "hi"], &[]);
        assert_eq!(beside.json()["answer"], "hi");
        // A run that is aborted releases its lease, which would last for hours.
        one.signal("-TERM");
        let _ = looping.join();
    });
    assert_eq!(one.end("-0"), Some(0));
    let ran = other.run(RUN, &["save", "x", "other"], &[]);
    assert_eq!(ran.json()["answer"], "version 2");
}

#[test]
fn replicas_wait_for_each_other_and_compute_no_turn_in_vain() {
    const RUNS: usize = 6;
    let dir = tempdir();
    let lease = "term = \"20s\"\nwait = \"5min\"";
    let both = two(dir.path(), &guest("test_guest"), lease, "");
    scope(|scope| {
        for service in &both {
            for _ in 0..RUNS {
                // Refused where another run saved since it looked.
                scope.spawn(|| {
                    let ran = service.run(RUN, &["save-at-head", "x", "hello"], &[]);
                    assert_eq!(ran.status, 200, "{}", ran.json());
                });
            }
        }
    });
    let history = both[0].get("/v1/agents/bot/names/x").json();
    assert_eq!(history["version"], 2 * RUNS);
}

#[test]
fn a_key_that_two_replicas_get_at_the_same_time_runs_once() {
    let dir = tempdir();
    let lease = "term = \"20s\"\nwait = \"5min\"";
    let both = two(dir.path(), &guest("test_guest"), lease, "");
    for turn in 1..=4 {
        let id = format!("turn-{turn}");
        let key = [("idempotency-key", id.as_str())];
        let replayed = scope(|scope| {
            let ask = |service: &'static str, at: usize| {
                let both = &both;
                scope.spawn(move || both[at].run(RUN, &["save", "x", service], &key).json())
            };
            [ask("hello", 0), ask("hello", 1)].map(|ran| ran.join().expect("no panic"))
        });
        let mut replayed = replayed.map(|ran| ran["replayed"].clone());
        replayed.sort_by_key(Value::is_null);
        assert_eq!(replayed, [json!("versions"), Value::Null]);
        let newest = both[0].get("/v1/agents/bot/names/x").json();
        assert_eq!(newest["version"], turn);
    }
}

#[test]
fn a_dead_replica_is_taken_over_from_and_its_turn_is_known() {
    let dir = tempdir();
    let lease = "term = \"200ms\"\nwait = \"5min\"";
    let [one, other] = two(dir.path(), &guest("test_guest"), lease, "");
    let key = [("idempotency-key", "turn-1")];
    let args = ["save-and-loop", "x", "hello"];
    scope(|scope| {
        let (saved, dies) = channel();
        let service = &one;
        scope.spawn(move || {
            // Its connection breaks.
            let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                service.run(RUN, &args, &key)
            }));
            saved.send(sent.is_err()).expect("the test waits");
        });
        while other.get("/v1/agents/bot/names/x").status != 200 {
            std::thread::yield_now();
        }
        one.signal("-KILL");
        assert!(dies.recv().expect("a reply"), "the replica is dead");
    });
    let again = other.run(RUN, &args, &key).json();
    assert_eq!(again["replayed"], "versions");
    assert_eq!(again["versions"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_run_whose_state_another_host_changed_is_refused_and_can_be_repeated() {
    let dir = tempdir();
    let store = dir.path().join("store");
    let state = dir.path().join("state");
    fs::write(&state, "[]").expect("written");
    // While the model thinks, as a host does that has lost its lease.
    let model = HttpServer::start(move |_, stream| {
        let state = state.to_str().expect("text");
        run_ok(&store, &["save", "bot/conversation", state]);
        let answer = json!({ "choices": [{ "message": {
            "role": "assistant", "content": "hello",
        } }] });
        let typed = "content-type: application/json\r\n";
        respond(stream, "200 OK", typed, &answer.to_string());
    });
    let agent = format!(
        "allow-http = [\"127.0.0.1:{}\"]\nenv = {{ MODEL = \"small\", MODEL_URL = \"{}\" }}",
        model.port(),
        model.url("/v1/chat/completions"),
    );
    let component = guest_on("wasm32-wasip1", "model_chat");
    let [one, other] = two(dir.path(), &component, "term = \"1h\"", &agent);
    let key = [("idempotency-key", "turn-1")];
    let lost = one.run(RUN, &["hello"], &key);
    assert_eq!(lost.status, 503, "{}", lost.json());
    assert_eq!(lost.header("retry-after"), "1");
    assert_eq!(lost.json()["code"], "conflict");
    // The question was saved before; the lease is free.
    for service in [&one, &other] {
        let again = service.run(RUN, &["hello"], &key);
        assert_eq!(again.json()["replayed"], "versions");
    }
    assert_eq!(model.received().len(), 1);
}

/// A proxy of Debian. It ends with this value.
pub(crate) struct FrontProxy(Child);

impl FrontProxy {
    /// Starts HAProxy with the configuration of the example.
    fn haproxy(dir: &Path, front: &str, replicas: &[String]) -> Self {
        let example = include_str!("../../examples/replicas/haproxy.cfg");
        Self::haproxy_of(dir, &with_addresses(example, front, replicas))
    }

    /// Starts HAProxy with this configuration.
    pub(crate) fn haproxy_of(dir: &Path, config: &str) -> Self {
        let file = dir.join("haproxy.cfg");
        fs::write(&file, config).expect("written");
        let mut haproxy = Command::new(HAPROXY);
        haproxy.args(["-db", "-q", "-f"]).arg(&file);
        Self(haproxy.stdin(Stdio::null()).spawn().expect("it starts"))
    }

    /// Starts nginx with the configuration of the example.
    fn nginx(dir: &Path, front: &str, replicas: &[String]) -> Self {
        let example = include_str!("../../examples/replicas/nginx.conf");
        let config = with_addresses(example, front, replicas);
        // One process, which is no other user, and nothing outside the directory.
        let dirs = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| {
            let dir = dir.join(kind).display().to_string();
            format!("    {kind}_temp_path {dir};\n")
        });
        let (before, after) = config.split_once("http {\n").expect("a section");
        let config = format!(
            "daemon off;\nmaster_process off;\npid {pid};\nerror_log {log};\n\
             {before}http {{\n    access_log off;\n{dirs}{after}",
            pid = dir.join("nginx.pid").display(),
            log = dir.join("nginx.log").display(),
            dirs = dirs.concat(),
        );
        let file = dir.join("nginx.conf");
        fs::write(&file, config).expect("written");
        let mut nginx = Command::new(NGINX);
        nginx.arg("-e").arg(dir.join("nginx.log"));
        nginx.arg("-c").arg(&file).stdin(Stdio::null());
        Self(nginx.spawn().expect("it starts"))
    }
}

/// Returns the configuration of an example for other addresses.
fn with_addresses(example: &str, front: &str, replicas: &[String]) -> String {
    let mut config = example.replace("127.0.0.1:8080", front);
    for (number, address) in replicas.iter().enumerate() {
        let written = format!("127.0.0.1:707{}", number + 1);
        assert!(config.contains(&written), "{written}");
        config = config.replace(&written, address);
    }
    config
}

impl Drop for FrontProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not in the PATH of a user who is not root.
pub(crate) const HAPROXY: &str = "/usr/sbin/haproxy";
const NGINX: &str = "/usr/sbin/nginx";

/// A client that repeats each turn until it is served.
struct Client<'a> {
    front: &'a str,
    token: &'a str,
    agent: String,
    repeated: &'a AtomicUsize,
}

impl Client<'_> {
    /// Sends a turn again and again, with the same key. Returns the answer.
    fn turn(&self, number: usize) -> Value {
        let key = format!("{}-{number}", self.agent);
        let body = json!({ "args": ["update", "memory", format!("t{number}")] }).to_string();
        loop {
            let sent = block_on(async {
                // A replica that sleeps does not answer.
                let sent = tokio::time::timeout(Duration::from_secs(2), self.send(&key, &body));
                sent.await.ok().flatten()
            });
            match sent {
                Some((200, answer)) => return answer,
                Some((429 | 502..=504, _)) | None => {
                    self.repeated.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_millis(50));
                }
                Some((status, answer)) => panic!("{}: {status}: {answer}", self.agent),
            }
        }
    }

    async fn send(&self, key: &str, body: &str) -> Option<(u16, Value)> {
        let path = format!("/v1/agents/{}/run", self.agent);
        let token = format!("Bearer {}", self.token);
        let headers = [("authorization", token.as_str()), ("idempotency-key", key)];
        post(self.front, &path, &headers, body).await
    }
}

/// Sends a request; none without a whole response.
pub(crate) async fn post(
    address: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<(u16, Value)> {
    let stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.ok()?;
    tokio::spawn(connection);
    let mut request = Request::builder().method("POST").uri(path);
    request = request.header("host", address);
    request = request.header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned())));
    let reply = sender.send_request(request.expect("valid")).await.ok()?;
    let (head, body) = reply.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    let answer = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Some((head.status.as_u16(), answer))
}

/// A network of loopback addresses for a test of this process. No client's port is in the way of a
/// replica that listens again.
pub(crate) fn network(test: u32) -> String {
    let id = std::process::id();
    format!("127.{}.{}", 100 + 3 * (id / 250 % 40) + test, 1 + id % 250)
}

/// Three replicas on addresses of their own, on which no client's port can be in the way.
struct Fleet<'a> {
    place: &'a TestStore,
    dir: &'a Path,
    token: String,
    addresses: Vec<String>,
    /// The hosts of the replicas; none: this one.
    hosts: Option<&'a Network>,
    replicas: Mutex<Vec<Service>>,
}

impl<'a> Fleet<'a> {
    fn start(place: &'a TestStore, dir: &'a Path, network: &str) -> Self {
        let addresses = (1..=3).map(|n| format!("{network}.{n}:7070")).collect();
        Self::at(place, dir, addresses, None)
    }

    fn at(
        place: &'a TestStore,
        dir: &'a Path,
        addresses: Vec<String>,
        hosts: Option<&'a Network>,
    ) -> Self {
        let (token, entry) = token(dir, "admin", "*");
        let lease = "[lease]\nterm = \"500ms\"\nwait = \"10s\"";
        manifest(dir, &guest("test_guest"), &format!("{entry}\n{lease}"));
        let fleet = Self {
            place,
            dir,
            token,
            addresses,
            hosts,
            replicas: Mutex::default(),
        };
        for number in 0..3 {
            let service = fleet.replica(number);
            fleet.replicas.lock().expect("no panic").push(service);
        }
        fleet
    }

    fn replica(&self, number: usize) -> Service {
        let address = &self.addresses[number];
        let file = self.dir.join("agents.toml");
        let mut command = self.place.command();
        if let Some(hosts) = self.hosts {
            command.env("PERSIST_S3_ALLOW_HTTP", hosts.storage());
            command = hosts.command(number, &command);
        }
        Service::spawn(command, address, &file, self.token.clone(), &[])
    }

    /// Ends a replica with a signal, and starts it again.
    fn restart(&self, number: usize, signal: &str) {
        let mut replicas = self.replicas.lock().expect("no panic");
        let old = replicas.remove(number);
        old.end(signal);
        replicas.insert(number, self.replica(number));
    }

    fn signal(&self, number: usize, signal: &str) {
        self.replicas.lock().expect("no panic")[number].signal(signal);
    }
}

#[test]
fn a_fleet_that_is_restarted_killed_and_stopped_loses_and_doubles_no_turn() {
    if !Path::new(HAPROXY).exists() {
        return persist_tests::skip_without("haproxy");
    }
    let dir = tempdir();
    let place = TestStore::on(Kind::SeaweedFs);
    let network = network(0);
    let fleet = Fleet::start(&place, dir.path(), &network);
    let front = format!("{network}.9:8080");
    let _proxy = FrontProxy::haproxy(dir.path(), &front, &fleet.addresses);
    serve_while(&fleet, &place, &front, |served| {
        // A rollout.
        for number in 0..3 {
            fleet.restart(number, "-TERM");
            served(1);
        }
        // A dead node.
        for number in 0..3 {
            fleet.restart(number, "-KILL");
            served(1);
        }
        // A node that sleeps, longer than its leases.
        for number in 0..2 {
            fleet.signal(number, "-STOP");
            served(1);
            fleet.signal(number, "-CONT");
            served(1);
        }
    });
}

#[test]
fn replicas_that_are_cut_off_lose_and_double_no_turn_behind_haproxy() {
    if !Path::new(HAPROXY).exists() {
        return persist_tests::skip_without("haproxy");
    }
    serve_in_partitions(0, FrontProxy::haproxy, |hosts, served| {
        hosts.cut_off_from_storage(1);
        served(2);
        hosts.reconnect_to_storage(1);
        served(1);
    });
}

#[test]
fn replicas_that_are_cut_off_lose_and_double_no_turn_behind_nginx() {
    if !Path::new(NGINX).exists() {
        return persist_tests::skip_without("nginx");
    }
    // Without health checks, it does not learn of a replica that only lacks its storage.
    serve_in_partitions(1, FrontProxy::nginx, |_, _| {});
}

/// Serves turns by three replicas on hosts of their own, of which two are cut off, one at a time.
fn serve_in_partitions(
    test: u32,
    proxy: fn(&Path, &str, &[String]) -> FrontProxy,
    more: impl FnOnce(&Network, &dyn Fn(usize)),
) {
    let Some(hosts) = Network::new(test, 3) else {
        return persist_tests::skip_without("a network namespace (run as root)");
    };
    let dir = tempdir();
    let place = TestStore::on(Kind::SeaweedFs);
    place.run_ok(&["ls"]);
    let storage = hosts.storage();
    let _storage = Forward::start(&storage, place.server().endpoint());
    let reached = place.through(&format!("http://{storage}"));
    let addresses = (0..3)
        .map(|n| format!("{}:7070", hosts.address(n)))
        .collect();
    let fleet = Fleet::at(&reached, dir.path(), addresses, Some(&hosts));
    let front = format!("{}:8080", hosts.proxy());
    let _proxy = proxy(dir.path(), &front, &fleet.addresses);
    serve_while(&fleet, &place, &front, |served| {
        for number in 0..2 {
            hosts.cut_off(number);
            served(2);
            hosts.reconnect(number);
            served(1);
        }
        more(&hosts, served);
    });
}

/// Sends turns of some agents to replicas while something happens to these, which may wait until
/// each agent was served so many turns more. Verifies that each turn was done once, and in order.
fn serve_while(
    fleet: &Fleet<'_>,
    place: &TestStore,
    front: &str,
    happens: impl FnOnce(&dyn Fn(usize)),
) {
    const AGENTS: usize = 6;
    let is_over = AtomicBool::new(false);
    let turns: Vec<_> = (0..AGENTS).map(|_| AtomicUsize::new(0)).collect();
    let repeated = AtomicUsize::new(0);
    let served = |more: usize| {
        let now = || turns.iter().map(|turns| turns.load(Ordering::Relaxed));
        let goals: Vec<_> = now().map(|turns| turns + more).collect();
        let began = Instant::now();
        while now().zip(&goals).any(|(turns, goal)| turns < *goal) {
            assert!(began.elapsed() < Duration::from_secs(120), "no progress");
            sleep(Duration::from_millis(10));
        }
        println!("{more} more turns of each agent took {:?}", began.elapsed());
    };
    scope(|scope| {
        for (number, done) in turns.iter().enumerate() {
            let client = Client {
                front,
                token: &fleet.token,
                agent: format!("bot-{number}"),
                repeated: &repeated,
            };
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    client.turn(done.load(Ordering::Relaxed) + 1);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // A panic of it must not leave the clients at work.
        let is_over = OnDrop(&is_over);
        served(1);
        happens(&served);
        drop(is_over);
    });
    for (number, turns) in turns.iter().enumerate() {
        let turns = turns.load(Ordering::Relaxed);
        let agent = format!("bot-{number}");
        let memory = place.run_ok(&["cat", &format!("{agent}/memory")]);
        let expected: Vec<_> = (1..=turns).map(|turn| format!("t{turn}")).collect();
        let words: Vec<_> = memory.split_whitespace().collect();
        assert_eq!(words, expected, "{agent}");
        let newest = block_on(async {
            let store = persist_host::snapshot::Store::new(place.storage());
            let scope = store.scope(&agent, None).expect("a name");
            scope.stat("memory", None).await.expect("reads")
        });
        let versions = newest.expect("a version").version;
        assert_eq!(versions, turns as u64, "{agent}: a version for each turn");
    }
    println!("{repeated:?} requests were repeated; {turns:?}");
}

/// Sets a flag when it is dropped.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A worker in JavaScript, which forwards calls to replicas.
struct Worker {
    dir: PathBuf,
    network: String,
    persist_url: String,
    token: String,
    child: Child,
}

impl Worker {
    fn start(dir: &Path, network: &str, front: &str, token: &str) -> Self {
        // Beside the packages that the example imports.
        let installed = persist_tests::toolchains().join("restate/node_modules");
        let dir = dir.join("worker");
        fs::create_dir(&dir).expect("made");
        std::os::unix::fs::symlink(installed, dir.join("node_modules")).expect("linked");
        let example = include_str!("../../examples/fleet/agents.js");
        fs::write(dir.join("agents.mjs"), example).expect("written");
        let (persist_url, token) = (format!("http://{front}"), token.to_owned());
        let child = node(&dir, network, &persist_url, &token);
        let network = network.to_owned();
        Self {
            dir,
            network,
            persist_url,
            token,
            child,
        }
    }

    fn restart(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
        self.child = node(&self.dir, &self.network, &self.persist_url, &self.token);
    }
}

fn node(dir: &Path, network: &str, persist_url: &str, token: &str) -> Child {
    let mut node = Command::new("node");
    node.arg(dir.join("agents.mjs"));
    node.envs([
        ("HOST", format!("{network}.7")),
        ("TIMEOUT_MS", "5000".into()),
    ]);
    node.envs([("PERSIST_URL", persist_url), ("PERSIST_TOKEN", token)]);
    node.stdin(Stdio::null()).stdout(Stdio::null());
    node.stderr(Stdio::null()).spawn().expect("node starts")
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn agents_on_restate_lose_and_double_no_turn_when_workers_and_replicas_die() {
    const AGENTS: usize = 4;
    const TURNS: usize = 6;
    if !Path::new(HAPROXY).exists() {
        return persist_tests::skip_without("haproxy");
    }
    let dir = tempdir();
    let place = TestStore::on(Kind::SeaweedFs);
    let network = network(1);
    let fleet = Fleet::start(&place, dir.path(), &network);
    let front = format!("{network}.9:8080");
    let _proxy = FrontProxy::haproxy(dir.path(), &front, &fleet.addresses);
    let restate = Restate::start(&dir.path().join("restate"), &format!("{network}.8"));
    let Some(restate) = restate else {
        return persist_tests::skip_without("restate");
    };
    let mut worker = Worker::start(dir.path(), &network, &front, &fleet.token);
    restate.register(&format!("http://{network}.7:9080"));
    let calls = AtomicUsize::new(0);
    let address = restate.ingress();
    scope(|scope| {
        for agent in 0..AGENTS {
            let (calls, address) = (&calls, &address);
            scope.spawn(move || {
                for turn in 1..=TURNS {
                    let path = format!("/agent/bot-{agent}%2Fmonday/run");
                    let args = json!(["update", "memory", format!("t{turn}")]);
                    let body = json!({ "args": args }).to_string();
                    // Sent once: Restate repeats what fails.
                    let sent = block_on(post(address, &path, &[], &body));
                    let (status, answer) = sent.expect("Restate answers");
                    assert_eq!(status, 200, "{answer}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let served = |count: usize| {
            let began = Instant::now();
            while calls.load(Ordering::Relaxed) < count {
                assert!(began.elapsed() < Duration::from_secs(120), "no progress");
                sleep(Duration::from_millis(5));
            }
        };
        for round in 0..3 {
            served(round * AGENTS + 1);
            worker.restart();
            fleet.restart(round, "-KILL");
        }
    });
    for agent in 0..AGENTS {
        let memory = place.run_ok(&["cat", &format!("bot-{agent}/monday/memory")]);
        let words: Vec<_> = memory.split_whitespace().collect();
        let expected: Vec<_> = (1..=TURNS).map(|turn| format!("t{turn}")).collect();
        assert_eq!(words, expected, "bot-{agent}");
    }
}

#[test]
fn the_manifest_for_kubernetes_is_one_that_serve_accepts() {
    let example = include_str!("../../examples/replicas/kubernetes.yaml");
    let (_, rest) = example
        .split_once("  agents.toml: |\n")
        .expect("a manifest");
    let (written, _) = rest.split_once("---\n").expect("another document");
    let dir = tempdir();
    let component = guest("test_guest").display().to_string();
    let lines = written.lines().map(str::trim_start).collect::<Vec<_>>();
    let text = lines.join("\n").replace("/agents/support.wasm", &component);
    let file = dir.path().join("agents.toml");
    fs::write(&file, text).expect("written");
    let args: Vec<_> = example
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("- "))
        .filter(|arg| *arg == "serve" || arg.starts_with("--"))
        .map(|arg| match arg.strip_prefix("--manifest=") {
            Some(_) => format!("--manifest={}", file.display()),
            None => arg.to_owned(),
        })
        .collect();
    let mut command = persist(&dir.path().join("store"));
    let checked = command.args(args).arg("--check").output().expect("it runs");
    assert!(checked.status.success(), "{checked:?}");
}
