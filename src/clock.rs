//! The only source of time.
//!
//! Everything that decides takes the time as an argument; only loops and sessions ask this clock. In production it is
//! the system's wall clock, carried forward by the monotonic one, so that a small step of the wall clock never turns
//! time back; a large step (a suspended machine, a first NTP answer) is followed, and counted: here is the one place
//! where it is recognised, and whoever remembers moments asks [`Clock::stepped_millis`]. In tests it follows tokio's
//! paused time, so that a simulation jumps from event to event.

#![expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::types::Timestamp;

/// Steps of the wall clock up to this are evened out, larger ones followed.
const STEP_MAX_MILLIS: i64 = 2000;

/// A step is noticed after so long at the latest, by whoever sleeps.
const NAP_MAX: Duration = Duration::from_secs(60);

/// Cheap to clone; all clones agree.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// Wall time at `start`, in milliseconds.
    anchor: AtomicI64,
    follows_wall: bool,
    /// Steps of the wall clock that were followed, all together, in milliseconds.
    stepped: AtomicI64,
    /// So many times faster than time.
    speed: u32,
}

impl Clock {
    pub fn system() -> Clock {
        Clock(Arc::new(Inner {
            start: Instant::now(),
            anchor: AtomicI64::new(wall_millis()),
            follows_wall: true,
            stepped: AtomicI64::new(0),
            speed: 1,
        }))
    }

    /// Starts at `epoch` and moves with tokio's time alone.
    pub fn starting_at(epoch: Timestamp) -> Clock {
        Clock(Arc::new(Inner {
            start: Instant::now(),
            anchor: AtomicI64::new(epoch.millis()),
            follows_wall: false,
            stepped: AtomicI64::new(0),
            speed: 1,
        }))
    }

    /// Starts now and runs `speed` times faster than time: an hour is over in a minute at 60. Limits of single reads and writes, which
    /// are not kept by this clock, stay what they are.
    pub fn fast(speed: u32) -> Clock {
        let (start, anchor) = (Instant::now(), AtomicI64::new(wall_millis()));
        let stepped = AtomicI64::new(0);
        Clock(Arc::new(Inner { start, anchor, follows_wall: false, stepped, speed: speed.max(1) }))
    }

    /// For how long something takes: finer than the time of day, and not moved when that is set.
    pub fn elapsed(&self) -> Duration {
        self.0.start.elapsed()
    }

    pub fn now(&self) -> Timestamp {
        let elapsed = self.0.start.elapsed().saturating_mul(self.0.speed);
        let elapsed = i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX);
        let anchor = self.0.anchor.load(Ordering::Relaxed);
        let now = anchor.saturating_add(elapsed);
        if self.0.follows_wall {
            let wall = wall_millis();
            if (wall - now).abs() > STEP_MAX_MILLIS {
                self.0.follow(anchor, wall - elapsed);
                return Timestamp::from_millis(wall);
            }
        }
        Timestamp::from_millis(now)
    }

    /// By how much the wall clock was set since the start, beyond what time itself did: forward less back. Whoever remembers
    /// moments compares it with what it was, and moves them by the difference.
    pub fn stepped_millis(&self) -> i64 {
        self.0.stepped.load(Ordering::Relaxed)
    }

    /// As if somebody set the wall clock.
    #[cfg(test)]
    pub fn step(&self, by_millis: i64) {
        let anchor = self.0.anchor.load(Ordering::Relaxed);
        self.0.follow(anchor, anchor + by_millis);
    }

    /// Waits until `moment`, but no longer than until a step of the wall clock is noticed, which takes a minute at most.
    pub async fn wake_at(&self, moment: Timestamp) {
        let before = self.stepped_millis();
        loop {
            let left = moment.since(self.now());
            if left.is_zero() || self.stepped_millis() != before {
                return;
            }
            tokio::time::sleep(self.nap(left)).await;
        }
    }

    fn nap(&self, left: Duration) -> Duration {
        let nap = if self.0.follows_wall { left.min(NAP_MAX) } else { left / self.0.speed };
        nap.max(Duration::from_millis(1))
    }

    /// Waits until `moment`, at least a millisecond if it lies ahead at all. A step of the wall clock is noticed
    /// within a minute.
    pub async fn sleep_until(&self, moment: Timestamp) {
        loop {
            let left = moment.since(self.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(self.nap(left)).await;
        }
    }
}

impl Inner {
    /// Takes another anchor. Of several who notice the same step one counts it.
    fn follow(&self, before: i64, anchor: i64) {
        if self.anchor.compare_exchange(before, anchor, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.stepped.fetch_add(anchor - before, Ordering::Relaxed);
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
    async fn a_step_is_counted_once_and_wakes_who_waits_for_the_wall() {
        let clock = Clock::starting_at(Timestamp::from_secs(1000));
        clock.clone().step(-500_000);
        assert_eq!((clock.now(), clock.stepped_millis()), (Timestamp::from_secs(500), -500_000));
        clock.step(700_000);
        assert_eq!((clock.now(), clock.stepped_millis()), (Timestamp::from_secs(1200), 200_000));
        let (waiting, other) = (clock.clone(), clock.clone());
        let woken = tokio::spawn(async move { waiting.wake_at(Timestamp::from_secs(1260)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        other.step(-3_600_000);
        woken.await.unwrap();
        assert_eq!(clock.now(), Timestamp::from_secs(1260 - 3600), "not an hour later");
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
