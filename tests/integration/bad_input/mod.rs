//! Bad input through the command: whatever is wrong, the exit code says of what kind it is, the
//! message says what to do, and nothing that was saved before suffers. What only the library can
//! show is with `disk`, `sandbox` and `versions`.

mod agents;
mod directories;
mod files;
mod words;

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use persist_host::snapshot::{Error, SaveOptions};
use persist_host::storage::Local;
use persist_tests::{
    block_on, guest, load, persist, run, run_fails, run_ok, save, scope, tempdir, text,
    version_file, version_files,
};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Returns the error message of a command that failed. The message is to be acted on, so it is
/// never a panic.
fn refused(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said.to_owned()
}

/// Saves a state through the command.
fn put(dir: &Path, address: &str, state: &[u8]) {
    let input = tempdir();
    let file = input.path().join("state");
    fs::write(&file, state).expect("writes");
    run_ok(dir, &["save", address, file.to_str().expect("text")]);
}
