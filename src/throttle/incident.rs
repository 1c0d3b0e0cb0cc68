//! An incident: from the first refusal of a rate until a message is accepted again.
//!
//! After the refusal the lane rests for a short wait, and one message asks. Is it accepted, the refusal was *light*: noise, or a
//! limit that was passed by little. Is it refused too, the receiver is *full*, and the next question waits until the shortest
//! span that can still explain it has room: in a minute, ten minutes, an hour, six hours, a day. Rules that always hold:
//!
//! - a span in which a tenth had become free, and the message was refused all the same, cannot be the reason;
//! - each wait is at least as long as the one before, and where no span explains it any more four times as long, up to the longest span.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::History;
use super::window::{COUNTED_FROM, Counts, Places, SPANS, Window, span};
use crate::types::Timestamp;

/// The spans that receivers mostly count within: questions come when one of them has room.
const USUAL: [u32; 7] = [1, 10, 60, 600, 3600, 21_600, 86_400];
/// A span has room when it holds this part of what it held.
const ROOM: f64 = 0.9;
/// Later than the moment itself: clocks differ.
const LATER: f64 = 1.02;
/// A usual span is waited for when that is at most so many times the last wait; nearer where the limit is known.
const STRETCH: f64 = 20.0;
const STRETCH_KNOWN: f64 = 5.0;
/// So much longer where nothing explains the refusal.
const LONGER: f64 = 4.0;
/// Past this wait, in units, each is at least so much longer.
const LONG: f64 = 60.0;
const LONG_LONGER: f64 = 3.0;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Incident {
    pub first: Timestamp,
    /// The wait before the next question, in seconds.
    wait: f64,
    /// The wait before the first one.
    #[serde(default)]
    pub first_wait: f64,
    /// Questions that were refused.
    pub refused: u32,
    /// What each span held at the refusal, with what was on its way and accepted after it.
    pub counts: Counts,
    /// Cannot be the reason.
    excluded: Places,
    /// Recipients a second just before.
    pub pace: f64,
    /// Seconds in which nobody could ask for want of a connection.
    #[serde(default)]
    pub rested: f64,
}

impl Incident {
    pub(super) fn new(counts: Counts, pace: f64, wait: f64, now: Timestamp) -> Incident {
        Incident {
            first: now,
            wait,
            first_wait: wait,
            refused: 0,
            counts,
            excluded: Places::default(),
            pace,
            rested: 0.0,
        }
    }

    pub(super) fn wait(&self) -> Duration {
        Duration::from_secs_f64(self.wait.clamp(0.0, 1e7))
    }

    /// How long it has lasted, in seconds, as far as it was the receiver's doing.
    pub(super) fn lasted(&self, now: Timestamp) -> f64 {
        (now.since(self.first).as_secs_f64() - self.rested).max(0.0)
    }

    /// What was begun before it was accepted.
    pub(super) fn late(&mut self, recipients: u32) {
        if self.refused == 0 {
            self.counts.grow(recipients);
        }
    }

    /// The message that asked was refused; `is_known`: a limit is known or guessed.
    pub(super) fn ask_refused(&mut self, history: &History, is_known: bool, unit: f64, now: Timestamp) {
        self.refused += 1;
        let held = Counts::at(history, unit, now);
        (0..SPANS.len()).filter(|n| held.of(*n) <= ROOM * self.counts.of(*n)).for_each(|n| self.excluded.add(n));
        let stretch = if is_known { STRETCH_KNOWN } else { STRETCH };
        let least = if self.wait > LONG * unit { LONG_LONGER * self.wait } else { self.wait };
        let next = self.next_room(history, unit, now).filter(|room| *room <= stretch * self.wait.max(3.0 * unit));
        self.wait = next.map_or(LONGER * self.wait, |room| room.max(least)).min(86_400.0 * unit);
    }

    /// In how many seconds the shortest usual span that is not excluded has room, past half of the last wait.
    fn next_room(&self, history: &History, unit: f64, now: Timestamp) -> Option<f64> {
        let in_question = |n: &usize| {
            let is_usual = USUAL.contains(&SPANS[*n]) && (SPANS[*n] != 10 || self.counts.is_one_burst());
            is_usual && !self.excluded.has(*n) && self.counts.of(*n) > 0.0
        };
        let room = |n: usize| {
            let most = (ROOM * self.counts.of(n)) as u64;
            history.falls_to(most, span(SPANS[n], unit), now).since(now).as_secs_f64() * LATER
        };
        (0..SPANS.len()).filter(in_question).map(room).find(|room| *room >= 0.5 * self.wait)
    }

    /// What explains it, of what can: the span's count at the refusal is about what went on the whole since then, and there is
    /// room in it now. `last`: what the spans held at the last incident; where as much was accepted then, it is no limit.
    pub(super) fn explained(
        &self,
        history: &History,
        last: Option<&Counts>,
        unit: f64,
        now: Timestamp,
    ) -> Option<Window> {
        let fits = |n: &usize| {
            let count = self.counts.of(*n);
            let went_well = last.is_some_and(|last| count < 0.975 * last.of(*n) - 1.0);
            let rate = Window { span: SPANS[*n], count }.rate(unit);
            let mean = self.mean_since(history, *n, unit, now);
            self.may_be(*n)
                && !went_well
                && history.count(span(SPANS[*n], unit), now) as f64 <= 0.95 * count
                && (0.8 * mean..=1.35 * mean).contains(&rate)
        };
        let usual = (0..SPANS.len()).filter(|n| USUAL.contains(&SPANS[*n])).find(fits);
        let place = usual.or_else(|| (0..SPANS.len()).find(fits))?;
        Some(Window { span: SPANS[place], count: self.counts.of(place) })
    }

    /// The span that holds just as much as at the last refusal, and had room between (`room`: what it held when the lane was
    /// opened after it).
    pub(super) fn as_before(
        &self,
        history: &History,
        last: &Counts,
        room: &Counts,
        unit: f64,
        now: Timestamp,
    ) -> Option<Window> {
        let tolerance = if self.refused > 0 { 0.015 } else { 0.0 };
        let least = if self.refused > 0 { COUNTED_FROM } else { 600 };
        let off = |n: usize| {
            let (here, there) = (self.counts.of(n), last.of(n));
            let rate = Window { span: SPANS[n], count: here }.rate(unit);
            let fits = self.may_be(n)
                && SPANS[n] >= least
                && here >= 5.0
                && room.of(n) <= 0.93 * here.min(there)
                && (here - there).abs() <= (tolerance * here).max(1.1)
                && rate <= 1.35 * self.mean_since(history, n, unit, now);
            fits.then(|| (here - there).abs() / here)
        };
        let all = (0..SPANS.len()).filter_map(|n| Some((n, off(n)?)));
        let (place, _) = all.min_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)))?;
        Some(Window { span: SPANS[place], count: self.counts.of(place) })
    }

    fn may_be(&self, place: usize) -> bool {
        SPANS[place] >= COUNTED_FROM && !self.excluded.has(place) && self.counts.of(place) >= 1.0
    }

    /// Is a span told apart from those half as long?
    pub(super) fn tells_apart(&self, units: u32) -> bool {
        f64::from(units) <= 2.1 * f64::from(self.excluded.longest())
    }

    /// Recipients a second from the beginning of the span, as it stood at the refusal, until now.
    fn mean_since(&self, history: &History, place: usize, unit: f64, now: Timestamp) -> f64 {
        let begins = self.first - span(SPANS[place], unit);
        let from = history.oldest().map_or(begins, |oldest| begins.max(oldest));
        let before = history.total_at(from - Duration::from_millis(30));
        (history.total() - before) as f64 / now.since(from).as_secs_f64().max(1e-3)
    }
}
