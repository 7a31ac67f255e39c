//! A storage that fails as it is told: for what a real disk or server cannot be made to show.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use persist_host::storage::{
    Error, ErrorKind, Key, List, Page, Part, ReadRange, Result, Storage, Upload,
};

/// What happens to a `create` of a version.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is made, and the answer is lost.
    ReplyLost,
    /// It is not made, and no answer comes.
    RequestLost,
    /// Another host makes this version first, and no answer comes.
    LostToAnother(Vec<Bytes>),
    /// It is made, and may not survive a power failure.
    NotDurable,
    /// It is made, and then reported as there already, as a retry below would see it.
    OwnRetry,
    /// It fails so, and is not made.
    Fails(ErrorKind),
}

/// Passes everything on, but for the faults that are planned.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Storage>,
    creates: Mutex<VecDeque<Fault>>,
    /// Whether `create` overwrites.
    pub ignores_conditions: bool,
    /// Whether `list` shows nothing.
    pub lists_nothing: bool,
}

impl Faulty {
    /// A storage without faults.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            creates: Mutex::default(),
            ignores_conditions: false,
            lists_nothing: false,
        }
    }

    /// Plans what happens to the next `create` of a version that has no plan yet.
    pub fn plan(&self, fault: Fault) {
        self.creates.lock().expect("no panic").push_back(fault);
    }
}

#[async_trait]
impl Storage for Faulty {
    fn location(&self) -> String {
        "the faulty storage".into()
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        if self.ignores_conditions {
            self.inner.delete(key).await?;
        }
        let is_version = key.as_str().ends_with(".gz");
        let fault = is_version
            .then(|| self.creates.lock().expect("no panic").pop_front())
            .flatten();
        let Some(fault) = fault else {
            return self.inner.create(key, body).await;
        };
        let kind = match fault {
            Fault::ReplyLost => {
                self.inner.create(key, body).await?;
                ErrorKind::Unanswered
            }
            Fault::RequestLost => ErrorKind::Unanswered,
            Fault::LostToAnother(theirs) => {
                self.inner.create(key, theirs).await?;
                ErrorKind::Unanswered
            }
            Fault::NotDurable => {
                self.inner.create(key, body).await?;
                ErrorKind::NotDurable
            }
            Fault::OwnRetry => {
                self.inner.create(key, body).await?;
                ErrorKind::AlreadyExists
            }
            Fault::Fails(kind) => kind,
        };
        Err(Error::new(kind, "as planned"))
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.inner.upload(key).await
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        self.inner.read(key, range).await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        match self.lists_nothing {
            true => Ok(Page::default()),
            false => self.inner.list(list).await,
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}
