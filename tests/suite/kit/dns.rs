//! A scripted name server on 127.0.0.1, UDP and TCP: zones as a table that a test can change at any time.
//!
//! A name that is not in the table does not exist (NXDOMAIN); a name without records of the type asked for has none
//! (NODATA). It answers only what it is asked, follows CNAMEs as a recursive server does, and counts the questions.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, MX, NULL, PTR, SOA, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Short, so that a test can change its mind.
const TTL_SECS: u32 = 1;

/// How often the threads look whether the test is over.
const TICK: Duration = Duration::from_millis(50);

/// A name server's ways to say no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    ServFail,
    Refused,
    /// No answer at all.
    Silence,
}

pub struct Dns {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    zones: Mutex<BTreeMap<String, Entry>>,
    asked: Mutex<BTreeMap<(String, String), usize>>,
    /// Answers are marked as validated (AD).
    validates: AtomicBool,
    over: AtomicBool,
}

#[derive(Clone, Default)]
struct Entry {
    records: Vec<RData>,
    failure: Option<Failure>,
}

impl Dns {
    pub fn start() -> Dns {
        let (udp, tcp) = sockets();
        let address = udp.local_addr().expect("the address of a bound socket");
        let shared = Arc::new(Shared::default());
        udp.set_read_timeout(Some(TICK)).expect("a read timeout on a UDP socket");
        tcp.set_nonblocking(true).expect("a listener that does not block");
        std::thread::spawn({
            let shared = shared.clone();
            move || serve_udp(&udp, &shared)
        });
        std::thread::spawn({
            let shared = shared.clone();
            move || serve_tcp(&tcp, &shared)
        });
        Dns { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it answers at port 53 as well, as resolv.conf wants it; which takes root.
    pub fn at_port_53(&self) -> IpAddr {
        let hosts = (1..250).map(|last| Ipv4Addr::new(127, 0, 53, last));
        let free = hosts.into_iter().find_map(|host| UdpSocket::bind((host, 53)).ok());
        let udp = free.expect("a free port 53 below 127.0.53.0");
        udp.set_read_timeout(Some(TICK)).expect("a read timeout on a UDP socket");
        let address = udp.local_addr().expect("the address of a bound socket").ip();
        let shared = self.shared.clone();
        std::thread::spawn(move || serve_udp(&udp, &shared));
        address
    }

    /// Publishes MX records, instead of those the name has.
    pub fn mx(&self, name: &str, hosts: &[(u16, &str)]) {
        let records = hosts.iter().map(|(preference, host)| RData::MX(MX::new(*preference, fqdn(host))));
        self.replace(name, RecordType::MX, records.collect());
    }

    /// `MX 0 .`: this domain takes no mail (RFC 7505).
    pub fn null_mx(&self, name: &str) {
        self.replace(name, RecordType::MX, vec![RData::MX(MX::new(0, Name::root()))]);
    }

    /// Publishes addresses, instead of those the name has.
    pub fn addresses(&self, name: &str, addresses: &[IpAddr]) {
        let of = |want_v4: bool| {
            addresses.iter().filter(move |a| a.is_ipv4() == want_v4).map(|address| match address {
                IpAddr::V4(v4) => RData::A(A(*v4)),
                IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
            })
        };
        self.replace(name, RecordType::A, of(true).collect());
        self.replace(name, RecordType::AAAA, of(false).collect());
    }

    /// Publishes an address beside those the name has.
    pub fn add_address(&self, name: &str, address: IpAddr) {
        let record = match address {
            IpAddr::V4(v4) => RData::A(A(v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
        };
        self.zones().entry(key(name)).or_default().records.push(record);
    }

    pub fn cname(&self, name: &str, target: &str) {
        self.replace(name, RecordType::CNAME, vec![RData::CNAME(CNAME(fqdn(target)))]);
    }

    pub fn ptr(&self, name: &str, target: &str) {
        self.replace(name, RecordType::PTR, vec![RData::PTR(PTR(fqdn(target)))]);
    }

    /// Publishes TXT records, instead of those the name has.
    pub fn txt(&self, name: &str, texts: &[&str]) {
        let pieces =
            |text: &str| text.as_bytes().chunks(255).map(|c| String::from_utf8_lossy(c).into_owned()).collect();
        self.replace(name, RecordType::TXT, texts.iter().map(|text| RData::TXT(TXT::new(pieces(text)))).collect());
    }

    /// The reverse name of an address.
    pub fn reverse(&self, address: IpAddr, target: &str) {
        self.ptr(&Name::from(address).to_ascii(), target);
    }

    /// A TLSA record, of whatever certificate.
    pub fn tlsa(&self, name: &str) {
        let data = NULL::with([&[3, 1, 1][..], &[7; 32]].concat());
        self.replace(name, RecordType::TLSA, vec![RData::Unknown { code: RecordType::TLSA, rdata: data }]);
    }

    /// From now on it says that it validates what it answers.
    pub fn validate(&self) {
        self.shared.validates.store(true, Ordering::Relaxed);
    }

    /// The name exists, and has no records.
    pub fn empty(&self, name: &str) {
        self.zones().insert(key(name), Entry::default());
    }

    /// Every question for `name` fails in this way, until `None` heals it.
    pub fn fail(&self, name: &str, failure: Option<Failure>) {
        self.zones().entry(key(name)).or_default().failure = failure;
    }

    /// How often `name` was asked for with this type (`MX`, `A`, …).
    pub fn asked(&self, name: &str, kind: &str) -> usize {
        let asked = self.shared.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(&(key(name), kind.to_string())).copied().unwrap_or(0)
    }

    fn replace(&self, name: &str, kind: RecordType, records: Vec<RData>) {
        let mut zones = self.zones();
        let entry = zones.entry(key(name)).or_default();
        entry.records.retain(|r| r.record_type() != kind);
        entry.records.extend(records);
    }

    fn zones(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.shared.zones.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// The answer, or none where the script says silence.
    fn answer(&self, request: &[u8]) -> Option<Vec<u8>> {
        let request = Message::from_vec(request).ok()?;
        let query = request.queries.first()?.clone();
        let name = key(&query.name().to_ascii());
        let counted = (name.clone(), query.query_type().to_string());
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner).entry(counted).or_default() += 1;

        let mut answer = Message::response(request.metadata.id, OpCode::Query);
        answer.metadata.message_type = MessageType::Response;
        answer.metadata.recursion_desired = request.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.authentic_data = self.validates.load(Ordering::Relaxed);
        answer.add_query(query.clone());
        answer.metadata.response_code = match self.look_up(&name, &query, &mut answer) {
            Ok(()) => ResponseCode::NoError,
            Err(Refusal::NoName) => ResponseCode::NXDomain,
            Err(Refusal::Failure(Failure::ServFail)) => ResponseCode::ServFail,
            Err(Refusal::Failure(Failure::Refused)) => ResponseCode::Refused,
            Err(Refusal::Failure(Failure::Silence)) => return None,
        };
        let is_negative = matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
            && !answer.answers.iter().any(|r| r.record_type() == query.query_type());
        if is_negative {
            answer.add_authority(start_of_authority());
        }
        answer.to_vec().ok()
    }

    fn look_up(&self, name: &str, query: &Query, answer: &mut Message) -> Result<(), Refusal> {
        let zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let mut name = name.to_string();
        // No real chain of CNAMEs is longer.
        for _ in 0..8 {
            let entry = zones.get(&name).ok_or(Refusal::NoName)?;
            if let Some(failure) = entry.failure {
                return Err(Refusal::Failure(failure));
            }
            let owner = fqdn(&name);
            let wanted = entry.records.iter().filter(|r| r.record_type() == query.query_type());
            answer.add_answers(wanted.map(|r| Record::from_rdata(owner.clone(), TTL_SECS, r.clone())));
            let alias = entry.records.iter().find_map(|r| match r {
                RData::CNAME(target) if query.query_type() != RecordType::CNAME => Some(target.clone()),
                _ => None,
            });
            let Some(alias) = alias else { return Ok(()) };
            name = key(&alias.0.to_ascii());
            answer.add_answer(Record::from_rdata(owner, TTL_SECS, RData::CNAME(alias)));
        }
        Err(Refusal::Failure(Failure::ServFail))
    }
}

enum Refusal {
    NoName,
    Failure(Failure),
}

fn start_of_authority() -> Record {
    let soa = SOA::new(fqdn("ns.test"), fqdn("hostmaster.test"), 1, 3600, 600, 86_400, TTL_SECS);
    Record::from_rdata(fqdn("test"), TTL_SECS, RData::SOA(soa))
}

/// UDP and TCP on one port that the kernel chose.
fn sockets() -> (UdpSocket, TcpListener) {
    for _ in 0..50 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a TCP port on 127.0.0.1");
        let port = tcp.local_addr().expect("the address of a bound socket").port();
        if let Ok(udp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            return (udp, tcp);
        }
    }
    panic!("found no port that is free for UDP and TCP");
}

fn serve_udp(socket: &UdpSocket, shared: &Shared) {
    let mut request = [0; 4096];
    while !shared.over.load(Ordering::Relaxed) {
        let Ok((length, peer)) = socket.recv_from(&mut request) else { continue };
        if let Some(answer) = shared.answer(&request[..length]) {
            let _ = socket.send_to(&answer, peer);
        }
    }
}

fn serve_tcp(listener: &TcpListener, shared: &Arc<Shared>) {
    while !shared.over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let shared = shared.clone();
                std::thread::spawn(move || serve_stream(stream, &shared));
            }
            Err(_) => super::nap(),
        }
    }
}

/// Messages with their length in front (RFC 1035 section 4.2.2), until the peer closes.
fn serve_stream(mut stream: TcpStream, shared: &Shared) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(super::PATIENCE)).ok()?;
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut request = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut request).ok()?;
        let answer = shared.answer(&request)?;
        stream.write_all(&u16::try_from(answer.len()).ok()?.to_be_bytes()).ok()?;
        stream.write_all(&answer).ok()?;
    }
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn fqdn(name: &str) -> Name {
    let mut name = Name::from_ascii(name).unwrap_or_else(|e| panic!("{name} is no domain name: {e}"));
    name.set_fqdn(true);
    name
}
