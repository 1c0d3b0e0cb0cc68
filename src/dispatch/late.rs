//! Tells senders that a message is late, and tries it on: BY with N (RFC 2852 section 4.1.2).
//!
//! Rules that always hold:
//! - a delivery is told of once, in the commit that notes it, and the report takes the place of that of `bounces.delay_after`;
//! - it keeps its place: the time of its next attempt, the operator's hold, the head of its line;
//! - what is in a transaction at that moment is told of only if it is deferred then.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::Attempt;
use super::core::{Core, Timer};
use super::message::{Action, Excerpt};
use super::withdraw::Purpose;
use crate::queue::Place;
use crate::spool::Change;
use crate::types::{Delivery, DeliveryId, Envelope, Timestamp};

/// So many are told of in one go, and the next ones this much later.
const AT_ONCE: usize = 64;
const NEXT_AFTER: Duration = Duration::from_millis(50);
/// What cannot be told of yet, because it is being tried, is looked at again then.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Core {
    /// The sender wants to hear if the delivery is not at its end by then.
    pub(super) fn watch_lateness(&mut self, id: DeliveryId, at: Timestamp) {
        if self.late.first().is_none_or(|(first, _)| at < *first) {
            self.set_timer(at, Timer::Late);
        }
        self.late.insert((at, id));
    }

    pub(super) fn tell_late(&mut self, now: Timestamp) {
        for _ in 0..AT_ONCE {
            let Some((_, id)) = self.late.first().copied().filter(|(at, _)| *at <= now) else { break };
            self.late.pop_first();
            let Some(entry) = self.queue.get(id).filter(|entry| !entry.delay_reported) else { continue };
            let place = entry.place;
            let is_tried = self.attempts.get(&id).is_some_and(Attempt::goes_on);
            if is_tried || matches!(place, Place::Active | Place::Settling) {
                self.late.insert((now + LOOK_AGAIN, id));
            } else {
                self.settle_later(id, Purpose::Late(place), now);
            }
        }
        if let Some((first, _)) = self.late.first() {
            self.set_timer((*first).max(now + NEXT_AFTER), Timer::Late);
        }
    }

    /// The content is at hand: the report, and back to where it was.
    pub(super) fn told_late(
        &mut self,
        place: Place,
        envelope: &Arc<Envelope>,
        mut delivery: Delivery,
        excerpt: &Excerpt,
        now: Timestamp,
    ) {
        let id = delivery.id;
        let mut changes = Vec::new();
        self.report_delay(envelope, &delivery, Some(excerpt), &mut changes, now);
        delivery.delay_reported = true;
        self.fresh.remove(id.message);
        let mut is_held = place == Place::Held;
        if let Some(entry) = self.queue.get_mut(id) {
            entry.delay_reported = true;
            is_held |= std::mem::take(&mut entry.hold_wanted);
        }
        if is_held {
            self.act(Action::Commit(changes));
            return self.set_held(id, delivery, true, now);
        }
        changes.push(Change::Update(delivery));
        self.act(Action::Commit(changes));
        match place {
            Place::Later(at) => drop(self.queue.put(id, Place::Later(at))),
            _ => self.lead_line(id),
        }
    }
}
