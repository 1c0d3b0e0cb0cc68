//! Which span of time does a receiver count within? Nobody says it, so every refusal asks the same of a dozen spans.
//!
//! Spans are given in units: seconds where the provider's `pause` is 10 minutes, and so much less where it is shorter.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::History;
use crate::types::Timestamp;

/// A second to a day.
pub(super) const SPANS: [u32; 13] = [1, 10, 60, 180, 300, 600, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400];
const NUMBER: usize = SPANS.len();
/// A shorter one is a rate and nothing else: counting it would need the receiver's clock.
pub(super) const COUNTED_FROM: u32 = 60;

/// The length of one unit of learning, in seconds.
pub(super) fn unit(pause: Duration) -> f64 {
    pause.as_secs_f64() / 600.0
}

/// A span of so many units.
pub(super) fn span(units: u32, unit: f64) -> Duration {
    Duration::from_secs_f64((f64::from(units) * unit).min(86_400.0))
}

/// A limit with the span it counts within.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Window {
    /// In units.
    pub span: u32,
    /// Recipients that had been accepted within it when one more was refused.
    pub count: f64,
}

impl Window {
    pub(super) fn length(&self, unit: f64) -> Duration {
        span(self.span, unit)
    }

    /// Recipients a second.
    pub(super) fn rate(&self, unit: f64) -> f64 {
        self.count / self.length(unit).as_secs_f64().max(1e-3)
    }

    pub(super) fn held(&self, history: &History, unit: f64, now: Timestamp) -> f64 {
        history.count(self.length(unit), now) as f64
    }
}

/// What each span held at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts([u64; NUMBER]);

impl Counts {
    pub(super) fn at(history: &History, unit: f64, now: Timestamp) -> Counts {
        Counts(SPANS.map(|units| history.count(span(units, unit), now)))
    }

    /// By its place in `SPANS`.
    pub(super) fn of(&self, place: usize) -> f64 {
        self.0[place] as f64
    }

    pub(super) fn of_span(&self, units: u32) -> f64 {
        SPANS.iter().position(|span| *span == units).map_or(0.0, |place| self.of(place))
    }

    /// So many more in every span: what was on its way and is accepted after all.
    pub(super) fn grow(&mut self, recipients: u32) {
        self.0.iter_mut().for_each(|count| *count += u64::from(recipients));
    }

    pub(super) fn is_one_burst(&self) -> bool {
        self.0[0] == self.0[NUMBER - 1]
    }
}

/// Spans, by their places in `SPANS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Places(u16);

impl Places {
    pub(super) fn add(&mut self, place: usize) {
        self.0 |= 1 << place;
    }

    pub(super) fn has(self, place: usize) -> bool {
        self.0 & (1 << place) != 0
    }

    /// The longest span among them, in units; 0: none.
    pub(super) fn longest(self) -> u32 {
        (0..NUMBER).rev().find(|place| self.has(*place)).map_or(0, |place| SPANS[place])
    }
}

/// The span in words: `10 min`.
pub(super) fn in_words(length: Duration) -> String {
    let seconds = length.as_secs_f64();
    let number = |value: f64| {
        let text = format!("{value:.1}");
        text.strip_suffix(".0").map_or(text.clone(), str::to_string)
    };
    match seconds {
        _ if seconds < 90.0 && (seconds - 60.0).abs() > 0.5 => format!("{} s", number(seconds)),
        _ if seconds < 5400.0 && (seconds - 3600.0).abs() > 0.5 => format!("{} min", number(seconds / 60.0)),
        _ => format!("{} h", number(seconds / 3600.0)),
    }
}
