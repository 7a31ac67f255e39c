//! The service that is tested, and the storage that fails under it.

use super::Kind;
use crate::machine::{self, Workspace};
use crate::servers::{self, Cloud};
use anyhow::{Context, Result, bail, ensure};
use persist_servers::Server;
use serde_json::Value;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest time for the start of the service.
const STARTS: u32 = 100;

/// A directory for the test, which is removed, and the storage.
#[derive(Debug)]
pub(super) struct Place {
    dir: PathBuf,
    server: Option<Server>,
}

impl Place {
    pub(super) fn make(workspace: &Workspace, kind: Kind) -> Result<Self> {
        let name = format!("load-test-{}", std::process::id());
        let server = match kind {
            Kind::Local => None,
            Kind::S3 => {
                servers::install(workspace, Cloud::S3.package())?;
                Some(Server::launch(Cloud::S3.kind())?)
            }
        };
        // The disk that is measured is the one that the checkout is on; /tmp may be memory.
        let dir = workspace.target.join(name);
        fs::create_dir_all(&dir)?;
        Ok(Self { dir, server })
    }

    fn store(&self) -> PathBuf {
        self.dir.join("store")
    }

    fn aside(&self) -> PathBuf {
        self.dir.join("store-that-is-gone")
    }

    /// Returns the command on this storage, without the settings of the user.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("HOME", &self.dir);
        match &self.server {
            None => {
                let url = format!("file://{}", self.store().display());
                command.env("PERSIST_STORAGE", url);
            }
            Some(server) => {
                let url = server.url(&server.facts().bucket, "load-test");
                command.envs(server.environment(server.endpoint()));
                command.env("PERSIST_STORAGE", url);
            }
        }
        command
    }

    /// Lets the storage fail: a server gives no answers, a directory is not there.
    pub(super) fn fail(&self) -> Result<()> {
        match &self.server {
            Some(server) => server.pause(),
            None => Ok(fs::rename(self.store(), self.aside())?),
        }
    }

    pub(super) fn mend(&self) -> Result<()> {
        match &self.server {
            Some(server) => server.resume(),
            None => Ok(fs::rename(self.aside(), self.store())?),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A server that is stopped does not end.
        if let Some(server) = &self.server {
            let _ = server.resume();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// `persist serve`.
#[derive(Debug)]
pub(super) struct Service<'a> {
    place: &'a Place,
    persist: &'a Path,
    manifest: PathBuf,
    connections: usize,
    child: Child,
    url: String,
    token: String,
    /// Peak of the resident memory of earlier processes, in KiB.
    memory: u64,
}

impl<'a> Service<'a> {
    /// Makes a store and a token, and starts the service.
    pub(super) fn start(
        persist: &'a Path,
        agent: &Path,
        place: &'a Place,
        agents: usize,
    ) -> Result<Self> {
        machine::output(place.command(persist).arg("init"))?;
        let new = ["token", "new", "--json", "--rights", "run,read"];
        let made: Value =
            serde_json::from_str(&machine::output(place.command(persist).args(new))?)?;
        let part = |key: &str| made[key].as_str().map(str::to_owned).context("no token");
        let manifest = place.dir.join("agents.toml");
        let text = format!(
            "[[agents]]\nname = \"bot-*\"\ncomponent = \"{}\"\n\n{}\n",
            agent.display(),
            part("manifest")?
        );
        fs::write(&manifest, text)?;
        // Each client may have a connection that it has given up.
        let connections = 2 * agents + 16;
        let listen = "127.0.0.1:0";
        let (child, url) = spawn(place, persist, &manifest, connections, listen)?;
        Ok(Self {
            place,
            persist,
            manifest,
            connections,
            child,
            url,
            token: part("token")?,
            memory: 0,
        })
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Ends the service with a signal, and starts it again at the same address.
    pub(super) fn restart(&mut self, signal: &str) -> Result<()> {
        self.stop(signal)?;
        let listen = self.url.strip_prefix("http://").context("an address")?;
        for _ in 0..STARTS {
            let (place, file) = (self.place, &self.manifest);
            match spawn(place, self.persist, file, self.connections, listen) {
                Ok((child, _)) => {
                    self.child = child;
                    return Ok(());
                }
                Err(error) => eprintln!("{error:#}; trying again"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the service does not start again")
    }

    fn stop(&mut self, signal: &str) -> Result<()> {
        eprintln!("the service gets {signal}");
        self.memory = self.memory.max(peak_memory(self.child.id()));
        let id = self.child.id().to_string();
        machine::run(Command::new("kill").args([signal, &id]))?;
        let status = self.child.wait()?;
        ensure!(
            signal == "-KILL" || status.success(),
            "after {signal}, the service ended with {status}"
        );
        Ok(())
    }

    /// Ends the service, and returns the peak of its resident memory, in KiB.
    pub(super) fn end(mut self) -> Result<u64> {
        self.stop("-TERM")?;
        Ok(self.memory)
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a service, and returns its address.
fn spawn(
    place: &Place,
    persist: &Path,
    manifest: &Path,
    connections: usize,
    listen: &str,
) -> Result<(Child, String)> {
    let log = File::options()
        .create(true)
        .append(true)
        .open(place.dir.join("log"))?;
    let mut child = place
        .command(persist)
        .args(["serve", "--json", "--listen", listen, "--max-connections"])
        .arg(connections.to_string())
        .arg("--manifest")
        .arg(manifest)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.as_mut().context("a pipe")?;
    BufReader::new(stdout).read_line(&mut line)?;
    let event: Value = serde_json::from_str(&line).unwrap_or_default();
    match event["url"].as_str() {
        Some(url) => Ok((child, url.to_owned())),
        None => {
            let _ = child.kill();
            let status = child.wait()?;
            let log = fs::read_to_string(place.dir.join("log"))?;
            bail!("the service did not start: {status}: {log}")
        }
    }
}

/// Returns the peak of the resident memory of a process, in KiB.
fn peak_memory(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.split_whitespace().next());
    peak.and_then(|peak| peak.parse().ok()).unwrap_or(0)
}
