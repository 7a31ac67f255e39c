//! Compiles the agents that are not in Rust to WebAssembly: one with a scenario per argument for
//! the tests of each SDK, and one that remembers a conversation, in C, Go, JavaScript and Python.
//! In Python, also one that talks to a model over HTTP. In JavaScript and Python, also one that
//! uses Spin's key-value interfaces, without the SDK.
//!
//! They are built again when something that they are made of has changed, and lie in
//! `target/guests/languages`, where the tests look for them. A toolchain that cannot be installed
//! fails in CI. Elsewhere its agents are skipped, and its install line is printed.
//! `PERSIST_SKIP_LANGUAGES=1` skips all that are not up to date, and installs nothing.

use crate::machine::{self, Workspace};
use crate::toolchain_versions;
use crate::toolchains;
use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Changes with how agents are built, so that they are built again.
const RECIPE: u32 = 4;

/// World of the agents that use Spin's interfaces.
const SPIN_WORLD: &str = "spin-words";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    C,
    Go,
    Js,
    Python,
}

/// An agent, and the folder of its sources.
struct Source {
    name: &'static str,
    folder: &'static str,
    world: World,
}

/// World that a component is built for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum World {
    /// The one of the SDK.
    Agent,
    /// One of the agent's own, of its name, in its folder `wit`. It includes the one of a host's
    /// own in this folder.
    Plugin(&'static str),
    /// One in this folder, over the interfaces in the crate spin-sdk, and none of Persist's.
    Spin(&'static str),
}

impl Language {
    const ALL: [Self; 4] = [Self::C, Self::Go, Self::Js, Self::Python];

    /// The folder of its SDK, and what its agents are found as.
    fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Go => "go",
            Self::Js => "js",
            Self::Python => "python",
        }
    }

    fn sources(self) -> Vec<Source> {
        let folders = match self {
            Self::C => ["tests/languages/c", "examples/chat-memory-c"],
            Self::Go => ["tests/languages/go", "examples/chat-memory-go"],
            Self::Js => ["tests/languages/js", "examples/chat-memory-js"],
            Self::Python => ["tests/languages/python", "examples/chat-memory-python"],
        };
        let agents = ["scenarios", "chat_memory"].into_iter().zip(folders);
        let agents = agents.map(|(name, folder)| Source {
            name,
            folder,
            world: World::Agent,
        });
        let plugin = (self == Self::Js).then_some(Source {
            name: "karma",
            folder: "examples/plugin-host/plugins/karma",
            world: World::Plugin("examples/plugin-host/wit"),
        });
        // Its world is found in its folder `wit`.
        let model_chat = (self == Self::Python).then_some(Source {
            name: "model_chat",
            folder: "examples/model-chat-python",
            world: World::Agent,
        });
        let folder = match self {
            Self::Js => Some("tests/other-guests/js"),
            Self::Python => Some("tests/other-guests/python"),
            Self::C | Self::Go => None,
        };
        let spin_words = folder.map(|folder| Source {
            name: "spin_words",
            folder,
            world: World::Spin("tests/other-guests/wit"),
        });
        let agents = agents.chain(plugin).chain(model_chat);
        agents.chain(spin_words).collect()
    }
}

/// Builds what is not up to date. The agents, those of missing toolchains left out.
pub(crate) fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut agents = Vec::new();
    for language in Language::ALL {
        let mut stale = Vec::new();
        for source in language.sources() {
            let out = out(workspace, language, source.name);
            let hash = fingerprint(workspace, language, &source)?;
            let is_made = out.is_file() && fs::read_to_string(stamp(&out)).is_ok_and(|h| h == hash);
            if !is_made {
                stale.push((source, out.clone(), hash));
            }
            agents.push(out);
        }
        if stale.is_empty() {
            continue;
        }
        if env::var_os("PERSIST_SKIP_LANGUAGES").is_some_and(|value| value == "1") {
            eprintln!("Agents in {language:?} are skipped: PERSIST_SKIP_LANGUAGES is 1");
            // One that is not up to date would test something else than what is there.
            for (_, out, _) in stale {
                let _ = fs::remove_file(out);
            }
            agents.retain(|agent| agent.is_file());
            continue;
        }
        let tool = match tool(workspace, language) {
            Ok(tool) => tool,
            Err(error) if env::var_os("CI").is_none() => {
                eprintln!("Agents in {language:?} are skipped: {error:#}");
                agents.retain(|agent| agent.is_file());
                continue;
            }
            Err(error) => return Err(error),
        };
        for (source, out, hash) in stale {
            build_one(workspace, language, tool(), &source, &out)
                .with_context(|| format!("{} was not built", source.folder))?;
            fs::write(stamp(&out), hash)?;
        }
    }
    Ok(agents)
}

fn out(workspace: &Workspace, language: Language, name: &str) -> PathBuf {
    let folder = workspace.target.join("guests/languages");
    folder.join(language.name()).join(format!("{name}.wasm"))
}

fn stamp(out: &Path) -> PathBuf {
    out.with_extension("hash")
}

/// A toolchain that is there, as often as it is needed.
fn tool(workspace: &Workspace, language: Language) -> Result<impl Fn() -> Command> {
    let find: fn(&Workspace) -> Result<Command> = match language {
        Language::C => |_| toolchains::clang(),
        Language::Go => toolchains::go,
        Language::Js => toolchains::componentize_qjs,
        Language::Python => toolchains::componentize_py,
    };
    let made = find(workspace)?;
    Ok(move || copy(&made))
}

/// A command with the program, arguments and environment of another.
fn copy(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => copy.env(name, value),
            None => copy.env_remove(name),
        };
    }
    copy
}

fn build_one(
    workspace: &Workspace,
    language: Language,
    tool: Command,
    source: &Source,
    out: &Path,
) -> Result<()> {
    let folder = workspace.root.join(source.folder);
    // Beside its place and renamed, so that what is there is whole.
    let partial = out.with_extension("partial");
    fs::create_dir_all(out.parent().context("it has a folder")?)?;
    match language {
        Language::C => build_c(workspace, tool, &folder, &partial)?,
        Language::Go => build_go(workspace, tool, &folder, &partial)?,
        Language::Js => build_js(workspace, tool, source, &partial)?,
        Language::Python => build_python(workspace, tool, source, &partial)?,
    }
    ensure!(partial.is_file(), "the toolchain made nothing");
    Ok(fs::rename(&partial, out)?)
}

fn build_c(workspace: &Workspace, mut clang: Command, folder: &Path, out: &Path) -> Result<()> {
    let sdk = workspace.root.join("guest-sdk/c");
    clang
        .args(["--target=wasm32-wasi", "-O2", "-mexec-model=reactor"])
        .args(["-Wall", "-Wextra", "-Werror"])
        .arg("-I")
        .arg(sdk.join("include"));
    for folder in [&sdk.join("src"), &sdk.join("bindings"), folder] {
        let files = files_in(folder)?;
        clang.args(files.iter().filter(|file| has_extension(file, "c")));
    }
    clang.arg(sdk.join("bindings/agent_component_type.o"));
    clang.args(toolchain_versions::C_LINK_OPTIONS);
    clang.arg(toolchain_versions::C_STACK_FIRST);
    machine::run(clang.arg("-o").arg(out))
}

/// A module of Go's carries no world; one custom section more, and it does.
fn build_go(workspace: &Workspace, mut go: Command, folder: &Path, out: &Path) -> Result<()> {
    go.args(["build", "-trimpath", "-buildmode=c-shared"])
        .args(["-ldflags", "-s -w -checklinkname=0", "-o"])
        .arg(out)
        .arg(".");
    machine::run(go.current_dir(folder))?;
    let world = workspace
        .root
        .join("guest-sdk/go/agent.component-type.section");
    let mut module = fs::read(out)?;
    module.extend(fs::read(world)?);
    Ok(fs::write(out, module)?)
}

/// In a folder of its own with a copy of the SDK, as npm installs it: the toolchain reads nothing
/// outside.
fn build_js(workspace: &Workspace, mut qjs: Command, source: &Source, out: &Path) -> Result<()> {
    let stage = out.with_extension("stage");
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    copy_files(&workspace.root.join(source.folder), &stage)?;
    copy_files(
        &workspace.root.join("guest-sdk/js"),
        &stage.join("node_modules/persist-guest"),
    )?;
    let sdk = stage.join("node_modules/persist-guest/wit");
    let (world, wit) = match source.world {
        World::Agent => ("agent", sdk),
        World::Plugin(host) => {
            let wit = stage.join("wit");
            let dependencies = wit.join("deps");
            copy_files(&sdk.join("deps"), &dependencies)?;
            fs::create_dir_all(dependencies.join("sdk"))?;
            fs::copy(sdk.join("agent.wit"), dependencies.join("sdk/agent.wit"))?;
            copy_files(&workspace.root.join(host), &dependencies.join("host"))?;
            (source.name, wit)
        }
        World::Spin(folder) => {
            let wit = stage.join("wit");
            copy_spin_wit(workspace, folder, &wit)?;
            (SPIN_WORLD, wit)
        }
    };
    qjs.args(["--world", world, "--sync", "--opt-size", "--wit"])
        .arg(wit)
        .arg("--js")
        .arg(stage.join(format!("{}.js", source.name)))
        .arg("--output")
        .arg(out);
    machine::run(qjs.current_dir(&stage))?;
    Ok(fs::remove_dir_all(&stage)?)
}

fn build_python(
    workspace: &Workspace,
    mut componentize: Command,
    source: &Source,
    out: &Path,
) -> Result<()> {
    let folder = workspace.root.join(source.folder);
    let stage = out.with_extension("stage");
    componentize.arg("--quiet");
    if let World::Spin(world) = source.world {
        if stage.exists() {
            fs::remove_dir_all(&stage)?;
        }
        copy_spin_wit(workspace, world, &stage)?;
        componentize.arg("--wit-path").arg(&stage);
        componentize.args(["--world", SPIN_WORLD]);
    } else if folder.join("wit").is_dir() {
        // An agent with imports of its own has a world of its own.
        componentize.args(["--wit-path", "wit"]);
        componentize.args(["--world", "example:model-chat/model-chat"]);
    } else {
        componentize.args(["--world", "agent"]);
    }
    componentize.args(["componentize", "--python-path", "."]);
    if source.world == World::Agent {
        let sdk = workspace.root.join("guest-sdk/python/src");
        componentize.arg("--python-path").arg(sdk);
    }
    componentize.arg(source.name).arg("--output").arg(out);
    machine::run(componentize.current_dir(folder))?;
    if stage.exists() {
        fs::remove_dir_all(&stage)?;
    }
    Ok(())
}

/// Copies the WIT of a world over Spin's interfaces, and the interfaces, which are in the crate
/// spin-sdk of the agent in Rust.
fn copy_spin_wit(workspace: &Workspace, world: &str, to: &Path) -> Result<()> {
    let agent = workspace.root.join("tests/other-guests/spin");
    let spin_sdk = machine::package_folder(workspace, &agent, "spin-sdk")?;
    copy_files(&spin_sdk.join("wit/deps"), &to.join("deps"))?;
    copy_files(&workspace.root.join(world), to)
}

/// A hash of all that an agent is made of. It says whether to build again, and nothing hangs on its
/// strength.
fn fingerprint(workspace: &Workspace, language: Language, source: &Source) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    RECIPE.hash(&mut hasher);
    toolchain_versions::C_LINK_OPTIONS.hash(&mut hasher);
    toolchain_versions::C_STACK_FIRST.hash(&mut hasher);
    toolchains::GO.requirements().hash(&mut hasher);
    toolchains::COMPONENTIZE_PY.requirements().hash(&mut hasher);
    let sdk = format!("guest-sdk/{}", language.name());
    let world = match source.world {
        World::Agent => "wit",
        World::Plugin(folder) => folder,
        World::Spin(folder) => {
            let lock = workspace.root.join("tests/other-guests/spin/Cargo.lock");
            fs::read(lock)?.hash(&mut hasher);
            folder
        }
    };
    for folder in [source.folder, &sdk, "wit", world] {
        let folder = workspace.root.join(folder);
        for file in files_below(&folder)? {
            file.strip_prefix(&folder)?.hash(&mut hasher);
            fs::read(&file)?.hash(&mut hasher);
        }
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for file in files_below(from)? {
        let copy = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(copy.parent().context("it has a folder")?)?;
        fs::copy(&file, &copy)?;
    }
    Ok(())
}

/// The files of a folder and its folders, in order, without what tools leave behind.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    const LEFT_BEHIND: [&str; 4] = ["node_modules", "__pycache__", "build", "dist"];
    let mut files = Vec::new();
    for entry in files_in(folder)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        if !entry.is_dir() {
            files.push(entry);
        } else if !LEFT_BEHIND.contains(&&*name) && !name.ends_with(".egg-info") {
            files.extend(files_below(&entry)?);
        }
    }
    Ok(files)
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = folder
        .read_dir()
        .with_context(|| format!("cannot read {}", folder.display()))?;
    let files = entries.map(|entry| Ok(entry?.path()));
    let mut files = files.collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn has_extension(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|found| found == extension)
}
