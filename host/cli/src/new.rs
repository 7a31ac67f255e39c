//! `persist new`: a fresh agent in a folder of its own, with all of the SDK that it needs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use crate::print::Out;
use crate::project::name_of;
use crate::sdk::{self, CHECKSUMS, Language};
use crate::toolchain_versions;

/// Create a directory with a new agent
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist new --lang python weather
  persist new --lang rust agents/notes")]
pub(crate) struct New {
    /// Directory to create, or an empty one; its last component is the name of the agent
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Programming language of the agent
    #[arg(long, value_enum)]
    lang: Language,
}

impl New {
    pub(crate) fn run(self, out: Out) -> Result<()> {
        // An empty directory, such as the current one, is taken as it is.
        let is_empty = |mut entries: fs::ReadDir| entries.next().is_none();
        let existing = if self.folder.read_dir().is_ok_and(is_empty) {
            fs::canonicalize(&self.folder).ok()
        } else {
            None
        };
        let name = name_of(existing.as_deref().unwrap_or(&self.folder))?;
        if existing.is_none() {
            if let Some(parent) = self.folder.parent() {
                fs::create_dir_all(parent)
                    .with_context(|| format!("cannot create {}", parent.display()))?;
            }
            fs::create_dir(&self.folder).with_context(|| {
                format!("cannot create the directory {}", self.folder.display())
            })?;
        }
        for (path, bytes) in self.lang.sdk() {
            write(&self.folder.join(path), bytes)?;
        }
        for (path, text) in self.lang.template() {
            let text = text
                .replace("GO_MODULE", sdk::go_module())
                .replace("QJS_VERSION", toolchain_versions::COMPONENTIZE_QJS)
                .replace("ESBUILD_VERSION", toolchain_versions::ESBUILD)
                .replace("TYPESCRIPT_VERSION", TYPESCRIPT)
                .replace("NAME", name);
            write(&self.folder.join(path), text.as_bytes())?;
        }
        write(
            &self.folder.join(CHECKSUMS),
            self.lang.checksums().as_bytes(),
        )?;
        let mut ignored = "*.wasm\ntarget/\nnode_modules/\n.venv/\n__pycache__/\n".to_owned();
        if self.lang == Language::Ts {
            // What `npm test` makes of agent.ts.
            ignored += "agent.js\n";
        }
        write(&self.folder.join(".gitignore"), ignored.as_bytes())?;
        let folder = self.folder.display();
        if out.json {
            let value = json!({ "event": "created", "directory": self.folder, "agent": name });
            return Ok(out.result(&value, String::new)?);
        }
        out.note(format_args!(
            "created {folder}, an agent that keeps notes. Next steps:\n\n    \
             persist run {folder} -- \"buy milk\"\n    persist dev {folder} -- \"buy milk\"\n"
        ));
        Ok(())
    }
}

/// Version of the package typescript on npm, which checks the types of an agent.
const TYPESCRIPT: &str = "7.0.2";

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let inside = || format!("cannot write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(inside)?;
    }
    fs::write(path, bytes).with_context(inside)
}
