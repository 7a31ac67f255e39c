//! Search in agents, sessions and names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use maud::{Markup, html};
use persist_host::snapshot::{Matcher, Name, NamePattern, Scope, Selection};

use super::page::{chosen, scrolled};
use super::visit::{Place, Visit};
use crate::serve::problem::Result;
use crate::serve::token::TokenRight;
use crate::text;

/// Results of a page.
const MAX_FOUND: usize = 100;

/// Names that are compared, and the time for it, at most.
const MAX_LOOKED: u64 = 20_000;
const MAX_TIME: Duration = Duration::from_secs(5);

/// Returns the names whose agent, session or name contain a text, in any case.
pub(super) async fn results(visit: &Visit, wanted: &str) -> Result<Markup> {
    let app = Arc::clone(&visit.app);
    let token = visit.session.token;
    let selection = Selection::Matching(vec![NamePattern {
        agent: Matcher::matching(move |agent: &Name| {
            let allowed = app.authorize(token, TokenRight::Read, Some(agent));
            allowed.is_ok()
        }),
        session: Matcher::Any,
        name: Matcher::Any,
    }]);
    let lower = wanted.to_lowercase();
    let begin = Instant::now();
    let mut walk = visit.app.store.walk(&selection);
    let mut found = Vec::new();
    let mut looked = 0;
    let mut is_whole = false;
    while found.len() < MAX_FOUND && looked < MAX_LOOKED && begin.elapsed() < MAX_TIME {
        let Some((scope, name)) = walk.next().await? else {
            is_whole = true;
            break;
        };
        looked += 1;
        if matches(&scope, &name, &lower) {
            found.push((Place::of(&scope), name));
        }
    }
    Ok(html! {
        h1 { "Search for " (chosen(wanted)) }
        @if !is_whole {
            p .alert role="status" {
                "The search stopped after " (text::count(looked, "name"))
                ". There may be more results; search for a longer text."
            }
        }
        @if found.is_empty() {
            p { "No agent, session or name contains this text." }
        } @else {
            (scrolled("Results", html! {
                table {
                    thead { tr {
                        th scope="col" { "Agent" } th scope="col" { "Session" }
                        th scope="col" { "Name" }
                    } }
                    tbody { @for (place, name) in &found { (row(place, name)) } }
                }
            }))
        }
    })
}

fn row(place: &Place, name: &Name) -> Markup {
    let agent = Place {
        agent: place.agent.clone(),
        session: None,
    };
    html! {
        tr {
            td { a href=(agent.url("/agent", &[])) { (chosen(place.agent.as_str())) } }
            td {
                @if let Some(session) = &place.session {
                    a href=(place.url("/agent", &[])) { (chosen(session.as_str())) }
                } @else { "–" }
            }
            th scope="row" {
                a href=(place.name_url("/name", name, &[])) { (chosen(name.as_str())) }
            }
        }
    }
}

fn matches(scope: &Scope, name: &Name, lower: &str) -> bool {
    let parts = [Some(scope.agent()), scope.session(), Some(name)];
    let parts: Vec<_> = parts.into_iter().flatten().map(Name::as_str).collect();
    parts.join("/").to_lowercase().contains(lower)
}
