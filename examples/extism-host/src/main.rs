//! A host of Extism plugins, which are core modules. They keep their state in a store of Persist.
//!
//! `extism-host PLUGIN STORE [LIMIT=VALUE...]` reads lines `FUNCTION INPUT`, calls the function of
//! the plugin in a new instance, and prints its output. The agent is the name of the plugin's file.
//!
//! A plugin imports two functions:
//!
//! | function | takes | returns |
//! |---|---|---|
//! | `persist_load` | a name | a line of JSON, and the state after it |
//! | `persist_save` | a name, a state, and the version that must be the newest: -1 for any, 0 for none | a line of JSON |
//!
//! The line is `{"version":3}`, `{"version":null}` if nothing is saved, or
//! `{"error":"conflict","message":"..."}`.

use std::path::PathBuf;
use std::time::Duration;
use std::{env, fs, io};

use anyhow::{Context as _, Result};
use extism::{CompiledPlugin, Manifest, Plugin, PluginBuilder, UserData, ValType, Wasm, host_fn};
use persist_host::guest::{Guest, GuestError, Limits};
use persist_host::snapshot::{Expect, SaveOptions, Store};
use persist_host::storage::StorageConfig;
use serde_json::json;
use tokio::runtime::Runtime;

/// Pages of 64 KiB that a plugin may have.
const MAX_PAGES: u32 = 1024;

/// A plugin's view of the store. Host functions of Extism are synchronous, and calls of a guest are
/// not.
struct State {
    guest: Guest,
    runtime: Runtime,
}

host_fn!(persist_load(state: State; name: String) -> Vec<u8> {
    let state = state.get()?;
    let state = state.lock().map_err(|_| extism::Error::msg("a call panicked"))?;
    let found = state.runtime.block_on(state.guest.load(&name, None));
    Ok(match found {
        Ok(Some(found)) => {
            let mut answer = version(Some(found.info.version));
            answer.extend_from_slice(&found.state);
            answer
        }
        Ok(None) => version(None),
        Err(error) => failure(&error),
    })
});

host_fn!(persist_save(state: State; name: String, value: Vec<u8>, expect: i64) -> Vec<u8> {
    let state = state.get()?;
    let state = state.lock().map_err(|_| extism::Error::msg("a call panicked"))?;
    let expect = match u64::try_from(expect) {
        Err(_) => Expect::Any,
        Ok(0) => Expect::Absent,
        Ok(version) => Expect::Version(version),
    };
    let saved = state.guest.save(&name, value.into(), SaveOptions::expecting(expect));
    Ok(match state.runtime.block_on(saved) {
        Ok(info) => version(Some(info.version)),
        Err(error) => failure(&error),
    })
});

fn version(version: Option<u64>) -> Vec<u8> {
    format!("{}\n", json!({ "version": version })).into()
}

fn failure(error: &GuestError) -> Vec<u8> {
    let code = match error {
        GuestError::Conflict { .. } => "conflict",
        GuestError::NotFound => "not-found",
        GuestError::Denied { .. } => "denied",
        GuestError::TooLarge { .. } => "too-large",
        GuestError::QuotaExceeded { .. } => "quota-exceeded",
        GuestError::Invalid(_) => "invalid",
        GuestError::Corrupt(_) => "corrupt",
        GuestError::Throttled { .. } => "throttled",
        GuestError::Unavailable(_) => "unavailable",
        GuestError::Timeout => "timeout",
        GuestError::UnknownOutcome { .. } => "unknown-outcome",
        GuestError::Other { code, .. } => code,
    };
    format!(
        "{}\n",
        json!({ "error": code, "message": error.to_string() })
    )
    .into()
}

fn main() -> Result<()> {
    let mut args = env::args_os().skip(1);
    let usage = "usage: extism-host PLUGIN STORE [LIMIT=VALUE...]";
    let plugin = PathBuf::from(args.next().context(usage)?);
    let store = Store::new(StorageConfig::local(args.next().context(usage)?).build()?);
    let mut limits = Limits::default();
    for limit in args {
        let limit = limit.to_string_lossy();
        let (name, value) = limit.split_once('=').context(usage)?;
        limits.set(name, value)?;
    }
    let agent = plugin.file_stem().context(usage)?.to_string_lossy();
    let scope = store.scope(&agent, None)?;
    let guest = Guest::builder(scope).limits(limits).build();
    let plugin = compile(fs::read(&plugin)?, guest)?;
    for line in io::stdin().lines() {
        let line = line?;
        let (function, input) = line.split_once(' ').unwrap_or((&line, ""));
        // Each call has an instance of its own: a plugin remembers only what it saves.
        let called = Plugin::new_from_compiled(&plugin)
            .and_then(|mut plugin| plugin.call::<&str, String>(function, input));
        match called {
            Ok(output) => println!("{output}"),
            Err(error) => println!("failed: {error:#}"),
        }
    }
    Ok(())
}

/// Compiles a plugin, whose instances have the view of one guest.
fn compile(plugin: Vec<u8>, guest: Guest) -> Result<CompiledPlugin> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let state = UserData::new(State { guest, runtime });
    let manifest = Manifest::new([Wasm::data(plugin)])
        .with_memory_max(MAX_PAGES)
        .with_timeout(Duration::from_secs(30));
    // Extism passes the address of each value.
    let address = || ValType::I64;
    PluginBuilder::new(manifest)
        .with_function(
            "persist_load",
            [address()],
            [address()],
            state.clone(),
            persist_load,
        )
        .with_function(
            "persist_save",
            [address(), address(), address()],
            [address()],
            state,
            persist_save,
        )
        .compile()
}
