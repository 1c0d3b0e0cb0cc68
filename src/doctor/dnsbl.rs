//! Block lists in the DNS (RFC 5782): is one of our addresses on them?
//!
//! Only where it was asked for: the lists see who asks. Each list is first asked for the entry that it must have, so that silence, or a
//! refusal of the resolver, is not taken for a clean address.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::finding::{Check, Finding};
use super::names;
use crate::route::Dns;
use crate::route::dns::NoAnswer;

/// A list, and where its operators take requests.
struct List {
    zone: &'static str,
    page: &'static str,
}

/// Spamhaus' is the one that Microsoft asks; the others show that something is wrong.
const LISTS: [List; 4] = [
    List { zone: "zen.spamhaus.org", page: "https://check.spamhaus.org/" },
    List { zone: "bl.spamcop.net", page: "https://www.spamcop.net/bl.shtml" },
    List { zone: "b.barracudacentral.org", page: "https://www.barracudacentral.org/lookups" },
    List { zone: "psbl.surriel.com", page: "https://psbl.org/" },
];

/// What every list has an entry for (section 5).
const TEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A finding for each address and list.
pub(super) async fn look(addresses: &[IpAddr], dns: &Arc<dyn Dns>) -> Vec<Finding> {
    let mut tasks = JoinSet::new();
    for (at, list) in LISTS.iter().enumerate() {
        let (addresses, dns) = (addresses.to_vec(), dns.clone());
        tasks.spawn(async move { (at, of_list(list, &addresses, &*dns).await) });
    }
    let mut found = tasks.join_all().await;
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().flat_map(|(_, findings)| findings).collect()
}

async fn of_list(list: &List, addresses: &[IpAddr], dns: &dyn Dns) -> Vec<Finding> {
    let silent = |why: String| {
        let text = format!("does not answer this resolver: {why}");
        let remedy = "such lists refuse large public resolvers: run one on this host and name it:\n[dns]\nservers = [\"127.0.0.1:53\"]";
        vec![Finding::warn(Check::Dnsbl, list.zone, text, remedy)]
    };
    match entries(list, IpAddr::V4(TEST), dns).await {
        Ok(found) if found.iter().any(|code| is_listing(*code)) => {}
        Ok(found) if found.is_empty() => return silent("it denies its own test entry".to_string()),
        Ok(found) => return silent(format!("it says {}", found[0])),
        Err(why) => return silent(why.to_string()),
    }
    let mut findings = Vec::new();
    for ip in addresses {
        let subject = format!("{ip} {}", list.zone);
        findings.push(match entries(list, *ip, dns).await {
            Ok(found) if found.iter().any(|code| is_listing(*code)) => {
                let codes = found.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
                let reason = match dns.txt(&name(list, *ip)).await {
                    Ok(found) => format!(": {}", found.records.join("; ")),
                    Err(_) => String::new(),
                };
                let remedy = format!("end what brought it there, and then ask for removal:\n{}", list.page);
                Finding::fail(Check::Dnsbl, subject, format!("is listed ({codes}){reason}"), remedy)
            }
            Ok(_) => Finding::ok(Check::Dnsbl, subject, "is not listed"),
            Err(why) => super::sources::unanswered(Check::Dnsbl, &subject, &why),
        });
    }
    findings
}

/// 127.255.255.x: "you may not ask", "you ask too much".
fn is_listing(code: Ipv4Addr) -> bool {
    let octets = code.octets();
    octets[0] == 127 && octets[1] != 255
}

async fn entries(list: &List, ip: IpAddr, dns: &dyn Dns) -> Result<Vec<Ipv4Addr>, NoAnswer> {
    match dns.v4(&name(list, ip)).await {
        Ok(found) => Ok(found.records),
        Err(why) if why.is_temporary() => Err(why),
        Err(_) => Ok(Vec::new()),
    }
}

fn name(list: &List, ip: IpAddr) -> String {
    let reverse = names::reverse(ip);
    let digits = reverse.strip_suffix(".in-addr.arpa").or(reverse.strip_suffix(".ip6.arpa")).unwrap_or(&reverse);
    format!("{digits}.{}.", list.zone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::TableDns;
    use crate::types::Status;

    #[tokio::test]
    async fn a_listing_is_told_from_a_list_that_does_not_answer() {
        let dns = TableDns::default()
            .v4("2.0.0.127.zen.spamhaus.org.", &["127.0.0.2", "127.0.0.4"])
            .v4("9.7.31.52.zen.spamhaus.org.", &["127.0.0.10"])
            .txt("9.7.31.52.zen.spamhaus.org.", &["PBL"])
            .v4("2.0.0.127.bl.spamcop.net.", &["127.0.0.2"])
            .v4("2.0.0.127.b.barracudacentral.org.", &["127.255.255.254"]);
        let dns: Arc<dyn Dns> = Arc::new(dns);
        let found = look(&["52.31.7.9".parse().unwrap()], &dns).await;
        let said: Vec<(Status, bool)> = found.iter().map(|f| (f.status, f.text.contains("does not answer"))).collect();
        use Status::{Fail, Ok, Warn};
        assert_eq!(said, [(Fail, false), (Ok, false), (Warn, true), (Warn, true)], "{found:?}");
        assert_eq!(found[0].text, "is listed (127.0.0.10): PBL");
        assert_eq!(name(&LISTS[0], "2a01::1".parse().unwrap()).matches('.').count(), 32 + 3);
    }
}
