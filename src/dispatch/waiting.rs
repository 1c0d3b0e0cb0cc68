//! Targets that wait for the time of a lane.
//!
//! A paced or paused lane answers with the time to ask again. Its targets (MX sets that share the lane) stand in one list
//! with one timer; when it fires they take turns, one delivery each, until the lane names the next time. So a paused
//! lane costs one timer however much mail is due in it, and nobody is woken only to be told to wait.
//!
//! ```text
//! lane_wakes: the first of the list starts one delivery
//!   started      -> to the end of the list, the next one's turn
//!   "not before" -> stays first; one timer for all
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::core::{Core, Timer};
#[cfg(test)]
use super::destination::Target;
use super::destination::TargetId;
use super::pump::LOOK_AGAIN;
use crate::throttle::{LaneName, Probe};
use crate::types::Timestamp;

/// A lane that names no later time than now is asked again after this.
const STEP_MIN: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Waiting {
    /// The lane's timer; `NEVER`: none is set.
    at: Timestamp,
    /// When something to ask with was last looked for.
    probed: Option<Timestamp>,
    turns: VecDeque<TargetId>,
}

/// What came of a target's turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It started something, or does not wait for this lane any more.
    Used,
    /// The lane has named the next time, for everybody in its list.
    Told,
}

#[derive(Debug, Default)]
pub(super) struct Waits(BTreeMap<LaneName, Waiting>);

impl Waits {
    pub(super) fn probed(&mut self, lane: &LaneName, now: Timestamp) {
        if let Some(list) = self.0.get_mut(lane) {
            list.probed = Some(now);
        }
    }

    /// When the lane is to be looked at for something to ask with: at once, where that was not done just now.
    pub(super) fn probe_time(&self, lane: &LaneName, now: Timestamp) -> Timestamp {
        let last = self.0.get(lane).and_then(|list| list.probed);
        last.map_or(now, |at| (at + LOOK_AGAIN).max(now))
    }
}

impl Core {
    /// Puts the target at the end of the lane's list, where it does not stand there already.
    pub(super) fn wait_in_lane(&mut self, target: TargetId, lane: &LaneName, until: Timestamp, now: Timestamp) {
        self.leave_lane(target, Some(lane));
        let Some(place) = self.places.targets.get_mut(target) else { return };
        let is_new = place.waits_in.replace(lane.clone()).is_none();
        let empty = || Waiting { at: Timestamp::NEVER, probed: None, turns: VecDeque::new() };
        let list = self.waits.0.entry(lane.clone()).or_insert_with(empty);
        if is_new {
            list.turns.push_back(target);
        }
        self.look_at_lane(lane, until.max(now + STEP_MIN));
    }

    /// Takes the target out of the list it stands in, unless that is the one of `but`.
    fn leave_lane(&mut self, target: TargetId, but: Option<&LaneName>) {
        let Some(place) = self.places.targets.get_mut(target) else { return };
        let Some(lane) = place.waits_in.take_if(|lane| but != Some(lane)) else { return };
        if let Some(list) = self.waits.0.get_mut(&lane) {
            list.turns.retain(|other| *other != target);
        }
    }

    /// Sets the lane's timer, if none fires before.
    pub(super) fn look_at_lane(&mut self, lane: &LaneName, at: Timestamp) {
        let Some(list) = self.waits.0.get_mut(lane).filter(|list| at < list.at) else { return };
        let before = std::mem::replace(&mut list.at, at);
        self.clear_timer(before, Timer::Lane(lane.clone()));
        self.set_timer(at, Timer::Lane(lane.clone()));
    }

    /// Something changed for the lanes of a provider: what waits for them is looked at again before this input is done with.
    pub(super) fn hasten(&mut self, provider: &str, now: Timestamp) {
        let lanes: Vec<LaneName> = self.waits.0.keys().filter(|lane| *lane.provider == *provider).cloned().collect();
        for lane in lanes {
            self.look_at_lane(&lane, now);
        }
        let hungry: Vec<TargetId> =
            self.hungry.iter().filter(|(of, _)| **of == *provider).map(|(_, target)| *target).collect();
        for target in hungry {
            self.look_again(target, now);
        }
    }

    /// Everything that waits is looked at again.
    pub(super) fn hasten_all(&mut self, now: Timestamp) {
        let lanes: Vec<LaneName> = self.waits.0.keys().cloned().collect();
        for lane in lanes {
            self.look_at_lane(&lane, now);
        }
    }

    /// The lane's time has come: those that wait take turns until it names another.
    pub(super) fn lane_wakes(&mut self, lane: &LaneName, now: Timestamp) {
        let Some(list) = self.waits.0.get_mut(lane) else { return };
        list.at = Timestamp::NEVER;
        if let Some(probe @ (Probe::Expendable | Probe::OtherSender)) = self.throttle.probe(lane, now) {
            return self.probe_lane(lane, probe, now);
        }
        while let Some(list) = self.waits.0.get_mut(lane) {
            let Some(target) = list.turns.pop_front() else {
                self.waits.0.remove(lane);
                return;
            };
            if let Some(place) = self.places.targets.get_mut(target) {
                place.waits_in = None;
            }
            if self.take_turn(target, lane, now) == Turn::Told {
                return;
            }
        }
    }

    /// Targets with something in their line that nothing will look at again: there must never be one.
    #[cfg(test)]
    pub(super) fn forgotten_targets(&self, now: Timestamp) -> Vec<String> {
        if !self.may_begin() {
            return Vec::new();
        }
        let stopped = |provider: &str| {
            let is_stopped = |lane: &crate::throttle::LaneStatus| {
                *lane.provider == *provider && lane.connections_allowed == 0 && lane.until.is_none()
            };
            self.throttle.status(now).iter().any(is_stopped)
        };
        let has_timer = |lane: &LaneName| {
            let list = self.waits.0.get(lane);
            list.is_some_and(|list| list.at < Timestamp::NEVER && self.has_timer(list.at, Timer::Lane(lane.clone())))
        };
        let will_wake = |id: TargetId, place: &Target| {
            let is_timed = place.timer.is_some_and(|at| self.has_timer(at, Timer::Target(id)));
            let in_lane = place.waits_in.as_ref().map(|lane| {
                let stands = self.waits.0.get(lane).is_some_and(|list| list.turns.contains(&id));
                stands && (has_timer(lane) || stopped(&lane.provider))
            });
            let fed = self.hungry.iter().filter(|(_, target)| *target == id).any(|(provider, _)| {
                self.throttle.is_full() || self.connections.values().any(|c| c.permit.lane().provider == *provider)
            });
            let own = self.connections.values().any(|c| c.target == id);
            is_timed || in_lane.unwrap_or(own) || fed
        };
        self.places
            .targets
            .iter()
            .filter(|(id, place)| !place.line.is_empty() && !will_wake(*id, place))
            .map(|(id, place)| {
                let Target { provider, open, suspect, down_until, .. } = place;
                format!("{id} at {provider}: {open} open, suspect {suspect}, down until {down_until:?}")
            })
            .collect()
    }

    fn take_turn(&mut self, target: TargetId, lane: &LaneName, now: Timestamp) -> Turn {
        let started = self.may_begin() && self.step(target, now);
        let Some(place) = self.places.targets.get_mut(target) else { return Turn::Used };
        let Some(list) = self.waits.0.get_mut(lane) else { return Turn::Used };
        if started && place.waits_in.is_none() && !place.line.is_empty() {
            place.waits_in = Some(lane.clone());
            list.turns.push_back(target);
        } else if !started && place.waits_in.as_ref() == Some(lane) {
            // Its turn was not used up: it keeps its place.
            list.turns.retain(|other| *other != target);
            list.turns.push_front(target);
            return Turn::Told;
        }
        Turn::Used
    }
}
