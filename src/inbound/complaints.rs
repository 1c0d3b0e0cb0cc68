//! Keeps the log readable when a client or a user is refused, or the spool fails, over and over: a few lines, then one a minute, for
//! each of them and for the faults of all together.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::governed::Time;
use crate::clock::Clock;
use crate::types::{Submitter, client_of};

/// Lines of one kind in a row, before they come once a minute.
const BURST: NonZeroU32 = NonZeroU32::new(3).unwrap();
/// Clients and users remembered at most: who scans from more addresses is not listed one by one.
const SUBMITTERS_MAX: usize = 10_000;
/// How often clients that have been quiet are forgotten.
const SWEEP_MILLIS: i64 = 60_000;

/// Says which refusals and faults are written to the log.
#[derive(Debug)]
pub(super) struct Complaints {
    limiter: RateLimiter<Submitter, DashMapStateStore<Submitter>, Time, NoOpMiddleware<Duration>>,
    faults: RateLimiter<NotKeyed, InMemoryState, Time, NoOpMiddleware<Duration>>,
    clock: Clock,
    swept: AtomicI64,
}

impl Complaints {
    pub(super) fn new(clock: Clock) -> Complaints {
        let quota = Quota::per_minute(NonZeroU32::MIN).allow_burst(BURST);
        let limiter = RateLimiter::dashmap_with_clock(quota, Time(clock.clone()));
        let faults = RateLimiter::direct_with_clock(quota, Time(clock.clone()));
        let swept = AtomicI64::new(clock.now().millis());
        Complaints { limiter, faults, clock, swept }
    }

    /// Shall this refusal be logged?
    pub(super) fn is_due(&self, who: Submitter) -> bool {
        self.sweep();
        let who = match who {
            Submitter::Client(client) => Submitter::Client(client_of(client)),
            user => user,
        };
        self.limiter.len() < SUBMITTERS_MAX && self.limiter.check_key(&who).is_ok()
    }

    /// Shall this fault of our own be logged? The disk that fails one message fails them all, whoever sends.
    pub(super) fn fault_is_due(&self) -> bool {
        self.faults.check().is_ok()
    }

    fn sweep(&self) {
        let now = self.clock.now().millis();
        let swept = self.swept.load(Ordering::Relaxed);
        let due = now.saturating_sub(swept) >= SWEEP_MILLIS;
        if due && self.swept.compare_exchange(swept, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.limiter.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Timestamp;

    #[tokio::test(start_paused = true)]
    async fn a_few_lines_then_one_a_minute_for_each_client() {
        let complaints = Complaints::new(Clock::starting_at(Timestamp::from_secs(1000)));
        let one = || Submitter::Client([192, 0, 2, 1].into());
        assert_eq!([(); 5].map(|()| complaints.is_due(one())), [true, true, true, false, false]);
        assert!(complaints.is_due(Submitter::Client([192, 0, 2, 2].into())));
        assert!(complaints.is_due(Submitter::User("app".into())));
        assert_eq!([(); 4].map(|()| complaints.fault_is_due()), [true, true, true, false]);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!([(); 2].map(|()| complaints.is_due(one())), [true, false]);
        assert_eq!([(); 2].map(|()| complaints.fault_is_due()), [true, false]);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(complaints.is_due(one()));
        assert_eq!(complaints.limiter.len(), 1);
    }
}
