//! The spool: accepted messages, safe on disk until they are settled.
//!
//! Rules that always hold:
//! - `accept` answers after the fsync; a message is then wholly there or, before, wholly absent;
//! - changes of the queue handed over in one call are one transaction, made in the order of the calls, never dropped;
//! - an outcome and the report it causes are one transaction; an event is in the event log before the outcome it tells
//!   of is forgotten;
//! - one process owns a data folder.
//!
//! `docs/spool.md` describes the tables, the commit, and what a crash can leave.

mod body;
mod lock;
mod read;
mod room;
mod row;
mod schema;
mod space;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot, watch};

pub use body::BodyWriter;
pub use read::{Counts, Filter, Listed, Page, Reader, Summary};
pub use space::Space;
pub use writer::Writer;

use crate::clock::Clock;
use crate::sqlite;
use crate::types::words::count;
use crate::types::{Body, Delivery, DeliveryId, Envelope, Event, QueueId, QueueIds, Timestamp};

/// Acceptances that wait for the writer: more than one commit takes, so that it never starves.
const REQUESTS_MAX: usize = 1024;

/// What a spool is opened with.
#[derive(Clone, Debug)]
pub struct Options {
    /// `data_dir`. Made with mode 0700 if it is not there.
    pub folder: PathBuf,
    /// `limits.queue_messages`.
    pub queue_messages: u64,
    /// `limits.min_free_disk`.
    pub min_free_bytes: u64,
}

/// Writes events before the outcome they tell of is forgotten; called by the writer just before COMMIT.
/// The event log implements it.
pub trait Journal: Send {
    /// Returns when a SIGKILL can no longer take the lines away. After an error the events of settled deliveries come
    /// again.
    fn write(&mut self, events: &[Event]) -> std::io::Result<()>;

    /// The commit that these events belong to took so long, whatever came of it.
    fn committed(&mut self, took: std::time::Duration) {
        let _ = took;
    }
}

/// Signs reports of ours before they are committed.
pub trait Seal: Send + Sync {
    /// The same contents in the same order. One that cannot be signed comes back as it is: a report must not be lost.
    fn seal(&self, contents: Vec<bytes::Bytes>) -> Pin<Box<dyn Future<Output = Vec<bytes::Bytes>> + Send + '_>>;
}

/// A message on its way into the spool.
pub struct NewMessage {
    pub envelope: Arc<Envelope>,
    pub deliveries: Vec<Delivery>,
    pub body: BodyWriter,
    /// Written with the commit.
    pub events: Vec<Event>,
}

#[derive(Debug)]
/// One step of the queue. All changes handed over in one call are one transaction.
pub enum Change {
    /// The next attempt, written before the try, so that a crash cannot hammer a receiver.
    Plan {
        id: DeliveryId,
        next_attempt: Timestamp,
    },
    /// The delivery as it now stands (deferred, held, released, fewer recipients).
    Update(Delivery),
    /// The delivery has come to its end; with the last one the message goes.
    Finish(DeliveryId),
    /// A report of ours, committed with the outcome that causes it.
    Report {
        envelope: Arc<Envelope>,
        deliveries: Vec<Delivery>,
        content: bytes::Bytes,
    },
    Note(Event),
}

/// A message that was just committed, with what is needed to deliver it without reading it back.
#[derive(Clone, Debug)]
pub struct Committed {
    pub envelope: Arc<Envelope>,
    pub deliveries: Vec<Delivery>,
    pub body: Body,
}

/// A delivery as read back.
#[derive(Clone, Debug)]
pub struct Stored {
    pub envelope: Arc<Envelope>,
    pub delivery: Delivery,
    pub body: Body,
}

/// What was tried and why it failed, for the log; clients get a 451 of their own wording.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("{0}")]
    Failed(String),
    /// The disk has been filled while the message came.
    #[error("{0}")]
    NoRoom(String),
}

/// Why no message can be taken now: `452 4.3.1`.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Shortage {
    #[error("{0}")]
    Disk(String),
    #[error("{} in the queue, limits.queue_messages is {max}", count(*messages, "message"))]
    Queue { messages: u64, max: u64 },
    #[error("memory is short: {0}")]
    Memory(String),
    #[error("the spool cannot write: {0}")]
    Unhealthy(String),
}

/// How much memory there is for what comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// As much as the spool takes by itself.
    Ample,
    /// Contents go to the disk at once.
    Short,
    /// No message is begun; the text says how much is in use.
    Out(String),
}

/// The spool as everybody but its writer holds it. Cheap to clone.
#[derive(Clone)]
pub struct Spool(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    bodies: Arc<PathBuf>,
    clock: Clock,
    ids: QueueIds,
    /// Every id given out in this run is above it.
    first: QueueId,
    flight: Arc<body::InFlight>,
    disk: Arc<space::Disk>,
    requests: mpsc::Sender<writer::Request>,
    /// Bounded by the work in flight: dispatch hands over the outcomes of deliveries it has taken out (at most
    /// `delivery.max_connections` transactions), and takes out no more while `healthy` says no.
    queue: Mutex<Handed>,
    settled: Notify,
    durable: watch::Receiver<u64>,
    fault: Mutex<Option<String>>,
    memory_fault: Mutex<Option<String>>,
    reader: Reader,
    _lock: File,
}

/// Changes on their way to the writer.
#[derive(Default)]
struct Handed {
    number: u64,
    settles: VecDeque<store::Settle>,
}

/// Makes a data folder if it is not there, for its owner alone.
pub fn make_folder(folder: &Path) -> Result<(), SpoolError> {
    crate::sqlite::make_folder(folder).map_err(|error| SpoolError::Failed(error.to_string()))
}

/// Takes rights of others to a folder of ours away, or says that they have them.
pub fn keep_private(folder: &Path) {
    sqlite::keep_private(folder, true);
}

/// Does nothing lie in the data folder but what weir puts there? Not so where somebody gave it a folder of other things.
fn holds_only_ours(folder: &Path) -> bool {
    const OURS: [&str; 11] = [
        "dkim",
        "spool",
        "bodies",
        "lock",
        "events",
        "suppression",
        "state",
        "control",
        "feedback",
        "http-token",
        "lost+found",
    ];
    std::fs::read_dir(folder).is_ok_and(|entries| {
        entries
            .flatten()
            .all(|entry| entry.file_name().to_str().is_some_and(|name| OURS.iter().any(|ours| name.starts_with(ours))))
    })
}

/// Takes possession of a data folder, which is made if it is not there, for as long as the file is held: for work on it
/// while no relay runs.
pub fn own_folder(folder: &Path) -> Result<File, SpoolError> {
    make_folder(folder)?;
    lock::take(folder)
}

impl Spool {
    /// Opens the spool of a data folder and takes possession of it; instant, however long the queue is. Messages that
    /// are accepted, and reports of ours, come out of `committed`.
    pub fn open(
        options: Options,
        clock: Clock,
        journal: Box<dyn Journal>,
        committed: mpsc::Sender<Vec<Committed>>,
    ) -> Result<(Spool, Writer), SpoolError> {
        let folder = options.folder.clone();
        let bodies = schema::bodies(&folder);
        sqlite::make_folder(&folder)?;
        let lock = lock::take(&folder)?;
        sqlite::make_folder(&bodies)?;
        sqlite::keep_private(&folder, holds_only_ours(&folder));
        sqlite::keep_private(&bodies, true);
        sqlite::sync_folder(&folder)?;
        let store = store::Store::open(&folder, journal, clock.clone())?;
        let counters = store.counters();
        let stands = store.after()?;
        let ids = QueueIds::new(counters.last_id, fastrand::u64(..));
        let first = ids.next(clock.now());
        let disk = Arc::new(space::Disk::new(room::Room::new(&options), folder.clone(), clock.clone()));
        // A drained queue that was left large has room from the first moment on.
        disk.room.update(stands.messages, stands.spare);
        let (requests, incoming) = mpsc::channel(REQUESTS_MAX);
        let (durable_now, durable) = watch::channel(0);
        let shared = Arc::new(Shared {
            bodies: Arc::new(bodies),
            clock,
            ids,
            first,
            flight: Arc::default(),
            disk,
            requests,
            queue: Mutex::default(),
            settled: Notify::new(),
            durable,
            fault: Mutex::default(),
            memory_fault: Mutex::default(),
            reader: Reader::open(&folder)?,
            folder,
            _lock: lock,
        });
        let writer = Writer {
            shared: Arc::clone(&shared),
            store: Some(store),
            requests: incoming,
            committed,
            durable: durable_now,
            kept: VecDeque::new(),
            checkpoint: None,
            checkpoint_after: Timestamp::EPOCH,
            log_pages: stands.log.pages,
            // What a run left that ended in haste: free pages, a long log.
            tidy_after: Some(writer::IDLE),
            said: writer::Said::default(),
            seal: None,
        };
        Ok((Spool(shared), writer))
    }

    pub fn ids(&self) -> &QueueIds {
        &self.0.ids
    }

    /// Begins the content of a message of our own: it is kept while the disk takes it at all.
    pub fn body(&self, id: QueueId) -> BodyWriter {
        self.body_within(id, Space::unlimited(&self.0.disk))
    }

    /// Begins the content of a message from outside, for which this was set aside.
    pub fn body_within(&self, id: QueueId, space: Space) -> BodyWriter {
        BodyWriter::new(id, Arc::clone(&self.0.bodies), Arc::clone(&self.0.flight), space)
    }

    /// Sets room aside for a message of `size` bytes (0: not announced), which may become more as it comes. None: nothing yet.
    pub fn set_aside(&self, size: Option<u64>) -> Result<Space, Shortage> {
        self.room(0)?;
        Space::limited(&self.0.disk, size)
    }

    /// Is there room for a message of `size` bytes? Cheap enough for every MAIL.
    pub fn room(&self, size: u64) -> Result<(), Shortage> {
        if let Some(fault) = self.0.fault() {
            return Err(Shortage::Unhealthy(fault));
        }
        if let Some(text) = self.memory_fault() {
            return Err(Shortage::Memory(text));
        }
        self.0.disk.check(size)
    }

    /// Bytes the file system of the data folder has free (for metrics and alerts).
    pub fn free_bytes(&self) -> std::io::Result<u64> {
        self.0.disk.free_bytes()
    }

    /// Takes as much memory from now on as there is.
    pub fn set_memory(&self, memory: Memory) {
        self.0.flight.set_short(memory != Memory::Ample);
        let fault = if let Memory::Out(text) = memory { Some(text) } else { None };
        *self.0.memory_fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Why no message is begun, if memory is the reason.
    pub fn memory_fault(&self) -> Option<String> {
        self.0.memory_fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Can the spool write? While it cannot, outcomes could be lost: no new delivery should start.
    pub fn healthy(&self) -> bool {
        self.0.is_healthy()
    }

    /// Stores a message. `Ok` means that it is on disk; then it has also been handed to dispatch. Nothing of it remains
    /// after an error.
    pub async fn accept(&self, message: NewMessage) -> Result<(), SpoolError> {
        let NewMessage { envelope, deliveries, body, events } = message;
        check(&envelope, &deliveries, &body)?;
        let fault = |error| SpoolError::Failed(format!("the content of {}: {error}", envelope.id));
        let content = body.finish().await.map_err(fault)?;
        content.space.check().map_err(|shortage| SpoolError::NoRoom(shortage.to_string()))?;
        let (answer, answered) = oneshot::channel();
        let accept = store::Accept { envelope, deliveries, content, events, fault: None, told: false };
        let closed = || SpoolError::Failed("the spool is closed".to_string());
        self.0.requests.send(writer::Request { accept, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// Hands over changes of the queue; never waits. They are written within some 20 ms, all or none of one call.
    pub fn settle(&self, changes: Vec<Change>) {
        let (mut kept, mut events) = (Vec::with_capacity(changes.len()), Vec::new());
        for change in changes {
            match change {
                Change::Note(event) => events.push(event),
                other => kept.push(other),
            }
        }
        let mut queue = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.number += 1;
        let number = queue.number;
        queue.settles.push_back(store::Settle { number, changes: kept, events, is_sealed: false });
        drop(queue);
        self.0.settled.notify_one();
    }

    /// Returns when everything settled so far is on disk. Not for the task that receives `committed`: the writer may
    /// be waiting for it.
    pub async fn flush(&self) -> Result<(), SpoolError> {
        let number = self.0.queue.lock().unwrap_or_else(PoisonError::into_inner).number;
        let mut durable = self.0.durable.clone();
        let reached = durable.wait_for(|&done| done >= number).await;
        reached
            .map(drop)
            .map_err(|_| SpoolError::Failed("the spool was closed before everything was written".to_string()))
    }

    /// For everything that reads: single deliveries, the walk at the start, what is due, lists, counts.
    pub fn reader(&self) -> &Reader {
        &self.0.reader
    }

    /// A delivery with its envelope and content; none if it has ended.
    pub async fn load(&self, id: DeliveryId) -> Result<Option<Stored>, SpoolError> {
        self.0.reader.load(id).await
    }

    pub fn folder(&self) -> &Path {
        &self.0.folder
    }
}

/// What can only be a fault of our own: found here, it costs one message instead of a batch.
fn check(envelope: &Envelope, deliveries: &[Delivery], body: &BodyWriter) -> Result<(), SpoolError> {
    let id = envelope.id;
    let fault = if deliveries.is_empty() {
        "has no deliveries"
    } else if deliveries.iter().any(|delivery| delivery.id.message != id) {
        "has a delivery of another message"
    } else if body.id() != id {
        "has the content of another message"
    } else if body.size_bytes() != envelope.size_bytes {
        "has a content of another size than its envelope says"
    } else {
        return Ok(());
    };
    Err(SpoolError::Failed(format!("message {id} {fault}")))
}

impl Shared {
    fn take_settles(&self) -> VecDeque<store::Settle> {
        std::mem::take(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner).settles)
    }

    fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_healthy(&self) -> bool {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    fn set_health(&self, fault: Option<String>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}
