//! The commands, each with its arguments, its help and what it does.

pub(crate) mod archive;
pub(crate) mod bulk;
pub(crate) mod check;
mod compare;
pub(crate) mod copy;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod gc;
pub(crate) mod init;
pub(crate) mod leases;
pub(crate) mod list;
pub(crate) mod meta;
pub(crate) mod policy;
pub(crate) mod repair;
pub(crate) mod retention;
pub(crate) mod state;
pub(crate) mod stats;
mod tar_storage;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::Result;
use persist_host::snapshot::{Error, Expect, Info, Name, Scope, Selection, Store, Version};

use crate::address::{self, Address};
use crate::error::{Hinted, Usage};
use crate::interrupt::Interrupt;
use crate::print::{self, Out};
use crate::text;

/// Number of bytes that are read from a file, or from a snapshot, at once.
const CHUNK: usize = 1 << 20;

/// Parses the value of `--expect`.
fn expect(text: &str) -> Result<Expect, String> {
    match text {
        "any" => Ok(Expect::Any),
        "absent" => Ok(Expect::Absent),
        number => number
            .parse()
            .map(Expect::Version)
            .map_err(|_| "write the number of a version, `absent` or `any`".into()),
    }
}

/// Tells of a change that is made, and of the command that undoes it. From here on nothing may fail
/// without saying so.
fn changed(address: &Address, info: &Info, what: &str, undo: Option<&str>, out: Out) -> Result<()> {
    let text = address.at(info.version);
    let line = || {
        if info.deleted {
            format!("{what} {text}")
        } else {
            format!("{what} {text} ({})", text::bytes(info.size))
        }
    };
    let mut value = print::event(what, &text, info);
    value["undo"] = undo.into();
    printed(out.print(&value, line), &format!("{text} is {what}"))?;
    print_undo(undo, out);
    Ok(())
}

/// Prints the command that undoes a change; it is in the JSON already.
fn print_undo(undo: Option<&str>, out: Out) {
    if let (Some(undo), false) = (undo, out.json) {
        out.note(format_args!("to undo: {undo}"));
    }
}

/// The result of telling that something is done, or found. The reader may have closed the output:
/// the work goes on, and ends with the code that it deserves.
fn printed(printed: io::Result<()>, done: &str) -> Result<()> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        // The disk that is full is not the one that the snapshot is on.
        Err(error) => Err(anyhow::anyhow!(
            "{done}, but the result could not be printed: {error}"
        )),
        Ok(()) => Ok(()),
    }
}

/// Returns the error for a name under which nothing is saved, with what was probably meant.
async fn missing(store: &Store, address: &Address) -> anyhow::Error {
    let Address {
        agent,
        session,
        name,
        ..
    } = address.clone();
    nowhere(store, &Selection::Name(agent, session, name)).await
}

/// Returns the error of an operation on a name: the usual one if nothing is saved under the name.
async fn explain(store: &Store, scope: &Scope, address: &Address, error: Error) -> anyhow::Error {
    if !matches!(error, Error::NotFound(_)) {
        return error.into();
    }
    match (
        scope.versions(address.name.as_str(), None, 1).await,
        address.version,
    ) {
        (Ok(versions), _) if versions.is_empty() => missing(store, address).await,
        (Ok(versions), Some(version)) => {
            let hint = match near_version(scope, &address.name, version).await {
                Ok(Some(near)) if versions.contains(&near) => {
                    format!("the nearest version is {}, the newest", address.at(near))
                }
                Ok(Some(near)) => {
                    let newest = versions.first().copied().unwrap_or_default();
                    format!(
                        "the nearest version is {}; the newest is @{newest}",
                        address.at(near)
                    )
                }
                _ => return error.into(),
            };
            let error = Error::NotFound(format!("{} has no version {version}", address.name()));
            let error = error.into();
            Hinted { error, hint }.into()
        }
        _ => error.into(),
    }
}

/// Pages of 1000 versions that are listed to find the version above a missing one.
const PAGES: usize = 10;

/// Returns the version of a name that is nearest to a missing one. Of two, it is the older.
async fn near_version(
    scope: &Scope,
    name: &Name,
    missing: Version,
) -> Result<Option<Version>, Error> {
    let name = name.as_str();
    let below = scope.versions(name, Some(missing.saturating_add(1)), 1);
    let below = below.await?.first().copied();
    if below == Some(missing) {
        // The error is about something else.
        return Ok(None);
    }
    let mut above = None;
    for _ in 0..PAGES {
        let page = scope.versions(name, above, 1000).await?;
        let lowest = page.iter().copied().rfind(|&version| version > missing);
        above = lowest.or(above);
        if lowest.is_none() || lowest != page.last().copied() {
            break;
        }
    }
    let distance = |version: &Version| version.abs_diff(missing);
    Ok(below.into_iter().chain(above).min_by_key(distance))
}

/// Returns the error for a selection that matches nothing: an empty answer and a mistyped name look
/// the same otherwise.
pub(crate) async fn nowhere(store: &Store, selection: &Selection) -> anyhow::Error {
    match nothing_matches(store, selection).await {
        Ok((what, None)) => Error::NotFound(what).into(),
        Ok((what, Some(hint))) => {
            let error = Error::NotFound(what).into();
            Hinted { error, hint }.into()
        }
        Err(error) => error.into(),
    }
}

/// Returns the message for a selection that matches nothing, and a hint if another one matches.
async fn nothing_matches(
    store: &Store,
    selection: &Selection,
) -> Result<(String, Option<String>), Error> {
    let location = store.location();
    let other = match selection {
        Selection::All => return Ok((format!("nothing is saved in {location}"), None)),
        Selection::Session(agent, Some(name)) => {
            let selection = Selection::Name(agent.clone(), None, name.clone());
            let address = address::address(agent, None, name);
            let hint = format!("{address} is a name; write it without the slash at its end");
            Some((selection, hint))
        }
        Selection::Name(agent, None, name) => {
            let selection = Selection::Session(agent.clone(), Some(name.clone()));
            let address = address::session_address(agent, Some(name));
            Some((selection, format!("for the session, write {address}")))
        }
        _ => None,
    };
    let Some(what) = address::selection_address(selection) else {
        return Ok((format!("nothing matches in {location}"), None));
    };
    let nothing = format!("nothing matches {what} in {location}");
    let hint = match other {
        Some((other, hint)) if store.heads(&other).next().await?.is_some() => Some(hint),
        _ => near(store, selection)
            .await?
            .map_or_else(
                || "run `persist ls` to list names".to_owned(),
                |near| format!("did you mean {near}?"),
            )
            .into(),
    };
    Ok((nothing, hint))
}

/// Agents, sessions or names that are compared with a mistyped one.
const COMPARED: usize = 1000;

/// Returns the address of what is spelled nearly as a selection that matches nothing.
async fn near(store: &Store, selection: &Selection) -> Result<Option<String>, Error> {
    let (agent, session, name) = match selection {
        Selection::Agent(agent) => (agent, None, None),
        Selection::Session(agent, session) => (agent, session.as_ref(), None),
        Selection::Name(agent, session, name) => (agent, session.as_ref(), Some(name)),
        _ => return Ok(None),
    };
    let agents = store.agents(None, COMPARED).await?;
    if !agents.contains(agent) {
        let near = nearest(agent, &agents);
        return Ok(near.map(|agent| match name {
            Some(name) => address::address(agent, session, name),
            None if session.is_some() => address::session_address(agent, session),
            None => address::part(agent),
        }));
    }
    let sessions = match session {
        Some(_) => store.sessions(agent, None, COMPARED).await?,
        None => Vec::new(),
    };
    let sessions: Vec<_> = sessions.into_iter().flatten().collect();
    if let Some(session) = session.filter(|session| !sessions.contains(session)) {
        let near = nearest(session, &sessions);
        return Ok(near.map(|near| match name {
            Some(name) => address::address(agent, Some(near), name),
            None => address::session_address(agent, Some(near)),
        }));
    }
    let Some(name) = name else { return Ok(None) };
    let scope = store.scope(agent.as_str(), session.map(Name::as_str))?;
    let names = scope.names("", None, COMPARED).await?;
    let near = nearest(name, &names);
    Ok(near.map(|near| address::address(agent, session, near)))
}

/// Returns the name that is at most two letters from `wanted`, and the nearest.
fn nearest<'a>(wanted: &Name, names: &'a [Name]) -> Option<&'a Name> {
    let letters = |name: &Name| {
        let mut letters: Vec<_> = name.as_str().chars().collect();
        letters.sort_unstable();
        letters
    };
    let of_wanted = letters(wanted);
    // A short name with other letters is no misspelling; one with two letters swapped is.
    let max = 2.min(of_wanted.len() / 2);
    let near = names.iter().filter_map(|name| {
        let far = crate::text::distance(wanted.as_str(), name.as_str());
        let is_near = far <= max || (far == 2 && letters(name) == of_wanted);
        (far > 0 && is_near).then_some((far, name))
    });
    near.min_by_key(|&(far, _)| far).map(|(_, name)| name)
}

/// Returns the error for a command that needs a state and finds a tombstone.
fn deleted(address: &Address, info: &Info, out: Out) -> anyhow::Error {
    let error = Error::NotFound(format!("{} is a tombstone", address.at(info.version))).into();
    let Some(parent) = info.parent else {
        return error;
    };
    let restore = out.command("restore", &address.at(parent));
    let hint = format!("run `{restore}` to restore the version before it");
    Hinted { error, hint }.into()
}

/// Has a person type an answer before `what` is removed; a mistyped command is the likelier one.
fn confirm(what: &str, question: &str, answer: &str, interrupt: &Interrupt) -> anyhow::Result<()> {
    if !io::stdin().is_terminal() {
        return Err(Usage::new(format!(
            "refusing to remove {what} without confirmation: standard input is not a terminal"
        ))
        .with_hint("add --yes to confirm")
        .into());
    }
    // Not locked while a person thinks: an interruption is told there, too.
    let mut stderr = io::stderr();
    stderr.write_all(text::plain(question).as_bytes())?;
    stderr.flush()?;
    let mut line = String::new();
    interrupt.ask(|| io::stdin().lock().read_line(&mut line).map(drop))?;
    if line.trim() == answer {
        Ok(())
    } else {
        Err(Usage::new(format!("nothing was removed: the answer is not {answer}")).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_name_has_a_near_one() {
        let name = |text: &str| Name::new(text).expect("a name");
        let names = ["bot", "memory", "notes", "n"].map(name);
        for (wanted, near) in [
            ("bto", Some("bot")),
            ("bots", Some("bot")),
            ("memroy", Some("memory")),
            ("note", Some("notes")),
            ("bxy", None),
            ("x", None),
            ("plan", None),
        ] {
            let found = nearest(&name(wanted), &names).map(Name::as_str);
            assert_eq!(found, near, "{wanted}");
        }
    }
}
