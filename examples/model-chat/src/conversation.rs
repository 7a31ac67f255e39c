//! The conversation. Each message is saved before the model is asked, and each reply when it comes,
//! so that a run that is killed loses no turn, and the next run asks again for the same one.

use std::error::Error;

use persist_guest::{Expect, SaveOptions, json, stat};
use serde::{Deserialize, Serialize};

/// Name of the snapshot.
pub(crate) const NAME: &str = "conversation";

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    User,
    Assistant,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Message {
    pub(crate) role: Role,
    pub(crate) content: String,
}

/// A question to the model.
#[derive(Debug)]
pub(crate) struct Question<'a> {
    pub(crate) messages: &'a [Message],
    /// Key of this question, which a retry repeats, so that a service that heard it before can
    /// answer as it did.
    pub(crate) idempotency_key: String,
}

type Failure = Box<dyn Error>;

/// Asks the model, and returns its reply.
pub(crate) type Ask<'a> = dyn FnMut(&Question<'_>) -> Result<String, Failure> + 'a;

/// Answers a message that was interrupted, then `message`, and returns the last reply.
///
/// A `message` that is the interrupted one itself is a retry of it, and no second turn.
pub(crate) fn turn(message: Option<&str>, ask: &mut Ask<'_>) -> Result<String, Failure> {
    let conversation = Conversation::load()?;
    let pending = conversation.pending().map(ToOwned::to_owned);
    match (pending, message) {
        (None, None) => Err("nothing to answer: give a message".into()),
        (None, Some(message)) => conversation.say(message)?.answer(ask).map(last),
        (Some(pending), Some(message)) if pending != message => {
            let answered = conversation.answer(ask)?;
            answered.say(message)?.answer(ask).map(last)
        }
        (Some(_), _) => conversation.answer(ask).map(last),
    }
}

fn last(conversation: Conversation) -> String {
    let reply = conversation.messages.into_iter().next_back();
    reply.map(|reply| reply.content).unwrap_or_default()
}

struct Conversation {
    messages: Vec<Message>,
    /// Version that holds the messages; none before the first.
    head: Option<u64>,
}

impl Conversation {
    fn load() -> Result<Self, Failure> {
        if let Some(snapshot) = json::load_snapshot(NAME, None)? {
            return Ok(Self {
                messages: snapshot.value,
                head: Some(snapshot.info.version),
            });
        }
        Ok(Self {
            messages: Vec::new(),
            // A deleted conversation has a version, too.
            head: stat(NAME, None)?.map(|info| info.version),
        })
    }

    /// Message that has no reply yet.
    fn pending(&self) -> Option<&str> {
        let last = self.messages.last()?;
        (last.role == Role::User).then_some(last.content.as_str())
    }

    fn say(self, message: &str) -> Result<Self, Failure> {
        self.add(Role::User, message.into())
    }

    fn answer(self, ask: &mut Ask<'_>) -> Result<Self, Failure> {
        let reply = ask(&Question {
            messages: &self.messages,
            idempotency_key: format!("turn-{}", self.head.unwrap_or_default()),
        })?;
        self.add(Role::Assistant, reply)
    }

    /// Saves the conversation with one more message, unless another run saved since.
    fn add(mut self, role: Role, content: String) -> Result<Self, Failure> {
        self.messages.push(Message { role, content });
        let options = SaveOptions::new().expect(Expect::head(self.head));
        let info = json::save_with(NAME, &self.messages, &options)?;
        self.head = Some(info.version);
        Ok(self)
    }
}
