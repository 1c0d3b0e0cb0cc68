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
/// The same while the system is short of memory: what is on its way at the moment.
const BYTES_MAX_SHORT: u64 = 1 << 20;
/// What a message costs beside its body, and each of its recipients.
const OVERHEAD_BYTES: u64 = 1024;
const RECIPIENT_BYTES: u64 = 512;

#[derive(Debug, Default)]
pub(super) struct Fresh {
    messages: BTreeMap<QueueId, (Arc<Committed>, usize)>,
    bytes: u64,
    short: bool,
}

impl Fresh {
    /// The system is short of memory, or no longer. The last to come are the first to be left out.
    pub(super) fn set_short(&mut self, short: bool) {
        self.short = short;
        while self.bytes > self.bytes_max()
            && let Some((_, (message, _))) = self.messages.pop_last()
        {
            self.bytes -= cost(&message);
        }
    }

    fn bytes_max(&self) -> u64 {
        if self.short { BYTES_MAX_SHORT } else { BYTES_MAX }
    }

    pub(super) fn insert(&mut self, message: &Arc<Committed>) {
        let cost = cost(message);
        if self.bytes + cost > self.bytes_max() || self.messages.len() >= MESSAGES_MAX || message.deliveries.is_empty()
        {
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
        Body::File { .. } | Body::Headed { .. } => 0,
    };
    let recipients: usize = message.deliveries.iter().map(|delivery| delivery.recipients.len()).sum();
    let own: usize = message.deliveries.iter().flat_map(|delivery| &delivery.own).map(|own| own.header.len()).sum();
    body + OVERHEAD_BYTES + RECIPIENT_BYTES * recipients as u64 + own as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::core_tests::committed;

    #[test]
    fn a_message_to_very_many_costs_what_its_recipients_do() {
        let mut fresh = Fresh::default();
        let mut message = committed(1, 10);
        message.deliveries = vec![message.deliveries[0].clone(); 1000];
        for n in 1..=100 {
            let envelope = (*message.envelope).clone();
            let id = crate::types::QueueId::from_key(n).unwrap();
            let envelope = Arc::new(crate::types::Envelope { id, ..envelope });
            fresh.insert(&Arc::new(Committed { envelope, ..message.clone() }));
        }
        assert!((20..=33).contains(&fresh.messages.len()), "{}", fresh.messages.len());
    }

    #[test]
    fn while_memory_is_short_the_last_to_come_are_left_out() {
        let mut fresh = Fresh::default();
        let messages: Vec<_> = (1..=40).map(|n| Arc::new(committed(n, 100 << 10))).collect();
        messages.iter().for_each(|message| fresh.insert(message));
        let kept = |fresh: &Fresh| messages.iter().filter(|m| fresh.get(m.envelope.id).is_some()).count();
        assert_eq!(kept(&fresh), 40);
        fresh.set_short(true);
        assert!((5..=10).contains(&kept(&fresh)) && fresh.bytes <= BYTES_MAX_SHORT, "{}", kept(&fresh));
        assert!(fresh.get(messages[0].envelope.id).is_some());
        fresh.insert(&messages[39]);
        assert!(fresh.get(messages[39].envelope.id).is_none());
        fresh.set_short(false);
        fresh.insert(&messages[39]);
        assert!(fresh.get(messages[39].envelope.id).is_some());
        messages.iter().for_each(|message| fresh.remove(message.envelope.id));
        assert_eq!(fresh.bytes, 0);
    }
}
