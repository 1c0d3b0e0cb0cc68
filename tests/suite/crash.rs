//! The program killed at random moments under load: nothing that got its 250 is lost, nothing is damaged, and what arrives
//! twice had its final reply sent less than a second before a kill, or never read.
//!
//! The seed is printed; `WEIR_TEST_SEED` repeats it (the moments are counted in messages, so the machine has its part).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::kit::{Client, PATIENCE, World, client, now, try_until, until};

const ROUNDS: usize = 24;
const SENDERS: usize = 6;

/// In each of these the relay lives on for longer than a second, so that a message delivered early must not come again.
const LONG_ROUND: usize = 6;

/// What a sender hands in until the relay is gone.
struct Load {
    /// Number of the message and its content, for each 250 that was read.
    accepted: Arc<Mutex<BTreeMap<usize, Vec<u8>>>>,
    next: Arc<AtomicUsize>,
    seed: u64,
}

impl Load {
    fn content(&self, number: usize) -> Vec<u8> {
        let mut chance = fastrand::Rng::with_seed(self.seed ^ (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        // Now and then larger than what is kept inline, so that files of bodies are on their way as well.
        let size = if chance.u8(..) < 12 { chance.usize(130_000..400_000) } else { chance.usize(0..12_000) };
        let mut content = format!("Subject: crash\r\nX-Number: {number}\r\n\r\n").into_bytes();
        let end = content.len() + size;
        while content.len() < end {
            let length = chance.usize(0..120);
            content.extend(std::iter::repeat_with(|| chance.alphanumeric() as u8).take(length));
            content.extend_from_slice(b"\r\n");
        }
        content
    }

    /// One session after the other until the relay does not answer any more.
    fn run(&self, relay: SocketAddr, over: &AtomicBool) {
        while !over.load(Ordering::Relaxed) {
            let Ok(mut client) = Client::open([127, 0, 0, 1].into(), relay) else { return };
            if self.session(&mut client, over).is_none() {
                return;
            }
        }
    }

    fn session(&self, client: &mut Client, over: &AtomicBool) -> Option<()> {
        let said = |client: &mut Client, code: &str| client.try_reply().filter(|r| r.starts_with(code)).map(drop);
        said(client, "220")?;
        client.try_send(b"EHLO load.test\r\n");
        said(client, "250")?;
        for _ in 0..20 {
            if over.load(Ordering::Relaxed) {
                return None;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let content = self.content(number);
            client
                .try_send(format!("MAIL FROM:<app@sender.test>\r\nRCPT TO:<u{number}@x.test>\r\nDATA\r\n").as_bytes());
            said(client, "250")?;
            said(client, "250")?;
            said(client, "354")?;
            client.try_send(&client::stuffed(&content));
            said(client, "250")?;
            self.accepted.lock().ok()?.insert(number, content);
        }
        client.try_send(b"QUIT\r\n");
        Some(())
    }
}

#[test]
fn a_relay_killed_at_random_moments_loses_nothing_and_repeats_next_to_nothing() {
    let seed = std::env::var("WEIR_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("WEIR_TEST_SEED={seed}");
    let mut chance = fastrand::Rng::with_seed(seed);
    let (world, mx) = World::with_domain("x.test");
    let load = Load { accepted: Arc::default(), next: Arc::default(), seed };
    let mut relay = world.config().start();
    // When, and how many connections the receiver had seen by then: those belong to relays that are gone.
    let mut kills: Vec<(Instant, usize)> = Vec::new();

    for round in 1..=ROUNDS {
        let over = AtomicBool::new(false);
        let address = relay.address();
        let target = load.accepted.lock().unwrap().len() + chance.usize(1..150);
        let delivered = mx.accepted_count() + chance.usize(0..60);
        std::thread::scope(|scope| {
            for _ in 0..SENDERS {
                scope.spawn(|| load.run(address, &over));
            }
            until("messages accepted and delivered before the kill", || {
                let accepted = load.accepted.lock().unwrap().len();
                (accepted >= target && mx.accepted_count() >= delivered).then_some(())
            });
            if round % LONG_ROUND == 0 {
                let begun = now();
                until("a second and a half of quiet life", || {
                    (begun.elapsed() > Duration::from_millis(1500)).then_some(())
                });
            }
            // The moment itself: somewhere within the next few milliseconds, while everything is under way.
            let moment = now() + Duration::from_micros(chance.u64(0..8000));
            while now() < moment {
                std::hint::spin_loop();
            }
            let killed = now();
            relay.kill();
            kills.push((killed, mx.connections()));
            over.store(true, Ordering::Relaxed);
        });
        relay.run();
    }

    let accepted = load.accepted.lock().unwrap().clone();
    let arrived = || mx.accepted_count();
    let all_there = try_until(PATIENCE * 4, || (arrived() >= accepted.len() && relay.queue().is_empty()).then_some(()));
    let mut copies: BTreeMap<usize, Vec<(Instant, usize)>> = BTreeMap::new();
    for got in mx.accepted() {
        let number: usize = got.header("X-Number").and_then(|n| n.parse().ok()).expect("a message of this load");
        assert!(got.content.ends_with(&load.content(number)), "message {number} is damaged (seed {seed})");
        assert_eq!(got.to(), [format!("u{number}@x.test")]);
        copies.entry(number).or_default().push((got.replied, got.connection));
    }
    let lost: Vec<_> = accepted.keys().filter(|n| !copies.contains_key(n)).collect();
    assert!(lost.is_empty(), "{} of {} accepted messages are lost: {lost:?} (seed {seed})", lost.len(), accepted.len());
    assert!(all_there.is_some(), "the queue does not become empty: {:#?}", relay.queue());

    let just_before_a_kill =
        |at: Instant| kills.iter().any(|(kill, _)| *kill > at && kill.duration_since(at) < Duration::from_secs(1));
    // Written when the relay at the other end of the connection was dead already.
    let unread = |at: Instant, connection| kills.iter().any(|(kill, seen)| at >= *kill && connection <= *seen);
    for (number, mut times) in copies {
        times.sort();
        let repeated = &times[..times.len() - 1];
        assert!(
            repeated.iter().all(|(at, connection)| just_before_a_kill(*at) || unread(*at, *connection)),
            "message {number} came {} times though its reply was read long before a kill (seed {seed})",
            times.len()
        );
    }
}

#[test]
fn what_was_told_as_accepted_and_not_stored_before_a_kill_ends_at_the_next_start() {
    let (world, mx) = World::with_domain("x.test");
    let mut relay = world.config().start();
    relay.submit("app@sender.test", &["u@x.test"], b"Subject: x\r\n\r\nx\r\n");
    mx.wait_accepted(1);
    relay.assert_settled();
    relay.kill();
    // As if the kill had come between the line and the commit.
    let log = relay.data_dir().join("events/current.jsonl");
    let mut text = std::fs::read_to_string(&log).expect("read the event log");
    let accepted =
        text.lines().find(|line| line.contains("\"accepted\"")).expect("a line of an acceptance").to_string();
    let mut lost: serde_json::Value = serde_json::from_str(&accepted).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    lost["id"] = "38HCWEZMM2ZZT".into();
    lost["recipients"] = 2.into();
    lost["seq"] = (last["seq"].as_u64().unwrap() + 1).into();
    lost["time"] = last["time"].clone();
    text.push_str(&format!("{lost}\n"));
    std::fs::write(&log, text).expect("write the event log");
    for _ in 0..2 {
        relay.run();
        relay.assert_settled();
        let removed = relay.events_of("removed");
        assert_eq!(removed.len(), 2, "{removed:?}");
        assert!(removed.iter().all(|e| e["id"] == "38HCWEZMM2ZZT" && e["rule"] == "not-stored"), "{removed:?}");
        relay.kill();
    }
}
