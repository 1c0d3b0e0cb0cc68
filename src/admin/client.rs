//! The commands' end of the control socket: connect, ask, read records.
//!
//! An answer is complete only with its last line: a relay that dies in the middle is an error here, never a short list.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::line::{self, LineError};
use super::protocol::{Last, NOT_UNDERSTOOD, RECORD_MAX, REQUEST_MAX, Request, SOCKET_NAME};
use super::socket::Reach;
use super::suppress::ImportEntry;

/// A relay that runs accepts at once; one that is stopped or overloaded is not waited for.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Lines of an import that are sent at once, in bytes.
const IMPORT_WRITE: usize = 64 << 10;
/// How long the next record may take.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no relay is running with data folder {} (no answer at {SOCKET_NAME}): start `weir run`, or name its configuration with --config",
        .0.display()
    )]
    NoRelay(PathBuf),
    #[error("may not use the control socket in {}: run this as the relay's user or as root", .0.display())]
    Forbidden(PathBuf),
    #[error("cannot reach the control socket in {}", data_dir.display())]
    Connect { data_dir: PathBuf, source: io::Error },
    /// The relay's own words.
    #[error("{0}")]
    Refused(String),
    #[error("the request is longer than {REQUEST_MAX} bytes: name fewer messages, or choose them by a filter")]
    TooLong,
    #[error("the relay ended the connection before its answer was complete: see its log")]
    CutOff,
    #[error("the relay did not answer within {} s: see its log", .0.as_secs())]
    Silent(Duration),
    #[error("the relay's answer is not understood (is it of another version?): {0}")]
    Unreadable(serde_json::Error),
    #[error("a record of the relay is longer than {RECORD_MAX} bytes")]
    RecordTooLong,
    #[error("the connection to the relay broke")]
    Broken(#[from] io::Error),
}

impl ClientError {
    /// Does the relay not know this request, or one of its keys?
    pub fn is_not_understood(&self) -> bool {
        matches!(self, ClientError::Refused(text) if text.starts_with(NOT_UNDERSTOOD))
    }
}

impl From<LineError> for ClientError {
    fn from(error: LineError) -> ClientError {
        match error {
            LineError::TooLong(_) => ClientError::RecordTooLong,
            LineError::CutOff => ClientError::CutOff,
            LineError::Io(error) => ClientError::Broken(error),
        }
    }
}

/// A connection to the relay of a data folder. One request at a time; further ones after the answer is read.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    patience: Duration,
}

impl Client {
    pub async fn connect(data_dir: &Path) -> Result<Client, ClientError> {
        let here = || data_dir.to_path_buf();
        let connect = async {
            let reach = Reach::to(data_dir, SOCKET_NAME)?;
            UnixStream::connect(reach.path()).await
        };
        let stream = match timeout(CONNECT_TIME, connect).await {
            Err(_) => return Err(ClientError::Silent(CONNECT_TIME)),
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NoRelay(here()),
                    io::ErrorKind::PermissionDenied => ClientError::Forbidden(here()),
                    _ => ClientError::Connect { data_dir: here(), source: error },
                });
            }
        };
        let (reader, writer) = stream.into_split();
        Ok(Client { reader: BufReader::new(reader), writer, patience: PATIENCE })
    }

    /// How long the next record may take, where 60 s do not fit.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Client {
        Client { patience, ..self }
    }

    pub async fn ask(&mut self, request: &Request) -> Result<Records<'_>, ClientError> {
        let line = json_line(request)?;
        if line.len() > REQUEST_MAX {
            return Err(ClientError::TooLong);
        }
        timeout(self.patience, self.writer.write_all(line.as_bytes()))
            .await
            .map_err(|_| ClientError::Silent(self.patience))??;
        Ok(Records { reader: &mut self.reader, patience: self.patience })
    }

    /// Asks, and reads the whole answer.
    pub async fn all<T: DeserializeOwned>(&mut self, request: &Request) -> Result<Vec<T>, ClientError> {
        self.ask(request).await?.all().await
    }

    /// Sends `entries` behind `Request::SuppressImport`, and hands over each record of the answer when it comes.
    pub async fn import<T: DeserializeOwned>(
        mut self,
        entries: impl Iterator<Item = ImportEntry>,
        mut each: impl FnMut(T),
    ) -> Result<(), ClientError> {
        let Client { reader, writer, patience } = &mut self;
        let patience = *patience;
        let send = async {
            let mut lines = json_line(&Request::SuppressImport)?;
            for entry in entries {
                if lines.len() >= IMPORT_WRITE {
                    write(writer, &lines, patience).await?;
                    lines.clear();
                }
                lines.push_str(&json_line(&entry)?);
            }
            lines.push_str(&json_line(&Last::END)?);
            write(writer, &lines, patience).await
        };
        let receive = async {
            loop {
                match read_record(line::read(reader, RECORD_MAX).await?)? {
                    Some(record) => each(record),
                    None => return Ok(()),
                }
            }
        };
        let mut receive = std::pin::pin!(receive);
        // The answer is complete behind the last line, or early with the reason why no more lines are wanted.
        tokio::select! {
            biased;
            answer = &mut receive => return answer,
            sent = send => {
                // A relay that ends an import early closes behind its reason: that says more than our failed write.
                if let Err(error) = sent && !matches!(error, ClientError::Broken(_)) {
                    return Err(error);
                }
            }
        }
        timeout(patience, receive).await.map_err(|_| ClientError::Silent(patience))?
    }
}

async fn write(writer: &mut OwnedWriteHalf, lines: &str, patience: Duration) -> Result<(), ClientError> {
    timeout(patience, writer.write_all(lines.as_bytes())).await.map_err(|_| ClientError::Silent(patience))??;
    Ok(())
}

/// The records of one answer.
#[derive(Debug)]
pub struct Records<'a> {
    reader: &'a mut BufReader<OwnedReadHalf>,
    patience: Duration,
}

impl Records<'_> {
    /// The next record; `None` at the end of a complete answer, an error where the relay says why it did not do it.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        let read = timeout(self.patience, line::read(self.reader, RECORD_MAX));
        read_record(read.await.map_err(|_| ClientError::Silent(self.patience))??)
    }

    pub async fn all<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, ClientError> {
        let mut records = Vec::new();
        while let Some(record) = self.next().await? {
            records.push(record);
        }
        Ok(records)
    }
}

fn read_record<T: DeserializeOwned>(line: Option<Vec<u8>>) -> Result<Option<T>, ClientError> {
    let line = line.ok_or(ClientError::CutOff)?;
    let value: serde_json::Value = serde_json::from_slice(&line).map_err(ClientError::Unreadable)?;
    match Last::of(&value) {
        Some(Last::End { .. }) => Ok(None),
        Some(Last::Error { error }) => Err(ClientError::Refused(error)),
        None => serde_json::from_value(value).map(Some).map_err(ClientError::Unreadable),
    }
}

fn json_line(value: &impl serde::Serialize) -> Result<String, ClientError> {
    let mut line = serde_json::to_string(value).map_err(ClientError::Unreadable)?;
    line.push('\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::admin::protocol::Action;
    use crate::admin::record::{Acted, QueueRecord};
    use crate::admin::server::{Answer, Control, Failed, Input, Server};
    use crate::admin::socket::tests::deep;
    use crate::admin::{Filter, Imported, record};
    use crate::types::{Mailbox, QueueId};

    /// A queue of `0` messages and a list that refuses after `1` lines, if that is given.
    struct Fake(u64, Option<u64>);

    impl Control for Fake {
        async fn answer(&self, request: Request, mut input: Input, answer: Answer) -> Result<(), Failed> {
            match request {
                Request::QueueList { filter } => {
                    let record = QueueRecord::of(&record::tests::envelope(), &record::tests::delivery());
                    for _ in 0..self.0.min(filter.limit.unwrap_or(u64::MAX)) {
                        answer.record(&record).await?;
                    }
                    Ok(())
                }
                Request::QueueShow { id } => Err(Failed::new(format!("no message {id} is in the queue"))),
                Request::SuppressImport => {
                    let mut added = 0;
                    while input.next().await.is_some() {
                        added += 1;
                        if self.1 == Some(added) {
                            return Err(Failed::new("the list is full"));
                        }
                        if added % 1000 == 0 {
                            answer.record(&Imported { added, updated: 0 }).await?;
                        }
                    }
                    answer.record(&Imported { added, updated: 0 }).await?;
                    Ok(())
                }
                _ => {
                    answer.record(&Acted { messages: 3, recipients: 4, note: None }).await?;
                    Ok(())
                }
            }
        }
    }

    struct Running {
        folder: tempfile::TempDir,
        data_dir: PathBuf,
        stop: CancellationToken,
        tasks: TaskTracker,
    }

    impl Running {
        fn start(control: Fake, path_is_long: bool) -> Running {
            let folder = tempfile::tempdir().unwrap();
            let data_dir = if path_is_long { deep(folder.path()) } else { folder.path().to_path_buf() };
            let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
            let server = Server::bind(&data_dir).unwrap();
            tasks.spawn(server.serve(Arc::new(control), tasks.clone(), stop.clone()));
            Running { folder, data_dir, stop, tasks }
        }

        async fn client(&self) -> Client {
            Client::connect(&self.data_dir).await.unwrap()
        }

        async fn end(self) {
            self.stop.cancel();
            self.tasks.close();
            self.tasks.wait().await;
            assert!(!self.data_dir.join(SOCKET_NAME).exists(), "the name goes away with the relay");
            drop(self.folder);
        }
    }

    fn entries(count: usize) -> impl Iterator<Item = ImportEntry> {
        (0..count).map(|n| ImportEntry {
            reply: Some("550 5.5.0 no such user".into()),
            ..ImportEntry::of(Mailbox::parse(&format!("user{n}@outlook.com")).unwrap())
        })
    }

    #[tokio::test]
    async fn asks_and_gets_records_however_long_the_path_is() {
        for path_is_long in [false, true] {
            let relay = Running::start(Fake(5000, None), path_is_long);
            let mut client = relay.client().await;
            let list = Request::QueueList { filter: Filter::default() };
            assert_eq!(client.all::<QueueRecord>(&list).await.unwrap().len(), 5000);
            // The same connection serves the next request.
            let act = Request::QueueAct { action: Action::Flush, filter: Filter::default(), progress: false };
            assert_eq!(client.all::<Acted>(&act).await.unwrap()[0].messages, 3);
            relay.end().await;
        }
    }

    #[tokio::test]
    async fn the_relays_refusal_arrives_word_for_word() {
        let relay = Running::start(Fake(0, None), false);
        let id = QueueId::from_key(7).unwrap();
        let error = relay.client().await.all::<QueueRecord>(&Request::QueueShow { id }).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no message {id} is in the queue"));
        relay.end().await;
    }

    #[tokio::test]
    async fn only_the_owner_may_connect_and_a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET_NAME);
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a socket nobody listens on");
        assert!(matches!(Client::connect(folder.path()).await, Err(ClientError::NoRelay(_))));

        let server = Server::bind(folder.path()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        Client::connect(folder.path()).await.unwrap();
        drop(server);
    }

    #[tokio::test]
    async fn without_a_relay_the_error_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let text = Client::connect(folder.path()).await.unwrap_err().to_string();
        assert!(text.starts_with("no relay is running with data folder /"), "{text}");
        assert!(text.contains("start `weir run`"), "{text}");
        let text = Client::connect(&folder.path().join("missing")).await.unwrap_err().to_string();
        assert!(text.starts_with("no relay is running"), "{text}");
    }

    #[tokio::test]
    async fn an_import_arrives_whole() {
        let relay = Running::start(Fake(0, None), false);
        let mut answer: Vec<Imported> = Vec::new();
        relay.client().await.import(entries(20_000), |record| answer.push(record)).await.unwrap();
        assert_eq!(answer.len(), 21, "progress on the way: {answer:?}");
        assert_eq!(answer.last(), Some(&Imported { added: 20_000, updated: 0 }));
        relay.end().await;
    }

    #[tokio::test]
    async fn an_import_that_is_refused_says_why() {
        let relay = Running::start(Fake(0, Some(10)), false);
        let error = relay.client().await.import(entries(20_000), |_: Imported| ()).await.unwrap_err();
        assert_eq!(error.to_string(), "the list is full");
        relay.end().await;
    }

    #[tokio::test]
    async fn a_relay_that_dies_leaves_no_short_list() {
        let folder = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(folder.path().join(SOCKET_NAME)).unwrap();
        let mut client = Client::connect(folder.path()).await.unwrap();
        let mut answer = client.ask(&Request::Status).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"{\"a\":1}\n{\"a\":").await.unwrap();
        drop(stream);
        assert!(answer.next::<serde_json::Value>().await.unwrap().is_some());
        assert!(matches!(answer.next::<serde_json::Value>().await, Err(ClientError::CutOff | ClientError::Broken(_))));
    }

    #[tokio::test]
    async fn too_many_connections_are_turned_away_with_a_reason() {
        let relay = Running::start(Fake(1, None), false);
        let mut clients = Vec::new();
        let act = Request::QueueAct { action: Action::Hold, filter: Filter::default(), progress: true };
        for _ in 0..32 {
            let mut client = relay.client().await;
            client.all::<Acted>(&act).await.unwrap();
            clients.push(client);
        }
        let mut answer = Records { reader: &mut relay.client().await.reader, patience: PATIENCE };
        let error = answer.next::<Acted>().await.unwrap_err().to_string();
        assert!(error.contains("32 control connections"), "{error}");
        relay.end().await;
    }
}
