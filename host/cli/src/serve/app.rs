//! State of the service, its routes, and who may use them.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Query, RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use persist_host::snapshot::{Name, Scope, Store, Version};
use tokio_util::sync::CancellationToken;

use super::body::Incoming;
use super::changes::{self, Changes};
use super::manifest::Manifest;
use super::problem::{Problem, Result};
use super::runs::{self, Components, Runs};
use super::token::{self, TokenRight};
use super::{openapi, snapshots};

/// Entries of a page where a client does not say, and at most.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// State that all requests share.
pub(super) struct App {
    pub(super) store: Store,
    pub(super) manifest: Manifest,
    pub(super) components: Components,
    pub(super) runs: Runs,
    pub(super) changes: Changes,
    pub(super) options: Options,
    /// Cancelled when the service ends.
    pub(super) ending: CancellationToken,
}

/// Options of the service.
pub(super) struct Options {
    pub(super) has_auth: bool,
    pub(super) queue: usize,
    pub(super) idle: Duration,
    pub(super) poll: Duration,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

/// An operation of the service. The router and the OpenAPI document are both made of [`ROUTES`].
pub(super) struct Route {
    pub(super) method: Method,
    /// Path, from the root, or from each scope.
    pub(super) path: Path,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// Right that it needs; none for what everyone may see.
    pub(super) right: Option<TokenRight>,
    pub(super) query: &'static [&'static str],
    /// Schema of the body that it takes; empty for bytes.
    pub(super) body: Option<&'static str>,
    /// Schema of its answer; empty for bytes.
    pub(super) answer: &'static str,
    handler: fn(Arc<App>, Target, Request) -> Answer,
}

/// Path of a route.
#[derive(Clone, Copy)]
pub(super) enum Path {
    Root(&'static str),
    /// Below an agent, and below a session of it.
    Scope(&'static str),
}

/// The paths that a scope has.
const SCOPES: [&str; 2] = [
    "/v1/agents/{agent}",
    "/v1/agents/{agent}/sessions/{session}",
];

impl Path {
    /// Returns the paths with their placeholders.
    pub(super) fn templates(self) -> Vec<String> {
        match self {
            Self::Root(path) => vec![path.to_owned()],
            Self::Scope(path) => SCOPES.map(|scope| format!("{scope}{path}")).to_vec(),
        }
    }
}

macro_rules! routes {
    ($($method:ident $kind:ident $path:literal $id:literal $right:expr, $query:expr, $body:expr,
       $answer:literal, $handler:path, $summary:literal;)*) => {
        /// All operations.
        pub(super) const ROUTES: &[Route] = &[$(Route {
            method: Method::$method,
            path: Path::$kind($path),
            id: $id,
            summary: $summary,
            right: $right,
            query: &$query,
            body: $body,
            answer: $answer,
            handler: |app, target, request| Box::pin($handler(app, target, request)),
        },)*];
    };
}

const READ: Option<TokenRight> = Some(TokenRight::Read);
const SAVE: Option<TokenRight> = Some(TokenRight::Save);
const ADMIN: Option<TokenRight> = Some(TokenRight::Admin);

routes! {
    GET Root "/healthz" "health" None, [], None, "Health", health, "Tell that the process works";
    GET Root "/readyz" "ready" None, [], None, "Health", ready, "Tell that the store can be read";
    GET Root "/v1/openapi.json" "openapi" None, [], None, "Any", document, "Return this document";
    GET Root "/v1/changes" "changes" READ, [], None, "", changes::changes,
        "Stream the changes of all names as server-sent events";
    GET Root "/v1/agents" "listAgents" READ, ["after", "limit"], None, "Names", snapshots::agents,
        "List agents that saved something";
    GET Root "/v1/agents/{agent}/sessions" "listSessions" READ, ["after", "limit"], None, "Names",
        snapshots::sessions, "List sessions of an agent";
    POST Scope "/run" "run" Some(TokenRight::Run), [], Some("RunRequest"), "RunResult", runs::run,
        "Run the agent once";
    GET Scope "/names" "listNames" READ, ["prefix", "after", "limit"], None, "Names",
        snapshots::names, "List names, deleted ones too";
    GET Scope "/names/{name}" "show" READ, ["version"], None, "Version", snapshots::show,
        "Show the newest version, or another one";
    DELETE Scope "/names/{name}" "delete" SAVE, [], None, "Version", snapshots::delete,
        "Delete a name; a restore undoes it";
    GET Scope "/names/{name}/history" "history" READ, ["before", "limit"], None, "History",
        snapshots::history, "List versions, newest first";
    GET Scope "/names/{name}/state" "load" READ, ["version"], None, "", snapshots::load,
        "Load a state, or a range of it";
    PUT Scope "/names/{name}/state" "save" SAVE, [], Some(""), "Version", snapshots::save,
        "Save the body as the next version";
    POST Scope "/names/{name}/restore" "restore" SAVE, [], Some("RestoreRequest"), "Version",
        snapshots::restore, "Save an old state as the next version";
    POST Scope "/names/{name}/fork" "fork" SAVE, [], Some("ForkRequest"), "Version",
        snapshots::fork, "Save a state under another name";
    GET Scope "/names/{name}/diff" "diff" READ, ["from", "to"], None, "Difference",
        snapshots::diff, "Compare two versions";
    GET Scope "/names/{name}/pins" "listPins" READ, [], None, "Pins", snapshots::pins,
        "List pinned versions";
    PUT Scope "/names/{name}/pins/{version}" "pin" ADMIN, [], None, "Pins", snapshots::pin,
        "Keep a version from being pruned";
    DELETE Scope "/names/{name}/pins/{version}" "unpin" ADMIN, [], None, "Pins",
        snapshots::unpin, "Let a version be pruned again";
}

/// What a request is about.
pub(super) struct Target {
    pub(super) agent: Option<Name>,
    pub(super) session: Option<Name>,
    pub(super) name: Option<Name>,
    version: Option<String>,
    query: HashMap<String, String>,
    /// Token of the client, by its place in the manifest; none where none is asked for.
    token: Option<usize>,
}

impl App {
    pub(super) fn new(
        store: Store,
        manifest: Manifest,
        components: Components,
        options: Options,
    ) -> Self {
        Self {
            store,
            manifest,
            components,
            runs: Runs::default(),
            changes: Changes::default(),
            options,
            ending: CancellationToken::new(),
        }
    }

    /// Looks for changes until it is stopped.
    pub(super) async fn watch(self: Arc<Self>) {
        self.changes.watch(&self.store, self.options.poll).await;
    }

    /// Returns the body of a request.
    pub(super) fn body(&self, body: Body) -> Incoming {
        Incoming::new(body, self.options.idle)
    }

    /// Returns the token of a request; none where none is asked for.
    fn token(&self, headers: &HeaderMap) -> Result<Option<usize>> {
        if !self.options.has_auth {
            return no_browser(headers).map(|()| None);
        }
        let sent = headers.get(header::AUTHORIZATION);
        let sent = sent.and_then(|value| value.to_str().ok());
        let sent = sent.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let tokens = &self.manifest.tokens;
        let found = sent.and_then(|sent| token::find(tokens, sent));
        let found = found.and_then(|found| tokens.iter().position(|one| std::ptr::eq(one, found)));
        match found {
            Some(found) => Ok(Some(found)),
            None => {
                let what = match sent {
                    Some(_) => "the token is not known",
                    None => "the request has no token",
                };
                let error = Problem::new(StatusCode::UNAUTHORIZED, "denied", what);
                Err(error.hint("send the header `Authorization: Bearer TOKEN`"))
            }
        }
    }

    /// Refuses a token that lacks a right, or may not name an agent.
    pub(super) fn authorize(
        &self,
        token: Option<usize>,
        right: TokenRight,
        agent: Option<&Name>,
    ) -> Result<()> {
        let Some(token) = token.and_then(|token| self.manifest.tokens.get(token)) else {
            return Ok(());
        };
        let denied = |what: String| {
            let error = Problem::new(StatusCode::FORBIDDEN, "denied", what);
            error.hint("use another token, or change its entry in the manifest")
        };
        if !token.allows(right) {
            return Err(denied(format!("the token does not have the right {right}")));
        }
        match agent {
            Some(agent) if !token.covers(agent.as_str()) => {
                Err(denied("the token is for other agents".into()))
            }
            _ => Ok(()),
        }
    }

    /// Returns true if a request may see an agent.
    pub(super) fn sees(&self, target: &Target, agent: &Name) -> bool {
        let agent = Some(agent);
        self.authorize(target.token, TokenRight::Read, agent)
            .is_ok()
    }
}

impl Target {
    fn of(params: &RawPathParams, query: HashMap<String, String>) -> Result<Self> {
        let mut target = Self {
            agent: None,
            session: None,
            name: None,
            version: None,
            query,
            token: None,
        };
        for (key, value) in params {
            let name = || {
                let name = Name::new(value);
                name.map_err(|error| {
                    let why = error.to_string();
                    let why = why.strip_prefix("invalid: ").unwrap_or(&why).to_owned();
                    Problem::usage(format!("{key} of the path: {why}"))
                })
            };
            match key {
                "agent" => target.agent = Some(name()?),
                "session" => target.session = Some(name()?),
                "name" => target.name = Some(name()?),
                _ => target.version = Some(value.to_owned()),
            }
        }
        Ok(target)
    }

    pub(super) fn agent(&self) -> Result<&Name> {
        let missing = || Problem::usage("the path names no agent");
        self.agent.as_ref().ok_or_else(missing)
    }

    pub(super) fn name(&self) -> Result<&Name> {
        let missing = || Problem::usage("the path has no name");
        self.name.as_ref().ok_or_else(missing)
    }

    pub(super) fn scope(&self, app: &App) -> Result<Scope> {
        let session = self.session.as_ref().map(Name::as_str);
        Ok(app.store.scope(self.agent()?.as_str(), session)?)
    }

    pub(super) fn token(&self) -> Option<usize> {
        self.token
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str)
    }

    pub(super) fn version(&self, key: &str) -> Result<Option<Version>> {
        let version = self.text(key).map(|text| parsed(key, text));
        version.transpose()
    }

    /// Returns the version that the path names.
    pub(super) fn version_in_path(&self) -> Result<Version> {
        parsed("version", self.version.as_deref().unwrap_or(""))
    }

    pub(super) fn limit(&self) -> Result<usize> {
        match self.version("limit")? {
            None => Ok(PAGE),
            Some(limit @ 1..) => Ok(usize::try_from(limit).unwrap_or(MAX_PAGE).min(MAX_PAGE)),
            Some(0) => Err(Problem::usage("limit: the minimum is 1")),
        }
    }
}

fn parsed(key: &str, text: &str) -> Result<Version> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.ok_or_else(|| Problem::usage(format!("{key}: not a number from 0")))
}

/// Refuses requests that a page in a browser sends, also one whose host name was made to lead to
/// this machine: without tokens, nothing else keeps it out.
fn no_browser(headers: &HeaderMap) -> Result<()> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or("");
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next(),
        None => host.split(':').next(),
    };
    let is_loopback = matches!(host, Some("localhost" | "::1")) || {
        let address = host.and_then(|host| host.parse::<std::net::Ipv4Addr>().ok());
        address.is_some_and(|address| address.is_loopback())
    };
    if is_loopback && !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let what = "without tokens, requests of web pages and for other hosts are refused";
    let error = Problem::new(StatusCode::FORBIDDEN, "denied", what);
    Err(error.hint("send requests to 127.0.0.1 or localhost, or use tokens"))
}

/// Returns the routes of the service.
pub(super) fn router(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        for path in route.path.templates() {
            let handler = move |State(app), params, request| answer(route, app, params, request);
            let filter = MethodFilter::try_from(route.method.clone());
            let filter = filter.unwrap_or(MethodFilter::GET);
            router = router.route(&path, on(filter, handler));
        }
    }
    router
        .fallback(|| async {
            let error = Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such path");
            error.hint("GET /v1/openapi.json lists all paths")
        })
        .method_not_allowed_fallback(|| async {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            Problem::new(status, "usage", "the path does not take this method")
        })
        .with_state(app)
}

async fn answer(
    route: &'static Route,
    app: Arc<App>,
    params: std::result::Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response {
    let mut response = match checked(route, &app, params, &request) {
        Ok(target) => {
            let answered = (route.handler)(app, target, request).await;
            answered.unwrap_or_else(Problem::into_response)
        }
        Err(error) => error.into_response(),
    };
    let headers = response.headers_mut();
    // An agent chooses states and their media types: no browser may take one for a page.
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("sandbox; default-src 'none'"),
    );
    response
}

/// Checks the token first: a client without one learns nothing.
fn checked(
    route: &Route,
    app: &App,
    params: std::result::Result<RawPathParams, RawPathParamsRejection>,
    request: &Request,
) -> Result<Target> {
    let token = match route.right {
        Some(_) => app.token(request.headers())?,
        None => None,
    };
    let params = params.map_err(|_| Problem::usage("the path is not UTF-8"))?;
    let query = Query::<HashMap<String, String>>::try_from_uri(request.uri());
    let Query(query) = query.map_err(|_| Problem::usage("the query cannot be read"))?;
    if let Some(key) = query
        .keys()
        .find(|key| !route.query.contains(&key.as_str()))
    {
        let what = format!("the query has the unknown key {key:?}");
        return Err(Problem::usage(what));
    }
    let mut target = Target::of(&params, query)?;
    target.token = token;
    if let Some(right) = route.right {
        app.authorize(token, right, target.agent.as_ref())?;
    }
    Ok(target)
}

async fn health(_: Arc<App>, _: Target, _: Request) -> Result<Response> {
    let value = serde_json::json!({ "status": "ok" });
    Ok(super::problem::json_response(StatusCode::OK, &value))
}

async fn ready(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    if app.ending.is_cancelled() {
        let what = "the service is ending";
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "failed",
            what,
        ));
    }
    let looked = app.store.agents(None, 1);
    match tokio::time::timeout(app.options.idle, looked).await {
        Ok(Ok(_)) => health(app, target, request).await,
        Ok(Err(error)) => {
            let mut problem = Problem::from(error);
            problem.status = StatusCode::SERVICE_UNAVAILABLE;
            Err(problem)
        }
        Err(_) => {
            let what = "the storage does not answer";
            Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "failed",
                what,
            ))
        }
    }
}

async fn document(_: Arc<App>, _: Target, _: Request) -> Result<Response> {
    Ok(super::problem::json_response(
        StatusCode::OK,
        &openapi::document(),
    ))
}
