//! A storage that fails as it is told: for what a real disk or server cannot be made to show.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::{Forward, ListFault};
use crate::storage::{
    Error, ErrorKind, Key, List, Page, Part, ReadRange, Result, Storage, Sweep, Swept, Upload,
};

/// Fault that happens when a version is created, or when its upload is finished.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// It is made, and the answer is lost.
    ReplyLost,
    /// It is not made, and no answer comes.
    RequestLost,
    /// Another host makes this version first, of these bytes, and no answer comes.
    LostToAnother(Vec<Bytes>),
    /// It is made, and may not survive a power failure.
    NotDurable,
    /// It is made, and then reported as there already, as a retry below would see it.
    OwnRetry,
    /// It fails so, and is not made.
    Fails(ErrorKind),
    /// It is made, and the answer comes after this time.
    AnsweredLate(Duration),
}

/// Passes every call on to a storage, but for the faults that are planned.
#[derive(Debug)]
pub struct Faulty {
    inner: Arc<dyn Storage>,
    planned: Arc<Mutex<VecDeque<Fault>>>,
    life: Arc<Life>,
    /// True if `create` overwrites.
    pub ignores_conditions: bool,
    /// True if `list` shows nothing.
    pub lists_nothing: bool,
    /// How the lists are wrong, if they are.
    pub list_fault: Option<ListFault>,
    newest: Arc<Mutex<Option<Key>>>,
}

impl Faulty {
    /// A storage without faults.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Self {
            inner,
            planned: Arc::default(),
            life: Arc::default(),
            ignores_conditions: false,
            lists_nothing: false,
            list_fault: None,
            newest: Arc::default(),
        }
    }

    /// Plans what happens to the next `create` of a version that has no plan yet.
    pub fn plan(&self, fault: Fault) {
        let mut planned = self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.push_back(fault);
    }

    async fn begin(
        &self,
        key: &Key,
        upload: impl Future<Output = Result<Box<dyn Upload>>>,
    ) -> Result<Box<dyn Upload>> {
        Ok(Box::new(FaultyUpload {
            upload: self.life.make(ErrorKind::Unavailable, upload).await?,
            key: key.clone(),
            inner: Arc::clone(&self.inner),
            planned: Arc::clone(&self.planned),
            life: Arc::clone(&self.life),
            newest: Arc::clone(&self.newest),
        }))
    }

    /// Dies at the call after `after` others: that one is still made, if `made`, and no later one
    /// is.
    pub fn die_at(&self, after: usize, made: bool) {
        *self.life.death() = Some(Death { after, made });
    }
}

impl Fault {
    /// Makes a version with `make`, or not, and answers as planned.
    async fn befall(
        self,
        inner: &dyn Storage,
        key: &Key,
        make: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let kind = match self {
            Self::RequestLost => ErrorKind::OutcomeUnknown,
            Self::Fails(kind) => kind,
            Self::LostToAnother(theirs) => {
                inner.create(key, theirs).await?;
                ErrorKind::OutcomeUnknown
            }
            made => {
                make.await?;
                match made {
                    Self::NotDurable => ErrorKind::NotDurable,
                    Self::OwnRetry => ErrorKind::AlreadyExists,
                    Self::AnsweredLate(time) => {
                        tokio::time::sleep(time).await;
                        return Ok(());
                    }
                    _ => ErrorKind::OutcomeUnknown,
                }
            }
        };
        Err(Error::new(kind, "as planned"))
    }
}

/// The next fault that is planned, where `key` is a version's.
fn next_fault(planned: &Mutex<VecDeque<Fault>>, key: &Key) -> Option<Fault> {
    let mut planned = planned.lock().unwrap_or_else(PoisonError::into_inner);
    if key.as_str().ends_with(".gz") {
        planned.pop_front()
    } else {
        None
    }
}

/// How long the host between us and the storage lives.
#[derive(Debug, Default)]
struct Life {
    /// None: for ever.
    death: Mutex<Option<Death>>,
}

#[derive(Debug)]
struct Death {
    /// Calls that are answered before.
    after: usize,
    /// True if the call that the host dies at is carried out.
    made: bool,
}

/// Outcome of one call.
enum Call {
    Answered,
    MadeAndLost,
    NotMade,
}

impl Life {
    fn death(&self) -> MutexGuard<'_, Option<Death>> {
        self.death.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self) -> Call {
        match &mut *self.death() {
            None => Call::Answered,
            Some(death) if death.after > 0 => {
                death.after -= 1;
                Call::Answered
            }
            Some(death) if death.made => {
                death.made = false;
                Call::MadeAndLost
            }
            Some(_) => Call::NotMade,
        }
    }

    /// Makes a call, as far as this life lasts; `lost` is the kind of error where it does not.
    async fn make<T>(&self, lost: ErrorKind, call: impl Future<Output = Result<T>>) -> Result<T> {
        let died = || Err(Error::new(lost, "the host died"));
        match self.call() {
            Call::Answered => call.await,
            Call::MadeAndLost => {
                call.await?;
                died()
            }
            Call::NotMade => died(),
        }
    }
}

#[async_trait]
impl Forward for Faulty {
    fn inner(&self) -> Arc<dyn Storage> {
        Arc::clone(&self.inner)
    }

    fn location(&self) -> String {
        format!("{}, with faults", self.inner.location())
    }

    // Its word is not believed before it is probed, so that tests meet the probes.
    fn supports_conditional_create(&self) -> bool {
        false
    }

    // The short probe, whatever is below: the long one has tests of its own.
    fn unknown_server(&self) -> Option<String> {
        None
    }

    async fn create(&self, key: &Key, body: Vec<Bytes>) -> Result<()> {
        let fault = next_fault(&self.planned, key);
        let create = async {
            if self.ignores_conditions {
                self.inner.delete(key).await?;
            }
            let make = self.inner.create(key, body);
            match fault {
                Some(fault) => fault.befall(&*self.inner, key, make).await,
                None => make.await,
            }
        };
        let created = self.life.make(ErrorKind::OutcomeUnknown, create).await;
        created.inspect(|()| set_newest(&self.newest, key))
    }

    async fn upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.begin(key, self.inner.upload(key)).await
    }

    async fn upload_in_parts(&self, key: &Key, body: Bytes) -> Result<Box<dyn Upload>> {
        self.begin(key, self.inner.upload_in_parts(key, body)).await
    }

    async fn replace(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.begin(key, self.inner.replace(key)).await
    }

    async fn read(&self, key: &Key, range: ReadRange) -> Result<Part> {
        self.life
            .make(ErrorKind::Unavailable, self.inner.read(key, range))
            .await
    }

    async fn list(&self, list: &List<'_>) -> Result<Page> {
        if self.lists_nothing {
            return Ok(Page::default());
        }
        let page = async {
            let newest = self.newest.lock();
            let newest = newest.unwrap_or_else(PoisonError::into_inner).clone();
            match self.list_fault {
                Some(fault) => fault.page(&*self.inner, list, newest.as_ref()).await,
                None => self.inner.list(list).await,
            }
        };
        self.life.make(ErrorKind::Unavailable, page).await
    }

    async fn empty_dirs(&self, dir: &str) -> Result<Vec<String>> {
        self.life
            .make(ErrorKind::Unavailable, self.inner.empty_dirs(dir))
            .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.life
            .make(ErrorKind::OutcomeUnknown, self.inner.delete(key))
            .await
    }

    async fn sweep(&self, sweep: &Sweep<'_>) -> Result<Swept> {
        self.life
            .make(ErrorKind::Unavailable, self.inner.sweep(sweep))
            .await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    upload: Box<dyn Upload>,
    key: Key,
    inner: Arc<dyn Storage>,
    planned: Arc<Mutex<VecDeque<Fault>>>,
    life: Arc<Life>,
    newest: Arc<Mutex<Option<Key>>>,
}

#[async_trait]
impl Upload for FaultyUpload {
    async fn write(&mut self, piece: Bytes) -> Result<()> {
        self.life
            .make(ErrorKind::Unavailable, self.upload.write(piece))
            .await
    }

    async fn finish(self: Box<Self>) -> Result<()> {
        let Self {
            upload,
            key,
            inner,
            planned,
            life,
            newest,
        } = *self;
        let finish = async {
            match next_fault(&planned, &key) {
                Some(fault) => fault.befall(&*inner, &key, upload.finish()).await,
                None => upload.finish().await,
            }
        };
        let finished = life.make(ErrorKind::OutcomeUnknown, finish).await;
        finished.inspect(|()| set_newest(&newest, &key))
    }
}

fn set_newest(newest: &Mutex<Option<Key>>, key: &Key) {
    *newest.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
}
