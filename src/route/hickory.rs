//! The real resolver: hickory over UDP, over TCP where an answer is too long.
//!
//! Two resolvers share one configuration. The absolute one knows neither hosts file nor search list, so that nothing
//! written on this host can change where the mail of a public domain goes. The local one knows both and is for next
//! hops that the operator wrote (`mailhog:1025` in a compose file, `host.docker.internal:25`).
//!
//! Answers are cached by hickory up to [`CACHE_TTL_MAX`]; failures are not cached here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{TokioResolver, system_conf};
use tokio::time::timeout;

use super::dns::{Answer, Dns, Mx, NoAnswer, Records};
use super::options;

/// One try of one question at all name servers.
const TRY_TIME: Duration = Duration::from_secs(5);
/// Tries after the first.
const RETRIES: usize = 1;
/// One question in all, whatever happens inside the resolver (a chain of aliases is several questions).
const QUESTION_TIME: Duration = Duration::from_secs(15);
/// Answers kept for the addresses of hosts that many domains share.
const CACHE_ANSWERS: u64 = 20_000;
const CACHE_TTL_MAX: Duration = Duration::from_secs(3600);
/// A "no such name" is kept shorter: new domains are often asked for just before they exist.
const CACHE_NEGATIVE_TTL_MAX: Duration = Duration::from_secs(900);

/// The resolver cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("set up the resolver for {servers}")]
pub struct SetupError {
    servers: String,
    #[source]
    cause: NetError,
}

/// [`Dns`] over hickory. Must be used inside a tokio runtime.
pub struct HickoryDns {
    absolute: TokioResolver,
    local: TokioResolver,
}

impl HickoryDns {
    /// Asks the name servers of `[dns] servers`, else the system's.
    ///
    /// Where the system names none, the one on this host is asked, as resolv.conf(5) has it, and a warning says so.
    pub fn new(options: &options::Dns) -> Result<HickoryDns, SetupError> {
        match system_conf::read_system_conf() {
            Ok((system, opts)) => HickoryDns::assemble(options, system, opts.ndots, TRY_TIME),
            // It is there and shut to us: asking somebody else instead would be no answer to that.
            Err(cause) if options.servers.is_empty() && is_denied(&cause) => {
                Err(SetupError { servers: "the system (/etc/resolv.conf)".into(), cause })
            }
            Err(cause) => {
                if options.servers.is_empty() {
                    tracing::warn!(
                        %cause,
                        "/etc/resolv.conf names no name server: asking 127.0.0.1:53; set [dns] servers to change that"
                    );
                }
                HickoryDns::assemble(options, ResolverConfig::default(), 1, TRY_TIME)
            }
        }
    }

    fn assemble(
        options: &options::Dns,
        system: ResolverConfig,
        ndots: usize,
        try_time: Duration,
    ) -> Result<HickoryDns, SetupError> {
        let servers = name_servers(&options.servers, &system);
        let (domain, search, _) = system.into_parts();
        let absolute = ResolverConfig::from_parts(None, Vec::new(), servers.clone());
        let local = ResolverConfig::from_parts(domain, search, servers);
        let mut opts = ResolverOpts::default();
        opts.timeout = try_time;
        opts.attempts = RETRIES;
        opts.cache_size = CACHE_ANSWERS;
        opts.positive_max_ttl = Some(CACHE_TTL_MAX);
        opts.negative_max_ttl = Some(CACHE_NEGATIVE_TTL_MAX);
        opts.use_hosts_file = ResolveHosts::Never;
        let absolute = build(absolute, opts.clone())?;
        opts.use_hosts_file = ResolveHosts::Always;
        opts.ndots = ndots;
        Ok(HickoryDns { absolute, local: build(local, opts)? })
    }

    /// The TXT records of `name`, the strings of each joined (RFC 7208 section 3.3). Delivery needs none of them.
    pub async fn txt(&self, name: &str) -> Result<Records<String>, NoAnswer> {
        self.ask(name, RecordType::TXT, |data| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        })
        .await
    }

    async fn ask<T>(
        &self,
        name: &str,
        kind: RecordType,
        pick: impl Fn(&RData) -> Option<T>,
    ) -> Result<Records<T>, NoAnswer> {
        let resolver = if name.ends_with('.') { &self.absolute } else { &self.local };
        let name = Name::from_ascii(name).map_err(|cause| NoAnswer::Broken(format!("{name} is no name: {cause}")))?;
        let lookup = timeout(QUESTION_TIME, resolver.lookup(name, kind)).await.map_err(|_| NoAnswer::TimedOut)?;
        records(&lookup.map_err(|error| no_answer(&error))?, pick)
    }
}

impl Dns for HickoryDns {
    fn mx<'a>(&'a self, name: &'a str) -> Answer<'a, Mx> {
        Box::pin(self.ask(name, RecordType::MX, |data| match data {
            RData::MX(mx) => Some(Mx { preference: mx.preference, exchange: plain(&mx.exchange) }),
            _ => None,
        }))
    }

    fn v4<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv4Addr> {
        Box::pin(self.ask(name, RecordType::A, |data| match data {
            RData::A(address) => Some(address.0),
            _ => None,
        }))
    }

    fn v6<'a>(&'a self, name: &'a str) -> Answer<'a, Ipv6Addr> {
        Box::pin(self.ask(name, RecordType::AAAA, |data| match data {
            RData::AAAA(address) => Some(address.0),
            _ => None,
        }))
    }

    fn ptr(&self, address: IpAddr) -> Answer<'_, String> {
        Box::pin(async move {
            let name = Name::from(address).to_ascii();
            self.ask(&name, RecordType::PTR, |data| match data {
                RData::PTR(name) => Some(plain(&name.0)),
                _ => None,
            })
            .await
        })
    }

    fn forget(&self, name: &str) {
        for kind in [RecordType::MX, RecordType::A, RecordType::AAAA] {
            self.absolute.clear_lookup_cache(name, kind);
            self.local.clear_lookup_cache(name, kind);
        }
    }
}

fn build(config: ResolverConfig, opts: ResolverOpts) -> Result<TokioResolver, SetupError> {
    let servers = config.name_servers().iter().map(|server| server.ip.to_string()).collect::<Vec<_>>().join(", ");
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(opts);
    builder.build().map_err(|cause| SetupError { servers, cause })
}

fn is_denied(error: &NetError) -> bool {
    matches!(error, NetError::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn name_servers(configured: &[SocketAddr], system: &ResolverConfig) -> Vec<NameServerConfig> {
    if !configured.is_empty() {
        configured.iter().copied().map(name_server).collect()
    } else if system.name_servers().is_empty() {
        vec![name_server(SocketAddr::from((Ipv4Addr::LOCALHOST, 53)))]
    } else {
        system.name_servers().to_vec()
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

/// Picks the records asked for; aliases on the way count for the time to live alone.
fn records<T>(lookup: &Lookup, pick: impl Fn(&RData) -> Option<T>) -> Result<Records<T>, NoAnswer> {
    let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or(0);
    let ttl = Duration::from_secs(u64::from(ttl));
    let records: Vec<T> = lookup.answers().iter().filter_map(|record| pick(&record.data)).collect();
    if records.is_empty() {
        return Err(NoAnswer::NoSuchRecord { ttl: Some(ttl) });
    }
    Ok(Records { records, ttl })
}

fn no_answer(error: &NetError) -> NoAnswer {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            let ttl = none.negative_ttl.map(|secs| Duration::from_secs(u64::from(secs)));
            match none.response_code {
                ResponseCode::NXDomain => NoAnswer::NoSuchName { ttl },
                ResponseCode::NoError => NoAnswer::NoSuchRecord { ttl },
                ResponseCode::Refused => NoAnswer::Refused,
                _ => NoAnswer::ServerFailure,
            }
        }
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => NoAnswer::Refused,
        NetError::Dns(_) => NoAnswer::ServerFailure,
        NetError::Timeout => NoAnswer::TimedOut,
        other => NoAnswer::Broken(other.to_string()),
    }
}

/// A name as weir writes names: lower case, without final dot.
fn plain(name: &Name) -> String {
    let mut text = name.to_ascii().to_ascii_lowercase();
    if text.ends_with('.') {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket as StdUdpSocket;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use hickory_resolver::proto::op::Message;
    use hickory_resolver::proto::rr::Record;
    use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, SOA};
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
        questions: Arc<AtomicUsize>,
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

    async fn serve_udp(socket: UdpSocket, questions: Arc<AtomicUsize>) {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            questions.fetch_add(1, Ordering::Relaxed);
            if let Some(answer) = reply(&Message::from_vec(&buffer[..length]).unwrap(), false) {
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        }
    }

    async fn serve_tcp(listener: TcpListener) {
        while let Ok((mut stream, _)) = listener.accept().await {
            while let Ok(length) = stream.read_u16().await {
                let mut buffer = vec![0; usize::from(length)];
                stream.read_exact(&mut buffer).await.unwrap();
                let answer = reply(&Message::from_vec(&buffer).unwrap(), true).unwrap().to_vec().unwrap();
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
        let (mut tasks, questions) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        tasks.spawn(serve_udp(udp, questions.clone()));
        tasks.spawn(serve_tcp(tcp));
        let system = ResolverConfig::from_parts(None, vec![name("search.test.")], vec![]);
        let options = options::Dns { servers: vec![address] };
        let dns = HickoryDns::assemble(&options, system, 1, try_time).unwrap();
        Server { dns, questions, _tasks: tasks }
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
        let settings = Settings {
            fixed: FixedRoutes::default(),
            providers: ProviderTable::default(),
            reachable: Reachable::new(&Delivery::default(), OwnAddresses::default()),
            reach: Reach { ipv4: true, ipv6: true },
        };
        let router = Router::new(Arc::new(dns), Clock::system(), settings);
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
}
