//! Makes a store.

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::Store;
use serde_json::json;

use super::{policy, printed};
use crate::print::Out;

/// Create a store in a directory or bucket
///
/// Checks first that the backend honours conditional creates, and refuses one that does not. An
/// existing store is left unchanged. The policy comes from the settings; `persist policy set`
/// changes it. Other commands create a store only with --create or in the user's data directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist init --storage file:///srv/agents
  persist init --storage s3://bucket/agents")]
pub(crate) struct Init {}

impl Init {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let is_new = store.init().await?;
        let current = store.policy().await?;
        let location = store.location();
        let mut value = json!({ "event": "initialized", "location": location, "created": is_new });
        value["policy"] = policy::value(&current);
        let text = || {
            let first = if is_new {
                format!("created a store in {location}")
            } else {
                format!("a store exists in {location}; nothing was changed")
            };
            format!("{first}\n{}", policy::table(&current))
        };
        printed(out.print(&value, text), "the store is there")
    }
}
