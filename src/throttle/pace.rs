//! A pace: so many recipients a minute, evenly, never all at once.
//!
//! A leaky bucket in the form of GCRA (ITU-T I.371 annex A): what was let through is owed, and the debt is paid off at the
//! rate. The rate is given with each question, so that it may change at any time. Rules that always hold:
//!
//! - within any time `t` at one rate, at most `rate × t` and one burst are let through; a burst is what the rate brings in
//!   a second, at least one message of however many recipients;
//! - whoever asks again at the moment that was named, and nobody came between, is let through;
//! - a change of the rate is no fresh burst: the debt stays. After a rise it is paid off faster; after a cut at the speed it was
//!   made at, so that a burst at a high rate does not stop a slow lane for hours;
//! - a clock that jumps back neither lengthens nor forgives a debt; one that jumps forward pays it off, and no more.

use serde::{Deserialize, Serialize};

use crate::types::Timestamp;

/// A burst is what the rate brings in this time.
#[cfg(test)]
const BURST_MINUTES: f64 = 1.0 / 60.0;
const MILLIS_PER_MINUTE: f64 = 60_000.0;
/// Less of a recipient than this is nothing: it is what rounding leaves.
const DUST: f64 = 1e-6;
/// When to ask again where nothing may go at all: soon enough to notice that the rate has changed.
const CLOSED_MILLIS: i64 = 60_000;

/// What is owed to one rate. The empty one owes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pacer {
    /// Recipients let through and not yet paid off, at the moment `at`. Never negative.
    owed: f64,
    at: Timestamp,
    /// Recipients a minute that held when the debt was made.
    made_at: f64,
}

impl Pacer {
    /// Lets a message of `n` recipients through, or says when it may ask again.
    #[cfg(test)]
    pub fn ask(&mut self, rate_per_minute: f64, n: usize, now: Timestamp) -> Result<(), Timestamp> {
        self.ask_in_bursts(rate_per_minute, second_of(rate_per_minute), n, now)
    }

    /// What `ask` would say; nothing is let through.
    #[cfg(test)]
    pub fn may(&self, rate_per_minute: f64, n: usize, now: Timestamp) -> Result<(), Timestamp> {
        self.may_in_bursts(rate_per_minute, second_of(rate_per_minute), n, now)
    }

    /// Lets a message of `n` recipients through, `burst` of them at once, or says when it may ask again.
    pub(super) fn ask_in_bursts(&mut self, rate: f64, burst: f64, n: usize, now: Timestamp) -> Result<(), Timestamp> {
        // Settled first: after a clock has jumped back, the debt is paid off from there on.
        (self.owed, self.at) = (self.owed_at(rate, now), now);
        self.may_in_bursts(rate, burst, n, now)?;
        self.pay(rate, n, now);
        Ok(())
    }

    pub(super) fn may_in_bursts(&self, rate: f64, burst: f64, n: usize, now: Timestamp) -> Result<(), Timestamp> {
        if rate.is_nan() || rate <= 0.0 {
            return Err(Timestamp::from_millis(now.millis().saturating_add(CLOSED_MILLIS)));
        }
        let excess = self.owed_at(rate, now) - (burst.max(1.0) - recipients(n)).max(0.0);
        if excess <= DUST {
            return Ok(());
        }
        let wait = ((excess - DUST) / self.speed(rate) * MILLIS_PER_MINUTE).ceil().max(1.0);
        // A cast from floating point saturates.
        let moment = Timestamp::from_millis(now.millis().saturating_add(wait as i64));
        Err(moment.min(Timestamp::NEVER))
    }

    /// Recipients of a message that would go now and not be owed beyond the burst; at least one, else when to ask.
    pub(super) fn room_in_bursts(&self, rate: f64, burst: f64, now: Timestamp) -> Result<usize, Timestamp> {
        self.may_in_bursts(rate, burst, 1, now)?;
        Ok(((burst - self.owed_at(rate, now) + DUST).floor() as usize).max(1))
    }

    /// Counts a message of `n` recipients without asking: it has gone already.
    pub fn pay(&mut self, rate_per_minute: f64, n: usize, now: Timestamp) {
        self.owed = self.owed_at(rate_per_minute, now);
        self.at = now;
        // Where there is no limit nothing is owed: the limit may come with a later rate.
        if rate_per_minute != f64::INFINITY {
            self.owed += recipients(n);
            self.made_at = rate_per_minute.max(0.0);
        }
    }

    /// The clock was set by so much: the debt is as old as before.
    pub(super) fn shift(&mut self, by_millis: i64) {
        self.at = self.at.shifted(by_millis);
    }

    /// Takes back `n` recipients that were let through and did not go.
    pub fn refund(&mut self, n: usize) {
        self.owed = (self.owed - recipients(n)).max(0.0);
    }

    fn owed_at(&self, rate_per_minute: f64, now: Timestamp) -> f64 {
        let speed = self.speed(rate_per_minute);
        // An endless rate times no time at all would be no number.
        if speed.is_infinite() || !self.owed.is_finite() {
            return 0.0;
        }
        let minutes = now.since(self.at).as_secs_f64() / 60.0;
        (self.owed - speed * minutes).max(0.0)
    }

    /// Recipients a minute at which the debt is paid off. `f64::max` passes over what is no number.
    fn speed(&self, rate_per_minute: f64) -> f64 {
        rate_per_minute.max(self.made_at)
    }
}

/// The burst of a rate that has no other.
#[cfg(test)]
fn second_of(rate_per_minute: f64) -> f64 {
    (rate_per_minute * BURST_MINUTES).max(1.0)
}

fn recipients(n: usize) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const START: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(START.millis() + millis)
    }

    fn wait(pacer: &Pacer, rate: f64, n: usize, now: i64) -> i64 {
        pacer.may(rate, n, at(now)).map_or_else(|moment| moment.millis() - START.millis() - now, |()| 0)
    }

    /// How many single recipients go at `rate` within `millis`, by one who always comes at the moment that was named.
    fn sent(pacer: &mut Pacer, rate: f64, from: i64, millis: i64) -> usize {
        let (mut now, mut count) = (at(from), 0);
        while now < at(from + millis) {
            match pacer.ask(rate, 1, now) {
                Ok(()) => count += 1,
                Err(moment) => now = moment,
            }
        }
        count
    }

    #[test]
    fn the_rate_is_met_and_not_passed() {
        for (rate, expected) in [(1.0, 10), (6.0, 60), (60.0, 600), (600.0, 6010), (100_000.0, 1_001_667)] {
            let sent = sent(&mut Pacer::default(), rate, 0, 600_000);
            assert!(sent.abs_diff(expected) <= 2, "{rate}: {sent}");
        }
    }

    #[test]
    fn a_message_larger_than_a_burst_goes_and_is_paid_off_afterwards() {
        let mut pacer = Pacer::default();
        assert_eq!(pacer.ask(60.0, 100, at(0)), Ok(()));
        assert_eq!(pacer.ask(60.0, 100, at(0)), Err(at(100_000)));
        assert_eq!(pacer.ask(60.0, 1, at(99_999)), Err(at(100_000)));
        assert_eq!(pacer.ask(60.0, 1, at(100_000)), Ok(()));
    }

    #[test]
    fn a_rise_shortens_the_wait_and_is_no_burst() {
        let mut pacer = Pacer::default();
        pacer.ask(1.0, 1, at(0)).unwrap();
        assert_eq!(wait(&pacer, 1.0, 1, 0), 60_000);
        assert_eq!(wait(&pacer, 60.0, 1, 0), 1000);
        let mut pacer = Pacer::default();
        sent(&mut pacer, 600.0, 0, 1);
        assert_eq!(sent(&mut pacer, 1200.0, 0, 1), 10, "the larger burst less what was spent of the smaller");
    }

    #[test]
    fn a_cut_leaves_the_wait_and_going_to_and_fro_wins_nothing() {
        let mut pacer = Pacer::default();
        assert_eq!(sent(&mut pacer, 6000.0, 0, 1), 100);
        assert_eq!(wait(&pacer, 1.0, 1, 0), 1000, "not 100 minutes");
        for _ in 0..50 {
            assert!(pacer.ask(1.0, 1, at(0)).is_err());
            assert!(pacer.ask(6000.0, 1, at(0)).is_err());
        }
    }

    #[test]
    fn what_did_not_go_is_given_back() {
        let mut pacer = Pacer::default();
        pacer.ask(60.0, 10, at(0)).unwrap();
        pacer.refund(9);
        assert_eq!(wait(&pacer, 60.0, 1, 0), 1000);
        pacer.refund(1000);
        assert_eq!(sent(&mut pacer, 60.0, 0, 1), 1, "no more than one burst");
    }

    #[test]
    fn a_clock_that_jumps_back_neither_lengthens_nor_forgives() {
        let mut pacer = Pacer::default();
        pacer.ask(1.0, 1, at(0)).unwrap();
        assert_eq!(pacer.ask(1.0, 1, at(-3_600_000)), Err(at(-3_540_000)));
        assert_eq!(pacer.ask(1.0, 1, at(-3_540_001)), Err(at(-3_540_000)));
        assert_eq!(pacer.ask(1.0, 1, at(-3_540_000)), Ok(()));
    }

    #[test]
    fn a_clock_that_jumps_forward_gives_one_burst() {
        let mut pacer = Pacer::default();
        pacer.ask(60.0, 1000, at(0)).unwrap();
        assert_eq!(sent(&mut pacer, 60.0, 86_400_000, 1), 1);
    }

    #[test]
    fn odd_rates_have_sane_answers() {
        for rate in [0.0, -1.0, f64::NAN] {
            let mut pacer = Pacer::default();
            assert_eq!(pacer.ask(rate, 1, at(0)), Err(at(60_000)), "{rate}");
            pacer.pay(rate, 5, at(0));
            assert_eq!(wait(&pacer, 60.0, 1, 0), 5000);
        }
        let mut pacer = Pacer::default();
        for _ in 0..1000 {
            assert_eq!(pacer.ask(f64::INFINITY, usize::MAX, at(0)), Ok(()));
        }
        assert_eq!(pacer.ask(1.0, 1, at(0)), Ok(()), "what went without a limit is not owed to one");
        pacer.pay(1e-300, usize::MAX, at(0));
        assert_eq!(pacer.ask(1e-300, 1, at(0)), Err(Timestamp::NEVER));
    }

    proptest! {
        #[test]
        fn any_window_holds_at_most_the_rate_and_one_burst(
            rate in 0.1f64..20_000.0,
            steps in prop::collection::vec((0i64..5000, 1usize..20, any::<bool>()), 1..200),
        ) {
            let mut pacer = Pacer::default();
            let (mut now, mut gone) = (0, Vec::new());
            for (wait, n, patient) in steps {
                now += wait;
                let answer = pacer.ask(rate, n, at(now));
                if let (Err(moment), true) = (answer, patient) {
                    now = moment.millis() - START.millis();
                    prop_assert_eq!(pacer.ask(rate, n, moment), Ok(()));
                }
                if answer.is_ok() || patient {
                    gone.push((now, n));
                }
            }
            let burst = (rate / 60.0).max(20.0);
            for (i, (from, _)) in gone.iter().enumerate() {
                let mut sum = 0.0;
                for (to, n) in &gone[i..] {
                    sum += *n as f64;
                    let most = rate * (to - from) as f64 / 60_000.0 + burst;
                    prop_assert!(sum <= most + 0.01, "{} in {} ms, at most {}", sum, to - from, most);
                }
            }
        }

        #[test]
        fn changing_rates_and_clocks_never_stop_it_for_longer_than_its_debt(
            steps in prop::collection::vec((-1_000_000i64..1_000_000, 0.0f64..5000.0, 0usize..200), 1..100),
        ) {
            let mut pacer = Pacer::default();
            let mut now = 0;
            for (step, rate, n) in steps {
                now += step;
                let _ = pacer.ask(rate, n, at(now));
                prop_assert!(pacer.owed >= 0.0 && pacer.owed <= 200.0 + 5000.0 / 60.0);
                let kept: Pacer = serde_json::from_str(&serde_json::to_string(&pacer).unwrap()).unwrap();
                prop_assert_eq!(kept.may(60.0, 1, at(now)), pacer.may(60.0, 1, at(now)));
                prop_assert!(wait(&pacer, 60.0, 1, now) <= 300_000);
            }
        }
    }
}
