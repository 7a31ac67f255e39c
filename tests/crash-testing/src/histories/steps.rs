//! Steps of the model that each event implies for a name.

use std::collections::BTreeSet;

use persist_host::snapshot::Version;

use super::event::{Answer, Call, Event, Tag, Wanted, What};
use super::model::{Op, Step, Told};

/// The steps of a history that concern `name`.
pub(crate) fn steps(told: &Told, events: &[Event], name: usize) -> Vec<Op> {
    let numbered = events.iter().enumerate();
    let steps = numbered
        .map(|(number, event)| NumberedEvent { number, event })
        .flat_map(|event| steps_of(told, &event, name));
    steps.chain(fills(events, name)).collect()
}

/// Returns the changes that may have filled a hole. Only versions that a worker saw make a
/// difference, and only changes that could have made them. A state that was acknowledged there,
/// where no worker saw another, did not fill it: what copies it came after it.
fn fills(events: &[Event], name: usize) -> impl Iterator<Item = Op> {
    let told: BTreeSet<_> = events.iter().flat_map(|event| event.tells(name)).collect();
    let is_first = |version, what| {
        let made = Answer::Made(version, what);
        let makes = |event: &Event| {
            event.changed() == name && event.answered.as_ref().is_some_and(|(_, is)| *is == made)
        };
        what != What::Tombstone && events.iter().any(makes)
    };
    let alone = |version| told.iter().filter(|told| told.0 == version).count() == 1;
    let mut may_fill = told.clone();
    may_fill.retain(|&(version, what)| !(alone(version) && is_first(version, what)));
    may_fill.into_iter().filter_map(move |(version, what)| {
        let makers = events.iter().filter(|event| event.changed() == name);
        let late = makers.filter(|event| event.may_fill(version, what));
        Some(Op {
            asked: late.map(|event| event.asked).min()?,
            answered: None,
            step: Step::Fill(version, what),
            either: None,
        })
    })
}

/// An event, and its position in the history.
struct NumberedEvent<'a> {
    number: usize,
    event: &'a Event,
}

fn steps_of(told: &Told, event: &NumberedEvent<'_>, name: usize) -> Vec<Op> {
    let &NumberedEvent { number, event } = event;
    let must = |answered, step| Op {
        asked: event.asked,
        answered: Some(answered),
        step,
        either: None,
    };
    let may = |step| Op {
        asked: event.asked,
        answered: None,
        step,
        either: Some(number),
    };
    // A change is of the name that it makes a version of, and a look at the name that it reads.
    let wanted = match event.call.changes(event.name) {
        Some((of, wanted)) if of == name => Some(wanted),
        _ => None,
    };
    let perhaps = |version| match wanted {
        Some(wanted) => perhaps(told, event, version, wanted),
        None => Vec::new(),
    };
    let Some((time, answer)) = &event.answered else {
        return perhaps(None).into_iter().map(may).collect();
    };
    let looks = (event.name == name).then(|| seen(&event.call, answer));
    let changes = wanted.map(|wanted| match answer {
        Answer::Made(_, what) if !event.call.can_make(*what) => vec![Step::Never],
        answer => change(wanted, answer),
    });
    let steps = looks
        .flatten()
        .into_iter()
        .chain(changes.into_iter().flatten());
    let perhaps = match (&event.call, answer) {
        (_, Answer::Unknown(version)) => perhaps(*version),
        // A tombstone that was there already serves, too.
        (Call::Purge, Answer::PurgeReport(tombstone)) => perhaps(Some(*tombstone)),
        // What failed may have been a removal, after the tombstone.
        (Call::Purge, Answer::Failed(_)) => perhaps(None),
        _ => Vec::new(),
    };
    let steps = steps.map(|step| must(*time, step));
    steps.chain(perhaps.into_iter().map(may)).collect()
}

/// Returns the steps that a change may make if its outcome is not known: one of these.
fn perhaps(told: &Told, event: &Event, version: Option<Version>, wanted: Wanted) -> Vec<Step> {
    let of = event.changed();
    let whats: BTreeSet<_> = match event.call {
        Call::Save { tag, .. } | Call::Stream { tag, .. } => [What::State(tag)].into(),
        // Of what was there under that number; where it was pruned and filled since, only the copy
        // tells.
        Call::Restore {
            version: source, ..
        } => {
            let copies = version.map(|copy| told.states_at(of, copy));
            told.states_at(event.name, source)
                .chain(copies.into_iter().flatten())
                .collect()
        }
        // Of what its source may have been at any time. Where a caller was told of the copy, that
        // says which.
        Call::Fork { .. } => {
            let source = told.states(event.name);
            let copies: BTreeSet<_> = version
                .into_iter()
                .flat_map(|copy| told.states_at(of, copy))
                .collect();
            if copies.is_empty() {
                source.filter(|what| told.is_seen(of, *what)).collect()
            } else {
                source.filter(|what| copies.contains(what)).collect()
            }
        }
        _ => [What::Tombstone].into(),
    };
    // A copy of unknown content was not observed either: it only counts.
    let whats = if whats.is_empty() {
        [What::State(Tag::MAX)].into()
    } else {
        whats
    };
    let make = |what| Step::Make {
        version,
        what,
        wanted,
    };
    whats.iter().copied().map(make).collect()
}

impl Call {
    /// The name that a call makes a version of, and what it wants of its head; none for one that
    /// makes nothing.
    fn changes(&self, name: usize) -> Option<(usize, Wanted)> {
        Some(match *self {
            Self::Save { wanted, .. }
            | Self::Stream { wanted, .. }
            | Self::Delete { wanted }
            | Self::Restore { wanted, .. } => (name, wanted),
            Self::Fork { to, wanted } => (to, wanted),
            Self::Purge | Self::Expire { .. } => (name, Wanted::Any),
            Self::Abandon { .. }
            | Self::Load { .. }
            | Self::Stat { .. }
            | Self::Prune { .. }
            | Self::Audit => return None,
        })
    }

    /// Returns true if this call can make a version of this content.
    fn can_make(&self, made: What) -> bool {
        match *self {
            Self::Save { tag, .. } | Self::Stream { tag, .. } => made == What::State(tag),
            Self::Delete { .. } | Self::Purge => made == What::Tombstone,
            _ => made != What::Tombstone,
        }
    }
}

impl Event {
    /// The name that its answer is about.
    pub(super) fn changed(&self) -> usize {
        let changes = self.call.changes(self.name);
        changes.map_or(self.name, |changed| changed.0)
    }

    /// Returns true if a request of this change that was given up, or slept, can have made this
    /// version long after. A change that was acknowledged as this very version did not make it a
    /// second time.
    fn may_fill(&self, version: Version, what: What) -> bool {
        let made = match &self.answered {
            Some((_, Answer::Made(made, _) | Answer::Expired(_, made))) if *made == version => {
                return false;
            }
            Some((_, Answer::Made(_, made))) => Some(*made),
            _ => None,
        };
        match self.call {
            Call::Save { tag, .. } | Call::Stream { tag, .. } => what == What::State(tag),
            Call::Delete { .. } | Call::Purge | Call::Expire { .. } => what == What::Tombstone,
            Call::Restore { .. } | Call::Fork { .. } => {
                what != What::Tombstone && made.is_none_or(|made| made == what)
            }
            _ => false,
        }
    }

    /// Which versions of `name` this event says something of, and what those are.
    pub(super) fn tells(&self, name: usize) -> Vec<(Version, What)> {
        let about = self.changed() == name;
        match (
            self.answered.as_ref().map(|answered| &answered.1),
            &self.call,
        ) {
            (Some(Answer::Made(version, what)), Call::Restore { version: from, .. }) if about => {
                vec![(*version, *what), (*from, *what)]
            }
            (Some(Answer::Made(version, what) | Answer::Seen(version, what)), _) if about => {
                vec![(*version, *what)]
            }
            (Some(Answer::Expired(_, tombstone)), _) if about => {
                vec![(*tombstone, What::Tombstone)]
            }
            (Some(Answer::All(all)), _) if about => {
                let all = all.iter();
                all.map(|(version, what)| (*version, *what)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Returns the step that an answered call implies for the name that it reads.
fn seen(call: &Call, answer: &Answer) -> Option<Step> {
    Some(match (call, answer) {
        (Call::Restore { version, .. }, Answer::Made(_, what)) => Step::At(*version, *what),
        (Call::Restore { version, .. }, Answer::NotFound) => Step::NotAt(*version, true),
        (Call::Fork { .. }, Answer::Made(_, what)) => Step::Head(None, Some(*what)),
        (Call::Fork { .. } | Call::Delete { .. }, Answer::NotFound) => Step::Absent,
        // It looks first: one that comes after another has nothing to delete.
        (Call::Delete { .. }, Answer::Made(..)) => Step::NotAbsent,
        (Call::Purge, Answer::NotFound) => Step::NoHead,
        (Call::Purge | Call::Expire { .. }, Answer::PurgeReport(version)) => {
            Step::Head(Some(*version), Some(What::Tombstone))
        }
        (Call::Prune { .. }, Answer::Pruned(removed)) => Step::Gone(removed.clone()),
        (Call::Load { at: None } | Call::Stat { at: None }, Answer::Seen(version, what)) => {
            Step::Head(Some(*version), Some(*what))
        }
        (Call::Load { .. } | Call::Stat { .. }, Answer::Seen(version, what)) => {
            Step::At(*version, *what)
        }
        (Call::Load { .. }, Answer::Nothing) => Step::Absent,
        (Call::Stat { .. }, Answer::Nothing) => Step::NoHead,
        (Call::Load { at: Some(version) } | Call::Stat { at: Some(version) }, Answer::NotFound) => {
            Step::NotAt(*version, false)
        }
        // It is read once more where it was pruned while it was read.
        (Call::Load { at: None } | Call::Stat { at: None }, Answer::NotFound) => Step::Never,
        (Call::Audit, Answer::All(versions)) => Step::Exactly(versions.clone()),
        _ => return None,
    })
}

/// Returns the steps that an answered change implies for the name that it makes a version of.
fn change(wanted: Wanted, answer: &Answer) -> Vec<Step> {
    match (answer, wanted) {
        (&Answer::Made(version, what), wanted) => vec![Step::Make {
            version: Some(version),
            what,
            wanted,
        }],
        (&Answer::Expired(head, tombstone), _) => vec![Step::Expire { head, tombstone }],
        // The head that is told may be a later one than the one that was in the way.
        (Answer::Conflict(head), Wanted::Absent) => vec![Step::NotAbsent, told(*head)],
        (Answer::Conflict(Some(head)), Wanted::Version(wanted)) if *head == wanted => {
            vec![Step::Never]
        }
        (Answer::Conflict(head), _) => vec![told(*head)],
        _ => Vec::new(),
    }
}

fn told(head: Option<Version>) -> Step {
    match head {
        Some(head) => Step::Head(Some(head), None),
        None => Step::NoHead,
    }
}
