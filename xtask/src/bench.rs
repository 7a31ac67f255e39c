//! `cargo xtask bench`: what save and load cost, beside what one would use instead (`tests/bench`), and BENCHMARKS.md.

use crate::machine::{self, Workspace};
use anyhow::{Context, Result};
use std::fs;
use std::process::Command;

/// Commands that are compared with, each in a Debian package of its name.
const COMPARED: [&str; 2] = ["pigz", "zstd"];

/// What is between these lines of the page is written here.
const BEGIN: &str = "<!-- figures: written by `cargo xtask bench --write` -->\n";
const END: &str = "<!-- end of figures -->\n";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Three sizes, fewer rounds: about a minute
    #[arg(long)]
    quick: bool,
    /// 256 MiB, too
    #[arg(long)]
    huge: bool,
    /// Put the figures into BENCHMARKS.md
    #[arg(long)]
    write: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
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

    let command = ["cargo xtask bench"]
        .into_iter()
        .chain(flags)
        .collect::<Vec<_>>()
        .join(" ");
    let figures = format!(
        "`{command}` on {}.\n\n{figures}",
        machine_described(workspace)?
    );
    println!("{figures}");
    if options.write {
        let page = workspace.root.join("BENCHMARKS.md");
        let text = replaced(&fs::read_to_string(&page)?, &figures)?;
        fs::write(page, text)?;
    }
    Ok(())
}

fn is_there(program: &str) -> bool {
    machine::succeeds(Command::new(program).arg("--version"))
}

/// Processor, how many, and the file system.
fn machine_described(workspace: &Workspace) -> Result<String> {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("a processor without a name", |model| model.1);
    let cores = std::thread::available_parallelism()?;
    let df = machine::output(
        Command::new("df")
            .arg("--output=fstype")
            .arg(&workspace.target),
    )?;
    let file_system = df.lines().nth(1).unwrap_or("an unknown file system");
    Ok(format!("{cores} processors ({model}), {file_system}"))
}

/// The page with other figures.
fn replaced(page: &str, figures: &str) -> Result<String> {
    let parts = page.split_once(BEGIN).zip(page.split_once(END));
    let ((before, _), (_, after)) = parts.context("BENCHMARKS.md has no place for figures")?;
    Ok(format!(
        "{before}{BEGIN}\n{}\n\n{END}{after}",
        figures.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_replaced_and_what_people_wrote_stays() -> Result<()> {
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        let once = replaced(&page, "new\n")?;
        assert_eq!(once, format!("before\n{BEGIN}\nnew\n\n{END}after\n"));
        assert_eq!(replaced(&once, "new")?, once);
        assert!(replaced("nothing", "new").is_err());
        Ok(())
    }
}
