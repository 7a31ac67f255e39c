//! Checkpoints of LangGraph's SqliteSaver beside saves of Persist.
//!
//! Each is called as its users call it: SqliteSaver from Python, Persist from Rust. The Python
//! process measures its own calls, so the pipe to it is not counted.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use persist_host::snapshot::{SaveOptions, Store};
use persist_host::storage::Local;
use tokio::runtime::Builder;

use crate::inputs::Input;
use crate::measure::{median, millis, ratio, size, time};
use crate::table::Table;
use crate::{KIB, MIB, Options};

const SIZES: [usize; 4] = [KIB, 4 * KIB, 64 * KIB, MIB];

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/langgraph/saver.py");

/// Journal mode and synchronous level that SqliteSaver chooses: a write-ahead log that is synced
/// for each checkpoint.
const DURABLE: &str = "wal 2";

/// Returns Markdown.
pub(crate) fn run(options: &Options, place: &Path) -> Result<String> {
    let python = options.python.as_deref();
    let python = python.context("--python says which Python has langgraph-checkpoint-sqlite")?;
    let rounds = if options.quick { 20 } else { 100 };
    let mut table = Table::new([
        "JSON state",
        "Persist: save ms",
        "SqliteSaver: put ms",
        "",
        "Persist: load ms",
        "SqliteSaver: get_tuple ms",
        "",
        "Persist: KiB a version",
        "SqliteSaver: KiB a checkpoint",
    ]);
    for bytes in SIZES {
        let place = tempfile::tempdir_in(place)?;
        table.row(measure(python, place.path(), bytes, rounds)?);
    }
    let mut text = String::new();
    writeln!(
        text,
        "### LangGraph's SqliteSaver\n\nThe ratio after a pair: the time of SqliteSaver divided by \
         that of Persist (more than 1: Persist is faster).\n\n{table}"
    )?;
    Ok(text)
}

fn measure(python: &Path, place: &Path, bytes: usize, rounds: usize) -> Result<[String; 9]> {
    let state = Bytes::from(Input::Json.state(bytes));
    let (file, database) = (place.join("state"), place.join("checkpoints.db"));
    fs::write(&file, &state)?;
    let mut saver = Saver::start(python, &database, &file)?;
    let scope = Store::new(Arc::new(Local::new(place.join("store")))).scope("bench", None)?;
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let mut stored = 0;
    let mut turns: [Vec<Duration>; 4] = Default::default();
    // The first round makes tables and directories.
    for round in 0..=rounds {
        let save = scope.save("state", state.clone(), SaveOptions::default());
        let (save, info) = time(|| Ok(runtime.block_on(save)?))?;
        stored = info.stored_size;
        let put = saver.call("save")?;
        let (load, _) = time(|| Ok(runtime.block_on(scope.load("state", None))?))?;
        let get = saver.call("load")?;
        if round > 0 {
            for (turns, took) in turns.iter_mut().zip([save, put, load, get]) {
                turns.push(took);
            }
        }
    }
    drop(saver);
    let mut database_size = fs::metadata(&database)?.len();
    // The log is removed with the last connection, where Python closes it.
    if let Ok(log) = fs::metadata(place.join("checkpoints.db-wal")) {
        database_size += log.len();
    }
    let kib = |bytes: u64| format!("{:.1}", bytes as f64 / 1024.0);
    let [save, put, load, get] = turns.each_mut().map(|turns| median(turns));
    Ok([
        size(bytes),
        millis(save),
        millis(put),
        format!("{:.1}x", ratio(put, save)),
        millis(load),
        millis(get),
        format!("{:.1}x", ratio(get, load)),
        kib(stored),
        kib(database_size / (rounds as u64 + 1)),
    ])
}

/// A Python process that saves and loads when it is told to.
struct Saver {
    child: Child,
    calls: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Saver {
    fn start(python: &Path, database: &Path, state: &Path) -> Result<Self> {
        let mut child = Command::new(python)
            .arg(SCRIPT)
            .args([database, state])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("Python does not start")?;
        let calls = child.stdin.take();
        let stdout = child.stdout.take().context("a pipe")?;
        let mut saver = Self {
            child,
            calls,
            answers: BufReader::new(stdout).lines(),
        };
        let mode = saver.answer()?;
        ensure!(mode == DURABLE, "SqliteSaver opens its database as {mode}");
        Ok(saver)
    }

    fn call(&mut self, what: &str) -> Result<Duration> {
        let calls = self.calls.as_mut().context("a pipe")?;
        writeln!(calls, "{what}")?;
        Ok(Duration::from_secs_f64(self.answer()?.parse()?))
    }

    fn answer(&mut self) -> Result<String> {
        let line = self.answers.next().context("Python ended")?;
        Ok(line?)
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        drop(self.calls.take());
        let _ = self.child.wait();
    }
}
