//! Targets that wait for the time of a lane.
//!
//! A paced or paused lane answers with the time to ask again. Its targets (MX sets that share the lane) stand in one list
//! with one timer; when it fires they take turns, one delivery each, until the lane names the next time: urgent mail of any of them
//! first, each class with its share over all of them (`queue::Turns`). So a paused lane costs one timer however much mail is due in
//! it, and nobody is woken only to be told to wait.
//!
//! ```text
//! lane_wakes: the next of the list starts one delivery
//!   started      -> to the end of its class, the next one's turn
//!   "not before" -> keeps its place; one timer for all
//!   "full"       -> stays, behind those of its class that have a connection, and waits for one (`hungry`)
//! ```
//!
//! Where the class whose turn it is has none with a connection, it keeps its claim on the next time, its first target is the next to
//! get a connection of the provider, and one that rests is given up for it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Timer};
#[cfg(test)]
use super::destination::Target;
use super::destination::TargetId;
use super::errand::Errand;
#[cfg(test)]
use super::hungry::Among;
use super::pump::LOOK_AGAIN;
use crate::queue::Turns;
use crate::throttle::{LaneName, Probe};
use crate::types::{Priority, Timestamp};

/// A lane that names no later time than now is asked again after this.
const STEP_MIN: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Waiting {
    /// The lane's timer; `NEVER`: none is set.
    at: Timestamp,
    /// When something to ask with was last looked for.
    probed: Option<Timestamp>,
    turns: Turns<TargetId>,
}

/// What came of a target's turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It started something, or does not wait for this lane any more.
    Used,
    /// It has no connection, and neither has anybody else of its class.
    Lacks,
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
        place.waits_in = Some(lane.clone());
        place.lacks = place.hungry.is_some();
        let empty = || Waiting { at: Timestamp::NEVER, probed: None, turns: Turns::default() };
        self.waits.0.entry(lane.clone()).or_insert_with(empty);
        self.stand_in_lane(target);
        self.look_at_lane(lane, until.max(now + STEP_MIN));
    }

    /// A target that lacks a connection waits for the time of its provider's lane as well, if others do.
    pub(super) fn wait_beside(&mut self, target: TargetId, provider: &Arc<str>) {
        let lanes = self.sources.iter().map(|source| source.lane(provider));
        let Some(lane) = lanes.into_iter().find(|lane| self.waits.0.contains_key(lane)) else { return };
        if let Some(place) = self.places.targets.get_mut(target).filter(|place| place.waits_in.is_none()) {
            place.waits_in = Some(lane);
            self.stand_in_lane(target);
        }
    }

    /// Will the lane be looked at of itself?
    pub(super) fn lane_has_time(&self, lane: &LaneName) -> bool {
        self.waits.0.get(lane).is_some_and(|list| list.at < Timestamp::NEVER)
    }

    /// Where a target that waits for a lane stands follows from its line and its connections.
    pub(super) fn stand_in_lane(&mut self, target: TargetId) {
        let Some(place) = self.places.targets.get(target) else { return };
        let Some(list) = place.waits_in.as_ref().and_then(|lane| self.waits.0.get_mut(lane)) else { return };
        for class in Priority::ALL.iter().copied() {
            if place.line.len_of(class) > 0 {
                list.turns.stand(&target, class, place.lacks);
            } else {
                list.turns.leave_class(&target, class);
            }
        }
    }

    /// Mail of this class came into the line of a target, which may stand somewhere without it.
    pub(super) fn line_grew(&mut self, target: TargetId, class: Priority) {
        let Some(place) = self.places.targets.get(target).filter(|place| place.line.len_of(class) == 1) else { return };
        if place.hungry.is_some() {
            self.stand_hungry(target);
        }
        self.stand_in_lane(target);
    }

    /// Takes the target out of the list it stands in, unless that is the one of `but`.
    pub(super) fn leave_lane(&mut self, target: TargetId, but: Option<&LaneName>) {
        let Some(place) = self.places.targets.get_mut(target) else { return };
        let Some(lane) = place.waits_in.take_if(|lane| but != Some(lane)) else { return };
        if let Some(list) = self.waits.0.get_mut(&lane) {
            list.turns.leave(&target);
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
        let first = LaneName { provider: provider.into(), source: "".into() };
        let lanes = self.waits.0.range(first..).map(|(lane, _)| lane);
        for lane in lanes.take_while(|lane| *lane.provider == *provider).cloned().collect::<Vec<_>>() {
            self.look_at_lane(&lane, now);
        }
        self.feed_soon(provider, now);
    }

    /// Everything that waits is looked at again.
    pub(super) fn hasten_all(&mut self, now: Timestamp) {
        self.begin(Errand::WakeLanes { after: None }, now);
    }

    /// The next lanes of it.
    pub(super) fn hasten_some(&mut self, after: Option<&LaneName>, count: usize, now: Timestamp) -> Option<Errand> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let lanes: Vec<LaneName> =
            self.waits.0.range((from, Bound::Unbounded)).take(count).map(|(lane, _)| lane.clone()).collect();
        for lane in &lanes {
            self.look_at_lane(lane, now);
        }
        let is_full = lanes.len() == count;
        lanes.into_iter().next_back().filter(|_| is_full).map(|last| Errand::WakeLanes { after: Some(last) })
    }

    /// The lane's time has come: those that wait take turns until it names another.
    pub(super) fn lane_wakes(&mut self, lane: &LaneName, now: Timestamp) {
        let Some(list) = self.waits.0.get_mut(lane) else { return };
        list.at = Timestamp::NEVER;
        if let Some(probe @ (Probe::Expendable | Probe::OtherSender)) = self.throttle.probe(lane, now) {
            return self.probe_lane(lane, probe, now);
        }
        let mut passed = Vec::new();
        while let Some(list) = self.waits.0.get(lane) {
            let Some((class, target)) = list.turns.next_but(&passed) else {
                if list.turns.is_empty() {
                    self.waits.0.remove(lane);
                }
                // Whoever waits for a connection that is free by now may have the lane's time.
                return self.feed_provider(&lane.provider, now);
            };
            match self.take_turn(target, class, lane, now) {
                Turn::Used => {}
                Turn::Lacks => passed.push(class),
                Turn::Told => return,
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
            self.throttle.everything_paused().is_some() || self.throttle.status(now).iter().any(is_stopped)
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
            let fed = place.hungry.as_ref().is_some_and(|provider| {
                let feeds = |timer| self.has_timer_of(timer);
                let comes = self.is_crowded(Priority::Normal)
                    || (!self.proven.contains(provider) && self.strangers_full(Priority::Normal))
                    || self.connections.values().any(|c| c.permit.lane().provider == *provider)
                    || feeds(Timer::Feed(provider.clone()))
                    || feeds(Timer::FeedAmong(Among::All))
                    || feeds(Timer::FeedAmong(Among::Strangers));
                comes && self.hungry.stands_hungry(provider, id)
            });
            let own = self.connections.values().any(|c| c.target == id);
            is_timed || in_lane.unwrap_or(own) || fed
        };
        self.places
            .targets
            .iter()
            .filter(|(id, place)| !place.line.is_empty() && !will_wake(*id, place))
            .map(|(id, place)| {
                let Target { provider, open, suspect, down_until, hungry, waits_in, lacks, .. } = place;
                format!(
                    "{id} at {provider}: {open} open, suspect {suspect}, down until {down_until:?}, hungry {hungry:?}, in {waits_in:?}, lacks {lacks}"
                )
            })
            .collect()
    }

    fn take_turn(&mut self, target: TargetId, class: Priority, lane: &LaneName, now: Timestamp) -> Turn {
        let lacked = self.places.targets.get_mut(target).is_some_and(|place| {
            place.waits_in = None;
            place.lacks
        });
        let started = self.may_begin() && self.step_of(target, Some(class), now);
        let Some(list) = self.waits.0.get_mut(lane) else { return Turn::Used };
        let Some(place) = self.places.targets.get_mut(target) else {
            list.turns.leave(&target);
            return Turn::Used;
        };
        if started && place.waits_in.is_none() && !place.line.is_empty() {
            place.waits_in = Some(lane.clone());
            list.turns.served(class);
            list.turns.moves_back(&target, class, place.lacks);
            self.stand_in_lane(target);
            return Turn::Used;
        }
        if place.waits_in.is_none() && place.line.len_of(class) == 0 && !place.line.is_empty() {
            // All of this class had to go elsewhere; the others still wait.
            place.waits_in = Some(lane.clone());
            self.stand_in_lane(target);
            return Turn::Used;
        }
        if place.waits_in.as_ref() != Some(lane) {
            list.turns.leave(&target);
            if place.line.is_empty() {
                self.sated(target);
            }
            return Turn::Used;
        }
        match (started, place.lacks) {
            (true, _) => Turn::Used,
            // Its turn was not used up: it keeps its place.
            (false, false) => Turn::Told,
            (false, true) if lacked => {
                self.owe(target, class);
                Turn::Lacks
            }
            (false, true) => Turn::Used,
        }
    }
}
