//! Requests that list objects.

use std::time::SystemTime;

use reqwest::Method;
use serde::Deserialize;

use super::error_response::Operation;
use super::{GcsDriver, Request, encode, whole};
use crate::storage::bucket::{
    After, Attempt, AttemptError, ListRequest, ListResponse, ListedObject, foreign_response,
};
use crate::storage::{Error, ErrorKind, ObjectMeta};

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

impl GcsDriver {
    pub(super) async fn list_objects(&self, list: &ListRequest) -> Attempt<ListResponse> {
        let operation = Operation::of(Request::List);
        let url = self.url("/storage/v1/b/", &query(list));
        let request = self.request(Method::GET, &url);
        let response = self.send(operation, request).await?;
        let date = response.headers().get("date").and_then(|d| d.to_str().ok());
        let now = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let body = whole(response).await.map_err(|why| {
            let what = format!("the response to {} {why}", operation.name);
            AttemptError::unclear(Error::new(ErrorKind::Unavailable, what))
        })?;
        let answer = match serde_json::from_slice::<Answer>(&body) {
            // Any object of JSON could be read as an empty list.
            Ok(answer) if answer.kind == "storage#objects" => answer,
            _ => return Err(foreign_response(operation.name, "is not a list of objects")),
        };
        let objects = answer.items.into_iter().map(|listed| ListedObject {
            meta: now.and_then(|now| object_meta(&listed, now)),
            key: listed.name,
        });
        Ok(ListResponse {
            objects: objects.collect(),
            directories: answer.prefixes,
            more: answer.next_page_token.is_some(),
            token: answer.next_page_token,
            now,
        })
    }
}

fn query(list: &ListRequest) -> String {
    let (delimiter, prefixes) = if list.directories {
        ("delimiter=%2F&", "prefixes,")
    } else {
        ("", "")
    };
    let prefix = encode(&list.prefix);
    let fields = format!("kind,items(name,size,timeCreated),{prefixes}nextPageToken");
    let mut query = format!("/o?{delimiter}fields={fields}&prefix={prefix}");
    let (start, limit) = match &list.after {
        None => (None, list.limit),
        // The list begins with it.
        Some(After::Key(key)) => (Some(key.clone()), list.limit + 1),
        // `0` is what follows `/`.
        Some(After::Directory(dir)) => (Some(format!("{dir}0")), list.limit),
    };
    query += &format!("&maxResults={}", limit.min(MAX_RESULTS));
    for (name, value) in [("startOffset", start), ("pageToken", list.token.clone())] {
        if let Some(value) = value {
            query += &format!("&{name}={}", encode(&value));
        }
    }
    query
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
    fn an_object_is_never_of_the_future() {
        let created = humantime::parse_rfc3339("2026-11-22T20:08:07.123Z").expect("a time");
        let second = std::time::Duration::from_secs(1);
        let meta = |now| object_meta(&listed("a"), now).expect("meta").created;
        assert_eq!(meta(created + second), created);
        assert_eq!(meta(created - second), created - second);
    }
}
