//! Standard output, for results, and standard error, for all else.

use std::fmt;
use std::io::{self, Write as _};

use persist_host::storage::redact;

use crate::text::plain;

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
    let _ = writeln!(io::stderr().lock(), "{}", redact(&text));
}

/// Writes what a guest printed: bit for bit into a file or a pipe, and plain on a terminal.
pub(crate) fn from_guest(mut to: impl io::Write + io::IsTerminal, bytes: &[u8]) -> io::Result<()> {
    if to.is_terminal() {
        to.write_all(plain(&String::from_utf8_lossy(bytes)).as_bytes())
    } else {
        to.write_all(bytes)
    }
}
