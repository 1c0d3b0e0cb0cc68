//! `[dns]` and `[[route]]`: whom to ask for MX hosts, and where nobody is asked.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dns {
    /// Name servers, `127.0.0.1:5353` form; empty: the system's.
    pub servers: Vec<SocketAddr>,
}

/// A fixed next hop for a domain instead of the MX look-up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
}
