//! The attempts at one call, and when the next is made.

use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use super::Retry;
use super::proxy::Proxy;
use crate::random::random_share;
use crate::storage::{Counts, Error, ErrorKind, Result};
use crate::telemetry::hashed;

const MEBIBYTE: f64 = (1 << 20) as f64;

/// How many times the usual time the first attempt to send a body may take: the others are sent
/// at the same time, and paths change.
const PATIENCE: f64 = 4.0;

/// An attempt without a body that has no response for so long is reported, before it ends.
const NOTICE: Duration = Duration::from_millis(1200);

/// Decision after an attempt that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Sends the call again after a random wait, which lasts at least this long.
    Backoff(Option<Duration>),
    /// Sends the call again after a random wait: no connection was made. Through a proxy, this is
    /// [`RetryDecision::BackoffBriefly`].
    Reconnect,
    /// Sends the call again after a random wait: the cause may be permanent. Until the server has
    /// answered for the first time, [`Retry::first_contact`] is the budget.
    BackoffBriefly,
    /// Sends the call again at once, but only once: its cause was set right.
    RetryOnce,
    /// Looks for other credentials. The backend turns this into [`RetryDecision::RetryOnce`]
    /// where it finds some, else into [`RetryDecision::Stop`].
    RefreshCredentials,
    /// Returns the error: another attempt would not help.
    Stop,
    /// Returns the error as it is, whatever became of earlier attempts.
    Definitive,
}

/// An attempt that failed.
#[derive(Debug)]
pub struct AttemptError {
    /// Error that is reported if the call is not sent again.
    pub error: Error,
    /// Decision if the call is sent again.
    pub next: RetryDecision,
    /// True if the server may have done, or may yet do, what it was asked.
    pub unclear: bool,
}

impl AttemptError {
    /// One that says that nothing was done.
    pub fn new(next: RetryDecision, error: Error) -> Self {
        Self {
            error,
            next,
            unclear: false,
        }
    }

    /// One after which it is not known what was done, and the call may be sent again.
    pub fn unclear(error: Error) -> Self {
        Self {
            error,
            next: RetryDecision::Backoff(None),
            unclear: true,
        }
    }
}

/// Result of an attempt.
pub type Attempt<T> = std::result::Result<T, AttemptError>;

/// A call, before it is sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::storage) struct Call<'a> {
    /// Name of the call in the server's manual.
    pub(in crate::storage) name: &'static str,
    /// Key that the call is about: shown at debug, hashed above.
    pub(in crate::storage) key: &'a str,
    /// True if the call changes what can be seen: then no answer is
    /// [`ErrorKind::OutcomeUnknown`].
    pub(in crate::storage) change: bool,
    /// Bytes that are sent with it.
    pub(in crate::storage) body: usize,
    /// Server that the call is sent to, for the operator.
    pub(in crate::storage) server: &'a str,
}

/// The policy at work, and what it did.
#[derive(Debug)]
pub(in crate::storage) struct Retrier {
    policy: Retry,
    /// The proxy of the environment that requests go through.
    proxy: Option<Proxy>,
    /// Set once the server answered as a server of its kind does.
    is_reached: AtomicBool,
    /// Set once a call was given up before that: later ones are not sent again.
    is_lost: AtomicBool,
    /// Microseconds that 1 MiB of a body took lately, at the slowest; 0: not known.
    pace: AtomicU64,
    requests: AtomicU64,
    repeated: AtomicU64,
    throttled: AtomicU64,
    given_up: AtomicU64,
    unanswered: AtomicU64,
}

impl Retrier {
    /// Applies `policy` to the calls to `server`.
    pub(in crate::storage) fn new(policy: Retry, server: &str) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            policy,
            proxy: Proxy::of(server),
            is_reached: AtomicBool::new(false),
            is_lost: AtomicBool::new(false),
            pace: zero(),
            requests: zero(),
            repeated: zero(),
            throttled: zero(),
            given_up: zero(),
            unanswered: zero(),
        }
    }

    pub(in crate::storage) fn counts(&self) -> Counts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            requests: count(&self.requests),
            repeated: count(&self.repeated),
            throttled: count(&self.throttled),
            given_up: count(&self.given_up),
            unanswered: count(&self.unanswered),
        }
    }

    /// Begins a call.
    pub(in crate::storage) fn begin<'a>(&'a self, call: Call<'a>) -> RetryLoop<'a> {
        let mebibytes = call.body as f64 / MEBIBYTE;
        let body = times(self.policy.stall, mebibytes);
        let usual = match self.pace.load(Ordering::Relaxed) {
            0 => body,
            pace => times(Duration::from_micros(pace), PATIENCE * mebibytes),
        };
        let span = tracing::info_span!(
            "storage_request",
            request = call.name,
            object = %hashed(call.key),
            bytes = call.body,
            attempts = Empty,
        );
        RetryLoop {
            retrier: self,
            call,
            span,
            attempts: 0,
            first: self.policy.attempt.saturating_add(usual.min(body)),
            attempt: self.policy.attempt.saturating_add(body),
            budget: match self.policy.budget {
                Duration::ZERO => Duration::ZERO,
                budget => budget.saturating_add(body),
            },
            started: Instant::now(),
            failures: 0,
            unclear: false,
            once: false,
        }
    }

    /// Returns the budget after a failure.
    fn budget(&self, next: RetryDecision, budget: Duration) -> Duration {
        let is_brief = match next {
            RetryDecision::BackoffBriefly => true,
            RetryDecision::Reconnect => self.proxy.is_some(),
            _ => false,
        };
        if self.is_reached.load(Ordering::Relaxed) {
            budget
        } else if self.is_lost.load(Ordering::Relaxed) {
            Duration::ZERO
        } else if is_brief {
            budget.min(self.policy.first_contact)
        } else {
            budget
        }
    }

    /// Returns what to do where the server cannot be reached.
    fn hint(&self, server: &str) -> String {
        match &self.proxy {
            None => format!("check that {server} is the right server and is available"),
            Some(proxy) => format!(
                "requests to {server} go through {proxy}: check that it runs and allows them, and \
                 the user name and password in {}; or list the server in NO_PROXY",
                proxy.variable()
            ),
        }
    }

    /// Notes an answer, which a server of another kind does not give.
    fn heard<T>(&self, answer: &Attempt<T>) {
        let is_answer = match answer {
            Ok(_) => true,
            Err(fault) => matches!(
                fault.error.kind(),
                ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::Throttled
            ),
        };
        if is_answer {
            self.is_reached.store(true, Ordering::Relaxed);
        }
    }

    /// After a body left and was answered in this time.
    fn took(&self, body: usize, time: Duration) {
        // A small one says nothing: it takes what an answer takes.
        if body < 1 << 20 {
            return;
        }
        let per_mebibyte = time.as_secs_f64() / (body as f64 / MEBIBYTE);
        let pace = ((per_mebibyte * 1e6) as u64).max(1);
        // One slow body counts until eight faster ones came, more or less.
        let slowest = |known: u64| Some(pace.max(known - known / 8));
        let _ = self
            .pace
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, slowest);
    }
}

/// The attempts at one call.
pub(in crate::storage) struct RetryLoop<'a> {
    retrier: &'a Retrier,
    call: Call<'a>,
    span: Span,
    attempts: u32,
    /// The longest wait for the first answer, and for a later one.
    first: Duration,
    attempt: Duration,
    budget: Duration,
    started: Instant,
    /// Failures since the call began or progressed, after each of which a random time was waited.
    failures: u32,
    /// True if an attempt may have been made although no answer said so.
    unclear: bool,
    /// True if [`RetryDecision::RetryOnce`] was used.
    once: bool,
}

impl RetryLoop<'_> {
    /// Makes an attempt, and ends it when no answer comes in time.
    pub(in crate::storage) async fn attempt<T>(
        &mut self,
        send: impl Future<Output = Attempt<T>>,
    ) -> Attempt<T> {
        let send = Box::pin(send);
        self.attempts += 1;
        count(&self.retrier.requests);
        if self.attempts > 1 {
            count(&self.retrier.repeated);
        }
        let patience = match self.attempts {
            1 => self.first,
            _ => self.attempt,
        };
        let notice = NOTICE.saturating_add(patience.saturating_sub(self.retrier.policy.attempt));
        let name = self.call.name;
        let until = self.remaining().max(patience);
        let began = Instant::now();
        let sent = async {
            let mut sent = pin!(tokio::time::timeout(patience, send));
            match tokio::time::timeout(notice, &mut sent).await {
                Ok(answer) => answer,
                Err(_) => {
                    self.announce(notice, until, format_args!("no response to {name} yet"));
                    sent.await
                }
            }
        };
        match Box::pin(sent.instrument(self.span.clone())).await {
            Ok(answer) => {
                self.retrier.heard(&answer);
                if answer.is_ok() {
                    self.retrier.took(self.call.body, began.elapsed());
                }
                answer
            }
            Err(_) => {
                let what = format!("no response to {name} in {patience:?}");
                Err(AttemptError::unclear(Error::new(ErrorKind::Timeout, what)))
            }
        }
    }

    /// Does what must come before an attempt, and reports where that takes long.
    pub(in crate::storage) async fn prepare<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        match tokio::time::timeout(NOTICE, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                let what = format_args!("looking for credentials");
                self.announce(NOTICE, self.retrier.policy.attempt, what);
                work.await
            }
        }
    }

    fn remaining(&self) -> Duration {
        self.budget.saturating_sub(self.started.elapsed())
    }

    /// Reports a wait. The `persist` command shows one that lasts to a person.
    fn announce(&self, lasts: Duration, until: Duration, error: fmt::Arguments<'_>) {
        tracing::debug!(
            target: "persist_host::retry",
            call = self.call.name,
            key = self.call.key,
            server = self.call.server,
            attempt = self.attempts,
            lasts_ms = milliseconds(lasts),
            until_ms = milliseconds(until),
            %error,
            "waiting for a server"
        );
    }

    /// Returns whether an attempt may have been made although no answer said so.
    pub(in crate::storage) fn is_unclear(&self) -> bool {
        self.unclear
    }

    /// How long a body may stand still.
    pub(in crate::storage) fn stall(&self) -> Duration {
        self.retrier.policy.stall
    }

    /// Something of the answer arrived: what is missing is a call of its own.
    pub(in crate::storage) fn progressed(&mut self) {
        self.started = Instant::now();
        self.failures = 0;
    }

    /// After an attempt that failed: waits until the next, or says that there is none.
    pub(in crate::storage) async fn again(&mut self, fault: AttemptError) -> Result<()> {
        self.unclear |= fault.unclear;
        let kind = fault.error.kind();
        if kind == ErrorKind::Throttled {
            count(&self.retrier.throttled);
        }
        let budget = self.retrier.budget(fault.next, self.budget);
        let wait = match fault.next {
            RetryDecision::Definitive => return Err(fault.error),
            RetryDecision::RetryOnce if !self.once => {
                self.once = true;
                Some(Duration::ZERO)
            }
            RetryDecision::RetryOnce | RetryDecision::RefreshCredentials | RetryDecision::Stop => {
                None
            }
            RetryDecision::Backoff(_)
            | RetryDecision::Reconnect
            | RetryDecision::BackoffBriefly => {
                let at_least = match fault.next {
                    RetryDecision::Backoff(at_least) => at_least.unwrap_or_default(),
                    _ => Duration::ZERO,
                };
                self.failures = self.failures.saturating_add(1);
                let policy = &self.retrier.policy;
                let elapsed = self.started.elapsed();
                let wait = policy.wait(self.failures, at_least, elapsed, random_share());
                let left = budget.saturating_sub(elapsed);
                if wait < left {
                    Some(wait)
                } else {
                    // The server said when: the random part may be shorter.
                    (!at_least.is_zero() && at_least < left).then_some(at_least)
                }
            }
        };
        let Some(wait) = wait else {
            return Err(self.give_up(fault));
        };
        let elapsed = self.started.elapsed();
        let lasts = elapsed.saturating_add(wait);
        self.announce(
            lasts,
            budget.saturating_sub(elapsed),
            format_args!("{}", fault.error),
        );
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn give_up(&self, fault: AttemptError) -> Error {
        let call = self.call.name;
        let attempts = self.attempts;
        let error = if self.call.change && self.unclear {
            count(&self.retrier.unanswered);
            fault.error.unanswered()
        } else {
            match fault.error.kind() {
                ErrorKind::Unavailable | ErrorKind::Timeout => {
                    let hint = self.retrier.hint(self.call.server);
                    fault.error.with_hint_unless(hint)
                }
                _ => fault.error,
            }
        };
        let is_repeated = matches!(
            fault.next,
            RetryDecision::Backoff(_) | RetryDecision::Reconnect | RetryDecision::BackoffBriefly
        );
        if is_repeated && !self.retrier.is_reached.load(Ordering::Relaxed) {
            self.retrier.is_lost.store(true, Ordering::Relaxed);
        }
        if attempts > 1 || is_repeated {
            count(&self.retrier.given_up);
            let kind = error.kind();
            let object = hashed(self.call.key);
            tracing::warn!(call, object, attempts, ?kind, "a call was given up");
            tracing::debug!(call, key = self.call.key, %error, "a call was given up");
        }
        error
    }
}

impl Drop for RetryLoop<'_> {
    fn drop(&mut self) {
        self.span.record("attempts", self.attempts);
    }
}

impl fmt::Debug for RetryLoop<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = &self.call;
        let attempts = &self.attempts;
        write!(f, "Tries {{ {call:?}, attempts: {attempts} }}")
    }
}

/// Never a panic, whatever a policy says.
fn times(time: Duration, factor: f64) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * factor).unwrap_or(Duration::MAX)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(next: RetryDecision, unclear: bool) -> AttemptError {
        AttemptError {
            error: Error::new(ErrorKind::Unavailable, "no"),
            next,
            unclear,
        }
    }

    fn call(change: bool) -> Call<'static> {
        Call {
            name: "PutObject",
            key: "a/b",
            change,
            body: 0,
            server: "http://127.0.0.1:1",
        }
    }

    fn retrier(policy: Retry) -> Retrier {
        Retrier {
            proxy: None,
            ..Retrier::new(policy, "")
        }
    }

    /// One that does not keep a test waiting.
    fn quick() -> Retry {
        Retry {
            budget: Duration::from_millis(400),
            first_contact: Duration::ZERO,
            attempt: Duration::from_millis(30),
            stall: Duration::from_millis(10),
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(20),
        }
    }

    fn block_on<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime")
            .block_on(test)
    }

    /// Fails again and again; how often it was tried, and what was said in the end.
    async fn fail(retrier: &Retrier, change: bool, faults: &[AttemptError]) -> (u64, ErrorKind) {
        let mut tries = retrier.begin(call(change));
        for n in 0.. {
            let like = &faults[n.min(faults.len() - 1)];
            let failed = tries
                .attempt(async { Err::<(), _>(fault(like.next, like.unclear)) })
                .await;
            if let Err(error) = tries.again(failed.expect_err("it fails")).await {
                return (n as u64 + 1, error.kind());
            }
        }
        unreachable!("it is tried for ever")
    }

    #[test]
    fn a_call_is_sent_again_until_the_budget_is_spent() {
        block_on(async {
            let retrier = retrier(quick());
            let faults = [fault(RetryDecision::Backoff(None), false)];
            let (attempts, kind) = fail(&retrier, true, &faults).await;
            assert!(attempts > 1);
            assert_eq!(kind, ErrorKind::Unavailable);
            let counts = retrier.counts();
            assert_eq!(counts.requests, attempts);
            assert_eq!((counts.repeated, counts.given_up), (attempts - 1, 1));
        });
    }

    #[test]
    fn the_span_of_a_call_has_its_attempts_and_no_key() {
        let log = crate::telemetry::closed_spans(async {
            let retrier = retrier(quick());
            let faults = [
                fault(RetryDecision::RetryOnce, false),
                fault(RetryDecision::Stop, false),
            ];
            fail(&retrier, false, &faults).await;
        });
        let request = "storage_request{request=\"PutObject\"";
        let span = log.lines().find(|line| line.contains(request));
        let span = span.unwrap_or_else(|| panic!("{log}"));
        assert!(span.contains("attempts=2"), "{log}");
        assert!(!log.contains("a/b"), "{log}");
    }

    #[test]
    fn what_may_be_permanent_is_sent_again_only_after_the_server_answered() {
        block_on(async {
            let brief = [fault(RetryDecision::BackoffBriefly, false)];
            let patient = retrier(quick());
            assert_eq!(fail(&patient, false, &brief).await.0, 1);
            let mut tries = patient.begin(call(false));
            tries.attempt(async { Ok(()) }).await.expect("an answer");
            assert!(fail(&patient, false, &brief).await.0 > 1);
            // A server that refuses connections may be about to start, and a proxy hides which.
            let refused = [fault(RetryDecision::Reconnect, false)];
            assert!(fail(&retrier(quick()), false, &refused).await.0 > 1);
            let proxied = Retrier {
                proxy: Some(Proxy::example()),
                ..retrier(quick())
            };
            assert_eq!(fail(&proxied, false, &refused).await.0, 1);
        });
    }

    #[test]
    fn a_server_that_never_answered_is_not_waited_for_twice() {
        block_on(async {
            let retrier = retrier(quick());
            let down = [fault(RetryDecision::Backoff(None), false)];
            assert!(fail(&retrier, false, &down).await.0 > 1);
            assert_eq!(fail(&retrier, false, &down).await.0, 1);
            let mut tries = retrier.begin(call(false));
            tries.attempt(async { Ok(()) }).await.expect("an answer");
            assert!(fail(&retrier, false, &down).await.0 > 1);
        });
    }

    #[test]
    fn a_failure_behind_a_proxy_names_the_proxy() {
        block_on(async {
            let retrier = Retrier {
                proxy: Some(Proxy::example()),
                ..retrier(quick())
            };
            let tries = retrier.begin(call(false));
            let error = tries.give_up(fault(RetryDecision::Reconnect, false));
            let hint = error.hint().unwrap_or_default();
            assert!(hint.contains("http://proxy.test:3128"), "{hint}");
            assert!(hint.contains("HTTPS_PROXY"), "{hint}");
        });
    }

    #[test]
    fn without_a_budget_nothing_is_sent_again() {
        block_on(async {
            let policy = Retry {
                budget: Duration::ZERO,
                ..quick()
            };
            let faults = [fault(RetryDecision::Backoff(None), false)];
            assert_eq!(fail(&retrier(policy), true, &faults).await.0, 1);
        });
    }

    #[test]
    fn a_server_that_says_when_is_not_asked_before() {
        block_on(async {
            let retrier = retrier(Retry::default());
            let started = Instant::now();
            let mut tries = retrier.begin(call(false));
            let after = Duration::from_millis(300);
            let told = fault(RetryDecision::Backoff(Some(after)), false);
            tries.again(told).await.expect("there is time");
            assert!(started.elapsed() >= after);
            let told = fault(
                RetryDecision::Backoff(Some(Duration::from_secs(3600))),
                false,
            );
            tries.again(told).await.expect_err("there is no time");
        });
    }

    #[test]
    fn a_wait_never_exceeds_its_bound() {
        let bound = Duration::from_millis(10);
        let policy = Retry {
            first_wait: bound,
            ..Retry::default()
        };
        let wait = |_| policy.wait(1, Duration::ZERO, Duration::ZERO, random_share());
        let waits: Vec<_> = (0..1000).map(wait).collect();
        assert!(waits.iter().all(|wait| *wait <= bound));
        assert!(waits.iter().any(|wait| *wait < bound / 2));
        assert!(waits.iter().any(|wait| *wait > bound / 2));
    }

    #[test]
    fn a_change_that_was_unclear_once_stays_so_unless_an_answer_settles_it() {
        block_on(async {
            let retrier = retrier(Retry::default());
            let refused = [
                fault(RetryDecision::Backoff(None), true),
                fault(RetryDecision::Stop, false),
            ];
            let (attempts, kind) = fail(&retrier, true, &refused).await;
            assert_eq!((attempts, kind), (2, ErrorKind::OutcomeUnknown));
            let (_, kind) = fail(&retrier, false, &refused).await;
            assert_eq!(kind, ErrorKind::Unavailable, "a read changes nothing");
            let settled = [
                fault(RetryDecision::Backoff(None), true),
                fault(RetryDecision::Definitive, false),
            ];
            let (_, kind) = fail(&retrier, true, &settled).await;
            assert_eq!(kind, ErrorKind::Unavailable);
            assert_eq!(retrier.counts().unanswered, 1);
        });
    }

    #[test]
    fn a_corrected_setting_is_tried_once() {
        block_on(async {
            let retrier = retrier(quick());
            let (attempts, _) =
                fail(&retrier, true, &[fault(RetryDecision::RetryOnce, false)]).await;
            assert_eq!(attempts, 2);
        });
    }

    /// It would take an hour, if what others took were not known.
    #[test]
    fn a_lost_body_is_noticed_early_and_only_once() {
        block_on(async {
            let policy = Retry {
                stall: Duration::from_secs(60 * 60),
                budget: Duration::from_secs(60),
                ..quick()
            };
            let retrier = retrier(policy);
            let part = Call {
                body: 1 << 20,
                ..call(false)
            };
            let sent = retrier.begin(part).attempt(async { Ok(()) }).await;
            sent.expect("it is answered");
            let mut tries = retrier.begin(part);
            let lost = tries.attempt(std::future::pending::<Attempt<()>>()).await;
            let lost = lost.expect_err("nobody answers");
            assert_eq!(lost.error.kind(), ErrorKind::Timeout);
            tries.again(lost).await.expect("there is time");
            // A path that has become slow: this one may take what the policy says.
            let slow = async {
                tokio::time::sleep(2 * quick().attempt).await;
                Ok(())
            };
            tries.attempt(slow).await.expect("it is waited for");
        });
    }

    #[test]
    fn a_small_body_has_little_more_time_than_none() {
        let retrier = retrier(Retry::default());
        let small = retrier.begin(Call {
            body: 1 << 10,
            ..call(true)
        });
        let none = retrier.begin(call(true));
        assert!(small.attempt < none.attempt + Duration::from_millis(100));
    }

    #[test]
    fn no_answer_in_time_is_unclear_and_a_body_has_more_time() {
        block_on(async {
            let retrier = retrier(quick());
            let started = Instant::now();
            let mut tries = retrier.begin(Call {
                body: 3 << 20,
                ..call(true)
            });
            let silent = tries.attempt(std::future::pending::<Attempt<()>>());
            let fault = silent.await.expect_err("it is silent");
            assert!(started.elapsed() >= quick().attempt + 3 * quick().stall);
            assert!(fault.unclear);
            assert_eq!(fault.error.kind(), ErrorKind::Timeout);
        });
    }
}
