//! A server of Restate.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use persist_tests::block_on;
use serde_json::json;

use crate::replicas::post;

/// A server that is running. It ends with this value.
pub(crate) struct Restate {
    server: Child,
    address: String,
}

impl Restate {
    /// Starts a server that keeps its data in `dir`; none where Restate is not installed.
    pub(crate) fn start(dir: &Path, address: &str) -> Option<Self> {
        let installed = persist_tests::toolchains().join("restate/node_modules");
        // The architecture is in the name of the package.
        let servers = fs::read_dir(installed.join("@restatedev")).ok()?.flatten();
        let program = servers
            .map(|entry| entry.path().join("bin/restate-server"))
            .find(|program| program.is_file())?;
        fs::create_dir(dir).expect("made");
        let log = fs::File::create(dir.join("restate.log")).expect("made");
        let server = Command::new(program)
            .args(["--bind-ip", address, "--advertised-host", address])
            .args(["--listen-mode", "tcp", "--no-logo", "--base-dir"])
            .arg(dir)
            .env("DO_NOT_TRACK", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("it starts");
        let address = address.to_owned();
        Some(Self { server, address })
    }

    /// Tells the server where its workers are.
    pub(crate) fn register(&self, workers: &str) {
        let body = json!({ "uri": workers }).to_string();
        let admin = format!("{}:9070", self.address);
        let began = Instant::now();
        loop {
            let sent = block_on(post(&admin, "/deployments", &[], &body));
            match sent {
                Some((201, _)) => return,
                sent => assert!(began.elapsed() < Duration::from_secs(120), "{sent:?}"),
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// The address to which callers send calls.
    pub(crate) fn ingress(&self) -> String {
        format!("{}:8080", self.address)
    }
}

impl Drop for Restate {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
