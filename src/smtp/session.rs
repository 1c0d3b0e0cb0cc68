//! The server's side of the dialogue: which command may come when, and what is said to it (RFC 5321 section 4.1.4).
//!
//! Rules that always hold:
//! - every command gets exactly one reply, in order; the session writes it or asks its owner for the decision;
//! - a refused MAIL leaves no transaction, a refused RCPT leaves the transaction as it was, the end of the content always ends
//!   the transaction, whatever is said to it;
//! - a refused recipient is no error of the connection: a list with stale addresses never ends a client's session;
//! - nobody can keep a connection by doing nothing useful on it: errors and idle commands have limits.

use crate::types::Recipient;

use super::command::{Command, ForwardPath, Mail, Rcpt};
use super::replies::{self, Said};

/// Errors (unknown words, wrong syntax, wrong order, refused relaying) since the last accepted message. An administrator's test
/// for open relays sends 40 to 120 forms on one connection and must get an answer to each.
const ERRORS_MAX: u32 = 200;
/// Commands that move nothing (NOOP, RSET, VRFY, HELP, EHLO) since the last accepted message. Such a test says RSET before each
/// form.
const IDLE_COMMANDS_MAX: u32 = 200;
/// Refused recipients in one transaction for each that may be accepted: beyond, the client does not listen.
const REFUSED_RECIPIENTS_FACTOR: usize = 10;

/// What a session is told about the server.
#[derive(Clone, Debug)]
pub struct Settings {
    pub hostname: String,
    /// The largest content taken, in octets: SIZE of EHLO.
    pub message_size: u64,
    pub recipients: usize,
}

/// What the owner of the session does next.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Hear the next command.
    Listen,
    /// Decide on the sender: `begin` or `refuse`.
    Admit(Box<Mail>),
    /// Decide on the recipient: `add`, `add_dropped` or one of the refusals.
    AdmitRecipient(Box<Rcpt>),
    /// Read the content, then `end`.
    Receive,
    /// Skip so many octets: content of a BDAT that was not taken.
    Skip(u64),
    /// The client is done: send what was written and close.
    Part,
    /// The client is sent away: send what was written and close.
    Close,
}

/// A message's envelope as far as it has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    pub mail: Mail,
    pub recipients: Vec<Recipient>,
    /// Taken with a 250, recorded and not sent to.
    pub dropped: Vec<Recipient>,
    refused: usize,
}

/// How the client greeted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub name: String,
    pub extended: bool,
}

/// One connection's state. Replies are appended to the `out` of each call.
#[derive(Debug)]
pub struct Session {
    settings: std::sync::Arc<Settings>,
    hello: Option<Hello>,
    transaction: Option<Transaction>,
    errors: u32,
    idle_commands: u32,
}

impl Session {
    pub fn new(settings: std::sync::Arc<Settings>) -> Session {
        Session { settings, hello: None, transaction: None, errors: 0, idle_commands: 0 }
    }

    pub fn greet(&self, out: &mut Vec<u8>) {
        replies::GREETING.with(self.settings.hostname.clone()).write(out);
    }

    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Judges one line, given without its line end.
    pub fn command(&mut self, line: &[u8], out: &mut Vec<u8>) -> Action {
        match Command::parse(line) {
            Ok(command) => self.judge(command, out),
            // A bad address among many is the message's trouble, not the connection's.
            Err(said) if self.transaction.is_some() && said.answer == replies::BAD_RECIPIENT => {
                self.refuse_recipient(&said, out)
            }
            Err(said) => self.error(&said, out),
        }
    }

    /// A line came that is longer than any command.
    pub fn line_too_long(&mut self, out: &mut Vec<u8>) -> Action {
        self.error(&replies::LINE_TOO_LONG.plain(), out)
    }

    fn judge(&mut self, command: Command, out: &mut Vec<u8>) -> Action {
        match command {
            Command::Ehlo(name) => self.greeted(Hello { name, extended: true }, out),
            Command::Helo(name) => self.greeted(Hello { name, extended: false }, out),
            Command::Mail(mail) => self.mail(mail, out),
            Command::Rcpt(rcpt) => self.rcpt(rcpt, out),
            Command::Data => self.data(out),
            Command::Rset => {
                self.transaction = None;
                self.idle(&replies::OK.plain(), out)
            }
            Command::Noop => self.idle(&replies::OK.plain(), out),
            Command::Vrfy { needs_smtputf8: true } => self.idle(&replies::NEEDS_SMTPUTF8.plain(), out),
            Command::Vrfy { needs_smtputf8: false } => self.idle(&replies::NOT_VERIFIED.plain(), out),
            Command::Help => self.idle(&replies::HELP.plain(), out),
            Command::Quit => {
                replies::BYE.with(self.settings.hostname.clone()).write(out);
                Action::Part
            }
            Command::Bdat { octets } => self.bdat(octets, out),
            Command::NotOffered(word) => self.error(&replies::NOT_OFFERED.with(word), out),
        }
    }

    fn greeted(&mut self, hello: Hello, out: &mut Vec<u8>) -> Action {
        self.transaction = None;
        let said = replies::HELLO.with(self.settings.hostname.clone());
        let extended = hello.extended;
        self.hello = Some(hello);
        if !extended || self.idle_commands >= IDLE_COMMANDS_MAX {
            return self.idle(&said, out);
        }
        self.idle_commands += 1;
        said.write_line(b'-', out);
        for offer in ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"] {
            replies::HELLO.with(offer).write_line(b'-', out);
        }
        replies::HELLO.with(format!("SIZE {}", self.settings.message_size)).write(out);
        Action::Listen
    }

    fn mail(&mut self, mail: Mail, out: &mut Vec<u8>) -> Action {
        if self.hello.is_none() {
            return self.error(&replies::OUT_OF_ORDER.with("say EHLO first"), out);
        }
        if self.transaction.is_some() {
            return self.error(&replies::OUT_OF_ORDER.with("a message is already begun"), out);
        }
        if mail.size_bytes.is_some_and(|size| size > self.settings.message_size) {
            return self.refuse(&replies::TOO_BIG.with(self.settings.message_size.to_string()), out);
        }
        if mail.sender.mailbox().is_some_and(|m| !m.is_ascii()) && !mail.smtputf8 {
            return self.refuse(&replies::NEEDS_SMTPUTF8.plain(), out);
        }
        Action::Admit(Box::new(mail))
    }

    fn rcpt(&mut self, rcpt: Rcpt, out: &mut Vec<u8>) -> Action {
        let Some(transaction) = &self.transaction else {
            return self.error(&replies::OUT_OF_ORDER.with("say MAIL first"), out);
        };
        if transaction.recipients.len() + transaction.dropped.len() >= self.settings.recipients {
            let said = replies::TOO_MANY_RECIPIENTS.with(self.settings.recipients.to_string());
            return self.refuse_recipient(&said, out);
        }
        let beyond_ascii = matches!(&rcpt.path, ForwardPath::Mailbox(m) if !m.is_ascii());
        if beyond_ascii && !transaction.mail.smtputf8 {
            return self.refuse_recipient(&replies::NEEDS_SMTPUTF8.plain(), out);
        }
        Action::AdmitRecipient(Box::new(rcpt))
    }

    fn data(&mut self, out: &mut Vec<u8>) -> Action {
        let Some(transaction) = &self.transaction else {
            return self.error(&replies::OUT_OF_ORDER.with("say MAIL first"), out);
        };
        if transaction.recipients.is_empty() && transaction.dropped.is_empty() {
            // With PIPELINING this is no error of the client: it could not know (RFC 2920 section 3.1).
            return self.refuse(&replies::OUT_OF_ORDER.with("no recipient was accepted"), out);
        }
        replies::GO_AHEAD.plain().write(out);
        Action::Receive
    }

    /// The octets behind BDAT are skipped, never read as commands; more of them than a message may have end the connection.
    fn bdat(&mut self, octets: u64, out: &mut Vec<u8>) -> Action {
        self.transaction = None;
        match self.error(&replies::NOT_OFFERED.with("BDAT"), out) {
            Action::Listen if octets <= self.settings.message_size => Action::Skip(octets),
            _ => Action::Close,
        }
    }

    /// The sender is welcome: the transaction begins.
    pub fn begin(&mut self, mail: Mail, out: &mut Vec<u8>) -> Action {
        self.transaction = Some(Transaction { mail, recipients: Vec::new(), dropped: Vec::new(), refused: 0 });
        replies::SENDER_TAKEN.plain().write(out);
        Action::Listen
    }

    /// The recipient is welcome.
    pub fn add(&mut self, recipient: Recipient, out: &mut Vec<u8>) -> Action {
        if let Some(transaction) = &mut self.transaction {
            transaction.recipients.push(recipient);
        }
        replies::RECIPIENT_TAKEN.plain().write(out);
        Action::Listen
    }

    /// The recipient is taken and will be recorded, not sent to.
    pub fn add_dropped(&mut self, recipient: Recipient, out: &mut Vec<u8>) -> Action {
        if let Some(transaction) = &mut self.transaction {
            transaction.dropped.push(recipient);
        }
        replies::RECIPIENT_TAKEN.plain().write(out);
        Action::Listen
    }

    /// Refuses what was asked for without holding it against the connection.
    pub fn refuse(&mut self, said: &Said, out: &mut Vec<u8>) -> Action {
        said.write(out);
        Action::Listen
    }

    /// Refuses one recipient. Only a client that goes on without end is sent away.
    pub fn refuse_recipient(&mut self, said: &Said, out: &mut Vec<u8>) -> Action {
        let limit = self.settings.recipients.saturating_mul(REFUSED_RECIPIENTS_FACTOR);
        if let Some(transaction) = &mut self.transaction {
            transaction.refused += 1;
            if transaction.refused > limit {
                return self.end_with(replies::TOO_MANY_ERRORS, out);
            }
        }
        self.refuse(said, out)
    }

    /// Refuses and counts it: after some the connection ends.
    pub fn error(&mut self, said: &Said, out: &mut Vec<u8>) -> Action {
        self.errors += 1;
        if self.errors > ERRORS_MAX {
            return self.end_with(replies::TOO_MANY_ERRORS, out);
        }
        self.refuse(said, out)
    }

    /// The transaction, now that its content comes. It is over, whatever is said at its end.
    pub fn take_transaction(&mut self) -> Option<Transaction> {
        self.transaction.take()
    }

    /// The reply to the content.
    pub fn end(&mut self, said: &Said, out: &mut Vec<u8>) -> Action {
        self.transaction = None;
        if !said.answer.is_refusal() {
            self.errors = 0;
            self.idle_commands = 0;
        }
        self.refuse(said, out)
    }

    fn idle(&mut self, said: &Said, out: &mut Vec<u8>) -> Action {
        self.idle_commands += 1;
        if self.idle_commands > IDLE_COMMANDS_MAX {
            return self.end_with(replies::TOO_MANY_COMMANDS, out);
        }
        self.refuse(said, out)
    }

    fn end_with(&mut self, answer: &'static replies::Answer, out: &mut Vec<u8>) -> Action {
        self.transaction = None;
        answer.plain().write(out);
        Action::Close
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn session() -> Session {
        session_for(3)
    }

    fn session_for(recipients: usize) -> Session {
        let settings = Settings { hostname: "relay.example".to_string(), message_size: 1000, recipients };
        Session::new(Arc::new(settings))
    }

    /// Plays lines with an owner that admits everybody; gives the reply lines.
    fn play(session: &mut Session, lines: &[&str]) -> Vec<String> {
        let mut replies = Vec::new();
        for line in lines {
            let mut out = Vec::new();
            let mut action = session.command(line.as_bytes(), &mut out);
            action = match action {
                Action::Admit(mail) => session.begin(*mail, &mut out),
                Action::AdmitRecipient(rcpt) => match rcpt.path {
                    ForwardPath::Mailbox(address) => {
                        let recipient = Recipient { address, orcpt: rcpt.orcpt, notify: rcpt.notify };
                        session.add(recipient, &mut out)
                    }
                    ForwardPath::Postmaster => session.refuse_recipient(&replies::NO_POSTMASTER.plain(), &mut out),
                },
                other => other,
            };
            let text = String::from_utf8(out).unwrap();
            replies.push(text.lines().map(|l| l.get(..9).unwrap_or(l).trim_end()).collect::<Vec<_>>().join(","));
            if matches!(action, Action::Close | Action::Part) {
                replies.push("closed".to_string());
                break;
            }
        }
        replies
    }

    #[test]
    fn commands_out_of_order_are_refused() {
        for (lines, replies) in [
            (&["MAIL FROM:<>"][..], &["503 5.5.1"][..]),
            (&["HELO a", "RCPT TO:<a@b.example>"], &["250 relay", "503 5.5.1"]),
            (&["HELO a", "DATA"], &["250 relay", "503 5.5.1"]),
            (&["HELO a", "MAIL FROM:<>", "MAIL FROM:<>"], &["250 relay", "250 2.1.0", "503 5.5.1"]),
            (&["HELO a", "MAIL FROM:<>", "DATA"], &["250 relay", "250 2.1.0", "503 5.5.1"]),
            (&["HELO a", "MAIL FROM:<>", "RSET", "DATA"], &["250 relay", "250 2.1.0", "250 2.0.0", "503 5.5.1"]),
            (
                &["HELO a", "MAIL FROM:<>", "HELO b", "RCPT TO:<a@b.example>"],
                &["250 relay", "250 2.1.0", "250 relay", "503 5.5.1"],
            ),
            (
                &["RSET", "NOOP", "HELP", "VRFY a", "QUIT"],
                &["250 2.0.0", "250 2.0.0", "214 2.0.0", "252 2.0.0", "221 2.0.0", "closed"],
            ),
            (&["HELO a", "MAIL FROM:<> SIZE=1001", "RCPT TO:<a@b.example>"], &["250 relay", "552 5.3.4", "503 5.5.1"]),
            (&["HELO a", "MAIL FROM:<> SIZE=1000"], &["250 relay", "250 2.1.0"]),
            (&["STARTTLS", "EXPN a"], &["502 5.5.1", "502 5.5.1"]),
        ] {
            assert_eq!(play(&mut session(), lines), replies, "{lines:?}");
        }
    }

    #[test]
    fn an_address_beyond_ascii_without_smtputf8_leaves_the_state_as_it_was() {
        let mut one = session();
        let replies = play(
            &mut one,
            &["EHLO a", "MAIL FROM:<ü@b.example>", "DATA", "MAIL FROM:<a@b.example>", "RCPT TO:<ü@b.example>", "DATA"],
        );
        assert_eq!(replies[1..], ["553 5.6.7", "503 5.5.1", "250 2.1.0", "553 5.6.7", "503 5.5.1"]);
        assert_eq!(play(&mut one, &["RCPT TO:<a@b.example>", "DATA"]), ["250 2.1.5", "354 send"]);
        assert_eq!(play(&mut session(), &["EHLO a", "MAIL FROM:<ü@b.example> SMTPUTF8"])[1], "250 2.1.0");
        assert_eq!(play(&mut session(), &["VRFY ü"]), ["553 5.6.7"]);
    }

    #[test]
    fn recipients_beyond_the_limit_are_put_off_alone() {
        let mut one = session();
        let rcpt = "RCPT TO:<a@b.example>";
        let replies = play(&mut one, &["EHLO a", "MAIL FROM:<>", rcpt, rcpt, rcpt, rcpt, "DATA"]);
        assert_eq!(replies[2..], ["250 2.1.5", "250 2.1.5", "250 2.1.5", "452 4.5.3", "354 send"]);
        assert_eq!(one.take_transaction().unwrap().recipients.len(), 3);
    }

    #[test]
    fn offers_what_it_does_and_nothing_else() {
        let mut out = Vec::new();
        session().command(b"EHLO a", &mut out);
        let expected = "250-relay.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250 SIZE 1000\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_end_of_the_content_ends_the_transaction() {
        for said in [replies::QUEUED.with("X"), replies::SPOOL_FAILED.plain(), replies::NUL_IN_MESSAGE.plain()] {
            let mut one = session();
            play(&mut one, &["EHLO a", "MAIL FROM:<>", "RCPT TO:<a@b.example>", "DATA"]);
            one.end(&said, &mut Vec::new());
            assert_eq!(
                play(&mut one, &["RCPT TO:<a@b.example>", "DATA", "MAIL FROM:<>"]),
                ["503 5.5.1", "503 5.5.1", "250 2.1.0"]
            );
        }
    }

    #[test]
    fn chunks_are_skipped_and_endless_ones_close() {
        let mut one = session();
        let mut out = Vec::new();
        play(&mut one, &["EHLO a", "MAIL FROM:<>"]);
        assert_eq!(one.command(b"BDAT 1000 LAST", &mut out), Action::Skip(1000));
        assert_eq!(one.transaction(), None);
        assert_eq!(one.command(b"BDAT 1001", &mut out), Action::Close);
    }

    #[test]
    fn too_many_errors_end_the_connection() {
        let replies = play(&mut session(), &["WRONG"; 300]);
        assert_eq!((replies[199].as_str(), replies[200].as_str(), replies.len()), ("500 5.5.2", "421 4.7.0", 202));
        let replies = play(&mut session(), &["NOOP"; 300]);
        assert_eq!((replies[199].as_str(), replies[200].as_str(), replies.len()), ("250 2.0.0", "421 4.7.0", 202));
        assert_eq!(play(&mut session(), &["EHLO a"; 300]).len(), 202);
    }

    #[test]
    fn bad_addresses_among_many_do_not_end_the_connection() {
        let mut lines = vec!["EHLO a", "MAIL FROM:<>"];
        lines.extend(["RCPT TO:<no-domain>"; 300]);
        lines.push("RCPT TO:<a@b.example>");
        let replies = play(&mut session_for(30), &lines);
        assert_eq!(replies.last().map(String::as_str), Some("250 2.1.5"));
        lines.splice(2..2, ["RCPT TO:<no-domain>"]);
        assert_eq!(play(&mut session_for(30), &lines).last().map(String::as_str), Some("closed"));
    }

    proptest! {
        #[test]
        fn every_line_gets_one_reply_in_every_state(
            before in prop::sample::select(vec![0, 1, 2, 3]), line in prop::collection::vec(any::<u8>(), 0..80)
        ) {
            let mut one = session();
            play(&mut one, &["EHLO a", "MAIL FROM:<>", "RCPT TO:<a@b.example>"][..before]);
            let mut out = Vec::new();
            let action = one.command(&line, &mut out);
            let finals = out.split_inclusive(|&b| b == b'\n').filter(|l| l.get(3) == Some(&b' ')).count();
            let asked = matches!(action, Action::Admit(_) | Action::AdmitRecipient(_));
            prop_assert_eq!(finals, usize::from(!asked));
        }
    }
}
