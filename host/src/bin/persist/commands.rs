//! The commands that show and change what was saved.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use persist_host::snapshot::{Error, Expect, Info, Name, SaveOptions, Store};
use serde_json::json;

use crate::address::{self, Address, Place};
use crate::exit::Damaged;
use crate::print::{self, Out};

/// Entries asked for at once.
const PAGE: usize = 1000;

/// What is read from a file, or from a snapshot, at once.
const CHUNK: usize = 1 << 20;

pub(crate) async fn ls(store: &Store, place: Option<Place>, all: bool, out: Out) -> Result<()> {
    let mut damaged = 0;
    let mut after = None;
    loop {
        let agents = match &place {
            Some(place) => vec![place.agent.clone()],
            None => store.agents(after.as_ref(), PAGE).await?,
        };
        for agent in &agents {
            match place.as_ref().and_then(|place| place.session.clone()) {
                Some(session) => {
                    damaged += ls_scope(store, agent, Some(&session), all, out).await?
                }
                None => damaged += ls_agent(store, agent, all, out).await?,
            }
        }
        after = agents.into_iter().next_back();
        if after.is_none() || place.is_some() {
            break;
        }
    }
    match damaged {
        0 => Ok(()),
        damaged => Err(Damaged(damaged).into()),
    }
}

async fn ls_agent(store: &Store, agent: &Name, all: bool, out: Out) -> Result<usize> {
    let mut damaged = 0;
    let mut after: Option<Name> = None;
    loop {
        let sessions = store.sessions(agent, after.as_ref(), PAGE).await?;
        for session in &sessions {
            damaged += ls_scope(store, agent, session.as_ref(), all, out).await?;
        }
        // What belongs to no session comes last.
        match sessions.into_iter().next_back() {
            Some(Some(session)) => after = Some(session),
            Some(None) | None => return Ok(damaged),
        }
    }
}

async fn ls_scope(
    store: &Store,
    agent: &Name,
    session: Option<&Name>,
    all: bool,
    out: Out,
) -> Result<usize> {
    let scope = store.scope(agent.as_str(), session.map(Name::as_str))?;
    let mut damaged = 0;
    let mut after: Option<Name> = None;
    loop {
        let names = scope
            .names("", after.as_ref().map(Name::as_str), PAGE)
            .await?;
        for name in &names {
            let address = address::address(agent, session, name);
            match scope.stat(name.as_str(), None).await {
                Ok(Some(info)) if all || !info.deleted => {
                    let address = format!("{address}@{}", info.version);
                    out.print(&print::info(&address, &info), || {
                        print::line(&address, &info)
                    })?;
                }
                Ok(_) => {}
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported(_))) => {
                    eprintln!("error: {address}: {error}");
                    damaged += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        after = names.into_iter().next_back();
        if after.is_none() {
            return Ok(damaged);
        }
    }
}

pub(crate) async fn show(store: &Store, address: &Address, out: Out) -> Result<()> {
    let scope = address.scope(store)?;
    let info = scope.stat(address.name.as_str(), address.version).await?;
    let info = info.ok_or_else(|| nothing(address))?;
    let text = address.at(info.version);
    Ok(out.print(&print::info(&text, &info), || print::details(&text, &info))?)
}

pub(crate) async fn cat(store: &Store, address: &Address) -> Result<()> {
    let scope = address.scope(store)?;
    let reader = scope.reader(address.name.as_str(), address.version).await?;
    let Some(mut reader) = reader else {
        // Nothing at all, or a tombstone: these are different news.
        let info = scope.stat(address.name.as_str(), address.version).await?;
        let info = info.ok_or_else(|| nothing(address))?;
        return Err(deleted(address, &info).into());
    };
    let mut stdout = io::stdout().lock();
    let mut offset = 0;
    loop {
        let piece = reader.read(offset, CHUNK).await?;
        if piece.is_empty() {
            return Ok(stdout.flush()?);
        }
        stdout.write_all(&piece)?;
        offset += piece.len() as u64;
    }
}

pub(crate) async fn history(
    store: &Store,
    address: &Address,
    limit: Option<usize>,
    out: Out,
) -> Result<()> {
    let scope = address.scope(store)?;
    let name = address.name.as_str();
    let mut left = limit.unwrap_or(usize::MAX);
    let (mut before, mut damaged, mut shown) = (address.version, 0, 0);
    while left > 0 {
        let versions = scope.versions(name, before, left.min(PAGE)).await?;
        for &version in &versions {
            let text = address.at(version);
            match scope.stat(name, Some(version)).await {
                Ok(Some(info)) => {
                    out.print(&print::info(&text, &info), || print::line(&text, &info))?
                }
                // Pruned since it was listed.
                Ok(None) | Err(Error::NotFound(_)) => continue,
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported(_))) => {
                    eprintln!("error: {text}: {error}");
                    damaged += 1;
                }
                Err(error) => return Err(error.into()),
            }
            shown += 1;
        }
        left -= versions.len().min(left);
        before = versions.last().copied();
        if before.is_none() {
            break;
        }
    }
    match damaged {
        _ if shown == 0 && limit != Some(0) => Err(nothing(address).into()),
        0 => Ok(()),
        damaged => Err(Damaged(damaged).into()),
    }
}

pub(crate) async fn save(
    store: &Store,
    address: &Address,
    file: &Path,
    options: SaveOptions,
    out: Out,
) -> Result<()> {
    address.whole_name("a save makes a new version; to save only over this one, use --expect")?;
    let mut input: Box<dyn Read> = match file.to_str() {
        Some("-") if io::stdin().is_terminal() => {
            bail!("nothing to save: name a FILE, or give the state on standard input")
        }
        Some("-") => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(file).with_context(|| format!("open {}", file.display()))?),
    };
    let scope = address.scope(store)?;
    let mut writer = scope.writer(address.name.as_str(), options).await?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => writer.write(&chunk[..len]).await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("read {}; nothing was saved", file.display()));
            }
        }
    }
    let info = writer.finish().await?;
    changed(address, &info, "saved", out)
}

pub(crate) async fn rm(store: &Store, address: &Address, expect: Expect, out: Out) -> Result<()> {
    address.whole_name(
        "rm deletes the whole name; to delete only if this is the newest, use --expect",
    )?;
    let info = address
        .scope(store)?
        .delete(address.name.as_str(), expect)
        .await?;
    changed(address, &info, "deleted", out)?;
    if let Some(parent) = info.parent {
        eprintln!("to undo: persist restore {}", address.at(parent));
    }
    Ok(())
}

pub(crate) async fn restore(
    store: &Store,
    address: &Address,
    expect: Expect,
    out: Out,
) -> Result<()> {
    let Some(version) = address.version else {
        bail!("say which version to restore, as in {}", address.at(1));
    };
    let scope = address.scope(store)?;
    let info = scope
        .restore(address.name.as_str(), version, expect)
        .await?;
    changed(address, &info, "restored", out)?;
    if let Some(parent) = info.parent {
        match scope.stat(address.name.as_str(), Some(parent)).await {
            Ok(Some(info)) if info.deleted => eprintln!("to undo: persist rm {}", address.name()),
            _ => eprintln!("to undo: persist restore {}", address.at(parent)),
        }
    }
    Ok(())
}

fn changed(address: &Address, info: &Info, what: &str, out: Out) -> Result<()> {
    let text = address.at(info.version);
    let mut value = json!({ "event": what, "info": info });
    value["address"] = json!(text);
    Ok(out.print(&value, || format!("{what} {text}"))?)
}

fn nothing(address: &Address) -> Error {
    Error::NotFound(format!("nothing is saved as {}", address.name()))
}

fn deleted(address: &Address, info: &Info) -> Error {
    let undo = match info.parent {
        Some(parent) => format!("; persist restore {} brings it back", address.at(parent)),
        None => String::new(),
    };
    Error::NotFound(format!("{} is a deletion{undo}", address.at(info.version)))
}
