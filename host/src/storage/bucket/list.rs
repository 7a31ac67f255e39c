//! Lists: pages of what is directly under a directory, and of everything below it.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::driver::{After, Directories, Driver, ListRequest, ListResponse, Request};
use super::shared::Bucket;
use crate::storage::key::is_segment;
use crate::storage::{
    Entry, Error, ErrorKind, List, Object, Page, RecursiveList, RecursivePage, Result,
};

/// The most entries of one response.
const MAX_ENTRIES: usize = 1000;

/// The most pages in a row of which nothing is used. What others keep below the prefix may fill a
/// million entries.
const MAX_EMPTY_PAGES: usize = 1000;

impl<D: Driver> Bucket<D> {
    /// The page that `list` asks for.
    pub(super) async fn page(&self, list: &List<'_>) -> Result<Page> {
        let base = self.base(list.dir);
        let limit = list.limit.clamp(1, MAX_ENTRIES);
        let after = list.after.as_ref();
        let mut request = ListRequest {
            prefix: format!("{base}{}", list.prefix),
            directories: true,
            after: after.map(|entry| match entry {
                Entry::Object(object) => After::Key(format!("{base}{}", object.name)),
                Entry::Dir(name) => After::Directory(format!("{base}{name}")),
            }),
            limit,
            token: None,
        };
        let mut found = Vec::new();
        let mut pages = Pages::default();
        loop {
            let response = self.list_once(&request).await?;
            let is_first = request.token.is_none();
            let now = response.now.filter(|_| list.meta);
            self.check_order(&response)?;
            found.extend(entries(&response, &base, list.meta));
            let mut held = Vec::new();
            match self.directories() {
                Directories::InOrder => {}
                Directories::InOrderOrByName => {
                    if is_first {
                        found.extend(self.passed_over(list, &base).await?);
                    }
                    if response.more {
                        held = hold_back(&mut found);
                    }
                }
                Directories::BesideObjects => {
                    found.sort();
                    if response.more {
                        leave_to_next_page(&mut found);
                    }
                }
            }
            found.retain(|entry| after.is_none_or(|after| entry > after));
            found.sort();
            found.dedup();
            // What others put there, and the entry that the list goes on from, may fill a response
            // of which nothing is left.
            if !found.is_empty() || !response.more {
                let cut = found.len() > limit;
                found.truncate(limit);
                return Ok(Page {
                    entries: found,
                    more: response.more || cut,
                    now,
                });
            }
            found = held;
            pages.empty()?;
            request.after = None;
            request.token = Some(pages.next(response.token)?);
        }
    }

    /// The page of all objects below a directory that `list` asks for. Its token is the server's
    /// own, so that it goes on where the server was, in whatever order that lists.
    pub(super) async fn recursive_page(&self, list: &RecursiveList<'_>) -> Result<RecursivePage> {
        let base = self.base(list.dir);
        let mut request = ListRequest {
            prefix: base.clone(),
            directories: false,
            after: None,
            limit: list.limit.clamp(1, MAX_ENTRIES),
            token: list.token.clone(),
        };
        let mut pages = Pages::after(&request.token);
        loop {
            let response = self.list_once(&request).await?;
            let objects = response.objects.iter().filter_map(|listed| {
                let name = listed.key.strip_prefix(&base)?;
                name.split('/').all(is_segment).then(|| Object {
                    name: name.into(),
                    meta: listed.meta.filter(|_| list.meta),
                })
            });
            let objects: Vec<_> = objects.collect();
            let next = if response.more {
                Some(pages.next(response.token)?)
            } else {
                None
            };
            // What others put there may fill a response.
            if !objects.is_empty() || next.is_none() {
                return Ok(RecursivePage {
                    objects,
                    next,
                    now: response.now.filter(|_| list.meta),
                });
            }
            pages.empty()?;
            request.token = next;
        }
    }

    /// Key of a directory, with the `/` at its end.
    fn base(&self, dir: &str) -> String {
        let prefix = &self.settings().prefix;
        match dir {
            "" => prefix.clone(),
            dir => format!("{prefix}{dir}/"),
        }
    }

    async fn list_once(&self, request: &ListRequest) -> Result<ListResponse> {
        let list = || self.driver().list(request);
        let response = self.call(Request::List, &request.prefix, 0, list).await?;
        if !self.settings().is_own_server {
            let sizes = response.objects.iter().filter_map(|listed| {
                let meta = listed.meta.as_ref()?;
                Some((listed.key.as_str(), meta.size))
            });
            self.shared.sizes.record(sizes);
        }
        Ok(response)
    }

    // A provider lists in the order of keys, where a directory ends in `/`: `a-` and `a.b/` come
    // before `a/`. A server that walks a tree of directories (SeaweedFS) lists by name, where `a`
    // comes first. A page of it is put in order like any other; but what belongs before a directory
    // may come on a later page, and a directory may have come before the entry that this page goes
    // on from. No response says which order a server has, so that both are handled wherever it may
    // be any.

    fn directories(&self) -> Directories {
        match D::DIRECTORIES {
            Directories::InOrderOrByName if self.settings().is_own_server => Directories::InOrder,
            directories => directories,
        }
    }

    /// Refuses a response whose objects or directories are not in order: neither by key nor, where
    /// that may be, by name.
    fn check_order(&self, response: &ListResponse) -> Result<()> {
        check_order(response, self.directories() == Directories::InOrderOrByName)
    }

    /// Directories that a server which lists by name passed over, since their name is the beginning
    /// of the one that the list goes on from.
    async fn passed_over(&self, list: &List<'_>, base: &str) -> Result<Vec<Entry>> {
        let names = list.after.iter().flat_map(names_that_begin);
        let names: BTreeSet<_> = names
            .filter(|name| !name.is_empty() && name.starts_with(list.prefix))
            .collect();
        let mut dirs = Vec::new();
        for name in names {
            let below = ListRequest {
                prefix: format!("{base}{name}/"),
                directories: false,
                after: None,
                limit: 1,
                token: None,
            };
            if !self.list_once(&below).await?.objects.is_empty() {
                dirs.push(Entry::Dir(name.into()));
            }
        }
        Ok(dirs)
    }
}

fn check_order(response: &ListResponse, may_be_by_name: bool) -> Result<()> {
    let keys = response.objects.iter().map(|listed| &listed.key);
    let dirs = &response.directories;
    let names = dirs.iter().map(|dir| dir.trim_end_matches('/'));
    if keys.is_sorted() && (dirs.is_sorted() || may_be_by_name && names.is_sorted()) {
        return Ok(());
    }
    let what = "this server does not list keys in order, so the newest version could be missed";
    Err(Error::new(ErrorKind::Unsupported, what).with_hint("use another storage"))
}

/// Names of directories that come before `entry` by name, and after it by key.
fn names_that_begin(entry: &Entry) -> impl Iterator<Item = &str> {
    let name = entry.name();
    let ends = name.match_indices(['-', '.']).map(|(end, _)| end);
    ends.map(move |end| &name[..end])
}

/// Takes out the directories before which something may belong that is still to come.
fn hold_back(found: &mut Vec<Entry>) -> Vec<Entry> {
    let Some(last) = found.iter().map(Entry::name).max().map(str::to_owned) else {
        return Vec::new();
    };
    let is_early = |entry: &mut Entry| match entry {
        Entry::Object(_) => false,
        Entry::Dir(name) => last
            .strip_prefix(name.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.'])),
    };
    found.extract_if(.., is_early).collect()
}

/// Leaves what comes after the last object of a page that has one to the next page.
fn leave_to_next_page(found: &mut Vec<Entry>) {
    let last = found
        .iter()
        .rposition(|entry| matches!(entry, Entry::Object(_)));
    if let Some(last) = last {
        found.truncate(last + 1);
    }
}

/// Returns the entries that the response has directly under `base`. Skips names that cannot be keys
/// of ours.
fn entries(response: &ListResponse, base: &str, meta: bool) -> Vec<Entry> {
    let objects = response.objects.iter().filter_map(|listed| {
        let name = listed.key.strip_prefix(base)?;
        is_segment(name).then(|| {
            Entry::Object(Object {
                name: name.into(),
                meta: listed.meta.filter(|_| meta),
            })
        })
    });
    let dirs = response.directories.iter().filter_map(|dir| {
        let name = dir.strip_prefix(base)?.strip_suffix('/')?;
        is_segment(name).then(|| Entry::Dir(name.into()))
    });
    objects.chain(dirs).collect()
}

/// The pages of one list, which must come to an end.
#[derive(Debug, Default)]
pub(super) struct Pages {
    /// Hashes of the tokens so far: a server chooses their length.
    seen: HashSet<u64>,
    empty: usize,
}

impl Pages {
    /// Returns the pages of a list that went on with `token`.
    fn after(token: &Option<String>) -> Self {
        let mut pages = Self::default();
        if token.is_some() {
            // The first of its tokens is new.
            let _ = pages.next(token.clone());
        }
        pages
    }

    /// Returns the token that the list goes on with.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the server gives none, or one that it gave before, which
    /// would never end.
    pub(super) fn next(&mut self, token: Option<String>) -> Result<String> {
        let is_new = |token: &String| {
            let mut hasher = DefaultHasher::new();
            token.hash(&mut hasher);
            self.seen.insert(hasher.finish())
        };
        token.filter(is_new).ok_or_else(|| {
            let what = "the server returned a truncated list without a continuation token";
            Error::new(ErrorKind::Unsupported, what)
        })
    }

    /// Counts a page of which nothing is used.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where there were too many.
    fn empty(&mut self) -> Result<()> {
        self.empty += 1;
        if self.empty < MAX_EMPTY_PAGES {
            return Ok(());
        }
        let what = format!(
            "{MAX_EMPTY_PAGES} successive pages of a list had no object of this store, and the \
             list is not complete"
        );
        Err(Error::new(ErrorKind::Unsupported, what)
            .with_hint("use a prefix that no other program uses, or another server"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::ListedObject;
    use super::*;

    fn response(keys: &[&str], directories: &[&str]) -> ListResponse {
        let listed = |key: &&str| ListedObject {
            key: (*key).into(),
            meta: None,
        };
        ListResponse {
            objects: keys.iter().map(listed).collect(),
            directories: directories.iter().map(|&dir| dir.into()).collect(),
            ..ListResponse::default()
        }
    }

    #[test]
    fn objects_and_directories_are_merged_in_the_order_of_keys() {
        let response = response(&["p/a-", "p/b"], &["p/a.b/", "p/a/", "p/c/"]);
        let expected = [
            Entry::object("a-"),
            Entry::Dir("a.b".into()),
            Entry::Dir("a".into()),
            Entry::object("b"),
            Entry::Dir("c".into()),
        ];
        let mut found = entries(&response, "p/", false);
        found.sort();
        assert_eq!(found, expected);
        leave_to_next_page(&mut found);
        assert_eq!(found, expected[..4], "b- may come on the next page");
    }

    #[test]
    fn a_list_out_of_order_is_refused() {
        let in_order = response(&["p/a", "p/b"], &["p/a-/", "p/a/"]);
        let by_name = response(&["p/a", "p/b"], &["p/a/", "p/a-/"]);
        for may_be_by_name in [false, true] {
            check_order(&in_order, may_be_by_name).expect("in order");
            assert_eq!(
                check_order(&by_name, may_be_by_name).is_ok(),
                may_be_by_name
            );
            for wrong in [
                response(&["p/b", "p/a"], &["p/a-/", "p/a/"]),
                response(&["p/a", "p/b"], &["p/b/", "p/a/"]),
            ] {
                let refused = check_order(&wrong, may_be_by_name).expect_err("is out of order");
                assert_eq!(refused.kind(), ErrorKind::Unsupported);
            }
        }
    }

    #[test]
    fn a_directory_waits_for_what_may_belong_before_it() {
        let dir = |name: &str| Entry::Dir(name.into());
        let mut found = vec![Entry::object("a-"), dir("a")];
        assert_eq!(hold_back(&mut found), [dir("a")]);
        assert_eq!(found, [Entry::object("a-")]);
        let mut found = vec![dir("a"), dir("b")];
        assert_eq!(hold_back(&mut found), [dir("b")], "b- may follow");
        let mut found = vec![dir("a"), Entry::object("a0")];
        assert_eq!(
            hold_back(&mut found),
            [],
            "nothing follows that begins with a- or a."
        );
        let name = Entry::object("a-1.gz");
        assert_eq!(names_that_begin(&name).collect::<Vec<_>>(), ["a", "a-1"]);
    }

    #[test]
    fn foreign_objects_in_the_bucket_are_skipped() {
        let keys = ["p/", "p/a b", "p/é", "p/.hidden", "elsewhere", "p/~ours"];
        let response = response(&keys, &["p//", "q/"]);
        assert_eq!(entries(&response, "p/", false), [Entry::object("~ours")]);
    }

    #[test]
    fn a_token_that_comes_again_ends_a_list() {
        let mut pages = Pages::default();
        for token in ["a", "b", "c"] {
            assert_eq!(pages.next(Some(token.into())).expect("goes on"), token);
        }
        for token in [Some("a".into()), None] {
            let error = pages.next(token).expect_err("never ends");
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    }

    #[test]
    fn empty_pages_without_end_are_an_error() {
        let mut pages = Pages::default();
        for _ in 1..MAX_EMPTY_PAGES {
            pages.empty().expect("a large bucket");
        }
        pages.empty().expect_err("too many");
    }
}
