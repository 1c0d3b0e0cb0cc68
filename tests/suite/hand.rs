//! The operator's hand on a receiver: pause, resume, reroute; what an alert says and when; what outlives a restart.

use std::time::Duration;

use serde_json::Value;

use crate::kit::{At, Mx, Relay, World, mail, say, stays, until};

/// What Microsoft says to an address on its list.
const BLOCK: &str = "550 5.7.1 Unfortunately, messages from [127.0.0.1] weren't sent. Please contact your Internet service \
                     provider since part of their network is on our block list (S3150).";

/// The host is one of Microsoft's, with one connection at a time.
const OUTLOOK: &str = "[[provider]]\nname = \"outlook\"\nmx = [\"*.olc.test\"]\nmax_connections = 1\ninitial_connections = 1\npause = \"2s\"";

fn outlook() -> (World, Mx) {
    let world = World::new();
    let mx = world.host("mx.olc.test");
    world.domain("mail.test", &[(10, &mx)]);
    (world, mx)
}

fn submit(relay: &Relay, count: usize) {
    let mut client = relay.client();
    for n in 0..count {
        client.submit("app@sender.test", &[&format!("u{n}@mail.test")], &mail(&format!("m{n}"), "x"));
    }
}

fn lane(relay: &Relay) -> Value {
    let lanes = relay.json(&["status"]);
    lanes.into_iter().find(|lane| lane["provider"] == "outlook").unwrap_or_default()
}

fn wait_state(relay: &Relay, state: &str) -> Value {
    until(&format!("the lane to be {state}"), || Some(lane(relay)).filter(|lane| lane["state"] == state))
}

#[test]
fn a_pause_holds_over_a_kill_until_it_is_resumed() {
    let (world, mx) = outlook();
    let mut relay = world.config().table(OUTLOOK).start();
    submit(&relay, 1);
    mx.wait_accepted(1);
    let said = relay.ok(&["pause", "outlook"]);
    assert!(said.contains("outlook"), "{said}");
    submit(&relay, 5);
    until("five to wait", || (lane(&relay)["waiting"] == 5).then_some(()));
    stays(Duration::from_millis(500), "nothing to go out", || mx.accepted_count() == 1);
    assert_eq!(lane(&relay)["state"], "paused");
    let text = relay.ok(&["status"]);
    for part in ["weir resume outlook", "outlook: 5 wait"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let waiting = relay.queue();
    let id = waiting[0]["id"].as_str().unwrap();
    let shown = relay.ok(&["queue", "show", id]);
    assert!(shown.contains("outlook") && shown.contains("paused"), "{shown}");
    // Not even flush sends anything.
    relay.ok(&["queue", "flush"]);
    relay.kill();
    relay.run();
    until("five to wait again", || (lane(&relay)["waiting"] == 5).then_some(()));
    assert_eq!(lane(&relay)["state"], "paused");
    stays(Duration::from_millis(500), "nothing to go out", || mx.accepted_count() == 1);
    relay.ok(&["resume", "outlook"]);
    mx.wait_accepted(6);
    assert_ne!(lane(&relay)["state"], "paused");
}

#[test]
fn a_provider_nobody_knows_is_an_error_that_names_those_there_are() {
    let (world, _mx) = outlook();
    let relay = world.config().table(OUTLOOK).start();
    for command in ["pause", "resume"] {
        let output = relay.command(&[command, "outlok"]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("outlok") && text.contains("outlook"), "{text}");
    }
}

#[test]
fn a_block_is_told_with_tag_and_remedy_and_resume_sends_one_probe() {
    let (world, mx) = outlook();
    mx.always(At::Mail, say(BLOCK));
    let folder = tempfile::tempdir().unwrap();
    let (script, told) = (folder.path().join("tell.sh"), folder.path().join("told"));
    std::fs::write(&script, "echo \"$WEIR_ALERT_STATE $WEIR_ALERT_KEY: $WEIR_ALERT_TEXT\" >> \"$1\"\n").unwrap();
    let command = format!("\"/bin/sh '{}' '{}'\"", script.display(), told.display());
    let relay = world.config().table(OUTLOOK).set("alerts", "command", &command).start();
    submit(&relay, 6);
    relay.wait_events(1, "bounced", |_| true);
    let lane = wait_state(&relay, "blocked");
    assert_eq!(lane["tag"], "S3150", "{lane}");
    assert!(lane["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{lane}");
    assert!(!lane["until"].is_null(), "the next probe: {lane}");
    let text = relay.ok(&["status"]);
    for part in ["blocked", "S3150", "what to do:", "the next probe"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let said = until("the alert", || std::fs::read_to_string(&told).ok().filter(|text| text.ends_with('\n')));
    assert!(said.starts_with("raised blocked outlook default: ") && said.contains("S3150"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    let alerts = relay.events_of("alert");
    assert_eq!(alerts.len(), 1, "{alerts:#?}");
    assert!(alerts[0]["remedy"].as_str().is_some_and(|remedy| remedy.contains("weir report outlook")), "{alerts:#?}");

    // The block lasts: one message finds out, and no other is risked.
    assert_eq!(mx.count("MAIL"), 1);
    relay.ok(&["resume", "outlook"]);
    until("the probe", || (mx.count("MAIL") == 2).then_some(()));
    wait_state(&relay, "blocked");
    stays(Duration::from_millis(500), "no more than the probe", || mx.count("MAIL") == 2);

    // It is over: the probe is taken and others follow.
    mx.relent(At::Mail);
    relay.ok(&["resume", "outlook"]);
    mx.wait_accepted(4);
    let said = until("the end of the alert", || {
        std::fs::read_to_string(&told).ok().filter(|text| text.lines().any(|line| line.starts_with("cleared")))
    });
    assert!(
        said.lines().last().is_some_and(|line| line.starts_with("cleared blocked outlook default: over: ")),
        "{said}"
    );
}

#[test]
fn what_waits_for_a_receiver_is_sent_another_way() {
    let (world, mx) = outlook();
    let smart = world.host("smart.elsewhere.test");
    let relay = world.config().table(OUTLOOK).start();
    relay.ok(&["pause", "outlook"]);
    submit(&relay, 5);
    until("five to wait", || (lane(&relay)["waiting"] == 5).then_some(()));
    let to = smart.address().to_string();
    let said = relay.ok(&["queue", "reroute", "--provider", "outlook", "--to", &to]);
    assert!(said.starts_with(&format!("rerouted to {to}: 5 messages, 5 recipients")), "{said}");
    smart.wait_accepted(5);
    assert_eq!(mx.accepted_count(), 0);
    relay.assert_settled();
}

#[test]
fn a_reload_takes_other_alerts() {
    let (world, mx) = outlook();
    mx.always(At::Mail, say(BLOCK));
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    // With a program to begin with: the first one takes a restart, as the sandbox foresees none.
    let relay = world.config().table(OUTLOOK).set("alerts", "command", "\"/bin/true\"").start();
    let command = format!("\"/usr/bin/touch '{}'\"", told.display());
    relay.reload(&world.config().table(OUTLOOK).set("alerts", "command", &command));
    submit(&relay, 1);
    until("the alert", || told.exists().then_some(()));
}
