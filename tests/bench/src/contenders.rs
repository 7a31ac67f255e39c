//! Contenders that save and load: Persist, two libraries with flate2 as it comes, and the commands
//! that one would type.
//!
//! A save ends when the disk has it: Persist and object_store sync the file and its directory;
//! OpenDAL syncs the file, which is all that it offers; what a command wrote is synced here, file
//! and directory. A load begins with the file in the page cache, for everyone.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use object_store::local::LocalFileSystem;
use persist_host::snapshot::{SaveOptions, Scope, Store};
use persist_host::storage::Local;
use tokio::runtime::Runtime;

use crate::gzip;

/// State that is to be saved.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) state: Bytes,
    /// A file that holds the same, for commands.
    pub(crate) file: PathBuf,
}

/// Saves a state again and again, each time as something new, and loads what it saved last.
pub(crate) trait Contender {
    fn name(&self) -> &'static str;

    /// Returns how many bytes it stored.
    fn save(&mut self, subject: &Subject) -> Result<u64>;

    /// None where the state went to /dev/null: that is the best which a command can do.
    fn load(&mut self) -> Result<Option<Bytes>>;
}

/// All that this machine has, each in a folder of its own below `place`. Commands only where
/// starting one is not all that would be measured.
pub(crate) fn all(place: &Path, commands: bool) -> Result<Vec<Box<dyn Contender>>> {
    let runtime = Rc::new(
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?,
    );
    let mut all: Vec<Box<dyn Contender>> = vec![
        Box::new(Persist::new(&place.join("persist"), &runtime)?),
        Box::new(OverObjectStore::new(&place.join("object_store"), &runtime)?),
        Box::new(OverOpenDal::new(&place.join("opendal"), &runtime)?),
    ];
    for (name, save, load) in COMMANDS {
        if commands && is_installed(save[0]) && is_installed(load[0]) {
            let place = place.join(save[0]);
            all.push(Box::new(Typed::new(name, save, load, place)?));
        }
    }
    Ok(all)
}

/// Commands that are typed to save and to load.
const COMMANDS: [(&str, &[&str], &[&str]); 2] = [
    ("pigz -p2", &["pigz", "-p2", "-c"], &["gzip", "-dc"]),
    (
        "zstd -3",
        &["zstd", "-q", "-3", "-c"],
        &["zstd", "-q", "-dc"],
    ),
];

fn is_installed(program: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

struct Persist {
    runtime: Rc<Runtime>,
    scope: Scope,
}

impl Persist {
    fn new(place: &Path, runtime: &Rc<Runtime>) -> Result<Self> {
        let store = Store::new(Arc::new(Local::new(place)));
        Ok(Self {
            runtime: Rc::clone(runtime),
            scope: store.scope("bench", None)?,
        })
    }
}

impl Contender for Persist {
    fn name(&self) -> &'static str {
        "persist"
    }

    fn save(&mut self, subject: &Subject) -> Result<u64> {
        let save = self
            .scope
            .save("state", subject.state.clone(), SaveOptions::default());
        Ok(self.runtime.block_on(save)?.stored_size)
    }

    fn load(&mut self) -> Result<Option<Bytes>> {
        let snapshot = self.runtime.block_on(self.scope.load("state", None))?;
        Ok(Some(snapshot.context("nothing was saved")?.state))
    }
}

struct OverObjectStore {
    runtime: Rc<Runtime>,
    store: LocalFileSystem,
    saved: u64,
}

impl OverObjectStore {
    fn new(place: &Path, runtime: &Rc<Runtime>) -> Result<Self> {
        std::fs::create_dir(place)?;
        Ok(Self {
            runtime: Rc::clone(runtime),
            store: LocalFileSystem::new_with_prefix(place)?.with_fsync(true),
            saved: 0,
        })
    }

    fn path(&self) -> object_store::path::Path {
        format!("bench/state/{}.gz", self.saved).into()
    }
}

impl Contender for OverObjectStore {
    fn name(&self) -> &'static str {
        "object_store + flate2"
    }

    fn save(&mut self, subject: &Subject) -> Result<u64> {
        self.saved += 1;
        let file = gzip::compress(&subject.state)?;
        let stored = file.len() as u64;
        self.runtime
            .block_on(self.store.put(&self.path(), file.into()))?;
        Ok(stored)
    }

    fn load(&mut self) -> Result<Option<Bytes>> {
        let path = self.path();
        let file = async { self.store.get(&path).await?.bytes().await };
        let file = self.runtime.block_on(file)?;
        Ok(Some(gzip::decompress(&file)?.into()))
    }
}

struct OverOpenDal {
    runtime: Rc<Runtime>,
    operator: opendal::Operator,
    saved: u64,
}

impl OverOpenDal {
    fn new(place: &Path, runtime: &Rc<Runtime>) -> Result<Self> {
        let root = place.to_str().context("a path that is not UTF-8")?;
        let fs = opendal::services::Fs::default().root(root);
        Ok(Self {
            runtime: Rc::clone(runtime),
            operator: opendal::Operator::new(fs)?,
            saved: 0,
        })
    }

    fn path(&self) -> String {
        format!("bench/state/{}.gz", self.saved)
    }
}

impl Contender for OverOpenDal {
    fn name(&self) -> &'static str {
        "opendal + flate2"
    }

    fn save(&mut self, subject: &Subject) -> Result<u64> {
        self.saved += 1;
        let file = gzip::compress(&subject.state)?;
        let stored = file.len() as u64;
        self.runtime
            .block_on(self.operator.write(&self.path(), file))?;
        Ok(stored)
    }

    fn load(&mut self) -> Result<Option<Bytes>> {
        let file = self.runtime.block_on(self.operator.read(&self.path()))?;
        Ok(Some(gzip::decompress(&file.to_bytes())?.into()))
    }
}

/// A command that reads a file and writes another.
struct Typed {
    name: &'static str,
    save: &'static [&'static str],
    load: &'static [&'static str],
    place: PathBuf,
    saved: u64,
}

impl Typed {
    fn new(
        name: &'static str,
        save: &'static [&'static str],
        load: &'static [&'static str],
        place: PathBuf,
    ) -> Result<Self> {
        std::fs::create_dir(&place)?;
        Ok(Self {
            name,
            save,
            load,
            place,
            saved: 0,
        })
    }

    fn path(&self) -> PathBuf {
        self.place.join(self.saved.to_string())
    }
}

impl Contender for Typed {
    fn name(&self) -> &'static str {
        self.name
    }

    fn save(&mut self, subject: &Subject) -> Result<u64> {
        self.saved += 1;
        let file = File::create(self.path())?;
        pipe(self.save, &subject.file, file.try_clone()?.into())?;
        file.sync_all()?;
        File::open(&self.place)?.sync_all()?;
        Ok(file.metadata()?.len())
    }

    fn load(&mut self) -> Result<Option<Bytes>> {
        pipe(self.load, &self.path(), Stdio::null())?;
        Ok(None)
    }
}

fn pipe(words: &[&str], from: &Path, to: Stdio) -> Result<()> {
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .stdin(File::open(from)?)
        .stdout(to);
    ensure!(command.status()?.success(), "{} failed", words[0]);
    Ok(())
}
