//! `persist run`: an agent, once.

use std::io;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{Info, Name, Scope, Store};
use persist_host::wasm::{Limits, RunOutput};
use serde_json::json;

use crate::address::address;
use crate::agent_args::{AgentArgs, content_of, text_of};
use crate::error::Usage;
use crate::exit;
use crate::print::{self, Out};
use crate::settings::Settings;
use crate::stdio::{self, say};
use crate::text;

/// Text at the end of `run -h`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  persist run my_agent.wasm -- \"buy milk\"
  persist run notes -- \"buy milk\"
  persist run --agent bot --session monday my_agent.wasm
  persist run --arg-file article.txt my_agent.wasm -- summarize
  persist run --allow-http api.example.com --http-headers api.example.com=key.txt my_agent.wasm";

/// Agent to run once.
#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    /// Give the agent the content of FILE as its standard input; - is the standard input of this
    /// command [default: empty]
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Append the content of FILE, which must be UTF-8, to the arguments; - is standard input. Has
    /// no limit of length, unlike a command line
    #[arg(long, value_name = "FILE")]
    arg_file: Vec<PathBuf>,
    /// Report each save and delete on standard error
    #[arg(long, short)]
    verbose: bool,
    /// Arguments of the agent
    #[arg(last = true)]
    args: Vec<String>,
}

impl Run {
    /// Runs the agent, after a build where it is a directory that changed.
    pub(crate) async fn once(&self, store: &Store, settings: &Settings, out: Out) -> Result<()> {
        let files = self.arg_file.iter().chain(&self.input);
        if files.filter(|file| file.as_os_str() == "-").count() > 1 {
            let what = "--input and --arg-file: standard input can be read only once";
            return Err(Usage::new(what)
                .with_hint("write - for one of them, and files for the others")
                .into());
        }
        let loaded = self.agent.load(store, settings, out).await?;
        let mut options = loaded.options.clone().args(self.args.iter().cloned());
        for file in &self.arg_file {
            options = options.args([text_of(file)?]);
        }
        if let Some(file) = &self.input {
            options = options.stdin(content_of(file)?);
        }
        let verbose = self.verbose;
        let scope = loaded.scope.clone();
        let changed = move |info: &Info| changed(&scope, info, verbose, out);
        let ran = loaded.run(&options, changed).await;
        print_denied(&ran);
        end(ran, out)
    }

    /// Returns true if an option reads the standard input of this command.
    pub(crate) fn reads_stdin(&self) -> bool {
        let mut files = self.arg_file.iter().chain(&self.input);
        files.any(|file| file.as_os_str() == "-")
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

/// Reports a change, which is durable.
pub(crate) fn changed(scope: &Scope, info: &Info, verbose: bool, out: Out) {
    let event = if !info.deleted { "saved" } else { "deleted" };
    // The guest's name was a name when it was saved.
    let Ok(name) = Name::new(info.name.clone()) else {
        return;
    };
    let address = address(scope.agent(), scope.session(), &name);
    let address = format!("{address}@{}", info.version);
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

/// Tells the operator which hosts the agent asked for in vain.
pub(crate) fn print_denied(ran: &RunOutput) {
    for host in &ran.denied_hosts {
        say(format_args!(
            "note: a request of the agent to {host} was denied\nhint: add --allow-http {host} if \
             the agent may send requests there"
        ));
    }
}

/// Prints what the agent printed, and its answer.
pub(crate) fn end(ran: RunOutput, out: Out) -> Result<()> {
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
        (Ok(answer), false) => {
            let answer = with_line_end(answer);
            Ok(stdio::from_guest(io::stdout().lock(), answer.as_bytes())
                .map_err(stdio::of_output)?)
        }
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

/// Returns an answer that ends its last line, as a terminal needs it.
fn with_line_end(mut answer: String) -> String {
    if !answer.ends_with('\n') {
        answer.push('\n');
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_with_one_line_end() {
        for (answer, printed) in [("a", "a\n"), ("a\n", "a\n"), ("a\n\n", "a\n\n"), ("", "\n")] {
            assert_eq!(with_line_end(answer.into()), printed);
        }
    }
}
