//! Who we are to the receivers: the HELO name, and the addresses we are seen under.
//!
//! A receiver looks at three things that must agree: the name in EHLO, the addresses of that name, and the PTR of the
//! address that connects (`outlook/facts`: 501 5.5.4 and "must have reverse DNS" otherwise). So a name is never made
//! up: it is configured, or the system's where that looks public, or the PTR's where it agrees both ways. With none of
//! these the relay takes mail and keeps it, and says what to do.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use super::attached;
use super::dns::Dns;
use super::reachable::is_global;
use crate::types::Domain;

/// PTR names of one address that are looked at; an honest address has one.
const PTR_NAMES_MAX: usize = 10;

/// The HELO name, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// `hostname` of the configuration.
    Configured { name: String },
    /// The system's name, which looks public.
    System { name: String },
    /// The PTR name of our address, whose addresses in turn hold it.
    Ptr { name: String, address: IpAddr },
    /// There is none: nothing is delivered outside `[delivery] networks` and fixed routes.
    Unknown { why: String, remedy: String },
}

impl Identity {
    pub fn name(&self) -> Option<&str> {
        match self {
            Identity::Configured { name } | Identity::System { name } | Identity::Ptr { name, .. } => Some(name),
            Identity::Unknown { .. } => None,
        }
    }

    /// Finds out who this host is; asks the DNS only where configuration and system say nothing.
    pub async fn of_this_host(configured: &str, dns: &dyn Dns) -> Identity {
        let addresses: Vec<IpAddr> =
            [SOMEWHERE_V4, SOMEWHERE_V6].into_iter().filter_map(local_address_towards).collect();
        Identity::find(configured, system_hostname().as_deref(), &addresses, dns).await
    }

    /// The same from given facts: the configured name (may be empty), the system's, and the addresses that connections
    /// leave from.
    pub async fn find(configured: &str, system: Option<&str>, addresses: &[IpAddr], dns: &dyn Dns) -> Identity {
        if !configured.is_empty() {
            return Identity::Configured { name: configured.to_ascii_lowercase() };
        }
        if let Some(name) = system.filter(|name| looks_public(name)) {
            return Identity::System { name: name.to_ascii_lowercase() };
        }
        for address in addresses.iter().copied().filter(|address| is_global(*address)) {
            if let Some(name) = by_ptr(dns, address).await {
                return Identity::Ptr { name, address };
            }
        }
        Identity::unknown(system, addresses)
    }

    fn unknown(system: Option<&str>, addresses: &[IpAddr]) -> Identity {
        let system =
            system.map_or("this host has no name".to_string(), |name| format!("`{name}` is no public host name"));
        let listed = addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" and ");
        let address = if addresses.is_empty() {
            "there is no route to the Internet".to_string()
        } else if addresses.iter().any(|address| is_global(*address)) {
            format!("no PTR name of {listed} leads back to it")
        } else {
            let is_no = if addresses.len() == 1 { "is not a public address" } else { "are not public addresses" };
            format!("{listed} {is_no}")
        };
        Identity::Unknown {
            why: format!("{system}, and {address}"),
            remedy: "set hostname (WEIR_HOSTNAME) to the name that the PTR of your public address gives; until then mail is \
                     kept, and goes only to [delivery] networks and [[route]] hops"
                .to_string(),
        }
    }
}

/// The families in which this host has a route to the Internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    pub ipv4: bool,
    pub ipv6: bool,
}

impl Reach {
    /// Asks the kernel's routing tables; sends nothing.
    pub fn probe() -> Reach {
        Reach {
            ipv4: local_address_towards(SOMEWHERE_V4).is_some(),
            // A private IPv6 address leads nowhere: nobody translates it as routers do for IPv4.
            ipv6: local_address_towards(SOMEWHERE_V6).is_some_and(is_global),
        }
    }
}

/// Root name server A: certainly on the public Internet. Routing tables are asked about it, it hears nothing of that.
const SOMEWHERE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4));
const SOMEWHERE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30));

/// The address this host would connect from to reach `target`; none without a route. A datagram socket is connected,
/// which asks the kernel and sends nothing.
pub fn local_address_towards(target: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(target, 25)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// The PTR name of `address` that looks public and has `address` among its own; the first by alphabet.
pub async fn by_ptr(dns: &dyn Dns, address: IpAddr) -> Option<String> {
    let mut names = dns.ptr(address).await.ok()?.records;
    names.sort();
    for name in names.into_iter().filter(|name| looks_public(name)).take(PTR_NAMES_MAX) {
        let absolute = format!("{name}.");
        let agrees = match address {
            IpAddr::V4(v4) => dns.v4(&absolute).await.is_ok_and(|found| found.records.contains(&v4)),
            IpAddr::V6(v6) => dns.v6(&absolute).await.is_ok_and(|found| found.records.contains(&v6)),
        };
        if agrees {
            return Some(name);
        }
    }
    None
}

/// The system's own name; where that is a single label, the full one that `/etc/hosts` gives for it (as `hostname -f`).
pub fn system_hostname() -> Option<String> {
    let name = ["/proc/sys/kernel/hostname", "/etc/hostname"].iter().find_map(|path| fs::read_to_string(path).ok())?;
    let name = name.trim();
    let full = fs::read_to_string("/etc/hosts").ok().and_then(|hosts| full_name(&hosts, name));
    Some(full.unwrap_or_else(|| name.to_string())).filter(|name| !name.is_empty())
}

/// The canonical name of the line of a hosts file that lists `short`.
fn full_name(hosts: &str, short: &str) -> Option<String> {
    if short.is_empty() || short.contains('.') {
        return None;
    }
    hosts.lines().find_map(|line| {
        let line = line.split('#').next().unwrap_or("");
        let mut names = line.split_whitespace().skip(1);
        let canonical = names.next()?;
        let listed = canonical == short || names.any(|alias| alias == short);
        (listed && canonical.contains('.')).then(|| canonical.to_string())
    })
}

/// Endings that no public name has: reserved (RFC 2606, RFC 6761, RFC 6762, RFC 8375, ICANN's `internal`), or in use in
/// private networks and clouds.
const PRIVATE_ENDINGS: [&str; 20] = [
    "local",
    "localhost",
    "localdomain",
    "internal",
    "intranet",
    "private",
    "lan",
    "home",
    "home.arpa",
    "corp",
    "arpa",
    "test",
    "example",
    "example.com",
    "example.net",
    "example.org",
    "invalid",
    "onion",
    "alt",
    "internal.cloudapp.net",
];

/// Could receivers know this name? A dot, letters that a host name may have, no private ending, no container id.
pub fn looks_public(name: &str) -> bool {
    let Ok(domain) = Domain::parse(name) else { return false };
    let first = domain.as_str().split('.').next().unwrap_or("");
    let is_container_id = matches!(first.len(), 12 | 64) && first.bytes().all(|b| b.is_ascii_hexdigit());
    domain.literal().is_none()
        && domain.as_str() == name.to_ascii_lowercase()
        && domain.as_str().contains('.')
        && !domain.as_str().contains('_')
        && !is_container_id
        && !PRIVATE_ENDINGS.iter().any(|ending| domain.is_within(ending))
}

/// All addresses of this host's network interfaces, loopback included. Empty where the system does not say.
pub fn interface_addresses() -> BTreeSet<IpAddr> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let v4 = attached::local_v4(&read("/proc/net/fib_trie"));
    let v6 = attached::local_v6(&read("/proc/net/if_inet6"));
    v4.into_iter().map(IpAddr::V4).chain(v6.into_iter().map(IpAddr::V6)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::table::TableDns;
    use super::*;

    #[test]
    fn a_public_name_has_a_dot_and_no_private_ending() {
        for name in ["mail.contoso.com", "relay-1.weir.dev", "MAIL.Contoso.Com", "a.b.co.uk", "deadbeef.contoso.com"] {
            assert!(looks_public(name), "{name}");
        }
        for name in [
            "",
            "vm",
            "localhost",
            "localhost.localdomain",
            "host.local",
            "ip-10-0-0-1.ec2.internal",
            "mail.lan",
            "vm.a1b2.ax.internal.cloudapp.net",
            "relay.example.com",
            "example.com",
            "mail.test",
            "4f2a9c01b7de",
            "4f2a9c01b7de.contoso.com",
            "under_score.contoso.com",
            "192.0.2.1",
            "[192.0.2.1]",
            "a..b",
            "mail.contoso.com.",
            "1.2.0.192.in-addr.arpa",
            "router.home.arpa",
        ] {
            assert!(!looks_public(name), "{name}");
        }
    }

    #[test]
    fn the_hosts_file_completes_a_short_name() {
        let hosts =
            "127.0.0.1 localhost\n# 1.2.3.4 no.contoso.com mail\n127.0.1.1\tmail.contoso.com mail # here\n::1 mail\n";
        assert_eq!(full_name(hosts, "mail").as_deref(), Some("mail.contoso.com"));
        assert_eq!(full_name(hosts, "other"), None);
        assert_eq!(full_name(hosts, "mail.contoso.com"), None);
        assert_eq!(full_name("127.0.1.1 mail\n", "mail"), None);
        assert_eq!(full_name("\n\n127.0.1.1\n", ""), None);
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn the_configured_name_comes_first_then_the_systems_then_the_ptr() {
        let dns = TableDns::default().ptr("52.0.0.7", &["mail.weir.dev"]).v4("mail.weir.dev.", &["52.0.0.7"]);
        let find = async |configured: &str, system: Option<&str>| {
            Identity::find(configured, system, &[ip("52.0.0.7")], &dns).await
        };
        let configured = find("Relay.test", Some("mail.contoso.com")).await;
        assert_eq!(configured, Identity::Configured { name: "relay.test".into() });
        assert_eq!(find("", Some("mail.contoso.com")).await, Identity::System { name: "mail.contoso.com".into() });
        let ptr = Identity::Ptr { name: "mail.weir.dev".into(), address: ip("52.0.0.7") };
        assert_eq!(find("", Some("vm")).await, ptr);
        assert_eq!(find("", None).await, ptr);
    }

    #[tokio::test]
    async fn a_ptr_counts_only_if_its_name_leads_back() {
        let dns = TableDns::default()
            .ptr("52.0.0.7", &["z.weir.dev", "b.weir.dev", "a.weir.dev", "vm.internal"])
            .v4("a.weir.dev.", &["52.0.0.8"])
            .v4("b.weir.dev.", &["52.0.0.1", "52.0.0.7"])
            .v4("vm.internal.", &["52.0.0.7"])
            .ptr("2a01::7", &["six.weir.dev"])
            .v6("six.weir.dev.", &["2a01::7"]);
        assert_eq!(by_ptr(&dns, ip("52.0.0.7")).await.as_deref(), Some("b.weir.dev"));
        assert_eq!(by_ptr(&dns, ip("2a01::7")).await.as_deref(), Some("six.weir.dev"));
        assert_eq!(by_ptr(&dns, ip("52.0.0.8")).await, None);
    }

    #[tokio::test]
    async fn with_no_name_it_says_why_and_what_to_do() {
        let dns = TableDns::default();
        for (addresses, why) in [
            (vec![], "no route to the Internet"),
            (vec![ip("10.0.0.5")], "10.0.0.5 is not a public address"),
            (vec![ip("52.0.0.7")], "no PTR name of 52.0.0.7 leads back"),
        ] {
            let identity = Identity::find("", Some("vm"), &addresses, &dns).await;
            assert_eq!(identity.name(), None);
            let Identity::Unknown { why: said, remedy } = identity else { panic!("{identity:?}") };
            assert!(said.contains("`vm` is no public host name") && said.contains(why), "{said}");
            assert!(remedy.contains("WEIR_HOSTNAME"));
        }
    }

    #[test]
    fn the_way_to_loopback_starts_at_loopback() {
        assert_eq!(local_address_towards(ip("127.0.0.1")), Some(ip("127.0.0.1")));
    }
}
