//! A scenario that is itself written down by the test: bare calls, one after the other, with
//! writers and readers that are kept under names. So a test can ask in any order, for anything,
//! without a guest of its own.
//!
//! A line is words between spaces. In a word, `%0a` is a byte and `a^1000` is a thousand times `a`.
//! Each line has one answer, and an error is an answer, too.

use std::collections::BTreeMap;

use persist_guest::__private::persist::snapshot::{store, types};
use persist_guest::{Error, Info};

use crate::store::expect;
use crate::{Answer, Args, Failure, bytes, describe_bytes, describe_error, number};

/// Writers and readers that the script has open, by the names that it gave.
#[derive(Default)]
struct Open {
    writers: BTreeMap<String, store::Writer>,
    readers: BTreeMap<String, store::Reader>,
}

pub(crate) fn script(lines: Args<'_>) -> Answer {
    let mut open = Open::default();
    let answers: Result<Vec<_>, _> = lines.iter().map(|line| open.play(line)).collect();
    Ok(answers?.join("\n"))
}

impl Open {
    fn play(&mut self, line: &str) -> Result<String, Failure> {
        let words: Vec<String> = line.split(' ').map(word).collect::<Result<_, _>>()?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["flood", count, ..] => self.flood(number(count)?, line),
            _ => Ok(match self.call(&words) {
                Ok(answer) => answer,
                Err(Failure::Store(error)) => describe_error(&error),
                Err(failure) => return Err(failure),
            }),
        }
    }

    /// A line, again and again; `#` in it is the number of the round. Answers how many succeeded,
    /// and the last error.
    fn flood(&mut self, count: u64, line: &str) -> Result<String, Failure> {
        let line = line.splitn(3, ' ').nth(2).ok_or(Failure::Usage)?;
        let mut made = 0;
        let mut last = String::from("no error");
        for round in 0..count {
            let line = line.replace('#', &round.to_string());
            let words: Vec<String> = line.split(' ').map(word).collect::<Result<_, _>>()?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match self.call(&words) {
                Ok(_) => made += 1,
                Err(Failure::Store(error)) => last = describe_error(&error),
                Err(failure) => return Err(failure),
            }
        }
        Ok(format!("{made} then {last}"))
    }

    fn call(&mut self, words: &[&str]) -> Result<String, Failure> {
        match *words {
            ["save", name, size] => save(name, size, types::Expect::Any),
            ["save", name, size, when] => save(name, size, expect(when)?.into()),
            ["labels", name, count, value] => labels(name, number(count)?, value),
            ["label", name, key, value] => made(store::save(
                name,
                b"",
                &options(types::Expect::Any, vec![(key.into(), value.into())]),
            )),
            ["load", name] => load(name, None),
            ["load", name, at] => load(name, Some(number(at)?)),
            ["stat", name] => stat(name, None),
            ["stat", name, at] => stat(name, Some(number(at)?)),
            ["history", name, limit] => history(name, None, number(limit)?),
            ["history", name, before, limit] => {
                history(name, Some(number(before)?), number(limit)?)
            }
            ["names", prefix, limit] => names(prefix, None, number(limit)?),
            ["names", prefix, after, limit] => names(prefix, Some(after), number(limit)?),
            ["delete", name] => made(store::delete(name, types::Expect::Any)),
            ["delete", name, when] => made(store::delete(name, expect(when)?.into())),
            ["restore", name, at] => made(store::restore(name, number(at)?, types::Expect::Any)),
            ["fork", name, new] => made(store::fork(name, None, new, types::Expect::Any)),
            ["fork", name, new, at] => made(store::fork(
                name,
                Some(number(at)?),
                new,
                types::Expect::Any,
            )),
            _ => self.stream(words),
        }
    }

    fn stream(&mut self, words: &[&str]) -> Result<String, Failure> {
        match *words {
            ["open", id, name] => self.open(id, name, types::Expect::Any),
            ["open", id, name, when] => self.open(id, name, expect(when)?.into()),
            ["write", id, size] => {
                let writer = self.writers.get(id).ok_or(Failure::Usage)?;
                writer
                    .write(&bytes(0, number(size)?))
                    .map_err(Error::from)?;
                Ok("written".into())
            }
            ["finish", id] => made(store::Writer::finish(
                self.writers.remove(id).ok_or(Failure::Usage)?,
            )),
            ["abandon", id] => {
                drop(self.writers.remove(id).ok_or(Failure::Usage)?);
                Ok("abandoned".into())
            }
            ["reader", id, name] => self.reader(id, name, None),
            ["reader", id, name, at] => self.reader(id, name, Some(number(at)?)),
            ["read", id, offset, len] => {
                let reader = self.readers.get(id).ok_or(Failure::Usage)?;
                let chunk = reader.read(number(offset)?, number(len)?);
                Ok(describe_bytes(&chunk.map_err(Error::from)?))
            }
            ["close", id] => {
                drop(self.readers.remove(id).ok_or(Failure::Usage)?);
                Ok("closed".into())
            }
            _ => Err(Failure::Usage),
        }
    }

    fn open(&mut self, id: &str, name: &str, when: types::Expect) -> Result<String, Failure> {
        let writer = store::Writer::open(name, &options(when, Vec::new())).map_err(Error::from)?;
        self.writers.insert(id.into(), writer);
        Ok("open".into())
    }

    fn reader(&mut self, id: &str, name: &str, at: Option<u64>) -> Result<String, Failure> {
        let Some(reader) = store::Reader::open(name, at).map_err(Error::from)? else {
            return Ok("none".into());
        };
        let version = reader.info().version;
        self.readers.insert(id.into(), reader);
        Ok(format!("version {version}"))
    }
}

fn word(text: &str) -> Result<String, Failure> {
    if let Some((piece, count)) = text.split_once('^') {
        return Ok(piece.repeat(number(count)?));
    }
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escaped = if byte == b'%' {
            tail.split_at_checked(2)
        } else {
            None
        };
        match escaped {
            Some((digits, tail)) => {
                let digits = std::str::from_utf8(digits).map_err(|_| Failure::Usage)?;
                bytes.push(u8::from_str_radix(digits, 16).map_err(|_| Failure::Usage)?);
                rest = tail;
            }
            None => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| Failure::Usage)
}

fn options(expect: types::Expect, labels: Vec<(String, String)>) -> types::SaveOptions {
    types::SaveOptions {
        expect,
        media_type: None,
        labels,
    }
}

fn save(name: &str, size: &str, when: types::Expect) -> Result<String, Failure> {
    let state = bytes(0, number(size)?);
    made(store::save(name, &state, &options(when, Vec::new())))
}

fn labels(name: &str, count: u64, value: &str) -> Result<String, Failure> {
    let labels = (0..count)
        .map(|n| (n.to_string(), value.to_owned()))
        .collect();
    made(store::save(name, b"", &options(types::Expect::Any, labels)))
}

fn load(name: &str, at: Option<u64>) -> Result<String, Failure> {
    let loaded = store::load(name, at).map_err(Error::from)?;
    Ok(loaded.map_or("none".into(), |snapshot| {
        format!(
            "version {} {}",
            snapshot.info.version,
            describe_bytes(&snapshot.state)
        )
    }))
}

fn stat(name: &str, at: Option<u64>) -> Result<String, Failure> {
    let info = store::stat(name, at).map_err(Error::from)?;
    Ok(info.map_or("none".into(), |info| {
        let kind = if info.deleted { "deleted" } else { "saved" };
        format!("version {} {kind} size {}", info.version, info.size)
    }))
}

fn history(name: &str, before: Option<u64>, limit: u32) -> Result<String, Failure> {
    let page = store::history(name, before, limit).map_err(Error::from)?;
    let versions: Vec<_> = page.iter().map(|info| info.version.to_string()).collect();
    Ok(format!("[{}]", versions.join(" ")))
}

fn names(prefix: &str, after: Option<&str>, limit: u32) -> Result<String, Failure> {
    let page = store::names(prefix, after, limit).map_err(Error::from)?;
    Ok(format!("[{}]", page.join(" ")))
}

fn made(answer: Result<types::Info, types::Error>) -> Result<String, Failure> {
    let info = Info::from(answer.map_err(Error::from)?);
    Ok(format!("version {}", info.version))
}
