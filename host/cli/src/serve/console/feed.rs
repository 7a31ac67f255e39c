//! A page that grows by each change of the store, also without JavaScript: its response does not
//! end. Pages with JavaScript use the stream of events.

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use maud::{Markup, PreEscaped, html};
use persist_host::snapshot::Name;
use serde_json::Value;

use super::page::{self, Page, chosen, crumbs};
use super::visit::{Place, Visit};
use crate::serve::body::Outgoing;
use crate::serve::changes::{Seen, Watcher};
use crate::serve::problem::Result;
use crate::serve::token::TokenRight;

/// Changes of a page. A page that grew without end would fill the memory of the browser.
const MAX_CHANGES: usize = 500;

/// Place of the changes in the page. What an agent chose cannot contain it: `<` is escaped.
const HERE: &str = "<!--changes-->";

pub(super) async fn show(visit: Visit, _: Request) -> Result<Response> {
    visit.authorize(TokenRight::Read, None)?;
    let user = visit.user();
    let page = Page {
        title: "Changes".to_owned(),
        user: Some(&user),
        search: "",
        trail: crumbs(None, None, Some("Changes")),
        live: None,
        content: html! {
            h1 { "Changes" }
            p .muted {
                "Changes are added below as they happen, also those of other programs. The page "
                "loads until it has " (MAX_CHANGES) " changes."
            }
            ul .feed aria-label="Changes" { (PreEscaped(HERE)) }
        },
    };
    let text = page.markup().into_string();
    let (head, tail) = text.split_once(HERE).unwrap_or((&text, ""));
    let (head, tail) = (Bytes::from(head.to_owned()), Bytes::from(tail.to_owned()));
    let mut watcher = Watcher::new(&visit.app, visit.target()?)?;
    let (outgoing, body) = Outgoing::new(visit.app.options.idle);
    tokio::spawn(async move {
        let mut is_open = outgoing.send(head).await;
        let mut left = MAX_CHANGES;
        while is_open && left > 0 {
            let item = match watcher.next().await {
                Seen::Ready => note("No change from here on is missed."),
                Seen::Changed(change) => {
                    left -= 1;
                    item(change.event, &change.value)
                }
                Seen::Missed => note("Changes were missed."),
                // White space keeps proxies from ending a quiet response.
                Seen::Quiet => html! { "\n" },
                Seen::Ended => break,
            };
            is_open = outgoing.send(item.into_string().into()).await;
        }
        if is_open {
            let end = html! { li { a href="/changes" { "Show further changes" } } };
            let end = format!("{}{}", end.into_string(), String::from_utf8_lossy(&tail));
            outgoing.send(end.into()).await;
        }
    });
    let mut response = page::html_response(StatusCode::OK, html! {});
    *response.body_mut() = body;
    // Some proxies collect responses otherwise.
    let unbuffered = HeaderValue::from_static("no");
    response
        .headers_mut()
        .insert("x-accel-buffering", unbuffered);
    Ok(response)
}

fn note(text: &str) -> Markup {
    html! { li .muted { (text) } }
}

/// Shows a change, which links to its version.
fn item(event: &str, change: &Value) -> Markup {
    let name = |key: &str| Name::new(change[key].as_str()?).ok();
    let (Some(agent), Some(name), Some(version)) =
        (name("agent"), name("name"), change["version"].as_u64())
    else {
        return html! {};
    };
    let session = change["session"].as_str();
    let place = Place {
        agent,
        session: session.and_then(|session| Name::new(session).ok()),
    };
    html! {
        li {
            @if event == "deleted" { span .badge.bad { "deleted" } }
            @else { span .badge { (event) } }
            " "
            a href=(place.version_url("/version", &name, version)) {
                (chosen(place.agent.as_str())) "/"
                @if let Some(session) = &place.session { (chosen(session.as_str())) "/" }
                (chosen(name.as_str())) ", version " (version)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_change_is_text_and_a_link() {
        let change = json!({
            "agent": "<b>", "session": "\u{202e}s", "name": HERE, "version": 3,
        });
        let shown = item("saved", &change).into_string();
        assert!(!shown.contains(HERE) && !shown.contains("<b>"), "{shown}");
        assert!(!shown.contains('\u{202e}'), "{shown}");
        assert!(
            shown.contains("/version?agent=%3Cb%3E&amp;session="),
            "{shown}"
        );
        assert!(shown.contains(", version 3</a>"), "{shown}");
        assert_eq!(item("saved", &json!({})).into_string(), "");
    }
}
