//! Lists of any length, one page after the other.

use super::{Error, ErrorKind, List, Page, Result, Storage};

/// Reads a list page by page: the only place that continues a [`List`] after its last entry.
///
/// ```
/// use persist_host::storage::{Key, List, Memory, Pager, Storage};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let storage = Memory::new();
/// for name in ["a", "b", "c"] {
///     storage.create(&Key::new(format!("letters/{name}"))?, vec!["x".into()]).await?;
/// }
/// let mut pages = Pager::new(&storage, List::new("letters").with_limit(2));
/// let mut names = Vec::new();
/// while let Some(page) = pages.next().await? {
///     names.extend(page.entries.iter().map(|entry| entry.name().to_owned()));
/// }
/// assert_eq!(names, ["a", "b", "c"]);
/// # Ok::<(), persist_host::storage::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Pager<'a> {
    storage: &'a dyn Storage,
    list: List<'a>,
    has_more: bool,
}

impl<'a> Pager<'a> {
    /// Starts where `list` starts. Sends no request yet.
    pub fn new(storage: &'a dyn Storage, list: List<'a>) -> Self {
        Self {
            storage,
            list,
            has_more: true,
        }
    }

    /// Returns the next page, or `None` after the last one. A list has at least one page, which is
    /// empty if nothing matches. After an error, the next call asks for the same page again.
    ///
    /// # Errors
    /// Errors of [`Storage::list`]; [`ErrorKind::Unsupported`] if the storage returns an empty page
    /// and claims that more entries follow, since the list cannot continue from it.
    pub async fn next(&mut self) -> Result<Option<Page>> {
        if !self.has_more {
            return Ok(None);
        }
        let page = self.storage.list(&self.list).await?;
        match page.entries.last() {
            Some(last) => self.list.after = Some(last.clone()),
            None if page.more => {
                let what = "the storage returned an empty page of a list that goes on";
                return Err(Error::new(ErrorKind::Unsupported, what).with_hint("check the server"));
            }
            None => {}
        }
        self.has_more = page.more;
        Ok(Some(page))
    }

    /// Returns true if [`Pager::next`] may return another page.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Raises the limit on the entries of the following pages to at least `limit`.
    pub fn widen(&mut self, limit: usize) {
        self.list.limit = self.list.limit.max(limit);
    }

    /// Ends the list: [`Pager::next`] returns `None` from now on.
    pub fn stop(&mut self) {
        self.has_more = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Key, Memory};
    use bytes::Bytes;

    #[tokio::test]
    async fn an_empty_list_has_one_empty_page() {
        let storage = Memory::new();
        let mut pages = Pager::new(&storage, List::new("none"));
        let page = pages.next().await.expect("a list").expect("a page");
        assert!(page.entries.is_empty());
        assert!(!pages.has_more());
        assert!(pages.next().await.expect("the end").is_none());
    }

    #[tokio::test]
    async fn a_wider_page_continues_after_a_narrow_one() {
        let storage = Memory::new();
        for name in ["a", "b", "c", "d"] {
            let key = Key::new(format!("dir/{name}")).expect("a key");
            storage
                .create(&key, vec![Bytes::from_static(b"x")])
                .await
                .expect("created");
        }
        let mut pages = Pager::new(&storage, List::new("dir").with_limit(1));
        let first = pages.next().await.expect("a list").expect("a page");
        assert_eq!(first.entries.len(), 1);
        pages.widen(10);
        let rest = pages.next().await.expect("a list").expect("a page");
        assert_eq!(rest.entries.len(), 3);
        assert!(!pages.has_more());
    }
}
