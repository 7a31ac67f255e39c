//! `--json`: what the commands print is what docs/src/json.md and docs/src/json-schema.json
//! describe, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::leases::lease_and_die;
use persist_tests::store::json;
use persist_tests::{guest, persist, persist_without_store, tempdir, text};
use serde_json::Value;

type Keys = BTreeSet<String>;

/// The keys that docs/src/json.md describes.
struct Page {
    /// Keys of an address, a version, a policy and an error.
    parts: BTreeMap<&'static str, Keys>,
    /// Keys of each event, `event` included.
    events: BTreeMap<String, Keys>,
    /// Keys of the lines without an event, by command.
    lines: BTreeMap<String, Keys>,
}

impl Page {
    fn read() -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/json.md");
        let page = fs::read_to_string(page).expect("the page");
        let mut parts = BTreeMap::new();
        let address = first_column(&page, "An address");
        let mut version = first_column(&page, "A version");
        version.extend(address.clone());
        let mut policy = first_column(&page, "A policy");
        policy.retain(|key| !key.starts_with("keep_"));
        parts.insert("an address", address);
        parts.insert("a version", version);
        parts.insert("a policy", policy);
        parts.insert("an error", Keys::from(["error".into()]));
        let mut events = BTreeMap::new();
        for row in rows(&page, "Events") {
            let mut keys = keys_of(&row[2], &parts);
            keys.insert("event".into());
            for event in words(&row[1]) {
                assert_eq!(events.insert(event, keys.clone()), None, "{row:?}");
            }
        }
        let mut lines = BTreeMap::<String, Keys>::new();
        for row in rows(&page, "Lines without an event") {
            let mut keys = keys_of(&row[1], &parts);
            let mut commands = words(&row[0]);
            commands.retain(|word| !word.starts_with("--"));
            if row[1].starts_with("as `stats`") {
                keys.remove("stats");
                keys.extend(lines["stats"].clone());
            }
            for command in commands {
                assert_eq!(lines.insert(command, keys.clone()), None, "{row:?}");
            }
        }
        Self {
            parts,
            events,
            lines,
        }
    }

    /// Checks a line that `command` printed, and returns what the page calls it.
    fn check(&self, command: &str, line: &Value) -> String {
        let found: Keys = line
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect();
        let (name, wanted) = match line["event"].as_str() {
            Some(event) => {
                let keys = self.events.get(event);
                let name = format!("event {event}");
                (name, keys.unwrap_or_else(|| panic!("{command}: {line}")))
            }
            None => {
                let keys = self.lines.get(command);
                (
                    command.to_owned(),
                    keys.unwrap_or_else(|| panic!("{command}: {line}")),
                )
            }
        };
        assert_eq!(&found, wanted, "{command}: {line}");
        let within = [
            ("from", "a version"),
            ("to", "a version"),
            ("policy", "a policy"),
        ];
        for (key, part) in within {
            if let Some(object) = line[key].as_object() {
                let found: Keys = object.keys().cloned().collect();
                assert_eq!(found, self.parts[part], "{command}: {line}");
            }
        }
        for key in ["created_at", "stored_at"] {
            if let Some(time) = line.get(key) {
                let time = time.as_str().expect("a time");
                assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
            }
        }
        name
    }
}

/// The JSON Schema of the output.
struct Schema {
    schemas: boon::Schemas,
    /// Schemas of the lines of each command, and of `errors`.
    commands: BTreeMap<String, boon::SchemaIndex>,
}

impl Schema {
    fn read() -> Self {
        const URL: &str = "https://localhost/json-schema.json";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/json-schema.json");
        let text = fs::read_to_string(path).expect("the schema");
        let schema: Value = serde_json::from_str(&text).expect("JSON");
        let defs = schema["$defs"].as_object().expect("definitions").clone();
        let mut compiler = boon::Compiler::new();
        compiler.add_resource(URL, schema).expect("a schema");
        let mut schemas = boon::Schemas::new();
        let commands = defs.keys().filter_map(|name| {
            let command = name.strip_prefix("persist-")?.to_owned();
            let at = format!("{URL}#/$defs/{name}");
            let compiled = compiler.compile(&at, &mut schemas);
            Some((
                command,
                compiled.unwrap_or_else(|error| panic!("{error:#}")),
            ))
        });
        let commands = commands.collect();
        Self { schemas, commands }
    }

    /// Validates a line of a command, or an error on standard error.
    fn check(&self, command: &str, line: &Value) -> Result<(), String> {
        let command = command.split(' ').next().expect("a word");
        let schema = self.commands.get(command).ok_or("no schema")?;
        let valid = self.schemas.validate(line, *schema);
        valid.map_err(|error| format!("{command}: {line}: {error:#}"))
    }
}

#[test]
fn every_line_is_valid_by_the_schema() {
    let dir = tempdir();
    let schema = Schema::read();
    let mut seen = BTreeSet::from(["errors".to_owned()]);
    for (command, lines, errors) in printed(dir.path()) {
        for line in &lines {
            schema.check(&command, line).expect("valid");
            seen.extend(command.split(' ').next().map(str::to_owned));
        }
        for error in &errors {
            schema.check("errors", error).expect("valid");
        }
    }
    let mut described: BTreeSet<_> = schema.commands.keys().cloned().collect();
    // Each language has a toolchain, which `languages` needs.
    assert!(described.remove("build"));
    assert!(described.remove("dev"));
    // `cat` prints a state, and here an error.
    assert_eq!(seen, described);
}

#[test]
fn the_schema_refuses_lines_with_other_keys_and_types() {
    let schema = Schema::read();
    let dir = tempdir();
    let args = ["save", "bot/notes", "Cargo.toml", "--json"];
    let output = persist(dir.path()).args(args).output();
    let good = json(text(&output.expect("persist starts").stdout)).remove(0);
    schema.check("save", &good).expect("valid");
    for (key, value) in [
        ("agent", None),
        ("undo", None),
        ("version", None),
        ("more", Some(Value::from(1))),
        ("size", Some("12".into())),
        ("created_at", Some("2026-11-28 02:00:00".into())),
        ("event", Some("renamed".into())),
    ] {
        let mut bad = good.clone();
        let object = bad.as_object_mut().expect("an object");
        match value {
            Some(value) => object.insert(key.to_owned(), value),
            None => object.remove(key),
        };
        schema.check("save", &bad).expect_err(key);
    }
    schema.check("ls", &good).expect_err("another command");
}

/// Returns the cells of the tables in a section, without headers.
fn rows(page: &str, section: &str) -> Vec<Vec<String>> {
    let (_, rest) = page
        .split_once(&format!("\n## {section}\n"))
        .expect(section);
    let rest = rest.split("\n## ").next().expect("a section");
    let rows = rest.lines().filter(|line| line.starts_with('|'));
    let rows = rows.map(|line| {
        let cells = line.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    });
    let rows: Vec<Vec<String>> = rows.collect();
    assert!(rows.len() > 2, "{section}");
    rows.into_iter().skip(2).collect()
}

fn first_column(page: &str, section: &str) -> Keys {
    let rows = rows(page, section).into_iter();
    rows.flat_map(|row| words(&row[0])).collect()
}

/// Returns the words in backticks.
fn words(text: &str) -> Vec<String> {
    let words = text.split('`').skip(1).step_by(2);
    words.map(str::to_owned).collect()
}

/// Returns the keys that a cell names. Text in parentheses explains a key.
fn keys_of(cell: &str, parts: &BTreeMap<&'static str, Keys>) -> Keys {
    let mut plain = String::new();
    let mut depth = 0;
    for c in cell.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            c if depth == 0 => plain.push(c),
            _ => {}
        }
    }
    let mut keys: Keys = words(&plain).into_iter().collect();
    for (part, of_part) in parts {
        if plain.contains(part) {
            keys.extend(of_part.clone());
        }
    }
    keys
}

/// Runs each command on a small store, and returns the lines that it printed to standard output and
/// the errors that it printed to standard error, by command.
fn printed(dir: &Path) -> Vec<(String, Vec<Value>, Vec<Value>)> {
    let archive = dir.join("archive.tar");
    let archive = archive.to_str().expect("text");
    let store = dir.join("store");
    let store = &store;
    let url = format!("file://{}", store.display());
    let copy = format!("file://{}", dir.join("copy").display());
    let agent = guest("chat_memory");
    let agent = agent.to_str().expect("text");
    let messages = dir.join("messages");
    fs::write(&messages, "hello again\n").expect("written");
    let mut found = Vec::new();
    let mut run = |args: &[&str]| {
        let mut command = if args[0] == "init" {
            persist_without_store(store)
        } else {
            persist(store)
        };
        if args[0] == "chat" {
            command.stdin(fs::File::open(&messages).expect("is there"));
        }
        let output = command.arg("--json").args(args).output();
        let output = output.expect("persist starts");
        let said = text(&output.stderr);
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with('{')).collect();
        assert_eq!(
            output.status.success(),
            errors.is_empty(),
            "{args:?}: {said}"
        );
        let name = if args.contains(&"--states") {
            "stats --states"
        } else {
            args[0]
        };
        let lines = json(text(&output.stdout));
        found.push((name.to_owned(), lines, json(&errors.join("\n"))));
    };
    let fresh = dir.join("fresh");
    run(&["init"]);
    run(&["new", "--lang", "js", fresh.to_str().expect("text")]);
    fs::remove_file(fresh.join("persist/index.js")).expect("it is there");
    run(&["upgrade-sdk", fresh.to_str().expect("text")]);
    run(&["run", agent, "--agent", "bot", "--", "say", "hello"]);
    run(&["run", agent, "--agent", "bot", "--", "dance"]);
    run(&["chat", agent, "--agent", "bot", "--", "say"]);
    run(&["save", "bot/notes", "--label", "turn=1", agent]);
    let typed = ["--media-type", "application/wasm", agent];
    run(&[&["save", "bot/monday/notes"], &typed[..]].concat());
    run(&["fork", "bot/notes", "bot/copy"]);
    run(&["pin", "bot/notes@1"]);
    run(&["ls"]);
    run(&["history", "bot/notes"]);
    run(&["show", "bot/notes"]);
    run(&["verify", "bot/notes"]);
    run(&["copy", &url, &copy, "--create"]);
    run(&["unpin", "bot/notes@1"]);
    run(&["rm", "bot/notes"]);
    run(&["restore", "bot/notes@1"]);
    run(&["restore", "bot/notes@3"]);
    run(&["fork", "bot/monday/", "bot/friday/", "--yes"]);
    run(&["mv", "bot/friday/", "bot/sunday/", "--yes"]);
    run(&["rm", "bot/friday/", "bot/sunday/", "--dry-run"]);
    run(&["restore", "bot", "--at", "2h ago", "--dry-run"]);
    run(&["purge", "bot", "--dry-run"]);
    run(&["diff", "bot/notes@1", "bot/copy"]);
    run(&["stats"]);
    run(&["stats", "--states"]);
    run(&["stats", "--summary"]);
    run(&["prune", "--keep-last", "1", "--dry-run"]);
    run(&["prune", "--keep-last", "1"]);
    run(&["policy"]);
    run(&["policy", "set", "--keep-last", "30"]);
    run(&["export", archive]);
    run(&["import", archive, "--storage", &copy]);
    run(&["save", "bot/later", agent]);
    run(&["copy", &url, &copy]);
    run(&["fork", "bot/later", "bot/only", "--storage", &copy]);
    run(&["copy", &url, &copy, "--delete", "--delete-newer", "--yes"]);
    run(&["doctor"]);
    run(&["settings"]);
    run(&["purge", "bot/copy", "--yes", "--now"]);
    let manifest = dir.join("agents.toml");
    let entry = format!("[[agents]]\nname = \"bot\"\ncomponent = \"{agent}\"\n");
    fs::write(&manifest, entry).expect("written");
    let manifest = manifest.to_str().expect("text");
    run(&["serve", "--manifest", manifest, "--check"]);
    run(&["token", "new"]);
    run(&["gc", "--dry-run"]);
    run(&["gc"]);
    lease_and_die(store, "bot", None);
    run(&["leases"]);
    run(&["leases", "break", "bot"]);
    run(&["leases", "--all"]);
    let moved = [store.join("bot/~/notes"), store.join("bot/~/moved")];
    fs::rename(&moved[0], &moved[1]).expect("renamed");
    run(&["check", "--read-data"]);
    run(&["repair", "bot/moved", "--adopt"]);
    run(&["repair", "--yes"]);
    // Failures.
    run(&["cat", "bot/nothing"]);
    run(&["show", "bot/notes", "--no-such-option"]);
    run(&["show"]);
    run(&["show", "bot"]);
    run(&["copy", &url, &url]);
    found
}

#[test]
fn the_keys_that_are_printed_are_those_that_are_documented() {
    let dir = tempdir();
    let page = Page::read();
    let mut seen = BTreeSet::new();
    for (command, lines, errors) in printed(dir.path()) {
        for line in &lines {
            seen.insert(page.check(&command, line));
        }
        for error in errors {
            assert_eq!(
                error.as_object().map(|error| error.len()),
                Some(1),
                "{error}"
            );
            let error = error["error"].as_object().expect("an object");
            let keys: Vec<_> = error.keys().map(String::as_str).collect();
            assert_eq!(keys, ["code", "hint", "message"], "{command}");
            let message = error["message"].as_str().expect("text");
            // An agent may write more than one line.
            let is_agents = error["code"] == "agent";
            assert!(is_agents || !message.contains('\n'), "{command}: {message}");
            assert!(!message.starts_with("error"), "{command}: {message}");
        }
    }
    let events = page.events.keys().map(|event| format!("event {event}"));
    let mut documented: BTreeSet<_> = events.chain(page.lines.keys().cloned()).collect();
    // A leftover with a key is an upload to a bucket, or a probe of a host that died an hour ago.
    assert!(documented.remove("event leftover"));
    // The language's toolchain builds.
    assert!(documented.remove("event built"));
    // A service prints it and goes on; the tests of `serve` read it.
    assert!(documented.remove("event listening"));
    assert_eq!(seen, documented);
}

#[test]
fn the_keys_of_a_policy_and_an_error_are_those_that_are_documented() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/json.md");
    let page = fs::read_to_string(page).expect("the page");
    let dir = tempdir();
    let output = persist(dir.path()).args(["policy", "--json"]).output();
    let policy = &json(text(&output.expect("persist starts").stdout))[0];
    let rules = policy["retention"].as_object().expect("rules");
    let mut documented = first_column(&page, "A policy");
    documented.retain(|key| key.starts_with("keep_"));
    let rules: Keys = rules.keys().cloned().collect();
    assert_eq!(rules, documented);
    let mut documented = first_column(&page, "Errors");
    let codes = [
        "usage",
        "not_found",
        "conflict",
        "denied",
        "corrupt",
        "unknown_outcome",
        "limit",
        "agent",
        "attention",
        "interrupted",
        "failed",
    ];
    // The header of the second table is among the rows of the section.
    for word in codes
        .into_iter()
        .chain(["error", "code", "message", "hint"])
    {
        assert!(documented.remove(word), "{word}");
    }
    assert!(documented.is_empty(), "{documented:?}");
}

#[test]
fn a_failure_is_an_object_on_standard_error() {
    let dir = tempdir();
    let missing = ["show", "bot/notes", "--json"];
    let output = persist(dir.path())
        .args(["save", "bot/other", "-"])
        .output();
    assert!(output.expect("persist starts").status.success());
    let output = persist(dir.path()).args(missing).output();
    let output = output.expect("persist starts");
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "");
    let error = &json(text(&output.stderr))[0]["error"];
    assert_eq!(error["code"], "not_found");
    let message = error["message"].as_str().expect("text");
    let place = "not found: nothing matches bot/notes in the directory ";
    assert!(message.starts_with(place), "{message}");
    assert_eq!(error["hint"], "run `persist ls` to list names");
}

#[test]
fn a_wrong_command_line_is_an_object_on_standard_error() {
    let dir = tempdir();
    for (args, message, hint) in [
        (
            &["show", "--json"][..],
            "the following required arguments were not provided: <SELECTION>...",
            "add --help to see the usage",
        ),
        (
            &["--json", "show", "bot/notes", "--quite"],
            "unexpected argument '--quite' found",
            "a similar argument exists: '--quiet'",
        ),
    ] {
        let output = persist(dir.path()).args(args).output();
        let output = output.expect("persist starts");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(text(&output.stdout), "", "{args:?}");
        let lines = json(text(&output.stderr));
        assert_eq!(lines.len(), 1, "{lines:?}");
        let error = &lines[0]["error"];
        assert_eq!(error["code"], "usage");
        assert_eq!(error["message"], message);
        assert_eq!(error["hint"], hint);
    }
    // After `--`, `--json` is an argument of the agent.
    let output = persist(dir.path()).args(["run", "--", "--json"]).output();
    let output = output.expect("persist starts");
    assert!(text(&output.stderr).starts_with("error: "));
}

/// The errors of single entries are objects, too.
#[test]
fn an_entry_that_is_not_copied_is_an_object_on_standard_error() {
    let dir = tempdir();
    let stores = [dir.path().join("one"), dir.path().join("two")];
    for (store, state) in stores.iter().zip(["Cargo.toml", "integration/main.rs"]) {
        let output = persist(store).args(["save", "bot/notes", state]).output();
        assert!(output.expect("persist starts").status.success());
    }
    let [from, to] = [0, 1].map(|at| format!("file://{}", stores[at].display()));
    let args = ["copy", "--json", &from, &to];
    let output = persist(&stores[0]).args(args).output();
    let output = output.expect("persist starts");
    assert_eq!(output.status.code(), Some(4));
    let errors = json(text(&output.stderr));
    let codes: Vec<_> = errors.iter().map(|line| &line["error"]["code"]).collect();
    assert_eq!(codes, ["conflict", "conflict"]);
    let message = errors[0]["error"]["message"].as_str().expect("text");
    assert!(message.starts_with("bot/notes@1: "), "{message}");
    let copied = &json(text(&output.stdout))[0];
    assert_eq!(copied["conflicts"], serde_json::json!([1]));
}
