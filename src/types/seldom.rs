//! What is said at most once in a while: a fault that lasts meets every message, and one line a minute tells of it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::Timestamp;

/// Says whether a line is due again. The time comes from the caller.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    /// When it was last due, in milliseconds; `i64::MIN`: never.
    last: AtomicI64,
}

impl Seldom {
    pub const fn every(every: Duration) -> Seldom {
        Seldom { every, last: AtomicI64::new(i64::MIN) }
    }

    /// Once a minute: enough for whoever looks, little enough for the disk.
    pub const fn minutely() -> Seldom {
        Seldom::every(Duration::from_secs(60))
    }

    /// Is it due? If so, not again for a while. Of several who ask at once one is told yes.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let last = self.last.load(Ordering::Relaxed);
        // A clock that was set back must not silence it for as long.
        let rests = last != i64::MIN && {
            let last = Timestamp::from_millis(last);
            now >= last && now.since(last) < self.every
        };
        !rests && self.last.compare_exchange(last, now.millis(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_at_once_and_then_once_in_a_while() {
        let seldom = Seldom::minutely();
        let at = |secs| Timestamp::from_secs(1000 + secs);
        let due: Vec<i64> = (0..200).filter(|secs| seldom.is_due(at(*secs))).collect();
        assert_eq!(due, [0, 60, 120, 180]);
        assert!(seldom.is_due(at(-500)), "the clock was set back");
    }
}
