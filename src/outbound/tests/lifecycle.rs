//! The time between messages, the end, and what no script can say: large content, real sockets.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::clock::Clock;

const EHLO: &[u8] = b"EHLO relay.test\r\n";

/// Greets and answers EHLO with `extensions`.
async fn welcome(far: &mut DuplexStream, extensions: &[&str]) {
    say(far, b"220 mx.test\r\n").await;
    assert!(read_until(far, EHLO).await);
    let mut answer = vec!["mx.test"];
    answer.extend(extensions);
    let last = answer.len() - 1;
    for (i, line) in answer.iter().enumerate() {
        say(far, format!("250{}{line}\r\n", if i == last { ' ' } else { '-' }).as_bytes()).await;
    }
}

async fn opened(extensions: &[&str], size: usize) -> (Connection, DuplexStream) {
    let (connector, mut far) = pipe(size);
    let plan = plan(TlsMode::Off);
    let (connection, ()) = tokio::join!(connector.open(&plan), welcome(&mut far, extensions));
    (connection.map_err(|e| e.text).unwrap(), far)
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_tells_what_the_peer_says() {
    for size in PIPES {
        let (mut connection, mut far) = opened(&[], size).await;
        let nothing = timeout(Duration::from_secs(60), connection.idle()).await;
        assert!(nothing.is_err() && !connection.is_stale() && connection.is_reusable());
        let (said, ()) = tokio::join!(connection.idle(), say(&mut far, b"421 4.4.2 idle too long\r\n"));
        assert_eq!(said, "421 4.4.2 idle too long");
        assert!(connection.is_stale());
        let report = connection.transact(&transaction(&["a@x.test"], inline("x\r\n"))).await;
        assert!(matches!(&report.outcomes[..], [Outcome::Unsaid { stage: Stage::Mail, .. }]));
        assert!(!report.reusable);
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_given_up_in_the_middle_of_a_word_loses_nothing() {
    let (mut connection, mut far) = opened(&[], 64).await;
    say(&mut far, b"421 4.4").await;
    assert!(timeout(Duration::from_secs(1), connection.idle()).await.is_err());
    say(&mut far, b".2 bye\r\n").await;
    assert_eq!(connection.idle().await, "421 4.4.2 bye");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closed_while_idle_is_found_out_before_the_next_message() {
    let (mut connection, far) = opened(&["PIPELINING", "CHUNKING"], 64).await;
    drop(far);
    assert!(connection.is_stale());
    let (mut connection, far) = opened(&["PIPELINING", "CHUNKING"], 64).await;
    drop(far);
    let report = connection.transact(&transaction(&["a@x.test"], inline("x\r\n"))).await;
    assert!(matches!(&report.outcomes[..], [Outcome::Unsaid { stage: Stage::Mail, .. }]), "{:?}", report.outcomes);
    let (mut connection, far) = opened(&[], 64).await;
    drop(far);
    assert_eq!(connection.idle().await, "mx.test [192.0.2.1]: connection closed by the peer");
}

#[tokio::test(start_paused = true)]
async fn closing_waits_for_the_peer_but_not_for_long() {
    let clock = Clock::starting_at(Timestamp::from_secs(0));
    let (connection, mut far) = opened(&[], 64).await;
    let polite = async {
        assert!(read_until(&mut far, b"QUIT\r\n").await);
        say(&mut far, b"221 bye\r\n").await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        drop(far);
    };
    tokio::join!(connection.close(), polite);
    assert_eq!(clock.now(), Timestamp::from_secs(2));

    let (connection, far) = opened(&[], 64).await;
    connection.close().await;
    assert_eq!(clock.now(), Timestamp::from_secs(7));
    drop(far);
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_is_closed_without_a_word() {
    let (mut connection, mut far) = opened(&[], 64).await;
    say(&mut far, b"what?\r\n").await;
    assert!(connection.is_stale());
    connection.close().await;
    assert_eq!(read_line(&mut far).await, b"");
}

#[tokio::test(start_paused = true)]
async fn a_large_message_goes_block_by_block() {
    let line = b".0123456789 0123456789 0123456789 0123456789 0123456789 0123456789\r\n";
    let content = line.repeat(40_000);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &content).unwrap();
    let path = Arc::new(file.path().to_path_buf());
    for body in [inline(content.clone()), Body::File { path, size_bytes: content.len() as u64 }] {
        let (mut connection, mut far) = opened(&["PIPELINING", "CHUNKING"], 65_536).await;
        let peer = async {
            assert!(read_until(&mut far, b"DATA\r\n").await);
            say(&mut far, b"250 ok\r\n250 ok\r\n354 go\r\n").await;
            let mut received = vec![0; content.len() + 40_000 + 3];
            far.read_exact(&mut received).await.unwrap();
            assert!(received.ends_with(b"\r\n.\r\n") && received.starts_with(b"..0123"));
            say(&mut far, b"250 done\r\n").await;
        };
        let transaction = transaction(&["a@x.test"], body);
        let (report, ()) = tokio::join!(connection.transact(&transaction), peer);
        let done = Outcome::Replied { stage: Stage::Data, reply: Reply::new(250, "done") };
        assert_eq!((report.outcomes, report.reusable), (vec![done], true));
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_is_not_what_was_announced_is_never_ended() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "half a mess").unwrap();
    for size_bytes in [10, 12] {
        let (mut connection, mut far) = opened(&["PIPELINING", "8BITMIME"], 64).await;
        let body = Body::File { path: Arc::new(file.path().to_path_buf()), size_bytes };
        let transaction = transaction(&["a@x.test"], body);
        let peer = async {
            assert!(read_until(&mut far, b"DATA\r\n").await);
            say(&mut far, b"250 ok\r\n250 ok\r\n354 go\r\n").await;
        };
        let (report, ()) = tokio::join!(connection.transact(&transaction), peer);
        assert!(matches!(&report.outcomes[..], [Outcome::Unsaid { stage: Stage::Data, .. }]));
        assert!(!report.reusable);
        connection.close().await;
        assert!(!read_until(&mut far, b".\r\n").await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_is_not_announced() {
    let (mut connection, _far) = opened(&[], 64).await;
    let body = Body::File { path: Arc::new("/nonexistent/body".into()), size_bytes: 5 };
    let report = connection.transact(&transaction(&["a@x.test"], body)).await;
    assert!(matches!(&report.outcomes[..], [Outcome::Unsaid { stage: Stage::Mail, .. }]));
    assert!(report.reusable);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_in_the_middle_of_the_content_is_the_answer() {
    for (words, is_answer) in [("552 5.3.4 too large", true), ("421 4.7.0 enough", true), ("250 thanks", false)] {
        let (mut connection, mut far) = opened(&["PIPELINING"], 1024).await;
        let peer = async {
            assert!(read_until(&mut far, b"DATA\r\n").await);
            say(&mut far, b"250 ok\r\n250 ok\r\n354 go\r\n").await;
            far.read_exact(&mut [0; 10_000]).await.unwrap();
            say(&mut far, format!("{words}\r\n").as_bytes()).await;
        };
        let transaction = transaction(&["a@x.test"], inline(b"0123456\r\n".repeat(100_000)));
        let (report, ()) = tokio::join!(connection.transact(&transaction), peer);
        let expected = Outcome::Replied { stage: Stage::Data, reply: Reply::parse(words).unwrap() };
        assert_eq!(report.outcomes[0] == expected, is_answer, "{:?}", report.outcomes);
        assert!(is_answer || matches!(report.outcomes[0], Outcome::Unsaid { stage: Stage::Data, .. }));
        assert!(!report.reusable);
        connection.close().await;
        assert!(!read_until(&mut far, b".\r\n").await, "the end of the content must not be sent");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_reading_is_left_after_three_minutes() {
    let clock = Clock::starting_at(Timestamp::from_secs(0));
    for extensions in [&["PIPELINING"][..], &["PIPELINING", "CHUNKING"]] {
        let (mut connection, mut far) = opened(extensions, 1024).await;
        let start = clock.now();
        let peer = async {
            assert!(read_until(&mut far, b"RCPT TO:<a@x.test>\r\n").await);
            say(&mut far, b"250 ok\r\n250 ok\r\n").await;
            if extensions.len() == 1 {
                assert!(read_until(&mut far, b"DATA\r\n").await);
                say(&mut far, b"354 go\r\n").await;
            }
        };
        let transaction = transaction(&["a@x.test"], inline(b"0123456\r\n".repeat(5000)));
        let (report, ()) = tokio::join!(connection.transact(&transaction), peer);
        assert!(matches!(report.outcomes[0], Outcome::Unsaid { stage: Stage::Data, .. }), "{:?}", report.outcomes);
        assert_eq!(clock.now().since(start), Duration::from_secs(180));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flight_of_a_thousand_recipients_never_blocks_both_sides() {
    let (mut connection, mut far) = opened(&["PIPELINING"], 64).await;
    let peer = async {
        loop {
            let line = read_line(&mut far).await;
            if line == b"DATA\r\n" || line.is_empty() {
                return say(&mut far, b"451 no\r\n").await;
            }
            say(&mut far, format!("250 {}\r\n", "x".repeat(200)).as_bytes()).await;
        }
    };
    let addresses: Vec<String> = (0..1000).map(|i| format!("recipient-{i}@x.test")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let transaction = transaction(&addresses, inline("x\r\n"));
    let (report, ()) = tokio::join!(connection.transact(&transaction), peer);
    let refused = Outcome::Replied { stage: Stage::Data, reply: Reply::new(451, "no") };
    assert_eq!(report.outcomes, vec![refused; 1000]);
}

#[tokio::test(start_paused = true)]
async fn no_connection_is_told_apart_from_none_in_time() {
    struct Never;
    impl Network for Never {
        fn connect<'a>(&'a self, _plan: &'a Plan) -> network::Connecting<'a> {
            Box::pin(std::future::pending())
        }
    }
    let error = Connector::new(Arc::new(Never)).unwrap().open(&plan(TlsMode::Off)).await.err().unwrap();
    assert_eq!(error.stage, OpenStage::ConnectTimeout);
    assert_eq!(error.text, "connect to mx.test [192.0.2.1:25]: no answer within 30s");
    let refused = Connector::new(Arc::new(Pipes(Mutex::default()))).unwrap();
    assert_eq!(refused.open(&plan(TlsMode::Off)).await.err().unwrap().stage, OpenStage::Connect);
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_is_waited_for_no_longer_than_the_plan_says() {
    for (asked, waited) in [(40, 40), (300, 300), (900, 300)] {
        let (near, far) = tokio::io::duplex(64);
        let connector = Connector::new(Arc::new(Pipes(Mutex::new([near].into())))).unwrap();
        let clock = Clock::starting_at(Timestamp::from_secs(0));
        let plan = Plan { greeting: Duration::from_secs(asked), ..plan(TlsMode::Off) };
        let error = connector.open(&plan).await.err().unwrap();
        assert_eq!((error.stage, error.reply), (OpenStage::Greeting, None), "{}", error.text);
        assert_eq!(clock.now().since(Timestamp::from_secs(0)).as_secs(), waited);
        drop(far);
    }
}

#[tokio::test]
async fn real_sockets_are_bound_where_asked_and_reset_when_the_peer_does_not_close() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plan = Plan {
        address: listener.local_addr().unwrap(),
        bind: Some("127.0.0.9".parse().unwrap()),
        ..plan(TlsMode::Off)
    };
    let timeouts = Timeouts { quit: Duration::from_millis(50), ..Timeouts::default() };
    let connector = Connector::new(Arc::new(Tcp)).unwrap().with_timeouts(timeouts);
    let client = async {
        let connection = connector.open(&plan).await.map_err(|e| e.text).unwrap();
        assert_eq!(connection.local_address().unwrap().ip().to_string(), "127.0.0.9");
        connection.close().await;
    };
    let peer = async {
        let (mut stream, address) = listener.accept().await.unwrap();
        assert_eq!(address.ip().to_string(), "127.0.0.9");
        say(&mut stream, b"220 mx.test\r\n").await;
        assert!(read_until(&mut stream, EHLO).await);
        say(&mut stream, b"250 mx.test\r\n").await;
        assert!(read_until(&mut stream, b"QUIT\r\n").await);
        stream.read_u8().await.unwrap_err().kind()
    };
    let ((), end) = tokio::join!(client, peer);
    assert_eq!(end, std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_address_that_is_not_ours_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let plan = Plan { address, bind: Some("192.0.2.77".parse().unwrap()), ..plan(TlsMode::Off) };
    let error = Connector::new(Arc::new(Tcp)).unwrap().open(&plan).await.err().unwrap();
    assert_eq!(error.stage, OpenStage::Connect);
    assert!(error.text.contains("cannot send from 192.0.2.77"), "{}", error.text);
}

/// Has no descriptor free for the first so many connections.
struct Short(Mutex<usize>, Pipes);

impl Network for Short {
    fn connect<'a>(&'a self, plan: &'a Plan) -> network::Connecting<'a> {
        let mut left = self.0.lock().unwrap();
        if *left == 0 {
            return self.1.connect(plan);
        }
        *left -= 1;
        Box::pin(async { Err(std::io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error())) })
    }
}

#[tokio::test(start_paused = true)]
async fn a_shortage_of_our_own_is_waited_out_and_never_told_as_the_receivers() {
    let (near, mut far) = tokio::io::duplex(64);
    let network = Short(Mutex::new(40), Pipes(Mutex::new([near].into())));
    let (connector, plan) = (Connector::new(Arc::new(network)).unwrap(), plan(TlsMode::Off));
    let clock = Clock::starting_at(Timestamp::from_secs(1));
    let (connection, ()) = tokio::join!(connector.open(&plan), welcome(&mut far, &[]));
    assert!(connection.is_ok());
    assert_eq!(clock.now().since(Timestamp::from_secs(1)), Duration::from_secs(10));

    let connector = Connector::new(Arc::new(Short(Mutex::new(usize::MAX), Pipes(Mutex::default())))).unwrap();
    let error = connector.open(&plan).await.err().unwrap();
    assert!(error.stage == OpenStage::Ours && error.text.contains("open files"), "{error:?}");
    assert_eq!(clock.now().since(Timestamp::from_secs(1)), Duration::from_secs(40));
}

/// A system resets a connection that is closed with something unread, and what it has said before is still heard.
#[tokio::test]
async fn a_host_that_closes_without_reading_the_content_has_not_got_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let host = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        say(&mut stream, b"220 mx.test\r\n").await;
        assert!(read_until(&mut stream, b"EHLO relay.test\r\n").await);
        say(&mut stream, b"250-mx.test\r\n250-PIPELINING\r\n250 CHUNKING\r\n").await;
        assert!(read_until(&mut stream, b"BDAT 18 LAST\r\n").await);
        say(&mut stream, b"250 ok\r\n250 ok\r\n").await;
    };
    let client = async {
        let connector = Connector::new(Arc::new(Tcp)).unwrap();
        let mut connection = connector.open(&Plan { address, ..plan(TlsMode::Off) }).await.unwrap();
        let report = connection.transact(&transaction(&["a@x.test"], inline("Subject: x\r\n\r\nhi\r\n"))).await;
        (report.bdat, matches!(report.outcomes[0], Outcome::InDoubt { .. }), report.reusable)
    };
    let ((), came) = tokio::join!(host, client);
    assert_eq!(came, (Bdat::Lost, true, false));
}
