//! What is written before a try, how often one is made, and what becomes of connections meanwhile, in the simulated world.

use std::time::Duration;

use super::core_tests::{CALM, Mood, World};
use super::lane_tests::secs;
use crate::throttle::options::ProviderOptions;
use crate::types::*;

const BANNED: &str = "550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal from this list please visit \
                      https://sender.office.com/ and follow the directions.";

#[test]
fn the_next_attempt_is_written_before_each_try_but_the_first() {
    let mut world = World::new(60, CALM);
    world.says.insert("u@a.test".into(), "450 4.2.0 try later");
    let id = world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(3600));
    assert!(world.tries.len() >= 4, "{:?}", world.tries);
    for (n, (at, tried, planned)) in world.tries.iter().enumerate() {
        assert_eq!(*tried, id);
        let wait = planned.map(|planned| planned.since(*at));
        match n {
            // As accepted, it is due at once after a crash as well: that is one try more, not a hammer.
            0 => assert_eq!(wait, None),
            _ => assert!(wait.is_some_and(|wait| wait > secs(200)), "try {n} at {at}: {wait:?}"),
        }
    }
}

#[test]
fn a_peer_that_always_hangs_up_at_mail_is_asked_by_the_schedule() {
    let mut world = World::new(61, Mood { drop: 1.0, ..CALM });
    world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(4 * 3600));
    // After 1, 5, 15, 30 minutes, 1 and 2 hours.
    assert!((5..=8).contains(&world.log.len()), "{} tries in four hours", world.log.len());
}

#[test]
fn one_that_hangs_up_at_the_second_mail_of_each_connection_is_asked_again_at_once_and_no_more() {
    let mut world = World::new(62, CALM);
    for n in 0..4 {
        world.submit("s@sender.test", &[&format!("u{n}@a.test")]);
        world.run_for(secs(3));
    }
    // The connection rests; from now on each ends at its next MAIL.
    world.mood.drop = 1.0;
    let before = world.log.len();
    world.submit("s@sender.test", &["v@a.test"]);
    world.run_for(secs(20));
    assert_eq!(world.log.len() - before, 2, "on the connection that rested, then on a new one");
}

#[test]
fn connections_at_rest_are_closed_at_once_when_our_address_is_blocked() {
    let mut world = World::new(63, CALM);
    for n in 0..30 {
        world.submit("s@sender.test", &[&format!("u{n}@a.test")]);
    }
    let idle = |world: &World| world.core.connections.values().filter(|connection| connection.is_idle()).count();
    while idle(&world) < 4 {
        world.run_for(Duration::from_millis(100));
    }
    world.script = Some((Stage::Rcpt, BANNED));
    world.submit("s@sender.test", &["hit@a.test"]);
    while !world.events.contains(&EventKind::Blocked) {
        assert!(idle(&world) > 2, "most of them have rested until now");
        world.run_for(Duration::from_millis(1));
    }
    assert!(idle(&world) <= 1, "that which met the block may rest, and no other");
}

#[test]
fn a_connection_with_a_long_line_is_given_up_for_a_target_that_has_none() {
    let profile = ProviderOptions {
        name: "own".into(),
        max_connections: Some(1),
        initial_connections: Some(1),
        messages_per_connection: Some(1000),
        ..Default::default()
    };
    let mut world = World::with(64, CALM, vec![profile]);
    let many: Vec<QueueId> = (0..200).map(|n| world.submit("s@sender.test", &[&format!("u{n}@own1.test")])).collect();
    world.run_for(secs(20));
    let before = world.log.len();
    let one = world.submit("s@sender.test", &["v@own2.test"]);
    world.run_for(secs(3600));
    let place = world.log.iter().position(|id| *id == one).expect("it went") - before;
    assert!(place <= 15, "{place} went before it");
    assert_eq!(world.log.len(), many.len() + 1);
}
