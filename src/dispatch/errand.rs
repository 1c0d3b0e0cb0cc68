//! Long work for an order of an operator, or for a change that concerns everything: done a few places at a time.
//!
//! An errand does at most so many steps in one input, and comes back with a timer right after: what else happens meanwhile is heard
//! in between. It knows where it stands by a number or a key, never by a list of what is still to be done, so that it costs no
//! memory and what comes or goes meanwhile does no harm.

use std::collections::VecDeque;
use std::ops::Bound;
use std::time::Duration;

use super::core::{Core, Timer};
use super::destination::{DomainId, TargetId};
use crate::throttle::LaneName;
use crate::types::{DeliveryId, Priority, Timestamp};

/// Steps in one go: some 2 ms.
const STEPS: usize = 128;
/// To join a line is half a microsecond.
const JOINS: usize = 1024;
/// What is only looked at costs less.
const LOOKS: usize = 1024;
/// The next ones so much later.
const NEXT: Duration = Duration::from_millis(1);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Errand {
    /// Every target with mail gets its turn: with its urgent mail at first, then with all. From this place on.
    Pump { only_urgent: bool, from: usize },
    /// What stands behind a domain whose route is known joins the line of its target.
    Join(DomainId),
    /// Routes are asked for again where there was none.
    WakeUnroutable { from: usize },
    /// Lanes that something waits for are looked at.
    WakeLanes { after: Option<LaneName> },
    /// What is held back no longer is due.
    WakeHeldBack { after: Option<DeliveryId> },
}

impl Core {
    /// Does the first steps at once.
    pub(super) fn begin(&mut self, errand: Errand, now: Timestamp) {
        self.go_on_errand(errand, now);
    }

    pub(super) fn go_on_errand(&mut self, errand: Errand, now: Timestamp) {
        let next = match errand {
            Errand::Pump { only_urgent, from } => self.pump_from(only_urgent, from, now),
            Errand::Join(id) => self.join_some(id, now),
            Errand::WakeUnroutable { from } => self.wake_unroutable(from, now),
            Errand::WakeLanes { after } => self.hasten_some(after.as_ref(), STEPS, now),
            Errand::WakeHeldBack { after } => self.wake_some_held_back(after, now),
        };
        if let Some(next) = next {
            self.set_timer(now + NEXT, Timer::Errand(next));
        }
    }

    fn pump_from(&mut self, only_urgent: bool, from: usize, now: Timestamp) -> Option<Errand> {
        let class = only_urgent.then_some(Priority::High);
        let mut targets: Vec<TargetId> = Vec::new();
        let mut next = None;
        for (id, place) in self.places.targets.slice(from, LOOKS) {
            if targets.len() == STEPS {
                next = Some(id as usize);
                break;
            }
            let has_mail = if only_urgent { place.line.len_of(Priority::High) > 0 } else { !place.line.is_empty() };
            if has_mail {
                targets.push(id);
            }
        }
        self.pump_class_in_turns(targets, class, now);
        let next = next.unwrap_or(from + LOOKS);
        match (next < self.places.targets.places(), only_urgent) {
            (true, _) => Some(Errand::Pump { only_urgent, from: next }),
            (false, true) => Some(Errand::Pump { only_urgent: false, from: 0 }),
            (false, false) => None,
        }
    }

    fn join_some(&mut self, id: DomainId, now: Timestamp) -> Option<Errand> {
        if self.is_set_aside(id) {
            return None;
        }
        let domain = self.places.domains.get_mut(id)?;
        let Some(target) = domain.target else {
            // Its way was lost meanwhile.
            if !domain.pending.is_empty() {
                self.resolve(id);
            }
            return None;
        };
        let few: Vec<DeliveryId> = domain.pending.drain(..domain.pending.len().min(JOINS)).collect();
        let is_done = domain.pending.is_empty();
        if is_done {
            domain.pending = VecDeque::new();
        }
        for delivery in few {
            self.join_line(delivery, target);
        }
        self.pump(target, now);
        (!is_done).then_some(Errand::Join(id))
    }

    fn wake_unroutable(&mut self, from: usize, now: Timestamp) -> Option<Errand> {
        let failed = self.places.domains.slice(from, STEPS).filter(|(_, domain)| domain.failure.is_some());
        for id in failed.map(|(id, _)| id).collect::<Vec<_>>() {
            self.wake_domain(id, now);
        }
        let next = from + STEPS;
        (next < self.places.domains.places()).then_some(Errand::WakeUnroutable { from: next })
    }

    fn wake_some_held_back(&mut self, after: Option<DeliveryId>, now: Timestamp) -> Option<Errand> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let few: Vec<DeliveryId> = self.held_back.range((from, Bound::Unbounded)).take(STEPS).copied().collect();
        let last = few.last().copied().filter(|_| few.len() == STEPS);
        for id in few {
            self.wake_if_free(id, now);
        }
        last.map(|last| Errand::WakeHeldBack { after: Some(last) })
    }
}
