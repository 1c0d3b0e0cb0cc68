//! The test kit: everything round the relay, so that a test reads as a story of client, relay and receivers.
//!
//! - `World` holds name server and receivers of one test; nothing is shared between tests.
//! - No fixed ports: the kernel chooses, on 127.0.0.0/8.
//! - The one allowed way to wait is [`until`]: it looks again and again, up to a deadline, and says what was missing.

#![allow(unreachable_pub, reason = "`pub` is the kit's face to the tests, which are no library")]

pub mod browser;
pub mod client;
pub mod disk;
pub mod dns;
pub mod endpoint;
pub mod faults;
pub mod gate;
pub mod image;
pub mod mta;
pub mod mx;
pub mod papers;
pub mod policy_host;
pub mod relay;
pub mod report;
pub mod server;
mod session;
pub mod world;

use std::time::{Duration, Instant};

pub use browser::Browser;
pub use client::Client;
pub use disk::Disk;
pub use dns::{Dns, Failure};
pub use faults::{Fault, Faults};
pub use gate::Gate;
pub use mx::{At, Mx, close, drop_connection, say};
pub use relay::{Config, Relay};
pub use report::Report;
pub use world::World;

/// How long anything may take before a test fails. Generous: the machine may be busy, and a passing test never waits so long.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How often `until` looks.
const GLANCE: Duration = Duration::from_millis(4);

#[expect(clippy::disallowed_methods, reason = "the tests watch the relay from outside, in real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Looks until there is something to see; fails after `PATIENCE` with `what` was waited for.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

#[track_caller]
pub fn until_within<T>(limit: Duration, what: &str, look: impl FnMut() -> Option<T>) -> T {
    try_until(limit, look).unwrap_or_else(|| panic!("waited {limit:?} in vain for: {what}"))
}

/// As `until_within`, for those who can say more about what is missing.
pub fn try_until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + limit;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if now() > deadline {
            return None;
        }
        nap();
    }
}

/// Watches that something stays as it is for `span`: for promises of the form "and nothing else happens". Used sparingly,
/// and only where no event marks the end.
#[track_caller]
pub fn stays(span: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = now() + span;
    while now() < deadline {
        assert!(holds(), "no longer true: {what}");
        nap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the pause between two looks of `until`; nothing else sleeps")]
fn nap() {
    std::thread::sleep(GLANCE);
}

/// Long tests run only where they are asked for: `WEIR_TEST=long cargo test`.
pub fn is_long() -> bool {
    std::env::var("WEIR_TEST").is_ok_and(|v| v == "long")
}

/// A test that needs what this system does not give says so and passes; with `WEIR_TEST_FAULTS=required` it fails.
pub fn skip(why: &str) {
    let required = std::env::var("WEIR_TEST_FAULTS").is_ok_and(|v| v == "required");
    assert!(!required, "WEIR_TEST_FAULTS=required, but {why}");
    eprintln!("SKIPPED: {why}");
}

/// `text` with the header a mail needs, CRLF at the ends of lines.
pub fn mail(subject: &str, text: &str) -> Vec<u8> {
    let text = text.replace("\r\n", "\n").replace('\n', "\r\n");
    format!(
        "From: App <app@sender.test>\r\nTo: someone@somewhere.test\r\nSubject: {subject}\r\n\
         Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{subject}@sender.test>\r\n\r\n{text}\r\n"
    )
    .into_bytes()
}

/// Is `needle` somewhere in `hay`?
pub fn contains(hay: &[u8], needle: &[u8]) -> bool {
    count(hay, needle) > 0
}

pub fn count(hay: &[u8], needle: &[u8]) -> usize {
    memchr::memmem::find_iter(hay, needle).count()
}
