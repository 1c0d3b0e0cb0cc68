//! An open connection to one MX host: what is known about the peer, idle time, and the end.
//!
//! The receiver counts a connection until its socket is closed, so `close` returns only then: the permit behind the
//! connection may be given back at once. Transactions are in `transaction`.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Bdat;
use super::capabilities::Capabilities;
use super::command;
use super::connector::Timeouts;
use super::lowered::{Anew, Lowered};
use super::wire::{Holds, Wire};
use crate::types::Reply;

/// How long a peer has for its good-bye when the relay stops.
const HURRIED_QUIT: Duration = Duration::from_millis(500);

pub struct Connection {
    pub(super) wire: Wire,
    pub(super) host: Arc<str>,
    pub(super) peer: SocketAddr,
    pub(super) tls: Option<Arc<str>>,
    pub(super) greeting: Reply,
    pub(super) ehlo: Reply,
    pub(super) capabilities: Capabilities,
    pub(super) timeouts: Timeouts,
    /// What is known of the present transaction's BDAT.
    pub(super) bdat: Bdat,
    pub(super) state: State,
    pub(super) stop: CancellationToken,
    pub(super) anew: Option<Arc<dyn Anew>>,
    /// How the present transaction's content is sent to a peer without 8BITMIME, if it has eight bits.
    pub(super) lowered: Option<Lowered>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The next command may be MAIL.
    Ready,
    /// A transaction was begun and not carried to its end: RSET comes first.
    Unfinished,
    /// The peer said that it closes (421).
    Closing,
    /// Broken, out of step, or in the middle of content: nothing may be sent any more.
    Lost,
}

impl Connection {
    pub fn host(&self) -> &Arc<str> {
        &self.host
    }

    pub fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    pub fn local_address(&self) -> Option<SocketAddr> {
        self.wire.local_address()
    }

    /// `TLSv1.3 TLS_AES_256_GCM_SHA384 X25519MLKEM768 verified`; none: clear text.
    pub fn tls(&self) -> Option<&Arc<str>> {
        self.tls.as_ref()
    }

    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// What the peer said first; some tell the time.
    pub fn greeting(&self) -> &Reply {
        &self.greeting
    }

    /// The answer to the last EHLO or HELO: many receivers name the address they see us at.
    pub fn ehlo(&self) -> &Reply {
        &self.ehlo
    }

    /// Another transaction may be tried.
    pub fn is_reusable(&self) -> bool {
        matches!(self.state, State::Ready | State::Unfinished)
    }

    /// Waits until the peer says something or closes although nothing was asked, and returns its words (`421 4.4.2 idle
    /// too long`) or what happened, for people. The connection is not reusable then. May be dropped at any time without loss.
    pub async fn idle(&mut self) -> String {
        let said = poll_fn(|cx| self.wire.poll_reply(cx)).await;
        self.note_unasked(&said);
        match said {
            Ok(reply) => reply.to_string(),
            Err(text) => self.tell(&text),
        }
    }

    /// Has the peer spoken or closed while the connection was idle? Looks, does not wait.
    pub fn is_stale(&mut self) -> bool {
        if self.is_reusable()
            && let Some(said) = self.wire.said()
        {
            self.note_unasked(&said);
        }
        !self.is_reusable()
    }

    /// Says QUIT where that makes sense and gives the peer a moment (`Timeouts::quit`) to close; resets the connection
    /// if it does not. When this returns the socket is closed.
    pub async fn close(self) {
        if self.state == State::Lost {
            return;
        }
        let (limit, says_quit) = (self.timeouts.quit, self.is_reusable());
        quit(self.wire, limit, says_quit, &self.stop).await;
    }

    pub(super) fn note_unasked(&mut self, said: &Result<Reply, String>) {
        self.state = match said {
            Ok(reply) if reply.code() == 421 => State::Closing,
            _ => State::Lost,
        };
    }

    /// `text` with the peer's name and address.
    pub(super) fn tell(&self, text: &str) -> String {
        format!("{} [{}]: {text}", self.host, self.peer.ip())
    }
}

/// The polite end, within `limit` in all. The drop of the wire closes what is left then.
pub(super) async fn quit(mut wire: Wire, limit: Duration, says_quit: bool, stop: &CancellationToken) {
    wire.set_holds(Holds::All);
    let farewell = async {
        if says_quit {
            wire.say(|out| command::line(out, &["QUIT"]));
            if wire.reply(limit).await.is_err() {
                return;
            }
        }
        wire.closed().await;
    };
    let hurry = async {
        stop.cancelled().await;
        tokio::time::sleep(HURRIED_QUIT).await;
    };
    tokio::select! {
        biased;
        _ = tokio::time::timeout(limit, farewell) => {}
        () = hurry => {}
    }
}
