//! The simulation: agents, the hosts that they are placed on, and events in the order of time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use persist_host::snapshot::lease_timing;
use persist_host::storage::Retry;

use crate::bucket::{Bucket, Outage, Provider, micros};
use crate::report::{Report, Samples};
use crate::steps::{Step, Steps};

/// Times of the newest objects of a lease that are remembered.
const REMEMBERED: usize = 4;

/// Plan of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Everything that is random follows from it.
    pub seed: u64,
    /// Agents, each with turns of its own.
    pub agents: u32,
    /// Hosts, on which agents are placed by their hash.
    pub hosts: u32,
    /// Turns of each agent.
    pub turns: u32,
    /// Time between two turns of an agent.
    pub period: Duration,
    /// Shortest and longest time that an agent computes in a turn.
    pub compute: (Duration, Duration),
    /// Term of leases.
    pub term: Duration,
    /// Longest wait for a lease.
    pub lease_wait: Duration,
    /// Pause of a client before it sends a turn again that failed; up to twice this.
    pub client_pause: Duration,
    /// Retries of requests.
    pub retry: Retry,
    /// False: no wait has a random part, and requests that failed are sent again at once, as a
    /// planted fault.
    pub has_jitter: bool,
    /// Provider of the bucket.
    pub provider: Provider,
    /// Partitions of the keys of the bucket.
    pub partitions: u32,
    /// Time in which the bucket does not answer.
    pub outage: Option<Outage>,
    /// Time at which some hosts die, and how many.
    pub dead: Option<(Duration, u32)>,
}

impl Plan {
    /// Returns the plan of the documentation for so many agents: ten minutes, in which each agent
    /// has two turns, a part of the hosts dies, and the bucket has an outage.
    pub fn new(agents: u32) -> Self {
        let seconds = Duration::from_secs;
        let hosts = agents.div_ceil(1000).max(4);
        Self {
            seed: 1,
            agents,
            hosts,
            turns: 2,
            period: seconds(300),
            compute: (seconds(10), seconds(50)),
            term: seconds(30),
            lease_wait: seconds(120),
            client_pause: seconds(1),
            retry: Retry::default(),
            has_jitter: true,
            provider: Provider::S3,
            partitions: agents.div_ceil(50_000).max(1),
            outage: Some(Outage {
                start: seconds(400),
                length: seconds(20),
            }),
            dead: Some((seconds(200), hosts.div_ceil(20))),
        }
    }

    /// Returns the plan without faults and computing, to count the requests of turns.
    #[must_use]
    pub fn calm(self) -> Self {
        Self {
            compute: (Duration::ZERO, Duration::ZERO),
            outage: None,
            dead: None,
            ..self
        }
    }

    /// Returns the plan of two hosts whose agents all hold leases, which were acquired within one
    /// term. At the end of it one of the hosts dies.
    #[must_use]
    pub fn take_over(self) -> Self {
        let compute = 10 * self.term;
        Self {
            hosts: 2,
            turns: 1,
            period: self.term,
            compute: (compute, compute),
            client_pause: self.term / 30,
            lease_wait: 10 * self.term,
            outage: None,
            dead: Some((self.term, 1)),
            ..self
        }
    }

    /// Returns the plan with one turn of each agent, which takes ten minutes, and without faults:
    /// what leases cost that are held all the time.
    #[must_use]
    pub fn busy(self) -> Self {
        let compute = Duration::from_secs(600);
        Self {
            turns: 1,
            period: Duration::from_secs(60),
            compute: (compute, compute),
            // A count of requests that were refused would say nothing of leases.
            partitions: self.agents.div_ceil(2000),
            ..self.calm()
        }
    }
}

/// Simulates a plan.
pub fn simulate(plan: &Plan, steps: &Steps) -> Report {
    let mut fleet = Fleet::new(plan, steps);
    while let Some(Reverse((now, _, event))) = fleet.queue.pop() {
        fleet.happen(now, event);
    }
    fleet.samples.report(plan, &fleet.bucket.throttled)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The next turn of an agent is due.
    Due { agent: u32 },
    /// A pause of the task of an agent ends, unless another attempt at its turn began.
    Next {
        agent: u32,
        attempt: u32,
        what: What,
    },
    /// Hosts die.
    Death,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// The client sends the turn.
    Send,
    /// A request is answered.
    Answer { of: Of, is_ok: bool },
    /// A request is sent again.
    Again(Of),
    /// The lease is looked at again.
    Look,
    /// The agent has computed.
    Computed,
    /// The lease is to be renewed.
    Renew,
}

/// Task of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Turn,
    Renewal,
}

/// Requests of a step, one after the other.
#[derive(Clone, Copy, Debug)]
struct Task {
    step: Step,
    position: u8,
    failures: u32,
    began: u64,
}

impl Task {
    const IDLE: Self = Self {
        step: Step::Load,
        position: 0,
        failures: 0,
        began: 0,
    };
}

#[derive(Clone, Debug)]
struct Agent {
    turn: Task,
    renewal: Task,
    is_busy: bool,
    has_failed: bool,
    /// Attempts at turns; events of an earlier one are ignored.
    attempt: u32,
    turns_left: u32,
    /// Turns that are due and have not begun.
    due: u32,
    host: u32,
    /// When the client first sent the turn.
    arrived: u64,
    /// When the host with its lease died.
    orphaned: Option<u64>,
    /// When the host began to wait for the lease.
    looked: Option<u64>,
    waited: u64,
    lease: Lease,
}

/// The truth about a lease, as the bucket has it.
#[derive(Clone, Debug)]
struct Lease {
    is_held: bool,
    /// True while a task of a host that lives holds it.
    is_ours: bool,
    renewals: u32,
    renewed: u64,
    last_host: Option<u32>,
    is_saved: bool,
    newest: u64,
    /// Number of the newest object when the step began, to which numbers of requests are relative.
    base: u64,
    written: [u64; REMEMBERED],
}

struct Fleet<'a> {
    plan: &'a Plan,
    steps: &'a Steps,
    rng: Rng,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    bucket: Bucket,
    agents: Vec<Agent>,
    is_alive: Vec<bool>,
    samples: Samples,
}

impl<'a> Fleet<'a> {
    fn new(plan: &'a Plan, steps: &'a Steps) -> Self {
        let agent = Agent {
            turn: Task::IDLE,
            renewal: Task::IDLE,
            is_busy: false,
            has_failed: false,
            attempt: 0,
            turns_left: plan.turns,
            due: 0,
            host: 0,
            arrived: 0,
            orphaned: None,
            looked: None,
            waited: 0,
            lease: Lease {
                is_held: false,
                is_ours: false,
                renewals: 0,
                renewed: 0,
                last_host: None,
                is_saved: false,
                newest: 0,
                base: 0,
                written: [0; REMEMBERED],
            },
        };
        let patience = plan.retry.attempt;
        let mut fleet = Self {
            plan,
            steps,
            rng: Rng::with_seed(plan.seed),
            queue: BinaryHeap::with_capacity(plan.agents as usize * 2),
            count: 0,
            bucket: Bucket::new(plan.provider, plan.partitions, plan.outage, patience),
            agents: vec![agent; plan.agents as usize],
            is_alive: vec![true; plan.hosts.max(1) as usize],
            samples: Samples::default(),
        };
        for agent in 0..plan.agents {
            let at = fleet.rng.u64(..micros(plan.period).max(1));
            fleet.push(at, Event::Due { agent });
        }
        if let Some((at, _)) = plan.dead {
            fleet.push(micros(at), Event::Death);
        }
        // Each host asks for some things once.
        let start = steps.of(Step::Start);
        for _ in 0..plan.hosts {
            for request in start {
                fleet.samples.sent(0, request.kind);
            }
        }
        fleet
    }

    fn push(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((at, self.count, event)));
    }

    fn later(&mut self, at: u64, agent: u32, what: What) {
        let attempt = self.agents[agent as usize].attempt;
        self.push(
            at,
            Event::Next {
                agent,
                attempt,
                what,
            },
        );
    }

    /// Draws the random part of a wait.
    fn share(&mut self) -> f64 {
        let share = self.rng.f64();
        if self.plan.has_jitter { share } else { 0.0 }
    }

    fn happen(&mut self, now: u64, event: Event) {
        match event {
            Event::Due { agent } => {
                let state = &mut self.agents[agent as usize];
                state.turns_left -= 1;
                state.due += 1;
                if state.turns_left > 0 {
                    self.push(now + micros(self.plan.period), Event::Due { agent });
                }
                self.begin(now, agent, now);
            }
            Event::Death => self.die(now),
            Event::Next {
                agent,
                attempt,
                what,
            } => {
                if self.agents[agent as usize].attempt == attempt {
                    self.next(now, agent, what);
                }
            }
        }
    }

    /// Begins the next turn of an agent that is due, unless one is under way.
    fn begin(&mut self, now: u64, agent: u32, arrived: u64) {
        let state = &mut self.agents[agent as usize];
        if state.is_busy || state.due == 0 {
            return;
        }
        state.due -= 1;
        state.is_busy = true;
        state.arrived = arrived;
        self.send(now, agent);
    }

    /// The client sends the turn to the host of the agent.
    fn send(&mut self, now: u64, agent: u32) {
        let host = self.place(agent);
        let state = &mut self.agents[agent as usize];
        state.attempt += 1;
        state.has_failed = false;
        state.looked = None;
        state.lease.is_ours = false;
        state.host = host;
        self.acquire(now, agent);
    }

    /// Places an agent on a host by its hash, and on others while that one is dead.
    fn place(&self, agent: u32) -> u32 {
        let hosts = self.is_alive.len() as u64;
        let places = (0..).map(|place| hash(u64::from(agent) | place << 32) % hosts);
        let alive = places.take(64).find(|host| self.is_alive[*host as usize]);
        alive.unwrap_or_default() as u32
    }

    fn acquire(&mut self, now: u64, agent: u32) {
        let expiry = micros(lease_timing::expiry(self.plan.term));
        let state = &mut self.agents[agent as usize];
        let lease = &state.lease;
        let step = if lease.is_held && now < lease.renewed + expiry {
            if state.looked.is_some() {
                Step::LookAgain
            } else {
                state.looked = Some(now);
                Step::Look
            }
        } else if lease.is_held {
            Step::TakeOver
        } else if lease.newest == 0 {
            Step::AcquireFirst
        } else if lease.last_host == Some(state.host) {
            Step::AcquireAgain
        } else {
            Step::AcquireMoved
        };
        self.play(now, agent, Of::Turn, step);
    }

    fn task(&mut self, agent: u32, of: Of) -> &mut Task {
        let state = &mut self.agents[agent as usize];
        match of {
            Of::Turn => &mut state.turn,
            Of::Renewal => &mut state.renewal,
        }
    }

    fn play(&mut self, now: u64, agent: u32, of: Of, step: Step) {
        let lease = &mut self.agents[agent as usize].lease;
        lease.base = lease.newest;
        *self.task(agent, of) = Task {
            step,
            position: 0,
            failures: 0,
            began: now,
        };
        self.request(now, agent, of);
    }

    /// Sends the next request of a step, or ends the step.
    fn request(&mut self, now: u64, agent: u32, of: Of) {
        let task = *self.task(agent, of);
        let Some(request) = self.steps.of(task.step).get(usize::from(task.position)) else {
            self.done(now, agent, of, task.step);
            return;
        };
        let lease = &self.agents[agent as usize].lease;
        let written = request.number.and_then(|number| {
            let number = lease.base.checked_add_signed(i64::from(number))?;
            let is_there = number <= lease.newest && lease.newest - number < REMEMBERED as u64;
            is_there.then(|| lease.written[number as usize % REMEMBERED])
        });
        let key = hash(u64::from(agent) << 1 | u64::from(request.is_lease));
        let answer = self
            .bucket
            .request(now, request.kind, key, written, &mut self.rng);
        self.samples.sent(now, request.kind);
        let is_ok = answer.is_ok;
        self.later(answer.at, agent, What::Answer { of, is_ok });
    }

    fn next(&mut self, now: u64, agent: u32, what: What) {
        match what {
            What::Send => self.send(now, agent),
            What::Look => self.acquire(now, agent),
            What::Again(of) => self.request(now, agent, of),
            What::Answer { of, is_ok: true } => {
                self.note(now, agent, of);
                let task = self.task(agent, of);
                task.position += 1;
                task.failures = 0;
                task.began = now;
                self.request(now, agent, of);
            }
            What::Answer { of, is_ok: false } => self.refused(now, agent, of),
            What::Computed => {
                let step = if self.agents[agent as usize].lease.is_saved {
                    Step::Save
                } else {
                    Step::SaveFirst
                };
                self.play(now, agent, Of::Turn, step);
            }
            What::Renew => {
                let lease = &self.agents[agent as usize].lease;
                if lease.is_ours {
                    let step = if lease.renewals == 0 {
                        Step::RenewFirst
                    } else {
                        Step::Renew
                    };
                    self.play(now, agent, Of::Renewal, step);
                }
            }
        }
    }

    /// Takes note of an object of the lease that was created.
    fn note(&mut self, now: u64, agent: u32, of: Of) {
        let task = *self.task(agent, of);
        let request = self.steps.of(task.step)[usize::from(task.position)];
        let lease = &mut self.agents[agent as usize].lease;
        if let Some(number) = request.number.filter(|number| *number > 0) {
            lease.newest = lease.base + number.unsigned_abs() as u64;
            lease.written[lease.newest as usize % REMEMBERED] = now;
        }
    }

    /// After an attempt at a request that failed: sends it again, or gives up.
    fn refused(&mut self, now: u64, agent: u32, of: Of) {
        let share = self.share();
        let retry = &self.plan.retry;
        let task = self.task(agent, of);
        task.failures += 1;
        let elapsed = Duration::from_micros(now - task.began);
        let wait = retry.wait(task.failures, Duration::ZERO, elapsed, share);
        let at = now + micros(wait);
        let step = task.step;
        if at - task.began < micros(retry.budget) {
            self.later(at, agent, What::Again(of));
            return;
        }
        self.samples.given_up += 1;
        match (of, step) {
            (Of::Renewal, _) => {
                let share = self.share();
                let pause = lease_timing::failed_renewal(self.plan.term, share);
                self.later(now + micros(pause), agent, What::Renew);
            }
            (Of::Turn, Step::Load | Step::LoadNothing | Step::Save | Step::SaveFirst) => {
                self.agents[agent as usize].has_failed = true;
                self.release(now, agent);
            }
            (Of::Turn, Step::ReleaseFirst | Step::Release | Step::ReleaseRenewed) => {
                self.end(now, agent)
            }
            (Of::Turn, _) => self.send_again(now, agent),
        }
    }

    fn send_again(&mut self, now: u64, agent: u32) {
        self.samples.sent_again += 1;
        let pause = micros(self.plan.client_pause) as f64 * (1.0 + self.share());
        self.later(now + pause as u64, agent, What::Send);
    }

    fn release(&mut self, now: u64, agent: u32) {
        let lease = &mut self.agents[agent as usize].lease;
        lease.is_ours = false;
        let step = match lease.renewals {
            0 if lease.newest == 1 => Step::ReleaseFirst,
            0 => Step::Release,
            _ => Step::ReleaseRenewed,
        };
        self.play(now, agent, Of::Turn, step);
    }

    /// After the last request of a step.
    fn done(&mut self, now: u64, agent: u32, of: Of, step: Step) {
        let state = &mut self.agents[agent as usize];
        let lease = &mut state.lease;
        if of == Of::Renewal {
            lease.renewals += 1;
            lease.renewed = now;
            self.renew_later(now, agent);
            return;
        }
        match step {
            Step::Look | Step::LookAgain => self.wait_for_lease(now, agent),
            Step::Load | Step::LoadNothing => {
                let (shortest, longest) = self.plan.compute;
                let (shortest, longest) = (micros(shortest), micros(longest));
                let time = self.rng.u64(shortest..=longest);
                self.samples.computed(time);
                self.later(now + time, agent, What::Computed);
            }
            Step::Save | Step::SaveFirst => {
                lease.is_saved = true;
                self.release(now, agent);
            }
            Step::ReleaseFirst | Step::Release | Step::ReleaseRenewed => {
                lease.is_held = false;
                self.end(now, agent);
            }
            _ => self.acquired(now, agent),
        }
    }

    fn acquired(&mut self, now: u64, agent: u32) {
        let state = &mut self.agents[agent as usize];
        let lease = &mut state.lease;
        lease.is_held = true;
        lease.is_ours = true;
        lease.renewals = 0;
        lease.renewed = now;
        lease.last_host = Some(state.host);
        state.waited = now - state.arrived;
        let step = if lease.is_saved {
            Step::Load
        } else {
            Step::LoadNothing
        };
        if let Some(orphaned) = state.orphaned.take() {
            self.samples.taken_over(now - orphaned);
        }
        self.renew_later(now, agent);
        self.play(now, agent, Of::Turn, step);
    }

    fn renew_later(&mut self, now: u64, agent: u32) {
        let share = self.share();
        let pause = lease_timing::renewal(self.plan.term, share);
        self.later(now + micros(pause), agent, What::Renew);
    }

    /// Waits for a lease that another host held when it was looked at.
    fn wait_for_lease(&mut self, now: u64, agent: u32) {
        let share = self.share();
        let term = self.plan.term;
        let expiry = micros(lease_timing::expiry(term));
        let state = &self.agents[agent as usize];
        let waited = now - state.looked.unwrap_or(now);
        let patience = micros(self.plan.lease_wait).saturating_sub(waited);
        if patience == 0 {
            self.send_again(now, agent);
            return;
        }
        let left = (state.lease.renewed + expiry).saturating_sub(now);
        let time = Duration::from_micros;
        let pause = lease_timing::look(time(left), term, time(patience), share);
        self.later(now + micros(pause), agent, What::Look);
    }

    /// Ends an attempt at a turn.
    fn end(&mut self, now: u64, agent: u32) {
        let state = &mut self.agents[agent as usize];
        if state.has_failed {
            self.send_again(now, agent);
            return;
        }
        state.is_busy = false;
        let (waited, arrived) = (state.waited, state.arrived);
        // Later answers are none of its business.
        state.attempt += 1;
        self.samples.turn(agent, waited, now - arrived);
        self.begin(now, agent, now);
    }

    /// Some hosts die, and the clients of their agents send the turns again.
    fn die(&mut self, now: u64) {
        let dead = self.plan.dead.map_or(0, |(_, dead)| dead);
        let dead = dead.min(self.plan.hosts.saturating_sub(1)) as usize;
        self.is_alive[..dead].fill(false);
        for agent in 0..self.plan.agents {
            let state = &mut self.agents[agent as usize];
            if !state.is_busy || self.is_alive[state.host as usize] {
                continue;
            }
            if state.lease.is_ours {
                state.orphaned = Some(now);
            }
            state.attempt += 1;
            self.send_again(now, agent);
        }
    }
}

/// Mixes the bits of a number (the finalizer of SplitMix64).
fn hash(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
