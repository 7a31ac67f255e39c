//! Contents of the logs. Above debug an operator sees what went wrong, and an attacker nothing: no
//! key, no name, no agent. At debug they are shown. Credentials and payloads are never shown, at
//! any level, nor are they by the libraries below.

use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use persist_host::snapshot::Store;
use persist_servers::Kind;
use persist_tests::proxy::{Fault, Reply};
use persist_tests::store::TestStore;
use persist_tests::terminal::Terminal;
use persist_tests::{noise, text};
use tracing::Level;

const AGENT: &str = "planted-agent";
const SESSION: &str = "planted-session";
const NAME: &str = "planted-name";
const LABEL: &str = "planted-label";
const PREFIX: &str = "planted-prefix";
/// In bytes that do not compress, so that it lies in what is stored as it is.
const PAYLOAD: &str = "PLANTED-PAYLOAD";
const TOKEN: &str = "PLANTEDTOKENPLANTEDTOKEN";

/// A state with a word in it.
fn state() -> Vec<u8> {
    [noise(1, 5000), PAYLOAD.into(), noise(2, 5000)].concat()
}

/// All that the commands of a bad day say at a level, on standard error. Results are on standard
/// output.
fn said(place: &TestStore, level: &str) -> String {
    let (proxy, proxied) = place.proxied();
    let mut all = String::new();
    let address = format!("{AGENT}/{SESSION}/{NAME}");
    let label = format!("key={LABEL}");
    for (command, after) in [
        (&["save", &address, "-", "--label", &label][..], 2),
        (&["cat", &address], 0),
        (&["show", &address], 1),
        (&["history", &address], 0),
        (&["ls"], 0),
        (&["restore", &format!("{address}@1")], 3),
        (&["rm", &address], 1),
    ] {
        // One answer is bad: what is sent again is logged, too.
        proxy.plan(after, Fault::Reply(Reply::s3(503, "SlowDown")));
        let mut persist = proxied.command();
        persist.env("RUST_LOG", level).args(command);
        all += &stderr_of(&mut persist, true);
    }
    // What is refused, for good.
    proxy.rule(|_, _| Some(Fault::Reply(Reply::s3(403, "AccessDenied"))));
    let mut denied = proxied.command();
    denied.env("RUST_LOG", level).args(["cat", &address]);
    all += &stderr_of(&mut denied, false);
    proxy.forget();
    let mut refused = proxied.command();
    refused
        .env("RUST_LOG", level)
        .env("AWS_SESSION_TOKEN", TOKEN)
        .env("AWS_SECRET_ACCESS_KEY", format!("{TOKEN}-secret"))
        .args(["save", &address, "-"]);
    all + &stderr_of(&mut refused, false)
}

/// Returns the log of a command; the command's own final messages, which are for its caller, begin
/// with `error:` or `to undo:`.
fn stderr_of(persist: &mut Command, succeeds: bool) -> String {
    let mut child = persist
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("persist starts");
    let mut stdin = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || {
        // Most commands read nothing.
        let _ = stdin.write_all(&state());
    });
    let output = child.wait_with_output().expect("persist ends");
    writer.join().expect("no panic");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), succeeds, "{stderr}");
    let logged = stderr
        .lines()
        .filter(|line| !line.starts_with("error:") && !line.starts_with("to undo:"));
    logged.map(|line| format!("{line}\n")).collect()
}

fn place() -> TestStore {
    TestStore::on(Kind::SeaweedFs).below(PREFIX)
}

/// The lines with this word in them.
fn lines_with<'a>(log: &'a str, word: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(word)).collect()
}

#[test]
fn above_debug_no_log_shows_a_key_or_a_name() {
    let place = place();
    for level in ["error", "warn", "info"] {
        let log = said(&place, level);
        for word in [AGENT, SESSION, NAME, LABEL, PREFIX] {
            let found = lines_with(&log, word);
            assert!(found.is_empty(), "{level}: {found:?}");
        }
    }
}

/// Returns the log of a program whose call is given up, in its own process.
fn given_up(level: Level) -> String {
    let (proxy, place) = place().proxied();
    proxy.rule(|_, _| Some(Fault::Reply(Reply::s3(503, "SlowDown"))));
    let mut config = place.config();
    config.retry.attempt = Duration::from_millis(200);
    config.retry.budget = Duration::from_millis(500);
    let storage = config.build().expect("a storage");
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(false)
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .finish();
    // On this thread alone: other tests log elsewhere.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let scope = Store::new(storage).scope(AGENT, None).expect("a name");
            scope.load(NAME, None).await.expect_err("it is given up");
        });
    });
    let bytes = log.0.lock().expect("no panic").clone();
    String::from_utf8(bytes).expect("text")
}

/// A log in memory.
#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_call_that_is_given_up_is_told_as_a_warning_without_its_key() {
    let log = given_up(Level::WARN);
    assert!(
        log.contains("WARN") && log.contains("ListObjectsV2"),
        "{log}"
    );
    for word in [AGENT, NAME, PREFIX] {
        assert!(lines_with(&log, word).is_empty(), "{log}");
    }
    assert!(!lines_with(&given_up(Level::DEBUG), NAME).is_empty());
}

#[test]
fn at_debug_keys_and_names_are_shown() {
    let log = said(&place(), "debug");
    for word in [AGENT, SESSION, NAME] {
        assert!(!lines_with(&log, word).is_empty(), "{word} is not shown");
    }
}

#[test]
fn no_log_at_any_level_shows_a_credential_or_a_payload() {
    let place = place();
    let facts = place.server().facts();
    for level in ["error", "warn", "info", "debug", "trace"] {
        let log = said(&place, level);
        for word in [PAYLOAD, TOKEN, &facts.secret_key, &facts.access_key] {
            let found = lines_with(&log, word);
            let first: String = found.iter().flat_map(|l| l.chars()).take(600).collect();
            assert!(
                found.is_empty(),
                "{level}: {word} in {} lines, such as {first}",
                found.len()
            );
        }
    }
}

#[test]
fn a_printed_configuration_shows_no_credentials() {
    let place = place();
    let facts = place.server().facts();
    let config = place.config();
    let printed = format!("{config:?} {:?}", config.build().expect("a storage"));
    assert!(!printed.contains(&facts.secret_key), "{printed}");
    let said = place.command().arg("ls").output().expect("persist starts");
    assert!(!text(&said.stderr).contains(&facts.secret_key));
}

#[test]
fn a_person_is_told_at_once_that_the_storage_does_not_answer() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    let mut ls = place.command();
    ls.arg("ls");
    proxy.rule(|_, _| Some(Fault::Reply(Reply::s3(503, "SlowDown"))));
    let terminal = Terminal::start(&ls);
    terminal.wait_for("waiting for the storage: ");
    terminal.wait_for("retrying");
    proxy.forget();
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(shown.matches("waiting for").count(), 1, "{shown}");
    // A script is told nothing of what went well in the end.
    proxy.plan(0, Fault::Reply(Reply::s3(503, "SlowDown")));
    let output = place.command().arg("ls").output().expect("persist starts");
    let said = text(&output.stderr);
    assert!(
        said.starts_with("nothing is saved") && said.lines().count() == 1,
        "{said}"
    );
}

#[test]
fn an_error_of_a_command_is_told_once() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    // The error and its hint; with a log, one warning more.
    for (log, lines) in [(None, 2), (Some("warn"), 3)] {
        let mut ls = place.command();
        ls.arg("ls").envs(log.map(|log| ("RUST_LOG", log)));
        proxy.rule(|number, _| {
            let refused = if number == 0 {
                Reply::s3(503, "SlowDown")
            } else {
                Reply::s3(403, "AccessDenied")
            };
            Some(Fault::Reply(refused))
        });
        let output = ls.output().expect("persist starts");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert_eq!(said.lines().count(), lines, "{log:?}: {said}");
    }
}
