//! Compiles the agents that the demo and the tests run to WebAssembly.
//!
//! There are two ways, and the first that is there is taken: the active toolchain has the target
//! (rustup fetches it where it may, `rust-toolchain.toml` asks for it), or Debian's compiler for
//! the web builds the standard library from its own sources.

use crate::machine::{self, Workspace};
use anyhow::{Context, Result, ensure};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";
/// Target with an environment, clocks and output.
const WASI_TARGET: &str = "wasm32-wasip1";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Rust version that the agents need, like the rest of the workspace.
const RUST_VERSION: &str = env!("CARGO_PKG_RUST_VERSION");

/// The compiled agents: core modules that carry their world in a custom section.
#[derive(Debug)]
pub(crate) struct Guests {
    pub(crate) chat_memory: PathBuf,
    pub(crate) checkpoint: PathBuf,
    pub(crate) test_guest: PathBuf,
    pub(crate) wasi_guest: PathBuf,
    pub(crate) model_chat: PathBuf,
    /// A plugin of examples/plugin-host.
    pub(crate) quotes: PathBuf,
}

/// Builds what is not up to date.
pub(crate) fn build(workspace: &Workspace) -> Result<Guests> {
    let packages = [
        "chat-memory",
        "checkpoint",
        "quotes",
        "test-guest",
        "wasi-guest",
    ];
    compile(workspace, &workspace.root, TARGET, &packages)?;
    compile(workspace, &workspace.root, WASI_TARGET, &["model-chat"])?;
    Ok(Guests {
        chat_memory: built(workspace, TARGET, "chat_memory.wasm")?,
        checkpoint: built(workspace, TARGET, "checkpoint.wasm")?,
        test_guest: built(workspace, TARGET, "test_guest.wasm")?,
        wasi_guest: built(workspace, TARGET, "wasi_guest.wasm")?,
        model_chat: built(workspace, WASI_TARGET, "model_chat.wasm")?,
        quotes: built(workspace, TARGET, "quotes.wasm")?,
    })
}

/// Builds the agents on the bindings of other hosts, if they are not up to date.
pub(crate) fn build_others(workspace: &Workspace) -> Result<[PathBuf; 2]> {
    let folder = workspace.root.join("tests/other-guests");
    compile(
        workspace,
        &folder.join("wasmcloud"),
        TARGET,
        &["wasmcloud-guest"],
    )?;
    // For the other target, spin-sdk depends on JavaScript.
    compile(
        workspace,
        &folder.join("spin"),
        WASI_TARGET,
        &["spin-guest"],
    )?;
    Ok([
        built(workspace, TARGET, "wasmcloud_guest.wasm")?,
        built(workspace, WASI_TARGET, "spin_guest.wasm")?,
    ])
}

/// Builds a plugin for a host of another project, if it is not up to date: the package of the cargo
/// workspace in `folder`.
pub(crate) fn build_plugin(workspace: &Workspace, folder: &Path, package: &str) -> Result<PathBuf> {
    compile(workspace, folder, TARGET, &[package])?;
    let file = format!("{}.wasm", package.replace('-', "_"));
    built(workspace, TARGET, &file)
}

/// Builds the demo's agent alone, if it is not up to date.
pub(crate) fn build_chat_memory(workspace: &Workspace) -> Result<PathBuf> {
    compile(workspace, &workspace.root, TARGET, &["chat-memory"])?;
    built(workspace, TARGET, "chat_memory.wasm")
}

/// Target directory of the agents. Debian's compiler and the active one would undo each other's
/// builds in a shared one.
fn target(workspace: &Workspace) -> PathBuf {
    workspace.target.join("guests")
}

/// Builds packages of the cargo workspace in `folder`.
fn compile(workspace: &Workspace, folder: &Path, triple: &str, packages: &[&str]) -> Result<()> {
    let mut cargo = if has_target(workspace, triple)? {
        workspace.cargo(["build"])
    } else {
        let debian = Debian::find(workspace)?;
        if triple == WASI_TARGET && machine::debian_file("wasi-libc", "libc.a").is_none() {
            let otherwise = format!("type `rustup target add {WASI_TARGET}`");
            machine::install(&["wasi-libc"], &otherwise)?;
        }
        debian.write_program(workspace)?;
        debian.cargo(workspace)
    };
    cargo.args(["--locked", "--profile", "guest", "--target", triple]);
    for package in packages {
        cargo.args(["-p", package]);
    }
    cargo
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target(workspace))
        // Flags for this machine's processor mean nothing to WebAssembly.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    machine::run(&mut cargo)
}

/// Returns the path of a compiled agent.
fn built(workspace: &Workspace, triple: &str, file: &str) -> Result<PathBuf> {
    let path = target(workspace).join(triple).join("guest").join(file);
    ensure!(
        path.is_file(),
        "cargo built no {}",
        workspace.short(&path).display()
    );
    Ok(path)
}

/// Returns true if the active toolchain has a standard library for the target. The toolchain names
/// the folder whether or not anything is in it.
fn has_target(workspace: &Workspace, triple: &str) -> Result<bool> {
    let libraries = target_libdir(workspace, &["--target", triple])?;
    let Ok(files) = libraries.read_dir() else {
        return Ok(false);
    };
    Ok(files.flatten().any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    }))
}

fn target_libdir(workspace: &Workspace, args: &[&str]) -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--print", "target-libdir"])
        .args(args)
        .current_dir(&workspace.root);
    Ok(machine::output(&mut rustc)?.trim().into())
}

/// Debian's cargo and compiler, which must be told to build the standard library too.
struct Debian {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
}

/// Arguments that tell Debian's cargo to build the standard library.
const BUILD_STD: [&str; 2] = ["-Z", "build-std=std,panic_abort"];

impl Debian {
    fn find(workspace: &Workspace) -> Result<Self> {
        let (rustc, cargo) = match debian_programs() {
            Some(programs) => programs,
            None => install_debian_programs()?,
        };
        let linker = linker(workspace)?;
        Ok(Self {
            cargo,
            rustc,
            linker,
        })
    }

    fn cargo(&self, workspace: &Workspace) -> Command {
        let mut command = Command::new(&self.cargo);
        forget_toolchain(&mut command);
        command
            .arg("build")
            .args(BUILD_STD)
            .current_dir(&workspace.root)
            .envs(self.environment());
        command
    }

    fn environment(&self) -> [(&'static str, &OsStr); 5] {
        [
            ("RUSTC", self.rustc.as_os_str()),
            // Building the standard library is an unstable option of a compiler that is stable.
            ("RUSTC_BOOTSTRAP", OsStr::new("1")),
            (
                "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
                self.linker.as_os_str(),
            ),
            ("CARGO_TARGET_WASM32_WASIP1_LINKER", self.linker.as_os_str()),
            // rustup's library for the target contains a C library. Here it is Debian's.
            (
                "CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS",
                OsStr::new(
                    "-C link-self-contained=no -L native=/usr/lib/wasm32-wasi \
                     -C target-feature=-crt-static",
                ),
            ),
        ]
    }

    /// A program called cargo that builds as this does, for the tests of `persist build`: what it
    /// does for a user, whose toolchain has the target, cannot be seen here otherwise.
    fn write_program(&self, workspace: &Workspace) -> Result<()> {
        let quoted = |text: &OsStr| format!("'{}'", text.to_string_lossy().replace('\'', r"'\''"));
        let environment = self
            .environment()
            .map(|(name, value)| format!("{name}={}", quoted(value)));
        let program = format!(
            "#!/bin/sh\nexec env {} {} \"$@\" {}\n",
            environment.join(" "),
            quoted(self.cargo.as_os_str()),
            BUILD_STD.join(" ")
        );
        let folder = workspace.target.join("toolchains/rust/bin");
        fs::create_dir_all(&folder)?;
        let path = folder.join("cargo");
        fs::write(&path, program)?;
        Ok(fs::set_permissions(
            &path,
            fs::Permissions::from_mode(0o755),
        )?)
    }
}

fn install_debian_programs() -> Result<(PathBuf, PathBuf)> {
    eprintln!("The Rust toolchain has no {TARGET} target; looking to Debian for one.");
    let otherwise = format!("type `rustup target add {TARGET}`");
    machine::install(&DEBIAN_PACKAGES, &otherwise)?;
    debian_programs().with_context(|| {
        format!(
            "Debian has no Rust {RUST_VERSION} for this machine with its library's source; \
            {otherwise}"
        )
    })
}

/// Debian's rustc and cargo, where they and the library's source are installed and new enough: a
/// stable release has those of its first day, and newer ones among its security updates. dpkg is
/// asked, as on PATH rustup's come first.
fn debian_programs() -> Option<(PathBuf, PathBuf)> {
    let [rustc, cargo, source] = DEBIAN_PACKAGES;
    machine::debian_file(source, "library/std/src/lib.rs")?;
    let rustc = machine::debian_file(rustc, "usr/bin/rustc")?;
    let cargo = machine::debian_file(cargo, "usr/bin/cargo")?;
    let is_new_enough = [&rustc, &cargo].into_iter().all(|program| {
        let said = machine::output(Command::new(program).arg("--version"));
        said.is_ok_and(|said| release(&said) >= release(RUST_VERSION))
    });
    is_new_enough.then_some((rustc, cargo))
}

/// The release in what a program says of itself, such as 1 and 96 in `rustc 1.96.0 (…)`.
fn release(said: &str) -> Option<(u32, u32)> {
    let mut words = said.split(' ');
    words.find_map(|word| {
        let (major, rest) = word.split_once('.')?;
        let minor = rest.split('.').next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

/// The linker for WebAssembly that every rustup toolchain has; Debian's packages bring none.
fn linker(workspace: &Workspace) -> Result<PathBuf> {
    let libraries = target_libdir(workspace, &[])?;
    let linker = libraries
        .parent()
        .unwrap_or(Path::new("/"))
        .join("bin/rust-lld");
    ensure!(
        linker.is_file(),
        "the active Rust toolchain has no rust-lld, which links WebAssembly; \
         install Rust with rustup (https://rustup.rs) and run this again"
    );
    Ok(linker)
}

/// Removes what `cargo run` and rustup put into the environment for their own toolchain, and what a
/// user put there for this machine. Settings of the network and of registries stay.
fn forget_toolchain(command: &mut Command) {
    const STAY: [&str; 5] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_TERM_",
    ];
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        let toolchain = name.starts_with("CARGO") || name.starts_with("RUST");
        if toolchain && !STAY.iter().any(|stay| name.starts_with(stay)) {
            command.env_remove(&*name);
        }
    }
    command.env_remove("LD_LIBRARY_PATH");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_is_too_old_is_told_from_one_that_is_not() {
        assert_eq!(
            release("rustc 1.85.0 (4d91de4e4 2025-02-17)"),
            Some((1, 85))
        );
        assert_eq!(release("cargo 1.96.0"), Some((1, 96)));
        assert_eq!(release("1.95"), Some((1, 95)));
        assert_eq!(release("rustc, the compiler"), None);
        assert!(release("rustc 1.100.1 (x)") > release("1.95"));
        assert!(release("no number") < release(RUST_VERSION));
    }
}
