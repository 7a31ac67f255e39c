//! Durable saves of 4 KiB that one or many writers make in a second, beside the bare system calls
//! and two embedded databases. Each writer has a name of its own.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use persist_host::snapshot::{SaveOptions, Store};
use persist_host::storage::Local;
use redb::TableDefinition;
use rusqlite::Connection;
use tokio::runtime::Builder;

use crate::inputs::Input;
use crate::table::Table;
use crate::{KIB, Options};

const SIZE: usize = 4 * KIB;

/// Writers at the same time.
const WRITERS: [usize; 3] = [1, 8, 64];

/// Time before the count begins, in which stores and names are made.
const WARM_UP: Duration = Duration::from_millis(300);

const ROWS: TableDefinition<'_, (u64, u64), &[u8]> = TableDefinition::new("states");

/// Makes saves with this many writers until the counter is over.
type Saves = fn(&Path, usize, &Counter) -> Result<()>;

const CONTENDERS: [(&str, Saves); 4] = [
    ("Persist: `Scope::save`", persist),
    ("write, fsync, link, fsync(directory)", bare),
    (
        "SQLite: one row, WAL, `synchronous = FULL`, one connection",
        sqlite,
    ),
    ("redb: one row, `Durability::Immediate`", redb),
];

/// Returns Markdown.
pub(crate) fn run(options: &Options, place: &Path) -> Result<String> {
    let (rounds, seconds) = if options.quick { (1, 1.0) } else { (5, 1.5) };
    let mut rates: [[Vec<f64>; WRITERS.len()]; CONTENDERS.len()] = Default::default();
    // Files are removed at the end: ext4 does not use inodes that were removed in the last minutes,
    // and looks at all of them for each new file.
    let mut places = Vec::new();
    for _ in 0..rounds {
        for (column, writers) in WRITERS.into_iter().enumerate() {
            for ((_, saves), rates) in CONTENDERS.iter().zip(&mut rates) {
                let place = tempfile::tempdir_in(place)?;
                rates[column].push(measure(*saves, place.path(), writers, seconds)?);
                places.push(place);
            }
        }
    }
    let medians = rates.map(|rates| rates.map(median));
    let head = WRITERS.map(|writers| match writers {
        1 => "1 writer".to_owned(),
        _ => format!("{writers} writers"),
    });
    let mut table = Table::new(std::iter::once("saves a second".to_owned()).chain(head));
    for ((what, _), rates) in CONTENDERS.iter().zip(medians) {
        let cell = |(column, rate): (usize, f64)| {
            let ratio = medians[0][column] / rate;
            format!("{rate:.0} ({ratio:.2}x)")
        };
        let cells = rates.into_iter().enumerate().map(cell);
        table.row(std::iter::once((*what).to_owned()).chain(cells));
    }
    let mut text = String::new();
    writeln!(
        text,
        "### Writers\n\nIn brackets: Persist's rate divided by this one (more than 1: Persist is \
         faster).\n\n{table}"
    )?;
    Ok(text)
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}

fn measure(saves: Saves, place: &Path, writers: usize, seconds: f64) -> Result<f64> {
    let counter = Counter::default();
    thread::scope(|threads| {
        let saves = threads.spawn(|| saves(place, writers, &counter));
        thread::sleep(WARM_UP);
        let (before, started) = (counter.done.load(Relaxed), Instant::now());
        thread::sleep(Duration::from_secs_f64(seconds));
        let done = counter.done.load(Relaxed) - before;
        let rate = done as f64 / started.elapsed().as_secs_f64();
        counter.is_over.store(true, Relaxed);
        saves.join().map_err(|_| anyhow!("a writer panicked"))??;
        Ok(rate)
    })
}

#[derive(Clone, Debug, Default)]
struct Counter {
    done: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Counter {
    /// Counts what `save` does, again and again, until the time is over. `save` is given the number
    /// of the version.
    fn repeat(&self, mut save: impl FnMut(u64) -> Result<()>) -> Result<()> {
        for version in 1.. {
            if self.is_over.load(Relaxed) {
                break;
            }
            save(version)?;
            self.done.fetch_add(1, Relaxed);
        }
        Ok(())
    }
}

/// State that does not shrink, so that all contenders write as much.
fn state() -> Vec<u8> {
    Input::Noise.state(SIZE)
}

/// Runs `work` in as many threads as there are writers, each with its number.
fn in_threads(writers: usize, work: impl Fn(u64) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..writers as u64)
            .map(|writer| scope.spawn(move || work(writer)))
            .collect();
        threads.into_iter().try_for_each(|thread| {
            let done = thread.join();
            done.map_err(|_| anyhow!("a writer panicked"))?
        })
    })
}

fn persist(place: &Path, writers: usize, counter: &Counter) -> Result<()> {
    let scope = Store::new(Arc::new(Local::new(place))).scope("bench", None)?;
    let state = Bytes::from(state());
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let (scope, state, counter) = (scope.clone(), state.clone(), counter.clone());
                tokio::spawn(async move {
                    let name = format!("state-{writer}");
                    while !counter.is_over.load(Relaxed) {
                        let options = SaveOptions::default();
                        scope.save(&name, state.clone(), options).await?;
                        counter.done.fetch_add(1, Relaxed);
                    }
                    Ok::<_, persist_host::snapshot::Error>(())
                })
            })
            .collect();
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

fn bare(place: &Path, writers: usize, counter: &Counter) -> Result<()> {
    let state = state();
    in_threads(writers, |writer| {
        let dir: PathBuf = place.join(writer.to_string());
        fs::create_dir(&dir)?;
        counter.repeat(|version| {
            let temp = dir.join(format!("temp-{version}"));
            let mut file = File::create_new(&temp)?;
            file.write_all(&state)?;
            file.sync_all()?;
            fs::hard_link(&temp, dir.join(version.to_string()))?;
            File::open(&dir)?.sync_all()?;
            Ok(())
        })
    })
}

fn sqlite(place: &Path, writers: usize, counter: &Counter) -> Result<()> {
    let database = Connection::open(place.join("states.db"))?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    let create = "CREATE TABLE states (name INTEGER, version INTEGER, state BLOB, \
                  PRIMARY KEY (name, version)) WITHOUT ROWID";
    database.execute(create, ())?;
    // A connection for each writer would poll for the lock, which is slower.
    let database = Mutex::new(database);
    let state = state();
    in_threads(writers, |writer| {
        counter.repeat(|version| {
            let database = database.lock().unwrap_or_else(PoisonError::into_inner);
            let insert = "INSERT INTO states VALUES (?1, ?2, ?3)";
            let mut insert = database.prepare_cached(insert)?;
            insert.execute((writer as i64, version as i64, &state))?;
            Ok(())
        })
    })
}

fn redb(place: &Path, writers: usize, counter: &Counter) -> Result<()> {
    let database = redb::Database::create(place.join("states.redb"))?;
    let state = state();
    in_threads(writers, |writer| {
        counter.repeat(|version| {
            let write = database.begin_write()?;
            let mut rows = write.open_table(ROWS)?;
            rows.insert((writer, version), state.as_slice())?;
            drop(rows);
            write.commit().context("redb does not commit")?;
            Ok(())
        })
    })
}
