//! The browser that the console is tested in: Debian's Chromium, what drives it, and a checker of
//! accessibility. They lie in `target/toolchains/browser`, where the test looks for them.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::machine::{self, Workspace};
use crate::toolchains;

/// Contents of the npm installation, with the hashes of its parts.
const NPM_PACKAGE: &str = include_str!("../browser/package.json");
const NPM_LOCK: &str = include_str!("../browser/package-lock.json");

/// Installs what is missing. Where that fails, the test in the browser is skipped.
pub(crate) fn install(workspace: &Workspace) {
    if let Err(error) = install_all(workspace) {
        eprintln!("The console is not tested in a browser: {error:#}");
    }
}

fn install_all(workspace: &Workspace) -> Result<()> {
    if !machine::succeeds(Command::new("chromium").arg("--version")) {
        let otherwise = "install Chromium, or the console is not tested in it";
        machine::install(&["chromium"], otherwise)?;
    }
    toolchains::node()?;
    let folder = toolchains::folder(workspace).join("browser");
    // Written last, so that what it says is there.
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).ok().as_deref() == Some(NPM_LOCK) {
        return Ok(());
    }
    println!("Fetching playwright-core (Apache-2.0) and axe-core (MPL-2.0), from npm");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("package.json"), NPM_PACKAGE)?;
    fs::write(folder.join("package-lock.json"), NPM_LOCK)?;
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    machine::run(npm.current_dir(&folder)).context("cannot fetch playwright-core")?;
    Ok(fs::write(&stamp, NPM_LOCK)?)
}
