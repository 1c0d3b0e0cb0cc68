//! Domains and targets: where due mail goes, as far as it is known.
//!
//! A domain waits for its route, or has one, or has failed to get one. A target is a set of MX hosts that one or more
//! domains publish alike; deliveries to it stand in one line and share its connections, since every host of the set is
//! one of theirs. Domains that publish other hosts have another target, and never share a connection with it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;

use crate::queue::Line;
use crate::route::{Route, Unroutable};
use crate::throttle::LaneName;
use crate::types::{DeliveryId, Domain, NextHop, Timestamp};

pub(super) type DomainId = u32;
pub(super) type TargetId = u32;

#[derive(Debug)]
pub(super) struct DomainState {
    pub name: Domain,
    /// An operator sends this mail there; mail of the same domain without it is another entry.
    pub next_hop: Option<NextHop>,
    /// Deliveries of the queue that name it.
    pub deliveries: u32,
    pub target: Option<TargetId>,
    pub valid_until: Timestamp,
    pub resolving: bool,
    /// The receiver said that what is known leads to the wrong hosts.
    pub asks_afresh: bool,
    pub asked_afresh: Timestamp,
    /// An operator has resumed it: one message is to go ahead.
    pub asks_first: bool,
    /// Why there is no route, until `valid_until`.
    pub failure: Option<Arc<Unroutable>>,
    /// Due, but the route is not known yet.
    pub pending: VecDeque<DeliveryId>,
}

#[derive(Debug)]
pub(super) struct Target {
    pub signature: Arc<str>,
    pub route: Arc<Route>,
    /// Of the most preferred host.
    pub provider: Arc<str>,
    pub line: Line,
    /// Connections, also those on their way.
    pub open: usize,
    /// Of those, on their way to the greeting.
    pub opening: usize,
    pub idle: Vec<u64>,
    pub turn: u64,
    /// No host could be reached; not before then.
    pub down_until: Option<Timestamp>,
    /// How often in a row.
    pub failures: u32,
    /// Not reached since it was down: one connection at a time.
    pub suspect: bool,
    /// The time for which it is set to be looked at again.
    pub timer: Option<Timestamp>,
    pub domains: u32,
    /// What it waits for, for `status`.
    pub waits_for: Option<&'static str>,
    /// It stands in the waiting list of this lane.
    pub waits_in: Option<LaneName>,
    /// It waits for a connection of this provider.
    pub hungry: Option<Arc<str>>,
    /// The hop has refused our log-in, and has not taken it since.
    pub login_refused: bool,
    /// It was told that there is no room for a connection, and has had none at rest since.
    pub lacks: bool,
}

/// Numbered places that are used again.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    fn add(&mut self, value: T) -> u32 {
        if let Some(id) = self.free.pop() {
            self.slots[id as usize] = Some(value);
            return id;
        }
        self.slots.push(Some(value));
        u32::try_from(self.slots.len() - 1).expect("fewer than four billion destinations")
    }

    fn remove(&mut self, id: u32) {
        if self.slots.get_mut(id as usize).and_then(Option::take).is_some() {
            self.free.push(id);
        }
    }

    pub(super) fn get(&self, id: u32) -> Option<&T> {
        self.slots.get(id as usize)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.slots.get_mut(id as usize)?.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(id, slot)| slot.as_ref().map(|value| (id, value)))
    }

    /// What stands in `count` places, from one on.
    pub(super) fn slice(&self, from: usize, count: usize) -> impl Iterator<Item = (u32, &T)> {
        let from = from.min(self.slots.len());
        let slots = &self.slots[from..from.saturating_add(count).min(self.slots.len())];
        (from..).zip(slots).filter_map(|(id, slot)| Some((u32::try_from(id).ok()?, slot.as_ref()?)))
    }

    /// Places there are, those that are free among them.
    pub(super) fn places(&self) -> usize {
        self.slots.len()
    }
}

#[derive(Debug, Default)]
pub(super) struct Destinations {
    pub domains: Slots<DomainState>,
    pub targets: Slots<Target>,
    domain_ids: BTreeMap<Domain, DomainId>,
    hop_ids: BTreeMap<(NextHop, Domain), DomainId>,
    target_ids: BTreeMap<Arc<str>, TargetId>,
}

impl Destinations {
    /// The number of a domain, with one more delivery to it.
    pub(super) fn take_domain(&mut self, name: &Domain, next_hop: Option<&NextHop>) -> DomainId {
        let id = self.domain_id(name, next_hop).unwrap_or_else(|| {
            let id = self.domains.add(DomainState {
                name: name.clone(),
                next_hop: next_hop.cloned(),
                deliveries: 0,
                target: None,
                valid_until: Timestamp::EPOCH,
                resolving: false,
                asks_afresh: false,
                asked_afresh: Timestamp::EPOCH,
                asks_first: false,
                failure: None,
                pending: VecDeque::new(),
            });
            match next_hop {
                Some(hop) => self.hop_ids.insert((hop.clone(), name.clone()), id),
                None => self.domain_ids.insert(name.clone(), id),
            };
            id
        });
        if let Some(domain) = self.domains.get_mut(id) {
            domain.deliveries += 1;
        }
        id
    }

    pub(super) fn leave_domain(&mut self, id: DomainId) {
        if let Some(domain) = self.domains.get_mut(id) {
            domain.deliveries = domain.deliveries.saturating_sub(1);
        }
    }

    pub(super) fn domain_id(&self, name: &Domain, next_hop: Option<&NextHop>) -> Option<DomainId> {
        match next_hop {
            Some(hop) => self.hop_ids.get(&(hop.clone(), name.clone())).copied(),
            None => self.domain_ids.get(name).copied(),
        }
    }

    /// Every entry of a domain: that of its own route, and those of next hops that operators have named.
    pub(super) fn all_of(&self, name: &Domain) -> Vec<DomainId> {
        let hops = self.hop_ids.iter().filter(|((_, of), _)| of == name);
        self.domain_ids.get(name).into_iter().chain(hops.map(|(_, id)| id)).copied().collect()
    }

    /// Points a domain to the target of its new route.
    pub(super) fn set_route(&mut self, id: DomainId, route: Route) -> Option<TargetId> {
        let target = self.target_of(route);
        let valid_until = self.targets.get(target)?.route.valid_until;
        let domain = self.domains.get_mut(id)?;
        let before = domain.target.replace(target);
        domain.valid_until = valid_until;
        domain.failure = None;
        if before != Some(target) {
            if let Some(target) = self.targets.get_mut(target) {
                target.domains += 1;
            }
            self.let_go(before);
        }
        Some(target)
    }

    pub(super) fn set_failure(&mut self, id: DomainId, failure: Arc<Unroutable>) {
        let Some(domain) = self.domains.get_mut(id) else { return };
        let before = domain.target.take();
        domain.valid_until = failure.valid_until;
        domain.failure = Some(failure);
        self.let_go(before);
    }

    /// The clock was set by so much.
    pub(super) fn shift(&mut self, by_millis: i64) {
        for domain in self.domains.slots.iter_mut().flatten() {
            domain.valid_until = domain.valid_until.shifted(by_millis);
            domain.asked_afresh = domain.asked_afresh.shifted(by_millis);
        }
        for target in self.targets.slots.iter_mut().flatten() {
            target.down_until = target.down_until.map(|until| until.shifted(by_millis));
        }
    }

    /// Every route is to be asked for again before it is used.
    pub(super) fn expire_routes(&mut self, now: Timestamp) {
        for domain in self.domains.slots.iter_mut().flatten() {
            domain.valid_until = domain.valid_until.min(now);
        }
    }

    fn let_go(&mut self, target: Option<TargetId>) {
        if let Some(target) = target.and_then(|id| self.targets.get_mut(id)) {
            target.domains = target.domains.saturating_sub(1);
        }
    }

    fn target_of(&mut self, route: Route) -> TargetId {
        let signature: Arc<str> = signature(&route).into();
        if let Some(&id) = self.target_ids.get(&signature) {
            if let Some(target) = self.targets.get_mut(id) {
                target.route = Arc::new(route);
            }
            return id;
        }
        let provider = route.hosts.first().map_or_else(|| "unknown".into(), |host| host.provider.clone());
        let id = self.targets.add(Target {
            signature: signature.clone(),
            route: Arc::new(route),
            provider,
            line: Line::default(),
            open: 0,
            opening: 0,
            idle: Vec::new(),
            turn: 0,
            down_until: None,
            failures: 0,
            suspect: false,
            timer: None,
            domains: 0,
            waits_for: None,
            waits_in: None,
            hungry: None,
            login_refused: false,
            lacks: false,
        });
        self.target_ids.insert(signature, id);
        id
    }

    /// Forgets domains without mail whose route has run out, and targets that nothing leads to.
    pub(super) fn sweep(&mut self, now: Timestamp) {
        let old: Vec<DomainId> = self
            .domains
            .iter()
            .filter(|(_, d)| d.deliveries == 0 && !d.resolving && d.valid_until <= now)
            .map(|(id, _)| id)
            .collect();
        for id in old {
            if let Some(domain) = self.domains.get(id) {
                let (name, target) = (domain.name.clone(), domain.target);
                match domain.next_hop.clone() {
                    Some(hop) => self.hop_ids.remove(&(hop, name)),
                    None => self.domain_ids.remove(&name),
                };
                self.domains.remove(id);
                self.let_go(target);
            }
        }
        let unused: Vec<TargetId> = self
            .targets
            .iter()
            .filter(|(_, t)| {
                t.domains == 0
                    && t.open == 0
                    && t.line.is_empty()
                    && t.timer.is_none()
                    && t.waits_in.is_none()
                    && t.hungry.is_none()
            })
            .map(|(id, _)| id)
            .collect();
        for id in unused {
            if let Some(target) = self.targets.get(id) {
                self.target_ids.remove(&target.signature);
                self.targets.remove(id);
            }
        }
    }
}

/// Two routes with the same signature lead to the same hosts under the same limits, and are spoken to in the same way.
fn signature(route: &Route) -> String {
    let mut text = String::with_capacity(64);
    for host in &route.hosts {
        let _ = write!(text, "{} {} {};", host.preference, host.name, host.provider);
        if route.fixed {
            let _ = write!(text, "{:?};", host.addresses);
        }
    }
    if route.fixed {
        text.push_str(if route.limits_named { "limited" } else { "fixed" });
    }
    if let Some(access) = &route.access {
        let _ = write!(text, " {}", access.named);
    }
    // Before anything is joined: what one domain asks for never touches its neighbours at the same hosts.
    if let Some(demand) = &route.demand {
        let _ = write!(text, " {:?}", demand.tls);
    }
    if let Some(sts) = &route.sts {
        let _ = write!(text, " sts {sts:?}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Host;
    use crate::types::StsMode;

    fn route(names: &[&str], until: i64) -> Route {
        let host = |name: &&str| Host {
            name: (*name).into(),
            preference: 10,
            addresses: vec!["192.0.2.1:25".parse().unwrap()],
            provider: "p".into(),
        };
        Route {
            hosts: names.iter().map(host).collect(),
            valid_until: Timestamp::from_secs(until),
            fixed: false,
            limits_named: false,
            access: None,
            demand: None,
            sts: None,
        }
    }

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    #[test]
    fn domains_with_the_same_hosts_share_a_target_and_others_do_not() {
        let mut all = Destinations::default();
        let ids = ["a.test", "b.test", "c.test"].map(|d| all.take_domain(&domain(d), None));
        let shared = all.set_route(ids[0], route(&["mx1", "mx2"], 10));
        assert_eq!(all.set_route(ids[1], route(&["mx1", "mx2"], 20)), shared);
        assert_ne!(all.set_route(ids[2], route(&["mx1"], 10)), shared);
    }

    #[test]
    fn domains_whose_policies_ask_for_different_things_share_no_target() {
        let mut all = Destinations::default();
        let mut target = |name: &str, sts| {
            let id = all.take_domain(&domain(name), None);
            all.set_route(id, Route { sts, ..route(&["mx1"], 10) })
        };
        let kinds = [None, Some(StsMode::Testing), Some(StsMode::Enforce)];
        let mut targets =
            ["a.test", "b.test", "c.test"].iter().zip(kinds).map(|(name, sts)| target(name, sts)).collect::<Vec<_>>();
        assert_eq!(target("second.test", Some(StsMode::Enforce)), targets[2], "they have what each has proven");
        targets.dedup();
        assert_eq!(targets.len(), 3);
    }

    #[test]
    fn what_nothing_leads_to_is_forgotten_and_its_number_used_again() {
        let mut all = Destinations::default();
        let id = all.take_domain(&domain("a.test"), None);
        let target = all.set_route(id, route(&["mx1"], 10)).unwrap();
        all.sweep(Timestamp::from_secs(99));
        assert!(all.domains.get(id).is_some(), "mail waits for it");
        all.leave_domain(id);
        all.sweep(Timestamp::from_secs(99));
        assert!(all.domains.get(id).is_none() && all.targets.get(target).is_none());
        assert_eq!(all.take_domain(&domain("b.test"), None), id);
    }
}
