//! SPF as a receiver evaluates it: the function check_host of RFC 7208 section 4, with its limits, over any DNS.
//!
//! Rules that always hold:
//! - ten terms that take look-ups, two of them without an answer, ten hosts of an `mx`, ten names of a `ptr` (section 4.6.4);
//! - what nobody could tell is `temperror`, what is written wrongly is `permerror`, and neither is a "no".
//!
//! Held by the cases of the RFC 7208 test suite (`tests/spf`).

mod macros;
pub mod record;

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;

use crate::route::Dns;
use crate::route::dns::{NoAnswer, Records};
use macros::{DomainSpec, Meaning};
use record::{Directive, Lengths, Mechanism, Qualifier, Record};

/// Terms that take look-ups.
pub const LOOKUPS_MAX: usize = 10;
/// Of them, those without an answer.
const VOID_MAX: usize = 2;
/// Hosts of one `mx`, names of one address.
const NAMES_MAX: usize = 10;

/// Section 2.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    None,
    Neutral,
    Pass,
    Fail,
    SoftFail,
    TempError,
    PermError,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::None => "none",
            Verdict::Neutral => "neutral",
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::SoftFail => "softfail",
            Verdict::TempError => "temperror",
            Verdict::PermError => "permerror",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A client and what it says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    pub ip: IpAddr,
    pub helo: &'a str,
}

/// What came out, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    pub verdict: Verdict,
    /// For people: the term that matched, or what was wrong.
    pub why: String,
    /// The record of the domain itself; none where there is none, or several.
    pub record: Option<String>,
    /// Terms that took look-ups, of [`LOOKUPS_MAX`].
    pub lookups: usize,
}

/// May `client` send mail with `sender` (a mailbox; empty for `<>`) in MAIL FROM?
pub async fn check(dns: &dyn Dns, client: Client<'_>, sender: &str) -> Checked {
    let (local, domain) = match sender.rsplit_once('@') {
        _ if sender.is_empty() => ("", client.helo),
        Some(parts) => parts,
        None => ("", sender),
    };
    let local = if local.is_empty() { "postmaster" } else { local };
    let sender = format!("{local}@{domain}");
    let client = Client { ip: client.ip.to_canonical(), ..client };
    let mut evaluation = Evaluation { dns, client, sender: &sender, lookups: 0, void: 0, record: None };
    let (verdict, why) = match evaluation.host(domain, true).await {
        Ok(said) => said,
        Err(Broken(verdict, why)) => (verdict, why),
    };
    Checked { verdict, why, record: evaluation.record, lookups: evaluation.lookups }
}

struct Evaluation<'a> {
    dns: &'a dyn Dns,
    client: Client<'a>,
    sender: &'a str,
    lookups: usize,
    void: usize,
    record: Option<String>,
}

/// What ends an evaluation wherever it stands: `temperror` or `permerror`.
struct Broken(Verdict, String);

type Said = Result<(Verdict, String), Broken>;

fn wrong(why: impl Into<String>) -> Broken {
    Broken(Verdict::PermError, why.into())
}

impl<'a> Evaluation<'a> {
    /// One domain; in a box, for a record may include others.
    fn host<'s>(&'s mut self, domain: &'s str, is_first: bool) -> Pin<Box<dyn Future<Output = Said> + Send + 's>> {
        Box::pin(async move {
            let domain = domain.strip_suffix('.').unwrap_or(domain);
            if !is_domain(domain) {
                return Ok((Verdict::None, format!("{} is no domain", domain.escape_debug())));
            }
            let text = match self.text(domain).await? {
                Some(text) => text,
                None => return Ok((Verdict::None, format!("{domain} has no SPF record"))),
            };
            if is_first {
                self.record = Some(text.clone());
            }
            let record = Record::parse(&text).map_err(|fault| wrong(format!("the SPF record of {domain}: {fault}")))?;
            for directive in &record.directives {
                if self.matches(directive, domain).await? {
                    return Ok((said(directive.qualifier), format!("`{}` of {domain}", directive.text)));
                }
            }
            match &record.redirect {
                Some(target) if !record.has_all() => self.redirect(target, domain).await,
                _ => Ok((Verdict::Neutral, format!("no term of {domain} matches"))),
            }
        })
    }

    async fn redirect(&mut self, target: &DomainSpec, domain: &str) -> Said {
        self.count()?;
        let target = self.expand(target, domain).await?;
        match self.host(&target, false).await? {
            (Verdict::None, why) => Err(wrong(format!("`redirect=` of {domain} leads nowhere: {why}"))),
            said => Ok(said),
        }
    }

    /// The one SPF record of a domain.
    async fn text(&mut self, domain: &str) -> Result<Option<String>, Broken> {
        let mut records = self.ask(self.dns.txt(&absolute(domain)).await, "TXT", domain)?;
        records.retain(|text| record::is_spf(text));
        match records.len() {
            0 => Ok(None),
            1 => Ok(records.pop()),
            many => Err(wrong(format!("{domain} has {many} SPF records; one is allowed"))),
        }
    }

    async fn matches(&mut self, directive: &Directive, domain: &str) -> Result<bool, Broken> {
        let ip = self.client.ip;
        match &directive.mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network, length) => Ok(is_in(ip, IpAddr::V4(*network), lengths(*length, 128))),
            Mechanism::Ip6(network, length) => Ok(is_in(ip, IpAddr::V6(*network), lengths(32, *length))),
            Mechanism::Include(target) => self.include(target, domain).await,
            Mechanism::A(target, lengths) => {
                self.count()?;
                let name = self.target(target.as_ref(), domain).await?;
                let addresses = self.addresses(&name).await?;
                self.note(addresses.is_empty())?;
                Ok(addresses.into_iter().any(|address| is_in(ip, address, *lengths)))
            }
            Mechanism::Mx(target, lengths) => self.mx(target.as_ref(), *lengths, domain).await,
            Mechanism::Ptr(target) => {
                self.count()?;
                let name = self.target(target.as_ref(), domain).await?;
                let names = self.names().await;
                self.note(names.is_empty())?;
                Ok(names.iter().any(|found| is_within(found, &name)))
            }
            Mechanism::Exists(target) => {
                self.count()?;
                let name = self.expand(target, domain).await?;
                let found = self.v4(&name).await?;
                self.note(found.is_empty())?;
                Ok(!found.is_empty())
            }
        }
    }

    async fn include(&mut self, target: &DomainSpec, domain: &str) -> Result<bool, Broken> {
        self.count()?;
        let target = self.expand(target, domain).await?;
        match self.host(&target, false).await? {
            (Verdict::Pass, _) => Ok(true),
            (Verdict::None, why) => Err(wrong(format!("`include:` of {domain} leads nowhere: {why}"))),
            _ => Ok(false),
        }
    }

    async fn mx(&mut self, target: Option<&DomainSpec>, lengths: Lengths, domain: &str) -> Result<bool, Broken> {
        self.count()?;
        let name = self.target(target, domain).await?;
        if !is_name(&name) {
            return self.note(true).map(|()| false);
        }
        let hosts = self.ask(self.dns.mx(&absolute(&name)).await, "MX", &name)?;
        self.note(hosts.is_empty())?;
        if hosts.len() > NAMES_MAX {
            return Err(wrong(format!("{name} has {} MX hosts; `mx` allows {NAMES_MAX}", hosts.len())));
        }
        for host in hosts {
            let addresses = self.addresses(&host.exchange).await?;
            if addresses.into_iter().any(|address| is_in(self.client.ip, address, lengths)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Addresses of the client's family.
    async fn addresses(&mut self, name: &str) -> Result<Vec<IpAddr>, Broken> {
        if self.client.ip.is_ipv4() {
            return Ok(self.v4(name).await?.into_iter().map(IpAddr::V4).collect());
        }
        if !is_name(name) {
            return Ok(Vec::new());
        }
        let found: Vec<Ipv6Addr> = self.ask(self.dns.v6(&absolute(name)).await, "AAAA", name)?;
        Ok(found.into_iter().map(IpAddr::V6).collect())
    }

    async fn v4(&mut self, name: &str) -> Result<Vec<Ipv4Addr>, Broken> {
        if !is_name(name) {
            return Ok(Vec::new());
        }
        self.ask(self.dns.v4(&absolute(name)).await, "A", name)
    }

    /// The names of the client's address that lead back to it (section 5.5); what fails there is left out.
    async fn names(&mut self) -> Vec<String> {
        let ip = self.client.ip;
        let Ok(found) = self.dns.ptr(ip).await else { return Vec::new() };
        let mut names = Vec::new();
        for name in found.records.into_iter().take(NAMES_MAX) {
            if self.addresses(&name).await.is_ok_and(|addresses| addresses.contains(&ip)) {
                names.push(name);
            }
        }
        names
    }

    async fn target(&mut self, target: Option<&DomainSpec>, domain: &str) -> Result<String, Broken> {
        match target {
            Some(target) => self.expand(target, domain).await,
            None => Ok(domain.to_string()),
        }
    }

    async fn expand(&mut self, target: &DomainSpec, domain: &str) -> Result<String, Broken> {
        let ptr = if target.asks_for_ptr() { self.name_within(domain).await } else { String::new() };
        let Client { ip, helo } = self.client;
        Ok(target.expand(&Meaning { sender: self.sender, domain, ip, helo, ptr: &ptr }))
    }

    /// Section 7.3: the domain itself, else a name below it, else any.
    async fn name_within(&mut self, domain: &str) -> String {
        let names = self.names().await;
        let exact = names.iter().find(|name| name.eq_ignore_ascii_case(domain));
        let below = || names.iter().find(|name| is_within(name, domain));
        exact.or_else(below).or(names.first()).cloned().unwrap_or_default()
    }

    /// One more term that takes look-ups.
    fn count(&mut self) -> Result<(), Broken> {
        self.lookups += 1;
        if self.lookups > LOOKUPS_MAX {
            return Err(wrong(format!("more than {LOOKUPS_MAX} terms take look-ups")));
        }
        Ok(())
    }

    fn note(&mut self, is_void: bool) -> Result<(), Broken> {
        self.void += usize::from(is_void);
        if self.void > VOID_MAX {
            return Err(wrong(format!("more than {VOID_MAX} look-ups found nothing")));
        }
        Ok(())
    }

    fn ask<T>(&self, answer: Result<Records<T>, NoAnswer>, kind: &str, name: &str) -> Result<Vec<T>, Broken> {
        match answer {
            Ok(found) => Ok(found.records),
            Err(why) if why.is_temporary() => {
                Err(Broken(Verdict::TempError, format!("look up {kind} of {name}: {why}")))
            }
            Err(_) => Ok(Vec::new()),
        }
    }
}

fn said(qualifier: Qualifier) -> Verdict {
    match qualifier {
        Qualifier::Pass => Verdict::Pass,
        Qualifier::Fail => Verdict::Fail,
        Qualifier::SoftFail => Verdict::SoftFail,
        Qualifier::Neutral => Verdict::Neutral,
    }
}

fn lengths(v4: u8, v6: u8) -> Lengths {
    Lengths { v4, v6 }
}

fn absolute(name: &str) -> String {
    format!("{name}.")
}

/// Two labels at least (section 4.3), none of them empty or too long.
fn is_domain(name: &str) -> bool {
    name.contains('.') && !name.starts_with('[') && is_name(name)
}

/// Can it be asked for?
fn is_name(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

fn is_within(name: &str, parent: &str) -> bool {
    let (name, parent) = (name.to_ascii_lowercase(), parent.to_ascii_lowercase());
    name.strip_suffix(&parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Are the first bits of both the same?
fn is_in(ip: IpAddr, network: IpAddr, lengths: Lengths) -> bool {
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(lengths.v4)).unwrap_or(0);
            (ip.to_bits() ^ network.to_bits()) & mask == 0
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(lengths.v6)).unwrap_or(0);
            (ip.to_bits() ^ network.to_bits()) & mask == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::TableDns;

    async fn checked(dns: &TableDns, sender: &str) -> Checked {
        check(dns, Client { ip: "52.0.0.7".parse().unwrap(), helo: "relay.weir.dev" }, sender).await
    }

    #[tokio::test]
    async fn it_says_which_term_matched_and_what_it_cost() {
        let dns = TableDns::default()
            .txt("weir.dev.", &["another record", "v=spf1 a include:_spf.weir.dev -all"])
            .v4("weir.dev.", &["52.0.0.1"])
            .txt("_spf.weir.dev.", &["v=spf1 ip4:52.0.0.0/28 ?all"]);
        let found = checked(&dns, "app@weir.dev").await;
        assert_eq!((found.verdict, found.lookups), (Verdict::Pass, 2), "{found:?}");
        assert_eq!(found.why, "`include:_spf.weir.dev` of weir.dev");
        assert_eq!(found.record.as_deref(), Some("v=spf1 a include:_spf.weir.dev -all"));
    }

    #[tokio::test]
    async fn without_a_sender_the_helo_name_counts() {
        let dns = TableDns::default().txt("relay.weir.dev.", &["v=spf1 -all"]);
        assert_eq!(checked(&dns, "").await.verdict, Verdict::Fail);
    }

    #[tokio::test]
    async fn what_nobody_could_tell_is_no_no() {
        let dns = TableDns::default().fails("TXT", "weir.dev.", NoAnswer::TimedOut);
        let found = checked(&dns, "app@weir.dev").await;
        assert_eq!(found.verdict, Verdict::TempError);
        assert!(found.why.contains("TXT of weir.dev: no name server answered"), "{}", found.why);
        assert_eq!(checked(&dns, "app@other.dev").await.verdict, Verdict::None);
    }

    #[tokio::test]
    async fn a_record_that_includes_itself_ends_at_the_limit() {
        let dns = TableDns::default().txt("weir.dev.", &["v=spf1 include:weir.dev -all"]);
        let found = checked(&dns, "app@weir.dev").await;
        assert_eq!((found.verdict, found.lookups), (Verdict::PermError, LOOKUPS_MAX + 1));
    }
}
