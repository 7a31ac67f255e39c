//! Steps that are done to a store while it is recorded, and their outcomes.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use persist_host::conformance::noise;
use persist_host::snapshot::SaveOptions;
use persist_host::storage::{Local, Storage};

use super::trace::{Op, Recorder};
use crate::steps::{Deed, Step, runtime, scope};

/// Steps of one or more hosts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Steps of each host. Several hosts take turns at every call to the disk.
    pub(super) hosts: &'static [&'static [Step]],
}

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "small saves",
        hosts: &[&[
            Step::Save("memory", 5),
            Step::Save("memory", 0),
            Step::Save("other", 4000),
            Step::Save("memory", 70_000),
        ]],
    },
    Scenario {
        name: "a tombstone, and a restore over it",
        hosts: &[&[
            Step::Save("memory", 10),
            Step::Delete("memory"),
            Step::Restore("memory", 1),
            Step::Fork("memory", "copy"),
            Step::Delete("memory"),
            Step::Save("memory", 20),
        ]],
    },
    Scenario {
        name: "a prune with a pin",
        hosts: &[&[
            Step::Save("memory", 1),
            Step::Save("memory", 2),
            Step::Save("memory", 3),
            Step::Save("memory", 4),
            Step::Pin("memory", 2),
            Step::Prune("memory"),
            Step::Save("memory", 5),
        ]],
    },
    Scenario {
        name: "a purge, and life after it",
        hosts: &[&[
            Step::Save("memory", 1),
            Step::Save("memory", 2),
            Step::Pin("memory", 1),
            Step::Save("memory", 3),
            Step::Purge("memory"),
            Step::Save("memory", 4),
            Step::Purge("memory"),
        ]],
    },
    Scenario {
        name: "a state at one's own key, replaced",
        hosts: &[&[
            Step::Put(100),
            Step::Put(0),
            Step::Put(50_000),
            Step::Put(7),
        ]],
    },
    Scenario {
        name: "streams",
        hosts: &[&[
            Step::Stream("log", 300_000),
            Step::Stream("log", 0),
            Step::Stream("log", 1_100_000),
        ]],
    },
    Scenario {
        name: "a stream that is sent before it ends",
        hosts: &[&[Step::Stream("log", 9 << 20), Step::Save("log", 3)]],
    },
    Scenario {
        name: "two hosts save one name",
        hosts: &[
            &[Step::Save("memory", 11), Step::Save("memory", 12)],
            &[Step::Save("memory", 21), Step::Save("memory", 22)],
        ],
    },
    Scenario {
        name: "two hosts save, delete and restore",
        hosts: &[
            &[
                Step::Save("memory", 11),
                Step::Delete("memory"),
                Step::Save("memory", 12),
            ],
            &[Step::Save("memory", 21), Step::Restore("memory", 1)],
        ],
    },
    Scenario {
        name: "a prune beside saves",
        hosts: &[
            &[
                Step::Save("memory", 11),
                Step::Save("memory", 12),
                Step::Save("memory", 13),
            ],
            &[Step::Prune("memory"), Step::Prune("memory")],
        ],
    },
];

/// Recording of a scenario.
#[derive(Debug)]
pub(super) struct Story {
    pub(super) ops: Vec<Op>,
    /// Outcomes of the steps: entry N is what step N did.
    pub(super) deeds: Vec<Deed>,
}

/// How a host's storage is made from that of its disk.
pub(super) type Wrap = fn(Local) -> Arc<dyn Storage>;

impl Scenario {
    /// Acts it out under `base`, which is empty.
    pub(super) fn record(&self, base: &Path, seed: u64, wrap: Wrap) -> Result<Story> {
        let recorder = Recorder::new(base, seed);
        let alone = self.hosts.len() == 1;
        let mut first = 0;
        let mut deeds: Vec<Option<Deed>> = Vec::new();
        let mut hosts = Vec::new();
        for (number, steps) in self.hosts.iter().enumerate() {
            let watch = recorder.host((!alone).then_some(number));
            let storage = wrap(Local::watched(base.join("store"), watch));
            let host = Host {
                recorder: &recorder,
                storage,
                steps,
                number: (!alone).then_some(number),
                first,
                seed,
            };
            // What is done once in a process, beside the first change, would be done at any time.
            host.warm_up()?;
            first += steps.len();
            hosts.push(host);
        }
        deeds.resize(first, None);
        if !alone {
            recorder.take_turns(hosts.len());
        }
        let done = std::thread::scope(|threads| {
            let threads: Vec<_> = hosts
                .iter()
                .map(|host| {
                    threads.spawn(move || {
                        let deeds = host.act();
                        if !alone {
                            host.recorder.done();
                        }
                        deeds
                    })
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().expect("a host does not panic")
            };
            threads.into_iter().map(join).collect::<Result<Vec<_>>>()
        })?;
        Ok(Story {
            ops: recorder.take(),
            deeds: done.into_iter().flatten().collect(),
        })
    }
}

struct Host<'a> {
    recorder: &'a Arc<Recorder>,
    storage: Arc<dyn Storage>,
    steps: &'a [Step],
    /// Its number, where hosts take turns.
    number: Option<usize>,
    /// The number of its first step.
    first: usize,
    seed: u64,
}

impl Host<'_> {
    fn warm_up(&self) -> Result<()> {
        let scope = scope(Arc::clone(&self.storage));
        let save = scope.save("warm-up", Bytes::new(), SaveOptions::default());
        runtime()?.block_on(save)?;
        Ok(())
    }

    fn act(&self) -> Result<Vec<Deed>> {
        let runtime = runtime()?;
        let scope = scope(Arc::clone(&self.storage));
        let mut deeds = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let number = self.first + index;
            self.recorder.turn(self.number);
            self.recorder.mark(Op::Begin(number));
            let state = |len| noise(self.seed ^ (number as u64 + 1), len);
            let deed = runtime.block_on(step.act(&scope, &self.storage, state));
            let deed = deed.with_context(|| format!("step {number}, {step:?}"))?;
            self.recorder.mark(Op::End(number));
            deeds.push(deed);
        }
        Ok(deeds)
    }
}
