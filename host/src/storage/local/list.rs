//! Lists the contents of a directory, in order, in bounded memory.

use std::collections::BinaryHeap;
use std::io;

use super::disk::Folder;
use crate::storage::key::is_segment;
use crate::storage::{Entry, List, Object, ObjectMeta, Page, RecursiveList, RecursivePage};

/// How deep below a listed directory a file is looked for: no key has more segments than this.
const MAX_DEPTH: usize = 8;

/// The page of `dir` that `list` asks for.
pub(super) fn page(dir: &Folder, list: &List<'_>) -> io::Result<Page> {
    let mut after = list.after.clone();
    let now = list.meta.then(std::time::SystemTime::now);
    loop {
        let (entries, more) = smallest(dir, list, after.as_ref())?;
        after = entries.last().cloned();
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            // A bucket has no empty directories; a first save that was killed leaves one here.
            if match &entry {
                Entry::Object(_) => true,
                Entry::Dir(name) => may_hold_a_file(dir, name, MAX_DEPTH)?,
            } {
                kept.push(entry);
            }
        }
        if !kept.is_empty() || !more {
            return Ok(Page {
                entries: kept,
                more,
                now,
            });
        }
    }
}

/// The first entries after `after`, no more than the limit held in memory at once, and whether more
/// follow.
fn smallest(
    dir: &Folder,
    list: &List<'_>,
    after: Option<&Entry>,
) -> io::Result<(Vec<Entry>, bool)> {
    let limit = list.limit.max(1);
    let mut smallest = BinaryHeap::with_capacity(limit.min(1024) + 1);
    let mut more = false;
    for child in dir.entries()? {
        let child = child?;
        if !is_segment(&child.name) || !child.name.starts_with(list.prefix) {
            continue;
        }
        let mut entry = if child.is_dir {
            Entry::Dir(child.name.clone())
        } else {
            Entry::object(&child.name)
        };
        if after.is_some_and(|after| entry <= *after) {
            continue;
        }
        if smallest.len() == limit && smallest.peek().is_some_and(|last| entry > *last) {
            more = true;
            continue;
        }
        if let (true, Entry::Object(Object { meta, .. })) = (list.meta, &mut entry) {
            match child.size_and_change() {
                Ok((size, created)) => *meta = Some(ObjectMeta { size, created }),
                // Removed since the directory was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            }
        }
        smallest.push(entry);
        if smallest.len() > limit {
            smallest.pop();
            more = true;
        }
    }
    Ok((smallest.into_sorted_vec(), more))
}

/// Names the directories in `dir` that hold no file.
pub(super) fn empty_dirs(dir: &Folder) -> io::Result<Vec<String>> {
    let mut empty = Vec::new();
    for child in dir.entries()? {
        let child = child?;
        if child.is_dir && is_segment(&child.name) && !may_hold_a_file(dir, &child.name, MAX_DEPTH)?
        {
            empty.push(child.name);
        }
    }
    Ok(empty)
}

/// Looks for a file below a directory in `dir`. A directory that cannot be opened may hold one:
/// the caller gets the reason, and the ones beside it are listed all the same.
fn may_hold_a_file(dir: &Folder, name: &str, depth: usize) -> io::Result<bool> {
    let dir = match dir.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(_) => return Ok(true),
        Ok(dir) => dir,
    };
    for child in dir.entries()? {
        let child = child?;
        if !child.is_dir || depth > 0 && may_hold_a_file(&dir, &child.name, depth - 1)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The page of all files below `dir`, at any depth, in order: no more entries of a directory than
/// the limit are held at once.
pub(super) fn recursive_page(dir: &Folder, list: &RecursiveList<'_>) -> io::Result<RecursivePage> {
    let mut walk = Walk {
        list: List {
            dir: list.dir,
            prefix: "",
            after: None,
            limit: list.limit.max(1),
            meta: list.meta,
        },
        objects: Vec::new(),
    };
    let now = list.meta.then(std::time::SystemTime::now);
    let is_cut = walk.collect(dir, "", list.token.as_deref(), MAX_DEPTH)?;
    let last = walk.objects.last().filter(|_| is_cut);
    Ok(RecursivePage {
        next: last.map(|last| last.name.clone()),
        objects: walk.objects,
        now,
    })
}

struct Walk<'a> {
    list: List<'a>,
    objects: Vec<Object>,
}

impl Walk<'_> {
    /// Collects the files below `dir` after the one that `token` names, and returns whether the
    /// page ended before they did.
    fn collect(
        &mut self,
        dir: &Folder,
        path: &str,
        token: Option<&str>,
        depth: usize,
    ) -> io::Result<bool> {
        let mut after = match token.map(|token| token.split_once('/').ok_or(token)) {
            None => None,
            Some(Err(name)) => Some(Entry::object(name)),
            Some(Ok((name, rest))) => {
                if self.collect_child(dir, path, name, Some(rest), depth)? {
                    return Ok(true);
                }
                Some(Entry::Dir(name.into()))
            }
        };
        loop {
            let (entries, more) = smallest(dir, &self.list, after.as_ref())?;
            after = entries.last().cloned();
            for entry in entries {
                if self.objects.len() == self.list.limit {
                    return Ok(true);
                }
                match entry {
                    Entry::Object(object) => self.objects.push(Object {
                        name: format!("{path}{}", object.name),
                        meta: object.meta,
                    }),
                    Entry::Dir(name) => {
                        if self.collect_child(dir, path, &name, None, depth)? {
                            return Ok(true);
                        }
                    }
                }
            }
            if !more {
                return Ok(false);
            }
        }
    }

    fn collect_child(
        &mut self,
        dir: &Folder,
        path: &str,
        name: &str,
        token: Option<&str>,
        depth: usize,
    ) -> io::Result<bool> {
        let Some(depth) = depth.checked_sub(1) else {
            return Ok(false);
        };
        match dir.open(name) {
            Ok(child) => self.collect(&child, &format!("{path}{name}/"), token, depth),
            // Removed since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}
