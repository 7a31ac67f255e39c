//! Lists the entries directly under a directory: one objects.list with a delimiter.

use std::time::SystemTime;

use reqwest::Method;
use serde::Deserialize;

use super::{Gcs, Operation, bucket, encode, whole};
use crate::storage::key::is_segment;
use crate::storage::retry::{Attempt, AttemptError};
use crate::storage::{
    Entry, Error, ErrorKind, List, Object, ObjectMeta, Page, RecursiveList, RecursivePage, Result,
};

const LIST: Operation = Operation {
    name: "objects.list",
    permission: "storage.objects.list",
    change: false,
    needs_bucket: true,
};

/// The most entries that GCS gives at once.
const MAX_RESULTS: usize = 1000;

/// One answer.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    /// What the answer says it is.
    kind: String,
    items: Vec<Listed>,
    prefixes: Vec<String>,
    next_page_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listed {
    name: String,
    size: Option<String>,
    time_created: Option<String>,
}

/// The page that `list` asks for.
pub(super) async fn page(gcs: &Gcs, list: &List<'_>) -> Result<Page> {
    let base = match list.dir {
        "" => gcs.settings().prefix.clone(),
        dir => format!("{}{dir}/", gcs.settings().prefix),
    };
    let limit = list.limit.clamp(1, MAX_RESULTS);
    let mut token = None;
    let mut pages = bucket::Pages::default();
    loop {
        let (answer, now) = ask(gcs, list, &base, limit, token.clone()).await?;
        let more = answer.next_page_token.is_some();
        let now = now.filter(|_| list.meta);
        check_order(&answer)?;
        let mut found = entries(&answer, &base, now);
        if more {
            hold_back(&mut found);
        }
        let after = list.after.as_ref();
        found.retain(|entry| after.is_none_or(|after| entry > after));
        // The entry that the list goes on from, or what others put there, may fill an answer of
        // which nothing is left.
        if !found.is_empty() || !more {
            let cut = found.len() > limit;
            found.truncate(limit);
            return Ok(Page {
                entries: found,
                more: more || cut,
                now,
            });
        }
        pages.empty()?;
        token = Some(pages.next(answer.next_page_token)?);
    }
}

/// The page of all objects below a directory that `list` asks for: the same request without a
/// delimiter.
pub(super) async fn recursive_page(gcs: &Gcs, list: &RecursiveList<'_>) -> Result<RecursivePage> {
    let base = match list.dir {
        "" => gcs.settings().prefix.clone(),
        dir => format!("{}{dir}/", gcs.settings().prefix),
    };
    let limit = list.limit.clamp(1, MAX_RESULTS);
    let mut token = list.token.clone();
    let mut pages = bucket::Pages::after(&token);
    loop {
        let mut query = format!(
            "/o?fields=kind,items(name,size,timeCreated),nextPageToken&prefix={}&maxResults={limit}",
            encode(&base)
        );
        if let Some(token) = &token {
            query += &format!("&pageToken={}", encode(token));
        }
        let (answer, now) = get(gcs, &base, &query).await?;
        let now = now.filter(|_| list.meta);
        let objects = answer.items.iter().filter_map(|listed| {
            let name = listed.name.strip_prefix(&base)?;
            name.split('/').all(is_segment).then(|| Object {
                name: name.into(),
                meta: now.and_then(|now| object_meta(listed, now)),
            })
        });
        let objects: Vec<_> = objects.collect();
        let next = match answer.next_page_token {
            None => None,
            next => Some(pages.next(next)?),
        };
        // What others put there may fill an answer.
        if !objects.is_empty() || next.is_none() {
            return Ok(RecursivePage { objects, next, now });
        }
        pages.empty()?;
        token = next;
    }
}

/// One request for what is directly under a directory.
async fn ask(
    gcs: &Gcs,
    list: &List<'_>,
    base: &str,
    limit: usize,
    token: Option<String>,
) -> Result<(Answer, Option<SystemTime>)> {
    let prefix = format!("{base}{}", list.prefix);
    let mut query = format!(
        "/o?delimiter=%2F&fields=kind,items(name,size,timeCreated),prefixes,nextPageToken&prefix={}",
        encode(&prefix)
    );
    let (start, limit) = match &list.after {
        None => (None, limit),
        // The list begins with it.
        Some(Entry::Object(object)) => (Some(format!("{base}{}", object.name)), limit + 1),
        // `0` is what follows `/`.
        Some(Entry::Dir(name)) => (Some(format!("{base}{name}0")), limit),
    };
    query += &format!("&maxResults={}", limit.min(MAX_RESULTS));
    for (name, value) in [("startOffset", start), ("pageToken", token)] {
        if let Some(value) = value {
            query += &format!("&{name}={}", encode(&value));
        }
    }
    get(gcs, &prefix, &query).await
}

/// One request.
async fn get(gcs: &Gcs, prefix: &str, query: &str) -> Result<(Answer, Option<SystemTime>)> {
    let url = &gcs.url("/storage/v1/b/", query);
    let ask = || async move {
        let response = gcs.send(&LIST, gcs.request(Method::GET, url)).await?;
        let date = response.headers().get("date").and_then(|d| d.to_str().ok());
        let now = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let body = whole(response).await.map_err(odd)?;
        Ok::<_, AttemptError>((read(&body)?, now))
    };
    gcs.call(&LIST, prefix, 0, ask).await
}

fn read(body: &[u8]) -> Attempt<Answer> {
    match serde_json::from_slice::<Answer>(body) {
        // Any object of JSON could be read as an empty list.
        Ok(answer) if answer.kind == "storage#objects" => Ok(answer),
        _ => {
            let error = bucket::another_service(LIST.name, "GCS");
            Err(AttemptError::unclear(error))
        }
    }
}

/// A proxy may have answered: another may do better.
fn odd(what: String) -> AttemptError {
    let what = format!("the response to objects.list {what}");
    AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
}

/// Refuses an answer whose objects or directories are not in the order of keys.
fn check_order(answer: &Answer) -> Result<()> {
    let names = answer.items.iter().map(|listed| &listed.name);
    if names.is_sorted() && answer.prefixes.is_sorted() {
        return Ok(());
    }
    let what = "this server does not list keys in order, so the newest version could be missed";
    Err(Error::new(ErrorKind::Unsupported, what).with_hint("use another storage"))
}

/// Returns the entries that the answer has directly under `base`, objects and directories merged.
/// Skips names that cannot be keys of ours.
fn entries(answer: &Answer, base: &str, now: Option<SystemTime>) -> Vec<Entry> {
    let objects = answer.items.iter().filter_map(|listed| {
        let name = listed.name.strip_prefix(base)?;
        is_segment(name).then(|| {
            Entry::Object(Object {
                name: name.into(),
                meta: now.and_then(|now| object_meta(listed, now)),
            })
        })
    });
    let dirs = answer.prefixes.iter().filter_map(|dir| {
        let name = dir.strip_prefix(base)?.strip_suffix('/')?;
        is_segment(name).then(|| Entry::Dir(name.into()))
    });
    let mut entries: Vec<_> = objects.chain(dirs).collect();
    entries.sort();
    entries
}

/// GCS counts directories among what a page may hold. Others (fake-gcs-server) count objects only,
/// and show all directories at once: so what comes after the last object of a page that has one is
/// left to the next page.
fn hold_back(found: &mut Vec<Entry>) {
    let last = found
        .iter()
        .rposition(|entry| matches!(entry, Entry::Object(_)));
    if let Some(last) = last {
        found.truncate(last + 1);
    }
}

/// GCS tells when an upload was completed, to the millisecond, and the time of a page in whole
/// seconds.
fn object_meta(listed: &Listed, now: SystemTime) -> Option<ObjectMeta> {
    let created = humantime::parse_rfc3339(listed.time_created.as_deref()?).ok()?;
    Some(ObjectMeta {
        size: listed.size.as_deref()?.parse().ok()?,
        created: created.min(now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(name: &str) -> Listed {
        Listed {
            name: name.into(),
            size: Some("10".into()),
            time_created: Some("2026-11-22T20:08:07.123Z".into()),
        }
    }

    #[test]
    fn objects_and_directories_are_merged_in_the_order_of_keys() {
        let answer = Answer {
            items: vec![listed("p/a-"), listed("p/b")],
            prefixes: vec!["p/a.b/".into(), "p/a/".into(), "p/c/".into()],
            ..Answer::default()
        };
        let expected = [
            Entry::object("a-"),
            Entry::Dir("a.b".into()),
            Entry::Dir("a".into()),
            Entry::object("b"),
            Entry::Dir("c".into()),
        ];
        let mut found = entries(&answer, "p/", None);
        assert_eq!(found, expected);
        hold_back(&mut found);
        assert_eq!(found, expected[..4], "b- may come on the next page");
    }

    #[test]
    fn a_list_out_of_order_is_refused() {
        let answer = |items: [&str; 2], prefixes: [&str; 2]| Answer {
            items: items.map(listed).into(),
            prefixes: prefixes.map(Into::into).into(),
            ..Answer::default()
        };
        check_order(&answer(["p/a", "p/b"], ["p/a-/", "p/a/"])).expect("in order");
        for wrong in [
            answer(["p/b", "p/a"], ["p/a-/", "p/a/"]),
            answer(["p/a", "p/b"], ["p/a/", "p/a-/"]),
        ] {
            let refused = check_order(&wrong).expect_err("is out of order");
            assert_eq!(refused.kind(), ErrorKind::Unsupported);
        }
    }

    #[test]
    fn foreign_objects_in_the_bucket_are_skipped() {
        let answer = Answer {
            items: ["p/", "p/a b", "p/é", "p/.hidden", "elsewhere", "p/~ours"]
                .map(listed)
                .into(),
            prefixes: vec!["p//".into(), "q/".into()],
            ..Answer::default()
        };
        assert_eq!(entries(&answer, "p/", None), [Entry::object("~ours")]);
    }

    #[test]
    fn an_object_is_never_of_the_future() {
        let created = humantime::parse_rfc3339("2026-11-22T20:08:07.123Z").expect("a time");
        let second = std::time::Duration::from_secs(1);
        let meta = |now| object_meta(&listed("a"), now).expect("meta").created;
        assert_eq!(meta(created + second), created);
        assert_eq!(meta(created - second), created - second);
    }
}
