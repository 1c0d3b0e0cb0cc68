//! What the benches of the relay and of the spool share.

pub mod process;
pub mod sink;
pub mod spool;
pub mod traffic;
pub mod tree;

use std::time::Duration;

/// The wait below which `percent` of all lie, in milliseconds; `sorted` is.
pub fn millis(sorted: &[Duration], percent: usize) -> f64 {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).map_or(0.0, |wait| wait.as_secs_f64() * 1e3)
}
