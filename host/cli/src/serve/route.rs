//! An operation of the service.

use std::pin::Pin;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::Method;
use axum::response::Response;

use super::app::{App, Target};
use super::problem::Result;
use super::token::TokenRight;

pub(super) type Answer = Pin<Box<dyn Future<Output = Result<Response>> + Send>>;

/// An operation of the service. The router and the OpenAPI document are both made of one table.
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
    pub(super) handler: fn(Arc<App>, Target, Request) -> Answer,
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
