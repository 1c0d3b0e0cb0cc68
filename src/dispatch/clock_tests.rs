//! A wall clock that is wrong and is set right, in the simulated world: nothing waits for as long as it was ahead, and no
//! promise to a receiver becomes shorter.

use std::time::Duration;

use super::core_tests::{CALM, World};
use super::message::*;
use crate::throttle::LaneStatus;
use crate::types::*;

const TOO_FAST: &str = "421 RP-001 (mx) Unfortunately, some messages from 192.0.2.1 weren't sent. Please try again. We have \
                        limits for how many messages can be sent per hour and per day.";
const QUOTA: &str = "451 4.7.3 Organization queue quota exceeded.";
const DAY_MILLIS: i64 = 86_400_000;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl World {
    /// Somebody sets the clock; what is under way is as far from its end as before.
    fn set_clock(&mut self, by_millis: i64) {
        self.now = self.now.shifted(by_millis);
        let coming = std::mem::take(&mut self.coming);
        self.coming = coming.into_iter().map(|((at, n), input)| ((at.shifted(by_millis), n), input)).collect();
        self.core.handle(Input::ClockStepped { by_millis }, self.now);
        self.run_for(secs(0));
    }

    fn lane(&self) -> LaneStatus {
        self.core.snapshot(self.now).lanes[0].clone()
    }

    fn left(&self) -> Duration {
        self.lane().until.expect("it is stopped").since(self.now)
    }

    /// What the spool holds of a delivery, as it is read at a start.
    fn row_as_stored(&self, id: QueueId) -> Row {
        let delivery = self.spool[&id].deliveries.values().next().expect("it waits");
        Row {
            id: delivery.id,
            domain: delivery.domain.clone(),
            held: false,
            attempts: delivery.attempts,
            next_attempt: delivery.next_attempt,
            lifetime: None,
            late_at: None,
            delay_reported: false,
            recipients: delivery.recipients.iter().map(|r| super::key_of(&r.address)).collect(),
            flow: 0,
            sender_domain: None,
            class: Priority::Normal,
            next_hop: None,
        }
    }
}

/// A lane that was just told that it is too fast, and mail that waits for it.
fn paused() -> World {
    let mut world = World::new(1, CALM);
    for n in 0..40 {
        world.submit("s@sender.test", &[&format!("u{n}@a.test")]);
    }
    world.run_for(secs(120));
    world.script = Some((Stage::Mail, TOO_FAST));
    world.submit("s@sender.test", &["last@a.test"]);
    world.run_for(secs(30));
    world.script = None;
    assert_eq!(world.lane().state, "paused");
    world
}

#[test]
fn a_pause_is_as_long_as_before_whichever_way_the_clock_is_set() {
    for by_millis in [-DAY_MILLIS, -3_600_000, 3_600_000, DAY_MILLIS] {
        let mut world = paused();
        let left = world.left();
        world.set_clock(by_millis);
        assert_eq!(world.left(), left, "{by_millis}");
        world.log.clear();
        world.run_for(left - secs(1));
        assert!(world.log.is_empty(), "{by_millis}: nothing goes before its end");
        world.run_for(secs(60));
        assert_eq!(world.log.len(), 1, "{by_millis}: and the probe at it");
    }
}

#[test]
fn deferred_mail_does_not_wait_for_as_long_as_the_clock_was_ahead() {
    for by_millis in [-DAY_MILLIS, DAY_MILLIS] {
        let mut world = World::new(2, CALM);
        world.script = Some((Stage::Rcpt, "450 4.3.0 try again"));
        let id = world.submit("s@sender.test", &["u@a.test"]);
        world.run_for(secs(10));
        world.script = None;
        world.log.clear();
        world.set_clock(by_millis);
        world.run_for(secs(90));
        assert_eq!(world.log, [id], "{by_millis}: one minute, by the schedule");
    }
}

#[test]
fn mail_that_is_held_back_and_hosts_that_are_down_come_back_in_their_own_time() {
    let mut world = World::new(3, CALM);
    world.script = Some((Stage::Rcpt, QUOTA));
    let first = world.submit("s@sender.test", &["u@office1.test"]);
    world.run_for(secs(10));
    world.script = None;
    let second = world.submit("s@sender.test", &["v@office1.test"]);
    world.run_for(secs(10));
    world.set_clock(-30 * DAY_MILLIS);
    world.run_for(secs(2 * 3600));
    assert!(!world.spool.contains_key(&first) && !world.spool.contains_key(&second));

    world.mood.refuse_connect = 1.0;
    let down = world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(10));
    world.mood = CALM;
    world.set_clock(-30 * DAY_MILLIS);
    world.run_for(secs(600));
    assert!(!world.spool.contains_key(&down));
}

#[test]
fn what_a_clock_that_was_ahead_has_left_is_set_right_at_the_next_start() {
    let mut world = World::new(1, CALM);
    world.script = Some((Stage::Rcpt, "450 4.3.0 try again"));
    let deferred = world.submit("s@sender.test", &["u@own1.test"]);
    world.run_for(secs(60));
    // Refused again and again: the last wait is one of minutes.
    world.script = Some((Stage::Mail, TOO_FAST));
    world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(400));
    let mut next = World::new(4, CALM);
    next.now = Timestamp::from_millis(world.now.millis() - DAY_MILLIS);
    next.core.restore(world.records.values().cloned().collect(), next.now);
    let lane = next.core.snapshot(next.now).lanes.into_iter().find(|lane| lane.state == "paused").expect("the pause");
    assert!(lane.until.unwrap().since(next.now) <= secs(660), "ten minutes, and a tenth by chance: {lane:?}");
    assert!(lane.since.unwrap() <= next.now, "{lane:?}");

    let row = Row { next_attempt: Some(world.now), ..world.row_as_stored(deferred) };
    next.core.handle(Input::Loaded(vec![row.clone()]), next.now);
    let longest = next.now + secs(5 * 3600);
    assert!(next.core.next_wake() <= longest);
    let planned = next.core.actions().into_iter().find_map(|action| match action {
        Action::Commit(changes) => changes.into_iter().find_map(|change| match change {
            crate::spool::Change::Plan { id, next_attempt } if id == row.id => Some(next_attempt),
            _ => None,
        }),
        _ => None,
    });
    assert!(planned.is_some_and(|planned| planned <= longest), "{planned:?}");
    assert!(next.core.standing(row.id, next.now).unwrap().waits_for.starts_with("its next attempt at "));
}

#[test]
fn the_pauses_of_an_operator_are_no_older_than_they_are_and_alerts_come_in_time() {
    let mut world = World::new(5, CALM);
    world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(60));
    world.order("shared", crate::throttle::LaneOrder::Pause);
    world.submit("s@sender.test", &["v@a.test"]);
    world.run_for(secs(60));
    world.set_clock(-DAY_MILLIS);
    assert!(world.alerts.is_empty());
    world.run_for(secs(16 * 60));
    let raised: Vec<&str> = world.alerts.iter().map(|alert| alert.key.as_str()).collect();
    assert_eq!(raised, ["paused shared default 15 min"]);
    world.set_clock(DAY_MILLIS);
    world.run_for(secs(120));
    assert_eq!(world.alerts.len(), 1, "no day has passed: {:?}", world.alerts);
}

#[test]
fn steps_of_the_clock_at_random_lose_nothing() {
    for seed in 0..20 {
        let mut world = World::new(seed, CALM);
        let mut chance = fastrand::Rng::with_seed(seed);
        for n in 0..60 {
            world.submit("s@sender.test", &[&format!("u{n}@a.test"), &format!("u{n}@own1.test")]);
            world.script = (chance.f64() < 0.2).then_some((Stage::Rcpt, "450 4.3.0 try again"));
            world.run_for(secs(chance.u64(1..30)));
            if chance.f64() < 0.3 {
                world.set_clock(chance.i64(-20 * 3_600_000..20 * 3_600_000));
            }
        }
        world.script = None;
        world.run_for(secs(5 * 3600));
        assert!(world.spool.is_empty(), "seed {seed}: {} wait", world.spool.len());
    }
}
