//! Many different agents in one process: its memory, and the cost of an agent that is idle.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use persist_host::snapshot::{Scope, Store};
use persist_host::storage::Memory;
use persist_host::wasm::{Agent, AgentHost, Limits, SnapshotCtx};
use tokio::runtime::{Builder, Runtime};

use crate::Options;
use crate::measure::{millis, time};
use crate::memory;
use crate::table::Table;

/// Agent that saves "hello". Each agent of the benchmark saves another word, so that no two have
/// the same code.
const SAVES: &str = include_str!("../../../host/testdata/save.wat");
const WORD: &str = "\"hello\"";

/// Agents in one process.
const COUNTS: [usize; 4] = [1, 100, 1000, 10_000];

/// Returns Markdown.
pub(crate) fn run(options: &Options, place: &Path) -> Result<String> {
    let counts = if options.quick {
        &COUNTS[..3]
    } else {
        &COUNTS[..]
    };
    let cache = tempfile::tempdir_in(place)?;
    let mut table = Table::new([
        "agents",
        "ms to compile one",
        "ms to load one from the cache",
        "ms for a run of each, per run",
        "MiB of the process",
        "KiB for each idle agent",
        "MiB if loaded for each run",
    ]);
    for &count in counts {
        table.row(measure(count, cache.path())?);
    }
    let mut text = String::new();
    writeln!(text, "### Many agents\n\n{table}")?;
    Ok(text)
}

fn measure(count: usize, cache: &Path) -> Result<[String; 7]> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let host = host(Some(cache))?;
    // The cache holds what a smaller count compiled: these agents are new.
    let bytes: Vec<_> = (0..count).map(|agent| component(count + agent)).collect();
    let bytes = bytes.into_iter().collect::<Result<Vec<_>>>()?;
    let compile = time(|| load_each(&runtime, &host, &bytes))?.0;

    // A host that knows none of them loads each for its run, and drops it after the run.
    let mut peak = 0;
    for bytes in &bytes {
        let agent = load(&runtime, &host, bytes)?;
        run_once(&runtime, &agent)?;
        drop(agent);
        peak = peak.max(memory::resident()?);
    }

    let before = memory::resident()?;
    let mut agents = Vec::with_capacity(count);
    let load_all = time(|| {
        for bytes in &bytes {
            agents.push(load(&runtime, &host, bytes)?);
        }
        Ok(())
    })?;
    let runs = time(|| {
        agents
            .iter()
            .try_for_each(|agent| run_once(&runtime, agent))
    })?
    .0;
    let resident = memory::resident()?;
    let idle = resident.saturating_sub(before) / count as u64;
    Ok([
        count.to_string(),
        per(compile, count),
        per(load_all.0, count),
        per(runs, count),
        format!("{}", resident >> 20),
        format!("{:.1}", idle as f64 / 1024.0),
        format!("{}", peak >> 20),
    ])
}

fn per(took: Duration, count: usize) -> String {
    millis(took / u32::try_from(count).unwrap_or(u32::MAX))
}

fn host(cache: Option<&Path>) -> Result<AgentHost> {
    let cache = cache.map(Path::to_owned);
    Ok(AgentHost::builder().limits(limits()).cache(cache).build()?)
}

/// Returns limits that none of the runs meets.
fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.saves_per_minute = 1 << 40;
    limits.reads_per_minute = 1 << 40;
    limits
}

fn component(agent: usize) -> Result<Vec<u8>> {
    let word = format!("\"{agent:05}\"");
    Ok(wat::parse_str(SAVES.replace(WORD, &word))?)
}

fn load_each(runtime: &Runtime, host: &AgentHost, bytes: &[Vec<u8>]) -> Result<()> {
    bytes
        .iter()
        .try_for_each(|bytes| load(runtime, host, bytes).map(drop))
}

fn load(runtime: &Runtime, host: &AgentHost, bytes: &[u8]) -> Result<Agent> {
    Ok(runtime.block_on(host.load(bytes))?)
}

/// Runs an agent with a store of its own, which is dropped: only the agent stays.
fn run_once(runtime: &Runtime, agent: &Agent) -> Result<()> {
    let guest = SnapshotCtx::builder(scope()?).limits(limits()).build();
    let ran = runtime.block_on(agent.run(guest, &[]));
    ran.answer.context("a run failed")?;
    Ok(())
}

fn scope() -> Result<Scope> {
    Ok(Store::new(Arc::new(Memory::new())).scope("bench", None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_agents_are_the_same() {
        let all: std::collections::HashSet<_> = (0..100)
            .map(|agent| component(agent).expect("valid"))
            .collect();
        assert_eq!(all.len(), 100);
    }
}
