//! `persist upgrade-sdk`: the SDK of this command in the directory of an agent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use crate::build::random_suffix;
use crate::error::Hinted;
use crate::print::Out;
use crate::project::Project;
use crate::sdk::{CHECKSUMS, checksum};
use crate::text::count;

/// Replace the SDK in the directory of an agent by the one of this command
///
/// Files of the agent itself stay as they are. Files of the SDK that were edited are kept and
/// listed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist upgrade-sdk weather --dry-run
  persist upgrade-sdk weather")]
pub(crate) struct UpgradeSdk {
    /// Directory of the agent
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Print what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Also replace edited files
    #[arg(long)]
    force: bool,
}

/// Change of one file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Add,
    Update,
    Remove,
    Keep,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Update => "update",
            Self::Remove => "remove",
            Self::Keep => "keep",
        }
    }
}

impl UpgradeSdk {
    pub(crate) fn run(self, out: Out) -> Result<()> {
        let project = Project::open(&self.folder, None)?;
        for directory in ["persist", "wit"] {
            let path = project.folder.join(directory);
            if path.is_symlink() {
                let what = format!("{} is a link", path.display());
                let hint = "upgrade the SDK in the directory that it leads to";
                return Err(Hinted::other(what, hint).into());
            }
        }
        let new: BTreeMap<_, _> = project.language.sdk_files().into_iter().collect();
        let originals = originals(&project.folder)?;
        let paths: BTreeSet<&str> = new
            .keys()
            .copied()
            .chain(originals.keys().map(String::as_str))
            .collect();
        let (mut changed, mut kept) = (0, 0);
        for path in paths {
            let file = project.folder.join(path);
            let current = read(&file)?;
            let new = new.get(path).copied();
            let original = originals.get(path).map(String::as_str);
            let Some(action) = action(current.as_deref(), original, new, self.force) else {
                continue;
            };
            match action {
                Action::Keep => kept += 1,
                Action::Add | Action::Update | Action::Remove => changed += 1,
            }
            if !self.dry_run {
                match (action, new) {
                    (Action::Keep, _) => {}
                    (_, Some(bytes)) => replace(&file, bytes)?,
                    (_, None) => fs::remove_file(&file)
                        .with_context(|| format!("cannot remove {}", file.display()))?,
                }
            }
            let value = json!({ "event": "sdk-file", "file": path, "action": action.name() });
            self.print(out, &value, || match action {
                Action::Keep => format!("keep {path} (edited)"),
                _ => format!("{} {path}", action.name()),
            })?;
        }
        if !self.dry_run {
            let list = project.language.checksums();
            replace(&project.folder.join(CHECKSUMS), list.as_bytes())?;
        }
        let value = json!({
            "event": "sdk-upgraded",
            "dry_run": self.dry_run,
            "changed": changed,
            "kept": kept,
        });
        self.print(out, &value, || {
            let (changed, kept) = (count(changed, "file"), count(kept, "edited file"));
            if self.dry_run {
                format!("would change {changed} and keep {kept}")
            } else {
                format!("changed {changed} and kept {kept}")
            }
        })?;
        if kept > 0 && !out.json {
            out.note(format_args!(
                "hint: add --force to replace edited files, too; save your edits first"
            ));
        }
        Ok(())
    }

    fn print(
        &self,
        out: Out,
        value: &serde_json::Value,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        if self.dry_run {
            out.result(value, text)
        } else {
            out.print(value, text)
        }
    }
}

/// Decides what happens to one file: `current` is its content, `original` the checksum of what an
/// earlier SDK wrote there, and `new` what this SDK has there.
fn action(
    current: Option<&[u8]>,
    original: Option<&str>,
    new: Option<&[u8]>,
    force: bool,
) -> Option<Action> {
    let Some(current) = current else {
        return new.is_some().then_some(Action::Add);
    };
    if Some(current) == new {
        return None;
    }
    // A file without a checksum may be the author's.
    let is_edited = original != Some(checksum(current).as_str());
    match new {
        _ if is_edited && !force => Some(Action::Keep),
        Some(_) => Some(Action::Update),
        None => Some(Action::Remove),
    }
}

/// Reads the checksums, by path. There are none in a directory of an earlier version.
fn originals(folder: &Path) -> Result<BTreeMap<String, String>> {
    let Some(text) = read(&folder.join(CHECKSUMS))? else {
        return Ok(BTreeMap::new());
    };
    let text = String::from_utf8_lossy(&text);
    let entries = text.lines().filter_map(|line| line.split_once("  "));
    // The list may come from a stranger, and names files to remove.
    let is_sdk = |path: &str| {
        let inside = path.starts_with("persist/") || path.starts_with("wit/");
        inside
            && !path
                .split('/')
                .any(|part| part.is_empty() || part == ".." || part == ".")
    };
    let entries = entries.filter(|(_, path)| is_sdk(path));
    Ok(entries
        .map(|(hash, path)| (path.to_owned(), hash.to_owned()))
        .collect())
}

fn read(file: &Path) -> Result<Option<Vec<u8>>> {
    match fs::read(file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Replaces a file in one step, and never what a link leads to.
fn replace(file: &Path, bytes: &[u8]) -> Result<()> {
    let inside = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(inside)?;
    }
    let new = file.with_file_name(format!(".persist-sdk-{}", random_suffix()?));
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        // What failed is said by the error.
        let _ = fs::remove_file(&new);
    }
    written.with_context(inside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdk::Language;

    #[test]
    fn edited_files_are_kept_and_others_replaced() {
        let (old, edited, new) = (b"old".as_slice(), b"edited".as_slice(), b"new".as_slice());
        let original = checksum(old);
        let original = Some(original.as_str());
        let name = |action: Option<Action>| action.map(Action::name);
        for (current, original, new, force, expected) in [
            (Some(old), original, Some(new), false, Some("update")),
            (Some(edited), original, Some(new), false, Some("keep")),
            (Some(edited), original, Some(new), true, Some("update")),
            (Some(new), original, Some(new), false, None),
            (None, original, Some(new), false, Some("add")),
            (None, None, Some(new), false, Some("add")),
            // It may be the author's.
            (Some(old), None, Some(new), false, Some("keep")),
            (Some(old), original, None, false, Some("remove")),
            (Some(edited), original, None, false, Some("keep")),
            (None, original, None, false, None),
        ] {
            let found = name(action(current, original, new, force));
            assert_eq!(found, expected, "{current:?} {original:?} {new:?} {force}");
        }
    }

    #[test]
    fn checksums_name_files_of_the_sdk_only() {
        let dir = tempfile::tempdir().expect("created");
        fs::create_dir(dir.path().join("persist")).expect("created");
        let lines = "1  persist/a.c\n2  wit/b.wit\n3  agent.c\n4  persist/../agent.c\n\
                     5  /etc/passwd\n6  persist//etc\nno line\n";
        fs::write(dir.path().join(CHECKSUMS), lines).expect("written");
        let found = originals(dir.path()).expect("readable");
        let found: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(found, ["persist/a.c", "wit/b.wit"]);
    }

    #[test]
    fn the_checksums_of_a_new_agent_are_those_of_its_files() {
        for language in Language::ALL {
            let dir = tempfile::tempdir().expect("created");
            let list = language.checksums();
            replace(&dir.path().join(CHECKSUMS), list.as_bytes()).expect("written");
            let originals = originals(dir.path()).expect("readable");
            let files = language.sdk_files();
            assert!(!files.is_empty());
            assert_eq!(originals.len(), files.len(), "{language:?}");
            for (path, bytes) in files {
                assert_eq!(originals[path], checksum(bytes), "{path}");
            }
        }
    }
}
