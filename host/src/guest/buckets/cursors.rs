//! Cursors that are numbers, for the places in lists of keys.

use std::collections::VecDeque;

use super::BucketError;

/// Cursors that are kept. A guest that lists uses the newest one.
const MAX_CURSORS: usize = 64;

/// The newest cursors of one guest, each with its bucket and the place after which its page begins.
#[derive(Default)]
pub(super) struct Cursors {
    kept: VecDeque<(u64, String, String)>,
    newest: u64,
}

impl Cursors {
    /// Keeps a place, and returns its cursor.
    pub(super) fn keep(&mut self, bucket: &str, after: String) -> u64 {
        if self.kept.len() == MAX_CURSORS {
            self.kept.pop_front();
        }
        self.newest += 1;
        self.kept.push_back((self.newest, bucket.into(), after));
        self.newest
    }

    /// Returns the place of a cursor.
    pub(super) fn find(&self, bucket: &str, cursor: u64) -> Result<String, BucketError> {
        let is_it = |(kept, of, _): &&(u64, String, String)| *kept == cursor && of == bucket;
        match self.kept.iter().find(is_it) {
            Some((_, _, after)) => Ok(after.clone()),
            None => Err(BucketError::other(format!(
                "invalid cursor {cursor}: it is of another bucket or another run, or over \
                 {MAX_CURSORS} newer ones were made; list from the start"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_cursors_of_a_bucket_are_found_and_no_others() {
        let mut cursors = Cursors::default();
        let first = cursors.keep("a", "one".into());
        assert_eq!(cursors.find("a", first).as_deref(), Ok("one"));
        assert!(cursors.find("b", first).is_err());
        assert!(cursors.find("a", first + 1).is_err());
        let last = (0..MAX_CURSORS).map(|_| cursors.keep("a", "two".into()));
        let last = last.last().expect("some");
        assert!(cursors.find("a", first).is_err());
        assert_eq!(cursors.find("a", last).as_deref(), Ok("two"));
        assert_eq!(cursors.kept.len(), MAX_CURSORS);
    }
}
