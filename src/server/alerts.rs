//! Alerts as the rest of the relay serves them: what dispatch says is passed on, disk and spool are watched, letters go into the
//! spool like reports.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::identity::{Known, private_name};
use super::intake::{accepted, deliveries};
use super::sealing::Sealing;
use crate::alert::{Alerts, Letter, Means, Room};
use crate::clock::Clock;
use crate::config::Config;
use crate::post::{Names, Tls};
use crate::route::Router;
use crate::route::dns::Dns;
use crate::spool::{Change, NewMessage, Spool};
use crate::types::{
    Alert, BodyType, ByteSize, Domain, Envelope, Event, Notify, Origin, Priority, QueueId, Recipient, ReversePath,
    Timestamp,
};

/// Alerts of dispatch on their way.
const ALERTS_MAX: usize = 256;
/// How often disk and spool are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A letter that has not arrived after this is no news any more.
const LETTER_EXPIRES: Duration = Duration::from_secs(86_400);
/// The disk is low below so many times `min_free_disk`, and well again above so many tenths of that.
const LOW_TIMES: u64 = 2;
const WELL_TENTHS: u64 = 12;

/// What alerts need of the relay.
pub(super) struct RelayMeans {
    spool: Spool,
    identity: Arc<Known>,
    clock: Clock,
    roads: Mutex<Roads>,
    sealing: Arc<Sealing>,
}

/// How names are found; replaced when the configuration is.
#[derive(Clone)]
pub(super) struct Roads {
    pub router: Arc<Router>,
    pub dns: Arc<dyn Dns>,
}

impl RelayMeans {
    pub(super) fn new(
        spool: Spool,
        identity: Arc<Known>,
        clock: Clock,
        roads: Roads,
        sealing: Arc<Sealing>,
    ) -> Arc<RelayMeans> {
        Arc::new(RelayMeans { spool, identity, clock, roads: Mutex::new(roads), sealing })
    }

    pub(super) fn set_roads(&self, roads: Roads) {
        *self.roads.lock().unwrap_or_else(PoisonError::into_inner) = roads;
    }

    /// Whoever is asked for names now.
    pub(super) fn dns(&self) -> Arc<dyn Dns> {
        self.roads().dns
    }

    fn roads(&self) -> Roads {
        self.roads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Names for RelayMeans {
    async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        let dns = self.roads().dns;
        let (v4, v6) = tokio::join!(dns.v4(host), dns.v6(host));
        let fault = v4.as_ref().err().map(ToString::to_string);
        let v4 = v4.into_iter().flat_map(|found| found.records).map(IpAddr::from);
        let v6 = v6.into_iter().flat_map(|found| found.records).map(IpAddr::from);
        let addresses: Vec<IpAddr> = v4.chain(v6).collect();
        match (addresses.is_empty(), fault) {
            (true, Some(fault)) => Err(fault),
            _ => Ok(addresses),
        }
    }
}

impl Means for RelayMeans {
    fn host(&self) -> Arc<str> {
        self.identity.name().unwrap_or_else(private_name).into()
    }

    fn note(&self, event: Event) {
        self.spool.settle(vec![Change::Note(event)]);
    }

    fn next_id(&self, now: Timestamp) -> QueueId {
        self.spool.ids().next(now)
    }

    async fn provider_of(&self, domain: &Domain) -> Option<Arc<str>> {
        let router = self.roads().router;
        match router.resolve(domain).await {
            Ok(route) => route.hosts.first().map(|host| host.provider.clone()),
            Err(_) => router.providers().by_domain(domain),
        }
    }

    async fn mail(&self, id: QueueId, letter: Letter) -> Result<(), String> {
        let Letter { to, message_id, content } = letter;
        let content = self.sealing.sealed(content).await;
        let envelope = Arc::new(Envelope {
            id,
            received: self.clock.now(),
            sender: ReversePath::Null,
            ret: None,
            envid: None,
            body_type: BodyType::SevenBit,
            smtputf8: !to.is_ascii(),
            size_bytes: content.len() as u64,
            message_id: Some(message_id),
            client: None,
            user: None,
            requests: Default::default(),
            expire: Some(LETTER_EXPIRES),
            class: Priority::High,
            origin: Origin::Report,
        });
        let mut body = self.spool.body(id);
        body.write(&content).await.map_err(|error| error.to_string())?;
        let recipient = Recipient { address: to, orcpt: None, notify: Notify::NEVER };
        let events = vec![accepted(&envelope, 1)];
        let message = NewMessage { envelope, deliveries: deliveries(id, vec![recipient]), body, events };
        self.spool.accept(message).await.map_err(|error| error.to_string())
    }
}

/// The room with all that feeds it.
pub(super) struct Started {
    pub alerts: Alerts,
    /// Where dispatch says what it finds.
    pub said: mpsc::Sender<Alert>,
}

/// Starts telling, and watching disk and spool.
pub(super) fn start(
    config: &Config,
    means: Arc<RelayMeans>,
    tls: &Tls,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Started {
    let (alerts, clock, spool) = (Alerts::default(), means.clock.clone(), means.spool.clone());
    let room = Room::new(&config.alerts, alerts.clone(), means, clock, tls, tasks, stop);
    tasks.spawn(room.run(stop.clone()));
    watch(spool, config.limits.min_free_disk.0, alerts.clone(), tasks, stop);
    let (said, heard) = mpsc::channel(ALERTS_MAX);
    pass_on(heard, alerts.clone(), tasks, stop);
    Started { alerts, said }
}

/// Passes on what dispatch says. It has written the events itself.
fn pass_on(mut said: mpsc::Receiver<Alert>, alerts: Alerts, tasks: &TaskTracker, stop: &CancellationToken) {
    let stop = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                alert = said.recv() => match alert {
                    Some(alert) => alerts.tell_recorded(alert),
                    None => return,
                },
            }
        }
    });
}

/// Watches what the relay stands on.
fn watch(spool: Spool, min_bytes: u64, alerts: Alerts, tasks: &TaskTracker, stop: &CancellationToken) {
    let stop = stop.clone();
    tasks.spawn(async move {
        let mut was_low = false;
        loop {
            let health = Health {
                free_bytes: spool.free_bytes().ok(),
                min_bytes,
                can_write: spool.healthy(),
                memory_fault: spool.memory_fault(),
            };
            for alert in health.judge(spool.folder(), was_low) {
                if alert.key == DISK_LOW {
                    was_low = alert.raised;
                }
                alerts.tell(alert);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    });
}

const DISK_LOW: &str = "disk low";
const DISK_FULL: &str = "disk full";
const SPOOL: &str = "spool";
const MEMORY: &str = "memory";

/// What the relay stands on, at one moment.
struct Health {
    /// None: the system does not say.
    free_bytes: Option<u64>,
    /// `limits.min_free_disk`
    min_bytes: u64,
    can_write: bool,
    memory_fault: Option<String>,
}

impl Health {
    fn judge(&self, folder: &Path, was_low: bool) -> Vec<Alert> {
        let free = self.free_bytes.unwrap_or(u64::MAX);
        let low = self.min_bytes.saturating_mul(LOW_TIMES);
        let bound = if was_low { low / 10 * WELL_TENTHS } else { low };
        let (shown, min) = (ByteSize(free), ByteSize(self.min_bytes));
        let state = |key: &str, raised, text: String, remedy: &str| Alert {
            key: key.to_string(),
            raised,
            text,
            remedy: remedy.to_string(),
            provider: None,
        };
        let folder = folder.display();
        vec![
            state(
                DISK_FULL,
                free < self.min_bytes,
                format!("no mail is taken: {shown} free for {folder}, less than limits.min_free_disk, {min}"),
                "free space there; clients try again by themselves, and what is queued goes on",
            ),
            state(
                DISK_LOW,
                free < bound && free >= self.min_bytes,
                format!("the disk is nearly full: {shown} free for {folder}; below {min} no mail is taken"),
                "free space there, or look for whom mail waits (weir status)",
            ),
            state(
                SPOOL,
                !self.can_write,
                format!("the spool in {folder} cannot be written: no mail is taken and none goes out"),
                "look at the log and at the disk (dmesg); weir goes on by itself when a write succeeds",
            ),
            state(
                MEMORY,
                self.memory_fault.is_some(),
                match &self.memory_fault {
                    Some(used) => format!("no mail is taken: {used}"),
                    None => "there is memory again, mail is taken".to_string(),
                },
                "see who needs it, or raise the limit; what is queued goes on",
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raised(free_bytes: Option<u64>, was_low: bool, can_write: bool) -> Vec<String> {
        let health = Health { free_bytes, min_bytes: 1000, can_write, memory_fault: None };
        let alerts = health.judge(Path::new("/data"), was_low);
        alerts.into_iter().filter(|alert| alert.raised).map(|alert| alert.key).collect()
    }

    #[test]
    fn a_disk_that_fills_is_told_before_mail_is_refused() {
        for (free, was_low, expected) in [
            (5000, false, vec![]),
            (2000, false, vec![]),
            (1999, false, vec![DISK_LOW]),
            // It must be clearly better before it counts as well again.
            (2300, true, vec![DISK_LOW]),
            (2400, true, vec![]),
            (999, true, vec![DISK_FULL]),
            (0, false, vec![DISK_FULL]),
        ] {
            assert_eq!(raised(Some(free), was_low, true), expected, "{free}");
        }
        assert!(raised(None, false, true).is_empty());
    }

    #[test]
    fn memory_that_is_out_is_told_with_its_numbers() {
        let memory_fault = Some("250 MiB of the 256 MiB of the machine are in use".to_string());
        let health = Health { free_bytes: None, min_bytes: 1000, can_write: true, memory_fault };
        let raised: Vec<Alert> = health.judge(Path::new("/data"), false).into_iter().filter(|a| a.raised).collect();
        assert!(raised.len() == 1 && raised[0].text.ends_with("of the machine are in use"), "{raised:?}");
    }

    #[test]
    fn a_spool_that_cannot_write_is_told() {
        assert_eq!(raised(Some(5000), false, false), [SPOOL]);
    }
}
