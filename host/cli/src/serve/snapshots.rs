//! Names, versions and states over HTTP.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use persist_host::snapshot::{Info, Name, Reader, SaveOptions, Scope, Version};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tracing::Instrument as _;

use super::app::{App, Target};
use super::body::{Outgoing, from_json, require_json};
use super::conditional::{self, Read};
use super::problem::{Problem, Result, json_response};
use super::token::TokenRight;
use super::version::value;
use crate::address::Address;
use crate::commands::diff::Comparison;
use crate::compute::compute;

/// Bytes of a JSON request, at most.
const MAX_JSON: usize = 64 << 10;

/// Bytes of a state that are read at once.
const PIECE: usize = 1 << 20;

/// Headers that begin so are labels of the saved version.
const LABEL: &str = "persist-label-";

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct RestoreRequest {
    version: Version,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct ForkRequest {
    name: String,
    agent: Option<String>,
    session: Option<String>,
    version: Option<Version>,
}

pub(super) async fn agents(app: Arc<App>, target: Target, _: Request) -> Result<Response> {
    let after = target.text("after").map(Name::new).transpose()?;
    let (agents, next) = app.agents(target.token, after, target.limit()?).await?;
    let agents: Vec<_> = agents.iter().map(Name::as_str).collect();
    Ok(names_of(&agents, next.as_ref()))
}

pub(super) async fn sessions(app: Arc<App>, target: Target, _: Request) -> Result<Response> {
    let after = target.text("after").map(Name::new).transpose()?;
    let agent = target.agent()?;
    let mut after = after.map(Some);
    loop {
        let place = after.as_ref().map(Option::as_ref);
        let page = app.store.sessions(agent, place, target.limit()?).await?;
        let sessions: Vec<_> = page.iter().flatten().cloned().collect();
        // The scope of no session has no name, and may be alone in its page.
        if sessions.is_empty() && !page.is_empty() {
            after = page.into_iter().next_back();
            continue;
        }
        let names: Vec<_> = sessions.iter().map(Name::as_str).collect();
        return Ok(names_of(&names, sessions.last()));
    }
}

pub(super) async fn names(app: Arc<App>, target: Target, _: Request) -> Result<Response> {
    let prefix = target.text("prefix").unwrap_or("");
    let scope = target.scope(&app)?;
    let after = target.text("after");
    let page = scope.names(prefix, after, target.limit()?).await?;
    let names: Vec<_> = page.iter().map(Name::as_str).collect();
    Ok(names_of(&names, page.last()))
}

fn names_of(names: &[&str], last: Option<&Name>) -> Response {
    let next = last.map(Name::as_str);
    json_response(StatusCode::OK, &json!({ "names": names, "next": next }))
}

pub(super) async fn show(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    let scope = target.scope(&app)?;
    let name = target.name()?;
    let at = target.version("version")?;
    let info = existing(&scope, name, at).await?;
    match conditional::of_read(request.headers(), info.version, at.is_none())? {
        Read::NotModified => Ok(not_modified(info.version)),
        Read::Proceed => Ok(version(StatusCode::OK, &scope, &info)),
    }
}

pub(super) async fn history(app: Arc<App>, target: Target, _: Request) -> Result<Response> {
    let scope = target.scope(&app)?;
    let name = target.name()?;
    let before = target.version("before")?;
    let mut past = scope.past(name.as_str(), before, target.limit()?)?;
    let (mut versions, mut unreadable) = (Vec::new(), Vec::new());
    let mut next = None;
    while let Some((version, info)) = past.next().await? {
        next = Some(version);
        match info {
            Ok(info) => versions.push(value(&scope, &info)),
            Err(error) => {
                tracing::debug!("a version cannot be read: {error}");
                unreadable.push(version);
            }
        }
    }
    if next.is_none() && before.is_none() {
        return Err(nothing(None));
    }
    let document = json!({ "versions": versions, "unreadable": unreadable, "next": next });
    Ok(json_response(StatusCode::OK, &document))
}

pub(super) async fn load(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    let scope = target.scope(&app)?;
    let name = target.name()?;
    let at = target.version("version")?;
    let info = existing(&scope, name, at).await?;
    if info.deleted {
        let restorable = info
            .parent
            .map(|parent| format!("version {parent} can be restored"));
        return Err(nothing(restorable));
    }
    if conditional::of_read(request.headers(), info.version, at.is_none())? == Read::NotModified {
        return Ok(not_modified(info.version));
    }
    let range = conditional::range(request.headers(), info.version, info.size)?;
    let (first, end) = match range {
        Some((first, last)) => (first, last + 1),
        None => (0, info.size),
    };
    let reader = scope.reader(name.as_str(), Some(info.version)).await?;
    let reader = reader.ok_or_else(|| nothing(None))?;
    let body = if request.method() == axum::http::Method::HEAD {
        Body::empty()
    } else {
        state(reader, first, end, &app).await?
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let media_type = info.media_type.as_deref().unwrap_or("");
    let media_type = HeaderValue::from_str(media_type).ok();
    let media_type = media_type.filter(|value| !value.is_empty());
    let bytes = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, media_type.unwrap_or(bytes));
    headers.insert(header::CONTENT_LENGTH, (end - first).into());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let attachment = HeaderValue::from_static("attachment");
    headers.insert(header::CONTENT_DISPOSITION, attachment);
    tag(headers, info.version);
    if range.is_some() {
        let value = format!("bytes {first}-{}/{}", end - 1, info.size);
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(header::CONTENT_RANGE, value);
        }
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// Returns the bytes of a state. The first piece is read before the answer begins, so that a
/// damaged file is an error of its own and not half an answer.
async fn state(mut reader: Reader, first: u64, end: u64, app: &App) -> Result<Body> {
    let mut at = first;
    let mut piece = next(&mut reader, at, end).await?;
    if at + piece.len() as u64 >= end {
        return Ok(piece.into());
    }
    let (outgoing, body) = Outgoing::new(app.options.idle);
    tokio::spawn(async move {
        loop {
            at += piece.len() as u64;
            if !outgoing.send(piece).await || at >= end {
                return;
            }
            piece = match next(&mut reader, at, end).await {
                Ok(piece) if !piece.is_empty() => piece,
                _ => return outgoing.fail().await,
            };
        }
    });
    Ok(body)
}

async fn next(reader: &mut Reader, at: u64, end: u64) -> Result<Bytes> {
    let len = usize::try_from(end.saturating_sub(at)).unwrap_or(PIECE);
    // A state without a byte is verified, too.
    Ok(reader.read(at, len.min(PIECE)).await?)
}

pub(super) async fn save(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    let scope = target.audited_scope(&app)?;
    let name = target.name()?.as_str();
    let (head, body) = request.into_parts();
    if head.headers.contains_key(header::CONTENT_RANGE) {
        let what = "Content-Range: PUT saves a whole state, and cannot change a part of one";
        return Err(Problem::usage(what).hint("send the whole state, without Content-Range"));
    }
    let mut options = SaveOptions::default();
    options.expect = conditional::of_change(&head.headers, &scope, name).await?;
    options.media_type = match head.headers.get(header::CONTENT_TYPE) {
        Some(value) => {
            let text = value.to_str();
            Some(
                text.map_err(|_| Problem::usage("Content-Type is not text"))?
                    .into(),
            )
        }
        None => None,
    };
    for (key, value) in &head.headers {
        if let Some(key) = key.as_str().strip_prefix(LABEL) {
            let value = value.to_str();
            let value = value.map_err(|_| Problem::usage(format!("label {key}: not text")))?;
            options = options.with_label(key, value);
        }
    }
    let mut body = app.body(body);
    let is_conditional = options.expect != SaveOptions::default().expect;
    let saved = async {
        let mut writer = scope.writer(name, options).await?;
        while let Some(piece) = body.next().await? {
            writer.write(&piece).await?;
        }
        finished(async move { writer.finish().await }).await
    };
    let info = saved.await.map_err(|error| {
        if is_conditional {
            error.of_condition()
        } else {
            error
        }
    })?;
    Ok(version(created(&info), &scope, &info))
}

pub(super) async fn delete(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    let scope = target.audited_scope(&app)?;
    let name = target.name()?.as_str().to_owned();
    let expect = conditional::of_change(request.headers(), &scope, &name).await?;
    let changing = scope.clone();
    let deleted = finished(async move { changing.delete(&name, expect).await });
    let info = of_condition(deleted.await, request.headers())?;
    Ok(version(StatusCode::OK, &scope, &info))
}

pub(super) async fn restore(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    let scope = target.audited_scope(&app)?;
    let name = target.name()?.as_str().to_owned();
    let (head, body) = request.into_parts();
    let wanted: RestoreRequest = json_of(&app, &head.headers, body).await?;
    let expect = conditional::of_change(&head.headers, &scope, &name).await?;
    let changing = scope.clone();
    let restored = async move { changing.restore(&name, wanted.version, expect).await };
    let info = of_condition(finished(restored).await, &head.headers)?;
    Ok(version(created(&info), &scope, &info))
}

pub(super) async fn fork(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    let scope = target.scope(&app)?;
    let name = target.name()?.as_str().to_owned();
    let (head, body) = request.into_parts();
    let wanted: ForkRequest = json_of(&app, &head.headers, body).await?;
    let to_name = Name::new(wanted.name)?;
    let to = match (&wanted.agent, &wanted.session) {
        (None, None) => scope.clone(),
        (None, session) => app
            .store
            .scope(target.agent()?.as_str(), session.as_deref())?,
        (Some(agent), session) => app.store.scope(agent, session.as_deref())?,
    };
    app.authorize(target.token, TokenRight::Save, Some(to.agent()))?;
    let to = app.audited(to, target.token, target.client);
    let expect = conditional::of_change(&head.headers, &to, to_name.as_str()).await?;
    let changed = to.clone();
    let forked = async move {
        let to_name = to_name.as_str();
        let forked = scope.fork_to(&name, wanted.version, &changed, to_name, expect);
        forked.await
    };
    let info = of_condition(finished(forked).await, &head.headers)?;
    Ok(version(created(&info), &to, &info))
}

pub(super) async fn diff(app: Arc<App>, target: Target, _: Request) -> Result<Response> {
    let scope = target.scope(&app)?;
    let name = target.name()?;
    let to = match target.version("to")? {
        Some(to) => to,
        None => existing(&scope, name, None).await?.version,
    };
    let from = match target.version("from")? {
        Some(from) => from,
        None => {
            let older = scope.versions(name.as_str(), Some(to), 1).await?;
            *older.first().ok_or_else(|| nothing(None))?
        }
    };
    let side = |version| Address {
        agent: scope.agent().clone(),
        session: scope.session().cloned(),
        name: name.clone(),
        version: Some(version),
    };
    let _permit = app.computing().await?;
    let compared = Comparison::of(&app.store, &side(from), &side(to)).await?;
    Ok(compute(move || json_response(StatusCode::OK, &compared.value())).await?)
}

pub(super) async fn pins(app: Arc<App>, target: Target, _: Request) -> Result<Response> {
    let pins = target.scope(&app)?.pins(target.name()?.as_str()).await?;
    Ok(json_response(StatusCode::OK, &json!({ "pins": pins })))
}

pub(super) async fn pin(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    let version = target.version_in_path()?;
    let scope = target.scope(&app)?;
    scope.pin(target.name()?.as_str(), version).await?;
    pins(app, target, request).await
}

pub(super) async fn unpin(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    let version = target.version_in_path()?;
    let scope = target.scope(&app)?;
    scope.unpin(target.name()?.as_str(), version).await?;
    pins(app, target, request).await
}

/// Makes a change on a task of its own: the outcome of one that is dropped with its client is
/// unknown.
pub(super) async fn finished(
    change: impl Future<Output = persist_host::snapshot::Result<Info>> + Send + 'static,
) -> Result<Info> {
    let done = tokio::spawn(change.in_current_span()).await;
    Ok(done.map_err(|_| Problem::panicked())??)
}

fn of_condition(done: Result<Info>, headers: &HeaderMap) -> Result<Info> {
    let is_conditional =
        headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_NONE_MATCH);
    done.map_err(|error| {
        if is_conditional {
            error.of_condition()
        } else {
            error
        }
    })
}

async fn json_of<T: DeserializeOwned>(app: &App, headers: &HeaderMap, body: Body) -> Result<T> {
    require_json(headers)?;
    let bytes = app.body(body).small().whole(MAX_JSON).await?;
    from_json(&bytes)
}

async fn existing(scope: &Scope, name: &Name, at: Option<Version>) -> Result<Info> {
    let info = scope.stat(name.as_str(), at).await?;
    info.ok_or_else(|| nothing(None))
}

fn nothing(hint: Option<String>) -> Problem {
    let what = "not found: nothing is saved here";
    let problem = Problem::new(StatusCode::NOT_FOUND, "not_found", what);
    problem.hint(hint.unwrap_or_else(|| "GET …/names lists names".into()))
}

fn created(info: &Info) -> StatusCode {
    match info.parent {
        None => StatusCode::CREATED,
        Some(_) => StatusCode::OK,
    }
}

fn version(status: StatusCode, scope: &Scope, info: &Info) -> Response {
    let mut response = json_response(status, &value(scope, info));
    tag(response.headers_mut(), info.version);
    response
}

fn not_modified(version: Version) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    tag(response.headers_mut(), version);
    response
}

fn tag(headers: &mut HeaderMap, version: Version) {
    if let Ok(tag) = HeaderValue::try_from(conditional::etag(version)) {
        headers.insert(header::ETAG, tag);
    }
}
