//! `persist run`: an agent, once.

use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use persist_host::snapshot::{Info, Store};
use persist_host::wasm::{AgentHost, Ran, SnapshotCtx};
use serde_json::json;

use crate::exit::AgentFailed;
use crate::print::{self, Out};

/// What to run, and for whom.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The agent: a component, or a core module that carries its world
    component: PathBuf,
    /// Whose snapshots it sees [default: the name of the file, without .wasm]
    #[arg(long, value_name = "ID")]
    agent: Option<String>,
    /// Which session of the agent [default: none; what it saves is the agent's own]
    #[arg(long, value_name = "ID")]
    session: Option<String>,
    /// Say on standard error what it saves, as it does
    #[arg(long, short)]
    verbose: bool,
    /// Arguments for the agent
    #[arg(last = true)]
    args: Vec<String>,
}

impl Run {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let bytes = std::fs::read(&self.component)
            .with_context(|| format!("read the agent {}", self.component.display()))?;
        let scope = store.scope(&self.agent()?, self.session.as_deref())?;
        let verbose = self.verbose;
        let ctx = SnapshotCtx::builder(scope)
            .on_change(move |info| say(info, verbose, out))
            .build();

        let agent = AgentHost::new()?.load(&bytes).await?;
        let ran = agent.run(ctx, &self.args).await?;
        answer(ran, out)
    }

    fn agent(&self) -> Result<String> {
        match &self.agent {
            Some(agent) => Ok(agent.clone()),
            None => self
                .component
                .file_stem()
                .and_then(|stem| stem.to_str())
                .map(Into::into)
                .context("the file's name is no name for an agent; give one with --agent"),
        }
    }
}

/// Says that a change is durable. Someone who only hears of it may rely on it from then on.
fn say(info: &Info, verbose: bool, out: Out) {
    let event = match info.deleted {
        false => "saved",
        true => "deleted",
    };
    let name = print::plain(&info.name);
    // The agent goes on, whether anyone listens or not.
    if out.json {
        let line = json!({ "event": event, "info": info });
        let _ = writeln!(io::stdout().lock(), "{line}");
    } else if verbose {
        let size = print::bytes(info.size);
        let _ = writeln!(
            io::stderr().lock(),
            "{event} {name}@{} ({size})",
            info.version
        );
    }
}

fn answer(ran: Ran, out: Out) -> Result<()> {
    if !out.json {
        io::stdout().lock().write_all(&ran.stdout)?;
        io::stderr().lock().write_all(&ran.stderr)?;
    }
    let answer = ran.answer.map_err(AgentFailed)?;
    let value = json!({
        "event": "answer",
        "answer": answer,
        "stdout": String::from_utf8_lossy(&ran.stdout),
        "stderr": String::from_utf8_lossy(&ran.stderr),
    });
    Ok(out.print(&value, || answer.clone())?)
}
