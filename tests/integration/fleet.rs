//! `examples/fleet`: turns that are done once, and a trial of many workers on Restate.

#[path = "../../examples/fleet/src/turns.rs"]
mod turns;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use persist_host::snapshot::{LeaseOptions, Store};
use persist_servers::Kind;
use persist_tests::store::TestStore;
use persist_tests::{block_on, guest, host, load, tempdir, test_guest};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::netns::{Forward, Network};
use crate::replicas::{FrontProxy, network, post};
use crate::restate::Restate;
use turns::{Failure, Heads, Turn, Turns};

/// A worker's turns, of a host that waits for the lease of another one.
fn turns_of(place: &TestStore, term: Duration) -> Turns {
    let mut lease = LeaseOptions::default();
    lease.term = term;
    lease.wait = Duration::from_secs(60);
    Turns {
        store: Store::new(place.storage()),
        agent: block_on(test_guest(&host())),
        lease,
    }
}

const TERM: Duration = Duration::from_secs(20);

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn a_call_that_is_repeated_is_one_turn() {
    let place = TestStore::on(Kind::SeaweedFs);
    let turns = turns_of(&place, TERM);
    block_on(async {
        let args = words(&["update", "memory", "t1"]);
        let heads = turns.heads("bot/monday").await.expect("reads");
        assert_eq!(heads, Heads::new());
        let first = turns.run("bot/monday", "call-1", &heads, &args).await;
        let versions = words(&["memory@1"]);
        let expected = Turn {
            answer: Some("t1".into()),
            versions: versions.clone(),
        };
        assert_eq!(first.expect("runs"), expected);
        // The worker died before Restate had the answer.
        for _ in 0..2 {
            let again = turns.run("bot/monday", "call-1", &heads, &args).await;
            let expected = Turn {
                answer: None,
                versions: versions.clone(),
            };
            assert_eq!(again.expect("found"), expected);
        }
        // Above versions of others, too: those of a second engine, or of an operator.
        let heads_of_second = turns.heads("bot/monday").await.expect("reads");
        assert_eq!(heads_of_second, Heads::from([("memory".into(), 1)]));
        let args = words(&["update", "memory", "t2"]);
        let second = turns.run("bot/monday", "call-2", &heads_of_second, &args);
        assert_eq!(second.await.expect("runs").answer, Some("t1 t2".into()));
        let again = turns.run("bot/monday", "call-1", &heads, &args).await;
        assert_eq!(again.expect("found").versions, versions);
    });
}

#[test]
fn a_call_whose_worker_died_after_its_save_is_found_by_another_worker() {
    let place = TestStore::on(Kind::SeaweedFs);
    let term = Duration::from_millis(200);
    let (dies, other) = (turns_of(&place, term), turns_of(&place, term));
    let args = words(&["save-and-loop", "x", "hello"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let of_dead = args.clone();
    let attempt = async move { dies.run("bot", "call-1", &Heads::new(), &of_dead).await };
    runtime.spawn(attempt);
    let scope = place.scope();
    while block_on(scope.stat("x", None)).expect("reads").is_none() {
        sleep(Duration::from_millis(5));
    }
    // Its lease is not released.
    runtime.shutdown_background();
    let found = block_on(other.run("bot", "call-1", &Heads::new(), &args));
    let expected = Turn {
        answer: None,
        versions: words(&["x@1"]),
    };
    assert_eq!(found.expect("found"), expected);
}

#[test]
fn calls_of_two_engines_on_one_key_are_each_one_turn() {
    const CALLS: usize = 5;
    let place = TestStore::on(Kind::SeaweedFs);
    scope(|scope| {
        for engine in ["a", "b"] {
            let turns = turns_of(&place, TERM);
            scope.spawn(move || {
                for call in 1..=CALLS {
                    let id = format!("{engine}{call}");
                    let args = words(&["update", "memory", &id]);
                    let heads = block_on(turns.heads("bot")).expect("reads");
                    while let Err(failure) = block_on(turns.run("bot", &id, &heads, &args)) {
                        assert!(matches!(failure, Failure::Retry(_)), "{failure:?}");
                    }
                }
            });
        }
    });
    let memory = block_on(load(&place.scope(), "memory")).expect("saved");
    let mut done: Vec<_> = memory.split_whitespace().collect();
    for engine in ["a", "b"] {
        let mine: Vec<_> = done
            .iter()
            .filter(|word| word.starts_with(engine))
            .collect();
        assert!(mine.is_sorted(), "{done:?}");
    }
    done.sort_unstable();
    done.dedup();
    assert_eq!(done.len(), 2 * CALLS, "{done:?}");
    let newest = block_on(place.scope().stat("memory", None)).expect("reads");
    assert_eq!(newest.expect("saved").version, 2 * CALLS as u64);
}

#[test]
fn only_failures_that_may_pass_are_worth_a_retry() {
    let place = TestStore::local();
    let mut turns = turns_of(&place, TERM);
    turns.lease.wait = Duration::ZERO;
    let run = |key: &'static str, args: &[&str]| {
        block_on(turns.run(key, "call-1", &Heads::new(), &words(args)))
    };
    let ended = |failure: Result<Turn, Failure>| match failure {
        Err(Failure::Final(why)) => why,
        other => panic!("{other:?}"),
    };
    let why = ended(run("bot", &["update", "x", "throw"]));
    assert!(why.contains("the agent answered with an error"), "{why}");
    let why = ended(run("", &["echo", "hi"]));
    assert!(why.contains("name"), "{why}");
    let lease = block_on(place.scope().lease(&LeaseOptions::default()));
    let lease = lease.expect("it is free");
    let held = run("bot", &["echo", "hi"]);
    let Err(Failure::Retry(why)) = held else {
        panic!("{held:?}");
    };
    assert!(why.contains("is leased by"), "{why}");
    block_on(lease.release()).expect("released");
    assert_eq!(
        run("bot", &["echo", "hi"]).expect("runs").answer,
        Some("hi".into())
    );
}

/// Returns a number of the trial.
fn setting<T: FromStr>(name: &str, default: T) -> T {
    let Ok(text) = std::env::var(name) else {
        return default;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
}

/// The fault of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    CutOff,
    Stop,
    Clock,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "killed by SIGKILL",
            Self::CutOff => "cut off the network",
            Self::Stop => "stopped by SIGSTOP",
            Self::Clock => "whose clock jumped by 5 and 10 minutes",
        }
    }
}

/// A call that was answered.
struct Call {
    began: Instant,
    ended: Instant,
    /// Answered by the versions that an earlier attempt had saved.
    found: bool,
}

/// Workers of the trial, each on a host of its own where the process is root.
struct Workers {
    dir: PathBuf,
    /// Command that runs a worker, without the worker's address.
    command: Command,
    network: Option<Network>,
    addresses: Vec<String>,
    children: Vec<Child>,
}

impl Workers {
    fn start(&mut self) {
        for host in 0..self.addresses.len() {
            let child = self.spawn(host);
            self.children.push(child);
        }
    }

    fn clock(&self, host: usize) -> PathBuf {
        self.dir.join(format!("clock-{host}"))
    }

    fn spawn(&self, host: usize) -> Child {
        let log = self.dir.join(format!("worker-{host}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log);
        let log = log.expect("a file");
        let mut command = match &self.network {
            Some(network) => network.command(host, &self.command),
            None => {
                let mut command = Command::new(self.command.get_program());
                command.args(self.command.get_args()).env_clear();
                let variables = self.command.get_envs();
                command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
                command
            }
        };
        if let Some(library) = faketime() {
            std::fs::write(self.clock(host), "+0").expect("written");
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.clock(host))
                .env("FAKETIME_CACHE_DURATION", "1")
                // A machine's clock jumps, the time since its start does not.
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        command.env("LISTEN", &self.addresses[host]);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"));
        command.stderr(log).spawn().expect("the worker starts")
    }

    fn signal(&self, host: usize, signal: &str) {
        let id = self.children[host].id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status();
        assert!(sent.expect("kill starts").success());
    }

    /// Lets a fault happen, which lasts for a time, and undoes it.
    fn suffer(&mut self, host: usize, fault: Fault, lasts: Duration) {
        match (fault, &self.network) {
            (Fault::Kill, _) => {
                self.children[host].kill().expect("killed");
                self.children[host].wait().expect("ended");
                self.children[host] = self.spawn(host);
            }
            (Fault::CutOff, Some(network)) => {
                network.cut_off(host);
                sleep(lasts);
                network.reconnect(host);
            }
            (Fault::CutOff | Fault::Stop, _) => {
                self.signal(host, "-STOP");
                sleep(lasts);
                self.signal(host, "-CONT");
            }
            (Fault::Clock, _) => {
                // Signed requests of a clock that is wrong by 15 minutes are refused.
                for offset in ["+300", "-300", "+0"] {
                    std::fs::write(self.clock(host), offset).expect("written");
                    sleep(lasts / 2);
                }
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The library that shifts clocks, where it is asked for.
fn faketime() -> Option<String> {
    std::env::var("FLEET_FAKETIME").ok()
}

/// Time of the lease's term, and of the faults that last: longer than a lease of a dead worker.
const TRIAL_TERM: Duration = Duration::from_secs(2);
const TRIAL_FAULT: Duration = Duration::from_secs(5);

/// Runs calls on workers that are killed, cut off and stopped. Verifies that each call is one turn.
///
/// `cargo xtask bench fleet` builds the worker, sets the variables and prints the table.
#[test]
#[ignore = "needs the worker of examples/fleet: run `cargo xtask bench fleet`"]
fn a_fleet_on_restate_loses_and_doubles_no_turn() {
    let worker = std::env::var("FLEET_WORKER").expect("FLEET_WORKER");
    let agents = setting("FLEET_AGENTS", 100_usize);
    let calls = setting("FLEET_CALLS", 1000_usize).max(agents);
    let hosts = setting("FLEET_WORKERS", 3_usize);
    let engines = setting("FLEET_ENGINES", 1_usize);
    let every = Duration::from_secs(setting("FLEET_FAULT_EVERY", 4_u64));
    let callers = setting("FLEET_CALLERS", 32_usize);
    let turns = calls / agents / engines;

    let dir = tempdir();
    let place = TestStore::on(Kind::SeaweedFs);
    place.run_ok(&["ls"]);
    let loopback = network(2);
    let net = Network::new(2, hosts);
    let (proxy, storage) = match &net {
        Some(net) => (net.proxy(), net.storage()),
        None => (format!("{loopback}.1"), format!("{loopback}.2:8333")),
    };
    let addresses: Vec<_> = (0..hosts)
        .map(|host| match &net {
            Some(net) => format!("{}:9080", net.address(host)),
            None => format!("{loopback}.{}:9080", 11 + host),
        })
        .collect();
    let _storage = Forward::start(&storage, place.server().endpoint());
    let mut config = include_str!("../../examples/fleet/haproxy.cfg").to_owned();
    let (listed, _) = config.split_once("    server worker-1").expect("a list");
    config = listed.replace("127.0.0.1:9080", &format!("{proxy}:9080"));
    for (host, address) in addresses.iter().enumerate() {
        let _ = writeln!(config, "    server worker-{} {address}", host + 1);
    }
    let _haproxy = FrontProxy::haproxy_of(dir.path(), &config);

    let reached = place.through(&format!("http://{storage}"));
    let environment = reached.command();
    let mut command = Command::new(worker);
    let variables = environment.get_envs();
    command.envs(variables.filter_map(|(name, value)| Some((name, value?))));
    command.env("PERSIST_S3_ALLOW_HTTP", &storage);
    command.env("LEASE_SECONDS", TRIAL_TERM.as_secs().to_string());
    command.arg(guest("test_guest"));
    let is_cut_off = net.is_some();
    let mut workers = Workers {
        dir: dir.path().into(),
        command,
        network: net,
        addresses,
        children: Vec::new(),
    };
    workers.start();
    let servers: Vec<_> = (0..engines)
        .map(|engine| {
            let address = format!("{loopback}.{}", 21 + engine);
            let dir = dir.path().join(format!("restate-{engine}"));
            let server = Restate::start(&dir, &address).expect("Restate is installed");
            server.register(&format!("http://{proxy}:9080"));
            server
        })
        .collect();

    let done = Arc::new(Mutex::new(Vec::new()));
    let refused = Arc::new(Mutex::new(Vec::new()));
    let is_over = AtomicBool::new(false);
    let began = Instant::now();
    let mut faults: Vec<(Instant, Fault)> = Vec::new();
    let answered = Arc::new(AtomicUsize::new(0));
    scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let places = Arc::new(Semaphore::new(callers));
            let mut tasks = Vec::new();
            for agent in 0..agents {
                for (engine, server) in servers.iter().enumerate() {
                    let ingress = server.ingress();
                    let (done, refused) = (Arc::clone(&done), Arc::clone(&refused));
                    let (places, answered) = (Arc::clone(&places), Arc::clone(&answered));
                    tasks.push(runtime.spawn(async move {
                        for turn in 1..=turns {
                            let _place = places.acquire().await;
                            let began = Instant::now();
                            let sent = call(&ingress, agent, engine, turn).await;
                            let ended = Instant::now();
                            answered.fetch_add(1, Ordering::Relaxed);
                            match sent {
                                Some((200, answer)) => {
                                    let found = answer["answer"].is_null();
                                    done.lock().expect("no panic").push(Call {
                                        began,
                                        ended,
                                        found,
                                    });
                                }
                                sent => {
                                    refused.lock().expect("no panic").push(format!("{sent:?}"));
                                }
                            }
                        }
                    }));
                }
            }
            runtime.block_on(async {
                for task in tasks {
                    task.await.expect("no panic");
                }
            });
            is_over.store(true, Ordering::Relaxed);
        });
        let mut kinds = vec![Fault::Kill, Fault::CutOff, Fault::Kill, Fault::Stop];
        if faketime().is_some() {
            kinds.push(Fault::Clock);
        }
        for number in 0.. {
            let next = Instant::now() + every;
            while Instant::now() < next && !is_over.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(20));
            }
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            let fault = kinds[number % kinds.len()];
            faults.push((Instant::now(), fault));
            workers.suffer(number % hosts, fault, TRIAL_FAULT);
            eprintln!(
                "{:>4} s: {:>6} of {calls} calls; worker {} {}",
                began.elapsed().as_secs(),
                answered.load(Ordering::Relaxed),
                number % hosts + 1,
                fault.name()
            );
        }
    });
    let took = began.elapsed();
    // A worker that was cut off may still be at work.
    sleep(TRIAL_FAULT);

    let (lost, doubled, disordered) = verify(&place, agents, engines, turns);
    let done = std::mem::take(&mut *done.lock().expect("no panic"));
    let mut rows = vec![
        ("agents".into(), agents.to_string()),
        ("calls".into(), (agents * engines * turns).to_string()),
        ("workers".into(), hosts.to_string()),
        ("Restate servers".into(), engines.to_string()),
        ("concurrent callers".into(), callers.to_string()),
    ];
    rows.extend(fault_rows(&faults, &done, is_cut_off));
    let mut waits: Vec<_> = done.iter().map(|call| call.ended - call.began).collect();
    waits.sort_unstable();
    let wait = |part: f64| seconds(quantile(&waits, part));
    let found = done.iter().filter(|call| call.found).count();
    let rate = done.len() as f64 / took.as_secs_f64();
    rows.extend([
        ("time".into(), seconds(took)),
        ("calls per second".into(), format!("{rate:.1}")),
        ("time of a call, median".into(), wait(0.5)),
        ("time of a call, 99 %".into(), wait(0.99)),
        ("time of a call, longest".into(), wait(1.0)),
        (
            "repeated calls that were found by their label".into(),
            found.to_string(),
        ),
        ("lost turns".into(), lost.to_string()),
        ("doubled turns".into(), doubled.to_string()),
        (
            "agents whose turns are not in order".into(),
            disordered.to_string(),
        ),
    ]);
    let mut table = "| | |\n|---|---:|\n".to_owned();
    for (name, value) in rows {
        let _ = writeln!(table, "| {name} | {value} |");
    }
    println!("{table}");
    if let Ok(report) = std::env::var("FLEET_REPORT") {
        std::fs::write(report, table).expect("written");
    }
    let refused = std::mem::take(&mut *refused.lock().expect("no panic"));
    assert!(
        refused.is_empty(),
        "{} calls failed: {:?}",
        refused.len(),
        refused.first()
    );
    assert_eq!(
        (lost, doubled, disordered),
        (0, 0, 0),
        "lost, doubled, not in order"
    );
}

async fn call(ingress: &str, agent: usize, engine: usize, turn: usize) -> Option<(u16, Value)> {
    let path = format!("/agent/bot-{agent}%2Fmonday/run");
    let body = json!({ "args": ["update", "memory", word(engine, turn)] }).to_string();
    // Sent once: Restate repeats what fails.
    post(ingress, &path, &[], &body).await
}

fn word(engine: usize, turn: usize) -> String {
    format!("e{engine}t{turn}")
}

/// Counts lost turns, doubled ones, and agents whose turns are not in the order of their calls.
fn verify(place: &TestStore, agents: usize, engines: usize, turns: usize) -> (usize, usize, usize) {
    let store = Store::new(place.storage());
    let (mut lost, mut doubled, mut disordered) = (0, 0, 0);
    for agent in 0..agents {
        let agent = format!("bot-{agent}");
        let memory = store.scope(&agent, Some("monday")).expect("a name");
        let newest = block_on(memory.stat("memory", None)).expect("reads");
        let versions = newest.map_or(0, |info| info.version);
        let memory = block_on(load(&memory, "memory")).unwrap_or_default();
        let mut times = BTreeMap::<&str, usize>::new();
        for word in memory.split_whitespace() {
            *times.entry(word).or_default() += 1;
        }
        doubled += times.values().map(|times| times - 1).sum::<usize>();
        let total: usize = times.values().sum();
        // A version that added no turn would be a save that was undone.
        doubled += usize::try_from(versions).expect("small").abs_diff(total);
        for engine in 0..engines {
            let expected: Vec<_> = (1..=turns).map(|turn| word(engine, turn)).collect();
            let missing = expected
                .iter()
                .filter(|word| !times.contains_key(word.as_str()));
            lost += missing.count();
            let prefix = format!("e{engine}t");
            let words = memory.split_whitespace();
            let mine: Vec<_> = words.filter(|word| word.starts_with(&prefix)).collect();
            disordered += usize::from(mine != expected);
        }
    }
    (lost, doubled, disordered)
}

/// Returns rows about each kind of fault: its number, and how long the calls took that were under
/// way when it happened.
fn fault_rows(faults: &[(Instant, Fault)], calls: &[Call], is_cut: bool) -> Vec<(String, String)> {
    let mut kinds = BTreeMap::<Fault, Vec<Duration>>::new();
    for (at, fault) in faults {
        let under_way = calls
            .iter()
            .filter(|call| call.began < *at && call.ended > *at);
        let last = under_way.map(|call| call.ended - *at).max();
        kinds
            .entry(*fault)
            .or_default()
            .push(last.unwrap_or_default());
    }
    let mut rows = Vec::new();
    for (fault, mut times) in kinds {
        let name = match fault {
            Fault::CutOff if !is_cut => "stopped by SIGSTOP, as the network needs root",
            fault => fault.name(),
        };
        times.sort_unstable();
        let (median, longest) = (quantile(&times, 0.5), quantile(&times, 1.0));
        rows.push((format!("workers {name}"), times.len().to_string()));
        let value = format!("{}, {}", seconds(median), seconds(longest));
        rows.push(("— until its calls were done: median, longest".into(), value));
    }
    rows
}

fn quantile(sorted: &[Duration], part: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    let at = (part * last as f64).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
