//! Tasks of this library that did not end by themselves.

use tokio::task::JoinError;

use super::{Error, ErrorKind};

/// Continues the panic of a task, or returns the error of one that the runtime stopped as it shut
/// down. `during` names what the task did, such as "a request".
pub(crate) fn stopped(error: JoinError, kind: ErrorKind, during: &str) -> Error {
    match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => {
            let what = format!("the runtime shut down during {during}");
            Error::new(kind, what).with_source(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.build().expect("a runtime")
    }

    #[test]
    fn a_task_that_was_stopped_is_an_error() {
        let ended = runtime().block_on(async {
            let task = tokio::spawn(std::future::pending::<()>());
            task.abort();
            task.await.expect_err("it was aborted")
        });
        let error = stopped(ended, ErrorKind::Unavailable, "a request");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let said = error.to_string();
        assert!(
            said.contains("the runtime shut down during a request"),
            "{said}"
        );
    }

    #[test]
    #[should_panic(expected = "of the task")]
    fn the_panic_of_a_task_continues() {
        let ended = runtime().block_on(async {
            let task = tokio::spawn(async { panic!("of the task") });
            task.await.expect_err("it panicked")
        });
        stopped(ended, ErrorKind::Unavailable, "a request");
    }
}
