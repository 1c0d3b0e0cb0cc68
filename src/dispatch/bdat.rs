//! Which hosts take BDAT (RFC 3030), among those that offer CHUNKING.
//!
//! Some offer it for what stands behind them, and answer BDAT as an unknown command or end the connection at it. Their mail goes
//! by DATA from then on, and the message that found out goes at once.
//!
//! - Where the content may have been read before the connection ended, the message goes by its schedule, as after any lost answer.
//! - A host that has taken BDAT before is believed: a connection that ends there is a lost connection.
//! - In memory alone: after a restart it is found out again.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::outbound::Bdat;

/// Hosts remembered of each kind; beyond it one that is as good as any is forgotten.
const HOSTS_MAX: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct BdatHosts {
    taken: BTreeSet<Arc<str>>,
    refused: BTreeSet<Arc<str>>,
}

impl BdatHosts {
    pub(super) fn may_have(&self, host: &str) -> bool {
        !self.refused.contains(host)
    }

    /// Takes what a transaction has shown. True: the message goes by DATA now, also where its content may have arrived.
    pub(super) fn note(&mut self, host: &Arc<str>, bdat: Bdat) -> bool {
        let (place, again) = match bdat {
            Bdat::Untold => return false,
            Bdat::Taken => (&mut self.taken, false),
            Bdat::Refused => (&mut self.refused, true),
            Bdat::Lost | Bdat::Suspect if self.taken.contains(host) => return false,
            Bdat::Lost => (&mut self.refused, true),
            Bdat::Suspect => (&mut self.refused, false),
        };
        if place.len() >= HOSTS_MAX && !place.contains(host) {
            place.pop_first();
        }
        place.insert(host.clone());
        again
    }
}

#[cfg(test)]
mod tests {
    use super::super::core_tests::{CALM, World};
    use super::super::lane_tests::secs;
    use super::*;
    use crate::throttle::options::ProviderOptions;

    #[test]
    fn a_host_that_refuses_bdat_is_remembered_and_one_that_took_it_is_believed() {
        let mut hosts = BdatHosts::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(Arc::<str>::from);
        assert!(!hosts.note(&a, Bdat::Untold) && hosts.may_have("a"));
        assert!(hosts.note(&a, Bdat::Refused) && !hosts.may_have("a"));
        assert!(!hosts.note(&b, Bdat::Taken) && !hosts.note(&b, Bdat::Lost) && !hosts.note(&b, Bdat::Suspect));
        assert!(hosts.may_have("b"));
        assert!(hosts.note(&b, Bdat::Refused) && !hosts.may_have("b"));
        assert!(hosts.note(&c, Bdat::Lost) && !hosts.may_have("c"));
        assert!(!hosts.note(&d, Bdat::Suspect) && !hosts.may_have("d"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut hosts = BdatHosts::default();
        for n in 0..HOSTS_MAX + 10 {
            hosts.note(&format!("{n}").into(), Bdat::Refused);
        }
        assert_eq!(hosts.refused.len(), HOSTS_MAX);
    }

    #[test]
    fn a_message_whose_bdat_was_refused_goes_by_data_at_once_and_the_next_ones_too() {
        for (bdat, deferrals) in [(Bdat::Refused, 0), (Bdat::Lost, 2)] {
            let mut world = World::new(51, CALM);
            world.bdat = Some(bdat);
            let first = world.submit("s@sender.test", &["a@own.test", "b@own.test"]);
            world.run_for(secs(30));
            assert!(!world.spool.contains_key(&first), "{bdat:?}: it is delivered without a wait");
            assert_eq!((&world.chunked[..], world.deferrals), (&[true, false][..], deferrals), "{bdat:?}");
            let hosts: Vec<Arc<str>> = world.plans.iter().map(|plan| plan.host.clone()).collect();
            assert!(hosts.iter().all(|host| *host == hosts[0]), "{bdat:?}: on that host, {hosts:?}");
            world.dead_hosts.extend((1..=3).map(|n| format!("mx{n}.own.test").into()).filter(|host| *host != hosts[0]));
            world.submit("s@sender.test", &["c@own.test"]);
            world.run_for(secs(60));
            assert_eq!(world.chunked, [true, false, false], "{bdat:?}");
            world.assert_all_ended_once(51);
        }
    }

    #[test]
    fn a_connection_that_ends_where_bdat_was_taken_before_is_a_doubt() {
        let mut world = World::new(52, CALM);
        world.bdat = Some(Bdat::Lost);
        for n in 1..=3 {
            world.core.bdat.note(&format!("mx{n}.own.test").into(), Bdat::Taken);
        }
        let id = world.submit("s@sender.test", &["a@own.test"]);
        world.run_for(secs(30));
        assert_eq!((world.chunked.len(), world.only_delivery(id).attempts), (1, 1));
    }

    #[test]
    fn bdat_can_be_switched_off_for_a_provider() {
        let own = ProviderOptions { name: "own".into(), chunking: Some(false), ..Default::default() };
        let mut world = World::with(53, CALM, vec![own]);
        world.submit("s@sender.test", &["a@own.test"]);
        world.submit("s@sender.test", &["a@other.test"]);
        world.run_for(secs(60));
        world.chunked.sort_unstable();
        assert_eq!(world.chunked, [false, true]);
    }
}
