//! Every reply weir's server gives, in one table (RFC 5321 section 4.2, RFC 2034, RFC 3463).
//!
//! Rules that always hold:
//! - a reply that is not in the table cannot be given, and `docs/replies.md` tells cause and remedy of each;
//! - a reply line is ASCII without control characters and at most 512 octets long (section 4.5.3.1.5), whatever words of
//!   a client or a receiver went into it;
//! - an enhanced code stands in every reply except the greeting, EHLO's and 354 (RFC 2034 section 4).

use std::borrow::Cow;

/// The longest reply line with its line end (RFC 5321 section 4.5.3.1.5).
pub const REPLY_LINE_MAX: usize = 512;

/// One row of the table. `{}` in the text is filled by the words of one occasion.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: u16,
    /// The enhanced code (RFC 3463); empty where none may stand.
    pub status: &'static str,
    pub text: &'static str,
}

/// A reply of one occasion: a row and the words for its hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub answer: &'static Answer,
    pub words: Cow<'static, str>,
}

macro_rules! answers {
    ($($name:ident = $code:literal $status:literal $text:literal;)*) => {
        $(pub const $name: &Answer = &Answer { code: $code, status: $status, text: $text };)*

        /// The table, ordered by code.
        pub const ALL: &[&Answer] = &[$($name),*];
    };
}

answers! {
    HELP = 214 "2.0.0" "weir sends mail on: EHLO STARTTLS AUTH MAIL RCPT DATA RSET NOOP VRFY HELP QUIT";
    GREETING = 220 "" "{} ESMTP weir";
    BEGIN_TLS = 220 "2.0.0" "begin TLS";
    BYE = 221 "2.0.0" "{} closes the connection";
    LOGGED_IN = 235 "2.7.0" "logged in as {}";
    HELLO = 250 "" "{}";
    OK = 250 "2.0.0" "ok";
    CHUNK_TAKEN = 250 "2.0.0" "{} octets taken";
    ANSWER_TAKEN = 250 "2.0.0" "answer {} taken";
    QUEUED = 250 "2.0.0" "queued as {}";
    SENDER_TAKEN = 250 "2.1.0" "sender taken";
    PRIORITY_CHANGED = 250 "2.3.6" "{} is the priority of the message: the user may ask for no more";
    RECIPIENT_TAKEN = 250 "2.1.5" "recipient taken";
    NOT_VERIFIED = 252 "2.0.0" "addresses are not verified here: send the message";
    CHALLENGE = 334 "" "{}";
    GO_AHEAD = 354 "" "send the message, and end it with a line that holds only a dot";
    STOPPING = 421 "4.3.2" "the relay is being stopped, come again";
    MADE_ROOM = 421 "4.3.2" "all places are taken and this connection was idle longest, come again";
    SILENT = 421 "4.4.2" "waited too long for the client";
    TOO_MANY_ERRORS = 421 "4.7.0" "too many errors on this connection";
    TOO_MANY_COMMANDS = 421 "4.7.0" "too many commands without a message on this connection";
    TOO_MANY_LOG_INS = 421 "4.7.0" "too many failed log-ins on this connection";
    SLOWED = 450 "4.7.1" "slowed down, send it again later: {}";
    TOO_FAST = 450 "4.7.1" "too many messages, send it again later: {}";
    DAY_USED_UP = 450 "4.7.1" "too many recipients for one day, send it again later: {}";
    ANSWERS_BUSY = 451 "4.3.2" "answers cannot be read just now, send it again later";
    SPOOL_FAILED = 451 "4.3.0" "the message could not be stored, send it again later";
    NO_ROOM = 452 "4.3.1" "no room for the message, send it again later: {}";
    TOO_MANY_UNDER_WAY = 452 "4.3.1" "no room for more recipients at this moment, send to this one later";
    ANSWER_ALONE = 452 "4.5.3" "an answer to a message comes alone, send the others in another";
    TOO_MANY_RECIPIENTS = 452 "4.5.3" "no more than {} recipients in one message, send the others in another";
    LOG_IN_LATER = 454 "4.7.0" "logging in is not possible now, try again later: {}";
    LINE_TOO_LONG = 500 "5.5.2" "the line is too long";
    NOT_HTTP = 500 "5.5.2" "this is SMTP, and that was HTTP";
    LOG_IN_TOO_LONG = 500 "5.5.6" "the line of the log-in is too long";
    UNKNOWN_COMMAND = 500 "5.5.2" "not a command known here";
    BAD_SENDER = 501 "5.1.7" "sender address: {}";
    BAD_RECIPIENT = 501 "5.1.3" "recipient address: {}";
    BAD_CHARACTERS = 501 "5.5.2" "a control character, or bytes that are not UTF-8, in a command";
    BAD_BASE64 = 501 "5.5.2" "the response is no base64";
    BAD_SYNTAX = 501 "5.5.4" "{}";
    LOG_IN_CANCELLED = 501 "5.7.0" "the log-in is cancelled";
    NOT_OFFERED = 502 "5.5.1" "{} is not offered here";
    OUT_OF_ORDER = 503 "5.5.1" "{}";
    UNKNOWN_MECHANISM = 504 "5.5.4" "not a mechanism known here: PLAIN and LOGIN are";
    TLS_FIRST = 530 "5.7.0" "say STARTTLS first: this listener takes mail inside TLS only";
    LOG_IN_FIRST = 530 "5.7.0" "log in first: this listener takes mail of users only";
    LOG_IN_REFUSED = 535 "5.7.8" "user or password is wrong";
    LOG_IN_NEEDS_TLS = 538 "5.7.11" "logging in takes TLS here, or a client in relay.trusted_networks";
    SUPPRESSED = 550 "5.1.1" "recipient is suppressed: {}";
    NO_ANSWER_WANTED = 550 "5.1.1" "no answer is taken at this address: {}";
    NO_POSTMASTER = 550 "5.1.1" "postmaster has no mailbox: set relay.postmaster (WEIR_RELAY__POSTMASTER)";
    NUL_IN_MESSAGE = 550 "5.6.0" "a NUL octet stands in the message (RFC 5322 forbids it)";
    BARE_NEWLINES = 550 "5.6.0" "a CR or LF stands alone in the message (RFC 5321 section 2.3.8); limits.bare_newlines = \"normalize\" admits it";
    BAD_TIME = 550 "5.6.0" "X-Weir-At holds no time this message can be kept for: {}";
    SENDER_DOMAIN = 550 "5.7.1" "{} may not send: add its domain to relay.sender_domains (WEIR_RELAY__SENDER_DOMAINS)";
    USER_SENDER_DOMAIN = 550 "5.7.1" "{}: add its domain to the user's sender_domains ([[relay.user]])";
    NOT_ALIGNED = 550 "5.7.1" "{}: relay.from = \"aligned\" (WEIR_RELAY__FROM) forbids it";
    MAY_NOT_RELAY = 550 "5.7.1" "{} may not relay: add it to relay.trusted_networks (WEIR_RELAY__TRUSTED_NETWORKS) or log in";
    TOO_BIG = 552 "5.3.4" "the message is larger than {} octets (limits.message_size)";
    SOURCE_ROUTE = 553 "5.1.0" "source routes are not taken: write the address alone";
    NEEDS_SMTPUTF8 = 553 "5.6.7" "an address beyond ASCII needs SMTPUTF8 with MAIL";
    OUT_OF_SYNC = 554 "5.5.0" "content came that nobody had asked for: wait for 354 after DATA";
    MAIL_LOOP = 554 "5.4.6" "the message has passed {} hosts: it goes in a circle";
    UNKNOWN_PARAMETER = 555 "5.5.4" "parameter {} is not offered here";
}

impl Answer {
    /// The reply as it stands in the table.
    pub const fn plain(&'static self) -> Said {
        Said { answer: self, words: Cow::Borrowed("") }
    }

    /// The reply with `words` in its hole.
    pub fn with(&'static self, words: impl Into<Cow<'static, str>>) -> Said {
        Said { answer: self, words: words.into() }
    }

    pub fn is_refusal(&self) -> bool {
        self.code >= 400
    }
}

impl Said {
    /// Appends the reply, one line with its line end.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_line(b' ', out);
    }

    /// Appends the reply as a line that others follow (section 4.2.1): the first ones of EHLO's answer.
    pub fn write_line(&self, separator: u8, out: &mut Vec<u8>) {
        let start = out.len();
        let code = self.answer.code;
        out.extend(code.to_string().bytes().take(3));
        out.push(separator);
        if !self.answer.status.is_empty() {
            out.extend_from_slice(self.answer.status.as_bytes());
            out.push(b' ');
        }
        match self.answer.text.split_once("{}") {
            Some((before, after)) => {
                out.extend_from_slice(before.as_bytes());
                // What follows the hole is weir's advice: it is kept, the words are cut.
                let room = (REPLY_LINE_MAX - 2).saturating_sub(out.len() - start + after.len());
                push_printable(&self.words, room, out);
                out.extend_from_slice(after.as_bytes());
            }
            None => out.extend_from_slice(self.answer.text.as_bytes()),
        }
        out.extend_from_slice(b"\r\n");
    }

    /// The reply as people read it, without its line end.
    pub fn line(&self) -> String {
        let mut out = Vec::with_capacity(96);
        self.write(&mut out);
        out.truncate(out.len().saturating_sub(2));
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// One octet for each character, so that `room` characters fit.
fn push_printable(words: &str, room: usize, out: &mut Vec<u8>) {
    out.extend(words.chars().take(room).map(|c| match c {
        ' '..='~' => c as u8,
        '\t' | '\r' | '\n' => b' ',
        _ => b'?',
    }));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_document_and_the_table_agree() {
        let document = include_str!("../../docs/replies.md");
        let rows: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
        let expected = |answer: &Answer| {
            let code = format!("{} {}", answer.code, answer.status);
            format!("| `{}` | `{}` | ", code.trim_end(), answer.text)
        };
        for (answer, row) in ALL.iter().zip(&rows) {
            assert!(row.starts_with(&expected(answer)), "expected {}\n   found {row}", expected(answer));
            assert!(
                row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).count() >= 4,
                "cause and remedy: {row}"
            );
        }
        assert_eq!(rows.len(), ALL.len(), "a row of the document for each row of the table");
    }

    #[test]
    fn the_table_is_in_order_and_says_what_codes_mean() {
        for pair in ALL.windows(2) {
            assert!(pair[0].code <= pair[1].code, "{pair:?}");
        }
        for answer in ALL {
            let class = answer.code / 100;
            let agrees = answer.status.is_empty() || answer.status.starts_with(&format!("{class}."));
            assert!(agrees && !(answer.status.is_empty() && class > 3), "{answer:?}");
            assert!(answer.text.len() < 160 && answer.text.matches("{}").count() <= 1, "{answer:?}");
        }
    }

    #[test]
    fn words_of_others_cannot_make_a_second_line() {
        let said = SUPPRESSED.with("no\r\n250 2.0.0 queued as X\0\u{85}é");
        assert_eq!(said.line(), "550 5.1.1 recipient is suppressed: no  250 2.0.0 queued as X???");
    }

    proptest! {
        #[test]
        fn a_reply_is_one_line_of_ascii_within_the_limit(words in "(?s).{0,700}", row in 0..ALL.len()) {
            let mut out = Vec::new();
            ALL[row].with(words).write(&mut out);
            prop_assert!(out.len() <= REPLY_LINE_MAX);
            let (line, end) = out.split_at(out.len() - 2);
            prop_assert_eq!(end, b"\r\n");
            prop_assert!(line.iter().all(|b| (b' '..=b'~').contains(b)));
        }
    }
}
