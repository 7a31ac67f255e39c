//! Lists all objects below a directory of a backend that lists one directory at a time.
//!
//! A page ends at an object, and the next one goes on behind it: the token is that object's name.

use std::collections::VecDeque;

use super::{Entry, List, Object, RecursiveList, RecursivePage, Result, Storage};

/// A directory of which not everything was seen.
struct Open {
    /// Below the directory of the list; empty, or with a `/` at its end.
    path: String,
    /// Entries that were listed and not seen yet.
    entries: VecDeque<Entry>,
    /// The last entry that was listed.
    after: Option<Entry>,
    more: bool,
}

impl Open {
    fn new(path: String, after: Option<Entry>) -> Self {
        Self {
            path,
            entries: VecDeque::new(),
            after,
            more: true,
        }
    }
}

pub(crate) async fn page<S: Storage + ?Sized>(
    storage: &S,
    list: &RecursiveList<'_>,
) -> Result<RecursivePage> {
    let limit = list.limit.max(1);
    let mut page = RecursivePage::default();
    let mut open = resume(list.token.as_deref());
    while let Some(dir) = open.last_mut() {
        let Some(entry) = dir.entries.pop_front() else {
            if dir.more {
                let below = path_below(list.dir, &dir.path);
                let asked = List {
                    dir: &below,
                    prefix: "",
                    after: dir.after.clone(),
                    limit,
                    meta: list.meta,
                };
                let found = storage.list(&asked).await?;
                page.now = page.now.or(found.now);
                dir.after = found.entries.last().cloned().or(dir.after.take());
                dir.more = found.more && !found.entries.is_empty();
                dir.entries = found.entries.into();
            } else {
                open.pop();
            }
            continue;
        };
        if page.objects.len() == limit {
            page.next = page.objects.last().map(|last| last.name.clone());
            break;
        }
        let path = format!("{}{}", dir.path, entry.name());
        match entry {
            Entry::Object(object) => page.objects.push(Object {
                name: path,
                meta: object.meta,
            }),
            Entry::Dir(_) => open.push(Open::new(path + "/", None)),
        }
    }
    Ok(page)
}

/// The directories above the object of a token, the innermost last.
fn resume(token: Option<&str>) -> Vec<Open> {
    let Some(token) = token else {
        return vec![Open::new(String::new(), None)];
    };
    let mut open = Vec::new();
    let mut start = 0;
    for (end, _) in token.match_indices('/') {
        let after = Entry::Dir(token[start..end].into());
        open.push(Open::new(token[..start].into(), Some(after)));
        start = end + 1;
    }
    let after = Entry::object(&token[start..]);
    open.push(Open::new(token[..start].into(), Some(after)));
    open
}

/// The key of a directory that is `path` below `dir`.
fn path_below(dir: &str, path: &str) -> String {
    let path = path.trim_end_matches('/');
    if dir.is_empty() || path.is_empty() {
        format!("{dir}{path}")
    } else {
        format!("{dir}/{path}")
    }
}
