//! Makes one call of Spin's interfaces: the arguments are interface, function, bucket, and what the
//! function takes.

use spin_sdk::key_value::{Error, Store};
use spin_sdk::wit::wasi::keyvalue::{atomics, batch, store};

mod agent {
    wit_bindgen::generate!({
        inline: "
            package test:spin-guest;
            world guest {
                export run: func(args: list<string>) -> result<string, string>;
            }
        ",
    });

    struct Agent;

    impl Guest for Agent {
        fn run(args: Vec<String>) -> Result<String, String> {
            super::run(&args)
        }
    }

    export!(Agent);
}

fn run(args: &[String]) -> Result<String, String> {
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match &args[..] {
        ["spin", function, bucket, rest @ ..] => spin(function, bucket, rest),
        ["draft2", function, bucket, rest @ ..] => draft2(function, bucket, rest),
        _ => Err("no such interface".into()),
    }
}

fn spin(function: &str, bucket: &str, rest: &[&str]) -> Result<String, String> {
    let told = |error: Error| match error {
        Error::StoreTableFull => "store table full".into(),
        Error::NoSuchStore => "no such store".into(),
        Error::AccessDenied => "access denied".into(),
        Error::Other(what) => what,
    };
    let store = Store::open(bucket).map_err(told)?;
    match (function, rest) {
        ("get", [key]) => {
            let value = store.get(key).map_err(told)?;
            Ok(value.map_or("none".into(), |value| shown(&value)))
        }
        ("set", [key, value]) => {
            store.set(key, value.as_bytes()).map_err(told)?;
            Ok("set".into())
        }
        ("delete", [key]) => store.delete(key).map(|()| "deleted".into()).map_err(told),
        ("exists", [key]) => store.exists(key).map(|is| is.to_string()).map_err(told),
        ("keys", []) => Ok(store.get_keys().map_err(told)?.join(" ")),
        ("open-many", [count]) => {
            let count: usize = count.parse().map_err(|_| "no number")?;
            let stores: Result<Vec<_>, _> = (0..count).map(|_| Store::open(bucket)).collect();
            stores.map(|stores| stores.len().to_string()).map_err(told)
        }
        _ => Err("no such function".into()),
    }
}

fn draft2(function: &str, bucket: &str, rest: &[&str]) -> Result<String, String> {
    let told = |error: store::Error| match error {
        store::Error::NoSuchStore => "no such store".into(),
        store::Error::AccessDenied => "access denied".into(),
        store::Error::Other(what) => what,
    };
    let bucket = store::open(bucket).map_err(told)?;
    match (function, rest) {
        ("get-many", keys) => {
            let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
            let values = batch::get_many(&bucket, &keys).map_err(told)?;
            let values = values.iter().map(|(key, value)| {
                let value = value.as_ref().map_or("none".into(), |value| shown(value));
                format!("{key}={value}")
            });
            Ok(values.collect::<Vec<_>>().join(" "))
        }
        ("increment", [key, delta]) => {
            let delta = delta.parse().map_err(|_| "no number")?;
            let value = atomics::increment(&bucket, key, delta).map_err(told)?;
            Ok(value.to_string())
        }
        // Swaps a value that another call changed and changed back since it was looked at, then
        // again with the handle that the conflict returned.
        ("swap-late", [key, value]) => {
            let cas = atomics::Cas::new(&bucket, key).map_err(told)?;
            let before = cas.current().map_err(told)?;
            bucket.set(key, b"meanwhile").map_err(told)?;
            match &before {
                Some(before) => bucket.set(key, before).map_err(told)?,
                None => bucket.delete(key).map_err(told)?,
            }
            let found = match atomics::swap(cas, value.as_bytes()) {
                Ok(()) => return Err("a change in between was not seen".into()),
                Err(atomics::CasError::StoreError(error)) => return Err(told(error)),
                Err(atomics::CasError::CasFailed(found)) => found,
            };
            let now = found.current().map_err(told)?;
            if now != before {
                return Err("the conflict returned another value".into());
            }
            match atomics::swap(found, value.as_bytes()) {
                Ok(()) => Ok("swapped after a conflict".into()),
                Err(_) => Err("the second swap failed".into()),
            }
        }
        _ => Err("no such function".into()),
    }
}

fn shown(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
