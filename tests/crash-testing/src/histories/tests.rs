//! That histories find what was broken on purpose, and the checker what it is told.

use super::event::What;
use super::*;

const SEED: u64 = 7;

/// Histories in which a bug must show itself. The rarest shows itself in one of 130, and the search
/// ends with the first: so it is missed once in a billion times.
const ENOUGH: u64 = 3000;

const GRACE: u64 = 1000;

/// An event of a worker of its own on name 0.
fn event(asked: u64, answered: u64, call: Call, answer: Answer) -> Event {
    Event {
        worker: usize::try_from(asked).expect("small"),
        name: 0,
        call,
        asked,
        answered: Some((answered, answer)),
    }
}

fn save(asked: u64, answered: u64, tag: u32, made: u64) -> Event {
    let wanted = Wanted::Any;
    let answer = Answer::Made(made, What::State(tag));
    event(asked, answered, Call::Save { tag, wanted }, answer)
}

fn load(asked: u64, answered: u64, answer: Answer) -> Event {
    event(asked, answered, Call::Load { at: None }, answer)
}

fn history(events: &[Event]) -> History<'_> {
    History {
        before: &[],
        events,
        grace: GRACE,
    }
}

fn is_linear(events: &[Event]) -> bool {
    match history(events).check(0) {
        Verdict::Linear(_) => true,
        Verdict::Not => false,
        Verdict::GivenUp => panic!("it takes too long to decide"),
    }
}

#[test]
fn a_load_sees_what_was_acknowledged_before_it() {
    let state = |version, tag| Answer::Seen(version, What::State(tag));
    let saves = [save(0, 10, 1, 1), save(5, 30, 2, 2)];
    for (asked, answer, holds) in [
        (11, state(1, 1), true),
        (11, state(2, 2), true),
        (31, state(2, 2), true),
        (31, state(1, 1), false),
        (31, state(2, 1), false),
        (31, Answer::Nothing, false),
    ] {
        let load = load(asked, 40, answer);
        let events = [&saves[..], std::slice::from_ref(&load)].concat();
        assert_eq!(is_linear(&events), holds, "{load:?}");
    }
}

#[test]
fn one_number_is_acknowledged_once() {
    assert!(is_linear(&[save(0, 10, 1, 1), save(0, 10, 2, 2)]));
    assert!(!is_linear(&[save(0, 10, 1, 1), save(0, 10, 2, 1)]));
}

#[test]
fn a_change_of_unknown_outcome_happens_late_or_never_and_not_twice() {
    let wanted = Wanted::Any;
    let unknown = event(
        0,
        1,
        Call::Save { tag: 9, wanted },
        Answer::Unknown(Some(1)),
    );
    let seen = |asked, version| load(asked, asked + 1, Answer::Seen(version, What::State(9)));
    let nothing = load(2, 3, Answer::Nothing);
    assert!(is_linear(&[unknown.clone(), nothing.clone()]));
    assert!(is_linear(&[unknown.clone(), nothing.clone(), seen(100, 1)]));
    assert!(!is_linear(&[
        unknown.clone(),
        seen(100, 1),
        load(200, 201, Answer::Nothing)
    ]));
    assert!(!is_linear(&[
        unknown,
        seen(100, 1),
        save(200, 201, 3, 2),
        seen(300, 3)
    ]));
}

#[test]
fn retention_takes_the_old_and_the_lowest_first() {
    let pruned = |asked, removed: &[u64]| {
        event(
            asked,
            asked + 1,
            Call::Prune { keep: 1 },
            Answer::Pruned(removed.to_vec()),
        )
    };
    let saves = [save(0, 1, 1, 1), save(2, 3, 2, 2), save(4, 5, 3, 3)];
    let after = |event: Event| [&saves[..], &[event]].concat();
    assert!(is_linear(&after(pruned(3000, &[1, 2]))));
    assert!(is_linear(&after(pruned(3000, &[1]))));
    assert!(
        !is_linear(&after(pruned(3000, &[2]))),
        "the lowest goes first"
    );
    assert!(
        !is_linear(&after(pruned(3000, &[1, 2, 3]))),
        "the head stays"
    );
    assert!(!is_linear(&after(pruned(500, &[1]))), "it is young");
}

#[test]
fn a_sleeper_below_the_head_is_no_success() {
    let prune = event(
        3000,
        3001,
        Call::Prune { keep: 1 },
        Answer::Pruned(vec![1, 2]),
    );
    let before = [save(0, 1, 1, 1), save(2, 3, 2, 2), save(4, 5, 3, 3), prune];
    let late = |answer| {
        event(
            1,
            4000,
            Call::Save {
                tag: 7,
                wanted: Wanted::Any,
            },
            answer,
        )
    };
    let filled = |late| {
        let look = Call::Load { at: Some(2) };
        let seen = event(5000, 5001, look, Answer::Seen(2, What::State(7)));
        [&before[..], &[late, seen]].concat()
    };
    assert!(is_linear(&filled(late(Answer::Unknown(Some(2))))));
    assert!(!is_linear(&filled(late(Answer::Made(2, What::State(7))))));
}

#[test]
fn a_fork_that_was_cut_short_copied_what_was_there_before_or_nothing() {
    let save_before = save(0, 1, 5, 1);
    let Verdict::Linear(source) = history(std::slice::from_ref(&save_before)).check(0) else {
        panic!("one save is linear");
    };
    let before = [source, State::default()];
    let fork = Event {
        answered: None,
        ..event(
            10,
            11,
            Call::Fork {
                to: 1,
                wanted: Wanted::Any,
            },
            Answer::Nothing,
        )
    };
    let audit = |all: &[(u64, u32)]| Event {
        name: 1,
        ..event(
            20,
            21,
            Call::Audit,
            Answer::All(
                all.iter()
                    .map(|(version, tag)| (*version, What::State(*tag)))
                    .collect(),
            ),
        )
    };
    for (all, holds) in [
        (&[][..], true),
        (&[(1, 5)], true),
        (&[(1, 6)], false),
        (&[(1, 5), (2, 5)], false),
    ] {
        let events = [fork.clone(), audit(all)];
        let history = History {
            before: &before,
            events: &events,
            grace: GRACE,
        };
        assert_eq!(
            matches!(history.check(1), Verdict::Linear(_)),
            holds,
            "{all:?}"
        );
    }
}

#[test]
fn an_expiry_takes_an_old_head_and_undoes_no_save() {
    let expire = |asked, head, tombstone| {
        let call = Call::Expire { careless: false };
        event(asked, asked + 1, call, Answer::Expired(head, tombstone))
    };
    let saves = [save(0, 1, 1, 1), save(2, 3, 2, 2)];
    let after = |event: Event| [&saves[..], &[event]].concat();
    assert!(is_linear(&after(expire(3000, 2, 3))));
    assert!(!is_linear(&after(expire(500, 2, 3))), "it is young");
    assert!(!is_linear(&after(expire(3000, 1, 3))), "a save came first");
    let purge = |asked, tombstone| {
        let call = Call::Expire { careless: false };
        event(asked, asked + 1, call, Answer::PurgeReport(tombstone))
    };
    let gone = |asked| {
        let all = [(3, What::Tombstone)].into();
        event(asked, asked + 1, Call::Audit, Answer::All(all))
    };
    let expired = after(expire(3000, 2, 3));
    assert!(is_linear(
        &[&expired[..], &[purge(6000, 3), gone(7000)]].concat()
    ));
    assert!(!is_linear(&[&expired[..], &[gone(7000)]].concat()));
}

#[test]
fn a_deletion_of_what_was_deleted_makes_no_tombstone() {
    let delete = |asked, version| {
        let wanted = Wanted::Any;
        let made = Answer::Made(version, What::Tombstone);
        event(asked, asked + 1, Call::Delete { wanted }, made)
    };
    assert!(is_linear(&[save(0, 1, 1, 1), delete(2, 2)]));
    assert!(!is_linear(&[save(0, 1, 1, 1), delete(2, 2), delete(4, 3)]));
}

#[test]
fn the_smallest_history_has_only_what_is_wrong() {
    let mut events: Vec<_> = (1..6)
        .map(|n| save(n * 10, n * 10 + 1, n as u32, n))
        .collect();
    events.push(load(100, 101, Answer::Seen(5, What::State(5))));
    events.push(load(110, 111, Answer::Seen(4, What::State(4))));
    events.push(load(120, 121, Answer::Seen(5, What::State(5))));
    let witness = history(&events).smallest(0).expect("it is wrong");
    let looks = witness
        .events
        .iter()
        .filter(|event| event.call == Call::Load { at: None });
    assert!(looks.count() <= 2, "{witness}");
    assert!(!is_linear(&witness.events), "{witness}");
}

fn finds(bug: Bug, says: &str) {
    let report = in_memory(SEED, ENOUGH, Some(bug)).expect("histories are made");
    is_found(bug, says, &report);
}

fn is_found(bug: Bug, says: &str, report: &Report) {
    let found = report
        .violations
        .first()
        .unwrap_or_else(|| panic!("{bug:?} was not found"));
    println!("{bug:?} after {} histories: {found}", report.total());
    assert!(found.contains(says), "{found}");
}

#[test]
fn a_storage_that_ignores_conditions_is_found() {
    finds(Bug::ConditionIgnored, "no order");
}

#[test]
fn a_cached_head_that_is_trusted_for_ever_is_found() {
    // Or it stands in the way of its own next version.
    finds(Bug::CachedHead, "history");
}

#[test]
fn an_old_version_number_that_is_accepted_is_found() {
    finds(Bug::OldVersionAccepted, "no order");
}

#[test]
fn a_purge_from_the_newest_to_the_oldest_is_found() {
    finds(Bug::Descending, "no order");
}

#[test]
fn a_prune_of_young_versions_is_found() {
    finds(Bug::YoungPruned, "no order");
}

#[test]
fn a_host_that_follows_another_grace_period_is_found() {
    finds(Bug::SleeperBelieved, "no order");
}

#[test]
fn a_prune_that_believes_the_storages_clock_is_found() {
    finds(Bug::ClockBelieved, "no order");
}

#[test]
fn a_prune_that_compares_no_times_with_trailers_is_found() {
    finds(Bug::TrailerIgnored, "no order");
}

#[test]
fn a_success_that_answers_a_repeated_request_and_is_believed_is_found() {
    finds(Bug::RepeatBelieved, "no order");
}

#[test]
fn an_expiry_that_deletes_a_save_that_came_first_is_found() {
    finds(Bug::ExpiryUnconditional, "no order");
}

#[test]
fn a_link_count_that_is_taken_for_success_is_found_on_disk() {
    let bug = Bug::LinkCountBelieved;
    let report = on_disk(SEED, 60, Some(bug)).expect("histories are made");
    is_found(bug, "no order", &report);
}

#[test]
fn histories_in_memory_are_linear() {
    let report = in_memory(SEED, 150, None).expect("histories are made");
    assert!(report.violations.is_empty(), "{report}");
}

#[test]
fn histories_on_disk_are_linear() {
    let report = on_disk(SEED, 24, None).expect("histories are made");
    assert!(report.violations.is_empty(), "{report}");
}
