//! What a receiver's refusals of a lane, a sender or a client mean on the wire: waits that are kept, messages that are left
//! as they were, others that go on.

use std::time::Duration;

use serde_json::Value;

use crate::kit::mx::Act;
use crate::kit::{At, Mx, Relay, World, close, mail, now, say, stays, until};

const RP_001: &str = "421 RP-001 (BAY004) Unfortunately, some messages from 127.0.0.1 weren't sent. Please try again. We have \
                      limits for how many messages can be sent per hour and per day.";
const RP_002: &str = "421 RP-002 The mail server IP connecting to Outlook.com server has exceeded the rate limit allowed on \
                      this connection. Reason for rate limitation is related to IP/domain reputation.";
const RP_003: &str = "421 RP-003 The mail server IP connecting to Outlook.com server has exceeded the connection limit \
                      allowed. Reason for limitation is related to IP/domain reputation.";
const RATE_650: &str = "451 4.7.650 The mail server [127.0.0.1] has been temporarily rate limited due to IP reputation. For \
                        e-mail delivery information, see https://postmaster.live.com (S843)";
const CONNECTIONS_652: &str =
    "451 4.7.652 The mail server [127.0.0.1] has exceeded the maximum number of connections. (S3115)";

const UNKNOWN: &str = "550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).";

/// A host of Microsoft's for `mail.test`.
pub(crate) fn outlook() -> (World, Mx) {
    let world = World::new();
    let mx = world.host("mx.olc.test");
    world.domain("mail.test", &[(10, &mx)]);
    (world, mx)
}

pub(crate) fn provider(keys: &str) -> String {
    format!("[[provider]]\nname = \"outlook\"\nmx = [\"*.olc.test\"]\n{keys}")
}

fn submit(relay: &Relay, count: usize, domain: &str) {
    let mut client = relay.client();
    for n in 0..count {
        client.submit("app@sender.test", &[&format!("u{n}@{domain}")], &mail(&format!("m{n}"), "x"));
    }
}

pub(crate) fn lane(relay: &Relay) -> Value {
    let lanes = relay.json(&["status"]);
    lanes.into_iter().find(|lane| lane["provider"] == "outlook").unwrap_or_default()
}

/// The receiver says it to whatever comes, on four connections at once, and relents after a while.
fn refused(at: &At, act: &Act, pause: &str, wait: Duration) {
    let (world, mx) = outlook();
    let other = world.host("mx.other.test");
    world.domain("other.test", &[(10, &other)]);
    mx.always(at.clone(), act.clone());
    let keys = format!("max_connections = 4\ninitial_connections = 4\npause = \"{pause}\"");
    let relay = world.config().table(&provider(&keys)).start();
    let begun = now();
    submit(&relay, 12, "mail.test");
    until("the lane to be slowed", || {
        let slowed = |event: &Value| {
            event["provider"] == "outlook" && ["paused", "throttled"].iter().any(|kind| event["event"] == *kind)
        };
        relay.events().iter().any(slowed).then_some(())
    });
    submit(&relay, 5, "other.test");
    other.wait_accepted(5);
    until("every connection to be closed", || (mx.open() == 0).then_some(()));
    let tried = mx.connections();
    assert!(tried <= 4, "pressed on: {tried} connections");
    let waiting: Vec<Value> = relay.queue().into_iter().filter(|d| d["provider"] == "outlook").collect();
    assert_eq!(waiting.len(), 12);
    assert!(waiting.iter().all(|delivery| delivery["attempts"] == 0), "{waiting:#?}");
    mx.relent(at.clone());
    let left = (begun + wait).saturating_duration_since(now());
    stays(left.saturating_sub(Duration::from_millis(100)), "no connection before the wait is over", || {
        mx.connections() == tried
    });
    let first = until("the first to be accepted", || mx.accepted().first().cloned());
    assert!(first.replied >= begun + wait, "it came {:?} after the start", first.replied - begun);
    assert!(
        ["u0@mail.test", "u1@mail.test", "u2@mail.test", "u3@mail.test"].contains(&first.to()[0]),
        "{:?} is not from the head of the line",
        first.to()
    );
    assert_eq!(relay.events_of("deferred"), Vec::<Value>::new());
    // How fast the rest follows is slow start's business.
    mx.wait_accepted_at_least(2);
}

#[test]
fn rp_001_stops_the_lane_for_its_wait_and_counts_no_attempt() {
    refused(&At::Mail, &close(RP_001), "80m", Duration::from_secs(4));
}

#[test]
fn rp_002_lets_the_successors_wait_and_counts_no_attempt() {
    refused(&At::Mail, &close(RP_002), "80s", Duration::from_secs(4));
}

#[test]
fn rp_003_at_the_greeting_keeps_connections_away_and_counts_no_attempt() {
    refused(&At::Greeting, &close(RP_003), "200s", Duration::from_secs(4));
}

#[test]
fn rate_limit_650_stops_the_lane_for_four_times_its_wait_and_counts_no_attempt() {
    refused(&At::Mail, &say(RATE_650), "10s", Duration::from_secs(4));
}

#[test]
fn connection_limit_652_in_a_transaction_ends_the_connection_and_counts_no_attempt() {
    refused(&At::Mail, &say(CONNECTIONS_652), "200s", Duration::from_secs(4));
}

/// Every recipient is unknown there, until the receiver relents.
fn wave() -> (World, Mx, Relay, String) {
    let (world, mx) = outlook();
    mx.always(At::Rcpt, say(UNKNOWN));
    let relay = world.config().set("bounces", "mode", "\"none\"").table(&provider("pause = \"1s\"")).start();
    submit(&relay, 22, "mail.test");
    let id = until("a wave", || {
        let waves = relay.json(&["suppress", "list", "--waves"]);
        waves.first().and_then(|wave| wave["wave"].as_str().map(str::to_string))
    });
    let alert = until("the alert", || relay.events_of("alert").into_iter().next());
    let remedy = alert["remedy"].as_str().unwrap_or_default();
    assert!(
        remedy.contains(&format!("weir suppress confirm {id}"))
            && remedy.contains(&format!("weir suppress remove --wave {id}")),
        "{alert}"
    );
    relay.wait_events(22, "bounced", |_| true);
    // Whoever takes the wave off the list takes all of it.
    relay.wait_events(22, "suppressed", |_| true);
    mx.relent(At::Rcpt);
    (world, mx, relay, id)
}

/// Recipients that the wave put onto the list.
fn listed(relay: &Relay, id: &str) -> Vec<String> {
    let entries = relay.json(&["suppress", "list", "--wave", id]);
    entries.iter().filter_map(|entry| entry["recipient"].as_str().map(str::to_string)).collect()
}

#[test]
fn a_wave_of_unknown_recipients_is_listed_provisionally_and_undone_by_one_command() {
    let (_world, mx, relay, id) = wave();
    let all = until("the wave's entries", || Some(listed(&relay, &id)).filter(|all| all.len() >= 2));
    let mut client = relay.client();
    client.ask("MAIL FROM:<app@sender.test>", "250");
    client.ask(&format!("RCPT TO:<{}>", all[0]), "550");
    client.ask("RSET", "250");
    assert!(relay.ok(&["suppress", "remove", "--wave", &id]).contains("removed"));
    assert!(listed(&relay, &id).is_empty());
    client.submit("app@sender.test", &[&all[0]], &mail("again", "x"));
    let got = mx.wait_accepted(1);
    assert_eq!(got[0].to(), [all[0].as_str()]);
}

#[test]
fn a_wave_that_is_confirmed_stays_on_the_list() {
    let (_world, _mx, relay, id) = wave();
    let all = until("the wave's entries", || Some(listed(&relay, &id)).filter(|all| all.len() >= 2));
    relay.ok(&["suppress", "confirm", &id]);
    assert!(relay.json(&["suppress", "list", "--waves"]).is_empty());
    let mut client = relay.client();
    client.ask("MAIL FROM:<app@sender.test>", "250");
    client.ask(&format!("RCPT TO:<{}>", all[0]), "550");
}

#[test]
fn a_client_that_mails_unknown_names_everywhere_is_slowed_and_named() {
    let world = World::new();
    let hosts = ["one", "two"].map(|name| (name, world.host(&format!("mx.{name}.test"))));
    for (name, mx) in &hosts {
        world.domain(&format!("{name}.test"), &[(10, mx)]);
        mx.always(At::Rcpt, say("550 5.1.1 no such user"));
    }
    let relay = world.config().set("bounces", "mode", "\"none\"").start();
    // Too few at each of them for a wave.
    submit(&relay, 12, "one.test");
    relay.wait_events(12, "bounced", |_| true);
    submit(&relay, 8, "two.test");
    let alert = until("the alert", || relay.events_of("alert").into_iter().next());
    assert!(alert["text"].as_str().is_some_and(|text| text.contains("127.0.0.1")), "{alert}");
    let refusal = until("the client to be slowed", || {
        let mut client = relay.client();
        client.send("MAIL FROM:<app@sender.test>");
        Some(client.reply()).filter(|reply| !reply.starts_with('2'))
    });
    assert!(refusal.starts_with("450 4.7.1") && refusal.contains("unknown"), "{refusal}");
}

fn with_header(header: &str, subject: &str) -> Vec<u8> {
    [format!("{header}\r\n").into_bytes(), mail(subject, "x")].concat()
}

#[test]
fn urgent_mail_goes_before_bulk_mail_in_a_paced_lane() {
    let (world, mx) = outlook();
    let relay =
        world.config().table(&provider("max_connections = 1\ninitial_connections = 1\nmax_rate = \"120/min\"")).start();
    relay.ok(&["pause", "outlook"]);
    let mut client = relay.client();
    let unsubscribe = "List-Unsubscribe: <https://list.test/u>";
    for n in 0..4 {
        let to = format!("bulk{n}@mail.test");
        client.submit("news@sender.test", &[&to], &with_header(unsubscribe, "news"));
    }
    client.submit("app@sender.test", &["asked@mail.test"], &with_header("X-Weir-Class: bulk", "asked"));
    client.submit("app@sender.test", &["normal@mail.test"], &mail("normal", "x"));
    client.submit("app@sender.test", &["login@mail.test"], &with_header("X-Weir-Class: high", "code"));
    until("all to wait", || (lane(&relay)["waiting"] == 7).then_some(()));
    relay.ok(&["resume", "outlook", "--force"]);
    let got = mx.wait_accepted(7);
    let order: Vec<&str> = got.iter().map(|t| t.to()[0]).collect();
    assert_eq!(order[..2], ["login@mail.test", "normal@mail.test"], "{order:?}");
    assert!(got.iter().all(|t| t.header("X-Weir-Class").is_none()), "the header is ours alone");
    let took = got[6].replied.duration_since(got[0].replied);
    assert!(took >= Duration::from_secs(2), "seven messages at 120 a minute in {took:?}");
}

#[test]
fn status_and_queue_show_say_when_what_waits_will_be_gone() {
    let (world, mx) = outlook();
    let relay =
        world.config().table(&provider("max_connections = 1\ninitial_connections = 1\nmax_rate = \"60/min\"")).start();
    submit(&relay, 90, "mail.test");
    mx.wait_accepted_at_least(3);
    let lane = lane(&relay);
    let (pace, waiting) = (lane["pace"].as_f64().unwrap_or(0.0), lane["waiting"].as_u64().unwrap_or(0));
    assert!(pace > 0.0 && pace <= 60.0 && (50..=87).contains(&waiting), "{lane}");
    assert!(!lane["empty_at"].is_null(), "{lane}");
    let text = relay.ok(&["status"]);
    assert!(text.contains("/min, empty about"), "{text}");
    let last = relay.queue().into_iter().find(|d| d["recipients"].to_string().contains("u89@")).expect("the last one");
    let shown = relay.ok(&["queue", "show", last["id"].as_str().unwrap()]);
    assert!(shown.contains("after ") && shown.contains("others"), "{shown}");
}

#[test]
fn mail_that_was_rerouted_keeps_its_way_over_a_restart() {
    let (world, mx) = outlook();
    let smart = world.host("smart.elsewhere.test");
    smart.always(At::Rcpt, say("450 4.2.0 not yet"));
    let mut relay = world.config().table(&provider("")).start();
    relay.ok(&["pause", "outlook"]);
    submit(&relay, 3, "mail.test");
    until("three to wait", || (lane(&relay)["waiting"] == 3).then_some(()));
    relay.ok(&["queue", "reroute", "--provider", "outlook", "--to", &smart.address().to_string()]);
    relay.wait_events(3, "deferred", |_| true);
    relay.kill();
    relay.run();
    smart.relent(At::Rcpt);
    smart.wait_accepted(3);
    assert_eq!(mx.connections(), 0, "the paused receiver was not asked");
    relay.wait_queue_empty();
}
