//! States at keys of the caller's own choice.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use persist_host::snapshot::{Adapter, AdapterOptions, Error};
use persist_host::storage::Local;
use persist_tests::{block_on, noise, on_every_storage, save, scope, tempdir};
use tokio::io::AsyncReadExt as _;

const KEY: &str = "agent1/large_snapshot.json.gz";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip")
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("gzip starts");
    let mut stdin = child.stdin.take().expect("piped");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes));
    let output = child.wait_with_output().expect("gzip ends");
    writer.join().expect("no panic").expect("gzip reads");
    output.stdout
}

#[test]
fn a_state_at_a_key_is_saved_replaced_and_deleted() {
    on_every_storage(async |storage| {
        let adapter = Adapter::new(storage);
        assert!(!adapter.exists(KEY).await.expect("answers"));
        assert!(matches!(adapter.load(KEY).await, Err(Error::NotFound(_))));
        for state in [&b"one"[..], b"", b"a longer one"] {
            adapter.save(state, KEY).await.expect("saves");
            assert!(adapter.exists(KEY).await.expect("answers"));
            assert_eq!(&adapter.load(KEY).await.expect("loads")[..], state);
        }
        adapter.delete(KEY).await.expect("deletes");
        adapter.delete(KEY).await.expect("deletes nothing");
        assert!(!adapter.exists(KEY).await.expect("answers"));
    });
}

#[test]
fn a_stream_comes_back_bit_for_bit_and_is_gzip() {
    let dir = tempdir();
    block_on(async {
        let adapter = Adapter::new(Arc::new(Local::new(dir.path())));
        let state = [noise(1, 5 << 20), vec![0; 9 << 20], noise(2, 12345)].concat();
        adapter.save_stream(&state[..], KEY).await.expect("saves");
        let mut stream = adapter.load_stream(KEY).await.expect("opens");
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.expect("reads");
        assert!(read == state);
        let zcat = Command::new("gzip")
            .arg("-dc")
            .arg(dir.path().join(KEY))
            .output();
        assert!(zcat.expect("gzip starts").stdout == state);
    });
}

#[test]
fn gzip_made_by_others_is_read_and_damage_to_it_is_found() {
    let dir = tempdir();
    let file = dir.path().join(KEY);
    fs::create_dir_all(file.parent().expect("a directory")).expect("makes");
    block_on(async {
        let adapter = Adapter::new(Arc::new(Local::new(dir.path())));
        let state = [noise(1, 3 << 20), vec![7; 20 << 20]].concat();
        let plain = gzip(&state);
        let two_members = [gzip(&state), gzip(b"and more")].concat();
        for (bytes, expected) in [
            (&plain, state.clone()),
            (&two_members, [&state[..], b"and more"].concat()),
        ] {
            fs::write(&file, bytes).expect("writes");
            assert!(adapter.load(KEY).await.expect("loads") == expected);
        }
        let mut flipped = plain.clone();
        flipped[2_000_000] ^= 4;
        for damaged in [
            &plain[..plain.len() - 1],
            &plain[..1_000_000],
            &flipped,
            b"no gzip",
            b"",
        ] {
            fs::write(&file, damaged).expect("writes");
            let loaded = adapter.load(KEY).await;
            assert!(
                matches!(loaded, Err(Error::Corrupt { .. })),
                "{} bytes",
                damaged.len()
            );
        }
    });
}

#[test]
fn damage_to_what_was_saved_is_found() {
    let dir = tempdir();
    block_on(async {
        let adapter = Adapter::new(Arc::new(Local::new(dir.path())));
        adapter
            .save(b"the agent remembers", KEY)
            .await
            .expect("saves");
        let file = dir.path().join(KEY);
        let golden = fs::read(&file).expect("is there");
        for byte in 0..golden.len() {
            let mut flipped = golden.clone();
            flipped[byte] ^= 1;
            fs::write(&file, flipped).expect("writes");
            let loaded = adapter.load(KEY).await;
            assert!(
                matches!(loaded, Err(Error::Corrupt { .. })),
                "byte {byte}: {loaded:?}"
            );
        }
    });
}

#[test]
fn a_file_that_was_saved_at_another_key_is_refused() {
    let dir = tempdir();
    block_on(async {
        let adapter = Adapter::new(Arc::new(Local::new(dir.path())));
        adapter.save(b"one", "a/one.gz").await.expect("saves");
        adapter.save(b"two", "a/two.gz").await.expect("saves");
        fs::rename(dir.path().join("a/one.gz"), dir.path().join("a/two.gz")).expect("renames");
        let loaded = adapter.load("a/two.gz").await;
        let Err(Error::Misplaced { saved_as, .. }) = loaded else {
            panic!("{loaded:?}");
        };
        assert!(saved_as.contains("a/one.gz"), "{saved_as}");

        // The same file, in a storage that is opened at another level.
        fs::rename(dir.path().join("a/two.gz"), dir.path().join("a/one.gz")).expect("renames");
        let below = Adapter::new(Arc::new(Local::new(dir.path().join("a"))));
        assert_eq!(&below.load("one.gz").await.expect("loads")[..], b"one");
    });
}

#[test]
fn keys_of_versions_pins_and_the_store_itself_are_refused() {
    on_every_storage(async |storage| {
        save(&scope(storage.clone()), "memory", "one").await;
        let adapter = Adapter::new(storage);
        for key in [
            "bot/~/memory/9999999998-0000000001.gz",
            "9999999997-0000000002.gz",
            "bot/~/memory/pin-1",
            "~/store.json",
            "~",
            "../escape",
            "/absolute",
            "",
            "a//b",
        ] {
            let saved = adapter.save(b"x", key).await;
            assert!(matches!(saved, Err(Error::Invalid(_))), "{key}: {saved:?}");
            let loaded = adapter.load_stream(key).await.map(drop);
            assert!(
                matches!(loaded, Err(Error::Invalid(_))),
                "{key}: {loaded:?}"
            );
            assert!(adapter.delete(key).await.is_err(), "{key}");
        }
    });
}

#[test]
fn a_source_that_fails_leaves_what_was_there() {
    on_every_storage(async |storage| {
        let adapter = Adapter::new(storage);
        adapter.save(b"before", KEY).await.expect("saves");
        let broken = breaks_after(&b"half of"[..]);
        let error = adapter.save_stream(broken, KEY).await.expect_err("fails");
        assert!(
            error.to_string().contains("the cable was pulled"),
            "{error}"
        );
        assert_eq!(&adapter.load(KEY).await.expect("loads")[..], b"before");
    });
}

/// Gives some bytes, and then an error.
fn breaks_after(bytes: &'static [u8]) -> impl tokio::io::AsyncRead + Unpin {
    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::Error::other("the cable was pulled")))
        }
    }
    bytes.chain(Broken)
}

#[test]
fn a_state_over_the_limit_is_not_loaded_into_memory() {
    let dir = tempdir();
    block_on(async {
        let mut options = AdapterOptions::default();
        options.max_state = 1 << 20;
        let adapter = Adapter::with_options(Arc::new(Local::new(dir.path())), options);
        let too_large = async |key: &str| match adapter.load(key).await {
            Err(Error::TooLarge { size, max }) => {
                assert_eq!(max, 1 << 20);
                assert!(size > max, "{size}");
            }
            loaded => panic!("{key}: {loaded:?}"),
        };
        // Of others, which do not say how much they hold: 64 MiB in 64 KiB, and members without
        // end.
        fs::create_dir(dir.path().join("others")).expect("makes");
        let member = gzip(&vec![0; 64 << 20]);
        fs::write(dir.path().join("others/large.gz"), &member).expect("writes");
        too_large("others/large.gz").await;
        let members = gzip(&vec![0; 64 << 10]).repeat(1000);
        fs::write(dir.path().join("others/members.gz"), members).expect("writes");
        too_large("others/members.gz").await;
        // Our own.
        let state = vec![0; (1 << 20) + 1];
        adapter.save(&state, KEY).await.expect("saves");
        too_large(KEY).await;
        // A stream has no limit, and what is within the limit is loaded.
        let mut stream = adapter.load_stream(KEY).await.expect("opens");
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.expect("reads");
        assert!(read == state);
        adapter.save(&state[1..], KEY).await.expect("saves");
        assert_eq!(adapter.load(KEY).await.expect("loads").len(), 1 << 20);
    });
}
