//! `persist new`: a fresh agent in a folder of its own, with all of the SDK that it needs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use crate::print::say;
use crate::sdk::{self, Language};

/// Create a folder with a new agent
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist new --lang python weather
  persist new --lang rust agents/notes")]
pub(crate) struct New {
    /// Folder to create; its last part is the agent's name
    folder: PathBuf,
    /// Language of the agent
    #[arg(long, value_enum)]
    lang: Language,
}

impl New {
    pub(crate) fn run(self) -> Result<()> {
        let name = name_of(&self.folder)?;
        if let Some(parent) = self.folder.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        fs::create_dir(&self.folder)
            .with_context(|| format!("make the folder {}", self.folder.display()))?;
        for (path, bytes) in self.lang.sdk() {
            write(&self.folder.join(path), bytes)?;
        }
        for (path, text) in self.lang.template() {
            let text = text
                .replace("GO_MODULE", sdk::go_module())
                .replace("NAME", name);
            write(&self.folder.join(path), text.as_bytes())?;
        }
        write(
            &self.folder.join(".gitignore"),
            b"*.wasm\ntarget/\nnode_modules/\n.venv/\n__pycache__/\n",
        )?;
        let folder = self.folder.display();
        say(format_args!(
            "{folder} is an agent that keeps notes. Next:\n\n    \
             persist build {folder}\n    persist run {folder}/{name}.wasm -- \"buy milk\"\n"
        ));
        Ok(())
    }
}

/// The name of the agent in a folder: one that every toolchain takes.
pub(crate) fn name_of(folder: &Path) -> Result<&str> {
    let name = folder.file_name().and_then(|name| name.to_str());
    let name = name.context("the folder's name is not text")?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_plain) {
        bail!("{name} is not a name for an agent: use a-z, 0-9, _ and -, and begin with a letter");
    }
    // A Python module and a Go package of these names are the SDK's.
    ensure!(
        !["persist", "agent", "app"].contains(&name),
        "{name} is taken by the SDK; choose another name"
    );
    Ok(name)
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let inside = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(inside)?;
    }
    fs::write(path, bytes).with_context(inside)
}
