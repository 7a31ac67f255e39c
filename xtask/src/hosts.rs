//! Compiles the hosts of other projects that keep their guests' state in Persist, and plugins for
//! them. Each is a cargo workspace of its own.

use crate::guests;
use crate::machine::{self, Workspace};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// The crate that `examples/zeroclaw-backend` is about. Its plugins are built against its own WIT.
const ZEROCLAW: &str = "zeroclaw-plugins";

/// Builds what is not up to date.
pub(crate) fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let folder = workspace.root.join("examples/zeroclaw-backend");
    let host = compile(workspace, &folder, "zeroclaw-backend")?;
    let plugin = folder.join("plugin");
    link(&wit_of(workspace, &folder)?, &plugin.join("wit"))?;
    let notebook = guests::build_plugin(workspace, &plugin, "zeroclaw-notebook")?;
    let extism = workspace.root.join("examples/extism-host");
    Ok(vec![
        host,
        notebook,
        compile(workspace, &extism, "extism-host")?,
        guests::build_plugin(workspace, &extism.join("plugin"), "extism-notebook")?,
    ])
}

/// Builds the program of the workspace in `folder`, and returns its path.
fn compile(workspace: &Workspace, folder: &Path, program: &str) -> Result<PathBuf> {
    // Not the directory of this workspace: its programs have other features of the same crates.
    let target = workspace.target.join("hosts");
    let mut cargo = workspace.cargo(["build", "--locked", "--bin", program]);
    cargo.current_dir(folder).env("CARGO_TARGET_DIR", &target);
    machine::run(&mut cargo)?;
    Ok(target.join("debug").join(program))
}

/// Returns the folder with the WIT of the crate, of the release in the lock file.
fn wit_of(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let mut cargo = workspace.cargo(["metadata", "--locked", "--format-version", "1"]);
    let metadata = machine::output(cargo.current_dir(folder))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let found = packages.iter().find(|package| package["name"] == ZEROCLAW);
    let manifest = found.and_then(|package| package["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("no package {ZEROCLAW}"))?;
    Ok(Path::new(manifest).with_file_name("wit").join("v0"))
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
