//! What happens to lanes: changes that the throttle decides, and what must outlive a restart. Orders of operators are in `hand`.
//!
//! Each change is an event of the log; a block is an alert besides. After a block no new MAIL goes out: idle connections are
//! closed, and openings whose dialogue has not begun are called back.

use std::time::Duration;

use super::core::{Core, Timer};
use super::message::{Action, ConnectionId};
use super::pump::State;
use crate::spool::Change;
use crate::throttle::{Change as LaneChange, HoldBegan, LaneName, Reported, Side, Signal};
use crate::types::{Event, EventKind, Reading, Timestamp};

/// What lanes learned is saved this long after it was learned.
const SAVE_AFTER: Duration = Duration::from_secs(5);

/// So many lanes are saved at once, and the next ones so much later: a record is a thousand octets to write down.
const SAVED_AT_ONCE: usize = 256;
const SAVE_NEXT: Duration = Duration::from_millis(5);

/// What was said when a lane changed.
#[derive(Clone, Copy)]
pub(super) struct Said<'a> {
    pub reply: &'a str,
    pub reading: &'a Reading,
    /// The sender of the message that met it.
    pub flow: Option<u32>,
}

impl Core {
    /// Reports a signal; what changes for the lane becomes an event. Does the delivery wait with the lane?
    pub(super) fn tell_lane(
        &mut self,
        lane: &LaneName,
        signal: &Signal<'_>,
        said: Option<Said<'_>>,
        now: Timestamp,
    ) -> bool {
        let Reported { change, waits } = self.throttle.report(lane, signal, now);
        self.save_soon(now);
        if let Some(Said { reading, .. }) = said.filter(|_| waits) {
            self.act(Action::Throttled { provider: lane.provider.clone(), class: reading.class });
        }
        if let Some(change) = change {
            self.lane_changed(lane, &change, said, now);
        }
        waits
    }

    /// Changes that came about by counting and by time.
    pub(super) fn tell_counted(&mut self, now: Timestamp) {
        for (lane, change) in self.throttle.take_changes() {
            self.lane_changed(&lane, &change, None, now);
        }
    }

    pub(super) fn lane_changed(
        &mut self,
        lane: &LaneName,
        change: &LaneChange,
        said: Option<Said<'_>>,
        now: Timestamp,
    ) -> String {
        let (kind, text) = in_words(lane, change);
        self.announce(lane, change, kind, text, said, now)
    }

    pub(super) fn announce(
        &mut self,
        lane: &LaneName,
        change: &LaneChange,
        kind: EventKind,
        text: String,
        said: Option<Said<'_>>,
        now: Timestamp,
    ) -> String {
        let mut event = Event::new(now, kind);
        event.provider = Some(lane.provider.clone());
        event.source = Some(lane.source.clone());
        if let Some(Said { reply, reading, .. }) = said {
            event.reply = Some(reply.to_string());
            event.class = Some(reading.class);
            event.rule = Some(reading.rule.clone());
            event.remedy = Some(reading.remedy.to_string());
        }
        event.text = Some(text.clone());
        self.act(Action::Commit(vec![Change::Note(event)]));
        match change {
            LaneChange::Wave { id, .. } => {
                self.raise_wave(lane, id, &text, now);
                return text;
            }
            LaneChange::WaveEnded { id } => {
                let words = format!("{}: recipients are known there again, the wave is over", lane.provider);
                self.over_with(&super::alarm::wave_key(id), &words, now);
                return text;
            }
            LaneChange::Held(held) if held.side == Side::Sender => self.raise_held(lane, held, &text, said, now),
            _ => {}
        }
        match kind {
            EventKind::Blocked => self.blocked(lane, &text, said, now),
            EventKind::Paused => self.rest(lane),
            EventKind::Resumed => {
                self.blocked_by.remove(lane);
                self.something_to_risk(lane);
                let words = format!("{lane}: mail goes again, the block is over");
                self.over_with(&super::alarm::blocked_key(lane), &words, now);
                self.hasten(&lane.provider, now);
            }
            _ if *change == LaneChange::Ipv4Only => self.raise_ipv6(lane, &text, said, now),
            _ => {}
        }
        self.save(now);
        text
    }

    fn blocked(&mut self, lane: &LaneName, text: &str, said: Option<Said<'_>>, now: Timestamp) {
        if let Some(flow) = said.and_then(|said| said.flow) {
            self.blocked_by.insert(lane.clone(), flow);
        }
        self.raise_block(lane, text, said, now);
        self.rest(lane);
    }

    /// No new MAIL on the connections of a lane: those at rest are closed, those on their way are called back.
    pub(super) fn rest(&mut self, lane: &LaneName) {
        let own: Vec<(ConnectionId, State)> = self
            .connections
            .iter()
            .filter(|(_, c)| c.permit.lane() == lane && matches!(c.state, State::Idle(_) | State::Opening(_)))
            .map(|(id, c)| (*id, c.state))
            .collect();
        for (id, state) in own {
            match state {
                State::Idle(_) => self.close(id),
                _ => self.recall(id),
            }
        }
    }

    /// The same in all lanes.
    pub(super) fn rest_all(&mut self) {
        let own: Vec<(ConnectionId, State)> = self.connections.iter().map(|(id, c)| (*id, c.state)).collect();
        for (id, state) in own {
            match state {
                State::Idle(_) => self.close(id),
                State::Opening(_) => self.recall(id),
                _ => {}
            }
        }
    }

    /// Closes the connections of a lane that carry nothing just now.
    pub(super) fn close_idle(&mut self, lane: &LaneName) {
        let idle: Vec<ConnectionId> = self
            .connections
            .iter()
            .filter(|(_, c)| c.permit.lane() == lane && c.is_idle())
            .map(|(id, _)| *id)
            .collect();
        idle.into_iter().for_each(|id| self.close(id));
    }

    /// Something was learned that should outlive a restart.
    pub(super) fn save_soon(&mut self, now: Timestamp) {
        if !std::mem::replace(&mut self.save_planned, true) {
            self.set_timer(now + SAVE_AFTER, Timer::Save);
        }
    }

    /// The first of what is to be saved, in one go; the rest follows at once.
    pub(super) fn save(&mut self, now: Timestamp) {
        self.save_some(SAVED_AT_ONCE, now);
        if !self.throttle.is_saved() {
            self.set_timer(now + SAVE_NEXT, Timer::SaveRest);
        }
    }

    /// All of it; for the end.
    pub(super) fn save_all(&mut self, now: Timestamp) {
        self.save_some(usize::MAX, now);
    }

    fn save_some(&mut self, lanes_max: usize, now: Timestamp) {
        let records = self.throttle.unsaved(lanes_max, now);
        if !records.is_empty() {
            self.act(Action::Remember(records));
        }
    }
}

/// The kind of the event that tells of a change, and its words.
pub(super) fn in_words(lane: &LaneName, change: &LaneChange) -> (EventKind, String) {
    match change {
        LaneChange::Throttled { text } => (EventKind::Throttled, format!("{lane}: {text}")),
        LaneChange::Paused { until: Timestamp::NEVER } => (
            EventKind::Paused,
            format!("{lane}: nothing is sent until an operator says `weir resume {}`", lane.provider),
        ),
        LaneChange::Paused { until } => {
            (EventKind::Paused, format!("{lane}: nothing is sent before {until}, then one message asks"))
        }
        LaneChange::Ipv4Only => (EventKind::Throttled, format!("{lane}: over IPv4 from now on")),
        LaneChange::Blocked { until: Timestamp::NEVER } => {
            let text = format!("{lane}: our name is refused, nothing is sent until it changes or an operator says so");
            (EventKind::Blocked, text)
        }
        LaneChange::Blocked { until } => {
            (EventKind::Blocked, format!("{lane}: blocked, nothing is sent before {until}; the mail stays queued"))
        }
        LaneChange::Held(HoldBegan { side, domain, held }) => {
            let mail = match side {
                Side::Sender => format!("mail from {domain}"),
                Side::Recipient => format!("mail to {domain}"),
            };
            let text = format!("{lane}: {mail} is held back until {}, then one message asks", held.until);
            (EventKind::Throttled, text)
        }
        LaneChange::Wave { id, text } => {
            let text = format!(
                "{}: {text}. Half the rate from now on; whom it calls unknown now is listed for 7 days, as wave {id}",
                lane.provider
            );
            (EventKind::Throttled, text)
        }
        LaneChange::WaveEnded { id } => {
            (EventKind::Resumed, format!("{}: the wave of unknown recipients {id} is over", lane.provider))
        }
        // By an answer or by an operator: in the second case nothing is known of the receiver yet.
        LaneChange::Resumed => (EventKind::Resumed, format!("{lane}: open again, slowly at first")),
    }
}
