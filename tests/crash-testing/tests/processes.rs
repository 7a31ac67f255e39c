//! A bounded part of what the laboratory does with processes of its own, and what was broken on
//! purpose under them.

use std::path::Path;

use persist_crash_testing::{histories, kill, leases};

const SEED: u64 = 7;

fn lab() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_persist-crash-testing"))
}

#[test]
fn histories_of_processes_that_are_stopped_and_killed_are_linear() {
    let report = histories::in_processes(lab(), SEED, 12).expect("histories are made");
    assert!(report.violations.is_empty(), "{report}");
}

#[test]
fn processes_with_leases_that_are_stopped_and_killed_save_no_turn_twice() {
    let report = leases::in_processes(lab(), SEED, 3).expect("histories are made");
    assert!(report.violations.is_empty(), "{report}");
}

#[test]
fn nothing_that_was_acknowledged_before_a_kill_is_lost() {
    let report = kill::kills(lab(), SEED, 60, None).expect("processes are killed");
    assert!(report.violations.is_empty(), "{report}");
}

fn finds(bug: kill::Bug) {
    let report = kill::kills(lab(), SEED, 60, Some(bug)).expect("processes are killed");
    assert!(!report.violations.is_empty(), "{bug:?} was not found");
}

#[test]
fn a_version_that_is_acknowledged_before_it_is_made_is_found() {
    finds(kill::Bug::AnswersFirst);
}

#[test]
fn a_version_that_is_written_in_place_is_found() {
    finds(kill::Bug::WritesInPlace);
}

#[test]
fn files_that_are_left_behind_are_found() {
    finds(kill::Bug::Litters);
}
