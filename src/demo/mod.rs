//! `weir demo`: a relay and simulated receivers in one process on loopback, and what can be seen of them. `trial` is the same for a
//! configuration of somebody's own.
//!
//! Rules that always hold:
//! - nothing is asked of the network: names come from a table (`dns`), mail goes to loopback alone;
//! - the relay is the real one, with its spool in a folder that is removed at the end, whatever the end is;
//! - the clock of relay and receivers runs [`SPEED`] times faster than time, so that waits of minutes and limits by the minute are
//!   what they are with real receivers, and an hour of mail is seen in a minute;
//! - the relay is told none of the receivers' limits; what is shown beside them as learned, it has learned.

mod dns;
mod folder;
mod mail;
pub mod plot;
pub mod trial;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::task::TaskTracker;

use crate::admin::{Client, LaneRecord, LaneState, Request, StatusRecord};
use crate::clock::Clock;
use crate::server::Embedded;
use crate::simulate::{Judgement, Limits};
use crate::types::Timestamp;
use folder::Folder;
use world::World;

/// Messages of a demo: enough to find every limit, few enough for less than a minute.
pub const MESSAGES: u32 = 3000;
/// More take longer than anybody watches.
pub const MESSAGES_MAX: u32 = 100_000;
/// An hour of the demo is over in a minute.
pub const SPEED: u32 = 60;
/// After this long, in real time, it is over, whatever is left: the demo keeps its promise of a minute.
const TIME_MAX: Duration = Duration::from_secs(55);
/// Between two looks.
const EVERY: Duration = Duration::from_millis(250);
/// Connections over which messages are handed in.
const CLIENTS: u32 = 8;

/// A demo under way.
pub struct Demo {
    world: World,
    relay: Embedded,
    admin: Client,
    folder: Folder,
    clients: TaskTracker,
    clock: Clock,
    start: Timestamp,
    samples: Vec<Sample>,
}

/// What was seen in one look.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// Minutes since the start, by the clock of the demo.
    pub minute: f64,
    /// Messages in the relay's queue.
    pub queued: u64,
    pub receivers: Vec<Seen>,
}

/// A receiver at that moment: what it knows itself, and what the relay thinks of it.
#[derive(Clone, Debug, Serialize)]
pub struct Seen {
    pub provider: &'static str,
    pub limits: Limits,
    pub accepted: u64,
    pub refused: u64,
    pub connections: u32,
    /// Messages accepted a minute, since the last look but three.
    pub rate: f64,
    pub lane: Option<LaneRecord>,
}

/// How it ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub samples: Vec<Sample>,
    pub judgements: Vec<(&'static str, Judgement)>,
    /// Messages still queued when the time was over or somebody interrupted.
    pub left: u64,
}

impl Demo {
    /// Starts receivers and relay, and hands the messages in meanwhile.
    pub async fn start(seed: u64, messages: u32) -> anyhow::Result<Demo> {
        let folder = Folder::create()?;
        let clock = Clock::fast(SPEED);
        let world = World::start(seed, &clock)?;
        let config = world.configuration(folder.path())?;
        let relay = Embedded::start(config, Arc::new(world.dns.clone()), clock.clone()).await?;
        let admin = Client::connect(folder.path()).await?;
        let address = *relay.addresses().first().ok_or_else(|| anyhow::anyhow!("the relay listens nowhere"))?;
        let clients = TaskTracker::new();
        for client in 0..CLIENTS {
            let numbers = (client..messages).step_by(CLIENTS as usize);
            clients.spawn(async move {
                if let Err(error) = mail::hand_in(address, numbers).await {
                    tracing::error!(%error, "the demo could not hand in all of its messages");
                }
            });
        }
        clients.close();
        let start = clock.now();
        Ok(Demo { world, relay, admin, folder, clients, clock, start, samples: Vec::new() })
    }

    /// Waits a moment and looks.
    pub async fn look(&mut self) -> anyhow::Result<&Sample> {
        tokio::time::sleep(EVERY).await;
        let records: Vec<StatusRecord> = self.admin.all(&Request::Status).await?;
        let mut lanes = BTreeMap::new();
        let mut queued = 0;
        for record in records {
            match record {
                StatusRecord::Relay(relay) => queued = relay.messages,
                StatusRecord::Lane(lane) => drop(lanes.insert(lane.provider.clone(), lane)),
            }
        }
        let minute = self.clock.now().since(self.start).as_secs_f64() / 60.0;
        let mut receivers = Vec::with_capacity(self.world.receivers.len());
        for (place, running) in self.world.receivers.iter().enumerate() {
            let judgement = running.simulator.judgement();
            receivers.push(Seen {
                provider: running.provider,
                limits: running.simulator.limits(),
                accepted: judgement.messages_accepted,
                refused: judgement.refused.attempts(),
                connections: judgement.connections_open,
                rate: self.rate(place, judgement.messages_accepted, minute),
                lane: lanes.remove(running.provider),
            });
        }
        self.samples.push(Sample { minute, queued, receivers });
        self.samples.last().ok_or_else(|| anyhow::anyhow!("a sample was just taken"))
    }

    /// Messages a minute since about a minute ago.
    fn rate(&self, place: usize, accepted: u64, minute: f64) -> f64 {
        let before = self.samples.iter().rev().nth(3).or(self.samples.first());
        let (then, at) = before
            .map_or((0, 0.0), |sample| (sample.receivers.get(place).map_or(0, |seen| seen.accepted), sample.minute));
        let more = u32::try_from(accepted.saturating_sub(then)).unwrap_or(u32::MAX);
        if minute > at { f64::from(more) / (minute - at) } else { 0.0 }
    }

    /// Everything was handed in and has left, or the time is over.
    pub fn is_over(&self) -> bool {
        let Some(last) = self.samples.last() else { return false };
        (self.clients.is_empty() && last.queued == 0) || last.minute >= (TIME_MAX * SPEED).as_secs_f64() / 60.0
    }

    /// Stops everything and removes what was written.
    pub async fn end(self) -> Outcome {
        let left = self.samples.last().map_or(0, |sample| sample.queued);
        self.relay.stop().await;
        let mut judgements = Vec::new();
        for running in self.world.receivers {
            judgements.push((running.provider, running.simulator.stop().await));
        }
        drop(self.folder);
        Outcome { samples: self.samples, judgements, left }
    }
}

impl Seen {
    /// Messages a minute that the relay allows itself; none: no limit is known to it.
    pub fn learned_rate(&self) -> Option<f64> {
        self.lane.as_ref()?.rate_allowed
    }

    /// The lane's state and why, for people: `growing`, `paused: …`.
    pub fn state(&self) -> (LaneState, Option<&str>) {
        match &self.lane {
            Some(lane) => (lane.state, lane.reason.as_deref()),
            None => (LaneState::Open, Some("nothing sent yet")),
        }
    }
}
