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
    ListResponse, ListedObject, ListedUpload, Mode, ObjectInfo, ObjectRange, Progress, Request,
    RetryDecision, Settings, Stored, UploadList, UploadMarker, UploadPart, Uploads,
};
use persist_host::storage::{Error, ErrorKind, ObjectMeta, Storage};
use persist_tests::block_on;

/// An object: its bytes, when it was made, and which change made it.
#[derive(Clone, Debug)]
struct StoredObject {
    bytes: Bytes,
    made: SystemTime,
    change: u64,
}

/// What the bucket holds.
#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<String, StoredObject>,
    /// Uploads by ID: key, parts, and when they began.
    uploads: BTreeMap<String, (String, BTreeMap<u32, Bytes>, SystemTime)>,
    changes: u64,
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

fn refused(kind: ErrorKind, next: RetryDecision, what: &str) -> AttemptError {
    AttemptError::new(next, Error::new(kind, what))
}

impl Contents {
    fn store(&mut self, key: &str, bytes: Bytes, mode: Mode) -> Attempt<Stored> {
        if mode == Mode::Create && self.objects.contains_key(key) {
            let what = "an object has this key";
            return Err(refused(
                ErrorKind::AlreadyExists,
                RetryDecision::Definitive,
                what,
            ));
        }
        self.changes += 1;
        let object = StoredObject {
            bytes,
            made: SystemTime::now(),
            change: self.changes,
        };
        self.objects.insert(key.into(), object);
        Ok(Stored::new())
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

    fn name(&self, request: Request) -> &'static str {
        match request {
            Request::Get => "Fetch",
            Request::List => "Survey",
            _ => "Store",
        }
    }

    async fn put(&self, key: &str, body: Bytes, mode: Mode) -> Attempt<Stored> {
        self.contents().store(key, body, mode)
    }

    async fn begin(&self, key: &str, _: Mode) -> Attempt<String> {
        let mut contents = self.contents();
        contents.changes += 1;
        let id = format!("upload-{}", contents.changes);
        let upload = (key.into(), BTreeMap::new(), SystemTime::now());
        contents.uploads.insert(id.clone(), upload);
        Ok(id)
    }

    async fn part(&self, _: &str, id: &String, part: &UploadPart) -> Attempt<Progress<u32>> {
        let mut contents = self.contents();
        let (_, parts, _) = contents.uploads.get_mut(id).ok_or_else(no_upload)?;
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
        let (_, parts, _) = contents.uploads.get(id).ok_or_else(no_upload)?;
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
        tag: Option<&str>,
    ) -> Attempt<GetResponse<Bytes>> {
        let object = self.contents().objects.get(key).cloned();
        let object = object.ok_or_else(|| {
            refused(
                ErrorKind::NotFound,
                RetryDecision::Stop,
                "there is no such object",
            )
        })?;
        let change = object.change.to_string();
        if tag.is_some_and(|tag| tag != change) {
            return Ok(GetResponse::Replaced);
        }
        let size = object.bytes.len() as u64;
        let range = range.of(size);
        if range.start >= range.end && size > 0 {
            return Ok(GetResponse::Beyond(Some(size)));
        }
        let bytes = object.bytes.slice(range.start as usize..range.end as usize);
        let info = ObjectInfo {
            range,
            size,
            tag: Some(change),
        };
        Ok(GetResponse::Bytes(info, bytes))
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
        for (key, object) in contents.objects.range((from, Bound::Unbounded)) {
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
                    meta: Some(ObjectMeta::new(object.bytes.len() as u64, object.made)),
                }),
            }
        }
        Ok(response)
    }

    async fn delete(&self, key: &str) -> Attempt<()> {
        self.contents().objects.remove(key);
        Ok(())
    }

    async fn list_uploads(&self, _: &UploadMarker) -> Attempt<Option<UploadList<String>>> {
        let contents = self.contents();
        let uploads = contents
            .uploads
            .iter()
            .map(|(id, (key, _, began))| ListedUpload {
                key: key.clone(),
                upload: id.clone(),
                began: Some(*began),
            });
        Ok(Some(UploadList {
            uploads: uploads.collect(),
            next: None,
            now: Some(SystemTime::now()),
        }))
    }
}

#[test]
fn a_driver_of_another_provider_conforms() {
    let contents = Arc::default();
    let report = block_on(conformance::run(&|| InventedDriver::storage(&contents)));
    assert!(report.is_ok(), "{report}");
    let contents = contents.lock().expect("no panic");
    assert!(contents.changes > 0);
    assert!(contents.uploads.is_empty(), "{:?}", contents.uploads);
}
