//! What the list holds, what it is told and what it answers: values alone.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::types::reading::words;
use crate::types::{Class, Domain, Mailbox, QueueId, Timestamp};

/// Replies are kept in the receiver's words up to this many characters.
const REPLY_MAX: usize = 1000;

words! {
    /// Who put an address onto the list.
    Source {
        /// A receiver's refusal.
        Bounce = "bounce",
        /// A receiver's refusal in a wave of them: for some days only, until a person decides.
        Wave = "wave",
        /// Somebody there called our mail unwanted.
        Complaint = "complaint",
        /// Somebody there asked to get no more.
        Unsubscribe = "unsubscribe",
        Manual = "manual",
        Import = "import",
    }
}

/// One address that is not written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// In the form of `Mailbox::key()`.
    pub recipient: String,
    /// Only mail from this domain is held back; none: all mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_domain: Option<Domain>,
    pub class: Class,
    /// The words that put it here.
    pub reply: String,
    pub source: Source,
    /// The first and the last time it was refused or put here.
    pub first: Timestamp,
    pub last: Timestamp,
    /// How often.
    pub hits: u64,
    /// None: until it is removed.
    pub expires: Option<Timestamp>,
    /// How often it came onto the list to stay. 0: it stands there provisionally, for the first time.
    #[serde(default = "once")]
    pub terms: u32,
    /// The receiver's own label in its words: `S3150`, `AS(1410)`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Whose refusal it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The rule that read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The wave of refusals it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
}

fn once() -> u32 {
    1
}

impl Entry {
    /// An entry for all senders that holds until it is removed.
    pub fn new(recipient: &Mailbox, class: Class, reply: &str, source: Source, at: Timestamp) -> Entry {
        Entry {
            recipient: recipient.key(),
            sender_domain: None,
            class,
            reply: shortened(reply),
            source,
            first: at,
            last: at,
            hits: 1,
            expires: None,
            terms: 1,
            tag: None,
            provider: None,
            rule: None,
            wave: None,
        }
    }

    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|moment| moment > now)
    }

    /// It waits for a person to confirm or undo its wave.
    pub fn is_provisional(&self) -> bool {
        self.source == Source::Wave
    }

    /// Does it hold back mail from `sender_domain` (none: the empty sender)?
    pub fn concerns(&self, sender_domain: Option<&Domain>) -> bool {
        self.sender_domain.is_none() || self.sender_domain.as_ref() == sender_domain
    }

    /// Two lists made one: whichever holds longer holds, and the later words stand. In which order the two come makes no
    /// difference to how long, how often and since when.
    #[must_use]
    pub fn merged(self, other: Entry) -> Entry {
        let expires = match (self.expires, other.expires) {
            (Some(a), Some(b)) => Some(a.max(b)),
            _ => None,
        };
        let (first, last) = (self.first.min(other.first), self.last.max(other.last));
        let (hits, terms) = (self.hits.max(other.hits), self.terms.max(other.terms));
        let later = if other.last >= self.last { other } else { self };
        Entry { first, last, hits, expires, terms, ..later }
    }

    pub(super) fn place(&self) -> Place {
        Place { recipient: self.recipient.clone(), sender_domain: scope(self.sender_domain.as_ref()) }
    }
}

fn shortened(reply: &str) -> String {
    reply.char_indices().nth(REPLY_MAX).and_then(|(end, _)| reply.get(..end)).unwrap_or(reply).to_string()
}

/// Where an entry stands in the list: the order of pages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub(super) recipient: String,
    /// Empty: all senders.
    pub(super) sender_domain: String,
}

impl Place {
    /// As it was given out; any other text is a place, too, if one where nothing stands.
    pub fn parse(text: &str) -> Place {
        let (recipient, sender_domain) = text.split_once(' ').unwrap_or((text, ""));
        Place { recipient: recipient.to_string(), sender_domain: sender_domain.to_string() }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.recipient, self.sender_domain)
    }
}

pub(super) fn scope(sender_domain: Option<&Domain>) -> String {
    sender_domain.map(|domain| domain.as_str().to_ascii_lowercase()).unwrap_or_default()
}

/// A refusal for good that a receiver gave to one recipient of one message. What it comes to is the list's to decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    pub mailbox: Mailbox,
    pub class: Class,
    /// The receiver's words.
    pub reply: String,
    /// The rule that read them.
    pub rule: Arc<str>,
    pub tag: Option<String>,
    pub provider: Arc<str>,
    /// `Bounce`, or `Complaint` from a feedback loop.
    pub source: Source,
    /// Of the envelope's sender; none for the empty one.
    pub sender_domain: Option<Domain>,
    pub message: QueueId,
    /// Under way: what comes onto the list now comes provisionally, under this id.
    pub wave: Option<Arc<str>>,
    pub at: Timestamp,
}

/// What a receiver says of others changes what its word about one is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It takes others: who was listed provisionally stays as long as any other.
    Settled,
    /// It takes nobody: who was listed is listed provisionally.
    Raised,
    /// It means us: who was listed provisionally is not any more.
    Justified,
}

/// What a refusal came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The recipient (for this sender, where the class asks for it) is held back now.
    pub listed: bool,
    /// It was not before: it came onto the list with this refusal.
    pub is_new: bool,
    pub expires: Option<Timestamp>,
}

/// How a recipient stands just before a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known.
    Free,
    /// Not held back, but refused before: tell the list if this message is delivered (`List::note_delivered`).
    Remembered,
    Listed(Box<Entry>),
}

/// What a list is asked for; `None` takes all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub class: Option<Class>,
    pub source: Option<Source>,
    /// A part of the address.
    pub recipient: Option<String>,
    /// The recipient's.
    pub domain: Option<Domain>,
    pub sender_domain: Option<Domain>,
    /// A part of the reply.
    pub reply: Option<String>,
    /// Whatever the letter case; so are provider and wave exact.
    pub tag: Option<String>,
    pub provider: Option<String>,
    pub wave: Option<String>,
    /// The last refusal came at or after, and before.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Also those that have expired.
    pub expired: bool,
}

impl Filter {
    /// Lower-case forms are made once, not for each of ten million entries.
    pub(super) fn prepared(&self, now: Timestamp) -> impl Fn(&Entry) -> bool + use<'_> {
        let suffix = self.domain.as_ref().map(|domain| format!("@{domain}").to_lowercase());
        let part = self.recipient.as_ref().map(|part| part.to_lowercase());
        let words = self.reply.as_ref().map(|words| words.to_lowercase());
        let same = |wanted: &Option<String>, found: &Option<String>| {
            wanted.as_ref().is_none_or(|wanted| found.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(wanted)))
        };
        move |entry: &Entry| {
            (self.expired || entry.is_in_force(now))
                && self.class.is_none_or(|class| entry.class == class)
                && self.source.is_none_or(|source| entry.source == source)
                && suffix.as_ref().is_none_or(|suffix| entry.recipient.ends_with(suffix))
                && part.as_ref().is_none_or(|part| entry.recipient.contains(part))
                && self.sender_domain.as_ref().is_none_or(|domain| entry.sender_domain.as_ref() == Some(domain))
                && words.as_ref().is_none_or(|words| entry.reply.to_lowercase().contains(words))
                && same(&self.tag, &entry.tag)
                && same(&self.provider, &entry.provider)
                && same(&self.wave, &entry.wave)
                && self.since.is_none_or(|moment| entry.last >= moment)
                && self.until.is_none_or(|moment| entry.last < moment)
        }
    }
}

/// One page of a list, in the order of the addresses.
#[derive(Clone, Debug)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// Where to go on; none at the end. A page may be empty and not the last.
    pub next: Option<Place>,
}

/// A wave of refusals that waits for a person's decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wave {
    pub id: String,
    pub provider: Option<String>,
    /// Addresses held back provisionally.
    pub entries: u64,
    /// Of its first and last refusal.
    pub first: Timestamp,
    pub last: Timestamp,
    /// When the first of them run out.
    pub expires: Option<Timestamp>,
}
