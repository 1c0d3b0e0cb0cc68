//! Which messages a command means.
//!
//! All conditions that are given must hold; a filter without any means everything. Pure: the time comes in.

use serde::{Deserialize, Serialize};

use super::record::QueueState;
use crate::types::pattern::same_message_id;
use crate::types::{AddressPattern, Delivery, Domain, Envelope, QueueId, Span, Timestamp};

/// The conditions, one for each option of the commands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// One of these, if not empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<QueueId>,
    /// The recipients' domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender: Option<AddressPattern>,
    /// At least one recipient that still waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<AddressPattern>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<QueueState>,
    /// Who handed the message in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The Message-ID field, angle brackets or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Received at least this long ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<Span>,
    /// At most so many records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl Filter {
    /// Does it choose nothing, so that everything is meant? A limit chooses nothing.
    pub fn is_everything(&self) -> bool {
        Filter { limit: None, ..self.clone() } == Filter::default()
    }

    /// Is this delivery meant? `provider` is empty as long as no route is known; `limit` is the caller's to count.
    pub fn matches(
        &self,
        envelope: &Envelope,
        delivery: &Delivery,
        provider: &str,
        state: QueueState,
        now: Timestamp,
    ) -> bool {
        let recipient = |pattern: &AddressPattern| delivery.recipients.iter().any(|r| pattern.matches(&r.address));
        (self.ids.is_empty() || self.ids.contains(&envelope.id))
            && self.domain.as_ref().is_none_or(|domain| *domain == delivery.domain)
            && self.sender.as_ref().is_none_or(|pattern| pattern.matches_sender(&envelope.sender))
            && self.recipient.as_ref().is_none_or(recipient)
            && self.provider.as_deref().is_none_or(|wanted| wanted == provider)
            && self.state.is_none_or(|wanted| wanted == state)
            && self.user.as_deref().is_none_or(|wanted| envelope.user.as_deref() == Some(wanted))
            && self.message_id.as_deref().is_none_or(|wanted| same_message_id(wanted, envelope.message_id.as_deref()))
            && self.older_than.is_none_or(|span| now.since(envelope.received) >= span.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admin::record::tests::{delivery, envelope};

    fn matches(filter: &Filter) -> bool {
        let now = envelope().received + Duration::from_secs(7200);
        filter.matches(&envelope(), &delivery(), "outlook", QueueState::Waiting, now)
    }

    /// The filters a command line can make, from one option and its value.
    fn filter(option: &str, value: &str) -> Filter {
        serde_json::from_value(serde_json::json!({ option: value })).unwrap()
    }

    #[test]
    fn each_condition_decides_alone() {
        for (option, right, wrong) in [
            ("domain", "outlook.com", "hotmail.com"),
            ("sender", "News@Example.com", "ann@example.com"),
            ("sender", "@example.com", "@mail.example.com"),
            ("recipient", "bob@outlook.com", "bobby@outlook.com"),
            ("recipient", "@outlook.com", "@example.com"),
            ("provider", "outlook", "gmail"),
            ("state", "waiting", "held"),
            ("user", "app", "other"),
            ("message_id", "<1@example.com>", "<2@example.com>"),
            ("message_id", "1@example.com", "1@example.org"),
            ("older_than", "2h", "2h 1s"),
        ] {
            assert!(matches(&filter(option, right)), "{option} {right}");
            assert!(!matches(&filter(option, wrong)), "{option} {wrong}");
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let both = Filter { provider: Some("gmail".into()), ..filter("domain", "outlook.com") };
        assert!(!matches(&both));
        assert!(matches(&Filter::default()));
    }

    #[test]
    fn ids_choose_messages() {
        assert!(matches(&Filter { ids: vec![envelope().id], ..Filter::default() }));
        let other = QueueId::from_key(envelope().id.key() + 1).unwrap();
        assert!(!matches(&Filter { ids: vec![other], ..Filter::default() }));
    }

    #[test]
    fn a_limit_chooses_nothing() {
        assert!(Filter { limit: Some(10), ..Filter::default() }.is_everything());
        assert!(!filter("user", "app").is_everything());
    }
}
