//! Standard output, for results, and standard error, for all else.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use persist_host::storage::redact;

use crate::text::{painted, plain};

/// When output is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    // On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    // Also in a file or a pipe.
    Always,
    Never,
}

impl Color {
    /// Decides for the whole process.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => ColorChoice::Auto,
            Self::Always => ColorChoice::Always,
            Self::Never => ColorChoice::Never,
        }
        .write_global();
    }

    /// Returns the choice for the texts of the parser.
    pub(crate) fn of_parser(self) -> clap::ColorChoice {
        match self {
            Self::Auto => clap::ColorChoice::Auto,
            Self::Always => clap::ColorChoice::Always,
            Self::Never => clap::ColorChoice::Never,
        }
    }
}

/// Style of damage and errors.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// Style of warnings.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default();
/// Style of what is fine.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Style of what is gone, or less important.
pub(crate) const DIM: Style = Style::new().dimmed();

/// Returns true if results are coloured: NO_COLOR, CLICOLOR_FORCE and the terminal decide, unless
/// the command line does.
pub(crate) fn stdout_is_coloured() -> bool {
    AutoStream::choice(&io::stdout()) != ColorChoice::Never
}

/// Returns true if texts on standard error are coloured.
pub(crate) fn stderr_is_coloured() -> bool {
    AutoStream::choice(&io::stderr()) != ColorChoice::Never
}

/// Returns the width of the terminal that results go to; none where they go elsewhere.
pub(crate) fn columns() -> Option<usize> {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(stdout).ok()?;
    // A terminal that does not know its width says 0.
    (size.ws_col > 0).then_some(size.ws_col.into())
}

/// Writes results to standard output.
pub(crate) fn results(bytes: &[u8]) -> io::Result<()> {
    io::stdout().lock().write_all(bytes).map_err(of_output)
}

/// Says of an error that it is the output that failed, and not the storage.
pub(crate) fn of_output(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("write to standard output: {error}"))
}

/// Says something beside the results, on standard error. Its reader may be gone, and that is
/// no reason to fail. It may repeat an argument, that holds a secret.
pub(crate) fn say(what: fmt::Arguments<'_>) {
    let text = what.to_string();
    let text = highlighted(&redact(&text), stderr_is_coloured());
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Colours the word that begins a message. Lines of others are indented or escaped, so that no
/// line of theirs begins with such a word.
fn highlighted(text: &str, is_coloured: bool) -> String {
    const WORDS: [(&str, Style); 5] = [
        ("error:", BAD.bold()),
        ("damage:", BAD.bold()),
        ("warning:", WARNING.bold()),
        ("hint:", AnsiColor::Cyan.on_default().bold()),
        ("to undo:", AnsiColor::Cyan.on_default().bold()),
    ];
    let lines = text.split('\n').map(|line| {
        let found = WORDS.iter().find_map(|(word, style)| {
            let rest = line.strip_prefix(word)?;
            Some(painted(is_coloured, *style, word) + rest)
        });
        found.unwrap_or_else(|| line.to_owned())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Writes what a guest printed: bit for bit into a file or a pipe, and plain on a terminal.
pub(crate) fn from_guest(mut to: impl io::Write + io::IsTerminal, bytes: &[u8]) -> io::Result<()> {
    if to.is_terminal() {
        to.write_all(plain(&String::from_utf8_lossy(bytes)).as_bytes())
    } else {
        to.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_that_begin_messages_are_coloured_and_nothing_else() {
        let text = "error: no such name\n  error: an agent's line\nhint: run it again";
        assert_eq!(highlighted(text, false), text);
        let shown = highlighted(text, true);
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[0].starts_with('\u{1b}') && lines[0].ends_with(" no such name"));
        assert_eq!(lines[1], "  error: an agent's line");
        assert!(lines[2].starts_with('\u{1b}'), "{shown:?}");
    }
}
