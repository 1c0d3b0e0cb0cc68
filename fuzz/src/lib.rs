//! What the fuzz targets check, as plain functions: `fuzz_targets/` calls them with what libFuzzer makes up, and
//! `tests/fuzz` with the corpora and with everything that was ever found.
//!
//! Rules that always hold:
//! - a target asserts what its part promises (round trips, a slow and plain reading of the same octets, limits), never only that
//!   nothing panics;
//! - a target is a function of its octets alone: no clock, chance, network or fixed place on the disk, so that what was found is
//!   found again;
//! - whatever octets come are a valid input: what does not fit the form of a target means something else there, and is not left out.

pub mod address;
pub mod chunks;
pub mod command_line;
pub mod config;
pub mod dkim;
pub mod event_log;
pub mod feedback;
pub mod header;
pub mod incoming;
pub mod kit;
pub mod outgoing;
pub mod reply;
pub mod report;
pub mod rules;
pub mod server_dialogue;
pub mod seven_bit;
mod shelf;
pub mod spool;
pub mod state;
pub mod sts;
pub mod submission;
pub mod users;
pub mod verdict;

/// A target's name, which is that of its folder in `corpus/` and `found/`, and its check.
pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: [Target; 21] = [
    ("address", address::check),
    ("chunks", chunks::check),
    ("command_line", command_line::check),
    ("config", config::check),
    ("dkim", dkim::check),
    ("event_log", event_log::check),
    ("feedback", feedback::check),
    ("header", header::check),
    ("incoming", incoming::check),
    ("outgoing", outgoing::check),
    ("reply", reply::check),
    ("report", report::check),
    ("rules", rules::check),
    ("server_dialogue", server_dialogue::check),
    ("seven_bit", seven_bit::check),
    ("spool", spool::check),
    ("state", state::check),
    ("sts", sts::check),
    ("submission", submission::check),
    ("users", users::check),
    ("verdict", verdict::check),
];
