//! Relays as they are found elsewhere, for comparison: three policies, in the same world of delays, against the same receivers.
//!
//! - *Only retries later*: twenty connections whatever the receiver says; a message that was put off waits as long as it
//!   has waited already, at least 300 and at most 4000 seconds, and is looked for every 300 seconds (the defaults of
//!   Postfix: minimal_backoff_time, maximal_backoff_time, queue_run_delay, default_destination_concurrency_limit).
//! - *Fixed limits, fixed pauses*: the same, but after a refusal one connection and one message a minute for 90 minutes,
//!   then twenty connections again: rules as they are passed around for commercial mailers.
//! - *Steps down and up*: it begins with as much as it likes (100 a second), sends a tenth less after each refusal, and a tenth more
//!   after each ten minutes without one, as KumoMTA's `AdjustConfig` does with a rate (decrease_percent, ramp_up_interval, ramp_step_percent).
//!
//! What got a 5xx is lost: none sends it again. Who was refused [`REFUSED_MAX`] times as often as it has messages is not waited for
//! any longer: such a sender was blocked long ago.

use std::time::Duration;

use weir::outbound::Outcome;
use weir::simulate::{Mail, SessionId};
use weir::types::Timestamp;

use super::arrival::Arrival;
use super::world::site::{Connected, SOURCE};
use super::world::{Agenda, LEAVE, SIZE_BYTES, START, Site};

const CONNECTIONS: usize = 20;
const BACKOFF_MIN: Duration = Duration::from_secs(300);
const BACKOFF_MAX: Duration = Duration::from_secs(4000);
const QUEUE_RUN: Duration = Duration::from_secs(300);
const SLOW_FOR: Duration = Duration::from_secs(90 * 60);
const SLOW_EVERY: Duration = Duration::from_secs(60);

/// Messages a second.
const RATE_MAX: f64 = 100.0;
const RATE_MIN: f64 = 1.0 / 3600.0;
const STEP_DOWN: f64 = 0.9;
const STEP_UP: f64 = 1.1;
const STEP_UP_AFTER: Duration = Duration::from_secs(600);

/// Refusals for each message of the backlog, after which nobody goes on looking.
const REFUSED_MAX: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    RetriesLater,
    FixedPauses,
    Steps,
}

impl Policy {
    pub const ALL: [Policy; 3] = [Policy::RetriesLater, Policy::FixedPauses, Policy::Steps];

    pub fn name(self) -> &'static str {
        match self {
            Policy::RetriesLater => "only retries later",
            Policy::FixedPauses => "fixed limits, fixed pauses",
            Policy::Steps => "steps down and up",
        }
    }
}

struct Sender<'a> {
    policy: Policy,
    site: &'a mut Site,
    now: Timestamp,
    /// Messages by the time of their next attempt.
    waiting: Agenda<usize>,
    /// When each message came.
    came: Vec<Timestamp>,
    left: usize,
    /// How often it may still be refused.
    patience: usize,
    places: Agenda<Place>,
    slow_until: Timestamp,
    steps: Steps,
}

/// A rate that goes by steps.
struct Steps {
    per_second: f64,
    /// Since when there was neither a refusal nor a step up.
    quiet_since: Timestamp,
    /// When the next message may go.
    next: Timestamp,
}

impl Steps {
    fn refused(&mut self, now: Timestamp) {
        self.per_second = (self.per_second * STEP_DOWN).max(RATE_MIN);
        self.quiet_since = now;
    }

    /// None: a message may go now. Else: when.
    fn wait(&mut self, now: Timestamp) -> Option<Timestamp> {
        while now.since(self.quiet_since) >= STEP_UP_AFTER {
            self.quiet_since = self.quiet_since + STEP_UP_AFTER;
            self.per_second = (self.per_second * STEP_UP).min(RATE_MAX);
        }
        if self.next > now {
            return Some(self.next);
        }
        self.next = now + Duration::from_secs_f64(self.per_second.recip());
        None
    }
}

/// One of the connections that may stand at a time.
struct Place {
    number: usize,
    session: Option<SessionId>,
    /// The message it is busy with.
    message: Option<usize>,
    /// What it hears at this moment.
    heard: Hearing,
}

enum Hearing {
    Nothing,
    /// Refused at the greeting.
    Greeting,
    /// Nobody answered.
    Silence,
    Reply {
        outcome: Option<Outcome>,
        closed: bool,
    },
}

/// Sends a backlog until all of it has come to its end, or the time is over; what is left is returned.
pub fn drain(policy: Policy, site: &mut Site, arrivals: &[Arrival], end: Timestamp) -> usize {
    let mut waiting = Agenda::default();
    let batches = arrivals.iter().flat_map(Arrival::batches);
    let came: Vec<Timestamp> = batches.flat_map(|(after, count)| std::iter::repeat_n(START + after, count)).collect();
    came.iter().enumerate().for_each(|(n, at)| waiting.plan(*at, n));
    let messages = came.len();
    let mut places = Agenda::default();
    for number in 0..CONNECTIONS {
        places.plan(START, Place { number, session: None, message: None, heard: Hearing::Nothing });
    }
    let mut sender = Sender {
        policy,
        site,
        now: START,
        waiting,
        came,
        left: messages,
        patience: messages * REFUSED_MAX,
        places,
        slow_until: START,
        steps: Steps { per_second: RATE_MAX, quiet_since: START, next: START },
    };
    sender.run(end);
    sender.left
}

impl Sender<'_> {
    fn run(&mut self, end: Timestamp) {
        while self.left > 0 && self.patience > 0 && self.places.next_at() <= end {
            self.now = self.places.next_at();
            let Some(mut place) = self.places.pop() else { return };
            self.listen(&mut place);
            self.go_on(place);
        }
    }

    /// Takes what has just been heard.
    fn listen(&mut self, place: &mut Place) {
        match std::mem::replace(&mut place.heard, Hearing::Nothing) {
            Hearing::Nothing => {}
            Hearing::Greeting => {
                self.site.closed(None, self.now);
                self.refused(place);
            }
            Hearing::Silence => self.put_off(place),
            Hearing::Reply { outcome, closed } => {
                match outcome {
                    Some(Outcome::Replied { reply, .. }) if reply.is_transient() => self.refused(place),
                    Some(Outcome::Replied { reply, .. }) if reply.is_permanent() => {
                        self.slow_down();
                        self.ended(place);
                    }
                    Some(Outcome::Replied { .. }) => self.ended(place),
                    _ => self.put_off(place),
                }
                if closed {
                    self.hang_up(place);
                }
            }
        }
    }

    fn go_on(&mut self, mut place: Place) {
        let slow = self.now < self.slow_until;
        if slow && place.number > 0 {
            self.hang_up(&mut place);
            let until = self.slow_until;
            return self.places.plan(until, place);
        }
        if place.message.is_none() {
            let due = self.waiting.next_at();
            if due > self.now {
                self.hang_up(&mut place);
                let again = due.min(self.now + QUEUE_RUN);
                return self.places.plan(again, place);
            }
            place.message = self.waiting.pop();
        }
        let Some(message) = place.message else { return };
        if self.policy == Policy::Steps
            && place.session.is_some()
            && let Some(until) = self.steps.wait(self.now)
        {
            return self.places.plan(until, place);
        }
        let wait = match place.session {
            Some(session) => self.transact(&mut place, session, message),
            None => self.connect(&mut place),
        };
        let pause = if slow && place.session.is_some() && !matches!(place.heard, Hearing::Nothing) {
            SLOW_EVERY
        } else {
            Duration::ZERO
        };
        self.places.plan(self.now + wait.max(pause), place);
    }

    fn connect(&mut self, place: &mut Place) -> Duration {
        match self.site.connect(SOURCE, self.site.address(), self.now) {
            Connected::Open { session, wait } => {
                place.session = Some(session);
                wait
            }
            Connected::Refused { wait, .. } => {
                place.heard = Hearing::Greeting;
                wait
            }
            Connected::Silent { wait } => {
                place.heard = Hearing::Silence;
                wait
            }
        }
    }

    fn transact(&mut self, place: &mut Place, session: SessionId, message: usize) -> Duration {
        let identity = message.to_string();
        let mail = Mail { sender: "app@sender.test", size_bytes: Some(SIZE_BYTES), identity: Some(&identity) };
        let recipient = format!("u{message}@{}", self.site.domains()[0]);
        let mut heard = self.site.transact(session, &mail, &[&recipient], self.now);
        place.heard = Hearing::Reply { outcome: heard.outcomes.pop(), closed: heard.closed };
        heard.wait
    }

    fn refused(&mut self, place: &mut Place) {
        self.patience = self.patience.saturating_sub(1);
        self.slow_down();
        self.put_off(place);
    }

    fn slow_down(&mut self) {
        match self.policy {
            Policy::RetriesLater => {}
            Policy::FixedPauses => self.slow_until = self.now + SLOW_FOR,
            Policy::Steps => self.steps.refused(self.now),
        }
    }

    fn put_off(&mut self, place: &mut Place) {
        let Some(message) = place.message.take() else { return };
        let backoff = self.now.since(self.came[message]).clamp(BACKOFF_MIN, BACKOFF_MAX);
        let runs = (self.now + backoff).since(START).as_secs().div_ceil(QUEUE_RUN.as_secs());
        self.waiting.plan(START + Duration::from_secs(runs * QUEUE_RUN.as_secs()), message);
    }

    fn ended(&mut self, place: &mut Place) {
        place.message = None;
        self.left -= 1;
    }

    fn hang_up(&mut self, place: &mut Place) {
        if let Some(session) = place.session.take() {
            // The farewell is not waited for: the place is not used again before it is over.
            self.site.closed(Some(session), self.now + LEAVE);
        }
    }
}
