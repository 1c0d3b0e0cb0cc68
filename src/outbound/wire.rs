//! One connection's bytes: commands out, replies in, both at once, each within a time limit.
//!
//! - While a reply is awaited, whatever is queued is being written, and while content is being written, what the peer
//!   says is being read: two sides that fill their buffers never wait for each other.
//! - A write that fails is no end: what the peer said before it closed is still read. Only the end of its side is one.
//! - When the relay stops nothing is waited for any more, but for what the peer says to a message that it has as a whole. Where the
//!   message went in one flight and the peer is still at its envelope, that is a short wait.
//! - `is_sent` is true only when the last queued byte was handed to the system, through TLS as well.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustls::CommonState;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{Connect, TlsConnector};
use tokio_util::sync::CancellationToken;

use super::network::{Socket, Stream};
use super::reply::ReplyReader;
use super::tls;
use crate::types::{Reply, Span};

/// One read of replies: more than a flight's replies fill in ordinary traffic.
const INPUT_BYTES: usize = 4 * 1024;
/// An output buffer larger than this is given back when its content is sent: most connections are idle most of the time.
const OUTPUT_KEPT_MAX: usize = 8 * 1024;

/// How long a stop waits for a peer that has the whole message and does not answer its envelope: most such peers hang, and
/// one that goes on later makes a second copy of the message.
const HURRIED: Duration = Duration::from_secs(2);

pub(super) struct Wire {
    transport: Transport,
    reader: ReplyReader,
    input: Box<[u8]>,
    /// The part of `input` that was received and not read yet.
    unread: std::ops::Range<usize>,
    output: Vec<u8>,
    written: usize,
    flushed: bool,
    write_error: Option<String>,
    end: End,
    stop: CancellationToken,
    holds: Holds,
}

/// What the peer has of a message once all that was appended is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Not its end: it cannot be taken.
    Part,
    /// All of it, and nothing is said yet of those it is for.
    Unanswered,
    /// All of it, and nothing but the answer to it is missing.
    All,
}

/// How far the peer's side is from its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Closed,
    /// Broken off: what was on its way to the peer was not read.
    Broken,
}

enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Wire {
    /// `stop`: nothing is begun and nothing unfinished waited for any more.
    pub(super) fn new(stream: Box<dyn Stream>, stop: CancellationToken) -> Wire {
        Wire::over(Transport::Plain(Socket::new(stream)), stop)
    }

    fn over(transport: Transport, stop: CancellationToken) -> Wire {
        Wire {
            transport,
            reader: ReplyReader::new(),
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            unread: 0..0,
            output: Vec::new(),
            written: 0,
            flushed: true,
            write_error: None,
            end: End::Open,
            stop,
            holds: Holds::Part,
        }
    }

    pub(super) fn local_address(&self) -> Option<SocketAddr> {
        match &self.transport {
            Transport::Plain(socket) => socket.local_address(),
            Transport::Tls(stream) => stream.get_ref().0.local_address(),
        }
    }

    /// Where what is to be sent is appended. It goes out with the next `reply` or `send`.
    pub(super) fn output(&mut self) -> &mut Vec<u8> {
        self.flushed = false;
        &mut self.output
    }

    /// As `output`, for commands: the log shows them at `weir::outbound=debug`.
    pub(super) fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let before = self.output.len();
        write(self.output());
        tracing::debug!("C: {}", String::from_utf8_lossy(&self.output[before..]).trim_end());
    }

    /// As `say`, for what nobody may read: the log shows `shown` in its place.
    pub(super) fn say_secret(&mut self, shown: &str, write: impl FnOnce(&mut Vec<u8>)) {
        write(self.output());
        tracing::debug!("C: {shown}");
    }

    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// Bytes appended and not yet taken by the system.
    pub(super) fn unsent(&self) -> usize {
        self.output.len() - self.written
    }

    pub(super) fn is_sent(&self) -> bool {
        self.unsent() == 0 && self.flushed && self.write_error.is_none()
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end != End::Open
    }

    /// Did it end before all that was written was read? A system resets a connection that is closed with something unread.
    pub(super) fn was_broken_off(&self) -> bool {
        self.end == End::Broken || !self.is_sent()
    }

    /// Bytes were received that no reply has used up.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty() || self.reader.is_within_reply()
    }

    /// The next reply, within `limit` from now. An error says what happened instead, and ends the connection.
    pub(super) async fn reply(&mut self, limit: Duration) -> Result<Reply, String> {
        let (mut stopped, mut hurried) = (pin!(stopped(self.stop.clone())), pin!(hurried(self.stop.clone())));
        let reply = poll_fn(|cx| self.unless_stopped(cx, stopped.as_mut(), hurried.as_mut(), Wire::poll_reply));
        match timeout(limit, reply).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {}", Span(limit))),
        }
    }

    /// Writes all that was appended, within `limit`. A reply that comes earlier ends the wait and is returned.
    pub(super) async fn send(&mut self, limit: Duration) -> Result<Option<Reply>, String> {
        let (mut stopped, mut hurried) = (pin!(stopped(self.stop.clone())), pin!(hurried(self.stop.clone())));
        let sent = poll_fn(|cx| self.unless_stopped(cx, stopped.as_mut(), hurried.as_mut(), Wire::poll_send));
        match timeout(limit, sent).await {
            Ok(result) => result,
            Err(_) => Err(format!("the peer took no more data within {}", Span(limit))),
        }
    }

    /// What `poll` waits for, or the stop, where that may end the wait.
    fn unless_stopped<T>(
        &mut self,
        cx: &mut Context<'_>,
        stopped: Pin<&mut impl Future<Output = ()>>,
        hurried: Pin<&mut impl Future<Output = ()>>,
        poll: impl FnOnce(&mut Wire, &mut Context<'_>) -> Poll<Result<T, String>>,
    ) -> Poll<Result<T, String>> {
        if let Poll::Ready(result) = poll(self, cx) {
            return Poll::Ready(result);
        }
        match self.holds {
            Holds::All if self.is_sent() => return Poll::Pending,
            Holds::Unanswered if self.is_sent() => ready!(hurried.poll(cx)),
            _ => ready!(stopped.poll(cx)),
        }
        Poll::Ready(Err("the relay is stopping".into()))
    }

    /// Tells what was appended; the wire cannot know.
    pub(super) fn set_holds(&mut self, holds: Holds) {
        self.holds = holds;
    }

    /// What the peer has said or done by now, without waiting.
    pub(super) fn said(&mut self) -> Option<Result<Reply, String>> {
        match self.poll_reply(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// Reads and drops what comes until the peer has closed its side.
    pub(super) async fn closed(&mut self) {
        poll_fn(|cx| {
            self.poll_write_out(cx);
            loop {
                self.unread = 0..0;
                match ready!(self.poll_fill(cx)) {
                    Ok(()) if !self.unread.is_empty() => {}
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
    }

    pub(super) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply, String>> {
        // Writes come first: so a reply to what was just written is never seen before the write is known.
        self.poll_write_out(cx);
        loop {
            if let Some(result) = self.parse() {
                return Poll::Ready(result);
            }
            ready!(self.poll_fill(cx))?;
            if self.unread.is_empty() {
                return Poll::Ready(Err(self.end()));
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Reply>, String>> {
        self.poll_write_out(cx);
        if self.is_sent() {
            return Poll::Ready(Ok(None));
        }
        self.poll_reply(cx).map_ok(Some)
    }

    /// Writes as much as goes; an error is kept.
    fn poll_write_out(&mut self, cx: &mut Context<'_>) {
        if self.write_error.is_some() || self.is_sent() {
            return;
        }
        let error = loop {
            let rest = self.output.get(self.written..).unwrap_or_default();
            let result = if rest.is_empty() {
                self.transport.pin().poll_flush(cx).map_ok(|()| None)
            } else {
                self.transport.pin().poll_write(cx, rest).map_ok(Some)
            };
            match result {
                Poll::Pending => return,
                Poll::Ready(Ok(None)) => return self.all_written(),
                Poll::Ready(Ok(Some(0))) => break io::ErrorKind::WriteZero.into(),
                Poll::Ready(Ok(Some(count))) => self.written += count,
                Poll::Ready(Err(error)) => break error,
            }
        };
        self.write_error = Some(error.to_string());
    }

    fn all_written(&mut self) {
        self.flushed = true;
        self.written = 0;
        self.output.clear();
        self.output.shrink_to(OUTPUT_KEPT_MAX);
    }

    fn parse(&mut self) -> Option<Result<Reply, String>> {
        let (taken, reply) = self.reader.read(self.input.get(self.unread.clone())?);
        self.unread.start += taken;
        if let Some(Ok(reply)) = &reply {
            tracing::debug!("S: {reply}");
        }
        reply.map(|result| result.map_err(|e| e.to_string()))
    }

    /// Reads once; nothing unread afterwards means that the peer has closed.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        let mut buffer = ReadBuf::new(&mut self.input);
        match ready!(self.transport.pin().poll_read(cx, &mut buffer)) {
            Ok(()) => self.unread = 0..buffer.filled().len(),
            // TLS without its farewell: many servers just close.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => self.unread = 0..0,
            Err(e) => {
                self.end = End::Broken;
                return Poll::Ready(Err(e.to_string()));
            }
        }
        if self.unread.is_empty() {
            self.end = End::Closed;
        }
        Poll::Ready(Ok(()))
    }

    fn end(&self) -> String {
        let place = if self.reader.is_within_reply() { " in the middle of a reply" } else { "" };
        match &self.write_error {
            Some(error) => format!("connection closed by the peer{place} ({error})"),
            None => format!("connection closed by the peer{place}"),
        }
    }

    /// The TLS handshake. Nothing that was received in clear text survives it.
    pub(super) fn start_tls(self, connector: &TlsConnector, name: ServerName<'static>) -> Handshake {
        match self.transport {
            Transport::Plain(socket) => Handshake(connector.connect(name, socket), self.stop),
            Transport::Tls(_) => unreachable!("TLS is started once, on a plain connection"),
        }
    }
}

/// A handshake under way. Dropped, it ends the connection.
pub(super) struct Handshake(Connect<Socket>, CancellationToken);

impl Handshake {
    /// The encrypted connection and its description; why not, and whether a smaller hello may mend it.
    pub(super) async fn finish(
        self,
        limit: Duration,
        describe: impl FnOnce(&CommonState) -> String,
    ) -> Result<(Wire, String), (String, bool)> {
        match timeout(limit, self.0).await {
            Ok(Ok(stream)) => {
                let description = describe(stream.get_ref().1);
                Ok((Wire::over(Transport::Tls(Box::new(stream)), self.1), description))
            }
            Ok(Err(error)) => Err((error.to_string(), tls::may_be_size(&error))),
            Err(_) => Err((format!("not finished within {}", Span(limit)), true)),
        }
    }
}

async fn stopped(stop: CancellationToken) {
    stop.cancelled().await;
}

async fn hurried(stop: CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(HURRIED).await;
}

trait Bytes: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Bytes for T {}

impl Transport {
    fn pin(&mut self) -> Pin<&mut dyn Bytes> {
        match self {
            Transport::Plain(socket) => Pin::new(socket),
            Transport::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }
}
