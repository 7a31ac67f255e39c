//! `persist chat`: a conversation with an agent, one run a message.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use clap::Args;
use persist_host::snapshot::{Error, Expect, Info, Name, Scope, Store, Version};
use persist_host::wasm::RunOutput;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::address::address;
use crate::agent_args::{AgentArgs, LoadedAgent};
use crate::error::Usage;
use crate::interrupt::Interrupt;
use crate::print::Out;
use crate::run::{changed, end, print_denied};
use crate::settings::Settings;
use crate::stdio::say;
use crate::text::{count, plain};

/// Text at the end of `chat -h`.
pub(crate) const EXAMPLES: &str = "\
Each line is a message: the last argument of a run. Lines that begin with / are commands:
  /undo           Put back what the last message changed
  /history        List the messages of this conversation and what each saved
  /fork SESSION   Copy the snapshots to a new session and continue there
  /help           Show this list
  /quit           End; so does Ctrl-D
A line that begins with // is a message that begins with /.

Examples:
  persist chat my_agent.wasm
  persist chat --agent bot --session monday --driver ./ask-model my_agent.wasm";

/// Runs of one message before the driver is no longer called.
const MAX_CALLS: usize = 32;

/// Component to talk to.
#[derive(Debug, Args)]
pub(crate) struct Chat {
    #[command(flatten)]
    pub(crate) agent: AgentArgs,
    /// Run PROGRAM where an answer is a JSON object with a key `call`, with the object as its
    /// standard input. The agent runs again with `reply`, the object's `id` and what PROGRAM
    /// printed as its arguments
    #[arg(long, value_name = "PROGRAM")]
    driver: Option<String>,
    /// Report each save and delete on standard error
    #[arg(long, short)]
    verbose: bool,
    /// Arguments of the agent before the message
    #[arg(last = true)]
    args: Vec<String>,
}

/// A message, and what its runs changed.
struct Turn {
    message: String,
    changes: Vec<Info>,
    undone: bool,
}

struct Conversation {
    agent: LoadedAgent,
    driver: Option<Vec<String>>,
    args: Vec<String>,
    turns: Vec<Turn>,
    /// Newest version of each name that this conversation changed, as far as it knows.
    heads: BTreeMap<String, Version>,
    verbose: bool,
    out: Out,
}

impl Chat {
    pub(crate) async fn run(
        self,
        store: &Store,
        settings: &Settings,
        interrupt: &Interrupt,
        out: Out,
    ) -> Result<()> {
        let driver = self.driver.as_deref().map(|program| {
            let words = shlex::split(program).filter(|words| !words.is_empty());
            words.ok_or_else(|| Usage::new("--driver: not a command line: a quote is not closed"))
        });
        let mut conversation = Conversation {
            driver: driver.transpose()?,
            agent: self.agent.load(store, settings, out).await?,
            args: self.args,
            turns: Vec::new(),
            heads: BTreeMap::new(),
            verbose: self.verbose,
            out,
        };
        let mut lines = lines(!out.quiet && !out.json);
        while let Some(line) = lines.recv().await {
            let line = line.context("cannot read standard input")?;
            let command = line.trim();
            match command.strip_prefix('/') {
                None if command.is_empty() => {}
                None => conversation.say(&line).await?,
                Some(message) if message.starts_with('/') => conversation.say(message).await?,
                Some("quit" | "exit") => break,
                Some("help") => say(format_args!("{EXAMPLES}")),
                Some("history") => conversation.print_history(),
                Some("undo") => {
                    let undone = interrupt.uninterruptible(conversation.undo()).await;
                    report(undone);
                }
                Some("fork") => say(format_args!("write /fork SESSION")),
                Some(command) => match command.split_once(' ') {
                    Some(("fork", session)) => {
                        let fork = conversation.fork(store, session.trim());
                        report(interrupt.uninterruptible(fork).await);
                    }
                    _ => say(format_args!(
                        "unknown command /{}\nhint: /help lists the commands",
                        plain(command)
                    )),
                },
            }
            lines.ready();
        }
        Ok(())
    }
}

/// Prints what a command of the conversation did, or why it did not.
fn report(done: Result<String>) {
    match done {
        Ok(done) => say(format_args!("{done}")),
        Err(error) => say(format_args!("error: {error:#}")),
    }
}

impl Conversation {
    /// Runs the agent for a message, and again for each call that the driver performed.
    async fn say(&mut self, message: &str) -> Result<()> {
        let mut args = vec![message.to_owned()];
        let changes = Arc::new(Mutex::new(Vec::new()));
        for call in 0.. {
            let ran = self.run(&args, &changes).await;
            print_denied(&ran);
            let Some(request) = self.request(&ran) else {
                let ended = end(ran, self.out);
                self.remember(message, &changes);
                if let Err(error) = ended {
                    // The conversation goes on: a turn that failed can be tried again, or undone.
                    self.print_error(&error);
                }
                return Ok(());
            };
            let reply = if call < MAX_CALLS {
                self.perform(&request).await
            } else {
                Err(anyhow::anyhow!(
                    "one message made more than {MAX_CALLS} calls"
                ))
            };
            match reply {
                Ok(reply) => args = vec!["reply".into(), id_of(&request), reply],
                Err(error) => {
                    self.remember(message, &changes);
                    say(format_args!("error: {error:#}"));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn run(&self, args: &[String], changes: &Arc<Mutex<Vec<Info>>>) -> RunOutput {
        let options = self.agent.options.clone().args(&self.args).args(args);
        let changes = Arc::clone(changes);
        let scope = self.agent.scope.clone();
        let (verbose, out) = (self.verbose, self.out);
        let record = move |info: &Info| {
            changed(&scope, info, verbose, out);
            let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
            changes.push(info.clone());
        };
        self.agent.run(&options, record).await
    }

    /// Returns the call that an answer asks the driver for.
    fn request(&self, ran: &RunOutput) -> Option<serde_json::Value> {
        self.driver.as_ref()?;
        let answer = ran.answer.as_ref().ok()?;
        let value: serde_json::Value = serde_json::from_str(answer).ok()?;
        value.get("call").is_some().then_some(value)
    }

    /// Runs the driver, and returns what it printed.
    async fn perform(&self, request: &serde_json::Value) -> Result<String> {
        let (program, args) = self
            .driver
            .as_deref()
            .and_then(|words| words.split_first())
            .context("no driver")?;
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the driver {program}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A driver that needs no input may end before it is written.
            let _ = stdin.write_all(format!("{request}\n").as_bytes()).await;
        }
        let output = child.wait_with_output().await;
        let output = output.with_context(|| format!("cannot run the driver {program}"))?;
        anyhow::ensure!(
            output.status.success(),
            "the driver {program} failed: {}",
            output.status
        );
        let reply = String::from_utf8(output.stdout);
        reply.with_context(|| format!("the driver {program} printed what is not UTF-8"))
    }

    fn remember(&mut self, message: &str, changes: &Mutex<Vec<Info>>) {
        let mut changes = changes.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = std::mem::take(&mut *changes);
        for info in &changes {
            self.heads.insert(info.name.clone(), info.version);
        }
        self.turns.push(Turn {
            message: message.into(),
            changes,
            undone: false,
        });
    }

    fn print_error(&self, error: &anyhow::Error) {
        if !self.out.json {
            say(format_args!("error: {error:#}"));
        }
    }

    /// Puts back each name that the last message changed, unless another process changed it since.
    async fn undo(&mut self) -> Result<String> {
        let Some(turn) = self.turns.iter_mut().rfind(|turn| !turn.undone) else {
            return Ok("nothing to undo".into());
        };
        let mut before = BTreeMap::new();
        for info in &turn.changes {
            // The first change of a name says what was there before.
            before.entry(info.name.clone()).or_insert(info.parent);
        }
        if before.is_empty() {
            turn.undone = true;
            return Ok(format!(
                "nothing was changed by {}",
                shortened(&turn.message)
            ));
        }
        let done = format!("undone: {}", shortened(&turn.message));
        let mut kept = Vec::new();
        for (name, version) in before {
            let head = self.heads.get(&name).copied();
            let expect = head.map_or(Expect::Any, Expect::Version);
            match put_back(&self.agent.scope, &name, version, expect).await {
                Ok(info) => {
                    self.heads.insert(name, info.version);
                }
                Err(Error::Conflict { .. }) => kept.push(name),
                Err(error) => return Err(error.into()),
            }
        }
        // Not before: what failed can be tried again.
        turn.undone = true;
        anyhow::ensure!(
            kept.is_empty(),
            "conflict: another process changed {} since; left unchanged",
            plain(&kept.join(", "))
        );
        Ok(done)
    }

    /// Copies the newest version of each name to a session, and continues there.
    async fn fork(&mut self, store: &Store, session: &str) -> Result<String> {
        let from = &self.agent.scope;
        let to = store.scope(from.agent().as_str(), Some(session))?;
        if !to.names("", None, 1).await?.is_empty() {
            return Err(Usage::new(format!("session {} exists", plain(session))).into());
        }
        let mut copied = 0;
        let mut after: Option<Name> = None;
        loop {
            let page = from
                .names("", after.as_ref().map(Name::as_str), 100)
                .await?;
            for name in &page {
                let name = name.as_str();
                let head = from.stat(name, None).await?;
                if head.is_none_or(|head| head.deleted) {
                    continue;
                }
                from.fork_to(name, None, &to, name, Expect::Absent).await?;
                copied += 1;
            }
            match page.into_iter().next_back() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
        self.agent.scope = to;
        self.turns.clear();
        self.heads.clear();
        let copied = count(copied, "name");
        Ok(format!("copied {copied} to session {}", plain(session)))
    }

    fn print_history(&self) {
        let scope = &self.agent.scope;
        for (n, turn) in self.turns.iter().enumerate() {
            let saved = turn.changes.iter().filter_map(|info| {
                let name = Name::new(info.name.clone()).ok()?;
                let address = address(scope.agent(), scope.session(), &name);
                Some(format!("{address}@{}", info.version))
            });
            let saved: Vec<_> = saved.collect();
            let note = if turn.undone { "  (undone)" } else { "" };
            let message = shortened(&turn.message);
            say(format_args!(
                "{}  {message}  {}{note}",
                n + 1,
                saved.join(" ")
            ));
        }
        if self.turns.is_empty() {
            say(format_args!("no messages yet"));
        }
    }
}

/// Returns a message as one short line.
fn shortened(message: &str) -> String {
    const LONG: usize = 40;
    let text = plain(&message.replace(['\n', '\t'], " "));
    match text.char_indices().nth(LONG) {
        Some((end, _)) => format!("\"{}…\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}

/// Makes `version` of a name the newest again, or deletes the name where there was none.
async fn put_back(
    scope: &Scope,
    name: &str,
    version: Option<Version>,
    expect: Expect,
) -> std::result::Result<Info, Error> {
    let there = match version {
        Some(version) => scope.stat(name, Some(version)).await?,
        None => None,
    };
    match there {
        Some(info) if !info.deleted => scope.restore(name, info.version, expect).await,
        _ => match scope.stat(name, None).await? {
            // By an undo that failed at a later name.
            Some(head) if head.deleted => Ok(head),
            _ => scope.delete(name, expect).await,
        },
    }
}

/// Returns the `id` of a call as text.
fn id_of(request: &serde_json::Value) -> String {
    match request.get("id") {
        Some(serde_json::Value::String(id)) => id.clone(),
        Some(id) => id.to_string(),
        None => String::new(),
    }
}

/// Lines of standard input, each read when the one before is answered.
struct Lines {
    lines: mpsc::Receiver<io::Result<String>>,
    ready: std::sync::mpsc::Sender<()>,
}

impl Lines {
    async fn recv(&mut self) -> Option<io::Result<String>> {
        self.lines.recv().await
    }

    fn ready(&self) {
        // The reader ends with the input.
        let _ = self.ready.send(());
    }
}

/// Reads lines on a thread of its own: a read of a terminal cannot be stopped.
fn lines(prompts: bool) -> Lines {
    let (sender, lines) = mpsc::channel(1);
    let (ready, asked) = std::sync::mpsc::channel();
    let prompts = prompts && io::stdin().is_terminal() && io::stderr().is_terminal();
    std::thread::spawn(move || {
        loop {
            if prompts {
                let mut stderr = io::stderr().lock();
                let _ = write!(stderr, "> ").and_then(|()| stderr.flush());
            }
            let mut line = String::new();
            let line = match io::stdin().lock().read_line(&mut line) {
                Ok(0) => return,
                Ok(_) => Ok(line.trim_end_matches(['\n', '\r']).to_owned()),
                Err(error) => Err(error),
            };
            let ended = line.is_err();
            if sender.blocking_send(line).is_err() || ended || asked.recv().is_err() {
                return;
            }
        }
    });
    Lines { lines, ready }
}
