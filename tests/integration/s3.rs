//! Amazon S3, on servers that others wrote: SeaweedFS, and MiniStack where the two differ from
//! Amazon's in opposite ways.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use persist_host::conformance;
use persist_host::snapshot::{Error, Expect, SaveOptions};
use persist_host::storage::S3Encryption;
use persist_servers::Kind;
use persist_tests::proxy::{Fault, Proxy, Reply, Seen};
use persist_tests::store::{TestStore, is_probe};
use persist_tests::{block_on, guest, load, noise, save, tempdir, text};

/// Every server that is S3's.
pub(crate) const KINDS: [Kind; 2] = [Kind::SeaweedFs, Kind::Ministack];

#[test]
fn seaweedfs_conforms() {
    let place = TestStore::on(Kind::SeaweedFs);
    let report = block_on(conformance::run(&|| place.storage()));
    assert!(report.is_ok(), "{report}");
}

#[test]
fn ministack_conforms() {
    let place = TestStore::on(Kind::Ministack);
    let report = block_on(conformance::run(&|| place.storage()));
    assert!(report.is_ok(), "{report}");
}

/// Runs the whole suite on a server that nothing in Persist was written for.
#[test]
fn localbucket_conforms_and_gc_notes_that_it_cannot_list_uploads() {
    let place = TestStore::on(Kind::LocalBucket);
    let report = block_on(conformance::run(&|| place.storage()));
    assert!(report.is_ok(), "{report}");
    // The probes of a server find nothing either, also of uploads in parts.
    place.run_ok(&["doctor"]);
    // It answers 501 to ListMultipartUploads.
    let (proxy, proxied) = place.proxied();
    let collected = proxied.run(&["gc", "--dry-run"]);
    let said = text(&collected.stderr);
    assert!(collected.status.success(), "{said}");
    assert!(said.contains("this server cannot list them"), "{said}");
    let seen = proxy.seen().into_iter();
    let mut uploads = seen.filter(|seen| seen.operation() == "ListMultipartUploads");
    let answer = uploads.next().and_then(|seen| seen.answer);
    assert_eq!(answer.map(|(status, _)| status.as_u16()), Some(501));
}

/// Returns the output of a command, which must have succeeded.
pub(crate) fn ok(command: &mut Command) -> String {
    let output = command.output().expect("persist starts");
    let said = text(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    text(&output.stdout).to_owned()
}

pub(crate) fn with_input(command: &mut Command, input: &str) -> Output {
    with_bytes(command, input.as_bytes())
}

pub(crate) fn with_bytes(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("persist starts");
    let mut stdin = child.stdin.take().expect("piped");
    // It may refuse before it reads.
    let _ = stdin.write_all(input);
    drop(stdin);
    child.wait_with_output().expect("persist ends")
}

#[test]
fn an_agent_remembers_on_s3_from_one_run_to_the_next() {
    for kind in KINDS {
        let place = TestStore::on(kind);
        let agent = guest("chat_memory");
        let run = |args: &[&str]| ok(place.command().arg("run").arg(&agent).arg("--").args(args));
        run(&["say", "I live in Oslo"]);
        run(&["say", "and I like rain"]);
        assert!(run(&["recall", "Oslo"]).contains("I live in Oslo"));
        let listed = ok(place.command().args(["ls", "-q"]));
        assert!(listed.starts_with("chat_memory/memory@2"), "{listed}");
        let history = ok(place
            .command()
            .args(["history", "-q", "chat_memory/memory"]));
        assert_eq!(history.lines().count(), 2);
    }
}

/// Saves a small state and one of several parts through a proxy, loads them, and returns the proxy
/// that saw it.
fn seen_with(encryption: S3Encryption) -> Proxy {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    let mut config = place.config();
    config.s3_encryption = encryption;
    let storage = config.build().expect("a storage");
    block_on(async {
        let scope = persist_tests::scope(storage);
        save(&scope, "small", "small").await;
        let large = noise(1, 9 << 20);
        let saved = scope
            .save("large", large.clone().into(), SaveOptions::default())
            .await;
        saved.expect("saves");
        assert_eq!(load(&scope, "small").await.as_deref(), Some("small"));
        let loaded = scope.load("large", None).await.expect("loads");
        assert!(loaded.expect("is there").state == large);
    });
    proxy
}

/// The requests that make an object with a body or begin a multipart upload.
fn made(proxy: &Proxy) -> Vec<Seen> {
    let made = ["PutObject", "CreateMultipartUpload"];
    let seen = proxy.seen().into_iter();
    seen.filter(|seen| made.contains(&seen.operation()) && seen.uri.path().ends_with(".gz"))
        .filter(|seen| !is_probe(seen))
        .collect()
}

#[test]
fn objects_are_encrypted_as_was_asked_and_the_server_says_so() {
    const SSE: &str = "x-amz-server-side-encryption";
    let kms = "alias/persist-test";
    for (encryption, algorithm) in [
        (S3Encryption::S3, "AES256"),
        (S3Encryption::Kms(kms.into()), "aws:kms"),
    ] {
        let proxy = seen_with(encryption);
        let made = made(&proxy);
        assert!(made.len() >= 2, "{made:?}");
        let (key, bucket_key) = (
            format!("{SSE}-aws-kms-key-id"),
            format!("{SSE}-bucket-key-enabled"),
        );
        let wanted = (algorithm == "aws:kms").then_some(kms);
        for request in &made {
            assert_eq!(request.header(SSE), Some(algorithm), "{request:?}");
            assert_eq!(request.header(&key), wanted);
            assert_eq!(request.header(&bucket_key), wanted.map(|_| "true"));
        }
        // SeaweedFS does not confirm when a multipart upload begins, only when the object is read.
        let confirmed = proxy.seen().into_iter().filter(|seen| {
            ["PutObject", "GetObject"].contains(&seen.operation())
                && seen.uri.path().ends_with(".gz")
        });
        let confirmed: Vec<_> = confirmed.collect();
        assert!(confirmed.len() >= 3);
        for request in &confirmed {
            assert_eq!(request.answered(SSE), Some(algorithm), "{request:?}");
            assert_eq!(request.answered(&key), wanted);
        }
    }
}

/// The warnings of a process that saves a state of several parts, encrypted with a key of KMS.
fn warnings_of_an_encrypted_save(place: &TestStore) -> Vec<String> {
    let mut persist = place.command();
    persist.env("PERSIST_S3_KMS_KEY", "alias/persist-test");
    let saved = with_bytes(
        persist.args(["save", "bot/memory", "-"]),
        &noise(1, 20 << 20),
    );
    assert!(saved.status.success(), "{}", text(&saved.stderr));
    warnings(&saved)
}

/// Returns the warnings of a command.
pub(crate) fn warnings(output: &Output) -> Vec<String> {
    let said = text(&output.stderr).lines();
    said.filter(|line| line.contains("WARN"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn an_operator_is_warned_of_missing_encryption_where_it_is_missing() {
    // It says nothing of encryption while an upload is made, and encrypts.
    let warned = warnings_of_an_encrypted_save(&TestStore::on(Kind::SeaweedFs));
    assert!(warned.is_empty(), "{warned:?}");
    let (proxy, place) = TestStore::on(Kind::Ministack).proxied();
    proxy.rule(|_, _| Some(Fault::IgnoreEncryption));
    let warned = warnings_of_an_encrypted_save(&place);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("does not encrypt"), "{warned:?}");
}

#[test]
fn objects_are_gzip_by_type_and_never_by_content_encoding() {
    for request in made(&seen_with(S3Encryption::Bucket)) {
        assert_eq!(request.header("content-type"), Some("application/gzip"));
        let encoding = request.header("content-encoding").unwrap_or_default();
        assert!(!encoding.contains("gzip"), "{encoding}");
        assert_eq!(request.header("x-amz-server-side-encryption"), None);
    }
}

#[test]
fn a_server_that_ignores_conditions_is_refused_before_the_first_save() {
    // The real server, but that its proxy takes the conditions away: two of the servers we tried
    // are like that.
    let (proxy, place) = TestStore::on(Kind::Ministack).proxied();
    proxy.rule(|_, _| Some(Fault::IgnoreConditions));
    block_on(async {
        let refused = place
            .scope()
            .save("memory", "x".into(), SaveOptions::default())
            .await;
        assert!(
            matches!(&refused, Err(Error::Unsupported { what,
            .. }) if what.contains("overwrite another")),
            "{refused:?}"
        );
        assert!(made(&proxy).is_empty());
        // Nor does it become better where a store is that was made elsewhere.
        proxy.forget();
        save(&place.scope(), "memory", "x").await;
        proxy.rule(|_, _| Some(Fault::IgnoreConditions));
        let refused = place.scope().delete("memory", Expect::Any).await;
        assert!(
            matches!(&refused, Err(Error::Unsupported { .. })),
            "{refused:?}"
        );
        assert_eq!(load(&place.scope(), "memory").await.as_deref(), Some("x"));
    });
    let output = with_input(
        place.command().args(["save", "bot/memory", "-"]),
        "from the command",
    );
    assert_eq!(output.status.code(), Some(6), "{}", text(&output.stderr));
}

#[test]
fn a_server_whose_lists_are_stale_is_refused_before_the_first_save() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    let empty = Reply::new(
        200,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><KeyCount>0</KeyCount>\
         <IsTruncated>false</IsTruncated></ListBucketResult>",
    )
    .header("date", "Sun, 22 Nov 2026 10:00:00 GMT");
    proxy.rule(move |_, seen| {
        (seen.operation() == "ListObjectsV2").then(|| Fault::Reply(empty.clone()))
    });
    block_on(async {
        let refused = place
            .scope()
            .save("memory", "x".into(), SaveOptions::default())
            .await;
        assert!(
            matches!(&refused, Err(Error::Unsupported { what, .. }) if what.contains("in order")),
            "{refused:?}"
        );
        assert!(made(&proxy).is_empty());
    });
}

/// How many of these requests the server answered with success.
fn done(proxy: &Proxy, operation: &str) -> usize {
    let seen = proxy.seen().into_iter();
    let done = seen.filter(|seen| {
        let success = seen.answer.as_ref().is_some_and(|a| a.0.is_success());
        seen.operation() == operation && success && !is_probe(seen)
    });
    done.count()
}

/// Waits until every upload that was begun is aborted.
async fn all_aborted(proxy: &Proxy, begun: usize) {
    for _ in 0..600 {
        if done(proxy, "AbortMultipartUpload") == begun {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{begun} uploads were begun: {:?}", proxy.operations());
}

#[test]
fn an_upload_that_is_dropped_or_fails_is_aborted() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    block_on(async {
        let scope = place.scope();
        let mut dropped = scope
            .writer("dropped", SaveOptions::default())
            .await
            .expect("a writer");
        dropped.write(&noise(1, 30 << 20)).await.expect("writes");
        drop(dropped);
        assert_eq!(done(&proxy, "CreateMultipartUpload"), 1);
        all_aborted(&proxy, 1).await;

        proxy.rule(|_, seen| {
            (seen.operation() == "UploadPart" && !is_probe(seen))
                .then(|| Fault::Reply(Reply::s3(403, "AccessDenied")))
        });
        let refused = scope
            .save("refused", noise(2, 30 << 20).into(), SaveOptions::default())
            .await;
        assert!(matches!(&refused, Err(Error::Storage(_))), "{refused:?}");
        all_aborted(&proxy, done(&proxy, "CreateMultipartUpload")).await;

        proxy.forget();
        let late = scope
            .writer("late", SaveOptions::default())
            .await
            .expect("a writer");
        let mut late = late;
        late.write(&noise(3, 30 << 20)).await.expect("writes");
        save(&place.scope(), "late", "first").await;
        let conflict = late.finish().await;
        assert!(
            matches!(&conflict, Err(Error::Conflict { .. })),
            "{conflict:?}"
        );
        all_aborted(&proxy, 1).await;
        assert_eq!(done(&proxy, "CompleteMultipartUpload"), 0);
    });
}

/// Runs `persist save` of a small state and of one of several parts, and returns the requests that
/// made them.
fn made_by_command(
    place: &TestStore,
    proxy: &Proxy,
    url: &str,
    variables: &[(&str, &str)],
    toml: &str,
) -> Vec<Seen> {
    let dir = tempdir();
    let file = dir.path().join("persist.toml");
    std::fs::write(&file, toml).expect("written");
    proxy.forget();
    for (name, state) in [
        ("bot/small", noise(1, 10)),
        ("bot/large", noise(1, 9 << 20)),
    ] {
        let mut persist = place.command();
        persist
            .env("PERSIST_CONFIG", &file)
            .envs(variables.iter().copied())
            .args(["save", name, "-", "--storage", url]);
        let saved = with_bytes(&mut persist, &state);
        assert!(saved.status.success(), "{}", text(&saved.stderr));
    }
    let made = ["PutObject", "CreateMultipartUpload", "UploadPart"];
    let seen = proxy.seen().into_iter();
    let made: Vec<_> = seen
        .filter(|seen| made.contains(&seen.operation()) && !is_probe(seen))
        .collect();
    assert!(made.len() >= 4, "{made:?}");
    made
}

/// Adds a parameter to the URL of a store.
fn with_parameter(place: &TestStore, parameter: &str) -> String {
    let join = if place.url().contains('?') { '&' } else { '?' };
    format!("{}{join}{parameter}", place.url())
}

#[test]
fn encryption_by_s3_can_be_set_in_every_source_of_settings() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    let of_url = with_parameter(&place, "encryption=AES256");
    let url = place.url();
    for (url, variables, toml) in [
        (of_url.as_str(), &[][..], ""),
        (url, &[("PERSIST_S3_ENCRYPTION", "AES256")], ""),
        (url, &[], "s3_encryption = \"AES256\""),
        (
            of_url.as_str(),
            &[("PERSIST_S3_KMS_KEY", "alias/other")],
            "",
        ),
    ] {
        for seen in made_by_command(&place, &proxy, url, variables, toml) {
            if seen.operation() != "UploadPart" {
                let asked = seen.header("x-amz-server-side-encryption");
                assert_eq!(asked, Some("AES256"), "{variables:?} {toml} {seen:?}");
            }
        }
    }
}

#[test]
fn checksums_can_be_turned_off_in_every_source_of_settings() {
    let (proxy, place) = TestStore::on(Kind::SeaweedFs).proxied();
    let of_url = with_parameter(&place, "checksums=when_required");
    let url = place.url();
    let dir = tempdir();
    let config = dir.path().join("config");
    let of_profile = "[default]\nrequest_checksum_calculation = when_required\n";
    std::fs::write(&config, of_profile).expect("written");
    let config = config.to_str().expect("UTF-8");
    let variable = "AWS_REQUEST_CHECKSUM_CALCULATION";
    for (url, variables, toml, is_sent) in [
        (url, &[][..], "", true),
        (of_url.as_str(), &[], "", false),
        (url, &[(variable, "when_required")], "", false),
        (url, &[], "s3_checksums = \"when_required\"", false),
        (url, &[("AWS_CONFIG_FILE", config)], "", false),
        (
            url,
            &[("AWS_CONFIG_FILE", config), (variable, "when_supported")],
            "",
            true,
        ),
    ] {
        for seen in made_by_command(&place, &proxy, url, variables, toml) {
            let has = |begin: &str| {
                let mut names = seen.headers.keys();
                names.any(|name| name.as_str().starts_with(begin))
            };
            let is_with = has("x-amz-checksum-") || has("x-amz-sdk-checksum-");
            assert_eq!(is_with, is_sent, "{variables:?} {toml} {seen:?}");
            let signed = seen.header("x-amz-content-sha256").unwrap_or_default();
            let is_hash = signed.len() == 64 && signed.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(is_hash, "the body is signed: {seen:?}");
        }
    }
}
