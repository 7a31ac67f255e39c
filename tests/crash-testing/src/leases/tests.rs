//! That histories of hosts with leases find what was broken on purpose, and nothing else.

use super::*;

const SEED: u64 = 7;

/// Histories in which a bug must show itself.
const ENOUGH: u64 = 1500;

/// Checks that a bug is found. One of `says` is in what is found: the histories run on threads, so
/// one that breaks two rules may show itself by either.
fn finds(bug: Bug, says: &[&str]) {
    let report = in_memory(SEED, ENOUGH, Some(bug)).expect("histories are made");
    let found = report
        .violations
        .first()
        .unwrap_or_else(|| panic!("{bug:?} was not found: {report}"));
    println!("{bug:?} after {} histories: {found}", report.total());
    assert!(says.iter().any(|text| found.contains(text)), "{found}");
}

#[test]
fn hosts_with_leases_save_no_turn_twice() {
    let report = in_memory(SEED, 100, None).expect("histories are made");
    println!("{report}");
    assert!(report.violations.is_empty(), "{report}");
}

#[test]
fn a_holder_that_saves_on_any_version_is_found() {
    finds(
        Bug::SavesAny,
        &["was computed from", "was saved under lease"],
    );
}

#[test]
fn a_holder_that_does_not_look_at_the_newest_lease_is_found() {
    finds(Bug::OldListBelieved, &["was saved under lease"]);
}
