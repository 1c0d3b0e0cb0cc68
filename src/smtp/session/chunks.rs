//! Content in chunks (BDAT, RFC 3030).
//!
//! The rule that always holds: the octets a BDAT announces are content, whatever is said to it, and where nobody can tell how many there
//! are the connection ends.

use super::{Action, Session};
use crate::smtp::replies::{self, Said};

impl Session {
    /// Whatever is said, the announced octets are content and never read as commands. Octets that nobody can count, and more of
    /// them than a message may have where none is taken, end the connection.
    pub(super) fn bdat(&mut self, octets: Option<u64>, last: bool, out: &mut Vec<u8>) -> Action {
        if !self.offers.chunking {
            return self.bdat_refused(&replies::NOT_OFFERED.with("BDAT"), octets, out);
        }
        let Some(octets) = octets else {
            let said = replies::BAD_SYNTAX.with("write BDAT, a number of octets, and LAST or nothing");
            return self.bdat_refused(&said, None, out);
        };
        if octets > self.settings.message_size {
            return self.bdat_refused(&replies::TOO_BIG.with(self.settings.message_size.to_string()), None, out);
        }
        match &mut self.transaction {
            None => self.bdat_refused(&replies::OUT_OF_ORDER.with("say MAIL first"), Some(octets), out),
            Some(transaction) if !transaction.has_recipients() => {
                self.bdat_refused(&replies::OUT_OF_ORDER.with("no recipient was accepted"), Some(octets), out)
            }
            Some(transaction) => {
                transaction.chunked = true;
                Action::ReceiveChunk { octets, last }
            }
        }
    }

    fn bdat_refused(&mut self, said: &Said, octets: Option<u64>, out: &mut Vec<u8>) -> Action {
        self.transaction = None;
        match self.error(said, out) {
            Action::Listen if octets.is_some_and(|octets| octets <= self.settings.message_size) => {
                Action::Skip(octets.unwrap_or(0))
            }
            _ => Action::Close,
        }
    }

    /// A chunk was read, and others follow.
    pub fn taken(&mut self, octets: u64, out: &mut Vec<u8>) -> Action {
        replies::CHUNK_TAKEN.with(octets.to_string()).write(out);
        Action::Listen
    }
}
