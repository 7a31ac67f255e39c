//! How a version comes to be: one exclusive create, and what is done when its answer is not clear.
//!
//! Truth is the highest version that exists. A change looks up the head, or goes on from the one
//! that this process knows (`head_cache`), checks what the caller expects of it, and creates the
//! version after it; the first to create it wins, on every storage, between all processes.
//!
//! An answer that says "exists", or none at all, is looked at before it is believed: a nonce in the
//! trailer tells whether the version that is there is the one that we made.

use bytes::Bytes;
use tracing::field::Empty;

use crate::snapshot::clock::{self, Moment};
use crate::snapshot::format::{Encoded, Trailer, TrailerFields};
use crate::snapshot::shared::{Head, HeadCache, HeadObservation, ScopeRef};
use crate::snapshot::{Error, Expect, Info, MAX_VERSION, Name, Result, Version};
use crate::storage::{self, ErrorKind, Upload};
use crate::telemetry::{Layer, hashed};

/// How often a change with [`Expect::Any`] tries the next version after losing a race. Every loss
/// is another writer's save, so this many losses mean a name that a hundred writers want at once.
const MAX_ATTEMPTS: usize = 100;

/// Pieces of a file that go to the storage together.
const PIECE: usize = 8 << 20;

/// A change that is being made of one name.
#[derive(Debug)]
pub(crate) struct Commit {
    scope: ScopeRef,
    name: Name,
    expect: Expect,
    /// The version that must be the newest, 0 for none, where a lease demands one.
    base: Option<Version>,
    media_type: Option<String>,
    labels: Vec<(String, String)>,
    /// The time of a version that is saved again; none: now.
    created_at: Option<u64>,
    nonce: String,
    /// The beginning of the file, as far as nothing of it was sent.
    pending: Vec<Bytes>,
    pending_len: usize,
    upload: Option<StreamingUpload>,
}

/// A file whose beginning was sent to the key of one version, and cannot be sent to another.
#[derive(Debug)]
struct StreamingUpload {
    upload: Box<dyn Upload>,
    base: HeadObservation,
    version: Version,
}

/// Result of looking at a key after an unclear answer.
enum Found {
    Ours,
    Foreign,
    Nothing,
    /// Something is there that cannot be read as a version.
    Damaged,
    /// The storage did not let us look.
    Unseen(Error),
}

impl Commit {
    pub(crate) fn new(
        scope: &ScopeRef,
        name: &Name,
        expect: Expect,
        media_type: Option<String>,
        mut labels: Vec<(String, String)>,
    ) -> Self {
        labels.extend(scope.host_labels(&labels, media_type.as_deref()));
        Self::with_labels(scope, name, expect, media_type, labels)
    }

    /// Creates a change whose labels are complete: the host adds none of its own.
    pub(crate) fn with_labels(
        scope: &ScopeRef,
        name: &Name,
        expect: Expect,
        media_type: Option<String>,
        labels: Vec<(String, String)>,
    ) -> Self {
        Self {
            scope: scope.clone(),
            name: name.clone(),
            expect,
            base: None,
            media_type,
            labels,
            created_at: None,
            nonce: format!("{:032x}", crate::random::u128()),
            pending: Vec::new(),
            pending_len: 0,
            upload: None,
        }
    }

    /// Keeps the time at which a version was created that is saved again.
    pub(crate) fn created_at(mut self, millis: u64) -> Self {
        self.created_at = Some(millis);
        self
    }

    /// Adds bytes of the file; they are kept, so that [`Commit::finish`] can try again.
    pub(crate) fn buffer(&mut self, bytes: Vec<Bytes>) {
        self.pending_len += bytes.iter().map(Bytes::len).sum::<usize>();
        self.pending.extend(bytes);
    }

    /// Adds bytes of the file, and sends them once there are enough. From then on the version is
    /// settled.
    pub(crate) async fn push(&mut self, bytes: Vec<Bytes>) -> Result<()> {
        self.buffer(bytes);
        if self.pending_len < PIECE {
            return Ok(());
        }
        if self.upload.is_none() {
            let base = self.expected_head().await?;
            let version = after(&base)?;
            let key = self.scope.key(&self.name, version)?;
            let upload = self.scope.storage().upload(&key).await;
            let upload = match upload {
                Ok(upload) => upload,
                Err(error) => return Err(self.map_upload_error(error, version).await),
            };
            self.upload = Some(StreamingUpload {
                upload,
                base,
                version,
            });
        }
        if let Some(sending) = &mut self.upload {
            let version = sending.version;
            for piece in std::mem::take(&mut self.pending) {
                if let Err(error) = sending.upload.write(piece).await {
                    return Err(self.map_upload_error(error, version).await);
                }
            }
            self.pending_len = 0;
        }
        Ok(())
    }

    /// Why an upload that is not complete was refused. Where its version is there already, it is
    /// not ours: the race is lost.
    async fn map_upload_error(&self, error: storage::Error, version: Version) -> Error {
        if error.kind() != ErrorKind::AlreadyExists {
            return error.into();
        }
        self.heads().invalidate(&self.dir(), version);
        match self.scope.head(&self.name).await {
            Ok(head) => Error::Conflict {
                head: head.map(|head| head.version),
            },
            Err(error) => error,
        }
    }

    /// Refuses what cannot succeed before work is done for it.
    pub(crate) async fn check_early(&mut self) -> Result<()> {
        self.base = self.scope.fenced_base(&self.name, self.expect).await?;
        if self.expect == Expect::Any {
            return Ok(());
        }
        match self.expected_head().await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.scope.explain_fenced(error).await),
        }
    }

    /// Makes the version.
    pub(crate) async fn finish(&mut self, encoded: &Encoded) -> Result<Info> {
        let operation = if encoded.is_tombstone() {
            "delete"
        } else {
            "save"
        };
        let telemetry = &self.scope.store.shared.telemetry;
        let span = tracing::info_span!(
            "commit",
            backend = telemetry.backend(),
            operation,
            object = %hashed(&self.dir()),
            bytes = Empty,
            outcome = Empty,
        );
        let pending = telemetry.begin(Layer::Commit, operation, span);
        pending
            .last(self.make(encoded), |info| info.stored_size)
            .await
    }

    async fn make(&mut self, encoded: &Encoded) -> Result<Info> {
        let made = match self.upload.take() {
            Some(sending) => self.finish_upload(sending, encoded).await,
            None => self.create(encoded).await,
        };
        match made {
            Ok(info) => {
                self.scope.observe_created(&self.name, info.version);
                Ok(info)
            }
            Err(error) => Err(self.scope.explain_fenced(error).await),
        }
    }

    /// The scope of the name.
    pub(crate) fn scope(&self) -> &ScopeRef {
        &self.scope
    }

    /// The name that gets the version.
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    async fn create(&self, encoded: &Encoded) -> Result<Info> {
        for _ in 0..MAX_ATTEMPTS {
            let base = self.expected_head().await?;
            let version = after(&base)?;
            let (trailer, info) = self.build_trailer(encoded, base.head.as_ref(), version);
            let body = self.pending.iter().cloned().chain([trailer]).collect();
            let key = self.scope.key(&self.name, version)?;
            let began = Moment::now();
            let answer = self.scope.storage().create(&key, body).await;
            if self.resolve(answer, &base, &info, began).await? {
                return Ok(info);
            }
            if let Expect::NeverSaved | Expect::Version(_) = self.expect {
                break;
            }
            self.explain_lost_create(&info).await?;
        }
        let head = self.scope.head(&self.name).await?.map(|head| head.version);
        Err(Error::Conflict { head })
    }

    /// After a create that was lost: where no version is the reason, trying again would not help.
    async fn explain_lost_create(&self, lost: &Info) -> Result<()> {
        let head = self.scope.head(&self.name).await?;
        if head.is_some_and(|head| head.version >= lost.version) {
            return Ok(());
        }
        let (what, hint) = match self.look(lost).await {
            Found::Nothing => (
                "the storage reports that the next version exists, and does not return it".into(),
                "check the server",
            ),
            Found::Ours | Found::Foreign => (
                format!(
                    "the storage has version {} and does not list it as the newest",
                    lost.version
                ),
                "do not remove this version: it was acknowledged; copy the store to a storage that \
                 lists keys in order",
            ),
            Found::Damaged | Found::Unseen(_) => (
                "the object at the next version's key is not a Persist snapshot".into(),
                "run `persist check`; keep a copy of the object before you move it",
            ),
        };
        let key = self.scope.key(&self.name, lost.version)?;
        Err(Error::unsupported(what).with_hint(hint).at(key))
    }

    async fn finish_upload(&self, mut sending: StreamingUpload, encoded: &Encoded) -> Result<Info> {
        let mut base = sending.base;
        // It was looked up before the first piece was sent, perhaps long ago.
        if !self.heads().is_good(base.since) {
            let now = self.scope.look_up(&self.name).await?;
            if now.version() != base.version() {
                let head = now.head.map(|head| head.version);
                return Err(Error::Conflict { head });
            }
            base.since = now.since;
        }
        let (trailer, info) = self.build_trailer(encoded, base.head.as_ref(), sending.version);
        for piece in self.pending.iter().cloned().chain([trailer]) {
            if let Err(error) = sending.upload.write(piece).await {
                return Err(self.map_upload_error(error, sending.version).await);
            }
        }
        let began = Moment::now();
        let answer = sending.upload.finish().await;
        if self.resolve(answer, &base, &info, began).await? {
            return Ok(info);
        }
        let head = self.scope.head(&self.name).await?.map(|head| head.version);
        Err(Error::Conflict { head })
    }

    /// The head, where it is what the caller expects: as it is known, or else as it is looked up.
    async fn expected_head(&self) -> Result<HeadObservation> {
        let known = if self.pending_len < PIECE {
            self.heads().get(&self.dir())
        } else {
            None
        };
        if let Some(known) = known.filter(|known| self.expects(known.head.as_ref())) {
            return Ok(known);
        }
        let mut seen = self.scope.look_up(&self.name).await?;
        if let (Expect::Absent, Some(head)) = (self.expect, &mut seen.head) {
            let trailer = self.scope.trailer(&self.name, head.version).await?;
            head.sha256 = Some(trailer.metadata.sha256.clone());
            head.deleted = Some(trailer.is_tombstone());
        }
        if self.expects(seen.head.as_ref()) {
            Ok(seen)
        } else {
            Err(Error::Conflict {
                head: seen.head.map(|head| head.version),
            })
        }
    }

    fn expects(&self, head: Option<&Head>) -> bool {
        let version = head.map_or(0, |head| head.version);
        if self.base.is_some_and(|base| base != version) {
            return false;
        }
        match self.expect {
            Expect::Any => true,
            Expect::Absent => head.is_none_or(|head| head.deleted == Some(true)),
            Expect::NeverSaved => head.is_none(),
            Expect::Version(version) => head.is_some_and(|head| head.version == version),
        }
    }

    fn build_trailer(
        &self,
        encoded: &Encoded,
        head: Option<&Head>,
        version: Version,
    ) -> (Bytes, Info) {
        let (trailer, metadata) = encoded.build_trailer(&TrailerFields {
            agent: self.scope.agent().as_str(),
            session: self.scope.session().map(Name::as_str),
            name: self.name.as_str(),
            version,
            parent: head.map(|head| head.version),
            parent_sha256: head.and_then(|head| head.sha256.clone()),
            created_at: self.created_at.unwrap_or_else(clock::unix_millis),
            media_type: self.media_type.as_deref(),
            labels: &self.labels,
            nonce: &self.nonce,
        });
        let stored_size = encoded.member_len() + trailer.len() as u64;
        let info = metadata.into_info(encoded.is_tombstone(), stored_size);
        (trailer, info)
    }

    /// Returns true if the version that was to be made on `base` is ours. False: it is certain that
    /// it is not, and that nothing was made.
    async fn resolve(
        &self,
        answer: storage::Result<()>,
        base: &HeadObservation,
        info: &Info,
        began: Moment,
    ) -> Result<bool> {
        let heads = self.heads();
        let dir = self.dir();
        let resolved = match self.is_ours(answer, info).await {
            Ok(true) => self.check_late(base, info.version).await.map(|()| true),
            resolved => resolved,
        };
        match &resolved {
            Ok(true) => heads.record_created(&dir, Head::from(info), began),
            Ok(false) => heads.invalidate(&dir, info.version),
            Err(_) => heads.mark_uncertain(&dir),
        }
        resolved
    }

    async fn is_ours(&self, answer: storage::Result<()>, info: &Info) -> Result<bool> {
        let version = info.version;
        let unknown = |why: String| Err(Error::UnknownOutcome { version, why });
        let Err(error) = answer else {
            return Ok(true);
        };
        match error.kind() {
            ErrorKind::AlreadyExists => match self.look(info).await {
                Found::Ours => Ok(true),
                Found::Foreign | Found::Nothing | Found::Damaged => Ok(false),
                Found::Unseen(why) => unknown(format!("the version exists; then {why}")),
            },
            ErrorKind::OutcomeUnknown => match self.look(info).await {
                Found::Ours => Ok(true),
                // Only one can be created, and it was not ours.
                Found::Foreign => Ok(false),
                // It may still be on its way: absence proves nothing.
                Found::Nothing | Found::Damaged => unknown(error.to_string()),
                Found::Unseen(why) => unknown(format!("{error}; then {why}")),
            },
            ErrorKind::NotDurable => unknown(error.to_string()),
            _ => Err(error.into()),
        }
    }

    /// After a version was made on a head that was seen too long ago: versions above it may have
    /// come, and the ones below may have been pruned.
    async fn check_late(&self, base: &HeadObservation, version: Version) -> Result<()> {
        if self.heads().is_good(base.since) {
            return Ok(());
        }
        match self.scope.look_up(&self.name).await {
            Ok(seen) if seen.version() == version => Ok(()),
            _ => Err(Error::UnknownOutcome {
                version,
                why: "the change took so long that newer versions may exist".into(),
            }),
        }
    }

    fn heads(&self) -> &HeadCache {
        self.scope.heads()
    }

    /// By which [`HeadCache`] knows the name.
    fn dir(&self) -> String {
        self.scope.dir_of(&self.name)
    }

    /// Looks at the version that this change may have made as `info`.
    async fn look(&self, info: &Info) -> Found {
        match self.scope.trailer(&self.name, info.version).await {
            Ok(trailer) if self.made(&trailer, info) => Found::Ours,
            Ok(_) | Err(Error::Misplaced { .. }) => Found::Foreign,
            Err(error) if error.is_missing_object() => Found::Nothing,
            Err(Error::Corrupt { .. } | Error::Unsupported { .. }) => Found::Damaged,
            // Not even a file: what we make is one.
            Err(Error::Storage(error)) if error.kind() == ErrorKind::Unsupported => Found::Damaged,
            Err(error) => Found::Unseen(error),
        }
    }

    /// Returns whether this change made the version with this trailer. The nonce alone does not
    /// tell: a clone of a virtual machine goes on with the random numbers of its original.
    fn made(&self, trailer: &Trailer, info: &Info) -> bool {
        let metadata = &trailer.metadata;
        metadata.nonce == self.nonce
            && metadata.sha256 == info.sha256
            && metadata.created_at == info.created_at
    }
}

fn after(base: &HeadObservation) -> Result<Version> {
    match base.version() {
        MAX_VERSION => Err(Error::unsupported(format!(
            "the name has the last possible version number, {MAX_VERSION}"
        ))
        .with_hint("fork the name to another name, or purge it")),
        head => Ok(head + 1),
    }
}
