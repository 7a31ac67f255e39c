//! Options of a lease.

use std::time::Duration;

use crate::snapshot::{Error, Result};

/// Shortest and longest term.
const TERMS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(24 * 60 * 60));

/// Longest name of a holder, in bytes.
const MAX_HOLDER: usize = 200;

/// How a lease is acquired.
///
/// ```
/// use std::time::Duration;
///
/// use persist_host::snapshot::LeaseOptions;
///
/// let mut options = LeaseOptions::default();
/// options.term = Duration::from_secs(10);
/// options.holder = "worker-7".into();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseOptions {
    /// Time between two renewals; 30 seconds, and from 10 milliseconds to one day. Another host may
    /// take over when the lease was not renewed for one and a half terms.
    pub term: Duration,
    /// Longest wait for a lease that another host holds; zero: none.
    pub wait: Duration,
    /// Name of the holder, for people: the host's name and the number of the process.
    pub holder: String,
}

impl Default for LeaseOptions {
    fn default() -> Self {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy();
        Self {
            term: Duration::from_secs(30),
            wait: Duration::ZERO,
            holder: format!("{host}:{}", std::process::id()),
        }
    }
}

impl LeaseOptions {
    /// Refuses a term or a name that no lease can have.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn check(&self) -> Result<()> {
        let (shortest, longest) = TERMS;
        if !(shortest..=longest).contains(&self.term) {
            return Err(Error::Invalid(format!(
                "the term of a lease is {}; write one from {} to {}",
                humantime::format_duration(self.term),
                humantime::format_duration(shortest),
                humantime::format_duration(longest),
            )));
        }
        check_holder(&self.holder)
    }
}

/// Refuses a name that a list or a message could not show.
pub(super) fn check_holder(holder: &str) -> Result<()> {
    let is_shown = !holder.is_empty() && !holder.chars().any(char::is_control);
    if is_shown && holder.len() <= MAX_HOLDER {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "the holder of a lease has a name of 1 to {MAX_HOLDER} bytes without control characters"
    )))
}
