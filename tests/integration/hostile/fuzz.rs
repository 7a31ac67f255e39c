//! Calls in any order, with any arguments, against a model that has the contract and nothing else.
//!
//! A guest plays scripts of bare calls (see `tests/guest/src/script.rs`), made up from a seed, and
//! every answer must be the model's. `PERSIST_FUZZ_SCRIPTS` says how many scripts,
//! `PERSIST_FUZZ_SEED` which is the first.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use persist_host::storage::Memory;
use persist_host::wasm::{Limits, Rights, SnapshotCtx};
use persist_tests::{block_on, noise, scope};

use super::{host, try_play};

const SCRIPTS: u64 = 150;
const LINES: usize = 60;

const INLINE: usize = 2000;
const CHUNK: usize = 1000;
const STATE: usize = 3000;
const PAGE: usize = 4;
const OPEN: usize = 2;

#[test]
fn calls_in_any_order_are_answered_as_the_contract_says() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let first = number("PERSIST_FUZZ_SEED", 1);
    let count = number("PERSIST_FUZZ_SCRIPTS", SCRIPTS);
    block_on(async {
        for seed in first..first + count {
            let ctx = context(limits(), Rights::all());
            if let Some(difference) = difference(seed, ctx).await {
                panic!("{difference}");
            }
        }
    });
}

#[test]
fn a_host_that_answers_otherwise_is_found() {
    block_on(async {
        let with = |set: fn(&mut Limits)| {
            let mut limits = limits();
            set(&mut limits);
            context(limits, Rights::all())
        };
        let wrong: [(&str, &dyn Fn() -> SnapshotCtx); 5] = [
            ("a shorter page", &|| with(|limits| limits.page = 1)),
            ("a writer more", &|| with(|limits| limits.open_writers += 1)),
            ("a byte more", &|| with(|limits| limits.chunk += 1)),
            ("no quota", &|| with(|limits| limits.versions_at_rest = 3)),
            ("a right less", &|| {
                context(limits(), Rights::all().under("a"))
            }),
        ];
        for (what, ctx) in wrong {
            let mut found = false;
            for seed in 1..=40 {
                found = found || difference(seed, ctx()).await.is_some();
            }
            assert!(found, "{what}");
        }
    });
}

fn context(limits: Limits, rights: Rights) -> SnapshotCtx {
    SnapshotCtx::builder(scope(Arc::new(Memory::new())))
        .limits(limits)
        .rights(rights)
        .build()
}

/// The first answer that is not the model's.
async fn difference(seed: u64, ctx: SnapshotCtx) -> Option<String> {
    let (lines, expected) = script(seed);
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let answers = match try_play(&host(), ctx, &lines).await {
        Ok(answers) => answers,
        Err(error) => return Some(format!("seed {seed}: {error}, in\n{}", lines.join("\n"))),
    };
    if answers.len() != expected.len() {
        return Some(format!("seed {seed}: {} answers", answers.len()));
    }
    let same = |(answer, expected): (&String, &String)| match expected.as_str() {
        "invalid" => answer.starts_with("invalid "),
        expected => answer == expected,
    };
    let at = answers.iter().zip(&expected).position(|pair| !same(pair))?;
    let answer = &answers[at];
    let expected = &expected[at];
    let script = lines[..=at].join("\n");
    Some(format!(
        "seed {seed}: {answer:?}, and not {expected:?}, after\n{script}"
    ))
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.inline_size = INLINE as u64;
    limits.chunk = CHUNK as u64;
    limits.state_size = STATE as u64;
    limits.page = PAGE as u64;
    limits.open_writers = OPEN as u64;
    limits.open_readers = OPEN as u64;
    limits
}

/// A script, and what the model answers.
fn script(seed: u64) -> (Vec<String>, Vec<String>) {
    let mut chance = Chance(noise(seed, 64 * LINES).into());
    let mut model = Model::default();
    (0..LINES).map(|_| model.call(&mut chance)).unzip()
}

struct Chance(Bytes);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        u64::from(self.0.get_u16()) % n
    }

    fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Few names, so that calls meet; and some that are none.
    fn name(&mut self) -> String {
        let names = ["a", "a", "a", "b", "b", "c", "A/..", "", "a%00", "b^201"];
        self.one_of(&names).to_owned()
    }

    fn id(&mut self) -> String {
        self.one_of(&["x", "y", "z"]).to_owned()
    }

    fn size(&mut self, limit: usize) -> usize {
        let limit = limit as u64;
        (match self.below(8) {
            0 => 0,
            1 => limit,
            2 => limit + 1,
            _ => self.below(limit),
        }) as usize
    }

    fn version(&mut self) -> u64 {
        match self.below(10) {
            0 => 0,
            1 => u64::MAX,
            2 => 10_000_000_000,
            _ => 1 + self.below(8),
        }
    }

    fn maybe_version(&mut self) -> Option<u64> {
        (self.below(2) == 0).then(|| self.version())
    }

    fn expect(&mut self) -> When {
        match self.below(4) {
            0 => When::Absent,
            1 => When::Version(self.version()),
            _ => When::Any,
        }
    }
}

#[derive(Clone, Copy)]
enum When {
    Any,
    Absent,
    Version(u64),
}

impl std::fmt::Display for When {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Absent => f.write_str("absent"),
            Self::Version(version) => version.fmt(f),
        }
    }
}

/// A state, or a tombstone.
type State = Option<Vec<u8>>;
/// An error, as the test guest tells it.
type Answer = Result<String, String>;

#[derive(Default)]
struct Model {
    names: BTreeMap<String, Vec<State>>,
    writers: BTreeMap<String, Writer>,
    readers: BTreeMap<String, Vec<u8>>,
}

struct Writer {
    name: String,
    when: When,
    /// None after an error.
    state: Option<Vec<u8>>,
}

impl Model {
    /// One call, and its answer.
    fn call(&mut self, chance: &mut Chance) -> (String, String) {
        let name = chance.name();
        let (line, answer) = match chance.below(16) {
            0..=2 => {
                let size = chance.size(INLINE);
                let when = chance.expect();
                (
                    format!("save {name} {size} {when}"),
                    self.save(&name, size, when),
                )
            }
            3 => look("load", &name, chance.maybe_version(), |at| {
                self.load(&name, at)
            }),
            4 => look("stat", &name, chance.maybe_version(), |at| {
                self.stat(&name, at)
            }),
            5 => {
                let before = chance.version();
                let limit = chance.below(7);
                let answer = self.history(&name, before, limit as usize);
                (format!("history {name} {before} {limit}"), answer)
            }
            6 => {
                let prefix = chance.one_of(&["", "a", "A", "q"]);
                let limit = chance.below(7);
                let answer = self.names(prefix, &name, limit as usize);
                (format!("names {prefix} {name} {limit}"), answer)
            }
            7 => {
                let when = chance.expect();
                (format!("delete {name} {when}"), self.delete(&name, when))
            }
            8 => {
                let at = chance.version();
                (
                    format!("restore {name} {at}"),
                    self.copy(&name, Some(at), &name),
                )
            }
            9 => {
                let new = chance.name();
                look(
                    &format!("fork {name}"),
                    &new,
                    chance.maybe_version(),
                    |at| self.copy(&name, at, &new),
                )
            }
            10 | 11 => {
                let id = chance.id();
                let when = chance.expect();
                (
                    format!("open {id} {name} {when}"),
                    self.open(id, &name, when),
                )
            }
            12 => {
                let id = chance.id();
                look(
                    &format!("reader {id}"),
                    &name,
                    chance.maybe_version(),
                    |at| self.reader(id.clone(), &name, at),
                )
            }
            _ => self.stream(chance),
        };
        (line, answer.unwrap_or_else(|error| error))
    }

    /// A call of something that is open; where nothing is, another.
    fn stream(&mut self, chance: &mut Chance) -> (String, Answer) {
        let id = chance.id();
        match (
            self.writers.contains_key(&id),
            self.readers.contains_key(&id),
        ) {
            (true, reads) if !reads || chance.below(3) > 0 => match chance.below(4) {
                0 => (format!("finish {id}"), self.finish(&id)),
                1 if chance.below(3) == 0 => {
                    self.writers.remove(&id);
                    (format!("abandon {id}"), Ok("abandoned".into()))
                }
                _ => {
                    let size = chance.size(CHUNK);
                    (format!("write {id} {size}"), self.write(&id, size))
                }
            },
            (_, true) => match chance.below(5) {
                0 => {
                    self.readers.remove(&id);
                    (format!("close {id}"), Ok("closed".into()))
                }
                _ => {
                    let offset = if chance.below(9) == 0 {
                        u64::MAX
                    } else {
                        chance.size(STATE) as u64
                    };
                    let len = chance.size(CHUNK);
                    (
                        format!("read {id} {offset} {len}"),
                        self.read(&id, offset, len),
                    )
                }
            },
            _ => ("stat a".into(), self.stat("a", None)),
        }
    }

    fn head(&self, name: &str) -> Option<u64> {
        self.names.get(name).map(|versions| versions.len() as u64)
    }

    /// A version that is there, and its state; none where nothing was saved.
    fn find(&self, name: &str, at: Option<u64>) -> Result<Option<(u64, &State)>, String> {
        check(name)?;
        let versions = self.names.get(name).map_or(&[][..], Vec::as_slice);
        let found = |version: u64| {
            let index = usize::try_from(version.checked_sub(1)?).ok()?;
            Some((version, versions.get(index)?))
        };
        match at {
            Some(at) => found(at).map(Some).ok_or_else(|| "not-found".into()),
            None => Ok(found(versions.len() as u64)),
        }
    }

    fn holds(&self, name: &str, when: When) -> Result<(), String> {
        let head = self.find(name, None)?;
        let holds = match when {
            When::Any => true,
            When::Absent => head.is_none_or(|(_, state)| state.is_none()),
            When::Version(version) => self.head(name) == Some(version),
        };
        let head = head.map_or("none".into(), |(version, _)| version.to_string());
        if holds {
            Ok(())
        } else {
            Err(format!("conflict {head}"))
        }
    }

    fn make(&mut self, name: &str, state: State) -> Answer {
        let versions = self.names.entry(name.into()).or_default();
        versions.push(state);
        Ok(format!("version {}", versions.len()))
    }

    fn save(&mut self, name: &str, size: usize, when: When) -> Answer {
        if size > INLINE {
            return Err(format!("too-large {size}"));
        }
        self.holds(name, when)?;
        self.make(name, Some(bytes(size)))
    }

    fn load(&self, name: &str, at: Option<u64>) -> Answer {
        match self.find(name, at)? {
            Some((_, Some(state))) if state.len() > INLINE => {
                Err(format!("too-large {}", state.len()))
            }
            Some((version, Some(state))) => Ok(format!("version {version} {}", described(state))),
            _ => Ok("none".into()),
        }
    }

    fn stat(&self, name: &str, at: Option<u64>) -> Answer {
        Ok(match self.find(name, at)? {
            Some((version, Some(state))) => format!("version {version} saved size {}", state.len()),
            Some((version, None)) => format!("version {version} deleted size 0"),
            None => "none".into(),
        })
    }

    fn history(&self, name: &str, before: u64, limit: usize) -> Answer {
        check(name)?;
        if limit == 0 {
            return Err("invalid".into());
        }
        let head = self.head(name).unwrap_or(0);
        let versions = (1..=head).rev().filter(|version| *version < before);
        let page: Vec<_> = versions
            .take(limit.min(PAGE))
            .map(|v| v.to_string())
            .collect();
        Ok(format!("[{}]", page.join(" ")))
    }

    fn names(&self, prefix: &str, after: &str, limit: usize) -> Answer {
        if limit == 0 {
            return Err("invalid".into());
        }
        check(after)?;
        // As they are sorted at rest, where a capital letter is `~` and two digits.
        let key = |name: &str| name.replace('A', "~41").replace('/', "~2f");
        let mut names: Vec<_> = self
            .names
            .keys()
            .filter(|name| name.starts_with(prefix))
            .collect();
        names.sort_by_key(|name| key(name));
        let page: Vec<_> = names
            .into_iter()
            .filter(|name| key(name) > key(after))
            .take(limit.min(PAGE))
            .collect();
        let page: Vec<_> = page.iter().map(|name| name.as_str()).collect();
        Ok(format!("[{}]", page.join(" ")))
    }

    fn delete(&mut self, name: &str, when: When) -> Answer {
        self.holds(name, when)?;
        match self.find(name, None)? {
            Some((_, Some(_))) => self.make(name, None),
            _ => Err("not-found".into()),
        }
    }

    fn copy(&mut self, name: &str, at: Option<u64>, new: &str) -> Answer {
        let found = self.find(name, at)?.map(|(_, state)| state.clone());
        check(new)?;
        match found.flatten() {
            Some(state) => self.make(new, Some(state)),
            None => Err("not-found".into()),
        }
    }

    fn open(&mut self, id: String, name: &str, when: When) -> Answer {
        if self.writers.len() >= OPEN {
            return Err(format!("quota-exceeded open-writers {OPEN}"));
        }
        self.holds(name, when)?;
        let when = match (when, self.head(name)) {
            (When::Any, None) => When::Absent,
            (When::Any, Some(head)) => When::Version(head),
            (when, _) => when,
        };
        let name = name.into();
        let state = Some(Vec::new());
        self.writers.insert(id, Writer { name, when, state });
        Ok("open".into())
    }

    fn write(&mut self, id: &str, size: usize) -> Answer {
        let writer = self.writers.get_mut(id).expect("is open");
        let mut state = writer.state.take().ok_or("invalid")?;
        if size > CHUNK {
            return Err(format!("quota-exceeded chunk {CHUNK}"));
        }
        state.extend(bytes(size));
        if state.len() > STATE {
            return Err(format!("quota-exceeded state-size {STATE}"));
        }
        writer.state = Some(state);
        Ok("written".into())
    }

    fn finish(&mut self, id: &str) -> Answer {
        let writer = self.writers.remove(id).expect("is open");
        let state = writer.state.ok_or("invalid")?;
        self.holds(&writer.name, writer.when)?;
        self.make(&writer.name, Some(state))
    }

    fn reader(&mut self, id: String, name: &str, at: Option<u64>) -> Answer {
        if self.readers.len() >= OPEN {
            return Err(format!("quota-exceeded open-readers {OPEN}"));
        }
        let Some((version, Some(state))) = self.find(name, at)? else {
            return Ok("none".into());
        };
        let state = state.clone();
        self.readers.insert(id, state);
        Ok(format!("version {version}"))
    }

    fn read(&self, id: &str, offset: u64, len: usize) -> Answer {
        if len == 0 {
            return Err("invalid".into());
        }
        let state = &self.readers[id];
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(state.len());
        let end = start.saturating_add(len.min(CHUNK)).min(state.len());
        Ok(described(&state[start..end]))
    }
}

fn look(
    call: &str,
    name: &str,
    at: Option<u64>,
    answer: impl FnOnce(Option<u64>) -> Answer,
) -> (String, Answer) {
    let line = match at {
        Some(at) => format!("{call} {name} {at}"),
        None => format!("{call} {name}"),
    };
    (line, answer(at))
}

fn check(name: &str) -> Result<(), String> {
    match name {
        "" | "a%00" | "b^201" => Err("invalid".into()),
        _ => Ok(()),
    }
}

/// Returns the bytes that the test guest generates.
fn bytes(len: usize) -> Vec<u8> {
    let byte = |i: u64| (i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8;
    (0..len as u64).map(byte).collect()
}

fn described(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!("size {} sum {sum:016x}", bytes.len())
}
