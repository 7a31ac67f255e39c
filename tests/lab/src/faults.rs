//! Every call to the disk fails, in every operation, in every way.
//!
//! The real code runs over a watch that makes one call fail: before it is made, or after, so that its answer is lost; or that changes the
//! store at that moment, as an operator or an attacker would. Then another host looks. What was answered *done* must be
//! there; what was answered *not done* must have changed nothing; and the next call of the same host must work.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use persist_host::conformance::noise;
use persist_host::snapshot::{Adapter, Error, SaveOptions, Scope, Version};
use persist_host::storage::{Call, Local, Storage, Watch};
use rustix::io::Errno;

use crate::steps::{Deed, OWN_KEY, Step, runtime, scope};
use crate::{Plan, Report};

/// Operations, each on a store with a history.
const STEPS: &[Step] = &[
    Step::Save("memory", 4000),
    Step::Save("new", 4000),
    Step::Stream("memory", 300_000),
    Step::Delete("memory"),
    Step::Restore("memory", 1),
    Step::Fork("memory", "copy"),
    Step::Pin("memory", 1),
    Step::Prune("memory"),
    Step::Purge("memory"),
    Step::Put(4000),
];

/// What happens at a call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It fails, and is not made.
    Fails(Errno),
    /// It is made, and seems to fail.
    Lost(Errno),
    /// The directory of the store is removed.
    StoreRemoved,
    /// The directory of the name becomes a symbolic link to a place outside the store.
    LinkPlanted,
    /// Another file, of two names, is where the next version would be.
    NextTaken,
}

const FAULTS: &[Fault] = &[
    Fault::Fails(Errno::NOSPC),
    Fault::Fails(Errno::DQUOT),
    Fault::Fails(Errno::IO),
    Fault::Fails(Errno::INTR),
    Fault::Fails(Errno::ACCESS),
    Fault::Fails(Errno::ROFS),
    Fault::Fails(Errno::MFILE),
    Fault::Lost(Errno::IO),
    Fault::Lost(Errno::INTR),
    Fault::StoreRemoved,
    Fault::LinkPlanted,
    Fault::NextTaken,
];

/// The target. It has one size: each fault at each call of each operation.
///
/// # Errors
/// Where a store cannot be made to begin with.
pub fn run(_: Plan) -> Result<Report> {
    try_all(1)
}

/// Tries one case in so many.
fn try_all(sample: usize) -> Result<Report> {
    let mut report = Report::default();
    let mut case = 0;
    for step in STEPS {
        for fault in FAULTS {
            for at in 0.. {
                case += 1;
                if case % sample != 0 && at > 0 {
                    continue;
                }
                let (reached, broken) = Case::new(*step, *fault, at)?.run()?;
                if !reached {
                    break;
                }
                report.tried(&format!("faults: {}", kind(fault)), 1);
                let place = |broken| format!("{step:?} with {fault:?} at call {at}: {broken}");
                report.violations.extend(broken.map(place));
            }
        }
    }
    Ok(report)
}

fn kind(fault: &Fault) -> String {
    match fault {
        Fault::Fails(errno) => format!("a call fails with {}", io::Error::from(*errno)),
        Fault::Lost(errno) => format!("a call is made and says {}", io::Error::from(*errno)),
        Fault::StoreRemoved => "the store is removed".into(),
        Fault::LinkPlanted => "a symbolic link is planted".into(),
        Fault::NextTaken => "a hard link is in the next version's place".into(),
    }
}

/// One fault at one call of one operation.
struct Case {
    step: Step,
    fault: Fault,
    at: usize,
    base: tempfile::TempDir,
}

/// What another host sees.
#[derive(Debug, PartialEq)]
struct Seen {
    /// Versions of each name, newest first, and the state of the newest.
    names: Vec<(String, Vec<Version>, Option<Bytes>)>,
    pins: Vec<Version>,
    own: Option<Bytes>,
}

impl Case {
    fn new(step: Step, fault: Fault, at: usize) -> Result<Self> {
        let base = crate::folder()?;
        let case = Self {
            step,
            fault,
            at,
            base,
        };
        fs::create_dir(case.outside())?;
        let (scope, storage) = case.host(None);
        runtime()?.block_on(async {
            for text in ["one", "two", "three"] {
                scope
                    .save("memory", text.into(), SaveOptions::default())
                    .await?;
            }
            Adapter::new(storage).save(b"mine", OWN_KEY).await
        })?;
        Ok(case)
    }

    fn store(&self) -> PathBuf {
        self.base.path().join("store")
    }

    fn outside(&self) -> PathBuf {
        self.base.path().join("outside")
    }

    fn host(&self, watch: Option<Arc<Saboteur>>) -> (Scope, Arc<dyn Storage>) {
        let storage: Arc<dyn Storage> = match watch {
            Some(watch) => Arc::new(Local::watched(self.store(), watch)),
            None => Arc::new(Local::new(self.store())),
        };
        (scope(Arc::clone(&storage)), storage)
    }

    /// Whether the operation makes so many calls, and what is wrong.
    fn run(self) -> Result<(bool, Option<String>)> {
        let watch = Arc::new(Saboteur {
            left: AtomicUsize::new(self.at + 1),
            fault: self.fault,
            store: self.store(),
            outside: self.outside(),
            unsynced: Mutex::default(),
        });
        let (scope, storage) = self.host(Some(Arc::clone(&watch)));
        let state = |len| noise(9, len);
        let before = self.look()?;
        let answer = runtime()?.block_on(self.step.act(&scope, &storage, state));
        if watch.left.load(Ordering::SeqCst) > 0 {
            return Ok((false, None));
        }
        let unsynced = watch.unsynced().clone();
        let broken = match self.fault {
            _ if answer.is_ok() && unsynced.is_some() => {
                Some(format!("{answer:?}, and {unsynced:?} was not synced"))
            }
            Fault::Fails(_) | Fault::Lost(_) => {
                let after = self.look()?;
                judge(&answer, &before, &after).map(|broken| format!("{broken}: {answer:?}"))
            }
            // What is removed or put there by others is theirs to answer for.
            Fault::StoreRemoved | Fault::LinkPlanted | Fault::NextTaken => self.look_around()?,
        };
        // A process does not go on in another directory than the one that it began with; the next one does.
        let (scope, storage) = if matches!(self.fault, Fault::StoreRemoved) {
            self.host(None)
        } else {
            (scope, storage)
        };
        let broken = match broken {
            None => runtime()?.block_on(self.go_on(&scope, &storage)),
            broken => broken,
        };
        Ok((true, broken))
    }

    fn look(&self) -> Result<Seen> {
        let (scope, storage) = self.host(None);
        runtime()?.block_on(async {
            let mut names = Vec::new();
            for name in scope.names("", None, 100).await? {
                let versions = scope.versions(name.as_str(), None, 100).await?;
                let head = scope.load(name.as_str(), None).await?;
                names.push((name.to_string(), versions, head.map(|head| head.state)));
            }
            let own = match Adapter::new(storage).load(OWN_KEY).await {
                Ok(own) => Some(own),
                Err(Error::NotFound(_)) => None,
                Err(error) => return Err(error.into()),
            };
            Ok(Seen {
                names,
                pins: scope.pins("memory").await?,
                own,
            })
        })
    }

    /// Whether anything was written outside the store, or over what was put into it.
    fn look_around(&self) -> Result<Option<String>> {
        let outside: Vec<_> = fs::read_dir(self.outside())?.collect::<io::Result<_>>()?;
        let bystander = self.base.path().join("bystander");
        if !outside.is_empty() {
            return Ok(Some(format!("written outside the store: {outside:?}")));
        }
        match bystander.exists() && fs::read(bystander)? != BYSTANDER {
            true => Ok(Some("a file with another name was written".into())),
            false => Ok(None),
        }
    }

    /// The next calls of the same host, once nothing fails any more.
    async fn go_on(&self, scope: &Scope, storage: &Arc<dyn Storage>) -> Option<String> {
        let state = noise(10, 100);
        // In a name that nobody tampered with.
        let saved = scope
            .save("next", state.clone(), SaveOptions::default())
            .await;
        let loaded = scope.load("next", None).await;
        let put = Adapter::new(Arc::clone(storage))
            .save(&state, OWN_KEY)
            .await;
        match (saved, loaded, put) {
            (Ok(_), Ok(Some(loaded)), Ok(())) if loaded.state == state => None,
            other => Some(format!("the next call fails: {other:?}")),
        }
    }
}

/// Whether an answer is true.
fn judge(answer: &Result<Deed>, before: &Seen, after: &Seen) -> Option<String> {
    let versions = |seen: &Seen, name: &str| {
        let found = seen.names.iter().find(|(known, ..)| known == name);
        found.map(|(_, versions, head)| (versions.clone(), head.clone()))
    };
    let holds = match answer {
        Ok(Deed::Made(name, version, state)) => {
            let (versions, head) = versions(after, name).unwrap_or_default();
            versions.first() == Some(version) && head == *state
        }
        Ok(Deed::Put(state)) => after.own.as_ref() == Some(state),
        Ok(Deed::Pinned(_, version)) => after.pins.contains(version),
        Ok(Deed::Removed(name, gone, _)) => {
            let (versions, _) = versions(after, name).unwrap_or_default();
            gone.iter().all(|version| !versions.contains(version))
        }
        Ok(Deed::Lost) => false,
        Err(error) => match error.downcast_ref::<Error>() {
            // It may have been made, or not; what there is besides is as it was.
            Some(Error::UnknownOutcome { version, .. }) => {
                let strip = |seen: &Seen| -> Vec<Vec<Version>> {
                    let versions = seen.names.iter().map(|(_, versions, _)| versions);
                    let known = versions.map(|versions| {
                        versions
                            .iter()
                            .copied()
                            .filter(|known| known != version)
                            .collect()
                    });
                    known
                        .filter(|versions: &Vec<_>| !versions.is_empty())
                        .collect()
                };
                strip(before) == strip(after)
            }
            // Some of what was to be removed may be gone, the oldest first; the newest is there. A sync that
            // failed makes a change that was made uncertain.
            Some(Error::Storage(error)) if is_uncertain(error.kind()) => true,
            _ => before == after || only_removed(before, after),
        },
    };
    (!holds).then(|| format!("{before:?} became {after:?}"))
}

fn is_uncertain(kind: persist_host::storage::ErrorKind) -> bool {
    use persist_host::storage::ErrorKind;
    matches!(kind, ErrorKind::NotDurable | ErrorKind::Unanswered)
}

/// Whether `after` is `before` without some of the oldest versions, or with a tombstone on top that a purge made.
fn only_removed(before: &Seen, after: &Seen) -> bool {
    let (Some((_, old, state)), Some((_, new, head))) = (before.names.first(), after.names.first())
    else {
        return false;
    };
    let is_tombstone = new.first() == Some(&4) && head.is_none();
    let kept = &new[usize::from(is_tombstone)..];
    let newest_is_kept = kept.first() == old.first() && (is_tombstone || head == state);
    old.starts_with(kept) && (newest_is_kept || is_tombstone)
}

const BYSTANDER: &[u8] = b"not to be touched";

/// Makes one call fail, or does harm when it is made.
#[derive(Debug)]
struct Saboteur {
    /// Calls until then.
    left: AtomicUsize,
    fault: Fault,
    store: PathBuf,
    outside: PathBuf,
    /// What of the store could not be synced, and was not since.
    unsynced: Mutex<Option<PathBuf>>,
}

impl Saboteur {
    fn unsynced(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_now(&self) -> bool {
        let less = |left: usize| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less)
            == Ok(1)
    }

    fn harm(&self) -> io::Result<()> {
        let names = self.store.join("bot/~");
        match self.fault {
            Fault::StoreRemoved => fs::remove_dir_all(&self.store),
            Fault::LinkPlanted => {
                fs::rename(names.join("memory"), self.store.join("moved"))?;
                symlink(&self.outside, names.join("memory"))
            }
            Fault::NextTaken => {
                let bystander = self.store.with_file_name("bystander");
                fs::write(&bystander, BYSTANDER)?;
                fs::hard_link(bystander, names.join("memory/9999999995-0000000004.gz"))
            }
            Fault::Fails(_) | Fault::Lost(_) => Ok(()),
        }
    }
}

impl Watch for Saboteur {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        if matches!(self.fault, Fault::Lost(_)) || !self.is_now() {
            return Ok(());
        }
        // What is there already is harm enough.
        let _ = self.harm();
        match self.fault {
            Fault::Fails(errno) => {
                let synced = synced(call).filter(|path| path.starts_with(&self.store));
                *self.unsynced() = synced.map(Path::to_owned);
                Err(errno.into())
            }
            _ => Ok(()),
        }
    }

    fn after(&self, call: Call<'_>, done: bool) -> io::Result<()> {
        let mut unsynced = self.unsynced();
        if done && unsynced.is_some() && synced(call) == unsynced.as_deref() {
            *unsynced = None;
        }
        drop(unsynced);
        match self.fault {
            // Reading loses nothing but the answer: that is what failing is.
            Fault::Lost(errno) if self.is_now() && done => Err(errno.into()),
            _ => Ok(()),
        }
    }
}

/// What a call syncs.
fn synced(call: Call<'_>) -> Option<&Path> {
    match call {
        Call::SyncFile(path) | Call::SyncDir(path) => Some(path),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_outcome_is_misreported_and_the_next_call_works() {
        let report = try_all(7).expect("stores are made");
        assert_eq!(report.violations, [""; 0]);
        assert!(report.total() > 100, "{report}");
    }

    #[test]
    fn an_answer_that_is_not_true_is_found() {
        let case = Case::new(STEPS[0], FAULTS[0], 0).expect("a store");
        let before = case.look().expect("is looked at");
        let state = Some(noise(9, 4000));
        let lie = Ok(Deed::Made("memory", 4, state.clone()));
        assert!(judge(&lie, &before, &before).is_some());

        let (scope, storage) = case.host(None);
        let step = case.step.act(&scope, &storage, |len| noise(9, len));
        let truth = runtime().expect("a runtime").block_on(step);
        let after = case.look().expect("is looked at");
        assert_eq!(judge(&truth, &before, &after), None);
        let lie = Err(Error::Invalid("nothing was done".into()).into());
        assert!(judge(&lie, &before, &after).is_some());
    }
}
