//! Calls of `wasi:keyvalue@0.2.0-draft2`, as the standard has it.

mod bindings {
    wit_bindgen::generate!({
        path: "../../../host/wit-keyvalue/draft2",
        generate_all,
    });
}

use bindings::wasi::keyvalue::{atomics, batch, store};

fn told(error: store::Error) -> String {
    match error {
        store::Error::NoSuchStore => "no such store".into(),
        store::Error::AccessDenied => "access denied".into(),
        store::Error::Other(what) => what,
    }
}

pub(crate) fn call(function: &str, bucket: &str, rest: &[&str]) -> Result<String, String> {
    let bucket = store::open(bucket).map_err(told)?;
    match (function, rest) {
        ("keys", []) => {
            let mut keys = Vec::new();
            let mut cursor = None;
            loop {
                let page = bucket.list_keys(cursor.as_deref()).map_err(told)?;
                keys.extend(page.keys);
                cursor = page.cursor;
                if cursor.is_none() {
                    return Ok(keys.join(" "));
                }
            }
        }
        ("keys-at", [cursor]) => {
            let page = bucket.list_keys(Some(cursor)).map_err(told)?;
            Ok(page.keys.join(" "))
        }
        ("increment", [key, delta]) => {
            let delta = delta.parse().map_err(|_| "no number")?;
            let value = atomics::increment(&bucket, key, delta).map_err(told)?;
            Ok(value.to_string())
        }
        ("get-many", keys) => {
            let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
            let values = batch::get_many(&bucket, &keys).map_err(told)?;
            let values = values.iter().map(|value| match value {
                Some((key, value)) => format!("{key}={}", String::from_utf8_lossy(value)),
                None => "none".into(),
            });
            Ok(values.collect::<Vec<_>>().join(" "))
        }
        ("swap", [key, value]) => {
            let cas = atomics::Cas::new(&bucket, key).map_err(told)?;
            match atomics::swap(cas, value.as_bytes()) {
                Ok(()) => Ok("swapped".into()),
                Err(atomics::CasError::StoreError(error)) => Err(told(error)),
                Err(atomics::CasError::CasFailed(_)) => Err("conflict".into()),
            }
        }
        _ => Err("no such function".into()),
    }
}
