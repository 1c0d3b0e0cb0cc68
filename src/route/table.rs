//! A [`Dns`] for tests: what is in the table is answered, everything else does not exist.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::dns::{Answer, Dns, Mx, NoAnswer, Records};

pub(crate) const TTL: Duration = Duration::from_secs(300);

#[derive(Clone)]
enum Row {
    Mx(Vec<Mx>),
    V4(Vec<Ipv4Addr>),
    V6(Vec<Ipv6Addr>),
    Ptr(Vec<String>),
    Txt(Vec<String>),
}

type Key = (&'static str, String);
type Entry = Result<(Row, Duration), NoAnswer>;

#[derive(Default)]
pub(crate) struct TableDns {
    rows: Mutex<BTreeMap<Key, Entry>>,
    /// Every question, in order: `MX example.test.`
    pub(crate) asked: Mutex<Vec<String>>,
    pub(crate) forgotten: Mutex<Vec<String>>,
    pub(crate) gate: Option<Semaphore>,
}

fn parsed<T: FromStr<Err: std::fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl TableDns {
    pub(crate) fn mx(self, name: &str, hosts: &[(u16, &str)]) -> TableDns {
        let mx = |(preference, exchange): &(u16, &str)| Mx { preference: *preference, exchange: exchange.to_string() };
        self.row("MX", name, Ok((Row::Mx(hosts.iter().map(mx).collect()), TTL)))
    }

    pub(crate) fn v4(self, name: &str, addresses: &[&str]) -> TableDns {
        self.row("A", name, Ok((Row::V4(parsed(addresses)), TTL)))
    }

    pub(crate) fn v6(self, name: &str, addresses: &[&str]) -> TableDns {
        self.row("AAAA", name, Ok((Row::V6(parsed(addresses)), TTL)))
    }

    pub(crate) fn ptr(self, address: &str, names: &[&str]) -> TableDns {
        self.row("PTR", address, Ok((Row::Ptr(names.iter().map(ToString::to_string).collect()), TTL)))
    }

    pub(crate) fn txt(self, name: &str, texts: &[&str]) -> TableDns {
        self.row("TXT", name, Ok((Row::Txt(texts.iter().map(ToString::to_string).collect()), TTL)))
    }

    /// The question of `kind` about `name` fails so.
    pub(crate) fn fails(self, kind: &'static str, name: &str, why: NoAnswer) -> TableDns {
        self.row(kind, name, Err(why))
    }

    /// From now on each question waits for a permit of the gate.
    pub(crate) fn gated(mut self) -> TableDns {
        self.gate = Some(Semaphore::new(0));
        self
    }

    /// The time to live of a row that is there.
    pub(crate) fn lives(self, kind: &'static str, name: &str, secs: u64) -> TableDns {
        if let Some(Ok((_, ttl))) = self.rows.lock().unwrap().get_mut(&(kind, name.to_string())) {
            *ttl = Duration::from_secs(secs);
        }
        self
    }

    /// From now on the question of `kind` about `name` fails so.
    pub(crate) fn publish_failure(&self, kind: &'static str, name: &str, why: NoAnswer) {
        self.rows.lock().unwrap().insert((kind, name.to_string()), Err(why));
    }

    /// From now on these are the TXT records of `name`.
    pub(crate) fn publish_txt(&self, name: &str, texts: &[&str]) {
        let row = Row::Txt(texts.iter().map(ToString::to_string).collect());
        self.rows.lock().unwrap().insert(("TXT", name.to_string()), Ok((row, TTL)));
    }

    /// Takes the failure of a question away.
    pub(crate) fn mend(&self, kind: &'static str, name: &str) {
        self.rows.lock().unwrap().remove(&(kind, name.to_string()));
    }

    fn row(self, kind: &'static str, name: &str, row: Entry) -> TableDns {
        self.rows.lock().unwrap().insert((kind, name.to_string()), row);
        self
    }

    async fn ask<T>(&self, kind: &'static str, name: &str, pick: fn(Row) -> Vec<T>) -> Result<Records<T>, NoAnswer> {
        self.asked.lock().unwrap().push(format!("{kind} {name}"));
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        let rows = self.rows.lock().unwrap();
        match rows.get(&(kind, name.to_string())) {
            Some(Ok((row, ttl))) => Ok(Records { records: pick(row.clone()), ttl: *ttl }),
            Some(Err(why)) => Err(why.clone()),
            None if rows.iter().any(|((_, other), row)| other == name && row.is_ok()) => {
                Err(NoAnswer::NoSuchRecord { ttl: None })
            }
            None => Err(NoAnswer::NoSuchName { ttl: None }),
        }
    }
}

impl Dns for TableDns {
    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, Mx> {
        Box::pin(self.ask("MX", name, |row| if let Row::Mx(list) = row { list } else { vec![] }))
    }

    fn v4<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv4Addr> {
        Box::pin(self.ask("A", name, |row| if let Row::V4(list) = row { list } else { vec![] }))
    }

    fn v6<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv6Addr> {
        Box::pin(self.ask("AAAA", name, |row| if let Row::V6(list) = row { list } else { vec![] }))
    }

    fn ptr(&self, address: IpAddr) -> Answer<'_, String> {
        Box::pin(async move {
            let name = address.to_string();
            self.ask("PTR", &name, |row| if let Row::Ptr(list) = row { list } else { vec![] }).await
        })
    }

    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        Box::pin(self.ask("TXT", name, |row| if let Row::Txt(list) = row { list } else { vec![] }))
    }

    fn forget(&self, name: &str) {
        self.forgotten.lock().unwrap().push(name.to_string());
    }
}
