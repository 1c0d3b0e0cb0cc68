//! `weir status`: the relay and its lanes at a glance.
//!
//! With `--json` the lanes alone, one object a line, so that every line has the same keys; the relay's own record is
//! `weir health --json`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::config::Config;
use super::output::Output;
use super::table::{self, Column};
use super::{Format, human, relay};
use crate::admin::{LaneRecord, RelayRecord, Request, StatusRecord};
use crate::clock::Clock;
use crate::types::Timestamp;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Clears a terminal and goes to its first line (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Fewer waiting deliveries than this say nothing about the rate.
const FORECAST_MIN: u64 = 50;

#[derive(Debug, Args)]
pub(super) struct Status {
    /// Look again every 2 seconds until interrupted
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    format: Format,
}

pub(super) async fn status(status: Status, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let clock = Clock::system();
    loop {
        let records: Vec<StatusRecord> = relay::connect(config).await?.all(&Request::Status).await?;
        print(&records, &status, clock.now(), output)?;
        output.flush()?;
        if !status.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn print(records: &[StatusRecord], status: &Status, now: Timestamp, output: &mut Output) -> anyhow::Result<()> {
    if status.format.json {
        for record in records {
            if let StatusRecord::Lane(lane) = record {
                output.json(lane)?;
            }
        }
        return Ok(());
    }
    if status.watch && output.is_terminal() {
        output.raw(CLEAR)?;
    }
    output.raw(&render(records, now))
}

fn render(records: &[StatusRecord], now: Timestamp) -> String {
    let mut text = String::new();
    let mut lanes = Vec::new();
    for record in records {
        match record {
            StatusRecord::Relay(relay) => text.push_str(&relay_lines(relay, now)),
            StatusRecord::Lane(lane) => lanes.push(lane),
        }
    }
    text.push('\n');
    if lanes.is_empty() {
        text.push_str("no lane yet: nothing was sent to anybody since the start\n");
        return text;
    }
    let rows: Vec<Vec<String>> = lanes.iter().map(|lane| lane_row(lane, now)).collect();
    text.push_str(&table::render(&COLUMNS, &rows));
    let forecasts: Vec<String> = lanes.iter().filter_map(|lane| forecast(lane, now)).collect();
    if !forecasts.is_empty() {
        text.push('\n');
        text.extend(forecasts);
    }
    text
}

fn relay_lines(relay: &RelayRecord, now: Timestamp) -> String {
    let since = format!("{} ({})", human::date(relay.since), human::relative(relay.since, now));
    let queue = format!(
        "{}: deliveries {} waiting, {} active, {} held{}",
        human::count(relay.messages, "message"),
        human::number(relay.waiting),
        human::number(relay.active),
        human::number(relay.held),
        relay.oldest.map(|at| format!("; the oldest came {}", human::relative(at, now))).unwrap_or_default(),
    );
    let backlog = if relay.reading_backlog { "still being read: the counts grow until that is done" } else { "" };
    let disk = format!(
        "{} free, mail is taken down to {}",
        human::size(relay.disk_free_bytes),
        human::size(relay.disk_min_bytes)
    );
    let mut facts = vec![
        ("relay", format!("weir {}, {}", relay.version, relay.hostname.as_deref().unwrap_or("no hostname"))),
        ("running", since),
        ("listens", relay.listeners.join(", ")),
        ("queue", queue),
        ("backlog", backlog.to_string()),
        ("spool", format!("{}: {}", relay.data_dir, relay.spool_fault.as_deref().unwrap_or("in order"))),
        ("disk", disk),
        ("ready", if relay.ready { "yes" } else { "no" }.to_string()),
    ];
    facts.extend(relay.problems.iter().map(|problem| ("problem", problem.clone())));
    table::facts(&facts)
}

const COLUMNS: [Column; 10] = [
    Column::Left("PROVIDER"),
    Column::Left("SOURCE"),
    Column::Left("STATE"),
    Column::Right("OPEN"),
    Column::Right("ALLOWED"),
    Column::Right("CEILING"),
    Column::Right("RATE"),
    Column::Right("WAITING"),
    Column::Left("UNTIL"),
    Column::Left("REASON"),
];

fn lane_row(lane: &LaneRecord, now: Timestamp) -> Vec<String> {
    vec![
        lane.provider.clone(),
        lane.source.clone(),
        lane.state.to_string(),
        human::number(lane.connections),
        human::number(lane.connections_allowed),
        human::number(lane.ceiling),
        human::rate(lane.rate),
        human::number(lane.waiting),
        lane.until.map(|until| human::relative(until, now)).unwrap_or_default(),
        lane.reason.clone().unwrap_or_default(),
    ]
}

/// When a lane with a known rate will have sent what waits. A handful follows its schedule, not the rate.
fn forecast(lane: &LaneRecord, now: Timestamp) -> Option<String> {
    let rate = lane.rate.filter(|rate| *rate > 0.0 && lane.waiting >= FORECAST_MIN)?;
    let minutes = u32::try_from(lane.waiting).map_or(f64::from(u32::MAX), f64::from) / rate;
    let start = lane.until.map_or(now, |until| until.max(now));
    let empty = start + Duration::try_from_secs_f64(minutes * 60.0).ok()?;
    Some(format!(
        "{} from {}: {} wait, {}, empty about {}\n",
        human::clean(&lane.provider),
        human::clean(&lane.source),
        human::number(lane.waiting),
        human::rate(lane.rate),
        human::date(empty)
    ))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::admin::record::tests::lane;

    pub(in crate::cli) fn relay_record() -> RelayRecord {
        RelayRecord {
            version: "0.1.0".into(),
            hostname: Some("relay.example.com".into()),
            since: Timestamp::from_secs(1_795_200_000),
            data_dir: "/var/lib/weir".into(),
            listeners: vec!["127.0.0.1:2525".into(), "127.0.0.2:2525".into()],
            messages: 12_000,
            waiting: 12_400,
            active: 3,
            held: 0,
            oldest: None,
            reading_backlog: false,
            spool_fault: None,
            disk_free_bytes: 10 << 30,
            disk_min_bytes: 256 << 20,
            ready: true,
            problems: Vec::new(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_795_293_700_000)
    }

    #[test]
    fn people_see_the_relay_and_its_lanes() {
        let records = [StatusRecord::Relay(relay_record()), StatusRecord::Lane(lane())];
        let text = render(&records, now());
        for part in [
            "listens:  127.0.0.1:2525, 127.0.0.2:2525\n",
            "queue:    12,000 messages: deliveries 12,400 waiting, 3 active, 0 held\n",
            "spool:    /var/lib/weir: in order\n",
            "disk:     10.0 GiB free, mail is taken down to 256.0 MiB\n",
            "PROVIDER  SOURCE   STATE   OPEN  ALLOWED  CEILING    RATE  WAITING  UNTIL  REASON\n",
            "outlook   default  paused     3       20      500  38/min   12,400  in 5m  451 4.7.650 slow down\n",
            "outlook from default: 12,400 wait, 38/min, empty about 2026-11-22 02:12:",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("backlog"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let sick = RelayRecord {
            reading_backlog: true,
            spool_fault: Some("commit failed: no space left".into()),
            ready: false,
            problems: vec!["no public hostname: set `hostname`".into()],
            ..relay_record()
        };
        let text = render(&[StatusRecord::Relay(sick)], now());
        for part in [
            "backlog:  still being read",
            "spool:    /var/lib/weir: commit failed",
            "ready:    no",
            "problem:  no public",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(text.contains("no lane yet"), "{text}");
    }

    #[test]
    fn json_has_one_lane_a_line_with_the_promised_keys() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut output = Output::to(file.reopen().unwrap());
        let status = Status { watch: false, format: Format { json: true } };
        let records = [StatusRecord::Relay(relay_record()), StatusRecord::Lane(lane()), StatusRecord::Lane(lane())];
        print(&records, &status, now(), &mut output).unwrap();
        output.flush().unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(text.lines().count(), 2);
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            let mut keys: Vec<&String> = value.as_object().unwrap().keys().collect();
            keys.sort();
            let promised = "ceiling connections connections_allowed provider rate reason source state until waiting";
            assert_eq!(keys, promised.split(' ').collect::<Vec<&str>>());
        }
    }

    #[test]
    fn a_forecast_needs_a_rate_and_something_that_waits() {
        assert_eq!(forecast(&LaneRecord { rate: None, ..lane() }, now()), None);
        assert_eq!(forecast(&LaneRecord { waiting: 0, ..lane() }, now()), None);
        assert_eq!(forecast(&LaneRecord { rate: Some(0.0), ..lane() }, now()), None);
    }
}
