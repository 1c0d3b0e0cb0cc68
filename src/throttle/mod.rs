//! The throttle: how much may go to a receiver, and when.
//!
//! Pure: the time comes in as an argument. It is asked (`permit` for a connection, `grant` for a transaction) and told
//! (`report`), and answers with a permit, a grant, or the time to ask again. What is learned belongs to the lane (one
//! of our sources at one provider), the ceiling to the provider over all its hosts, domains and our addresses.
//!
//! Rules that always hold:
//! - a connection exists only while it holds a `Permit`, and the permit is given back when the socket is closed, so the
//!   receiver never counts more than we do;
//! - permits in use never exceed the provider's ceiling, nor all of them `[delivery] max_connections`;
//! - a transaction starts only with a `Grant`.

mod lane;
pub mod options;
pub mod profile;
mod rate;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use lane::Change;
use lane::Lane;
pub use profile::{Profile, Profiles};

use crate::types::{Reading, Timestamp};

/// Lanes without history worth keeping are forgotten after this.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// One of our sources at one provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneName {
    pub provider: Arc<str>,
    pub source: Arc<str>,
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.provider, self.source)
    }
}

/// The right to hold one connection. Given back with `Throttle::release` when the socket is closed, never copied.
#[derive(Debug)]
#[must_use = "a permit that is dropped is lost to the ceiling: give it back with Throttle::release"]
pub struct Permit {
    lane: LaneName,
    messages: u32,
}

impl Permit {
    pub fn lane(&self) -> &LaneName {
        &self.lane
    }

    /// Transactions started on the connection.
    pub fn messages(&self) -> u32 {
        self.messages
    }
}

/// The right to start one transaction.
#[derive(Debug)]
pub struct Grant {
    /// At most so many recipients.
    pub recipients: usize,
}

/// What the throttle says to a request.
#[derive(Debug)]
pub enum Answer<T> {
    Granted(T),
    /// Not before then.
    At(Timestamp),
    /// When something is given back.
    Full,
    /// This connection has carried what it may: close it, another may be asked for.
    Spent,
}

/// What a receiver did.
#[derive(Debug)]
pub enum Signal<'a> {
    Accepted {
        recipients: u32,
    },
    /// A reply that is not positive; `started` is when the refused thing was begun.
    Refused {
        reading: &'a Reading,
        reply: &'a str,
        started: Timestamp,
    },
    /// The transaction ended without an answer of the receiver.
    Broken,
}

#[derive(Debug)]
struct Provider {
    open: usize,
    profile: Profile,
}

#[derive(Debug)]
pub struct Throttle {
    profiles: Profiles,
    providers: BTreeMap<Arc<str>, Provider>,
    lanes: BTreeMap<LaneName, Lane>,
    open: usize,
    max_connections: usize,
}

/// A lane as `status` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LaneStatus {
    pub provider: Arc<str>,
    pub source: Arc<str>,
    pub state: &'static str,
    pub connections: usize,
    pub connections_allowed: usize,
    pub ceiling: usize,
    /// Recipients accepted in the last minute.
    pub rate: f64,
    pub reason: Option<String>,
    pub until: Option<Timestamp>,
}

impl Throttle {
    pub fn new(profiles: Profiles, max_connections: usize) -> Throttle {
        Throttle {
            profiles,
            providers: BTreeMap::new(),
            lanes: BTreeMap::new(),
            open: 0,
            max_connections: max_connections.max(1),
        }
    }

    /// Takes new settings; connections above a lowered ceiling stay and no new one is permitted.
    pub fn reconfigure(&mut self, profiles: Profiles, max_connections: usize) {
        for (name, provider) in &mut self.providers {
            provider.profile = profiles.get(name);
        }
        for (name, lane) in &mut self.lanes {
            lane.reconfigure(&profiles.get(&name.provider));
        }
        self.profiles = profiles;
        self.max_connections = max_connections.max(1);
    }

    pub fn profile(&self, provider: &str) -> Profile {
        self.providers.get(provider).map_or_else(|| self.profiles.get(provider), |p| p.profile.clone())
    }

    /// Is it one of the Microsoft groups? There a 5xx greeting is final for the delivery that meets it.
    pub fn is_microsoft(&self, provider: &str) -> bool {
        matches!(provider, "outlook" | "microsoft365")
    }

    /// Asks for one connection.
    pub fn permit(&mut self, name: &LaneName, now: Timestamp) -> Answer<Permit> {
        if self.open >= self.max_connections {
            return Answer::Full;
        }
        let (provider, lane) = self.lane(name, now);
        if let Some(until) = lane.blocked_until(now) {
            return Answer::At(until);
        }
        if provider.open >= provider.profile.max_connections || lane.open >= lane.allowed(now) {
            return Answer::Full;
        }
        provider.open += 1;
        lane.open += 1;
        lane.last_used = now;
        self.open += 1;
        Answer::Granted(Permit { lane: name.clone(), messages: 0 })
    }

    /// Would `permit` say now that every connection the lane may have is taken?
    pub fn is_used_up(&self, name: &LaneName, now: Timestamp) -> bool {
        let full = |provider: &Provider| provider.open >= provider.profile.max_connections;
        self.is_full()
            || self.providers.get(&name.provider).is_some_and(full)
            || self
                .lanes
                .get(name)
                .is_some_and(|lane| lane.blocked_until(now).is_none() && lane.open >= lane.allowed(now))
    }

    /// Asks for one transaction on the connection of `permit`.
    pub fn grant(&mut self, permit: &mut Permit, now: Timestamp) -> Answer<Grant> {
        let (provider, lane) = self.lane(&permit.lane, now);
        if permit.messages >= provider.profile.messages_per_connection.max(1) {
            return Answer::Spent;
        }
        if let Some(until) = lane.blocked_until(now) {
            return Answer::At(until);
        }
        // After a cut the connections above the window end with the transaction they were in.
        if lane.open > lane.allowed(now) {
            return Answer::Spent;
        }
        if !lane.may_start(now) {
            return Answer::Full;
        }
        lane.last_used = now;
        permit.messages += 1;
        Answer::Granted(Grant { recipients: lane.recipients() })
    }

    /// Gives a permit back: its socket is closed.
    pub fn release(&mut self, permit: Permit) {
        self.open = self.open.saturating_sub(1);
        if let Some(provider) = self.providers.get_mut(&permit.lane.provider) {
            provider.open = provider.open.saturating_sub(1);
        }
        if let Some(lane) = self.lanes.get_mut(&permit.lane) {
            lane.open = lane.open.saturating_sub(1);
            lane.inconclusive();
        }
    }

    /// Tells what a receiver did; returns what changed for the lane.
    pub fn report(&mut self, name: &LaneName, signal: &Signal<'_>, now: Timestamp) -> Option<Change> {
        let (_, lane) = self.lane(name, now);
        lane.last_used = now;
        match signal {
            Signal::Accepted { recipients } => {
                lane.rate.count(*recipients, now);
                lane.accepted()
            }
            Signal::Refused { reading, reply, started } => lane.refused(reading, reply, *started, now),
            Signal::Broken => {
                lane.inconclusive();
                None
            }
        }
    }

    /// Is there no room because every connection in all is taken, whoever asks?
    pub fn is_full(&self) -> bool {
        self.open >= self.max_connections
    }

    pub fn open(&self) -> usize {
        self.open
    }

    /// Forgets lanes that learned nothing worth keeping. Called once in a while.
    pub fn sweep(&mut self, now: Timestamp) {
        let old = now - FORGET_AFTER;
        self.lanes.retain(|_, lane| !lane.is_idle_since(old));
        let used: BTreeSet<&Arc<str>> = self.lanes.keys().map(|lane| &lane.provider).collect();
        self.providers.retain(|name, provider| provider.open > 0 || used.contains(name));
    }

    pub fn status(&self, now: Timestamp) -> Vec<LaneStatus> {
        let line = |(name, lane): (&LaneName, &Lane)| LaneStatus {
            provider: name.provider.clone(),
            source: name.source.clone(),
            state: lane.state(now),
            connections: lane.open,
            connections_allowed: lane.allowed(now),
            ceiling: self.profile(&name.provider).max_connections,
            rate: lane.rate.per_minute(now),
            reason: lane.reason().map(str::to_string),
            until: lane.blocked_until(now),
        };
        self.lanes.iter().map(line).collect()
    }

    fn lane(&mut self, name: &LaneName, now: Timestamp) -> (&mut Provider, &mut Lane) {
        if !self.lanes.contains_key(name) {
            let profile = self.profile(&name.provider);
            self.lanes.insert(name.clone(), Lane::new(&profile, now));
            self.providers.entry(name.provider.clone()).or_insert(Provider { open: 0, profile });
        }
        let provider = self.providers.get_mut(&name.provider).expect("a lane's provider is known");
        let lane = self.lanes.get_mut(name).expect("inserted above");
        (provider, lane)
    }
}

#[cfg(test)]
mod tests {
    use super::options::ProviderOptions;
    use super::*;
    use proptest::prelude::*;

    fn throttle(ceiling: usize, all: usize) -> Throttle {
        let provider = ProviderOptions {
            name: "p".into(),
            max_connections: Some(ceiling),
            initial_connections: Some(ceiling),
            ..Default::default()
        };
        Throttle::new(Profiles::new(&[provider]), all)
    }

    fn lane(source: &str) -> LaneName {
        LaneName { provider: "p".into(), source: source.into() }
    }

    const NOW: Timestamp = Timestamp::from_secs(1000);

    #[test]
    fn the_ceiling_holds_over_all_sources() {
        let mut throttle = throttle(3, 100);
        let mut permits = Vec::new();
        for source in ["a", "b", "a", "b", "c"] {
            if let Answer::Granted(permit) = throttle.permit(&lane(source), NOW) {
                permits.push(permit);
            }
        }
        assert_eq!(permits.len(), 3);
        throttle.release(permits.pop().unwrap());
        assert!(matches!(throttle.permit(&lane("z"), NOW), Answer::Granted(_)));
    }

    #[test]
    fn a_new_ceiling_holds_for_lanes_that_are_known_and_what_they_learned_stays() {
        let mut throttle = throttle(2, 100);
        let take = |throttle: &mut Throttle| match throttle.permit(&lane("a"), NOW) {
            Answer::Granted(permit) => permit,
            answer => panic!("no permit: {answer:?}"),
        };
        let mut permits = vec![take(&mut throttle), take(&mut throttle)];
        let options = |max| ProviderOptions { name: "p".into(), max_connections: Some(max), ..Default::default() };
        throttle.reconfigure(Profiles::new(&[options(4)]), 100);
        for _ in 0..2 {
            throttle.report(&lane("a"), &Signal::Accepted { recipients: 1 }, NOW);
        }
        permits.extend([take(&mut throttle), take(&mut throttle)]);
        assert!(matches!(throttle.permit(&lane("a"), NOW), Answer::Full));
        throttle.reconfigure(Profiles::new(&[options(3)]), 100);
        let spent = permits.pop().map(|mut permit| (throttle.grant(&mut permit, NOW), permit));
        let Some((Answer::Spent, permit)) = spent else { panic!("above the new ceiling: {spent:?}") };
        throttle.release(permit);
        assert!(matches!(throttle.permit(&lane("a"), NOW), Answer::Full));
        assert!(matches!(throttle.grant(&mut permits[0], NOW), Answer::Granted(_)));
        permits.into_iter().for_each(|permit| throttle.release(permit));
    }

    #[test]
    fn a_connection_is_spent_after_its_messages() {
        let mut throttle = throttle(3, 100);
        let Answer::Granted(mut permit) = throttle.permit(&lane("a"), NOW) else { panic!("no permit") };
        for _ in 0..50 {
            assert!(matches!(throttle.grant(&mut permit, NOW), Answer::Granted(_)));
        }
        assert!(matches!(throttle.grant(&mut permit, NOW), Answer::Spent));
        throttle.release(permit);
    }

    proptest! {
        #[test]
        fn permits_never_exceed_a_limit(steps in prop::collection::vec((any::<bool>(), 0usize..3), 0..300), ceiling in 1usize..8, all in 1usize..12) {
            let mut throttle = throttle(ceiling, all);
            let mut permits: Vec<Permit> = Vec::new();
            for (take, n) in steps {
                if take {
                    if let Answer::Granted(permit) = throttle.permit(&lane(["a", "b", "c"][n]), NOW) {
                        permits.push(permit);
                    }
                } else if !permits.is_empty() {
                    throttle.release(permits.swap_remove(n % permits.len()));
                }
                prop_assert!(permits.len() <= ceiling.min(all));
                prop_assert_eq!(throttle.open(), permits.len());
            }
        }
    }
}
