//! Our sending addresses, as the world sees them: reverse name, HELO name, and the SPF record that speaks for bounces.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::finding::{Check, Finding};
use super::names::{self, Look};
use super::spf::{self, Verdict};
use crate::config::Config;
use crate::outbound::options::IpChoice;
use crate::route::Dns;
use crate::route::dns::NoAnswer;
use crate::route::identity::{Identity, local_address_towards};
use crate::route::reachable::is_global;

/// Root name server A: certainly on the public Internet. The routing table is asked about it, it hears nothing of that.
const SOMEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 41, 0, 4));
const SOMEWHERE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0x503, 0xba3e, 0, 0, 0, 2, 0x30));
/// Names of one address that are looked at.
const NAMES_MAX: usize = 10;

/// A sending address, and what it is called.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) name: String,
    /// Connections are bound to it.
    pub(super) bind: Option<IpAddr>,
    /// They leave from it, as far as this host knows.
    pub(super) local: Option<IpAddr>,
    pub(super) helo: Option<String>,
    /// As the configuration says that the world sees it.
    pub(super) set: Option<IpAddr>,
    /// As the world sees it.
    pub(super) public: Option<IpAddr>,
}

/// What the configuration says, before anybody was asked.
pub(super) fn configured(config: &Config, identity: &Identity) -> Vec<Source> {
    let own = identity.name().map(str::to_string);
    let mut sources: Vec<Source> = Vec::new();
    for source in &config.source {
        let helo = if source.hostname.is_empty() { own.clone() } else { Some(source.hostname.to_ascii_lowercase()) };
        let address = Some(source.address);
        let (name, set) = (source.name.clone(), source.public_address());
        sources.push(Source { name, bind: address, local: address, helo, set, public: None });
    }
    if sources.is_empty() {
        let (v4, v6) = (local_address_towards(SOMEWHERE), local_address_towards(SOMEWHERE_V6));
        let v6 = v6.filter(|ip| is_global(*ip));
        let source = |name: &str, local: Option<IpAddr>| {
            let helo = own.clone();
            Source { name: name.to_string(), bind: None, local, helo, set: None, public: None }
        };
        sources.push(source("default", v4.or(v6)));
        // Microsoft wants reverse name and SPF of IPv6 addresses, too, and its refusals there are final.
        if config.delivery.ip == IpChoice::Both && v4.is_some() && v6.is_some() {
            sources.push(source("default-ipv6", v6));
        }
    }
    sources
}

impl Source {
    /// Does mail to `address` leave from here? Not where only the other family does.
    pub(super) fn is_of_family(&self, address: IpAddr) -> bool {
        self.bind.or(self.local).is_none_or(|own| own.is_ipv4() == address.is_ipv4())
    }

    /// What is said in EHLO; an address literal where there is no name.
    pub(super) fn greeting(&self) -> String {
        let literal = || format!("[{}]", self.local.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        self.helo.clone().unwrap_or_else(literal)
    }
}

/// Finds out under which address each source is seen. `seen`: what receivers said, by source.
pub(super) async fn publish(sources: &mut [Source], seen: &BTreeMap<String, IpAddr>, dns: &dyn Dns) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        let asked = match &source.helo {
            Some(helo) => addresses(dns, helo).await,
            None => Ok(Vec::new()),
        };
        let trouble = asked.as_ref().err().cloned();
        let of_name = asked.unwrap_or_default();
        let local = source.local.filter(|ip| is_global(*ip));
        let told = seen.get(&source.name).copied();
        let named = of_name.iter().copied().find(|ip| is_global(*ip) && source.is_of_family(*ip));
        source.public = told.or(source.set).or(local).or(named);
        findings.push(match trouble {
            Some(why) if source.public.is_none() => unanswered(Check::Address, &source.name, &why),
            _ => address_finding(source, told, local),
        });
    }
    findings
}

fn address_finding(source: &Source, told: Option<IpAddr>, local: Option<IpAddr>) -> Finding {
    let own = source.local.map_or("no route to the Internet".to_string(), |ip| format!("{ip} is not public"));
    if let Some(set) = source.set {
        return set_finding(source, set, told);
    }
    match (source.public, told, local) {
        (Some(public), Some(_), Some(local)) if public != local => {
            let text =
                format!("receivers see {public}, though mail leaves from {local}: somebody translates addresses");
            let remedy = "the PTR, SPF and HELO name of what receivers see count; to send from this address itself, have it \
                          routed without translation (NAT)";
            Finding::warn(Check::Address, &source.name, text, remedy)
        }
        (Some(public), Some(_), None) => {
            Finding::ok(Check::Address, &source.name, format!("{public}, as receivers see us ({own} here)"))
        }
        (Some(public), _, Some(_)) => {
            Finding::ok(Check::Address, &source.name, format!("{public}, public and our own"))
        }
        (Some(public), None, None) => {
            let text =
                format!("{own}; {public} is believed, the address of the HELO name, but no receiver has confirmed it");
            let remedy = "once port 25 is open, receivers tell in EHLO which address they see: run `weir doctor` again";
            Finding::warn(Check::Address, &source.name, text, remedy)
        }
        (None, ..) => {
            let text = format!("{own}, and nobody said which address the world sees");
            let remedy = "give the HELO name an A record with the public address, and open port 25:\n\
                          relay.YOURDOMAIN. IN A PUBLIC-ADDRESS";
            Finding::fail(Check::Address, &source.name, text, remedy)
        }
    }
}

/// What was set, against what receivers say.
fn set_finding(source: &Source, set: IpAddr, told: Option<IpAddr>) -> Finding {
    match told {
        Some(told) if told != set => {
            let text = format!("receivers see {told}, and `public` of the source says {set}");
            let remedy =
                format!("correct it:\npublic = \"{told}\"\nor have {set} used again where addresses are translated");
            Finding::warn(Check::Address, &source.name, text, remedy)
        }
        Some(_) => Finding::ok(Check::Address, &source.name, format!("{set}, as it was set and as receivers see us")),
        None => Finding::ok(Check::Address, &source.name, format!("{set}, as it was set; no receiver has said it")),
    }
}

/// Everything that is known of one source by its name and address.
pub(super) async fn judge(source: &Source, dns: &dyn Dns) -> Vec<Finding> {
    let (ptr, helo, spf) = tokio::join!(reverse(source, dns), helo(source, dns), helo_spf(source, dns));
    [ptr, helo, spf].into_iter().flatten().collect()
}

/// The PTR: is there one, does its name lead back, is it the HELO name, and was it chosen?
async fn reverse(source: &Source, dns: &dyn Dns) -> Option<Finding> {
    let ip = source.public?;
    let wanted = source.helo.clone().unwrap_or_else(|| "relay.YOURDOMAIN".to_string());
    let record =
        format!("have the owner of the address (your hoster) set it:\n{}. IN PTR {wanted}.", names::reverse(ip));
    let mut found = match dns.ptr(ip).await {
        Ok(found) => found.records,
        Err(why) if why.is_temporary() => return Some(unanswered(Check::Ptr, &ip.to_string(), &why)),
        Err(_) => return Some(Finding::fail(Check::Ptr, ip, "has no reverse name (PTR)", record)),
    };
    found.truncate(NAMES_MAX);
    let mut agreeing = Vec::new();
    let mut trouble = None;
    for name in &found {
        match addresses(dns, name).await {
            Ok(back) if back.contains(&ip) => agreeing.push(name.as_str()),
            Ok(_) => {}
            Err(why) => trouble = Some(why),
        }
    }
    if agreeing.is_empty() {
        if let Some(why) = trouble {
            return Some(unanswered(Check::Ptr, &found.join(", "), &why));
        }
        let text = format!("its reverse name {} does not lead back to it", found.join(", "));
        let name = found.first().map_or("", String::as_str);
        let remedy = format!("give that name the address, or change the PTR:\n{}\n{}", a_record(name, ip), record);
        return Some(Finding::fail(Check::Ptr, ip, text, remedy));
    }
    let own = source.helo.as_deref().and_then(|helo| agreeing.iter().find(|name| name.eq_ignore_ascii_case(helo)));
    let name = own.copied().or(agreeing.first().copied()).unwrap_or_default();
    let look = names::look(name, ip);
    Some(match (own, look) {
        (_, Look::Dynamic(word)) => {
            let text = format!("its reverse name {name} looks like a line that comes and goes (`{word}`)");
            Finding::fail(Check::Ptr, ip, text, record)
        }
        (_, Look::Generic) => {
            let text = format!("its reverse name {name} has the address in it, as of machines that nobody has named");
            Finding::warn(Check::Ptr, ip, text, record)
        }
        (Some(_), Look::Own) => Finding::ok(Check::Ptr, ip, format!("{name}, which leads back, and is the HELO name")),
        (None, Look::Own) => {
            let helo = source.helo.as_deref().unwrap_or("not known");
            let text = format!("its reverse name is {name}, the HELO name {helo}: they should be the same");
            let line = format!("set the HELO name, or the PTR:\nhostname = \"{name}\"\n{record}");
            Finding::warn(Check::Ptr, ip, text, line)
        }
    })
}

/// The HELO name: can it be one, and does it lead to our address?
async fn helo(source: &Source, dns: &dyn Dns) -> Option<Finding> {
    let Some(name) = &source.helo else {
        let text = "no public name is known, so nothing is delivered to the Internet";
        let remedy =
            "give the public address a name whose PTR leads back to it, and set it:\nhostname = \"relay.YOURDOMAIN\"";
        return Some(Finding::fail(Check::Helo, &source.name, text, remedy));
    };
    let set = "set a name of your domain that leads to the public address:\nhostname = \"relay.YOURDOMAIN\"";
    if let Some(fault) = names::fault(name) {
        return Some(Finding::fail(Check::Helo, name, format!("no receiver takes it: {fault}"), set));
    }
    let record = |ip: IpAddr| format!("give it the address:\n{}", a_record(name, ip));
    let found = match addresses(dns, name).await {
        Ok(found) => found,
        Err(why) => return Some(unanswered(Check::Helo, name, &why)),
    };
    let listed = found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    Some(match source.public {
        _ if found.is_empty() => {
            let remedy = source.public.map_or_else(|| set.to_string(), record);
            Finding::fail(Check::Helo, name, "has no address in the DNS", remedy)
        }
        Some(ip) if found.contains(&ip) => Finding::ok(Check::Helo, name, format!("leads to {ip}")),
        Some(ip) => {
            Finding::fail(Check::Helo, name, format!("leads to {listed}, and mail comes from {ip}"), record(ip))
        }
        None => Finding::warn(Check::Helo, name, format!("leads to {listed}; our public address is not known"), set),
    })
}

/// Bounces have no sender: SPF is asked about the HELO name.
async fn helo_spf(source: &Source, dns: &dyn Dns) -> Option<Finding> {
    let (name, ip) = (source.helo.as_deref()?, source.public?);
    let found = spf::check(dns, spf::Client { ip, helo: name }, "").await;
    let record = format!("publish, or change what is there to:\n{name}. IN TXT \"v=spf1 {} -all\"", mechanism(ip));
    let text = format!("SPF of the HELO name for {ip}: {} ({})", found.verdict, found.why);
    Some(match found.verdict {
        Verdict::Pass => Finding::ok(Check::HeloSpf, name, text),
        Verdict::TempError => Finding::warn(Check::HeloSpf, name, text, "run it again when the name servers answer"),
        Verdict::None | Verdict::Neutral => Finding::warn(Check::HeloSpf, name, text, record),
        Verdict::Fail | Verdict::SoftFail | Verdict::PermError => Finding::fail(Check::HeloSpf, name, text, record),
    })
}

/// `ip4:203.0.113.7`
pub(super) fn mechanism(ip: IpAddr) -> String {
    if ip.is_ipv4() { format!("ip4:{ip}") } else { format!("ip6:{ip}") }
}

fn a_record(name: &str, ip: IpAddr) -> String {
    format!("{name}. IN {} {ip}", if ip.is_ipv4() { "A" } else { "AAAA" })
}

/// Nobody could tell.
pub(super) fn unanswered(check: Check, subject: &str, why: &NoAnswer) -> Finding {
    let remedy = "see what this run says of `resolver`, and run it again when the name servers answer";
    Finding::warn(check, subject, format!("could not be found out: {why}"), remedy)
}

/// Both families; a definite "no" of both is no address, and what one family could not tell is one where the other has none.
async fn addresses(dns: &dyn Dns, name: &str) -> Result<Vec<IpAddr>, NoAnswer> {
    let absolute = format!("{name}.");
    let (v4, v6) = tokio::join!(dns.v4(&absolute), dns.v6(&absolute));
    let mut found = Vec::new();
    let mut trouble = None;
    match v4 {
        Ok(v4) => found.extend(v4.records.into_iter().map(IpAddr::V4)),
        Err(why) => trouble = Some(why).filter(NoAnswer::is_temporary),
    }
    match v6 {
        Ok(v6) => found.extend(v6.records.into_iter().map(IpAddr::V6)),
        Err(why) => trouble = trouble.or(Some(why).filter(NoAnswer::is_temporary)),
    }
    match trouble {
        Some(why) if found.is_empty() => Err(why),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::TableDns;
    use crate::types::Status;

    const IP: &str = "52.31.7.9";

    fn source(helo: &str) -> Source {
        let public = Some(IP.parse().unwrap());
        let helo = (!helo.is_empty()).then(|| helo.to_string());
        Source { name: "default".into(), bind: None, local: None, helo, set: None, public }
    }

    async fn judged(dns: &TableDns, helo: &str) -> Vec<(Check, Status)> {
        judge(&source(helo), dns).await.into_iter().map(|finding| (finding.check, finding.status)).collect()
    }

    fn good() -> TableDns {
        TableDns::default()
            .ptr(IP, &["relay.weir.dev"])
            .v4("relay.weir.dev.", &[IP])
            .txt("relay.weir.dev.", &["v=spf1 ip4:52.31.7.9 -all"])
    }

    #[tokio::test]
    async fn a_name_that_agrees_both_ways_and_speaks_for_bounces_is_well() {
        use Check::{Helo, HeloSpf, Ptr};
        use Status::{Fail, Ok, Warn};
        assert_eq!(judged(&good(), "relay.weir.dev").await, [(Ptr, Ok), (Helo, Ok), (HeloSpf, Ok)]);
        let nothing = TableDns::default();
        assert_eq!(judged(&nothing, "relay.weir.dev").await, [(Ptr, Fail), (Helo, Fail), (HeloSpf, Warn)]);
        assert_eq!(judged(&good(), "").await, [(Ptr, Warn), (Helo, Fail)]);
        assert_eq!(judged(&good(), "relay.local").await[1], (Helo, Fail));
        let other = good().v4("mail.weir.dev.", &["52.31.7.10"]).txt("mail.weir.dev.", &["v=spf1 a -all"]);
        assert_eq!(judged(&other, "mail.weir.dev").await, [(Ptr, Warn), (Helo, Fail), (HeloSpf, Fail)]);
    }

    #[tokio::test]
    async fn a_reverse_name_must_lead_back_and_look_chosen() {
        let one_way = TableDns::default().ptr(IP, &["relay.weir.dev"]).v4("relay.weir.dev.", &["52.31.7.10"]);
        let finding = reverse(&source("relay.weir.dev"), &one_way).await.unwrap();
        assert_eq!(finding.status, Status::Fail);
        let remedy = finding.remedy.unwrap();
        assert!(remedy.contains("relay.weir.dev. IN A 52.31.7.9\n"), "{remedy}");
        assert!(remedy.contains("9.7.31.52.in-addr.arpa. IN PTR relay.weir.dev."), "{remedy}");
        for (name, status) in [("dsl-52-31-7-9.isp.dev", Status::Fail), ("52-31-7-9.cloud.dev", Status::Warn)] {
            let dns = TableDns::default().ptr(IP, &[name]).v4(&format!("{name}."), &[IP]);
            assert_eq!(reverse(&source(name), &dns).await.unwrap().status, status, "{name}");
        }
    }

    #[tokio::test]
    async fn what_nobody_could_tell_is_a_warning() {
        let dns = TableDns::default()
            .fails("PTR", IP, NoAnswer::TimedOut)
            .fails("A", "relay.weir.dev.", NoAnswer::ServerFailure)
            .fails("TXT", "relay.weir.dev.", NoAnswer::TimedOut);
        assert!(judged(&dns, "relay.weir.dev").await.iter().all(|(_, status)| *status == Status::Warn));
    }

    #[tokio::test]
    async fn what_receivers_see_counts_before_what_this_host_believes() {
        let seen = |ip: &str| BTreeMap::from([("default".to_string(), ip.parse().unwrap())]);
        let mut sources =
            [Source { local: Some("52.31.7.8".parse().unwrap()), public: None, ..source("relay.weir.dev") }];
        let findings = publish(&mut sources, &seen(IP), &good()).await;
        assert_eq!((sources[0].public, findings[0].status), (Some(IP.parse().unwrap()), Status::Warn));
        sources[0].local = Some("10.0.0.5".parse().unwrap());
        assert_eq!(publish(&mut sources, &seen(IP), &good()).await[0].status, Status::Ok);
        assert_eq!(publish(&mut sources, &BTreeMap::new(), &good()).await[0].status, Status::Warn);
        assert_eq!(sources[0].public, Some(IP.parse().unwrap()), "the address of the name");
        let findings = publish(&mut sources, &BTreeMap::new(), &TableDns::default()).await;
        assert_eq!((sources[0].public, findings[0].status), (None, Status::Fail));
        let silent = TableDns::default().fails("A", "relay.weir.dev.", NoAnswer::TimedOut);
        assert_eq!(publish(&mut sources, &BTreeMap::new(), &silent).await[0].status, Status::Warn);
        // What was set is believed until receivers say otherwise.
        sources[0].set = Some(IP.parse().unwrap());
        for (seen, public, status) in [
            (BTreeMap::new(), IP, Status::Ok),
            (seen(IP), IP, Status::Ok),
            (seen("52.31.7.10"), "52.31.7.10", Status::Warn),
        ] {
            let findings = publish(&mut sources, &seen, &silent).await;
            assert_eq!((sources[0].public, findings[0].status), (public.parse().ok(), status));
        }
    }
}
