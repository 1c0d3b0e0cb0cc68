//! The bare spool under load: sessions that store messages, durable, and a dispatch that settles each at once.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir::clock::Clock;
use weir::spool::{BodyWriter, Change, Committed, Journal, NewMessage, Options, Spool};
use weir::types::{
    BodyType, Delivery, DeliveryId, DeliveryState, Domain, Envelope, Event, Mailbox, Notify, Origin, Priority, QueueId,
    Recipient, ReversePath,
};

use super::process;

/// What one run showed.
pub struct Measured {
    /// Messages stored and settled a second.
    pub rate: f64,
    /// For one message.
    pub cpu: Duration,
    /// How long each acceptance took, sorted.
    pub answers: Vec<Duration>,
    pub log_bytes: u64,
    pub file_bytes: u64,
}

struct NoJournal;

impl Journal for NoJournal {
    fn write(&mut self, _: &[Event]) -> std::io::Result<()> {
        Ok(())
    }
}

/// `sessions` store messages of `size` bytes in a new spool in `folder`, as fast as they can, for so long.
pub fn measure(folder: &Path, sessions: usize, size: usize, length: Duration) -> Measured {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(&folder.join("data"), sessions, size, length))
}

async fn run(folder: &Path, sessions: usize, size: usize, length: Duration) -> Measured {
    let options = Options { folder: folder.to_owned(), queue_messages: u64::MAX, min_free_bytes: 0 };
    let (sender, mut committed) = mpsc::channel(64);
    let (spool, writer) = Spool::open(options, Clock::system(), Box::new(NoJournal), sender).expect("a spool");
    let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
    let writer = tracker.spawn(writer.run(stop.clone()));
    let dispatch = spool.clone();
    let settling = tracker.spawn(async move {
        while let Some(news) = committed.recv().await {
            let finish = |m: Committed| Change::Finish(DeliveryId { message: m.envelope.id, part: 0 });
            dispatch.settle(news.into_iter().map(finish).collect());
        }
    });
    let (start, cpu) = (Instant::now(), process::cpu("self"));
    let end = start + length;
    let sessions: Vec<_> = (0..sessions).map(|_| tracker.spawn(session(spool.clone(), size, end))).collect();
    let mut answers = Vec::new();
    for session in sessions {
        answers.extend(session.await.expect("a session"));
    }
    spool.flush().await.expect("a flush");
    let count = u32::try_from(answers.len()).unwrap_or(u32::MAX).max(1);
    let (rate, cpu) = (f64::from(count) / start.elapsed().as_secs_f64(), (process::cpu("self") - cpu) / count);
    // The log is never cut while the spool is open: its length is the longest it was.
    let bytes = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |found| found.len());
    let (log_bytes, file_bytes) = (bytes("spool.sqlite-wal"), bytes("spool.sqlite"));
    stop.cancel();
    writer.await.expect("the writer");
    settling.await.expect("the settling task");
    answers.sort_unstable();
    Measured { rate, cpu, answers, log_bytes, file_bytes }
}

async fn session(spool: Spool, size: usize, end: Instant) -> Vec<Duration> {
    let (clock, content, mut answers) = (Clock::system(), vec![b'x'; size], Vec::new());
    while Instant::now() < end {
        let id = spool.ids().next(clock.now());
        let start = Instant::now();
        let mut body = spool.body(id);
        body.write(&content).await.expect("a body");
        spool.accept(message(id, body)).await.expect("an acceptance");
        answers.push(start.elapsed());
    }
    answers
}

fn message(id: QueueId, body: BodyWriter) -> NewMessage {
    let envelope = Envelope {
        id,
        received: id.received(),
        sender: ReversePath::parse("bounces@sender.example").expect("an address"),
        ret: None,
        envid: None,
        body_type: BodyType::default(),
        smtputf8: false,
        size_bytes: body.size_bytes(),
        message_id: Some("<20261121203340.1234@sender.example>".into()),
        client: Some([127, 0, 0, 1].into()),
        user: None,
        requests: Default::default(),
        expire: None,
        class: Priority::Normal,
        origin: Origin::Client,
    };
    let address = Mailbox::parse("somebody@outlook.com").expect("an address");
    let delivery = Delivery {
        id: DeliveryId { message: id, part: 0 },
        domain: Domain::parse("outlook.com").expect("a domain"),
        recipients: vec![Recipient { address, orcpt: None, notify: Notify::default() }],
        state: DeliveryState::Waiting,
        attempts: 0,
        next_attempt: None,
        delay_reported: false,
        refusal: None,
        failed: Vec::new(),
        next_hop: None,
        own: None,
    };
    NewMessage { envelope: Arc::new(envelope), deliveries: vec![delivery], body, events: Vec::new() }
}
