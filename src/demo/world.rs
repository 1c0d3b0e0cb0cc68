//! The demo's receivers and addresses: two simulated Microsofts on loopback, and a relay that knows of no others.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;

use super::dns::Table;
use crate::clock::Clock;
use crate::config::Config;
use crate::simulate::{BindError, MxHost, Profile, Simulator};

/// The consumer side. Its rate falls to less than half for a time, and comes back.
const CONSUMER: &str = include_str!("consumer.toml");
const BUSINESS: &str = include_str!("business.toml");
/// The relay's configuration: hardly anything differs from what is shipped.
const RELAY: &str = include_str!("relay.toml");
/// Ports are drawn until one is free on all addresses.
const PORTS_TRIED: usize = 20;

/// A domain, its MX host, and the addresses where that listens: as the real ones are published, but on loopback.
struct Receiver {
    domain: &'static str,
    preference: u16,
    exchange: &'static str,
    addresses: [Ipv4Addr; 2],
}

const OUTLOOK: Receiver = Receiver {
    domain: "outlook.com",
    preference: 5,
    exchange: "outlook-com.olc.protection.outlook.com",
    addresses: [Ipv4Addr::new(127, 87, 1, 1), Ipv4Addr::new(127, 87, 1, 2)],
};
const HOTMAIL: Receiver = Receiver {
    domain: "hotmail.com",
    preference: 2,
    exchange: "hotmail-com.olc.protection.outlook.com",
    addresses: [Ipv4Addr::new(127, 87, 2, 1), Ipv4Addr::new(127, 87, 2, 2)],
};
const COMPANY: Receiver = Receiver {
    domain: "contoso.com",
    preference: 0,
    exchange: "contoso-com.mail.protection.outlook.com",
    addresses: [Ipv4Addr::new(127, 87, 3, 1), Ipv4Addr::new(127, 87, 3, 2)],
};

/// Domains and how many of ten messages each gets.
pub(super) const SHARES: [(&str, u32); 3] = [(OUTLOOK.domain, 5), (HOTMAIL.domain, 3), (COMPANY.domain, 2)];

/// A receiver that is running, and the name of the provider as which the relay knows it.
pub(super) struct Running {
    pub(super) provider: &'static str,
    pub(super) simulator: Simulator,
}

pub(super) struct World {
    pub(super) receivers: [Running; 2],
    pub(super) dns: Table,
    port: u16,
}

impl World {
    pub(super) fn start(seed: u64, clock: &Clock) -> anyhow::Result<World> {
        let (consumer, business) = (Profile::parse(CONSUMER)?, Profile::parse(BUSINESS)?);
        let (receivers, port) = at_some_port(|port| {
            let start = |profile: &Profile, receivers: &[Receiver]| {
                Simulator::start(profile.clone(), seed, &hosts(receivers, port), clock.clone())
            };
            Ok([
                Running { provider: "outlook", simulator: start(&consumer, &[OUTLOOK, HOTMAIL])? },
                Running { provider: "microsoft365", simulator: start(&business, &[COMPANY])? },
            ])
        })?;
        Ok(World { receivers, dns: table(), port })
    }

    /// What the relay is started with.
    pub(super) fn configuration(&self, data_dir: &Path) -> anyhow::Result<Config> {
        let mut config: Config = toml::from_str(RELAY).context("the demo's own configuration")?;
        config.data_dir = data_dir.to_path_buf();
        config.delivery.port = self.port;
        Ok(config)
    }
}

/// One receiver behind all hosts.
pub(super) struct Alone {
    pub(super) simulator: Simulator,
    pub(super) dns: Table,
}

impl Alone {
    pub(super) fn start(profile: &Profile, seed: u64, clock: &Clock) -> anyhow::Result<Alone> {
        let receivers = [OUTLOOK, HOTMAIL, COMPANY];
        let start = |port| Simulator::start(profile.clone(), seed, &hosts(&receivers, port), clock.clone());
        let (simulator, _) = at_some_port(start)?;
        Ok(Alone { simulator, dns: table() })
    }

    /// Of its first host.
    pub(super) fn address(&self) -> SocketAddr {
        let first = self.simulator.hosts().first().map(|host| host.address);
        first.unwrap_or(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0))
    }
}

/// Starts something that listens on one port of several addresses: ports are drawn until one is free on all of them.
fn at_some_port<T>(start: impl Fn(u16) -> Result<T, BindError>) -> anyhow::Result<(T, u16)> {
    let mut refused = None;
    for _ in 0..PORTS_TRIED {
        let port = free_port().context("cannot listen on 127.0.0.1")?;
        match start(port) {
            Ok(started) => return Ok((started, port)),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) => Err(anyhow::Error::new(error).context("this needs the addresses 127.0.0.0/8 of this host")),
        None => anyhow::bail!("no port was tried"),
    }
}

fn free_port() -> io::Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn hosts(receivers: &[Receiver], port: u16) -> Vec<MxHost> {
    let of = |receiver: &Receiver| {
        let name = receiver.exchange;
        receiver
            .addresses
            .map(|address| MxHost { name: name.to_string(), address: SocketAddr::new(address.into(), port) })
    };
    receivers.iter().flat_map(of).collect()
}

fn table() -> Table {
    let mut table = Table::default();
    for receiver in [OUTLOOK, HOTMAIL, COMPANY] {
        table.domain(receiver.domain, receiver.preference, receiver.exchange);
        for address in receiver.addresses {
            table.host(receiver.exchange, address);
        }
    }
    table
}
