//! What is done to the list, and what each operation comes to.
//!
//! Rules that always hold:
//! - all operations of a commit stand in one transaction, and are on disk before anybody hears of it;
//! - what was chosen a moment ago (a removal, a confirmation) is done only if it still is as it was then.

use std::borrow::Cow;

use rusqlite::{Connection, TransactionBehavior};

use super::Failed;
use super::decision::{self, Count, Decision};
use super::entry::{Doubt, Entry, Hit, Noted, Place, Source, scope};
use super::options::Policy;
use super::store::{self, delete, forget_counts, get, get_count, insert, put, put_count};
use crate::sqlite;
use crate::types::Timestamp;

/// Operations in one transaction: some ten milliseconds, so that nobody waits long for another's import.
pub(super) const OPERATIONS_MAX: usize = 1000;
/// The log that makes a checkpoint worth its cost: 8 MiB.
const LOG_PAGES_MAX: u64 = (8 << 20) / sqlite::PAGE_BYTES;
/// Free pages that stay for the next entries: 16 MiB.
const FREE_PAGES_KEPT: u64 = (16 << 20) / sqlite::PAGE_BYTES;
/// Given back at once: a few milliseconds.
const SLICE_PAGES: u64 = 128;

#[derive(Clone, Debug)]
pub(super) enum Operation {
    /// A person's word: it replaces what stood there, but for its history.
    Add(Entry),
    /// From another list: whichever holds longer holds.
    Merge(Entry),
    Hit(Box<Hit>, Policy),
    /// The recipient took a message, from this domain.
    Delivered {
        recipient: String,
        sender_domain: String,
        now: Timestamp,
    },
    /// All that is known of the recipient, whoever the sender.
    Remove(String),
    /// This entry, if it still is as it was when it was chosen.
    RemoveOne {
        place: Place,
        last: Timestamp,
        now: Timestamp,
    },
    /// This entry, if it still stands provisionally in this wave.
    Confirm {
        place: Place,
        wave: String,
        policy: Policy,
        now: Timestamp,
    },
    /// This entry, by what its receiver said of others.
    Doubt {
        place: Place,
        wave: String,
        doubt: Doubt,
        policy: Policy,
        now: Timestamp,
    },
    /// What has run out for so long that nobody needs to know.
    Tidy {
        place: Place,
        now: Timestamp,
    },
    /// What a clock that was ahead has put down: it lasts as long as it was to last, from now on.
    SetRight {
        place: Place,
        now: Timestamp,
    },
    /// Counts without an entry that are as old.
    TidyCounts {
        before: Timestamp,
    },
}

impl Operation {
    /// Of whom something may be written down by it that was not before.
    pub(super) fn brings(&self) -> Option<Cow<'_, str>> {
        match self {
            Operation::Add(entry) | Operation::Merge(entry) => Some(Cow::Borrowed(&entry.recipient)),
            Operation::Hit(hit, _) => Some(Cow::Owned(hit.mailbox.key())),
            // These change or take out what is there.
            Operation::Delivered { .. }
            | Operation::Remove(_)
            | Operation::RemoveOne { .. }
            | Operation::Confirm { .. }
            | Operation::Doubt { .. }
            | Operation::Tidy { .. }
            | Operation::SetRight { .. }
            | Operation::TidyCounts { .. } => None,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Noted(Noted),
    /// `new`: nothing was there for the recipient.
    Added {
        new: bool,
    },
    /// Rows that were changed or removed.
    Changed(u64),
}

/// Makes all operations in one transaction; the answers come in their order.
pub(super) fn commit(connection: &mut Connection, writes: Vec<Vec<Operation>>) -> Result<Vec<Vec<Outcome>>, Failed> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut all = Vec::with_capacity(writes.len());
    let grows = writes.iter().flatten().any(|operation| matches!(operation, Operation::Merge(_)));
    for operations in writes {
        let outcomes: rusqlite::Result<Vec<Outcome>> =
            operations.into_iter().map(|operation| apply(&transaction, operation)).collect();
        all.push(outcomes?);
    }
    if !grows {
        shrink(&transaction)?;
    }
    transaction.commit()?;
    // The entries are on disk; a checkpoint that fails now is met again after the next commit.
    if sqlite::log(connection).is_ok_and(|log| log.pages > LOG_PAGES_MAX)
        && let Err(error) = sqlite::checkpoint(connection)
    {
        tracing::warn!("the log of the suppression list cannot be copied now: {error}");
    }
    Ok(all)
}

/// A list that was much larger gives its room back to the disk, some pages with each commit: of a removal, about as many
/// as it frees.
fn shrink(on: &Connection) -> rusqlite::Result<()> {
    let free = sqlite::free_pages(on)?;
    if free > FREE_PAGES_KEPT { sqlite::give_back(on, SLICE_PAGES.min(free - FREE_PAGES_KEPT)) } else { Ok(()) }
}

fn rows(count: usize) -> Outcome {
    Outcome::Changed(count as u64)
}

fn apply(on: &Connection, operation: Operation) -> rusqlite::Result<Outcome> {
    match operation {
        Operation::Add(new) => {
            let old = get(on, &new.place())?;
            let is_new = old.is_none();
            let entry = match old {
                Some(old) => spoken_over(old, new),
                None => new,
            };
            put(on, &entry)?;
            Ok(Outcome::Added { new: is_new })
        }
        Operation::Merge(new) => merge(on, new).map(|new| Outcome::Added { new }),
        Operation::Hit(hit, policy) => note(on, &hit, &policy).map(Outcome::Noted),
        // What was counted, and what had run out, is past.
        Operation::Delivered { recipient, sender_domain, now } => {
            store::start_afresh(on, &recipient, &sender_domain, now).map(rows)
        }
        Operation::Remove(key) => store::forget(on, &key).map(rows),
        Operation::RemoveOne { place, last, now } => remove_one(on, &place, last, now),
        Operation::Confirm { place, wave, policy, now } => confirm(on, &place, &wave, &policy, now),
        Operation::Doubt { place, wave, doubt, policy, now } => match doubt {
            Doubt::Settled => confirm(on, &place, &wave, &policy, now),
            Doubt::Raised => make_provisional(on, &place, wave, now),
            Doubt::Justified => match get(on, &place)? {
                Some(entry) if stands_in(&entry, &wave, now) => remove_one(on, &place, entry.last, now),
                _ => Ok(Outcome::Changed(0)),
            },
        },
        Operation::Tidy { place, now } => tidy(on, &place, now),
        Operation::SetRight { place, now } => set_right(on, &place, now),
        Operation::TidyCounts { before } => store::forget_old_counts(on, before).map(rows),
    }
}

/// The newer entry counts; what was known of the address before stays known.
fn spoken_over(old: Entry, new: Entry) -> Entry {
    let (hits, terms) = (old.hits.max(new.hits), old.terms.max(new.terms));
    Entry { first: old.first.min(new.first), last: old.last.max(new.last), hits, terms, ..new }
}

/// Most entries of an import are new: one walk down the tree for those.
fn merge(on: &Connection, new: Entry) -> rusqlite::Result<bool> {
    if insert(on, "INSERT OR IGNORE", &new)? > 0 {
        return Ok(true);
    }
    if let Some(old) = get(on, &new.place())? {
        let both = old.clone().merged(new);
        if both != old {
            put(on, &both)?;
        }
    }
    Ok(false)
}

fn note(on: &Connection, hit: &Hit, policy: &Policy) -> rusqlite::Result<Noted> {
    let Some(rule) = policy.rule(hit.class) else { return Ok(Noted::default()) };
    let is_of_sender = decision::is_of_sender(hit.class);
    if is_of_sender && hit.sender_domain.is_none() {
        // It spoke of one sender domain's mail, and this mail had none.
        return Ok(Noted::default());
    }
    let everybody = Place { recipient: hit.mailbox.key(), sender_domain: String::new() };
    let place = match &hit.sender_domain {
        Some(domain) if is_of_sender => Place { sender_domain: scope(Some(domain)), ..everybody.clone() },
        _ => everybody.clone(),
    };
    let wide = if is_of_sender { get(on, &everybody)?.filter(|entry| entry.is_in_force(hit.at)) } else { None };
    let entry = match wide {
        Some(entry) => Some(entry),
        None => get(on, &place)?,
    };
    match decision::decide(entry, get_count(on, &place, hit.class)?, hit, rule) {
        Decision::Nothing => Ok(Noted::default()),
        Decision::Counted(count) => put_count(on, &place, hit.class, &count).map(|()| Noted::default()),
        Decision::Again(entry) => {
            put(on, &entry)?;
            Ok(Noted { listed: true, is_new: false, expires: entry.expires })
        }
        Decision::Listed(entry) => {
            put(on, &entry)?;
            forget_counts(on, &place)?;
            Ok(Noted { listed: true, is_new: true, expires: entry.expires })
        }
    }
}

/// A provisional entry of somebody who was on the list before goes back to what it was: run out.
fn remove_one(on: &Connection, place: &Place, last: Timestamp, now: Timestamp) -> rusqlite::Result<Outcome> {
    let Some(entry) = get(on, place)?.filter(|entry| entry.last == last) else { return Ok(Outcome::Changed(0)) };
    if entry.is_provisional() && entry.terms > 0 {
        put(on, &Entry { source: Source::Bounce, wave: None, expires: Some(now), ..entry })?;
    } else {
        delete(on, place)?;
    }
    Ok(Outcome::Changed(1))
}

/// Provisionally, in this wave.
fn stands_in(entry: &Entry, wave: &str, now: Timestamp) -> bool {
    entry.is_provisional() && entry.wave.as_deref() == Some(wave) && entry.is_in_force(now)
}

/// Only a receiver's own first word is taken back in part: what a person, a list or a second refusal put there stays.
fn make_provisional(on: &Connection, place: &Place, wave: String, now: Timestamp) -> rusqlite::Result<Outcome> {
    let Some(entry) = get(on, place)?.filter(|entry| entry.is_in_force(now)) else { return Ok(Outcome::Changed(0)) };
    match entry.source {
        Source::Wave => put(on, &Entry { wave: Some(wave), ..entry })?,
        Source::Bounce if entry.terms == 1 => {
            let expires = Some(entry.last + decision::WAVE_KEEP);
            put(on, &Entry { source: Source::Wave, wave: Some(wave), terms: 0, expires, ..entry })?;
        }
        _ => return Ok(Outcome::Changed(0)),
    }
    Ok(Outcome::Changed(1))
}

fn confirm(on: &Connection, place: &Place, wave: &str, policy: &Policy, now: Timestamp) -> rusqlite::Result<Outcome> {
    let Some(entry) = get(on, place)?.filter(|entry| stands_in(entry, wave, now)) else {
        return Ok(Outcome::Changed(0));
    };
    let rule = policy.rule(entry.class);
    let expires = rule.and_then(|rule| decision::lasting(entry.terms, entry.last, rule));
    let terms = entry.terms.saturating_add(1);
    put(on, &Entry { source: Source::Bounce, expires, terms, ..entry })?;
    Ok(Outcome::Changed(1))
}

/// The run-out entry of an undecided wave leaves its one counted refusal.
fn set_right(on: &Connection, place: &Place, now: Timestamp) -> rusqlite::Result<Outcome> {
    let Some(old) = get(on, place)?.filter(|entry| entry.last > now) else { return Ok(Outcome::Changed(0)) };
    let by_millis = now.millis() - old.last.millis();
    let expires = old.expires.map(|expires| expires.shifted(by_millis));
    put(on, &Entry { first: old.first.min(now), last: now, expires, ..old })?;
    Ok(Outcome::Changed(1))
}

fn tidy(on: &Connection, place: &Place, now: Timestamp) -> rusqlite::Result<Outcome> {
    let Some(old) = get(on, place)?.filter(|entry| !entry.is_in_force(now)) else { return Ok(Outcome::Changed(0)) };
    if old.is_provisional() && now.since(old.last) < decision::COUNT_KEEP && get_count(on, place, old.class)?.is_none()
    {
        put_count(on, place, old.class, &Count { hits: 1, first: old.first, last: old.last, message: 0 })?;
    }
    if old.is_provisional() && old.terms > 0 {
        put(on, &Entry { source: Source::Bounce, wave: None, ..old })?;
    } else {
        delete(on, place)?;
    }
    Ok(Outcome::Changed(1))
}

#[cfg(test)]
mod tests {
    use super::super::store::MIGRATIONS;
    use super::*;
    use crate::types::{Class, Mailbox};

    const NOW: Timestamp = Timestamp::from_secs(1_795_000_000);

    #[test]
    fn a_list_that_was_long_gives_its_room_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut on = sqlite::open_writer(&folder.path().join("list"), MIGRATIONS, 2048).unwrap();
        let reply = "x".repeat(1000);
        let entries: Vec<Entry> = (0..24_000)
            .map(|n| Mailbox::parse(&format!("u{n:06}@x.example")).unwrap())
            .map(|mailbox| Entry::new(&mailbox, Class::Other, &reply, Source::Import, NOW))
            .collect();
        for piece in entries.chunks(OPERATIONS_MAX) {
            commit(&mut on, vec![piece.iter().cloned().map(Operation::Merge).collect()]).unwrap();
        }
        for piece in entries.chunks(OPERATIONS_MAX) {
            let remove = |entry: &Entry| Operation::RemoveOne { place: entry.place(), last: NOW, now: NOW };
            commit(&mut on, vec![piece.iter().map(remove).collect()]).unwrap();
        }
        assert_eq!(store::count(&on).unwrap(), 0);
        let kept = sqlite::free_pages(&on).unwrap();
        assert!(kept > 0 && kept < FREE_PAGES_KEPT + 2 * SLICE_PAGES, "{kept} pages are kept");
    }
}
