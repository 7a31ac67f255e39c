//! The queue of runs, and the answers that are kept for requests that are repeated.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::http::StatusCode;
use futures_util::FutureExt as _;
use persist_host::snapshot::{Lease, Name, Scope};
use persist_host::wasm::{LiveOutput, OutputReader, live_output};
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::RunDurations;
use super::problem::{Problem, Result};

/// Bytes of answers that are kept for repeated requests, and their number, at most.
const MAX_KEPT: usize = 64 << 20;
const MAX_KEYS: usize = 10_000;

/// Changes of one run that a slow client may be behind.
const EVENTS: usize = 256;

pub(super) type ScopeKey = (Name, Option<Name>);
type RequestKey = (ScopeKey, [u8; 32]);

/// All runs of this process.
#[derive(Default)]
pub(super) struct Runs {
    tasks: TaskTracker,
    pub(super) durations: RunDurations,
    aborted: CancellationToken,
    state: Mutex<RunsState>,
}

#[derive(Default)]
struct RunsState {
    queues: HashMap<ScopeKey, Arc<Queue>>,
    keyed: HashMap<RequestKey, Arc<Run>>,
    /// Keys of runs that have ended, the oldest first, with the bytes of their answers.
    kept: VecDeque<(RequestKey, usize)>,
    kept_bytes: usize,
}

/// Runs of one agent or session, of which one is at work.
struct Queue {
    turn: Semaphore,
    /// Runs that wait or are at work; changed under the lock of [`RunsState`].
    len: AtomicUsize,
}

/// A run, or one that is to come.
pub(super) struct Run {
    body: [u8; 32],
    outcome: watch::Sender<Option<Arc<Outcome>>>,
    /// True if the agent may have done something.
    began: AtomicBool,
    /// The lease under which it works; released when it ends in whatever way.
    lease: Mutex<Option<Lease>>,
    pub(super) events: broadcast::Sender<(&'static str, Value)>,
    /// Output from its beginning; none when the run has ended, as the outcome has it.
    output: Mutex<Option<OutputReader>>,
}

/// A run for a client that asked for it.
pub(super) struct Begun {
    pub(super) run: Arc<Run>,
    /// True if an earlier request began it.
    pub(super) is_repeated: bool,
    /// Changes from here on; all where this request began the run.
    pub(super) events: broadcast::Receiver<(&'static str, Value)>,
    /// Output from its beginning; none when the run has ended.
    pub(super) output: Option<OutputReader>,
}

impl Begun {
    fn new(run: &Arc<Run>, is_repeated: bool) -> Self {
        let output = run.output.lock();
        Self {
            run: Arc::clone(run),
            is_repeated,
            events: run.events.subscribe(),
            output: output.unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Waits for the end of the run.
    pub(super) async fn ended(self) -> Result<Arc<Outcome>> {
        let run = self.run;
        drop((self.events, self.output));
        ended(&run).await
    }
}

/// End of a run.
pub(super) struct Outcome {
    pub(super) answer: Result<Value>,
    /// False if the agent was not begun, so that the request can be sent again.
    pub(super) began: bool,
}

impl Outcome {
    /// Returns the outcome of a run whose task panicked. What the agent did before is not known.
    fn panicked() -> Self {
        Self {
            answer: Err(Problem::panicked()),
            began: true,
        }
    }

    /// Returns the outcome of a run that the end of the service aborted.
    fn aborted(began: bool) -> Self {
        let problem = if began {
            Problem::ending("the service ended during the run; what the agent saved before is kept")
        } else {
            Problem::ending("the service ended before the run began")
        };
        Self {
            answer: Err(problem),
            began,
        }
    }
}

impl Run {
    /// Records that the agent begins now.
    pub(super) fn set_began(&self) {
        self.began.store(true, Relaxed);
    }

    /// Holds a lease until the run has ended, and returns its scope.
    pub(super) fn hold(&self, lease: Lease) -> Scope {
        let scope = lease.scope();
        *self.lease() = Some(lease);
        scope
    }

    /// Returns what the run does with its lease; none where it has no lease.
    pub(super) fn with_lease<T>(&self, work: impl FnOnce(&Lease) -> T) -> Option<T> {
        self.lease().as_ref().map(work)
    }

    async fn release(&self) {
        let lease = self.lease().take();
        let Some(lease) = lease else { return };
        if let Err(error) = lease.release().await {
            tracing::warn!("the lease of a run was not released; it ends with its term");
            tracing::debug!(%error, "a lease was not released");
        }
    }

    fn drop_output(&self) {
        let output = self.output.lock();
        *output.unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn lease(&self) -> MutexGuard<'_, Option<Lease>> {
        self.lease.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Key of a request, and what a repeated request must have, too.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) hash: [u8; 32],
    pub(super) body: [u8; 32],
}

impl Runs {
    /// Returns the number of agents and sessions with runs, and of runs that wait or are at work.
    pub(super) fn under_way(&self) -> (usize, usize) {
        let state = self.state();
        let lengths = state.queues.values().map(|queue| queue.len.load(Relaxed));
        let lengths: Vec<_> = lengths.filter(|len| *len > 0).collect();
        (lengths.len(), lengths.iter().sum())
    }

    /// Waits until all runs have ended.
    pub(super) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Aborts the runs that are left.
    pub(super) fn abort(&self) {
        self.aborted.cancel();
    }

    /// Returns the number of runs that are at work, and of those that wait for them.
    pub(super) fn active_and_waiting(&self) -> (usize, usize) {
        let state = self.state();
        let queues = || state.queues.values();
        let all: usize = queues().map(|queue| queue.len.load(Relaxed)).sum();
        let free: usize = queues().map(|queue| queue.turn.available_permits()).sum();
        let active = state.queues.len().saturating_sub(free);
        (active, all.saturating_sub(active))
    }

    fn state(&self) -> MutexGuard<'_, RunsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins `work`, or finds the run that a repeated request began. At most `max` runs of a place
    /// wait or are at work.
    pub(super) fn begin<F: Future<Output = Outcome> + Send + 'static>(
        self: &Arc<Self>,
        place: ScopeKey,
        key: Option<Key>,
        max: usize,
        work: impl FnOnce(Arc<Run>, LiveOutput) -> F,
    ) -> Result<Begun> {
        let request: Option<RequestKey> = key.map(|key| (place.clone(), key.hash));
        let mut state = self.state();
        if let Some(run) = request.as_ref().and_then(|key| state.keyed.get(key)) {
            if run.body != key.map_or([0; 32], |key| key.body) {
                return Err(other_body());
            }
            return Ok(Begun::new(run, true));
        }
        let queue = state.queues.entry(place.clone()).or_insert_with(|| {
            Arc::new(Queue {
                turn: Semaphore::new(1),
                len: 0.into(),
            })
        });
        if queue.len.load(Relaxed) >= max {
            let what = format!("{max} requests wait for this agent or session");
            return Err(Problem::busy(what));
        }
        queue.len.fetch_add(1, Relaxed);
        let queue = Arc::clone(queue);
        let (live, output) = live_output();
        let run = Arc::new(Run {
            body: key.map_or([0; 32], |key| key.body),
            outcome: watch::Sender::new(None),
            began: AtomicBool::new(false),
            lease: Mutex::default(),
            events: broadcast::Sender::new(EVENTS),
            output: Mutex::new(Some(output)),
        });
        if let Some(request) = &request {
            state.keyed.insert(request.clone(), Arc::clone(&run));
        }
        drop(state);
        let mut ending = Ending {
            runs: Arc::clone(self),
            run: Arc::clone(&run),
            place,
            queue: Arc::clone(&queue),
            request,
            since: None,
            outcome: None,
        };
        let runs = Arc::clone(self);
        // Before the task may do something that the client would miss.
        let begun = Begun::new(&run, false);
        let work = work(run, live);
        self.tasks.spawn(async move {
            // Never closed. Held until the lease is released: the next run would wait for it.
            let mut place_at_work = None;
            let turn = async {
                place_at_work = queue.turn.acquire().await.ok();
                // The run before may have been aborted.
                if runs.aborted.is_cancelled() {
                    return Outcome::aborted(false);
                }
                ending.since = Some(Instant::now());
                let done = AssertUnwindSafe(work).catch_unwind().await;
                done.unwrap_or_else(|_| Outcome::panicked())
            };
            let outcome = tokio::select! {
                outcome = turn => outcome,
                () = runs.aborted.cancelled() => Outcome::aborted(ending.run.began.load(Relaxed)),
            };
            // Before its outcome is told: the next request may go to another replica.
            ending.run.release().await;
            drop(place_at_work);
            ending.tell(outcome);
            drop(ending);
        });
        Ok(begun)
    }
}

/// End of a run's task. Dropping it frees the place in the queue and tells the outcome, so that
/// no request waits for a task that panicked.
struct Ending {
    runs: Arc<Runs>,
    run: Arc<Run>,
    place: ScopeKey,
    queue: Arc<Queue>,
    request: Option<RequestKey>,
    /// Begin of the work; none while the run waits.
    since: Option<Instant>,
    outcome: Option<Outcome>,
}

impl Ending {
    /// Sets the outcome that is told at the end.
    fn tell(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(Outcome::panicked);
        let mut state = self.runs.state();
        if self.queue.len.fetch_sub(1, Relaxed) == 1 {
            state.queues.remove(&self.place);
        }
        if let Some(request) = self.request.take() {
            state.keep(request, &outcome);
        }
        drop(state);
        if let Some(since) = self.since {
            let code = outcome.answer.as_ref().err().map(|problem| &*problem.code);
            self.runs.durations.ended(code, since.elapsed());
        }
        self.run.drop_output();
        self.run.outcome.send_replace(Some(Arc::new(outcome)));
    }
}

impl RunsState {
    /// Keeps the answer of a run for repeated requests.
    fn keep(&mut self, request: RequestKey, outcome: &Outcome) {
        if !outcome.began {
            self.keyed.remove(&request);
            return;
        }
        let size = match &outcome.answer {
            Ok(value) => value.to_string().len(),
            Err(problem) => problem.document().to_string().len(),
        };
        self.kept.push_back((request, size));
        self.kept_bytes += size;
        while self.kept_bytes > MAX_KEPT || self.kept.len() > MAX_KEYS {
            let Some((oldest, size)) = self.kept.pop_front() else {
                break;
            };
            self.keyed.remove(&oldest);
            self.kept_bytes -= size;
        }
    }
}

pub(super) fn other_body() -> Problem {
    let what = "Idempotency-Key: another request has used this key";
    let error = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "usage", what);
    error.hint("use a new key for each request, and the same one only to repeat it")
}

/// Waits for the end of a run.
pub(super) async fn ended(run: &Run) -> Result<Arc<Outcome>> {
    let mut outcome = run.outcome.subscribe();
    let outcome = outcome.wait_for(Option::is_some).await;
    let outcome = outcome.ok().and_then(|outcome| outcome.clone());
    outcome.ok_or_else(Problem::panicked)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place() -> ScopeKey {
        (Name::new("bot").expect("a name"), None)
    }

    #[tokio::test]
    async fn an_aborted_run_that_waited_is_told_that_it_did_not_begin() {
        let runs = Arc::new(Runs::default());
        let key = |byte| Key {
            hash: [byte; 32],
            body: [byte; 32],
        };
        let works = |run: Arc<Run>, _| async move {
            run.set_began();
            std::future::pending().await
        };
        let first = runs
            .begin(place(), Some(key(1)), 2, works)
            .expect("a place");
        while !first.run.began.load(Relaxed) {
            tokio::task::yield_now().await;
        }
        let second = runs
            .begin(place(), Some(key(2)), 2, works)
            .expect("a place");
        tokio::task::yield_now().await;
        runs.abort();
        for (begun, began, detail) in [(first, true, "during"), (second, false, "before")] {
            let outcome = begun.ended().await.expect("an outcome");
            assert_eq!(outcome.began, began);
            let problem = outcome.answer.as_ref().expect_err("aborted").clone();
            assert!(problem.detail.contains(detail), "{}", problem.detail);
            assert!(
                problem
                    .hint
                    .as_ref()
                    .is_some_and(|hint| hint.contains("Idempotency-Key"))
            );
            let response = axum::response::IntoResponse::into_response(problem);
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(response.headers().contains_key("retry-after"));
        }
        runs.finish().await;
        let state = runs.state();
        let kept = |byte| state.keyed.contains_key(&(place(), [byte; 32]));
        assert!(kept(1) && !kept(2), "only what began is kept");
    }

    #[tokio::test]
    async fn a_run_that_panics_is_answered_and_frees_its_place() {
        let runs = Arc::new(Runs::default());
        let key = Key {
            hash: [1; 32],
            body: [2; 32],
        };
        let panics = |_, _| async { panic!("planted") };
        let begun = runs.begin(place(), Some(key), 1, panics).expect("a place");
        let outcome = begun.ended().await.expect("an outcome");
        let problem = outcome.answer.as_ref().expect_err("it panicked");
        assert_eq!(problem.status, StatusCode::INTERNAL_SERVER_ERROR);
        let works = |_, _| async {
            Outcome {
                answer: Ok(json!("done")),
                began: true,
            }
        };
        // A repeated request does not run the agent again: it may have saved something.
        let again = runs.begin(place(), Some(key), 1, works).expect("kept");
        let is_repeated = again.is_repeated;
        let again = again.ended().await.expect("an outcome");
        assert!(is_repeated && again.answer.is_err());
        let next = runs.begin(place(), None, 1, works).expect("a place");
        let next = next.ended().await.expect("an outcome");
        assert_eq!(next.answer.as_ref().expect("done"), &json!("done"));
        runs.finish().await;
        assert!(runs.state().queues.is_empty());
    }
}
