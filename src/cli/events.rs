//! `weir events`: the event log, in words or as it is.
//!
//! Read from the files in the data folder, so that it works whether a relay runs or not. One event is one line, the receiver's words
//! last, where a narrow terminal cuts it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, value_parser};
use tokio::signal::unix::{SignalKind, signal};

use super::config::Config;
use super::output::{self, Output};
use super::suppress::When;
use super::{Format, human, providers};
use crate::clock::Clock;
use crate::event::backward::{Limits, Page, page};
use crate::event::options::Output as Target;
use crate::event::{Choice, Entry, RawLine, Reader, reader};
use crate::types::{AddressPattern, EventKind, QueueId, Timestamp};

/// How often `--follow` looks whether the log has grown.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);
/// Where `--follow` begins, if nothing else is said.
const FOLLOW_LAST: u32 = 10;
/// So many lines are kept in memory for `--last` at most.
const LAST_MAX: i64 = 100_000;
/// Lines read in one go, forwards, and octets, backwards.
const BATCH: usize = 1000;
const PAGE_OCTETS: u64 = 4 << 20;

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Go on as the log grows, until Ctrl-C; begins with the last 10 events, unless --last or --since say otherwise
    #[arg(long, conflicts_with = "until")]
    follow: bool,
    /// The last so many that match
    #[arg(long, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..=LAST_MAX))]
    last: Option<u32>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    selection: Selection,
}

/// Which events; all conditions that are given must hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
struct Selection {
    /// What happened, one or several: accepted, delivered, deferred, bounced, expired, removed, refused, suppressed, throttled, blocked, paused, resumed, alert
    #[arg(long = "kind", value_name = "EVENT", value_delimiter = ',')]
    kinds: Vec<EventKind>,
    /// Provider that receives it, as in `weir status`
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Recipient: an address or @domain
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<AddressPattern>,
    /// Sender: an address, @domain, or <> for reports
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<AddressPattern>,
    /// The queue id, as in `250 2.0.0 queued as ID`
    #[arg(long)]
    id: Option<QueueId>,
    /// Message-ID field, with or without angle brackets
    #[arg(long, value_name = "MESSAGE-ID")]
    message_id: Option<String>,
    /// User who handed the message in
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// At or after this time (2027-01-31T00:00:00Z), or so long ago (2h)
    #[arg(long, value_name = "WHEN")]
    since: Option<When>,
    /// Before this time, or longer ago
    #[arg(long, value_name = "WHEN")]
    until: Option<When>,
}

impl Selection {
    fn choice(self, config: &Config, now: Timestamp) -> anyhow::Result<Choice> {
        let Selection { kinds, provider, recipient, sender, id, message_id, user, since, until } = self;
        if let Some(name) = &provider {
            providers::known(name, config)?;
        }
        let (since, until) = (since.map(|when| when.ago(now)), until.map(|when| when.ago(now)));
        let ids = id.into_iter().collect();
        Ok(Choice { kinds, ids, provider, recipient, sender, message_id, user, since, until })
    }
}

pub(super) async fn events(command: Events, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let Events { follow, last, format, selection } = command;
    let choice = selection.choice(config, Clock::system().now())?;
    let folder = folder(config)?;
    let unreadable = || format!("cannot read the event log in {}", folder.display());
    let last = last.or((follow && choice.since.is_none()).then_some(FOLLOW_LAST));
    let print = |line: &RawLine, output: &mut Output| match format.json {
        true => output.json_line(&line.text),
        false => Entry::parse(&line.text).map_or(Ok(()), |entry| output.line(&fitting(&words(&entry), output))),
    };
    let mut reader = match (last, choice.since) {
        (Some(last), _) => {
            let end = reader::last(&folder).with_context(unreadable)?;
            for line in newest(&folder, &choice, last, end).with_context(unreadable)?.iter().rev() {
                print(line, output)?;
            }
            if !follow {
                return Ok(ExitCode::SUCCESS);
            }
            Reader::new(&folder, end)
        }
        (None, Some(since)) => Reader::since(&folder, since).with_context(unreadable)?,
        (None, None) => Reader::new(&folder, 0),
    };
    // Without it Ctrl-C ends the program at once, which is what it should do where nobody waits.
    let mut interrupt = if follow { Some(signal(SignalKind::interrupt())?) } else { None };
    let sieve = choice.sieve();
    loop {
        let batch = reader.next(BATCH).with_context(unreadable)?;
        if batch.missed > 0 {
            output::say(&format!(
                "{} of the event log could not be read: deleted meanwhile ([events] keep, max_size), or damaged",
                human::count(batch.missed, "line")
            ));
        }
        for line in batch.lines.iter().filter(|line| sieve.take(line.text.as_bytes()).is_some()) {
            print(line, output)?;
        }
        let Some(interrupt) = &mut interrupt else {
            if batch.lines.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            continue;
        };
        let mut pause = Duration::ZERO;
        if batch.lines.is_empty() {
            output.flush()?;
            if output.is_closed() {
                return Ok(ExitCode::SUCCESS);
            }
            pause = FOLLOW_EVERY;
        }
        tokio::select! {
            biased;
            _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Where the log is; an error where there is none.
pub(super) fn folder(config: &Config) -> anyhow::Result<PathBuf> {
    let folder = config.data_dir.join("events");
    if folder.is_dir() {
        return Ok(folder);
    }
    if config.settings.events.output == Target::Stdout {
        bail!(
            "the event log goes to standard output alone ([events] output): `both` keeps it in {} as well",
            folder.display()
        );
    }
    bail!("{}: there is no event log in this data folder (key data_dir); start `weir run`", folder.display())
}

/// The last lines up to `end` that are meant, the newest first.
fn newest(folder: &Path, choice: &Choice, last: u32, end: u64) -> std::io::Result<Vec<RawLine>> {
    let (mut lines, mut before) = (Vec::new(), Some(end + 1));
    while lines.len() < last as usize && before.is_some() {
        let limits = Limits { lines: last as usize - lines.len(), octets: PAGE_OCTETS };
        let Page { lines: older, before: next } = page(folder, choice, before, limits)?;
        lines.extend(older);
        before = next;
    }
    Ok(lines)
}

fn fitting(line: &str, output: &Output) -> String {
    let line = human::clean(line);
    match output.width() {
        Some(width) => human::short(&line, width),
        None => line,
    }
}

/// `2026-11-21 20:33:40 UTC  delivered   0MJ8Q2Z3G5Y1A to anna@hotmail.com at mx.example (1.2s): 250 2.6.0 queued`
pub(super) fn words(entry: &Entry<'_>) -> String {
    let told = told(entry);
    let reply = said(entry.reply.as_deref());
    format!("{}  {:<10}  {}{reply}", human::date(entry.time), entry.kind, told.trim_start())
}

/// What stands in the middle: of which message, to whom, where.
fn told(entry: &Entry<'_>) -> String {
    let id = entry.id.map(|id| format!("{id} ")).unwrap_or_default();
    let recipient = entry.recipient.as_deref().map(|address| format!("to {address}")).unwrap_or_default();
    let at = entry.mx.as_deref().map(|mx| format!(" at {mx}")).unwrap_or_default();
    let text = entry.text.as_deref().unwrap_or_default();
    match entry.kind {
        EventKind::Accepted => format!("{id}{}", accepted(entry)),
        EventKind::Delivered => format!("{id}{recipient}{at}{}", details([after(entry), tls(entry)])),
        EventKind::Deferred => {
            let attempt = entry.attempt.map(|attempt| format!("attempt {attempt}"));
            format!("{id}{recipient}{at}{}", details([attempt, class(entry)]))
        }
        EventKind::Bounced | EventKind::Expired | EventKind::Removed => {
            format!("{id}{recipient}{at}{}", details([after(entry), class(entry).or_else(|| rule(entry))]))
        }
        EventKind::Refused => format!("{recipient}, which is on the suppression list"),
        EventKind::Suppressed => {
            let address = entry.recipient.as_deref().unwrap_or_default();
            format!("{address} is on the suppression list now{}", details([class(entry), None]))
        }
        EventKind::Returned => format!("{id}{recipient} came back{}", details([class(entry), None])),
        EventKind::Complained | EventKind::Unsubscribed | EventKind::Feedback => {
            let reply = if entry.reply.is_some() { String::new() } else { format!(": {text}") };
            let space = if recipient.is_empty() { "" } else { " " };
            let why = if reply.is_empty() { format!(" ({text})") } else { reply };
            format!("{id}{recipient}{space}{}", why.trim_start_matches([':', ' ']))
        }
        EventKind::Throttled | EventKind::Blocked | EventKind::Paused | EventKind::Resumed => text.to_string(),
        EventKind::Alert => match entry.remedy.as_deref().filter(|remedy| !remedy.is_empty()) {
            Some(remedy) => format!("{text}; what to do: {remedy}"),
            None => text.to_string(),
        },
    }
}

/// `from shop@example.com by user app at 192.0.2.1: 3 recipients, 20.0 KiB`
pub(super) fn accepted(entry: &Entry<'_>) -> String {
    let sender = entry.sender.as_deref().filter(|sender| !sender.is_empty()).unwrap_or("<>");
    let user = entry.user.as_deref().map(|user| format!(" by user {user}")).unwrap_or_default();
    let client = entry.client.map(|client| format!(" at {client}")).unwrap_or_default();
    let size = entry.size.map(|size| format!(", {}", human::size(size))).unwrap_or_default();
    format!("from {sender}{user}{client}: {}{size}", human::count(entry.recipients.unwrap_or(1), "recipient"))
}

fn after(entry: &Entry<'_>) -> Option<String> {
    let delay = entry.delay.filter(|delay| (0.0..1e12).contains(delay))?;
    Some(if delay < 60.0 { format!("{delay:.1}s") } else { human::span(Duration::from_secs_f64(delay)) })
}

/// The protocol, without its cipher.
fn tls(entry: &Entry<'_>) -> Option<String> {
    let tls = entry.tls.as_deref()?.split(' ').next()?;
    Some(if tls == "none" { "clear text".to_string() } else { tls.to_string() })
}

fn class(entry: &Entry<'_>) -> Option<String> {
    entry.class.map(|class| class.to_string())
}

fn rule(entry: &Entry<'_>) -> Option<String> {
    entry.rule.as_deref().map(str::to_string)
}

/// ` (1.2s, TLSv1.3)`
fn details(details: [Option<String>; 2]) -> String {
    let details: Vec<String> = details.into_iter().flatten().collect();
    if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) }
}

fn said(reply: Option<&str>) -> String {
    reply.filter(|reply| !reply.is_empty()).map(|reply| format!(": {reply}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(event: &str, rest: &str) -> String {
        format!(
            "{{\"time\":\"2026-11-21T20:33:40.042Z\",\"seq\":1,\"event\":\"{event}\",\"id\":\"0MJ8Q2Z3G5Y1A\",\
             \"sender\":\"shop@example.com\",{rest}}}"
        )
    }

    #[test]
    fn each_event_is_a_line_in_words() {
        const SENT: &str = "\"recipient\":\"a@x.example\",\"mx\":\"mx.x.example\",\"delay\":1.239";
        let rows = [
            (
                line("accepted", "\"user\":\"app\",\"client\":\"192.0.2.1\",\"recipients\":3,\"size\":20480"),
                "accepted    0MJ8Q2Z3G5Y1A from shop@example.com by user app at 192.0.2.1: 3 recipients, 20.0 KiB",
            ),
            (
                line(
                    "delivered",
                    &format!("{SENT},\"reply\":\"250 2.6.0 ok\",\"tls\":\"TLSv1.3 TLS_AES_256_GCM_SHA384\""),
                ),
                "delivered   0MJ8Q2Z3G5Y1A to a@x.example at mx.x.example (1.2s, TLSv1.3): 250 2.6.0 ok",
            ),
            (
                line("deferred", &format!("{SENT},\"attempt\":2,\"class\":\"rate-limit\",\"reply\":\"451 slow\"")),
                "deferred    0MJ8Q2Z3G5Y1A to a@x.example at mx.x.example (attempt 2, rate-limit): 451 slow",
            ),
            (
                line(
                    "bounced",
                    "\"recipient\":\"a@x.example\",\"delay\":3725,\"class\":\"recipient-unknown\",\"reply\":\"550 no\"",
                ),
                "bounced     0MJ8Q2Z3G5Y1A to a@x.example (1h 2m, recipient-unknown): 550 no",
            ),
            (
                line("removed", "\"recipient\":\"a@x.example\",\"rule\":\"not-stored\""),
                "removed     0MJ8Q2Z3G5Y1A to a@x.example (not-stored)",
            ),
            (
                line("refused", "\"recipient\":\"a@x.example\",\"reply\":\"550 5.1.1 gone\"")
                    .replace("\"0MJ8Q2Z3G5Y1A\"", "null"),
                "refused     to a@x.example, which is on the suppression list: 550 5.1.1 gone",
            ),
            (
                line("suppressed", "\"recipient\":\"a@x.example\",\"class\":\"mailbox-full\",\"reply\":\"552 full\""),
                "suppressed  a@x.example is on the suppression list now (mailbox-full): 552 full",
            ),
            (
                line("paused", "\"text\":\"outlook from a: paused\",\"reply\":\"421 RP-001\""),
                "paused      outlook from a: paused: 421 RP-001",
            ),
            (
                line("alert", "\"text\":\"disk low\",\"remedy\":\"free space\""),
                "alert       disk low; what to do: free space",
            ),
        ];
        for (line, expected) in rows {
            let entry = Entry::parse(&line).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(words(&entry), format!("2026-11-21 20:33:40 UTC  {expected}"));
        }
    }

    #[test]
    fn the_last_of_a_kind_are_found_however_far_back() {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (1..=50_000)
            .map(|seq| {
                let event = if seq % 10_000 == 1 { "bounced" } else { "delivered" };
                line(event, "\"recipient\":null").replace("\"seq\":1", &format!("\"seq\":{seq}")) + "\n"
            })
            .collect();
        std::fs::write(folder.path().join("current.jsonl"), text).unwrap();
        let choice = Choice { kinds: vec![EventKind::Bounced], ..Choice::default() };
        let numbers = |last, end| -> Vec<u64> {
            newest(folder.path(), &choice, last, end).unwrap().iter().map(|line| line.seq).collect()
        };
        assert_eq!(numbers(3, 50_000), [40_001, 30_001, 20_001]);
        assert_eq!(numbers(9, 30_001), [30_001, 20_001, 10_001, 1]);
        assert_eq!(numbers(9, 0), [0; 0]);
    }

    #[test]
    fn a_folder_without_a_log_is_named_and_so_is_the_key() {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: data.path().to_path_buf(), ..Config::for_tests() };
        let text = folder(&config).unwrap_err().to_string();
        assert!(text.contains("there is no event log in this data folder (key data_dir)"), "{text}");
        config.settings.events.output = Target::Stdout;
        let text = folder(&config).unwrap_err().to_string();
        assert!(text.contains("standard output alone ([events] output)"), "{text}");
    }
}
