//! `weir simulate --try`: somebody's own configuration against a simulated receiver, in one process on loopback.
//!
//! Rules that always hold:
//! - what is tried is how it delivers: providers, retries, routes and sources are those of the configuration. Everything else that could be
//!   felt outside is not: its data folder, listeners, users, TLS, alerts and reports are replaced by the trial's own;
//! - nothing is asked of the network: names come from a table, fixed routes lead to the simulated hosts, and sources are addresses of
//!   loopback;
//! - the clock runs [`SPEED`](super::SPEED) times faster than time, so the waits of the configuration are tried as they stand.
//!
//! Two policies do not hold towards one's own network, and so not here either: first contact and the guard against growth.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio_util::task::TaskTracker;

use super::folder::Folder;
use super::world::Alone;
use super::{CLIENTS, EVERY, SPEED, mail};
use crate::admin::{Client, LaneRecord, Request, StatusRecord};
use crate::clock::Clock;
use crate::config::Config;
use crate::server::Embedded;
use crate::simulate::{Judgement, Profile};
use crate::types::Timestamp;

/// What holds for every trial.
const OWN: &str = include_str!("trial.toml");
/// Where the first source of the configuration is put; others follow.
const SOURCE: [u8; 4] = [127, 88, 1, 1];
/// The rate is that of the last such time, by the trial's clock.
const RATE_OVER: Duration = Duration::from_secs(60);

/// A trial under way.
pub struct Trial {
    receiver: Alone,
    relay: Embedded,
    admin: Client,
    folder: Folder,
    clients: TaskTracker,
    clock: Clock,
    start: Timestamp,
    /// Moments and messages accepted by then, for the rate.
    seen: Vec<(Timestamp, u64)>,
}

/// What was seen in one look.
#[derive(Clone, Debug)]
pub struct Glance {
    /// Since the start, by the trial's clock.
    pub time: Duration,
    /// Messages in the relay's queue.
    pub queued: u64,
    /// Messages accepted a minute.
    pub rate: f64,
    pub counts: Judgement,
    pub lanes: Vec<LaneRecord>,
    /// Everything was handed in and has come to its end.
    pub is_over: bool,
}

impl Trial {
    /// Starts receiver and relay, and hands the messages in meanwhile.
    pub async fn start(config: &Config, profile: &Profile, seed: u64, messages: u32) -> anyhow::Result<Trial> {
        let folder = Folder::create()?;
        let clock = Clock::fast(SPEED);
        let receiver = Alone::start(profile, seed, &clock)?;
        let config = tried(config, folder.path(), receiver.address())?;
        let relay = Embedded::start(config, Arc::new(receiver.dns.clone()), clock.clone()).await?;
        let admin = Client::connect(folder.path()).await?;
        let address = *relay.addresses().first().context("the relay listens nowhere")?;
        let clients = TaskTracker::new();
        for client in 0..CLIENTS {
            let numbers = (client..messages).step_by(CLIENTS as usize);
            clients.spawn(async move {
                if let Err(error) = mail::hand_in(address, numbers).await {
                    tracing::error!(%error, "the trial could not hand in all of its messages");
                }
            });
        }
        clients.close();
        let start = clock.now();
        Ok(Trial { receiver, relay, admin, folder, clients, clock, start, seen: Vec::new() })
    }

    /// Waits a moment and looks.
    pub async fn look(&mut self) -> anyhow::Result<Glance> {
        tokio::time::sleep(EVERY).await;
        let records: Vec<StatusRecord> = self.admin.all(&Request::Status).await?;
        let (mut lanes, mut queued) = (Vec::new(), 0);
        for record in records {
            match record {
                StatusRecord::Relay(relay) => queued = relay.messages,
                StatusRecord::Lane(lane) => lanes.push(lane),
            }
        }
        let (now, counts) = (self.clock.now(), self.receiver.simulator.judgement());
        let rate = self.rate(counts.messages_accepted, now);
        let is_over = self.clients.is_empty() && queued == 0;
        Ok(Glance { time: now.since(self.start), queued, rate, counts, lanes, is_over })
    }

    fn rate(&mut self, accepted: u64, now: Timestamp) -> f64 {
        self.seen.push((now, accepted));
        let recent = self.seen.partition_point(|(moment, _)| *moment + RATE_OVER < now);
        self.seen.drain(..recent);
        let Some((then, before)) = self.seen.first() else { return 0.0 };
        let minutes = now.since(*then).as_secs_f64() / 60.0;
        let more = u32::try_from(accepted.saturating_sub(*before)).unwrap_or(u32::MAX);
        if minutes > 0.0 { f64::from(more) / minutes } else { 0.0 }
    }

    /// Stops everything and removes what was written; the receiver's last word.
    pub async fn end(self) -> Judgement {
        self.relay.stop().await;
        let judgement = self.receiver.simulator.stop().await;
        drop(self.folder);
        judgement
    }
}

/// The configuration with everything replaced that could be felt outside.
fn tried(config: &Config, data_dir: &Path, receiver: SocketAddr) -> anyhow::Result<Config> {
    let mut tried: Config = toml::from_str(OWN).context("the trial's own configuration")?;
    tried.data_dir = data_dir.to_path_buf();
    tried.hostname = match config.hostname.as_str() {
        "" => "relay.weir.example".into(),
        name => name.to_string(),
    };
    tried.queue = config.queue.clone();
    tried.provider.clone_from(&config.provider);
    // The simulated receiver has no certificate that could be verified.
    tried.provider.iter_mut().for_each(|provider| provider.tls = None);
    tried.suppression = config.suppression.clone();
    tried.delivery.max_connections = config.delivery.max_connections;
    tried.delivery.port = receiver.port();
    tried.route.clone_from(&config.route);
    for route in &mut tried.route {
        route.to = receiver.to_string();
        // It takes mail from everybody.
        (route.username, route.password, route.password_file) = Default::default();
        route.tls = None;
    }
    tried.source.clone_from(&config.source);
    for (number, source) in (0..).zip(&mut tried.source) {
        source.address = loopback(number);
        source.warm_up.clear();
        source.public.clear();
    }
    Ok(tried)
}

/// The address that stands for the source with this number.
fn loopback(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(u32::from(Ipv4Addr::from(SOURCE)).saturating_add(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_configuration_is_left_that_could_be_felt_outside() {
        let own: Config = toml::from_str(
            "hostname = 'mail.example.com'\ndata_dir = '/var/lib/weir'\n\
             [[listener]]\naddress = '0.0.0.0:25'\n[relay]\npostmaster = 'me@example.com'\n\
             [delivery]\ntls = 'verify'\nport = 25\nmax_connections = 77\n[bounces]\nmode = 'mail'\n\
             [alerts]\nwebhook = 'https://example.com/x'\ncommand = '/bin/false'\nmail = 'me@example.com'\n\
             [[route]]\ndomain = '*'\nto = 'smarthost.example.com:587'\nlimits = 'outlook'\nusername = 'app'\npassword_file = '/x'\n\
             [[source]]\nname = 'a'\naddress = '192.0.2.1'\nwarm_up = ['outlook']\n\
             [[source]]\nname = 'b'\naddress = '192.0.2.2'\n\
             [[webhook]]\nname = 'app'\nurl = 'https://example.com/y'\n\
             [[provider]]\nname = 'outlook'\npause = '3m'\n",
        )
        .unwrap();
        let receiver: SocketAddr = "127.87.1.1:4567".parse().unwrap();
        let tried = tried(&own, Path::new("/tmp/trial"), receiver).unwrap();
        assert_eq!(tried.provider, own.provider);
        assert_eq!((tried.hostname.as_str(), tried.delivery.max_connections), ("mail.example.com", 77));
        assert_eq!((tried.route[0].to.as_str(), tried.route[0].limits.as_str()), ("127.87.1.1:4567", "outlook"));
        let sources: Vec<String> = tried.source.iter().map(|source| source.address.to_string()).collect();
        assert_eq!(sources, ["127.88.1.1", "127.88.1.2"]);
        let text = tried.print();
        for outside in ["/var/lib", "0.0.0.0", "me@example.com", "https://", "/bin/false", "verify", "192.0.2", "587"] {
            assert!(!text.contains(outside), "{outside} in\n{text}");
        }
    }

    #[tokio::test]
    async fn a_configuration_is_tried_until_all_mail_is_gone_and_leaves_nothing() {
        let config: Config = toml::from_str("[[provider]]\nname = 'outlook'\npause = '1m'\n").unwrap();
        let profile = Profile::parse("limits = { per_minute = 600 }").unwrap();
        let mut trial = Trial::start(&config, &profile, 1, 40).await.unwrap();
        let folder = trial.folder.path().to_path_buf();
        let last = loop {
            let glance = trial.look().await.unwrap();
            if glance.is_over {
                break glance;
            }
        };
        assert!(last.lanes.iter().any(|lane| lane.provider == "outlook"), "{:?}", last.lanes);
        let judgement = trial.end().await;
        assert_eq!((judgement.messages_accepted, judgement.faults()), (40, Vec::new()));
        assert!(!folder.exists());
    }
}
