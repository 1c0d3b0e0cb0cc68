//! What operators ask for: flush, hold, release, bounce, remove, reroute.
//!
//! A command names deliveries; what is in a transaction just now is left alone and counted as skipped (held afterwards, where hold
//! was asked for). The answer comes when everything it did is on its way into the spool.

use std::collections::BTreeMap;

use super::core::Core;
use super::message::{Action, Adjust, Row, Ticket};
use super::withdraw::Purpose;
use crate::queue::Place;
use crate::types::{DeliveryId, NextHop, Timestamp};

/// Commands that wait for deliveries to be settled.
#[derive(Debug, Default)]
pub(super) struct Commands {
    open: BTreeMap<Ticket, Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    outstanding: usize,
    left_alone: Vec<DeliveryId>,
    /// All deliveries of the command have been looked at.
    complete: bool,
}

impl Commands {
    /// One delivery of a command has come to its end.
    pub(super) fn settled(&mut self, ticket: Option<Ticket>, id: DeliveryId, done: bool) {
        let Some(progress) = ticket.and_then(|ticket| self.open.get_mut(&ticket)) else { return };
        progress.outstanding = progress.outstanding.saturating_sub(1);
        if !done {
            progress.left_alone.push(id);
        }
    }

    fn answers(&mut self) -> Vec<(Ticket, Vec<DeliveryId>)> {
        let ready: Vec<Ticket> =
            self.open.iter().filter(|(_, p)| p.complete && p.outstanding == 0).map(|(ticket, _)| *ticket).collect();
        ready
            .into_iter()
            .filter_map(|ticket| self.open.remove(&ticket).map(|progress| (ticket, progress.left_alone)))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl Core {
    pub(super) fn command(&mut self, ticket: Ticket, adjust: Adjust, rows: Vec<Row>, now: Timestamp) {
        self.commands.open.insert(ticket, Progress::default());
        for row in rows {
            let id = self.bring(row, now);
            self.adjust(ticket, adjust, id, now);
        }
        self.all_seen(ticket);
    }

    /// Sends deliveries to a next hop instead of the MX hosts of their domains.
    pub(super) fn reroute(&mut self, ticket: Ticket, to: &NextHop, rows: Vec<Row>, now: Timestamp) {
        self.commands.open.insert(ticket, Progress::default());
        for row in rows {
            let id = self.bring(row, now);
            match self.queue.get(id).map(|entry| entry.place) {
                None | Some(Place::Active | Place::Settling) => self.leave_alone(ticket, id),
                Some(_) => self.settle_for(ticket, id, Purpose::Reroute(ticket, to.clone()), now),
            }
        }
        self.all_seen(ticket);
    }

    /// What waits far in the future may be on disk alone.
    fn bring(&mut self, row: Row, now: Timestamp) -> DeliveryId {
        let id = row.id;
        if self.queue.get(id).is_none() {
            let soon = Row { next_attempt: row.next_attempt.map(|at| at.min(now)), ..row };
            let held_before = soon.held;
            if self.load(soon, now) && !held_before {
                self.queue.put(id, Place::Later(now));
            }
        }
        id
    }

    fn settle_for(&mut self, ticket: Ticket, id: DeliveryId, purpose: Purpose, now: Timestamp) {
        if let Some(progress) = self.commands.open.get_mut(&ticket) {
            progress.outstanding += 1;
        }
        self.settle_later(id, purpose, now);
    }

    fn all_seen(&mut self, ticket: Ticket) {
        if let Some(progress) = self.commands.open.get_mut(&ticket) {
            progress.complete = true;
        }
        self.answer_commands();
    }

    pub(super) fn answer_commands(&mut self) {
        if self.commands.is_empty() {
            return;
        }
        for (ticket, left_alone) in self.commands.answers() {
            self.act(Action::Answer { ticket, left_alone });
        }
    }

    fn adjust(&mut self, ticket: Ticket, adjust: Adjust, id: DeliveryId, now: Timestamp) {
        let Some(entry) = self.queue.get_mut(id) else { return self.leave_alone(ticket, id) };
        let purpose = match (adjust, entry.place) {
            (Adjust::Hold, Place::Active) => {
                entry.hold_wanted = true;
                return;
            }
            (_, Place::Active | Place::Settling) => return self.leave_alone(ticket, id),
            (Adjust::Hold, Place::Held) | (Adjust::Flush, Place::Held) => return self.leave_alone(ticket, id),
            (Adjust::Release, place) if place != Place::Held => return self.leave_alone(ticket, id),
            (Adjust::Flush, place) => {
                if matches!(place, Place::Later(_)) {
                    self.queue.put(id, Place::Later(now));
                }
                self.wake_target_of(id);
                return;
            }
            (Adjust::Hold, _) => Purpose::Hold(ticket),
            (Adjust::Release, _) => Purpose::Release(ticket),
            (Adjust::Bounce, _) => Purpose::Bounce(ticket),
            (Adjust::Remove, _) => Purpose::Remove(ticket),
        };
        self.settle_for(ticket, id, purpose, now);
    }

    fn leave_alone(&mut self, ticket: Ticket, id: DeliveryId) {
        if let Some(progress) = self.commands.open.get_mut(&ticket) {
            progress.left_alone.push(id);
        }
    }
}
