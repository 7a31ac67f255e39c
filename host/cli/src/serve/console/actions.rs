//! Forms that change something. Each leads to the page of the name, which offers to undo it.
//!
//! A form holds the newest version that its page showed. Where there is a newer one, nothing is
//! changed.

use axum::http::StatusCode;
use axum::response::Response;
use persist_host::snapshot::{Error, Expect, Info, Name, Scope, Version};

use super::page::{decimal, see};
use super::visit::{Place, Visit, existing};
use crate::serve::problem::{Problem, Result};
use crate::serve::snapshots::finished;
use crate::serve::token::TokenRight;

pub(super) async fn restore(visit: Visit) -> Result<Response> {
    let (place, scope) = visit.scope(TokenRight::Save)?;
    let name = visit.name()?;
    let version = visit.version()?;
    let info = restored(scope, &name, version, head(&visit)?).await?;
    changed(&place, &name, &info)
}

pub(super) async fn delete(visit: Visit) -> Result<Response> {
    let (place, scope) = visit.scope(TokenRight::Save)?;
    let name = visit.name()?;
    let info = deleted(scope, &name, head(&visit)?).await?;
    changed(&place, &name, &info)
}

/// Makes the state before a version the newest one, if that version is the newest.
pub(super) async fn undo(visit: Visit) -> Result<Response> {
    let (place, scope) = visit.scope(TokenRight::Save)?;
    let name = visit.name()?;
    let version = visit.version()?;
    let expect = Expect::Version(version);
    let before = match existing(&scope, &name, version).await?.parent {
        None => None,
        Some(parent) => match scope.stat(name.as_str(), Some(parent)).await {
            Ok(before) => before,
            Err(Error::NotFound(_)) => {
                let what = format!("version {parent} was pruned, so that it cannot be restored");
                let error = Problem::new(StatusCode::CONFLICT, "conflict", what);
                return Err(error.hint("restore one of the versions that are left"));
            }
            Err(error) => return Err(error.into()),
        },
    };
    let info = match before {
        Some(before) if !before.deleted => restored(scope, &name, before.version, expect).await?,
        // There was no state before.
        _ => deleted(scope, &name, expect).await?,
    };
    changed(&place, &name, &info)
}

pub(super) async fn fork(visit: Visit) -> Result<Response> {
    let (_, scope) = visit.scope(TokenRight::Save)?;
    let name = visit.name()?;
    let version = visit.version()?;
    let fields = &visit.fields;
    let to_name = fields.text("to-name");
    let to_name = Name::new(to_name.ok_or_else(|| Problem::usage("no name is given"))?)?;
    let to_agent = fields.text("to-agent");
    let to_agent = to_agent.ok_or_else(|| Problem::usage("no agent is given"))?;
    let to = visit.app.store.scope(to_agent, fields.text("to-session"))?;
    visit.authorize(TokenRight::Save, Some(to.agent()))?;
    let to = visit.audited(to);
    let (place, target) = (Place::of(&to), to_name.clone());
    let forked = async move {
        let (name, target) = (name.as_str(), target.as_str());
        scope
            .fork_to(name, Some(version), &to, target, Expect::Absent)
            .await
    };
    let info = finished(forked).await.map_err(|error| {
        if error.status == StatusCode::CONFLICT {
            error.hint("choose another name: a state is saved under this one")
        } else {
            error
        }
    })?;
    changed(&place, &to_name, &info)
}

pub(super) async fn pin(visit: Visit) -> Result<Response> {
    let (place, scope) = visit.scope(TokenRight::Admin)?;
    let name = visit.name()?;
    let version = visit.version()?;
    scope.pin(name.as_str(), version).await?;
    see(&place.name_url("/name", &name, &[("pinned", &decimal(version))]))
}

pub(super) async fn unpin(visit: Visit) -> Result<Response> {
    let (place, scope) = visit.scope(TokenRight::Admin)?;
    let name = visit.name()?;
    let version = visit.version()?;
    scope.unpin(name.as_str(), version).await?;
    see(&place.name_url("/name", &name, &[("unpinned", &decimal(version))]))
}

/// Returns the condition that the page which sent the form is not out of date.
fn head(visit: &Visit) -> Result<Expect> {
    let head = visit.fields.version("head")?;
    let head = head.ok_or_else(|| Problem::usage("the form does not tell the newest version"))?;
    Ok(Expect::Version(head))
}

async fn restored(scope: Scope, name: &Name, version: Version, expect: Expect) -> Result<Info> {
    let name = name.as_str().to_owned();
    let change = async move { scope.restore(&name, version, expect).await };
    finished(change).await.map_err(stale)
}

async fn deleted(scope: Scope, name: &Name, expect: Expect) -> Result<Info> {
    let name = name.as_str().to_owned();
    let change = async move { scope.delete(&name, expect).await };
    finished(change).await.map_err(stale)
}

/// Tells a person what a conflict means.
fn stale(error: Problem) -> Problem {
    if error.status == StatusCode::CONFLICT {
        error.hint("a newer version was saved meanwhile; go back, and load the page again")
    } else {
        error
    }
}

fn changed(place: &Place, name: &Name, info: &Info) -> Result<Response> {
    see(&place.name_url("/name", name, &[("changed", &decimal(info.version))]))
}
