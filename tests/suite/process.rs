//! The process: it stops without losing or doubling, goes on after SIGHUP, and owns its folder.

use std::net::IpAddr;
use std::time::Duration;

use rustix::process::Signal;

use crate::kit::mx::wait_at;
use crate::kit::relay::STRANGER;
use crate::kit::{At, Client, Gate, Mx, Relay, World, drop_connection, mail, now, say, stays, until};

#[test]
fn sigterm_waits_for_what_is_past_its_end_of_data() {
    past_its_end(|_| {});
    past_its_end(|mx| mx.offer_all_but("CHUNKING"));
}

fn past_its_end(set: impl FnOnce(&Mx)) {
    let (world, mx) = World::with_domain("x.test");
    set(&mx);
    let gate = Gate::new();
    mx.always(At::End, wait_at(&gate));
    let mut relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("drain", "x"));
    until("the message at its end of data", || (gate.waiting() == 1).then_some(()));
    relay.signal(Signal::TERM);
    until("no more clients are taken", || refuses_clients(&relay).then_some(()));
    assert!(relay.has_ended().is_none(), "the answer of the receiver was not waited for");
    gate.open();
    assert!(relay.wait_end().success());
    relay.run();
    relay.assert_settled();
    assert_eq!(mx.transactions().len(), 1, "the message was sent again");
}

fn refuses_clients(relay: &Relay) -> bool {
    match Client::open([127, 0, 0, 1].into(), relay.address()) {
        Err(_) => true,
        Ok(mut client) => client.try_reply().is_none_or(|r| r.starts_with("421")),
    }
}

#[test]
fn sigterm_ends_an_idle_relay_at_once() {
    let (world, mx) = World::with_domain("x.test");
    let mut relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("idle", "x"));
    relay.wait_event("delivered", "u@x.test");
    // A client that sits there and a standing connection to the receiver hold nothing up.
    let mut client = relay.client();
    let before = now();
    assert!(relay.stop().success());
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    assert!(client.try_reply().is_none_or(|r| r.starts_with("421")));
    until("the receiver sees the end", || (mx.open() == 0).then_some(()));
}

#[test]
fn sigterm_does_not_wait_longer_than_its_grace() {
    let (world, mx) = World::with_domain("x.test");
    let gate = Gate::new();
    mx.once(At::End, wait_at(&gate));
    let mut relay = world.config().set("", "shutdown_grace", "\"300ms\"").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("grace", "x"));
    until("the message at its end of data", || (gate.waiting() == 1).then_some(()));
    let before = now();
    relay.stop();
    assert!(before.elapsed() < Duration::from_secs(8), "{:?}", before.elapsed());
    relay.run();
    mx.wait_accepted_at_least(1);
    relay.wait_event("delivered", "u@x.test");
    gate.open();
}

#[test]
fn sigterm_waits_for_nobody_who_hangs_before_the_end_of_data() {
    for at in [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data] {
        let (world, mx) = World::with_domain("x.test");
        mx.offer_all_but("CHUNKING");
        let gate = Gate::new();
        mx.once(at.clone(), wait_at(&gate));
        let mut relay = world.config().set("", "shutdown_grace", "\"60s\"").start();
        relay.submit("app@sender.test", &["u@x.test"], &mail("hangs", "x"));
        until("a peer that hangs", || (gate.waiting() == 1).then_some(()));
        let before = now();
        assert!(relay.stop().success());
        assert!(before.elapsed() < Duration::from_secs(10), "{at:?}: {:?}", before.elapsed());
        assert!(relay.log().contains("stopped") && relay.events_of("deferred").is_empty(), "{at:?}");
        gate.open();
        // As if it had not been offered.
        relay.run();
        relay.wait_event("delivered", "u@x.test");
        relay.assert_settled();
        assert_eq!(mx.accepted_count(), 1, "{at:?}");
    }
}

#[test]
fn a_peer_that_has_the_whole_message_and_hangs_at_its_envelope_is_waited_for_a_moment() {
    let (world, mx) = World::with_domain("x.test");
    let gate = Gate::new();
    mx.once(At::Mail, wait_at(&gate));
    let mut relay = world.config().set("", "shutdown_grace", "\"60s\"").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("flight", "x"));
    until("a peer that hangs", || (gate.waiting() == 1).then_some(()));
    let before = now();
    assert!(relay.stop().success());
    assert!(before.elapsed() < Duration::from_secs(15), "{:?}", before.elapsed());
    assert!(relay.events_of("deferred")[0]["reply"].to_string().contains("it may have been delivered"));
    gate.open();
    relay.run();
    mx.wait_accepted_at_least(1);
    relay.wait_event("delivered", "u@x.test");
}

#[test]
fn what_waited_goes_on_after_a_restart() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Mail, say("451 4.3.0 later"));
    let mut relay = world.config().set("queue", "retry", "[\"500ms\"]").start();
    let mut client = relay.client();
    for n in 0..10 {
        client.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail(&format!("m{n}"), "x"));
    }
    relay.wait_events(10, "deferred", |_| true);
    assert!(relay.stop().success());
    mx.relent(At::Mail);
    relay.run();
    mx.wait_accepted(10);
    relay.assert_settled();
}

#[test]
fn a_kill_loses_nothing_that_waits() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Greeting, drop_connection());
    let mut relay = world.config().start();
    let contents: Vec<Vec<u8>> = (0..20).map(|n| mail(&format!("m{n}"), &"line\n".repeat(n * 500))).collect();
    for content in &contents {
        relay.submit("app@sender.test", &["u@x.test"], content);
    }
    relay.kill();
    mx.relent(At::Greeting);
    relay.run();
    let got = mx.wait_accepted(20);
    assert!(contents.iter().all(|c| got.iter().any(|t| t.content.ends_with(c))));
    relay.assert_settled();
}

#[test]
fn sighup_keeps_it_running() {
    let (world, mx) = World::with_domain("x.test");
    let mut relay = world.config().start();
    let mut client = relay.client();
    relay.signal(Signal::HUP);
    client.submit("app@sender.test", &["u@x.test"], &mail("session", "x"));
    relay.submit("app@sender.test", &["u@x.test"], &mail("new", "x"));
    mx.wait_accepted(2);
    assert!(relay.has_ended().is_none());
}

#[test]
fn sighup_takes_over_who_may_relay() {
    let (world, mx) = World::with_domain("x.test");
    let config = world.config().set("relay", "trusted_networks", "[\"127.0.0.1/32\"]");
    let relay = config.clone().start();
    let ask = |code: &str| {
        let mut client = Client::connect_from(IpAddr::V4(STRANGER), relay.address());
        client.hello();
        client.ask("MAIL FROM:<app@sender.test>", "");
        client.ask("RCPT TO:<u@x.test>", code);
        client
    };
    ask("550 5.7.1");
    relay.reload(&config.clone().set("relay", "trusted_networks", "[\"127.0.0.0/8\"]"));
    ask("250").data(&mail("trusted", "x"));
    mx.wait_accepted(1);
    relay.reload(&config);
    ask("550 5.7.1");
}

#[test]
fn sighup_takes_over_routes_also_for_mail_that_waits() {
    let world = World::new();
    let (old, new) = (world.host("old.test"), world.host("new.test"));
    let route = |mx: &Mx| format!("[[route]]\ndomain = \"internal.test\"\nto = \"{}\"", mx.address());
    let config = world.config().set("queue", "retry", "[\"1h\"]");
    let relay = config.clone().table(&route(&old)).start();
    relay.submit("app@sender.test", &["u@internal.test"], &mail("old", "x"));
    old.wait_accepted(1);
    old.always(At::Mail, say("451 4.3.0 moved"));
    relay.submit("app@sender.test", &["v@internal.test"], &mail("waits", "x"));
    relay.wait_event("deferred", "v@internal.test");

    relay.reload(&config.table(&route(&new)));
    relay.submit("app@sender.test", &["w@internal.test"], &mail("new", "x"));
    assert_eq!(new.wait_accepted(1)[0].to(), ["w@internal.test"]);
    relay.ok(&["queue", "flush"]);
    assert_eq!(new.wait_accepted(2)[1].to(), ["v@internal.test"]);
    relay.assert_settled();
    assert_eq!(old.accepted_count(), 1);
}

#[test]
fn sighup_takes_over_a_providers_ceiling_both_ways() {
    let (world, mx) = World::with_domain("x.test");
    let gate = Gate::new();
    mx.always(At::End, wait_at(&gate));
    let config = |ceiling: usize| {
        world.config().table(&format!("[[provider]]\nname = \"x\"\nmx = [\"*.x.test\"]\nmax_connections = {ceiling}"))
    };
    let relay = config(2).start();
    let mut client = relay.client();
    for n in 0..60 {
        client.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail(&format!("m{n}"), "x"));
    }
    until("two transactions", || (gate.waiting() == 2).then_some(()));
    relay.reload(&config(4));
    // What was learned stays: the lane grows into its new ceiling while messages are accepted.
    until("four transactions", || {
        gate.admit(usize::from(gate.waiting() == mx.open() && gate.waiting() < 4));
        (gate.waiting() == 4).then_some(())
    });
    assert_eq!(mx.peak(), 4);
    let left = 60 - mx.accepted_count();
    assert!(left > 12, "{left} are too few to see the limit");
    relay.reload(&config(1));
    gate.admit(4);
    until("three to go", || (mx.open() == 1 && gate.waiting() == 1).then_some(()));
    gate.admit(3);
    until("one after the other", || (mx.accepted_count() >= 60 - left + 7 && gate.waiting() == 1).then_some(()));
    assert_eq!(mx.open(), 1);
    gate.open();
    mx.wait_accepted(60);
    relay.assert_settled();
    assert_eq!(mx.peak(), 4);
}

#[test]
fn sighup_with_a_broken_configuration_keeps_the_old_one() {
    let (world, mx) = World::with_domain("x.test");
    let mut relay = world.config().start();
    std::fs::write(relay.config_file(), "nonsense = [").unwrap();
    relay.signal(Signal::HUP);
    until("a word about the fault in the log", || relay.log().contains("weir.toml").then_some(()));
    relay.submit("app@sender.test", &["u@x.test"], &mail("old", "x"));
    mx.wait_accepted(1);
    assert!(relay.has_ended().is_none());
}

#[test]
fn a_second_relay_on_the_same_folder_is_refused() {
    let world = World::new();
    let relay = world.config().start();
    let output = relay.command(&["run"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("data"), "the folder is not named: {said}");
    relay.client();
}

#[test]
fn a_client_that_leaves_in_the_middle_leaves_nothing() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    for part in ["", "RCPT TO:<u@x.test>\r\n", "RCPT TO:<u@x.test>\r\nDATA\r\nSubject: half\r\n\r\nnot the end\r\n"] {
        let mut client = relay.client();
        client.send_bytes(format!("MAIL FROM:<app@sender.test>\r\n{part}").as_bytes());
        client.expect("250");
    }
    stays(Duration::from_millis(200), "nothing is queued", || relay.events_of("accepted").is_empty());
    assert!(relay.queue().is_empty());
    assert_eq!(mx.connections(), 0);
}

#[test]
fn every_accepted_recipient_has_exactly_one_end() {
    let world = World::new();
    let (mx, home) = (world.host("mx.x.test"), world.host("home.sender.test"));
    world.domain("x.test", &[(10, &mx)]);
    world.domain("sender.test", &[(10, &home)]);
    mx.always(At::to("gone@x.test"), say("550 5.1.1 gone"));
    mx.always(At::to("never@x.test"), say("450 4.2.1 never"));
    mx.once(At::to("later@x.test"), say("450 4.2.1 later"));
    let relay = world.config().set("queue", "expire", "\"3s\"").start();
    let mut client = relay.client();
    for n in 0..5 {
        let good = format!("u{n}@x.test");
        client.envelope("app@sender.test", &[&good, "later@x.test", "u@nowhere.test", "never@x.test"]);
        // From the second message on it may be on the suppression list already: then it is no accepted recipient.
        client.send("RCPT TO:<gone@x.test>");
        client.reply();
        client.data(&mail(&format!("m{n}"), "x"));
    }
    relay.wait_events(5, "expired", |_| true);
    relay.assert_settled();
    // weir's own reports are messages too, and have their line: from the empty sender.
    let accepted = relay.events_of("accepted");
    assert_eq!(accepted.iter().filter(|event| event["sender"] == "app@sender.test").count(), 5);
    for event in relay.events_of("delivered") {
        assert!(accepted.iter().any(|a| a["id"] == event["id"]), "delivered and never accepted: {event}");
    }
}

#[test]
fn the_queue_id_of_the_reply_is_the_one_everywhere() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let id = relay.submit("app@sender.test", &["u@x.test"], &mail("id", "x"));
    let got = mx.wait_accepted(1).remove(0);
    assert!(got.header("Received").is_some_and(|r| r.contains(&id)));
    assert_eq!(relay.wait_event("delivered", "u@x.test")["id"], id.as_str());
    assert_eq!(relay.events_of("accepted")[0]["id"], id.as_str());
}
