//! Refusals that mean nothing: how often they come, and how to tell them from a limit.
//!
//! A limit refuses what goes beyond it and nothing else: at a rate that was taken the whole time, waits included, it never
//! refuses. Noise does. So when refusals come again soon, a **trial** goes on at that rate for a while: is there no refusal, the limit is real;
//! are there three, fewer do not help, and what is refused so seldom is noise from then on. Rules that always hold:
//!
//! - noise is never taken for more than `SHARE_MAX`, and is forgotten when it does not come;
//! - once known it stops nobody, as long as it comes no more often than half as often again as it did;
//! - refusals at even distances are a limit's, whatever the rate.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rate::{Cycle, Moment};
use crate::types::Timestamp;

/// It is never taken for more often than so many times what trials showed, which count so many refusals.
const CREEP: f64 = 1.4;
const SHOWN_MOST: f64 = 15.0;
/// More than this is no noise.
const SHARE_MAX: f64 = 0.03;
/// Less is not worth a thought.
const SHARE_MIN: f64 = 0.0003;
/// It comes more often than is known when so many refusals are not made up for, where each accepted message makes up for so many
/// times the share: in a burst, and over long. Chance alone does either after one refusal in a hundred.
const BURST: (f64, f64) = (3.0, 2.5);
const OFTEN: (f64, f64) = (1.3, 10.0);
/// What comes at a rate that holds is counted over so many messages.
const STRAYED_MOST: f64 = 10_000.0;
/// After so many it is looked at anew; each time it is shown again doubles that, so often at most.
const TRUSTED_FOR: u32 = 12;
const DOUBLED_MOST: u8 = 5;
/// In a trial, noise that is known is not thought of where it would bring its refusals more seldom than that.
const UNLIKELY: f64 = 0.02;
/// Refusals in a trial that make it noise.
const PROOF: u32 = 3;
/// A trial lasts so many times the messages there were between two refusals before it.
const TRIAL: f64 = 3.0;
/// A trial's rate is lowered so often where less than that went.
const LOWERED_MAX: u8 = 6;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Noise {
    refused: f64,
    /// Recipients accepted between these.
    accepted: f64,
    /// Accepted since ever at the last of them.
    seen_at: u64,
    /// Refusals that are not made up for yet by what was accepted.
    strikes: f64,
    strikes_at: u64,
    /// The same while noise is known: in a burst and over long, and what was accepted since ever by then.
    surplus: (f64, f64),
    taken_at: u64,
    trusted: u32,
    /// How often it was shown to be noise.
    proofs: u8,
    /// Refusals of all trials that showed it, and what was accepted in them.
    shown: (f64, f64),
    /// Refusals at a rate that had held, and accepted between: what comes at a rate that is taken.
    stray: f64,
    strayed: f64,
}

impl Noise {
    /// So many were accepted at a rate that holds, and `refused` came in spite of that.
    pub(super) fn stray(&mut self, accepted: u64, refused: bool) {
        (self.stray, self.strayed) = (self.stray + f64::from(u8::from(refused)), self.strayed + accepted as f64);
        if self.strayed > STRAYED_MOST {
            (self.stray, self.strayed) = (self.stray / 2.0, self.strayed / 2.0);
        }
    }

    /// How likely is it that chance alone refuses `refused` or more of so many messages?
    pub(super) fn chance(&self, refused: u32, messages: u64) -> f64 {
        at_least(refused, self.stray / self.strayed.max(1.0) * messages as f64)
    }

    /// The share that trials have shown.
    fn shown(&self) -> f64 {
        self.shown.0 / self.shown.1.max(1.0)
    }

    pub(super) fn is_known(&self, total: u64) -> bool {
        self.share(total) > 0.0
    }

    /// The share of messages it refuses; 0: none is known.
    pub(super) fn share(&self, total: u64) -> f64 {
        if self.refused <= 0.0 {
            return 0.0;
        }
        let share = self.refused / (self.accepted + total.saturating_sub(self.seen_at) as f64).max(1.0);
        let shown = CREEP * self.shown();
        if share < SHARE_MIN { 0.0 } else { share.min(SHARE_MAX).min(shown) }
    }

    /// A refusal: is it noise that is known, so that nothing stops?
    pub(super) fn takes(&mut self, total: u64) -> bool {
        let share = self.share(total);
        if share == 0.0 {
            return false;
        }
        let accepted = total.saturating_sub(self.taken_at) as f64;
        self.taken_at = total;
        let surplus = |before: f64, times: f64| (before - times * share * accepted).max(0.0) + 1.0;
        self.surplus = (surplus(self.surplus.0, BURST.0), surplus(self.surplus.1, OFTEN.0));
        if self.surplus.0 > BURST.1 || self.surplus.1 > OFTEN.1 {
            self.surplus = (0.0, 0.0);
            return false;
        }
        self.trusted += 1;
        self.refused += 1.0;
        self.accepted += total.saturating_sub(self.seen_at) as f64;
        self.seen_at = total;
        if self.refused > 16.0 {
            (self.refused, self.accepted) = (self.refused / 2.0, self.accepted / 2.0);
        }
        true
    }

    /// Counts a refusal; each accepted message makes up for `share` of one. How many are not made up for?
    pub(super) fn strike(&mut self, share: f64, total: u64) -> f64 {
        let made_up = share * total.saturating_sub(self.strikes_at) as f64;
        self.strikes = (self.strikes - made_up).max(0.0) + 1.0;
        self.strikes_at = total;
        self.strikes
    }

    pub(super) fn clear_strikes(&mut self) {
        self.strikes = 0.0;
    }

    /// Is it time to look anew whether it is noise?
    pub(super) fn is_due(&mut self) -> bool {
        let due = self.trusted >= TRUSTED_FOR << self.proofs.min(DOUBLED_MOST);
        if due {
            self.trusted = 0;
        }
        due
    }

    fn learn(&mut self, refused: f64, accepted: f64, total: u64) {
        let accepted = accepted.max(refused / SHARE_MAX);
        let Noise { stray, strayed, proofs, mut shown, .. } = *self;
        let proofs = proofs.saturating_add(1);
        shown = (shown.0 + refused, shown.1 + accepted);
        if shown.0 > SHOWN_MOST {
            shown = (shown.0 / 2.0, shown.1 / 2.0);
        }
        let (seen_at, strikes_at, taken_at) = (total, total, total);
        *self = Noise {
            refused,
            accepted,
            seen_at,
            strikes_at,
            taken_at,
            stray,
            strayed,
            proofs,
            shown,
            ..Noise::default()
        };
    }
}

/// How likely are so many, where `mean` of them are expected and each comes for itself?
fn at_least(count: u32, mean: f64) -> f64 {
    let below = (0..count).scan(1.0, |term, n| {
        let this = *term;
        *term *= mean / f64::from(n + 1);
        Some(this)
    });
    1.0 - (-mean).exp() * below.sum::<f64>()
}

/// A trial under way.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Trial {
    /// Messages there were between two refusals before it.
    before: f64,
    refused: u32,
    lowered: u8,
    /// Accepted since ever when it began, or began anew.
    from: u64,
    begun: Timestamp,
    /// When the next look was due.
    #[serde(default)]
    pub(super) look: Timestamp,
    /// The shortest and the longest way between its refusals.
    gaps: (u64, u64),
    /// Messages and seconds up to its refusals, waits included.
    went: (f64, f64),
}

/// What a refusal says about a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Finding {
    /// It goes on at the same rate.
    Open,
    /// It goes on at so many recipients a second: less went than was tried.
    Lower(f64),
    Noise,
}

impl Trial {
    pub(super) fn new(before: f64, total: u64, look: Timestamp, now: Timestamp) -> Trial {
        Trial {
            before: before.clamp(10.0, 300.0),
            refused: 0,
            lowered: 0,
            from: total,
            begun: now,
            look,
            gaps: (u64::MAX, 0),
            went: (0.0, 0.0),
        }
    }

    pub(super) fn moments(&mut self) -> [&mut Timestamp; 2] {
        [&mut self.begun, &mut self.look]
    }

    /// Enough was accepted with few enough refusals, or for `longest` without any: the limit is real.
    pub(super) fn is_passed(&self, total: u64, longest: Duration, now: Timestamp) -> bool {
        let enough = total.saturating_sub(self.from) as f64 > TRIAL * self.before * f64::from(1 + self.refused);
        enough || (self.refused == 0 && now.since(self.begun) > longest)
    }

    /// Something was refused at `rate`; `cycle` is what went since the refusal before, with the wait for it.
    pub(super) fn refused(&mut self, noise: &mut Noise, rate: f64, cycle: &Cycle, at: Moment<'_>) -> Finding {
        let (gap, total) = (cycle.gap, at.total());
        self.refused += 1;
        self.gaps = (self.gaps.0.min(gap), self.gaps.1.max(gap));
        self.went = (self.went.0 + gap as f64, self.went.1 + cycle.secs);
        let mean = self.went.0 / self.went.1.max(1e-9);
        let as_known = at_least(self.refused, noise.shown() * total.saturating_sub(self.from) as f64) > UNLIKELY;
        let may_lower = !as_known && self.lowered < LOWERED_MAX;
        // One may come soon by chance; two that come soon show that less goes than was tried.
        if self.refused == 2 && mean < 0.8 * rate && may_lower {
            self.begin_anew(total, at.now);
            return Finding::Lower((0.95 * mean).max(0.5 * rate));
        }
        if self.refused < PROOF {
            return Finding::Open;
        }
        let is_even = self.gaps.0 >= 2 && self.gaps.1 as f64 <= 1.3 * self.gaps.0 as f64 + 1.0;
        if is_even && may_lower {
            self.begin_anew(total, at.now);
            return Finding::Lower(0.8 * rate);
        }
        noise.learn(f64::from(self.refused), total.saturating_sub(self.from) as f64, total);
        Finding::Noise
    }

    fn begin_anew(&mut self, total: u64, now: Timestamp) {
        *self = Trial {
            lowered: self.lowered + 1,
            refused: 0,
            from: total,
            begun: now,
            gaps: (u64::MAX, 0),
            went: (0.0, 0.0),
            ..*self
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::history::History;

    const AT: Timestamp = Timestamp::from_secs(1_000_000_000);

    /// What a trial at `rate` finds when messages and seconds lie between its refusals.
    fn findings(noise: &mut Noise, rate: f64, cycles: &[(u64, f64)]) -> Vec<Finding> {
        let (mut trial, mut history, now) = (Trial::new(10.0, 0, Timestamp::NEVER, AT), History::default(), AT);
        let mut found = Vec::new();
        for (gap, secs) in cycles {
            history.add(u32::try_from(*gap).unwrap(), now, now);
            let at = Moment { history: &history, pause: Duration::from_secs(600), now };
            found.push(trial.refused(noise, rate, &Cycle { gap: *gap, secs: *secs }, at));
        }
        found
    }

    #[test]
    fn three_refusals_at_a_rate_that_was_taken_are_noise() {
        let mut noise = Noise::default();
        let found = findings(&mut noise, 1.0, &[(60, 64.0), (150, 155.0), (90, 95.0)]);
        assert_eq!(found, [Finding::Open, Finding::Open, Finding::Noise]);
        assert!((noise.share(300) - 0.01).abs() < 1e-9, "{noise:?}");
    }

    #[test]
    fn refusals_at_even_distances_are_a_limits() {
        let mut noise = Noise::default();
        let found = findings(&mut noise, 1.0, &[(50, 53.0), (50, 53.0), (51, 54.0)]);
        assert_eq!(found, [Finding::Open, Finding::Open, Finding::Lower(0.8)]);
        assert!(!noise.is_known(151));
    }

    #[test]
    fn two_refusals_that_come_soon_lower_the_rate() {
        let found = findings(&mut Noise::default(), 4.0, &[(7, 8.0), (9, 8.0)]);
        assert_eq!(found, [Finding::Open, Finding::Lower(2.0)]);
    }

    #[test]
    fn a_trial_passes_when_enough_was_accepted_or_for_long_nothing_refused() {
        let (trial, longest) = (Trial::new(100.0, 1000, Timestamp::NEVER, AT), Duration::from_secs(600));
        assert!(!trial.is_passed(1300, longest, AT) && trial.is_passed(1301, longest, AT));
        assert!(trial.is_passed(1001, longest, AT + Duration::from_secs(601)));
    }

    #[test]
    fn known_noise_stops_nobody_until_it_comes_more_often() {
        let mut noise = Noise::default();
        noise.learn(3.0, 300.0, 0);
        let (mut total, mut taken) = (0, 0);
        for _ in 0..50 {
            total += 100;
            taken += u32::from(noise.takes(total));
        }
        assert_eq!(taken, 50);
        let burst = (0..10).take_while(|_| noise.takes(total)).count();
        assert!(burst <= 2, "{burst}");
    }

    #[test]
    fn noise_that_comes_three_times_as_often_for_long_is_no_noise() {
        let mut noise = Noise::default();
        noise.learn(6.0, 600.0, 0);
        let taken = (1..200).take_while(|n| noise.takes(33 * n)).count();
        assert!((8..60).contains(&taken), "{taken}");
    }

    #[test]
    fn what_was_shown_again_and_again_is_looked_at_more_and_more_seldom() {
        let (mut noise, mut total) = (Noise::default(), 0);
        let mut times = Vec::new();
        for _ in 0..4 {
            noise.learn(3.0, 300.0, total);
            let until_due = (1..1000).find(|_| {
                total += 150;
                noise.takes(total);
                noise.is_due()
            });
            times.push(until_due.unwrap());
        }
        assert_eq!(times, [24, 48, 96, 192]);
    }

    #[test]
    fn known_noise_is_thought_of_before_a_trial_is_lowered() {
        let cycles = [(20, 40.0), (30, 50.0)];
        assert_eq!(findings(&mut Noise::default(), 1.0, &cycles).last(), Some(&Finding::Lower(0.95 * 50.0 / 90.0)));
        let mut noise = Noise::default();
        noise.learn(9.0, 900.0, 0);
        assert_eq!(findings(&mut noise, 1.0, &cycles).last(), Some(&Finding::Open));
    }

    #[test]
    fn chance_is_what_came_at_a_rate_that_held() {
        let mut noise = Noise::default();
        assert_eq!(noise.chance(1, 1000), 0.0, "nothing came");
        for _ in 0..3 {
            noise.stray(1000, true);
        }
        assert!((noise.chance(1, 100) - 0.095).abs() < 0.001);
        assert!(noise.chance(2, 100) < 0.005 && noise.chance(1, 5000) > 0.99);
    }

    #[test]
    fn what_does_not_come_is_forgotten() {
        let mut noise = Noise::default();
        noise.learn(3.0, 300.0, 0);
        assert!(noise.is_known(1000) && !noise.is_known(100_000));
    }
}
