//! Who goes first where many targets share a lane, a provider or all connections, in the simulated world.

use std::collections::BTreeSet;

use super::core_tests::{CALM, World};
use super::lane_tests::{of, secs};
use super::message::*;
use crate::spool::Committed;
use crate::throttle::options::ProviderOptions;
use crate::types::*;

/// Bulk for each of these tenants, and who of them gets what.
fn bulk(world: &mut World, tenants: std::ops::Range<usize>, each: usize, name: &str) -> Vec<Vec<QueueId>> {
    let message = |world: &mut World, tenant: usize, n: usize| {
        let to = format!("u{n}@{name}{tenant}.test");
        world.submit_as(Priority::Bulk, &format!("news{tenant}@list.test"), &[&to])
    };
    tenants.map(|tenant| (0..each).map(|n| message(world, tenant, n)).collect()).collect()
}

fn urgent(world: &mut World, to: &str, count: usize) -> Vec<QueueId> {
    (0..count).map(|n| world.submit_as(Priority::High, "login@sender.test", &[&format!("h{n}@{to}")])).collect()
}

/// Until all of these were offered; at most so long.
fn time_of(world: &mut World, ids: &[QueueId], most: u64) -> u64 {
    (1..=most)
        .find(|_| {
            world.run_for(secs(1));
            of(world, ids).len() >= ids.len()
        })
        .unwrap_or_else(|| panic!("{} of {} were offered within {most} s", of(world, ids).len(), ids.len()))
}

#[test]
fn urgent_mail_to_a_target_without_a_connection_does_not_wait_for_forty_nine_newsletters() {
    let mut world = World::new(31, CALM);
    bulk(&mut world, 0..49, 40, "own");
    world.run_for(secs(60));
    assert!(world.log.len() < 600, "the backlog is over too soon for the test");
    let ids = urgent(&mut world, "own50.test", 5);
    let before = world.log.len();
    let time = time_of(&mut world, &ids, 30);
    assert!(world.log.len() - before < 120, "{} others went meanwhile, in {time} s", world.log.len() - before);
    // One of the others gave way, not all of them.
    world.run_for(secs(10));
    assert!(world.open.len() >= 5, "{} connections are left", world.open.len());
}

#[test]
fn late_tenants_begin_long_before_early_ones_have_finished() {
    let mut world = World::new(32, CALM);
    let tenants = bulk(&mut world, 0..49, 40, "own");
    world.run_for(secs(3600));
    let begun = |ids: &Vec<QueueId>| world.log.iter().position(|id| ids.contains(id)).unwrap();
    let ended = |ids: &Vec<QueueId>| world.log.iter().rposition(|id| ids.contains(id)).unwrap();
    let last_to_begin = tenants.iter().map(begun).max().unwrap();
    let first_to_end = tenants.iter().map(ended).min().unwrap();
    assert!(last_to_begin < first_to_end, "one had finished after {first_to_end}, one began after {last_to_begin}");
    assert!(last_to_begin < 49 * 11, "the last tenant began after {last_to_begin} messages");
}

#[test]
fn where_all_connections_are_taken_another_provider_gets_one_too() {
    let mut world = World::new(33, CALM);
    bulk(&mut world, 0..30, 40, "many");
    world.run_for(secs(60));
    let ids = urgent(&mut world, "many99.test", 3);
    time_of(&mut world, &ids, 30);
    let late = world.submit("s@sender.test", &["u@many98.test"]);
    time_of(&mut world, &[late], 60);
}

#[test]
fn urgent_mail_goes_first_over_all_targets_that_wait_for_a_lane_s_time() {
    let profile =
        ProviderOptions { name: "own".into(), max_rate: Some("30/min".parse().unwrap()), ..Default::default() };
    let mut world = World::with(34, CALM, vec![profile]);
    let tenants = bulk(&mut world, 0..20, 30, "own");
    world.run_for(secs(60));
    // To one that has mail of its own, and to one that has none.
    for to in ["own19.test", "own77.test"] {
        let before = world.log.len();
        let ids = urgent(&mut world, to, 3);
        time_of(&mut world, &ids, 20);
        assert!(world.log.len() - before <= 3 + 5, "{to}: {} others went first", world.log.len() - before - 3);
    }
    world.run_for(secs(200));
    let gone = |ids: &Vec<QueueId>| of(&world, ids).len();
    let counts: BTreeSet<usize> = tenants.iter().map(gone).collect();
    assert!(counts.first() >= Some(&3) && counts.last() <= Some(&14), "{counts:?}");
}

#[test]
fn bulk_keeps_its_tenth_of_a_lane_whoever_has_the_urgent_mail() {
    let profile =
        ProviderOptions { name: "own".into(), max_rate: Some("60/min".parse().unwrap()), ..Default::default() };
    let mut world = World::with(35, CALM, vec![profile]);
    let news: Vec<QueueId> = bulk(&mut world, 0..5, 30, "own").concat();
    for tenant in 5..15 {
        urgent(&mut world, &format!("own{tenant}.test"), 60);
    }
    world.run_for(secs(60));
    let before = (world.log.len(), of(&world, &news).len());
    world.run_for(secs(300));
    let (all, bulk) = (world.log.len() - before.0, of(&world, &news).len() - before.1);
    assert!(all >= 250 && (all / 12..=all / 8).contains(&bulk), "{bulk} of {all}");
}

#[test]
fn the_forecast_follows_the_order_in_which_mail_goes() {
    let profile =
        ProviderOptions { name: "own".into(), max_rate: Some("60/min".parse().unwrap()), ..Default::default() };
    let mut world = World::with(36, CALM, vec![profile]);
    bulk(&mut world, 0..20, 50, "own");
    world.run_for(secs(120));
    let ids = urgent(&mut world, "own30.test", 2);
    let last_of_a_tenant = bulk(&mut world, 3..4, 1, "own").concat();
    world.run_for(secs(2));
    let ahead = |world: &World, id: &QueueId| {
        let delivery = DeliveryId { message: *id, part: 0 };
        world.core.standing_in_line(delivery, world.now).and_then(|standing| standing.ahead)
    };
    for id in &ids {
        assert!(ahead(&world, id).is_none_or(|ahead| ahead <= 1), "{:?}", ahead(&world, id));
    }
    let told = ahead(&world, &last_of_a_tenant[0]).unwrap();
    let before = world.log.len();
    let time = time_of(&mut world, &last_of_a_tenant, 1200);
    let gone = world.log.len() - before;
    assert!(gone.abs_diff(told) <= told / 5 + 10, "{told} were told, {gone} went first, in {time} s");
}

fn ordinary(world: &mut World, to: &str, count: usize) -> Vec<QueueId> {
    (0..count).map(|n| world.submit("s@sender.test", &[&format!("u{n}@{to}")])).collect()
}

#[test]
fn hosts_that_say_nothing_hold_up_nobody_else() {
    let mut world = World::sized(38, CALM, Vec::new(), 20);
    world.silent = Some(".many9");
    let known = ordinary(&mut world, "a.test", 5);
    world.run_for(secs(60));
    assert_eq!(of(&world, &known), known);
    for n in 0..12 {
        ordinary(&mut world, &format!("many9{n}.test"), 5);
    }
    world.run_for(secs(10));
    assert!(world.open.len() <= 10, "{} places are taken by silence", world.open.len());
    let each = world.plans.iter().filter(|plan| plan.host.contains(".many90.")).count();
    assert!(each <= 2, "{each} connections to one of them");
    // Who has taken mail before is not concerned; a new one waits for less than the greeting may take; urgent mail not even that.
    let known = ordinary(&mut world, "a.test", 20);
    time_of(&mut world, &known, 30);
    let urgent = urgent(&mut world, "many1.test", 1);
    time_of(&mut world, &urgent, 15);
    let new = ordinary(&mut world, "many2.test", 3);
    let time = time_of(&mut world, &new, 120);
    assert!(time >= 1, "{time}");
    let longest = world.plans.iter().map(|plan| plan.greeting).max().unwrap();
    let shortest = world.plans.iter().map(|plan| plan.greeting).min().unwrap();
    assert_eq!((longest, shortest >= secs(30), shortest < secs(100)), (secs(300), true, true), "{shortest:?}");
    world.silent = None;
    world.run_for(secs(6 * 3600));
    world.assert_all_ended_once(38);
}

#[test]
fn a_host_that_falls_silent_gets_no_more_than_a_few_connections() {
    let mut world = World::sized(39, CALM, Vec::new(), 40);
    let before = ordinary(&mut world, "many5.test", 30);
    world.run_for(secs(120));
    assert_eq!(of(&world, &before).len(), 30);
    world.silent = Some(".many5");
    ordinary(&mut world, "many5.test", 200);
    world.run_for(secs(30));
    assert!(world.open.len() <= 2, "{}", world.open.len());
    world.silent = None;
    world.run_for(secs(6 * 3600));
    world.assert_all_ended_once(39);
}

#[test]
fn some_places_are_kept_for_urgent_mail() {
    let mut world = World::sized(40, CALM, Vec::new(), 40);
    world.silent = Some(".many9");
    for n in 0..50 {
        ordinary(&mut world, &format!("many9{n}.test"), 2);
    }
    world.run_for(secs(10));
    assert_eq!(world.open.len(), 19, "half of the places, and one of them is for urgent mail");
    let new = ordinary(&mut world, "many1.test", 1);
    let urgent = urgent(&mut world, "many2.test", 1);
    time_of(&mut world, &urgent, 6);
    assert_eq!(of(&world, &new).len(), 0);
    time_of(&mut world, &new, 240);
}

#[test]
fn what_is_done_for_a_message_does_not_grow_with_the_targets_that_wait() {
    let sample = super::core_tests::committed(1, 10);
    let rate = Some("120/min".parse().unwrap());
    for max_rate in [None, rate] {
        let profile = ProviderOptions { name: "own".into(), max_rate, ..Default::default() };
        let mut world = World::with(37, CALM, vec![profile]);
        world.checks = false;
        let targets = 10_000;
        let committed: Vec<_> = (0..targets).map(|n| message_to(&world, &sample, &format!("u@own{n}.test"))).collect();
        committed.iter().for_each(|message| world.keep(message));
        world.core.handle(Input::Accepted(committed), world.now);
        world.run_for(secs(120));
        let (steps, gone) = (world.core.steps, world.log.len());
        // The routes are good for five minutes, and those that wait are asked for again as their turns come.
        world.run_for(secs(600));
        let (steps, gone) = (world.core.steps - steps, world.log.len() - gone);
        assert!(gone > 500, "{gone} went");
        assert!(steps < 60 * gone, "{steps} turns for {gone} messages");
    }
}

fn message_to(world: &World, sample: &Committed, to: &str) -> Committed {
    let mut message = sample.clone();
    let id = world.ids.next(world.now);
    message.envelope = Envelope { id, received: world.now, ..Envelope::clone(&sample.envelope) }.into();
    let delivery = &mut message.deliveries[0];
    delivery.id = DeliveryId { message: id, part: 0 };
    delivery.recipients[0].address = Mailbox::parse(to).unwrap();
    delivery.domain = delivery.recipients[0].address.domain().clone();
    message
}
