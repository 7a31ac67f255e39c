//! What saves that were never finished left behind.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::Store;
use serde_json::json;

use super::printed;
use crate::print::{self, Out};

/// Remove what saves that were never finished left behind: unfinished uploads, temporary files, probes
///
/// Versions are not touched. On S3, a save that takes longer than --older-than fails where its upload is removed. On S3 the account needs the
/// right to list uploads, too (s3:ListBucketMultipartUploads).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist gc --dry-run
  persist gc --older-than 7d")]
pub(crate) struct Gc {
    /// Only what was begun at least so long ago, such as 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "1d")]
    older_than: Duration,
    /// Remove nothing; count
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        store.require().await?;
        let swept = store.gc(self.older_than, self.dry_run).await?;
        let (removed, bytes) = (swept.removed, swept.bytes);
        let value = json!({
            "event": "swept", "dry_run": self.dry_run, "removed": removed, "bytes": bytes,
        });
        let text = || {
            let would = if self.dry_run {
                "would remove"
            } else {
                "removed"
            };
            format!(
                "{would} {}, {}",
                print::count(removed, "leftover"),
                print::bytes(bytes)
            )
        };
        printed(out.print(&value, text), "leftovers are removed")
    }
}
