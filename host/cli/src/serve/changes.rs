//! The stream of the changes of a store.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

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

/// Clients that watch with one token, at most: others keep places.
const MAX_OF_TOKEN: usize = 16;

/// A place among the clients that watch with one token.
struct Place {
    app: Arc<App>,
    token: usize,
}

impl Place {
    /// Takes a place; refused where the token has none left.
    fn take(app: &Arc<App>, token: usize) -> Result<Self> {
        let mut taken = places(app);
        let of_token = taken.entry(token).or_default();
        if *of_token >= MAX_OF_TOKEN {
            let what = format!("{MAX_OF_TOKEN} clients with this token watch already");
            return Err(Problem::busy(what));
        }
        *of_token += 1;
        let app = Arc::clone(app);
        Ok(Self { app, token })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(of_token) = places(&self.app).get_mut(&self.token) {
            *of_token = of_token.saturating_sub(1);
        }
    }
}

fn places(app: &App) -> MutexGuard<'_, HashMap<usize, usize>> {
    let taken = app.changes.of_tokens.lock();
    taken.unwrap_or_else(PoisonError::into_inner)
}

/// A client that watches the changes which its token may see.
pub(super) struct Watcher {
    app: Arc<App>,
    target: Target,
    changes: broadcast::Receiver<Change>,
    /// None where no token is asked for.
    _place: Option<Place>,
    joined: u64,
    is_ready: bool,
}

/// Something that a client is told.
pub(super) enum Seen {
    /// No change from here on is missed.
    Ready,
    Changed(Change),
    /// The client was too slow for some changes. How many were those of its agents is not known.
    Missed,
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
        let place = target.token.map(|token| Place::take(app, token));
        let place = place.transpose()?;
        let joined = app.changes.joined.fetch_add(1, Ordering::Relaxed) + 1;
        app.changes.watched.notify_one();
        Ok(Self {
            app: Arc::clone(app),
            target,
            changes,
            _place: place,
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
                Err(broadcast::error::RecvError::Lagged(_)) => return Seen::Missed,
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
                Seen::Missed => {
                    let what = "changes were missed; list the names again";
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
