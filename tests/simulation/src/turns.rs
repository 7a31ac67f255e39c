//! Turns of agents on a real store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use persist_host::snapshot::{Lease, LeaseOptions, SaveOptions, Scope, Store};
use persist_host::storage::Storage;

use crate::bucket::micros;
use crate::fleet::Plan;
use crate::report::Waits;

/// The name that each turn loads and saves.
const NAME: &str = "memory";

/// A host: a process with a store of its own in a bucket that all hosts share.
#[derive(Clone, Debug)]
pub struct Host {
    store: Store,
    options: LeaseOptions,
}

impl Host {
    /// Starts a host, as a process does: nothing is known yet of the bucket.
    pub fn start(name: &str, storage: Arc<dyn Storage>, term: Duration) -> Self {
        let mut options = LeaseOptions::default();
        options.holder = name.into();
        options.term = term;
        Self {
            store: Store::new(storage),
            options,
        }
    }

    /// Acquires the lease of an agent, or fails at once where another host holds it.
    ///
    /// # Errors
    /// Any error.
    pub async fn acquire(&self, agent: &str) -> Result<Lease> {
        Ok(self.store.lease(agent, None, &self.options).await?)
    }

    /// Loads the state of an agent.
    ///
    /// # Errors
    /// Any error.
    pub async fn load(&self, scope: &Scope) -> Result<Option<u64>> {
        let loaded = scope.load(NAME, None).await?;
        let Some(loaded) = loaded else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&loaded.state)?;
        Ok(Some(text.parse().context("a number of turns")?))
    }

    /// Saves the state of an agent.
    ///
    /// # Errors
    /// Any error.
    pub async fn save(&self, scope: &Scope, turns: u64) -> Result<()> {
        let state = turns.to_string().into();
        scope.save(NAME, state, SaveOptions::default()).await?;
        Ok(())
    }

    /// Does one turn of an agent: acquires its lease, loads, counts one more, saves, releases.
    ///
    /// # Errors
    /// Any error.
    pub async fn turn(&self, agent: &str) -> Result<()> {
        let lease = self.acquire(agent).await?;
        let scope = lease.scope();
        let turns = self.load(&scope).await?.unwrap_or_default();
        self.save(&scope, turns + 1).await?;
        lease.release().await?;
        Ok(())
    }

    /// Waits for background tasks, such as automatic pruning.
    pub async fn wait_idle(&self) {
        self.store.wait_idle().await;
    }
}

/// Runs so many turns of each agent, which moves to the next host after each if `moves` is true.
/// Hosts work side by side.
///
/// # Errors
/// Any error.
pub async fn run_turns(hosts: &[Host], agents: u32, turns: usize, moves: bool) -> Result<()> {
    let count = hosts.len();
    for turn in 0..turns {
        let moved = if moves { turn } else { 0 };
        let mut tasks = Vec::new();
        for (number, host) in hosts.iter().cloned().enumerate() {
            let is_here = move |agent: &u32| (*agent as usize + moved) % count == number;
            tasks.push(tokio::spawn(async move {
                for agent in (0..agents).filter(is_here) {
                    host.turn(&name_of(agent)).await?;
                }
                anyhow::Ok(())
            }));
        }
        for task in tasks {
            task.await??;
        }
    }
    Ok(())
}

/// Measures how long the agents of a host that dies wait for another one: the host acquires their
/// leases within a term, dies when the term is over, and the clients of the agents turn to another
/// host after the pause of a client. [`Plan::take_over`](crate::Plan::take_over) simulates the
/// same.
///
/// # Errors
/// Any error.
pub async fn measure_take_over(
    storage: Arc<dyn Storage>,
    agents: u32,
    plan: &Plan,
) -> Result<Waits> {
    let term = plan.term;
    let dead = Host::start("dead", Arc::clone(&storage), term);
    let mut live = Host::start("live", storage, term);
    live.options.wait = plan.lease_wait;
    dead.turn("another").await?;
    live.turn("another").await?;
    let mut rng = fastrand::Rng::with_seed(plan.seed);
    let start = Instant::now();
    let death = start + term;
    let mut waits = Vec::new();
    for agent in 0..agents {
        let (dead, live) = (dead.clone(), live.clone());
        let after = term.mul_f64(rng.f64());
        let pause = plan.client_pause.mul_f64(1.0 + rng.f64());
        waits.push(tokio::spawn(async move {
            let agent = name_of(agent);
            tokio::time::sleep_until((start + after).into()).await;
            // It is not renewed, and not released.
            std::mem::forget(dead.acquire(&agent).await?);
            tokio::time::sleep_until((death + pause).into()).await;
            let lease = live.acquire(&agent).await?;
            let waited = death.elapsed();
            lease.release().await?;
            anyhow::Ok(micros(waited))
        }));
    }
    let mut times = Vec::new();
    for wait in waits {
        times.push(wait.await??);
    }
    Ok(Waits::of(times))
}

/// Returns the name of an agent.
pub fn name_of(agent: u32) -> String {
    format!("agent-{agent}")
}
