//! States that are JSON: any type of yours that serde knows. Feature `serde`.
//!
//! The functions are those of the crate, with a value in place of bytes. This agent keeps a list of
//! what to do:
//!
//! ```
//! use persist_guest::{Error, agent, json};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Deserialize, Serialize)]
//! #[serde(deny_unknown_fields)]
//! struct Plan {
//!     todo: Vec<String>,
//! }
//!
//! fn run(args: Vec<String>) -> Result<String, Error> {
//!     let mut plan: Plan = json::load("plan")?.unwrap_or_default();
//!     plan.todo.extend(args);
//!     json::save("plan", &plan)?;
//!     Ok(plan.todo.join("\n"))
//! }
//!
//! agent!(run);
//!
//! # fn main() -> Result<(), Error> {
//! run(vec!["buy milk".into()])?;
//! assert_eq!(run(vec!["call Ann".into()])?, "buy milk\ncall Ann");
//! # Ok(()) }
//! ```
//!
//! # What JSON does to a value
//! - A field that your type does not know is skipped, so the next save is without it. With
//!   `deny_unknown_fields`, as above, a state that a later agent wrote is [`Error::Unreadable`]
//!   instead, and stays.
//! - A new field needs `#[serde(default)]`, else the states from before it are unreadable.
//! - Finite numbers come back exactly. JSON has no NaN and no infinity: they are saved as `null`,
//!   and a `null` is no number when it is loaded. Let such a field be an `Option`.
//! - Numbers beyond 64 bits are for Rust alone; many readers of JSON round what is beyond 53.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Expect, Info, SaveOptions, Version};

const MEDIA_TYPE: &str = "application/json";

/// One version with the value that its state is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot<T> {
    /// Information about the version.
    pub info: Info,
    /// Saved value.
    pub value: T,
}

/// Saves `value` as the next version of `name`, whatever the head is, with the media type
/// `application/json`.
///
/// The JSON is indented, for the people who look at it with `zcat` and compare two versions line by
/// line. For a state of many megabytes give `serde_json` a [`Writer`](crate::Writer) instead.
///
/// # Errors
/// Errors of [`save`](crate::save), and [`Error::Invalid`] for a value that JSON cannot hold, such
/// as a map whose keys are not text.
pub fn save<T: Serialize + ?Sized>(name: &str, value: &T) -> Result<Info, Error> {
    save_with(name, value, &SaveOptions::new())
}

/// Saves `value` as the next version of `name`, with an expectation or labels. A media type of your
/// own, such as `application/geo+json`, is kept.
///
/// ```
/// use persist_guest::{Error, Expect, SaveOptions, json};
///
/// let primes = json::load_snapshot::<Vec<u32>>("primes", None)?;
/// let head = primes.map(|snapshot| snapshot.info.version);
/// let options = SaveOptions::new().expect(Expect::head(head)).label("count", "3");
/// let info = json::save_with("primes", &[2, 3, 5], &options)?;
/// assert_eq!(info.media_type.as_deref(), Some("application/json"));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`save`], and [`Error::Conflict`] where the expectation does not hold.
pub fn save_with<T: Serialize + ?Sized>(
    name: &str,
    value: &T,
    options: &SaveOptions,
) -> Result<Info, Error> {
    let state = encode(value)?;
    match options.media_type {
        Some(_) => crate::save_with(name, state, options),
        None => crate::save_with(name, state, &options.clone().media_type(MEDIA_TYPE)),
    }
}

/// Loads the value at the head of `name`. `None`: nothing was saved, or it was deleted.
///
/// # Errors
/// Errors of [`load`](crate::load), and [`Error::Unreadable`] where the state is not a `T`. It
/// stays as it is.
pub fn load<T: DeserializeOwned>(name: &str) -> Result<Option<T>, Error> {
    Ok(load_snapshot(name, None)?.map(|snapshot| snapshot.value))
}

/// Loads the head of `name`, or version `at`, with what is known of it. `None`: nothing was saved,
/// or it is a tombstone.
///
/// Where the head cannot be read, an older version may be:
///
/// ```
/// use persist_guest::{Error, history, json, save};
///
/// json::save("mood", "good")?;
/// save("mood", "{ half a")?;
///
/// assert!(matches!(json::load::<String>("mood"), Err(Error::Unreadable { version: 2, .. })));
/// let readable = history("mood").find_map(|info| {
///     json::load_snapshot::<String>("mood", Some(info.ok()?.version)).ok()?
/// });
/// assert_eq!(readable.map(|snapshot| snapshot.value).as_deref(), Some("good"));
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// As [`load`], and [`Error::NotFound`] where there is no version `at`.
pub fn load_snapshot<T: DeserializeOwned>(
    name: &str,
    at: Option<Version>,
) -> Result<Option<Snapshot<T>>, Error> {
    let Some(crate::Snapshot { info, state }) = crate::load_snapshot(name, at)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&state) {
        Ok(value) => Ok(Some(Snapshot { info, value })),
        Err(error) => Err(Error::Unreadable {
            name: info.name,
            version: info.version,
            why: error.to_string(),
        }),
    }
}

/// Loads the value at the head of `name`, has `change` change it, and saves it, if the head is
/// still what was loaded. Returns what `change` returned.
///
/// If another run saves meanwhile, this begins again, and `change` is called again, at most ten
/// times; then it fails with [`Error::Conflict`]. Where nothing was saved, `change` gets the
/// default of the type. Where the value is the same afterwards, nothing is saved. An error that
/// `change` returns ends the update.
///
/// ```
/// use persist_guest::{Error, json};
///
/// let count = json::update("plan", |todo: &mut Vec<String>| {
///     todo.push("buy milk".into());
///     Ok::<_, Error>(todo.len())
/// })?;
/// assert_eq!(count, 1);
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
/// Errors of [`load`] and [`save_with`], and those that `change` returns.
pub fn update<T, R, E>(name: &str, change: impl FnMut(&mut T) -> Result<R, E>) -> Result<R, E>
where
    T: Default + Serialize + DeserializeOwned,
    E: From<Error>,
{
    update_with(name, &SaveOptions::new(), change)
}

/// Changes a value as [`update`] does, and saves it with a media type or labels. The expectation of
/// `options` must be [`Expect::Any`].
///
/// # Errors
/// Errors of [`update`].
pub fn update_with<T, R, E>(
    name: &str,
    options: &SaveOptions,
    mut change: impl FnMut(&mut T) -> Result<R, E>,
) -> Result<R, E>
where
    T: Default + Serialize + DeserializeOwned,
    E: From<Error>,
{
    crate::retry_conflicts(options, |options| {
        let (head, value) = load_snapshot::<T>(name, None)?
            .map(|snapshot| (snapshot.info.version, snapshot.value))
            .unzip();
        let mut value = value.unwrap_or_default();
        let before = encode(&value)?;
        let returned = change(&mut value)?;
        if encode(&value)? == before {
            return Ok(Ok(returned));
        }
        let options = options.clone().expect(Expect::head(head));
        Ok(save_with(name, &value, &options).map(|_| returned))
    })
}

pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec_pretty(value)
        .map_err(|error| Error::Invalid(format!("JSON cannot hold this value: {error}")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde::Deserialize;

    use super::*;
    use crate::{delete, double, stat};

    #[derive(Debug, Deserialize, PartialEq, Serialize)]
    struct Mood {
        of: String,
        warmth: f64,
    }

    fn mood(of: &str, warmth: f64) -> Mood {
        Mood {
            of: of.into(),
            warmth,
        }
    }

    #[test]
    fn a_value_comes_back_as_it_was_saved() -> Result<(), Error> {
        assert_eq!(load::<Mood>("mood")?, None);
        let first = save("mood", &mood("Ann", 0.5))?;
        assert_eq!(first.media_type.as_deref(), Some("application/json"));
        save("mood", &mood("Bo \u{1f427}\n\"", -0.0))?;
        assert_eq!(load("mood")?, Some(mood("Bo \u{1f427}\n\"", -0.0)));
        let old = load_snapshot::<Mood>("mood", Some(1))?.expect("it was saved");
        assert_eq!((old.info, old.value), (first, mood("Ann", 0.5)));
        delete("mood", Expect::Any)?;
        assert_eq!(load::<Mood>("mood")?, None);
        Ok(())
    }

    #[test]
    fn finite_numbers_come_back_exactly() -> Result<(), Error> {
        // A generator, so that the same numbers fail again.
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        let numbers: Vec<f64> = std::iter::repeat_with(|| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            f64::from_bits(x)
        })
        .filter(|number| number.is_finite())
        .take(10_000)
        .collect();
        save("numbers", &numbers)?;
        let loaded: Vec<f64> = load("numbers")?.expect("it was saved");
        for (loaded, saved) in loaded.iter().zip(&numbers) {
            assert_eq!(loaded.to_bits(), saved.to_bits(), "{saved:e}");
        }
        save("largest", &(u64::MAX, i64::MIN))?;
        assert_eq!(load("largest")?, Some((u64::MAX, i64::MIN)));
        Ok(())
    }

    #[test]
    fn a_state_that_is_something_else_is_named_and_left_alone() -> Result<(), Error> {
        save("mood", &mood("Ann", 0.5))?;
        for foreign in [
            &b""[..],
            b"{ half a",
            b"[]",
            b"{\"of\":\"Ann\"}",
            b"\xff",
            b"{\"of\":\"Ann\",\"warmth\":1} and more",
        ] {
            let head = crate::save("mood", foreign)?;
            let error = load::<Mood>("mood").expect_err("it is no Mood");
            assert!(
                matches!(&error, Error::Unreadable { name, version, .. }
                    if name == "mood" && *version == head.version),
                "{error:?}"
            );
            let told = error.to_string();
            let named = format!("version {} of mood", head.version);
            assert!(
                told.contains(&named) && told.contains("left as it is"),
                "{told}"
            );
            assert_eq!(stat("mood", None)?, Some(head));
            assert_eq!(crate::load("mood")?.as_deref(), Some(foreign));
        }
        let old = load_snapshot("mood", Some(1))?.map(|old| old.value);
        assert_eq!(old, Some(mood("Ann", 0.5)));
        Ok(())
    }

    #[test]
    fn a_value_that_json_cannot_hold_is_refused_and_nothing_is_saved() -> Result<(), Error> {
        let refused = save("pairs", &HashMap::from([((1, 2), 3)]));
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        assert_eq!(stat("pairs", None)?, None);
        Ok(())
    }

    type Words = Vec<String>;

    fn add(word: &str) -> Result<usize, Error> {
        update("words", |words: &mut Words| {
            words.push(word.into());
            Ok(words.len())
        })
    }

    #[test]
    fn an_update_changes_what_is_saved_and_returns_what_the_function_returned() -> Result<(), Error>
    {
        assert_eq!((add("a")?, add("b")?), (1, 2));
        assert_eq!(load::<Words>("words")?, Some(vec!["a".into(), "b".into()]));
        delete("words", Expect::Any)?;
        assert_eq!(add("c")?, 1);
        assert_eq!(stat("words", None)?.map(|info| info.version), Some(4));
        Ok(())
    }

    #[test]
    fn an_update_that_loses_a_race_begins_again_and_loses_nothing() -> Result<(), Error> {
        let mut races = 3;
        update("words", |words: &mut Words| {
            if races > 0 {
                races -= 1;
                save("words", &[words.clone(), vec!["other".into()]].concat())?;
            }
            words.push("mine".into());
            Ok::<_, Error>(())
        })?;
        let words: Words = load("words")?.expect("saved");
        assert_eq!(words, ["other", "other", "other", "mine"]);
        Ok(())
    }

    #[test]
    fn an_update_that_always_loses_is_a_conflict_after_ten_attempts() -> Result<(), Error> {
        let mut calls = 0;
        let lost = update("words", |words: &mut Words| {
            calls += 1;
            save("words", &vec!["other"; calls])?;
            words.push("mine".into());
            Ok::<_, Error>(())
        });
        assert_eq!((lost, calls), (Err(Error::Conflict(Some(10))), 10));
        Ok(())
    }

    #[test]
    fn an_update_without_a_change_or_with_an_error_saves_nothing() -> Result<(), Error> {
        update("words", |_: &mut Words| Ok::<_, Error>(()))?;
        assert_eq!(stat("words", None)?, None);
        let failed = update("words", |words: &mut Words| {
            words.push("mine".into());
            Err::<(), _>(Error::Other {
                code: "own".into(),
                message: "no luck".into(),
            })
        });
        assert!(matches!(failed, Err(Error::Other { .. })), "{failed:?}");
        assert_eq!(stat("words", None)?, None);
        double::fail_next(Error::Timeout);
        assert_eq!(add("a"), Err(Error::Timeout));
        let options = SaveOptions::new().expect(Expect::Absent);
        let refused = update_with("words", &options, |_: &mut Words| Ok::<_, Error>(()));
        assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        Ok(())
    }

    #[test]
    fn options_are_kept() -> Result<(), Error> {
        let options = SaveOptions::new()
            .expect(Expect::Absent)
            .media_type("application/geo+json")
            .label("turn", "1");
        let info = save_with("map", &[1.5, 2.5], &options)?;
        assert_eq!(info.media_type.as_deref(), Some("application/geo+json"));
        assert_eq!(info.label("turn"), Some("1"));
        let again = save_with("map", &[1.5, 2.5], &options);
        assert_eq!(again, Err(Error::Conflict(Some(1))));
        Ok(())
    }
}
