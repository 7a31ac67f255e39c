//! Probes of a backend: small objects that show whether it keeps the promises of [`Storage`].
//!
//! Two promises cannot be read off an answer, and a store loses data without them. Lists are
//! complete and in the order of keys, since the newest version of a name is the first entry of a
//! list; and of several writers of one key exactly one wins. [`lists`] pages through a directory
//! one entry at a time. [`race`] lets writers create one object at the same moment: a server that
//! looks whether an object exists and writes it afterwards acknowledges more than one of them.
//!
//! The names of the objects begin with `~/probe-`. They are removed again; `persist gc` removes
//! those of a process that was killed.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::{
    Entry, Error, ErrorKind, Key, List, Pager, ReadRange, RecursiveList, Result, Storage, Upload,
};
use crate::hex::hex;

/// Directory of the objects that belong to the store itself.
const DIR: &str = "~";

/// Prefix of the names of probes.
pub(crate) const PREFIX: &str = "probe-";

/// Prefix of the names of records: which servers were probed for this store.
pub(crate) const RECORD: &str = "probed-";

/// Longest record that is read, in bytes.
const MAX_RECORD: u64 = 64 * 1024;

/// Objects in the directory that is listed, in a scrambled order of creation. A server that lists
/// in another order than that of keys passes by chance once in 720 times, and the directories
/// below make it once in 4320.
const OBJECTS: [&str; 6] = [
    "9999999996-0000000003.gz",
    "9999999998-0000000001.gz",
    "9999999994-0000000005.gz",
    "9999999997-0000000002.gz",
    "9999999993-0000000006.gz",
    "9999999995-0000000004.gz",
];

/// Directories beside it, each with one object.
const DIRS: [&str; 3] = ["names", "beta", "alpha"];

/// The most objects that are removed of one probe.
const MAX_OBJECTS: usize = 1000;

/// Writers that create one object at once, and the length of what each sends, in bytes.
#[derive(Clone, Copy, Debug)]
struct Race {
    writers: usize,
    len: usize,
}

/// Race of small objects.
const FEW_BYTES: Race = Race {
    writers: 8,
    len: 32,
};

/// Race of objects of one part.
const WHOLE_PART: Race = Race {
    writers: 4,
    len: 8 << 20,
};

/// Races of objects that are created in one request.
const SINGLE: &[Race] = &[FEW_BYTES; 8];

/// Races of objects that are created in parts. The time that a server takes to put parts together
/// grows with their length, and with it the chance that it looks for two writers before it writes
/// for one: of moto, 4 writers of 8 MiB show it in nearly every race, writers of some bytes in one
/// of twenty.
const PARTS: &[Race] = &[
    FEW_BYTES, FEW_BYTES, FEW_BYTES, FEW_BYTES, FEW_BYTES, FEW_BYTES, WHOLE_PART, WHOLE_PART,
    WHOLE_PART,
];

/// The way in which an object is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In one request, as small objects are.
    Single,
    /// In parts, as large objects are.
    Parts,
}

impl Way {
    /// Returns how many races a probe has.
    pub fn races(self) -> usize {
        self.plan().len()
    }

    fn plan(self) -> &'static [Race] {
        match self {
            Self::Single => SINGLE,
            Self::Parts => PARTS,
        }
    }
}

/// The outcome of the probe of one server, in the store that it is probed for.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Endpoint of the server.
    server: String,
    /// Set where one of several writers that race is acknowledged.
    exclusive: bool,
}

/// Verifies a server that may be any, once for each store: lists, and that creates are exclusive.
///
/// Records the outcome in the store. A store that was copied to another server is probed again
/// there.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where the server cannot be trusted with a store; others as for any
/// call.
pub(crate) async fn ensure_exclusive(
    storage: &Arc<dyn Storage>,
    server: &str,
    way: Way,
) -> Result<()> {
    let key = record_key(server, way)?;
    match recorded(&**storage, &key, server).await? {
        Some(true) => return Ok(()),
        Some(false) => {
            let what = "a probe found that this server acknowledges more than one of several \
                        writers that create the same object in parts at once";
            let hint = format!(
                "nothing was saved; use a server that honours conditional creates of large \
                 objects; if the server was fixed, remove {key}"
            );
            return Err(Error::new(ErrorKind::Unsupported, what).with_hint(hint));
        }
        None => {}
    }
    if way == Way::Single {
        lists(storage).await?;
    }
    let raced = races(storage, way).await;
    match &raced {
        Ok(()) => record(&**storage, &key, server, true).await,
        // A race is a matter of luck: a server that fails once is not asked again.
        Err(Failure::NotExclusive(_)) if way == Way::Parts => {
            record(&**storage, &key, server, false).await;
        }
        Err(_) => {}
    }
    raced.map_err(Error::from)
}

/// Records that a server was probed, without probing it: for tests of servers that are known.
#[cfg(any(test, feature = "testing"))]
pub(crate) async fn record_unprobed(storage: &dyn Storage, server: &str, way: Way) -> Result<()> {
    record(storage, &record_key(server, way)?, server, true).await;
    Ok(())
}

/// Returns the key of an upload that is begun and aborted.
#[cfg(feature = "bucket")]
pub(super) fn unfinished() -> Result<Key> {
    Key::new(format!(
        "{DIR}/{PREFIX}{:032x}-upload",
        crate::random::u128()
    ))
}

fn record_key(server: &str, way: Way) -> Result<Key> {
    let hash = hex(&Sha256::digest(server.as_bytes())[..8]);
    let end = match way {
        Way::Single => "",
        Way::Parts => "-uploads",
    };
    Key::new(format!("{DIR}/{RECORD}{hash}{end}.json"))
}

/// Reads the record at `key`. One that cannot be read says nothing.
async fn recorded(storage: &dyn Storage, key: &Key, server: &str) -> Result<Option<bool>> {
    let part = match storage.read(key, ReadRange::Bounded(0..MAX_RECORD)).await {
        Ok(part) => part,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let record = serde_json::from_slice::<Record>(&part.bytes).ok();
    let record = record.filter(|record| record.server == server);
    Ok(record.map(|record| record.exclusive))
}

/// Writes a record. Where that fails, the next process probes again.
async fn record(storage: &dyn Storage, key: &Key, server: &str, exclusive: bool) {
    let record = Record {
        server: server.into(),
        exclusive,
    };
    let json = serde_json::to_vec(&record).expect("text and a flag are JSON");
    if let Err(error) = storage.create(key, vec![json.into()]).await
        && error.kind() != ErrorKind::AlreadyExists
    {
        tracing::debug!(key = key.as_str(), %error, "a probe could not be recorded");
    }
}

/// Verifies that lists are complete, at once and in the order of keys.
///
/// Creates objects whose names are those of versions, in a directory of its own, and lists them as
/// a store does: with the directory as prefix, in pages of one entry and in one page.
///
/// Cost on a server: 9 creates, about 14 lists, 9 deletes.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where a list is wrong; others as for any call.
pub async fn lists(storage: &Arc<dyn Storage>) -> Result<()> {
    let top = format!("{DIR}/{PREFIX}{:032x}", crate::random::u128());
    let [names, others @ ..] = DIRS;
    let objects = OBJECTS.map(|name| format!("{top}/{names}/{name}"));
    let beside = others.map(|dir| format!("{top}/{dir}/{}", OBJECTS[0]));
    let keys = objects.into_iter().chain(beside).map(Key::new);
    let keys: Vec<_> = keys.collect::<Result<_>>()?;
    let verdict = verify_lists(storage, &top, &keys).await;
    // By their keys: a list that is wrong may not show them.
    let removals = keys.into_iter().map(|key| {
        let storage = Arc::clone(storage);
        async move {
            remove_object(&*storage, &key).await;
            Ok::<_, Error>(())
        }
    });
    all(removals).await?;
    verdict
}

/// Runs tasks together, all to their ends. Returns the first error.
async fn all<E: From<Error> + Send + 'static>(
    tasks: impl Iterator<Item = impl Future<Output = std::result::Result<(), E>> + Send + 'static>,
) -> std::result::Result<(), E> {
    let mut running = JoinSet::new();
    for task in tasks {
        running.spawn(task);
    }
    let mut outcome = Ok(());
    while let Some(done) = running.join_next().await {
        outcome = outcome.and(done.unwrap_or_else(|stopped| Err(stopped_error(stopped).into())));
    }
    outcome
}

async fn verify_lists(storage: &Arc<dyn Storage>, top: &str, keys: &[Key]) -> Result<()> {
    let creates = keys.iter().cloned().map(|key| {
        let storage = Arc::clone(storage);
        async move { create(&*storage, &key, body(0, 0)).await }
    });
    all(creates).await?;
    let dir = format!("{top}/{}", DIRS[0]);
    let mut objects = OBJECTS.map(Entry::object).to_vec();
    objects.sort();
    let mut dirs = DIRS.map(|dir| Entry::Dir(dir.into())).to_vec();
    dirs.sort();
    for (dir, expected) in [(dir.as_str(), &objects), (top, &dirs)] {
        for limit in [1, MAX_OBJECTS] {
            if pages(&**storage, dir, limit, expected.len()).await? != *expected {
                let what = "this storage does not list new objects at once, completely and in the \
                    order of their keys, so the \
                            newest version could be missed";
                return Err(Error::new(ErrorKind::Unsupported, what)
                    .with_hint("nothing was saved; use another storage"));
            }
        }
    }
    Ok(())
}

/// Lists a directory in pages of at most `limit` entries, as far as it has not more than expected.
async fn pages(
    storage: &dyn Storage,
    dir: &str,
    limit: usize,
    expected: usize,
) -> Result<Vec<Entry>> {
    let mut pages = Pager::new(storage, List::new(dir).with_limit(limit));
    let mut entries: Vec<Entry> = Vec::new();
    while entries.len() <= expected
        && let Some(page) = pages.next().await?
    {
        entries.extend(page.entries);
    }
    Ok(entries)
}

/// Lets several writers create one object at the same moment, some times, and verifies that the
/// storage acknowledges one of them, keeps its bytes, and refuses another one later.
///
/// Cost on a server: about 90 requests, or 250 of which 12 send 8 MiB, for objects in parts.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where more than one object was acknowledged; others as for any call.
pub async fn race(storage: &Arc<dyn Storage>, way: Way) -> Result<()> {
    races(storage, way).await.map_err(Error::from)
}

/// Reason for which a race fails.
enum Failure {
    /// The storage does not keep the condition of creates.
    NotExclusive(String),
    /// A call failed, which says nothing about conditions.
    Call(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NotExclusive(what) => Self::new(ErrorKind::Unsupported, what)
                .with_hint("nothing was saved; use a server that honours conditional creates"),
            Failure::Call(error) => error,
        }
    }
}

async fn races(storage: &Arc<dyn Storage>, way: Way) -> std::result::Result<(), Failure> {
    let races = way.plan().iter().map(|race| {
        let storage = Arc::clone(storage);
        run_race(storage, way, *race)
    });
    match way {
        // Some servers make writers of one key wait for a second or more.
        Way::Single => all(races).await,
        Way::Parts => {
            for race in races {
                race.await?;
            }
            Ok(())
        }
    }
}

async fn run_race(
    storage: Arc<dyn Storage>,
    way: Way,
    race: Race,
) -> std::result::Result<(), Failure> {
    let name = format!("{DIR}/{PREFIX}{:032x}-race", crate::random::u128());
    let key = Key::new(name)?;
    let verdict = one_race(&storage, way, race, &key).await;
    remove_object(&*storage, &key).await;
    verdict
}

async fn one_race(
    storage: &Arc<dyn Storage>,
    way: Way,
    race: Race,
    key: &Key,
) -> std::result::Result<(), Failure> {
    let mut ready = Vec::new();
    for (writer, start) in start_all(storage, way, race, key).await? {
        ready.push((writer, start?));
    }
    let barrier = Arc::new(Barrier::new(ready.len()));
    let mut writers = JoinSet::new();
    for (writer, start) in ready {
        let storage = Arc::clone(storage);
        let key = key.clone();
        let barrier = Arc::clone(&barrier);
        writers.spawn(async move {
            barrier.wait().await;
            let done = match start {
                None => storage.create(&key, vec![body(writer, race.len)]).await,
                Some(upload) => upload.finish().await,
            };
            (writer, done)
        });
    }
    // All are waited for, whatever one of them says: one that goes on would leave its object.
    let mut acknowledged = Vec::new();
    let mut failed = None;
    while let Some(done) = writers.join_next().await {
        match done {
            Ok((writer, Ok(()))) => acknowledged.push(writer),
            Ok((_, Err(error))) => match error.kind() {
                ErrorKind::AlreadyExists | ErrorKind::OutcomeUnknown | ErrorKind::NotDurable => {}
                _ => failed = Some(error),
            },
            Err(stopped) => failed = Some(stopped_error(stopped)),
        }
    }
    if acknowledged.len() > 1 {
        return Err(Failure::NotExclusive(format!(
            "this storage acknowledged {} of {} writers that created the same object{} at once, so \
             one save could overwrite another",
            acknowledged.len(),
            race.writers,
            in_parts(way)
        )));
    }
    if let Some(error) = failed {
        return Err(error.of_a_trial().into());
    }
    if let [winner] = acknowledged[..] {
        let wanted = body(winner, race.len);
        let read = storage.read(key, ReadRange::Bounded(0..64)).await?;
        if read.size != wanted.len() as u64 || !wanted.starts_with(&read.bytes) {
            return Err(Failure::NotExclusive(format!(
                "this storage acknowledged an object{} but keeps the bytes of another writer",
                in_parts(way)
            )));
        }
    }
    let late = body(race.writers, 32);
    let late = match way {
        Way::Single => storage.create(key, vec![late]).await,
        Way::Parts => match storage.upload_in_parts(key, late).await {
            Ok(upload) => upload.finish().await,
            Err(error) => Err(error),
        },
    };
    match late {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.of_a_trial().into()),
        Ok(()) => Err(Failure::NotExclusive(format!(
            "this storage overwrites an existing object{} despite the condition, so one save \
             could overwrite another",
            in_parts(way)
        ))),
    }
}

/// Upload that is begun; none for an object that is created in one request.
type Started = (usize, Result<Option<Box<dyn Upload>>>);

/// Begins an upload for each writer, whose completion alone is left; nothing where objects are
/// created in one request.
async fn start_all(
    storage: &Arc<dyn Storage>,
    way: Way,
    race: Race,
    key: &Key,
) -> Result<Vec<Started>> {
    let mut starts = JoinSet::new();
    for writer in 0..race.writers {
        let storage = Arc::clone(storage);
        let key = key.clone();
        starts.spawn(async move {
            let start = match way {
                Way::Single => Ok(None),
                Way::Parts => {
                    let started = storage.upload_in_parts(&key, body(writer, race.len)).await;
                    started.map(Some).map_err(Error::of_a_trial)
                }
            };
            (writer, start)
        });
    }
    let mut started = Vec::new();
    while let Some(start) = starts.join_next().await {
        started.push(start.map_err(stopped_error)?);
    }
    Ok(started)
}

fn in_parts(way: Way) -> &'static str {
    match way {
        Way::Single => "",
        Way::Parts => " in parts",
    }
}

/// Bytes that one writer sends: its number, and nothing.
fn body(writer: usize, len: usize) -> Bytes {
    let mut body = format!("probe of writer {writer:4}\n").into_bytes();
    body.resize(body.len().max(len), 0);
    body.into()
}

/// Creates an object whose key no other process has: where it exists, an attempt whose answer was
/// lost made it.
async fn create(storage: &dyn Storage, key: &Key, body: Bytes) -> Result<()> {
    match storage.create(key, vec![body]).await {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        created => created.map_err(Error::of_a_trial),
    }
}

/// Removes all objects of a probe. A bucket may refuse to delete, as one with a retention policy
/// does: then they stay, and cost their space.
pub(crate) async fn remove(storage: &dyn Storage, dir: &str) {
    let list = RecursiveList {
        dir,
        token: None,
        limit: MAX_OBJECTS,
        meta: false,
    };
    match storage.list_recursive(&list).await {
        Ok(page) => {
            for object in page.objects {
                if let Ok(key) = Key::new(format!("{dir}/{}", object.name)) {
                    remove_object(storage, &key).await;
                }
            }
        }
        Err(error) => tracing::debug!(dir, %error, "probes could not be listed"),
    }
}

/// Removes one object of a probe.
pub(crate) async fn remove_object(storage: &dyn Storage, key: &Key) {
    if let Err(error) = storage.delete(key).await {
        tracing::debug!(key = key.as_str(), %error, "a probe could not be removed");
    }
}

fn stopped_error(stopped: tokio::task::JoinError) -> Error {
    super::task::stopped(stopped, ErrorKind::Unavailable, "a probe")
}
