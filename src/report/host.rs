//! What a receiver asks about a sender before it lifts a block: address, reverse name, HELO name, SPF and DMARC.
//!
//! Best effort: what cannot be found is said to be so, and why. Each question to the DNS ends in time.

use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;

use crate::config::Config;
use crate::route::dns::{Dns, NoAnswer};
use crate::route::identity::{Identity, local_address_towards};
use crate::route::reachable::is_global;
use crate::types::Domain;

/// Root name server A: certainly on the public Internet. The routing table is asked about it, it hears nothing of that.
const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4));

/// One of our sending addresses.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Address {
    pub(super) source: String,
    /// As the world sees it; none if that is not known.
    pub(super) address: Option<IpAddr>,
    /// How it is known, or why not.
    pub(super) known_by: String,
    pub(super) ptr: Found,
    pub(super) helo: Option<String>,
    pub(super) helo_addresses: Found,
}

/// The authentication of a sender domain as it stands in the DNS.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Authentication {
    pub(super) domain: String,
    /// Attempts of the week.
    pub(super) messages: u64,
    pub(super) spf: Found,
    pub(super) dmarc: Found,
    pub(super) dkim: String,
}

/// Records, or why there are none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Found {
    Records(Vec<String>),
    Missing(String),
    /// Nobody could tell.
    Unknown(String),
}

/// The key of somebody else has a name that only the mail itself tells.
const DKIM: &str = "not signed here: the DKIM-Signature field of the mail names the key";

/// All addresses mail is sent from.
pub(super) async fn addresses(config: &Config, dns: &dyn Dns) -> Vec<Address> {
    let identity = Identity::of_this_host(&config.hostname, dns).await;
    let own = identity.name();
    let mut addresses = Vec::new();
    for source in &config.source {
        let helo = if source.hostname.is_empty() { own } else { Some(source.hostname.as_str()) };
        addresses.push(address(&source.name, source.public_address(), Some(source.address), helo, dns).await);
    }
    if addresses.is_empty() {
        addresses.push(address("default", None, local_address_towards(SOMEWHERE), own, dns).await);
    }
    addresses
}

async fn address(
    source: &str,
    set: Option<IpAddr>,
    local: Option<IpAddr>,
    helo: Option<&str>,
    dns: &dyn Dns,
) -> Address {
    let helo_addresses = match helo {
        Some(helo) => resolved(helo, dns).await,
        None => Found::Missing("no public name is known: set `hostname`".to_string()),
    };
    let (address, known_by) = public(set, local, &helo_addresses);
    let ptr = match address {
        Some(address) => found(dns.ptr(address).await.map(|names| names.records)),
        None => Found::Missing("the address is not known".to_string()),
    };
    Address { source: source.to_string(), address, known_by, ptr, helo: helo.map(str::to_string), helo_addresses }
}

/// The address the world sees: the one that was set, else our own if it is public, else the one that our name leads to.
fn public(set: Option<IpAddr>, local: Option<IpAddr>, helo_addresses: &Found) -> (Option<IpAddr>, String) {
    if set.is_some() {
        return (set, "set as `public` of the source".to_string());
    }
    if let Some(address) = local.filter(|address| is_global(*address)) {
        return (Some(address), "address of this host".to_string());
    }
    let named = match helo_addresses {
        Found::Records(records) => records.iter().find_map(|record| record.parse().ok()),
        Found::Missing(_) | Found::Unknown(_) => None,
    };
    let local = local.map_or("no route to the Internet".to_string(), |local| format!("{local} is not public"));
    match named.filter(|address| is_global(*address)) {
        Some(address) => (Some(address), format!("address of the HELO name; {local}")),
        None => (None, format!("{local}: fill in the address the world sees")),
    }
}

async fn resolved(name: &str, dns: &dyn Dns) -> Found {
    let absolute = format!("{name}.");
    let (v4, v6) = tokio::join!(dns.v4(&absolute), dns.v6(&absolute));
    let mut addresses: Vec<String> = Vec::new();
    addresses.extend(v4.iter().flat_map(|found| found.records.iter().map(ToString::to_string)));
    addresses.extend(v6.iter().flat_map(|found| found.records.iter().map(ToString::to_string)));
    match v4 {
        Err(why) if addresses.is_empty() => Found::nothing(&why),
        _ => Found::Records(addresses),
    }
}

/// The keys that weir signs mail of this domain with.
fn keys(domain: &str, config: &Config) -> Option<String> {
    let domain = Domain::parse(domain).ok()?;
    let above = |name: &str| Domain::parse(name).ok().filter(|above| domain.is_within(above.as_str()));
    let fitting = config.dkim.iter().filter_map(|entry| Some((above(&entry.domain)?.as_str().len(), entry.name())));
    let longest = fitting.clone().map(|(length, _)| length).max()?;
    let names: Vec<String> = fitting.filter(|(length, _)| *length == longest).map(|(_, name)| name).collect();
    Some(format!("signed here with {} (`weir dkim check` compares it with the DNS)", names.join(", ")))
}

/// SPF and DMARC of the domains, as they stand in the DNS, and who signs.
pub(super) async fn authentication(domains: &[(&str, u64)], config: &Config, dns: &dyn Dns) -> Vec<Authentication> {
    let mut found: Vec<Authentication> = Vec::new();
    for &(domain, messages) in domains {
        // Nobody waits five times for name servers that do not answer.
        let silent = found
            .last()
            .is_some_and(|before| matches!((&before.spf, &before.dmarc), (Found::Unknown(_), Found::Unknown(_))));
        let (spf, dmarc) = if silent {
            let not_asked = || Found::Unknown("not asked: the name servers do not answer".to_string());
            (not_asked(), not_asked())
        } else {
            tokio::join!(policy(domain, "v=spf1", dns), dmarc(domain, dns))
        };
        let dkim = keys(domain, config).unwrap_or_else(|| DKIM.to_string());
        found.push(Authentication { domain: domain.to_string(), messages, spf, dmarc, dkim });
    }
    found
}

/// A domain without a record of its own is under that of the next one above (RFC 7489 section 6.6.3).
async fn dmarc(domain: &str, dns: &dyn Dns) -> Found {
    let mut answer = Found::Missing("no such record".to_string());
    for parent in parents(domain) {
        answer = policy(&format!("_dmarc.{parent}"), "v=DMARC1", dns).await;
        if !matches!(answer, Found::Missing(_)) {
            break;
        }
    }
    answer
}

/// The domain itself and those above it, down to two labels; eight at most.
fn parents<'d>(domain: &'d str) -> impl Iterator<Item = &'d str> {
    let above = |&name: &&'d str| name.split_once('.').map(|(_, parent)| parent);
    let names = std::iter::successors(Some(domain), above).enumerate();
    names.filter(|(at, name)| *at == 0 || name.contains('.')).map(|(_, name)| name).take(8)
}

async fn policy(name: &str, version: &str, dns: &dyn Dns) -> Found {
    match dns.txt(&format!("{name}.")).await {
        Ok(mut found) => {
            found.records.retain(|text| text.get(..version.len()).is_some_and(|v| v.eq_ignore_ascii_case(version)));
            if found.records.is_empty() {
                return Found::Missing("no such record".to_string());
            }
            Found::Records(found.records)
        }
        Err(why) => Found::nothing(&why),
    }
}

fn found(answer: Result<Vec<String>, NoAnswer>) -> Found {
    match answer {
        Ok(records) => Found::Records(records),
        Err(why) => Found::nothing(&why),
    }
}

impl Found {
    fn nothing(why: &NoAnswer) -> Found {
        if why.is_temporary() { Found::Unknown(why.to_string()) } else { Found::Missing(why.to_string()) }
    }
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Found::Records(records) => f.write_str(&records.join(", ")),
            Found::Missing(why) => write!(f, "not found ({why})"),
            Found::Unknown(why) => write!(f, "not known ({why})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_sign_a_domain_are_named() {
        let mut config = Config::default();
        for (domain, selector) in [("example.com", "a"), ("news.example.com", "n"), ("news.example.com", "m")] {
            config.dkim.push(Default::default());
            let entry = config.dkim.last_mut().unwrap();
            (entry.domain, entry.selector) = (domain.into(), selector.into());
        }
        let named = |domain: &str| keys(domain, &config).unwrap_or_default();
        assert!(named("shop.example.com").starts_with("signed here with a._domainkey.example.com ("));
        assert!(
            named("news.example.com").contains("with n._domainkey.news.example.com, m._domainkey.news.example.com")
        );
        assert_eq!(named("fexample.com"), "");
    }

    #[test]
    fn the_address_the_world_sees_is_ours_or_that_of_our_name() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let records = |text: &str| Found::Records(vec![text.to_string()]);
        let none = Found::Missing("x".to_string());
        assert_eq!(public(None, Some(ip("52.0.0.7")), &none).0, Some(ip("52.0.0.7")));
        let (address, known_by) = public(None, Some(ip("10.0.0.5")), &records("52.0.0.7"));
        assert_eq!((address, known_by.contains("10.0.0.5 is not public")), (Some(ip("52.0.0.7")), true));
        assert_eq!(public(None, Some(ip("10.0.0.5")), &records("192.168.0.1")).0, None);
        assert_eq!(public(None, None, &none).0, None);
        let (address, known_by) = public(Some(ip("52.0.0.8")), Some(ip("52.0.0.7")), &records("52.0.0.9"));
        assert_eq!((address, known_by.contains("`public`")), (Some(ip("52.0.0.8")), true));
    }

    #[test]
    fn the_domains_above_are_asked_but_no_top_level() {
        assert_eq!(parents("a.b.example.com").collect::<Vec<_>>(), ["a.b.example.com", "b.example.com", "example.com"]);
        assert_eq!(parents("localhost").collect::<Vec<_>>(), ["localhost"]);
    }
}
