//! Dispatch: the one loop that decides.
//!
//! `core` is pure: inputs and the time go in, actions come out. `engine` is the task that feeds it and carries the
//! actions out; each connection is a task of its own (`carrier`). Nothing else knows the queue, the throttle, the routes and
//! outbound together, and the engine waits for nothing but its next input.

mod alarm;
mod attempt;
mod bdat;
pub mod bounce;
mod carrier;
mod command;
pub mod core;
mod destination;
mod doubt;
mod ending;
pub mod engine;
mod errand;
mod fresh;
mod gate;
mod hand;
mod hello;
mod holds;
mod hungry;
mod lanes;
mod late;
mod listing;
pub mod message;
mod opening;
pub mod options;
mod passed_on;
mod probing;
mod pump;
mod reader;
mod report;
mod security;
mod senders;
mod settle;
pub mod status;
mod strangers;
pub mod survey;
mod unreached;
mod waiting;
mod withdraw;

use std::num::NonZeroU32;
use std::time::Duration;

use crate::queue::{Lifetime, RecipientKey};
use crate::types::{Mailbox, ReversePath};

/// A recipient as a number; equal mailboxes have equal numbers.
pub fn key_of(mailbox: &Mailbox) -> RecipientKey {
    fold(mailbox.key().as_bytes())
}

/// A message's own time to live, as the queue keeps it: whole seconds, at least one.
pub fn lifetime_of(expire: Option<Duration>) -> Lifetime {
    let secs = u32::try_from(expire?.as_secs()).unwrap_or(u32::MAX).max(1);
    NonZeroU32::new(secs)
}

/// A sender as a number: senders take turns.
pub fn flow_of(sender: &ReversePath) -> u32 {
    fold(sender.as_str().to_ascii_lowercase().as_bytes())
}

/// FNV-1a, folded to 32 bits. A collision makes a delivery wait for another that it need not wait for, nothing worse.
fn fold(bytes: &[u8]) -> u32 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    // The upper half is mixed better.
    ((hash >> 32) ^ hash) as u32
}

#[cfg(test)]
mod attempt_tests;
#[cfg(test)]
mod clock_tests;
#[cfg(test)]
mod core_tests;
#[cfg(test)]
mod hand_tests;
#[cfg(test)]
mod lane_tests;
#[cfg(test)]
mod put_off_tests;
#[cfg(test)]
mod scale_tests;
#[cfg(test)]
mod status_tests;
#[cfg(test)]
mod turn_tests;
