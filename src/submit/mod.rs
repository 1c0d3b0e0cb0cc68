//! Messages that are handed in over HTTP: from a form of JSON, or as they are, to what SMTP would bring.
//!
//! `compose` makes the message, `keys` remembers what was handed in under which key, so that a request that is sent twice makes
//! one message. Who may send what, and how fast, is decided where SMTP decides it.

mod compose;
pub mod keys;
mod raw;

pub use compose::Form;
pub use raw::raw;

use bytes::Bytes;
use serde::Serialize;

use crate::types::QueueId;

/// A message with its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Without angle brackets; empty for none.
    pub sender: String,
    pub recipients: Vec<String>,
    pub content: Bytes,
    /// With its angle brackets.
    pub message_id: Option<String>,
}

/// What becomes of a recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecipientAnswer {
    pub recipient: String,
    /// `queued` or `refused`.
    pub status: &'static str,
    /// The reply that SMTP gives.
    pub reply: String,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Submitted {
    /// Null: nobody was taken.
    pub id: Option<QueueId>,
    pub recipients: Vec<RecipientAnswer>,
}

/// Why a message was not taken at all: the reply that SMTP gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTaken {
    pub code: u16,
    pub text: String,
}
