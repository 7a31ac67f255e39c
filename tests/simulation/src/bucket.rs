//! A model of a bucket: latency, limits of the rate of requests, and an outage.

use std::time::Duration;

use fastrand::Rng;

use crate::calls::Kind;

/// Provider of the bucket. The names of limits are in `docs/src/scale.md`, with sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Amazon S3.
    S3,
    /// Google Cloud Storage.
    Gcs,
}

/// Requests that a provider answers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Writes a second of each partition of the keys.
    pub writes: f64,
    /// Reads and lists a second of each partition.
    pub reads: f64,
    /// Shortest time between two writes of one object.
    pub between_writes: Duration,
    /// Dollars for a create or a list.
    pub write_price: f64,
    /// Dollars for a read.
    pub read_price: f64,
}

impl Provider {
    /// Returns the limits and prices of the provider.
    pub fn limits(self) -> Limits {
        match self {
            Self::S3 => Limits {
                writes: 3500.0,
                reads: 5500.0,
                between_writes: Duration::ZERO,
                write_price: 0.005 / 1000.0,
                read_price: 0.0004 / 1000.0,
            },
            Self::Gcs => Limits {
                writes: 1000.0,
                reads: 5000.0,
                between_writes: Duration::from_secs(1),
                write_price: 0.005 / 1000.0,
                read_price: 0.0004 / 1000.0,
            },
        }
    }
}

/// A time in which the bucket does not answer. Requests wait for its end, or until the host gives
/// up on them, and then fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Its begin.
    pub start: Duration,
    /// Its length.
    pub length: Duration,
}

/// Answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Microseconds since the start at which it arrives.
    pub(crate) at: u64,
    /// False: the request is to be sent again.
    pub(crate) is_ok: bool,
}

/// The bucket.
#[derive(Debug)]
pub struct Bucket {
    limits: Limits,
    partitions: Vec<Partition>,
    outage: Option<(u64, u64)>,
    /// Longest wait of a host for an answer.
    patience: u64,
    /// Requests that were refused because of the limit of a partition, or of an object.
    pub(crate) throttled: [u64; 2],
}

/// A range of keys that one part of the provider's servers serves.
#[derive(Clone, Debug)]
struct Partition {
    writes: Tokens,
    reads: Tokens,
}

#[derive(Clone, Debug)]
struct Tokens {
    rate: f64,
    left: f64,
    at: u64,
}

impl Tokens {
    fn new(rate: f64) -> Self {
        Self {
            rate,
            left: rate,
            at: 0,
        }
    }

    fn take(&mut self, now: u64) -> bool {
        let since = (now - self.at) as f64 / 1e6;
        self.left = (self.left + since * self.rate).min(self.rate);
        self.at = now;
        let is_left = self.left >= 1.0;
        if is_left {
            self.left -= 1.0;
        }
        is_left
    }
}

impl Bucket {
    /// Makes a bucket whose keys have so many partitions.
    pub(crate) fn new(
        provider: Provider,
        partitions: u32,
        outage: Option<Outage>,
        patience: Duration,
    ) -> Self {
        let limits = provider.limits();
        let partition = Partition {
            writes: Tokens::new(limits.writes),
            reads: Tokens::new(limits.reads),
        };
        Self {
            limits,
            partitions: vec![partition; partitions.max(1) as usize],
            outage: outage.map(|outage| {
                let start = micros(outage.start);
                (start, start + micros(outage.length))
            }),
            patience: micros(patience),
            throttled: [0; 2],
        }
    }

    /// Answers a request for a key whose hash is `key`. `written` is the time of the last write of
    /// the same object.
    pub(crate) fn request(
        &mut self,
        now: u64,
        kind: Kind,
        key: u64,
        written: Option<u64>,
        rng: &mut Rng,
    ) -> Answer {
        if let Some((start, end)) = self.outage
            && (start..end).contains(&now)
        {
            return Answer {
                at: end.min(now + self.patience),
                is_ok: false,
            };
        }
        let refused = Answer {
            at: now + latency(rng, 10.0, 0.3),
            is_ok: false,
        };
        let count = self.partitions.len() as u64;
        let partition = &mut self.partitions[(key % count) as usize];
        let tokens = if kind.is_write() {
            &mut partition.writes
        } else {
            &mut partition.reads
        };
        if !tokens.take(now) {
            self.throttled[0] += 1;
            return refused;
        }
        let between = micros(self.limits.between_writes);
        if kind.is_write() && written.is_some_and(|written| now - written < between) {
            self.throttled[1] += 1;
            return refused;
        }
        let (median, spread) = match kind {
            Kind::Read => (20.0, 0.5),
            Kind::List => (30.0, 0.5),
            Kind::Create => (30.0, 0.6),
            Kind::Delete => (20.0, 0.5),
        };
        Answer {
            at: now + latency(rng, median, spread),
            is_ok: true,
        }
    }
}

/// Draws a latency with a log-normal distribution, whose median is in milliseconds.
fn latency(rng: &mut Rng, median: f64, spread: f64) -> u64 {
    let angle = std::f64::consts::TAU * rng.f64();
    let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * angle.cos();
    (median * 1000.0 * (spread * normal).exp()) as u64
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
