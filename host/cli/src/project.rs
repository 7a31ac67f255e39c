//! A project: the directory of an agent that `persist new` created.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use ignore::WalkBuilder;
use persist_host::snapshot::layout;
use persist_host::storage::Key;
use sha2::{Digest as _, Sha256};

use crate::error::Hinted;
use crate::sdk::Language;

/// Directories that tools write to, beside those that `.gitignore` names.
const GENERATED: [&str; 5] = [".git", ".venv", "__pycache__", "node_modules", "target"];

/// Files in these directories that change with each installation of a package.
const INSTALLED: [&str; 2] = ["node_modules/.package-lock.json", ".venv/lib"];

/// Prefix of the directories that a build creates and removes.
pub(crate) const SCRATCH: &str = ".persist-build-";

/// Directory of an agent.
pub(crate) struct Project {
    pub(crate) folder: PathBuf,
    pub(crate) language: Language,
    /// Name of the directory, which is also the agent's id.
    pub(crate) name: String,
    /// Directory of the local store in use, which may be around or within the project.
    store: Option<PathBuf>,
}

impl Project {
    /// Opens the directory of an agent. Files of the local store in use are not files of the agent.
    pub(crate) fn open(path: &Path, store: Option<PathBuf>) -> Result<Self> {
        let folder = fs::canonicalize(path)
            .with_context(|| format!("cannot open the directory {}", path.display()))?;
        let Some(language) = Language::ALL
            .into_iter()
            .find(|language| folder.join(language.marker()).is_file())
        else {
            let markers = Language::ALL.map(Language::marker).join(", ");
            bail!(
                "{} is not the directory of an agent: it has none of {markers}",
                path.display()
            );
        };
        if language != Language::Rust && !folder.join("persist").is_dir() {
            let what = format!(
                "{} has no directory persist, with the SDK: `persist new` did not create it",
                path.display()
            );
            let hint = "build it as the README of the SDK says";
            return Err(Hinted::other(what, hint).into());
        }
        let name = name_of(&folder)?.to_owned();
        Ok(Self {
            folder,
            language,
            name,
            store,
        })
    }

    /// Returns the file that a build writes unless it is told another.
    pub(crate) fn component(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.name))
    }

    /// Returns a hash of the paths and contents of all files that a build may read, of the
    /// installed packages and of this version of Persist.
    ///
    /// Contents and not times, because a checkout, a copy or a restored file may be older than the
    /// component.
    pub(crate) fn inputs(&self) -> Result<Inputs> {
        let mut files = self.files()?;
        files.extend(INSTALLED.map(|path| self.folder.join(path)));
        files.sort();
        let mut hash = Sha256::new();
        hash.update(env!("CARGO_PKG_VERSION"));
        for file in files {
            let path = file.strip_prefix(&self.folder).unwrap_or(&file);
            let content = content(&file)
                .with_context(|| format!("cannot read {}", file.display()))?
                .unwrap_or_default();
            for part in [path.as_os_str().as_encoded_bytes(), &content] {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
        Ok(Inputs(hash.finalize().into()))
    }

    /// Returns the directories that have such files.
    pub(crate) fn directories(&self) -> Result<Vec<PathBuf>> {
        self.walk(|kind| kind.is_dir())
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        self.walk(|kind| !kind.is_dir())
    }

    fn walk(&self, wanted: impl Fn(fs::FileType) -> bool) -> Result<Vec<PathBuf>> {
        let component = self.component();
        // Cargo writes it in the first build.
        let lock = (self.language == Language::Rust).then(|| self.folder.join("Cargo.lock"));
        // The first save creates it.
        let store = self.store.as_ref();
        let store = store.and_then(|store| fs::canonicalize(store).ok());
        let folder = self.folder.clone();
        let mut walk = WalkBuilder::new(&self.folder);
        // A project in a directory that the repository around it ignores is still built.
        walk.standard_filters(false)
            .git_ignore(true)
            .require_git(false);
        walk.filter_entry(move |entry| {
            let name = entry.file_name().to_string_lossy();
            entry.path() != component
                && Some(entry.path()) != lock.as_deref()
                && !name.starts_with(SCRATCH)
                && store
                    .as_deref()
                    .is_none_or(|store| !is_of_store(store, &folder, entry.path()))
                && (entry.depth() == 0 || !GENERATED.contains(&&*name))
        });
        let mut found = Vec::new();
        for entry in walk.build() {
            let entry = match entry {
                Ok(entry) => entry,
                // Removed meanwhile.
                Err(error) if is_not_found(error.io_error()) => continue,
                Err(error) => return Err(error).context("cannot list the files of the project"),
            };
            if entry.file_type().is_some_and(&wanted) {
                found.push(entry.into_path());
            }
        }
        Ok(found)
    }
}

/// Returns true for the directory of a store in a project, and for the objects of a store that has
/// the project in it.
fn is_of_store(store: &Path, project: &Path, path: &Path) -> bool {
    if !project.starts_with(store) {
        return path == store;
    }
    let Ok(path) = path.strip_prefix(store) else {
        return false;
    };
    let segments: Option<Vec<_>> = path.iter().map(|segment| segment.to_str()).collect();
    let segments = segments.unwrap_or_default();
    match *segments.as_slice() {
        [layout::OWN_DIR, ..] => true,
        [_, _, _, _] => Key::new(segments.join("/")).is_ok_and(|key| layout::is_reserved(&key)),
        _ => false,
    }
}

fn is_not_found(error: Option<&std::io::Error>) -> bool {
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Returns the content of a file, the target of a link, or the names of the packages in the
/// libraries of a virtual environment; none for what a build does not read.
fn content(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if is_not_found(Some(&error)) => return Ok(None),
        Err(error) => return Err(error),
    };
    if meta.is_symlink() {
        // A package manager links to packages.
        let target = fs::read_link(path)?;
        let mut bytes = target.as_os_str().as_encoded_bytes().to_vec();
        if fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
            bytes.extend(fs::read(path)?);
        }
        return Ok(Some(bytes));
    }
    if meta.is_dir() {
        let mut names = Vec::new();
        for python in path.read_dir()? {
            let Ok(packages) = python?.path().join("site-packages").read_dir() else {
                continue;
            };
            for package in packages {
                let name = package?.file_name();
                // Python adds it when it first imports a module.
                if name != "__pycache__" {
                    names.push(name.as_encoded_bytes().to_vec());
                }
            }
        }
        names.sort();
        return Ok(Some(names.join(&0)));
    }
    // A pipe would wait.
    if !meta.is_file() {
        return Ok(None);
    }
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if is_not_found(Some(&error)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Hash of what a component is built from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inputs([u8; 32]);

impl Inputs {
    /// Returns the custom section of a component that holds the hash.
    pub(crate) fn section(self) -> Vec<u8> {
        const NAME: &[u8; 14] = b"persist-inputs";
        // Id 0, the size, and the size of the name: both are below 128, so one byte of LEB128.
        let mut section = vec![0, 1 + 14 + 32, 14];
        section.extend(NAME);
        section.extend(self.0);
        section
    }

    /// Returns true if a component was built from the same inputs.
    pub(crate) fn built(self, component: &Path) -> bool {
        fs::read(component).is_ok_and(|bytes| bytes.ends_with(&self.section()))
    }
}

/// Returns the name of the package that cargo built this file for. Cargo writes `my_agent.wasm` for
/// a package `my-agent`, and an agent has one id however it is built.
pub(crate) fn cargo_package(component: &Path) -> Option<String> {
    let file = fs::canonicalize(component).ok()?;
    let stem = file.file_stem()?.to_str()?;
    let target = file
        .ancestors()
        .skip(1)
        .take(4)
        .find(|dir| dir.file_name().is_some_and(|name| name == "target"))?;
    let manifest = fs::read_to_string(target.parent()?.join("Cargo.toml")).ok()?;
    let manifest: toml::Table = manifest.parse().ok()?;
    let name = manifest.get("package")?.get("name")?.as_str()?;
    (name.replace('-', "_") == stem).then(|| name.to_owned())
}

/// The name of the agent in a folder: one that every toolchain takes.
pub(crate) fn name_of(folder: &Path) -> Result<&str> {
    let name = folder.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| {
        format!(
            "the path {} does not end in a name of UTF-8",
            folder.display()
        )
    })?;
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(is_plain) {
        let what = format!("{name:?} cannot be the name of an agent");
        let hint = "use a-z, 0-9, _ and -, and start with a letter";
        return Err(Hinted::other(what, hint).into());
    }
    // A Python module, a Go package and a crate of these names are the SDK's.
    if ["persist", "agent", "app", "persist-guest"].contains(&name) {
        let what = format!("the SDK uses the name {name}");
        return Err(Hinted::other(what, "choose another name").into());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, path: &str, text: &str) {
        let file = dir.join(path);
        fs::create_dir_all(file.parent().expect("a directory")).expect("created");
        fs::write(file, text).expect("written");
    }

    #[test]
    fn inputs_are_the_files_that_a_build_reads() {
        let dir = tempfile::tempdir().expect("created");
        let folder = dir.path().join("notes");
        write(&folder, "agent.c", "int a;");
        write(&folder, "persist/include/persist.h", "");
        write(&folder, ".gitignore", "*.wasm\nout/\n");
        // The repository around it ignores all agents.
        write(dir.path(), ".gitignore", "*\n");
        let project = Project::open(&folder, None).expect("a project");
        let before = project.inputs().expect("readable");
        let ignored = [
            "notes.wasm",
            "other.wasm",
            "out/x.c",
            "target/x.c",
            "node_modules/x/x.js",
            ".venv/bin/python",
            ".persist-build-0123/made.wasm",
            ".git/HEAD",
        ];
        for path in ignored {
            write(&folder, path, "new");
            assert!(project.inputs().expect("readable") == before, "{path}");
        }
        let mut last = before;
        let read = [
            ("agent.c", "int b;"),
            ("sub/more.c", ""),
            ("persist/include/persist.h", "//"),
            (".cargo/config.toml", ""),
            ("~/more.c", ""),
            ("node_modules/.package-lock.json", "{}"),
            (
                ".venv/lib/python3.11/site-packages/cattrs-1.dist-info/RECORD",
                "",
            ),
        ];
        for (path, text) in read {
            write(&folder, path, text);
            let now = project.inputs().expect("readable");
            assert!(now != last, "{path}");
            last = now;
        }
        fs::remove_file(folder.join("sub/more.c")).expect("removed");
        assert!(project.inputs().expect("readable") != last);
    }

    #[test]
    fn states_in_a_local_store_are_no_inputs() {
        let dir = tempfile::tempdir().expect("created");
        let folder = dir.path().join("notes");
        write(&folder, "agent.c", "int a;");
        write(&folder, "persist/include/persist.h", "");
        let version = "notes/9999999998-0000000001.gz";
        let pin = "notes/pin-1";
        for (store, states) in [
            (folder.join("state"), ["state/~/store.json", "state/a/b/c"]),
            // Agents and sessions are directories of the project, or the project is an agent.
            (folder.clone(), ["~/store.json", "bot/monday/"]),
            (dir.path().to_owned(), ["~/", "monday/"]),
        ] {
            let project = Project::open(&folder, Some(store)).expect("a project");
            let before = project.inputs().expect("readable");
            for state in states {
                let names = if state.ends_with('/') {
                    vec![version, pin]
                } else {
                    vec![""]
                };
                for name in names {
                    let path = format!("{state}{name}");
                    write(&folder, &path, "new");
                    assert!(project.inputs().expect("readable") == before, "{path}");
                }
            }
            write(&folder, "monday/more.c", "int b;");
            assert!(project.inputs().expect("readable") != before);
            for directory in ["state", "~", "bot", "monday"] {
                let _ = fs::remove_dir_all(folder.join(directory));
            }
        }
    }

    #[test]
    fn a_component_holds_the_hash_of_its_inputs() {
        let dir = tempfile::tempdir().expect("created");
        let file = dir.path().join("notes.wasm");
        let inputs = Inputs([7; 32]);
        assert!(!inputs.built(&file), "there is none");
        let component = [b"\0asm\x0d\0\x01\0".as_slice(), &inputs.section()].concat();
        fs::write(&file, component).expect("written");
        assert!(inputs.built(&file));
        assert!(!Inputs([8; 32]).built(&file));
    }

    #[test]
    fn the_id_of_what_cargo_built_is_the_name_of_the_package() {
        let dir = tempfile::tempdir().expect("created");
        let file = |path: &str| dir.path().join(path);
        write(dir.path(), "Cargo.toml", "[package]\nname = \"my-agent\"\n");
        for path in ["release", "wasm32-wasip1/debug"] {
            let path = format!("target/{path}/my_agent.wasm");
            write(dir.path(), &path, "");
            assert_eq!(cargo_package(&file(&path)).as_deref(), Some("my-agent"));
        }
        // Not of this package, and not of cargo.
        write(dir.path(), "target/release/other.wasm", "");
        write(dir.path(), "my_agent.wasm", "");
        assert_eq!(cargo_package(&file("target/release/other.wasm")), None);
        assert_eq!(cargo_package(&file("my_agent.wasm")), None);
    }
}
