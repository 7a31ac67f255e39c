//! Every setting, and the one place where it is resolved: the command line before the environment,
//! that before `persist.toml`, that before the default.

mod agents;
mod endpoints;
mod path;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use persist_host::snapshot::{Compression, LabelRule, Retention, StoreOptions};
use persist_host::storage::{
    Endpoint, Environment, Modes, S3Checksums, S3Encryption, Storage, StorageBackend,
    StorageConfig, absolute_local_path, parse_mode, redact, secret_in,
};
use persist_host::wasm::Limits;

use crate::error::Usage;
use crate::exit::described;
use crate::text;
pub(crate) use agents::AgentSettings;
pub(crate) use endpoints::Binding;
use path::in_dir;
pub(crate) use table::{SETTINGS, Setting, table};

/// Source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An option of the command line.
    Option(&'static str),
    /// A variable of the environment.
    Variable(&'static str),
    /// The file.
    File,
    /// No source has a value.
    Default,
}

/// Resolved values of all settings.
#[derive(Debug)]
pub(crate) struct Settings {
    /// By the first variable of the setting, which each one has.
    values: BTreeMap<&'static str, (OsString, Source)>,
    /// The file that was read, if any.
    file: Option<PathBuf>,
    /// The credentials that the file names, which belong to the endpoint that it names.
    file_credentials: Option<PathBuf>,
    /// Credentials that the file binds to endpoints.
    bindings: Vec<Binding>,
    /// Settings of named agents in the file.
    agents: Vec<AgentSettings>,
    /// Variables that look like settings and are none.
    unknown_variables: Vec<String>,
    /// The environment of this process, which is read once.
    environment: Environment,
}

/// Settings that the command line gives.
#[derive(Debug, Default)]
pub(crate) struct GlobalArgs {
    pub(crate) storage: Option<String>,
    pub(crate) config: Option<PathBuf>,
}

impl Settings {
    /// Resolves all settings, of which `said` comes from the command line.
    pub(crate) fn resolve(said: GlobalArgs) -> Result<Self> {
        let mut settings = Self::with(said, Environment::current(), dirs::config_dir())?;
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        settings.check_variables(names)?;
        Ok(settings)
    }

    fn with(said: GlobalArgs, environment: Environment, home: Option<PathBuf>) -> Result<Self> {
        let options = BTreeMap::from([
            ("--storage", said.storage.map(OsString::from)),
            ("--config", said.config.map(PathBuf::into_os_string)),
        ]);
        let mut settings = Self {
            values: BTreeMap::new(),
            file: None,
            file_credentials: None,
            bindings: Vec::new(),
            agents: Vec::new(),
            unknown_variables: Vec::new(),
            environment,
        };
        let option = |setting: &Setting| options.get(setting.option).cloned().flatten();
        for setting in SETTINGS {
            let variable = setting
                .variables
                .iter()
                .find_map(|name| Some((*name, settings.environment.get(name)?.to_owned())));
            let value = match (option(setting), variable) {
                (Some(value), _) => (value, Source::Option(setting.option)),
                (None, Some((name, value))) => (value, Source::Variable(name)),
                (None, None) => continue,
            };
            settings.values.insert(setting.variables[0], value);
        }
        settings.add_file(home)?;
        Ok(settings)
    }

    /// Adds values of the file that no other source has.
    fn add_file(&mut self, home: Option<PathBuf>) -> Result<()> {
        let named = self.path("PERSIST_CONFIG")?;
        let is_named = named.is_some();
        let Some(path) = named.or_else(|| Some(home?.join("persist").join("persist.toml"))) else {
            return Ok(());
        };
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => {
                return Ok(());
            }
            text => {
                text.with_context(|| format!("cannot read the settings in {}", path.display()))?
            }
        };
        let dir = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let dir = dir.parent().unwrap_or(Path::new("/"));
        let parsed = parse(&text, &path)?;
        self.bindings = parsed.bindings;
        self.agents = parsed.agents;
        for agent in &mut self.agents {
            agent.resolve(dir)?;
        }
        for binding in &mut self.bindings {
            binding.resolve(dir)?;
        }
        for (setting, value) in parsed.values {
            let is_path = ["local_path", "gcs_credentials"].contains(&setting.key);
            let value = if is_path && secret_in(&value).is_none() {
                in_dir(dir, Path::new(&value), setting.key)?.into()
            } else {
                OsString::from(value)
            };
            if setting.key == "gcs_credentials" {
                self.file_credentials = Some(PathBuf::from(&value));
            }
            let value = (value, Source::File);
            self.values.entry(setting.variables[0]).or_insert(value);
        }
        self.file = Some(path);
        Ok(())
    }

    /// The value of a setting, by its first variable, and where it comes from.
    pub(crate) fn of(&self, setting: &Setting) -> (Option<&OsString>, Source) {
        match self.values.get(setting.variables[0]) {
            Some((value, source)) => (Some(value), source.clone()),
            None => (None, Source::Default),
        }
    }

    /// Returns the value that holds where no source has one; none if there is none, or if it is
    /// decided elsewhere, such as by the bucket.
    pub(crate) fn default_of(&self, setting: &Setting) -> Option<String> {
        let path = |dir: Option<PathBuf>, file: &str| Some(dir?.join(file).display().to_string());
        match setting.variables[0] {
            "PERSIST_LOCAL_PATH" => path(dirs::data_dir(), "persist"),
            "PERSIST_CONFIG" => path(dirs::config_dir(), "persist/persist.toml"),
            "AWS_CONFIG_FILE" => path(dirs::home_dir(), ".aws/config"),
            "AWS_SHARED_CREDENTIALS_FILE" => path(dirs::home_dir(), ".aws/credentials"),
            "PERSIST_LIMITS" => {
                let limits = Limits::table().iter();
                let limits = limits.map(|limit| format!("{}={}", limit.name, limit.default));
                Some(limits.collect::<Vec<_>>().join(","))
            }
            _ => {
                let default = setting.default;
                let word = default
                    .strip_prefix('`')
                    .and_then(|word| word.strip_suffix('`'));
                let number = default.parse::<u64>().is_ok().then_some(default);
                let word = word.filter(|word| !word.contains('`')).or(number);
                word.map(str::to_owned)
            }
        }
    }

    /// The file that was read, if any.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the credentials that the file binds to endpoints.
    pub(crate) fn bindings(&self) -> &[Binding] {
        &self.bindings
    }

    /// Returns the settings of all agents in the file.
    pub(crate) fn agents(&self) -> &[AgentSettings] {
        &self.agents
    }

    /// Returns the settings of an agent.
    pub(crate) fn agent(&self, name: &str) -> Result<Option<&AgentSettings>> {
        agents::of(&self.agents, name)
    }

    fn value(&self, variable: &str) -> Option<&OsString> {
        self.values.get(variable).map(|value| &value.0)
    }

    /// Names a setting as a person knows it: by the option, the variable or the key that said it.
    pub(crate) fn name(&self, variable: &str) -> String {
        match self.values.get(variable).map(|value| &value.1) {
            Some(Source::Option(name) | Source::Variable(name)) => (*name).to_owned(),
            Some(Source::File) => {
                let setting = SETTINGS.iter().find(|one| one.variables[0] == variable);
                let key = setting.map_or(variable, |setting| setting.key);
                match &self.file {
                    Some(file) => format!("{key} in {}", file.display()),
                    None => format!("{key} in persist.toml"),
                }
            }
            Some(Source::Default) | None => variable.to_owned(),
        }
    }

    /// The value of a setting, which must not be a secret that belongs elsewhere.
    fn checked(&self, variable: &str) -> Result<Option<OsString>> {
        let Some(value) = self.value(variable) else {
            return Ok(None);
        };
        match secret_in(&value.to_string_lossy()) {
            None => Ok(Some(value.clone())),
            Some(kind) => Err(Usage::new(format!(
                "{} contains {kind}, which does not belong there (not shown)",
                self.name(variable)
            ))
            .into()),
        }
    }

    fn text(&self, variable: &str) -> Result<Option<String>> {
        let value = self.checked(variable)?;
        let text = value.map(OsString::into_string).transpose();
        text.map_err(|_| Usage::new(format!("{} is not UTF-8", self.name(variable))).into())
    }

    fn path(&self, variable: &str) -> Result<Option<PathBuf>> {
        let Some(path) = self.checked(variable)? else {
            return Ok(None);
        };
        if !path.to_string_lossy().chars().any(char::is_control) {
            Ok(Some(path.into()))
        } else {
            Err(Usage::new(format!(
                "{} contains a control character",
                self.name(variable)
            ))
            .into())
        }
    }

    fn number(&self, variable: &str) -> Result<Option<usize>> {
        let Some(text) = self.text(variable)? else {
            return Ok(None);
        };
        let number = text.trim().parse().map(Some);
        number.map_err(|_| {
            Usage::new(format!(
                "{} is {:?}, not a number",
                self.name(variable),
                redact(&text)
            ))
            .with_hint("write a whole number from 0, such as 20")
            .into()
        })
    }

    /// Returns the timeout of a request to Google Cloud Storage.
    fn gcs_timeout(&self) -> Result<Option<Duration>> {
        const VARIABLE: &str = "PERSIST_GCS_TIMEOUT";
        match self.number(VARIABLE)? {
            None => Ok(None),
            Some(seconds @ 1..=MAX_TIMEOUT) => Ok(Some(Duration::from_secs(seconds as u64))),
            Some(other) => Err(Usage::new(format!(
                "{} is {other}, not from 1 to {MAX_TIMEOUT} seconds",
                self.name(VARIABLE)
            ))
            .with_hint("write seconds, such as 30")
            .into()),
        }
    }

    fn flag(&self, variable: &str) -> Result<Option<bool>> {
        match self.text(variable)?.as_deref().map(str::trim) {
            None => Ok(None),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(other) => Err(Usage::new(format!(
                "{} is {:?}, not true or false",
                self.name(variable),
                redact(other)
            ))
            .with_hint("write true or false")
            .into()),
        }
    }

    /// Returns the permissions that a setting gives to files or directories of a store.
    fn mode(&self, variable: &str) -> Result<Option<u32>> {
        let Some(text) = self.text(variable)? else {
            return Ok(None);
        };
        let mode = parse_mode(&text).and_then(|mode| {
            match variable {
                "PERSIST_FILE_MODE" => Modes::new(Some(mode), None)?,
                _ => Modes::new(None, Some(mode))?,
            };
            Ok(Some(mode))
        });
        mode.with_context(|| self.name(variable))
    }

    fn duration(&self, variable: &str) -> Result<Option<Duration>> {
        let Some(text) = self.text(variable)? else {
            return Ok(None);
        };
        let time = persist_host::units::parse_duration(text.trim()).map(Some);
        time.map_err(|_| {
            Usage::new(format!(
                "{} is {:?}, not a duration such as 90s, 12h or 30d",
                self.name(variable),
                redact(&text)
            ))
            .with_hint("write a number and a unit: s, min, h or d")
            .into()
        })
    }

    /// Returns the log filter.
    pub(crate) fn log(&self) -> Result<String> {
        Ok(self.text("RUST_LOG")?.unwrap_or_else(|| "warn".into()))
    }

    /// Returns true where a setting says what is logged.
    pub(crate) fn has_log(&self) -> bool {
        self.value("RUST_LOG").is_some()
    }

    /// The storage, with every value of the settings filled in.
    pub(crate) fn storage(&self) -> Result<StorageConfig> {
        // A URL is checked where it is parsed, which says more.
        let said = self.value("PERSIST_STORAGE").map(|said| said.to_str());
        let said = match said {
            Some(None) => {
                let what = format!("{} is not UTF-8", self.name("PERSIST_STORAGE"));
                return Err(Usage::new(what).into());
            }
            said => said.flatten(),
        };
        let config = match said {
            None | Some("local") => StorageConfig::default_local(),
            Some("s3") => bucket(StorageBackend::S3),
            Some("gcs") => bucket(StorageBackend::Gcs),
            Some(url) => {
                StorageConfig::from_url(url).with_context(|| self.name("PERSIST_STORAGE"))?
            }
        };
        self.storage_at(config)
    }

    /// Returns the storage of a config of these settings. The library completes it with the
    /// variables that are not resolved here: endpoints, with which it binds credentials, and those
    /// of the libraries of Amazon and Google.
    pub(crate) fn build(&self, config: &StorageConfig) -> Result<Arc<dyn Storage>> {
        let resolved = SETTINGS
            .iter()
            .filter(|setting| !setting.key.is_empty() && !setting.key.ends_with("_endpoint"));
        let variables = resolved.flat_map(|setting| setting.variables.iter().copied());
        let rest = self.environment.clone().without(variables);
        Ok(config.build_with(&rest)?)
    }

    /// The environment of this process.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The storage of a URL that is an argument of a command.
    pub(crate) fn storage_of(&self, url: &str) -> Result<StorageConfig> {
        self.storage_at(StorageConfig::from_url(url)?)
    }

    /// Adds what the settings say of this kind of storage. What they say of others may be wrong.
    fn storage_at(&self, config: StorageConfig) -> Result<StorageConfig> {
        match config.backend {
            StorageBackend::S3 => self.s3_at(config),
            StorageBackend::Gcs => self.gcs_at(config),
            _ => self.local_at(config),
        }
    }

    fn local_at(&self, mut config: StorageConfig) -> Result<StorageConfig> {
        if config.local_base_path.is_none()
            && let Some(path) = self.path("PERSIST_LOCAL_PATH")?
        {
            let path = absolute_local_path(&path);
            config.local_base_path = Some(path.with_context(|| self.name("PERSIST_LOCAL_PATH"))?);
        }
        config.local_file_mode = self.mode("PERSIST_FILE_MODE")?;
        config.local_dir_mode = self.mode("PERSIST_DIR_MODE")?;
        Ok(config)
    }

    fn s3_at(&self, mut config: StorageConfig) -> Result<StorageConfig> {
        config.s3_bucket = config.s3_bucket.or(self.text("AWS_S3_BUCKET")?);
        config.s3_region = config.s3_region.or(self.text("AWS_REGION")?);
        config.s3_allow_http = self.text("PERSIST_S3_ALLOW_HTTP")?;
        config.s3_path_style = config.s3_path_style.or(self.flag("PERSIST_S3_PATH_STYLE")?);
        if config.s3_encryption == S3Encryption::Bucket {
            config.s3_encryption = self.s3_encryption()?;
        }
        if config.s3_checksums.is_none() {
            let name = "AWS_REQUEST_CHECKSUM_CALCULATION";
            let checksums = self.text(name)?;
            let checksums = checksums.map(|said| S3Checksums::parse(&said));
            config.s3_checksums = checksums.transpose().with_context(|| self.name(name))?;
        }
        let said = self.text("AWS_ENDPOINT_URL_S3")?;
        let said = said.filter(|_| !self.ignores_endpoint());
        let endpoint = config.s3_endpoint.clone().or(said.clone());
        if let Some(binding) = self.binding(endpoint.as_deref()) {
            binding.bind_s3(&mut config, endpoint, &self.environment)?;
        }
        // The library reads the environment, and knows then which credentials belong to it.
        let is_file = self.values.get("AWS_ENDPOINT_URL_S3").map(|value| &value.1);
        if is_file == Some(&Source::File) {
            config.s3_endpoint = config.s3_endpoint.or(said);
        }
        Ok(config)
    }

    /// Returns the encryption that the settings ask S3 for.
    fn s3_encryption(&self) -> Result<S3Encryption> {
        let algorithm = self.text("PERSIST_S3_ENCRYPTION")?;
        let key = self.text("PERSIST_S3_KMS_KEY")?;
        let name = match algorithm {
            Some(_) => "PERSIST_S3_ENCRYPTION",
            None => "PERSIST_S3_KMS_KEY",
        };
        let encryption = S3Encryption::parse(algorithm.as_deref(), key.as_deref());
        encryption.with_context(|| self.name(name))
    }

    /// Returns true if the S3 endpoint of the environment is to be ignored. The library ignores it
    /// then, and refuses a variable that is neither true nor false.
    fn ignores_endpoint(&self) -> bool {
        let ignores = self.environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
        let source = self.values.get("AWS_ENDPOINT_URL_S3").map(|value| &value.1);
        matches!(source, Some(Source::Variable(_)))
            && ignores.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    fn gcs_at(&self, mut config: StorageConfig) -> Result<StorageConfig> {
        config.gcs_bucket = config.gcs_bucket.or(self.text("PERSIST_GCS_BUCKET")?);
        config.gcs_prefix = config.gcs_prefix.or(self.text("PERSIST_GCS_PREFIX")?);
        config.gcs_kms_key = self.text("PERSIST_GCS_KMS_KEY")?;
        config.gcs_timeout = self.gcs_timeout()?.or(config.gcs_timeout);
        let said = self.text("STORAGE_EMULATOR_HOST")?;
        let source = self
            .values
            .get("STORAGE_EMULATOR_HOST")
            .map(|value| &value.1);
        let is_of_file = config.gcs_endpoint.is_none() && source == Some(&Source::File);
        let endpoint = config.gcs_endpoint.clone().or(said.clone());
        if let Some(binding) = self.binding(endpoint.as_deref())
            && binding.bind_gcs(&mut config, endpoint.clone())
        {
            return Ok(config);
        }
        if is_of_file {
            // The file names both.
            config.gcs_endpoint = said;
            config.gcs_credentials = self.file_credentials.clone();
            return Ok(config);
        }
        let is_google = match &endpoint {
            None => true,
            // An emulator is sent nothing, whatever it is called.
            Some(_) if config.gcs_endpoint.is_none() => false,
            Some(endpoint) => Endpoint::parse(endpoint).is_some_and(|server| server.is_google()),
        };
        if is_google {
            config.gcs_credentials = self.path("GOOGLE_APPLICATION_CREDENTIALS")?;
        }
        Ok(config)
    }

    /// Returns the credentials that the file binds to an endpoint.
    fn binding(&self, endpoint: Option<&str>) -> Option<&Binding> {
        let endpoint = endpoint?;
        // An emulator is named without a scheme, too.
        let server =
            Endpoint::parse(endpoint).or_else(|| Endpoint::parse(&format!("http://{endpoint}")))?;
        self.bindings
            .iter()
            .find(|binding| server.is_named(&binding.host))
    }

    /// Returns true where no setting names a storage, so that it is this user's data directory: a
    /// typing error cannot lead there, and no disk is missing.
    pub(crate) fn is_default_place(&self) -> bool {
        let storage = self.value("PERSIST_STORAGE");
        storage.is_none_or(|said| said == "local") && self.value("PERSIST_LOCAL_PATH").is_none()
    }

    /// The directory of a local storage.
    pub(crate) fn local_root(&self) -> Result<Option<PathBuf>> {
        let config = self.storage()?;
        Ok(match config.backend {
            StorageBackend::Local => config
                .local_base_path
                .or_else(|| Some(dirs::data_dir()?.join("persist"))),
            _ => None,
        })
    }

    /// How a store is used.
    pub(crate) fn store(&self) -> Result<StoreOptions> {
        let mut options = StoreOptions::default();
        // Commands do not prune as a side effect; `run` is a host of its agents.
        options.auto_prune = false;
        // A mistyped address, or a disk that is not mounted, is no new store.
        options.create = false;
        options.compression = self.compression()?;
        if let Some(grace) = self.grace()? {
            options.grace = grace;
        }
        options.retention = if self.prunes()? {
            Some(self.retention()?)
        } else {
            None
        };
        Ok(options)
    }

    /// Returns the compression of the states that this process saves.
    fn compression(&self) -> Result<Compression> {
        const VARIABLE: &str = "PERSIST_COMPRESSION";
        let Some(text) = self.text(VARIABLE)? else {
            return Ok(Compression::default());
        };
        text.trim().parse::<Compression>().map_err(|_| {
            let words = Compression::ALL.map(Compression::as_str);
            let hint = match text::nearest(text.trim(), words) {
                Some(near) => format!("did you mean {near}?"),
                None => "write default, or leave the setting out".to_owned(),
            };
            Usage::new(format!(
                "{} is {:?}, not none, fast, default or best",
                self.name(VARIABLE),
                redact(&text)
            ))
            .with_hint(hint)
            .into()
        })
    }

    /// Returns false where a store that this process makes keeps every version.
    fn prunes(&self) -> Result<bool> {
        self.is_on("PERSIST_RETENTION")
    }

    /// Returns true where the versions that a command creates tell who created them.
    pub(crate) fn audits(&self) -> Result<bool> {
        self.is_on("PERSIST_AUDIT")
    }

    /// Returns the value of a setting that is on by default.
    fn is_on(&self, variable: &'static str) -> Result<bool> {
        match self.text(variable)?.as_deref() {
            None | Some("on") => Ok(true),
            Some("off") => Ok(false),
            Some(other) => {
                let name = self.name(variable);
                let what = format!("{name} is {:?}, not on or off", redact(other));
                Err(Usage::new(what).with_hint("write on or off").into())
            }
        }
    }

    /// Reads every setting, and returns what is wrong: the first variable of the setting, and why.
    pub(crate) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::<(_, String)>::new();
        let storage = ("PERSIST_STORAGE", self.storage().map(drop));
        for (variable, read) in self.values_read().into_iter().chain([storage]) {
            if let Err(error) = read {
                let what = redact(&described(&error)).into_owned();
                // One that a storage needs is met again with the storage.
                if found.iter().all(|(_, known)| *known != what) {
                    found.push((variable, what));
                }
            }
        }
        found
    }

    /// Refuses values that cannot be used, also those that the command does not need: a mistyped
    /// setting is noticed before the day on which it counts. Settings of storages are read with
    /// their storage.
    pub(crate) fn check(&self) -> Result<()> {
        let read = self.values_read().into_iter();
        let mut read = read.filter(|(variable, _)| !OF_STORAGES.contains(variable));
        read.try_for_each(|(_, read)| read)
    }

    /// Reads each setting that is not read with a storage alone.
    fn values_read(&self) -> Vec<(&'static str, Result<()>)> {
        let mut read = vec![
            ("PERSIST_COMPRESSION", self.compression().map(drop)),
            ("PERSIST_GRACE", self.grace().map(drop)),
            (
                "PERSIST_KEEP_WITHIN",
                self.duration("PERSIST_KEEP_WITHIN").map(drop),
            ),
        ];
        let counts = KEEP_COUNTS.into_iter();
        read.extend(counts.map(|variable| (variable, self.number(variable).map(drop))));
        read.extend([
            ("PERSIST_GCS_TIMEOUT", self.gcs_timeout().map(drop)),
            ("PERSIST_KEEP_LABEL", self.keep_labels().map(drop)),
            ("PERSIST_RETENTION", self.prunes().map(drop)),
            ("PERSIST_AUDIT", self.audits().map(drop)),
            ("PERSIST_LIMITS", self.limits().map(drop)),
            ("RUST_LOG", self.check_log()),
        ]);
        let paths = ["PERSIST_LOCAL_PATH", "GOOGLE_APPLICATION_CREDENTIALS"];
        read.extend(paths.map(|variable| (variable, self.path(variable).map(drop))));
        let modes = ["PERSIST_FILE_MODE", "PERSIST_DIR_MODE"];
        read.extend(modes.map(|variable| (variable, self.mode(variable).map(drop))));
        read
    }

    /// Returns variables of the environment that look like settings and are none.
    pub(crate) fn unknown_variables(&self) -> &[String] {
        &self.unknown_variables
    }

    /// Refuses a variable that is a misspelling of a setting, and notes others that look like one:
    /// they may belong to another program.
    fn check_variables(&mut self, names: impl Iterator<Item = String>) -> Result<()> {
        let known = || {
            SETTINGS
                .iter()
                .flat_map(|setting| setting.variables)
                .copied()
        };
        for name in names {
            let is_ours = name
                .strip_prefix("PERSIST")
                .is_some_and(|rest| rest.starts_with('_'));
            if !is_ours || known().any(|known| known == name) {
                continue;
            }
            if let Some(near) = text::nearest(&name, known()) {
                let what = format!("the environment variable {name} is not a setting");
                let hint = format!("did you mean {near}? `persist settings` lists all");
                return Err(Usage::new(what).with_hint(hint).into());
            }
            self.unknown_variables.push(name);
        }
        self.unknown_variables.sort();
        Ok(())
    }

    fn check_log(&self) -> Result<()> {
        let log = self.log()?;
        let parsed = log.parse::<tracing_subscriber::filter::EnvFilter>();
        parsed.map(drop).map_err(|error| {
            let name = self.name("RUST_LOG");
            let log = redact(&log);
            Usage::new(format!("{name} is {log:?}: {error}")).into()
        })
    }

    /// Returns the limits of an agent.
    pub(crate) fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::default();
        let Some(text) = self.text("PERSIST_LIMITS")? else {
            return Ok(limits);
        };
        for limit in text.split(',').filter(|limit| !limit.trim().is_empty()) {
            let limit = limit.trim();
            let of = self.name("PERSIST_LIMITS");
            let wrong = |why: String| Usage::new(format!("{of}: {}: {why}", redact(limit)));
            let parts = limit.split_once('=');
            let (name, value) = parts.ok_or_else(|| {
                wrong("not NAME=VALUE".into()).with_hint("write NAME=VALUE, such as memory=64MiB")
            })?;
            let set = limits.set(name.trim(), value.trim());
            set.map_err(|error| {
                let known = Limits::table().iter().map(|limit| limit.name);
                let hint = match text::nearest(name.trim(), known) {
                    Some(near) if near != name.trim() => format!("did you mean {near}?"),
                    _ => "run `persist run --help` to list the limits".into(),
                };
                wrong(error.to_string()).with_hint(hint)
            })?;
        }
        Ok(limits)
    }

    /// The grace period, where a setting gives one.
    pub(crate) fn grace(&self) -> Result<Option<Duration>> {
        let grace = self.duration("PERSIST_GRACE")?;
        if grace.is_none_or(|grace| grace <= MAX_GRACE) {
            return Ok(grace);
        }
        let what = format!("{} is longer than 30d", self.name("PERSIST_GRACE"));
        let hint = "write a grace period of at most 30d, such as 1h";
        Err(Usage::new(what).with_hint(hint).into())
    }

    /// Returns whether a setting gives a retention rule.
    pub(crate) fn has_retention(&self) -> Result<bool> {
        if self.duration("PERSIST_KEEP_WITHIN")?.is_some() {
            return Ok(true);
        }
        if !self.keep_labels()?.is_empty() {
            return Ok(true);
        }
        for variable in KEEP_COUNTS {
            if self.number(variable)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The rules about labels.
    fn keep_labels(&self) -> Result<Vec<LabelRule>> {
        let Some(text) = self.text("PERSIST_KEEP_LABEL")? else {
            return Ok(Vec::new());
        };
        let rules = text.split(',').map(|rule| {
            rule.trim().parse::<LabelRule>().map_err(|why| {
                let name = self.name("PERSIST_KEEP_LABEL");
                Usage::new(format!("{name} is {:?}: {why}", redact(&text))).into()
            })
        });
        rules.collect()
    }

    /// The retention rules of a store that this process makes.
    pub(crate) fn retention(&self) -> Result<Retention> {
        let mut retention = Retention::default();
        if let Some(within) = self.duration("PERSIST_KEEP_WITHIN")? {
            retention.keep_within = within;
        }
        let rules = [
            &mut retention.keep_last,
            &mut retention.keep_hourly,
            &mut retention.keep_daily,
            &mut retention.keep_weekly,
            &mut retention.keep_monthly,
            &mut retention.keep_yearly,
        ];
        for (variable, rule) in KEEP_COUNTS.into_iter().zip(rules) {
            *rule = self.number(variable)?.unwrap_or(*rule);
        }
        retention.keep_labels = self.keep_labels()?;
        Ok(retention)
    }
}

/// The longest grace period that a policy can have.
const MAX_GRACE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The longest timeout of a request, in seconds: a day.
const MAX_TIMEOUT: usize = 24 * 60 * 60;

/// Settings that only their storage needs.
const OF_STORAGES: [&str; 3] = [
    "PERSIST_GCS_TIMEOUT",
    "PERSIST_LOCAL_PATH",
    "GOOGLE_APPLICATION_CREDENTIALS",
];

/// Settings of the retention rules that are counts.
const KEEP_COUNTS: [&str; 6] = [
    "PERSIST_KEEP_LAST",
    "PERSIST_KEEP_HOURLY",
    "PERSIST_KEEP_DAILY",
    "PERSIST_KEEP_WEEKLY",
    "PERSIST_KEEP_MONTHLY",
    "PERSIST_KEEP_YEARLY",
];

fn bucket(backend: StorageBackend) -> StorageConfig {
    StorageConfig {
        backend,
        ..StorageConfig::default()
    }
}

/// Says where a text is no TOML. The error of the parser shows the line, which may hold a secret.
fn no_toml(text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let line = text
        .bytes()
        .take(start)
        .filter(|byte| *byte == b'\n')
        .count()
        + 1;
    let what = match secret_in(text) {
        Some(kind) => format!("it contains {kind} instead of settings"),
        None => redact(error.message()).into_owned(),
    };
    format!("line {line} is not TOML: {what}")
}

/// Content of a file.
struct Parsed {
    /// Settings in the order of their keys.
    values: Vec<(&'static Setting, String)>,
    /// Credentials that the file binds to endpoints.
    bindings: Vec<Binding>,
    agents: Vec<AgentSettings>,
}

fn parse(text: &str, path: &Path) -> Result<Parsed> {
    let wrong = |what: String| Usage::new(format!("{}: {what}", path.display()));
    let table = toml::from_str::<toml::Table>(text);
    let mut table = table.map_err(|error| wrong(no_toml(text, &error)))?;
    let bindings = match table.remove("endpoints") {
        Some(endpoints) => Binding::parse(endpoints).map_err(wrong)?,
        None => Vec::new(),
    };
    let agents = match table.remove("agents") {
        Some(agents) => AgentSettings::parse(agents).map_err(wrong)?,
        None => Vec::new(),
    };
    let mut found = Vec::new();
    for (key, value) in table {
        let setting = SETTINGS
            .iter()
            .find(|setting| setting.key == key && !key.is_empty());
        let setting = setting.ok_or_else(|| {
            let keys: Vec<_> = SETTINGS
                .iter()
                .map(|setting| setting.key)
                .filter(|key| !key.is_empty())
                .collect();
            let error = wrong(format!(
                "{:?} is not a setting: the settings are {}, agents, endpoints",
                redact(&key),
                keys.join(", ")
            ));
            match text::nearest(&key, keys) {
                Some(near) => error.with_hint(format!("did you mean {near}?")),
                None => error.with_hint("remove the line, or correct its key"),
            }
        })?;
        let plain = |key: &str, value| match value {
            toml::Value::String(text) => Ok(text),
            toml::Value::Integer(number) => Ok(number.to_string()),
            _ => Err(wrong(format!("{key} is not a string or a number"))),
        };
        let value = match value {
            toml::Value::Table(limits) if key == "limits" => {
                let limits = limits.into_iter().map(|(name, value)| {
                    let value = plain(&format!("limits.{name}"), value)?;
                    Ok(format!("{name}={value}"))
                });
                limits.collect::<Result<Vec<_>, Usage>>()?.join(",")
            }
            // TOML has octal numbers, which would arrive here in decimal digits.
            toml::Value::Integer(_) if key.ends_with("_mode") => {
                let example = if key == "dir_mode" { "2770" } else { "0660" };
                return Err(wrong(format!(
                    "{key} is a number: write it in quotes, as in {key} = \"{example}\""
                ))
                .into());
            }
            toml::Value::Boolean(flag) if key == "s3_path_style" => flag.to_string(),
            toml::Value::Boolean(flag) if matches!(&*key, "audit" | "retention") => {
                if flag { "on" } else { "off" }.to_owned()
            }
            value => plain(&key, value)?,
        };
        found.push((setting, value));
    }
    Ok(Parsed {
        values: found,
        bindings,
        agents,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(said: GlobalArgs, env: &[(&str, &str)], file: &str) -> Result<Settings> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("persist/persist.toml");
        std::fs::create_dir(dir.path().join("persist")).expect("made");
        std::fs::write(path, file).expect("written");
        let environment = env.iter().copied().collect();
        Settings::with(said, environment, Some(dir.path().into()))
    }

    #[test]
    fn the_command_line_goes_before_the_environment_and_that_before_the_file() {
        let file = "storage = \"file:///file\"\nkeep_last = 3\ns3_region = \"eu-west-1\"\n";
        let env = [
            ("PERSIST_STORAGE", "file:///env"),
            ("PERSIST_KEEP_LAST", "4"),
        ];
        let said = || GlobalArgs {
            storage: Some("file:///said".into()),
            config: None,
        };
        let path = |said, env: &[(&str, &str)]| {
            let settings = resolve(said, env, file).expect("good");
            settings.storage().expect("good").local_base_path
        };
        assert_eq!(path(said(), &env), Some("/said".into()));
        assert_eq!(path(GlobalArgs::default(), &env), Some("/env".into()));
        assert_eq!(path(GlobalArgs::default(), &[]), Some("/file".into()));
        assert_eq!(
            path(GlobalArgs::default(), &[("PERSIST_STORAGE", "")]),
            Some("/file".into())
        );
        let settings = resolve(GlobalArgs::default(), &env, file).expect("good");
        let retention = settings.retention().expect("good");
        assert_eq!((retention.keep_last, retention.keep_daily), (4, 30));
        let s3 = [("PERSIST_STORAGE", "s3://my-bucket")];
        let settings = resolve(GlobalArgs::default(), &s3, file).expect("good");
        let region = settings.storage().expect("good").s3_region;
        assert_eq!(region.as_deref(), Some("eu-west-1"));
    }

    #[test]
    fn a_bucket_in_a_url_is_not_that_of_the_environment() {
        let env = [("AWS_S3_BUCKET", "other"), ("PERSIST_GCS_PREFIX", "other")];
        let settings = resolve(GlobalArgs::default(), &env, "").expect("good");
        let s3 = settings.storage_of("s3://bucket").expect("good");
        assert_eq!(s3.s3_bucket.as_deref(), Some("bucket"));
        let gcs = settings.storage_of("gs://bucket").expect("good");
        assert_eq!(gcs.gcs_prefix.as_deref(), Some(""));
        let words = [("PERSIST_STORAGE", "s3"), env[0]];
        let settings = resolve(GlobalArgs::default(), &words, "").expect("good");
        let s3 = settings.storage().expect("good");
        assert_eq!(s3.s3_bucket.as_deref(), Some("other"));
    }

    #[test]
    fn a_setting_that_is_none_is_refused_with_what_to_write() {
        for (file, hint) in [
            ("bucket = \"x\"", "s3_bucket"),
            ("AWS_ACCESS_KEY_ID = \"x\"", "is not a setting"),
            ("storage = true", "is not a string or a number"),
            ("storage", "persist.toml"),
        ] {
            let error = resolve(GlobalArgs::default(), &[], file).expect_err(file);
            assert!(error.to_string().contains(hint), "{file}: {error}");
        }
        for (variable, value) in [("PERSIST_KEEP_LAST", "many"), ("PERSIST_KEEP_WITHIN", "30")] {
            let settings = resolve(GlobalArgs::default(), &[(variable, value)], "").expect("good");
            let error = settings.retention().expect_err(variable);
            assert!(error.to_string().contains(variable), "{error}");
        }
    }

    #[test]
    fn a_switch_in_the_file_is_a_word_or_a_boolean() {
        for (value, on) in [
            ("true", true),
            ("\"on\"", true),
            ("false", false),
            ("\"off\"", false),
        ] {
            let file = format!("audit = {value}\nretention = {value}");
            let settings = resolve(GlobalArgs::default(), &[], &file).expect("good");
            assert_eq!(settings.audits().expect("a switch"), on, "{value}");
            assert_eq!(settings.prunes().expect("a switch"), on, "{value}");
        }
    }

    #[test]
    fn a_wrong_value_is_an_error_of_every_command() {
        for (variable, value, said) in [
            ("PERSIST_KEEP_LAST", "many", "not a number"),
            ("PERSIST_KEEP_LAST", "-1", "not a number"),
            ("PERSIST_KEEP_WITHIN", "3 fortnights", "not a duration"),
            ("PERSIST_GRACE", "31d", "longer than 30d"),
            ("PERSIST_RETENTION", "maybe", "not on or off"),
            (
                "PERSIST_COMPRESSION",
                "zstd",
                "not none, fast, default or best",
            ),
            (
                "PERSIST_COMPRESSION",
                "9",
                "not none, fast, default or best",
            ),
            ("PERSIST_LIMITS", "foo", "not NAME=VALUE"),
            ("PERSIST_LIMITS", "memory=64 parsecs", "memory"),
            ("RUST_LOG", "persist_host=loud", "RUST_LOG"),
        ] {
            let settings = resolve(GlobalArgs::default(), &[(variable, value)], "").expect("good");
            let error = settings.check().expect_err(value).to_string();
            assert!(error.contains(variable) && error.contains(said), "{error}");
            let problems = settings.problems();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(problems[0].0, variable);
        }
        // Only Google Cloud Storage reads it.
        for value in ["0", "86401", "soon"] {
            let env = [("PERSIST_GCS_TIMEOUT", value)];
            let settings = resolve(GlobalArgs::default(), &env, "").expect("good");
            settings.check().expect("not needed");
            settings.gcs_timeout().expect_err(value);
            assert_eq!(settings.problems().len(), 1, "{value}");
        }
    }

    #[test]
    fn compression_is_a_word_of_the_environment_or_the_file() {
        let compression = |env: &[(&str, &str)], file: &str| {
            let settings = resolve(GlobalArgs::default(), env, file)?;
            settings.store().map(|options| options.compression)
        };
        assert_eq!(compression(&[], "").expect("good"), Compression::Default);
        for one in Compression::ALL {
            let file = format!("compression = \"{one}\"");
            assert_eq!(compression(&[], &file).expect("good"), one);
            let env = [("PERSIST_COMPRESSION", one.as_str())];
            let found = compression(&env, "compression = \"best\"");
            assert_eq!(found.expect("good"), one);
        }
        let error = compression(&[], "compression = \"defaults\"").expect_err("no word");
        let usage = error.downcast::<Usage>().expect("a wrong setting");
        let said = usage.to_string();
        assert!(said.contains("compression in "), "{said}");
        assert_eq!(usage.hint.as_deref(), Some("did you mean default?"));
    }

    #[test]
    fn a_misspelling_is_told_with_what_was_meant() {
        let hint = |error: anyhow::Error| {
            let usage = error.downcast::<Usage>().expect("a wrong setting");
            usage.hint.expect("a hint")
        };
        let limits = resolve(GlobalArgs::default(), &[], "[limits]\nmemroy = \"1MiB\"\n");
        let error = limits.expect("good").check().expect_err("no limit");
        assert_eq!(hint(error), "did you mean memory?");
        let error = resolve(GlobalArgs::default(), &[], "keep_lsat = 3").expect_err("no key");
        assert_eq!(hint(error), "did you mean keep_last?");
        let mut settings = resolve(GlobalArgs::default(), &[], "").expect("good");
        let names = |name: &str| [name.to_owned()].into_iter();
        let error = settings.check_variables(names("PERSIST_RETENSION"));
        let hint = hint(error.expect_err("no setting"));
        assert!(
            hint.starts_with("did you mean PERSIST_RETENTION?"),
            "{hint}"
        );
        for (name, count) in [("PERSIST_GRACE", 0), ("HOME", 0), ("PERSIST_OF_ANOTHER", 1)] {
            settings.check_variables(names(name)).expect("good");
            assert_eq!(settings.unknown_variables().len(), count, "{name}");
        }
    }

    #[test]
    fn limits_are_a_table_in_the_file_and_a_list_in_the_environment() {
        let file = "[limits]\nmemory = \"64 MiB\"\nruns = 3\n";
        let limits = |env: &[(&str, &str)], file: &str| {
            let settings = resolve(GlobalArgs::default(), env, file).expect("good");
            settings.limits()
        };
        let of_file = limits(&[], file).expect("good");
        assert_eq!((of_file.memory, of_file.runs), (64 << 20, 3));
        let env = [("PERSIST_LIMITS", "cpu=5s, memory = 1 MiB,")];
        let of_env = limits(&env, file).expect("good");
        let default = Limits::default();
        assert_eq!((of_env.memory, of_env.runs), (1 << 20, default.runs));
        assert_eq!(of_env.cpu, Duration::from_secs(5));
        assert_eq!(limits(&[], "limits = \"runs=3\"").expect("good").runs, 3);
        for (bad, hint) in [
            ("memory", "NAME=VALUE"),
            ("memory=much", "invalid value"),
            ("mammary=1", "the limits are"),
        ] {
            let error = limits(&[("PERSIST_LIMITS", bad)], "").expect_err(bad);
            let said = error.to_string();
            assert!(said.contains(bad) && said.contains(hint), "{said}");
        }
        let nested = "[limits]\nmemory = [1]\n";
        let error = resolve(GlobalArgs::default(), &[], nested).expect_err("no value");
        assert!(error.to_string().contains("limits.memory"), "{error}");
    }

    #[test]
    fn the_library_does_not_resolve_a_setting_again() {
        let env = [("PERSIST_LOCAL_PATH", "/of/environment")];
        let settings = resolve(GlobalArgs::default(), &env, "").expect("good");
        let config = settings.storage().expect("good");
        let storage = settings.build(&config).expect("a storage");
        assert_eq!(storage.location(), "the directory /of/environment");
        let unresolved = settings.build(&StorageConfig::default_local());
        let location = unresolved.expect("a storage").location();
        assert_ne!(location, "the directory /of/environment");
    }

    #[test]
    fn modes_are_octal_digits_in_quotes_that_let_no_other_account_write() {
        let modes = |env: &[(&str, &str)], file: &str| {
            let settings = resolve(GlobalArgs::default(), env, file)?;
            let config = settings.storage()?;
            Ok::<_, anyhow::Error>((config.local_file_mode, config.local_dir_mode))
        };
        let file = "file_mode = \"0660\"\ndir_mode = \"2770\"\n";
        let shared = modes(&[], file).expect("good");
        assert_eq!(shared, (Some(0o660), Some(0o2770)));
        let of_env = modes(&[("PERSIST_FILE_MODE", "640")], file).expect("good");
        assert_eq!(of_env.0, Some(0o640));
        assert_eq!(modes(&[], "").expect("good"), (None, None));
        for (env, file, why) in [
            ("", "file_mode = 0o660", "in quotes"),
            ("", "dir_mode = 770", "in quotes"),
            ("", "file_mode = \"0666\"", "every account"),
            ("0606", "", "PERSIST_FILE_MODE"),
            ("group", "", "PERSIST_FILE_MODE"),
        ] {
            let error = modes(&[("PERSIST_FILE_MODE", env)], file).expect_err(why);
            let said = format!("{error:#}");
            assert!(said.contains(why), "{env}{file}: {said}");
        }
    }

    #[test]
    fn no_setting_is_said_twice() {
        let mut names: Vec<_> = SETTINGS
            .iter()
            .flat_map(|setting| setting.variables)
            .collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
