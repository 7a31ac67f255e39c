//! Save and load, measured beside what one would use instead: on the same bytes, on the same disk,
//! in one run.
//!
//! `cargo xtask bench` runs this and explains the options. It prints Markdown tables, which a
//! person can read as they are.
//!
//! # Why not criterion or divan
//! They time one thing after another, and the disk of a shared machine is a different disk a minute
//! later. Here all contenders take turns, round by round, so that what slows the machine slows all
//! of them; and the question is a ratio between them, beside the bytes at rest, which neither of
//! the two can print.
//!
//! | module | what |
//! |---|---|
//! | `inputs` | the states that are saved |
//! | `contenders` | who saves and loads them |
//! | `gzip` | flate2 as it comes, spelled out |
//! | `versus` | all contenders on every input and size |
//! | `small` | a save of 4 KiB beside the system calls that it cannot do without |
//! | `activation` | runs that begin in a second |
//! | `levels` | what each level of compression costs and gives |
//! | `measure`, `table` | medians by turns; Markdown |

mod activation;
mod contenders;
mod gzip;
mod inputs;
mod levels;
mod measure;
mod small;
mod table;
mod versus;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Measures save and load beside what one would use instead
#[derive(Debug, Parser)]
struct Options {
    /// Directory where files are written, on the disk that is measured. Files that are written
    /// there are removed
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Three sizes, fewer rounds: under a minute
    #[arg(long)]
    quick: bool,
    /// 256 MiB, too
    #[arg(long)]
    huge: bool,
    /// The table of levels and nothing else
    #[arg(long)]
    levels: bool,
    /// The table of activation and nothing else
    #[arg(long)]
    activation: bool,
}

impl Options {
    /// Bytes of state, ascending.
    fn sizes(&self) -> Vec<usize> {
        let mut sizes = if self.quick {
            vec![4 * KIB, MIB, 16 * MIB]
        } else {
            vec![KIB, 4 * KIB, 64 * KIB, MIB, 16 * MIB, 64 * MIB]
        };
        if self.huge {
            sizes.push(256 * MIB);
        }
        sizes
    }

    /// How often each contender has its turn: as often as patience allows, and an odd number, for
    /// the median.
    fn rounds(&self, size: usize) -> usize {
        match (size, self.quick) {
            (..=MIB, false) => 9,
            (..=MIB, true) => 5,
            _ => 3,
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.levels {
        print!("{}", levels::run(&options)?);
        return Ok(());
    }
    if options.activation {
        print!("{}", activation::run(&options)?);
        return Ok(());
    }
    let place = tempfile::Builder::new()
        .prefix("persist-bench-")
        .tempdir_in(&options.dir)
        .context("cannot write where the benchmark is to run")?;
    // Each when it is known: what comes later may fail.
    println!("{}", versus::run(&options, place.path())?);
    println!("{}", small::run(&options, place.path())?);
    println!("{}", levels::run(&options)?);
    println!("{}", activation::run(&options)?);
    Ok(())
}
