//! Where mail goes: MX records, addresses, failures of the DNS and of hosts.

use std::time::Duration;

use crate::kit::client::stuffed;
use crate::kit::{At, Failure, Mx, World, close, drop_connection, mail, say, until, until_within};

/// How long weir may remember a failure of the DNS.
const FAILURE_MEMORY: Duration = Duration::from_secs(90);

#[test]
fn the_lowest_preference_comes_first() {
    let world = World::new();
    let (best, other) = (world.host("best.x.test"), world.host("other.x.test"));
    world.domain("x.test", &[(50, &other), (5, &best)]);
    let relay = world.config().start();
    for n in 0..5 {
        relay.submit("app@sender.test", &["u@x.test"], &mail(&format!("m{n}"), "x"));
    }
    best.wait_accepted(5);
    assert_eq!(other.connections(), 0);
}

#[test]
fn hosts_of_equal_preference_share_the_mail() {
    let world = World::new();
    let (one, two) = (world.host("mx1.x.test"), world.host("mx2.x.test"));
    world.domain("x.test", &[(10, &one), (10, &two)]);
    for mx in [&one, &two] {
        mx.always(At::End, close("250 2.0.0 ok, and good bye"));
    }
    let relay = world.config().start();
    for n in 0..40 {
        relay.submit("app@sender.test", &["u@x.test"], &mail(&format!("m{n}"), "x"));
    }
    until("40 messages", || (one.accepted_count() + two.accepted_count() == 40).then_some(()));
    assert!(
        one.accepted_count() > 0 && two.accepted_count() > 0,
        "{} and {}",
        one.accepted_count(),
        two.accepted_count()
    );
}

/// The first host is no use; the message arrives at the second in the same attempt.
fn goes_on_to_the_next(first_fails: impl Fn(&Mx)) {
    let world = World::new();
    let (first, second) = (world.host("mx1.x.test"), world.host("mx2.x.test"));
    world.domain("x.test", &[(10, &first), (20, &second)]);
    first_fails(&first);
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("next", "x"));
    second.wait_accepted(1);
    assert_eq!(first.connections(), 1);
    assert!(relay.wait_event("delivered", "u@x.test")["mx"] == "mx2.x.test");
    relay.assert_settled();
}

#[test]
fn a_4xx_greeting_goes_on_to_the_next_host() {
    goes_on_to_the_next(|mx| mx.always(At::Greeting, close("421 4.3.2 service not available")));
}

#[test]
fn a_5xx_greeting_of_an_ordinary_receiver_goes_on_to_the_next_host() {
    goes_on_to_the_next(|mx| mx.always(At::Greeting, close("554 5.3.2 no service here")));
}

#[test]
fn a_silent_end_goes_on_to_the_next_host() {
    goes_on_to_the_next(|mx| mx.always(At::Greeting, drop_connection()));
    goes_on_to_the_next(|mx| mx.always(At::Ehlo, drop_connection()));
}

#[test]
fn a_5xx_greeting_of_every_host_is_final() {
    let world = World::new();
    let (first, second) = (world.host("mx1.x.test"), world.host("mx2.x.test"));
    world.domain("x.test", &[(10, &first), (20, &second)]);
    for mx in [&first, &second] {
        mx.always(At::Greeting, close("554 5.3.2 no service here"));
    }
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("nobody", "x"));
    assert_eq!(relay.wait_event("bounced", "u@x.test")["reply"], "554 5.3.2 no service here");
    assert_eq!((first.connections(), second.connections()), (1, 1));
}

#[test]
fn a_host_that_refuses_connections_is_passed_over() {
    let world = World::new();
    let alive = world.host("alive.x.test");
    world.dead_host("dead.x.test");
    world.dns.mx("x.test", &[(10, "dead.x.test"), (20, "alive.x.test")]);
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("dead", "x"));
    alive.wait_accepted(1);
}

#[test]
fn every_published_address_of_a_host_is_tried() {
    let world = World::new();
    let mx = world.host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    world.dns.addresses("mx.x.test", &["127.0.2.1".parse().unwrap(), mx.address().ip()]);
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    for n in 0..3 {
        relay.submit("app@sender.test", &["u@x.test"], &mail(&format!("m{n}"), "x"));
    }
    mx.wait_accepted(3);
}

#[test]
fn a_domain_whose_hosts_all_refuse_connections_waits() {
    let world = World::new();
    world.dead_host("dead.x.test");
    world.dns.mx("x.test", &[(10, "dead.x.test")]);
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("dead", "x"));
    let deferred = relay.wait_event("deferred", "u@x.test");
    assert!(deferred.to_string().contains("127.0.2.1"), "the address that refused is not named: {deferred}");
    // It comes to life: the mail goes out.
    let mx = world.host("dead.x.test");
    until_within(FAILURE_MEMORY, "the message at the revived host", || (mx.accepted_count() == 1).then_some(()));
}

#[test]
fn without_mx_the_domain_itself_is_the_host() {
    let world = World::new();
    let mx = world.host("bare.test");
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@bare.test"], &mail("implicit", "x"));
    mx.wait_accepted(1);
    assert_eq!(relay.wait_event("delivered", "u@bare.test")["mx"], "bare.test");
}

#[test]
fn an_alias_of_a_mail_domain_is_followed() {
    let (world, mx) = World::with_domain("x.test");
    world.dns.cname("alias.test", "x.test");
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@alias.test"], &mail("alias", "x"));
    assert_eq!(mx.wait_accepted(1)[0].to(), ["u@alias.test"]);
}

/// Bounced at once by weir itself: nobody is suppressed for it.
fn returned_with(world: &World, domain: &str, status: &str) {
    let home = world.host("home.sender.test");
    world.domain("sender.test", &[(10, &home)]);
    let relay = world.config().listen_at(world.own_address()).start();
    let recipient = format!("u@{domain}");
    relay.submit("app@sender.test", &[&recipient], &mail("lost", "x"));
    relay.wait_event("bounced", &recipient);
    let report = home.wait_accepted(1).remove(0).text();
    assert!(report.contains(&format!("Status: {status}")), "{report}");
    assert!(relay.json(&["suppress", "list"]).is_empty());
    relay.assert_settled();
}

#[test]
fn a_domain_that_does_not_exist_is_returned_with_5_1_2() {
    returned_with(&World::new(), "nowhere.test", "5.1.2");
}

#[test]
fn a_null_mx_is_returned_with_5_1_10() {
    let world = World::new();
    world.dns.null_mx("null.test");
    returned_with(&world, "null.test", "5.1.10");
}

#[test]
fn a_domain_with_neither_mx_nor_address_is_returned_with_5_4_4() {
    let world = World::new();
    world.dns.empty("empty.test");
    returned_with(&world, "empty.test", "5.4.4");
}

#[test]
fn mail_that_would_come_back_to_the_relay_is_returned_with_5_4_6() {
    let world = World::new();
    world.dns.mx("circle.test", &[(10, "self.circle.test")]);
    world.dns.addresses("self.circle.test", &[world.own_address().ip()]);
    returned_with(&world, "circle.test", "5.4.6");
}

#[test]
fn hosts_behind_the_relay_itself_are_not_used() {
    // RFC 5321 section 5.1: of the hosts with our preference and worse none is tried, the better ones are.
    let world = World::new();
    let (better, worse) = (world.host("better.x.test"), world.host("worse.x.test"));
    world.dns.addresses("self.x.test", &[world.own_address().ip()]);
    world.dns.mx("x.test", &[(10, "better.x.test"), (20, "self.x.test"), (30, "worse.x.test")]);
    let relay = world.config().listen_at(world.own_address()).set("queue", "retry", "[\"1h\"]").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("better", "x"));
    better.wait_accepted(1);
    better.always(At::Greeting, close("421 4.3.2 not now"));
    better.always(At::Mail, close("421 4.3.2 not now"));
    relay.submit("app@sender.test", &["v@x.test"], &mail("worse", "x"));
    relay.wait_event("deferred", "v@x.test");
    assert_eq!((worse.connections(), relay.events_of("accepted").len()), (0, 2));
}

/// The name server is in trouble: the mail waits, and goes out when it has recovered.
fn waits_for_the_dns(failure: Failure) {
    let (world, mx) = World::with_domain("x.test");
    world.dns.fail("x.test", Some(failure));
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("wait", "x"));
    relay.wait_event("deferred", "u@x.test");
    assert!(relay.events_of("bounced").is_empty());
    world.dns.fail("x.test", None);
    until_within(FAILURE_MEMORY, "the message after the DNS recovered", || (mx.accepted_count() == 1).then_some(()));
    relay.assert_settled();
}

#[test]
fn servfail_defers() {
    waits_for_the_dns(Failure::ServFail);
}

#[test]
fn refused_by_the_name_server_defers() {
    waits_for_the_dns(Failure::Refused);
}

#[test]
fn a_silent_name_server_defers() {
    waits_for_the_dns(Failure::Silence);
}

#[test]
fn a_domain_is_asked_once_however_much_mail_waits_for_it() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    for n in 0..20 {
        client.submit("app@sender.test", &["u@x.test"], &mail(&format!("m{n}"), "x"));
    }
    mx.wait_accepted(20);
    // The records hold for a second: a slow machine may need a few answers, never one for each message.
    assert!(world.dns.asked("x.test", "MX") <= 10, "asked {} times", world.dns.asked("x.test", "MX"));
}

#[test]
fn mail_is_not_delivered_to_private_addresses_that_nobody_allowed() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().set("delivery", "networks", "[]").set("queue", "expire", "\"2s\"").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("private", "x"));
    until("an end or a deferral", || {
        relay.events().into_iter().find(|e| ["deferred", "bounced", "expired"].iter().any(|k| e["event"] == *k))
    });
    assert_eq!(mx.connections(), 0);
}

#[test]
fn an_address_literal_is_its_own_host() {
    let world = World::new();
    let mx = world.host("unused.test");
    let relay = world.config().start();
    let recipient = format!("u@[{}]", mx.address().ip());
    relay.submit("app@sender.test", &[&recipient], &mail("literal", "x"));
    assert_eq!(mx.wait_accepted(1)[0].to(), [recipient]);
}

#[test]
fn a_fixed_route_needs_no_dns() {
    let (world, mx) = World::with_domain("unused.test");
    let route = format!("[[route]]\ndomain = \"internal.test\"\nto = \"{}\"", mx.address());
    let relay = world.config().set("delivery", "networks", "[]").table(&route).start();
    relay.submit("app@sender.test", &["u@internal.test"], &mail("route", "x"));
    mx.wait_accepted(1);
    assert_eq!(world.dns.asked("internal.test", "MX"), 0);
}

#[test]
fn a_message_with_a_hundred_hops_behind_it_goes_no_further() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let hops = "Received: from a by b; Sat, 21 Nov 2026 12:00:00 +0000\r\n".repeat(120);
    let mut client = relay.client();
    client.envelope("app@sender.test", &["u@x.test"]);
    client.ask("DATA", "354");
    client.send_bytes(&stuffed(&[hops.into_bytes(), mail("loop", "x")].concat()));
    client.expect("554 5.4.6");
    assert_eq!((mx.connections(), relay.queue().len()), (0, 0));
}

#[test]
fn a_refusal_at_one_host_is_not_tried_at_another_with_4xx_either() {
    // A 4xx in the dialogue is the receiver's answer, not the host's: the schedule decides, not the list of hosts.
    let world = World::new();
    let (first, second) = (world.host("mx1.x.test"), world.host("mx2.x.test"));
    world.domain("x.test", &[(10, &first), (20, &second)]);
    first.always(At::Rcpt, say("450 4.2.1 mailbox busy"));
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("busy", "x"));
    relay.wait_event("deferred", "u@x.test");
    assert_eq!((first.count("MAIL"), second.count("MAIL")), (1, 0));
}
