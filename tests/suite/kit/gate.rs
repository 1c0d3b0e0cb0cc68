//! Gates: a scripted peer waits at one until the test lets it through. Delays without sleeping.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{PATIENCE, now};

/// Shut at first. Clones are the same gate.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    is_open: bool,
    /// How many may still pass while it is shut.
    passes: usize,
    waiting: usize,
}

impl Gate {
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).is_open = true;
        self.0.1.notify_all();
    }

    /// Lets `n` more through.
    pub fn admit(&self, n: usize) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).passes += n;
        self.0.1.notify_all();
    }

    /// Sees to it that at least `n` more may go through.
    pub fn top_up(&self, n: usize) {
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.passes = state.passes.max(n);
        drop(state);
        self.0.1.notify_all();
    }

    /// How many stand before it.
    pub fn waiting(&self) -> usize {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).waiting
    }

    /// Waits to be let through; false when nobody opened within twice the patience of a test (which then has failed).
    pub fn pass(&self) -> bool {
        let deadline = now() + PATIENCE * 2;
        let mut state = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting += 1;
        while !state.is_open && state.passes == 0 {
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                state.waiting -= 1;
                return false;
            }
            state = self.0.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.waiting -= 1;
        if !state.is_open {
            state.passes -= 1;
        }
        true
    }
}

#[test]
fn a_shut_gate_lets_through_as_many_as_it_admits() {
    let gate = Gate::new();
    gate.admit(2);
    assert!(gate.pass() && gate.pass());
    let passing = std::thread::spawn({
        let gate = gate.clone();
        move || gate.pass()
    });
    super::until("somebody at the gate", || (gate.waiting() == 1).then_some(()));
    gate.open();
    assert!(passing.join().unwrap());
}
