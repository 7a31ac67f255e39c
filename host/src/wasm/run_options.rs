//! Input of one run of an agent.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::output::LiveOutput;

#[cfg(feature = "keyvalue")]
use crate::guest::{Buckets, Guest, Ledger, Limits};

/// Arguments, standard input, environment and network access of one run.
///
/// The host never saves or logs them; `Debug` shows the names of environment variables without
/// their values. So a variable may hold a secret, which the agent then knows.
///
/// ```
/// use persist_host::wasm::RunOptions;
///
/// let options = RunOptions::default()
///     .args(["reply", "buy milk"])
///     .stdin("a text of any length")
///     .env("MODEL", "small");
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct RunOptions {
    pub(super) args: Vec<String>,
    pub(super) stdin: Bytes,
    pub(super) env: Vec<(String, String)>,
    pub(super) data: Option<Arc<dyn Any + Send + Sync>>,
    pub(super) output: Option<LiveOutput>,
    /// Name, guest and prefix of each; the guest of the run if there is none.
    #[cfg(feature = "keyvalue")]
    buckets: Vec<(String, Option<Guest>, String)>,
    #[cfg(feature = "http")]
    pub(super) http: super::HttpPolicy,
}

impl RunOptions {
    /// Appends arguments of the agent's `run`.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets the agent's standard input. It is empty by default.
    pub fn stdin(mut self, stdin: impl Into<Bytes>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Sets a variable of the agent's environment, which is empty by default. An agent reads it as
    /// programs of its language do.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        self.env.retain(|(other, _)| *other != name);
        self.env.push((name, value.into()));
        self
    }

    /// Allows the agent to open a bucket of the names that start with `prefix` in its own scope,
    /// with [`keyvalue`](super::keyvalue). It may always open the bucket `default`, which is its
    /// scope unless this sets it.
    #[cfg(feature = "keyvalue")]
    pub fn bucket(mut self, name: impl Into<String>, prefix: impl Into<String>) -> Self {
        self.buckets.push((name.into(), None, prefix.into()));
        self
    }

    /// Allows the agent to open a bucket of the names that start with `prefix` in the scope of
    /// another guest, with the rights of that guest.
    #[cfg(feature = "keyvalue")]
    pub fn bucket_of(
        mut self,
        name: impl Into<String>,
        guest: Guest,
        prefix: impl Into<String>,
    ) -> Self {
        self.buckets.push((name.into(), Some(guest), prefix.into()));
        self
    }

    /// Returns the buckets of a run.
    #[cfg(feature = "keyvalue")]
    pub(super) fn buckets(&self, guest: &Guest, limits: &Limits, ledger: &Ledger) -> Buckets {
        let own = Buckets::new(guest.clone());
        self.buckets
            .iter()
            .fold(own, |buckets, (name, of, prefix)| {
                let of = of.clone().unwrap_or_else(|| guest.clone());
                let of = of.with_defaults(limits, ledger);
                buckets.scope_prefix(name, of, prefix)
            })
    }

    /// Sets a value of the host, for the functions that
    /// [`AgentHostBuilder::imports`](super::AgentHostBuilder::imports) added: they get it from
    /// [`AgentState::data`](super::AgentState::data). The agent cannot reach it.
    pub fn data(mut self, data: impl Any + Send + Sync) -> Self {
        self.data = Some(Arc::new(data));
        self
    }

    /// Lets the reader of [`live_output`](super::live_output) read the output while the run
    /// continues. [`RunOutput`](super::RunOutput) has all of it as well.
    pub fn output(mut self, output: LiveOutput) -> Self {
        self.output = Some(output);
        self
    }

    /// Sets the hosts that the agent may send HTTP requests to; none by default.
    #[cfg(feature = "http")]
    pub fn http(mut self, policy: super::HttpPolicy) -> Self {
        self.http = policy;
        self
    }
}

impl fmt::Debug for RunOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("RunOptions")
            .field("args", &self.args.len())
            .field("stdin", &self.stdin.len())
            .field("env", &names)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_value() {
        let options = RunOptions::default()
            .args(["first-argument"])
            .stdin("the input")
            .env("TOKEN", "s3cr3t")
            .env("TOKEN", "0th3r");
        let shown = format!("{options:?}");
        for hidden in ["s3cr3t", "0th3r", "the input", "first-argument"] {
            assert!(!shown.contains(hidden), "{shown}");
        }
        assert!(shown.contains("TOKEN"), "{shown}");
        assert_eq!(options.env, [("TOKEN".into(), "0th3r".into())]);
    }
}
