//! The demo's DNS: a table inside the process. Nothing is asked of anybody.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::route::Dns;
use crate::route::dns::{Answer, Mx, NoAnswer, Records};

/// As short as Microsoft's.
const TTL: Duration = Duration::from_secs(220);

/// Domains with their MX hosts, and hosts with their addresses; everything else does not exist.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    exchanges: BTreeMap<String, Vec<Mx>>,
    addresses: BTreeMap<String, Vec<Ipv4Addr>>,
}

impl Table {
    pub(super) fn domain(&mut self, domain: &str, preference: u16, exchange: &str) {
        let exchange = Mx { preference, exchange: exchange.to_string() };
        self.exchanges.entry(domain.to_string()).or_default().push(exchange);
    }

    pub(super) fn host(&mut self, name: &str, address: Ipv4Addr) {
        self.addresses.entry(name.to_string()).or_default().push(address);
    }

    fn answer<T: Clone>(&self, records: Option<&Vec<T>>, name: &str) -> Result<Records<T>, NoAnswer> {
        match records {
            Some(records) => Ok(Records { records: records.clone(), ttl: TTL }),
            None if self.exists(name) => Err(NoAnswer::NoSuchRecord { ttl: Some(TTL) }),
            None => Err(NoAnswer::NoSuchName { ttl: Some(TTL) }),
        }
    }

    fn exists(&self, name: &str) -> bool {
        self.exchanges.contains_key(name) || self.addresses.contains_key(name)
    }
}

/// Names are asked for with a final dot.
fn bare(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

impl Dns for Table {
    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, Mx> {
        let name = bare(name);
        Box::pin(async move { self.answer(self.exchanges.get(name), name) })
    }

    fn v4<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv4Addr> {
        let name = bare(name);
        Box::pin(async move { self.answer(self.addresses.get(name), name) })
    }

    fn v6<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv6Addr> {
        let name = bare(name);
        Box::pin(async move { self.answer(None, name) })
    }

    fn ptr(&self, _address: IpAddr) -> Answer<'_, String> {
        Box::pin(async { Err(NoAnswer::NoSuchName { ttl: None }) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_table_answers_and_nothing_else_exists() {
        let mut table = Table::default();
        table.domain("outlook.com", 5, "mx.test");
        table.host("mx.test", Ipv4Addr::LOCALHOST);
        assert_eq!(table.mx("outlook.com.").await.unwrap().records[0].exchange, "mx.test");
        assert_eq!(table.v4("mx.test.").await.unwrap().records, [Ipv4Addr::LOCALHOST]);
        assert!(matches!(table.v6("mx.test.").await, Err(NoAnswer::NoSuchRecord { .. })));
        assert!(matches!(table.mx("example.com.").await, Err(NoAnswer::NoSuchName { .. })));
    }
}
