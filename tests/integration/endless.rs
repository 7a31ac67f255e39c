//! Answers that never end. A fake server gives them, since a real one does not.

use std::sync::Arc;
use std::time::Duration;

use persist_host::storage::{ErrorKind, List, S3Credentials, Storage, StorageConfig};
use persist_tests::block_on;
use persist_tests::gcs::json;
use persist_tests::proxy::{Fault, Proxy, Reply, Seen};

/// Longer than any list may be.
const TOO_LONG: usize = 17 << 20;

/// Makes one answer of the `n`th request.
type Answer = fn(n: usize) -> Reply;

fn storages(server: &Proxy) -> [Arc<dyn Storage>; 2] {
    let endpoint = Some(server.endpoint().to_owned());
    let mut s3 = StorageConfig {
        s3_endpoint: endpoint.clone(),
        s3_credentials: Some(S3Credentials::new("AK", "SK")),
        ..StorageConfig::s3_with_bucket("my-bucket".into())
    };
    s3.retry.budget = Duration::ZERO;
    let mut gcs = StorageConfig {
        gcs_endpoint: endpoint,
        ..StorageConfig::gcs_with_bucket("my-bucket".into())
    };
    gcs.retry.budget = Duration::ZERO;
    [s3.build().expect("good"), gcs.build().expect("good")]
}

/// Lists through a server that answers S3 and GCS so; the kinds of error and how often each was
/// asked.
fn list(s3: Answer, gcs: Answer) -> Vec<(ErrorKind, usize, String)> {
    let server = Proxy::start("nowhere");
    let rule = move |n, seen: &Seen| {
        let answer = if seen.uri.path().starts_with("/storage/") {
            gcs(n)
        } else {
            s3(n)
        };
        Some(Fault::Reply(answer))
    };
    let lists = storages(&server).map(|storage| {
        server.forget();
        server.rule(rule);
        block_on(async {
            let list = List::new("").with_limit(10);
            let error = storage.list(&list).await.expect_err("it does not end");
            (error.kind(), server.seen().len(), error.to_string())
        })
    });
    lists.into()
}

fn s3_page(token: &str) -> Reply {
    Reply::new(
        200,
        format!(
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken></ListBucketResult>"
        ),
    )
}

fn gcs_page(token: &str) -> Reply {
    let page = serde_json::json!({ "kind": "storage#objects", "nextPageToken": token });
    json(200, page.to_string())
}

#[test]
fn a_list_that_goes_on_without_entries_is_given_up() {
    for (kind, asked, said) in list(|n| s3_page(&n.to_string()), |n| gcs_page(&n.to_string())) {
        assert_eq!(kind, ErrorKind::Unsupported, "{said}");
        assert!(asked <= 10_000, "{asked}: {said}");
        assert!(said.contains("pages of a list"), "{said}");
    }
}

#[test]
fn a_token_that_comes_again_is_an_error() {
    for (kind, asked, said) in list(
        |n| s3_page(["a", "b", "c"][n % 3]),
        |n| gcs_page(["a", "b", "c"][n % 3]),
    ) {
        assert_eq!(kind, ErrorKind::Unsupported, "{said}");
        assert_eq!(asked, 4, "{said}");
    }
}

#[test]
fn an_answer_of_any_length_is_not_read_to_its_end() {
    let found = list(
        |_| {
            let filling = " ".repeat(TOO_LONG);
            Reply::new(
                200,
                format!("<ListBucketResult>{filling}</ListBucketResult>"),
            )
        },
        |_| json(200, format!("{{\"items\":[{}]}}", " ".repeat(TOO_LONG))),
    );
    for (kind, asked, said) in found {
        assert_eq!(kind, ErrorKind::Unavailable, "{said}");
        assert_eq!(asked, 1, "{said}");
    }
    // An error that never ends is one.
    for (_, asked, said) in list(
        |_| Reply::new(400, " ".repeat(TOO_LONG)),
        |_| json(400, " ".repeat(TOO_LONG)),
    ) {
        assert_eq!(asked, 1, "{said}");
    }
}
