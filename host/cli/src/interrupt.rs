//! Ctrl-C, and the signal that asks a process to end.
//!
//! A command that could leave something behind is told of them: what it was at is dropped, which
//! removes temporary files and aborts uploads, and it says what is done. All other commands end at
//! once, as any process does.

use std::io;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tokio::sync::Notify;

use crate::exit::{self, INTERRUPTED};
use crate::stdio::say;

/// How long a command gets to leave nothing behind. The same for retention, where it is done.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A signal came.
static SIGNALLED: Notify = Notify::const_new();

/// Changes that wait for their answer.
static COMMITTING: AtomicUsize = AtomicUsize::new(0);

/// A change has its answer.
static COMMITTED: Notify = Notify::const_new();

/// A person is asked something, and nothing was begun.
static ASKING: AtomicBool = AtomicBool::new(false);

/// From here on the signals are heard, and no longer end the process by themselves.
pub(crate) fn listen(json: bool) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let listen = move || {
        let mut is_first = true;
        for _ in &mut signals {
            if ASKING.load(Ordering::SeqCst) {
                say(format_args!(""));
                process::exit(INTERRUPTED.into());
            }
            if !std::mem::take(&mut is_first) {
                give_up("again", json);
            }
            SIGNALLED.notify_one();
            thread::spawn(move || {
                thread::sleep(PATIENCE);
                give_up(&format!("{} seconds ago", PATIENCE.as_secs()), json);
            });
        }
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(listen)
        .context("cannot listen for signals")?;
    Ok(())
}

fn give_up(when: &str, json: bool) -> ! {
    let message = format!("interrupted {when}: the outcome is unknown");
    let hint =
        "load the newest version before trying again; `persist gc` removes unfinished uploads";
    if json {
        exit::print_json(INTERRUPTED, &message, Some(hint));
    } else {
        say(format_args!("error: {message}\nhint: {hint}"));
    }
    process::exit(INTERRUPTED.into());
}

/// Ends once a signal came and no change waits for its answer.
pub(crate) async fn interrupted() {
    SIGNALLED.notified().await;
    while COMMITTING.load(Ordering::SeqCst) > 0 {
        COMMITTED.notified().await;
    }
}

/// Makes a change, and waits for its response: otherwise it would be unknown whether it
/// was made.
pub(crate) async fn uninterruptible<T>(change: impl Future<Output = T>) -> T {
    struct Committing;

    impl Drop for Committing {
        fn drop(&mut self) {
            COMMITTING.fetch_sub(1, Ordering::SeqCst);
            COMMITTED.notify_one();
        }
    }

    COMMITTING.fetch_add(1, Ordering::SeqCst);
    let _committing = Committing;
    change.await
}

/// Waits for a person, who may end the process instead.
pub(crate) fn ask(answer: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    ASKING.store(true, Ordering::SeqCst);
    let answered = answer();
    ASKING.store(false, Ordering::SeqCst);
    answered
}
