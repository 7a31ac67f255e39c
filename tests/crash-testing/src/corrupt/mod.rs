//! Damages stored files in every way that disks do, and reads what is left.
//!
//! Every [golden file](crate::golden) is damaged in each place where it can be. A load of what is
//! left must say that it is corrupt: never another state, never "nothing is saved", never a panic.
//! Other ways of reading verify less, since they read less; none may give a wrong byte.
//!
//! A file at another version's key is misplaced: no way of reading gives its state.

mod damage;
mod hostile;

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use persist_host::snapshot::{Error, Snapshot};
use persist_host::storage::Key;

use crate::fixture_store::{FixtureStore, Place};
use crate::golden::{self, Golden};
use crate::malformed_file::Forge;
use crate::{Plan, Report, Rng, Target};
use damage::Damage;

/// Every damage to every file; a smaller count limits the damages of each kind for each file.
pub const TARGET: Target = Target {
    name: "corrupt",
    about: "damages stored files in every place, and expects to be told",
    count: u32::MAX as u64,
    run,
};

/// Ways of reading that cost more than they find are tried on one in this many damages. Odd, so
/// that each bit of a byte has its turn.
const SELDOM: usize = 7;

/// Violations that are printed: the thousandth says nothing that the first did not.
const MAX_VIOLATIONS: usize = 20;

/// Outcome of one way of reading a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It says that the file is damaged.
    Corrupt,
    /// It gave a state, or said that the name was deleted.
    State(Option<Bytes>),
    /// Something else.
    Else(String),
}

/// Damage that a way of reading has to find. No way may return a wrong byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finds {
    /// Whatever was done to any byte.
    Everything,
    /// Everything that was done to any byte, in files that hold a state. Exception: the file
    /// without its whole trailer is the plain gzip of the same state.
    EverythingInStatesAndPlain,
}

/// A way of reading a file.
struct Way {
    name: &'static str,
    finds: Finds,
    /// Tried on one in this many damages.
    every: usize,
    read: fn(&FixtureStore, &Golden, &Place) -> Result<Outcome>,
}

/// The product's ways.
const WAYS: [Way; 5] = [
    Way {
        name: "load",
        finds: Finds::Everything,
        every: 1,
        read: |shelf, _, place| {
            let state = |snapshot: Snapshot| snapshot.state;
            Ok(outcome(shelf.load(place).map(|found| found.map(state))))
        },
    },
    Way {
        name: "verify",
        finds: Finds::Everything,
        every: 1,
        read: |shelf, golden, place| {
            let verified = match shelf.verify(place) {
                Ok(verified) => verified.context("nothing is there")?,
                Err(error) => return Ok(outcome(Err(error))),
            };
            let same = serde_json::to_value(&verified.info)? == golden.info;
            Ok(if same {
                Outcome::State(golden.state.clone())
            } else {
                Outcome::Else(format!("verified as {verified:?}"))
            })
        },
    },
    Way {
        name: "fork",
        finds: Finds::Everything,
        every: SELDOM,
        read: |shelf, _, place| Ok(outcome(shelf.fork(place))),
    },
    Way {
        name: "a reader from front to back",
        finds: Finds::Everything,
        every: SELDOM,
        read: |shelf, golden, place| {
            let state = golden.state.clone().unwrap_or_default();
            Ok(match shelf.read(place, 300_000) {
                Err((pieces, _)) if !state.starts_with(&pieces) => {
                    Outcome::Else("wrong bytes before the error".into())
                }
                Err((_, error)) => outcome(Err(error)),
                Ok(read) => Outcome::State(read.map(Into::into)),
            })
        },
    },
    Way {
        name: "the adapter",
        finds: Finds::EverythingInStatesAndPlain,
        every: SELDOM,
        read: |shelf, golden, _| {
            if golden.state.is_none() {
                // An adapter writes no tombstones.
                return Ok(Outcome::State(None));
            }
            let key = "golden/damaged.gz";
            shelf.put(&Key::new(key)?, shelf.file(&golden.key)?)?;
            Ok(match shelf.wait(shelf.adapter.load(key)) {
                Err(Error::NotFound(_)) => Outcome::State(None),
                loaded => outcome(loaded.map(Some)),
            })
        },
    },
];

fn outcome(read: Result<Option<Bytes>, Error>) -> Outcome {
    match read {
        Ok(state) => Outcome::State(state),
        // A splice may end in the whole trailer of another file.
        Err(Error::Corrupt { .. } | Error::Misplaced { .. }) => Outcome::Corrupt,
        Err(error) => Outcome::Else(error.to_string()),
    }
}

impl Way {
    /// Returns true if this way of reading has to find any change to files such as these.
    fn finds_all(&self, of: &[&Golden]) -> bool {
        match self.finds {
            Finds::Everything => true,
            Finds::EverythingInStatesAndPlain => of.iter().all(|golden| golden.state.is_some()),
        }
    }

    /// Reads a file that is, or was made of, some golden files; what is wrong with the outcome, if
    /// anything is.
    fn judge(&self, shelf: &FixtureStore, of: &[&Golden], file: Vec<u8>) -> Option<String> {
        let golden = of[0];
        let Some(place) = &golden.place else {
            return Some("it is no version".into());
        };
        let damaged = file != golden.bytes;
        let plain =
            self.finds == Finds::EverythingInStatesAndPlain && is_state_alone(&file, golden);
        let read = || {
            shelf.put(&golden.key, file.into())?;
            (self.read)(shelf, golden, place)
        };
        let outcome = match catch_unwind(AssertUnwindSafe(read)) {
            Err(_) => return Some("panics".into()),
            Ok(Err(error)) => return Some(format!("cannot be tried: {error:#}")),
            Ok(Ok(outcome)) => outcome,
        };
        // Who reads only a part of a splice, and that part is of one file, reads what someone
        // saved.
        let sound = |golden: &&Golden| outcome == Outcome::State(golden.state.clone());
        let same = sound(&golden);
        match &outcome {
            Outcome::Corrupt if damaged => None,
            Outcome::Corrupt => Some("an intact file is corrupt".into()),
            Outcome::State(_) if same && (plain || !damaged) => None,
            Outcome::State(_) if !self.finds_all(of) && of.iter().any(sound) => None,
            Outcome::State(_) if same => Some("the damage is not noticed".into()),
            Outcome::State(None) => Some("the state is said to be deleted".into()),
            Outcome::State(Some(state)) => Some(format!("another state, of {} bytes", state.len())),
            Outcome::Else(what) => Some(what.clone()),
        }
    }
}

/// Returns true if a file is the whole first member of another file, which is gzip by itself, and
/// has nothing of its trailer.
fn is_state_alone(file: &[u8], golden: &Golden) -> bool {
    file.len() < golden.bytes.len()
        && golden.bytes.starts_with(file)
        && Forge::read(&golden.bytes).is_ok_and(|forge| forge.member_len() == file.len())
}

fn run(plan: Plan) -> Result<Report> {
    let files = golden::versions()?;
    let mut report = damages(plan, &files, &WAYS)?;
    report.add(swaps(&files)?);
    report.add(hostile::run()?);
    Ok(report)
}

/// Damages every file, on all processors.
fn damages(plan: Plan, files: &[Golden], ways: &[Way]) -> Result<Report> {
    let mut report = Report::default();
    let mut rng = Rng::with_seed(plan.seed);
    for (n, golden) in files.iter().enumerate() {
        let shelf = FixtureStore::new()?;
        for way in ways {
            if let Some(wrong) = way.judge(&shelf, &[golden], golden.bytes.to_vec()) {
                violate(&mut report, way, golden, &"nothing", &wrong);
            }
        }
        let damages = Damage::all(n, files, plan.count, &mut rng);
        let next = AtomicUsize::new(0);
        let part = || damage_some(n, files, &damages, ways, &next);
        let parts: Vec<Result<Report>> = std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(part)).collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("the laboratory itself panicked")))
            };
            threads.into_iter().map(join).collect()
        });
        for part in parts {
            report.add(part?);
        }
    }
    report.tried.sort();
    report.violations.sort();
    report.violations.truncate(MAX_VIOLATIONS);
    Ok(report)
}

/// Takes damages until none is left.
fn damage_some(
    n: usize,
    files: &[Golden],
    damages: &[Damage],
    ways: &[Way],
    next: &AtomicUsize,
) -> Result<Report> {
    let mut report = Report::default();
    let mut tried = BTreeMap::<String, u64>::new();
    let shelf = FixtureStore::new()?;
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        let Some(&damage) = damages.get(at) else {
            break;
        };
        let Some(damaged) = damage.of(n, files) else {
            continue;
        };
        let other = damage.other().map(|other| &files[other]);
        let of: Vec<_> = [&files[n]].into_iter().chain(other).collect();
        for way in ways.iter().filter(|way| at.is_multiple_of(way.every)) {
            let kind = match way.name {
                "load" => damage.kind().to_owned(),
                "verify" => "all these, by verify".to_owned(),
                name => format!("one in {} of these, by {name}", way.every),
            };
            *tried.entry(kind).or_default() += 1;
            if let Some(wrong) = way.judge(&shelf, &of, damaged.clone()) {
                violate(&mut report, way, &files[n], &damage, &wrong);
            }
        }
    }
    report.tried = tried.into_iter().collect();
    Ok(report)
}

fn violate(report: &mut Report, way: &Way, golden: &Golden, what: &dyn fmt::Display, wrong: &str) {
    if report.violations.len() < MAX_VIOLATIONS {
        let file = &golden.file;
        let way = way.name;
        let violation = format!("{file}, {what}, {way}: {wrong}");
        report.violations.push(violation);
    }
}

/// Puts every file at the key of every other. No way of reading may give its state.
fn swaps(files: &[Golden]) -> Result<Report> {
    let mut report = Report::default();
    for (there, file) in files.iter().flat_map(|a| files.iter().map(move |b| (a, b))) {
        let (Some(place), false) = (&there.place, there.key == file.key) else {
            continue;
        };
        let shelf = FixtureStore::new()?;
        shelf.put(&there.key, file.bytes.clone())?;
        report.tried("files at another version's key, which no way reads", 1);
        let reads = [
            ("load", shelf.load(place).map(drop)),
            ("verify", shelf.verify(place).map(drop)),
            ("fork", shelf.fork(place).map(drop)),
            (
                "reader",
                shelf
                    .read(place, 300_000)
                    .map(drop)
                    .map_err(|(_, error)| error),
            ),
        ];
        for (way, read) in reads {
            if !matches!(read, Err(Error::Misplaced { .. })) {
                let file = &file.file;
                let key = &there.key;
                let violation = format!("{file} at {key}, {way}: {read:?}");
                report.violations.push(violation);
            }
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture_store::zcat;

    const BOUNDED: Plan = Plan {
        seed: 1,
        count: 400,
    };

    #[test]
    fn damage_is_always_found() {
        let report = run(BOUNDED).expect("runs");
        assert_eq!(report.violations, Vec::<String>::new());
        assert!(report.total() > 10_000, "{report}");
    }

    #[test]
    fn every_bit_and_every_length_of_a_small_file_counts() {
        let files = golden::versions().expect("golden files");
        let small: Vec<_> = files
            .into_iter()
            .filter(|golden| golden.bytes.len() < 700)
            .collect();
        let bytes: usize = small.iter().map(|golden| golden.bytes.len()).sum();
        let plan = Plan {
            count: TARGET.count,
            ..BOUNDED
        };
        let report = damages(plan, &small, &WAYS).expect("runs");
        assert_eq!(report.violations, Vec::<String>::new());
        for (kind, count) in [("bits flipped", bytes * 8), ("truncations", bytes)] {
            let row = (kind.to_owned(), count as u64);
            assert!(report.tried.contains(&row), "{row:?}\n{report}");
        }
    }

    /// Returns the laboratory's report on a way of reading that is broken.
    fn found(read: fn(&FixtureStore, &Golden, &Place) -> Result<Outcome>) -> String {
        let broken = Way {
            name: "broken",
            finds: Finds::Everything,
            every: 1,
            read,
        };
        let files = golden::versions().expect("golden files");
        let plan = Plan {
            count: 50,
            ..BOUNDED
        };
        let report = damages(plan, &files, &[broken]).expect("runs");
        report.violations.join("\n")
    }

    #[test]
    fn a_reader_that_trusts_the_trailer_is_found() {
        let found = found(|shelf, golden, _| {
            let file = shelf.file(&golden.key)?;
            Ok(match zcat(&file) {
                Ok(_) if golden.state.is_none() => Outcome::State(None),
                Ok(state) => Outcome::State(Some(state.into())),
                Err(_) => Outcome::Corrupt,
            })
        });
        assert!(found.contains("the damage is not noticed"), "{found}");
    }

    #[test]
    fn a_reader_that_trusts_the_length_alone_is_found() {
        let found = found(|shelf, golden, _| {
            let file = shelf.file(&golden.key)?;
            Ok(if file == golden.bytes {
                Outcome::State(golden.state.clone())
            } else if file.len() == golden.bytes.len() {
                Outcome::State(Some("whatever is there".into()))
            } else {
                Outcome::Corrupt
            })
        });
        assert!(found.contains("another state"), "{found}");
    }

    #[test]
    fn a_reader_that_takes_damage_for_nothing_saved_is_found() {
        let found = found(|shelf, golden, _| {
            let file = shelf.file(&golden.key)?;
            Ok(Outcome::State(
                golden.state.clone().filter(|_| file == golden.bytes),
            ))
        });
        assert!(found.contains("said to be deleted"), "{found}");
    }

    #[test]
    fn a_reader_that_panics_is_found() {
        let found = found(|shelf, golden, _| {
            let file = shelf.file(&golden.key)?;
            assert!(file.len() >= 90, "no room for a footer");
            Ok(if file == golden.bytes {
                Outcome::State(golden.state.clone())
            } else {
                Outcome::Corrupt
            })
        });
        assert!(found.contains("panics"), "{found}");
    }

    #[test]
    fn a_reader_that_refuses_everything_is_found() {
        let found = found(|_, _, _| Ok(Outcome::Corrupt));
        assert!(found.contains("an intact file is corrupt"), "{found}");
    }
}
