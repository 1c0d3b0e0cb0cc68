//! What happened, for the event log: one value a line (see `docs/events.md`).
//!
//! Rules that always hold: `accepted` comes once a message; exactly one of `delivered`, `bounced`, `expired`, `removed`
//! ends each accepted recipient. Only the event writer turns these into text.

use std::net::IpAddr;
use std::sync::Arc;

use super::reading::words;
use super::{Class, QueueId, Timestamp};

words! {
    EventKind {
        Accepted = "accepted",
        Delivered = "delivered",
        Deferred = "deferred",
        Bounced = "bounced",
        Expired = "expired",
        Removed = "removed",
        /// A suppressed recipient, refused at RCPT.
        Refused = "refused",
        /// An address came onto the suppression list.
        Suppressed = "suppressed",
        Throttled = "throttled",
        Blocked = "blocked",
        Paused = "paused",
        Resumed = "resumed",
        /// A report after the 250: the message did not arrive.
        Returned = "returned",
        /// The recipient called the message unwanted.
        Complained = "complained",
        /// The recipient asked to get no more.
        Unsubscribed = "unsubscribed",
        /// An answer that changes nothing.
        Feedback = "feedback",
        /// A person should look.
        Alert = "alert",
    }
}

/// One line of the event log. What does not apply is `None` and written as null, or left out where `docs/events.md` says so.
#[derive(Clone, Debug)]
pub struct Event {
    pub time: Timestamp,
    pub kind: EventKind,
    pub id: Option<QueueId>,
    pub sender: Option<Arc<str>>,
    pub recipient: Option<String>,
    pub provider: Option<Arc<str>>,
    pub source: Option<Arc<str>>,
    pub mx: Option<Arc<str>>,
    pub reply: Option<String>,
    pub class: Option<Class>,
    pub message_id: Option<String>,
    pub user: Option<String>,
    pub client: Option<IpAddr>,
    pub attempt: Option<u32>,
    pub rule: Option<Arc<str>>,
    pub verdict: Option<&'static str>,
    /// Milliseconds from acceptance to this event.
    pub delay_ms: Option<u64>,
    /// `TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768 verified`; `Some("none")` for clear text.
    pub tls: Option<Arc<str>>,
    /// How many recipients (`accepted`).
    pub recipients: Option<usize>,
    pub size_bytes: Option<u64>,
    /// For a person (`alert`, lane events).
    pub text: Option<String>,
    pub remedy: Option<String>,
    /// Message-ID of the report (events of answers).
    pub report: Option<String>,
    /// Fields of this event that were found out and not said, parted by commas.
    pub derived: Option<Arc<str>>,
}

impl Event {
    pub fn new(time: Timestamp, kind: EventKind) -> Event {
        Event {
            time,
            kind,
            id: None,
            sender: None,
            recipient: None,
            provider: None,
            source: None,
            mx: None,
            reply: None,
            class: None,
            message_id: None,
            user: None,
            client: None,
            attempt: None,
            rule: None,
            verdict: None,
            delay_ms: None,
            tls: None,
            recipients: None,
            size_bytes: None,
            text: None,
            remedy: None,
            report: None,
            derived: None,
        }
    }
}
