//! Which addresses count as one client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address that stands for all of one client: an IPv4 address however it is written, of IPv6 the /64, which is what one
/// host or household gets.
pub fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
    }
}

/// The network that has one owner, more often than not, for whoever counts in a larger measure: an IPv4 /24, an IPv6 /48.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !0xFF)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 48))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        for (address, client) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:0:1:2:3:4:5", "2001:db8:0:1::"),
            ("2001:db8:0:1::9", "2001:db8:0:1::"),
            ("2001:db8:0:2::9", "2001:db8:0:2::"),
        ] {
            assert_eq!(client_of(address.parse().unwrap()), client.parse::<IpAddr>().unwrap(), "{address}");
        }
        for (address, network) in [
            ("192.0.2.1", "192.0.2.0"),
            ("::ffff:192.0.2.255", "192.0.2.0"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            ("2001:db8:2::9", "2001:db8:2::"),
        ] {
            assert_eq!(network_of(address.parse().unwrap()), network.parse::<IpAddr>().unwrap(), "{address}");
        }
    }
}
