//! Which of the hosts and addresses found may take the mail.
//!
//! Pure: what the DNS said goes in, a route or the reason for none comes out. Rules that always hold:
//! - a route has at least one host, each host at least one address, and all of them may be delivered to;
//! - no host at or behind our own preference is left (RFC 5321 section 5.1);
//! - nothing is final while a host before the end of the list could not be looked up.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::dns::{Mx, NoAnswer, Records};
use super::provider::ProviderTable;
use super::reachable::{Reachable, Standing};
use super::{Access, Host};
use crate::outbound::options::IpChoice;
use crate::types::Domain;

/// MX hosts used of one domain, the most preferred ones; some publish a hundred to do harm.
pub(super) const HOSTS_MAX: usize = 20;
/// Addresses used of one domain in all.
pub(super) const ADDRESSES_MAX: usize = 100;
/// How long a route that needed no DNS holds; it never changes without a new configuration.
pub(super) const STANDING_TTL: Duration = Duration::from_secs(3600);
/// A temporary failure is remembered so long: it spares the name servers, and mail waits longer anyway.
pub(super) const FAILURE_KEPT: Duration = Duration::from_secs(45);
/// Hosts or addresses that a text for people names.
const NAMED_MAX: usize = 4;
/// Characters of a name that is none.
const NAME_SHOWN_MAX: usize = 64;

/// The rules of the choice.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    pub providers: &'a ProviderTable,
    pub reachable: &'a Reachable,
}

impl Choice<'_> {
    /// Loops out, addresses that may not be used out, the rest in order. `found` belongs to `mx.list`, one by one.
    pub(super) fn of_hosts(
        &self,
        domain: &Domain,
        mut mx: Exchangers,
        mut found: Vec<Addresses>,
    ) -> Result<Found, Fault> {
        let providers = self.providers.of_hosts(&mx.list.iter().map(|mx| &*mx.exchange).collect::<Vec<_>>());
        let looped = self.cut_loop(&mut mx, &mut found);
        let mut tally = Tally { mx_ttl: mx.ttl, ..Tally::default() };
        for ((mx, addresses), provider) in mx.list.iter().zip(found).zip(providers) {
            if let Some(trouble) = &addresses.trouble {
                tally.troubles.push(format!("look up the addresses of {}: {trouble}", mx.exchange));
            }
            let room = ADDRESSES_MAX - tally.addresses;
            let mut usable = self.usable(&mx.exchange, addresses.list, &mut tally.refused);
            usable.truncate(room);
            tally.ttl = tally.ttl.into_iter().chain(addresses.ttl).min();
            if !usable.is_empty() {
                tally.addresses += usable.len();
                tally.hosts.push(Host {
                    name: mx.exchange.as_str().into(),
                    preference: mx.preference,
                    addresses: usable,
                    provider,
                });
            }
        }
        tally.unusable = mx.unusable;
        tally.finish(domain, mx.implicit, looped, self.reachable.ip)
    }

    /// Hosts at and behind our own preference would send the mail back to us: they are dropped. Returns the host that
    /// is ours.
    fn cut_loop(&self, mx: &mut Exchangers, found: &mut Vec<Addresses>) -> Option<(String, IpAddr)> {
        let ours = |addresses: &Addresses| {
            let is_ours = |ip: &&IpAddr| self.standing(**ip) == Standing::Ours;
            addresses.list.iter().find(is_ours).copied()
        };
        let (at, address) = found.iter().enumerate().find_map(|(at, addresses)| Some((at, ours(addresses)?)))?;
        let own = mx.list.get(at)?.clone();
        let kept = mx.list.iter().take_while(|mx| mx.preference < own.preference).count();
        mx.list.truncate(kept);
        found.truncate(kept);
        Some((own.exchange, address))
    }

    fn usable(&self, host: &str, addresses: Vec<IpAddr>, refused: &mut Vec<String>) -> Vec<SocketAddr> {
        let (usable, others): (Vec<IpAddr>, Vec<IpAddr>) =
            addresses.into_iter().partition(|ip| self.standing(*ip) == Standing::Usable);
        refused.extend(others.iter().map(|ip| format!("{ip} ({host})")));
        usable.into_iter().map(|ip| SocketAddr::new(ip, self.reachable.port)).collect()
    }

    fn standing(&self, address: IpAddr) -> Standing {
        self.reachable.standing(SocketAddr::new(address, self.reachable.port))
    }

    /// An address literal needs no DNS, but the same permission.
    pub(super) fn of_literal(&self, domain: &Domain, address: IpAddr) -> Result<Found, Fault> {
        let socket = SocketAddr::new(address, self.reachable.port);
        match self.reachable.standing(socket) {
            Standing::Usable => {
                let name: Arc<str> = domain.as_str().into();
                let provider = self.providers.own(&name);
                let host = Host { name, preference: 0, addresses: vec![socket], provider };
                Ok(Found { hosts: vec![host], ttl: STANDING_TTL, fixed: false, limits_named: false, access: None })
            }
            Standing::Ours => Err(looping(domain, domain.as_str(), address, STANDING_TTL)),
            Standing::NotPublic => Err(not_public(domain, &[address.to_string()], STANDING_TTL)),
        }
    }
}

/// Hosts found, in order, each with addresses.
pub(super) struct Found {
    pub hosts: Vec<Host>,
    pub ttl: Duration,
    pub fixed: bool,
    pub limits_named: bool,
    pub access: Option<Arc<Access>>,
}

/// None found.
pub(super) struct Fault {
    pub permanent: bool,
    pub status: &'static str,
    pub text: String,
    pub ttl: Duration,
}

impl Fault {
    pub(super) fn permanent(status: &'static str, ttl: Duration, text: String) -> Fault {
        Fault { permanent: true, status, text, ttl }
    }

    pub(super) fn temporary(status: &'static str, text: String) -> Fault {
        Fault { permanent: false, status, text, ttl: FAILURE_KEPT }
    }
}

/// The MX hosts of a domain in order, or the domain itself where it has none.
pub(super) struct Exchangers {
    pub list: Vec<Mx>,
    ttl: Duration,
    implicit: bool,
    /// Records that name no host, for the text.
    unusable: Vec<String>,
}

/// What the DNS said about the addresses of one host.
#[derive(Default)]
pub(super) struct Addresses {
    pub list: Vec<IpAddr>,
    pub ttl: Option<Duration>,
    /// What kept it from being complete, if asking again may help.
    pub trouble: Option<NoAnswer>,
}

impl Exchangers {
    /// RFC 5321 section 5.1: without MX records the domain is its own host.
    pub(super) fn implicit(domain: &Domain, ttl: Duration) -> Exchangers {
        let list = vec![Mx { preference: 0, exchange: domain.as_str().to_string() }];
        Exchangers { list, ttl, implicit: true, unusable: Vec::new() }
    }

    pub(super) fn of(records: Records<Mx>) -> Exchangers {
        let mut seen = BTreeSet::new();
        let mut sorted = records.records;
        sorted.sort();
        // A null MX among others says nothing (RFC 7505 section 3); a host given twice counts where it is preferred.
        sorted.retain(|mx| !mx.exchange.is_empty() && seen.insert(mx.exchange.clone()));
        let (mut list, others): (Vec<Mx>, Vec<Mx>) = sorted.into_iter().partition(|mx| is_host_name(&mx.exchange));
        list.truncate(HOSTS_MAX);
        let unusable = others.into_iter().take(HOSTS_MAX).map(|mx| shown(&mx.exchange)).collect();
        Exchangers { list, ttl: records.ttl, implicit: false, unusable }
    }
}

/// Some publish an address where a host name belongs; no name in the DNS ends in digits alone.
fn is_host_name(name: &str) -> bool {
    Domain::parse(name).is_ok_and(|domain| domain.literal().is_none())
}

/// What strangers wrote, fit for a text: no control characters, not long.
fn shown(name: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_debug().collect() } else { c.to_string() };
    name.chars().take(NAME_SHOWN_MAX).map(escaped).collect()
}

impl Addresses {
    /// Adds what the DNS answered for one family.
    pub(super) fn take(&mut self, answer: Result<Records<IpAddr>, NoAnswer>) {
        match answer {
            Ok(records) => {
                for address in records.records {
                    if !self.list.contains(&address) && self.list.len() < ADDRESSES_MAX {
                        self.list.push(address);
                    }
                }
                self.ttl = self.ttl.into_iter().chain([records.ttl]).min();
            }
            Err(trouble) if trouble.is_temporary() => self.trouble = Some(trouble),
            Err(_) => {}
        }
    }
}

/// What the hosts of a domain came to.
#[derive(Default)]
struct Tally {
    hosts: Vec<Host>,
    addresses: usize,
    mx_ttl: Duration,
    ttl: Option<Duration>,
    troubles: Vec<String>,
    refused: Vec<String>,
    unusable: Vec<String>,
}

impl Tally {
    fn finish(
        self,
        domain: &Domain,
        implicit: bool,
        looped: Option<(String, IpAddr)>,
        ip: IpChoice,
    ) -> Result<Found, Fault> {
        let ttl = self.ttl.map_or(self.mx_ttl, |ttl| ttl.min(self.mx_ttl));
        if !self.hosts.is_empty() {
            // A host that could not be looked up is missing: ask again soon.
            let ttl = if self.troubles.is_empty() { ttl } else { ttl.min(FAILURE_KEPT) };
            return Ok(Found { hosts: self.hosts, ttl, fixed: false, limits_named: false, access: None });
        }
        if !self.troubles.is_empty() {
            return Err(Fault::temporary("4.4.3", first_few(&self.troubles, "; ")));
        }
        if let Some((host, address)) = looped {
            return Err(looping(domain, &host, address, ttl));
        }
        if !self.refused.is_empty() {
            return Err(not_public(domain, &self.refused, ttl));
        }
        let family = if ip == IpChoice::Ipv4 { "IPv4 address ([delivery] ip = \"ipv4\")" } else { "address" };
        let text = match (implicit, self.unusable.is_empty()) {
            (true, _) => format!("the domain {domain} has neither an MX host nor an {family}"),
            (false, true) => format!("no MX host of {domain} has an {family}"),
            (false, false) => {
                format!("no MX host of {domain} can be used: {} is no host name", first_few(&self.unusable, ", "))
            }
        };
        Err(Fault::permanent("5.4.4", ttl, text))
    }
}

fn looping(domain: &Domain, host: &str, address: IpAddr, ttl: Duration) -> Fault {
    let text = format!(
        "mail for {domain} would come back here: {host} ({address}) is this host; if another mail server on it takes this \
         mail, add {address} to [delivery] networks or write a [[route]]"
    );
    Fault::permanent("5.4.6", ttl, text)
}

fn not_public(domain: &Domain, addresses: &[String], ttl: Duration) -> Fault {
    let text = format!(
        "mail for {domain} would go to {}, outside the public Internet; if that is meant, add it to [delivery] networks",
        first_few(addresses, ", ")
    );
    Fault::permanent("5.4.4", ttl, text)
}

pub(super) fn first_few(items: &[String], between: &str) -> String {
    let named = items.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(between);
    let more = items.len().saturating_sub(NAMED_MAX);
    if more == 0 { named } else { format!("{named}{between}and {more} more") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::reachable::OwnAddresses;
    use super::*;

    const OURS: &str = "52.0.0.99";
    /// Public, inside the networks, private, documentation, ours.
    const KINDS: [&str; 6] = ["52.0.0.1", "2a01::1", "10.9.0.1", "10.0.0.1", "192.0.2.1", OURS];

    fn reachable() -> Reachable {
        let own = OwnAddresses { listeners: vec![], interfaces: BTreeSet::from([OURS.parse().unwrap()]) };
        let networks = vec!["10.9.0.0/16".parse().unwrap()];
        Reachable { port: 25, ip: IpChoice::Both, networks, own }
    }

    #[test]
    fn a_host_given_twice_counts_where_it_is_preferred() {
        let mx = |preference, exchange: &str| Mx { preference, exchange: exchange.into() };
        let records = vec![mx(20, "a.test"), mx(10, "b.test"), mx(10, "a.test"), mx(0, ""), mx(5, "1.2.3.4")];
        let exchangers = Exchangers::of(Records { records, ttl: Duration::ZERO });
        assert_eq!(exchangers.list, [mx(10, "a.test"), mx(10, "b.test")]);
        assert_eq!(exchangers.unusable, ["1.2.3.4"]);
    }

    #[test]
    fn what_strangers_wrote_is_short_and_without_control_characters_in_a_text() {
        let records: Vec<Mx> =
            (0..10u8).map(|n| Mx { preference: 0, exchange: format!("{}\r\n{}", n, "x".repeat(200)) }).collect();
        let exchangers = Exchangers::of(Records { records, ttl: Duration::ZERO });
        let choice = Choice { providers: &ProviderTable::default(), reachable: &reachable() };
        let fault = choice.of_hosts(&Domain::parse("a.test").unwrap(), exchangers, vec![]).err().unwrap();
        assert!(fault.text.len() < 500 && fault.text.contains("and 6 more"), "{}", fault.text);
        assert!(!fault.text.contains(char::is_control), "{:?}", fault.text);
    }

    proptest! {
        #[test]
        fn a_route_holds_only_what_may_take_the_mail(
            hosts in prop::collection::vec((0u16..4, prop::collection::vec(0..KINDS.len(), 0..4), any::<bool>()), 1..8),
        ) {
            let record = |(n, (preference, ..)): (usize, &(u16, _, _))| Mx { preference: *preference, exchange: format!("mx{n}.test") };
            let records = Records { records: hosts.iter().enumerate().map(record).collect(), ttl: Duration::from_secs(9) };
            let exchangers = Exchangers::of(records);
            let place = |mx: &Mx| mx.exchange[2..3].parse::<usize>().unwrap();
            let found: Vec<Addresses> = exchangers.list.iter().map(|mx| {
                let (_, kinds, troubled) = &hosts[place(mx)];
                let list = kinds.iter().map(|kind| KINDS[*kind].parse().unwrap()).collect();
                Addresses { list, ttl: None, trouble: troubled.then_some(NoAnswer::TimedOut) }
            }).collect();
            let is_ours = |kinds: &[usize]| kinds.iter().any(|kind| KINDS[*kind] == OURS);
            let ours = hosts.iter().filter(|(_, kinds, _)| is_ours(kinds)).map(|(preference, ..)| *preference).min();
            let before_us = |preference: u16| ours.is_none_or(|ours| preference < ours);
            let reachable = reachable();
            let choice = Choice { providers: &ProviderTable::default(), reachable: &reachable };

            match choice.of_hosts(&Domain::parse("a.test").unwrap(), exchangers, found) {
                Ok(found) => {
                    prop_assert!(!found.hosts.is_empty());
                    prop_assert!(found.hosts.is_sorted_by_key(|host| host.preference));
                    for host in &found.hosts {
                        prop_assert!(!host.addresses.is_empty() && before_us(host.preference));
                        prop_assert!(host.addresses.iter().all(|address| reachable.standing(*address) == Standing::Usable));
                    }
                }
                Err(fault) => {
                    let unsure = hosts.iter().any(|(preference, _, troubled)| *troubled && before_us(*preference));
                    prop_assert_eq!(fault.permanent, !unsure);
                    let usable = |kinds: &[usize]| kinds.iter().any(|kind| *kind < 3);
                    prop_assert!(!hosts.iter().any(|(preference, kinds, _)| usable(kinds) && before_us(*preference)));
                }
            }
        }
    }
}
