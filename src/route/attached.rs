//! The networks this host is attached to, read from the kernel's tables (`/proc/net`).
//!
//! In a container the neighbours on the attached networks are the applications that send, while everything from outside
//! comes through a published port and shows the gateway's address. So neighbours may be trusted, gateways never:
//! trusting one makes an open relay. The parsers are pure; a line they do not understand is passed over.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::identity::interface_addresses;
use super::reachable::is_global;

/// Routing flags of `linux/route.h`.
const UP: u32 = 0x1;
const GATEWAY: u32 = 0x2;
const REJECT: u32 = 0x200;

/// The private networks directly attached to this host, and the gateways among them that must not be trusted.
///
/// Public networks are left out (a host's neighbours at a hoster are strangers). Where the routing table names no
/// gateway inside a network, its first address counts as one: container engines give it to the bridge.
pub fn attached_networks() -> (Vec<IpNet>, Vec<IpAddr>) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let (mut networks, mut gateways) = routes_v4(&read("/proc/net/route"));
    let (networks_v6, gateways_v6) = routes_v6(&read("/proc/net/ipv6_route"));
    networks.extend(networks_v6);
    gateways.extend(gateways_v6);
    let own = interface_addresses();
    with_presumed_gateways(networks, gateways, |address| own.contains(&address))
}

fn with_presumed_gateways(
    mut networks: Vec<IpNet>,
    mut gateways: Vec<IpAddr>,
    is_own: impl Fn(IpAddr) -> bool,
) -> (Vec<IpNet>, Vec<IpAddr>) {
    networks.retain(|network| !is_global(network.network()));
    for network in &networks {
        let first = first_address(network).filter(|first| !is_own(*first));
        if let Some(first) = first
            && !gateways.iter().any(|gateway| network.contains(gateway))
        {
            gateways.push(first);
        }
    }
    networks.sort();
    networks.dedup();
    gateways.sort();
    gateways.dedup();
    (networks, gateways)
}

/// The one behind the network's own, which container engines give to the bridge.
fn first_address(network: &IpNet) -> Option<IpAddr> {
    match network {
        IpNet::V4(v4) => v4.hosts().next().map(IpAddr::V4),
        IpNet::V6(v6) => v6.hosts().nth(1).map(IpAddr::V6),
    }
}

/// `/proc/net/route`: addresses in hexadecimal, in the byte order of the machine.
fn routes_v4(table: &str) -> (Vec<IpNet>, Vec<IpAddr>) {
    let (mut networks, mut gateways) = (Vec::new(), Vec::new());
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, destination, gateway, flags, _, _, _, mask, ..] = fields[..] else { continue };
        let (Some(destination), Some(gateway), Some(mask)) = (hex_v4(destination), hex_v4(gateway), hex_v4(mask))
        else {
            continue;
        };
        let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
        if flags & UP == 0 || flags & REJECT != 0 || interface == "lo" {
            continue;
        }
        if flags & GATEWAY != 0 {
            gateways.push(gateway.into());
        } else if let Ok(network) = Ipv4Net::with_netmask(destination, mask)
            && (1..32).contains(&network.prefix_len())
        {
            networks.push(network.trunc().into());
        }
    }
    (networks, gateways)
}

/// `/proc/net/ipv6_route`: destination, prefix, source, prefix, next hop, metric, references, uses, flags, interface.
fn routes_v6(table: &str) -> (Vec<IpNet>, Vec<IpAddr>) {
    let (mut networks, mut gateways) = (Vec::new(), Vec::new());
    for line in table.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [destination, prefix, _, _, hop, _, _, _, flags, interface] = fields[..] else { continue };
        let (Some(destination), Some(hop)) = (hex_v6(destination), hex_v6(hop)) else { continue };
        let (Ok(prefix), Ok(flags)) = (u8::from_str_radix(prefix, 16), u32::from_str_radix(flags, 16)) else {
            continue;
        };
        if flags & UP == 0 || flags & REJECT != 0 || interface == "lo" {
            continue;
        }
        if flags & GATEWAY != 0 {
            gateways.push(hop.into());
        } else if (1..128).contains(&prefix)
            && !destination.is_multicast()
            && !destination.is_unicast_link_local()
            && let Ok(network) = Ipv6Net::new(destination, prefix)
        {
            networks.push(network.trunc().into());
        }
    }
    (networks, gateways)
}

/// The addresses marked `host LOCAL` in `/proc/net/fib_trie`: those of the interfaces.
pub(super) fn local_v4(trie: &str) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in trie.lines() {
        let line = line.trim();
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            found.extend(last);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// `/proc/net/if_inet6`: one address a line, in hexadecimal.
pub(super) fn local_v6(table: &str) -> Vec<Ipv6Addr> {
    table.lines().filter_map(|line| hex_v6(line.split_whitespace().next()?)).collect()
}

fn hex_v4(text: &str) -> Option<Ipv4Addr> {
    let value = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 8)?;
    Some(Ipv4Addr::from(value.to_ne_bytes()))
}

fn hex_v6(text: &str) -> Option<Ipv6Addr> {
    let value = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(Ipv6Addr::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    const ROUTE: &str = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010012AC	0003	0	0	0	00000000	0	0	0
eth0	000012AC	00000000	0001	0	0	0	0000FFFF	0	0	0
eth1	000013AC	00000000	0001	0	0	0	0000FFFF	0	0	0
eth1	050013AC	00000000	0005	0	0	0	FFFFFFFF	0	0	0
lo	0000007F	00000000	0001	0	0	0	000000FF	0	0	0
eth2	0000140A	00000000	0000	0	0	0	0000FFFF	0	0	0
garbage
eth3	XX	00000000	0001	0	0	0	0000FFFF	0	0	0
";

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_attached_networks_and_gateways() {
        assert_eq!(routes_v4(ROUTE), (nets(&["172.18.0.0/16", "172.19.0.0/16"]), ips(&["172.18.0.1"])));
        assert_eq!(routes_v4(""), (vec![], vec![]));
    }

    const ROUTE_V6: &str = "\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001       lo
fd000000000000000000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000003 00000000 80200001     eth0
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000003 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[test]
    fn reads_the_same_of_ipv6() {
        assert_eq!(routes_v6(ROUTE_V6), (nets(&["fd00::/64"]), ips(&["fd00::1"])));
    }

    #[test]
    fn every_trusted_network_has_a_gateway_that_is_not_and_public_ones_are_left_out() {
        let networks =
            nets(&["172.19.0.0/16", "172.18.0.0/16", "52.0.0.0/24", "10.1.0.0/24", "172.18.0.0/16", "fd00::/64"]);
        let own: IpAddr = "10.1.0.1".parse().unwrap();
        let (networks, gateways) = with_presumed_gateways(networks, ips(&["172.18.0.1"]), |ip| ip == own);
        assert_eq!(networks, nets(&["10.1.0.0/24", "172.18.0.0/16", "172.19.0.0/16", "fd00::/64"]));
        assert_eq!(gateways, ips(&["172.18.0.1", "172.19.0.1", "fd00::1"]));
    }

    #[test]
    fn reads_the_addresses_of_interfaces() {
        let trie = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.0
           /24 link UNICAST
        |-- 192.0.2.2
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
Local:
     |-- 127.0.0.0
        /8 host LOCAL
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.0.2.2
        /32 host LOCAL
";
        assert_eq!(local_v4(trie), ["127.0.0.1", "192.0.2.2"].map(|text| text.parse::<Ipv4Addr>().unwrap()));
        let if_inet6 = "00000000000000000000000000000001 01 80 10 80       lo\nfd000000000000000000000000000002 04 40 00 82     eth0\nshort\n";
        assert_eq!(local_v6(if_inet6), ["::1", "fd00::2"].map(|text| text.parse::<Ipv6Addr>().unwrap()));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_host_has_a_loopback_address() {
        assert!(interface_addresses().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
