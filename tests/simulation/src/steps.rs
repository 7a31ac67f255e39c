//! Requests of each step of a turn, as the library makes them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use persist_host::storage::Memory;

use crate::calls::{Call, Kind, Logged};
use crate::turns::Host;

/// A term that does not end while steps are recorded.
const LONG: Duration = Duration::from_secs(60 * 60);

/// A term that ends while steps are recorded.
const SHORT: Duration = Duration::from_millis(10);

const AGENT: &str = "bot";

const LEASES: &str = "~/lease/";

/// Step of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A process does its first turn: what it asks for once, beside the requests of the turn.
    Start,
    /// Looks at a lease that another host holds, for the first time.
    Look,
    /// Looks at it again.
    LookAgain,
    /// Acquires a lease that never existed.
    AcquireFirst,
    /// Acquires a lease that this host released.
    AcquireAgain,
    /// Acquires a lease that another host released.
    AcquireMoved,
    /// Takes over the lease of a dead host.
    TakeOver,
    /// Loads where nothing was saved.
    LoadNothing,
    /// Loads the newest version.
    Load,
    /// Saves the first version.
    SaveFirst,
    /// Saves the next version.
    Save,
    /// Renews a lease for the first time.
    RenewFirst,
    /// Renews a lease that was renewed before.
    Renew,
    /// Releases the first lease.
    ReleaseFirst,
    /// Releases a later lease that was not renewed.
    Release,
    /// Releases a lease that was renewed.
    ReleaseRenewed,
}

impl Step {
    /// All steps, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Start,
        Self::Look,
        Self::LookAgain,
        Self::AcquireFirst,
        Self::AcquireAgain,
        Self::AcquireMoved,
        Self::TakeOver,
        Self::LoadNothing,
        Self::Load,
        Self::SaveFirst,
        Self::Save,
        Self::RenewFirst,
        Self::Renew,
        Self::ReleaseFirst,
        Self::Release,
        Self::ReleaseRenewed,
    ];
}

/// A request of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Kind of the request.
    pub kind: Kind,
    /// True for the objects of leases, which have a prefix of their own.
    pub is_lease: bool,
    /// Number of the object of the lease, relative to the newest one before the step.
    pub number: Option<i8>,
}

/// Requests of all steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps(Vec<Vec<Request>>);

impl Steps {
    /// Returns the requests of a step.
    pub fn of(&self, step: Step) -> &[Request] {
        &self.0[step as usize]
    }

    /// Returns how many requests of a kind a step makes.
    pub fn count(&self, step: Step, kind: Kind) -> u64 {
        let of_kind = self.of(step).iter().filter(|asked| asked.kind == kind);
        of_kind.count() as u64
    }

    /// Records the steps of turns of two hosts on a store in memory.
    ///
    /// # Errors
    /// Any error.
    pub async fn record() -> Result<Self> {
        let memory = Memory::new();
        let host = |name, term| {
            let log = Arc::new(Logged::new(Arc::new(memory.clone())));
            (Host::start(name, log.clone(), term), log)
        };
        let (first, first_log) = host("first", LONG);
        first.turn("another").await?;
        let (second, second_log) = host("second", LONG);
        first_log.take();
        let mut recorder = Recorder::default();

        // The first turn on a host that just started, and what each turn asks for.
        second.turn("third").await?;
        let calls = second_log.take();
        let once = calls.iter().filter(|call| !call.target.contains("third"));
        recorder.put(Step::Start, once.cloned().collect())?;

        let lease = first.acquire(AGENT).await?;
        recorder.put(Step::AcquireFirst, first_log.take())?;
        ensure!(first.load(&lease.scope()).await?.is_none());
        recorder.put(Step::LoadNothing, first_log.take())?;
        first.save(&lease.scope(), 1).await?;
        recorder.put(Step::SaveFirst, first_log.take())?;
        lease.release().await?;
        recorder.put(Step::ReleaseFirst, first_log.take())?;

        let lease = first.acquire(AGENT).await?;
        recorder.put(Step::AcquireAgain, first_log.take())?;
        ensure!(first.load(&lease.scope()).await? == Some(1));
        recorder.put(Step::Load, first_log.take())?;
        first.save(&lease.scope(), 2).await?;
        recorder.put(Step::Save, first_log.take())?;
        lease.renew().await?;
        recorder.put(Step::RenewFirst, first_log.take())?;
        lease.renew().await?;
        recorder.put(Step::Renew, first_log.take())?;
        lease.release().await?;
        recorder.put(Step::ReleaseRenewed, first_log.take())?;

        let lease = first.acquire(AGENT).await?;
        recorder.note(&first_log.take());
        second.acquire(AGENT).await.expect_err("the first holds it");
        recorder.put(Step::Look, second_log.take())?;
        second.acquire(AGENT).await.expect_err("the first holds it");
        recorder.put(Step::LookAgain, second_log.take())?;
        lease.release().await?;
        recorder.put(Step::Release, first_log.take())?;

        let lease = second.acquire(AGENT).await?;
        recorder.put(Step::AcquireMoved, second_log.take())?;
        lease.release().await?;
        recorder.note(&second_log.take());

        let (dead, dead_log) = host("dead", SHORT);
        std::mem::forget(dead.acquire(AGENT).await?);
        recorder.note(&dead_log.take());
        tokio::time::sleep(2 * SHORT).await;
        let lease = first.acquire(AGENT).await?;
        recorder.put(Step::TakeOver, first_log.take())?;
        lease.release().await?;
        recorder.finish()
    }
}

#[derive(Debug, Default)]
struct Recorder {
    steps: Vec<(Step, Vec<Request>)>,
    /// The highest number of an object of the lease.
    newest: i64,
}

impl Recorder {
    fn put(&mut self, step: Step, calls: Vec<Call>) -> Result<()> {
        let requests = calls.iter().map(|call| self.request(call));
        let requests = requests.collect::<Result<_>>()?;
        self.steps.push((step, requests));
        self.note(&calls);
        Ok(())
    }

    fn request(&self, call: &Call) -> Result<Request> {
        let is_lease = call.target.starts_with(LEASES);
        let number = match number_of(call) {
            Some(number) => {
                let number = number - self.newest;
                Some(i8::try_from(number).context("a lease has few objects")?)
            }
            None => None,
        };
        Ok(Request {
            kind: call.kind,
            is_lease,
            number,
        })
    }

    /// Takes note of objects of the lease that were created.
    fn note(&mut self, calls: &[Call]) {
        let created = calls.iter().filter(|call| call.kind == Kind::Create);
        let newest = created.filter_map(number_of).max();
        self.newest = self.newest.max(newest.unwrap_or_default());
    }

    fn finish(self) -> Result<Steps> {
        let of = |step: &Step| {
            let found = self.steps.iter().find(|(recorded, _)| recorded == step);
            let (_, requests) = found.with_context(|| format!("{step:?} was not recorded"))?;
            Ok(requests.clone())
        };
        Ok(Steps(Step::ALL.iter().map(of).collect::<Result<_>>()?))
    }
}

/// Returns the number of the object of the lease that a call is about.
fn number_of(call: &Call) -> Option<i64> {
    let path = call.target.strip_prefix(LEASES)?.strip_prefix(AGENT)?;
    let (_, number) = path.strip_suffix(".json")?.rsplit_once('-')?;
    number.parse().ok()
}
