//! Header of a store: the object that says which format and suffix it has.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::snapshot::layout::{STORE_HEADER, STORE_HEADER_NAME, VERSION_SUFFIX, own_key};
use crate::snapshot::{Error, Result};
use crate::storage::{ErrorKind, ReadRange, Storage};

/// The file is some hundred bytes; more is not ours.
const MAX_FILE: u64 = 64 * 1024;

const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct StoreHeader {
    format: u32,
    // A later format may do without these.
    #[serde(default)]
    suffix: String,
    #[serde(default)]
    created_by: String,
}

/// Returns true if a store exists; refuses one that this build cannot understand.
pub(crate) async fn check(storage: &dyn Storage) -> Result<bool> {
    let part = match storage
        .read(&own_key(STORE_HEADER_NAME)?, ReadRange::Suffix(MAX_FILE))
        .await
    {
        Ok(part) => part,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let place = format!("{STORE_HEADER} in {}", storage.location());
    let found: StoreHeader = serde_json::from_slice(&part.bytes).map_err(|error| {
        if is_of_another_service(&part.bytes) {
            let what = "another service answers, such as the login page of a network";
            return Error::unsupported(what)
                .with_hint("check the location and its endpoint")
                .at(&place);
        }
        Error::corrupt(format!("not a store header: {error}")).at(&place)
    })?;
    if found.format != FORMAT || found.suffix != VERSION_SUFFIX {
        let what = format!(
            "this store has format {} and suffix {:?}, and this version of Persist uses format \
             {FORMAT} and suffix {VERSION_SUFFIX:?}",
            found.format, found.suffix
        );
        return Err(Error::unsupported(what)
            .with_hint("use the version of Persist that created the store, or another location")
            .at(place));
    }
    Ok(true)
}

/// Returns true for a page of HTML or XML, and for JSON that says no format: a server that is no
/// storage answers any request with these.
fn is_of_another_service(body: &[u8]) -> bool {
    let is_page = body.trim_ascii_start().starts_with(b"<");
    let json = serde_json::from_slice::<serde_json::Value>(body).ok();
    is_page || json.is_some_and(|json| json.get("format").is_none())
}

/// Returns the bytes of the header of a new store.
pub(crate) fn header() -> Bytes {
    let header = StoreHeader {
        format: FORMAT,
        suffix: VERSION_SUFFIX.into(),
        created_by: concat!("persist ", env!("CARGO_PKG_VERSION")).into(),
    };
    let mut json = serde_json::to_vec_pretty(&header).expect("text and numbers are JSON");
    json.push(b'\n');
    json.into()
}
