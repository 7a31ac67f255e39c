//! Points in time on the command line.

use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::civil::{DateTime, Time};
use jiff::{Span, SpanCompare, Timestamp, Zoned};
use persist_host::snapshot::{Error, Info, Name, Scope, Store, Version};

use crate::address::{self, Address};
use crate::error::{Hinted, Usage};
use crate::print::Out;
use crate::text;

/// Forms of a time, for errors.
const FORMS: &str = "write 2026-11-26T14:05, 2026-11-26, 14:05, `yesterday 14:05` or `2h ago`; \
                     without a zone such as Z or +01:00, the time is local";

/// A point in time, in milliseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct When(pub(crate) u64);

impl FromStr for When {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text.trim(), &Zoned::now())
    }
}

/// Parses a time. `now` gives the zone of a time without one, and the start of a relative time.
fn parse(text: &str, now: &Zoned) -> Result<When> {
    let local = |time: DateTime| anyhow::Ok(time.to_zoned(now.time_zone().clone())?.timestamp());
    let (day, clock) = text.split_once(' ').unwrap_or((text, "00:00"));
    let days_ago = match day.to_ascii_lowercase().as_str() {
        "today" => Some(0),
        "yesterday" => Some(1),
        _ => None,
    };
    let time = if text.eq_ignore_ascii_case("now") {
        now.timestamp()
    } else if let Ok(time) = text.parse::<Timestamp>() {
        time
    } else if let Ok(time) = text.parse::<Zoned>() {
        time.timestamp()
    } else if let Ok(time) = text.parse::<DateTime>() {
        local(time)?
    } else if let Some(days) = days_ago {
        let clock = clock.trim().parse::<Time>().context(FORMS)?;
        let day = now.date().checked_sub(Span::new().days(days))?;
        local(day.to_datetime(clock))?
    } else if let Ok(clock) = text.parse::<Time>() {
        local(now.date().to_datetime(clock))?
    } else if let Ok(span) = text.parse::<Span>() {
        // `2h` and `2h ago` are the same: no version has a time in the future.
        let span = span.abs();
        let is_zero = span.compare(SpanCompare::from(Span::new()).days_are_24_hours());
        if is_zero.is_ok_and(|order| order.is_eq()) {
            now.timestamp()
        } else {
            now.checked_sub(span).context(FORMS)?.timestamp()
        }
    } else {
        bail!("{text:?} is not a time; {FORMS}")
    };
    match u64::try_from(time.as_millisecond()) {
        Ok(millis) => Ok(When(millis)),
        Err(_) => bail!("{text:?} is before 1970; {FORMS}"),
    }
}

/// A point in time to look at.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct At {
    /// Use the newest version that was created at TIME or before: 2026-11-26T14:05 (local time
    /// unless it has a zone), 2026-11-26, 14:05, `yesterday 14:05` or `2h ago`
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<When>,
}

/// A name at a point in time.
#[derive(Debug)]
pub(crate) enum Past {
    /// The newest version at that time, which may be a tombstone.
    Version(Info),
    /// Nothing had been saved yet.
    NotYet,
    /// The versions of that time are pruned; this is the oldest that is left.
    Pruned(Version),
    /// Nothing is saved under the name at all.
    Nothing,
    /// A version cannot be read, so it is not known when it was created.
    Unreadable(Version, Error),
}

impl When {
    /// Returns the time, as messages write it.
    pub(crate) fn shown(self) -> String {
        text::rfc3339(self.0).unwrap_or_else(|| text::time(self.0))
    }

    /// Returns the newest version that was created at this time or before it. A restored version
    /// was created when it was restored.
    pub(crate) async fn find(self, scope: &Scope, name: &Name) -> Result<Past, Error> {
        let mut past = scope.past(name.as_str(), None, usize::MAX)?;
        let mut oldest = None;
        while let Some((version, info)) = past.next().await? {
            match info {
                Ok(info) if info.created_at <= self.0 => return Ok(Past::Version(info)),
                Ok(info) => oldest = Some(info),
                Err(error) => return Ok(Past::Unreadable(version, error)),
            }
        }
        Ok(match oldest {
            None => Past::Nothing,
            Some(info) if info.parent.is_none() => Past::NotYet,
            Some(info) => Past::Pruned(info.version),
        })
    }
}

impl At {
    /// Returns the address with the version that is the newest at this time. Without a time,
    /// returns the address as it is.
    pub(crate) async fn of(self, store: &Store, address: &Address, out: Out) -> Result<Address> {
        let Some(when) = self.at else {
            return Ok(address.clone());
        };
        if let Some(version) = address.version {
            return Err(Usage::new(format!(
                "the address has a version, @{version}, and --at selects another"
            ))
            .with_hint(format!("write {}, or remove --at", address.name()))
            .into());
        }
        let scope = address.scope(store)?;
        let past = when.find(&scope, &address.name).await?;
        let name = address::address(scope.agent(), scope.session(), &address.name);
        let why = match past {
            Past::Version(info) => {
                return Ok(Address {
                    version: Some(info.version),
                    ..address.clone()
                });
            }
            Past::Unreadable(_, error) => return Err(error.into()),
            Past::Nothing => format!("nothing is saved as {name}"),
            Past::NotYet => format!("{name} did not exist at {}", when.shown()),
            Past::Pruned(oldest) => format!(
                "the versions of {name} at {} are pruned; the oldest is {oldest}",
                when.shown()
            ),
        };
        let hint = format!("run `{}` to list versions", out.command("history", &name));
        let error = Error::NotFound(why).into();
        Err(Hinted { error, hint }.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_local_unless_it_has_a_zone() {
        let now: Zoned = "2026-11-28T02:30:00+01:00[+01:00]".parse().expect("a time");
        for (text, utc) in [
            ("2026-11-26T14:05Z", "2026-11-26T14:05:00Z"),
            ("2026-11-26T14:05:09.5+02:00", "2026-11-26T12:05:09.5Z"),
            ("2026-11-26T14:05", "2026-11-26T13:05:00Z"),
            ("2026-11-26 14:05:09", "2026-11-26T13:05:09Z"),
            ("2026-11-26", "2026-11-25T23:00:00Z"),
            ("02:15", "2026-11-28T01:15:00Z"),
            ("today", "2026-11-27T23:00:00Z"),
            ("yesterday 14:05", "2026-11-27T13:05:00Z"),
            ("Yesterday", "2026-11-26T23:00:00Z"),
            ("2h ago", "2026-11-27T23:30:00Z"),
            ("2h", "2026-11-27T23:30:00Z"),
            ("1d 30m ago", "2026-11-27T01:00:00Z"),
            ("2 weeks ago", "2026-11-14T01:30:00Z"),
            ("0s", "2026-11-28T01:30:00Z"),
            ("now", "2026-11-28T01:30:00Z"),
        ] {
            let found = parse(text, &now).unwrap_or_else(|error| panic!("{text}: {error}"));
            let utc: Timestamp = utc.parse().expect("a time");
            assert_eq!(found.0 as i64, utc.as_millisecond(), "{text}");
        }
        for text in [
            "",
            "then",
            "25:00",
            "2026-13-01",
            "yesterday at two",
            "1960-01-01",
            "@7",
        ] {
            parse(text, &now).expect_err(text);
        }
    }
}
