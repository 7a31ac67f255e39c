//! `examples/plugin-host`: a host with its own engine and its own world, and plugins in two
//! languages.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use persist_tests::{guest, guest_in, persist, program, run_ok, tempdir, text};

/// The host of the example, and what it prints.
struct Host {
    process: Child,
    replies: Lines<BufReader<ChildStdout>>,
}

impl Host {
    fn start(dir: &Path) -> Self {
        let mut process = command(dir).stderr(Stdio::null()).spawn().expect("starts");
        let replies = process.stdout.take().expect("a pipe");
        Self {
            process,
            replies: BufReader::new(replies).lines(),
        }
    }

    /// Sends a message to which one plugin replies.
    fn ask(&mut self, message: &str) -> String {
        let input = self.process.stdin.as_mut().expect("a pipe");
        writeln!(input, "{message}").expect("written");
        self.replies.next().expect("a reply").expect("read")
    }

    fn kill(mut self) {
        self.process.kill().expect("killed");
        self.process.wait().expect("ended");
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(program("plugin-host"));
    command.arg(dir.join("plugins")).arg(dir.join("store"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

/// What the host printed, replies and errors, for these lines.
fn answered(dir: &Path, lines: &str) -> (String, String) {
    let mut host = command(dir).spawn().expect("starts");
    let mut input = host.stdin.take().expect("a pipe");
    input.write_all(lines.as_bytes()).expect("written");
    drop(input);
    let output = host.wait_with_output().expect("ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let [replies, errors] = [&output.stdout, &output.stderr].map(|said| text(said).to_owned());
    (replies, errors)
}

fn add_plugin(dir: &Path, name: &str, file: &Path) {
    fs::create_dir_all(dir.join("plugins")).expect("made");
    fs::copy(file, dir.join("plugins").join(name)).expect("copied");
}

#[test]
fn plugins_remember_what_they_were_told_when_the_host_is_killed() {
    let dir = tempdir();
    let dir = dir.path();
    add_plugin(dir, "quotes.wasm", &guest("quotes"));
    let mut host = Host::start(dir);
    let kept = host.ask("ann: !quote less is more");
    assert_eq!(kept, "quotes: kept as quote 1");
    host.kill();
    let mut host = Host::start(dir);
    assert_eq!(host.ask("bob: !quote"), "quotes: less is more (ann)");
    host.kill();
    // A version, as those of agents that `persist run` runs.
    persist(&dir.join("store"));
    let saved = run_ok(&dir.join("store"), &["cat", "quotes/quotes"]);
    assert_eq!(saved, "[\n  \"less is more (ann)\"\n]");
}

#[test]
fn a_plugin_that_is_built_again_goes_on_with_its_state() {
    let dir = tempdir();
    let dir = dir.path();
    add_plugin(dir, "quotes.wasm", &guest("quotes"));
    let mut host = Host::start(dir);
    host.ask("ann: !quote less is more");
    // A build that failed half-way, which takes nothing away.
    fs::write(dir.join("plugins/quotes.wasm"), b"\0asm").expect("written");
    assert_eq!(host.ask("ann: !quote"), "quotes: less is more (ann)");
    // A whole one.
    add_plugin(dir, "quotes.wasm", &guest("quotes"));
    assert_eq!(
        host.ask("ann: !quote so it goes"),
        "quotes: kept as quote 2"
    );
    host.kill();
}

#[test]
fn a_plugin_in_javascript_stands_beside_one_in_rust() {
    let dir = tempdir();
    let dir = dir.path();
    let Some(karma) = guest_in("js", "karma") else {
        return;
    };
    add_plugin(dir, "karma.wasm", &karma);
    add_plugin(dir, "quotes.wasm", &guest("quotes"));
    let lines = "ann: bob++\nann: ann++\ncid: bob++\nann: !karma\nann: !quote hm\n!stats\n";
    let (replies, errors) = answered(dir, lines);
    let expected = "karma: bob has 1\nkarma: bob has 2\nkarma: bob 2\nquotes: kept as quote 1\n\
                    karma: Metrics { messages: 5, failures: 0, saves: 2 }\n\
                    quotes: Metrics { messages: 5, failures: 0, saves: 1 }\n";
    assert_eq!(replies, expected);
    assert_eq!(errors, "");
}

#[test]
fn a_plugin_that_fails_takes_no_other_down() {
    let dir = tempdir();
    let dir = dir.path();
    // An agent, and no plugin; and a file that is no program.
    add_plugin(dir, "agent.wasm", &guest("test_guest"));
    fs::write(dir.join("plugins/text.wasm"), "hello").expect("written");
    add_plugin(dir, "quotes.wasm", &guest("quotes"));
    let (replies, errors) = answered(dir, "ann: !quote less is more\n!stats\n");
    assert!(replies.contains("quotes: kept as quote 1\n"), "{replies}");
    for name in ["agent", "text"] {
        let counted = format!("{name}: Metrics {{ messages: 1, failures: 1, saves: 0 }}");
        assert!(replies.contains(&counted), "{replies}");
        assert!(errors.contains(&format!("{name} failed: ")), "{errors}");
    }
    assert!(errors.contains("text cannot be loaded: "), "{errors}");
}
