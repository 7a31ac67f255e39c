//! A tar file that `export` wrote, read as a storage in which nothing changes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::ops::Bound;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use persist_host::snapshot::layout::{ARCHIVE_MANIFEST as MANIFEST, STORE_HEADER, VERSION_SUFFIX};
use persist_host::storage::{
    self, Entry, ErrorKind, Key, List, Object, ObjectMeta, Page, Part, ReadRange, Storage,
    StorageIdentity, Upload,
};
use serde::Deserialize;

use crate::error::Hinted;
use crate::text;

/// Bytes of a header; an entry begins at a multiple of them.
const BLOCK: u64 = 512;

/// Most bytes of an extension header, such as a long name. Its length is a claim until it is read.
const MAX_EXTENSION: u64 = 4 << 10;

/// Most bytes of a path.
const MAX_PATH: usize = 1 << 10;

/// Most bytes of a line of the manifest: the metadata of a version is at most 128 KiB.
const MAX_LINE: u64 = 256 << 10;

const NO_TAR: &str = "not a complete tar file";

/// Objects in a tar file. Memory: where each of them lies, some 100 bytes.
#[derive(Debug)]
pub(crate) struct TarStorage {
    path: PathBuf,
    file: File,
    objects: BTreeMap<String, Place>,
}

/// Position of an object in the file.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u64,
    size: u64,
    created: SystemTime,
}

/// Fields of a manifest line that are compared.
#[derive(Deserialize)]
struct Line {
    key: String,
    info: Listed,
}

#[derive(Deserialize)]
struct Listed {
    stored_size: u64,
}

impl TarStorage {
    /// Reads where everything lies, and compares it with the manifest: an archive that was cut off
    /// has none.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        if path.as_os_str() == "-" {
            let what = "an archive cannot be read from standard input";
            return Err(Hinted::other(what, "name a file").into());
        }
        let file = File::open(path).with_context(|| format!("cannot open {shown}"))?;
        let length = file.metadata()?.len();
        if let Some(program) = compressor(&file)? {
            let what = format!("{shown} is compressed with {program}");
            let hint = format!("decompress it first: `{program} -d`");
            return Err(Hinted::other(what, hint).into());
        }
        let index = Index::read(&file, length).map_err(|error| {
            let is_compressed = error.to_string() == NO_TAR;
            let error = error.context(format!("cannot read {shown}"));
            if is_compressed {
                let hint = "if the file is compressed, decompress it first".into();
                return Hinted { error, hint }.into();
            }
            error
        })?;
        let Some(base) = &index.base else {
            return Err(index.without_manifest(&shown));
        };
        let objects = index.objects_below(base);
        let archive = Self {
            path: path.into(),
            file,
            objects,
        };
        archive.compare_with_manifest()?;
        Ok(archive)
    }

    fn compare_with_manifest(&self) -> Result<()> {
        let shown = self.path.display();
        let manifest = self.objects.get(MANIFEST);
        let manifest = manifest.with_context(|| format!("{shown} has no {MANIFEST}"))?;
        let mut lines = BufReader::new(Section {
            file: &self.file,
            at: manifest.start,
            end: manifest.start + manifest.size,
        });
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = lines.by_ref().take(MAX_LINE);
            if bounded.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let parsed = serde_json::from_slice::<Line>(&line);
            let line = parsed.with_context(|| {
                format!("the manifest in {shown} was not written by `persist export`")
            })?;
            let place = self.objects.get(&line.key);
            ensure!(
                place.is_some_and(|place| place.size == line.info.stored_size),
                "{} is in the manifest of {shown} but not in the archive",
                cut(&line.key)
            );
        }
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
        let what = format!("{} is an archive and read-only", self.path.display());
        Err(storage::Error::new(ErrorKind::Unsupported, what))
    }
}

/// Names the program that compressed a file, by the first bytes of the file.
fn compressor(file: &File) -> Result<Option<&'static str>> {
    const PROGRAMS: [(&str, &[u8]); 4] = [
        ("gzip", b"\x1f\x8b"),
        ("zstd", b"\x28\xb5\x2f\xfd"),
        ("xz", b"\xfd7zXZ\0"),
        ("bzip2", b"BZh"),
    ];
    let mut start = Vec::new();
    Section {
        file,
        at: 0,
        end: 6,
    }
    .read_to_end(&mut start)?;
    let found = PROGRAMS.iter().find(|(_, magic)| start.starts_with(magic));
    Ok(found.map(|(program, _)| *program))
}

/// The files in a tar file, by their paths without a leading `./`.
#[derive(Default)]
struct Index {
    files: Vec<(String, Place)>,
    /// The directory in the archive that holds the manifest, with a slash at its end; none without
    /// a manifest.
    base: Option<String>,
    /// True where the block of zeros is there that ends a tar file.
    ended: bool,
}

/// Extension headers of the next entry.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    size: Option<u64>,
    sparse: bool,
}

impl Index {
    /// Reads the header of each entry. Memory: some 150 bytes for each file, which takes 512 in the
    /// archive.
    fn read(file: &File, length: u64) -> Result<Self> {
        let mut index = Self::default();
        let mut extended = Extended::default();
        let mut at = 0;
        while at + BLOCK <= length {
            let mut header = tar::Header::new_old();
            file.read_exact_at(header.as_mut_bytes(), at)?;
            if header.as_bytes().iter().all(|byte| *byte == 0) {
                index.ended = true;
                break;
            }
            ensure!(is_sound(&header), NO_TAR);
            let start = at + BLOCK;
            let kind = header.entry_type();
            let size = match extended.size.filter(|_| !is_extension(kind)) {
                Some(size) => size,
                None => header.entry_size().context("an entry has no length")?,
            };
            if is_extension(kind) {
                ensure!(
                    size <= MAX_EXTENSION,
                    "an extension header has {size} bytes; the maximum is {MAX_EXTENSION}"
                );
            }
            let end = start.checked_add(size).filter(|end| *end <= length);
            let end = end.context("truncated: an entry is longer than the file")?;
            if is_extension(kind) {
                let mut body = vec![0; usize::try_from(size)?];
                file.read_exact_at(&mut body, start)?;
                extended.add(kind, &body);
            } else {
                let extended = std::mem::take(&mut extended);
                if kind.is_file() || kind.is_gnu_sparse() {
                    let mtime = Duration::from_secs(header.mtime().unwrap_or_default());
                    let place = Place {
                        start,
                        size,
                        created: UNIX_EPOCH.checked_add(mtime).unwrap_or(UNIX_EPOCH),
                    };
                    let is_sparse = extended.sparse || kind.is_gnu_sparse();
                    let path = extended.path;
                    let path = path.unwrap_or_else(|| header.path_bytes().into_owned());
                    index.add(path, place, is_sparse)?;
                }
            }
            at = end.next_multiple_of(BLOCK);
        }
        ensure!(at > 0 || index.ended, NO_TAR);
        Ok(index)
    }

    fn add(&mut self, path: Vec<u8>, place: Place, is_sparse: bool) -> Result<()> {
        // A path that is not text, or is too long, is not a key.
        let Ok(mut path) = String::from_utf8(path) else {
            return Ok(());
        };
        if path.len() > MAX_PATH {
            return Ok(());
        }
        // As `tar -C DIR .` writes it.
        while let Some(rest) = path.strip_prefix("./") {
            path = rest.into();
        }
        let last = path.rsplit_once('/').map_or(&*path, |(_, last)| last);
        if is_sparse {
            ensure!(
                !last.ends_with(VERSION_SUFFIX) && last != MANIFEST,
                "{} is a sparse entry, which `persist export` does not write",
                cut(&path)
            );
            return Ok(());
        }
        if last == MANIFEST {
            let base = &path[..path.len() - MANIFEST.len()];
            // The one nearest to the top: a deeper one belongs to another directory.
            if self
                .base
                .as_ref()
                .is_none_or(|other| base.len() < other.len())
            {
                self.base = Some(base.to_owned());
            }
        }
        self.files.push((path, place));
        Ok(())
    }

    /// The files below `base` whose paths are keys. A file that was added under another name is
    /// not a key.
    fn objects_below(&self, base: &str) -> BTreeMap<String, Place> {
        let below = |(path, place): &(String, Place)| {
            let key = Key::new(path.strip_prefix(base)?).ok()?;
            Some((key.as_str().to_owned(), *place))
        };
        self.files.iter().filter_map(below).collect()
    }

    /// Returns the error for an archive without a manifest.
    fn without_manifest(&self, shown: &impl fmt::Display) -> anyhow::Error {
        let is_store = |(path, _): &(String, Place)| {
            path == STORE_HEADER
                || path
                    .strip_suffix(STORE_HEADER)
                    .is_some_and(|base| base.ends_with('/'))
        };
        if self.ended && self.files.iter().any(is_store) {
            let what = format!("{shown} has no {MANIFEST}: it is a store that was packed with tar");
            let hint = "unpack it into an empty directory and run `persist copy file:///DIRECTORY \
                TO_URL`";
            return Hinted::other(what, hint).into();
        }
        anyhow::anyhow!(
            "{shown} has no {MANIFEST} at its end: it is truncated, or was not written by \
             `persist export`"
        )
    }
}

impl Extended {
    fn add(&mut self, kind: tar::EntryType, body: &[u8]) {
        if kind.is_gnu_longname() {
            let end = body.iter().position(|byte| *byte == 0);
            self.path = Some(body[..end.unwrap_or(body.len())].into());
        }
        if !kind.is_pax_local_extensions() {
            return;
        }
        for record in tar::PaxExtensions::new(body).flatten() {
            match record.key_bytes() {
                b"path" => self.path = Some(record.value_bytes().into()),
                b"size" => {
                    let size = record.value().ok();
                    self.size = size.and_then(|size| size.parse().ok());
                }
                key => self.sparse |= key.starts_with(b"GNU.sparse."),
            }
        }
    }
}

/// Returns true for an entry that says something of the next one, or of all that follow.
fn is_extension(kind: tar::EntryType) -> bool {
    kind.is_gnu_longname()
        || kind.is_gnu_longlink()
        || kind.is_pax_local_extensions()
        || kind.is_pax_global_extensions()
}

/// Compares the checksum of a header with its bytes, where the checksum itself counts as spaces.
fn is_sound(header: &tar::Header) -> bool {
    let bytes = header.as_bytes();
    let others = bytes[..148].iter().chain(&bytes[156..]);
    let sum: u32 = others.map(|byte| u32::from(*byte)).sum();
    let stored = header.cksum();
    stored.is_ok_and(|stored| stored == sum + 8 * u32::from(b' '))
}

/// Returns a text of an archive, shortened and safe to print.
fn cut(text: &str) -> String {
    text::plain(&text.chars().take(300).collect::<String>())
}

/// Part of a file, read from front to back.
struct Section<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..len], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[async_trait]
impl Storage for TarStorage {
    fn location(&self) -> String {
        format!("the archive {}", self.path.display())
    }

    fn identity(&self) -> StorageIdentity {
        StorageIdentity::local(&self.path)
    }

    fn supports_conditional_create(&self) -> bool {
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
            let what = format!("cannot read {}", self.path.display());
            storage::Error::new(ErrorKind::Unavailable, what).with_source(error)
        })?;
        Ok(Part::new(bytes, range.start, place.size))
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
        let mut page = Page::default().with_now(list.meta.then(SystemTime::now));
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
                None => {
                    let meta = ObjectMeta::new(place.size, place.created);
                    Entry::Object(Object::new(rest, list.meta.then_some(meta)))
                }
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
