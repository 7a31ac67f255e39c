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

/// Clients that watch at a time, at most.
const MAX_WATCHERS: usize = 64;

pub(super) async fn changes(app: Arc<App>, target: Target, _: Request) -> Result<Response> {
    let mut changes = app.changes.sender.subscribe();
    if app.changes.sender.receiver_count() > MAX_WATCHERS {
        return Err(Problem::busy(format!(
            "{MAX_WATCHERS} clients watch already"
        )));
    }
    let joined = app.changes.joined.fetch_add(1, Ordering::Relaxed) + 1;
    app.changes.watched.notify_one();
    let (outgoing, body) = Outgoing::new(app.options.idle);
    tokio::spawn(async move {
        let mut is_ready = false;
        loop {
            let sent = tokio::select! {
                change = changes.recv() => match change {
                    Ok(change) if change.event == "ready" => {
                        // Other clients are told, too, before and after this one.
                        let is_mine = change.value.as_u64() >= Some(joined) && !is_ready;
                        is_ready |= is_mine;
                        !is_mine || outgoing.event("ready", &serde_json::json!({})).await
                    }
                    Ok(change) if app.sees(&target, &change.agent) => {
                        outgoing.event(change.event, &change.value).await
                    }
                    Ok(_) => true,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        let what = format!("{missed} changes were missed; list the names again");
                        let status = StatusCode::TOO_MANY_REQUESTS;
                        let problem = Problem::new(status, "limit", what);
                        outgoing.event("missed", &problem.document()).await
                    }
                    Err(broadcast::error::RecvError::Closed) => false,
                },
                () = tokio::time::sleep(app.options.idle / 2) => outgoing.keep_alive().await,
                () = app.ending.cancelled() => false,
            };
            if !sent {
                return;
            }
        }
    });
    Ok(events_response(body))
}
