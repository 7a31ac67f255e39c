//! Agents that are none, or want what no host gives.

use super::*;

/// Runs a component given as text, which must be refused before anything runs.
fn refuses(component: &str, hints: &[&str]) {
    let dir = tempdir();
    let file = dir.path().join("agent.wasm");
    fs::write(&file, wat::parse_str(component).expect("valid")).expect("writes");
    let output = run(dir.path(), &["run", file.to_str().expect("text")]);
    let said = refused(&output, 1);
    for hint in hints.iter().chain(&["this is not an agent"]) {
        assert!(said.contains(hint), "{hint:?} is not in: {said}");
    }
}

/// A component with a function that answers 7.
fn exports(name: &str) -> String {
    format!(
        r#"(component
            (core module $m (func (export "f") (result i32) i32.const 7))
            (core instance $i (instantiate $m))
            (func (export "{name}") (result u32) (canon lift (core func $i "f"))))"#
    )
}

#[test]
fn a_run_of_another_type_is_refused() {
    refuses(&exports("run"), &["run", "type", "persist:snapshot/agent"]);
}

#[test]
fn a_component_without_run_is_told_what_to_export() {
    refuses(&exports("start"), &["run", "persist:snapshot/agent"]);
}

#[test]
fn a_program_for_another_host_is_told_what_to_export() {
    let program = r#"(component
        (core module $m (func (export "f") (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func $f (result (result)) (canon lift (core func $i "f")))
        (instance $run (export "run" (func $f)))
        (export "wasi:cli/run@0.2.0" (instance $run)))"#;
    refuses(program, &["run", "persist:snapshot/agent"]);
}

#[test]
fn an_import_that_is_not_given_is_named() {
    refuses(
        r#"(component (import "acme:disk/files@1.0.0" (instance (export "open" (func)))))"#,
        &["acme:disk/files@1.0.0"],
    );
    refuses(
        r#"(component (import "wasi:http/types@0.2.0" (instance (export "open" (func)))))"#,
        &["wasi:http/types@0.2.0"],
    );
}

#[test]
fn a_contract_that_this_host_does_not_know_is_named() {
    for (import, hint) in [
        (
            r#""persist:snapshot/store@0.1.0" (instance (export "merge" (func)))"#,
            "merge",
        ),
        (
            r#""persist:snapshot/store@0.1.0"
                (instance (export "save" (func (param "name" string))))"#,
            "save",
        ),
        (
            r#""persist:snapshot/store@7.0.0" (instance (export "save" (func)))"#,
            "persist:snapshot/store@7.0.0",
        ),
    ] {
        refuses(
            &format!("(component (import {import}))"),
            &["persist:snapshot/store", hint],
        );
    }
}

#[test]
fn a_core_module_that_carries_no_world_is_refused() {
    refuses(
        r#"(module (import "env" "f" (func)))"#,
        &["core module", "env"],
    );
    refuses("(module)", &["run", "persist:snapshot/agent"]);
}

#[test]
fn an_agent_that_was_cut_off_is_refused() {
    let whole = fs::read(guest("test_guest")).expect("readable");
    let dir = tempdir();
    let file = dir.path().join("agent.wasm");
    for len in [4, 7, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..len]).expect("writes");
        let output = run(dir.path(), &["run", file.to_str().expect("text")]);
        let said = refused(&output, 1);
        assert!(said.contains("copy it again"), "{len}: {said}");
    }
}

/// Runs a scenario of the test guest.
fn act(dir: &Path, args: &[&str]) -> Output {
    let guest = guest("test_guest");
    let run_guest = ["run", guest.to_str().expect("text"), "--agent", "bot", "--"];
    run(dir, &[&run_guest, args].concat())
}

fn answer(dir: &Path, args: &[&str]) -> String {
    let output = act(dir, args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim_end().to_owned()
}

#[test]
fn an_agent_that_traps_keeps_what_it_saved_and_runs_again() {
    let dir = tempdir();
    assert_eq!(answer(dir.path(), &["save", "memory", "one"]), "version 1");
    for scenario in ["trap", "panic", "deep-recursion"] {
        let said = refused(&act(dir.path(), &[scenario]), 9);
        assert!(
            said.contains("the agent trapped") && said.contains("is kept"),
            "{scenario}: {said}"
        );
    }
    assert_eq!(answer(dir.path(), &["load", "memory"]), "1 one");
}

#[test]
fn an_agent_that_exhausts_its_memory_is_told_apart_from_one_that_fails() {
    let dir = tempdir();
    assert_eq!(answer(dir.path(), &["save", "memory", "one"]), "version 1");
    let said = refused(&act(dir.path(), &["big-save", "memory", "1000000000"]), 9);
    assert!(
        said.contains("256 MiB") && said.contains("memory"),
        "{said}"
    );
    let said = refused(&act(dir.path(), &["trap"]), 9);
    assert!(!said.contains("256 MiB"), "{said}");
    assert_eq!(answer(dir.path(), &["load", "memory"]), "1 one");
}

#[test]
fn an_agent_that_dies_between_write_and_finish_leaves_nothing() {
    let dir = tempdir();
    refused(&act(dir.path(), &["trap-mid-write", "log"]), 9);
    assert_eq!(version_files(dir.path()), [] as [PathBuf; 0]);
    assert_eq!(run_ok(dir.path(), &["ls", "--all"]), "");
    assert_eq!(
        answer(dir.path(), &["stream", "log", "3", "9"]),
        "version 1"
    );
}

// That the limit stops it without anyone's help takes the default's 30 seconds: see `sandbox`,
// where it is lower.
#[test]
fn an_agent_that_loops_can_be_killed_and_what_it_saved_is_kept() {
    let dir = tempdir();
    let mut looping = persist(dir.path())
        .arg("run")
        .arg(guest("test_guest"))
        .args([
            "--agent",
            "bot",
            "-v",
            "--",
            "save-and-loop",
            "memory",
            "kept",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .expect("persist starts");
    let mut said = String::new();
    let stderr = looping.stderr.take().expect("piped");
    BufReader::new(stderr).read_line(&mut said).expect("text");
    looping.kill().and_then(|()| looping.wait()).expect("ends");
    assert!(said.starts_with("saved bot/memory@1"), "{said}");
    assert_eq!(answer(dir.path(), &["load", "memory"]), "1 kept");
    assert_eq!(answer(dir.path(), &["save", "memory", "x"]), "version 2");
}

#[test]
fn a_host_killed_between_write_and_finish_leaves_nothing() {
    let dir = tempdir();
    let mut writing = persist(dir.path())
        .arg("run")
        .arg(guest("test_guest"))
        .args(["--agent", "bot", "--", "loop-mid-write", "log", "20"])
        .stderr(Stdio::null())
        .spawn()
        .expect("persist starts");
    let temp = dir.path().join("~/tmp");
    let temporary = || std::fs::read_dir(&temp).map_or(0, |files| files.flatten().count());
    while temporary() == 0 {
        assert_eq!(writing.try_wait().expect("a child"), None, "it loops");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    writing.kill().and_then(|()| writing.wait()).expect("ends");
    assert_eq!(temporary(), 1);
    assert_eq!(version_files(dir.path()), [] as [PathBuf; 0]);
    assert_eq!(run_ok(dir.path(), &["ls", "--all"]), "");
    assert_eq!(answer(dir.path(), &["save", "log", "x"]), "version 1");
    assert_eq!(temporary(), 0, "the next process sweeps");
}
