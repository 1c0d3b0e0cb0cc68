//! TLS towards receivers as the configuration asks for it: whose certificates are believed, and for whose mail.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::kit::papers::Papers;
use crate::kit::relay::program;
use crate::kit::{At, Config, World, close, drop_connection, mail, until};

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

fn policy(config: Config, domain: &str, tls: &str) -> Config {
    config.table(&format!("[[tls_policy]]\ndomain = \"{domain}\"\ntls = \"{tls}\""))
}

#[test]
fn verify_believes_the_authorities_of_ca_file_and_a_reload_brings_new_ones() {
    let (world, papers) = (World::new(), Papers::issue());
    let mx = world.tls_host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    papers.put("ca.pem", &Papers::text().0);
    let config = world.config().set("delivery", "tls", "\"verify\"");
    let config = config.set("delivery", "ca_file", &format!("\"{}\"", papers.path("ca.pem").display()));
    let relay = config.clone().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("trust", "x"));
    let deferred = relay.wait_event("deferred", "u@x.test");
    assert!(deferred["reply"].as_str().is_some_and(|reply| reply.contains("invalid peer certificate")), "{deferred}");
    assert_eq!(mx.count("MAIL"), 0);

    papers.put("ca.pem", "this is no certificate");
    relay.signal(rustix::process::Signal::HUP);
    until("the faulty file is told", || relay.log().contains("holds no certificate").then_some(()));
    let said = relay.log();
    assert!(said.contains("not reloaded, the old one stays") && said.contains("(delivery.ca_file)"), "{said}");
    let check = relay.command(&["check"]);
    assert_eq!(check.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&check.stderr).contains("ca.pem (delivery.ca_file) holds no certificate"));

    papers.put("ca.pem", mx.certificate());
    relay.reload(&config);
    assert!(mx.wait_accepted(1)[0].is_tls);
    relay.assert_settled();
}

#[test]
fn of_two_domains_at_one_host_only_the_one_that_demands_it_waits_for_a_verified_connection() {
    let (world, papers) = (World::new(), Papers::issue());
    let mx = world.tls_host("mx.shared.test");
    world.domain("bank.test", &[(10, &mx)]);
    world.domain("shop.test", &[(10, &mx)]);
    papers.put("ca.pem", &Papers::text().0);
    let config = policy(world.config(), "bank.test", "verify").set("queue", "retry", "[\"500ms\"]");
    let config = config.set("delivery", "ca_file", &quoted(&papers.path("ca.pem")));
    let relay = config.clone().start();
    relay.submit("app@sender.test", &["u@shop.test"], &mail("one", "x"));
    mx.wait_accepted(1);
    // A connection stands that was not verified for it.
    relay.submit("app@sender.test", &["u@bank.test"], &mail("secret", "x"));
    let deferred = relay.wait_event("deferred", "u@bank.test");
    assert!(deferred["reply"].as_str().is_some_and(|reply| reply.contains("invalid peer certificate")), "{deferred}");
    relay.submit("app@sender.test", &["v@shop.test"], &mail("two", "x"));
    let shop = mx.wait_accepted(2);
    assert!(shop.iter().all(|got| got.is_tls && got.to() != ["u@bank.test"]), "{shop:?}");

    papers.put("ca.pem", mx.certificate());
    relay.reload(&config);
    let bank = mx.wait_accepted(3).remove(2);
    assert!(bank.to() == ["u@bank.test"] && shop.iter().all(|got| got.connection != bank.connection));
    let tls = |recipient: &str| relay.wait_event("delivered", recipient)["tls"].to_string();
    assert!(tls("u@bank.test").contains(" X25519MLKEM768 verified"), "{}", tls("u@bank.test"));
    assert!(tls("u@shop.test").contains(" X25519MLKEM768 unverified"), "{}", tls("u@shop.test"));
    relay.assert_settled();
}

#[test]
fn a_stricter_configuration_leaves_no_connection_that_was_opened_before() {
    let world = World::new();
    let mx = world.tls_host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    let config = world.config();
    let relay = config.clone().start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("one", "x"));
    mx.wait_accepted(1);
    relay.reload(&config.table("[[provider]]\nname = \"default\"\ntls = \"verify\""));
    relay.submit("app@sender.test", &["v@x.test"], &mail("two", "x"));
    let deferred = relay.wait_event("deferred", "v@x.test");
    assert!(deferred["reply"].as_str().is_some_and(|reply| reply.contains("invalid peer certificate")), "{deferred}");
    assert_eq!(mx.accepted_count(), 1);
}

#[test]
fn a_required_starttls_that_is_not_offered_is_told_with_the_key_that_asks_for_it() {
    let (world, mx) = World::with_domain("x.test");
    let relay = policy(world.config(), ".test", "encrypt").set("queue", "retry", "[\"1h\"]").start();
    relay.submit("app@sender.test", &["u@x.test"], &mail("waits", "x"));
    let deferred = relay.wait_event("deferred", "u@x.test");
    let expected = "STARTTLS is not offered, and the [[tls_policy]] for \".test\" asks for it";
    assert!(deferred["reply"].as_str().is_some_and(|reply| reply.contains(expected)), "{deferred}");
    assert_eq!(mx.count("MAIL"), 0);
}

#[test]
fn a_host_that_chokes_on_a_large_hello_gets_a_small_one_before_clear_text() {
    for mode in ["opportunistic", "encrypt"] {
        let world = World::new();
        let mx = world.tls_host("mx.x.test");
        world.domain("x.test", &[(10, &mx)]);
        mx.drops_large_hellos();
        mx.always(At::End, close("250 2.0.0 ok, and good bye"));
        let relay = world.config().set("delivery", "tls", &format!("\"{mode}\"")).start();
        for n in 1..=3 {
            relay.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail("small", "x"));
            assert!(mx.wait_accepted(n)[n - 1].is_tls);
        }
        // Found out once.
        assert_eq!(mx.connections(), 4, "{mode}");
        let tls = relay.wait_event("delivered", "u3@x.test")["tls"].to_string();
        assert!(tls.contains("TLSv1.3 ") && tls.contains(" X25519 unverified"), "{tls}");
        relay.assert_settled();
    }
}

#[test]
fn a_host_whose_tls_is_broken_is_found_out_once() {
    let world = World::new();
    let mx = world.tls_host("mx.x.test");
    world.domain("x.test", &[(10, &mx)]);
    mx.always(At::Handshake, drop_connection());
    mx.always(At::End, close("250 2.0.0 ok, and good bye"));
    let relay = world.config().set("queue", "retry", "[\"1h\"]").start();
    for n in 1..=3 {
        relay.submit("app@sender.test", &[&format!("u{n}@x.test")], &mail("clear", "x"));
        assert!(!mx.wait_accepted(n)[n - 1].is_tls);
    }
    // With a large hello, with a small one, in clear text; then in clear text at once.
    assert_eq!(mx.connections(), 5);
    relay.assert_settled();
}

/// A next hop that openssl serves, TLS from the first octet; its certificate is in `papers`, for `localhost`. None where openssl is
/// not installed.
struct OpenSsl {
    child: Child,
    port: u16,
}

impl OpenSsl {
    fn start(papers: &Papers, arguments: &[&str]) -> Option<OpenSsl> {
        let Some(openssl) = program("openssl") else {
            eprintln!("skipped: openssl is not installed");
            return None;
        };
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = free.expect("a free port").port();
        let mut child = Command::new(openssl)
            .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}")])
            .arg("-cert")
            .arg(papers.path("certificate"))
            .arg("-key")
            .arg(papers.path("key"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start openssl");
        let (stdin, stdout) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        // What is written goes to whoever is connected: the greeting is there when a client comes.
        std::thread::spawn(move || serve(stdin, BufReader::new(stdout)));
        Some(OpenSsl { child, port })
    }

    fn route(&self) -> String {
        format!("[[route]]\ndomain = \"*\"\nto = \"localhost:{}\"\ntls = \"implicit\"", self.port)
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to try it would be taken for the client that is served.
fn is_listening(port: u16) -> bool {
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let listens = format!(":{port:04X} 00000000:0000 0A");
    sockets.lines().any(|line| line.contains(&listens))
}

fn serve(mut out: impl Write, mut lines: impl BufRead) {
    let (mut line, mut is_content) = (String::new(), false);
    let mut reply = "220 openssl.test";
    loop {
        if !reply.is_empty() && write!(out, "{reply}\r\n").and_then(|()| out.flush()).is_err() {
            return;
        }
        line.clear();
        if lines.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        reply = match line.trim_end() {
            "." => "250 2.0.0 taken",
            _ if is_content => "",
            "DATA" => "354 go on",
            "QUIT" => "221 2.0.0 bye",
            _ => "250 2.0.0 ok",
        };
        is_content = is_content && reply.is_empty() || line.trim_end() == "DATA";
    }
}

#[test]
fn openssl_takes_mail_over_every_version_we_speak_and_over_none_before() {
    for (arguments, agreed) in [
        (&["-tls1_3"][..], Some("TLSv1.3 ")),
        (&["-tls1_2"], Some("TLSv1.2 TLS_ECDHE_")),
        (&["-tls1_3", "-groups", "P-256"], Some(" secp256r1 verified")),
        (&["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], None),
    ] {
        let papers = Papers::issue();
        let Some(hop) = OpenSsl::start(&papers, arguments) else { return };
        let (port, world) = (hop.port, World::new());
        until("openssl listens", || is_listening(port).then_some(()));
        let config = world.config().set("delivery", "ca_file", &quoted(&papers.path("certificate")));
        let relay = config.table(&hop.route()).start();
        relay.submit("app@sender.test", &["u@x.test"], &mail("openssl", "x"));
        match agreed {
            Some(agreed) => {
                let tls = relay.wait_event("delivered", "u@x.test")["tls"].to_string();
                assert!(tls.contains(agreed) && tls.contains(" verified"), "{arguments:?}: {tls}");
            }
            None => {
                let deferred = relay.wait_event("deferred", "u@x.test")["reply"].to_string();
                assert!(deferred.contains("TLS handshake"), "{deferred}");
            }
        }
    }
}
