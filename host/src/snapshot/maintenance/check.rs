//! Looks at everything that is in a store, and says what is wrong with it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::snapshot::layout::{
    ARCHIVE_MANIFEST, NO_SESSION, OWN_DIR, STORE_HEADER_NAME, TEMPORARY_NAME,
};
use crate::snapshot::ordered_tasks::OrderedTasks;
use crate::snapshot::shared::{ScopeRef, StoreRef, check};
use crate::snapshot::walk::{Selection, Walk};
use crate::snapshot::{Error, Name, Result, Scope, Store, Version, layout};
use crate::storage::{
    Entry, ErrorKind, Key, List, Page, Pager, ReadRange, RecursiveList, Sweep, Swept,
};

/// Versions that are looked at together.
const AT_ONCE: usize = 8;

/// Finding of a probe that was not removed.
const LEFT_PROBE: &str = "probe of a process that was killed; `persist gc` removes it";

/// Younger files may belong to saves that are still under way.
const LONG_AGO: Duration = Duration::from_secs(24 * 60 * 60);

/// Of which versions a check reads every byte. Of the others it reads and verifies the trailer:
/// the metadata of the version, and the length of its file.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum ReadData {
    /// Of none.
    #[default]
    None,
    /// Of this share of them, from 0 to 1, chosen at random.
    Sample(f64),
    /// Of all.
    All,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Nothing is wrong; it takes some space.
    Note,
    /// Nothing is lost. An operator should look at it.
    Warning,
    /// The account that runs the check may not look at it.
    Denied,
    /// A state cannot be loaded.
    Damage,
}

impl Severity {
    /// Names the severity, as reports write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Denied => "denied",
            Self::Damage => "damage",
        }
    }
}

/// Kind of problem that a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// It is not what was saved.
    Corrupt,
    /// The storage lists it, and does not give it.
    Unreadable,
    /// The storage refuses to give it to the account that runs the check.
    Denied,
    /// It lies where a version, a pin or a directory of the store belongs: nothing can be saved
    /// there.
    InTheWay,
    /// It is of a format that this build does not read.
    Unsupported,
    /// Its file was saved as another version, or under another name.
    Misplaced,
    /// Something that Persist did not put there.
    Foreign,
    /// A pin of a version that is not there.
    DanglingPin,
    /// Nothing says what kind of store this is.
    MissingStoreHeader,
    /// Left by a process that was killed.
    Leftover,
    /// Uploads that killed processes may have left: the server cannot list them.
    UnlistedUploads,
}

/// Something that a check found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// Kind of the finding.
    pub kind: FindingKind,
    /// The key of the object, or of the directory, under the top of the store.
    pub key: String,
    /// Whose version it is, where it is one.
    pub version: Option<(Scope, Name, Version)>,
    /// Description of what was found, for people.
    pub what: String,
}

/// Summary of what a check went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckSummary {
    /// Names with at least one version.
    pub names: u64,
    /// Versions, tombstones too.
    pub versions: u64,
    /// Versions of which every byte was read.
    pub read: u64,
    /// Bytes at rest of the versions that can be read.
    pub bytes: u64,
    /// Findings.
    pub findings: u64,
}

impl FindingKind {
    /// How bad it is.
    pub fn severity(self) -> Severity {
        match self {
            Self::Corrupt
            | Self::Unreadable
            | Self::InTheWay
            | Self::Unsupported
            | Self::Misplaced => Severity::Damage,
            Self::Denied => Severity::Denied,
            Self::Foreign | Self::MissingStoreHeader => Severity::Warning,
            Self::DanglingPin | Self::Leftover | Self::UnlistedUploads => Severity::Note,
        }
    }

    /// Returns the kind as it is written for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Corrupt => "corrupt",
            Self::Unreadable => "unreadable",
            Self::Denied => "permission-denied",
            Self::InTheWay => "in-the-way",
            Self::Unsupported => "unsupported",
            Self::Misplaced => "misplaced",
            Self::Foreign => "foreign",
            Self::DanglingPin => "dangling-pin",
            Self::MissingStoreHeader => "missing-store-header",
            Self::Leftover => "leftover",
            Self::UnlistedUploads => "unlisted-uploads",
        }
    }
}

impl Store {
    /// Returns true if a store exists: something was saved in it once. Refuses one that this build
    /// cannot understand.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it is of a later format; [`Error::Corrupt`];
    /// [`Error::Storage`].
    pub async fn is_there(&self) -> Result<bool> {
        check(self.inner.storage()).await
    }

    /// Looks at every object of `selection`. `each` is told what was gone through so far, after
    /// every version, and of each finding. What is saved or pruned meanwhile is no finding. What
    /// cannot be listed or read is one, and the rest is looked at all the same.
    ///
    /// Cost: a list for each directory, and for each version a read of its trailer, or of all of
    /// it.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Unsupported`] where the store is of a later format.
    pub async fn check(
        &self,
        selection: &Selection,
        read: ReadData,
        each: impl FnMut(&CheckSummary, Option<&Finding>),
    ) -> Result<CheckSummary> {
        let mut check = Check {
            store: &self.inner,
            read,
            each,
            checked: CheckSummary::default(),
        };
        let has_header = check.store_header().await?;
        match selection.clone() {
            Selection::All => check.top().await?,
            Selection::Agent(agent) => check.agent(&agent).await?,
            Selection::Session(agent, session) => check.scope(&agent, session).await?,
            Selection::Name(agent, session, name) => {
                check.name(self.inner.scope(&agent, session), name).await?;
            }
            Selection::Matching(_) => check.names(self.walk(selection)).await?,
        }
        if !has_header && check.checked.versions > 0 {
            let key = layout::STORE_HEADER.to_owned();
            let what = "missing; the next save creates it again";
            check.found(FindingKind::MissingStoreHeader, key, what);
        }
        Ok(check.checked)
    }

    /// Looks at single versions, as [`Store::check`] looks at those of a selection. Versions of one
    /// name are to follow each other.
    ///
    /// # Errors
    /// Errors of [`Store::check`]; [`Error::Invalid`] where a version cannot exist.
    pub async fn check_versions(
        &self,
        versions: impl IntoIterator<Item = (Scope, Name, Version)>,
        read: ReadData,
        each: impl FnMut(&CheckSummary, Option<&Finding>),
    ) -> Result<CheckSummary> {
        let mut check = Check {
            store: &self.inner,
            read,
            each,
            checked: CheckSummary::default(),
        };
        check.store_header().await?;
        let mut last = None;
        for (scope, name, version) in versions {
            let dir = scope.inner.dir_of(&name);
            let looked = look(scope.inner, name, version, check.reads()).await?;
            check.checked.names += u64::from(looked.is_some() && last.as_ref() != Some(&dir));
            check.looked(looked);
            last = Some(dir);
        }
        Ok(check.checked)
    }

    /// Returns true where `error` is of one object or directory alone: the store still lists what
    /// it has.
    pub async fn is_of_one_place(&self, error: &Error) -> bool {
        self.inner.is_of_one_place(error).await
    }
}

struct Check<'a, F> {
    store: &'a StoreRef,
    read: ReadData,
    each: F,
    checked: CheckSummary,
}

/// Facts that were learned about one version.
struct Looked {
    key: String,
    at: (Scope, Name, Version),
    read: bool,
    bytes: u64,
    found: Option<(FindingKind, String)>,
}

impl<'a, F: FnMut(&CheckSummary, Option<&Finding>)> Check<'a, F> {
    /// Checks that the store states its kind; a store of a later format is not checked further.
    async fn store_header(&mut self) -> Result<bool> {
        match check(self.store.storage()).await {
            Err(Error::Corrupt { what, object }) => {
                let key = layout::STORE_HEADER.to_owned();
                let place = object.unwrap_or_default();
                self.found(FindingKind::Corrupt, key, &format!("{what} ({place})"));
                Ok(true)
            }
            // Not even a file.
            Err(Error::Storage(error)) if error.kind() == ErrorKind::Unsupported => {
                let key = layout::STORE_HEADER.to_owned();
                self.found(FindingKind::InTheWay, key, &error.to_string());
                Ok(true)
            }
            there => there,
        }
    }

    async fn top(&mut self) -> Result<()> {
        let mut entries = self.entries("");
        while let Some(entry) = self.next_of(&mut entries).await? {
            match &entry {
                Entry::Dir(dir) if dir == OWN_DIR => self.own().await?,
                Entry::Dir(dir) => match Name::from_encoded(dir) {
                    Some(agent) => self.agent(&agent).await?,
                    None => self.foreign("", &entry),
                },
                Entry::Object(object) if object.name == ARCHIVE_MANIFEST => {
                    let what = "left by an unpacked archive; it can be removed";
                    self.found(FindingKind::Leftover, ARCHIVE_MANIFEST.into(), what);
                }
                Entry::Object(_) => self.file_at_a_directory("", &entry).await?,
            }
        }
        self.leftovers().await;
        Ok(())
    }

    /// Checks names, and nothing that lies beside them.
    async fn names(&mut self, mut walk: Walk) -> Result<()> {
        loop {
            match walk.next().await {
                Ok(Some((scope, name))) => self.name(scope.inner, name).await?,
                Ok(None) => return Ok(()),
                Err(error) if self.store.is_of_one_place(&error).await => {
                    self.found(kind_of(&error), String::new(), &error.to_string());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn entries<'d>(&self, dir: &'d str) -> Entries<'d>
    where
        'a: 'd,
    {
        Entries {
            dir,
            page: VecDeque::new(),
            pages: Pager::new(self.store.storage(), List::new(dir)),
        }
    }

    /// The next entry. A directory that cannot be listed is a finding, and ends there.
    async fn next_of(&mut self, entries: &mut Entries<'_>) -> Result<Option<Entry>> {
        let error = match entries.next().await {
            Err(Error::Storage(error)) if !entries.dir.is_empty() => Error::Storage(error),
            entry => return entry,
        };
        if !self.store.is_of_one_place(&error).await {
            return Err(error);
        }
        entries.pages.stop();
        self.found(kind_of(&error), entries.dir.to_owned(), &error.to_string());
        Ok(None)
    }

    /// Tells of a file where a directory of the store belongs. On a disk, nothing can be saved
    /// below its name.
    async fn file_at_a_directory(&mut self, dir: &str, entry: &Entry) -> Result<()> {
        let name = entry.name();
        let key = key_of(dir, name);
        if name != NO_SESSION && Name::from_encoded(name).is_none() {
            self.foreign(dir, entry);
            return Ok(());
        }
        let below = Key::new(key_of(&key, NO_SESSION))?;
        let what = "not a directory, so nothing can be saved under this name";
        self.blocks(dir, entry, &below, what).await
    }

    /// Tells of a directory where a version or a pin belongs. In a bucket, it is not in the way.
    async fn directory_at_a_file(&mut self, dir: &str, entry: &Entry) -> Result<()> {
        let name = entry.name();
        if layout::parse_version(name).is_none() && layout::parse_pin(name).is_none() {
            self.foreign(dir, entry);
            return Ok(());
        }
        let key = Key::new(key_of(dir, name))?;
        let what = "a directory instead of a version or pin, so nothing can be saved there";
        self.blocks(dir, entry, &key, what).await
    }

    /// Tells whether an entry of the wrong kind keeps `key` from being used, as the storage itself
    /// says.
    async fn blocks(&mut self, dir: &str, entry: &Entry, key: &Key, what: &str) -> Result<()> {
        let read = self
            .store
            .shared
            .storage
            .read(key, ReadRange::Suffix(1))
            .await;
        match read {
            Ok(_) => self.foreign(dir, entry),
            Err(error) if error.kind() == ErrorKind::NotFound => self.foreign(dir, entry),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.found(FindingKind::InTheWay, key_of(dir, entry.name()), what);
            }
            Err(error) => {
                let error = Error::Storage(error);
                if !self.store.is_of_one_place(&error).await {
                    return Err(error);
                }
                let key = key_of(dir, entry.name());
                self.found(kind_of(&error), key, &error.to_string());
            }
        }
        Ok(())
    }

    /// Reports what unfinished saves left behind, long ago. An account that may not look for it
    /// gets no report of it.
    async fn leftovers(&mut self) {
        let storage = &self.store.shared.storage;
        let sweep = Sweep {
            older_than: LONG_AGO,
            dry_run: true,
            probe: false,
            is_ours: &layout::is_of_store,
        };
        let swept = storage.sweep(&sweep).await;
        let Ok(Swept {
            removed,
            bytes,
            unlisted,
            ..
        }) = swept
        else {
            return;
        };
        if removed > 0 {
            let what = format!("unfinished saves, {bytes} bytes; `persist gc` removes them");
            self.found(FindingKind::Leftover, OWN_DIR.into(), &what);
        }
        if let Some(why) = unlisted {
            let what = format!(
                "unfinished uploads cannot be listed: {why}; add a lifecycle rule that aborts \
                 incomplete uploads"
            );
            self.found(FindingKind::UnlistedUploads, OWN_DIR.into(), &what);
        }
    }

    /// Checks the store's own objects. Files that are being written on a local disk belong to that
    /// disk, and show as a directory.
    async fn own(&mut self) -> Result<()> {
        let mut entries = self.entries(OWN_DIR);
        while let Some(entry) = self.next_of(&mut entries).await? {
            match &entry {
                Entry::Object(object) if object.name == STORE_HEADER_NAME => {}
                Entry::Object(object) if layout::is_transient(&object.name) => {
                    let key = key_of(OWN_DIR, &object.name);
                    self.found(FindingKind::Leftover, key, LEFT_PROBE);
                }
                Entry::Object(object) if object.name.starts_with(layout::PROBE_RECORD_PREFIX) => {}
                Entry::Object(object) if object.name == TEMPORARY_NAME => {
                    self.file_at_a_directory(OWN_DIR, &entry).await?;
                }
                Entry::Object(_) => self.foreign(OWN_DIR, &entry),
                Entry::Dir(dir) if dir.starts_with(layout::PROBE_PREFIX) => {
                    self.probe(&key_of(OWN_DIR, dir)).await?;
                }
                Entry::Dir(_) => {}
            }
        }
        Ok(())
    }

    /// Tells of the objects of a probe. A server may show their directory for a while after they
    /// were deleted.
    async fn probe(&mut self, dir: &str) -> Result<()> {
        let list = RecursiveList {
            limit: 1,
            ..RecursiveList::new(dir)
        };
        let page = self.store.shared.storage.list_recursive(&list).await?;
        if !page.objects.is_empty() {
            self.found(FindingKind::Leftover, dir.into(), LEFT_PROBE);
        }
        Ok(())
    }

    async fn agent(&mut self, agent: &Name) -> Result<()> {
        let dir = agent.encoded();
        let mut entries = self.entries(dir);
        while let Some(entry) = self.next_of(&mut entries).await? {
            match &entry {
                Entry::Dir(name) if name == NO_SESSION => self.scope(agent, None).await?,
                Entry::Dir(name) => match Name::from_encoded(name) {
                    Some(session) => self.scope(agent, Some(session)).await?,
                    None => self.foreign(dir, &entry),
                },
                Entry::Object(_) => self.file_at_a_directory(dir, &entry).await?,
            }
        }
        Ok(())
    }

    async fn scope(&mut self, agent: &Name, session: Option<Name>) -> Result<()> {
        let scope = self.store.scope(agent, session);
        let dir = scope.dir();
        let mut entries = self.entries(&dir);
        while let Some(entry) = self.next_of(&mut entries).await? {
            match &entry {
                Entry::Dir(name) => match Name::from_encoded(name) {
                    Some(name) => self.name(scope.clone(), name).await?,
                    None => self.foreign(&dir, &entry),
                },
                Entry::Object(_) => self.file_at_a_directory(&dir, &entry).await?,
            }
        }
        Ok(())
    }

    async fn name(&mut self, scope: ScopeRef, name: Name) -> Result<()> {
        let dir = scope.dir_of(&name);
        let mut versions = BTreeSet::new();
        let mut pins = BTreeSet::new();
        let mut looks = OrderedTasks::new(AT_ONCE);
        let mut entries = self.entries(&dir);
        while let Some(entry) = self.next_of(&mut entries).await? {
            let object = match &entry {
                Entry::Object(object) => object,
                Entry::Dir(_) => {
                    self.directory_at_a_file(&dir, &entry).await?;
                    continue;
                }
            };
            if let Some(version) = layout::parse_version(&object.name) {
                versions.insert(version);
                let look = look(scope.clone(), name.clone(), version, self.reads());
                if let Some(looked) = looks.push(look).await? {
                    self.looked(looked);
                }
            } else if let Some(version) = layout::parse_pin(&object.name) {
                pins.insert(version);
                self.pin(&dir, &entry).await?;
            } else {
                self.foreign(&dir, &entry);
            }
        }
        // A directory without a file in it is not listed, and is in the way all the same.
        for empty in self.empty_dirs(&dir).await? {
            if layout::parse_version(&empty)
                .or(layout::parse_pin(&empty))
                .is_some()
            {
                self.directory_at_a_file(&dir, &Entry::Dir(empty)).await?;
            }
        }
        while let Some(looked) = looks.next().await? {
            self.looked(looked);
        }
        self.checked.names += u64::from(!versions.is_empty());
        for pin in pins.difference(&versions) {
            let key = key_of(&dir, &layout::pin_segment(*pin));
            let what = "pins a version that does not exist";
            self.found(FindingKind::DanglingPin, key, what);
        }
        Ok(())
    }

    /// Tells of a pin that is no file, such as a link or a named pipe.
    async fn pin(&mut self, dir: &str, entry: &Entry) -> Result<()> {
        let key = Key::new(key_of(dir, entry.name()))?;
        let read = self
            .store
            .shared
            .storage
            .read(&key, ReadRange::Suffix(1))
            .await;
        if let Err(error) = read
            && error.kind() == ErrorKind::Unsupported
        {
            self.found(FindingKind::InTheWay, key.to_string(), &error.to_string());
        }
        Ok(())
    }

    async fn empty_dirs(&mut self, dir: &str) -> Result<Vec<String>> {
        match self.store.shared.storage.empty_dirs(dir).await {
            Ok(dirs) => Ok(dirs),
            // The list of the directory has told of it.
            Err(error) if error.kind() == ErrorKind::Denied => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn reads(&self) -> bool {
        match self.read {
            ReadData::None => false,
            ReadData::All => true,
            // 32 random bits are as even as a sample needs to be.
            ReadData::Sample(share) => {
                let random = crate::random::u128() as u32;
                f64::from(random) < share * f64::from(u32::MAX)
            }
        }
    }

    fn looked(&mut self, looked: Option<Looked>) {
        let Some(looked) = looked else { return };
        self.checked.versions += 1;
        self.checked.read += u64::from(looked.read);
        self.checked.bytes += looked.bytes;
        match looked.found {
            None => (self.each)(&self.checked, None),
            Some((kind, what)) => self.tell(Finding {
                kind,
                key: looked.key,
                version: Some(looked.at),
                what,
            }),
        }
    }

    fn foreign(&mut self, dir: &str, entry: &Entry) {
        let key = key_of(dir, entry.name());
        self.found(FindingKind::Foreign, key, "not created by Persist");
    }

    fn found(&mut self, kind: FindingKind, key: String, what: &str) {
        self.tell(Finding {
            kind,
            key,
            version: None,
            what: what.into(),
        });
    }

    fn tell(&mut self, finding: Finding) {
        self.checked.findings += 1;
        (self.each)(&self.checked, Some(&finding));
    }
}

/// Returns the finding for an error of the storage that is of one place alone.
fn kind_of(error: &Error) -> FindingKind {
    match error {
        Error::Storage(error) => match error.kind() {
            ErrorKind::Denied | ErrorKind::Unauthenticated => FindingKind::Denied,
            // Not a file, or not a directory.
            ErrorKind::Unsupported => FindingKind::InTheWay,
            _ => FindingKind::Unreadable,
        },
        _ => FindingKind::Corrupt,
    }
}

fn key_of(dir: &str, name: &str) -> String {
    match dir {
        "" => name.to_owned(),
        dir => format!("{dir}/{name}"),
    }
}

/// Looks at one version. None: it was pruned since it was listed.
async fn look(scope: ScopeRef, name: Name, version: Version, read: bool) -> Result<Option<Looked>> {
    let key = scope.key(&name, version)?.as_str().to_owned();
    let outcome = if read {
        match scope.verify(&name, Some(version)).await {
            Ok(Some(verified)) => Ok(verified.info.stored_size),
            Ok(None) | Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => Err(error),
        }
    } else {
        match scope.object(&name, version).await {
            Ok(object) => Ok(object.trailer.footer.object),
            Err(error) if error.is_missing_object() => return Ok(None),
            Err(error) => Err(error),
        }
    };
    let (bytes, found) = match outcome {
        Ok(bytes) => (bytes, None),
        Err(Error::Misplaced { saved_as, .. }) => {
            let what = format!("its file was saved as {saved_as}");
            (0, Some((FindingKind::Misplaced, what)))
        }
        Err(Error::Corrupt { what, .. }) => (0, Some((FindingKind::Corrupt, what))),
        Err(Error::Unsupported { what, .. }) => (0, Some((FindingKind::Unsupported, what))),
        // A bad sector, or a file of another account: the rest of the store is looked at all the
        // same.
        Err(error) if scope.is_of_one_version(&name, &error).await => {
            (0, Some((kind_of(&error), error.to_string())))
        }
        Err(error) => return Err(error),
    };
    Ok(Some(Looked {
        key,
        at: (scope.into(), name, version),
        read: read
            && !matches!(
                found,
                Some((
                    FindingKind::Unreadable | FindingKind::Denied | FindingKind::InTheWay,
                    _
                ))
            ),
        bytes,
        found,
    }))
}

/// Entries that are directly in a directory.
struct Entries<'a> {
    dir: &'a str,
    page: VecDeque<Entry>,
    pages: Pager<'a>,
}

impl Entries<'_> {
    async fn next(&mut self) -> Result<Option<Entry>> {
        while self.page.is_empty() {
            let Some(Page { entries, .. }) = self.pages.next().await? else {
                return Ok(None);
            };
            self.page = entries.into();
        }
        Ok(self.page.pop_front())
    }
}
