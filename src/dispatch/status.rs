//! What the core can say about itself: for `status` and `queue show`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::core::Core;
use crate::queue::Place;
use crate::throttle::LaneStatus;
use crate::types::{DeliveryId, Timestamp};

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
    pub port_shut: bool,
}

/// How one delivery stands.
#[derive(Clone, Debug)]
pub struct Standing {
    pub active: bool,
    pub provider: Option<Arc<str>>,
    /// What it waits for, in words.
    pub waits_for: String,
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
        Snapshot {
            deliveries: self.queue.len(),
            active: self.queue.active(),
            held: self.queue.held(),
            connections: self.throttle.open(),
            lanes: self.throttle.status(now),
            waiting,
            waits_for: self.places.targets.iter().filter_map(waits).collect(),
            port_shut: self.port25.is_shut(),
        }
    }

    pub fn standing(&self, id: DeliveryId, now: Timestamp) -> Option<Standing> {
        let entry = self.queue.get(id)?;
        let domain = self.places.domains.get(entry.domain)?;
        let target = domain.target.and_then(|target| self.places.targets.get(target));
        let waits_for = match entry.place {
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
                    (_, Some(what)) => format!("{what} at {}", target.provider),
                    _ => format!("its turn at {}", target.provider),
                },
                None => "its turn".to_string(),
            },
        };
        let provider = target.map(|target| target.provider.clone());
        Some(Standing { active: entry.place == Place::Active, provider, waits_for })
    }
}
