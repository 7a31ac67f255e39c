//! The page of a name: its timeline, its versions, and what undoes the last change.

use std::collections::BTreeSet;

use axum::extract::Request;
use axum::response::Response;
use maud::{Markup, html};
use persist_host::snapshot::{self, Info, Name, Version};

use super::chart::{self, Point};
use super::lists::more;
use super::page::{self, Change, Live, Page, chosen, crumbs, hidden_fields, scrolled};
use super::session::User;
use super::visit::{Place, Visit, nothing};
use crate::serve::problem::Result;
use crate::serve::token::TokenRight;
use crate::text;

/// Versions of a page.
const PAGE: usize = 50;

/// A version, or why it cannot be read.
type Row = (Version, snapshot::Result<Info>);

pub(super) async fn show(visit: Visit, _: Request) -> Result<Response> {
    let (place, scope) = visit.scope(TokenRight::Read)?;
    let name = visit.name()?;
    let before = visit.fields.version("before")?;
    let mut past = scope.past(name.as_str(), before, PAGE)?;
    let mut rows: Vec<Row> = Vec::new();
    while let Some(row) = past.next().await? {
        rows.push(row);
    }
    let Some((newest, _)) = rows.first() else {
        return Err(nothing());
    };
    let head = match before {
        None => *newest,
        Some(_) => {
            let head = scope.versions(name.as_str(), None, 1).await?;
            head.first().copied().ok_or_else(nothing)?
        }
    };
    let pins: BTreeSet<_> = scope.pins(name.as_str()).await?.into_iter().collect();
    let next = rows.last().filter(|_| rows.len() == PAGE);
    let next =
        next.map(|(last, _)| place.name_url("/name", &name, &[("before", &page::decimal(*last))]));
    let user = visit.user();
    let shown = Shown {
        visit: &visit,
        user: &user,
        place: &place,
        name: &name,
        head,
        pins: &pins,
    };
    let points: Vec<_> = rows
        .iter()
        .rev()
        .map(|(version, info)| Point {
            version: *version,
            info: info.as_ref().ok(),
        })
        .collect();
    let content = html! {
        h1 { (chosen(name.as_str())) }
        (shown.done(&rows)?)
        (chart::timeline(&place, &name, &points, &pins))
        (shown.head_actions(&rows))
        h2 { "Versions" }
        (shown.versions(&rows))
        (more(next.as_deref(), "Older versions"))
    };
    let page = Page {
        title: text::one_line(name.as_str()),
        user: Some(&user),
        search: "",
        trail: crumbs(Some(&place), Some(&name), None),
        live: Some(Live {
            agent: Some(&place.agent),
            session: place.session.as_ref(),
            name: Some(&name),
        }),
        content,
    };
    page.response()
}

/// Subject of the parts of the page.
struct Shown<'a> {
    visit: &'a Visit,
    user: &'a User,
    place: &'a Place,
    name: &'a Name,
    head: Version,
    pins: &'a BTreeSet<Version>,
}

impl Shown<'_> {
    fn may(&self, right: TokenRight) -> bool {
        self.visit.may(right, &self.place.agent)
    }

    /// Tells the change that was just made, and offers to undo it. Only the version comes from the
    /// address of the page: a link cannot make it tell anything else.
    fn done(&self, rows: &[Row]) -> Result<Markup> {
        let fields = &self.visit.fields;
        if let Some(version) = fields.version("changed")? {
            let found = rows.iter().find(|(row, _)| *row == version);
            let Some((_, Ok(info))) = found else {
                return Ok(html! {});
            };
            return Ok(html! {
                div .done role="status" {
                    p { "Version " (version) ": " (Change::of(info).markup()) "." }
                    @if version == self.head { (self.undo(info)) }
                }
            });
        }
        for (field, action, is_pinned) in [("pinned", "/unpin", true), ("unpinned", "/pin", false)]
        {
            let Some(version) = fields.version(field)? else {
                continue;
            };
            if self.pins.contains(&version) != is_pinned {
                continue;
            }
            let what = if is_pinned {
                "pinned"
            } else {
                "not pinned any more"
            };
            return Ok(html! {
                div .done role="status" {
                    p { "Version " (version) " is " (what) "." }
                    @if self.may(TokenRight::Admin) {
                        (self.button(action, version, "Undo"))
                    }
                }
            });
        }
        Ok(html! {})
    }

    /// Returns the button that undoes the newest version; none where it is the first and deleted.
    fn undo(&self, info: &Info) -> Markup {
        let can_undo = info.parent.is_some() || !info.deleted;
        html! {
            @if can_undo && self.may(TokenRight::Save) {
                (self.button("/undo", info.version, "Undo"))
            }
        }
    }

    fn button(&self, action: &str, version: Version, label: &str) -> Markup {
        let version = page::decimal(version);
        let fields = [
            ("name", self.name.as_str()),
            ("version", &version),
            ("head", &page::decimal(self.head)),
        ];
        html! {
            form .inline method="post" action=(action) {
                (hidden_fields(self.user, self.place, &fields))
                button aria-label=(format!("{label}: version {version}")) { (label) }
            }
        }
    }

    fn head_actions(&self, rows: &[Row]) -> Markup {
        let Some((version, Ok(info))) = rows.first().filter(|(row, _)| *row == self.head) else {
            return html! {};
        };
        html! {
            div .actions {
                a .button href=(self.place.version_url("/version", self.name, *version)) {
                    "Show the state"
                }
                @if info.parent.is_some() && self.may(TokenRight::Save) {
                    (self.button("/undo", *version, "Undo the last change"))
                }
                @if !info.deleted && self.may(TokenRight::Save) {
                    (self.button("/delete", *version, "Delete"))
                }
            }
        }
    }

    fn versions(&self, rows: &[Row]) -> Markup {
        let oldest = rows.last().map(|(version, _)| *version);
        html! {
            form #compare action="/diff" {
                @for (key, value) in self.place.pairs() {
                    input type="hidden" name=(key) value=(value);
                }
                input type="hidden" name="name" value=(self.name.as_str());
            }
            (scrolled("Versions", html! {
                table {
                    thead { tr {
                        th .number scope="col" { "Version" } th scope="col" { "Change" }
                        th .number scope="col" { "Size" } th scope="col" { "Created" }
                        th scope="col" { "Compare" } th scope="col" { "Actions" }
                    } }
                    tbody {
                        @for (at, (version, info)) in rows.iter().enumerate() {
                            tr {
                                th .number scope="row" {
                                    a href=(self.place.version_url("/version", self.name, *version))
                                        { (version) }
                                }
                                (self.cells(*version, info))
                                (radios(*version, at, oldest))
                                td { (self.row_actions(*version, info)) }
                            }
                        }
                    }
                }
            }))
            @if rows.len() > 1 { p { button form="compare" { "Compare two versions" } } }
        }
    }

    fn cells(&self, version: Version, info: &snapshot::Result<Info>) -> Markup {
        html! {
            @match info {
                Ok(info) => {
                    td {
                        (Change::of(info).markup())
                        @if self.pins.contains(&version) { " " span .badge.good { "pinned" } }
                    }
                    td .number { (page::size(info)) }
                    td { (page::time(info.created_at)) }
                }
                Err(_) => {
                    td { span .badge.bad { "cannot be read" } } td .number { "–" } td {}
                }
            }
        }
    }

    fn row_actions(&self, version: Version, info: &snapshot::Result<Info>) -> Markup {
        let is_state = info.as_ref().is_ok_and(|info| !info.deleted);
        html! {
            div .row {
                @if is_state && version != self.head && self.may(TokenRight::Save) {
                    (self.button("/restore", version, "Restore"))
                }
                @if self.may(TokenRight::Admin) {
                    @if self.pins.contains(&version) { (self.button("/unpin", version, "Unpin")) }
                    @else { (self.button("/pin", version, "Pin")) }
                }
            }
        }
    }
}

/// Returns the choice of a version for a comparison. The newest is compared with the one before.
fn radios(version: Version, at: usize, oldest: Option<Version>) -> Markup {
    let is_from = at == 1 || Some(version) == oldest && at == 0;
    html! {
        td .row {
            label {
                input type="radio" form="compare" name="from" value=(version) checked[is_from]
                    aria-label=(format!("from version {version}"));
                "from"
            }
            label {
                input type="radio" form="compare" name="to" value=(version) checked[at == 0]
                    aria-label=(format!("to version {version}"));
                "to"
            }
        }
    }
}
