//! What goes into the core of dispatch and what comes out: values, no effects.

use std::sync::Arc;

use bytes::Bytes;

use super::doubt::Relist;
use super::passed_on::{Offered, PassedOn};
use crate::outbound::{Bdat, OpenError, Outcome, Plan};
use crate::queue::{Keys, Lifetime, RecipientKey};
use crate::route::{Route, Unroutable};
use crate::spool::{Change, Committed, Stored};
use crate::suppress::Hit;
use crate::throttle::{HoldSender, LaneOrder, LaneRecord};
use crate::types::{
    Alert, Body, Class, Delivery, DeliveryId, Domain, Envelope, Mailbox, NamedLimits, NextHop, Priority, Recipient,
    Submitter, Timestamp,
};

/// Numbers a connection from the decision to open it until its socket is closed.
pub type ConnectionId = u64;

/// Numbers a command of an operator until it is answered.
pub type Ticket = u64;

/// Something happened.
#[derive(Debug)]
pub enum Input {
    /// Messages that were just committed.
    Accepted(Vec<Committed>),
    /// Deliveries read back from the spool, at start and later when their time comes near.
    Loaded(Vec<Row>),
    /// From now until the matching `ReadEnd` rows read from the spool may be on their way: what ends meanwhile is not taken again.
    ReadBegin,
    ReadEnd,
    Routed {
        domain: Domain,
        result: Result<Route, Unroutable>,
    },
    /// A connection stands; its first transaction has begun.
    Opened {
        connection: ConnectionId,
        /// What the host has said of its limits.
        limits: NamedLimits,
    },
    /// No connection came to be, and its socket is closed.
    OpenFailed {
        connection: ConnectionId,
        error: OpenError,
    },
    Done {
        connection: ConnectionId,
        done: Done,
    },
    /// The socket is closed. Also for connections whose end nobody asked for.
    Closed {
        connection: ConnectionId,
    },
    Fetched {
        id: DeliveryId,
        stored: Option<Box<Fetched>>,
    },
    /// The suppression list knows of this refusal.
    Suppressed {
        key: RecipientKey,
        /// The recipient came onto the list with it.
        listed: bool,
    },
    Command {
        ticket: Ticket,
        adjust: Adjust,
        rows: Vec<Row>,
    },
    /// An operator's order to all lanes of a provider.
    Lane {
        ticket: Ticket,
        provider: Arc<str>,
        order: LaneOrder,
    },
    /// An operator's order to the mail of one recipient domain.
    LaneDomain {
        ticket: Ticket,
        domain: Domain,
        order: LaneOrder,
    },
    /// Mail of a sender domain waits at a provider until then, or is let go again.
    HoldSender(HoldSender),
    /// An operator's order to everything.
    LaneAll {
        ticket: Ticket,
        order: LaneOrder,
    },
    /// Drop what was learned of a provider's limits, in all its lanes or that of one source.
    Forget {
        ticket: Ticket,
        provider: Arc<str>,
        source: Option<Arc<str>>,
    },
    /// Deliveries that an operator sends another way.
    Reroute {
        ticket: Ticket,
        to: NextHop,
        rows: Vec<Row>,
    },
    /// The addresses of an operator's next hop, for one domain's mail.
    HopRouted {
        domain: Domain,
        hop: NextHop,
        result: Result<Route, Unroutable>,
    },
    /// May mail leave for the public Internet? Not while we do not know our own name.
    Identity {
        known: bool,
        helo: Arc<str>,
    },
    /// Can outcomes be recorded?
    SpoolHealth(bool),
    /// Is the system short of memory? Then next to nothing that can be read back is kept.
    MemoryShort(bool),
    /// Of what was loaded: put off only because no host could be found or reached.
    Unreached(Vec<DeliveryId>),
    /// The wall clock was set, forward or back, while the relay runs. Told before anything that happened since.
    ClockStepped {
        by_millis: i64,
    },
    /// Time passed.
    Tick,
    /// Begin nothing new.
    Stop,
}

/// A delivery in numbers, as the spool gives it back.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: DeliveryId,
    pub domain: Domain,
    pub held: bool,
    pub attempts: u32,
    pub next_attempt: Option<Timestamp>,
    pub lifetime: Lifetime,
    /// The sender wants to hear if it is late then.
    pub late_at: Option<Timestamp>,
    pub delay_reported: bool,
    pub recipients: Keys,
    pub flow: u32,
    pub sender_domain: Option<Domain>,
    pub class: Priority,
    pub next_hop: Option<NextHop>,
}

/// What an operator wants done with deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjust {
    /// Due now; lifts no limit and no block.
    Flush,
    Hold,
    Release,
    /// Return to the sender.
    Bounce,
    /// Drop in silence (an event alone).
    Remove,
}

/// One transaction to hold.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: DeliveryId,
    /// If it need not be read back.
    pub message: Option<Arc<Committed>>,
    /// Whom to offer, where an attempt goes on; none: all that are left, as the spool has them.
    pub recipients: Option<Vec<Recipient>>,
    pub recipients_max: usize,
    /// BDAT may be used where the host offers it.
    pub chunking: bool,
}

/// What became of a job.
#[derive(Debug)]
pub enum Done {
    /// The spool has no such delivery (any more).
    Missing {
        reusable: bool,
    },
    /// The connection ended before the job reached it, its outcome could not have been recorded, or a stop ended it before anything
    /// was decided.
    NotStarted,
    /// It could not be read.
    Unreadable {
        reusable: bool,
    },
    Held(Box<Transacted>),
}

#[derive(Debug)]
pub struct Transacted {
    pub envelope: Arc<Envelope>,
    /// As it stood before, if it was read or fresh; none where an attempt goes on.
    pub delivery: Option<Delivery>,
    /// Recipients with what became of each.
    pub results: Vec<(Recipient, Resolved)>,
    /// Not offered: there were more than the grant allowed.
    pub rest: Vec<Recipient>,
    pub reusable: bool,
    pub offered: Offered,
    pub bdat: Bdat,
    pub tls: Arc<str>,
    /// For reports, where any may be due.
    pub excerpt: Option<Excerpt>,
}

impl Transacted {
    /// Something was not delivered, or somebody wants to hear that it was.
    pub fn may_need_report(&self) -> bool {
        self.results.iter().any(|(recipient, resolved)| match resolved {
            Resolved::Outcome(Outcome::Replied { reply, .. }) if reply.is_positive() => {
                PassedOn::why(&recipient.notify, self.envelope.requests.by, self.offered).is_some()
            }
            _ => true,
        })
    }
}

/// What became of one recipient.
#[derive(Debug)]
pub enum Resolved {
    Outcome(Outcome),
    /// Came onto the suppression list while it waited: not offered.
    Suppressed {
        class: Class,
        reply: String,
    },
}

/// A delivery read back to be settled without a transaction.
#[derive(Debug)]
pub struct Fetched {
    pub stored: Stored,
    pub excerpt: Excerpt,
}

/// The beginning of a message, for the report that returns it.
#[derive(Clone, Debug, Default)]
pub struct Excerpt {
    pub bytes: Bytes,
    /// Nothing is missing at the end.
    pub complete: bool,
}

impl Excerpt {
    /// More than this of a message is not returned.
    pub const MAX_BYTES: usize = 64 * 1024;

    /// Of a body in memory; a file must be read by the caller.
    pub fn of(body: &Body) -> Option<Excerpt> {
        match body {
            Body::Inline(bytes) => {
                let end = bytes.len().min(Excerpt::MAX_BYTES);
                Some(Excerpt { bytes: bytes.slice(..end), complete: end == bytes.len() })
            }
            Body::File { .. } | Body::Headed { .. } => None,
        }
    }
}

/// Something to do.
#[derive(Debug)]
pub enum Action {
    Resolve(Domain),
    /// The same, asking the name servers again: what was known led to the wrong hosts.
    ResolveAfresh(Domain),
    /// Find the addresses of an operator's next hop, then say `HopRouted`.
    ResolveHop {
        domain: Domain,
        hop: NextHop,
    },
    /// Connect, and hold the job's transaction on the new connection.
    Open {
        connection: ConnectionId,
        plan: Plan,
        job: Job,
    },
    /// Hold a transaction on an idle connection.
    Start {
        connection: ConnectionId,
        job: Job,
    },
    /// Take leave of the peer and close the socket.
    Close {
        connection: ConnectionId,
    },
    Fetch {
        id: DeliveryId,
    },
    /// All of it or nothing.
    Commit(Vec<Change>),
    /// Tell the suppression list of a refusal, then say `Suppressed`.
    Suppress {
        hit: Box<Hit>,
        key: RecipientKey,
    },
    /// What a receiver said of others has changed what is known of these, who came onto the list by its words.
    Relist {
        whom: Vec<(Mailbox, Relist)>,
        /// Under which they stand there until now, if provisionally.
        wave: Arc<str>,
    },
    /// A user or client of ours seems to guess names: its mail is to come slowly until then.
    Slow {
        who: Submitter,
        reason: String,
        until: Timestamp,
    },
    /// A receiver's answer put a message off with its lane: no attempt is counted, so no event tells of it.
    Throttled {
        provider: Arc<str>,
        class: Class,
    },
    /// Read what is due before then from the spool.
    Load {
        until: Timestamp,
    },
    /// Read the whole queue again: what lies on disk alone may have moments of a clock that was ahead.
    LoadAll,
    /// A command is carried out, but for the deliveries that were left alone.
    Answer {
        ticket: Ticket,
        left_alone: Vec<DeliveryId>,
    },
    /// An order to lanes is carried out: what changed, or why nothing could.
    LaneAnswer {
        ticket: Ticket,
        answer: Result<Vec<String>, String>,
    },
    /// A state that a person should know of, or its end.
    Alert(Alert),
    /// Keep these for the next start.
    Remember(Vec<LaneRecord>),
    /// A person should look, once.
    Warn(String),
}
