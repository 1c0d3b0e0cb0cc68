//! How long a lane rests after a refusal of its rate before one message asks.
//!
//! To ask costs one refusal, not to ask costs what could have gone: the first wait is short. It is shorter where one question after
//! another was accepted, and longer where a wait was too short: a receiver that punishes is asked later.

use serde::{Deserialize, Serialize};

use super::incident::Incident;
use crate::types::Timestamp;

/// The first wait, in units: a part of the time since the lane was opened, within these.
const FIRST_PART: f64 = 0.2;
const FIRST: (f64, f64) = (0.5, 6.0);
/// Less is shorter than an answer takes, however small the pause.
const FIRST_SECS: f64 = 0.2;
/// Each question in a row that is accepted halves the longest first wait, so often at most, and not below the time of so many messages.
const EASED_MOST: u8 = 3;
const EASED_MESSAGES: f64 = 8.0;
/// A refusal that speaks of reputation (a kind that waits for so many pauses or more) lasts so many times as long.
const REPUTATION_FROM: f64 = 2.0;
const REPUTATION: f64 = 10.0;
/// A message's time and a half has passed, where that is no longer than so many units.
const MESSAGES: f64 = 1.5;
const MESSAGES_MOST: f64 = 600.0;
/// Whoever needed a long wait that nothing explained waits at first for this part of it, and so long at most, in units.
const NEED_PART: f64 = 0.25;
const NEED_MOST: f64 = 360.0;
const NEED_FADES: f64 = 0.6;
/// Until this wait, in units, the next refusal soon after it waits nearly as long at once.
const NEED_AGAIN: f64 = 90.0;
const NEED_AGAIN_PART: f64 = 0.8;
/// Twice as long as a first wait of so many units or more that was too short; that counts less with each that was not.
const TOO_SHORT_FROM: f64 = 60.0;
const TOO_SHORT_FADES: f64 = 0.9;

/// What earlier questions have taught.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Question {
    /// The longest wait that was needed lately, in seconds.
    need: f64,
    /// A long first wait that was too short lately, in seconds.
    too_short: f64,
    /// The last question was refused.
    was_refused: bool,
    /// Questions in a row that were accepted.
    eased: u8,
}

/// The refusal that a question is to follow.
pub(super) struct After {
    /// What its kind waits for, in pauses.
    pub part: f64,
    /// Seconds since the lane was opened.
    pub run: f64,
    /// Recipients a second that are allowed; none: as many as the connections carry.
    pub pace: Option<f64>,
    /// Recipients a second that went.
    pub went: f64,
    /// A window that is guessed explains it.
    pub is_explained: bool,
    /// Seconds until the window that is expected to be full has room.
    pub room: Option<f64>,
    pub unit: f64,
}

impl Question {
    /// The wait before the first question, in seconds.
    pub(super) fn first_wait(&self, after: &After) -> f64 {
        let unit = after.unit;
        let is_reputation = after.part >= REPUTATION_FROM;
        let kind = if is_reputation { REPUTATION * after.part } else { after.part };
        let eased = FIRST.1 / f64::from(1u32 << self.eased.min(EASED_MOST));
        let messages = EASED_MESSAGES / after.pace.unwrap_or(after.went) / unit;
        let most = if is_reputation { FIRST.1 } else { eased.max(messages).clamp(FIRST.0, FIRST.1) };
        let least = if is_reputation { FIRST.1 } else { FIRST.0 };
        let need = (NEED_PART * self.need).min(NEED_MOST * unit);
        let again = self.was_refused && after.run < 2.0 * self.need && self.need <= NEED_AGAIN * unit;
        [
            (FIRST_PART * after.run).clamp(least * unit, most * unit) * kind,
            FIRST_SECS,
            (2.0 * self.too_short).min(NEED_MOST * unit),
            after.pace.map_or(0.0, |pace| (MESSAGES / pace).min(MESSAGES_MOST * unit)),
            if after.is_explained { 0.0 } else { need },
            after.room.unwrap_or(0.0),
            if again { NEED_AGAIN_PART * self.need } else { 0.0 },
        ]
        .into_iter()
        .fold(0.0, f64::max)
    }

    /// The message that asked last was accepted.
    pub(super) fn answered(&mut self, incident: &Incident, unit: f64, now: Timestamp) {
        self.was_refused = incident.refused > 0;
        if self.was_refused {
            self.need = incident.lasted(now);
            self.eased = 0;
            self.too_short = if incident.first_wait >= TOO_SHORT_FROM * unit { incident.first_wait } else { 0.0 };
        } else {
            self.need *= NEED_FADES;
            self.eased = (self.eased + 1).min(EASED_MOST);
            self.too_short *= TOO_SHORT_FADES;
        }
    }

    /// The long wait that was needed is explained: the receiver did not punish.
    pub(super) fn explained(&mut self) {
        self.need = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::history::History;
    use crate::throttle::window::Counts;

    const AT: Timestamp = Timestamp::from_secs(1_000_000_000);

    fn after(part: f64, run: f64, pace: Option<f64>) -> After {
        After { part, run, pace, went: 10.0, is_explained: false, room: None, unit: 1.0 }
    }

    /// An incident with this first wait, after which so many questions were refused, and what it taught `secs` after its beginning.
    fn answered(question: &mut Question, first_wait: f64, refused: u32, secs: i64) {
        let mut incident = Incident::new(Counts::at(&History::default(), 1.0, AT), 1.0, first_wait, AT);
        incident.refused = refused;
        question.answered(&incident, 1.0, AT + std::time::Duration::from_secs(secs.unsigned_abs()));
    }

    #[test]
    fn the_first_wait_is_a_part_of_the_time_before_and_longer_for_reputation() {
        let question = Question::default();
        for (part, run, wait) in
            [(1.0, 0.1, 0.5), (1.0, 10.0, 2.0), (1.0, 1000.0, 6.0), (1.5, 10.0, 3.0), (4.0, 0.1, 240.0)]
        {
            let found = question.first_wait(&after(part, run, None));
            assert!((found - wait).abs() < 1e-9, "{part} {run}: {found}");
        }
        assert_eq!(question.first_wait(&After { unit: 0.001, ..after(1.0, 0.1, None) }), FIRST_SECS);
    }

    #[test]
    fn questions_that_are_accepted_come_sooner_and_one_that_is_refused_takes_that_back() {
        let mut question = Question::default();
        let mut waits = Vec::new();
        for _ in 0..5 {
            waits.push(question.first_wait(&after(1.0, 1000.0, Some(100.0))));
            answered(&mut question, 6.0, 0, 6);
        }
        assert_eq!(waits, [6.0, 3.0, 1.5, 0.75, 0.75]);
        assert_eq!(question.first_wait(&after(1.0, 1000.0, Some(4.0))), 2.0, "the time of eight messages");
        answered(&mut question, 0.75, 1, 3);
        assert_eq!(question.first_wait(&after(1.0, 1000.0, Some(100.0))), 6.0);
    }

    #[test]
    fn who_punished_is_asked_later_and_not_again_so_soon_as_was_too_soon() {
        let mut question = Question::default();
        answered(&mut question, 6.0, 3, 1000);
        assert_eq!(question.first_wait(&after(1.0, 5000.0, Some(1.0))), 250.0);
        answered(&mut question, 150.0, 1, 400);
        assert_eq!(question.first_wait(&after(1.0, 5000.0, Some(1.0))), 300.0);
        let explained = After { is_explained: true, ..after(1.0, 5000.0, Some(1.0)) };
        answered(&mut question, 6.0, 1, 400);
        assert_eq!(question.first_wait(&explained), 6.0);
    }
}
