//! `weir status`: the relay and its lanes at a glance.
//!
//! With `--json` the lanes alone, one object a line, so that every line has the same keys; the relay's own record is
//! `weir health --json`.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::config::Config;
use super::output::Output;
use super::table::{self, Column};
use super::{Format, human, relay};
use crate::admin::{LaneRecord, LaneState, RelayRecord, Request, SeenRecord, StatusRecord};
use crate::clock::Clock;
use crate::throttle::EVERYTHING;
use crate::types::Timestamp;

/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// To the first place of a terminal; from here to the end of the line; from here to the end of the screen (ECMA-48:
/// CUP, EL, ED). Written over in place, the picture does not flicker.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K";
const REST_OF_SCREEN: &str = "\x1b[J";

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
    let mut found = false;
    loop {
        match ask(config).await {
            Ok(records) => print(&records, &status, clock.now(), output)?,
            // A relay that is started anew comes back: who watches wants to see that.
            Err(error) if found && status.watch && !status.format.json => {
                show(&format!("{error}\n"), &status, output)?;
            }
            Err(error) => return Err(error),
        }
        found = true;
        output.flush()?;
        if !status.watch {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

async fn ask(config: &Config) -> anyhow::Result<Vec<StatusRecord>> {
    Ok(relay::connect(config).await?.all(&Request::Status).await?)
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
    show(&render(records, now, output.width()), status, output)
}

fn show(text: &str, status: &Status, output: &mut Output) -> anyhow::Result<()> {
    match output.height().filter(|_| status.watch) {
        Some(height) => in_place(&from_top(text, height), output),
        None => output.text(text),
    }
}

/// What fits a terminal of so many lines, the last of which stays empty; what does not is said.
fn from_top(text: &str, height: usize) -> String {
    let room = height.saturating_sub(1).max(1);
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= room {
        return text.to_string();
    }
    let shown = room - 1;
    let more = human::count((lines.len() - shown) as u64, "more line");
    lines[..shown].iter().map(|line| format!("{line}\n")).chain([format!("… {more}: see weir status\n")]).collect()
}

/// The text over what stood there before.
fn in_place(text: &str, output: &mut Output) -> anyhow::Result<()> {
    output.control(HOME)?;
    for line in text.lines() {
        output.text(line)?;
        output.control(REST_OF_LINE)?;
        output.text("\n")?;
    }
    output.control(REST_OF_SCREEN)
}

fn render(records: &[StatusRecord], now: Timestamp, width: Option<usize>) -> String {
    let mut text = String::new();
    let mut lanes = Vec::new();
    for record in records {
        match record {
            StatusRecord::Relay(relay) => text.push_str(&relay_lines(relay, now, width)),
            StatusRecord::Lane(lane) => lanes.push(lane),
        }
    }
    text.push('\n');
    if lanes.is_empty() {
        text.push_str("no lane yet: nothing was sent to anybody since the start\n");
        return text;
    }
    let rows: Vec<Vec<String>> = lanes.iter().map(|lane| lane_row(lane, now)).collect();
    text.push_str(&table::render_within(&COLUMNS, &rows, width));
    // Of a pause that holds for all lanes it is said once.
    let everything = lanes.iter().find(|lane| is_everything(lane)).and_then(|lane| lane.reason.as_deref());
    let is_own =
        |lane: &&&LaneRecord| is_everything(lane) || everything.is_none() || lane.reason.as_deref() != everything;
    let mut said = BTreeSet::new();
    let stand_still = lanes.iter().filter(is_own);
    let mut notes: Vec<String> = stand_still.filter_map(|lane| note(lane, &mut said, now, width)).collect();
    // What waits is counted by provider: it is said once, however many lanes lead there.
    let of_provider = |lane: &&LaneRecord| lane.domain.is_none() && lane.provider != EVERYTHING;
    let lanes: Vec<&LaneRecord> = lanes.into_iter().filter(of_provider).collect();
    let firsts = lanes.iter().enumerate().filter(|(at, lane)| lanes[..*at].iter().all(|l| l.provider != lane.provider));
    notes.extend(firsts.filter_map(|(_, lane)| forecast(lane, now)));
    for note in notes {
        if !note.contains(SAME) {
            text.push('\n');
        }
        text.push_str(&note);
    }
    text
}

fn relay_lines(relay: &RelayRecord, now: Timestamp, width: Option<usize>) -> String {
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
    let unrouted = match relay.unrouted {
        0 => String::new(),
        n => format!(
            "{} not in the table: the hosts of their domains are looked up when they are due",
            human::count_of(n, "delivery", "deliveries")
        ),
    };
    let disk = format!(
        "{} free, mail refused below {}",
        human::size(relay.disk_free_bytes),
        human::size(relay.disk_min_bytes)
    );
    let clients = format!("{} of {}", human::number(relay.clients), human::count(relay.clients_allowed, "place"));
    let ready = if relay.ready { "ready" } else { "not ready" };
    let hostname = relay.hostname.as_deref().unwrap_or("no hostname");
    let mut facts = vec![
        ("relay", format!("weir {}, {hostname}: {ready}", relay.version)),
        ("running", since),
        ("listens", format!("{}; clients have {clients}", relay.listeners.join(", "))),
        ("queue", queue),
        ("backlog", backlog.to_string()),
        ("not routed", unrouted),
        ("spool", format!("{}: {}; {disk}", relay.data_dir, relay.spool_fault.as_deref().unwrap_or("in order"))),
    ];
    facts.extend(relay.seen.iter().map(|seen| ("seen as", seen_line(seen, now))));
    facts.extend(relay.problems.iter().map(|problem| ("problem", problem.clone())));
    table::facts_within(&facts, width)
}

/// At which address the world sees us.
fn seen_line(seen: &SeenRecord, now: Timestamp) -> String {
    let local = seen.local.map(|local| format!(" (sent from {local})")).unwrap_or_default();
    let others: Vec<String> = seen.others.iter().map(ToString::to_string).collect();
    let others = if others.is_empty() { String::new() } else { format!("; others name {}", others.join(", ")) };
    let before = seen.before.map(|before| format!("; before it was {before}")).unwrap_or_default();
    let hosts = human::count_of(seen.hosts, "receiving host", "receiving hosts");
    format!("{}{local} by {hosts}, since {}{others}{before}", seen.address, human::relative(seen.since, now))
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

/// The line of the pause of everything?
fn is_everything(lane: &LaneRecord) -> bool {
    lane.domain.is_none() && lane.provider == EVERYTHING
}

fn lane_row(lane: &LaneRecord, now: Timestamp) -> Vec<String> {
    if lane.domain.is_some() {
        let (since, reason) = (String::new(), lane.reason.clone().unwrap_or_default());
        let mut row = vec![lane.provider.clone(), lane.source.clone(), lane.state.to_string()];
        row.extend([String::new(), String::new(), String::new(), String::new()]);
        row.extend([human::number(lane.waiting), since, reason]);
        return row;
    }
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

const SAME: &str = ", for the same reason; ";

/// What was said of one lane and holds for others, too: it is said once.
type Said<'a> = BTreeSet<[Option<&'a str>; 3]>;

/// Of a lane that stands still: since when, until when, why, and what a person should do.
fn note<'a>(lane: &'a LaneRecord, said: &mut Said<'a>, now: Timestamp, width: Option<usize>) -> Option<String> {
    if matches!(lane.state, LaneState::Open | LaneState::Growing) {
        return None;
    }
    let state = match lane.since {
        Some(since) => format!("{} for {}", lane.state, human::span(now.since(since))),
        None => lane.state.to_string(),
    };
    let next = match (lane.until, lane.state) {
        (Some(until), LaneState::Blocked | LaneState::Stopped) => {
            format!("the next probe {} ({})", human::relative(until, now), human::date(until))
        }
        (Some(until), _) => format!("goes on {} ({})", human::relative(until, now), human::date(until)),
        (None, LaneState::Probing) if lane.waiting == 0 => {
            "the next message for it asks whether it is over; none waits".to_string()
        }
        (None, LaneState::Probing) if lane.connections == 0 => {
            "the next message that can go asks whether it is over".to_string()
        }
        (None, LaneState::Probing) => "one message is out to see whether it is over".to_string(),
        (None, _) => match &lane.domain {
            Some(domain) => format!("nothing goes until `weir resume --domain {domain}`"),
            None if is_everything(lane) => "nothing goes until `weir resume --all`".to_string(),
            None => format!("nothing goes until `weir resume {}`", lane.provider),
        },
    };
    let waiting = || if lane.waiting > 0 { format!(", {}", human::waits(lane.waiting)) } else { String::new() };
    let name = match &lane.domain {
        Some(domain) => format!("mail to {}", human::clean(domain)),
        None if is_everything(lane) => "everything".to_string(),
        None => format!("{} from {}", human::clean(&lane.provider), human::clean(&lane.source)),
    };
    // Of a lane the forecast says what waits.
    let state = if lane.domain.is_some() || is_everything(lane) { format!("{state}{}", waiting()) } else { state };
    let cause = [lane.cause.as_deref(), lane.tag.as_deref(), lane.remedy.as_deref()];
    if lane.cause.is_some() && !said.insert(cause) {
        let text = format!("{name}: {state}{SAME}{next}");
        return Some(human::wrapped(&text, width.map_or(usize::MAX, |width| width - 2)).join("\n  ") + "\n");
    }
    let [why, tag, remedy] = cause.map(|text| text.unwrap_or_default().to_string());
    let facts = [("why", why), ("tag", tag), ("what to do", remedy), ("next", next)];
    let facts = table::facts_within(&facts, width.map(|width| width - 2));
    let facts: String = facts.lines().map(|line| format!("  {line}\n")).collect();
    Some(format!("{name}: {state}\n{facts}"))
}

/// What waits for a provider, and when it will be gone.
fn forecast(lane: &LaneRecord, now: Timestamp) -> Option<String> {
    if lane.waiting == 0 {
        return None;
    }
    let pace = lane.pace.map(|pace| format!(", {}", human::rate(Some(pace)))).unwrap_or_default();
    let end = match lane.empty_at {
        Some(at) => format!(", empty about {}", at.about(now)),
        None if lane.pace.is_none() => "; how fast they can go is not known yet".to_string(),
        None => String::new(),
    };
    let provider = human::clean(&lane.provider);
    Some(format!("{provider}: {}{pace}{end}\n", human::waits(lane.waiting)))
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
            unrouted: 0,
            spool_fault: None,
            disk_free_bytes: 10 << 30,
            disk_min_bytes: 256 << 20,
            clients: 12,
            clients_allowed: 1000,
            panics: 0,
            seen: Vec::new(),
            ready: true,
            problems: Vec::new(),
        }
    }

    fn now() -> Timestamp {
        Timestamp::from_millis(1_795_293_700_000)
    }

    #[test]
    fn the_address_the_world_sees_is_told_with_those_who_differ() {
        let seen = SeenRecord {
            local: Some("10.0.0.7".parse().unwrap()),
            address: "203.0.113.10".parse().unwrap(),
            since: Timestamp::from_millis(1_795_293_700_000 - 3_600_000),
            hosts: 4,
            others: vec!["203.0.113.11".parse().unwrap()],
            before: None,
        };
        let line = "203.0.113.10 (sent from 10.0.0.7) by 4 receiving hosts, since 1h ago; others name 203.0.113.11";
        assert_eq!(seen_line(&seen, now()), line);
    }

    fn told(lane: &LaneRecord) -> Option<String> {
        note(lane, &mut Said::new(), now(), None)
    }

    #[test]
    fn people_see_the_relay_and_its_lanes() {
        let records = [StatusRecord::Relay(relay_record()), StatusRecord::Lane(lane())];
        let text = render(&records, now(), None);
        for part in [
            "relay:    weir 0.1.0, relay.example.com: ready\n",
            "listens:  127.0.0.1:2525, 127.0.0.2:2525; clients have 12 of 1,000 places\n",
            "queue:    12,000 messages: deliveries 12,400 waiting, 3 active, 0 held\n",
            "spool:    /var/lib/weir: in order; 10.0 GiB free, mail refused below 256.0 MiB\n",
            "PROVIDER  SOURCE   STATE   OPEN  ALLOWED  CEILING    RATE  WAITING  UNTIL  REASON\n",
            "outlook   default  paused     3       20      500  38/min   12,400  in 5m  451 4.7.650 slow down\n",
            "outlook from default: paused for 5m\n  why:         the receiver takes less from this address just now\n",
            "  what to do:  nothing: weir goes on by itself\n  next:        goes on in 5m (2026-11-21 20:46:40 UTC)\n",
            "outlook: 12,400 wait, 38/min, empty about 02:12 UTC\n",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("backlog"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let sick = RelayRecord {
            reading_backlog: true,
            unrouted: 5,
            spool_fault: Some("commit failed: no space left".into()),
            ready: false,
            problems: vec!["no public hostname: set `hostname`".into()],
            ..relay_record()
        };
        let text = render(&[StatusRecord::Relay(sick)], now(), None);
        for part in [
            "backlog:     still being read",
            "not routed:  5 deliveries not in the table: the hosts of their domains are looked up when they are due",
            "spool:       /var/lib/weir: commit failed",
            "relay:       weir 0.1.0, relay.example.com: not ready",
            "problem:     no public",
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
            let promised = "cause ceiling connections connections_allowed domain empty_at pace provider rate rate_allowed reason \
                            remedy since source state tag until waiting";
            assert_eq!(keys, promised.split_whitespace().collect::<Vec<&str>>());
        }
    }

    #[test]
    fn a_forecast_says_what_is_known() {
        let at = |hours: u64| Some(now() + Duration::from_secs(hours * 3600));
        for (waiting, pace, empty_at, expected) in [
            (0, Some(38.0), at(2), None),
            (12_400, Some(38.0), at(2), Some("outlook: 12,400 wait, 38/min, empty about 22:41 UTC\n")),
            (12_400, Some(3.8), at(54), Some("outlook: 12,400 wait, 3.8/min, empty about 02:41 UTC on 2026-11-24\n")),
            (7, None, None, Some("outlook: 7 wait; how fast they can go is not known yet\n")),
            (7, Some(20.0), None, Some("outlook: 7 wait, 20/min\n")),
        ] {
            let lane = LaneRecord { waiting, pace, empty_at, ..lane() };
            assert_eq!(forecast(&lane, now()).as_deref(), expected);
        }
    }

    #[test]
    fn what_waits_is_said_once_for_a_provider_with_several_lanes() {
        let other = LaneRecord { source: "b".into(), ..lane() };
        let text = render(&[StatusRecord::Lane(lane()), StatusRecord::Lane(other)], now(), None);
        assert_eq!(text.matches("12,400 wait").count(), 1, "{text}");
        assert!(text.contains("outlook from b: paused"), "{text}");
    }

    #[test]
    fn each_state_says_what_comes_next() {
        let blocked = LaneRecord {
            tag: Some("S3150".into()),
            remedy: Some("ask for delisting; see `weir report outlook`".into()),
            state: LaneState::Blocked,
            ..lane()
        };
        let text = told(&blocked).unwrap();
        for part in
            ["blocked for 5m\n", "tag:         S3150\n", "what to do:  ask for delisting", "the next probe in 5m"]
        {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let by_hand = LaneRecord { cause: None, remedy: None, until: None, ..lane() };
        assert_eq!(
            told(&by_hand).unwrap(),
            "outlook from default: paused for 5m\n  next:  nothing goes until `weir resume outlook`\n"
        );
        let probing = LaneRecord { state: LaneState::Probing, until: None, ..blocked };
        assert!(told(&probing).unwrap().contains("one message is out"));
        let idle = LaneRecord { connections: 0, ..probing.clone() };
        assert!(told(&idle).unwrap().contains("the next message that can go asks whether it is over"));
        let empty = LaneRecord { waiting: 0, ..idle };
        assert!(told(&empty).unwrap().contains("none waits"));
        for state in [LaneState::Open, LaneState::Growing] {
            assert_eq!(told(&LaneRecord { state, ..lane() }), None);
        }
    }

    #[test]
    fn odd_names_never_break_the_picture() {
        let odd = LaneRecord {
            provider: "mx\n\x1b[2J".into(),
            source: "a\tb\u{202e}".into(),
            cause: Some("line\nline".into()),
            ..lane()
        };
        let text = render(&[StatusRecord::Lane(odd)], now(), None);
        assert!(!text.contains(['\x1b', '\t', '\u{202e}']), "{text:?}");
        assert!(text.contains("mx ?[2J from a b?: paused"), "{text}");
        assert!(text.contains("mx ?[2J: 12,400 wait"), "{text}");
        assert!(text.lines().all(|line| line != "line"), "{text}");
    }

    #[test]
    fn a_watch_writes_over_what_stood_there() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut output = Output::to(file.reopen().unwrap());
        in_place("one\ntwo\u{9b}2J\n", &mut output).unwrap();
        output.flush().unwrap();
        let written = std::fs::read_to_string(file.path()).unwrap();
        assert_eq!(written, "\x1b[Hone\x1b[K\ntwo?2J\x1b[K\n\x1b[J");
    }

    #[test]
    fn it_fits_a_terminal_and_says_what_holds_for_several_lanes_once() {
        let cause = "Outlook.com takes only so many messages an hour and a day from our address; its reputation sets the limit.";
        let paused = |source: &str| LaneRecord { source: source.into(), cause: Some(cause.into()), ..lane() };
        let records: Vec<StatusRecord> = std::iter::once(StatusRecord::Relay(relay_record()))
            .chain(["a", "b", "c"].map(|source| StatusRecord::Lane(paused(source))))
            .collect();
        let text = render(&records, now(), Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.lines().count() <= 24, "{text}");
        assert_eq!((text.matches("Outlook.com takes only").count(), text.matches(SAME).count()), (1, 2), "{text}");
        let seen = from_top(&text, 10);
        assert_eq!(seen.lines().count(), 9);
        assert!(seen.contains("more lines: see weir status"), "{seen}");
        assert_eq!(from_top(&text, 99), text);
    }
}
