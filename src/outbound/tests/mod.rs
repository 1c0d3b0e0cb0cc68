//! The client against scripted peers, on in-memory pipes under a paused clock.
//!
//! The dialogues are files in `dialogues/`, each played on pipes of 1, 7 and 65,536 bytes; a new rule is a new file. A
//! file begins with a sentence (`#`), then settings (`to: a@x.test b@x.test`), then what is said: `S:` by the peer, `C:`
//! by us, and `=` what a transaction must have come to. `S: <close>` ends the connection, `S: <silence>` leaves it open
//! and says nothing more. `\r`, `\n`, `\xNN` stand for bytes. QUIT at the end is understood.

mod dialogue;
mod hostile;
mod lifecycle;
mod login;
mod tls;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::options::TlsMode;
use super::*;
use crate::types::{BodyType, Mailbox, Notify, Origin, Priority, ReversePath, Timestamp};

const PIPES: [usize; 3] = [1, 7, 65_536];

/// Gives out the near ends of pipes, in order.
struct Pipes(Mutex<VecDeque<DuplexStream>>);

impl Network for Pipes {
    fn connect<'a>(&'a self, _plan: &'a Plan) -> network::Connecting<'a> {
        let near = self.0.lock().unwrap().pop_front();
        Box::pin(async move {
            near.map(|pipe| Box::new(pipe) as Box<dyn Stream>)
                .ok_or_else(|| std::io::ErrorKind::ConnectionRefused.into())
        })
    }
}

/// A connector with one connection to give, and the far end of it.
fn pipe(size: usize) -> (Connector, DuplexStream) {
    let (near, far) = tokio::io::duplex(size);
    (Connector::new(Arc::new(Pipes(Mutex::new([near].into())))).unwrap(), far)
}

fn plan(tls: TlsMode) -> Plan {
    Plan {
        host: "mx.test".into(),
        address: SocketAddr::from(([192, 0, 2, 1], 25)),
        bind: None,
        helo: "relay.test".into(),
        security: Security { tls, implicit: false, login: None, sts: None, asked_by: "delivery.tls".into() },
        hello: Hello::Full,
        greeting: Duration::from_secs(300),
    }
}

fn envelope() -> Envelope {
    Envelope {
        id: crate::types::QueueId::from_key(1).unwrap(),
        received: Timestamp::from_secs(1),
        sender: ReversePath::parse("s@example.com").unwrap(),
        ret: None,
        envid: None,
        body_type: BodyType::Undeclared,
        smtputf8: false,
        size_bytes: 0,
        message_id: None,
        client: None,
        user: None,
        requests: Default::default(),
        expire: None,
        class: Priority::Normal,
        origin: Origin::Client,
    }
}

fn recipient(address: &str) -> Recipient {
    Recipient { address: Mailbox::parse(address).unwrap(), orcpt: None, notify: Notify::default() }
}

fn transaction(recipients: &[&str], body: Body) -> Transaction {
    let recipients = recipients.iter().map(|address| recipient(address)).collect();
    Transaction { envelope: Arc::new(envelope()), recipients, body, chunking: true, by: None }
}

fn inline(content: impl Into<Vec<u8>>) -> Body {
    Body::Inline(Bytes::from(content.into()))
}

/// Reads one line with its end; what there is, if the stream ends.
async fn read_line(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut line = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        line.push(byte);
        if byte == b'\n' {
            break;
        }
    }
    line
}

/// Reads lines up to one that is `last`; false if the stream ended before.
async fn read_until(stream: &mut (impl tokio::io::AsyncRead + Unpin), last: &[u8]) -> bool {
    loop {
        let line = read_line(stream).await;
        if line == last || line.is_empty() {
            return line == last;
        }
    }
}

async fn say(stream: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8]) {
    // A client that is gone already is judged by what it reports.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
}
