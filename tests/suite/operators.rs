//! The commands of an operator against a running relay, and those that need none.

use std::io::Read;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::kit::mx::wait_at;
use crate::kit::relay::{WEIR, weir};
use crate::kit::{At, Gate, Mx, Relay, World, mail, say, stays, until};
use std::time::Duration;

/// A relay with one deferred message to each of two domains, next tried in an hour. The senders' domain has no host.
fn waiting() -> (World, Mx, Relay, Vec<String>) {
    let world = World::new();
    let mx = world.host("mx.x.test");
    world.domain("one.test", &[(10, &mx)]);
    world.domain("two.test", &[(10, &mx)]);
    mx.always(At::Rcpt, say("450 4.2.1 not now"));
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    let mut client = relay.client();
    let ids = vec![
        client.submit("app@sender.test", &["u@one.test"], &mail("one", "x")),
        client.submit("shop@sender.test", &["v@two.test"], &mail("two", "x")),
    ];
    relay.wait_events(2, "deferred", |_| true);
    until("both to wait", || (relay.queue().iter().filter(|d| d["state"] == "waiting").count() == 2).then_some(()));
    (world, mx, relay, ids)
}

fn ids(list: &[Value]) -> Vec<&str> {
    list.iter().filter_map(|d| d["id"].as_str()).collect()
}

fn state(relay: &Relay, id: &str) -> String {
    let queue = relay.queue();
    let of = queue.iter().find(|d| d["id"] == id).unwrap_or_else(|| panic!("{id} is not in the queue"));
    of["state"].as_str().unwrap_or_default().to_string()
}

#[test]
fn the_queue_is_listed_with_the_keys_of_the_contract() {
    let (_world, _mx, relay, ids) = waiting();
    let list = relay.queue();
    let one = list.iter().find(|d| d["id"] == ids[0].as_str()).expect("the first message");
    for key in
        ["id", "sender", "recipients", "domain", "provider", "source", "state", "attempts", "next_attempt", "reason"]
    {
        assert!(one.get(key).is_some(), "{key} is missing in {one}");
    }
    assert_eq!(
        (&one["sender"], &one["domain"], &one["attempts"]),
        (&"app@sender.test".into(), &"one.test".into(), &1.into())
    );
    assert!(one["recipients"].to_string().contains("u@one.test"), "{one}");
    assert!(one["reason"].as_str().is_some_and(|r| r.contains("4.2.1 not now")), "{one}");
    assert!(relay.ok(&["queue", "list"]).contains(&ids[0]), "the list for people");
}

#[test]
fn the_queue_is_filtered() {
    let (_world, _mx, relay, all) = waiting();
    for (filter, value, expected) in [
        ("--domain", "one.test", &all[..1]),
        ("--sender", "shop@sender.test", &all[1..]),
        ("--recipient", "v@two.test", &all[1..]),
        ("--message-id", "<one@sender.test>", &all[..1]),
        ("--state", "waiting", &all[..]),
        ("--state", "held", &[]),
        ("--older-than", "1h", &[]),
        ("--older-than", "0s", &all[..]),
        ("--domain", "elsewhere.test", &[]),
    ] {
        let list = relay.json(&["queue", "list", filter, value]);
        let mut found = ids(&list);
        found.sort_unstable();
        assert_eq!(found, expected, "{filter} {value}");
    }
}

#[test]
fn the_queue_is_listed_without_a_running_relay() {
    let (_world, _mx, mut relay, all) = waiting();
    relay.stop();
    let list = relay.queue();
    let mut found = ids(&list);
    found.sort_unstable();
    assert_eq!(found, all);
}

#[test]
fn show_says_why_a_message_waits() {
    let (_world, _mx, relay, all) = waiting();
    let text = relay.ok(&["queue", "show", &all[0]]);
    for part in ["450 4.2.1 not now", "u@one.test", "app@sender.test"] {
        assert!(text.contains(part), "{part} is missing in:\n{text}");
    }
    let output = relay.command(&["queue", "show", "0000000000000"]);
    assert_eq!(output.status.code(), Some(1), "an unknown id is a failure");
}

#[test]
fn flush_makes_due_and_tries_again() {
    let (_world, mx, relay, _) = waiting();
    mx.relent(At::Rcpt);
    relay.ok(&["queue", "flush", "--domain", "one.test"]);
    assert_eq!(mx.wait_accepted(1)[0].to(), ["u@one.test"]);
    relay.ok(&["queue", "flush"]);
    mx.wait_accepted(2);
    relay.assert_settled();
}

#[test]
fn what_is_held_waits_for_its_release_also_over_a_restart() {
    let (_world, mx, mut relay, all) = waiting();
    mx.relent(At::Rcpt);
    relay.ok(&["queue", "hold", &all[0]]);
    assert_eq!(state(&relay, &all[0]), "held");
    relay.stop();
    relay.run();
    assert_eq!(state(&relay, &all[0]), "held");
    relay.ok(&["queue", "flush"]);
    assert_eq!(mx.wait_accepted(1)[0].to(), ["v@two.test"]);
    stays(Duration::from_millis(300), "the held one waits", || mx.accepted_count() == 1);
    relay.ok(&["queue", "release", &all[0]]);
    relay.ok(&["queue", "flush"]);
    mx.wait_accepted(2);
    relay.assert_settled();
}

#[test]
fn bounce_returns_the_message_and_remove_is_silent() {
    let (world, mx, relay, all) = waiting();
    let home = world.host("home.sender.test");
    world.domain("sender.test", &[(10, &home)]);
    relay.ok(&["queue", "bounce", &all[0]]);
    assert_eq!(relay.wait_event("bounced", "u@one.test")["id"], all[0].as_str());
    relay.ok(&["queue", "remove", &all[1]]);
    assert_eq!(relay.wait_event("removed", "v@two.test")["id"], all[1].as_str());
    let report = home.wait_accepted(1).remove(0);
    assert_eq!((report.sender.as_str(), report.to()), ("", vec!["app@sender.test"]));
    assert!(report.text().contains("u@one.test"), "{}", report.text());
    relay.assert_settled();
    assert_eq!(home.accepted_count(), 1, "what is removed is not reported");
    assert_eq!(mx.accepted_count(), 0);
    assert!(relay.json(&["suppress", "list"]).is_empty(), "the operator's hand suppresses nobody");
}

#[test]
fn what_ends_mail_wants_to_hear_that_all_is_meant_and_what_does_not_end_it_means_all() {
    let (_world, _mx, relay, all) = waiting();
    for command in ["remove", "bounce"] {
        let output = relay.command(&["queue", command]);
        assert_eq!(output.status.code(), Some(2), "`queue {command}` of everything by accident");
    }
    assert_eq!(relay.queue().len(), 2);
    relay.ok(&["queue", "hold"]);
    assert!(all.iter().all(|id| state(&relay, id) == "held"), "{:#?}", relay.queue());
    relay.ok(&["queue", "release"]);
    assert!(all.iter().all(|id| state(&relay, id) != "held"), "{:#?}", relay.queue());
    relay.ok(&["queue", "remove", "--all"]);
    assert!(relay.queue().is_empty());
    assert_eq!(relay.events_of("removed").len(), 2);
}

#[test]
fn a_message_in_transaction_is_active() {
    let (world, mx) = World::with_domain("x.test");
    let gate = Gate::new();
    mx.always(At::End, wait_at(&gate));
    let relay = world.config().start();
    let id = relay.submit("app@sender.test", &["u@x.test"], &mail("active", "x"));
    until("the message in its transaction", || (gate.waiting() == 1).then_some(()));
    assert_eq!(state(&relay, &id), "active");
    gate.open();
    relay.assert_settled();
}

#[test]
fn status_tells_of_each_lane() {
    let (_world, _mx, relay, _) = waiting();
    let lanes = relay.json(&["status"]);
    assert!(!lanes.is_empty());
    for key in [
        "provider",
        "source",
        "state",
        "connections",
        "connections_allowed",
        "ceiling",
        "rate",
        "waiting",
        "reason",
        "until",
    ] {
        assert!(lanes[0].get(key).is_some(), "{key} is missing in {}", lanes[0]);
    }
    assert_eq!(lanes.iter().filter_map(|l| l["waiting"].as_u64()).sum::<u64>(), 2, "{lanes:#?}");
    assert!(!relay.ok(&["status"]).is_empty());
}

#[test]
fn mail_that_waits_after_a_restart_is_counted_though_nothing_is_known_of_its_way() {
    let (_world, _mx, mut relay, _) = waiting();
    relay.stop();
    relay.run();
    let text = until("the backlog", || Some(relay.ok(&["status"])).filter(|text| text.contains("2 messages")));
    assert!(text.contains("not routed:  2 deliveries not in the table"), "{text}");
}

#[test]
fn health_is_well_while_it_runs_and_not_after() {
    let world = World::new();
    let mut relay = world.config().start();
    for arguments in [&["health"][..], &["health", "--ready"]] {
        let output = relay.command(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.stdout.iter().filter(|b| **b == b'\n').count(), 1, "one line");
    }
    relay.stop();
    assert_eq!(relay.command(&["health"]).status.code(), Some(1));
}

#[test]
fn the_start_line_says_what_listens_where_the_data_is_and_what_waits() {
    let world = World::new();
    let both = "[[listener]]\naddress = \"127.0.0.2:0\"";
    let mut relay = world.config().table(both).set("queue", "retry", "[\"1h\"]").start();
    let line = |relay: &Relay| {
        let log = relay.log();
        log.lines().rfind(|l| l.contains("listens on")).expect("the start line").to_string()
    };
    let first = line(&relay);
    let data = relay.data_dir().display().to_string();
    let address = relay.address().to_string();
    for part in [env!("CARGO_PKG_VERSION"), &address, "127.0.0.2:", &data, "0 messages queued"] {
        assert!(first.contains(part), "{part} is missing in {first}");
    }
    world.dead_host("mx.x.test");
    world.dns.mx("x.test", &[(10, "mx.x.test")]);
    relay.submit("app@sender.test", &["u@x.test"], &mail("waits", "x"));
    relay.stop();
    relay.run();
    assert!(line(&relay).contains("1 message"), "{}", line(&relay));
    relay.client();
}

/// An address of the public Internet where nobody is (RFC 7450 set it aside for relays of AMT): a test never gets there.
const PUBLIC: [u8; 4] = [192, 52, 193, 77];

#[test]
fn without_a_public_name_mail_is_kept_and_only_own_networks_are_delivered_to() {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.contains('.') {
        eprintln!("skipped: this host has a name that may be public: {name}");
        return;
    }
    let (world, mx) = World::with_domain("x.test");
    world.dns.mx("far.test", &[(10, "mx.far.test")]);
    world.dns.addresses("mx.far.test", &[PUBLIC.into()]);
    let relay = world.config().without("", "hostname").start();
    relay.submit("app@sender.test", &["u@x.test", "v@far.test"], &mail("nameless", "x"));
    let got = mx.wait_accepted(1).remove(0);
    assert_eq!(got.to(), ["u@x.test"], "within [delivery] networks no public name is needed");

    let ready = until("the missing name to be told", || {
        let output = relay.command(&["health", "--ready"]);
        (output.status.code() == Some(1)).then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    });
    assert!(ready.contains("hostname") && ready.contains("WEIR_HOSTNAME"), "{ready}");
    assert_eq!(ready.lines().count(), 1, "{ready}");
    assert!(relay.command(&["health"]).status.success(), "it lives all the same");
    assert!(relay.ok(&["status"]).contains("hostname"), "{}", relay.ok(&["status"]));
    assert!(relay.log().contains("WEIR_HOSTNAME"), "the log says what to do");

    until("the other one to have ended", || (relay.queue().len() == 1).then_some(()));
    stays(Duration::from_millis(500), "the mail for the Internet waits and was not tried", || {
        let queue = relay.queue();
        queue.len() == 1 && queue[0]["domain"] == "far.test" && queue[0]["attempts"] == 0
    });
    assert!(relay.events_of("deferred").is_empty() && relay.events_of("bounced").is_empty());
    let id = relay.queue()[0]["id"].as_str().unwrap_or_default().to_string();
    let why = relay.ok(&["queue", "show", &id]);
    assert!(why.contains("hostname"), "{why}");
}

#[test]
fn commands_that_need_a_relay_say_that_there_is_none() {
    let world = World::new();
    let mut relay = world.config().start();
    relay.stop();
    let output = relay.command(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(error.trim_end().lines().count(), 1, "one clear line: {error}");
}

#[test]
fn send_hands_over_what_it_reads() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().listen_on_a_known_port().start();
    let arguments = ["send", "--from", "app@sender.test", "--to", "u@x.test", "--subject", "Grüße"];
    let output = relay.command_with_input(&arguments, "Ein Text.\n.\nNoch einer.\n".as_bytes());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let got = mx.wait_accepted(1).remove(0);
    assert_eq!((got.sender.as_str(), got.to()), ("app@sender.test", vec!["u@x.test"]));
    assert!(got.header("Subject").is_some() && got.header("Message-ID").is_some() && got.header("Date").is_some());
}

#[test]
fn send_takes_a_message_with_a_header_as_it_is_and_nothing_for_nothing() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().listen_on_a_known_port().start();
    let arguments = ["send", "--from", "app@sender.test", "--to", "u@x.test"];
    let nothing = relay.command_with_input(&arguments, b" \n");
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("is empty"), "{nothing:?}");
    let message = b"Subject: mine\nFrom: Ann <ann@sender.test>\nMIME-Version: 1.0\n\nline one\nend\n";
    let output = relay.command_with_input(&arguments, message);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let got = mx.wait_accepted(1).remove(0);
    assert_eq!((got.sender.as_str(), got.to()), ("app@sender.test", vec!["u@x.test"]));
    assert_eq!(got.header("Subject").as_deref().map(str::trim), Some("mine"));
    assert_eq!(got.header("From").as_deref().map(str::trim), Some("Ann <ann@sender.test>"));
    assert!(got.header("Message-ID").is_some() && got.header("Date").is_some(), "{}", got.text());
    assert!(got.content.ends_with(b"\r\n\r\nline one\r\nend\r\n"), "{}", got.text());
}

#[test]
fn send_test_prints_the_receivers_reply_and_its_reading() {
    let (world, mx) = World::with_domain("x.test");
    mx.once(At::End, say("250 2.6.0 <test> queued for real"));
    let relay = world.config().listen_on_a_known_port().start();
    let text = relay.ok(&["send", "--test", "u@x.test"]);
    assert!(text.contains("queued for real") && text.contains("delivered"), "{text}");
    let got = mx.wait_accepted(1).remove(0);
    assert!(got.content.len() > 2048, "{} bytes are too few for a test", got.content.len());
    assert!(got.header("Subject").is_some_and(|s| s.len() > 8 && !s.eq_ignore_ascii_case("test")));

    mx.always(At::Rcpt, say("550 5.1.1 no such user here"));
    let output = relay.command(&["send", "--test", "gone@x.test"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("no such user here") && text.contains("recipient-unknown"), "{text}");
    assert_eq!(output.status.code(), Some(1), "a refused test message is a failure");
}

#[test]
fn explain_reads_a_reply_without_a_relay() {
    let output = weir(&["explain", "--json", "421 RP-001 (mx.test) Unfortunately, some messages weren't sent"]);
    assert!(output.status.success());
    let reading: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    for (key, value) in [("class", "rate-limit"), ("scope", "source"), ("verdict", "retry"), ("tag", "RP-001")] {
        assert_eq!(reading[key], value, "{reading}");
    }
    assert_eq!(
        (&reading["code"], &reading["suppress"], &reading["breaker"]),
        (&421.into(), &false.into(), &false.into())
    );
}

#[test]
fn explain_says_whose_rules_it_used_and_knows_receivers_by_their_words() {
    let explain = |reply: &str, more: &[&str]| -> Value {
        let output = weir(&[&["explain", "--json", reply], more].concat());
        serde_json::from_slice(&output.stdout).expect("one JSON object")
    };
    for (reply, provider, chosen, rules) in [
        (
            "550-5.1.1 The email account that you tried to reach does not exist. k8si15 - gsmtp",
            "gmail",
            "words",
            "gmail",
        ),
        (
            "421 4.7.28 Gmail has detected an unusual rate of mail originating from your IP address",
            "gmail",
            "words",
            "gmail",
        ),
        ("554 delivery error: dd This user doesn't have a yahoo.com account (a@b.test)", "yahoo", "words", "yahoo"),
        ("450 4.7.1 busy [DB1PEPF000509EF.eurprd03.prod.outlook.com]", "outlook", "words", "microsoft"),
        ("421 RP-001 (x) Unfortunately", "outlook", "default", "certain"),
        ("554 IP=192.0.2.9 - A problem occurred; contact tosa@rx.t-online.de (BL)", "outlook", "default", "default"),
        ("550 Ip frequency limited. http://service.mail.qq.com/cgi-bin/help", "default", "words", "default"),
    ] {
        let read = explain(reply, &[]);
        assert_eq!(
            (&read["provider"], &read["chosen"], &read["rules"]),
            (&provider.into(), &chosen.into(), &rules.into()),
            "{read}"
        );
    }
    let asked = explain("550 5.1.1 gone - gsmtp", &["--provider", "yahoo"]);
    assert_eq!((&asked["provider"], &asked["chosen"]), (&"yahoo".into(), &"asked".into()));
    let text = weir(&["explain", "552 5.5.3 Too many recipients - gsmtp"]).stdout;
    let text = String::from_utf8_lossy(&text).into_owned();
    for words in [
        "too-many-recipients",
        "rules of:   gmail's, by its words",
        "goes back to its sender",
        "half as many recipients",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("The rest goes"), "{text}");
}

/// `check` on a configuration; its exit code and what it said.
fn check(text: &str) -> (i32, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    std::fs::write(&file, text).unwrap();
    let output = weir(&["check", "--config", file.to_str().unwrap()]);
    let said = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
    (output.status.code().unwrap_or(-1), said)
}

#[test]
fn check_finds_every_fault_with_its_place() {
    assert_eq!(check("").0, 0, "an empty configuration is a working relay");
    assert_eq!(check("hostname = \"relay.test\"\n[queue]\nretry = [\"1m\"]\n").0, 0);
    for (text, place, word) in [
        ("hostname = \"relay.test\"\n\n[queue]\nretri = [\"1m\"]\n", "weir.toml:4:1", "retry"),
        ("[queue]\nexpire = \"4 days\"\n", "weir.toml:2:10", "duration"),
        ("[limits]\nmessage_size = 35\n", "weir.toml:2:16", ""),
        ("[delivery]\nnetworks = [\"127.0.0.0/99\"]\n", "weir.toml:2:", ""),
        ("hostname = \n", "weir.toml:1:", ""),
        ("[[listener]]\naddress = \"nowhere\"\n", "weir.toml:2:11", ""),
    ] {
        let (code, said) = check(text);
        assert_eq!(code, 2, "{text}: {said}");
        assert!(said.contains(place), "{text}: {place} is missing in: {said}");
        assert!(said.contains(word), "{text}: {word} is missing in: {said}");
    }
    let (code, said) = check("[queue]\nretri = []\n[delivery]\nprot = 25\n");
    assert_eq!(code, 2);
    assert!(said.contains("retri") && said.contains("prot"), "both faults at once: {said}");
}

#[test]
fn an_unknown_key_ends_the_start_with_code_2() {
    let world = World::new();
    let relay = Relay::prepare(crate::kit::relay::WEIR.into(), world.config().set("queue", "retri", "[]"));
    let output = relay.command(&["run"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("weir.toml:") && said.contains("retri"), "{said}");
}

#[test]
fn check_print_shows_what_it_reads() {
    let world = World::new();
    let relay = world.config().start();
    let text = relay.ok(&["check", "--print"]);
    let parsed: toml::Table = text.parse().unwrap_or_else(|e| panic!("no TOML: {e}\n{text}"));
    assert_eq!(parsed["hostname"].as_str(), Some("relay.test"));
    assert!(parsed["delivery"]["port"].as_integer() == Some(i64::from(world.port())), "{text}");
}

#[test]
fn wrong_usage_is_code_2() {
    for arguments in [&["nonsense"][..], &["queue", "list", "--nonsense"], &["explain"]] {
        assert_eq!(weir(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(weir(&["--version"]).status.code(), Some(0));
}

#[test]
fn an_environment_variable_wins_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    std::fs::write(&file, "hostname = \"file.test\"\n").unwrap();
    let output = std::process::Command::new(crate::kit::relay::WEIR)
        .args(["check", "--print", "--config"])
        .arg(&file)
        .env("WEIR_HOSTNAME", "environment.test")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("environment.test"));
}

#[test]
fn a_reply_is_explained_by_the_rules_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weir.toml");
    let rule = "[[provider]]\nname = 'outlook'\n[[provider.rule]]\nname = 'lunch'\nmatch = [{ any = ['after lunch'] }]\n\
                class = 'rate-limit'\nscope = 'source'\nwait = 2\ncause = 'They eat.'\n";
    std::fs::write(&file, rule).unwrap();
    let ask = |arguments: &[&str]| {
        let output = weir(&[&["--config", file.to_str().unwrap()], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let one: Value = serde_json::from_str(&ask(&["explain", "--json", "451 4.7.500 Come back after lunch"])).unwrap();
    assert_eq!((&one["rule"], &one["class"], &one["scope"]), (&"lunch".into(), &"rate-limit".into(), &"source".into()));
    assert!(one["does"].as_str().is_some_and(|does| does.contains("pauses for 20m")), "{one}");
    let text = ask(&["explain", "550 5.7.1 part of their network is on our block list (S3150)"]);
    for words in ["ip-block, refused for good", "whose:", "weir does:", "https://olcsupport.office.com/"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let rules = ask(&["explain", "--rules", "--json"]);
    let first: Value = serde_json::from_str(rules.lines().next().unwrap()).unwrap();
    assert_eq!((&first["rule"], &first["wait"]), (&"lunch".into(), &2.0.into()));
    std::fs::write(&file, rule.replace("wait = 2", "wait = 0")).unwrap();
    let refused = weir(&["--config", file.to_str().unwrap(), "explain", "550 x"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("weir.toml:3:1: rule \"lunch\": `wait` is 0"), "{said}");
}

#[test]
fn a_report_for_a_receivers_form_is_written_without_a_relay() {
    let folder = tempfile::tempdir().unwrap();
    let events = folder.path().join("data/events");
    std::fs::create_dir_all(&events).unwrap();
    let line = |time: &str, event: &str, reply: &str, class: &str| {
        format!(
            "{{\"time\":\"{time}\",\"seq\":1,\"event\":\"{event}\",\"id\":null,\"sender\":\"news@example.test\",\
             \"recipient\":\"a@outlook.com\",\"provider\":\"outlook\",\"source\":\"a\",\"mx\":\"mx.example\",\"reply\":\"{reply}\",\
             \"class\":\"{class}\",\"rule\":\"{class}\",\"text\":\"outlook from a: blocked\"}}\n"
        )
    };
    let log = line("2026-01-01T00:00:00Z", "bounced", "550 5.7.1 first (S3150)", "ip-block")
        + &line("2026-01-02T00:00:00Z", "blocked", "550 5.7.1 first (S3150)", "ip-block")
        + &line("2026-01-03T00:00:00Z", "bounced", "550 5.7.1 last (S3150)", "ip-block");
    std::fs::write(events.join("current.jsonl"), log).unwrap();
    let file = folder.path().join("weir.toml");
    // What the DNS does not say is marked as not found.
    let world = World::new();
    world.dns.ptr("7.100.51.198.in-addr.arpa", "relay.example.test");
    let config = "hostname = 'relay.example.test'\ndata_dir = 'DATA'\n[dns]\nservers = ['DNS']\n[[source]]\nname = 'a'\naddress = '198.51.100.7'\n";
    std::fs::write(
        &file,
        config
            .replace("DNS", &world.dns.address().to_string())
            .replace("DATA", folder.path().join("data").to_str().unwrap()),
    )
    .unwrap();
    let report = |arguments: &[&str]| {
        let output = weir(&[&["--config", file.to_str().unwrap(), "report", "outlook"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = report(&[]);
    for words in [
        "https://olcsupport.office.com/",
        "HELO:  relay.example.test",
        "not found",
        "first, 2026-01-01 00:00:00 UTC by mx.example: 550 5.7.1 first (S3150)",
        "last, 2026-01-03 00:00:00 UTC by mx.example: 550 5.7.1 last (S3150)",
        "2026-01-02 00:00:00 UTC  blocked  outlook from a: blocked",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let json: Value = serde_json::from_str(&report(&["--json"])).unwrap();
    assert_eq!(json["first_refusal"]["reply"], "550 5.7.1 first (S3150)");
    assert_eq!((&json["class"], &json["refusals"]["ip-block"]["count"]), (&"ip-block".into(), &2.into()));
}

#[test]
fn sighup_puts_changed_rules_for_replies_in_force() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Rcpt, say("451 4.3.0 gone to lunch"));
    let provider = "[[provider]]\nname = \"x\"\nmx = [\"*.x.test\"]\n";
    let rule = "[[provider.rule]]\nname = \"lunch\"\nmatch = [{ any = [\"gone to lunch\"] }]\nclass = \"temporary\"\n\
                scope = \"message\"\ncause = \"They eat.\"\nremedy = \"Wait for the coffee.\"\n";
    let relay = world.config().table(provider).start();
    let mut client = relay.client();
    client.submit("app@sender.test", &["u@x.test"], &mail("before", "x"));
    relay.wait_events(1, "deferred", |event| event["rule"] != "lunch");
    relay.reload(&world.config().table(&format!("{provider}{rule}")));
    let id = client.submit("app@sender.test", &["v@x.test"], &mail("after", "x"));
    relay.wait_events(1, "deferred", |event| event["id"] == id.as_str() && event["rule"] == "lunch");
    until("the queue to tell of it", || {
        relay.ok(&["queue", "show", &id]).contains("Wait for the coffee.").then_some(())
    });
}

/// Many destinations, each with hosts and so a provider of its own: half of them put everything off, half cannot be reached.
#[test]
fn with_mail_for_very_many_destinations_each_question_is_answered_and_a_stop_ends() {
    const DOMAINS: usize = 1000;
    let world = World::new();
    let slow = world.host("mx.slow.test");
    slow.always(At::Rcpt, say("450 4.2.1 not now"));
    for n in 0..DOMAINS {
        let host = format!("mx.d{n}.test");
        world.dns.mx(&format!("d{n}.test"), &[(10, &host)]);
        match n % 2 {
            0 => world.dns.addresses(&host, &[slow.address().ip()]),
            _ => world.dead_host(&host),
        }
    }
    let mut relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    let recipients: Vec<String> = (0..DOMAINS).map(|n| format!("u@d{n}.test")).collect();
    let mut client = relay.client();
    for few in recipients.chunks(500) {
        let few: Vec<&str> = few.iter().map(String::as_str).collect();
        client.submit("app@sender.test", &few, &mail("many", "x"));
    }
    let lanes = |relay: &Relay| relay.json(&["status"]).iter().filter(|line| line["provider"].is_string()).count();
    // While the first tries are on their way as well as after them.
    relay.ok(&["health"]);
    lanes(&relay);
    relay.wait_events(DOMAINS, "deferred", |_| true);
    assert_eq!(lanes(&relay), DOMAINS, "a line for each, reached or not");
    let unreached =
        relay.json(&["status"]).into_iter().find(|line| line["provider"] == "mx.d1.test").expect("its line");
    let reason = unreached["reason"].as_str().expect("why its mail waits");
    assert!(reason.starts_with("mx.d1.test: no host could be reached; again at "), "{reason}");
    assert_eq!(relay.queue().len(), DOMAINS);
    let flushed = relay.json(&["queue", "flush"]);
    assert_eq!(flushed[0]["recipients"], DOMAINS, "{flushed:?}");
    assert!(relay.stop().success());
}

#[test]
fn a_campaign_is_rehearsed_beside_the_relay_and_without_it() {
    let (world, mx) = World::with_domain("x.test");
    let mut relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("one", "x"));
    mx.wait_accepted(1);
    relay.assert_settled();
    let list = relay.config_file().with_file_name("list.txt");
    std::fs::write(&list, "# who\na@x.test\nb@x.test\nc@hotmail.com\nd@nowhere.test\n").unwrap();
    let plot = list.with_file_name("campaign.svg");
    let by_list = ["rehearse", "--recipients", list.to_str().unwrap(), "--plot", plot.to_str().unwrap()];
    let by_count = ["rehearse", "--count", "3000", "--mix", "outlook=100%"];
    for runs in [true, false] {
        let told = relay.json(&by_list);
        let counted: Vec<_> =
            told.iter().map(|one| (one["provider"].as_str().unwrap(), one["recipients"].as_u64())).collect();
        assert_eq!(counted, [("mx.x.test", Some(2)), ("outlook", Some(1))], "{told:?}");
        assert!(std::fs::read_to_string(&plot).unwrap().contains("mx.x.test"));
        let told = &relay.json(&by_count)[0];
        assert!(told["held_by"][0].as_str().unwrap().contains("growth guard") && told["done"].is_string(), "{told}");
        if runs {
            assert!(relay.stop().success());
        }
    }
    assert!(relay.ok(&by_list[..3]).contains("nowhere.test"), "who has no hosts is named");
}

#[test]
fn interrupted_work_says_so_and_does_no_harm() {
    let (_world, mx, relay, _) = waiting();
    relay.signal(Signal::STOP);
    let mut command = Command::new(WEIR);
    command.args(["queue", "flush", "--config"]).arg(relay.config_file());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start weir queue flush");
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    // It is connected when the kernel says so: the stopped relay takes nothing itself.
    let status = until("its end", || {
        kill_process(pid, Signal::INT).expect("interrupt it");
        child.try_wait().expect("ask for its end")
    });
    relay.signal(Signal::CONT);
    let mut said = String::new();
    child.stderr.take().expect("its words").read_to_string(&mut said).expect("read them");
    // Before it has begun, Ctrl-C ends it as it ends every program.
    assert!(status.code().is_none_or(|code| code == 130), "{status}: {said}");
    if status.code().is_some() {
        assert!(said.contains("interrupted. At least so much was done and stays done: made due: 0 messages"), "{said}");
    }
    mx.relent(At::Rcpt);
    relay.ok(&["queue", "flush"]);
    relay.assert_settled();
}

#[test]
fn what_a_hold_left_alone_is_told_as_what_it_is() {
    let (_world, _mx, relay, _) = waiting();
    relay.ok(&["queue", "hold"]);
    let output = relay.command(&["queue", "hold"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("2 were held already, or about to end, and left alone"), "{said}");
}

#[test]
fn long_work_shows_no_progress_where_nobody_looks() {
    let (_world, _mx, relay, _) = waiting();
    for arguments in
        [&["queue", "hold"][..], &["queue", "release"], &["suppress", "export"], &["queue", "remove", "--all"]]
    {
        let output = relay.command(arguments);
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    }
}
