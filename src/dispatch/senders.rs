//! The domains that mail comes from, as numbers: a delivery in memory has no room for names.

use std::collections::BTreeMap;

use crate::types::Domain;

/// Domains remembered; mail of further ones is treated as if its sender had none. Some 10 MiB.
const DOMAINS_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Senders {
    ids: BTreeMap<Domain, u32>,
    names: Vec<Domain>,
}

impl Senders {
    /// The number of a domain; 0 for none.
    pub(super) fn number(&mut self, domain: Option<&Domain>) -> u32 {
        let Some(domain) = domain else { return 0 };
        if let Some(id) = self.ids.get(domain) {
            return *id;
        }
        if self.names.len() >= DOMAINS_MAX {
            return 0;
        }
        self.names.push(domain.clone());
        let id = u32::try_from(self.names.len()).unwrap_or(0);
        self.ids.insert(domain.clone(), id);
        id
    }

    pub(super) fn domain(&self, number: u32) -> Option<&Domain> {
        self.names.get((number as usize).checked_sub(1)?)
    }
}
