//! The room as a whole, against endpoints of a few lines: what arrives, in which order, and what is said when nothing does.

use std::net::IpAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::event::EventLog;
use crate::event::options::Events;
use crate::spool::Journal as _;
use crate::types::{Event, EventKind, QueueId, Timestamp};

const START: Timestamp = Timestamp::from_secs(1_795_293_220);

/// Knows no name, and notes when it was asked.
struct Nobody {
    clock: Clock,
    asked: Mutex<Vec<Timestamp>>,
}

impl Names for Nobody {
    async fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, String> {
        self.asked.lock().unwrap().push(self.clock.now());
        Err("no such name".into())
    }
}

struct Bench {
    folder: tempfile::TempDir,
    clock: Clock,
    log: EventLog,
    names: Arc<Nobody>,
    alerts: Alerts,
    tasks: TaskTracker,
}

impl Bench {
    fn new() -> Bench {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Clock::starting_at(START));
        let log = EventLog::open(&folder.path().join("events"), &Events::default(), clock.clone()).unwrap();
        let names = Arc::new(Nobody { clock: clock.clone(), asked: Mutex::default() });
        Bench { folder, clock, log, names, alerts: Alerts::default(), tasks: TaskTracker::new() }
    }

    fn hooks(&self) -> (Hooks<Nobody>, CancellationToken) {
        let around = Surroundings {
            names: self.names.clone(),
            alerts: self.alerts.clone(),
            clock: self.clock.clone(),
            tls: crate::post::Tls::new(Arc::new(rustls::crypto::aws_lc_rs::default_provider()), &[]).unwrap(),
            lines: self.log.last_line(),
            events: self.folder.path().join("events"),
            cursors: self.folder.path().join("webhooks"),
        };
        let stop = CancellationToken::new();
        (Hooks::new(around, &self.tasks, &stop), stop)
    }

    /// One delivery each.
    fn write(&mut self, recipients: &[&str]) {
        let event = |recipient: &&str| {
            let mut event = Event::new(self.clock.now(), EventKind::Delivered);
            event.id = QueueId::from_key(7);
            event.sender = Some("shop@example.com".into());
            event.recipient = Some(recipient.to_string());
            event.reply = Some("250 ok".into());
            event
        };
        let events: Vec<Event> = recipients.iter().map(event).collect();
        self.log.write(&events).unwrap();
    }

    /// An endpoint that has seen every line up to now.
    fn has_got(&self, name: &str, done: u64) {
        let folder = self.folder.path().join("webhooks");
        let (cursor, ..) = cursor::Cursor::open(&folder, name, done).unwrap();
        cursor.write(cursor::Position { done, until: done }).unwrap();
    }

    async fn end(&self, stop: CancellationToken) {
        stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }
}

fn endpoint(name: &str, url: &str) -> Endpoint {
    Endpoint::load(&Webhook { name: name.into(), url: url.into(), ..Webhook::default() }).unwrap()
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/h", listener.local_addr().unwrap());
    (listener, url)
}

/// Takes one request: its id, and the recipients of its events.
async fn take(reader: &mut BufReader<TcpStream>) -> (String, Vec<String>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).await.unwrap() > 0, "cut off: {head}");
    }
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_string();
    let mut body = vec![0; field("content-length: ").parse().unwrap()];
    reader.read_exact(&mut body).await.unwrap();
    let events: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
    (field("webhook-id: "), events.iter().map(|event| event["recipient"].as_str().unwrap().to_string()).collect())
}

async fn answer(reader: &mut BufReader<TcpStream>) {
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
}

async fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    BufReader::new(listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn a_batch_under_way_at_a_stop_is_sent_again_as_it_was() {
    let mut bench = Bench::new();
    let (listener, url) = listener().await;
    bench.has_got("app", 0);
    bench.write(&["a@x", "b@x", "c@x"]);
    let (hooks, stop) = bench.hooks();
    hooks.serve(vec![endpoint("app", &url)]).await;
    let first = take(&mut accept(&listener).await).await;
    assert_eq!(first.1, ["a@x", "b@x", "c@x"]);
    bench.end(stop).await;
    bench.write(&["d@x", "e@x"]);
    let (hooks, stop) = bench.hooks();
    hooks.serve(vec![endpoint("app", &url)]).await;
    let mut reader = accept(&listener).await;
    assert_eq!(take(&mut reader).await, first, "the same batch with the same id");
    answer(&mut reader).await;
    let (id, recipients) = take(&mut reader).await;
    assert_eq!(recipients, ["d@x", "e@x"]);
    assert_ne!(id, first.0);
    answer(&mut reader).await;
    // The next request can only follow when this one is settled.
    bench.write(&["f@x"]);
    let mut reader = accept(&listener).await;
    assert_eq!(take(&mut reader).await.1, ["f@x"]);
    bench.end(stop).await;
}

#[tokio::test]
async fn what_comes_together_goes_together_also_to_an_endpoint_that_is_quick() {
    let mut bench = Bench::new();
    let (listener, url) = listener().await;
    let (hooks, stop) = bench.hooks();
    hooks.serve(vec![endpoint("app", &url)]).await;
    for round in ["1@x", "2@x"] {
        for _ in 0..40 {
            bench.write(&[round]);
        }
        let mut reader = accept(&listener).await;
        assert_eq!(take(&mut reader).await.1, [round; 40], "one request, not forty");
        answer(&mut reader).await;
        // It has rested: nobody waits on the connection any more.
        assert_eq!(reader.read(&mut [0; 1]).await.unwrap(), 0);
    }
    bench.end(stop).await;
}

#[tokio::test]
async fn a_new_endpoint_begins_now_and_a_reload_disturbs_only_what_changed() {
    let mut bench = Bench::new();
    let ((one, one_url), (other, other_url)) = (listener().await, listener().await);
    bench.write(&["before@x"]);
    let (hooks, stop) = bench.hooks();
    hooks.serve(vec![endpoint("one", &one_url), endpoint("two", &one_url)]).await;
    bench.write(&["a@x"]);
    let mut by_name = BTreeMap::new();
    for _ in 0..2 {
        let mut reader = accept(&one).await;
        let (id, recipients) = take(&mut reader).await;
        assert_eq!(recipients, ["a@x"], "nothing that was there before");
        by_name.insert(id.split('-').next().unwrap().to_string(), reader);
    }
    // `one` stays with its request on the way, `two` goes elsewhere with the same request, `three` is new.
    hooks.serve(vec![endpoint("one", &one_url), endpoint("two", &other_url), endpoint("three", &other_url)]).await;
    let mut moved = accept(&other).await;
    let (id, recipients) = take(&mut moved).await;
    assert!(id.starts_with("two-2-2-") && recipients == ["a@x"], "{id} {recipients:?}");
    answer(by_name.get_mut("one").unwrap()).await;
    bench.write(&["b@x"]);
    let (mut next, mut new) = (accept(&one).await, accept(&other).await);
    assert_eq!(take(&mut next).await.1, ["b@x"]);
    let (id, recipients) = take(&mut new).await;
    assert!(id.starts_with("three-3-3-") && recipients == ["b@x"], "{id} {recipients:?}");
    bench.end(stop).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_not_there_is_asked_ever_more_rarely_and_is_an_alert() {
    let mut bench = Bench::new();
    bench.has_got("app", 0);
    bench.write(&["a@x"]);
    let (hooks, stop) = bench.hooks();
    hooks.serve(vec![endpoint("app", "https://nobody.example/T0KEN")]).await;
    bench.clock.sleep_until(START + Duration::from_secs(59)).await;
    assert_eq!(bench.alerts.said(), [], "no news yet");
    bench.clock.sleep_until(START + Duration::from_secs(3 * 3600)).await;
    let asked = bench.names.asked.lock().unwrap().clone();
    let waits: Vec<u64> = asked.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect();
    assert!(waits[1] <= 2 && waits[5] >= 25 && waits.iter().all(|wait| *wait <= 720), "{waits:?}");
    assert!((20..40).contains(&asked.len()), "{waits:?}");
    let said = bench.alerts.said();
    assert_eq!((said.len(), said[0].key.as_str(), said[0].raised), (1, "webhook failing app", true));
    let text = &said[0].text;
    assert!(
        text.contains("no event has arrived at nobody.example:443 since 20:33 UTC: its name cannot be looked up"),
        "{text}"
    );
    assert!(!text.contains("T0KEN") && text.ends_with("up to 1 event wait in the event log"), "{text}");
    // Taken out, nothing stands against it.
    hooks.serve(vec![]).await;
    assert!(bench.alerts.said().iter().all(|alert| !alert.raised));
    bench.end(stop).await;
}

#[tokio::test(start_paused = true)]
async fn lines_that_were_deleted_before_they_could_be_sent_are_counted_and_told() {
    let mut bench = Bench::new();
    bench.has_got("app", 1);
    bench.write(&["a@x", "b@x", "c@x"]);
    // The file that held them is deleted; a later line is there.
    std::fs::remove_file(bench.folder.path().join("events/current.jsonl")).unwrap();
    bench.write(&["d@x"]);
    let (hooks, stop) = bench.hooks();
    hooks.serve(vec![endpoint("app", "https://nobody.example/")]).await;
    while bench.alerts.said().is_empty() {
        bench.clock.sleep_until(bench.clock.now() + Duration::from_secs(1)).await;
    }
    let said = bench.alerts.said();
    assert_eq!(said[0].key, "webhook lost app");
    assert_eq!(said[0].text, "webhook app: 2 lines of the event log were deleted before they could be sent");
    bench.end(stop).await;
}

/// A private address behind a name nobody named: nothing is connected to, and a person hears of it at once.
#[tokio::test(start_paused = true)]
async fn an_address_that_must_not_be_reached_is_told_at_once() {
    struct Inside;
    impl Names for Inside {
        async fn addresses(&self, _: &str) -> Result<Vec<IpAddr>, String> {
            Ok(vec!["169.254.169.254".parse().unwrap()])
        }
    }
    let mut bench = Bench::new();
    bench.has_got("app", 0);
    bench.write(&["a@x"]);
    let (hooks, _) = bench.hooks();
    let around = Surroundings {
        names: Arc::new(Inside),
        alerts: bench.alerts.clone(),
        clock: bench.clock.clone(),
        tls: hooks.around.tls.clone(),
        lines: bench.log.last_line(),
        events: hooks.around.events.clone(),
        cursors: hooks.around.cursors.clone(),
    };
    let stop = CancellationToken::new();
    let hooks = Hooks::new(around, &bench.tasks, &stop);
    hooks.serve(vec![endpoint("app", "https://metadata.example/")]).await;
    bench.clock.sleep_until(START + Duration::from_secs(1)).await;
    let said = bench.alerts.said();
    assert!(
        said[0].text.contains("metadata.example leads to 169.254.169.254, which is not of the public Internet"),
        "{said:?}"
    );
    assert!(said[0].remedy.contains("`networks`"), "{said:?}");
    bench.end(stop).await;
}
