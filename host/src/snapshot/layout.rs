//! Keys of a store: the only file that builds and parses them.
//!
//! ```text
//! ~/store.json                                           header of the store
//! ~/~/policy/9999999998-0000000001.gz                    version of the policy
//! ~/probe-…  ~/clock-…                                   probes, which are removed again
//! ~/probed-….json                                        record of a probed server
//! ~/tmp/…                                                temporary files, on a local disk only
//! ~/lease/AGENT/SESSION/9999999998-0000000001.json       object of a lease
//! AGENT/SESSION/NAME/9999999998-0000000001.gz            version of a name
//! AGENT/SESSION/NAME/pin-1                               pin of a version
//! ```
//! SESSION is `~` for what belongs to no session. `docs/src/file-format.md` describes the same for
//! other programs.

use super::{MAX_VERSION, Name, Result, Version};
use crate::storage::{Key, probe};

/// Directory of the objects that belong to the store itself.
pub const OWN_DIR: &str = "~";

/// Segment in place of a session's name, for what belongs to no session.
pub const NO_SESSION: &str = "~";

/// Key of the header of a store.
pub const STORE_HEADER: &str = "~/store.json";

/// Name of the header of a store in [`OWN_DIR`].
pub(crate) const STORE_HEADER_NAME: &str = "store.json";

/// Suffix of the files of versions.
pub const VERSION_SUFFIX: &str = ".gz";

/// Prefix of the names of pins. It sorts after every version.
pub(crate) const PIN_PREFIX: &str = "pin-";

/// Prefix of the names of objects that probe a storage.
pub const PROBE_PREFIX: &str = probe::PREFIX;

/// Prefix of the names of records that say which servers were probed.
pub(crate) const PROBE_RECORD_PREFIX: &str = probe::RECORD;

/// Prefix of the names of objects that tell the storage's time. A host that initializes the store
/// does not remove them.
pub(crate) const CLOCK_PREFIX: &str = "clock-";

/// Directory of the files that are being written on a local disk, in [`OWN_DIR`].
pub(crate) const TEMPORARY_NAME: &str = "tmp";

/// Name of the last entry of an archive, which has a line of JSON for each version. An unpacked
/// archive leaves it beside its agents.
pub const ARCHIVE_MANIFEST: &str = "manifest.jsonl";

/// Directory of the leases, in [`OWN_DIR`]. A build that knows no leases does not look at it, and
/// takes a leased agent that saved nothing for no agent.
const LEASES_NAME: &str = "lease";

/// Suffix of the objects of leases.
const LEASE_SUFFIX: &str = ".json";

/// The reserved name of the store's policy.
pub(crate) const POLICY_NAME: &str = "policy";

/// Returns the segment that stands for a session in keys.
pub fn session_segment(session: Option<&Name>) -> &str {
    session.map_or(NO_SESSION, Name::encoded)
}

/// Returns the directory of the names of an agent, or of one of its sessions.
pub(crate) fn scope_dir(agent: &Name, session: Option<&Name>) -> String {
    format!("{}/{}", agent.encoded(), session_segment(session))
}

/// Returns the directory of a name's versions and pins.
pub(crate) fn name_dir(agent: &Name, session: Option<&Name>, name: &Name) -> String {
    format!("{}/{}", scope_dir(agent, session), name.encoded())
}

/// Returns the key of a version, which is from 1 to [`MAX_VERSION`].
pub fn version_key(agent: &Name, session: Option<&Name>, name: &Name, version: Version) -> String {
    let segment = version_segment(version.clamp(1, MAX_VERSION));
    format!("{}/{segment}", name_dir(agent, session, name))
}

/// Returns the key of an object that belongs to the store itself.
///
/// # Errors
/// [`Error::Storage`](super::Error::Storage) if `name` cannot be a segment of a key.
pub fn own_key(name: &str) -> Result<Key> {
    Ok(Key::new(format!("{OWN_DIR}/{name}"))?)
}

/// Returns the last segment of a version's key. The newest sorts first, so that the head is the
/// first key of a list, however long the history is.
pub(crate) fn version_segment(version: Version) -> String {
    debug_assert!((1..=MAX_VERSION).contains(&version));
    format!(
        "{:010}-{version:010}{VERSION_SUFFIX}",
        MAX_VERSION - version
    )
}

/// Returns the version whose key ends in `segment`; none for anything that is not exactly such a
/// segment.
pub(crate) fn parse_version(segment: &str) -> Option<Version> {
    let (_, version) = segment.strip_suffix(VERSION_SUFFIX)?.split_once('-')?;
    let version = version
        .parse()
        .ok()
        .filter(|v| (1..=MAX_VERSION).contains(v))?;
    (version_segment(version) == segment).then_some(version)
}

/// Returns the directory of all leases.
pub(crate) fn leases_dir() -> String {
    format!("{OWN_DIR}/{LEASES_NAME}")
}

/// Returns the directory of the lease of an agent, or of one of its sessions.
pub(crate) fn lease_dir(agent: &Name, session: Option<&Name>) -> String {
    format!("{}/{}", leases_dir(), scope_dir(agent, session))
}

/// Returns the last segment of the key of an object of a lease. The newest sorts first.
pub(crate) fn lease_segment(number: u64) -> String {
    debug_assert!((1..=MAX_VERSION).contains(&number));
    format!("{:010}-{number:010}{LEASE_SUFFIX}", MAX_VERSION - number)
}

/// Returns the number of the lease object whose key ends in `segment`.
pub(crate) fn parse_lease(segment: &str) -> Option<u64> {
    let (_, number) = segment.strip_suffix(LEASE_SUFFIX)?.split_once('-')?;
    let number = number
        .parse()
        .ok()
        .filter(|n| (1..=MAX_VERSION).contains(n))?;
    (lease_segment(number) == segment).then_some(number)
}

/// Returns the agent and the session of a lease object whose key is `path` below the directory of
/// all leases.
pub(crate) fn scope_of_lease(path: &str) -> Option<(Name, Option<Name>)> {
    let segments: Vec<_> = path.split('/').collect();
    let [agent, session, number] = segments[..] else {
        return None;
    };
    parse_lease(number)?;
    let session = match session {
        NO_SESSION => None,
        session => Some(Name::from_encoded(session)?),
    };
    Some((Name::from_encoded(agent)?, session))
}

/// Returns the last segment of the key of a version's pin.
pub fn pin_segment(version: Version) -> String {
    format!("{PIN_PREFIX}{version}")
}

/// Returns the version whose pin's key ends in `segment`.
pub(crate) fn parse_pin(segment: &str) -> Option<Version> {
    let version = segment.strip_prefix(PIN_PREFIX)?.parse().ok()?;
    ((1..=MAX_VERSION).contains(&version) && pin_segment(version) == segment).then_some(version)
}

/// Returns the encoded name of a version whose key is `path` below its scope; none for what is no
/// version.
pub(crate) fn name_of_version(path: &str) -> Option<&str> {
    let (name, segment) = path.split_once('/')?;
    parse_version(segment)?;
    Name::from_encoded(name)?;
    Some(name)
}

/// Returns true for a name in [`OWN_DIR`] of an object that is removed by its maker: a probe, or an
/// object that tells the storage's time.
pub(crate) fn is_transient(name: &str) -> bool {
    name.starts_with(PROBE_PREFIX) || name.starts_with(CLOCK_PREFIX)
}

/// Returns true for the key of a version, and for that of a probe.
pub(crate) fn is_of_store(key: &Key) -> bool {
    let (dir, name) = key.split();
    let is_version = parse_version(name).is_some() && dir.split('/').count() == 3;
    let mut segments = key.as_str().split('/');
    let is_probe = segments.next() == Some(OWN_DIR)
        && segments
            .next()
            .is_some_and(|name| name.starts_with(PROBE_PREFIX));
    is_version || is_probe
}

/// Returns true for a key that has the form of a version, a pin or a part of the store itself. An
/// [`Adapter`](super::Adapter) refuses it. The form of a pin is any number here, also one that no
/// version has.
pub fn is_reserved(key: &Key) -> bool {
    let (_, last) = key.split();
    let is_pin = last
        .strip_prefix(PIN_PREFIX)
        .is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
    let is_own = key.as_str().split('/').next() == Some(OWN_DIR);
    parse_version(last).is_some() || is_pin || is_own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_sorts_first() {
        assert_eq!(version_segment(42), "9999999957-0000000042.gz");
        assert!(version_segment(43) < version_segment(42));
        assert!(version_segment(MAX_VERSION) < version_segment(1));
    }

    #[test]
    fn only_the_exact_segment_is_a_version() {
        assert_eq!(parse_version("9999999957-0000000042.gz"), Some(42));
        for other in [
            "",
            "pin-42",
            "9999999957-0000000042",
            "9999999957-0000000042.gz2",
            "9999999957-42.gz",
            "9999999956-0000000042.gz",
            "9999999999-0000000000.gz",
            "9999999957-+000000042.gz",
        ] {
            assert_eq!(parse_version(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_exact_key_is_that_of_a_lease() {
        assert_eq!(lease_segment(42), "9999999957-0000000042.json");
        assert_eq!(parse_lease("9999999957-0000000042.json"), Some(42));
        assert_eq!(parse_lease("9999999957-0000000042.gz"), None);
        assert_eq!(parse_lease("9999999956-0000000042.json"), None);
        let bot = Name::new("Bot").expect("a name");
        let monday = Name::new("monday").expect("a name");
        for session in [None, Some(monday)] {
            let dir = lease_dir(&bot, session.as_ref());
            let path = dir.strip_prefix("~/lease/").expect("among the leases");
            let path = format!("{path}/{}", lease_segment(1));
            assert_eq!(scope_of_lease(&path), Some((bot.clone(), session)));
        }
        for other in [
            "bot/9999999957-0000000042.json",
            "bot/~/1.json",
            "B/~/x",
            "",
        ] {
            assert_eq!(scope_of_lease(other), None, "{other}");
        }
    }

    #[test]
    fn only_the_exact_segment_is_a_pin() {
        assert_eq!(parse_pin(&pin_segment(42)), Some(42));
        for other in [
            "pin-",
            "pin-0",
            "pin-042",
            "pin-+42",
            "pin-10000000000",
            "42",
        ] {
            assert_eq!(parse_pin(other), None, "{other}");
        }
    }

    #[test]
    fn only_keys_of_versions_and_probes_are_of_the_store() {
        let is_of_store = |key: &str| is_of_store(&Key::new(key).expect("a key"));
        for own in [
            "bot/~/memory/9999999998-0000000001.gz",
            "bot/monday/memory/9999999998-0000000001.gz",
            "~/~/policy/9999999998-0000000001.gz",
            "~/probe-00-race",
        ] {
            assert!(is_of_store(own), "{own}");
        }
        for other in [
            "backups/db.dump",
            "videos/2026/cam1.mp4",
            "9999999998-0000000001.gz",
            "agent1/large_snapshot.json.gz",
            "a/bot/~/memory/9999999998-0000000001.gz",
            "bot/~/memory/9999999998-0000000002.gz",
            "bot/probe-1",
        ] {
            assert!(!is_of_store(other), "{other}");
        }
    }
}
