//! The configuration: the options of every part of weir, put together from a file and the environment.
//!
//! Rules that always hold:
//! - an empty configuration is a working relay for this host;
//! - the options live beside the code that uses them and know nothing of each other, of files or of variables;
//! - loading reads nothing but what `Sources` names, and tells every fault it finds, each with its place;
//! - what `print` writes, loads as the same configuration, but for secrets, which it hides;
//! - no secret is shown: not in a fault, not by `show`, not by `Debug`.

mod checks;
mod container;
mod environment;
mod familiar;
mod file;
mod finding;
mod opendkim;
mod schema;
#[cfg(test)]
mod tests;
mod tree;
mod users;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::Value;

/// The path of every key, `[]` behind the name of a list of tables.
#[cfg(test)]
pub fn key_paths() -> impl Iterator<Item = &'static str> {
    schema::keys().iter().map(|key| key.path)
}

pub use environment::is_secret_variable;
pub use finding::{Fault, Finding, Place, Warning};

use crate::alert::options::Alerts;
use crate::dispatch::options::Bounces;
use crate::dkim::options::Dkim;
use crate::event::options::Events;
use crate::feedback::options::Feedback;
use crate::http::options::Http;
use crate::inbound::options::{Limits, Listener, Relay, Tls};
use crate::log::Log;
use crate::outbound::options::{Delivery, Source, TlsPolicy};
use crate::queue::options::Queue;
use crate::route::options::{Dns, RouteEntry};
use crate::sandbox::Sandbox;
use crate::suppress::options::Suppression;
use crate::throttle::options::ProviderOptions;
use crate::types::Span;
use crate::webhook::options::Webhook;
use finding::Findings;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The name in HELO and in the greeting. Empty: found out at start.
    pub hostname: String,
    /// The folder of the spool, the event log and the control socket.
    pub data_dir: PathBuf,
    /// How long a stop waits for what is past the end of data.
    pub shutdown_grace: Span,
    /// Whether the process is shut into its own folders.
    pub sandbox: Sandbox,
    pub listener: Vec<Listener>,
    pub tls: Tls,
    pub relay: Relay,
    pub limits: Limits,
    pub queue: Queue,
    pub bounces: Bounces,
    pub dns: Dns,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dkim: Vec<Dkim>,
    pub delivery: Delivery,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tls_policy: Vec<TlsPolicy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub route: Vec<RouteEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<Source>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub provider: Vec<ProviderOptions>,
    pub suppression: Suppression,
    pub events: Events,
    pub log: Log,
    pub alerts: Alerts,
    pub http: Http,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhook: Vec<Webhook>,
    pub feedback: Feedback,
    /// Nobody set `relay.trusted_networks`, so the networks this container is attached to are trusted, without their
    /// gateways: the start line says so in these words. Else empty.
    #[serde(skip)]
    pub trusts_attached: String,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            hostname: String::new(),
            data_dir: PathBuf::from("./weir-data"),
            shutdown_grace: Span(Duration::from_secs(8)),
            sandbox: Sandbox::Auto,
            // Debian's Exim freezes mail for a smarthost on 127.0.0.1: it takes that for itself.
            listener: [Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(127, 0, 0, 2)].map(listener).to_vec(),
            tls: Tls::default(),
            relay: Relay::default(),
            limits: Limits::default(),
            queue: Queue::default(),
            bounces: Bounces::default(),
            dns: Dns::default(),
            dkim: Vec::new(),
            delivery: Delivery::default(),
            tls_policy: Vec::new(),
            route: Vec::new(),
            source: Vec::new(),
            provider: Vec::new(),
            suppression: Suppression::default(),
            events: Events::default(),
            log: Log::default(),
            alerts: Alerts::default(),
            http: Http::default(),
            webhook: Vec::new(),
            feedback: Feedback::default(),
            trusts_attached: String::new(),
        }
    }
}

fn listener(ip: Ipv4Addr) -> Listener {
    Listener::at(SocketAddr::from((ip, 2525)))
}

/// Tells the networks this host is attached to, and the gateways in them.
pub type Attached = dyn Fn() -> (Vec<IpNet>, Vec<IpAddr>);

/// Where a configuration comes from.
pub struct Sources<'a> {
    /// `--config FILE`; else `WEIR_CONFIG` of `environment` decides.
    pub file: Option<PathBuf>,
    /// Where a file is looked for that nobody named.
    pub search: Vec<PathBuf>,
    /// What neither begins with `WEIR_` nor is a familiar name of other programs is passed over.
    pub environment: Vec<(String, String)>,
    /// The names of the providers weir has profiles for.
    pub profiles: Vec<String>,
    /// The networks this host is attached to. Asked only where they would be trusted.
    pub attached: &'a Attached,
    /// The lowest port this process may listen on.
    pub lowest_port: u16,
    /// Where other relay images have their DKIM keys.
    pub foreign_keys: PathBuf,
}

/// Where other relay images have their DKIM keys: `DOMAIN.private`.
pub const FOREIGN_KEYS: &str = "/etc/opendkim/keys";

/// Docker lets every user of a container listen on every port, others only from 1024 on.
fn lowest_port() -> u16 {
    const SETTING: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let set = std::fs::read_to_string(SETTING).ok().and_then(|text| text.trim().parse().ok());
    if rustix::process::geteuid().is_root() { 1 } else { set.unwrap_or(1024) }
}

impl<'a> Sources<'a> {
    /// What this process was started with.
    pub fn of_process(file: Option<PathBuf>, profiles: Vec<String>, attached: &'a Attached) -> Sources<'a> {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os().map(|(name, value)| (lossy(name), lossy(value)));
        Sources {
            file,
            search: ["weir.toml", "/etc/weir/weir.toml"].map(PathBuf::from).to_vec(),
            environment: environment
                .filter(|(name, _)| name.starts_with("WEIR_") || familiar::is_familiar(name))
                .collect(),
            profiles,
            attached,
            lowest_port: lowest_port(),
            foreign_keys: PathBuf::from(FOREIGN_KEYS),
        }
    }

    /// The files the configuration is read from: its own, and those that familiar names of other images point to.
    pub fn files(&self) -> Vec<PathBuf> {
        self.chosen_file().into_iter().chain(familiar::files(&self.environment)).collect()
    }

    /// The file that is read; none: the built-in defaults.
    pub fn chosen_file(&self) -> Option<PathBuf> {
        let named = self.variable("WEIR_CONFIG").filter(|text| !text.is_empty()).map(Path::new);
        file::choose(self.file.as_deref().or(named), &self.search)
    }

    fn variable(&self, wanted: &str) -> Option<&str> {
        self.environment.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str())
    }

    /// Is this the container image?
    pub fn in_container(&self) -> bool {
        self.variable("WEIR_CONTAINER").is_some_and(|text| !matches!(text, "" | "0" | "false"))
    }
}

impl Config {
    /// Reads the configuration; all faults, or the configuration and all warnings.
    pub fn load(sources: &Sources<'_>) -> Result<(Config, Vec<Warning>), Vec<Fault>> {
        let mut findings = Findings::default();
        let mut root = match sources.chosen_file() {
            Some(path) => file::read(&path, &mut findings),
            None => tree::Table::new(),
        };
        let familiar = familiar::read(&sources.environment, &mut findings);
        familiar::overlay(&mut root, &familiar, sources.in_container(), &mut findings);
        users::overlay(&mut root, &sources.environment, &familiar, &mut findings);
        environment::overlay(&mut root, &sources.environment, &sources.profiles, &mut findings);
        let trusts_attached = match sources.in_container() {
            true => {
                let switched = familiar::is_of_another_image(&sources.environment);
                container::listeners(&mut root, switched, sources.lowest_port, &mut findings);
                container::defaults(&mut root, sources.attached)
            }
            false => String::new(),
        };
        let (table, places) = tree::settle(root, &mut findings);
        let mut config = match Value::Table(table).try_into::<Config>() {
            Ok(config) => config,
            // Every value was checked before; what is told here is a value the check and the options differ about.
            Err(error) => {
                findings.fault(Place::Nowhere {}, error.message(), "");
                Config::default()
            }
        };
        config.trusts_attached = trusts_attached;
        opendkim::keys(&mut config, &familiar, &sources.foreign_keys, &mut findings);
        checks::Checks { config: &config, places: &places, profiles: &sources.profiles, findings: &mut findings }.run();
        if findings.faults.is_empty() { Ok((config, findings.warnings)) } else { Err(findings.faults) }
    }

    /// The configuration as a file. It loads as this one, unless it has secrets: those are shown as `***`.
    pub fn print(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|error| format!("# cannot be written as TOML: {error}\n"))
    }

    /// The configuration for people to see: as `print`, with marks in the place of secrets (passwords have theirs already).
    pub fn show(&self) -> String {
        let mut shown = self.clone();
        shown.alerts.webhook = self.alerts.webhook_shown();
        for hook in &mut shown.webhook {
            hook.url = hook.url_shown();
        }
        shown.print()
    }

    /// Takes over from `running` what takes effect only at a start, so that the next reload is compared with what runs.
    pub fn keep_until_restart(&mut self, running: &Config) {
        self.hostname.clone_from(&running.hostname);
        self.data_dir.clone_from(&running.data_dir);
        self.sandbox = running.sandbox;
        self.listener.clone_from(&running.listener);
        self.limits = running.limits.clone();
        self.dns.servers.clone_from(&running.dns.servers);
        self.delivery.max_connections = running.delivery.max_connections;
        self.events = running.events.clone();
        self.log = running.log.clone();
        self.http.address.clone_from(&running.http.address);
        self.feedback.domain.clone_from(&running.feedback.domain);
    }

    /// What differs in `other` and takes effect only at a start: it is bound, opened or shared out there.
    pub fn restart_needed(&self, other: &Config) -> Vec<&'static str> {
        [
            ("hostname", self.hostname != other.hostname),
            ("data_dir", self.data_dir != other.data_dir),
            ("sandbox", self.sandbox != other.sandbox),
            ("listener", self.listener != other.listener),
            ("limits", self.limits != other.limits),
            ("dns.servers", self.dns.servers != other.dns.servers),
            ("delivery.max_connections", self.delivery.max_connections != other.delivery.max_connections),
            ("events", self.events != other.events),
            ("log", self.log != other.log),
            ("http.address", self.http.address != other.http.address),
            ("feedback.domain", self.feedback.domain != other.feedback.domain),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}
