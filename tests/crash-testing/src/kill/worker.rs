//! The process that is killed: two agents at work, each alone with its names.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use fastrand::Rng;
use persist_host::snapshot::{Scope, Store, StoreOptions, Version};
use persist_host::storage::{Local, Storage};
use tokio::task::JoinSet;

use super::Bug;
use crate::histories::{Answer, Call, Lines, Record, Wanted, ask};

/// Agents of a process.
pub(super) const AGENTS: usize = 2;

/// Names of an agent.
pub(super) const NAMES: usize = 2;

/// Grace period of pruning, in milliseconds: short, so that there is something to prune.
pub(super) const GRACE_MS: u64 = 150;

/// The tags of one round, at most.
const TAGS: u32 = 10_000;

/// An agent's name.
pub(super) fn agent(who: usize) -> String {
    format!("agent-{who}")
}

/// Works until it is killed: its arguments are the directory, its number, the round, a seed, and a
/// bug where one is planted.
///
/// # Errors
/// Where the arguments are not those.
pub fn worker(args: &[String]) -> Result<()> {
    let ([dir, number, round, seed] | [dir, number, round, seed, _]) = args else {
        bail!("a worker that is killed has a directory, a number, a round and a seed");
    };
    let bug = args.get(4).map(|name| Bug::of(name)).transpose()?;
    let (number, round, seed): (usize, u32, u64) = (number.parse()?, round.parse()?, seed.parse()?);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let store = Store::with_options(storage(dir.as_ref(), bug), options());
        let mut agents = JoinSet::new();
        for of_process in 0..AGENTS {
            let who = number * AGENTS + of_process;
            let worker = Worker {
                who,
                rng: Rng::with_seed(seed.wrapping_add(of_process as u64)),
                heads: [0; NAMES],
                tag: round * TAGS,
            };
            let scope = store.scope(&agent(who), None)?;
            agents.spawn(async move { worker.work(&scope).await });
        }
        while let Some(ended) = agents.join_next().await {
            ended?;
        }
        Ok(())
    })
}

fn storage(dir: &Path, bug: Option<Bug>) -> Arc<dyn Storage> {
    let local = Local::new(dir);
    match bug {
        None => Arc::new(local),
        Some(bug) => bug.planted(local),
    }
}

fn options() -> StoreOptions {
    let mut options = StoreOptions::default();
    options.grace = std::time::Duration::from_millis(GRACE_MS);
    options
}

struct Worker {
    who: usize,
    rng: Rng,
    /// The newest version of each name, as far as it knows.
    heads: [Version; NAMES],
    tag: u32,
}

impl Worker {
    async fn work(mut self, scope: &Scope) {
        let record: Arc<dyn Record> = Arc::new(Lines);
        for name in 0..NAMES {
            self.ask(scope, name, Call::Stat { at: None }, &record)
                .await;
        }
        // Names of the processes before are old by now, unless those were just killed.
        let expires = self.rng.u32(0..4) == 0;
        for name in (0..NAMES).filter(|_| expires) {
            let call = Call::Expire { careless: false };
            self.ask(scope, name, call, &record).await;
        }
        loop {
            let name = self.rng.usize(0..NAMES);
            let call = self.next(name);
            self.ask(scope, name, call, &record).await;
        }
    }

    async fn ask(&mut self, scope: &Scope, name: usize, call: Call, record: &Arc<dyn Record>) {
        let answer = ask(scope, (self.who, name), call, record).await;
        let name = match call {
            Call::Fork { to, .. } => to,
            _ => name,
        };
        if let Answer::Made(version, _)
        | Answer::Seen(version, _)
        | Answer::PurgeReport(version)
        | Answer::Expired(_, version) = answer
        {
            self.heads[name] = self.heads[name].max(version);
        }
    }

    fn next(&mut self, name: usize) -> Call {
        let head = self.heads[name];
        let wanted = if self.rng.bool() && head > 0 {
            Wanted::Version(head)
        } else {
            Wanted::Any
        };
        // Large enough to be sent before it is whole, once in a while.
        let step = match self.rng.u32(0..60) {
            0 => crate::histories::to_large(self.tag),
            _ => 1,
        };
        let tag = self.tag + step;
        match self.rng.u32(0..100) {
            0..50 => {
                self.tag = tag;
                Call::Save { tag, wanted }
            }
            50..68 => {
                self.tag = tag;
                Call::Stream { tag, wanted }
            }
            68..70 => {
                self.tag = tag;
                Call::Abandon { tag }
            }
            70..75 => Call::Delete { wanted },
            75..83 => Call::Restore {
                version: self.rng.u64(1..=head.max(1)),
                wanted,
            },
            83..88 => Call::Fork {
                to: (name + 1) % NAMES,
                wanted: Wanted::Any,
            },
            88..96 => Call::Prune {
                keep: self.rng.usize(1..6),
            },
            96 => Call::Purge,
            97 => Call::Load { at: None },
            _ => Call::Expire { careless: false },
        }
    }
}
