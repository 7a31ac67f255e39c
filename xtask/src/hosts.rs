//! Compiles the hosts of other projects that keep their guests' state in Persist, and plugins for
//! them. The hosts are one cargo workspace, and each plugin is another.

use crate::guests;
use crate::machine::{self, Workspace};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The crate that `examples/zeroclaw-backend` is about. Its plugins are built against its own WIT.
const ZEROCLAW: &str = "zeroclaw-plugins";

/// Builds what is not up to date.
pub(crate) fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let folder = workspace.root.join("examples/zeroclaw-backend");
    let plugin = folder.join("plugin");
    let zeroclaw = machine::package_folder(workspace, &folder, ZEROCLAW)?;
    link(&zeroclaw.join("wit/v0"), &plugin.join("wit"))?;
    let notebook = guests::build_plugin(workspace, &plugin, "zeroclaw-notebook")?;
    let extism = workspace.root.join("examples/extism-host/plugin");
    let extism_notebook = guests::build_plugin(workspace, &extism, "extism-notebook")?;
    let [zeroclaw, extism] = compile(workspace, &folder, ["zeroclaw-backend", "extism-host"])?;
    Ok(vec![zeroclaw, notebook, extism, extism_notebook])
}

/// Builds programs of the workspace in `folder`, and returns their paths.
fn compile<const N: usize>(
    workspace: &Workspace,
    folder: &Path,
    programs: [&str; N],
) -> Result<[PathBuf; N]> {
    // Not the directory of this workspace: its programs have other features of the same crates.
    let target = workspace.target.join("hosts");
    let mut cargo = workspace.cargo(["build", "--locked", "--workspace"]);
    // ZeroClaw's then takes compiled plugins, and one compiler less has to be compiled.
    cargo.arg("--no-default-features");
    for program in programs {
        cargo.args(["--bin", program]);
    }
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", &target);
    machine::run(&mut cargo)?;
    Ok(programs.map(|program| target.join("debug").join(program)))
}

/// Makes a link, unless it is there. One that is right stays, so that nothing is built again.
fn link(to: &Path, at: &Path) -> Result<()> {
    match fs::read_link(at) {
        Ok(found) if found == to => return Ok(()),
        Ok(_) => fs::remove_file(at)?,
        Err(_) => {}
    }
    std::os::unix::fs::symlink(to, at).with_context(|| format!("cannot link {}", at.display()))
}
