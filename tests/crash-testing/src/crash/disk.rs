//! Model of the contents that a disk may hold after a crash.
//!
//! The model is weaker than any journalling file system, so that what survives here survives there:
//! - a change of a directory (a file or directory made, linked, renamed, removed) is certain once
//!   that directory was synced, and until then may be kept or lost independently of every other, in
//!   any combination;
//! - the two halves of a rename are two such changes;
//! - bytes of a file are certain once the file was synced, and until then may be missing, cut off,
//!   or zeros, whatever names it has;
//! - nothing that was synced is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use fastrand::Rng;

use super::trace::Op;

/// Pending changes up to which every combination is tried.
const MAX_EXHAUSTIVE: usize = 4;

/// Combinations that are tried beside the extreme ones where there are more.
const RANDOM: usize = 8;

/// Sizes that devices write at once, in bytes.
const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// Node at each path.
pub(super) type Tree = BTreeMap<PathBuf, Node>;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Node {
    Dir,
    File(Arc<Vec<u8>>),
}

/// A disk while it is used.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    files: Vec<File>,
    /// Files that have no name, by the paths that stand for them. A crash leaves nothing of them.
    unnamed: BTreeMap<PathBuf, Entry>,
    /// Entries that the running system sees.
    seen: BTreeMap<PathBuf, Entry>,
    /// Entries that are certain to exist after a crash.
    durable: BTreeMap<PathBuf, Entry>,
    /// Changes that may be there, in order.
    pending: Vec<(PathBuf, Option<Entry>)>,
}

#[derive(Clone, Debug, Default)]
struct File {
    written: Vec<u8>,
    durable: usize,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Dir,
    File(usize),
}

/// One way in which a crash may turn out.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// For each pending change, whether it is kept.
    keep: Vec<bool>,
    bytes: Bytes,
    seed: u64,
}

/// Outcome for bytes that were not synced.
#[derive(Clone, Copy, Debug)]
enum Bytes {
    Written,
    Missing,
    CutOff,
    Zeros,
    ZeroPage,
}

const BYTES: [Bytes; 5] = [
    Bytes::Written,
    Bytes::Missing,
    Bytes::CutOff,
    Bytes::Zeros,
    Bytes::ZeroPage,
];

impl Disk {
    /// A disk that holds `tree`, for certain.
    pub(super) fn of(tree: &Tree) -> Self {
        let mut disk = Self::default();
        for (path, node) in tree {
            let entry = match node {
                Node::Dir => Entry::Dir,
                Node::File(bytes) => {
                    disk.files.push(File {
                        written: bytes.to_vec(),
                        durable: bytes.len(),
                    });
                    Entry::File(disk.files.len() - 1)
                }
            };
            disk.durable.insert(path.clone(), entry);
        }
        disk.seen = disk.durable.clone();
        disk
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::MakeDir(path) => self.change(path, Some(Entry::Dir)),
            Op::Create(path) => {
                self.files.push(File::default());
                self.change(path, Some(Entry::File(self.files.len() - 1)));
            }
            Op::CreateUnnamed(path) => {
                self.files.push(File::default());
                let entry = Entry::File(self.files.len() - 1);
                self.unnamed.insert(path.clone(), entry);
            }
            Op::Write(path, bytes) => {
                if let Some(file) = self.file(path) {
                    file.written.extend_from_slice(bytes);
                }
            }
            Op::SyncFile(path) => {
                if let Some(file) = self.file(path) {
                    file.durable = file.written.len();
                }
            }
            Op::SyncDir(dir) => {
                let (synced, pending) = std::mem::take(&mut self.pending)
                    .into_iter()
                    .partition(|(path, _)| path.parent() == Some(dir.as_path()));
                self.pending = pending;
                apply(&mut self.durable, synced);
            }
            Op::Link(from, to) => {
                let entry = self.entry(from);
                self.change(to, entry);
            }
            Op::Rename(from, to) => {
                let entry = self.seen.get(from).copied();
                self.change(to, entry);
                self.change(from, None);
            }
            Op::Remove(path) => self.change(path, None),
            Op::Begin(_) | Op::End(_) => {}
        }
    }

    fn change(&mut self, path: &Path, entry: Option<Entry>) {
        let change = (path.to_owned(), entry);
        self.pending.push(change.clone());
        apply(&mut self.seen, vec![change]);
    }

    fn file(&mut self, path: &Path) -> Option<&mut File> {
        match self.entry(path) {
            Some(Entry::File(id)) => Some(&mut self.files[id]),
            _ => None,
        }
    }

    fn entry(&self, path: &Path) -> Option<Entry> {
        let entry = self.seen.get(path).or_else(|| self.unnamed.get(path));
        entry.copied()
    }

    /// The ways in which a crash at this moment may turn out: all of them, or the extreme ones and
    /// some more.
    pub(super) fn choices(&self, rng: &mut Rng) -> Vec<Choice> {
        let n = self.pending.len();
        let mut keeps: Vec<Vec<bool>> = Vec::new();
        if n <= MAX_EXHAUSTIVE {
            keeps.extend((0..1usize << n).map(|mask| (0..n).map(|i| mask >> i & 1 == 1).collect()));
        } else {
            keeps.extend([vec![false; n], vec![true; n]]);
            for i in 0..n {
                keeps.push((0..n).map(|j| j == i).collect());
                keeps.push((0..n).map(|j| j != i).collect());
            }
            keeps.extend((0..RANDOM).map(|_| (0..n).map(|_| rng.bool()).collect()));
        }
        let unsynced = self
            .files
            .iter()
            .any(|file| file.durable < file.written.len());
        let bytes = if unsynced { &BYTES[..] } else { &BYTES[..1] };
        let choices = keeps
            .into_iter()
            .flat_map(|keep| bytes.iter().map(move |&bytes| (keep.clone(), bytes)));
        let choice = |(keep, bytes)| Choice {
            keep,
            bytes,
            seed: rng.u64(..),
        };
        choices.map(choice).collect()
    }

    /// Returns the tree that is found after a crash.
    pub(super) fn crash(&self, choice: &Choice) -> Tree {
        let mut entries = self.durable.clone();
        let kept = self
            .pending
            .iter()
            .zip(&choice.keep)
            .filter(|(_, keep)| **keep);
        apply(
            &mut entries,
            kept.map(|(change, _)| change.clone()).collect(),
        );
        let mut tree = Tree::new();
        for (path, entry) in entries {
            // Parents come first. What is in a directory that is lost is lost.
            let parent = path.parent().unwrap_or(Path::new(""));
            if parent != Path::new("") && tree.get(parent) != Some(&Node::Dir) {
                continue;
            }
            let node = match entry {
                Entry::Dir => Node::Dir,
                Entry::File(id) => Node::File(Arc::new(self.files[id].crash(choice))),
            };
            tree.insert(path, node);
        }
        tree
    }

    /// The whole of what the running system sees.
    #[cfg(test)]
    pub(super) fn seen(&self) -> Tree {
        let mut all = self.clone();
        all.durable = all.seen.clone();
        all.pending.clear();
        let keep = Vec::new();
        all.crash(&Choice {
            keep,
            bytes: Bytes::Written,
            seed: 0,
        })
    }
}

impl File {
    fn crash(&self, choice: &Choice) -> Vec<u8> {
        let mut bytes = self.written.clone();
        let durable = self.durable;
        let len = bytes.len();
        let mut rng = Rng::with_seed(choice.seed);
        if durable == len {
            return bytes;
        }
        match choice.bytes {
            Bytes::Written => {}
            Bytes::Missing => bytes.truncate(durable),
            Bytes::CutOff => {
                let end = rng.usize(durable..len) / SECTOR * SECTOR;
                bytes.truncate(end.max(durable));
            }
            Bytes::Zeros => bytes[durable..].fill(0),
            Bytes::ZeroPage => {
                let start = (rng.usize(durable..len) / PAGE * PAGE).max(durable);
                bytes[start..len.min(start + PAGE)].fill(0);
            }
        }
        bytes
    }
}

fn apply(entries: &mut BTreeMap<PathBuf, Entry>, changes: Vec<(PathBuf, Option<Entry>)>) {
    for (path, entry) in changes {
        match entry {
            Some(entry) => entries.insert(path, entry),
            None => entries.remove(&path),
        };
    }
}

/// Puts `tree` into the folder `base`.
pub(super) fn build(tree: &Tree, base: &Path) -> io::Result<()> {
    for (path, node) in tree {
        match node {
            Node::Dir => fs::create_dir(base.join(path))?,
            Node::File(bytes) => fs::write(base.join(path), &bytes[..])?,
        }
    }
    Ok(())
}

/// Returns the contents of the folder `base`.
#[cfg(test)]
pub(super) fn read(base: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(base.join(&dir))? {
            let entry = entry?;
            let path = dir.join(entry.file_name());
            let node = if entry.file_type()?.is_dir() {
                dirs.push(path.clone());
                Node::Dir
            } else {
                Node::File(Arc::new(fs::read(entry.path())?))
            };
            tree.insert(path, node);
        }
    }
    Ok(tree)
}
