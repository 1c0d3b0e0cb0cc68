//! The front door besieged: the real program, thousands of hostile connections from a process of their own, and honest clients who
//! must not notice.
//!
//! What is measured is weir: the generator is another process, one thread, and gives way to all others (nice); what it does in
//! a second is bounded; honest clients are measured with and without it, by turns, in one run. Short rounds on every run, thousands of
//! connections and minutes with `WEIR_TEST=long`. The rules of time are tested without any, in `src/inbound/besieged.rs`.

#[allow(dead_code, unused_imports, reason = "the suite uses more of its kit")]
#[path = "../suite/kit/mod.rs"]
mod kit;

mod flow;
mod generator;
mod idle;
mod places;
mod soak;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// One siege at a time: they measure.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
