//! A bucket of another provider: a driver that was written from the documentation of
//! [`Driver`](persist_host::storage::bucket::Driver) passes the conformance suite.
//!
//! The provider is invented, and lives in this process. What is tested is the seam, not a server.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use persist_host::conformance;
use persist_host::storage::bucket::{
    After, Attempt, AttemptError, Bucket, Completion, Driver, GetResponse, ListRequest,
    ListResponse, ListedObject, Mode, ObjectInfo, ObjectRange, Progress, Request, RetryDecision,
    Settings, Stored, UploadPart, Uploads,
};
use persist_host::storage::{Error, ErrorKind, ObjectMeta, Storage};
use persist_tests::block_on;

/// Contents of the bucket.
#[derive(Debug, Default)]
struct Contents {
    /// Bytes of each object, and when it was created.
    objects: BTreeMap<String, (Bytes, SystemTime)>,
    /// Parts of uploads by ID.
    uploads: BTreeMap<String, BTreeMap<u32, Bytes>>,
    begun: u64,
}

/// Driver of the invented provider.
#[derive(Debug)]
struct InventedDriver {
    settings: Settings,
    contents: Arc<Mutex<Contents>>,
}

impl InventedDriver {
    fn storage(contents: &Arc<Mutex<Contents>>) -> Arc<dyn Storage> {
        let mut settings = Settings::new("invented", "agents-bucket", "agents", "invented://here")
            .expect("good settings");
        // So that objects of several parts are small.
        settings.part = 64 << 10;
        Arc::new(Bucket::with_driver(Self {
            settings,
            contents: Arc::clone(contents),
        }))
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().expect("no panic")
    }
}

fn refused(kind: ErrorKind, next: RetryDecision) -> AttemptError {
    AttemptError::new(next, Error::new(kind, "refused"))
}

impl Contents {
    fn store(&mut self, key: &str, bytes: Bytes, mode: Mode) -> Attempt<Stored> {
        if mode == Mode::Create && self.objects.contains_key(key) {
            let kind = ErrorKind::AlreadyExists;
            return Err(refused(kind, RetryDecision::Definitive));
        }
        let object = (bytes, SystemTime::now());
        self.objects.insert(key.into(), object);
        Ok(Stored::default())
    }
}

fn no_upload() -> AttemptError {
    AttemptError {
        next: RetryDecision::Stop,
        ..AttemptError::unclear(Error::new(ErrorKind::Unavailable, "the upload is gone"))
    }
}

impl Driver for InventedDriver {
    type Upload = String;
    type Receipt = u32;
    type Body = Bytes;

    const UPLOADS: Uploads = Uploads {
        at_once: 2,
        max_parts: 1000,
        completed_by_last_part: false,
    };

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn name(&self, _: Request) -> &'static str {
        "Ask"
    }

    async fn put(&self, key: &str, body: Bytes, mode: Mode) -> Attempt<Stored> {
        self.contents().store(key, body, mode)
    }

    async fn begin(&self, _: &str, _: Mode) -> Attempt<String> {
        let mut contents = self.contents();
        contents.begun += 1;
        let id = contents.begun.to_string();
        contents.uploads.insert(id.clone(), BTreeMap::new());
        Ok(id)
    }

    async fn part(&self, _: &str, id: &String, part: &UploadPart) -> Attempt<Progress<u32>> {
        let mut contents = self.contents();
        let parts = contents.uploads.get_mut(id).ok_or_else(no_upload)?;
        parts.insert(part.number, part.body.clone());
        Ok(Progress::Whole(part.number))
    }

    async fn complete(
        &self,
        key: &str,
        id: &String,
        completion: &Completion<u32>,
        mode: Mode,
    ) -> Attempt<Progress<Stored>> {
        let mut contents = self.contents();
        let parts = contents.uploads.get(id).ok_or_else(no_upload)?;
        let bodies = completion.receipts.iter().map(|number| &parts[number]);
        let whole: Vec<u8> = bodies.flatten().copied().collect();
        assert_eq!(whole.len() as u64, completion.size);
        let stored = contents.store(key, whole.into(), mode)?;
        contents.uploads.remove(id);
        Ok(Progress::Whole(stored))
    }

    async fn abort(&self, _: &str, id: &String) -> Attempt<()> {
        self.contents().uploads.remove(id);
        Ok(())
    }

    async fn get(
        &self,
        key: &str,
        range: &ObjectRange,
        _: Option<&str>,
    ) -> Attempt<GetResponse<Bytes>> {
        let object = self.contents().objects.get(key).cloned();
        let Some((bytes, _)) = object else {
            return Err(refused(ErrorKind::NotFound, RetryDecision::Stop));
        };
        let size = bytes.len() as u64;
        let range = range.of(size);
        if range.start >= range.end && size > 0 {
            return Ok(GetResponse::Beyond(Some(size)));
        }
        let bytes = bytes.slice(range.start as usize..range.end as usize);
        let tag = None;
        Ok(GetResponse::Bytes(ObjectInfo { range, size, tag }, bytes))
    }

    async fn list(&self, list: &ListRequest) -> Attempt<ListResponse> {
        let after = match &list.after {
            _ if list.token.is_some() => list.token.clone(),
            None => None,
            Some(After::Key(key)) => Some(key.clone()),
            Some(After::Directory(dir)) => Some(format!("{dir}/{}", char::MAX)),
        };
        let contents = self.contents();
        let from = after.map_or(Bound::Included(list.prefix.clone()), Bound::Excluded);
        let mut response = ListResponse {
            now: Some(SystemTime::now()),
            ..ListResponse::default()
        };
        for (key, (bytes, created)) in contents.objects.range((from, Bound::Unbounded)) {
            let Some(name) = key.strip_prefix(&list.prefix) else {
                // Keys before the prefix may come first.
                if *key < list.prefix {
                    continue;
                }
                break;
            };
            let dir = name.split_once('/').filter(|_| list.directories);
            let dir = dir.map(|(dir, _)| format!("{}{dir}/", list.prefix));
            if dir.is_some() && dir.as_ref() == response.directories.last() {
                continue;
            }
            if response.objects.len() + response.directories.len() == list.limit {
                response.more = true;
                break;
            }
            response.token = Some(match &dir {
                Some(dir) => format!("{dir}{}", char::MAX),
                None => key.clone(),
            });
            match dir {
                Some(dir) => response.directories.push(dir),
                None => response.objects.push(ListedObject {
                    key: key.clone(),
                    meta: Some(ObjectMeta::new(bytes.len() as u64, *created)),
                }),
            }
        }
        Ok(response)
    }

    async fn delete(&self, key: &str) -> Attempt<()> {
        self.contents().objects.remove(key);
        Ok(())
    }
}

#[test]
fn a_driver_of_another_provider_conforms() {
    let contents = Arc::default();
    let report = block_on(conformance::run(&|| InventedDriver::storage(&contents)));
    assert!(report.is_ok(), "{report}");
    let contents = contents.lock().expect("no panic");
    assert!(contents.begun > 0);
    assert!(contents.uploads.is_empty(), "{:?}", contents.uploads);
}
