//! Files of format 1 that are kept for ever, with what they must give.
//!
//! They lie in `tests/golden`, with a manifest that says at which key each belongs, the SHA-256 of
//! its state, and what is known of it. No file that is there is ever made again: the whole point is
//! that an old build wrote it. What is missing is made by
//! `cargo test -p persist-crash-testing -- --ignored golden_files_that_are_missing`.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use persist_host::snapshot::Version;
use persist_host::storage::Key;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fixture_store::{self, Place};

/// A file, and what it must give.
#[derive(Clone, Debug)]
pub struct Golden {
    /// Its name in `tests/golden`.
    pub file: String,
    /// Its bytes.
    pub bytes: Bytes,
    /// The version that it is; none for a file at a key of the caller's own.
    pub place: Option<Place>,
    /// Key where the file belongs.
    pub key: Key,
    /// State that `zcat` prints. Its SHA-256 is in the manifest. None for a tombstone.
    pub state: Option<Bytes>,
    /// Known information about the version.
    pub info: Value,
}

/// A file in the manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    file: String,
    /// Key where the file is kept.
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<At>,
    /// Of the state; none for a tombstone.
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    info: Value,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct At {
    agent: String,
    session: Option<String>,
    name: String,
    version: Version,
}

/// Returns the directory of the golden files.
pub fn dir() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../golden"))
}

/// All of them.
///
/// # Errors
/// Where one is missing, or is not the one that the manifest speaks of.
pub fn all() -> Result<Vec<Golden>> {
    manifest()?.into_iter().map(read).collect()
}

/// Those that are versions.
///
/// # Errors
/// As [`all`].
pub fn versions() -> Result<Vec<Golden>> {
    let mut all = all()?;
    all.retain(|golden| golden.place.is_some());
    Ok(all)
}

fn manifest() -> Result<Vec<Entry>> {
    let path = dir().join("manifest.json");
    let text = fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(serde_json::from_slice(&text)?)
}

fn read(entry: Entry) -> Result<Golden> {
    let bytes = fs::read(dir().join(&entry.file)).with_context(|| entry.file.clone())?;
    let state = fixture_store::zcat(&bytes)?;
    let expected = entry.sha256.as_ref();
    ensure!(
        expected.is_none_or(|sha256| *sha256 == fixture_store::sha256(&state)),
        "{} is not the file that the manifest speaks of",
        entry.file
    );
    Ok(Golden {
        bytes: bytes.into(),
        place: entry.version.map(|at| Place {
            agent: at.agent,
            session: at.session,
            name: at.name,
            version: at.version,
        }),
        key: Key::new(entry.key)?,
        state: expected.map(|_| state.into()),
        info: entry.info,
        file: entry.file,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use persist_host::conformance::noise;
    use persist_host::snapshot::{Adapter, Error, Expect, SaveOptions, Scope, Store};
    use persist_host::storage::{Local, Memory, ReadRange, Storage};

    use super::*;
    use crate::fixture_store::FixtureStore;
    use crate::malformed_file::{BLOCK, Forge};

    /// A store that an old build left on this disk.
    fn old_store() -> (tempfile::TempDir, Arc<dyn Storage>) {
        let root = tempfile::tempdir().expect("a directory");
        for golden in all().expect("golden files") {
            let path = root.path().join("store").join(golden.key.as_str());
            let dir = path.parent().expect("in a directory");
            fs::create_dir_all(dir).expect("made");
            fs::write(path, &golden.bytes).expect("written");
        }
        let introduction = root.path().join("store/~");
        fs::create_dir(&introduction).expect("made");
        let json = dir().join("store.json");
        fs::copy(json, introduction.join("store.json")).expect("copied");
        let storage = Arc::new(Local::new(root.path().join("store")));
        (root, storage)
    }

    fn wait<T>(what: impl Future<Output = T>) -> T {
        let shelf = tokio::runtime::Builder::new_current_thread().build();
        shelf.expect("a runtime").block_on(what)
    }

    #[test]
    fn golden_files_of_older_builds_load() {
        let (_root, storage) = old_store();
        let store = Store::new(Arc::clone(&storage));
        wait(async {
            for golden in all().expect("golden files") {
                let file = &golden.file;
                let Some(place) = &golden.place else {
                    let state = Adapter::new(Arc::clone(&storage))
                        .load(golden.key.as_str())
                        .await;
                    assert_eq!(Some(state.expect(file)), golden.state, "{file}");
                    continue;
                };
                let scope = store
                    .scope(&place.agent, place.session.as_deref())
                    .expect("a name");
                let at = Some(place.version);
                let info = scope.stat(&place.name, at).await.expect(file).expect(file);
                let json = serde_json::to_value(&info).expect("JSON");
                assert_eq!(json, golden.info, "{file}");
                let snapshot = scope.load(&place.name, at).await.expect(file);
                if let Some(snapshot) = &snapshot {
                    assert_eq!(snapshot.info, info, "{file}");
                }
                let state = snapshot.map(|snapshot| snapshot.state);
                assert!(state == golden.state, "{file}");
            }
        });
    }

    #[test]
    fn an_old_store_goes_on() {
        let (_root, storage) = old_store();
        let store = Store::new(storage);
        wait(async {
            for golden in versions().expect("golden files") {
                let place = golden.place.as_ref().expect("a version");
                let scope = store
                    .scope(&place.agent, place.session.as_deref())
                    .expect("a name");
                let head = scope
                    .stat(&place.name, None)
                    .await
                    .expect("reads")
                    .expect("saved");
                let saved = scope
                    .save(
                        &place.name,
                        "more".into(),
                        SaveOptions::expecting(Expect::Version(head.version)),
                    )
                    .await;
                assert_eq!(saved.expect("saves").version, head.version + 1);
                if golden.state.is_some() {
                    let restored = scope.restore(&place.name, place.version, Expect::Any).await;
                    assert_eq!(
                        restored.expect("restores").sha256,
                        golden.info["sha256"].as_str().expect("text")
                    );
                }
            }
        });
    }

    #[test]
    fn every_kind_is_there() {
        let golden = all().expect("golden files");
        let files: Vec<_> = golden.iter().map(|golden| golden.file.as_str()).collect();
        let kinds = [
            "empty", "text", "deleted", "restored", "forked", "noise", "blocks", "labels",
            "adapter", "plain",
        ];
        assert_eq!(files, kinds.map(|kind| format!("{kind}.gz")));
        let forge = |file: &str| {
            let golden = golden.iter().find(|golden| golden.file == file);
            Forge::read(&golden.expect("there").bytes).expect("honest")
        };
        assert_eq!(forge("blocks.gz").blocks.len(), 4);
        assert!(
            forge("noise.gz").blocks[0].starts_with(&[0, 0xff, 0xff, 0, 0]),
            "stored"
        );
        assert!(forge("labels.gz").metadata.len() > 65_531, "two members");
        assert_eq!(forge("deleted.gz").kind, 2);
    }

    #[test]
    fn a_later_format_is_refused_by_name_and_stands_in_nobodys_way() {
        for (later, word) in [((1, 2), "format 2"), ((9, 1), "kind 9")] {
            for golden in versions().expect("golden files") {
                let place = golden.place.as_ref().expect("a version");
                let mut forge = Forge::read(&golden.bytes).expect("honest");
                (forge.kind, forge.format) = later;
                let shelf = FixtureStore::new().expect("a shelf");
                shelf
                    .put(&golden.key, forge.write().into())
                    .expect("memory takes it");
                let scope = shelf
                    .store
                    .scope(&place.agent, place.session.as_deref())
                    .expect("a name");
                let name = &place.name;
                let refused = |error: Error| {
                    let says = |what: &str| what.contains(word);
                    assert!(
                        matches!(&error, Error::Unsupported { what, .. } if says(what)),
                        "{}: {error}",
                        golden.file
                    );
                };
                shelf.wait(async {
                    refused(scope.load(name, None).await.expect_err("later"));
                    refused(scope.stat(name, None).await.expect_err("later"));
                    refused(scope.reader(name, None).await.expect_err("later"));
                    refused(scope.history(name, None, 9).await.expect_err("later"));
                    let forked = scope.fork(name, None, "fork", Expect::Any).await;
                    refused(forked.expect_err("later"));
                    let saved = scope
                        .save(name, "new".into(), SaveOptions::default())
                        .await
                        .expect("saves");
                    assert_eq!(saved.version, place.version + 1);
                    scope.delete(name, Expect::Any).await.expect("deletes");
                });
            }
        }
    }

    /// A scope of the old build, in memory.
    fn scope(memory: &Memory, session: Option<&str>) -> Scope {
        let store = Store::new(Arc::new(memory.clone()));
        store.scope("golden", session).expect("a name")
    }

    /// Returns the maximum number of labels, made of characters that JSON writes in six.
    fn long_labels() -> Vec<(String, String)> {
        let digits: Vec<char> = (1..32).filter_map(char::from_u32).collect();
        let digits: Vec<_> = digits
            .into_iter()
            .filter(|c| !"\u{8}\t\n\u{c}\r".contains(*c))
            .collect();
        let digit = |n: usize| digits[n % digits.len()];
        let key = |n: usize| {
            [
                digit(n),
                digit(n / digits.len()),
                digit(n / digits.len() / digits.len()),
            ]
        };
        (0..2700)
            .map(|n| (key(n).into_iter().collect(), String::new()))
            .collect()
    }

    /// Returns the state that is saved as `blocks`: four blocks that differ, and little to keep.
    fn blocks() -> Bytes {
        let json = b"{\"role\": \"user\", \"text\": \"What did I ask you last week?\"}, ";
        let json = json.iter().copied().cycle().take(BLOCK + 5);
        let digits = (0..BLOCK).map(|n| b"0123456789"[n / 1000 % 10]);
        std::iter::repeat_n(0, BLOCK - 5)
            .chain(json)
            .chain(digits)
            .chain(*b"the end")
            .collect::<Vec<_>>()
            .into()
    }

    async fn save_versions(memory: &Memory) -> Result<Vec<(&'static str, Option<&str>, String)>> {
        let plain = SaveOptions::default;
        let across = scope(memory, None);
        let session = scope(memory, Some("Monday"));
        across.save("empty", Bytes::new(), plain()).await?;
        let options = plain()
            .with_media_type("text/plain; charset=utf-8")
            .with_label("turn", "17")
            .with_label("ünicode", "\"✓\"\n");
        let text = "The agent remembers this.\nAnd this: äöü.\n";
        across.save("Notes/2026 ü", text.into(), options).await?;
        across.delete("Notes/2026 ü", Expect::Any).await?;
        across.restore("Notes/2026 ü", 1, Expect::Any).await?;
        across
            .fork("Notes/2026 ü", None, "forked", Expect::Absent)
            .await?;
        session.save("noise", noise(1, 70_000), plain()).await?;
        across.save("blocks", blocks(), plain()).await?;
        let mut options = plain();
        options.labels = long_labels();
        across.save("labels", "many labels".into(), options).await?;
        let notes = || "Notes/2026 ü".to_owned();
        Ok(vec![
            ("empty", None, "empty".into()),
            ("text", None, notes()),
            ("deleted", None, notes()),
            ("restored", None, notes()),
            ("forked", None, "forked".into()),
            ("noise", Some("Monday"), "noise".into()),
            ("blocks", None, "blocks".into()),
            ("labels", None, "labels".into()),
        ])
    }

    async fn make_version(
        memory: &Memory,
        (file, session, name): (&str, Option<&str>, String),
    ) -> Result<(Entry, Bytes)> {
        let version = match file {
            "deleted" => 2,
            "restored" => 3,
            _ => 1,
        };
        let scope = scope(memory, session);
        let info = scope.stat(&name, Some(version)).await?.context("saved")?;
        let snapshot = scope.load(&name, Some(version)).await?;
        let place = Place {
            agent: "golden".into(),
            session: session.map(Into::into),
            name,
            version,
        };
        let key = place.key()?;
        let bytes = memory.read(&key, ReadRange::Suffix(u64::MAX)).await?.bytes;
        let entry = Entry {
            file: format!("{file}.gz"),
            key: key.as_str().into(),
            sha256: snapshot.map(|snapshot| fixture_store::sha256(&snapshot.state)),
            info: serde_json::to_value(&info)?,
            version: Some(At {
                agent: place.agent,
                session: place.session,
                name: place.name,
                version,
            }),
        };
        Ok((entry, bytes))
    }

    /// Files at keys of the caller's own: one of ours, and one that gzip could have made, of two
    /// members.
    async fn make_others(memory: &Memory) -> Result<Vec<(Entry, Bytes)>> {
        let state = b"{\"turns\": [1, 2, 3]}\n";
        let key = "golden/adapter.json.gz";
        Adapter::new(Arc::new(memory.clone()))
            .save(state, key)
            .await?;
        let at = Key::new(key)?;
        let ours = memory.read(&at, ReadRange::Suffix(u64::MAX)).await?.bytes;
        let mut theirs = Vec::new();
        for half in [&state[..9], &state[9..]] {
            let builder = flate2::GzBuilder::new()
                .filename("turns.json")
                .comment("plain");
            let mut member = builder.write(theirs, flate2::Compression::best());
            member.write_all(half)?;
            theirs = member.finish()?;
        }
        let entry = |file: &str, key: &str| Entry {
            file: file.into(),
            key: key.into(),
            version: None,
            sha256: Some(fixture_store::sha256(state)),
            info: Value::Null,
        };
        Ok(vec![
            (entry("adapter.gz", key), ours),
            (entry("plain.gz", "golden/plain.json.gz"), theirs.into()),
        ])
    }

    #[test]
    #[ignore = "writes into the tree: golden files are made once, by hand, when a new kind is \
        added"]
    fn golden_files_that_are_missing_are_made() -> Result<()> {
        let memory = Memory::new();
        let made = wait(async {
            let mut made = Vec::new();
            for version in save_versions(&memory).await? {
                made.push(make_version(&memory, version).await?);
            }
            made.extend(make_others(&memory).await?);
            anyhow::Ok(made)
        })?;
        fs::create_dir_all(dir())?;
        let mut entries = manifest().unwrap_or_default();
        for (entry, bytes) in made {
            if entries.iter().all(|known| known.file != entry.file) {
                let mut file = fs::File::create_new(dir().join(&entry.file))?;
                file.write_all(&bytes)?;
                entries.push(entry);
            }
        }
        let store = dir().join("store.json");
        if !store.exists() {
            let key = Key::new("~/store.json")?;
            let bytes = wait(memory.read(&key, ReadRange::Suffix(u64::MAX)))?.bytes;
            fs::write(store, bytes)?;
        }
        // A line for each: pretty JSON would take five lines for each of the many labels.
        let lines = entries.iter().map(serde_json::to_string);
        let lines = lines.collect::<Result<Vec<_>, _>>()?.join(",\n");
        Ok(fs::write(
            dir().join("manifest.json"),
            format!("[\n{lines}\n]\n"),
        )?)
    }
}
