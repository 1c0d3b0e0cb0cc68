//! `weir trace`: one recipient's or one message's whole story, in the order of time, from log and queue together.
//!
//! Works from the files alone; with a running relay it also says what waiting mail waits for.

pub(super) mod story;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, value_parser};
use serde::Serialize;
use serde_json::{Map, Value};

use super::config::Config;
use super::events::{self, words};
use super::output::{self, Output};
use super::queue::{Meaning, explained, next_attempt, turn};
use super::suppressed::describe;
use super::{Format, human, offline, relay};
use crate::admin::{Client, ClientError, Filter, QueueDetail, QueueRecord, QueueState, Request, SuppressRecord};
use crate::clock::Clock;
use crate::event::Entry;
use crate::throttle::Profiles;
use crate::types::{AddressPattern, EventKind, Mailbox, QueueId, Timestamp};
use crate::verdict::Rules;
use story::{Key, Newest, Stories, Story, Subject, key_of};

#[derive(Debug, Args)]
pub(super) struct Trace {
    /// A recipient's address, a queue id, or a Message-ID in angle brackets
    #[arg(value_name = "ADDRESS|ID|MESSAGE-ID")]
    subject: Subject,
    /// The newest so many messages, of each recipient one
    #[arg(long, value_name = "NUMBER", default_value = "20", value_parser = value_parser!(u32).range(1..=1000))]
    last: u32,
    #[command(flatten)]
    format: Format,
}

/// What replies mean.
struct Meanings {
    rules: Rules,
    profiles: Profiles,
}

/// A story as it is told, with `--json` an object on a line.
#[derive(Serialize)]
struct Told {
    id: QueueId,
    recipient: String,
    sender: Option<String>,
    message_id: Option<String>,
    /// `delivered`, `bounced`, `expired`, `removed`; null: it is on its way.
    end: Option<EventKind>,
    ended: Option<Timestamp>,
    /// Events of the log, each with `cause`, `does` and `remedy` where a reply was read.
    events: Vec<Value>,
    /// Older events that are left out.
    left_out: u64,
    /// As `queue show` has it; null: it is not in the queue.
    queue: Option<QueueDetail>,
    suppressed: Vec<SuppressRecord>,
}

/// What is told of an address that is in no story.
#[derive(Serialize)]
struct OfAddress {
    recipient: String,
    events: Vec<Value>,
    left_out: u64,
    suppressed: Vec<SuppressRecord>,
}

/// All that is told of a subject.
struct Found {
    told: Vec<Told>,
    about: Option<OfAddress>,
    /// Older stories, and whether there may be still more.
    more: (usize, bool),
}

pub(super) async fn trace(trace: Trace, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut client = relay::connect_if_running(config).await?;
    let mut queue = Queue { client: client.as_mut(), config };
    let meanings = Meanings { rules: config.rules()?, profiles: Profiles::new(&config.settings.provider) };
    let max = trace.last as usize;
    let mut found = find(&trace.subject, max, &mut queue, &meanings).await?;
    // A Message-ID without its angle brackets looks like an address.
    if let (None, Subject::Address(address)) = (&found, &trace.subject) {
        found = find(&Subject::MessageId(address.as_str().to_string()), max, &mut queue, &meanings).await?;
    }
    let Some(found) = found else {
        bail!(
            "nothing is known of {}: it is not in the queue, and the event log, which is kept for {}, has no word of it",
            trace.subject,
            human::span(config.settings.events.keep.0)
        );
    };
    tell(&found, trace.format, output)?;
    Ok(ExitCode::SUCCESS)
}

async fn find(
    subject: &Subject,
    max: usize,
    queue: &mut Queue<'_>,
    meanings: &Meanings,
) -> anyhow::Result<Option<Found>> {
    let mut stories = Stories::of(subject.clone(), max);
    queue.collect(subject, &mut stories).await?;
    read_log(&mut stories, &queue.config.data_dir.join("events"), queue.config)?;
    let more = stories.more();
    let mut told = Vec::new();
    for (key, story) in std::mem::take(&mut stories.kept) {
        told.push(queue.told(key, story, meanings).await?);
    }
    let about = about(subject, stories.of_address, &told, queue).await?;
    let found = Found { told, about, more };
    Ok((!found.told.is_empty() || found.about.is_some()).then_some(found))
}

fn tell(found: &Found, format: Format, output: &mut Output) -> anyhow::Result<()> {
    let now = Clock::system().now();
    let (more, are_more) = found.more;
    if more > 0 {
        let or_more = if are_more { "at least " } else { "" };
        let stories = human::count_of(more as u64, "story is", "stories are");
        let text = format!("{or_more}{stories} older than these: --last NUMBER shows them");
        if format.json { output::say(&text) } else { output.line(&(text + "\n"))? }
    }
    for story in &found.told {
        match format.json {
            true => output.json(story)?,
            false => output.text(&(lines(story, now, output.width()) + "\n"))?,
        }
    }
    match &found.about {
        Some(about) if format.json => output.json(about),
        Some(about) => output.text(&lines_about(about, now, output.width())),
        None => Ok(()),
    }
}

/// Where there is no log, the queue alone tells.
fn read_log(stories: &mut Stories, folder: &Path, config: &Config) -> anyhow::Result<()> {
    if !folder.is_dir() && !stories.is_empty() {
        return Ok(());
    }
    let folder = events::folder(config)?;
    stories.read(&folder).with_context(|| format!("cannot read the event log in {}", folder.display()))
}

/// What was said of the address itself; of a story's recipient it is said there.
async fn about(
    subject: &Subject,
    newest: Newest,
    told: &[Told],
    queue: &mut Queue<'_>,
) -> anyhow::Result<Option<OfAddress>> {
    let Subject::Address(address) = subject else { return Ok(None) };
    let suppressed = if told.is_empty() { queue.suppressed(address.as_str()).await? } else { Vec::new() };
    let events = newest.lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let about = OfAddress { recipient: address.as_str().to_string(), events, left_out: newest.left_out, suppressed };
    Ok((!about.events.is_empty() || !about.suppressed.is_empty()).then_some(about))
}

/// The queue and the suppression list, of the running relay or in its folder.
struct Queue<'a> {
    client: Option<&'a mut Client>,
    config: &'a Config,
}

impl Queue<'_> {
    /// Adds what waits to the stories: it may have no line of its own in the log yet.
    async fn collect(&mut self, subject: &Subject, stories: &mut Stories) -> anyhow::Result<()> {
        let mut filter = Filter::default();
        match subject {
            Subject::Id(id) => filter.ids.push(*id),
            Subject::MessageId(id) => filter.message_id = Some(id.clone()),
            Subject::Address(address) => filter.recipient = Some(AddressPattern::Mailbox(address.clone())),
        }
        let message_id = filter.message_id.clone();
        let mut take = |record: QueueRecord| {
            for recipient in &record.recipients {
                if stories.is_meant(record.id, recipient, message_id.as_deref()) {
                    stories.story(record.id, recipient);
                }
            }
        };
        match &mut self.client {
            Some(client) => {
                let mut records = client.ask(&Request::QueueList { filter }).await?;
                while let Some(record) = records.next().await? {
                    take(record);
                }
            }
            None if self.config.data_dir.join("spool.sqlite").exists() => {
                offline::queue(&self.config.data_dir, &filter, &mut |record| {
                    take(record);
                    Ok(())
                })
                .await?;
            }
            None => {}
        }
        Ok(())
    }

    async fn detail(&mut self, id: QueueId, recipient: &str) -> anyhow::Result<Option<QueueDetail>> {
        let details: Vec<QueueDetail> = match &mut self.client {
            Some(client) => match client.all(&Request::QueueShow { id }).await {
                // It is not there any more.
                Err(ClientError::Refused(_)) => Vec::new(),
                details => details?,
            },
            None if self.config.data_dir.join("spool.sqlite").exists() => {
                offline::message(&self.config.data_dir, id, self.config.settings.queue.expire.0).await?
            }
            None => Vec::new(),
        };
        let is_of = |detail: &QueueDetail| detail.record.recipients.iter().any(|of| key_of(of) == recipient);
        Ok(details.into_iter().find(is_of))
    }

    async fn suppressed(&mut self, recipient: &str) -> anyhow::Result<Vec<SuppressRecord>> {
        let Ok(recipient) = Mailbox::parse(recipient) else { return Ok(Vec::new()) };
        Ok(match &mut self.client {
            Some(client) => client.all(&Request::SuppressCheck { recipient }).await?,
            None if self.config.data_dir.join("suppression.sqlite").exists() => {
                offline::suppression_of(&self.config.data_dir, &recipient).await?
            }
            None => Vec::new(),
        })
    }

    async fn told(&mut self, key: Key, story: Story, meanings: &Meanings) -> anyhow::Result<Told> {
        let (id, recipient) = key;
        let mut queue = match story.end {
            Some(_) => None,
            None => self.detail(id, &recipient).await?,
        };
        if let Some(detail) = &mut queue {
            explained(detail, &meanings.rules, &meanings.profiles);
        }
        let all = story.accepted.iter().chain(&story.events.lines).chain(&story.changes.lines);
        let mut events: Vec<(u64, Value)> = all.filter_map(|line| event(line, meanings)).collect();
        events.sort_by_key(|(seq, _)| *seq);
        let accepted =
            story.accepted.as_deref().or(story.events.lines.front().map(String::as_str)).and_then(Entry::parse);
        let text = |value: &Option<std::borrow::Cow<'_, str>>| value.as_deref().map(str::to_string);
        Ok(Told {
            id,
            sender: accepted
                .as_ref()
                .and_then(|entry| text(&entry.sender))
                .or(queue.as_ref().map(|q| q.record.sender.clone())),
            message_id: accepted
                .as_ref()
                .and_then(|entry| text(&entry.message_id))
                .or(queue.as_ref().and_then(|q| q.message_id.clone())),
            end: story.end.map(|(kind, _)| kind),
            ended: story.end.map(|(_, time)| time),
            events: events.into_iter().map(|(_, event)| event).collect(),
            left_out: story.events.left_out + story.changes.left_out,
            queue,
            suppressed: self.suppressed(&recipient).await?,
            recipient,
        })
    }
}

/// A line of the log, with what its reply means.
fn event(line: &str, meanings: &Meanings) -> Option<(u64, Value)> {
    let entry = Entry::parse(line)?;
    let mut object: Map<String, Value> = serde_json::from_str(line).ok()?;
    if let (Some(rule), Some(reply)) = (entry.rule.as_deref(), entry.reply.as_deref())
        && entry.kind != EventKind::Delivered
        && let Some(meaning) = Meaning::of(
            entry.provider.as_deref().unwrap_or("default"),
            rule,
            reply,
            &meanings.rules,
            &meanings.profiles,
        )
    {
        let Meaning { cause, does, remedy } = meaning;
        for (key, value) in [("cause", cause), ("does", does), ("remedy", remedy)] {
            object.entry(key).or_insert_with(|| value.into());
        }
    }
    Some((entry.seq, Value::Object(object)))
}

/// What the text below a line of events is moved to.
const INDENT: usize = 27;
/// The narrowest column of text.
const ROOM_MIN: usize = 30;

fn lines(story: &Told, now: Timestamp, width: Option<usize>) -> String {
    let sender = story.sender.as_deref().filter(|sender| !sender.is_empty()).unwrap_or("<>");
    let message_id = story.message_id.as_deref().map(|id| format!("  {id}")).unwrap_or_default();
    let mut text = format!("{} from {sender} to {}{message_id}\n", story.id, story.recipient);
    if story.left_out > 0 {
        text.push_str(&format!("  ({} left out)\n", human::count(story.left_out, "older event")));
    }
    let mut before = None;
    for event in &story.events {
        text.push_str(&event_lines(event, &mut before, width));
    }
    text.push_str(&indented(&state(story, now), 2, width));
    for entry in &story.suppressed {
        text.push_str("  the address is on the suppression list:\n");
        text.push_str(&describe(entry, now).lines().map(|line| format!("    {line}\n")).collect::<String>());
    }
    text
}

/// The event in words, and what its reply means unless that was just said.
fn event_lines(event: &Value, before: &mut Option<String>, width: Option<usize>) -> String {
    let line = event.to_string();
    let Some(mut entry) = Entry::parse(&line) else { return String::new() };
    if !matches!(entry.kind, EventKind::Suppressed | EventKind::Refused) {
        // Of which message, and to whom, stands above.
        (entry.id, entry.recipient) = (None, None);
    }
    let mut text = hanging(&words(&entry), 2, INDENT, width);
    let said = |key: &str| event.get(key).and_then(Value::as_str).filter(|words| !words.is_empty());
    let meaning = [("cause", "cause"), ("does", "weir does"), ("remedy", "what to do")];
    let meaning: String = meaning
        .into_iter()
        .filter_map(|(key, name)| said(key).map(|words| indented(&format!("{name}: {words}"), INDENT, width)))
        .collect();
    let is_of_reply = entry.rule.is_some();
    if is_of_reply && before.as_ref() != Some(&meaning) {
        if let (Some(class), Some(rule)) = (entry.class, entry.rule.as_deref())
            && !meaning.is_empty()
        {
            text.push_str(&indented(&format!("read as {class} (rule {rule})"), INDENT, width));
        }
        text.push_str(&meaning);
        *before = Some(meaning);
    }
    text
}

/// How it stands now.
fn state(story: &Told, now: Timestamp) -> String {
    if let (Some(end), Some(at)) = (story.end, story.ended) {
        let took = human::span(at.since(story.id.received()));
        return format!("= {end} {} after it was taken, {}", took, human::relative(at, now));
    }
    let Some(detail) = &story.queue else {
        return "= it is not in the queue, and the log does not tell its end: what is older than the log is not known"
            .to_string();
    };
    let next = match (detail.record.state, next_attempt(&detail.record, now)) {
        (QueueState::Waiting, next) => format!("next attempt: {next}"),
        (_, next) => next,
    };
    let mut parts = vec![format!("= {}", detail.record.state), next];
    parts.extend(detail.waits_for.as_ref().map(|what| format!("waits for {what}")));
    parts.extend(Some(turn(detail, now)).filter(|turn| !turn.is_empty()).map(|turn| format!("its turn: {turn}")));
    parts.extend(detail.expires.map(|at| format!("given up {}", human::relative(at, now))));
    parts.join("; ")
}

fn lines_about(about: &OfAddress, now: Timestamp, width: Option<usize>) -> String {
    let mut text = format!("{}\n", about.recipient);
    if about.left_out > 0 {
        text.push_str(&format!("  ({} left out)\n", human::count(about.left_out, "older event")));
    }
    let mut before = None;
    for event in &about.events {
        text.push_str(&event_lines(event, &mut before, width));
    }
    for entry in &about.suppressed {
        text.push_str(&describe(entry, now).lines().map(|line| format!("  {line}\n")).collect::<String>());
    }
    text
}

fn indented(text: &str, indent: usize, width: Option<usize>) -> String {
    hanging(text, indent, indent, width)
}

/// The first line begins at `first`, the others at `rest`.
fn hanging(text: &str, first: usize, rest: usize, width: Option<usize>) -> String {
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(rest).max(ROOM_MIN));
    let lines = human::wrapped(&human::clean(text), room);
    let indent = |place: usize| " ".repeat(if place == 0 { first } else { rest });
    lines.iter().enumerate().map(|(place, line)| format!("{}{line}\n", indent(place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::record::tests::{delivery, envelope, suppressed};

    fn meanings() -> Meanings {
        Meanings { rules: Rules::shipped(), profiles: Profiles::new(&[]) }
    }

    const DEFERRED: &str = r#"{"time":"2026-11-21T20:33:41.042Z","seq":7,"event":"deferred","id":"0MJ8Q2Z3G5Y1A","sender":"s@x.example","recipient":"bob@outlook.com","provider":"outlook","source":"a","mx":"mx.example","reply":"451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation.","class":"rate-limit","attempt":2,"rule":"ip-rate-limited"}"#;

    fn told() -> Told {
        let mut queue = QueueDetail::of(&envelope(), &delivery());
        queue.waits_for = Some("the lane at outlook".into());
        queue.ahead = Some(3);
        Told {
            id: "0MJ8Q2Z3G5Y1A".parse().unwrap(),
            recipient: "bob@outlook.com".into(),
            sender: Some(String::new()),
            message_id: Some("<1@x.example>".into()),
            end: None,
            ended: None,
            events: [DEFERRED, DEFERRED].iter().map(|line| event(line, &meanings()).unwrap().1).collect(),
            left_out: 2,
            queue: Some(queue),
            suppressed: vec![suppressed()],
        }
    }

    #[test]
    fn a_story_is_told_with_what_its_replies_mean_and_how_it_stands() {
        let now = envelope().received + std::time::Duration::from_secs(600);
        let text = lines(&told(), now, None);
        for part in [
            "0MJ8Q2Z3G5Y1A from <> to bob@outlook.com  <1@x.example>\n  (2 older events left out)\n",
            "  2026-11-21 20:33:41 UTC  deferred    at mx.example (attempt 2, rate-limit): 451 4.7.650",
            "read as rate-limit (rule ip-rate-limited)\n",
            "cause: Microsoft slows our address down",
            "weir does: The message keeps its place",
            "what to do: The mail stays queued",
            "  = waiting; next attempt: in 2m 59s; waits for the lane at outlook; its turn: after 3 others",
            "  the address is on the suppression list:\n    recipient:  gone@outlook.com\n",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert_eq!(text.matches("cause:").count(), 1, "what was just said is not said again:\n{text}");
        let narrow = lines(&told(), now, Some(80));
        // An address of a page is left whole, to be copied.
        assert!(narrow.lines().all(|line| line.chars().count() <= 80 || line.contains("https://")), "{narrow}");
    }

    #[test]
    fn an_end_is_told_and_so_is_what_is_not_known() {
        let now = told().id.received() + std::time::Duration::from_secs(7200);
        let ended = Some(told().id.received() + std::time::Duration::from_secs(61));
        let delivered = Told { end: Some(EventKind::Delivered), ended, queue: None, ..told() };
        assert!(
            state(&delivered, now).starts_with("= delivered 1m 1s after it was taken, 1h 58m ago"),
            "{}",
            state(&delivered, now)
        );
        let unknown = Told { queue: None, ..told() };
        assert!(state(&unknown, now).starts_with("= it is not in the queue"));
    }

    #[test]
    fn json_has_what_the_log_has_and_the_meaning() {
        let value = serde_json::to_value(told()).unwrap();
        for key in
            ["id", "recipient", "sender", "message_id", "end", "ended", "events", "left_out", "queue", "suppressed"]
        {
            assert!(value.get(key).is_some(), "{key}");
        }
        let event = &value["events"][0];
        assert_eq!((&event["seq"], &event["attempt"]), (&7.into(), &2.into()));
        assert!(event["cause"].as_str().unwrap().contains("Microsoft"), "{event}");
    }
}
