//! Files on the local disk, and the effects of a hostile or dying disk.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use persist_host::snapshot::{Error, Expect, SaveOptions, Scope, Version};
use persist_host::storage::{Call, ErrorKind, Local, Watch};
use persist_tests::{
    block_on, load, noise, save, scope, tempdir, text, version_file, version_files,
};
use sha2::{Digest as _, Sha256};

fn local(dir: &Path) -> Scope {
    scope(Arc::new(Local::new(dir)))
}

#[test]
fn stored_files_are_readable_by_their_owner_only() {
    let dir = tempdir();
    let root = dir.path().join("made/by/us");
    block_on(save(&local(&root), "memory", "secret"));
    let mut paths = vec![dir.path().join("made")];
    while let Some(path) = paths.pop() {
        let metadata = fs::symlink_metadata(&path).expect("is there");
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_dir() {
            assert_eq!(mode, 0o700, "{}", path.display());
            paths.extend(
                fs::read_dir(&path)
                    .expect("readable")
                    .map(|entry| entry.expect("an entry").path()),
            );
        } else {
            assert_eq!(mode, 0o600, "{}", path.display())
        }
    }
}

#[test]
fn ordinary_tools_open_what_is_stored() {
    let dir = tempdir();
    let state: String = (0..200_000).map(|n| format!("line {n}\n")).collect();
    let info = block_on(save(&local(dir.path()), "memory", &state));
    let file = &version_files(dir.path())[0];
    assert_eq!(
        file,
        &dir.path().join("bot/~/memory/9999999998-0000000001.gz")
    );

    let unzipped = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).arg(file).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
        assert!(
            output.status.success(),
            "{program}: {}",
            text(&output.stderr)
        );
        output.stdout
    };
    unzipped("gzip", &["-t"]);
    assert!(unzipped("gzip", &["-dc"]) == state.as_bytes());
    let python = "import gzip, sys; sys.stdout.buffer.write(gzip.open(sys.argv[1]).read())";
    assert!(unzipped("python3", &["-c", python]) == state.as_bytes());

    let mut sha256sum = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum starts");
    let mut stdin = sha256sum.stdin.take().expect("piped");
    stdin
        .write_all(&unzipped("gzip", &["-dc"]))
        .expect("sha256sum reads");
    drop(stdin);
    let output = sha256sum.wait_with_output().expect("sha256sum ends");
    assert_eq!(
        text(&output.stdout).split(' ').next(),
        Some(info.sha256.as_str())
    );
}

#[test]
fn a_flipped_bit_on_the_disk_is_corrupt_and_older_versions_stay_readable() {
    let dir = tempdir();
    let scope = local(dir.path());
    block_on(async {
        save(&scope, "memory", "one").await;
        save(&scope, "memory", "two").await;
        let newest = dir.path().join("bot/~/memory/9999999997-0000000002.gz");
        let golden = fs::read(&newest).expect("is there");
        for byte in 0..golden.len() {
            let mut flipped = golden.clone();
            flipped[byte] ^= 0x10;
            fs::write(&newest, flipped).expect("writes");
            let loaded = scope.load("memory", None).await;
            assert!(
                matches!(loaded, Err(Error::Corrupt { .. })),
                "byte {byte}: {loaded:?}"
            );
        }
        let old = scope
            .load("memory", Some(1))
            .await
            .expect("loads")
            .expect("is there");
        assert_eq!(&old.state[..], b"one");
    });
}

#[test]
fn every_way_of_reading_a_whole_file_finds_every_flipped_bit() {
    let dir = tempdir();
    let scope = local(dir.path());
    block_on(async {
        save(&scope, "memory", "the agent remembers").await;
        save(&scope, "empty", "").await;
        save(&scope, "gone", "").await;
        scope.delete("gone", Expect::Any).await.expect("deletes");
        for (name, at) in [("memory", 1), ("empty", 1), ("gone", 2)] {
            let file = format!("bot/~/{name}/{}", version_file(at));
            let file = dir.path().join(file);
            let golden = fs::read(&file).expect("is there");
            for bit in 0..golden.len() * 8 {
                let mut flipped = golden.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fs::write(&file, flipped).expect("writes");
                let at = Some(at);
                let outcomes = [
                    ("load", scope.load(name, at).await.map(drop)),
                    ("reader", read_whole(&scope, name, at).await),
                    ("verify", scope.verify(name, at).await.map(drop)),
                    ("stored", read_stored(&scope, name, at).await),
                    (
                        "fork",
                        scope.fork(name, at, "fork", Expect::Any).await.map(drop),
                    ),
                ];
                for (way, outcome) in outcomes {
                    let found = matches!(outcome, Err(Error::Corrupt { .. }));
                    assert!(found, "{name}, bit {bit}, {way}: {outcome:?}");
                }
            }
            fs::write(&file, golden).expect("writes");
        }
    });
}

async fn read_whole(scope: &Scope, name: &str, at: Option<Version>) -> Result<(), Error> {
    let Some(mut reader) = scope.reader(name, at).await? else {
        return Ok(());
    };
    let mut offset = 0;
    loop {
        let piece = reader.read(offset, 7).await?;
        offset += piece.len() as u64;
        if piece.is_empty() {
            return Ok(());
        }
    }
}

async fn read_stored(scope: &Scope, name: &str, at: Option<Version>) -> Result<(), Error> {
    let mut stored = scope.stored(name, at.expect("a version")).await?;
    while stored.next().await?.is_some() {}
    Ok(())
}

#[test]
fn a_reader_compares_the_hash_of_the_whole_state_at_its_end() {
    let dir = tempdir();
    let scope = local(dir.path());
    block_on(async {
        let state = noise(1, 3 << 20);
        let saved = scope.save("memory", state.clone().into(), SaveOptions::default());
        let sha256 = saved.await.expect("saves").sha256;
        // A file whose blocks are sound, and which names the SHA-256 of another state.
        let file = dir.path().join("bot/~/memory/9999999998-0000000001.gz");
        let mut bytes = fs::read(&file).expect("is there");
        let at = bytes
            .windows(64)
            .position(|window| window == sha256.as_bytes());
        let at = at.expect("the trailer names it");
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        seal(&mut bytes);
        fs::write(&file, bytes).expect("writes");

        let mut reader = scope
            .reader("memory", None)
            .await
            .expect("opens")
            .expect("is there");
        assert_eq!(reader.read(1 << 20, 3).await.expect("a range").len(), 3);
        let outcome = read_whole(&scope, "memory", None).await;
        assert!(matches!(outcome, Err(Error::Corrupt { .. })), "{outcome:?}");
    });
}

/// Makes the checksum in the footer fit the trailer as it is now.
fn seal(file: &mut [u8]) {
    let payload = file.len() - 70;
    let trailer = u64::from_le_bytes(file[payload + 8..][..8].try_into().expect("8 bytes"));
    let sum = Sha256::new()
        .chain_update(&file[trailer as usize..payload + 16])
        .chain_update(&file[payload + 48..])
        .finalize();
    file[payload + 16..][..32].copy_from_slice(&sum);
}

#[test]
fn a_ranged_read_verifies_its_own_blocks_and_no_others() {
    const MIB: u64 = 1 << 20;
    let dir = tempdir();
    let scope = local(dir.path());
    block_on(async {
        let state = noise(1, 6 << 20);
        let saved = scope
            .save("memory", state.clone().into(), SaveOptions::default())
            .await;
        saved.expect("saves");
        // Noise is stored, so the fifth block lies a little behind four times its length.
        let file = dir.path().join("bot/~/memory/9999999998-0000000001.gz");
        let mut bytes = fs::read(&file).expect("is there");
        bytes[4 << 20 | 1 << 19] ^= 1;
        fs::write(&file, bytes).expect("writes");

        let mut reader = scope
            .reader("memory", None)
            .await
            .expect("opens")
            .expect("is there");
        for offset in [0, MIB - 1, 3 * MIB + 7, 5 * MIB] {
            let read = reader.read(offset, 1000).await.expect("its block is whole");
            assert!(!read.is_empty() && state[offset as usize..].starts_with(&read));
        }
        let damaged = reader.read(4 * MIB, 1000).await;
        assert!(matches!(damaged, Err(Error::Corrupt { .. })), "{damaged:?}");
        let whole = scope.load("memory", None).await;
        assert!(matches!(whole, Err(Error::Corrupt { .. })), "{whole:?}");
    });
}

#[test]
fn a_head_that_cannot_be_read_blocks_neither_save_nor_delete_nor_restore() {
    for change in ["save", "delete", "restore"] {
        let dir = tempdir();
        let scope = local(dir.path());
        block_on(async {
            save(&scope, "memory", "one").await;
            save(&scope, "memory", "two").await;
            for foreign in [&b""[..], b"not a snapshot", &[0; 5000]] {
                fs::write(
                    dir.path().join("bot/~/memory/9999999997-0000000002.gz"),
                    foreign,
                )
                .expect("writes");
                let error = scope.load("memory", None).await.expect_err("corrupt");
                assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            }
            let info = match change {
                "save" => save(&scope, "memory", "three").await,
                "delete" => scope.delete("memory", Expect::Any).await.expect("deletes"),
                _ => scope
                    .restore("memory", 1, Expect::Version(2))
                    .await
                    .expect("restores"),
            };
            assert_eq!(info.version, 3, "{change}");
        });
    }
}

#[test]
fn a_link_inside_the_store_is_not_followed() {
    let dir = tempdir();
    let outside = tempdir();
    let scope = local(dir.path());
    block_on(async {
        save(&scope, "memory", "one").await;
        let elsewhere = local(outside.path());
        save(&elsewhere, "memory", "outside").await;
        fs::rename(dir.path().join("bot"), dir.path().join("moved")).expect("renames");
        symlink(outside.path().join("bot"), dir.path().join("bot")).expect("links");
        for error in [
            scope
                .load("memory", None)
                .await
                .map(drop)
                .expect_err("refused"),
            scope
                .save("memory", "x".into(), SaveOptions::default())
                .await
                .map(drop)
                .expect_err("refused"),
        ] {
            let Error::Storage(error) = &error else {
                panic!("{error}")
            };
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("not followed"), "{error}");
        }
        fs::remove_file(dir.path().join("bot")).expect("removes");
        fs::rename(dir.path().join("moved"), dir.path().join("bot")).expect("renames");

        let version = dir.path().join("bot/~/memory/9999999998-0000000001.gz");
        fs::remove_file(&version).expect("removes");
        symlink(
            outside.path().join("bot/~/memory/9999999998-0000000001.gz"),
            &version,
        )
        .expect("links");
        let linked = scope.load("memory", None).await;
        assert!(matches!(linked, Err(Error::Storage(_))), "{linked:?}");
        assert_eq!(
            version_files(outside.path()).len(),
            1,
            "nothing was written outside"
        );
    });
}

#[test]
fn a_directory_in_place_of_the_next_version_is_named() {
    let dir = tempdir();
    let scope = local(dir.path());
    block_on(async {
        save(&scope, "memory", "one").await;
        fs::create_dir(dir.path().join("bot/~/memory/9999999997-0000000002.gz")).expect("makes");
        let blocked = scope
            .save("memory", "two".into(), SaveOptions::default())
            .await;
        let error = blocked.expect_err("refused");
        let said = error.to_string();
        assert!(said.contains("9999999997-0000000002.gz"), "{said}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("persist check"), "{hint}");
    });
}

#[test]
fn foreign_objects_beside_versions_cost_one_more_list() {
    let dir = tempdir();
    let scope = local(dir.path());
    block_on(async {
        save(&scope, "memory", "one").await;
        for n in 0..900 {
            fs::write(
                dir.path().join(format!("bot/~/memory/0000-foreign-{n}")),
                "",
            )
            .expect("writes");
        }
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("one"));
        assert_eq!(save(&scope, "memory", "two").await.version, 2);
    });
}

#[test]
fn deleting_nothing_makes_no_store() {
    let dir = tempdir();
    let root = dir.path().join("mistyped");
    let deleted = block_on(local(&root).delete("memory", Expect::Any));
    assert!(matches!(deleted, Err(Error::NotFound(_))), "{deleted:?}");
    assert!(!root.exists());
}

#[test]
fn a_sparse_file_that_claims_much_costs_little() {
    let dir = tempdir();
    let scope = local(dir.path());
    block_on(async {
        save(&scope, "memory", "one").await;
        let file = dir.path().join("bot/~/memory/9999999997-0000000002.gz");
        File::create(&file)
            .and_then(|file| file.set_len(1 << 43))
            .expect("makes");
        let loaded = scope.load("memory", None).await;
        assert!(matches!(loaded, Err(Error::Corrupt { .. })), "{loaded:?}");
    });
}

#[test]
fn a_pipe_in_place_of_a_version_does_not_hold_anyone() {
    let dir = tempdir();
    let scope = local(dir.path());
    block_on(async {
        save(&scope, "memory", "one").await;
        let pipe = dir.path().join("bot/~/memory/9999999997-0000000002.gz");
        assert!(
            Command::new("mkfifo")
                .arg(&pipe)
                .status()
                .expect("mkfifo starts")
                .success()
        );
        let error = scope.load("memory", None).await.expect_err("not a file");
        assert!(error.to_string().contains("not a regular file"), "{error}");
    });
}

#[test]
fn a_first_save_that_was_killed_leaves_no_name() {
    let dir = tempdir();
    let scope = local(dir.path());
    block_on(async {
        save(&scope, "memory", "one").await;
        fs::create_dir_all(dir.path().join("bot/~/never-saved")).expect("makes");
        fs::create_dir_all(dir.path().join("never/~/saved")).expect("makes");
        let names = scope.names("", None, 1).await.expect("a page");
        assert_eq!(
            names.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            ["memory"]
        );
        assert_eq!(
            scope.names("", Some("memory"), 1).await.expect("a page"),
            []
        );
    });
}

#[test]
fn only_files_of_killed_writers_are_swept() {
    let dir = tempdir();
    block_on(async {
        save(&local(dir.path()), "memory", "one").await;
        let temp = dir.path().join("~/tmp");
        fs::write(temp.join("00000000000000000000000000000001"), "left behind").expect("writes");
        let living = temp.join("00000000000000000000000000000002");
        let lock = File::create(&living).expect("creates");
        lock.lock().expect("locks");
        save(&local(dir.path()), "memory", "two").await;
        let left: Vec<_> = fs::read_dir(&temp)
            .expect("readable")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert_eq!(left, [living]);
    });
}

/// Acts as a sweep that meets a new file before its lock, once, while a backup links what it sees.
#[derive(Debug)]
struct SweptAtOnce {
    backup: PathBuf,
    is_done: AtomicBool,
}

impl Watch for SweptAtOnce {
    fn before(&self, _: Call<'_>) -> io::Result<()> {
        Ok(())
    }

    fn after(&self, call: Call<'_>, _: bool) -> io::Result<()> {
        if let Call::CreateFile(path) = call
            && !self.is_done.swap(true, Ordering::SeqCst)
        {
            fs::hard_link(path, &self.backup)?;
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

#[test]
fn a_new_file_that_was_swept_and_is_linked_elsewhere_is_made_again() {
    let dir = tempdir();
    block_on(async {
        save(&local(&dir.path().join("store")), "memory", "one").await;
        let watch = Arc::new(SweptAtOnce {
            backup: dir.path().join("backup"),
            is_done: AtomicBool::new(false),
        });
        let watched = Local::watched(dir.path().join("store"), watch.clone());
        let scope = scope(Arc::new(watched));
        assert_eq!(save(&scope, "memory", "two").await.version, 2);
        assert!(watch.is_done.load(Ordering::SeqCst));
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("two"));
    });
}

#[test]
fn a_full_disk_is_said_and_costs_nothing_that_was_saved() {
    let dir = tempdir();
    // A file-size limit fails a write as a full disk does, without a disk of its own.
    let store = dir.path().join("store");
    block_on(save(&local(&store), "memory", "one"));
    let persist = persist_tests::persist(&store);
    let limited = format!(
        "trap '' XFSZ; ulimit -f 100; head -c 4000000 /dev/urandom | {} save bot/memory",
        persist.get_program().display()
    );
    let output = Command::new("bash")
        .args(["-c", &limited])
        .env("PERSIST_LOCAL_PATH", &store)
        .output()
        .expect("bash starts");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(8), "{stderr}");
    assert!(stderr.contains("older versions are unchanged"), "{stderr}");
    block_on(async {
        let scope = local(&store);
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("one"));
        assert_eq!(save(&scope, "memory", "two").await.version, 2);
    });
    assert_eq!(
        fs::read_dir(store.join("~/tmp")).expect("readable").count(),
        0,
        "no litter"
    );
}

#[test]
fn a_store_that_is_a_file_is_refused_with_its_path() {
    let dir = tempdir();
    let file = dir.path().join("file");
    File::create(&file)
        .and_then(|mut file| file.write_all(b"x"))
        .expect("writes");
    let error = block_on(local(&file).save("memory", "x".into(), SaveOptions::default()))
        .expect_err("refused");
    assert!(error.to_string().contains("file"), "{error}");
    assert_eq!(fs::read(&file).expect("is there"), b"x");
}
