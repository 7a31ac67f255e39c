//! `persist run`: an agent, once.

use std::io;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use persist_host::snapshot::{Info, Name, Store};
use persist_host::wasm::{AgentHost, Limits, Rights, RunOutput, SnapshotCtx};
use serde_json::json;

use crate::address::address;
use crate::error::Hinted;
use crate::exit;
use crate::print::{self, Out};
use crate::settings::Settings;
use crate::stdio::{self, say};
use crate::stores::Create;
use crate::text;

/// Text at the end of `run -h`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  persist run my_agent.wasm -- \"buy milk\"
  persist run --agent bot --session monday my_agent.wasm";

/// Component to run, and the agent and session that it runs for.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// WebAssembly component of the agent, or a core module with an embedded world
    #[arg(value_name = "FILE")]
    component: PathBuf,
    /// Agent whose snapshots the run uses [default: the file name without .wasm]
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
    #[arg(
        long,
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true
    )]
    only: String,
    /// Set a limit, such as memory=64MiB or cpu=5s; may be repeated. `persist run --help` lists all
    /// limits
    #[arg(long, value_name = "NAME=VALUE", value_parser = limit)]
    limit: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) create: Create,
    /// Report each save and delete on standard error
    #[arg(long, short)]
    verbose: bool,
    /// Arguments of the agent
    #[arg(last = true)]
    args: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, store: &Store, settings: &Settings, out: Out) -> Result<()> {
        let bytes = std::fs::read(&self.component)
            .with_context(|| format!("cannot read the agent {}", self.component.display()))?;
        let scope = store.scope(&self.agent()?, self.session.as_deref())?;
        // An agent is told less of a storage than the operator needs to know.
        store.require().await?;
        let agent = scope.agent().clone();
        let session = scope.session().cloned();
        let verbose = self.verbose;
        let limits = self.limits(settings)?;
        let ctx = SnapshotCtx::builder(scope)
            .rights(self.rights())
            .on_change(move |info| changed(&agent, session.as_ref(), info, verbose, out))
            .build();

        let host = AgentHost::builder().limits(limits).build()?;
        let agent = host.load(&bytes).await?;
        end(agent.run(ctx, &self.args).await, out)
    }

    fn limits(&self, settings: &Settings) -> Result<Limits> {
        let mut limits = settings.limits()?;
        for (name, value) in &self.limit {
            limits.set(name, value)?;
        }
        Ok(limits)
    }

    fn rights(&self) -> Rights {
        let rights = match (&self.rights, self.read_only) {
            (Some(rights), _) => rights.clone(),
            (None, true) => Rights::read_only(),
            (None, false) => Rights::all(),
        };
        rights.under(self.only.clone())
    }

    fn agent(&self) -> Result<String> {
        match &self.agent {
            Some(agent) => Ok(agent.clone()),
            None => self
                .component
                .file_stem()
                .and_then(|stem| stem.to_str())
                .map(Into::into)
                .ok_or_else(|| {
                    let what = "the name of the file cannot be the name of an agent";
                    Hinted::other(what, "add --agent AGENT").into()
                }),
        }
    }
}

/// Returns the text at the end of `run --help`.
pub(crate) fn help() -> String {
    let limits = Limits::table().iter().map(|limit| {
        let name = limit.name;
        let default = limit.default;
        let description = limit.description;
        format!("  {name:<21} {default:>8}  {description}")
    });
    let limits: Vec<_> = limits.collect();
    format!(
        "{EXAMPLES}\n\nLimits and their defaults:\n{}",
        limits.join("\n")
    )
}

/// Refused while the command line is read, where it is no limit.
fn limit(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let mut limits = Limits::default();
    limits.set(name, value).map_err(|error| error.to_string())?;
    Ok((name.into(), value.into()))
}

/// Reports a change, which is durable.
fn changed(agent: &Name, session: Option<&Name>, info: &Info, verbose: bool, out: Out) {
    let event = if !info.deleted { "saved" } else { "deleted" };
    // The guest's name was a name when it was saved.
    let Ok(name) = Name::new(info.name.clone()) else {
        return;
    };
    let address = format!("{}@{}", address(agent, session, &name), info.version);
    if out.json {
        // The agent goes on, whether anyone listens or not.
        let mut value = print::event(event, &address, info);
        value["undo"] = serde_json::Value::Null;
        let _ = out.result(&value, String::new);
    } else if verbose {
        say(format_args!(
            "{event} {address} ({})",
            text::bytes(info.size)
        ));
    }
}

/// Prints what the agent printed, and its answer.
fn end(ran: RunOutput, out: Out) -> Result<()> {
    let output = |event: &str, text: &str| {
        json!({
            "event": event,
            event: text,
            "stdout": String::from_utf8_lossy(&ran.stdout),
            "stderr": String::from_utf8_lossy(&ran.stderr),
        })
    };
    if !out.json {
        stdio::from_guest(io::stdout().lock(), &ran.stdout).map_err(stdio::of_output)?;
        // As for all that is said beside the results.
        let _ = stdio::from_guest(io::stderr().lock(), &ran.stderr);
    }
    match (ran.answer, out.json) {
        (Ok(answer), true) => Ok(out.result(&output("answer", &answer), String::new)?),
        (Ok(answer), false) => Ok(stdio::from_guest(
            io::stdout().lock(),
            format!("{answer}\n").as_bytes(),
        )
        .map_err(stdio::of_output)?),
        (Err(error), json) => {
            let error = anyhow::Error::new(error);
            if json {
                let line = print::extend(output("error", ""), exit::value_of(&error));
                out.result(&line, String::new)?;
            }
            Err(error)
        }
    }
}
