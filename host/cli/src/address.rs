//! How a person names a snapshot: `agent/name`, `agent/session/name`, with `@N` for version N.

use std::fmt::Write as _;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use globset::{GlobBuilder, GlobMatcher};
use persist_host::snapshot::{Matcher, Name, NamePattern, Scope, Selection, Store, Version};

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

/// One agent, or one of its sessions: `agent` or `agent/session`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ScopeArg {
    agent: Name,
    session: Option<Name>,
}

/// One argument that selects names: `agent`, `agent/session/`, `agent/name` or
/// `agent/session/name`, of which each part may be a glob. The text is as it was typed.
#[derive(Clone, Debug)]
pub(crate) struct SelectionArg(pub(crate) Selection, pub(crate) String);

/// One argument that selects names or a version: a selection, or an address with a version.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Names(SelectionArg),
    Version(Address),
}

impl Address {
    /// Returns the address of a name without a version.
    pub(crate) fn in_scope(scope: &Scope, name: Name) -> Self {
        Self {
            agent: scope.agent().clone(),
            session: scope.session().cloned(),
            name,
            version: None,
        }
    }

    pub(crate) fn scope(&self, store: &Store) -> Result<Scope> {
        let session = self.session.as_ref().map(Name::as_str);
        Ok(store.scope(self.agent.as_str(), session)?)
    }

    /// The name of a selection of one name.
    pub(crate) fn of(selection: &Selection) -> Option<Self> {
        match selection.clone() {
            Selection::Name(agent, session, name) => Some(Self {
                agent,
                session,
                name,
                version: None,
            }),
            _ => None,
        }
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
        check_parts(path, FORMS)?;
        let parts: Vec<_> = path.split('/').collect();
        let (agent, session, name) = match parts[..] {
            [agent, name] => (agent, None, name),
            [agent, session, name] => (agent, Some(session), name),
            _ => bail!("{FORMS}"),
        };
        Ok(Self {
            agent: decode(agent)?,
            session: session.map_or(Ok(None), session_of)?,
            name: decode(name)?,
            version,
        })
    }
}

impl ScopeArg {
    pub(crate) fn scope(&self, store: &Store) -> Result<Scope> {
        let session = self.session.as_ref().map(Name::as_str);
        Ok(store.scope(self.agent.as_str(), session)?)
    }
}

impl FromStr for ScopeArg {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let (agent, session) = match parts[..] {
            [agent] => (agent, None),
            [agent, session] => (agent, session_of(session)?),
            _ => bail!("a scope is agent or agent/session; write ~2f for a slash in a name"),
        };
        let agent = decode(agent)?;
        Ok(Self { agent, session })
    }
}

impl Target {
    /// The argument, as it can be typed.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Names(SelectionArg(_, text)) => text.clone(),
            Self::Version(address) => match address.version {
                Some(version) => address.at(version),
                None => address.name(),
            },
        }
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
        Ok(Self(selection(text)?, text.to_owned()))
    }
}

impl FromStr for Target {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains('@') {
            return text.parse().map(Self::Version);
        }
        text.parse().map(Self::Names)
    }
}

/// Parses an argument of a list, in which `agent/` is the agent. Elsewhere it is an error: a script
/// in which a name is empty must not delete an agent.
pub(crate) fn listed(text: &str) -> Result<Target> {
    match text.strip_suffix('/') {
        Some(agent) if !agent.contains('/') => agent.parse(),
        _ => text.parse(),
    }
}

/// Refuses an address of which a part is empty, and a URL, which is the address of a store.
fn check_parts(text: &str, forms: &str) -> Result<()> {
    if text.contains("://") {
        bail!("it is a URL; the option --storage names a store. {forms}");
    }
    let mut before = String::new();
    for part in text.split('/') {
        if part.is_empty() && !before.is_empty() {
            bail!("the part after {before} is empty; {forms}");
        }
        before += part;
        before.push('/');
    }
    Ok(())
}

/// Parses a selection.
fn selection(text: &str) -> Result<Selection> {
    if text.is_empty() {
        bail!("{SELECTIONS}");
    }
    // A session ends with a slash.
    let is_session = text.matches('/').count() == 2;
    let checked = text.strip_suffix('/').filter(|_| is_session);
    check_parts(checked.unwrap_or(text), SELECTIONS)?;
    let parts: Vec<_> = text.split('/').collect();
    let pattern = |agent, session, name| {
        Selection::Matching(vec![NamePattern {
            agent,
            session,
            name,
        }])
    };
    if !text.contains(is_glob) {
        return Ok(match parts[..] {
            [agent] => Selection::Agent(decode(agent)?),
            [agent, "~"] => Selection::Session(decode(agent)?, None),
            [agent, session, ""] => Selection::Session(decode(agent)?, session_of(session)?),
            [agent, name] => Selection::Name(decode(agent)?, None, decode(name)?),
            [agent, session, name] => {
                Selection::Name(decode(agent)?, session_of(session)?, decode(name)?)
            }
            _ => bail!("{SELECTIONS}"),
        });
    }
    Ok(match parts[..] {
        [agent] => pattern(matcher(agent)?, Matcher::Any, Matcher::Any),
        [agent, "~"] => pattern(matcher(agent)?, Matcher::Only(None), Matcher::Any),
        [agent, session, ""] => pattern(matcher(agent)?, session_matcher(session)?, Matcher::Any),
        [agent, name] => pattern(matcher(agent)?, Matcher::Only(None), matcher(name)?),
        [agent, session, name] => {
            pattern(matcher(agent)?, session_matcher(session)?, matcher(name)?)
        }
        _ => bail!("{SELECTIONS}"),
    })
}

/// Forms of an address, for errors.
const FORMS: &str =
    "an address is agent/name or agent/session/name; write ~2f for a slash in a name";

/// Forms of a selection, for errors.
const SELECTIONS: &str = "write agent, agent/session/, agent/name or agent/session/name; write ~2f \
                          for a slash in a name";

/// Characters that make a part of a selection a glob.
fn is_glob(c: char) -> bool {
    matches!(c, '*' | '?' | '[' | '{')
}

/// Parses a part of a selection, which may be a glob.
fn matcher(text: &str) -> Result<Matcher<Name>> {
    if !text.contains(is_glob) {
        return Ok(Matcher::Only(decode(text)?));
    }
    let glob = glob(text)?;
    Ok(Matcher::matching(move |name: &Name| {
        glob.is_match(name.as_str())
    }))
}

/// Parses a session of a selection: ~ is what belongs to no session, and ** is every session and
/// what belongs to none.
fn session_matcher(text: &str) -> Result<Matcher<Option<Name>>> {
    match text {
        "~" => return Ok(Matcher::Only(None)),
        "**" => return Ok(Matcher::Any),
        text if !text.contains(is_glob) => return Ok(Matcher::Only(Some(decode(text)?))),
        _ => {}
    }
    let glob = glob(text)?;
    Ok(Matcher::matching(move |session: &Option<Name>| {
        session
            .as_ref()
            .is_some_and(|session| glob.is_match(session.as_str()))
    }))
}

/// Compiles a glob. An escaped character, such as ~2a for an asterisk, stands for itself.
fn glob(text: &str) -> Result<GlobMatcher> {
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        let c = u32::from(c);
        bail!("a glob contains the control character U+{c:04X}");
    }
    let mut pattern = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('~') {
        let end = rest[start..]
            .find(|c: char| c != '~' && !c.is_ascii_hexdigit())
            .map_or(rest.len(), |len| start + len);
        // Escapes side by side may be the bytes of one character; letters after two digits are not
        // part of an escape.
        let mut end_of_escapes = start;
        while end_of_escapes < end && rest[end_of_escapes..].starts_with('~') {
            end_of_escapes += 3;
        }
        let escapes = rest
            .get(start..end_of_escapes)
            .with_context(|| format!("a ~ in {text:?} is not followed by two hex digits"))?;
        pattern += &rest[..start].replace('\\', "\\\\");
        pattern += &globset::escape(decode(escapes)?.as_str());
        rest = &rest[end_of_escapes..];
    }
    pattern += &rest.replace('\\', "\\\\");
    let glob = GlobBuilder::new(&pattern).backslash_escape(true).build();
    let glob = glob.with_context(|| format!("{text:?} is not a glob; write ~5b for a ["))?;
    Ok(glob.compile_matcher())
}

/// Decodes a session as keys have it: ~ stands for what belongs to no session.
fn session_of(text: &str) -> Result<Option<Name>> {
    match text {
        "~" => Ok(None),
        session => Ok(Some(decode(session)?)),
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

/// The address of what a selection selects, which can be pasted back; none for a pattern, and for
/// everything.
pub(crate) fn selection_address(selection: &Selection) -> Option<String> {
    match selection {
        Selection::Agent(agent) => Some(part(agent)),
        Selection::Session(agent, session) => Some(session_address(agent, session.as_ref())),
        Selection::Name(agent, session, name) => Some(address(agent, session.as_ref(), name)),
        _ => None,
    }
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
                || is_glob(c)
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
            ("b*", Some("[s]"), "what?{a,b}"),
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
        for text in ["", "bot/", "b*/", "/m", "bot//m", "bot/s/m/", "bot/m@3"] {
            text.parse::<SelectionArg>().expect_err(text);
        }
    }

    #[test]
    fn a_list_argument_is_a_selection_or_a_version() {
        for (text, is_version) in [
            ("bot", false),
            ("bot/s/", false),
            ("bot/~", false),
            ("bot/x", false),
            ("bot/x@3", true),
            ("bot/s/x", false),
            ("bot/s/x@3", true),
            ("bot-*/x", false),
        ] {
            let target: Target = text.parse().expect(text);
            let parsed = matches!(target, Target::Version(_));
            assert_eq!(parsed, is_version, "{text}: {target:?}");
        }
        for text in [
            "", "bot/", "a/b/c/", "a/b/c/d", "bot/x@y", "bot/s/@3", "bot/[x",
        ] {
            text.parse::<Target>().expect_err(text);
        }
        // A list changes nothing.
        let Target::Names(agent) = listed("bot/").expect("an agent") else {
            panic!("not a selection");
        };
        assert_eq!(agent.0, Selection::Agent(Name::new("bot").expect("a name")));
        for text in ["", "/", "bot//", "a/b/c/"] {
            listed(text).expect_err(text);
        }
    }

    #[test]
    fn each_part_of_a_selection_may_be_a_glob() {
        let store = Store::new(std::sync::Arc::new(persist_host::storage::Memory::new()));
        let all = [
            ("bot-1", None, "memory"),
            ("bot-1", Some("monday"), "memory"),
            ("bot-1", Some("monday"), "notes"),
            ("bot-22", None, "a*b"),
            ("bot-22", None, "aéb"),
            ("bot-22", None, "a/b"),
            ("other", Some("x"), "memory"),
        ];
        for (text, matching) in [
            ("bot-*", &[0, 1, 2, 3, 4, 5][..]),
            ("bot-?", &[0, 1, 2]),
            ("{other,bot-22}", &[3, 4, 5, 6]),
            ("*/memory", &[0]),
            ("*/*/memory", &[1, 6]),
            ("*/**/memory", &[0, 1, 6]),
            ("bot-1/**/memory", &[0, 1]),
            ("bot-1/mon*/", &[1, 2]),
            ("bot-1/~/*", &[0]),
            ("bot-[0-9]/monday/n*", &[2]),
            ("bot-22/a~2a?", &[3]),
            ("bot-22/a~c3~a9*", &[4]),
            ("bot-22/*~2fb", &[5]),
            ("bot-22/a*b", &[3, 4, 5]),
            ("*/nothing*", &[]),
        ] {
            let SelectionArg(selection, _) = text.parse().expect(text);
            let patterns = selection.into_patterns();
            let found: Vec<_> = (0..all.len())
                .filter(|&n| {
                    let (agent, session, name) = all[n];
                    let scope = store.scope(agent, session).expect("a scope");
                    let name = Name::new(name).expect("a name");
                    patterns
                        .iter()
                        .any(|pattern| pattern.matches(&scope, &name))
                })
                .collect();
            assert_eq!(found, matching, "{text}");
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
            (
                "bot//memory",
                "the part after bot/ is empty; an address is agent/name",
            ),
            ("bot/monday/", "the part after bot/monday/ is empty"),
            ("s3://bucket", "--storage"),
        ] {
            let error = text.parse::<Address>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
        for (text, hint) in [
            ("bot/", "the part after bot/ is empty; write agent"),
            ("bot//", "the part after bot/ is empty; write agent"),
            ("bot//memory", "the part after bot/ is empty"),
            ("file:///store", "--storage"),
        ] {
            let error = text.parse::<SelectionArg>().expect_err(text).to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
