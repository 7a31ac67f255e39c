//! A real server, as the tests see it. The program of this package starts and stops it
//! (`launcher`). A pipe connects the two: the server ends as soon as the process that asked for it
//! ends, in whatever way.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// S3: one winner of each race, signatures checked, encryption real. `If-Match` on a missing
    /// key is 412 (on AWS 404).
    SeaweedFs,
    /// S3: as AWS where SeaweedFS is not, but never checks a signature.
    Ministack,
    /// S3: conditions are exact, also where parts are put together. Never checks a signature, and
    /// cannot list unfinished uploads.
    LocalBucket,
    /// GCS, over HTTP only; never checks a credential.
    FakeGcs,
}

impl Kind {
    /// All servers.
    pub const ALL: [Self; 4] = [
        Self::SeaweedFs,
        Self::Ministack,
        Self::LocalBucket,
        Self::FakeGcs,
    ];

    /// Returns the name by which the program is asked for the server.
    pub fn name(self) -> &'static str {
        match self {
            Self::SeaweedFs => "seaweedfs",
            Self::Ministack => "ministack",
            Self::LocalBucket => "localbucket",
            Self::FakeGcs => "fake-gcs-server",
        }
    }

    /// The server of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Address of a server, and the credentials for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// Such as `http://127.0.0.1:12103`.
    pub endpoint: String,
    /// A bucket that is there.
    pub bucket: String,
    /// The access key; empty where none is asked for.
    pub access_key: String,
    /// The secret that belongs to it.
    pub secret_key: String,
    /// SeaweedFS's view of buckets as directories, over plain HTTP without signatures.
    pub filer: Option<String>,
    /// Path of the log with the server's output.
    pub log: PathBuf,
}

/// A server that is running. It ends with this value, or with this process.
#[derive(Debug)]
pub struct Server {
    kind: Kind,
    facts: Facts,
    launcher: Child,
    /// Closed, it ends the server.
    leash: Option<ChildStdin>,
}

impl Server {
    /// Starts a server with nothing in it.
    ///
    /// # Panics
    /// Where it does not start: a test can do nothing without it.
    pub fn start(kind: Kind) -> Self {
        Self::launch(kind).unwrap_or_else(|error| {
            panic!(
                "{} does not start: {error:#}; run `cargo xtask test`",
                kind.name()
            )
        })
    }

    /// The one of this process. Tests that share it use a prefix or a bucket of their own.
    pub fn shared(kind: Kind) -> &'static Self {
        static SHARED: Mutex<Option<HashMap<Kind, &'static OnceLock<Server>>>> = Mutex::new(None);
        let server = {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            // For as long as the process, as a static is: the pipe ends it.
            *shared
                .get_or_insert_default()
                .entry(kind)
                .or_insert_with(|| Box::leak(Box::default()))
        };
        server.get_or_init(|| Self::start(kind))
    }

    /// Starts a server with nothing in it, by the program `persist-servers`, which must be built.
    ///
    /// # Errors
    /// The program does not start, or the server does not. The program says why on standard error.
    pub fn launch(kind: Kind) -> Result<Self> {
        let program = program()?;
        ensure!(program.is_file(), "{} is missing", program.display());
        let mut launcher = Command::new(program)
            .arg(kind.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A person's Ctrl-C ends the tests; the server ends after them.
            .process_group(0)
            .spawn()
            .context("its launcher does not start")?;
        let leash = launcher.stdin.take();
        let stdout = launcher.stdout.take().context("a pipe")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let facts = serde_json::from_str(&line).context("its launcher says why above")?;
        Ok(Self {
            kind,
            facts,
            launcher,
            leash,
        })
    }

    /// All that is known of it.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Such as `http://127.0.0.1:12103`.
    pub fn endpoint(&self) -> &str {
        &self.facts.endpoint
    }

    /// Stops the server and its launcher, so that requests get no answer, as in an outage. Its data
    /// stays.
    ///
    /// # Errors
    /// The command `kill` does not run, or fails.
    pub fn pause(&self) -> Result<()> {
        self.signal("-STOP")
    }

    /// Lets a stopped server go on.
    ///
    /// # Errors
    /// The command `kill` does not run, or fails.
    pub fn resume(&self) -> Result<()> {
        self.signal("-CONT")
    }

    /// Signals the group of the launcher, which is that of the server, too.
    fn signal(&self, signal: &str) -> Result<()> {
        let group = format!("-{}", self.launcher.id());
        let sent = Command::new("kill").args([signal, "--", &group]).status()?;
        ensure!(sent.success(), "{} gets no {signal}", self.kind.name());
        Ok(())
    }

    /// Returns the URL of a prefix in a bucket of the server, as `persist` takes it.
    pub fn url(&self, bucket: &str, prefix: &str) -> String {
        let scheme = match self.kind {
            Kind::SeaweedFs | Kind::Ministack | Kind::LocalBucket => "s3",
            Kind::FakeGcs => "gs",
        };
        format!("{scheme}://{bucket}/{prefix}")
    }

    /// Returns the environment that a process needs to use this server at `endpoint`: the server's
    /// own endpoint, or that of a proxy before it.
    pub fn environment(&self, endpoint: &str) -> Vec<(&'static str, String)> {
        if self.kind == Kind::FakeGcs {
            return vec![("STORAGE_EMULATOR_HOST", endpoint.to_owned())];
        }
        vec![
            ("AWS_ENDPOINT_URL", endpoint.to_owned()),
            ("AWS_ACCESS_KEY_ID", self.facts.access_key.clone()),
            ("AWS_SECRET_ACCESS_KEY", self.facts.secret_key.clone()),
            ("AWS_REGION", "us-east-1".to_owned()),
            // No look for credentials where a test has none.
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.leash.take());
        let _ = self.launcher.wait();
    }
}

/// Beside the directory of this test binary, or of this program.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let built = own
        .ancestors()
        .skip(1)
        .find(|dir| !dir.ends_with("deps"))
        .context("this program is in no directory")?;
    Ok(built.join("persist-servers"))
}
