//! Settings of named agents in the file of settings, for the commands that run agents.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use globset::{Glob, GlobMatcher};
use persist_host::storage::{redact, secret_in};
use persist_host::wasm::{HttpPolicy, Limits, Rights, RunOptions};

use super::path::in_dir;
use crate::error::Usage;
use crate::secret_file::{secret_text, with_headers, without_line_break};
use crate::text;

/// Keys of an agent, for errors.
const KEYS: [&str; 8] = [
    "env",
    "secrets",
    "limits",
    "rights",
    "read_only",
    "only",
    "allow_http",
    "http_headers",
];

/// Settings of the agents that a name or a glob stands for: a table `[agents.NAME]`.
#[derive(Clone, Debug)]
pub(crate) struct AgentSettings {
    /// Name or glob, as it is written.
    name: String,
    glob: GlobMatcher,
    env: BTreeMap<String, String>,
    /// Variables, and the files with their values.
    secrets: BTreeMap<String, PathBuf>,
    limits: Vec<(String, String)>,
    pub(crate) rights: Option<Rights>,
    pub(crate) only: Option<String>,
    allow_http: Vec<String>,
    /// Hosts, and the files with the headers that are added to requests.
    http_headers: BTreeMap<String, PathBuf>,
}

impl AgentSettings {
    /// Parses the table `agents`.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub(super) fn parse(agents: toml::Value) -> Result<Vec<Self>, String> {
        let toml::Value::Table(agents) = agents else {
            return Err("agents is not a table, as in [agents.NAME]".into());
        };
        let agents = agents.into_iter().map(|(name, values)| {
            let place = format!("agents.{:?}", redact(&name));
            let agent = Self::of(name, values);
            agent.map_err(|why| format!("{place}: {why}"))
        });
        agents.collect()
    }

    fn of(name: String, values: toml::Value) -> Result<Self, String> {
        if let Some(kind) = secret_in(&name) {
            return Err(format!("contains {kind} instead of a name (not shown)"));
        }
        let glob = Glob::new(&name).map_err(|error| error.kind().to_string())?;
        let toml::Value::Table(values) = values else {
            return Err("not a table".into());
        };
        let mut agent = Self {
            name,
            glob: glob.compile_matcher(),
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            limits: Vec::new(),
            rights: None,
            only: None,
            allow_http: Vec::new(),
            http_headers: BTreeMap::new(),
        };
        for (key, value) in values {
            agent.set(&key, value)?;
        }
        for host in agent.http_headers.keys() {
            // A header is sent nowhere else, so that the host must be allowed.
            let policy = agent.hosts()?.header(host, "x-persist", "x");
            drop(policy.map_err(|error| format!("http_headers: {error}"))?);
        }
        Ok(agent)
    }

    fn set(&mut self, key: &str, value: toml::Value) -> Result<(), String> {
        match key {
            "env" => {
                self.env = texts(key, value)?;
                for (name, value) in &self.env {
                    if let Some(kind) = secret_in(value) {
                        return Err(format!(
                            "env.{name} contains {kind} (not shown); write it to a file, and name \
                             the file in secrets"
                        ));
                    }
                }
            }
            "secrets" => self.secrets = files(key, value)?,
            "http_headers" => self.http_headers = files(key, value)?,
            "limits" => {
                for (name, value) in texts(key, value)? {
                    let set = Limits::default().set(&name, &value);
                    set.map_err(|error| format!("limits: {error}"))?;
                    self.limits.push((name, value));
                }
            }
            "rights" | "read_only" if self.rights.is_some() => {
                return Err("rights and read_only exclude each other".into());
            }
            "rights" => {
                let rights = text_of(key, value)?.parse();
                self.rights = Some(rights.map_err(|error| format!("rights: {error}"))?);
            }
            "read_only" => match value {
                toml::Value::Boolean(true) => self.rights = Some(Rights::read_only()),
                toml::Value::Boolean(false) => {}
                _ => return Err("read_only is neither true nor false".into()),
            },
            "only" => self.only = Some(text_of(key, value)?),
            "allow_http" => {
                let toml::Value::Array(hosts) = value else {
                    return Err("allow_http is not a list, such as [\"api.example.com\"]".into());
                };
                let hosts = hosts.into_iter().map(|host| text_of("allow_http", host));
                self.allow_http = hosts.collect::<Result<_, _>>()?;
                drop(self.hosts()?);
            }
            _ => {
                let near = text::nearest(key, KEYS);
                let near = near.map(|near| format!("; did you mean {near}?"));
                return Err(format!(
                    "{:?} is not a key of an agent: the keys are {}{}",
                    redact(key),
                    KEYS.join(", "),
                    near.unwrap_or_default()
                ));
            }
        }
        Ok(())
    }

    /// Resolves paths of a file in `dir`.
    pub(super) fn resolve(&mut self, dir: &Path) -> Result<()> {
        let secrets = self.secrets.values_mut().map(|file| ("secrets", file));
        let headers = self.http_headers.values_mut();
        for (key, file) in secrets.chain(headers.map(|file| ("http_headers", file))) {
            *file = in_dir(dir, file, &format!("agents.{:?}: {key}", self.name))?;
        }
        Ok(())
    }

    fn hosts(&self) -> Result<HttpPolicy, String> {
        let mut policy = HttpPolicy::default();
        for host in &self.allow_http {
            let allowed = policy.allow(host);
            policy = allowed.map_err(|error| format!("allow_http: {error}"))?;
        }
        Ok(policy)
    }

    /// Adds the variables, the secrets and the HTTP policy to the options of a run. Reads the
    /// files of the secrets.
    pub(crate) fn add_to(&self, mut options: RunOptions) -> Result<RunOptions> {
        for (name, value) in &self.env {
            options = options.env(name, value);
        }
        for (name, file) in &self.secrets {
            let text = secret_text(&self.place("secrets"), name, &file.to_string_lossy())?;
            options = options.env(name, without_line_break(&text));
        }
        Ok(options)
    }

    /// Returns the hosts that the agent may send requests to, with the headers that are added.
    pub(crate) fn http(&self) -> Result<HttpPolicy> {
        let mut policy = self.hosts().map_err(Usage::new)?;
        for (host, file) in &self.http_headers {
            let option = self.place("http_headers");
            policy = with_headers(policy, &option, host, &file.to_string_lossy())?;
        }
        Ok(policy)
    }

    /// Applies the limits.
    pub(crate) fn limit(&self, limits: &mut Limits) -> Result<()> {
        for (name, value) in &self.limits {
            limits.set(name, value)?;
        }
        Ok(())
    }

    fn place(&self, key: &str) -> String {
        format!("agents.{:?} in persist.toml: {key}", self.name)
    }

    /// Returns the key of the table, as `persist settings` prints it.
    pub(crate) fn key(&self) -> String {
        format!("agents.{:?}", self.name)
    }

    /// Describes the settings without the values of variables, which may be secrets.
    pub(crate) fn shown(&self) -> String {
        let names = |names: Vec<&str>| names.join(",");
        let names_of = |files: &BTreeMap<String, PathBuf>| {
            let pairs = files.iter();
            let pairs = pairs.map(|(name, file)| format!("{name}={}", file.display()));
            pairs.collect::<Vec<_>>().join(",")
        };
        let limits = self.limits.iter();
        let limits: Vec<_> = limits
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let parts = [
            ("env", names(self.env.keys().map(String::as_str).collect())),
            ("secrets", names_of(&self.secrets)),
            ("limits", limits.join(",")),
            (
                "rights",
                self.rights.as_ref().map(words).unwrap_or_default(),
            ),
            ("only", self.only.clone().unwrap_or_default()),
            ("allow_http", self.allow_http.join(",")),
            ("http_headers", names_of(&self.http_headers)),
        ];
        let parts = parts.into_iter().filter(|(_, value)| !value.is_empty());
        let parts: Vec<_> = parts
            .map(|(key, value)| format!("{key}: {value}"))
            .collect();
        parts.join("; ")
    }
}

/// Returns the settings of an agent: those of its name, or else of the glob that matches it.
///
/// # Errors
/// A usage error if several globs match.
pub(super) fn of<'a>(agents: &'a [AgentSettings], name: &str) -> Result<Option<&'a AgentSettings>> {
    if let Some(exact) = agents.iter().find(|agent| agent.name == name) {
        return Ok(Some(exact));
    }
    let mut matching = agents.iter().filter(|agent| agent.glob.is_match(name));
    match (matching.next(), matching.next()) {
        (Some(one), Some(other)) => Err(Usage::new(format!(
            "the agent {name} has settings in both {} and {}",
            one.key(),
            other.key()
        ))
        .with_hint(format!(
            "add [agents.{name:?}] to persist.toml, which is then taken alone"
        ))
        .into()),
        (found, _) => Ok(found),
    }
}

fn words(rights: &Rights) -> String {
    let all = [
        ("load", rights.load),
        ("save", rights.save),
        ("list", rights.list),
        ("delete", rights.delete),
    ];
    let given = all.into_iter().filter(|(_, is_given)| *is_given);
    given.map(|(word, _)| word).collect::<Vec<_>>().join(",")
}

fn text_of(key: &str, value: toml::Value) -> Result<String, String> {
    match value {
        toml::Value::String(text) if secret_in(&text).is_some() => {
            let kind = secret_in(&text).unwrap_or_default();
            Err(format!(
                "{key} contains {kind}, which does not belong there (not shown)"
            ))
        }
        toml::Value::String(text) => Ok(text),
        _ => Err(format!("{key} is not a string")),
    }
}

/// Parses a table of strings and numbers.
fn texts(key: &str, value: toml::Value) -> Result<BTreeMap<String, String>, String> {
    let toml::Value::Table(values) = value else {
        return Err(format!(
            "{key} is not a table, such as {{ NAME = \"VALUE\" }}"
        ));
    };
    let values = values.into_iter().map(|(name, value)| match value {
        toml::Value::String(text) => Ok((name, text)),
        toml::Value::Integer(number) => Ok((name, number.to_string())),
        _ => Err(format!(
            "{key}.{} is not a string or a number",
            redact(&name)
        )),
    });
    values.collect()
}

/// Parses a table of file names.
fn files(key: &str, value: toml::Value) -> Result<BTreeMap<String, PathBuf>, String> {
    let toml::Value::Table(values) = value else {
        return Err(format!(
            "{key} is not a table, such as {{ NAME = \"FILE\" }}"
        ));
    };
    let values = values.into_iter().map(|(name, value)| {
        let place = format!("{key}.{}", redact(&name));
        let file = text_of(&place, value)?;
        match &*file {
            "" | "-" => Err(format!("{place} is not the name of a file")),
            _ => Ok((name, file.into())),
        }
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<AgentSettings>, String> {
        let mut table: toml::Table = toml::from_str(text).expect("TOML");
        AgentSettings::parse(table.remove("agents").expect("agents"))
    }

    #[test]
    fn an_agent_has_the_settings_of_its_name_or_else_of_a_glob() {
        let text = "[agents.\"bot-*\"]\nonly = \"a/\"\n[agents.bot-1]\nonly = \"b/\"\n\
                    [agents.\"*-2\"]\nread_only = true\n";
        let agents = parsed(text).expect("good");
        let only = |name: &str| {
            let agent = of(&agents, name).expect("one");
            agent.and_then(|agent| agent.only.clone())
        };
        assert_eq!(only("bot-1").as_deref(), Some("b/"));
        assert_eq!(only("bot-3").as_deref(), Some("a/"));
        assert_eq!(only("other"), None);
        let error = of(&agents, "bot-2").expect_err("two globs").to_string();
        assert!(
            error.contains("agents.\"bot-*\"") && error.contains("agents.\"*-2\""),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_value_is_refused_by_the_name_of_its_key() {
        for (line, why) in [
            ("limit = {}", "did you mean limits?"),
            ("limits = { memory = \"much\" }", "limits: "),
            ("limits = { memroy = \"1MiB\" }", "memroy"),
            ("rights = \"fly\"", "rights: "),
            ("rights = \"load\"\nread_only = true", "exclude each other"),
            ("read_only = \"yes\"", "read_only is neither"),
            ("env = [\"A=b\"]", "env is not a table"),
            ("env = { A = [1] }", "env.A is not a string or a number"),
            (
                "secrets = { KEY = \"-\" }",
                "secrets.KEY is not the name of a file",
            ),
            ("allow_http = \"example.com\"", "allow_http is not a list"),
            ("allow_http = [\"http://\"]", "allow_http: "),
            (
                "http_headers = { \"example.com\" = \"key.txt\" }",
                "http_headers: ",
            ),
        ] {
            let error = parsed(&format!("[agents.bot]\n{line}")).expect_err(line);
            assert!(
                error.starts_with("agents.\"bot\": ") && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn a_secret_is_refused_where_a_file_belongs_and_never_printed() {
        let secret = "AKIAIOSFODNN7EXAMPLE";
        for line in [
            format!("env = {{ KEY = \"{secret}\" }}"),
            format!("secrets = {{ KEY = \"{secret}\" }}"),
            format!("only = \"{secret}\""),
            format!("{secret} = 1"),
        ] {
            let error = parsed(&format!("[agents.bot]\n{line}")).expect_err(&line);
            assert!(!error.contains(secret), "{error}");
        }
        let agents = parsed("[agents.bot]\nenv = { TOKEN = \"pl4nted\" }").expect("good");
        assert_eq!(agents[0].shown(), "env: TOKEN");
    }
}
