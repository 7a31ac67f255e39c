//! Runs of agents: their queue, and requests that are repeated.
//!
//! A run that was begun goes on when its client goes away. With an `Idempotency-Key`, its answer is
//! kept in memory, and each version that it saves has the hash of the key as a label: so that after
//! a crash, also another replica finds that the run was begun, and does not begin it again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use persist_host::guest::GuestError;
use persist_host::snapshot::{Info, Lease, Name, Scope};
use persist_host::wasm::{LiveOutput, OutputReader, RunError, RunOutput, SnapshotCtx, StdStream};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast;
use tracing::Instrument as _;
use tracing::field::Empty;

use super::app::{App, Target};
use super::body::{Outgoing, accepts, events_response, from_json, require_json};
use super::keyed_versions;
use super::problem::{Problem, Result, json_response};
use super::queue::{Begun, Key, Outcome, Run, ended};
use super::version::value;
use crate::text::TextDecoder;

/// Bytes of the body of a run, at most.
const MAX_BODY: usize = 8 << 20;

/// Longest key.
const MAX_KEY: usize = 255;

/// Time after which a quiet stream gets a comment.
const QUIET: Duration = Duration::from_secs(15);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object")]
struct RunRequest {
    args: Vec<String>,
    stdin: String,
}

/// Input of a run.
struct Job {
    scope: Scope,
    entry: usize,
    input: RunRequest,
    key: Option<Key>,
}

impl Job {
    async fn perform(self, app: &Arc<App>, run: &Run, output: LiveOutput) -> Outcome {
        let not_begun = |problem| Outcome {
            answer: Err(problem),
            began: false,
        };
        let mut scope = self.scope.clone();
        if let Some(options) = &app.manifest.lease {
            match scope.lease(options).await {
                Ok(mut lease) => {
                    lease.renew_in_background();
                    scope = run.hold(lease);
                }
                Err(error) => return not_begun(Problem::of_lease(error)),
            }
        }
        if let Some(key) = self.key {
            match app.keyed_versions.of(&scope, key).await {
                Ok(versions) if versions.is_empty() => {
                    // A save of a holder that has lost the lease may come after this look: then
                    // the run must not add its turn to it.
                    run.with_lease(Lease::freeze);
                }
                Ok(versions) => {
                    return Outcome {
                        answer: Ok(result(None, &scope, &versions, Some("versions"))),
                        began: true,
                    };
                }
                Err(problem) => return not_begun(problem),
            }
            scope = scope.with_host_labels(keyed_versions::labels(key));
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
        let versions = Arc::new(Mutex::new(Vec::new()));
        let saved = Arc::clone(&versions);
        let storage_failed = Arc::new(AtomicBool::new(false));
        let failed = Arc::clone(&storage_failed);
        let events = run.events.clone();
        let place = scope.clone();
        let ctx = SnapshotCtx::builder(scope.clone())
            .rights(entry.rights.clone())
            .limits(entry.limits.clone())
            .on_change(move |info| {
                let event = if info.deleted { "deleted" } else { "saved" };
                // No one may listen.
                let _ = events.send((event, value(&place, info)));
                let mut saved = saved.lock().unwrap_or_else(PoisonError::into_inner);
                saved.push(info.clone());
            })
            .on_error(move |error| {
                if is_of_storage(error) {
                    failed.store(true, Ordering::Relaxed);
                }
            })
            .build();
        let options = entry.options.clone().args(self.input.args);
        let options = options.stdin(self.input.stdin.into_bytes()).output(output);
        run.set_began();
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
            // What is stored tells a repeated request what became of this one.
            Err(_) if run.with_lease(Lease::is_lost) == Some(true) => {
                not_begun(Problem::lease_lost())
            }
            Err(error) => {
                let mut problem = Problem::from(anyhow::Error::new(error));
                if let Value::Object(document) = document {
                    problem.more.extend(document);
                }
                // The next run may find a storage that works. If a save was made nevertheless, the
                // look at the store finds it.
                if versions.is_empty() && storage_failed.load(Ordering::Relaxed) {
                    return not_begun(problem.of_failed_storage());
                }
                Outcome {
                    answer: Err(problem),
                    began: true,
                }
            }
        }
    }
}

/// Returns true for an error of a call that may succeed in another run.
fn is_of_storage(error: &GuestError) -> bool {
    matches!(
        error,
        GuestError::Throttled { .. }
            | GuestError::Timeout
            | GuestError::Unavailable(_)
            | GuestError::UnknownOutcome { .. }
    )
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
    let versions = versions.iter().map(|info| value(scope, info));
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
        from_json(&body)?
    };
    let key = key(&head.headers, &body)?;
    let job = Job {
        scope,
        entry,
        input,
        key,
    };
    let begun = begin(&app, job, key)?;
    if accepts(&head.headers, "text/event-stream") {
        return Ok(stream(&app, begun));
    }
    let is_repeated = begun.is_repeated;
    let outcome = begun.ended().await?;
    match said(&outcome, is_repeated) {
        Ok(value) => Ok(json_response(StatusCode::OK, &value)),
        Err(problem) => Err(problem),
    }
}

/// Begins a run, or finds the one that a repeated request began. The key of the request is kept in
/// memory; with a key, the job also looks for it in the store.
fn begin(app: &Arc<App>, job: Job, key: Option<Key>) -> Result<Begun> {
    app.refuse_if_ending()?;
    let place = (job.scope.agent().clone(), job.scope.session().cloned());
    let works = Arc::clone(app);
    let span = tracing::info_span!("agent_run", outcome = Empty);
    let traced = span.clone();
    let work = |run: Arc<Run>, output| async move {
        let outcome = job.perform(&works, &run, output).instrument(traced).await;
        let error = outcome.answer.as_ref().err();
        span.record("outcome", error.map_or("ok", |problem| &*problem.code));
        outcome
    };
    app.runs.begin(place, key, app.options.queue, work)
}

/// Runs an agent for a form of the console, and returns the result of the run.
///
/// `once` is a number that the page of the form chose: the same form does not run the agent again
/// while this process remembers its answer. It is not looked for in the store, which may take long.
pub(super) async fn run_of_form(
    app: &Arc<App>,
    scope: Scope,
    args: Vec<String>,
    once: Option<&str>,
) -> Result<Value> {
    let agent = scope.agent();
    let entry = app.manifest.entry(agent);
    let entry = entry.ok_or_else(|| unknown_agent(agent))?;
    let key = once.map(|once| {
        // Another key for other arguments: a person may go back and change them. No header of a
        // request contains a zero, so that no client has such a key.
        let form = json!([once, args]).to_string();
        let hash = Sha256::new_with_prefix(b"persist console run\0");
        let hash = hash.chain_update(form).finalize().into();
        Key { hash, body: hash }
    });
    let job = Job {
        scope,
        entry,
        input: RunRequest {
            args,
            stdin: String::new(),
        },
        key: None,
    };
    let begun = begin(app, job, key)?;
    let is_repeated = begun.is_repeated;
    let outcome = begun.ended().await?;
    said(&outcome, is_repeated)
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

/// Output of a run as text, while the run continues.
struct OutputText {
    reader: OutputReader,
    stdout: TextDecoder,
    stderr: TextDecoder,
}

impl OutputText {
    fn new(reader: OutputReader) -> Self {
        Self {
            reader,
            stdout: TextDecoder::default(),
            stderr: TextDecoder::default(),
        }
    }

    /// Waits for text, and returns it as an event; none when the run has ended and all was
    /// returned. A call that is dropped loses nothing.
    async fn next(&mut self) -> Option<(&'static str, Value)> {
        let event = |name, text: String| {
            let is_some = !text.is_empty();
            is_some.then(|| (name, json!({ "text": text })))
        };
        while let Some((stream, bytes)) = self.reader.next().await {
            let found = match stream {
                StdStream::Stdout => event("stdout", self.stdout.piece(&bytes)),
                StdStream::Stderr => event("stderr", self.stderr.piece(&bytes)),
            };
            if found.is_some() {
                return found;
            }
        }
        // A character that was not finished.
        let rest = event("stdout", self.stdout.end());
        rest.or_else(|| event("stderr", self.stderr.end()))
    }
}

/// Sends the changes and the output of a run as they are made, and then its outcome.
fn stream(app: &App, begun: Begun) -> Response {
    let (outgoing, body) = Outgoing::new(app.options.idle);
    let Begun {
        run,
        is_repeated,
        mut events,
        output,
    } = begun;
    let mut output = output.map(OutputText::new);
    tokio::spawn(async move {
        let mut end = std::pin::pin!(ended(&run));
        let outcome = loop {
            let text = async {
                match &mut output {
                    Some(output) => output.next().await,
                    None => None,
                }
            };
            let is_open = tokio::select! {
                biased;
                event = events.recv() => match event {
                    Ok((event, value)) => outgoing.event(event, &value).await,
                    // The outcome has all versions.
                    Err(broadcast::error::RecvError::Lagged(_)) => true,
                    Err(broadcast::error::RecvError::Closed) => return,
                },
                Some((event, text)) = text => outgoing.event(event, &text).await,
                outcome = &mut end => break outcome,
                () = tokio::time::sleep(QUIET) => outgoing.keep_alive().await,
            };
            if !is_open {
                return;
            }
        };
        // What came between the last look at these and the end.
        while let Ok((event, value)) = events.try_recv() {
            if !outgoing.event(event, &value).await {
                return;
            }
        }
        while let Some(output) = &mut output
            && let Some((event, text)) = output.next().await
        {
            if !outgoing.event(event, &text).await {
                return;
            }
        }
        let answer = outcome.and_then(|outcome| said(&outcome, is_repeated));
        match answer {
            Ok(value) => outgoing.event("answer", &value).await,
            Err(problem) => outgoing.event("error", &problem.document()).await,
        };
    });
    events_response(body)
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
