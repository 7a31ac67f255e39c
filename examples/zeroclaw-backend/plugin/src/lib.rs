//! A tool that keeps notes in the durable state of ZeroClaw. Its arguments name a call of the
//! interface `state`, or `count`, which adds one to a number.

// `cargo xtask guests` links `wit` to the WIT of the crate zeroclaw-plugins.
wit_bindgen::generate!({
    path: "wit",
    world: "tool-plugin",
    features: ["plugins-wit-v0"],
});

use exports::zeroclaw::plugin::{plugin_info, tool};
use serde_json::Value;
use zeroclaw::plugin::state::{self, StateError};

struct Notebook;

impl plugin_info::Guest for Notebook {
    fn plugin_name() -> String {
        "notebook".into()
    }

    fn plugin_version() -> String {
        env!("CARGO_PKG_VERSION").into()
    }
}

impl tool::Guest for Notebook {
    fn name() -> String {
        "notebook".into()
    }

    fn description() -> String {
        "Keeps notes".into()
    }

    fn parameters_schema() -> String {
        r#"{"type": "object", "required": ["call", "key"]}"#.into()
    }

    fn execute(args: String) -> Result<tool::ToolResult, String> {
        let args = serde_json::from_str(&args).map_err(|error| error.to_string())?;
        let (output, error) = match call(&args) {
            Ok(output) => (output, None),
            Err(error) => (String::new(), Some(text(error).into())),
        };
        Ok(tool::ToolResult {
            success: error.is_none(),
            output,
            error,
        })
    }
}

fn call(args: &Value) -> Result<String, StateError> {
    let key = args["key"].as_str().unwrap_or_default();
    let expected = args["expected"].as_u64();
    match args["call"].as_str() {
        Some("get") => Ok(state::get(key)?.map_or("none".into(), |entry| {
            let value = String::from_utf8_lossy(&entry.value);
            format!("{} at {}", value, entry.revision)
        })),
        Some("put") => {
            let value = args["value"].as_str().unwrap_or_default();
            let revision = state::put(key, value.as_bytes(), expected)?;
            Ok(revision.to_string())
        }
        Some("delete") => {
            state::delete(key, expected.unwrap_or_default())?;
            Ok("deleted".into())
        }
        Some("count") => {
            let entry = state::get(key)?;
            let value = entry.as_ref().map_or(0, |entry| number(&entry.value)) + 1;
            let revision = entry.map(|entry| entry.revision);
            state::put(key, value.to_string().as_bytes(), revision)?;
            Ok(value.to_string())
        }
        _ => Ok("no such call".into()),
    }
}

fn number(value: &[u8]) -> u64 {
    String::from_utf8_lossy(value).parse().unwrap_or(0)
}

fn text(error: StateError) -> &'static str {
    match error {
        StateError::InvalidKey => "invalid-key",
        StateError::AccessDenied => "access-denied",
        StateError::NotFound => "not-found",
        StateError::Conflict => "conflict",
        StateError::QuotaExceeded => "quota-exceeded",
        StateError::Unavailable => "unavailable",
    }
}

export!(Notebook);
