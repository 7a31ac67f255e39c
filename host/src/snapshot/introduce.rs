//! A store introduces itself: what makes sure that a storage keeps its word before anything is trusted to it.
//!
//! `~/store.json` is created once and says which format and suffix the store has. Creating it again must be
//! refused: a storage that accepts ignores conditions, and would let one save overwrite another. A new
//! store must also list what was just created, at once and in order, since heads are found by listing.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::version::SUFFIX;
use super::{Error, Result};
use crate::storage::{Entry, ErrorKind, Key, List, ReadRange, Storage};

const DIR: &str = "~";
const FILE: &str = "store.json";

/// The file is some hundred bytes; more is not ours.
const MAX_FILE: u64 = 64 * 1024;

const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Introduction {
    format: u32,
    suffix: String,
    created_by: String,
}

/// Before the first write: makes the store, or checks that it is one that this build may write to.
pub(super) async fn before_writing(storage: &dyn Storage) -> Result<()> {
    if !check(storage).await? {
        make(storage).await?;
    }
    Ok(())
}

/// Whether a store is there; refuses one that this build cannot understand.
pub(super) async fn check(storage: &dyn Storage) -> Result<bool> {
    let part = match storage.read(&key(FILE)?, ReadRange::Suffix(MAX_FILE)).await {
        Ok(part) => part,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let location = storage.location();
    let introduction: Introduction = serde_json::from_slice(&part.bytes).map_err(|error| {
        Error::corrupt(format!(
            "~/store.json of {location} is not what Persist writes: {error}"
        ))
    })?;
    if introduction.format != FORMAT || introduction.suffix != SUFFIX {
        return Err(Error::Unsupported(format!(
            "{location} holds a store of format {} with suffix {:?}; this build writes format {FORMAT} with \
             suffix {SUFFIX:?}. Use the Persist that made it, or another place",
            introduction.format, introduction.suffix
        )));
    }
    Ok(true)
}

async fn make(storage: &dyn Storage) -> Result<()> {
    check_lists(storage).await?;
    let introduction = Introduction {
        format: FORMAT,
        suffix: SUFFIX.into(),
        created_by: concat!("persist ", env!("CARGO_PKG_VERSION")).into(),
    };
    let mut json = serde_json::to_vec_pretty(&introduction).expect("text and numbers are JSON");
    json.push(b'\n');
    let json = Bytes::from(json);
    match storage.create(&key(FILE)?, vec![json.clone()]).await {
        Ok(()) => {}
        // Another host makes it at this moment: what it says is checked as if it had always been there.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            check(storage).await?;
        }
        Err(error) => return Err(error.into()),
    }
    match storage.create(&key(FILE)?, vec![json]).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Err(Error::Unsupported(format!(
            "{} lets an object be created twice, so one save could overwrite another. Use a storage that \
             honours conditional writes; nothing was saved",
            storage.location()
        ))),
    }
}

/// Creates two objects in the wrong order and expects a list to show them, at once, in the right one.
async fn check_lists(storage: &dyn Storage) -> Result<()> {
    let id = format!("probe-{:032x}", crate::random::u128());
    let names = [format!("{id}-1"), format!("{id}-2")];
    for name in names.iter().rev() {
        storage
            .create(&key(name)?, vec![Bytes::from_static(b"probe\n")])
            .await?;
    }
    let list = List {
        dir: DIR,
        prefix: &id,
        after: None,
        limit: 3,
    };
    let listed = storage.list(&list).await;
    for name in &names {
        storage.delete(&key(name)?).await?;
    }
    let expected: Vec<_> = names.map(Entry::Object).into();
    match listed?.entries == expected {
        true => Ok(()),
        false => Err(Error::Unsupported(format!(
            "{} does not list new objects at once and in order, so the newest version could be missed. Use \
             another storage; nothing was saved",
            storage.location()
        ))),
    }
}

fn key(name: &str) -> Result<Key> {
    Ok(Key::new(format!("{DIR}/{name}"))?)
}
