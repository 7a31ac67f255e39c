//! Every call to the disk fails, in every operation, in every way.
//!
//! The real code runs over a watch that makes one call fail: before it is made, or after, so that
//! its answer is lost; or that changes the store at that moment, as an operator or an attacker
//! would. Then another host looks. What was answered *done* must be there; what was answered *not
//! done* must have changed nothing; and the next call of the same host must work.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use bytes::Bytes;
use persist_host::conformance::noise;
use persist_host::snapshot::{Adapter, Error, SaveOptions, Scope, Version};
use persist_host::storage::{Call, Local, Storage, Watch};
use rustix::io::Errno;

use crate::links::{Backup, LinkCount};
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

/// Fault that happens at a call.
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
    /// The temporary files get a second name elsewhere, and another host saves the next version.
    BackedUp,
    /// Another directory has the path of the store until the operation has ended.
    Remounted(Mounted),
}

/// The directory that has the path of the store for a while.
#[derive(Clone, Copy, Debug)]
enum Mounted {
    /// None: the path is free.
    Nothing,
    /// An empty one, as a mount point is when its disk is gone.
    Empty,
    /// A copy of the store, as another disk may hold.
    Copy,
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
    Fault::BackedUp,
    Fault::Remounted(Mounted::Nothing),
    Fault::Remounted(Mounted::Empty),
    Fault::Remounted(Mounted::Copy),
];

/// The target. It has one size: each fault at each call of each operation.
///
/// # Errors
/// Where a store cannot be made to begin with.
pub fn run(_: Plan) -> Result<Report> {
    try_all(1, FAULTS, HEALTHY)
}

/// Makes the storage of the host that is tried.
type Wrap = fn(&Path, Arc<Saboteur>) -> Arc<dyn Storage>;

const HEALTHY: Wrap = |root, watch| Arc::new(Local::watched(root, watch));

/// Tries one in this many cases.
fn try_all(sample: usize, faults: &[Fault], wrap: Wrap) -> Result<Report> {
    let mut report = Report::default();
    let mut case = 0;
    for step in STEPS {
        for fault in faults {
            for at in 0.. {
                case += 1;
                if case % sample != 0 && at > 0 {
                    continue;
                }
                let (reached, broken) = Case::new(*step, *fault, at)?.run(wrap)?;
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
        Fault::BackedUp => "a temporary file is linked, and another host saves".into(),
        Fault::Remounted(Mounted::Nothing) => "the store is away for a while".into(),
        Fault::Remounted(Mounted::Empty) => "an empty directory is in the store's place".into(),
        Fault::Remounted(Mounted::Copy) => "a copy is in the store's place".into(),
    }
}

/// One fault at one call of one operation.
struct Case {
    step: Step,
    fault: Fault,
    at: usize,
    base: tempfile::TempDir,
}

/// View of the store that another host sees.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    /// Versions of each name, newest first, and the state of the newest.
    names: Vec<(String, Vec<Version>, Option<Bytes>)>,
    pins: Vec<Version>,
    own: Option<Bytes>,
}

/// The answers of a host while its store is away.
struct Meanwhile {
    /// The version that a save made, as far as it was answered.
    saved: std::result::Result<Version, Error>,
    /// Returns true if a load found nothing, although a state had been saved.
    says_nothing: bool,
}

/// The state that is saved while a store is away.
fn meanwhile_state() -> Bytes {
    noise(11, 100)
}

/// Asks for the next calls of a host whose store is away.
async fn next_calls(scope: &Scope) -> Meanwhile {
    let loaded = scope.load("memory", None).await;
    let save = scope.save("met", meanwhile_state(), SaveOptions::default());
    let saved = save.await;
    Meanwhile {
        saved: saved.map(|info| info.version),
        says_nothing: matches!(loaded, Ok(None)),
    }
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
        let (scope, storage) = case.other_host();
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

    /// Another host, without faults.
    fn other_host(&self) -> (Scope, Arc<dyn Storage>) {
        let storage: Arc<dyn Storage> = Arc::new(Local::new(self.store()));
        (scope(Arc::clone(&storage)), storage)
    }

    /// Returns true if the operation makes this many calls, and the violations.
    fn run(self, wrap: Wrap) -> Result<(bool, Option<String>)> {
        let watch = Arc::new(Saboteur::new(&self)?);
        let storage = wrap(&self.store(), Arc::clone(&watch));
        let scope = scope(Arc::clone(&storage));
        if let Fault::Remounted(_) = self.fault {
            // A host that never met the store cannot tell that another is in its place.
            let met = scope.save("met", "once".into(), SaveOptions::default());
            runtime()?.block_on(met)?;
        }
        let state = |len| noise(9, len);
        let before = self.look()?;
        watch.arm(self.at);
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
            Fault::BackedUp => self.look_for_both(&watch, &answer)?,
            Fault::Remounted(_) => {
                let meanwhile = runtime()?.block_on(next_calls(&scope));
                self.mount_again()?;
                self.judge_remounted(&answer, &meanwhile, &before)?
            }
        };
        // A process does not go on in another directory than the one that it began with; the next
        // one does.
        let (scope, storage) = if matches!(self.fault, Fault::StoreRemoved) {
            self.other_host()
        } else {
            (scope, storage)
        };
        let broken = match broken {
            None => runtime()?.block_on(self.go_on(&scope, &storage)),
            broken => broken,
        };
        Ok((true, broken))
    }

    /// Returns what is wrong where another host saved in the midst of the operation.
    fn look_for_both(&self, watch: &Saboteur, answer: &Result<Deed>) -> Result<Option<String>> {
        let (scope, _) = self.other_host();
        let load = |name, version| {
            let loaded = runtime()?.block_on(scope.load(name, Some(version)));
            Ok::<_, anyhow::Error>(loaded.map(|found| found.map(|snapshot| snapshot.state)))
        };
        // A fork copies what it found, which may be either.
        if let Ok(Deed::Made(name, version, state)) = answer
            && !matches!(self.step, Step::Fork(..))
            && !matches!(load(name, *version)?, Ok(found) if found == *state)
        {
            return Ok(Some(format!(
                "version {version} of {name} was acknowledged and is another's"
            )));
        }
        let may_be_removed = matches!(self.step, Step::Prune(_) | Step::Purge(_));
        let version = watch.foreign.load(Ordering::SeqCst);
        Ok(match load("memory", version)? {
            Ok(Some(state)) if state == FOREIGN => None,
            _ if may_be_removed => None,
            _ => Some(format!("another host's version {version} is lost")),
        })
    }

    /// Puts the store back to its path.
    fn mount_again(&self) -> Result<()> {
        if self.store().exists() {
            fs::remove_dir_all(self.store())?;
        }
        Ok(fs::rename(self.away(), self.store())?)
    }

    /// Returns what is wrong after another directory had the path of the store.
    fn judge_remounted(
        &self,
        answer: &Result<Deed>,
        meanwhile: &Meanwhile,
        before: &Seen,
    ) -> Result<Option<String>> {
        if let Ok(version) = meanwhile.saved {
            let (scope, _) = self.other_host();
            let loaded = runtime()?.block_on(scope.load("met", Some(version)));
            let is_there = loaded
                .ok()
                .flatten()
                .is_some_and(|snapshot| snapshot.state == meanwhile_state());
            if !is_there {
                return Ok(Some(format!(
                    "version {version} was acknowledged while the store was away, and is lost"
                )));
            }
        }
        if meanwhile.says_nothing {
            let what = "while the store was away, a load said that nothing is saved";
            return Ok(Some(what.into()));
        }
        let after = self.look()?;
        Ok(match answer {
            Ok(Deed::Lost) | Err(_) => None,
            Ok(_) => judge(answer, before, &after).map(|broken| format!("{broken}: {answer:?}")),
        })
    }

    fn away(&self) -> PathBuf {
        self.base.path().join("away")
    }

    fn look(&self) -> Result<Seen> {
        let (scope, storage) = self.other_host();
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

    /// Checks whether anything was written outside the store, or over what was put into it. Returns
    /// what was written; none if nothing was.
    fn look_around(&self) -> Result<Option<String>> {
        let outside: Vec<_> = fs::read_dir(self.outside())?.collect::<io::Result<_>>()?;
        let bystander = self.base.path().join("bystander");
        if !outside.is_empty() {
            return Ok(Some(format!("written outside the store: {outside:?}")));
        }
        if bystander.exists() && fs::read(bystander)? != BYSTANDER {
            Ok(Some("a file with another name was written".into()))
        } else {
            Ok(None)
        }
    }

    /// The next calls of the same host, once nothing fails any more.
    async fn go_on(&self, scope: &Scope, storage: &Arc<dyn Storage>) -> Option<String> {
        let state = noise(10, 100);
        // In a name without faults.
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

/// Checks whether an answer is true. Returns what is wrong; none if it is true.
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
            // Some of what was to be removed may be gone, the oldest first; the newest is there. A
            // sync that failed makes a change that was made uncertain.
            Some(Error::Storage(error)) if is_uncertain(error.kind()) => true,
            _ => before == after || only_removed(before, after),
        },
    };
    (!holds).then(|| format!("{before:?} became {after:?}"))
}

fn is_uncertain(kind: persist_host::storage::ErrorKind) -> bool {
    use persist_host::storage::ErrorKind;
    matches!(kind, ErrorKind::NotDurable | ErrorKind::OutcomeUnknown)
}

/// Returns true if `after` is `before` without some of the oldest versions, or with a tombstone on
/// top that a purge made.
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

/// State that another host saves during an operation.
const FOREIGN: &[u8] = b"another host's";

const BYSTANDER: &[u8] = b"not to be touched";

/// Makes one call fail, or does harm when it is made.
#[derive(Debug)]
struct Saboteur {
    /// Calls until then.
    left: AtomicUsize,
    fault: Fault,
    store: PathBuf,
    outside: PathBuf,
    /// Path in the store that could not be synced, and was not synced since.
    unsynced: Mutex<Option<PathBuf>>,
    /// True once that got another name: then it matters although its first name goes.
    is_named: AtomicBool,
    backup: Backup,
    links: Arc<LinkCount>,
    /// The version that another host saved.
    foreign: AtomicU64,
}

impl Saboteur {
    /// Does nothing before it is armed.
    fn new(case: &Case) -> Result<Self> {
        Ok(Self {
            left: AtomicUsize::new(usize::MAX),
            fault: case.fault,
            store: case.store(),
            outside: case.outside(),
            unsynced: Mutex::default(),
            is_named: AtomicBool::new(false),
            backup: Backup::new(case.base.path().join("backup"))?,
            links: Arc::default(),
            foreign: AtomicU64::new(0),
        })
    }

    /// Strikes at the call after `at` others.
    fn arm(&self, at: usize) {
        self.left.store(at + 1, Ordering::SeqCst);
    }

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
            Fault::BackedUp => {
                self.backup.link_temporary(&self.store);
                self.another_saves()
            }
            Fault::Remounted(mounted) => {
                let away = self.store.with_file_name("away");
                fs::rename(&self.store, &away)?;
                match mounted {
                    Mounted::Nothing => Ok(()),
                    Mounted::Empty => fs::create_dir(&self.store),
                    Mounted::Copy => copy_tree(&away, &self.store),
                }
            }
            Fault::Fails(_) | Fault::Lost(_) => Ok(()),
        }
    }

    /// Saves the next version from another host, whose calls are not watched.
    fn another_saves(&self) -> io::Result<()> {
        let root = self.store.clone();
        let save = move || {
            let scope = scope(Arc::new(Local::new(root)));
            let state = Bytes::from_static(FOREIGN);
            let save = scope.save("memory", state, SaveOptions::default());
            Ok::<_, anyhow::Error>(runtime()?.block_on(save)?.version)
        };
        // A thread of its own: this one may belong to a runtime.
        let saved = std::thread::spawn(save).join().expect("no panic");
        let version = saved.map_err(io::Error::other)?;
        self.foreign.store(version, Ordering::SeqCst);
        Ok(())
    }
}

/// Copies a directory.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

impl Watch for Saboteur {
    fn before(&self, call: Call<'_>) -> io::Result<()> {
        if matches!(self.fault, Fault::Lost(_)) || !self.is_now() {
            return Ok(());
        }
        // What is there already is harm enough.
        let done = self.harm();
        if let Fault::BackedUp | Fault::Remounted(_) = self.fault {
            done.expect("the harm is done");
        }
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
        self.links.after(call, done);
        let mut unsynced = self.unsynced();
        if done && let Some(path) = &*unsynced {
            match call {
                Call::Link(from, _) | Call::RenameNoReplace(from, _) | Call::Rename(from, _)
                    if from == path =>
                {
                    self.is_named.store(true, Ordering::SeqCst);
                }
                // A prune whose probe of the clock meets a full disk makes another one.
                Call::Remove(removed)
                    if removed == path && !self.is_named.load(Ordering::SeqCst) =>
                {
                    *unsynced = None;
                }
                call if synced(call) == Some(path) => *unsynced = None,
                _ => {}
            }
        }
        drop(unsynced);
        match self.fault {
            // Reading loses nothing but the answer: that is what failing is.
            Fault::Lost(errno) if self.is_now() && done => Err(errno.into()),
            _ => Ok(()),
        }
    }

    fn allows_unnamed(&self) -> bool {
        // A backup finds temporary files by their names.
        !matches!(self.fault, Fault::BackedUp)
    }
}

/// Returns the path that a call syncs.
fn synced(call: Call<'_>) -> Option<&Path> {
    match call {
        Call::SyncFile(path) | Call::SyncDir(path) => Some(path),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use persist_host::conformance::Forward;

    use super::*;
    use crate::links::LinkCountBelieved;

    #[test]
    fn no_outcome_is_misreported_and_the_next_call_works() {
        let report = try_all(7, FAULTS, HEALTHY).expect("stores are made");
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

        let (scope, storage) = case.other_host();
        let step = case.step.act(&scope, &storage, |len| noise(9, len));
        let truth = runtime().expect("a runtime").block_on(step);
        let after = case.look().expect("is looked at");
        assert_eq!(judge(&truth, &before, &after), None);
        let lie = Err(Error::Invalid("nothing was done".into()).into());
        assert!(judge(&lie, &before, &after).is_some());
    }

    /// The violations that one of `faults` shows with a bug that was planted.
    fn found(faults: &[Fault], planted: Wrap) -> String {
        let report = try_all(1, faults, planted).expect("stores are made");
        report.violations.join("\n")
    }

    #[test]
    fn a_link_count_that_is_taken_for_success_is_found() {
        let found = found(&[Fault::BackedUp], |root, watch| {
            let links = Arc::clone(&watch.links);
            Arc::new(LinkCountBelieved::new(Local::watched(root, watch), links))
        });
        assert!(found.contains("is another's"), "{found}");
    }

    /// A local disk that forgets between two calls which directory it met at the path of its store.
    #[derive(Debug)]
    struct Forgetful {
        root: PathBuf,
        watch: Arc<Saboteur>,
    }

    #[async_trait]
    impl Forward for Forgetful {
        fn inner(&self) -> Arc<dyn Storage> {
            Arc::new(Local::watched(
                &self.root,
                Arc::clone(&self.watch) as Arc<dyn Watch>,
            ))
        }
    }

    #[test]
    fn a_disk_that_forgets_its_root_is_found_for_each_other_directory() {
        for mounted in [Mounted::Nothing, Mounted::Empty, Mounted::Copy] {
            let faults = [Fault::Remounted(mounted)];
            let report = try_all(7, &faults, |root, watch| {
                let root = root.to_owned();
                Arc::new(Forgetful { root, watch })
            });
            let found = report.expect("stores are made").violations;
            assert!(!found.is_empty(), "{mounted:?} is not found");
        }
    }
}
