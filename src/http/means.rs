//! What the room needs of the rest of the relay.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::admin::record::{FeedbackRecord, QueueDetail, QueueRecord, RelayRecord};
use crate::admin::{Control, Failed, Filter, SuppressFilter, SuppressRecord};
use crate::event::Choice;
use crate::metrics::history::Span;
use crate::submit::keys::{Begun, Mark};
use crate::submit::{NotTaken, Submission, Submitted};
use crate::types::{Mailbox, QueueId, Timestamp};

/// One page of something long.
#[derive(Clone, Debug, Serialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where to go on; null at the end. A page may have few items or none and not be the last.
    pub next: Option<String>,
}

/// How many a filter means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub messages: u64,
    pub recipients: u64,
    /// Counting took too long: these and more.
    pub at_least: bool,
}

/// An alert that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StandingAlert {
    pub key: String,
    pub since: Timestamp,
    pub text: String,
    pub remedy: String,
    pub provider: Option<Arc<str>>,
}

/// Lines of the event log, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventPage {
    /// As they stand in the log, without line feeds.
    pub lines: Vec<String>,
    pub next: Option<String>,
}

/// The relay, as far as this room asks it.
pub trait Means: Control {
    fn now(&self) -> Timestamp;

    /// The relay as a whole, without its lanes.
    fn relay(&self) -> impl Future<Output = Result<RelayRecord, Failed>> + Send;

    /// It stops: what comes now is better sent elsewhere.
    fn is_stopping(&self) -> bool;

    /// Everything for `/metrics`.
    fn metrics(&self) -> impl Future<Output = Result<String, Failed>> + Send;

    fn alerts(&self) -> Vec<StandingAlert>;

    fn queue_page(
        &self,
        filter: Filter,
        after: Option<String>,
        limit: usize,
    ) -> impl Future<Output = Result<Page<QueueRecord>, Failed>> + Send;

    fn queue_count(&self, filter: Filter) -> impl Future<Output = Result<Counted, Failed>> + Send;

    /// The deliveries of a message; none where it is not in the queue.
    fn queue_message(&self, id: QueueId) -> impl Future<Output = Result<Vec<QueueDetail>, Failed>> + Send;

    /// The header of a message in the queue, never its body.
    fn header(&self, id: QueueId) -> impl Future<Output = Result<Option<String>, Failed>> + Send;

    fn suppressions_page(
        &self,
        filter: SuppressFilter,
        after: Option<String>,
        limit: usize,
    ) -> impl Future<Output = Result<Page<SuppressRecord>, Failed>> + Send;

    /// How many entries the list has.
    fn suppressions_count(&self) -> impl Future<Output = Result<u64, Failed>> + Send;

    /// Ends a wave: its addresses are written to again.
    fn undo_wave(&self, wave: String) -> impl Future<Output = Result<u64, Failed>> + Send;

    fn events(
        &self,
        choice: Choice,
        before: Option<String>,
        limit: usize,
    ) -> impl Future<Output = Result<EventPage, Failed>> + Send;

    /// Lines of the event log as they are written, several in one piece.
    fn follow(&self) -> broadcast::Receiver<Bytes>;

    /// The plots of a span, as JSON.
    fn history(&self, span: Span) -> serde_json::Value;

    /// The providers with a profile, and what each was given: JSON of one object each.
    fn profiles(&self) -> Vec<serde_json::Value>;

    /// How a reply is read, as JSON; the error says what is wrong with the question.
    fn explain(&self, reply: &str, provider: Option<&str>, stage: Option<&str>) -> Result<serde_json::Value, Failed>;

    /// Whose token this is, among the users of the relay.
    fn user_of_token(&self, token: &str) -> Option<String>;

    /// Checks a user's password, and guards it against guessing; the error says why not.
    fn log_in(&self, client: IpAddr, user: &str, password: &str)
    -> impl Future<Output = Result<String, Failed>> + Send;

    /// The largest message that is taken.
    fn message_size_max(&self) -> u64;

    /// A Message-ID of our own, with its angle brackets; of one key always the same.
    fn message_id(&self, sender: &str, key: Option<&Mark>) -> String;

    /// Hands a message in for a user, or for the operator.
    fn submit(
        &self,
        user: Option<String>,
        client: IpAddr,
        message: Submission,
    ) -> impl Future<Output = Result<Submitted, NotTaken>> + Send;

    /// What was handed in under a key before.
    fn begin_key(&self, key: Mark, body: Mark) -> impl Future<Output = Result<Begun, Failed>> + Send;

    /// The queue id of a message that was taken since then, by the event log.
    fn taken_since(
        &self,
        message_id: &str,
        since: Timestamp,
    ) -> impl Future<Output = Result<Option<QueueId>, Failed>> + Send;

    /// The text for the receiver's form; none: nothing is known of the provider.
    fn report(&self, provider: String) -> impl Future<Output = Result<Option<String>, Failed>> + Send;

    /// Takes one answer to our mail: `recipient` is where it was sent to, if that is known.
    fn feedback(
        &self,
        message: Bytes,
        recipient: Option<Mailbox>,
        client: IpAddr,
    ) -> impl Future<Output = Result<FeedbackRecord, Failed>> + Send;

    /// The recipient whose token this is wants no more.
    fn click(&self, token: &str, client: IpAddr) -> impl Future<Output = Clicked> + Send;

    /// What a click would come to; changes nothing.
    fn peek(&self, token: &str) -> Clicked;
}

/// What a click to unsubscribe came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clicked {
    Done,
    Unknown,
    Expired,
    Failed,
    /// Nobody unsubscribes here.
    Off,
}
