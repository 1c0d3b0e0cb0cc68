//! What the core can say about itself: for `status` and `queue show`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::destination::Target;
use crate::queue::{Place, ahead_in_all};
use crate::throttle::words::{Grouped, per_minute};
use crate::throttle::{LaneName, LaneStatus};
use crate::types::{DeliveryId, Domain, Priority, Timestamp};

/// The state of everything, in numbers.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub deliveries: usize,
    pub active: usize,
    pub held: usize,
    pub connections: usize,
    pub lanes: Vec<LaneStatus>,
    /// Deliveries by provider; those whose route is not known yet under none.
    pub waiting: BTreeMap<Option<Arc<str>>, usize>,
    /// Why mail for a provider does not go, where it is not the lane.
    pub waits_for: BTreeMap<Arc<str>, Arc<str>>,
    /// Providers with mail: how much, how fast it goes, when it will be gone.
    pub estimates: BTreeMap<Arc<str>, Estimate>,
    pub port_shut: bool,
    /// Recipient domains whose mail an operator has paused.
    pub paused_domains: Vec<PausedDomain>,
}

/// A recipient domain whose mail an operator has paused.
#[derive(Clone, Debug, PartialEq)]
pub struct PausedDomain {
    pub domain: Domain,
    pub since: Timestamp,
    /// Where its mail would go, if that is known.
    pub provider: Option<Arc<str>>,
    /// Deliveries.
    pub waiting: usize,
}

/// When the mail for a provider will be gone, if nothing changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Deliveries.
    pub waiting: usize,
    /// Recipients a minute; none: not known yet.
    pub pace: Option<f64>,
    pub empty_at: Option<Timestamp>,
}

/// Why due mail does not go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Of the lane: `paused`, `blocked`, `stopped`.
    pub state: &'static str,
    /// None: an operator ends it.
    pub until: Option<Timestamp>,
}

impl Stop {
    fn of(lane: &LaneStatus) -> Stop {
        Stop { state: lane.state, until: lane.until }
    }
}

/// What `pump` says where every connection is in use.
const A_CONNECTION: &str = "a connection";

/// How one delivery stands.
#[derive(Clone, Debug)]
pub struct Standing {
    pub active: bool,
    pub provider: Option<Arc<str>>,
    /// What it waits for, in words.
    pub waits_for: String,
    /// It is due, and nothing is sent to there.
    pub stop: Option<Stop>,
    /// How many go before it, and when its turn is about; where that was asked for and can be told.
    pub ahead: Option<usize>,
    pub turn_at: Option<Timestamp>,
}

impl Core {
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        let mut waiting = BTreeMap::new();
        // Before a domain's hosts are known, as after a restart, the profiles know those of the large providers.
        let by_domain = self.throttle.providers_by_domain();
        for (_, domain) in self.places.domains.iter().filter(|(_, d)| d.deliveries > 0) {
            let target = domain.target.and_then(|t| self.places.targets.get(t));
            let guess = || by_domain.get(domain.name.as_str()).filter(|_| domain.next_hop.is_none()).cloned();
            let provider = target.map(|target| target.provider.clone()).or_else(guess);
            *waiting.entry(provider).or_insert(0) += domain.deliveries as usize;
        }
        let waits = |(_, target): (u32, &Target)| {
            let what = self.line_waits_for(target, now).filter(|_| !target.line.is_empty())?;
            Some((target.provider.clone(), what.into()))
        };
        let estimates = waiting.iter().filter_map(|(provider, count): (&Option<Arc<str>>, &usize)| {
            let provider = provider.clone()?;
            let pace = self.pace(&provider, now);
            let empty_at = self.after(&provider, *count, now);
            Some((provider, Estimate { waiting: *count, pace, empty_at }))
        });
        let estimates = estimates.collect();
        Snapshot {
            deliveries: self.queue.len(),
            active: self.queue.active(),
            held: self.queue.held(),
            connections: self.throttle.open(),
            lanes: self.lanes_in_words(now),
            waiting,
            estimates,
            waits_for: self.places.targets.iter().filter_map(waits).collect(),
            port_shut: self.port25.is_shut(),
            paused_domains: self
                .throttle
                .domains_paused()
                .map(|(name, since)| self.paused_domain(name, since))
                .collect(),
        }
    }

    fn paused_domain(&self, name: &Domain, since: Timestamp) -> PausedDomain {
        let ids = self.places.all_of(name);
        let target = ids.iter().find_map(|id| self.places.targets.get(self.places.domains.get(*id)?.target?));
        PausedDomain {
            domain: name.clone(),
            since,
            provider: target.map(|target| target.provider.clone()),
            waiting: self.waiting_for(name),
        }
    }

    /// Deliveries to a domain.
    pub fn waiting_for(&self, name: &Domain) -> usize {
        let ids = self.places.all_of(name);
        ids.iter().filter_map(|id| self.places.domains.get(*id)).map(|domain| domain.deliveries as usize).sum()
    }

    pub fn standing(&self, id: DeliveryId, now: Timestamp) -> Option<Standing> {
        let entry = self.queue.get(id)?;
        let domain = self.places.domains.get(entry.domain)?;
        let target = domain.target.and_then(|target| self.places.targets.get(target));
        let held = target.and_then(|target| self.hold(&target.provider, entry.sender_domain, entry.domain, now));
        let paused = self.throttle.domain_paused(&domain.name);
        let waits_for = match entry.place {
            Place::Active => "the receiver, just now".to_string(),
            Place::Settling => "being settled".to_string(),
            Place::Held => "an operator: it is held (weir queue release)".to_string(),
            _ if let Some(since) = paused => {
                format!("an operator: mail to {0} is paused since {since} (weir resume --domain {0})", domain.name)
            }
            Place::Later(at) if held.is_some() => {
                let reason = held.map(|held| held.reason).unwrap_or_default();
                format!("the end of a hold at {at}: {reason}")
            }
            Place::Later(at) if self.gate.rests_until(entry.recipients.as_slice(), now).is_some() => {
                format!("the mailbox, which takes no more before {at}")
            }
            Place::Later(at) => format!("its next attempt at {at}"),
            Place::Unrouted => format!("the MX hosts of {}", domain.name),
            Place::Parked => "the answer about the same recipient in another message".to_string(),
            Place::Ready => target.map_or_else(
                || "its turn".to_string(),
                |target| {
                    let turn = || format!("its turn at {}", target.provider);
                    self.line_waits_for(target, now).unwrap_or_else(turn)
                },
            ),
        };
        let stop = match entry.place {
            Place::Ready => target.and_then(|target| self.stop_of(target, now)),
            Place::Unrouted | Place::Parked | Place::Later(_) if paused.is_some() => {
                Some(Stop { state: "paused", until: None })
            }
            _ => None,
        };
        let provider = target.map(|target| target.provider.clone());
        let active = entry.place == Place::Active;
        Some(Standing { active, provider, waits_for, stop, ahead: None, turn_at: None })
    }

    /// The same with its place in the line; costs a pass over the line, so for single deliveries.
    pub fn standing_in_line(&self, id: DeliveryId, now: Timestamp) -> Option<Standing> {
        let mut standing = self.standing(id, now)?;
        let entry = self.queue.get(id).filter(|entry| entry.place == Place::Ready);
        let target = self.places.domains.get(entry.map_or(u32::MAX, |entry| entry.domain)).and_then(|d| d.target);
        if let (Some(entry), Some(target)) = (entry, target.and_then(|target| self.places.targets.get(target))) {
            let own = target.line.ahead_of(entry.class, id);
            let lines = || self.places.targets.iter().map(|(_, t)| t).filter(|t| t.provider == target.provider);
            // The lines of a provider take turns, within each class.
            let in_class = |ahead: usize| -> usize {
                let before_or_at = lines().map(|t| t.line.len_of(entry.class).min(ahead + 1)).sum::<usize>();
                before_or_at.saturating_sub(1)
            };
            let lens = [Priority::High, Priority::Normal, Priority::Bulk]
                .map(|class| lines().map(|t| t.line.len_of(class)).sum());
            standing.ahead = own.map(|ahead| ahead_in_all(entry.class, in_class(ahead), lens));
            standing.turn_at = standing.ahead.and_then(|ahead| self.after(&target.provider, ahead + 1, now));
        }
        Some(standing)
    }

    /// What keeps all lanes of the target's provider from sending: the soonest end of it.
    fn stop_of(&self, target: &Target, now: Timestamp) -> Option<Stop> {
        let lanes = self.throttle.status_of(&target.provider, now);
        let is_open = lanes.iter().any(|lane| lane.connections_allowed > 0);
        let everything = || self.throttle.everything_paused().map(|_| Stop { state: "paused", until: None });
        if is_open || lanes.is_empty() {
            return everything();
        }
        lanes.iter().min_by_key(|lane| lane.until.unwrap_or(Timestamp::NEVER)).map(Stop::of)
    }

    /// What a line waits for, in words: which lane or which connections, why, until when, and what lifts it.
    fn line_waits_for(&self, target: &Target, now: Timestamp) -> Option<String> {
        let provider = &target.provider;
        if let Some(until) = target.down_until.filter(|until| *until > now) {
            return Some(format!("{provider}: no host could be reached; again at {until}"));
        }
        if let Some(since) = self.throttle.everything_paused() {
            return Some(format!("an operator: everything is paused since {since} (weir resume --all)"));
        }
        if let Some(lane) = &target.waits_in {
            return Some(self.lane_in_words(lane, now));
        }
        match target.waits_for.as_deref()? {
            A_CONNECTION => Some(self.connections_in_words(provider, now)),
            what => Some(what.to_string()),
        }
    }

    fn lane_in_words(&self, name: &LaneName, now: Timestamp) -> String {
        let lanes = self.throttle.status_of(&name.provider, now);
        let Some(lane) = lanes.iter().find(|lane| lane.source == name.source).or(lanes.first()) else {
            return format!("its turn in the lane to {name}");
        };
        let reason = lane.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        if lane.connections_allowed > 0 && lane.until.is_none() && lane.state != "probing" {
            let rate =
                lane.rate_allowed.map(|rate| format!(", which sends at most {}", per_minute(rate))).unwrap_or_default();
            return format!("its turn in the lane to {name}{rate}{reason}");
        }
        let until = lane.until.map(|until| format!(" until {until}")).unwrap_or_default();
        let hand = match lane.state {
            "blocked" | "stopped" => {
                format!(" (`weir report {0}` says what to do, `weir resume {0}` asks now)", name.provider)
            }
            "probing" => " (one message asks first)".to_string(),
            _ => String::new(),
        };
        format!("the lane to {name}, which is {}{until}{hand}{reason}", lane.state)
    }

    fn connections_in_words(&self, provider: &str, now: Timestamp) -> String {
        if self.throttle.is_full() {
            let most = Grouped(self.throttle.max_connections() as u64);
            return format!("a free connection: all {most} outbound ones are in use ([delivery] max_connections)");
        }
        let lanes = self.throttle.status_of(provider, now);
        let open: usize = lanes.iter().map(|lane| lane.connections).sum();
        let allowed: usize = lanes.iter().map(|lane| lane.connections_allowed).sum();
        let allowed = allowed.min(self.throttle.profile(provider).max_connections).max(open);
        format!("a free connection: {open} of {allowed} that {provider} allows now are in use")
    }

    /// Recipients a minute: what the lanes have learned, else what went in the last minute.
    fn pace(&self, provider: &str, now: Timestamp) -> Option<f64> {
        let recent = || self.throttle.status_of(provider, now).into_iter().map(|lane| lane.rate).sum::<f64>();
        self.throttle.pace(provider, now).or_else(|| Some(recent())).filter(|pace| *pace > 0.0)
    }

    /// When so many will have gone.
    pub(super) fn after(&self, provider: &str, count: usize, now: Timestamp) -> Option<Timestamp> {
        if let Some(done) = self.throttle.done_by(provider, count, now) {
            return Some(done);
        }
        let pace = self.pace(provider, now)?;
        let lanes = self.throttle.status_of(provider, now);
        let is_shut = lanes.iter().all(|lane| lane.connections_allowed == 0);
        if is_shut && lanes.iter().all(|lane| lane.until.is_none()) && !lanes.is_empty() {
            return None;
        }
        let from = if is_shut { lanes.iter().filter_map(|lane| lane.until).min().unwrap_or(now) } else { now };
        Some(from.max(now) + Duration::try_from_secs_f64(count as f64 * 60.0 / pace).ok()?)
    }
}
