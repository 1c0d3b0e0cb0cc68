//! The way back: do answers to `[feedback] domain` arrive, and does its SPF speak for the return paths in it?

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::finding::{Check, Finding};
use super::senders;
use super::sources::Source;
use super::{dmarc, dmarc::Policy};
use crate::config::Config;
use crate::route::Dns;
use crate::types::Domain;

/// Hosts of the domain that are looked up.
const HOSTS_MAX: usize = 10;

/// Nothing where it is off.
pub(super) async fn look(config: &Config, sources: &[Source], dns: &Arc<dyn Dns>) -> Vec<Finding> {
    let options = &config.feedback;
    let Some(domain) = options.domain() else { return Vec::new() };
    let addresses: Vec<(IpAddr, String)> =
        sources.iter().filter_map(|source| Some((source.public?, source.greeting()))).collect();
    let greeting = addresses.first().map(|(_, greeting)| greeting.as_str());
    let mut findings = vec![exchange(domain.as_str(), &addresses, greeting, &**dns).await];
    if !options.return_path.is_empty() {
        findings.push(senders::spf(domain.as_str(), &addresses, &**dns).await.0);
        for sender in &options.return_path {
            findings.push(alignment(sender, &domain, &**dns).await);
        }
    }
    findings
}

/// Does the MX of the domain lead to us?
async fn exchange(domain: &str, own: &[(IpAddr, String)], greeting: Option<&str>, dns: &dyn Dns) -> Finding {
    let host = greeting.unwrap_or("RELAY-NAME");
    let record = format!("publish:\n{domain}. IN MX 10 {host}.");
    let hosts = match dns.mx(&format!("{domain}.")).await {
        Ok(found) => found.records,
        Err(why) if why.is_temporary() => {
            let text = format!("nobody could tell its MX: {why}");
            return Finding::warn(Check::WayBack, domain, text, "run it again when its name servers answer");
        }
        Err(_) => {
            let text = "has no MX: bounces and unsubscribes do not arrive";
            return Finding::fail(Check::WayBack, domain, text, record);
        }
    };
    let names: Vec<&str> = hosts.iter().take(HOSTS_MAX).map(|host| host.exchange.as_str()).collect();
    let mut found: BTreeSet<IpAddr> = BTreeSet::new();
    for name in names.iter().filter(|name| !name.is_empty()) {
        let name = format!("{name}.");
        let (v4, v6) = tokio::join!(dns.v4(&name), dns.v6(&name));
        found.extend(v4.map(|found| found.records).unwrap_or_default().into_iter().map(IpAddr::V4));
        found.extend(v6.map(|found| found.records).unwrap_or_default().into_iter().map(IpAddr::V6));
    }
    let names = names.join(", ");
    if own.iter().any(|(address, _)| found.contains(address)) {
        return Finding::ok(Check::WayBack, domain, format!("its MX {names} leads to this relay"));
    }
    let text = format!("its MX is {names}, and leads to none of our addresses");
    let remedy = format!(
        "well where that host hands mail of the domain on, by SMTP or to `weir feedback` (docs/feedback.md); else {record}"
    );
    Finding::warn(Check::WayBack, domain, text, remedy)
}

/// Does SPF of a return path count for the sender's domain?
async fn alignment(sender: &Domain, domain: &Domain, dns: &dyn Dns) -> Finding {
    let policy: Option<Policy> = dmarc::find(dns, sender.as_str()).await.ok();
    let is_below = domain.is_within(sender.as_str());
    let is_aligned =
        policy.as_ref().map_or(is_below, |policy| policy.aligns(domain.as_str(), sender.as_str(), policy.strict_spf));
    let subject = sender.as_str();
    if is_aligned {
        return Finding::ok(Check::WayBack, subject, format!("return paths in {domain} are aligned with it"));
    }
    let text = format!("return paths in {domain} are not aligned with it: DMARC passes by DKIM alone");
    let remedy = match policy {
        Some(policy) if policy.strict_spf => {
            format!("take aspf=s out of the record at _dmarc.{}, or sign with DKIM", policy.domain)
        }
        _ => format!("set `feedback.domain` to a domain below {sender}, as in \"fb.{sender}\", or sign with DKIM"),
    };
    Finding::warn(Check::WayBack, subject, text, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::TableDns;
    use crate::types::Status::{Fail, Ok, Warn};

    fn own() -> Vec<(IpAddr, String)> {
        vec![("52.31.7.9".parse().unwrap(), "relay.weir.dev".to_string())]
    }

    #[tokio::test]
    async fn the_record_that_is_missing_is_named() {
        let none = exchange("fb.weir.dev", &own(), Some("relay.weir.dev"), &TableDns::default()).await;
        assert_eq!(none.status, Fail);
        assert!(none.remedy.unwrap().ends_with("\nfb.weir.dev. IN MX 10 relay.weir.dev."));
        let here =
            TableDns::default().mx("fb.weir.dev.", &[(10, "relay.weir.dev")]).v4("relay.weir.dev.", &["52.31.7.9"]);
        assert_eq!(exchange("fb.weir.dev", &own(), None, &here).await.status, Ok);
        let elsewhere =
            TableDns::default().mx("fb.weir.dev.", &[(10, "mx.other.dev")]).v4("mx.other.dev.", &["52.31.7.10"]);
        assert_eq!(exchange("fb.weir.dev", &own(), None, &elsewhere).await.status, Warn);
    }

    #[tokio::test]
    async fn a_return_path_outside_the_senders_domain_or_under_a_strict_policy_is_told() {
        let of = |text: &str| Domain::parse(text).unwrap();
        let relaxed = TableDns::default().txt("_dmarc.weir.dev.", &["v=DMARC1; p=reject"]);
        let strict = TableDns::default().txt("_dmarc.weir.dev.", &["v=DMARC1; p=reject; aspf=s"]);
        assert_eq!(alignment(&of("weir.dev"), &of("fb.weir.dev"), &relaxed).await.status, Ok);
        assert_eq!(alignment(&of("weir.dev"), &of("fb.other.dev"), &relaxed).await.status, Warn);
        let told = alignment(&of("weir.dev"), &of("fb.weir.dev"), &strict).await;
        assert!(told.status == Warn && told.remedy.unwrap().contains("aspf=s"));
        assert_eq!(alignment(&of("weir.dev"), &of("fb.weir.dev"), &TableDns::default()).await.status, Ok);
    }
}
