//! The stores in memory that the SDKs give to native tests: they keep the contract as a host does.
//!
//! The scenarios of the tests of WebAssembly run natively, in one process each. The double of Rust
//! has tests in its crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use persist_tests::{guest_in, run_ok, tempdir, text, toolchains};

use super::{Answer, no, yes};

const LANGUAGES: [&str; 4] = ["c", "go", "js", "python"];

/// Separates arguments on a line.
const SEPARATOR: &str = "\u{1f}";
/// Takes the place of a newline in an answer.
const NEWLINE: char = '\u{1e}';

/// Calls and their answers, one after the other in one store.
type Script = Vec<(Vec<String>, Answer)>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs a command to its end, and returns what it printed.
fn output(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    text(&output.stdout).to_owned()
}

/// Runs scenarios natively, and returns what they answer.
fn play(language: &str, dir: &Path, script: &Script) -> Vec<Answer> {
    let sdk = root().join("guest-sdk").join(language);
    let scenarios = root().join("tests/languages").join(language);
    let lines: String = script
        .iter()
        .map(|(args, _)| args.join(SEPARATOR) + "\n")
        .collect();
    let file = dir.join("script");
    fs::write(&file, lines).expect("written");
    let input = || Stdio::from(fs::File::open(&file).expect("readable"));
    let printed = match language {
        "c" => {
            let program = dir.join("scenarios");
            output(compile_c(&sdk, &scenarios, &[]).arg("-o").arg(&program));
            output(Command::new(program).stdin(input()))
        }
        "go" => {
            let mut go = go();
            go.env("PERSIST_SCRIPT", &file).current_dir(&scenarios);
            output(go.args(["test", "-count=1", "."]));
            fs::read_to_string(dir.join("script.out")).expect("readable")
        }
        "js" => {
            for name in ["native.mjs", "scenarios.js", "package.json"] {
                fs::copy(scenarios.join(name), dir.join(name)).expect("copied");
            }
            let modules = dir.join("node_modules");
            fs::create_dir(&modules).expect("made");
            let link = modules.join("persist-guest");
            std::os::unix::fs::symlink(sdk.canonicalize().expect("there"), link).expect("linked");
            let mut node = Command::new("node");
            node.args(["--import", "persist-guest/testing/register", "native.mjs"]);
            output(node.current_dir(dir).stdin(input()))
        }
        _ => {
            let mut python = Command::new("python3");
            let path = [sdk.join("src"), scenarios.clone()];
            python.env("PYTHONPATH", std::env::join_paths(path).expect("a path"));
            python.env("PYTHONDONTWRITEBYTECODE", "1");
            output(python.arg(scenarios.join("native.py")).stdin(input()))
        }
    };
    printed.lines().map(answer).collect()
}

fn answer(line: &str) -> Answer {
    let line = line.replace(NEWLINE, "\n");
    match line.split_once(' ') {
        Some(("ok", words)) => yes(words),
        Some(("error", words)) => no(words),
        _ => panic!("{line:?} is no answer"),
    }
}

/// The compiler of this machine with the SDK, the double and the files of a folder.
fn compile_c(sdk: &Path, folder: &Path, more: &[PathBuf]) -> Command {
    let mut cc = Command::new("cc");
    cc.args(["-std=gnu17", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(sdk.join("include"));
    for sources in [&sdk.join("src"), &sdk.join("testing"), folder] {
        let files = sources.read_dir().expect("readable").flatten();
        let files = files.map(|file| file.path());
        cc.args(files.filter(|file| file.extension().is_some_and(|end| end == "c")));
    }
    cc.args(more);
    cc
}

/// Go for this machine, without the network.
fn go() -> Command {
    let mut go = Command::new(toolchains().join("go/go/bin/go"));
    go.env("GOCACHE", toolchains().join("go-cache"))
        .env("GOPATH", toolchains().join("go-path"))
        .env("GOENV", "off")
        .env("GOFLAGS", "-mod=mod")
        .env("GOPROXY", "off")
        .env("GOSUMDB", "off")
        .env("GOTOOLCHAIN", "local")
        .env("CGO_ENABLED", "0")
        .env_remove("GOROOT");
    go
}

fn script(steps: &[(&[&str], Answer)]) -> Script {
    let owned = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
    let steps = steps.iter();
    steps
        .map(|(args, answer)| (owned(args), answer.clone()))
        .collect()
}

/// Languages that can be built here.
fn languages() -> impl Iterator<Item = &'static str> {
    LANGUAGES
        .into_iter()
        .filter(|language| guest_in(language, "scenarios").is_some())
}

#[test]
fn the_double_of_every_language_keeps_the_contract() {
    let mut steps = script(&super::contract_script());
    steps.extend(script(&[
        // The rules of names, labels and limits.
        (
            &["save", "", "x"],
            no("invalid a name is empty; the minimum is one byte"),
        ),
        (
            &["save", "a\u{1}b", "x"],
            no("invalid a name contains the control character U+0001"),
        ),
        (
            &["save", &"é".repeat(34), "x"],
            no(
                "invalid a name is 204 bytes long; at most 200 are allowed, and every byte except \
                a-z 0-9 . _ - counts as three",
            ),
        ),
        (
            &["save-labels", "a", "x", "-", "persist.a=1"],
            no("invalid the label key \"persist.a\" is reserved: it starts with persist."),
        ),
        (
            &[
                "save-labels",
                "a",
                "x",
                "-",
                &format!("a={}", "x".repeat(9000)),
            ],
            no("invalid labels and media type have 9001 bytes; the maximum is 8192"),
        ),
        (
            &["save-labels", "a", "x", "text/plain", "a=1", "b=ö"],
            yes("version 1"),
        ),
        (
            &["stat", "a"],
            yes("version 1 parent none saved size 1 \
                sha256 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 \
                media-type text/plain labels a=1,b=ö name a"),
        ),
        (&["fork", "a", "a2"], yes("version 1")),
        (
            &["stat", "a2"],
            yes("version 1 parent none saved size 1 \
                sha256 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881 \
                media-type text/plain labels a=1,b=ö,persist.forked-from=a name a2"),
        ),
        (&["zeros-save", "z", "16777217"], no("too-large 16777217")),
        (&["zeros-save", "z", "104857600"], no("too-large 104857600")),
        // Streams.
        (&["stream-mib", "big", "17"], yes("version 1")),
        (&["load", "big"], no("too-large 17825792")),
        (&["copy", "big", "copied"], yes("version 1")),
        (&["read-at", "copied", "17825792", "8"], yes("")),
        (&["unfinished", "log"], yes("unfinished")),
        (&["load", "log"], yes("none")),
        (
            &["limits"],
            yes(
                "max-inline 16777216\nmax-chunk 1048576\nmax-state 1073741824\n\
            max-name 200\nmax-page 100",
            ),
        ),
    ]));
    let mut more = super::update_script("updated");
    more.extend(super::calls_script());
    let more: Vec<_> = more
        .iter()
        .map(|(args, answer)| (args.as_slice(), answer.clone()))
        .collect();
    steps.extend(script(&more));
    for language in languages() {
        let dir = tempdir();
        let answers = play(language, dir.path(), &steps);
        assert_eq!(answers.len(), steps.len(), "{language}");
        for (found, (args, expected)) in answers.iter().zip(&steps) {
            assert_eq!(found, expected, "{language}: {args:?}");
        }
    }
}

#[test]
fn a_fresh_agent_has_a_test_that_passes_natively_and_fails_if_the_agent_is_wrong() {
    for language in languages() {
        let dir = tempdir();
        let folder = dir.path().join("notes");
        let folder_text = folder.to_str().expect("text");
        run_ok(dir.path(), &["new", "--lang", language, folder_text]);
        let passed = run_tests(language, &folder);
        assert!(
            passed.status.success(),
            "{language}: {}{}",
            text(&passed.stdout),
            text(&passed.stderr)
        );
        let (source, right, wrong) = match language {
            "c" => ("agent.c", "PERSIST_CHANGE_SAVE", "PERSIST_CHANGE_NONE"),
            "go" => ("main.go", "args...)", "args[1:]...)"),
            "js" => ("agent.js", "...args)", "...args.slice(1))"),
            _ => ("app.py", "extend(args)", "extend(args[1:])"),
        };
        let agent = fs::read_to_string(folder.join(source)).expect("readable");
        assert!(agent.contains(right), "{language}: {agent}");
        fs::write(folder.join(source), agent.replace(right, wrong)).expect("written");
        assert!(!run_tests(language, &folder).status.success(), "{language}");
    }
}

/// Runs the tests of a fresh agent, as its comments say.
fn run_tests(language: &str, folder: &Path) -> std::process::Output {
    let mut command = match language {
        "c" => {
            let program = folder.join("agent_test");
            let test = [folder.join("tests/agent_test.c")];
            output(
                compile_c(&folder.join("persist"), folder, &test)
                    .arg("-o")
                    .arg(&program),
            );
            Command::new(program)
        }
        "go" => {
            let mut go = go();
            go.args(["test", "-count=1", "."]);
            go
        }
        "js" => {
            let mut node = Command::new("node");
            node.args(["--import", "./persist/testing/register.js", "--test"]);
            node
        }
        // As pytest does, which not every machine has.
        _ => {
            let mut python = Command::new("python3");
            python
                .env("PYTHONPATH", "persist")
                .env("PYTHONDONTWRITEBYTECODE", "1");
            python.args(["-c", "import test_app; test_app.test_notes_are_kept()"]);
            python
        }
    };
    command.current_dir(folder).output().expect("it starts")
}
