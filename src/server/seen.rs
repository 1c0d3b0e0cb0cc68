//! The addresses at which the world sees us, as the receivers name them in their answers to EHLO. No service is asked.
//!
//! One receiver may be mistaken, or stand behind the same translation of addresses as we do: an address counts as changed when
//! nobody has named the old one for a while, and all the time somebody the new one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::admin::record::SeenRecord;
use crate::route::reachable::is_global;
use crate::types::{ALL_CLEAR, Alert, Timestamp};

/// So long the new address must have been named alone.
const SURE: Duration = Duration::from_secs(600);
/// A change is told for so long.
const NEWS: Duration = Duration::from_secs(86_400);
/// Receivers that are remembered for each of our addresses.
const HOSTS_MAX: usize = 100;

/// What receivers say. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen(Arc<Mutex<BTreeMap<Option<IpAddr>, Story>>>);

/// Of one local address; none: the one that the system chooses.
#[derive(Debug)]
struct Story {
    address: IpAddr,
    since: Timestamp,
    /// Named instead, and since when by everybody.
    other: Option<(IpAddr, Timestamp)>,
    /// What each host named last.
    hosts: BTreeMap<Arc<str>, IpAddr>,
    /// It was another one before.
    changed: Option<(IpAddr, Timestamp)>,
}

impl Seen {
    /// Takes the first line of an answer to EHLO; gives an alert where there is news.
    pub(super) fn note(&self, local: Option<IpAddr>, host: &Arc<str>, line: &str, now: Timestamp) -> Option<Alert> {
        let address = address_in(line)?;
        let mut stories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let story = stories.entry(local).or_insert_with(|| Story {
            address,
            since: now,
            other: None,
            hosts: BTreeMap::new(),
            changed: None,
        });
        let news = story.note(host, address, now);
        let name = local.map_or("default".to_string(), |local| local.to_string());
        news.map(|news| news.alert(&name))
    }

    pub(super) fn records(&self) -> Vec<SeenRecord> {
        let stories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let record = |(local, story): (&Option<IpAddr>, &Story)| SeenRecord {
            local: *local,
            address: story.address,
            since: story.since,
            hosts: story.hosts.values().filter(|address| **address == story.address).count() as u64,
            others: story.others(),
            before: story.changed.map(|(before, _)| before),
        };
        stories.iter().map(record).collect()
    }
}

enum News {
    Changed { from: IpAddr, to: IpAddr },
    Old { to: IpAddr },
}

impl News {
    fn alert(self, name: &str) -> Alert {
        let key = format!("public-address {name}");
        match self {
            News::Changed { from, to } => Alert {
                key,
                raised: true,
                text: format!("receivers see us at {to} now, before at {from}"),
                remedy: "PTR, SPF and what receivers were told of us name the old address: mend them, or get the old address back; \
                         a new address begins with a small rate"
                    .to_string(),
                provider: None,
            },
            News::Old { to } => Alert {
                key,
                raised: false,
                text: format!("{ALL_CLEAR}receivers see us at {to}"),
                remedy: String::new(),
                provider: None,
            },
        }
    }
}

impl Story {
    fn note(&mut self, host: &Arc<str>, address: IpAddr, now: Timestamp) -> Option<News> {
        if self.hosts.len() < HOSTS_MAX || self.hosts.contains_key(host) {
            self.hosts.insert(host.clone(), address);
        }
        if address == self.address {
            self.other = None;
            let is_old = self.changed.is_some_and(|(_, at)| now.since(at) >= NEWS);
            return is_old.then(|| self.changed.take()).flatten().map(|_| News::Old { to: address });
        }
        let since = match self.other {
            Some((other, since)) if other == address => since,
            _ => now,
        };
        self.other = Some((address, since));
        if now.since(since) < SURE {
            return None;
        }
        let from = std::mem::replace(&mut self.address, address);
        (self.since, self.other) = (now, None);
        if self.changed.take().is_some_and(|(before, _)| before == address) {
            return Some(News::Old { to: address });
        }
        self.changed = Some((from, now));
        Some(News::Changed { from, to: address })
    }

    /// Other addresses that some hosts name.
    fn others(&self) -> Vec<IpAddr> {
        let mut others: Vec<IpAddr> = self.hosts.values().copied().filter(|address| *address != self.address).collect();
        others.sort_unstable();
        others.dedup();
        others
    }
}

/// The public address that a line names.
fn address_in(line: &str) -> Option<IpAddr> {
    let words =
        line.split(|c: char| c.is_whitespace() || matches!(c, '[' | ']' | '(' | ')' | '<' | '>' | ',' | ';' | '"'));
    let bare =
        |word: &str| word.trim_end_matches('.').trim_start_matches("IPv6:").trim_start_matches("ip=").parse::<IpAddr>();
    words.filter_map(|word| bare(word).ok()).map(|address| address.to_canonical()).find(|address| is_global(*address))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_secs(1_795_262_400);

    #[test]
    fn the_address_is_found_in_the_words_of_many_receivers() {
        for (line, address) in [
            ("mx.google.com at your service, [8.8.4.10]", Some("8.8.4.10")),
            ("BL02EPF0001A108.mail.protection.outlook.com Hello [8.8.4.10]", Some("8.8.4.10")),
            ("mta.example Hello relay.example.com (8.8.4.10), pleased to meet you", Some("8.8.4.10")),
            ("mx.example [IPv6:2a00:1450:4001:80b::200e]", Some("2a00:1450:4001:80b::200e")),
            ("mx.example Hello [127.0.0.1]", None),
            ("mx.example Hello [10.0.0.7]", None),
            ("mx1.example.com", None),
            ("relay 1.2.3 of 4.5", None),
            ("", None),
        ] {
            assert_eq!(address_in(line).map(|a| a.to_string()).as_deref(), address, "{line}");
        }
    }

    #[test]
    fn a_change_is_told_when_nobody_names_the_old_address_any_more() {
        let seen = Seen::default();
        let at = |minutes: u64| NOON + Duration::from_secs(60 * minutes);
        let say = |host: &str, address: &str, minutes| {
            seen.note(None, &host.into(), &format!("hello [{address}]"), at(minutes))
        };
        assert_eq!(say("a", "8.8.4.10", 0), None);
        assert_eq!(say("b", "8.8.4.11", 1), None);
        // Somebody still names the old one: only the two differ.
        assert_eq!(say("a", "8.8.4.10", 12), None);
        assert_eq!(say("b", "8.8.4.11", 13), None);
        assert_eq!(seen.records()[0].others, ["8.8.4.11".parse::<IpAddr>().unwrap()]);
        assert_eq!(say("a", "8.8.4.11", 20), None);
        let alert = say("a", "8.8.4.11", 23).unwrap();
        assert!(alert.raised && alert.text == "receivers see us at 8.8.4.11 now, before at 8.8.4.10", "{alert:?}");
        assert_eq!((seen.records()[0].hosts, seen.records()[0].others.len()), (2, 0));
        assert_eq!(say("a", "8.8.4.11", 24), None);
        assert!(!say("a", "8.8.4.11", 24 * 60 + 24).unwrap().raised);
        assert_eq!(say("a", "8.8.4.11", 24 * 60 + 25), None);
    }
}
