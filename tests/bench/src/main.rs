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
//! | `writers` | small saves a second of many writers, beside SQLite and redb |
//! | `activation` | runs that begin in a second |
//! | `guest` | a state that a guest saves, beside the same save without one |
//! | `agents` | many different agents in one process |
//! | `langgraph` | saves beside LangGraph's SqliteSaver |
//! | `growth` | long histories, many names, large states |
//! | `clouds` | saves and loads on S3 and GCS, beside object_store and the aws cli |
//! | `cloud_clients` | the clients that `clouds` compares |
//! | `relay` | the round trip of a network, added to a server on this machine |
//! | `memory` | memory of this process |
//! | `levels` | what each level of compression costs and gives |
//! | `measure`, `table` | medians by turns; Markdown |

mod activation;
mod agents;
mod cloud_clients;
mod clouds;
mod contenders;
mod growth;
mod guest;
mod gzip;
mod inputs;
mod langgraph;
mod levels;
mod measure;
mod memory;
mod relay;
mod small;
mod table;
mod versus;
mod writers;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// One question of docs/src/benchmarks.md.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Question {
    /// Saves and loads beside object_store, OpenDAL, pigz and zstd
    Saves,
    /// One save of 4 KiB, by its parts
    Small,
    /// Small saves a second of 1 to 64 writers, beside SQLite and redb
    Writers,
    /// Speed and size of each level of compression
    Levels,
    /// Runs of an agent that begin in a second
    Activation,
    /// A state of 1 MiB that a guest saves
    Guest,
    /// Saves beside the checkpoints of LangGraph's SqliteSaver
    Langgraph,
    /// Many different agents in one process
    Agents,
    /// Long histories, many names and large states
    Growth,
    /// Saves and loads on S3 and GCS, beside object_store and the aws cli
    Clouds,
}

/// Measures save and load beside what one would use instead
#[derive(Debug, Parser)]
struct Options {
    /// Questions whose figures are measured
    #[arg(required = true)]
    questions: Vec<Question>,
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
    /// Python that has the packages of `langgraph/requirements.txt`
    #[arg(long)]
    python: Option<PathBuf>,
    /// The command `aws`, for `clouds`
    #[arg(long)]
    aws: Option<PathBuf>,
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
    let place = tempfile::Builder::new()
        .prefix("persist-bench-")
        .tempdir_in(&options.dir)
        .context("cannot write where the benchmark is to run")?;
    // Each when it is known: what comes later may fail.
    for question in &options.questions {
        let figures = match question {
            Question::Saves => versus::run(&options, place.path()),
            Question::Small => small::run(&options, place.path()),
            Question::Writers => writers::run(&options, place.path()),
            Question::Levels => levels::run(&options),
            Question::Activation => activation::run(&options),
            Question::Guest => guest::run(&options, place.path()),
            Question::Langgraph => langgraph::run(&options, place.path()),
            Question::Agents => agents::run(&options, place.path()),
            Question::Growth => growth::run(&options, place.path()),
            Question::Clouds => clouds::run(&options, place.path()),
        };
        println!("{}", figures?);
    }
    Ok(())
}
