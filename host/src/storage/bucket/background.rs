//! Background tasks, such as aborting an upload that was dropped.

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Counts what is under way, so that a process that ends can wait for it.
#[derive(Clone, Debug)]
pub(in crate::storage) struct BackgroundTasks(watch::Sender<usize>);

impl Default for BackgroundTasks {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl BackgroundTasks {
    pub(in crate::storage) fn spawn(
        &self,
        runtime: &Handle,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.0.send_modify(|running| *running += 1);
        let one = One(self.clone());
        runtime.spawn(async move {
            work.await;
            drop(one);
        })
    }

    /// Waits until nothing is under way.
    pub(in crate::storage) async fn wait_idle(&self) {
        // The sender is here: it is not closed.
        let _ = self.0.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// Counts as long as it is there: work may be dropped before its end, where a runtime shuts down.
struct One(BackgroundTasks);

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.send_modify(|running| *running -= 1);
    }
}
