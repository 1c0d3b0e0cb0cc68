//! A world in virtual time around the relay's own core: what `dispatch` decides with is real, the rest is played.
//!
//! The core's actions are carried out at later moments against the simulator's receivers, and what comes of them goes
//! back as inputs. Nothing waits: the time jumps from event to event. The world's time is the true one; the relay's clock
//! may be wrong against it (`set_clock`), as clocks of real machines are.
//!
//! What must hold at every step is checked at every step; a failure panics with what was wrong:
//! - permits in use equal live connections (where assertions for debugging are on);
//! - nobody is offered a message after the last word about it;
//! - the core sleeps when there is nothing to do.

mod agenda;
mod carry;
mod post;
pub mod site;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use weir::dispatch::core::{Core, Settings, SourceAddress};
use weir::dispatch::message::{ConnectionId, Done, Input, Job};
use weir::dispatch::options::{BounceMode, Bounces};
use weir::dispatch::status::Snapshot;
use weir::outbound::OpenError;
use weir::outbound::options::TlsMode;
use weir::queue::options::Queue as QueueOptions;
use weir::simulate::SessionId;
use weir::spool::Committed;
use weir::throttle::options::ProviderOptions;
use weir::throttle::{LaneName, LaneRecord, Profiles};
use weir::types::Timestamp;
use weir::verdict::Rules;

pub use agenda::Agenda;
pub use post::{Mix, Post};
pub use site::{Faults, SIZE_BYTES, Setting, Site};

/// A look-up in the DNS, a word to a relay's own parts.
const SHORTLY: Duration = Duration::from_millis(20);
/// QUIT, its answer, and the end of the connection.
pub const LEAVE: Duration = Duration::from_millis(100);
/// The core may be woken so often in a row without time passing; more is a loop.
const TICKS_MAX: usize = 10_000;

/// The beginning of every world.
pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);

/// What a world is made with.
pub struct Plan {
    pub sites: Vec<Setting>,
    pub providers: Vec<ProviderOptions>,
    /// Addresses the relay sends from.
    pub sources: usize,
    pub max_connections: usize,
    pub queue: QueueOptions,
    pub seed: u64,
}

pub struct World {
    core: Core,
    now: Timestamp,
    /// The relay's clock goes ahead by so many milliseconds.
    clock_ahead: i64,
    agenda: Agenda<Event>,
    open: BTreeMap<ConnectionId, Open>,
    pub sites: Vec<Site>,
    pub post: Post,
    pub work: Work,
    /// Messages handed in so far, and those that will be.
    submitted: usize,
    to_come: usize,
    /// The relay's own.
    addresses: Vec<IpAddr>,
    /// What it would find again after a restart.
    remembered: BTreeMap<LaneName, String>,
}

/// What the core has done, in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    pub wakes: usize,
    pub actions: usize,
    pub warnings: usize,
}

enum Event {
    Say(Input),
    /// Mail comes for a site.
    Arrive {
        site: usize,
        count: usize,
        mix: Mix,
    },
    /// The relay's clock is set, so many milliseconds ahead of the true time.
    Clock(i64),
    /// A connection stands; its first transaction begins.
    Opened(ConnectionId, Job),
    /// No connection came to be.
    Failed(ConnectionId, OpenError),
    /// A transaction ends; and with it the connection, if that is gone.
    Done(ConnectionId, Box<Done>, bool),
    /// The socket is closed.
    Closed(ConnectionId),
    /// The receiver has had enough of a connection with nothing to do; not if it was used again meanwhile.
    IdleEnds(ConnectionId, u32),
}

/// A connection, from the decision to open it until its socket is closed.
struct Open {
    site: usize,
    /// What the receiver knows it by; none: it never let it in.
    session: Option<SessionId>,
    /// The receiver counts it.
    counted: bool,
    transactions: u32,
    /// Its dialogue has not begun.
    opening: bool,
    busy: bool,
    closing: bool,
}

impl World {
    pub fn new(plan: Plan) -> World {
        let post = Post::new(plan.seed);
        let sources = sources(plan.sources);
        let addresses = sources.iter().map(|source| source.address.unwrap_or(site::SOURCE)).collect();
        let settings = Settings {
            sources,
            networks: Vec::new(),
            tls: TlsMode::Opportunistic,
            chunking: true,
            max_connections: plan.max_connections,
            queue: plan.queue,
            bounces: Bounces { mode: BounceMode::None, ..Bounces::default() },
            postmaster: None,
            profiles: Profiles::new(&plan.providers),
            rules: Rules::shipped(),
            ids: post.ids(),
            seed: plan.seed,
        };
        let mut core = Core::new(settings, START);
        core.handle(Input::Identity { known: true, helo: "relay.test".into() }, START);
        let mut chance = fastrand::Rng::with_seed(plan.seed);
        World {
            core,
            now: START,
            clock_ahead: 0,
            agenda: Agenda::default(),
            open: BTreeMap::new(),
            sites: (0..).zip(plan.sites).map(|(n, setting)| Site::new(setting, n, chance.u64(..), START)).collect(),
            post,
            work: Work::default(),
            submitted: 0,
            to_come: 0,
            addresses,
            remembered: BTreeMap::new(),
        }
    }

    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// What the relay says of itself.
    pub fn snapshot(&self) -> Snapshot {
        self.core.snapshot(self.clock())
    }

    /// What lanes have learned, as it is kept over a restart.
    pub fn remembered(&self) -> Vec<LaneRecord> {
        let record = |(name, state): (&LaneName, &String)| LaneRecord { name: name.clone(), state: state.clone() };
        self.remembered.iter().map(record).collect()
    }

    /// When the relay expects the mail for a site to be gone, as `status` says it; none: it cannot tell yet.
    pub fn empty_in(&self, site: usize) -> Option<Duration> {
        let snapshot = self.snapshot();
        let empty_at = snapshot.estimates.get(self.sites[site].provider())?.empty_at?;
        Some(empty_at.since(self.clock()))
    }

    /// From now on the relay's clock is wrong by so much.
    pub fn set_clock(&mut self, ahead_millis: i64) {
        let by_millis = ahead_millis - self.clock_ahead;
        self.clock_ahead = ahead_millis;
        // As the engine does, which asks its clock before it tells anything else.
        self.tell(Input::ClockStepped { by_millis });
    }

    /// Hands `count` messages in at once, to a recipient each, spread over the domains of a site.
    pub fn submit(&mut self, site: usize, count: usize, mix: Mix) {
        let clock = self.clock();
        let domains = self.sites[site].domains().to_vec();
        let first = self.submitted;
        self.submitted += count;
        let messages = (first..first + count).map(|n| {
            let domain = &domains[n % domains.len()];
            let (sender, recipient) = (format!("app{}@sender.test", n % 7), format!("u{n}.{}@{domain}", clock.secs()));
            self.post.accept(&sender, &recipient, mix.class(n), clock)
        });
        let messages: Vec<Committed> = messages.collect();
        self.tell(Input::Accepted(messages));
    }

    /// The same, later.
    pub fn submit_at(&mut self, at: Timestamp, site: usize, count: usize, mix: Mix) {
        self.to_come += count;
        self.agenda.plan(at, Event::Arrive { site, count, mix });
    }

    pub fn set_clock_at(&mut self, at: Timestamp, ahead_millis: i64) {
        self.agenda.plan(at, Event::Clock(ahead_millis));
    }

    /// Messages that wait, or have still to come.
    pub fn left(&self) -> usize {
        self.post.len() + self.to_come
    }

    pub fn has_mail(&self) -> bool {
        self.left() > 0
    }

    /// Lets time pass until `end`, or until there is nothing left to do.
    pub fn run(&mut self, end: Timestamp) {
        let mut ticks = 0;
        loop {
            self.carry_out();
            debug_assert_eq!(self.core.snapshot(self.clock()).connections, self.open.len(), "permits and connections");
            let (event, wake) = (self.agenda.next_at(), self.true_time(self.core.next_wake()));
            if self.post.is_empty() && event == Timestamp::NEVER && self.core.is_quiet() {
                return;
            }
            let next = event.min(wake).max(self.now);
            if next > end {
                self.now = self.now.max(end);
                return;
            }
            ticks = if next > self.now || event <= wake { 0 } else { ticks + 1 };
            assert!(ticks < TICKS_MAX, "the core does not sleep: at {} it wants to be woken at {wake}", self.now);
            self.now = next;
            if event > wake {
                self.tell(Input::Tick);
            } else if let Some(event) = self.agenda.pop() {
                self.happen(event);
            }
        }
    }

    /// What the relay's clock shows.
    fn clock(&self) -> Timestamp {
        Timestamp::from_millis(self.now.millis() + self.clock_ahead)
    }

    /// When the relay's clock will show `clock`.
    fn true_time(&self, clock: Timestamp) -> Timestamp {
        if clock == Timestamp::NEVER { clock } else { Timestamp::from_millis(clock.millis() - self.clock_ahead) }
    }

    fn tell(&mut self, input: Input) {
        self.work.wakes += 1;
        self.core.handle(input, self.clock());
    }

    fn plan(&mut self, wait: Duration, event: Event) {
        self.agenda.plan(self.now + wait, event);
    }
}

/// The relay's own addresses: one that needs no name, or several.
fn sources(count: usize) -> Vec<SourceAddress> {
    let source = |name: String, address| SourceAddress { name: name.into(), address, helo: None, warm_up: Vec::new() };
    match count {
        0 | 1 => vec![source("default".into(), None)],
        _ => (1..=count).map(|n| source(format!("s{n}"), Some(site::source(n)))).collect(),
    }
}
