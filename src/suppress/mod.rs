//! The suppression list: recipients who were refused for good, and are not written to any more.
//!
//! Rules that always hold:
//! - an address is known by `Mailbox::key()`: letter case, quotes that change nothing and the form of the domain make no
//!   second entry;
//! - an entry that has expired is no hit. It stays, so that the second refusal is known as the second, and then counts
//!   until it is removed;
//! - a look-up never waits for a write (WAL); an import is cut into short transactions, so that no other write waits
//!   for it;
//! - a list of ten million entries costs memory for a few pages only.
//!
//! The list is a database of its own beside the spool, so that neither holds up the other.

pub mod options;
mod store;
mod transfer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

pub use transfer::{Format, Imported, LineFault};

use crate::clock::Clock;
use crate::sqlite;
use crate::types::reading::words;
use crate::types::{Class, Mailbox, Timestamp};

/// How long the first refusal keeps an address out; the second keeps it until it is removed.
pub const FIRST_KEEP: Duration = Duration::from_secs(90 * 86_400);
/// Writes that wait for the next commit.
const WRITES_MAX: usize = 256;
/// Connections for look-ups; one more is opened while all are in use, and closed again.
const READERS_KEPT: usize = 4;
/// Replies are kept in the receiver's words up to this many characters.
const REPLY_MAX: usize = 1000;
/// Time to try a commit again after the disk failed.
const RETRY: Duration = Duration::from_secs(1);

words! {
    /// Who put an address onto the list.
    Source { Bounce = "bounce", Manual = "manual", Import = "import", Complaint = "complaint" }
}

/// One address that is not written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// In the form of `Mailbox::key()`.
    pub recipient: String,
    pub class: Class,
    /// The words that put it here.
    pub reply: String,
    pub source: Source,
    /// The first and the last time it was refused or put here.
    pub first: Timestamp,
    pub last: Timestamp,
    /// How often.
    pub hits: u64,
    /// None: until it is removed.
    pub expires: Option<Timestamp>,
}

impl Entry {
    pub fn new(recipient: &Mailbox, class: Class, reply: &str, source: Source, at: Timestamp) -> Entry {
        let reply = reply.chars().take(REPLY_MAX).collect();
        Entry { recipient: recipient.key(), class, reply, source, first: at, last: at, hits: 1, expires: None }
    }

    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|moment| moment > now)
    }
}

/// What a list is asked for; `None` takes all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub class: Option<Class>,
    pub source: Option<Source>,
    /// A part of the address.
    pub recipient: Option<String>,
    pub domain: Option<crate::types::Domain>,
    /// Also those that have expired.
    pub expired: bool,
}

/// One page of a list, in the order of the addresses.
#[derive(Clone, Debug)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// Where to go on; none at the end. A page may be empty and not the last.
    pub next: Option<String>,
}

/// What was tried and why it failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the suppression list: {0}")]
pub struct ListError(String);

/// The list. Cheap to clone.
#[derive(Clone)]
pub struct List(Arc<Shared>);

struct Shared {
    path: PathBuf,
    clock: Clock,
    readers: Mutex<Vec<Connection>>,
    /// None: opened for reading alone.
    writes: Option<mpsc::Sender<Write>>,
}

/// One write on its way: all its operations in one transaction.
struct Write {
    operations: Vec<store::Operation>,
    answer: oneshot::Sender<Result<Vec<store::Outcome>, ListError>>,
}

/// The writing half of the list; does nothing until `run`.
pub struct Writer {
    connection: Option<Connection>,
    writes: mpsc::Receiver<Write>,
    path: PathBuf,
}

impl List {
    /// Opens the list at `path` (`data_dir/suppression.sqlite`). Only the owner of the data folder may do that.
    pub fn open(path: &Path, clock: Clock) -> Result<(List, Writer), ListError> {
        if let Some(folder) = path.parent() {
            sqlite::make_folder(folder)?;
        }
        let connection = sqlite::open_writer(path, store::MIGRATIONS, store::CACHE_KIB)?;
        let (sender, writes) = mpsc::channel(WRITES_MAX);
        let shared = Shared { path: path.to_owned(), clock, readers: Mutex::default(), writes: Some(sender) };
        Ok((List(Arc::new(shared)), Writer { connection: Some(connection), writes, path: path.to_owned() }))
    }

    /// Opens the list to read it, whether a relay runs or not.
    pub fn read_only(path: &Path, clock: Clock) -> Result<List, ListError> {
        let list = List(Arc::new(Shared { path: path.to_owned(), clock, readers: Mutex::default(), writes: None }));
        list.read(|_| Ok(()))?;
        Ok(list)
    }

    /// Is the recipient on the list now? Takes a few microseconds, and needs no thread of its own.
    pub fn check(&self, recipient: &Mailbox) -> Result<Option<Entry>, ListError> {
        let (key, now) = (recipient.key(), self.0.clock.now());
        Ok(self.read(|on| store::get(on, &key))?.filter(|entry| entry.is_in_force(now)))
    }

    /// Puts an entry onto the list; durable when it returns. What was there for the recipient keeps its beginning and
    /// its count.
    pub async fn add(&self, entry: Entry) -> Result<(), ListError> {
        self.write(vec![store::Operation::Add(entry)]).await.map(drop)
    }

    /// The same for many at once, in one commit: how many were new, and how many were there before.
    pub async fn add_all(&self, entries: Vec<Entry>) -> Result<(u64, u64), ListError> {
        let outcomes = self.write(entries.into_iter().map(store::Operation::Add).collect()).await?;
        let new = outcomes.iter().filter(|outcome| matches!(outcome, store::Outcome::Added { new: true })).count();
        Ok((new as u64, (outcomes.len() - new) as u64))
    }

    /// A refusal for good. The first keeps the recipient out for 90 days, one after that time until it is removed;
    /// one meanwhile is only counted. Returns the entry as it now stands.
    pub async fn note_refusal(
        &self,
        recipient: &Mailbox,
        class: Class,
        reply: &str,
        at: Timestamp,
    ) -> Result<Entry, ListError> {
        let entry = Entry { expires: Some(at + FIRST_KEEP), ..Entry::new(recipient, class, reply, Source::Bounce, at) };
        let outcome = self.write(vec![store::Operation::Refusal(entry)]).await?.pop();
        match outcome {
            Some(store::Outcome::Entry(entry)) => Ok(entry),
            _ => Err(ListError("the writer gave no answer".to_string())),
        }
    }

    /// Takes a recipient off the list, with its history. False: it was not there.
    pub async fn remove(&self, recipient: &Mailbox) -> Result<bool, ListError> {
        let outcome = self.write(vec![store::Operation::Remove(recipient.key())]).await?.pop();
        Ok(matches!(outcome, Some(store::Outcome::Removed(true))))
    }

    /// Up to `limit` entries behind `after`. Looks at a bounded number of rows a call.
    pub fn list(&self, filter: &Filter, after: Option<&str>, limit: usize) -> Result<Page, ListError> {
        let now = self.0.clock.now();
        self.read(|on| store::list(on, filter, after.unwrap_or(""), limit, now))
    }

    /// How many entries there are, expired ones too. Walks through the list: seconds for millions.
    pub fn count(&self) -> Result<u64, ListError> {
        self.read(store::count)
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ListError> {
        let kept = || self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = kept().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => sqlite::open_reader(&self.0.path, store::MIGRATIONS.len(), store::READER_CACHE_KIB)?,
        };
        let result = work(&connection)?;
        let mut kept = kept();
        if kept.len() < READERS_KEPT {
            kept.push(connection);
        }
        Ok(result)
    }

    async fn write(&self, operations: Vec<store::Operation>) -> Result<Vec<store::Outcome>, ListError> {
        let closed = || ListError("it is closed".to_string());
        let writes = self.0.writes.as_ref().ok_or_else(|| ListError("it was opened for reading alone".to_string()))?;
        let (answer, answered) = oneshot::channel();
        writes.send(Write { operations, answer }).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

impl Writer {
    /// Writes until `stop`, then what is still handed over, and ends.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                write = self.writes.recv() => write,
                () = stop.cancelled() => {
                    self.writes.close();
                    self.writes.recv().await
                }
            };
            let Some(first) = first else { return };
            let batch = self.gather(first);
            self.commit(batch).await;
        }
    }

    /// Takes what waits, up to the size of one short transaction.
    fn gather(&mut self, first: Write) -> Vec<Write> {
        let mut operations = first.operations.len();
        let mut batch = vec![first];
        while operations < store::OPERATIONS_MAX
            && let Ok(next) = self.writes.try_recv()
        {
            operations += next.operations.len();
            batch.push(next);
        }
        batch
    }

    /// One transaction on a thread of its own; after an error the file is opened afresh (see `spool::store`).
    async fn commit(&mut self, batch: Vec<Write>) {
        let (operations, answers): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|write| (write.operations, write.answer)).unzip();
        let (connection, path) = (self.connection.take(), self.path.clone());
        let done = tokio::task::spawn_blocking(move || {
            let opened = match connection {
                Some(connection) => Ok(connection),
                None => sqlite::open_writer(&path, store::MIGRATIONS, store::CACHE_KIB).map_err(ListError::from),
            };
            opened.and_then(|mut connection| {
                let outcomes = store::commit(&mut connection, operations)?;
                Ok((connection, outcomes))
            })
        });
        match done.await.unwrap_or_else(|error| Err(ListError(error.to_string()))) {
            Ok((connection, outcomes)) => {
                self.connection = Some(connection);
                for (answer, outcome) in answers.into_iter().zip(outcomes) {
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                tracing::error!("{error}");
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
                // No busy loop on a disk that fails.
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

impl From<rusqlite::Error> for ListError {
    fn from(error: rusqlite::Error) -> ListError {
        ListError(error.to_string())
    }
}

impl From<sqlite::OpenError> for ListError {
    fn from(error: sqlite::OpenError) -> ListError {
        ListError(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;

    const START: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn open(folder: &Path) -> List {
        let clock = Clock::starting_at(START);
        let (list, writer) = List::open(&folder.join("suppression.sqlite"), clock).unwrap();
        // Ends with the list: nobody can write any more.
        TaskTracker::new().spawn(writer.run(CancellationToken::new()));
        list
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    async fn pass(span: Duration) {
        tokio::time::sleep(span).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_is_found_in_every_spelling() {
        let folder = tempfile::tempdir().unwrap();
        let list = open(folder.path());
        for (added, asked) in [
            ("User@Example.COM", "uSER@example.com"),
            ("a@bücher.example", "A@xn--bcher-kva.example"),
            ("\"plain\"@example.com", "plain@example.com"),
            ("\"with blank\"@example.com", "\"WITH blank\"@example.com"),
            ("jürgen@example.com", "JÜRGEN@example.com"),
        ] {
            assert_eq!(list.check(&mailbox(asked)).unwrap(), None, "{asked}");
            let entry = Entry::new(&mailbox(added), Class::RecipientUnknown, "550 5.1.1 no", Source::Manual, START);
            list.add(entry.clone()).await.unwrap();
            assert_eq!(list.check(&mailbox(asked)).unwrap(), Some(entry), "{asked}");
            assert!(list.remove(&mailbox(asked)).await.unwrap());
            assert!(!list.remove(&mailbox(asked)).await.unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_refusal_holds_ninety_days_and_the_second_until_removed() {
        let folder = tempfile::tempdir().unwrap();
        let list = open(folder.path());
        let user = mailbox("user@example.com");
        let refuse = |at| list.note_refusal(&user, Class::RecipientUnknown, "550 5.1.1 no such user", at);
        let first = refuse(START).await.unwrap();
        assert_eq!((first.hits, first.expires), (1, Some(START + FIRST_KEEP)));
        // Mail that was already under way when the entry came.
        let again = refuse(START + Duration::from_secs(5)).await.unwrap();
        assert_eq!((again.hits, again.expires, again.first), (2, first.expires, START));
        pass(FIRST_KEEP - Duration::from_secs(1)).await;
        assert!(list.check(&user).unwrap().is_some());
        pass(Duration::from_secs(1)).await;
        assert_eq!(list.check(&user).unwrap(), None);
        let second = refuse(START + FIRST_KEEP + Duration::from_secs(9)).await.unwrap();
        assert_eq!((second.hits, second.expires, second.first), (3, None, START));
        pass(FIRST_KEEP * 10).await;
        assert_eq!(list.check(&user).unwrap(), Some(second));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_never_shortens_what_a_person_put_there() {
        let folder = tempfile::tempdir().unwrap();
        let list = open(folder.path());
        let user = mailbox("user@example.com");
        list.add(Entry::new(&user, Class::Other, "asked to", Source::Complaint, START)).await.unwrap();
        let entry = list.note_refusal(&user, Class::RecipientUnknown, "550 no", START).await.unwrap();
        assert_eq!((entry.expires, entry.source, entry.hits), (None, Source::Complaint, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_is_there_after_a_restart_and_for_a_reader_without_a_relay() {
        let folder = tempfile::tempdir().unwrap();
        let user = mailbox("user@example.com");
        let list = open(folder.path());
        list.note_refusal(&user, Class::RecipientDisabled, "550 5.2.1 off", START).await.unwrap();
        drop(list);
        let offline = List::read_only(&folder.path().join("suppression.sqlite"), Clock::starting_at(START)).unwrap();
        assert_eq!(offline.check(&user).unwrap().unwrap().class, Class::RecipientDisabled);
        assert!(offline.remove(&user).await.unwrap_err().to_string().contains("reading alone"));
    }

    #[tokio::test(start_paused = true)]
    async fn lists_take_what_the_filter_says_page_by_page() {
        let folder = tempfile::tempdir().unwrap();
        let list = open(folder.path());
        for (address, class, source) in [
            ("a@x.example", Class::RecipientUnknown, Source::Bounce),
            ("b_1@x.example", Class::MailboxFull, Source::Import),
            ("b%1@y.example", Class::RecipientUnknown, Source::Manual),
            ("c@sub.x.example", Class::RecipientUnknown, Source::Bounce),
        ] {
            list.add(Entry::new(&mailbox(address), class, "x", source, START)).await.unwrap();
        }
        let old = Entry {
            expires: Some(START),
            ..Entry::new(&mailbox("z@x.example"), Class::Other, "x", Source::Bounce, START)
        };
        list.add(old).await.unwrap();
        let found = |filter: Filter| {
            let (mut all, mut after) = (Vec::new(), None::<String>);
            loop {
                let page = list.list(&filter, after.as_deref(), 1).unwrap();
                all.extend(page.entries.into_iter().map(|entry| entry.recipient));
                after = page.next;
                if after.is_none() {
                    return all.join(" ");
                }
            }
        };
        let domain = Some(crate::types::Domain::parse("X.example").unwrap());
        assert_eq!(found(Filter::default()), "a@x.example b%1@y.example b_1@x.example c@sub.x.example");
        assert_eq!(found(Filter { domain, ..Filter::default() }), "a@x.example b_1@x.example");
        assert_eq!(found(Filter { class: Some(Class::MailboxFull), ..Filter::default() }), "b_1@x.example");
        assert_eq!(found(Filter { source: Some(Source::Bounce), ..Filter::default() }), "a@x.example c@sub.x.example");
        assert_eq!(found(Filter { recipient: Some("B%1".into()), ..Filter::default() }), "b%1@y.example");
        assert!(found(Filter { expired: true, ..Filter::default() }).ends_with("z@x.example"));
    }
}
