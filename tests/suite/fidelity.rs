//! What arrives is what was handed in, byte for byte, behind the Received field; whatever way the receiver takes it.

use crate::kit::client::stuffed;
use crate::kit::{At, Mx, Relay, World, contains, drop_connection, mail};

const HEAD: &[u8] = b"From: <app@sender.test>\r\nSubject: bytes\r\n\r\n";

/// Bodies that have broken mail systems.
fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let every_octet: Vec<u8> = (1..=255u8).filter(|b| *b != b'\r' && *b != b'\n').collect();
    vec![
        ("empty", b"".to_vec()),
        ("one line", b"x\r\n".to_vec()),
        ("eight bit", [every_octet.as_slice(), b"\r\n"].concat()),
        ("utf-8", "Grüße, 世界\r\n".as_bytes().to_vec()),
        ("dots", b".\r\n..\r\n...\r\n.a\r\na.\r\n \r\n.\r\n".to_vec()),
        ("ends with a dot line", b"text\r\n.\r\n".to_vec()),
        ("begins with a dot line", b".\r\ntext\r\n".to_vec()),
        ("blank lines", b"\r\n\r\n\r\n".to_vec()),
        ("trailing blanks", b"a \t \r\n\t\r\n ".iter().copied().chain(*b"\r\n").collect()),
        ("lines of 998", [vec![b'x'; 998], b"\r\n".to_vec()].concat().repeat(3)),
        ("a line of 5000", [vec![b'y'; 5000], b"\r\n".to_vec()].concat()),
        ("a line that crosses every buffer", [vec![b'.'; 70_001], b"\r\n.\r\n".to_vec()].concat()),
        ("more than is kept inline", b"0123456789abcdef0123456789abcdef0123456789abcdef\r\n.dots\r\n".repeat(6000)),
    ]
}

fn arrives_unchanged(relay: &Relay, mx: &Mx) {
    let mut client = relay.client();
    for (sent, (name, body)) in bodies().into_iter().enumerate() {
        let content = [HEAD, &body].concat();
        client.submit("app@sender.test", &["u@x.test"], &content);
        let got = mx.wait_accepted(sent + 1).pop().expect("just accepted");
        assert!(got.content.ends_with(&content), "{name}: {}", String::from_utf8_lossy(&got.content));
        let added = &got.content[..got.content.len() - content.len()];
        assert!(
            added.starts_with(b"Received: ") && added.ends_with(b"\r\n"),
            "{name}: {}",
            String::from_utf8_lossy(added)
        );
    }
}

#[test]
fn bodies_arrive_unchanged_by_bdat() {
    let (world, mx) = World::with_domain("x.test");
    arrives_unchanged(&world.config().start(), &mx);
}

#[test]
fn bodies_arrive_unchanged_by_data() {
    let (world, mx) = World::with_domain("x.test");
    mx.offer_all_but("CHUNKING");
    arrives_unchanged(&world.config().start(), &mx);
    assert!(mx.accepted().iter().all(|t| !t.is_chunked));
}

#[test]
fn bodies_arrive_unchanged_at_a_host_that_offers_nothing_but_eight_bits() {
    let (world, mx) = World::with_domain("x.test");
    mx.offer(&["8BITMIME"]);
    arrives_unchanged(&world.config().start(), &mx);
}

#[test]
fn bodies_arrive_unchanged_over_tls() {
    let world = World::new();
    let mx = world.tls_host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    arrives_unchanged(&world.config().start(), &mx);
    assert!(mx.accepted().iter().all(|t| t.is_tls));
}

#[test]
fn a_body_arrives_unchanged_after_it_waited_on_disk() {
    let (world, mx) = World::with_domain("x.test");
    mx.always(At::Greeting, drop_connection());
    let mut relay = world.config().start();
    let contents: Vec<Vec<u8>> = bodies().into_iter().map(|(_, body)| [HEAD, &body].concat()).collect();
    for content in &contents {
        relay.submit("app@sender.test", &["u@x.test"], content);
    }
    relay.stop();
    mx.relent(At::Greeting);
    relay.run();
    let got = mx.wait_accepted(contents.len());
    for content in &contents {
        assert!(got.iter().any(|t| t.content.ends_with(content)), "{}", String::from_utf8_lossy(content));
    }
}

#[test]
fn twenty_five_mebibytes_arrive_unchanged() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut chance = fastrand::Rng::with_seed(25);
    let mut content = HEAD.to_vec();
    while content.len() < 25 << 20 {
        let length = chance.usize(0..200);
        content.extend(std::iter::repeat_with(|| chance.alphanumeric() as u8).take(length));
        content.extend_from_slice(if chance.u8(..) < 32 { b"\r\n." } else { b"\r\n" });
    }
    content.extend_from_slice(b"\r\n");
    let before = relay.memory_peak();
    relay.submit("app@sender.test", &["u@x.test"], &content);
    assert!(mx.wait_accepted(1)[0].content.ends_with(&content), "25 MiB were changed on the way");
    // The program itself, which a test's build makes large, is not what is looked at.
    let more = relay.memory_peak() - before;
    assert!(more < 16 << 20, "{} MiB more for one message of 25 MiB", more >> 20);
}

#[test]
fn lettre_hands_in_what_arrives() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let content = mail("lettre", ".leading dot\n..two\nend");
    crate::kit::client::send_with_lettre(relay.address(), "app@sender.test", &["u@x.test", "v@x.test"], &content)
        .unwrap();
    let got = mx.wait_accepted(1).remove(0);
    assert_eq!(got.to(), ["u@x.test", "v@x.test"]);
    assert!(contains(&got.content, b"\r\n.leading dot\r\n..two\r\nend"), "{}", got.text());
}

#[test]
fn only_crlf_leaves_the_relay_whatever_came_in() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    client.envelope("app@sender.test", &["u@x.test"]);
    client.ask("DATA", "354");
    client.send_bytes(b"Subject: bare\r\n\r\none\ntwo\rthree\r\r\nfour\n\nfive\r\n.\r\n");
    client.expect("250");
    let got = mx.wait_accepted(1).remove(0);
    let body = got.body();
    assert_eq!(memchr::memmem::find_iter(body, b"\r\n").count(), body.iter().filter(|b| **b == b'\n').count());
    assert_eq!(body.iter().filter(|b| **b == b'\n').count(), body.iter().filter(|b| **b == b'\r').count());
    assert!(body.starts_with(b"one\r\ntwo\r\nthree\r\n"), "{}", String::from_utf8_lossy(body));
}

#[test]
fn bare_line_ends_are_refused_where_the_configuration_says_so() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().set("limits", "bare_newlines", "\"reject\"").start();
    let mut client = relay.client();
    for bad in [&b"one\ntwo\r\n"[..], b"one\rtwo\r\n", b"one\r\r\n"] {
        client.envelope("app@sender.test", &["u@x.test"]);
        client.ask("DATA", "354");
        client.send_bytes(&stuffed(&[HEAD, bad].concat()));
        client.expect("550 5.6.0");
    }
    client.submit("app@sender.test", &["u@x.test"], &mail("clean", "x"));
    mx.wait_accepted(1);
}
