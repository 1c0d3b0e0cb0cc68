//! Is port 25 closed from here? Many hosters and nearly all access providers block it, and a relay behind such a block
//! only ever sees time-outs.
//!
//! Pure. The watcher speaks once: when no connection to port 25 has ever succeeded and several addresses of more than
//! one provider timed out. One success silences it for good: from then on a time-out is the receiver's business.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::reachable::is_global;

const PORT: u16 = 25;
/// One receiver that is down, or one of its addresses, says nothing about this network.
const ADDRESSES_MIN: usize = 3;
const PROVIDERS_MIN: usize = 2;
/// Addresses remembered of one provider, so that one large receiver does not fill the memory …
const ADDRESSES_PER_PROVIDER: usize = 4;
/// … and providers in all; more than enough to decide.
const PROVIDERS_MAX: usize = 16;

/// How a connection attempt ended, as far as the network is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// There was a TCP connection, whatever was said on it.
    Succeeded,
    TimedOut,
    /// Refused or unreachable: an answer of some kind, and no sign of a silent filter.
    Failed,
}

/// Watches the connections to the public Internet.
#[derive(Clone, Debug, Default)]
pub struct Port25Watcher {
    succeeded: bool,
    spoken: bool,
    timed_out: BTreeMap<Arc<str>, Vec<IpAddr>>,
}

impl Port25Watcher {
    /// Takes note of a connection attempt; the text for the operator when it has become clear, once.
    pub fn observe(&mut self, address: IpAddr, port: u16, provider: &Arc<str>, outcome: Connect) -> Option<String> {
        if port != PORT || self.succeeded || !is_global(address) {
            return None;
        }
        match outcome {
            Connect::Succeeded => {
                self.succeeded = true;
                self.timed_out.clear();
            }
            Connect::TimedOut => self.remember(address, provider),
            Connect::Failed => {}
        }
        (self.is_shut() && !std::mem::replace(&mut self.spoken, true)).then(|| self.text())
    }

    /// Port 25 seems closed as far as is known now; for readiness and status.
    pub fn is_shut(&self) -> bool {
        let addresses: usize = self.timed_out.values().map(Vec::len).sum();
        self.timed_out.len() >= PROVIDERS_MIN && addresses >= ADDRESSES_MIN
    }

    fn remember(&mut self, address: IpAddr, provider: &Arc<str>) {
        if self.timed_out.len() >= PROVIDERS_MAX && !self.timed_out.contains_key(provider) {
            return;
        }
        let addresses = self.timed_out.entry(provider.clone()).or_default();
        if addresses.len() < ADDRESSES_PER_PROVIDER && !addresses.contains(&address) {
            addresses.push(address);
        }
    }

    fn text(&self) -> String {
        let tried: Vec<String> = self
            .timed_out
            .iter()
            .flat_map(|(provider, addresses)| addresses.iter().map(move |address| format!("{address} ({provider})")))
            .collect();
        format!(
            "port 25 seems closed from this network: no connection to it has ever succeeded, and {} timed out; ask your \
             hoster to open outbound TCP port 25, or send through a relay on another port: [[route]] domain = \"*\", to = \
             \"HOST:587\"",
            tried.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Connect::{Failed, Succeeded, TimedOut};

    fn feed(events: &[(&str, u16, &str, Connect)]) -> (Vec<Option<String>>, Port25Watcher) {
        let mut watcher = Port25Watcher::default();
        let said = events
            .iter()
            .map(|(ip, port, provider, outcome)| {
                watcher.observe(ip.parse().unwrap(), *port, &Arc::from(*provider), *outcome)
            })
            .collect();
        (said, watcher)
    }

    #[test]
    fn speaks_once_after_three_addresses_of_two_providers() {
        let (said, watcher) = feed(&[
            ("52.0.0.1", 25, "outlook", TimedOut),
            ("52.0.0.1", 25, "outlook", TimedOut),
            ("52.0.0.2", 25, "outlook", TimedOut),
            ("142.0.0.1", 25, "gmail", TimedOut),
            ("142.0.0.2", 25, "gmail", TimedOut),
        ]);
        assert_eq!(said.iter().map(Option::is_some).collect::<Vec<_>>(), [false, false, false, true, false]);
        let text = said[3].as_deref().unwrap();
        assert!(
            text.contains("142.0.0.1 (gmail)") && text.contains("52.0.0.2 (outlook)") && text.contains("[[route]]")
        );
        assert!(watcher.is_shut());
    }

    #[test]
    fn one_receiver_alone_proves_nothing() {
        let many: Vec<String> = (1..100).map(|n| format!("52.0.0.{n}")).collect();
        let (said, _) = feed(&many.iter().map(|ip| (ip.as_str(), 25, "outlook", TimedOut)).collect::<Vec<_>>());
        assert!(said.iter().all(Option::is_none));
    }

    #[test]
    fn one_success_silences_it_for_good() {
        let (said, watcher) = feed(&[
            ("52.0.0.1", 25, "a", TimedOut),
            ("52.0.0.2", 25, "b", Succeeded),
            ("52.0.0.3", 25, "b", TimedOut),
            ("52.0.0.4", 25, "c", TimedOut),
            ("52.0.0.5", 25, "d", TimedOut),
        ]);
        assert!(said.iter().all(Option::is_none) && !watcher.is_shut());
    }

    #[test]
    fn a_port_opened_later_is_noticed() {
        let (_, mut watcher) =
            feed(&[("52.0.0.1", 25, "a", TimedOut), ("52.0.0.3", 25, "b", TimedOut), ("52.0.0.4", 25, "c", TimedOut)]);
        assert!(watcher.is_shut());
        watcher.observe("52.0.0.1".parse().unwrap(), 25, &Arc::from("a"), Succeeded);
        assert!(!watcher.is_shut());
    }

    #[test]
    fn other_ports_other_failures_and_local_addresses_do_not_count() {
        let (said, watcher) = feed(&[
            ("52.0.0.1", 587, "a", TimedOut),
            ("52.0.0.2", 25, "b", Failed),
            ("127.0.0.1", 25, "c", TimedOut),
            ("10.0.0.1", 25, "d", TimedOut),
            ("127.0.0.1", 25, "e", Succeeded),
            ("52.0.0.3", 25, "f", TimedOut),
            ("52.0.0.4", 25, "g", TimedOut),
        ]);
        assert!(said.iter().all(Option::is_none) && !watcher.is_shut());
    }
}
