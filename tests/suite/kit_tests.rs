//! The kit against itself: a scripted receiver and name server that lie would make every other test worthless.

use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Resolver, TokioResolver};

use crate::kit::{At, Client, Failure, Gate, World, client, close, contains, drop_connection, mail, mx, say, until};

#[test]
fn the_receiver_keeps_what_it_got_byte_for_byte() {
    let (_world, mx) = World::with_domain("x.test");
    let content = b"Subject: dots\r\n\r\n.\r\n..\r\nnot the end\n.\nstill not\r\n.\r\nend".to_vec();
    let mut client = Client::connect(mx.address());
    client.hello();
    client.ask("MAIL FROM:<a@b.test> SIZE=10 BODY=8BITMIME", "250");
    client.ask("RCPT TO:<\"q u\"@x.test> NOTIFY=NEVER", "250");
    client.ask("DATA", "354");
    client.send_bytes(&client::stuffed(&content));
    client.expect("250");
    let got = mx.wait_accepted(1).remove(0);
    assert_eq!(got.content, [content, b"\r\n".to_vec()].concat());
    assert_eq!((got.sender.as_str(), got.mail_parameters.join(" ").as_str()), ("a@b.test", "SIZE=10 BODY=8BITMIME"));
    assert_eq!(
        (got.to(), got.recipients[0].parameters.as_slice()),
        (vec!["\"q u\"@x.test"], &["NOTIFY=NEVER".to_string()][..])
    );
}

#[test]
fn the_receiver_takes_chunks() {
    let (_world, mx) = World::with_domain("x.test");
    let mut client = Client::connect(mx.address());
    client.hello();
    client.send_bytes(b"MAIL FROM:<>\r\nRCPT TO:<u@x.test>\r\nBDAT 6\r\na: b\r\nBDAT 7 LAST\r\n\r\n.\r\nx\nQUIT\r\n");
    for code in ["250", "250", "250", "250", "221"] {
        client.expect(code);
    }
    let got = mx.wait_accepted(1).remove(0);
    assert_eq!((got.content.as_slice(), got.is_chunked), (&b"a: b\r\n\r\n.\r\nx\n"[..], true));
    assert_eq!((mx.open(), mx.peak(), mx.connections()), (0, 1, 1));
}

#[test]
fn the_script_acts_once_then_always_then_as_usual() {
    let (_world, mx) = World::with_domain("x.test");
    mx.once(At::Mail, say("451-4.3.0 first\n451 4.3.0 time"));
    mx.always(At::to("gone@x.test"), say("550 5.1.1 unknown"));
    mx.once(At::End, close("421 4.3.2 enough"));
    let mut client = Client::connect(mx.address());
    client.hello();
    assert_eq!(client.ask("MAIL FROM:<a@b.test>", "451"), "451-4.3.0 first\n451 4.3.0 time");
    client.ask("RCPT TO:<u@x.test>", "503");
    client.ask("MAIL FROM:<a@b.test>", "250");
    client.ask("RCPT TO:<Gone@x.test>", "550");
    client.ask("RCPT TO:<u@x.test>", "250");
    client.ask("DATA", "354");
    client.send_bytes(b"a: b\r\n.\r\n");
    client.expect("421");
    client.expect_end();
    assert_eq!((mx.accepted().len(), mx.transactions().len(), mx.rcpts("gone@x.test")), (0, 1, 1));
}

#[test]
fn the_receiver_hangs_up_at_every_moment_it_is_told_to() {
    for at in [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data, At::Body, At::End] {
        let (_world, mx) = World::with_domain("x.test");
        mx.once(at.clone(), drop_connection());
        let mut client = Client::open([127, 0, 0, 1].into(), mx.address()).unwrap();
        client.try_send(b"EHLO c.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u@x.test>\r\nDATA\r\na: b\r\n.\r\n");
        let replies = std::iter::from_fn(|| client.try_reply()).count();
        let expected =
            [At::Greeting, At::Ehlo, At::Mail, At::Rcpt, At::Data].iter().position(|a| *a == at).unwrap_or(5);
        assert_eq!(replies, expected, "{at:?}");
        assert_eq!(mx.transactions().len(), usize::from(at == At::End));
    }
}

#[test]
fn the_receiver_counts_what_is_open() {
    let (_world, mx) = World::with_domain("x.test");
    let gate = Gate::new();
    mx.always(At::Greeting, mx::wait_at(&gate));
    let clients: Vec<_> = (0..3).map(|_| Client::open([127, 0, 0, 1].into(), mx.address()).unwrap()).collect();
    until("three connections", || (mx.open() == 3 && gate.waiting() == 3).then_some(()));
    gate.open();
    drop(clients);
    until("no connection", || (mx.open() == 0).then_some(()));
    assert_eq!((mx.peak(), mx.connections()), (3, 3));
}

#[test]
fn the_receiver_speaks_tls() {
    let world = World::new();
    let mx = world.tls_host("mx.x.test");
    let (status, output) = openssl_client(mx.address());
    if let Some(status) = status {
        assert!(status && contains(&output, b"250 "), "{}", String::from_utf8_lossy(&output));
        assert_eq!(mx.count("EHLO"), 2, "{:?}", mx.commands());
    }
}

fn openssl_client(address: std::net::SocketAddr) -> (Option<bool>, Vec<u8>) {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let started = Command::new("openssl")
        .args(["s_client", "-starttls", "smtp", "-ign_eof", "-connect", &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = started else {
        eprintln!("skipped: openssl is not installed");
        return (None, Vec::new());
    };
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(b"EHLO again.test\r\nQUIT\r\n"));
    let output = child.wait_with_output().unwrap();
    (Some(output.status.success()), output.stdout)
}

#[test]
fn lettre_and_the_receiver_understand_each_other() {
    let (_world, mx) = World::with_domain("x.test");
    client::send_with_lettre(mx.address(), "a@b.test", &["u@x.test", "v@x.test"], &mail("one", "text")).unwrap();
    assert_eq!(mx.wait_accepted(1)[0].to(), ["u@x.test", "v@x.test"]);
}

fn resolver(world: &World) -> TokioResolver {
    let mut server = NameServerConfig::udp_and_tcp(world.dns.address().ip());
    for connection in &mut server.connections {
        connection.port = world.dns.address().port();
    }
    let config = ResolverConfig::from_parts(None, vec![], vec![server]);
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    builder.options_mut().timeout = Duration::from_millis(300);
    builder.options_mut().attempts = 1;
    builder.build().unwrap()
}

#[tokio::test]
async fn the_name_server_answers_an_independent_resolver() {
    let (world, mx) = World::with_domain("x.test");
    world.dns.null_mx("null.test");
    world.dns.cname("alias.test", "x.test");
    world.dns.empty("bare.test");
    world.dns.fail("sick.test", Some(Failure::ServFail));
    world.dns.fail("mute.test", Some(Failure::Silence));
    world.dns.ptr("1.2.0.192.in-addr.arpa", "host.test");
    let resolver = Arc::new(resolver(&world));

    let hosts = async |name: &str| {
        let answer = resolver.mx_lookup(name).await.map_err(|e| e.to_string())?;
        Ok::<_, String>(answer.answers().iter().map(|r| r.data.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(hosts("x.test.").await.unwrap(), ["10 mx.x.test."]);
    assert_eq!(hosts("null.test.").await.unwrap(), ["0 ."]);
    assert!(hosts("alias.test.").await.unwrap().contains(&"10 mx.x.test.".to_string()));
    for name in ["bare.test.", "nowhere.test.", "sick.test.", "mute.test."] {
        assert!(hosts(name).await.is_err(), "{name}");
    }
    let address = resolver.lookup_ip("mx.x.test.").await.unwrap().iter().next().unwrap();
    assert_eq!(address, mx.address().ip());
    assert!(world.dns.asked("x.test", "MX") >= 1 && world.dns.asked("mute.test", "MX") >= 1);

    world.dns.fail("sick.test", None);
    world.dns.mx("sick.test", &[(5, "mx.x.test")]);
    assert_eq!(hosts("sick.test.").await.unwrap(), ["5 mx.x.test."]);
}
