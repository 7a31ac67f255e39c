//! `persist new` and `persist build` in every language.

use std::path::Path;
use std::process::Command;

use persist_tests::{guest, guest_in, persist, run_fails, run_ok, tempdir, text, toolchains};

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
    builds_and_keeps_notes(&["c", "go", "js"]);
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
        if *language != "rust" && guest_in(language, "scenarios").is_none() {
            continue;
        }
        let folder = dir.path().join(format!("notes-{language}"));
        let folder = folder.to_str().expect("text");
        run_ok(dir.path(), &["new", "--lang", language, folder]);
        let mut build = persist_with_tools(dir.path());
        let built = build.args(["build", folder]).output();
        let built = built.expect("persist starts");
        let said = text(&built.stderr);
        assert!(built.status.success(), "{language}: {said}");
        let component = format!("{folder}/notes-{language}.wasm");
        let bytes = std::fs::read(&component).expect("it was built");
        assert_eq!(&bytes[..8], b"\0asm\x0d\0\x01\0", "{language}: a component");
        let run = |note: &str| run_ok(dir.path(), &["run", &component, "--", note]);
        assert_eq!(run("buy milk"), "buy milk\n\n", "{language}");
        assert_eq!(run("ü"), "buy milk\nü\n\n", "{language}");
    }
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

/// Makes a file that can be run.
#[cfg(unix)]
fn program(path: &Path, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
    std::fs::write(path, script).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("ours");
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
        ("python", "componentize-py", Some(".venv/bin")),
    ] {
        let folder = dir.path().join(format!("in-{language}"));
        let text_of = |path: &Path| path.to_str().expect("text").to_owned();
        run_ok(dir.path(), &["new", "--lang", language, &text_of(&folder)]);
        for own in ["node_modules/.bin", ".venv/bin"] {
            program(&folder.join(own).join(tool), &script);
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
    program(&folder.join("node_modules/.bin/componentize-qjs"), &script);
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
            "error: componentize-qjs is not installed\nhint: run `npm install ",
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
