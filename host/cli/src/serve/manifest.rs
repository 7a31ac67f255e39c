//! The manifest of `persist serve`: which agents it runs, with what, and which tokens it takes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use globset::{Glob, GlobMatcher};
use persist_host::snapshot::{LeaseOptions, Name};
use persist_host::units::parse_duration;
use persist_host::wasm::{HttpPolicy, Limits, Rights, RunOptions};
use serde::Deserialize;

use super::token::{KnownToken, TokenRight};
use crate::error::Usage;
use crate::secret_file::{secret_text, with_headers, without_line_break};
use crate::settings::Settings;
use crate::text;

/// Limits of the whole process, which no agent has of its own.
const OF_PROCESS: [&str; 13] = [
    "component",
    "definitions",
    "instance-storage",
    "functions",
    "nested-blocks",
    "stack",
    "compilations",
    "compile-time",
    "runs",
    "run-wait",
    "host-calls",
    "host-writers",
    "host-readers",
];

/// A manifest as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    lease: Option<WrittenLease>,
    #[serde(default)]
    agents: Vec<WrittenAgent>,
    #[serde(default)]
    tokens: Vec<WrittenToken>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenLease {
    term: String,
    wait: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WrittenAgent {
    name: String,
    component: PathBuf,
    rights: Option<String>,
    #[serde(default)]
    read_only: bool,
    #[serde(default)]
    only: String,
    #[serde(default)]
    limits: BTreeMap<String, String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    secrets: BTreeMap<String, PathBuf>,
    #[serde(default)]
    allow_http: Vec<String>,
    #[serde(default)]
    http_headers: BTreeMap<String, PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenToken {
    name: String,
    sha256: String,
    rights: Vec<TokenRight>,
    agents: Vec<String>,
}

/// A manifest that was checked.
pub(super) struct Manifest {
    /// Lease that a run holds; none: runs take no lease.
    pub(super) lease: Option<LeaseOptions>,
    pub(super) agents: Vec<AgentEntry>,
    pub(super) tokens: Vec<KnownToken>,
}

/// Agents that run one component.
pub(super) struct AgentEntry {
    pub(super) name: String,
    pub(super) glob: GlobMatcher,
    pub(super) component: PathBuf,
    pub(super) rights: Rights,
    pub(super) limits: Limits,
    pub(super) options: RunOptions,
}

impl Manifest {
    /// Reads and checks a manifest. Paths in it are relative to its directory.
    pub(super) fn read(path: &Path, settings: &Settings) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the manifest {}", path.display()))?;
        let dir = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, dir, &settings.limits()?)
            .map_err(|error| at(&path.display().to_string(), error))
    }

    fn parse(text: &str, dir: &Path, limits: &Limits) -> Result<Self> {
        let written: Written = toml::from_str(text).map_err(|error| wrong(text, &error))?;
        if written.agents.is_empty() {
            return Err(Usage::new("no [[agents]]")
                .with_hint("add `[[agents]]` with `name` and `component`")
                .into());
        }
        let agents = written.agents.into_iter().enumerate();
        let agents = agents.map(|(n, agent)| {
            let place = format!("agents[{n}] {:?}", agent.name);
            agent
                .checked(dir, limits)
                .map_err(|error| at(&place, error))
        });
        let tokens = written.tokens.into_iter().enumerate();
        let tokens = tokens.map(|(n, token)| {
            let place = format!("tokens[{n}] {:?}", token.name);
            token.checked().map_err(|error| at(&place, error))
        });
        let lease = written.lease.map(WrittenLease::checked).transpose();
        Ok(Self {
            lease: lease.map_err(|error| at("lease", error))?,
            agents: agents.collect::<Result<_>>()?,
            tokens: tokens.collect::<Result<_>>()?,
        })
    }

    /// Returns the first entry whose name or glob an agent matches.
    pub(super) fn entry(&self, agent: &Name) -> Option<usize> {
        let mut entries = self.agents.iter();
        entries.position(|entry| entry.glob.is_match(agent.as_str()))
    }
}

impl WrittenLease {
    fn checked(self) -> Result<LeaseOptions> {
        let duration = |key: &str, text: &str| {
            parse_duration(text).map_err(|error| Usage::new(format!("{key}: {error}")))
        };
        let mut options = LeaseOptions::default();
        options.term = duration("term", &self.term)?;
        options.wait = match &self.wait {
            Some(wait) => duration("wait", wait)?,
            None => options.term * 2,
        };
        options.check().map_err(|error| {
            let why = error.to_string();
            let why = why.strip_prefix("invalid: ").unwrap_or(&why);
            Usage::new(format!("term: {why}"))
        })?;
        Ok(options)
    }
}

impl WrittenAgent {
    fn checked(self, dir: &Path, limits: &Limits) -> Result<AgentEntry> {
        let rights = match (&self.rights, self.read_only) {
            (Some(_), true) => {
                return Err(Usage::new("rights: not with read-only")
                    .with_hint("remove one of them")
                    .into());
            }
            (Some(rights), false) => rights
                .parse()
                .map_err(|error| Usage::new(format!("rights: {error}")))?,
            (None, true) => Rights::read_only(),
            (None, false) => Rights::all(),
        };
        let mut limits = limits.clone();
        for (name, value) in &self.limits {
            if OF_PROCESS.contains(&name.as_str()) {
                return Err(
                    Usage::new(format!("limits.{name}: all agents share this limit"))
                        .with_hint("set it with `limits` in persist.toml, or with PERSIST_LIMITS")
                        .into(),
                );
            }
            limits.set(name, value).map_err(|error| {
                let known = || Limits::table().iter().map(|limit| limit.name);
                let is_known = known().any(|known| known == name);
                let hint = match text::nearest(name, known()).filter(|_| !is_known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "run `persist run --help` to list the limits".into(),
                };
                Usage::new(format!("limits.{name}: {error}")).with_hint(hint)
            })?;
        }
        let mut options = RunOptions::default().http(self.http(dir)?);
        for (name, value) in &self.env {
            options = options.env(name, value);
        }
        for (name, file) in &self.secrets {
            let file = dir.join(file);
            let text = secret_text("secrets", name, &file.to_string_lossy())?;
            options = options.env(name, without_line_break(&text));
        }
        let component = dir.join(&self.component);
        std::fs::File::open(&component).map_err(|error| {
            Usage::new(format!(
                "component: cannot read {}: {error}",
                component.display()
            ))
            .with_hint("write the path of a component, relative to the manifest")
        })?;
        Ok(AgentEntry {
            glob: glob("name", &self.name)?,
            name: self.name,
            component,
            rights: rights.under(self.only),
            limits,
            options,
        })
    }

    fn http(&self, dir: &Path) -> Result<HttpPolicy> {
        let mut policy = HttpPolicy::default();
        for host in &self.allow_http {
            let allowed = policy.allow(host);
            policy = allowed.map_err(|error| Usage::new(format!("allow-http: {error}")))?;
        }
        for (host, file) in &self.http_headers {
            let file = dir.join(file);
            policy = with_headers(policy, "http-headers", host, &file.to_string_lossy())?;
        }
        Ok(policy)
    }
}

impl WrittenToken {
    fn checked(self) -> Result<KnownToken> {
        let mut hash = [0; 32];
        if hex::decode_to_slice(&self.sha256, &mut hash).is_err() {
            return Err(
                Usage::new("sha256: not the SHA-256 of a token, 64 hex digits")
                    .with_hint("run `persist token new`, and copy the lines that it prints")
                    .into(),
            );
        }
        if self.rights.is_empty() || self.agents.is_empty() {
            return Err(
                Usage::new("rights, agents: empty, so that the token allows nothing")
                    .with_hint("name at least one right and one agent")
                    .into(),
            );
        }
        let agents = self.agents.iter().map(|agent| glob("agents", agent));
        Ok(KnownToken {
            name: self.name,
            hash,
            rights: self.rights,
            agents: agents.collect::<Result<_>>()?,
        })
    }
}

fn glob(key: &str, text: &str) -> Result<GlobMatcher> {
    if text.is_empty() {
        return Err(Usage::new(format!("{key}: empty")).into());
    }
    let glob = Glob::new(text);
    let glob = glob.map_err(|error| Usage::new(format!("{key}: {:?}: {}", text, error.kind())))?;
    Ok(glob.compile_matcher())
}

/// Returns an error with the place that it is about.
fn at(place: &str, error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<Usage>() {
        Ok(usage) => {
            let placed = Usage::new(format!("{place}: {usage}"));
            match usage.hint {
                Some(hint) => placed.with_hint(hint).into(),
                None => placed.into(),
            }
        }
        Err(error) => error,
    }
}

/// Describes an error of the parser without the values that its own text repeats: one may be a
/// secret in the wrong place.
fn wrong(text: &str, error: &toml::de::Error) -> Usage {
    let message = error.message();
    let line = error.span().map(|span| {
        let before = text.get(..span.start).unwrap_or_default();
        before.matches('\n').count() + 1
    });
    let why = match message.split_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid") => {
            format!("not of the type of this key, which is {expected}")
        }
        _ => message.to_owned(),
    };
    let what = match line {
        Some(line) => format!("line {line}: {why}"),
        None => why,
    };
    let hint = match nearest_expected(message) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "the page `Serving agents` of the manual has all keys".into(),
    };
    Usage::new(what).with_hint(hint)
}

/// Returns the word that an unknown one may be a misspelling of, from a message such as "unknown
/// field `limit`, expected `lease` or `limits`".
fn nearest_expected(message: &str) -> Option<&str> {
    let mut words = message
        .strip_prefix("unknown ")?
        .split('`')
        .skip(1)
        .step_by(2);
    let unknown = words.next()?;
    text::nearest(unknown, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(text: &str) -> String {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("a.wasm"), "").expect("written");
        match Manifest::parse(text, dir.path(), &Limits::default()) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn an_error_names_the_key() {
        let agent = "[[agents]]\nname = \"bot\"\n";
        let with = |more: &str| fails(&format!("{agent}component = \"a.wasm\"\n{more}"));
        assert!(fails("").contains("no [[agents]]"));
        assert!(fails(agent).contains("missing field `component`"));
        let missing = fails(&format!("{agent}component = \"b.wasm\""));
        assert!(
            missing.starts_with("agents[0] \"bot\": component: cannot read"),
            "{missing}"
        );
        let unknown = with("limit = {}");
        assert!(
            unknown.starts_with("line 4: unknown field `limit`"),
            "{unknown}"
        );
        for (key, value) in [
            ("limits.memory", "limits = { memory = \"much\" }"),
            ("limits.runs", "limits = { runs = \"2\" }"),
            ("rights", "rights = \"fly\""),
            ("rights", "rights = \"load\"\nread-only = true"),
            ("allow-http", "allow-http = [\"http://\"]"),
            (
                "http-headers",
                "http-headers = { \"example.com\" = \"none\" }",
            ),
            ("secrets", "secrets = { KEY = \"none\" }"),
        ] {
            let error = with(value);
            assert!(
                error.starts_with(&format!("agents[0] \"bot\": {key}")),
                "{error}"
            );
        }
        for (key, lease) in [
            ("lease: term: ", "term = \"1ms\""),
            ("lease: term: ", "term = \"soon\""),
            ("lease: wait: ", "term = \"30s\"\nwait = \"1\""),
        ] {
            let error = with(&format!("[lease]\n{lease}"));
            assert!(error.starts_with(key), "{error}");
        }
        let token = with(
            "[[tokens]]\nname = \"ci\"\nsha256 = \"s3cr3t\"\nrights = [\"run\"]\nagents = [\"*\"]",
        );
        assert!(token.starts_with("tokens[0] \"ci\": sha256: "), "{token}");
        assert!(!token.contains("s3cr3t"), "{token}");
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        let hint = |text: &str| {
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::write(dir.path().join("a.wasm"), "").expect("written");
            let error = Manifest::parse(text, dir.path(), &Limits::default());
            let error = error.err().expect("refused");
            let usage = error
                .downcast::<Usage>()
                .expect("a mistake of the manifest");
            usage.hint.expect("a hint")
        };
        let agent = "[[agents]]\nname = \"bot\"\ncomponent = \"a.wasm\"\n";
        let token = "[[tokens]]\nname = \"ci\"\nagents = [\"*\"]\nsha256 = \"0\"\n";
        for (near, more) in [
            ("allow-http", "allow_http = []"),
            ("limits", "limit = {}"),
            ("memory", "limits = { memroy = \"1MiB\" }"),
            ("lease", "[leases]\nterm = \"30s\""),
            ("term", "[lease]\nterms = \"30s\""),
            ("sha256", &format!("{token}sha-256 = \"0\"")),
            ("run", &format!("{token}rights = [\"runs\"]")),
        ] {
            let text = format!("{agent}{more}");
            assert_eq!(hint(&text), format!("did you mean `{near}`?"), "{text}");
        }
        let far = hint(&format!("{agent}colour = 1"));
        assert!(far.contains("`Serving agents`"), "{far}");
    }

    #[test]
    fn an_error_repeats_no_value() {
        let error = fails("agents = \"s3cr3t-0f-mine\"");
        assert!(!error.contains("s3cr3t"), "{error}");
        assert!(error.starts_with("line 1: "), "{error}");
    }

    #[test]
    fn the_first_entry_that_matches_is_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("a.wasm"), "").expect("written");
        let text = "[[agents]]\nname = \"bot-1\"\ncomponent = \"a.wasm\"\n\
                    [[agents]]\nname = \"bot-*\"\ncomponent = \"a.wasm\"\n";
        let manifest = Manifest::parse(text, dir.path(), &Limits::default()).expect("valid");
        let entry = |agent: &str| manifest.entry(&Name::new(agent).expect("a name"));
        assert_eq!(entry("bot-1"), Some(0));
        assert_eq!(entry("bot-2"), Some(1));
        assert_eq!(entry("other"), None);
    }

    #[test]
    fn a_run_waits_two_terms_for_a_lease_unless_the_manifest_says_otherwise() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("a.wasm"), "").expect("written");
        let lease = |lease: &str| {
            let text = format!("{lease}\n[[agents]]\nname = \"bot\"\ncomponent = \"a.wasm\"");
            let manifest = Manifest::parse(&text, dir.path(), &Limits::default()).expect("valid");
            manifest.lease.map(|lease| (lease.term, lease.wait))
        };
        let seconds = std::time::Duration::from_secs;
        assert_eq!(lease(""), None);
        let usual = lease("[lease]\nterm = \"10s\"");
        assert_eq!(usual, Some((seconds(10), seconds(20))));
        let refused = lease("[lease]\nterm = \"10s\"\nwait = \"0s\"");
        assert_eq!(refused, Some((seconds(10), seconds(0))));
    }

    #[test]
    fn limits_of_the_process_are_limits() {
        for name in OF_PROCESS {
            assert!(Limits::default().get(name).is_some(), "{name}");
        }
    }
}
