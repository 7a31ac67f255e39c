//! Stored versions as files: reads them byte for byte, and copies them to other stores.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::snapshot::offload::spawn_cpu;
use crate::snapshot::ordered_tasks::OrderedTasks;
use crate::snapshot::read::Object;
use crate::snapshot::setup::policy_name;
use crate::snapshot::shared::{ScopeRef, StoreRef};
use crate::snapshot::{Error, Info, MAX_VERSION, Name, Result, Scope, Store, Version, layout};
use crate::storage::{self, Entry, ErrorKind, Key, List, Pager, Storage};

/// Blocks that are read at once.
const BLOCKS: usize = 8;

/// Files up to this many bytes are created in one call; others are uploaded in pieces.
const SMALL: u64 = 8 << 20;

/// Versions that are copied at the same time. Each needs some pieces of 8 MiB, whatever its size.
const AT_ONCE: usize = 4;

/// The highest version that is copied unless any is: a thousand million saves are left to the name.
const HIGHEST: Version = 9_000_000_000;

/// How far above the newest version of the destination a copied one may be unless any may.
const MAX_AHEAD: Version = 1_000_000;

/// How long it is waited for a version that a server says is there, and does not show.
const PATIENCE: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// The file of one version as it is stored, from front to back, verified. `zcat` prints the state
/// of what this gives.
///
/// Memory: eight blocks of 1 MiB.
#[derive(Debug)]
pub struct RawVersion {
    object: Object,
    key: Key,
    info: Info,
    tail: Bytes,
    next: Part,
}

/// The parts of a file, in order.
#[derive(Debug)]
enum Part {
    Head,
    Block(usize),
    Trailer,
    End,
}

/// How versions are copied to another store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyOptions {
    /// Reads on both sides what is there already, and compares every byte. Otherwise its trailer is
    /// compared, which holds a checksum of every block.
    pub read_data: bool,
    /// Copies a version whatever its number is. Otherwise a number above 9,000,000,000 is refused,
    /// and one more than 1,000,000 above the newest version there: after it, few or no saves would
    /// be left to the name.
    pub any_version: bool,
    /// Changes nothing, and reports [`CopyOutcome::Missing`], [`CopyOutcome::Repairable`] and
    /// [`CopyOutcome::PinMissing`] instead. Of a missing version, the trailer is read here, and
    /// with `read_data` every byte.
    pub dry_run: bool,
    /// Reads every byte as `read_data` does, and replaces each version there that fails
    /// verification with the version here, if every byte of that one is intact. The old bytes are
    /// replaced in one step.
    pub repair: bool,
}

/// The outcome for one version, or one pin, of a name that is copied.
#[derive(Debug)]
#[non_exhaustive]
pub enum CopyOutcome {
    /// The version was made there. It was read back, and every byte is the same.
    Made(Info),
    /// The version was there already, and is the same.
    Same {
        /// The version.
        info: Info,
        /// True where every byte was read on both sides and compared; false where the trailers
        /// were.
        read: bool,
    },
    /// The version is missing there. Reported by a dry run.
    Missing(Info),
    /// The version there failed verification, and was replaced by the intact one. It was read
    /// back, and every byte is the same.
    Repaired(Info),
    /// The version there fails verification, and every byte here is intact. Reported by a dry run.
    Repairable(Info, Error),
    /// Another version has its number there; it was not touched.
    Conflict(Version),
    /// The version cannot be read here, or fails verification, and was not copied.
    Damaged(Version, Error),
    /// The object at the version's key in the destination cannot be read, or fails verification; it
    /// was not touched.
    DamagedThere(Version, Error),
    /// Its number is too high to be copied; see [`CopyOptions::any_version`].
    TooHigh(Version),
    /// The versions or pins of the name cannot be listed here; nothing of it was copied.
    Unlisted(Error),
    /// The versions or pins of the name cannot be listed there; nothing of it was copied.
    UnlistedThere(Error),
    /// The newest version there is newer than all that is here: what is the newest there is not
    /// what is the newest here.
    DestinationNewer(Version),
    /// The version is there alone.
    OnlyThere(Version),
    /// The version is pinned there alone.
    PinOnlyThere(Version),
    /// The pin is missing there. Reported by a dry run.
    PinMissing(Version),
    /// The version is pinned here alone: it is not there to be pinned, or the pin could not be
    /// made.
    PinOnlyHere(Version),
}

impl Scope {
    /// Opens the file of a version as it is stored, to copy or to keep elsewhere. A tombstone has
    /// one, too.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such version; [`Error::Corrupt`]; [`Error::Storage`].
    pub async fn stored(&self, name: &str, version: Version) -> Result<RawVersion> {
        self.inner.stored(&Name::new(name)?, version).await
    }

    /// Copies every version of `name`, byte for byte, to the same address in another store,
    /// beginning with the oldest, tombstones and pins too. `each` is told of each version, in
    /// ascending order. What was made is read back, and its bytes are compared.
    ///
    /// Existing versions of the destination are compared as `options` say, and never touched; so a
    /// copy that was cut short can be made again, and does only what is left. What cannot be read
    /// is told and left out. What is saved here meanwhile is not copied. No host may save under
    /// that name over there meanwhile, nor go on from a head that it knew before: a save into a gap
    /// of the history would be acknowledged below what is copied above it.
    ///
    /// # Errors
    /// [`Error::Storage`] where a storage fails, and not one entry of it; [`Error::Unsupported`]
    /// where `to` does not keep its word, or has a later format.
    pub async fn copy_to(
        &self,
        name: &str,
        to: &Store,
        options: CopyOptions,
        each: impl FnMut(CopyOutcome),
    ) -> Result<()> {
        let name = Name::new(name)?;
        self.inner.copy_to(&name, &to.inner, options, each).await
    }

    /// Copies one version, as [`Scope::copy_to`] does with the same options. None: it does not
    /// exist here.
    ///
    /// # Errors
    /// Errors of [`Scope::copy_to`].
    pub async fn copy_version_to(
        &self,
        name: &str,
        version: Version,
        to: &Store,
        options: CopyOptions,
    ) -> Result<Option<CopyOutcome>> {
        let name = Name::new(name)?;
        let inner = &self.inner;
        inner
            .copy_version_to(&name, version, &to.inner, options)
            .await
    }

    /// Removes versions and their pins, in the order that they are given, whatever keeps them from
    /// being pruned. For a store that is a copy of another one.
    ///
    /// Only where every host of the store is stopped, as for [`Scope::prune_with_hosts_stopped`].
    ///
    /// # Errors
    /// [`Error::Storage`]. What was removed before stays removed.
    pub async fn remove_with_hosts_stopped(&self, name: &str, versions: &[Version]) -> Result<()> {
        let name = Name::new(name)?;
        self.inner.remove_versions(&name, versions).await
    }
}

impl Store {
    /// Opens the file of the newest policy as it is stored, to keep it elsewhere; none where the
    /// store has no policy.
    ///
    /// # Errors
    /// Errors of [`Scope::stored`].
    pub async fn stored_policy(&self) -> Result<Option<RawVersion>> {
        let scope = self.inner.policy_scope();
        let name = policy_name();
        match scope.head(&name).await? {
            Some(head) => scope.stored(&name, head.version).await.map(Some),
            None => Ok(None),
        }
    }
}

impl ScopeRef {
    /// Opens the file of a version as it is stored.
    pub(crate) async fn stored(&self, name: &Name, version: Version) -> Result<RawVersion> {
        match self.open(name, Some(version)).await? {
            Some((version, object)) => RawVersion::new(self, name, version, object),
            None => Err(self.missing(name, Some(version))),
        }
    }

    /// Copies every version of `name` to the same address in another store.
    pub(crate) async fn copy_to(
        &self,
        name: &Name,
        to: &StoreRef,
        options: CopyOptions,
        mut each: impl FnMut(CopyOutcome),
    ) -> Result<()> {
        let to = Self {
            store: to.clone(),
            ..self.clone()
        };
        let versions = match self.versions_and_strays(name).await {
            Err(error) if self.store.is_of_one_place(&error).await => {
                each(CopyOutcome::Unlisted(error));
                return Ok(());
            }
            versions => versions?,
        };
        // Descending, as are ours.
        let there = match to.all_versions(name).await {
            Err(error) if to.store.is_of_one_place(&error).await => {
                each(CopyOutcome::UnlistedThere(error));
                return Ok(());
            }
            there => there?,
        };
        let highest = if options.any_version {
            MAX_VERSION
        } else {
            highest(there.first().copied())
        };
        let mut same = BTreeSet::new();
        let mut tell = |copied: CopyOutcome| {
            if let CopyOutcome::Made(info)
            | CopyOutcome::Same { info, .. }
            | CopyOutcome::Repaired(info)
            | CopyOutcome::Missing(info)
            | CopyOutcome::Repairable(info, _) = &copied
            {
                same.insert(info.version);
            }
            each(copied);
        };
        let mut too_high = Vec::new();
        let mut copies = OrderedTasks::new(AT_ONCE);
        for &version in versions.iter().rev() {
            let is_there = there.binary_search_by(|other| version.cmp(other)).is_ok();
            if !is_there && version > highest {
                too_high.push(version);
                continue;
            }
            if !is_there && !options.dry_run {
                to.prepare_change().await?;
            }
            let copy = CopyOf {
                from: self.clone(),
                to: to.clone(),
                name: name.clone(),
                version,
                is_there,
                options,
            };
            if let Some(Some(copied)) = copies.push(copy.run()).await? {
                tell(copied);
            }
        }
        while let Some(copied) = copies.next().await? {
            if let Some(copied) = copied {
                tell(copied);
            }
        }
        too_high
            .into_iter()
            .map(CopyOutcome::TooHigh)
            .for_each(&mut tell);
        for &version in there.iter().rev() {
            if versions
                .binary_search_by(|other| version.cmp(other))
                .is_err()
            {
                tell(CopyOutcome::OnlyThere(version));
            }
        }
        if let Some(&newest) = there
            .first()
            .filter(|newest| Some(*newest) > versions.first())
        {
            tell(CopyOutcome::DestinationNewer(newest));
        }
        self.copy_pins(name, &to, &same, options, each).await
    }

    /// Copies one version to the same address in another store.
    async fn copy_version_to(
        &self,
        name: &Name,
        version: Version,
        to: &StoreRef,
        options: CopyOptions,
    ) -> Result<Option<CopyOutcome>> {
        let to = Self {
            store: to.clone(),
            ..self.clone()
        };
        let is_there = match to.object_of_any(name, version).await {
            Err(error) if error.is_missing_object() => false,
            Err(error) if to.store.is_of_one_place(&error).await => true,
            there => there.map(|_| true)?,
        };
        if !is_there && !options.any_version {
            let newest = to.head(name).await?.map(|head| head.version);
            if version > highest(newest) {
                return Ok(Some(CopyOutcome::TooHigh(version)));
            }
        }
        if !is_there && !options.dry_run {
            to.prepare_change().await?;
        }
        let copy = CopyOf {
            from: self.clone(),
            to,
            name: name.clone(),
            version,
            is_there,
            options,
        };
        copy.run().await
    }

    /// Removes versions and their pins, in this order.
    async fn remove_versions(&self, name: &Name, versions: &[Version]) -> Result<()> {
        self.prepare_change().await?;
        for &version in versions {
            self.storage().delete(&self.key(name, version)?).await?;
            self.storage().delete(&self.pin_key(name, version)?).await?;
        }
        self.heads().mark_uncertain(&self.dir_of(name));
        Ok(())
    }

    /// Pins there what is pinned here, of the versions that are the same.
    async fn copy_pins(
        &self,
        name: &Name,
        to: &Self,
        same: &BTreeSet<Version>,
        options: CopyOptions,
        mut each: impl FnMut(CopyOutcome),
    ) -> Result<()> {
        let here = self.pinned(name).await?;
        let there = to.pinned(name).await?;
        for &pin in here.iter().filter(|pin| !there.contains(pin)) {
            if !same.contains(&pin) {
                each(CopyOutcome::PinOnlyHere(pin));
                continue;
            }
            if options.dry_run {
                each(CopyOutcome::PinMissing(pin));
                continue;
            }
            match to.pin(name, pin).await {
                Ok(()) => {}
                // The version was pruned, or could not be copied.
                Err(Error::NotFound(_)) => each(CopyOutcome::PinOnlyHere(pin)),
                Err(error) if to.store.is_of_one_place(&error).await => {
                    each(CopyOutcome::PinOnlyHere(pin));
                }
                Err(error) => return Err(error),
            }
        }
        for &pin in there.iter().filter(|pin| !here.contains(pin)) {
            each(CopyOutcome::PinOnlyThere(pin));
        }
        Ok(())
    }

    /// Every version of a name, newest first, with those in whose place a directory lies.
    async fn versions_and_strays(&self, name: &Name) -> Result<Vec<Version>> {
        let mut versions = Vec::new();
        let mut strays = Vec::new();
        self.list_all(name, |entry| match entry {
            Entry::Object(object) => versions.extend(layout::parse_version(&object.name)),
            Entry::Dir(dir) => strays.extend(layout::parse_version(dir)),
        })
        .await?;
        let empty = self.storage().empty_dirs(&self.dir_of(name)).await?;
        strays.extend(empty.iter().filter_map(|dir| layout::parse_version(dir)));
        versions.append(&mut strays);
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.dedup();
        Ok(versions)
    }

    /// Every version of a name, newest first. 8 bytes for each are held.
    async fn all_versions(&self, name: &Name) -> Result<Vec<Version>> {
        let mut versions = Vec::new();
        self.list_all(name, |entry| match entry {
            Entry::Object(object) => versions.extend(layout::parse_version(&object.name)),
            Entry::Dir(_) => {}
        })
        .await?;
        Ok(versions)
    }

    async fn list_all(&self, name: &Name, mut each: impl FnMut(&Entry)) -> Result<()> {
        let dir = self.dir_of(name);
        let mut pages = Pager::new(self.storage(), List::new(&dir));
        while let Some(page) = pages.next().await? {
            page.entries.iter().for_each(&mut each);
        }
        Ok(())
    }
}

impl RawVersion {
    fn new(scope: &ScopeRef, name: &Name, version: Version, object: Object) -> Result<Self> {
        Ok(Self {
            key: scope.key(name, version)?,
            info: object.trailer.info(name.as_str(), version),
            object,
            tail: Bytes::new(),
            next: Part::Head,
        })
    }

    /// Returns the information about the version; `stored_size` is the number of bytes that
    /// [`RawVersion::next`] gives.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The key that it has in every store.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The next bytes of the file, verified; none at its end.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where what is stored is not what was saved; [`Error::NotFound`] where the
    /// version was pruned meanwhile; [`Error::Storage`].
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let blocks = self.object.trailer.blocks();
        let piece = match self.next {
            Part::Head => {
                let (head, tail) = self.object.frame().await?;
                self.tail = tail;
                self.next = Part::Block(0);
                head
            }
            Part::Block(first) if first < blocks => {
                let end = blocks.min(first + BLOCKS);
                self.next = Part::Block(end);
                self.blocks(first, end).await?
            }
            Part::Block(_) => {
                self.next = Part::Trailer;
                std::mem::take(&mut self.tail)
            }
            Part::Trailer => {
                self.next = Part::End;
                trailer(&self.object).await?
            }
            Part::End => return Ok(None),
        };
        Ok(Some(piece))
    }

    async fn blocks(&self, first: usize, end: usize) -> Result<Bytes> {
        let trailer = &self.object.trailer;
        let stored = trailer.stored(first..end);
        let bytes = self.object.bytes(stored).await?;
        let sound = trailer.verify_blocks(first..end, &bytes);
        sound.map_err(|error| error.at(&self.key))?;
        Ok(bytes)
    }
}

/// The highest number that is copied where `newest` is the newest version there.
fn highest(newest: Option<Version>) -> Version {
    match newest {
        Some(newest) => HIGHEST.min(newest.saturating_add(MAX_AHEAD)),
        None => HIGHEST,
    }
}

/// One version that is to be copied.
struct CopyOf {
    from: ScopeRef,
    to: ScopeRef,
    name: Name,
    version: Version,
    /// True where the destination listed it before.
    is_there: bool,
    options: CopyOptions,
}

/// The side that an error of a copy came from.
enum Failed {
    Here(Error),
    There(storage::Error),
}

type Digest = [u8; 32];

impl CopyOf {
    /// Copies the version and reads it back. None: it was pruned here since it was listed.
    async fn run(self) -> Result<Option<CopyOutcome>> {
        let Self {
            from,
            to,
            name,
            version,
            ..
        } = &self;
        let version = *version;
        let object = match from.object(name, version).await {
            Err(error) if error.is_missing_object() => return Ok(None),
            Err(error) => return self.damaged(error).await.map(Some),
            Ok(object) => object,
        };
        let expected = trailer(&object).await?;
        let mut stored = RawVersion::new(from, name, version, object)?;
        let info = stored.info.clone();
        if self.options.dry_run && !self.is_there {
            if self.options.read_data {
                match self.digest_here().await {
                    Err(Error::NotFound(_)) => return Ok(None),
                    Err(error) => return self.damaged(error).await.map(Some),
                    Ok(_) => {}
                }
            }
            return Ok(Some(CopyOutcome::Missing(info)));
        }
        let mut sent = None;
        let mut unclear = None;
        if !self.is_there {
            match send(&mut stored, to.storage()).await {
                Ok(digest) => sent = Some(digest),
                Err(Failed::Here(Error::NotFound(_))) => return Ok(None),
                Err(Failed::Here(error)) => return self.damaged(error).await.map(Some),
                // Our own whose answer was lost, or another's: it is looked at.
                Err(Failed::There(error))
                    if [ErrorKind::AlreadyExists, ErrorKind::OutcomeUnknown]
                        .contains(&error.kind()) =>
                {
                    unclear = Some(error);
                }
                Err(Failed::There(error)) => {
                    return self.damaged_there(error.into()).await.map(Some);
                }
            }
        }
        let there = match look(to, name, version, unclear.is_some()).await {
            Ok(there) => there,
            Err(error) if error.is_missing_object() => {
                return Err(unclear.map_or(error, Error::Storage));
            }
            Err(error) => return self.damaged_there_or_repaired(info, error).await,
        };
        if trailer(&there).await? != expected {
            return Ok(Some(CopyOutcome::Conflict(version)));
        }
        let read = self.options.read_data || self.options.repair || !self.is_there;
        if read {
            let here = match sent {
                Some(digest) => digest,
                // What was sent was not what is there now, or nothing was sent.
                None => match self.digest_here().await {
                    Err(Error::NotFound(_)) => return Ok(None),
                    Err(error) => return self.damaged(error).await.map(Some),
                    Ok(digest) => digest,
                },
            };
            let mut there = RawVersion::new(to, name, version, there)?;
            match digest_of(&mut there).await {
                Ok(digest) if digest == here => {}
                Ok(_) => {
                    let error = Error::corrupt("its bytes differ from the source");
                    let error = error.at(there.key());
                    return self.damaged_there_or_repaired(info, error).await;
                }
                Err(error) => return self.damaged_there_or_repaired(info, error).await,
            }
        }
        Ok(Some(match sent {
            Some(_) => CopyOutcome::Made(info),
            None => CopyOutcome::Same { info, read },
        }))
    }

    /// The outcome for a version that cannot be read there: it is replaced where the options say
    /// so, its file is corrupt, and every byte here is intact.
    ///
    /// Only a corrupt file is replaced. One that was saved as another version may be the last copy
    /// of that version, and one of a later format can be intact.
    async fn damaged_there_or_repaired(
        &self,
        info: Info,
        error: Error,
    ) -> Result<Option<CopyOutcome>> {
        // What this process sent a moment ago, and was not stored so, would not be stored now.
        let is_repairable =
            self.options.repair && self.is_there && matches!(error, Error::Corrupt { .. });
        if !is_repairable {
            return self.damaged_there(error).await.map(Some);
        }
        let expected = match self.digest_here().await {
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return self.damaged(error).await.map(Some),
            Ok(digest) => digest,
        };
        if self.options.dry_run {
            return Ok(Some(CopyOutcome::Repairable(info, error)));
        }
        self.to.prepare_change().await?;
        let mut stored = match self.from.object(&self.name, self.version).await {
            Err(error) if error.is_missing_object() => return Ok(None),
            Err(error) => return self.damaged(error).await.map(Some),
            Ok(object) => RawVersion::new(&self.from, &self.name, self.version, object)?,
        };
        match send_over(&mut stored, expected, self.to.storage()).await {
            Ok(()) => {}
            Err(Failed::Here(Error::NotFound(_))) => return Ok(None),
            Err(Failed::Here(error)) => return self.damaged(error).await.map(Some),
            Err(Failed::There(error)) => return self.damaged_there(error.into()).await.map(Some),
        }
        match self.digest_there().await {
            Ok(digest) if digest == expected => Ok(Some(CopyOutcome::Repaired(info))),
            Ok(_) => {
                let error = Error::corrupt("its bytes differ from the source after the repair");
                let error = error.at(stored.key());
                Ok(Some(CopyOutcome::DamagedThere(self.version, error)))
            }
            Err(error) => self.damaged_there(error).await.map(Some),
        }
    }

    async fn digest_there(&self) -> Result<Digest> {
        let object = look(&self.to, &self.name, self.version, true).await?;
        let mut there = RawVersion::new(&self.to, &self.name, self.version, object)?;
        digest_of(&mut there).await
    }

    async fn digest_here(&self) -> Result<Digest> {
        let object = self.from.object(&self.name, self.version).await;
        let object = match object {
            Err(error) if error.is_missing_object() => {
                return Err(self.from.missing(&self.name, Some(self.version)));
            }
            object => object?,
        };
        let mut stored = RawVersion::new(&self.from, &self.name, self.version, object)?;
        digest_of(&mut stored).await
    }

    /// The outcome where the version cannot be read here; an error where the storage fails.
    async fn damaged(&self, error: Error) -> Result<CopyOutcome> {
        if self.from.store.is_of_one_place(&error).await {
            return Ok(CopyOutcome::Damaged(self.version, error));
        }
        Err(error)
    }

    /// The outcome where the version cannot be made or read there; an error where the storage
    /// fails.
    async fn damaged_there(&self, error: Error) -> Result<CopyOutcome> {
        if self.to.store.is_of_one_place(&error).await {
            return Ok(CopyOutcome::DamagedThere(self.version, error));
        }
        Err(error)
    }
}

/// The version as it is there. Where it is `announced`, another copy may be making it at this
/// moment, and a server may have said so before it can be read.
async fn look(to: &ScopeRef, name: &Name, version: Version, announced: bool) -> Result<Object> {
    for wait in PATIENCE {
        match to.object(name, version).await {
            Err(error) if announced && error.is_missing_object() => {}
            looked => return looked,
        }
        // The caller's runtime may have no timer when it copies on a local disk.
        let _ = tokio::task::spawn_blocking(move || std::thread::sleep(wait)).await;
    }
    to.object(name, version).await
}

/// Sends a file, and returns the hash of the bytes that were sent.
async fn send(stored: &mut RawVersion, to: &dyn Storage) -> std::result::Result<Digest, Failed> {
    let key = stored.key.clone();
    let mut hash = Sha256::new();
    if stored.info.stored_size <= SMALL {
        let mut body = Vec::new();
        while let Some(piece) = stored.next().await.map_err(Failed::Here)? {
            hash = hashed(hash, &piece).await.map_err(Failed::Here)?;
            body.push(piece);
        }
        to.create(&key, body).await.map_err(Failed::There)?;
        return Ok(hash.finalize().into());
    }
    let mut upload = to.upload(&key).await.map_err(Failed::There)?;
    while let Some(piece) = stored.next().await.map_err(Failed::Here)? {
        hash = hashed(hash, &piece).await.map_err(Failed::Here)?;
        upload.write(piece).await.map_err(Failed::There)?;
    }
    upload.finish().await.map_err(Failed::There)?;
    Ok(hash.finalize().into())
}

/// Sends a file to replace the one at its key, if the bytes that were sent have this hash.
async fn send_over(
    stored: &mut RawVersion,
    expected: Digest,
    to: &dyn Storage,
) -> std::result::Result<(), Failed> {
    let mut upload = to.replace(&stored.key).await.map_err(Failed::There)?;
    let mut hash = Sha256::new();
    while let Some(piece) = stored.next().await.map_err(Failed::Here)? {
        hash = hashed(hash, &piece).await.map_err(Failed::Here)?;
        upload.write(piece).await.map_err(Failed::There)?;
    }
    if Digest::from(hash.finalize()) != expected {
        let error = Error::corrupt("its bytes changed while they were read");
        return Err(Failed::Here(error.at(&stored.key)));
    }
    upload.finish().await.map_err(Failed::There)
}

/// Reads a file to its end, verified, and returns the hash of its bytes.
async fn digest_of(stored: &mut RawVersion) -> Result<Digest> {
    let mut hash = Sha256::new();
    while let Some(piece) = stored.next().await? {
        hash = hashed(hash, &piece).await?;
    }
    Ok(hash.finalize().into())
}

async fn hashed(hash: Sha256, piece: &Bytes) -> Result<Sha256> {
    let piece = piece.clone();
    spawn_cpu(piece.len() as u64, move || Ok(hash.chain_update(&piece))).await
}

/// All that a file says of itself, which covers every byte before it.
async fn trailer(object: &Object) -> Result<Bytes> {
    let footer = object.trailer.footer;
    object.bytes(footer.member..footer.object).await
}
