//! Work that keeps a processor busy for a while, on so many blocking threads and no more.
//!
//! Rules that always hold:
//! - what comes first is begun first; whoever is at work takes the next piece by itself, so that under load nobody is woken for it;
//! - no thread is held while there is nothing to do;
//! - work that panics costs itself alone.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

type Piece = Box<dyn FnOnce() + Send>;

/// Clones share the threads.
#[derive(Clone)]
pub(super) struct Threads(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    threads_max: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Piece>,
    threads: usize,
}

impl Threads {
    /// As many as there are processors.
    pub(super) fn of_this_host() -> Threads {
        Threads::new(std::thread::available_parallelism().map_or(2, std::num::NonZero::get))
    }

    fn new(threads_max: usize) -> Threads {
        Threads(Arc::new(Inner { state: Mutex::default(), threads_max }))
    }

    /// Begins `work` as soon as a thread is free. What is received is an error where it panicked or the program ends.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (done, received) = oneshot::channel();
        // Whoever asked may be gone.
        let piece = Box::new(move || drop(done.send(work())));
        let mut state = self.0.state();
        state.waiting.push_back(piece);
        if state.threads < self.0.threads_max {
            state.threads += 1;
            let inner = self.0.clone();
            tokio::task::spawn_blocking(move || drain(&inner));
        }
        received
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one thread does: piece after piece until there is none.
fn drain(inner: &Inner) {
    loop {
        let mut state = inner.state();
        let Some(piece) = state.waiting.pop_front() else {
            state.threads -= 1;
            return;
        };
        drop(state);
        // Who waits for it hears that nothing comes; the panic itself is in the log.
        let _ = catch_unwind(AssertUnwindSafe(piece));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[tokio::test]
    async fn all_is_done_on_so_many_threads_and_no_more() {
        let threads = Threads::new(3);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = |n: usize| {
            let (now, most) = (now.clone(), most.clone());
            threads.run(move || {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                now.fetch_sub(1, Ordering::SeqCst);
                n
            })
        };
        let all: Vec<_> = (0..500).map(work).collect();
        for (n, done) in all.into_iter().enumerate() {
            assert_eq!(done.await, Ok(n));
        }
        assert!((1..=3).contains(&most.load(Ordering::SeqCst)));
        assert_eq!(threads.run(|| 7).await, Ok(7), "after a rest");
    }

    #[tokio::test]
    async fn what_comes_first_is_begun_first_and_a_panic_costs_itself_alone() {
        let threads = Threads::new(1);
        let (begin, begun) = sync_channel::<()>(0);
        let first = threads.run(move || begun.recv().is_ok());
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |n: usize| {
            let order = order.clone();
            threads.run(move || order.lock().unwrap().push(n))
        };
        let (one, two) = (note(1), note(2));
        begin.send(()).unwrap();
        assert_eq!((first.await, one.await, two.await), (Ok(true), Ok(()), Ok(())));
        assert_eq!(*order.lock().unwrap(), [1, 2]);
        let length = order.clone();
        assert!(threads.run(move || assert!(length.lock().unwrap().is_empty(), "on purpose")).await.is_err());
        assert_eq!(threads.run(|| 8).await, Ok(8));
    }
}
