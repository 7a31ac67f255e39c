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
        let bytes = std::fs::read(path)
            .with_context(|| format!("cannot read the manifest {}", path.display()))?;
        let dir = path.parent().unwrap_or(Path::new(""));
        let limits = settings.limits()?;
        let parsed = utf8(&bytes).and_then(|text| Self::parse(text, dir, &limits));
        parsed.map_err(|error| at(&path.display().to_string(), error))
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
        let manifest = Self {
            lease: lease.map_err(|error| at("lease", error))?,
            agents: agents.collect::<Result<_>>()?,
            tokens: tokens.collect::<Result<_>>()?,
        };
        manifest.refuse_unused()?;
        Ok(manifest)
    }

    /// Refuses an entry that an earlier one hides.
    fn refuse_unused(&self) -> Result<()> {
        for (n, agent) in self.agents.iter().enumerate() {
            let mut earlier = self.agents.iter().take(n);
            if let Some(first) = earlier.position(|earlier| earlier.hides(agent)) {
                let what = format!("name: agents[{first}] matches all agents of this entry");
                let error = Usage::new(what).with_hint(
                    "the first entry that matches an agent is taken: remove one of them, or move \
                     this one before the other",
                );
                return Err(at(&format!("agents[{n}] {:?}", agent.name), error.into()));
            }
        }
        for (n, token) in self.tokens.iter().enumerate() {
            let mut earlier = self.tokens.iter().take(n);
            if let Some(first) = earlier.position(|earlier| earlier.hash == token.hash) {
                let what = format!("sha256: tokens[{first}] is the same token");
                let error = Usage::new(what)
                    .with_hint("remove one of them, or run `persist token new` for another token");
                return Err(at(&format!("tokens[{n}] {:?}", token.name), error.into()));
            }
        }
        Ok(())
    }

    /// Returns the first entry whose name or glob an agent matches.
    pub(super) fn entry(&self, agent: &Name) -> Option<usize> {
        let mut entries = self.agents.iter();
        entries.position(|entry| entry.glob.is_match(agent.as_str()))
    }
}

impl AgentEntry {
    /// Returns true if no agent is left for a later entry.
    fn hides(&self, later: &Self) -> bool {
        let takes_all = self.name.bytes().all(|byte| byte == b'*');
        let takes_name = !is_glob(&later.name) && self.glob.is_match(&later.name);
        takes_all || takes_name || self.name == later.name
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
            (Some(rights), false) if rights.split(',').all(|right| right.trim().is_empty()) => {
                return Err(
                    Usage::new("rights: empty, so that the agent may do nothing")
                        .with_hint("name at least one right, or remove the key for all of them")
                        .into(),
                );
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
                Usage::new(format!("limits.{name}: {error}")).with_hint(hint_of_limit(name))
            })?;
            if lets_nothing_run(&limits, name) {
                let what = format!("limits.{name}: with 0, no run can begin");
                return Err(Usage::new(what).with_hint(hint_of_limit(name)).into());
            }
        }
        let mut options = RunOptions::default().http(self.http(dir)?);
        for (name, value) in &self.env {
            check_variable("env", name, value)?;
            options = options.env(name, value);
        }
        for (name, file) in &self.secrets {
            check_variable("secrets", name, "")?;
            let file = dir.join(file);
            let text = secret_text("secrets", name, &file.to_string_lossy())?;
            options = options.env(name, without_line_break(&text));
        }
        let component = dir.join(&self.component);
        let shown = component.display();
        let opened = std::fs::File::open(&component);
        let what = match opened.and_then(|file| file.metadata()) {
            Ok(file) if file.is_dir() => Some(format!("component: {shown} is a directory")),
            Ok(_) => None,
            Err(error) => Some(format!("component: cannot read {shown}: {error}")),
        };
        if let Some(what) = what {
            return Err(Usage::new(what)
                .with_hint("write the path of a component, relative to the manifest")
                .into());
        }
        if !is_glob(&self.name) && !self.name.is_empty() {
            Name::new(self.name.as_str()).map_err(|error| {
                let why = error.to_string();
                let why = why.strip_prefix("invalid: ").unwrap_or(&why);
                Usage::new(format!("name: {why}"))
                    .with_hint("write the name of an agent, or a glob of names")
            })?;
        }
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
        if self.name.is_empty() || text::one_line(&self.name) != self.name {
            let what = "name: empty, or with a character that cannot be seen";
            return Err(Usage::new(what)
                .with_hint("versions tell the name of the token: write one that can be read")
                .into());
        }
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

/// Returns the text of a manifest.
fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        Usage::new(format!("line {line}: not UTF-8"))
            .with_hint("save the manifest as UTF-8")
            .into()
    })
}

/// Returns true if a name stands for several.
fn is_glob(name: &str) -> bool {
    name.contains(['*', '?', '[', '{', '\\'])
}

/// Returns true if a limit is 0 without which every run fails.
fn lets_nothing_run(limits: &Limits, name: &str) -> bool {
    match name {
        "memory" => limits.memory == 0,
        "memories" => limits.memories == 0,
        "instances" => limits.instances == 0,
        "cpu" => limits.cpu.is_zero(),
        "wall-clock" => limits.wall_clock.is_zero(),
        _ => false,
    }
}

fn hint_of_limit(name: &str) -> String {
    let mut table = Limits::table().iter();
    if let Some(limit) = table.find(|limit| limit.name == name) {
        return format!("write a value such as {:?}, the default", limit.default);
    }
    match text::nearest(name, Limits::table().iter().map(|limit| limit.name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "run `persist run --help` to list the limits".into(),
    }
}

/// Refuses a variable that the environment of a process cannot hold. The value is not repeated.
fn check_variable(key: &str, name: &str, value: &str) -> Result<()> {
    if !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0') {
        return Ok(());
    }
    let what = format!("{key}: {name:?} is not a variable of the environment");
    Err(Usage::new(what)
        .with_hint("a name is not empty and has no `=`, and neither it nor its value has a NUL")
        .into())
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
        Some((found, expected)) if is_of_type(found) => {
            format!("not of the type of this key, which is {expected}")
        }
        Some((found, _)) if found.starts_with("invalid") => format!("not TOML: {message}"),
        _ => message.to_owned(),
    };
    let what = match line {
        Some(line) => format!("line {line}: {why}"),
        None => why,
    };
    let hint = match nearest_expected(message) {
        Some(near) => format!("did you mean `{near}`?"),
        None if text.trim_start().starts_with('{') => {
            "write the manifest in TOML, not in JSON; it begins with `[[agents]]`".into()
        }
        None if message.starts_with("unknown variant") => {
            "choose one of these; `persist token new --help` describes the rights".into()
        }
        None => "the page `Serving agents` of the manual has all keys".into(),
    };
    Usage::new(what).with_hint(hint)
}

/// Returns true for an error about a value, whose text repeats the value.
fn is_of_type(found: &str) -> bool {
    let kinds = ["invalid type", "invalid value", "invalid length"];
    kinds.iter().any(|kind| found.starts_with(kind))
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

    /// Returns the message and the hint of a manifest that is refused.
    fn refused(text: &str) -> (String, String) {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("a.wasm"), "").expect("written");
        std::fs::create_dir(dir.path().join("directory")).expect("made");
        let error = Manifest::parse(text, dir.path(), &Limits::default());
        let error = error.err().unwrap_or_else(|| panic!("accepted: {text}"));
        let usage = error
            .downcast::<Usage>()
            .expect("a mistake of the manifest");
        (usage.to_string(), usage.hint.expect("a hint"))
    }

    #[test]
    fn entries_that_cannot_work_are_refused_with_a_hint() {
        let agent = |name: &str| format!("[[agents]]\nname = {name:?}\ncomponent = \"a.wasm\"\n");
        let token = |name: &str| {
            let hash = "0".repeat(64);
            format!(
                "[[tokens]]\nname = {name}\nsha256 = \"{hash}\"\nrights = [\"run\"]\n\
                 agents = [\"*\"]\n"
            )
        };
        let bot = agent("bot");
        for (text, begin, hint) in [
            (
                format!("{bot}{bot}"),
                "agents[1] \"bot\": name: agents[0] matches",
                "move this one",
            ),
            (
                agent("*") + &agent("bot-*"),
                "agents[1] \"bot-*\": name: agents[0] matches",
                "move this one",
            ),
            (
                agent("bot-*") + &agent("bot-1"),
                "agents[1] \"bot-1\": name: agents[0] matches",
                "move this one",
            ),
            (agent(&"a".repeat(300)), "agents[0] \"aaa", "a glob"),
            (
                format!("{bot}{}{}", token("\"one\""), token("\"two\"")),
                "tokens[1] \"two\": sha256: tokens[0] is the same token",
                "persist token new",
            ),
            (
                format!("{bot}{}", token("\"\"")),
                "tokens[0] \"\": name: empty",
                "can be read",
            ),
            (
                format!("{bot}{}", token("\"a\\nb\"")),
                "tokens[0] \"a\\nb\": name: ",
                "can be read",
            ),
            (
                format!("{bot}{}", token("\"\\u202ea\"")),
                "tokens[0] \"\\u{202e}a\": name: ",
                "can be read",
            ),
            (
                format!("{bot}rights = \" ,\""),
                "agents[0] \"bot\": rights: empty",
                "at least one",
            ),
            (
                format!("{bot}limits = {{ memory = \"0\" }}"),
                "agents[0] \"bot\": limits.memory: with 0",
                "\"256 MiB\"",
            ),
            (
                format!("{bot}limits = {{ cpu = \"0s\" }}"),
                "agents[0] \"bot\": limits.cpu: with 0",
                "\"30 s\"",
            ),
            (
                format!("{bot}env = {{ \"A=B\" = \"1\" }}"),
                "agents[0] \"bot\": env: \"A=B\"",
                "no `=`",
            ),
            (
                format!("{bot}env = {{ \"\" = \"1\" }}"),
                "agents[0] \"bot\": env: \"\"",
                "not empty",
            ),
            (
                format!("{bot}secrets = {{ \"A=B\" = \"a.wasm\" }}"),
                "agents[0] \"bot\": secrets: \"A=B\"",
                "no `=`",
            ),
        ] {
            let (what, told) = refused(&text);
            assert!(what.starts_with(begin), "{what}");
            assert!(told.contains(hint), "{what}: {told}");
        }
    }

    #[test]
    fn an_error_says_what_to_write_instead() {
        let agent = "[[agents]]\nname = \"bot\"\ncomponent = \"a.wasm\"\n";
        let token = "[[tokens]]\nname = \"ci\"\nagents = [\"*\"]\nsha256 = \"0\"\n";
        for (text, why, hint) in [
            ("{".to_owned(), "not TOML: ", "not in JSON"),
            ("{\"agents\": []}".to_owned(), "not TOML: ", "not in JSON"),
            (
                format!("{agent}{token}rights = [\"writes\"]"),
                "unknown variant `writes`",
                "persist token new --help",
            ),
            (
                format!("{agent}limits = {{ cpu = \"5\" }}"),
                "limits.cpu: invalid value",
                "such as \"30 s\"",
            ),
            (
                "[[agents]]\nname = \"bot\"\ncomponent = \"directory\"".to_owned(),
                "directory is a directory",
                "path of a component",
            ),
        ] {
            let (what, told) = refused(&text);
            assert!(what.contains(why), "{what}");
            assert!(told.contains(hint), "{what}: {told}");
        }
        let latin = utf8(b"a = 1\nb = \"\xe9\"").expect_err("not UTF-8");
        assert_eq!(latin.to_string(), "line 2: not UTF-8");
    }

    #[test]
    fn an_unknown_key_names_the_nearest_one() {
        let hint = |text: &str| refused(text).1;
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
