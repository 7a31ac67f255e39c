//! All operations of the service. The router and the OpenAPI document are made of one table.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{Query, RawPathParams, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use futures_util::FutureExt as _;
use tracing::Instrument as _;
use tracing::field::Empty;

use super::app::{App, Target};
use super::body::{accepts, require_no_coding};
use super::problem::{Problem, Result};
use super::route::{Answer, Path, Route};
use super::token::TokenRight;
use super::{changes, console, openapi, runs, snapshots};

/// Bytes of the headers of a request, at most. The connection ends a head that it cannot hold.
const MAX_HEAD: usize = 64 << 10;

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

const METRICS: Option<TokenRight> = Some(TokenRight::Metrics);
const READ: Option<TokenRight> = Some(TokenRight::Read);
const SAVE: Option<TokenRight> = Some(TokenRight::Save);
const ADMIN: Option<TokenRight> = Some(TokenRight::Admin);

routes! {
    GET Root "/healthz" "health" None, [], None, "Health", health, "Tell that the process works";
    GET Root "/readyz" "ready" None, [], None, "Health", ready, "Tell that the store can be read";
    GET Root "/metrics" "metrics" METRICS, [], None, "", metrics,
        "Return metrics in the text format of OpenMetrics";
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

/// Returns the routes of the service.
pub(super) fn router(app: Arc<App>) -> Router {
    router_of(ROUTES, app)
}

fn router_of(routes: &'static [Route], app: Arc<App>) -> Router {
    let mut router = Router::new();
    for route in routes {
        for path in route.path.templates() {
            let template = path.clone();
            let handler = move |State(app): State<Arc<App>>, params, request: Request| {
                let template = template.clone();
                async move {
                    let began = Instant::now();
                    let method = route.method.as_str();
                    let span = tracing::info_span!(
                        "http_request",
                        "otel.kind" = "server",
                        "otel.name" = %format_args!("{method} {template}"),
                        "http.request.method" = method,
                        "http.route" = template,
                        "http.response.status_code" = Empty,
                    );
                    #[cfg(feature = "otlp")]
                    crate::otlp::follow(&span, request.headers());
                    let answered = answer(route, Arc::clone(&app), params, request);
                    let response = answered.instrument(span.clone()).await;
                    let status = response.status().as_u16();
                    span.record("http.response.status_code", status);
                    app.metrics
                        .answered(method, template, response.status(), began.elapsed());
                    response
                }
            };
            let filter = MethodFilter::try_from(route.method.clone());
            let filter = filter.unwrap_or(MethodFilter::GET);
            router = router.route(&path, on(filter, handler));
        }
    }
    if app.options.console.is_some() {
        router = router.merge(console::router(&app));
    }
    router
        .fallback(
            |State(app): State<Arc<App>>, headers: HeaderMap| async move {
                let error =
                    Problem::new(StatusCode::NOT_FOUND, "not_found", "there is no such path");
                no_route(
                    &app,
                    &headers,
                    error.hint("GET /v1/openapi.json lists all paths"),
                )
            },
        )
        .method_not_allowed_fallback(
            |State(app): State<Arc<App>>, headers: HeaderMap| async move {
                let status = StatusCode::METHOD_NOT_ALLOWED;
                let error = Problem::new(status, "usage", "the path does not take this method");
                no_route(&app, &headers, error)
            },
        )
        .with_state(app)
        .layer(map_response(kept_from_other_sites))
}

/// Tells browsers that pages of other sites may not use a response, as a script for example.
async fn kept_from_other_sites(mut response: Response) -> Response {
    let policy = HeaderValue::from_static("same-origin");
    let headers = response.headers_mut();
    headers.insert("cross-origin-resource-policy", policy);
    response
}

/// Answers a request that no route takes: a person in a browser gets a page of the console.
fn no_route(app: &App, headers: &HeaderMap, mut error: Problem) -> Response {
    if app.options.console.is_some() && accepts(headers, "text/html") {
        error.hint = Some("the list of agents leads to all pages".into());
        return console::no_page(app, headers, &error);
    }
    let mut response = error.into_response();
    let nosniff = HeaderValue::from_static("nosniff");
    response
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

async fn answer(
    route: &'static Route,
    app: Arc<App>,
    params: std::result::Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response {
    let mut response = match checked(route, &app, params, &request) {
        Ok(target) => {
            let answered = AssertUnwindSafe((route.handler)(app, target, request));
            // A client whose connection is closed would repeat the request.
            let answered = answered.catch_unwind().await;
            let answered = answered.unwrap_or_else(|_| Err(Problem::panicked()));
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
    let headers = request.headers().iter();
    let head: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if head > MAX_HEAD {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let what = format!("the headers of the request have more than {MAX_HEAD} bytes");
        return Err(Problem::new(status, "limit", what));
    }
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
    target.client = request.extensions().get().copied();
    if let Some(right) = route.right {
        app.authorize(token, right, target.agent.as_ref())?;
    }
    if route.body.is_some() {
        require_no_coding(request.headers())?;
    }
    Ok(target)
}

async fn health(_: Arc<App>, _: Target, _: Request) -> Result<Response> {
    let value = serde_json::json!({ "status": "ok" });
    Ok(super::problem::json_response(StatusCode::OK, &value))
}

async fn ready(app: Arc<App>, target: Target, request: Request) -> Result<Response> {
    app.refuse_if_ending()?;
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

async fn metrics(app: Arc<App>, _: Target, _: Request) -> Result<Response> {
    let mut response = Response::new(app.metrics.text().into());
    let headers = response.headers_mut();
    let media_type = HeaderValue::from_static(super::metrics::MEDIA_TYPE);
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

// Not `async`: its type would depend on the table that it is in.
fn document(_: Arc<App>, _: Target, _: Request) -> Answer {
    let document = openapi::document(ROUTES);
    Box::pin(async move { Ok(super::problem::json_response(StatusCode::OK, &document)) })
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use hyper_util::service::TowerToHyperService;
    use serde_json::Value;

    use super::*;

    const PLANTED: &[Route] = &[Route {
        method: Method::GET,
        path: Path::Root("/planted"),
        id: "planted",
        summary: "Panic",
        right: None,
        query: &[],
        body: None,
        answer: "",
        handler: |app, target, request| Box::pin(planted(app, target, request)),
    }];

    async fn planted(_: Arc<App>, _: Target, _: Request) -> Result<Response> {
        panic!("planted")
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_with_a_problem() {
        let app = Arc::new(App::for_tests().expect("an app"));
        let service = TowerToHyperService::new(router_of(PLANTED, Arc::clone(&app)));
        let request = Request::get("/planted").body(Body::empty());
        let request = request.expect("a request");
        let response = hyper::service::Service::call(&service, request).await;
        let response = response.expect("a response");
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let media_type = response.headers().get(header::CONTENT_TYPE);
        assert_eq!(media_type.expect("a type"), "application/problem+json");
        let body = to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("a body");
        let problem: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&500.into(), &"failed".into())
        );
        assert_eq!(
            problem["detail"], "the server failed",
            "and not the text of the panic"
        );
        // Other requests are answered, and the metrics count this one.
        let counted =
            "http_route=\"/planted\",http_response_status_code=\"500\",url_scheme=\"http\"} 1";
        assert!(
            app.metrics.text().contains(counted),
            "{}",
            app.metrics.text()
        );
    }
}
