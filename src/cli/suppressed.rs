//! `weir suppress list`, `check` and `export`: what is on the list, told to a person, to a script or for another list.
//!
//! All of it comes from the running relay or, where none runs, from the data folder.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::config::Config;
use super::output::{self, Output};
use super::progress::{INTERRUPTED, Progress, unless_interrupted};
use super::suppress::{Chosen, entries};
use super::table::{Column, Pages};
use super::{Format, human, offline, relay, table};
use crate::admin::{AddressPattern, Changed, Request, SuppressFilter, SuppressRecord, WaveRecord};
use crate::clock::Clock;
use crate::server::listing::entry_of;
use crate::suppress::{CSV_HEADER, Source, csv_line};
use crate::types::{Class, Domain, Mailbox, Timestamp};

#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    chosen: Chosen,
    /// One address, or @domain
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<AddressPattern>,
    /// Also what has run out and is only remembered
    #[arg(long)]
    expired: bool,
    /// The waves that wait for `confirm` or `remove --wave`, with their numbers of entries
    #[arg(long)]
    waves: bool,
    /// At most so many
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Check {
    #[arg(value_name = "ADDRESS", value_parser = Mailbox::parse)]
    recipient: Mailbox,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Count {
    #[command(flatten)]
    chosen: Chosen,
    /// Also what has run out and is only remembered
    #[arg(long)]
    expired: bool,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    chosen: Chosen,
    /// Also what has run out and is only remembered
    #[arg(long)]
    expired: bool,
    /// How it is written
    #[arg(long = "format", value_name = "FORMAT", default_value = "json")]
    kind: Kind,
    /// Taken for the sake of habit: JSON is the default
    #[command(flatten)]
    _format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// One object a line
    Json,
    /// With a line of names
    Csv,
}

/// Every entry that `filter` chooses, from the relay or, where none runs, from the data folder.
async fn each(config: &Config, filter: SuppressFilter, print: offline::Each<'_, SuppressRecord>) -> anyhow::Result<()> {
    let Some(mut client) = relay::connect_if_running(config).await? else {
        return offline::suppressed(&config.data_dir, &filter, print).await;
    };
    let mut records = client.ask(&Request::SuppressList { filter }).await?;
    while let Some(record) = records.next().await? {
        print(record)?;
    }
    Ok(())
}

pub(super) async fn count(command: Count, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let filter = SuppressFilter { expired: command.expired, ..command.chosen.filter(Clock::system().now()) };
    let mut counted = Changed::default();
    each(config, filter, &mut |_| {
        counted.entries += 1;
        Ok(())
    })
    .await?;
    if command.format.json { output.json(&counted) } else { output.line(&entries(counted.entries)) }
}

pub(super) async fn export(command: Export, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let filter = SuppressFilter { expired: command.expired, ..command.chosen.filter(Clock::system().now()) };
    let mut progress = Progress::beside(Clock::system(), output.is_terminal());
    let mut written = 0_u64;
    if command.kind == Kind::Csv {
        output.line(CSV_HEADER)?;
    }
    let mut print = |record| {
        written += 1;
        progress.say(|| human::count_of(written, "entry is written", "entries are written"));
        match command.kind {
            Kind::Json => output.json(&record),
            Kind::Csv => entry_of(record).map_or(Ok(()), |entry| output.data(&csv_line(&entry))),
        }
    };
    if let Some(done) = unless_interrupted(each(config, filter, &mut print)).await? {
        return done.map(|()| ExitCode::SUCCESS);
    }
    progress.end();
    output.flush()?;
    let so_far = human::count_of(written, "entry was written", "entries were written");
    output::say(&format!("interrupted: {so_far}, and this is not the whole list"));
    Ok(ExitCode::from(INTERRUPTED))
}

const COLUMNS: [Column; 7] = [
    Column::Left("RECIPIENT"),
    Column::Left("CLASS"),
    Column::Right("HITS"),
    Column::Left("LAST"),
    Column::Left("EXPIRES"),
    Column::Left("SOURCE"),
    Column::Left("REPLY"),
];

pub(super) async fn list(command: List, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let List { chosen, recipient, expired, waves: of_waves, limit, format } = command;
    if of_waves {
        return waves(&format, config, output).await;
    }
    let now = Clock::system().now();
    let filter = SuppressFilter { recipient, expired, limit, ..chosen.filter(now) };
    if format.json {
        return each(config, filter, &mut |record| output.json(&record)).await;
    }
    let mut pages = Pages::new(&COLUMNS);
    each(config, filter, &mut |record| pages.row(row(&record, now), output)).await?;
    pages.finish("no address is suppressed, or none matches", output)
}

const WAVE_COLUMNS: [Column; 6] = [
    Column::Left("WAVE"),
    Column::Left("PROVIDER"),
    Column::Right("ENTRIES"),
    Column::Left("FIRST"),
    Column::Left("LAST"),
    Column::Left("FREE"),
];

async fn waves(format: &Format, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let records: Vec<WaveRecord> = match relay::connect_if_running(config).await? {
        Some(mut client) => client.all(&Request::SuppressWaves).await?,
        None => offline::waves(&config.data_dir).await?,
    };
    if format.json {
        return records.iter().try_for_each(|record| output.json(record));
    }
    let now = Clock::system().now();
    let mut pages = Pages::new(&WAVE_COLUMNS);
    for record in records {
        let row = vec![
            record.wave,
            record.provider.unwrap_or_default(),
            human::number(record.entries),
            human::relative(record.first, now),
            human::relative(record.last, now),
            record.expires.map(|expires| human::relative(expires, now)).unwrap_or_default(),
        ];
        pages.row(row, output)?;
    }
    pages.finish("no wave waits for a decision", output)
}

fn row(record: &SuppressRecord, now: Timestamp) -> Vec<String> {
    vec![
        record.recipient.clone(),
        record.class.map(|class| class.to_string()).unwrap_or_default(),
        human::number(record.hits),
        record.last.map(|last| human::relative(last, now)).unwrap_or_default(),
        record.expires.map_or_else(|| "when removed".to_string(), |expires| human::relative(expires, now)),
        record.source.clone(),
        record.reply.clone().unwrap_or_default(),
    ]
}

/// The entry of `suppress check --json`, or the fact that there is none.
#[derive(serde::Serialize)]
struct Checked<'a> {
    recipient: &'a str,
    suppressed: bool,
    #[serde(flatten)]
    entry: Option<Entry<'a>>,
}

#[derive(serde::Serialize)]
struct Entry<'a> {
    class: Option<Class>,
    reply: Option<&'a str>,
    source: &'a str,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    hits: u64,
    expires: Option<Timestamp>,
    sender_domain: Option<&'a Domain>,
    tag: Option<&'a str>,
    provider: Option<&'a str>,
    rule: Option<&'a str>,
    wave: Option<&'a str>,
}

impl<'a> Checked<'a> {
    fn of(recipient: &'a Mailbox, record: Option<&'a SuppressRecord>) -> Checked<'a> {
        let entry = record.map(|record| Entry {
            class: record.class,
            reply: record.reply.as_deref(),
            source: &record.source,
            first: record.first,
            last: record.last,
            hits: record.hits,
            expires: record.expires,
            sender_domain: record.sender_domain.as_ref(),
            tag: record.tag.as_deref(),
            provider: record.provider.as_deref(),
            rule: record.rule.as_deref(),
            wave: record.wave.as_deref(),
        });
        let recipient = record.map_or(recipient.as_str(), |record| &record.recipient);
        Checked { recipient, suppressed: record.is_some(), entry }
    }
}

/// Exit code 1: it is not on the list.
pub(super) async fn check(command: Check, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let recipient = command.recipient;
    let records: Vec<SuppressRecord> = match relay::connect_if_running(config).await? {
        Some(mut client) => client.all(&Request::SuppressCheck { recipient: recipient.clone() }).await?,
        None => offline::suppression_of(&config.data_dir, &recipient).await?,
    };
    if records.is_empty() {
        match command.format.json {
            true => output.json(&Checked::of(&recipient, None))?,
            false => output.line(&format!("{} is not suppressed", recipient.as_str()))?,
        }
        return Ok(ExitCode::FAILURE);
    }
    // What holds for one sender domain alone stands behind what holds for all, each on its line.
    for record in &records {
        match command.format.json {
            true => output.json(&Checked::of(&recipient, Some(record)))?,
            false => output.text(&describe(record, Clock::system().now()))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An entry for a person.
pub(super) fn describe(record: &SuppressRecord, now: Timestamp) -> String {
    let moment = |at: Option<Timestamp>| at.map(|at| format!("{} ({})", human::date(at), human::relative(at, now)));
    let source = match &record.wave {
        Some(wave) if record.source == Source::Wave.as_str() => {
            format!("wave {wave}: waits for `weir suppress confirm {wave}` or `weir suppress remove --wave {wave}`")
        }
        _ => record.source.clone(),
    };
    let mut facts = vec![("recipient", record.recipient.clone())];
    facts.extend(record.sender_domain.as_ref().map(|domain| ("for mail of", domain.to_string())));
    facts.extend([
        ("class", record.class.map(|class| class.to_string()).unwrap_or_default()),
        ("reply", record.reply.clone().unwrap_or_default()),
    ]);
    let also = [("tag", &record.tag), ("provider", &record.provider), ("rule", &record.rule)];
    facts.extend(also.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
    facts.extend([
        ("source", source),
        ("first", moment(record.first).unwrap_or_default()),
        ("last", moment(record.last).unwrap_or_default()),
        ("hits", human::number(record.hits)),
        ("expires", moment(record.expires).unwrap_or_else(|| "when it is removed".to_string())),
    ]);
    table::facts(&facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::record::tests::suppressed;

    #[test]
    fn check_says_yes_or_no_with_the_same_keys() {
        let recipient = Mailbox::parse("gone@outlook.com").unwrap();
        let yes = serde_json::to_value(Checked::of(&recipient, Some(&suppressed()))).unwrap();
        for key in "recipient class reply source first last hits expires suppressed".split(' ') {
            assert!(yes.get(key).is_some(), "{key} is missing in {yes}");
        }
        let no = serde_json::to_value(Checked::of(&recipient, None)).unwrap();
        assert_eq!(no, serde_json::json!({"recipient": "gone@outlook.com", "suppressed": false}));
    }

    #[test]
    fn people_see_until_when() {
        let now = Timestamp::from_secs(1_795_293_220);
        let said = describe(&suppressed(), now);
        assert!(said.contains("when it is removed\n") && said.contains("S775"), "{said}");
        let wave = SuppressRecord { source: "wave".into(), wave: Some("w7".into()), ..suppressed() };
        assert!(describe(&wave, now).contains("`weir suppress confirm w7` or `weir suppress remove --wave w7`"));
        assert_eq!(row(&suppressed(), now)[4], "when removed");
    }
}
