//! `persist new` and `persist build` in every language.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use persist_tests::{
    guest, guest_in, install_script, persist, run_fails, run_ok, tempdir, text, toolchains,
};

/// The `persist` command with the toolchains of the languages on its PATH.
fn persist_with_tools(store: &Path) -> Command {
    let tools = toolchains();
    // The first is there only where the toolchain lacks the target.
    let own = [
        "rust/bin",
        "go/go/bin",
        "js/node_modules/.bin",
        "python/bin",
    ];
    let own = own.map(|bin| tools.join(bin));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = own.into_iter().chain(std::env::split_paths(&path));
    let mut command = persist(store);
    command
        .env("PATH", std::env::join_paths(path).expect("no colons"))
        .env("PYTHONPATH", tools.join("python"))
        .env("GOCACHE", tools.join("go-cache"));
    // Where cargo finds itself and what it fetched.
    for name in ["HOME", "CARGO_HOME", "RUSTUP_HOME"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command
}

/// The two that take half a minute are tests of their own, so that they run beside each other.
#[test]
fn a_fresh_agent_builds_and_keeps_notes() {
    builds_and_keeps_notes(&["c", "cpp", "go", "js", "ts"]);
}

#[test]
fn a_fresh_agent_in_python_builds_and_keeps_notes() {
    builds_and_keeps_notes(&["python"]);
}

#[test]
fn a_fresh_agent_in_rust_builds_and_keeps_notes() {
    builds_and_keeps_notes(&["rust"]);
}

fn builds_and_keeps_notes(languages: &[&str]) {
    let dir = tempdir();
    for language in languages {
        // Where its toolchain is missing, so are its agents.
        let toolchain = match *language {
            "cpp" => "c",
            "ts" => "js",
            language => language,
        };
        if toolchain != "rust" && guest_in(toolchain, "scenarios").is_none() {
            continue;
        }
        let folder = dir.path().join(format!("notes-{language}"));
        let folder = folder.to_str().expect("text");
        run_ok(dir.path(), &["new", "--lang", language, folder]);
        if *language == "rust" {
            let source = format!("{folder}/src/lib.rs");
            let lib = std::fs::read_to_string(&source).expect("readable");
            let probe = lib.replace("{\n    json::", &format!("{{\n{PROBE}\n    json::"));
            assert!(probe.len() > lib.len(), "{lib}");
            std::fs::write(&source, probe).expect("written");
            let manifest = format!("{folder}/Cargo.toml");
            let cargo = std::fs::read_to_string(&manifest).expect("readable");
            let with_crates = cargo.replace("[dependencies]\n", PROBE_CRATES);
            assert!(with_crates.len() > cargo.len(), "{cargo}");
            std::fs::write(&manifest, with_crates).expect("written");
        }
        let mut build = persist_with_tools(dir.path());
        let built = build.args(["build", folder]).output();
        let built = built.expect("persist starts");
        let said = text(&built.stderr);
        assert!(built.status.success(), "{language}: {said}");
        let component = format!("{folder}/notes-{language}.wasm");
        let bytes = std::fs::read(&component).expect("it was built");
        assert_eq!(&bytes[..8], b"\0asm\x0d\0\x01\0", "{language}: a component");
        let run = |note: &str| run_ok(dir.path(), &["run", &component, "--", note]);
        assert_eq!(run("buy milk"), "buy milk\n", "{language}");
        assert_eq!(run("ü"), "buy milk\nü\n", "{language}");
        if *language == "rust" {
            has_a_clock_random_numbers_and_panic_messages(dir.path(), &component);
        }
    }
}

/// Code of an agent in Rust that prints, uses the clock and random numbers, and panics.
const PROBE: &str = r#"
    if args == ["probe"] {
        use std::hash::{BuildHasher, RandomState};
        use std::time::{Instant, SystemTime};
        let time = SystemTime::now();
        let now = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        println!("printed {:?}", Instant::now().elapsed() < now);
        println!("chrono {}", chrono::DateTime::<chrono::Utc>::from(time) <= chrono::Utc::now());
        println!("local {}", chrono::Local::now().offset());
        let hash = RandomState::new().hash_one(1);
        let (id, number) = (uuid::Uuid::new_v4(), rand::random::<u64>());
        return Ok(format!("{hash} {id} {number}"));
    }
    if args == ["panic"] {
        panic!("as asked");
    }"#;

/// Dependencies of that code: crates that need the clock or random numbers of the host.
const PROBE_CRATES: &str = r#"[dependencies]
chrono = "=0.4.45"
rand = "=0.10.4"
uuid = { version = "=1.29.3", features = ["v4"] }
"#;

fn has_a_clock_random_numbers_and_panic_messages(store: &Path, component: &str) {
    let probe = || run_ok(store, &["run", component, "--", "probe"]);
    let (first, second) = (probe(), probe());
    for printed in ["printed true\n", "chrono true\n", "local +00:00\n"] {
        assert!(first.contains(printed), "{first}");
    }
    let random = |output: &str| {
        let answer = output.lines().last().unwrap_or_default().to_owned();
        answer.split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let (first, second) = (random(&first), random(&second));
    assert_eq!((first.len(), second.len()), (3, 3), "{first:?} {second:?}");
    for (first, second) in first.iter().zip(&second) {
        assert_ne!(first, second, "random numbers differ");
    }
    let panicked = run_fails(store, &["run", component, "--", "panic"], 9);
    assert!(
        panicked.contains("src/lib.rs:") && panicked.contains("as asked"),
        "{panicked}"
    );
}

#[test]
fn a_fresh_agent_keeps_out_of_git_what_its_tools_leave_behind() {
    let dir = tempdir();
    let folder = dir.path().join("notes");
    let folder = folder.to_str().expect("text");
    run_ok(dir.path(), &["new", "--lang", "python", folder]);
    let ignored = std::fs::read_to_string(format!("{folder}/.gitignore")).expect("readable");
    let left = [
        "*.wasm",
        "target/",
        "node_modules/",
        ".venv/",
        "__pycache__/",
    ];
    assert_eq!(ignored.lines().collect::<Vec<_>>(), left);
}

#[test]
fn the_packages_of_the_sdks_carry_the_licences_of_the_project() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for name in ["LICENSE-APACHE", "LICENSE-MIT"] {
        let text = std::fs::read_to_string(root.join(name)).expect("a licence");
        for package in ["js", "python"] {
            let copy = root.join("guest-sdk").join(package).join(name);
            let copy = std::fs::read_to_string(copy).expect("a copy");
            assert!(copy == text, "{package}: {name}");
        }
    }
}

/// Runs `persist build` on a new agent with these programs, scripts of a shell, in place of its
/// tools. Programs are paths below the agent's folder. Returns the error output.
#[cfg(unix)]
fn build_with(language: &str, programs: &[(&str, &str)]) -> String {
    let dir = tempdir();
    let folder = dir.path().join("notes");
    let folder_text = folder.to_str().expect("text");
    run_ok(dir.path(), &["new", "--lang", language, folder_text]);
    for (path, script) in programs {
        install_script(&folder.join(path), &format!("#!/bin/sh\n{script}\n"));
    }
    let mut build = persist(dir.path());
    let path = format!("{folder_text}/tools:/usr/bin:/bin");
    build.env("PATH", path).args(["build", folder_text]);
    let output = build.output().expect("starts");
    assert!(!output.status.success(), "no tool builds anything here");
    text(&output.stderr).to_owned()
}

#[cfg(unix)]
#[test]
fn a_rust_target_that_is_missing_is_named_and_no_other_error_is_taken_for_it() {
    let cargo = (
        "tools/cargo",
        "echo 'error: expected expression' >&2; exit 101",
    );
    let rustc = |lib: &'static str| ("tools/rustc", lib);
    let hint = "hint: run `rustup target add wasm32-wasip1`";
    let missing = build_with("rust", &[cargo, rustc("mkdir -p lib; echo $PWD/lib")]);
    assert!(missing.contains(hint), "{missing}");
    let there = "mkdir -p lib; : > lib/libstd-1.rlib; echo $PWD/lib";
    let told = build_with("rust", &[cargo, rustc(there)]);
    assert!(
        told.contains("expected expression") && !told.contains("hint:"),
        "{told}"
    );
}

#[cfg(unix)]
#[test]
fn a_version_of_go_that_is_too_old_is_named() {
    let old = "test \"$1\" = version && echo 'go version go1.19.8 linux/amd64'; exit 1";
    let told = build_with("go", &[("tools/go", old)]);
    assert!(
        told.contains("is Go 1.19; agents need 1.25 or later\nhint: install Go"),
        "{told}"
    );
    let new = "test \"$1\" = version && echo 'go version go1.25.0 linux/amd64'; exit 3";
    let told = build_with("go", &[("tools/go", new)]);
    assert!(told.contains("exit status: 3"), "{told}");
}

#[cfg(unix)]
#[test]
fn zig_compiles_where_there_is_no_clang_and_clang_puts_the_stack_first() {
    let tell = "echo \"told $*\" >&2; exit 1";
    let dir = tempdir();
    for (language, command, clang) in [("c", "cc", "clang"), ("cpp", "c++", "clang++")] {
        let folder = dir.path().join(format!("in-{language}"));
        let folder_text = folder.to_str().expect("text");
        run_ok(dir.path(), &["new", "--lang", language, folder_text]);
        let build = || {
            let mut build = persist(dir.path());
            build.env("PATH", folder.join("tools"));
            let output = build.args(["build", folder_text]).output();
            text(&output.expect("starts").stderr).to_owned()
        };
        install_script(
            &folder.join("tools/python-zig"),
            &format!("#!/bin/sh\n{tell}\n"),
        );
        let told = build();
        assert!(
            told.contains(&format!("told {command} --target=wasm32-wasi")),
            "{told}"
        );
        assert!(!told.contains("--stack-first"), "{told}");
        install_script(
            &folder.join("tools").join(clang),
            &format!("#!/bin/sh\n{tell}\n"),
        );
        let told = build();
        assert!(told.contains("told --target=wasm32-wasi"), "{told}");
        if language == "c" {
            let options = ["-Wl,--stack-first", "-Wl,-z,stack-size=1048576"];
            assert!(options.iter().all(|option| told.contains(option)), "{told}");
        }
    }
}

#[cfg(unix)]
#[test]
fn the_environment_of_the_folder_is_that_of_componentize_py() {
    let tell = "echo \"environment $VIRTUAL_ENV\" >&2; exit 1";
    let own = build_with("python", &[(".venv/bin/componentize-py", tell)]);
    assert!(own.contains("/notes/.venv\n"), "{own}");
    let other = build_with("python", &[("tools/componentize-py", tell)]);
    assert!(other.contains("environment \n"), "{other}");
}

#[cfg(unix)]
#[test]
fn a_folder_that_persist_new_did_not_create_is_told_so() {
    for (language, marker) in [("c", "agent.c"), ("js", "agent.js"), ("go", "go.mod")] {
        let dir = tempdir();
        std::fs::write(dir.path().join(marker), "").expect("written");
        let folder = dir.path().to_str().expect("text");
        let told = run_fails(dir.path(), &["build", folder], 1);
        assert!(
            told.contains("has no directory persist"),
            "{language}: {told}"
        );
        assert!(
            told.contains("hint: build it as the README"),
            "{language}: {told}"
        );
    }
}

#[cfg(unix)]
#[test]
fn an_agent_is_created_in_an_empty_directory_that_is_the_current_one() {
    let dir = tempdir();
    let folder = dir.path().join("weather");
    std::fs::create_dir(&folder).expect("made");
    let mut new = persist(dir.path());
    new.args(["new", "--lang", "python", "."])
        .current_dir(&folder);
    let output = new.output().expect("starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let project = std::fs::read_to_string(folder.join("pyproject.toml")).expect("readable");
    assert!(project.contains("name = \"weather\""), "{project}");
    let mut again = persist(dir.path());
    again.args(["new", "--lang", "c", "."]).current_dir(&folder);
    assert!(
        !again.output().expect("starts").status.success(),
        "it is not empty"
    );
    let told = run_fails(dir.path(), &["new", "--lang", "rust", "persist-guest"], 1);
    assert!(
        told.contains("the SDK uses the name persist-guest"),
        "{told}"
    );
}

#[test]
fn programs_of_the_folder_are_run_only_for_js_and_python() {
    let dir = tempdir();
    let planted = dir.path().join("planted");
    let script = format!("#!/bin/sh\n: > {}\nexit 7\n", planted.display());
    for (language, tool, is_own) in [
        ("c", "clang-14", None),
        ("go", "go", None),
        ("rust", "cargo", None),
        ("js", "componentize-qjs", Some("node_modules/.bin")),
        ("ts", "esbuild", Some("node_modules/.bin")),
        ("python", "componentize-py", Some(".venv/bin")),
    ] {
        let folder = dir.path().join(format!("in-{language}"));
        let text_of = |path: &Path| path.to_str().expect("text").to_owned();
        run_ok(dir.path(), &["new", "--lang", language, &text_of(&folder)]);
        for own in ["node_modules/.bin", ".venv/bin"] {
            install_script(&folder.join(own).join(tool), &script);
            let said = run_fails(dir.path(), &["build", &text_of(&folder)], 1);
            assert_eq!(
                planted.exists(),
                is_own == Some(own),
                "{language}: {own}: {said}"
            );
            let _ = std::fs::remove_file(&planted);
            std::fs::remove_file(folder.join(own).join(tool)).expect("removed");
        }
    }
}

#[test]
fn a_build_writes_through_no_link_of_the_folder_and_leaves_nothing() {
    let dir = tempdir();
    let folder = dir.path().join("notes");
    let text_of = |path: &Path| path.to_str().expect("text").to_owned();
    run_ok(dir.path(), &["new", "--lang", "js", &text_of(&folder)]);
    // A toolchain that copies a component that is known.
    let component = guest("chat_memory");
    let script = format!(
        "#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done\ncp {} \"$1\"\n",
        component.display()
    );
    install_script(&folder.join("node_modules/.bin/componentize-qjs"), &script);
    let mine = dir.path().join("mine");
    for planted in ["notes.partial", "notes.wasm"] {
        std::fs::write(&mine, "mine").expect("written");
        std::os::unix::fs::symlink(&mine, folder.join(planted)).expect("linked");
        let mut build = persist(dir.path());
        build.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let built = build
            .args(["build", &text_of(&folder)])
            .output()
            .expect("starts");
        assert!(built.status.success(), "{}", text(&built.stderr));
        assert_eq!(
            std::fs::read(&mine).expect("readable"),
            b"mine",
            "{planted}"
        );
        let made = std::fs::symlink_metadata(folder.join("notes.wasm")).expect("is there");
        assert!(made.is_file(), "{planted}");
        let _ = std::fs::remove_file(folder.join("notes.partial"));
        std::fs::remove_file(folder.join("notes.wasm")).expect("removed");
    }
    let left = std::fs::read_dir(&folder).expect("readable").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    let is_scratch = |name: &std::ffi::OsString| name.to_string_lossy().contains("persist-build");
    assert!(!left.iter().any(is_scratch), "{left:?}");
}

#[test]
fn a_tool_that_is_missing_is_named_with_the_way_to_get_it() {
    let dir = tempdir();
    for (language, missing) in [
        (
            "c",
            "error: clang-14 is not installed\nhint: run `apt-get install ",
        ),
        ("go", "error: go is not installed\nhint: install Go "),
        (
            "js",
            "error: componentize-qjs is not installed\nhint: run `npm install --ignore-scripts` in",
        ),
        (
            "ts",
            "error: esbuild is not installed\nhint: run `npm install --ignore-scripts`",
        ),
        (
            "python",
            "error: componentize-py is not installed\nhint: run `pip install ",
        ),
        ("rust", "error: cargo is not installed\nhint: install Rust "),
    ] {
        let folder = dir.path().join(format!("in-{language}"));
        let folder = folder.to_str().expect("text");
        run_ok(dir.path(), &["new", "--lang", language, folder]);
        let told = run_fails(dir.path(), &["build", folder], 1);
        assert!(told.contains(missing), "{told}");
    }
    let told = run_fails(
        dir.path(),
        &["build", dir.path().to_str().expect("text")],
        1,
    );
    assert!(told.contains("is not the directory of an agent"), "{told}");
    let told = run_fails(dir.path(), &["new", "--lang", "c", "Bad Name"], 1);
    assert!(told.contains("cannot be the name of an agent"), "{told}");
}

/// Makes the agent `notes`. Returns its directory, and that of a store beside it: in it, the states
/// would be files of the agent.
fn new_agent_in_c(dir: &Path) -> (PathBuf, PathBuf) {
    let (folder, store) = (dir.join("notes"), dir.join("store"));
    run_ok(
        &store,
        &["new", "--lang", "c", folder.to_str().expect("text")],
    );
    (folder, store)
}

#[cfg(unix)]
#[test]
fn a_directory_is_built_if_it_changed_and_run() {
    if guest_in("c", "scenarios").is_none() {
        return;
    }
    let dir = tempdir();
    let (folder, store) = new_agent_in_c(dir.path());
    let run = |tools: bool| {
        let mut command = if tools {
            persist_with_tools(&store)
        } else {
            persist(&store)
        };
        command.arg("run").arg(&folder).args(["--", "note"]);
        command.output().expect("persist starts")
    };
    let first = run(true);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert_eq!(text(&first.stdout), "note\n");
    // Without a compiler, nothing can be built.
    let second = run(false);
    assert_eq!(
        text(&second.stdout),
        "note\nnote\n",
        "{}",
        text(&second.stderr)
    );
    assert_eq!(run_ok(&store, &["cat", "notes/notes"]), "note\nnote\n");
    let source = folder.join("agent.c");
    let code = std::fs::read_to_string(&source).expect("readable");
    std::fs::write(&source, format!("{code}\n#error broken\n")).expect("written");
    let broken = run(true);
    assert_eq!(broken.status.code(), Some(1));
    assert_eq!(text(&broken.stdout), "", "no run of the old component");
    assert!(
        text(&broken.stderr).contains("broken"),
        "{}",
        text(&broken.stderr)
    );
    // As it was when the component was built.
    std::fs::write(&source, code).expect("written");
    let third = run(false);
    assert!(third.status.success(), "{}", text(&third.stderr));
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[test]
fn dev_builds_and_runs_again_after_a_change() {
    if guest_in("c", "scenarios").is_none() {
        return;
    }
    let dir = tempdir();
    let (folder, store) = new_agent_in_c(dir.path());
    let source = folder.join("agent.c");
    let code = std::fs::read_to_string(&source).expect("readable");
    let dev = persist_with_tools(&store)
        .arg("dev")
        .arg(&folder)
        .args(["--", "note"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("persist starts");
    let mut dev = Killed(dev);
    let stdout = dev.0.stdout.take().expect("a pipe");
    let stderr = dev.0.stderr.take().expect("a pipe");
    let mut answers = BufReader::new(stdout).lines();
    let mut said = BufReader::new(stderr).lines();
    let mut notes = |count: usize| {
        let lines: Vec<_> = answers.by_ref().take(count).collect();
        let lines: Result<Vec<_>, _> = lines.into_iter().collect();
        assert_eq!(lines.expect("readable"), vec!["note"; count]);
    };
    let mut waits = || {
        let mut lines = Vec::new();
        for line in said.by_ref() {
            let line = line.expect("readable");
            if line.starts_with("waiting for a change") {
                return lines.join("\n");
            }
            lines.push(line);
        }
        panic!("it ended: {lines:?}");
    };
    // In one step, as a half of a file would be a change of its own.
    std::fs::create_dir(folder.join("target")).expect("created");
    let replace = |path: &str, text: &str| {
        let new = folder.join("target/new");
        std::fs::write(&new, text).expect("written");
        std::fs::rename(&new, folder.join(path)).expect("renamed");
    };
    notes(1);
    waits();
    replace("agent.c", &format!("{code}\n#error broken\n"));
    let errors = waits();
    assert!(
        errors.contains("broken") && errors.contains("error: "),
        "{errors}"
    );
    // The directory is new, and its file is not yet there when it is first seen.
    std::fs::create_dir(folder.join("include")).expect("created");
    replace("include/more.h", "");
    waits();
    replace("agent.c", &format!("#include \"include/more.h\"\n{code}"));
    notes(2);
    waits();
    replace("include/more.h", "/* more */\n");
    notes(3);
    waits();
    // Not INT: a shell that runs the tests in the background has it ignored.
    let sent = Command::new("kill")
        .args(["-s", "TERM", &dev.0.id().to_string()])
        .status();
    assert!(sent.expect("kill is there").success());
    let status = dev.0.wait().expect("it ends");
    assert!(status.success(), "{status}");
    assert_eq!(
        run_ok(&store, &["history", "notes/notes", "-q"])
            .lines()
            .count(),
        3
    );
}
