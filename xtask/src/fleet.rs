//! `cargo xtask bench fleet`: builds the worker of `examples/fleet`, and runs many agents on it
//! while workers die. The trial itself is a test of `tests/integration/fleet.rs`.

use crate::figures::Page;
use crate::machine::{self, Workspace};
use crate::{guests, servers, test, toolchains};
use anyhow::{Context, Result};
use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: Page = Page {
    name: "docs/src/many-machines.md",
    chore: Cow::Borrowed("cargo xtask bench fleet"),
};

const TEST: &str = "fleet::a_fleet_on_restate_loses_and_doubles_no_turn";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Agents, each with one session
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    agents: u32,
    /// Calls of all agents together
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    calls: u32,
    /// Workers, each in a network namespace of its own where the user is root
    #[arg(long, value_name = "COUNT", default_value_t = 3)]
    workers: u32,
    /// Restate servers, which call the same agents without knowing each other
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    engines: u32,
    /// Calls at a time
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    callers: u32,
    /// Seconds between two faults
    #[arg(long, value_name = "SECONDS", default_value_t = 4)]
    fault_every: u32,
    /// Also let the clocks of workers jump by 5 and 10 minutes (with `faketime` of Debian)
    #[arg(long)]
    clock_jumps: bool,
    /// Put the figures into docs/src/many-machines.md
    #[arg(long)]
    write: bool,
}

impl Options {
    /// Returns the arguments for the line above the figures.
    fn args(&self) -> Vec<String> {
        let mut args = vec![
            format!("--agents={}", self.agents),
            format!("--calls={}", self.calls),
            format!("--workers={}", self.workers),
            format!("--callers={}", self.callers),
        ];
        if self.engines > 1 {
            args.push(format!("--engines={}", self.engines));
        }
        if self.clock_jumps {
            args.push("--clock-jumps".to_owned());
        }
        args
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    guests::build(workspace)?;
    servers::install(workspace, &servers::SEAWEEDFS)?;
    toolchains::restate(workspace)?;
    test::install_proxies();
    let worker = build_worker(workspace)?;
    let report = workspace.target.join("fleet/report.md");
    if report.exists() {
        fs::remove_file(&report)?;
    }
    // The selection of `cargo xtask test`: another would compile wasmtime a second time.
    let all = ["--locked", "--workspace", "--all-features"];
    let all = all.into_iter().chain(["--exclude", "persist-bench"]);
    machine::run(workspace.cargo(["build", "--bins"]).args(all.clone()))?;
    let mut trial = workspace.cargo(["test"]);
    trial.args(all).args(["--test", "integration", "--"]);
    trial.args(["--ignored", "--exact", "--nocapture", TEST]);
    trial
        .env("FLEET_WORKER", worker)
        .env("FLEET_REPORT", &report);
    trial.envs([
        ("FLEET_AGENTS", options.agents.to_string()),
        ("FLEET_CALLS", options.calls.to_string()),
        ("FLEET_WORKERS", options.workers.to_string()),
        ("FLEET_ENGINES", options.engines.to_string()),
        ("FLEET_CALLERS", options.callers.to_string()),
        ("FLEET_FAULT_EVERY", options.fault_every.to_string()),
    ]);
    if options.clock_jumps {
        trial.env("FLEET_FAKETIME", faketime()?);
    }
    let ended = machine::run(&mut trial);
    if report.exists() {
        let figures = PAGE.headed(workspace, &options.args(), &fs::read_to_string(&report)?)?;
        println!("{figures}");
        if options.write {
            PAGE.write(workspace, &figures)?;
        }
    }
    ended
}

/// Builds the worker, a workspace of its own.
fn build_worker(workspace: &Workspace) -> Result<PathBuf> {
    let target = workspace.target.join("fleet");
    let mut cargo = workspace.cargo(["build", "--locked"]);
    cargo.current_dir(workspace.root.join("examples/fleet"));
    machine::run(cargo.env("CARGO_TARGET_DIR", &target))?;
    Ok(target.join("debug/persist-fleet"))
}

/// Returns the library that shifts the clock of a program.
fn faketime() -> Result<PathBuf> {
    let find = || machine::debian_file("libfaketime", "faketime/libfaketimeMT.so.1");
    if find().is_none() && !Path::new("/usr/bin/faketime").exists() {
        machine::install(
            &["faketime"],
            "install libfaketime, or leave out --clock-jumps",
        )?;
    }
    find().context("the package libfaketime has no libfaketimeMT.so.1")
}
