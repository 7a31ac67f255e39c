//! How a person names a snapshot: `agent/name`, `agent/session/name`, with `@N` for version N.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use anyhow::{Result, bail};
use persist_host::snapshot::{Name, Scope, Selection, Store, Version};

use super::error::Usage;
use super::unseen::is_unseen;

/// One name of one agent, perhaps of one of its sessions, perhaps one version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) agent: Name,
    pub(crate) session: Option<Name>,
    pub(crate) name: Name,
    pub(crate) version: Option<Version>,
}

/// Selection to list: `agent`, `agent/session/`, or an address. `agent/x` is the name `x` and the
/// session `x`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    Agent(Name),
    /// None: what belongs to no session.
    Session(Name, Option<Name>),
    Either(Address),
    Address(Address),
}

/// Which names a command is for: `agent`, `agent/session/`, `agent/name` or `agent/session/name`.
#[derive(Clone, Debug)]
pub(crate) struct SelectionArg(pub(crate) Selection);

impl Address {
    pub(crate) fn scope(&self, store: &Store) -> Result<Scope> {
        let session = self.session.as_ref().map(Name::as_str);
        Ok(store.scope(self.agent.as_str(), session)?)
    }

    /// Refuses a version where one makes no sense.
    pub(crate) fn whole_name(&self, why: &str) -> Result<&Self> {
        match self.version {
            None => Ok(self),
            Some(version) => Err(Usage::new(format!(
                "the address has a version, @{version}: {why}"
            ))
            .with_hint(format!("write {}", self.name()))
            .into()),
        }
    }

    /// The name, as a selection.
    pub(crate) fn selection(&self) -> Selection {
        Selection::Name(self.agent.clone(), self.session.clone(), self.name.clone())
    }

    /// The address of the name, without a version.
    pub(crate) fn name(&self) -> String {
        address(&self.agent, self.session.as_ref(), &self.name)
    }

    /// The address of a version of this name.
    pub(crate) fn at(&self, version: Version) -> String {
        format!("{}@{version}", self.name())
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (path, version) = match text.rsplit_once('@') {
            None => (text, None),
            Some((path, version)) => match version.parse() {
                Ok(version) => (path, Some(version)),
                Err(_) => {
                    bail!(
                        "{version:?} after the @ is not a version number; write ~40 for an @ in \
                         a name"
                    )
                }
            },
        };
        let parts: Vec<_> = path.split('/').collect();
        let (agent, session, name) = match parts[..] {
            [agent, name] => (agent, None, name),
            [agent, session, name] => (agent, Some(session), name),
            _ => bail!(
                "an address is agent/name or agent/session/name; write ~2f for a slash in a name"
            ),
        };
        Ok(Self {
            agent: decode(agent)?,
            session: session.map_or(Ok(None), session_of)?,
            name: decode(name)?,
            version,
        })
    }
}

impl FromStr for Listed {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        Ok(match parts[..] {
            _ if text.contains('@') => Self::Address(text.parse()?),
            [agent] | [agent, ""] => Self::Agent(decode(agent)?),
            [agent, session, ""] => Self::Session(decode(agent)?, session_of(session)?),
            [agent, "~"] => Self::Session(decode(agent)?, None),
            [_, _] => Self::Either(text.parse()?),
            [_, _, _] => Self::Address(text.parse()?),
            _ => bail!(
                "write agent, agent/session/, agent/name or agent/session/name; write ~2f for a \
                 slash in a name"
            ),
        })
    }
}

impl FromStr for SelectionArg {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains('@') {
            bail!(
                "remove the version: this command takes whole names; write ~40 for an @ in a name"
            );
        }
        let parts: Vec<_> = text.split('/').collect();
        Ok(Self(match parts[..] {
            [agent] => Selection::Agent(decode(agent)?),
            [agent, session, ""] => Selection::Session(decode(agent)?, session_of(session)?),
            [agent, name] if !name.is_empty() => {
                Selection::Name(decode(agent)?, None, decode(name)?)
            }
            [agent, session, name] => {
                Selection::Name(decode(agent)?, session_of(session)?, decode(name)?)
            }
            _ => bail!(
                "write agent, agent/session/, agent/name or agent/session/name; write ~2f for a \
                 slash in a name"
            ),
        }))
    }
}

/// Decodes a session as keys have it: ~ stands for what belongs to no session.
fn session_of(text: &str) -> Result<Option<Name>> {
    match text {
        "~" => Ok(None),
        session => Ok(Some(decode(session)?)),
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => f.write_str(&encode(agent)),
            Self::Session(agent, session) => f.write_str(&session_address(agent, session.as_ref())),
            // Without the ~ it may be a session, too.
            Self::Address(address) if address.session.is_none() && address.version.is_none() => {
                write!(f, "{}/~/{}", encode(&address.agent), encode(&address.name))
            }
            Self::Either(address) | Self::Address(address) => match address.version {
                None => f.write_str(&address.name()),
                Some(version) => f.write_str(&address.at(version)),
            },
        }
    }
}

/// The address of a name, which can be pasted back.
pub(crate) fn address(agent: &Name, session: Option<&Name>, name: &Name) -> String {
    let parts = [Some(agent), session, Some(name)];
    let parts: Vec<_> = parts.into_iter().flatten().map(encode).collect();
    parts.join("/")
}

/// A session, as commands take it; none: what belongs to no session.
pub(crate) fn session_address(agent: &Name, session: Option<&Name>) -> String {
    let session = session.map_or_else(|| "~".into(), encode);
    format!("{}/{session}/", encode(agent))
}

/// An agent, as it is written in an address.
pub(crate) fn part(name: &Name) -> String {
    encode(name)
}

/// Writes a name as people do: only what would mean something else in an address is escaped, and
/// what cannot be seen.
fn encode(name: &Name) -> String {
    let mut text = String::new();
    let name = name.as_str();
    // A space at an end looks like none.
    let inner = name.trim_matches(' ');
    let start = name.find(inner).unwrap_or_default();
    let inner = start..start + inner.len();
    for (at, c) in name.char_indices() {
        match c {
            c if matches!(c, '/' | '@' | '~')
                || is_unseen(c)
                || is_blank(c)
                || (c == ' ' && !inner.contains(&at)) =>
            {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    write!(text, "~{byte:02x}").expect("writing to a string");
                }
            }
            c => text.push(c),
        }
    }
    text
}

/// Characters that look like a space, and are another one.
fn is_blank(c: char) -> bool {
    c != ' ' && c.is_whitespace()
}

fn decode(text: &str) -> Result<Name> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'~' {
            bytes.push(byte);
            continue;
        }
        let digits = rest
            .split_at_checked(2)
            .filter(|(hex, _)| hex.iter().all(u8::is_ascii_hexdigit));
        let Some((hex, tail)) = digits else {
            bail!("a ~ in {text:?} is not followed by two hex digits; write ~7e for a ~ in a name");
        };
        bytes.push(u8::from_str_radix(std::str::from_utf8(hex)?, 16)?);
        rest = tail;
    }
    let Ok(text) = String::from_utf8(bytes) else {
        bail!("{text:?} is not UTF-8 after decoding each ~ and its two digits");
    };
    Ok(Name::new(text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_address_can_be_pasted_back() {
        for (agent, session, name) in [
            ("bot", None, "memory"),
            ("Bot A", Some("s/1"), "notes@home/~me"),
            ("ä", None, ".."),
            ("bot", None, "turned\u{202e}round"),
            ("bot", None, " spaces "),
            ("bot ", Some(" "), "a b\u{a0}"),
            ("bot", None, "\u{2800}\u{fe0f}\u{3164}"),
        ] {
            let agent = Name::new(agent).expect("a name");
            let name = Name::new(name).expect("a name");
            let session = session.map(|session| Name::new(session).expect("a name"));
            let text = address(&agent, session.as_ref(), &name);
            let parsed: Address = format!("{text}@7").parse().expect(&text);
            assert_eq!(parsed.at(7), format!("{text}@7"));
            assert_eq!(
                (parsed.agent, parsed.session, parsed.name),
                (agent, session, name)
            );
        }
    }

    #[test]
    fn names_that_look_the_same_are_told_apart() {
        let unseen = [
            '\u{80}',
            '\u{9f}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{1160}',
            '\u{180e}',
            '\u{200b}',
            '\u{200f}',
            '\u{202e}',
            '\u{2066}',
            '\u{2800}',
            '\u{3164}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fffb}',
            '\u{e0001}',
            '\u{e01ef}',
        ];
        for c in unseen {
            assert!(is_unseen(c), "{c:?}");
        }
        for c in ['a', ' ', '~', 'é', '日', '🦀', '\u{a0}'] {
            assert!(!is_unseen(c), "{c:?}");
        }
        let ends = ['\u{a0}', '\u{2003}', '\u{3000}', ' '];
        for end in unseen.into_iter().chain(ends) {
            let Ok(name) = Name::new(format!("memory{end}")) else {
                assert!(end.is_control(), "{end:?}");
                continue;
            };
            let text = encode(&name);
            assert!(text.starts_with("memory~") && text.is_ascii(), "{text:?}");
        }
        let name = Name::new("my notes").expect("a name");
        assert_eq!(encode(&name), "my notes");
    }

    #[test]
    fn a_selection_is_an_agent_a_session_or_a_name() {
        let name = |text: &str| Name::new(text).expect("a name");
        let bot = name("bot");
        let s = name("s");
        let m = name("m");
        for (text, selection) in [
            ("bot", Selection::Agent(bot.clone())),
            ("bot/s/", Selection::Session(bot.clone(), Some(s.clone()))),
            ("bot/~/", Selection::Session(bot.clone(), None)),
            ("bot/m", Selection::Name(bot.clone(), None, m.clone())),
            ("bot/s/m", Selection::Name(bot.clone(), Some(s), m)),
        ] {
            assert_eq!(
                text.parse::<SelectionArg>().expect(text).0,
                selection,
                "{text}"
            );
        }
        for text in ["", "bot/", "/m", "bot//m", "bot/s/m/", "bot/m@3"] {
            text.parse::<SelectionArg>().expect_err(text);
        }
    }

    #[test]
    fn a_list_argument_is_an_agent_a_session_or_an_address() {
        for (text, kind) in [
            ("bot", "Agent"),
            ("bot/", "Agent"),
            ("bot/s/", "Session"),
            ("bot/~", "Session"),
            ("bot/x", "Either"),
            ("bot/x@3", "Address"),
            ("bot/s/x", "Address"),
            ("bot/s/x@3", "Address"),
        ] {
            let listed: Listed = text.parse().expect(text);
            assert!(
                format!("{listed:?}").starts_with(kind),
                "{text}: {listed:?}"
            );
        }
        for text in ["", "a/b/c/", "a/b/c/d", "bot/x@y", "bot/s/@3"] {
            text.parse::<Listed>().expect_err(text);
        }
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_how_to_write_it() {
        for (text, hint) in [
            ("bot", "agent/name"),
            ("a/b/c/d", "~2f"),
            ("bot/me@home", "~40"),
            ("bot/~me", "~7e"),
            ("bot/", "empty"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
