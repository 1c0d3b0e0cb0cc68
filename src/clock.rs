//! The only source of time.
//!
//! Everything that decides takes the time as an argument; only loops and sessions ask this clock. In production it is
//! the system's wall clock, carried forward by the monotonic one, so that a small step of the wall clock never turns
//! time back; a large step (a suspended machine, a first NTP answer) is followed. In tests it follows tokio's
//! paused time, so that a simulation jumps from event to event.

#![expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::types::Timestamp;

/// Steps of the wall clock up to this are evened out, larger ones followed.
const STEP_MAX_MILLIS: i64 = 2000;

/// Cheap to clone; all clones agree.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// Wall time at `start`, in milliseconds.
    anchor: AtomicI64,
    follows_wall: bool,
    /// So many times faster than time.
    speed: u32,
}

impl Clock {
    pub fn system() -> Clock {
        Clock(Arc::new(Inner {
            start: Instant::now(),
            anchor: AtomicI64::new(wall_millis()),
            follows_wall: true,
            speed: 1,
        }))
    }

    /// Starts at `epoch` and moves with tokio's time alone.
    pub fn starting_at(epoch: Timestamp) -> Clock {
        Clock(Arc::new(Inner {
            start: Instant::now(),
            anchor: AtomicI64::new(epoch.millis()),
            follows_wall: false,
            speed: 1,
        }))
    }

    /// Starts now and runs `speed` times faster than time: an hour is over in a minute at 60. Limits of single reads and writes, which
    /// are not kept by this clock, stay what they are.
    pub fn fast(speed: u32) -> Clock {
        let (start, anchor) = (Instant::now(), AtomicI64::new(wall_millis()));
        Clock(Arc::new(Inner { start, anchor, follows_wall: false, speed: speed.max(1) }))
    }

    pub fn now(&self) -> Timestamp {
        let elapsed = self.0.start.elapsed().saturating_mul(self.0.speed);
        let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let anchor = self.0.anchor.load(Ordering::Relaxed);
        let now = anchor.saturating_add(elapsed);
        if self.0.follows_wall {
            let wall = wall_millis();
            if (wall - now).abs() > STEP_MAX_MILLIS {
                self.0.anchor.store(wall - elapsed, Ordering::Relaxed);
                return Timestamp::from_millis(wall);
            }
        }
        Timestamp::from_millis(now)
    }

    /// Waits until `moment`, at least a millisecond if it lies ahead at all. A step of the wall clock is noticed
    /// within a minute.
    pub async fn sleep_until(&self, moment: Timestamp) {
        loop {
            let left = moment.since(self.now());
            if left.is_zero() {
                return;
            }
            let nap = if self.0.follows_wall { left.min(Duration::from_secs(60)) } else { left / self.0.speed };
            tokio::time::sleep(nap.max(Duration::from_millis(1))).await;
        }
    }
}

fn wall_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_millis()).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_virtual_clock_jumps() {
        let clock = Clock::starting_at(Timestamp::from_secs(1000));
        clock.sleep_until(Timestamp::from_secs(90_000)).await;
        assert_eq!(clock.now(), Timestamp::from_secs(90_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_fast_clock_is_so_many_times_faster() {
        let (clock, real) = (Clock::fast(60), Clock::starting_at(Timestamp::EPOCH));
        let start = clock.now();
        clock.sleep_until(start + Duration::from_secs(3600)).await;
        assert_eq!(clock.now(), start + Duration::from_secs(3600));
        assert_eq!(real.now(), Timestamp::from_secs(60));
    }
}
