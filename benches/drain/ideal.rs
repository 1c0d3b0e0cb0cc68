//! The ideal sender: it knows every limit at every moment, and is never refused.
//!
//! It is stepped through time second by second (or by tenths, where a window is no whole number of seconds long). In each
//! step it sends as much as all of these leave room for:
//! - the windows of the receiver as they are at that moment: sliding ones, those by the clock, and buckets, which give in a
//!   step what they hold and what flows in meanwhile. Where each source has its own, there is room for as many as there are sources;
//! - the connections: as many as the receiver takes (and the relay's own ceiling allows), each of which carries the messages
//!   it may, one after the other, and is replaced by the next; what that takes is told by the world's own delays
//!   (`Pace`), so the ideal sender and the relay live under the same ones;
//! - the mail that has come so far;
//! - nothing at all while the receiver blocks.
//!
//! To send at once whatever there is room for is the best there is under such windows: what could be sent now and
//! is not makes room for nothing later that would not be there anyway.

use std::time::Duration;

use weir::simulate::{Limits, Profile, Scope, WindowKind, WindowLimit};
use weir::types::Timestamp;

use super::arrival::{self, Arrival};
use super::world::START;
use super::world::site::Pace;

/// A receiver that takes so many steps for a backlog takes nothing.
const STEPS_MAX: usize = 90 * 86_400;
const STEP: Duration = Duration::from_secs(1);
const STEP_SHORT: Duration = Duration::from_millis(100);

/// What the ideal sender has sent after so many steps.
pub struct Ideal<'a> {
    profile: &'a Profile,
    pace: Pace,
    /// Connections of the relay's own ceiling.
    ceiling: usize,
    /// Addresses it sends from, all alike.
    sources: u32,
    /// When there is mail to send; none: always.
    arrivals: Vec<Arrival>,
    step: Duration,
    sent: Vec<u64>,
    /// What the connections could have carried beyond what was sent; less than one message is kept.
    spare: f64,
    /// What buckets hold, by their place among the windows.
    levels: Vec<Option<f64>>,
    holds: Holds,
}

/// What the receiver's limits are until they change next.
struct Holds {
    until: Timestamp,
    limits: Limits,
    windows: Vec<WindowLimit>,
    blocks: bool,
}

impl Holds {
    fn at(profile: &Profile, now: Timestamp) -> Holds {
        let limits = profile.limits_at(START, now);
        Holds {
            until: profile.next_change(START, now).unwrap_or(Timestamp::NEVER),
            windows: limits.windows(),
            limits,
            blocks: profile.blocked_until(START, now).is_some(),
        }
    }
}

impl<'a> Ideal<'a> {
    pub fn new(profile: &'a Profile, pace: Pace, ceiling: usize, sources: usize) -> Ideal<'a> {
        let changed = profile.change.iter().map(|change| &change.limits);
        let mut windows = changed.chain([&profile.limits]).flat_map(|limits| limits.window.iter().flatten());
        let is_odd = |window: &WindowLimit| window.span.0.subsec_nanos() > 0;
        let step = if windows.any(is_odd) { STEP_SHORT } else { STEP };
        let sources = u32::try_from(sources).unwrap_or(u32::MAX).max(1);
        let (arrivals, sent, levels) = (Vec::new(), vec![0], Vec::new());
        let holds = Holds::at(profile, START);
        Ideal { profile, pace, ceiling, sources, arrivals, step, sent, spare: 0.0, levels, holds }
    }

    /// It cannot send what has not come yet.
    pub fn with(self, arrivals: &[Arrival]) -> Ideal<'a> {
        Ideal { arrivals: arrivals.to_vec(), ..self }
    }

    /// Messages it sends in a span of time.
    pub fn within(&mut self, span: Duration) -> usize {
        let steps = self.steps(span).min(STEPS_MAX);
        while self.sent.len() <= steps {
            self.step();
        }
        usize::try_from(self.sent[steps]).unwrap_or(usize::MAX)
    }

    /// The time it takes for so many messages; none if the receiver never takes them.
    pub fn time_for(&mut self, messages: usize) -> Option<Duration> {
        let wanted = messages as u64;
        while self.sent.last().is_some_and(|sent| *sent < wanted) {
            if self.sent.len() > STEPS_MAX {
                return None;
            }
            self.step();
        }
        let steps = self.sent.partition_point(|sent| *sent < wanted);
        Some(self.step * u32::try_from(steps).unwrap_or(u32::MAX))
    }

    /// The longest time in which it sends nothing before it has sent so many.
    pub fn longest_pause(&mut self, messages: usize) -> Duration {
        let Some(all) = self.time_for(messages) else { return Duration::ZERO };
        let steps = self.sent.windows(2).take(self.steps(all));
        let (mut longest, mut pause) = (0_u32, 0_u32);
        for step in steps {
            pause = if step[0] == step[1] { pause + 1 } else { 0 };
            longest = longest.max(pause);
        }
        self.step * longest
    }

    /// Whole steps of a span.
    fn steps(&self, span: Duration) -> usize {
        usize::try_from(span.as_millis() / self.step.as_millis()).unwrap_or(usize::MAX)
    }

    fn step(&mut self) {
        let done = self.sent.len() - 1;
        let now = START + self.step * u32::try_from(done).unwrap_or(u32::MAX);
        let before = self.sent[done];
        if now >= self.holds.until {
            self.holds = Holds::at(self.profile, now);
        }
        let windows = std::mem::take(&mut self.holds.windows);
        self.levels.resize(windows.len().max(self.levels.len()), None);
        let mut room = if self.holds.blocks { 0 } else { u64::MAX };
        for (place, window) in windows.iter().enumerate() {
            room = room.min(self.room(place, window, done));
        }
        let limits = &self.holds.limits;
        let of_sources = limits.connections_per_source.map(|limit| limit.saturating_mul(self.sources));
        let connections = [limits.connections, of_sources];
        let connections = connections.into_iter().flatten().fold(self.ceiling, |least, n| least.min(n as usize));
        let carried = self.pace.messages_per_second(limits.messages_per_connection) * self.step.as_secs_f64();
        self.spare += connections as f64 * carried;
        if !self.arrivals.is_empty() {
            let come = arrival::by(&self.arrivals, now.since(START)) as u64;
            room = room.min(come.saturating_sub(before));
        }
        let sent = room.min(whole(self.spare));
        self.spare = (self.spare - sent as f64).min(1.0);
        for (level, window) in self.levels.iter_mut().zip(&windows) {
            let depth = depth(window, self.sources);
            *level = level.map(|level| (level - sent as f64).clamp(0.0, depth));
        }
        self.holds.windows = windows;
        self.sent.push(before + sent);
    }

    /// What a window leaves room for in the step behind `done` ones.
    fn room(&mut self, place: usize, window: &WindowLimit, done: usize) -> u64 {
        let count = u64::from(window.count) * u64::from(self.shares(window));
        let begin = match window.kind {
            WindowKind::Bucket => {
                let depth = depth(window, self.sources);
                let inflow = count as f64 * self.step.as_secs_f64() / window.span.0.as_secs_f64();
                let level = self.levels[place].unwrap_or(depth).min(depth) + inflow;
                self.levels[place] = Some(level);
                return whole(level);
            }
            WindowKind::Sliding => (done + 1).saturating_sub(self.steps(window.span.0)),
            WindowKind::Clock => {
                let span = u64::try_from(window.span.0.as_millis()).unwrap_or(u64::MAX).max(1);
                let at = START.millis().unsigned_abs() + (self.step.as_millis() as u64) * done as u64;
                done.saturating_sub(self.steps(Duration::from_millis(at % span)))
            }
        };
        count.saturating_sub(self.sent[done] - self.sent[begin.min(done)])
    }

    fn shares(&self, window: &WindowLimit) -> u32 {
        if window.scope == Scope::Source { self.sources } else { 1 }
    }
}

fn depth(window: &WindowLimit, sources: u32) -> f64 {
    let shares = if window.scope == Scope::Source { sources } else { 1 };
    f64::from(window.depth.unwrap_or(window.count)) * f64::from(shares)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and truncation is meant")]
fn whole(messages: f64) -> u64 {
    // A sum of shares of a second may miss a whole number by a hair.
    (messages + 1e-6) as u64
}
