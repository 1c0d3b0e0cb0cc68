//! Outbound: the client side of SMTP. Knows how to open a connection and hold a transaction; decides nothing.
//!
//! `Connector::open` follows a `Plan` to a `Connection`; `Connection::transact` hands one message over and reports what
//! the receiver said; `Connection::close` ends it. Whether, when and where something is tried again is the business of
//! dispatch. A 4xx or 5xx is no error here but an answer.

mod capabilities;
mod command;
mod connection;
mod connector;
mod content;
mod ledger;
mod login;
mod lowered;
pub mod network;
pub mod options;
pub mod reply;
pub mod roots;
pub mod tls;
mod transaction;
mod wire;

#[cfg(test)]
mod tests;

pub use capabilities::Capabilities;
pub use connection::Connection;
pub use connector::{Connector, Timeouts};
pub use lowered::{Anew, Signature};
pub use network::{Network, Stream, Tcp};
pub use transaction::ONE_FLIGHT_BYTES_MAX;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::types::{Body, DeliverBy, Envelope, Login, Recipient, Reply, Stage, StsMode};

/// Where and how to connect: one address of one MX host.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The host's name (for TLS and the log), or the literal.
    pub host: Arc<str>,
    pub address: SocketAddr,
    /// The local address to bind, none: the system chooses.
    pub bind: Option<IpAddr>,
    pub helo: Arc<str>,
    pub security: Security,
    /// How much of TLS an earlier try has left.
    pub hello: Hello,
    /// How long the greeting is waited for; less than the five minutes of RFC 5321 section 4.5.3.2.1 under need alone.
    pub greeting: Duration,
}

/// What is offered to a host where TLS is spoken. Where one fails, the next may be tried on a new connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hello {
    /// With a key that quantum computers do not break (X25519MLKEM768): larger than a packet.
    #[default]
    Full,
    /// Without it.
    Small,
    /// No TLS at all; in opportunistic mode alone.
    Clear,
}

/// What a connection has to be before mail goes over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    pub tls: options::TlsMode,
    /// TLS from the first octet, without STARTTLS (RFC 8314 section 3.3).
    pub implicit: bool,
    /// Who we say we are (RFC 4954).
    pub login: Option<Arc<Login>>,
    /// What an MTA-STS policy makes of it; `tls` says what that takes.
    pub sts: Option<StsMode>,
    /// The key that asks for it, for people.
    pub asked_by: Arc<str>,
}

/// Why no connection came to be.
#[derive(Clone, Debug)]
pub struct OpenError {
    pub stage: OpenStage,
    /// What the receiver said, if a 4xx or 5xx reply ended it.
    pub reply: Option<Reply>,
    /// For people: `connect to 192.0.2.1:25: connection refused`.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenStage {
    /// Nothing was tried, or it was given up: this process may open no more, the system has no memory for it, or the relay
    /// stops. No fault of the receiver's.
    Ours,
    /// No TCP connection: refused, unreachable.
    Connect,
    ConnectTimeout,
    /// The greeting: a reply other than 220, silence, or an end.
    Greeting,
    /// EHLO and HELO refused, silence, an end; or someone tampers with STARTTLS (RFC 3207 section 5), which is no reason
    /// for clear text.
    Ehlo,
    /// STARTTLS not offered where it is asked for, or refused; a certificate or a version that will not do. In opportunistic mode a
    /// new connection in clear text may be tried.
    Tls,
    /// The handshake broke off: a smaller hello may do.
    Handshake,
    /// We were not let in: our log-in was refused, or there is no way to log in that weir knows. It is about us, whatever the
    /// code, and the other addresses of the hop would say the same.
    Login,
}

/// One message for recipients of one domain.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub envelope: Arc<Envelope>,
    pub recipients: Vec<Recipient>,
    pub body: Body,
    /// BDAT may be used where the peer offers it (RFC 3030).
    pub chunking: bool,
    /// What is left of the time by which the message is to be delivered (RFC 2852).
    pub by: Option<DeliverBy>,
}

/// What became of a transaction.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each recipient, in their order.
    pub outcomes: Vec<Outcome>,
    /// The connection can take another transaction.
    pub reusable: bool,
    /// The peer offered DSN, so it makes the SUCCESS reports itself.
    pub dsn: bool,
    /// The peer offered DELIVERBY, so it was told the time.
    pub deliver_by: bool,
    pub bdat: Bdat,
}

impl Report {
    /// No recipient was accepted or refused, and nobody can have got it.
    pub fn says_nothing(&self) -> bool {
        self.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Unsaid { .. }))
    }
}

/// How the peer took BDAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bdat {
    /// It was not used, or what came says nothing about it.
    #[default]
    Untold,
    Taken,
    /// It offers what it does not know (500, 502, 503, 504): the message may go by DATA.
    Refused,
    /// It took the envelope and broke the connection off at BDAT, without having read the content.
    Lost,
    /// The connection ended somewhere in a flight with BDAT.
    Suspect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver's reply that decides for this recipient, and the stage at which it came.
    Replied { stage: Stage, reply: Reply },
    /// Nothing was said about this recipient: the connection ended before. Counts no attempt if nothing of the message was refused.
    Unsaid { stage: Stage, text: String },
    /// The content was sent, the answer never came: delivered or not, nobody knows.
    InDoubt { text: String },
    /// weir itself refuses to send it there: an extension the message needs is not offered. Final, suppresses nobody.
    Unsendable { status: &'static str, text: String },
}
