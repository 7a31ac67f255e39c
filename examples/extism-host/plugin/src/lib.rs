//! Keeps notes through the functions of `examples/extism-host`. Each export takes words.

use extism_pdk::{FnResult, host_fn, plugin_fn};

#[host_fn]
extern "ExtismHost" {
    fn persist_load(name: String) -> Vec<u8>;
    fn persist_save(name: String, state: Vec<u8>, expect: i64) -> Vec<u8>;
}

/// Loads `NAME`, and returns the line of the host and the state.
#[plugin_fn]
pub fn load(name: String) -> FnResult<String> {
    let answer = unsafe { persist_load(name)? };
    Ok(String::from_utf8_lossy(&answer).replace('\n', " "))
}

/// Saves the text in `NAME EXPECT TEXT`, and returns the line of the host.
#[plugin_fn]
pub fn save(words: String) -> FnResult<String> {
    let mut words = words.splitn(3, ' ');
    let mut next = || words.next().unwrap_or_default().to_owned();
    let (name, expect, text) = (next(), next().parse().unwrap_or(-1), next());
    let answer = unsafe { persist_save(name, text.into_bytes(), expect)? };
    Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
}

/// Adds one to the number under `NAME`, and returns it.
#[plugin_fn]
pub fn count(name: String) -> FnResult<String> {
    let answer = unsafe { persist_load(name.clone())? };
    let answer = String::from_utf8_lossy(&answer);
    let (line, state) = answer.split_once('\n').unwrap_or((&answer, ""));
    let version = line
        .trim_start_matches("{\"version\":")
        .trim_end_matches('}');
    let expect = version.parse().unwrap_or(0);
    let count = state.parse::<u64>().unwrap_or(0) + 1;
    let saved = unsafe { persist_save(name, count.to_string().into_bytes(), expect)? };
    let saved = String::from_utf8_lossy(&saved);
    if saved.starts_with("{\"version\"") {
        Ok(count.to_string())
    } else {
        Ok(saved.trim_end().to_owned())
    }
}
