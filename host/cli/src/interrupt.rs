//! Ctrl-C, and the signal that asks a process to end.
//!
//! A command that could leave something behind is told of them: what it was at is dropped, which
//! removes temporary files and aborts uploads, and it says what is done. All other commands end at
//! once, as any process does.

use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::exit::{self, INTERRUPTED};
use crate::stdio::say;

/// How long a command gets to leave nothing behind. The same for retention, where it is done.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// An interruption of the command, which the command shares with the task that awaits signals.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    /// Cancelled by the first signal.
    signalled: CancellationToken,
    /// Changes that wait for their answer.
    changes: TaskTracker,
    /// True while a person is asked something, and nothing was begun.
    is_asking: Arc<AtomicBool>,
}

impl Interrupt {
    /// Awaits signals, which no longer end the process by themselves. The task needs a thread of
    /// the runtime besides the one of the command, which may wait for the reader of its output.
    ///
    /// # Errors
    /// The operating system does not allow it.
    pub(crate) fn listen(&self, json: bool) -> Result<()> {
        let mut signals = Signals::new().context("cannot listen for signals")?;
        let this = self.clone();
        tokio::spawn(async move {
            this.next(&mut signals).await;
            this.signalled.cancel();
            let again = tokio::time::timeout(PATIENCE, this.next(&mut signals));
            match again.await {
                Ok(()) => give_up("again", json),
                Err(_) => give_up(&format!("{} seconds ago", PATIENCE.as_secs()), json),
            }
        });
        Ok(())
    }

    /// Waits for a signal. Ends the process where a person answers a question with it.
    async fn next(&self, signals: &mut Signals) {
        signals.next().await;
        if self.is_asking.load(Ordering::SeqCst) {
            say(format_args!(""));
            process::exit(INTERRUPTED.into());
        }
    }

    /// Ends once a signal came and no change waits for its answer.
    pub(crate) async fn interrupted(&self) {
        self.signalled.cancelled().await;
        self.changes.close();
        self.changes.wait().await;
    }

    /// Makes a change, and waits for its response: otherwise it would be unknown whether it was
    /// made. After a signal, no further change begins, and this does not return.
    pub(crate) async fn uninterruptible<T>(&self, change: impl Future<Output = T>) -> T {
        // Before the signal is looked at: a change that finds none is waited for.
        let token = self.changes.token();
        if self.signalled.is_cancelled() {
            drop(token);
            return std::future::pending().await;
        }
        let made = change.await;
        drop(token);
        made
    }

    /// Waits for a person, who may end the process instead.
    pub(crate) fn ask(&self, answer: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.is_asking.store(true, Ordering::SeqCst);
        let answered = answer();
        self.is_asking.store(false, Ordering::SeqCst);
        answered
    }
}

/// The signals that ask a process to end.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_interruption_waits_for_the_changes_that_were_begun() {
        let interrupt = Interrupt::default();
        let (answer, answered) = tokio::sync::oneshot::channel();
        let changing = interrupt.clone();
        let change = tokio::spawn(async move { changing.uninterruptible(answered).await });
        tokio::task::yield_now().await;
        interrupt.signalled.cancel();
        let soon = Duration::from_millis(20);
        let early = tokio::time::timeout(soon, interrupt.interrupted()).await;
        assert!(early.is_err(), "the change has no answer yet");
        answer.send("made").expect("the change waits");
        interrupt.interrupted().await;
        assert_eq!(change.await.expect("no panic"), Ok("made"));
        // The next change of the same command would be neither waited for nor undone.
        let next = interrupt.uninterruptible(async { "made" });
        let begun = tokio::time::timeout(Duration::from_millis(1), next).await;
        assert!(begun.is_err(), "no change begins after a signal");
    }
}
