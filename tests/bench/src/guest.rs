//! A state of 1 MiB that a guest saves, beside the same save without a guest.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use persist_host::snapshot::{SaveOptions, Scope, Store};
use persist_host::storage::{Local, Memory, Storage};
use persist_host::wasm::{Agent, AgentHost, SnapshotCtx};
use tokio::runtime::{Builder, Runtime};

use crate::activation::{SAVES, limits};
use crate::inputs::Input;
use crate::measure::{median, millis, ratio, time};
use crate::table::Table;
use crate::{MIB, Options};

const SIZE: usize = MIB;

/// Place of the state in the memory of the guest.
const AT: usize = 64 << 10;

/// States, and the aims for their ratio.
const STATES: [(Input, f64); 3] = [
    (Input::Zeros, 1.15),
    (Input::Json, 1.05),
    (Input::Noise, 1.05),
];

/// Saves before another store is taken: one in memory keeps all versions.
const SAVES_OF_STORE: usize = 16;

/// Returns Markdown.
pub(crate) fn run(options: &Options, place: &Path) -> Result<String> {
    let rounds = if options.quick { 15 } else { 101 };
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let host = AgentHost::builder().limits(limits()).cache(None).build()?;
    let mut table = Table::new(["1 MiB", "storage", "ms", "ms by a guest", "ratio", "aim"]);
    for (input, aim) in STATES {
        let state = input.state(SIZE);
        let agent = runtime.block_on(host.load(&agent(&state)?))?;
        for is_local in [false, true] {
            let contest = Contest {
                runtime: &runtime,
                agent: &agent,
                state: state.clone().into(),
            };
            let [native, guest] = contest.medians(rounds, is_local.then_some(place))?;
            let storage = if is_local { "local disk" } else { "memory" };
            let ratio = ratio(guest, native);
            let is_met = if ratio <= aim { "met" } else { "missed" };
            table.row([
                input.name().to_owned(),
                storage.to_owned(),
                millis(native),
                millis(guest),
                format!("{ratio:.2}x"),
                format!("{aim}x: {is_met}"),
            ]);
        }
    }
    let mut text = String::new();
    writeln!(text, "### A state of a guest\n\n{table}")?;
    Ok(text)
}

/// Returns an agent whose memory holds a state, which it saves.
fn agent(state: &[u8]) -> Result<Vec<u8>> {
    let bytes = state.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "\\{byte:02x}");
        text
    });
    let pages = (AT + SIZE) >> 16;
    // A state of zeros needs no data: a new memory is zeros.
    let data = if state.iter().all(|byte| *byte == 0) {
        String::new()
    } else {
        format!("(data (i32.const {AT}) \"{bytes}\")")
    };
    // The state is in the module that has the memory, as a toolchain puts it: such a memory begins
    // as an image that is mapped. Data for an imported memory would be copied for each run.
    let component = SAVES
        .replacen(
            "(memory (export \"memory\") 2)",
            &format!("(memory (export \"memory\") {pages}) {data}"),
            1,
        )
        .replacen(
            "(i32.const 32) (i32.const 5)",
            &format!("(i32.const {AT}) (i32.const {SIZE})"),
            1,
        );
    Ok(wat::parse_str(component)?)
}

struct Contest<'a> {
    runtime: &'a Runtime,
    agent: &'a Agent,
    state: Bytes,
}

impl Contest<'_> {
    /// Returns the median durations of a save without a guest and of a run that saves the same.
    fn medians(&self, rounds: usize, place: Option<&Path>) -> Result<[Duration; 2]> {
        let mut times: [Vec<Duration>; 2] = Default::default();
        let mut directory = None;
        let mut scope = None;
        for round in 0..rounds {
            if round % SAVES_OF_STORE == 0 {
                let dir = place.map(tempfile::tempdir_in).transpose()?;
                let storage: Arc<dyn Storage> = match &dir {
                    Some(dir) => Arc::new(Local::new(dir.path())),
                    None => Arc::new(Memory::new()),
                };
                // The first save of a name makes its directory.
                let new = Store::new(storage).scope("bench", None)?;
                self.native(&new)?;
                self.guest(&new)?;
                (directory, scope) = (dir, Some(new));
            }
            let scope = scope.as_ref().context("the first round makes it")?;
            // Each comes after the other as often as before it.
            for step in 0..2 {
                let which = (round + step) % 2;
                let took = match which {
                    0 => self.native(scope)?,
                    _ => self.guest(scope)?,
                };
                times[which].push(took);
            }
        }
        drop(directory);
        Ok(times.each_mut().map(|times| median(times)))
    }

    fn native(&self, scope: &Scope) -> Result<Duration> {
        let save = scope.save("native", self.state.clone(), SaveOptions::default());
        Ok(time(|| Ok(self.runtime.block_on(save)?))?.0)
    }

    fn guest(&self, scope: &Scope) -> Result<Duration> {
        let guest = SnapshotCtx::builder(scope.clone()).limits(limits()).build();
        let run = self.agent.run(guest, &[]);
        let (took, ran) = time(|| Ok(self.runtime.block_on(run)))?;
        let answer = ran.answer.context("the run failed")?;
        anyhow::ensure!(answer == "saved", "the agent answered {answer}");
        Ok(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_saves_the_state_that_it_was_made_with() -> Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let host = AgentHost::builder().limits(limits()).cache(None).build()?;
        for (input, _) in STATES {
            let state = input.state(SIZE);
            let agent = runtime.block_on(host.load(&agent(&state)?))?;
            let scope = Store::new(Arc::new(Memory::new())).scope("bench", None)?;
            let contest = Contest {
                runtime: &runtime,
                agent: &agent,
                state: state.clone().into(),
            };
            contest.guest(&scope)?;
            let loaded = runtime.block_on(scope.load("memory", None))?;
            let loaded = loaded.context("it was saved")?;
            assert!(loaded.state == state, "{input:?}");
        }
        Ok(())
    }
}
