//! Which provider a host belongs to: the receiver that counts all its MX hosts as one.
//!
//! A host is known by its name, never by the recipient's domain: whoever points an MX at Outlook is Outlook. Rules:
//! - `*.x.y` matches every name below `x.y`, `x.y` matches itself alone; the longest suffix wins;
//! - of two profiles with the same pattern the later one wins, so that an operator's comes after the shipped ones;
//! - a receiver that no profile knows is a provider of its own, and can never take a profile's name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::types::Domain;

/// All profiles' patterns, ready to be asked. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ProviderTable(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    names: BTreeSet<Arc<str>>,
    mx: Patterns,
    domains: Patterns,
}

impl ProviderTable {
    /// Of each profile its name, its MX patterns, and the domains that count where no MX decides.
    pub fn new<'a>(profiles: impl IntoIterator<Item = (&'a str, &'a [String], &'a [String])>) -> ProviderTable {
        let mut inner = Inner::default();
        for (name, mx, domains) in profiles {
            let name: Arc<str> = name.into();
            mx.iter().for_each(|pattern| inner.mx.add(pattern, &name));
            domains.iter().for_each(|pattern| inner.domains.add(pattern, &name));
            inner.names.insert(name);
        }
        ProviderTable(Arc::new(inner))
    }

    /// Is there a profile of this name? For checking `limits`.
    pub fn knows(&self, name: &str) -> bool {
        self.0.names.contains(name)
    }

    /// The profile that knows the MX host `host`.
    pub fn by_mx(&self, host: &str) -> Option<Arc<str>> {
        self.0.mx.longest(host)
    }

    /// The profile that lists `domain`; for fixed routes alone, where no MX decides.
    pub fn by_domain(&self, domain: &Domain) -> Option<Arc<str>> {
        self.0.domains.longest(domain.as_str())
    }

    /// The providers of one receiver's hosts, given in order (lowest preference, then alphabet): by profile, and for the
    /// hosts that none knows the name of the first such host.
    pub fn of_hosts(&self, hosts: &[&str]) -> Vec<Arc<str>> {
        let mut own: Option<Arc<str>> = None;
        hosts
            .iter()
            .map(|host| self.by_mx(host).unwrap_or_else(|| own.get_or_insert_with(|| self.own(host)).clone()))
            .collect()
    }

    /// The name of a receiver that no profile knows. A domain with `MX 0 outlook.` must not be able to speak for
    /// Outlook, so a profile's name is told apart by the final dot.
    pub fn own(&self, host: &str) -> Arc<str> {
        if self.0.names.contains(host) { format!("{host}.").into() } else { host.into() }
    }
}

#[derive(Debug, Default)]
struct Patterns {
    exact: BTreeMap<String, Arc<str>>,
    /// By what stands behind `*.`.
    below: BTreeMap<String, Arc<str>>,
}

impl Patterns {
    fn add(&mut self, pattern: &str, provider: &Arc<str>) {
        let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
        match pattern.strip_prefix("*.") {
            Some(suffix) => self.below.insert(suffix.to_string(), provider.clone()),
            None => self.exact.insert(pattern, provider.clone()),
        };
    }

    fn longest(&self, name: &str) -> Option<Arc<str>> {
        if let Some(provider) = self.exact.get(name) {
            return Some(provider.clone());
        }
        let suffixes = name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..));
        suffixes.filter_map(|suffix| self.below.get(suffix)).next().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> ProviderTable {
        let list = |items: &[&str]| items.iter().map(ToString::to_string).collect::<Vec<_>>();
        let outlook = list(&["*.olc.protection.outlook.com", "*.pamx1.hotmail.com", "*.hotmail.com"]);
        let business = list(&["*.mail.protection.outlook.com", "*.MX.microsoft."]);
        let wide = list(&["*.outlook.com", "mx.single.test"]);
        let domains = list(&["outlook.com", "hotmail.com"]);
        ProviderTable::new([
            ("outlook", &outlook[..], &domains[..]),
            ("microsoft365", &business[..], &[][..]),
            ("wide", &wide[..], &[][..]),
        ])
    }

    #[test]
    fn the_longest_suffix_wins_and_whole_labels_count() {
        let table = table();
        for (host, provider) in [
            ("outlook-com.olc.protection.outlook.com", Some("outlook")),
            ("mx1.hotmail.com", Some("outlook")),
            ("contoso-com.mail.protection.outlook.com", Some("microsoft365")),
            ("contoso-com.k-v1.mx.microsoft", Some("microsoft365")),
            ("other.outlook.com", Some("wide")),
            ("outlook.com", None),
            ("olc.protection.outlook.com", Some("wide")),
            ("nothotmail.com", None),
            ("mx.single.test", Some("wide")),
            ("a.mx.single.test", None),
            ("", None),
        ] {
            assert_eq!(table.by_mx(host).as_deref(), provider, "{host}");
        }
    }

    #[test]
    fn the_later_of_two_equal_patterns_wins() {
        let patterns = ["*.x.test".to_string()];
        let table = ProviderTable::new([("first", &patterns[..], &[][..]), ("second", &patterns[..], &[][..])]);
        assert_eq!(table.by_mx("a.x.test").as_deref(), Some("second"));
    }

    #[test]
    fn hosts_that_no_profile_knows_share_the_first_ones_name() {
        let names = table().of_hosts(&["b.own.test", "a.own.test", "mx1.hotmail.com", "c.own.test"]);
        assert_eq!(
            names.iter().map(|n| &**n).collect::<Vec<_>>(),
            ["b.own.test", "b.own.test", "outlook", "b.own.test"]
        );
    }

    #[test]
    fn no_receiver_can_call_itself_by_a_profiles_name() {
        assert_eq!(table().of_hosts(&["outlook"]), [Arc::from("outlook.")]);
    }

    #[test]
    fn domains_are_asked_for_only_by_name() {
        let domain = |name: &str| Domain::parse(name).unwrap();
        assert_eq!(table().by_domain(&domain("Hotmail.COM")).as_deref(), Some("outlook"));
        assert_eq!(table().by_domain(&domain("sub.hotmail.com")), None);
    }
}
