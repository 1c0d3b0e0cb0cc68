//! One transaction, and what must not be offered again.
//!
//! A message is known by what its sender calls it ([`Mail::identity`], ENVID in SMTP), else by its size; together with sender and
//! recipient that tells one message from another before its content is seen. Two messages of one sender to one recipient, alike
//! to the octet and without ENVID, look like one sent twice: as they do to any receiver.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::judgement::UNKNOWN_PATIENCE;

/// Messages with a 5xx, and unknown recipients, that are remembered: 16 MiB at most each.
const REMEMBERED_MAX: usize = 500_000;
/// Recipients of a transaction, whatever the profile says (RFC 5321 section 4.5.3.1.8 asks for 100).
pub(super) const RECIPIENTS_MAX: usize = 10_000;

/// What MAIL says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mail<'a> {
    /// The reverse path, without angle brackets.
    pub sender: &'a str,
    /// SIZE.
    pub size_bytes: Option<u64>,
    /// Names the message, the same each time it is tried.
    pub identity: Option<&'a str>,
}

/// A message under way.
#[derive(Clone, Debug)]
pub(super) struct Transaction {
    message: u64,
    /// MAIL was refused for good: what follows it in the pipeline still tells for whom the message was.
    pub(super) refused: bool,
    /// Accepted recipients, each with the message, as keys.
    pub(super) accepted: Vec<u64>,
}

impl Transaction {
    pub(super) fn new(mail: &Mail<'_>, refused: bool) -> Transaction {
        let message = match mail.identity {
            Some(identity) => hash(&(mail.sender, identity)),
            None => hash(&(mail.sender, mail.size_bytes)),
        };
        Transaction { message, refused, accepted: Vec::new() }
    }

    /// The message to this recipient.
    pub(super) fn key(&self, recipient: &str) -> u64 {
        hash(&(self.message, recipient.to_ascii_lowercase()))
    }
}

/// What was refused for good so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    refused: BTreeSet<u64>,
    unknown: BTreeMap<u64, u32>,
}

impl Memory {
    pub(super) fn refuse(&mut self, key: u64) {
        if self.refused.len() < REMEMBERED_MAX {
            self.refused.insert(key);
        }
    }

    pub(super) fn was_refused(&self, key: u64) -> bool {
        self.refused.contains(&key)
    }

    /// A message to someone who does not exist; whether there were too many.
    pub(super) fn unknown(&mut self, recipient: &str) -> bool {
        let key = hash(&recipient.to_ascii_lowercase());
        if self.unknown.len() >= REMEMBERED_MAX && !self.unknown.contains_key(&key) {
            return false;
        }
        let count = self.unknown.entry(key).or_default();
        *count = count.saturating_add(1);
        *count > UNKNOWN_PATIENCE
    }
}

/// The same for the same value in every run.
pub(super) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
