//! The tasks that write the databases, watched: none of them ends before it is told to, and if one does (a fault of ours) the
//! process has to end as well. A relay that can record nothing any more would refuse for ever and look alive.

use std::future::Future;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

pub(super) struct Writers {
    tasks: TaskTracker,
    ended: mpsc::Receiver<&'static str>,
    tell: mpsc::Sender<&'static str>,
}

/// Tells when it is dropped: also by a panic.
struct End {
    name: &'static str,
    tell: mpsc::Sender<&'static str>,
}

impl Drop for End {
    fn drop(&mut self) {
        // Full: somebody else has told of a death before.
        let _ = self.tell.try_send(self.name);
    }
}

impl Writers {
    pub(super) fn new() -> Writers {
        let (tell, ended) = mpsc::channel(1);
        Writers { tasks: TaskTracker::new(), ended, tell }
    }

    pub(super) fn spawn(&self, name: &'static str, writer: impl Future<Output = ()> + Send + 'static) {
        let end = End { name, tell: self.tell.clone() };
        self.tasks.spawn(async move {
            writer.await;
            drop(end);
        });
    }

    /// The name of one that has ended, once one has. Cancelled: none is forgotten.
    pub(super) async fn death(&mut self) -> &'static str {
        match self.ended.recv().await {
            Some(name) => name,
            // Cannot be: we hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Waits for all of them, who have been told to end.
    pub(super) async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_ends_or_panics_is_told_of_and_no_other() {
        for panics in [false, true] {
            let mut writers = Writers::new();
            writers.spawn("the patient one", std::future::pending());
            assert!(tokio::time::timeout(Duration::from_secs(60), writers.death()).await.is_err());
            writers.spawn("the weak one", async move { assert!(!panics, "a fault of ours") });
            assert_eq!(writers.death().await, "the weak one");
        }
    }
}
