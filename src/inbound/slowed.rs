//! Clients that are kept waiting because receivers do not know whom they write to.
//!
//! A client whose recipients are mostly unknown checks addresses by sending to them, or has a list that is. Receivers forbid
//! the one and distrust the other, and it is our address that pays. Rules that always hold:
//!
//! - a slowed client hears `450 4.7.1` at MAIL, with the reason, and nothing else is changed for it: no connection is refused and
//!   no message under way is cut off;
//! - it is over by itself at the time that was set;
//! - each time a client is slowed it stands in the log by name.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use crate::types::Timestamp;

/// Clients slowed at once. One more takes the place of the one whose time ends first.
const CLIENTS_MAX: usize = 1000;

/// The clients that are slowed. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Slowed(Arc<RwLock<BTreeMap<IpAddr, Slow>>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Slow {
    until: Timestamp,
    reason: Arc<str>,
}

impl Slowed {
    /// Keeps `client` waiting until then. `reason`: in words, for the client and the log.
    pub fn slow(&self, client: IpAddr, reason: &str, until: Timestamp) {
        tracing::warn!("{} is slowed down until {until}: {reason}", client.to_canonical());
        let mut clients = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let client = client.to_canonical();
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&client) {
            let first = clients.iter().min_by_key(|(_, slow)| slow.until).map(|(client, _)| *client);
            first.map(|first| clients.remove(&first));
        }
        clients.insert(client, Slow { until, reason: reason.into() });
    }

    /// Why `client` is kept waiting; none: it is not.
    pub fn reason(&self, client: IpAddr, now: Timestamp) -> Option<Arc<str>> {
        let slow = self.read().get(&client.to_canonical())?.clone();
        if now < slow.until {
            return Some(slow.reason);
        }
        self.sweep(now);
        None
    }

    /// Every client that is kept waiting, until when and why.
    pub fn list(&self, now: Timestamp) -> Vec<(IpAddr, Timestamp, Arc<str>)> {
        let clients = self.read();
        let slowed = clients.iter().filter(|(_, slow)| now < slow.until);
        slowed.map(|(client, slow)| (*client, slow.until, slow.reason.clone())).collect()
    }

    fn sweep(&self, now: Timestamp) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).retain(|_, slow| now < slow.until);
    }

    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<IpAddr, Slow>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn a_client_is_slowed_until_then_and_under_either_form_of_its_address() {
        let slowed = Slowed::default();
        slowed.slow("::ffff:192.0.2.5".parse().unwrap(), "why", at(100));
        let client = IpAddr::from([192, 0, 2, 5]);
        assert_eq!(slowed.reason(client, at(99)).as_deref(), Some("why"));
        assert_eq!(slowed.reason([192, 0, 2, 6].into(), at(99)), None);
        slowed.slow(client, "again", at(200));
        assert_eq!(slowed.list(at(150)), [(client, at(200), "again".into())]);
        assert_eq!(slowed.reason(client, at(200)), None);
        assert!(slowed.read().is_empty());
    }

    #[test]
    fn it_never_remembers_more_than_its_limit() {
        let slowed = Slowed::default();
        for n in 0..2000u32 {
            slowed.slow(std::net::Ipv4Addr::from(n).into(), "why", at(1000 + i64::from(n)));
        }
        assert_eq!(slowed.list(at(0)).len(), CLIENTS_MAX);
        assert!(slowed.reason(std::net::Ipv4Addr::from(1999).into(), at(0)).is_some());
        assert!(slowed.reason(std::net::Ipv4Addr::from(0).into(), at(0)).is_none());
    }
}
