//! Events of a history: the calls of a worker to the store, their answers, and the times of both.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use persist_host::conformance::noise;
use persist_host::snapshot::{
    Error, Expect, Expiry, Info, Purge, Retention, SaveOptions, Scope, Snapshot, Store, Version,
    Writer,
};
use serde::{Deserialize, Serialize};

/// Microseconds on a clock that all processes of this machine share, and that goes on while one of
/// them is stopped.
pub(crate) type Micros = u64;

/// Now.
pub(crate) fn now() -> Micros {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1000
}

/// Which state it is: no two saves of a history have the same.
pub(crate) type Tag = u32;

/// Content of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum What {
    State(Tag),
    Tombstone,
}

/// Condition that must be true of the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wanted {
    Any,
    Absent,
    Version(Version),
}

impl From<Wanted> for Expect {
    fn from(wanted: Wanted) -> Self {
        match wanted {
            Wanted::Any => Self::Any,
            Wanted::Absent => Self::Absent,
            Wanted::Version(version) => Self::Version(version),
        }
    }
}

/// Call that a worker makes to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Call {
    Save {
        tag: Tag,
        wanted: Wanted,
    },
    Stream {
        tag: Tag,
        wanted: Wanted,
    },
    /// Writes a whole state, and drops it unfinished, as a guest does that dies: nothing is made.
    Abandon {
        tag: Tag,
    },
    Load {
        at: Option<Version>,
    },
    Stat {
        at: Option<Version>,
    },
    Delete {
        wanted: Wanted,
    },
    Restore {
        version: Version,
        wanted: Wanted,
    },
    Fork {
        to: usize,
        wanted: Wanted,
    },
    Prune {
        keep: usize,
    },
    Purge,
    /// An expiry after the grace period: of the head, or of what is below the tombstone of an
    /// expiry. Careless: with [`Bug::ExpiryUnconditional`](super::Bug::ExpiryUnconditional).
    Expire {
        careless: bool,
    },
    /// Everything that is there, while no other call is made.
    Audit,
}

/// Answer to a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// This version was made.
    Made(Version, What),
    /// This version is there.
    Seen(Version, What),
    /// Nothing is, or a tombstone.
    Nothing,
    /// There is no such version, or nothing to work on.
    NotFound,
    /// These were removed.
    Pruned(Vec<Version>),
    /// Exactly these are there.
    All(BTreeMap<Version, What>),
    /// Everything old below this tombstone was removed.
    PurgeReport(Version),
    /// This head was old, and this tombstone was made right above it.
    Expired(Version, Version),
    /// An expiry left the name as it is.
    Kept,
    /// The wanted condition does not hold; this is the head.
    Conflict(Option<Version>),
    /// It may have been made, as this version where one is named.
    Unknown(Option<Version>),
    /// It failed, and was not made.
    Failed(String),
    /// An answer that must never be given.
    Wrong(String),
}

/// One call: asked, and answered where an answer came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub(crate) worker: usize,
    /// Which of the history's names.
    pub(crate) name: usize,
    pub(crate) call: Call,
    pub(crate) asked: Micros,
    /// None: the caller died, or still waits.
    pub(crate) answered: Option<(Micros, Answer)>,
}

/// The name that stands for a number.
pub(crate) fn name_of(name: usize) -> String {
    format!("name-{name}")
}

/// Tags that this divides stand for large states, which are sent before they are whole.
const LARGE: Tag = 97;

/// Bytes of a large state: more than a store holds back. They do not shrink.
const LARGE_LEN: usize = 9 << 20;

/// How far it is to the next tag of a large state.
pub(crate) fn to_large(tag: Tag) -> Tag {
    LARGE - tag % LARGE
}

/// The state of a tag: its own, and some longer than others.
pub(crate) fn state_of(tag: Tag) -> Bytes {
    if tag > 0 && tag.is_multiple_of(LARGE) {
        return noise(tag.into(), LARGE_LEN);
    }
    let line = format!("state {tag}\n");
    let bytes = line.bytes().cycle().take(len_of(tag));
    bytes.collect::<Vec<_>>().into()
}

fn len_of(tag: Tag) -> usize {
    match tag % 8 {
        _ if tag > 0 && tag.is_multiple_of(LARGE) => LARGE_LEN,
        n => 10 + (n as usize) * 400,
    }
}

const MEDIA_TYPE: &str = "text/x-state-";

fn options(tag: Tag, wanted: Wanted) -> SaveOptions {
    // A restored or forked version keeps it: so every version tells which state it should have.
    SaveOptions::expecting(wanted.into()).with_media_type(format!("{MEDIA_TYPE}{tag}"))
}

/// The scope that histories are about.
pub(crate) fn scope(store: &Store) -> Scope {
    store.scope("agent", None).expect("a good name")
}

impl Event {
    /// Returns true if the answer alone shows that something is wrong.
    pub(crate) fn is_wrong(&self) -> bool {
        matches!(self.answered, Some((_, Answer::Wrong(_))))
    }

    /// Returns the event for a disk where no fault was injected: a failure is then a wrong answer.
    pub(crate) fn on_a_healthy_disk(mut self) -> Self {
        if let Some((_, answer)) = &mut self.answered
            && let Answer::Failed(why) = answer
        {
            *answer = Answer::Wrong(format!("on a healthy disk: {why}"));
        }
        self
    }
}

impl Call {
    /// Returns true if the call makes a version.
    pub(crate) fn makes(self) -> bool {
        !matches!(
            self,
            Self::Abandon { .. }
                | Self::Load { .. }
                | Self::Stat { .. }
                | Self::Prune { .. }
                | Self::Audit
        )
    }

    /// The version that it takes for the head.
    pub(crate) fn wanted_version(self) -> Option<Version> {
        match self {
            Self::Save { wanted, .. }
            | Self::Stream { wanted, .. }
            | Self::Delete { wanted }
            | Self::Restore { wanted, .. }
            | Self::Fork { wanted, .. } => match wanted {
                Wanted::Version(version) => Some(version),
                _ => None,
            },
            _ => None,
        }
    }

    /// Asks it.
    pub(crate) async fn ask(self, scope: &Scope, name: usize) -> Answer {
        let name = &name_of(name);
        let answer = match self {
            Self::Save { tag, wanted } => {
                let saved = scope.save(name, state_of(tag), options(tag, wanted)).await;
                saved.map(|info| made(&info))
            }
            Self::Stream { tag, wanted } => {
                stream(scope, name, tag, wanted).await.map(|i| made(&i))
            }
            Self::Abandon { tag } => {
                let writer = write(scope, name, tag, Wanted::Any).await;
                writer.map(|_| Answer::Nothing)
            }
            Self::Load { at } => scope.load(name, at).await.map(|found| match (found, at) {
                (Some(snapshot), _) => loaded(&snapshot),
                (None, Some(version)) => Answer::Seen(version, What::Tombstone),
                (None, None) => Answer::Nothing,
            }),
            Self::Stat { at } => {
                let found = scope.stat(name, at).await;
                found.map(|found| found.map_or(Answer::Nothing, |info| seen(&info)))
            }
            Self::Delete { wanted } => scope.delete(name, wanted.into()).await.map(|i| made(&i)),
            Self::Restore { version, wanted } => {
                let restored = scope.restore(name, version, wanted.into()).await;
                restored.map(|info| made(&info))
            }
            Self::Fork { to, wanted } => {
                let forked = scope.fork(name, None, &name_of(to), wanted.into()).await;
                forked.map(|info| made(&info))
            }
            Self::Prune { keep } => prune(scope, name, keep).await,
            Self::Purge => {
                let purged = scope.purge(name, Purge::AfterGrace).await;
                let tombstone = purged.map(|purged| purged.tombstone);
                tombstone.map(|tombstone| Answer::PurgeReport(tombstone.expect("numbers are left")))
            }
            Self::Expire { careless } => expire(scope, name, careless).await,
            Self::Audit => return audit(scope, name).await,
        };
        match (self, answer) {
            // Clocks disagree: nothing may be removed by age.
            (
                Self::Prune { .. } | Self::Purge | Self::Expire { .. },
                Err(Error::Unsupported { what, .. }),
            ) => Answer::Failed(what),
            (_, answer) => answer.unwrap_or_else(failed),
        }
    }
}

async fn stream(scope: &Scope, name: &str, tag: Tag, wanted: Wanted) -> Result<Info, Error> {
    write(scope, name, tag, wanted).await?.finish().await
}

async fn write(scope: &Scope, name: &str, tag: Tag, wanted: Wanted) -> Result<Writer, Error> {
    let mut writer = scope.writer(name, options(tag, wanted)).await?;
    let state = state_of(tag);
    for piece in state.chunks((state.len() / 8).max(700)) {
        writer.write(piece).await?;
    }
    Ok(writer)
}

async fn prune(scope: &Scope, name: &str, keep: usize) -> Result<Answer, Error> {
    let mut retention = Retention::nothing();
    retention.keep_last = keep;
    let fates = scope.prune(name, &retention).await?;
    let removed = fates.iter().filter(|fate| fate.keep.is_none());
    Ok(Answer::Pruned(removed.map(|fate| fate.version).collect()))
}

async fn expire(scope: &Scope, name: &str, careless: bool) -> Result<Answer, Error> {
    let rules = Retention::nothing();
    let expiry = scope.expire(name, Duration::ZERO, &rules, careless).await?;
    Ok(match expiry {
        Expiry::Expired(head, Some(tombstone)) => Answer::Expired(head, tombstone),
        // The bug: what was found to be old is not what is deleted.
        Expiry::Expired(head, None) => match scope.delete(name, Expect::Any).await {
            Ok(info) => Answer::Expired(head, info.version),
            Err(Error::NotFound(_)) => Answer::Kept,
            Err(error) => return Err(error),
        },
        Expiry::Purged(tombstone, _) if !careless => Answer::PurgeReport(tombstone),
        Expiry::Unreadable => Answer::Failed("the newest version cannot be read".into()),
        _ => Answer::Kept,
    })
}

async fn audit(scope: &Scope, name: &str) -> Answer {
    let mut all = BTreeMap::new();
    let versions = match scope.versions(name, None, usize::MAX).await {
        Ok(versions) => versions,
        Err(error) => return Answer::Wrong(format!("the versions cannot be listed: {error}")),
    };
    for version in versions {
        let found = scope.load(name, Some(version)).await;
        let answer = found.map(|found| found.map(|snapshot| loaded(&snapshot)));
        match answer {
            Ok(Some(Answer::Seen(version, what))) => drop(all.insert(version, what)),
            Ok(None) => drop(all.insert(version, What::Tombstone)),
            Ok(Some(wrong)) => return wrong,
            Err(error) => return Answer::Wrong(format!("version {version}: {error}")),
        }
    }
    Answer::All(all)
}

/// Returns the content of a version according to its `Info`, if that can be true.
fn what(info: &Info) -> Result<What, String> {
    if info.deleted {
        return Ok(What::Tombstone);
    }
    let tag = info
        .media_type
        .as_deref()
        .and_then(|text| text.strip_prefix(MEDIA_TYPE)?.parse().ok());
    match tag {
        Some(tag) if info.size == len_of(tag) as u64 => Ok(What::State(tag)),
        _ => Err(format!(
            "version {} is reported with a state that was never saved",
            info.version
        )),
    }
}

fn made(info: &Info) -> Answer {
    what(info).map_or_else(Answer::Wrong, |what| Answer::Made(info.version, what))
}

fn seen(info: &Info) -> Answer {
    what(info).map_or_else(Answer::Wrong, |what| Answer::Seen(info.version, what))
}

fn loaded(snapshot: &Snapshot) -> Answer {
    match what(&snapshot.info) {
        Ok(What::State(tag)) if snapshot.state == state_of(tag) => seen(&snapshot.info),
        _ => Answer::Wrong(format!(
            "version {} has other bytes than were saved",
            snapshot.info.version
        )),
    }
}

fn failed(error: Error) -> Answer {
    match error {
        Error::Conflict { head } => Answer::Conflict(head),
        Error::NotFound(_) => Answer::NotFound,
        Error::UnknownOutcome { version, .. } => Answer::Unknown(Some(version)),
        Error::Storage(error) => Answer::Failed(error.to_string()),
        error => Answer::Wrong(error.to_string()),
    }
}

/// Destination of events as they happen.
pub(crate) trait Record: Send + Sync {
    /// An event without an answer, then the same with one.
    fn record(&self, event: &Event);
}

/// Asks, and records that it is asked before and what came back after.
pub(crate) async fn ask(
    scope: &Scope,
    (worker, name): (usize, usize),
    call: Call,
    record: &Arc<dyn Record>,
) -> Answer {
    let mut event = Event {
        worker,
        name,
        call,
        asked: now(),
        answered: None,
    };
    record.record(&event);
    let answer = call.ask(scope, name).await;
    event.answered = Some((now(), answer.clone()));
    record.record(&event);
    answer
}
