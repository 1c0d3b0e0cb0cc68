//! Messages handed in over many sessions at once, as fast as they are taken or at a pace.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::kit::{Client, client};

pub const SESSIONS: usize = 20;
pub const MESSAGE_BYTES: usize = 10 * 1024;

pub fn content() -> Vec<u8> {
    let mut chance = fastrand::Rng::with_seed(10);
    let mut content = b"From: App <app@sender.test>\r\nTo: u@bench.test\r\nSubject: load\r\n\r\n".to_vec();
    while content.len() < MESSAGE_BYTES - 2 {
        let length = (MESSAGE_BYTES - 2 - content.len()).min(76);
        content.extend(std::iter::repeat_with(|| chance.alphanumeric() as u8).take(length));
        content.extend_from_slice(b"\r\n");
    }
    content
}

/// Hands in `messages` over all sessions, at most `pace` a second where one is given; how long each end of data waited for its 250.
pub fn hand_in(relay: SocketAddr, messages: usize, pace: Option<f64>, content: &[u8]) -> Vec<Duration> {
    let stuffed = client::stuffed(content);
    let (stuffed, begun) = (&stuffed, Instant::now());
    std::thread::scope(|scope| {
        let share = |n: usize| messages / SESSIONS + usize::from(n < messages % SESSIONS);
        let due = move |n: usize, sent: usize| {
            let place = (sent * SESSIONS + n) as f64;
            pace.map(|pace| begun + Duration::from_secs_f64(place / pace))
        };
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|n| scope.spawn(move || session(relay, n, share(n), stuffed, |sent| due(n, sent))))
            .collect();
        sessions.into_iter().flat_map(|s| s.join().expect("a session of the load")).collect()
    })
}

/// One session as Postfix holds it: the envelope in one flight, then the content.
fn session(
    relay: SocketAddr,
    number: usize,
    messages: usize,
    stuffed: &[u8],
    due: impl Fn(usize) -> Option<Instant>,
) -> Vec<Duration> {
    let mut client = Client::connect(relay);
    client.hello();
    let mut waits = Vec::with_capacity(messages);
    for n in 0..messages {
        if let Some(due) = due(n) {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        // Every message to somebody else: as in a mailing, nothing is remembered of the recipient.
        let envelope = format!("MAIL FROM:<app@sender.test>\r\nRCPT TO:<u{number}.{n}@bench.test>\r\nDATA\r\n");
        client.send_bytes(envelope.as_bytes());
        for code in ["250", "250", "354"] {
            client.expect(code);
        }
        client.send_bytes(stuffed);
        let sent = Instant::now();
        client.expect("250");
        waits.push(sent.elapsed());
    }
    client.ask("QUIT", "221");
    waits
}
