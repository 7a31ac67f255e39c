//! Lists that are wrong in the ways of servers: out of order, incomplete, repeated, out of date.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::storage::{Entry, Key, List, Page, Result, Storage};

/// A way in which the lists of a storage are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListFault {
    /// Entries follow the order of their hashes, within a page and from page to page.
    Unordered,
    /// Entries are divided into pages by the order of their hashes; each page in itself is in
    /// order.
    UnorderedPages,
    /// Entries follow each other from the last to the first.
    Descending,
    /// An entry is missing: the first of all, and no page ever shows it.
    FirstMissing,
    /// An entry is missing: the last of all, and no page ever shows it.
    LastMissing,
    /// The first entry of a page is the last one of the page before.
    Repeated,
    /// A full page says that nothing follows.
    CutShort,
    /// Each page is the first one, whatever was shown before.
    AfterIgnored,
    /// The object that was created last is missing until another one is created.
    Stale,
}

impl ListFault {
    /// Every fault.
    pub const ALL: &[Self] = &[
        Self::Unordered,
        Self::UnorderedPages,
        Self::Descending,
        Self::FirstMissing,
        Self::LastMissing,
        Self::Repeated,
        Self::CutShort,
        Self::AfterIgnored,
        Self::Stale,
    ];

    /// Makes a page that is wrong in this way. `newest` is the object that was created last.
    pub(super) async fn page(
        self,
        storage: &dyn Storage,
        list: &List<'_>,
        newest: Option<&Key>,
    ) -> Result<Page> {
        let mut page = all(storage, list).await?;
        let entries = &mut page.entries;
        match self {
            Self::Unordered | Self::UnorderedPages => entries.sort_by_cached_key(hash),
            Self::Descending => entries.reverse(),
            Self::FirstMissing if !entries.is_empty() => drop(entries.remove(0)),
            Self::LastMissing => drop(entries.pop()),
            Self::Stale => entries.retain(|entry| !is_at(list.dir, entry, newest)),
            _ => {}
        }
        let is_after = list.after.as_ref().filter(|_| self != Self::AfterIgnored);
        if let Some(after) = is_after {
            let at = entries.iter().position(|entry| entry == after);
            let shown = match at {
                Some(at) if self == Self::Repeated => at,
                Some(at) => at + 1,
                // It was deleted since.
                None => entries.iter().filter(|entry| *entry < after).count(),
            };
            entries.drain(..shown);
        }
        page.more = entries.len() > list.limit && self != Self::CutShort;
        entries.truncate(list.limit);
        if self == Self::UnorderedPages {
            entries.sort();
        }
        Ok(page)
    }
}

/// Every entry, as the storage itself lists them.
async fn all(storage: &dyn Storage, list: &List<'_>) -> Result<Page> {
    let mut whole = Page::default();
    loop {
        let list = List {
            after: whole.entries.last().cloned(),
            limit: 1000,
            ..list.clone()
        };
        let page = storage.list(&list).await?;
        whole.now = page.now;
        whole.entries.extend(page.entries);
        if !page.more {
            return Ok(whole);
        }
    }
}

fn hash(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.name().hash(&mut hasher);
    hasher.finish()
}

fn is_at(dir: &str, entry: &Entry, key: Option<&Key>) -> bool {
    matches!(entry, Entry::Object(object)
        if key.is_some_and(|key| key.split() == (dir, object.name.as_str())))
}
