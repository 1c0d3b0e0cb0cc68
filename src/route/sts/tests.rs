//! Policies as routing asks for them: over scripted policy hosts, and over a local HTTPS server in all its failures.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::dns::NoAnswer;
use super::super::fixed::FixedRoutes;
use super::super::options::RouteEntry;
use super::super::reachable::OwnAddresses;
use super::super::table::TableDns;
use super::super::{Accesses, ProviderTable, Reach, Reachable, Route, Router, Settings, TlsPolicies};
use super::*;
use crate::outbound::options::{IpChoice, TlsPolicy};
use crate::types::{NextHop, StsMode, TlsMode};

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn text(mode: &str, mx: &str) -> String {
    format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 604800\n")
}

/// How long an answer takes, and what it is.
type Answer = (Duration, Result<String, String>);

/// Policy hosts, by domain.
#[derive(Default)]
struct Hosts {
    says: Mutex<BTreeMap<String, Answer>>,
    asked: AtomicUsize,
}

impl Hosts {
    fn say(&self, domain: &str, after: Duration, what: Result<String, &str>) {
        lock(&self.says).insert(domain.into(), (after, what.map_err(str::to_string)));
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Fetch for Arc<Hosts> {
    fn fetch<'a>(&'a self, domain: &'a Domain, _around: &'a Around) -> Fetching<'a> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let said = lock(&self.says).get(domain.as_str()).cloned();
        Box::pin(async move {
            let (after, what) = said.unwrap_or((Duration::ZERO, Err("nobody is there".into())));
            tokio::time::sleep(after).await;
            Policy::parse(what?.as_bytes()).map_err(|error| error.to_string())
        })
    }
}

struct World {
    dns: Arc<TableDns>,
    clock: Clock,
    hosts: Arc<Hosts>,
    written: Arc<Mutex<Vec<(String, String)>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    sts: Arc<Sts>,
    policies: Vec<TlsPolicy>,
    routes: Vec<RouteEntry>,
}

fn world(dns: TableDns) -> World {
    world_of(dns, Arc::default(), Clock::starting_at(START), &[])
}

fn world_of(dns: TableDns, hosts: Arc<Hosts>, clock: Clock, before: &[(String, String)]) -> World {
    let dns = Arc::new(dns);
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let written: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let keep = written.clone();
    let keep: Keep = Box::new(move |domain, text| lock(&keep).push((domain.to_string(), text)));
    let around = Around { dns: dns.clone(), networks: Arc::new([]) };
    let life = Life { tasks: tasks.clone(), stop: stop.clone() };
    let sts = Sts::new(Box::new(hosts.clone()), keep, around, clock.clone(), life);
    sts.restore(before);
    World { dns, clock, hosts, written, tasks, stop, sts, policies: vec![], routes: vec![] }
}

/// A domain with two MX hosts and a policy.
fn two_hosts() -> TableDns {
    TableDns::default()
        .mx("a.test.", &[(10, "mx1.a.test"), (20, "mx2.a.test")])
        .v4("mx1.a.test.", &["52.0.0.1"])
        .v4("mx2.a.test.", &["52.0.0.2"])
        .txt("_mta-sts.a.test.", &["v=STSv1; id=1;"])
}

impl World {
    fn router(&self) -> Router {
        let own = OwnAddresses { listeners: vec![], interfaces: Default::default() };
        let settings = Settings {
            fixed: FixedRoutes::new(&self.routes, 25, &Accesses::unread(&[])).unwrap(),
            providers: ProviderTable::default(),
            reachable: Reachable { port: 25, ip: IpChoice::PreferIpv4, networks: vec![], own },
            reach: Reach { ipv4: true, ipv6: true },
            policies: TlsPolicies::new(&self.policies),
            sts: Some(self.sts.clone()),
        };
        Router::new(self.dns.clone(), self.clock.clone(), settings)
    }

    async fn route(&self) -> Route {
        self.router().resolve(&domain("a.test")).await.unwrap()
    }

    async fn mode(&self) -> Option<Mode> {
        self.sts.ask(&domain("a.test")).await.policy.map(|policy| policy.mode())
    }

    /// Until no fetch is under way.
    async fn settle(&self) {
        while !lock(&self.sts.flights).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn domain(name: &str) -> Domain {
    Domain::parse(name).unwrap()
}

fn names(route: &Route) -> Vec<&str> {
    route.hosts.iter().map(|host| &*host.name).collect()
}

#[tokio::test(start_paused = true)]
async fn enforce_leaves_the_hosts_it_names_and_asks_them_for_a_certificate() {
    let world = world(two_hosts());
    world.hosts.say("a.test", Duration::ZERO, Ok(text("enforce", "mx2.a.test")));
    let route = world.route().await;
    assert_eq!((names(&route), route.sts), (vec!["mx2.a.test"], Some(StsMode::Enforce)));
    let demand = route.demand.unwrap();
    assert_eq!(
        (demand.tls, &*demand.named),
        (TlsMode::Verify, "MTA-STS policy (mode enforce) of the recipients' domain")
    );
}

#[tokio::test(start_paused = true)]
async fn where_enforce_names_no_host_of_the_dns_the_mail_waits_and_the_reason_names_both() {
    let world = world(two_hosts());
    world.hosts.say("a.test", Duration::ZERO, Ok(text("enforce", "*.elsewhere.test")));
    let fault = world.router().resolve(&domain("a.test")).await.unwrap_err();
    assert_eq!((fault.permanent, fault.status), (false, "4.7.5"));
    let says = "the MTA-STS policy of a.test (mode enforce) names *.elsewhere.test; the MX that the DNS gives, mx1.a.test, mx2.a.test";
    assert!(fault.text.contains(says), "{}", fault.text);
}

#[tokio::test(start_paused = true)]
async fn testing_and_none_change_no_host_and_no_mode() {
    for (mode, sts) in [("testing", Some(StsMode::Testing)), ("none", None)] {
        let world = world(two_hosts());
        world.hosts.say("a.test", Duration::ZERO, Ok(text(mode, "mx2.a.test")));
        let route = world.route().await;
        assert_eq!((names(&route).len(), route.sts, route.demand), (2, sts, None), "{mode}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_operators_word_stands_in_place_of_a_policy_but_verify_keeps_its_hosts() {
    for (tls, hosts, sts) in [(TlsMode::Opportunistic, 2, None), (TlsMode::Verify, 1, Some(StsMode::Enforce))] {
        let mut world = world(two_hosts());
        world.policies = vec![TlsPolicy { domain: "a.test".into(), tls }];
        world.hosts.say("a.test", Duration::ZERO, Ok(text("enforce", "mx2.a.test")));
        let route = world.route().await;
        assert_eq!((names(&route).len(), route.sts, route.demand.unwrap().tls), (hosts, sts, tls));
    }
}

#[tokio::test(start_paused = true)]
async fn hosts_that_the_operator_wrote_down_and_literals_are_asked_for_no_policy() {
    let mut world = world(two_hosts());
    world.routes = vec![RouteEntry { domain: "a.test".into(), to: "52.0.0.9:25".into(), ..RouteEntry::default() }];
    let router = world.router();
    let hop = "52.0.0.8:25".parse::<NextHop>().unwrap();
    assert!(router.resolve(&domain("a.test")).await.unwrap().fixed);
    assert!(router.resolve_hop(&domain("a.test"), &hop).await.unwrap().sts.is_none());
    router.resolve(&domain("[52.0.0.7]")).await.unwrap();
    assert!(!lock(&world.dns.asked).iter().any(|asked| asked.contains("_mta-sts")));
}

#[tokio::test(start_paused = true)]
async fn a_policy_host_that_hangs_delays_the_first_mail_shortly_and_its_policy_counts_once_it_came() {
    let world = world(two_hosts());
    world.hosts.say("a.test", Duration::from_secs(30), Ok(text("enforce", "mx2.a.test")));
    let route = world.route().await;
    assert_eq!((world.clock.now().since(START), route.sts), (WAIT, None));
    assert_eq!(route.valid_until.since(world.clock.now()), AGAIN);
    // Whoever asks meanwhile starts no other fetch.
    assert_eq!(world.mode().await, None);
    world.settle().await;
    assert_eq!((world.mode().await, world.hosts.asked()), (Some(Mode::Enforce), 1));
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_make_one_fetch() {
    let world = world(two_hosts());
    world.hosts.say("a.test", Duration::from_secs(1), Ok(text("enforce", "mx2.a.test")));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let sts = world.sts.clone();
        tasks.spawn(async move { sts.ask(&domain("a.test")).await.policy.is_some() });
    }
    assert!(tasks.join_all().await.into_iter().all(|found| found));
    assert_eq!(world.hosts.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_outage_holds_nothing_without_a_policy_and_takes_none_away() {
    let world = world(two_hosts());
    assert_eq!(world.mode().await, None);
    assert_eq!((world.mode().await, world.hosts.asked()), (None, 1), "remembered");
    world.hosts.say("a.test", Duration::ZERO, Ok(text("enforce", "mx2.a.test")));
    world.clock.sleep_until(world.clock.now() + Duration::from_secs(301)).await;
    assert_eq!(world.mode().await, Some(Mode::Enforce));
    world.hosts.say("a.test", Duration::ZERO, Err("gone"));
    world.clock.sleep_until(world.clock.now() + 6 * DAY).await;
    assert_eq!(world.mode().await, Some(Mode::Enforce), "it holds for its week, and is renewed in vain meanwhile");
    world.settle().await;
    world.clock.sleep_until(world.clock.now() + 2 * DAY).await;
    assert_eq!(world.mode().await, None);
}

#[tokio::test(start_paused = true)]
async fn another_id_brings_another_policy_at_once_and_a_lost_record_none() {
    let world = world(two_hosts());
    world.hosts.say("a.test", Duration::ZERO, Ok(text("enforce", "mx2.a.test")));
    assert_eq!(world.mode().await, Some(Mode::Enforce));
    world.hosts.say("a.test", Duration::ZERO, Ok(text("none", "mx2.a.test")));
    assert_eq!(world.mode().await, Some(Mode::Enforce), "the same id: nothing is fetched");
    world.dns.mend("TXT", "_mta-sts.a.test.");
    assert_eq!(world.mode().await, Some(Mode::Enforce), "no record");
    world.dns.publish_failure("TXT", "_mta-sts.a.test.", NoAnswer::ServerFailure);
    let known = world.sts.ask(&domain("a.test")).await;
    assert_eq!((known.policy.is_some(), known.holds), (true, Some(AGAIN)), "nobody can tell");
    world.dns.publish_txt("_mta-sts.a.test.", &["v=STSv1; id=2;"]);
    assert_eq!((world.mode().await, world.hosts.asked()), (Some(Mode::None), 2));
}

#[tokio::test(start_paused = true)]
async fn policies_are_kept_over_a_restart_and_renewed_before_they_end_without_any_mail() {
    let first = world(two_hosts());
    first.hosts.say("a.test", Duration::ZERO, Ok(text("enforce", "mx2.a.test")));
    assert_eq!(first.mode().await, Some(Mode::Enforce));
    let written = lock(&first.written).clone();
    // The policy host is down, and so is the name server.
    let dns = TableDns::default().fails("TXT", "_mta-sts.a.test.", NoAnswer::TimedOut);
    let second = world_of(dns, Arc::default(), first.clock.clone(), &written);
    assert_eq!(second.mode().await, Some(Mode::Enforce));
    second.hosts.say("a.test", Duration::ZERO, Ok(text("testing", "mx2.a.test")));
    let fresh = second.tasks.spawn(second.sts.clone().keep_fresh());
    second.clock.sleep_until(START + 2 * DAY - Duration::from_secs(3600)).await;
    assert_eq!((second.mode().await, second.hosts.asked()), (Some(Mode::Testing), 1));
    assert_eq!(lock(&second.written).len(), 1);
    second.stop.cancel();
    fresh.await.unwrap();
}

/// One HTTPS server at 127.0.0.1 that gives each connection the same answer.
struct Server {
    at: SocketAddr,
    root: CertificateDer<'static>,
}

async fn server(certified: &str, expired: bool, answer: impl Into<String>, tasks: &TaskTracker) -> Server {
    let mut params = rcgen::CertificateParams::new(vec![certified.to_string()]).unwrap();
    if expired {
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2001, 1, 1), rcgen::date_time_ymd(2002, 1, 1));
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate.clone()], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (at, answer) = (listener.local_addr().unwrap(), answer.into());
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.is_ok_and(|read| read > 0) {}
            assert!(request.starts_with(b"GET /.well-known/mta-sts.txt HTTP/1.1\r\n"));
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    Server { at, root: certificate }
}

fn http(kind: &str, content: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{content}", content.len())
}

async fn got(server: &Server, networks: &[&str]) -> Result<Policy, String> {
    let tls = crate::post::Tls::new(
        Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
        std::slice::from_ref(&server.root),
    );
    let https = Https::at(tls.unwrap(), server.at.port());
    let dns = Arc::new(TableDns::default().v4("mta-sts.a.test.", &["127.0.0.1"]));
    let networks = networks.iter().map(|net| net.parse().unwrap()).collect();
    https.fetch(&domain("a.test"), &Around { dns, networks }).await
}

#[tokio::test]
async fn a_policy_is_taken_from_its_host_alone_by_https_and_in_no_other_form() {
    let (good, tasks) = (text("enforce", "mx.a.test"), TaskTracker::new());
    let chunked = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n\
                   3b\r\nversion: STSv1\nmode: testing\nmx: mx.a.test\nmax_age: 604800\n\r\n0\r\n\r\n";
    let own = "mta-sts.a.test";
    for (host, expired, answer, mode) in
        [(own, false, http("text/plain", &good), Mode::Enforce), (own, false, chunked.to_string(), Mode::Testing)]
    {
        let server = server(host, expired, answer, &tasks).await;
        assert_eq!(got(&server, &["127.0.0.0/8"]).await.map(|policy| policy.mode()), Ok(mode));
    }
    let moved = "HTTP/1.1 301 Moved\r\nLocation: https://mta-sts.a.test/x\r\nContent-Length: 0\r\n\r\n".to_string();
    let endless = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n".to_string() + &"mx: a.test\n".repeat(7000);
    for (host, expired, answer, says) in [
        (own, false, http("text/html", &good), "is of type `text/html` instead of text/plain"),
        (own, false, "HTTP/1.1 200 OK\r\n\r\n".to_string() + &good, "is of type `` instead of text/plain"),
        (own, false, http("text/plain", "<html>"), "has no `version: STSv1`"),
        (own, false, moved, "it answered 301 Moved"),
        (own, false, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_string(), "it answered 404"),
        (own, false, endless, "longer than 65536 octets"),
        (own, false, "nonsense\r\n\r\n".to_string(), "HTTP: "),
        (own, true, http("text/plain", &good), "expired"),
        ("a.test", false, http("text/plain", &good), "not valid for name"),
    ] {
        let server = server(host, expired, answer, &tasks).await;
        let why = got(&server, &["127.0.0.0/8"]).await.unwrap_err();
        assert!(why.starts_with("https://mta-sts.a.test: ") && why.contains(says), "{why}");
    }
    let private = server(own, false, http("text/plain", &good), &tasks).await;
    let why = got(&private, &[]).await.unwrap_err();
    assert!(why.contains("127.0.0.1, which is not public"), "{why}");
}
