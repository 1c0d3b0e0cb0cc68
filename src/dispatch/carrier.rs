//! One connection's task: opens it, holds one transaction after the other on it, and closes it.
//!
//! It decides nothing. What it is told to do it does, what it hears it reports. Rules that always hold:
//! - before a recipient is offered, the suppression list is asked once more;
//! - `Closed` (or `OpenFailed`) is sent when the socket is really closed, and in every case: a place in the
//!   channel is set aside for it before the socket exists, and a panic sends it too.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::engine::Message;
use super::message::{ConnectionId, Done, Excerpt, Input, Job, Resolved, Transacted};
use super::passed_on::Offered;
use crate::clock::Clock;
use crate::outbound::{Bdat, Connection, Connector, Outcome, Plan, Transaction};
use crate::spool::{Spool, Stored};
use crate::suppress::{Entry, List, Standing};
use crate::types::{Body, Delivery, Domain, Envelope, Mailbox, Own, Recipient, ReversePath, Seldom};

/// What every connection needs.
pub(super) struct Parts {
    pub connector: Connector,
    pub spool: Spool,
    pub suppressions: List,
    pub clock: Clock,
    pub said: Said,
    pub timed: Box<Timed>,
    pub greeted: Box<Greeted>,
}

/// Hears what a host answers to EHLO.
pub type Greeted = dyn Fn(Option<IpAddr>, &Arc<str>, &str) + Send + Sync;

/// Is told of each message that was offered: how long since it was accepted, and how long the transaction took.
pub type Timed = dyn Fn(Duration, Duration) + Send + Sync;

/// Faults that would meet every message, told of now and then.
pub(super) struct Said {
    unreadable: Seldom,
    list: Seldom,
}

impl Default for Said {
    fn default() -> Said {
        Said { unreadable: Seldom::minutely(), list: Seldom::minutely() }
    }
}

pub(super) struct Carrier {
    pub id: ConnectionId,
    pub parts: Arc<Parts>,
    pub inputs: mpsc::Sender<Message>,
    pub jobs: mpsc::Receiver<Job>,
}

/// The place in the channel for the end of a connection; used when it is dropped, whatever the reason.
struct LastWord {
    id: ConnectionId,
    place: Option<mpsc::OwnedPermit<Message>>,
}

impl LastWord {
    fn say(mut self, input: Input) {
        if let Some(place) = self.place.take() {
            place.send(Message::Input(input));
        }
    }
}

impl Drop for LastWord {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.send(Message::Input(Input::Closed { connection: self.id }));
        }
    }
}

impl Carrier {
    /// From the first connect to the closed socket.
    pub(super) async fn carry(mut self, plan: Plan, first: Job) {
        // Closed only when the engine is gone; then nobody counts connections any more.
        let Ok(place) = self.inputs.clone().reserve_owned().await else { return };
        let last_word = LastWord { id: self.id, place: Some(place) };
        let mut connection = match self.parts.connector.open(&plan).await {
            Ok(connection) => connection,
            Err(error) => {
                tracing::debug!(host = %plan.host, address = %plan.address, error = %error.text, "no connection");
                return last_word.say(Input::OpenFailed { connection: self.id, error });
            }
        };
        if let Some(line) = connection.ehlo().lines().next() {
            (self.parts.greeted)(plan.bind, connection.host(), &String::from_utf8_lossy(line));
        }
        self.tell(Input::Opened { connection: self.id, limits: connection.capabilities().limits }).await;
        let mut job = Some(first);
        if self.jobs.is_closed() {
            // Called back before its dialogue began: nothing was offered.
            self.tell(Input::Done { connection: self.id, done: Done::NotStarted }).await;
            job = None;
        }
        while let Some(next) = job.take() {
            let done = self.parts.hold(&mut connection, next).await;
            self.tell(Input::Done { connection: self.id, done }).await;
            job = self.next(&mut connection).await;
        }
        connection.close().await;
        drop(last_word);
    }

    /// The next job; none when it is time to close. A job that crossed with the end of the connection goes back.
    async fn next(&mut self, connection: &mut Connection) -> Option<Job> {
        let end = tokio::select! {
            biased;
            job = self.jobs.recv() => return job,
            end = connection.idle() => end,
        };
        tracing::debug!(host = %connection.host(), "idle connection ended: {end}");
        self.jobs.close();
        if self.jobs.recv().await.is_some() {
            self.tell(Input::Done { connection: self.id, done: Done::NotStarted }).await;
        }
        None
    }

    async fn tell(&self, input: Input) {
        // Closed only when the engine is gone; then nobody is left to tell.
        let _ = self.inputs.send(Message::Input(input)).await;
    }
}

/// How the recipients of a job stand with the suppression list.
#[derive(Default)]
struct Looked {
    results: Vec<(Recipient, Resolved)>,
    offered: Vec<Recipient>,
    /// Of those: refused before.
    remembered: Vec<Mailbox>,
}

impl Parts {
    async fn hold(&self, connection: &mut Connection, job: Job) -> Done {
        if !self.spool.healthy() || self.connector.is_stopping() {
            // It broke while the connection came to be: what is delivered now would be delivered again after a crash.
            return Done::NotStarted;
        }
        let (envelope, delivery, body) = match self.content(&job).await {
            Ok(Some(content)) => content,
            Ok(None) => return Done::Missing { reusable: true },
            Err(text) => {
                if self.said.unreadable.is_due(self.clock.now()) {
                    tracing::warn!("message {} cannot be read from the spool: {text}; it stays queued", job.id);
                }
                return Done::Unreadable { reusable: true };
            }
        };
        let goes_on = job.recipients.is_some();
        let own = delivery.own.clone();
        let recipients = job.recipients.unwrap_or_else(|| delivery.recipients.clone());
        let sender_domain = envelope.sender.mailbox().map(Mailbox::domain).cloned();
        let Looked { results, mut offered, remembered } = self.look_up(recipients, sender_domain.as_ref());
        // What the host said in its answer to EHLO the grant of the first message could not know.
        let named = connection.capabilities().limits.recipients.and_then(|most| usize::try_from(most).ok());
        let recipients_max = job.recipients_max.min(named.unwrap_or(usize::MAX)).max(1);
        let rest = offered.split_off(recipients_max.min(offered.len()));
        let mut held = Transacted {
            envelope: envelope.clone(),
            delivery: (!goes_on).then_some(delivery),
            results,
            rest,
            reusable: true,
            offered: Offered::default(),
            bdat: Bdat::Untold,
            tls: connection.tls().cloned().unwrap_or_else(|| "none".into()),
            excerpt: None,
        };
        if !offered.is_empty() {
            let (envelope, body) = own_copy(own.as_deref(), &envelope, &body);
            let (waited, begun) = (self.clock.now().since(envelope.received), self.clock.elapsed());
            let by = envelope.requests.by.map(|by| by.after(waited));
            let transaction = Transaction { envelope, recipients: offered, body, chunking: job.chunking, by };
            let report = connection.transact(&transaction).await;
            (self.timed)(waited, self.clock.elapsed().saturating_sub(begun));
            if self.connector.is_stopping() && report.says_nothing() {
                return Done::NotStarted;
            }
            held.reusable = report.reusable;
            held.offered = Offered { dsn: report.dsn, deliver_by: report.deliver_by };
            held.bdat = report.bdat;
            if matches!(report.bdat, Bdat::Refused | Bdat::Lost) {
                tracing::debug!(host = %connection.host(), "CHUNKING is offered and BDAT not taken: DATA from now on");
            }
            held.results
                .extend(transaction.recipients.into_iter().zip(report.outcomes.into_iter().map(Resolved::Outcome)));
            self.tell_delivered(&held.results, &remembered, sender_domain.as_ref()).await;
        }
        if held.may_need_report() {
            held.excerpt = Some(excerpt(&body).await);
        }
        Done::Held(Box::new(held))
    }

    async fn content(&self, job: &Job) -> Result<Option<(Arc<Envelope>, Delivery, Body)>, String> {
        if let Some(message) = &job.message
            && let Some(delivery) = message.deliveries.iter().find(|delivery| delivery.id == job.id)
        {
            return Ok(Some((message.envelope.clone(), delivery.clone(), message.body.clone())));
        }
        let stored = self.spool.load(job.id).await.map_err(|e| e.to_string())?;
        Ok(stored.map(|Stored { envelope, delivery, body }| (envelope, delivery, body)))
    }

    /// The list is asked just before the try: the answer may have come while this delivery waited.
    fn look_up(&self, recipients: Vec<Recipient>, sender_domain: Option<&Domain>) -> Looked {
        let mut looked = Looked::default();
        for recipient in recipients {
            match self.suppressions.standing(&recipient.address, sender_domain) {
                Ok(Standing::Free) => {}
                Ok(Standing::Remembered) => looked.remembered.push(recipient.address.clone()),
                Ok(Standing::Listed(entry)) => {
                    let Entry { class, reply, .. } = *entry;
                    looked.results.push((recipient, Resolved::Suppressed { class, reply }));
                    continue;
                }
                Err(error) => {
                    // Better one RCPT too many than mail that stands still.
                    if self.said.list.is_due(self.clock.now()) {
                        tracing::warn!(%error, recipient = %recipient.address, "the suppression list cannot be read");
                    }
                }
            }
            looked.offered.push(recipient);
        }
        looked
    }

    /// Who was refused before and has taken a message now starts afresh on the list.
    async fn tell_delivered(
        &self,
        results: &[(Recipient, Resolved)],
        remembered: &[Mailbox],
        sender_domain: Option<&Domain>,
    ) {
        for (recipient, resolved) in results {
            let is_delivered =
                matches!(resolved, Resolved::Outcome(Outcome::Replied { reply, .. }) if reply.is_positive());
            if !is_delivered || !remembered.contains(&recipient.address) {
                continue;
            }
            if let Err(error) = self.suppressions.note_delivered(&recipient.address, sender_domain).await
                && self.said.list.is_due(self.clock.now())
            {
                tracing::warn!(%error, recipient = %recipient.address, "the suppression list still counts old refusals");
            }
        }
    }
}

/// The message as this delivery sends it: some copies have a return path and fields of their own.
fn own_copy(own: Option<&Own>, envelope: &Arc<Envelope>, body: &Body) -> (Arc<Envelope>, Body) {
    let Some(own) = own else { return (envelope.clone(), body.clone()) };
    let body = body.headed(&own.header);
    let sender = own.return_path.clone().map_or_else(|| envelope.sender.clone(), ReversePath::Mailbox);
    let envelope = Envelope { sender, size_bytes: body.size_bytes(), ..(**envelope).clone() };
    (Arc::new(envelope), body)
}

/// The beginning of a message, for a report.
pub(super) async fn excerpt(body: &Body) -> Excerpt {
    if let Some(excerpt) = Excerpt::of(body) {
        return excerpt;
    }
    let Body::File { path, size_bytes } = body else { return Excerpt::default() };
    let mut bytes = Vec::new();
    if let Ok(file) = tokio::fs::File::open(path.as_path()).await {
        let _ = file.take(Excerpt::MAX_BYTES as u64).read_to_end(&mut bytes).await;
    }
    let complete = bytes.len() as u64 == *size_bytes;
    Excerpt { bytes: bytes.into(), complete }
}
