//! Growth of the cost with the length of a history, the number of names and the size of a state.
//!
//! A store with many versions is saved in memory and then written to the disk as files, without a
//! sync for each: the bytes and the keys are the same, and it takes seconds instead of minutes.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use persist_host::snapshot::{SaveOptions, Scope, Store};
use persist_host::storage::{Key, Local, Memory, ReadRange, RecursiveList, Storage};
use tokio::runtime::{Builder, Runtime};

use crate::inputs::Input;
use crate::measure::{median, millis, size, time};
use crate::table::Table;
use crate::{KIB, MIB, Options, memory};

/// Versions of one name, and names with one version.
const COUNTS: [usize; 6] = [1, 10, 100, 1000, 10_000, 100_000];

const SIZES: [usize; 6] = [KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB, 1024 * MIB];

/// Bytes that a stream is given at a time.
const PIECE: usize = MIB;

/// State of which the cost does not hide the cost of the history.
const STATE: usize = 256;

const ROUNDS: usize = 9;
const PAGE: usize = 100;

/// Returns Markdown.
pub(crate) fn run(options: &Options, place: &Path) -> Result<String> {
    let (counts, sizes) = if options.quick {
        (&COUNTS[..4], &SIZES[..4])
    } else {
        (&COUNTS[..], &SIZES[..])
    };
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let mut text = String::new();
    writeln!(
        text,
        "### Growth\n\nMilliseconds. \"New process\": nothing is cached.\n"
    )?;

    let mut table = Table::new([
        "versions of a name",
        "load the newest, new process",
        "load the oldest",
        "list 100 versions",
        "save, new process",
        "save, head cached",
    ]);
    for &count in counts {
        let place = tempfile::tempdir_in(place)?;
        fill(&runtime, place.path(), count, |_| "state".to_owned())?;
        table.row(history(&runtime, place.path(), count)?);
    }
    writeln!(text, "{table}")?;

    let mut table = Table::new([
        "names in a scope",
        "load one, new process",
        "list 100 names",
        "list all names",
        "save one, new process",
    ]);
    for &count in counts {
        let place = tempfile::tempdir_in(place)?;
        fill(&runtime, place.path(), count, name)?;
        table.row(names(&runtime, place.path(), count)?);
    }
    writeln!(text, "{table}")?;

    let mut table = Table::new([
        "JSON state",
        "save ms",
        "save MB/s",
        "load ms",
        "load MB/s",
        "MiB of memory to save",
        "MiB of memory to load",
    ]);
    for &bytes in sizes {
        let place = tempfile::tempdir_in(place)?;
        table.row(stream(&runtime, place.path(), bytes)?);
    }
    writeln!(
        text,
        "States of any size, by `Writer` and `Reader`. Memory: the peak of the process less what \
         it had before.\n\n{table}"
    )?;
    Ok(text)
}

fn name(number: usize) -> String {
    format!("state-{number:06}")
}

/// Makes a store of `count` versions, each of the name that `name` returns.
fn fill(
    runtime: &Runtime,
    place: &Path,
    count: usize,
    name: impl Fn(usize) -> String,
) -> Result<()> {
    let memory = Arc::new(Memory::new());
    let scope = Store::new(memory.clone()).scope("bench", None)?;
    let state = Bytes::from(Input::Json.state(STATE));
    runtime.block_on(async {
        for number in 0..count {
            let options = SaveOptions::default();
            scope.save(&name(number), state.clone(), options).await?;
        }
        copy(&memory, place).await
    })
}

/// Writes every object to a file of its key.
async fn copy(memory: &Memory, place: &Path) -> Result<()> {
    let mut token = None;
    loop {
        let mut list = RecursiveList::new("");
        list.token = token.take();
        let page = memory.list_recursive(&list).await?;
        for object in page.objects {
            let key = Key::new(&object.name)?;
            let part = memory.read(&key, ReadRange::Suffix(u64::MAX)).await?;
            let path = place.join(key.as_str());
            fs::create_dir_all(path.parent().context("a key has a directory")?)?;
            fs::write(path, part.bytes)?;
        }
        token = page.next;
        if token.is_none() {
            return Ok(());
        }
    }
}

/// Opens the store as a new process does.
fn open(place: &Path) -> Result<Scope> {
    Ok(Store::new(Arc::new(Local::new(place))).scope("bench", None)?)
}

fn medians<T>(mut work: impl FnMut() -> Result<(Duration, T)>) -> Result<String> {
    let mut turns = (0..ROUNDS)
        .map(|_| Ok(work()?.0))
        .collect::<Result<Vec<_>>>()?;
    Ok(millis(median(&mut turns)))
}

fn save(runtime: &Runtime, scope: &Scope, name: &str) -> Result<(Duration, ())> {
    let state = Bytes::from(Input::Json.state(STATE));
    time(|| {
        runtime.block_on(scope.save(name, state, SaveOptions::default()))?;
        Ok(())
    })
}

fn history(runtime: &Runtime, place: &Path, count: usize) -> Result<[String; 6]> {
    let newest = medians(|| {
        let scope = open(place)?;
        time(|| {
            runtime
                .block_on(scope.load("state", None))?
                .context("saved")
        })
    })?;
    let oldest = medians(|| {
        let scope = open(place)?;
        time(|| {
            runtime
                .block_on(scope.load("state", Some(1)))?
                .context("saved")
        })
    })?;
    let list = medians(|| {
        let scope = open(place)?;
        time(|| Ok(runtime.block_on(scope.versions("state", None, PAGE))?))
    })?;
    let cold = medians(|| save(runtime, &open(place)?, "state"))?;
    let scope = open(place)?;
    save(runtime, &scope, "state")?;
    let cached = medians(|| save(runtime, &scope, "state"))?;
    Ok([count.to_string(), newest, oldest, list, cold, cached])
}

fn names(runtime: &Runtime, place: &Path, count: usize) -> Result<[String; 5]> {
    let middle = name(count / 2);
    let load = medians(|| {
        let scope = open(place)?;
        time(|| {
            runtime
                .block_on(scope.load(&middle, None))?
                .context("saved")
        })
    })?;
    let page = medians(|| {
        let scope = open(place)?;
        time(|| Ok(runtime.block_on(scope.names("", None, PAGE))?))
    })?;
    let all = time(|| runtime.block_on(all_names(&open(place)?, count)))?.0;
    let cold = medians(|| save(runtime, &open(place)?, &middle))?;
    Ok([count.to_string(), load, page, millis(all), cold])
}

async fn all_names(scope: &Scope, count: usize) -> Result<()> {
    let (mut seen, mut after) = (0, None::<String>);
    loop {
        let page = scope.names("", after.as_deref(), count + 1).await?;
        let Some(last) = page.last() else {
            break;
        };
        seen += page.len();
        after = Some(last.to_string());
    }
    anyhow::ensure!(seen == count, "{seen} names of {count}");
    Ok(())
}

fn stream(runtime: &Runtime, place: &Path, bytes: usize) -> Result<[String; 7]> {
    let scope = open(place)?;
    let pieces = Input::Json.state(bytes.min(16 * MIB));
    let rounds = if bytes < 64 * MIB { 5 } else { 1 };
    let (mut saves, mut loads) = (Vec::new(), Vec::new());
    let (mut to_save, mut to_load) = (0, 0);
    for _ in 0..rounds {
        let (took, used) = with_memory(|| runtime.block_on(write(&scope, &pieces, bytes)))?;
        saves.push(took);
        to_save = to_save.max(used);
        let (took, used) = with_memory(|| runtime.block_on(read(&scope, bytes)))?;
        loads.push(took);
        to_load = to_load.max(used);
    }
    let (save, load) = (median(&mut saves), median(&mut loads));
    let rate = |took: Duration| format!("{:.0}", bytes as f64 / took.as_secs_f64() / 1e6);
    Ok([
        size(bytes),
        millis(save),
        rate(save),
        millis(load),
        rate(load),
        (to_save >> 20).to_string(),
        (to_load >> 20).to_string(),
    ])
}

fn with_memory(work: impl FnOnce() -> Result<()>) -> Result<(Duration, u64)> {
    memory::reset_peak()?;
    let before = memory::resident()?;
    let took = time(work)?.0;
    Ok((took, memory::peak()?.saturating_sub(before)))
}

async fn write(scope: &Scope, pieces: &[u8], bytes: usize) -> Result<()> {
    let mut writer = scope.writer("state", SaveOptions::default()).await?;
    let mut left = bytes;
    while left > 0 {
        for piece in pieces.chunks(PIECE) {
            let piece = &piece[..piece.len().min(left)];
            writer.write(piece).await?;
            left -= piece.len();
        }
    }
    writer.finish().await?;
    Ok(())
}

async fn read(scope: &Scope, bytes: usize) -> Result<()> {
    let mut reader = scope.reader("state", None).await?.context("saved")?;
    let mut at = 0;
    while at < bytes {
        let piece = reader.read(at as u64, PIECE).await?;
        anyhow::ensure!(!piece.is_empty(), "the state is short");
        at += piece.len();
    }
    Ok(())
}
