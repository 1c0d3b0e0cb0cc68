//! The relay's end of the control socket: listens, reads requests, asks a [`Control`], writes its records.
//!
//! Rules that always hold:
//! - the socket appears under its name only when it is ready and readable by its owner alone;
//! - everything has a limit: connections, the length of a line, the time of every read and write, the records in flight;
//! - an answer lives no longer than the client that asked: when that goes, the work for it is dropped at its next `.await`;
//! - a client that reads slowly holds up its own answer and nothing else.

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::line::{self, LineError};
use super::protocol::{Last, NOT_UNDERSTOOD, REQUEST_MAX, Request, SOCKET_NAME};
use super::socket::Reach;
use super::suppress::ImportEntry;

/// Operators, their watches and a container's probe; a script that forgets its connections must not take all files.
const CONNECTIONS_MAX: usize = 32;
/// Connections that the system keeps for us between two calls of accept.
const BACKLOG: i32 = 64;
/// How long a connection may say nothing between requests.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long the next line of an import may take: it may come from a person's terminal.
const IMPORT_LINE_TIME: Duration = Duration::from_secs(600);
/// How long one write may take before the client counts as gone.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Records between a `Control` and the socket.
const RECORDS_IN_FLIGHT: usize = 64;
/// Pause after a failed accept (out of files, say), so that it does not turn into a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers the requests. The implementation knows the relay; the server knows nothing of it.
pub trait Control: Send + Sync + 'static {
    /// Sends the records of the answer and returns; an error ends the answer with its text. `input` has lines for
    /// `Request::SuppressImport` alone.
    fn answer(&self, request: Request, input: Input, answer: Answer)
    -> impl Future<Output = Result<(), Failed>> + Send;
}

/// Why a request was not done: one line for a person, with what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

impl Failed {
    pub fn new(text: impl Into<String>) -> Failed {
        Failed(text.into())
    }
}

/// The client is gone: nobody reads any more records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub struct Gone;

impl From<Gone> for Failed {
    fn from(gone: Gone) -> Failed {
        Failed(gone.to_string())
    }
}

/// Where the records of an answer go. Waits while the client is behind.
#[derive(Clone, Debug)]
pub struct Answer(mpsc::Sender<String>);

impl Answer {
    /// An answer and its lines, for a `Control` that is asked without a socket.
    pub fn channel() -> (Answer, mpsc::Receiver<String>) {
        let (sender, lines) = mpsc::channel(RECORDS_IN_FLIGHT);
        (Answer(sender), lines)
    }

    pub async fn record(&self, record: &impl Serialize) -> Result<(), Gone> {
        // Our records are structs with names for keys: writing them to a string cannot fail.
        let line = serde_json::to_string(record).map_err(|_| Gone)?;
        self.0.send(line).await.map_err(|_| Gone)
    }
}

/// The lines of an import.
#[derive(Debug)]
pub struct Input(mpsc::Receiver<ImportEntry>);

impl Input {
    /// An input and what feeds it, for a `Control` that is asked without a socket.
    pub fn channel() -> (mpsc::Sender<ImportEntry>, Input) {
        let (sender, entries) = mpsc::channel(RECORDS_IN_FLIGHT);
        (sender, Input(entries))
    }

    /// The next entry; `None` after the last. A client that goes away ends the whole answer instead.
    pub async fn next(&mut self) -> Option<ImportEntry> {
        self.0.recv().await
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot make the control socket {}: is the folder there and writable for this user?", path.display())]
pub struct BindError {
    path: PathBuf,
    source: io::Error,
}

/// The listening socket. Its name goes away with it.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens in `data_dir`, whose lock the caller holds: a socket that lies there belongs to no running relay and is
    /// replaced. To be called inside a tokio runtime.
    pub fn bind(data_dir: &Path) -> Result<Server, BindError> {
        let path = data_dir.join(SOCKET_NAME);
        match listen(data_dir) {
            Ok(listener) => Ok(Server { listener, path }),
            Err(source) => Err(BindError { path, source }),
        }
    }

    /// Answers until `stop`. Connections run in `tasks` and end with `stop` as well.
    pub async fn serve<C: Control>(self, control: Arc<C>, tasks: TaskTracker, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                turn_away(&stream);
                continue;
            };
            let (control, stop) = (Arc::clone(&control), stop.clone());
            tasks.spawn(async move {
                let (reader, writer) = stream.into_split();
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    end = converse(BufReader::new(reader), BufWriter::new(writer), &*control) => {
                        if let Err(error) = end {
                            tracing::debug!(%error, "control connection ended");
                        }
                    }
                }
                drop(place);
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The lock of the data folder is still held: the name is ours. If it cannot be removed the next start replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Binds under another name, closes the socket to other users, listens, and only then gives it its name: nobody can
/// connect before the mode is right, and a stale socket is replaced in one step.
fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;

    let fresh_name = format!("{SOCKET_NAME}.new");
    let fresh = Reach::to(data_dir, &fresh_name)?;
    match std::fs::remove_file(fresh.path()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    socket.bind(&socket2::SockAddr::unix(fresh.path())?)?;
    std::fs::set_permissions(fresh.path(), std::fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    std::fs::rename(data_dir.join(&fresh_name), data_dir.join(SOCKET_NAME))?;
    UnixListener::from_std(std::os::unix::net::UnixListener::from(std::os::fd::OwnedFd::from(socket)))
}

/// One line into the socket's buffer, which is empty: it fits or the client is gone.
fn turn_away(stream: &UnixStream) {
    let last =
        Last::Error { error: format!("the relay already serves {CONNECTIONS_MAX} control connections: try again") };
    let _ = stream.try_write(last_line(&last).as_bytes());
}

fn last_line(last: &Last) -> String {
    let mut line = serde_json::to_string(last).unwrap_or_else(|_| r#"{"error":"no answer"}"#.to_string());
    line.push('\n');
    line
}

/// Why a connection ends other than by its client's wish.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("the client left before its answer was complete")]
    Left,
    #[error("the client was silent, or did not read, for too long")]
    Slow,
    /// The client is told.
    #[error("{0}")]
    Misuse(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<LineError> for Broken {
    fn from(error: LineError) -> Broken {
        match error {
            LineError::TooLong(_) => Broken::Misuse(format!("the request is too long: {error}")),
            LineError::CutOff => Broken::Left,
            LineError::Io(error) => Broken::Io(error),
        }
    }
}

/// Request, answer, and so on until the client closes.
async fn converse<R, W, C>(mut reader: R, mut writer: W, control: &C) -> Result<(), Broken>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
    C: Control,
{
    loop {
        let end = exchange(&mut reader, &mut writer, control).await;
        if let Err(Broken::Misuse(text)) = &end {
            write(&mut writer, &last_line(&Last::Error { error: text.clone() })).await?;
            flush(&mut writer).await?;
        }
        if !end? {
            return Ok(());
        }
    }
}

/// One request and its answer. False: it was the last one of this connection.
async fn exchange<R, W, C>(reader: &mut R, writer: &mut W, control: &C) -> Result<bool, Broken>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
    C: Control,
{
    let Some(line) = timeout(IDLE_MAX, line::read(reader, REQUEST_MAX)).await.map_err(|_| Broken::Slow)?? else {
        return Ok(false);
    };
    let request = Request::read(&line)
        .map_err(|error| Broken::Misuse(format!("{NOT_UNDERSTOOD} (is it of another version?): {error}")))?;
    let imports = request == Request::SuppressImport;
    let (feed, input) = Input::channel();
    let (answer, records) = Answer::channel();
    let outcome = {
        let work = control.answer(request, input, answer);
        let incoming = incoming(reader, imports.then_some(feed));
        relay(work, incoming, records, writer).await?
    };
    let last = match outcome {
        Ok(()) => Last::END,
        Err(Failed(error)) => Last::Error { error },
    };
    write(writer, &last_line(&last)).await?;
    flush(writer).await?;
    // Lines of an import may be left unread when it ended early: they must not be taken for requests.
    Ok(!imports)
}

/// Runs `work`, writes what it answers, and gives up when the client goes.
async fn relay<W: AsyncWrite + Unpin>(
    work: impl Future<Output = Result<(), Failed>>,
    incoming: impl Future<Output = Result<(), Broken>>,
    mut records: mpsc::Receiver<String>,
    writer: &mut W,
) -> Result<Result<(), Failed>, Broken> {
    let (mut work, mut incoming) = (pin!(work), pin!(incoming));
    let mut watching = true;
    let outcome = loop {
        tokio::select! {
            biased;
            Some(record) = records.recv() => write_record(writer, record, records.is_empty()).await?,
            outcome = &mut work => break outcome,
            end = &mut incoming, if watching => {
                end?;
                watching = false;
            }
        }
    };
    records.close();
    while let Some(record) = records.recv().await {
        write_record(writer, record, false).await?;
    }
    Ok(outcome)
}

/// Feeds an import, then waits for the client to go (an error). Ends well where the client sent its next request early.
async fn incoming<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    feed: Option<mpsc::Sender<ImportEntry>>,
) -> Result<(), Broken> {
    if let Some(feed) = feed {
        import(reader, feed).await?;
    }
    if reader.fill_buf().await?.is_empty() { Err(Broken::Left) } else { Ok(()) }
}

async fn import<R: AsyncBufRead + Unpin>(reader: &mut R, feed: mpsc::Sender<ImportEntry>) -> Result<(), Broken> {
    loop {
        let read = timeout(IMPORT_LINE_TIME, line::read(reader, REQUEST_MAX)).await.map_err(|_| Broken::Slow)??;
        let line = read.ok_or(Broken::Left)?;
        let Some(entry) = import_line(&line)? else { return Ok(()) };
        if feed.send(entry).await.is_err() {
            // Whoever answers wants no more lines; it will say why.
            return std::future::pending().await;
        }
    }
}

/// One line of an import; none for the last.
fn import_line(line: &[u8]) -> Result<Option<ImportEntry>, Broken> {
    // Millions of lines are entries, and one is not.
    let fault = match serde_json::from_slice(line) {
        Ok(entry) => return Ok(Some(entry)),
        Err(fault) => fault,
    };
    let value: serde_json::Value =
        serde_json::from_slice(line).map_err(|error| Broken::Misuse(format!("a line of the import: {error}")))?;
    match Last::of(&value) {
        Some(Last::End { .. }) => Ok(None),
        Some(Last::Error { error }) => Err(Broken::Misuse(format!("the import was broken off: {error}"))),
        None => Err(Broken::Misuse(format!("a line of the import is no entry: {fault}"))),
    }
}

async fn write_record<W: AsyncWrite + Unpin>(writer: &mut W, mut record: String, last: bool) -> Result<(), Broken> {
    record.push('\n');
    write(writer, &record).await?;
    if last { flush(writer).await } else { Ok(()) }
}

async fn write<W: AsyncWrite + Unpin>(writer: &mut W, line: &str) -> Result<(), Broken> {
    timeout(WRITE_TIME, writer.write_all(line.as_bytes())).await.map_err(|_| Broken::Slow)?.map_err(Broken::Io)
}

async fn flush<W: AsyncWrite + Unpin>(writer: &mut W) -> Result<(), Broken> {
    timeout(WRITE_TIME, writer.flush()).await.map_err(|_| Broken::Slow)?.map_err(Broken::Io)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::types::{Mailbox, QueueId};

    /// Answers each request with its own kind of behaviour.
    struct Fake;

    impl Control for Fake {
        async fn answer(&self, request: Request, mut input: Input, answer: Answer) -> Result<(), Failed> {
            match request {
                Request::Status => {
                    for number in 0..1000 {
                        answer.record(&serde_json::json!({ "number": number })).await?;
                    }
                    Ok(())
                }
                Request::SuppressImport => {
                    let mut count = 0;
                    while input.next().await.is_some() {
                        count += 1;
                    }
                    answer.record(&serde_json::json!({ "added": count })).await?;
                    Ok(())
                }
                Request::Outcome { .. } => std::future::pending().await,
                other => Err(Failed::new(format!("not today: {other:?}"))),
            }
        }
    }

    /// What comes back when the client writes `text` and goes on reading.
    async fn talk(text: &str, pipe_bytes: usize) -> (String, Result<(), Broken>) {
        let (client, server) = duplex(pipe_bytes);
        let (read, write) = tokio::io::split(server);
        let (mut answers, mut requests) = tokio::io::split(client);
        let text = text.to_string();
        let ask = async move {
            let _ = requests.write_all(text.as_bytes()).await;
            // As a client does: it leaves when it has its answer, here as soon as the server has read everything.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = requests.shutdown().await;
        };
        let serve = async move {
            let (mut read, mut write) = (BufReader::new(read), write);
            let end = converse(&mut read, &mut write, &Fake).await;
            let _ = write.shutdown().await;
            end
        };
        let mut text = String::new();
        let ((), end, _) = tokio::join!(ask, serve, answers.read_to_string(&mut text));
        (text, end)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_answered_in_turn_on_any_pipe() {
        for pipe_bytes in [1, 7, 65_536] {
            let (text, end) = talk("{\"do\":\"status\"}\n{\"do\":\"health\"}\n", pipe_bytes).await;
            end.unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines.len(), 1002);
            assert_eq!(
                (lines[0], lines[999], lines[1000]),
                (r#"{"number":0}"#, r#"{"number":999}"#, r#"{"end":true}"#)
            );
            assert!(lines[1001].starts_with(r#"{"error":"not today"#), "{}", lines[1001]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_none_ends_the_connection_with_a_reason() {
        for request in ["{\"do\":\"explode\"}\n".to_string(), "hello\n".into(), "x".repeat(REQUEST_MAX + 2)] {
            let (text, end) = talk(&request, 65_536).await;
            assert!(text.starts_with(r#"{"error":"#), "{text}");
            assert!(matches!(end, Err(Broken::Misuse(_))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_import_streams_its_lines() {
        let entry = |n: usize| format!("{{\"recipient\":\"user{n}@outlook.com\"}}\n");
        let lines: String = (0..500).map(entry).collect();
        for pipe_bytes in [1, 65_536] {
            let (text, end) =
                talk(&format!("{{\"do\":\"suppress-import\"}}\n{lines}{{\"end\":true}}\n"), pipe_bytes).await;
            end.unwrap();
            assert_eq!(text, "{\"added\":500}\n{\"end\":true}\n");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_import_that_is_cut_off_is_not_finished() {
        let (text, end) = talk("{\"do\":\"suppress-import\"}\n{\"recipient\":\"a@outlook.com\"}\n", 65_536).await;
        assert!(matches!(end, Err(Broken::Left)), "{end:?}");
        assert_eq!(text, "");
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_when_its_client_goes() {
        let id = QueueId::from_key(1).unwrap();
        let request = serde_json::to_string(&Request::Outcome { id, wait_ms: 600_000 }).unwrap();
        let (text, end) = talk(&format!("{request}\n"), 65_536).await;
        assert!(matches!(end, Err(Broken::Left)), "{end:?}");
        assert_eq!(text, "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_let_go() {
        let (client, server) = duplex(64);
        let (mut read, mut write) = tokio::io::split(server);
        let end = converse(BufReader::new(&mut read), &mut write, &Fake).await;
        assert!(matches!(end, Err(Broken::Slow)), "{end:?}");
        drop(client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_let_go() {
        let (mut client, server) = duplex(64);
        client.write_all(b"{\"do\":\"status\"}\n").await.unwrap();
        let (mut read, mut write) = tokio::io::split(server);
        let end = converse(BufReader::new(&mut read), &mut write, &Fake).await;
        assert!(matches!(end, Err(Broken::Slow)), "{end:?}");
        drop(client);
    }

    #[tokio::test]
    async fn a_control_can_be_asked_without_a_socket() {
        let (feed, input) = Input::channel();
        let (answer, mut lines) = Answer::channel();
        let entry = ImportEntry::of(Mailbox::parse("a@outlook.com").unwrap());
        feed.send(entry).await.unwrap();
        drop(feed);
        Fake.answer(Request::SuppressImport, input, answer).await.unwrap();
        assert_eq!(lines.recv().await.unwrap(), r#"{"added":1}"#);
    }
}
