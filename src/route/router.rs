//! Routes, remembered: the one door to where mail goes.
//!
//! Rules that always hold:
//! - equal questions are asked once, however many wait for the answer; when the one who asks goes away, the next takes over;
//! - an answer holds as long as the DNS says, within [`VALID_MIN`] and [`VALID_MAX`]; a temporary failure is remembered
//!   shortly;
//! - memory is bounded: beyond [`DOMAINS_MAX`] domains the ones not asked for lately are forgotten.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

use super::choice::{Fault, Found, first_few};
use super::dns::Dns;
use super::fixed::FixedRoutes;
use super::lookup::Lookup;
use super::provider::ProviderTable;
use super::reachable::Reachable;
use super::sts::{Mode, Policy, Sts};
use super::{Demand, Reach, Route, TlsPolicies, Unroutable};
use crate::clock::Clock;
use crate::types::{Domain, NextHop, StsMode, Timestamp, TlsMode};

/// Short times to live (Microsoft has 220 s) are obeyed, shorter ones would only load the name servers.
pub const VALID_MIN: Duration = Duration::from_secs(60);
/// Long ones are cut, so that a moved receiver is found within the hour.
pub const VALID_MAX: Duration = Duration::from_secs(3600);
/// A definite "no" is kept shorter: the domain may be mended while people wait.
const NEGATIVE_MAX: Duration = Duration::from_secs(900);
/// Domains remembered. A usual one takes half a kilobyte, 25 MB in all; the largest that can be published some 6 KB.
const DOMAINS_MAX: usize = 50_000;
/// Questions to name servers under way at once; each may hold two sockets for ten seconds.
const QUESTIONS_MAX: usize = 200;

/// What steers routing; a change of configuration makes a new [`Router`].
pub struct Settings {
    pub fixed: FixedRoutes,
    pub providers: ProviderTable,
    pub reachable: Reachable,
    pub reach: Reach,
    pub policies: TlsPolicies,
    /// None: MTA-STS is switched off.
    pub sts: Option<Arc<Sts>>,
}

/// What a domain's mail asks of the hosts of its route.
#[derive(Default)]
struct Wants {
    demand: Option<Demand>,
    sts: Option<StsMode>,
}

/// Answers where the mail of a domain goes. Shared behind an `Arc`.
pub struct Router {
    dns: Arc<dyn Dns>,
    clock: Clock,
    settings: Settings,
    reach: Mutex<Reach>,
    questions: Semaphore,
    known: Mutex<Known>,
}

type Outcome = Result<Route, Unroutable>;
/// Empty while the question is under way.
type Slot = Arc<OnceCell<Outcome>>;

impl Router {
    pub fn new(dns: Arc<dyn Dns>, clock: Clock, settings: Settings) -> Router {
        Router {
            dns,
            clock,
            reach: Mutex::new(settings.reach),
            settings,
            questions: Semaphore::new(QUESTIONS_MAX),
            known: Mutex::new(Known::default()),
        }
    }

    /// Where the mail of `domain` goes, or why nowhere. Asks the DNS if what is known has run out; ends within a
    /// minute of its turn whatever the name servers do.
    pub async fn resolve(&self, domain: &Domain) -> Outcome {
        let slot = self.known().slot(domain, self.clock.now());
        slot.get_or_init(|| self.look_up(domain)).await.clone()
    }

    /// Where an operator's order sends mail of `domain`. Not remembered: who asks keeps it while it is valid.
    pub async fn resolve_hop(&self, domain: &Domain, to: &NextHop) -> Outcome {
        let found = self.lookup().next_hop(domain, &self.settings.fixed.ordered(domain, to)).await;
        let now = self.clock.now();
        let wants = Wants { demand: self.settings.policies.of(domain), sts: None };
        found.map(|found| found.valid_from(now, wants)).map_err(|fault| fault.valid_from(now))
    }

    /// Forgets what is known about `domain`, so that the next question goes to the name servers: the receiver said that
    /// its mail belongs elsewhere (451 4.4.62).
    pub fn forget(&self, domain: &Domain) {
        let slot = self.known().remove(domain);
        self.dns.forget(domain.as_str());
        if let Some(Ok(route)) = slot.as_ref().and_then(|slot| slot.get()) {
            route.hosts.iter().for_each(|host| self.dns.forget(&host.name));
        }
    }

    /// Takes over which families this host has routes for now; counts for the next look-ups.
    pub fn set_reach(&self, reach: Reach) {
        *self.reach.lock().unwrap_or_else(PoisonError::into_inner) = reach;
    }

    /// Is the address in `[delivery] networks`? Mail there goes out even while this host has no name for HELO.
    pub fn is_inside(&self, address: IpAddr) -> bool {
        self.settings.reachable.is_inside(address)
    }

    pub fn providers(&self) -> &ProviderTable {
        &self.settings.providers
    }

    fn lookup(&self) -> Lookup<'_> {
        Lookup {
            dns: &*self.dns,
            questions: &self.questions,
            fixed: &self.settings.fixed,
            providers: &self.settings.providers,
            reachable: &self.settings.reachable,
            reach: *self.reach.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    async fn look_up(&self, domain: &Domain) -> Outcome {
        let found = match self.lookup().domain(domain).await {
            Ok(found) => self.obey(domain, found).await,
            Err(fault) => Err(fault),
        };
        let now = self.clock.now();
        found.map(|(found, wants)| found.valid_from(now, wants)).map_err(|fault| fault.valid_from(now))
    }

    /// What was found, as the configuration and the domain's MTA-STS policy allow it (RFC 8461 section 5).
    ///
    /// A `[[tls_policy]]` for the domain is the operator's own word and stands in the place of its policy, but for `verify`, which a
    /// policy can only make narrower. Hosts that the operator wrote down are none that a policy speaks of.
    async fn obey(&self, domain: &Domain, mut found: Found) -> Result<(Found, Wants), Fault> {
        let mut wants = Wants { demand: self.settings.policies.of(domain), sts: None };
        let has_own_word = wants.demand.as_ref().is_some_and(|demand| demand.tls != TlsMode::Verify);
        let Some(sts) = self.settings.sts.as_ref().filter(|_| !has_own_word) else { return Ok((found, wants)) };
        if found.fixed || domain.literal().is_some() {
            return Ok((found, wants));
        }
        let known = sts.ask(domain).await;
        found.ttl = known.holds.map_or(found.ttl, |holds| found.ttl.min(holds));
        match known.policy.as_deref() {
            Some(policy) if policy.mode() == Mode::Enforce => {
                found.keep_covered(domain, policy)?;
                wants.sts = Some(StsMode::Enforce);
                wants.demand.get_or_insert_with(Demand::of_sts);
            }
            Some(policy) if policy.mode() == Mode::Testing => {
                found.tell_uncovered(domain, policy);
                wants.sts = Some(StsMode::Testing);
            }
            _ => {}
        }
        Ok((found, wants))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Found {
    fn uncovered(&self, policy: &Policy) -> Vec<String> {
        let beyond = self.hosts.iter().filter(|host| !policy.covers(&host.name));
        beyond.map(|host| host.name.to_string()).collect()
    }

    /// Leaves out the hosts that an enforced policy does not name.
    fn keep_covered(&mut self, domain: &Domain, policy: &Policy) -> Result<(), Fault> {
        let beyond = self.uncovered(policy);
        self.hosts.retain(|host| policy.covers(&host.name));
        if !self.hosts.is_empty() {
            return Ok(());
        }
        let text = format!(
            "the MTA-STS policy of {domain} (mode enforce) names {}; the MX that the DNS gives, {}, is not among them: either the \
             domain's owner forgot to change the policy, or somebody tampers with the DNS",
            policy.hosts(),
            first_few(&beyond, ", ")
        );
        Err(Fault::temporary("4.7.5", text))
    }

    fn tell_uncovered(&self, domain: &Domain, policy: &Policy) {
        let beyond = self.uncovered(policy);
        if !beyond.is_empty() {
            let (named, beyond) = (policy.hosts(), first_few(&beyond, ", "));
            tracing::info!(
                "the MTA-STS policy of {domain} (mode testing) names {named}; the MX {beyond} is not among them, and gets mail all the same"
            );
        }
    }

    fn valid_from(self, now: Timestamp, wants: Wants) -> Route {
        Route {
            hosts: self.hosts,
            valid_until: now + self.ttl.clamp(VALID_MIN, VALID_MAX),
            fixed: self.fixed,
            limits_named: self.limits_named,
            access: self.access,
            demand: wants.demand,
            sts: wants.sts,
        }
    }
}

impl Fault {
    fn valid_from(self, now: Timestamp) -> Unroutable {
        let kept = if self.permanent { self.ttl.clamp(VALID_MIN, NEGATIVE_MAX) } else { self.ttl };
        Unroutable { permanent: self.permanent, status: self.status, text: self.text, valid_until: now + kept }
    }
}

/// Two generations: when the young one is full it becomes the old one, and what was not asked for since is gone.
#[derive(Default)]
struct Known {
    young: BTreeMap<Domain, Slot>,
    old: BTreeMap<Domain, Slot>,
}

impl Known {
    /// The slot of `domain`: a valid answer, a question under way, or a new one to be asked.
    fn slot(&mut self, domain: &Domain, now: Timestamp) -> Slot {
        let known = self.young.get(domain).cloned().or_else(|| self.old.remove(domain));
        // What is valid for longer than anything was learned by a clock that was ahead.
        let is_valid = |until: Timestamp| now < until && until.since(now) <= VALID_MAX;
        let slot =
            known.filter(|slot| slot.get().is_none_or(|outcome| is_valid(valid_until(outcome)))).unwrap_or_default();
        if self.young.len() >= DOMAINS_MAX / 2 && !self.young.contains_key(domain) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(domain.clone(), slot.clone());
        slot
    }

    fn remove(&mut self, domain: &Domain) -> Option<Slot> {
        let (young, old) = (self.young.remove(domain), self.old.remove(domain));
        young.or(old)
    }
}

fn valid_until(outcome: &Outcome) -> Timestamp {
    match outcome {
        Ok(route) => route.valid_until,
        Err(unroutable) => unroutable.valid_until,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::dns::NoAnswer;
    use super::super::reachable::OwnAddresses;
    use super::super::table::TableDns;
    use super::*;
    use crate::outbound::options::IpChoice;

    const START: Timestamp = Timestamp::from_secs(1_000_000);

    fn router(dns: TableDns) -> (Arc<TableDns>, Clock, Arc<Router>) {
        let (dns, clock) = (Arc::new(dns), Clock::starting_at(START));
        let own = OwnAddresses { listeners: vec![], interfaces: BTreeSet::new() };
        let settings = Settings {
            fixed: FixedRoutes::default(),
            providers: ProviderTable::default(),
            reachable: Reachable { port: 25, ip: IpChoice::PreferIpv4, networks: vec![], own },
            reach: Reach { ipv4: true, ipv6: true },
            policies: TlsPolicies::default(),
            sts: None,
        };
        (dns.clone(), clock.clone(), Arc::new(Router::new(dns, clock, settings)))
    }

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn secs(outcome: &Outcome) -> u64 {
        valid_until(outcome).since(START).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn answers_hold_as_long_as_the_dns_says_within_limits() {
        let dns = TableDns::default()
            .mx("a.test.", &[(5, "mx.test")])
            .v4("mx.test.", &["52.0.0.1"])
            .mx("short.test.", &[(5, "short.mx.test")])
            .v4("short.mx.test.", &["52.0.0.1"])
            .lives("A", "short.mx.test.", 3)
            .v4("long.test.", &["52.0.0.1"])
            .lives("A", "long.test.", 86_400)
            .fails("MX", "long.test.", NoAnswer::NoSuchRecord { ttl: Some(Duration::from_secs(86_400)) })
            .fails("MX", "gone.test.", NoAnswer::NoSuchName { ttl: Some(Duration::from_secs(86_400)) })
            .fails("MX", "quick.test.", NoAnswer::NoSuchName { ttl: Some(Duration::from_secs(1)) })
            .fails("MX", "slow.test.", NoAnswer::TimedOut);
        let (_, _, router) = router(dns);
        for (name, valid) in [
            ("a.test", 300),
            ("short.test", 60),
            ("long.test", 3600),
            ("gone.test", 900),
            ("quick.test", 60),
            ("slow.test", 45),
        ] {
            assert_eq!(secs(&router.resolve(&domain(name)).await), valid, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_valid_answer_is_not_asked_for_again_and_an_old_one_is() {
        let (dns, clock, router) = router(TableDns::default().v4("a.test.", &["52.0.0.1"]));
        let first = router.resolve(&domain("a.test")).await;
        clock.sleep_until(valid_until(&first) - Duration::from_millis(1)).await;
        assert_eq!(router.resolve(&domain("a.test")).await, first);
        assert_eq!(dns.asked.lock().unwrap().len(), 2);
        clock.sleep_until(valid_until(&first)).await;
        router.resolve(&domain("a.test")).await.unwrap();
        assert_eq!(dns.asked.lock().unwrap().len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_remembered_shortly_and_then_mended() {
        let dns = TableDns::default().v4("a.test.", &["52.0.0.1"]).fails("MX", "a.test.", NoAnswer::ServerFailure);
        let (dns, clock, router) = router(dns);
        let failed = router.resolve(&domain("a.test")).await;
        assert!(failed.as_ref().is_err_and(|unroutable| !unroutable.permanent));
        dns.mend("MX", "a.test.");
        assert_eq!(router.resolve(&domain("a.test")).await, failed);
        clock.sleep_until(valid_until(&failed)).await;
        assert!(router.resolve(&domain("a.test")).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn equal_questions_are_asked_once() {
        let (dns, _, router) = router(TableDns::default().v4("a.test.", &["52.0.0.1"]).gated());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let router = router.clone();
            tasks.spawn(async move { router.resolve(&domain("a.test")).await });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*dns.asked.lock().unwrap(), ["MX a.test."]);
        dns.gate.as_ref().unwrap().add_permits(2);
        while let Some(outcome) = tasks.join_next().await {
            assert!(outcome.unwrap().is_ok());
        }
        assert_eq!(*dns.asked.lock().unwrap(), ["MX a.test.", "A a.test."]);
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_one_who_asked_is_gone_another_asks_on() {
        let (dns, _, router) = router(TableDns::default().v4("a.test.", &["52.0.0.1"]).gated());
        let (a, name) = (router.clone(), domain("a.test"));
        let first = tokio::time::timeout(Duration::from_secs(1), a.resolve(&name));
        let second = tokio::time::timeout(Duration::from_secs(9), router.resolve(&name));
        let later = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            dns.gate.as_ref().unwrap().add_permits(2);
        };
        let (first, second, ()) = tokio::join!(first, second, later);
        assert!(first.is_err());
        assert!(second.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn questions_under_way_are_bounded() {
        let (dns, _, router) = router(TableDns::default().gated());
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..QUESTIONS_MAX * 2 {
            let router = router.clone();
            tasks.spawn(async move { router.resolve(&domain(&format!("d{n}.test"))).await });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(dns.asked.lock().unwrap().len(), QUESTIONS_MAX);
        dns.gate.as_ref().unwrap().add_permits(QUESTIONS_MAX * 2);
        assert_eq!(tasks.join_all().await.len(), QUESTIONS_MAX * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_forgotten_is_asked_for_again() {
        let dns = TableDns::default().mx("a.test.", &[(5, "mx.test")]).v4("mx.test.", &["52.0.0.1"]);
        let (dns, _, router) = router(dns);
        router.resolve(&domain("a.test")).await.unwrap();
        router.forget(&domain("a.test"));
        assert_eq!(*dns.forgotten.lock().unwrap(), ["a.test", "mx.test"]);
        router.resolve(&domain("a.test")).await.unwrap();
        assert_eq!(dns.asked.lock().unwrap().len(), 4);
    }

    #[test]
    fn what_a_clock_that_was_ahead_has_learned_does_not_hold_for_as_long() {
        let (mut known, name) = (Known::default(), domain("a.test"));
        let ahead = START + Duration::from_secs(86_400);
        let outcome =
            Err(Unroutable { permanent: true, status: "5.1.2", text: String::new(), valid_until: ahead + VALID_MIN });
        known.slot(&name, ahead).set(outcome).unwrap();
        assert!(known.slot(&name, ahead).get().is_some());
        assert!(known.slot(&name, START).get().is_none(), "asked again");
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_is_asked_for() {
        let mut known = Known::default();
        let often = domain("often.test");
        let outcome =
            Err(Unroutable { permanent: true, status: "5.1.2", text: String::new(), valid_until: START + VALID_MAX });
        known.slot(&often, START).set(outcome).unwrap();
        for n in 0..DOMAINS_MAX * 2 {
            known.slot(&domain(&format!("d{n}.test")), START);
            if n % 1000 == 0 {
                assert!(known.slot(&often, START).get().is_some(), "{n}");
            }
        }
        assert!(known.young.len() + known.old.len() <= DOMAINS_MAX);
    }
}
