//! `[dns]` and `[[route]]`: whom to ask for MX hosts, and where nobody is asked.

use std::net::{IpAddr, SocketAddr};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::outbound::options::HopTls;
use crate::types::Secret;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Name servers, as in `192.0.2.1` (port 53) or `127.0.0.1:5353`; empty: the system's.
    #[serde(deserialize_with = "name_servers")]
    pub servers: Vec<SocketAddr>,
}

/// An address with a port, or one alone: port 53.
pub fn name_server(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 53)))
}

fn name_servers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<SocketAddr>, D::Error> {
    let servers = Vec::<String>::deserialize(from)?;
    let read = |text: &String| name_server(text).ok_or_else(|| D::Error::custom(format!("{text:?} is no name server")));
    servers.iter().map(read).collect()
}

/// A fixed next hop for a domain instead of the MX look-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteEntry {
    /// The recipients' domain, or `*` for every domain without an entry of its own.
    #[serde(default)]
    pub domain: String,
    /// Instead of `domain`: all mail that the MX hosts would bring to this provider.
    #[serde(default)]
    pub provider: String,
    /// `HOST:PORT`; a host name is looked up by its addresses, not its MX.
    pub to: String,
    /// The provider whose limits and rules hold at this hop. Empty: by the profile whose `domains` list the domain, else its own;
    /// always its own for an entry with `provider`, so that the mail leaves that provider's lanes.
    #[serde(default)]
    pub limits: String,
    /// The name we log in by at this hop (AUTH PLAIN or LOGIN).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The password of `username`. Whoever reads the configuration has it.
    #[serde(default, skip_serializing_if = "Secret::is_empty")]
    pub password: Secret,
    /// A file with that password, on one line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub password_file: String,
    /// TLS towards this hop; absent: `verify` with a `username`, else as towards all hosts. Danger: with a `username`, what is less than
    /// `verify` gives the password to whoever stands in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<HopTls>,
    /// Whether the route counts.
    #[serde(default = "yes")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

impl Default for RouteEntry {
    fn default() -> RouteEntry {
        RouteEntry {
            domain: String::new(),
            provider: String::new(),
            to: String::new(),
            limits: String::new(),
            username: String::new(),
            password: Secret::default(),
            password_file: String::new(),
            tls: None,
            enabled: true,
        }
    }
}

impl RouteEntry {
    /// The entry, for people.
    pub fn named(&self) -> String {
        let whose = if self.provider.is_empty() { &self.domain } else { &self.provider };
        format!("[[route]] for \"{whose}\"")
    }
}
