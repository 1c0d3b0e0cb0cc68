//! The throttle: how much may go to a receiver, and when.
//!
//! Pure: the time comes in as an argument. It is asked (`permit` for a connection, `grant` for a transaction) and told
//! (`report`), and answers with a permit, a grant, or the time to ask again. What is learned belongs to the lane (one
//! of our sources at one provider), the ceiling to the provider over all its hosts, domains and our addresses.
//!
//! Rules that always hold:
//! - a connection exists only while it holds a `Permit`, and the permit is given back when the socket is closed, so the
//!   receiver never counts more than we do;
//! - permits in use never exceed the provider's ceiling, nor all of them `[delivery] max_connections`;
//! - a transaction starts only with a `Grant`.

mod bounded;
mod climb;
mod effort;
mod forecast;
mod growth;
mod hand;
mod history;
mod hold;
mod incident;
mod lane;
mod noise;
pub mod options;
mod pace;
pub mod profile;
mod question;
mod rate;
mod wait;
mod warmup;
mod wave;
mod window;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

pub use forecast::Forecast;
use hand::Pauses;
pub use hand::{EVERYTHING, HoldSender, LaneOrder, Ordered};
pub use hold::{HoldBegan, Side};
pub use lane::Change;
use lane::Lane;
pub use profile::{Profile, Profiles};
pub use wave::Mining;
use wave::{Clients, Wave, WaveChange};

use crate::types::words::count;
use crate::types::{Domain, NamedLimits, QueueId, Reading, Timestamp};

/// In the place of a source: what holds for a provider whichever of our addresses is used.
pub const EVERY_SOURCE: &str = "*";

/// A client of ours that mines for names is kept waiting for so long each time it is named.
pub const SLOWED_FOR: std::time::Duration = std::time::Duration::from_secs(600);

/// One of our sources at one provider.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneName {
    pub provider: Arc<str>,
    pub source: Arc<str>,
}

impl fmt::Display for LaneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.provider, self.source)
    }
}

/// The right to hold one connection. Given back with `Throttle::release` when the socket is closed, never copied.
#[derive(Debug)]
#[must_use = "a permit that is dropped is lost to the ceiling: give it back with Throttle::release"]
pub struct Permit {
    lane: LaneName,
    messages: u32,
    /// Recipients of the transaction under way; none: there is none.
    under_way: Option<u64>,
    /// The receiver has let it in, and it has not taken leave.
    is_in: bool,
    /// What the receiver has said of this connection.
    named: NamedLimits,
}

impl Permit {
    pub fn lane(&self) -> &LaneName {
        &self.lane
    }

    /// Transactions started on the connection.
    pub fn messages(&self) -> u32 {
        self.messages
    }
}

/// The right to start one transaction.
#[derive(Debug)]
pub struct Grant {
    /// At most so many recipients.
    pub recipients: usize,
}

/// Which delivery a lane wants when it asks the receiver whether the way is free again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whichever is next.
    Next,
    /// After a block: the canary's, else what can best be spared.
    Expendable,
    /// After a block that may have been about content: the same, of another sender than the one that met it.
    OtherSender,
}

/// Mail that a lane holds back for whom it is from or to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub until: Timestamp,
    /// In words, with the receiver's reply.
    pub reason: Arc<str>,
}

/// Mail that goes slower than the receiver would take it, of our own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restraint {
    /// Recipients that go in the guard's hour, or on the warm-up's day.
    pub worth: usize,
    /// Why, and what lifts it.
    pub because: String,
}

/// What a refused transaction was about, as far as it is known; nothing of it at the greeting.
#[derive(Clone, Copy, Debug, Default)]
pub struct About<'a> {
    pub message: Option<QueueId>,
    pub sender_domain: Option<&'a Domain>,
    pub recipient_domain: Option<&'a Domain>,
    /// Messages that the same connection carried before.
    pub carried: u32,
}

/// What the throttle says to a request.
#[derive(Debug)]
pub enum Answer<T> {
    Granted(T),
    /// Not before then.
    At(Timestamp),
    /// No new connection before then; those that are open go on.
    Rests(Timestamp),
    /// When something is given back.
    Full,
    /// This connection has carried what it may: close it, another may be asked for.
    Spent,
}

/// What a receiver did.
#[derive(Debug)]
pub enum Signal<'a> {
    /// `started`: when the transaction was begun.
    Accepted { recipients: u32, started: Timestamp, about: About<'a> },
    /// A reply that is not positive; `started` is when the refused thing was begun.
    Refused { reading: &'a Reading, reply: &'a str, started: Timestamp, about: About<'a> },
    /// The transaction ended without an answer of the receiver.
    Broken { about: About<'a> },
}

/// What became of a signal.
#[derive(Debug, Default)]
pub struct Reported {
    /// What changed for the lane.
    pub change: Option<Change>,
    /// The lane has a wait for what was refused: the delivery that met it is to wait with the lane, as if it had not been offered.
    pub waits: bool,
}

/// What is kept of a lane over a restart: JSON of the throttle's own, for the store to keep and give back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRecord {
    pub name: LaneName,
    pub state: String,
}

#[derive(Debug)]
struct Provider {
    open: usize,
    profile: Arc<Profile>,
    wave: Wave,
}

#[derive(Debug)]
pub struct Throttle {
    profiles: Profiles,
    providers: BTreeMap<Arc<str>, Provider>,
    lanes: BTreeMap<LaneName, Lane>,
    open: usize,
    max_connections: usize,
    /// What an operator has stopped, since when.
    pauses: Pauses,
    warming: BTreeSet<LaneName>,
    clients: Clients,
    changes: Vec<(LaneName, Change)>,
    /// Records that are to be emptied.
    forgotten: Vec<LaneName>,
    /// Lanes with a connection to which no receiver has said anything yet: without it they are as if they had never been.
    untold: BTreeSet<LaneName>,
    /// Lanes with something unsaved, as far as they are known.
    unsaved: BTreeSet<LaneName>,
    /// Many lanes may have changed at once: all are looked at before the next are saved.
    all_changed: bool,
    chance: fastrand::Rng,
}

/// A lane as `status` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct LaneStatus {
    pub provider: Arc<str>,
    pub source: Arc<str>,
    pub state: &'static str,
    pub connections: usize,
    pub connections_allowed: usize,
    pub ceiling: usize,
    /// Recipients accepted in the last minute.
    pub rate: f64,
    /// Recipients a minute that are allowed; none: as many as the connections carry.
    pub rate_allowed: Option<f64>,
    pub reason: Option<String>,
    pub until: Option<Timestamp>,
    /// Since when nothing goes.
    pub since: Option<Timestamp>,
}

/// All lanes of a provider in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lanes {
    /// Lanes, or the pause of a provider that has none.
    pub count: usize,
    pub connections: usize,
    pub allowed: usize,
    /// One of them at least lets a connection be opened.
    pub is_open: bool,
    /// Of the lane that opens first.
    pub state: &'static str,
    /// When that is; none: an operator's hand opens it.
    pub until: Option<Timestamp>,
    /// Recipients accepted in the last minute.
    pub rate: f64,
    /// Recipients a minute that are expected; none: not known yet.
    pub pace: Option<f64>,
}

impl Throttle {
    /// `seed`: of the chance that makes waits unequal.
    pub fn new(profiles: Profiles, max_connections: usize, seed: u64) -> Throttle {
        Throttle {
            profiles,
            providers: BTreeMap::new(),
            lanes: BTreeMap::new(),
            open: 0,
            max_connections: max_connections.max(1),
            pauses: Pauses::default(),
            warming: BTreeSet::new(),
            clients: Clients::default(),
            changes: Vec::new(),
            forgotten: Vec::new(),
            untold: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            all_changed: false,
            chance: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes new settings; connections above a lowered ceiling stay and no new one is permitted.
    pub fn reconfigure(&mut self, profiles: Profiles, max_connections: usize) {
        for (name, provider) in &mut self.providers {
            provider.profile = Arc::new(profiles.get(name));
        }
        for (name, lane) in &mut self.lanes {
            if let Some(provider) = self.providers.get(&name.provider) {
                lane.reconfigure(&provider.profile);
            }
        }
        self.profiles = profiles;
        self.max_connections = max_connections.max(1);
    }

    pub fn profile(&self, provider: &str) -> Arc<Profile> {
        self.providers.get(provider).map_or_else(|| Arc::new(self.profiles.get(provider)), |p| Arc::clone(&p.profile))
    }

    /// Is it one of the Microsoft groups? There a 5xx greeting is final for the delivery that meets it.
    pub fn is_microsoft(&self, provider: &str) -> bool {
        matches!(provider, "outlook" | "microsoft365")
    }

    /// Asks for one connection.
    ///
    /// `guarded`: first contact and growth guard hold for it; not for our own networks and fixed routes without `limits`.
    pub fn permit(&mut self, name: &LaneName, guarded: bool, now: Timestamp) -> Answer<Permit> {
        if self.open >= self.max_connections {
            return Answer::Full;
        }
        if self.pauses.stop(&name.provider) {
            return Answer::At(Timestamp::NEVER);
        }
        let (provider, lane) = self.lane(name, now);
        lane.guarded = guarded;
        if provider.open >= provider.profile.max_connections {
            return Answer::Full;
        }
        if let Some(until) = lane.rests_until(now) {
            lane.wanted(until, now);
            return Answer::Rests(until);
        }
        if let Err(when) = lane.may_open(now) {
            return when.map_or(Answer::Full, Answer::At);
        }
        provider.open += 1;
        lane.open += 1;
        lane.last_used = now;
        self.open += 1;
        Answer::Granted(Permit {
            lane: name.clone(),
            messages: 0,
            under_way: None,
            is_in: false,
            named: NamedLimits::default(),
        })
    }

    /// Is no new connection of the lane opened for now, whoever gives one back?
    pub fn rests(&self, name: &LaneName, now: Timestamp) -> bool {
        self.lanes.get(name).is_some_and(|lane| lane.rests_until(now).is_some())
    }

    /// Would `permit` say now that every connection the lane may have is taken?
    pub fn is_used_up(&self, name: &LaneName, now: Timestamp) -> bool {
        let full = |provider: &Provider| provider.open >= provider.profile.max_connections;
        self.is_full()
            || self.providers.get(&name.provider).is_some_and(full)
            || self
                .lanes
                .get(name)
                .is_some_and(|lane| lane.closed_until(now).is_none() && lane.open >= lane.allowed(now))
    }

    /// Asks for one transaction of so many recipients on the connection of `permit`.
    pub fn grant(&mut self, permit: &mut Permit, recipients: usize, now: Timestamp) -> Answer<Grant> {
        if self.pauses.stop(&permit.lane.provider) {
            return Answer::At(Timestamp::NEVER);
        }
        self.ended(permit);
        let (_, lane) = self.lane(&permit.lane, now);
        if let Some(until) = lane.closed_until(now) {
            return Answer::At(until);
        }
        // After a cut the connections above the limit end with the transaction they were in.
        let is_over = permit.named.messages.is_some_and(|most| permit.messages >= most.max(1));
        if is_over || lane.is_spent(usize::try_from(permit.messages).unwrap_or(usize::MAX), now) {
            return Answer::Spent;
        }
        let named =
            permit.named.recipients.map_or(usize::MAX, |most| usize::try_from(most.max(1)).unwrap_or(usize::MAX));
        let recipients_max = lane.recipients().min(named);
        let recipients = recipients.clamp(1, recipients_max);
        if let Err(when) = lane.start(recipients, now) {
            return when.map_or(Answer::Full, Answer::At);
        }
        permit.messages += 1;
        permit.under_way = Some(recipients as u64);
        Answer::Granted(Grant { recipients: recipients_max })
    }

    /// The transaction of a permit is over; what came of it is told by `report`.
    pub fn ended(&mut self, permit: &mut Permit) {
        if let (Some(recipients), Some(lane)) = (permit.under_way.take(), self.lanes.get_mut(&permit.lane)) {
            lane.ended(recipients);
        }
    }

    /// The receiver has let the connection in, and named its limits, if any.
    pub fn let_in(&mut self, permit: &mut Permit, named: NamedLimits) {
        permit.named = named;
        if let Some(lane) = self.lanes.get_mut(&permit.lane).filter(|_| !permit.is_in) {
            permit.is_in = true;
            lane.let_in();
        }
    }

    /// We take leave on the connection: the receiver may have closed it sooner than we hear of it.
    pub fn leaves(&mut self, permit: &mut Permit) {
        if let Some(lane) = self.lanes.get_mut(&permit.lane).filter(|_| permit.is_in) {
            permit.is_in = false;
            lane.ready = lane.ready.saturating_sub(1);
        }
    }

    /// Gives a permit back: its socket is closed.
    pub fn release(&mut self, mut permit: Permit) {
        self.ended(&mut permit);
        self.leaves(&mut permit);
        self.open = self.open.saturating_sub(1);
        if let Some(provider) = self.providers.get_mut(&permit.lane.provider) {
            provider.open = provider.open.saturating_sub(1);
        }
        if let Some(lane) = self.lanes.get_mut(&permit.lane) {
            lane.open = lane.open.saturating_sub(1);
            if lane.open == 0 {
                lane.lost();
                self.forget_untold(&permit.lane);
            }
        }
    }

    /// Hosts that nobody reaches may be very many: nothing is kept of them.
    fn forget_untold(&mut self, name: &LaneName) {
        if !self.untold.remove(name) {
            return;
        }
        self.lanes.remove(name);
        if self.open_at(&name.provider) == 0 && self.lanes_of(&name.provider).next().is_none() {
            self.providers.remove(&name.provider);
        }
    }

    /// Which delivery the lane wants now, while only a probe may go; none: any, as many as are granted.
    pub fn probe(&self, name: &LaneName, now: Timestamp) -> Option<Probe> {
        self.lanes.get(name)?.probe(now)
    }

    /// Since when the lane is closed, if it is.
    pub fn closed_since(&self, name: &LaneName) -> Option<Timestamp> {
        self.lanes.get(name)?.closed_since()
    }

    /// Is mail of this sender domain, or to this recipient domain, held back in the lane?
    pub fn held(
        &self,
        name: &LaneName,
        sender_domain: Option<&Domain>,
        recipient_domain: &Domain,
        now: Timestamp,
    ) -> Option<Held> {
        self.lanes.get(name)?.learned.holds.held(sender_domain, recipient_domain, now)
    }

    /// A transaction was started: where its domain is held back, it is the one that goes ahead.
    pub fn began(&mut self, name: &LaneName, about: &About<'_>, now: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(name).filter(|lane| !lane.learned.holds.is_empty()) {
            lane.learned.holds.started(about, now);
        }
    }

    /// Counts one answer about a recipient. Within a wave of unknown users it names the wave: what is listed then is
    /// listed provisionally.
    pub fn note_recipient(&mut self, name: &LaneName, unknown: bool, now: Timestamp) -> Option<Arc<str>> {
        self.lane(name, now);
        self.untold.remove(name);
        let (provider, _) = self.lane(name, now);
        let noted = provider.wave.note(&name.provider, unknown, now);
        if let Some(change) = noted.change {
            self.wave_changed(&name.provider, change, now);
        }
        noted.wave
    }

    /// The receiver took no more than so many recipients of one transaction and refused the others for good: no later one has more.
    pub fn took_at_once(&mut self, name: &LaneName, recipients: usize, now: Timestamp) {
        let (_, lane) = self.lane(name, now);
        lane.took_at_once(recipients, now);
    }

    /// Counts one answer about a recipient of a client of ours; tells when the client seems to guess names.
    pub fn note_client(&mut self, client: &str, unknown: bool, now: Timestamp) -> Option<Mining> {
        self.clients.note(client, unknown, now)
    }

    /// Changes that came about by counting and by time, not by a report.
    pub fn take_changes(&mut self) -> Vec<(LaneName, Change)> {
        std::mem::take(&mut self.changes)
    }

    fn wave_changed(&mut self, provider: &Arc<str>, change: WaveChange, now: Timestamp) {
        let change = match change {
            WaveChange::Began { id, unknown, all } => {
                let answered = self.providers.get(provider).map_or(0, |provider| provider.wave.per_minute(now));
                let lanes: Vec<_> = self.lanes_of_mut(provider).map(|(_, lane)| lane).collect();
                let each = f64::from(answered) / lanes.len().max(1) as f64;
                for lane in lanes {
                    lane.slow_down(each, now);
                }
                self.many_changed();
                let text = format!("{unknown} of {} within 15 minutes are unknown there", count(all, "recipient"));
                Change::Wave { id, text }
            }
            WaveChange::Ended { id } => Change::WaveEnded { id },
        };
        self.changes.push((LaneName { provider: provider.clone(), source: EVERY_SOURCE.into() }, change));
    }

    /// Must connections of the lane use IPv4?
    pub fn wants_ipv4(&self, name: &LaneName, now: Timestamp) -> bool {
        self.lanes.get(name).is_some_and(|lane| lane.wants_ipv4(now))
    }

    /// The lanes whose source is new to its provider: a daily allowance that grows holds for them.
    pub fn warm_up(&mut self, lanes: BTreeSet<LaneName>) {
        for (name, lane) in &mut self.lanes {
            lane.warming = lanes.contains(name);
        }
        self.warming = lanes;
    }

    /// The clock was set by so much: every moment that is remembered moves with it.
    pub fn shift(&mut self, by_millis: i64) {
        self.lanes.values_mut().for_each(|lane| lane.shift(by_millis));
        self.many_changed();
        self.pauses.shift(by_millis);
    }

    /// Our HELO name is another one: lanes that were stopped because of it may ask again.
    pub fn renamed(&mut self, now: Timestamp) {
        self.lanes.values_mut().for_each(|lane| lane.renamed(now));
        self.many_changed();
    }

    /// Recipients a minute that the provider is expected to take, all lanes together; none: not known yet.
    pub fn pace(&self, provider: &str, now: Timestamp) -> Option<f64> {
        let paces: Vec<f64> = self.lanes_of(provider).filter_map(|(_, lane)| lane.pace(now)).collect();
        (!paces.is_empty()).then(|| paces.iter().sum())
    }

    /// When so many recipients will have gone to the provider, by playing its lanes forward; none: it cannot be told.
    pub fn done_by(&self, provider: &str, count: usize, now: Timestamp) -> Option<Timestamp> {
        self.forecast(provider, now)?.done_by(count, now)
    }

    /// What is needed to tell the same elsewhere; none: an operator has stopped it.
    pub fn forecast(&self, provider: &str, now: Timestamp) -> Option<Forecast> {
        let players = || self.lanes_of(provider).filter_map(|(_, lane)| lane.player(now)).collect();
        (!self.pauses.stop(provider)).then(|| Forecast::new(players()))
    }

    /// What growth guard and warm-up let through to the provider, all lanes together, where nothing lower holds.
    pub fn restraint(&self, provider: &str, now: Timestamp) -> Option<Restraint> {
        if self.pauses.stop(provider) {
            return None;
        }
        let restraints = self.lanes_of(provider).filter_map(|(_, lane)| lane.restraint(now));
        restraints.reduce(|a, b| Restraint { worth: a.worth.saturating_add(b.worth), ..a })
    }

    /// The providers for which that is so.
    pub fn restrained(&self, now: Timestamp) -> BTreeMap<Arc<str>, Restraint> {
        let mut all = BTreeMap::new();
        for (name, _) in self.lanes.iter().filter(|(_, lane)| lane.guarded || lane.warming) {
            if !all.contains_key(&name.provider)
                && let Some(restraint) = self.restraint(&name.provider, now)
            {
                all.insert(name.provider.clone(), restraint);
            }
        }
        all
    }

    fn lanes_of(&self, provider: &str) -> impl Iterator<Item = (&LaneName, &Lane)> {
        let first = LaneName { provider: provider.into(), source: "".into() };
        self.lanes.range(first.clone()..).take_while(move |(name, _)| name.provider == first.provider)
    }

    fn lanes_of_mut(&mut self, provider: &str) -> impl Iterator<Item = (&LaneName, &mut Lane)> {
        let first = LaneName { provider: provider.into(), source: "".into() };
        self.lanes.range_mut(first.clone()..).take_while(move |(name, _)| name.provider == first.provider)
    }

    /// Have refusals taught any limit of the provider?
    pub fn knows_limits(&self, provider: &str) -> bool {
        self.lanes_of(provider).any(|(_, lane)| lane.knows_limits())
    }

    /// Is there a lane to it?
    pub fn knows(&self, provider: &str) -> bool {
        self.lanes_of(provider).next().is_some() || self.is_paused(provider)
    }

    /// The lines of `status` of those through which nothing goes; one alone for the lanes that the pause of everything stops.
    pub fn stopped(&self, now: Timestamp) -> Vec<LaneStatus> {
        let by_itself = |name: &LaneName, lane: &Lane| {
            (lane.closed_since().is_some() && self.everything_paused().is_none()) || self.is_paused(&name.provider)
        };
        let lanes = self.lanes.iter().filter(|(name, lane)| by_itself(name, lane));
        let lanes = lanes.map(|(name, lane)| self.line(name, lane, now));
        self.line_of_everything().into_iter().chain(lanes).chain(self.lines_of_pauses()).collect()
    }

    /// The provider that the profiles name for a domain, each domain once: a guess where no MX host is known yet.
    pub fn providers_by_domain(&self) -> BTreeMap<String, Arc<str>> {
        let of = |profile: &Profile| {
            let name = profile.name.clone();
            profile.domains.clone().into_iter().map(move |domain| (domain, name.clone()))
        };
        self.profiles.iter().flat_map(of).collect()
    }

    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// What has changed since it was last asked and should survive a restart, of so many lanes at most: `is_saved` tells whether
    /// that was all. An empty state: forget it.
    pub fn unsaved(&mut self, lanes_max: usize, now: Timestamp) -> Vec<LaneRecord> {
        if std::mem::take(&mut self.all_changed) {
            let changed = self.lanes.iter().filter(|(_, lane)| lane.unsaved);
            self.unsaved = changed.map(|(name, _)| name.clone()).collect();
        }
        let mut records: Vec<LaneRecord> = Vec::new();
        while records.len() < lanes_max
            && let Some(name) = self.unsaved.pop_first()
        {
            if let Some(lane) = self.lanes.get_mut(&name).filter(|lane| lane.unsaved) {
                lane.unsaved = false;
                records.push(LaneRecord { state: lane.stamped(now), name });
            }
        }
        let empty = |name| LaneRecord { name, state: String::new() };
        records.extend(std::mem::take(&mut self.forgotten).into_iter().map(empty));
        records.extend(self.pauses.records());
        records
    }

    /// Lanes were changed by something else than a receiver's word.
    fn many_changed(&mut self) {
        self.all_changed = true;
        self.untold.clear();
    }

    /// Nothing is left to be saved.
    pub fn is_saved(&self) -> bool {
        self.unsaved.is_empty() && !self.all_changed
    }

    /// Takes back what was saved; call it before the first permit. What cannot be read is passed over.
    pub fn restore(&mut self, records: Vec<LaneRecord>, now: Timestamp) {
        for LaneRecord { name, state } in records {
            if self.pauses.restore(&name, &state, now) {
                continue;
            }
            let profile = self.profile(&name.provider);
            if let Some(mut lane) = Lane::restored(&profile, &state, now) {
                lane.warming = self.warming.contains(&name);
                self.providers.entry(name.provider.clone()).or_insert(Provider {
                    open: 0,
                    profile,
                    wave: Wave::default(),
                });
                self.lanes.insert(name, lane);
            }
        }
    }

    /// Tells what a receiver did; returns what that means for the lane, and whether the delivery waits with it.
    pub fn report(&mut self, name: &LaneName, signal: &Signal<'_>, now: Timestamp) -> Reported {
        let chance = self.chance.f64();
        let (_, lane) = self.lane(name, now);
        lane.last_used = now;
        self.untold.remove(name);
        let (_, lane) = self.lane(name, now);
        let was_unsaved = lane.unsaved;
        let reported = match signal {
            Signal::Accepted { recipients, started, about } => {
                Reported { change: lane.accepted(*recipients, *started, about, now), waits: false }
            }
            Signal::Refused { reading, reply, started, about } => {
                let change = lane.refused(reading, reply, *started, about, chance, now);
                Reported { change, waits: lane::has_wait(reading) }
            }
            Signal::Broken { about } => {
                lane.inconclusive(about, now);
                Reported::default()
            }
        };
        if lane.unsaved && !was_unsaved {
            self.unsaved.insert(name.clone());
        }
        reported
    }

    /// Is there no room because every connection in all is taken, whoever asks?
    pub fn is_full(&self) -> bool {
        self.open >= self.max_connections
    }

    pub fn open(&self) -> usize {
        self.open
    }

    /// Connections to one provider.
    pub fn open_at(&self, provider: &str) -> usize {
        self.providers.get(provider).map_or(0, |provider| provider.open)
    }

    /// Forgets lanes that learned nothing worth keeping. Called once in a while.
    pub fn sweep(&mut self, now: Timestamp) {
        // What an operator has stopped keeps its name, however long it rests.
        self.lanes.retain(|name, lane| self.pauses.stop(&name.provider) || !lane.is_stale(now));
        self.lanes.values_mut().for_each(|lane| lane.learned.holds.sweep(now));
        let ended = |(name, provider): (&Arc<str>, &mut Provider)| Some((name.clone(), provider.wave.tick(now)?));
        let ended: Vec<_> = self.providers.iter_mut().filter_map(ended).collect();
        for (provider, change) in ended {
            self.wave_changed(&provider, change, now);
        }
        let used: BTreeSet<&Arc<str>> = self.lanes.keys().map(|lane| &lane.provider).collect();
        self.providers.retain(|name, provider| provider.open > 0 || used.contains(name));
    }

    /// Every lane and every pause. Costs a pass over all lanes, with words for each: nothing for the loop that decides.
    pub fn status(&self, now: Timestamp) -> Vec<LaneStatus> {
        let lanes = self.lanes.iter().map(|(name, lane)| self.line(name, lane, now));
        self.line_of_everything().into_iter().chain(lanes).chain(self.lines_of_pauses()).collect()
    }

    /// The line of a provider through whose lane nothing has gone yet.
    pub fn line_without_lane(&self, name: LaneName, now: Timestamp) -> LaneStatus {
        let mut lane = Lane::new(&self.profile(&name.provider), now);
        lane.guarded = true;
        let mut line = self.line(&name, &lane, now);
        if !self.pauses.stop(&name.provider) {
            line.reason = None;
        }
        line
    }

    /// The same, a few lanes at a time: the next `count` behind `after`, without the pauses that have a line of their own.
    pub fn status_after(&self, after: Option<&LaneName>, count: usize, now: Timestamp) -> Vec<LaneStatus> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let lanes = self.lanes.range((from, Bound::Unbounded)).take(count);
        lanes.map(|(name, lane)| self.line(name, lane, now)).collect()
    }

    /// The lanes of one provider alone, as `status` shows them.
    pub fn status_of(&self, provider: &str, now: Timestamp) -> Vec<LaneStatus> {
        let lines: Vec<LaneStatus> = self.lanes_of(provider).map(|(name, lane)| self.line(name, lane, now)).collect();
        match lines.is_empty() {
            true => self.lines_of_pauses().into_iter().filter(|line| *line.provider == *provider).collect(),
            false => lines,
        }
    }

    /// How the lanes of a provider stand together, without a word.
    pub fn lanes_in_numbers(&self, provider: &str, now: Timestamp) -> Lanes {
        let is_paused = self.pauses.stop(provider);
        let mut lanes = Lanes { pace: self.pace(provider, now), ..Lanes::default() };
        for (_, lane) in self.lanes_of(provider) {
            let allowed = if is_paused { 0 } else { lane.allowed(now) };
            let until = lane.closed_until(now).filter(|until| *until < Timestamp::NEVER && !is_paused);
            if lanes.count == 0 || until.is_some_and(|until| lanes.until.is_none_or(|soonest| until < soonest)) {
                lanes.state = if is_paused { "paused" } else { lane.state(now) };
            }
            lanes.count += 1;
            lanes.is_open |= allowed > 0;
            lanes.allowed += allowed;
            lanes.connections += lane.open;
            lanes.rate += lane.learned.history.count(Duration::from_secs(60), now) as f64;
            lanes.until = lanes.until.into_iter().chain(until).min();
        }
        if lanes.count == 0 && self.is_paused(provider) {
            (lanes.count, lanes.state) = (1, "paused");
        }
        lanes
    }

    fn line(&self, name: &LaneName, lane: &Lane, now: Timestamp) -> LaneStatus {
        let mut line = LaneStatus {
            provider: name.provider.clone(),
            source: name.source.clone(),
            state: lane.state(now),
            connections: lane.open,
            connections_allowed: lane.allowed(now),
            ceiling: self.profile(&name.provider).max_connections,
            rate: lane.learned.history.count(Duration::from_secs(60), now) as f64,
            rate_allowed: lane.rate_limit(now),
            reason: lane.reason(now),
            until: lane.closed_until(now).filter(|until| *until < Timestamp::NEVER),
            since: lane.closed_since(),
        };
        self.show_pause_of(&mut line);
        line
    }

    fn lane(&mut self, name: &LaneName, now: Timestamp) -> (&mut Provider, &mut Lane) {
        if !self.lanes.contains_key(name) {
            let profile = self.profile(&name.provider);
            let mut lane = Lane::new(&profile, now);
            lane.warming = self.warming.contains(name);
            self.lanes.insert(name.clone(), lane);
            self.untold.insert(name.clone());
            self.providers.entry(name.provider.clone()).or_insert(Provider { open: 0, profile, wave: Wave::default() });
        }
        let provider = self.providers.get_mut(&name.provider).expect("a lane's provider is known");
        let lane = self.lanes.get_mut(name).expect("inserted above");
        (provider, lane)
    }
}
