//! Exit codes, so that a script can tell what happened without reading the message.

use std::borrow::Cow;
use std::io::{self, Write as _};
use std::process::ExitCode;

use persist_host::snapshot::{self, Severity};
use persist_host::storage::{self, ErrorKind, redact};
use persist_host::wasm::RunError;
use serde_json::{Value, json};

use crate::error::{Code, Conflicts, Damaged, Found, Hinted, Interrupted, Usage};
use crate::stdio::say;
use crate::text::{plain, seen};

/// Exit code after SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Text of `--help` about the exit codes.
pub(crate) const HELP: &str = "\
Exit codes:
  0  success
  1  other errors
  2  usage: the command line or a setting is invalid
  3  not found
  4  conflict: the newest version is not the expected one, a copied version exists and differs, or
     another host holds the lease
  5  denied: the storage rejects the account or its credentials
  6  corrupt: stored data is damaged or of a newer format, or the backend cannot hold a store
  7  unknown outcome: the change may have been made; load the newest version before a retry
  8  limit: a limit of size, time or space was reached
  9  agent: the agent returned an error or trapped
 10  attention: nothing is damaged, but there are warnings or versions were kept
130  interrupted by SIGINT (Ctrl-C) or SIGTERM";

/// Says what is wrong with the command line, without its secrets, and ends the process.
pub(crate) fn refuse(said: &str) -> ! {
    say(format_args!("{}", plain(&redact(said)).trim_end()));
    std::process::exit(2)
}

/// Prints a message of clap as JSON, and ends the process.
pub(crate) fn refuse_as_json(said: &str) -> ! {
    let (message, rest) = said.split_once("\n\n").unwrap_or((said, ""));
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let words: Vec<_> = message.split_whitespace().collect();
    let tip = rest
        .lines()
        .find_map(|line| line.trim().strip_prefix("tip: "));
    let hint = tip.unwrap_or("add --help to see the usage");
    print_json(2, &words.join(" "), Some(hint));
    std::process::exit(2)
}

/// Prints an error as JSON to standard error.
pub(crate) fn print_json(code: u8, message: &str, hint: Option<&str>) {
    let line = seen(&value(code, message, hint));
    // The reader may be gone. Not `say`: it would take the object for a file of credentials.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Directories that could not be listed; each was reported when it was met.
#[derive(Debug, Default)]
pub(crate) struct Unlisted(pub(crate) Option<u8>);

impl Unlisted {
    /// Notes an error, of which the first decides the exit code.
    pub(crate) fn add(&mut self, error: &snapshot::Error) {
        self.0.get_or_insert_with(|| snapshot_code(error));
    }

    /// An error unless everything could be listed.
    pub(crate) fn none(self) -> anyhow::Result<()> {
        match self.0 {
            None => Ok(()),
            Some(code) => Err(Code(code, "some directories could not be listed".into()).into()),
        }
    }
}

/// Prints an error, as text or as JSON, and returns the exit code for it.
pub(crate) fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    let broken_pipe = error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
    if broken_pipe {
        // The reader of standard output closed it.
        return ExitCode::SUCCESS;
    }
    let message = format!("{error:#}");
    let code = code(error);
    if json {
        print_json(code, &message, hint(error).as_deref());
        return ExitCode::from(code);
    }
    // It may hold an agent's words, and these may have lines that look as ours do.
    let shown = |text: &str| plain(&redact(text)).replace('\n', "\n  ");
    say(format_args!("error: {}", shown(&message)));
    if let Some(hint) = hint(error) {
        say(format_args!("hint: {}", shown(&hint)));
    }
    ExitCode::from(code)
}

/// Returns an error with its hint on one line.
pub(crate) fn described(error: &anyhow::Error) -> String {
    match hint(error) {
        None => format!("{error:#}"),
        Some(hint) => format!("{error:#}; {hint}"),
    }
}

/// Returns what to do about an error: the hint of the library's error that caused it.
fn hint(error: &anyhow::Error) -> Option<Cow<'_, str>> {
    if let Some(Hinted { hint, .. }) = error.downcast_ref::<Hinted>() {
        return Some(hint.as_str().into());
    }
    if let Some(Usage { hint, .. }) = error.downcast_ref::<Usage>() {
        return hint.as_deref().map(Cow::from);
    }
    if let Some(Interrupted { hint, .. }) = error.downcast_ref::<Interrupted>() {
        return hint.map(Cow::from);
    }
    if let Some(error) = error.downcast_ref::<RunError>() {
        return error.hint().map(Cow::from);
    }
    if error.is::<Conflicts>() {
        return Some("use an empty destination".into());
    }
    if let Some(error) = error.downcast_ref::<snapshot::Error>() {
        return error.hint();
    }
    error
        .downcast_ref::<storage::Error>()?
        .hint()
        .map(Cow::from)
}

/// Returns an error of a command as JSON.
pub(crate) fn value_of(error: &anyhow::Error) -> Value {
    value(code(error), &format!("{error:#}"), hint(error).as_deref())
}

/// Returns an error as JSON.
pub(crate) fn value(code: u8, message: &str, hint: Option<&str>) -> Value {
    let code = match code {
        2 => "usage",
        3 => "not_found",
        4 => "conflict",
        5 => "denied",
        6 => "corrupt",
        7 => "unknown_outcome",
        8 => "limit",
        9 => "agent",
        10 => "attention",
        INTERRUPTED => "interrupted",
        _ => "failed",
    };
    let hint = hint.map(redact);
    json!({ "error": { "code": code, "message": redact(message), "hint": hint } })
}

/// Returns the exit code for an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    if let Some(Hinted { error, .. }) = error.downcast_ref::<Hinted>() {
        return code(error);
    }
    if let Some(error) = error.downcast_ref::<snapshot::Error>() {
        return snapshot_code(error);
    }
    if let Some(error) = error.downcast_ref::<storage::Error>() {
        return storage_code(error);
    }
    if let Some(found) = error.downcast_ref::<Found>() {
        return match found.severity {
            Severity::Damage => 6,
            Severity::Denied => 5,
            _ => 10,
        };
    }
    if let Some(Code(code, _)) = error.downcast_ref::<Code>() {
        return *code;
    }
    if let Some(error) = error.downcast_ref::<io::Error>()
        && matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    {
        return 8;
    }
    match error.downcast_ref::<RunError>() {
        Some(RunError::Lease(error)) => snapshot_code(error),
        Some(
            RunError::CompileTimeLimit(_) | RunError::CpuLimit(_) | RunError::WallClockLimit(_),
        ) => 8,
        Some(RunError::Exited | RunError::Failed(_) | RunError::Trapped(_)) => 9,
        _ if error.is::<Usage>() => 2,
        _ if error.is::<Damaged>() => 6,
        _ if error.is::<Conflicts>() => 4,
        _ if error.is::<Interrupted>() => INTERRUPTED,
        _ => 1,
    }
}

/// The code for an error of a store.
pub(crate) fn snapshot_code(error: &snapshot::Error) -> u8 {
    match error {
        snapshot::Error::Invalid(_) => 2,
        snapshot::Error::NotFound(_) | snapshot::Error::NoStore { .. } => 3,
        snapshot::Error::Conflict { .. }
        | snapshot::Error::Leased { .. }
        | snapshot::Error::LeaseLost { .. } => 4,
        error if error.is_of_file() => 6,
        snapshot::Error::UnknownOutcome { .. } => 7,
        snapshot::Error::TooLarge { .. } => 8,
        snapshot::Error::Storage(error) => storage_code(error),
        _ => 1,
    }
}

/// The code for an error of a storage.
pub(crate) fn storage_code(error: &storage::Error) -> u8 {
    match error.kind() {
        ErrorKind::Config => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::Denied | ErrorKind::Retained | ErrorKind::Unauthenticated => 5,
        ErrorKind::OutcomeUnknown | ErrorKind::NotDurable => 7,
        ErrorKind::NoSpace => 8,
        ErrorKind::Unsupported => 6,
        _ => 1,
    }
}
