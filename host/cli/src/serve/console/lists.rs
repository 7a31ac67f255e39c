//! Lists of agents, sessions and names.

use axum::extract::Request;
use axum::response::Response;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use maud::{Markup, html};
use persist_host::snapshot::{self, Info, Name, Scope, Selection, Version};
use tokio::time::Instant;

use super::activity::{self, Activity};
use super::page::{self, Live, Page, chosen, crumbs, scrolled};
use super::visit::{Place, Visit, url};
use super::{chart, run, search};
use crate::serve::problem::Result;
use crate::serve::token::TokenRight;
use crate::text;

/// Agents or sessions of a page. The saves of each are counted.
const PAGE: usize = 25;

/// Names of a page. The versions of each are read.
const NAMES: usize = 25;

/// Versions in a small chart.
const SPARK: usize = 12;

/// Names whose versions are read at a time.
const AT_ONCE: usize = 8;

/// Sessions of an agent that are counted, at most.
const COUNTED: usize = 100;

pub(super) async fn agents(visit: Visit, _: Request) -> Result<Response> {
    visit.authorize(TokenRight::Read, None)?;
    let user = visit.user();
    let wanted = visit.fields.text("q").map(str::trim).unwrap_or("");
    if !wanted.is_empty() {
        let content = search::results(&visit, wanted).await?;
        let page = Page {
            title: format!("Search for {}", text::one_line(wanted)),
            user: Some(&user),
            search: wanted,
            trail: crumbs(None, None, Some("Search")),
            live: None,
            content,
        };
        return page.response();
    }
    let after = visit.fields.text("after").map(Name::new).transpose()?;
    let token = visit.session.token;
    let (agents, next) = visit.app.agents(token, after, PAGE).await?;
    let end = Instant::now() + activity::TIME;
    let counts = stream::iter(agents)
        .map(|agent| count(&visit, agent, end))
        .buffered(AT_ONCE);
    let rows: Vec<_> = counts.try_collect().await?;
    let next = next.map(|next| url("/", [("after", next.as_str())]));
    let content = html! {
        h1 { "Agents" }
        @if rows.is_empty() {
            p { "No agent on this page has saved anything that this token may read." }
        } @else {
            (scrolled("Agents", html! {
                table {
                    thead { tr {
                        th scope="col" { "Agent" } th .number scope="col" { "Sessions" }
                        (activity::heads())
                    } }
                    tbody { @for (agent, sessions, saves) in &rows {
                        @let place = Place { agent: agent.clone(), session: None };
                        tr {
                            th scope="row" {
                                a href=(place.url("/agent", &[])) { (chosen(agent.as_str())) }
                            }
                            td .number { (sessions) }
                            (activity::cells(saves.as_ref()))
                        }
                    } }
                }
            }))
            (activity::note("agent"))
        }
        (more(next.as_deref(), "More agents"))
    };
    let page = Page {
        title: "Agents".to_owned(),
        user: Some(&user),
        search: "",
        trail: crumbs(None, None, None),
        live: Some(Live::default()),
        content,
    };
    page.response()
}

/// An agent, the number of its sessions, and its saves.
type AgentRow = (Name, String, Option<Activity>);

/// Counts the sessions of an agent, up to a limit, and its saves, up to a time.
async fn count(visit: &Visit, agent: Name, end: Instant) -> Result<AgentRow> {
    let page = visit.app.store.sessions(&agent, None, COUNTED + 2).await?;
    let sessions = page.iter().flatten().count();
    let count = if sessions > COUNTED {
        format!("more than {COUNTED}")
    } else {
        sessions.to_string()
    };
    let selection = Selection::Agent(agent.clone());
    let saves = Activity::of(&visit.app.store, &selection, end).await;
    Ok((agent, count, saves))
}

pub(super) async fn scope(visit: Visit, _: Request) -> Result<Response> {
    let (place, scope) = visit.scope(TokenRight::Read)?;
    let user = visit.user();
    let after = visit.fields.text("after");
    let names = scope.names("", after, NAMES).await?;
    let next = names.last().filter(|_| names.len() == NAMES);
    let next = next.map(|next| place.url("/agent", &[("after", next.as_str())]));
    let rows = stream::iter(names).map(|name| summary(scope.clone(), name));
    let rows: Vec<_> = rows.buffered(AT_ONCE).try_collect().await?;
    let sessions = match &place.session {
        None => sessions(&visit, &place).await?,
        Some(_) => html! {},
    };
    let content = html! {
        h1 {
            @match &place.session {
                Some(session) => { "Session " (chosen(session.as_str())) }
                None => { "Agent " (chosen(place.agent.as_str())) }
            }
        }
        h2 { "Names" }
        @if rows.is_empty() {
            p { "Nothing is saved here." }
        } @else {
            (scrolled("Names", html! {
                table {
                    thead { tr {
                        th scope="col" { "Name" } th .number scope="col" { "Size" }
                        th scope="col" { "Last versions" } th .number scope="col" { "Version" }
                        th scope="col" { "Changed" }
                    } }
                    tbody { @for row in &rows { (row.markup(&place)) } }
                }
            }))
        }
        (more(next.as_deref(), "More names"))
        (run::form(&visit, &user, &place, "")?)
        (sessions)
    };
    let title = place.session.as_ref().unwrap_or(&place.agent);
    let page = Page {
        title: text::one_line(title.as_str()),
        user: Some(&user),
        search: "",
        trail: crumbs(Some(&place), None, None),
        live: Some(Live {
            agent: Some(&place.agent),
            session: place.session.as_ref(),
            name: None,
        }),
        content,
    };
    page.response()
}

async fn sessions(visit: &Visit, place: &Place) -> Result<Markup> {
    let after = visit.fields.text("after-session").map(Name::new);
    let after = after.transpose()?.map(Some);
    let after = after.as_ref().map(Option::as_ref);
    let page = visit.app.store.sessions(&place.agent, after, PAGE).await?;
    let is_full = page.len() == PAGE;
    let sessions: Vec<_> = page.into_iter().flatten().collect();
    let next = sessions.last().filter(|_| is_full);
    let next = next.map(|next| place.url("/agent", &[("after-session", next.as_str())]));
    let end = Instant::now() + activity::TIME;
    let rows = stream::iter(sessions).map(|session| async move {
        let selection = Selection::Session(place.agent.clone(), Some(session.clone()));
        let saves = Activity::of(&visit.app.store, &selection, end).await;
        (session, saves)
    });
    let rows: Vec<_> = rows.buffered(AT_ONCE).collect().await;
    Ok(html! {
        h2 { "Sessions" }
        @if rows.is_empty() { p { "There are no sessions." } }
        @else {
            (scrolled("Sessions", html! {
                table {
                    thead { tr { th scope="col" { "Session" } (activity::heads()) } }
                    tbody { @for (session, saves) in &rows {
                        @let place = Place {
                            agent: place.agent.clone(),
                            session: Some(session.clone()),
                        };
                        tr {
                            th scope="row" {
                                a href=(place.url("/agent", &[])) { (chosen(session.as_str())) }
                            }
                            (activity::cells(saves.as_ref()))
                        }
                    } }
                }
            }))
            (activity::note("session"))
        }
        (more(next.as_deref(), "More sessions"))
    })
}

/// A name and its last versions, newest first.
struct Summary {
    name: Name,
    versions: Vec<(Version, snapshot::Result<Info>)>,
}

async fn summary(scope: Scope, name: Name) -> Result<Summary> {
    let mut past = scope.past(name.as_str(), None, SPARK)?;
    let mut versions = Vec::new();
    while let Some(seen) = past.next().await? {
        versions.push(seen);
    }
    Ok(Summary { name, versions })
}

impl Summary {
    fn markup(&self, place: &Place) -> Markup {
        let sizes = self.versions.iter().rev();
        let sizes: Vec<_> = sizes
            .map(|(_, info)| info.as_ref().ok().filter(|info| !info.deleted))
            .map(|info| info.map(|info| info.size))
            .collect();
        html! {
            tr {
                th scope="row" {
                    a href=(place.name_url("/name", &self.name, &[])) {
                        (chosen(self.name.as_str()))
                    }
                }
                @match self.versions.first() {
                    Some((version, Ok(info))) => {
                        td .number {
                            @if info.deleted { span .badge.bad { "deleted" } }
                            @else { (page::size(info)) }
                        }
                        td { (chart::sparkline(&sizes)) }
                        td .number { (version) }
                        td { (page::time(info.created_at)) }
                    }
                    Some((version, Err(_))) => {
                        td .number { span .badge.bad { "cannot be read" } }
                        td { (chart::sparkline(&sizes)) }
                        td .number { (version) }
                        td {}
                    }
                    // Purged since it was listed.
                    None => { td .number { "–" } td {} td {} td {} }
                }
            }
        }
    }
}

/// Links the next page of a list.
pub(super) fn more(next: Option<&str>, label: &str) -> Markup {
    html! { @if let Some(next) = next { p { a .button href=(next) { (label) } } } }
}
