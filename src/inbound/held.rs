//! Memory for headers that are held until their end was seen.
//!
//! The rule that always holds: all sessions together hold at most `HELD_TOTAL_MAX` octets of headers between two reads. A header that
//! would go beyond it is released: the message is taken all the same, with what is missing in its header added at the header's end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A thousand clients whose headers of usual size come in small packets, or 128 headers of the greatest length held.
const HELD_TOTAL_MAX: usize = 8 << 20;

/// What all sessions hold. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldHeaders(Arc<AtomicUsize>);

/// One session's part; given back on drop.
#[derive(Debug)]
pub(super) struct Hold {
    all: HeldHeaders,
    octets: usize,
}

impl HeldHeaders {
    /// A part of nothing yet.
    pub(super) fn hold(&self) -> Hold {
        Hold { all: self.clone(), octets: 0 }
    }
}

impl Hold {
    /// Holds `octets` from now on; false, and the part is as it was, where that is more than there is.
    pub(super) fn resize(&mut self, octets: usize) -> bool {
        if octets == self.octets {
            return true;
        }
        let others = |all: usize| all.saturating_sub(self.octets);
        let change = |all| Some(others(all).saturating_add(octets)).filter(|&sum| sum <= HELD_TOTAL_MAX);
        let is_there = self.all.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).is_ok();
        if is_there {
            self.octets = octets;
        }
        is_there
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.all.0.fetch_sub(self.octets, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_together_stay_within_the_limit_and_come_back() {
        let all = HeldHeaders::default();
        let (mut one, mut two) = (all.hold(), all.hold());
        assert!(one.resize(HELD_TOTAL_MAX - 10) && two.resize(10));
        assert!(!two.resize(11) && two.resize(5) && one.resize(HELD_TOTAL_MAX - 5));
        drop(one);
        assert_eq!(all.0.load(Ordering::Relaxed), 5);
        assert!(two.resize(HELD_TOTAL_MAX) && two.resize(0));
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }
}
