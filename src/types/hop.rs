//! A next hop that an operator names: `HOST:PORT`, `192.0.2.1:25`, `[2001:db8::1]:25`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Domain;

/// Where mail is sent instead of the MX hosts of its domain. Its text form is unique: equal hops read alike.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextHop {
    host: HopHost,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HopHost {
    Address(IpAddr),
    /// Looked up by its addresses, not its MX; lower case.
    Name(Arc<str>),
}

impl NextHop {
    pub fn host(&self) -> &HopHost {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for NextHop {
    type Err = String;

    fn from_str(text: &str) -> Result<NextHop, String> {
        let fault = || format!("`{text}` is no next hop: write HOST:PORT, 192.0.2.1:25 or [2001:db8::1]:25");
        if let Ok(socket) = text.parse::<SocketAddr>() {
            let hop = NextHop { host: HopHost::Address(socket.ip()), port: socket.port() };
            return if hop.port == 0 { Err(fault()) } else { Ok(hop) };
        }
        let (name, digits) = text.rsplit_once(':').ok_or_else(fault)?;
        let port = digits.parse().ok().filter(|port: &u16| *port != 0).ok_or_else(fault)?;
        let name = Domain::parse(name).ok().filter(|name| name.literal().is_none()).ok_or_else(fault)?;
        Ok(NextHop { host: HopHost::Name(name.as_str().into()), port })
    }
}

impl From<SocketAddr> for NextHop {
    fn from(address: SocketAddr) -> NextHop {
        NextHop { host: HopHost::Address(address.ip()), port: address.port() }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HopHost::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
            HopHost::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Serialize for NextHop {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NextHop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<NextHop, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_the_rest_is_refused() {
        for (text, shown) in [
            ("127.0.0.1:2600", "127.0.0.1:2600"),
            ("[2001:DB8::1]:25", "[2001:db8::1]:25"),
            ("Smart.Example.com:587", "smart.example.com:587"),
        ] {
            let hop: NextHop = text.parse().unwrap();
            assert_eq!(hop.to_string(), shown);
            assert_eq!(hop.to_string().parse::<NextHop>().unwrap(), hop);
        }
        for text in ["", "host", "host:", "host:0", "127.0.0.1:0", "host:70000", "a b:25", "[host]:25", "2001:db8::1"] {
            assert!(text.parse::<NextHop>().is_err(), "{text}");
        }
    }
}
