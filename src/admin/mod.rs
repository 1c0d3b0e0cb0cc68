//! The control socket: how the commands reach the running relay.
//!
//! A Unix socket in the data folder (`control.sock`, mode 0600: whoever may read the spool may steer the relay). A request
//! is one JSON object on a line; the answer is any number of records, one JSON object a line, and a last line that is
//! `{"end":true}` or `{"error":"…"}`. So an answer that was cut off is never taken for a complete one.
//! A client keeps its sending side open until it has the answer: the end of its stream means that it is gone.
//!
//! `protocol` holds the requests, `record` what comes back, `filter` how messages are chosen, `suppress` both for the
//! suppression list; `server` reads and asks a
//! [`Control`], which alone knows the relay; `client` is the other end.

pub mod client;
pub mod filter;
mod line;
pub mod protocol;
pub mod record;
pub mod server;
mod socket;
pub mod suppress;

pub use crate::types::AddressPattern;
pub use client::{Client, ClientError, Records};
pub use filter::Filter;
pub use protocol::{Action, Request};
pub use record::{
    Acted, LaneRecord, LaneState, Ordered, OutcomeRecord, QueueDetail, QueueRecord, QueueState, RelayRecord,
    StatusRecord,
};
pub use server::{Answer, BindError, Control, Failed, Gone, Input, Server};
pub use suppress::{Changed, ImportEntry, Imported, Removed, SuppressFilter, SuppressRecord, WaveRecord};
