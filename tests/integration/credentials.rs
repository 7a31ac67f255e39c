//! Which servers are sent credentials. A fake server records what arrives, since a real one cannot
//! show it; it stands in for every host by being the HTTP proxy of the command, which sees plain
//! requests whole, and of encrypted ones the host.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use persist_tests::gcs::json;
use persist_tests::proxy::{Fault, Proxy, Reply, Seen};
use persist_tests::{persist, tempdir, text};
use tempfile::TempDir;

pub(crate) const KEY_ID: &str = "AKIAPLANTED000000000";
pub(crate) const SECRET: &str = "plantedsecretplantedsecretplantedsecret0";
pub(crate) const TOKEN: &str = "PLANTED-TOKEN";

/// A server that refuses everything.
fn recorder() -> Proxy {
    let recorder = Proxy::start("nowhere");
    recorder.rule(|_, _| Some(Fault::Reply(Reply::s3(403, "AccessDenied"))));
    recorder
}

/// A server that gives out a planted token.
fn token_server() -> Proxy {
    let server = Proxy::start("nowhere");
    let body = format!(
        "{{\"access_token\":\"{TOKEN}\",\"expires_in\":3600,\"token_type\":\"Bearer\",\"issued_token_type\":\"urn:ietf:params:oauth:token-type:access_token\"}}"
    );
    server.rule(move |_, _| Some(Fault::Reply(json(200, body.clone()))));
    server
}

/// A home with the files that a test writes, and a command whose requests all go through
/// `recorder`.
pub(crate) struct Home {
    pub(crate) dir: TempDir,
    pub(crate) recorder: Proxy,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempdir(),
            recorder: recorder(),
        }
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let parent = path.parent().expect("a directory");
        std::fs::create_dir_all(parent).expect("made");
        std::fs::write(&path, content).expect("written");
        path
    }

    /// Lists the store at `url`.
    pub(crate) fn ls(&self, url: &str) -> Command {
        self.persist(&["ls", "--storage", url])
    }

    /// The command with these arguments.
    pub(crate) fn persist(&self, args: &[&str]) -> Command {
        let mut command = persist(Path::new(""));
        command
            .env_remove("PERSIST_LOCAL_PATH")
            .env("HOME", self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("HTTP_PROXY", self.recorder.endpoint())
            .env("HTTPS_PROXY", self.recorder.endpoint())
            .env("NO_PROXY", "127.0.0.1")
            .args(args);
        command
    }

    /// Runs a command that must be refused as it stands, before any request.
    pub(crate) fn refused(&self, command: &mut Command, hint: &str) {
        let output = command.output().expect("persist starts");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {said}");
        assert!(said.contains(hint), "{command:?}: {said}");
        assert_eq!(self.hosts(), [""; 0], "{command:?}");
        for planted in [KEY_ID, SECRET, TOKEN] {
            assert!(!said.contains(planted), "{said}");
        }
    }

    /// Runs a command until its first request arrives, and returns that.
    pub(crate) fn first(&self, command: &mut Command) -> Seen {
        self.recorder.forget();
        self.recorder
            .rule(|_, _| Some(Fault::Reply(Reply::s3(403, "AccessDenied"))));
        let stderr = self.dir.path().join("stderr");
        let file = std::fs::File::create(&stderr).expect("made");
        let mut child = command
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("persist starts");
        loop {
            let ended = child.try_wait().expect("a child").is_some();
            if let Some(seen) = self.recorder.seen().into_iter().next() {
                let _ = child.kill();
                let _ = child.wait();
                return seen;
            }
            let said = || std::fs::read_to_string(&stderr).unwrap_or_default();
            assert!(!ended, "{command:?} sent nothing: {}", said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The hosts that were asked.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let seen = self.recorder.seen();
        let host = |seen: &Seen| seen.uri.authority().map(ToString::to_string);
        seen.iter()
            .map(|seen| host(seen).unwrap_or_default())
            .collect()
    }
}

pub(crate) fn with_keys(command: &mut Command) -> &mut Command {
    command
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_SESSION_TOKEN", TOKEN)
}

pub(crate) fn host(seen: &Seen) -> String {
    seen.uri
        .authority()
        .map(ToString::to_string)
        .unwrap_or_default()
}

pub(crate) fn holds(seen: &Seen, planted: &str) -> bool {
    format!("{:?} {:?}", seen.headers, seen.uri).contains(planted)
}

/// Profiles of a server that is not Amazon's.
fn profiles() -> String {
    format!(
        "[profile minio]\nregion = eu-west-1\nendpoint_url = \
         https://minio.test\naws_access_key_id = {KEY_ID}\n\
         aws_secret_access_key = {SECRET}\n\
         [profile services]\nservices = ours\naws_access_key_id = {KEY_ID}\naws_secret_access_key \
         = {SECRET}\n\
         [services ours]\ns3 =\n  endpoint_url = https://minio.test\n\
         [profile plain]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n\
         [profile role]\nrole_arn = arn:aws:iam::111122223333:role/x\nsource_profile = minio\n\
         [default]\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n"
    )
}

#[test]
fn keys_of_the_environment_do_not_go_where_a_url_points() {
    let home = Home::new();
    for endpoint in [
        "http://evil.test",
        "https://evil.test",
        "https://s3.amazonaws.com.evil.test",
        "https://s3-1.us-east-1.elb.amazonaws.com",
        "http://s3.us-east-1.amazonaws.com",
    ] {
        let url = format!("s3://my-bucket?endpoint={endpoint}");
        home.refused(with_keys(&mut home.ls(&url)), "bound");
        home.write(".aws/config", &profiles());
        home.refused(&mut home.ls(&url), "bound");
        home.refused(&mut home.ls(&format!("{url}&profile=plain")), "bound");
        home.refused(&mut home.ls(&format!("{url}&profile=minio")), "bound");
    }
}

#[test]
fn environment_keys_go_to_the_endpoint_beside_them_over_tls() {
    let home = Home::new();
    let ls = |endpoint: &str| {
        let mut ls = home.ls("s3://my-bucket");
        with_keys(&mut ls).env("AWS_ENDPOINT_URL", endpoint);
        ls
    };
    assert_eq!(
        host(&home.first(&mut ls("https://minio.test:9000"))),
        "minio.test:9000"
    );
    home.recorder.forget();
    let http = "http://minio.test:9000";
    home.refused(&mut ls(http), "PERSIST_S3_ALLOW_HTTP=minio.test:9000");
    let mut other = ls(http);
    home.refused(
        other.env("PERSIST_S3_ALLOW_HTTP", "other.test:9000"),
        "plain HTTP",
    );
    let mut allowed = ls(http);
    allowed.env("PERSIST_S3_ALLOW_HTTP", "other.test,minio.test:9000");
    let seen = home.first(&mut allowed);
    assert_eq!(host(&seen), "minio.test:9000");
    assert!(holds(&seen, KEY_ID), "{seen:?}");
}

#[test]
fn keys_of_a_profile_go_to_the_endpoint_of_the_profile() {
    let home = Home::new();
    home.write(".aws/config", &profiles());
    for profile in ["minio", "services"] {
        let url = format!("s3://my-bucket?profile={profile}");
        assert_eq!(host(&home.first(&mut home.ls(&url))), "minio.test:443");
        let mut by_variable = home.ls("s3://my-bucket");
        by_variable.env("AWS_PROFILE", profile);
        assert_eq!(host(&home.first(&mut by_variable)), "minio.test:443");
        let same = format!("{url}&endpoint=https://minio.test");
        assert_eq!(host(&home.first(&mut home.ls(&same))), "minio.test:443");
        home.recorder.forget();
        let amazon = format!("{url}&endpoint=https://s3.eu-west-1.amazonaws.com");
        home.refused(&mut home.ls(&amazon), "another endpoint_url");
    }
    home.refused(&mut home.ls("s3://my-bucket?profile=role"), "STS");
    let mut variable = home.ls("s3://my-bucket?profile=plain");
    home.refused(
        variable.env("AWS_ENDPOINT_URL_S3", "https://minio.test"),
        "bound",
    );
    // The default profile was not chosen for this endpoint.
    let mut implicit = home.ls("s3://my-bucket");
    home.refused(
        implicit.env("AWS_ENDPOINT_URL_S3", "https://minio.test"),
        "bound",
    );
    let mut chosen = home.ls("s3://my-bucket");
    chosen
        .env("AWS_ENDPOINT_URL_S3", "https://minio.test")
        .env("AWS_PROFILE", "plain");
    assert_eq!(host(&home.first(&mut chosen)), "minio.test:443");
    let seen = home.first(&mut home.ls("s3://my-bucket?profile=plain"));
    assert_eq!(host(&seen), "my-bucket.s3.us-east-1.amazonaws.com:443");
}

#[test]
fn environment_keys_do_not_go_to_the_default_profiles_endpoint() {
    let home = Home::new();
    home.write(
        ".aws/config",
        "[default]\nendpoint_url = https://minio.test\n",
    );
    home.refused(with_keys(&mut home.ls("s3://my-bucket")), "bound");
}

#[test]
fn the_file_of_settings_binds_keys_to_an_endpoint() {
    let home = Home::new();
    home.write(".aws/config", &profiles());
    let settings = |table: &str| {
        home.write(
            "config/persist/persist.toml",
            &format!("[endpoints.\"minio.test:9000\"]\n{table}\n"),
        );
    };
    let url = "s3://my-bucket?endpoint=http://minio.test:9000";
    settings("profile = \"plain\"");
    home.refused(&mut home.ls(url), "plain HTTP");
    settings("profile = \"plain\"\nallow_http = true");
    let seen = home.first(&mut home.ls(url));
    assert!(
        host(&seen) == "minio.test:9000" && holds(&seen, KEY_ID),
        "{seen:?}"
    );
    settings("credential_source = \"environment\"\nallow_http = true");
    let seen = home.first(with_keys(&mut home.ls(url)));
    assert!(
        host(&seen) == "minio.test:9000" && holds(&seen, TOKEN),
        "{seen:?}"
    );
    home.recorder.forget();
    home.refused(&mut home.ls(url), "AWS_ACCESS_KEY_ID");
    home.refused(
        with_keys(&mut home.ls("s3://my-bucket?endpoint=http://minio.test:9001")),
        "bound",
    );
    settings("profile = \"plain\"");
    home.refused(
        &mut home.ls(&format!("{url}&profile=minio")),
        "another profile",
    );
    for bad in [
        "profile = 1",
        "profil = \"a\"",
        "allow_http = \"yes\"",
        "credential_source = \"x\"",
    ] {
        settings(bad);
        home.refused(&mut home.ls(url), "endpoints.");
    }
}

/// A file of Google's whose token comes from `server`.
fn user(server: &Proxy) -> String {
    format!(
        "{{\"type\":\"authorized_user\",\"client_id\":\"a\",\"client_secret\":\"b\",\"refresh_token\":\"c\",\
         \"token_uri\":\"{}/token\"}}",
        server.endpoint()
    )
}

#[test]
fn googles_token_does_not_go_to_an_emulator_or_where_a_url_points() {
    let home = Home::new();
    let tokens = token_server();
    let file = home.write("key.json", &user(&tokens));
    let settings = format!("gcs_credentials = \"{}\"\n", file.display());
    home.write("config/persist/persist.toml", &settings);
    for endpoint in [
        "http://evil.test",
        "https://evil.test",
        "https://evil.test:8443",
    ] {
        for (url, variable) in [
            (format!("gs://my-bucket?endpoint={endpoint}"), None),
            ("gs://my-bucket".to_owned(), Some(endpoint)),
        ] {
            let mut ls = home.ls(&url);
            ls.env("GOOGLE_APPLICATION_CREDENTIALS", &file);
            if let Some(endpoint) = variable {
                ls.env("STORAGE_EMULATOR_HOST", endpoint);
            }
            let seen = home.first(&mut ls);
            assert!(host(&seen).starts_with("evil.test"), "{seen:?}");
            assert!(!holds(&seen, TOKEN) && !holds(&seen, "earer"), "{seen:?}");
        }
    }
    assert_eq!(tokens.seen().len(), 0, "no token was needed");
    let url = format!("gs://my-bucket?credentials={}", file.display());
    home.recorder.forget();
    home.refused(&mut home.ls(&url), "GOOGLE_APPLICATION_CREDENTIALS");
}

#[test]
fn googles_token_goes_to_google_and_to_the_endpoint_that_it_is_bound_to() {
    let home = Home::new();
    let tokens = token_server();
    let file = home.write("key.json", &user(&tokens));
    let mut google = home.ls("gs://my-bucket");
    google.env("GOOGLE_APPLICATION_CREDENTIALS", &file);
    assert_eq!(host(&home.first(&mut google)), "storage.googleapis.com:443");
    assert_eq!(tokens.seen().len(), 1);

    // Redirects lead elsewhere, and are not followed.
    let bound = Proxy::start("nowhere");
    let elsewhere = recorder();
    let to = format!("{}/b/o", elsewhere.endpoint());
    bound.rule(move |number, _| {
        let status = [301, 302, 303, 307, 308][number.min(4)];
        Some(Fault::Reply(
            json(status, "{}").header("location", to.clone()),
        ))
    });
    let place = bound.endpoint().trim_start_matches("http://");
    let settings = format!(
        "[endpoints.\"{place}\"]\ngcs_credentials = \"{}\"\n",
        file.display()
    );
    home.write("config/persist/persist.toml", &settings);
    let url = format!("gs://my-bucket?endpoint={}", bound.endpoint());
    for _ in 0..5 {
        let output = home.ls(&url).output().expect("persist starts");
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
    let seen = bound.seen();
    // A command may ask again before it gives up.
    assert!(seen.len() >= 5, "{seen:?}");
    assert!(seen.iter().all(|seen| holds(seen, TOKEN)), "{seen:?}");
    assert_eq!(elsewhere.seen().len(), 0);

    let settings = "[endpoints.\"gcs.test\"]\ngcs_credentials = \"../../key.json\"\n";
    home.write("config/persist/persist.toml", settings);
    home.recorder.forget();
    home.refused(
        &mut home.ls("gs://my-bucket?endpoint=http://gcs.test"),
        "plain HTTP",
    );
    let encrypted = home.first(&mut home.ls("gs://my-bucket?endpoint=https://gcs.test"));
    assert_eq!(host(&encrypted), "gcs.test:443");
}

#[test]
fn redirects_of_s3_are_not_followed() {
    let home = Home::new();
    let elsewhere = recorder();
    for status in [301, 302, 303, 307, 308] {
        let server = Proxy::start("nowhere");
        let to = format!("{}/my-bucket", elsewhere.endpoint());
        server.rule(move |_, _| {
            Some(Fault::Reply(
                Reply::new(status, "").header("location", to.clone()),
            ))
        });
        let url = format!("s3://my-bucket?endpoint={}", server.endpoint());
        let output = with_keys(&mut home.ls(&url))
            .output()
            .expect("persist starts");
        assert!(!output.status.success(), "{status}");
        assert!(holds(&server.seen()[0], KEY_ID), "{status}");
        assert_eq!(elsewhere.seen().len(), 0, "{status}");
    }
}

#[test]
fn the_scope_of_a_token_is_that_of_objects() {
    let home = Home::new();
    let tokens = token_server();
    let subject = home.write("subject", "planted-subject");
    let file = home.write(
        "key.json",
        &format!(
            "{{\"type\":\"external_account\",\"audience\":\"a\",\"subject_token_type\":\"urn:ietf:params:oauth:token-type:jwt\",\
             \"token_url\":\"{}/token\",\"credential_source\":{{\"file\":\"{}\"}}}}",
            tokens.endpoint(),
            subject.display()
        ),
    );
    let mut ls = home.ls("gs://my-bucket");
    ls.env("GOOGLE_APPLICATION_CREDENTIALS", &file);
    home.first(&mut ls);
    let asked = tokens.seen();
    let body = text(&asked[0].body_start);
    assert!(body.contains("devstorage.read_write"), "{body}");
    assert!(!body.contains("cloud-platform"), "{body}");
}

#[test]
fn no_account_of_google_is_said_without_a_long_search() {
    let home = Home::new();
    let output = home.ls("gs://my-bucket").output().expect("persist starts");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("GOOGLE_APPLICATION_CREDENTIALS"), "{said}");
    let asked = home.recorder.seen().len();
    assert!(asked <= 4, "the metadata server was asked {asked} times");
}
