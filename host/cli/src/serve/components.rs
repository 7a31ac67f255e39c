//! Components of the manifest, which are loaded anew when their files change.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use axum::http::StatusCode;
use persist_host::wasm::{Agent, AgentHost};
use tokio::sync::Mutex;

use super::manifest::AgentEntry;
use super::problem::{Problem, Result};
use crate::error::Usage;
use crate::settings::Settings;

/// Components of the manifest, compiled.
pub(super) struct Components {
    host: AgentHost,
    loaded: Vec<Mutex<Loaded>>,
}

struct Loaded {
    path: PathBuf,
    agent: Agent,
    file: Stamp,
    /// File that could not be loaded in place of the one before.
    refused: Option<Stamp>,
}

/// Tells one content of a file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, i64, i64);

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self(file.ino(), file.len(), file.mtime(), file.mtime_nsec())
    }
}

impl Components {
    /// Compiles the components of all entries.
    pub(super) async fn load(entries: &[AgentEntry], settings: &Settings) -> anyhow::Result<Self> {
        let host = AgentHost::builder().limits(settings.limits()?).build()?;
        let mut loaded = Vec::new();
        for (n, entry) in entries.iter().enumerate() {
            let path = entry.component.clone();
            let (agent, file) = compiled(&host, &path).await.map_err(|why| {
                let what = format!("agents[{n}] {:?}: component: {why}", entry.name);
                Usage::new(what).with_hint("build the agent again with `persist build`")
            })?;
            loaded.push(Mutex::new(Loaded {
                path,
                agent,
                file,
                refused: None,
            }));
        }
        Ok(Self { host, loaded })
    }

    /// Returns the components of a manifest without agents.
    #[cfg(test)]
    pub(super) fn none() -> anyhow::Result<Self> {
        let host = AgentHost::builder().build()?;
        let loaded = Vec::new();
        Ok(Self { host, loaded })
    }

    /// Returns the agent of an entry. A file that changed is loaded anew; where it cannot be, the
    /// agent of before stays, and the log tells why.
    pub(super) async fn current(&self, entry: usize) -> Result<Agent> {
        let missing = || Problem::new(StatusCode::NOT_FOUND, "not_found", "no such agent");
        let mut loaded = self.loaded.get(entry).ok_or_else(missing)?.lock().await;
        let now = std::fs::metadata(&loaded.path)
            .map(|file| Stamp::of(&file))
            .ok();
        if now == Some(loaded.file) || (now == loaded.refused && now.is_some()) {
            return Ok(loaded.agent.clone());
        }
        match compiled(&self.host, &loaded.path).await {
            Ok((agent, file)) => {
                tracing::info!("loaded {} anew", loaded.path.display());
                loaded.agent = agent;
                loaded.file = file;
                loaded.refused = None;
            }
            Err(why) => {
                let path = loaded.path.display();
                tracing::error!("cannot load {path}, and keep the component of before: {why}");
                loaded.refused = now;
            }
        }
        Ok(loaded.agent.clone())
    }
}

async fn compiled(host: &AgentHost, path: &PathBuf) -> std::result::Result<(Agent, Stamp), String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    // Before the content: a file that changes in between is loaded again.
    let file = std::fs::metadata(path).map_err(cannot)?;
    let bytes = std::fs::read(path).map_err(cannot)?;
    let agent = host.load(&bytes).await;
    let agent = agent.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((agent, Stamp::of(&file)))
}
