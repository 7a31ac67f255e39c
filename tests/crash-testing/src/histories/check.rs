//! Check of whether a history could have been made by one change after the other.
//!
//! The search is Wing and Gong's ("Testing and verifying concurrent objects", 1993) with Lowe's
//! memory of what was tried ("Testing for linearizability", 2017): take any step that may be first,
//! since none of the others was answered before it was asked; go on from the state after it; come
//! back where that fails, and never try the same steps in the same state twice.

use std::collections::HashSet;
use std::fmt;

use super::event::{Call, Event, Micros};
use super::model::{Known, Op, State, Told};
use super::steps::steps;

/// Steps of one name in one history, at most: one bit each.
const MAX_OPS: usize = 128;

/// States tried before a search is given up, and said to be.
const MAX_TRIED: usize = 200_000;

/// States tried before a search is given up, and said to be, where the search only tests whether a
/// smaller history is as wrong: the less is told, the more is possible.
const MAX_TRIED_OF_LESS: usize = 4000;

/// Result of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It could, and leads to this state.
    Linear(State),
    /// It could not.
    Not,
    /// Undecided: the search is too long.
    GivenUp,
}

/// Calls and answers, for names that had a state before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History<'a> {
    /// State of each name before the history; empty if it is not given.
    pub(crate) before: &'a [State],
    pub(crate) events: &'a [Event],
    pub(crate) grace: Micros,
}

impl History<'_> {
    /// Returns the state of `name` before the history.
    pub(crate) fn before(&self, name: usize) -> State {
        self.before.get(name).cloned().unwrap_or_default()
    }

    /// Looks for an order of the steps of `name` that explains every answer.
    pub(crate) fn check(&self, name: usize) -> Verdict {
        self.check_part(&self.told(), self.events, name, MAX_TRIED)
    }

    fn told(&self) -> Told {
        Told::by(self.before, self.events)
    }

    /// Looks for an order of the steps of `name` that explains every answer in a part of the
    /// history. The whole history tells more about this part than the part itself.
    fn check_part(&self, told: &Told, events: &[Event], name: usize, max_tried: usize) -> Verdict {
        let mut ops = steps(told, events, name);
        if ops.len() > MAX_OPS {
            return Verdict::GivenUp;
        }
        // What had to be over first is tried first, and what may never have been is tried last.
        ops.sort_by_key(|op| op.answered.unwrap_or(Micros::MAX));
        let known = Known::of(events, name, self.grace);
        let mut search = Search {
            takes: takes(&ops),
            ops: &ops,
            known: &known,
            tried: HashSet::new(),
            max_tried,
        };
        match search.from(0, self.before(name)) {
            Some(state) => Verdict::Linear(state),
            None if search.tried.len() >= max_tried => Verdict::GivenUp,
            None => Verdict::Not,
        }
    }
}

/// Returns the steps that are over when a step is taken: the step itself, and the steps that might
/// have been in its place.
fn takes(ops: &[Op]) -> Vec<u128> {
    let alike = |one: usize, two: usize| {
        one == two || (ops[one].either.is_some() && ops[one].either == ops[two].either)
    };
    (0..ops.len())
        .map(|one| {
            let alike = (0..ops.len()).filter(|two| alike(one, *two));
            alike.fold(0, |taken, two| taken | 1 << two)
        })
        .collect()
}

struct Search<'a> {
    ops: &'a [Op],
    takes: Vec<u128>,
    known: &'a Known,
    tried: HashSet<(u128, State)>,
    max_tried: usize,
}

impl Search<'_> {
    /// The state at the end, where `done` were taken already.
    fn from(&mut self, done: u128, state: State) -> Option<State> {
        let left = |index: &usize| done & (1 << index) == 0;
        let open: Vec<_> = (0..self.ops.len()).filter(left).collect();
        let Some(first_answer) = open.iter().filter_map(|op| self.ops[*op].answered).min() else {
            return Some(state);
        };
        if open.iter().any(|op| state.is_past(&self.ops[*op])) {
            return None;
        }
        if self.tried.len() >= self.max_tried || !self.tried.insert((done, state.clone())) {
            return None;
        }
        let may_be_first = |op: &&usize| self.ops[**op].asked <= first_answer;
        let mut changes = Vec::new();
        for &op in open.iter().filter(may_be_first) {
            let Some(after) = state.after(&self.ops[op], self.known) else {
                continue;
            };
            let done = done | self.takes[op];
            // What holds now and changes nothing can as well be now.
            if after == state {
                return self.from(done, after);
            }
            changes.push((done, after));
        }
        changes
            .into_iter()
            .find_map(|(done, after)| self.from(done, after))
    }
}

/// A history that cannot be explained, with everything left out that it does not take to see that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    /// Events that cannot all be true.
    pub(crate) events: Vec<Event>,
}

impl History<'_> {
    /// All that concerns a name.
    pub(crate) fn of_name(&self, name: usize) -> Witness {
        let of_name = |event: &&Event| {
            event.name == name || matches!(event.call, Call::Fork { to, .. } if to == name)
        };
        let events = self.events.iter().filter(of_name).cloned().collect();
        Witness { events }
    }

    /// The smallest part that still cannot be explained; none where none can be decided. Only what
    /// makes a history easier to explain is done to it, so that what is left is as wrong as the
    /// whole: it ends earlier, forgets what was seen, and lets a change be made or not.
    pub(crate) fn smallest(&self, name: usize) -> Option<Witness> {
        let told = self.told();
        let check = |events: &[Event], max| self.check_part(&told, events, name, max);
        let of_name = self.of_name(name).events;
        let mut events = shortest(&of_name, &|events| check(events, MAX_TRIED))?;
        let mut index = events.len();
        while index > 0 {
            index -= 1;
            let mut fewer = events.clone();
            if fewer[index].call.is_look() {
                drop(fewer.remove(index))
            } else {
                fewer[index].answered = None
            }
            if check(&fewer, MAX_TRIED_OF_LESS) == Verdict::Not {
                events = fewer;
            }
        }
        Some(Witness { events })
    }
}

/// The history up to the first answer that is wrong; who was not answered by then waits for ever.
fn shortest(events: &[Event], check: &dyn Fn(&[Event]) -> Verdict) -> Option<Vec<Event>> {
    let mut ends: Vec<_> = events
        .iter()
        .filter_map(|event| event.answered.as_ref().map(|answered| answered.0))
        .collect();
    ends.sort_unstable();
    let until = |end: Micros| -> Vec<Event> {
        let begun = events.iter().filter(|event| event.asked <= end).cloned();
        begun
            .map(|mut event| {
                event.answered = event.answered.filter(|answered| answered.0 <= end);
                event
            })
            .collect()
    };
    // What was linear until an answer was so until each before it.
    let is_linear = |end: &Micros| matches!(check(&until(*end)), Verdict::Linear(_));
    let first = ends.partition_point(is_linear);
    let mut parts = ends.into_iter().skip(first).map(until);
    parts.find(|events| check(events) == Verdict::Not)
}

impl Call {
    /// Returns true if the call changes nothing.
    fn is_look(&self) -> bool {
        matches!(self, Self::Load { .. } | Self::Stat { .. } | Self::Audit)
    }
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begin = self.events.iter().map(|event| event.asked).min();
        let ms = |time: Micros| (time - begin.unwrap_or(0)) as f64 / 1000.0;
        let mut events: Vec<_> = self.events.iter().collect();
        events.sort_by_key(|event| event.asked);
        let mut perhaps = Vec::new();
        for event in events {
            let Event { worker, call, .. } = event;
            let asked = ms(event.asked);
            let call = format!("name-{} {call:?}", event.name);
            match &event.answered {
                Some((time, answer)) => write!(
                    f,
                    "\n  worker {worker}, {asked:.3} to {:.3} ms: {call} -> {answer:?}",
                    ms(*time)
                )?,
                None => perhaps.push(format!("worker {worker} at {asked:.3} ms: {call}")),
            }
        }
        if perhaps.is_empty() {
            Ok(())
        } else {
            write!(
                f,
                "\n  whether or not these were made: {}",
                perhaps.join("; ")
            )
        }
    }
}
