//! What the core can say about itself: for `status` and `queue show`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::core::Core;
use crate::queue::{Place, ahead_in_all};
use crate::throttle::LaneStatus;
use crate::types::{DeliveryId, Priority, Timestamp};

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

/// How one delivery stands.
#[derive(Clone, Debug)]
pub struct Standing {
    pub active: bool,
    pub provider: Option<Arc<str>>,
    /// What it waits for, in words.
    pub waits_for: String,
    /// How many go before it, and when its turn is about; where that was asked for and can be told.
    pub ahead: Option<usize>,
    pub turn_at: Option<Timestamp>,
}

impl Core {
    pub fn snapshot(&self, now: Timestamp) -> Snapshot {
        let mut waiting = BTreeMap::new();
        for (_, domain) in self.places.domains.iter().filter(|(_, d)| d.deliveries > 0) {
            let provider = domain.target.and_then(|t| self.places.targets.get(t)).map(|t| t.provider.clone());
            *waiting.entry(provider).or_insert(0) += domain.deliveries as usize;
        }
        let waits = |(_, target): (u32, &super::destination::Target)| {
            let what = match target.down_until {
                Some(until) if until > now => format!("no host could be reached; again at {until}").into(),
                _ => target.waits_for.clone()?,
            };
            (!target.line.is_empty()).then(|| (target.provider.clone(), what))
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
        }
    }

    pub fn standing(&self, id: DeliveryId, now: Timestamp) -> Option<Standing> {
        let entry = self.queue.get(id)?;
        let domain = self.places.domains.get(entry.domain)?;
        let target = domain.target.and_then(|target| self.places.targets.get(target));
        let held = target.and_then(|target| self.hold(&target.provider, entry.sender_domain, entry.domain, now));
        let waits_for = match entry.place {
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
            Place::Active => "the receiver, just now".to_string(),
            Place::Settling => "being settled".to_string(),
            Place::Held => "an operator: it is held (weir queue release)".to_string(),
            Place::Ready => match target {
                Some(target) => match (target.down_until, &target.waits_for) {
                    (Some(until), _) if until > now => {
                        format!("{}: no host could be reached; again at {until}", target.provider)
                    }
                    (_, Some(what)) => self.lane_in_words(target, what, now),
                    _ => format!("its turn at {}", target.provider),
                },
                None => "its turn".to_string(),
            },
        };
        let provider = target.map(|target| target.provider.clone());
        Some(Standing { active: entry.place == Place::Active, provider, waits_for, ahead: None, turn_at: None })
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

    /// Why a line waits, with what the receiver said.
    fn lane_in_words(&self, target: &super::destination::Target, what: &str, now: Timestamp) -> String {
        let provider = &target.provider;
        let lanes = self.throttle.status(now).into_iter().filter(|lane| lane.provider == *provider);
        let of_lane = target.waits_in.as_ref();
        let lane = lanes.into_iter().find(|lane| of_lane.is_none_or(|own| own.source == lane.source));
        let Some(lane) = lane.filter(|_| of_lane.is_some()) else { return format!("{what} at {provider}") };
        let mut text = format!("the lane to {provider} from {}, which is {}", lane.source, lane.state);
        if let Some(until) = lane.until {
            text.push_str(&format!(" until {until}"));
        }
        if let Some(reason) = lane.reason {
            text.push_str(&format!(": {reason}"));
        }
        text
    }

    /// Recipients a minute: what the lanes have learned, else what went in the last minute.
    fn pace(&self, provider: &str, now: Timestamp) -> Option<f64> {
        let recent = || {
            let lanes = self.throttle.status(now).into_iter().filter(|lane| *lane.provider == *provider);
            lanes.map(|lane| lane.rate).sum::<f64>()
        };
        self.throttle.pace(provider, now).or_else(|| Some(recent())).filter(|pace| *pace > 0.0)
    }

    /// When so many will have gone.
    fn after(&self, provider: &str, count: usize, now: Timestamp) -> Option<Timestamp> {
        let pace = self.pace(provider, now)?;
        let lanes: Vec<LaneStatus> =
            self.throttle.status(now).into_iter().filter(|lane| *lane.provider == *provider).collect();
        let is_shut = lanes.iter().all(|lane| lane.connections_allowed == 0);
        if is_shut && lanes.iter().all(|lane| lane.until.is_none()) && !lanes.is_empty() {
            return None;
        }
        let from = if is_shut { lanes.iter().filter_map(|lane| lane.until).min().unwrap_or(now) } else { now };
        Some(from.max(now) + Duration::try_from_secs_f64(count as f64 * 60.0 / pace).ok()?)
    }
}
