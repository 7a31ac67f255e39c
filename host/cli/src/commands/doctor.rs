//! Checks of whether the storage can be trusted with a store, and advice if it cannot.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use bytes::Bytes;
use clap::Args;
use persist_host::snapshot::{self, Store, layout};
use persist_host::storage::probe::{self, Way};
use persist_host::storage::{
    self, Entry, ErrorKind, Key, List, Pager, ReadRange, S3Checksums, S3Encryption, Storage,
    StorageBackend, StorageConfig, Sweep,
};
use serde_json::json;

use super::meta;
use crate::error::Code;
use crate::exit::{snapshot_code, storage_code};
use crate::print::Out;
use crate::settings::Settings;
use crate::stdio::{self, BAD, GOOD, WARNING, say};
use crate::text;

/// Clocks that differ by more make the times in lists hard to understand, and signatures of
/// requests may be refused.
const APART: Duration = Duration::from_secs(60);

/// Less free space than this is told.
const LITTLE: u64 = 1 << 30;

/// Check that the storage backend is usable: settings, credentials, permissions, conditional
/// creates, clock, free space
///
/// Creates small objects with keys that start with ~/probe-, lists them, creates the same objects
/// from several writers at once, also as multipart uploads (about 100 MiB), and removes them. Saved
/// versions are not changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist doctor
  persist doctor --read-only --storage s3://bucket/agents")]
pub(crate) struct Doctor {
    /// Create no objects; skip the checks that need them
    #[arg(long)]
    read_only: bool,
}

impl Doctor {
    pub(crate) async fn run(self, settings: &Settings, out: Out) -> Result<()> {
        let problems = if out.quiet && !out.json {
            settings.problems()
        } else {
            meta::show(settings, out)?
        };
        let config = settings.storage()?;
        let storage = settings.build(&config)?;
        let mut checks = Checks {
            storage,
            settings,
            config,
            out,
            worst: None,
            wrong: Vec::new(),
        };
        let place = checks.storage.location();
        for (_, what) in &problems {
            checks.tell("settings", Err(Wrong::new(2, what)))?;
        }
        if problems.is_empty() {
            checks.tell("settings", Ok("every value is valid".into()))?;
        }
        checks.tell("storage", Ok(place))?;
        if checks.reach().await? {
            checks.format().await?;
            checks.clock().await?;
            checks.space(settings)?;
            if !self.read_only {
                checks.writes().await?;
            }
        }
        match checks.worst {
            None => Ok(()),
            Some(code) => {
                let what = format!("doctor found problems: {}", checks.wrong.join(", "));
                Err(Code(code, what.into()).into())
            }
        }
    }
}

/// An examination under way.
struct Checks<'a> {
    storage: Arc<dyn Storage>,
    settings: &'a Settings,
    config: StorageConfig,
    out: Out,
    /// The exit code of the first thing that is wrong.
    worst: Option<u8>,
    /// Problems, in the order in which they were found.
    wrong: Vec<String>,
}

/// The exit code where the storage does not do what a store needs.
const LACKING: u8 = 6;

/// A problem.
struct Wrong {
    /// The exit code for it.
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Wrong {
    fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// Returns the problem of a storage that a store cannot use.
    fn unusable(message: impl Into<String>) -> Self {
        Self {
            hint: Some("use another storage".into()),
            ..Self::new(LACKING, message)
        }
    }
}

impl From<&storage::Error> for Wrong {
    fn from(error: &storage::Error) -> Self {
        Self {
            hint: error.hint().map(str::to_owned),
            ..Self::new(storage_code(error), error.to_string())
        }
    }
}

impl From<&snapshot::Error> for Wrong {
    fn from(error: &snapshot::Error) -> Self {
        Self {
            hint: error.hint().map(Into::into),
            ..Self::new(snapshot_code(error), error.to_string())
        }
    }
}

impl Checks<'_> {
    fn tell(&mut self, check: &str, found: Result<String, Wrong>) -> Result<bool> {
        match found {
            Ok(message) => {
                self.line("ok", check, &message, None)?;
                Ok(true)
            }
            Err(wrong) => {
                self.worst.get_or_insert(wrong.code);
                self.wrong.push(check.to_owned());
                self.line("wrong", check, &wrong.message, wrong.hint.as_deref())?;
                Ok(false)
            }
        }
    }

    fn line(&self, status: &str, check: &str, message: &str, hint: Option<&str>) -> Result<()> {
        let value = json!({
            "event": "check", "check": check, "status": status, "message": message, "hint": hint,
        });
        let text = |is_coloured| {
            let style = match status {
                "ok" => GOOD,
                "wrong" => BAD,
                _ => WARNING,
            };
            let status = text::painted(is_coloured, style, &format!("{status:<6}"));
            let hint = hint.map(|hint| format!("\n{:19}hint: {hint}", ""));
            format!("{status} {check:<11} {message}{}", hint.unwrap_or_default())
        };
        if status == "wrong" && self.out.quiet && !self.out.json {
            // A problem is never kept quiet. It is no result that was asked for.
            say(format_args!("{}", text(stdio::stderr_is_coloured())));
            return Ok(());
        }
        Ok(self
            .out
            .print(&value, || text(stdio::stdout_is_coloured()))?)
    }

    /// Checks that the storage can be reached at all: name, network, credentials, the right to
    /// list.
    async fn reach(&mut self) -> Result<bool> {
        let found = match self.storage.list(&list("", 1)).await {
            Ok(page) if page.entries.is_empty() => Ok("reachable and empty".into()),
            Ok(_) => Ok("reachable, and lists objects".into()),
            Err(error) => Err(self.explain(error, Attempt::List).await),
        };
        self.tell("reach", found)
    }

    /// Returns the problem of a refusal. Where a request is accepted that another setting makes,
    /// its hint is that setting.
    async fn explain(&self, error: storage::Error, attempt: Attempt<'_>) -> Wrong {
        let mut wrong = Wrong::from(&error);
        // Other settings change nothing about a server that cannot be reached.
        let is_refusal = matches!(
            error.kind(),
            ErrorKind::Config
                | ErrorKind::Denied
                | ErrorKind::NotFound
                | ErrorKind::Unauthenticated
                | ErrorKind::Unsupported
        );
        if is_refusal && let Some(remedy) = self.remedy(attempt).await {
            wrong.hint = Some(format!("set {remedy}, which this server accepts"));
        }
        wrong
    }

    /// Returns the setting with which the server accepts a request of S3 that it refuses.
    async fn remedy(&self, attempt: Attempt<'_>) -> Option<String> {
        if self.config.backend != StorageBackend::S3 {
            return None;
        }
        let style = |style| {
            let config = StorageConfig {
                s3_path_style: Some(style),
                ..self.config.clone()
            };
            (config, format!("PERSIST_S3_PATH_STYLE={style}"))
        };
        let checksums = StorageConfig {
            s3_checksums: Some(S3Checksums::WhenRequired),
            ..self.config.clone()
        };
        let encryption = StorageConfig {
            s3_encryption: S3Encryption::S3,
            ..self.config.clone()
        };
        let changes = match attempt {
            Attempt::List => vec![style(false), style(true)],
            Attempt::Create(_) => vec![
                (
                    checksums,
                    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required".to_owned(),
                ),
                (encryption, "PERSIST_S3_ENCRYPTION=AES256".to_owned()),
            ],
        };
        for (mut config, remedy) in changes {
            // A host that does not exist is no reason to wait.
            config.retry.budget = Duration::ZERO;
            config.retry.attempt = Duration::from_secs(5);
            let Ok(storage) = self.settings.build(&config) else {
                continue;
            };
            let accepted = match attempt {
                Attempt::List => storage.list(&list("", 1)).await.map(drop),
                Attempt::Create(name) => create(&*storage, name).await,
            };
            if accepted.is_ok() {
                return Some(remedy);
            }
        }
        None
    }

    async fn format(&mut self) -> Result<bool> {
        let store = Store::new(Arc::clone(&self.storage));
        let found = match store.is_there().await {
            Ok(true) => Ok("a store that this build reads".into()),
            Ok(false) => Ok("no store yet; create one with `persist init`".into()),
            Err(error) => Err(Wrong::from(&error)),
        };
        self.tell("format", found)
    }

    async fn clock(&mut self) -> Result<()> {
        let before = SystemTime::now();
        let asked = list(layout::OWN_DIR, 1).with_meta();
        let Ok(Some(theirs)) = self.storage.list(&asked).await.map(|page| page.now) else {
            return self.line(
                "note",
                "clock",
                "the storage does not report its time, so nothing can be pruned by age",
                None,
            );
        };
        let apart = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_default();
        let apart = apart(theirs, SystemTime::now()).max(apart(before, theirs));
        if apart > APART {
            let apart = humantime::format_duration(Duration::from_secs(apart.as_secs()));
            let said = format!(
                "the clocks of this machine and of the storage differ by {apart}; pruning uses the \
                 clock of the storage"
            );
            let hint = "synchronize the clock of this machine with NTP";
            self.line("note", "clock", &said, Some(hint))
        } else {
            self.tell("clock", Ok("agrees with the clock of the storage".into()))
                .map(drop)
        }
    }

    /// Of a local disk.
    fn space(&mut self, settings: &Settings) -> Result<()> {
        let Some(root) = settings.local_root()? else {
            return Ok(());
        };
        // The directory is made by the first save.
        let there = root.ancestors().find(|path| path.exists());
        let stat = rustix::fs::statvfs(there.unwrap_or(Path::new("/")));
        match stat {
            Ok(stat) => {
                let free = stat.f_bavail.saturating_mul(stat.f_frsize);
                let said = format!(
                    "{} and {} inodes are free",
                    text::bytes(free),
                    stat.f_favail
                );
                let state = if free < LITTLE { "note" } else { "ok" };
                self.line(state, "space", &said, None)
            }
            Err(error) => {
                let said = format!("unknown: {error}");
                self.line("note", "space", &said, None)
            }
        }
    }

    /// Makes, lists, reads and removes.
    async fn writes(&mut self) -> Result<()> {
        // Two examinations at once do not meet: process ids differ on a machine, times between
        // machines.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = now.unwrap_or_default().as_nanos();
        let id = format!(
            "{}doctor-{nanos:x}-{}",
            layout::PROBE_PREFIX,
            std::process::id()
        );
        let name = format!("{id}-1");
        let found = match create(&*self.storage, &name).await {
            Ok(()) => Ok("objects can be created".into()),
            Err(error) => Err(self.explain(error, Attempt::Create(&name)).await),
        };
        if !self.tell("save", found)? {
            // A request with another setting may have created it.
            let _ = self.sweep(&id).await;
            return Ok(());
        }
        let found = self.visible(&id).await;
        self.tell("load", found)?;
        // Removing the objects of this probe would leave its directories on a disk, whose lists are
        // put in order here.
        if !self.storage.supports_conditional_create() {
            let found = probe::lists(&self.storage).await;
            let found = found.map(|()| "new objects are listed at once and in order".into());
            self.tell("lists", found.map_err(|error| Wrong::from(&error)))?;
        }
        for (what, way) in [("conditions", Way::Single), ("uploads", Way::Parts)] {
            let found = probe::race(&self.storage, way).await;
            let said = |()| format!("one winner in each of {} races", way.races());
            self.tell(what, found.map(said).map_err(|error| Wrong::from(&error)))?;
        }
        let found = match self.sweep(&id).await {
            // Nothing that a store needs fails: versions are never overwritten.
            Err(error) if error.kind() == ErrorKind::Retained => {
                let said = "a retention policy or a hold keeps objects: the probes stay, and \
                            prunes are refused until it ends";
                let hint = "run `persist gc` after the retention to remove the probes";
                return self.line("note", "delete", said, Some(hint));
            }
            Ok(()) => Ok("objects can be deleted".into()),
            Err(error) => Err(Wrong::from(&error)),
        };
        self.tell("delete", found)?;
        self.unfinished().await
    }

    /// Notes where `persist gc` would not find unfinished uploads.
    async fn unfinished(&self) -> Result<()> {
        let mut sweep = Sweep::dry_run(&|_| false);
        sweep.probe = true;
        let why = match self.storage.sweep(&sweep).await {
            Ok(swept) => swept.unlisted,
            Err(error) => Some(error.to_string()),
        };
        let Some(why) = why else {
            return Ok(());
        };
        let said = format!("`persist gc` cannot find unfinished uploads: {why}");
        let hint = "add a lifecycle rule that aborts incomplete uploads, or abort them with \
                    another tool";
        self.line("note", "gc", &said, Some(hint))
    }

    async fn visible(&self, id: &str) -> Result<String, Wrong> {
        let asked = list(layout::OWN_DIR, 10).with_prefix(id);
        let page = self
            .storage
            .list(&asked)
            .await
            .map_err(|error| Wrong::from(&error))?;
        if page.entries.len() != 1 {
            let what = "a new object is not listed at once, so the newest version could be missed";
            return Err(Wrong::unusable(what));
        }
        let key = key(&format!("{id}-1"));
        let part = self.storage.read(&key, ReadRange::Suffix(100)).await;
        match part {
            Ok(part) if part.bytes == BODY => Ok("new objects are listed and read at once".into()),
            Ok(_) => Err(Wrong::unusable(format!(
                "the last 100 bytes of an object of {} bytes are wrong",
                BODY.len()
            ))),
            Err(error) => Err(Wrong::from(&error)),
        }
    }

    async fn sweep(&self, id: &str) -> storage::Result<()> {
        let asked = list(layout::OWN_DIR, 100).with_prefix(id);
        let mut pages = Pager::new(&*self.storage, asked);
        while let Some(page) = pages.next().await? {
            for entry in page.entries {
                if let Entry::Object(object) = entry {
                    self.storage.delete(&key(&object.name)).await?;
                }
            }
        }
        Ok(())
    }
}

/// A request that was refused.
#[derive(Clone, Copy)]
enum Attempt<'a> {
    List,
    /// The name of the object that was to be created.
    Create(&'a str),
}

async fn create(storage: &dyn Storage, name: &str) -> storage::Result<()> {
    let body = vec![Bytes::from_static(BODY)];
    storage.create(&key(name), body).await
}

const BODY: &[u8] = b"probe\n";

fn list(dir: &str, limit: usize) -> List<'_> {
    List::new(dir).with_limit(limit)
}

fn key(name: &str) -> Key {
    layout::own_key(name).expect("letters, digits and hyphens")
}
