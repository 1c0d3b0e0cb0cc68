//! Receivers of all kinds, and what their words do to our mail and to the people we write to.

use serde_json::Value;

use crate::kit::mx::Mx;
use crate::kit::{At, Relay, World, close, mail, say, stays, until};
use std::time::Duration;

fn lane(relay: &Relay) -> Value {
    relay.json(&["status"]).into_iter().find(|record| record["provider"] == "elsewhere").unwrap_or_default()
}

fn send(relay: &Relay, name: &str) {
    relay.submit("app@sender.test", &[&format!("{name}@x.test")], &mail("one", "x"));
}

fn refused(relay: &Relay, names: &[&str]) {
    for name in names {
        send(relay, name);
        relay.wait_event("bounced", &format!("{name}@x.test"));
    }
}

fn listed(relay: &Relay) -> Vec<Value> {
    relay.json(&["suppress", "list"])
}

/// A receiver without rules of its own whose waits are short.
const ELSEWHERE: &str = "[[provider]]\nname = \"elsewhere\"\nmx = [\"mx.x.test\"]\npause = \"2s\"";

/// What a block says in its greeting.
const GREETINGS: [&str; 9] = [
    "554 IP=127.0.0.1 - A problem occurred. (Ask your postmaster for help or to contact tosa@rx.t-online.de to clarify.) (BL)",
    "554-gmx.net (mxgmx104) Nemesis ESMTP Service not available\r\n554-No SMTP service\r\n554 IP address is block listed.",
    "554 resimta.sys.comcast.net comcast 192.0.2.9 Comcast block for spam. Please see http://postmaster.comcast.net/",
    "554 Your access to this mail system has been rejected due to the sending MTA's poor reputation.",
    "550 mwinf5c04 ME Adresse IP source bloquee pour incident de spam. Client host blocked for spamming issues. OFR006_102",
    "554 refused: see http://csi.cloudmark.com/reset-request/?ip=192.0.2.9",
    "550 5.7.1 Mail from 192.0.2.9 has been blocked by Trend Micro Email Reputation Service.",
    "554 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.9",
    "421 4.7.0 Blocked - see https://ipcheck.proofpoint.com/?ip=192.0.2.9",
];

#[test]
fn a_block_in_the_greeting_stops_the_lane_and_returns_nothing() {
    for greeting in GREETINGS {
        let (world, mx) = World::with_domain("x.test");
        mx.always(At::Greeting, close(greeting));
        let relay = world.config().table(ELSEWHERE).start();
        send(&relay, "u");
        send(&relay, "v");
        let blocked = until("the block", || Some(lane(&relay)).filter(|lane| lane["state"] == "blocked"));
        assert!(blocked["reason"].is_string(), "{blocked}");
        assert_eq!((relay.events_of("bounced"), relay.events_of("deferred")), (vec![], vec![]), "{greeting}");
        assert_eq!(relay.queue().len(), 2, "{greeting}");
        assert!(mx.connections() <= 2, "those that were on their way: {greeting}");
        mx.relent(At::Greeting);
        relay.ok(&["resume", "elsewhere"]);
        mx.wait_accepted(2);
        relay.assert_settled();
    }
}

#[test]
fn a_greeting_that_asks_for_a_reverse_name_returns_nothing_either() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Greeting, close("554 mail servers must have a PTR record with a valid Reverse DNS entry"));
    let relay = world.config().start();
    send(&relay, "u");
    let deferred = relay.wait_event("deferred", "u@x.test");
    assert!(deferred["reply"].as_str().is_some_and(|reply| reply.contains("PTR")), "{deferred}");
    assert_eq!(relay.events_of("bounced"), Vec::<Value>::new());
}

#[test]
fn no_word_about_us_lists_anybody_however_the_list_is_set() {
    for reply in [
        "550 Ip frequency limited. http://service.mail.qq.com/cgi-bin/help?subtype=1",
        "550 192.0.2.9 has sent too many messages this hour. IB504",
        "550 rejecting spoofed message",
        "550 5.1.90 you have reached your daily limit",
        "550 5.7.1 Service unavailable; client [192.0.2.9] blocked using prs.proofpoint.com",
        "554 5.7.1 ACL dns_rbl; Client host 192.0.2.9 blocked using Senderscore",
        "550 ip in prison",
        "550 Your host is blacklisted here",
        "554 5.7.1 Rejected for policy reason",
        "550 5.1.1 not while your reputation is bad",
    ] {
        let (world, mx) = World::with_domain("x.test");
        mx.once(At::Rcpt, say(reply));
        let after =
            "{ recipient-unknown = 1, recipient-disabled = 1, mailbox-full = 1, recipient-policy = 1, other = 1 }";
        let relay = world.config().set("suppression", "after", after).start();
        refused(&relay, &["u"]);
        assert_eq!((listed(&relay), relay.events_of("suppressed")), (vec![], vec![]), "{reply}");
        let mut client = relay.client();
        client.envelope("app@sender.test", &["u@x.test"]);
    }
}

#[test]
fn a_bare_no_lists_for_some_days_until_the_receiver_takes_somebody_else() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::to("gone@x.test"), say("550 Nobody here"));
    let relay = world.config().start();
    refused(&relay, &["gone"]);
    let entry = until("the entry", || listed(&relay).pop());
    assert_eq!((&entry["source"], &entry["wave"]), (&"wave".into(), &"mx.x.test-unproven".into()), "{entry}");
    assert!(days(&entry) <= 7, "{entry}");
    send(&relay, "there");
    relay.wait_event("delivered", "there@x.test");
    let entry = until("a firm entry", || listed(&relay).pop().filter(|entry| entry["source"] == "bounce"));
    assert!(days(&entry) > 80, "{entry}");
    // From now on its no is worth something at once.
    mx.always(At::to("too@x.test"), say("550 Nobody here"));
    refused(&relay, &["too"]);
    until("the second", || (listed(&relay).len() == 2).then_some(()));
    assert!(listed(&relay).iter().all(|entry| entry["source"] == "bounce" && days(entry) > 80));
}

/// How long an entry holds.
fn days(entry: &Value) -> i64 {
    let day = |key: &str| {
        let text = entry[key].as_str().unwrap_or_default();
        let part =
            |range: std::ops::Range<usize>| text.get(range).and_then(|digits| digits.parse::<i64>().ok()).unwrap();
        (part(0..4) * 365) + part(5..7) * 30 + part(8..10)
    };
    day("expires") - day("last")
}

#[test]
fn the_same_words_to_everybody_are_about_us_and_list_nobody() {
    for reply in ["550 Nobody here", "554 Not today"] {
        let (world, mx) = World::with_domain("x.test");
        mx.always(At::Rcpt, say(reply));
        let relay = world.config().set("suppression", "after", "{ other = 1 }").start();
        refused(&relay, &["a", "b", "c", "d"]);
        until("four entries", || (listed(&relay).len() == 4).then_some(()));
        refused(&relay, &["e"]);
        until("they are taken off", || listed(&relay).is_empty().then_some(()));
        refused(&relay, &["f", "g"]);
        stays(Duration::from_millis(200), "nobody to be listed", || listed(&relay).is_empty());
        let alerts = relay.events_of("alert");
        let said = alerts[0]["text"].as_str().unwrap_or_default();
        assert!(alerts.len() == 1 && said.contains(reply) && said.contains("4 who were listed"), "{alerts:#?}");
        let mut client = relay.client();
        client.envelope("app@sender.test", &["a@x.test"]);
    }
}

#[test]
fn a_receiver_that_calls_everybody_unknown_is_believed_for_some_days_only() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Rcpt, say("550 5.1.1 User unknown"));
    let relay = world.config().start();
    refused(&relay, &["a", "b", "c", "d", "e", "f"]);
    let all = until("six provisional entries", || {
        Some(listed(&relay)).filter(|all| all.len() == 6 && all.iter().all(|entry| entry["source"] == "wave"))
    });
    assert!(all.iter().all(|entry| days(entry) <= 7), "{all:#?}");
    // It takes one: so the others are gone.
    mx.always(At::to("there@x.test"), say("250 2.1.5 ok"));
    send(&relay, "there");
    relay.wait_event("delivered", "there@x.test");
    until("six firm entries", || {
        listed(&relay).iter().all(|entry| entry["source"] == "bounce" && days(entry) > 80).then_some(())
    });
}

#[test]
fn what_is_said_of_a_message_lists_only_whom_it_names() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::End, say("554 delivery error: dd This user doesn't have a yahoo.com account (gone@x.test) [-9]"));
    let provider = "[[provider]]\nname = \"yahoo\"\nmx = [\"mx.x.test\"]";
    let relay = world.config().table(provider).start();
    relay.submit("app@sender.test", &["gone@x.test", "there@x.test"], &mail("two", "x"));
    relay.wait_event("bounced", "gone@x.test");
    relay.wait_event("bounced", "there@x.test");
    relay.wait_event("suppressed", "gone@x.test");
    let names: Vec<Value> = listed(&relay).into_iter().map(|entry| entry["recipient"].clone()).collect();
    assert_eq!(names, ["gone@x.test"]);
}

#[test]
fn too_many_recipients_for_good_makes_the_next_message_smaller() {
    let (world, mx) = World::with_domain("x.test");
    for late in ["c@x.test", "d@x.test"] {
        mx.once(At::to(late), say("552 5.5.3 Too many recipients"));
    }
    let relay = world.config().start();
    let four = ["a@x.test", "b@x.test", "c@x.test", "d@x.test"];
    relay.submit("app@sender.test", &four, &mail("first", "x"));
    for late in ["c@x.test", "d@x.test"] {
        let bounced = relay.wait_event("bounced", late);
        assert_eq!(bounced["class"], "too-many-recipients", "{bounced}");
    }
    mx.wait_accepted(1);
    relay.submit("app@sender.test", &four, &mail("second", "x"));
    mx.wait_accepted(3);
    assert!(mx.accepted().iter().all(|taken| taken.to().len() == 2), "{:?}", sizes(&mx));
    assert_eq!(listed(&relay), Vec::<Value>::new());
}

fn sizes(mx: &Mx) -> Vec<usize> {
    mx.accepted().iter().map(|taken| taken.to().len()).collect()
}

#[test]
fn who_asks_to_come_back_is_asked_again_then() {
    for (at, reply) in [
        (At::Rcpt, "451 4.3.0 Overloaded, please come back in 20 minutes"),
        (At::Mail, "421 4.3.2 Shutting down, try again in 20 minutes"),
        (At::Greeting, "421 4.3.2 too busy, try again in 20 minutes"),
    ] {
        let (world, mx) = World::with_domain("x.test");
        mx.always(at.clone(), if at == At::Rcpt { say(reply) } else { close(reply) });
        let relay = world.config().set("queue", "retry", "[\"5h\"]").start();
        let id = relay.submit("app@sender.test", &["u@x.test"], &mail("later", "x"));
        let deferred = relay.wait_event("deferred", "u@x.test");
        let waits = until("the next attempt", || {
            let row = relay.queue().into_iter().find(|row| row["id"] == id.as_str())?;
            let next = row["next_attempt"].as_str()?.to_string();
            (next.as_str() > deferred["time"].as_str()?).then_some(minutes(&next) - minutes(deferred["time"].as_str()?))
        });
        assert!((18..=40).contains(&waits.rem_euclid(24 * 60)), "{at:?} {reply}: {waits} minutes");
    }
}

/// Of the day.
fn minutes(time: &str) -> i64 {
    let part = |range: std::ops::Range<usize>| time.get(range).and_then(|digits| digits.parse::<i64>().ok()).unwrap();
    part(11..13) * 60 + part(14..16)
}
