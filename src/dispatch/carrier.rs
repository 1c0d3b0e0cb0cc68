//! One connection's task: opens it, holds one transaction after the other on it, and closes it.
//!
//! It decides nothing. What it is told to do it does, what it hears it reports. Rules that always hold:
//! - before a recipient is offered, the suppression list is asked once more;
//! - `Closed` (or `OpenFailed`) is sent when the socket is really closed, and in every case: a place in the
//!   channel is set aside for it before the socket exists, and a panic sends it too.

use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::engine::Message;
use super::message::{ConnectionId, Done, Excerpt, Input, Job, Resolved, Transacted};
use crate::outbound::{Connection, Connector, Plan, Transaction};
use crate::spool::{Spool, Stored};
use crate::suppress::List;
use crate::types::{Body, Delivery, Envelope, Recipient};

/// What every connection needs.
pub(super) struct Parts {
    pub connector: Connector,
    pub spool: Spool,
    pub suppressions: List,
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
        self.tell(Input::Opened { connection: self.id }).await;
        let mut job = Some(first);
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

impl Parts {
    async fn hold(&self, connection: &mut Connection, job: Job) -> Done {
        let (envelope, delivery, body) = match self.content(&job).await {
            Ok(Some(content)) => content,
            Ok(None) => return Done::Missing { reusable: true },
            Err(text) => return Done::Unreadable { reusable: true, text },
        };
        let goes_on = job.recipients.is_some();
        let recipients = job.recipients.unwrap_or_else(|| delivery.recipients.clone());
        let (mut results, mut offered) = (Vec::new(), Vec::new());
        for recipient in recipients {
            match self.suppressed(&recipient) {
                Some(resolved) => results.push((recipient, resolved)),
                None => offered.push(recipient),
            }
        }
        let rest = offered.split_off(job.recipients_max.max(1).min(offered.len()));
        let mut held = Transacted {
            envelope: envelope.clone(),
            delivery: (!goes_on).then_some(delivery),
            results,
            rest,
            reusable: true,
            dsn: false,
            tls: connection.tls().cloned().unwrap_or_else(|| "none".into()),
            excerpt: None,
        };
        if !offered.is_empty() {
            let transaction = Transaction { envelope, recipients: offered, body: body.clone() };
            let report = connection.transact(&transaction).await;
            held.reusable = report.reusable;
            held.dsn = report.dsn;
            held.results
                .extend(transaction.recipients.into_iter().zip(report.outcomes.into_iter().map(Resolved::Outcome)));
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
    fn suppressed(&self, recipient: &Recipient) -> Option<Resolved> {
        match self.suppressions.check(&recipient.address) {
            Ok(entry) => entry.map(|entry| Resolved::Suppressed { class: entry.class, reply: entry.reply }),
            Err(error) => {
                // Better one RCPT too many than mail that stands still.
                tracing::warn!(%error, recipient = %recipient.address, "the suppression list cannot be read");
                None
            }
        }
    }
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
