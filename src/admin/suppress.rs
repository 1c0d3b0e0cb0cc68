//! What the commands ask of the suppression list, and what they get: records that scripts read.

use serde::{Deserialize, Serialize};

use crate::types::{AddressPattern, Class, Domain, Mailbox, Timestamp};

/// Which entries a command means: all conditions that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuppressFilter {
    /// The recipients' domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recipient: Option<AddressPattern>,
    /// Held back for this sender domain alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_domain: Option<Domain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// How it came onto the list: `bounce`, `wave`, `complaint`, `unsubscribe`, `manual`, `import`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// A part of the words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
    /// The last refusal came at or after this moment, and before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Also what has run out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
    /// At most so many records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

impl SuppressFilter {
    /// Does it choose nothing, so that everything is meant?
    pub fn is_everything(&self) -> bool {
        SuppressFilter { limit: None, expired: false, ..self.clone() } == SuppressFilter::default()
    }

    /// Is this address meant? The other conditions are the list's to decide.
    pub fn matches_recipient(&self, recipient: &Mailbox) -> bool {
        self.recipient.as_ref().is_none_or(|pattern| pattern.matches(recipient))
    }
}

/// One entry of the suppression list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressRecord {
    pub recipient: String,
    pub class: Option<Class>,
    /// The refusal word for word, or the reason a person gave.
    pub reply: Option<String>,
    /// How it came onto the list: `bounce`, `wave`, `complaint`, `unsubscribe`, `manual`, `import`.
    pub source: String,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
    /// Refusals counted.
    pub hits: u64,
    /// Null: until it is removed.
    pub expires: Option<Timestamp>,
    /// How often it came onto the list to stay.
    #[serde(default)]
    pub terms: u32,
    /// Only mail from this domain is held back; null: all mail.
    #[serde(default)]
    pub sender_domain: Option<Domain>,
    #[serde(default)]
    pub tag: Option<String>,
    #[serde(default)]
    pub provider: Option<String>,
    #[serde(default)]
    pub rule: Option<String>,
    #[serde(default)]
    pub wave: Option<String>,
}

/// One line of an import into the suppression list. Only the address is needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportEntry {
    pub recipient: Mailbox,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The refusal's words, or why a person put it here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// How it came onto the list it is taken from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hits: Option<u64>,
    /// None: until it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_domain: Option<Domain>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
}

impl ImportEntry {
    /// An address and nothing else.
    pub fn of(recipient: Mailbox) -> ImportEntry {
        ImportEntry {
            recipient,
            class: None,
            reply: None,
            source: None,
            first: None,
            last: None,
            hits: None,
            expires: None,
            terms: None,
            sender_domain: None,
            tag: None,
            provider: None,
            rule: None,
            wave: None,
        }
    }
}

/// What became of one address of `suppress remove`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Removed {
    pub recipient: Mailbox,
    /// False: it was not on the list.
    pub removed: bool,
}

/// What an import has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    pub added: u64,
    /// Were on the list before.
    pub updated: u64,
}

/// How many entries a command chose and changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub entries: u64,
}

/// A wave of refusals that waits for `suppress confirm` or `suppress remove --wave`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaveRecord {
    pub wave: String,
    pub provider: Option<String>,
    /// Addresses that are held back provisionally.
    pub entries: u64,
    pub first: Timestamp,
    pub last: Timestamp,
    /// When the first of them are free again.
    pub expires: Option<Timestamp>,
}
