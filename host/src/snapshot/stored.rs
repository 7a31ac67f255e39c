//! Versions as they are stored: read byte for byte, and copied to other stores.

use std::time::Duration;

use bytes::Bytes;

use super::ahead::Ahead;
use super::reader::Object;
use super::{Error, Expect, Info, Name, Result, Scope, Store, Version};
use crate::storage::{Entry, ErrorKind, Key, List, Storage};

/// Blocks that are read at once.
const BLOCKS: usize = 8;

/// Files up to this many bytes are created in one call; others are uploaded in pieces.
const SMALL: u64 = 8 << 20;

/// Versions that are copied at the same time. Each needs some pieces of 8 MiB, whatever its size.
const AT_ONCE: usize = 4;

/// How long it is waited for a version that a server says is there, and does not show.
const PATIENCE: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
];

/// Versions listed at once.
const PAGE: usize = 1000;

/// The file of one version as it is stored, from front to back, verified. `zcat` prints the state of what this gives.
///
/// Memory: eight blocks of 1 MiB.
#[derive(Debug)]
pub struct Stored {
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

/// What became of one version of a name that is copied.
#[derive(Debug)]
#[non_exhaustive]
pub enum Copied {
    /// It was made there, and is the same.
    Made(Info),
    /// It was there already, and is the same.
    Same(Info),
    /// Another version has its number there; it was not touched.
    Another(Version),
    /// It fails verification here, and was not copied.
    Damaged(Version, Error),
    /// It is there alone, and newer than all that is here: what is the newest there is not what is the newest here.
    Ahead(Version),
}

impl Scope {
    /// Opens the file of a version as it is stored, to copy or to keep elsewhere. A tombstone has one, too.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no such version; [`Error::Corrupt`]; [`Error::Storage`].
    pub async fn stored(&self, name: &str, version: Version) -> Result<Stored> {
        let name = Name::new(name)?;
        match self.open(&name, Some(version)).await? {
            Some((version, object)) => Stored::new(self, &name, version, object),
            None => Err(self.missing(&name, Some(version))),
        }
    }

    /// Copies every version of `name`, byte for byte, to the same address in another store, beginning with the oldest, tombstones and pins
    /// too. `each` is told of each version, in ascending order, once it was read again there and found to be the same.
    ///
    /// What is there already is compared, and never touched; so a copy that was cut short can be made again, and does only what
    /// is left. What is saved here meanwhile is not copied. Nobody may save under that name over there meanwhile, nor go on from a head
    /// that it knew before: a save into a gap of the history would be acknowledged below what is copied above it.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Unsupported`] where `to` does not keep its word, or has a later format. A version that is damaged here, or
    /// another there, is no error: `each` is told.
    pub async fn copy_to(
        &self,
        name: &str,
        to: &Store,
        mut each: impl FnMut(Copied),
    ) -> Result<()> {
        let name = Name::new(name)?;
        let to = Self {
            store: to.clone(),
            ..self.clone()
        };
        let versions = self.all_versions(&name).await?;
        // Descending, as are ours.
        let there = to.all_versions(&name).await?;
        let mut copies = Ahead::new(AT_ONCE);
        for &version in versions.iter().rev() {
            let is_there = there.binary_search_by(|other| version.cmp(other)).is_ok();
            if !is_there {
                to.introduce().await?;
            }
            let copy = copy_version(self.clone(), to.clone(), name.clone(), version, is_there);
            if let Some(copied) = copies.push(copy).await? {
                each_of(copied, &mut each);
            }
        }
        while let Some(copied) = copies.next().await? {
            each_of(copied, &mut each);
        }
        if let Some(&newest) = there
            .first()
            .filter(|newest| Some(*newest) > versions.first())
        {
            each(Copied::Ahead(newest));
        }
        self.copy_pins(&name, &to).await
    }

    /// Saves the newest state of `name`, or that of version `at`, as the next version of `new_name` in another scope of the same
    /// store.
    ///
    /// # Errors
    /// As [`Scope::restore`].
    pub async fn fork_to(
        &self,
        name: &str,
        at: Option<Version>,
        to: &Self,
        new_name: &str,
        expect: Expect,
    ) -> Result<Info> {
        let (name, new_name) = (Name::new(name)?, Name::new(new_name)?);
        let origin = ("forked-from", name.as_str().to_owned());
        self.copy(&name, at, (to, &new_name), expect, origin).await
    }

    async fn copy_pins(&self, name: &Name, to: &Self) -> Result<()> {
        let pins = self.pins(name.as_str()).await?;
        if pins.is_empty() {
            return Ok(());
        }
        let there = to.pins(name.as_str()).await?;
        for pin in pins.into_iter().filter(|pin| !there.contains(pin)) {
            match to.pin(name.as_str(), pin).await {
                // It was pruned, or is damaged, and was not copied.
                Ok(()) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Every version of a name, newest first. 8 bytes for each are held.
    async fn all_versions(&self, name: &Name) -> Result<Vec<Version>> {
        let dir = self.dir_of(name);
        let mut versions = Vec::new();
        let mut after: Option<Entry> = None;
        loop {
            let list = List {
                dir: &dir,
                prefix: "",
                after,
                limit: PAGE,
                facts: false,
            };
            let page = self.storage().list(&list).await?;
            after = page.entries.last().cloned();
            let objects = page.entries.iter().filter_map(|entry| match entry {
                Entry::Object(object) => super::version::parse(&object.name),
                Entry::Dir(_) => None,
            });
            versions.extend(objects);
            if !page.more {
                return Ok(versions);
            }
        }
    }
}

impl Stored {
    fn new(scope: &Scope, name: &Name, version: Version, object: Object) -> Result<Self> {
        Ok(Self {
            key: scope.key(name, version)?,
            info: object.trailer.info(name.as_str(), version),
            object,
            tail: Bytes::new(),
            next: Part::Head,
        })
    }

    /// What is known of it; `stored_size` is how many bytes [`Stored::next`] gives.
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
    /// [`Error::Corrupt`] where what is stored is not what was saved; [`Error::NotFound`] where the version was pruned meanwhile;
    /// [`Error::Storage`].
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
        let bytes = self.object.bytes(stored.clone()).await?;
        for block in first..end {
            let at = trailer.stored(block..block + 1);
            let block_bytes =
                &bytes[(at.start - stored.start) as usize..(at.end - stored.start) as usize];
            let sound = trailer.verify_block(block, block_bytes);
            sound.map_err(|error| error.at(&self.key))?;
        }
        Ok(bytes)
    }
}

fn each_of(copied: Option<Copied>, each: &mut impl FnMut(Copied)) {
    if let Some(copied) = copied {
        each(copied);
    }
}

/// Copies one version and looks at it there. None: it was pruned here since it was listed.
async fn copy_version(
    from: Scope,
    to: Scope,
    name: Name,
    version: Version,
    is_there: bool,
) -> Result<Option<Copied>> {
    let mut unmade = None;
    let object = match from.object(&name, version).await {
        Ok(object) => object,
        Err(error) if error.is_missing_object() => return Ok(None),
        Err(error) => return damaged(version, error),
    };
    let mut stored = Stored::new(&from, &name, version, object)?;
    if !is_there {
        match send(&mut stored, to.storage()).await {
            Ok(()) => {}
            // Our own whose answer was lost, or another's: it is looked at.
            Err(Error::Storage(error))
                if [ErrorKind::AlreadyExists, ErrorKind::Unanswered].contains(&error.kind()) =>
            {
                unmade = Some(error);
            }
            Err(Error::NotFound(_)) => return Ok(None),
            Err(error) => return damaged(version, error),
        }
    }
    match look(&to, &name, version, unmade.is_some()).await {
        Ok(there) if trailer(&there).await? == trailer(&stored.object).await? => {
            Ok(Some(match is_there {
                true => Copied::Same(stored.info),
                false => Copied::Made(stored.info),
            }))
        }
        Ok(_) | Err(Error::Corrupt { .. } | Error::Unsupported { .. }) => {
            Ok(Some(Copied::Another(version)))
        }
        Err(error) => Err(unmade.map_or(error, Error::Storage)),
    }
}

/// The version as it is there. Where it is `announced`, another copy may be making it at this moment, and a server may have said so
/// before it can be read.
async fn look(to: &Scope, name: &Name, version: Version, announced: bool) -> Result<Object> {
    for wait in PATIENCE {
        match to.object(name, version).await {
            Err(error) if announced && error.is_missing_object() => {}
            looked => return looked,
        }
        // The runtime of whoever copies on a local disk may have no clock.
        let _ = tokio::task::spawn_blocking(move || std::thread::sleep(wait)).await;
    }
    to.object(name, version).await
}

fn damaged(version: Version, error: Error) -> Result<Option<Copied>> {
    match error {
        Error::Corrupt { .. } | Error::Unsupported { .. } => {
            Ok(Some(Copied::Damaged(version, error)))
        }
        error => Err(error),
    }
}

async fn send(stored: &mut Stored, to: &dyn Storage) -> Result<()> {
    let key = stored.key.clone();
    if stored.info.stored_size <= SMALL {
        let mut body = Vec::new();
        while let Some(piece) = stored.next().await? {
            body.push(piece);
        }
        return Ok(to.create(&key, body).await?);
    }
    let mut upload = to.upload(&key).await?;
    while let Some(piece) = stored.next().await? {
        upload.write(piece).await?;
    }
    Ok(upload.finish().await?)
}

/// All that a file says of itself, which covers every byte before it.
async fn trailer(object: &Object) -> Result<Bytes> {
    let footer = object.trailer.footer;
    object.bytes(footer.member..footer.object).await
}
