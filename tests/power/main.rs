//! Power cuts: what a real run wrote is recorded, call by call, and hundreds of disks are rebuilt on which the power
//! failed somewhere in between.
//!
//! The model of the disk is the strict one: what was not synced is kept or lost block by block, independently, some
//! blocks torn; a name is safe once its folder was synced. On every such disk the spool must open, hold every message
//! that was acknowledged, whole, and none that was known to be settled. A control on which syncs do nothing must lose
//! messages, or the test would not see anything.
//!
//! A second run has syncs that fail. After one the kernel takes the pages for clean, written or not, and the next sync says
//! that all is well: on the disks of that run what a failed sync was for is kept or lost for good, block by block.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use weir::clock::Clock;
use weir::spool::{Change, Committed, Journal, NewMessage, Options, Spool};
use weir::types::{
    Body, BodyType, Delivery, DeliveryId, DeliveryState, Domain, Envelope, Event, Mailbox, Notify, Origin, Priority,
    QueueId, Recipient, ReversePath, Timestamp,
};

const BLOCK: usize = 4096;
const SECTOR: usize = 512;
const SESSIONS: u64 = 4;
const MESSAGES: u64 = 40;
/// The file in which the workload says what it was promised; its writes stand between the others in the record.
const MARKS: &str = "marks";

struct NoJournal;

impl Journal for NoJournal {
    fn write(&mut self, _: &[Event]) -> std::io::Result<()> {
        Ok(())
    }
}

fn open(folder: &Path) -> Result<(Spool, weir::spool::Writer, mpsc::Receiver<Vec<Committed>>), String> {
    let options = Options { folder: folder.to_owned(), queue_messages: 1_000_000, min_free_bytes: 0 };
    let (sender, committed) = mpsc::channel(10_000);
    let (spool, writer) =
        Spool::open(options, Clock::system(), Box::new(NoJournal), sender).map_err(|error| error.to_string())?;
    Ok((spool, writer, committed))
}

/// The content of a message follows from its id, so that every byte can be checked.
fn content(id: QueueId, size: usize) -> Vec<u8> {
    let mut chance = fastrand::Rng::with_seed(id.key().cast_unsigned());
    let mut bytes = vec![0; size];
    chance.fill(&mut bytes);
    bytes
}

// ---- The workload: runs in a process of its own, below the shim.

#[test]
#[ignore = "the workload of the other test, which starts it in a process of its own"]
fn workload() {
    let Some(folder) = std::env::var_os("POWER_FOLDER").map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (spool, writer, _committed) = open(&folder).unwrap();
        let stop = CancellationToken::new();
        let tracker = TaskTracker::new();
        let writer = tracker.spawn(writer.run(stop.clone()));
        for _half in 0..2 {
            let sessions: Vec<_> =
                (0..SESSIONS).map(|n| tracker.spawn(session(spool.clone(), folder.clone(), n))).collect();
            for session in sessions {
                session.await.unwrap();
            }
            // Quiet enough for the log to be copied into the file, so that the second half starts it again.
            tokio::time::sleep(Duration::from_millis(1300)).await;
        }
        stop.cancel();
        writer.await.unwrap();
    });
}

async fn session(spool: Spool, folder: PathBuf, number: u64) {
    let mut chance = fastrand::Rng::with_seed(number);
    for n in 0..MESSAGES / 2 {
        let size = if n % 13 == 7 { 150_000 } else { chance.usize(200..12_000) };
        let id = spool.ids().next(Timestamp::from_secs(1_795_000_000));
        let mut body = spool.body(id);
        for piece in content(id, size).chunks(30_000) {
            body.write(piece).await.unwrap();
        }
        if let Err(error) = spool.accept(message(id, size, body)).await {
            assert!(std::env::var_os("POWER_FAIL").is_some(), "{error}");
            // As a client does: not before the disk is well again.
            while !spool.healthy() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            continue;
        }
        mark(&folder, 'A', id);
        if chance.u8(..10) < 6 {
            mark(&folder, 'S', id);
            spool.settle(vec![Change::Finish(DeliveryId { message: id, part: 0 })]);
            spool.flush().await.unwrap();
            mark(&folder, 'F', id);
        }
    }
}

fn message(id: QueueId, size: usize, body: weir::spool::BodyWriter) -> NewMessage {
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
    NewMessage { envelope: Arc::new(envelope), deliveries: vec![delivery], body, events: Vec::new() }
}

fn mark(folder: &Path, kind: char, id: QueueId) {
    let mut file = OpenOptions::new().create(true).append(true).open(folder.join(MARKS)).unwrap();
    file.write_all(format!("{kind} {id}\n").as_bytes()).unwrap();
}

// ---- The record.

enum Call {
    Create(String),
    Write { path: String, offset: usize, bytes: Vec<u8> },
    Truncate { path: String, length: usize },
    Sync(String),
    FailedSync(String),
    Unlink(String),
    Mark(char, QueueId),
}

fn read_record(mut log: &[u8]) -> Vec<Call> {
    let mut calls = Vec::new();
    while !log.is_empty() {
        let kind = log[0];
        let path_length = usize::from(u16::from_ne_bytes([log[1], log[2]]));
        let path = String::from_utf8(log[3..3 + path_length].to_vec()).unwrap();
        let rest = &log[3 + path_length..];
        let offset = usize::try_from(u64::from_ne_bytes(rest[..8].try_into().unwrap())).unwrap();
        let length = u32::from_ne_bytes(rest[8..12].try_into().unwrap()) as usize;
        let bytes = rest[12..12 + length].to_vec();
        log = &rest[12 + length..];
        // The lock says nothing, and the shared memory of a dead process is made anew.
        if path == "lock" || path.ends_with("-shm") {
            continue;
        }
        if path == MARKS {
            if kind == b'W' {
                let text = String::from_utf8(bytes).unwrap();
                let (mark, id) = text.trim_end().split_once(' ').unwrap();
                calls.push(Call::Mark(mark.chars().next().unwrap(), id.parse().unwrap()));
            }
            continue;
        }
        calls.push(match kind {
            b'C' => Call::Create(path),
            b'W' => Call::Write { path, offset, bytes },
            b'T' => Call::Truncate { path, length: offset },
            b'S' => Call::Sync(path),
            b'F' => Call::FailedSync(path),
            b'U' => Call::Unlink(path),
            other => panic!("a record of kind {other}"),
        });
    }
    calls
}

/// Compiles the shim, runs the workload below it; none where there is no C compiler.
fn record(folder: &Path, fail: Option<u32>) -> Option<Vec<Call>> {
    let (shim, log, data) = (folder.join("shim.so"), folder.join("log"), folder.join("data"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/shim.c");
    let compiled =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).arg("-ldl").status();
    match compiled {
        Ok(status) => assert!(status.success(), "the shim does not compile"),
        Err(error) => {
            eprintln!("SKIPPED: no C compiler for the recording shim (cc: {error})");
            return None;
        }
    }
    std::fs::create_dir_all(data.join("bodies")).unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .envs(fail.map(|every| ("POWER_FAIL", every.to_string())))
        .args(["--exact", "workload", "--ignored"])
        .env("LD_PRELOAD", &shim)
        .env("POWER_FOLDER", &data)
        .env("POWER_LOG", &log)
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    Some(read_record(&std::fs::read(log).unwrap()))
}

// ---- The disk.

#[derive(Default, Clone)]
struct File {
    safe: Vec<u8>,
    waiting: Vec<Step>,
    /// The name is there: surely (true) or perhaps.
    name_is_safe: bool,
    /// Removed, but the folder was not synced since.
    unlinked: bool,
}

#[derive(Clone)]
enum Step {
    /// Taken for clean after a failed sync: on the disk or not, and no later sync changes it.
    Doubtful {
        offset: usize,
        bytes: Vec<u8>,
    },
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate(usize),
}

#[derive(Default)]
struct Disk {
    files: BTreeMap<String, File>,
    ignores_syncs: bool,
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if content.len() < offset + bytes.len() {
        content.resize(offset + bytes.len(), 0);
    }
    content[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Disk {
    fn call(&mut self, call: &Call) {
        match call {
            Call::Create(path) => {
                self.files.insert(path.clone(), File::default());
            }
            Call::Write { path, offset, bytes } => {
                let step = Step::Write { offset: *offset, bytes: bytes.clone() };
                self.files.entry(path.clone()).or_default().waiting.push(step);
            }
            Call::Truncate { path, length } => {
                self.files.entry(path.clone()).or_default().waiting.push(Step::Truncate(*length));
            }
            Call::Sync(_) if self.ignores_syncs => {}
            Call::Sync(path) => match self.files.get_mut(path) {
                Some(file) => file.sync(),
                None => self.sync_folder(path),
            },
            Call::FailedSync(path) => {
                if let Some(file) = self.files.get_mut(path) {
                    file.fail_to_sync();
                }
            }
            Call::Unlink(path) => {
                if let Some(file) = self.files.get_mut(path) {
                    file.unlinked = true;
                }
            }
            Call::Mark(..) => {}
        }
    }

    fn sync_folder(&mut self, folder: &str) {
        let is_in = |path: &str| path.rsplit_once('/').map_or("", |(parent, _)| parent) == folder;
        self.files.retain(|path, file| !(is_in(path) && file.unlinked));
        for (_, file) in self.files.iter_mut().filter(|(path, _)| is_in(path)) {
            file.name_is_safe = true;
        }
    }

    /// What is found when the power is back.
    fn rebuild(&self, folder: &Path, chance: &mut fastrand::Rng) {
        std::fs::create_dir_all(folder.join("bodies")).unwrap();
        // Some disks lose nearly all, some nearly nothing.
        let kept_of_ten = chance.u8(0..=10);
        for (path, file) in &self.files {
            if (!file.name_is_safe && chance.bool()) || (file.unlinked && chance.bool()) {
                continue;
            }
            std::fs::write(folder.join(path), file.found(kept_of_ten, chance)).unwrap();
        }
    }
}

impl File {
    fn sync(&mut self) {
        for step in std::mem::take(&mut self.waiting) {
            match step {
                Step::Write { offset, bytes } => put(&mut self.safe, offset, &bytes),
                Step::Truncate(length) => self.safe.resize(length, 0),
                // The worst case: the next sync says yes, and this was never written.
                Step::Doubtful { .. } => {}
            }
        }
    }

    fn fail_to_sync(&mut self) {
        for step in &mut self.waiting {
            if let Step::Write { offset, bytes } = step {
                *step = Step::Doubtful { offset: *offset, bytes: std::mem::take(bytes) };
            }
        }
    }

    fn found(&self, kept_of_ten: u8, chance: &mut fastrand::Rng) -> Vec<u8> {
        let mut content = self.safe.clone();
        for step in &self.waiting {
            match step {
                Step::Truncate(length) if chance.u8(..10) < kept_of_ten => content.resize(*length, 0),
                Step::Truncate(_) => {}
                Step::Write { offset, bytes } | Step::Doubtful { offset, bytes } => {
                    for (n, block) in bytes.chunks(BLOCK).enumerate() {
                        let torn = if chance.u8(..10) == 0 { chance.usize(0..=BLOCK / SECTOR) * SECTOR } else { BLOCK };
                        if chance.u8(..10) < kept_of_ten {
                            put(&mut content, offset + n * BLOCK, &block[..torn.min(block.len())]);
                        }
                    }
                }
            }
        }
        content
    }
}

// ---- The promise.

#[derive(Default)]
struct Promised {
    acknowledged: BTreeSet<QueueId>,
    settling: BTreeSet<QueueId>,
    settled: BTreeSet<QueueId>,
}

impl Promised {
    fn call(&mut self, call: &Call) {
        let Call::Mark(kind, id) = call else { return };
        match kind {
            'A' => self.acknowledged.insert(*id),
            'S' => self.settling.insert(*id),
            _ => self.settled.insert(*id),
        };
    }

    /// Opens what is found and says what is wrong with it.
    async fn check(&self, folder: &Path) -> Result<(), String> {
        let (spool, _writer, _committed) = open(folder)?;
        let mut found = BTreeSet::new();
        for summary in spool.reader().scan(None, 100_000).await.map_err(|e| e.to_string())? {
            let stored = spool.load(summary.id).await.map_err(|e| e.to_string())?.ok_or("vanished")?;
            let bytes = match stored.body {
                Body::Inline(bytes) => bytes.to_vec(),
                Body::File { path, .. } | Body::Headed { path, .. } => {
                    std::fs::read(&*path).map_err(|e| e.to_string())?
                }
            };
            let id = summary.id.message;
            if bytes != content(id, usize::try_from(stored.envelope.size_bytes).unwrap()) {
                return Err(format!("the content of {id} is damaged"));
            }
            found.insert(id);
        }
        if let Some(lost) = self.acknowledged.difference(&self.settling).find(|id| !found.contains(id)) {
            return Err(format!("{lost} was acknowledged and is lost"));
        }
        if let Some(again) = self.settled.intersection(&found).next() {
            return Err(format!("{again} was settled and is there again"));
        }
        let database = rusqlite::Connection::open(folder.join("spool.sqlite")).map_err(|e| e.to_string())?;
        let answer: String =
            database.query_row("PRAGMA integrity_check", (), |row| row.get(0)).map_err(|e| e.to_string())?;
        if answer == "ok" { Ok(()) } else { Err(answer) }
    }
}

/// Rebuilds `states` disks with cuts all over the record; returns what was wrong with which.
fn cuts(calls: &[Call], states: u64, seed: u64, ignores_syncs: bool) -> Vec<String> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut places: Vec<usize> = (0..states).map(|_| chance.usize(0..=calls.len())).collect();
    places.sort_unstable();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut disk, mut promised, mut done) = (Disk { ignores_syncs, ..Disk::default() }, Promised::default(), 0);
    let mut faults = Vec::new();
    for place in places {
        for call in &calls[done..place] {
            disk.call(call);
            promised.call(call);
        }
        done = place;
        let folder = tempfile::tempdir().unwrap();
        disk.rebuild(folder.path(), &mut chance);
        if let Err(fault) = runtime.block_on(promised.check(folder.path())) {
            faults.push(format!("seed {seed}, cut at call {place} of {}: {fault}", calls.len()));
        }
    }
    faults
}

#[test]
fn no_power_cut_loses_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let Some(calls) = record(folder.path(), None) else { return };
    let marks =
        |wanted: char| calls.iter().filter(|call| matches!(call, Call::Mark(kind, _) if *kind == wanted)).count();
    let syncs = calls.iter().filter(|call| matches!(call, Call::Sync(_))).count();
    assert_eq!(marks('A') as u64, SESSIONS * MESSAGES, "the record is not whole");
    assert!(marks('F') > 20 && syncs > 20, "{} settled, {syncs} syncs", marks('F'));

    let (states, seed) = match std::env::var("WEIR_TEST").as_deref() {
        Ok("long") => (5000, fastrand::u64(..)),
        _ => (240, 1),
    };
    let faults = cuts(&calls, states, seed, false);
    assert!(faults.is_empty(), "{} of {states} disks:\n{}", faults.len(), faults.join("\n"));
    let control = cuts(&calls, 40, seed, true);
    assert!(
        control.len() > 5,
        "without syncs only {} of 40 disks lost something: this test sees nothing",
        control.len()
    );
}

#[test]
fn no_power_cut_after_failed_syncs_loses_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let Some(calls) = record(folder.path(), Some(29)) else { return };
    let failed = calls.iter().filter(|call| matches!(call, Call::FailedSync(_))).count();
    let accepted = calls.iter().filter(|call| matches!(call, Call::Mark('A', _))).count();
    assert!(failed > 2 && accepted > 20, "{failed} syncs failed, {accepted} messages were accepted");
    let (states, seed) = match std::env::var("WEIR_TEST").as_deref() {
        Ok("long") => (3000, fastrand::u64(..)),
        _ => (80, 2),
    };
    let faults = cuts(&calls, states, seed, false);
    assert!(faults.is_empty(), "{} of {states} disks:\n{}", faults.len(), faults.join("\n"));
}
