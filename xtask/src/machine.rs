//! The machine that a chore runs on: where the workspace is, how a command is run, and how a
//! Debian package that is missing is installed.

use anyhow::{Context, Result, bail, ensure};
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The folders of this checkout.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Directory where cargo puts its build output; not always `root/target`.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// Asks cargo for the workspace around the current folder.
    pub(crate) fn find() -> Result<Self> {
        let metadata = metadata(
            Command::new(cargo_program())
                .arg("metadata")
                .arg("--no-deps"),
        )?;
        let folder = |key: &str| -> Result<PathBuf> {
            let folder = metadata[key].as_str();
            Ok(folder
                .with_context(|| format!("cargo metadata has no {key}"))?
                .into())
        };
        Ok(Self {
            root: folder("workspace_root")?,
            target: folder("target_directory")?,
        })
    }

    /// The cargo that runs this program, in the workspace's root.
    pub(crate) fn cargo<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut cargo = Command::new(cargo_program());
        // `cargo run` describes this package to us. A build script of another package that asks for
        // one of these variables would be run again for each chore.
        for (name, _) in env::vars_os() {
            let leaked = name.to_str().is_some_and(|name| {
                name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
            });
            if leaked {
                cargo.env_remove(name);
            }
        }
        // The demo and the tests look for what is built in `debug`, not in a folder for each
        // target.
        cargo.env_remove("CARGO_BUILD_TARGET");
        cargo.current_dir(&self.root).args(args);
        cargo
    }

    /// Returns cargo's metadata of the packages.
    #[cfg(any(feature = "bindings", feature = "ci"))]
    pub(crate) fn metadata(&self, args: &[&str]) -> Result<serde_json::Value> {
        metadata(self.cargo(["metadata"]).args(args))
    }

    /// A path as one would type it in the workspace's root.
    pub(crate) fn short<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}

fn metadata(cargo: &mut Command) -> Result<serde_json::Value> {
    Ok(serde_json::from_str(&output(
        cargo.args(["--format-version", "1"]),
    )?)?)
}

fn cargo_program() -> std::ffi::OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Returns the folder of a package on which the cargo workspace in `folder` depends, of the release
/// in its lock file.
pub(crate) fn package_folder(
    workspace: &Workspace,
    folder: &Path,
    package: &str,
) -> Result<PathBuf> {
    let mut cargo = workspace.cargo(["metadata", "--locked", "--format-version", "1"]);
    let metadata = output(cargo.current_dir(folder))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let found = packages.iter().find(|found| found["name"] == package);
    let manifest = found.and_then(|found| found["manifest_path"].as_str());
    let folder = manifest.and_then(|manifest| Path::new(manifest).parent());
    Ok(folder
        .with_context(|| format!("no package {package}"))?
        .to_owned())
}

/// Builds programs of the workspace as they are shipped. All chores that measure select the same
/// packages and features, so that what one of them compiled serves the next.
pub(crate) fn build_release(workspace: &Workspace, programs: &[&str]) -> Result<()> {
    let mut build = workspace.cargo(["build", "--locked", "--release"]);
    build.args(["--workspace", "--all-features"]);
    for program in programs {
        build.args(["--bin", program]);
    }
    run(&mut build)
}

/// Shows a command, runs it, and fails if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(command));
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(status.success(), "{} failed: {status}", shown(command));
    Ok(())
}

/// Runs a command and returns its output. Its errors go where ours go.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    command.stderr(std::process::Stdio::inherit());
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        shown(command),
        output.status
    );
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no text", shown(command)))
}

/// Runs a command quietly and returns true if it succeeds.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The command line, with the program's bare name.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let program = program.file_name().unwrap_or(program.as_os_str());
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// True once this process has fetched the lists of Debian's packages. Locked while packages are
/// installed: apt refuses to do two things at the same time.
static ARE_LISTS_NEW: Mutex<bool> = Mutex::new(false);

/// Installs Debian packages as root; anyone else is told what to type. `otherwise` is what helps on
/// a machine without apt.
pub(crate) fn install(packages: &[&str], otherwise: &str) -> Result<()> {
    let apt = format!(
        "apt-get install --no-install-recommends {}",
        packages.join(" ")
    );
    if !succeeds(Command::new("apt-get").arg("--version")) {
        bail!("this machine lacks something that cannot be installed from here; {otherwise}");
    }
    if output(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("something is missing. Type\n\n    sudo {apt}\n\nand run this again; or {otherwise}");
    }
    let mut are_lists_new = ARE_LISTS_NEW.lock().unwrap_or_else(PoisonError::into_inner);
    // A list from the day on which the machine was made knows neither the packages of a later day
    // nor that those it knows are gone. Without a network the list that is there may still do.
    if !*are_lists_new && let Err(error) = run(Command::new("apt-get").args(["--quiet", "update"]))
    {
        eprintln!("{error:#}; trying with the lists of packages that are there");
    }
    *are_lists_new = true;
    apt_get_install(packages).with_context(|| format!("{apt} failed; {otherwise}"))
}

fn apt_get_install(packages: &[&str]) -> Result<()> {
    let mut apt = Command::new("apt-get");
    // `--no-remove`: an installed package is never replaced without being asked.
    apt.args([
        "install",
        "--quiet",
        "--yes",
        "--no-install-recommends",
        "--no-remove",
    ]);
    run(apt.args(packages).env("DEBIAN_FRONTEND", "noninteractive"))
}

/// The file of an installed Debian package whose path ends in `end`.
pub(crate) fn debian_file(package: &str, end: &str) -> Option<PathBuf> {
    let listing = Command::new("dpkg").args(["-L", package]).output().ok()?;
    let listing = String::from_utf8(listing.stdout).ok()?;
    listing
        .lines()
        .map(PathBuf::from)
        .find(|path| path.ends_with(end) && path.is_file())
}
