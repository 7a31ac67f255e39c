//! `cargo xtask test`: everything that is needed, then every test.

use crate::machine::{self, Workspace};
use crate::servers::Cloud;
use crate::{browser, demo, guests, hosts, languages, servers, toolchains};
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

/// Enough of the demo to be a test: a dozen turns between two kills.
const DEMO_TURNS: usize = 60;
const DEMO_KILLS: usize = 5;

/// Tests that run at a time on each core: many wait for a server, or before another attempt.
const TESTS_PER_CORE: usize = 2;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let skipped = Skipped::forget_earlier(workspace)?;
    // One selection of packages and features for all that follows. Another would compile wasmtime a
    // second time.
    let all = ["--locked", "--workspace", "--all-features"];
    // What the benchmark compares with takes minutes to compile, and tests nothing.
    let all = all.into_iter().chain(["--exclude", "persist-bench"]);
    let mut build = workspace.cargo(["build", "--bins", "--tests", "--examples"]);
    build.args(all.clone());
    prepare(workspace, build)?;

    let demo = demo::rehearse(workspace, DEMO_TURNS, DEMO_KILLS)
        .and_then(|()| demo::rehearse_on(workspace, Cloud::S3, DEMO_TURNS, DEMO_KILLS))
        .and_then(|()| demo::rehearse_on(workspace, Cloud::Gcs, DEMO_TURNS, DEMO_KILLS))
        .context("the demo failed");
    if let Err(error) = &demo {
        eprintln!("{error:#}\nThe tests are run all the same.");
    }
    let mut test = workspace.cargo(["test"]);
    if std::env::var_os("RUST_TEST_THREADS").is_none() {
        let threads = TESTS_PER_CORE * std::thread::available_parallelism()?.get();
        test.env("RUST_TEST_THREADS", threads.to_string());
    }
    let tested = machine::run(test.args(all));
    skipped.print()?;
    tested?;
    demo
}

/// Prepares what the tests need, all parts at the same time: each has moments in which it waits for
/// a download, or keeps one core busy.
fn prepare(workspace: &Workspace, mut build: Command) -> Result<()> {
    let parts = thread::scope(|scope| {
        let others = [
            scope.spawn(|| timed("agents and other hosts", || build_agents(workspace))),
            scope.spawn(|| timed("programs to test with", || install_programs(workspace))),
        ];
        let built = timed("tests", || machine::run(&mut build));
        let others = others.map(|part| part.join().unwrap_or_else(|panic| resume_unwind(panic)));
        others.into_iter().chain([built]).collect::<Vec<_>>()
    });
    let errors: Vec<_> = parts.into_iter().filter_map(Result::err).collect();
    for error in &errors {
        eprintln!("error: {error:#}");
    }
    ensure!(errors.is_empty(), "not all could be prepared; see above");
    Ok(())
}

/// Compiles the agents in Rust, and the hosts of other projects with their agents.
fn build_agents(workspace: &Workspace) -> Result<()> {
    guests::build(workspace)?;
    guests::build_others(workspace)?;
    hosts::build(workspace)?;
    Ok(())
}

/// Installs toolchains, servers and programs, and compiles the agents in other languages. Tests of
/// most programs are skipped where one cannot be installed.
fn install_programs(workspace: &Workspace) -> Result<()> {
    languages::build(workspace)?;
    servers::install_all(workspace)?;
    install_shells();
    install_proxies();
    if let Err(error) = toolchains::restate(workspace) {
        eprintln!("Agents are not tested on Restate: {error:#}");
    }
    browser::install(workspace);
    Ok(())
}

/// Does one part, and says how long it took.
fn timed(part: &str, make: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    let made = make().with_context(|| part.to_owned());
    let outcome = if made.is_ok() { "ready" } else { "failed" };
    eprintln!("== {part}: {outcome} after {} s", start.elapsed().as_secs());
    made
}

/// Installs the proxies behind which replicas are tested, and what cuts replicas off. Where that
/// fails, the tests are skipped.
pub(crate) fn install_proxies() {
    // Not in the PATH of a user who is not root.
    let wanted = [
        ("haproxy", "/usr/sbin/haproxy"),
        ("nginx-light", "/usr/sbin/nginx"),
        ("iproute2", "/usr/sbin/ip"),
    ];
    let missing: Vec<_> = wanted
        .into_iter()
        .filter(|(_, program)| !Path::new(program).exists())
        .map(|(package, _)| package)
        .collect();
    if missing.is_empty() {
        return;
    }
    let otherwise = "install them, or replicas are not tested behind a proxy";
    if let Err(error) = machine::install(&missing, otherwise) {
        eprintln!("Replicas are not tested behind each proxy: {error:#}");
    }
}

/// Installs the shells in which completion is tested. Where that fails, these tests are skipped.
fn install_shells() {
    let missing: Vec<_> = ["zsh", "fish"]
        .into_iter()
        .filter(|shell| !machine::succeeds(Command::new(shell).args(["-c", "exit"])))
        .collect();
    if missing.is_empty() {
        return;
    }
    let otherwise = "install them, or completion is not tested in them";
    if let Err(error) = machine::install(&missing, otherwise) {
        eprintln!(
            "Completion is not tested in {}: {error:#}",
            missing.join(", ")
        );
    }
}

/// The list of tests that passed without an agent in one of their languages, which the tests write.
struct Skipped(PathBuf);

impl Skipped {
    fn forget_earlier(workspace: &Workspace) -> Result<Self> {
        let list = workspace.target.join("skipped-language-tests");
        if list.exists() {
            fs::remove_file(&list)?;
        }
        Ok(Self(list))
    }

    fn print(&self) -> Result<()> {
        if self.0.exists() {
            let list = fs::read_to_string(&self.0)?;
            eprintln!("\n{}", summary(&list));
        }
        Ok(())
    }
}

/// Counts the tests of each language in a list of skipped ones.
fn summary(list: &str) -> String {
    let mut languages: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (language, test) in list.lines().filter_map(|line| line.split_once('\t')) {
        languages.entry(language).or_default().insert(test);
    }
    let counts = languages
        .iter()
        .map(|(language, tests)| format!("{} in {language}", tests.len()));
    let counts: Vec<_> = counts.collect();
    format!(
        "Tests skipped without a toolchain: {}. `cargo xtask guests` says what is missing.",
        counts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_are_counted_once_for_each_language() {
        let list = "go\ta\npython\ta\ngo\tb\ngo\ta\n";
        let counts = "skipped without a toolchain: 2 in go, 1 in python.";
        assert!(summary(list).contains(counts), "{}", summary(list));
    }
}
