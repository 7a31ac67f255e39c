//! Copies that are cut short and made again, and copies of what was damaged in between.
//!
//! A copy is cut short at every call that it makes, on either side: before the call, or after it
//! and before its answer; and at every call to a local disk. Then it is made again. All must
//! arrive, byte for byte, and no version may ever be reported as the same that is not. After a
//! whole copy, bits are flipped on either side, and the copy is made again: none of them may be
//! vouched for.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use fastrand::Rng;
use persist_host::conformance::{Faulty, noise};
use persist_host::snapshot::{CopyOptions, CopyOutcome, Expect, SaveOptions, Store, Version};
use persist_host::storage::{Call, Entry, Key, List, Local, Memory, ReadRange, Storage, Watch};

use crate::steps::runtime;
use crate::version_key::version_file;
use crate::{Plan, Report, Target, folder};

/// The target, as the laboratory runs it.
pub const TARGET: Target = Target {
    name: "copy",
    about: "copies cut short at every call and made again, and bits flipped before a second copy",
    count: 2000,
    run,
};

const AGENT: &str = "bot";

/// Names that are copied: a history with a tombstone and a pin, and a state that is sent in parts.
const NAMES: [&str; 2] = ["log", "memory"];

/// Bytes of a state that is sent in parts. They do not shrink.
const LARGE: usize = 9 << 20;

fn run(plan: Plan) -> Result<Report> {
    let mut report = interrupted(COPY)?;
    report.add(interrupted_on_disk(COPY)?);
    report.add(damaged(plan.seed, plan.count, COPY)?);
    Ok(report)
}

/// Versions that a copy vouched for, by name: they are the same on both sides.
type Vouched = Vec<(&'static str, Version)>;

/// Copies all names to another store; says what it vouched for, and how it ended.
type Copy = fn(&Store, &Store) -> (Vouched, Result<()>);

const COPY: Copy = |from, to| {
    let mut vouched = Vouched::new();
    let mut left = Vec::new();
    let copied = runtime().and_then(|runtime| {
        runtime.block_on(async {
            for name in NAMES {
                let mut options = CopyOptions::default();
                options.read_data = true;
                let each = |copied| match copied {
                    CopyOutcome::Made(info) | CopyOutcome::Same { info, read: true } => {
                        vouched.push((name, info.version));
                    }
                    other => left.push(format!("{name}: {other:?}")),
                };
                let scope = from.scope(AGENT, None)?;
                scope.copy_to(name, to, options, each).await?;
            }
            Ok(())
        })
    });
    let whole = copied.and_then(|()| {
        anyhow::ensure!(left.is_empty(), "not copied: {}", left.join("; "));
        Ok(())
    });
    (vouched, whole)
};

/// A store with something of every kind.
fn source() -> Result<Memory> {
    let memory = Memory::new();
    let scope = Store::new(Arc::new(memory.clone())).scope(AGENT, None)?;
    runtime()?.block_on(async {
        for n in 1..=3 {
            let state = noise(n, 100 * n as usize);
            scope.save("memory", state, SaveOptions::default()).await?;
        }
        scope.delete("memory", Expect::Any).await?;
        scope.restore("memory", 2, Expect::Any).await?;
        scope.pin("memory", 2).await?;
        let large = noise(9, LARGE);
        scope.save("log", large, SaveOptions::default()).await?;
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(memory)
}

fn store(storage: impl Storage + 'static) -> Store {
    Store::new(Arc::new(storage))
}

/// Every object of a store but its own, by key.
fn objects(storage: &dyn Storage) -> Result<BTreeMap<String, Bytes>> {
    runtime()?.block_on(async {
        let mut objects = BTreeMap::new();
        let mut dirs = vec![String::new()];
        while let Some(dir) = dirs.pop() {
            let list = List::new(&dir).with_limit(10_000);
            for entry in storage.list(&list).await?.entries {
                let path = match dir.as_str() {
                    "" => entry.name().to_owned(),
                    dir => format!("{dir}/{}", entry.name()),
                };
                match entry {
                    Entry::Dir(name) if name == "~" && dir.is_empty() => {}
                    Entry::Dir(_) => dirs.push(path),
                    Entry::Object(_) => {
                        let key = Key::new(&path)?;
                        let part = storage.read(&key, ReadRange::Suffix(u64::MAX)).await?;
                        objects.insert(path, part.bytes);
                    }
                }
            }
        }
        Ok(objects)
    })
}

/// The key of a version.
fn key_of(name: &str, version: Version) -> String {
    format!("{AGENT}/~/{name}/{}", version_file(version))
}

/// Returns what is wrong with a copy that vouched for something.
fn false_proof(
    vouched: &Vouched,
    from: &BTreeMap<String, Bytes>,
    to: &BTreeMap<String, Bytes>,
) -> Option<String> {
    let is_false = |(name, version): &&(&'static str, Version)| {
        let key = key_of(name, *version);
        !from.contains_key(&key) || from.get(&key) != to.get(&key)
    };
    let (name, version) = vouched.iter().find(is_false)?;
    Some(format!(
        "version {version} of {name} is vouched for and differs"
    ))
}

/// Which side of a copy is cut off.
#[derive(Clone, Copy, Debug)]
enum Side {
    From,
    To,
}

/// Cuts a copy short at every call to either storage, and makes it again.
fn interrupted(copy: Copy) -> Result<Report> {
    let from = source()?;
    let expected = objects(&from)?;
    let mut report = Report::default();
    for side in [Side::From, Side::To] {
        for made in [false, true] {
            for at in 0.. {
                let to = Memory::new();
                let dying = |memory: &Memory, is_dying: bool| {
                    let faulty = Faulty::new(Arc::new(memory.clone()));
                    if is_dying {
                        faulty.die_at(at, made);
                    }
                    store(faulty)
                };
                let first = dying(&from, matches!(side, Side::From));
                let second = dying(&to, matches!(side, Side::To));
                let (vouched, ended) = copy(&first, &second);
                report.tried("copies cut short and made again", 1);
                let place = |what: String| format!("{side:?}, call {at}, made {made}: {what}");
                let wrong = false_proof(&vouched, &expected, &objects(&to)?);
                report.violations.extend(wrong.map(place));
                let again = copy_again(copy, &store(from.clone()), &to, &expected)?;
                report.violations.extend(again.map(place));
                if ended.is_ok() {
                    break;
                }
            }
        }
    }
    Ok(report)
}

/// Returns what is wrong after a copy that was cut short is made again.
fn copy_again(
    copy: Copy,
    from: &Store,
    to: &(impl Storage + Clone + 'static),
    expected: &BTreeMap<String, Bytes>,
) -> Result<Option<String>> {
    let (vouched, ended) = copy(from, &store(to.clone()));
    let there = objects(to)?;
    Ok(match ended {
        Err(error) => Some(format!("the second copy failed: {error:#}")),
        Ok(()) if there != *expected => {
            let missing = expected
                .keys()
                .filter(|key| there.get(*key) != expected.get(*key));
            let missing: Vec<_> = missing.collect();
            Some(format!("after the second copy these differ: {missing:?}"))
        }
        Ok(()) => {
            let versions = expected.keys().filter(|key| key.ends_with(".gz")).count();
            let all = (vouched.len() != versions)
                .then(|| format!("{} of {versions} versions are vouched for", vouched.len()));
            all.or_else(|| false_proof(&vouched, expected, &there))
        }
    })
}

/// Fails at every call after a number of calls, like a dead process.
#[derive(Debug)]
struct Dying {
    left: AtomicUsize,
}

impl Watch for Dying {
    fn before(&self, _: Call<'_>) -> io::Result<()> {
        let less = |left: usize| left.checked_sub(1);
        let lived = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        lived
            .map(drop)
            .map_err(|_| io::Error::other("the process is dead"))
    }

    fn after(&self, _: Call<'_>, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Cuts a copy short at every call to the local disk that it goes to, and makes it again.
fn interrupted_on_disk(copy: Copy) -> Result<Report> {
    let from = source()?;
    let expected = objects(&from)?;
    let mut report = Report::default();
    for at in 0.. {
        let base = folder()?;
        let root = base.path().join("store");
        let left = AtomicUsize::new(at);
        let dying = Local::watched(&root, Arc::new(Dying { left }));
        let (vouched, ended) = copy(&store(from.clone()), &store(dying));
        report.tried("copies to a disk cut short and made again", 1);
        let place = |what: String| format!("call {at} to the disk: {what}");
        let local = Local::new(&root);
        let wrong = false_proof(&vouched, &expected, &objects(&local)?);
        report.violations.extend(wrong.map(place));
        let again = copy_again(copy, &store(from.clone()), &local, &expected)?;
        report.violations.extend(again.map(place));
        if ended.is_ok() {
            break;
        }
    }
    Ok(report)
}

/// Flips a bit of one version on one side after a whole copy, and copies again, `count` times.
fn damaged(seed: u64, count: u64, copy: Copy) -> Result<Report> {
    let mut rng = Rng::with_seed(seed);
    let mut report = Report::default();
    let from = source()?;
    let to = Memory::new();
    let (_, copied) = copy(&store(from.clone()), &store(to.clone()));
    copied.context("a first copy")?;
    let whole = objects(&from)?;
    let small = |(key, bytes): &(&String, &Bytes)| key.ends_with(".gz") && bytes.len() < LARGE;
    let small: Vec<_> = whole.iter().filter(small).collect();
    for _ in 0..count {
        let (key, bytes) = small[rng.usize(..small.len())];
        let (side, memory) = if rng.bool() {
            (Side::From, &from)
        } else {
            (Side::To, &to)
        };
        let bit = rng.usize(..bytes.len() * 8);
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        put(memory, key, flipped.into())?;
        let (vouched, _) = copy(&store(from.clone()), &store(to.clone()));
        report.tried("bits flipped before a second copy", 1);
        let vouched = vouched.iter().map(|(name, version)| key_of(name, *version));
        if vouched.into_iter().any(|vouched| vouched == **key) {
            report.violations.push(format!(
                "bit {bit} of {key} was flipped ({side:?}, seed {seed}), and it is vouched for"
            ));
        }
        put(memory, key, bytes.clone())?;
    }
    Ok(report)
}

/// Replaces an object.
fn put(memory: &Memory, key: &str, bytes: Bytes) -> Result<()> {
    let key = Key::new(key)?;
    runtime()?.block_on(async {
        memory.delete(&key).await?;
        Ok(memory.create(&key, vec![bytes]).await?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_cut_short_and_made_again_is_whole() {
        for report in [interrupted(COPY), interrupted_on_disk(COPY)] {
            let report = report.expect("copies are made");
            assert_eq!(report.violations, [""; 0]);
            assert!(report.total() > 20, "{report}");
        }
    }

    #[test]
    fn no_copy_vouches_for_what_was_damaged() {
        let report = damaged(1, 300, COPY).expect("copies are made");
        assert_eq!(report.violations, [""; 0]);
    }

    /// Every version of a name that a store lists.
    fn versions(store: &Store, name: &str) -> Result<Vec<Version>> {
        let scope = store.scope(AGENT, None)?;
        Ok(runtime()?.block_on(scope.versions(name, None, 1000))?)
    }

    #[test]
    fn a_copy_that_vouches_for_what_it_only_listed_is_found() {
        let planted: Copy = |from, to| {
            let (mut vouched, copied) = COPY(from, to);
            vouched.clear();
            for name in NAMES {
                let there = versions(to, name).unwrap_or_default();
                vouched.extend(there.into_iter().map(|version| (name, version)));
            }
            (vouched, copied)
        };
        let report = damaged(1, 20, planted).expect("copies are made");
        assert!(!report.violations.is_empty(), "it is not found");
    }

    #[test]
    fn a_copy_that_takes_a_begun_copy_for_a_whole_one_is_found() {
        let planted: Copy = |from, to| {
            let is_begun = |name| versions(to, name).is_ok_and(|there| !there.is_empty());
            if NAMES.into_iter().all(is_begun) {
                return (Vouched::new(), Ok(()));
            }
            COPY(from, to)
        };
        let report = interrupted(planted).expect("copies are made");
        assert!(!report.violations.is_empty(), "it is not found");
    }
}
