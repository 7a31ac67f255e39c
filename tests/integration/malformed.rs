//! Keys, files and variables that no request can carry: each is an error that names what is wrong,
//! and none is a panic.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use persist_host::storage::{ErrorKind, S3Credentials, StorageConfig};
use persist_tests::gcs::json;
use persist_tests::proxy::{Fault, Proxy, Reply};
use persist_tests::{persist, tempdir, text};

/// Text that is appended to a value, and text that replaces it.
fn malformed(value: &str) -> Vec<OsString> {
    let mut all: Vec<OsString> = ["\n", "\r\n", "\r", "\u{1}", "\u{7f}", "é", " x"]
        .iter()
        .map(|end| format!("{value}{end}").into())
        .collect();
    all.push(format!("{}\n{value}", &value[..1]).into());
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0xff);
    all.push(OsStr::from_bytes(&bytes).into());
    all
}

/// A server that refuses everything.
fn server() -> Proxy {
    let server = Proxy::start("nowhere");
    server.rule(|_, _| Some(Fault::Reply(Reply::s3(403, "AccessDenied"))));
    server
}

fn command(home: &Path) -> Command {
    let mut command = persist(Path::new(""));
    command
        .env_remove("PERSIST_LOCAL_PATH")
        .env("HOME", home)
        .env("AWS_EC2_METADATA_DISABLED", "true");
    command
}

fn ls_s3(home: &Path, server: &Proxy) -> Command {
    let mut ls = command(home);
    ls.env("AWS_ACCESS_KEY_ID", "AKIATEST")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_SESSION_TOKEN", "token")
        .args(["ls", "--storage"])
        .arg(format!("s3://my-bucket?endpoint={}", server.endpoint()));
    ls
}

/// Runs a command that must end with one of the codes of Persist and without a panic, and returns
/// what it said.
fn ends(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("persist starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked"), "{command:?}: {said}");
    let code = output.status.code();
    assert!(
        code.is_some_and(|code| code <= 10),
        "{command:?} {code:?}: {said}"
    );
    (code, said)
}

#[test]
fn keys_of_the_environment_that_no_request_can_carry_are_refused_by_name() {
    let home = tempdir();
    let server = server();
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIATEST"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_SESSION_TOKEN", "token"),
    ] {
        for value in malformed(value) {
            let (code, said) = ends(ls_s3(home.path(), &server).env(name, &value));
            assert_eq!(code, Some(5), "{name}={value:?}: {said}");
            assert!(said.contains(name), "{name}={value:?}: {said}");
        }
    }
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn keys_of_a_profile_or_a_server_that_no_request_can_carry_are_refused() {
    let home = tempdir();
    let server = server();
    let file = home.path().join("credentials");
    for key in ["AKIA\u{1}TEST", "AKIAé", "AKIA TEST"] {
        let profiles = format!(
            "[default]\naws_access_key_id = {key}\naws_secret_access_key = b\n\
             [role]\nrole_arn = arn:aws:iam::111122223333:role/x\nsource_profile = default\n"
        );
        std::fs::write(&file, profiles).expect("written");
        for profile in ["default", "role"] {
            let mut ls = ls_s3(home.path(), &server);
            ls.env_remove("AWS_ACCESS_KEY_ID")
                .env("AWS_SHARED_CREDENTIALS_FILE", &file)
                .env("AWS_PROFILE", profile);
            let (_, said) = ends(&mut ls);
            assert!(
                said.contains("aws_access_key_id"),
                "{key:?} {profile}: {said}"
            );
        }
        let container = Proxy::start("nowhere");
        let answer = serde_json::json!({
            "AccessKeyId": key, "SecretAccessKey": "b", "Token": "c",
            "Expiration": "2100-01-01T00:00:00Z",
        });
        let answer = answer.to_string();
        container.rule(move |_, _| Some(Fault::Reply(json(200, answer.clone()))));
        let mut ls = ls_s3(home.path(), &server);
        ls.env_remove("AWS_ACCESS_KEY_ID").env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("{}/credentials", container.endpoint()),
        );
        let (code, said) = ends(&mut ls);
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains("access key ID"), "{said}");
    }
    assert_eq!(server.seen().len(), 0);
}

#[test]
fn keys_of_a_program_that_no_request_can_carry_are_refused() {
    for key in ["AKIA\n", "AKIA\0", "é"] {
        let config = StorageConfig {
            s3_credentials: Some(S3Credentials::new(key, "b")),
            ..StorageConfig::s3_with_bucket("my-bucket".into())
        };
        let error = config.build().expect_err("no request can carry it");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("access_key_id"), "{error}");
    }
}

#[test]
fn settings_with_a_line_break_are_refused_by_name() {
    let home = tempdir();
    let server = server();
    let place = home.path().join("store");
    let place = place.to_str().expect("text");
    for (name, storage, value) in [
        ("PERSIST_LOCAL_PATH", "local", place),
        ("PERSIST_CONFIG", "local", "/nonexistent/persist.toml"),
        ("AWS_S3_BUCKET", "s3", "my-bucket"),
        ("AWS_REGION", "s3", "eu-west-1"),
        ("AWS_ENDPOINT_URL_S3", "s3", server.endpoint()),
        ("AWS_PROFILE", "s3", "default"),
        ("AWS_CONFIG_FILE", "s3", "/nonexistent"),
        ("PERSIST_S3_KMS_KEY", "s3", "alias/x"),
        ("PERSIST_GCS_BUCKET", "gcs", "my-bucket"),
        ("PERSIST_GCS_PREFIX", "gcs", "prefix"),
        (
            "PERSIST_GCS_KMS_KEY",
            "gcs",
            "projects/P/locations/L/keyRings/R/cryptoKeys/K",
        ),
        ("STORAGE_EMULATOR_HOST", "gcs", server.endpoint()),
        ("GCE_METADATA_HOST", "gcs", "127.0.0.1:1"),
    ] {
        for value in [format!("{value}\n"), format!("{value}\r")] {
            let mut ls = command(home.path());
            ls.env("AWS_S3_BUCKET", "my-bucket")
                .env("PERSIST_GCS_BUCKET", "my-bucket")
                .env(name, &value)
                .args(["ls", "--storage", storage]);
            let (code, said) = ends(&mut ls);
            assert_eq!(code, Some(2), "{name}={value:?}: {said}");
        }
    }
    assert_eq!(server.seen().len(), 0);
    assert_eq!(
        std::fs::read_dir(home.path()).expect("a directory").count(),
        0
    );
}

/// Commands that run beside each other.
const AT_ONCE: usize = 48;

fn next(commands: &Mutex<Vec<Command>>) -> Option<Command> {
    commands.lock().expect("no panic").pop()
}

#[test]
fn variables_of_libraries_that_make_no_sense_are_no_panic() {
    let home = tempdir();
    let bad_pem = home.path().join("bad.pem");
    std::fs::write(
        &bad_pem,
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    )
    .expect("written");
    let server = server();
    let names = [
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "AWS_EXECUTION_ENV",
        "AWS_SDK_UA_APP_ID",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_LAMBDA_FUNCTION_NAME",
        "_X_AMZN_TRACE_ID",
        "GOOGLE_CLOUD_QUOTA_PROJECT",
        "HOME",
    ];
    let mut values = malformed("http://[::1");
    values.push("http://".into());
    values.push(":::".into());
    values.push(bad_pem.into());
    let mut commands = Vec::new();
    for name in names {
        for value in &values {
            let mut s3 = ls_s3(home.path(), &server);
            // What a proxy does is not the question.
            s3.env("NO_PROXY", "127.0.0.1").env(name, value);
            let mut gcs = command(home.path());
            gcs.env("NO_PROXY", "127.0.0.1")
                .env("STORAGE_EMULATOR_HOST", server.endpoint())
                .env(name, value)
                .args(["ls", "--storage", "gs://my-bucket"]);
            commands.extend([s3, gcs]);
        }
    }
    // Some of these wait until a retry budget is spent, so they wait beside each other.
    let commands = Mutex::new(commands);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(mut command) = next(&commands) {
                    ends(&mut command);
                }
            });
        }
    });
}

#[test]
fn key_files_of_google_that_make_no_sense_are_refused() {
    let home = tempdir();
    let file = home.path().join("key.json");
    for content in [
        "",
        "null",
        "[]",
        "{}",
        "{\"type\":1}",
        "{\"type\":\"nosuch\"}",
        "{\"type\":\"service_account\"}",
        "{\"type\":\"service_account\",\"private_key\":\"PLANTED\",\"private_key_id\":\"a\\n\",\"client_email\":\"b\\n\"}",
        "{\"type\":\"authorized_user\",\"client_id\":\"a\",\"client_secret\":\"PLANTED\",\"refresh_token\":\"PLANTED\",\
         \"token_uri\":\"no url\"}",
        "{\"type\":\"authorized_user\",\"client_id\":\"a\",\"client_secret\":\"PLANTED\",\"refresh_token\":\"PLANTED\",\
         \"token_uri\":\"http://127.0.0.1:1/\",\"quota_project_id\":\"a\\nb\"}",
        "{\"type\":\"external_account\",\"token_url\":\"no url\",\"credential_source\":{\"file\":\"/nonexistent\"}}",
        "{\"type\":\"impersonated_service_account\",\"source_credentials\":{}}",
    ] {
        std::fs::write(&file, content).expect("written");
        let mut ls = command(home.path());
        ls.env("GOOGLE_APPLICATION_CREDENTIALS", &file)
            .env("HTTPS_PROXY", "http://127.0.0.1:1")
            .env("PERSIST_GCS_TIMEOUT", "1")
            .args(["ls", "--storage", "gs://my-bucket"]);
        let output = ls.output().expect("persist starts");
        let said = text(&output.stderr);
        assert!(!said.contains("panicked"), "{content}: {said}");
        assert!(!said.contains("PLANTED"), "{content}: {said}");
        assert!(
            !output.status.success() && output.status.code() != Some(101),
            "{content}: {said}"
        );
    }
}
