//! The `persist gc` command: unfinished uploads, temporary files and probes.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use persist_host::snapshot::{GcOptions, Store};
use serde_json::json;

use super::printed;
use crate::print::Out;
use crate::stdio::say;
use crate::text;

/// Remove unfinished uploads, temporary files and probe objects
///
/// Versions are not changed. In a bucket, an upload is removed only if its key is that of a version
/// or a probe, because other programs may use the bucket. On S3, a save that takes longer than
/// --older-than fails if its upload is removed, and the account needs the right
/// s3:ListBucketMultipartUploads.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  persist gc --dry-run
  persist gc --older-than 7d")]
pub(crate) struct Gc {
    /// Remove only leftovers older than DURATION, such as 12h or 7d
    #[arg(long, value_name = "DURATION", value_parser = persist_host::units::parse_duration,
    default_value = "1d")]
    older_than: Duration,
    /// Remove nothing; list the leftovers that would be removed
    #[arg(long)]
    dry_run: bool,
    /// Remove every unfinished upload below the prefix, including those of other programs
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
                printed(out.result(&value, || key.clone()), "nothing was removed")?;
            }
        }
        if let Some(why) = &swept.unlisted {
            say(format_args!(
                "warning: unfinished uploads were not removed: this server cannot list them: {why}"
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
                text::count(removed, "leftover"),
                text::bytes(bytes)
            )
        };
        let printing = if self.dry_run {
            out.result(&value, text)
        } else {
            out.print(&value, text)
        };
        printed(printing, "leftovers are removed")
    }
}
