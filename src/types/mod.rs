//! The nouns every room shares: addresses, replies, ids, times, envelopes, deliveries.
//!
//! Types stand under all other rooms and know none of them. A value of a type here is valid by construction:
//! whoever holds a `Domain` holds one that can be looked up, and no later code checks it again.

pub mod address;
mod alert;
pub mod body;
mod client;
pub mod delivery;
pub mod envelope;
pub mod event;
mod hop;
pub mod id;
pub mod internet;
mod login;
mod named;
pub mod nearest;
pub mod pattern;
mod preflight;
pub mod printable;
mod priority;
pub mod reading;
pub mod reply;
mod requests;
mod secret;
mod seldom;
mod status;
mod submitter;
pub mod timestamp;
mod tls;
pub mod units;
pub mod words;

pub use address::{AddressError, Domain, Mailbox, ReversePath};
pub use alert::{ALL_CLEAR, Alert};
pub use body::Body;
pub use client::{client_of, network_of};
pub use delivery::{Delivery, DeliveryState, Failed, Own, Refusal};
pub use envelope::{BodyType, Envelope, Notify, Origin, Recipient, Ret, SCHEDULE_MAX};
pub use event::{Event, EventKind};
pub use hop::{HopHost, NextHop};
pub use id::{DeliveryId, QueueId, QueueIds};
pub use login::Login;
pub use named::NamedLimits;
pub use pattern::AddressPattern;
pub use preflight::Preflight;
pub use priority::Priority;
pub use reading::{Class, Effects, Reading, Scope, Stage, Verdict};
pub use reply::{Enhanced, Reply};
pub use requests::{ByMode, DeliverBy, FutureRelease, Requests, TransferPriority};
pub use secret::{MASK, Secret};
pub use seldom::Seldom;
pub use status::Status;
pub use submitter::Submitter;
pub use timestamp::Timestamp;
pub use tls::{StsMode, TlsMode};
pub use units::{ByteSize, Rate, RateLimit, Span};
