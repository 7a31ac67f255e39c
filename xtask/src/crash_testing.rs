//! `cargo xtask crash-test`: tries to make the local store lose what it acknowledged
//! (`tests/crash-testing`), and writes the figures of docs/src/reliability.md.

use crate::figures::Page;
use crate::machine::{self, Workspace};
use anyhow::{Context, Result, ensure};
use std::borrow::Cow;
use std::process::{Command, Stdio};

const PAGE: Page = Page {
    name: "docs/src/reliability.md",
    chore: Cow::Borrowed("cargo xtask crash-test"),
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only these targets; all of them if none is given
    targets: Vec<String>,
    /// Seed of everything random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How much each target tries, instead of its own number
    #[arg(long)]
    count: Option<u64>,
    /// Only name the targets
    #[arg(long)]
    list: bool,
    /// Put the figures into docs/src/reliability.md
    #[arg(long, conflicts_with_all = ["targets", "list"])]
    write: bool,
}

impl Options {
    /// Returns the arguments as the laboratory itself takes them.
    fn args(&self) -> Vec<String> {
        let mut args = self.targets.clone();
        args.push(format!("--seed={}", self.seed));
        args.extend(self.count.map(|count| format!("--count={count}")));
        args.extend(self.list.then(|| "--list".to_owned()));
        args
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    // The selection that the tests are built with: another would compile wasmtime a second time.
    let build = ["build", "--locked", "--workspace", "--all-features"];
    let build = build.into_iter().chain([
        "--exclude",
        "persist-bench",
        "--bin",
        "persist-crash-testing",
    ]);
    machine::run(&mut workspace.cargo(build))?;
    let args = options.args();
    let mut lab = Command::new(workspace.target.join("debug/persist-crash-testing"));
    // The disk that is tried is the one that the checkout is on; /tmp may be memory.
    let tmp = workspace.target.join("tmp");
    std::fs::create_dir_all(&tmp)?;
    lab.args(&args).env("TMPDIR", tmp).stderr(Stdio::inherit());
    let output = lab.output().context("cannot run the laboratory")?;
    let rows = String::from_utf8(output.stdout).context("the laboratory printed no text")?;
    if options.list {
        print!("{rows}");
    } else {
        let table = format!("| target | tried | |\n|---|---|---:|\n{rows}");
        let figures = PAGE.headed(workspace, &args, &table)?;
        println!("{figures}");
        if options.write {
            PAGE.write(workspace, &figures)?;
        }
    }
    ensure!(
        output.status.success(),
        "the laboratory found something, or failed"
    );
    Ok(())
}
