//! The front door: who may relay, what ends a message, how much of anything is taken.

use std::net::IpAddr;

use crate::kit::relay::STRANGER;
use crate::kit::{At, Client, Relay, World, close, mail, say};

/// Bytes that must not end DATA, whatever other servers think of them (reliability, CVE-2023-51764 and after).
pub(crate) const FAKE_ENDS: &[(&str, &[u8])] = &[
    ("LF . LF", b"\n.\n"),
    ("LF . CRLF", b"\n.\r\n"),
    ("LF . CR", b"\n.\r"),
    ("CR . CR", b"\r.\r"),
    ("CR . LF", b"\r.\n"),
    ("CR . CRLF", b"\r.\r\n"),
    ("CRLF . LF", b"\r\n.\n"),
    ("CRLF . CR", b"\r\n.\rx"),
    ("CRLF . CRCRLF", b"\r\n.\r\r\n"),
    ("CRCRLF . CRCRLF", b"\r\r\n.\r\r\n"),
    ("CRLF NUL . CRLF", b"\r\n\0.\r\n"),
    ("CRLF . NUL CRLF", b"\r\n.\0\r\n"),
    ("CRLF . blank CRLF", b"\r\n. \r\n"),
    ("CRLF blank . CRLF", b"\r\n .\r\n"),
    ("CRLF . TAB CRLF", b"\r\n.\t\r\n"),
    ("CRLF . VT CRLF", b"\r\n.\x0b\r\n"),
    ("CRLF . FF CRLF", b"\r\n.\x0c\r\n"),
    ("VT . VT", b"\x0b.\x0b"),
    ("FF . FF", b"\x0c.\x0c"),
    ("NEL . NEL", b"\x85.\x85"),
    ("line separator", "\u{2028}.\u{2028}".as_bytes()),
    ("paragraph separator", "\u{2029}.\u{2029}".as_bytes()),
    ("CR LF . with the eighth bit", b"\x8d\x8a\xae\x8d\x8a"),
    ("a stuffed dot", b"\r\n..\r\n"),
];

pub(crate) const SMUGGLED: &[u8] =
    b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@x.test>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n";

#[test]
fn nothing_but_the_true_end_ends_a_message() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut delivered = 0;
    for (name, fake) in FAKE_ENDS {
        let mut client = relay.client();
        client.envelope("app@sender.test", &["u@x.test"]);
        client.ask("DATA", "354");
        client.send_bytes(&[&b"Subject: fake\r\n\r\nbefore"[..], fake, SMUGGLED, b".\r\nNOOP\r\n"].concat());
        // One reply for the message, one for NOOP: whatever was smuggled was not taken for a command.
        let reply = client.reply();
        assert!(reply.starts_with("250 2.0.0 queued") || reply.starts_with('5'), "{name}: {reply}");
        let noop = client.reply();
        assert!(noop.starts_with("250") && !noop.contains("queued"), "{name}: {noop}");
        delivered += usize::from(reply.starts_with("250"));
        let got = mx.wait_accepted(delivered);
        if reply.starts_with("250") {
            let text = got.last().expect("just accepted").text();
            assert!(text.contains("before") && text.contains("MAIL FROM:<evil@sender.test>"), "{name}: {text}");
        }
        assert_eq!(mx.rcpts("victim@x.test"), 0, "{name}");
    }
    assert!(delivered >= FAKE_ENDS.len() - 2, "only NUL is a reason to refuse a message; delivered {delivered}");
    assert_eq!(relay.events_of("accepted").len(), delivered);
}

#[test]
fn fake_ends_are_no_ends_on_the_way_out_either() {
    let (world, mx) = World::with_domain("x.test");
    mx.offer(&["8BITMIME"]);
    let relay = world.config().start();
    let mut client = relay.client();
    for (sent, (name, fake)) in FAKE_ENDS.iter().filter(|(_, f)| !f.contains(&0)).enumerate() {
        client.envelope("app@sender.test", &["u@x.test"]);
        client.ask("DATA", "354");
        client.send_bytes(&[&b"Subject: out\r\n\r\nbefore"[..], fake, SMUGGLED, b".\r\n"].concat());
        client.expect("250");
        let got = mx.wait_accepted(sent + 1).pop().expect("just accepted");
        assert!(got.text().contains("DATA\r\nSubject: smuggled"), "{name}: {}", got.text());
    }
    assert_eq!(mx.rcpts("victim@x.test"), 0);
}

#[test]
fn a_stray_cr_before_the_true_end_does_not_hide_it() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    client.envelope("app@sender.test", &["u@x.test"]);
    client.ask("DATA", "354");
    client.send_bytes(b"Subject: stray\r\n\r\nbefore\r\r\n.\r\n");
    client.expect("250");
    client.ask("NOOP", "250");
    assert!(mx.wait_accepted(1)[0].text().contains("before\r\n"));
}

#[test]
fn the_true_end_is_found_however_it_is_cut() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    let end = b"text\r\n.\r\n";
    for cut in 1..end.len() {
        client.envelope("app@sender.test", &["u@x.test"]);
        client.ask("DATA", "354");
        client.send_bytes(b"Subject: cut\r\n\r\n");
        client.send_bytes(&end[..cut]);
        client.send_bytes(&end[cut..]);
        client.expect("250");
    }
    for byte in [client_bytes(), b"Subject: bytes\r\n\r\n.\r\n".to_vec()].concat() {
        client.send_bytes(&[byte]);
    }
    for code in ["250", "250", "354", "250"] {
        client.expect(code);
    }
    mx.wait_accepted(end.len());
}

fn client_bytes() -> Vec<u8> {
    b"MAIL FROM:<app@sender.test>\r\nRCPT TO:<u@x.test>\r\nDATA\r\n".to_vec()
}

#[test]
fn an_empty_message_ends_at_once() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    client.envelope("app@sender.test", &["u@x.test"]);
    client.ask("DATA", "354");
    client.send_bytes(b".\r\n");
    client.expect("250");
    mx.wait_accepted(1);
}

#[test]
fn an_end_of_data_inside_a_chunk_is_data() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    if !client.offers("CHUNKING") {
        // Left off is one of the two safe answers; then BDAT must not exist.
        client.ask("BDAT 0 LAST", "5");
        return;
    }
    let chunk = [&b"Subject: chunk\r\n\r\na\r\n.\r\n"[..], SMUGGLED].concat();
    client.envelope("app@sender.test", &["u@x.test"]);
    client.send_bytes(format!("BDAT {} LAST\r\n", chunk.len()).as_bytes());
    client.send_bytes(&chunk);
    client.expect("250");
    mx.offer_all_but("CHUNKING");
    assert!(mx.wait_accepted(1)[0].content.ends_with(&chunk));
}

/// The relay with a client that nobody trusts.
fn strangers_door() -> (World, Relay, Client) {
    let (world, _mx) = World::with_domain("x.test");
    let relay = world.config().set("relay", "trusted_networks", "[\"127.0.0.1/32\"]").start();
    let client = stranger(&relay);
    (world, relay, client)
}

fn stranger(relay: &Relay) -> Client {
    let mut client = Client::connect_from(IpAddr::V4(STRANGER), relay.address());
    client.hello();
    client
}

/// Sends a line; where the relay has had enough of this connection (421) it is sent again on a new one, at which
/// `before` is said first.
fn persist(relay: &Relay, client: &mut Client, before: &[&str], line: &str) -> String {
    for _ in 0..2 {
        let reply = client.try_send(format!("{line}\r\n").as_bytes()).then(|| client.try_reply()).flatten();
        match reply {
            Some(reply) if !reply.starts_with("421") => return reply,
            _ => *client = stranger(relay),
        }
        for line in before {
            client.send(line);
            client.reply();
        }
    }
    panic!("`{line}` closes a new connection at once");
}

#[test]
fn a_stranger_relays_in_no_form() {
    let (_world, relay, mut client) = strangers_door();
    let recipients = [
        "<u@x.test>",
        "<u%x.test@[127.0.0.1]>",
        "<u%x.test@relay.test>",
        "<\"u@x.test\">",
        "<\"u%x.test\">",
        "<u@x.test@[127.0.0.1]>",
        "<\"u@x.test\"@[127.0.0.1]>",
        "<u@x.test@relay.test>",
        "<@[127.0.0.1]:u@x.test>",
        "<@relay.test:u@x.test>",
        "<x.test!u>",
        "<x.test!u@[127.0.0.1]>",
        "<x.test!u@relay.test>",
        "<@a,@b:u@x.test>",
        "<u@[IPv6:::1]>",
        "<u@x.test.>",
        "<u@x.test >",
        "<u@x.test>x",
        "<u@xn-->",
        "<u@\u{445}.test>",
        "<\"a b\"@x.test>",
        "<\"\"@x.test>",
        "<u@>",
        "<u@127.0.0.1>",
        "<u\0@x.test>",
        "<u\t@x.test>",
        "<>",
        "<postmaster>",
        "u@x.test",
    ];
    for sender in ["<>", "<u@x.test>", "<u@relay.test>", "<u@[127.0.0.1]>"] {
        for recipient in recipients {
            let (mail, rcpt) = (format!("MAIL FROM:{sender}"), format!("RCPT TO:{recipient}"));
            persist(&relay, &mut client, &[], "RSET");
            let to_mail = persist(&relay, &mut client, &[], &mail);
            let to_rcpt = persist(&relay, &mut client, &[&mail], &rcpt);
            assert!(to_rcpt.starts_with('5'), "{sender} to {recipient}: {to_rcpt} (MAIL: {to_mail})");
            let to_data = persist(&relay, &mut client, &[&mail, &rcpt], "DATA");
            assert!(to_data.starts_with('5'), "{sender} to {recipient}: {to_data} to DATA");
        }
    }
    assert!(relay.queue().is_empty() && relay.events_of("accepted").is_empty());
}

#[test]
fn a_refused_stranger_is_told_what_would_admit_him() {
    let (_world, _relay, mut client) = strangers_door();
    client.ask("MAIL FROM:<a@b.test>", "");
    client.send("RCPT TO:<u@x.test>");
    let reply = client.expect("550 5.7.1");
    for part in ["127.0.0.9", "relay.trusted_networks", "WEIR_RELAY__TRUSTED_NETWORKS"] {
        assert!(reply.contains(part), "{part} is missing in {reply}");
    }
}

#[test]
fn a_trusted_client_relays_while_a_stranger_is_refused() {
    let (_world, relay, _client) = strangers_door();
    relay.submit("app@sender.test", &["u@x.test"], &mail("trusted", "x"));
}

#[test]
fn only_the_last_domain_steers_the_mail_of_a_trusted_client() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    for recipient in ["u%other.test@x.test", "other.test!u@x.test", "\"u@other.test\"@x.test", "a..b@x.test"] {
        client.submit("app@sender.test", &[recipient], &mail("form", "x"));
    }
    mx.wait_accepted(4);
    assert_eq!(world.dns.asked("other.test", "MX"), 0);
    for recipient in ["u%other.test@x.test", "other.test!u@x.test", "\"u@other.test\"@x.test", "a..b@x.test"] {
        assert_eq!(mx.rcpts(recipient), 1, "verbatim: {recipient}; {:?}", mx.commands());
    }
}

#[test]
fn sender_domains_limit_who_mail_comes_from() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().set("relay", "sender_domains", "[\"sender.test\"]").start();
    let mut client = relay.client();
    client.send("MAIL FROM:<app@other.test>");
    let mut reply = client.reply();
    if reply.starts_with('2') {
        client.send("RCPT TO:<u@x.test>");
        reply = client.reply();
    }
    assert!(reply.starts_with('5'), "{reply}");
    client.ask("RSET", "250");
    client.submit("app@sender.test", &["u@x.test"], &mail("right", "x"));
    client.submit("", &["u@x.test"], &mail("report", "x"));
    mx.wait_accepted(2);
}

#[test]
fn postmaster_without_a_domain_is_sent_where_the_configuration_says() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().set("relay", "postmaster", "\"admin@x.test\"").start();
    relay.submit("app@sender.test", &["postmaster"], &mail("postmaster", "x"));
    assert_eq!(mx.wait_accepted(1)[0].to(), ["admin@x.test"]);

    let relay = world.config().start();
    let mut client = relay.client();
    client.ask("MAIL FROM:<app@sender.test>", "250");
    let reply = client.ask("RCPT TO:<postmaster>", "5");
    assert!(reply.contains("relay.postmaster"), "{reply}");
}

#[test]
fn more_recipients_than_the_limit_are_asked_to_come_again() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().set("limits", "recipients", "3").start();
    let mut client = relay.client();
    client.envelope("app@sender.test", &["a@x.test", "b@x.test", "c@x.test"]);
    client.ask("RCPT TO:<d@x.test>", "452 4.5.3");
    client.data(&mail("three", "x"));
    assert_eq!(mx.wait_accepted(1)[0].to().len(), 3);
}

#[test]
fn a_thousand_recipients_are_taken() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    let all: Vec<String> = (0..1000).map(|n| format!("u{n}@x.test")).collect();
    client.submit("app@sender.test", &all.iter().map(String::as_str).collect::<Vec<_>>(), &mail("thousand", "x"));
    crate::kit::until("a thousand recipients", || {
        (mx.accepted().iter().map(|t| t.recipients.len()).sum::<usize>() == 1000).then_some(())
    });
    relay.assert_settled();
}

#[test]
fn a_message_over_the_size_limit_is_refused_and_the_session_goes_on() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().set("limits", "message_size", "\"64 KiB\"").start();
    let mut client = relay.client();
    assert!(client.keywords.contains(&"SIZE 65536".to_string()), "{:?}", client.keywords);
    client.ask("MAIL FROM:<app@sender.test> SIZE=70000", "552 5.3.4");
    client.envelope("app@sender.test", &["u@x.test"]);
    client.ask("DATA", "354");
    client.send_bytes(&crate::kit::client::stuffed(&mail("large", &"0123456789\n".repeat(10_000))));
    client.expect("552 5.3.4");
    client.ask("RCPT TO:<u@x.test>", "503");
    client.submit("app@sender.test", &["u@x.test"], &mail("small", "x"));
    mx.wait_accepted(1);
}

#[test]
fn a_command_line_without_end_is_refused_with_little_memory() {
    let (world, _mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    let before = relay.memory_peak();
    for _ in 0..64 {
        if !client.try_send(&[b'x'; 16 * 1024]) {
            break;
        }
    }
    client.try_send(b"\r\n");
    let reply = client.try_reply().unwrap_or_else(|| "500 (connection closed)".to_string());
    assert!(reply.starts_with("500") || reply.starts_with("421"), "{reply}");
    assert!(relay.memory_peak() < before + (4 << 20), "a line of a mebibyte is kept in memory");
    relay.client();
}

#[test]
fn garbage_does_not_end_the_relay() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut chance = fastrand::Rng::with_seed(7);
    for _ in 0..50 {
        let mut client = relay.client();
        let length = chance.usize(1..4000);
        let garbage: Vec<u8> = std::iter::repeat_with(|| chance.u8(..)).take(length).collect();
        client.try_send(&garbage);
        client.try_send(b"\r\nQUIT\r\n");
    }
    relay.submit("app@sender.test", &["u@x.test"], &mail("alive", "x"));
    mx.wait_accepted(1);
}

#[test]
fn commands_out_of_order_are_refused_and_change_nothing() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = Client::connect(relay.address());
    client.ask("MAIL FROM:<a@b.test>", "503");
    client.hello();
    for command in ["RCPT TO:<u@x.test>", "DATA"] {
        client.ask(command, "503");
    }
    client.ask("MAIL FROM:<app@sender.test>", "250");
    client.ask("MAIL FROM:<app@sender.test>", "503");
    client.ask("DATA", "5");
    client.ask("RCPT TO:<u@x.test>", "250");
    client.ask("RSET", "250");
    client.ask("RCPT TO:<u@x.test>", "503");
    client.ask("VRFY u", "252");
    client.ask("EXPN list", "5");
    client.ask("NONSENSE", "5");
    client.submit("app@sender.test", &["u@x.test"], &mail("order", "x"));
    client.ask("QUIT", "221");
    client.expect_end();
    mx.wait_accepted(1);
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    assert!(client.offers("PIPELINING"));
    client.send_bytes(
        b"MAIL FROM:<app@sender.test>\r\nRCPT TO:<u@x.test>\r\nRCPT TO:<bad\r\nRCPT TO:<v@x.test>\r\nDATA\r\n",
    );
    for code in ["250", "250", "501", "250", "354"] {
        client.expect(code);
    }
    client.send_bytes(b"Subject: pipe\r\n\r\nx\r\n.\r\nMAIL FROM:<app@sender.test>\r\nRSET\r\nQUIT\r\n");
    for code in ["250", "250", "250", "221"] {
        client.expect(code);
    }
    assert_eq!(mx.wait_accepted(1)[0].to(), ["u@x.test", "v@x.test"]);
}

#[test]
fn the_door_offers_what_clients_count_on() {
    let world = World::new();
    let relay = world.config().start();
    let client = relay.client();
    for keyword in ["PIPELINING", "SIZE", "DSN", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"] {
        assert!(client.offers(keyword), "{keyword} is missing in {:?}", client.keywords);
    }
}

/// MAIL is put off with 452 4.3.1 and `words`, on a connection that stays open; what is announced as a chunk is read.
fn puts_mail_off(relay: &Relay, words: &str) {
    let mut client = relay.client();
    for _ in 0..3 {
        let reply = client.ask("MAIL FROM:<app@sender.test>", "452 4.3.1");
        assert!(reply.contains(words), "{words} is missing in {reply}");
        client.ask("RCPT TO:<u@x.test>", "503");
        client.ask("NOOP", "250");
    }
    client.ask("QUIT", "221");
}

#[test]
fn a_full_queue_answers_452_at_mail_until_there_is_room() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Greeting, close("421 4.3.2 closed today"));
    let relay = world.config().set("limits", "queue_messages", "3").set("queue", "retry", "[\"1h\"]").start();
    for n in 0..3 {
        relay.submit("app@sender.test", &["u@x.test"], &mail(&format!("m{n}"), "x"));
    }
    relay.ok(&["queue", "hold"]);
    puts_mail_off(&relay, "queue_messages");
    assert_eq!(relay.command(&["health"]).status.code(), Some(0), "it lives");
    assert_eq!(relay.command(&["health", "--ready"]).status.code(), Some(1), "and takes no mail");
    mx.relent(At::Greeting);
    relay.ok(&["queue", "release"]);
    relay.ok(&["queue", "flush"]);
    mx.wait_accepted(3);
    relay.assert_settled();
    relay.submit("app@sender.test", &["u@x.test"], &mail("room", "x"));
    mx.wait_accepted(4);
}

#[test]
fn a_full_disk_answers_452_at_mail_and_what_is_queued_goes_on() {
    let (world, mx) = World::with_domain("x.test");
    mx.once(At::Mail, say("451 4.3.0 later"));
    let config = world.config().set("queue", "retry", "[\"1h\"]");
    let mut relay = config.clone().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("before", "x"));
    relay.wait_event("deferred", "u@x.test");
    relay.stop();
    // No disk has so much free.
    let config = config.set("limits", "min_free_disk", "\"1000000 GiB\"");
    std::fs::write(relay.config_file(), config.to_toml(&relay.data_dir())).unwrap();
    relay.run();
    puts_mail_off(&relay, "min_free_disk");
    assert_eq!(relay.command(&["health", "--ready"]).status.code(), Some(1));
    relay.ok(&["queue", "flush"]);
    mx.wait_accepted(1);
    relay.assert_settled();
}

#[test]
fn a_queue_that_fills_while_messages_arrive_puts_them_off_one_by_one() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Greeting, close("421 4.3.2 closed today"));
    let relay = world.config().set("limits", "queue_messages", "2").set("queue", "retry", "[\"1h\"]").start();
    let mut clients: Vec<Client> = (0..6).map(|_| relay.client()).collect();
    for client in &mut clients {
        client.envelope("app@sender.test", &["u@x.test"]);
        client.ask("DATA", "354");
    }
    // All of them were let in at MAIL, and all are at their end of data together: kept whole or put off, never cut off.
    let content = crate::kit::client::stuffed(&mail("together", "x"));
    clients.iter_mut().for_each(|client| client.send_bytes(&content));
    let replies: Vec<String> = clients.iter_mut().map(Client::reply).collect();
    let taken = replies.iter().filter(|r| r.starts_with("250 2.0.0 queued")).count();
    assert!(replies.iter().all(|r| r.starts_with("250") || r.starts_with("452 4.3.1")), "{replies:#?}");
    assert!(taken >= 2, "{replies:#?}");
    assert_eq!(relay.queue().len(), taken);
    for client in &mut clients {
        client.ask("MAIL FROM:<app@sender.test>", "452 4.3.1");
        client.ask("NOOP", "250");
    }
}

#[test]
fn control_characters_of_a_client_reach_no_header_and_no_log_line() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = Client::connect(relay.address());
    client.send_bytes(b"EHLO evil\x00\x1b[31m\tname\r\n");
    let reply = client.reply();
    if reply.starts_with('5') {
        client.hello();
    }
    client.submit("app@sender.test", &["u@x.test"], &mail("control", "x"));
    let got = mx.wait_accepted(1).remove(0);
    assert!(!got.content.iter().any(|b| *b == 0 || *b == 0x1b), "{}", got.text());
    assert!(!relay.log().contains('\u{1b}'), "{}", relay.log());
}

#[test]
fn many_clients_are_served_at_once_and_over_the_limit_the_idle_make_room() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().set("limits", "connections", "20").start();
    let mut idle: Vec<Client> = (0..20).map(|_| relay.client()).collect();
    // The 21st is served at once: the one idle longest had to go.
    relay.submit("app@sender.test", &["u@x.test"], &mail("room", "x"));
    mx.wait_accepted(1);
    let mut first = idle.remove(0);
    let said = first.try_reply();
    assert!(said.as_ref().is_none_or(|s| s.starts_with("421")), "{said:?}");
    idle.pop().expect("the youngest").ask("NOOP", "250");
}
