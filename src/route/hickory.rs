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
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Resolver, system_conf};
use tokio::time::timeout;

use super::credible::Credible;
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
    absolute: Resolver<Credible>,
    local: Resolver<Credible>,
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

    /// The name servers that are asked, as `new` finds them.
    pub fn servers(options: &options::Dns) -> Vec<SocketAddr> {
        let system = system_conf::read_system_conf().map(|(system, _)| system).unwrap_or_default();
        let mut servers = Vec::new();
        for server in name_servers(&options.servers, &system) {
            let port = server.connections.first().map_or(53, |connection| connection.port);
            let address = SocketAddr::new(server.ip, port);
            if !servers.contains(&address) {
                servers.push(address);
            }
        }
        servers
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

    fn txt<'a>(&'a self, name: &'a str) -> Answer<'a, String> {
        Box::pin(self.ask(name, RecordType::TXT, |data| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        }))
    }

    fn forget(&self, name: &str) {
        for kind in [RecordType::MX, RecordType::A, RecordType::AAAA] {
            self.absolute.clear_lookup_cache(name, kind);
            self.local.clear_lookup_cache(name, kind);
        }
    }
}

fn build(config: ResolverConfig, opts: ResolverOpts) -> Result<Resolver<Credible>, SetupError> {
    let servers = config.name_servers().iter().map(|server| server.ip.to_string()).collect::<Vec<_>>().join(", ");
    let builder = Resolver::builder_with_config(config, Credible::default()).with_options(opts);
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

/// A name as weir writes names: lower case, without final dot. Labels may hold any octet: what can be seen stands as it is (a
/// blank is a fault that people must find), only what would make another name of it is escaped (RFC 1035 section 5.1).
fn plain(name: &Name) -> String {
    let mut text = String::new();
    for label in name.iter() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'\\' => text.extend(['\\', char::from(*byte)]),
                b' '..=b'~' => text.push(char::from(byte.to_ascii_lowercase())),
                _ => text.push_str(&format!("\\{byte:03}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests;
