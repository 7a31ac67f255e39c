//! Checks the spelling of every file with typos, as `typos.toml` configures it.

use crate::machine::{self, Workspace};
use crate::servers::{self, Package};
use anyhow::Result;
use std::process::Command;

const TYPOS: Package = Package {
    folder: "typos",
    version: "1.52.0",
    what: "typos VERSION, from PyPI (MIT OR Apache-2.0), 8 MB",
    requirements: "typos==VERSION \
--hash=sha256:5e870133c7e9cace94183e4d638697004a1473e79abcd01b8f75e362049a9b5c \
--hash=sha256:418fd85f7fc11dec14e5482e747f6e916af56da96207cde0cdd69540a4b389f6\n",
};

pub(super) fn check(workspace: &Workspace) -> Result<()> {
    let tools = workspace.target.join("tools");
    servers::install_in(&tools, &TYPOS)?;
    let mut typos = Command::new(tools.join("typos/bin/typos"));
    machine::run(
        typos
            .args(["--format", "brief"])
            .current_dir(&workspace.root),
    )
}
