//! What is directly under a directory: one ListObjectsV2 with a delimiter.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::types::{EncodingType, Object as Listed};

use super::upload::MAX_UPLOAD;
use super::{Operation, S3, fault, http_date, unlogged};
use crate::storage::key::is_segment;
use crate::storage::{Entry, Error, ErrorKind, Facts, List, Object, Page, Result};

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
    let mut token = None;
    loop {
        let (answer, now) = ask(s3, list, &base, limit, token).await?;
        let more = answer.is_truncated() == Some(true);
        let now = now.filter(|_| list.facts);
        let mut entries = entries(&answer, &base, now);
        if let Some(after) = &list.after {
            entries.retain(|entry| entry > after);
        }
        // What others put there may fill a page of which nothing is left.
        if !entries.is_empty() || !more {
            return Ok(Page { entries, more, now });
        }
        token = answer.next_continuation_token;
        if token.is_none() {
            let what = "this server says that a list goes on, and not how";
            return Err(Error::new(ErrorKind::Unsupported, what));
        }
    }
}

/// One request, and the server's time when it answered.
async fn ask(
    s3: &S3,
    list: &List<'_>,
    base: &str,
    limit: usize,
    token: Option<String>,
) -> Result<(ListObjectsV2Output, Option<SystemTime>)> {
    let (prefix, token) = (&format!("{base}{}", list.prefix), &token);
    let after = &list.after.as_ref().map(|after| match after {
        Entry::Object(object) => format!("{base}{}", object.name),
        Entry::Dir(name) => format!("{base}{name}/{LAST}"),
    });
    let ask = || async move {
        let time = ServerTime::default();
        let ask = s3
            .client()
            .list_objects_v2()
            .bucket(&s3.settings().bucket)
            .prefix(prefix)
            .delimiter("/")
            // Keys of others may hold what XML cannot.
            .encoding_type(EncodingType::Url)
            .max_keys(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_start_after(after.clone().filter(|_| token.is_none()))
            .set_continuation_token(token.clone());
        let ask = ask.customize().interceptor(time.clone());
        match unlogged(ask.send()).await {
            Ok(answer) => Ok((answer, time.0.get().copied())),
            Err(error) => Err(fault(&LIST, &error)),
        }
    };
    s3.call(&LIST, prefix, 0, ask).await
}

/// What the answer has directly under `base`, objects and directories merged. What cannot be a key of ours is passed over.
fn entries(answer: &ListObjectsV2Output, base: &str, now: Option<SystemTime>) -> Vec<Entry> {
    let name = |key: Option<&str>| {
        let key = decode(key?)?;
        key.strip_prefix(base).map(str::to_owned)
    };
    let objects = answer.contents().iter().filter_map(|listed| {
        let name = name(listed.key()).filter(|name| is_segment(name))?;
        let facts = now.and_then(|now| facts(listed, now));
        Some(Entry::Object(Object { name, facts }))
    });
    let dirs = answer.common_prefixes().iter().filter_map(|dir| {
        let name = name(dir.prefix())?;
        let name = name.strip_suffix('/').filter(|name| is_segment(name))?;
        Some(Entry::Dir(name.into()))
    });
    let mut entries: Vec<_> = objects.chain(dirs).collect();
    entries.sort();
    entries
}

/// S3 cuts times to seconds, and dates what came in parts by when its upload began: so an object may be younger than it looks
/// by as long as an upload may take.
fn facts(listed: &Listed, now: SystemTime) -> Option<Facts> {
    let modified = SystemTime::try_from(*listed.last_modified()?).ok()?;
    let in_parts = listed.e_tag().is_none_or(|tag| tag.contains('-'));
    let slack = match in_parts {
        true => MAX_UPLOAD,
        false => Duration::from_secs(1),
    };
    Some(Facts {
        size: u64::try_from(listed.size()?).ok()?,
        created: modified.checked_add(slack)?.min(now.max(modified)),
    })
}

/// A key as it was before the server made it fit for XML.
fn decode(key: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes().iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// Reads the server's clock from its answer.
#[derive(Clone, Debug, Default)]
struct ServerTime(Arc<OnceLock<SystemTime>>);

impl Intercept for ServerTime {
    fn name(&self) -> &'static str {
        "ServerTime"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> std::result::Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date").and_then(http_date) {
            // A call has one answer.
            let _ = self.0.set(date);
        }
        Ok(())
    }
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
        assert_eq!(entries(&answer, "p/", None), expected);
    }

    #[test]
    fn what_others_put_in_the_bucket_is_passed_over() {
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
    fn an_object_never_looks_older_than_it_is() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let created = |listed: &Listed, now| facts(listed, now).expect("facts").created;
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(
            created(&listed("a"), now),
            modified + Duration::from_secs(1)
        );
        let mut in_parts = listed("a");
        in_parts.e_tag = Some("\"0123-7\"".into());
        assert_eq!(created(&in_parts, now), modified + MAX_UPLOAD);
        assert_eq!(
            created(&in_parts, modified),
            modified,
            "and not of the future"
        );
    }
}
