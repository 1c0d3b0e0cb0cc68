//! Doctor: is this host fit to send mail to Outlook.com?
//!
//! Evaluations are pure ([`spf`], [`dmarc`], `dkim`, `names`, `mount`) or go through the seam of the DNS; the checks gather what they need and
//! judge it, side by side; `print` tells it to people. `weir check` reads the configuration, this looks at the world.
//!
//! Rules that always hold:
//! - nothing is changed: the spool and the event log are read only, beside a running relay as without one;
//! - the whole ends within half a minute, also where no packet comes back;
//! - what nobody could tell is a warning, never "well" and never a failure;
//! - each finding that is not well says what mends it: the record, the line, the command.

mod dkim;
pub mod dmarc;
mod dnsbl;
pub mod finding;
mod host;
mod hurried;
mod mount;
pub mod mta;
mod names;
mod policies;
pub mod print;
mod receivers;
mod resolver;
mod senders;
mod sources;
pub mod spf;
mod way_back;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

pub use finding::{Check, Finding};
pub use senders::{authentication, compared, header};

use crate::clock::Clock;
use crate::config::Config;
use crate::dkim::{self as dkim_keys, Signers};
use crate::route::identity::{Identity, Reach};
use crate::route::sts::{Around, Fetch};
use crate::route::{
    Accesses, Dns, FixedRoutes, HickoryDns, OwnAddresses, ProviderTable, Reachable, Router, Settings, TlsPolicies,
};
use crate::throttle::Profiles;
use crate::types::Domain;
use hurried::Hurried;
use receivers::Learned;
use sources::Source;

/// The receivers that are tried in any case: both consumer domains with MX hosts of their own, and Microsoft's own mail for business.
const MICROSOFT: [&str; 3] = ["outlook.com", "hotmail.com", "microsoft.com"];
/// Connections are given up then, and questions to the DNS: the whole ends within half a minute.
const CONNECTIONS: Duration = Duration::from_secs(15);
const QUESTIONS: Duration = Duration::from_secs(26);
/// A disk that hangs is not waited for.
const HOST: Duration = Duration::from_secs(12);

/// What is looked at beside what always is.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Receivers.
    pub to: Vec<Domain>,
    /// Sender domains.
    pub from: Vec<Domain>,
    pub dnsbl: bool,
}

/// Everything, in the order in which it is best read.
pub async fn examine(config: &Config, asked: &Asked) -> Vec<Finding> {
    let (connections, questions) = (CancellationToken::new(), CancellationToken::new());
    let limits = async {
        tokio::time::sleep(CONNECTIONS).await;
        connections.cancel();
        tokio::time::sleep(QUESTIONS.saturating_sub(CONNECTIONS)).await;
        questions.cancel();
        std::future::pending::<()>().await;
    };
    let examination = Examination { config, asked, connections: &connections, questions: &questions };
    tokio::select! {
        findings = Box::pin(examination.run()) => findings,
        () = limits => Vec::new(),
    }
}

struct Examination<'a> {
    config: &'a Config,
    asked: &'a Asked,
    connections: &'a CancellationToken,
    questions: &'a CancellationToken,
}

impl Examination<'_> {
    async fn run(&self) -> Vec<Finding> {
        let dns: Arc<dyn Dns> = match HickoryDns::new(&self.config.dns) {
            Ok(dns) => Arc::new(Hurried::new(Arc::new(dns), self.questions.clone())),
            Err(error) => {
                let remedy = "name one that may be asked:\n[dns]\nservers = [\"127.0.0.1:53\"]";
                return vec![Finding::fail(Check::Resolver, "this host", error.to_string(), remedy)];
            }
        };
        let servers = HickoryDns::servers(&self.config.dns);
        let identity = Identity::of_this_host(&self.config.hostname, &*dns).await;
        let mut sources = sources::configured(self.config, &identity);
        // What receivers say decides which address is looked at afterwards.
        let (learned, host, resolvers, senders) = tokio::join!(
            self.receivers(&sources, &dns),
            host(self.config.clone()),
            resolver::look(&servers),
            senders::known(self.config, &self.asked.from, self.connections),
        );
        let mut findings = sources::publish(&mut sources, &learned.seen, &*dns).await;
        let (signers, faults) = keys(self.config);
        let (own, listed, authentication, policies, way_back) = tokio::join!(
            own(&sources, &dns),
            self.listings(&sources, &dns),
            senders::judge(senders, &sources, &signers, &dns),
            self.policies(&learned, &servers, &dns),
            way_back::look(self.config, &sources, &dns),
        );
        findings.extend(own);
        findings.extend(listed);
        findings.extend(learned.findings);
        findings.extend(policies);
        findings.extend(authentication);
        findings.extend(way_back);
        findings.extend(faults);
        findings.extend(resolvers);
        findings.push(host::clock(&learned.ahead));
        findings.extend(host);
        findings
    }

    async fn receivers(&self, sources: &[Source], dns: &Arc<dyn Dns>) -> Learned {
        let mut domains: Vec<Domain> = MICROSOFT.iter().filter_map(|name| Domain::parse(name).ok()).collect();
        domains.extend(self.asked.to.iter().filter(|domain| !MICROSOFT.contains(&domain.as_str())).cloned());
        match self.router(dns) {
            Ok(router) => receivers::look(&domains, sources, &router, self.connections).await,
            Err(text) => {
                let remedy = "correct the [[route]] it names";
                Learned {
                    findings: vec![Finding::fail(Check::Port25, "[[route]]", text, remedy)],
                    ..Learned::default()
                }
            }
        }
    }

    /// As the relay routes.
    fn router(&self, dns: &Arc<dyn Dns>) -> Result<Arc<Router>, String> {
        let config = self.config;
        let profiles = Profiles::new(&config.provider);
        let listeners: Vec<SocketAddr> = config.listener.iter().map(|listener| listener.address).collect();
        let settings = Settings {
            fixed: FixedRoutes::new(&config.route, config.delivery.port, &Accesses::unread(&config.route))
                .map_err(|error| error.to_string())?,
            providers: ProviderTable::new(profiles.iter().map(|p| (&*p.name, p.mx.as_slice(), p.domains.as_slice()))),
            reachable: Reachable::new(&config.delivery, OwnAddresses::of_this_host(listeners)),
            reach: Reach::probe(),
            policies: TlsPolicies::new(&config.tls_policy),
            // What a receiver would lose by it is told as a finding of its own.
            sts: None,
        };
        Ok(Arc::new(Router::new(dns.clone(), Clock::system(), settings)))
    }

    async fn listings(&self, sources: &[Source], dns: &Arc<dyn Dns>) -> Vec<Finding> {
        if !self.asked.dnsbl {
            return Vec::new();
        }
        let addresses: Vec<IpAddr> = sources.iter().filter_map(|source| source.public).collect();
        dnsbl::look(&addresses, dns).await
    }

    /// What receivers want of TLS.
    async fn policies(&self, learned: &Learned, servers: &[SocketAddr], dns: &Arc<dyn Dns>) -> Vec<Finding> {
        let mut tasks = JoinSet::new();
        let fetch: Arc<dyn Fetch> = Arc::new(policies::https(&self.config.delivery.ca_file));
        let around = Around { dns: dns.clone(), networks: self.config.delivery.networks.as_slice().into() };
        for (domain, hosts) in learned.hosts.iter().filter(|(_, hosts)| !hosts.is_empty()) {
            let (domain, hosts, servers) = (domain.clone(), hosts.clone(), servers.to_vec());
            let (fetch, around, over) = (fetch.clone(), around.clone(), self.questions.clone());
            tasks.spawn(async move {
                let both = async {
                    tokio::join!(
                        policies::mta_sts(&domain, &hosts, &around, &*fetch),
                        policies::dane(&domain, &hosts, &servers)
                    )
                };
                tokio::select! {
                    biased;
                    found = both => vec![found.0, found.1],
                    () = over.cancelled() => Vec::new(),
                }
            });
        }
        let mut findings: Vec<Finding> = tasks.join_all().await.into_iter().flatten().collect();
        findings.sort_by(|a, b| (&a.subject, a.check).cmp(&(&b.subject, b.check)));
        findings
    }
}

/// The keys of `[[dkim]]` that can be read, and what is wrong with the others.
fn keys(config: &Config) -> (Arc<Signers>, Vec<Finding>) {
    let (mut signers, mut faults) = (Vec::new(), Vec::new());
    for entry in &config.dkim {
        match dkim_keys::load(std::slice::from_ref(entry)) {
            Ok(loaded) => signers.extend(loaded.signers.iter().cloned()),
            Err(found) => faults.extend(found.iter().map(|fault| {
                let remedy = "put it right: the relay does not start with it\nweir check";
                Finding::fail(Check::Dkim, entry.name(), fault.to_string(), remedy)
            })),
        }
    }
    (Arc::new(signers.into_iter().collect()), faults)
}

/// Each source's name and address, side by side.
async fn own(sources: &[Source], dns: &Arc<dyn Dns>) -> Vec<Finding> {
    let mut tasks = JoinSet::new();
    for (at, source) in sources.iter().cloned().enumerate() {
        let dns = dns.clone();
        tasks.spawn(async move { (at, sources::judge(&source, &*dns).await) });
    }
    let mut found = tasks.join_all().await;
    found.sort_by_key(|(at, _)| *at);
    found.into_iter().flat_map(|(_, findings)| findings).collect()
}

/// In a thread that nobody waits for where the disk hangs.
async fn host(config: Config) -> Vec<Finding> {
    let folder = config.data_dir.display().to_string();
    let (send, receive) = oneshot::channel();
    std::thread::spawn(move || drop(send.send(host::look(&config))));
    match timeout(HOST, receive).await {
        Ok(Ok(findings)) => findings,
        _ => {
            let text = format!("this host did not answer within {} s: its disk may hang", HOST.as_secs());
            vec![Finding::fail(Check::Disk, folder, text, "see what the kernel says:\ndmesg | tail")]
        }
    }
}
