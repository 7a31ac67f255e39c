//! One agent for the tests of the host: its first argument picks a scenario.
//!
//! Answers are plain text to assert on. A change answers `version N`. An error of the store is the
//! name of its case in the contract, then the details: `conflict 3`, `conflict none`, `not-found`,
//! `denied load`, `too-large 123`, `quota-exceeded open-writers 8`, `invalid …`,
//! `throttled none`, `unknown-outcome 7`.
//!
//! Where a scenario makes up a state, the byte at offset `i` is `byte_at(i)`.

mod misbehave;
#[cfg(target_arch = "wasm32")]
mod raw;
#[cfg(target_arch = "wasm32")]
mod script;
mod store;
mod stream;
#[cfg(test)]
mod tests;

use persist_guest::{Error, Info, agent};

agent!(run);

/// The arguments after the scenario's name.
type Args<'a> = &'a [&'a str];
type Answer = Result<String, Failure>;
type Scenario = fn(Args<'_>) -> Answer;

#[rustfmt::skip] // One line each.
const SCENARIOS: &[(&str, Scenario, &str)] = &[
    ("save", store::save, "NAME TEXT"),
    ("save-expect", store::save_expect, "NAME any|absent|VERSION TEXT"),
    ("save-labels", store::save_labels, "NAME TEXT MEDIA-TYPE|- [KEY=VALUE…]"),
    ("big-save", store::big_save, "NAME BYTES"),
    ("zeros-save", store::zeros_save, "NAME BYTES: as big-save, without making the bytes up"),
    ("head", store::head, "NAME -> the version, or absent"),
    ("save-at-head", store::save_at_head, "NAME TEXT"),
    ("update", store::update, "NAME WORD [BESIDE]: adds a word, beside another run"),
    ("calls", store::conversation, "NAME [ARGS…]: a conversation that asks its driver for calls"),
    ("huge-texts", store::huge_texts, "refuses texts that no call carries"),
    ("load", store::load, "NAME [VERSION] -> VERSION TEXT, or none"),
    ("big-load", store::big_load, "NAME -> size N sum FNV1A"),
    ("load-uncaught", store::load_uncaught, "NAME: a version that is not there, in the SDK's \
        words"),
    ("stat", store::stat, "NAME [VERSION] -> one line, or none"),
    ("history", store::history, "NAME [BEFORE LIMIT] -> one line each; a page where LIMIT"),
    ("names", store::names, "PREFIX [LIMIT [AFTER]] -> one name a line; a page where LIMIT"),
    ("delete", store::delete, "NAME [EXPECT]"),
    ("restore", store::restore, "NAME VERSION [EXPECT]"),
    ("fork", store::fork, "NAME NEW-NAME [VERSION]"),
    ("limits", store::limits, "-> one limit a line"),
    ("stream", stream::stream, "NAME CHUNKS SIZE: a write for each chunk"),
    ("stream-mib", stream::stream_mib, "NAME N: N pieces of 1 MiB, each begins with its number"),
    ("stream-expect", stream::stream_expect, "NAME any|absent|VERSION TEXT"),
    ("stream-beside-save", stream::stream_beside_save, "NAME: saves NAME between open and finish"),
    ("read-stream", stream::read_stream, "NAME -> size N sum FNV1A, after a look at the middle"),
    ("copy", stream::copy, "NAME NEW-NAME: from a reader to a writer"),
    ("read-at", stream::read_at, "NAME OFFSET LENGTH -> the text there"),
    ("unfinished", stream::unfinished, "NAME: writes, then drops the writer without finish"),
    ("leaked", stream::leaked, "NAME: the same, and never drops the writer"),
    ("many-writers", stream::many_writers, "NAME N: keeps all open -> opened N, and what ended it"),
    ("many-readers", stream::many_readers, "NAME N: the same with readers"),
    #[cfg(target_arch = "wasm32")]
    ("raw-save", raw::save, "NAME BYTES: one save, whatever the limit -> saved"),
    #[cfg(target_arch = "wasm32")]
    ("raw-write", raw::write, "NAME SIZE: one write, whatever the limit of a chunk -> written"),
    #[cfg(target_arch = "wasm32")]
    ("raw-read", raw::read, "NAME OFFSET LEN: one read, whatever the limit -> size N sum FNV1A"),
    #[cfg(target_arch = "wasm32")]
    ("script", script::script, "LINES…: bare calls, see script.rs -> one answer a line"),
    ("trap-mid-write", stream::trap_mid_write, "NAME: writes, then traps"),
    ("loop-mid-write", stream::loop_mid_write, "NAME MIB: writes MIB, then loops for ever"),
    ("trap", misbehave::trap, ""),
    ("panic", misbehave::panic, ""),
    ("loop", misbehave::spin, "for ever"),
    ("save-and-loop", misbehave::save_and_spin, "NAME TEXT: saves, then loops for ever"),
    ("grow", misbehave::grow, "takes memory until it is refused -> refused after N MiB"),
    ("deep-recursion", misbehave::deep_recursion, "until the stack is full"),
    ("save-deep", misbehave::save_deep, "NAME LEVELS: saves static data after a recursion"),
    ("print", misbehave::print, "TEXT: to its output and error output"),
    ("error", misbehave::error, "TEXT: fails with it"),
    ("echo", misbehave::echo, "ARGS…: answers them, one a line"),
];

fn run(args: Vec<String>) -> Result<String, String> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (name, rest) = args.split_first().ok_or_else(usage)?;
    let (_, scenario, _) = SCENARIOS
        .iter()
        .find(|(known, ..)| known == name)
        .ok_or_else(usage)?;
    scenario(rest).map_err(|failure| match failure {
        Failure::Usage => usage(),
        Failure::Text(text) => text,
        Failure::Store(error) => describe_error(&error),
    })
}

fn usage() -> String {
    let lines = SCENARIOS
        .iter()
        .map(|(name, _, args)| format!("{name} {args}"));
    lines.collect::<Vec<_>>().join("\n")
}

enum Failure {
    Usage,
    Text(String),
    Store(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Store(error.into())
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| Failure::Usage)
}

fn describe_error(error: &Error) -> String {
    let or_none = |number: Option<String>| number.unwrap_or_else(|| "none".into());
    match error {
        Error::Conflict(head) => format!("conflict {}", or_none(head.map(|head| head.to_string()))),
        Error::NotFound => "not-found".into(),
        Error::Denied(right) => format!("denied {right}"),
        Error::TooLarge(size) => format!("too-large {size}"),
        Error::QuotaExceeded { limit, max } => format!("quota-exceeded {limit} {max}"),
        Error::Invalid(rule) => format!("invalid {rule}"),
        Error::Corrupt(found) => format!("corrupt {found}"),
        Error::Throttled(wait) => format!(
            "throttled {}",
            or_none(wait.map(|wait| wait.as_millis().to_string()))
        ),
        Error::Unavailable(reason) => format!("unavailable {reason}"),
        Error::Timeout => "timeout".into(),
        Error::UnknownOutcome(version) => format!("unknown-outcome {version}"),
        Error::Other { code, message } => format!("other {code} {message}"),
        error => format!("unheard-of {error}"),
    }
}

fn describe(info: &Info) -> String {
    let kind = if info.deleted { "deleted" } else { "saved" };
    let parent = info
        .parent
        .map_or("none".into(), |parent| parent.to_string());
    let labels: Vec<_> = info
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    format!(
        "version {} parent {parent} {kind} size {} sha256 {} media-type {} labels {} name {}",
        info.version,
        info.size,
        info.sha256,
        info.media_type.as_deref().unwrap_or("none"),
        if labels.is_empty() {
            "none".into()
        } else {
            labels.join(",")
        },
        info.name,
    )
}

fn version(info: Info) -> Answer {
    Ok(format!("version {}", info.version))
}

/// A byte of a made-up state. It hardly compresses, so that a large state is large at rest too.
fn byte_at(i: u64) -> u8 {
    (i.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8
}

fn bytes(from: u64, len: usize) -> Vec<u8> {
    (from..).take(len).map(byte_at).collect()
}

fn describe_bytes(bytes: &[u8]) -> String {
    format!("size {} sum {:016x}", bytes.len(), fnv1a(bytes))
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, &byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}
