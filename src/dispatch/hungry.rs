//! Targets that wait for a connection.
//!
//! A target that may open no connection because all that its provider (or the whole relay) may have are taken stands here until one
//! is given back, and takes turns with the others by the rule of `queue::Turns`: the class whose turn it is over all of them,
//! within it those without a connection first, first come, first served.
//!
//! ```text
//! a permit comes back: the whole relay was full?  -> the providers that wait for that take turns
//!                      then                       -> those who wait for a connection of this provider
//!   a target's turn: started      -> to the end, for the next connection
//!                    "full"       -> keeps its place, and nobody else is asked
//!                    "not before" -> it waits for the lane's time instead, and nobody else is asked: the permit is meant for it
//! ```
//!
//! Where places for strangers are what is short (`strangers`), their providers take turns for those in the same way.
//!
//! A connection whose target has a long line is given up for one that has none: after some messages, and at once where the
//! other's mail is more urgent; never for more of them than there are connections on their way back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::core::{Core, Timer};
use super::destination::TargetId;
use super::pump::Connection;
use crate::queue::Turns;
use crate::throttle::LaneName;
use crate::types::{Priority, Timestamp};

/// When others wait for its permit, a connection is given up after so many messages, or so long.
const SHARE_AFTER: u32 = 10;
/// So many turns at once: targets whose routes have to be asked for again use none of the room, and there may be many of them.
const FED_MAX: usize = 64;
const FED_AGAIN: Duration = Duration::from_secs(1);
const SHARE_AFTER_TIME: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Hungry {
    providers: BTreeMap<Arc<str>, Turns<TargetId>>,
    /// Of those, the providers that wait because all connections together are at their limit.
    whole: Turns<Arc<str>>,
    /// And those that wait because all strangers together are.
    strangers: Turns<Arc<str>>,
    /// Whose turn of a lane's time it was, had it had a connection: gets the next one.
    owed: BTreeMap<Arc<str>, (Priority, TargetId)>,
    /// Connections on their way to give a permit back.
    closing: BTreeMap<Arc<str>, usize>,
}

/// With whom a provider takes turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Among {
    /// All places are taken.
    All,
    /// Those for strangers are.
    Strangers,
}

/// What came of a target's turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fed {
    Started,
    /// There is no room, or no time of the lane: the others would hear the same.
    Told,
    /// It wants no connection any more.
    Gone,
}

impl Hungry {
    fn stand(&mut self, provider: &Arc<str>, target: TargetId, class: Priority, has_some: bool) {
        if !self.providers.contains_key(provider) {
            self.providers.insert(provider.clone(), Turns::default());
        }
        if let Some(turns) = self.providers.get_mut(provider) {
            turns.stand(&target, class, has_some);
        }
    }

    fn leave(&mut self, provider: &Arc<str>, target: TargetId) {
        let Some(turns) = self.providers.get_mut(provider) else { return };
        turns.leave(&target);
        if turns.is_empty() {
            self.providers.remove(provider);
            self.owed.remove(provider);
            self.whole.leave(provider);
            self.strangers.leave(provider);
        }
    }

    fn leave_class(&mut self, provider: &str, target: TargetId, class: Priority) {
        if let Some(turns) = self.providers.get_mut(provider) {
            turns.leave_class(&target, class);
        }
    }

    fn moves_back(&mut self, provider: &str, target: TargetId, class: Priority) {
        if let Some(turns) = self.providers.get_mut(provider) {
            turns.served(class);
            turns.moves_back(&target, class, true);
        }
    }

    fn among(&mut self, among: Among) -> &mut Turns<Arc<str>> {
        match among {
            Among::All => &mut self.whole,
            Among::Strangers => &mut self.strangers,
        }
    }

    /// The provider waits with others: where it stands follows from its targets.
    fn stand_among(&mut self, among: Among, provider: &Arc<str>, has_some: bool) {
        for class in Priority::ALL.iter().copied() {
            let waits = self.providers.get(provider).is_some_and(|turns| turns.waits_in(class));
            let all = self.among(among);
            if waits {
                all.stand(provider, class, has_some);
            } else {
                all.leave_class(provider, class);
            }
        }
    }

    /// Whose turn it is.
    fn next(&mut self, provider: &Arc<str>) -> Option<(Priority, TargetId)> {
        let owed = self.owed.remove(provider);
        let turns = self.providers.get(provider)?;
        owed.filter(|(_, target)| turns.contains(target)).or_else(|| turns.next())
    }

    fn next_urgent(&self, provider: &str) -> Option<(Priority, TargetId)> {
        self.providers.get(provider)?.next_of(Priority::High)
    }

    /// Targets without a connection that wait for one of this provider; `than`: only those with more urgent mail.
    fn without(&self, provider: &str, is_full: bool, than: Option<Priority>) -> usize {
        let own = self.providers.get(provider).map_or(0, |turns| turns.without(than));
        // Elsewhere it is providers that have none.
        if is_full { own.max(self.whole.without(than)) } else { own }
    }

    pub(super) fn closes(&mut self, provider: &Arc<str>) {
        *self.closing.entry(provider.clone()).or_default() += 1;
    }

    pub(super) fn closed(&mut self, provider: &str) {
        if let Some(count) = self.closing.get_mut(provider) {
            *count -= 1;
            if *count == 0 {
                self.closing.remove(provider);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn stands_hungry(&self, provider: &str, target: TargetId) -> bool {
        self.providers.get(provider).is_some_and(|turns| turns.contains(&target))
    }
}

impl Core {
    /// The target waits for a connection of this provider.
    pub(super) fn hunger(&mut self, target: TargetId, provider: &Arc<str>) {
        let Some(place) = self.places.targets.get_mut(target) else { return };
        if let Some(other) = place.hungry.take_if(|other| other != provider) {
            self.hungry.leave(&other, target);
        }
        place.hungry = Some(provider.clone());
        place.lacks = true;
        self.stand_hungry(target);
        self.wait_beside(target, provider);
        self.stand_in_lane(target);
        self.stand_where_short(provider);
    }

    /// Among the providers that take turns for what is short just now: somebody else's connection is what this one waits for.
    fn stand_where_short(&mut self, provider: &Arc<str>) {
        if self.is_crowded(Priority::Normal) {
            self.stand_among(Among::All, provider);
        }
        if !self.proven.contains(provider) && self.strangers_full(Priority::Normal) {
            self.stand_among(Among::Strangers, provider);
        }
    }

    fn stand_among(&mut self, among: Among, provider: &Arc<str>) {
        self.hungry.stand_among(among, provider, self.throttle.open_at(provider) > 0);
    }

    /// Are the places taken for which providers take turns there?
    fn is_taken(&self, among: Among, class: Priority) -> bool {
        match among {
            Among::All => self.is_crowded(class),
            Among::Strangers => self.strangers_full(class),
        }
    }

    /// Its turn of the lane's time came, and it had no connection.
    pub(super) fn owe(&mut self, target: TargetId, class: Priority) {
        let Some(provider) = self.places.targets.get(target).and_then(|place| place.hungry.clone()) else { return };
        self.hungry.owed.insert(provider, (class, target));
    }

    /// Where a target that waits for a connection stands follows from its line and its connections.
    pub(super) fn stand_hungry(&mut self, target: TargetId) {
        let Some(place) = self.places.targets.get(target) else { return };
        let Some(provider) = &place.hungry else { return };
        for class in Priority::ALL.iter().copied() {
            if place.line.len_of(class) > 0 {
                self.hungry.stand(provider, target, class, place.open > 0);
            } else {
                self.hungry.leave_class(provider, target, class);
            }
        }
    }

    /// Nothing stands in its line any more.
    pub(super) fn sated(&mut self, target: TargetId) {
        self.leave_lane(target, None);
        let Some(place) = self.places.targets.get_mut(target) else { return };
        if let Some(provider) = place.hungry.take() {
            self.hungry.leave(&provider, target);
        }
    }

    /// A permit came back. Only where all connections together had been at their limit can it serve another provider.
    pub(super) fn feed_hungry(&mut self, provider: &Arc<str>, was_full: bool, now: Timestamp) {
        if was_full {
            // Whoever waits for a connection of this provider waits for one at all.
            self.stand_among(Among::All, provider);
            self.feed_among(Among::All, now);
        }
        self.feed_provider(provider, now);
    }

    pub(super) fn feed_among(&mut self, among: Among, now: Timestamp) {
        for _ in 0..FED_MAX {
            let only_urgent = self.is_taken(among, Priority::Normal);
            if self.is_taken(among, Priority::High) {
                return;
            }
            let turns = self.hungry.among(among);
            let next = if only_urgent { turns.next_of(Priority::High) } else { turns.next() };
            let Some((class, provider)) = next else { return };
            let next = self.hungry.providers.get(&provider).and_then(|turns| turns.next_of(class));
            let Some((class, target)) = next else {
                self.hungry.among(among).leave_class(&provider, class);
                continue;
            };
            match self.feed(target, &provider, class, now) {
                Fed::Started => {
                    let turns = self.hungry.among(among);
                    turns.served(class);
                    turns.moves_back(&provider, class, true);
                    self.stand_among(among, &provider);
                }
                // It is something else that keeps it from going.
                Fed::Told => self.hungry.among(among).leave(&provider),
                Fed::Gone => self.stand_among(among, &provider),
            }
        }
        self.set_timer(now + FED_AGAIN, Timer::FeedAmong(among));
    }

    /// Until one is told that there is no room.
    pub(super) fn feed_provider(&mut self, provider: &Arc<str>, now: Timestamp) {
        // What it waited for in its lane may be over while all places are taken, and it had left the others for that.
        self.stand_where_short(provider);
        for _ in 0..FED_MAX {
            if self.throttle.is_full() {
                return;
            }
            let only_urgent = self.is_crowded(Priority::Normal);
            let next = if only_urgent { self.hungry.next_urgent(provider) } else { self.hungry.next(provider) };
            let Some((class, target)) = next else { return };
            if self.feed(target, provider, class, now) == Fed::Told {
                return;
            }
        }
        self.set_timer(now + FED_AGAIN, Timer::Feed(provider.clone()));
    }

    /// One delivery of a target that waits for a connection.
    fn feed(&mut self, target: TargetId, provider: &Arc<str>, class: Priority, now: Timestamp) -> Fed {
        if let Some(place) = self.places.targets.get_mut(target) {
            place.hungry = None;
        }
        let started = self.may_begin() && self.step_of(target, Some(class), now);
        let Some(place) = self.places.targets.get_mut(target) else {
            self.hungry.leave(provider, target);
            return Fed::Gone;
        };
        if started && !place.line.is_empty() {
            place.hungry = Some(provider.clone());
            self.hungry.moves_back(provider, target, class);
            self.stand_hungry(target);
            return Fed::Started;
        }
        if !started && place.line.len_of(class) == 0 && !place.line.is_empty() && place.hungry.is_none() {
            // All of this class had to go elsewhere; the others still wait.
            place.hungry = Some(provider.clone());
            self.stand_hungry(target);
            return Fed::Gone;
        }
        let is_done = place.line.is_empty();
        let is_told = place.hungry.is_some() || (place.waits_in.is_some() && !place.lacks);
        if place.hungry.as_ref() != Some(provider) {
            self.hungry.leave(provider, target);
        }
        if is_done {
            self.sated(target);
        }
        self.leave_idle_lane(target);
        match started {
            true => Fed::Started,
            false if is_told => Fed::Told,
            false => Fed::Gone,
        }
    }

    /// It stood beside others for a lane's time, and they are gone: nobody would call it.
    fn leave_idle_lane(&mut self, target: TargetId) {
        let place = self.places.targets.get(target).filter(|place| place.hungry.is_none());
        if place.and_then(|place| place.waits_in.as_ref()).is_some_and(|lane| !self.lane_has_time(lane)) {
            self.leave_lane(target, None);
        }
    }

    /// An answer may have widened the lane: whoever waits for a connection of it gets one.
    pub(super) fn share_room(&mut self, lane: &LaneName, now: Timestamp) {
        if self.hungry.providers.contains_key(&lane.provider) && !self.throttle.is_used_up(lane, now) {
            self.feed_provider(&lane.provider, now);
        }
    }

    /// Whoever waits for a connection of the provider is looked at before this input is done with.
    pub(super) fn feed_soon(&mut self, provider: &str, now: Timestamp) {
        if let Some((provider, _)) = self.hungry.providers.get_key_value(provider) {
            self.set_timer(now, Timer::Feed(provider.clone()));
        }
    }

    /// Is the connection to be given up for somebody who has none?
    pub(super) fn should_share(&self, connection: &Connection, now: Timestamp) -> bool {
        let Some(place) = self.places.targets.get(connection.target) else { return false };
        let provider = &connection.permit.lane().provider;
        let own = place.line.next_class();
        let has_carried_its_share = connection.permit.messages() >= SHARE_AFTER
            || now.since(connection.since) >= SHARE_AFTER_TIME
            || own.is_none();
        // Whoever has nothing to send is no worse off without it.
        let than = if has_carried_its_share { None } else { own };
        // No other would come in its place yet.
        if own.is_some() && self.throttle.rests(connection.permit.lane(), now) {
            return false;
        }
        let waiting = self.hungry.without(provider, self.is_crowded(Priority::Normal), than);
        let coming = self.hungry.closing.get(provider).copied().unwrap_or(0);
        waiting > coming
    }
}
