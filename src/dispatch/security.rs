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

impl Core {
    /// What the mail of `route` asks of a connection to `candidate`.
    pub(super) fn security(&self, route: &Route, _candidate: &Candidate) -> Security {
        let general = Security { tls: self.tls, implicit: false, login: None, asked_by: "delivery.tls".into() };
        let Some(access) = &route.access else { return general };
        let asked_by = format!("the {}", access.named).into();
        match access.tls {
            Some(tls) => {
                Security { tls: tls.mode(), implicit: tls == HopTls::Implicit, login: access.login.clone(), asked_by }
            }
            None => Security { login: access.login.clone(), ..general },
        }
    }

    /// Is the connection what its target's mail asks for now?
    pub(super) fn is_secure(&self, held: &Connection) -> bool {
        let route = self.places.targets.get(held.target).map(|place| place.route.clone());
        route.is_some_and(|route| held.security.serves(&self.security(&route, &held.candidate)))
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
