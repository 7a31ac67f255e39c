//! Feeds every reader of foreign data with arbitrary data.
//!
//! A [`Function`] takes any bytes and asserts what must hold of them: it does not panic, and what
//! is accepted is what it claims to be. The same functions are libFuzzer's targets (`tests/fuzz`),
//! which follow coverage, and those of this module's own driver, which needs no nightly compiler:
//! it mutates what is known to be good, from a seed.

mod command;
mod mutate;
mod readers;
mod states;
mod texts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;

use crate::{Plan, Report, Rng, Target};

pub use readers::{file, forged, plain};
pub use states::state;
pub use texts::{address, name, segment};

/// Number of executions of every function.
pub const TARGET: Target = Target {
    name: "fuzz",
    about: "feeds readers, writers and parsers with arbitrary data",
    count: 100_000,
    run,
};

/// One thing to feed.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Name of libFuzzer's target.
    pub name: &'static str,
    /// Description of the input that it feeds.
    pub about: &'static str,
    /// Panics where something does not hold.
    pub feed: fn(&[u8]),
    /// Inputs that the driver begins with.
    seeds: fn() -> Result<Vec<Vec<u8>>>,
}

/// All of them.
pub const FUNCTIONS: [Function; 7] = [
    Function {
        name: "file",
        about: "files of versions, through every way of reading",
        feed: file,
        seeds: readers::files,
    },
    Function {
        name: "forged",
        about: "files whose checksums fit and whose content lies",
        feed: forged,
        seeds: mutate::nothing,
    },
    Function {
        name: "plain",
        about: "gzip of others, through the adapter",
        feed: plain,
        seeds: readers::gzips,
    },
    Function {
        name: "state",
        about: "states, saved at once and in pieces, and loaded",
        feed: state,
        seeds: mutate::nothing,
    },
    Function {
        name: "name",
        about: "names, and segments of keys that may be names",
        feed: name,
        seeds: texts::names,
    },
    Function {
        name: "segment",
        about: "last segments of keys, which may be versions",
        feed: segment,
        seeds: texts::segments,
    },
    Function {
        name: "address",
        about: "addresses of the command",
        feed: address,
        seeds: texts::addresses,
    },
];

fn run(plan: Plan) -> Result<Report> {
    let mut report = Report::default();
    for function in &FUNCTIONS {
        report.add(drive(function, plan)?);
    }
    Ok(report)
}

/// Feeds one function, on all processors.
fn drive(function: &Function, plan: Plan) -> Result<Report> {
    let seeds = (function.seeds)()?;
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| feed(function, plan, &seeds, &next)))
            .collect();
        let first = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().ok().flatten();
        threads.into_iter().filter_map(first).next()
    });
    let mut report = Report::default();
    report.tried(
        &format!("{}: {}", function.name, function.about),
        plan.count,
    );
    if let Some(input) = found {
        let input = shrunk(input, |input| panics(function, input));
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        let violation = format!("{} does not hold for {hex}", function.name);
        report.violations.push(violation);
    }
    Ok(report)
}

/// Feeds a function until all is done or something was found. Input `n` follows from the seed and
/// `n` alone.
fn feed(function: &Function, plan: Plan, seeds: &[Vec<u8>], next: &AtomicU64) -> Option<Vec<u8>> {
    loop {
        let n = next.fetch_add(1, Ordering::Relaxed);
        if n >= plan.count {
            return None;
        }
        let mut rng = Rng::with_seed(plan.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n);
        let input = mutate::input(&mut rng, seeds);
        if panics(function, &input) {
            next.store(plan.count, Ordering::Relaxed);
            return Some(input);
        }
    }
}

fn panics(function: &Function, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| (function.feed)(input))).is_err()
}

/// Returns the input without the parts that can be left out of it.
fn shrunk(mut input: Vec<u8>, fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut len = input.len().div_ceil(2);
    while len > 0 {
        let mut at = 0;
        while at < input.len() {
            let end = (at + len).min(input.len());
            let less = [&input[..at], &input[end..]].concat();
            if fails(&less) { input = less } else { at = end }
        }
        len /= 2;
    }
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arbitrary_files_cause_no_harm() {
        let plan = Plan {
            seed: 1,
            count: 1500,
        };
        let report = run(plan).expect("runs");
        assert_eq!(report.violations, Vec::<String>::new());
        assert_eq!(report.total(), plan.count * FUNCTIONS.len() as u64);
    }

    /// Returns the driver's report on a function that does not hold.
    fn found(feed: fn(&[u8]), seeds: fn() -> Result<Vec<Vec<u8>>>) -> Vec<String> {
        let broken = Function {
            name: "broken",
            about: "broken on purpose",
            feed,
            seeds,
        };
        let plan = Plan {
            seed: 1,
            count: 20_000,
        };
        drive(&broken, plan).expect("runs").violations
    }

    #[test]
    fn a_parser_that_panics_on_a_broken_escape_is_found_and_shown_small() {
        let feed = |input: &[u8]| {
            let tilde = input.iter().position(|byte| *byte == b'~');
            // As a parser that slices without looking.
            let digits = tilde.map(|at| &input[at + 1..at + 3]);
            assert!(digits.is_none_or(|digits| digits.len() == 2));
        };
        let found = found(feed, texts::names);
        let smallest = [
            "broken does not hold for 7e",
            "broken does not hold for 7e7e",
        ];
        assert!(
            found.iter().any(|found| smallest.contains(&&**found)),
            "{found:?}"
        );
    }

    #[test]
    fn a_parser_that_counts_round_is_found() {
        let feed = |input: &[u8]| {
            let number = input.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
            assert!(number.unwrap_or_default().checked_add(16).is_some());
        };
        assert_eq!(found(feed, mutate::nothing).len(), 1);
    }

    #[test]
    fn a_reader_that_believes_a_checksum_without_comparing_it_is_found() {
        let feed = |input: &[u8]| {
            let place = readers::place();
            readers::holds(&place, input, |_| Ok(Some(input.to_vec().into())));
        };
        assert_eq!(found(feed, readers::files).len(), 1);
    }

    #[test]
    fn a_failing_input_loses_all_that_does_not_matter() {
        let input = b"a lot of text, then X, and more text with Y".to_vec();
        let fails = |input: &[u8]| input.contains(&b'X') && input.contains(&b'Y');
        assert_eq!(shrunk(input, fails), b"XY");
    }
}
