//! Options of the commands that run an agent: which component, for whom, and what it may use.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use persist_host::snapshot::{Error, Info, LeaseOptions, Scope, Store};
use persist_host::units::parse_duration;
use persist_host::wasm::{
    Agent, AgentHost, HttpPolicy, Limits, Rights, RunOptions, RunOutput, SnapshotCtx,
};

use crate::address::ScopeArg;
use crate::build::build_if_changed;
use crate::error::{Hinted, Usage};
use crate::print::Out;
use crate::progress;
use crate::project::{Project, cargo_package};
use crate::secret_file::{secret_text, with_headers, without_line_break};
use crate::settings::{AgentSettings, Settings};
use crate::stores::Create;
use crate::text;

/// Component, the scope that it runs for, and what it may use.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// WebAssembly component of the agent, or a core module with an embedded world; or the
    /// directory of an agent, which is built first if it changed
    #[arg(value_name = "FILE|DIR", default_value = ".")]
    component: PathBuf,
    /// Agent whose snapshots the run uses [default: the name of the directory or of
    /// cargo's package, or the file name without .wasm]
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Session of the agent [default: none, which is the agent's own scope]
    #[arg(long, value_name = "SESSION")]
    session: Option<String>,
    /// Allow these operations: load, save, list and delete, separated by commas [default: all]
    #[arg(long, value_name = "RIGHTS", conflicts_with = "read_only")]
    rights: Option<Rights>,
    /// Allow only load and list; short for --rights load,list
    #[arg(long)]
    read_only: bool,
    /// Restrict the agent to names that start with PREFIX
    #[arg(long, value_name = "PREFIX")]
    only: Option<String>,
    /// Set a limit, such as memory=64MiB or cpu=5s; may be repeated. `persist run --help` lists all
    /// limits
    #[arg(long, value_name = "NAME=VALUE", value_parser = limit)]
    limit: Vec<(String, String)>,
    /// Set a variable of the agent's environment; may be repeated. Use --secret for a secret: other
    /// users see a command line
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<Hidden>,
    /// Set a variable of the agent's environment to the content of FILE, without a line break at
    /// its end; may be repeated
    #[arg(long, value_name = "NAME=FILE")]
    secret: Vec<Hidden>,
    /// Allow HTTP requests to HOST, such as api.example.com, *.example.com or
    /// http://localhost:11434; may be repeated. A host means https on port 443 unless it says
    /// otherwise. Private, loopback and link-local addresses must be named [default: none]
    #[arg(long, value_name = "HOST")]
    allow_http: Vec<String>,
    /// Add the headers in FILE, one `Name: value` a line, to each request to HOST; may be repeated.
    /// The agent never sees them
    #[arg(long, value_name = "HOST=FILE")]
    http_headers: Vec<Hidden>,
    /// Hold the lease of the agent or session while it runs, and renew it each TERM, such as 30s:
    /// other hosts with leases do not run it meanwhile [default: none]
    #[arg(long, value_name = "TERM", value_parser = lease_term)]
    lease: Option<Duration>,
    /// Wait for a lease that another host holds for at most DURATION [default: 0s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration,
    requires = "lease")]
    lease_wait: Option<Duration>,
    /// Allow the agent to open the bucket NAME of wasi:keyvalue or Spin, or the container NAME of
    /// wasi:blobstore: the names of its scope that start with PREFIX; may be repeated. The bucket
    /// `default` is its whole scope
    #[arg(long, value_name = "NAME=PREFIX", value_parser = bucket)]
    bucket: Vec<(String, String)>,
    /// Allow the agent to open the bucket NAME: all names of another agent, or of a session of it;
    /// may be repeated. --rights holds there too
    #[arg(long, value_name = "NAME=AGENT[/SESSION]", value_parser = shared_bucket)]
    shared_bucket: Vec<(String, ScopeArg)>,
    #[command(flatten)]
    pub(crate) create: Create,
}

/// An agent that is ready to run, with what its runs may use.
pub(crate) struct LoadedAgent {
    pub(crate) scope: Scope,
    pub(crate) options: RunOptions,
    agent: Agent,
    rights: Rights,
    /// Buckets in other scopes, by name.
    shared_buckets: Vec<(String, Scope)>,
}

/// Value of an option that may hold a secret, also where a file belongs. The parser takes every
/// text, because its errors repeat the text; ours do not.
#[derive(Clone)]
struct Hidden(String);

impl AgentArgs {
    /// Compiles the agent and reads what its runs get.
    pub(crate) async fn load(
        &self,
        store: &Store,
        settings: &Settings,
        out: Out,
    ) -> Result<LoadedAgent> {
        let project = self.project(settings)?;
        let agent = self.agent(project.as_ref())?;
        let of_file = settings.agent(&agent)?;
        let options = self.options(of_file)?;
        if project.is_some() {
            // A build may take a minute.
            store.require().await?;
        }
        let built = project
            .as_ref()
            .map(|project| build_if_changed(project, settings.environment(), out))
            .transpose()?;
        let component = built.as_deref().unwrap_or(&self.component);
        let bytes = std::fs::read(component)
            .with_context(|| format!("cannot read the agent {}", component.display()))?;
        let scope = store.scope(&agent, self.session.as_deref())?;
        // An agent is told less of a storage than the operator needs to know.
        store.require().await?;
        let shared_buckets = self.shared_bucket.iter();
        let shared_buckets = shared_buckets.map(|(name, of)| Ok((name.clone(), of.scope(store)?)));
        let shared_buckets = shared_buckets.collect::<Result<_>>()?;
        let limits = self.limits(settings, of_file)?;
        let host = AgentHost::builder().limits(limits).lease(self.lease());
        let host = host.build()?;
        let size = text::bytes(bytes.len() as u64);
        let compiling = format!("compiling {} ({size})", component.display());
        let agent = progress::spin(out, &compiling, host.load(&bytes)).await?;
        Ok(LoadedAgent {
            scope,
            options,
            agent,
            rights: self.rights(of_file),
            shared_buckets,
        })
    }

    fn options(&self, of_file: Option<&AgentSettings>) -> Result<RunOptions> {
        let mut options = RunOptions::default().http(self.http(of_file)?);
        if let Some(agent) = of_file {
            options = agent.add_to(options)?;
        }
        for variable in &self.env {
            let (name, value) = variable.split("--env", "NAME=VALUE")?;
            options = options.env(name, value);
        }
        for (name, prefix) in &self.bucket {
            options = options.bucket(name, prefix);
        }
        for secret in &self.secret {
            let (name, file) = secret.split("--secret", "NAME=FILE")?;
            let text = secret_text("--secret", name, file)?;
            options = options.env(name, without_line_break(&text));
        }
        Ok(options)
    }

    fn http(&self, of_file: Option<&AgentSettings>) -> Result<HttpPolicy> {
        let policy = of_file.map(AgentSettings::http).transpose()?;
        let mut policy = policy.unwrap_or_default();
        for host in &self.allow_http {
            let allowed = policy.allow(host);
            policy = allowed.map_err(|error| Usage::new(format!("--allow-http: {error}")))?;
        }
        for headers in &self.http_headers {
            let (host, file) = headers.split("--http-headers", "HOST=FILE")?;
            policy = with_headers(policy, "--http-headers", host, file)?;
        }
        Ok(policy)
    }

    fn lease(&self) -> Option<LeaseOptions> {
        let mut options = LeaseOptions::default();
        options.term = self.lease?;
        options.wait = self.lease_wait.unwrap_or_default();
        Some(options)
    }

    fn limits(&self, settings: &Settings, of_file: Option<&AgentSettings>) -> Result<Limits> {
        let mut limits = settings.limits()?;
        if let Some(agent) = of_file {
            agent.limit(&mut limits)?;
        }
        for (name, value) in &self.limit {
            limits.set(name, value)?;
        }
        Ok(limits)
    }

    fn rights(&self, of_file: Option<&AgentSettings>) -> Rights {
        let rights = match (&self.rights, self.read_only) {
            (Some(rights), _) => Some(rights.clone()),
            (None, true) => Some(Rights::read_only()),
            (None, false) => of_file.and_then(|agent| agent.rights.clone()),
        };
        let only = self.only.clone();
        let only = only.or_else(|| of_file.and_then(|agent| agent.only.clone()));
        rights.unwrap_or_default().under(only.unwrap_or_default())
    }

    /// Opens the project, where the agent is the directory of one.
    pub(crate) fn project(&self, settings: &Settings) -> Result<Option<Project>> {
        if !self.component.is_dir() {
            return Ok(None);
        }
        Project::open(&self.component, settings.local_root()?).map(Some)
    }

    fn agent(&self, project: Option<&Project>) -> Result<String> {
        let stem = || self.component.file_stem()?.to_str().map(Into::into);
        let agent = self
            .agent
            .clone()
            .or_else(|| project.map(|project| project.name.clone()))
            .or_else(|| cargo_package(&self.component))
            .or_else(stem);
        agent.ok_or_else(|| {
            let what = "the name of the file cannot be the name of an agent";
            Hinted::other(what, "add --agent AGENT").into()
        })
    }
}

impl LoadedAgent {
    /// Runs the agent once. `changed` is told of each durable change.
    pub(crate) async fn run(
        &self,
        options: &RunOptions,
        changed: impl Fn(&Info) + Send + Sync + 'static,
    ) -> RunOutput {
        let changed = Arc::new(changed);
        let ctx = |scope: &Scope, rights: Rights| {
            let changed = Arc::clone(&changed);
            SnapshotCtx::builder(scope.clone())
                .rights(rights)
                .on_change(move |info| changed(info))
                .build()
        };
        let mut options = options.clone();
        for (name, scope) in &self.shared_buckets {
            // The prefix of `--only` is one of the agent's own scope.
            let rights = self.rights.clone().under("");
            options = options.bucket_of(name, ctx(scope, rights), "");
        }
        let own = ctx(&self.scope, self.rights.clone());
        self.agent.run_with(own, &options).await
    }
}

impl Hidden {
    /// Returns what stands before and after the first `=`.
    fn split(&self, option: &str, form: &str) -> Result<(&str, &str)> {
        let parts = self.0.split_once('=');
        let parts = parts.filter(|(name, _)| !name.is_empty());
        parts.ok_or_else(|| {
            let what = format!("{option}: a value is not {form}");
            Usage::new(what)
                .with_hint(format!("write {option} {form}"))
                .into()
        })
    }
}

impl FromStr for Hidden {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Refused while the command line is read, where it is no limit.
fn limit(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let mut limits = Limits::default();
    limits.set(name, value).map_err(|error| {
        let known = || Limits::table().iter().map(|limit| limit.name);
        let is_known = known().any(|known| known == name);
        match crate::text::nearest(name, known()).filter(|_| !is_known) {
            Some(near) => format!("{error}; did you mean {near}?"),
            None => error.to_string(),
        }
    })?;
    Ok((name.into(), value.into()))
}

/// Refused while the command line is read, where no lease has this term.
fn lease_term(text: &str) -> std::result::Result<Duration, String> {
    let mut options = LeaseOptions::default();
    options.term = parse_duration(text).map_err(|error| error.to_string())?;
    match options.check() {
        Ok(()) => Ok(options.term),
        Err(Error::Invalid(what)) => Err(what),
        Err(error) => Err(error.to_string()),
    }
}

fn bucket(text: &str) -> std::result::Result<(String, String), String> {
    let (name, prefix) = text.split_once('=').ok_or("write NAME=PREFIX")?;
    if name.is_empty() {
        return Err("the name is empty; write NAME=PREFIX".into());
    }
    Ok((name.into(), prefix.into()))
}

fn shared_bucket(text: &str) -> std::result::Result<(String, ScopeArg), String> {
    let (name, scope) = text
        .split_once('=')
        .ok_or("write NAME=AGENT or NAME=AGENT/SESSION")?;
    if name.is_empty() {
        return Err("the name is empty; write NAME=AGENT or NAME=AGENT/SESSION".into());
    }
    let scope = scope
        .parse()
        .map_err(|error: anyhow::Error| error.to_string())?;
    Ok((name.into(), scope))
}

/// Reads a file, or standard input for `-`.
pub(crate) fn content_of(file: &Path) -> Result<Vec<u8>> {
    if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut bytes);
        return read.map(|_| bytes).context("cannot read standard input");
    }
    std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Reads a file that must be text. Its bytes are not shown where they are not.
pub(crate) fn text_of(file: &Path) -> Result<String> {
    String::from_utf8(content_of(file)?)
        .map_err(|_| Usage::new(format!("{} is not UTF-8 text", file.display())).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_limit_names_the_nearest_one() {
        for (text, near) in [
            ("memroy=1MiB", Some("; did you mean memory?")),
            ("zzz=1", None),
            ("memory=x", None),
        ] {
            let why = limit(text).expect_err("refused");
            assert_eq!(why.contains("did you mean"), near.is_some(), "{why}");
            assert!(near.is_none_or(|near| why.ends_with(near)), "{why}");
        }
    }
}
