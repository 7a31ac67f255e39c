//! The frame of all pages, and what several of them show.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use maud::{DOCTYPE, Markup, html};
use persist_host::snapshot::{Info, Name, Version};

use super::session::User;
use super::visit::Place;
use crate::serve::problem::{Problem, Result};
use crate::text;

/// Only what this server sends is loaded, and only from files: no script and no style is in a page.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

/// A page.
pub(super) struct Page<'a> {
    /// Title, in plain text.
    pub(super) title: String,
    pub(super) user: Option<&'a User>,
    /// Search text that the page shows the results of.
    pub(super) search: &'a str,
    /// Path from the list of agents to this page.
    pub(super) trail: Markup,
    /// Place whose changes the page shows as they happen.
    pub(super) live: Option<Live<'a>>,
    pub(super) content: Markup,
}

/// Changes that a page shows as they happen. Parts that are none match all.
#[derive(Clone, Copy, Default)]
pub(super) struct Live<'a> {
    pub(super) agent: Option<&'a Name>,
    pub(super) session: Option<&'a Name>,
    pub(super) name: Option<&'a Name>,
}

impl Page<'_> {
    pub(super) fn response(self) -> Result<Response> {
        Ok(html_response(StatusCode::OK, self.markup()))
    }

    pub(super) fn markup(self) -> Markup {
        let live = self.live;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Persist" }
                    link rel="stylesheet" href="/assets/console.css";
                    link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                    script src="/assets/console.js" defer {}
                }
                body {
                    a .skip href="#main" { "Skip to the content" }
                    header {
                        a .brand href="/" { "Persist" }
                        @if let Some(user) = self.user {
                            (pages(user))
                            (search(self.search))
                            div .account {
                                @if live.is_some() { span #live .live hidden {} }
                                @if user.has_token { (sign_out(user)) }
                            }
                        }
                    }
                    nav aria-label="Breadcrumb" { ol .trail { (self.trail) } }
                    main #main tabindex="-1"
                        data-live=[live.map(|_| "")]
                        data-agent=[live.and_then(|live| live.agent).map(Name::as_str)]
                        data-session=[live.and_then(|live| live.session).map(Name::as_str)]
                        data-name=[live.and_then(|live| live.name).map(Name::as_str)]
                    { (self.content) }
                    footer { p { "Persist " (env!("CARGO_PKG_VERSION")) } }
                }
            }
        }
    }
}

/// Links the pages that are about all agents.
fn pages(user: &User) -> Markup {
    html! {
        nav .pages aria-label="Pages" {
            a href="/" { "Agents" }
            a href="/changes" { "Changes" }
            @if user.sees_health { a href="/health" { "Health" } }
        }
    }
}

fn search(text: &str) -> Markup {
    html! {
        form .search role="search" action="/" {
            label .hidden for="search" { "Search agents, sessions and names" }
            input #search type="search" name="q" value=(text) maxlength="200"
                placeholder="Search agents, sessions and names";
            button { "Search" }
        }
    }
}

fn sign_out(user: &User) -> Markup {
    html! {
        form method="post" action="/sign-out" {
            input type="hidden" name="key" value=(user.form_key);
            button .quiet { "Sign out" }
        }
    }
}

/// Returns a page as a response.
pub(super) fn html_response(status: StatusCode, markup: Markup) -> Response {
    let mut response = Response::new(Body::from(markup.into_string()));
    *response.status_mut() = status;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

/// Returns the page of an error.
pub(super) fn problem(error: &Problem, user: Option<&User>) -> Response {
    let title = error.status.canonical_reason().unwrap_or("Error");
    let page = Page {
        title: title.to_owned(),
        user,
        search: "",
        trail: crumbs(None, None, None),
        live: None,
        content: html! {
            h1 { (title) }
            p .alert role="alert" { (text::one_line(&error.detail)) }
            @if let Some(hint) = &error.hint { p { "Hint: " (text::one_line(hint)) } }
            @if error.status == StatusCode::UNAUTHORIZED {
                p { a href="/sign-in" { "Sign in" } }
            }
        },
    };
    let mut response = html_response(error.status, page.markup());
    if error.status == StatusCode::TOO_MANY_REQUESTS {
        let again = HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, again);
    }
    response
}

/// Shows a text that an agent chose: characters that no one sees are escaped, and its direction
/// does not change what is around it.
pub(super) fn chosen(text: &str) -> Markup {
    html! { bdi { (text::one_line(text)) } }
}

/// Returns the path from the list of agents to a page.
pub(super) fn crumbs(place: Option<&Place>, name: Option<&Name>, last: Option<&str>) -> Markup {
    html! {
        li { a href="/" { "Agents" } }
        @if let Some(place) = place {
            @let agent = Place { agent: place.agent.clone(), session: None };
            li { a href=(agent.url("/agent", &[])) { (chosen(place.agent.as_str())) } }
            @if let Some(session) = &place.session {
                li { a href=(place.url("/agent", &[])) { (chosen(session.as_str())) } }
            }
            @if let Some(name) = name {
                li { a href=(place.name_url("/name", name, &[])) { (chosen(name.as_str())) } }
            }
        }
        @if let Some(last) = last { li { (last) } }
    }
}

/// Shows a time in the time zone of the server.
pub(super) fn time(millis: u64) -> Markup {
    html! {
        time datetime=[text::rfc3339(millis)] { (text::time(millis).replacen('T', " ", 1)) }
    }
}

/// Begins a form that changes something: its secret and the address that it is about.
pub(super) fn hidden_fields(user: &User, place: &Place, more: &[(&str, &str)]) -> Markup {
    html! {
        input type="hidden" name="key" value=(user.form_key);
        @for (key, value) in place.pairs() { input type="hidden" name=(key) value=(value); }
        @for (key, value) in more { input type="hidden" name=(key) value=(value); }
    }
}

/// A change that made a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Saved,
    Deleted,
    Restored(String),
    Forked(String),
}

impl Change {
    /// Returns the change that made a version. Agents cannot set these labels.
    pub(super) fn of(info: &Info) -> Self {
        let label = |key: &str| {
            let found = info.labels.iter().find(|(label, _)| label == key);
            found.map(|(_, value)| value.clone())
        };
        if info.deleted {
            Self::Deleted
        } else if let Some(version) = label("persist.restored-from") {
            Self::Restored(version)
        } else if let Some(address) = label("persist.forked-from") {
            Self::Forked(address)
        } else {
            Self::Saved
        }
    }

    pub(super) fn markup(&self) -> Markup {
        match self {
            Self::Saved => html! { "saved" },
            Self::Deleted => html! { span .badge.bad { "deleted" } },
            Self::Restored(version) => {
                html! { span .badge { "restored" } " from version " (chosen(version)) }
            }
            Self::Forked(address) => html! { span .badge { "forked" } " from " (chosen(address)) },
        }
    }

    /// Returns the class of its mark in the chart.
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Saved => "saved",
            Self::Deleted => "deleted",
            Self::Restored(_) => "restored",
            Self::Forked(_) => "forked",
        }
    }
}

/// Shows the size of a version; none of a tombstone.
pub(super) fn size(info: &Info) -> Markup {
    html! {
        @if info.deleted { "–" } @else {
            span title=(text::count(info.size, "byte")) { (text::bytes(info.size)) }
        }
    }
}

/// A table that can be scrolled sideways, also with the keyboard.
pub(super) fn scrolled(label: &str, table: Markup) -> Markup {
    html! { div .scrolled tabindex="0" role="region" aria-label=(label) { (table) } }
}

/// Returns the version before another one, for people who count.
pub(super) fn decimal(version: Version) -> String {
    version.to_string()
}

/// Adds the headers that every answer of the console has.
pub(super) fn protected(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // Not `no-referrer`: browsers then send forms without their origin.
        (header::REFERRER_POLICY, "same-origin"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        // A download has a stricter policy of its own.
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Returns a redirect to a page, which a browser gets with GET.
pub(super) fn see(location: &str) -> Result<Response> {
    let location = HeaderValue::try_from(location);
    let location = location.map_err(|_| Problem::usage("the address of the page is not ASCII"))?;
    let mut response = StatusCode::SEE_OTHER.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}
