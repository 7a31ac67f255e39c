//! `cargo xtask test`: everything that is needed, then every test.

use crate::machine::{self, Workspace};
use crate::servers::Cloud;
use crate::{demo, guests, languages, servers};
use anyhow::{Context, Result};

/// Enough of the demo to be a test: a dozen turns between two kills.
const DEMO_TURNS: usize = 60;
const DEMO_KILLS: usize = 5;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    guests::build(workspace)?;
    languages::build(workspace)?;
    servers::install_all(workspace)?;
    // One selection of packages and features for all that follows. Another would compile wasmtime a
    // second time.
    let all = ["--locked", "--workspace", "--all-features"];
    // What the benchmark compares with takes minutes to compile, and tests nothing.
    let all = all.into_iter().chain(["--exclude", "persist-bench"]);
    machine::run(
        workspace
            .cargo(["build", "--bins", "--tests", "--examples"])
            .args(all.clone()),
    )?;

    let demo = demo::rehearse(workspace, DEMO_TURNS, DEMO_KILLS)
        .and_then(|()| demo::rehearse_on(workspace, Cloud::S3, DEMO_TURNS, DEMO_KILLS))
        .and_then(|()| demo::rehearse_on(workspace, Cloud::Gcs, DEMO_TURNS, DEMO_KILLS))
        .context("the demo failed");
    if let Err(error) = &demo {
        eprintln!("{error:#}\nThe tests are run all the same.");
    }
    machine::run(workspace.cargo(["test"]).args(all))?;
    demo
}
