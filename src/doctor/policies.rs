//! What receivers want of TLS: their MTA-STS policy (RFC 8461) and their TLSA records (DANE, RFC 7672), as they are today.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::finding::{Check, Finding};
use super::resolver;
use crate::outbound::tls::provider;
use crate::route::Dns;
use crate::route::reachable::is_global;

/// For all of the fetching.
const FETCH: Duration = Duration::from_secs(8);
/// Section 3.2 of RFC 8461 suggests a limit; real policies have a few hundred octets.
const POLICY_MAX: usize = 64 << 10;
const HTTPS: u16 = 443;
/// MX hosts whose TLSA records are asked for.
const HOSTS_MAX: usize = 8;

/// A policy, as far as a sender needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Policy {
    /// `enforce`, `testing` or `none`.
    mode: String,
    /// Names, or `*.` and a name: one label more.
    mx: Vec<String>,
}

impl Policy {
    fn parse(text: &str) -> Result<Policy, String> {
        let pairs: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        let value = |key: &str| pairs.iter().find(|(known, _)| *known == key).map(|(_, value)| *value);
        if value("version") != Some("STSv1") {
            return Err("the policy has no `version: STSv1`".to_string());
        }
        let mode = value("mode").filter(|mode| ["enforce", "testing", "none"].contains(mode));
        let mode = mode.ok_or("the policy has no mode")?.to_string();
        let mx: Vec<String> =
            pairs.iter().filter(|(key, _)| *key == "mx").map(|(_, value)| value.to_ascii_lowercase()).collect();
        if mx.is_empty() && mode != "none" {
            return Err("the policy names no MX host".to_string());
        }
        Ok(Policy { mode, mx })
    }

    fn covers(&self, host: &str) -> bool {
        self.mx.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, above)| above == parent),
            None => pattern == host,
        })
    }
}

/// MTA-STS of one domain with these MX hosts.
pub(super) async fn mta_sts(domain: &str, hosts: &[String], networks: &[IpNet], dns: &dyn Dns) -> Finding {
    const THEIRS: &str = "nothing here, if other domains' policies can be fetched; else let HTTPS (TCP 443) out";
    let id = match dns.txt(&format!("_mta-sts.{domain}.")).await {
        Ok(found) => found.records.into_iter().find(|text| text.starts_with("v=STSv1")),
        Err(why) if why.is_temporary() => return super::sources::unanswered(Check::MtaSts, domain, &why),
        Err(_) => None,
    };
    if id.is_none() {
        return Finding::ok(Check::MtaSts, domain, "publishes no policy");
    }
    let fetched = match timeout(FETCH, fetch(domain, networks, dns)).await {
        Ok(fetched) => fetched,
        Err(_) => Err(format!("no answer within {} s", FETCH.as_secs())),
    };
    let policy = match fetched.and_then(|text| Policy::parse(&text)) {
        Ok(policy) => policy,
        Err(why) => {
            let text = format!("says that it has a policy, which cannot be had: {why}");
            return Finding::warn(Check::MtaSts, domain, text, THEIRS);
        }
    };
    let beyond: Vec<&str> = hosts.iter().map(String::as_str).filter(|host| !policy.covers(host)).collect();
    let text = format!("mode {}, for {}", policy.mode, policy.mx.join(", "));
    if beyond.is_empty() || policy.mode == "none" {
        return Finding::ok(Check::MtaSts, domain, text);
    }
    let text = format!("{text}; its MX host {} is not among them", beyond.join(", "));
    Finding::warn(Check::MtaSts, domain, text, "if your resolver tells the truth, its owner must mend that")
}

/// `https://mta-sts.DOMAIN/.well-known/mta-sts.txt`, with a certificate for that name (section 3.3).
async fn fetch(domain: &str, networks: &[IpNet], dns: &dyn Dns) -> Result<String, String> {
    let host = format!("mta-sts.{domain}");
    let stream = connect(&host, networks, dns).await?;
    let name = ServerName::try_from(host.clone()).map_err(|_| format!("{host} is no name for a certificate"))?;
    let stream = tls()?.connect(name, stream).await.map_err(|error| format!("TLS to {host}: {error}"))?;
    let request = Request::get("/.well-known/mta-sts.txt")
        .header(header::HOST, &host)
        .header(header::USER_AGENT, concat!("weir/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(String::new())
        .map_err(|error| error.to_string())?;
    get(stream, request).await
}

async fn connect(host: &str, networks: &[IpNet], dns: &dyn Dns) -> Result<TcpStream, String> {
    let absolute = format!("{host}.");
    let (v4, v6) = tokio::join!(dns.v4(&absolute), dns.v6(&absolute));
    let v4 = v4.map(|found| found.records).unwrap_or_default().into_iter().map(IpAddr::V4);
    let v6 = v6.map(|found| found.records).unwrap_or_default().into_iter().map(IpAddr::V6);
    let is_allowed = |ip: &IpAddr| is_global(*ip) || networks.iter().any(|network| network.contains(ip));
    let mut last = format!("{host} has no public address");
    for ip in v4.chain(v6).filter(is_allowed) {
        match TcpStream::connect(SocketAddr::new(ip, HTTPS)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = format!("connect to {host} [{ip}]: {error}"),
        }
    }
    Err(last)
}

fn tls() -> Result<TlsConnector, String> {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The answer's text; redirections are not followed (section 3.3).
async fn get(stream: impl AsyncRead + AsyncWrite + Unpin, request: Request<String>) -> Result<String, String> {
    let http = |error: hyper::Error| format!("HTTP: {error}");
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(POLICY_MAX).handshake(TokioIo::new(stream)).await.map_err(http)?;
    let mut connection = pin!(connection);
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(http)?;
        if answer.status() != 200 {
            return Err(format!("the server answers {}", answer.status()));
        }
        text(answer).await
    };
    let mut exchange = pin!(exchange);
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            text = &mut exchange => return text,
            // Whatever ended it, the exchange says so.
            _ = &mut connection, if is_open => is_open = false,
        }
    }
}

async fn text(answer: Response<Incoming>) -> Result<String, String> {
    let mut body = answer.into_body();
    let mut octets = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Ok(data) = frame.map_err(|error| format!("HTTP: {error}"))?.into_data() {
            octets.extend_from_slice(&data);
        }
        if octets.len() > POLICY_MAX {
            return Err("the policy is too long".to_string());
        }
    }
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

/// TLSA records of a domain's MX hosts, and whether their zones are signed as far as the resolver says.
pub(super) async fn dane(domain: &str, hosts: &[String], servers: &[SocketAddr]) -> Finding {
    let mut secure = Vec::new();
    let mut unproven = Vec::new();
    let mut without = Vec::new();
    let mut failed = Vec::new();
    for host in hosts.iter().take(HOSTS_MAX) {
        let name = format!("_25._tcp.{host}.");
        let mut answer = Err(std::io::Error::other("no name server is known"));
        for server in servers {
            answer = resolver::ask(*server, &name, RecordType::TLSA).await;
            if answer.is_ok() {
                break;
            }
        }
        match answer {
            Ok(answer) => {
                let has_records = answer.answers.iter().any(|record| record.record_type() == RecordType::TLSA);
                match answer.metadata.response_code {
                    _ if has_records && answer.metadata.authentic_data => secure.push(host.as_str()),
                    _ if has_records => unproven.push(host.as_str()),
                    ResponseCode::NoError | ResponseCode::NXDomain => without.push(host.as_str()),
                    code => failed.push(format!("{host} ({code})")),
                }
            }
            Err(error) => failed.push(format!("{host} ({error})")),
        }
    }
    if !unproven.is_empty() {
        let text =
            format!("{} has TLSA records, and the resolver does not say that they are genuine", unproven.join(", "));
        return Finding::warn(Check::Dane, domain, text, "see what this run says of `resolver`");
    }
    if !secure.is_empty() {
        return Finding::ok(Check::Dane, domain, format!("{} has TLSA records in a signed zone", secure.join(", ")));
    }
    let text = match (without.as_slice(), failed.as_slice()) {
        ([], []) => "no MX host is known".to_string(),
        (_, []) => "publishes no TLSA records".to_string(),
        // Microsoft's old zone: unsigned, and no answer to this question.
        (_, failed) => format!("no TLSA records can be had of {}: mail goes as to hosts without", failed.join(", ")),
    };
    Finding::ok(Check::Dane, domain, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::table::TableDns;
    use crate::types::Status;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const TEXT: &str =
        "version: STSv1\r\nmode: enforce\r\nmx: *.olc.protection.outlook.com\r\nmx: mx.weir.dev\r\nmax_age: 604800\r\n";

    #[test]
    fn a_policy_covers_the_hosts_it_names() {
        let policy = Policy::parse(TEXT).unwrap();
        assert_eq!(policy.mode, "enforce");
        assert!(policy.covers("outlook-com.olc.protection.outlook.com") && policy.covers("mx.weir.dev"));
        assert!(!policy.covers("a.b.olc.protection.outlook.com") && !policy.covers("olc.protection.outlook.com"));
        for wrong in
            ["", "mode: enforce\nmx: a.dev", "version: STSv1\nmode: enforce", "version: STSv1\nmode: x\nmx: a.dev"]
        {
            assert!(Policy::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_policy_that_is_announced_and_cannot_be_had_is_a_warning() {
        let hosts = ["mx.weir.dev".to_string()];
        let none = mta_sts("weir.dev", &hosts, &[], &TableDns::default()).await;
        assert!(none.status == Status::Ok && none.text.contains("no policy"));
        let dns =
            TableDns::default().txt("_mta-sts.weir.dev.", &["v=STSv1; id=1"]).v4("mta-sts.weir.dev.", &["10.0.0.1"]);
        let found = mta_sts("weir.dev", &hosts, &[], &dns).await;
        assert!(found.status == Status::Warn && found.text.contains("has no public address"), "{}", found.text);
    }

    async fn answered(answer: &'static str) -> Result<String, String> {
        let (ours, mut theirs) = tokio::io::duplex(65_536);
        let request = Request::get("/x").body(String::new()).unwrap();
        let server = async {
            let mut buffer = [0; 1024];
            let _ = theirs.read(&mut buffer).await.unwrap();
            theirs.write_all(answer.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
        };
        tokio::join!(get(ours, request), server).0
    }

    #[tokio::test]
    async fn the_answer_is_read_to_its_end_and_no_redirection_followed() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nvers\r\n3\r\nion\r\n0\r\n\r\n";
        assert_eq!(answered(chunked).await.unwrap(), "version");
        let moved = answered("HTTP/1.1 301 Moved\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n").await;
        assert!(moved.unwrap_err().contains("301"));
        assert!(answered("nonsense").await.is_err());
    }
}
