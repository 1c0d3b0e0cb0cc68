//! The name servers one by one: does each answer over UDP and over TCP, and does it validate?
//!
//! Asked directly, packet by packet: the resolver of the relay hides which of them answered, and how.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::finding::{Check, Finding};

/// One try of one question.
const TRY: Duration = Duration::from_millis(2500);
/// A packet may be lost.
const TRIES: usize = 2;
/// What is asked for at a time over UDP, as resolvers agreed on (DNS flag day 2020).
const PAYLOAD: u16 = 1232;
/// Servers that are looked at; resolvers ask no more.
const SERVERS_MAX: usize = 4;

/// How a question goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Udp,
    Tcp,
}

/// What `server` answers; over TCP where the answer is too long for UDP.
pub(super) async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> io::Result<Message> {
    let answer = ask_by(Way::Udp, server, name, kind).await?;
    if answer.metadata.truncation { ask_by(Way::Tcp, server, name, kind).await } else { Ok(answer) }
}

async fn ask_by(way: Way, server: SocketAddr, name: &str, kind: RecordType) -> io::Result<Message> {
    let question = question(name, kind).map_err(io::Error::other)?;
    let packet = question.to_vec().map_err(io::Error::other)?;
    for _ in 0..TRIES {
        let exchange = async {
            match way {
                Way::Udp => over_udp(server, &packet).await,
                Way::Tcp => over_tcp(server, &packet).await,
            }
        };
        if let Ok(answer) = timeout(TRY, exchange).await {
            let answer = Message::from_vec(&answer?).map_err(io::Error::other)?;
            if answer.metadata.id == question.metadata.id && answer.queries == question.queries {
                return Ok(answer);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))
}

/// With the bits that ask for an answer that was validated (RFC 6840 section 5.7).
fn question(name: &str, kind: RecordType) -> Result<Message, String> {
    let mut name = Name::from_ascii(name).map_err(|error| error.to_string())?;
    name.set_fqdn(true);
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD).set_dnssec_ok(true);
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.metadata.authentic_data = true;
    question.add_query(Query::query(name, kind));
    question.set_edns(edns);
    Ok(question)
}

async fn over_udp(server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut answer = vec![0; 65_535];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

async fn over_tcp(server: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], packet].concat()).await?;
    let mut length = [0; 2];
    stream.read_exact(&mut length).await?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

/// A finding for each server.
pub(super) async fn look(servers: &[SocketAddr]) -> Vec<Finding> {
    let mut tasks = tokio::task::JoinSet::new();
    for server in servers.iter().copied().take(SERVERS_MAX) {
        // The root is signed, and every resolver knows it.
        tasks.spawn(async move {
            tokio::join!(
                async { server },
                ask_by(Way::Udp, server, ".", RecordType::NS),
                ask_by(Way::Tcp, server, ".", RecordType::NS)
            )
        });
    }
    let mut findings: Vec<Finding> =
        tasks.join_all().await.into_iter().map(|(server, udp, tcp)| judge(server, udp, tcp)).collect();
    if findings.is_empty() {
        let remedy = "name one in /etc/resolv.conf, or in the configuration:\n[dns]\nservers = [\"127.0.0.1:53\"]";
        findings.push(Finding::fail(Check::Resolver, "/etc/resolv.conf", "no name server is configured", remedy));
    }
    findings.sort_by(|a, b| a.subject.cmp(&b.subject));
    findings
}

const OTHER: &str =
    "run a resolver on this host and name it:\napt-get install unbound\n[dns]\nservers = [\"127.0.0.1:53\"]";

fn judge(server: SocketAddr, udp: io::Result<Message>, tcp: io::Result<Message>) -> Finding {
    let fail = |text: String| Finding::fail(Check::Resolver, server, text, OTHER);
    let udp = match udp {
        Ok(answer) => answer,
        Err(error) => return fail(format!("does not answer over UDP: {error}")),
    };
    let code = udp.metadata.response_code;
    if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
        return fail(format!("answers {code} to a question about the root"));
    }
    let validates = udp.metadata.authentic_data;
    if let Err(error) = tcp {
        let text = format!("answers over UDP and not over TCP ({error}): long answers, as of SPF and DKIM, are lost");
        return Finding::warn(
            Check::Resolver,
            server,
            text,
            format!("let TCP port {} through, or {OTHER}", server.port()),
        );
    }
    if validates {
        return Finding::ok(Check::Resolver, server, "answers over UDP and TCP, and validates (DNSSEC)");
    }
    let text = "answers over UDP and TCP, and does not validate: TLSA records of receivers (DANE) cannot be relied on";
    Finding::warn(Check::Resolver, server, text, OTHER)
}
