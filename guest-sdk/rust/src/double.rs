//! A host in memory, for testing an agent natively.
//!
//! On any target but WebAssembly every call of this crate ends here. Versions, expectations,
//! tombstones, pages, limits and errors are those of a host; what it does not have is a disk,
//! compression and pruning. Each thread has a store of its own and `cargo test` gives each test a
//! thread, so a test begins with nothing saved.
//!
//! ```
//! use persist_guest::{Error, double, limits, load, save};
//!
//! // #[test]
//! fn a_timeout_is_told() {
//!     double::fail_next(Error::Timeout);
//!     assert_eq!(save("memory", "{}"), Err(Error::Timeout));
//!     assert_eq!(load("memory"), Ok(None));
//! }
//!
//! // #[test]
//! fn a_state_over_the_limit_is_refused() {
//!     let mut small = limits();
//!     small.max_inline = 4;
//!     double::set_limits(small);
//!     assert_eq!(save("memory", "12345"), Err(Error::TooLarge(5)));
//! }
//! # a_timeout_is_told();
//! # a_state_over_the_limit_is_refused();
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest, Sha256};

use crate::{Error, Expect, Info, Limits, SaveOptions, Snapshot, Version};

/// Bytes of labels and media type together, as a host has it.
const MAX_LABEL_BYTES: usize = 8 * 1024;

/// Agent in the addresses of this host.
const AGENT: &str = "agent";

thread_local! {
    static DOUBLE: RefCell<Double> = RefCell::default();
}

/// Forgets everything saved on this thread, and takes back [`set_limits`] and [`fail_next`].
pub fn reset() {
    DOUBLE.take();
}

/// Answers [`limits`](crate::limits) with these on this thread, and enforces them.
pub fn set_limits(limits: Limits) {
    DOUBLE.with_borrow_mut(|double| double.limits = limits);
}

/// Makes the next call on this thread fail with `error` and change nothing; calls of a reader or a
/// writer count.
pub fn fail_next(error: Error) {
    DOUBLE.with_borrow_mut(|double| double.failure = Some(error));
}

struct Double {
    /// Version `n` of a name is entry `n - 1`: nothing is ever pruned.
    names: BTreeMap<String, Vec<Saved>>,
    limits: Limits,
    failure: Option<Error>,
}

#[derive(Clone, Debug)]
struct Saved {
    info: Info,
    state: Rc<[u8]>,
}

impl Default for Double {
    fn default() -> Self {
        let limits = Limits {
            max_inline: 16 << 20,
            max_chunk: 1 << 20,
            max_state: 1 << 30,
            max_name: 200,
            max_page: 100,
        };
        Self {
            names: BTreeMap::new(),
            limits,
            failure: None,
        }
    }
}

pub(crate) fn limits() -> Limits {
    DOUBLE.with_borrow(|double| double.limits.clone())
}

pub(crate) fn save(name: &str, state: &[u8], options: &SaveOptions) -> Result<Info, Error> {
    call(|double| {
        double.check_name(name)?;
        check_options(options)?;
        double.check_inline(state.len() as u64)?;
        double.check_state(state.len() as u64)?;
        double.commit(name, options, state.into(), false)
    })
}

pub(crate) fn load(name: &str, at: Option<Version>) -> Result<Option<Snapshot>, Error> {
    call(|double| {
        let Some(saved) = double.find_state(name, at)? else {
            return Ok(None);
        };
        double.check_inline(saved.info.size)?;
        Ok(Some(Snapshot {
            info: saved.info,
            state: saved.state.to_vec(),
        }))
    })
}

pub(crate) fn stat(name: &str, at: Option<Version>) -> Result<Option<Info>, Error> {
    call(|double| Ok(double.find(name, at)?.map(|saved| saved.info)))
}

pub(crate) fn history(name: &str, before: Option<Version>, limit: u32) -> Result<Vec<Info>, Error> {
    call(|double| {
        double.check_name(name)?;
        let limit = double.page(limit)?;
        let older = double
            .versions(name)
            .iter()
            .rev()
            .map(|saved| saved.info.clone());
        Ok(older
            .filter(|info| before.is_none_or(|before| info.version < before))
            .take(limit)
            .collect())
    })
}

pub(crate) fn names(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, Error> {
    call(|double| {
        let limit = double.page(limit)?;
        after.map_or(Ok(()), |after| double.check_name(after))?;
        let all = double.names.keys().filter(|name| name.starts_with(prefix));
        Ok(all
            .filter(|name| after.is_none_or(|after| name.as_str() > after))
            .take(limit)
            .cloned()
            .collect())
    })
}

pub(crate) fn delete(name: &str, expect: Expect) -> Result<Info, Error> {
    call(|double| {
        double.check_name(name)?;
        double.check_expect(name, expect)?;
        double.find_state(name, None)?.ok_or(Error::NotFound)?;
        double.commit(
            name,
            &SaveOptions::new().expect(expect),
            Rc::default(),
            true,
        )
    })
}

pub(crate) fn restore(name: &str, version: Version, expect: Expect) -> Result<Info, Error> {
    call(|double| {
        let saved = double
            .find_state(name, Some(version))?
            .ok_or(Error::NotFound)?;
        let options = saved
            .options(expect)
            .label("persist.restored-from", version.to_string());
        double.commit(name, &options, saved.state, false)
    })
}

pub(crate) fn fork(
    name: &str,
    at: Option<Version>,
    new_name: &str,
    expect: Expect,
) -> Result<Info, Error> {
    call(|double| {
        double.check_name(new_name)?;
        let saved = double.find_state(name, at)?.ok_or(Error::NotFound)?;
        let version = saved.info.version;
        let origin = format!("{AGENT}/{name}@{version}");
        let options = saved.options(expect).label("persist.forked-from", origin);
        double.commit(new_name, &options, saved.state, false)
    })
}

#[derive(Debug)]
pub(crate) struct Writer {
    name: String,
    options: SaveOptions,
    state: Vec<u8>,
    /// After an error it can only be dropped.
    failed: bool,
}

impl Writer {
    pub(crate) fn open(name: &str, options: &SaveOptions) -> Result<Self, Error> {
        call(|double| {
            double.check_name(name)?;
            check_options(options)?;
            double.check_expect(name, options.expect)?;
            let mut options = options.clone();
            if options.expect == Expect::Any {
                options.expect = match double.versions(name).last() {
                    Some(head) => Expect::Version(head.info.version),
                    None => Expect::Absent,
                };
            }
            Ok(Self {
                name: name.into(),
                options,
                state: Vec::new(),
                failed: false,
            })
        })
    }

    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), Error> {
        self.check()?;
        self.failed = true;
        call(|double| {
            double.check_chunk(chunk.len())?;
            double.check_state((self.state.len() + chunk.len()) as u64)?;
            self.state.extend_from_slice(chunk);
            Ok(())
        })?;
        self.failed = false;
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        let after_error = "a writer cannot continue after an error; drop it and open a new one";
        if !self.failed {
            Ok(())
        } else {
            Err(Error::Invalid(after_error.into()))
        }
    }

    pub(crate) fn finish(self) -> Result<Info, Error> {
        self.check()?;
        call(|double| double.commit(&self.name, &self.options, self.state.into(), false))
    }
}

#[derive(Debug)]
pub(crate) struct Reader(Saved);

impl Reader {
    pub(crate) fn open(name: &str, at: Option<Version>) -> Result<Option<Self>, Error> {
        call(|double| Ok(double.find_state(name, at)?.map(Self)))
    }

    pub(crate) fn info(&self) -> Info {
        self.0.info.clone()
    }

    pub(crate) fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, Error> {
        call(|double| {
            if len == 0 {
                return Err(Error::Invalid(
                    "a read of 0 bytes; it reads at least 1".into(),
                ));
            }
            let rest = usize::try_from(offset)
                .ok()
                .and_then(|offset| self.0.state.get(offset..))
                .unwrap_or(&[]);
            Ok(rest[..rest.len().min(len.min(double.limits.max_chunk) as usize)].to_vec())
        })
    }
}

/// Every call goes through here, so that none escapes `fail_next`.
fn call<T>(answer: impl FnOnce(&mut Double) -> Result<T, Error>) -> Result<T, Error> {
    DOUBLE.with_borrow_mut(|double| match double.failure.take() {
        Some(error) => Err(error),
        None => answer(double),
    })
}

impl Double {
    fn versions(&self, name: &str) -> &[Saved] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    /// The head, or version `at`; a tombstone too.
    fn find(&self, name: &str, at: Option<Version>) -> Result<Option<Saved>, Error> {
        self.check_name(name)?;
        let versions = self.versions(name);
        match at {
            None => Ok(versions.last().cloned()),
            Some(at) => {
                let found = versions.iter().find(|saved| saved.info.version == at);
                Ok(Some(found.cloned().ok_or(Error::NotFound)?))
            }
        }
    }

    /// Finds a version as `find` does, but returns `None` for a tombstone.
    fn find_state(&self, name: &str, at: Option<Version>) -> Result<Option<Saved>, Error> {
        Ok(self.find(name, at)?.filter(|saved| !saved.info.deleted))
    }

    /// The one place where a version is added.
    fn commit(
        &mut self,
        name: &str,
        options: &SaveOptions,
        state: Rc<[u8]>,
        deleted: bool,
    ) -> Result<Info, Error> {
        self.check_expect(name, options.expect)?;
        let versions = self.names.entry(name.into()).or_default();
        let parent = versions.last().map(|head| head.info.version);
        let info = Info {
            name: name.into(),
            version: parent.unwrap_or(0) + 1,
            parent,
            deleted,
            size: state.len() as u64,
            stored_size: state.len() as u64,
            sha256: Sha256::digest(&state)
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            created_at: now(),
            media_type: options.media_type.clone(),
            labels: options.labels.clone(),
        };
        versions.push(Saved {
            info: info.clone(),
            state,
        });
        Ok(info)
    }

    fn check_expect(&self, name: &str, expect: Expect) -> Result<(), Error> {
        let head = self.versions(name).last().map(|saved| &saved.info);
        let holds = match expect {
            Expect::Any => true,
            Expect::Absent => head.is_none_or(|head| head.deleted),
            Expect::Version(version) => head.is_some_and(|head| head.version == version),
        };
        if holds {
            Ok(())
        } else {
            Err(Error::Conflict(head.map(|head| head.version)))
        }
    }

    /// A host counts the bytes of a name in its key, where all but the plainest cost three.
    fn check_name(&self, name: &str) -> Result<(), Error> {
        let plain = |(at, byte)| {
            matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-') || byte == b'.' && at > 0
        };
        let cost: usize = name
            .bytes()
            .enumerate()
            .map(|byte| if plain(byte) { 1 } else { 3 })
            .sum();
        let max = self.limits.max_name as usize;
        if name.is_empty() {
            return Err(Error::Invalid(
                "a name is empty; the minimum is one byte".into(),
            ));
        }
        if let Some(c) = name.chars().find(|c| c.is_control()) {
            let code = u32::from(c);
            return Err(Error::Invalid(format!(
                "a name contains the control character U+{code:04X}"
            )));
        }
        if cost > max {
            return Err(Error::Invalid(format!(
                "a name is {cost} bytes long; at most {max} are allowed, and every byte except \
                 a-z 0-9 . _ - counts as three"
            )));
        }
        Ok(())
    }

    fn check_inline(&self, size: u64) -> Result<(), Error> {
        if size > self.limits.max_inline {
            Err(Error::TooLarge(size))
        } else {
            Ok(())
        }
    }

    fn check_chunk(&self, size: usize) -> Result<(), Error> {
        let max = self.limits.max_chunk;
        if size > max as usize {
            return Err(Error::QuotaExceeded {
                limit: "chunk".into(),
                max: max.into(),
            });
        }
        Ok(())
    }

    fn check_state(&self, size: u64) -> Result<(), Error> {
        let max = self.limits.max_state;
        if size > max {
            Err(Error::QuotaExceeded {
                limit: "state-size".into(),
                max,
            })
        } else {
            Ok(())
        }
    }

    fn page(&self, limit: u32) -> Result<usize, Error> {
        if limit == 0 {
            return Err(Error::Invalid("a limit is 0; the minimum is 1".into()));
        }
        Ok(limit.min(self.limits.max_page) as usize)
    }
}

impl Saved {
    /// How to save this state again: with what its author gave, without what the host added.
    fn options(&self, expect: Expect) -> SaveOptions {
        let own = self
            .info
            .labels
            .iter()
            .filter(|(key, _)| !key.starts_with("persist."));
        SaveOptions {
            expect,
            media_type: self.info.media_type.clone(),
            labels: own.cloned().collect(),
        }
    }
}

fn check_options(options: &SaveOptions) -> Result<(), Error> {
    let texts = options
        .labels
        .iter()
        .flat_map(|(key, value)| [key, value])
        .chain(&options.media_type);
    let bytes: usize = texts.map(String::len).sum();
    if bytes > MAX_LABEL_BYTES {
        return Err(Error::Invalid(format!(
            "labels and media type have {bytes} bytes; the maximum is {MAX_LABEL_BYTES}"
        )));
    }
    for (at, (key, _)) in options.labels.iter().enumerate() {
        let broken = if key.is_empty() {
            "is empty"
        } else if key.starts_with("persist.") {
            "is reserved: it starts with persist."
        } else if options.labels[..at]
            .iter()
            .any(|(earlier, _)| earlier == key)
        {
            "is given twice"
        } else {
            continue;
        };
        return Err(Error::Invalid(format!("the label key {key:?} {broken}")));
    }
    Ok(())
}

fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{load, load_snapshot, save, save_with};

    fn expecting(expect: Expect) -> Result<Info, Error> {
        save_with("memory", "state", &SaveOptions::new().expect(expect))
    }

    fn is_invalid<T>(result: Result<T, Error>) -> bool {
        matches!(result, Err(Error::Invalid(_)))
    }

    #[test]
    fn every_change_is_the_next_version_and_knows_its_parent() -> Result<(), Error> {
        let first = save("memory", "one")?;
        let second = save("memory", "two")?;
        let tombstone = delete("memory", Expect::Any)?;
        let restored = restore("memory", 1, Expect::Version(3))?;
        let chain = [first, second, tombstone, restored]
            .map(|info| (info.version, info.parent, info.deleted));
        assert_eq!(
            chain,
            [
                (1, None, false),
                (2, Some(1), false),
                (3, Some(2), true),
                (4, Some(3), false)
            ]
        );
        assert_eq!(load("memory")?, Some(b"one".to_vec()));
        Ok(())
    }

    #[test]
    fn info_tells_what_was_saved() -> Result<(), Error> {
        let options = SaveOptions::new()
            .media_type("text/plain")
            .label("turn", "1");
        let saved = save_with("memory", "abc", &options)?;
        assert_eq!(
            saved.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            (saved.size, saved.media_type.as_deref(), saved.label("turn")),
            (3, Some("text/plain"), Some("1"))
        );
        assert!(saved.created_at > 0);
        assert_eq!(stat("memory", None)?, Some(saved.clone()));
        assert_eq!(
            load_snapshot("memory", Some(1))?.map(|snapshot| snapshot.info),
            Some(saved)
        );
        Ok(())
    }

    #[test]
    fn an_expectation_holds_or_conflicts_with_the_head() -> Result<(), Error> {
        assert_eq!(expecting(Expect::Version(1)), Err(Error::Conflict(None)));
        assert_eq!(expecting(Expect::Absent)?.version, 1);
        assert_eq!(expecting(Expect::Absent), Err(Error::Conflict(Some(1))));
        assert_eq!(expecting(Expect::Version(1))?.version, 2);
        assert_eq!(expecting(Expect::Version(1)), Err(Error::Conflict(Some(2))));
        assert_eq!(expecting(Expect::Any)?.version, 3);
        Ok(())
    }

    #[test]
    fn a_tombstone_is_nothing_to_load_and_something_to_stat() -> Result<(), Error> {
        save("memory", "one")?;
        assert_eq!(
            delete("memory", Expect::Version(7)),
            Err(Error::Conflict(Some(1)))
        );
        delete("memory", Expect::Version(1))?;
        assert_eq!(
            (load("memory")?, load_snapshot("memory", Some(2))?),
            (None, None)
        );
        assert!(stat("memory", None)?.is_some_and(|info| info.deleted && info.size == 0));
        assert_eq!(delete("memory", Expect::Any), Err(Error::NotFound));
        assert_eq!(restore("memory", 2, Expect::Any), Err(Error::NotFound));
        assert_eq!(expecting(Expect::Absent)?.version, 3);
        Ok(())
    }

    #[test]
    fn a_name_never_saved_loads_as_none() {
        assert_eq!(load("memory"), Ok(None));
        assert_eq!(stat("memory", None), Ok(None));
        assert_eq!(load_snapshot("memory", Some(1)), Err(Error::NotFound));
        assert_eq!(stat("memory", Some(0)), Err(Error::NotFound));
        assert_eq!(delete("memory", Expect::Any), Err(Error::NotFound));
        assert_eq!(
            fork("memory", None, "copy", Expect::Any),
            Err(Error::NotFound)
        );
    }

    #[test]
    fn restore_and_fork_keep_the_authors_labels() -> Result<(), Error> {
        save_with(
            "memory",
            "one",
            &SaveOptions::new()
                .label("turn", "1")
                .media_type("text/plain"),
        )?;
        let restored = restore("memory", 1, Expect::Any)?;
        assert_eq!(
            (
                restored.label("turn"),
                restored.label("persist.restored-from")
            ),
            (Some("1"), Some("1"))
        );
        let copy = fork("memory", Some(2), "copy", Expect::Absent)?;
        assert_eq!(
            (copy.version, copy.parent, copy.media_type.as_deref()),
            (1, None, Some("text/plain"))
        );
        let origin = ("persist.forked-from".into(), "agent/memory@2".into());
        assert_eq!(copy.labels, [("turn".into(), "1".into()), origin]);
        assert_eq!(
            fork("memory", None, "copy", Expect::Absent),
            Err(Error::Conflict(Some(1)))
        );
        Ok(())
    }

    #[test]
    fn pages_begin_where_the_last_one_ended() -> Result<(), Error> {
        for name in ["b", "a/2", "a/1", "a/3"] {
            save(name, "")?;
            save(name, "")?;
        }
        assert_eq!(names("a/", None, 2)?, ["a/1", "a/2"]);
        assert_eq!(names("a/", Some("a/2"), 2)?, ["a/3"]);
        assert_eq!(names("a/", Some("a/3"), 2)?, [""; 0]);
        let page = |before| {
            Ok::<_, Error>(
                history("b", before, 1)?
                    .iter()
                    .map(|info| info.version)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            (page(None)?, page(Some(2))?, page(Some(1))?),
            (vec![2], vec![1], vec![])
        );
        Ok(())
    }

    #[test]
    fn arguments_that_break_a_rule_are_invalid() {
        let long = "a".repeat(201);
        let dear = "A".repeat(67);
        for bad in ["", "a\nb", "\u{7f}", &long, &dear] {
            assert!(is_invalid(save(bad, "")), "{bad:?}");
            assert!(is_invalid(load(bad)), "{bad:?}");
        }
        assert!(save(&"a".repeat(200), "").is_ok());
        assert!(is_invalid(history("memory", None, 0)));
        assert!(is_invalid(names("", None, 0)));
        assert!(is_invalid(names("", Some(""), 1)));
        for bad in [
            ("persist.x", "1"),
            ("", "1"),
            ("a", &"x".repeat(MAX_LABEL_BYTES)),
        ] {
            assert!(
                is_invalid(save_with(
                    "memory",
                    "",
                    &SaveOptions::new().label(bad.0, bad.1)
                )),
                "{}",
                bad.0
            );
        }
        assert!(is_invalid(save_with(
            "memory",
            "",
            &SaveOptions::new().label("a", "1").label("a", "2")
        )));
        assert_eq!(names("memory", None, 1), Ok(vec![]));
    }

    #[test]
    fn streams_keep_to_the_limits() -> Result<(), Error> {
        let limits = Limits {
            max_inline: 4,
            max_chunk: 4,
            max_state: 6,
            ..limits()
        };
        set_limits(limits);
        assert_eq!(save("memory", "12345"), Err(Error::TooLarge(5)));
        let mut writer = Writer::open("memory", &SaveOptions::new())?;
        let chunk = Error::QuotaExceeded {
            limit: "chunk".into(),
            max: 4,
        };
        assert_eq!(writer.write(b"12345"), Err(chunk));
        assert!(is_invalid(writer.write(b"1")), "it failed");
        assert!(is_invalid(writer.finish()), "it failed");
        let mut writer = Writer::open("memory", &SaveOptions::new())?;
        writer.write(b"1234")?;
        writer.write(b"5")?;
        let mut too_long = Writer::open("memory", &SaveOptions::new())?;
        too_long.write(b"1234")?;
        assert_eq!(
            too_long.write(b"567"),
            Err(Error::QuotaExceeded {
                limit: "state-size".into(),
                max: 6
            })
        );
        drop(too_long);
        writer.finish()?;
        assert_eq!(load("memory"), Err(Error::TooLarge(5)));
        let reader = Reader::open("memory", None)?.ok_or(Error::NotFound)?;
        assert_eq!(
            (reader.read(0, 100)?, reader.read(4, 100)?),
            (b"1234".to_vec(), b"5".to_vec())
        );
        assert_eq!(
            (reader.read(5, 1)?, reader.read(u64::MAX, 1)?),
            (vec![], vec![])
        );
        assert!(is_invalid(reader.read(0, 0)));
        Ok(())
    }

    #[test]
    fn each_thread_has_its_own_store() -> Result<(), Error> {
        save("memory", "one")?;
        let other = std::thread::spawn(|| load("memory")).join();
        assert!(matches!(other, Ok(Ok(None))));
        Ok(())
    }
}
