//! From the filters of operators to those of the stores, and from entries to records; shared with the commands that read a
//! data folder without a running relay.

use crate::admin::Filter;
use crate::admin::record::SuppressRecord;
use crate::spool;
use crate::suppress::Entry;
use crate::types::{Span, Timestamp};

/// What the spool can decide of a filter; the rest is decided row by row.
pub(crate) fn narrowed(filter: &Filter, now: Timestamp) -> spool::Filter {
    spool::Filter {
        domain: filter.domain.clone(),
        user: filter.user.clone(),
        message_id: filter.message_id.clone(),
        older_than: filter.older_than.map(|Span(span)| now - span),
        message: match filter.ids[..] {
            [id] => Some(id),
            _ => None,
        },
        ..spool::Filter::default()
    }
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
    }
}
