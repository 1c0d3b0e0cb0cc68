//! What happened, as the commands tell it from the event log: `weir events`, `weir trace`, and `weir mcp` for programs.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::kit::relay::WEIR;
use crate::kit::{At, Mx, Relay, World, mail, say, until};

/// A relay that has delivered to `u@x.test`, returned `gone@x.test` and put off `later@x.test`; the id of that message.
fn with_a_past() -> (World, Mx, Relay, String) {
    let world = World::new();
    let mx = world.host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    mx.always(At::to("gone@x.test"), say("550 5.1.1 no such user"));
    mx.always(At::to("later@x.test"), say("450 4.2.1 \u{1b}[2Jnot now"));
    let relay = world.config().set("queue", "retry", "[\"1h\"]").set("bounces", "mode", "\"none\"").start();
    let id = relay.submit("app@sender.test", &["u@x.test", "gone@x.test", "later@x.test"], &mail("past", "x"));
    relay.wait_event("delivered", "u@x.test");
    relay.wait_event("bounced", "gone@x.test");
    relay.wait_event("deferred", "later@x.test");
    (world, mx, relay, id)
}

fn follow(relay: &Relay, arguments: &[&str]) -> Child {
    let mut command = Command::new(WEIR);
    command.args(["events", "--follow", "--config"]).arg(relay.config_file()).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("start weir events")
}

#[test]
fn events_tells_the_log_in_words_and_as_it_is() {
    let (_world, _mx, mut relay, id) = with_a_past();
    let text = relay.ok(&["events"]);
    for part in [
        format!("accepted    {id} from app@sender.test at 127.0.0.1: 3 recipients, "),
        format!("delivered   {id} to u@x.test at mx.x.test ("),
        format!("bounced     {id} to gone@x.test at mx.x.test ("),
        "no such user\n".to_string(),
        format!("deferred    {id} to later@x.test at mx.x.test (attempt 1, "),
        "450 4.2.1 ?[2Jnot now\n".to_string(),
    ] {
        assert!(text.contains(&part), "{part} is missing in\n{text}");
    }
    assert_eq!(relay.json(&["events"]), relay.events());
    relay.stop();
    assert_eq!(relay.json(&["events"]), relay.events(), "also without a running relay");
}

#[test]
fn events_are_filtered() {
    let (_world, _mx, relay, id) = with_a_past();
    for (arguments, expected) in [
        (&["--kind", "bounced,delivered"][..], 2),
        (&["--recipient", "U@X.test"], 1),
        (&["--recipient", "@x.test", "--kind", "deferred"], 1),
        (&["--sender", "app@sender.test", "--kind", "accepted"], 1),
        (&["--sender", "<>"], 0),
        (&["--id", &id, "--kind", "delivered,bounced,deferred,accepted"], 4),
        (&["--message-id", "past@sender.test", "--kind", "accepted"], 1),
        (&["--user", "nobody"], 0),
        (&["--since", "1h", "--kind", "delivered"], 1),
        (&["--until", "1h"], 0),
        (&["--last", "2", "--recipient", "@x.test"], 2),
        (&["--provider", "mx.elsewhere.test"], 0),
    ] {
        let found = relay.json(&[&["events"], arguments].concat());
        assert_eq!(found.len(), expected, "{arguments:?}: {found:#?}");
    }
    let last = relay.json(&["events", "--last", "1"]);
    assert_eq!(last.last(), relay.events().last());
}

#[test]
fn follow_goes_on_until_it_is_interrupted_or_nobody_reads() {
    let (_world, mx, relay, _) = with_a_past();
    let mut child = follow(&relay, &["--kind", "delivered"]);
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    assert!(lines.next().is_some_and(|line| line.unwrap().contains("u@x.test")), "what was there before");
    relay.submit("app@sender.test", &["new@x.test"], &mail("new", "x"));
    assert!(lines.next().is_some_and(|line| line.unwrap().contains("new@x.test")), "what came while it followed");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).expect("interrupt it");
    assert!(until("its end", || child.try_wait().unwrap()).success());
    assert!(lines.next().is_none());

    let mut child = follow(&relay, &["--last", "1"]);
    let mut reader = BufReader::new(child.stdout.take().expect("its output"));
    reader.read_line(&mut String::new()).expect("one line");
    drop(reader);
    assert!(until("its end without another event", || child.try_wait().unwrap()).success());
    drop(mx);
}

#[test]
fn trace_tells_a_story_from_log_and_queue_with_and_without_a_running_relay() {
    let (_world, _mx, mut relay, id) = with_a_past();
    let waiting = ["accepted    ", "(attempt 1, ", "450 4.2.1 ?[2Jnot now", "next attempt: in ", "; given up in 3d"];
    let check = |relay: &Relay, state: &str| {
        let text = relay.ok(&["trace", "Later@X.test"]);
        for part in waiting.iter().chain([&state]) {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let text = relay.ok(&["trace", "gone@x.test"]);
        for part in ["bounced     ", "550 5.1.1 no such user", "cause: ", "= bounced ", "on the suppression list"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        for subject in [id.as_str(), "<past@sender.test>", "past@sender.test"] {
            let stories = relay.json(&["trace", subject]);
            let ends: Vec<&str> = stories.iter().map(|story| story["end"].as_str().unwrap_or("none")).collect();
            assert_eq!(ends, ["bounced", "none", "delivered"], "by recipient: {stories:#?}");
            assert!(stories.iter().all(|story| story["events"][0]["event"] == "accepted"));
            assert_eq!(stories[1]["queue"]["attempts"], 1);
        }
    };
    check(&relay, "= waiting; ");
    let output = relay.command(&["trace", "nobody@x.test"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("nothing is known of nobody@x.test") && said.contains("kept for 14d"), "{said}");
    relay.stop();
    check(&relay, "= waiting; ");
}

#[test]
fn trace_tells_of_mail_that_has_no_line_of_its_own_yet_and_counts_what_it_leaves_out() {
    let (_world, _mx, relay, _) = with_a_past();
    relay.ok(&["pause", "--all"]);
    for _ in 0..3 {
        relay.submit("app@sender.test", &["later@x.test"], &mail("more", "x"));
    }
    let text = relay.ok(&["trace", "later@x.test", "--last", "2"]);
    assert!(text.starts_with("2 stories are older than these"), "{text}");
    assert_eq!(text.matches("accepted    ").count(), 2, "{text}");
    assert_eq!(relay.json(&["trace", "later@x.test"]).len(), 4);
}

#[test]
fn a_program_asks_over_mcp_what_the_commands_tell() {
    let (_world, _mx, relay, id) = with_a_past();
    let mut command = Command::new(WEIR);
    command.args(["mcp", "--config"]).arg(relay.config_file());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start weir mcp");
    let mut input = child.stdin.take().expect("its input");
    let mut answers = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut ask = |request: Value| -> Value {
        writeln!(input, "{request}").expect("ask");
        let answer = answers.next().expect("an answer").expect("a line");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{answer}: {error}"))
    };
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {"protocolVersion": "2025-11-25"}});
    assert_eq!(ask(hello)["result"]["serverInfo"]["name"], "weir");
    for (tool, arguments, key, value) in [
        ("status", json!({}), "hostname", json!("relay.test")),
        ("queue_list", json!({"recipient": "later@x.test"}), "id", json!(id)),
        ("queue_show", json!({"id": id}), "attempts", json!(1)),
        ("trace", json!({"subject": "gone@x.test"}), "end", json!("bounced")),
        ("suppress_check", json!({"address": "gone@x.test"}), "suppressed", json!(true)),
        ("suppress_check", json!({"address": "u@x.test"}), "suppressed", json!(false)),
        ("events", json!({"kind": "delivered"}), "recipient", json!("u@x.test")),
        ("explain", json!({"reply": "550 5.1.1 no such user"}), "class", json!("recipient-unknown")),
    ] {
        let params = json!({"name": tool, "arguments": arguments});
        let answer = ask(json!({"jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": params}));
        let records = answer["result"]["structuredContent"]["records"].clone();
        let found = records.as_array().is_some_and(|records| records.iter().any(|record| record[key] == value));
        assert!(found, "{tool}: {answer:#}");
    }
    drop(input);
    assert!(until("its end", || child.try_wait().unwrap()).success());
}
