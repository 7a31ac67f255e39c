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
            "where snapshots are kept: `local`, `s3`, `gcs`, or `file:///absolute/path`, \
             `s3://bucket/prefix`, `gs://bucket/prefix`",
            "`local`",
        )
    },
    of(
        "local_path",
        &["PERSIST_LOCAL_PATH"],
        "the directory of `local`: an absolute path, or one that begins with `~/`; in the file \
         also one that is relative to it",
        "`persist` in the user's data directory (Linux: `~/.local/share/persist`)",
    ),
    of(
        "s3_bucket",
        &["AWS_S3_BUCKET"],
        "the bucket of `s3`",
        "none",
    ),
    of(
        "s3_region",
        &["AWS_REGION", "AWS_DEFAULT_REGION"],
        "its region",
        "`region` of the profile, else `us-east-1`",
    ),
    of(
        "s3_endpoint",
        &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
        "another server that speaks as S3 does; which credentials it is sent is said below",
        "`endpoint_url` of the profile, else Amazon's",
    ),
    of(
        "s3_allow_http",
        &["PERSIST_S3_ALLOW_HTTP"],
        "servers, as `host:port` joined by commas, that may be sent AWS keys through plain HTTP",
        "none but this machine",
    ),
    of(
        "s3_kms_key",
        &["PERSIST_S3_KMS_KEY"],
        "encrypt with this key of KMS, through a bucket key",
        "as the bucket does",
    ),
    secret(
        &["AWS_ACCESS_KEY_ID"],
        "the credentials for S3; all that Amazon's own tools take from the environment, from \
         profiles and from the machine works, too, but for single sign-on, `aws login` and \
         `credential_process`",
    ),
    secret(&["AWS_SECRET_ACCESS_KEY"], "belongs to it"),
    secret(&["AWS_SESSION_TOKEN"], "belongs to both, where they expire"),
    of(
        "",
        &["AWS_PROFILE"],
        "which profile of `~/.aws` has the credentials, and maybe `endpoint_url` and `region`",
        "`default`",
    ),
    of(
        "",
        &["AWS_CONFIG_FILE"],
        "the file with profiles",
        "`~/.aws/config`",
    ),
    of(
        "",
        &["AWS_SHARED_CREDENTIALS_FILE"],
        "the file with the keys of profiles",
        "`~/.aws/credentials`",
    ),
    of(
        "",
        &["AWS_WEB_IDENTITY_TOKEN_FILE"],
        "the file with the token of a web identity, as on EKS",
        "none",
    ),
    of(
        "",
        &["AWS_ROLE_ARN"],
        "the role that a web identity takes",
        "none",
    ),
    of(
        "gcs_bucket",
        &["PERSIST_GCS_BUCKET", "GCS_BUCKET"],
        "the bucket of `gcs`",
        "none",
    ),
    of(
        "gcs_prefix",
        &["PERSIST_GCS_PREFIX"],
        "what the keys of `gcs` begin with",
        "nothing",
    ),
    of(
        "gcs_credentials",
        &["GOOGLE_APPLICATION_CREDENTIALS"],
        "the path of a file of credentials for GCS: a service account's key, a workload identity, \
         gcloud's",
        "application default credentials",
    ),
    of(
        "",
        &["GOOGLE_CLOUD_QUOTA_PROJECT"],
        "the project that is billed for requests to GCS",
        "that of the credentials",
    ),
    of(
        "gcs_timeout",
        &["PERSIST_GCS_TIMEOUT"],
        "seconds to wait for the answer to one request to GCS, not for a whole stream",
        "30",
    ),
    of(
        "gcs_kms_key",
        &["PERSIST_GCS_KMS_KEY"],
        "the Cloud KMS key that objects are encrypted with",
        "as the bucket does",
    ),
    of(
        "gcs_endpoint",
        &["STORAGE_EMULATOR_HOST"],
        "another server, such as fake-gcs-server; it is sent no credentials that are not bound to \
         it, as said below",
        "Google's",
    ),
    of(
        "grace",
        &["PERSIST_GRACE"],
        "grace period of a store that this command makes: a version that was the newest within it \
         is not pruned. A store that is there has its own (`persist policy`)",
        "`1h`",
    ),
    of(
        "retention",
        &["PERSIST_RETENTION"],
        "policy of a store that this command makes. `on`: hosts remove what none of the next five \
         rules keeps; `off`: only `persist prune` removes. A store that is there has its own \
         (`persist policy`)",
        "`on`",
    ),
    of(
        "keep_within",
        &["PERSIST_KEEP_WITHIN"],
        "versions that were the newest at some time within this duration are kept",
        "`1d`",
    ),
    of(
        "keep_last",
        &["PERSIST_KEEP_LAST"],
        "this many of the newest versions of each name are kept",
        "20",
    ),
    of(
        "keep_hourly",
        &["PERSIST_KEEP_HOURLY"],
        "the newest version of each of the last N hours that have one is kept",
        "48",
    ),
    of(
        "keep_daily",
        &["PERSIST_KEEP_DAILY"],
        "the newest version of each of the last N days that have one is kept",
        "30",
    ),
    of(
        "keep_weekly",
        &["PERSIST_KEEP_WEEKLY"],
        "the newest version of each of the last N weeks that have one is kept",
        "52",
    ),
    of(
        "limits",
        &["PERSIST_LIMITS"],
        "what an agent may use, as in `memory=64MiB,cpu=5s`; in the file, a table. `--limit` of \
         `persist run` goes before it",
        "as `persist run --help` lists them",
    ),
    of(
        "log",
        &["RUST_LOG"],
        "what is logged to standard error",
        "`warn`",
    ),
    Setting {
        option: "--config",
        ..of(
            "",
            &["PERSIST_CONFIG"],
            "the file with settings",
            "`persist/persist.toml` in the user's configuration directory (Linux: `~/.config`), \
             if it is there",
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
