//! `[[tls_policy]]`: how the mail of a recipient domain is protected on its way.
//!
//! - An entry for the very domain comes first, then the longest of those that begin with a dot, which count for their domain and
//!   all below it.
//! - What an entry asks for is part of the domain's route: it is known before domains with the same hosts are joined.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::outbound::options::TlsPolicy;
use crate::types::{Domain, TlsMode};

/// What a recipient domain asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    pub tls: TlsMode,
    /// For people: `[[tls_policy]] for "bank.example"`.
    pub named: Arc<str>,
}

impl Demand {
    /// An MTA-STS policy is enforced. It is named so that domains which ask for the same can share their connections.
    pub(super) fn of_sts() -> Demand {
        Demand { tls: TlsMode::Verify, named: "MTA-STS policy (mode enforce) of the recipients' domain".into() }
    }
}

/// All entries, read once.
#[derive(Clone, Debug, Default)]
pub struct TlsPolicies {
    exact: BTreeMap<String, Demand>,
    /// By what stands behind the dot.
    below: BTreeMap<String, Demand>,
}

impl TlsPolicies {
    /// Of two entries for one domain the later counts; a configuration with two is refused before.
    pub fn new(entries: &[TlsPolicy]) -> TlsPolicies {
        let mut policies = TlsPolicies::default();
        for TlsPolicy { domain, tls } in entries {
            let demand = Demand { tls: *tls, named: format!("[[tls_policy]] for \"{domain}\"").into() };
            let key = |name: &str| Domain::parse(name).map_or_else(|_| name.to_lowercase(), |name| name.to_string());
            match domain.strip_prefix('.') {
                Some(suffix) => policies.below.insert(key(suffix), demand),
                None => policies.exact.insert(key(domain), demand),
            };
        }
        policies
    }

    pub fn of(&self, domain: &Domain) -> Option<Demand> {
        let name = domain.as_str();
        if let Some(demand) = self.exact.get(name) {
            return Some(demand.clone());
        }
        let parents = name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..));
        std::iter::once(name).chain(parents).find_map(|name| self.below.get(name)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_very_domain_comes_first_then_the_longest_suffix_of_whole_labels() {
        let entry = |domain: &str, tls| TlsPolicy { domain: domain.into(), tls };
        let policies = TlsPolicies::new(&[
            entry("Bank.example", TlsMode::Verify),
            entry(".example", TlsMode::Encrypt),
            entry(".co.example", TlsMode::Off),
            entry("münchen.example", TlsMode::Verify),
        ]);
        for (domain, tls) in [
            ("bank.example", Some(TlsMode::Verify)),
            ("sub.bank.example", Some(TlsMode::Encrypt)),
            ("example", Some(TlsMode::Encrypt)),
            ("co.example", Some(TlsMode::Off)),
            ("a.b.co.example", Some(TlsMode::Off)),
            ("fco.example", Some(TlsMode::Encrypt)),
            ("fexample", None),
            ("example.test", None),
            ("münchen.example", Some(TlsMode::Verify)),
            ("[192.0.2.1]", None),
        ] {
            assert_eq!(policies.of(&Domain::parse(domain).unwrap()).map(|demand| demand.tls), tls, "{domain}");
        }
    }
}
