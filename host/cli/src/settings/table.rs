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
            "store to use: `local`, `s3` or `gcs`, or a URL: `file:///absolute/path`, \
             `s3://bucket/prefix` or `gs://bucket/prefix`",
            "`local`",
        )
    },
    of(
        "local_path",
        &["PERSIST_LOCAL_PATH"],
        "directory of the `local` store: an absolute path or one that starts with `~/`; in \
         `persist.toml` also a path relative to that file",
        "`persist` in the user's data directory (Linux: `~/.local/share/persist`)",
    ),
    of(
        "file_mode",
        &["PERSIST_FILE_MODE"],
        "permissions of new files in a store on a local disk, in octal; `0660` lets a group share \
         the store, see [A store for a group](operating.md#a-store-for-a-group)",
        "`0600`",
    ),
    of(
        "dir_mode",
        &["PERSIST_DIR_MODE"],
        "permissions of new directories in a store on a local disk, in octal; `2770` for a group",
        "`0700`",
    ),
    of(
        "s3_bucket",
        &["AWS_S3_BUCKET"],
        "bucket of the `s3` store",
        "none",
    ),
    of(
        "s3_region",
        &["AWS_REGION", "AWS_DEFAULT_REGION"],
        "region of the bucket",
        "`region` of the profile, else `us-east-1`",
    ),
    of(
        "s3_endpoint",
        &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
        "URL of an S3-compatible server; see [Where credentials are \
         sent](#where-credentials-are-sent)",
        "`endpoint_url` of the profile, else Amazon S3",
    ),
    of(
        "s3_allow_http",
        &["PERSIST_S3_ALLOW_HTTP"],
        "servers that AWS keys may be sent to over plain HTTP: `host:port`, separated by commas",
        "this machine only",
    ),
    of(
        "s3_path_style",
        &["PERSIST_S3_PATH_STYLE"],
        "`true`: requests name the bucket in the path of the URL, as most S3-compatible servers \
         need it; `false`: in the name of the host",
        "`addressing_style` of the profile, else `true` with an endpoint and `false` without",
    ),
    of(
        "s3_encryption",
        &["PERSIST_S3_ENCRYPTION"],
        "encryption that requests ask for: `AES256` (keys of S3) or `aws:kms`",
        "`aws:kms` with a KMS key, else the default encryption of the bucket",
    ),
    of(
        "s3_checksums",
        &["AWS_REQUEST_CHECKSUM_CALCULATION"],
        "`when_supported`: requests carry a checksum of the object (CRC32); `when_required`: they \
         carry none, for servers that refuse it",
        "`request_checksum_calculation` of the profile, else `when_supported`",
    ),
    of(
        "s3_kms_key",
        &["PERSIST_S3_KMS_KEY"],
        "KMS key to encrypt objects with, through an S3 bucket key",
        "the default encryption of the bucket",
    ),
    secret(
        &["AWS_ACCESS_KEY_ID"],
        "access key ID for S3. Profiles, single sign-on, web identities, containers and EC2 \
         instances also work; [all settings of Amazon's \
         SDKs](s3.md#settings-of-amazons-tools)",
    ),
    secret(&["AWS_SECRET_ACCESS_KEY"], "secret access key for S3"),
    secret(
        &["AWS_SESSION_TOKEN"],
        "session token of temporary AWS credentials",
    ),
    of(
        "",
        &["AWS_PROFILE"],
        "profile in `~/.aws` for the credentials, `endpoint_url` and `region`",
        "`default`",
    ),
    of(
        "",
        &["AWS_CONFIG_FILE"],
        "AWS configuration file with the profiles",
        "`~/.aws/config`",
    ),
    of(
        "",
        &["AWS_SHARED_CREDENTIALS_FILE"],
        "AWS credentials file with the keys of the profiles",
        "`~/.aws/credentials`",
    ),
    of(
        "",
        &["AWS_WEB_IDENTITY_TOKEN_FILE"],
        "file with a web identity token, as on EKS",
        "none",
    ),
    of(
        "",
        &["AWS_ROLE_ARN"],
        "role to assume with the web identity token",
        "none",
    ),
    of(
        "gcs_bucket",
        &["PERSIST_GCS_BUCKET", "GCS_BUCKET"],
        "bucket of the `gcs` store",
        "none",
    ),
    of(
        "gcs_prefix",
        &["PERSIST_GCS_PREFIX"],
        "key prefix of the `gcs` store",
        "none",
    ),
    of(
        "gcs_credentials",
        &["GOOGLE_APPLICATION_CREDENTIALS"],
        "credentials file for Google Cloud Storage: a service account key, a workload identity \
         configuration or the file of gcloud",
        "application default credentials",
    ),
    of(
        "",
        &["GOOGLE_CLOUD_QUOTA_PROJECT"],
        "project that is billed for requests to Google Cloud Storage",
        "the project of the credentials",
    ),
    of(
        "gcs_timeout",
        &["PERSIST_GCS_TIMEOUT"],
        "timeout of one request to Google Cloud Storage, in seconds; it does not limit a whole \
         stream",
        "10",
    ),
    of(
        "gcs_kms_key",
        &["PERSIST_GCS_KMS_KEY"],
        "Cloud KMS key to encrypt objects with",
        "the default encryption of the bucket",
    ),
    of(
        "gcs_endpoint",
        &["STORAGE_EMULATOR_HOST"],
        "URL of a compatible server, such as fake-gcs-server; see [Where credentials are \
         sent](#where-credentials-are-sent)",
        "Google Cloud Storage",
    ),
    of(
        "compression",
        &["PERSIST_COMPRESSION"],
        "compression of states that are saved: `none`, `fast`, `default` or `best`. States that \
         are there load with every value; see [Compression](#compression)",
        "`default`",
    ),
    of(
        "grace",
        &["PERSIST_GRACE"],
        "grace period of a new store: versions that were the newest within it are not pruned. An \
         existing store has its own (`persist policy`)",
        "`1h`",
    ),
    of(
        "retention",
        &["PERSIST_RETENTION"],
        "pruning in a new store. `on`: hosts remove versions that none of the next eight rules \
         keeps; `off`: only `persist prune` removes versions. An existing store has its own policy \
         (`persist policy`)",
        "`on`",
    ),
    of(
        "keep_within",
        &["PERSIST_KEEP_WITHIN"],
        "keep versions that were the newest within this duration",
        "`1d`",
    ),
    of(
        "keep_last",
        &["PERSIST_KEEP_LAST"],
        "keep the N newest versions of each name",
        "20",
    ),
    of(
        "keep_hourly",
        &["PERSIST_KEEP_HOURLY"],
        "keep the newest version of each of the last N hours that have one",
        "48",
    ),
    of(
        "keep_daily",
        &["PERSIST_KEEP_DAILY"],
        "keep the newest version of each of the last N days that have one",
        "30",
    ),
    of(
        "keep_weekly",
        &["PERSIST_KEEP_WEEKLY"],
        "keep the newest version of each of the last N weeks that have one",
        "52",
    ),
    of(
        "keep_monthly",
        &["PERSIST_KEEP_MONTHLY"],
        "keep the newest version of each of the last N months that have one",
        "0",
    ),
    of(
        "keep_yearly",
        &["PERSIST_KEEP_YEARLY"],
        "keep the newest version of each of the last N years that have one",
        "0",
    ),
    of(
        "keep_label",
        &["PERSIST_KEEP_LABEL"],
        "keep versions that have one of these labels: `KEY` or `KEY=VALUE`, separated by commas",
        "none",
    ),
    of(
        "limits",
        &["PERSIST_LIMITS"],
        "limits of an agent, such as `memory=64MiB,cpu=5s`; in `persist.toml`, a table. `persist \
         run --limit` overrides it",
        "see `persist run --help`",
    ),
    of(
        "audit",
        &["PERSIST_AUDIT"],
        "`on`: each version that a command creates, but not those of an agent, has the labels \
         `persist.by` (user and host) and `persist.via` (the command); those that a client of \
         `persist serve` creates have the name of its token and its address; `off`: it has not",
        "`on`",
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
            "path of the settings file",
            "`persist/persist.toml` in the user's configuration directory (Linux: `~/.config`), if \
             it exists",
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
        "| environment | `persist.toml` | description | default |".to_owned(),
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
