//! Who hands messages in.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Whom it concerns when something is wrong with the messages that come: the user, for many users share an address; where nobody
/// logged in, the client's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Submitter {
    User(Arc<str>),
    Client(IpAddr),
}

impl Submitter {
    /// An IPv4 client is the same client in either form of its address.
    pub fn new(user: Option<&str>, client: IpAddr) -> Submitter {
        user.map_or_else(|| Submitter::Client(client.to_canonical()), |user| Submitter::User(user.into()))
    }
}

impl fmt::Display for Submitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Submitter::User(name) => write!(f, "user {name}"),
            Submitter::Client(address) => write!(f, "client {address}"),
        }
    }
}
