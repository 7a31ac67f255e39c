//! Reads one file in every way, with no more memory than it is given:
//! `crash-testing-read FILE BYTES GOLDEN`. The file is put where the golden file of this name was
//! saved: at another key it would be refused unread.
//!
//! Prints `read` where a state came out, `refused` where a complete read reports that it is
//! damaged, and something else where one failed for another reason, such as memory.

use std::process::ExitCode;
use std::sync::{Arc, Barrier};

use anyhow::{Context as _, Result};
use persist_crash_testing::fixture_store::{FixtureStore, Place};
use persist_crash_testing::golden;
use persist_host::snapshot::Error;
use persist_host::storage::Key;
use rustix::process::{Resource, Rlimit, setrlimit};

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next();
    let bytes = arguments.next();
    let file = std::fs::read(file.context("no file is named")?)?;
    let memory: u64 = bytes.context("no memory is given")?.parse()?;

    let origin = arguments.next().context("no golden file is named")?;
    let own = "bot/claim.gz";
    let shelf = FixtureStore::new()?;
    let place = warm_up(&shelf, &origin)?;
    shelf.put(&place.key()?, file.clone().into())?;
    shelf.put(&Key::new(own)?, file.into())?;
    limit(memory)?;

    // Whether each gave something.
    let whole = [
        shelf.load(&place).map(|found| found.is_some()),
        shelf.fork(&place).map(|found| found.is_some()),
        shelf.verify(&place).map(|found| found.is_some()),
    ];
    // These read blocks alone, and may give what is sound.
    let parts = [
        shelf
            .read(&place, usize::MAX)
            .map(|found| found.is_some())
            .map_err(|(_, error)| error),
        shelf.wait(shelf.adapter.load(own)).map(|_| true),
    ];
    // What is over the limit of the store is refused before anything else is said of it.
    let refused = |way: &Result<bool, Error>| {
        matches!(
            way,
            Err(Error::Corrupt { .. } | Error::Misplaced { .. } | Error::TooLarge { .. })
        )
    };
    let known = |way: &Result<bool, Error>| refused(way) || matches!(way, Ok(true));
    match () {
        () if !parts.iter().all(known) => println!("{whole:?} {parts:?}"),
        () if whole.iter().all(refused) => println!("refused"),
        () if whole.iter().all(|way| matches!(way, Ok(true))) => println!("read"),
        () => println!("{whole:?} {parts:?}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the golden files, so that threads and tables are there before the limit is. Returns where
/// `origin` was saved.
fn warm_up(shelf: &FixtureStore, origin: &str) -> Result<Place> {
    start_threads(shelf)?;
    let mut found = None;
    for golden in golden::versions()? {
        if let Some(place) = &golden.place {
            shelf.put(&golden.key, golden.bytes.clone())?;
            shelf.load(place)?;
            shelf.fork(place)?;
            shelf.remove(&golden.key)?;
        }
        if golden.file == origin {
            found = golden.place;
        }
    }
    found.context("no such golden file")
}

/// Starts threads that compute. A busy machine needs a second one where the first has done its work
/// and not yet said so, and the limit counts the whole stack of each.
fn start_threads(shelf: &FixtureStore) -> Result<()> {
    const THREADS: usize = 4;
    let all = Arc::new(Barrier::new(THREADS));
    shelf.wait(async {
        let threads = (0..THREADS).map(|_| {
            let all = Arc::clone(&all);
            tokio::task::spawn_blocking(move || all.wait())
        });
        for thread in threads.collect::<Vec<_>>() {
            thread.await?;
        }
        Ok(())
    })
}

/// From now on, this process may take `memory` bytes more than it has.
fn limit(memory: u64) -> Result<()> {
    let pages = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = pages.split(' ').next().context("no size")?.parse()?;
    let size = pages * rustix::param::page_size() as u64;
    let limit = Rlimit {
        current: Some(size + memory),
        maximum: None,
    };
    Ok(setrlimit(Resource::As, limit)?)
}
