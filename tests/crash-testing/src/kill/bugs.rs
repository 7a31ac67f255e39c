//! Disks that do it wrong, to see that a kill shows it.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use async_trait::async_trait;
use bytes::Bytes;
use persist_host::conformance::Forward;
use persist_host::storage::{Error, ErrorKind, Key, Local, Storage};

/// A bug that is planted under the process that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A version is acknowledged, and then made.
    AnswersFirst,
    /// A version is written under its name.
    WritesInPlace,
    /// Each version leaves a file beside it.
    Litters,
}

const BUGS: [(&str, Bug); 3] = [
    ("answers-first", Bug::AnswersFirst),
    ("writes-in-place", Bug::WritesInPlace),
    ("litters", Bug::Litters),
];

impl Bug {
    pub(super) fn name(self) -> &'static str {
        BUGS.iter()
            .find(|bug| bug.1 == self)
            .map_or("", |bug| bug.0)
    }

    pub(super) fn of(name: &str) -> Result<Self> {
        match BUGS.iter().find(|bug| bug.0 == name) {
            Some(bug) => Ok(bug.1),
            None => bail!("there is no bug {name}"),
        }
    }

    pub(super) fn planted(self, local: Local) -> Arc<dyn Storage> {
        Arc::new(Buggy { local, bug: self })
    }
}

#[derive(Debug)]
struct Buggy {
    local: Local,
    bug: Bug,
}

impl Buggy {
    async fn answer_first(&self, key: &Key, body: Vec<Bytes>) {
        let local = self.local.clone();
        let key = key.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            // The response is not awaited: that is the bug.
            let _ = local.create(&key, body).await;
        });
    }

    async fn write_in_place(&self, key: &Key, body: &[Bytes]) -> std::io::Result<()> {
        let path = self.local.root().join(key.as_str());
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut file = std::fs::File::create_new(path)?;
        for piece in body {
            file.write_all(piece)?;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        file.sync_all()
    }
}

#[async_trait]
impl Forward for Buggy {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::new(self.local.clone())
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> persist_host::storage::Result<()> {
        if !key.as_str().ends_with(".gz") {
            return self.local.create(key, body).await;
        }
        match self.bug {
            Bug::AnswersFirst => {
                self.answer_first(key, body).await;
                Ok(())
            }
            Bug::WritesInPlace => self.write_in_place(key, &body).await.map_err(|error| {
                let kind = match error.kind() {
                    std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
                    _ => ErrorKind::Unavailable,
                };
                Error::new(kind, "write in place").with_source(error)
            }),
            Bug::Litters => {
                let left = Key::new(format!("{key}.left"))?;
                self.local.create(key, body).await?;
                self.local.create(&left, Vec::new()).await
            }
        }
    }
}
