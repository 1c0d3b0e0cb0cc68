//! Attacks on the front door, a table each, through real sockets: content that is to be obeyed, clear text that is to pass for TLS,
//! addresses that are to lead elsewhere, passwords that are to be guessed. `door` has the patterns of ends of data and of strangers.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::door::{FAKE_ENDS, SMUGGLED};
use crate::kit::{Client, Config, PATIENCE, Relay, World, mail};

#[test]
fn no_cut_makes_an_end_of_what_is_none() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = relay.client();
    let mut taken = 0;
    for (name, fake) in FAKE_ENDS {
        for cut in 1..fake.len() {
            client.envelope("app@sender.test", &["u@x.test"]);
            client.ask("DATA", "354");
            client.send_bytes(&[&b"Subject: fake\r\n\r\nbefore"[..], &fake[..cut]].concat());
            client.send_bytes(&[&fake[cut..], SMUGGLED].concat());
            client.send_bytes(b".\r\nNOOP\r\n");
            let reply = client.reply();
            assert!(reply.starts_with("250 2.0.0 queued") || fake.contains(&0), "{name} cut at {cut}: {reply}");
            taken += usize::from(reply.starts_with("250"));
            client.expect("250 2.0.0 ok");
        }
    }
    assert_eq!(relay.events_of("accepted").len(), taken);
    mx.wait_accepted(taken);
    assert_eq!(mx.rcpts("victim@x.test"), 0);
}

/// What is behind the DATA that is refused: if one line of it were obeyed, it would show.
#[test]
fn nothing_is_obeyed_behind_a_refused_data() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let bodies: [&[u8]; 5] = [
        b"MAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@x.test>\r\n",
        b"Subject: s\r\n\r\nMAIL FROM:<evil@sender.test>\r\n.\r\n",
        b"RSET\r\nMAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@x.test>\r\nDATA\r\nevil\r\n.\r\n",
        b".\r\n",
        b"x",
    ];
    let refused: [&[&str]; 4] = [
        &["DATA"],
        &["MAIL FROM:<a@sender.test>", "DATA"],
        &["MAIL FROM:<a@sender.test>", "RCPT TO:<@>", "DATA"],
        &["MAIL FROM:<a", "RCPT TO:<u@x.test>", "DATA"],
    ];
    for lines in refused {
        for body in bodies {
            let mut client = relay.client();
            let mut flight = lines.join("\r\n").into_bytes();
            flight.extend_from_slice(b"\r\n");
            flight.extend_from_slice(body);
            client.send_bytes(&flight);
            for _ in lines {
                client.reply();
            }
            client.expect("554 5.5.0");
            client.expect_end();
        }
    }
    assert!(relay.events_of("accepted").is_empty());
    assert_eq!(mx.rcpts("victim@x.test"), 0);
}

#[test]
fn a_browser_that_talks_to_the_relay_says_nothing_that_is_obeyed() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    for verb in ["GET", "POST", "PUT", "HEAD", "CONNECT", "OPTIONS", "DELETE", "PATCH", "TRACE", "post"] {
        let mut client = Client::connect(relay.address());
        client.send_bytes(
            format!(
                "{verb} / HTTP/1.1\r\nHost: relay.test\r\n\r\nEHLO client.test\r\nMAIL FROM:<evil@sender.test>\r\n\
                 RCPT TO:<victim@x.test>\r\nDATA\r\nevil\r\n.\r\n"
            )
            .as_bytes(),
        );
        client.expect("500 5.5.2");
        client.expect_end();
    }
    assert!(relay.events_of("accepted").is_empty());
    assert_eq!(mx.rcpts("victim@x.test"), 0);
}

#[test]
fn who_talks_before_the_greeting_is_answered_in_order() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let mut client = Client::open(IpAddr::V4(Ipv4Addr::LOCALHOST), relay.address()).unwrap();
    client.send_bytes(b"EHLO client.test\r\nMAIL FROM:<app@sender.test>\r\nRCPT TO:<u@x.test>\r\nDATA\r\n");
    for code in ["220", "250", "250", "250", "354"] {
        client.expect(code);
    }
    client.send_bytes(b"Subject: s\r\n\r\nx\r\n.\r\n");
    client.expect("250 2.0.0 queued");
    mx.wait_accepted(1);
}

/// Where a trusted client's recipient goes: as it is written, to the domain behind the last `@`; or nowhere.
#[test]
fn every_form_of_an_address_goes_where_its_domain_is_or_nowhere() {
    let (world, mx) = World::with_domain("x.test");
    let relay = world.config().start();
    let taken = [
        "u@x.test",
        "u%other.test@x.test",
        "other.test!u@x.test",
        "\"u@other.test\"@x.test",
        "\"u%other.test\"@x.test",
        "\"a b\"@x.test",
        "\"\"@x.test",
        "a..b@x.test",
    ];
    let refused = [
        "<\"u@x.test\">",
        "<u@other.test@x.test>",
        "<@relay.test:u@x.test>",
        "<@[127.0.0.1]:u@x.test>",
        "<@a.test,@b.test:u@x.test>",
        "<other.test!u>",
        "<u@x.test..>",
        "<u@x.test..>",
        "<u@x.test>x",
        "<u@xn-->",
        "<u@>",
        "<u@127.0.0.1>",
        "<u\0@x.test>",
        "<u\t@x.test>",
        "<>",
    ];
    let mut client = relay.client();
    for recipient in taken {
        client.submit("app@sender.test", &[recipient], &mail("form", "x"));
    }
    mx.wait_accepted(taken.len());
    for recipient in taken {
        assert_eq!(mx.rcpts(recipient), 1, "verbatim: {recipient}; {:?}", mx.commands());
    }
    client.ask("MAIL FROM:<app@sender.test>", "250");
    for recipient in refused {
        client.ask(&format!("RCPT TO:{recipient}"), "5");
    }
    client.ask("DATA", "503");
    assert_eq!(world.dns.asked("other.test", "MX"), 0);
    assert_eq!(relay.events_of("accepted").len(), taken.len());
}

/// A wrong password sounds as a wrong name does, with every mechanism.
#[test]
fn a_guess_learns_nothing() {
    let (world, _mx) = World::with_domain("x.test");
    let user = "[[relay.user]]\nname = \"app\"\npassword = \"correct horse battery\"";
    let relay = world.config().table(user).start();
    // The name or the password is wrong, or both, in PLAIN and in LOGIN.
    let guesses: [&[&str]; 5] = [
        &["AUTH PLAIN AGFwcAB3cm9uZw=="],
        &["AUTH PLAIN AG5vYm9keQB3cm9uZw=="],
        &["AUTH PLAIN AG5vYm9keQBjb3JyZWN0IGhvcnNlIGJhdHRlcnk="],
        &["AUTH LOGIN", "YXBw", "d3Jvbmc="],
        &["AUTH LOGIN", "bm9ib2R5", "d3Jvbmc="],
    ];
    let mut clients: Vec<Client> = guesses.iter().map(|_| relay.client()).collect();
    for (client, lines) in clients.iter_mut().zip(guesses) {
        let (last, before) = lines.split_last().expect("a guess has a line");
        for line in before {
            client.ask(line, "334");
        }
        client.send(last);
    }
    for client in &mut clients {
        assert_eq!(client.reply(), "535 5.7.8 user or password is wrong");
    }
    let mut client = relay.client();
    client.ask("AUTH PLAIN AGFwcABjb3JyZWN0IGhvcnNlIGJhdHRlcnk=", "235 2.7.0");
    client.submit("app@sender.test", &["u@x.test"], &mail("user", "x"));
    assert!(!relay.log().contains("correct horse"), "{}", relay.log());
}

// ---- inside TLS, and beside it ----

/// A relay whose listener speaks TLS, and what its clients trust.
struct Secured {
    relay: Relay,
    trust: Arc<ClientConfig>,
    _papers: TempDir,
}

impl Secured {
    fn start(config: Config, listener: &str) -> Secured {
        let papers = tempfile::tempdir().expect("a folder for a certificate");
        let made =
            rcgen::generate_simple_self_signed(vec!["relay.test".to_string()]).expect("a certificate for a test");
        let file = |name: &str, text: String| {
            let path = papers.path().join(name);
            std::fs::write(&path, text).expect("write the certificate");
            format!("\"{}\"", path.display())
        };
        let (certificate, key) = (file("cert.pem", made.cert.pem()), file("key.pem", made.signing_key.serialize_pem()));
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let trust = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
        let config = config.set("tls", "certificate", &certificate).set("tls", "key", &key);
        let relay = config.with_listener(listener).start();
        Secured { relay, trust: Arc::new(trust.with_root_certificates(roots).with_no_client_auth()), _papers: papers }
    }

    /// A connection inside TLS that has heard the greeting: begun with TLS, or by STARTTLS and `behind` in the same octets.
    fn open(&self, start: Option<&[u8]>) -> Session {
        let mut socket = TcpStream::connect(self.relay.address()).expect("connect");
        socket.set_nodelay(true).expect("no delay");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit of time");
        if let Some(behind) = start {
            assert!(line(&mut socket).starts_with("220 "));
            socket.write_all(&[&b"STARTTLS\r\n"[..], behind].concat()).expect("ask for TLS");
            assert!(line(&mut socket).starts_with("220 2.0.0 "));
        }
        let name = ServerName::try_from("relay.test").expect("a name");
        let connection = ClientConnection::new(self.trust.clone(), name).expect("a client of TLS");
        let mut session = Session(StreamOwned::new(connection, socket));
        if start.is_none() {
            assert!(session.line().starts_with("220 "));
        }
        session
    }
}

struct Session(StreamOwned<ClientConnection, TcpStream>);

impl Session {
    fn line(&mut self) -> String {
        line(&mut self.0)
    }

    fn ask(&mut self, octets: &[u8], code: &str) {
        self.0.write_all(octets).expect("send inside TLS");
        let reply = self.line();
        assert!(reply.starts_with(code), "{} to {}", reply, octets.escape_ascii());
    }

    /// EHLO with all lines of its answer.
    fn hello(&mut self) {
        self.0.write_all(b"EHLO client.test\r\n").expect("send inside TLS");
        while self.line().starts_with("250-") {}
    }

    /// Says that TLS is over, then `clear` beside it, and hears the connection out.
    fn leave(mut self, clear: &[u8]) {
        self.0.conn.send_close_notify();
        self.0.flush().expect("the end of TLS");
        // The relay may be gone already.
        let _ = self.0.sock.write_all(clear);
        let _ = self.0.sock.shutdown(std::net::Shutdown::Write);
        let _ = self.0.sock.read_to_end(&mut Vec::new());
    }
}

/// A line, octet by octet: nothing behind it is taken.
fn line(stream: &mut impl Read) -> String {
    let (mut line, mut octet) = (Vec::new(), [0]);
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut octet).expect("a line of the relay");
        line.push(octet[0]);
    }
    String::from_utf8_lossy(&line).trim_end().to_string()
}

#[test]
fn what_stands_behind_starttls_in_clear_text_is_never_heard() {
    let (world, mx) = World::with_domain("x.test");
    let secured = Secured::start(world.config(), "tls = \"starttls\"");
    let injected: [&[u8]; 4] = [
        b"EHLO injected.test\r\n",
        b"EHLO injected.test\r\nMAIL FROM:<evil@sender.test>\r\nRCPT TO:<victim@x.test>\r\n",
        b"NOOP\r\nNOOP\r\n",
        b"half a line",
    ];
    for octets in injected {
        let mut session = secured.open(Some(octets));
        session.ask(b"RCPT TO:<u@x.test>\r\n", "503 5.5.1 say MAIL first");
        session.ask(b"MAIL FROM:<app@sender.test>\r\n", "503 5.5.1 say EHLO first");
        session.hello();
        session.ask(b"QUIT\r\n", "221");
    }
    assert_eq!(mx.rcpts("victim@x.test"), 0);
}

#[test]
fn the_true_end_is_found_in_whatever_records_of_tls_it_comes() {
    let (world, mx) = World::with_domain("x.test");
    let secured = Secured::start(world.config(), "tls = \"implicit\"");
    let mut session = secured.open(None);
    session.hello();
    let end = b"text\r\n.\r\n";
    for cut in 1..end.len() {
        session.ask(b"MAIL FROM:<app@sender.test>\r\n", "250");
        session.ask(b"RCPT TO:<u@x.test>\r\n", "250");
        session.ask(b"DATA\r\n", "354");
        for part in [&b"Subject: cut\r\n\r\n"[..], &end[..cut], &end[cut..]] {
            session.0.write_all(part).and_then(|()| session.0.flush()).expect("a record of its own");
        }
        assert!(session.line().starts_with("250 2.0.0 queued"));
    }
    mx.wait_accepted(end.len() - 1);
}

/// CVE-2026-45185 and its like: TLS ends in the midst of content, and octets in clear text follow.
#[test]
fn content_that_tls_left_half_is_no_message_whatever_follows_in_clear_text() {
    let (world, mx) = World::with_domain("x.test");
    let secured = Secured::start(world.config(), "tls = \"implicit\"\nchunking = \"on\"");
    let contents: [&[u8]; 4] = [b"DATA\r\n", b"BDAT 40 LAST\r\n", b"BDAT 40\r\n", b"BDAT 5000 LAST\r\n"];
    let follows: [&[u8]; 4] = [b"", b"x", b"\r\n.\r\n", &[b'x'; 5000]];
    for content in contents {
        for clear in follows {
            let mut session = secured.open(None);
            session.hello();
            session.ask(b"MAIL FROM:<app@sender.test>\r\n", "250");
            session.ask(b"RCPT TO:<u@x.test>\r\n", "250");
            if content.starts_with(b"DATA") {
                session.ask(content, "354");
            } else {
                session.0.write_all(content).expect("announce a chunk");
            }
            session.0.write_all(b"Subject: half\r\n\r\nhalf").and_then(|()| session.0.flush()).expect("half a message");
            session.leave(clear);
        }
    }
    // The relay serves on, and what was left half is nowhere.
    let mut session = secured.open(None);
    session.hello();
    session.ask(b"QUIT\r\n", "221");
    assert!(secured.relay.events_of("accepted").is_empty() && secured.relay.queue().is_empty());
    assert_eq!(mx.accepted_count(), 0);
}
