//! The seam behind the front door: where accepted messages go, and what is known about recipients.

use std::future::Future;
use std::net::IpAddr;

use crate::types::{Class, Envelope, Mailbox, QueueId, Recipient, ReversePath, Timestamp};

/// Takes messages. The spool with the suppression list behind it; a list in memory in tests.
pub trait Intake: Send + Sync + 'static {
    type Body: BodySink;
    /// Room that is set aside for a message; given back on drop.
    type Space: Send;

    /// The id of a message that begins to arrive.
    fn next_id(&self, now: Timestamp) -> QueueId;

    /// Is there room for a message of `size_bytes` (0: not announced)? Asked at MAIL; `Err` becomes `452 4.3.1`.
    fn room(&self, size_bytes: u64) -> Result<(), NoRoom>;

    /// The same, and keeps the room for a message that is about to come. It may turn out to be larger than it was announced. None: no
    /// room is kept before something comes.
    fn set_aside(&self, size_bytes: Option<u64>) -> Result<Self::Space, NoRoom>;

    /// What becomes of mail from this sender to this recipient. Asked at RCPT, so it must answer at once.
    fn standing(&self, recipient: &Mailbox, sender: &ReversePath) -> Standing;

    /// May an answer to our mail come to this address? None: it is no address for answers. Asked at RCPT, so it must answer at once.
    fn way_back(&self, recipient: &Mailbox) -> Option<WayBack> {
        let _ = recipient;
        None
    }

    /// A suppressed recipient was refused at RCPT.
    fn refused(&self, refusal: RefusedRecipient<'_>);

    /// Where the content of message `id` goes, from its `Received` field on. `space`: what was set
    /// aside for it. Dropped without `accept`: nothing is kept.
    fn body(&self, id: QueueId, sender: &ReversePath, space: Option<Self::Space>) -> Self::Body;

    /// Returns `Ok` when the message is safe on disk. Never cancelled by the session, however long it takes.
    fn accept(&self, message: Received<Self::Body>) -> impl Future<Output = Result<(), AcceptError>> + Send;
}

/// Takes a message's content in order: CRLF line ends, no stuffing.
pub trait BodySink: Send + 'static {
    /// An error refuses the message: `452 4.3.1` for a full disk, else `451 4.3.0`. Nothing is written after it.
    fn write(&mut self, octets: &[u8]) -> impl Future<Output = std::io::Result<()>> + Send;
}

/// A message that has arrived whole.
#[derive(Debug)]
pub struct Received<B> {
    pub envelope: Envelope,
    /// In the order of RCPT, all domains together; may be empty if all were dropped.
    pub recipients: Vec<Recipient>,
    /// Suppressed ones that were taken as `Standing::Drop`: recorded, not sent to.
    pub dropped: Vec<Recipient>,
    pub body: B,
    /// Nobody is to get it before.
    pub at: Option<Timestamp>,
    /// How it came in: `TLSv1.3 TLS_AES_256_GCM_SHA384`; none in clear text.
    pub tls: Option<String>,
}

/// Why no message can be taken now, for the client and the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoRoom(pub String);

/// Why a whole message was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// `452 4.3.1`
    #[error("{0}")]
    NoRoom(String),
    /// `451 4.3.0`
    #[error("{0}")]
    Failed(String),
}

/// What becomes of mail to a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    Welcome,
    /// Refused with `550 5.1.1` at RCPT.
    Refuse(Suppressed),
    /// Taken, recorded, not sent to (`[suppression] at_injection = "drop"`).
    Drop,
}

/// How an address for answers stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WayBack {
    Open,
    /// Too many come at once.
    Busy,
    /// Nothing is taken there; why.
    Shut(String),
}

/// Why a recipient is on the suppression list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    pub class: Class,
    /// The words that put him there.
    pub reply: String,
    /// They are a receiver's, and no person's.
    pub by_receiver: bool,
    /// When they were last said.
    pub since: Timestamp,
}

/// One suppressed recipient, refused.
#[derive(Clone, Debug)]
pub struct RefusedRecipient<'a> {
    pub time: Timestamp,
    pub sender: &'a ReversePath,
    pub recipient: &'a Mailbox,
    pub suppressed: &'a Suppressed,
    /// What the client was told, without its line end.
    pub said: &'a str,
    pub client: IpAddr,
}
