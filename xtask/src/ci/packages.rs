//! Checks the packages as their users meet them: packed, installed outside this workspace, and used
//! there.

use crate::machine::{self, Workspace};
use crate::toolchain_versions::{COMPONENTIZE_PY, COMPONENTIZE_QJS};
use crate::{pypi, toolchains};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The crates that are published.
const CRATES: [&str; 3] = ["persist-guest", "persist-host", "persist-cli"];

/// Packs the crates, unpacks them outside the workspace, and checks them there, each with the
/// others in place of their published versions.
///
/// A packed crate goes wrong by a file or a feature that it lacks, which the compiler notices
/// before it makes code. The dependencies are those of the lock file and the target directory is
/// the workspace's, so little is compiled again.
pub(super) fn check_crates(workspace: &Workspace) -> Result<()> {
    let mut package = workspace.cargo(["package", "--locked", "--no-verify", "--allow-dirty"]);
    for name in CRATES {
        package.args(["-p", name]);
    }
    machine::run(&mut package)?;
    let outside = TempDir::new()?;
    let outside = outside.path();
    let mut manifest = "[workspace]\nresolver = \"3\"\nmembers = [".to_owned();
    let mut patches = "\n[patch.crates-io]\n".to_owned();
    for name in CRATES {
        let folder = format!("{name}-{}", env!("CARGO_PKG_VERSION"));
        let packed = workspace.target.join(format!("package/{folder}.crate"));
        machine::run(
            Command::new("tar")
                .arg("-xzf")
                .arg(packed)
                .arg("-C")
                .arg(outside),
        )?;
        check_files(&outside.join(&folder))?;
        // Only the workspace's lock file counts.
        fs::remove_file(outside.join(&folder).join("Cargo.lock")).ok();
        manifest += &format!("\"{folder}\", ");
        if name != "persist-cli" {
            patches += &format!("{name} = {{ path = \"{folder}\" }}\n");
        }
    }
    // So that their dependencies have the features that they had in the lints.
    copy_folder(&workspace.root.join("xtask/lints"), &outside.join("lints"))?;
    manifest += "\"lints\"]\n";
    manifest += &patches;
    manifest += &profiles(workspace)?;
    fs::write(outside.join("Cargo.toml"), manifest)?;
    fs::copy(
        workspace.root.join("Cargo.lock"),
        outside.join("Cargo.lock"),
    )?;
    let mut check = workspace.cargo(["check", "--workspace", "--all-features", "--all-targets"]);
    check
        .current_dir(outside)
        .env("CARGO_TARGET_DIR", &workspace.target);
    machine::run(&mut check)
}

/// Checks that all packages name one repository and one version.
pub(super) fn check_metadata(workspace: &Workspace) -> Result<()> {
    let read = |path: &str| fs::read_to_string(workspace.root.join(path)).context(path.to_owned());
    let manifest: toml::Table = read("Cargo.toml")?.parse()?;
    let package = &manifest["workspace"]["package"];
    let text = |key: &str| package.get(key).and_then(|value| value.as_str());
    let repository = text("repository").context("the workspace has no repository")?;
    let version = text("version").context("the workspace has no version")?;
    let path = repository
        .split_once("://")
        .map_or(repository, |(_, path)| path);
    for (file, expected) in [
        (
            "guest-sdk/go/go.mod",
            format!("module {path}/guest-sdk/go\n"),
        ),
        ("guest-sdk/js/package.json", format!("\"{repository}\"")),
        (
            "guest-sdk/js/package.json",
            format!("\"version\": \"{version}\""),
        ),
        (
            "guest-sdk/python/pyproject.toml",
            format!("\"{repository}\""),
        ),
        (
            "guest-sdk/python/pyproject.toml",
            format!("version = \"{version}\""),
        ),
        ("guest-sdk/c/CMakeLists.txt", format!("VERSION {version} ")),
    ] {
        ensure!(
            read(file)?.contains(&expected),
            "{file} lacks {expected:?}, as Cargo.toml has it"
        );
    }
    Ok(())
}

/// Fails if a packed crate lacks what every crate should have, or has what tools left behind.
fn check_files(folder: &Path) -> Result<()> {
    for file in ["LICENSE-APACHE", "LICENSE-MIT", "README.md"] {
        ensure!(
            folder.join(file).is_file(),
            "{} has no {file}",
            folder.display()
        );
    }
    let found = machine::output(
        Command::new("find")
            .arg(folder)
            .args(["-name", "__pycache__", "-o", "-name", "node_modules"])
            .args(["-o", "-type", "l"]),
    )?;
    ensure!(found.is_empty(), "a package must not contain\n{found}");
    Ok(())
}

/// Returns the tables of the workspace's manifest that say how dependencies are compiled.
fn profiles(workspace: &Workspace) -> Result<String> {
    let text = fs::read_to_string(workspace.root.join("Cargo.toml"))?;
    let manifest: toml::Table = text.parse()?;
    let dev = manifest["profile"]["dev"].clone();
    let profile = toml::Table::from_iter([("dev".to_owned(), dev)]);
    let profiles = toml::Table::from_iter([("profile".to_owned(), profile.into())]);
    Ok(format!("\n{profiles}"))
}

/// Installs the npm package into an empty project and builds an agent there.
pub(super) fn check_npm(workspace: &Workspace) -> Result<()> {
    let project = Project::new(workspace)?;
    // Also installs Node.js where there is none.
    toolchains::componentize_qjs(workspace)?;
    let mut pack = Command::new("npm");
    pack.args(["pack", "--silent", "--pack-destination"])
        .arg(project.path())
        .current_dir(workspace.root.join("guest-sdk/js"));
    let tarball = machine::output(&mut pack)?;
    project.write(
        "package.json",
        "{ \"name\": \"notes\", \"private\": true, \"type\": \"module\" }",
    )?;
    let mut install = project.command("npm");
    install.args(["install", "--ignore-scripts", "--no-audit", "--no-fund"]);
    machine::run(
        install
            .arg(tarball.trim())
            .arg(format!("componentize-qjs@{COMPONENTIZE_QJS}")),
    )?;
    project.write("agent.js", example(workspace, "js", "```js\n")?)?;
    let mut build = project.command("npx");
    build.args([
        "componentize-qjs",
        "--wit",
        "node_modules/persist-guest/wit",
    ]);
    build.args(["--world", "agent", "--sync", "--opt-size"]);
    machine::run(build.args(["--js", "agent.js", "--output", "agent.wasm"]))?;
    project.run_twice("agent.wasm")
}

/// Builds the wheel and the source distribution, installs each into an environment of its own, and
/// builds an agent there.
pub(super) fn check_python(workspace: &Workspace) -> Result<()> {
    let project = Project::new(workspace)?;
    let source = project.path().join("source");
    // Setuptools writes into the folder that it packs.
    copy_folder(&workspace.root.join("guest-sdk/python"), &source)?;
    let mut venv = project.command(pypi::python()?);
    machine::run(venv.args(["-m", "venv", "tools"]))?;
    let mut install = project.command("tools/bin/pip");
    machine::run(install.args(["install", "--quiet", "build==1.3.0"]))?;
    let mut build = project.command("tools/bin/python");
    machine::run(build.args(["-m", "build", "--outdir", "dist", "source"]))?;
    for extension in [".whl", ".tar.gz"] {
        let package = only_file(&project.path().join("dist"), extension)?;
        // componentize-py also looks for packages below the folder that it runs in.
        let project = Project::new(workspace)?;
        project.write("app.py", example(workspace, "python", "```python\n")?)?;
        let mut venv = project.command(pypi::python()?);
        machine::run(venv.args(["-m", "venv", ".venv"]))?;
        let mut install = project.command(".venv/bin/pip");
        install.args(["install", "--quiet"]);
        install.arg(format!("componentize-py=={COMPONENTIZE_PY}"));
        machine::run(install.arg(package))?;
        let mut build = project.command(".venv/bin/componentize-py");
        build.args(["--quiet", "--world", "agent", "componentize", "app"]);
        build.args(["--output", "agent.wasm"]);
        // As an activated environment has it.
        build.env("VIRTUAL_ENV", project.path().join(".venv"));
        machine::run(&mut build)?;
        project.run_twice("agent.wasm")?;
    }
    Ok(())
}

/// Copies the Go module alone, and builds an agent that requires it by its path.
pub(super) fn check_go(workspace: &Workspace) -> Result<()> {
    let project = Project::new(workspace)?;
    let module = project.path().join("module");
    copy_folder(&workspace.root.join("guest-sdk/go"), &module)?;
    let go = |folder: &Path| -> Result<Command> {
        let mut go = toolchains::go(workspace)?;
        go.current_dir(folder);
        Ok(go)
    };
    // The bindings turn addresses of linear memory into pointers.
    machine::run(go(&module)?.args(["vet", "-unsafeptr=false", "./..."]))?;
    let path = fs::read_to_string(module.join("go.mod"))?;
    let path = path.lines().next().and_then(|line| line.split_once(' '));
    let (_, path) = path.context("go.mod has no module path")?;
    let agent = project.path().join("agent");
    fs::create_dir(&agent)?;
    machine::run(go(&agent)?.args(["mod", "init", "notes"]))?;
    let require = format!("-require={path}@v0.0.0");
    let replace = format!("-replace={path}=../module");
    machine::run(go(&agent)?.args(["mod", "edit", &require, &replace]))?;
    fs::write(agent.join("main.go"), example(workspace, "go", "```go\n")?)?;
    let mut build = go(&agent)?;
    build.args(["build", "-buildmode=c-shared"]);
    build.args(["-ldflags", "-s -w -checklinkname=0"]);
    machine::run(build.args(["-o", "../agent.wasm", "."]))?;
    let component = project.path().join("agent.wasm");
    let mut bytes = fs::read(&component)?;
    bytes.extend(fs::read(module.join("agent.component-type.section"))?);
    fs::write(component, bytes)?;
    project.run_twice("agent.wasm")
}

/// Installs the C library with CMake, and builds an agent with CMake and one with pkg-config.
pub(super) fn check_c(workspace: &Workspace) -> Result<()> {
    const PACKAGES: [&str; 2] = ["cmake", "pkg-config"];
    toolchains::clang()?;
    let are_there = || {
        PACKAGES
            .iter()
            .all(|program| machine::succeeds(Command::new(program).arg("--version")))
    };
    if !are_there() {
        machine::install(&PACKAGES, "install CMake and pkg-config")?;
    }
    let project = Project::new(workspace)?;
    copy_folder(
        &workspace.root.join("guest-sdk/c"),
        &project.path().join("source"),
    )?;
    let prefix = project.path().join("prefix");
    let mut configure = project.command("cmake");
    configure.args(["-S", "source", "-B", "build"]);
    configure.arg(define(
        "CMAKE_TOOLCHAIN_FILE",
        &project.path().join("source/wasi.cmake"),
    ));
    machine::run(configure.arg(define("CMAKE_INSTALL_PREFIX", &prefix)))?;
    machine::run(project.command("cmake").args(["--build", "build"]))?;
    machine::run(project.command("cmake").args(["--install", "build"]))?;

    let toolchain = prefix.join("lib/cmake/persist/wasi.cmake");
    let build_agent = |folder: &str, file: &str, language: &str| {
        project.write(
            &format!("{folder}/CMakeLists.txt"),
            format!(
                "cmake_minimum_required(VERSION 3.16)\nproject(notes LANGUAGES {language})\n\
                 find_package(persist 0.1 REQUIRED)\npersist_agent(notes {file})\n"
            ),
        )?;
        let build = format!("{folder}/build");
        let mut configure = project.command("cmake");
        configure.args(["-S", folder, "-B", &build]);
        configure.arg(define("CMAKE_TOOLCHAIN_FILE", &toolchain));
        machine::run(configure.arg(define("CMAKE_PREFIX_PATH", &prefix)))?;
        machine::run(project.command("cmake").args(["--build", &build]))?;
        project.run_twice(&format!("{build}/notes.wasm"))
    };
    project.write("agent/agent.c", example(workspace, "c", "```c\n")?)?;
    build_agent("agent", "agent.c", "C")?;
    project.write("cpp/agent.cpp", CPP_AGENT)?;
    build_agent("cpp", "agent.cpp", "CXX")?;

    let mut flags = project.command("pkg-config");
    flags
        .args(["--cflags", "--libs", "persist"])
        .env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let flags = machine::output(&mut flags)?;
    let mut clang = project.command("clang-14");
    clang.args(["--target=wasm32-wasi", "-O2", "agent/agent.c"]);
    clang.args(flags.split_whitespace());
    machine::run(clang.args(["-o", "pkg-config.wasm"]))?;
    project.run_twice("pkg-config.wasm")
}

/// An agent that uses the library of C++.
const CPP_AGENT: &str = r#"#include <persist.h>
#include <string>

extern "C" int persist_agent(int argc, char **argv) {
    persist_snapshot saved;
    if (persist_load("notes", 0, &saved)) return 1;
    std::string notes(saved.found ? reinterpret_cast<const char *>(saved.state) : "", saved.size);
    for (int i = 0; i < argc; i++) notes += std::string(argv[i]) + "\n";
    if (persist_save("notes", notes.data(), notes.size(), nullptr, nullptr)) return 1;
    persist_answer_bytes(notes.data(), notes.size());
    return 0;
}
"#;

fn define(name: &str, value: &Path) -> String {
    format!("-D{name}={}", value.display())
}

/// An empty folder outside the workspace, and the command to run agents with.
struct Project {
    folder: TempDir,
    persist: PathBuf,
}

impl Project {
    fn new(workspace: &Workspace) -> Result<Self> {
        let persist = workspace.target.join("debug/persist");
        ensure!(
            persist.is_file(),
            "no {}: run `cargo xtask test` first",
            workspace.short(&persist).display()
        );
        let folder = TempDir::new()?;
        Ok(Self { folder, persist })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A program, or a path in the folder, to be run in the folder.
    fn command(&self, program: &str) -> Command {
        let inside = self.path().join(program);
        let mut command = if inside.is_file() {
            Command::new(inside)
        } else {
            Command::new(program)
        };
        command.current_dir(self.path());
        command
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<()> {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().context("it has a folder")?)?;
        Ok(fs::write(path, text)?)
    }

    /// Runs an agent that keeps notes, and checks that it remembers the first note.
    fn run_twice(&self, component: &str) -> Result<()> {
        let store = self.path().join(format!("{component}.store"));
        for (note, expected) in [("milk", "milk\n"), ("tea", "milk\ntea\n")] {
            let mut run = Command::new(&self.persist);
            run.current_dir(self.path())
                .env("PERSIST_LOCAL_PATH", &store);
            run.args(["run", "--create", "--agent", "notes", component, "--", note]);
            let answer = machine::output(&mut run)?;
            ensure!(
                answer.trim_end() == expected.trim_end(),
                "the agent answered {answer:?} and not {expected:?}"
            );
        }
        Ok(())
    }
}

/// Returns the whole agent that the README of an SDK shows: so the README is tested, too.
fn example(workspace: &Workspace, sdk: &str, fence: &str) -> Result<String> {
    let readme = workspace.root.join("guest-sdk").join(sdk).join("README.md");
    let text = fs::read_to_string(&readme)?;
    let example = text
        .split_once(fence)
        .and_then(|(_, rest)| rest.split_once("```"));
    let (example, _) = example.with_context(|| format!("{} has no example", readme.display()))?;
    Ok(example.to_owned())
}

/// Copies a folder, without what tools leave behind.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in from.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        if ["node_modules", "__pycache__", "build", "dist"]
            .iter()
            .any(|left| name == *left)
        {
            continue;
        }
        let source = entry.path();
        let target = to.join(&name);
        if source.is_dir() {
            copy_folder(&source, &target)?;
        } else {
            fs::copy(source, target)?;
        }
    }
    Ok(())
}

/// The file of a folder whose name ends so.
fn only_file(folder: &Path, end: &str) -> Result<PathBuf> {
    let files = folder.read_dir()?.flatten().map(|entry| entry.path());
    let mut files = files.filter(|file| file.to_string_lossy().ends_with(end));
    files
        .next()
        .with_context(|| format!("{} has no *{end}", folder.display()))
}
