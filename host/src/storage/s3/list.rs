//! Lists the entries directly under a directory: one ListObjectsV2 with a delimiter.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{EncodingType, Object as Listed};

use super::response_meta::{ResponseInterceptor, ResponseMeta};
use super::{Operation, S3, bucket, fault, unlogged};
use crate::storage::key::is_segment;
use crate::storage::{
    Entry, Error, ErrorKind, List, Object, ObjectMeta, Page, RecursiveList, RecursivePage, Result,
    Storage as _,
};

const LIST: Operation = Operation {
    name: "ListObjectsV2",
    permission: "s3:ListBucket on the bucket",
    change: false,
};

/// The most entries that S3 gives at once.
const MAX_KEYS: usize = 1000;

/// Sorts after everything that can follow the `/` of a directory.
const LAST: char = char::MAX;

/// The page that `list` asks for.
pub(super) async fn page(s3: &S3, list: &List<'_>) -> Result<Page> {
    let base = match list.dir {
        "" => s3.settings().prefix.clone(),
        dir => format!("{}{dir}/", s3.settings().prefix),
    };
    let limit = list.limit.clamp(1, MAX_KEYS);
    let after = list.after.as_ref();
    let mut found = Vec::new();
    let mut token = None;
    let mut pages = bucket::Pages::default();
    loop {
        let first = token.is_none();
        let (answer, meta) = ask(s3, &list_of(list, &base, limit, token.clone())).await?;
        let more = answer.is_truncated() == Some(true);
        let now = meta.now.filter(|_| list.meta);
        check_order(&answer, may_list_by_name(s3))?;
        found.extend(entries(&answer, &base, now));
        let mut held = Vec::new();
        if may_list_by_name(s3) {
            if first {
                found.extend(passed_over(s3, list, &base).await?);
            }
            if more {
                held = hold_back(&mut found);
            }
        }
        found.retain(|entry| after.is_none_or(|after| entry > after));
        found.sort();
        found.dedup();
        // What others put there may fill an answer of which nothing is left.
        if !found.is_empty() || !more {
            let cut = found.len() > limit;
            found.truncate(limit);
            return Ok(Page {
                entries: found,
                more: more || cut,
                now,
            });
        }
        found = held;
        pages.empty()?;
        token = Some(pages.next(answer.next_continuation_token)?);
    }
}

/// The page of all objects below a directory that `list` asks for: the same request without a
/// delimiter. Its token is the server's own, so that it goes on where the server was, in whatever
/// order that lists.
pub(super) async fn recursive_page(s3: &S3, list: &RecursiveList<'_>) -> Result<RecursivePage> {
    let base = match list.dir {
        "" => s3.settings().prefix.clone(),
        dir => format!("{}{dir}/", s3.settings().prefix),
    };
    let mut token = list.token.clone();
    let mut pages = bucket::Pages::after(&token);
    loop {
        let question = Question {
            prefix: base.clone(),
            direct: false,
            after: None,
            limit: list.limit.clamp(1, MAX_KEYS),
            token: token.clone(),
        };
        let (answer, meta) = ask(s3, &question).await?;
        let now = meta.now.filter(|_| list.meta);
        let objects = answer.contents().iter().filter_map(|listed| {
            let key = decode(listed.key()?)?;
            let name = key.strip_prefix(&base)?;
            name.split('/').all(is_segment).then(|| Object {
                name: name.into(),
                meta: now.and_then(|now| object_meta(listed, now)),
            })
        });
        let objects: Vec<_> = objects.collect();
        let next = match answer.is_truncated() {
            Some(true) => Some(pages.next(answer.next_continuation_token.clone())?),
            _ => None,
        };
        // What others put there may fill an answer.
        if !objects.is_empty() || next.is_none() {
            return Ok(RecursivePage { objects, next, now });
        }
        pages.empty()?;
        token = next;
    }
}

/// Parameters of a list request to S3.
struct Question {
    prefix: String,
    /// True if objects below directories are left out.
    direct: bool,
    after: Option<String>,
    limit: usize,
    token: Option<String>,
}

fn list_of(list: &List<'_>, base: &str, limit: usize, token: Option<String>) -> Question {
    let after = list.after.as_ref().map(|after| match after {
        Entry::Object(object) => format!("{base}{}", object.name),
        Entry::Dir(name) => format!("{base}{name}/{LAST}"),
    });
    let prefix = format!("{base}{}", list.prefix);
    // Every key with the prefix sorts after an entry that sorts before the prefix. Some servers
    // (SeaweedFS 4.44 to 4.47) answer an empty list to such a `start-after`.
    let after = after.filter(|after| token.is_none() && *after >= prefix);
    Question {
        prefix,
        direct: true,
        after,
        limit,
        token,
    }
}

/// One request.
async fn ask(s3: &S3, question: &Question) -> Result<(ListObjectsV2Output, ResponseMeta)> {
    let ask = || async {
        let interceptor = ResponseInterceptor::default();
        let ask = s3
            .client()
            .list_objects_v2()
            .bucket(&s3.settings().bucket)
            .prefix(&question.prefix)
            .set_delimiter(question.direct.then(|| "/".into()))
            // Keys of others may hold what XML cannot.
            .encoding_type(EncodingType::Url)
            .max_keys(i32::try_from(question.limit).unwrap_or(i32::MAX))
            .set_start_after(question.after.clone())
            .set_continuation_token(question.token.clone());
        let ask = ask.customize().interceptor(interceptor.clone());
        match unlogged(ask.send()).await {
            Ok(answer) => Ok((answer, interceptor.meta(&LIST)?)),
            Err(error) => Err(fault(&LIST, &error)),
        }
    };
    s3.call(&LIST, &question.prefix, 0, ask).await
}

// Amazon lists in the order of keys, where a directory ends in `/`: `a-` and `a.b/` come before
// `a/`. A server that walks a tree of directories (SeaweedFS) lists by name, where `a` comes first.
// A page of it is put in order like any other; but what belongs before a directory may come on a
// later page, and a directory may have come before the entry that this page goes on from. No answer
// says which order a server has, so that both are handled wherever it may be any.

/// Returns true where directories may be listed by their names, without the `/` that ends their
/// keys.
fn may_list_by_name(s3: &S3) -> bool {
    s3.unknown_server().is_some()
}

/// Refuses an answer whose objects or directories are not in order: neither by key nor, where that
/// may be, by name.
fn check_order(answer: &ListObjectsV2Output, may_be_by_name: bool) -> Result<()> {
    let keys = || {
        answer
            .contents()
            .iter()
            .filter_map(|object| decode(object.key()?))
    };
    let dirs = || {
        answer
            .common_prefixes()
            .iter()
            .filter_map(|dir| decode(dir.prefix()?))
    };
    let names = dirs().map(|dir| dir.trim_end_matches('/').to_owned());
    if keys().is_sorted() && (dirs().is_sorted() || may_be_by_name && names.is_sorted()) {
        return Ok(());
    }
    let what = "this server does not list keys in order, so the newest version could be missed";
    Err(Error::new(ErrorKind::Unsupported, what).with_hint("use another storage"))
}

/// Directories that a server which lists by name passed over, since their name is the beginning of
/// the one that the list goes on from.
async fn passed_over(s3: &S3, list: &List<'_>, base: &str) -> Result<Vec<Entry>> {
    let names = list.after.iter().flat_map(names_that_begin);
    let names: BTreeSet<_> = names
        .filter(|name| !name.is_empty() && name.starts_with(list.prefix))
        .collect();
    let mut dirs = Vec::new();
    for name in names {
        let below = Question {
            prefix: format!("{base}{name}/"),
            direct: false,
            after: None,
            limit: 1,
            token: None,
        };
        if !ask(s3, &below).await?.0.contents().is_empty() {
            dirs.push(Entry::Dir(name.into()));
        }
    }
    Ok(dirs)
}

/// Names of directories that come before `entry` by name, and after it by key.
fn names_that_begin(entry: &Entry) -> impl Iterator<Item = &str> {
    let name = entry.name();
    let ends = name.match_indices(['-', '.']).map(|(end, _)| end);
    ends.map(move |end| &name[..end])
}

/// Takes out the directories before which something may belong that is still to come.
fn hold_back(found: &mut Vec<Entry>) -> Vec<Entry> {
    let Some(last) = found.iter().map(Entry::name).max().map(str::to_owned) else {
        return Vec::new();
    };
    let is_early = |entry: &mut Entry| match entry {
        Entry::Object(_) => false,
        Entry::Dir(name) => last
            .strip_prefix(name.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.'])),
    };
    found.extract_if(.., is_early).collect()
}

/// Returns the entries that the answer has directly under `base`, objects and directories merged.
/// Skips names that cannot be keys of ours.
fn entries(answer: &ListObjectsV2Output, base: &str, now: Option<SystemTime>) -> Vec<Entry> {
    let name = |key: Option<&str>| {
        let key = decode(key?)?;
        key.strip_prefix(base).map(str::to_owned)
    };
    let objects = answer.contents().iter().filter_map(|listed| {
        let name = name(listed.key()).filter(|name| is_segment(name))?;
        let meta = now.and_then(|now| object_meta(listed, now));
        Some(Entry::Object(Object { name, meta }))
    });
    let dirs = answer.common_prefixes().iter().filter_map(|dir| {
        let name = name(dir.prefix())?;
        let name = name.strip_suffix('/').filter(|name| is_segment(name))?;
        Some(Entry::Dir(name.into()))
    });
    objects.chain(dirs).collect()
}

/// S3 cuts times to seconds: an object may be younger than it looks by one. (It dates what came in
/// parts by when its upload began, as [`ObjectMeta::created`] says.)
fn object_meta(listed: &Listed, now: SystemTime) -> Option<ObjectMeta> {
    let modified = SystemTime::try_from(*listed.last_modified()?).ok()?;
    Some(ObjectMeta {
        size: u64::try_from(listed.size()?).ok()?,
        created: modified
            .checked_add(Duration::from_secs(1))?
            .min(now.max(modified)),
    })
}

/// A key as it was before the server made it fit for XML.
pub(super) fn decode(key: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes().iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let high = digit(rest.next()?)?;
                let low = digit(rest.next()?)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::primitives::DateTime;
    use aws_sdk_s3::types::CommonPrefix;

    fn listed(key: &str) -> Listed {
        Listed::builder()
            .key(key)
            .size(10)
            .e_tag("\"0123\"")
            .last_modified(DateTime::from_secs(1000))
            .build()
    }

    #[test]
    fn objects_and_directories_are_merged_in_the_order_of_keys() {
        let answer = ListObjectsV2Output::builder()
            .contents(listed("p/a-"))
            .contents(listed("p/b"))
            .common_prefixes(CommonPrefix::builder().prefix("p/a.b/").build())
            .common_prefixes(CommonPrefix::builder().prefix("p/a/").build())
            .build();
        let expected = [
            Entry::object("a-"),
            Entry::Dir("a.b".into()),
            Entry::Dir("a".into()),
            Entry::object("b"),
        ];
        let mut found = entries(&answer, "p/", None);
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn start_after_is_sent_only_within_the_prefix() {
        for (after, sent) in [
            ("apple", None),
            ("note", Some("p/note")),
            ("note-1", Some("p/note-1")),
            ("zebra", Some("p/zebra")),
        ] {
            let list = List {
                dir: "p",
                prefix: "note",
                after: Some(Entry::object(after)),
                limit: 10,
                meta: false,
            };
            assert_eq!(list_of(&list, "p/", 10, None).after.as_deref(), sent);
            assert_eq!(list_of(&list, "p/", 10, Some("token".into())).after, None);
        }
    }

    #[test]
    fn a_list_out_of_order_is_refused() {
        let answer = |keys: [&str; 2], dirs: [&str; 2]| {
            let answer = ListObjectsV2Output::builder();
            let answer = keys
                .iter()
                .fold(answer, |answer, key| answer.contents(listed(key)));
            let dirs = dirs.map(|dir| CommonPrefix::builder().prefix(dir).build());
            answer.set_common_prefixes(Some(dirs.into())).build()
        };
        let by_key = answer(["p/a", "p/b"], ["p/a-/", "p/a/"]);
        let by_name = answer(["p/a", "p/b"], ["p/a/", "p/a-/"]);
        let objects = answer(["p/b", "p/a"], ["p/a-/", "p/a/"]);
        let dirs = answer(["p/a", "p/b"], ["p/b/", "p/a/"]);
        for (answer, on_amazon, elsewhere) in [
            (by_key, true, true),
            (by_name, false, true),
            (objects, false, false),
            (dirs, false, false),
        ] {
            assert_eq!(check_order(&answer, false).is_ok(), on_amazon, "{answer:?}");
            assert_eq!(check_order(&answer, true).is_ok(), elsewhere, "{answer:?}");
        }
    }

    #[test]
    fn a_directory_waits_for_what_may_belong_before_it() {
        let dir = |name: &str| Entry::Dir(name.into());
        let mut found = vec![Entry::object("a-"), dir("a")];
        assert_eq!(hold_back(&mut found), [dir("a")]);
        assert_eq!(found, [Entry::object("a-")]);
        let mut found = vec![dir("a"), dir("b")];
        assert_eq!(hold_back(&mut found), [dir("b")], "b- may follow");
        let mut found = vec![dir("a"), Entry::object("a0")];
        assert_eq!(
            hold_back(&mut found),
            [],
            "nothing follows that begins with a- or a."
        );
        let name = Entry::object("a-1.gz");
        assert_eq!(names_that_begin(&name).collect::<Vec<_>>(), ["a", "a-1"]);
    }

    #[test]
    fn foreign_objects_in_the_bucket_are_skipped() {
        let keys = [
            "p/",
            "p/a%20b",
            "p/a+b",
            "p/%C3%A9",
            "p/%zz",
            "p/.hidden",
            "elsewhere",
        ];
        let answer = keys
            .iter()
            .fold(ListObjectsV2Output::builder(), |answer, key| {
                answer.contents(listed(key))
            })
            .contents(listed("p/%7Eours"))
            .common_prefixes(CommonPrefix::builder().prefix("p//").build())
            .build();
        assert_eq!(entries(&answer, "p/", None), [Entry::object("~ours")]);
    }

    #[test]
    fn times_cut_to_seconds_make_no_object_look_older() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let created = |now| object_meta(&listed("a"), now).expect("meta").created;
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(created(now), modified + Duration::from_secs(1));
        assert_eq!(created(modified), modified, "and not of the future");
    }
}
