//! Names, versions and addresses: text that becomes a key, and keys that become text.

use anyhow::Result;
use bytes::Bytes;
use persist_host::snapshot::{MAX_ENCODED, MAX_VERSION, Name};
use persist_host::storage::Key;

use super::command::address::{Address, SelectionArg, Target, address as print, selection_address};
use crate::fixture_store::FixtureStore;
use crate::golden;
use crate::version_key::version_file;

thread_local! {
    static SHELF: FixtureStore = FixtureStore::new().expect("a runtime");
}

/// A page that shows everything.
const ALL: usize = 100;

/// Any text as a name, and as a segment of a key: a name and its encoding stand for each other, and
/// for nothing else.
pub fn name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    match Name::new(text) {
        Ok(name) => {
            let encoded = name.encoded();
            assert_eq!(name.as_str(), text, "another name");
            assert!(encoded.len() <= MAX_ENCODED, "too long");
            let plain =
                |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b"._~-".contains(&byte);
            assert!(
                encoded.bytes().all(plain),
                "{encoded}: no file system takes it"
            );
            assert!(!encoded.starts_with('.'), "{encoded}: hidden");
            // What it is read back as is this name alone: so no other has the same encoding.
            assert_eq!(listed(encoded), std::slice::from_ref(&name), "{encoded}");
        }
        Err(_) => {
            let escaped = text
                .bytes()
                .filter(|byte| !byte.is_ascii_lowercase())
                .count();
            let long = text.len() + 2 * escaped > MAX_ENCODED;
            let control = text.chars().any(char::is_control);
            assert!(text.is_empty() || control || long, "{text:?} was refused");
        }
    }
    for name in listed(text) {
        assert_eq!(name.encoded(), text, "one name, two encodings");
    }
}

/// The agents of a store whose only object is below the directory `segment`.
fn listed(segment: &str) -> Vec<Name> {
    let below = Key::new(format!("{segment}/~/memory/{}", version_file(1)));
    let Some(key) = below.ok().filter(|_| !segment.contains('/')) else {
        return Vec::new();
    };
    SHELF.with(|shelf| {
        shelf.put(&key, Bytes::new()).expect("memory takes it");
        let agents = shelf.wait(shelf.store.agents(None, ALL));
        shelf.remove(&key).expect("memory forgets");
        agents.expect("memory lists")
    })
}

/// Any text as the last segment of a key: a version is listed if it is exactly that version's
/// segment.
pub fn segment(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        for version in versions(text) {
            assert_eq!(version_file(version), text, "one version, two segments");
        }
    }
    if let Some(number) = data.first_chunk() {
        let version = u64::from_le_bytes(*number) % MAX_VERSION + 1;
        assert_eq!(versions(&version_file(version)), [version], "not listed");
    }
}

fn versions(segment: &str) -> Vec<u64> {
    let key = Key::new(format!("bot/~/memory/{segment}"));
    let Some(key) = key.ok().filter(|_| !segment.contains('/')) else {
        return Vec::new();
    };
    SHELF.with(|shelf| {
        shelf.put(&key, Bytes::new()).expect("memory takes it");
        let scope = shelf.store.scope("bot", None).expect("a name");
        let versions = shelf.wait(scope.versions("memory", None, ALL));
        shelf.remove(&key).expect("memory forgets");
        versions.expect("memory lists")
    })
}

/// Any text as an address of the command: what is understood is printed so that it is understood
/// again, as the same.
pub fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(found) = text.parse::<Address>() {
        let printed = match found.version {
            Some(version) => found.at(version),
            None => found.name(),
        };
        let again = printed.parse::<Address>().expect("what is printed is read");
        assert_eq!(again, found, "{printed} is another address");
    }
    match text.parse::<Target>() {
        Ok(Target::Names(SelectionArg(found, _))) => {
            // A glob is printed as it was typed.
            if let Some(printed) = selection_address(&found) {
                let again = printed.parse::<SelectionArg>();
                assert_eq!(again.expect("what is printed is read").0, found);
            }
        }
        Ok(Target::Version(found)) => {
            let again = text.parse::<Address>();
            assert_eq!(again.expect("an address is a target"), found);
        }
        Err(_) => {}
    }
    // The same the other way: any three names have an address.
    let mut names = text.split('\n').filter_map(|name| Name::new(name).ok());
    if let (Some(agent), Some(name), session) = (names.next(), names.next(), names.next()) {
        let printed = print(&agent, session.as_ref(), &name);
        let found: Address = printed.parse().expect("what is printed is read");
        let found = (found.agent, found.session, found.name, found.version);
        assert_eq!(found, (agent, session, name, None), "{printed}");
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(super) fn names() -> Result<Vec<Vec<u8>>> {
    let long = "a".repeat(MAX_ENCODED);
    let capital = "A".repeat(MAX_ENCODED / 3);
    Ok(texts(&[
        "memory",
        "Notes/2026",
        "~4eotes~2f2026",
        "..",
        "~2e.",
        "a~c3~a9b",
        "é\u{301}\u{10ffff}",
        "~",
        "~7e",
        &long,
        &capital,
    ]))
}

pub(super) fn segments() -> Result<Vec<Vec<u8>>> {
    let mut segments = texts(&[
        "9999999998-0000000001.gz",
        "9999999957-0000000042.gz",
        "0000000000-9999999999.gz",
        "pin-42",
    ]);
    for golden in golden::versions()? {
        let segment = golden.key.as_str().rsplit('/').next().unwrap_or_default();
        segments.push(segment.into());
    }
    Ok(segments)
}

pub(super) fn addresses() -> Result<Vec<Vec<u8>>> {
    Ok(texts(&[
        "bot/memory",
        "bot/memory@7",
        "bot/session/memory@9999999999",
        "Bot A/s~2f1/notes~40home@1",
        "ä/~2e./é@18446744073709551615",
        "bot\nmemory\nsession/1",
        "a@b\n~7e\n~",
        "bot/memory@+7",
        "bot/m@1@2",
    ]))
}
