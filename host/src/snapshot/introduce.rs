//! A store introduces itself: what makes sure that a storage keeps its word before anything is trusted to it.
//!
//! `~/store.json` is created once and says which format and suffix the store has. Before that, the storage must refuse to
//! create an object twice (one that accepts ignores conditions, and would let one save overwrite another), and must list
//! what was just created, at once and in order, since heads are found by listing. A storage that may be any server is asked
//! again by each process.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::version::SUFFIX;
use super::{Error, Result};
use crate::storage::{Entry, ErrorKind, Key, List, Object, ReadRange, Storage, Swept};

const DIR: &str = "~";
const FILE: &str = "store.json";
const PROBE: &str = "probe-";

/// A probe takes four requests: what is younger may be another host's at this moment.
const PROBING: Duration = Duration::from_secs(60 * 60);

/// The file is some hundred bytes; more is not ours.
const MAX_FILE: u64 = 64 * 1024;

const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Introduction {
    format: u32,
    // A later format may do without these.
    #[serde(default)]
    suffix: String,
    #[serde(default)]
    created_by: String,
}

/// Before the first write of a process: makes the store, or checks that it is one that this build may write to, in a storage
/// that keeps its word.
pub(super) async fn before_writing(storage: &dyn Storage) -> Result<()> {
    match check(storage).await? {
        false => make(storage).await,
        // A store may have been copied to where conditions mean nothing.
        true if !storage.honours_conditions() => create_again(storage, FILE, introduction()).await,
        true => Ok(()),
    }
}

/// Whether a store is there; refuses one that this build cannot understand.
pub(super) async fn check(storage: &dyn Storage) -> Result<bool> {
    let part = match storage.read(&key(FILE)?, ReadRange::Suffix(MAX_FILE)).await {
        Ok(part) => part,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let place = format!("~/store.json in {}", storage.location());
    let introduction: Introduction = serde_json::from_slice(&part.bytes).map_err(|error| {
        Error::corrupt(format!("it is not what Persist writes: {error}")).at(&place)
    })?;
    if introduction.format != FORMAT || introduction.suffix != SUFFIX {
        let what = format!(
            "this store has format {} and suffix {:?}; this build writes format {FORMAT} and suffix {SUFFIX:?}. \
             Use the Persist that made it, or another place",
            introduction.format, introduction.suffix
        );
        return Err(Error::unsupported(what).at(place));
    }
    Ok(true)
}

async fn make(storage: &dyn Storage) -> Result<()> {
    // Before there is anything that the next host would believe.
    probe(storage).await?;
    match storage.create(&key(FILE)?, vec![introduction()]).await {
        Ok(()) => Ok(()),
        // Another host makes it at this moment: what it says is checked as if it had always been there.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => check(storage).await.map(drop),
        Err(error) => Err(error.into()),
    }
}

fn introduction() -> Bytes {
    let introduction = Introduction {
        format: FORMAT,
        suffix: SUFFIX.into(),
        created_by: concat!("persist ", env!("CARGO_PKG_VERSION")).into(),
    };
    let mut json = serde_json::to_vec_pretty(&introduction).expect("text and numbers are JSON");
    json.push(b'\n');
    json.into()
}

/// Creates two objects in the wrong order, and expects a list to show them at once and in the right one, and the storage to
/// refuse to create one again.
async fn probe(storage: &dyn Storage) -> Result<()> {
    let id = format!("{PROBE}{:032x}", crate::random::u128());
    let names = [format!("{id}-1"), format!("{id}-2")];
    let probe = Bytes::from_static(b"probe\n");
    for name in names.iter().rev() {
        storage.create(&key(name)?, vec![probe.clone()]).await?;
    }
    let list = List {
        dir: DIR,
        prefix: &id,
        after: None,
        limit: 3,
        facts: false,
    };
    let listed = storage.list(&list).await;
    let refused = create_again(storage, &names[0], probe).await;
    for name in &names {
        storage.delete(&key(name)?).await?;
    }
    refused?;
    let expected: Vec<_> = names.map(Entry::object).into();
    match listed?.entries == expected {
        true => Ok(()),
        false => Err(Error::unsupported(
            "this storage does not list new objects at once and in order, so the newest version could be missed. Use \
             another one; nothing was saved",
        )
        .at(storage.location())),
    }
}

/// Removes probes of hosts that died before they could.
pub(super) async fn sweep(
    storage: &dyn Storage,
    older_than: Duration,
    dry_run: bool,
) -> Result<Swept> {
    let mut swept = Swept::default();
    let mut after = None;
    loop {
        let list = List {
            dir: DIR,
            prefix: PROBE,
            after,
            limit: 1000,
            facts: true,
        };
        let page = storage.list(&list).await?;
        after = page.entries.last().cloned();
        for entry in &page.entries {
            let Entry::Object(Object { name, facts }) = entry else {
                continue;
            };
            let (Some(facts), Some(now)) = (facts, page.now) else {
                continue;
            };
            let age = now.duration_since(facts.created).unwrap_or_default();
            if age < older_than.max(PROBING) {
                continue;
            }
            if !dry_run {
                storage.delete(&key(name)?).await?;
            }
            swept += Swept {
                removed: 1,
                bytes: facts.size,
            };
        }
        if !page.more {
            return Ok(swept);
        }
    }
}

/// Creates what is there already, which must be refused.
async fn create_again(storage: &dyn Storage, name: &str, body: Bytes) -> Result<()> {
    match storage.create(&key(name)?, vec![body]).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => Err(Error::unsupported(
            "this storage lets an object be created twice, so one save could overwrite another. Use one that honours \
             conditional writes; nothing was saved",
        )
        .at(storage.location())),
    }
}

fn key(name: &str) -> Result<Key> {
    Ok(Key::new(format!("{DIR}/{name}"))?)
}
