//! `cargo xtask bench`: what save and load cost, beside what one would use instead (`tests/bench`),
//! and docs/src/benchmarks.md. `cargo xtask bench fleet` is in [`crate::fleet`].

use crate::figures::Page;
use crate::fleet;
use crate::machine::{self, Workspace};
use anyhow::Result;
use std::process::Command;

/// Commands that are compared with, each in a Debian package of its name.
const COMPARED: [&str; 2] = ["pigz", "zstd"];

const PAGE: Page = Page {
    name: "docs/src/benchmarks.md",
    chore: "cargo xtask bench",
};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// Three sizes, fewer rounds: about a minute
    #[arg(long)]
    quick: bool,
    /// 256 MiB, too
    #[arg(long)]
    huge: bool,
    /// Put the figures into docs/src/benchmarks.md
    #[arg(long)]
    write: bool,
    #[command(subcommand)]
    other: Option<Other>,
}

#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Run agents on Restate while workers are killed, cut off the network and stopped
    Fleet(fleet::Options),
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if let Some(Other::Fleet(options)) = &options.other {
        return fleet::run(workspace, options);
    }
    let missing: Vec<_> = COMPARED
        .into_iter()
        .filter(|name| !is_there(name))
        .collect();
    if !missing.is_empty()
        && let Err(error) = machine::install(&missing, "install them and run this again")
    {
        eprintln!(
            "{error:#}\nThe comparison goes on without {}.",
            missing.join(" and ")
        );
    }
    let flags = [("--quick", options.quick), ("--huge", options.huge)];
    let flags = flags.into_iter().filter(|flag| flag.1).map(|flag| flag.0);
    let flags: Vec<_> = flags.collect();
    machine::run(&mut workspace.cargo(["build", "--locked", "--release", "-p", "persist-bench"]))?;
    let mut bench = Command::new(workspace.target.join("release/persist-bench"));
    // The disk that is measured is the one that the checkout is on; /tmp may be memory.
    bench.arg("--dir").arg(&workspace.target).args(&flags);
    let figures = machine::output(&mut bench)?;

    let args: Vec<_> = flags.into_iter().map(str::to_owned).collect();
    let figures = PAGE.headed(workspace, &args, &figures)?;
    println!("{figures}");
    if options.write {
        PAGE.write(workspace, &figures)?;
    }
    Ok(())
}

fn is_there(program: &str) -> bool {
    machine::succeeds(Command::new(program).arg("--version"))
}
