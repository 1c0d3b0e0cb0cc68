//! The spool as a whole: a real folder, a virtual clock, faults at each step of a commit.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::types::{
    BodyType, ByMode, Class, DeliverBy, DeliveryState, Domain, EventKind, FutureRelease, Mailbox, Notify, Origin,
    Priority, Recipient, Refusal, Requests, Ret, ReversePath, TransferPriority,
};

const START: Timestamp = Timestamp::from_secs(1_795_000_000);

/// What the event log saw, and whether it fails.
#[derive(Clone, Default)]
struct Log {
    events: Arc<Mutex<Vec<Event>>>,
    fails: Arc<AtomicBool>,
    writes: Arc<AtomicUsize>,
}

impl Journal for Log {
    fn write(&mut self, events: &[Event]) -> std::io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("no space left on device"));
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.events.lock().unwrap().extend_from_slice(events);
        Ok(())
    }
}

impl Log {
    fn kinds(&self) -> Vec<EventKind> {
        self.events.lock().unwrap().iter().map(|event| event.kind).collect()
    }
}

/// Puts a line before each report; a body that says so it leaves as it is.
struct Stamp(Arc<std::sync::atomic::AtomicUsize>);

impl Seal for Stamp {
    fn seal(&self, contents: Vec<Bytes>) -> Pin<Box<dyn Future<Output = Vec<Bytes>> + Send + '_>> {
        self.0.fetch_add(contents.len(), std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move { contents.iter().map(|content| [b"signed:", &content[..]].concat().into()).collect() })
    }
}

#[tokio::test(start_paused = true)]
async fn reports_are_signed_once_before_their_commit_and_say_how_long_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, mut committed) = mpsc::channel(64);
    let (log, calls) = (Log::default(), Arc::default());
    let opened = Spool::open(options(folder.path()), Clock::starting_at(START), Box::new(log.clone()), sender);
    let (spool, writer) = opened.unwrap();
    let stop = CancellationToken::new();
    let writer = writer.sealing(Arc::new(Stamp(Arc::clone(&calls))));
    let writer = TaskTracker::new().spawn(writer.run(stop.clone()));
    // More than one commit takes.
    for _ in 0..150 {
        let id = spool.ids().next(START);
        let envelope = Arc::new(Envelope { sender: ReversePath::Null, origin: Origin::Report, ..envelope(id, 6) });
        let mut told = Event::new(START, EventKind::Accepted);
        (told.id, told.size_bytes) = (Some(id), Some(6));
        let report = Change::Report { envelope, deliveries: deliveries(id, &["a.example"]), content: "report".into() };
        spool.settle(vec![Change::Note(told), report]);
    }
    spool.flush().await.unwrap();
    let mut seen = 0;
    while seen < 150 {
        for message in committed.recv().await.unwrap() {
            seen += 1;
            assert_eq!(message.envelope.size_bytes, 13);
            assert!(matches!(&message.body, Body::Inline(content) if &content[..] == b"signed:report"));
            let stored = spool.load(message.deliveries[0].id).await.unwrap().unwrap();
            assert_eq!((stored.envelope.size_bytes, stored.body.size_bytes()), (13, 13));
        }
    }
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 150);
    assert!(log.events.lock().unwrap().iter().all(|event| event.size_bytes == Some(13)));
    stop.cancel();
    writer.await.unwrap();
}

/// A running spool.
struct Running {
    spool: Spool,
    committed: mpsc::Receiver<Vec<Committed>>,
    log: Log,
    stop: CancellationToken,
    writer: JoinHandle<()>,
}

fn options(folder: &Path) -> Options {
    Options { folder: folder.to_owned(), queue_messages: 1000, min_free_bytes: 1 << 20 }
}

fn start(folder: &Path) -> Running {
    start_at(folder, START)
}

fn start_at(folder: &Path, now: Timestamp) -> Running {
    let (sender, committed) = mpsc::channel(64);
    let log = Log::default();
    let (spool, writer) = Spool::open(options(folder), Clock::starting_at(now), Box::new(log.clone()), sender).unwrap();
    let stop = CancellationToken::new();
    let writer = TaskTracker::new().spawn(writer.run(stop.clone()));
    Running { spool, committed, log, stop, writer }
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.writer.await.unwrap();
    }

    /// The process dies here: nothing is flushed, no destructor of the writer's work runs to its end.
    async fn die(self) {
        self.writer.abort();
        assert!(self.writer.await.unwrap_err().is_cancelled());
    }

    async fn accept(&self, message: NewMessage) -> Result<QueueId, SpoolError> {
        let id = message.envelope.id;
        self.spool.accept(message).await.map(|()| id)
    }

    /// A message to one recipient in each domain.
    async fn message(&self, domains: &[&str], content: &[u8]) -> NewMessage {
        let id = self.spool.ids().next(START);
        let mut body = self.spool.body(id);
        for piece in content.chunks(40_000) {
            body.write(piece).await.unwrap();
        }
        let mut accepted = Event::new(START, EventKind::Accepted);
        accepted.id = Some(id);
        NewMessage {
            envelope: Arc::new(envelope(id, content.len())),
            deliveries: deliveries(id, domains),
            body,
            events: vec![accepted],
        }
    }

    async fn accepted(&self, domains: &[&str], content: &[u8]) -> QueueId {
        let message = self.message(domains, content).await;
        self.accept(message).await.unwrap()
    }

    async fn finish(&self, id: QueueId, part: u16) {
        self.spool.settle(vec![Change::Finish(DeliveryId { message: id, part })]);
        self.spool.flush().await.unwrap();
    }

    async fn all(&self) -> Vec<Summary> {
        self.spool.reader().scan(None, 10_000).await.unwrap()
    }
}

pub(super) fn envelope(id: QueueId, size: usize) -> Envelope {
    Envelope {
        id,
        received: START,
        sender: ReversePath::parse("app@sender.example").unwrap(),
        ret: None,
        envid: None,
        body_type: BodyType::default(),
        smtputf8: false,
        size_bytes: size as u64,
        message_id: Some(format!("<{id}@sender.example>")),
        client: Some([127, 0, 0, 1].into()),
        user: Some("app".into()),
        requests: Default::default(),
        expire: None,
        class: Priority::Normal,
        origin: Origin::Client,
    }
}

fn recipient(address: &str) -> Recipient {
    Recipient { address: Mailbox::parse(address).unwrap(), orcpt: None, notify: Notify::default() }
}

pub(super) fn delivery(id: QueueId, part: u16, domain: &str) -> Delivery {
    Delivery {
        id: DeliveryId { message: id, part },
        domain: Domain::parse(domain).unwrap(),
        recipients: vec![recipient(&format!("user{part}@{domain}"))],
        state: DeliveryState::Waiting,
        attempts: 0,
        next_attempt: None,
        delay_reported: false,
        refusal: None,
        failed: Vec::new(),
        next_hop: None,
        own: None,
    }
}

fn deliveries(id: QueueId, domains: &[&str]) -> Vec<Delivery> {
    (0u16..).zip(domains).map(|(part, domain)| delivery(id, part, domain)).collect()
}

fn refusal() -> Refusal {
    Refusal {
        at: START,
        reply: "451 4.7.650 slow \"down\"\nplease".into(),
        class: Class::RateLimit,
        rule: "outlook-4.7.650".into(),
        provider: "outlook".into(),
        source: "default".into(),
        mx: Some("mx1.example.com".into()),
    }
}

async fn content(stored: &Stored) -> Vec<u8> {
    match &stored.body {
        Body::Inline(bytes) => bytes.to_vec(),
        Body::File { path, .. } | Body::Headed { path, .. } => tokio::fs::read(&**path).await.unwrap(),
    }
}

fn body_files(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("bodies")).unwrap().count()
}

fn first_part(id: QueueId) -> DeliveryId {
    DeliveryId { message: id, part: 0 }
}

const LARGE: usize = body::INLINE_MAX + 70_000;

#[tokio::test(start_paused = true)]
async fn what_was_accepted_is_there_after_a_restart_word_for_word() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let small = running.accepted(&["a.example", "b.example"], b"Subject: x\r\n\r\nhello\r\n").await;
    let large = running.accepted(&["c.example"], &vec![7; LARGE]).await;
    running.die().await;

    let running = start(folder.path());
    let ids: Vec<DeliveryId> = running.all().await.iter().map(|summary| summary.id).collect();
    let parts = [(small, 0), (small, 1), (large, 0)];
    assert_eq!(ids, parts.map(|(message, part)| DeliveryId { message, part }));
    let stored = running.spool.load(DeliveryId { message: small, part: 1 }).await.unwrap().unwrap();
    assert_eq!(*stored.envelope, envelope(small, 21));
    assert_eq!(stored.delivery, delivery(small, 1, "b.example"));
    assert_eq!(content(&stored).await, b"Subject: x\r\n\r\nhello\r\n");
    let stored = running.spool.load(first_part(large)).await.unwrap().unwrap();
    assert_eq!(content(&stored).await, vec![7; LARGE]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn everything_an_envelope_and_a_delivery_can_hold_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let mut message = running.message(&["a.example"], b"x").await;
    let id = message.envelope.id;
    let full = Envelope {
        sender: ReversePath::parse("\"odd \\\" one\"@bücher.example").unwrap(),
        ret: Some(Ret::Hdrs),
        envid: Some("QQ+2B\"1".into()),
        body_type: BodyType::EightBitMime,
        smtputf8: true,
        requests: Requests {
            priority: TransferPriority::new(-3),
            by: Some(DeliverBy { secs: 120, mode: ByMode::Notify, trace: true }),
            release: Some(FutureRelease::For(60)),
        },
        expire: Some(Duration::from_millis(900_001)),
        client: Some("2001:db8::1".parse().unwrap()),
        user: None,
        message_id: None,
        class: Priority::Bulk,
        origin: Origin::Report,
        ..envelope(id, 1)
    };
    message.envelope = Arc::new(full.clone());
    let mut tried = delivery(id, 0, "a.example");
    tried.recipients.push(Recipient {
        orcpt: Some("rfc822;\"x\"@a.example".into()),
        notify: Notify::parse("SUCCESS,DELAY").unwrap(),
        ..recipient("\"a b\"@a.example")
    });
    tried.attempts = 3;
    tried.next_attempt = Some(START + Duration::from_secs(60));
    tried.state = DeliveryState::Held;
    tried.delay_reported = true;
    tried.refusal = Some(refusal());
    tried.next_hop = Some("smart.example:587".parse().unwrap());
    message.deliveries = vec![tried.clone()];
    running.accept(message).await.unwrap();
    let stored = running.spool.load(first_part(id)).await.unwrap().unwrap();
    assert_eq!((&*stored.envelope, &stored.delivery), (&full, &tried));
    let summary = running.all().await.pop().unwrap();
    assert_eq!(summary.recipients, ["user0@a.example".into(), "\"a b\"@a.example".into()]);
    assert_eq!((summary.expire, summary.report, &*summary.sender), (full.expire, true, full.sender.as_str()));
    assert_eq!((summary.class, summary.next_hop), (Priority::Bulk, tried.next_hop));
    assert_eq!(summary.late_at, Some(id.received() + Duration::from_secs(120)));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn dispatch_is_told_before_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = start(folder.path());
    let id = running.accepted(&["a.example"], b"hello").await;
    let news = running.committed.try_recv().expect("told before the answer");
    assert_eq!((news.len(), news[0].envelope.id, news[0].body.size_bytes()), (1, id, 5));
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_at_once_share_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let mut messages = Vec::new();
    for _ in 0..50 {
        messages.push(running.message(&["a.example"], &[b'x'; 10_000]).await);
    }
    let spool = running.spool.clone();
    let tracker = TaskTracker::new();
    let tasks: Vec<_> = messages
        .into_iter()
        .map(|m| {
            let spool = spool.clone();
            tracker.spawn(async move { spool.accept(m).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let writes = running.log.writes.load(Ordering::SeqCst);
    assert!(writes <= 5, "{writes} commits for 50 messages");
    assert_eq!(running.spool.reader().counts().await.unwrap().messages, 50);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_message_goes_with_its_last_delivery_and_its_file_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let id = running.accepted(&["a.example", "b.example"], &vec![1; LARGE]).await;
    running.finish(id, 0).await;
    assert!(running.spool.load(DeliveryId { message: id, part: 1 }).await.unwrap().is_some());
    assert_eq!(body_files(folder.path()), 1);
    running.finish(id, 1).await;
    assert_eq!(body_files(folder.path()), 0);
    assert!(running.spool.reader().envelope(id).await.unwrap().is_none());
    // Ended twice is ended.
    running.finish(id, 1).await;
    assert_eq!(running.spool.reader().counts().await.unwrap(), Counts::default());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn plans_and_updates_are_remembered_and_due_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let id = running.accepted(&["a.example", "b.example", "c.example", "d.example"], b"x").await;
    let at = |secs| START + Duration::from_secs(secs);
    let part = |part| DeliveryId { message: id, part };
    let held = Delivery { state: DeliveryState::Held, next_attempt: Some(at(5)), ..delivery(id, 2, "c.example") };
    let deferred =
        Delivery { attempts: 1, next_attempt: Some(at(60)), refusal: Some(refusal()), ..delivery(id, 1, "b.example") };
    running.spool.settle(vec![
        Change::Plan { id: part(0), next_attempt: at(300) },
        Change::Update(deferred.clone()),
        Change::Update(held),
    ]);
    running.spool.flush().await.unwrap();
    running.end().await;

    let running = start(folder.path());
    let reader = running.spool.reader();
    let due = |until, after| async move {
        let found = reader.due(at(until), after, 10).await.unwrap();
        found.iter().map(|summary| summary.id.part).collect::<Vec<_>>()
    };
    assert!(due(59, None).await.is_empty());
    assert_eq!(due(300, None).await, [1, 0]);
    assert_eq!(due(300, Some((at(60), part(1)))).await, [0]);
    assert_eq!(running.spool.load(part(1)).await.unwrap().unwrap().delivery, deferred);
    let rules = reader.due(at(300), None, 10).await.unwrap().into_iter().map(|summary| summary.refusal_rule);
    assert_eq!(rules.collect::<Vec<_>>(), [Some(refusal().rule.into()), None]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_report_is_committed_with_its_cause_and_comes_out_like_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = start(folder.path());
    let id = running.accepted(&["a.example"], b"x").await;
    running.committed.recv().await.unwrap();
    let report = running.spool.ids().next(START);
    let envelope = Arc::new(Envelope { sender: ReversePath::Null, origin: Origin::Report, ..envelope(report, 6) });
    running.spool.settle(vec![
        Change::Finish(first_part(id)),
        Change::Report { envelope, deliveries: deliveries(report, &["sender.example"]), content: "report".into() },
        Change::Note(Event::new(START, EventKind::Bounced)),
    ]);
    running.spool.flush().await.unwrap();
    let news = running.committed.recv().await.unwrap();
    assert_eq!((news[0].envelope.id, news[0].body.size_bytes()), (report, 6));
    assert_eq!(running.log.kinds(), [EventKind::Accepted, EventKind::Bounced]);
    running.die().await;
    let running = start(folder.path());
    assert_eq!(running.all().await.iter().map(|s| s.id.message).collect::<Vec<_>>(), [report]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn ids_rise_over_restarts_though_the_clock_goes_back_and_the_queue_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let id = running.accepted(&["a.example"], b"x").await;
    running.finish(id, 0).await;
    running.end().await;
    let running = start_at(folder.path(), Timestamp::from_secs(5));
    assert!(running.spool.ids().next(Timestamp::from_secs(5)) > id);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_right_is_refused_alone() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let first = running.message(&["a.example"], b"x").await;
    let twin = NewMessage {
        envelope: Arc::clone(&first.envelope),
        deliveries: first.deliveries.clone(),
        body: {
            let mut body = running.spool.body(first.envelope.id);
            body.write(b"x").await.unwrap();
            body
        },
        events: vec![Event::new(START, EventKind::Alert)],
    };
    let other = running.message(&["a.example"], b"x").await;
    let results = tokio::join!(running.accept(first), running.accept(twin), running.accept(other));
    assert!(results.0.is_ok() && results.2.is_ok(), "{results:?}");
    assert!(results.1.unwrap_err().to_string().contains("UNIQUE"));
    assert_eq!(running.log.kinds(), [EventKind::Accepted; 2]);
    let empty = running.message(&[], b"x").await;
    assert!(running.accept(empty).await.unwrap_err().to_string().contains("no deliveries"));
    assert!(running.spool.healthy());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_disk_fails_nothing_is_accepted_and_no_outcome_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = start(folder.path());
    let id = running.accepted(&["a.example"], b"x").await;
    running.committed.recv().await.unwrap();
    running.log.fails.store(true, Ordering::SeqCst);
    running.spool.settle(vec![Change::Finish(first_part(id)), Change::Note(Event::new(START, EventKind::Delivered))]);
    let large = running.message(&["b.example"], &vec![1; LARGE]).await;
    assert!(running.accept(large).await.unwrap_err().to_string().contains("event log"));
    assert!(!running.spool.healthy());
    assert!(running.spool.room(1).unwrap_err().to_string().contains("no space left"));
    let next = running.message(&["b.example"], b"x").await;
    assert!(running.accept(next).await.is_err(), "refused at once, not after the repair");
    assert!(running.spool.load(first_part(id)).await.unwrap().is_some());

    running.log.fails.store(false, Ordering::SeqCst);
    running.spool.flush().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(running.spool.healthy() && running.spool.room(1).is_ok());
    assert!(running.spool.load(first_part(id)).await.unwrap().is_none());
    assert_eq!(running.log.kinds(), [EventKind::Accepted, EventKind::Delivered], "each told once");
    assert_eq!(body_files(folder.path()), 0, "the file of the refused message is gone");
    running.accepted(&["b.example"], b"x").await;
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_spool_that_cannot_write_ends_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let id = running.accepted(&["a.example"], b"x").await;
    running.log.fails.store(true, Ordering::SeqCst);
    running.spool.settle(vec![Change::Finish(first_part(id)), Change::Note(Event::new(START, EventKind::Delivered))]);
    let spool = running.spool.clone();
    running.end().await;
    assert!(spool.flush().await.is_err());
    assert!(!spool.healthy());
}

#[tokio::test(start_paused = true)]
async fn an_end_writes_what_was_handed_over_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let id = running.accepted(&["a.example"], b"x").await;
    running.spool.settle(vec![Change::Finish(first_part(id))]);
    let spool = running.spool.clone();
    running.end().await;
    spool.flush().await.unwrap();
    let late = NewMessage {
        envelope: Arc::new(envelope(id, 0)),
        deliveries: deliveries(id, &["a.example"]),
        body: spool.body(id),
        events: vec![],
    };
    assert!(spool.accept(late).await.unwrap_err().to_string().contains("closed"));
    drop(spool);
    let running = start(folder.path());
    assert!(running.all().await.is_empty());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_dispatch_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, committed) = mpsc::channel(1);
    let (spool, writer) =
        Spool::open(options(folder.path()), Clock::starting_at(START), Box::new(Log::default()), sender).unwrap();
    let stop = CancellationToken::new();
    let writer = TaskTracker::new().spawn(writer.run(stop.clone()));
    let running = Running { spool, committed: mpsc::channel(1).1, log: Log::default(), stop, writer };
    running.accepted(&["a.example"], b"1").await;
    let second = running.message(&["a.example"], b"2").await;
    let spool = running.spool.clone();
    let waiting = TaskTracker::new().spawn(async move { spool.accept(second).await });
    running.end().await;
    waiting.await.unwrap().unwrap();
    drop(committed);
}

#[tokio::test(start_paused = true)]
async fn files_that_a_crash_left_go_and_all_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let kept = running.accepted(&["a.example"], &vec![1; LARGE]).await;
    running.end().await;
    let orphan = folder.path().join("bodies").join(QueueId::from_key(77).unwrap().to_string());
    std::fs::write(&orphan, b"torn").unwrap();
    let running = start(folder.path());
    // The virtual clock stands still while the sweep is at work.
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.end().await;
    assert!(!orphan.exists());
    assert!(folder.path().join("bodies").join(kept.to_string()).exists());
}

#[tokio::test(start_paused = true)]
async fn a_torn_or_missing_content_is_never_sent() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let id = running.accepted(&["a.example"], &vec![1; LARGE]).await;
    let path = folder.path().join("bodies").join(id.to_string());
    std::fs::write(&path, b"torn").unwrap();
    assert!(running.spool.load(first_part(id)).await.unwrap_err().to_string().contains("4 bytes instead of"));
    std::fs::remove_file(&path).unwrap();
    assert!(running.spool.load(first_part(id)).await.is_err());
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_has_one_owner_and_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("new/data");
    let running = start(&folder);
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let second = Spool::open(options(&folder), Clock::starting_at(START), Box::new(Log::default()), mpsc::channel(1).0);
    assert!(second.err().unwrap().to_string().contains("in use by another weir"));
    running.end().await;
    start(&folder).end().await;
}

#[tokio::test(start_paused = true)]
async fn a_spool_of_a_newer_weir_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path()).end().await;
    rusqlite::Connection::open(schema::database(folder.path()))
        .unwrap()
        .execute_batch("PRAGMA user_version=99")
        .unwrap();
    let opened =
        Spool::open(options(folder.path()), Clock::starting_at(START), Box::new(Log::default()), mpsc::channel(1).0);
    let text = opened.err().unwrap().to_string();
    assert!(text.contains("schema version 99") && text.contains("newer weir"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn lists_take_what_the_filter_says_with_and_without_a_running_relay() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    let one = running.accepted(&["a.example", "b.example"], b"x").await;
    let two = running.accepted(&["b.example"], b"y").await;
    let refused = Delivery { refusal: Some(refusal()), state: DeliveryState::Held, ..delivery(two, 0, "b.example") };
    running.spool.settle(vec![Change::Update(refused)]);
    running.spool.flush().await.unwrap();
    let all = [(one, 0), (one, 1), (two, 0)];
    let cases: Vec<(Filter, &[(QueueId, u16)])> = vec![
        (Filter::default(), &all),
        (Filter { domain: Some(Domain::parse("b.example").unwrap()), ..Filter::default() }, &all[1..]),
        (Filter { sender: Some("APP@Sender.Example".into()), ..Filter::default() }, &all),
        (Filter { sender: Some("@sender.example".into()), ..Filter::default() }, &all),
        (Filter { sender: Some(String::new()), ..Filter::default() }, &[]),
        (Filter { recipient: Some("USER1@b.example".into()), ..Filter::default() }, &all[1..2]),
        (Filter { recipient: Some("a.exam".into()), ..Filter::default() }, &all[..1]),
        (Filter { provider: Some("outlook".into()), ..Filter::default() }, &all[2..]),
        (Filter { state: Some(DeliveryState::Waiting), ..Filter::default() }, &all[..2]),
        (Filter { user: Some("nobody".into()), ..Filter::default() }, &[]),
        (Filter { message_id: Some(format!("{two}@sender.example")), ..Filter::default() }, &all[2..]),
        (Filter { messages: [one].into(), ..Filter::default() }, &all[..2]),
        (Filter { messages: [two, one].into(), ..Filter::default() }, &all),
        (Filter { messages: [two, one].into(), state: Some(DeliveryState::Held), ..Filter::default() }, &all[2..]),
        (Filter { older_than: Some(START), ..Filter::default() }, &[]),
        (Filter { older_than: Some(START + Duration::from_millis(1)), ..Filter::default() }, &all),
    ];
    let live = running.spool.reader().clone();
    let listed = |reader: Reader, filter: Filter| async move {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = reader.list(filter.clone(), after, 1).await.unwrap();
            found.extend(page.rows.iter().map(|row| (row.delivery.id.message, row.delivery.id.part)));
            after = page.next;
            if after.is_none() {
                return found;
            }
        }
    };
    for (filter, expected) in &cases {
        assert_eq!(listed(live.clone(), filter.clone()).await, *expected, "{filter:?}");
    }
    drop(live);
    running.end().await;
    let offline = Reader::open(folder.path()).unwrap();
    for (filter, expected) in &cases {
        assert_eq!(listed(offline.clone(), filter.clone()).await, *expected, "{filter:?}");
    }
    assert_eq!(offline.counts().await.unwrap().oldest, Some(START));
}

#[tokio::test(start_paused = true)]
async fn the_log_starts_again_and_a_drained_spool_becomes_small() {
    let folder = tempfile::tempdir().unwrap();
    let mut running = start(folder.path());
    let mut ids = Vec::new();
    // It is copied beside the writing, by a disk that may have much else to do: it starts again sooner or later.
    let is_shorter = loop {
        for _ in 0..700 {
            ids.push(running.accepted(&["a.example"], &[b'x'; 120_000]).await);
            running.committed.recv().await.unwrap();
        }
        let log_bytes = std::fs::metadata(folder.path().join("spool.sqlite-wal")).unwrap().len();
        let is_shorter = log_bytes < 114_000 * ids.len() as u64;
        if is_shorter || ids.len() >= 7000 {
            break is_shorter;
        }
    };
    assert!(is_shorter, "{} messages of 120,000 bytes, and the log holds them all", ids.len());
    running.spool.settle(ids.into_iter().map(|id| Change::Finish(first_part(id))).collect());
    running.spool.flush().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    running.end().await;
    let bytes = std::fs::metadata(schema::database(folder.path())).unwrap().len();
    assert!(bytes < 20 << 20, "{bytes} bytes for an empty queue");
}

#[tokio::test(start_paused = true)]
async fn an_idle_spool_sleeps() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(folder.path());
    running.accepted(&["a.example"], b"x").await;
    let before = running.spool.reader().counts().await.unwrap();
    // A year of virtual time: a loop that wakes every second would not come to its end in this test.
    tokio::time::timeout(Duration::from_secs(365 * 86_400), std::future::pending::<()>()).await.unwrap_err();
    assert_eq!(running.spool.reader().counts().await.unwrap(), before);
    running.end().await;
}

/// Rows as they would be after days of mail, put there at once: half of the deliveries were tried.
fn fill(folder: &Path, messages: u64) {
    let connection = rusqlite::Connection::open(schema::database(folder)).unwrap();
    connection
        .execute_batch(&format!(
            "BEGIN;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {messages})
             INSERT INTO message (id, received, sender, size, report, in_file)
             SELECT i * 1000, i, 'bounces@sender.example', 1, 0, 0 FROM n;
             INSERT INTO delivery (message, part, domain, recipients, state, attempts, next_attempt, delay_reported)
             SELECT id, 0, 'outlook.com', '[\"somebody' || id || '@outlook.com\"]', 'waiting', 0,
             iif(id % 2000, NULL, id), 0 FROM message;
             COMMIT"
        ))
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_walk_and_what_is_due_come_in_pages_without_gap_or_repetition() {
    let folder = tempfile::tempdir().unwrap();
    start(folder.path()).end().await;
    // With WEIR_TEST=long as many as a large relay has on a bad day.
    let messages = if std::env::var("WEIR_TEST").as_deref() == Ok("long") { 1_000_000 } else { 10_000 };
    fill(folder.path(), messages);
    let running = start(folder.path());
    let reader = running.spool.reader();
    let (mut seen, mut after) = (0, None);
    loop {
        let page = reader.scan(after, 3_000).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(after.is_none_or(|after| after < page[0].id) && page.is_sorted_by_key(|summary| summary.id));
        (seen, after) = (seen + page.len() as u64, Some(last.id));
    }
    assert_eq!(seen, messages);
    let (mut due, mut after) = (0, None);
    loop {
        let page = reader.due(Timestamp::NEVER, after, 3_000).await.unwrap();
        let Some(last) = page.last() else { break };
        (due, after) = (due + page.len() as u64, Some((last.next_attempt.unwrap(), last.id)));
    }
    assert_eq!(due, messages / 2);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn rights_of_others_to_the_folders_are_taken_away_and_a_shared_folder_is_left_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let bodies = folder.path().join("bodies");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    start(folder.path()).end().await;
    set(folder.path(), 0o755);
    set(&bodies, 0o777);
    start(folder.path()).end().await;
    assert_eq!((mode(folder.path()), mode(&bodies)), (0o700, 0o700));
    // A group that somebody has chosen stays, and so does a folder with other things in it.
    set(folder.path(), 0o750);
    start(folder.path()).end().await;
    assert_eq!(mode(folder.path()), 0o750);
    std::fs::write(folder.path().join("homework.txt"), b"x").unwrap();
    set(folder.path(), 0o755);
    start(folder.path()).end().await;
    assert_eq!(mode(folder.path()), 0o755);
}
