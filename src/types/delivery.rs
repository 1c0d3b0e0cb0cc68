//! A delivery: the recipients of one message in one domain, and how far they have come.
//!
//! Only recipients without a final outcome stand in a delivery. When the last one is settled the delivery is gone, and
//! with the last delivery the message.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Class, DeliveryId, Domain, Mailbox, NextHop, Recipient, Timestamp};

#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub id: DeliveryId,
    pub domain: Domain,
    pub recipients: Vec<Recipient>,
    pub state: DeliveryState,
    /// Tries that ended in a deferral. What the lane holds back counts none.
    pub attempts: u32,
    /// None: not tried yet, due at once.
    pub next_attempt: Option<Timestamp>,
    /// The report of RFC 3461 section 4.1 NOTIFY=DELAY was sent.
    pub delay_reported: bool,
    /// Why it waits, once there was a try.
    pub refusal: Option<Refusal>,
    /// Refused for good in an attempt that goes on; they stand in the report at its end.
    pub failed: Vec<Failed>,
    /// An operator sends it there instead of to the MX hosts of its domain.
    pub next_hop: Option<NextHop>,
    /// What this copy has of its own; then it has one recipient. Decided when the message came in, so that every attempt sends the same.
    pub own: Option<Arc<Own>>,
}

/// What one recipient's copy of a message has that no other has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// In place of the sender in MAIL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_path: Option<Mailbox>,
    /// Fields before the content, with their signatures; ends of lines are CRLF.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub header: String,
}

/// A recipient that will not be reached, and what its sender is told about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub recipient: Recipient,
    /// RFC 3463.
    pub status: String,
    /// The receiver's words, if it was the receiver that refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx: Option<String>,
    /// What happened, for a person.
    pub cause: String,
    /// What to do, for a person.
    pub remedy: String,
    /// What weir does about it; empty where there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub does: String,
}

/// What `queue list` shows; `active` is known to the running relay alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    Waiting,
    Held,
}

/// The last thing that kept a delivery from its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    pub at: Timestamp,
    /// The receiver's words (`451 4.7.650 …`), or what went wrong on the way (`connect to 192.0.2.1:25: timed out`).
    pub reply: String,
    pub class: Class,
    /// The rule that read the reply.
    pub rule: String,
    pub provider: String,
    pub source: String,
    /// The MX host that spoke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mx: Option<String>,
}
