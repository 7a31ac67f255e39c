//! The commands that show and change what was saved.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use persist_host::snapshot::{Error, Expect, Info, Name, SaveOptions, Store};

use crate::address::{self, Address, Place};
use crate::exit::{Damaged, Usage};
use crate::print::{self, Out, say};

/// Entries asked for at once.
const PAGE: usize = 1000;

/// What is read from a file, or from a snapshot, at once.
const CHUNK: usize = 1 << 20;

pub(crate) async fn ls(store: &Store, place: Option<Place>, all: bool, out: Out) -> Result<()> {
    let mut listing = Listing {
        store,
        all,
        out,
        shown: 0,
        damaged: 0,
    };
    match &place {
        None => listing.store().await?,
        Some(Place {
            agent,
            session: None,
        }) => listing.agent(agent).await?,
        Some(Place { agent, session }) => listing.scope(agent, session.as_ref()).await?,
    }
    if listing.shown + listing.damaged == 0 {
        // An empty list and a mistyped name look the same otherwise.
        let whose = place.map_or("nothing".into(), |place| format!("nothing of {place}"));
        say(format_args!("{whose} is saved in {}", store.location()));
    }
    Damaged::none_of(listing.damaged)
}

/// A list that is being printed.
struct Listing<'a> {
    store: &'a Store,
    /// Whether deleted names are shown.
    all: bool,
    out: Out,
    shown: usize,
    damaged: usize,
}

impl Listing<'_> {
    async fn store(&mut self) -> Result<()> {
        let mut after: Option<Name> = None;
        loop {
            let agents = self.store.agents(after.as_ref(), PAGE).await?;
            for agent in &agents {
                self.agent(agent).await?;
            }
            after = agents.into_iter().next_back();
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn agent(&mut self, agent: &Name) -> Result<()> {
        let mut after: Option<Option<Name>> = None;
        loop {
            let after_ref = after.as_ref().map(Option::as_ref);
            let sessions = self.store.sessions(agent, after_ref, PAGE).await?;
            for session in &sessions {
                self.scope(agent, session.as_ref()).await?;
            }
            after = sessions.into_iter().next_back();
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn scope(&mut self, agent: &Name, session: Option<&Name>) -> Result<()> {
        let scope = self
            .store
            .scope(agent.as_str(), session.map(Name::as_str))?;
        let mut after: Option<Name> = None;
        loop {
            let names = scope
                .names("", after.as_ref().map(Name::as_str), PAGE)
                .await?;
            for name in &names {
                let address = address::address(agent, session, name);
                match scope.stat(name.as_str(), None).await {
                    Ok(Some(info)) => self.show(&address, &info)?,
                    Ok(None) => {}
                    Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                        self.out.damaged(&address, &error)?;
                        self.damaged += 1;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            after = names.into_iter().next_back();
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn show(&mut self, address: &str, info: &Info) -> Result<()> {
        if info.deleted && !self.all {
            return Ok(());
        }
        self.shown += 1;
        let address = format!("{address}@{}", info.version);
        Ok(self
            .out
            .print(&print::info(&address, info), || print::line(&address, info))?)
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
        let piece = reader.read(offset, CHUNK).await;
        let piece = match offset {
            0 => piece?,
            _ => piece.with_context(|| {
                format!("the first {offset} bytes are printed and verified, the rest is not")
            })?,
        };
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
                Err(error @ (Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                    out.damaged(&text, &error)?;
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
    match address.version {
        _ if shown > 0 || limit == Some(0) => Damaged::none_of(damaged),
        None => Err(nothing(address).into()),
        Some(version) => {
            let name = address.name();
            Err(Error::NotFound(format!("{name} has no versions below {version}")).into())
        }
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
            return Err(Usage(
                "nothing to save: name a FILE, or give the state on standard input".into(),
            )
            .into());
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
        say(format_args!(
            "to undo: persist restore {}",
            address.at(parent)
        ));
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
        return Err(Usage(format!(
            "say which version to restore, as in {}",
            address.at(1)
        ))
        .into());
    };
    let scope = address.scope(store)?;
    let info = scope
        .restore(address.name.as_str(), version, expect)
        .await?;
    changed(address, &info, "restored", out)?;
    if let Some(parent) = info.parent {
        match scope.stat(address.name.as_str(), Some(parent)).await {
            Ok(Some(info)) if info.deleted => {
                say(format_args!("to undo: persist rm {}", address.name()))
            }
            _ => say(format_args!(
                "to undo: persist restore {}",
                address.at(parent)
            )),
        }
    }
    Ok(())
}

fn changed(address: &Address, info: &Info, what: &str, out: Out) -> Result<()> {
    let text = address.at(info.version);
    let line = || match info.deleted {
        true => format!("{what} {text}"),
        false => format!("{what} {text} ({})", print::bytes(info.size)),
    };
    out.print(&print::event(what, &text, info), line)
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => error.into(),
            // The disk that is full is not the one that the snapshot is on.
            _ => anyhow::anyhow!("{text} is {what}, and this could not be printed: {error}"),
        })
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
