//! The stream of the changes of a store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::broadcast;

use super::app::{App, Target};
use super::body::{Outgoing, events_response};
use super::problem::{Problem, Result};
use super::watch::Change;

/// Clients that watch at a time, at most.
const MAX_WATCHERS: usize = 64;

/// A client that watches the changes which its token may see.
pub(super) struct Watcher {
    app: Arc<App>,
    target: Target,
    changes: broadcast::Receiver<Change>,
    joined: u64,
    is_ready: bool,
}

/// Something that a client is told.
pub(super) enum Seen {
    /// No change from here on is missed.
    Ready,
    Changed(Change),
    /// The client was too slow for this many changes.
    Missed(u64),
    /// Nothing happened for a while.
    Quiet,
    /// The service ends.
    Ended,
}

impl Watcher {
    /// Begins to watch; refused where many clients do already.
    pub(super) fn new(app: &Arc<App>, target: Target) -> Result<Self> {
        let changes = app.changes.sender.subscribe();
        if app.changes.sender.receiver_count() > MAX_WATCHERS {
            return Err(Problem::busy(format!(
                "{MAX_WATCHERS} clients watch already"
            )));
        }
        let joined = app.changes.joined.fetch_add(1, Ordering::Relaxed) + 1;
        app.changes.watched.notify_one();
        Ok(Self {
            app: Arc::clone(app),
            target,
            changes,
            joined,
            is_ready: false,
        })
    }

    /// Waits for what the client is told next.
    pub(super) async fn next(&mut self) -> Seen {
        let quiet = tokio::time::sleep(self.app.options.idle / 2);
        let mut quiet = std::pin::pin!(quiet);
        loop {
            let change = tokio::select! {
                change = self.changes.recv() => change,
                () = &mut quiet => return Seen::Quiet,
                () = self.app.ending.cancelled() => return Seen::Ended,
            };
            match change {
                Ok(change) if change.event == "ready" => {
                    // Other clients are told, too, before and after this one.
                    if change.value.as_u64() >= Some(self.joined) && !self.is_ready {
                        self.is_ready = true;
                        return Seen::Ready;
                    }
                }
                Ok(change) if self.app.sees(&self.target, &change.agent) => {
                    return Seen::Changed(change);
                }
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => return Seen::Missed(missed),
                Err(broadcast::error::RecvError::Closed) => return Seen::Ended,
            }
        }
    }
}

pub(super) async fn changes(app: Arc<App>, target: Target, _: Request) -> Result<Response> {
    let (outgoing, body) = Outgoing::new(app.options.idle);
    let mut watcher = Watcher::new(&app, target)?;
    tokio::spawn(async move {
        loop {
            let sent = match watcher.next().await {
                Seen::Ready => outgoing.event("ready", &serde_json::json!({})).await,
                Seen::Changed(change) => outgoing.event(change.event, &change.value).await,
                Seen::Missed(missed) => {
                    let what = format!("{missed} changes were missed; list the names again");
                    let status = StatusCode::TOO_MANY_REQUESTS;
                    let problem = Problem::new(status, "limit", what);
                    outgoing.event("missed", &problem.document()).await
                }
                Seen::Quiet => outgoing.keep_alive().await,
                Seen::Ended => false,
            };
            if !sent {
                return;
            }
        }
    });
    Ok(events_response(body))
}
