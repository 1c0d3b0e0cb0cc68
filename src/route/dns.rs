//! The seam to the name servers: the few questions routing asks, and how an answer can fail.
//!
//! Rules that always hold:
//! - a name with a final dot is absolute; one without is read as programs on this host read names (hosts file, search
//!   list). Only next hops written by the operator are asked for without the dot;
//! - "there is no such name" and "nobody could tell" are never mixed up: the first returns mail, the second keeps it;
//! - every question ends within a bounded time.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::time::Duration;

/// A question under way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Records<T>, NoAnswer>> + Send + 'a>>;

/// What routing asks of the DNS.
pub trait Dns: Send + Sync {
    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, Mx>;

    fn v4<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv4Addr>;

    fn v6<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv6Addr>;

    /// The names of an address: lower case, without final dot.
    fn ptr(&self, address: IpAddr) -> Answer<'_, String>;

    /// The TXT records of a name, the strings of each joined (RFC 7208 section 3.3). Routing needs none; who we are to others does.
    fn txt<'a>(&'a self, _name: &'a str) -> Answer<'a, String> {
        Box::pin(async { Err(NoAnswer::NoSuchName { ttl: None }) })
    }

    /// Whatever is cached about `name`, absolute or not, is asked anew next time.
    fn forget(&self, _name: &str) {}
}

/// The records of an answer, in the order in which they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<T> {
    pub records: Vec<T>,
    /// The least of their times to live.
    pub ttl: Duration,
}

/// One MX record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mx {
    pub preference: u16,
    /// Lower case, without final dot; empty for the root, the mark of a null MX (RFC 7505).
    pub exchange: String,
}

/// Why there are no records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// NXDOMAIN: the name does not exist, with no type of record. `ttl` as the zone's SOA says it (RFC 2308 section 5).
    NoSuchName {
        ttl: Option<Duration>,
    },
    /// NODATA: the name exists, records of this type do not.
    NoSuchRecord {
        ttl: Option<Duration>,
    },
    /// SERVFAIL and its like: the name server could not find out.
    ServerFailure,
    Refused,
    TimedOut,
    /// No name server could be reached, or what came back made no sense.
    Broken(String),
}

impl NoAnswer {
    /// Nobody knows whether there are records; asking again may tell.
    pub fn is_temporary(&self) -> bool {
        !matches!(self, NoAnswer::NoSuchName { .. } | NoAnswer::NoSuchRecord { .. })
    }

    /// How long the zone wants its "no" to be remembered.
    pub fn ttl(&self) -> Option<Duration> {
        match self {
            NoAnswer::NoSuchName { ttl } | NoAnswer::NoSuchRecord { ttl } => *ttl,
            _ => None,
        }
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoAnswer::NoSuchName { .. } => f.write_str("no such name (NXDOMAIN)"),
            NoAnswer::NoSuchRecord { .. } => f.write_str("no such record"),
            NoAnswer::ServerFailure => f.write_str("the name server failed (SERVFAIL)"),
            NoAnswer::Refused => f.write_str("the name server refused to answer (REFUSED)"),
            NoAnswer::TimedOut => f.write_str("no name server answered in time"),
            NoAnswer::Broken(what) => write!(f, "the name server could not be used: {what}"),
        }
    }
}
