//! The server's side of the dialogue: which command may come when, and what is said to it (RFC 5321 section 4.1.4).
//!
//! Rules that always hold:
//! - every command gets exactly one reply, in order; the session writes it or asks its owner for the decision;
//! - a refused MAIL leaves no transaction, a refused RCPT leaves the transaction as it was, the end of the content always ends
//!   the transaction, whatever is said to it;
//! - a refused recipient is no error of the connection: a list with stale addresses never ends a client's session;
//! - nobody can keep a connection by doing nothing useful on it: errors, idle commands and failed log-ins have limits;
//! - TLS begins a new dialogue: nothing said before it counts, but the errors (RFC 3207 section 4.2);
//! - nothing of a message's content is ever obeyed as a command: what came behind a refused DATA, and what a browser was made to
//!   send, ends the connection.

mod chunks;
mod security;

use std::sync::Arc;

use crate::types::{Domain, Recipient, Timestamp, TransferPriority};

use super::command::{Command, ForwardPath, Mail, Rcpt};
use super::offers::{LogIn, Offers, Tls};
use super::replies::{self, Said};
use super::requests;
use super::sasl::{Credentials, Exchange};

/// Errors (unknown words, wrong syntax, wrong order, refused relaying) since the last accepted message. An administrator's test
/// for open relays sends 40 to 120 forms on one connection and must get an answer to each.
pub const ERRORS_MAX: u32 = 200;
/// Commands that move nothing (NOOP, RSET, VRFY, HELP, EHLO) since the last accepted message. Such a test says RSET before each
/// form.
pub const IDLE_COMMANDS_MAX: u32 = 200;
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
    /// Read so many octets into the message, then `taken`, or `end` if it was the last chunk.
    ReceiveChunk { octets: u64, last: bool },
    /// Skip so many octets: content of a BDAT that was not taken.
    Skip(u64),
    /// DATA was refused: if content is there already, `out_of_sync`.
    Refused,
    /// Throw away what has come, say what was written, do the handshake, then `secured`.
    StartTls,
    /// Check who it is: `logged_in` or `log_in_refused`.
    LogIn(Credentials),
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
    /// A chunk was announced: DATA cannot follow any more (RFC 3030 section 3).
    chunked: bool,
}

impl Transaction {
    /// Was one accepted?
    pub fn has_recipients(&self) -> bool {
        !self.recipients.is_empty() || !self.dropped.is_empty()
    }
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
    settings: Arc<Settings>,
    offers: Offers,
    /// The client's network is trusted: it may log in without TLS.
    trusted: bool,
    secure: bool,
    /// For addresses without a domain.
    qualify: Option<Domain>,
    user: Option<Arc<str>>,
    exchange: Option<Exchange>,
    hello: Option<Hello>,
    transaction: Option<Transaction>,
    /// DATA was refused, and no command came since.
    data_refused: bool,
    errors: u32,
    idle_commands: u32,
    /// How many of each end the connection, just now.
    errors_max: u32,
    idle_commands_max: u32,
    failed_log_ins: u32,
    /// When the command came that is judged.
    now: Timestamp,
}

impl Session {
    /// `trusted`: the client's network is. A listener of implicit TLS has done its handshake before the session begins.
    pub fn new(settings: Arc<Settings>, offers: Offers, trusted: bool) -> Session {
        Session {
            settings,
            offers,
            trusted,
            secure: offers.tls == Tls::Implicit,
            qualify: None,
            user: None,
            exchange: None,
            hello: None,
            transaction: None,
            data_refused: false,
            errors: 0,
            idle_commands: 0,
            errors_max: ERRORS_MAX,
            idle_commands_max: IDLE_COMMANDS_MAX,
            failed_log_ins: 0,
            now: Timestamp::EPOCH,
        }
    }

    /// The time of what comes next.
    pub fn set_time(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// The client's network is trusted, or it has logged in.
    fn may_relay(&self) -> bool {
        self.trusted || self.user.is_some()
    }

    /// So many errors and idle commands are borne from now on; what was counted stays counted.
    pub fn tolerate(&mut self, errors: u32, idle_commands: u32) {
        self.errors_max = errors;
        self.idle_commands_max = idle_commands;
    }

    /// Addresses without a domain get this one from now on; none: they are refused.
    pub fn qualify(&mut self, domain: Option<Domain>) {
        self.qualify = domain;
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

    /// Is the next line part of a log-in, which may be longer than a command?
    pub fn is_logging_in(&self) -> bool {
        self.exchange.is_some()
    }

    /// Judges one line, given without its line end.
    pub fn command(&mut self, line: &[u8], out: &mut Vec<u8>) -> Action {
        if let Some(mut exchange) = self.exchange.take() {
            let step = exchange.answer(line);
            return self.log_in_step(exchange, step, out);
        }
        let command = Command::parse_for(line, self.qualify.as_ref());
        if std::mem::take(&mut self.data_refused) && command.is_err() {
            return self.out_of_sync(out);
        }
        match command {
            Ok(command) if self.waits_for_tls(&command) => self.error(&replies::TLS_FIRST.plain(), out),
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
        if self.exchange.take().is_some() {
            return self.error(&replies::LOG_IN_TOO_LONG.plain(), out);
        }
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
            Command::Bdat { octets, last } => self.bdat(octets, last, out),
            Command::StartTls => self.start_tls(out),
            Command::Auth(auth) => self.auth(&auth, out),
            Command::Http => self.end_with(replies::NOT_HTTP, out),
            Command::NotOffered(word) => self.error(&replies::NOT_OFFERED.with(word), out),
        }
    }

    fn greeted(&mut self, hello: Hello, out: &mut Vec<u8>) -> Action {
        self.transaction = None;
        let said = replies::HELLO.with(self.settings.hostname.clone());
        let extended = hello.extended;
        self.hello = Some(hello);
        if !extended || self.idle_commands >= self.idle_commands_max {
            return self.idle(&said, out);
        }
        self.idle_commands += 1;
        said.write_line(b'-', out);
        for offer in ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"] {
            replies::HELLO.with(offer).write_line(b'-', out);
        }
        for (offer, is_offered) in [
            ("CHUNKING", self.offers.chunking),
            ("STARTTLS", self.offers_tls()),
            ("AUTH PLAIN LOGIN", self.may_log_in() && self.user.is_none()),
        ] {
            if is_offered {
                replies::HELLO.with(offer).write_line(b'-', out);
            }
        }
        if self.may_relay() {
            for offer in requests::offers(self.now) {
                replies::HELLO.with(offer).write_line(b'-', out);
            }
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
        if self.offers.log_in == LogIn::Require && self.user.is_none() {
            return self.error(&replies::LOG_IN_FIRST.plain(), out);
        }
        if let Some(name) = requests::named(&mail.requests).filter(|_| !self.may_relay()) {
            return self.error(&replies::UNKNOWN_PARAMETER.with(name), out);
        }
        if let Err(said) = requests::check(&mail.requests, self.now) {
            return self.error(&said, out);
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
        if transaction.chunked {
            return self.error(&replies::OUT_OF_ORDER.with("the content has begun"), out);
        }
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
        let said = match &self.transaction {
            None => return self.refuse_data(true, "say MAIL first", out),
            Some(transaction) if transaction.chunked => {
                return self.refuse_data(true, "the message has begun with BDAT", out);
            }
            // With PIPELINING this is no error of the client: it could not know (RFC 2920 section 3.1).
            Some(transaction) if !transaction.has_recipients() => {
                return self.refuse_data(false, "no recipient was accepted", out);
            }
            Some(_) => replies::GO_AHEAD.plain(),
        };
        said.write(out);
        Action::Receive
    }

    fn refuse_data(&mut self, is_error: bool, why: &'static str, out: &mut Vec<u8>) -> Action {
        self.data_refused = true;
        let said = replies::OUT_OF_ORDER.with(why);
        let action = if is_error { self.error(&said, out) } else { self.refuse(&said, out) };
        if action == Action::Listen { Action::Refused } else { action }
    }

    /// Content came behind a refused DATA. Nothing of it may be taken for a command.
    pub fn out_of_sync(&mut self, out: &mut Vec<u8>) -> Action {
        self.end_with(replies::OUT_OF_SYNC, out)
    }

    /// The sender is welcome: the transaction begins. A lowered priority is told (RFC 6710 section 4.1).
    pub fn begin(&mut self, mail: Mail, lowered: Option<TransferPriority>, out: &mut Vec<u8>) -> Action {
        self.transaction =
            Some(Transaction { mail, recipients: Vec::new(), dropped: Vec::new(), refused: 0, chunked: false });
        match lowered {
            Some(priority) => replies::PRIORITY_CHANGED.with(priority.to_string()).write(out),
            None => replies::SENDER_TAKEN.plain().write(out),
        }
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
        if self.errors > self.errors_max {
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
        if self.idle_commands > self.idle_commands_max {
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
mod tests;
