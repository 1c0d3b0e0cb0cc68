//! MTA-STS as the relay runs it: its policies are kept beside what was learned of the receivers.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::Config;
use crate::post::Tls;
use crate::route::Dns;
pub(super) use crate::route::sts::Life;
use crate::route::sts::{Around, Https, Sts};
use crate::state::{Record, Store};

/// In place of a provider. No provider and no domain is called so: it has blanks.
const POLICY: &str = "policies of mta-sts";

/// Parts the policies, domain and text, from the records of lanes.
pub(super) fn parted(records: Vec<Record>) -> (Vec<(String, String)>, Vec<Record>) {
    let (policies, lanes): (Vec<Record>, Vec<Record>) =
        records.into_iter().partition(|record| record.provider == POLICY);
    (policies.into_iter().map(|record| (record.source, record.state)).collect(), lanes)
}

pub(super) fn around(config: &Config, dns: Arc<dyn Dns>) -> Around {
    Around { dns, networks: config.delivery.networks.as_slice().into() }
}

pub(super) fn start(around: Around, tls: &Tls, clock: &Clock, store: Store, life: Life) -> Arc<Sts> {
    let keep = move |domain: &crate::types::Domain, state: String| {
        store.save(vec![Record { provider: POLICY.to_string(), source: domain.to_string(), state }]);
    };
    Sts::new(Box::new(Https::new(tls.clone())), Box::new(keep), around, clock.clone(), life)
}
