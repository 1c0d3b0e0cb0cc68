//! Inbound: the front door. Listeners, connections, who may send, and what happens when too many come.
//!
//! Rules that always hold:
//! - `250` for a message is said only after `Intake::accept` has returned: accepted means durable;
//! - load is never shed by a greeting: a client that is one too many waits, or the connection least worth keeping makes room;
//! - a fault in one session ends that session alone;
//! - what all sessions hold together is bounded, whoever comes (`held`, `wire`, `overload`);
//! - inbound knows the spool only as an `Intake`.

pub mod admission;
mod allowances;
#[cfg(test)]
mod besieged;
mod complaints;
mod connection;
mod content;
#[cfg(test)]
mod dialogues;
mod door;
mod expiry;
pub mod front;
mod governed;
mod held;
pub mod intake;
pub mod listener;
pub mod options;
pub mod overload;
pub mod pressure;
mod rates;
mod receive;
mod seats;
mod slowed;
mod stream;
pub mod tls;
mod transcript;
mod wire;

pub use admission::Admission;
pub use allowances::{Allowances, Used};
pub use door::Door;
pub use front::{Front, FrontError};
pub use intake::{AcceptError, BodySink, Intake, NoRoom, Received, RefusedRecipient, Standing, Suppressed, WayBack};
pub use listener::{BindError, Bound, ListenError};
pub use overload::{Gate, Newcomer, Place, Rank};
pub use slowed::Slowed;
