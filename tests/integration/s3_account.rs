//! S3 with an account that may not do everything, credentials that are wrong, expired or absent,
//! and a clock that is wrong.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use persist_host::snapshot::{Error, SaveOptions};
use persist_host::storage::ErrorKind;
use persist_servers::Kind;
use persist_tests::proxy::{Fault, Proxy, Reply, Seen};
use persist_tests::store::{TestStore, is_probe};
use persist_tests::{block_on, noise, save, tempdir, text};

use crate::s3::{KINDS, ok, warnings, with_bytes, with_input};

#[test]
fn credentials_that_are_refused_or_missing_are_told_apart_and_never_shown() {
    let place = TestStore::on(Kind::SeaweedFs);
    let secret = place.server().facts().secret_key.clone();
    let wrong = "wrong-secret-wrong-secret-wrong-secret-00";
    for (change, hint) in [
        (
            &[("AWS_SECRET_ACCESS_KEY", Some(wrong))][..],
            "AWS_SECRET_ACCESS_KEY",
        ),
        (
            &[("AWS_ACCESS_KEY_ID", Some("AKIANOBODY0000000000"))][..],
            "InvalidAccessKeyId",
        ),
        (
            &[("AWS_ACCESS_KEY_ID", None), ("AWS_SECRET_ACCESS_KEY", None)][..],
            "AWS_ACCESS_KEY_ID",
        ),
    ] {
        for args in [&["ls"][..], &["save", "bot/memory", "-"]] {
            let mut command = place.command();
            for (name, value) in change {
                match value {
                    Some(value) => command.env(name, value),
                    None => command.env_remove(name),
                };
            }
            let output = with_input(command.args(args), "state");
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(5), "{change:?} {args:?}: {said}");
            assert!(said.contains(hint), "{change:?} {args:?}: {said}");
            assert!(!said.contains(wrong) && !said.contains(&secret), "{said}");
        }
    }
    assert_eq!(ok(place.command().arg("ls")), "");
}

#[test]
fn a_bucket_that_is_not_there_is_said_to_be_missing() {
    for kind in KINDS {
        let place = TestStore::on(kind).with_bucket("no-such-bucket");
        for args in [
            &["ls"][..],
            &["cat", "bot/memory"],
            &["save", "bot/memory", "-"],
        ] {
            let output = with_input(place.command().args(args), "state");
            let said = text(&output.stderr);
            assert!(!output.status.success(), "{args:?}");
            assert!(said.contains("bucket"), "{kind:?} {args:?}: {said}");
        }
    }
}

/// The page's policy without `s3:AbortMultipartUpload`.
fn deny_aborts(proxy: &Proxy, more: impl Fn(&Seen) -> Option<Fault> + Send + 'static) {
    proxy.rule(move |_, seen| match seen.operation() {
        _ if is_probe(seen) => None,
        "AbortMultipartUpload" => Some(Fault::Reply(Reply::s3(403, "AccessDenied"))),
        _ => more(seen),
    });
}

#[test]
fn saves_work_without_the_abort_permission() {
    let place = TestStore::on(Kind::SeaweedFs);
    let (proxy, proxied) = place.proxied();
    // Another host saves just before an upload is completed, which is refused then and cannot be
    // aborted.
    let overtaken = AtomicBool::new(false);
    deny_aborts(&proxy, move |seen| {
        if seen.operation() == "CompleteMultipartUpload" && !overtaken.swap(true, Ordering::Relaxed)
        {
            let place = place.clone();
            let other = std::thread::spawn(move || {
                block_on(save(&place.scope(), "memory", "theirs"));
            });
            other.join().expect("no panic");
        }
        None
    });
    block_on(async {
        let large = noise(1, 9 << 20);
        let scope = proxied.scope();
        let saved = scope.save("memory", large.into(), SaveOptions::default());
        assert_eq!(saved.await.expect("saves").version, 2);
        let seen = proxy.seen();
        let completed =
            |seen: &&Seen| seen.operation() == "CompleteMultipartUpload" && !is_probe(seen);
        assert_eq!(seen.iter().filter(completed).count(), 2, "{seen:?}");
        assert_eq!(proxy.faults(), 1);
    });
}

#[test]
fn missing_abort_permission_is_reported_once() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    deny_aborts(&proxy, |seen| {
        (seen.operation() == "CompleteMultipartUpload")
            .then(|| Fault::Reply(Reply::s3(400, "EntityTooLarge")))
    });
    let mut persist = place.command();
    let refused = with_bytes(
        persist.args(["save", "bot/memory", "-"]),
        &noise(1, 20 << 20),
    );
    let said = text(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains("EntityTooLarge"),
        "{said}"
    );
    let warned = warnings(&refused);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("could not be aborted"), "{warned:?}");
}

/// A file of credentials as the SDKs of Amazon read it.
fn credentials_file(secret_key: &str, place: &TestStore) -> String {
    let access_key = &place.server().facts().access_key;
    format!("[default]\naws_access_key_id = {access_key}\naws_secret_access_key = {secret_key}\n")
}

/// The `persist` command with the credentials of a file and no others.
fn with_credentials_file(place: &TestStore, file: &Path) -> Command {
    let mut persist = place.command();
    persist
        .env_remove("AWS_ACCESS_KEY_ID")
        .env_remove("AWS_SECRET_ACCESS_KEY")
        .env("AWS_SHARED_CREDENTIALS_FILE", file)
        .env("AWS_CONFIG_FILE", file.with_extension("none"));
    persist
}

#[test]
fn credentials_that_were_renewed_meanwhile_are_found_after_one_refusal() {
    for (status, code) in [(403, "ExpiredToken"), (401, "Unauthorized")] {
        let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
        let dir = tempdir();
        let file = dir.path().join("credentials");
        std::fs::write(&file, credentials_file("long-expired", &place)).expect("writes");
        // As the first call is refused, another process renews them.
        let secret_key = &place.server().facts().secret_key;
        let renewed = credentials_file(secret_key, &place);
        let at = file.clone();
        proxy.rule(move |number, _| {
            (number == 0).then(|| {
                std::fs::write(&at, &renewed).expect("writes");
                Fault::Reply(Reply::s3(status, code))
            })
        });
        let mut persist = with_credentials_file(&place, &file);
        let saved = with_input(persist.args(["save", "bot/memory", "-"]), "state");
        assert!(saved.status.success(), "{code}: {}", text(&saved.stderr));
        let asked = proxy.operations();
        assert_eq!(asked[..2], ["GetObject", "GetObject"], "once more");
    }
}

#[test]
fn credentials_that_are_refused_and_still_the_same_are_not_tried_again() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    let dir = tempdir();
    let file = dir.path().join("credentials");
    std::fs::write(&file, credentials_file("long-expired", &place)).expect("writes");
    proxy.rule(|_, _| Some(Fault::Reply(Reply::s3(403, "ExpiredToken"))));
    let mut persist = with_credentials_file(&place, &file);
    let refused = with_input(persist.args(["save", "bot/memory", "-"]), "state");
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("expired"), "{said}");
    assert_eq!(proxy.operations(), ["GetObject"]);
}

/// The day and time that a request was signed with, such as `20261122T101500Z`.
fn signed(seen: &Seen) -> &str {
    seen.header("x-amz-date").expect("it is signed")
}

#[test]
fn a_clock_that_is_wrong_is_set_right_from_the_servers_answer_once() {
    /// A server that is ahead of us, as far as a signature is still believed.
    const AHEAD: u64 = 10;
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    block_on(async {
        let scope = place.scope();
        save(&scope, "memory", "first").await;
        proxy.forget();
        let skewed = Reply::s3(403, "RequestTimeTooSkewed").header("date", in_minutes(AHEAD));
        let first = skewed.clone();
        proxy.rule(move |number, _| (number == 0).then(|| Fault::Reply(first.clone())));
        save(&scope, "memory", "second").await;
        let seen = proxy.seen();
        assert_eq!(proxy.operations(), ["PutObject", "PutObject"]);
        let minutes = |seen: &Seen| {
            let hours = &signed(seen)[9..11];
            let minutes = &signed(seen)[11..13];
            hours.parse::<i64>().expect("hours") * 60 + minutes.parse::<i64>().expect("minutes")
        };
        let between = (minutes(&seen[1]) - minutes(&seen[0])).rem_euclid(24 * 60);
        assert!((9..60).contains(&between), "{between} minutes: {seen:?}");

        proxy.forget();
        proxy.rule(move |_, _| Some(Fault::Reply(skewed.clone())));
        let refused = scope.save("memory", "third".into(), SaveOptions::default());
        let refused = refused.await.expect_err("it stays wrong");
        assert!(
            matches!(&refused, Error::Storage(error) if error.kind() == ErrorKind::Unauthenticated
                && error.hint().is_some_and(|hint| hint.contains("clock"))),
            "{refused}"
        );
        assert_eq!(proxy.operations(), ["PutObject", "PutObject"]);
    });
}

/// The time a number of minutes from now, as HTTP writes it.
fn in_minutes(minutes: u64) -> String {
    let date = Command::new("date")
        .env("LC_ALL", "C")
        .args(["-u", "-d", &format!("{minutes} minutes")])
        .arg("+%a, %d %b %Y %H:%M:%S GMT")
        .output()
        .expect("date starts");
    text(&date.stdout).trim().to_owned()
}
