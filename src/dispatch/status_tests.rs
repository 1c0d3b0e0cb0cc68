//! What the core says about itself, in the simulated world: forecasts, reasons, alerts.

use std::time::Duration;

use super::core_tests::{CALM, World, start};
use super::message::*;
use super::status::Standing;
use crate::throttle::LaneOrder;
use crate::throttle::options::ProviderOptions;
use crate::types::*;

const TOO_FAST: &str = "421 RP-001 (mx) Unfortunately, some messages from 192.0.2.1 weren't sent. Please try again. We have \
                        limits for how many messages can be sent per hour and per day.";

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn standing(world: &World, id: QueueId) -> Standing {
    world.core.standing(DeliveryId { message: id, part: 0 }, world.now).expect("it waits")
}

#[test]
fn mail_that_is_due_in_a_stopped_lane_says_which_lane_why_and_until_when() {
    let mut world = World::new(3, CALM);
    world.submit("s@sender.test", &["first@a.test"]);
    world.run_for(secs(60));
    world.script = Some((Stage::Mail, TOO_FAST));
    let id = world.submit("s@sender.test", &["u@a.test"]);
    world.run_for(secs(30));
    let lane = world.core.snapshot(world.now).lanes[0].clone();
    let waiting = standing(&world, id);
    let expected =
        format!("the lane to shared from default, which is paused until {}: {TOO_FAST}", lane.until.unwrap());
    assert_eq!(waiting.waits_for, expected);
    let stop = waiting.stop.expect("it is due and cannot go");
    assert_eq!((stop.state, stop.until), ("paused", lane.until));

    world.order("shared", LaneOrder::Pause);
    let waiting = standing(&world, id);
    assert!(waiting.waits_for.ends_with("weir resume shared"), "{}", waiting.waits_for);
    assert_eq!(waiting.stop.map(|stop| (stop.state, stop.until)), Some(("paused", None)));

    let mut world = World::new(8, CALM);
    world.be_blocked();
    let id = world.submit("s@sender.test", &["w@a.test"]);
    world.run_for(secs(10));
    let waiting = standing(&world, id);
    assert!(waiting.waits_for.contains("`weir report shared` says what to do"), "{}", waiting.waits_for);
    assert_eq!(waiting.stop.map(|stop| stop.state), Some("blocked"));
}

#[test]
fn mail_that_waits_for_its_turn_says_for_which() {
    let profile = ProviderOptions {
        name: "own".into(),
        max_rate: Some("30/h".parse().unwrap()),
        max_connections: Some(1),
        initial_connections: Some(1),
        ..Default::default()
    };
    let mut world = World::with(4, CALM, vec![profile]);
    let ids: Vec<QueueId> = (0..4).map(|n| world.submit("s@sender.test", &[&format!("u{n}@own1.test")])).collect();
    world.run_for(secs(20));
    let waits_for = standing(&world, ids[3]).waits_for;
    assert_eq!(waits_for, "its turn in the lane to own from default, which sends at most 30 recipients an hour");
    assert_eq!(world.core.snapshot(world.now).waits_for["own"].as_ref(), waits_for);
    assert_eq!(standing(&world, ids[3]).stop, None);

    let few = ProviderOptions {
        name: "own".into(),
        max_connections: Some(1),
        initial_connections: Some(1),
        ..Default::default()
    };
    let mut world = World::with(5, CALM, vec![few]);
    for n in 0..3 {
        world.submit("s@sender.test", &[&format!("u{n}@own1.test")]);
    }
    let other = world.submit("s@sender.test", &["u@own2.test"]);
    world.run_for(Duration::from_millis(2500));
    assert_eq!(standing(&world, other).waits_for, "a free connection: 1 of 1 that own allows now are in use");
}

#[test]
fn the_end_of_a_block_is_told_as_what_it_is() {
    let mut world = World::new(6, CALM);
    world.be_blocked();
    for n in 0..3 {
        world.submit_as(Priority::Bulk, "news@list.test", &[&format!("b{n}@a.test")]);
    }
    world.run_for(secs(2 * 3600));
    let over =
        world.alerts.iter().find(|alert| !alert.raised && alert.key == "blocked shared default").expect("its end");
    let words = over.all_clear().expect("in words of its own");
    assert!(words.starts_with("shared from default: mail goes again, the block is over after 1h"), "{words}");
}

#[test]
fn what_waits_is_counted_before_its_hosts_are_known() {
    let mut world = World::new(7, CALM);
    let later = world.now + secs(3600);
    let row = |n: u32, name: &str| Row {
        id: DeliveryId { message: world.ids.next(world.now), part: 0 },
        domain: Domain::parse(name).unwrap(),
        held: false,
        attempts: 1,
        next_attempt: Some(later),
        lifetime: None,
        late_at: None,
        delay_reported: false,
        recipients: [n].into_iter().collect(),
        flow: 0,
        sender_domain: None,
        class: Priority::Normal,
        next_hop: None,
    };
    let rows = vec![row(1, "hotmail.com"), row(2, "hotmail.com"), row(3, "elsewhere.test")];
    world.core.handle(Input::Loaded(rows), world.now);
    let waiting = world.core.snapshot(world.now).waiting;
    assert_eq!((waiting.get(&Some("outlook".into())), waiting.get(&None)), (Some(&2), Some(&1)), "{waiting:?}");
}

#[test]
fn much_mail_that_waits_for_the_growth_guard_is_told_of_once_with_its_end() {
    let mut world = World::new(1, CALM);
    for n in 0..3000 {
        world.submit("s@sender.test", &[&format!("u{n}@office1.test")]);
    }
    world.run_for(secs(120));
    let of = |world: &World, raised: bool| -> Vec<Alert> {
        let own = world.alerts.iter().filter(|alert| alert.key == "held back microsoft365" && alert.raised == raised);
        own.cloned().collect()
    };
    let told = of(&world, true);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].text.contains(" wait for microsoft365: done about "), "{}", told[0].text);
    assert!(told[0].text.ends_with("times what the busiest took; `growth = 0` lifts it"), "{}", told[0].text);
    let estimate = |world: &World| {
        let estimates = world.core.snapshot(world.now).estimates;
        estimates
            .iter()
            .find(|(provider, _)| &***provider == "microsoft365")
            .and_then(|(_, estimate)| estimate.empty_at)
    };
    // The doubling is played: at today's pace it would be six hours.
    let first = estimate(&world).unwrap().since(start());
    let (mut halfway, mut took) = (None, None);
    for minute in 3..400 {
        world.run_for(secs(60));
        if minute == 90 {
            halfway = estimate(&world);
        }
        if world.spool.is_empty() {
            took.get_or_insert(world.now.since(start()));
        }
    }
    let took = took.expect("all of it goes");
    let halfway = halfway.unwrap().since(start());
    for told in [first, halfway] {
        let ratio = told.as_secs_f64() / took.as_secs_f64();
        assert!((0.85..1.15).contains(&ratio), "told {told:?}, took {took:?}");
    }
    assert!(took < secs(4 * 3600), "{took:?}");
    assert_eq!((of(&world, true).len(), of(&world, false).len()), (1, 1), "raised once, taken back once");
}

#[test]
fn a_little_mail_that_waits_for_the_growth_guard_is_no_alert() {
    let mut world = World::new(2, CALM);
    for n in 0..400 {
        world.submit("s@sender.test", &[&format!("u{n}@office1.test")]);
    }
    world.run_for(secs(1800));
    assert_eq!(world.alerts, []);
}
