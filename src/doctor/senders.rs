//! The domains mail is sent from: which they are, and whether SPF, DKIM and DMARC speak for them.
//!
//! Microsoft refuses a From domain with over 5,000 messages a day unless all three do (550 5.7.515). What is known of a domain comes from
//! the configuration, the queue and the last day's events; of mail that waits, one message of each domain is looked at.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::dkim::{self, Signature};
use super::dmarc::{self, NoPolicy, Policy};
use super::finding::{Check, Finding};
use super::sources::{Source, mechanism, unanswered};
use super::spf::{self, Verdict};
use crate::clock::Clock;
use crate::config::Config;
use crate::dkim::agreement::{self, Answer};
use crate::dkim::record::{self, Published};
use crate::dkim::{Signer, Signers};
use crate::event::history;
use crate::route::Dns;
use crate::route::dns::NoAnswer;
use crate::spool::Reader;
use crate::types::{Body, DeliveryId, Domain, EventKind, Status};

/// Domains that are looked at, those with most mail first.
const DOMAINS_MAX: usize = 20;
/// Domains that are counted.
const COUNTED_MAX: usize = 2000;
/// Deliveries of the queue that are looked at.
const QUEUE_MAX: usize = 20_000;
const PAGE: usize = 1000;
/// Events that are looked at.
const EVENTS_MAX: u64 = 2_000_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Octets of a message in which its header must end.
const HEADER_MAX: u64 = 64 << 10;

/// A domain in MAIL FROM.
#[derive(Clone, Debug, Default)]
pub(super) struct Sender {
    pub(super) domain: String,
    /// Messages seen of it.
    messages: u64,
    /// Asked for or configured, so it comes first.
    is_named: bool,
    /// One that waits, and what its header says.
    sample: Option<DeliveryId>,
    header: Option<String>,
}

/// All that are known, those that were named and those with most mail first. Reads only.
pub(super) async fn known(config: &Config, asked: &[Domain], over: &CancellationToken) -> Vec<Sender> {
    let mut senders = Senders::default();
    let of_users = config.relay.user.iter().flat_map(|user| &user.sender_domains);
    let signed: Vec<Domain> = config.dkim.iter().filter_map(|entry| Domain::parse(&entry.domain).ok()).collect();
    for domain in asked.iter().chain(&config.relay.sender_domains).chain(of_users).chain(&signed) {
        if let Some(sender) = senders.of(domain.as_str()) {
            sender.is_named = true;
        }
    }
    let (folder, stop) = (config.data_dir.join("events"), over.clone());
    let events = tokio::task::spawn_blocking(move || of_events(&folder, &stop));
    let reader = config.data_dir.join("spool.sqlite").exists().then(|| Reader::open(&config.data_dir).ok()).flatten();
    if let Some(reader) = &reader {
        of_queue(reader, &mut senders, over).await;
    }
    for (domain, messages) in events.await.unwrap_or_default() {
        if let Some(sender) = senders.of(&domain) {
            sender.messages = sender.messages.max(messages);
        }
    }
    let mut chosen: Vec<Sender> = senders.0.into_values().collect();
    chosen.sort_by_key(|sender| (std::cmp::Reverse((sender.is_named, sender.messages)), sender.domain.clone()));
    chosen.truncate(DOMAINS_MAX);
    for sender in &mut chosen {
        if let (Some(reader), Some(id)) = (&reader, sender.sample) {
            sender.header = header(reader, id).await;
        }
    }
    chosen
}

#[derive(Default)]
struct Senders(BTreeMap<String, Sender>);

impl Senders {
    /// None: there are too many already, or it is an address literal.
    fn of(&mut self, domain: &str) -> Option<&mut Sender> {
        let domain = domain.to_ascii_lowercase();
        if domain.starts_with('[') || (!self.0.contains_key(&domain) && self.0.len() >= COUNTED_MAX) {
            return None;
        }
        Some(self.0.entry(domain.clone()).or_insert_with(|| Sender { domain, ..Sender::default() }))
    }
}

async fn of_queue(reader: &Reader, senders: &mut Senders, over: &CancellationToken) {
    let mut after = None;
    for _ in 0..QUEUE_MAX / PAGE {
        let page = match reader.scan(after, PAGE).await {
            Ok(page) if !over.is_cancelled() => page,
            _ => return,
        };
        for summary in &page {
            let domain = summary.sender.rsplit_once('@').map(|(_, domain)| domain);
            if let Some(sender) = domain.and_then(|domain| senders.of(domain)) {
                sender.messages += 1;
                sender.sample = Some(summary.id);
            }
        }
        after = page.last().map(|summary| summary.id);
        if page.len() < PAGE {
            return;
        }
    }
}

/// Messages accepted in the last day, by domain. A log that cannot be read tells nothing.
fn of_events(folder: &Path, over: &CancellationToken) -> BTreeMap<String, u64> {
    let since = Clock::system().now() - DAY;
    let (mut counts, mut seen) = (BTreeMap::<String, u64>::new(), 0);
    let _unreadable = history::since(folder, since, EventKind::Accepted, |line| {
        let domain = line.sender.as_deref().and_then(|sender| sender.rsplit_once('@')).map(|(_, domain)| domain);
        if let Some(domain) = domain.filter(|domain| counts.len() < COUNTED_MAX || counts.contains_key(*domain)) {
            *counts.entry(domain.to_ascii_lowercase()).or_default() += 1;
        }
        seen += 1;
        if seen >= EVENTS_MAX || over.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    counts
}

/// The header of a message in the spool; none: it is gone.
pub async fn header(reader: &Reader, id: DeliveryId) -> Option<String> {
    let stored = reader.load(id).await.ok()??;
    // What its copy for these recipients has in front: signatures stand there.
    let mut text = stored.delivery.own.as_ref().map(|own| own.header.clone().into_bytes()).unwrap_or_default();
    match &stored.body {
        Body::Inline(content) => {
            let end = content.len().min(usize::try_from(HEADER_MAX).unwrap_or(usize::MAX));
            text.extend_from_slice(&content[..end]);
        }
        Body::File { path, .. } | Body::Headed { path, .. } => {
            std::fs::File::open(path.as_path()).ok()?.take(HEADER_MAX).read_to_end(&mut text).ok()?;
        }
    }
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// SPF, DKIM and DMARC of all of them, side by side.
pub(super) async fn judge(
    senders: Vec<Sender>,
    sources: &[Source],
    signers: &Arc<Signers>,
    dns: &Arc<dyn Dns>,
) -> Vec<Finding> {
    if senders.is_empty() {
        let text = "no sender domain is known: none is configured, no mail was taken in the last day";
        let remedy = "name the domain you send from:\nweir doctor --from YOURDOMAIN";
        return vec![Finding::warn(Check::Spf, "sender domains", text, remedy)];
    }
    let addresses: Vec<(IpAddr, String)> =
        sources.iter().filter_map(|source| Some((source.public?, source.greeting()))).collect();
    let addresses = Arc::new(addresses);
    let mut tasks = JoinSet::new();
    for (at, sender) in senders.into_iter().enumerate() {
        let (dns, addresses, signers) = (dns.clone(), addresses.clone(), signers.clone());
        tasks.spawn(async move { (at, of_domain(&sender, &addresses, &signers, &*dns).await) });
    }
    let mut found = tasks.join_all().await;
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().flat_map(|(_, findings)| findings).collect()
}

/// What SPF, DKIM and DMARC say of mail of a domain; `mail_from`: under which it goes out, `header`: of a message that is really sent, where one could be read. Each finding that is not
/// well is a failure only where a receiver would find the same.
pub async fn authentication(
    mail_from: &Domain,
    domain: &Domain,
    header: Option<String>,
    addresses: &[(IpAddr, String)],
    signers: &Signers,
    dns: &dyn Dns,
) -> Vec<Finding> {
    let unsigned = header.as_deref().is_some_and(|header| dkim::signatures(header).is_empty());
    // Without a header the From field counts as the sender's domain.
    let mail_from = if header.is_some() { mail_from } else { domain };
    let sender = Sender { domain: mail_from.to_string(), header, ..Sender::default() };
    let mut findings = of_domain(&sender, addresses, signers, dns).await;
    for finding in findings.iter_mut().filter(|finding| finding.check == Check::Dkim && unsigned) {
        if finding.status == Status::Ok {
            finding.text.push_str("; a message that waits was taken before and is not signed");
            let remedy =
                "hand in again what was taken before the key was there, or let it go as it is: weir resume PROVIDER";
            finding.remedy = Some(remedy.to_string());
        }
        finding.status = Status::Fail;
    }
    findings
}

async fn of_domain(sender: &Sender, addresses: &[(IpAddr, String)], signers: &Signers, dns: &dyn Dns) -> Vec<Finding> {
    let from = sender.header.as_deref().and_then(dkim::from_domain).unwrap_or_else(|| sender.domain.clone());
    let (spf, policy) = tokio::join!(spf(&sender.domain, addresses, dns), dmarc::find(dns, &from));
    let (spf, passes) = spf;
    let (dkim, signed) = match own_keys(&from, signers, dns).await {
        Some(found) => found,
        None => signatures(sender, &from, policy.as_ref().ok(), dns).await,
    };
    let aligned = Aligned { spf: passes.then_some(sender.domain.as_str()), dkim: signed.as_deref() };
    vec![spf, dkim, dmarc_finding(&from, policy, &aligned)]
}

/// What authenticates mail of a domain.
struct Aligned<'a> {
    /// The domain for which SPF passes.
    spf: Option<&'a str>,
    /// The domain whose signature has a good key.
    dkim: Option<&'a str>,
}

/// SPF for each of our addresses; and whether it passes for all.
pub(super) async fn spf(domain: &str, addresses: &[(IpAddr, String)], dns: &dyn Dns) -> (Finding, bool) {
    if addresses.is_empty() {
        let text = "cannot be evaluated while our public address is not known";
        return (Finding::warn(Check::Spf, domain, text, "see what this run says of `address`"), false);
    }
    let sender = format!("postmaster@{domain}");
    let mut worst: Option<(IpAddr, spf::Checked)> = None;
    let mut lookups = 0;
    for (ip, helo) in addresses {
        let checked = spf::check(dns, spf::Client { ip: *ip, helo }, &sender).await;
        lookups = lookups.max(checked.lookups);
        if checked.verdict != Verdict::Pass && worst.as_ref().is_none_or(|(_, known)| rank(&checked) > rank(known)) {
            worst = Some((*ip, checked));
        }
    }
    let Some((ip, checked)) = worst else {
        let listed = addresses.iter().map(|(ip, _)| ip.to_string()).collect::<Vec<_>>().join(", ");
        let text = format!("passes for {listed}, with {lookups} of {} look-ups", spf::LOOKUPS_MAX);
        return (Finding::ok(Check::Spf, domain, text), true);
    };
    let text = format!("{ip}: {} ({})", checked.verdict, checked.why);
    let wanted: Vec<String> = addresses.iter().map(|(ip, _)| mechanism(*ip)).collect();
    let finding = match checked.verdict {
        Verdict::TempError => {
            Finding::warn(Check::Spf, domain, text, "run it again when the name servers of the domain answer")
        }
        Verdict::PermError => {
            let remedy = format!(
                "every receiver takes it for no record at all: mend what is named, or stay within {} look-ups by writing \
                 the addresses themselves; what speaks for us is\n{}",
                spf::LOOKUPS_MAX,
                wanted.join(" ")
            );
            Finding::fail(Check::Spf, domain, text, remedy)
        }
        _ => {
            let record = with_addresses(checked.record.as_deref(), &wanted);
            let verb = if checked.record.is_some() { "change the record to" } else { "publish" };
            Finding::fail(Check::Spf, domain, text, format!("{verb}:\n{}", record::zone_line(domain, &record)))
        }
    };
    (finding, false)
}

/// The worse, the higher.
fn rank(checked: &spf::Checked) -> u8 {
    match checked.verdict {
        Verdict::Pass => 0,
        Verdict::TempError => 1,
        Verdict::Neutral => 2,
        Verdict::SoftFail => 3,
        Verdict::None => 4,
        Verdict::Fail => 5,
        Verdict::PermError => 6,
    }
}

/// The record with our addresses in front, where they cost no look-up.
fn with_addresses(record: Option<&str>, wanted: &[String]) -> String {
    let rest = record.and_then(|record| record.split_once(' ')).map_or("~all", |(_, rest)| rest.trim());
    let missing: Vec<&str> =
        wanted.iter().map(String::as_str).filter(|term| !rest.split(' ').any(|known| known == *term)).collect();
    let rest = if rest.is_empty() { "~all" } else { rest };
    format!("v=spf1 {} {rest}", missing.join(" "))
}

/// The keys with which weir signs mail of this domain, beside the DNS: the worst of them, and the domain of one that is good. None: it
/// signs none.
async fn own_keys(from: &str, signers: &Signers, dns: &dyn Dns) -> Option<(Finding, Option<String>)> {
    let domain = Domain::parse(from).ok()?;
    let (mut worst, mut good): (Option<agreement::Told>, Option<String>) = (None, None);
    for signer in signers.of(&domain) {
        let told = compared(signer, dns).await;
        if ["agrees", "weak"].contains(&told.result) {
            good.get_or_insert_with(|| signer.domain.to_string());
        }
        if worst.as_ref().is_none_or(|known| told.status > known.status) {
            worst = Some(told);
        }
    }
    let agreement::Told { status, text, remedy, .. } = worst?;
    let remedy = remedy.unwrap_or_default();
    let finding = match status {
        Status::Ok => Finding::ok(Check::Dkim, from, format!("weir signs with {text}")),
        Status::Warn => Finding::warn(Check::Dkim, from, text, remedy),
        Status::Fail => Finding::fail(Check::Dkim, from, text, remedy),
    };
    Some((finding, good))
}

/// What the DNS says of a key that signs.
pub async fn compared(signer: &Signer, dns: &dyn Dns) -> agreement::Told {
    let answer = match dns.txt(&format!("{}.", signer.name())).await {
        Ok(found) => Answer::Records(found.records),
        Err(NoAnswer::NoSuchName { .. }) => Answer::NoName,
        Err(NoAnswer::NoSuchRecord { .. }) => Answer::NoRecord,
        Err(why) => Answer::Unknown(why.to_string()),
    };
    agreement::judge(signer, &answer)
}

/// What the DNS says of the keys with which the sample was signed; and the domain of a good one that is aligned with `from`.
async fn signatures(sender: &Sender, from: &str, policy: Option<&Policy>, dns: &dyn Dns) -> (Finding, Option<String>) {
    let warn = |text: &str| {
        let remedy = format!(
            "have weir sign it: publish the record and write the [[dkim]] that this prints\nweir dkim keygen --domain {from} --selector weir1 \
             --out {from}.pem"
        );
        Finding::warn(Check::Dkim, from, text, remedy)
    };
    let Some(header) = &sender.header else {
        let text =
            "no [[dkim]] signs it, and no mail of it waits in which the signature of somebody else could be seen";
        return (warn(text), None);
    };
    let aligned = |signature: &Signature| match policy {
        Some(policy) => policy.aligns(&signature.domain, from, policy.strict_dkim),
        None => signature.domain == from,
    };
    let all = dkim::signatures(header);
    let own: Vec<&Signature> = all.iter().filter(|signature| aligned(signature)).collect();
    if own.is_empty() {
        let others: Vec<&str> = all.iter().map(|signature| signature.domain.as_str()).collect();
        let text = match others.as_slice() {
            [] => "a message that waits has no DKIM signature".to_string(),
            others => format!("a message that waits is signed by {}, which is not aligned with it", others.join(", ")),
        };
        return (warn(&text), None);
    }
    let mut last = None;
    for signature in own {
        let (finding, is_good) = key(from, signature, dns).await;
        if is_good {
            return (finding, Some(signature.domain.clone()));
        }
        last = Some(finding);
    }
    (last.unwrap_or_else(|| warn("a message that waits has no DKIM signature")), None)
}

async fn key(from: &str, signature: &Signature, dns: &dyn Dns) -> (Finding, bool) {
    let name = signature.name();
    let publish = format!("publish the key as whoever signs prints it:\n{name}. IN TXT \"v=DKIM1; k=rsa; p=…\"");
    let records = match dns.txt(&format!("{name}.")).await {
        Ok(found) => found.records,
        Err(why) if why.is_temporary() => return (unanswered(Check::Dkim, &name, &why), false),
        Err(_) => {
            let text = format!("mail is signed with the key {name}, and no record stands there");
            return (Finding::fail(Check::Dkim, from, text, publish), false);
        }
    };
    let fault = match record::judge(&records) {
        Published::Good(what) => return (Finding::ok(Check::Dkim, from, format!("signed with {name} ({what})")), true),
        Published::Weak(what) => {
            return (Finding::warn(Check::Dkim, from, format!("{name}: {what}"), publish), true);
        }
        Published::Missing => "no key stands there (no p=)".to_string(),
        Published::Revoked => "the key was revoked (p= is empty)".to_string(),
        Published::Bad(what) => what,
    };
    (Finding::fail(Check::Dkim, from, format!("{name}: {fault}"), publish), false)
}

fn dmarc_finding(from: &str, policy: Result<Policy, NoPolicy>, aligned: &Aligned<'_>) -> Finding {
    let record = |domain: &str| {
        format!(
            "publish, with an address that reads reports:\n_dmarc.{domain}. IN TXT \"v=DMARC1; p=none; rua=mailto:dmarc@{domain}\""
        )
    };
    let policy = match policy {
        Ok(policy) => policy,
        Err(NoPolicy::Missing) => {
            return Finding::fail(Check::Dmarc, from, "has no DMARC record, nor has a domain above it", record(from));
        }
        Err(NoPolicy::Wrong { domain, fault }) => {
            let text = format!("the DMARC record of {domain} counts as none: {fault}");
            return Finding::fail(Check::Dmarc, from, text, record(&domain));
        }
        Err(NoPolicy::Unknown(why)) => return unanswered(Check::Dmarc, from, &why),
    };
    let by_spf = aligned.spf.is_some_and(|domain| policy.aligns(domain, from, policy.strict_spf));
    // Only one that is aligned was kept.
    let by_dkim = aligned.dkim.is_some();
    let text = format!("p={} at {}", policy.policy, policy.domain);
    match (by_spf, by_dkim) {
        (true, true) => Finding::ok(Check::Dmarc, from, format!("{text}; aligned by SPF and DKIM")),
        (false, true) => Finding::ok(Check::Dmarc, from, format!("{text}; aligned by DKIM")),
        (true, false) => Finding::ok(Check::Dmarc, from, format!("{text}; aligned by SPF")),
        (false, false) => {
            let why = match aligned.spf {
                Some(domain) => format!("SPF passes for {domain}, which is not aligned with {from}"),
                None => "neither SPF nor a DKIM signature that was seen speaks for it".to_string(),
            };
            let remedy = format!(
                "send with a MAIL FROM of {from} for which SPF passes, or sign with a key of {from}; see what this run says of \
                 `spf` and `dkim`"
            );
            Finding::fail(Check::Dmarc, from, format!("{text}, but {why}"), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::TableDns;
    use crate::types::Status::{self, Fail, Ok, Warn};

    fn key_record() -> String {
        use base64::Engine as _;
        format!("v=DKIM1; k=ed25519; p={}", base64::engine::general_purpose::STANDARD.encode([7; 32]))
    }

    async fn judged(dns: &TableDns, domain: &str, header: Option<&str>) -> Vec<(Status, String)> {
        let sender = Sender { domain: domain.into(), header: header.map(str::to_string), ..Sender::default() };
        let addresses = [("52.31.7.9".parse().unwrap(), "relay.weir.dev".to_string())];
        let findings = of_domain(&sender, &addresses, &Signers::default(), dns).await;
        assert!(findings.iter().map(|finding| finding.check).eq([Check::Spf, Check::Dkim, Check::Dmarc]));
        findings.into_iter().map(|f| (f.status, format!("{} {}", f.text, f.remedy.unwrap_or_default()))).collect()
    }

    fn statuses(found: &[(Status, String)]) -> Vec<Status> {
        found.iter().map(|(status, _)| *status).collect()
    }

    #[tokio::test]
    async fn all_three_are_judged_as_outlook_does() {
        let dns = TableDns::default()
            .txt("weir.dev.", &["v=spf1 ip4:52.31.7.9 -all"])
            .txt("_dmarc.weir.dev.", &["v=DMARC1; p=none"])
            .txt("s1._domainkey.weir.dev.", &[&key_record()]);
        let signed = "From: a@news.weir.dev\r\nDKIM-Signature: d=weir.dev; s=s1\r\n";
        let found = judged(&dns, "weir.dev", Some(signed)).await;
        assert_eq!(statuses(&found), [Ok, Ok, Ok], "{found:?}");
        assert!(found[2].1.contains("p=none at weir.dev; aligned by SPF and DKIM"), "{found:?}");
        let unsigned = judged(&dns, "weir.dev", None).await;
        assert_eq!(statuses(&unsigned), [Ok, Warn, Ok], "{unsigned:?}");
        let other = judged(&dns, "weir.dev", Some("From: a@shop.dev\r\n")).await;
        assert_eq!(statuses(&other), [Ok, Warn, Fail], "the From domain is another's: {other:?}");
    }

    #[tokio::test]
    async fn what_is_really_sent_decides() {
        let dns = TableDns::default()
            .txt("fb.weir.dev.", &["v=spf1 ip4:52.31.7.9 -all"])
            .txt("_dmarc.weir.dev.", &["v=DMARC1; p=none"])
            .txt("s1._domainkey.weir.dev.", &[&key_record()]);
        let addresses = [("52.31.7.9".parse().unwrap(), "relay.weir.dev".to_string())];
        let (domain, path) = (Domain::parse("weir.dev").unwrap(), Domain::parse("fb.weir.dev").unwrap());
        let signers = Signers::default();
        let judge = async |mail_from: &Domain, header: Option<&str>| {
            let found =
                authentication(mail_from, &domain, header.map(str::to_string), &addresses, &signers, &dns).await;
            found.into_iter().map(|finding| finding.status).collect::<Vec<_>>()
        };
        let signed = "From: a@weir.dev\r\nDKIM-Signature: d=weir.dev; s=s1\r\n";
        assert_eq!(judge(&path, Some(signed)).await, [Ok, Ok, Ok], "the return path's domain answers for SPF");
        assert_eq!(judge(&domain, Some(signed)).await, [Fail, Ok, Ok]);
        let unsigned = "From: a@weir.dev\r\n";
        assert_eq!(judge(&path, Some(unsigned)).await, [Ok, Fail, Ok], "a receiver sees no signature");
        assert_eq!(judge(&path, None).await[1], Warn, "what nobody has seen is not known to be missing");
    }

    #[tokio::test]
    async fn the_record_that_mends_it_is_written_out() {
        let dns = TableDns::default()
            .txt("weir.dev.", &["v=spf1 include:_spf.esp.dev -all"])
            .txt("_spf.esp.dev.", &["v=spf1 ip4:52.0.0.0/24 -all"])
            .txt("_dmarc.weir.dev.", &["v=DMARC1; p=reject"]);
        let found = judged(&dns, "weir.dev", None).await;
        assert_eq!(statuses(&found), [Fail, Warn, Fail], "{found:?}");
        let line = "\nweir.dev. IN TXT \"v=spf1 ip4:52.31.7.9 include:_spf.esp.dev -all\"";
        assert!(found[0].1.ends_with(line), "{found:?}");
        let nothing = judged(&TableDns::default(), "weir.dev", None).await;
        assert!(nothing[0].1.ends_with("\nweir.dev. IN TXT \"v=spf1 ip4:52.31.7.9 ~all\""), "{nothing:?}");
        assert!(nothing[2].1.contains("\n_dmarc.weir.dev. IN TXT \"v=DMARC1; p=none; rua=mailto:dmarc@weir.dev\""));
    }

    #[tokio::test]
    async fn a_signature_whose_key_is_gone_fails() {
        let dns = TableDns::default().txt("_dmarc.weir.dev.", &["v=DMARC1; p=none"]);
        let signed = "From: a@weir.dev\r\nDKIM-Signature: d=weir.dev; s=s1\r\n";
        let found = judged(&dns, "weir.dev", Some(signed)).await;
        assert!(found[1].0 == Fail && found[1].1.contains("s1._domainkey.weir.dev"), "{found:?}");
    }

    #[test]
    fn what_is_there_already_is_not_written_twice() {
        let two = ["ip4:52.0.0.1".to_string(), "ip4:52.0.0.2".to_string()];
        let record = with_addresses(Some("v=spf1 ip4:52.0.0.1 mx -all"), &two);
        assert_eq!(record, "v=spf1 ip4:52.0.0.2 ip4:52.0.0.1 mx -all");
        assert_eq!(with_addresses(Some("v=spf1"), &two[..1]), "v=spf1 ip4:52.0.0.1 ~all");
    }

    #[tokio::test]
    async fn the_key_that_weir_signs_with_is_compared_with_its_record() {
        use crate::dkim::key::{Key, Kind};
        let key = || Key::generate(Kind::Ed25519).unwrap().0;
        let (one, other) = (key(), key());
        let (published, another) = (record::text(&one), record::text(&other));
        let signer = |selector: &str, key| Signer {
            domain: Domain::parse("weir.dev").unwrap(),
            selector: selector.into(),
            key,
            skip_signed: false,
        };
        let signers = Signers::new(vec![signer("s1", one)]);
        let sender = Sender { domain: "news.weir.dev".into(), ..Sender::default() };
        for (record, status, aligned) in
            [(Some(&published), Ok, true), (Some(&another), Fail, false), (None, Fail, false)]
        {
            let dns = TableDns::default().txt("_dmarc.weir.dev.", &["v=DMARC1; p=none"]);
            let dns = record.map_or_else(TableDns::default, |record| dns.txt("s1._domainkey.weir.dev.", &[record]));
            let found = of_domain(&sender, &[], &signers, &dns).await;
            assert_eq!(found[1].status, status, "{found:?}");
            assert_eq!(found[2].text.contains("aligned by DKIM"), aligned, "{found:?}");
        }
        // One of two that is good aligns the mail; the other one is told.
        let both = Signers::new(vec![signer("s1", key()), signer("s2", other)]);
        let dns = TableDns::default().txt("s2._domainkey.weir.dev.", &[&another]);
        let (finding, good) = own_keys("weir.dev", &both, &dns).await.unwrap();
        assert!(finding.status == Fail && finding.text.contains("s1._domainkey") && good.is_some(), "{finding:?}");
        assert!(own_keys("fweir.dev", &both, &dns).await.is_none());
    }
}
