//! Agents that ask their driver to make calls, such as requests to a model. Feature `serde`.
//!
//! An agent has no network of its own. It answers with a call, as JSON. The program that runs it,
//! the driver, makes the call and runs the agent again with `reply`, the call's `id` and the reply.
//! `persist chat --driver PROGRAM` is such a driver. [`run`] saves the pending call with the state,
//! and matches replies to it:
//!
//! ```
//! use persist_guest::calls::{self, Input, Next};
//! use persist_guest::{Error, agent};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Default, Deserialize, Serialize)]
//! struct Chat {
//!     messages: Vec<Message>,
//! }
//!
//! #[derive(Deserialize, Serialize)]
//! struct Message {
//!     role: String,
//!     content: String,
//! }
//!
//! impl Chat {
//!     fn add(&mut self, role: &str, content: String) {
//!         self.messages.push(Message { role: role.into(), content });
//!     }
//!
//!     fn next(&mut self, input: Input<'_>) -> Result<Next, Error> {
//!         match input {
//!             Input::Message(words) => {
//!                 self.add("user", words.join(" "));
//!                 Next::call("model", self)
//!             }
//!             Input::Reply(text) => {
//!                 self.add("assistant", text.into());
//!                 Ok(Next::Answer(text.into()))
//!             }
//!         }
//!     }
//! }
//!
//! fn run(args: Vec<String>) -> Result<String, Error> {
//!     calls::run("chat", &args, Chat::next)
//! }
//!
//! agent!(run);
//!
//! # fn main() -> Result<(), Error> {
//! # let run = |args: &[&str]| run(args.iter().map(ToString::to_string).collect());
//! let call = run(&["what is 2+2?"])?;
//! assert!(call.starts_with(r#"{"call":"model","id":"turn-1","messages":[{"#));
//! assert_eq!(run(&["reply", "turn-1", "4"])?, "4");
//! # Ok(()) }
//! ```

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Error, Expect, SaveOptions, Version, json, stat};

/// Input of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// A message of the user: the arguments of the run.
    Message(&'a [String]),
    /// The driver's reply to the pending call.
    Reply(&'a str),
}

/// Outcome of a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// The turn has ended with this answer.
    Answer(String),
    /// The driver makes this call. The next step gets its reply. Made by [`Next::call`].
    Call(Call),
}

/// A call that the driver makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    kind: String,
    members: Map<String, Value>,
}

impl Next {
    /// Returns a call of a kind that the driver knows, with the fields of `params`. The fields
    /// `call` and `id` are added.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `params` is no struct or map in JSON, or has a field `call` or `id`.
    pub fn call<T: Serialize + ?Sized>(kind: &str, params: &T) -> Result<Self, Error> {
        let members = match serde_json::to_value(params) {
            Ok(Value::Object(members)) => members,
            Ok(_) => return Err(invalid("the parameters of a call are a JSON object".into())),
            Err(error) => return Err(invalid(format!("JSON cannot hold this call: {error}"))),
        };
        if members.contains_key("call") || members.contains_key("id") {
            let rule = "the parameters of a call have no `call` and no `id`, which are added";
            return Err(invalid(rule.into()));
        }
        let kind = kind.into();
        Ok(Self::Call(Call { kind, members }))
    }
}

/// Contents of the snapshot, which are the same in the SDK of every language but C.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Saved<T> {
    state: T,
    pending: Option<Pending>,
    /// Messages that came while a call was pending.
    waiting: Vec<Vec<String>>,
    last: Option<Last>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    id: String,
    message: Vec<String>,
    /// The call as the driver gets it, as text.
    call: String,
}

/// The last call that was replied to, and the answer of its turn.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Last {
    id: String,
    answer: String,
}

/// Takes the arguments of a run, and returns its answer, which may be a call for the driver.
///
/// The state is saved under `name` with the pending call, before the call is returned. A run that
/// is killed, or a driver, loses no turn and doubles none:
///
/// - `["reply", ID, TEXT]` is the reply to a call. A second reply to the same call gets the answer
///   of the first. While another call is pending, that call is returned.
/// - Other arguments are a message. While a call is pending, the same message returns that call
///   again. A different message waits until the call is replied to.
/// - No arguments return the pending call.
///
/// `step` changes the state, and decides what comes next. It may be called again if another run
/// saved meanwhile. An error that it returns ends the run, and nothing is saved.
///
/// An answer that a driver would take for a call is returned with `answer: ` before it.
///
/// # Errors
/// Errors of [`json::load`] and [`json::save_with`], those of `step`, and [`Error::Invalid`] for a
/// reply to a call that was not made, or if there are no arguments and no pending call.
pub fn run<T, E>(
    name: &str,
    args: &[String],
    mut step: impl FnMut(&mut T, Input<'_>) -> Result<Next, E>,
) -> Result<String, E>
where
    T: Default + Serialize + DeserializeOwned,
    E: From<Error>,
{
    crate::retry_conflicts(&SaveOptions::new(), |options| {
        let (mut saved, head) = load::<T>(name)?;
        let known = json::encode(&saved)?;
        let id = format!("turn-{}", head + 1);
        let answer = saved.turn(&id, args, &mut step)?;
        if json::encode(&saved)? == known {
            return Ok(Ok(answer));
        }
        let options = options
            .clone()
            .expect(Expect::head(Some(head).filter(|head| *head > 0)));
        Ok(json::save_with(name, &saved, &options).map(|_| answer))
    })
}

/// Loads what is saved, and the version of the head, 0 where there is none. A tombstone is a head.
fn load<T: Default + DeserializeOwned>(name: &str) -> Result<(Saved<T>, Version), Error> {
    loop {
        if let Some(snapshot) = json::load_snapshot(name, None)? {
            return Ok((snapshot.value, snapshot.info.version));
        }
        let head = stat(name, None)?;
        // A run that saved in between is loaded.
        if head.as_ref().is_none_or(|head| head.deleted) {
            let head = head.map_or(0, |head| head.version);
            return Ok((Saved::default(), head));
        }
    }
}

impl<T> Saved<T> {
    fn turn<E: From<Error>>(
        &mut self,
        id: &str,
        args: &[String],
        step: &mut impl FnMut(&mut T, Input<'_>) -> Result<Next, E>,
    ) -> Result<String, E> {
        if let [reply, replied, text] = args
            && reply == "reply"
        {
            return match self.pending.take() {
                Some(pending) if pending.id == *replied => {
                    let next = step(&mut self.state, Input::Reply(text))?;
                    self.proceed(id, pending.message, Some(pending.id), next, step)
                }
                Some(pending) => Ok(self.pending.insert(pending).call.clone()),
                None => match &self.last {
                    Some(last) if last.id == *replied => Ok(last.answer.clone()),
                    _ => Err(invalid(format!("no call {replied} is pending")).into()),
                },
            };
        }
        if let Some(pending) = &self.pending {
            let latest = self.waiting.last().unwrap_or(&pending.message);
            if !args.is_empty() && latest != args {
                self.waiting.push(args.to_vec());
            }
            return Ok(pending.call.clone());
        }
        if args.is_empty() {
            return Err(invalid("no call is pending; give a message".into()).into());
        }
        let next = step(&mut self.state, Input::Message(args))?;
        self.proceed(id, args.to_vec(), None, next, step)
    }

    /// Keeps the call that comes next, or answers; then the next message that waits has its turn.
    fn proceed<E: From<Error>>(
        &mut self,
        id: &str,
        mut message: Vec<String>,
        replied: Option<String>,
        mut next: Next,
        step: &mut impl FnMut(&mut T, Input<'_>) -> Result<Next, E>,
    ) -> Result<String, E> {
        loop {
            let answer = match next {
                Next::Call(call) => {
                    let call = call.text(id);
                    let id = id.into();
                    return Ok(self
                        .pending
                        .insert(Pending { id, message, call })
                        .call
                        .clone());
                }
                Next::Answer(answer) => told(answer),
            };
            if self.waiting.is_empty() {
                if let Some(id) = replied {
                    let answer = answer.clone();
                    self.last = Some(Last { id, answer });
                }
                return Ok(answer);
            }
            message = self.waiting.remove(0);
            next = step(&mut self.state, Input::Message(&message))?;
        }
    }
}

impl Call {
    fn text(self, id: &str) -> String {
        let members = self
            .members
            .iter()
            .map(|(key, value)| (key.as_str(), value.to_string()));
        let mut text = format!(
            "{{\"call\":{},\"id\":\"{id}\"",
            Value::from(self.kind.as_str())
        );
        for (key, value) in members {
            text += &format!(",{}:{value}", Value::from(key));
        }
        text + "}"
    }
}

/// Returns an answer so that no driver takes it for a call.
fn told(answer: String) -> String {
    if answer.trim_start().starts_with('{') {
        match serde_json::from_str(&answer) {
            Ok(Value::Object(members)) if members.contains_key("call") => {
                return format!("answer: {answer}");
            }
            _ => {}
        }
    }
    answer
}

fn invalid(rule: String) -> Error {
    Error::Invalid(rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{double, history, load};

    #[derive(Default, Deserialize, Serialize)]
    struct Heard {
        texts: Vec<String>,
    }

    fn talk(args: &[&str]) -> Result<String, Error> {
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        run("chat", &args, |heard: &mut Heard, input| {
            match input {
                Input::Message(words) => heard.texts.push(words.join(" ")),
                Input::Reply(text) => {
                    heard.texts.push(text.into());
                    return Ok::<_, Error>(Next::Answer(text.into()));
                }
            }
            Next::call("model", heard)
        })
    }

    #[test]
    fn a_save_whose_outcome_is_unknown_is_tried_again_without_a_second_turn() -> Result<(), Error> {
        // The save fails, and nothing was saved.
        double::fail_next(Error::Timeout);
        assert_eq!(talk(&["hello"]), Err(Error::Timeout));
        let call = talk(&["hello"])?;
        assert_eq!(call, r#"{"call":"model","id":"turn-1","texts":["hello"]}"#);
        // It was saved, and its caller did not learn of it.
        assert_eq!(talk(&["hello"])?, call);
        assert_eq!(talk(&["reply", "turn-1", "hi"])?, "hi");
        assert_eq!(talk(&["reply", "turn-1", "hi"])?, "hi");
        assert_eq!(history("chat").count(), 2);
        Ok(())
    }

    #[test]
    fn a_call_is_an_object_without_fields_of_the_driver() {
        let refused = |params: Value| Next::call("model", &params).expect_err("refused");
        for params in [1.into(), Value::Null, serde_json::json!(["a"])] {
            assert!(matches!(refused(params), Error::Invalid(_)));
        }
        for name in ["call", "id"] {
            let error = refused(Value::Object(
                [(name.into(), 1.into())].into_iter().collect(),
            ));
            assert!(error.to_string().contains("which are added"), "{error}");
        }
    }

    #[test]
    fn a_state_of_another_kind_is_unreadable_and_left_as_it_is() -> Result<(), Error> {
        crate::save("chat", r#"{"texts":[]}"#)?;
        let refused = talk(&["hello"]);
        assert!(
            matches!(refused, Err(Error::Unreadable { version: 1, .. })),
            "{refused:?}"
        );
        assert_eq!(load("chat")?.as_deref(), Some(&br#"{"texts":[]}"#[..]));
        Ok(())
    }
}
