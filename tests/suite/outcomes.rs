//! What becomes of recipients: each has an end of its own, 4xx waits, 5xx is final, and nothing waits for ever.

use crate::kit::{At, Relay, World, close, drop_connection, mail, say, stays, until};
use std::time::Duration;

#[test]
fn a_message_is_delivered_and_told_of() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let id = relay.submit("app@sender.test", &["u@x.test"], &mail("hello", "Hello."));
    let got = mx.wait_accepted(1).remove(0);
    assert_eq!((got.sender.as_str(), got.to(), got.helo.as_str()), ("app@sender.test", vec!["u@x.test"], "relay.test"));
    assert!(got.content.ends_with(&mail("hello", "Hello.")), "{}", got.text());
    let received = got.header("Received").expect("a Received field");
    assert!(received.contains(&id) && received.contains("relay.test"), "{received}");

    let delivered = relay.wait_event("delivered", "u@x.test");
    assert_eq!(delivered["id"], id.as_str());
    assert_eq!(delivered["sender"], "app@sender.test");
    assert_eq!(delivered["mx"], "mx.x.test");
    assert_eq!(delivered["message_id"], "<hello@sender.test>");
    assert!(delivered["reply"].as_str().is_some_and(|r| r.starts_with("250 2.6.0")), "{delivered}");
    let accepted = relay.events_of("accepted").remove(0);
    assert_eq!(
        (&accepted["id"], &accepted["recipients"], &accepted["client"]),
        (&id.clone().into(), &1.into(), &"127.0.0.1".into())
    );
    let line = format!("{id}: from=<app@sender.test>, to=<u@x.test>, relay=mx.x.test, delay=");
    let told = until("the outcome in the log", || relay.log().lines().find(|l| l.contains(&line)).map(str::to_string));
    assert!(told.contains(", dsn=2.6.0, status=sent (250 2.6.0"), "{told}");
    assert!(!relay.log().contains("accepted"), "what was taken in stands at debug: {}", relay.log());
    relay.assert_settled();
}

#[test]
fn every_event_has_the_keys_of_the_contract_and_a_rising_number() {
    let (world, mx) = World::with_domain("x.test");
    mx.once(At::Rcpt, say("451 4.3.0 later"));
    mx.always(At::to("gone@x.test"), say("550 5.1.1 gone"));
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test", "gone@x.test"], &mail("keys", "x"));
    relay.wait_event("delivered", "u@x.test");
    relay.wait_event("bounced", "gone@x.test");
    let mut last = None;
    for event in relay.events() {
        for key in ["time", "seq", "event", "id", "sender", "recipient", "provider", "source", "mx", "reply", "class"] {
            assert!(event.get(key).is_some(), "{key} is missing in {event}");
        }
        let seq = event["seq"].as_u64().expect("seq is a number");
        assert!(last.is_none_or(|l| seq > l), "seq does not rise: {event}");
        last = Some(seq);
        assert!(event["time"].as_str().is_some_and(|t| t.ends_with('Z')), "{event}");
    }
}

#[test]
fn each_recipient_of_a_transaction_has_an_end_of_its_own() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::to("gone@x.test"), say("550 5.1.1 no such user"));
    mx.once(At::to("later@x.test"), say("450 4.2.1 try later"));
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test", "gone@x.test", "later@x.test"], &mail("three", "x"));
    relay.wait_event("delivered", "u@x.test");
    let bounced = relay.wait_event("bounced", "gone@x.test");
    assert_eq!((&bounced["class"], &bounced["reply"]), (&"recipient-unknown".into(), &"550 5.1.1 no such user".into()));
    let deferred = relay.wait_event("deferred", "later@x.test");
    assert!(deferred["reply"].as_str().is_some_and(|r| r.contains("4.2.1")), "{deferred}");
    relay.wait_event("delivered", "later@x.test");

    let accepted = mx.accepted();
    let recipients: Vec<_> = accepted.iter().map(|t| t.to()).collect();
    assert_eq!(recipients, [vec!["u@x.test"], vec!["later@x.test"]]);
    assert_eq!((mx.rcpts("u@x.test"), mx.rcpts("gone@x.test"), mx.rcpts("later@x.test")), (1, 1, 2));
    relay.assert_settled();
}

#[test]
fn a_recipient_named_twice_is_asked_for_and_told_of_once() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test", "v@x.test", "u@X.test."], &mail("twice", "x"));
    relay.wait_event("delivered", "v@x.test");
    assert_eq!(mx.wait_accepted(1)[0].to(), ["u@x.test", "v@x.test"]);
    assert_eq!(relay.events_of("accepted")[0]["recipients"], 2);
    relay.assert_settled();
    assert_eq!(mx.accepted_count(), 1);
}

#[test]
fn domains_of_one_message_get_transactions_of_their_own() {
    let world = World::new();
    let (one, two) = (world.host("mx1.test"), world.host("mx2.test"));
    world.domain("one.test", &[(10, &one)]);
    world.domain("two.test", &[(10, &two)]);
    world.domain("three.test", &[(10, &two)]);
    let relay = world.config().start();
    let all = ["a@one.test", "b@two.test", "c@two.test", "d@three.test"];
    relay.submit("app@sender.test", &all, &mail("domains", "x"));
    assert_eq!(one.wait_accepted(1)[0].to(), ["a@one.test"]);
    let mut at_two: Vec<_> = two.wait_accepted(2).iter().map(|t| t.to().join(" ")).collect();
    at_two.sort();
    assert_eq!(at_two, ["b@two.test c@two.test", "d@three.test"]);
    relay.assert_settled();
}

#[test]
fn a_deferral_is_retried_by_the_schedule_with_attempts_counted() {
    let (world, mx) = World::with_domain("x.test");
    for _ in 0..2 {
        mx.once(At::End, say("451 4.3.2 not now"));
    }
    let relay = world.config().start();
    let id = relay.submit("app@sender.test", &["u@x.test"], &mail("again", "x"));
    mx.wait_accepted(1);
    relay.wait_event("delivered", "u@x.test");
    let deferred = relay.events_of("deferred");
    assert_eq!(deferred.len(), 2, "{deferred:#?}");
    assert!(deferred.iter().all(|e| e["id"] == id.as_str() && e["verdict"] == "retry"), "{deferred:#?}");
    let tries = mx.transactions();
    let wait = tries[1].replied.duration_since(tries[0].replied);
    assert!(
        wait >= Duration::from_millis(170),
        "tried again after {wait:?}, the schedule says 200 ms, spread by a tenth"
    );
    relay.assert_settled();
}

#[test]
fn a_message_that_waits_too_long_expires_and_is_returned() {
    let (world, mx) = World::with_domain("x.test");
    let home = world.host("home.test");
    world.domain("sender.test", &[(10, &home)]);
    mx.always(At::Mail, say("451 4.7.1 greylisted for ever"));
    let relay = world.config().set("queue", "expire", "\"2s\"").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("old", "x"));
    let expired = relay.wait_event("expired", "u@x.test");
    assert!(expired["reply"].as_str().is_some_and(|r| r.contains("greylisted for ever")), "{expired}");
    let report = home.wait_accepted(1).remove(0);
    assert_eq!((report.sender.as_str(), report.to()), ("", vec!["app@sender.test"]));
    assert!(report.text().contains("greylisted for ever"), "{}", report.text());
    assert!(report.text().contains("Status: 4.7.1") || report.text().contains("Status: 4.4.7"), "{}", report.text());
    assert!(mx.accepted().is_empty());
    relay.wait_queue_empty();
}

/// Three hosts of equal standing and one behind them: wherever the 5xx comes from, no other is asked.
fn refused_for_good(at: &At, reply: &str) {
    let world = World::new();
    let hosts: Vec<_> = (1..=3).map(|n| world.host(&format!("mx{n}.x.test"))).collect();
    world.domain("x.test", &[(10, &hosts[0]), (10, &hosts[1]), (20, &hosts[2])]);
    for host in &hosts {
        host.always(at.clone(), say(reply));
    }
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("final", "x"));
    let bounced = relay.wait_event("bounced", "u@x.test");
    assert_eq!((&bounced["verdict"], &bounced["reply"]), (&"bounce".into(), &reply.into()), "{bounced}");
    relay.wait_queue_empty();
    stays(Duration::from_millis(500), "one attempt at all hosts together", || {
        hosts.iter().map(|h| h.count("MAIL")).sum::<usize>() == 1
    });
    assert!(hosts.iter().all(|h| h.accepted().is_empty()));
    assert!(relay.events_of("deferred").is_empty(), "{:#?}", relay.events_of("deferred"));
}

#[test]
fn a_5xx_to_mail_is_final() {
    refused_for_good(&At::Mail, "550 5.7.1 not from you");
}

#[test]
fn a_5xx_to_rcpt_is_final() {
    refused_for_good(&At::Rcpt, "550 5.4.1 Recipient address rejected: Access denied");
}

#[test]
fn a_5xx_to_data_is_final() {
    refused_for_good(&At::Data, "554 5.6.0 no data today");
}

#[test]
fn a_5xx_at_the_end_of_data_is_final() {
    refused_for_good(&At::End, "554 5.7.1 spam");
}

#[test]
fn a_refused_mail_counts_even_when_the_connection_closes_behind_it() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Mail, close("550 5.7.1 go away"));
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("closed", &"long text\n".repeat(20_000)));
    let bounced = relay.wait_event("bounced", "u@x.test");
    assert_eq!(bounced["reply"], "550 5.7.1 go away");
    assert_eq!(mx.count("MAIL"), 1);
}

#[test]
fn a_multi_line_reply_is_kept_whole() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Rcpt, say("550-5.1.1 The email account that you tried to reach\n550 5.1.1 does not exist"));
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("lines", "x"));
    let reply = relay.wait_event("bounced", "u@x.test")["reply"].as_str().unwrap_or_default().to_string();
    assert!(reply.contains("that you tried to reach") && reply.contains("does not exist"), "{reply}");
}

/// The connection ends at some moment: the mail waits, goes out later, and arrives exactly once.
fn dropped_at(at: At) -> (Relay, Vec<serde_json::Value>) {
    let (world, mx) = World::with_domain("x.test");
    mx.once(at.clone(), drop_connection());
    let relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("dropped", &"some text\n".repeat(5000)));
    mx.wait_accepted(1);
    relay.wait_event("delivered", "u@x.test");
    relay.assert_settled();
    assert!(relay.events_of("bounced").is_empty());
    assert_eq!(mx.connections(), 2, "{at:?}: {:?}", mx.commands());
    let deferred = relay.events_of("deferred");
    (relay, deferred)
}

#[test]
fn a_connection_lost_at_any_moment_before_the_end_of_data_costs_nothing() {
    for at in [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data, At::Body] {
        let (_relay, deferred) = dropped_at(at.clone());
        assert!(deferred.iter().all(|e| !e.to_string().contains("in doubt")), "{at:?}: {deferred:#?}");
    }
}

#[test]
fn when_a_host_answers_again_what_was_put_off_for_it_is_due_also_after_a_restart() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Greeting, drop_connection());
    let mut relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("first", "x"));
    relay.wait_event("deferred", "u@x.test");
    relay.submit("app@sender.test", &["v@x.test"], &mail("second", "x"));
    assert!(relay.stop().success());
    mx.relent(At::Greeting);
    relay.run();
    // The second shows that the host is there.
    relay.wait_event("delivered", "v@x.test");
    relay.wait_event("delivered", "u@x.test");
    relay.assert_settled();
}

#[test]
fn an_answer_lost_after_the_end_of_data_is_in_doubt_and_retried_by_the_schedule() {
    let (_relay, deferred) = dropped_at(At::End);
    assert_eq!(deferred.len(), 1, "{deferred:#?}");
    assert!(
        deferred[0].to_string().contains("doubt"),
        "the log does not say that it may arrive twice: {}",
        deferred[0]
    );
}

#[test]
fn an_answer_lost_after_the_end_of_data_is_not_tried_at_the_next_host_at_once() {
    let world = World::new();
    let (first, second) = (world.host("mx1.x.test"), world.host("mx2.x.test"));
    world.domain("x.test", &[(10, &first), (20, &second)]);
    first.always(At::End, drop_connection());
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("doubt", "x"));
    relay.wait_event("deferred", "u@x.test");
    stays(Duration::from_millis(500), "only the first host got it", || second.connections() == 0);
    assert_eq!(first.transactions().len(), 1);
}

#[test]
fn a_message_for_many_keeps_its_place_when_the_receiver_wants_fewer() {
    let (world, mx) = World::with_domain("x.test");
    let recipients: Vec<String> = (0..6).map(|n| format!("u{n}@x.test")).collect();
    for n in 2..6 {
        mx.once(At::to(&format!("u{n}@x.test")), say("452 4.5.3 too many recipients"));
    }
    // The rest goes out at once, not by the schedule.
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    let to: Vec<&str> = recipients.iter().map(String::as_str).collect();
    relay.submit("app@sender.test", &to, &mail("many", "x"));
    until("all six recipients", || {
        (mx.accepted().iter().map(|t| t.recipients.len()).sum::<usize>() == 6).then_some(())
    });
    assert_eq!(mx.accepted()[0].to(), ["u0@x.test", "u1@x.test"]);
    assert!(relay.events_of("deferred").is_empty(), "{:#?}", relay.events_of("deferred"));
    relay.assert_settled();
}

#[test]
fn too_many_recipients_with_none_accepted_is_an_ordinary_deferral() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Rcpt, say("452 4.5.3 too many recipients"));
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("none", "x"));
    relay.wait_event("deferred", "u@x.test");
    stays(Duration::from_millis(500), "one attempt", || mx.count("MAIL") == 1);
    assert_eq!(relay.queue()[0]["attempts"], 1);
}

#[test]
fn the_log_shows_both_dialogues_when_asked() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::to("gone@x.test"), say("550 5.1.1 no such user"));
    let relay = world.config().set("log", "level", "\"info,weir::inbound=debug,weir::outbound=debug\"").start();
    relay.submit("app@sender.test", &["gone@x.test"], &mail("shown", "Nobody else reads this."));
    relay.wait_event("bounced", "gone@x.test");
    for (part, line) in [
        ("session{client=127.0.0.1", "C: MAIL FROM:<app@sender.test>"),
        ("session{client=127.0.0.1", "S: 250 2.0.0 queued as "),
        ("connection{host=\"mx.x.test\"", "C: RCPT TO:<gone@x.test>"),
        ("connection{host=\"mx.x.test\"", "S: 550 5.1.1 no such user"),
    ] {
        until(line, || relay.log().lines().find(|l| l.contains(part) && l.contains(line)).map(str::to_string));
    }
    assert!(!relay.log().contains("Nobody else reads this"), "{}", relay.log());
}
