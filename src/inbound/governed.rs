//! What inbound has of `governor`: it follows our clock, and a rate as people write it becomes a quota.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;
use governor::clock::Clock as GovernorClock;

use crate::clock::Clock;
use crate::types::{Rate, Timestamp};

/// Our clock as governor sees it, so that it follows virtual time.
#[derive(Clone, Debug)]
pub(super) struct Time(pub(super) Clock);

impl GovernorClock for Time {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.now().millis()).unwrap_or(0))
    }
}

/// The moment that governor means. Rounded up: who comes then is not one millisecond too early.
pub(super) fn moment(instant: Duration) -> Timestamp {
    Timestamp::EPOCH + instant + Duration::from_nanos(999_999)
}

/// Evenly at this rate, with what a minute brings at once.
pub(super) fn quota(rate: Rate) -> Quota {
    let in_minute = rate.in_minute();
    // `as` goes to the nearest there is; rates are above zero.
    let burst = NonZeroU32::new(in_minute.ceil() as u32).unwrap_or(NonZeroU32::MIN);
    let period = Duration::from_secs_f64(60.0 / in_minute).max(Duration::from_nanos(1));
    Quota::with_period(period).unwrap_or(Quota::per_minute(burst)).allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_becomes_a_quota_with_the_burst_of_a_minute() {
        for (rate, burst, period_ms) in
            [("600/min", 600, 100.0), ("1/d", 1, 86_400_000.0), ("90/h", 2, 40_000.0), ("4294967295/s", u32::MAX, 1e-6)]
        {
            let quota = quota(rate.parse().unwrap());
            assert_eq!(quota.burst_size().get(), burst, "{rate}");
            let period = quota.replenish_interval().as_secs_f64() * 1000.0;
            assert!((period - period_ms).abs() < 1e-6, "{rate}: {period}");
        }
    }
}
