//! How the places for connections are shared between hosts that we know, strangers, and urgent mail.
//!
//! A host may take the connection and say nothing for five minutes. So that a few dozen of them do not hold up everybody's mail:
//!
//! - a target has no more connections on their way to the greeting than have been greeted, or two: doubled with each greeting,
//!   as many as the lane allows are soon there;
//! - a provider (for receivers without a profile: the set of their hosts) is a stranger until it has taken a message, and again when it
//!   did not greet us: all strangers together have half of the places;
//! - a few places, of all and of those for strangers, are for urgent mail alone;
//! - the greeting is waited for five minutes (RFC 5321 section 4.5.3.2.1). Where places run short (for strangers from a quarter of theirs,
//!   for others from three quarters of all) less and less, down to half a minute.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::destination::TargetId;
use super::hungry::Among;
use crate::outbound::{OpenError, OpenStage};
use crate::types::{Priority, Timestamp};

/// Connections of a target that nobody has greeted yet.
const FIRST: usize = 2;
/// One place in so many is for urgent mail alone, and one at least where there are more than a few. Fewer are not shared out at all.
const URGENT_SHARE: usize = 20;
const FEW: usize = 8;
const GREETING: Duration = Duration::from_secs(300);
const GREETING_MIN: Duration = Duration::from_secs(30);

/// Why a target may open no connection, whatever its provider's lanes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// Its own connections must be greeted first.
    Ungreeted,
    /// Strangers have all that is theirs.
    Strangers,
    /// All places are taken, but for those that are kept for urgent mail.
    Whole,
}

impl Core {
    pub(super) fn no_place(&self, target: TargetId, class: Priority) -> Option<NoPlace> {
        let place = self.places.targets.get(target)?;
        let is_stranger = !self.proven.contains(&place.provider);
        let greeted = place.open.saturating_sub(place.opening);
        if place.opening >= greeted.max(FIRST) {
            return Some(NoPlace::Ungreeted);
        }
        if is_stranger && self.strangers_full(class) {
            return Some(NoPlace::Strangers);
        }
        self.is_crowded(class).then_some(NoPlace::Whole)
    }

    /// Are all places taken that mail of this class may have?
    pub(super) fn is_crowded(&self, class: Priority) -> bool {
        self.throttle.open() >= room(self.throttle.max_connections(), class)
    }

    pub(super) fn strangers_full(&self, class: Priority) -> bool {
        self.strangers >= room(self.strangers_max(), class)
    }

    fn strangers_max(&self) -> usize {
        match self.throttle.max_connections() {
            few if few < FEW => few,
            all => all / 2,
        }
    }

    /// How long the greeting of a new connection is waited for.
    pub(super) fn greeting_wait(&self, target: TargetId) -> Duration {
        let is_stranger = self.places.targets.get(target).is_none_or(|place| !self.proven.contains(&place.provider));
        let taken = self.throttle.open() as f64 / self.throttle.max_connections() as f64;
        let by_strangers = self.strangers as f64 / self.strangers_max() as f64;
        let ease = 4.0 * (1.0 - taken);
        let ease = if is_stranger { ease.min(2.0 - 4.0 * by_strangers) } else { ease };
        GREETING_MIN + (GREETING - GREETING_MIN).mul_f64(ease.clamp(0.0, 1.0))
    }

    /// A connection to the target begins.
    pub(super) fn takes_place(&mut self, target: TargetId, provider: &str) {
        self.strangers += usize::from(!self.proven.contains(provider));
        let Some(place) = self.places.targets.get_mut(target) else { return };
        place.open += 1;
        place.opening += 1;
        if place.open == 1 {
            self.stand_hungry(target);
        }
    }

    /// It was greeted, or has failed.
    pub(super) fn is_greeted(&mut self, target: TargetId) {
        if let Some(place) = self.places.targets.get_mut(target) {
            place.opening = place.opening.saturating_sub(1);
        }
    }

    /// A connection to the target is closed; its permit was given back.
    pub(super) fn leaves_place(&mut self, target: TargetId, provider: &str, now: Timestamp) {
        if let Some(place) = self.places.targets.get_mut(target) {
            place.open = place.open.saturating_sub(1);
            if place.open == 0 {
                self.stand_hungry(target);
            }
        }
        if !self.proven.contains(provider) {
            self.strangers = self.strangers.saturating_sub(1);
            self.feed_among(Among::Strangers, now);
        }
    }

    /// It has taken a message: no stranger any more.
    pub(super) fn has_delivered(&mut self, provider: &Arc<str>, now: Timestamp) {
        if !self.proven.contains(provider) {
            self.strangers = self.strangers.saturating_sub(self.throttle.open_at(provider));
            self.proven.insert(provider.clone());
            self.feed_among(Among::Strangers, now);
        }
    }

    /// Who is silent is a stranger again.
    pub(super) fn was_silent(&mut self, provider: &str, error: &OpenError) {
        let is_silence = match error.stage {
            OpenStage::ConnectTimeout => true,
            OpenStage::Greeting => error.reply.is_none(),
            _ => false,
        };
        if is_silence && self.proven.remove(provider) {
            self.strangers += self.throttle.open_at(provider);
        }
    }

    /// Forgets providers that nothing leads to.
    pub(super) fn sweep_proven(&mut self) {
        if self.proven.is_empty() {
            return;
        }
        let used = self.places.targets.iter().map(|(_, place)| &place.provider);
        let used: BTreeSet<Arc<str>> = used.filter(|provider| self.proven.contains(*provider)).cloned().collect();
        self.proven.retain(|provider| used.contains(provider) || self.throttle.open_at(provider) > 0);
    }
}

/// Of so many places, those that mail of this class may have.
fn room(places: usize, class: Priority) -> usize {
    match class {
        Priority::High => places,
        _ if places < FEW => places,
        _ => places - (places / URGENT_SHARE).max(1),
    }
}
