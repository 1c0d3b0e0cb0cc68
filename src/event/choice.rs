//! Which events are meant.
//!
//! All conditions that are given must hold; a choice without any means every event. `Sieve` tells most lines that are not meant by
//! their octets, before they are parsed: it may let a wrong one through and never holds back a right one.

use std::collections::BTreeSet;

use memchr::memmem::Finder;

use super::entry::Entry;
use crate::types::pattern::same_message_id;
use crate::types::{AddressPattern, EventKind, Mailbox, QueueId, ReversePath, Timestamp};

/// The conditions, one for each option of the commands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// One of these, if not empty.
    pub kinds: Vec<EventKind>,
    /// One of these, if not empty.
    pub ids: BTreeSet<QueueId>,
    pub provider: Option<String>,
    pub recipient: Option<AddressPattern>,
    pub sender: Option<AddressPattern>,
    /// Angle brackets or not.
    pub message_id: Option<String>,
    pub user: Option<String>,
    /// At or after this moment, and before that.
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

impl Choice {
    pub fn matches(&self, entry: &Entry<'_>) -> bool {
        let recipient = |pattern: &AddressPattern| {
            let address = entry.recipient.as_deref().and_then(|address| Mailbox::parse(address).ok());
            address.is_some_and(|address| pattern.matches(&address))
        };
        let sender = |pattern: &AddressPattern| {
            let address = entry.sender.as_deref().and_then(|address| ReversePath::parse(address).ok());
            address.is_some_and(|address| pattern.matches_sender(&address))
        };
        (self.kinds.is_empty() || self.kinds.contains(&entry.kind))
            && (self.ids.is_empty() || entry.id.is_some_and(|id| self.ids.contains(&id)))
            && self.provider.as_deref().is_none_or(|wanted| entry.provider.as_deref() == Some(wanted))
            && self.recipient.as_ref().is_none_or(recipient)
            && self.sender.as_ref().is_none_or(sender)
            && self.message_id.as_deref().is_none_or(|wanted| same_message_id(wanted, entry.message_id.as_deref()))
            && self.user.as_deref().is_none_or(|wanted| entry.user.as_deref() == Some(wanted))
            && self.since.is_none_or(|since| entry.time >= since)
            && self.until.is_none_or(|until| entry.time < until)
    }

    /// Looks at lines for this choice.
    pub fn sieve(&self) -> Sieve<'_> {
        let mut marks = Vec::new();
        if let [kind] = self.kinds.as_slice() {
            marks.push(format!("\"event\":\"{kind}\""));
        }
        if let (Some(id), 1) = (self.ids.first(), self.ids.len()) {
            marks.push(format!("\"id\":\"{id}\""));
        }
        marks.extend(
            self.provider.as_deref().filter(|name| is_plain(name)).map(|name| format!("\"provider\":\"{name}\"")),
        );
        marks.extend(self.user.as_deref().filter(|name| is_plain(name)).map(|name| format!("\"user\":\"{name}\"")));
        let message_id = self.message_id.as_deref().map(|id| id.trim().trim_matches(['<', '>']));
        marks.extend(message_id.filter(|id| is_plain(id)).map(str::to_string));
        let addresses = [("recipient", &self.recipient), ("sender", &self.sender)]
            .into_iter()
            .filter_map(|(key, pattern)| Address::of(key, pattern.as_ref()?));
        Sieve {
            choice: self,
            marks: marks.iter().map(|mark| Finder::new(mark).into_owned()).collect(),
            addresses: addresses.collect(),
        }
    }
}

/// Does it stand in a line as it is?
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'))
}

/// A choice, and what lines it means have in them.
#[derive(Debug)]
pub struct Sieve<'a> {
    choice: &'a Choice,
    marks: Vec<Finder<'static>>,
    addresses: Vec<Address>,
}

impl Sieve<'_> {
    /// The event of a line, if it is meant.
    pub fn take<'l>(&self, line: &'l [u8]) -> Option<Entry<'l>> {
        if !self.may_take(line) {
            return None;
        }
        let entry = Entry::parse(std::str::from_utf8(line).ok()?)?;
        self.choice.matches(&entry).then_some(entry)
    }

    fn may_take(&self, line: &[u8]) -> bool {
        self.addresses.iter().all(|address| address.may_be_in(line))
            && self.marks.iter().all(|mark| mark.find(line).is_some())
    }
}

/// An address that is looked for in lines without its case, which clients choose.
#[derive(Debug)]
struct Address {
    /// `"recipient":"`
    key: Finder<'static>,
    /// The whole of it, or its end.
    text: String,
    is_end: bool,
}

impl Address {
    /// `None`: it can be written in too many ways to be told by its octets.
    fn of(key: &str, pattern: &AddressPattern) -> Option<Address> {
        let (text, is_end) = match pattern {
            AddressPattern::Null => (String::new(), false),
            // A literal.
            AddressPattern::Domain(domain) if domain.as_str().starts_with('[') => return None,
            AddressPattern::Mailbox(mailbox) if mailbox.domain().as_str().starts_with('[') => return None,
            AddressPattern::Domain(domain) => (format!("@{domain}"), true),
            AddressPattern::Mailbox(mailbox) => (mailbox.key(), false),
        };
        let key = Finder::new(&format!("\"{key}\":\"")).into_owned();
        Some(Address { key, text, is_end })
    }

    fn may_be_in(&self, line: &[u8]) -> bool {
        let Some(start) = self.key.find(line) else { return false };
        let value = &line[start + self.key.needle().len()..];
        let Some(end) = memchr::memchr2(b'"', b'\\', value) else { return false };
        let address = &value[..end];
        // Quotes, and names that are not ASCII, can be written in several ways.
        if value[end] == b'\\' || !address.is_ascii() {
            return true;
        }
        let compared = if self.is_end { &address[address.len().saturating_sub(self.text.len())..] } else { address };
        compared.eq_ignore_ascii_case(self.text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::event::line::Lines;
    use crate::types::Event;

    fn text(value: &str) -> Option<Arc<str>> {
        Some(value.into())
    }

    fn event() -> Event {
        Event {
            id: QueueId::from_key(42),
            sender: text("News@Example.com"),
            recipient: Some("Anna@Hotmail.com".into()),
            provider: text("outlook"),
            message_id: Some("<1@example.com>".into()),
            user: Some("app".into()),
            ..Event::new(Timestamp::from_secs(1_000), EventKind::Delivered)
        }
    }

    fn line(event: &Event) -> Vec<u8> {
        let mut line = Vec::new();
        Lines::default().add(&mut line, 1, event);
        line
    }

    fn takes(choice: &Choice, event: &Event) -> bool {
        let line = line(event);
        let taken = choice.sieve().take(&line).is_some();
        assert_eq!(taken, choice.matches(&Entry::parse(std::str::from_utf8(&line).unwrap()).unwrap()), "{choice:?}");
        taken
    }

    fn pattern(text: &str) -> Option<AddressPattern> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_condition_decides_alone() {
        let name = |name: &str| Some(name.to_string());
        let id = |key| QueueId::from_key(key).into_iter().collect();
        let at = |secs| Some(Timestamp::from_secs(secs));
        let all = Choice::default();
        let rows: Vec<(Choice, bool)> = vec![
            (all.clone(), true),
            (Choice { kinds: vec![EventKind::Delivered], ..all.clone() }, true),
            (Choice { kinds: vec![EventKind::Bounced, EventKind::Delivered], ..all.clone() }, true),
            (Choice { kinds: vec![EventKind::Bounced], ..all.clone() }, false),
            (Choice { ids: id(42), ..all.clone() }, true),
            (Choice { ids: id(43), ..all.clone() }, false),
            (Choice { provider: name("outlook"), ..all.clone() }, true),
            (Choice { provider: name("out"), ..all.clone() }, false),
            (Choice { recipient: pattern("anna@hotmail.com"), ..all.clone() }, true),
            (Choice { recipient: pattern("\"anna\"@HOTMAIL.com"), ..all.clone() }, true),
            (Choice { recipient: pattern("hanna@hotmail.com"), ..all.clone() }, false),
            (Choice { recipient: pattern("@hotmail.com"), ..all.clone() }, true),
            (Choice { recipient: pattern("@mail.com"), ..all.clone() }, false),
            (Choice { recipient: pattern("<>"), ..all.clone() }, false),
            (Choice { sender: pattern("@example.com"), ..all.clone() }, true),
            (Choice { sender: pattern("<>"), ..all.clone() }, false),
            (Choice { message_id: name("1@example.com"), ..all.clone() }, true),
            (Choice { message_id: name("<2@example.com>"), ..all.clone() }, false),
            (Choice { user: name("app"), ..all.clone() }, true),
            (Choice { user: name("other"), ..all.clone() }, false),
            (Choice { since: at(1_000), until: at(1_001), ..all.clone() }, true),
            (Choice { since: at(1_001), ..all.clone() }, false),
            (Choice { until: at(1_000), ..all.clone() }, false),
            (Choice { provider: name("outlook"), user: name("other"), ..all }, false),
        ];
        for (choice, expected) in rows {
            assert_eq!(takes(&choice, &event()), expected, "{choice:?}");
        }
    }

    #[test]
    fn however_an_address_is_spelled_it_is_found() {
        for (wanted, written) in [
            ("a@münchen.example", "A@xn--mnchen-3ya.example"),
            ("a@xn--mnchen-3ya.example", "a@MÜNCHEN.example"),
            ("@[192.0.2.1]", "x@[192.0.2.1]"),
            ("\"a b\"@x.example", "\"a\\ b\"@x.example"),
            ("é@x.example", "É@x.example"),
        ] {
            let event = Event { recipient: Some(written.into()), ..event() };
            assert!(takes(&Choice { recipient: pattern(wanted), ..Choice::default() }, &event), "{wanted} {written}");
        }
        let report = Event { sender: text(""), ..event() };
        assert!(takes(&Choice { sender: pattern("<>"), ..Choice::default() }, &report));
    }

    #[test]
    fn words_in_other_fields_are_no_fields() {
        let event = Event { text: Some("\"recipient\":\"eve@x.example\",\"user\":\"eve\"".into()), ..event() };
        assert!(!takes(&Choice { recipient: pattern("eve@x.example"), ..Choice::default() }, &event));
        assert!(!takes(&Choice { user: Some("eve".into()), ..Choice::default() }, &event));
    }

    proptest! {
        #[test]
        fn the_sieve_holds_back_no_line_that_is_meant(
            name in "[ -~é\u{202e}\"\\\\]{0,6}",
            address in prop::sample::select(vec!["a@x.example", "A@X.example", "\"a\"@x.example", "b@x.example", "a@é.example"]),
            wanted in prop::sample::select(vec!["a@x.example", "@x.example", "\"a\"@x.example", "@é.example"]),
        ) {
            let event = Event { provider: text(&name), user: Some(name.clone()), recipient: Some(address.into()), ..event() };
            takes(&Choice { provider: Some(name.clone()), ..Choice::default() }, &event);
            takes(&Choice { user: Some(name), ..Choice::default() }, &event);
            takes(&Choice { recipient: pattern(wanted), ..Choice::default() }, &event);
        }
    }
}
