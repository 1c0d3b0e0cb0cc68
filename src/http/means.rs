//! What the room needs of the rest of the relay.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::admin::record::{QueueDetail, QueueRecord, RelayRecord};
use crate::admin::{Control, Failed, Filter, SuppressFilter, SuppressRecord};
use crate::metrics::history::Span;
use crate::types::{QueueId, Timestamp};

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

/// Which events are wanted; all conditions that are given must hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventQuery {
    /// One of these, if not empty.
    pub kinds: Vec<crate::types::EventKind>,
    pub provider: Option<String>,
    pub recipient: Option<String>,
    pub sender: Option<String>,
    pub id: Option<QueueId>,
    pub message_id: Option<String>,
    pub user: Option<String>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
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
        query: EventQuery,
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

    /// The text for the receiver's form; none: nothing is known of the provider.
    fn report(&self, provider: String) -> impl Future<Output = Result<Option<String>, Failed>> + Send;
}
