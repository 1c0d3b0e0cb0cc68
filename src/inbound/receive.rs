//! The content of messages, from the wire into the spool: behind DATA, and in chunks (RFC 3030).
//!
//! Rules that always hold:
//! - octets that were announced are read to their end, whatever is wrong with them, and never taken for commands;
//! - content has to flow: silence, a rate below the least and too long a time in all end the connection (`pressure`);
//! - while the relay stops, content that flows may come to its end.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::smtp::header::{Facts, Header};
use crate::smtp::replies::{self, Said};
use crate::smtp::session::Hello;
use crate::smtp::trace::Trace;
use crate::smtp::{Action, Decoder, Mail, Transaction};
use crate::types::{Envelope, Origin, Priority, QueueId, Requests, SCHEDULE_MAX, Timestamp};

use super::connection::{Connection, STOPPING_SILENCE_MAX, left};
use super::content::{Content, Refused, Whole};
use super::intake::{AcceptError, Intake, Received};
use super::wire::Lost;

/// A message whose content comes.
pub(super) struct Incoming<B> {
    id: QueueId,
    /// When its content began.
    received: Timestamp,
    content: Content<B>,
}

impl<I: Intake, S: AsyncRead + AsyncWrite + Unpin + Send> Connection<'_, I, S> {
    /// Reads the content to its end and hands the message over; gives the reply.
    pub(super) async fn receive(&mut self) -> Result<Said, Lost> {
        let Some(transaction) = self.session.take_transaction() else {
            return Ok(replies::OUT_OF_ORDER.with("say MAIL first"));
        };
        let space = self.space.take();
        let mut incoming = self.incoming(&transaction.mail, Decoder::new(), space);
        let mut octets = 0;
        loop {
            let mut input = &self.wire.input[..];
            let is_complete = incoming.content.take(&mut input).await;
            let used = self.wire.input.len() - input.len();
            self.wire.input.advance(used);
            if is_complete {
                return Ok(self.conclude(incoming, transaction).await);
            }
            octets += self.more(incoming.received, octets).await?;
        }
    }

    /// Reads one chunk of a message, and hands the message over after the last.
    pub(super) async fn receive_chunk(&mut self, octets: u64, last: bool) -> Result<Action, Lost> {
        let space = self.space.take();
        let mut incoming = match (self.chunks.take(), self.session.transaction()) {
            (Some(incoming), _) => incoming,
            (None, Some(transaction)) => Box::new(self.incoming(&transaction.mail, Decoder::counted(), space)),
            (None, None) => return Ok(Action::Skip(octets)),
        };
        self.pass_over(octets, Some(&mut incoming.content)).await?;
        if let Some(said) = incoming.content.refusal().cloned().filter(|_| !last) {
            return Ok(self.session.end(&said, &mut self.wire.output));
        }
        if !last {
            self.chunks = Some(incoming);
            return Ok(self.session.taken(octets, &mut self.wire.output));
        }
        incoming.content.finish_chunks().await;
        let Some(transaction) = self.session.take_transaction() else { return Ok(Action::Listen) };
        let said = self.conclude(*incoming, transaction).await;
        Ok(self.session.end(&said, &mut self.wire.output))
    }

    /// Passes over octets that belong to no command: into `content`, or into nothing.
    pub(super) async fn pass_over(
        &mut self,
        octets: u64,
        mut content: Option<&mut Content<I::Body>>,
    ) -> Result<(), Lost> {
        let since = self.now();
        let mut rest = octets;
        loop {
            let here = usize::try_from(rest).unwrap_or(usize::MAX).min(self.wire.input.len());
            if let Some(content) = &mut content {
                content.take(&mut &self.wire.input[..here]).await;
            }
            self.wire.input.advance(here);
            rest -= here as u64;
            if rest == 0 {
                return Ok(());
            }
            self.more(since, octets - rest).await?;
        }
    }

    /// Waits for more content; gives how much came. `octets` have come since then.
    async fn more(&mut self, since: Timestamp, octets: u64) -> Result<u64, Lost> {
        self.flush().await?;
        let heard = self.now();
        loop {
            let stopping = self.stop.is_cancelled();
            let (patience, now) = (self.gauge.patience(), self.now());
            let flowing = left(since, patience.content(octets), now).min(left(heard, patience.silence, now));
            let mut wait = flowing.min(self.message_time_left());
            if stopping {
                wait = wait.min(STOPPING_SILENCE_MAX);
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled(), if !stopping => {}
                () = self.gauge.changed() => {}
                read = timeout(wait, self.wire.read_content()) => return match read {
                    Ok(count) => Ok(count? as u64),
                    Err(_) if stopping => Err(Lost::Stopping),
                    Err(_) => Err(Lost::Silent),
                },
            }
        }
    }

    fn incoming(&self, mail: &Mail, decoder: Decoder, space: Option<I::Space>) -> Incoming<I::Body> {
        let received = self.now();
        let id = self.front.intake.next_id(received);
        let hello = self.session.hello().cloned().unwrap_or(Hello { name: String::new(), extended: false });
        let tls = self.wire.tls();
        let trace = Trace {
            helo: &hello.name,
            client: self.client,
            private: self.admission.hides_clients(),
            hostname: &self.front.settings.hostname,
            protocol: protocol(&hello, mail, tls.is_some(), self.user.is_some()),
            tls: tls.as_deref(),
            id,
            priority: mail.requests.priority,
            now: received,
        };
        let header = Header::new(&trace);
        let (body, hold) = (self.front.intake.body(id, &mail.sender, space), self.front.headers.hold());
        let header = header.qualifying(self.admission.qualify(self.may_relay()).cloned());
        let reads_from = self.admission.reads_from(self.user.as_deref(), mail);
        let header = if reads_from { header.reading_from() } else { header };
        Incoming { id, received, content: Content::new(decoder, body, header, hold, &self.front.limits) }
    }

    /// The content is complete: the reply to it.
    async fn conclude(&mut self, incoming: Incoming<I::Body>, transaction: Transaction) -> Said {
        let Incoming { id, received, content } = incoming;
        let is_answer = self.is_answer(&transaction.recipients);
        let whole = content.finish().and_then(|whole| {
            if is_answer {
                // It is not sent on: whom it is from, and when it is to go, is nobody's affair.
                return Ok(whole);
            }
            let user = self.user.as_deref();
            match self.admission.authors(user, &transaction.mail, &whole.facts.authors) {
                Ok(()) => match scheduled(&whole.facts, &transaction.mail.requests, received) {
                    Ok(()) => Ok(whole),
                    Err(said) => Err(Refused { said, fault: None }),
                },
                Err(said) => Err(Refused { said, fault: None }),
            }
        });
        match whole {
            Ok(whole) => match self.hand_over(id, received, transaction, whole).await {
                said if is_answer && said.answer == replies::QUEUED => replies::ANSWER_TAKEN.with(id.to_string()),
                said => said,
            },
            Err(Refused { said, fault: Some(fault) }) => {
                self.report(id, &format!("writing the content: {fault}"));
                said
            }
            Err(Refused { said, fault: None }) => {
                tracing::info!("{}: message from <{}> refused: {}", self.client, transaction.mail.sender, said.line());
                said
            }
        }
    }

    async fn hand_over(
        &mut self,
        id: QueueId,
        received: Timestamp,
        transaction: Transaction,
        whole: Whole<I::Body>,
    ) -> Said {
        let Transaction { mail, recipients, dropped, .. } = transaction;
        let count = recipients.len() + dropped.len();
        let sender = mail.sender.to_string();
        let size_bytes = whole.size_bytes;
        let user = self.user.as_deref();
        let (usual, most) = user.map_or((Priority::Normal, Priority::High), |user| (user.class, user.class_max));
        let class = whole.facts.priority(&mail.requests, usual, most);
        let asked = sooner(whole.facts.expire, mail.requests.returns_after());
        let release = mail.requests.release.map(|release| release.moment(received));
        // Neither of the two is broken by the later one.
        let at = whole.facts.at.max(release);
        // A user's mail is tried so long, from when it may be.
        let waits = at.map_or(Duration::ZERO, |at| at.since(received));
        let allowed = user.and_then(|user| user.expire).map(|expire| expire.saturating_add(waits));
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
            user: user.map(|user| user.name.to_string()),
            requests: mail.requests,
            expire: sooner(asked, allowed),
            class,
            origin: Origin::Client,
        };
        let client: IpAddr = self.client;
        let aside = self.aside.take();
        let user = envelope.user.clone();
        let message = Received { envelope, recipients, dropped, body: whole.body, at, tls: self.wire.tls() };
        match self.front.intake.accept(message).await {
            Ok(()) => {
                if let Some(aside) = aside {
                    aside.count(self.now());
                }
                tracing::debug!(%id, %client, user, sender, recipients = count, size_bytes, "accepted");
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
}

/// Is the time that the message asks for one it can wait for? What MAIL alone asks for was looked at there.
fn scheduled(facts: &Facts, requests: &Requests, received: Timestamp) -> Result<(), Said> {
    let release = requests.release.map(|release| release.moment(received));
    let expire = sooner(facts.expire, requests.returns_after());
    let latest = received + SCHEDULE_MAX;
    match facts.at {
        _ if facts.is_at_wrong => Err(replies::BAD_TIME.with("write it as in 2026-12-01T08:00:00Z")),
        Some(at) if at > latest => {
            Err(replies::BAD_TIME.with(format!("it is past {latest}, the latest it can be kept for")))
        }
        at => match at.max(release) {
            Some(at) if expire.is_some_and(|span| received + span <= at) => {
                Err(replies::BAD_TIME.with("X-Weir-Expire counts from now, and ends before it"))
            }
            _ => Ok(()),
        },
    }
}

/// What the message asks for, but never longer than its user may have it tried.
fn sooner(asked: Option<Duration>, allowed: Option<Duration>) -> Option<Duration> {
    match (asked, allowed) {
        (Some(asked), Some(allowed)) => Some(asked.min(allowed)),
        (one, other) => one.or(other),
    }
}

/// RFC 3848, RFC 6531 section 4.3.
fn protocol(hello: &Hello, mail: &Mail, is_secure: bool, is_logged_in: bool) -> &'static str {
    if !hello.extended && !mail.smtputf8 {
        return "SMTP";
    }
    match (mail.smtputf8, is_secure, is_logged_in) {
        (false, false, false) => "ESMTP",
        (false, false, true) => "ESMTPA",
        (false, true, false) => "ESMTPS",
        (false, true, true) => "ESMTPSA",
        (true, false, false) => "UTF8SMTP",
        (true, false, true) => "UTF8SMTPA",
        (true, true, false) => "UTF8SMTPS",
        (true, true, true) => "UTF8SMTPSA",
    }
}
