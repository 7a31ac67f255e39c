//! `history` and `names` as iterators over pages.

use std::vec::IntoIter;

use crate::{Error, Info, Version, store};

/// Items asked for at once: an agent mostly looks at the newest few, and each costs a read.
const PAGE: u32 = 20;

/// The versions of a name, newest first. After an error it ends.
///
/// Made by [`history`](crate::history).
#[derive(Debug)]
pub struct History {
    name: String,
    before: Option<Version>,
    page: IntoIter<Info>,
    ended: bool,
}

impl History {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            before: None,
            page: Vec::new().into_iter(),
            ended: false,
        }
    }
}

impl Iterator for History {
    type Item = Result<Info, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self {
            name,
            before,
            page,
            ended,
        } = self;
        let next = next_of(page, ended, || store::history(name, *before, PAGE));
        if let Some(Ok(info)) = &next {
            *before = Some(info.version);
        }
        next
    }
}

/// Names that begin with a prefix. After an error it ends.
///
/// Made by [`names`](crate::names).
#[derive(Debug)]
pub struct Names {
    prefix: String,
    after: Option<String>,
    page: IntoIter<String>,
    ended: bool,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self {
            prefix: prefix.into(),
            after: None,
            page: Vec::new().into_iter(),
            ended: false,
        }
    }
}

impl Iterator for Names {
    type Item = Result<String, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self {
            prefix,
            after,
            page,
            ended,
        } = self;
        let next = next_of(page, ended, || store::names(prefix, after.as_deref(), PAGE));
        if let Some(Ok(name)) = &next {
            *after = Some(name.clone());
        }
        next
    }
}

/// The next item of the page, or of the next page. A short page is not the end, an empty one is.
fn next_of<T>(
    page: &mut IntoIter<T>,
    ended: &mut bool,
    fetch: impl FnOnce() -> Result<Vec<T>, Error>,
) -> Option<Result<T, Error>> {
    if let Some(item) = page.next() {
        return Some(Ok(item));
    }
    if *ended {
        return None;
    }
    match fetch() {
        Ok(items) => *page = items.into_iter(),
        Err(error) => {
            *ended = true;
            return Some(Err(error));
        }
    }
    let first = page.next();
    *ended = first.is_none();
    first.map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{double, history, limits, names, save};

    #[test]
    fn iterators_go_over_pages_however_short() -> Result<(), Error> {
        let mut small = limits();
        small.max_page = 2;
        double::set_limits(small);
        for turn in 0..5 {
            save("memory", format!("{turn}"))?;
            save(&format!("notes/{turn}"), "")?;
        }
        let versions: Vec<_> = history("memory")
            .map(|info| info.map(|info| info.version))
            .collect::<Result<_, _>>()?;
        assert_eq!(versions, [5, 4, 3, 2, 1]);
        let found: Vec<_> = names("notes/").collect::<Result<_, _>>()?;
        assert_eq!(
            found,
            ["notes/0", "notes/1", "notes/2", "notes/3", "notes/4"]
        );
        Ok(())
    }

    #[test]
    fn an_error_is_told_once_and_ends_the_iterator() -> Result<(), Error> {
        save("memory", "")?;
        double::fail_next(Error::Timeout);
        let mut versions = history("memory");
        assert_eq!(versions.next(), Some(Err(Error::Timeout)));
        assert_eq!(versions.next(), None);
        Ok(())
    }

    #[test]
    fn the_history_of_a_name_never_saved_is_empty() {
        assert_eq!(history("memory").next(), None);
    }
}
