//! When a deferred delivery is tried again.
//!
//! `[queue] retry` names the waits after the first, second, … deferral, the last one repeats (RFC 5321 section 4.5.4.1
//! asks for at least 30 minutes in the long run). Each wait is spread by a tenth either way, so that what was deferred
//! together does not come back together. A receiver that asks for a wait for one delivery (greylisting) gets what it asks for, a few
//! times; whoever goes on asking is asked by the schedule. No attempt is planned past the expiry: the last thing to happen then is the
//! report that it did not arrive.

use std::num::NonZeroU32;
use std::time::Duration;

use super::options;
use crate::types::{QueueId, Timestamp};

/// Seconds from acceptance to expiry, where the message says so itself (`X-Weir-Expire`).
pub type Lifetime = Option<NonZeroU32>;

/// What else than the schedule puts a delivery off does so for no longer.
const OTHER_WAITS_MAX: Duration = Duration::from_secs(3600);
/// So many attempts go by the receiver's own waits; further ones never come sooner than the schedule says.
const OWN_MAX: u32 = 3;

#[derive(Clone, Debug)]
pub struct Retry {
    waits: Vec<Duration>,
    expire: Duration,
}

impl Retry {
    pub fn new(options: &options::Queue) -> Retry {
        Retry { waits: options.retry.iter().map(|span| span.0).collect(), expire: options.expire.0 }
    }

    /// The next attempt after `attempts` deferrals (at least one).
    pub fn next(
        &self,
        id: QueueId,
        lifetime: Lifetime,
        attempts: u32,
        now: Timestamp,
        chance: &mut fastrand::Rng,
    ) -> Timestamp {
        let wait = self.wait(attempts);
        (now + wait.mul_f64(0.9 + 0.2 * chance.f64())).min(self.expires(id, lifetime).max(now))
    }

    /// When hosts are tried again that could not be reached so often in a row: by the same schedule, and no later than `most`.
    pub fn hosts(&self, failures: u32, most: Duration, now: Timestamp, chance: &mut fastrand::Rng) -> Timestamp {
        now + self.wait(failures).min(most).mul_f64(0.9 + 0.2 * chance.f64())
    }

    fn wait(&self, attempts: u32) -> Duration {
        let step = (attempts.max(1) as usize - 1).min(self.waits.len().saturating_sub(1));
        self.waits.get(step).copied().unwrap_or(Duration::from_secs(60))
    }

    /// No attempt is planned further ahead than this.
    pub fn longest(&self) -> Duration {
        self.waits.iter().max().copied().unwrap_or_default().max(OTHER_WAITS_MAX).mul_f64(1.1)
    }

    /// The next attempt where the reply asks for a wait for this delivery alone: never sooner than that.
    pub fn own(
        &self,
        id: QueueId,
        lifetime: Lifetime,
        attempts: u32,
        wait: Duration,
        now: Timestamp,
        chance: &mut fastrand::Rng,
    ) -> Timestamp {
        let own = now + wait.mul_f64(1.0 + 0.1 * chance.f64());
        let least = if attempts > OWN_MAX { self.next(id, lifetime, attempts, now, chance) } else { now };
        own.max(least).min(self.expires(id, lifetime).max(now))
    }

    /// From then on the message is returned instead of tried.
    pub fn expires(&self, id: QueueId, lifetime: Lifetime) -> Timestamp {
        id.received() + lifetime.map_or(self.expire, |secs| Duration::from_secs(u64::from(secs.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueIds, Span};

    fn retry() -> Retry {
        let spans = |secs: &[u64]| secs.iter().map(|s| Span(Duration::from_secs(*s))).collect();
        Retry::new(&options::Queue { retry: spans(&[60, 300, 900]), expire: Span(Duration::from_secs(3600)) })
    }

    #[test]
    fn what_was_deferred_together_does_not_come_back_together() {
        let now = Timestamp::from_secs(1_000_000);
        let id = QueueIds::new(0, 1).next(now);
        let mut chance = fastrand::Rng::with_seed(4);
        let spread = |waits: Vec<f64>| {
            let least = waits.iter().copied().fold(f64::INFINITY, f64::min);
            (least, waits.into_iter().fold(0.0, f64::max))
        };
        let (least, most) =
            spread((0..300).map(|_| retry().next(id, None, 2, now, &mut chance).since(now).as_secs_f64()).collect());
        assert!((270.0..276.0).contains(&least) && (324.0..=330.0).contains(&most), "from {least} to {most}");
        let wait = Duration::from_secs(600);
        let (least, most) = spread(
            (0..300).map(|_| retry().own(id, None, 1, wait, now, &mut chance).since(now).as_secs_f64()).collect(),
        );
        assert!((600.0..606.0).contains(&least) && (654.0..=660.0).contains(&most), "from {least} to {most}");
        let (least, most) =
            spread((0..300).map(|_| retry().hosts(1, wait, now, &mut chance).since(now).as_secs_f64()).collect());
        assert!((54.0..55.5).contains(&least) && (64.5..=66.0).contains(&most), "from {least} to {most}");
    }

    #[test]
    fn hosts_are_asked_by_the_schedule_up_to_a_limit() {
        let now = Timestamp::from_secs(1_000_000);
        let mut chance = fastrand::Rng::with_seed(5);
        for (failures, secs) in [(1, 60.0), (2, 300.0), (3, 600.0), (9, 600.0)] {
            let wait = retry().hosts(failures, Duration::from_secs(600), now, &mut chance).since(now).as_secs_f64();
            assert!((secs * 0.9..=secs * 1.1).contains(&wait), "{failures}: {wait}");
        }
    }

    #[test]
    fn waits_follow_the_schedule_within_a_tenth_and_the_last_repeats() {
        let now = Timestamp::from_secs(1_000_000);
        let id = QueueIds::new(0, 1).next(now);
        let mut chance = fastrand::Rng::with_seed(3);
        for (attempts, secs) in [(1, 60.0), (2, 300.0), (3, 900.0), (4, 900.0), (90, 900.0)] {
            let wait = retry().next(id, None, attempts, now, &mut chance).since(now).as_secs_f64();
            assert!((0.9 * secs..=1.1 * secs).contains(&wait), "{attempts}: {wait}");
        }
    }

    #[test]
    fn a_wait_that_was_asked_for_is_kept_and_not_for_ever() {
        let now = Timestamp::from_secs(1_000_000);
        let id = QueueIds::new(0, 1).next(now);
        let mut chance = fastrand::Rng::with_seed(3);
        for (attempts, asked, from, to) in
            [(1, 300, 300, 330), (3, 300, 300, 330), (4, 300, 810, 990), (2, 1200, 1200, 1320)]
        {
            let asked = Duration::from_secs(asked);
            let wait = retry().own(id, None, attempts, asked, now, &mut chance).since(now).as_secs();
            assert!((from..=to).contains(&wait), "{attempts}: {wait}");
        }
        let late = now + Duration::from_secs(3500);
        assert_eq!(retry().own(id, None, 1, Duration::from_secs(300), late, &mut chance), retry().expires(id, None));
    }

    #[test]
    fn nothing_is_planned_past_the_expiry() {
        let received = Timestamp::from_secs(1_000_000);
        let id = QueueIds::new(0, 1).next(received);
        let mut chance = fastrand::Rng::with_seed(3);
        let late = received + Duration::from_secs(3500);
        assert_eq!(retry().next(id, None, 3, late, &mut chance), retry().expires(id, None));
        let lifetime = NonZeroU32::new(300);
        assert_eq!(retry().next(id, lifetime, 3, received, &mut chance), received + Duration::from_secs(300));
    }
}
