//! Which addresses are of the public Internet, and which are another spelling of one (IANA special-purpose registries, RFC 6890).
//!
//! What stands in the DNS is written by strangers: whoever connects where a name leads asks here first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Can a stranger on the public Internet have this address?
///
/// Addresses of one family that carry one of the other (6to4, NAT64) are judged by what they carry; IPv4-mapped ones
/// and Teredo are never what a mail server has.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) => is_global_v6(v6),
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224                                // multicast, reserved, broadcast
        || (a == 100 && (64..128).contains(&b))    // shared by providers' NAT (RFC 6598)
        || (a == 192 && b == 0 && c == 0)          // IETF protocol assignments
        || (a == 192 && b == 88 && c == 99)        // 6to4 relays, given up (RFC 7526)
        || (a == 198 && (b == 18 || b == 19)); // benchmarks (RFC 2544)
    !special
}

fn is_global_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // How a host without IPv4 sees the IPv4 Internet (RFC 6052), and the reverse: judged by what they carry.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x2002, ..] => carried_v4(address).is_some_and(is_global_v4),
        // IETF protocol assignments, Teredo among them (2001::/23), and documentation (RFC 3849, RFC 9637).
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

/// The IPv4 address that an IPv6 address is another spelling of, or whose host it leads to.
pub fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible (given up) and IPv4-mapped (RFC 4291 section 2.5.5), IPv4-translated (RFC 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(v4(high, low)),
        // NAT64: the well-known prefix (RFC 6052) and that for use in one network (RFC 8215), as a /96.
        [0x64, 0xff9b, 0 | 1, .., high, low] => Some(v4(high, low)),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(v4(high, low)),
        // Teredo carries the client's address with its bits turned (RFC 4380 section 4).
        [0x2001, 0, .., high, low] => Some(v4(!high, !low)),
        // ISATAP (RFC 5214 section 6.1).
        [.., 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_global() {
        for text in [
            "8.8.8.8",
            "52.101.8.34",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.1.1.1",
        ] {
            assert!(is_global(text.parse().unwrap()), "{text}");
        }
        for text in ["2a01:111:f403::1", "2607:f8b0::1a", "2002:808:808::1", "64:ff9b::808:808", "2001:4860::8888"] {
            assert!(is_global(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!is_global(text.parse().unwrap()), "{text}");
        }
        for text in [
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "fe80::1",
            "fd00::1",
            "fc00::1",
            "ff02::1",
            "2001:db8::1",
            "3fff::1",
            "2001::1",
            "2001:10::1",
            "2002:a00:1::1",
            "64:ff9b::a00:1",
            "100::1",
            "64:ff9b:1::1",
        ] {
            assert!(!is_global(text.parse().unwrap()), "{text}");
        }
    }
}
