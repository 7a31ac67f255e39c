//! The console: pages that show agents, names, versions and states, and undo changes.
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
mod search;
mod session;
mod sign_in;
mod state_view;
mod tree;
mod version;
mod visit;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};

use super::app::App;
use super::problem;
use page::protected;
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
pub(super) fn router() -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/", page(lists::agents))
        .route("/agent", page(lists::scope))
        .route("/name", page(name::show))
        .route("/version", page(version::show))
        .route("/download", page(version::download))
        .route("/diff", page(diff::show))
        .route("/changes", page(feed::show))
        .route("/health", page(health::show))
        .route("/events", page(version::events))
        .route("/restore", form(actions::restore))
        .route("/undo", form(actions::undo))
        .route("/fork", form(actions::fork))
        .route("/delete", form(actions::delete))
        .route("/pin", form(actions::pin))
        .route("/unpin", form(actions::unpin))
        .route("/sign-out", form(sign_in::sign_out))
        .route("/sign-in", get(sign_in::show).post(sign_in::sign_in));
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
            let answered = handler(visit, request).await;
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
            let answered = handler(visit).await;
            protected(answered.unwrap_or_else(|error| page::problem(&error, Some(&user))))
        },
    )
}
