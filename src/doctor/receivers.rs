//! The receivers: every published address is tried, EHLO and then QUIT; and what they want of TLS.
//!
//! Rules that always hold:
//! - nothing is asked for but the greeting: no address is looked for at anybody's (facts of Outlook.com: no namespace mining);
//! - a few connections at once, one to a host address in all, each within bounded time;
//! - mail would go the same way: fixed routes, address families and `[delivery] networks` are obeyed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::finding::{Check, Finding};
use super::sources::Source;
use crate::clock::Clock;
use crate::outbound::options::{HopTls, TlsMode};
use crate::outbound::{Connector, Hello, OpenError, OpenStage, Plan, Security, Tcp, Timeouts};
use crate::route::reachable::is_global;
use crate::route::{Route, Router, Unroutable};
use crate::types::{Domain, Reply, Timestamp};

/// Connections at once.
const AT_ONCE: usize = 6;
/// Addresses of one receiver that are tried; Microsoft has two to four.
const ADDRESSES_MAX: usize = 16;
const CONNECT: Duration = Duration::from_secs(5);
const GREETING: Duration = Duration::from_secs(8);
const EHLO: Duration = Duration::from_secs(5);
const QUIT: Duration = Duration::from_secs(1);

/// What was learned.
#[derive(Default)]
pub(super) struct Learned {
    pub(super) findings: Vec<Finding>,
    /// The address under which receivers see each source.
    pub(super) seen: BTreeMap<String, IpAddr>,
    /// By how many milliseconds the clocks of receivers are ahead of ours, with the host.
    pub(super) ahead: Vec<(String, i64)>,
    /// The MX hosts of each domain, in order; none for a fixed route.
    pub(super) hosts: BTreeMap<String, Vec<String>>,
}

/// One address of a receiver, and whose mail goes there.
#[derive(Clone, Debug)]
struct Target {
    host: Arc<str>,
    address: SocketAddr,
    domains: Vec<String>,
    is_fixed: bool,
    /// It says nothing before TLS.
    is_implicit: bool,
}

/// How one connection went.
struct Tried {
    target: Target,
    source: String,
    outcome: Result<Greeted, OpenError>,
}

struct Greeted {
    greeting: Reply,
    ehlo: Reply,
    starttls: bool,
    at: Timestamp,
}

/// Tries every address of `domains` from the first source of its family, and one of each domain from the others.
pub(super) async fn look(
    domains: &[Domain],
    sources: &[Source],
    router: &Arc<Router>,
    over: &CancellationToken,
) -> Learned {
    let mut learned = Learned::default();
    let mut targets: Vec<Target> = Vec::new();
    for (domain, route) in routes(domains, router).await {
        match route {
            Ok(route) => {
                let hosts = route.hosts.iter().map(|host| host.name.to_string());
                learned.hosts.insert(domain.to_string(), if route.fixed { Vec::new() } else { hosts.collect() });
                add(&mut targets, &domain, &route);
            }
            Err(fault) => learned.findings.push(unroutable(&domain, &fault)),
        }
    }
    let connector = match Connector::new(Arc::new(Tcp)) {
        Ok(connector) => connector.with_timeouts(timeouts()),
        Err(error) => {
            learned.findings.push(Finding::fail(
                Check::Port25,
                "TLS",
                error.to_string(),
                "report this as a fault of weir",
            ));
            return learned;
        }
    };
    for (at, source) in sources.iter().enumerate() {
        let chosen = targets_of(at, sources, &targets);
        let tried = try_all(chosen, source, &connector, over).await;
        learned.take(tried);
    }
    learned
}

async fn routes(domains: &[Domain], router: &Arc<Router>) -> Vec<(Domain, Result<Route, Unroutable>)> {
    let mut tasks = JoinSet::new();
    for domain in domains.iter().cloned() {
        let router = router.clone();
        tasks.spawn(async move {
            let route = router.resolve(&domain).await;
            (domain, route)
        });
    }
    let mut found = tasks.join_all().await;
    found.sort_by_key(|(domain, _)| domains.iter().position(|asked| asked == domain));
    found
}

/// Each address once, whoever's mail goes there.
fn add(targets: &mut Vec<Target>, domain: &Domain, route: &Route) {
    let addresses = route.hosts.iter().flat_map(|host| host.addresses.iter().map(|address| (&host.name, *address)));
    for (host, address) in addresses.take(ADDRESSES_MAX) {
        match targets.iter_mut().find(|target| target.address == address) {
            Some(known) => known.domains.push(domain.to_string()),
            None => targets.push(Target {
                host: host.clone(),
                address,
                domains: vec![domain.to_string()],
                is_fixed: route.fixed,
                is_implicit: route.access.as_ref().is_some_and(|access| access.tls == Some(HopTls::Implicit)),
            }),
        }
    }
}

/// What source number `at` tries: of its family all, or, where one before has tried them, one of each receiver. Of a family that no
/// source has, the first one tries.
fn targets_of(at: usize, sources: &[Source], targets: &[Target]) -> Vec<Target> {
    let is_its = |target: &&Target| {
        let ip = target.address.ip();
        let has_family = |source: &Source| source.is_of_family(ip);
        sources.get(at).is_some_and(has_family) || (at == 0 && !sources.iter().any(has_family))
    };
    let own: Vec<Target> = targets.iter().filter(is_its).cloned().collect();
    let was_tried = |target: &Target| sources.iter().take(at).any(|before| before.is_of_family(target.address.ip()));
    if own.iter().any(was_tried) { one_of_each(&own, at) } else { own }
}

/// For source number `turn`: another address for each of them.
fn one_of_each(targets: &[Target], turn: usize) -> Vec<Target> {
    let mut domains: Vec<&Vec<String>> = targets.iter().map(|target| &target.domains).collect();
    domains.dedup();
    let one = |domains: &Vec<String>| {
        let of: Vec<&Target> = targets.iter().filter(|target| &target.domains == domains).collect();
        of.get(turn % of.len().max(1)).map(|target| (*target).clone())
    };
    domains.into_iter().filter_map(one).collect()
}

fn timeouts() -> Timeouts {
    Timeouts { connect: CONNECT, greeting: GREETING, ehlo: EHLO, quit: QUIT, ..Timeouts::default() }
}

async fn try_all(targets: Vec<Target>, source: &Source, connector: &Connector, over: &CancellationToken) -> Vec<Tried> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for (at, target) in targets.into_iter().enumerate() {
        let (places, connector, over, source) = (places.clone(), connector.clone(), over.clone(), source.clone());
        tasks.spawn(async move {
            let _place = places.acquire().await;
            let plan = plan(&target, &source);
            let outcome = tokio::select! {
                biased;
                () = over.cancelled() => Err(OpenError { stage: OpenStage::Ours, reply: None, text: "time was up".to_string() }),
                outcome = greet(&connector, &plan) => outcome,
            };
            (at, Tried { target, source: source.name, outcome })
        });
    }
    let mut tried = tasks.join_all().await;
    tried.sort_by_key(|(at, _)| *at);
    tried.into_iter().map(|(_, tried)| tried).collect()
}

fn plan(target: &Target, source: &Source) -> Plan {
    // Whether it answers at all is asked, and not who it is.
    let (tls, hello) = if target.is_implicit { (TlsMode::Encrypt, Hello::Full) } else { (TlsMode::Off, Hello::Clear) };
    Plan {
        host: target.host.clone(),
        address: target.address,
        // An address of the other family cannot be bound, and delivery would not use it.
        bind: source.bind.filter(|bind| bind.is_ipv4() == target.address.is_ipv4()),
        helo: source.greeting().into(),
        security: Security { tls, implicit: target.is_implicit, login: None, sts: None, asked_by: "".into() },
        hello,
        greeting: GREETING,
    }
}

async fn greet(connector: &Connector, plan: &Plan) -> Result<Greeted, OpenError> {
    let connection = connector.open(plan).await?;
    let greeted = Greeted {
        greeting: connection.greeting().clone(),
        ehlo: connection.ehlo().clone(),
        starttls: connection.capabilities().starttls,
        at: Clock::system().now(),
    };
    connection.close().await;
    Ok(greeted)
}

impl Learned {
    fn take(&mut self, tried: Vec<Tried>) {
        let reached: BTreeSet<String> =
            tried.iter().filter(|one| one.outcome.is_ok()).flat_map(|one| one.target.domains.clone()).collect();
        for one in tried {
            if let Ok(greeted) = &one.outcome {
                if let Some(ip) = seen_as(&greeted.ehlo, one.target.address.ip()) {
                    self.seen.entry(one.source.clone()).or_insert(ip);
                }
                if let Some(told) = time_in(&greeted.greeting) {
                    self.ahead.push((one.target.host.to_string(), told.millis() - greeted.at.millis()));
                }
            }
            let is_reached = one.target.domains.iter().all(|domain| reached.contains(domain));
            self.findings.push(finding(&one, is_reached));
        }
    }
}

/// `is_reached`: another address of the same receivers answered.
fn finding(tried: &Tried, is_reached: bool) -> Finding {
    let Target { host, address, domains, is_fixed, .. } = &tried.target;
    let from = if tried.source == "default" { String::new() } else { format!(" from {}", tried.source) };
    let subject = format!("{} {}{from}", domains.join(" "), address.ip());
    let way = if *is_fixed { "the next hop of a [[route]], " } else { "" };
    let greeted = match &tried.outcome {
        Ok(greeted) => greeted,
        Err(error) => return failed(&subject, error, is_reached, *is_fixed),
    };
    let keywords: Vec<_> = greeted.ehlo.lines().skip(1).map(String::from_utf8_lossy).collect();
    let text = format!("{way}{host} says {}", keywords.join(", "));
    if greeted.starttls {
        return Finding::ok(Check::Port25, subject, text);
    }
    let text = format!("{text}: it offers no STARTTLS, which Microsoft's hosts do: something on the way takes it out");
    let remedy = "have the firewall's mail inspection switched off (\"SMTP fixup\", \"ESMTP inspection\")";
    // Another's host may be without.
    let is_microsofts = domains.iter().any(|domain| super::MICROSOFT.contains(&domain.as_str())) && !is_fixed;
    if is_microsofts {
        Finding::warn(Check::Port25, subject, text, remedy)
    } else {
        Finding::ok(Check::Port25, subject, format!("{way}{host} says {}", keywords.join(", ")))
    }
}

fn failed(subject: &str, error: &OpenError, is_reached: bool, is_fixed: bool) -> Finding {
    const OPEN: &str = "ask your hoster to open outbound TCP port 25; until then mail can go through a relay on another port:\n\
                        [[route]]\ndomain = \"*\"\nto = \"RELAY-OF-YOUR-HOSTER:587\"";
    let text = error.text.replace('\n', " ");
    let remedy = match (error.stage, &error.reply) {
        (_, Some(reply)) => format!("see what it means:\nweir explain {}", quoted(reply)),
        (OpenStage::Ours, None) => "run it again, with fewer receivers (`--to`) where many are slow".to_string(),
        (OpenStage::Connect | OpenStage::ConnectTimeout, None) if is_fixed => {
            "see that the next hop runs, and that `to` of its [[route]] names it".to_string()
        }
        (OpenStage::Connect, None) if error.text.contains("cannot send from") => {
            "give this host the address, or correct `address` of the [[source]]".to_string()
        }
        _ if is_reached => {
            "nothing, if it answers again soon: weir takes the receiver's other addresses meanwhile".to_string()
        }
        _ => OPEN.to_string(),
    };
    if is_reached || error.stage == OpenStage::Ours {
        Finding::warn(Check::Port25, subject, text, remedy)
    } else {
        let check = if error.stage == OpenStage::Ehlo && error.reply.is_some() { Check::Helo } else { Check::Port25 };
        Finding::fail(check, subject, text, remedy)
    }
}

/// As one word of a shell, whatever a receiver says.
fn quoted(reply: &Reply) -> String {
    let plain = |c: char| if c == '\'' || c.is_control() { ' ' } else { c };
    format!("'{}'", reply.to_string().chars().map(plain).collect::<String>())
}

fn unroutable(domain: &Domain, fault: &Unroutable) -> Finding {
    if fault.permanent {
        let remedy = "if the domain is right, its owner must mend its MX records; where it is one of Microsoft's, your resolver tells lies: \
                      name another in [dns] servers";
        return Finding::fail(Check::Port25, domain, fault.text.clone(), remedy);
    }
    let remedy = "see what this run says of `resolver`, and run it again when the name servers answer";
    Finding::warn(Check::Port25, domain, fault.text.clone(), remedy)
}

/// The address a receiver names in its answer to EHLO: `host Hello [192.0.2.7]`.
fn seen_as(ehlo: &Reply, own: IpAddr) -> Option<IpAddr> {
    let first = ehlo.lines().next().map(String::from_utf8_lossy)?;
    let words = first.split([' ', '[', ']', '(', ')', ',']).map(|word| word.strip_prefix("IPv6:").unwrap_or(word));
    let mut found = words.filter_map(|word| word.parse::<IpAddr>().ok());
    found.find(|ip| *ip != own && is_global(*ip))
}

/// The time a greeting tells: `… ready at Mon, 30 Nov 2026 17:00:58 +0000`.
fn time_in(greeting: &Reply) -> Option<Timestamp> {
    const DAYS: [&str; 7] = ["Mon, ", "Tue, ", "Wed, ", "Thu, ", "Fri, ", "Sat, ", "Sun, "];
    let text = greeting.text();
    let start = DAYS.iter().find_map(|day| text.find(day))?;
    let words: Vec<&str> = text[start..].split_whitespace().take(6).collect();
    Timestamp::parse_rfc5322(&words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_says_which_address_it_sees_and_what_time_it_is() {
        let seen = |text: &str| seen_as(&Reply::new(250, text), "52.101.8.47".parse().unwrap());
        assert_eq!(seen("mx.outlook.com Hello [52.31.7.9]\nSIZE 1"), "52.31.7.9".parse().ok());
        assert_eq!(seen("mx.outlook.com [52.101.8.47] Hello [IPv6:2a01:4f8::1]"), "2a01:4f8::1".parse().ok());
        assert_eq!(seen("mx.google.com at your service, [52.31.7.9]"), "52.31.7.9".parse().ok());
        assert_eq!(seen("mx Hello [10.0.0.7]\n[52.31.7.9]"), None, "no public address, and only the first line counts");
        let greeting = "AM3PEPF0000.eurprd.prod.outlook.com Microsoft ESMTP MAIL Service ready at Sat, 21 Nov 2026 20:33:40 +0000 [08DE]";
        assert_eq!(time_in(&Reply::new(220, greeting)), Some(Timestamp::from_secs(1_795_293_220)));
        assert_eq!(time_in(&Reply::new(220, "mx ESMTP on Sat, maybe")), None);
    }

    fn target(address: &str, domains: &[&str]) -> Target {
        let domains = domains.iter().map(ToString::to_string).collect();
        let address = address.parse().unwrap();
        Target { host: "mx.test".into(), address, domains, is_fixed: false, is_implicit: false }
    }

    #[test]
    fn further_sources_try_other_addresses_of_each_receiver() {
        let targets = [target("52.0.0.1:25", &["a"]), target("52.0.0.2:25", &["a"]), target("52.0.0.3:25", &["b"])];
        let chosen = |turn| one_of_each(&targets, turn).iter().map(|t| t.address.ip().to_string()).collect::<Vec<_>>();
        assert_eq!(chosen(1), ["52.0.0.2", "52.0.0.3"]);
        assert_eq!(chosen(2), ["52.0.0.1", "52.0.0.3"]);
    }

    #[test]
    fn each_source_tries_the_addresses_of_its_family() {
        let targets = [target("52.0.0.1:25", &["a"]), target("52.0.0.2:25", &["a"]), target("[2a01::1]:25", &["a"])];
        let source = |ip: &str| Source {
            name: ip.to_string(),
            bind: None,
            local: ip.parse().ok(),
            helo: None,
            set: None,
            public: None,
        };
        let counts = |sources: &[Source]| -> Vec<usize> {
            (0..sources.len()).map(|at| targets_of(at, sources, &targets).len()).collect()
        };
        assert_eq!(counts(&[source("52.9.9.9")]), [3], "the first one tries what no other can");
        assert_eq!(counts(&[source("52.9.9.9"), source("2a01::9")]), [2, 1]);
        assert_eq!(counts(&[source("52.9.9.9"), source("52.9.9.8")]), [3, 1]);
        assert_eq!(counts(&[source("")]), [3], "a host without a route");
    }

    #[test]
    fn an_address_that_fails_is_a_warning_while_another_answers() {
        use crate::types::Status;
        let error = |stage, reply: Option<&str>| OpenError {
            stage,
            reply: reply.and_then(Reply::parse),
            text: "connect to mx: no".into(),
        };
        let shut = error(OpenStage::ConnectTimeout, None);
        assert_eq!(failed("x", &shut, true, false).status, Status::Warn);
        let alone = failed("x", &shut, false, false);
        assert!(alone.status == Status::Fail && alone.remedy.unwrap().contains("[[route]]"));
        let block = failed("x", &error(OpenStage::Greeting, Some("550 5.7.1 S3150")), false, false);
        assert!(block.remedy.unwrap().contains("weir explain '550 5.7.1 S3150'"));
        assert_eq!(failed("x", &error(OpenStage::Ehlo, Some("501 5.5.4 Invalid")), false, false).check, Check::Helo);
    }

    #[test]
    fn a_hop_with_tls_from_the_first_octet_is_tried_in_that_way() {
        let source = Source { name: "a".into(), bind: None, local: None, helo: None, set: None, public: None };
        let implicit = Target { is_implicit: true, ..target("192.0.2.1:465", &["a.test"]) };
        let plans = [implicit, target("192.0.2.1:25", &["a.test"])].map(|target| plan(&target, &source));
        let asked = plans.map(|plan| (plan.security.implicit, plan.security.tls, plan.hello));
        assert_eq!(asked, [(true, TlsMode::Encrypt, Hello::Full), (false, TlsMode::Off, Hello::Clear)]);
    }
}
