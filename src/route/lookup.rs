//! One look-up: from a domain to the hosts that take its mail (RFC 5321 section 5.1, RFC 7505).
//!
//! Rules that always hold:
//! - mail is returned only when the DNS said for certain that nobody takes it; whatever nobody could tell keeps it;
//! - a fixed route never returns mail: a next hop that cannot be found is a fault of ours, to be repaired;
//! - unless `[delivery] ip` says otherwise, IPv6 is used only where it is certain that no host has an IPv4 address: large
//!   receivers refuse over IPv6, for good, what they take over IPv4.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::choice::{ADDRESSES_MAX, Addresses, Choice, Exchangers, FAILURE_KEPT, Fault, Found, STANDING_TTL};
use super::dns::{Answer, Dns, NoAnswer, Records};
use super::fixed::{FixedRoutes, Hop, Target};
use super::provider::ProviderTable;
use super::reachable::Reachable;
use super::{Host, Reach};
use crate::outbound::options::IpChoice;
use crate::types::Domain;

/// A definite "no" without a time to live in its SOA.
const NEGATIVE_TTL: Duration = Duration::from_secs(300);

/// Everything a look-up needs.
pub(super) struct Lookup<'a> {
    pub dns: &'a dyn Dns,
    /// Bounds the questions under way.
    pub questions: &'a Semaphore,
    pub fixed: &'a FixedRoutes,
    pub providers: &'a ProviderTable,
    pub reachable: &'a Reachable,
    pub reach: Reach,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Lookup<'_> {
    pub(super) async fn domain(&self, domain: &Domain) -> Result<Found, Fault> {
        if let Some(hop) = self.fixed.hop(domain) {
            return self.next_hop(domain, hop).await;
        }
        if let Some(address) = domain.literal() {
            return self.choice().of_literal(domain, address);
        }
        let exchangers = self.exchangers(domain).await?;
        let names: Vec<String> = exchangers.list.iter().map(|mx| format!("{}.", mx.exchange)).collect();
        let addresses = self.addresses(&names).await;
        let found = self.choice().of_hosts(domain, exchangers, addresses)?;
        // Only now it is known whose mail it is.
        match found.hosts.first().and_then(|host| self.fixed.hop_of_provider(&host.provider)) {
            Some(hop) => self.next_hop(domain, hop).await,
            None => Ok(found),
        }
    }

    fn choice(&self) -> Choice<'_> {
        Choice { providers: self.providers, reachable: self.reachable }
    }

    async fn exchangers(&self, domain: &Domain) -> Result<Exchangers, Fault> {
        let name = format!("{domain}.");
        let records = match self.ask(self.dns.mx(&name)).await {
            Ok(records) => records,
            Err(NoAnswer::NoSuchRecord { ttl }) => {
                return Ok(Exchangers::implicit(domain, ttl.unwrap_or(NEGATIVE_TTL)));
            }
            Err(NoAnswer::NoSuchName { ttl }) => {
                let text = format!("the domain {domain} does not exist (NXDOMAIN)");
                return Err(Fault::permanent("5.1.2", ttl.unwrap_or(NEGATIVE_TTL), text));
            }
            Err(trouble) => {
                return Err(Fault::temporary("4.4.3", format!("look up the MX hosts of {domain}: {trouble}")));
            }
        };
        if records.records.is_empty() {
            return Ok(Exchangers::implicit(domain, records.ttl));
        }
        if records.records.iter().all(|mx| mx.exchange.is_empty()) {
            let text = format!("the domain {domain} takes no mail (null MX, RFC 7505)");
            return Err(Fault::permanent("5.1.10", records.ttl, text));
        }
        Ok(Exchangers::of(records))
    }

    pub(super) async fn next_hop(&self, domain: &Domain, hop: &Hop) -> Result<Found, Fault> {
        let (found, ttl) = match &hop.target {
            Target::Address(address) => (vec![*address], STANDING_TTL),
            // Without a final dot: read as programs on this host read names.
            Target::Name(name) => {
                let found = self.addresses(&[name.to_string()]).await.pop().unwrap_or_default();
                if found.list.is_empty() {
                    let why = found.trouble.map_or("it has no address".into(), |trouble| trouble.to_string());
                    return Err(Fault::temporary("4.4.3", format!("look up {name}, the next hop for {domain}: {why}")));
                }
                (found.list, found.ttl.unwrap_or(FAILURE_KEPT))
            }
        };
        let sockets = found.into_iter().take(ADDRESSES_MAX).map(|ip| SocketAddr::new(ip, hop.port));
        let addresses: Vec<SocketAddr> = sockets.filter(|socket| !self.reachable.own.listens_at(*socket)).collect();
        let name = hop.host_name();
        if addresses.is_empty() {
            let port = hop.port;
            let text =
                format!("the next hop for {domain}, {name} port {port}, is weir itself: correct `to` of its [[route]]");
            return Err(Fault::temporary("4.3.5", text));
        }
        let host = Host { name, preference: 0, addresses, provider: hop.provider(domain, self.providers) };
        Ok(Found { hosts: vec![host], ttl, fixed: true, limits_named: hop.names_limits(), access: hop.access() })
    }

    /// The addresses of all `names`, in the families that `[delivery] ip` and this host's routes allow.
    async fn addresses(&self, names: &[String]) -> Vec<Addresses> {
        let mut found: Vec<Addresses> = names.iter().map(|_| Addresses::default()).collect();
        let Reach { ipv4, ipv6 } = self.reach;
        let (rounds, all): (&[Family], bool) = match self.reachable.ip {
            IpChoice::Ipv4 => (&[Family::V4], false),
            IpChoice::Both if ipv4 == ipv6 => (&[Family::V4, Family::V6], true),
            IpChoice::Both | IpChoice::PreferIpv4 if ipv6 && !ipv4 => (&[Family::V6, Family::V4], false),
            IpChoice::Both | IpChoice::PreferIpv4 => (&[Family::V4, Family::V6], false),
        };
        for family in rounds {
            // The other family is asked for only where it is certain that no host has the first.
            let settled = found.iter().any(|host| !host.list.is_empty() || host.trouble.is_some());
            if settled && !all {
                break;
            }
            for (host, answer) in found.iter_mut().zip(self.ask_all(names, *family).await) {
                host.take(answer);
            }
        }
        found
    }

    async fn ask_all(&self, names: &[String], family: Family) -> Vec<Result<Records<IpAddr>, NoAnswer>> {
        together(names.iter().map(|name| self.ask_address(name, family)).collect()).await
    }

    fn ask_address<'a>(&'a self, name: &'a str, family: Family) -> Pending<'a, Result<Records<IpAddr>, NoAnswer>> {
        Box::pin(async move {
            match family {
                Family::V4 => self.ask(self.dns.v4(name)).await.map(widen),
                Family::V6 => self.ask(self.dns.v6(name)).await.map(widen),
            }
        })
    }

    async fn ask<T>(&self, question: Answer<'_, T>) -> Result<Records<T>, NoAnswer> {
        // Never closed, so a permit always comes.
        let _permit = self.questions.acquire().await;
        question.await
    }
}

fn widen<T: Into<IpAddr>>(records: Records<T>) -> Records<IpAddr> {
    Records { records: records.records.into_iter().map(Into::into).collect(), ttl: records.ttl }
}

type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Waits for all at once; answers in the order of the questions.
async fn together<T>(mut questions: Vec<Pending<'_, T>>) -> Vec<T> {
    let mut answers: Vec<Option<T>> = questions.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (question, answer) in questions.iter_mut().zip(&mut answers).filter(|(_, answer)| answer.is_none()) {
            if let Poll::Ready(value) = question.as_mut().poll(context) {
                *answer = Some(value);
            }
        }
        if answers.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    answers.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::Accesses;
    use super::super::choice::HOSTS_MAX;
    use super::super::options::RouteEntry;
    use super::super::reachable::OwnAddresses;
    use super::super::table::{TTL, TableDns};
    use super::*;

    struct World {
        dns: TableDns,
        fixed: FixedRoutes,
        reachable: Reachable,
        reach: Reach,
    }

    fn world(dns: TableDns) -> World {
        let own = OwnAddresses {
            listeners: vec!["127.0.0.1:2525".parse().unwrap()],
            interfaces: ["127.0.0.1", "52.0.0.99", "10.0.0.99"].iter().map(|ip| ip.parse().unwrap()).collect(),
        };
        World {
            dns,
            fixed: FixedRoutes::default(),
            reachable: Reachable { port: 25, ip: IpChoice::PreferIpv4, networks: vec![], own },
            reach: Reach { ipv4: true, ipv6: true },
        }
    }

    impl World {
        fn inside(mut self, network: &str) -> World {
            self.reachable.networks.push(network.parse().unwrap());
            self
        }

        fn ip(mut self, ip: IpChoice) -> World {
            self.reachable.ip = ip;
            self
        }

        fn reach(mut self, ipv4: bool, ipv6: bool) -> World {
            self.reach = Reach { ipv4, ipv6 };
            self
        }

        fn route(mut self, domain: &str, to: &str) -> World {
            let entry = RouteEntry { domain: domain.into(), to: to.into(), ..RouteEntry::default() };
            self.fixed = FixedRoutes::new(&[entry], 25, &Accesses::unread(&[])).unwrap();
            self
        }

        async fn find(&self, domain: &str) -> Result<Found, Fault> {
            let mx = ["*.olc.protection.outlook.com".to_string()];
            let providers = ProviderTable::new([("outlook", &mx[..], &[][..])]);
            let questions = Semaphore::new(10);
            let lookup = Lookup {
                dns: &self.dns,
                questions: &questions,
                fixed: &self.fixed,
                providers: &providers,
                reachable: &self.reachable,
                reach: self.reach,
            };
            lookup.domain(&Domain::parse(domain).unwrap()).await
        }

        /// The hosts as `preference name provider address,address`, a line each.
        async fn hosts(&self, domain: &str) -> Vec<String> {
            let found = self.find(domain).await.unwrap_or_else(|fault| panic!("{} {}", fault.status, fault.text));
            let line = |host: &Host| {
                let addresses = host.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
                format!("{} {} {} {addresses}", host.preference, host.name, host.provider)
            };
            found.hosts.iter().map(line).collect()
        }

        async fn fault(&self, domain: &str) -> (bool, &'static str, String) {
            let fault = self.find(domain).await.err().expect("a fault");
            (fault.permanent, fault.status, fault.text)
        }
    }

    #[tokio::test]
    async fn hosts_come_by_preference_then_alphabet_each_once() {
        let dns = TableDns::default()
            .mx("a.test.", &[(20, "z.mx.test"), (10, "c.mx.test"), (10, "b.mx.test"), (30, "b.mx.test")])
            .v4("b.mx.test.", &["52.0.0.1", "52.0.0.2", "52.0.0.1"])
            .v4("c.mx.test.", &["52.0.0.3"])
            .v4("z.mx.test.", &["52.0.0.4"]);
        assert_eq!(
            world(dns).hosts("a.test").await,
            [
                "10 b.mx.test b.mx.test 52.0.0.1:25,52.0.0.2:25",
                "10 c.mx.test b.mx.test 52.0.0.3:25",
                "20 z.mx.test b.mx.test 52.0.0.4:25"
            ]
        );
    }

    #[tokio::test]
    async fn the_provider_is_the_hosts_whatever_the_domain() {
        let outlook = "outlook-com.olc.protection.outlook.com";
        let dns = TableDns::default()
            .mx("own.test.", &[(5, outlook), (9, "mx.own.test")])
            .v4(&format!("{outlook}."), &["52.0.0.1"])
            .v4("mx.own.test.", &["52.0.0.2"]);
        assert_eq!(
            world(dns).hosts("own.test").await,
            [format!("5 {outlook} outlook 52.0.0.1:25"), "9 mx.own.test mx.own.test 52.0.0.2:25".to_string()]
        );
    }

    #[tokio::test]
    async fn what_the_dns_says_for_certain_is_final_and_what_nobody_knows_is_not() {
        let dns = || {
            TableDns::default()
                .mx("null.test.", &[(0, "")])
                .v6("nothing.test.", &[])
                .v4("mx.nowhere.test.", &["10.0.0.1"])
                .mx("nohost.test.", &[(10, "gone.test"), (20, "gone2.test")])
                .mx("digits.test.", &[(10, "52.0.0.1")])
                .mx("strange.test.", &[(10, "a b\\.test"), (10, "localhost\n")])
                .fails("MX", "servfail.test.", NoAnswer::ServerFailure)
                .fails("MX", "refused.test.", NoAnswer::Refused)
                .fails("MX", "slow.test.", NoAnswer::TimedOut)
                .fails("MX", "broken.test.", NoAnswer::Broken("connection refused".into()))
                .mx("slowhost.test.", &[(10, "gone.test"), (20, "mx.slowhost.test")])
                .fails("A", "mx.slowhost.test.", NoAnswer::TimedOut)
        };
        for (domain, permanent, status, says) in [
            ("gone.test", true, "5.1.2", "does not exist"),
            ("null.test", true, "5.1.10", "null MX"),
            ("nothing.test", true, "5.4.4", "neither an MX host nor"),
            ("nohost.test", true, "5.4.4", "no MX host of nohost.test has an address"),
            ("digits.test", true, "5.4.4", "52.0.0.1 is no host name"),
            ("strange.test", true, "5.4.4", "can be used: a b\\.test, localhost\\n is no host name"),
            ("servfail.test", false, "4.4.3", "SERVFAIL"),
            ("refused.test", false, "4.4.3", "REFUSED"),
            ("slow.test", false, "4.4.3", "in time"),
            ("broken.test", false, "4.4.3", "connection refused"),
            ("slowhost.test", false, "4.4.3", "mx.slowhost.test: no name server answered in time"),
        ] {
            let (was_permanent, was, text) = world(dns()).fault(domain).await;
            assert_eq!((was_permanent, was), (permanent, status), "{domain}: {text}");
            assert!(text.contains(says), "{domain}: {text}");
            assert!(!text.contains('\n'), "{domain}: {text:?}");
        }
    }

    #[tokio::test]
    async fn a_domain_without_mx_is_its_own_host() {
        for dns in [TableDns::default(), TableDns::default().mx("bare.test.", &[])] {
            let world = world(dns.v4("bare.test.", &["52.0.0.1"]));
            assert_eq!(world.hosts("bare.test").await, ["0 bare.test bare.test 52.0.0.1:25"]);
        }
    }

    #[tokio::test]
    async fn hosts_that_cannot_be_used_are_passed_over() {
        let dns = TableDns::default()
            .mx(
                "a.test.",
                &[(0, ""), (1, "52.0.0.9"), (5, "gone.test"), (7, "in.test"), (8, "good.test"), (9, "slow.test")],
            )
            .v4("in.test.", &["192.168.1.1"])
            .v4("good.test.", &["10.0.0.1", "52.0.0.1"])
            .fails("A", "slow.test.", NoAnswer::ServerFailure);
        let world = world(dns);
        assert_eq!(world.hosts("a.test").await, ["8 good.test gone.test 52.0.0.1:25"]);
        let found = world.find("a.test").await.ok().unwrap();
        assert_eq!(found.ttl, FAILURE_KEPT, "the host that could not be looked up is asked for again soon");
    }

    #[tokio::test]
    async fn a_hundred_hosts_and_thousands_of_addresses_are_cut() {
        let names: Vec<String> = (0..100).map(|n| format!("mx{n:02}.test")).collect();
        let list: Vec<(u16, &str)> = names.iter().map(|name| (10, name.as_str())).collect();
        let mut dns = TableDns::default().mx("many.test.", &list);
        for (n, name) in names.iter().enumerate() {
            let addresses: Vec<String> = (0..30).map(|m| format!("52.1.{n}.{m}")).collect();
            dns = dns.v4(&format!("{name}."), &addresses.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let world = world(dns);
        let found = world.find("many.test").await.ok().unwrap();
        assert_eq!(found.hosts.iter().map(|host| host.addresses.len()).sum::<usize>(), ADDRESSES_MAX);
        assert!(found.hosts.iter().all(|host| !host.addresses.is_empty()));
        assert_eq!(world.dns.asked.lock().unwrap().len(), 1 + HOSTS_MAX);
    }

    #[tokio::test]
    async fn addresses_outside_the_public_internet_are_refused_unless_configured() {
        let dns = || {
            TableDns::default()
                .mx("in.test.", &[(10, "mx.in.test")])
                .v4("mx.in.test.", &["127.0.0.5", "10.0.0.1"])
                .mx("here.test.", &[(10, "localhost")])
                .v4("localhost.", &["127.0.0.1"])
        };
        let (permanent, status, text) = world(dns()).fault("in.test").await;
        assert_eq!((permanent, status), (true, "5.4.4"));
        assert!(text.contains("127.0.0.5 (mx.in.test)") && text.contains("[delivery] networks"), "{text}");
        assert_eq!(world(dns()).fault("here.test").await.1, "5.4.4");
        let trial = world(dns()).inside("127.0.0.0/8");
        assert_eq!(trial.hosts("in.test").await, ["10 mx.in.test mx.in.test 127.0.0.5:25"]);
        assert_eq!(trial.hosts("here.test").await, ["10 localhost localhost 127.0.0.1:25"]);
    }

    #[tokio::test]
    async fn hosts_at_and_behind_our_own_preference_are_dropped() {
        let dns = || {
            TableDns::default()
                .mx("backup.test.", &[(5, "main.test"), (10, "we.test"), (10, "equal.test"), (20, "last.test")])
                .mx("ours.test.", &[(10, "we.test"), (20, "last.test")])
                .v4("main.test.", &["52.0.0.1"])
                .v4("we.test.", &["52.0.0.2", "52.0.0.99"])
                .v4("equal.test.", &["52.0.0.3"])
                .v4("last.test.", &["52.0.0.4"])
                .v4("bare.test.", &["52.0.0.99"])
        };
        assert_eq!(world(dns()).hosts("backup.test").await, ["5 main.test main.test 52.0.0.1:25"]);
        for domain in ["ours.test", "bare.test"] {
            let (permanent, status, text) = world(dns()).fault(domain).await;
            assert_eq!((permanent, status), (true, "5.4.6"), "{text}");
            assert!(text.contains("52.0.0.99") && text.contains("[delivery] networks"), "{text}");
        }
        let allowed = world(dns()).inside("52.0.0.99/32");
        assert_eq!(allowed.hosts("bare.test").await, ["0 bare.test bare.test 52.0.0.99:25"]);
    }

    #[tokio::test]
    async fn while_the_host_before_us_cannot_be_looked_up_the_mail_waits() {
        let dns = TableDns::default()
            .mx("backup.test.", &[(5, "main.test"), (10, "we.test")])
            .fails("A", "main.test.", NoAnswer::TimedOut)
            .v4("we.test.", &["52.0.0.99"]);
        assert_eq!(world(dns).fault("backup.test").await.1, "4.4.3");
    }

    #[tokio::test]
    async fn our_own_listener_is_a_loop_even_inside_the_networks() {
        let dns = TableDns::default().v4("bare.test.", &["127.0.0.1"]);
        let mut world = world(dns).inside("127.0.0.0/8");
        world.reachable.port = 2525;
        assert_eq!(world.fault("bare.test").await.1, "5.4.6");
    }

    #[tokio::test]
    async fn ipv6_is_used_only_where_it_is_certain_that_there_is_no_ipv4() {
        let dns = || {
            TableDns::default()
                .mx("both.test.", &[(5, "six.test"), (10, "four.test")])
                .v6("six.test.", &["2a01::1"])
                .v4("four.test.", &["52.0.0.1"])
                .v6("four.test.", &["2a01::2"])
                .mx("six.only.test.", &[(5, "six.test")])
                .mx("unsure.test.", &[(5, "six.test"), (10, "slow.test")])
                .fails("A", "slow.test.", NoAnswer::TimedOut)
        };
        let (four, six) = ("10 four.test six.test 52.0.0.1:25", "5 six.test six.test [2a01::1]:25");
        use IpChoice::{Both, Ipv4, PreferIpv4};
        for (ip, reach, domain, hosts) in [
            (PreferIpv4, (true, true), "both.test", vec![four]),
            (PreferIpv4, (true, false), "both.test", vec![four]),
            (PreferIpv4, (false, false), "both.test", vec![four]),
            (PreferIpv4, (false, true), "both.test", vec![six, "10 four.test six.test [2a01::2]:25"]),
            (PreferIpv4, (true, true), "six.only.test", vec![six]),
            (Both, (true, true), "both.test", vec![six, "10 four.test six.test 52.0.0.1:25,[2a01::2]:25"]),
            (Both, (true, false), "both.test", vec![four]),
            (Ipv4, (true, true), "both.test", vec![four]),
        ] {
            let world = world(dns()).ip(ip).reach(reach.0, reach.1);
            assert_eq!(world.hosts(domain).await, hosts, "{ip:?} {reach:?} {domain}");
        }
        assert_eq!(world(dns()).fault("unsure.test").await.1, "4.4.3");
        let (permanent, status, text) = world(dns()).ip(Ipv4).fault("six.only.test").await;
        assert_eq!((permanent, status), (true, "5.4.4"));
        assert!(text.contains("ip = \"ipv4\""), "{text}");
    }

    #[tokio::test]
    async fn where_ipv4_is_found_ipv6_is_not_even_asked_for() {
        let dns = TableDns::default().mx("a.test.", &[(5, "mx.test")]).v4("mx.test.", &["52.0.0.1"]);
        let world = world(dns);
        world.hosts("a.test").await;
        assert_eq!(*world.dns.asked.lock().unwrap(), ["MX a.test.", "A mx.test."]);
    }

    #[tokio::test]
    async fn literals_need_no_dns_but_the_same_permission() {
        let world = world(TableDns::default()).inside("127.0.0.0/8");
        assert_eq!(world.hosts("[52.0.0.1]").await, ["0 [52.0.0.1] [52.0.0.1] 52.0.0.1:25"]);
        assert_eq!(world.hosts("[IPv6:2a01::1]").await, ["0 [IPv6:2a01::1] [IPv6:2a01::1] [2a01::1]:25"]);
        assert_eq!(world.hosts("[127.0.0.1]").await, ["0 [127.0.0.1] [127.0.0.1] 127.0.0.1:25"]);
        assert_eq!(world.fault("[10.0.0.1]").await.1, "5.4.4");
        assert_eq!(world.fault("[52.0.0.99]").await.1, "5.4.6");
        assert!(world.dns.asked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_fixed_route_is_trusted_and_asks_for_no_mx() {
        let dns = || TableDns::default().v4("mailhog", &["172.18.0.5"]).v6("six", &["fd00::5"]);
        let hop = |to: &str| world(dns()).route("*", to);
        assert_eq!(hop("127.0.0.1:2600").hosts("a.test").await, ["0 [127.0.0.1] 127.0.0.1:2600 127.0.0.1:2600"]);
        assert_eq!(hop("mailhog:1025").hosts("a.test").await, ["0 mailhog mailhog 172.18.0.5:1025"]);
        assert_eq!(hop("six:25").hosts("[10.0.0.1]").await, ["0 six six [fd00::5]:25"]);
        assert!(hop("mailhog:1025").find("a.test").await.is_ok_and(|found| found.fixed && found.ttl == TTL));
    }

    #[tokio::test]
    async fn mail_for_a_provider_goes_another_way_once_its_hosts_are_known() {
        let dns = TableDns::default()
            .mx("a.test.", &[(5, "a.olc.protection.outlook.com")])
            .v4("a.olc.protection.outlook.com.", &["52.0.0.1"])
            .mx("b.test.", &[(5, "mx.b.test")])
            .v4("mx.b.test.", &["52.0.0.2"]);
        let mut world = world(dns);
        let entry = RouteEntry { provider: "outlook".into(), to: "10.0.0.1:2600".into(), ..RouteEntry::default() };
        world.fixed = FixedRoutes::new(&[entry], 25, &Accesses::unread(&[])).unwrap();
        assert_eq!(world.hosts("a.test").await, ["0 [10.0.0.1] 10.0.0.1:2600 10.0.0.1:2600"]);
        assert_eq!(world.hosts("b.test").await, ["5 mx.b.test mx.b.test 52.0.0.2:25"]);
    }

    #[tokio::test]
    async fn a_fixed_route_never_returns_mail() {
        let dns =
            || TableDns::default().v4("loop", &["127.0.0.1"]).fails("A", "slow", NoAnswer::TimedOut).v6("empty", &[]);
        for (to, status, says) in [
            ("gone:25", "4.4.3", "the next hop for a.test"),
            ("slow:25", "4.4.3", "in time"),
            ("loop:2525", "4.3.5", "is weir itself"),
            ("127.0.0.1:2525", "4.3.5", "correct `to`"),
        ] {
            let (permanent, was, text) = world(dns()).route("a.test", to).fault("a.test").await;
            assert_eq!((permanent, was), (false, status), "{to}");
            assert!(text.contains(says), "{text}");
        }
    }
}
