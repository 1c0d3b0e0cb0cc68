//! A receiver that behaves like Outlook.com: for trials, tests and the drain bench.
//!
//! The core is pure: [`Receiver`] is told who connects and what is offered, with the time as an argument, and answers with what a
//! receiver with the limits of its [`Profile`] would say. It also judges ([`Judgement`]): how many connections stood at the peak,
//! how often it had to refuse, who went on in spite of it, what was sent again after a 5xx. A seed repeats a run.

mod dialogue;
mod judgement;
mod penalty;
mod profile;
mod receiver;
mod shipped;
mod sockets;
mod standing;
mod transaction;
mod window;
mod words;

pub use dialogue::Dialogue;
pub use judgement::{Judgement, Refused};
pub use profile::{
    Change, Host, HostState, Latency, Limits, Mailboxes, Profile, ProfileError, Reputation, Stage, Trouble,
};
pub use receiver::{Receiver, Said, SessionId};
pub use sockets::{BindError, MxHost, Simulator};
pub use transaction::Mail;
pub use window::{Scope, WindowKind, WindowLimit};
pub use words::{Wording, Words};
