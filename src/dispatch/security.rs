//! What a connection has to be before a domain's mail goes over it.
//!
//! Rules that always hold:
//! - a delivery starts only on a connection that is what its own domain asks for now, whoever opened it and whenever;
//! - an entry of `[[route]]` that says how its hop is spoken to is obeyed there; nothing weakens it;
//! - a log-in that is refused is about us: no message is returned for it and no recipient listed. The line waits, somebody is told,
//!   and it is tried again by the schedule of the queue and when the configuration is read again.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::core::Core;
use super::destination::TargetId;
use super::pump::Connection;
use crate::outbound::options::{HopTls, TlsMode};
use crate::outbound::{OpenError, Security};
use crate::route::order::Candidate;
use crate::route::{Host, Route};
use crate::types::{Alert, Login, Timestamp};

const LOGIN: &str = "login ";

fn login_key(host: &str, port: u16) -> String {
    format!("{LOGIN}{host}:{port}")
}

/// What is asked of a connection, and who asks for its TLS.
struct Asked<'a> {
    tls: TlsMode,
    implicit: bool,
    login: Option<&'a Arc<Login>>,
    by: By<'a>,
}

enum By<'a> {
    Delivery,
    Provider,
    Policy(&'a str),
    Route(&'a str),
}

impl Core {
    /// What the mail of `route` asks of a connection to `candidate`.
    pub(super) fn security(&self, route: &Route, candidate: &Candidate) -> Security {
        let Asked { tls, implicit, login, by } = self.asked(route, candidate);
        let asked_by = match by {
            By::Delivery => "delivery.tls".into(),
            By::Provider => format!("`tls` of provider {}", candidate.provider).into(),
            By::Policy(named) => format!("the {named}").into(),
            By::Route(named) => format!("`tls` of the {named}").into(),
        };
        Security { tls, implicit, login: login.cloned(), sts: route.sts, asked_by }
    }

    /// The strongest name wins: the policy of the recipients' domain, then the provider, then `[delivery]`. Where a `[[route]]` says how
    /// its hop is spoken to, that holds, and a policy can only ask for more.
    fn asked<'a>(&self, route: &'a Route, candidate: &Candidate) -> Asked<'a> {
        let access = route.access.as_deref();
        let login = access.and_then(|access| access.login.as_ref());
        let policy = route.demand.as_ref().map(|demand| (demand.tls, By::Policy(&demand.named)));
        if let Some((hop, named)) = access.and_then(|access| Some((access.tls?, &access.named))) {
            let own = (hop.mode(), By::Route(named));
            let (tls, by) = policy.filter(|(tls, _)| *tls > own.0).unwrap_or(own);
            return Asked { tls, implicit: hop == HopTls::Implicit, login, by };
        }
        let of_provider = || self.throttle.profile(&candidate.provider).tls.map(|tls| (tls, By::Provider));
        let (tls, by) = policy.or_else(of_provider).unwrap_or((self.tls, By::Delivery));
        Asked { tls, implicit: false, login, by }
    }

    /// Is the connection what its target's mail asks for now?
    pub(super) fn is_secure(&self, held: &Connection) -> bool {
        let Some(place) = self.places.targets.get(held.target) else { return false };
        let Asked { tls, implicit, login, .. } = self.asked(&place.route, &held.candidate);
        let own = &held.security;
        (own.tls, own.implicit, own.login.as_ref()) == (tls, implicit, login)
    }

    /// A host that has asked for TLS gets no mail in clear text any more.
    pub(super) fn required(&self, mut security: Security, host: &Arc<str>) -> Security {
        if security.tls == TlsMode::Opportunistic && self.tls_wanted.contains(host) {
            security.tls = TlsMode::Encrypt;
            security.asked_by = "the host itself".into();
        }
        security
    }

    /// The hop does not let us in: told at once, for no mail goes there until somebody mends it.
    pub(super) fn login_refused(
        &mut self,
        target: TargetId,
        candidate: &Candidate,
        login: &Login,
        error: &OpenError,
        now: Timestamp,
    ) {
        if let Some(place) = self.places.targets.get_mut(target) {
            place.login_refused = true;
        }
        let alert = Alert {
            key: login_key(&candidate.name, candidate.address.port()),
            raised: true,
            text: format!("{}: its mail waits", error.text),
            remedy: format!(
                "Correct {}, then reload weir (SIGHUP); without a reload it is tried again within half an hour.",
                login.set_in
            ),
            provider: Some(candidate.provider.clone()),
        };
        self.raise(alert, now);
    }

    /// We were let in.
    pub(super) fn logged_in(&mut self, target: TargetId, candidate: &Candidate, now: Timestamp) {
        if let Some(place) = self.places.targets.get_mut(target) {
            place.login_refused = false;
        }
        let words = format!("{}: our log-in is taken again,", candidate.name);
        self.over_with(&login_key(&candidate.name, candidate.address.port()), &words, now);
    }

    /// The configuration was read again: what was refused may be right now.
    pub(super) fn log_in_again(&mut self, now: Timestamp) {
        let refused: Vec<TargetId> =
            self.places.targets.iter().filter(|(_, place)| place.login_refused).map(|(id, _)| id).collect();
        for target in refused {
            if let Some(place) = self.places.targets.get_mut(target) {
                place.down_until = None;
                place.failures = 0;
            }
            self.is_reached(target, now);
            self.look_again(target, now);
        }
    }

    /// Alerts about hops that no mail goes to any more are over.
    pub(super) fn watch_logins(&mut self) {
        if !self.raised.iter().any(|key| key.starts_with(LOGIN)) {
            return;
        }
        let refused = self.places.targets.iter().filter(|(_, place)| place.login_refused);
        let hosts = refused.flat_map(|(_, place)| place.route.hosts.iter());
        let key = |host: &Host| host.addresses.first().map(|address| login_key(&host.name, address.port()));
        let standing: BTreeSet<String> = hosts.filter_map(key).collect();
        let gone = |key: &&String| key.starts_with(LOGIN) && !standing.contains(*key);
        let gone: Vec<String> = self.raised.iter().filter(gone).cloned().collect();
        gone.iter().for_each(|key| self.over(key));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::core_tests::{CALM, World};
    use super::super::lane_tests::secs;
    use super::*;
    use crate::route::{Access, Demand};
    use crate::throttle::options::ProviderOptions;
    use crate::types::{Domain, Secret};

    fn demand(tls: TlsMode) -> Demand {
        Demand { tls, named: "[[tls_policy]] for \"a.test\"".into() }
    }

    fn access(tls: Option<HopTls>) -> Arc<Access> {
        let login = Login { username: "app".into(), password: Secret::new("x"), set_in: String::new() };
        Arc::new(Access { tls, login: Some(Arc::new(login)), named: "[[route]] for \"*\"".into() })
    }

    #[test]
    fn the_strongest_name_wins_and_a_policy_never_weakens_a_hop() {
        use TlsMode::{Encrypt, Off, Opportunistic, Verify};
        let candidate =
            Candidate { host: 0, name: "mx".into(), provider: "own".into(), address: "192.0.2.1:25".parse().unwrap() };
        let hop = |tls| Some(access(Some(tls)));
        for (policy, access, provider, expected) in [
            (None, None, None, (Opportunistic, "delivery.tls")),
            (None, None, Some(Encrypt), (Encrypt, "`tls` of provider own")),
            (Some(Verify), None, Some(Encrypt), (Verify, "the [[tls_policy]] for \"a.test\"")),
            (Some(Off), None, Some(Encrypt), (Off, "the [[tls_policy]] for \"a.test\"")),
            (Some(Off), hop(HopTls::Verify), None, (Verify, "`tls` of the [[route]] for \"*\"")),
            (Some(Verify), hop(HopTls::Encrypt), None, (Verify, "the [[tls_policy]] for \"a.test\"")),
            (None, hop(HopTls::Off), Some(Verify), (Off, "`tls` of the [[route]] for \"*\"")),
            (Some(Verify), hop(HopTls::Implicit), None, (Verify, "`tls` of the [[route]] for \"*\"")),
            (None, Some(self::access(None)), Some(Encrypt), (Encrypt, "`tls` of provider own")),
        ] {
            let own = ProviderOptions { name: "own".into(), tls: provider, ..Default::default() };
            let core = World::with(1, CALM, vec![own]).core;
            let has_login = access.is_some();
            let route = Route {
                hosts: Vec::new(),
                valid_until: Timestamp::EPOCH,
                fixed: has_login,
                limits_named: false,
                access,
                demand: policy.map(demand),
                sts: None,
            };
            let security = core.security(&route, &candidate);
            assert_eq!((security.tls, &*security.asked_by), expected);
            assert_eq!(security.login.is_some(), has_login);
        }
    }

    #[test]
    fn what_one_domain_demands_touches_no_neighbour_at_the_same_hosts() {
        let mut world = World::new(71, CALM);
        world.demands.insert(Domain::parse("a.test").unwrap(), demand(TlsMode::Verify));
        for _ in 0..3 {
            world.submit("s@sender.test", &["u@a.test"]);
            world.submit("s@sender.test", &["u@b.test"]);
            world.run_for(secs(60));
        }
        let modes: Vec<TlsMode> = world.plans.iter().map(|plan| plan.security.tls).collect();
        assert!(modes.contains(&TlsMode::Verify) && modes.contains(&TlsMode::Opportunistic), "{modes:?}");
        let target = |domain: &str| {
            let id = world.core.places.domain_id(&Domain::parse(domain).unwrap(), None).unwrap();
            world.core.places.domains.get(id).unwrap().target
        };
        assert!(target("a.test").is_some() && target("a.test") != target("b.test"));
        world.assert_all_ended_once(71);
    }

    #[test]
    fn a_connection_that_is_not_what_is_asked_for_now_carries_nothing_more() {
        let mut world = World::new(72, CALM);
        world.submit("s@sender.test", &["u@b.test"]);
        while world.spool.len() == 1 && world.core.connections.values().all(|held| !held.is_idle()) {
            world.run_for(Duration::from_millis(100));
        }
        world.core.tls = TlsMode::Verify;
        world.submit("s@sender.test", &["v@b.test"]);
        world.run_for(secs(60));
        let modes: Vec<TlsMode> = world.plans.iter().map(|plan| plan.security.tls).collect();
        assert_eq!(modes, [TlsMode::Opportunistic, TlsMode::Verify]);
        world.assert_all_ended_once(72);
    }
}
