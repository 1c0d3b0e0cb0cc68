//! A full disk, for real: a small tmpfs that the spool fills to the last block.
//!
//! Where tmpfs may not be mounted (not root, or a closed container) the test says so and passes; with
//! `WEIR_TEST_FAULTS=required` it fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir::clock::Clock;
use weir::spool::{Change, Journal, NewMessage, Options, Spool, SpoolError};
use weir::types::{
    BodyType, Delivery, DeliveryId, DeliveryState, Domain, Envelope, Event, Mailbox, Notify, Origin, Priority, QueueId,
    Recipient, ReversePath,
};

const DISK_MIB: u64 = 24;

/// Unmounts when the test ends, however it ends.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path) -> Option<Tmpfs> {
        let size = format!("size={DISK_MIB}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output();
        match done {
            Ok(output) if output.status.success() => Some(Tmpfs(at.to_owned())),
            Ok(output) => {
                skip(&format!("tmpfs cannot be mounted here: {}", String::from_utf8_lossy(&output.stderr).trim()))
            }
            Err(error) => skip(&format!("there is no mount command: {error}")),
        }
    }
}

fn skip(why: &str) -> Option<Tmpfs> {
    let required = std::env::var("WEIR_TEST_FAULTS").is_ok_and(|v| v == "required");
    assert!(!required, "WEIR_TEST_FAULTS=required, but {why}");
    eprintln!("SKIPPED: {why}");
    None
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

struct NoJournal;

impl Journal for NoJournal {
    fn write(&mut self, _: &[Event]) -> std::io::Result<()> {
        Ok(())
    }
}

fn open(folder: &Path) -> (Spool, tokio::task::JoinHandle<()>, CancellationToken) {
    let options = Options { folder: folder.to_owned(), queue_messages: 1_000_000, min_free_bytes: 0 };
    let (sender, mut committed) = mpsc::channel(64);
    let (spool, writer) = Spool::open(options, Clock::system(), Box::new(NoJournal), sender).unwrap();
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    tracker.spawn(async move { while committed.recv().await.is_some() {} });
    (spool, tracker.spawn(writer.run(stop.clone())), stop)
}

async fn accept(spool: &Spool, size: usize) -> Result<QueueId, SpoolError> {
    let id = spool.ids().next(Clock::system().now());
    let mut body = spool.body(id);
    for piece in vec![b'x'; size].chunks(16_384) {
        body.write(piece).await.map_err(|error| SpoolError::Failed(error.to_string()))?;
    }
    let envelope = Envelope {
        id,
        received: id.received(),
        sender: ReversePath::Null,
        ret: None,
        envid: None,
        body_type: BodyType::default(),
        smtputf8: false,
        size_bytes: size as u64,
        message_id: None,
        client: None,
        user: None,
        requests: Default::default(),
        expire: None,
        class: Priority::Normal,
        origin: Origin::Client,
    };
    let address = Mailbox::parse("user@example.com").unwrap();
    let delivery = Delivery {
        id: DeliveryId { message: id, part: 0 },
        domain: Domain::parse("example.com").unwrap(),
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
    let message = NewMessage { envelope: Arc::new(envelope), deliveries: vec![delivery], body, events: Vec::new() };
    spool.accept(message).await.map(|()| id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_new_mail_keeps_the_old_and_heals_by_itself() {
    let mount = tempfile::tempdir().unwrap();
    let Some(_tmpfs) = Tmpfs::mount(mount.path()) else { return };
    let ballast = mount.path().join("ballast");
    std::fs::write(&ballast, vec![0; 10 << 20]).unwrap();
    let folder = mount.path().join("data");
    let (spool, writer, stop) = open(&folder);
    let mut accepted = Vec::new();
    let error = loop {
        let size = if accepted.len() % 5 == 4 { 200_000 } else { 90_000 };
        match accept(&spool, size).await {
            Ok(id) => accepted.push(id),
            Err(error) => break error.to_string(),
        }
        assert!(accepted.len() < 1000, "the disk never became full");
    };
    assert!(accepted.len() > 10 && (error.contains("full") || error.contains("space")), "{error}");
    // Small messages until the database itself cannot be written any more.
    while spool.healthy() {
        if let Ok(id) = accept(&spool, 5_000).await {
            accepted.push(id);
        }
    }
    assert!(spool.room(1000).is_err());
    assert!(accept(&spool, 1000).await.is_err());
    // What was accepted can be read and settled; the settling waits for the disk and is not lost.
    let first = DeliveryId { message: accepted[0], part: 0 };
    assert!(spool.load(first).await.unwrap().is_some());
    spool.settle(vec![Change::Finish(first)]);

    std::fs::remove_file(&ballast).unwrap();
    tokio::time::timeout(Duration::from_secs(20), spool.flush()).await.expect("it heals").unwrap();
    assert!(spool.load(first).await.unwrap().is_none());
    while !spool.healthy() {
        tokio::task::yield_now().await;
    }
    accepted.push(accept(&spool, 5_000).await.unwrap());
    stop.cancel();
    writer.await.unwrap();
    drop(spool);

    let (spool, writer, stop) = open(&folder);
    let found: Vec<QueueId> =
        spool.reader().scan(None, 10_000).await.unwrap().iter().map(|summary| summary.id.message).collect();
    assert_eq!(found, accepted[1..]);
    for &message in &accepted[1..] {
        assert!(spool.load(DeliveryId { message, part: 0 }).await.unwrap().is_some());
    }
    stop.cancel();
    writer.await.unwrap();
}
