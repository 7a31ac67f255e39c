//! A save of 4 KiB beside the system calls that no durable save can do without, and where the
//! difference goes.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use persist_host::snapshot::{SaveOptions, Scope, Store};
use persist_host::storage::{Key, Local, Storage};
use tokio::runtime::{Builder, Runtime};

use crate::inputs::Input;
use crate::measure::{median, millis, ratio, time};
use crate::table::Table;
use crate::{KIB, Options, levels};

const SIZE: usize = 4 * KIB;

/// Target duration of a save, as a multiple of the bare system calls.
const AIM: f64 = 1.1;

/// Compression level of the host's default.
const LEVEL: u32 = 6;

/// Saves before a new name is taken: the history of an agent that is looked after.
const HISTORY: usize = 20;

/// Medians, and what they are of.
type Line = (&'static str, Duration);

/// Returns Markdown.
pub(crate) fn run(options: &Options, place: &Path) -> Result<String> {
    let place = tempfile::tempdir_in(place)?;
    let rounds = if options.quick { 100 } else { 400 };
    let mut bench = Small::new(place.path())?;
    let mut turns: [Vec<Duration>; 5] = Default::default();
    for round in 0..rounds {
        // Each syncs what the one before it left to be synced: so each comes after each other.
        for step in 0..turns.len() {
            let which = (round + step) % turns.len();
            let took = bench.turn(which, round)?;
            // The first save of a name makes its directory.
            if round % HISTORY != 0 {
                turns[which].push(took);
            }
        }
    }
    let [bare, create, save, head, gzip] = turns.each_mut().map(|turns| median(turns));
    report(&[
        ("write, fsync, link, fsync(directory)", bare),
        (
            "`Local::create`: the same, to a file without a name where there are such",
            create,
        ),
        (
            "`Scope::save`: the same, and gzip, hashes and a trailer",
            save,
        ),
        (
            "a look at the head, which a save spares that knows it",
            head,
        ),
        ("of it, gzip of 4 KiB", gzip),
    ])
}

struct Small {
    runtime: Runtime,
    bare: PathBuf,
    local: Arc<Local>,
    scope: Scope,
    /// State that does not shrink, so that the bare calls write as much as the save does.
    state: Bytes,
}

impl Small {
    fn new(place: &Path) -> Result<Self> {
        let local = Arc::new(Local::new(place.join("store")));
        let bare = place.join("bare");
        fs::create_dir(&bare)?;
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            bare,
            scope: Store::new(local.clone()).scope("bench", None)?,
            local,
            state: Input::Noise.state(SIZE).into(),
        })
    }

    fn turn(&mut self, which: usize, round: usize) -> Result<Duration> {
        let name = format!("state-{}", round / HISTORY);
        let state = self.state.clone();
        match which {
            0 => {
                let took = time(|| write_sync_link_sync(&self.bare, round, &state))?.0;
                fs::remove_file(self.bare.join("temp"))?;
                Ok(took)
            }
            1 => {
                let key = Key::new(format!("raw/~/{name}/{round}"))?;
                let create = self.local.create(&key, vec![state]);
                Ok(time(|| Ok(self.runtime.block_on(create)?))?.0)
            }
            2 => {
                let save = self.scope.save(&name, state, SaveOptions::default());
                Ok(time(|| Ok(self.runtime.block_on(save)?))?.0)
            }
            3 => {
                let head = self.scope.versions(&name, None, 1);
                Ok(time(|| Ok(self.runtime.block_on(head)?))?.0)
            }
            _ => Ok(time(|| levels::compress(&state, LEVEL))?.0),
        }
    }
}

/// The least that a durable create-once takes.
fn write_sync_link_sync(dir: &Path, number: usize, state: &[u8]) -> Result<()> {
    let temp = dir.join("temp");
    let mut file = File::create_new(&temp)?;
    file.write_all(state)?;
    file.sync_all()?;
    fs::hard_link(&temp, dir.join(number.to_string()))?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

fn report(lines: &[Line]) -> Result<String> {
    let bare = lines[0].1;
    let save = lines[2].1;
    let mut table = Table::new(["4 KiB", "ms", "to the bare calls"]);
    for (what, took) in lines {
        let times = format!("{:.2}x", ratio(*took, bare));
        table.row([(*what).to_owned(), millis(*took), times]);
    }
    let met = if ratio(save, bare) <= AIM {
        "met"
    } else {
        "missed"
    };
    let mut text = String::new();
    writeln!(
        text,
        "### A small save\n\n{table}\n- a 4 KiB save within {AIM}x of the bare calls: {met}."
    )?;
    Ok(text)
}
