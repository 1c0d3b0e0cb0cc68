//! From the filters of operators to those of the stores, and from entries to records; shared with the commands that read a
//! data folder without a running relay.

use crate::admin::{AddressPattern, Filter, ImportEntry, QueueState, SuppressFilter, SuppressRecord};
use crate::spool;
use crate::suppress::{self, Entry, Source};
use crate::types::{Class, DeliveryState, Mailbox, Span, Timestamp};

/// What the spool can decide of a filter; the rest is decided row by row.
pub(crate) fn narrowed(filter: &Filter, now: Timestamp) -> spool::Filter {
    // A delivery is for one domain.
    let (of_recipient, recipient) = match &filter.recipient {
        Some(AddressPattern::Domain(domain)) => (Some(domain.clone()), None),
        Some(AddressPattern::Mailbox(mailbox)) => (Some(mailbox.domain().clone()), Some(mailbox.key())),
        Some(AddressPattern::Null) | None => (None, None),
    };
    let sender = filter.sender.as_ref().map(|sender| match sender {
        AddressPattern::Null => String::new(),
        AddressPattern::Domain(domain) => format!("@{domain}"),
        AddressPattern::Mailbox(mailbox) => mailbox.key(),
    });
    spool::Filter {
        domain: filter.domain.clone().or(of_recipient),
        sender,
        recipient,
        // What is being tried stands as waiting, and nobody tries what is held.
        state: filter.state.map(|state| match state {
            QueueState::Held => DeliveryState::Held,
            QueueState::Waiting | QueueState::Active => DeliveryState::Waiting,
        }),
        user: filter.user.clone(),
        message_id: filter.message_id.clone(),
        older_than: filter.older_than.map(|Span(span)| now - span),
        messages: filter.ids.iter().copied().collect(),
        ..spool::Filter::default()
    }
}

/// What the suppression list can decide of a filter: all but whether the address is the one. An error names the words.
pub(crate) fn narrowed_suppressions(filter: &SuppressFilter) -> Result<suppress::Filter, String> {
    let source = filter.source.as_deref().map(str::parse::<Source>).transpose()?;
    let (domain, recipient) = match &filter.recipient {
        Some(AddressPattern::Domain(domain)) => (Some(domain.clone()), None),
        Some(AddressPattern::Mailbox(mailbox)) => (filter.domain.clone(), Some(mailbox.key())),
        Some(AddressPattern::Null) => return Err("`<>` is nobody's address".to_string()),
        None => (filter.domain.clone(), None),
    };
    if filter.domain.is_some() && domain != filter.domain {
        return Err("the recipient is of another domain".to_string());
    }
    Ok(suppress::Filter {
        class: filter.class,
        source,
        recipient,
        domain,
        sender_domain: filter.sender_domain.clone(),
        reply: filter.reply.clone(),
        tag: filter.tag.clone(),
        provider: filter.provider.clone(),
        wave: filter.wave.clone(),
        since: filter.since,
        until: filter.until,
        expired: filter.expired,
    })
}

pub(crate) fn suppress_record(entry: Entry) -> SuppressRecord {
    SuppressRecord {
        recipient: entry.recipient,
        class: Some(entry.class),
        reply: Some(entry.reply),
        source: entry.source.to_string(),
        first: Some(entry.first),
        last: Some(entry.last),
        hits: entry.hits,
        expires: entry.expires,
        terms: entry.terms,
        sender_domain: entry.sender_domain,
        tag: entry.tag,
        provider: entry.provider,
        rule: entry.rule,
        wave: entry.wave,
    }
}

/// The way back.
pub(crate) fn entry_of(record: SuppressRecord) -> Option<Entry> {
    let recipient = Mailbox::parse(&record.recipient).ok()?;
    Some(imported(import_entry(record, recipient), Timestamp::EPOCH))
}

fn import_entry(record: SuppressRecord, recipient: Mailbox) -> ImportEntry {
    ImportEntry {
        recipient,
        class: record.class,
        reply: record.reply,
        source: Some(record.source),
        first: record.first,
        last: record.last,
        hits: Some(record.hits),
        expires: record.expires,
        terms: Some(record.terms),
        sender_domain: record.sender_domain,
        tag: record.tag,
        provider: record.provider,
        rule: record.rule,
        wave: record.wave,
    }
}

/// A line of an import as an entry; what it does not say came at `now`.
pub(crate) fn imported(line: ImportEntry, now: Timestamp) -> Entry {
    let reply = line.reply.as_deref().unwrap_or("imported");
    // How it came onto the list of another program is not always one of our words.
    let source = line.source.as_deref().and_then(|word| word.parse().ok()).unwrap_or(Source::Import);
    let first = line.first.or(line.last).unwrap_or(now);
    Entry {
        last: line.last.unwrap_or(first).max(first),
        hits: line.hits.unwrap_or(1).max(1),
        expires: line.expires,
        terms: line.terms.unwrap_or(1),
        sender_domain: line.sender_domain,
        tag: line.tag,
        provider: line.provider,
        rule: line.rule,
        wave: line.wave,
        ..Entry::new(&line.recipient, line.class.unwrap_or(Class::Other), reply, source, first)
    }
}

/// An entry as a line of an import; none where its address cannot be read.
pub(crate) fn import_line(entry: Entry) -> Option<ImportEntry> {
    let recipient = Mailbox::parse(&entry.recipient).ok()?;
    Some(import_entry(suppress_record(entry), recipient))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_goes_through_the_socket_and_back() {
        let record = crate::admin::record::tests::suppressed();
        let entry = entry_of(SuppressRecord { source: "complaint".into(), ..record.clone() }).unwrap();
        assert_eq!((entry.source, entry.terms, entry.tag.as_deref()), (Source::Complaint, 2, Some("S775")));
        let line = import_line(entry.clone()).unwrap();
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(imported(serde_json::from_str(&text).unwrap(), Timestamp::EPOCH), entry);
        assert_eq!(suppress_record(entry), SuppressRecord { source: "complaint".into(), ..record });
    }

    #[test]
    fn a_filter_that_contradicts_itself_says_so() {
        let of = |value| narrowed_suppressions(&serde_json::from_value(value).unwrap());
        let fault = of(serde_json::json!({"source": "reply"})).unwrap_err();
        assert!(fault.contains("bounce, wave"), "{fault}");
        assert!(of(serde_json::json!({"recipient": "@a.example", "domain": "b.example"})).is_err());
        assert_eq!(of(serde_json::json!({"recipient": "@a.example"})).unwrap().domain.unwrap().as_str(), "a.example");
    }
}
