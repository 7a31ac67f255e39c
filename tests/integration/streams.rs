//! States larger than memory: through the command, in bounded memory both ways.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use persist_tests::{noise, persist, tempdir};

/// Far more than the bound, and little enough for a test. `PERSIST_TEST_STREAM_MIB` asks for more.
fn pieces() -> u64 {
    let asked = std::env::var("PERSIST_TEST_STREAM_MIB").ok();
    asked.map_or(192, |mib| mib.parse().expect("a number of MiB"))
}

/// Maximum memory of a stream, in addition to the memory that the command takes with nothing to do.
/// 8 MiB of it are what a reader fetches ahead.
const BOUND: u64 = 48 << 20;

/// A MiB that does not compress: the worst case for what is kept between compression and disk.
fn piece(n: u64) -> Vec<u8> {
    noise(n, 1 << 20)
}

/// The most memory that a process has had, in bytes.
fn peak(child: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).expect("it lives");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("a peak");
    let kib = line
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok());
    kib.expect("a number") * 1024
}

/// Saves a number of pieces with `persist`, and returns the peak just before the end.
pub(crate) fn save(mut persist: Command, pieces: u64) -> u64 {
    let mut child = persist
        .args(["save", "bot/big", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("persist starts");
    let mut stdin = child.stdin.take().expect("piped");
    for n in 0..pieces {
        stdin.write_all(&piece(n)).expect("persist reads");
    }
    let peak = peak(&child);
    drop(stdin);
    assert!(child.wait().expect("persist ends").success());
    peak
}

/// Prints a state with `persist`, compares it piece by piece, and returns the peak just before the
/// end.
pub(crate) fn cat(mut persist: Command, pieces: u64) -> u64 {
    let mut child = persist
        .args(["cat", "bot/big"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("persist starts");
    let mut stdout = child.stdout.take().expect("piped");
    let mut read = vec![0; 1 << 20];
    let mut before_the_end = 0;
    for n in 0..pieces {
        let (first, rest) = read.split_at_mut(1 << 19);
        stdout.read_exact(first).expect("persist prints");
        if n == pieces - 1 {
            // It has begun, also with one piece, and waits for us: more is left than a pipe holds.
            before_the_end = peak(&child);
        }
        stdout.read_exact(rest).expect("persist prints");
        assert!(read == piece(n), "piece {n}");
    }
    assert_eq!(stdout.read(&mut read).expect("persist prints"), 0);
    assert!(child.wait().expect("persist ends").success());
    before_the_end
}

#[test]
fn a_state_of_any_size_goes_through_the_command_in_bounded_memory() {
    let dir = tempdir();
    let persist = || persist(dir.path());
    let idle = (save(persist(), 1), cat(persist(), 1));
    let pieces = pieces();
    let streamed = (save(persist(), pieces), cat(persist(), pieces));
    for (what, idle, streamed) in [("save", idle.0, streamed.0), ("cat", idle.1, streamed.1)] {
        let over = streamed.saturating_sub(idle);
        println!("{what} of {pieces} MiB: {} MiB over idle", over >> 20);
        assert!(over < BOUND, "{what} took {} MiB over idle", over >> 20);
    }
}
