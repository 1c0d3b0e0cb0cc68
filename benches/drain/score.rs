//! What is measured of a drained backlog, and what is good enough.
//!
//! - *whole*: the time until the receiver had accepted the last message ÷ that of the ideal sender; for ever, if more than
//!   one in a hundred was lost or never sent;
//! - *found*: the same for the last 80 % of the messages, where the limits stay as they are: by then they are known;
//! - *refused*: refused connections and transactions ÷ messages, as the receiver counted them;
//! - *peak*: connections at a time, as the receiver counted them, from the first packet to the closed socket;
//! - *lost*: messages that ended with a 5xx.

use std::time::Duration;

use weir::types::Timestamp;

use super::ideal::Ideal;
use super::world::{START, Site};

pub const FOUND_MAX: f64 = 1.15;
pub const WHOLE_MAX: f64 = 1.4;
/// Of backlogs of at least `REFUSED_FROM` messages.
pub const REFUSED_MAX: f64 = 0.005;
pub const REFUSED_FROM: usize = 20_000;
/// "About when will it be empty?", once the limit is found.
pub const ESTIMATE_MAX: f64 = 0.2;
/// With fewer of the messages accepted (the others lost, or never sent) it is no drained backlog, and has no time.
const DONE: f64 = 0.99;
/// After one in so many messages the limit is found.
const FOUND_AFTER: usize = 5;

#[derive(Clone, Debug)]
pub struct Score {
    pub messages: usize,
    pub whole: f64,
    pub found: Option<f64>,
    pub refused: f64,
    pub peak: usize,
    pub ceiling: usize,
    pub lost: usize,
    /// Messages in flight when the receiver began to block.
    pub lost_max: usize,
    /// Neither accepted nor lost when the time was over.
    pub left: usize,
    /// Offered again after a 5xx.
    pub retransmitted: u64,
    /// How far the relay's own estimate was off at worst, as a share of what was left to wait.
    pub estimate: Option<f64>,
}

impl Score {
    pub fn of(site: &Site, messages: usize, left: usize, ceiling: usize, steady: bool, ideal: &mut Ideal<'_>) -> Score {
        let mut accepted = site.accepted.clone();
        accepted.sort_unstable();
        let first = messages / FOUND_AFTER;
        let judgement = site.judgement();
        let best = ideal.time_for(messages).filter(|_| accepted.len() as f64 >= messages as f64 * DONE);
        Score {
            messages,
            whole: ratio(time(accepted.last()), best),
            found: steady.then(|| {
                let best = best.zip(ideal.time_for(first)).map(|(all, first)| all.saturating_sub(first));
                ratio(time(accepted.last()).saturating_sub(time(accepted.get(first))), best)
            }),
            refused: judgement.refused.attempts() as f64 / messages.max(1) as f64,
            peak: site.peak,
            ceiling,
            lost: site.lost,
            lost_max: site.open_at_block.filter(|_| judgement.blocks == 0).unwrap_or(0),
            left,
            retransmitted: judgement.retransmitted,
            estimate: None,
        }
    }

    /// The worse of two runs, number by number.
    pub fn worst(self, other: Score) -> Score {
        let worse = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        let more_lost = other.lost.saturating_sub(other.lost_max) > self.lost.saturating_sub(self.lost_max);
        let (lost, lost_max) = if more_lost { (other.lost, other.lost_max) } else { (self.lost, self.lost_max) };
        Score {
            messages: self.messages,
            whole: self.whole.max(other.whole),
            found: worse(self.found, other.found),
            refused: self.refused.max(other.refused),
            peak: self.peak.max(other.peak),
            ceiling: self.ceiling,
            lost,
            lost_max,
            left: self.left.max(other.left),
            retransmitted: self.retransmitted.max(other.retransmitted),
            estimate: worse(self.estimate, other.estimate),
        }
    }

    /// The targets that were missed.
    pub fn missed(&self) -> Vec<String> {
        let mut missed = Vec::new();
        let mut miss = |is_missed: bool, text: String| {
            if is_missed {
                missed.push(text);
            }
        };
        miss(self.left > 0, format!("{} messages never went", self.left));
        miss(self.whole > WHOLE_MAX, format!("whole over {WHOLE_MAX}"));
        miss(self.found.is_some_and(|found| found > FOUND_MAX), format!("found over {FOUND_MAX}"));
        let counts = self.messages >= REFUSED_FROM;
        miss(counts && self.refused > REFUSED_MAX, format!("refused over {} %", REFUSED_MAX * 100.0));
        miss(self.peak > self.ceiling, format!("over the ceiling of {}", self.ceiling));
        miss(self.lost > self.lost_max, format!("lost more than the {} in flight", self.lost_max));
        miss(self.retransmitted > 0, format!("{} sent again after a 5xx", self.retransmitted));
        let off = self.estimate.is_some_and(|estimate| estimate > ESTIMATE_MAX);
        miss(off, format!("estimate off by over {} %", ESTIMATE_MAX * 100.0));
        missed
    }
}

fn time(moment: Option<&Timestamp>) -> Duration {
    moment.map_or(Duration::ZERO, |moment| moment.since(START))
}

/// Without a time to compare with it took for ever. An ideal of under a second counts as a second: the ideal sender knows no smaller step.
fn ratio(time: Duration, ideal: Option<Duration>) -> f64 {
    ideal.map_or(f64::INFINITY, |ideal| time.as_secs_f64() / ideal.as_secs_f64().max(1.0))
}
