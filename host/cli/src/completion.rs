//! Completion in a shell: of commands, options and values, and of what a store holds.
//!
//! The script that `persist completions` prints calls this program with [`VARIABLE`] set, and with
//! the words of the command line. Errors are silent: a person who presses Tab asked for no message.

use std::any::TypeId;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Arg, Command};
use clap_complete::Shell;
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _, complete,
};
use clap_complete::env::{CompleteEnv, Elvish, EnvCompleter, Powershell, Shells};
use persist_host::snapshot::{Name, Store};
use persist_host::wasm::Limits;

use crate::address::{self, Address, SelectionArg, Target};
use crate::commands::repair;
use crate::settings::{GlobalArgs, Settings};
use crate::stores::Stores;

/// Variable that makes this program complete a command line.
const VARIABLE: &str = "_PERSIST_COMPLETE";

/// Time that the store has to answer.
const PATIENCE: Duration = Duration::from_millis(800);

/// Values that are proposed at most.
const MOST: usize = 200;

/// Names that are listed at once.
const PAGE: usize = 1000;

/// The words of the line that is completed.
static WORDS: OnceLock<Vec<String>> = OnceLock::new();

const SHELLS: Shells<'static> = Shells(&[&Bash, &Elvish, &Fish, &Powershell, &Zsh]);

/// Completes a command line, if this process was started for that. Returns false if not.
pub(crate) fn answer(command: fn() -> Command) -> bool {
    let dir = std::env::current_dir().ok();
    let env = CompleteEnv::with_factory(|| with_values(command()))
        .var(VARIABLE)
        .shells(SHELLS);
    // There is nowhere to tell of an error.
    env.try_complete(std::env::args_os(), dir.as_deref())
        .unwrap_or(true)
}

/// Returns the script that makes a shell ask this program.
pub(crate) fn script(shell: Shell) -> io::Result<Vec<u8>> {
    let mut script = Vec::new();
    if let Some(shell) = SHELLS.completer(&shell.to_string()) {
        shell.write_registration(VARIABLE, "persist", "persist", "persist", &mut script)?;
    }
    Ok(script)
}

/// Adds completion of values to a command and its subcommands.
fn with_values(command: Command) -> Command {
    let is_import = command.get_name() == "import";
    command
        .mut_args(|arg| {
            // The archive holds the names of an import, and no store does.
            let is_addressed = [TypeId::of::<SelectionArg>(), TypeId::of::<Target>()]
                .into_iter()
                .any(|id| arg.get_value_parser().type_id() == id);
            if is_import && is_addressed {
                arg
            } else {
                with_value(arg)
            }
        })
        .mut_subcommands(with_values)
}

fn with_value(arg: Arg) -> Arg {
    let kind = arg.get_value_parser().type_id();
    let addressed = [
        (TypeId::of::<Address>(), Addressed::Version),
        (TypeId::of::<SelectionArg>(), Addressed::Selection),
        (TypeId::of::<Target>(), Addressed::Both),
        (TypeId::of::<repair::Target>(), Addressed::Both),
    ];
    if let Some((_, addressed)) = addressed.into_iter().find(|(id, _)| kind == *id) {
        return arg.add(ArgValueCompleter::new(move |typed: &OsStr| {
            values(typed, |typed| {
                of_store(move |store| addresses(store, addressed, typed))
            })
        }));
    }
    let completer = match arg.get_id().as_str() {
        "agent" => ArgValueCompleter::new(|typed: &OsStr| values(typed, agents)),
        "session" => ArgValueCompleter::new(|typed: &OsStr| values(typed, sessions)),
        "storage" | "from" | "to" => ArgValueCompleter::new(urls),
        "rights" => ArgValueCompleter::new(|typed: &OsStr| values(typed, rights)),
        "limit"
            if arg
                .get_value_names()
                .is_some_and(|names| names == ["NAME=VALUE"]) =>
        {
            ArgValueCompleter::new(|typed: &OsStr| values(typed, limits))
        }
        "keep_last" | "keep_hourly" | "keep_daily" | "keep_weekly" | "limit" => {
            ArgValueCompleter::new(|typed: &OsStr| values(typed, |_| words(&COUNTS)))
        }
        "keep_within" | "older_than" | "grace" => {
            ArgValueCompleter::new(|typed: &OsStr| values(typed, |_| words(&DURATIONS)))
        }
        "expect" => {
            ArgValueCompleter::new(|typed: &OsStr| values(typed, |_| words(&["absent", "any"])))
        }
        _ if kind == TypeId::of::<std::path::PathBuf>() => {
            ArgValueCompleter::new(PathCompleter::any())
        }
        _ => return arg,
    };
    arg.add(completer)
}

const COUNTS: [&str; 6] = ["1", "5", "10", "20", "50", "100"];
const DURATIONS: [&str; 6] = ["1h", "12h", "1d", "7d", "30d", "365d"];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// Returns those of some values that begin with what is typed.
fn values(typed: &OsStr, find: impl FnOnce(String) -> Vec<String>) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else {
        return Vec::new();
    };
    let found = find(typed.to_owned()).into_iter();
    let found = found.filter(|value| value.starts_with(typed));
    found.take(MOST).map(CompletionCandidate::new).collect()
}

/// Completes the rights of an agent: each may be named once.
fn rights(typed: String) -> Vec<String> {
    let (before, _) = typed.rsplit_once(',').unwrap_or(("", ""));
    let used: Vec<_> = before.split(',').collect();
    let rest = ["load", "save", "list", "delete"].into_iter();
    let rest = rest.filter(|right| !used.contains(right));
    let comma = if before.is_empty() { "" } else { "," };
    rest.map(|right| format!("{before}{comma}{right}"))
        .collect()
}

/// Completes the name of a limit and then its default value.
fn limits(typed: String) -> Vec<String> {
    let limits = Limits::table().iter();
    let is_named = typed.contains('=');
    let limits = limits.map(|limit| {
        let value = if is_named { limit.default } else { "" };
        format!("{}={value}", limit.name)
    });
    limits.collect()
}

/// Completes the URL of a store.
fn urls(typed: &OsStr) -> Vec<CompletionCandidate> {
    const FILE: &str = "file://";
    let directory = typed.to_str().and_then(|typed| typed.strip_prefix(FILE));
    match directory {
        Some(directory) if directory.starts_with('/') => {
            let found = PathCompleter::dir().complete(OsStr::new(directory));
            let found = found.into_iter();
            found.map(|candidate| candidate.add_prefix(FILE)).collect()
        }
        _ => values(typed, |_| words(&["file:///", "s3://", "gs://"])),
    }
}

/// Kinds of arguments that name something in a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Addressed {
    /// A name, perhaps with a version.
    Version,
    /// An agent, a session or a name.
    Selection,
    Both,
}

fn agents(typed: String) -> Vec<String> {
    of_store(async move |store| {
        let names = agents_from(&store, &typed).await?;
        Ok(names.iter().map(|name| name.as_str().to_owned()).collect())
    })
}

fn sessions(typed: String) -> Vec<String> {
    let Some(agent) = option("--agent").and_then(|agent| Name::new(agent).ok()) else {
        return Vec::new();
    };
    of_store(async move |store| {
        let _ = typed;
        let sessions = store.sessions(&agent, None, PAGE).await?;
        let sessions = sessions.iter().flatten();
        Ok(sessions.map(|name| name.as_str().to_owned()).collect())
    })
}

/// Lists the agents whose names may begin with what is typed.
async fn agents_from(store: &Store, typed: &str) -> Result<Vec<Name>> {
    let mut shorter = typed.chars();
    shorter.next_back();
    let shorter = shorter.as_str();
    // A prefix is listed before all that begins with it.
    let mut after = match Name::new(shorter) {
        Ok(name) if !typed.contains('~') => Some(name),
        _ => None,
    };
    let mut found = Vec::new();
    loop {
        let page = store.agents(after.as_ref(), PAGE).await?;
        let is_last = page.len() < PAGE;
        after = page.last().cloned();
        found.extend(page.into_iter().filter(|name| {
            name.as_str().starts_with(typed) || address::part(name).starts_with(typed)
        }));
        if is_last || found.len() >= MOST {
            return Ok(found);
        }
    }
}

/// Completes an address, a part after the other.
async fn addresses(store: Store, addressed: Addressed, typed: String) -> Result<Vec<String>> {
    if let Some((name, _)) = typed.rsplit_once('@') {
        if addressed == Addressed::Selection {
            return Ok(Vec::new());
        }
        let address: Address = name.parse()?;
        let scope = address.scope(&store)?;
        let versions = scope.versions(address.name.as_str(), None, MOST).await?;
        let versions = versions.iter().map(|version| format!("{name}@{version}"));
        return Ok(versions.collect());
    }
    let Some((place, name)) = typed.rsplit_once('/') else {
        let mut found = Vec::new();
        for agent in agents_from(&store, &typed).await? {
            let agent = address::part(&agent);
            if addressed != Addressed::Version {
                found.push(agent.clone());
            }
            found.push(agent + "/");
        }
        return Ok(found);
    };
    // With a name that is none, it is an address.
    let within: Address = format!("{place}/x").parse()?;
    let scope = within.scope(&store)?;
    let prefix = if name.contains('~') { "" } else { name };
    let names = scope.names(prefix, None, MOST).await?;
    let mut found: Vec<_> = names
        .iter()
        .map(|name| format!("{place}/{}", address::part(name)))
        .collect();
    if !place.contains('/') {
        let sessions = store.sessions(&within.agent, None, PAGE).await?;
        let sessions = sessions.iter().flatten();
        found.extend(sessions.map(|session| format!("{place}/{}/", address::part(session))));
    }
    Ok(found)
}

/// Asks the store of the command line, for as long as a person waits gladly.
fn of_store<F, Asked>(ask: F) -> Vec<String>
where
    F: FnOnce(Store) -> Asked + Send + 'static,
    Asked: Future<Output = Result<Vec<String>>>,
{
    let (answer, answered) = mpsc::channel();
    // A disk may hang. The thread ends with the process.
    std::thread::spawn(move || {
        let found = found(ask);
        let _ = answer.send(found.unwrap_or_default());
    });
    answered.recv_timeout(PATIENCE).unwrap_or_default()
}

fn found<F, Asked>(ask: F) -> Result<Vec<String>>
where
    F: FnOnce(Store) -> Asked,
    Asked: Future<Output = Result<Vec<String>>>,
{
    let words = WORDS.get().context("no words")?;
    let url = words.iter().find(|word| word.contains("://"));
    let url = url.filter(|_| words.get(1).is_some_and(|command| command == "copy"));
    let said = GlobalArgs {
        storage: url.cloned().or_else(|| option("--storage")),
        config: option("--config").map(Into::into),
    };
    let settings = Settings::resolve(said)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async { ask(Stores::new(&settings, None).usual()?).await })
}

/// Returns the value of an option of the line.
fn option(name: &str) -> Option<String> {
    let words = WORDS.get()?;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.strip_prefix(name) {
            Some("") => return words.next().cloned(),
            Some(value) if value.starts_with('=') => return Some(value[1..].to_owned()),
            _ => {}
        }
    }
    None
}

/// A value that is proposed.
struct Proposal {
    value: String,
    help: String,
    /// More can follow it without a space.
    goes_on: bool,
}

/// Returns what can stand for the last of some words.
fn proposals(
    command: &mut Command,
    words: Vec<String>,
    dir: Option<&Path>,
) -> io::Result<Vec<Proposal>> {
    let index = words.len().saturating_sub(1);
    let is_option = words.last().is_some_and(|word| word.starts_with('-'));
    let args = words.iter().map(OsString::from).collect();
    let _ = WORDS.set(words);
    let candidates = complete(command, args, index, dir)?;
    let mut found: Vec<_> = candidates
        .iter()
        .filter_map(|candidate| {
            let value = candidate.get_value().to_str()?.to_owned();
            let help = candidate.get_help().map(ToString::to_string);
            let help = help.unwrap_or_default();
            Some(Proposal {
                goes_on: value.ends_with(['/', '=', ':', ',']),
                help: help.lines().next().unwrap_or_default().to_owned(),
                value,
            })
        })
        // A shell reads a value a line.
        .filter(|proposal| !proposal.value.contains(char::is_control))
        .collect();
    if !is_option
        && found
            .iter()
            .any(|proposal| !proposal.value.starts_with('-'))
    {
        found.retain(|proposal| !proposal.value.starts_with('-'));
    }
    Ok(found)
}

fn texts(words: Vec<OsString>) -> Vec<String> {
    let words = words.into_iter();
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

/// Fills the names into a script.
fn filled(script: &str, var: &str, bin: &str, completer: &str) -> String {
    script
        .replace("VARIABLE", var)
        .replace("COMPLETER", completer)
        .replace("BIN", bin)
}

/// Completion for bash. It splits words at an `@`, so the line is split here.
struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == "bash"
    }

    fn write_registration(
        &self,
        var: &str,
        _name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        const SCRIPT: &str = r#"_BIN() {
    local word
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(VARIABLE=bash COMPLETER -- "${COMP_LINE:0:COMP_POINT}" "$COMP_WORDBREAKS" 2> /dev/null)
}
complete -o nospace -F _BIN BIN
"#;
        buf.write_all(filled(SCRIPT, var, bin, completer).as_bytes())
    }

    fn write_complete(
        &self,
        cmd: &mut Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        let args = texts(args);
        let line = args.first().map_or("", String::as_str);
        let breaks = args.get(1).map_or("", String::as_str);
        let line = Line::split(line, breaks);
        let typed = line.words.last().cloned().unwrap_or_default();
        for proposal in proposals(cmd, line.words.clone(), current_dir)? {
            // Readline replaces only what follows the last break.
            let Some(rest) = proposal.value.strip_prefix(&typed[..line.break_at]) else {
                continue;
            };
            let space = if proposal.goes_on || line.quote.is_some() {
                ""
            } else {
                " "
            };
            writeln!(buf, "{}{space}", line.quoted(rest))?;
        }
        Ok(())
    }
}

/// A line of bash, up to the cursor.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    /// Words without their quotes; the last one is not complete.
    words: Vec<String>,
    /// Bytes of the last word that readline leaves in place.
    break_at: usize,
    /// The quote that is open.
    quote: Option<char>,
}

impl Line {
    fn split(line: &str, breaks: &str) -> Self {
        let mut split = Self {
            words: Vec::new(),
            break_at: 0,
            quote: None,
        };
        let mut word = String::new();
        let mut is_word = false;
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            match (split.quote, c) {
                (None, c) if c.is_whitespace() => {
                    if is_word {
                        split.words.push(std::mem::take(&mut word));
                    }
                    is_word = false;
                    split.break_at = 0;
                    continue;
                }
                (Some(quote), c) if c == quote => split.quote = None,
                (None, '\'' | '"') => {
                    split.quote = Some(c);
                    split.break_at = word.len();
                }
                (None, '\\') => word.extend(chars.next()),
                (Some('"'), '\\') => match chars.next() {
                    Some(c) if matches!(c, '"' | '\\' | '$' | '`') => word.push(c),
                    next => {
                        word.push('\\');
                        word.extend(next);
                    }
                },
                (None, c) => {
                    let start = word.len();
                    word.push(c);
                    if breaks.contains(c) {
                        // Readline replaces an @, which begins the name of a host for it.
                        split.break_at = if c == '@' { start } else { word.len() };
                    }
                }
                (Some(_), c) => word.push(c),
            }
            is_word = true;
        }
        split.words.push(word);
        split
    }

    /// Quotes a text that follows what is typed.
    fn quoted(&self, text: &str) -> String {
        let mut quoted = String::new();
        for c in text.chars() {
            match self.quote {
                Some('\'') if c == '\'' => quoted.push_str(r"'\''"),
                Some('\'') => quoted.push(c),
                Some(_) if matches!(c, '"' | '\\' | '$' | '`') => quoted.extend(['\\', c]),
                Some(_) => quoted.push(c),
                None if c.is_alphanumeric() || "/._-+=@%:,".contains(c) => quoted.push(c),
                None => quoted.extend(['\\', c]),
            }
        }
        quoted
    }
}

/// Completion for zsh, which quotes values itself.
struct Zsh;

impl EnvCompleter for Zsh {
    fn name(&self) -> &'static str {
        "zsh"
    }

    fn is(&self, name: &str) -> bool {
        name == "zsh"
    }

    fn write_registration(
        &self,
        var: &str,
        _name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        const SCRIPT: &str = r#"#compdef BIN
_BIN() {
    local kind value help
    local -a whole whole_help begun begun_help
    while IFS=$'\t' read -r kind value help; do
        [[ -n $help ]] && help="$value  -- $help" || help=$value
        if [[ $kind == whole ]]; then
            whole+=("$value")
            whole_help+=("$help")
        else
            begun+=("$value")
            begun_help+=("$help")
        fi
    done < <(VARIABLE=zsh COMPLETER -- "${(@Q)words[1,CURRENT]}" 2> /dev/null)
    (( $#whole )) && compadd -l -d whole_help -a whole
    (( $#begun )) && compadd -S '' -l -d begun_help -a begun
}
if [[ $funcstack[1] == _BIN ]]; then
    _BIN "$@"
else
    compdef _BIN BIN
fi
"#;
        buf.write_all(filled(SCRIPT, var, bin, completer).as_bytes())
    }

    fn write_complete(
        &self,
        cmd: &mut Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        for Proposal {
            value,
            help,
            goes_on,
        } in proposals(cmd, texts(args), current_dir)?
        {
            let kind = if goes_on { "begun" } else { "whole" };
            writeln!(buf, "{kind}\t{value}\t{help}")?;
        }
        Ok(())
    }
}

/// Completion for fish, which quotes values itself, and adds no space after a slash.
struct Fish;

impl EnvCompleter for Fish {
    fn name(&self) -> &'static str {
        "fish"
    }

    fn is(&self, name: &str) -> bool {
        name == "fish"
    }

    fn write_registration(
        &self,
        var: &str,
        _name: &str,
        bin: &str,
        completer: &str,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        const SCRIPT: &str = r#"function __BIN_complete
    set -l words (commandline --current-process --tokenize --cut-at-cursor)
    set -l last (commandline --current-token --cut-at-cursor | string unescape)
    VARIABLE=fish COMPLETER -- $words "$last" 2> /dev/null
end
complete --command BIN --keep-order --no-files --arguments "(__BIN_complete)"
"#;
        buf.write_all(filled(SCRIPT, var, bin, completer).as_bytes())
    }

    fn write_complete(
        &self,
        cmd: &mut Command,
        args: Vec<OsString>,
        current_dir: Option<&Path>,
        buf: &mut dyn Write,
    ) -> io::Result<()> {
        for Proposal { value, help, .. } in proposals(cmd, texts(args), current_dir)? {
            if help.is_empty() {
                writeln!(buf, "{value}")?;
            } else {
                writeln!(buf, "{value}\t{help}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Line {
        Line::split(line, " \t\n\"'@><=;|&(:")
    }

    #[test]
    fn a_line_is_split_as_bash_reads_it() {
        for (line, words, break_at, quote) in [
            ("persist ", &["persist", ""][..], 0, None),
            ("persist cat bot/m", &["persist", "cat", "bot/m"], 0, None),
            (
                "persist cat bot/m@1",
                &["persist", "cat", "bot/m@1"],
                5,
                None,
            ),
            (r"p cat bot/my\ n", &["p", "cat", "bot/my n"], 0, None),
            (r"p cat bot/a\@b", &["p", "cat", "bot/a@b"], 0, None),
            ("p cat 'bot/my n", &["p", "cat", "bot/my n"], 0, Some('\'')),
            (r#"p cat "bot/\$x"#, &["p", "cat", "bot/$x"], 0, Some('"')),
            ("p --a=b", &["p", "--a=b"], 4, None),
            ("p '' x", &["p", "", "x"], 0, None),
        ] {
            let found = split(line);
            assert_eq!(found.words, words, "{line}");
            assert_eq!((found.break_at, found.quote), (break_at, quote), "{line}");
        }
    }

    #[test]
    fn what_an_agent_chose_is_one_word_of_bash() {
        for text in [
            "bot/$(touch x)",
            "bot/it's",
            "a b;c|d&e",
            "*?[x]",
            "~x",
            "日本",
        ] {
            let quoted = split("persist cat ").quoted(text);
            assert_eq!(
                shlex::split(&quoted).as_deref(),
                Some(&[text.to_owned()][..])
            );
            for quote in ["'", "\""] {
                let quoted = split(&format!("persist cat {quote}")).quoted(text);
                let whole = format!("{quote}{quoted}{quote}");
                assert_eq!(
                    shlex::split(&whole).as_deref(),
                    Some(&[text.to_owned()][..])
                );
            }
        }
    }

    #[test]
    fn rights_and_limits_are_completed_part_by_part() {
        assert_eq!(rights("load,s".into())[0], "load,save");
        assert!(!rights("load,".into()).contains(&"load,load".to_owned()));
        assert!(limits("mem".into()).contains(&"memory=".to_owned()));
        let named = limits("memory=".into());
        let memory = named.iter().find(|value| value.starts_with("memory="));
        assert!(memory.is_some_and(|value| value.len() > "memory=".len()));
    }
}
