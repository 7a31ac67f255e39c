//! Guests that mean harm, one idea each. Every one runs alone, and all of them run beside honest
//! agents (`crowd`).
//!
//! A guest is a file of `tests/hostile` (with the prelude there, or `whole_…` alone), a scenario of
//! the test guest, a script of bare calls, or bytes that are no agent. Whatever it does, what must
//! hold afterwards is the same: its run ends as is written here, nothing partial is visible, no
//! temporary file is left, everything that is there verifies, all its places are given back, and
//! the next call in its scope works.

mod at_rest;
mod crowd;
mod fuzz;
mod guests;
mod quotas;
mod rights;
mod unwinding;
mod watched;

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use persist_host::snapshot::Scope;
use persist_host::storage::Local;
use persist_host::wasm::{Agent, AgentHost, Limits, RunError, RunOutput, SnapshotCtx};
use persist_tests::{block_on, scope, tempdir, test_guest};

/// A guest and what becomes of it.
pub(super) struct Guest {
    claim: &'static str,
    what: What,
    end: End,
}

#[derive(Clone, Copy)]
enum What {
    /// A module that takes the prelude's place for one.
    Wat(&'static str),
    /// A component as it is.
    Whole(&'static str),
    /// Text or bytes of a component that are made up.
    Made(fn() -> Vec<u8>),
    /// A scenario of the test guest.
    Act(&'static [&'static str]),
    /// Bare calls, one a line.
    Script(&'static [&'static str]),
}

#[derive(Clone, Copy)]
enum End {
    /// It answers these lines; one that ends in `…` is how a line begins.
    Answers(&'static [&'static str]),
    /// It traps, for a reason that holds these words.
    Traps(&'static str),
    /// It has used its CPU time.
    Cpu,
    /// It is not loaded, for a reason that holds these words.
    Refused(&'static str),
}

/// Little of everything, so that nothing here takes long.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.memory = 64 << 20;
    limits.cpu = Duration::from_secs(1);
    limits.page = 20;
    limits.saves_per_minute = 200;
    limits
}

/// The host of hostile guests.
fn host() -> AgentHost {
    static HOST: OnceLock<AgentHost> = OnceLock::new();
    let build = || AgentHost::builder().limits(limits()).build();
    HOST.get_or_init(|| build().expect("a host")).clone()
}

impl Guest {
    /// The guest and its arguments; or why it is none.
    async fn load(&self, host: &AgentHost) -> Result<(Agent, Vec<String>), RunError> {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let bytes = match self.what {
            What::Act(args) => return Ok((test_guest(host).await, owned(args))),
            What::Script(lines) => {
                let args = [&["script"], lines].concat();
                return Ok((test_guest(host).await, owned(&args)));
            }
            What::Wat(guest) => {
                let text = include_str!("../../hostile/prelude.wat").replace("  ;; GUEST", guest);
                wat::parse_str(text).expect("valid")
            }
            What::Whole(text) => wat::parse_str(text).expect("valid"),
            What::Made(make) => make(),
        };
        // Something for the host to make room for.
        Ok((host.load(&bytes).await?, owned(&["an argument"])))
    }

    /// Runs it, and compares its end with what it was to be.
    async fn attack(&self, host: &AgentHost, scope: &Scope) {
        let ran = match self.load(host).await {
            Ok((agent, args)) => agent.run(SnapshotCtx::new(scope.clone()), &args).await,
            Err(error) => {
                return match self.end {
                    End::Refused(why) if error.to_string().contains(why) => {}
                    _ => panic!("{}: not loaded: {error}", self.claim),
                };
            }
        };
        if let Err(ended) = self.ended_so(&ran) {
            panic!("{}: {ended}: {:?}", self.claim, ran.answer);
        }
        let kept = ran.stdout.len().max(ran.stderr.len()) as u64;
        assert!(kept <= limits().output, "{}: {kept} bytes", self.claim);
    }

    fn ended_so(&self, ran: &RunOutput) -> Result<(), String> {
        let holds = match (self.end, &ran.answer) {
            (End::Answers(lines), Ok(answer)) => {
                let answers: Vec<_> = answer.split('\n').collect();
                let same = |(line, answer): (&&str, &&str)| match line.strip_suffix('…') {
                    Some(beginning) => answer.starts_with(beginning),
                    None => line == answer,
                };
                answers.len() == lines.len() && lines.iter().zip(&answers).all(same)
            }
            (End::Traps(why), Err(RunError::Trapped(text))) => text.contains(why),
            (End::Cpu, Err(RunError::CpuLimit(_))) => true,
            _ => false,
        };
        if holds {
            Ok(())
        } else {
            Err("another end".into())
        }
    }
}

/// Runs the guest of a claim alone.
fn alone(claim: &str) {
    let guest = guests::GUESTS.iter().find(|guest| guest.claim == claim);
    let guest = guest.expect("a guest of this claim");
    let dir = tempdir();
    let scope = scope(Arc::new(Local::new(dir.path())));
    block_on(async {
        guest.attack(&host(), &scope).await;
        aftermath(&host(), &scope, dir.path(), claim).await;
    });
}

/// Checks what must hold whatever a guest did in its scope.
async fn aftermath(host: &AgentHost, scope: &Scope, dir: &Path, claim: &str) {
    let litter = std::fs::read_dir(dir.join("~/tmp")).map_or(0, Iterator::count);
    assert_eq!(litter, 0, "{claim}: temporary files");
    for name in scope.names("", None, 10_000).await.expect("a page") {
        let versions = scope.versions(name.as_str(), None, 10_000).await;
        for version in versions.expect("a page") {
            let sound = scope.verify(name.as_str(), Some(version)).await;
            sound.unwrap_or_else(|error| panic!("{claim}: {name}@{version}: {error}"));
        }
    }
    // All places are free again, and a save works: in the account of the guest itself, which may
    // have made its saves of this minute.
    let mut limits = limits();
    limits.saves_per_minute = 1_000_000_000;
    let ctx = SnapshotCtx::builder(scope.clone()).limits(limits).build();
    let lines = [
        "open a next",
        "open b next",
        "open c next",
        "open d next",
        "write a 10",
        "finish a",
        "load next",
    ];
    let answers = play(host, ctx, &lines).await;
    let answers: Vec<_> = answers.iter().map(String::as_str).collect();
    let expected = ["open", "open", "open", "open", "written", "version 1"];
    assert_eq!(answers[..6], expected, "{claim}");
    assert!(answers[6].starts_with("version 1 size 10 "), "{claim}");
}

/// Plays a script that the guest can play: an answer for each line.
async fn play(host: &AgentHost, ctx: SnapshotCtx, lines: &[&str]) -> Vec<String> {
    let played = try_play(host, ctx, lines).await;
    played.unwrap_or_else(|error| panic!("{lines:?}: {error}"))
}

/// Plays a script that the guest can play: an answer for each line. Returns an error if the guest
/// cannot go on, since the handle that it needs was never opened.
async fn try_play(
    host: &AgentHost,
    ctx: SnapshotCtx,
    lines: &[&str],
) -> Result<Vec<String>, RunError> {
    let args: Vec<String> = std::iter::once(&"script")
        .chain(lines)
        .map(|line| (*line).to_owned())
        .collect();
    let answer = test_guest(host).await.run(ctx, &args).await.answer?;
    Ok(answer.split('\n').map(str::to_owned).collect())
}
