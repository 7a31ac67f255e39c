//! Uploads that were begun, and neither completed nor aborted: their parts are invisible, and they
//! are paid for.

use std::time::{Duration, SystemTime};

use super::driver::{Driver, Request, UploadMarker};
use super::shared::Bucket;
use super::upload::BucketUpload;
use crate::storage::{Error, ErrorKind, Key, Result, Sweep, Swept};

impl<D: Driver> Bucket<D> {
    /// Aborts the uploads below the prefix that `sweep` asks for, by any process: a provider does
    /// not tell whether a process is at work.
    pub(super) async fn sweep_uploads(&self, sweep: &Sweep<'_>) -> Result<Swept> {
        let mut swept = Swept::default();
        let mut after = UploadMarker::default();
        let mut lists_any = false;
        loop {
            let list = || self.driver().list_uploads(&after);
            let page = match self.call(Request::ListUploads, "", 0, list).await {
                // A server without the request may look for an object of that name.
                Err(error)
                    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) =>
                {
                    swept.unlisted = Some(error.to_string());
                    return Ok(swept);
                }
                page => page?,
            };
            let Some(page) = page else {
                return Ok(swept);
            };
            let now = page.now.ok_or_else(|| {
                let what =
                    "this server does not report its time, so the age of an upload is unknown";
                Error::new(ErrorKind::Unsupported, what)
            })?;
            lists_any |= !page.uploads.is_empty();
            for listed in &page.uploads {
                let is_old = age(listed.began, now).is_some_and(|age| age >= sweep.older_than);
                let below = listed.key.strip_prefix(&self.settings().prefix);
                let key = below.and_then(|key| Key::new(key).ok());
                let Some(key) = key.filter(|key| is_old && (sweep.is_ours)(key)) else {
                    continue;
                };
                if !sweep.dry_run {
                    self.abort_upload(&listed.key, &listed.upload).await?;
                }
                swept.removed += 1;
                swept.keys.push(key.to_string());
            }
            match page.next {
                None => {
                    if !lists_any && sweep.probe {
                        swept.unlisted = self.unlisted().await?;
                    }
                    return Ok(swept);
                }
                Some(next) if next.key.is_some() && next != after => after = next,
                Some(_) => {
                    let what = "the server returned a truncated list without a continuation token";
                    return Err(Error::new(ErrorKind::Unsupported, what));
                }
            }
        }
    }

    /// Returns why a server listed no upload, if it is not that there are none: MinIO lists those
    /// of the object whose key is the prefix, and no others.
    async fn unlisted(&self) -> Result<Option<String>> {
        let probe = match BucketUpload::probe(self).await {
            Ok(probe) => probe,
            // What an account may not begin, it has not left behind.
            Err(error) if error.kind() == ErrorKind::Denied => return Ok(None),
            Err(error) => return Err(error),
        };
        let first = UploadMarker::default();
        let list = || self.driver().list_uploads(&first);
        let page = self.call(Request::ListUploads, "", 0, list).await;
        probe.discard().await;
        let is_listed = page?.is_none_or(|page| !page.uploads.is_empty());
        let what = "the server does not list an upload that was just begun, as MinIO does not";
        Ok((!is_listed).then(|| what.into()))
    }
}

/// How long ago an upload began, by the server's clock. What is from the future is new.
fn age(began: Option<SystemTime>, now: SystemTime) -> Option<Duration> {
    Some(now.duration_since(began?).unwrap_or_default())
}
