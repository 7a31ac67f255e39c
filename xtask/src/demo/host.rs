//! The `persist` command as a process that is watched, and killed.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// How to run the agent: always with the same arguments.
pub(crate) struct Host {
    pub(crate) persist: PathBuf,
    pub(crate) agent: PathBuf,
    pub(crate) storage: String,
    /// Environment variables that a server requires, besides the environment that we have.
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// One version, as the host told of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Saved {
    /// The turn after which it was saved: the agent says so in a label.
    pub(crate) turn: usize,
    pub(crate) version: u64,
    pub(crate) sha256: String,
}

impl Host {
    /// Starts the agent on the whole conversation. It skips what it remembers.
    pub(crate) fn start(&self, turns: &[String]) -> Result<Run> {
        let mut command = self.persist();
        command.arg("run").arg(&self.agent).args([
            "--create",
            "--agent",
            "demo",
            "--storage",
            &self.storage,
        ]);
        command.args(["--json", "--", "follow"]).args(turns);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", self.persist.display()))?;
        let lines = child
            .stdout
            .take()
            .context("the host has no standard output")?;
        Ok(Run {
            child,
            lines: BufReader::new(lines),
        })
    }

    fn persist(&self) -> Command {
        let mut command = Command::new(&self.persist);
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Another command on the same storage.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.persist();
        command.args(args).args(["--storage", &self.storage]);
        command
    }

    /// Every version of the agent's memory.
    pub(crate) fn history(&self) -> Result<Vec<Saved>> {
        let printed =
            crate::machine::output(&mut self.command(&["history", "demo/memory", "--json"]))?;
        history(&printed).context("`persist history --json` printed something else")
    }

    /// Returns the current memory of the agent: the turns, as it was given them.
    pub(crate) fn memory(&self) -> Result<Vec<String>> {
        let state = crate::machine::output(&mut self.command(&["cat", "demo/memory"]))?;
        memory(&state).context("the memory is not what chat-memory writes")
    }
}

/// One run of the agent, from start to end or kill.
pub(crate) struct Run {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Run {
    /// Waits for the next change that the host acknowledges. None: there will be no more.
    pub(crate) fn next_saved(&mut self) -> Result<Option<Saved>> {
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line)?;
            // A line that was cut off by the host's death tells nothing.
            if !line.ends_with('\n') {
                return Ok(None);
            }
            let event: Value = serde_json::from_str(&line)
                .with_context(|| format!("the host printed {line:?}"))?;
            if event["event"] == "saved" {
                return Ok(Some(Saved::of(&event)?));
            }
        }
    }

    /// Kills the host (SIGKILL), and returns the acknowledged saves that were not read yet.
    pub(crate) fn kill(mut self) -> Result<Vec<Saved>> {
        self.child.kill()?;
        let mut rest = Vec::new();
        while let Some(saved) = self.next_saved()? {
            rest.push(saved);
        }
        let status = self.child.wait()?;
        // Who dies of a signal has no exit code.
        ensure!(
            status.code().is_none(),
            "the host ended before it could be killed: {status}"
        );
        Ok(rest)
    }

    /// Waits for the host to end by itself, in success.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self.child.wait()?;
        ensure!(status.success(), "the host failed: {status}");
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Where an error makes us leave early, the host must not go on alone. One that has ended is
        // no concern of ours.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Saved {
    /// Reads what the host prints of a version, and ignores what is not needed here.
    fn of(info: &Value) -> Result<Self> {
        let turn = info["labels"]["turn"].as_str();
        let turn = turn.context("a version has no label `turn`")?;
        Ok(Self {
            turn: turn.parse()?,
            version: info["version"]
                .as_u64()
                .context("a version has no number")?,
            sha256: info["sha256"]
                .as_str()
                .context("a version has no hash")?
                .to_owned(),
        })
    }
}

/// One version a line.
fn history(printed: &str) -> Result<Vec<Saved>> {
    let versions = printed
        .lines()
        .map(|line| Saved::of(&serde_json::from_str::<Value>(line)?));
    let versions = versions.collect::<Result<Vec<_>>>()?;
    if versions.is_empty() {
        bail!("it printed nothing");
    }
    Ok(versions)
}

/// The turns in a state of the agent chat-memory.
fn memory(state: &str) -> Result<Vec<String>> {
    let state: Value = serde_json::from_str(state)?;
    let turns = state["turns"].as_array().context("it has no turns")?;
    let line = |turn: &Value| {
        Some(format!(
            "{}: {}",
            turn["speaker"].as_str()?,
            turn["text"].as_str()?
        ))
    };
    turns
        .iter()
        .map(|turn| line(turn).context("a turn has no speaker or no text"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str =
        r#""address":"demo/memory@12","version":12,"sha256":"ab","labels":{"turn":"12"}"#;

    /// A host of our own that prints and then waits to be killed.
    fn shell(script: &str) -> Result<Run> {
        let mut command = Command::new("sh");
        let mut child = command
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = child.stdout.take().context("no output")?;
        Ok(Run {
            child,
            lines: BufReader::new(lines),
        })
    }

    #[test]
    fn history_is_one_version_a_line() -> Result<()> {
        let expected = Saved {
            turn: 12,
            version: 12,
            sha256: "ab".into(),
        };
        let line = format!("{{{LINE}}}");
        assert_eq!(
            history(&format!("{line}\n{line}\n"))?,
            [expected.clone(), expected]
        );
        assert!(history("").is_err());
        assert!(history("{}").is_err());
        Ok(())
    }

    #[test]
    fn the_memory_is_read_back_as_the_lines_it_was_given() -> Result<()> {
        let state =
            r#"{"turns":[{"speaker":"A","text":"Hello"},{"speaker":"B","text":"Hi: you"}]}"#;
        assert_eq!(memory(state)?, ["A: Hello", "B: Hi: you"]);
        assert!(memory(r#"{"turns":[{"text":"Hello"}]}"#).is_err());
        Ok(())
    }

    #[test]
    fn output_of_a_killed_host_is_read_without_half_lines() -> Result<()> {
        let event = format!(r#"{{"event":"saved",{LINE}}}"#);
        let half = &event[..40];
        let script = format!("echo '{event}'; echo '{event}'; printf '%s' '{half}'; exec sleep 60");
        let mut run = shell(&script)?;
        assert!(run.next_saved()?.is_some());
        // Long enough for a shell to print two lines.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(run.kill()?.len(), 1);
        Ok(())
    }

    #[test]
    fn a_host_that_fails_or_ends_before_the_kill_is_noticed() -> Result<()> {
        let mut failed = shell("exit 3")?;
        assert!(failed.next_saved()?.is_none());
        assert!(failed.finish().is_err());
        let mut early = shell("exit 0")?;
        assert!(early.next_saved()?.is_none());
        early.child.wait()?;
        assert!(early.kill().is_err());
        Ok(())
    }
}
