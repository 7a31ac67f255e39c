//! Saves of agents and sessions on each of the last days, at a bounded cost.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maud::{Markup, html};
use persist_host::snapshot::{self, Retention, Selection, Store};
use tokio::time::{Instant, timeout_at};

use super::{chart, page};
use crate::text;

/// Days of a chart.
const DAYS: usize = 14;

/// Names of an agent or session that are counted, at most: two lists each.
pub(super) const NAMES: usize = 4;

/// Time for all rows of a page. Rows that are not counted by then have no chart.
pub(super) const TIME: Duration = Duration::from_secs(3);

const DAY: u64 = 24 * 60 * 60;

/// Saves of an agent or a session.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Activity {
    /// Versions of each day, oldest first.
    days: [u64; DAYS],
    /// Time of the newest version, in milliseconds since 1970.
    newest: Option<u64>,
    /// False if there are further names, which are not counted.
    is_whole: bool,
}

impl Activity {
    /// Counts the saves of a selection until a deadline; none where the time does not suffice, or
    /// the storage does not tell.
    pub(super) async fn of(store: &Store, selection: &Selection, end: Instant) -> Option<Self> {
        let counted = timeout_at(end, count(store, selection)).await;
        counted.ok()?.ok()
    }

    fn add(&mut self, created: SystemTime, now: SystemTime) {
        let since = created.duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.newest = self.newest.max(Some(millis));
        let age = now.duration_since(created).unwrap_or_default();
        let age = usize::try_from(age.as_secs() / DAY).unwrap_or(usize::MAX);
        let day = DAYS.checked_sub(1).and_then(|last| last.checked_sub(age));
        if let Some(day) = day.and_then(|day| self.days.get_mut(day)) {
            *day += 1;
        }
    }
}

async fn count(store: &Store, selection: &Selection) -> snapshot::Result<Activity> {
    let mut activity = Activity::default();
    let mut walk = store.walk(selection);
    let now = SystemTime::now();
    let retention = Retention::default();
    for _ in 0..NAMES {
        let Some((scope, name)) = walk.next().await? else {
            activity.is_whole = true;
            return Ok(activity);
        };
        // The times come from lists: no version is read.
        let listed = scope.plan_prune(name.as_str(), &retention).await?;
        for version in listed {
            activity.add(version.created, now);
        }
    }
    activity.is_whole = walk.next().await?.is_none();
    Ok(activity)
}

/// Returns the heads of the columns that [`cells`] fills.
pub(super) fn heads() -> Markup {
    html! {
        th scope="col" { "Saves in " (DAYS) " days" } th scope="col" { "Last save" }
    }
}

/// Shows the saves of a row.
pub(super) fn cells(activity: Option<&Activity>) -> Markup {
    html! {
        @match activity {
            Some(activity) => {
                @let saves: u64 = activity.days.iter().sum();
                @let more = if activity.is_whole { "" } else { "+" };
                td { span .row { (chart::bars(&activity.days)) span { (saves) (more) } } }
                td {
                    @if let Some(newest) = activity.newest { (page::time(newest)) } @else { "–" }
                    @if !activity.is_whole { " or later" }
                }
            }
            None => { td { span .muted { "not counted" } } td { "–" } }
        }
    }
}

/// Tells how saves are counted.
pub(super) fn note(what: &str) -> Markup {
    html! {
        p .muted {
            "Saves are versions that still exist, of the first " (text::count(NAMES as u64, "name"))
            " of each " (what) "; + means that it has more names."
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use persist_host::snapshot::{Name, SaveOptions};
    use persist_host::storage::Memory;

    use super::*;

    #[test]
    fn a_save_counts_for_its_day() {
        let now = UNIX_EPOCH + Duration::from_secs(100 * DAY);
        let mut activity = Activity::default();
        for (age, times) in [(0, 2), (DAY - 1, 1), (DAY, 1), (13 * DAY, 3), (14 * DAY, 9)] {
            for _ in 0..times {
                activity.add(now - Duration::from_secs(age), now);
            }
        }
        // A clock of another machine may be ahead.
        activity.add(now + Duration::from_secs(60), now);
        assert_eq!((activity.days[13], activity.days[12]), (4, 1));
        assert_eq!((activity.days[0], activity.days[1]), (3, 0));
        assert_eq!(activity.newest, Some((100 * DAY + 60) * 1000));
    }

    #[tokio::test]
    async fn the_cost_of_a_row_is_bounded() {
        let store = Store::new(Arc::new(Memory::new()));
        let agent = Name::new("bot").expect("a name");
        let scope = store.scope("bot", Some("s")).expect("a scope");
        let end = || Instant::now() + Duration::from_secs(60);
        for at in 0..NAMES + 3 {
            let (name, state) = (format!("n{at}"), Bytes::from_static(b"x"));
            let saved = scope.save(&name, state, SaveOptions::default()).await;
            saved.expect("saved");
            let selection = Selection::Agent(agent.clone());
            let found = Activity::of(&store, &selection, end()).await;
            let found = found.expect("counted");
            let expected = NAMES.min(at + 1) as u64;
            assert_eq!(found.days[DAYS - 1], expected);
            assert_eq!(found.is_whole, at < NAMES);
        }
        let selection = Selection::Session(agent, None);
        let found = Activity::of(&store, &selection, end()).await;
        let found = found.expect("counted");
        assert_eq!((found.newest, found.is_whole), (None, true));
    }
}
