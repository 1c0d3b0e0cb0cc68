//! `[delivery]` and `[[source]]`: how connections to receivers are made, and from which addresses.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::types::TlsMode;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// The port of MX hosts.
    pub port: u16,
    /// Which address family is used.
    pub ip: IpChoice,
    /// Addresses outside the public Internet that may be delivered to.
    pub networks: Vec<IpNet>,
    /// TLS towards receivers.
    pub tls: TlsMode,
    /// MTA-STS policies of receivers (RFC 8461) are obeyed.
    pub mta_sts: bool,
    /// BDAT (RFC 3030) is used where a receiver offers it: a message goes in one round trip. Hosts that offer it and do
    /// not know it are found out and get DATA; switch it off where something on the way chokes on it.
    pub chunking: bool,
    /// Authorities trusted beside the built-in ones wherever a certificate is verified: at hosts, at policy hosts, at webhooks. Empty: none.
    pub ca_file: PathBuf,
    /// Outbound connections in all.
    pub max_connections: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IpChoice {
    Ipv4,
    /// IPv6 only where no MX host has an A record, or this host has no IPv4 route.
    PreferIpv4,
    Both,
}

/// One `[[tls_policy]]`: stronger than what a provider or `[delivery]` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsPolicy {
    /// The recipients' domain; with a dot before it, it and all below it.
    pub domain: String,
    pub tls: TlsMode,
}

/// `[[route]] tls`: TLS towards a next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HopTls {
    Off,
    Opportunistic,
    Encrypt,
    Verify,
    /// From the first octet (port 465), verified.
    Implicit,
}

impl HopTls {
    pub fn mode(self) -> TlsMode {
        match self {
            HopTls::Off => TlsMode::Off,
            HopTls::Opportunistic => TlsMode::Opportunistic,
            HopTls::Encrypt => TlsMode::Encrypt,
            HopTls::Verify | HopTls::Implicit => TlsMode::Verify,
        }
    }
}

impl Default for Delivery {
    fn default() -> Delivery {
        Delivery {
            port: 25,
            ip: IpChoice::PreferIpv4,
            networks: Vec::new(),
            tls: TlsMode::Opportunistic,
            mta_sts: true,
            chunking: true,
            ca_file: PathBuf::new(),
            max_connections: 2000,
        }
    }
}

/// A sending address of ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub name: String,
    /// The local address connections are made from.
    pub address: IpAddr,
    /// HELO name of this address; default: `hostname`.
    #[serde(default)]
    pub hostname: String,
    /// The address the world sees, where somebody translates addresses. Empty: learned from what receivers say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub public: String,
    /// Providers to whom this address is new: a daily allowance grows by their `warm_up` schedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warm_up: Vec<String>,
}

impl Source {
    /// The address the world sees, if somebody has said it.
    pub fn public_address(&self) -> Option<IpAddr> {
        self.public.parse().ok()
    }
}
