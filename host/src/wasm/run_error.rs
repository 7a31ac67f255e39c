//! Errors of agents that are loaded or run.

use std::time::Duration;

use crate::snapshot;

#[cfg(doc)]
use crate::guest::Limits;

/// Why an agent could not be loaded, or has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The bytes are no agent.
    #[error("this is not an agent: {0}")]
    NotAnAgent(String),
    /// The agent came to its end, and gave this reason for having no answer.
    #[error("the agent answered with an error: {}", or_none(.0))]
    Failed(String),
    /// The agent's own code trapped.
    #[error("the agent trapped: {0}; what it saved before is kept")]
    Trapped(String),
    /// The agent ended its process, as a program does, in place of an answer.
    #[error("the agent exited without an answer; what it saved before is kept")]
    Exited,
    /// The agent's own code ran longer than [`Limits::cpu`].
    #[error(
        "the agent was stopped after {0:?} of CPU time (limit `cpu`); what it saved before is kept"
    )]
    CpuLimit(Duration),
    /// The run took longer than [`Limits::wall_clock`].
    #[error("the agent was stopped after {0:?} (limit `wall-clock`); what it saved before is kept")]
    WallClockLimit(Duration),
    /// It was not compiled within [`Limits::compile_time`].
    #[error("the agent was not compiled within {0:?} (limit `compile-time`)")]
    CompileTimeLimit(Duration),
    /// The run did not get its turn within [`Limits::run_wait`], and did not begin.
    #[error("the agent did not start within {0:?} (limit `run-wait`): too many other runs")]
    WaitLimit(Duration),
    /// The run could not get the lease of its scope, and did not begin.
    #[error("the agent did not start: {0}")]
    Lease(Box<snapshot::Error>),
    /// The host itself failed in a call of the agent: a defect of this program, or of what it is
    /// built of.
    #[error("the host failed in a call of the agent: {0}; what it saved before is kept")]
    Host(String),
    /// The host could not be set up.
    #[error("the WebAssembly engine could not be set up: {0}")]
    Engine(String),
}

impl RunError {
    /// Returns what to do about the error, for a person.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Exited => Some("return an answer from `run`"),
            Self::CpuLimit(_) => Some("raise the limit `cpu`"),
            Self::WallClockLimit(_) => Some("raise the limit `wall-clock`"),
            Self::CompileTimeLimit(_) => Some("try again later, or raise the limit `compile-time`"),
            Self::WaitLimit(_) => {
                Some("try again later, or raise the limit `runs-of-scope`, `runs` or `run-wait`")
            }
            Self::Lease(error) => match **error {
                snapshot::Error::Leased { .. } => {
                    Some("wait for the other host, or end its lease with `persist leases break`")
                }
                _ => None,
            },
            Self::Host(_) => Some("report this as a bug of Persist"),
            Self::NotAnAgent(_) | Self::Failed(_) | Self::Trapped(_) | Self::Engine(_) => None,
        }
    }
}

/// A reason that an agent gave.
fn or_none(reason: &str) -> &str {
    match reason {
        "" => "no reason was given",
        reason => reason,
    }
}
