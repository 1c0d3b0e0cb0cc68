//! Recipients who were refused for good are not written to any more; a block of our address is nobody's fault.

use crate::kit::mx::wait_at;
use crate::kit::{At, Gate, Mx, Relay, World, close, mail, say, stays, until};
use std::time::Duration;

use rustix::process::Signal;

const UNKNOWN: &str = "550 5.1.1 RESOLVER.ADR.RecipNotFound; not found";
const BLOCKED: &str = "550 5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet \
    service provider since part of their network is on our block list (S3150).";

#[test]
fn an_unknown_recipient_is_refused_at_rcpt_from_then_on() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::to("gone@x.test"), say(UNKNOWN));
    let mut relay = world.config().start();
    relay.submit("app@sender.test", &["Gone@x.test"], &mail("first", "x"));
    relay.wait_event("bounced", "Gone@x.test");
    relay.wait_events(1, "suppressed", |e| {
        e["recipient"].as_str().is_some_and(|r| r.eq_ignore_ascii_case("gone@x.test"))
    });

    for restarted in [false, true] {
        if restarted {
            relay.stop();
            relay.run();
        }
        let mut client = relay.client();
        client.ask("MAIL FROM:<app@sender.test>", "250");
        let reply = client.ask("RCPT TO:<gone@X.TEST>", "550 5.1.1");
        assert!(reply.contains("20"), "the date of the refusal is missing: {reply}");
        client.ask("RCPT TO:<u@x.test>", "250");
        client.data(&mail("second", "x"));
    }
    mx.wait_accepted(2);
    assert_eq!(mx.rcpts("gone@x.test"), 1);
    assert_eq!(relay.events_of("refused").len(), 2);
    relay.assert_settled();
}

#[test]
fn five_queued_messages_to_one_unknown_address_ask_for_it_once() {
    let (world, mx) = World::with_domain("x.test");
    let gate = Gate::new();
    mx.always(At::Greeting, wait_at(&gate));
    mx.always(At::to("gone@x.test"), say(UNKNOWN));
    let relay = world.config().start();
    for n in 0..5 {
        relay.submit("app@sender.test", &["gone@x.test"], &mail(&format!("m{n}"), "x"));
    }
    gate.open();
    let bounced = relay.wait_events(5, "bounced", |e| e["recipient"] == "gone@x.test");
    assert!(bounced.iter().all(|e| e.to_string().contains("RecipNotFound")), "the first refusal's words: {bounced:#?}");
    assert_eq!(mx.rcpts("gone@x.test"), 1);
    relay.assert_settled();
}

#[test]
fn a_block_of_our_address_suppresses_nobody() {
    for at in [At::Mail, At::Rcpt] {
        let (world, mx) = World::with_domain("x.test");
        mx.once(at, say(BLOCKED));
        let relay = world.config().start();
        relay.submit("app@sender.test", &["u@x.test"], &mail("blocked", "x"));
        let bounced = relay.wait_event("bounced", "u@x.test");
        assert_eq!(bounced["class"], "ip-block", "{bounced}");
        assert!(relay.events_of("suppressed").is_empty());
        assert!(relay.json(&["suppress", "list"]).is_empty());
        let mut client = relay.client();
        client.envelope("app@sender.test", &["u@x.test"]);
    }
}

#[test]
fn what_speaks_of_the_message_or_the_moment_suppresses_nobody() {
    for (at, reply) in [
        (At::Rcpt, "550 5.2.2 mailbox full"),
        (At::End, "550 5.1.1 said too late"),
        (At::End, "554 5.7.1 spam"),
        (At::Data, "554 5.5.1 no valid recipients"),
        (At::Greeting, "554 5.3.2 no"),
        (At::Rcpt, "550 5.7.1 relaying denied"),
    ] {
        let (world, mx) = World::with_domain("x.test");
        mx.always(at.clone(), if at == At::Greeting { close(reply) } else { say(reply) });
        let relay = world.config().start();
        relay.submit("app@sender.test", &["u@x.test"], &mail("hard", "x"));
        relay.wait_event("bounced", "u@x.test");
        assert!(relay.json(&["suppress", "list"]).is_empty(), "{at:?} {reply}");
    }
}

#[test]
fn the_list_is_kept_with_commands() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    relay.ok(&["suppress", "add", "Gone@x.test"]);
    let list = relay.json(&["suppress", "list"]);
    assert_eq!(list.len(), 1);
    for key in ["recipient", "class", "reply", "source", "first", "last", "hits", "expires"] {
        assert!(list[0].get(key).is_some(), "{key} is missing in {}", list[0]);
    }
    assert!(list[0]["recipient"].as_str().is_some_and(|r| r.eq_ignore_ascii_case("gone@x.test")));
    assert!(relay.ok(&["suppress", "check", "GONE@x.test"]).to_lowercase().contains("gone@x.test"));
    assert!(not_listed(&relay, "other@x.test"));
    assert_eq!(relay.ok(&["suppress", "count"]), "1 entry\n");

    let mut client = relay.client();
    client.ask("MAIL FROM:<app@sender.test>", "250");
    client.ask("RCPT TO:<gone@x.test>", "550 5.1.1");
    let export = relay.ok(&["suppress", "export"]);
    assert!(export.to_lowercase().contains("gone@x.test"), "{export}");

    relay.ok(&["suppress", "remove", "gone@x.test"]);
    assert!(relay.json(&["suppress", "list"]).is_empty());
    client.ask("RCPT TO:<gone@x.test>", "250");
    client.data(&mail("back", "x"));
    mx.wait_accepted(1);

    let file = relay.data_dir().join("export");
    std::fs::write(&file, export).unwrap();
    relay.ok(&["suppress", "import", file.to_str().unwrap()]);
    assert_eq!(relay.json(&["suppress", "list"]).len(), 1, "what export writes, import reads");
}

#[test]
fn the_list_can_be_exported_without_a_running_relay() {
    let world = World::new();
    let mut relay = world.config().start();
    relay.ok(&["suppress", "add", "gone@x.test"]);
    relay.stop();
    assert!(relay.ok(&["suppress", "export"]).contains("gone@x.test"));
}

#[test]
fn mail_that_waits_for_a_recipient_who_is_then_suppressed_is_not_tried_again() {
    let (world, mx) = World::with_domain("x.test");
    mx.once(At::Rcpt, say("450 4.2.1 not now"));
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    let id = relay.submit("app@sender.test", &["u@x.test"], &mail("waits", "x"));
    relay.wait_event("deferred", "u@x.test");
    relay.ok(&["suppress", "add", "u@x.test"]);
    relay.ok(&["queue", "flush"]);
    assert_eq!(relay.wait_event("bounced", "u@x.test")["id"], id.as_str());
    assert_eq!(mx.rcpts("u@x.test"), 1);
}

/// Waits behind `obstacle`, is suppressed meanwhile, and is let go by `clear`: nobody hears a word about it on the wire.
fn suppressed_while_it_waits(obstacle: impl Fn(&Mx, &mut Relay), clear: impl Fn(&Mx, &mut Relay)) {
    let (world, mx) = World::with_domain("x.test");
    let home = world.host("home.sender.test");
    world.domain("sender.test", &[(10, &home)]);
    mx.always(At::Greeting, close("421 4.3.2 closed today"));
    let mut relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    let ids: Vec<String> =
        (0..3).map(|n| relay.submit("app@sender.test", &["u@x.test"], &mail(&format!("m{n}"), "x"))).collect();
    let other = relay.submit("app@sender.test", &["v@x.test"], &mail("other", "x"));
    relay.wait_events(1, "deferred", |_| true);
    obstacle(&mx, &mut relay);
    relay.ok(&["suppress", "add", "U@x.test", "--reason", "550 5.1.1 gone since the summer"]);
    clear(&mx, &mut relay);
    relay.ok(&["queue", "flush"]);

    let bounced = relay.wait_events(3, "bounced", |e| e["recipient"] == "u@x.test");
    let mut found: Vec<&str> = bounced.iter().filter_map(|e| e["id"].as_str()).collect();
    found.sort_unstable();
    assert_eq!(found, ids);
    assert!(bounced.iter().all(|e| e["reply"] == "550 5.1.1 gone since the summer"), "{bounced:#?}");
    for report in home.wait_accepted(3) {
        assert!(report.text().contains("gone since the summer"), "{}", report.text());
    }
    assert_eq!(relay.wait_event("delivered", "v@x.test")["id"], other.as_str());
    relay.assert_settled();
    assert_eq!((mx.rcpts("u@x.test"), mx.count("MAIL")), (0, 1), "{:?}", mx.commands());
}

#[test]
fn who_is_suppressed_while_mail_for_him_is_held_is_not_written_to_after_its_release() {
    suppressed_while_it_waits(
        |mx, relay| {
            relay.ok(&["queue", "hold"]);
            mx.relent(At::Greeting);
        },
        |_, relay| drop(relay.ok(&["queue", "release"])),
    );
}

#[test]
fn who_is_suppressed_while_the_receiver_is_closed_is_not_written_to_when_it_opens() {
    suppressed_while_it_waits(|_, _| (), |mx, _| mx.relent(At::Greeting));
}

#[test]
fn who_is_suppressed_is_not_written_to_by_the_next_relay_either() {
    suppressed_while_it_waits(
        |_, _| (),
        |mx, relay| {
            relay.stop();
            mx.relent(At::Greeting);
            relay.run();
        },
    );
}

#[test]
fn five_thousand_entries_go_out_and_come_in_again_as_they_were() {
    let world = World::new();
    let relay = world.config().start();
    let lines: String = (0..5000).map(|n| format!("User.{n}@x{}.test,550 5.1.1 refused number {n}\n", n % 7)).collect();
    let imported = relay.command_with_input(&["suppress", "import"], lines.as_bytes());
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    let export = relay.ok(&["suppress", "export"]);
    assert_eq!(export.lines().count(), 5000);
    assert!(export.contains("refused number 4999"), "{}", &export[..500]);

    let mut other = world.config().start();
    let imported = other.command_with_input(&["suppress", "import", "-"], export.as_bytes());
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    assert_eq!(entries(&other.ok(&["suppress", "export"])), entries(&export));
    let mut client = other.client();
    client.ask("MAIL FROM:<app@sender.test>", "250");
    assert!(client.ask("RCPT TO:<user.4321@x2.test>", "550 5.1.1").contains("refused number 4321"));
    other.stop();
    assert_eq!(entries(&other.ok(&["suppress", "export"])), entries(&export), "without a running relay");
}

/// What an export says about each entry, apart from how it came onto the list.
fn entries(export: &str) -> Vec<serde_json::Value> {
    let entry = |line: &str| {
        let mut entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("source");
        }
        entry
    };
    export.lines().map(entry).collect()
}

#[test]
fn at_injection_drop_accepts_and_does_not_send() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().set("suppression", "at_injection", "\"drop\"").start();
    relay.ok(&["suppress", "add", "gone@x.test"]);
    relay.submit("app@sender.test", &["gone@x.test", "u@x.test"], &mail("drop", "x"));
    mx.wait_accepted(1);
    until("the record of the dropped recipient", || {
        relay.events().into_iter().find(|e| e["recipient"] == "gone@x.test" && e["event"] != "suppressed")
    });
    stays(Duration::from_millis(200), "no RCPT for it", || mx.rcpts("gone@x.test") == 0);
    relay.wait_queue_empty();
}

/// Refuses `count` recipients of x.test at RCPT, one message each, and waits until each has its end.
fn refuse_each(relay: &Relay, names: &[&str]) {
    for name in names {
        let address = format!("{name}@x.test");
        relay.submit("app@sender.test", &[&address], &mail("one", "x"));
        relay.wait_event("bounced", &address);
    }
}

#[test]
fn full_mailboxes_count_on_different_days_and_a_delivery_begins_anew() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Rcpt, say("552 5.2.2 mailbox full"));
    let relay = world.config().set("suppression", "after", "{ mailbox-full = 2 }").start();
    // Twice on one day is once. (Two messages around midnight would be two days: then the third proves nothing.)
    refuse_each(&relay, &["u", "u", "u"]);
    let listed = relay.json(&["suppress", "list"]).len();
    assert!(
        listed == 0 || relay.events_of("bounced").iter().map(day).collect::<std::collections::BTreeSet<_>>().len() > 1
    );
    mx.relent(At::Rcpt);
    relay.submit("app@sender.test", &["u@x.test"], &mail("fits", "x"));
    relay.wait_event("delivered", "u@x.test");
    assert!(relay.events_of("suppressed").len() <= 1);
}

fn day(event: &serde_json::Value) -> String {
    event["time"].as_str().unwrap_or_default().chars().take(10).collect()
}

#[test]
fn one_refusal_is_enough_where_the_options_say_so_and_what_it_said_is_kept() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::to("full@x.test"), say("552 5.2.2 mailbox full"));
    mx.always(At::to("odd@x.test"), say("550 5.9.9 never heard of such a thing"));
    let relay = world
        .config()
        .set("suppression", "after", "{ mailbox-full = 1, other = 1 }")
        .set("suppression", "keep", "{ mailbox-full = \"1d\", other = \"2d\" }")
        .start();
    relay.submit("app@sender.test", &["v@x.test"], &mail("one is taken", "x"));
    relay.wait_event("delivered", "v@x.test");
    refuse_each(&relay, &["full", "odd"]);
    relay.wait_events(2, "suppressed", |_| true);
    let list = relay.json(&["suppress", "list"]);
    for (entry, class) in list.iter().zip(["mailbox-full", "other"]) {
        assert_eq!((&entry["class"], &entry["source"], &entry["hits"]), (&class.into(), &"bounce".into(), &1.into()));
        assert!(entry["expires"].is_string() && entry["provider"].is_string() && entry["rule"].is_string(), "{entry}");
    }
    assert_eq!(list.len(), 2);
}

#[test]
fn what_one_sender_may_not_write_to_another_may() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(
        At::to("closed@x.test"),
        say("550 5.7.124 RESOLVER.RST.RestrictedToRecipientsPermission; sender not in allowed-senders list"),
    );
    let provider = "[[provider]]\nname = \"outlook\"\nmx = [\"mx.x.test\"]";
    let relay = world.config().table(provider).set("suppression", "after", "{ recipient-policy = 1 }").start();
    refuse_each(&relay, &["closed"]);
    let event = relay.wait_event("suppressed", "closed@x.test");
    assert_eq!(event["class"], "recipient-policy", "{event}");
    let mut client = relay.client();
    client.ask("MAIL FROM:<other@sender.test>", "250");
    client.ask("RCPT TO:<closed@x.test>", "550 5.1.1");
    client.ask("RSET", "250");
    client.ask("MAIL FROM:<app@elsewhere.test>", "250");
    client.ask("RCPT TO:<closed@x.test>", "250");
    let entries = relay.json(&["suppress", "check", "closed@x.test"]);
    assert_eq!(entries[0]["sender_domain"], "sender.test", "{entries:?}");
}

/// A list with two open waves, as the guard leaves them.
pub(crate) fn with_waves(relay: &Relay) {
    let mut lines = String::new();
    for (wave, count) in [("w1", 3), ("w2", 1200)] {
        for n in 0..count {
            lines += &format!(
                "{{\"recipient\":\"{wave}.{n}@x.test\",\"class\":\"recipient-unknown\",\"reply\":\"550 5.5.0 unknown\",\
                 \"source\":\"wave\",\"wave\":\"{wave}\",\"terms\":0,\"provider\":\"outlook\",\"expires\":\"2099-01-01T00:00:00Z\"}}\n"
            );
        }
    }
    let imported = relay.command_with_input(&["suppress", "import"], lines.as_bytes());
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
}

#[test]
fn one_command_confirms_a_wave_and_one_undoes_it() {
    let world = World::new();
    let relay = world.config().start();
    with_waves(&relay);
    let mut waves = relay.json(&["suppress", "list", "--waves"]);
    waves.sort_by_key(|wave| wave["wave"].to_string());
    let counts: Vec<_> =
        waves.iter().map(|wave| (wave["wave"].as_str().unwrap(), wave["entries"].as_u64().unwrap())).collect();
    assert_eq!(counts, [("w1", 3), ("w2", 1200)]);

    assert!(relay.ok(&["suppress", "confirm", "w1"]).contains("3 entries"));
    let entries = relay.json(&["suppress", "list", "--wave", "w1"]);
    assert!(entries.len() == 3 && entries.iter().all(|entry| entry["source"] == "bounce"), "{entries:?}");
    assert!(entries[0]["expires"].as_str().is_some_and(|expires| !expires.starts_with("2099")), "{}", entries[0]);

    assert!(relay.ok(&["suppress", "remove", "--wave", "w2", "--dry-run"]).starts_with("1,200 entries would be"));
    assert_eq!(relay.json(&["suppress", "list"]).len(), 1203);
    assert!(relay.ok(&["suppress", "remove", "--wave", "w2"]).starts_with("1,200 entries removed"));
    assert_eq!(relay.json(&["suppress", "list"]).len(), 3);
    assert!(relay.json(&["suppress", "list", "--waves"]).is_empty());
    assert!(!relay.command(&["suppress", "confirm", "w2"]).status.success(), "there is no such wave any more");
    let mut client = relay.client();
    client.ask("MAIL FROM:<app@sender.test>", "250");
    client.ask("RCPT TO:<w1.0@x.test>", "550 5.1.1");
    client.ask("RCPT TO:<w2.0@x.test>", "250");
}

#[test]
fn entries_are_removed_by_what_they_have_in_common() {
    let world = World::new();
    let relay = world.config().start();
    with_waves(&relay);
    relay.ok(&["suppress", "add", "a@y.test", "--class", "mailbox-full"]);
    for (options, left) in [
        (&["--class", "recipient-disabled"][..], 1204),
        (&["--domain", "y.test"], 1203),
        (&["--until", "1h"], 1203),
        (&["--provider", "outlook", "--since", "1h"], 0),
    ] {
        relay.ok(&[&["suppress", "remove"], options].concat());
        assert_eq!(relay.json(&["suppress", "list"]).len(), left, "{options:?}");
    }
    assert!(!relay.command(&["suppress", "remove"]).status.success(), "everything is never meant");
}

#[test]
fn a_list_is_imported_as_csv_and_without_a_running_relay() {
    let world = World::new();
    let mut relay = world.config().start();
    with_waves(&relay);
    let csv = relay.ok(&["suppress", "export", "--format", "csv"]);
    let json = relay.ok(&["suppress", "export"]);
    assert_eq!((csv.lines().count(), json.lines().count()), (1204, 1203));
    relay.ok(&["suppress", "remove", "--class", "recipient-unknown"]);
    relay.stop();
    let imported = relay.command_with_input(&["suppress", "import"], csv.as_bytes());
    assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    assert_eq!(relay.ok(&["suppress", "export"]), json);
    relay.run();
    assert_eq!(relay.json(&["suppress", "list", "--waves"]).len(), 2);

    let bad = relay.command_with_input(&["suppress", "import", "--strict"], b"new@x.test\nnobody\n");
    assert!(!bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("line 2"), "{bad:?}");
    assert!(not_listed(&relay, "new@x.test"));
    let bad = relay.command_with_input(&["suppress", "import"], b"new@x.test\nnobody\nNEW@x.test\n");
    assert!(
        !bad.status.success() && String::from_utf8_lossy(&bad.stdout).starts_with("1 added, 0 updated, 1 named"),
        "{bad:?}"
    );
}

/// A relay that is killed while it imports has written whole entries and no others; the same file brings the rest.
#[test]
fn an_import_that_breaks_off_keeps_what_it_had_and_is_made_whole_by_the_next() {
    const LINES: usize = 60_000;
    let world = World::new();
    let mut relay = world.config().start();
    let lines: String = (0..LINES).map(|n| format!("u{n}@x{}.test;gone, number {n}\n", n % 11)).collect();
    let file = relay.data_dir().join("list.csv");
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap().to_string();
    let import = std::thread::scope(|scope| {
        let import = scope.spawn(|| relay.command(&["suppress", "import", &file]));
        until("some entries of the import", || {
            (!relay.json(&["suppress", "list", "--limit", "1"]).is_empty()).then_some(())
        });
        // Another's entry is written meanwhile.
        relay.ok(&["suppress", "add", "between@x.test"]);
        relay.signal(Signal::KILL);
        import.join().unwrap()
    });
    relay.wait_end();
    if !import.status.success() {
        let said = String::from_utf8_lossy(&import.stderr);
        assert!(said.contains("import the same file again"), "{said}");
    }
    relay.run();
    assert!(relay.ok(&["suppress", "check", "between@x.test"]).contains("operator"));
    let again = relay.ok(&["suppress", "import", &file]);
    assert!(again.contains(" added, "), "{again}");
    let export = relay.ok(&["suppress", "export"]);
    assert_eq!(export.lines().count(), LINES + 1);
    for entry in entries(&export) {
        assert!(
            entry["reply"]
                .as_str()
                .is_some_and(|reply| reply.starts_with("gone, number") || reply.contains("operator"))
        );
    }
}

#[test]
fn what_has_run_out_holds_back_nobody_and_nothing_is_put_back_into_the_past() {
    let world = World::new();
    let relay = world.config().start();
    let said = relay.command_with_input(&["suppress", "import"], b"");
    assert!(
        said.status.success() && String::from_utf8_lossy(&said.stdout).starts_with("0 added, 0 updated"),
        "{said:?}"
    );
    let line = b"\xEF\xBB\xBFEmail;Expires;Score\r\nOld@x.test;2020-01-01;7\r\n\"new@x.test\";2099-01-01;8\r\n";
    let said = relay.command_with_input(&["suppress", "import"], line);
    let words = String::from_utf8_lossy(&said.stdout).to_string();
    assert!(said.status.success() && words.starts_with("2 added, 0 updated, 1 run out already"), "{said:?}");
    assert!(not_listed(&relay, "old@x.test"));
    let past = relay.command(&["suppress", "add", "new@x.test", "--expires", "2020-01-01T00:00:00Z"]);
    let said = String::from_utf8_lossy(&past.stderr).to_string();
    assert!(!past.status.success() && said.contains("nothing was changed") && said.contains("past"), "{said}");
    assert!(relay.ok(&["suppress", "check", "NEW@x.test"]).contains("2099"));
}

/// Does `suppress check` say so, by words and exit code?
#[track_caller]
fn not_listed(relay: &Relay, address: &str) -> bool {
    let output = relay.command(&["suppress", "check", address]);
    let words = String::from_utf8_lossy(&output.stdout);
    output.status.code() == Some(1) && words.contains("is not suppressed")
}
