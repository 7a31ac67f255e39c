//! Runs of agents: their queue, and requests that are repeated.
//!
//! A run that was begun goes on when its client goes away. With an `Idempotency-Key`, its answer is
//! kept in memory, and each version that it saves has the hash of the key as a label: so that after
//! a crash, also another replica finds that the run was begun, and does not begin it again.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use persist_host::snapshot::{Info, Lease, Name, Scope};
use persist_host::wasm::{RunError, RunOutput, SnapshotCtx};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast;
use tracing::Instrument as _;
use tracing::field::Empty;

use super::app::{App, Target};
use super::body::{Outgoing, events_response, require_json};
use super::problem::{Problem, Result, json_response};
use super::queue::{Key, Outcome, Run, ended, other_body};
use super::version::value;

/// Label with the hash of the key of the request whose run saved a version.
const KEY_LABEL: &str = "persist.idempotency-key";

/// Label with the hash of the body of that request.
const BODY_LABEL: &str = "persist.request-sha256";

/// Age up to which versions are looked at for the key of a request.
const WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of the body of a run, at most.
const MAX_BODY: usize = 8 << 20;

/// Longest key.
const MAX_KEY: usize = 255;

/// Time after which a quiet stream gets a comment.
const QUIET: Duration = Duration::from_secs(15);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
    async fn perform(self, app: &Arc<App>, run: &Run) -> Outcome {
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
            match versions_of(&scope, key).await {
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
        let versions = Arc::new(Mutex::new(Vec::new()));
        let saved = Arc::clone(&versions);
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
            // What is stored tells a repeated request what became of this one.
            Err(_) if run.with_lease(Lease::is_lost) == Some(true) => {
                not_begun(Problem::lease_lost())
            }
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
    app.refuse_if_ending()?;
    let place = (agent.clone(), target.session.clone());
    let works = Arc::clone(&app);
    let span = tracing::info_span!("agent_run", outcome = Empty);
    let traced = span.clone();
    let work = |run: Arc<Run>| async move {
        let outcome = job.perform(&works, &run).instrument(traced).await;
        let error = outcome.answer.as_ref().err();
        span.record("outcome", error.map_or("ok", |problem| &*problem.code));
        outcome
    };
    let (run, is_repeated) = app.runs.begin(place, key, app.options.queue, work)?;
    if wants_events(&head.headers) {
        return Ok(stream(&app, run, is_repeated));
    }
    let outcome = ended(&run).await?;
    match said(&outcome, is_repeated) {
        Ok(value) => Ok(json_response(StatusCode::OK, &value)),
        Err(problem) => Err(problem),
    }
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
