//! `[suppression]`: what happens to mail for recipients who were refused for good, how many refusals it takes, and how
//! long it holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{Class, Span};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Suppression {
    pub at_injection: AtInjection,
    /// Refusals of different messages that put an address onto the list; beyond 1: on different days (UTC).
    pub after: After,
    /// How long the first time holds; the second holds until it is removed.
    pub keep: Keep,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AtInjection {
    /// `550 5.1.1` at RCPT.
    #[default]
    Reject,
    /// Accepted, recorded, not sent.
    Drop,
}

/// Refusals, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct After {
    pub recipient_unknown: u32,
    pub recipient_disabled: u32,
    pub mailbox_full: u32,
    pub recipient_policy: u32,
    pub other: u32,
}

/// Times, by class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Keep {
    pub recipient_unknown: Span,
    pub recipient_disabled: Span,
    pub mailbox_full: Span,
    pub recipient_policy: Span,
    pub other: Span,
}

impl Default for After {
    fn default() -> After {
        After { recipient_unknown: 1, recipient_disabled: 1, mailbox_full: 3, recipient_policy: 3, other: 3 }
    }
}

impl Default for Keep {
    fn default() -> Keep {
        let days = |days: u64| Span(Duration::from_secs(days * 86_400));
        Keep {
            recipient_unknown: days(90),
            recipient_disabled: days(90),
            mailbox_full: days(14),
            recipient_policy: days(30),
            other: days(30),
        }
    }
}

/// What holds for one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// At least 1.
    pub after: u32,
    pub keep: Duration,
}

/// `after` and `keep` as the list needs them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    pub after: After,
    pub keep: Keep,
}

impl Suppression {
    pub fn policy(&self) -> Policy {
        Policy { after: self.after, keep: self.keep }
    }
}

impl Policy {
    /// None: refusals of this class say nothing lasting about the recipient.
    pub fn rule(&self, class: Class) -> Option<Rule> {
        let Policy { after, keep } = self;
        let (after, keep) = match class {
            Class::RecipientUnknown => (after.recipient_unknown, keep.recipient_unknown),
            Class::RecipientDisabled => (after.recipient_disabled, keep.recipient_disabled),
            Class::MailboxFull => (after.mailbox_full, keep.mailbox_full),
            Class::RecipientPolicy => (after.recipient_policy, keep.recipient_policy),
            Class::Other => (after.other, keep.other),
            _ => return None,
        };
        Some(Rule { after: after.max(1), keep: keep.0 })
    }
}
