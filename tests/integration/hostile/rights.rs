//! Rights of guests: a guest is told that it may not do something before the storage is asked.

use std::sync::Arc;

use persist_host::snapshot::Scope;
use persist_host::wasm::{Rights, SnapshotCtx};
use persist_tests::{block_on, save, scope};

use super::watched::Watched;
use super::{host, play};

fn with(scope: &Scope, rights: Rights) -> SnapshotCtx {
    SnapshotCtx::builder(scope.clone()).rights(rights).build()
}

/// Every call of the contract, of a name that is there and of one that is not.
const CALLS: [(&str, &str); 18] = [
    ("load", "load there"),
    ("load", "load missing"),
    ("load", "load there 9"),
    ("load", "stat there"),
    ("load", "stat missing"),
    ("load", "reader r there"),
    ("load", "reader r missing"),
    ("save", "save there 1"),
    ("save", "save missing 1"),
    ("save", "open w there"),
    ("save", "open w missing"),
    ("list", "history there 9"),
    ("list", "history missing 9"),
    ("list", "names  9"),
    ("list", "names missing 9"),
    ("delete", "delete there"),
    ("delete", "delete missing"),
    ("delete", "delete there 7"),
];

#[test]
fn a_denied_call_sends_no_request_and_reveals_nothing() {
    block_on(async {
        let storage = Watched::new();
        let scope = scope(Arc::clone(&storage) as _);
        save(&scope, "there", "secret").await;
        let before = storage.calls();
        let lines = CALLS.map(|(_, line)| line);
        let answers = play(&host(), with(&scope, Rights::none()), &lines).await;
        let denied = CALLS.map(|(right, _)| format!("denied {right}"));
        assert_eq!(answers, denied);
        assert_eq!(storage.calls(), before);
    });
}

#[test]
fn each_right_is_alone() {
    block_on(async {
        for right in ["load", "save", "list", "delete"] {
            let scope = scope(Watched::new());
            save(&scope, "there", "x").await;
            let rights = right.parse().expect("a right");
            let lines = CALLS.map(|(_, line)| line);
            let answers = play(&host(), with(&scope, rights), &lines).await;
            for ((needs, line), answer) in CALLS.into_iter().zip(answers) {
                let denied = answer == format!("denied {needs}");
                assert_eq!(denied, needs != right, "{line} with {right}: {answer}");
            }
        }
    });
}

#[test]
fn a_copy_needs_the_right_to_see_and_the_right_to_make() {
    block_on(async {
        for (rights, refused) in [("load", "save"), ("save, list, delete", "load")] {
            let storage = Watched::new();
            let scope = scope(Arc::clone(&storage) as _);
            save(&scope, "there", "x").await;
            let before = storage.calls();
            let lines = [
                "restore there 1",
                "fork there new",
                "restore gone 1",
                "fork gone new",
            ];
            let rights = rights.parse().expect("rights");
            let answers = play(&host(), with(&scope, rights), &lines).await;
            assert_eq!(answers, [(); 4].map(|()| format!("denied {refused}")));
            assert_eq!(storage.calls(), before);
        }
    });
}

#[test]
fn a_read_only_agent_sees_all_and_changes_nothing() {
    block_on(async {
        let scope = scope(Watched::new());
        save(&scope, "there", "x").await;
        let lines = [
            "stat there",
            "names  9",
            "history there 9",
            "save there 1",
            "delete there",
        ];
        let answers = play(&host(), with(&scope, Rights::read_only()), &lines).await;
        let expected = [
            "version 1 saved size 1",
            "[there]",
            "[1]",
            "denied save",
            "denied delete",
        ];
        assert_eq!(answers, expected);
    });
}

#[test]
fn a_prefix_is_all_that_there_is() {
    block_on(async {
        let storage = Watched::new();
        let scope = scope(Arc::clone(&storage) as _);
        for name in ["Public/a", "public/b", "public/c", "publi", "secret"] {
            save(&scope, name, "x").await;
        }
        let rights = Rights::all().under("public/");
        let before = storage.calls();
        let lines = [
            "load secret",
            "save secret 1",
            "history secret 9",
            "delete secret",
            "stat nowhere",
            "open w publi",
            "fork secret public/x",
            "fork public/b secret",
            "restore secret 1",
            "names secret 9",
            "names q 9",
            "load ",
        ];
        let answers = play(&host(), with(&scope, rights.clone()), &lines).await;
        let expected = [
            "denied load",
            "denied save",
            "denied list",
            "denied delete",
            "denied load",
            "denied save",
            "denied load",
            "denied save",
            "denied load",
            "[]",
            "[]",
            "denied load",
        ];
        assert_eq!(answers, expected);
        assert_eq!(storage.calls(), before);

        let lines = [
            "names  9",
            "names pub 9",
            "names public/ 9",
            "names public/c 9",
            "names  public/b 9",
            "fork public/b public/d",
            "names  9",
        ];
        let answers = play(&host(), with(&scope, rights), &lines).await;
        let all = "[public/b public/c public/d]";
        let both = "[public/b public/c]";
        let expected = [
            both,
            both,
            both,
            "[public/c]",
            "[public/c]",
            "version 1",
            all,
        ];
        assert_eq!(answers, expected);
    });
}

#[test]
fn rights_are_written_as_words() {
    for (text, rights) in [
        ("", Rights::none()),
        ("load,list", Rights::read_only()),
        ("delete, list,save ,load", Rights::all()),
    ] {
        assert_eq!(text.parse(), Ok(rights));
    }
    assert!(
        "load,admin"
            .parse::<Rights>()
            .is_err_and(|why| why.to_string().contains("admin"))
    );
}
