//! Sizes of objects that a list has shown.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Number of sizes that are kept: more than the pages of one list have.
const MAX_SIZES: usize = 4096;

/// Sizes of listed objects, by key. They may be out of date: an object may have been replaced.
#[derive(Debug, Default)]
pub(super) struct ListedSizes(Mutex<HashMap<String, u64>>);

impl ListedSizes {
    pub(super) fn record<'a>(&self, listed: impl Iterator<Item = (&'a str, u64)>) {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, size) in listed {
            if sizes.len() >= MAX_SIZES {
                sizes.clear();
            }
            sizes.insert(key.into(), size);
        }
    }

    /// Takes the size of an object. A size that is taken twice would be out of date the second
    /// time.
    pub(super) fn take(&self, key: &str) -> Option<u64> {
        let mut sizes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.remove(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_taken_once_and_bounded() {
        let sizes = ListedSizes::default();
        sizes.record([("a", 1), ("b", 2)].into_iter());
        assert_eq!((sizes.take("a"), sizes.take("a")), (Some(1), None));
        let keys: Vec<_> = (0..MAX_SIZES).map(|number| number.to_string()).collect();
        sizes.record(keys.iter().map(|key| (key.as_str(), 3)));
        assert!(sizes.0.lock().expect("no panic").len() <= MAX_SIZES);
        let last = keys.last().expect("some");
        assert_eq!(sizes.take(last), Some(3));
    }
}
