//! Receivers made of every part at random: the drain bench's random scenarios, in few or in many seeds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::drain::random::{Distribution, Played, play, text};
use crate::drain::scenario::Scenario;

const SEEDS: u64 = 16;
const SEEDS_LONG: u64 = 1000;

fn is_long() -> bool {
    std::env::var("WEIR_TEST").is_ok_and(|kind| kind == "long")
}

/// Plays seeds on all processors; a broken promise panics and names its seed.
fn played(seeds: u64) -> Vec<Played> {
    let (next, done) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| *seed < seeds) {
                    let played = std::panic::catch_unwind(|| play(seed));
                    let played = played.unwrap_or_else(|_| panic!("seed {seed}: see above\n{}", text(seed)));
                    let played = played.expect("a scenario");
                    done.lock().unwrap_or_else(PoisonError::into_inner).push(played);
                }
            });
        }
    });
    let mut played = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    played.sort_by_key(|played| played.seed);
    played
}

fn all() -> &'static [Played] {
    static ALL: LazyLock<Vec<Played>> = LazyLock::new(|| played(if is_long() { SEEDS_LONG } else { SEEDS }));
    &ALL
}

#[test]
fn whatever_parts_a_receiver_has_no_promise_is_broken() {
    let distribution = Distribution::of(all());
    let [median, most, worst] = [0.5, 0.9, 1.0].map(|share| distribution.at(share));
    eprintln!("drain ÷ ideal: median {median:.2}, nine in ten {most:.2}, worst {worst:.2}");
    for one in all() {
        assert!(one.broken().is_empty(), "seed {}: {:?}\n{}", one.seed, one.broken(), text(one.seed));
    }
}

#[test]
#[ignore = "one receiver in twenty still leaves a lane idle for up to an hour longer than it needs, and one in twenty takes more than four times as long as a sender who knows its limits"]
fn whatever_parts_a_receiver_has_all_mail_goes_and_no_lane_is_idle_without_need() {
    let faults = all().iter().filter(|one| one.is_idle() || one.ratio.is_infinite()).map(|one| {
        let (idle, needed) = (one.idle.as_secs(), one.needed.as_secs());
        format!("seed {}: {:.2} of the ideal time, idle for {idle} s, {needed} s were needed", one.seed, one.ratio)
    });
    let faults: Vec<String> = faults.collect();
    assert!(faults.is_empty(), "{} seeds:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn a_seed_is_the_same_scenario_again_and_it_is_one() {
    for seed in 0..10 {
        let own = text(seed);
        assert_eq!(own, text(seed));
        let scenario = Scenario::parse("random", &own);
        assert!(scenario.is_ok(), "{scenario:?}\n{own}");
    }
    assert_ne!(text(1), text(2));
}
