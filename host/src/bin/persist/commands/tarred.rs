//! A tar file that `export` wrote, read as a storage in which nothing changes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::ops::Bound;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use persist_host::storage::{
    self, Entry, ErrorKind, Facts, Key, List, Object, Page, Part, ReadRange, Storage, Upload,
};
use serde::Deserialize;

/// The last entry of an archive: a line of JSON for each version.
pub(crate) const MANIFEST: &str = "manifest.jsonl";

/// Objects in a tar file. Memory: where each of them lies, some 100 bytes.
#[derive(Debug)]
pub(crate) struct Tarred {
    path: PathBuf,
    file: File,
    objects: BTreeMap<String, Place>,
}

/// Where an object lies in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    size: u64,
    created: SystemTime,
}

/// What a line of the manifest says, as far as it is compared.
#[derive(Deserialize)]
struct Line {
    key: String,
    info: Listed,
}

#[derive(Deserialize)]
struct Listed {
    stored_size: u64,
}

impl Tarred {
    /// Reads where everything lies, and compares it with the manifest: an archive that was cut off has none.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        if path.as_os_str() == "-" {
            bail!("an archive is read in any order, and not from a pipe; name a file");
        }
        let file = File::open(path).with_context(|| format!("open {shown}"))?;
        let length = file.metadata()?.len();
        // What the parser says of it shows what is in it.
        let Ok(objects) = index(&file) else {
            bail!("{shown} is not a whole tar file; where it is compressed, unpack it first");
        };
        let archive = Self {
            path: path.into(),
            file,
            objects,
        };
        let Some(manifest) = archive.objects.get(MANIFEST) else {
            bail!(
                "{shown} has no {MANIFEST} at its end: it was cut off, or not written by `persist export`"
            );
        };
        let last = archive
            .objects
            .values()
            .map(|place| place.start.saturating_add(place.size))
            .max();
        ensure!(last <= Some(length), "{shown} was cut off");
        let bytes = archive.bytes(manifest.start..manifest.start + manifest.size)?;
        for line in bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            let line: Line = serde_json::from_slice(line).with_context(|| {
                format!("the manifest in {shown} is not what `persist export` writes")
            })?;
            let place = archive.objects.get(&line.key);
            ensure!(
                place.is_some_and(|place| place.size == line.info.stored_size),
                "{} is in the manifest of {shown}, and not in the archive as the manifest says",
                line.key
            );
        }
        Ok(archive)
    }

    fn bytes(&self, range: std::ops::Range<u64>) -> std::io::Result<Bytes> {
        let len = usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| std::io::ErrorKind::OutOfMemory)?;
        bytes.resize(len, 0);
        self.file.read_exact_at(&mut bytes, range.start)?;
        Ok(bytes.into())
    }

    fn refused<T>(&self) -> storage::Result<T> {
        let what = format!("{} is an archive, and only read", self.path.display());
        Err(storage::Error::new(ErrorKind::Unsupported, what))
    }
}

fn index(file: &File) -> Result<BTreeMap<String, Place>> {
    let mut objects = BTreeMap::new();
    let mut archive = tar::Archive::new(BufReader::new(file));
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?;
        // What someone added under another name is nobody's key.
        let Some(key) = path.to_str().and_then(|key| Key::new(key).ok()) else {
            continue;
        };
        let mtime = Duration::from_secs(entry.header().mtime()?);
        let place = Place {
            start: entry.raw_file_position(),
            size: entry.size(),
            created: UNIX_EPOCH.checked_add(mtime).unwrap_or(UNIX_EPOCH),
        };
        objects.insert(key.as_str().to_owned(), place);
    }
    Ok(objects)
}

#[async_trait]
impl Storage for Tarred {
    fn location(&self) -> String {
        format!("the archive {}", self.path.display())
    }

    fn honours_conditions(&self) -> bool {
        true
    }

    async fn create(&self, _: &Key, _: Vec<Bytes>) -> storage::Result<()> {
        self.refused()
    }

    async fn upload(&self, _: &Key) -> storage::Result<Box<dyn Upload>> {
        self.refused()
    }

    async fn replace(&self, _: &Key) -> storage::Result<Box<dyn Upload>> {
        self.refused()
    }

    async fn delete(&self, _: &Key) -> storage::Result<()> {
        self.refused()
    }

    async fn read(&self, key: &Key, range: ReadRange) -> storage::Result<Part> {
        let Some(place) = self.objects.get(key.as_str()) else {
            let what = format!("{key} is not in {}", self.path.display());
            return Err(storage::Error::new(ErrorKind::NotFound, what));
        };
        let range = range.of(place.size);
        let bytes = self.bytes(place.start + range.start..place.start + range.end);
        let bytes = bytes.map_err(|error| {
            let what = format!("read {}", self.path.display());
            storage::Error::new(ErrorKind::Unavailable, what).with_source(error)
        })?;
        Ok(Part {
            bytes,
            start: range.start,
            size: place.size,
        })
    }

    async fn list(&self, list: &List<'_>) -> storage::Result<Page> {
        let base = match list.dir {
            "" => String::new(),
            dir => format!("{dir}/"),
        };
        let beginning = format!("{base}{}", list.prefix);
        let mut from = match &list.after {
            Some(after) if after.name() >= list.prefix => past(&base, after),
            _ => Bound::Included(beginning.clone()),
        };
        let mut page = Page {
            now: list.facts.then(SystemTime::now),
            ..Page::default()
        };
        loop {
            let next = self
                .objects
                .range::<String, _>((from, Bound::Unbounded))
                .next();
            let Some((key, place)) = next.filter(|(key, _)| key.starts_with(&beginning)) else {
                return Ok(page);
            };
            if page.entries.len() == list.limit.max(1) {
                page.more = true;
                return Ok(page);
            }
            let rest = &key[base.len()..];
            let entry = match rest.split_once('/') {
                Some((dir, _)) => Entry::Dir(dir.into()),
                None => Entry::Object(Object {
                    name: rest.into(),
                    facts: list.facts.then_some(Facts {
                        size: place.size,
                        created: place.created,
                    }),
                }),
            };
            from = past(&base, &entry);
            page.entries.push(entry);
        }
    }
}

/// Behind everything that an entry stands for.
fn past(base: &str, entry: &Entry) -> Bound<String> {
    match entry {
        Entry::Object(object) => Bound::Excluded(format!("{base}{}", object.name)),
        // The character after the slash: all keys of the directory are before it.
        Entry::Dir(dir) => Bound::Included(format!("{base}{dir}0")),
    }
}
