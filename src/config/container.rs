//! The defaults of the container image.
//!
//! Nobody reaches the loopback of a container, what it keeps is a volume, and its standard output is what is collected.
//! Who may send is the other containers of its networks, but never their gateways: every outside client of a
//! published port comes from there, so trusting one makes an open relay.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;
use toml::Value;

use super::finding::{Findings, Place};
use super::tree::{self, Node, Table};
use super::{Attached, listener};
use crate::event::options::Output;
use crate::inbound::options::Relay;

/// Where applications look for a relay of another image.
const SUBMISSION: u16 = 587;

/// The listeners where none is set. `switched`: the environment is that of another relay image, whose clients know port 587.
pub(super) fn listeners(root: &mut Table, switched: bool, lowest_port: u16, findings: &mut Findings) {
    if root.contains_key("listener") {
        return;
    }
    let own = listener(Ipv4Addr::UNSPECIFIED).address;
    let mut addresses = vec![own];
    match switched {
        true if SUBMISSION >= lowest_port => addresses.push(SocketAddr::new(own.ip(), SUBMISSION)),
        true => {
            let what = format!("weir listens on port {} alone, other relay images on {SUBMISSION}", own.port());
            let remedy = "have the applications use that port, or let the container listen below 1024 (sysctl net.ipv4.ip_unprivileged_port_start=0)";
            findings.warning(Place::Nowhere {}, what, remedy);
        }
        false => {}
    }
    let element =
        |address: SocketAddr| (Table::from([("address".to_string(), text(&address.to_string()))]), Place::Nowhere {});
    root.insert("listener".to_string(), Node::Tables(addresses.into_iter().map(element).collect()));
}

/// Puts the defaults where nothing is set. If the attached networks became the trusted ones, returns them for people to
/// read, else nothing.
pub(super) fn defaults(root: &mut Table, attached: &Attached) -> String {
    root.entry("data_dir".to_string()).or_insert_with(|| text("/var/lib/weir"));
    if let Some(events) = tree::table_mut(root, "events") {
        events.entry("output".to_string()).or_insert_with(|| value(Value::try_from(Output::Both).ok()));
    }
    match tree::table_mut(root, "relay") {
        Some(relay) if !relay.contains_key("trusted_networks") => {
            let (networks, gateways) = attached();
            let words = in_words(&networks, &gateways);
            let neighbours = networks.into_iter().flat_map(|network| without(network, &gateways));
            let trusted = Relay::default().trusted_networks.into_iter().chain(neighbours);
            let trusted = trusted.map(|network| Value::String(network.to_string())).collect();
            relay.insert("trusted_networks".to_string(), value(Some(Value::Array(trusted))));
            words
        }
        _ => String::new(),
    }
}

/// What `without` leaves of a network is a long list; this is what it means.
fn in_words(networks: &[IpNet], gateways: &[IpAddr]) -> String {
    let mut words = Vec::with_capacity(networks.len());
    for network in networks {
        let gateways: Vec<String> =
            gateways.iter().filter(|gateway| network.contains(*gateway)).map(IpAddr::to_string).collect();
        words.push(match gateways.len() {
            0 => network.to_string(),
            1 => format!("{network} (not its gateway {})", gateways.concat()),
            _ => format!("{network} (not its gateways {})", gateways.join(", ")),
        });
    }
    if words.is_empty() { "none".to_string() } else { words.join(", ") }
}

fn text(text: &str) -> Node {
    value(Some(Value::String(text.to_string())))
}

fn value(value: Option<Value>) -> Node {
    value.map_or(Node::Faulty, |value| Node::Value(value, Place::Nowhere {}))
}

/// The networks that together are `network` without `addresses`.
fn without(network: IpNet, addresses: &[IpAddr]) -> Vec<IpNet> {
    if !addresses.iter().any(|address| network.contains(address)) {
        return vec![network];
    }
    // At the longest prefix the network is one of the addresses, and there are no halves.
    let halves = network.subnets(network.prefix_len().saturating_add(1)).into_iter().flatten();
    halves.flat_map(|half| without(half, addresses)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(network: &str, addresses: &[&str]) -> Vec<String> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        without(network.parse().unwrap(), &addresses).iter().map(IpNet::to_string).collect()
    }

    #[test]
    fn a_network_without_an_address_is_all_the_others() {
        assert_eq!(networks("10.0.0.0/8", &["192.0.2.1"]), ["10.0.0.0/8"]);
        assert_eq!(networks("172.18.0.0/29", &["172.18.0.1"]), ["172.18.0.0/32", "172.18.0.2/31", "172.18.0.4/30"]);
        assert_eq!(networks("192.0.2.1/32", &["192.0.2.1"]), [""; 0]);
        assert_eq!(networks("fd00::/64", &["fd00::1"]).len(), 64);
        let two =
            without("172.18.0.0/16".parse().unwrap(), &["172.18.0.1".parse().unwrap(), "172.18.9.9".parse().unwrap()]);
        for ip in 0..=u16::MAX {
            let address = IpAddr::from([172, 18, (ip >> 8) as u8, ip as u8]);
            let trusted = two.iter().filter(|network| network.contains(&address)).count();
            assert_eq!(trusted, usize::from(ip != 1 && ip != 9 << 8 | 9), "{address}");
        }
    }
}
