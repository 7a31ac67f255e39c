//! The host's store, as the contract's imports give it: only conversions between its types and
//! ours.

use std::sync::OnceLock;
use std::time::Duration;

use crate::{Error, Expect, Info, Limits, SaveOptions, Snapshot, Version};
use generated::persist::snapshot::{store, types};

pub mod generated {
    #![expect(
        missing_docs,
        reason = "generated; the documentation is in the contract"
    )]
    wit_bindgen::generate!({
        path: "wit",
        world: "agent",
        pub_export_macro: true,
    });
}

/// Refuses what one call cannot carry: the host ends an agent that passes it. The host takes far
/// less for a text, and says so.
fn check<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
    const MAX: usize = 64 << 10;
    for text in texts {
        let size = text.len();
        if size > MAX {
            let rule = format!("a text has {size} bytes; at most {MAX} are allowed");
            return Err(Error::Invalid(rule));
        }
    }
    Ok(())
}

fn check_options(name: &str, options: &SaveOptions) -> Result<(), Error> {
    const MAX: usize = 1024;
    let count = options.labels.len();
    if count > MAX {
        let rule = format!("there are {count} labels; at most {MAX} are allowed");
        return Err(Error::Invalid(rule));
    }
    let labels = options
        .labels
        .iter()
        .flat_map(|(key, value)| [key.as_str(), value.as_str()]);
    check(labels.chain(options.media_type.as_deref()).chain([name]))
}

/// Bytes of state that one call carries.
fn max_inline() -> u64 {
    static MAX: OnceLock<u64> = OnceLock::new();
    *MAX.get_or_init(|| store::limits().max_inline)
}

pub(crate) fn limits() -> Limits {
    let limits = store::limits();
    Limits {
        max_inline: limits.max_inline,
        max_chunk: limits.max_chunk,
        max_state: limits.max_state,
        max_name: limits.max_name,
        max_page: limits.max_page,
    }
}

pub(crate) fn save(name: &str, state: &[u8], options: &SaveOptions) -> Result<Info, Error> {
    check_options(name, options)?;
    let size = state.len() as u64;
    if size > max_inline() {
        return Err(Error::TooLarge(size));
    }
    Ok(store::save(name, state, &options.into())?.into())
}

pub(crate) fn load(name: &str, at: Option<Version>) -> Result<Option<Snapshot>, Error> {
    check([name])?;
    Ok(store::load(name, at)?.map(|snapshot| Snapshot {
        info: snapshot.info.into(),
        state: snapshot.state,
    }))
}

pub(crate) fn stat(name: &str, at: Option<Version>) -> Result<Option<Info>, Error> {
    check([name])?;
    Ok(store::stat(name, at)?.map(Info::from))
}

pub(crate) fn history(name: &str, before: Option<Version>, limit: u32) -> Result<Vec<Info>, Error> {
    check([name])?;
    Ok(store::history(name, before, limit)?
        .into_iter()
        .map(Info::from)
        .collect())
}

pub(crate) fn names(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, Error> {
    check(after.into_iter().chain([prefix]))?;
    Ok(store::names(prefix, after, limit)?)
}

pub(crate) fn delete(name: &str, expect: Expect) -> Result<Info, Error> {
    check([name])?;
    Ok(store::delete(name, expect.into())?.into())
}

pub(crate) fn restore(name: &str, version: Version, expect: Expect) -> Result<Info, Error> {
    check([name])?;
    Ok(store::restore(name, version, expect.into())?.into())
}

pub(crate) fn fork(
    name: &str,
    at: Option<Version>,
    new_name: &str,
    expect: Expect,
) -> Result<Info, Error> {
    check([name, new_name])?;
    Ok(store::fork(name, at, new_name, expect.into())?.into())
}

#[derive(Debug)]
pub(crate) struct Writer(store::Writer);

impl Writer {
    pub(crate) fn open(name: &str, options: &SaveOptions) -> Result<Self, Error> {
        check_options(name, options)?;
        Ok(Self(store::Writer::open(name, &options.into())?))
    }

    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), Error> {
        Ok(self.0.write(chunk)?)
    }

    pub(crate) fn finish(self) -> Result<Info, Error> {
        Ok(store::Writer::finish(self.0)?.into())
    }
}

#[derive(Debug)]
pub(crate) struct Reader(store::Reader);

impl Reader {
    pub(crate) fn open(name: &str, at: Option<Version>) -> Result<Option<Self>, Error> {
        check([name])?;
        Ok(store::Reader::open(name, at)?.map(Self))
    }

    pub(crate) fn info(&self) -> Info {
        self.0.info().into()
    }

    pub(crate) fn read(&self, offset: u64, len: u32) -> Result<Vec<u8>, Error> {
        Ok(self.0.read(offset, len)?)
    }
}

impl From<types::Info> for Info {
    fn from(info: types::Info) -> Self {
        Self {
            name: info.name,
            version: info.version,
            parent: info.parent,
            deleted: info.deleted,
            size: info.size,
            stored_size: info.stored_size,
            sha256: info.sha256,
            created_at: info.created_at,
            media_type: info.media_type,
            labels: info.labels,
        }
    }
}

impl From<Expect> for types::Expect {
    fn from(expect: Expect) -> Self {
        match expect {
            Expect::Any => Self::Any,
            Expect::Absent => Self::Absent,
            Expect::Version(version) => Self::Version(version),
        }
    }
}

impl From<&SaveOptions> for types::SaveOptions {
    fn from(options: &SaveOptions) -> Self {
        Self {
            expect: options.expect.into(),
            media_type: options.media_type.clone(),
            labels: options.labels.clone(),
        }
    }
}

impl From<types::Error> for Error {
    fn from(error: types::Error) -> Self {
        use types::Error as E;
        match error {
            E::Conflict(head) => Self::Conflict(head),
            E::NotFound => Self::NotFound,
            E::Denied(right) => Self::Denied(right),
            E::TooLarge(size) => Self::TooLarge(size),
            E::QuotaExceeded(quota) => Self::QuotaExceeded {
                limit: quota.limit,
                max: quota.max,
            },
            E::Invalid(rule) => Self::Invalid(rule),
            E::Corrupt(found) => Self::Corrupt(found),
            E::Throttled(wait) => Self::Throttled(wait.map(Duration::from_millis)),
            E::Unavailable(reason) => Self::Unavailable(reason),
            E::Timeout => Self::Timeout,
            E::UnknownOutcome(version) => Self::UnknownOutcome(version),
            E::Other(failure) => Self::Other {
                code: failure.code,
                message: failure.message,
            },
        }
    }
}
