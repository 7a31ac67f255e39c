//! `cargo xtask bench`: what save and load cost, beside what one would use instead (`tests/bench`),
//! and docs/src/benchmarks.md. `cargo xtask bench fleet` is in [`crate::fleet`].

use crate::figures::Page;
use crate::fleet;
use crate::machine::{self, Workspace};
use crate::pypi;
use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use std::path::PathBuf;
use std::process::Command;

/// Commands that are compared with, each in a Debian package of its name.
const COMPARED: [&str; 2] = ["pigz", "zstd"];

/// A question of docs/src/benchmarks.md, which has a table for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Question {
    /// Should I use object_store, OpenDAL, pigz or zstd instead?
    Saves,
    /// Which parts take the time of a small save?
    Small,
    /// Should I use SQLite or redb for small states?
    Writers,
    /// How much does a level of compression cost?
    Levels,
    /// How many runs of an agent begin in a second?
    Activation,
    /// Should I use LangGraph's SqliteSaver for checkpoints?
    Langgraph,
    /// How much does an idle agent cost, with up to 10,000 different ones in a process?
    Agents,
    /// How does the cost grow with versions, names and the size of a state?
    Growth,
}

impl Question {
    /// Returns its name on the command line.
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns the place of its figures.
    fn page(self) -> Page {
        Page {
            name: "docs/src/benchmarks.md",
            chore: format!("cargo xtask bench {}", self.name()).into(),
        }
    }
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// Only these questions; all of them if none is given
    questions: Vec<Question>,
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
    let questions = match &options.questions[..] {
        [] => Question::value_variants(),
        asked => asked,
    };
    let is_compared = questions.contains(&Question::Saves);
    let missing: Vec<_> = COMPARED
        .into_iter()
        .filter(|name| is_compared && !is_there(name))
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
    let args: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
    for question in questions {
        let mut bench = Command::new(workspace.target.join("release/persist-bench"));
        bench.arg(question.name());
        // The disk that is measured is the one that the checkout is on; /tmp may be memory.
        bench.arg("--dir").arg(&workspace.target).args(&flags);
        if *question == Question::Langgraph {
            match langgraph(workspace) {
                Ok(python) => bench.arg("--python").arg(python),
                // The other questions can be answered all the same.
                Err(error) if options.questions.is_empty() => {
                    eprintln!("{error:#}\nThe comparison goes on without LangGraph.");
                    continue;
                }
                Err(error) => return Err(error),
            };
        }
        let figures = machine::output(&mut bench)?;
        let page = question.page();
        let figures = page.headed(workspace, &args, &figures)?;
        println!("{figures}");
        if options.write {
            page.write(workspace, &figures)?;
        }
    }
    Ok(())
}

/// Returns a Python that has LangGraph's SqliteSaver, in an environment of its own.
fn langgraph(workspace: &Workspace) -> Result<PathBuf> {
    let place = workspace.target.join("tools/langgraph");
    let python = place.join("bin/python");
    let requirements = workspace
        .root
        .join("tests/bench/langgraph/requirements.txt");
    let name = python.to_str().context("a path that is not UTF-8")?;
    if !python.is_file() {
        let mut venv = Command::new(pypi::python()?);
        machine::run(venv.args(["-m", "venv"]).arg(&place))?;
    }
    machine::run(&mut pypi::pip(name, "install", &requirements))?;
    Ok(python)
}

fn is_there(program: &str) -> bool {
    machine::succeeds(Command::new(program).arg("--version"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_question_has_its_place_on_the_page() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/benchmarks.md");
        let page = std::fs::read_to_string(page).expect("readable");
        for question in Question::value_variants() {
            question.page().replaced(&page, "").expect("a place");
            let begin = question.page().begin();
            assert_eq!(page.matches(&begin).count(), 1, "{begin}");
        }
    }
}
