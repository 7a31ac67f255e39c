//! Runs of agents: their queue, and requests that are repeated.
//!
//! A run that was begun goes on when its client goes away. With an `Idempotency-Key`, its answer is
//! kept in memory, and each version that it saves has the hash of the key as a label: so that after
//! a crash, also another replica finds that the run was begun, and does not begin it again.

use std::collections::{HashMap, VecDeque};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use persist_host::snapshot::{Info, Name, Scope};
use persist_host::wasm::{Agent, AgentHost, RunError, RunOutput, SnapshotCtx};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::{App, Target};
use super::body::{Outgoing, require_json};
use super::manifest::AgentEntry;
use super::problem::{Problem, Result, json_response};
use super::snapshots;
use crate::error::Usage;
use crate::settings::Settings;

/// Label with the hash of the key of the request whose run saved a version.
const KEY_LABEL: &str = "persist.idempotency-key";

/// Label with the hash of the body of that request.
const BODY_LABEL: &str = "persist.request-sha256";

/// Age up to which versions are looked at for the key of a request.
const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of the body of a run, at most.
const MAX_BODY: usize = 8 << 20;

/// Bytes of answers that are kept for repeated requests, and their number, at most.
const MAX_KEPT: usize = 64 << 20;
const MAX_KEYS: usize = 10_000;

/// Longest key.
const MAX_KEY: usize = 255;

/// Changes of one run that a slow client may be behind.
const EVENTS: usize = 256;

/// Time after which a quiet stream gets a comment.
const QUIET: Duration = Duration::from_secs(15);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RunRequest {
    args: Vec<String>,
    stdin: String,
}

/// Components of the manifest, compiled.
pub(super) struct Components {
    host: AgentHost,
    loaded: Vec<Mutex<Loaded>>,
}

struct Loaded {
    path: PathBuf,
    agent: Agent,
    file: Stamp,
    /// File that could not be loaded in place of the one before.
    refused: Option<Stamp>,
}

/// Tells one content of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self(file.ino(), file.len(), file.mtime(), file.mtime_nsec())
    }
}

impl Components {
    /// Compiles the components of all entries.
    pub(super) async fn load(entries: &[AgentEntry], settings: &Settings) -> anyhow::Result<Self> {
        let host = AgentHost::builder().limits(settings.limits()?).build()?;
        let mut loaded = Vec::new();
        for (n, entry) in entries.iter().enumerate() {
            let path = entry.component.clone();
            let (agent, file) = compiled(&host, &path).await.map_err(|why| {
                let what = format!("agents[{n}] {:?}: component: {why}", entry.name);
                Usage::new(what).with_hint("build the agent again with `persist build`")
            })?;
            loaded.push(Mutex::new(Loaded {
                path,
                agent,
                file,
                refused: None,
            }));
        }
        Ok(Self { host, loaded })
    }

    /// Returns the agent of an entry. A file that changed is loaded anew; where it cannot be, the
    /// agent of before stays, and the log tells why.
    async fn current(&self, entry: usize) -> Result<Agent> {
        let missing = || Problem::new(StatusCode::NOT_FOUND, "not_found", "no such agent");
        let mut loaded = self.loaded.get(entry).ok_or_else(missing)?.lock().await;
        let now = std::fs::metadata(&loaded.path)
            .map(|file| Stamp::of(&file))
            .ok();
        if now == Some(loaded.file) || (now == loaded.refused && now.is_some()) {
            return Ok(loaded.agent.clone());
        }
        match compiled(&self.host, &loaded.path).await {
            Ok((agent, file)) => {
                tracing::info!("loaded {} anew", loaded.path.display());
                loaded.agent = agent;
                loaded.file = file;
                loaded.refused = None;
            }
            Err(why) => {
                let path = loaded.path.display();
                tracing::error!("cannot load {path}, and keep the component of before: {why}");
                loaded.refused = now;
            }
        }
        Ok(loaded.agent.clone())
    }
}

async fn compiled(host: &AgentHost, path: &PathBuf) -> std::result::Result<(Agent, Stamp), String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    // Before the content: a file that changes in between is loaded again.
    let file = std::fs::metadata(path).map_err(cannot)?;
    let bytes = std::fs::read(path).map_err(cannot)?;
    let agent = host.load(&bytes).await;
    let agent = agent.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((agent, Stamp::of(&file)))
}

type ScopeKey = (Name, Option<Name>);
type RequestKey = (ScopeKey, [u8; 32]);

/// All runs of this process.
#[derive(Default)]
pub(super) struct Runs {
    tasks: TaskTracker,
    aborted: CancellationToken,
    state: StdMutex<RunsState>,
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
    len: std::sync::atomic::AtomicUsize,
}

/// A run, or one that is to come.
struct Run {
    body: [u8; 32],
    outcome: watch::Sender<Option<Arc<Outcome>>>,
    events: broadcast::Sender<(&'static str, Value)>,
}

/// End of a run.
struct Outcome {
    answer: Result<Value>,
    /// False if the agent was not begun, so that the request can be sent again.
    began: bool,
}

/// Key of a request, and what a repeated request must have, too.
#[derive(Clone, Copy)]
struct Key {
    hash: [u8; 32],
    body: [u8; 32],
}

impl Runs {
    /// Waits until all runs have ended.
    pub(super) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Aborts the runs that are left.
    pub(super) fn abort(&self) {
        self.aborted.cancel();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, RunsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a run, or finds the one that a repeated request began.
    fn begin(&self, app: &Arc<App>, job: Job) -> Result<(Arc<Run>, bool)> {
        use std::sync::atomic::Ordering::Relaxed;
        if app.ending.is_cancelled() {
            let what = "the service is ending";
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "failed",
                what,
            ));
        }
        let place: ScopeKey = (job.scope.agent().clone(), job.scope.session().cloned());
        let request: Option<RequestKey> = job.key.map(|key| (place.clone(), key.hash));
        let mut state = self.state();
        if let Some(run) = request.as_ref().and_then(|key| state.keyed.get(key)) {
            if run.body != job.key.map_or([0; 32], |key| key.body) {
                return Err(other_body());
            }
            return Ok((Arc::clone(run), true));
        }
        let queue = state.queues.entry(place.clone()).or_insert_with(|| {
            Arc::new(Queue {
                turn: Semaphore::new(1),
                len: 0.into(),
            })
        });
        if queue.len.load(Relaxed) >= app.options.queue {
            let what = format!(
                "{} requests wait for this agent or session",
                app.options.queue
            );
            return Err(Problem::busy(what));
        }
        queue.len.fetch_add(1, Relaxed);
        let queue = Arc::clone(queue);
        let run = Arc::new(Run {
            body: job.key.map_or([0; 32], |key| key.body),
            outcome: watch::Sender::new(None),
            events: broadcast::Sender::new(EVENTS),
        });
        if let Some(request) = &request {
            state.keyed.insert(request.clone(), Arc::clone(&run));
        }
        drop(state);
        let app = Arc::clone(app);
        let task = Arc::clone(&run);
        self.tasks.spawn(async move {
            let work = async {
                // Never closed.
                let _turn = queue.turn.acquire().await;
                job.perform(&app, &task).await
            };
            let outcome = tokio::select! {
                outcome = work => outcome,
                () = app.runs.aborted.cancelled() => Outcome {
                    answer: Err(Problem::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "failed",
                        "the service ended during the run; what the agent saved before is kept",
                    )),
                    began: true,
                },
            };
            let mut state = app.runs.state();
            if queue.len.fetch_sub(1, Relaxed) == 1 {
                state.queues.remove(&place);
            }
            if let Some(request) = request {
                state.keep(request, &outcome);
            }
            drop(state);
            task.outcome.send_replace(Some(Arc::new(outcome)));
        });
        Ok((run, false))
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

/// Input of a run.
struct Job {
    scope: Scope,
    entry: usize,
    input: RunRequest,
    key: Option<Key>,
}

impl Job {
    async fn perform(self, app: &Arc<App>, run: &Run) -> Outcome {
        let not_begun = |problem| Outcome {
            answer: Err(problem),
            began: false,
        };
        let mut scope = self.scope.clone();
        if let Some(key) = self.key {
            match versions_of(&scope, key).await {
                Ok(versions) if versions.is_empty() => {}
                Ok(versions) => {
                    return Outcome {
                        answer: Ok(result(None, &scope, &versions, Some("versions"))),
                        began: true,
                    };
                }
                Err(problem) => return not_begun(problem),
            }
            scope = scope.with_host_labels([
                (KEY_LABEL.to_owned(), hex::encode(key.hash)),
                (BODY_LABEL.to_owned(), hex::encode(key.body)),
            ]);
        }
        let agent = match app.components.current(self.entry).await {
            Ok(agent) => agent,
            Err(problem) => return not_begun(problem),
        };
        let Some(entry) = app.manifest.agents.get(self.entry) else {
            return not_begun(unknown_agent(scope.agent()));
        };
        // An agent is told less of a storage than the operator needs to know.
        if let Err(error) = app.store.init().await {
            return not_begun(error.into());
        }
        let versions = Arc::new(StdMutex::new(Vec::new()));
        let saved = Arc::clone(&versions);
        let events = run.events.clone();
        let place = scope.clone();
        let ctx = SnapshotCtx::builder(scope.clone())
            .rights(entry.rights.clone())
            .limits(entry.limits.clone())
            .on_change(move |info| {
                let event = if info.deleted { "deleted" } else { "saved" };
                // No one may listen.
                let _ = events.send((event, snapshots::value(&place, info)));
                let mut saved = saved.lock().unwrap_or_else(PoisonError::into_inner);
                saved.push(info.clone());
            })
            .build();
        let options = entry.options.clone().args(self.input.args);
        let options = options.stdin(self.input.stdin.into_bytes());
        let ran = agent.run_with(ctx, &options).await;
        let versions =
            std::mem::take(&mut *versions.lock().unwrap_or_else(PoisonError::into_inner));
        let document = result(Some(&ran), &scope, &versions, None);
        match ran.answer {
            Ok(_) => Outcome {
                answer: Ok(document),
                began: true,
            },
            Err(RunError::WaitLimit(_)) => not_begun(Problem::busy(
                "the agent did not start in time: too many other runs",
            )),
            Err(error) => {
                let mut problem = Problem::from(anyhow::Error::new(error));
                if let Value::Object(document) = document {
                    problem.more.extend(document);
                }
                Outcome {
                    answer: Err(problem),
                    began: true,
                }
            }
        }
    }
}

/// Returns the versions that the run of an earlier request with this key saved.
///
/// A version that cannot be read does not tell its labels, and is passed over.
async fn versions_of(scope: &Scope, key: Key) -> Result<Vec<Info>> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let oldest = now.saturating_sub(WINDOW).as_millis();
    let label = |info: &Info, key: &str| {
        let label = info.labels.iter().find(|(label, _)| label == key);
        label.map(|(_, value)| value.clone())
    };
    let hash = hex::encode(key.hash);
    let body = hex::encode(key.body);
    let mut found = Vec::new();
    let mut after: Option<Name> = None;
    loop {
        let last = after.as_ref().map(Name::as_str);
        let page = match scope.names("", last, 100).await {
            // The first run makes the store.
            Err(persist_host::snapshot::Error::NoStore { .. }) => return Ok(found),
            page => page?,
        };
        for name in &page {
            let mut past = scope.past(name.as_str(), None, usize::MAX)?;
            while let Some((_, info)) = past.next().await? {
                let Ok(info) = info else { continue };
                if u128::from(info.created_at) < oldest {
                    break;
                }
                if label(&info, KEY_LABEL).as_deref() != Some(hash.as_str()) {
                    continue;
                }
                if label(&info, BODY_LABEL).as_deref() != Some(body.as_str()) {
                    return Err(other_body());
                }
                found.push(info);
            }
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    found.sort_by_key(|info| info.created_at);
    Ok(found)
}

fn other_body() -> Problem {
    let what = "Idempotency-Key: another request has used this key";
    let error = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "usage", what);
    error.hint("use a new key for each request, and the same one only to repeat it")
}

fn unknown_agent(agent: &Name) -> Problem {
    let what = format!("not found: the manifest has no agent {:?}", agent.as_str());
    Problem::new(StatusCode::NOT_FOUND, "not_found", what)
}

/// Returns the result of a run. Without an output, it is known from the versions alone.
fn result(
    ran: Option<&RunOutput>,
    scope: &Scope,
    versions: &[Info],
    replayed: Option<&str>,
) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let versions = versions.iter().map(|info| snapshots::value(scope, info));
    json!({
        "answer": ran.and_then(|ran| ran.answer.as_ref().ok()),
        "stdout": ran.map(|ran| text(&ran.stdout)),
        "stderr": ran.map(|ran| text(&ran.stderr)),
        "denied_hosts": ran.map_or(&[][..], |ran| &ran.denied_hosts),
        "versions": versions.collect::<Vec<_>>(),
        "replayed": replayed,
    })
}

pub(super) async fn run(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    let agent = target.agent()?;
    let entry = app.manifest.entry(agent);
    let entry = entry.ok_or_else(|| unknown_agent(agent))?;
    let scope = target.scope(&app)?;
    let (head, body) = request.into_parts();
    let body = app.body(body).whole(MAX_BODY).await?;
    let input = if body.is_empty() {
        RunRequest::default()
    } else {
        require_json(&head.headers)?;
        let input = serde_json::from_slice(&body);
        input.map_err(|error| Problem::usage(format!("the body: {error}")))?
    };
    let key = key(&head.headers, &body)?;
    let job = Job {
        scope,
        entry,
        input,
        key,
    };
    let (run, is_repeated) = app.runs.begin(&app, job)?;
    if wants_events(&head.headers) {
        return Ok(stream(&app, run, is_repeated));
    }
    let outcome = ended(&run).await?;
    match said(&outcome, is_repeated) {
        Ok(value) => Ok(json_response(StatusCode::OK, &value)),
        Err(problem) => Err(problem),
    }
}

/// Waits for the end of a run.
async fn ended(run: &Run) -> Result<Arc<Outcome>> {
    let mut outcome = run.outcome.subscribe();
    let outcome = outcome.wait_for(Option::is_some).await;
    let outcome = outcome.ok().and_then(|outcome| outcome.clone());
    let failed = || {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "failed",
            "the server failed",
        )
    };
    outcome.ok_or_else(failed)
}

/// Returns the outcome for a client, which is told if it repeated a request.
fn said(outcome: &Outcome, is_repeated: bool) -> Result<Value> {
    let mut answer = outcome.answer.clone();
    if is_repeated {
        match &mut answer {
            Ok(value) if value["replayed"].is_null() => value["replayed"] = json!("memory"),
            Ok(_) => {}
            Err(problem) => {
                problem.more.insert("replayed".into(), json!("memory"));
            }
        }
    }
    answer
}

/// Sends the changes of a run as they are made, and then its outcome.
fn stream(app: &App, run: Arc<Run>, is_repeated: bool) -> Response {
    let (outgoing, body) = Outgoing::new(app.options.idle);
    let mut events = run.events.subscribe();
    tokio::spawn(async move {
        let mut end = std::pin::pin!(ended(&run));
        let outcome = loop {
            tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok((event, value)) => {
                        if !outgoing.event(event, &value).await {
                            return;
                        }
                    }
                    // The outcome has all versions.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                outcome = &mut end => break outcome,
                () = tokio::time::sleep(QUIET) => {
                    if !outgoing.keep_alive().await {
                        return;
                    }
                }
            }
        };
        let answer = outcome.and_then(|outcome| said(&outcome, is_repeated));
        match answer {
            Ok(value) => outgoing.event("answer", &value).await,
            Err(problem) => outgoing.event("error", &problem.document()).await,
        };
    });
    events_response(body)
}

/// Returns a response that is a stream of events.
pub(super) fn events_response(body: axum::body::Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let events = HeaderValue::from_static("text/event-stream");
    headers.insert(header::CONTENT_TYPE, events);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter();
    let mut accept = accept.filter_map(|value| value.to_str().ok());
    accept.any(|value| {
        let mut types = value.split(',').filter_map(|part| part.split(';').next());
        types.any(|media_type| media_type.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

/// Returns the key of a request. Only hashes of it and of the body are kept.
fn key(headers: &HeaderMap, body: &[u8]) -> Result<Option<Key>> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    if keys.next().is_some() || key.is_empty() || key.len() > MAX_KEY {
        let what = format!("Idempotency-Key: not one key of 1 to {MAX_KEY} bytes");
        return Err(Problem::usage(what));
    }
    Ok(Some(Key {
        hash: Sha256::digest(key.as_bytes()).into(),
        body: Sha256::digest(body).into(),
    }))
}
