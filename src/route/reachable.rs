//! Which addresses mail may be delivered to, and which are our own.
//!
//! What stands in the DNS is written by strangers. An MX that points into this host's network would make weir a tool
//! against the neighbours (DNS rebinding), and one that points at weir itself would send mail in circles. So only
//! addresses of the public Internet are used, and those in `[delivery] networks`; those of this host are a loop
//! (RFC 5321 section 5.1) unless they stand there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::identity::interface_addresses;
use crate::outbound::options::{Delivery, IpChoice};
use crate::types::internet::carried_v4;
pub use crate::types::internet::is_global;

/// What may be done with an address that came from the DNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Usable,
    /// It leads back to this host.
    Ours,
    /// Loopback, private, link-local, documentation, multicast …: no receiver of the public Internet has it.
    NotPublic,
}

/// The part of `[delivery]` that says whom mail may go to, and what is known about this host.
#[derive(Clone, Debug)]
pub struct Reachable {
    /// The port of MX hosts.
    pub port: u16,
    pub ip: IpChoice,
    /// `[delivery] networks`.
    pub networks: Vec<IpNet>,
    pub own: OwnAddresses,
}

impl Reachable {
    pub fn new(delivery: &Delivery, own: OwnAddresses) -> Reachable {
        Reachable { port: delivery.port, ip: delivery.ip, networks: delivery.networks.clone(), own }
    }

    pub fn standing(&self, address: SocketAddr) -> Standing {
        if self.own.listens_at(address) {
            Standing::Ours
        } else if self.is_inside(address.ip()) {
            Standing::Usable
        } else if self.own.is_of_this_host(address.ip()) {
            Standing::Ours
        } else if is_global(address.ip()) {
            Standing::Usable
        } else {
            Standing::NotPublic
        }
    }

    /// Is the address in `[delivery] networks`?
    pub fn is_inside(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// Where mail would come back to us.
#[derive(Clone, Debug, Default)]
pub struct OwnAddresses {
    /// Of the running listeners, with their real ports.
    pub listeners: Vec<SocketAddr>,
    /// Of this host's network interfaces.
    pub interfaces: BTreeSet<IpAddr>,
}

impl OwnAddresses {
    /// Of this host as it is now; `listeners` with the ports they really got.
    pub fn of_this_host(listeners: Vec<SocketAddr>) -> OwnAddresses {
        OwnAddresses { listeners, interfaces: interface_addresses() }
    }

    /// Does a connection to `address` reach one of our listeners, however the address is spelled?
    pub fn listens_at(&self, address: SocketAddr) -> bool {
        spellings(address.ip()).any(|ip| self.takes(SocketAddr::new(ip, address.port())))
    }

    fn takes(&self, address: SocketAddr) -> bool {
        self.listeners.iter().any(|listener| {
            listener.port() == address.port()
                && (listener.ip() == address.ip()
                    || (takes_all(listener.ip(), address.ip()) && self.is_here(address.ip())))
        })
    }

    /// Loopback is no place where mail of others arrives, and counts as no address of ours.
    fn is_of_this_host(&self, address: IpAddr) -> bool {
        spellings(address).any(|ip| self.interfaces.contains(&ip) && !ip.is_loopback())
    }

    fn is_here(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.interfaces.contains(&address)
    }
}

/// The same place under each of its names: the address itself, the IPv4 address that an IPv6 one carries, and loopback
/// for the unspecified address, which leads there.
fn spellings(address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let carried = match address {
        IpAddr::V6(v6) => carried_v4(v6).map(IpAddr::V4),
        IpAddr::V4(_) => None,
    };
    let here = |ip: IpAddr| match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    [Some(address), carried].into_iter().flatten().flat_map(move |ip| [ip, here(ip)])
}

/// `0.0.0.0` takes what comes over IPv4, `[::]` both families.
fn takes_all(listener: IpAddr, address: IpAddr) -> bool {
    listener.is_unspecified() && (listener.is_ipv6() || address.is_ipv4())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reachable(networks: &[&str]) -> Reachable {
        let own = OwnAddresses {
            listeners: vec!["127.0.0.1:2525".parse().unwrap(), "0.0.0.0:2600".parse().unwrap()],
            interfaces: ["127.0.0.1", "52.0.0.7", "10.0.0.7"].iter().map(|ip| ip.parse().unwrap()).collect(),
        };
        let networks = networks.iter().map(|net| net.parse().unwrap()).collect();
        Reachable { port: 25, ip: IpChoice::PreferIpv4, networks, own }
    }

    #[test]
    fn an_address_is_usable_ours_or_not_public() {
        use Standing::*;
        for (networks, address, standing) in [
            (&[][..], "52.0.0.8:25", Usable),
            (&[], "52.0.0.7:25", Ours),
            (&[], "10.0.0.7:25", Ours),
            (&[], "10.0.0.8:25", NotPublic),
            (&[], "127.0.0.1:25", NotPublic),
            (&[], "127.0.0.1:2525", Ours),
            (&["52.0.0.7/32"], "52.0.0.7:25", Usable),
            (&["52.0.0.7/32"], "52.0.0.7:2600", Ours),
            (&["127.0.0.0/8"], "127.0.0.1:25", Usable),
            (&["127.0.0.0/8"], "127.0.0.9:2600", Ours),
            (&["127.0.0.0/8"], "127.0.0.1:2525", Ours),
            (&["127.0.0.0/8"], "127.0.0.2:2525", Usable),
            (&["127.0.0.0/8"], "[::1]:25", NotPublic),
            (&[], "52.0.0.8:2600", Usable),
        ] {
            assert_eq!(reachable(networks).standing(address.parse().unwrap()), standing, "{address} in {networks:?}");
        }
    }

    #[test]
    fn our_own_address_is_ours_however_it_is_spelled() {
        // 52.0.0.7 and 127.0.0.1 in each form that leads there.
        for address in [
            "[::ffff:52.0.0.7]:25",
            "[::52.0.0.7]:25",
            "[::ffff:0:52.0.0.7]:25",
            "[64:ff9b::3400:7]:25",
            "[64:ff9b:1::52.0.0.7]:25",
            "[64:ff9b:1:abcd::52.0.0.7]:25",
            "[2002:3400:7::1]:25",
            "[2001:0:5ef5:79fd:0:0:cbff:fff8]:25",
            "[2a01::5efe:52.0.0.7]:25",
            "[2a01::200:5efe:52.0.0.7]:25",
            "[64:ff9b::a00:7]:25",
            "[::ffff:127.0.0.1]:2525",
            "[64:ff9b::7f00:1]:2525",
            "[::ffff:0.0.0.0]:2525",
            "0.0.0.0:2525",
            "0.0.0.0:2600",
        ] {
            assert_eq!(reachable(&[]).standing(address.parse().unwrap()), Standing::Ours, "{address}");
        }
        for (address, standing) in [
            ("[64:ff9b::3400:8]:25", Standing::Usable),
            ("[2002:3400:8::1]:25", Standing::Usable),
            ("[::ffff:52.0.0.8]:25", Standing::NotPublic),
            ("[::ffff:127.0.0.1]:25", Standing::NotPublic),
            ("0.0.0.0:25", Standing::NotPublic),
            ("[::]:2525", Standing::NotPublic),
            ("[::1]:2525", Standing::NotPublic),
        ] {
            assert_eq!(reachable(&[]).standing(address.parse().unwrap()), standing, "{address}");
        }
    }

    #[test]
    fn a_listener_on_all_addresses_of_ipv6_takes_ipv4_as_well() {
        let own = OwnAddresses { listeners: vec!["[::]:25".parse().unwrap()], interfaces: BTreeSet::new() };
        assert!(own.listens_at("127.0.0.1:25".parse().unwrap()));
        assert!(own.listens_at("[::1]:25".parse().unwrap()));
        assert!(!own.listens_at("127.0.0.1:26".parse().unwrap()));
    }
}
