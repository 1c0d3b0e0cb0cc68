//! What is measured of a drained backlog, and what is good enough.
//!
//! - *whole*: the time until the receiver had accepted the last message ÷ that of the ideal sender; for ever, if more than
//!   one in a hundred was lost or never sent;
//! - *found*: the same for the last 80 % of the messages, where the limits stay as they are: by then they are known;
//! - *refused*: refused connections and transactions ÷ messages, as the receiver counted them; what it refused by chance is part of
//!   it, and is taken out before it is judged;
//! - *peak*: connections at a time, as the receiver counted them, from the first packet to the closed socket;
//! - *lost*: messages that ended with a 5xx;
//! - *reopened*: after a block, from the first message accepted until there are ten.

use std::time::Duration;

use weir::types::Timestamp;

use super::ideal::Ideal;
use super::scenario::{Family, Scenario};
use super::world::{START, Site};

/// With fewer of the messages accepted (the others lost, or never sent) it is no drained backlog, and has no time.
const DONE: f64 = 0.99;
/// After one in so many messages the limit is found.
const FOUND_AFTER: usize = 5;
/// A loss so long after the one before was a probe; sooner, it is one too many.
const PROBE_APART: Duration = Duration::from_secs(10);
/// So many accepted, and the lane is open again.
const REOPENED_WITH: usize = 10;
const REOPENED_MAX: Duration = Duration::from_secs(120);
/// Below so many an hour each refusal weighs more.
const SLOW_PER_HOUR: f64 = 200.0;
/// Up to this share noise is rare.
const NOISE_RARE: f64 = 0.002;

/// What is good enough. None: it is not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Targets {
    pub whole: Option<f64>,
    pub found: Option<f64>,
    /// Beyond what was refused by chance.
    pub refused: Option<f64>,
    pub estimate: Option<f64>,
    pub time: Option<Duration>,
    /// The relay's estimate is asked for when these shares of the messages are accepted.
    pub estimates_at: &'static [f64],
}

/// Of those that find a limit after a fifth of the mail.
const TENTHS: &[f64] = &[0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];
const OLD_ESTIMATES_AT: &[f64] = &[0.3, 0.5, 0.7, 0.9];
/// The old targets; refusals of backlogs of at least `REFUSED_FROM` messages.
pub const FOUND_MAX: f64 = 1.15;
pub const WHOLE_MAX: f64 = 1.4;
pub const REFUSED_MAX: f64 = 0.005;
pub const REFUSED_FROM: usize = 20_000;
/// "About when will it be empty?", once the limit is found.
pub const ESTIMATE_MAX: f64 = 0.2;

impl Targets {
    /// `best`: what the ideal sender takes.
    pub fn of(scenario: &Scenario, messages: usize, best: Duration) -> Targets {
        let some = Some::<f64>;
        let steady = Targets { estimate: some(0.25), estimates_at: TENTHS, ..Targets::default() };
        let per_hour = messages as f64 / best.as_secs_f64().max(1.0) * 3600.0;
        let few = if per_hour < SLOW_PER_HOUR { 0.03 } else { 0.005 };
        match scenario.family {
            Family::Old => Targets {
                whole: some(WHOLE_MAX),
                found: some(FOUND_MAX),
                refused: (messages >= REFUSED_FROM).then_some(REFUSED_MAX),
                estimate: some(ESTIMATE_MAX),
                time: None,
                estimates_at: OLD_ESTIMATES_AT,
            },
            Family::Window | Family::Day => {
                Targets { whole: some(1.35), found: some(1.2), refused: some(few), ..steady }
            }
            Family::Fast => Targets { whole: some(2.0), found: some(1.3), refused: some(0.01), ..steady },
            Family::Noise => {
                let whole = if scenario.noise() <= NOISE_RARE { 1.15 } else { 1.4 };
                Targets { whole: some(whole), refused: some(0.005), ..steady }
            }
            Family::Changing => Targets { whole: some(1.5), refused: some(0.005), ..Targets::default() },
            Family::Penalty => Targets { whole: some(2.0), ..steady },
            Family::Punishes => Targets { whole: some(1.2), ..steady },
            Family::Block => Targets::default(),
            Family::Small => Targets { whole: some(1.8), refused: some(0.02), ..Targets::default() },
            Family::Free => Targets { time: Some(Duration::from_secs(90)), refused: some(0.02), ..Targets::default() },
        }
    }
}

#[derive(Clone, Debug)]
pub struct Score {
    pub messages: usize,
    pub targets: Targets,
    pub whole: f64,
    pub found: Option<f64>,
    pub refused: f64,
    /// The part of `refused` that came by chance.
    pub noise: f64,
    /// Until the last message was accepted.
    pub time: Duration,
    pub peak: usize,
    pub ceiling: usize,
    pub lost: usize,
    /// Messages in flight when the receiver began to block, and one for each probe.
    pub lost_max: usize,
    /// Neither accepted nor lost when the time was over.
    pub left: usize,
    /// Offered again after a 5xx.
    pub retransmitted: u64,
    /// How far the relay's own estimate was off at worst, as a share of what was left to wait.
    pub estimate: Option<f64>,
    pub reopened: Option<Duration>,
}

impl Score {
    pub fn of(
        site: &Site,
        messages: usize,
        left: usize,
        ceiling: usize,
        scenario: &Scenario,
        ideal: &mut Ideal<'_>,
    ) -> Score {
        let mut accepted = site.accepted.clone();
        accepted.sort_unstable();
        let first = messages / FOUND_AFTER;
        let judgement = site.judgement();
        let best = ideal.time_for(messages);
        let targets = Targets::of(scenario, messages, best.unwrap_or_default());
        let best = best.filter(|_| accepted.len() as f64 >= messages as f64 * DONE);
        let share = |refused: u64| refused as f64 / messages.max(1) as f64;
        Score {
            messages,
            targets,
            whole: ratio(time(accepted.last()), best),
            found: scenario.is_steady().then(|| {
                let best = best.zip(ideal.time_for(first)).map(|(all, first)| all.saturating_sub(first));
                ratio(time(accepted.last()).saturating_sub(time(accepted.get(first))), best)
            }),
            refused: share(judgement.refused.attempts() + judgement.refused.noise),
            noise: share(judgement.refused.noise),
            time: time(accepted.last()),
            peak: site.peak,
            ceiling,
            lost: site.lost.len(),
            lost_max: if judgement.blocks == 0 { lost_max(site) } else { 0 },
            left,
            retransmitted: judgement.retransmitted,
            estimate: None,
            reopened: reopened(scenario, &accepted),
        }
    }

    /// The worse of two runs, number by number.
    pub fn worst(self, other: Score) -> Score {
        let more_lost = other.lost.saturating_sub(other.lost_max) > self.lost.saturating_sub(self.lost_max);
        let (lost, lost_max) = if more_lost { (other.lost, other.lost_max) } else { (self.lost, self.lost_max) };
        let more_refused = other.refused - other.noise > self.refused - self.noise;
        let (refused, noise) = if more_refused { (other.refused, other.noise) } else { (self.refused, self.noise) };
        Score {
            messages: self.messages,
            targets: self.targets,
            whole: self.whole.max(other.whole),
            found: worse(self.found, other.found),
            refused,
            noise,
            time: self.time.max(other.time),
            peak: self.peak.max(other.peak),
            ceiling: self.ceiling,
            lost,
            lost_max,
            left: self.left.max(other.left),
            retransmitted: self.retransmitted.max(other.retransmitted),
            estimate: worse(self.estimate, other.estimate),
            reopened: self.reopened.max(other.reopened),
        }
    }

    /// The targets that were missed.
    pub fn missed(&self) -> Vec<String> {
        let Targets { whole, found, refused, estimate, time, .. } = self.targets;
        let over = |value: Option<f64>, target: Option<f64>| {
            target.filter(|target| value.is_some_and(|value| value > *target))
        };
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let beyond = Some(self.refused - self.noise);
        let late = self.reopened.filter(|reopened| *reopened > REOPENED_MAX);
        [
            (self.left > 0).then(|| format!("{} messages never went", self.left)),
            over(Some(self.whole), whole).map(|target| format!("whole over {target}")),
            over(self.found, found).map(|target| format!("found over {target}")),
            over(beyond, refused).map(|target| format!("refused over {}", percent(target + self.noise))),
            time.filter(|target| self.time > *target).map(|target| format!("not done in {} s", target.as_secs())),
            (self.peak > self.ceiling).then(|| format!("over the ceiling of {}", self.ceiling)),
            (self.lost > self.lost_max)
                .then(|| format!("lost more than the {} in flight and of probes", self.lost_max)),
            (self.retransmitted > 0).then(|| format!("{} sent again after a 5xx", self.retransmitted)),
            late.map(|late| format!("{} s from the end of a block to ten messages", late.as_secs())),
            over(self.estimate, estimate).map(|target| format!("estimate off by over {}", percent(target))),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn worse(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.max(b)),
        (a, b) => a.or(b),
    }
}

/// What was in flight when a block began, and one for each probe: a loss well apart from the one before.
fn lost_max(site: &Site) -> usize {
    let apart = |pair: &&[Timestamp]| pair[1].since(pair[0]) > PROBE_APART;
    site.open_at_block.map_or(0, |open| open + site.lost.windows(2).filter(apart).count())
}

/// The longest time that it took to be open again after a block of the schedule; none: there was no block.
fn reopened(scenario: &Scenario, accepted: &[Timestamp]) -> Option<Duration> {
    let ends = scenario.receiver.change.iter().filter_map(|change| Some(START + change.after.0 + change.block?.0));
    let after = |end: Timestamp| {
        let rest = &accepted[accepted.partition_point(|moment| *moment < end)..];
        let tenth = rest.get(REOPENED_WITH - 1).or(rest.last())?;
        Some(tenth.since(*rest.first()?))
    };
    ends.filter_map(after).max()
}

fn time(moment: Option<&Timestamp>) -> Duration {
    moment.map_or(Duration::ZERO, |moment| moment.since(START))
}

/// Without a time to compare with it took for ever. An ideal of under a second counts as a second: the ideal sender knows no smaller step.
fn ratio(time: Duration, ideal: Option<Duration>) -> f64 {
    ideal.map_or(f64::INFINITY, |ideal| time.as_secs_f64() / ideal.as_secs_f64().max(1.0))
}
