//! One agent that uses what a host gives a run: its first argument picks a scenario.

#[cfg(target_arch = "wasm32")]
mod http;
#[cfg(target_arch = "wasm32")]
mod scenarios;

#[cfg(target_arch = "wasm32")]
persist_guest::agent!(scenarios::run);
