//! The page of a version: its metadata, its state, and forms that use it.

use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use maud::{Markup, html};
use persist_host::snapshot::{Info, Name, Version};

use super::page::{self, Change, Page, chosen, crumbs, hidden_fields};
use super::session::User;
use super::state_view;
use super::visit::{Place, Visit, existing};
use crate::serve::problem::Result;
use crate::serve::token::TokenRight;
use crate::serve::{changes, snapshots};
use crate::text;

/// Media types longer than this are cut off.
const MAX_SHOWN: usize = 300;

pub(super) async fn show(visit: Visit, _: Request) -> Result<Response> {
    let (place, scope) = visit.scope(TokenRight::Read)?;
    let name = visit.name()?;
    let version = visit.version()?;
    let info = existing(&scope, &name, version).await?;
    let head = scope.versions(name.as_str(), None, 1).await?;
    let head = head.first().copied().unwrap_or(version);
    let is_pinned = scope.pins(name.as_str()).await?.contains(&version);
    let state = if info.deleted {
        html! { p { "The name was deleted here. There is no state." } }
    } else {
        state_view::state(&visit, &place, &name, &scope, &info).await?
    };
    let user = visit.user();
    let content = html! {
        h1 { (chosen(name.as_str())) ", version " (version) }
        div .actions {
            (forms(&visit, &user, &place, &name, &info, head, is_pinned))
        }
        (metadata(&place, &name, &info, is_pinned))
        (state)
        (fork(&visit, &user, &place, &name, &info))
    };
    let page = Page {
        title: format!("{}, version {version}", text::one_line(name.as_str())),
        user: Some(&user),
        search: "",
        trail: crumbs(
            Some(&place),
            Some(&name),
            Some(&format!("Version {version}")),
        ),
        live: None,
        content,
    };
    page.response()
}

/// Sends the state as a file. It is never shown: an agent chose its media type.
pub(super) async fn download(visit: Visit, request: Request) -> Result<Response> {
    visit.scope(TokenRight::Read)?;
    let name = visit.name()?;
    let version = visit.version()?;
    let target = visit.target()?;
    let mut response = snapshots::load(visit.app, target, request).await?;
    let headers = response.headers_mut();
    let file = format!("attachment; filename=\"{}@{version}\"", name.encoded());
    if let Ok(file) = HeaderValue::try_from(file) {
        headers.insert(header::CONTENT_DISPOSITION, file);
    }
    let policy = HeaderValue::from_static("sandbox; default-src 'none'");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    Ok(response)
}

/// Streams the changes of all names that the token may read.
pub(super) async fn events(visit: Visit, request: Request) -> Result<Response> {
    visit.authorize(TokenRight::Read, None)?;
    let target = visit.target()?;
    changes::changes(visit.app, target, request).await
}

fn metadata(place: &Place, name: &Name, info: &Info, is_pinned: bool) -> Markup {
    let media_type = info.media_type.as_deref().unwrap_or("");
    html! {
        dl .facts {
            div { dt { "Change" } dd { (Change::of(info).markup()) } }
            div { dt { "Created" } dd { (page::time(info.created_at)) } }
            @if !info.deleted {
                div { dt { "Size" } dd {
                    (text::bytes(info.size)) " (" (text::count(info.size, "byte")) ")"
                } }
                div { dt { "SHA-256" } dd { code { (info.sha256) } } }
            }
            div { dt { "At rest" } dd { (text::bytes(info.stored_size)) } }
            @if let Some(parent) = info.parent {
                div { dt { "Before it" } dd {
                    a href=(place.version_url("/version", name, parent)) { "version " (parent) }
                } }
            }
            div { dt { "Pinned" } dd { @if is_pinned { "yes" } @else { "no" } } }
            @if !media_type.is_empty() {
                div { dt { "Media type" } dd { (chosen(&cut(media_type))) } }
            }
            @for (key, value) in &info.labels {
                div { dt { "Label " (chosen(key)) } dd { (chosen(value)) } }
            }
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn forms(
    visit: &Visit,
    user: &User,
    place: &Place,
    name: &Name,
    info: &Info,
    head: Version,
    is_pinned: bool,
) -> Markup {
    let version = page::decimal(info.version);
    let head_text = page::decimal(head);
    let fields = [
        ("name", name.as_str()),
        ("version", &version),
        ("head", &head_text),
    ];
    let form = |action: &str, label: &str| {
        html! {
            form .inline method="post" action=(action) {
                (hidden_fields(user, place, &fields)) button { (label) }
            }
        }
    };
    let may = |right| visit.may(right, &place.agent);
    html! {
        @if !info.deleted {
            a .button href=(place.version_url("/download", name, info.version)) { "Download" }
        }
        @if let Some(parent) = info.parent {
            @let from = page::decimal(parent);
            a .button href=(place.name_url("/diff", name, &[("from", &from), ("to", &version)])) {
                "Compare with version " (parent)
            }
        }
        @if !info.deleted && info.version != head && may(TokenRight::Save) {
            (form("/restore", "Restore"))
        }
        @if may(TokenRight::Admin) {
            @if is_pinned { (form("/unpin", "Unpin")) } @else { (form("/pin", "Pin")) }
        }
    }
}

fn fork(visit: &Visit, user: &User, place: &Place, name: &Name, info: &Info) -> Markup {
    if info.deleted || !visit.may(TokenRight::Save, &place.agent) {
        return html! {};
    }
    let version = page::decimal(info.version);
    let fields = [("name", name.as_str()), ("version", &version)];
    let session = place.session.as_ref().map(Name::as_str).unwrap_or("");
    html! {
        h2 { "Fork" }
        p .muted { "Saves this state under another name, where no state may be saved." }
        form .stacked method="post" action="/fork" {
            (hidden_fields(user, place, &fields))
            label for="to-agent" { "Agent" }
            input #to-agent name="to-agent" value=(place.agent.as_str()) required
                maxlength="200";
            label for="to-session" { "Session (optional)" }
            input #to-session name="to-session" value=(session) maxlength="200";
            label for="to-name" { "Name" }
            input #to-name name="to-name" required maxlength="200";
            button { "Fork" }
        }
    }
}
