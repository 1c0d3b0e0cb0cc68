//! Messages that have just come in and need not be read back to be delivered.
//!
//! Bounded: what does not fit is read from the spool when its turn comes. The first to come are the first to go, so it
//! is the newcomers that are left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::spool::Committed;
use crate::types::{Body, QueueId};

/// Bodies kept in memory, all together.
const BYTES_MAX: u64 = 16 << 20;
const MESSAGES_MAX: usize = 10_000;
/// What a message costs beside its body.
const OVERHEAD_BYTES: u64 = 1024;

#[derive(Debug, Default)]
pub(super) struct Fresh {
    messages: BTreeMap<QueueId, (Arc<Committed>, usize)>,
    bytes: u64,
}

impl Fresh {
    pub(super) fn insert(&mut self, message: &Arc<Committed>) {
        let cost = cost(message);
        if self.bytes + cost > BYTES_MAX || self.messages.len() >= MESSAGES_MAX || message.deliveries.is_empty() {
            return;
        }
        let parts = message.deliveries.len();
        if self.messages.insert(message.envelope.id, (message.clone(), parts)).is_none() {
            self.bytes += cost;
        }
    }

    pub(super) fn get(&self, id: QueueId) -> Option<&Arc<Committed>> {
        self.messages.get(&id).map(|(message, _)| message)
    }

    /// The spool knows better: recipients of it have been settled.
    pub(super) fn remove(&mut self, id: QueueId) {
        if let Some((message, _)) = self.messages.remove(&id) {
            self.bytes -= cost(&message);
        }
    }

    /// One delivery of the message needs it no more.
    pub(super) fn leave(&mut self, id: QueueId) {
        let Some((message, parts)) = self.messages.get_mut(&id) else { return };
        *parts -= 1;
        if *parts == 0 {
            self.bytes -= cost(message);
            self.messages.remove(&id);
        }
    }
}

fn cost(message: &Committed) -> u64 {
    let body = match &message.body {
        Body::Inline(bytes) => bytes.len() as u64,
        Body::File { .. } => 0,
    };
    body + OVERHEAD_BYTES
}
