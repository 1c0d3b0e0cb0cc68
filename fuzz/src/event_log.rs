//! The event log (`event/log`, `event/tail`, `event/history`): whatever a crash or a hand has left in the file, the next start goes on
//! behind the whole lines of it, and what is written then is read back as it was. The input: a value that comes from outside, 0xFF, the
//! file as it is found.

use weir::clock::Clock;
use weir::event::options::Events;
use weir::event::{EventLog, Tail, history};
use weir::spool::Journal;
use weir::types::{Class, Event, EventKind, QueueId, Timestamp};

use super::kit;

/// More than any input.
const TAIL_MAX: u64 = 1 << 20;
const NOW: Timestamp = Timestamp::from_secs(1_795_293_220);

pub fn check(mut bytes: &[u8]) {
    let value = kit::text(&mut bytes);
    let folder = kit::folder();
    let file = folder.path().join("current.jsonl");
    std::fs::write(&file, bytes).expect("write the file of a run before");
    let before = Tail::read(folder.path(), TAIL_MAX).expect("read what is there");

    kit::run(async {
        let clock = Clock::starting_at(NOW);
        let mut log = EventLog::open(folder.path(), &Events::default(), clock).expect("whatever stands in it");
        log.write(&[event(&value), event("second")]).expect("write to a disk with room");
    });

    let after = Tail::read(folder.path(), TAIL_MAX).expect("read it again");
    let (old, new) = after.events.split_at(after.events.len() - 2);
    assert_eq!(old, before.events, "whole lines are kept, and nothing becomes a line");
    let last = before.last_seq();
    assert_eq!([new[0].seq, new[1].seq], [last + 1, last + 2], "numbers go on");
    assert_eq!(new[0].recipient.as_deref(), Some(kept(&value).as_str()));
    assert_eq!((new[0].kind, new[0].class, new[0].id), (EventKind::Bounced, Some(Class::Other), QueueId::from_key(7)));
    only_whole_lines(&std::fs::read(&file).expect("the file"), bytes);
    is_found_by_its_provider(folder.path(), &value);
}

fn event(value: &str) -> Event {
    Event {
        id: QueueId::from_key(7),
        recipient: Some(value.to_string()),
        provider: Some(value.into()),
        reply: Some(value.to_string()),
        class: Some(Class::Other),
        text: Some("ours".to_string()),
        ..Event::new(NOW, EventKind::Bounced)
    }
}

/// A value is cut at 8 KiB, between two characters.
fn kept(value: &str) -> String {
    let end = (0..=value.len().min(8 << 10)).rev().find(|&at| value.is_char_boundary(at)).unwrap_or(0);
    if end == value.len() { value.to_string() } else { format!("{}…", &value[..end]) }
}

/// The whole lines that were there, and two more, which no reader takes for more.
fn only_whole_lines(text: &[u8], found: &[u8]) {
    let whole = found.iter().rposition(|&octet| octet == b'\n').map_or(0, |at| at + 1);
    let added = text.strip_prefix(&found[..whole]).expect("what was whole is untouched");
    let added = std::str::from_utf8(added).expect("what weir writes is UTF-8");
    assert_eq!(
        added.chars().filter(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')).count(),
        2,
        "{added:?}"
    );
    assert_eq!(added.lines().count(), 2);
}

fn is_found_by_its_provider(folder: &std::path::Path, value: &str) {
    let mut found = 0;
    history::of_provider(folder, &kept(value), |line| found += usize::from(line.text.as_deref() == Some("ours")))
        .expect("read the whole log");
    assert!(found >= 1, "{value:?}");
}
