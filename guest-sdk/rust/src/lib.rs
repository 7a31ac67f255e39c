//! Saves and loads the state of a sandboxed WebAssembly agent through a Persist host.
//!
//! An agent is one function and one line. This one counts its runs:
//!
//! ```
//! use persist_guest::{Error, agent, load, save};
//!
//! fn run(_args: Vec<String>) -> Result<String, Error> {
//!     let runs = load("runs")?.map_or(0, |state| state.len()) + 1;
//!     let info = save("runs", vec![b'|'; runs])?;
//!     Ok(format!("run {runs}, saved as version {}", info.version))
//! }
//!
//! agent!(run);
//! ```
//!
//! A save never overwrites: it adds a version. The newest version of a name is its **head**;
//! [`load`] reads the head, [`history`] lists all versions, [`restore`] brings an old one back.
//! Where the host keeps them is not the agent's business: it can name its own states, and nothing
//! else.
//!
//! # Testing it natively
//!
//! On any target but WebAssembly the same calls reach [`double`], a store in memory that keeps the
//! rules of a host. Every test has its own, and begins with nothing saved:
//!
//! ```
//! # use persist_guest::{Error, load, save};
//! # fn run(_args: Vec<String>) -> Result<String, Error> {
//! #     let runs = load("runs")?.map_or(0, |state| state.len()) + 1;
//! #     let info = save("runs", vec![b'|'; runs])?;
//! #     Ok(format!("run {runs}, saved as version {}", info.version))
//! # }
//! // #[test]
//! fn the_second_run_remembers_the_first() {
//!     assert_eq!(run(vec![]).unwrap(), "run 1, saved as version 1");
//!     assert_eq!(run(vec![]).unwrap(), "run 2, saved as version 2");
//! }
//! # the_second_run_remembers_the_first();
//! ```
//!
//! # Two runs at once
//!
//! A plain [`save`] wins over whatever was there. An agent that adds to what it loaded says so, and
//! learns of the other run instead of undoing it:
//!
//! ```
//! use persist_guest::{Error, Expect, SaveOptions, load_snapshot, save, save_with};
//!
//! let loaded = load_snapshot("memory", None)?;
//! let head = loaded.map(|snapshot| snapshot.info.version);
//! save("memory", "from another run")?;
//!
//! let options = SaveOptions::new().expect(Expect::head(head)).media_type("text/plain");
//! assert_eq!(save_with("memory", "from this run", &options), Err(Error::Conflict(Some(1))));
//! # Ok::<(), Error>(())
//! ```
//!
//! # States too large for one call
//!
//! [`save`] and [`load`] carry at most [`Limits::max_inline`] bytes. [`Writer`] and [`Reader`] go
//! up to [`Limits::max_state`], and are `std::io` streams.
//!
//! # Features
//!
//! None by default. `serde` adds the module `json`, which saves and loads values of your own types,
//! and the module `calls`, for agents whose driver calls a model.

#![deny(missing_docs)]

#[cfg(feature = "serde")]
pub mod calls;
#[cfg(not(target_arch = "wasm32"))]
pub mod double;
mod error;
#[cfg(target_arch = "wasm32")]
mod imports;
#[cfg(feature = "serde")]
pub mod json;
mod pages;
mod reader;
mod types;
mod writer;

pub use error::Error;
pub use pages::{History, Names};
pub use reader::Reader;
pub use types::{Expect, Info, Limits, SaveOptions, Snapshot, Version};
pub use writer::Writer;

// The two modules answer the same calls; nothing else in the crate knows which one is there.
#[cfg(not(target_arch = "wasm32"))]
use double as store;
#[cfg(target_arch = "wasm32")]
use imports as store;

/// Saves `state` as the next version of `name`, whatever the head is. Zero bytes are a state.
///
/// Once this returned `Ok`, the version is durable and is never overwritten.
///
/// # Errors
/// [`Error::TooLarge`] above [`Limits::max_inline`] bytes; [`Error::Invalid`] for a name that
/// breaks a rule; [`Error::UnknownOutcome`] where the host could not learn whether it was saved.
pub fn save(name: &str, state: impl AsRef<[u8]>) -> Result<Info, Error> {
    save_with(name, state, &SaveOptions::new())
}

/// Saves `state` as the next version of `name`, with an expectation, a media type or labels.
///
/// ```
/// use persist_guest::{Expect, SaveOptions, save_with};
///
/// let options = SaveOptions::new().expect(Expect::Absent).label("turn", "1");
/// assert_eq!(save_with("memory", "{}", &options)?.label("turn"), Some("1"));
/// # Ok::<(), persist_guest::Error>(())
/// ```
///
/// # Errors
/// As [`save`], and [`Error::Conflict`] where the expectation does not hold.
pub fn save_with(
    name: &str,
    state: impl AsRef<[u8]>,
    options: &SaveOptions,
) -> Result<Info, Error> {
    store::save(name, state.as_ref(), options)
}

/// Loads the state at the head of `name`. `None`: nothing was saved, or it was deleted.
///
/// # Errors
/// [`Error::TooLarge`] above [`Limits::max_inline`] bytes: use [`Reader`]. [`Error::Corrupt`] where
/// what is stored fails verification: an earlier version from [`history`] may be whole.
pub fn load(name: &str) -> Result<Option<Vec<u8>>, Error> {
    Ok(load_snapshot(name, None)?.map(|snapshot| snapshot.state))
}

/// Loads the head of `name`, or version `at`, with what is known of it. `None`: nothing was saved,
/// or it is a tombstone.
///
/// ```
/// use persist_guest::{load_snapshot, save};
///
/// save("memory", "first")?;
/// save("memory", "second")?;
/// let first = load_snapshot("memory", Some(1))?.expect("it was saved");
/// assert_eq!((first.state.as_slice(), first.info.version), (&b"first"[..], 1));
/// # Ok::<(), persist_guest::Error>(())
/// ```
///
/// # Errors
/// As [`load`], and [`Error::NotFound`] where there is no version `at`.
pub fn load_snapshot(name: &str, at: Option<Version>) -> Result<Option<Snapshot>, Error> {
    store::load(name, at)
}

/// Loads the head of `name`, has `change` change its state, and saves it, if the head is still what
/// was loaded. Returns the version that was saved.
///
/// If another run saves meanwhile, this begins again, and `change` is called again, at most ten
/// times; then it fails with [`Error::Conflict`]. `change` gets `None` where nothing was saved, and
/// returns `None` to save nothing. An error that it returns ends the update. Nothing is saved where
/// the bytes are the same as before.
///
/// With the feature `serde`, `json::update` does the same with a value of a type of yours.
///
/// ```
/// use persist_guest::{Error, load, update};
///
/// update("notes", |notes| {
///     let mut notes = notes.unwrap_or_default();
///     notes.extend_from_slice(b"buy milk\n");
///     Ok::<_, Error>(Some(notes))
/// })?;
/// assert_eq!(load("notes")?.as_deref(), Some(&b"buy milk\n"[..]));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Errors of [`load`] and [`save_with`], and those that `change` returns.
pub fn update<E: From<Error>>(
    name: &str,
    change: impl FnMut(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Info>, E> {
    update_with(name, &SaveOptions::new(), change)
}

/// Changes a state as [`update`] does, and saves it with a media type or labels. The expectation of
/// `options` must be [`Expect::Any`].
///
/// # Errors
/// Errors of [`update`].
pub fn update_with<E: From<Error>>(
    name: &str,
    options: &SaveOptions,
    mut change: impl FnMut(Option<Vec<u8>>) -> Result<Option<Vec<u8>>, E>,
) -> Result<Option<Info>, E> {
    retry_conflicts(options, |options| {
        let loaded = load_snapshot(name, None)?;
        let head = loaded.as_ref().map(|snapshot| snapshot.info.version);
        let before = loaded.map(|snapshot| snapshot.state);
        let Some(after) = change(before.clone())? else {
            return Ok(Ok(None));
        };
        if before.as_ref() == Some(&after) {
            return Ok(Ok(None));
        }
        let options = options.clone().expect(Expect::head(head));
        Ok(save_with(name, after, &options).map(Some))
    })
}

/// Repeats an attempt to change a state while its save ends in a conflict.
fn retry_conflicts<T, E: From<Error>>(
    options: &SaveOptions,
    mut attempt: impl FnMut(&SaveOptions) -> Result<Result<T, Error>, E>,
) -> Result<T, E> {
    const ATTEMPTS: u32 = 10;
    if options.expect != Expect::Any {
        let rule = "an update expects the head that it loaded";
        return Err(Error::Invalid(rule.into()).into());
    }
    let mut conflicts = 0;
    loop {
        match attempt(options)? {
            Err(Error::Conflict(_)) if conflicts + 1 < ATTEMPTS => conflicts += 1,
            saved => return Ok(saved?),
        }
    }
}

/// Returns the head of `name` as what a change expects: [`Expect::Absent`] where nothing was saved.
/// A tombstone is a head.
///
/// # Errors
/// Errors of [`stat`].
pub fn head(name: &str) -> Result<Expect, Error> {
    Ok(Expect::head(stat(name, None)?.map(|info| info.version)))
}

/// Returns the information about the head of `name`, or about version `at`, without its state. A
/// tombstone is returned too.
///
/// # Errors
/// [`Error::NotFound`] where there is no version `at`.
pub fn stat(name: &str, at: Option<Version>) -> Result<Option<Info>, Error> {
    store::stat(name, at)
}

/// The versions of `name`, newest first, tombstones too; fetched page by page as the iterator goes
/// on.
///
/// ```
/// use persist_guest::{Expect, delete, history, save};
///
/// save("memory", "first")?;
/// delete("memory", Expect::Any)?;
/// let versions: Vec<_> = history("memory").collect::<Result<_, _>>()?;
/// assert!(versions[0].deleted && versions[1].version == 1);
/// # Ok::<(), persist_guest::Error>(())
/// ```
pub fn history(name: &str) -> History {
    History::new(name)
}

/// One page of [`history`]: versions below `before`, or from the head. It may be shorter than
/// `limit`; only an empty page is the end.
///
/// # Errors
/// [`Error::Invalid`] for a `limit` of 0.
pub fn history_page(name: &str, before: Option<Version>, limit: u32) -> Result<Vec<Info>, Error> {
    store::history(name, before, limit)
}

/// The names that begin with `prefix` ("" for all), deleted ones too, in an order of the host's;
/// fetched page by page as the iterator goes on.
pub fn names(prefix: &str) -> Names {
    Names::new(prefix)
}

/// One page of [`names`]: those that follow `after`, the last name of the page before. It may be
/// shorter than `limit`; only an empty page is the end.
///
/// # Errors
/// [`Error::Invalid`] for a `limit` of 0.
pub fn names_page(prefix: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>, Error> {
    store::names(prefix, after, limit)
}

/// Makes a tombstone the next version of `name`. [`restore`] undoes it until the host prunes.
///
/// # Errors
/// [`Error::NotFound`] where there is nothing to delete; [`Error::Conflict`] where `expect` does
/// not hold.
pub fn delete(name: &str, expect: Expect) -> Result<Info, Error> {
    store::delete(name, expect)
}

/// Saves the state of `version` again, as the next version of `name`.
///
/// ```
/// use persist_guest::{Expect, load, restore, save};
///
/// save("memory", "good")?;
/// save("memory", "bad")?;
/// assert_eq!(restore("memory", 1, Expect::Version(2))?.version, 3);
/// assert_eq!(load("memory")?.as_deref(), Some(&b"good"[..]));
/// # Ok::<(), persist_guest::Error>(())
/// ```
///
/// # Errors
/// [`Error::NotFound`] where there is no such version; [`Error::Conflict`] where `expect` does not
/// hold.
pub fn restore(name: &str, version: Version, expect: Expect) -> Result<Info, Error> {
    store::restore(name, version, expect)
}

/// Saves the state at the head of `name`, or of version `at`, as the next version of `new_name`, of
/// which `expect` speaks.
///
/// # Errors
/// [`Error::NotFound`] where there is no state to fork; [`Error::Conflict`] where `expect` does not
/// hold.
pub fn fork(
    name: &str,
    at: Option<Version>,
    new_name: &str,
    expect: Expect,
) -> Result<Info, Error> {
    store::fork(name, at, new_name, expect)
}

/// Returns the limits that the host sets for this agent.
pub fn limits() -> Limits {
    store::limits()
}

/// Makes a function the agent: `fn(Vec<String>) -> Result<String, E>`, where `E` can be displayed.
///
/// It takes the caller's arguments and returns the answer, or the reason why there is none; both
/// are for people. Return an error rather than panic: a panic ends the agent without a word.
///
/// Once in a crate of `crate-type = ["cdylib"]`. On a target other than WebAssembly it only checks
/// the function's type.
///
/// ```
/// fn run(args: Vec<String>) -> Result<String, Box<dyn std::error::Error>> {
///     let n: u32 = args.first().ok_or("usage: N")?.parse()?;
///     Ok(format!("{}", n + 1))
/// }
///
/// persist_guest::agent!(run);
/// ```
#[macro_export]
macro_rules! agent {
    ($run:path) => {
        const _: () = {
            struct Agent;

            impl $crate::__private::Guest for Agent {
                fn run(
                    args: ::std::vec::Vec<::std::string::String>,
                ) -> ::std::result::Result<::std::string::String, ::std::string::String> {
                    $run(args).map_err(|error| $crate::__reason(&error))
                }
            }

    $crate::__private::export!(Agent with_types_in $crate::__private);
        };
    };
}

/// Returns the text that a caller is told for an error: `{:#}`, which is the whole chain of causes
/// of an error of the crate anyhow.
#[doc(hidden)]
pub fn __reason(error: &impl std::fmt::Display) -> String {
    match format!("{error:#}") {
        words if words.is_empty() => "the agent gave no reason".into(),
        words => words,
    }
}

/// Names of this crate that the expansion of [`agent!`] needs; no other code needs them.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub use imports::generated as __private;

#[doc(hidden)]
#[cfg(not(target_arch = "wasm32"))]
pub mod __private {
    pub trait Guest {
        fn run(args: Vec<String>) -> Result<String, String>;
    }

    #[macro_export]
    #[doc(hidden)]
    macro_rules! __check_agent {
        ($agent:ident with_types_in $path:path) => {
            const _: fn(Vec<String>) -> Result<String, String> =
                <$agent as $crate::__private::Guest>::run;
        };
    }
    pub use __check_agent as export;
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
