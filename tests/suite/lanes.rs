//! How much goes to a receiver at once: ceilings, connections that are used again, limits a receiver states.

use std::time::Duration;

use crate::kit::mx::wait_at;
use crate::kit::{At, Gate, Mx, World, close, mail, now, say, stays, until};

#[test]
fn a_ceiling_holds_over_all_domains_of_a_provider_and_is_reached() {
    let world = World::new();
    let mx = world.host("mx.slow.test");
    world.domain("one.test", &[(10, &mx)]);
    world.domain("two.test", &[(10, &mx)]);
    let gate = Gate::new();
    mx.always(At::End, wait_at(&gate));
    let relay = world
        .config()
        .table("[[provider]]\nname = \"slow\"\nmx = [\"*.slow.test\"]\nmax_connections = 5\ninitial_connections = 5")
        .start();
    let mut client = relay.client();
    for n in 0..60 {
        let domain = if n % 2 == 0 { "one.test" } else { "two.test" };
        client.submit("app@sender.test", &[&format!("u{n}@{domain}")], &mail(&format!("m{n}"), "x"));
    }
    until("five transactions at once", || (gate.waiting() == 5).then_some(()));
    stays(Duration::from_millis(500), "five connections", || mx.open() == 5 && mx.peak() == 5);
    // Let them through a few at a time, so that the relay has every chance to open one too many.
    for done in (5..=60).step_by(5) {
        gate.admit(5);
        until("the next five", || (mx.accepted_count() >= done).then_some(()));
    }
    mx.wait_accepted(60);
    assert_eq!(mx.peak(), 5, "the ceiling is 5 connections");
    relay.assert_settled();
    let lane = relay.json(&["status"]).into_iter().find(|l| l["provider"] == "slow").expect("the lane of `slow`");
    assert_eq!(lane["ceiling"], 5, "{lane}");
}

/// Two sending addresses with names of their own.
const SOURCES: &str = "[[source]]\nname = \"a\"\naddress = \"127.0.0.1\"\nhostname = \"a.relay.test\"\n\
    [[source]]\nname = \"b\"\naddress = \"127.0.0.3\"\nhostname = \"b.relay.test\"";

#[test]
fn a_ceiling_holds_over_all_hosts_addresses_domains_and_sources_of_a_provider_together() {
    let world = World::new();
    let (one, two) = (world.host("one.olc.test"), world.host("two.olc.test"));
    let hosts = [world.twin(&one), world.twin(&two), world.twin(&two), one, two];
    world.domain("one.test", &[(10, &hosts[3])]);
    world.domain("two.test", &[(10, &hosts[4])]);
    world.domain("both.test", &[(10, &hosts[3]), (10, &hosts[4])]);
    let gate = Gate::new();
    for host in &hosts {
        host.always(At::End, wait_at(&gate));
    }
    let provider = "[[provider]]\nname = \"outlook\"\nmx = [\"*.olc.test\"]\nmax_connections = 5";
    let relay = world.config().table(provider).table(SOURCES).start();
    let mut client = relay.client();
    for n in 0..90 {
        let domain = ["one.test", "two.test", "both.test"][n % 3];
        client.submit("app@sender.test", &[&format!("u{n}@{domain}")], &mail(&format!("m{n}"), "x"));
    }
    until("five transactions at once", || (gate.waiting() == 5).then_some(()));
    stays(Duration::from_millis(500), "five connections", || world.crowd.open() == 5 && gate.waiting() == 5);
    let accepted = || hosts.iter().map(Mx::accepted_count).sum::<usize>();
    for done in (5..=90).step_by(5) {
        gate.admit(5);
        until("the next five", || (accepted() >= done).then_some(()));
    }
    relay.assert_settled();
    assert_eq!((accepted(), world.crowd.peak()), (90, 5), "messages, and connections at once");
    let lanes = relay.json(&["status"]);
    let ceilings: Vec<_> = lanes.iter().filter(|l| l["provider"] == "outlook").map(|l| &l["ceiling"]).collect();
    assert!(!ceilings.is_empty() && ceilings.iter().all(|c| **c == 5), "{lanes:#?}");
}

#[test]
fn sources_are_used_in_turn_each_under_its_name() {
    let (world, mx) = World::with_domain("x.test");
    let provider = "[[provider]]\nname = \"x\"\nmx = [\"*.x.test\"]\nmessages_per_connection = 1";
    let relay = world.config().table(provider).table(SOURCES).start();
    let mut client = relay.client();
    for n in 0..20 {
        client.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail(&format!("m{n}"), "x"));
    }
    let got = mx.wait_accepted(20);
    let from = |address: [u8; 4], name: &str| {
        let own: Vec<_> = got.iter().filter(|t| t.peer == std::net::IpAddr::from(address)).collect();
        assert!(own.iter().all(|t| t.helo == name), "{:?}", own.iter().map(|t| &t.helo).collect::<Vec<_>>());
        own.len()
    };
    let (a, b) = (from([127, 0, 0, 1], "a.relay.test"), from([127, 0, 0, 3], "b.relay.test"));
    assert_eq!(a + b, 20);
    assert!(a >= 5 && b >= 5, "{a} from a, {b} from b");
    let delivered = relay.wait_events(20, "delivered", |_| true);
    assert_eq!(delivered.iter().filter(|e| e["source"] == "a").count(), a);
    assert_eq!(delivered.iter().filter(|e| e["source"] == "b").count(), b);
}

#[test]
fn all_connections_together_have_a_ceiling_and_every_receiver_gets_its_share() {
    let world = World::new();
    let hosts: Vec<Mx> = (0..3).map(|n| world.host(&format!("mx.p{n}.test"))).collect();
    let gate = Gate::new();
    for (n, host) in hosts.iter().enumerate() {
        world.domain(&format!("p{n}.test"), &[(10, host)]);
        host.always(At::End, wait_at(&gate));
    }
    let relay = world.config().set("delivery", "max_connections", "4").start();
    let mut client = relay.client();
    for n in 0..60 {
        client.submit("app@sender.test", &[&format!("u{n}@p{}.test", n % 3)], &mail(&format!("m{n}"), "x"));
    }
    until("four transactions at once", || (gate.waiting() == 4).then_some(()));
    stays(Duration::from_millis(300), "four connections", || world.crowd.open() == 4);
    let accepted = || hosts.iter().map(Mx::accepted_count).sum::<usize>();
    // Towards the end some have nothing left that could take its turn.
    for done in (4..=44).step_by(4) {
        until("four transactions at once", || (gate.waiting() == 4).then_some(()));
        gate.admit(4);
        until("the next four", || (accepted() >= done).then_some(()));
        let each: Vec<usize> = hosts.iter().map(Mx::accepted_count).collect();
        // Whoever lost its connection while it had nothing to send waits until another has carried its ten messages.
        assert!(
            each.iter().all(|count| *count + 6 >= done / 4),
            "one receiver waits for the others: {each:?} of {done}"
        );
    }
    gate.open();
    relay.assert_settled();
    assert_eq!(world.crowd.peak(), 4);
    assert!(hosts.iter().all(|h| h.accepted_count() == 20));
}

#[test]
fn a_receiver_that_never_closes_after_quit_holds_its_place_for_five_seconds_and_no_longer() {
    let (world, mx) = World::with_domain("x.test");
    let gate = Gate::new();
    mx.once(At::HangUp, wait_at(&gate));
    let provider = "[[provider]]\nname = \"x\"\nmx = [\"*.x.test\"]\nmax_connections = 1\nmessages_per_connection = 1";
    let relay = world.config().table(provider).start();
    let mut client = relay.client();
    for n in 0..2 {
        client.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail(&format!("m{n}"), "x"));
    }
    let begun = now();
    let got = mx.wait_accepted(2);
    let between = got[1].replied.duration_since(got[0].replied);
    assert!(between >= Duration::from_secs(4), "the end of the first connection was not waited for: {between:?}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    gate.open();
    relay.assert_settled();
}

#[test]
fn the_ceiling_holds_when_the_receiver_hangs_up_after_every_message() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::End, close("250 2.0.0 ok, good bye"));
    let provider = "[[provider]]\nname = \"curt\"\nmx = [\"*.x.test\"]\nmax_connections = 3\ninitial_connections = 3";
    let relay = world.config().table(provider).start();
    let mut client = relay.client();
    for n in 0..60 {
        client.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail(&format!("m{n}"), "x"));
    }
    mx.wait_accepted(60);
    assert!(mx.peak() <= 3, "{} connections, the ceiling is 3", mx.peak());
    assert_eq!(mx.connections(), 60);
}

#[test]
fn connections_are_used_again() {
    let (world, mx) = World::with_domain("x.test");
    let provider = "[[provider]]\nname = \"x\"\nmx = [\"*.x.test\"]\nmax_connections = 1";
    let relay = world.config().table(provider).start();
    let mut client = relay.client();
    for n in 0..20 {
        client.submit("app@sender.test", &["u@x.test"], &mail(&format!("m{n}"), "x"));
    }
    mx.wait_accepted(20);
    assert_eq!(mx.connections(), 1, "{:?}", mx.commands());
}

#[test]
fn a_connection_carries_as_many_messages_as_the_provider_takes() {
    let (world, mx) = World::with_domain("x.test");
    let provider = "[[provider]]\nname = \"x\"\nmx = [\"*.x.test\"]\nmax_connections = 1\nmessages_per_connection = 4";
    let relay = world.config().table(provider).start();
    let mut client = relay.client();
    for n in 0..12 {
        client.submit("app@sender.test", &["u@x.test"], &mail(&format!("m{n}"), "x"));
    }
    let got = mx.wait_accepted(12);
    for number in 1..=3 {
        assert_eq!(got.iter().filter(|t| t.connection == number).count(), 4);
    }
    assert_eq!(mx.peak(), 1);
}

#[test]
fn a_transaction_holds_as_many_recipients_as_the_provider_takes() {
    let (world, mx) = World::with_domain("x.test");
    let provider = "[[provider]]\nname = \"x\"\nmx = [\"*.x.test\"]\nrecipients_per_message = 2";
    let relay = world.config().table(provider).start();
    let all = ["a@x.test", "b@x.test", "c@x.test", "d@x.test", "e@x.test"];
    relay.submit("app@sender.test", &all, &mail("five", "x"));
    let got = mx.wait_accepted(3);
    assert!(got.iter().all(|t| t.recipients.len() <= 2));
    let mut to: Vec<&str> = got.iter().flat_map(|t| t.to()).collect();
    to.sort_unstable();
    assert_eq!(to, all);
    relay.assert_settled();
}

#[test]
fn a_connection_is_never_shared_between_mx_hosts() {
    let world = World::new();
    let (one, two) = (world.host("mx1.same.test"), world.host("mx2.same.test"));
    world.domain("one.test", &[(10, &one)]);
    world.domain("two.test", &[(10, &two)]);
    let relay = world.config().table("[[provider]]\nname = \"same\"\nmx = [\"*.same.test\"]").start();
    for n in 0..10 {
        relay.submit("app@sender.test", &[&format!("u{n}@one.test"), &format!("u{n}@two.test")], &mail("both", "x"));
    }
    assert!(one.wait_accepted(10).iter().all(|t| t.to()[0].ends_with("@one.test")));
    assert!(two.wait_accepted(10).iter().all(|t| t.to()[0].ends_with("@two.test")));
}

#[test]
fn a_421_in_the_middle_of_the_queue_costs_the_others_no_attempt() {
    let (world, mx) = World::with_domain("x.test");
    mx.once(At::Mail, say("250 2.1.0 ok"));
    mx.once(At::Mail, close("421 4.3.2 closing down"));
    let provider = "[[provider]]\nname = \"x\"\nmx = [\"*.x.test\"]\nmax_connections = 1";
    let relay = world.config().table(provider).start();
    let mut client = relay.client();
    for n in 0..10 {
        client.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail(&format!("m{n}"), "x"));
    }
    mx.wait_accepted(10);
    assert!(relay.events_of("deferred").len() <= 1, "{:#?}", relay.events_of("deferred"));
    relay.assert_settled();
}

/// RFC 9422.
#[test]
fn limits_that_a_receiver_names_are_kept_before_anything_is_refused() {
    let (world, mx) = World::with_domain("x.test");
    mx.offer(&["PIPELINING", "LIMITS MAILMAX=2 RCPTMAX=3 RCPTDOMAINMAX=1"]);
    let relay = world.config().start();
    let many: Vec<String> = (0..7).map(|n| format!("u{n}@x.test")).collect();
    relay.submit("app@sender.test", &many.iter().map(String::as_str).collect::<Vec<_>>(), &mail("seven", "x"));
    let parts = mx.wait_accepted(3);
    assert_eq!(parts.iter().map(|part| part.to().len()).collect::<Vec<_>>(), [3, 3, 1]);
    for n in 0..6 {
        relay.submit("app@sender.test", &[&format!("v{n}@x.test")], &mail("more", "x"));
        mx.wait_accepted(4 + n);
    }
    let mut carried = std::collections::BTreeMap::new();
    mx.accepted().iter().for_each(|got| *carried.entry(got.connection).or_insert(0) += 1);
    assert!(carried.values().all(|messages| *messages <= 2), "{carried:?}");
    // Nonsense bounds nothing.
    mx.offer(&["PIPELINING", "LIMITS MAILMAX=0 RCPTMAX=x"]);
    for n in 0..5 {
        relay.submit("app@sender.test", &[&format!("w{n}@x.test")], &mail("free", "x"));
        mx.wait_accepted(10 + n);
    }
    let last = mx.accepted().last().map(|got| got.connection);
    assert!(mx.accepted().iter().filter(|got| Some(got.connection) == last).count() >= 4);
    relay.assert_settled();
}
