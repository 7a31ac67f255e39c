//! The `persist gc` command: unfinished uploads, temporary files and probes.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{GcOptions, Store};
use serde_json::json;

use super::printed;
use crate::print::{self, Out, say};

/// Remove leftovers of unfinished saves
///
/// Leftovers are unfinished uploads, temporary files and probes. Versions are not changed. In a
/// bucket, only uploads to keys of versions and probes are removed, because other programs may use
/// the bucket. On S3, a save that takes longer than --older-than fails if its upload is removed.
/// The account needs the permission s3:ListBucketMultipartUploads.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist gc --dry-run
  persist gc --older-than 7d")]
pub(crate) struct Gc {
    /// Minimum age of what is removed, such as 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration,
    default_value = "1d")]
    older_than: Duration,
    /// List what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Also remove unfinished uploads of other programs below the prefix
    #[arg(long)]
    all_uploads: bool,
}

impl Gc {
    pub(crate) async fn run(self, store: &Store, out: Out) -> Result<()> {
        let mut options = GcOptions::default();
        options.older_than = self.older_than;
        options.dry_run = self.dry_run;
        options.all_uploads = self.all_uploads;
        let swept = store.gc(&options).await?;
        // A server that was refused may hold probes, and no store.
        if swept.removed == 0 {
            store.require().await?;
        }
        if self.dry_run {
            for key in &swept.keys {
                let value = json!({ "event": "leftover", "key": key });
                printed(out.print(&value, || key.clone()), "nothing was removed")?;
            }
        }
        if let Some(why) = &swept.unlisted {
            say(format_args!(
                "note: this server cannot list unfinished uploads, so they were not removed: {why}"
            ));
        }
        let removed = swept.removed;
        let bytes = swept.bytes;
        let value = json!({
            "event": "swept", "dry_run": self.dry_run, "removed": removed, "bytes": bytes,
            "uploads_listed": swept.unlisted.is_none(),
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
