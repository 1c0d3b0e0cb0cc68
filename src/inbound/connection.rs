//! One client's dialogue: reads commands and content, lets the session judge, asks admission and intake, answers.
//!
//! Rules that always hold:
//! - `250` for a message is written only after the intake has it safe, and nothing slow stands between the two (RFC 1047);
//! - a session that waits for a command ends at once when the relay stops; one past the end of the content is always
//!   answered; content that still flows may come to its end;
//! - slow clients hold nothing for long: a command has to be whole in 5 minutes, content needs a minimum rate, a message
//!   one hour in all (RFC 5321 section 4.5.3.2.7 wants at least 5 minutes a step).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::smtp::header::Header;
use crate::smtp::replies::{self, Said};
use crate::smtp::session::Hello;
use crate::smtp::trace::Trace;
use crate::smtp::{Action, Mail, Rcpt, Session, Transaction};
use crate::types::{Envelope, Origin, Priority, QueueId, Recipient, ReversePath, Timestamp};

use super::admission::Admission;
use super::content::{Content, Refused, Whole};
use super::front::Front;
use super::intake::{AcceptError, Intake, Received, RefusedRecipient, Standing, Suppressed};
use super::overload::Place;
use super::wire::{Line, Lost, Wire};

/// For a command line to be whole (RFC 5321 section 4.5.3.2.7).
const COMMAND_MAX: Duration = Duration::from_secs(300);
/// For the next octets of content.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// Content may take this long, and a second more for each `RATE_MIN` octets of it.
const CONTENT_START: Duration = Duration::from_secs(300);
/// Octets a second: a modem of 1990 is faster, a client that only wants to hold the connection is not.
const RATE_MIN: u64 = 1000;
/// From MAIL to the end of the content.
const MESSAGE_MAX: Duration = Duration::from_secs(3600);
/// While the relay stops, content that does not flow is not waited for longer than this.
const STOPPING_SILENCE_MAX: Duration = Duration::from_secs(1);

pub(super) struct Connection<'a, I, S> {
    front: &'a Front<I>,
    wire: Wire<S>,
    session: Session,
    client: IpAddr,
    trusted: bool,
    admission: Arc<Admission>,
    place: &'a Place,
    stop: &'a CancellationToken,
    /// When the current transaction began.
    begun: Option<Timestamp>,
}

impl<'a, I: Intake, S: AsyncRead + AsyncWrite + Unpin + Send> Connection<'a, I, S> {
    pub(super) fn new(
        front: &'a Front<I>,
        stream: S,
        client: IpAddr,
        admission: Arc<Admission>,
        place: &'a Place,
        stop: &'a CancellationToken,
    ) -> Connection<'a, I, S> {
        let session = Session::new(front.settings.clone());
        let trusted = admission.trusts(client);
        Connection { front, wire: Wire::new(stream), session, client, trusted, admission, place, stop, begun: None }
    }

    pub(super) async fn run(mut self) {
        tracing::debug!("{} connected", self.client);
        let Err(lost) = self.talk().await;
        tracing::debug!("{} left: {lost:?}", self.client);
        let last_word = match lost {
            Lost::Silent => Some(replies::SILENT),
            Lost::MakeRoom => Some(replies::MADE_ROOM),
            Lost::Stopping => Some(replies::STOPPING),
            Lost::Gone => return,
            Lost::SentAway => {
                if self.front.complaints.is_due(self.client) {
                    tracing::warn!("{} sent away: too many errors or idle commands on one connection", self.client);
                }
                None
            }
            Lost::Parted => None,
        };
        if let Some(answer) = last_word {
            answer.plain().write(&mut self.wire.output);
        }
        self.wire.close(lost != Lost::Parted).await;
    }

    async fn talk(&mut self) -> Result<std::convert::Infallible, Lost> {
        self.session.greet(&mut self.wire.output);
        loop {
            let action = self.hear().await?;
            let action = self.decide(action).await?;
            self.mark_place();
            match action {
                Action::Part => return Err(Lost::Parted),
                Action::Close => return Err(Lost::SentAway),
                Action::Skip(octets) => self.skip(octets).await?,
                _ => self.wire.flush_if_full().await?,
            }
        }
    }

    /// Waits for the next command and lets the session judge it.
    async fn hear(&mut self) -> Result<Action, Lost> {
        let since = self.now();
        loop {
            match self.wire.line() {
                Line::Whole(length, whole) => {
                    let action = self.session.command(&self.wire.input[..length], &mut self.wire.output);
                    self.wire.input.advance(whole);
                    return Ok(action);
                }
                Line::TooLong => return Ok(self.session.line_too_long(&mut self.wire.output)),
                Line::Endless => {
                    self.session.line_too_long(&mut self.wire.output);
                    return Ok(Action::Close);
                }
                Line::Partial => {}
            }
            self.wire.flush().await?;
            let left = left(since, COMMAND_MAX, self.now()).min(self.message_time_left());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Lost::Stopping),
                () = self.place.asked_to_leave(), if self.begun.is_none() => return Err(Lost::MakeRoom),
                read = timeout(left, self.wire.read_command()) => read.map_err(|_| Lost::Silent)??,
            };
        }
    }

    /// Does what the session asks for; what comes back needs no decision.
    async fn decide(&mut self, action: Action) -> Result<Action, Lost> {
        match action {
            Action::Admit(mail) => Ok(self.admit(*mail)),
            Action::AdmitRecipient(rcpt) => Ok(self.admit_recipient(*rcpt)),
            Action::Receive => {
                let said = self.receive().await?;
                Ok(self.session.end(&said, &mut self.wire.output))
            }
            other => Ok(other),
        }
    }

    fn admit(&mut self, mail: Mail) -> Action {
        let room = || self.front.intake.room(mail.size_bytes.unwrap_or(0)).map_err(|no| replies::NO_ROOM.with(no.0));
        let slowed = self
            .front
            .slowed
            .reason(self.client, self.now())
            .map_or(Ok(()), |why| Err(replies::SLOWED.with(why.to_string())));
        match slowed.and_then(|()| self.admission.sender(self.trusted, &mail)).and_then(|()| room()) {
            Ok(()) => self.session.begin(mail, &mut self.wire.output),
            Err(said) => {
                self.complain(&said);
                self.session.refuse(&said, &mut self.wire.output)
            }
        }
    }

    fn admit_recipient(&mut self, rcpt: Rcpt) -> Action {
        let address = match self.admission.recipient(self.trusted, self.client, rcpt.path) {
            Ok(address) => address,
            Err(said) => {
                self.complain(&said);
                return if self.trusted {
                    self.session.refuse_recipient(&said, &mut self.wire.output)
                } else {
                    self.session.error(&said, &mut self.wire.output)
                };
            }
        };
        let recipient = Recipient { address, orcpt: rcpt.orcpt, notify: rcpt.notify };
        let sender = self.session.transaction().map_or(&ReversePath::Null, |t| &t.mail.sender);
        match self.front.intake.standing(&recipient.address, sender) {
            Standing::Welcome => self.session.add(recipient, &mut self.wire.output),
            Standing::Drop => self.session.add_dropped(recipient, &mut self.wire.output),
            Standing::Refuse(suppressed) => {
                let said = suppressed_answer(&suppressed);
                let refusal = RefusedRecipient {
                    time: self.now(),
                    sender: self.session.transaction().map_or(&ReversePath::Null, |t| &t.mail.sender),
                    recipient: &recipient.address,
                    suppressed: &suppressed,
                    said: &said.line(),
                    client: self.client,
                };
                self.front.intake.refused(refusal);
                self.session.refuse_recipient(&said, &mut self.wire.output)
            }
        }
    }

    /// Reads the content to its end and hands the message over; gives the reply.
    async fn receive(&mut self) -> Result<Said, Lost> {
        let Some(transaction) = self.session.take_transaction() else {
            return Ok(replies::OUT_OF_ORDER.with("say MAIL first"));
        };
        let now = self.now();
        let id = self.front.intake.next_id(now);
        let hello = self.session.hello().cloned().unwrap_or(Hello { name: String::new(), extended: false });
        let trace = Trace {
            helo: &hello.name,
            client: self.client,
            hostname: &self.front.settings.hostname,
            protocol: protocol(&hello, &transaction.mail),
            id,
            now,
        };
        let (body, hold) = (self.front.intake.body(id), self.front.headers.hold());
        let mut content = Content::new(body, Header::new(&trace), hold, &self.front.limits);
        self.read_content(&mut content, now).await?;
        match content.finish() {
            Ok(whole) => Ok(self.hand_over(id, now, transaction, whole).await),
            Err(Refused { said, fault: Some(fault) }) => {
                self.report(id, &format!("writing the content: {fault}"));
                Ok(said)
            }
            Err(Refused { said, fault: None }) => {
                tracing::info!("{}: message from <{}> refused: {}", self.client, transaction.mail.sender, said.line());
                Ok(said)
            }
        }
    }

    async fn read_content(&mut self, content: &mut Content<I::Body>, since: Timestamp) -> Result<(), Lost> {
        let mut octets: u64 = 0;
        loop {
            let mut input = &self.wire.input[..];
            let is_complete = content.take(&mut input).await;
            let used = self.wire.input.len() - input.len();
            self.wire.input.advance(used);
            if is_complete {
                return Ok(());
            }
            self.wire.flush().await?;
            let allowed = CONTENT_START + Duration::from_secs(octets / RATE_MIN);
            let mut wait = left(since, allowed, self.now()).min(SILENCE_MAX).min(self.message_time_left());
            let stopping = self.stop.is_cancelled();
            if stopping {
                wait = wait.min(STOPPING_SILENCE_MAX);
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if !stopping => {}
                read = timeout(wait, self.wire.read_content()) => match read {
                    Ok(count) => octets += count? as u64,
                    Err(_) if stopping => return Err(Lost::Stopping),
                    Err(_) => return Err(Lost::Silent),
                },
            }
        }
    }

    async fn hand_over(
        &self,
        id: QueueId,
        received: Timestamp,
        transaction: Transaction,
        whole: Whole<I::Body>,
    ) -> Said {
        let Transaction { mail, recipients, dropped, .. } = transaction;
        let count = recipients.len() + dropped.len();
        let sender = mail.sender.to_string();
        let size_bytes = whole.size_bytes;
        let class = whole.facts.priority(Priority::Normal);
        let envelope = Envelope {
            id,
            received,
            sender: mail.sender,
            ret: mail.ret,
            envid: mail.envid,
            body_type: mail.body_type,
            smtputf8: mail.smtputf8,
            size_bytes,
            message_id: whole.facts.message_id,
            client: Some(self.client),
            user: None,
            expire: whole.facts.expire,
            class,
            origin: Origin::Client,
        };
        let client = self.client;
        match self.front.intake.accept(Received { envelope, recipients, dropped, body: whole.body }).await {
            Ok(()) => {
                tracing::info!(%id, %client, sender, recipients = count, size_bytes, "accepted");
                replies::QUEUED.with(id.to_string())
            }
            Err(error) => {
                self.report(id, &error.to_string());
                match error {
                    AcceptError::NoRoom(why) => replies::NO_ROOM.with(why),
                    AcceptError::Failed(_) => replies::SPOOL_FAILED.plain(),
                }
            }
        }
    }

    /// Passes over octets that belong to no command.
    async fn skip(&mut self, octets: u64) -> Result<(), Lost> {
        let since = self.now();
        let mut rest = octets;
        loop {
            let here = usize::try_from(rest).unwrap_or(usize::MAX).min(self.wire.input.len());
            self.wire.input.advance(here);
            rest -= here as u64;
            if rest == 0 {
                return Ok(());
            }
            self.wire.flush().await?;
            let allowed = CONTENT_START + Duration::from_secs((octets - rest) / RATE_MIN);
            let wait = left(since, allowed, self.now());
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Lost::Stopping),
                read = timeout(wait, self.wire.read_content()) => read.map_err(|_| Lost::Silent)??,
            };
        }
    }

    /// Keeps the place's mark in step: only a connection outside a transaction may be asked to make room. The transaction
    /// of a client without an accepted recipient that is not trusted protects nothing.
    fn mark_place(&mut self) {
        let counts = |t: &Transaction| self.trusted || !t.recipients.is_empty();
        match (self.session.transaction().is_some_and(counts), self.begun) {
            (true, None) => {
                self.begun = Some(self.now());
                self.place.busy();
            }
            (false, Some(_)) => {
                self.begun = None;
                self.place.idle(self.now());
            }
            _ => {}
        }
    }

    fn complain(&self, said: &Said) {
        if self.front.complaints.is_due(self.client) {
            tracing::warn!("{} refused: {}", self.client, said.line());
        }
    }

    /// Tells the operator of a message that could not be stored.
    fn report(&self, id: QueueId, why: &str) {
        if self.front.complaints.fault_is_due() {
            tracing::error!(%id, client = %self.client, "message not stored: {why}");
        }
    }

    fn message_time_left(&self) -> Duration {
        self.begun.map_or(Duration::MAX, |begun| left(begun, MESSAGE_MAX, self.now()))
    }

    fn now(&self) -> Timestamp {
        self.front.clock.now()
    }
}

fn left(since: Timestamp, allowed: Duration, now: Timestamp) -> Duration {
    allowed.saturating_sub(now.since(since))
}

/// RFC 3848, RFC 6531 section 4.3.
fn protocol(hello: &Hello, mail: &Mail) -> &'static str {
    match (mail.smtputf8, hello.extended) {
        (true, _) => "UTF8SMTP",
        (false, true) => "ESMTP",
        (false, false) => "SMTP",
    }
}

/// Reason and date, then the receiver's words.
fn suppressed_answer(suppressed: &Suppressed) -> Said {
    let since = suppressed.since.to_string();
    let date = since.split('T').next().unwrap_or_default();
    replies::SUPPRESSED.with(format!("{} since {date}, the receiver said: {}", suppressed.class, suppressed.reply))
}
