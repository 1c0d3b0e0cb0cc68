//! Host names as receivers look at them: is this the name of a mail server, or of any customer's line?
//!
//! Pure. Receivers and block lists take a reverse name with the address in it, or a word of access providers, for one that
//! nobody has chosen.

use std::net::IpAddr;

use crate::route::identity::looks_public;

/// Words in names of lines that come and go. Whole labels, or parts of labels between hyphens and digits.
const DYNAMIC: [&str; 22] = [
    "adsl",
    "broadband",
    "cable",
    "catv",
    "cpe",
    "customer",
    "customers",
    "dhcp",
    "dial",
    "dialin",
    "dialup",
    "dsl",
    "dyn",
    "dynamic",
    "dynip",
    "ftth",
    "home",
    "pool",
    "pools",
    "ppp",
    "res",
    "residential",
];

/// How a name looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Chosen by somebody.
    Own,
    /// The address stands in it, as hosters name machines that nobody has named.
    Generic,
    /// With the word that says so.
    Dynamic(&'static str),
}

/// How the name of `ip` looks.
pub fn look(name: &str, ip: IpAddr) -> Look {
    let name = name.to_ascii_lowercase();
    let words = || name.split(|c: char| !c.is_ascii_alphabetic()).filter(|word| !word.is_empty());
    match DYNAMIC.into_iter().find(|known| words().any(|word| word == *known)) {
        // `home.example.com` is a name somebody chose; with a number in it it is one of many.
        Some(word) if name.bytes().any(|b| b.is_ascii_digit()) => Look::Dynamic(word),
        _ if holds_address(&name, ip) => Look::Generic,
        _ => Look::Own,
    }
}

/// Does the address stand in the name: its numbers in order or reversed, padded, or as one number in hexadecimal?
fn holds_address(name: &str, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let octets = v4.octets();
            let numbers: Vec<u64> =
                name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
            let is_run = |wanted: &[u8]| {
                numbers.windows(wanted.len()).any(|run| run.iter().zip(wanted).all(|(n, o)| *n == u64::from(*o)))
            };
            let reversed: Vec<u8> = octets.iter().rev().copied().collect();
            // Three of them are enough: `52-0-0.example.net`, `ip7-0-0.`; of the last three none is a version number.
            let parts = [&octets[..], &octets[1..], &reversed[..], &reversed[..3]];
            let padded: String = octets.iter().map(|octet| format!("{octet:03}")).collect();
            let hexadecimal: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
            parts.into_iter().any(is_run) || name.contains(&padded) || name.contains(&hexadecimal)
        }
        IpAddr::V6(v6) => {
            // The last half, however it is written.
            let groups: Vec<String> = v6.segments()[4..].iter().map(|group| format!("{group:x}")).collect();
            let full: String = v6.segments()[4..].iter().map(|group| format!("{group:04x}")).collect();
            let plain: String = name.chars().filter(char::is_ascii_hexdigit).collect();
            name.contains(&groups.join("-")) || plain.contains(&full)
        }
    }
}

/// Why receivers do not take `name` in HELO; none: they do.
pub fn fault(name: &str) -> Option<&'static str> {
    if looks_public(name) {
        return None;
    }
    Some(match name {
        _ if !name.contains('.') => "it has no dot, so it is no domain",
        _ if name.starts_with('[') || name.parse::<IpAddr>().is_ok() => "it is an address and no name",
        _ if name.contains('_') => "a host name has no underscore",
        _ => "it is a private or reserved name, or one that a container was given",
    })
}

/// The name under which the DNS keeps the names of `ip`.
pub fn reverse(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let nibbles = v6.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_the_address_in_it_was_chosen_by_nobody() {
        let ip: IpAddr = "52.31.7.9".parse().unwrap();
        for name in [
            "ec2-52-31-7-9.compute-1.amazonaws.com",
            "static.9.7.31.52.clients.example.de",
            "host-052031007009.example.net",
            "341f0709.example.net",
            "31-7-9.example.net",
        ] {
            assert_eq!(look(name, ip), Look::Generic, "{name}");
        }
        for name in ["relay.weir.dev", "mail-52.weir.dev", "mx7.eu-9.weir.dev", "mail52-31.weir.dev", "home.weir.dev"] {
            assert_eq!(look(name, ip), Look::Own, "{name}");
        }
        let six: IpAddr = "2a01:4f8:0:1::2:3".parse().unwrap();
        assert_eq!(look("2a01-4f8-0-1-0-0-2-3.example.net", six), Look::Generic);
        assert_eq!(look("relay.weir.dev", six), Look::Own);
    }

    #[test]
    fn the_words_of_access_providers_are_known() {
        let ip: IpAddr = "52.31.7.9".parse().unwrap();
        for (name, word) in [
            ("p5b0.dynamic.example.net", "dynamic"),
            ("dsl-52-31-7-9.example.net", "dsl"),
            ("pool12.isp.example.net", "pool"),
            ("c1.dhcp.example.net", "dhcp"),
        ] {
            assert_eq!(look(name, ip), Look::Dynamic(word), "{name}");
        }
        assert_eq!(look("dynamics.weir1.dev", ip), Look::Own);
    }

    #[test]
    fn what_no_receiver_takes_in_helo_is_told_apart() {
        assert_eq!(fault("relay.weir.dev"), None);
        for (name, says) in
            [("relay", "no dot"), ("192.0.2.1", "address"), ("re_lay.weir.dev", "underscore"), ("vm.local", "private")]
        {
            assert!(fault(name).is_some_and(|fault| fault.contains(says)), "{name}: {:?}", fault(name));
        }
    }

    #[test]
    fn an_address_is_looked_up_backwards() {
        assert_eq!(reverse("52.31.7.9".parse().unwrap()), "9.7.31.52.in-addr.arpa");
        let six = reverse("2a01:4f8::2:3".parse().unwrap());
        assert!(six.starts_with("3.0.0.0.2.0.0.0.") && six.ends_with("8.f.4.0.1.0.a.2.ip6.arpa"), "{six}");
    }
}
