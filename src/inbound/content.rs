//! The content of one message on its way from the wire into its body: framed, looked at, measured.
//!
//! Rules that always hold:
//! - content is read to its end whatever is wrong with it, or the client would take what follows for our reply's fault;
//! - what it hears there is the gravest of what was wrong, whatever was found first: it does not depend on how the octets were cut;
//! - once something is wrong nothing more is kept.

use std::io;

use crate::smtp::header::{Facts, Header, RECEIVED_MAX};
use crate::smtp::replies::{self, Said};
use crate::smtp::{Decoder, Piece};

use super::held::Hold;
use super::intake::BodySink;
use super::options::{BareNewlines, Limits};

/// A message's content as it arrives.
pub(super) struct Content<B> {
    decoder: Decoder,
    header: Header,
    /// For what the header holds back.
    hold: Hold,
    /// None once the message is refused.
    body: Option<B>,
    refusal: Option<Said>,
    bare_newlines: BareNewlines,
    size_max: u64,
    /// Octets of the client's content.
    size_bytes: u64,
    /// Octets written to the body.
    written_bytes: u64,
    /// What the spool said when it took no more.
    fault: Option<io::Error>,
}

/// Content that arrived whole and good.
pub(super) struct Whole<B> {
    pub(super) body: B,
    pub(super) size_bytes: u64,
    pub(super) facts: Facts,
}

/// Content that was not taken.
pub(super) struct Refused {
    pub(super) said: Said,
    /// Set where it was a fault of ours.
    pub(super) fault: Option<io::Error>,
}

impl<B: BodySink> Content<B> {
    /// `decoder`: how the content is framed.
    pub(super) fn new(decoder: Decoder, body: B, header: Header, hold: Hold, limits: &Limits) -> Content<B> {
        Content {
            decoder,
            header,
            hold,
            body: Some(body),
            refusal: None,
            bare_newlines: limits.bare_newlines,
            size_max: limits.message_size.0,
            size_bytes: 0,
            written_bytes: 0,
            fault: None,
        }
    }

    /// Takes what belongs to the content off `input`; true when the content is complete.
    pub(super) async fn take(&mut self, input: &mut &[u8]) -> bool {
        while let Some(piece) = self.decoder.next(input) {
            match piece {
                Piece::Content(octets) => self.pass(octets).await,
                Piece::End => {
                    self.finish_header().await;
                    return true;
                }
            }
        }
        false
    }

    /// The last chunk of counted content was taken.
    pub(super) async fn finish_chunks(&mut self) {
        if let Some(Piece::Content(octets)) = self.decoder.finish() {
            self.pass(octets).await;
        }
        self.finish_header().await;
    }

    /// What the client hears, if it is clear already that the message is not taken.
    pub(super) fn refusal(&self) -> Option<&Said> {
        self.refusal.as_ref()
    }

    /// The message, or what the client hears instead.
    pub(super) fn finish(mut self) -> Result<Whole<B>, Refused> {
        if self.header.facts().received > RECEIVED_MAX {
            self.refuse(replies::MAIL_LOOP.with(self.header.facts().received.to_string()));
        }
        match (self.body, self.refusal) {
            (Some(body), None) => {
                Ok(Whole { body, size_bytes: self.written_bytes, facts: self.header.facts().clone() })
            }
            (_, refusal) => Err(Refused { said: refusal.unwrap_or(replies::SPOOL_FAILED.plain()), fault: self.fault }),
        }
    }

    async fn pass(&mut self, octets: &[u8]) {
        self.size_bytes += octets.len() as u64;
        if let Some(wrong) = self.wrong() {
            self.body = None;
            self.refusal = Some(wrong);
        }
        if self.body.is_none() {
            return;
        }
        if self.header.is_over() {
            return self.write(octets).await;
        }
        let mut passed = Vec::new();
        let rest = self.header.pass(octets, &mut passed);
        if !self.hold.resize(self.header.held_bytes()) {
            self.header.release(&mut passed);
        }
        self.write(&passed).await;
        self.write(rest).await;
    }

    /// What is wrong with the content as far as it has come.
    fn wrong(&self) -> Option<Said> {
        if self.size_bytes > self.size_max {
            Some(replies::TOO_BIG.with(self.size_max.to_string()))
        } else if self.decoder.has_nul() {
            Some(replies::NUL_IN_MESSAGE.plain())
        } else if self.decoder.has_bare_newline() && self.bare_newlines == BareNewlines::Reject {
            Some(replies::BARE_NEWLINES.plain())
        } else {
            None
        }
    }

    async fn finish_header(&mut self) {
        let mut passed = Vec::new();
        self.header.finish(&mut passed);
        self.write(&passed).await;
    }

    async fn write(&mut self, octets: &[u8]) {
        let Some(body) = self.body.as_mut().filter(|_| !octets.is_empty()) else { return };
        match body.write(octets).await {
            Ok(()) => self.written_bytes += octets.len() as u64,
            Err(error) => {
                self.refuse(match error.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        // Our own limit says what it is.
                        let why = error.get_ref().map(ToString::to_string);
                        replies::NO_ROOM.with(why.unwrap_or_else(|| "the disk is full".to_string()))
                    }
                    _ => replies::SPOOL_FAILED.plain(),
                });
                self.fault = Some(error);
            }
        }
    }

    /// Where nothing is wrong with the content itself, the first refusal is the one that counts.
    fn refuse(&mut self, said: Said) {
        self.body = None;
        self.refusal.get_or_insert(said);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;
    use crate::inbound::held::Held;
    use crate::smtp::header::HELD_MAX;
    use crate::smtp::trace::Trace;
    use crate::types::{ByteSize, QueueId, Timestamp};

    struct Sheet(Vec<u8>);

    impl BodySink for Sheet {
        fn write(&mut self, octets: &[u8]) -> impl Future<Output = io::Result<()>> + Send {
            self.0.extend_from_slice(octets);
            std::future::ready(Ok(()))
        }
    }

    fn header() -> Header {
        Header::new(&Trace {
            helo: "client.example",
            client: "192.0.2.7".parse().unwrap(),
            private: false,
            hostname: "relay.example",
            protocol: "ESMTP",
            tls: None,
            priority: None,
            id: QueueId::from_key(5).unwrap(),
            now: Timestamp::from_secs(1_795_293_220),
        })
    }

    /// What is written of `message` when it comes in reads of these sizes, the last one repeated.
    async fn receive(message: &[u8], reads: &[usize], headers: &Held) -> Vec<u8> {
        let stuffed = [message, b".\r\n"].concat();
        let mut content = Content::new(Decoder::new(), Sheet(Vec::new()), header(), headers.hold(), &Limits::default());
        let (mut rest, mut sizes, mut is_complete) = (&stuffed[..], reads.iter(), false);
        let mut size = stuffed.len();
        while !rest.is_empty() {
            size = sizes.next().copied().unwrap_or(size).clamp(1, rest.len());
            let (mut read, after) = rest.split_at(size);
            rest = after;
            is_complete = content.take(&mut read).await;
        }
        assert!(is_complete);
        let whole = content.finish().map_err(|refused| refused.said.line()).unwrap();
        assert_eq!(whole.size_bytes, whole.body.0.len() as u64);
        whole.body.0
    }

    #[tokio::test]
    async fn what_the_client_sent_follows_what_is_added_as_one_piece() {
        for message in ["Subject: s\r\nTo:\r\n a@b\r\n\r\nbody\r\n", "Date: x\r\n\r\n", "\r\nbody\r\n"] {
            let headers = Held::headers();
            for read in 0..message.len() {
                for reads in [&[read, usize::MAX][..], &[read, 1]] {
                    let written = receive(message.as_bytes(), reads, &headers).await;
                    assert!(written.starts_with(b"Received: from ") && written.ends_with(message.as_bytes()), "{read}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_the_same_however_it_is_cut() {
        let limits = Limits { message_size: ByteSize(30), bare_newlines: BareNewlines::Reject, ..Limits::default() };
        for (message, code) in [
            (&b"S: s\r\n\r\na\nb\0c\n0123456789012345\r\n"[..], "552 5.3.4"),
            (b"S: s\r\n\r\na\nb\0c\nd\r\n", "550 5.6.0 a NUL"),
            (b"S: s\r\n\r\na\nb\r\n", "550 5.6.0 a CR or LF"),
        ] {
            for read in 1..=message.len() {
                let headers = Held::headers();
                let mut content = Content::new(Decoder::new(), Sheet(Vec::new()), header(), headers.hold(), &limits);
                for mut octets in message.chunks(read) {
                    content.take(&mut octets).await;
                }
                let said = content.finish().err().map(|refused| refused.said.line()).unwrap_or_default();
                assert!(said.starts_with(code), "in reads of {read}: {said}");
            }
        }
    }

    #[tokio::test]
    async fn a_header_that_is_not_held_loses_nothing() {
        let date = b"Date: Sat, 21 Nov 2026 20:33:40 +0000\r\n";
        let headers = Held::headers();
        let mut hold = headers.hold();
        let short = b"Subject: s\r\nMessage-ID: <a@b>\r\n".to_vec();
        let long = [&short[..], &b"X-Filler: 1234\r\n".repeat(HELD_MAX / 16)].concat();
        for (fields, room) in [(long, 8 << 20), (short, 0)] {
            assert!(hold.resize((8 << 20) - room));
            let written = receive(&[&fields[..], b"\r\nbody\r\n"].concat(), &[10, 7], &headers).await;
            let at = written.windows(10).position(|w| w == b"\nSubject: ").unwrap() + 1;
            let (received, rest) = written.split_at(at);
            assert!(received.starts_with(b"Received: "));
            assert_eq!(rest, [&fields[..], date, b"\r\nbody\r\n"].concat());
        }
    }
}
