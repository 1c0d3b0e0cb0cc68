//! What no single value shows: two settings that do not go together.
//!
//! Every check names the key at which somebody would put it right. A fault is what cannot work or would surely harm; a
//! warning is what works but is seldom meant.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Config;
use super::file::quoted;
use super::finding::{Findings, Place};
use super::schema::nearest_name;
use super::tree::Places;
use crate::outbound::options::IpChoice;
use crate::types::Domain;

/// RFC 5321 section 4.5.3.1.7: messages of this size must be taken.
const MESSAGE_SIZE_MIN: u64 = 64 << 10;
/// RFC 5321 section 4.5.3.1.8: that many recipients must be taken.
const RECIPIENTS_MIN: usize = 100;
/// Below this the event log would be deleted while somebody reads it.
const EVENTS_SIZE_MIN: u64 = 1 << 20;

pub(super) struct Checks<'a> {
    pub(super) config: &'a Config,
    pub(super) places: &'a Places,
    /// Names of shipped providers.
    pub(super) profiles: &'a [String],
    pub(super) findings: &'a mut Findings,
}

impl Checks<'_> {
    pub(super) fn run(mut self) {
        self.hostname();
        self.listeners();
        self.relay();
        self.limits();
        self.queue();
        self.routes();
        self.sources();
        self.providers();
        self.events();
    }

    fn fault(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.fault(self.places.of(path), what, remedy);
    }

    fn warning(&mut self, path: &str, what: impl Into<String>, remedy: impl Into<String>) {
        self.findings.warning(self.places.of(path), what, remedy);
    }

    fn hostname(&mut self) {
        let name = &self.config.hostname;
        if !name.is_empty() && !name.contains('.') {
            let what = format!("`hostname` {} has no dot; many receivers refuse mail after such a HELO", quoted(name));
            self.warning("hostname", what, "write the full name, as in \"relay.example.com\"");
        }
    }

    fn listeners(&mut self) {
        let config = self.config;
        if config.listener.is_empty() {
            self.fault(
                "listener",
                "there is no listener",
                "add a [[listener]] with an address, or leave all of them out",
            );
        }
        for (at, listener) in config.listener.iter().enumerate() {
            let rival = config.listener[..at].iter().find(|other| collide(other.address, listener.address));
            if let Some(rival) = rival {
                let what = format!("listeners {} and {} cannot be there at once", rival.address, listener.address);
                self.fault(&format!("listener.{at}.address"), what, "take one out, or give it another port");
            }
        }
    }

    fn relay(&mut self) {
        for network in &self.config.relay.trusted_networks {
            if network.prefix_len() == 0 {
                let what = format!("`relay.trusted_networks` has {network}: everybody may send through this relay");
                self.warning("relay.trusted_networks", what, "name the networks of your own hosts");
            }
        }
    }

    fn limits(&mut self) {
        let limits = &self.config.limits;
        if limits.message_size.0 == 0 {
            self.fault("limits.message_size", "`limits.message_size` is zero", "write the size of the largest message");
        } else if limits.message_size.0 < MESSAGE_SIZE_MIN {
            let what = format!("`limits.message_size` is {}, smaller than much mail", limits.message_size);
            self.warning("limits.message_size", what, "allow at least \"64 KiB\" (RFC 5321 section 4.5.3.1.7)");
        }
        if limits.recipients < RECIPIENTS_MIN {
            let what = format!("`limits.recipients` is {}", limits.recipients);
            self.warning("limits.recipients", what, "allow at least 100 (RFC 5321 section 4.5.3.1.8)");
        }
    }

    fn queue(&mut self) {
        let queue = &self.config.queue;
        let Some(first) = queue.retry.first() else {
            self.fault("queue.retry", "`queue.retry` is empty", "write at least one wait, as in [\"5m\"]");
            return;
        };
        if queue.expire < *first {
            let what =
                format!("`queue.expire` is {}, shorter than the first wait of `queue.retry`, {first}", queue.expire);
            let path = if self.places.has("queue.expire") { "queue.expire" } else { "queue.retry" };
            self.warning(path, what, "every deferred message expires without a second try; make it longer");
        }
        let bounces = &self.config.bounces;
        if self.places.has("bounces.delay_after") && bounces.delay_after >= queue.expire {
            let what = format!(
                "`bounces.delay_after` is {}, not before `queue.expire`, {}",
                bounces.delay_after, queue.expire
            );
            self.warning("bounces.delay_after", what, "no delay report is ever sent; make it shorter");
        }
    }

    fn routes(&mut self) {
        let config = self.config;
        let mut seen = BTreeMap::new();
        for (at, route) in config.route.iter().enumerate() {
            let domain = Domain::parse(&route.domain).map_or_else(|_| route.domain.clone(), |d| d.to_string());
            if let Some(earlier) = seen.insert(domain, at) {
                let what = format!("a second route for {}", quoted(&route.domain));
                let remedy = self.beside("the first is", &format!("route.{earlier}.domain"), "take one of them out");
                self.fault(&format!("route.{at}.domain"), what, remedy);
            }
            if !route.limits.is_empty() && !self.provider_names().any(|name| name == route.limits) {
                let what = format!("`route.limits` names no provider: {}", quoted(&route.limits));
                let remedy = match nearest_name(&route.limits, self.provider_names()) {
                    Some(name) => format!("the nearest there is is \"{name}\"; or add a [[provider]] of this name"),
                    None => "add a [[provider]] of this name".to_string(),
                };
                self.fault(&format!("route.{at}.limits"), what, remedy);
            }
        }
    }

    fn sources(&mut self) {
        let config = self.config;
        self.unique("source", config.source.iter().map(|source| source.name.to_lowercase()), "name");
        self.unique("source", config.source.iter().map(|source| source.address.to_string()), "address");
        if config.delivery.ip != IpChoice::Ipv4 {
            return;
        }
        for (at, source) in config.source.iter().enumerate().filter(|(_, source)| source.address.is_ipv6()) {
            let path = format!("source.{at}.address");
            let what = format!("source {} is an IPv6 address, and `delivery.ip` is \"ipv4\"", quoted(&source.name));
            let remedy = "set `delivery.ip` to \"prefer-ipv4\" or \"both\", or give the source an IPv4 address";
            if config.source.iter().all(|source| source.address.is_ipv6()) {
                self.fault(&path, format!("{what}: nothing can be delivered"), remedy);
            } else {
                self.warning(&path, format!("{what}: nothing is sent from it"), remedy);
            }
        }
    }

    fn providers(&mut self) {
        let config = self.config;
        self.unique("provider", config.provider.iter().map(|provider| provider.name.to_lowercase()), "name");
        for (at, provider) in config.provider.iter().enumerate() {
            if let (Some(initial), Some(max)) = (provider.initial_connections, provider.max_connections)
                && initial > max
            {
                let what = format!(
                    "`initial_connections` {initial} of provider {} is above its `max_connections` {max}",
                    quoted(&provider.name)
                );
                self.fault(&format!("provider.{at}.initial_connections"), what, format!("write at most {max}"));
            }
            let routed = config.route.iter().any(|route| route.limits == provider.name);
            let matched = provider.mx.is_some() || provider.domains.is_some() || routed;
            if !matched && !self.profiles.contains(&provider.name) {
                let what = format!(
                    "provider {} has neither `mx` nor `domains`: no mail is ever its own",
                    quoted(&provider.name)
                );
                let remedy = match nearest_name(&provider.name, self.profiles.iter().map(String::as_str)) {
                    Some(name) => format!("give it `mx`, or take a shipped name; the nearest is \"{name}\""),
                    None => "give it `mx`".to_string(),
                };
                self.warning(&format!("provider.{at}.name"), what, remedy);
            }
        }
        self.patterns();
    }

    /// Where two providers claim the same hosts, it would be chance who gets them.
    fn patterns(&mut self) {
        let config = self.config;
        let mut seen = BTreeMap::new();
        for (at, provider) in config.provider.iter().enumerate() {
            for pattern in provider.mx.iter().flatten() {
                if let Some(earlier) = seen.insert(pattern.to_lowercase(), at)
                    && earlier != at
                {
                    let what = format!("{} is claimed by two providers", quoted(pattern));
                    let remedy = self.beside("the first is", &format!("provider.{earlier}.mx"), "take it out of one");
                    self.fault(&format!("provider.{at}.mx"), what, remedy);
                }
            }
        }
    }

    fn events(&mut self) {
        let size = self.config.events.max_size;
        if size.0 < EVENTS_SIZE_MIN {
            let what = format!("`events.max_size` is {size}");
            self.fault("events.max_size", what, "allow at least \"1 MiB\"");
        }
    }

    fn provider_names(&self) -> impl Iterator<Item = &str> {
        let own = self.config.provider.iter().map(|provider| provider.name.as_str());
        own.chain(self.profiles.iter().map(String::as_str))
    }

    /// Tells of every element whose `key` an earlier one has already.
    fn unique(&mut self, list: &str, values: impl Iterator<Item = String>, key: &str) {
        let mut seen = BTreeMap::new();
        for (at, value) in values.enumerate() {
            let what = format!("a second {list} with the {key} {}", quoted(&value));
            if let Some(earlier) = seen.insert(value, at) {
                let first = format!("{list}.{earlier}.{key}");
                let remedy = self.beside("the first is", &first, &format!("give it another {key}, or take one out"));
                self.fault(&format!("{list}.{at}.{key}"), what, remedy);
            }
        }
    }

    /// `remedy`, and where the other one stands, if somebody wrote it.
    fn beside(&self, introduction: &str, path: &str, remedy: &str) -> String {
        match self.places.of(path) {
            Place::Nowhere {} => remedy.to_string(),
            place => format!("{remedy} ({introduction} at {place})"),
        }
    }
}

/// Can only one of the two be listened on? Port 0 is a free one each time.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_ip = one.ip() == other.ip();
    let covers = one.is_ipv4() == other.is_ipv4() && (one.ip().is_unspecified() || other.ip().is_unspecified());
    one.port() != 0 && one.port() == other.port() && (same_ip || covers)
}
