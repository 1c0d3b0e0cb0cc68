//! A receiver in the world: its domains and hosts, the simulator's model behind them, and what goes wrong on the way there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use weir::outbound::Outcome;
use weir::route::{Host, Route};
use weir::simulate::{Judgement, Limits, Mail, Profile, Receiver, Said, SessionId};
use weir::types::{Domain, Reply, Stage, Timestamp};

use super::LEAVE;

/// How long a route is good: short, as large receivers publish theirs.
const ROUTE_VALID: Duration = Duration::from_secs(220);
/// How long a relay waits for a host that does not answer.
const DEAD_AFTER: Duration = Duration::from_secs(30);
/// The relay's own address, as receivers see it, if it has only one.
pub const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// One of several, from 1 on.
pub fn source(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, u8::try_from(number).unwrap_or(u8::MAX)))
}

/// Octets of every message.
pub const SIZE_BYTES: u64 = 10_000;

/// What goes wrong on the way, as shares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// A connection never comes to be.
    pub unreachable: f64,
    /// A connection breaks in the middle of a transaction, before the content.
    pub lost: f64,
    /// A connection breaks behind the content: nobody knows.
    pub doubt: f64,
    /// The receiver closes a connection that has had nothing to do for some seconds.
    pub idle_closed: f64,
}

impl Faults {
    pub fn check(&self) -> Result<(), String> {
        let shares = [self.unreachable, self.lost, self.doubt, self.idle_closed];
        match shares.iter().all(|share| (0.0..=1.0).contains(share)) {
            true => Ok(()),
            false => Err("faults: write shares, numbers from 0 to 1".into()),
        }
    }
}

/// A receiver, as it is described.
#[derive(Clone)]
pub struct Setting {
    pub provider: Arc<str>,
    pub profile: Profile,
    pub domains: Vec<Domain>,
    /// MX hosts; the domains have one each, and share them in turn where there are fewer.
    pub mx_sets: usize,
    /// Addresses of each host.
    pub addresses: u8,
    pub faults: Faults,
}

pub struct Site {
    provider: Arc<str>,
    domains: Vec<Domain>,
    /// Where each domain stands among them.
    places: BTreeMap<Domain, usize>,
    /// One for each MX set.
    hosts: Vec<Host>,
    addresses: BTreeSet<IpAddr>,
    faults: Faults,
    receiver: Receiver,
    chance: fastrand::Rng,
    open: usize,
    /// Connections at a time, from the first packet until the receiver has closed, also those it refused.
    pub peak: usize,
    /// Connections that were open when the receiver first said that it blocks.
    pub open_at_block: Option<usize>,
    /// When each transaction was refused with a 5xx, in order.
    pub lost: Vec<Timestamp>,
    /// When each message was accepted.
    pub accepted: Vec<Timestamp>,
    /// Looked at only where somebody asked for it.
    watch: Option<Watch>,
}

/// How long nobody tried although the receiver would have taken mail, and how long it would not.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// The last attempt of any source.
    last: Timestamp,
    pub idle: Duration,
    pub shut: Duration,
    shut_since: Option<Timestamp>,
}

/// A stretch without attempts is looked into at so many moments, if it is longer than that.
const WATCHED_AT: u32 = 60;
const WATCHED_FROM: Duration = Duration::from_secs(60);

/// What came of a connection.
pub enum Connected {
    Open {
        session: SessionId,
        wait: Duration,
    },
    /// Closed with this greeting.
    Refused {
        reply: Reply,
        wait: Duration,
    },
    /// Nobody answered.
    Silent {
        wait: Duration,
    },
}

/// What came of a transaction.
pub struct Heard {
    /// One for each recipient.
    pub outcomes: Vec<Outcome>,
    pub wait: Duration,
    /// The connection is gone.
    pub closed: bool,
}

/// How fast one connection can go, with the delays of a receiver.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Opening a connection and taking leave of it.
    around: Duration,
    transaction: Duration,
}

impl Site {
    /// `number` keeps the addresses of sites apart.
    pub fn new(setting: Setting, number: u8, seed: u64, start: Timestamp) -> Site {
        let host = |(n, domain): (u16, &Domain)| {
            let [high, low] = n.to_be_bytes();
            let address = |last| ([10 + high, number, low, last], 25).into();
            Host {
                name: format!("mx.{domain}").into(),
                preference: 10,
                addresses: (0..setting.addresses.max(1)).map(address).collect(),
                provider: setting.provider.clone(),
            }
        };
        let hosts: Vec<Host> = (0..).zip(&setting.domains).take(setting.mx_sets.max(1)).map(host).collect();
        Site {
            addresses: hosts.iter().flat_map(|host| &host.addresses).map(|address| address.ip()).collect(),
            hosts,
            places: setting.domains.iter().cloned().zip(0..).collect(),
            provider: setting.provider,
            domains: setting.domains,
            faults: setting.faults,
            receiver: Receiver::new(setting.profile, seed, start),
            chance: fastrand::Rng::with_seed(seed),
            open: 0,
            peak: 0,
            open_at_block: None,
            lost: Vec::new(),
            accepted: Vec::new(),
            watch: None,
        }
    }

    pub fn provider(&self) -> &Arc<str> {
        &self.provider
    }

    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// The simulator's own count.
    pub fn judgement(&self) -> &Judgement {
        self.receiver.judgement()
    }

    /// What the receiver takes now.
    pub fn limits(&self, now: Timestamp) -> Limits {
        self.receiver.limits_at(now)
    }

    /// Connections that stand now, as the receiver counts them.
    pub fn open(&self) -> usize {
        self.open
    }

    /// The address of a host: where a sender goes that does not look anything up.
    pub fn address(&self) -> IpAddr {
        self.hosts.first().and_then(|host| host.addresses.first()).map_or(SOURCE, |address| address.ip())
    }

    pub fn has_host(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    /// Where mail for `domain` goes, if it is one of this receiver's. `clock` is what the relay's clock shows.
    pub fn route(&self, domain: &Domain, clock: Timestamp) -> Option<Route> {
        let place = self.places.get(domain)? % self.hosts.len().max(1);
        let hosts = vec![self.hosts.get(place)?.clone()];
        Some(Route {
            hosts,
            valid_until: clock + ROUTE_VALID,
            fixed: false,
            limits_named: false,
            access: None,
            demand: None,
            sts: None,
        })
    }

    pub fn watch(&mut self, start: Timestamp) {
        self.watch = Some(Watch { last: start, idle: Duration::ZERO, shut: Duration::ZERO, shut_since: None });
    }

    pub fn watched(&self) -> Option<Watch> {
        self.watch
    }

    /// Somebody tries: what was it like since the last time?
    pub fn look_back(&mut self, sources: &[IpAddr], now: Timestamp) {
        let Some(mut watch) = self.watch else { return };
        let gap = now.since(watch.last);
        if gap > WATCHED_FROM {
            let mut open_since = None;
            for step in 1..=WATCHED_AT {
                let at = watch.last + gap * step / WATCHED_AT;
                if sources.iter().any(|source| self.receiver.would_take(*source, at)) {
                    watch.shut_since = None;
                    watch.idle = watch.idle.max(at.since(*open_since.get_or_insert(at)));
                } else {
                    open_since = None;
                    watch.shut = watch.shut.max(at.since(*watch.shut_since.get_or_insert(watch.last)));
                }
            }
        } else if watch.shut_since.is_some() && sources.iter().any(|source| self.receiver.would_take(*source, now)) {
            watch.shut_since = None;
        }
        watch.last = now;
        self.watch = Some(watch);
    }

    /// The relay connects from one of its addresses; whatever comes of it, `closed` must follow when its end is closed.
    pub fn connect(&mut self, source: IpAddr, address: IpAddr, now: Timestamp) -> Connected {
        if self.likely(self.faults.unreachable) {
            return Connected::Silent { wait: DEAD_AFTER };
        }
        let (session, said) = self.receiver.connect(source, &address.to_string(), now);
        let reply = match (session, said.reply) {
            (_, None) => return Connected::Silent { wait: if said.closes { said.after } else { DEAD_AFTER } },
            (Some(session), Some(_)) => {
                self.count_open();
                let wait = said.after + self.receiver.ehlo(session, "relay.test", now).after;
                return Connected::Open { session, wait };
            }
            (None, Some(reply)) => reply,
        };
        self.count_open();
        Connected::Refused { reply, wait: said.after }
    }

    fn count_open(&mut self) {
        self.open += 1;
        self.peak = self.peak.max(self.open);
    }

    /// One message in one flight: MAIL, RCPT, the content.
    pub fn transact(&mut self, session: SessionId, mail: &Mail<'_>, recipients: &[&str], now: Timestamp) -> Heard {
        let mut heard = Heard { outcomes: Vec::new(), wait: Duration::ZERO, closed: false };
        let said = self.receiver.mail(session, mail, now);
        let refused = !said.reply.as_ref().is_some_and(Reply::is_positive);
        heard.hear(&said);
        // What was sent behind it is read all the same, and answered in vain.
        let mut answers: Vec<Said> = Vec::new();
        for recipient in recipients {
            if !heard.closed {
                answers.push(self.receiver.rcpt(session, recipient, now));
                answers.last().into_iter().for_each(|said| heard.hear(said));
            }
        }
        heard.outcomes = match (refused, said.reply) {
            (true, reply) => recipients.iter().map(|_| replied(Stage::Mail, reply.clone())).collect(),
            (false, _) => self.content(session, recipients.len(), answers, &mut heard, now),
        };
        for outcome in &heard.outcomes {
            if matches!(outcome, Outcome::Replied { reply, .. } if reply.is_permanent()) {
                self.lost.push(now);
                self.open_at_block.get_or_insert(self.open);
            }
        }
        heard
    }

    /// The content, for those that were accepted.
    fn content(
        &mut self,
        session: SessionId,
        recipients: usize,
        answers: Vec<Said>,
        heard: &mut Heard,
        now: Timestamp,
    ) -> Vec<Outcome> {
        let replies: Vec<Option<Reply>> = answers.into_iter().map(|said| said.reply).collect();
        let accepted = |reply: &Option<Reply>| reply.as_ref().is_some_and(Reply::is_positive);
        let anyone = replies.iter().any(accepted);
        if !anyone && !heard.closed {
            // As the relay does: what was begun is taken back before the next one.
            heard.hear(&self.receiver.reset(session, now));
        }
        let is_lost = anyone && self.likely(self.faults.lost);
        heard.closed |= is_lost;
        let end = (anyone && !is_lost).then(|| self.receiver.data_end(session, SIZE_BYTES, now));
        // A 5xx is always read here: of one that was not, nobody could demand that it be obeyed.
        let is_final = end.as_ref().is_some_and(|said| said.reply.as_ref().is_some_and(Reply::is_permanent));
        let in_doubt = end.is_some() && !is_final && self.likely(self.faults.doubt);
        if let Some(end) = &end {
            heard.hear(end);
            heard.closed |= in_doubt;
        }
        let end = end.and_then(|said| said.reply);
        if end.as_ref().is_some_and(Reply::is_positive) {
            self.accepted.push(now + heard.wait);
        }
        let outcome = |n: usize| match replies.get(n).cloned().flatten() {
            Some(reply) if reply.is_positive() && in_doubt => {
                Outcome::InDoubt { text: "no answer to the end of data".into() }
            }
            Some(reply) if reply.is_positive() => replied(Stage::Data, end.clone()),
            reply => replied(Stage::Rcpt, reply),
        };
        (0..recipients).map(outcome).collect()
    }

    /// The relay's end of a connection is closed; without a session one that was refused.
    pub fn closed(&mut self, session: Option<SessionId>, now: Timestamp) {
        self.open -= 1;
        if let Some(session) = session {
            self.receiver.lost(session, now);
        }
    }

    /// After how long the receiver closes a connection that has become idle just now, if it does.
    pub fn idle_patience(&mut self) -> Option<Duration> {
        self.likely(self.faults.idle_closed).then(|| Duration::from_millis(self.chance.u64(100..8000)))
    }

    fn likely(&mut self, share: f64) -> bool {
        share > 0.0 && self.chance.f64() < share
    }
}

impl Heard {
    fn hear(&mut self, said: &Said) {
        self.wait += said.after;
        self.closed |= said.closes;
    }
}

fn replied(stage: Stage, reply: Option<Reply>) -> Outcome {
    match reply {
        Some(reply) => Outcome::Replied { stage, reply },
        None => Outcome::Unsaid { stage, text: "the connection ended".into() },
    }
}

impl Pace {
    /// The mean delays: MAIL and RCPT, then the answer to the content.
    pub fn of(profile: &Profile) -> Pace {
        let latency = profile.latency;
        Pace {
            around: latency.connect.0 + latency.command.0 + LEAVE,
            transaction: latency.command.0 * 2 + latency.data.0,
        }
    }

    /// What one place for a connection carries, if each connection in it may carry so many messages.
    pub fn messages_per_second(&self, messages_per_connection: Option<u32>) -> f64 {
        let each = match messages_per_connection {
            Some(messages) => self.around.as_secs_f64() / f64::from(messages.max(1)),
            None => 0.0,
        };
        // A receiver without delays is not faster than a million messages a second.
        (self.transaction.as_secs_f64() + each).max(1e-6).recip()
    }
}
