//! Memory of the agent: one state named `memory`, JSON, a version for each turn.

use std::fmt;

use persist_guest::{Error, Expect, SaveOptions, Version, json};
use serde::{Deserialize, Serialize};

const NAME: &str = "memory";

/// The conversation so far, and the version it was loaded from or saved as last.
pub(crate) struct Memory {
    conversation: Conversation,
    head: Option<Version>,
}

// A field that this agent does not know is from a later one, which knows more: do not drop it.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Conversation {
    turns: Vec<Turn>,
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Turn {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    speaker: Option<String>,
    text: String,
}

impl Memory {
    pub(crate) fn load() -> Result<Self, Error> {
        let (head, conversation) = json::load_snapshot(NAME, None)?
            .map(|snapshot| (snapshot.info.version, snapshot.value))
            .unzip();
        Ok(Self {
            conversation: conversation.unwrap_or_default(),
            head,
        })
    }

    pub(crate) fn turns(&self) -> &[Turn] {
        &self.conversation.turns
    }

    /// Adds one turn and saves. The save is refused if another run saved since: its turns are not
    /// ours to overwrite. After any error this memory is ahead of what is saved: load it again.
    pub(crate) fn add(&mut self, line: &str) -> Result<(), String> {
        self.conversation.turns.push(Turn::from(line));
        let turns = self.turns().len();
        let options = SaveOptions::new()
            .expect(Expect::head(self.head))
            .label("turn", turns.to_string());
        let saved = json::save_with(NAME, &self.conversation, &options);
        let info = saved.map_err(|error| match error {
            Error::Conflict(_) => format!(
                "turn {turns} was not saved: another run saved a turn meanwhile; run me again"
            ),
            Error::UnknownOutcome(_) => {
                format!("turn {turns} may or may not have been saved; run me again, I look first")
            }
            error => format!("turn {turns} was not saved: {error}"),
        })?;
        self.head = Some(info.version);
        Ok(())
    }

    /// Refuses a conversation that does not begin with exactly what is remembered.
    pub(crate) fn check_beginning_of(&self, lines: &[String]) -> Result<(), String> {
        for (at, turn) in self.turns().iter().enumerate() {
            let line = lines.get(at).map(|line| Turn::from(line.as_str()));
            if line.as_ref() != Some(turn) {
                let theirs = line.map_or("it ends before".into(), |line| {
                    format!("it says \"{line}\"")
                });
                let turn_number = at + 1;
                return Err(format!(
                    "this is another conversation: \
                     in turn {turn_number} I remember \"{turn}\", {theirs}"
                ));
            }
        }
        Ok(())
    }

    /// The last turn that shares a word with `text`, and the longest word they share. Short words
    /// say little.
    pub(crate) fn last_about(&self, text: &str) -> Option<(usize, String)> {
        let new = words(text);
        let longest = |turn: &Turn| {
            let shared = words(&turn.text)
                .into_iter()
                .filter(|word| word.len() > 4 && new.contains(word));
            shared.max_by_key(String::len)
        };
        let mut latest_first = self.turns().iter().enumerate().rev();
        latest_first.find_map(|(at, turn)| longest(turn).map(|word| (at + 1, word)))
    }
}

/// A line of a conversation: `Speaker: text`, or only the text.
impl From<&str> for Turn {
    fn from(line: &str) -> Self {
        match line.split_once(": ") {
            Some((speaker, text)) => Self {
                speaker: Some(speaker.into()),
                text: text.into(),
            },
            None => Self {
                speaker: None,
                text: line.into(),
            },
        }
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.speaker {
            Some(speaker) => write!(f, "{speaker}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .map(str::to_lowercase)
        .collect()
}
