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
fn a_domain_and_everything_are_paused_over_a_kill_until_they_are_resumed() {
    let (world, mx) = outlook();
    world.domain("other.test", &[(10, &mx)]);
    let mut relay = world.config().table(OUTLOOK).start();
    let said = relay.ok(&["resume", "--domain", "mail.test"]);
    assert_eq!(said, "mail to mail.test was not paused: nothing changed\n");
    let said = relay.ok(&["pause", "--domain", "mail.test"]);
    assert!(said.contains("weir resume --domain mail.test"), "{said}");
    submit(&relay, 3);
    relay.submit("app@sender.test", &["o@other.test"], &mail("other", "x"));
    relay.wait_event("delivered", "o@other.test");
    until("the other to have ended", || (relay.queue().len() == 3).then_some(()));
    relay.kill();
    relay.run();
    let paused = until("three to wait", || {
        let lanes = relay.json(&["status"]);
        lanes.into_iter().find(|lane| lane["domain"] == "mail.test" && lane["waiting"] == 3)
    });
    assert_eq!((&paused["state"], &paused["source"]), (&"paused".into(), &"*".into()), "{paused}");
    let text = relay.ok(&["status"]);
    assert!(text.contains("mail to mail.test: paused") && text.contains("3 wait"), "{text}");
    let waiting = relay.queue();
    let shown = relay.ok(&["queue", "show", waiting[0]["id"].as_str().unwrap()]);
    assert!(shown.contains("weir resume --domain mail.test"), "{shown}");
    assert_eq!(waiting[0]["state"], "waiting", "{waiting:?}");
    relay.ok(&["queue", "flush"]);
    stays(Duration::from_millis(300), "nothing of it to go out", || mx.accepted_count() == 1);

    let said = relay.ok(&["pause", "--all"]);
    assert!(said.starts_with("everything: nothing is sent until an operator says `weir resume --all`\n"), "{said}");
    assert!(said.contains("everything: 3 wait"), "{said}");
    relay.ok(&["resume", "--domain", "mail.test"]);
    relay.kill();
    relay.run();
    let all = until("everything to be paused", || {
        relay.json(&["status"]).into_iter().find(|lane| lane["provider"] == "*" && lane["waiting"] == 3)
    });
    assert_eq!((&all["state"], &all["domain"]), (&"paused".into(), &Value::Null), "{all}");
    assert!(relay.ok(&["status"]).contains("nothing goes until `weir resume --all`"));
    assert_eq!(relay.ok(&["pause", "--all"]).lines().count(), 2, "it was so already, and what waits");
    stays(Duration::from_millis(300), "nothing to go out", || mx.accepted_count() == 1);
    relay.ok(&["resume", "--all"]);
    mx.wait_accepted(4);
    relay.assert_settled();
}

#[test]
fn what_was_learned_is_forgotten_on_demand_and_stays_forgotten() {
    let (world, mx) = outlook();
    mx.always(At::Mail, say(BLOCK));
    let mut relay = world.config().table(OUTLOOK).start();
    submit(&relay, 3);
    wait_state(&relay, "blocked");
    for (arguments, names) in [
        (&["forget", "outlok"][..], "no such provider: outlok; there are"),
        (&["forget", "outlook", "--source", "b"], "no such source: b; there are default"),
    ] {
        let output = relay.command(arguments);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains(names), "{text}");
    }
    mx.relent(At::Mail);
    let said = relay.ok(&["forget", "outlook", "--source", "default"]);
    assert!(said.starts_with("outlook from default: forgotten, an operator says so: the block until "), "{said}");
    mx.wait_accepted(2);
    let resumed = until("the lane to be said open", || Some(relay.events_of("resumed")).filter(|all| !all.is_empty()));
    assert_eq!(resumed.len(), 1, "{resumed:#?}");
    assert_eq!((&resumed[0]["provider"], &resumed[0]["source"]), (&"outlook".into(), &"default".into()));
    relay.kill();
    relay.run();
    submit(&relay, 1);
    mx.wait_accepted(3);
    assert_ne!(lane(&relay)["state"], "blocked");
    assert!(relay.ok(&["forget", "gmail"]).contains("nothing to forget"));
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
        said.lines().last().is_some_and(|line| line.starts_with(
            "cleared blocked outlook default: outlook from default: mail goes again, the block is over after "
        )),
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
