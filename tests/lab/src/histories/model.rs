//! What a name is, one change after the other: the sequential model that histories are checked against.
//!
//! A name is its versions, each a state or a tombstone. The highest is the head. A change makes head + 1, and only where what it
//! wants of the head is so. Retention takes versions away, the oldest first, never the head, and none that is younger than
//! the grace. Nothing else ever happens to a version.
//!
//! A change whose outcome is unknown may be made at any later time, or never. A request that arrives so late that its number
//! was used and removed fills the hole: below the head, acknowledged to nobody under that number, and only seen by who asks for it.

use std::collections::{BTreeMap, BTreeSet};

use persist_host::snapshot::Version;

use super::event::{Answer, Call, Event, Micros, Tag, Wanted, What};

/// The versions of a name that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct State {
    versions: BTreeMap<Version, Kept>,
}

/// A version that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kept {
    what: What,
    /// When it was asked for: it is no older than that.
    asked: Micros,
    /// It filled a hole.
    late: bool,
}

/// One step of a history, which happens at one moment between `asked` and `answered`.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) asked: Micros,
    /// None: at any time, or never.
    pub(crate) answered: Option<Micros>,
    pub(crate) step: Step,
}

/// What happens, or is seen.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A version is made: this one, where its number is known.
    Make {
        version: Option<Version>,
        what: What,
        wanted: Wanted,
    },
    /// A request that was under way for long makes a version whose number was used and removed.
    Fill(Version, What),
    /// There is a head; and it is this version, and this, where they are known.
    Head(Option<Version>, Option<What>),
    /// There is no head.
    NoHead,
    /// There is no head, or it is a tombstone.
    Absent,
    /// There is a head, and it is no tombstone.
    NotAbsent,
    /// This version is there.
    At(Version, What),
    /// This version is not there; or is a tombstone, where that will do as well.
    NotAt(Version, bool),
    /// None of these is there any more.
    Gone(Vec<Version>),
    /// What was answered can never be.
    Never,
    /// Exactly these are there.
    Exactly(BTreeMap<Version, What>),
}

/// A time in which retention may have removed versions.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    asked: Micros,
    answered: Option<Micros>,
    /// What it removed, where it said so.
    removed: Option<Vec<Version>>,
}

/// What is known of the whole history, whatever the order of its steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    windows: Vec<Window>,
    /// Younger versions are not removed.
    grace: Micros,
    /// Versions whose making was acknowledged: no other change made them, unless late.
    acknowledged: BTreeSet<Version>,
}

/// How far behind the time of an event the time of a file may be: the kernel's coarse clock ticks each 1 to 10 ms.
const COARSE: Micros = 10_000;

impl State {
    pub(crate) fn head(&self) -> Option<(Version, What)> {
        let last = self.versions.last_key_value();
        last.map(|(version, kept)| (*version, kept.what))
    }

    /// What is there.
    pub(crate) fn whats(&self) -> impl Iterator<Item = (Version, What)> {
        self.versions
            .iter()
            .map(|(version, kept)| (*version, kept.what))
    }

    fn absent(&self) -> bool {
        matches!(self.head(), None | Some((_, What::Tombstone)))
    }

    /// The state after a step; none where the step cannot happen in this one.
    pub(crate) fn after(&self, op: &Op, known: &Known) -> Option<Self> {
        let same = |holds: bool| holds.then(|| self.clone());
        match &op.step {
            Step::Make {
                version,
                what,
                wanted,
            } => self.make(op, *version, *what, *wanted, known),
            Step::Fill(version, what) => self.fill(op, *version, *what, known),
            Step::Head(version, what) => same(self.head().is_some_and(|head| {
                version.is_none_or(|version| head.0 == version)
                    && what.is_none_or(|what| head.1 == what)
            })),
            Step::Never => None,
            Step::NoHead => same(self.head().is_none()),
            Step::Absent => same(self.absent()),
            Step::NotAbsent => same(!self.absent()),
            Step::At(version, what) => same(
                self.versions
                    .get(version)
                    .is_some_and(|kept| kept.what == *what),
            ),
            Step::NotAt(version, or_tombstone) => match self.versions.get(version) {
                Some(kept) if *or_tombstone && kept.what == What::Tombstone => same(true),
                _ => self.without(*version, op, known),
            },
            Step::Gone(versions) => versions.iter().try_fold(self.clone(), |state, version| {
                state.without(*version, op, known)
            }),
            Step::Exactly(versions) => {
                let gone = self
                    .versions
                    .keys()
                    .filter(|version| !versions.contains_key(version));
                let state = gone.copied().try_fold(self.clone(), |state, version| {
                    state.without(version, op, known)
                })?;
                let same = state
                    .whats()
                    .eq(versions.iter().map(|(version, what)| (*version, *what)));
                same.then_some(state)
            }
        }
    }

    /// Whether a step that must happen cannot happen in this state nor in any later one: the head only rises.
    pub(crate) fn is_past(&self, op: &Op) -> bool {
        let head = self.head().map_or(0, |head| head.0);
        op.answered.is_some()
            && match &op.step {
                Step::Make { version, .. } => version.is_some_and(|version| version <= head),
                Step::Head(version, _) => version.is_some_and(|version| version < head),
                Step::NoHead => head > 0,
                Step::Never => true,
                _ => false,
            }
    }

    fn make(
        &self,
        op: &Op,
        version: Option<Version>,
        what: What,
        wanted: Wanted,
        known: &Known,
    ) -> Option<Self> {
        let next = self.head().map_or(0, |head| head.0) + 1;
        let in_vain = op.answered.is_none() && known.acknowledged.contains(&next);
        let holds = match wanted {
            Wanted::Any => true,
            Wanted::Absent => self.absent(),
            Wanted::Version(version) => self.head().is_some_and(|head| head.0 == version),
        };
        if in_vain || !holds || version.is_some_and(|version| version != next) {
            return None;
        }
        Some(self.clone().with(next, what, op.asked, false))
    }

    fn fill(&self, op: &Op, version: Version, what: What, known: &Known) -> Option<Self> {
        let used = self.head().is_some_and(|head| version < head.0);
        let hole = used.then(|| self.without(version, op, known)).flatten()?;
        Some(hole.with(version, what, op.asked, true))
    }

    fn with(mut self, version: Version, what: What, asked: Micros, late: bool) -> Self {
        self.versions.insert(version, Kept { what, asked, late });
        self
    }

    /// The state without a version, which was never made, or was removed by now. The oldest go first: so everything below it
    /// is gone as well.
    fn without(&self, version: Version, op: &Op, known: &Known) -> Option<Self> {
        if !self.versions.contains_key(&version) {
            return Some(self.clone());
        }
        if self.head()?.0 == version {
            return None;
        }
        let mut state = self.clone();
        for (&old, kept) in self.versions.range(..=version) {
            // What filled a hole is younger than what is above it.
            if kept.late && old != version {
                continue;
            }
            if !known.may_remove(old, kept, op) {
                return None;
            }
            state.versions.remove(&old);
        }
        Some(state)
    }
}

impl Known {
    /// What is known of `name`.
    pub(crate) fn of(events: &[Event], name: usize, grace: Micros) -> Self {
        let of_name = || events.iter().filter(|event| event.name == name);
        let acknowledged = events.iter().filter_map(|event| match &event.answered {
            Some((_, Answer::Made(version, _))) if event.changed() == name => Some(*version),
            _ => None,
        });
        Self {
            windows: of_name().filter_map(Window::of).collect(),
            grace,
            acknowledged: acknowledged.collect(),
        }
    }

    fn may_remove(&self, version: Version, kept: &Kept, op: &Op) -> bool {
        self.windows.iter().any(|window| {
            let in_time = op.answered.is_none_or(|answered| window.asked <= answered);
            let named = window
                .removed
                .as_ref()
                .is_none_or(|removed| removed.contains(&version));
            let old = window.answered.is_none_or(|answered| {
                kept.asked + self.grace < answered + COARSE.min(self.grace / 4)
            });
            in_time && named && (old || kept.late)
        })
    }
}

impl Window {
    /// The window that an event opens.
    fn of(event: &Event) -> Option<Self> {
        let (time, answer) = event.answered.clone().unzip();
        let removed = match (&event.call, answer) {
            (Call::Prune { .. }, Some(Answer::Pruned(removed))) => Some(removed),
            (Call::Prune { .. } | Call::Purge, _) => None,
            _ => return None,
        };
        Some(Self {
            asked: event.asked,
            answered: time,
            removed,
        })
    }
}

/// The steps of a history that concern `name`.
pub(crate) fn steps(events: &[Event], name: usize) -> Vec<Op> {
    let steps = events
        .iter()
        .flat_map(|event| steps_of(events, event, name));
    steps.chain(fills(events, name)).collect()
}

/// What may have filled a hole: only what somebody saw makes a difference, and only a change that could have made it.
fn fills(events: &[Event], name: usize) -> impl Iterator<Item = Op> {
    let told: BTreeSet<_> = events.iter().flat_map(|event| event.tells(name)).collect();
    told.into_iter().filter_map(move |(version, what)| {
        let makers = events.iter().filter(|event| event.changed() == name);
        let late = makers.filter(|event| event.may_fill(version, what));
        Some(Op {
            asked: late.map(|event| event.asked).min()?,
            answered: None,
            step: Step::Fill(version, what),
        })
    })
}

fn steps_of(events: &[Event], event: &Event, name: usize) -> Vec<Op> {
    let op = |answered, step| Op {
        asked: event.asked,
        answered,
        step,
    };
    let source = event.name == name;
    let made = event.call.changes(event.name);
    let Some((time, answer)) = &event.answered else {
        return match made {
            Some((of, wanted)) if of == name => perhaps(events, event, None, wanted)
                .into_iter()
                .map(|step| op(None, step))
                .collect(),
            _ => Vec::new(),
        };
    };
    let mut steps = Vec::new();
    if source {
        steps.extend(seen(&event.call, answer));
    }
    let mut may = Vec::new();
    if let Some((of, wanted)) = made
        && of == name
    {
        steps.extend(change(wanted, answer));
        may = match (&event.call, answer) {
            (_, Answer::Unknown(version)) => perhaps(events, event, *version, wanted),
            // A tombstone that was there already serves, too.
            (Call::Purge, Answer::Purged(tombstone)) => {
                perhaps(events, event, Some(*tombstone), wanted)
            }
            _ => Vec::new(),
        };
    }
    let must = steps.into_iter().map(|step| op(Some(*time), step));
    must.chain(may.into_iter().map(|step| op(None, step)))
        .collect()
}

/// What a change whose outcome is not known may make: one of these.
fn perhaps(events: &[Event], event: &Event, version: Option<Version>, wanted: Wanted) -> Vec<Step> {
    let states_of = |name, version: Option<Version>| {
        let told = events.iter().flat_map(move |event| event.tells(name));
        let of_version = told.filter(move |told| version.is_none_or(|version| told.0 == version));
        of_version
            .map(|told| told.1)
            .filter(|what| *what != What::Tombstone)
    };
    let (of, _) = event
        .call
        .changes(event.name)
        .unwrap_or((event.name, wanted));
    let whats: BTreeSet<_> = match event.call {
        Call::Save { tag, .. } | Call::Stream { tag, .. } => [What::State(tag)].into(),
        // Of what was there under that number; where it was pruned and filled since, only the copy tells.
        Call::Restore {
            version: source, ..
        } => states_of(event.name, Some(source))
            .chain(
                version
                    .into_iter()
                    .flat_map(|copy| states_of(of, Some(copy))),
            )
            .collect(),
        Call::Fork { .. } => states_of(event.name, None).collect(),
        _ => [What::Tombstone].into(),
    };
    // Where nobody knows what it copied, nobody saw the copy either: it only counts.
    let whats = match whats.is_empty() {
        true => [What::State(Tag::MAX)].into(),
        false => whats,
    };
    let make = |what| Step::Make {
        version,
        what,
        wanted,
    };
    whats.iter().copied().map(make).collect()
}

impl Call {
    /// The name that a call makes a version of, and what it wants of its head; none for one that makes nothing.
    fn changes(&self, name: usize) -> Option<(usize, Wanted)> {
        Some(match *self {
            Self::Save { wanted, .. }
            | Self::Stream { wanted, .. }
            | Self::Delete { wanted }
            | Self::Restore { wanted, .. } => (name, wanted),
            Self::Fork { to, wanted } => (to, wanted),
            Self::Purge => (name, Wanted::Any),
            Self::Load { .. } | Self::Stat { .. } | Self::Prune { .. } | Self::Audit => {
                return None;
            }
        })
    }
}

impl Event {
    /// The name that its answer is about.
    fn changed(&self) -> usize {
        let changes = self.call.changes(self.name);
        changes.map_or(self.name, |changed| changed.0)
    }

    /// Whether a request of this change that was given up, or slept, can have made this version long after. One that was
    /// acknowledged as this very version did not make it a second time.
    fn may_fill(&self, version: Version, what: What) -> bool {
        let made = match &self.answered {
            Some((_, Answer::Made(made, _))) if *made == version => return false,
            Some((_, Answer::Made(_, made))) => Some(*made),
            _ => None,
        };
        match self.call {
            Call::Save { tag, .. } | Call::Stream { tag, .. } => what == What::State(tag),
            Call::Delete { .. } | Call::Purge => what == What::Tombstone,
            Call::Restore { .. } | Call::Fork { .. } => {
                what != What::Tombstone && made.is_none_or(|made| made == what)
            }
            _ => false,
        }
    }

    /// Which versions of `name` this event says something of, and what those are.
    fn tells(&self, name: usize) -> Vec<(Version, What)> {
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
            (Some(Answer::All(all)), _) if about => {
                let all = all.iter();
                all.map(|(version, what)| (*version, *what)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// What a call that was answered says of the name that it reads.
fn seen(call: &Call, answer: &Answer) -> Option<Step> {
    Some(match (call, answer) {
        (Call::Restore { version, .. }, Answer::Made(_, what)) => Step::At(*version, *what),
        (Call::Restore { version, .. }, Answer::NotFound) => Step::NotAt(*version, true),
        (Call::Fork { .. }, Answer::Made(_, what)) => Step::Head(None, Some(*what)),
        (Call::Fork { .. } | Call::Delete { .. }, Answer::NotFound) => Step::Absent,
        (Call::Purge, Answer::NotFound) => Step::NoHead,
        (Call::Purge, Answer::Purged(version)) => Step::Head(Some(*version), Some(What::Tombstone)),
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
        (Call::Audit, Answer::All(versions)) => Step::Exactly(versions.clone()),
        _ => return None,
    })
}

/// What a change that was answered says of the name that it makes a version of.
fn change(wanted: Wanted, answer: &Answer) -> Vec<Step> {
    match (answer, wanted) {
        (&Answer::Made(version, what), wanted) => vec![Step::Make {
            version: Some(version),
            what,
            wanted,
        }],
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
