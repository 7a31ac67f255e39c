//! Settings of Amazon's own tools, as docs/src/s3.md lists them: each is honoured, or refused by
//! name. A fake server records where requests go, as in `credentials`: no real one can stand in for
//! the hosts of Amazon.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use persist_tests::proxy::{Fault, Proxy, Reply, Seen};
use persist_tests::text;

use crate::credentials::{Home, KEY_ID, SECRET, TOKEN, holds, host, with_keys};

const BUCKET: &str = "s3://my-bucket";

/// A `~/.aws/config` with the keys of a profile and more settings.
fn profile(name: &str, settings: &str) -> String {
    let section = match name {
        "default" => "[default]".to_owned(),
        name => format!("[profile {name}]"),
    };
    format!(
        "{section}\naws_access_key_id = {KEY_ID}\naws_secret_access_key = {SECRET}\n{settings}\n"
    )
}

/// Returns the host that a command asks first, with variables and with the settings of the profile.
fn asked(home: &Home, url: &str, variables: &[(&str, &str)], settings: &str) -> String {
    home.write(".aws/config", &profile("default", settings));
    let mut ls = home.ls(url);
    host(&home.first(ls.envs(variables.iter().copied())))
}

#[test]
fn the_region_comes_from_the_places_that_amazons_tools_ask_in_their_order() {
    let home = Home::new();
    let profile = "region = eu-west-3";
    for (url, variables, settings, region) in [
        (
            "s3://my-bucket?region=eu-north-1",
            &[("AWS_REGION", "eu-west-1")][..],
            profile,
            "eu-north-1",
        ),
        (
            BUCKET,
            &[
                ("AWS_REGION", "eu-west-1"),
                ("AWS_DEFAULT_REGION", "eu-west-2"),
            ],
            profile,
            "eu-west-1",
        ),
        (
            BUCKET,
            &[("AWS_DEFAULT_REGION", "eu-west-2")],
            profile,
            "eu-west-2",
        ),
        (BUCKET, &[("AWS_REGION", "")], profile, "eu-west-3"),
        (BUCKET, &[], "", "us-east-1"),
    ] {
        let wanted = format!("my-bucket.s3.{region}.amazonaws.com:443");
        assert_eq!(
            asked(&home, url, variables, settings),
            wanted,
            "{variables:?}"
        );
    }
}

#[test]
fn endpoints_of_amazon_are_chosen_as_the_environment_and_the_profile_say() {
    let home = Home::new();
    let west = "region = us-west-2\n";
    for (variables, settings, wanted) in [
        (
            &[("AWS_USE_FIPS_ENDPOINT", "true")][..],
            "",
            "s3-fips.us-west-2",
        ),
        (&[], "use_fips_endpoint = TRUE", "s3-fips.us-west-2"),
        (
            &[("AWS_USE_FIPS_ENDPOINT", "false")],
            "use_fips_endpoint = true",
            "s3.us-west-2",
        ),
        (
            &[("AWS_USE_DUALSTACK_ENDPOINT", "true")],
            "",
            "s3.dualstack.us-west-2",
        ),
        (
            &[],
            "use_dualstack_endpoint = true",
            "s3.dualstack.us-west-2",
        ),
        (
            &[],
            "s3 =\n  use_dualstack_endpoint = true",
            "s3.dualstack.us-west-2",
        ),
        (
            &[
                ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
                ("AWS_USE_FIPS_ENDPOINT", "true"),
            ],
            "",
            "s3-fips.dualstack.us-west-2",
        ),
        (
            &[],
            "s3 =\n  use_accelerate_endpoint = true",
            "s3-accelerate",
        ),
    ] {
        let settings = format!("{west}{settings}");
        let asked = asked(&home, BUCKET, variables, &settings);
        let wanted = format!("my-bucket.{wanted}.amazonaws.com:443");
        assert_eq!(asked, wanted, "{variables:?} {settings}");
    }
}

#[test]
fn configured_endpoints_are_ignored_where_this_is_set() {
    let home = Home::new();
    let endpoint = "endpoint_url = https://minio.test";
    let ignored = "ignore_configured_endpoint_urls = true";
    let amazon = "my-bucket.s3.us-east-1.amazonaws.com:443";
    for (variables, settings, wanted) in [
        (&[][..], endpoint, "minio.test:443"),
        (
            &[("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")],
            endpoint,
            amazon,
        ),
        (
            &[
                ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
                ("AWS_ENDPOINT_URL_S3", "https://minio.test"),
            ],
            "",
            amazon,
        ),
        (&[], &format!("{endpoint}\n{ignored}"), amazon),
        (
            &[("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "false")],
            &format!("{endpoint}\n{ignored}"),
            "minio.test:443",
        ),
    ] {
        let asked = asked(&home, BUCKET, variables, settings);
        assert_eq!(asked, wanted, "{variables:?} {settings}");
    }
}

#[test]
fn the_bucket_is_in_the_path_or_in_the_host_as_every_source_of_settings_can_say() {
    let home = Home::new();
    let server = "http://localhost:9";
    let in_path = "s3.us-east-1.amazonaws.com:443";
    let in_host = "my-bucket.localhost:9";
    let at_server = [("AWS_ENDPOINT_URL", server)];
    let toml = |content: &str| {
        home.write("config/persist/persist.toml", content);
    };
    for (url, variables, settings, file, wanted) in [
        (BUCKET, &at_server[..], "", "", "localhost:9"),
        (
            "s3://my-bucket?path_style=false",
            &at_server,
            "",
            "",
            in_host,
        ),
        ("s3://my-bucket?path_style=true", &[], "", "", in_path),
        (
            BUCKET,
            &[at_server[0], ("PERSIST_S3_PATH_STYLE", "false")],
            "",
            "",
            in_host,
        ),
        (
            BUCKET,
            &[("PERSIST_S3_PATH_STYLE", "true")],
            "",
            "",
            in_path,
        ),
        (BUCKET, &at_server, "", "s3_path_style = false", in_host),
        (BUCKET, &[], "", "s3_path_style = \"true\"", in_path),
        (
            BUCKET,
            &at_server,
            "s3 =\n  addressing_style = virtual",
            "",
            in_host,
        ),
        (BUCKET, &[], "s3 =\n  addressing_style = path", "", in_path),
        (
            BUCKET,
            &[("PERSIST_S3_PATH_STYLE", "true")],
            "s3 =\n  addressing_style = virtual",
            "s3_path_style = false",
            in_path,
        ),
    ] {
        toml(file);
        let asked = asked(&home, url, variables, settings);
        assert_eq!(asked, wanted, "{url} {variables:?} {settings} {file}");
    }
}

#[test]
fn the_doctor_tells_that_a_server_takes_the_bucket_in_the_host_only() {
    let home = Home::new();
    home.recorder.rule(|_, seen| {
        let empty = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
        let reply = match host(seen) {
            host if host.starts_with("my-bucket.") => {
                Reply::new(200, empty).header("date", "Sun, 22 Nov 2026 10:00:00 GMT")
            }
            _ => Reply::s3(403, "SecondLevelDomainForbidden"),
        };
        Some(Fault::Reply(reply))
    });
    let url = "s3://my-bucket?endpoint=http://localhost:9";
    let mut ls = home.ls(url);
    let output = with_keys(&mut ls).output().expect("persist starts");
    let said = text(&output.stderr);
    assert!(
        said.contains("hint: set PERSIST_S3_PATH_STYLE=false"),
        "{said}"
    );
    let mut doctor = home.persist(&["doctor", "--read-only", "--storage", url]);
    let output = with_keys(&mut doctor).output().expect("persist starts");
    let printed = text(&output.stdout);
    assert!(
        printed.contains("hint: set PERSIST_S3_PATH_STYLE=false, which this server accepts"),
        "{printed}"
    );
}

#[test]
fn an_app_id_is_in_the_user_agent() {
    let home = Home::new();
    home.write(
        ".aws/config",
        &profile("default", "sdk_ua_app_id = of-profile"),
    );
    for (variables, wanted) in [
        (&[][..], "app/of-profile"),
        (&[("AWS_SDK_UA_APP_ID", "of-variable")], "app/of-variable"),
    ] {
        let mut ls = home.ls("s3://my-bucket?endpoint=http://localhost:9");
        let seen = home.first(ls.envs(variables.iter().copied()));
        let agent = seen.header("user-agent").unwrap_or_default();
        assert!(agent.contains(wanted), "{agent}");
    }
}

/// A setting that is refused: variables, the settings of the profile, the URL, and what the message
/// says.
type Refused = (
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
    &'static str,
);

const REFUSED: &[Refused] = &[
    (
        &[("AWS_DEFAULT_PROFILE", "minio")],
        "",
        BUCKET,
        "set AWS_PROFILE",
    ),
    (
        &[("AWS_USE_FIPS_ENDPOINT", "yes")],
        "",
        BUCKET,
        "AWS_USE_FIPS_ENDPOINT",
    ),
    (
        &[
            ("AWS_USE_FIPS_ENDPOINT", "true"),
            ("AWS_ENDPOINT_URL", "http://localhost:9"),
        ],
        "",
        BUCKET,
        "unset AWS_USE_FIPS_ENDPOINT",
    ),
    (
        &[],
        "use_dualstack_endpoint = true",
        "s3://my-bucket?endpoint=http://localhost:9",
        "use_dualstack_endpoint of the AWS profile \"default\"",
    ),
    (
        &[],
        "s3 =\n  use_accelerate_endpoint = true",
        "s3://my-bucket?endpoint=http://localhost:9",
        "unset s3.use_accelerate_endpoint",
    ),
    (
        &[("AWS_USE_FIPS_ENDPOINT", "true")],
        "s3 =\n  use_accelerate_endpoint = true",
        BUCKET,
        "exclude each other",
    ),
    (
        &[("PERSIST_S3_PATH_STYLE", "true")],
        "s3 =\n  use_accelerate_endpoint = true",
        BUCKET,
        "PERSIST_S3_PATH_STYLE=false",
    ),
    (
        &[("PERSIST_S3_PATH_STYLE", "auto")],
        "",
        BUCKET,
        "not true or false",
    ),
    (&[], "", "s3://my-bucket?path_style=1", "path_style=false"),
    (
        &[],
        "s3 =\n  addressing_style = dns",
        BUCKET,
        "auto, path or virtual",
    ),
    (&[], "s3 =\n  signature_version = s3", BUCKET, "s3v4"),
    (
        &[("AWS_AUTH_SCHEME_PREFERENCE", "sigv4a")],
        "",
        BUCKET,
        "sigv4",
    ),
    (
        &[],
        "auth_scheme_preference = sigv4a,noAuth",
        BUCKET,
        "sigv4",
    ),
    (
        &[("AWS_REQUEST_CHECKSUM_CALCULATION", "never")],
        "",
        BUCKET,
        "AWS_REQUEST_CHECKSUM_CALCULATION",
    ),
    (
        &[],
        "request_checksum_calculation = never",
        BUCKET,
        "when_required",
    ),
    (&[], "", "s3://my-bucket?checksums=off", "when_required"),
    (
        &[("PERSIST_S3_ENCRYPTION", "aws:kms:dsse")],
        "",
        BUCKET,
        "AES256 or aws:kms",
    ),
    (
        &[("PERSIST_S3_KMS_KEY", "AES256")],
        "",
        BUCKET,
        "PERSIST_S3_ENCRYPTION=AES256",
    ),
    (
        &[
            ("PERSIST_S3_KMS_KEY", "alias/x"),
            ("PERSIST_S3_ENCRYPTION", "AES256"),
        ],
        "",
        BUCKET,
        "unset PERSIST_S3_KMS_KEY",
    ),
    (
        &[],
        "",
        "s3://my-bucket?encryption=none",
        "AES256 or aws:kms",
    ),
    (
        &[("AWS_CA_BUNDLE", "/nonexistent")],
        "",
        BUCKET,
        "AWS_CA_BUNDLE",
    ),
    (
        &[],
        "ca_bundle = /dev/null",
        BUCKET,
        "contains no certificate",
    ),
    (
        &[("AWS_SDK_UA_APP_ID", "a b")],
        "",
        BUCKET,
        "AWS_SDK_UA_APP_ID",
    ),
    (
        &[("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "1")],
        "",
        BUCKET,
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    ),
    (
        &[
            ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true"),
            ("AWS_ENDPOINT_URL", "https://minio.test"),
        ],
        "role_arn = arn:aws:iam::111122223333:role/x\nsource_profile = default",
        BUCKET,
        "unset AWS_ENDPOINT_URL",
    ),
    (
        &[],
        "",
        "s3://arn:aws:s3:us-west-2:111122223333:accesspoint/x",
        "bucket",
    ),
    (
        &[],
        "",
        "s3://my-bucket--usw2-az1--x-s3",
        "directory bucket",
    ),
];

#[test]
fn a_setting_that_cannot_be_honoured_is_refused_by_name() {
    let home = Home::new();
    for (variables, settings, url, hint) in REFUSED {
        home.write(".aws/config", &profile("default", settings));
        home.refused(home.ls(url).envs(variables.iter().copied()), hint);
    }
}

/// Runs a command that has no usable credentials, and returns its message.
fn unauthenticated(home: &Home, command: &mut Command) -> String {
    let output = command.output().expect("persist starts");
    let said = text(&output.stderr).to_owned();
    assert_eq!(output.status.code(), Some(5), "{command:?}: {said}");
    assert_eq!(home.hosts(), [""; 0], "{command:?}");
    for planted in [KEY_ID, SECRET, TOKEN] {
        assert!(!said.contains(planted), "{said}");
    }
    said
}

#[test]
fn credentials_that_are_not_built_in_are_refused_with_the_command_that_gets_them() {
    let home = Home::new();
    let role = "role_arn = arn:aws:iam::111122223333:role/x\nsource_profile = keys\n";
    for settings in [
        "login_session = arn:aws:iam::111122223333:user/x".to_owned(),
        format!("{role}mfa_serial = arn:aws:iam::111122223333:mfa/x"),
    ] {
        let config = format!("[default]\n{settings}\n{}", profile("keys", ""));
        home.write(".aws/config", &config);
        let said = unauthenticated(&home, &mut home.ls(BUCKET));
        assert!(said.contains("aws configure export-credentials"), "{said}");
    }
    home.write(".aws/config", "");
    let mut old = home.ls(BUCKET);
    old.env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_SECURITY_TOKEN", TOKEN);
    let said = unauthenticated(&home, &mut old);
    assert!(said.contains("AWS_SESSION_TOKEN"), "{said}");
}

#[test]
fn a_credential_process_provides_keys() {
    let home = Home::new();
    let keys = format!(
        "{{\"Version\": 1, \"AccessKeyId\": \"{KEY_ID}\", \"SecretAccessKey\": \"{SECRET}\", \
         \"SessionToken\": \"{TOKEN}\"}}"
    );
    let file = home.write("keys.json", &keys);
    let process = |command: &str| {
        let config = format!("[default]\ncredential_process = {command}\n");
        home.write(".aws/config", &config);
    };
    process(&format!("/bin/cat {}", file.display()));
    let seen = home.first(&mut home.ls("s3://my-bucket?endpoint=http://localhost:9"));
    assert!(holds(&seen, KEY_ID) && holds(&seen, TOKEN), "{seen:?}");
    home.recorder.forget();
    // A program may print what it should not.
    process(&format!(
        "/bin/sh -c \"cat {} >&2; exit 1\"",
        file.display()
    ));
    let said = unauthenticated(&home, &mut home.ls(BUCKET));
    assert!(said.contains("credential_process"), "{said}");
}

#[test]
fn single_sign_on_uses_the_token_that_the_aws_cli_keeps() {
    let home = Home::new();
    let config = "[default]\nsso_session = ours\nsso_account_id = 111122223333\n\
                  sso_role_name = reader\nregion = eu-west-1\n\
                  [sso-session ours]\nsso_region = eu-west-2\n\
                  sso_start_url = https://ours.awsapps.com/start\n";
    home.write(".aws/config", config);
    let said = unauthenticated(&home, &mut home.ls(BUCKET));
    assert!(said.contains("aws sso login"), "{said}");
    let token = format!(
        "{{\"accessToken\": \"{TOKEN}\", \"expiresAt\": \"2099-01-01T00:00:00Z\", \
         \"region\": \"eu-west-2\", \"startUrl\": \"https://ours.awsapps.com/start\"}}"
    );
    // The SHA-1 of `ours`.
    let name = "48537f613ab85111413f2369616ae97481429bd1";
    home.write(&format!(".aws/sso/cache/{name}.json"), &token);
    let seen = home.first(&mut home.ls(BUCKET));
    assert_eq!(host(&seen), "portal.sso.eu-west-2.amazonaws.com:443");
}

#[test]
fn roles_are_taken_from_amazons_sts() {
    let home = Home::new();
    let token = home.write("token", "planted");
    let identity = [
        (
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            token.to_str().expect("UTF-8"),
        ),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/x"),
        ("AWS_REGION", "us-west-2"),
    ];
    let role = "[default]\nrole_arn = arn:aws:iam::111122223333:role/x\nregion = us-west-2\n";
    let source = format!("{role}source_profile = keys\n{}", profile("keys", ""));
    let environment = format!("{role}credential_source = Environment\n");
    let fips = ("AWS_USE_FIPS_ENDPOINT", "true");
    for (config, variables, wanted) in [
        ("", identity.to_vec(), "sts.us-west-2.amazonaws.com:443"),
        (
            "",
            [&identity[..], &[fips]].concat(),
            "sts-fips.us-west-2.amazonaws.com:443",
        ),
        (&source, Vec::new(), "sts.us-west-2.amazonaws.com:443"),
        (&source, vec![fips], "sts-fips.us-west-2.amazonaws.com:443"),
        (
            &source,
            vec![("AWS_ENDPOINT_URL_STS", "https://sts.test")],
            "sts.test:443",
        ),
    ] {
        home.write(".aws/config", config);
        let seen = home.first(home.ls(BUCKET).envs(variables.iter().copied()));
        assert_eq!(host(&seen), wanted, "{config} {variables:?}");
    }
    home.write(".aws/config", &environment);
    let mut ls = home.ls("s3://my-bucket?profile=default");
    assert_eq!(
        host(&home.first(with_keys(&mut ls))),
        "sts.us-west-2.amazonaws.com:443"
    );
}

/// Answers as the metadata services of a container and of an EC2 machine do.
fn metadata(seen: &Seen) -> Fault {
    let path = seen.uri.path();
    let body = match path {
        "/latest/api/token" => "token".to_owned(),
        path if path.ends_with("/security-credentials/") => "role".to_owned(),
        _ => format!(
            "{{\"Code\": \"Success\", \"AccessKeyId\": \"{KEY_ID}\", \
             \"SecretAccessKey\": \"{SECRET}\", \"Token\": \"{TOKEN}\", \
             \"Expiration\": \"2099-01-01T00:00:00Z\"}}"
        ),
    };
    Fault::Reply(Reply::new(200, body).header("x-aws-ec2-metadata-token-ttl-seconds", "21600"))
}

#[test]
fn metadata_services_are_asked_without_the_proxy() {
    let home = Home::new();
    let service = Proxy::start("nowhere");
    let container = format!("{}/credentials", service.endpoint());
    let machine = format!(
        "[default]\nec2_metadata_service_endpoint = {}\n",
        service.endpoint()
    );
    let of_machine = &["PUT", "GET", "GET"][..];
    for (variables, config, methods) in [
        (
            vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", container.as_str())],
            "",
            &["GET"][..],
        ),
        (
            vec![
                ("AWS_EC2_METADATA_DISABLED", "false"),
                ("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.endpoint()),
            ],
            "",
            of_machine,
        ),
        (
            vec![("AWS_EC2_METADATA_DISABLED", "false")],
            &machine,
            of_machine,
        ),
        (
            vec![
                ("AWS_EC2_METADATA_DISABLED", "false"),
                ("AWS_EC2_INSTANCE_PROFILE_NAME", "named"),
            ],
            &machine,
            &["PUT", "GET"],
        ),
    ] {
        service.forget();
        service.rule(|_, seen| Some(metadata(seen)));
        home.write(".aws/config", config);
        let mut ls = home.ls(BUCKET);
        ls.env_remove("NO_PROXY").envs(variables.iter().copied());
        let seen = home.first(&mut ls);
        assert_eq!(
            host(&seen),
            "my-bucket.s3.us-east-1.amazonaws.com:443",
            "{variables:?}"
        );
        let asked = service.seen();
        let asked: Vec<_> = asked.iter().map(|seen| seen.method.as_str()).collect();
        assert_eq!(asked, methods, "{variables:?}");
    }
    home.recorder.forget();
    service.forget();
    home.write(".aws/config", &machine);
    unauthenticated(&home, &mut home.ls(BUCKET));
    assert_eq!(service.seen().len(), 0, "AWS_EC2_METADATA_DISABLED");
}

/// A server that speaks TLS with the certificate of a CA that no machine knows, and refuses
/// everything.
struct TlsServer {
    child: Child,
    port: String,
}

const TLS_SERVER: &str = "
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'<Error><Code>AccessDenied</Code></Error>'
        self.send_response(403)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
";

impl TlsServer {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", TLS_SERVER])
            .arg(tls().join("localhost.pem"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut port = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut port).expect("a port");
        Self {
            child,
            port: port.trim().into(),
        }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory of the certificates.
fn tls() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/integration/tls"))
}

#[test]
fn a_ca_bundle_decides_which_servers_are_trusted() {
    let home = Home::new();
    let server = TlsServer::start();
    let url = format!("s3://my-bucket?endpoint=https://127.0.0.1:{}", server.port);
    let bundle = tls().join("ca.pem");
    let bundle = bundle.to_str().expect("UTF-8");
    let of_profile = format!("ca_bundle = {bundle}");
    for (variables, settings) in [(&[("AWS_CA_BUNDLE", bundle)][..], ""), (&[], &of_profile)] {
        home.write(".aws/config", &profile("default", settings));
        let mut ls = home.ls(&url);
        let output = ls.envs(variables.iter().copied()).output();
        let output = output.expect("persist starts");
        let said = text(&output.stderr);
        assert!(said.contains("AccessDenied"), "{settings}: {said}");
    }
    home.write(".aws/config", &profile("default", ""));
    // The certificate of the server itself is that of no CA.
    let other = tls().join("localhost.pem");
    let mut ls = home.ls(&url);
    let output = ls
        .env("AWS_CA_BUNDLE", other)
        .output()
        .expect("persist starts");
    let said = text(&output.stderr);
    assert!(
        !output.status.success() && !said.contains("AccessDenied"),
        "{said}"
    );
}
