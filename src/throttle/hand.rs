//! The operator's hand: pauses of a provider, of a recipient domain or of everything, and the order to forget.
//!
//! Rules that always hold:
//! - a pause lasts until an operator lifts that very pause, over restarts, whether mail waits for it or not;
//! - pauses stand beside each other: what two of them hold goes only when both are lifted;
//! - a resume asks with one message first, unless it is forced; it does not hurry what a receiver has stopped, but where
//!   that provider is named.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Change, EVERY_SOURCE, HoldBegan, LaneName, LaneRecord, LaneStatus, Side, Throttle};
use crate::types::{Domain, Timestamp};

/// In the place of a provider: the pause of everything.
pub const EVERYTHING: &str = "*";
/// In the place of a source: the name beside it is that of a recipient domain.
const DOMAIN_RECORD: &str = "*domain";

/// What an operator asks of lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneOrder {
    /// Nothing goes out until `Resume`.
    Pause,
    /// One probe now, then slow start; forced: slow start at once.
    Resume { force: bool },
}

/// Mail of a sender domain is to wait at a provider, or is let go where `until` has passed.
#[derive(Clone, Debug, PartialEq)]
pub struct HoldSender {
    pub provider: Arc<str>,
    pub domain: Domain,
    pub until: Timestamp,
    pub why: String,
}

/// What an operator's order has changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ordered {
    /// A provider without lanes has one change, for all that come.
    pub changes: Vec<(LaneName, Change)>,
    /// Lanes in which one message asks now whether the way is free; `Resumed` comes when it is accepted.
    pub asking: Vec<LaneName>,
}

impl Ordered {
    fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.asking.is_empty()
    }
}

/// What an operator has stopped, since when.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    all: Option<Timestamp>,
    providers: BTreeMap<Arc<str>, Timestamp>,
    domains: BTreeMap<Domain, Timestamp>,
}

impl Pauses {
    /// Does one of them stop the lanes of the provider?
    pub(super) fn stop(&self, provider: &str) -> bool {
        self.all.is_some() || self.providers.contains_key(provider)
    }

    pub(super) fn shift(&mut self, by_millis: i64) {
        let since = self.providers.values_mut().chain(self.domains.values_mut()).chain(&mut self.all);
        since.for_each(|since| *since = since.shifted(by_millis));
    }

    pub(super) fn records(&self) -> impl Iterator<Item = LaneRecord> {
        let providers = self.providers.iter().map(|(provider, since)| (of_every_source(provider), since));
        let domains = self.domains.iter().map(|(domain, since)| (of_domain(domain), since));
        let all = self.all.iter().map(|since| (of_every_source(EVERYTHING), since));
        all.chain(providers).chain(domains).map(|(name, since)| LaneRecord { name, state: since.to_string() })
    }

    /// Takes a record back; false: it is none of a pause.
    pub(super) fn restore(&mut self, name: &LaneName, state: &str, now: Timestamp) -> bool {
        // Not later than now: the clock was ahead when it was written.
        let since = Timestamp::parse_rfc3339(state).map(|since| since.min(now));
        match (&*name.provider, &*name.source) {
            (EVERYTHING, EVERY_SOURCE) => self.all = since,
            (_, EVERY_SOURCE) => self.providers.extend(since.map(|since| (name.provider.clone(), since))),
            (domain, DOMAIN_RECORD) => self.domains.extend(Domain::parse(domain).ok().zip(since)),
            _ => return false,
        }
        true
    }
}

fn of_every_source(provider: &str) -> LaneName {
    LaneName { provider: provider.into(), source: EVERY_SOURCE.into() }
}

fn of_domain(domain: &Domain) -> LaneName {
    LaneName { provider: domain.as_str().into(), source: DOMAIN_RECORD.into() }
}

impl Throttle {
    /// Is mail of this sender domain held back in the lane?
    pub fn holds_sender(&self, name: &LaneName, domain: &Domain, now: Timestamp) -> bool {
        let holds = self.lanes.get(name).map(|lane| &lane.learned.holds);
        holds.is_some_and(|holds| holds.iter(now).any(|(side, held, _)| side == Side::Sender && held == domain))
    }

    /// Mail of a sender domain is held back at a provider because we say so; before `now`: it is let go again, one message first.
    pub fn hold_sender(&mut self, name: &LaneName, hold: &HoldSender, now: Timestamp) -> Option<HoldBegan> {
        let (_, lane) = self.lane(name, now);
        lane.learned.holds.hold_sender(&hold.domain, hold.until, &hold.why, now)
    }

    /// Carries out what an operator asks of every lane of a provider.
    ///
    /// `Pause` holds for the provider whether it has lanes yet or not; it survives a restart.
    pub fn order(&mut self, provider: &str, order: LaneOrder, now: Timestamp) -> Ordered {
        let was_paused = self.pauses.providers.contains_key(provider);
        self.many_changed();
        let mut ordered = Ordered::default();
        match order {
            LaneOrder::Pause if was_paused => return ordered,
            LaneOrder::Pause => {
                self.pauses.providers.insert(provider.into(), now);
                let paused = Change::Paused { until: Timestamp::NEVER };
                ordered.changes.extend(self.lanes_of(provider).map(|(name, _)| (name.clone(), paused.clone())));
                if ordered.changes.is_empty() {
                    ordered.changes.push((of_every_source(provider), paused));
                }
            }
            LaneOrder::Resume { force } => {
                for (name, lane) in self.lanes_of_mut(provider) {
                    if was_paused && lane.closed_since().is_none() && !force {
                        // Not stopped by the receiver: it is asked all the same, much may have changed meanwhile.
                        lane.pause("resumed by an operator: one message goes first", now);
                    }
                    let change = lane.resume(force, now);
                    if change.is_some() || (was_paused && force) {
                        ordered.changes.push((name.clone(), Change::Resumed));
                    } else if lane.closed_since().is_some() {
                        ordered.asking.push(name.clone());
                    }
                }
                if was_paused {
                    self.pauses.providers.remove(provider);
                    self.forgotten.push(of_every_source(provider));
                    if ordered.is_empty() {
                        ordered.changes.push((of_every_source(provider), Change::Resumed));
                    }
                }
            }
        }
        ordered
    }

    /// Pauses everything, or lifts that pause; other pauses stay.
    pub fn order_all(&mut self, order: LaneOrder, now: Timestamp) -> Ordered {
        let (was_paused, mut ordered) = (self.pauses.all.is_some(), Ordered::default());
        self.many_changed();
        match order {
            LaneOrder::Pause if !was_paused => {
                self.pauses.all = Some(now);
                ordered.changes.push((of_every_source(EVERYTHING), Change::Paused { until: Timestamp::NEVER }));
            }
            LaneOrder::Resume { force } if was_paused => {
                self.pauses.all = None;
                self.forgotten.push(of_every_source(EVERYTHING));
                ordered.changes.push((of_every_source(EVERYTHING), Change::Resumed));
                let is_open = |(name, lane): &(&LaneName, &mut super::Lane)| {
                    !self.pauses.providers.contains_key(&name.provider) && lane.closed_since().is_none()
                };
                // What a receiver has stopped waits as long as it would have waited without the pause.
                for (name, lane) in self.lanes.iter_mut().filter(|_| !force).filter(is_open) {
                    lane.pause("resumed by an operator: one message goes first", now);
                    lane.resume(false, now);
                    ordered.asking.push(name.clone());
                }
            }
            _ => {}
        }
        ordered
    }

    /// Pauses a recipient domain, or lifts that pause; false: it stood like that before.
    pub fn order_domain(&mut self, domain: &Domain, order: LaneOrder, now: Timestamp) -> bool {
        match order {
            LaneOrder::Pause if self.pauses.domains.contains_key(domain) => false,
            LaneOrder::Pause => self.pauses.domains.insert(domain.clone(), now).is_none(),
            LaneOrder::Resume { .. } => {
                let was_paused = self.pauses.domains.remove(domain).is_some();
                if was_paused {
                    self.forgotten.push(of_domain(domain));
                }
                was_paused
            }
        }
    }

    /// The domain's mail goes through these lanes: in each one message goes ahead, and sets the others free.
    pub fn ask_first(&mut self, domain: &Domain, lanes: &[LaneName], now: Timestamp) {
        for name in lanes {
            let (_, lane) = self.lane(name, now);
            lane.learned.holds.ask_first(domain, now);
            lane.unsaved = true;
        }
        self.many_changed();
    }

    /// Drops what was learned of a provider's limits, in all its lanes or in that of one source; what that was, in words.
    pub fn forget(&mut self, provider: &str, source: Option<&str>, now: Timestamp) -> Vec<(LaneName, Vec<String>)> {
        self.many_changed();
        let is_meant = |name: &LaneName| source.is_none_or(|source| *name.source == *source);
        let lanes = self.lanes_of_mut(provider).filter(|(name, _)| is_meant(name));
        lanes.map(|(name, lane)| (name.clone(), lane.forget(now))).collect()
    }

    /// Has an operator stopped the provider itself?
    pub fn is_paused(&self, provider: &str) -> bool {
        self.pauses.providers.contains_key(provider)
    }

    /// The providers that an operator has stopped.
    pub fn providers_paused(&self) -> impl Iterator<Item = &Arc<str>> {
        self.pauses.providers.keys()
    }

    /// Since when an operator has stopped everything.
    pub fn everything_paused(&self) -> Option<Timestamp> {
        self.pauses.all
    }

    /// Since when an operator has stopped mail to the domain.
    pub fn domain_paused(&self, domain: &Domain) -> Option<Timestamp> {
        self.pauses.domains.get(domain).copied()
    }

    /// The domains that an operator has stopped, since when.
    pub fn domains_paused(&self) -> impl Iterator<Item = (&Domain, Timestamp)> {
        self.pauses.domains.iter().map(|(domain, since)| (domain, *since))
    }

    /// Lays the pauses over the line of a lane.
    pub(super) fn show_pause_of(&self, line: &mut LaneStatus) {
        if let Some(since) = self.pauses.providers.get(&line.provider) {
            let reason = format!("by an operator since {since}: weir resume {}", line.provider);
            show_pause(line, &reason, *since);
        } else if let Some(since) = self.pauses.all {
            show_pause(line, &self.all_paused(since), since);
        }
    }

    fn all_paused(&self, since: Timestamp) -> String {
        format!("everything is paused by an operator since {since}: weir resume --all")
    }

    /// The pause of everything as a line of `status`.
    pub fn line_of_everything(&self) -> Option<LaneStatus> {
        let since = self.pauses.all?;
        let mut line = self.empty_line(&EVERYTHING.into());
        show_pause(&mut line, &self.all_paused(since), since);
        Some(line)
    }

    /// The pauses of providers without a lane: each has a line all the same.
    pub fn lines_of_pauses(&self) -> Vec<LaneStatus> {
        let without = self.pauses.providers.keys().filter(|provider| self.lanes_of(provider).next().is_none());
        let mut lines: Vec<LaneStatus> = without.map(|provider| self.empty_line(provider)).collect();
        lines.iter_mut().for_each(|line| self.show_pause_of(line));
        lines
    }

    fn empty_line(&self, provider: &Arc<str>) -> LaneStatus {
        LaneStatus {
            provider: provider.clone(),
            source: EVERY_SOURCE.into(),
            state: "paused",
            connections: 0,
            connections_allowed: 0,
            ceiling: if **provider == *EVERYTHING {
                self.max_connections
            } else {
                self.profile(provider).max_connections
            },
            rate: 0.0,
            rate_allowed: None,
            reason: None,
            until: None,
            since: None,
        }
    }
}

fn show_pause(line: &mut LaneStatus, reason: &str, since: Timestamp) {
    line.state = "paused";
    line.connections_allowed = 0;
    line.reason = Some(reason.to_string());
    (line.until, line.since) = (None, Some(since));
}
