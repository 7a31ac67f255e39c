//! The console: pages that show agents, names, versions and states, undo changes, and run agents.
//!
//! Pages are made on the server, need no JavaScript, and ask no other host for anything. What an
//! agent chose (names, labels, media types, states) is text on them, never markup. Addresses are in
//! the query and not in the path: a browser would resolve a name such as `..` in a path.

mod actions;
mod activity;
mod chart;
mod diff;
mod feed;
mod health;
mod lists;
mod name;
mod page;
mod run;
mod search;
mod session;
mod sign_in;
mod state_view;
mod tree;
mod version;
mod visit;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use futures_util::FutureExt as _;

use super::app::App;
use super::problem::{self, Problem};
use page::protected;
use session::{Session, User};
use visit::Visit;

/// Files that pages refer to.
const ASSETS: [(&str, &str, &str); 3] = [
    (
        "/assets/console.css",
        "text/css; charset=utf-8",
        include_str!("console.css"),
    ),
    (
        "/assets/console.js",
        "text/javascript; charset=utf-8",
        include_str!("console.js"),
    ),
    (
        "/assets/icon.svg",
        "image/svg+xml",
        include_str!("icon.svg"),
    ),
];

/// Returns the routes of the console.
pub(super) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let mut router = Router::new();
    for (path, route) in [
        ("/", page(lists::agents)),
        ("/agent", page(lists::scope)),
        ("/name", page(name::show)),
        ("/version", page(version::show)),
        ("/download", page(version::download)),
        ("/diff", page(diff::show)),
        ("/changes", page(feed::show)),
        ("/health", page(health::show)),
        ("/events", page(version::events)),
        ("/run", form(run::run)),
        ("/restore", form(actions::restore)),
        ("/undo", form(actions::undo)),
        ("/fork", form(actions::fork)),
        ("/delete", form(actions::delete)),
        ("/pin", form(actions::pin)),
        ("/unpin", form(actions::unpin)),
        ("/sign-out", form(sign_in::sign_out)),
        ("/sign-in", get(sign_in::show).post(sign_in::sign_in)),
    ] {
        router = router.route(path, counted(app, path, route));
    }
    for (path, media_type, text) in ASSETS {
        let asset = move || async move {
            let mut response = Response::new(Body::from(text));
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            protected(response)
        };
        router = router.route(path, get(asset));
    }
    router
}

/// Counts the requests of a route in the metrics.
fn counted(
    app: &Arc<App>,
    path: &'static str,
    route: MethodRouter<Arc<App>>,
) -> MethodRouter<Arc<App>> {
    let app = Arc::clone(app);
    route.route_layer(from_fn(move |request: Request, next: Next| {
        let app = Arc::clone(&app);
        async move {
            let began = Instant::now();
            let method = match *request.method() {
                Method::POST => "POST",
                Method::HEAD => "HEAD",
                _ => "GET",
            };
            let response = next.run(request).await;
            let (path, status) = (path.to_owned(), response.status());
            app.metrics.answered(method, path, status, began.elapsed());
            response
        }
    }))
}

/// Returns the page of an error for a browser that asked for a path which is none.
pub(super) fn no_page(app: &App, headers: &HeaderMap, error: &Problem) -> Response {
    let console = app.options.console.as_ref();
    let session = console.and_then(|console| Session::of(app, console, headers).ok());
    let user = session.map(|session| User::of(app, &session));
    protected(page::problem(error, user.as_ref()))
}

/// Returns the error of a handler that panics: a browser whose connection is closed would send the
/// request again, and tells a person nothing.
async fn caught(
    handler: impl Future<Output = problem::Result<Response>>,
) -> problem::Result<Response> {
    let answered = AssertUnwindSafe(handler).catch_unwind().await;
    answered.unwrap_or_else(|_| Err(Problem::panicked()))
}

/// Routes a page, which needs the right to read.
fn page<H, F>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Fn(Visit, Request) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = problem::Result<Response>> + Send + 'static,
{
    get(
        move |State(app): State<Arc<App>>, request: Request| async move {
            let visit = match Visit::of_page(app, &request) {
                Ok(visit) => visit,
                Err(error) => return protected(sign_in::refused(&request, &error)),
            };
            let user = visit.user();
            let answered = caught(handler(visit, request)).await;
            protected(answered.unwrap_or_else(|error| page::problem(&error, Some(&user))))
        },
    )
}

/// Routes a form that changes something.
fn form<H, F>(handler: H) -> MethodRouter<Arc<App>>
where
    H: Fn(Visit) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = problem::Result<Response>> + Send + 'static,
{
    post(
        move |State(app): State<Arc<App>>, request: Request| async move {
            let visit = match Visit::of_form(app, request).await {
                Ok(visit) => visit,
                Err(error) => return protected(page::problem(&error, None)),
            };
            let user = visit.user();
            let answered = caught(handler(visit)).await;
            protected(answered.unwrap_or_else(|error| page::problem(&error, Some(&user))))
        },
    )
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::StatusCode;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test]
    async fn a_page_and_a_form_that_panic_are_answered_with_a_page() {
        let app = Arc::new(App::for_tests().expect("an app"));
        let visit = Request::get("/").header("host", "127.0.0.1");
        let visit = visit.body(Body::empty()).expect("a request");
        let visit = Visit::of_page(Arc::clone(&app), &visit);
        let key = visit.expect("no token is asked for").session.form_key;
        let router = Router::new()
            .route("/page", page(|_, _| async { panic!("planted") }))
            .route("/form", form(|_| async { panic!("planted") }))
            .with_state(app);
        let service = TowerToHyperService::new(router);
        for (request, body) in [
            (Request::get("/page"), String::new()),
            (Request::post("/form"), format!("key={key}")),
        ] {
            let request = request.header("host", "127.0.0.1").body(Body::from(body));
            let request = request.expect("a request");
            let response = hyper::service::Service::call(&service, request).await;
            let response = response.expect("a response");
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            assert!(response.headers().contains_key("content-security-policy"));
            let body = to_bytes(response.into_body(), 1 << 20)
                .await
                .expect("a body");
            let page = String::from_utf8_lossy(&body);
            assert!(
                page.contains("the server failed") && !page.contains("planted"),
                "{page}"
            );
        }
    }
}
