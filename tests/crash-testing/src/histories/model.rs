//! Sequential model of a name, one change after the other. Histories are checked against it.
//!
//! A name is its versions, each a state or a tombstone. The highest is the head. A change makes
//! head + 1, and only where what it wants of the head is so. Retention takes versions away, the
//! oldest first, never the head, and none that is younger than the grace. Nothing else ever happens
//! to a version.
//!
//! A change whose outcome is unknown may be made at any later time, or never. A request that
//! arrives so late that its number was used and removed fills the hole: below the head,
//! acknowledged under that number to no caller, and seen only by a load of that number.

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
    /// Of the steps with the same number, one happens at the most: they are what one event may have
    /// done.
    pub(crate) either: Option<usize>,
}

/// A change that happens, or an observation.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A version is made: this one, where its number is known.
    Make {
        version: Option<Version>,
        what: What,
        wanted: Wanted,
    },
    /// A head that holds a state, and is old, gets a tombstone right above it.
    Expire { head: Version, tombstone: Version },
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
    /// The answer is impossible.
    Never,
    /// Exactly these are there.
    Exactly(BTreeMap<Version, What>),
}

/// A time in which retention may have removed versions.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    asked: Micros,
    answered: Option<Micros>,
    /// Versions that it removed, if it reported them.
    removed: Option<Vec<Version>>,
}

/// Known facts about the whole history, whatever the order of its steps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    windows: Vec<Window>,
    /// Younger versions are not removed.
    grace: Micros,
    /// Versions whose making was acknowledged: no other change made them, unless late.
    acknowledged: BTreeSet<Version>,
}

/// Contents that each name may have had: before the history, according to the answers in it, and
/// according to the calls in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(BTreeSet<(usize, Version, What)>);

/// Stands for the version of what was asked to be made.
const ASKED: Version = 0;

/// Stands for the version of what was copied as the head, which is not told.
const COPIED: Version = Version::MAX;

impl Told {
    /// Collects what a history tells about names whose earlier states were `before`.
    pub(crate) fn by(before: &[State], events: &[Event]) -> Self {
        let mut told = Self::default();
        for (name, state) in before.iter().enumerate() {
            let whats = state.whats();
            told.0
                .extend(whats.map(|(version, what)| (name, version, what)));
        }
        for event in events {
            for name in [event.name, event.changed()] {
                let tells = event.tells(name).into_iter();
                let told_of = tells.map(|(version, what)| (name, version, what));
                told.0.extend(told_of);
            }
            let (version, what) = match (&event.call, &event.answered) {
                (Call::Save { tag, .. } | Call::Stream { tag, .. }, _) => {
                    (ASKED, What::State(*tag))
                }
                (Call::Fork { .. }, Some((_, Answer::Made(_, copied)))) => (COPIED, *copied),
                _ => continue,
            };
            told.0.insert((event.name, version, what));
        }
        // A fork of a fork whose first was not acknowledged.
        for event in events.iter().chain(events) {
            if let Call::Fork { to, .. } = event.call {
                let copies: Vec<_> = told.states(event.name).collect();
                let copies = copies.into_iter().map(|what| (to, ASKED, what));
                told.0.extend(copies);
            }
        }
        told
    }

    /// Returns the contents that a name may have had, except tombstones.
    pub(super) fn states(&self, name: usize) -> impl Iterator<Item = What> {
        let of_name = self.0.iter().filter(move |told| told.0 == name);
        of_name
            .map(|told| told.2)
            .filter(|what| *what != What::Tombstone)
    }

    /// Returns true if this content was reported as a version of a name.
    pub(super) fn is_seen(&self, name: usize, what: What) -> bool {
        let mut of_name = self.0.iter().filter(|told| told.0 == name);
        of_name.any(|told| told.1 != ASKED && told.2 == what)
    }

    /// Returns the contents that were reported for one version of a name, except tombstones.
    pub(super) fn states_at(&self, name: usize, version: Version) -> impl Iterator<Item = What> {
        let of_version = (name, version, What::State(0))..=(name, version, What::State(Tag::MAX));
        self.0.range(of_version).map(|told| told.2)
    }
}

/// How far behind the time of an event the time of a file may be: the kernel's coarse clock ticks
/// each 1 to 10 ms.
const COARSE: Micros = 10_000;

impl State {
    pub(crate) fn head(&self) -> Option<(Version, What)> {
        let last = self.versions.last_key_value();
        last.map(|(version, kept)| (*version, kept.what))
    }

    /// Returns the existing versions and their contents.
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
            Step::Expire { head, tombstone } => self.expire(op, *head, *tombstone, known),
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

    /// Returns true if a step that must happen cannot happen in this state nor in any later one:
    /// the head only rises.
    pub(crate) fn is_past(&self, op: &Op) -> bool {
        let head = self.head().map_or(0, |head| head.0);
        op.answered.is_some()
            && match &op.step {
                Step::Make { version, .. } => version.is_some_and(|version| version <= head),
                Step::Expire { tombstone, .. } => *tombstone <= head,
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

    fn expire(&self, op: &Op, head: Version, tombstone: Version, known: &Known) -> Option<Self> {
        let (version, kept) = self.versions.last_key_value()?;
        let is_state = kept.what != What::Tombstone;
        if *version != head || !is_state || !known.is_old(kept, op.answered) {
            return None;
        }
        let wanted = Wanted::Version(head);
        self.make(op, Some(tombstone), What::Tombstone, wanted, known)
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

    /// The state without a version, which was never made, or was removed by now. The oldest go
    /// first: so everything below it is gone as well.
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
    /// Collects the known facts about `name`.
    pub(crate) fn of(events: &[Event], name: usize, grace: Micros) -> Self {
        let of_name = || events.iter().filter(|event| event.name == name);
        let acknowledged = events.iter().filter_map(|event| match &event.answered {
            Some((_, Answer::Made(version, _) | Answer::Expired(_, version)))
                if event.changed() == name =>
            {
                Some(*version)
            }
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
            let old = self.is_old(kept, window.answered);
            in_time && named && (old || kept.late)
        })
    }

    /// Returns true if a version was older than the grace when a call was answered.
    fn is_old(&self, kept: &Kept, answered: Option<Micros>) -> bool {
        answered
            .is_none_or(|answered| kept.asked + self.grace < answered + COARSE.min(self.grace / 4))
    }
}

impl Window {
    /// The window that an event opens.
    fn of(event: &Event) -> Option<Self> {
        let (time, answer) = event.answered.clone().unzip();
        let removed = match (&event.call, answer) {
            (Call::Prune { .. }, Some(Answer::Pruned(removed))) => Some(removed),
            // It made a tombstone, or nothing.
            (Call::Expire { .. }, Some(Answer::Expired(..) | Answer::Kept)) => return None,
            (Call::Prune { .. } | Call::Purge | Call::Expire { .. }, _) => None,
            _ => return None,
        };
        Some(Self {
            asked: event.asked,
            answered: time,
            removed,
        })
    }
}
