//! The ideal sender: it knows every limit at every moment, and is never refused.
//!
//! It is stepped through time second by second. In each it sends as much as all of these leave room for:
//! - the windows of the receiver as they are at that moment (recipients in any second, minute, hour and day);
//! - the connections: as many as the receiver takes (and the relay's own ceiling allows), each of which carries the messages
//!   it may, one after the other, and is replaced by the next; what that takes is told by the world's own delays
//!   (`Pace`), so the ideal sender and the relay live under the same ones;
//! - nothing at all while the receiver blocks.
//!
//! To send at once whatever there is room for is the best there is under such windows: what could be sent now and
//! is not makes room for nothing later that would not be there anyway.

use std::time::Duration;

use weir::simulate::Profile;

use super::world::START;
use super::world::site::Pace;

const WINDOWS: [Window; 4] = [Window(1), Window(60), Window(3600), Window(86_400)];
/// A receiver that takes so long for a backlog takes nothing.
const SECONDS_MAX: usize = 90 * 86_400;

struct Window(usize);

/// What the ideal sender has sent after so many seconds.
pub struct Ideal<'a> {
    profile: &'a Profile,
    pace: Pace,
    /// Connections of the relay's own ceiling.
    ceiling: usize,
    sent: Vec<u64>,
    /// What the connections could have carried beyond what was sent; less than one message is kept.
    spare: f64,
}

impl<'a> Ideal<'a> {
    pub fn new(profile: &'a Profile, pace: Pace, ceiling: usize) -> Ideal<'a> {
        Ideal { profile, pace, ceiling, sent: vec![0], spare: 0.0 }
    }

    /// Messages it sends in a span of time.
    pub fn within(&mut self, span: Duration) -> usize {
        let seconds = usize::try_from(span.as_secs()).unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
        while self.sent.len() <= seconds {
            self.step();
        }
        usize::try_from(self.sent[seconds]).unwrap_or(usize::MAX)
    }

    /// The time it takes for so many messages; none if the receiver never takes them.
    pub fn time_for(&mut self, messages: usize) -> Option<Duration> {
        let wanted = messages as u64;
        while self.sent.last().is_some_and(|sent| *sent < wanted) {
            if self.sent.len() > SECONDS_MAX {
                return None;
            }
            self.step();
        }
        let seconds = self.sent.partition_point(|sent| *sent < wanted);
        Some(Duration::from_secs(seconds as u64))
    }

    fn step(&mut self) {
        let second = self.sent.len() - 1;
        let now = START + Duration::from_secs(second as u64);
        let before = self.sent[second];
        let limits = self.profile.limits_at(START, now);
        let mut room = u64::MAX;
        let rates = [limits.per_second, limits.per_minute, limits.per_hour, limits.per_day];
        for (Window(span), limit) in WINDOWS.iter().zip(rates) {
            if let Some(limit) = limit {
                let in_window = before - self.sent[(second + 1).saturating_sub(*span)];
                room = room.min(u64::from(limit).saturating_sub(in_window));
            }
        }
        if self.profile.blocked_until(START, now).is_some() {
            room = 0;
        }
        let connections = [limits.connections, limits.connections_per_source];
        let connections = connections.into_iter().flatten().fold(self.ceiling, |least, n| least.min(n as usize));
        self.spare += connections as f64 * self.pace.messages_per_second(limits.messages_per_connection);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and truncation is meant"
        )]
        let sent = room.min(self.spare as u64);
        self.spare = (self.spare - sent as f64).min(1.0);
        self.sent.push(before + sent);
    }
}
