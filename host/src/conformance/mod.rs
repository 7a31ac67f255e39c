//! One suite for every storage: run it on yours before you trust snapshots to it.
//!
//! ```
//! # use std::sync::Arc;
//! use persist_host::conformance;
//! use persist_host::storage::{Memory, Storage};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let storage = Memory::new();
//! // Each call opens the same place anew, as another process would.
//! let report = conformance::run(&|| Arc::new(storage.clone())).await;
//! assert!(report.is_ok(), "{report}");
//! # });
//! ```
//!
//! Each check works under a directory of its own with a random name, and leaves its objects there:
//! give it a place that may be thrown away.
//!
//! | group | what it asks |
//! |---|---|
//! | `calls` | what each call promises, and which kind of error it gives |
//! | `pages` | lists: order, pages that meet, prefixes, at once after a change |
//! | `races` | one winner for each key, from several handles on the same place |
//! | `snapshots` | that the layer above keeps its word on this storage: lost replies, a host that dies at any call |

mod calls;
mod faults;
mod forward;
mod lists;
mod pages;
mod place;
mod races;
mod snapshots;

pub use faults::{Fault, Faulty};
pub use forward::Forward;
pub use lists::ListFault;
pub use place::{Open, noise};

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::storage::Storage;
use crate::storage::probe::{self, Way};
use place::{Place, Verdict};

type Check = for<'a> fn(&'a Place<'a>) -> Pin<Box<dyn Future<Output = Verdict> + 'a>>;

/// Each check, by the claim that it makes.
const CHECKS: &[(&str, Check)] = &[
    ("what is created is read back", |p| {
        Box::pin(calls::what_is_created_is_read_back(p))
    }),
    ("what is there is not created again", |p| {
        Box::pin(calls::what_is_there_is_not_created_again(p))
    }),
    ("what is not there is not found", |p| {
        Box::pin(calls::what_is_not_there_is_not_found(p))
    }),
    ("a range is exactly what was asked for", |p| {
        Box::pin(calls::a_range_is_what_was_asked_for(p))
    }),
    ("an upload is visible when it is finished", |p| {
        Box::pin(calls::an_upload_is_visible_when_finished(p))
    }),
    ("an upload does not overwrite", |p| {
        Box::pin(calls::an_upload_does_not_overwrite(p))
    }),
    ("what is replaced is new", |p| {
        Box::pin(calls::what_is_replaced_is_new(p))
    }),
    ("what is deleted is gone", |p| {
        Box::pin(calls::what_is_deleted_is_gone(p))
    }),
    ("odd keys stay apart", |p| {
        Box::pin(calls::odd_keys_stay_apart(p))
    }),
    ("a list is in order, and its pages meet", |p| {
        Box::pin(pages::a_list_is_in_order(p))
    }),
    ("a list shows directories with something in them", |p| {
        Box::pin(pages::a_list_shows_directories(p))
    }),
    ("a list keeps to its prefix", |p| {
        Box::pin(pages::a_list_keeps_to_its_prefix(p))
    }),
    ("a recursive list shows every object once", |p| {
        Box::pin(pages::a_recursive_list_shows_every_object_once(p))
    }),
    ("a list shows a change at once", |p| {
        Box::pin(pages::a_list_shows_a_change_at_once(p))
    }),
    ("a list tells sizes and times", |p| {
        Box::pin(pages::a_list_tells_sizes_and_times(p))
    }),
    ("one of many creates wins", |p| {
        Box::pin(races::one_of_many_creates_wins(p))
    }),
    ("one of many uploads wins", |p| {
        Box::pin(races::one_of_many_uploads_wins(p))
    }),
    ("racing saves are all there", |p| {
        Box::pin(races::racing_saves_are_all_there(p))
    }),
    ("a lost reply is recognised", |p| {
        Box::pin(snapshots::a_lost_reply_is_recognised(p))
    }),
    ("a host may die at any call", |p| {
        Box::pin(snapshots::a_host_may_die_at_any_call(p))
    }),
];

/// Records in a storage that a server was probed, without probing it: for tests that give each
/// store a place of its own on a server that is known. [`Storage::unknown_server`] tells the name
/// of the server.
///
/// # Errors
/// Any kind.
pub async fn record_probe(
    storage: &dyn Storage,
    server: &str,
    way: Way,
) -> crate::storage::Result<()> {
    probe::record_unprobed(storage, server, way).await
}

/// Runs every check on the storage that `open` opens.
pub async fn run(open: Open<'_>) -> Report {
    run_some(open, |_| true).await
}

/// Runs the checks whose claims `wanted` accepts, on the storage that `open` opens.
pub async fn run_some(open: Open<'_>, wanted: impl Fn(&str) -> bool) -> Report {
    let mut report = Report::default();
    for (claim, check) in CHECKS.iter().filter(|(claim, _)| wanted(claim)) {
        report.checked += 1;
        if let Err(what) = check(&Place::new(open)).await {
            report.failures.push(Failure { claim, what });
        }
    }
    report
}

/// Result of the suite.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How many claims were looked at.
    pub checked: usize,
    /// Those that do not hold.
    pub failures: Vec<Failure>,
}

/// A claim that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// The claim.
    pub claim: &'static str,
    /// Description of what was seen instead.
    pub what: String,
}

impl Report {
    /// Returns true if every claim holds.
    pub fn is_ok(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.checked - self.failures.len();
        write!(f, "{held} of {} claims hold", self.checked)?;
        for failure in &self.failures {
            write!(f, "\n- not so: {}: {}", failure.claim, failure.what)?;
        }
        Ok(())
    }
}
