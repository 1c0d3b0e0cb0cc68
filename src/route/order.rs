//! In which order a delivery tries the addresses of its route.
//!
//! Pure. Rules that always hold:
//! - every published address is tried: the order changes, nothing is left out (policy of Outlook.com, line 8);
//! - hosts come by preference, those of equal preference share the load (RFC 5321 section 5.1), and so do the
//!   addresses of a host: over successive turns all addresses of equal rank come first equally often;
//! - an address that failed lately goes behind all that did not, and the shares of the others stay equal.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Host, Route};
use crate::types::Timestamp;

/// One address to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Place of the host in the route.
    pub host: usize,
    pub name: Arc<str>,
    pub provider: Arc<str>,
    pub address: SocketAddr,
}

/// The addresses of `route` in the order in which they are to be tried. `turn` counts the deliveries of the domain; each
/// next turn begins with another address.
pub fn candidates(route: &Route, turn: u64, failing: &FailureMemory, now: Timestamp) -> Vec<Candidate> {
    let indexed: Vec<(usize, &Host)> = route.hosts.iter().enumerate().collect();
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for rank in indexed.chunk_by(|(_, a), (_, b)| a.preference == b.preference) {
        let (mut bad, mut good): (Vec<_>, Vec<_>) =
            interleaved(rank).into_iter().partition(|candidate| failing.is_failing(candidate.address, now));
        rotate(&mut good, turn);
        rotate(&mut bad, turn);
        first.append(&mut good);
        last.append(&mut bad);
    }
    first.append(&mut last);
    first
}

/// The first address of each host, then the second of each …: the next try goes to another host where there is one.
fn interleaved(rank: &[(usize, &Host)]) -> Vec<Candidate> {
    let longest = rank.iter().map(|(_, host)| host.addresses.len()).max().unwrap_or(0);
    let of = |(index, host): &(usize, &Host), nth: usize| {
        let address = *host.addresses.get(nth)?;
        Some(Candidate { host: *index, name: host.name.clone(), provider: host.provider.clone(), address })
    };
    (0..longest).flat_map(|nth| rank.iter().filter_map(move |entry| of(entry, nth))).collect()
}

fn rotate(candidates: &mut [Candidate], turn: u64) {
    if let Some(rest) = turn.checked_rem(candidates.len() as u64) {
        // A remainder of a length fits the length's type.
        candidates.rotate_left(usize::try_from(rest).unwrap_or(0));
    }
}

/// The first wait of an address that failed; doubled each time up to the last one.
const WAIT_MIN: Duration = Duration::from_secs(60);
const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// So long after its wait ended an address has no history any more.
const FORGET_AFTER: Duration = Duration::from_secs(3600);
/// Addresses remembered; beyond it the one whose wait ends first is forgotten.
const FAILURES_MAX: usize = 10_000;

/// Addresses to which connections failed lately.
#[derive(Clone, Debug, Default)]
pub struct FailureMemory(BTreeMap<SocketAddr, Failure>);

#[derive(Clone, Copy, Debug)]
struct Failure {
    until: Timestamp,
    wait: Duration,
}

impl FailureMemory {
    /// A connection to `address` failed. Failures while it already waits are of one burst and count once.
    pub fn failed(&mut self, address: SocketAddr, now: Timestamp) {
        let wait = match self.0.get(&address) {
            Some(failure) if now < failure.until => return,
            Some(failure) if now < failure.until + FORGET_AFTER => (failure.wait * 2).min(WAIT_MAX),
            _ => WAIT_MIN,
        };
        if self.0.len() >= FAILURES_MAX && !self.0.contains_key(&address) {
            self.make_room(now);
        }
        self.0.insert(address, Failure { until: now + wait, wait });
    }

    /// The clock was set by so much.
    pub fn shift(&mut self, by_millis: i64) {
        self.0.values_mut().for_each(|failure| failure.until = failure.until.shifted(by_millis));
    }

    /// A connection to `address` came to be.
    pub fn succeeded(&mut self, address: SocketAddr) {
        self.0.remove(&address);
    }

    pub fn is_failing(&self, address: SocketAddr, now: Timestamp) -> bool {
        self.0.get(&address).is_some_and(|failure| now < failure.until)
    }

    fn make_room(&mut self, now: Timestamp) {
        self.0.retain(|_, failure| now < failure.until);
        if self.0.len() >= FAILURES_MAX
            && let Some(first) = self.0.iter().min_by_key(|(_, failure)| failure.until).map(|(address, _)| *address)
        {
            self.0.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000_000);

    fn address(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from(0x0a00_0000 + n), 25).into()
    }

    /// Hosts given by preference and number of addresses; every address is another.
    fn route(hosts: &[(u16, usize)]) -> Route {
        let mut next = 0;
        let hosts = hosts.iter().enumerate().map(|(index, (preference, count))| {
            let addresses = (0..*count).map(|_| {
                next += 1;
                address(next)
            });
            Host {
                name: format!("mx{index}.test").into(),
                preference: *preference,
                addresses: addresses.collect(),
                provider: "mx0.test".into(),
            }
        });
        Route {
            hosts: hosts.collect(),
            valid_until: NOW,
            fixed: false,
            limits_named: false,
            access: None,
            demand: None,
            sts: None,
        }
    }

    fn order(route: &Route, turn: u64, failing: &FailureMemory) -> Vec<SocketAddr> {
        candidates(route, turn, failing, NOW).into_iter().map(|candidate| candidate.address).collect()
    }

    #[test]
    fn equal_preference_takes_turns_and_preference_comes_first() {
        let route = route(&[(5, 2), (5, 1), (10, 1)]);
        let none = FailureMemory::default();
        let a = address;
        assert_eq!(order(&route, 0, &none), [a(1), a(3), a(2), a(4)]);
        assert_eq!(order(&route, 1, &none), [a(3), a(2), a(1), a(4)]);
        assert_eq!(order(&route, 2, &none), [a(2), a(1), a(3), a(4)]);
        assert_eq!(order(&route, 3, &none), order(&route, 0, &none));
    }

    #[test]
    fn a_failing_address_goes_behind_even_a_less_preferred_host() {
        let route = route(&[(5, 2), (10, 1)]);
        let mut failing = FailureMemory::default();
        failing.failed(address(1), NOW);
        assert_eq!(order(&route, 0, &failing), [address(2), address(3), address(1)]);
        failing.failed(address(2), NOW);
        assert_eq!(order(&route, 0, &failing), [address(3), address(1), address(2)]);
        failing.succeeded(address(1));
        assert_eq!(order(&route, 0, &failing), [address(1), address(3), address(2)]);
    }

    #[test]
    fn candidates_know_their_host() {
        let found = candidates(&route(&[(5, 0), (5, 1)]), 0, &FailureMemory::default(), NOW);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].host, &*found[0].name, &*found[0].provider), (1, "mx1.test", "mx0.test"));
    }

    #[test]
    fn waits_double_up_to_their_limit_and_a_burst_counts_once() {
        let mut memory = FailureMemory::default();
        let mut now = NOW;
        for secs in [60, 120, 240, 480, 900, 900] {
            memory.failed(address(1), now);
            memory.failed(address(1), now + Duration::from_secs(1));
            let last = now + Duration::from_secs(secs) - Duration::from_millis(1);
            assert!(memory.is_failing(address(1), last), "{secs}");
            now = last + Duration::from_millis(1);
            assert!(!memory.is_failing(address(1), now), "{secs}");
        }
        now = now + FORGET_AFTER;
        memory.failed(address(1), now);
        assert!(!memory.is_failing(address(1), now + WAIT_MIN));
    }

    #[test]
    fn memory_has_a_limit_and_loses_what_ends_first() {
        let mut memory = FailureMemory::default();
        let count = u32::try_from(FAILURES_MAX).unwrap();
        for n in 0..=count {
            memory.failed(address(n), NOW + Duration::from_millis(u64::from(n)));
        }
        assert_eq!(memory.0.len(), FAILURES_MAX);
        let now = NOW + Duration::from_secs(30);
        assert!(!memory.is_failing(address(0), now) && memory.is_failing(address(count), now));
    }

    proptest! {
        #[test]
        fn all_are_tried_and_equals_share_equally(
            mut hosts in prop::collection::vec((0u16..3, 0usize..4), 1..6),
            failing in prop::collection::btree_set(1u32..20, 0..6),
            start in 0u64..1000,
        ) {
            hosts.sort();
            let route = route(&hosts);
            let mut memory = FailureMemory::default();
            failing.iter().for_each(|n| memory.failed(address(*n), NOW));
            let mut all: Vec<SocketAddr> = route.hosts.iter().flat_map(|host| host.addresses.clone()).collect();
            all.sort();
            let mut shares: BTreeMap<SocketAddr, u32> = BTreeMap::new();
            for turn in 0..50 {
                let found = candidates(&route, start + turn, &memory, NOW);
                let mut sorted: Vec<SocketAddr> = found.iter().map(|c| c.address).collect();
                sorted.sort();
                prop_assert_eq!(&sorted, &all);
                let rank = |c: &Candidate| (memory.is_failing(c.address, NOW), route.hosts[c.host].preference);
                prop_assert!(found.is_sorted_by_key(rank));
                if let Some(first) = found.first() {
                    *shares.entry(first.address).or_default() += 1;
                }
            }
            let (least, most) = (shares.values().min(), shares.values().max());
            // Over a number of turns that is no multiple of the group the shares differ by one at most.
            prop_assert!(least.zip(most).is_none_or(|(least, most)| most - least <= 1));
        }
    }
}
