//! Calls of one worker, one after the other, as its random numbers and the answers determine them.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use persist_host::snapshot::{Scope, Version};
use serde::{Deserialize, Serialize};

use super::event::{self, Answer, Call, Record, Tag, Wanted};

/// How a history is made.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Shape {
    /// Everything random follows from it, but for what the scheduler does.
    pub(crate) seed: u64,
    pub(crate) workers: usize,
    /// Calls of each worker.
    pub(crate) calls: usize,
    pub(crate) names: usize,
    /// Grace period of this history's stores, in milliseconds.
    pub(crate) grace: u64,
}

impl Shape {
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace)
    }

    /// Returns true if the workers of this history are slow: every second history.
    fn is_slow(&self) -> bool {
        self.seed.is_multiple_of(2)
    }

    /// Returns true for every third history: the store's policy changes meanwhile.
    pub(crate) fn has_policy_changes(&self) -> bool {
        self.seed.is_multiple_of(3)
    }

    /// The shortest grace period that the store ever has.
    pub(crate) fn shortest_grace(&self) -> Duration {
        if self.has_policy_changes() {
            self.grace() / 2
        } else {
            self.grace()
        }
    }

    /// Returns true for three of eight histories: the clock of its storage is wrong now and then.
    /// In one of them the workers take their time.
    pub(crate) fn has_wrong_clock(&self) -> bool {
        matches!(self.seed % 8, 1 | 2 | 5)
    }

    /// The random numbers of one part of the history.
    pub(crate) fn rng(&self, part: u64) -> Rng {
        Rng::with_seed(self.seed.wrapping_mul(1009).wrapping_add(part))
    }
}

/// The tags of one worker, at most.
const TAGS: Tag = 100_000;

/// One stream in this many is sent before it is whole, in histories that have time.
const LARGE_STREAMS: u32 = 3;

/// The worker that prunes and purges.
pub(crate) const KEEPER: usize = 1;

/// Main activity of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Saves, whatever is there.
    Saver,
    /// Saves what follows what it saw.
    Swapper,
    /// Prunes and purges, and looks.
    Keeper,
    /// A little of everything.
    Anyone,
}

/// A worker, and what it remembers.
pub(crate) struct Worker {
    shape: Shape,
    number: usize,
    role: Role,
    rng: Rng,
    /// The highest version that it knows of each name.
    known: Vec<Version>,
    tags: Tag,
    /// With [`Bug::ExpiryUnconditional`](super::Bug::ExpiryUnconditional).
    is_careless: bool,
}

impl Worker {
    pub(crate) fn new(shape: Shape, number: usize) -> Self {
        let role = match number {
            0 => Role::Saver,
            KEEPER => Role::Keeper,
            2 => Role::Swapper,
            _ => Role::Anyone,
        };
        Self {
            shape,
            number,
            role,
            rng: shape.rng(number as u64),
            known: vec![0; shape.names],
            tags: Tag::try_from(number).unwrap_or(0) * TAGS,
            is_careless: false,
        }
    }

    /// Expires names as the bug does.
    pub(crate) fn careless(mut self, is_careless: bool) -> Self {
        self.is_careless = is_careless;
        self
    }

    /// Asks everything. `before` is told of each call.
    pub(crate) async fn work(
        &mut self,
        scope: &Scope,
        record: &Arc<dyn Record>,
        before: &(dyn Fn(&mut Rng, Call) + Sync),
    ) {
        for _ in 0..self.shape.calls {
            self.pause().await;
            let name = self.rng.usize(0..self.shape.names);
            let call = self.next(name);
            before(&mut self.rng, call);
            let answer = event::ask(scope, (self.number, name), call, record).await;
            self.learn(name, call, &answer);
        }
    }

    /// Together the pauses are some graces long: else nothing would grow old enough to be removed.
    /// If there is time, a writer sits over what it knows until others have made more, and some
    /// of that is gone.
    async fn pause(&mut self) {
        let grace = self.shape.grace();
        let longest = if self.shape.is_slow() { 1.5 } else { 0.5 };
        if self.rng.bool() {
            tokio::time::sleep(grace.mul_f64(longest * self.rng.f64())).await;
        }
        if self.shape.is_slow() && self.role == Role::Saver && self.rng.u32(0..4) == 0 {
            tokio::time::sleep(grace.mul_f64(1.5 + 1.5 * self.rng.f64())).await;
        }
    }

    fn next(&mut self, name: usize) -> Call {
        let head = self.known[name];
        let kind = self.rng.u32(0..100);
        let wanted = self.wanted(name);
        let old = self.rng.u64(1..=head.max(1));
        let mut tag = self.tags + 1;
        let save = match self.rng.u32(0..4) {
            0 => {
                if self.shape.is_slow() && self.rng.u32(0..LARGE_STREAMS) == 0 {
                    tag = self.tags + event::to_large(self.tags);
                }
                match self.rng.u32(0..6) {
                    0 => Call::Abandon { tag },
                    _ => Call::Stream { tag, wanted },
                }
            }
            _ => Call::Save { tag, wanted },
        };
        let call = match (self.role, kind) {
            (Role::Saver, _) => Call::Save {
                tag: self.tags + 1,
                wanted: Wanted::Any,
            },
            (Role::Keeper, 0..45) => Call::Prune {
                keep: self.rng.usize(1..3),
            },
            (Role::Keeper, 45..60) => Call::Purge,
            (Role::Keeper, 60..80) => Call::Expire {
                careless: self.is_careless,
            },
            (Role::Keeper, _) => self.look(old),
            (Role::Swapper, 0..70) => save,
            (Role::Anyone, 0..25) => save,
            (Role::Anyone, 25..40) => Call::Delete { wanted },
            (Role::Anyone, 40..52) => Call::Restore {
                version: old,
                wanted,
            },
            (Role::Anyone, 52..60) if self.shape.names > 1 => Call::Fork {
                to: (name + 1) % self.shape.names,
                wanted: Wanted::Any,
            },
            _ => self.look(old),
        };
        if let Call::Save { tag, .. } | Call::Stream { tag, .. } | Call::Abandon { tag } = call {
            self.tags = tag;
        }
        call
    }

    fn look(&mut self, old: Version) -> Call {
        match self.rng.u32(0..6) {
            0 => Call::Stat { at: None },
            1 => Call::Stat { at: Some(old) },
            2 | 3 => Call::Load { at: Some(old) },
            _ => Call::Load { at: None },
        }
    }

    fn wanted(&mut self, name: usize) -> Wanted {
        let head = self.known[name];
        match self.rng.u32(0..10) {
            0..3 => Wanted::Any,
            3..5 => Wanted::Absent,
            // A guest may hold on to an old number for long.
            5 => Wanted::Version(self.rng.u64(1..=head.max(1))),
            _ => Wanted::Version(head.max(1)),
        }
    }

    fn learn(&mut self, name: usize, call: Call, answer: &Answer) {
        let name = match call {
            Call::Fork { to, .. } => to,
            _ => name,
        };
        let told = match answer {
            Answer::Made(version, _) | Answer::Seen(version, _) => Some(*version),
            Answer::Conflict(head) => *head,
            Answer::Unknown(version) => *version,
            Answer::PurgeReport(tombstone) | Answer::Expired(_, tombstone) => Some(*tombstone),
            _ => None,
        };
        self.known[name] = self.known[name].max(told.unwrap_or(0));
    }
}
