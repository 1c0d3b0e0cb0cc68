//! What the core can say about itself: for `status` and `queue show`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use super::destination::Target;
use super::survey::Depth;
use crate::queue::{Place, ahead_in_all};
use crate::throttle::{Forecast, LaneName, LaneStatus, Lanes};
use crate::types::words::{Grouped, per_minute};
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

/// What a forecast for a provider is made of.
#[derive(Clone, Debug)]
pub struct Outlook {
    lanes: Lanes,
    /// None: the pace must do.
    forecast: Option<Forecast>,
}

impl Outlook {
    pub(super) fn has_lanes(&self) -> bool {
        self.lanes.count > 0
    }

    /// Recipients a minute: what the lanes have learned, else what went in the last minute.
    pub fn pace(&self) -> Option<f64> {
        self.lanes.pace.or(Some(self.lanes.rate)).filter(|pace| *pace > 0.0)
    }

    /// When so many will have gone.
    pub fn after(self, count: usize, now: Timestamp) -> Option<Timestamp> {
        let (pace, lanes) = (self.pace(), self.lanes);
        if let Some(done) = self.forecast.and_then(|forecast| forecast.done_by(count, now)) {
            return Some(done);
        }
        let pace = pace?;
        let is_shut = !lanes.is_open;
        if is_shut && lanes.until.is_none() && lanes.count > 0 {
            return None;
        }
        let from = if is_shut { lanes.until.unwrap_or(now) } else { now };
        Some(from.max(now) + Duration::try_from_secs_f64(count as f64 * 60.0 / pace).ok()?)
    }
}

impl Core {
    /// All at once; costs a pass over everything. The loop that decides goes in steps (`survey`).
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        let mut survey = self.begin_survey(Depth::All, now);
        while !self.survey(&mut survey, usize::MAX / 2) {}
        survey.facts().finish()
    }

    pub(super) fn outlook(&self, provider: &str, is_played: bool, now: Timestamp) -> Outlook {
        let forecast = if is_played { self.throttle.forecast(provider, now) } else { None };
        Outlook { lanes: self.throttle.lanes_in_numbers(provider, now), forecast }
    }

    pub(super) fn paused_domain(&self, name: &Domain, since: Timestamp) -> PausedDomain {
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
            Place::Ready | Place::Unrouted | Place::Parked | Place::Later(_) if paused.is_some() => {
                Some(Stop { state: "paused", until: None })
            }
            Place::Ready => target.and_then(|target| self.stop_of(target, now)),
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
            standing.ahead = own.map(|ahead| self.ahead_at(&target.provider, entry.class, ahead));
            standing.turn_at = standing.ahead.and_then(|ahead| self.after(&target.provider, ahead + 1, now));
        }
        Some(standing)
    }

    /// How many go before one that has `ahead` of its class before it in its line: the lines of a provider take turns, within
    /// each class.
    fn ahead_at(&self, provider: &Arc<str>, class: Priority, ahead: usize) -> usize {
        let (mut before_or_at, mut lens) = (0_usize, [0; Priority::ALL.len()]);
        for (_, target) in self.places.targets.iter().filter(|(_, target)| target.provider == *provider) {
            before_or_at += target.line.len_of(class).min(ahead + 1);
            for (len, class) in lens.iter_mut().zip([Priority::High, Priority::Normal, Priority::Bulk]) {
                *len += target.line.len_of(class);
            }
        }
        ahead_in_all(class, before_or_at.saturating_sub(1), lens)
    }

    /// What keeps all lanes of the target's provider from sending: the soonest end of it.
    fn stop_of(&self, target: &Target, now: Timestamp) -> Option<Stop> {
        let lanes = self.throttle.lanes_in_numbers(&target.provider, now);
        if lanes.is_open || lanes.count == 0 {
            return self.throttle.everything_paused().map(|_| Stop { state: "paused", until: None });
        }
        Some(Stop { state: lanes.state, until: lanes.until })
    }

    /// What a line waits for, in words: which lane or which connections, why, until when, and what lifts it.
    pub(super) fn line_waits_for(&self, target: &Target, now: Timestamp) -> Option<String> {
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
        match target.waits_for? {
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
        let Lanes { connections: open, allowed, .. } = self.throttle.lanes_in_numbers(provider, now);
        let allowed = allowed.min(self.throttle.profile(provider).max_connections).max(open);
        format!("a free connection: {open} of {allowed} that {provider} allows now are in use")
    }

    /// When so many will have gone to the provider.
    pub(super) fn after(&self, provider: &str, count: usize, now: Timestamp) -> Option<Timestamp> {
        self.outlook(provider, true, now).after(count, now)
    }
}
