//! The policies known, and what is to be done about each (RFC 8461 sections 3.3 and 5.1).
//!
//! Pure. Rules that always hold:
//! - a policy holds for its `max_age` from when it was fetched last, whatever the DNS says meanwhile: whoever can suppress a record
//!   or an answer takes no protection away;
//! - it is fetched anew after a day, or half its life where that is shorter, and whenever another id is announced;
//! - a fetch that failed is not tried again for some minutes, then ever more rarely, unless another id is announced;
//! - memory is bounded: beyond [`DOMAINS_MAX`] the domain goes first whose mail was asked for longest ago.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::policy::Policy;
use crate::types::{Domain, Timestamp};

/// Domains remembered; one with a usual policy takes some 300 octets, the largest some 9 KB.
const DOMAINS_MAX: usize = 10_000;
/// A policy is fetched anew after this (section 10.2 suggests a day).
const FRESH_MAX: Duration = Duration::from_secs(86_400);
/// From a failure to the next try; doubled each time up to the last one.
const WAIT_MIN: Duration = Duration::from_secs(300);
const WAIT_MAX: Duration = Duration::from_secs(4 * 3600);
/// Policies of domains that got no mail for so long are not fetched anew.
const UNUSED_MAX: Duration = Duration::from_secs(30 * 86_400);

/// What to do when mail is for a domain that announces a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What is known holds; there may be nothing.
    Known,
    /// What is known holds, and is to be fetched anew meanwhile.
    Renew,
    /// There is another policy than what is known.
    Fetch,
}

#[derive(Default)]
pub(super) struct Cache(BTreeMap<Domain, Known>);

struct Known {
    kept: Option<Kept>,
    failure: Option<Failure>,
    used: Timestamp,
}

struct Kept {
    id: String,
    policy: Arc<Policy>,
    fetched: Timestamp,
}

struct Failure {
    id: String,
    until: Timestamp,
    wait: Duration,
}

/// A policy as it is written down; times in milliseconds since 1970.
#[derive(Serialize, Deserialize)]
struct Written {
    id: String,
    fetched: i64,
    used: i64,
    policy: Policy,
}

impl Kept {
    fn until(&self) -> Timestamp {
        self.fetched + self.policy.max_age()
    }

    fn is_old(&self, now: Timestamp) -> bool {
        now.since(self.fetched) >= FRESH_MAX.min(self.policy.max_age() / 2)
    }
}

impl Known {
    /// What a clock that was ahead has fetched counts from now on.
    fn kept(&mut self, now: Timestamp) -> Option<&Kept> {
        let kept = self.kept.as_mut()?;
        kept.fetched = kept.fetched.min(now);
        Some(kept).filter(|kept| now < kept.until()).map(|kept| &*kept)
    }

    /// A wait that is longer than any was made by such a clock, too.
    fn rests(&self, now: Timestamp) -> bool {
        self.failure.as_ref().is_some_and(|failure| now < failure.until && failure.until.since(now) <= WAIT_MAX)
    }
}

impl Cache {
    /// Mail is for `domain`, which announces `id`.
    pub(super) fn step(&mut self, domain: &Domain, id: &str, now: Timestamp) -> Step {
        let Some(known) = self.0.get_mut(domain) else { return Step::Fetch };
        known.used = now;
        let rests = known.rests(now) && known.failure.as_ref().is_some_and(|failure| failure.id == id);
        match known.kept(now) {
            _ if rests => Step::Known,
            Some(kept) if kept.id == id && kept.is_old(now) => Step::Renew,
            Some(kept) if kept.id == id => Step::Known,
            _ => Step::Fetch,
        }
    }

    /// The policy that holds now for mail, and how long it does so.
    pub(super) fn policy(&mut self, domain: &Domain, now: Timestamp) -> Option<(Arc<Policy>, Duration)> {
        self.0.get_mut(domain)?.used = now;
        self.standing(domain, now)
    }

    /// The same where no mail asks.
    pub(super) fn standing(&mut self, domain: &Domain, now: Timestamp) -> Option<(Arc<Policy>, Duration)> {
        let kept = self.0.get_mut(domain)?.kept(now)?;
        Some((kept.policy.clone(), kept.until().since(now)))
    }

    /// A fetch brought this. What is returned is to be written down.
    pub(super) fn fetched(&mut self, domain: &Domain, id: &str, policy: Policy, now: Timestamp) -> Option<String> {
        // To be renewed is no use.
        let used = self.0.get(domain).map_or(now, |known| known.used.min(now));
        let written = Written { id: id.into(), fetched: now.millis(), used: used.millis(), policy: policy.clone() };
        let kept = Some(Kept { id: id.into(), policy: Arc::new(policy), fetched: now });
        self.insert(domain, Known { kept, failure: None, used });
        serde_json::to_string(&written).ok()
    }

    /// A fetch failed; how long it is not tried again.
    pub(super) fn failed(&mut self, domain: &Domain, id: &str, now: Timestamp) -> Duration {
        let known = self.0.remove(domain).unwrap_or(Known { kept: None, failure: None, used: now });
        let before = known.failure.as_ref().filter(|failure| failure.id == id);
        let wait = before.map_or(WAIT_MIN, |failure| (failure.wait * 2).min(WAIT_MAX));
        let failure = Some(Failure { id: id.into(), until: now + wait, wait });
        self.insert(domain, Known { failure, ..known });
        wait
    }

    /// Some policies that are to be fetched anew, with their ids. Forgets what holds no more.
    pub(super) fn due(&mut self, count: usize, now: Timestamp) -> Vec<(Domain, String)> {
        self.0.retain(|_, known| known.kept(now).is_some() || known.rests(now));
        let is_due = |known: &&Known| !known.rests(now) && now.since(known.used) <= UNUSED_MAX;
        let old = |(domain, known): (&Domain, &Known)| {
            let kept = Some(known).filter(is_due)?.kept.as_ref().filter(|kept| kept.is_old(now))?;
            Some((domain.clone(), kept.id.clone()))
        };
        self.0.iter().filter_map(old).take(count).collect()
    }

    /// Takes back what was written down; what cannot be read was not written by us, and is discovered anew.
    pub(super) fn restore(&mut self, domain: &str, text: &str, now: Timestamp) {
        let (Ok(domain), Ok(written)) = (Domain::parse(domain), serde_json::from_str::<Written>(text)) else { return };
        let Written { id, fetched, used, policy } = written;
        let kept = Kept { id, policy: Arc::new(policy), fetched: Timestamp::from_millis(fetched) };
        let mut known = Known { kept: Some(kept), failure: None, used: Timestamp::from_millis(used).min(now) };
        if known.kept(now).is_some() {
            self.insert(&domain, known);
        }
    }

    fn insert(&mut self, domain: &Domain, known: Known) {
        if self.0.len() >= DOMAINS_MAX
            && !self.0.contains_key(domain)
            && let Some(longest) = self.0.iter().min_by_key(|(_, known)| known.used).map(|(domain, _)| domain.clone())
        {
            self.0.remove(&longest);
        }
        self.0.insert(domain.clone(), known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: Duration = Duration::from_secs(86_400);

    fn policy(max_age: Duration) -> Policy {
        let text = format!("version: STSv1\nmode: enforce\nmx: mx.a.test\nmax_age: {}", max_age.as_secs());
        Policy::parse(text.as_bytes()).unwrap()
    }

    fn name(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[test]
    fn a_policy_is_renewed_after_a_day_or_half_its_life_and_holds_to_its_end() {
        let (mut cache, a) = (Cache::default(), name("a.test"));
        assert_eq!(cache.step(&a, "1", NOW), Step::Fetch);
        for (max_age, fresh) in [(10 * DAY, DAY), (HOUR, HOUR / 2)] {
            cache.fetched(&a, "1", policy(max_age), NOW);
            let just = Duration::from_millis(1);
            assert_eq!(cache.step(&a, "1", NOW + fresh - just), Step::Known);
            assert!(cache.due(9, NOW + fresh - just).is_empty());
            assert_eq!(cache.step(&a, "1", NOW + fresh), Step::Renew);
            assert_eq!(cache.due(9, NOW + fresh), [(a.clone(), "1".to_string())]);
            assert_eq!(cache.step(&a, "2", NOW), Step::Fetch, "another id");
            let (_, left) = cache.policy(&a, NOW + max_age - just).unwrap();
            assert_eq!(left, just);
            assert!(cache.policy(&a, NOW + max_age).is_none());
            assert_eq!(cache.step(&a, "1", NOW + max_age), Step::Fetch);
        }
        assert!(cache.due(9, NOW + HOUR).is_empty() && cache.0.is_empty());
    }

    #[test]
    fn a_failure_rests_ever_longer_and_takes_no_policy_away() {
        let (mut cache, a) = (Cache::default(), name("a.test"));
        cache.fetched(&a, "1", policy(10 * DAY), NOW);
        let mut now = NOW + DAY;
        for wait in [300, 600, 1200, 2400, 4800, 9600, 14_400, 14_400] {
            let wait = Duration::from_secs(wait);
            assert_eq!(cache.step(&a, "1", now), Step::Renew);
            assert_eq!(cache.failed(&a, "1", now), wait);
            assert_eq!(cache.step(&a, "1", now + wait - Duration::from_millis(1)), Step::Known);
            assert!(cache.due(9, now).is_empty() && cache.policy(&a, now).is_some());
            assert_eq!(cache.step(&a, "2", now), Step::Fetch, "another id may be a mended policy");
            now = now + wait;
        }
        let b = name("b.test");
        cache.failed(&b, "1", now);
        assert_eq!((cache.step(&b, "1", now), cache.policy(&b, now).is_none()), (Step::Known, true));
    }

    #[test]
    fn what_was_written_down_comes_back_and_holds_as_long_as_before() {
        let (mut cache, a) = (Cache::default(), name("a.test"));
        let written = cache.fetched(&a, "1", policy(10 * DAY), NOW).unwrap();
        let mut next = Cache::default();
        next.restore("a.test", &written, NOW + 3 * DAY);
        next.restore("b.test", "{\"lane\":1}", NOW);
        next.restore("[192", &written, NOW);
        assert_eq!(next.policy(&a, NOW + 3 * DAY).unwrap().1, 7 * DAY);
        assert_eq!(next.step(&a, "1", NOW + 3 * DAY), Step::Renew);
        let mut late = Cache::default();
        late.restore("a.test", &written, NOW + 10 * DAY);
        assert_eq!((next.0.len(), late.0.len()), (1, 0));
    }

    #[test]
    fn a_clock_that_was_ahead_makes_no_policy_and_no_wait_longer() {
        let (mut cache, a) = (Cache::default(), name("a.test"));
        cache.fetched(&a, "1", policy(DAY), NOW + 100 * DAY);
        assert_eq!(cache.policy(&a, NOW).unwrap().1, DAY);
        cache.failed(&a, "1", NOW + 100 * DAY);
        assert_eq!(cache.step(&a, "1", NOW + DAY), Step::Fetch);
    }

    #[test]
    fn the_domain_that_got_no_mail_for_longest_is_forgotten_first() {
        let (mut cache, often) = (Cache::default(), name("often.test"));
        cache.fetched(&often, "1", policy(10 * DAY), NOW);
        for n in 0..DOMAINS_MAX + 5 {
            let now = NOW + Duration::from_millis(n as u64);
            cache.failed(&name(&format!("d{n}.test")), "1", now);
            cache.policy(&often, now);
        }
        assert_eq!(cache.0.len(), DOMAINS_MAX);
        assert!(cache.policy(&often, NOW).is_some());
    }

    #[test]
    fn what_no_mail_asks_for_is_renewed_for_a_month() {
        let (mut cache, a) = (Cache::default(), name("a.test"));
        let mut written = cache.fetched(&a, "1", policy(60 * DAY), NOW).unwrap();
        for day in 1..=30 {
            assert_eq!(cache.due(9, NOW + day * DAY).len(), 1, "{day}");
            cache.failed(&a, "1", NOW + day * DAY);
            written = cache.fetched(&a, "1", policy(60 * DAY), NOW + day * DAY).unwrap();
        }
        assert!(cache.due(9, NOW + 31 * DAY).is_empty());
        let mut next = Cache::default();
        next.restore("a.test", &written, NOW + 31 * DAY);
        assert!(next.due(9, NOW + 31 * DAY).is_empty());
        assert_eq!(next.step(&a, "1", NOW + 31 * DAY), Step::Renew, "with the next mail");
    }
}
