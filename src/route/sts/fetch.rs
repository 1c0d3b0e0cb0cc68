//! Gets a policy from where a domain publishes it (RFC 8461 section 3.3).
//!
//! - HTTPS alone, with a chain to a trusted authority and a certificate for the policy host; redirections are not followed;
//! - a policy host is written by strangers like an MX host: only public addresses are spoken to, and those in `[delivery] networks`;
//! - a minute and [`OCTETS_MAX`] bound what it can cost.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::policy::{OCTETS_MAX, Policy};
use crate::post::{self, Names, Target, Tls, Wanted};
use crate::route::dns::Dns;
use crate::types::Domain;
use crate::types::internet::is_global;

const HTTPS: u16 = 443;
/// Section 3.3 suggests it.
const FETCH_TIME: Duration = Duration::from_secs(60);
/// Addresses of a policy host that are tried.
const ADDRESSES_MAX: usize = 8;

pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Policy, String>> + Send + 'a>>;

/// What a fetch goes by; replaced when the configuration is.
#[derive(Clone)]
pub struct Around {
    pub dns: Arc<dyn Dns>,
    /// `[delivery] networks`.
    pub networks: Arc<[IpNet]>,
}

/// The seam to the policy hosts.
pub trait Fetch: Send + Sync {
    /// The policy of `domain` as it is now; the error says what was tried and what came back.
    fn fetch<'a>(&'a self, domain: &'a Domain, around: &'a Around) -> Fetching<'a>;
}

/// The real one.
pub struct Https {
    tls: Tls,
    port: u16,
}

impl Https {
    pub fn new(tls: Tls) -> Https {
        Https { tls, port: HTTPS }
    }

    #[cfg(test)]
    pub(super) fn at(tls: Tls, port: u16) -> Https {
        Https { tls, port }
    }

    async fn get(&self, domain: &Domain, around: &Around) -> Result<Policy, String> {
        let host = format!("mta-sts.{domain}");
        let url = format!("https://{host}:{}/.well-known/mta-sts.txt", self.port);
        let target = Target::parse(&url).ok_or_else(|| format!("{host} is no host of a URL"))?;
        let may_reach = |ip: IpAddr| match is_global(ip) || around.networks.iter().any(|net| net.contains(&ip)) {
            true => Ok(()),
            false => Err(format!("{host} has the address {ip}, which is not public")),
        };
        let wanted = Wanted { target: &target, time_limit: FETCH_TIME, octets_max: OCTETS_MAX };
        let got = post::get(&self.tls, &wanted, &Published(around.dns.clone()), may_reach).await;
        let document = got.map_err(|error| format!("https://{host}: {error}"))?;
        let kind = document.content_type.as_deref().unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("text/plain") {
            let kind: String = kind.chars().filter(|c| !c.is_control()).take(64).collect();
            return Err(format!("https://{host}: the policy is of type `{kind}` instead of text/plain"));
        }
        Policy::parse(&document.content).map_err(|error| format!("https://{host}: {error}"))
    }
}

impl Fetch for Https {
    fn fetch<'a>(&'a self, domain: &'a Domain, around: &'a Around) -> Fetching<'a> {
        Box::pin(self.get(domain, around))
    }
}

/// Names as the public DNS has them.
struct Published(Arc<dyn Dns>);

impl Names for Published {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let name = format!("{host}.");
        let (v4, v6) = tokio::join!(self.0.v4(&name), self.0.v6(&name));
        let fault = v4.as_ref().err().or(v6.as_ref().err()).map(ToString::to_string);
        let v4 = v4.into_iter().flat_map(|found| found.records).map(IpAddr::from);
        let v6 = v6.into_iter().flat_map(|found| found.records).map(IpAddr::from);
        let addresses: Vec<IpAddr> = v4.chain(v6).take(ADDRESSES_MAX).collect();
        match fault {
            Some(fault) if addresses.is_empty() => Err(fault),
            _ => Ok(addresses),
        }
    }
}
