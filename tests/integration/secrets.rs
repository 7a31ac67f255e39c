//! Secrets in the wrong place: refused by the name of the setting, and shown by no command.

use std::path::Path;
use std::process::{Command, Output};

use persist_tests::proxy::{Fault, Proxy, Reply};
use persist_tests::store::json;
use persist_tests::{persist, run, tempdir, text};

/// Secrets, and bytes of each that must not be printed.
fn secrets() -> Vec<(String, &'static str)> {
    let key_file = concat!(
        "{\n  \"type\": \"service_account\",\n  \"private_key\": ",
        "\"-----BEGIN PRIVATE KEY-----\\nPLANTED\\n\"\n}\n"
    );
    vec![
        (key_file.to_owned(), "PLANTED"),
        (key_file.replace('\n', " "), "PLANTED"),
        // The key file in base64, in one line and broken.
        (
            "ewogICJ0eXBlIjogInNlcnZpY2VfYWNjb3VudCIsCiAgInByaXZhdGVfa2V5IjogIlBMQU5URUQiCn0K"
                .into(),
            "InNlcnZpY2Vf",
        ),
        (
            "ewogICJ0eXBlIjogInNlcnZpY2VfYWNjb3VudCIsCiAgInBy\naXZhdGVfa2V5IjogIlBMQU5URUQiCn0K\n"
                .into(),
            "InNlcnZpY2Vf",
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nPLANTED\n-----END RSA PRIVATE KEY-----\n".into(),
            "PLANTED",
        ),
        ("AKIAPLANTED012345678".into(), "AKIAPLANTED"),
        (
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            "wJalrXUt",
        ),
        (
            "[default]\naws_secret_access_key = PLANTED\n".into(),
            "PLANTED",
        ),
        ("https://user:PLANTED@host.test".into(), "PLANTED"),
        ("gs://my-bucket?X-Goog-Signature=PLANTED".into(), "PLANTED"),
        ("s3://my-bucket/a?sig=PLANTED".into(), "PLANTED"),
        (
            "s3://my-bucket?token=PLANTED&secret=PLANTED".into(),
            "PLANTED",
        ),
        ("ya29.PLANTED0123456789012345".into(), "PLANTED"),
        (
            "FwoGZXIvYXdzEJr//////////wEaDPLANTEDtoken1234567890abcdef".into(),
            "PLANTED",
        ),
    ]
}

/// A server that refuses everything.
fn server() -> Proxy {
    let server = Proxy::start("nowhere");
    server.rule(|_, _| Some(Fault::Reply(Reply::s3(403, "AccessDenied"))));
    server
}

/// A command that would reach the server with whatever backend it uses.
fn command(home: &Path, server: &Proxy) -> Command {
    let mut command = persist(&home.join("store"));
    command
        .env("HOME", home)
        .env("RUST_LOG", "trace")
        .env("AWS_S3_BUCKET", "my-bucket")
        .env("AWS_ACCESS_KEY_ID", "AK")
        .env("AWS_SECRET_ACCESS_KEY", "SK")
        .env("AWS_ENDPOINT_URL_S3", server.endpoint())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("PERSIST_GCS_BUCKET", "my-bucket")
        .env("STORAGE_EMULATOR_HOST", server.endpoint());
    command
}

/// Runs a command and requires that it shows nothing of a secret.
fn hides(command: &mut Command, planted: &str) -> Output {
    let output = command.output().expect("persist starts");
    for said in [&output.stdout, &output.stderr] {
        let said = String::from_utf8_lossy(said);
        assert!(!said.contains(planted), "{command:?}: {said}");
        assert!(!said.contains("panicked"), "{command:?}: {said}");
    }
    output
}

/// The backend that a setting belongs to.
fn backend(name: &str) -> &'static str {
    match name {
        name if name.contains("GCS") || name.contains("GOOGLE") || name.contains("EMULATOR") => {
            "gcs"
        }
        name if name.contains("AWS") || name.contains("S3") => "s3",
        _ => "local",
    }
}

/// All variables that are settings.
fn variables() -> Vec<String> {
    let dir = tempdir();
    let settings = run(dir.path(), &["settings", "--table"]);
    let names = text(&settings.stdout).lines().skip(2).flat_map(|line| {
        let cell = line.split('|').nth(1).expect("a cell");
        let names = cell
            .split(',')
            .map(|name| name.trim().trim_matches('`').to_owned());
        names.collect::<Vec<_>>()
    });
    names.filter(|name| !name.starts_with("--")).collect()
}

#[test]
fn no_command_shows_a_secret_in_a_variable() {
    let home = tempdir();
    let server = server();
    for name in variables() {
        for (secret, planted) in secrets() {
            let with = |args: &[&str]| {
                let mut command = command(home.path(), &server);
                command.env(&name, &secret).args(args);
                hides(&mut command, planted)
            };
            with(&["settings", "--json"]);
            if name == "PERSIST_STORAGE" {
                with(&["ls"]);
                continue;
            }
            with(&["doctor", "--read-only", "--storage", backend(&name)]);
        }
    }
}

#[test]
fn a_secret_in_a_path_is_refused_by_the_name_of_the_setting() {
    let home = tempdir();
    let server = server();
    for name in [
        "PERSIST_LOCAL_PATH",
        "PERSIST_STORAGE",
        "PERSIST_CONFIG",
        "AWS_S3_BUCKET",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_CONFIG_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_PROFILE",
        "PERSIST_S3_KMS_KEY",
        "PERSIST_GCS_BUCKET",
        "PERSIST_GCS_PREFIX",
        "PERSIST_GCS_KMS_KEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
    ] {
        for (secret, planted) in secrets() {
            let mut ls = command(home.path(), &server);
            ls.env(name, &secret).arg("ls");
            if name != "PERSIST_STORAGE" {
                ls.args(["--storage", backend(name)]);
            }
            if name.starts_with("GOOGLE") {
                ls.env_remove("STORAGE_EMULATOR_HOST");
            }
            let output = hides(&mut ls, planted);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{name}={secret:?}: {said}");
            assert!(said.contains(name), "{name}={secret:?}: {said}");
        }
    }
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn no_command_shows_a_secret_in_an_argument() {
    let home = tempdir();
    let server = server();
    for (secret, planted) in secrets() {
        let secret = secret.as_str();
        for args in [
            &["ls", "--storage", secret][..],
            &["settings", "--storage", secret],
            &["doctor", "--storage", secret],
            &["ls", "--config", secret],
            &["ls", secret],
            &["cat", secret],
            &["copy", secret, "file:///tmp"],
            &["copy", "file:///nonexistent", secret],
            &["import", secret],
            &["run", secret],
            &["run", "--limit", secret, "x.wasm"],
            &["prune", "--keep-within", secret],
            &[secret],
        ] {
            hides(command(home.path(), &server).args(args), planted);
        }
    }
}

#[test]
fn no_command_shows_a_secret_in_the_file_of_settings() {
    let home = tempdir();
    let server = server();
    let file = home.path().join("persist.toml");
    let keys: Vec<_> = {
        let settings = run(home.path(), &["settings", "--json"]);
        let keys = json(text(&settings.stdout)).into_iter();
        keys.filter_map(|line| Some(line["key"].as_str()?.to_owned()))
            .filter(|key| !key.is_empty())
            .collect()
    };
    assert!(keys.len() > 10);
    for (secret, planted) in secrets() {
        let quoted = serde_json::to_string(&secret).expect("text");
        let mut contents = vec![
            secret.clone(),
            format!("{quoted} = 1\n"),
            format!("[endpoints.{quoted}]\nprofile = \"a\"\n"),
            format!("[endpoints.\"a\"]\nprofile = {quoted}\n"),
            format!("[endpoints.\"a\"]\n{quoted} = \"a\"\n"),
        ];
        contents.extend(keys.iter().map(|key| format!("{key} = {quoted}\n")));
        for content in contents {
            std::fs::write(&file, &content).expect("written");
            for args in [&["settings"][..], &["ls"]] {
                let mut persist = command(home.path(), &server);
                for name in [
                    "PERSIST_LOCAL_PATH",
                    "AWS_S3_BUCKET",
                    "PERSIST_GCS_BUCKET",
                    "RUST_LOG",
                ] {
                    persist.env_remove(name);
                }
                persist.env("PERSIST_CONFIG", &file).args(args);
                hides(&mut persist, planted);
            }
        }
    }
}
