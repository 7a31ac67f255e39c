//! Packages of PyPI, pinned by their SHA-256. pip fetches them, from wherever it is configured to.

use crate::machine;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::Command;

/// A Python that has pip; installed where there is none.
pub(crate) fn python() -> Result<&'static str> {
    // A Python of the user's own, first on PATH, may lack the pip that Debian's has.
    let usable = || {
        ["python3", "/usr/bin/python3"]
            .into_iter()
            .find(|python| machine::succeeds(Command::new(python).args(["-m", "pip", "--version"])))
    };
    if let Some(python) = usable() {
        return Ok(python);
    }
    let otherwise = "install Python 3 with pip (https://www.python.org)";
    machine::install(&["python3", "python3-pip"], otherwise)?;
    usable().with_context(|| format!("there is still no Python with pip; {otherwise}"))
}

/// `pip COMMAND` on a file of requirements, for wheels only, each with its hash, and nothing that
/// is not named there.
pub(crate) fn pip(python: &str, command: &str, requirements: &Path) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", command]);
    pip.args([
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
    ]);
    pip.arg("--requirement").arg(requirements);
    pip
}
