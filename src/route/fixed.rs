//! Fixed routes: the `[[route]]` entries, read once.
//!
//! An entry for the very domain comes first, then `*`; one for a provider counts for what neither takes, once the MX hosts
//! have said whose mail it is. What the operator wrote is trusted: its addresses need no entry
//! in `[delivery] networks`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::login::{Access, Accesses};
use super::options::RouteEntry;
use super::provider::ProviderTable;
use crate::types::{AddressError, Domain, HopHost, NextHop};

/// A `[[route]]` entry that makes no sense; `entry` counts from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FixedRouteError {
    #[error("[[route]] number {entry}: `{domain}` is neither a domain nor \"*\": {cause}")]
    Domain { entry: usize, domain: String, cause: AddressError },
    #[error(
        "[[route]] number {entry}: `{to}` is no next hop: write \"HOST:PORT\", \"192.0.2.1:25\" or \"[2001:db8::1]:25\""
    )]
    Hop { entry: usize, to: String },
    #[error("[[route]] number {entry}: there is a route for `{domain}` already: keep one of them")]
    Twice { entry: usize, domain: String },
    #[error("[[route]] number {entry}: write either `domain` or `provider`")]
    Matches { entry: usize },
}

/// All fixed routes.
#[derive(Clone, Debug, Default)]
pub struct FixedRoutes {
    domains: BTreeMap<Domain, Hop>,
    providers: BTreeMap<Arc<str>, Hop>,
    all: Option<Hop>,
    /// In the order of the configuration.
    hops: Vec<Hop>,
}

/// A next hop instead of MX hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub target: Target,
    pub port: u16,
    /// The provider whose limits hold there, if the entry names one.
    limits: Option<Arc<str>>,
    /// Its name where no profile decides.
    own: Arc<str>,
    /// The profile that lists the domain decides where no limits are named.
    by_domain: bool,
    access: Option<Arc<Access>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Address(IpAddr),
    /// Looked up by its addresses, with hosts file and search list; lower case.
    Name(Arc<str>),
}

impl FixedRoutes {
    /// `port` is taken where an entry names none, `accesses` are those of the same entries. What is not enabled does not count.
    pub fn new(entries: &[RouteEntry], port: u16, accesses: &Accesses) -> Result<FixedRoutes, FixedRouteError> {
        let hops: Vec<(Target, u16)> = entries
            .iter()
            .enumerate()
            .map(|(entry, e)| read_hop(&e.to, port).ok_or_else(|| FixedRouteError::Hop { entry, to: e.to.clone() }))
            .collect::<Result<_, _>>()?;
        let standing: Vec<(Target, u16)> =
            entries.iter().zip(&hops).filter(|(route, _)| route.enabled).map(|(_, hop)| hop.clone()).collect();
        let mut routes = FixedRoutes::default();
        for (entry, (RouteEntry { domain, provider, limits, .. }, (target, port))) in
            entries.iter().zip(&hops).enumerate().filter(|(_, (route, _))| route.enabled)
        {
            let limits = (!limits.is_empty()).then(|| Arc::from(limits.as_str()));
            if domain.is_empty() == provider.is_empty() {
                return Err(FixedRouteError::Matches { entry });
            }
            let (own, by_domain) = (own_name(target, *port, &standing), provider.is_empty());
            let access = accesses.of(entry);
            let hop = Hop { own, target: target.clone(), port: *port, limits, by_domain, access };
            routes.hops.push(hop.clone());
            let before = if !by_domain {
                routes.providers.insert(provider.as_str().into(), hop)
            } else if domain == "*" {
                routes.all.replace(hop)
            } else {
                let cause = |cause| FixedRouteError::Domain { entry, domain: domain.clone(), cause };
                routes.domains.insert(Domain::parse(domain).map_err(cause)?, hop)
            };
            if before.is_some() {
                let domain = if by_domain { domain } else { provider };
                return Err(FixedRouteError::Twice { entry, domain: domain.clone() });
            }
        }
        Ok(routes)
    }

    pub fn hop(&self, domain: &Domain) -> Option<&Hop> {
        self.domains.get(domain).or(self.all.as_ref())
    }

    /// The hop of an operator's order for mail of `domain`. One that is a hop of the configuration is spoken to as that one: by the
    /// entry for the domain where it leads there, else by the first that does.
    pub fn ordered(&self, domain: &Domain, to: &NextHop) -> Hop {
        let hop = Hop::ordered(to);
        let configured = self.hop(domain).into_iter().chain(&self.hops).find(|known| known.is_at(&hop));
        let access = configured.and_then(Hop::access);
        Hop { access, ..hop }
    }

    /// Where all mail goes that the MX hosts would bring to `provider`.
    pub fn hop_of_provider(&self, provider: &str) -> Option<&Hop> {
        self.providers.get(provider)
    }
}

impl Hop {
    /// The hop of an operator's order: a receiver of its own, whatever the domain, so that mail leaves a blocked lane.
    pub fn ordered(to: &NextHop) -> Hop {
        let target = match to.host() {
            HopHost::Address(address) => Target::Address(*address),
            HopHost::Name(name) => Target::Name(name.clone()),
        };
        Hop { target, port: to.port(), limits: None, own: to.to_string().into(), by_domain: false, access: None }
    }

    pub fn access(&self) -> Option<Arc<Access>> {
        self.access.clone()
    }

    fn is_at(&self, other: &Hop) -> bool {
        (&self.target, self.port) == (&other.target, other.port)
    }

    pub fn names_limits(&self) -> bool {
        self.limits.is_some()
    }

    /// The provider whose limits hold for mail of `domain` at this hop.
    pub fn provider(&self, domain: &Domain, providers: &ProviderTable) -> Arc<str> {
        let listed = || if self.by_domain { providers.by_domain(domain) } else { None };
        let named = self.limits.clone().or_else(listed);
        named.unwrap_or_else(|| providers.own(&self.own))
    }

    /// As a host is called: the name, or the address as a literal.
    pub fn host_name(&self) -> Arc<str> {
        match &self.target {
            Target::Address(address) => Domain::literal_of(*address).as_str().into(),
            Target::Name(name) => name.clone(),
        }
    }
}

/// Two hops on one address are two receivers; a host name with one port is called by its name alone.
fn own_name(target: &Target, port: u16, hops: &[(Target, u16)]) -> Arc<str> {
    match target {
        Target::Address(address) => SocketAddr::new(*address, port).to_string().into(),
        Target::Name(name) if hops.iter().all(|(other, p)| other != target || *p == port) => name.clone(),
        Target::Name(name) => format!("{name}:{port}").into(),
    }
}

fn read_hop(text: &str, port: u16) -> Option<(Target, u16)> {
    let text = text.trim();
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return (socket.port() != 0).then(|| (Target::Address(socket.ip()), socket.port()));
    }
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Some((Target::Address(address), port));
    }
    if bare != text && bare.parse::<Ipv6Addr>().is_err() {
        return None;
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, digits)) => (name, digits.parse().ok().filter(|&p: &u16| p != 0)?),
        None => (text, port),
    };
    let name = Domain::parse(name).ok().filter(|name| name.literal().is_none())?;
    Some((Target::Name(name.as_str().into()), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(domain: &str, to: &str, limits: &str) -> RouteEntry {
        RouteEntry { domain: domain.into(), to: to.into(), limits: limits.into(), ..RouteEntry::default() }
    }

    fn none() -> Accesses {
        Accesses::unread(&[])
    }

    #[test]
    fn reads_every_form_of_a_next_hop() {
        let address = |text: &str, port| Some((Target::Address(text.parse().unwrap()), port));
        let name = |text: &str, port| Some((Target::Name(text.into()), port));
        for (text, hop) in [
            ("127.0.0.1:2600", address("127.0.0.1", 2600)),
            ("192.0.2.1", address("192.0.2.1", 25)),
            ("[192.0.2.1]", address("192.0.2.1", 25)),
            ("[2001:db8::1]:587", address("2001:db8::1", 587)),
            ("[2001:db8::1]", address("2001:db8::1", 25)),
            ("2001:db8::1", address("2001:db8::1", 25)),
            ("Smart.Example.test:587", name("smart.example.test", 587)),
            ("mailhog:1025", name("mailhog", 1025)),
            ("mailhog", name("mailhog", 25)),
            ("", None),
            (":25", None),
            ("host:", None),
            ("host:0", None),
            ("127.0.0.1:0", None),
            ("host:70000", None),
            ("host:25:26", None),
            ("[host]:25", None),
            ("ho st:25", None),
            ("192.0.2.300:25", None),
        ] {
            assert_eq!(read_hop(text, 25), hop, "{text}");
        }
    }

    #[test]
    fn the_very_domain_comes_before_the_star() {
        let routes =
            FixedRoutes::new(&[entry("*", "10.0.0.1", ""), entry("A.test", "10.0.0.2", "")], 25, &none()).unwrap();
        let target = |domain: &str| routes.hop(&Domain::parse(domain).unwrap()).map(|hop| hop.target.clone());
        assert_eq!(target("a.test"), Some(Target::Address("10.0.0.2".parse().unwrap())));
        assert_eq!(target("b.a.test"), Some(Target::Address("10.0.0.1".parse().unwrap())));
        assert_eq!(target("[192.0.2.1]"), Some(Target::Address("10.0.0.1".parse().unwrap())));
    }

    #[test]
    fn faults_name_the_entry_and_what_to_do() {
        let fault = |entries: &[RouteEntry]| FixedRoutes::new(entries, 25, &none()).unwrap_err().to_string();
        assert!(fault(&[entry("a b", "x:1", "")]).contains("number 0: `a b` is neither a domain"));
        assert!(
            fault(&[entry("a.test", "x:1", ""), entry("b.test", "x:y", "")]).contains("number 1: `x:y` is no next hop")
        );
        assert!(fault(&[entry("a.test", "x:1", ""), entry("A.test", "y:1", "")]).contains("already"));
        assert!(fault(&[entry("*", "x:1", ""), entry("*", "y:1", "")]).contains("already"));
    }

    #[test]
    fn a_route_for_a_provider_is_a_receiver_of_its_own_unless_it_names_limits() {
        let domains = ["outlook.com".to_string()];
        let providers = ProviderTable::new([("outlook", &[][..], &domains[..])]);
        let entry = |limits: &str| RouteEntry { provider: "outlook".into(), ..entry("", "10.0.0.1:2600", limits) };
        let domain = Domain::parse("outlook.com").unwrap();
        for (limits, provider) in [("", "10.0.0.1:2600"), ("gmail", "gmail")] {
            let routes = FixedRoutes::new(&[entry(limits)], 25, &none()).unwrap();
            assert!(routes.hop(&domain).is_none() && routes.hop_of_provider("gmail").is_none());
            assert_eq!(&*routes.hop_of_provider("outlook").unwrap().provider(&domain, &providers), provider);
        }
        assert!(FixedRoutes::new(&[entry(""), entry("")], 25, &none()).unwrap_err().to_string().contains("already"));
        let both = RouteEntry { domain: "a.test".into(), ..entry("") };
        assert!(FixedRoutes::new(&[both], 25, &none()).unwrap_err().to_string().contains("either"));
    }

    #[test]
    fn the_provider_is_the_named_one_then_the_domains_then_the_hops_own() {
        let hotmail = ["hotmail.com".to_string()];
        let providers = ProviderTable::new([("outlook", &[][..], &hotmail[..])]);
        let entries = [
            entry("*", "127.0.0.1:2600", ""),
            entry("b.test", "127.0.0.1:2601", ""),
            entry("c.test", "smart.test:587", "outlook"),
            entry("d.test", "smart.test:587", ""),
            entry("e.test", "twice.test:25", ""),
            entry("f.test", "twice.test:26", ""),
        ];
        let routes = FixedRoutes::new(&entries, 25, &none()).unwrap();
        for (domain, provider) in [
            ("a.test", "127.0.0.1:2600"),
            ("hotmail.com", "outlook"),
            ("b.test", "127.0.0.1:2601"),
            ("c.test", "outlook"),
            ("d.test", "smart.test"),
            ("e.test", "twice.test:25"),
            ("f.test", "twice.test:26"),
        ] {
            let domain = Domain::parse(domain).unwrap();
            assert_eq!(&*routes.hop(&domain).unwrap().provider(&domain, &providers), provider, "{domain}");
        }
    }

    #[test]
    fn a_route_that_is_not_enabled_is_as_if_it_did_not_stand_there() {
        let off = RouteEntry { enabled: false, ..entry("a.test", "smart.test:25", "") };
        let routes = FixedRoutes::new(&[off, entry("a.test", "smart.test:587", "")], 25, &none()).unwrap();
        let hop = routes.hop(&Domain::parse("a.test").unwrap()).unwrap();
        assert_eq!((hop.port, &*hop.own), (587, "smart.test"), "its lane is called as if there were no other");
    }

    #[test]
    fn an_order_to_a_hop_of_the_configuration_uses_its_login() {
        let with = |domain: &str, username: &str| RouteEntry {
            username: username.into(),
            password: crate::types::Secret::new("x"),
            ..entry(domain, "smart.test:587", "")
        };
        let entries = [with("a.test", "first"), with("b.test", "second"), with("*", "third")];
        let accesses = Accesses::load(&entries).unwrap();
        let routes = FixedRoutes::new(&entries, 25, &accesses).unwrap();
        let user = |domain: &str, to: &str| {
            let hop = routes.ordered(&Domain::parse(domain).unwrap(), &to.parse().unwrap());
            hop.access().and_then(|access| access.login.clone()).map(|login| login.username.clone())
        };
        assert_eq!(user("b.test", "Smart.test:587").as_deref(), Some("second"));
        assert_eq!(user("c.test", "smart.test:587").as_deref(), Some("third"));
        assert_eq!(user("c.test", "smart.test:25"), None);
        let routes = FixedRoutes::new(&entries[..2], 25, &accesses).unwrap();
        let hop = routes.ordered(&Domain::parse("c.test").unwrap(), &"smart.test:587".parse().unwrap());
        assert_eq!(hop.access().and_then(|access| access.login.clone()).unwrap().username, "first");
    }
}
