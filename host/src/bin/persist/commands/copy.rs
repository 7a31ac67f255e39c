//! Copies between stores, and the proof that they are the same.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use persist_host::snapshot::{Copied, Error, Info, Name, Scope, Selection, Store, Version};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{nowhere, printed};
use crate::address::{self, What};
use crate::exit::Usage;
use crate::print::{self, Out};
use crate::progress::{self, Progress};
use crate::stores::Stores;

/// How the location of a store on the local disk begins.
const LOCAL: &str = "the directory ";

/// Copy versions to another store, byte for byte, and prove that both are the same
///
/// Every version goes to the same address, deletions and pins too. What is there already is compared and never touched; so a copy that was
/// interrupted can be started again and does what is left, and one that is complete is proven again. A name is copied and proven before the next one
/// begins. Nobody may save under these names in TO meanwhile: stop its hosts, and start them when the copy is done. To `prune`, a copy is as young as the day on
/// which it was made. Both stores take what else they need from the same settings, unless a URL says it behind
/// a ?: endpoint, region and profile for S3, endpoint and credentials (a file) for Google Cloud Storage.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist copy file:///var/lib/agents s3://bucket/agents
  persist copy s3://bucket/agents gs://bucket/agents bot
  persist copy gs://bucket/agents file:///backup bot/monday/memory
  persist copy 's3://old?endpoint=http://nas:9000&profile=nas' s3://new")]
pub(crate) struct Copy {
    /// A store: file:///absolute/path, s3://bucket/prefix or gs://bucket/prefix
    from: String,
    /// Another one
    to: String,
    /// agent, agent/session/, agent/name or agent/session/name [default: everything]
    what: Option<What>,
}

impl Copy {
    pub(crate) async fn run(self, stores: &Stores<'_>, out: Out) -> Result<()> {
        let (from, to) = (stores.at(&self.from)?, stores.at(&self.to)?);
        apart(&from, &to)?;
        let selection = self.what.map(|what| what.0).unwrap_or_default();
        copy(&from, &to, &selection, out).await
    }
}

/// Copies what is selected, name by name, and prints a line for each and the proof.
pub(crate) async fn copy(from: &Store, to: &Store, selection: &Selection, out: Out) -> Result<()> {
    // Both are understood before anything is copied.
    from.is_there().await?;
    to.is_there().await?;
    let total = match progress::is_watched(out) {
        true => Some(count(from, selection).await?),
        false => None,
    };
    let mut progress = Progress::items(out, "copied names:", total);
    let mut sum = Sum::default();
    let mut walk = from.walk(selection);
    while let Some((scope, name)) = walk.next().await? {
        let tally = copy_name(&scope, &name, to)
            .await
            .with_context(|| sum.so_far())?;
        progress.add(1);
        if tally.is_empty() {
            continue;
        }
        progress.aside(|| tally.print(out))?;
        sum.add(&tally);
    }
    drop(progress);
    if sum.names == 0 {
        return Err(nowhere(from).into());
    }
    sum.conclude(from, to, out)
}

/// Refuses two stores of which one is the other, or lies within it: each would find the other's files among its own.
fn apart(from: &Store, to: &Store) -> Result<(), Usage> {
    let (a, b) = (Whereabouts::of(from), Whereabouts::of(to));
    if a == b {
        let place = from.location();
        return Err(Usage(format!("both are {place}; a copy needs two stores")));
    }
    if a.server == b.server && (a.path.starts_with(&b.path) || b.path.starts_with(&a.path)) {
        let (from, to) = (from.location(), to.location());
        return Err(Usage(format!(
            "one lies within the other, {from} and {to}; a copy needs two stores apart"
        )));
    }
    Ok(())
}

/// Where a store is, as far as it can be told from its location.
#[derive(PartialEq, Eq)]
struct Whereabouts {
    /// What stands behind the ? of a bucket's URL.
    server: String,
    path: PathBuf,
}

impl Whereabouts {
    fn of(store: &Store) -> Self {
        let location = store.location();
        if let Some(dir) = location.strip_prefix(LOCAL) {
            let path = Path::new(dir);
            // What is not there yet has no link in it.
            let there = path.ancestors().find_map(|dir| {
                let rest = path.strip_prefix(dir).ok()?;
                Some(std::fs::canonicalize(dir).ok()?.join(rest))
            });
            return Self {
                server: String::new(),
                path: there.unwrap_or_else(|| path.into()),
            };
        }
        let (path, server) = location.split_once('?').unwrap_or((&location, ""));
        Self {
            server: server.into(),
            path: path.into(),
        }
    }
}

/// How many names there are: it takes a list for each thousand of an agent's, and tells how long the rest will take.
async fn count(store: &Store, selection: &Selection) -> Result<u64> {
    let (mut walk, mut count) = (store.walk(selection), 0);
    while walk.next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

async fn copy_name(scope: &Scope, name: &Name, to: &Store) -> Result<Tally> {
    let address = address::address(scope.agent(), scope.session(), name);
    let mut tally = Tally::new(address);
    let copying = scope.copy_to(name.as_str(), to, |copied| tally.add(copied));
    copying.await?;
    Ok(tally)
}

/// What became of one name.
struct Tally {
    address: String,
    proof: Proof,
    made: u64,
    made_bytes: u64,
    another: Vec<Version>,
    /// The newest version over there, where nothing here is as new.
    ahead: Option<Version>,
    damaged: Vec<(Version, Error)>,
}

/// Versions that are the same on both sides, and one hash of all that is known of them: address, size, hash of the state, bytes at rest.
#[derive(Clone, Default)]
pub(crate) struct Proof {
    pub(crate) versions: u64,
    pub(crate) bytes: u64,
    hash: Sha256,
}

impl Proof {
    pub(crate) fn add(&mut self, address: &str, info: &Info) {
        self.versions += 1;
        self.bytes += info.stored_size;
        let Info {
            version,
            size,
            sha256,
            stored_size,
            ..
        } = info;
        let line = format!("{address}@{version} {size} {sha256} {stored_size}\n");
        self.hash.update(line.as_bytes());
    }

    pub(crate) fn digest(&self) -> String {
        let digest = self.hash.clone().finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Tally {
    fn new(address: String) -> Self {
        Self {
            address,
            proof: Proof::default(),
            made: 0,
            made_bytes: 0,
            another: Vec::new(),
            ahead: None,
            damaged: Vec::new(),
        }
    }

    /// Whether nothing is saved under the name.
    fn is_empty(&self) -> bool {
        self.proof.versions == 0 && self.another.is_empty() && self.damaged.is_empty()
    }

    fn add(&mut self, copied: Copied) {
        match copied {
            Copied::Made(info) => {
                self.made += 1;
                self.made_bytes += info.stored_size;
                self.proof.add(&self.address, &info);
            }
            Copied::Same(info) => self.proof.add(&self.address, &info),
            Copied::Another(version) => self.another.push(version),
            Copied::Ahead(version) => self.ahead = Some(version),
            Copied::Damaged(version, error) => self.damaged.push((version, error)),
            // A later library may tell of more.
            _ => {}
        }
    }

    fn print(&self, out: Out) -> Result<()> {
        let (address, versions, made) = (&self.address, self.proof.versions, self.made);
        for version in &self.another {
            print::say(format_args!(
                "error: {address}@{version} is another version over there; it was not touched"
            ));
        }
        if let Some(version) = self.ahead {
            print::say(format_args!(
                "error: {address}@{version} is only over there, and newer than all that is here; it was not touched"
            ));
        }
        for (version, error) in &self.damaged {
            print::say(format_args!("error: {address}@{version}: {error}"));
        }
        let damaged: Vec<_> = self.damaged.iter().map(|(version, _)| version).collect();
        let value = json!({
            "event": "copied", "address": address, "versions": versions, "copied": made, "bytes": self.made_bytes,
            "another": self.another, "ahead": self.ahead, "damaged": damaged,
        });
        let text = || {
            let bytes = print::bytes(self.made_bytes);
            format!(
                "copied {address:<32} {}, {bytes}; {versions} the same in both",
                print::count(made, "version")
            )
        };
        printed(out.print(&value, text), &format!("{address} is copied"))
    }
}

/// What became of all names.
#[derive(Default)]
struct Sum {
    names: u64,
    proof: Proof,
    made: u64,
    made_bytes: u64,
    another: usize,
    damaged: usize,
    digests: Sha256,
}

impl Sum {
    fn add(&mut self, tally: &Tally) {
        self.names += 1;
        self.proof.versions += tally.proof.versions;
        self.proof.bytes += tally.proof.bytes;
        self.digests.update(tally.proof.digest().as_bytes());
        self.made += tally.made;
        self.made_bytes += tally.made_bytes;
        self.another += tally.another.len() + usize::from(tally.ahead.is_some());
        self.damaged += tally.damaged.len();
    }

    fn so_far(&self) -> String {
        format!(
            "{} copied and proven before this; start it again to go on",
            print::count(self.names, "name")
        )
    }

    fn conclude(self, from: &Store, to: &Store, out: Out) -> Result<()> {
        let digest: String = self
            .digests
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let is_proven = self.another + self.damaged == 0;
        let (names, versions, bytes) = (self.names, self.proof.versions, self.proof.bytes);
        let value = json!({
            "event": "proof", "proven": is_proven, "names": names, "versions": versions, "bytes": bytes,
            "copied": self.made, "copied_bytes": self.made_bytes, "digest": digest,
            "from": from.location(), "to": to.location(),
        });
        let text = || {
            let (bytes, made_bytes) = (print::bytes(bytes), print::bytes(self.made_bytes));
            format!(
                "copied {}, {made_bytes}\n{}: {} of {}, {bytes}, have the same sizes, state hashes and bytes in both; digest {digest}",
                print::count(self.made, "version"),
                if is_proven { "proof" } else { "no proof" },
                print::count(versions, "version"),
                print::count(names, "name")
            )
        };
        printed(out.print(&value, text), "everything is copied")?;
        match (self.damaged, self.another) {
            (0, 0) => Ok(()),
            (0, another) => Err(Another(another).into()),
            (damaged, _) => Err(crate::exit::Damaged(damaged).into()),
        }
    }
}

/// Versions with numbers that are taken over there.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} over there, with the same number or a newer one, so this is no copy; copy to an empty place",
    print::count(*.0 as u64, "other version")
)]
pub(crate) struct Another(usize);
