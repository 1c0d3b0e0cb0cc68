//! The real resolver against name servers on loopback, honest and other.

use std::net::UdpSocket as StdUdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use hickory_resolver::proto::op::{Message, Query};
use hickory_resolver::proto::rr::Record;
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, NS, PTR, SOA};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use super::super::{FixedRoutes, OwnAddresses, ProviderTable, Reach, Reachable, Router, Settings};
use super::*;
use crate::clock::Clock;
use crate::outbound::options::Delivery;
use crate::types::Domain;

/// A name server on loopback with a fixed script; ends with the test.
struct Server {
    dns: HickoryDns,
    address: SocketAddr,
    questions: Arc<AtomicUsize>,
    /// From now on it knows nothing of any zone.
    is_lame: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn record(owner: &str, ttl: u32, data: RData) -> Record {
    Record::from_rdata(name(owner), ttl, data)
}

fn mx(owner: &str, preference: u16, exchange: &str) -> Record {
    record(owner, 300, RData::MX(MX::new(preference, name(exchange))))
}

fn a(owner: &str, ttl: u32, address: [u8; 4]) -> Record {
    record(owner, ttl, RData::A(A(address.into())))
}

/// The script: what is answered to a question, none for silence.
fn reply(question: &Message, over_tcp: bool) -> Option<Message> {
    let query = question.queries.first()?.clone();
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.add_query(query.clone());
    let asked = query.name().to_ascii().to_ascii_lowercase();
    let code = match (asked.as_str(), query.query_type()) {
        ("two.test.", RecordType::MX) => {
            answer.add_answers([mx("two.test.", 20, "b.two.test."), mx("two.test.", 10, "A.Two.test.")]);
            ResponseCode::NoError
        }
        ("null.test.", RecordType::MX) => {
            answer.add_answer(mx("null.test.", 0, "."));
            ResponseCode::NoError
        }
        ("alias.test.", RecordType::MX) => {
            answer.add_answer(record("alias.test.", 60, RData::CNAME(CNAME(name("two.test.")))));
            answer.add_answer(mx("two.test.", 10, "a.two.test."));
            ResponseCode::NoError
        }
        ("chain.test.", RecordType::A) => {
            answer.add_answer(record("chain.test.", 30, RData::CNAME(CNAME(name("a.two.test.")))));
            ResponseCode::NoError
        }
        ("a.two.test.", RecordType::A) => {
            answer.add_answers([a("a.two.test.", 220, [52, 0, 0, 1]), a("a.two.test.", 100, [52, 0, 0, 2])]);
            ResponseCode::NoError
        }
        ("a.two.test.", RecordType::AAAA) => {
            answer.add_answer(record("a.two.test.", 90, RData::AAAA(AAAA("2a01::1".parse().unwrap()))));
            ResponseCode::NoError
        }
        ("7.0.0.52.in-addr.arpa.", RecordType::PTR) => {
            answer.add_answer(record(&asked, 90, RData::PTR(PTR(name("Mail.Weir.test.")))));
            ResponseCode::NoError
        }
        ("long.test.", RecordType::MX) if !over_tcp => {
            answer.metadata.truncation = true;
            ResponseCode::NoError
        }
        ("long.test.", RecordType::MX) => {
            answer.add_answers((0..100).map(|n| mx("long.test.", n, &format!("mx{n}.long.test."))));
            ResponseCode::NoError
        }
        ("hop.search.test.", RecordType::A) => {
            answer.add_answer(a("hop.search.test.", 60, [172, 18, 0, 5]));
            ResponseCode::NoError
        }
        ("noquestion.test.", _) => {
            answer.queries.clear();
            ResponseCode::NoError
        }
        ("other.tcp.test." | "noquestion.tcp.test." | "nonsense.tcp.test.", _) if !over_tcp => {
            answer.metadata.truncation = true;
            ResponseCode::NoError
        }
        ("other.tcp.test.", _) => {
            answer.queries = vec![Query::query(name("two.test."), RecordType::MX)];
            ResponseCode::NoError
        }
        ("noquestion.tcp.test.", _) => {
            answer.queries.clear();
            ResponseCode::NXDomain
        }
        ("lame.test.", _) => {
            answer.add_authority(record("test.", 60, RData::NS(NS(name("ns.test.")))));
            return Some(answer);
        }
        ("servfail.test.", _) => ResponseCode::ServFail,
        ("refused.test.", _) => ResponseCode::Refused,
        ("silent.test.", _) => return None,
        ("gone.test." | "hop.", _) => ResponseCode::NXDomain,
        _ => ResponseCode::NoError,
    };
    if answer.answers.is_empty() && !answer.metadata.truncation {
        let soa = SOA::new(name("ns.test."), name("root.test."), 1, 3600, 600, 86_400, 77);
        answer.add_authority(record("test.", 3600, RData::SOA(soa)));
    }
    answer.metadata.response_code = code;
    Some(answer)
}

async fn serve_udp(socket: UdpSocket, questions: Arc<AtomicUsize>, is_lame: Arc<AtomicBool>) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        questions.fetch_add(1, Ordering::Relaxed);
        let question = Message::from_vec(&buffer[..length]).unwrap();
        if is_lame.load(Ordering::Relaxed) {
            let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
            answer.add_queries(question.queries);
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        } else if let Some(answer) = reply(&question, false) {
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    }
}

async fn serve_tcp(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        while let Ok(length) = stream.read_u16().await {
            let mut buffer = vec![0; usize::from(length)];
            stream.read_exact(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer).unwrap();
            let answer = match question.queries[0].name().to_ascii().as_str() {
                // The right number, and then nothing that makes sense.
                "nonsense.tcp.test." => [&question.metadata.id.to_be_bytes()[..], &[0xff; 30]].concat(),
                _ => reply(&question, true).unwrap().to_vec().unwrap(),
            };
            stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    }
}

async fn server() -> Server {
    patient_server(TRY_TIME).await
}

async fn patient_server(try_time: Duration) -> Server {
    // The kernel picks a port that is free for both.
    let (udp, tcp) = loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = tcp.local_addr().unwrap();
    let (mut tasks, questions, is_lame) = (JoinSet::new(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    tasks.spawn(serve_udp(udp, questions.clone(), is_lame.clone()));
    tasks.spawn(serve_tcp(tcp));
    let system = ResolverConfig::from_parts(None, vec![name("search.test.")], vec![]);
    let options = options::Dns { servers: vec![address] };
    let dns = HickoryDns::assemble(&options, system, 1, try_time).unwrap();
    Server { dns, address, questions, is_lame, _tasks: tasks }
}

fn router(dns: HickoryDns) -> Router {
    let settings = Settings {
        fixed: FixedRoutes::default(),
        providers: ProviderTable::default(),
        reachable: Reachable::new(&Delivery::default(), OwnAddresses::default()),
        reach: Reach { ipv4: true, ipv6: true },
        policies: crate::route::TlsPolicies::default(),
        sts: None,
    };
    Router::new(Arc::new(dns), Clock::system(), settings)
}

#[test]
fn configured_servers_come_before_the_systems_and_the_local_one_is_the_last_resort() {
    let system = system_conf::parse_resolv_conf("nameserver 10.0.0.53\nsearch x.test\n").unwrap().0;
    let asked = |configured: &[&str], system: &ResolverConfig| -> Vec<String> {
        let configured: Vec<SocketAddr> = configured.iter().map(|text| text.parse().unwrap()).collect();
        let servers = name_servers(&configured, system);
        servers.iter().map(|server| format!("{}:{}", server.ip, server.connections[1].port)).collect()
    };
    assert_eq!(asked(&["127.0.0.1:5353", "[::1]:53"], &system), ["127.0.0.1:5353", "::1:53"]);
    assert_eq!(asked(&[], &system), ["10.0.0.53:53"]);
    assert_eq!(asked(&[], &ResolverConfig::default()), ["127.0.0.1:53"]);
    assert!(HickoryDns::new(&options::Dns::default()).is_ok());
}

#[tokio::test]
async fn mx_hosts_come_in_lower_case_without_the_final_dot() {
    let server = server().await;
    let mut found = server.dns.mx("two.test.").await.unwrap();
    found.records.sort();
    let host = |preference, exchange: &str| Mx { preference, exchange: exchange.into() };
    assert_eq!(found.records, [host(10, "a.two.test"), host(20, "b.two.test")]);
    assert_eq!(found.ttl, Duration::from_secs(300));
    assert_eq!(server.dns.mx("null.test.").await.unwrap().records, [host(0, "")]);
}

#[tokio::test]
async fn aliases_are_followed_and_the_least_time_to_live_counts() {
    let server = server().await;
    let found = server.dns.mx("alias.test.").await.unwrap();
    assert_eq!((found.records.len(), found.ttl), (1, Duration::from_secs(60)));
    let found = server.dns.v4("chain.test.").await.unwrap();
    assert_eq!((found.records.len(), found.ttl), (2, Duration::from_secs(30)));
}

#[tokio::test]
async fn addresses_and_names_of_addresses() {
    let server = server().await;
    let found = server.dns.v4("a.two.test.").await.unwrap();
    assert_eq!((found.records.len(), found.ttl), (2, Duration::from_secs(100)));
    assert_eq!(server.dns.v6("a.two.test.").await.unwrap().records, ["2a01::1".parse::<Ipv6Addr>().unwrap()]);
    assert_eq!(server.dns.ptr("52.0.0.7".parse().unwrap()).await.unwrap().records, ["mail.weir.test"]);
}

#[tokio::test]
async fn every_kind_of_failure_is_told_apart() {
    let server = server().await;
    let ttl = Some(Duration::from_secs(77));
    for (asked, why) in [
        ("gone.test.", NoAnswer::NoSuchName { ttl }),
        ("a.two.test.", NoAnswer::NoSuchRecord { ttl }),
        ("servfail.test.", NoAnswer::ServerFailure),
        ("refused.test.", NoAnswer::Refused),
    ] {
        assert_eq!(server.dns.mx(asked).await, Err(why), "{asked}");
    }
}

#[tokio::test]
async fn routes_are_found_through_the_real_resolver() {
    let Server { dns, _tasks: tasks, .. } = server().await;
    let router = router(dns);
    let resolve = async |name: &str| router.resolve(&Domain::parse(name).unwrap()).await;
    let route = resolve("two.test").await.unwrap();
    let addresses: Vec<String> = route.hosts[0].addresses.iter().map(ToString::to_string).collect();
    assert_eq!((route.hosts.len(), &*route.hosts[0].name), (1, "a.two.test"));
    assert_eq!(addresses, ["52.0.0.1:25", "52.0.0.2:25"]);
    for (name, status) in [("null.test", "5.1.10"), ("gone.test", "5.1.2"), ("servfail.test", "4.4.3")] {
        assert_eq!(resolve(name).await.unwrap_err().status, status, "{name}");
    }
    drop(tasks);
}

#[tokio::test]
async fn silence_is_a_time_out() {
    let server = patient_server(Duration::from_millis(50)).await;
    assert_eq!(server.dns.mx("silent.test.").await, Err(NoAnswer::TimedOut));
}

#[tokio::test]
async fn a_dead_name_server_is_no_answer() {
    let taken = StdUdpSocket::bind("127.0.0.1:0").unwrap();
    let options = options::Dns { servers: vec![taken.local_addr().unwrap()] };
    drop(taken);
    let dns = HickoryDns::assemble(&options, ResolverConfig::default(), 1, Duration::from_millis(300)).unwrap();
    let failed = dns.mx("two.test.").await.unwrap_err();
    assert!(failed.is_temporary(), "{failed}");
}

#[tokio::test]
async fn an_answer_too_long_for_udp_comes_over_tcp() {
    assert_eq!(server().await.dns.mx("long.test.").await.unwrap().records.len(), 100);
}

#[tokio::test]
async fn what_is_no_answer_to_the_question_keeps_the_mail() {
    let Server { dns, _tasks: tasks, .. } = patient_server(Duration::from_millis(300)).await;
    let asked = ["noquestion.test", "other.tcp.test", "noquestion.tcp.test", "nonsense.tcp.test", "lame.test"];
    for name in asked {
        let absolute = format!("{name}.");
        let told = [dns.mx(&absolute).await.unwrap_err(), dns.v4(&absolute).await.unwrap_err()];
        assert!(told.iter().all(NoAnswer::is_temporary), "{name}: {told:?}");
    }
    let router = router(dns);
    for name in asked {
        let failure = router.resolve(&Domain::parse(name).unwrap()).await.unwrap_err();
        assert_eq!((failure.status, failure.permanent), ("4.4.3", false), "{name}: {}", failure.text);
    }
    drop(tasks);
}

#[tokio::test]
async fn another_name_server_is_asked_where_one_gives_no_answer() {
    let (lame, good) = (server().await, server().await);
    let servers = vec![lame.address, good.address];
    let dns =
        HickoryDns::assemble(&options::Dns { servers }, ResolverConfig::default(), 1, Duration::from_secs(5)).unwrap();
    lame.is_lame.store(true, Ordering::Relaxed);
    for _ in 0..5 {
        dns.forget("two.test");
        assert_eq!(dns.mx("two.test.").await.unwrap().records.len(), 2);
        assert_eq!(dns.mx("gone.test.").await, Err(NoAnswer::NoSuchName { ttl: Some(Duration::from_secs(77)) }));
    }
}

#[test]
fn names_of_strangers_are_shown_as_they_are() {
    for (labels, shown) in [
        (vec![&b"Mail x"[..], b"Test"], "mail x.test"),
        (vec![b"a.b", b"test"], "a\\.b.test"),
        (vec![b"a\\", b"t\x07\xfcst"], "a\\\\.t\\007\\252st"),
        (vec![b"_dmarc", b"a*b"], "_dmarc.a*b"),
    ] {
        assert_eq!(plain(&Name::from_labels(labels).unwrap()), shown);
    }
    assert_eq!(plain(&Name::root()), "");
}

#[tokio::test]
async fn the_search_list_is_for_names_without_the_final_dot_alone() {
    let server = server().await;
    assert_eq!(server.dns.v4("hop").await.unwrap().records, [Ipv4Addr::new(172, 18, 0, 5)]);
    assert!(matches!(server.dns.v4("hop.").await, Err(NoAnswer::NoSuchName { .. })));
}

#[tokio::test]
async fn answers_are_kept_until_they_are_forgotten() {
    let server = server().await;
    for asked in [1, 1] {
        server.dns.v4("a.two.test.").await.unwrap();
        assert_eq!(server.questions.load(Ordering::Relaxed), asked);
    }
    server.dns.forget("a.two.test");
    server.dns.v4("a.two.test.").await.unwrap();
    assert_eq!(server.questions.load(Ordering::Relaxed), 2);
}
