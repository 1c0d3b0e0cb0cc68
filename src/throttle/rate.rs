//! The rate a lane has learned: recipients a second, and where it is known the span the receiver counts within.
//!
//! No shape of limit is presumed. What carries all of it is one observation: **between two refusals a limit lets exactly
//! its own rate through**, whether it is a window that slides, one that follows the clock, a bucket, or something nobody thought of. Where
//! refusals also agree on a count within a span (`incident`), that window is obeyed as such.
//!
//! ```text
//! Free     no limit is known
//!   refused once, the question accepted             -> nothing is concluded
//!   refused again soon                              -> Search, first at what went the whole time (a trial, `noise`)
//!   full (the question was refused too)             -> Settled at the window that explains it; else Search
//! Search   between what went well and what was refused, upwards in steps
//!   a step that held                                -> the next one;  narrow enough -> Settled
//!   refused                                         -> back, in smaller steps
//! Settled  just under what is known
//!   a refusal far from any other                    -> noise: nothing changes
//!   refused again and again                         -> a trial at what went the whole time
//!   patience is over and all of it is used          -> Look
//! Look     a little more, then more and more, until it is refused (back, and patience doubles) or the limit is plainly gone
//! ```
//!
//! Rules that always hold:
//! - one burst counts once: refusals of what was begun before the last cut change nothing;
//! - the rate is never below `FLOOR`: stopping is the business of a wait;
//! - beyond what is known to be good it grows only while it is used.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history::History;
use super::incident::Incident;
use super::noise::{Finding, Noise, Trial};
use super::question::{After, Question};
use super::window::{Counts, Window, span, unit};
use crate::types::Timestamp;

/// Recipients a second that a lane is always allowed while it is open: one in two hours.
const FLOOR: f64 = 1.0 / 7200.0;
/// This part of a rate that was refused is used.
const MARGIN: f64 = 0.97;
/// A window is filled up to this part.
const MARGIN_COUNT: f64 = 0.985;
/// A window that has room is filled faster than evenly.
const CATCH_UP: f64 = 1.25;
const CATCH_UP_LONG: f64 = 3.0;
const CATCH_UP_FROM: u32 = 300;
const CATCH_UP_LONG_FROM: u32 = 21_600;
/// Less by this where refusals come again.
const CUT: f64 = 0.94;
const CUT_MOST: f64 = 0.8;
/// A step of the search; after a long wait of which nothing else is known, and while a guess is not refuted.
const STEP: f64 = 1.25;
const STEP_WIDE: f64 = 2.0;
const STEP_GUESS: f64 = 1.4;
/// A search ends when what was refused is no further above what went well.
const NARROW: f64 = 1.07;
/// A window that is only guessed is filled within so many units, at that part of what was refused at most.
const FILL_WITHIN: f64 = 300.0;
const FILL_PART: f64 = 0.06;
/// Fewer in the longest step are few.
const FEW: f64 = 6.0;
/// A step is held for so many units at least and at most.
const HOLD: (f64, f64) = (1.0, 180.0);
/// Looks beyond a known limit, in pauses: the first, where it has fallen, and at most.
const PATIENCE: f64 = 3.0;
const PATIENCE_FALLEN: f64 = 0.5;
const PATIENCE_FALLEN_MAX: f64 = 1.0;
const PATIENCE_MAX: f64 = 36.0;
/// And so many messages lie between them: each may be refused.
const MESSAGES_BETWEEN: f64 = 400.0;
const MESSAGES_BETWEEN_FALLEN: f64 = 40.0;
const MESSAGES_BETWEEN_NOISY: f64 = 1200.0;
/// A look goes so far beyond at first; where the limit has fallen.
const BEYOND: f64 = 0.05;
const BEYOND_FALLEN: f64 = 0.25;
const BEYOND_MAX: f64 = 0.5;
const BEYOND_MAX_FALLEN: f64 = 1.0;
/// Below this part of the best of the last day a limit has fallen.
const FALLEN: f64 = 0.7;
const DAY: Duration = Duration::from_secs(86_400);
/// What was refused so far above what is known shows that the limit has risen.
const RISEN: f64 = 1.5;
/// A rate counts as the best of the day when it has held for so many units.
const BEST_AFTER: f64 = 300.0;
/// What refuses a look is a limit when chance alone would do it more seldom.
const DOUBT: f64 = 0.05;
/// Refusals within some hundred messages that are more than chance.
const STRIKES: f64 = 2.0;
const STRIKES_FADE: f64 = 0.004;
const CYCLES: usize = 4;
/// A trial without a refusal is over after so many units.
const TRIAL_MOST: f64 = 600.0;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Rate {
    /// Recipients a second that are allowed now; none: as fast as the connections carry it.
    pace: Option<f64>,
    phase: Phase,
    /// Shown to be taken.
    good: f64,
    /// The window that is obeyed, and one that may be: the next refusal tells.
    window: Option<Window>,
    guess: Option<Window>,
    /// The last one that was obeyed.
    known: Option<Window>,
    /// How often it refused at this place.
    agreed: u32,
    agreed_at: Option<Timestamp>,
    /// The search: what went well, what was refused, steps since the last refusal and how large they are.
    lo: f64,
    hi: f64,
    steps: u32,
    step: f64,
    /// How long a step is held, in seconds.
    hold: f64,
    /// Nothing grows before.
    next: Timestamp,
    /// A refusal before then shows that the search had not ended.
    confirmed_at: Timestamp,
    settled_at: Timestamp,
    /// In pauses.
    patience: f64,
    beyond: f64,
    /// The look under way: from which rate, since when, accepted since ever by then.
    base: f64,
    looked_at: Timestamp,
    looked_from: u64,
    /// Refusals since its last step that may be chance, and accepted since ever when it was taken.
    doubtful: u32,
    stepped_from: u64,
    /// The last rate of this look that was taken as long as a step takes.
    held: f64,
    /// Accepted since ever when it was last counted what comes at a rate that holds.
    strayed_from: Option<u64>,
    best: f64,
    best_at: Timestamp,
    /// The last rate at which the receiver was full.
    firm: f64,
    incident: Option<Incident>,
    cut_at: Option<Timestamp>,
    /// When the lane was opened last, and what was accepted since ever by then.
    opened: Option<(Timestamp, u64)>,
    /// Seconds since then in which nothing went for want of connections.
    rested: f64,
    /// What spans held at the last refusal, and when the lane was opened after it.
    last: Option<(Counts, Counts)>,
    /// Between the last refusals.
    cycles: Vec<Cycle>,
    question: Question,
    full_times: u32,
    refused_at: f64,
    noise: Noise,
    trial: Option<Trial>,
    ramp: Option<Ramp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Phase {
    #[default]
    Free,
    Search,
    Settled,
    Look,
}

/// From one opening to the next.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Cycle {
    /// Messages.
    pub gap: u64,
    pub secs: f64,
}

impl Cycle {
    pub(super) fn mean(&self) -> f64 {
        self.gap as f64 / self.secs.max(1e-3)
    }
}

/// The way back after a stop that had nothing to do with the rate.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Ramp {
    pace: f64,
    to: f64,
    next: Timestamp,
}

/// What the end of an incident has told.
struct Ending {
    incident: Incident,
    is_first: bool,
    cycle: Cycle,
    /// Recipients a second while it went.
    run: f64,
    hold: f64,
}

/// When and where the rate is looked at: what every step needs to know.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    pub history: &'a History,
    /// The provider's.
    pub pause: Duration,
    pub now: Timestamp,
}

impl Moment<'_> {
    fn unit(&self) -> f64 {
        unit(self.pause).max(1e-6)
    }

    fn after(&self, seconds: f64) -> Timestamp {
        self.now + Duration::from_secs_f64(seconds.clamp(0.0, 1e8))
    }

    pub(super) fn total(&self) -> u64 {
        self.history.total()
    }
}

impl Rate {
    /// Recipients a minute that are allowed now; none: as fast as the connections carry it.
    pub(super) fn limit(&self) -> Option<f64> {
        let pace = match (self.pace.map(|pace| self.caught_up(pace)), self.ramp) {
            (Some(pace), Some(ramp)) => pace.min(ramp.pace),
            (pace, ramp) => pace.or(ramp.map(|ramp| ramp.pace))?,
        };
        Some(60.0 * pace.max(FLOOR))
    }

    /// Recipients a minute that the receiver is known to take for long; none: nothing is known.
    pub(super) fn lasting(&self, pause: Duration) -> Option<f64> {
        let pace = self.pace?;
        let lasts = match (self.phase, self.guess) {
            (Phase::Look, _) => self.base,
            (Phase::Search, Some(guess)) => guess.rate(unit(pause)) * MARGIN_COUNT,
            // A trial goes on at less for a while.
            (Phase::Settled, _) if self.trial.is_some() => pace.max(self.firm),
            _ => pace,
        };
        Some(60.0 * lasts.max(FLOOR))
    }

    /// Is it not known what the receiver takes, because it has just refused for the first time?
    pub(super) fn is_at_a_loss(&self) -> bool {
        self.incident.is_some() && self.pace.is_none()
    }

    /// A window is filled faster than evenly while it has room, but never as fast as was refused.
    fn caught_up(&self, pace: f64) -> f64 {
        let factor = match self.window {
            Some(window) if window.span >= CATCH_UP_LONG_FROM => CATCH_UP_LONG,
            Some(window) if window.span >= CATCH_UP_FROM => CATCH_UP,
            _ => return pace,
        };
        let most = if self.refused_at > 0.0 { 0.9 * self.refused_at } else { f64::INFINITY };
        (factor * pace).min(most.max(pace))
    }

    /// How many recipients more does the window take, with `flight` under way; none: there is no window. Else when to ask.
    pub(super) fn room(&self, flight: u64, at: Moment<'_>) -> Result<Option<u64>, Timestamp> {
        let Some(window) = self.window else { return Ok(None) };
        let look = if self.phase == Phase::Look { 1.0 + self.beyond } else { 1.0 };
        let length = window.length(at.unit());
        let most = (window.count * look * MARGIN_COUNT).floor().max(1.0) as u64;
        match most.saturating_sub(at.history.count(length, at.now) + flight) {
            0 if flight >= most => Err(at.after(0.05)),
            0 => Err(at.history.falls_to(most - 1 - flight, length, at.now).max(at.after(0.02))),
            room => Ok(Some(room)),
        }
    }

    /// The window that is obeyed, and how long it is.
    pub(super) fn window(&self, pause: Duration) -> Option<(f64, Duration)> {
        self.window.map(|window| (window.count, window.length(unit(pause))))
    }

    /// How often the receiver refused at this place, and when the last time.
    pub(super) fn agreed(&self) -> (u32, Option<Timestamp>) {
        (self.agreed, self.agreed_at)
    }

    /// Is it on its way to more than it has now?
    pub(super) fn is_growing(&self) -> bool {
        self.ramp.is_some() || matches!(self.phase, Phase::Search | Phase::Look)
    }

    pub(super) fn is_free(&self) -> bool {
        self.pace.is_none() && self.ramp.is_none()
    }

    /// When the rate is looked at next, where it may rise then: a wait that was told before is too long by then.
    pub(super) fn next_step(&self) -> Option<Timestamp> {
        let steps = self.phase != Phase::Free && self.incident.is_none() && self.next < Timestamp::NEVER;
        let ramp = self.ramp.map(|ramp| ramp.next);
        steps.then_some(self.next).into_iter().chain(ramp).min()
    }

    /// Nothing went for so many seconds for want of connections: no limit of the rate was tried.
    pub(super) fn rested(&mut self, seconds: f64) {
        match &mut self.incident {
            Some(incident) => incident.rested += seconds,
            None => self.rested += seconds,
        }
    }

    /// Was something accepted that had been begun before the refusal?
    pub(super) fn late(&mut self, recipients: u32) {
        if let Some(incident) = &mut self.incident {
            incident.late(recipients);
        }
    }

    /// We are too fast; `started` is when the refused thing was begun, `part` what this kind of refusal waits for, in pauses. The wait before one
    /// message asks; none: it changes nothing.
    pub(super) fn refused(&mut self, started: Timestamp, part: f64, at: Moment<'_>) -> Option<Duration> {
        if self.cut_at.is_some_and(|cut| started <= cut) {
            return None;
        }
        let is_known = self.window.is_some() || self.guess.is_some();
        if let Some(incident) = &mut self.incident {
            incident.ask_refused(at.history, is_known, at.unit(), at.now);
            self.cut_at = Some(at.now);
            return Some(incident.wait());
        }
        if self.trial.is_none() && self.noise.takes(at.total()) {
            return None;
        }
        let over = |units| at.history.count(span(units, at.unit()), at.now) as f64 / (f64::from(units) * at.unit());
        let pace = over(10).max(over(1));
        let counts = Counts::at(at.history, at.unit(), at.now);
        let wait = self.first_wait(part, at);
        self.refused_at = if self.refused_at > 0.0 { pace.min(1.5 * self.refused_at) } else { pace };
        self.incident = Some(Incident::new(counts, pace, wait, at.now));
        self.cut_at = Some(at.now);
        self.incident.as_ref().map(Incident::wait)
    }

    fn first_wait(&self, part: f64, at: Moment<'_>) -> f64 {
        let unit = at.unit();
        let from = self.opened.map(|(opened, _)| opened).or(at.history.oldest()).unwrap_or(at.now);
        let held = |window: &Window| window.held(at.history, unit, at.now);
        let expected = self.window.filter(|_| self.phase == Phase::Look).or(self.guess);
        let full = expected.filter(|window| (0.93..=1.1).contains(&(held(window) / window.count)));
        let room = |window: Window| at.history.falls_to((0.95 * window.count) as u64, window.length(unit), at.now);
        self.question.first_wait(&After {
            part,
            run: at.now.since(from).as_secs_f64(),
            pace: self.pace.map(|pace| pace.max(FLOOR)),
            went: self.refused_at.max(FLOOR),
            is_explained: self.guess.is_some_and(|guess| held(&guess) <= 1.15 * guess.count),
            room: full.map(|window| room(window).since(at.now).as_secs_f64()),
            unit,
        })
    }

    /// The message that asked was accepted.
    pub(super) fn opened(&mut self, at: Moment<'_>) {
        let Some(incident) = self.incident.take() else { return };
        let (unit, total) = (at.unit(), at.total());
        let is_first = self.opened.is_none();
        let begun = self.opened.or(at.history.oldest().map(|oldest| (oldest, 0)));
        let (from, before) = begun.unwrap_or((at.now, total));
        let went = incident.first.since(from).as_secs_f64() - std::mem::take(&mut self.rested);
        let cycle = Cycle { gap: total.saturating_sub(before), secs: (went + incident.lasted(at.now)).max(1e-3) };
        let run = cycle.gap as f64 / went.max(0.05);
        self.question.answered(&incident, unit, at.now);
        self.opened = Some((at.now, total));
        if !is_first {
            self.cycles.push(cycle);
            self.cycles.drain(..self.cycles.len().saturating_sub(CYCLES));
        }
        let again =
            self.last.as_ref().and_then(|(last, room)| incident.as_before(at.history, last, room, unit, at.now));
        let before =
            self.last.replace((incident.counts, Counts::at(at.history, unit, at.now))).map(|(counts, _)| counts);
        let hold = (cycle.secs / 4.0).clamp(HOLD.0 * unit, HOLD.1 * unit);
        let is_full = incident.refused >= if self.noise.is_known(total) { 2 } else { 1 };
        let ending = Ending { is_first, cycle, run: run.max(incident.pace), hold, incident };
        match again.filter(|_| is_full || self.trial.is_none()) {
            Some(window) => {
                let is_same = self.window.is_some_and(|own| own.span == window.span);
                self.obey(window, is_same, false, hold, at);
            }
            None if is_full => self.full(&ending, before.as_ref(), at),
            None => self.light(&ending, at),
        }
    }

    /// The receiver was full: it refused the question too.
    fn full(&mut self, ending: &Ending, before: Option<&Counts>, at: Moment<'_>) {
        let (incident, mean) = (&ending.incident, ending.cycle.mean());
        self.full_times += 1;
        self.trial = None;
        // What was noise, or a little too much, before tells nothing about this.
        self.cycles.clear();
        let known = self.window.or(self.guess);
        let top = ending.run.max(mean);
        if let Some(window) = incident.explained(at.history, before, at.unit(), at.now) {
            let again =
                known.is_some_and(|known| known.span == window.span && (window.count / known.count - 1.0).abs() < 0.07);
            if again || incident.tells_apart(window.span) {
                return self.obey(window, again, false, ending.hold, at);
            }
            self.firm = mean * MARGIN;
            self.search(window.rate(at.unit()) * MARGIN, top, ending.hold, at);
            (self.guess, self.step) = (Some(window), STEP_GUESS);
            self.start_at(window.count / (FILL_WITHIN * at.unit()), at);
            return;
        }
        self.firm = mean * MARGIN;
        if top > 1.15 * mean {
            let is_first = self.full_times <= 1;
            let hold = if is_first { ending.hold.min(60.0 * at.unit()) } else { ending.hold };
            self.search(mean, top, hold, at);
            self.step = if is_first { STEP_WIDE } else { STEP };
            self.start_at(FEW / (HOLD.1 * at.unit()), at);
            return;
        }
        (self.window, self.guess, self.hold) = (None, None, ending.hold);
        self.good = mean * MARGIN;
        self.patience = if self.is_fallen() { PATIENCE_FALLEN } else { PATIENCE };
        self.settle(at);
    }

    /// Where so few went that steps would take hours, the search begins at so many recipients a second, but far under what was refused:
    /// whether a window is really one shows when it is full, and a few messages are no rate.
    fn start_at(&mut self, pace: f64, at: Moment<'_>) {
        let pace = pace.min(FILL_PART * self.refused_at).min(self.hi);
        if self.lo * HOLD.1 * at.unit() <= FEW && pace > self.lo {
            (self.lo, self.good, self.pace) = (pace, pace, Some(pace));
        }
    }

    /// A window is known from now on.
    fn obey(&mut self, window: Window, again: bool, was_guessed: bool, hold: f64, at: Moment<'_>) {
        let was_look = self.phase == Phase::Look;
        self.trial = None;
        self.good = window.rate(at.unit()) * MARGIN_COUNT;
        self.firm = self.good;
        (self.agreed, self.agreed_at) = (if again { self.agreed + 1 } else { 1 }, Some(at.now));
        (self.window, self.known, self.guess) = (Some(window), Some(window), None);
        if was_guessed {
            self.question.explained();
        }
        self.hold = hold.max(window.length(at.unit()).as_secs_f64() / 4.0);
        self.patience = match again && was_look {
            true => (2.0 * self.patience).min(PATIENCE_MAX),
            false if self.is_fallen() => PATIENCE_FALLEN,
            false => PATIENCE,
        };
        self.settle(at);
        self.confirmed_at = at.now;
    }

    fn settle(&mut self, at: Moment<'_>) {
        self.phase = Phase::Settled;
        self.strayed_from = Some(at.total());
        self.settled_at = at.now;
        self.confirmed_at = at.after(4.0 * self.hold);
        self.good = self.good.max(FLOOR);
        self.pace = Some(self.good);
        if self.firm > 0.0 {
            self.firm = self.good;
        }
        if at.now.since(self.best_at) > DAY {
            (self.best, self.best_at) = (self.good, at.now);
        }
        let fallen = self.is_fallen();
        self.beyond = if fallen { BEYOND_FALLEN } else { BEYOND };
        self.patience = self.patience.min(if fallen { PATIENCE_FALLEN_MAX } else { PATIENCE_MAX });
        let messages = if fallen { MESSAGES_BETWEEN_FALLEN } else { MESSAGES_BETWEEN };
        let pause = at.pause.as_secs_f64();
        let least = (messages / self.good).min(PATIENCE_MAX * pause);
        // Where chance refuses now and then anyway, a look costs next to nothing.
        let is_noisy = self.noise.is_known(at.total());
        let most = if is_noisy { self.patience * MESSAGES_BETWEEN_NOISY / self.good } else { f64::INFINITY };
        self.next = at.after((self.patience * pause).min(most).max(least));
    }

    fn settle_if_narrow(&mut self, at: Moment<'_>) {
        if self.hi < NARROW * self.lo {
            self.settle(at);
        }
    }

    fn is_fallen(&self) -> bool {
        self.good < FALLEN * self.best
    }

    fn search(&mut self, lo: f64, hi: f64, hold: f64, at: Moment<'_>) {
        self.phase = Phase::Search;
        (self.window, self.guess, self.trial) = (None, None, None);
        self.lo = lo.max(FLOOR);
        self.hi = hi.max(self.lo);
        (self.pace, self.good) = (Some(self.lo), self.lo);
        // What was never seen full may not be a limit at all: it is looked beyond soon.
        let patience = if self.full_times > 0 { PATIENCE } else { PATIENCE_FALLEN };
        (self.steps, self.step, self.hold, self.patience) = (0, STEP, hold, patience);
        self.next = at.after(hold);
    }

    /// The question was accepted: noise, or a limit that was passed by little.
    fn light(&mut self, ending: &Ending, at: Moment<'_>) {
        let (mean, hold, unit) = (ending.cycle.mean(), ending.hold, at.unit());
        let tried = self.pace.unwrap_or(ending.run);
        let expected = self.guess.or(self.window.filter(|_| self.phase == Phase::Look));
        if let Some(window) = expected.filter(|_| self.trial.is_none()) {
            let count = ending.incident.counts.of_span(window.span);
            if (0.95..=1.07).contains(&(count / window.count)) {
                let was_guessed = self.guess.is_some();
                return self.obey(Window { count, ..window }, true, was_guessed, hold, at);
            }
        }
        if let Some(mut trial) = self.trial.take() {
            // What was not used for want of mail, or because a window was full, says nothing.
            let rate = tried.min(ending.run);
            let finding = trial.refused(&mut self.noise, rate, &ending.cycle, at);
            return self.found_in_trial(trial, finding, at);
        }
        let longer = |hold: f64| (2.0 * hold).min(HOLD.1 * unit);
        match self.phase {
            Phase::Free if ending.is_first => {}
            Phase::Free => {
                self.hold = hold;
                self.try_less(0.95 * mean, ending.run.max(mean), at);
            }
            // It had not climbed: what went the whole time is refused.
            Phase::Search if tried <= 1.001 * self.lo => {
                self.try_less(0.95 * mean.clamp(0.4 * tried, tried), tried, at)
            }
            Phase::Search => {
                let lo = if self.steps > 1 { (self.lo / self.step).max(mean) } else { self.lo };
                let hi = tried.min(self.hi).max(lo);
                self.search(lo, hi, hold.max(longer(self.hold)).min(HOLD.1 * unit), at);
                self.settle_if_narrow(at);
            }
            Phase::Look => self.look_refused(tried, mean, hold, at),
            Phase::Settled if at.now < self.confirmed_at => {
                self.hold = longer(hold).max(self.hold);
                self.try_less((0.95 * mean).clamp(0.4 * tried, 0.95 * tried), tried, at);
            }
            Phase::Settled => {
                self.count_strays(true, at);
                if self.noise.is_known(at.total()) {
                    // It came more often than noise does.
                    self.good *= MARGIN;
                    if let Some(window) = &mut self.window {
                        window.count *= MARGIN;
                    }
                    self.patience = self.patience.max(1.0);
                    self.settle(at);
                    self.confirmed_at = at.now;
                } else if self.noise.strike(STRIKES_FADE, at.total()) > STRIKES {
                    self.noise.clear_strikes();
                    let went = self.went_lately();
                    let hi = if self.window.is_some() { 0.0 } else { self.good };
                    self.try_less((MARGIN * went).clamp(CUT_MOST * self.good, CUT * self.good), hi, at);
                }
            }
        }
    }

    /// Counts what came since the last count, at a rate that holds.
    fn count_strays(&mut self, refused: bool, at: Moment<'_>) {
        if let Some(from) = self.strayed_from.replace(at.total()) {
            self.noise.stray(at.total().saturating_sub(from), refused);
        }
    }

    fn look_refused(&mut self, tried: f64, mean: f64, hold: f64, at: Moment<'_>) {
        self.doubtful += 1;
        let messages = at.total().saturating_sub(self.stepped_from);
        if self.noise.chance(self.doubtful, messages) > DOUBT {
            self.next = at.after(self.hold);
            return;
        }
        if tried < RISEN * self.base {
            // From one refusal to the next exactly its own rate went through.
            // Where noise is known, one of the two may have been chance; what held is known all the same.
            let through = if self.noise.is_known(at.total()) { mean.max(MARGIN * self.held) } else { mean };
            self.good = (through * MARGIN).clamp(self.base, (tried * MARGIN).max(self.base));
            self.agreed += 1;
            self.agreed_at = Some(at.now);
            self.patience = (2.0 * self.patience).min(PATIENCE_MAX);
            return self.settle(at);
        }
        let over = at.now.since(self.looked_at).as_secs_f64().max(1e-3);
        let seen = at.total().saturating_sub(self.looked_from) as f64 / over;
        let guess = self.known;
        self.search((seen * MARGIN).clamp(self.base, tried * MARGIN), tried, hold.min(60.0 * at.unit()), at);
        self.guess = guess;
    }

    /// Recipients a second over the last two cycles, waits included.
    fn went_lately(&self) -> f64 {
        let last = &self.cycles[self.cycles.len().saturating_sub(2)..];
        let (gaps, secs) = last.iter().fold((0.0, 0.0), |(gaps, secs), c| (gaps + c.gap as f64, secs + c.secs));
        gaps / f64::max(secs, 1e-3)
    }

    /// Is it the rate? Less for a while tells. `hi` above 0: a search follows up to there.
    fn try_less(&mut self, pace: f64, hi: f64, at: Moment<'_>) {
        let before = self.cycles.iter().map(|cycle| cycle.gap as f64).fold(0.0, f64::max);
        self.trial = Some(Trial::new(before, at.total(), self.next, at.now));
        let pace = pace.max(FLOOR);
        if hi > 0.0 {
            self.phase = Phase::Search;
            (self.lo, self.hi) = (pace, hi.max(pace));
        }
        self.try_at(pace);
        self.next = Timestamp::NEVER;
    }

    fn try_at(&mut self, pace: f64) {
        if let Some(window) = &mut self.window {
            window.count *= (pace / self.good.max(FLOOR)).min(1.0);
        }
        (self.good, self.pace) = (pace, Some(pace));
        if self.phase == Phase::Search {
            self.lo = pace;
        }
    }

    fn found_in_trial(&mut self, trial: Trial, finding: Finding, at: Moment<'_>) {
        match finding {
            Finding::Open => self.trial = Some(trial),
            Finding::Lower(pace) => {
                self.trial = Some(trial);
                self.try_at(pace.max(FLOOR));
            }
            Finding::Noise => {
                self.cycles.clear();
                let tried = self.good;
                if self.firm > 0.0 && self.firm < tried && self.phase == Phase::Search {
                    // It is known now that what was tried is taken, too.
                    self.search(tried, self.hi, self.hold, at);
                    self.settle_if_narrow(at);
                } else if self.firm > 0.0 {
                    (self.good, self.patience) = (self.firm, 1.0);
                    self.window = self.known.filter(|known| known.rate(at.unit()) * MARGIN_COUNT >= 0.99 * self.firm);
                    self.settle(at);
                    self.next = self.next.min(trial.look.max(at.now));
                    self.confirmed_at = at.now;
                } else {
                    (self.phase, self.pace, self.window) = (Phase::Free, None, None);
                }
            }
        }
    }

    /// Takes the steps whose time has come.
    pub(super) fn grow(&mut self, at: Moment<'_>) {
        if self.incident.is_some() {
            return;
        }
        self.climb_back(at);
        let longest = Duration::from_secs_f64(TRIAL_MOST * at.unit());
        if self.trial.is_some_and(|trial| trial.is_passed(at.total(), longest, at.now)) {
            self.trial_passed(at);
        }
        let has_held = at.now.since(self.settled_at).as_secs_f64() > BEST_AFTER * at.unit();
        if self.phase == Phase::Settled && self.trial.is_none() && self.good > self.best && has_held {
            (self.best, self.best_at) = (self.good, at.now);
        }
        if self.phase == Phase::Settled && self.trial.is_none() && self.noise.is_due() {
            self.try_less(CUT * self.good, 0.0, at);
        }
        let Some(pace) = self.pace.filter(|_| at.now >= self.next) else { return };
        let over = self.hold.max(10.0 * at.unit()).max(3.0 / pace.max(FLOOR));
        let seen = at.history.count(Duration::from_secs_f64(over.min(86_400.0)), at.now) as f64 / over;
        self.next = at.after(self.hold.max(0.1 * at.unit()));
        match self.phase {
            Phase::Search if seen >= 0.6 * pace => self.step_up(pace, at),
            Phase::Settled if seen >= 0.7 * pace => self.look(at),
            Phase::Look if seen >= 0.7 * self.good => self.look_further(pace, at),
            _ => {}
        }
    }

    /// Less, and no refusals: it was the rate.
    fn trial_passed(&mut self, at: Moment<'_>) {
        self.trial = None;
        self.noise = Noise::default();
        let pace = self.pace.unwrap_or(self.good);
        if self.phase == Phase::Search {
            return self.search(pace, self.hi, self.hold.max(HOLD.0 * at.unit()), at);
        }
        (self.good, self.firm, self.patience) = (pace, pace, PATIENCE_FALLEN);
        self.settle(at);
        self.confirmed_at = at.now;
    }

    fn step_up(&mut self, pace: f64, at: Moment<'_>) {
        (self.lo, self.good) = (pace, pace);
        self.steps += 1;
        if self.guess.is_some_and(|guess| guess.held(at.history, at.unit(), at.now) > 1.1 * guess.count) {
            self.guess = None;
            self.step = if self.full_times <= 1 { STEP_WIDE } else { STEP };
        }
        if self.hi < NARROW * pace {
            return self.settle(at);
        }
        self.pace = Some((pace * self.step).min((pace * self.hi).sqrt()).max(1.03 * pace));
    }

    fn look(&mut self, at: Moment<'_>) {
        let unit = at.unit();
        self.count_strays(false, at);
        self.strayed_from = None;
        self.phase = Phase::Look;
        (self.base, self.looked_at, self.looked_from, self.doubtful) = (self.good, at.now, at.total(), 0);
        (self.held, self.stepped_from) = (self.good, at.total());
        self.hold = self.hold.max((60.0 / self.good.max(FLOOR)).clamp(2.0 * unit, HOLD.1 * unit));
        if self.beyond > BEYOND {
            self.hold = self.hold.min(60.0 * unit);
        }
        self.pace = Some(self.good * (1.0 + self.beyond));
        self.next = at.after(self.hold);
    }

    fn look_further(&mut self, pace: f64, at: Moment<'_>) {
        (self.held, self.doubtful, self.stepped_from) = (pace, 0, at.total());
        if let Some(window) = &mut self.window {
            let held = window.held(at.history, at.unit(), at.now);
            let is_gone = held > 1.25 * window.count || self.beyond > 0.4;
            if held > 1.03 * window.count {
                window.count = held;
                self.good = window.rate(at.unit()) * MARGIN_COUNT;
            }
            if is_gone {
                self.window = None;
                self.good = self.good.max(pace);
                self.beyond = 2.0 * BEYOND;
            }
        } else if self.beyond > 0.3 {
            self.good = pace / (1.0 + self.beyond / 2.0);
            self.beyond /= 2.0;
        }
        let most = if self.good < 0.9 * self.best { BEYOND_MAX_FALLEN } else { BEYOND_MAX };
        self.beyond = (2.0 * self.beyond).min(most);
        self.pace = Some(self.good * (1.0 + self.beyond));
    }

    /// The lane was stopped for another reason than its rate; it comes back gradually to what it did before.
    pub(super) fn come_back(&mut self, before_per_minute: f64, at: Moment<'_>) {
        // A question about the rate that was not answered by then is no question any more.
        self.incident = None;
        let to = self.pace.unwrap_or(before_per_minute / 60.0).max(4.0 / 60.0);
        self.ramp = Some(Ramp { pace: to / 16.0, to, next: at.after(30.0 * at.unit()) });
    }

    fn climb_back(&mut self, at: Moment<'_>) {
        while let Some(ramp) = self.ramp.as_mut().filter(|ramp| ramp.next <= at.now) {
            ramp.pace *= 2.0;
            ramp.next = ramp.next + Duration::from_secs_f64(30.0 * at.unit());
            if ramp.pace >= ramp.to {
                self.ramp = None;
            }
        }
    }

    /// Half of what goes now: the answers are not to our taste, whatever the receiver's limit.
    pub(super) fn halve(&mut self, per_minute: f64, at: Moment<'_>) {
        let now = self.pace.unwrap_or(per_minute / 60.0);
        self.good = (now / 2.0).max(FLOOR);
        (self.window, self.guess, self.trial) = (None, None, None);
        self.patience = PATIENCE;
        self.settle(at);
    }

    /// The clock was set by so much.
    pub(super) fn shift(&mut self, by_millis: i64) {
        let own =
            [&mut self.next, &mut self.confirmed_at, &mut self.settled_at, &mut self.looked_at, &mut self.best_at];
        let ramp = self.ramp.as_mut().map(|ramp| &mut ramp.next);
        let incident = self.incident.as_mut().map(|incident| &mut incident.first);
        let opened = self.opened.as_mut().map(|(opened, _)| opened);
        let trial = self.trial.as_mut().into_iter().flat_map(Trial::moments);
        let optional = [self.agreed_at.as_mut(), self.cut_at.as_mut(), ramp, incident, opened];
        own.into_iter().chain(optional.into_iter().flatten()).chain(trial).for_each(|at| *at = at.shifted(by_millis));
    }
}
