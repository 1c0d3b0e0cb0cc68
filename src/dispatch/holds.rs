//! Mail that a lane holds back for whom it is from or to, and other lessons that single replies teach.
//!
//! Whoever is held back in one lane of a provider is held back in all: mail that one of our addresses may not send does not
//! try the next (receivers take that for snowshoe spam).

use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::destination::{DomainId, TargetId};
use super::errand::Errand;
use crate::queue::Place;
use crate::throttle::{About, Held, LaneName};
use crate::types::{Class, DeliveryId, Reading, Scope, Timestamp};

/// Hosts that have asked for TLS and are remembered.
const TLS_HOSTS_MAX: usize = 10_000;
/// A domain's hosts are asked for afresh at most once in this time, whatever its receivers say.
const AFRESH_EVERY: Duration = Duration::from_secs(60);

impl Core {
    /// Until when mail from this sender domain to this domain is held back at the target's provider.
    pub(super) fn held_until(
        &self,
        target: TargetId,
        sender: u32,
        domain: DomainId,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let provider = self.places.targets.get(target)?.provider.clone();
        self.hold(&provider, sender, domain, now).map(|held| held.until)
    }

    pub(super) fn hold(&self, provider: &Arc<str>, sender: u32, domain: DomainId, now: Timestamp) -> Option<Held> {
        let (sender, domain) = (self.senders.domain(sender), &self.places.domains.get(domain)?.name);
        self.sources
            .iter()
            .filter_map(|source| {
                let lane = LaneName { provider: provider.clone(), source: source.name.clone() };
                self.throttle.held(&lane, sender, domain, now)
            })
            .filter(|held| held.until > now)
            .max_by_key(|held| held.until)
    }

    /// Is mail like this held back in the lane?
    pub(super) fn is_held_back(&self, id: DeliveryId, lane: &LaneName, now: Timestamp) -> bool {
        self.queue
            .get(id)
            .is_some_and(|entry| self.hold(&lane.provider, entry.sender_domain, entry.domain, now).is_some())
    }

    /// A hold has ended before its time: what it kept back is due, by its old order.
    pub(super) fn wake_held_back(&mut self, now: Timestamp) {
        self.begin(Errand::WakeHeldBack { after: None }, now);
    }

    pub(super) fn wake_if_free(&mut self, id: DeliveryId, now: Timestamp) {
        let hold = |target| {
            let entry = self.queue.get(id)?;
            self.held_until(target, entry.sender_domain, entry.domain, now)
        };
        if self.target_of(id).and_then(hold).is_some() {
            return;
        }
        self.held_back.remove(&id);
        if matches!(self.queue.get(id).map(|entry| entry.place), Some(Place::Later(_))) {
            self.queue.put(id, Place::Later(now));
        }
    }

    /// It is started: where mail like it is held back, it is the one that asks.
    pub(super) fn goes_ahead(&mut self, id: DeliveryId, lane: &LaneName, now: Timestamp) {
        let Some(entry) = self.queue.get(id) else { return };
        let about = About {
            message: Some(id.message),
            sender_domain: self.senders.domain(entry.sender_domain),
            recipient_domain: self.places.domains.get(entry.domain).map(|domain| &domain.name),
            carried: 0,
        };
        self.throttle.began(lane, &about, now);
    }

    /// What a reply asks of the connections of its lane, and of the next ones to its host.
    pub(super) fn obey(&mut self, lane: &LaneName, host: &Arc<str>, reading: &Reading) {
        match (reading.class, reading.scope) {
            (Class::ConnectionLimit, Scope::Source) => self.close_idle(lane),
            (Class::Tls, Scope::Connection) if self.tls_wanted.len() < TLS_HOSTS_MAX => {
                self.tls_wanted.insert(host.clone());
            }
            _ => {}
        }
    }

    /// The receiver says that mail of this domain belongs elsewhere (451 4.4.62, relaying denied): its hosts are asked for
    /// again before the next attempt. False: that was done just now.
    pub(super) fn route_afresh(&mut self, id: DeliveryId, now: Timestamp) -> bool {
        let Some(domain) = self.queue.get(id).map(|entry| entry.domain) else { return false };
        let Some(domain) = self.places.domains.get_mut(domain) else { return false };
        if domain.next_hop.is_some() || now < domain.asked_afresh + AFRESH_EVERY {
            return false;
        }
        domain.asked_afresh = now;
        domain.asks_afresh = true;
        domain.valid_until = domain.valid_until.min(now);
        true
    }
}
