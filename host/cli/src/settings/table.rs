//! Every setting, and the table of docs/src/configuration.md that is made of them.

/// Something that can be set.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Key in `persist.toml`; empty if a file must not set it.
    pub(crate) key: &'static str,
    /// Environment variables of the setting; the first that is set and not empty counts.
    pub(crate) variables: &'static [&'static str],
    /// The option of the command line.
    pub(crate) option: &'static str,
    pub(crate) what: &'static str,
    pub(crate) default: &'static str,
    /// True if the value is never shown.
    pub(crate) is_secret: bool,
}

/// All of them: the table in docs/src/configuration.md is made of this.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting {
        option: "--storage",
        ..of(
            "storage",
            &["PERSIST_STORAGE"],
            "location of the store: `local`, `s3`, `gcs`, or `file:///absolute/path`, \
             `s3://bucket/prefix`, `gs://bucket/prefix`",
            "`local`",
        )
    },
    of(
        "local_path",
        &["PERSIST_LOCAL_PATH"],
        "directory of `local`: an absolute path, or one that begins with `~/`. In the file, a \
         relative path is relative to the file",
        "`persist` in the user's data directory (Linux: `~/.local/share/persist`)",
    ),
    of("s3_bucket", &["AWS_S3_BUCKET"], "bucket of `s3`", "none"),
    of(
        "s3_region",
        &["AWS_REGION", "AWS_DEFAULT_REGION"],
        "region of the bucket",
        "`region` of the profile, else `us-east-1`",
    ),
    of(
        "s3_endpoint",
        &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
        "another S3 server. The table below lists the credentials that it is sent",
        "`endpoint_url` of the profile, else Amazon's",
    ),
    of(
        "s3_allow_http",
        &["PERSIST_S3_ALLOW_HTTP"],
        "servers that may be sent AWS keys over plain HTTP: `host:port`, separated by commas",
        "none but this machine",
    ),
    of(
        "s3_kms_key",
        &["PERSIST_S3_KMS_KEY"],
        "KMS key to encrypt objects with, through a bucket key",
        "as the bucket does",
    ),
    secret(
        &["AWS_ACCESS_KEY_ID"],
        "access key ID for S3. The other sources of Amazon's own tools work as well, except single \
         sign-on, `aws login` and `credential_process`",
    ),
    secret(&["AWS_SECRET_ACCESS_KEY"], "secret access key for S3"),
    secret(
        &["AWS_SESSION_TOKEN"],
        "session token of temporary credentials",
    ),
    of(
        "",
        &["AWS_PROFILE"],
        "profile of `~/.aws` with the credentials, and optionally `endpoint_url` and `region`",
        "`default`",
    ),
    of(
        "",
        &["AWS_CONFIG_FILE"],
        "file with profiles",
        "`~/.aws/config`",
    ),
    of(
        "",
        &["AWS_SHARED_CREDENTIALS_FILE"],
        "file with the keys of profiles",
        "`~/.aws/credentials`",
    ),
    of(
        "",
        &["AWS_WEB_IDENTITY_TOKEN_FILE"],
        "file with the token of a web identity, as on EKS",
        "none",
    ),
    of(
        "",
        &["AWS_ROLE_ARN"],
        "role that a web identity assumes",
        "none",
    ),
    of(
        "gcs_bucket",
        &["PERSIST_GCS_BUCKET", "GCS_BUCKET"],
        "bucket of `gcs`",
        "none",
    ),
    of(
        "gcs_prefix",
        &["PERSIST_GCS_PREFIX"],
        "prefix of the keys of `gcs`",
        "nothing",
    ),
    of(
        "gcs_credentials",
        &["GOOGLE_APPLICATION_CREDENTIALS"],
        "path of a credentials file for GCS: a service account's key, a workload identity, or \
         gcloud's",
        "application default credentials",
    ),
    of(
        "",
        &["GOOGLE_CLOUD_QUOTA_PROJECT"],
        "project that is billed for requests to GCS",
        "that of the credentials",
    ),
    of(
        "gcs_timeout",
        &["PERSIST_GCS_TIMEOUT"],
        "timeout in seconds of one request to GCS, not of a whole stream",
        "30",
    ),
    of(
        "gcs_kms_key",
        &["PERSIST_GCS_KMS_KEY"],
        "Cloud KMS key to encrypt objects with",
        "as the bucket does",
    ),
    of(
        "gcs_endpoint",
        &["STORAGE_EMULATOR_HOST"],
        "another GCS server, such as fake-gcs-server. It is sent only credentials that are bound \
         to it (see below)",
        "Google's",
    ),
    of(
        "grace",
        &["PERSIST_GRACE"],
        "grace period of a store that this command creates. An existing store has its own \
         (`persist policy`). Versions that were the newest within the grace period are not pruned",
        "`1h`",
    ),
    of(
        "retention",
        &["PERSIST_RETENTION"],
        "policy of a store that this command creates. `on`: hosts remove versions that none of the \
         next five rules keeps. `off`: only `persist prune` removes versions. An existing store \
         has its own (`persist policy`)",
        "`on`",
    ),
    of(
        "keep_within",
        &["PERSIST_KEEP_WITHIN"],
        "keep versions that were the newest at some time within this duration",
        "`1d`",
    ),
    of(
        "keep_last",
        &["PERSIST_KEEP_LAST"],
        "keep the last N versions of each name",
        "20",
    ),
    of(
        "keep_hourly",
        &["PERSIST_KEEP_HOURLY"],
        "keep the newest version of each of the last N hours",
        "48",
    ),
    of(
        "keep_daily",
        &["PERSIST_KEEP_DAILY"],
        "keep the newest version of each of the last N days",
        "30",
    ),
    of(
        "keep_weekly",
        &["PERSIST_KEEP_WEEKLY"],
        "keep the newest version of each of the last N weeks",
        "52",
    ),
    of(
        "limits",
        &["PERSIST_LIMITS"],
        "limits of agents, as in `memory=64MiB,cpu=5s`; in the file, a table. `--limit` of \
         `persist run` overrides it",
        "see `persist run --help`",
    ),
    of(
        "log",
        &["RUST_LOG"],
        "log filter for standard error",
        "`warn`",
    ),
    Setting {
        option: "--config",
        ..of(
            "",
            &["PERSIST_CONFIG"],
            "file with settings",
            "`persist/persist.toml` in the user's configuration directory (Linux: `~/.config`), \
             if it exists",
        )
    },
];

const fn of(
    key: &'static str,
    variables: &'static [&'static str],
    what: &'static str,
    default: &'static str,
) -> Setting {
    Setting {
        key,
        variables,
        option: "",
        what,
        default,
        is_secret: false,
    }
}

const fn secret(variables: &'static [&'static str], what: &'static str) -> Setting {
    Setting {
        is_secret: true,
        ..of("", variables, what, "none")
    }
}

/// The table of docs/src/configuration.md.
pub(crate) fn table() -> String {
    let mut lines = vec![
        "| environment | `persist.toml` | what | default |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    let code = |text: &str| match text {
        "" => String::new(),
        text => format!("`{text}`"),
    };
    for setting in SETTINGS {
        let mut names: Vec<_> = setting.variables.iter().copied().map(code).collect();
        if !setting.option.is_empty() {
            names.insert(0, code(setting.option));
        }
        let Setting {
            key, what, default, ..
        } = setting;
        lines.push(format!(
            "| {} | {} | {what} | {default} |",
            names.join(", "),
            code(key)
        ));
    }
    lines.join("\n") + "\n"
}
