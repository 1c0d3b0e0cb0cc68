//! One message's way to one recipient, as the event log tells it.
//!
//! The log is read once for the recipients' own lines, and from the first of them on once more for what stands between: how each message
//! came in, and what its lane did meanwhile. Rule that always holds: memory has a bound, whatever the log is: the newest
//! stories are kept, and of each its beginning and its newest events; the rest is counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::Path;

use crate::event::entry::Word;
use crate::event::{Choice, Entry, Reader};
use crate::types::pattern::same_message_id;
use crate::types::{AddressPattern, EventKind, Mailbox, QueueId, Timestamp};

/// Lines of the log read in one go.
const BATCH: usize = 1000;
/// Events kept of one story, and changes of its lane; the newest.
const EVENTS_MAX: usize = 200;
const CHANGES_MAX: usize = 20;
/// Stories beyond those that are told are counted up to this.
const MORE_MAX: usize = 100_000;

/// Whose story is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) enum Subject {
    Id(QueueId),
    /// Without its angle brackets.
    MessageId(String),
    Address(Mailbox),
}

impl std::str::FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Subject, String> {
        if let Some(id) = text.strip_prefix('<').and_then(|id| id.strip_suffix('>')) {
            return Ok(Subject::MessageId(id.to_string()));
        }
        if let Ok(id) = text.parse() {
            return Ok(Subject::Id(id));
        }
        Mailbox::parse(text).map(Subject::Address).map_err(|_| {
            "expected a recipient's address, a queue id (0123456789ABC) or a Message-ID in angle brackets".to_string()
        })
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::Id(id) => write!(f, "{id}"),
            Subject::MessageId(id) => write!(f, "<{id}>"),
            Subject::Address(address) => f.write_str(address.as_str()),
        }
    }
}

/// What is known of one message and one recipient. Events are lines of the log.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Story {
    pub(in crate::cli) accepted: Option<String>,
    pub(in crate::cli) events: Newest,
    /// Of the lane it went by, while it was on its way.
    pub(in crate::cli) changes: Newest,
    pub(in crate::cli) provider: Option<String>,
    source: Option<String>,
    pub(in crate::cli) end: Option<(EventKind, Timestamp)>,
}

/// The newest lines of some kind, and how many older ones were let go.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Newest {
    pub(in crate::cli) lines: VecDeque<String>,
    pub(in crate::cli) left_out: u64,
}

impl Newest {
    fn push(&mut self, line: &str, max: usize) {
        self.lines.push_back(line.to_string());
        if self.lines.len() > max {
            self.lines.pop_front();
            self.left_out += 1;
        }
    }
}

/// A message and a recipient in the form in which addresses are compared.
pub(in crate::cli) type Key = (QueueId, String);

/// The newest stories of a subject.
#[derive(Debug)]
pub(in crate::cli) struct Stories {
    subject: Subject,
    max: usize,
    pub(in crate::cli) kept: BTreeMap<Key, Story>,
    /// Those that are not told.
    more: BTreeSet<Key>,
    accepted: BTreeMap<QueueId, String>,
    /// About the address alone: refused at RCPT, put onto the suppression list.
    pub(in crate::cli) of_address: Newest,
}

impl Stories {
    pub(in crate::cli) fn of(subject: Subject, max: usize) -> Stories {
        Stories {
            subject,
            max,
            kept: BTreeMap::new(),
            more: BTreeSet::new(),
            accepted: BTreeMap::new(),
            of_address: Newest::default(),
        }
    }

    /// How many are not told, and whether there may be still more.
    pub(in crate::cli) fn more(&self) -> (usize, bool) {
        (self.more.len(), self.more.len() >= MORE_MAX)
    }

    pub(in crate::cli) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.of_address.lines.is_empty() && self.accepted.is_empty()
    }

    /// The story of this message and recipient, if it is one of the newest.
    pub(in crate::cli) fn story(&mut self, id: QueueId, recipient: &str) -> Option<&mut Story> {
        let key = (id, key_of(recipient));
        if !self.kept.contains_key(&key) {
            self.kept.insert(key.clone(), Story::default());
            if self.kept.len() > self.max
                && let Some((oldest, _)) = self.kept.pop_first()
                && self.more.len() < MORE_MAX
            {
                self.more.insert(oldest);
            }
        }
        self.kept.get_mut(&key)
    }

    /// Reads the log in `folder`.
    pub(in crate::cli) fn read(&mut self, folder: &Path) -> io::Result<()> {
        let mut choice = Choice::default();
        let reader = match &self.subject {
            Subject::Id(id) => {
                choice.ids.insert(*id);
                Reader::since(folder, id.received())?
            }
            Subject::MessageId(id) => {
                choice.message_id = Some(id.clone());
                Reader::new(folder, 0)
            }
            Subject::Address(address) => {
                choice.recipient = Some(AddressPattern::Mailbox(address.clone()));
                Reader::new(folder, 0)
            }
        };
        let sieve = choice.sieve();
        each_line(reader, |line| {
            if let Some(entry) = sieve.take(line.as_bytes()) {
                self.take(line, &entry);
            }
        })?;
        self.read_between(folder)
    }

    /// A line about the subject.
    fn take(&mut self, line: &str, entry: &Entry<'_>) {
        match (entry.kind, entry.id) {
            (EventKind::Accepted, Some(id)) => {
                self.accepted.insert(id, line.to_string());
                // A message with a thousand Message-IDs alike is none.
                if self.accepted.len() > self.max.max(1) {
                    self.accepted.pop_first();
                }
            }
            (EventKind::Refused, _) | (_, None) => {
                self.of_address.push(line, CHANGES_MAX);
            }
            (_, Some(id)) => {
                let Some(story) = self.story(id, entry.recipient.as_deref().unwrap_or_default()) else { return };
                story.events.push(line, EVENTS_MAX);
                story.provider = entry.provider.as_deref().map(str::to_string).or(story.provider.take());
                story.source = entry.source.as_deref().map(str::to_string).or(story.source.take());
                if is_end(entry.kind) {
                    story.end = Some((entry.kind, entry.time));
                }
            }
        }
    }

    /// How the messages came in, and what their lanes did.
    fn read_between(&mut self, folder: &Path) -> io::Result<()> {
        for (id, line) in &self.accepted {
            for (_, story) in self.kept.iter_mut().filter(|((of, _), _)| of == id) {
                story.accepted = Some(line.clone());
            }
        }
        let Some((first, _)) = self.kept.keys().next() else { return Ok(()) };
        let reader = Reader::since(folder, first.received())?;
        let (event, id) = (Word::of("event"), Word::of("id"));
        let ids: BTreeMap<String, QueueId> = self.kept.keys().map(|(id, _)| (id.to_string(), *id)).collect();
        each_line(reader, |line| match event.find(line) {
            Some("accepted") => {
                if let Some(id) = id.find(line).and_then(|id| ids.get(id)) {
                    self.take_accepted(*id, line);
                }
            }
            Some("throttled" | "blocked" | "paused" | "resumed") => {
                if let Some(entry) = Entry::parse(line) {
                    self.take_change(line, &entry);
                }
            }
            _ => {}
        })
    }

    fn take_accepted(&mut self, id: QueueId, line: &str) {
        for (_, story) in self.kept.range_mut((id, String::new())..).take_while(|((of, _), _)| *of == id) {
            story.accepted.get_or_insert_with(|| line.to_string());
        }
    }

    fn take_change(&mut self, line: &str, entry: &Entry<'_>) {
        for ((id, _), story) in &mut self.kept {
            let is_on_its_way = entry.time >= id.received() && story.end.is_none_or(|(_, end)| entry.time <= end);
            // Without a provider it is a pause of everything, or of a domain.
            let is_its_lane = match (entry.provider.as_deref(), story.provider.as_deref()) {
                (Some(of), Some(own)) => {
                    of == own
                        && (story.source.is_none()
                            || entry.source.as_deref().is_none_or(|of| Some(of) == story.source.as_deref()))
                }
                (of, _) => of.is_none(),
            };
            if is_on_its_way && is_its_lane {
                story.changes.push(line, CHANGES_MAX);
            }
        }
    }

    /// Is this message of the queue one that is asked for?
    pub(in crate::cli) fn is_meant(&self, id: QueueId, recipient: &str, message_id: Option<&str>) -> bool {
        match &self.subject {
            Subject::Id(wanted) => *wanted == id,
            Subject::MessageId(wanted) => same_message_id(wanted, message_id),
            Subject::Address(address) => address.key() == key_of(recipient),
        }
    }
}

pub(in crate::cli) fn is_end(kind: EventKind) -> bool {
    matches!(kind, EventKind::Delivered | EventKind::Bounced | EventKind::Expired | EventKind::Removed)
}

pub(in crate::cli) fn key_of(recipient: &str) -> String {
    Mailbox::parse(recipient).map_or_else(|_| recipient.to_string(), |mailbox| mailbox.key())
}

fn each_line(mut reader: Reader, mut each: impl FnMut(&str)) -> io::Result<()> {
    loop {
        let batch = reader.next(BATCH)?;
        if batch.lines.is_empty() {
            return Ok(());
        }
        batch.lines.iter().for_each(|line| each(&line.text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: i64) -> QueueId {
        QueueId::from_key((1_795_262_400_000 + n) << 21).unwrap()
    }

    fn line(seq: u64, event: &str, of: i64, rest: &str) -> String {
        let time = Timestamp::from_millis(1_795_262_400_000 + i64::try_from(seq).unwrap() * 10);
        let id = if of == 0 { "null".to_string() } else { format!("\"{}\"", id(of)) };
        format!(
            "{{\"time\":\"{time}\",\"seq\":{seq},\"event\":\"{event}\",\"id\":{id},\"sender\":\"s@x.example\",{rest}}}\n"
        )
    }

    fn log(lines: &[String]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("current.jsonl"), lines.concat()).unwrap();
        folder
    }

    fn read(folder: &Path, subject: &str, max: usize) -> Stories {
        let mut stories = Stories::of(subject.parse().unwrap(), max);
        stories.read(folder).unwrap();
        stories
    }

    fn seqs(newest: &Newest) -> Vec<u64> {
        newest.lines.iter().map(|line| Entry::parse(line).unwrap().seq).collect()
    }

    #[test]
    fn a_subject_is_told_by_its_form() {
        assert_eq!("0123456789ABC".parse::<Subject>().unwrap().to_string(), "0123456789ABC");
        assert_eq!("<1@x.example>".parse(), Ok(Subject::MessageId("1@x.example".into())));
        assert!(matches!("a@x.example".parse(), Ok(Subject::Address(_))));
        assert!("nobody".parse::<Subject>().unwrap_err().contains("expected a recipient's address"));
    }

    #[test]
    fn a_story_has_its_beginning_its_attempts_and_what_its_lane_did_meanwhile() {
        const LANE: &str = "\"provider\":\"outlook\",\"source\":\"a\",\"text\":\"t\"";
        let deferred =
            "\"recipient\":\"A@x.example\",\"provider\":\"outlook\",\"source\":\"a\",\"message_id\":\"<1@x>\"";
        let folder = log(&[
            line(1, "throttled", 0, LANE),
            line(2, "accepted", 15, "\"recipient\":null,\"message_id\":\"<1@x>\""),
            line(3, "deferred", 15, deferred),
            line(4, "paused", 0, LANE),
            line(5, "paused", 0, &LANE.replace("outlook", "gmail")),
            line(6, "paused", 0, &LANE.replace("\"a\"", "\"b\"")),
            line(7, "delivered", 15, &deferred.replace("A@", "b@")),
            line(8, "paused", 0, "\"provider\":null,\"source\":null,\"text\":\"everything\""),
            line(9, "delivered", 15, deferred),
            line(10, "resumed", 0, LANE),
            line(11, "refused", 0, "\"recipient\":\"a@x.example\""),
        ]);
        let stories = read(folder.path(), "a@x.example", 5);
        assert_eq!(stories.kept.len(), 1);
        let story = &stories.kept[&(id(15), "a@x.example".to_string())];
        assert_eq!((seqs(&story.events), seqs(&story.changes)), (vec![3, 9], vec![4, 8]));
        assert_eq!(story.end.map(|(kind, _)| kind), Some(EventKind::Delivered));
        assert!(story.accepted.as_deref().unwrap().contains("\"seq\":2,"));
        assert_eq!(seqs(&stories.of_address), [11]);
        for subject in [&id(15).to_string(), "<1@x>"] {
            let stories = read(folder.path(), subject, 5);
            let recipients: Vec<&str> = stories.kept.keys().map(|(_, recipient)| recipient.as_str()).collect();
            assert_eq!(recipients, ["a@x.example", "b@x.example"], "{subject}");
            assert!(stories.kept.values().all(|story| story.accepted.is_some()));
        }
    }

    #[test]
    fn the_newest_stories_are_told_and_the_others_counted_once() {
        let lines: Vec<String> = (1..=60)
            .map(|n| line(n, "deferred", i64::try_from((n - 1) % 30 + 1).unwrap(), "\"recipient\":\"a@x.example\""))
            .collect();
        let stories = read(log(&lines).path(), "a@x.example", 4);
        assert_eq!(stories.kept.keys().map(|(id, _)| *id).collect::<Vec<_>>(), [id(27), id(28), id(29), id(30)]);
        assert_eq!(stories.more(), (26, false));
        assert!(stories.kept.values().all(|story| story.events.lines.len() == 2));
        assert!(read(log(&lines).path(), "b@x.example", 4).is_empty());
    }

    #[test]
    fn of_a_long_story_the_newest_events_are_kept() {
        let lines: Vec<String> = (1..=500).map(|n| line(n, "deferred", 1, "\"recipient\":\"a@x.example\"")).collect();
        let stories = read(log(&lines).path(), "a@x.example", 4);
        let events = &stories.kept.values().next().unwrap().events;
        assert_eq!((events.lines.len(), events.left_out), (EVENTS_MAX, 300));
        assert_eq!(seqs(events).last(), Some(&500));
    }
}
