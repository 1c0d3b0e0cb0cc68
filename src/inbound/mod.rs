//! Inbound: the front door. Listeners, connections, who may send, and what happens when too many come.
//!
//! Rules that always hold:
//! - `250` for a message is said only after `Intake::accept` has returned: accepted means durable;
//! - load is never shed by a greeting: a client that is one too many waits, or the connection idle longest makes room;
//! - a fault in one session ends that session alone;
//! - inbound knows the spool only as an `Intake`.

pub mod admission;
mod complaints;
mod connection;
mod content;
#[cfg(test)]
mod dialogues;
pub mod front;
mod held;
pub mod intake;
pub mod listener;
pub mod options;
pub mod overload;
mod slowed;
mod wire;

pub use admission::Admission;
pub use front::{Front, FrontError};
pub use intake::{AcceptError, BodySink, Intake, NoRoom, Received, RefusedRecipient, Standing, Suppressed};
pub use listener::{BindError, Bound};
pub use overload::Gate;
pub use slowed::Slowed;
