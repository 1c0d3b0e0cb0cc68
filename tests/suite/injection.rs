//! Hostile words from every side at once: clients, receivers, operators. Whatever they are made of, they stay words: in the message's
//! header, in reports, in the event log, in the log, in replies and on the screen of whoever looks.

use super::kit::{At, Client, Relay, World, mail, say, until};

/// An escape sequence, its 8-bit form, a bell, a return over the line, and names that read backwards.
const HOSTILE: [&str; 4] = [
    "\u{1b}]0;owned\u{7}\u{1b}[2J",
    "\u{9b}2J\u{85}\u{2028}ERROR made up",
    "\rX-Injected: 1",
    "\u{202e}moc.elpmaxe\u{2066}\u{61c}",
];

fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[track_caller]
fn assert_plain(what: &str, text: &str) {
    let line = text.lines().find(|line| line.contains(steers));
    assert!(line.is_none(), "{what}: {line:?}");
    assert!(!text.contains("\nX-Injected") && !text.contains("\nERROR made up"), "{what}: {text}");
}

/// What clients say, with the worst a line can hold.
fn attack(relay: &Relay) {
    for words in HOSTILE {
        let mut client = Client::connect(relay.address());
        for line in [
            format!("EHLO {words}"),
            format!("HELO {words}"),
            format!("MAIL FROM:<{words}@sender.test>"),
            format!("MAIL FROM:<app@sender.test> ENVID={words} SMTPUTF8"),
            "MAIL FROM:<app@sender.test> ENVID=a+0D+0AX-Injected:+201 SMTPUTF8".to_string(),
            format!("RCPT TO:<{words}@receiver.test>"),
            format!("RCPT TO:<bob@{words}.test>"),
            format!("RCPT TO:<bob@receiver.test> ORCPT=rfc822;{words}"),
            format!("VRFY {words}"),
            words.to_string(),
            "RSET".to_string(),
        ] {
            client.try_send(format!("{line}\r\n").as_bytes());
            // A line feed in the words would make two replies: none of them holds one.
            let Some(reply) = client.try_reply() else { break };
            assert_plain(&line, &reply);
        }
    }
}

#[test]
fn hostile_words_stay_words_wherever_they_are_written() {
    for format in ["text", "json"] {
        let (world, mx) = World::with_domain("receiver.test");
        let home = world.host("mx.sender.test");
        world.domain("sender.test", &[(10, &home)]);
        let config = world.config().set("log", "level", "\"debug\"").set("log", "format", &format!("\"{format}\""));
        let relay = Relay::start(config);
        attack(&relay);

        let sentence = HOSTILE.join(" ").replace('\r', "\u{c}");
        let mut client = Client::connect(relay.address());
        client.ask("EHLO [127.0.0.1](comment)by.evil;X", "250");
        mx.always(At::Rcpt, say(&format!("451 4.3.0 {sentence}")));
        client.submit("app@sender.test", &["later@receiver.test"], &mail("later", "x"));
        relay.wait_event("deferred", "later@receiver.test");
        mx.always(At::to("gone@receiver.test"), say(&format!("550-5.1.1 {sentence}\n550 5.1.1 {sentence}")));
        client.submit("app@sender.test", &["gone@receiver.test"], &mail("gone", "x"));
        relay.wait_event("bounced", "gone@receiver.test");
        relay.wait_event("suppressed", "gone@receiver.test");
        // The recipient is on the list now, and the refusal quotes the receiver.
        client.ask("MAIL FROM:<app@sender.test>", "250");
        assert_plain("the refusal", &client.ask("RCPT TO:<gone@receiver.test>", "550 5.1.1"));
        client.ask("RSET", "250");

        let report = home.wait_accepted(1).remove(0).text();
        let (header, body) = report.split_once("\r\n\r\n").unwrap();
        for part in [header, body] {
            assert_plain("the report", &part.replace("\r\n", "\n").replace('\t', " "));
        }

        let id = until("the message that waits", || relay.queue().first().cloned())["id"].as_str().unwrap().to_string();
        for arguments in [
            vec!["queue", "list"],
            vec!["queue", "list", "--json"],
            vec!["queue", "show", &id],
            vec!["queue", "show", &id, "--json"],
            vec!["status"],
            vec!["status", "--json"],
            vec!["suppress", "list"],
            vec!["suppress", "list", "--json"],
            vec!["suppress", "check", "gone@receiver.test"],
            vec!["events"],
            vec!["events", "--json"],
            vec!["trace", "gone@receiver.test"],
            vec!["trace", "later@receiver.test", "--json"],
            vec!["trace", &sentence],
            vec!["explain", &format!("550 5.1.1 {sentence}")],
            vec!["explain", &format!("550 5.1.1 {sentence}"), "--json"],
            vec!["queue", "list", "--domain", &sentence],
            vec!["pause", &sentence],
            vec!["suppress", "add", "odd@receiver.test", "--reason", &sentence],
            vec!["suppress", "check", "odd@receiver.test"],
            vec!["report", "receiver.test"],
        ] {
            let output = relay.command(&arguments);
            for text in [output.stdout, output.stderr] {
                assert_plain(&arguments.join(" "), &String::from_utf8(text).unwrap());
            }
        }

        let events = std::fs::read_to_string(relay.data_dir().join("events/current.jsonl")).unwrap();
        assert_plain("the event log", &events);
        for line in events.lines() {
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).unwrap();
        }
        let heard = relay.wait_event("bounced", "gone@receiver.test")["reply"].as_str().unwrap().to_string();
        assert!(heard.contains('\u{202e}') && heard.contains('\u{1b}'), "the words themselves are kept: {heard:?}");
        let log = relay.log();
        assert_plain("the log", &log);
        if format == "json" {
            let is_object =
                |line: &&str| serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).is_ok();
            assert_eq!(log.lines().find(|line| !is_object(line)), None, "each entry is one object");
        }
    }
}
