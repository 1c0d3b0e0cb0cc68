//! The costly part of a log-in, done by as many at a time as there are cores.
//!
//! Rules that always hold:
//! - no more checks run at once than cores, so that guessing never takes the machine from those who deliver;
//! - waiting has an end, in number and in time; of the places to wait, strangers get half, so that those who
//!   logged in before come through a flood of guesses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Checks that wait for a core or have one: at 30 ms each, a core works off its share within a second.
const WAITING_MAX: usize = 64;
/// How long a log-in waits. Clients wait for minutes, but nothing is won by that.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(10);

/// No check could be made in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy;

#[derive(Debug)]
pub(super) struct Checks {
    cores: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Checks {
    pub(super) fn new() -> Checks {
        Checks::on(available_parallelism().map_or(1, usize::from))
    }

    fn on(cores: usize) -> Checks {
        Checks { cores: Arc::new(Semaphore::new(cores)), waiting: AtomicUsize::new(0) }
    }

    /// Holds all cores, so that no check can run.
    #[cfg(test)]
    pub(super) async fn occupy(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(self.cores.available_permits()).unwrap();
        self.cores.clone().acquire_many_owned(all).await.unwrap()
    }

    /// Does `work` on a thread of its own when there is a core for it. Work that has begun is brought to its end, even if
    /// nobody waits for it any more, and holds its core until then.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        known: bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let _waiting = Waiting::enter(&self.waiting, if known { WAITING_MAX } else { WAITING_MAX / 2 })?;
        let done = async {
            let core = self.cores.clone().acquire_owned().await.ok()?;
            let work = move || {
                let _core = core;
                work()
            };
            tokio::task::spawn_blocking(work).await.ok()
        };
        timeout(WAIT_MAX, done).await.ok().flatten().ok_or(Busy)
    }
}

/// A place among those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn enter(count: &AtomicUsize, max: usize) -> Result<Waiting<'_>, Busy> {
        let enter = |waiting: usize| (waiting < max).then_some(waiting + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).map(|_| Waiting(count)).map_err(|_| Busy)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn never_more_run_than_there_are_cores() {
        for cores in [1, 3] {
            let checks = Arc::new(Checks::on(cores));
            let (running, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let mut all = JoinSet::new();
            for _ in 0..WAITING_MAX {
                let (checks, running, peak) = (checks.clone(), running.clone(), peak.clone());
                all.spawn(async move {
                    let work = move || {
                        peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        (0..10).for_each(|_| std::thread::yield_now());
                        running.fetch_sub(1, Ordering::SeqCst);
                    };
                    checks.run(true, work).await
                });
            }
            assert!(all.join_all().await.iter().all(Result::is_ok));
            assert!(peak.load(Ordering::SeqCst) <= cores);
        }
    }

    #[tokio::test]
    async fn who_finds_all_places_taken_is_not_kept_and_strangers_find_them_taken_first() {
        let checks = Arc::new(Checks::on(1));
        let open = Arc::new(Barrier::new(2));
        let mut all = JoinSet::new();
        let begin = |all: &mut JoinSet<Result<bool, Busy>>, known: bool, count: usize| {
            for _ in 0..count {
                let (checks, open) = (checks.clone(), open.clone());
                // Only the first to run waits at the barrier; those behind it wait for the core.
                all.spawn(async move { checks.run(known, move || open.wait().is_leader()).await });
            }
        };
        begin(&mut all, false, WAITING_MAX / 2);
        let waiting = || checks.waiting.load(Ordering::Relaxed);
        while waiting() < WAITING_MAX / 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(checks.run(false, || ()).await, Err(Busy), "no place for a stranger");
        begin(&mut all, true, WAITING_MAX / 2);
        while waiting() < WAITING_MAX {
            tokio::task::yield_now().await;
        }
        assert_eq!(checks.run(true, || ()).await, Err(Busy));
        for _ in 0..WAITING_MAX {
            let open = open.clone();
            tokio::task::spawn_blocking(move || open.wait()).await.unwrap();
        }
        assert!(all.join_all().await.iter().all(Result::is_ok));
        assert_eq!(waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_though_the_core_is_never_free() {
        let checks = Checks::on(1);
        let _taken = checks.cores.clone().acquire_owned().await.unwrap();
        assert_eq!(checks.run(true, || ()).await, Err(Busy));
        assert_eq!(checks.waiting.load(Ordering::Relaxed), 0);
    }
}
