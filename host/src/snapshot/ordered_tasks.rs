//! Bounded concurrency that keeps the order of results.

use std::collections::VecDeque;
use std::future::Future;

use tokio::task::JoinHandle;

use super::{Error, Result};
use crate::storage::{ErrorKind, task};

/// Futures that run side by side. Dropping this stops them where they wait next.
#[derive(Debug)]
pub(crate) struct OrderedTasks<T> {
    running: VecDeque<JoinHandle<Result<T>>>,
    most: usize,
}

impl<T: Send + 'static> OrderedTasks<T> {
    /// At most `most` at the same time.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            running: VecDeque::with_capacity(most),
            most,
        }
    }

    /// Begins another one; where as many run as may, waits for the first and gives its result.
    pub(crate) async fn push(
        &mut self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<Option<T>> {
        let done = if self.running.len() < self.most {
            None
        } else {
            self.next().await?
        };
        self.running.push_back(tokio::spawn(work));
        Ok(done)
    }

    /// The result of the first that still runs; none where none does.
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        let Some(first) = self.running.front_mut() else {
            return Ok(None);
        };
        let result = first.await;
        self.running.pop_front();
        match result {
            Ok(result) => result.map(Some),
            Err(error) => {
                let error = task::stopped(error, ErrorKind::Unavailable, "a task");
                Err(Error::Storage(error))
            }
        }
    }
}

impl<T> Drop for OrderedTasks<T> {
    fn drop(&mut self) {
        for running in &self.running {
            running.abort();
        }
    }
}
