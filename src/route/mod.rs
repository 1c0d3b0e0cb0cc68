//! Route: from a recipient's domain to hosts in order, their addresses and providers.
//!
//! [`Router`] answers for a domain, [`candidates`] says in which order one delivery tries the addresses, and
//! [`identity`] knows who we are to those hosts. The DNS stands behind the seam [`Dns`].

pub mod attached;
mod choice;
mod credible;
pub mod dns;
pub mod fixed;
pub mod hickory;
pub mod identity;
mod login;
mod lookup;
pub mod options;
pub mod order;
mod policy;
pub mod port25;
pub mod provider;
pub mod reachable;
pub mod router;
pub mod sts;
#[cfg(test)]
pub(crate) mod table;

use std::net::SocketAddr;
use std::sync::Arc;

pub use dns::Dns;
pub use fixed::{FixedRouteError, FixedRoutes};
pub use hickory::HickoryDns;
pub use identity::{Identity, Reach};
pub use login::{Access, Accesses, LoginError};
pub use order::{Candidate, FailureMemory, candidates};
pub use policy::{Demand, TlsPolicies};
pub use port25::Port25Watcher;
pub use provider::ProviderTable;
pub use reachable::{OwnAddresses, Reachable};
pub use router::{Router, Settings};
pub use sts::Sts;

use crate::types::{StsMode, Timestamp};

/// Where the mail of a domain goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// In order of preference; never empty.
    pub hosts: Vec<Host>,
    /// To be asked again from then on.
    pub valid_until: Timestamp,
    /// A `[[route]]` of the configuration or an operator's order, not the DNS, decided.
    pub fixed: bool,
    /// The `[[route]]` names in `limits` whose limits hold there; else it is a hop of the operator's own, which may be used at once.
    pub limits_named: bool,
    /// How the hop is spoken to, where the `[[route]]` says it; else as any other host.
    pub access: Option<Arc<Access>>,
    /// What the domain's mail asks for of itself.
    pub demand: Option<Demand>,
    /// What the domain's MTA-STS policy makes of it. The hosts are those that it names, where it is enforced.
    pub sts: Option<StsMode>,
}

/// One MX host.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// Lower case, no final dot; the literal for a literal.
    pub name: Arc<str>,
    pub preference: u16,
    /// Addresses that may be used, family already chosen; never empty in what the router answers.
    pub addresses: Vec<SocketAddr>,
    pub provider: Arc<str>,
}

/// No route, and what that means for the mail.
#[derive(Clone, Debug, PartialEq)]
pub struct Unroutable {
    /// Final: the mail is returned (and nobody suppressed). Otherwise it waits.
    pub permanent: bool,
    /// RFC 3463: `5.1.2`, `5.1.10`, `5.4.4`, `5.4.6`, `4.4.3`, …
    pub status: &'static str,
    /// For people: what was asked, whom, what came back.
    pub text: String,
    /// The failure is remembered until then.
    pub valid_until: Timestamp,
}
