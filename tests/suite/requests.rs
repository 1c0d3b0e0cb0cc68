//! What a client asks for with MAIL beside delivery: priority (RFC 6710), a time by which (RFC 2852), a time before which not (RFC 4865).

use std::time::Duration;

use serde_json::Value;

use crate::kit::report::field;
use crate::kit::{At, Client, Config, Mx, Relay, Report, World, mail, say, stays, until};

/// A receiver at `x.test`, the sender's own host at `sender.test`, and the relay between them.
struct Scene {
    mx: Mx,
    home: Mx,
    relay: Relay,
    _world: World,
}

fn scene(change: impl FnOnce(Config) -> Config) -> Scene {
    let (world, mx) = World::with_domain("x.test");
    let home = world.host("home.sender.test");
    world.domain("sender.test", &[(10, &home)]);
    let relay = change(world.config()).start();
    Scene { mx, home, relay, _world: world }
}

impl Scene {
    fn submit(&self, parameters: &str, recipient: &str, content: &[u8]) -> String {
        let mut client = self.relay.client();
        client.ask(&format!("MAIL FROM:<app@sender.test> {parameters}"), "250");
        client.ask(&format!("RCPT TO:{recipient}"), "250");
        client.data(content)
    }

    fn report(&self) -> Report {
        Report::read(&self.home.wait_accepted(1)[0])
    }

    /// Nothing more comes, and no report.
    fn no_report(&self) {
        self.relay.wait_queue_empty();
        stays(Duration::from_millis(300), "no report", || self.home.connections() == 0);
    }
}

fn keyword(client: &Client, name: &str) -> Option<String> {
    client.keywords.iter().find(|k| k.split(' ').next() == Some(name)).cloned()
}

#[test]
fn who_may_relay_is_offered_them_with_their_limits_and_nobody_else() {
    let users = "[[relay.user]]\nname = \"app\"\npassword = \"secret\"";
    let (world, _mx) = World::with_domain("x.test");
    let relay = world.config().table(users).set("relay", "trusted_networks", "[\"127.0.0.1/32\"]").start();
    let client = relay.client();
    assert_eq!(keyword(&client, "MT-PRIORITY").as_deref(), Some("MT-PRIORITY MIXER"));
    assert_eq!(keyword(&client, "DELIVERBY").as_deref(), Some("DELIVERBY"));
    let release = keyword(&client, "FUTURERELEASE").expect("it is offered");
    let words: Vec<&str> = release.split(' ').collect();
    assert_eq!((words.len(), words[1]), (3, "259200"), "{release}");
    assert!(words[2].len() == 20 && words[2].ends_with('Z'), "{release}");

    let mut stranger = Client::connect_from([127, 0, 0, 9].into(), relay.address());
    stranger.hello();
    for name in ["MT-PRIORITY", "DELIVERBY", "FUTURERELEASE"] {
        assert_eq!(keyword(&stranger, name), None);
    }
    for parameter in ["MT-PRIORITY=3", "BY=60;R", "HOLDFOR=60", "HOLDUNTIL=2099-01-01T00:00:00Z"] {
        let said = stranger.ask(&format!("MAIL FROM:<a@b.test> {parameter}"), "555 5.5.4");
        assert!(said.contains(parameter.split('=').next().unwrap()), "{said}");
    }
}

#[test]
fn a_value_that_cannot_be_kept_to_is_refused_and_the_dialogue_goes_on() {
    let scene = scene(|c| c);
    let mut client = scene.relay.client();
    for parameters in [
        "MT-PRIORITY=10",
        "MT-PRIORITY=+1",
        "MT-PRIORITY",
        "BY=0;R",
        "BY=60",
        "BY=1234567890;N",
        "HOLDFOR=259300",
        "HOLDFOR=0",
        "HOLDUNTIL=2099-01-01T00:00:00Z",
        "HOLDUNTIL=tomorrow",
        "HOLDFOR=60 HOLDUNTIL=2026-01-01T00:00:00Z",
        "HOLDFOR=60 BY=30;R",
        "BY=60;R BY=60;N",
    ] {
        client.ask(&format!("MAIL FROM:<app@sender.test> {parameters}"), "501 5.5.4");
    }
    client.ask("MAIL FROM:<app@sender.test> MT-PRIORITY=-3 BY=120;NT HOLDUNTIL=2026-01-01T00:00:00Z", "250 2.1.0");
    client.ask("RSET", "250");
    // What the message itself asks for is looked at with what MAIL asked for.
    client.ask("MAIL FROM:<app@sender.test> HOLDFOR=60", "250");
    client.ask("RCPT TO:<u@x.test>", "250");
    client.ask("DATA", "354");
    client.send_bytes(b"X-Weir-Expire: 30s\r\nSubject: s\r\n\r\nx\r\n.\r\n");
    client.expect("550 5.6.0");
}

#[test]
fn they_are_passed_on_with_what_is_left_and_stand_in_our_trace() {
    let scene = scene(|c| c);
    scene.mx.offer(&["PIPELINING", "8BITMIME", "DSN", "MT-PRIORITY MIXER", "DELIVERBY 5"]);
    scene.mx.once(At::Mail, say("451 4.3.0 busy"));
    scene.submit("MT-PRIORITY=-4 BY=3600;R", "<u@x.test>", &mail("on", "x"));
    let got = scene.mx.wait_accepted(1).remove(0);
    let parameters = &got.mail_parameters;
    assert!(parameters.contains(&"MT-PRIORITY=-4".to_string()), "{parameters:?}");
    let by = parameters.iter().find_map(|p| p.strip_prefix("BY=")?.strip_suffix(";R")).expect("the time is passed on");
    let left: i64 = by.parse().unwrap();
    assert!((3500..=3600).contains(&left), "{left}");
    assert!(got.header("Received").unwrap().contains(" PRIORITY -4"), "{}", got.text());
    scene.no_report();
}

#[test]
fn what_is_not_offered_is_not_said() {
    let scene = scene(|c| c);
    scene.submit("MT-PRIORITY=9 BY=3600;R HOLDUNTIL=2026-01-01T00:00:00Z", "<u@x.test>", &mail("off", "x"));
    let got = scene.mx.wait_accepted(1).remove(0);
    let is_asked = |p: &String| ["MT-PRIORITY", "BY", "HOLD"].iter().any(|name| p.starts_with(name));
    assert!(!got.mail_parameters.iter().any(is_asked), "{:?}", got.mail_parameters);
    scene.no_report();
}

#[test]
fn a_message_that_is_late_with_r_comes_back_with_its_time() {
    let scene = scene(|c| c);
    scene.mx.always(At::Mail, say("451 4.3.0 busy"));
    scene.submit("BY=1;R", "<u@x.test>", &mail("late", "x"));
    let report = scene.report();
    let late = report.of("u@x.test");
    assert_eq!(field(late, "Action").as_deref(), Some("failed"));
    assert_eq!(field(late, "Status").as_deref(), Some("5.4.7"));
    assert!(field(&report.message, "Deliver-By-Date").is_some(), "{}", report.message);
    assert!(report.text.contains("within 1 seconds"), "{}", report.text);
    assert!(field(late, "Diagnostic-Code").is_some_and(|d| d.contains("busy")), "{late}");
    scene.relay.wait_event("expired", "u@x.test");
    scene.relay.assert_settled();
}

#[test]
fn a_host_that_needs_more_time_than_is_left_gets_nothing() {
    let scene = scene(|c| c);
    scene.mx.offer(&["DELIVERBY 120"]);
    scene.submit("BY=60;R", "<u@x.test>", &mail("short", "x"));
    let report = scene.report();
    assert_eq!(field(report.of("u@x.test"), "Status").as_deref(), Some("5.4.7"));
    assert_eq!(scene.mx.count("MAIL"), 0);
}

#[test]
fn a_message_that_is_late_with_n_is_told_of_once_and_tried_on() {
    let scene = scene(|c| c.set("bounces", "delay_after", "\"1h\""));
    scene.mx.always(At::Mail, say("451 4.3.0 busy"));
    scene.submit("BY=1;N", "<u@x.test>", &mail("notify", "x"));
    let report = scene.report();
    let late = report.of("u@x.test");
    assert_eq!(field(late, "Action").as_deref(), Some("delayed"));
    assert_eq!(field(late, "Status").as_deref(), Some("4.4.7"));
    assert!(field(late, "Will-Retry-Until").is_some(), "{late}");
    assert!(field(&report.message, "Deliver-By-Date").is_some(), "{}", report.message);
    scene.mx.relent(At::Mail);
    scene.mx.wait_accepted(1);
    // The receiver knows of no time: that is told too (RFC 2852 section 4.1.4.2).
    let passed_on = Report::read(&scene.home.wait_accepted(2)[1]);
    assert_eq!(field(passed_on.of("u@x.test"), "Action").as_deref(), Some("relayed"));
    scene.relay.wait_queue_empty();
    stays(Duration::from_millis(300), "two reports and no third", || scene.home.accepted_count() == 2);
    scene.relay.assert_settled();
}

#[test]
fn a_late_message_that_never_could_be_tried_is_told_of_over_a_kill() {
    let mut scene = scene(|c| c);
    scene.mx.offer(&["DELIVERBY"]);
    scene.relay.ok(&["pause", "--all"]);
    scene.submit("BY=2;N", "<u@x.test>", &mail("stuck", "x"));
    scene.relay.kill();
    scene.relay.run();
    // The report waits behind the pause as well.
    until("a report in the queue", || {
        let is_report = |row: &Value| row["sender"] == "";
        scene.relay.queue().iter().any(is_report).then_some(())
    });
    scene.relay.ok(&["resume", "--all"]);
    let report = scene.report();
    assert_eq!(field(report.of("u@x.test"), "Action").as_deref(), Some("delayed"));
    let got = scene.mx.wait_accepted(1).remove(0);
    assert!(got.mail_parameters.iter().any(|p| p.starts_with("BY=") && p.ends_with(";N")), "{:?}", got.mail_parameters);
}

#[test]
fn t_tells_of_every_host_and_never_tells_nobody() {
    let scene = scene(|c| c);
    scene.mx.offer(&["DSN", "DELIVERBY"]);
    scene.submit("BY=3600;RT", "<u@x.test>", &mail("trace", "x"));
    let report = scene.report();
    let passed_on = report.of("u@x.test");
    assert_eq!(field(passed_on, "Action").as_deref(), Some("relayed"));
    assert!(field(passed_on, "Status").is_some_and(|s| s.starts_with("2.")), "{passed_on}");
    assert!(scene.mx.accepted()[0].mail_parameters.iter().any(|p| p.ends_with(";RT")));
    scene.submit("BY=3600;NT", "<v@x.test> NOTIFY=NEVER", &mail("never", "x"));
    scene.mx.wait_accepted(2);
    scene.relay.wait_queue_empty();
    stays(Duration::from_millis(300), "one report", || scene.home.accepted_count() == 1);
}

#[test]
fn a_message_is_held_for_as_long_as_it_asks() {
    let scene = scene(|c| c);
    let id = scene.submit("HOLDFOR=3600", "<u@x.test>", &mail("hold", "x"));
    let row = scene.relay.queue().remove(0);
    assert_eq!(row["id"].as_str().map(|shown| shown.starts_with(&id)), Some(true), "{row}");
    let next = row["next_attempt"].as_str().expect("it is planned");
    let received = scene.relay.events_of("accepted")[0]["time"].as_str().unwrap().to_string();
    assert!(next > received.as_str(), "{next} {received}");
    stays(Duration::from_millis(300), "nobody gets it", || scene.mx.connections() == 0);
    scene.mx.always(At::to("u@x.test"), say("550 5.1.1 gone"));
    scene.relay.ok(&["queue", "flush"]);
    let report = scene.report();
    assert_eq!(field(&report.message, "Future-Release-Request").as_deref(), Some("for;3600"), "{}", report.message);
    // Until a moment that has just come.
    scene.submit("HOLDUNTIL=2026-01-01T00:00:00Z", "<v@x.test>", &mail("until", "x"));
    scene.mx.wait_accepted(1);
}
