//! Results of a simulation.

use std::fmt;
use std::time::Duration;

use crate::calls::Kind;
use crate::fleet::Plan;

/// Microseconds in which requests are counted together.
const BIN: u64 = 100_000;

/// Bins that are left out at the start, in which fewer agents than usual are at work.
const WARM_UP: usize = 600;

/// Notes of a running simulation.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    requests: [u64; 4],
    bins: Vec<[u32; 4]>,
    waited: Vec<(u32, u64)>,
    took: Vec<u64>,
    taken_over: Vec<u64>,
    computed: u64,
    pub(crate) given_up: u64,
    pub(crate) sent_again: u64,
}

impl Samples {
    pub(crate) fn sent(&mut self, now: u64, kind: Kind) {
        self.requests[kind as usize] += 1;
        let bin = (now / BIN) as usize;
        if bin >= self.bins.len() {
            self.bins.resize(bin + 1, [0; 4]);
        }
        self.bins[bin][kind as usize] += 1;
    }

    pub(crate) fn computed(&mut self, time: u64) {
        self.computed += time;
    }

    pub(crate) fn taken_over(&mut self, time: u64) {
        self.taken_over.push(time);
    }

    pub(crate) fn turn(&mut self, agent: u32, waited: u64, took: u64) {
        self.waited.push((agent, waited));
        self.took.push(took);
    }

    pub(crate) fn report(self, plan: &Plan, throttled: &[u64; 2]) -> Report {
        let limits = plan.provider.limits();
        let [list, read, create, _] = self.requests;
        let dollars = (list + create) as f64 * limits.write_price + read as f64 * limits.read_price;
        let count = |bin: &[u32; 4]| f64::from(bin.iter().sum::<u32>());
        let per_second = 1e6 / BIN as f64;
        let rates = |from: usize, to: usize| {
            let bins = self
                .bins
                .get(from..to.min(self.bins.len()))
                .unwrap_or_default();
            let sum: f64 = bins.iter().map(count).sum();
            let peak = bins.iter().map(count).fold(0.0, f64::max);
            (
                sum / bins.len().max(1) as f64 * per_second,
                peak * per_second,
            )
        };
        let bin = |time: Duration| (time.as_micros() as u64 / BIN) as usize;
        let end = plan.dead.map_or(usize::MAX, |(at, _)| bin(at));
        let (mean, peak) = rates(WARM_UP, end);
        let after = plan.outage.map(|outage| {
            let end = bin(outage.start + outage.length);
            rates(end, end + bin(Duration::from_secs(30))).1
        });
        Report {
            agents: plan.agents,
            hosts: plan.hosts,
            turns: self.took.len() as u64,
            requests: self.requests,
            throttled: *throttled,
            given_up: self.given_up,
            sent_again: self.sent_again,
            dollars,
            mean_rate: mean,
            peak_rate: peak,
            peak_after_outage: after.unwrap_or_default(),
            take_over: Waits::of(self.taken_over),
            wait: fairness(self.waited),
            turn: Waits::of(self.took),
            computed: Duration::from_micros(self.computed),
        }
    }
}

/// Sums up the waits of each agent.
fn fairness(mut waited: Vec<(u32, u64)>) -> Waits {
    waited.sort_unstable();
    let mut of_agents: Vec<u64> = Vec::new();
    let mut last = None;
    for (agent, waited) in waited {
        match of_agents.last_mut() {
            Some(sum) if last == Some(agent) => *sum += waited,
            _ => of_agents.push(waited),
        }
        last = Some(agent);
    }
    Waits::of(of_agents)
}

/// Distribution of times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Waits {
    /// Number of times.
    pub count: usize,
    /// Median.
    pub median: Duration,
    /// The time that 1 % exceed.
    pub p99: Duration,
    /// The longest.
    pub longest: Duration,
    /// Part of the sum that the longest 1 % have.
    pub share_of_longest: f64,
    /// Jain's index: 1 where all are the same, and 1/n where one has all.
    pub jain: f64,
}

impl Waits {
    pub(crate) fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let count = times.len();
        let at = |part: f64| {
            let index = (count as f64 * part) as usize;
            let time = times.get(index.min(count.saturating_sub(1)));
            Duration::from_micros(time.copied().unwrap_or_default())
        };
        let sum = |times: &[u64]| times.iter().map(|time| *time as f64).sum::<f64>();
        let all = sum(&times);
        let longest = &times[count - count.div_ceil(100)..];
        let squares: f64 = times.iter().map(|time| (*time as f64).powi(2)).sum();
        Self {
            count,
            median: at(0.5),
            p99: at(0.99),
            longest: at(1.0),
            share_of_longest: sum(longest) / all.max(1.0),
            jain: all * all / (count as f64 * squares).max(1.0),
        }
    }
}

/// Result of a simulation.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Agents.
    pub agents: u32,
    /// Hosts.
    pub hosts: u32,
    /// Turns that ended.
    pub turns: u64,
    /// Requests that were sent, in the order of [`Kind::ALL`].
    pub requests: [u64; 4],
    /// Requests that were refused because of the limit of a partition, or of an object.
    pub throttled: [u64; 2],
    /// Requests that were given up.
    pub given_up: u64,
    /// Turns that clients sent again.
    pub sent_again: u64,
    /// Price of all requests. Requests that were refused count, too.
    pub dollars: f64,
    /// Requests a second, before the first fault.
    pub mean_rate: f64,
    /// Highest number of requests in a tenth of a second before the first fault, as a rate.
    pub peak_rate: f64,
    /// Peak in the 30 seconds after the outage.
    pub peak_after_outage: f64,
    /// Times between the death of a host and the next lease of its agents.
    pub take_over: Waits,
    /// Times that each agent waited for leases, in all its turns.
    pub wait: Waits,
    /// Times from the first request of a client to the end of a turn.
    pub turn: Waits,
    /// Sum of the times that agents computed.
    pub computed: Duration,
}

impl Report {
    /// Returns how many requests of a kind were sent.
    pub fn count(&self, kind: Kind) -> u64 {
        self.requests[kind as usize]
    }

    /// Names the columns of a row.
    pub const HEADER: &str = "\
| agents | hosts | requests/s | requests a turn | $ for 1,000 turns | refused | take over, \
median / longest | waited, median / 99 % / longest | of the longest 1 % | \
after the outage, peak / mean |
|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|";
}

/// Writes a row of a table in Markdown.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: u64 = self.requests.iter().sum();
        let turns = self.turns.max(1) as f64;
        let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
        let take_over = match self.take_over.count {
            0 => "none".into(),
            _ => {
                let waits = &self.take_over;
                format!("{} / {} s", seconds(waits.median), seconds(waits.longest))
            }
        };
        let refused = self.throttled.iter().sum::<u64>() as f64 / all.max(1) as f64;
        write!(
            f,
            "| {} | {} | {:.0} | {:.1} | {:.3} | {:.1} % | {take_over} | {} / {} / {} s | \
             {:.0} % | {:.1} |",
            self.agents,
            self.hosts,
            self.mean_rate,
            all as f64 / turns,
            self.dollars / turns * 1000.0,
            refused * 100.0,
            seconds(self.wait.median),
            seconds(self.wait.p99),
            seconds(self.wait.longest),
            self.wait.share_of_longest * 100.0,
            self.peak_after_outage / self.mean_rate.max(1e-9),
        )
    }
}
