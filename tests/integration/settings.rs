//! Settings: what is documented is read, and what is read is documented.

use std::fs;
use std::path::{Path, PathBuf};

use persist_tests::store::json;
use persist_tests::{persist, run, tempdir, text};

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the workspace").to_owned()
}

fn printed(args: &[&str]) -> String {
    let dir = tempdir();
    let output = run(dir.path(), args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

#[test]
fn the_table_in_the_docs_is_the_one_that_the_command_prints() {
    let page = fs::read_to_string(root().join("docs/src/configuration.md")).expect("is there");
    let (_, after) = page.split_once("<!-- settings -->\n").expect("a mark");
    let (table, _) = after
        .split_once("<!-- end of settings -->")
        .expect("a mark");
    let wanted = printed(&["settings", "--table"]);
    assert!(
        table == wanted,
        "put what `persist settings --table` prints between the marks in docs/src/configuration.md"
    );
}

#[test]
fn each_setting_says_where_it_comes_from_and_secrets_are_not_shown() {
    let dir = tempdir();
    for line in json(&printed(&["settings", "--json"])) {
        let name = line["setting"].as_str().expect("text").to_owned();
        let value = match name.as_str() {
            // It must be there.
            "PERSIST_CONFIG" => continue,
            _ => "planted",
        };
        let mut command = persist(dir.path());
        command.env(&name, value).args(["settings", "--json"]);
        let output = command.output().expect("persist starts");
        let code = output.status.code();
        assert!(
            matches!(code, Some(0 | 2)),
            "{name}: {}",
            text(&output.stderr)
        );
        let lines = json(text(&output.stdout));
        let found = lines
            .iter()
            .find(|line| line["setting"] == *name)
            .expect("is there");
        assert_eq!(found["source"], *name);
        let is_secret = name.contains("KEY_ID")
            || name.contains("SECRET_ACCESS")
            || name.contains("SESSION_TOKEN");
        assert_eq!(
            text(&output.stdout).contains("planted"),
            !is_secret,
            "{name}"
        );
    }
}

#[test]
fn a_file_of_settings_is_used_where_nobody_says_otherwise() {
    let dir = tempdir();
    let other = tempdir();
    let file = dir.path().join("persist.toml");
    let there = other.path().display();
    fs::write(
        &file,
        format!("storage = \"file://{there}\"\nkeep_last = 7\n"),
    )
    .expect("writes");
    let command = |args: &[&str]| {
        let mut command = persist(dir.path());
        command.env("PERSIST_CONFIG", &file).args(args);
        command.output().expect("persist starts")
    };
    let said = command(&["ls"]).stderr;
    assert!(text(&said).contains(&there.to_string()), "{}", text(&said));
    let said = command(&["ls", "--storage", "file:///elsewhere"]).stderr;
    assert!(text(&said).contains("/elsewhere"), "{}", text(&said));
    fs::write(&file, "keep_lust = 7\n").expect("writes");
    let refused = command(&["ls"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = text(&refused.stderr);
    assert!(
        said.contains("keep_lust") && said.contains("keep_last"),
        "{said}"
    );
    let missing = run(dir.path(), &["--config", "/no/such/file", "ls"]);
    assert!(text(&missing.stderr).contains("/no/such/file"));
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn an_invalid_value_is_reported_with_its_setting_and_source() {
    let dir = tempdir();
    let file = dir.path().join("persist.toml");
    let path = file.display().to_string();
    let of_file = |key: &str| format!("{key} in {path}");
    for (toml, environment, name, why) in [
        (
            "keep_last = \"many\"",
            None,
            of_file("keep_last"),
            "not a number",
        ),
        (
            "keep_within = 30",
            None,
            of_file("keep_within"),
            "not a duration",
        ),
        ("grace = \"soon\"", None, of_file("grace"), "not a duration"),
        (
            "retention = \"no\"",
            None,
            of_file("retention"),
            "on or off",
        ),
        (
            "[limits]\nmemroy = \"64MiB\"",
            None,
            of_file("limits"),
            "memroy",
        ),
        (
            "[limits]\nmemory = \"64 parsecs\"",
            None,
            of_file("limits"),
            "64 parsecs",
        ),
        (
            "",
            Some(("PERSIST_LIMITS", "foo")),
            "PERSIST_LIMITS".into(),
            "NAME=VALUE",
        ),
        (
            "",
            Some(("PERSIST_KEEP_DAILY", "-1")),
            "PERSIST_KEEP_DAILY".into(),
            "not a number",
        ),
        (
            "",
            Some(("PERSIST_GCS_TIMEOUT", "x")),
            "PERSIST_GCS_TIMEOUT".into(),
            "not a number",
        ),
        ("", Some(("RUST_LOG", "a=b=c")), "RUST_LOG".into(), "a=b=c"),
    ] {
        fs::write(&file, toml).expect("writes");
        for args in [&["settings"][..], &["doctor"], &["doctor", "--read-only"]] {
            let mut command = persist(dir.path());
            command.env("PERSIST_CONFIG", &file).args(args);
            command.envs(environment);
            let output = command.output().expect("persist starts");
            let printed = text(&output.stdout);
            let said = text(&output.stderr);
            let told = format!("{printed}{said}");
            assert_eq!(output.status.code(), Some(2), "{name}: {args:?}: {told}");
            assert!(
                told.contains(&name) && told.contains(why),
                "{name}: {args:?}: {told}"
            );
            // The other checks are made all the same.
            let is_exam = args[0] == "doctor";
            assert_eq!(printed.contains("ok     reach"), is_exam, "{printed}");
        }
    }
}

#[test]
fn a_wrong_setting_is_an_error_of_every_command() {
    let dir = tempdir();
    let file = dir.path().join("persist.toml");
    for (toml, environment, what, hint) in [
        (
            "keep_lsat = 3",
            None,
            "keep_lsat",
            "did you mean keep_last?",
        ),
        (
            "keep_last = \"many\"",
            None,
            "keep_last in ",
            "write a whole number",
        ),
        (
            "[limits]\nmemroy = 3",
            None,
            "limits in ",
            "did you mean memory?",
        ),
        (
            "",
            Some(("PERSIST_LIMITS", "memory=64 parsecs")),
            "PERSIST_LIMITS",
            "--help",
        ),
        (
            "",
            Some(("PERSIST_GRACE", "31d")),
            "PERSIST_GRACE",
            "at most 30d",
        ),
        (
            "",
            Some(("PERSIST_RETENSION", "off")),
            "PERSIST_RETENSION",
            "did you mean PERSIST_RETENTION?",
        ),
    ] {
        fs::write(&file, toml).expect("writes");
        for args in [
            &["ls"][..],
            &["save", "bot/memory", "Cargo.toml"],
            &["check"],
            &["prune"],
        ] {
            let mut command = persist(dir.path());
            command.env("PERSIST_CONFIG", &file).envs(environment);
            let output = command.args(args).output().expect("persist starts");
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{what}: {args:?}: {said}");
            assert!(said.starts_with("error: ") && said.contains(what), "{said}");
            assert!(said.contains("\nhint: ") && said.contains(hint), "{said}");
        }
    }
    // A setting of a storage that is not used may be wrong.
    let mut command = persist(dir.path());
    command.env("PERSIST_GCS_TIMEOUT", "soon").arg("ls");
    assert!(command.output().expect("persist starts").status.success());
}

#[test]
fn the_values_that_hold_by_default_are_shown() {
    let dir = tempdir();
    let output = persist(dir.path())
        .env("HOME", "/home/operator")
        .env("PERSIST_KEEP_LAST", "7")
        .env("PERSIST_OF_ANOTHER_PROGRAM", "1")
        .args(["settings", "--json"])
        .output();
    let output = output.expect("persist starts");
    let lines = json(text(&output.stdout));
    for (name, value, effective) in [
        ("PERSIST_KEEP_LAST", Some("7"), "7"),
        ("PERSIST_KEEP_DAILY", None, "30"),
        ("PERSIST_GRACE", None, "1h"),
        ("AWS_CONFIG_FILE", None, "/home/operator/.aws/config"),
    ] {
        let line = lines.iter().find(|line| line["setting"] == name);
        let line = line.expect("a setting");
        assert_eq!(line["value"].as_str(), value, "{name}");
        assert_eq!(line["effective"].as_str(), Some(effective), "{name}");
    }
    let said = text(&output.stderr);
    assert!(
        said.contains("PERSIST_OF_ANOTHER_PROGRAM is not a setting"),
        "{said}"
    );
}
