//! When mail comes: all at once, or in the course of time.

use std::time::Duration;

use serde::Deserialize;
use weir::types::Span;

/// Mail is handed in once a second.
const EACH: Duration = Duration::from_secs(1);

/// So many messages, evenly over a time.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arrival {
    /// After the start.
    #[serde(default = "at_once")]
    pub after: Span,
    pub messages: usize,
    #[serde(default = "at_once")]
    pub over: Span,
}

fn at_once() -> Span {
    Span(Duration::ZERO)
}

impl Arrival {
    pub fn at_once(messages: usize) -> Arrival {
        Arrival { after: at_once(), messages, over: at_once() }
    }

    /// How many have come when so much time has passed.
    pub fn by(&self, time: Duration) -> usize {
        let Some(passed) = time.checked_sub(self.after.0) else { return 0 };
        let (begun, all) = (passed.as_secs() + 1, self.seconds());
        let share = (self.messages as u128 * u128::from(begun.min(all))).div_ceil(u128::from(all));
        usize::try_from(share).unwrap_or(self.messages)
    }

    /// What is handed in, and when.
    pub fn batches(&self) -> impl Iterator<Item = (Duration, usize)> + '_ {
        let at = |second: u64| self.after.0 + EACH * u32::try_from(second).unwrap_or(u32::MAX);
        let count = move |second: u64| match second.checked_sub(1) {
            Some(before) => self.by(at(second)) - self.by(at(before)),
            None => self.by(at(second)),
        };
        (0..self.seconds()).map(move |second| (at(second), count(second))).filter(|(_, count)| *count > 0)
    }

    fn seconds(&self) -> u64 {
        self.over.0.as_secs().max(1)
    }
}

/// How many of all arrivals have come by then.
pub fn by(arrivals: &[Arrival], time: Duration) -> usize {
    arrivals.iter().map(|arrival| arrival.by(time)).sum()
}
