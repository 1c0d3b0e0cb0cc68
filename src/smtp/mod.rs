//! SMTP without I/O (RFC 5321 and its extensions): commands, the server's state, framing of content, its header, replies.
//!
//! Rules that always hold:
//! - nothing here reads a socket, a clock or chance: bytes and times come in as arguments, bytes and values go out;
//! - whatever bytes a peer sends, nothing panics and nothing grows past a named limit;
//! - every reply the server gives stands in one table (`replies`), and `docs/replies.md` explains each.

pub mod command;
pub mod from;
pub mod header;
pub mod incoming;
pub mod offers;
pub mod outgoing;
mod qualify;
pub mod replies;
mod requests;
pub mod sasl;
pub mod session;
pub mod seven_bit;
pub mod trace;
mod xtext;

pub use command::{Command, ForwardPath, Mail, Rcpt};
pub use incoming::{Decoder, Piece};
pub use replies::{Answer, Said};
pub use session::{Action, Session, Transaction};
