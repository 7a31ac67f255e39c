//! Semantics of a save, a load and a deletion.

use std::sync::Arc;

use persist_host::snapshot::{
    Adapter, AdapterOptions, Compression, Error, Expect, SaveOptions, Store, StoreOptions,
};
use persist_host::storage::{Key, Memory, ReadRange, Storage as _};
use persist_tests::{block_on, load, noise, on_every_storage, save, scope};

fn expecting(expect: Expect) -> SaveOptions {
    SaveOptions::expecting(expect)
}

fn head_of(error: &Error) -> Option<u64> {
    match error {
        Error::Conflict { head } => *head,
        error => panic!("not a conflict: {error}"),
    }
}

#[test]
fn every_save_is_a_version_and_none_overwrites() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        assert_eq!(load(&scope, "memory").await, None);
        for version in 1..=12 {
            let info = save(&scope, "memory", &format!("turn {version}")).await;
            assert_eq!(
                (info.version, info.parent),
                (version, (version > 1).then(|| version - 1))
            );
        }
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("turn 12"));
        let old = scope
            .load("memory", Some(3))
            .await
            .expect("loads")
            .expect("is there");
        assert_eq!(&old.state[..], b"turn 3");
        let missing = scope.load("memory", Some(13)).await;
        assert!(matches!(missing, Err(Error::NotFound(_))));
    });
}

#[test]
fn every_way_of_saving_compresses_as_the_options_say() {
    let text = "the agent remembers ".repeat(1000);
    let len = text.len() as u64;
    block_on(async {
        for compression in Compression::ALL {
            let storage = Arc::new(Memory::new());
            let mut options = StoreOptions::default();
            options.compression = compression;
            let scope = Store::with_options(storage.clone(), options).scope("bot", None);
            let scope = scope.expect("a scope");
            let whole = save(&scope, "whole", &text).await.stored_size;
            let writer = scope.writer("pieces", SaveOptions::default()).await;
            let mut writer = writer.expect("a writer");
            writer.write(text.as_bytes()).await.expect("writes");
            let pieces = writer.finish().await.expect("saves").stored_size;

            let mut options = AdapterOptions::default();
            options.compression = compression;
            let adapter = Adapter::with_options(storage.clone(), options);
            adapter.save(text.as_bytes(), "own").await.expect("saves");
            let key = Key::new("own").expect("a key");
            let part = storage.read(&key, ReadRange::Suffix(u64::MAX)).await;
            let own = part.expect("is there").bytes.len() as u64;

            for stored in [whole, pieces, own] {
                let is_compressed = stored < len / 10;
                let is_asked = compression != Compression::None;
                assert_eq!(is_compressed, is_asked, "{compression}: {stored}");
            }
            assert_eq!(load(&scope, "pieces").await.as_deref(), Some(&text[..]));
        }
    });
}

#[test]
fn zero_bytes_are_a_state() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        let info = save(&scope, "memory", "").await;
        assert_eq!(info.size, 0);
        assert_eq!(load(&scope, "memory").await.as_deref(), Some(""));
    });
}

#[test]
fn media_type_and_labels_are_kept_with_a_state() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        let options = SaveOptions::default()
            .with_media_type("application/json")
            .with_label("turn", "1")
            .with_label("mood", "☀");
        let saved = scope
            .save("memory", "{}".into(), options.clone())
            .await
            .expect("saves");
        let loaded = scope
            .load("memory", None)
            .await
            .expect("loads")
            .expect("is there");
        assert_eq!(loaded.info, saved);
        assert_eq!(
            scope.stat("memory", None).await.expect("stats"),
            Some(saved.clone())
        );
        assert_eq!(
            (saved.media_type, saved.labels),
            (options.media_type, options.labels)
        );
    });
}

#[test]
fn labels_that_cannot_be_kept_are_refused() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        for labels in [
            vec![("a".to_owned(), "x".repeat(9000))],
            vec![("a".into(), String::new()), ("a".into(), String::new())],
            vec![(String::new(), "x".into())],
            vec![("persist.restored-from".into(), "1".into())],
        ] {
            let mut options = SaveOptions::default();
            for (key, value) in labels {
                options = options.with_label(key, value);
            }
            let refused = scope.save("memory", "x".into(), options).await;
            assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        }
        assert_eq!(load(&scope, "memory").await, None);
    });
}

#[test]
fn a_save_is_made_only_if_what_it_expects_holds() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        let try_save = async |expect| scope.save("memory", "x".into(), expecting(expect)).await;
        let none = try_save(Expect::Version(1))
            .await
            .expect_err("nothing is there");
        assert_eq!(head_of(&none), None);
        assert_eq!(try_save(Expect::Absent).await.expect("absent").version, 1);
        let there = try_save(Expect::Absent).await.expect_err("it is there");
        assert_eq!(head_of(&there), Some(1));
        assert_eq!(
            try_save(Expect::Version(1))
                .await
                .expect("the head")
                .version,
            2
        );
        let old = try_save(Expect::Version(1))
            .await
            .expect_err("not the head any more");
        assert_eq!(head_of(&old), Some(2));
        let future = try_save(Expect::Version(7))
            .await
            .expect_err("not yet the head");
        assert_eq!(head_of(&future), Some(2));
        scope
            .delete("memory", Expect::Version(2))
            .await
            .expect("deletes");
        assert_eq!(
            try_save(Expect::Absent)
                .await
                .expect("a tombstone is absence")
                .version,
            4
        );
    });
}

#[test]
fn a_deletion_is_a_version_that_restore_undoes() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        let nothing = scope.delete("memory", Expect::Any).await;
        assert!(matches!(nothing, Err(Error::NotFound(_))));
        save(&scope, "memory", "one").await;
        save(&scope, "memory", "two").await;
        let tombstone = scope.delete("memory", Expect::Any).await.expect("deletes");
        assert_eq!(
            (tombstone.version, tombstone.deleted, tombstone.size),
            (3, true, 0)
        );
        assert_eq!(load(&scope, "memory").await, None);
        assert!(
            scope
                .stat("memory", None)
                .await
                .expect("stats")
                .expect("a tombstone")
                .deleted
        );
        let again = scope.delete("memory", Expect::Any).await;
        assert!(
            matches!(again, Err(Error::NotFound(_))),
            "deleting nothing writes nothing"
        );

        let of_tombstone = scope.restore("memory", 3, Expect::Any).await;
        assert!(matches!(of_tombstone, Err(Error::NotFound(_))));
        let restored = scope
            .restore("memory", 1, Expect::Version(3))
            .await
            .expect("restores");
        assert_eq!(restored.version, 4);
        assert_eq!(
            restored.labels,
            [("persist.restored-from".to_owned(), "1".to_owned())]
        );
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("one"));
    });
}

#[test]
fn a_fork_goes_its_own_way() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        save(&scope, "memory", "one").await;
        save(&scope, "memory", "two").await;
        let fork = scope
            .fork("memory", Some(1), "draft", Expect::Absent)
            .await
            .expect("forks");
        assert_eq!(
            (fork.name.as_str(), fork.version, fork.parent),
            ("draft", 1, None)
        );
        save(&scope, "draft", "mine").await;
        assert_eq!(load(&scope, "memory").await.as_deref(), Some("two"));
        let taken = scope.fork("memory", None, "draft", Expect::Absent).await;
        assert_eq!(head_of(&taken.expect_err("it is there")), Some(2));
    });
}

#[test]
fn history_is_newest_first_in_pages_that_meet() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        for turn in 1..=11 {
            save(&scope, "memory", &turn.to_string()).await;
        }
        scope.delete("memory", Expect::Any).await.expect("deletes");
        let mut versions = Vec::new();
        let mut before = None;
        loop {
            let page = scope.history("memory", before, 5).await.expect("a page");
            let Some(last) = page.last() else { break };
            before = Some(last.version);
            versions.extend(page.iter().map(|info| (info.version, info.deleted)));
        }
        let expected: Vec<_> = (1..=12)
            .rev()
            .map(|version| (version, version == 12))
            .collect();
        assert_eq!(versions, expected);
        let refused = scope.history("memory", None, 0).await;
        assert!(matches!(refused, Err(Error::Invalid(_))));
        assert_eq!(
            scope.history("memory", Some(1), 5).await.expect("a page"),
            []
        );
        let all = scope
            .history("memory", Some(u64::MAX), 100)
            .await
            .expect("a page");
        assert_eq!(all.len(), 12);
    });
}

#[test]
fn names_come_in_pages_by_prefix_deleted_ones_too() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        let all = [
            "a", "a.b", "a/b", "A", "ä", "notes/1", "notes/2", "notes", "..", "~",
        ];
        for name in all {
            save(&scope, name, name).await;
        }
        scope.delete("notes/1", Expect::Any).await.expect("deletes");
        let mut names = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = scope.names("", after.as_deref(), 3).await.expect("a page");
            let Some(last) = page.last() else { break };
            after = Some(last.as_str().to_owned());
            names.extend(page.iter().map(|name| name.as_str().to_owned()));
        }
        names.sort();
        let mut expected = all.map(str::to_owned);
        expected.sort();
        assert_eq!(names, expected);
        let notes = scope.names("notes/", None, 100).await.expect("a page");
        assert_eq!(
            notes.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            ["notes/1", "notes/2"]
        );
    });
}

#[test]
fn names_never_meet_and_never_leave_their_scope() {
    on_every_storage(async |storage| {
        let store = Store::new(storage);
        let bot = store.scope("bot", None).expect("a name");
        let twins = [
            "memory",
            "Memory",
            "MEMORY",
            "caf\u{e9}",
            "cafe\u{301}",
            "../bot/~/memory",
            "/memory",
        ];
        for name in twins {
            save(&bot, name, name).await;
        }
        for name in twins {
            assert_eq!(load(&bot, name).await.as_deref(), Some(name));
        }
        for (agent, session) in [
            ("Bot", None),
            ("bot", Some("s")),
            ("bot/s", None),
            ("..", None),
        ] {
            let other = store.scope(agent, session).expect("a name");
            assert_eq!(load(&other, "memory").await, None, "{agent:?} {session:?}");
            assert_eq!(other.names("", None, 10).await.expect("a page"), []);
        }
        let agents = store.agents(None, 10).await.expect("a page");
        assert_eq!(
            agents.iter().map(|name| name.as_str()).collect::<Vec<_>>(),
            ["bot"]
        );
    });
}

#[test]
fn a_stream_is_invisible_until_it_is_finished() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        // Large enough that pieces are sent before the end.
        let piece = noise(1, 1_000_003);
        let mut writer = scope
            .writer("log", SaveOptions::default())
            .await
            .expect("opens");
        for _ in 0..20 {
            writer.write(&piece).await.expect("writes");
        }
        assert_eq!(scope.stat("log", None).await.expect("stats"), None);
        let info = writer.finish().await.expect("finishes");
        assert_eq!((info.version, info.size), (1, 20 * piece.len() as u64));

        let mut dropped = scope
            .writer("log", SaveOptions::default())
            .await
            .expect("opens");
        dropped.write(&piece.repeat(20)).await.expect("writes");
        drop(dropped);
        assert_eq!(scope.versions("log", None, 10).await.expect("a page"), [1]);

        let snapshot = scope
            .load("log", None)
            .await
            .expect("loads")
            .expect("is there");
        assert!(snapshot.state == piece.repeat(20));
        let mut reader = scope
            .reader("log", None)
            .await
            .expect("opens")
            .expect("is there");
        let offset = 7 * piece.len() as u64 + 5;
        let mut read = Vec::new();
        while read.len() < piece.len() {
            let len = piece.len() - read.len();
            let part = reader
                .read(offset + read.len() as u64, len)
                .await
                .expect("reads");
            assert!(!part.is_empty());
            read.extend_from_slice(&part);
        }
        assert!(read == [&piece[5..], &piece[..5]].concat());
        assert!(reader.read(info.size, 1).await.expect("reads").is_empty());
        assert!(reader.read(u64::MAX, 1).await.expect("reads").is_empty());
    });
}

#[test]
fn a_small_stream_that_lost_a_race_is_the_next_version() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        let mut writer = scope
            .writer("log", SaveOptions::default())
            .await
            .expect("opens");
        writer.write(b"late").await.expect("writes");
        save(&scope, "log", "early").await;
        assert_eq!(writer.finish().await.expect("finishes").version, 2);
    });
}

#[test]
fn a_long_stream_that_lost_a_race_is_a_conflict() {
    on_every_storage(async |storage| {
        let scope = scope(storage);
        let noise = noise(1, 10 << 20);
        let mut writer = scope
            .writer("log", SaveOptions::default())
            .await
            .expect("opens");
        writer.write(&noise).await.expect("writes");
        save(&scope, "log", "early").await;
        let lost = writer.finish().await.expect_err("its version is taken");
        assert_eq!(head_of(&lost), Some(1));
        assert_eq!(load(&scope, "log").await.as_deref(), Some("early"));
    });
}

#[test]
fn a_state_over_the_limit_is_neither_saved_nor_loaded() {
    on_every_storage(async |storage| {
        let mut options = StoreOptions::default();
        options.max_state = 10;
        let small = Store::with_options(storage.clone(), options)
            .scope("bot", None)
            .expect("a name");
        let refused = small
            .save("memory", vec![0; 11].into(), SaveOptions::default())
            .await;
        assert!(matches!(
            refused,
            Err(Error::TooLarge { size: 11, max: 10 })
        ));
        let mut writer = small
            .writer("memory", SaveOptions::default())
            .await
            .expect("opens");
        writer.write(&[0; 10]).await.expect("writes");
        assert!(matches!(
            writer.write(&[0]).await,
            Err(Error::TooLarge { .. })
        ));
        assert!(
            matches!(writer.finish().await, Err(Error::Invalid(_))),
            "it is not whole"
        );
        save(&scope(storage), "memory", "eleven bytes").await;
        assert!(matches!(
            small.load("memory", None).await,
            Err(Error::TooLarge { .. })
        ));
        let copied = small.restore("memory", 1, Expect::Any).await;
        assert!(
            matches!(copied, Err(Error::TooLarge { .. })),
            "what can be saved can be loaded"
        );
    });
}
