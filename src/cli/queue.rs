//! `weir queue`: what waits, why, and the operator's hand on it.

use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::config::Config;
use super::output::{self, Output};
use super::progress::{INTERRUPTED, Progress, unless_interrupted};
use super::table::{self, Column, Pages};
use super::{Format, human, offline, providers, relay, usage};
use crate::admin::{
    Acted, Action, AddressPattern, Client, ClientError, Filter, LaneRecord, QueueDetail, QueueRecord, QueueState,
    Request,
};
use crate::clock::Clock;
use crate::throttle::Profiles;
use crate::types::{Domain, NextHop, QueueId, Refusal, Reply, Span, Timestamp};
use crate::verdict::{Rules, does};

#[derive(Debug, Subcommand)]
pub(super) enum Queue {
    /// List what is in the queue, oldest first; also without a running relay
    List(List),
    /// Show one message and why it waits: last reply, the rule that read it, next attempt
    Show(Show),
    /// Make messages due now; lifts no pause, ceiling or breaker
    Flush(Act),
    /// Keep messages from being tried until they are released
    Hold(Act),
    /// Let held messages be tried again
    Release(Act),
    /// Send messages another way than to the MX hosts of their recipients: what was never tried, or only deferred
    Reroute(Reroute),
    /// Give messages up; their senders get the report
    Bounce(GiveUp),
    /// Give messages up without a word; only the event log tells
    Remove(GiveUp),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// At most so many
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Args)]
pub(super) struct Show {
    /// The queue id, as in `250 2.0.0 queued as ID`
    id: QueueId,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct Act {
    /// These messages alone; without ids and filters all messages are meant
    #[arg(value_name = "ID")]
    ids: Vec<QueueId>,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Debug, Args)]
pub(super) struct Reroute {
    /// Where to: a host that relays for us, as in smarthost.example.com:25, 192.0.2.1:25 or [2001:db8::1]:25
    #[arg(long, value_name = "HOST:PORT")]
    to: NextHop,
    #[command(flatten)]
    which: GiveUp,
}

#[derive(Debug, Args)]
pub(super) struct GiveUp {
    /// These messages alone
    #[arg(value_name = "ID")]
    ids: Vec<QueueId>,
    /// Really all messages in the queue
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    selection: Selection,
}

/// Which messages; all conditions that are given must hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Filters")]
struct Selection {
    /// Recipients' domain
    #[arg(long, value_name = "DOMAIN", value_parser = Domain::parse)]
    domain: Option<Domain>,
    /// Sender: an address, @domain, or <> for reports
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<AddressPattern>,
    /// A recipient who still waits: an address or @domain
    #[arg(long, value_name = "ADDRESS")]
    recipient: Option<AddressPattern>,
    /// Provider that receives it, as in `weir status`
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// waiting, active or held
    #[arg(long, value_name = "STATE")]
    state: Option<QueueState>,
    /// User who handed it in
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Message-ID field, with or without angle brackets
    #[arg(long, value_name = "MESSAGE-ID")]
    message_id: Option<String>,
    /// Received at least this long ago, as in 90m or "1d 12h"
    #[arg(long, value_name = "DURATION")]
    older_than: Option<Span>,
}

impl Selection {
    /// Refuses a slip of the pen, which would choose nothing.
    fn checked(&self, config: &Config) -> anyhow::Result<()> {
        self.provider.as_deref().map_or(Ok(()), |name| providers::known(name, config))
    }

    fn filter(self, ids: Vec<QueueId>, limit: Option<u64>) -> Filter {
        let Selection { domain, sender, recipient, provider, state, user, message_id, older_than } = self;
        Filter { ids, domain, sender, recipient, provider, state, user, message_id, older_than, limit }
    }
}

pub(super) async fn queue(command: Queue, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    match command {
        Queue::List(command) => list(command, config, output).await?,
        Queue::Show(command) => show(command, config, output).await?,
        Queue::Flush(command) => return act(Action::Flush, command, config, output).await,
        Queue::Hold(command) => return act(Action::Hold, command, config, output).await,
        Queue::Release(command) => return act(Action::Release, command, config, output).await,
        Queue::Reroute(command) => return reroute(command, config, output).await,
        Queue::Bounce(command) => return act(Action::Bounce, command.checked("bounce")?, config, output).await,
        Queue::Remove(command) => return act(Action::Remove, command.checked("remove")?, config, output).await,
    }
    Ok(ExitCode::SUCCESS)
}

impl GiveUp {
    /// What is not easily taken back is never done to the whole queue by forgetting a filter.
    fn checked(self, verb: &str) -> anyhow::Result<Act> {
        let GiveUp { ids, selection, all, format } = self;
        let filter = selection.filter(ids.clone(), None);
        match (filter.is_everything(), all) {
            (true, false) => Err(usage(format!(
                "`weir queue {verb}` without ids and filters would {verb} the whole queue: name messages, or write --all"
            ))),
            (false, true) => {
                Err(usage(format!("--all means every message: leave out the ids and filters, or --all ({verb})")))
            }
            _ => Ok(Act { ids, selection: Selection::from(filter), format }),
        }
    }
}

impl From<Filter> for Selection {
    fn from(filter: Filter) -> Selection {
        let Filter { domain, sender, recipient, provider, state, user, message_id, older_than, .. } = filter;
        Selection { domain, sender, recipient, provider, state, user, message_id, older_than }
    }
}

const LIST_COLUMNS: [Column; 9] = [
    Column::Left("ID"),
    Column::Right("AGE"),
    Column::Left("SENDER"),
    Column::Left("RECIPIENTS"),
    Column::Left("PROVIDER"),
    Column::Left("STATE"),
    Column::Right("TRIES"),
    Column::Left("NEXT"),
    Column::Left("REASON"),
];

async fn list(command: List, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    command.selection.checked(config)?;
    let filter = command.selection.filter(Vec::new(), command.limit);
    let now = Clock::system().now();
    let mut pages = Pages::new(&LIST_COLUMNS);
    let mut print = |record: QueueRecord, output: &mut Output| {
        if command.format.json { output.json(&record) } else { pages.row(list_row(&record, now), output) }
    };
    match relay::connect_if_running(config).await? {
        Some(mut client) => {
            let mut records = client.ask(&Request::QueueList { filter }).await?;
            while let Some(record) = records.next().await? {
                print(record, output)?;
            }
        }
        None => offline::queue(&config.data_dir, &filter, &mut |record| print(record, output)).await?,
    }
    if command.format.json { Ok(()) } else { pages.finish("the queue is empty, or nothing in it matches", output) }
}

fn list_row(record: &QueueRecord, now: Timestamp) -> Vec<String> {
    vec![
        record.id.to_string(),
        human::span(now.since(record.received)),
        sender(&record.sender).to_string(),
        recipients(&record.recipients),
        record.provider.clone().unwrap_or_else(|| record.domain.clone()),
        record.state.to_string(),
        record.attempts.to_string(),
        next_attempt(record, now),
        record.reason.clone().unwrap_or_default(),
    ]
}

fn sender(sender: &str) -> &str {
    if sender.is_empty() { "<>" } else { sender }
}

fn recipients(recipients: &[String]) -> String {
    match recipients {
        [] => String::new(),
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} +{}", rest.len()),
    }
}

pub(super) fn next_attempt(record: &QueueRecord, now: Timestamp) -> String {
    match (record.state, record.next_attempt) {
        (QueueState::Held, _) => "when released".to_string(),
        (QueueState::Active, _) => "being tried".to_string(),
        (QueueState::Waiting, next) if let Some(stopped) = record.stopped => match next {
            Some(next) => format!("{stopped}, {}", human::relative(next, now)),
            None => format!("{stopped}, until resumed"),
        },
        (QueueState::Waiting, Some(next)) if next > now => human::relative(next, now),
        (QueueState::Waiting, _) => "due".to_string(),
    }
}

async fn show(command: Show, config: &Config, output: &mut Output) -> anyhow::Result<()> {
    let mut client = relay::connect(config).await?;
    let mut details: Vec<QueueDetail> = client.all(&Request::QueueShow { id: command.id }).await?;
    if details.is_empty() {
        bail!(
            "message {} is not in the queue: it has come to its end (see the event log) or never was here",
            command.id
        );
    }
    let now = Clock::system().now();
    let (rules, profiles) = (config.rules()?, Profiles::new(&config.settings.provider));
    details.iter_mut().for_each(|detail| explained(detail, &rules, &profiles));
    for (place, detail) in details.iter().enumerate() {
        if command.format.json {
            output.json(detail)?;
        } else {
            output.text(if place > 0 { "\n" } else { "" })?;
            output.text(&describe(detail, now))?;
        }
    }
    Ok(())
}

/// Everything about one delivery, the reason it waits last, where the eye ends.
fn describe(detail: &QueueDetail, now: Timestamp) -> String {
    let record = &detail.record;
    let age = format!("{} ({})", human::date(record.received), human::relative(record.received, now));
    let from = [detail.client.map(|ip| ip.to_string()), detail.user.as_ref().map(|user| format!("user {user}"))];
    let mut facts = vec![
        ("id", record.id.to_string()),
        ("sender", sender(&record.sender).to_string()),
        ("recipients", record.recipients.join(", ")),
        ("message-id", detail.message_id.clone().unwrap_or_default()),
        ("size", human::size(record.size_bytes)),
        ("received", age),
        ("from", from.into_iter().flatten().collect::<Vec<String>>().join(", ")),
        ("given up", detail.expires.map(|at| human::relative(at, now)).unwrap_or_default()),
        ("provider", record.provider.clone().unwrap_or_else(|| "not known yet".to_string())),
        ("source", record.source.clone().unwrap_or_default()),
        ("state", record.state.to_string()),
        ("attempts", record.attempts.to_string()),
        ("next attempt", next_attempt(record, now)),
    ];
    match &detail.last {
        Some(last) => facts.extend(last_refusal(last, now)),
        None => facts.push(("last reply", "none yet: it was not tried so far".to_string())),
    }
    facts.push(("why", detail.cause.clone().unwrap_or_default()));
    facts.push(("weir does", detail.does.clone().unwrap_or_default()));
    facts.push(("what to do", detail.remedy.clone().unwrap_or_default()));
    facts.push(("waits for", detail.waits_for.clone().unwrap_or_default()));
    facts.push(("its turn", turn(detail, now)));
    // The same words once are enough.
    let is_said = |reason: &str| detail.waits_for.as_ref().is_some_and(|waits_for| waits_for.contains(reason));
    let lane = detail.lane.as_ref().map(|lane| match &lane.reason {
        Some(reason) if is_said(reason) => lane_line(&LaneRecord { reason: None, ..lane.clone() }, now),
        _ => lane_line(lane, now),
    });
    facts.push(("lane", lane.unwrap_or_default()));
    table::facts(&facts)
}

/// Adds what the last reply means, by the rule that read it.
pub(super) fn explained(detail: &mut QueueDetail, rules: &Rules, profiles: &Profiles) {
    let Some(last) = &detail.last else { return };
    let Some(meaning) = Meaning::of(&last.provider, &last.rule, &last.reply, rules, profiles) else { return };
    Meaning { cause: detail.cause, does: detail.does, remedy: detail.remedy } = meaning;
}

/// What a reply means by the rule that read it, for a person.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Meaning {
    pub(super) cause: Option<String>,
    pub(super) does: Option<String>,
    pub(super) remedy: Option<String>,
}

impl Meaning {
    /// `None`: no rule has read it, or that rule is gone.
    pub(super) fn of(provider: &str, rule: &str, reply: &str, rules: &Rules, profiles: &Profiles) -> Option<Meaning> {
        let reading = rules.reread(provider, rule, &Reply::parse(reply)?)?;
        let said = |words: String| Some(words).filter(|words| !words.is_empty());
        Some(Meaning {
            cause: said(reading.cause.to_string()),
            does: said(does(&reading, profiles.get(provider).pause)),
            remedy: said(reading.remedy.to_string()),
        })
    }
}

/// `after 3,000 others, about 08:25 UTC`
pub(super) fn turn(detail: &QueueDetail, now: Timestamp) -> String {
    let others = match detail.ahead {
        None => String::new(),
        Some(0) => "next".to_string(),
        Some(ahead) => format!("after {}", human::count(ahead, "other")),
    };
    match detail.turn_at {
        Some(at) if others.is_empty() => format!("about {}", at.about(now)),
        Some(at) => format!("{others}, about {}", at.about(now)),
        None => others,
    }
}

fn last_refusal(last: &Refusal, now: Timestamp) -> [(&'static str, String); 4] {
    [
        ("last reply", last.reply.clone()),
        ("said by", last.mx.clone().unwrap_or_default()),
        ("said", format!("{} ({})", human::date(last.at), human::relative(last.at, now))),
        ("read as", format!("{} (rule {})", last.class, last.rule)),
    ]
}

fn lane_line(lane: &LaneRecord, now: Timestamp) -> String {
    let until = lane.until.map(|until| format!(", until {} ({})", human::date(until), human::relative(until, now)));
    let reason = lane.reason.as_ref().map(|reason| format!(": {reason}"));
    format!(
        "{} from {} is {}{}{}; {} of {} open, {}",
        lane.provider,
        lane.source,
        lane.state,
        until.unwrap_or_default(),
        reason.unwrap_or_default(),
        lane.connections,
        human::count(lane.connections_allowed, "connection"),
        human::waits(lane.waiting),
    )
}

async fn act(action: Action, command: Act, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let named = !command.ids.is_empty();
    command.selection.checked(config)?;
    let filter = command.selection.filter(command.ids, None);
    let request = |progress| Request::QueueAct { action, filter: filter.clone(), progress };
    work(&request, done(action), named, command.format, config, output).await
}

async fn reroute(command: Reroute, config: &Config, output: &mut Output) -> anyhow::Result<ExitCode> {
    let Act { ids, format, selection } = command.which.checked("reroute")?;
    selection.checked(config)?;
    let named = !ids.is_empty();
    let filter = selection.filter(ids, None);
    let request = |progress| Request::QueueReroute { filter: filter.clone(), to: command.to.clone(), progress };
    work(&request, &format!("rerouted to {}", command.to), named, format, config, output).await
}

/// Has it done, and says how far it is and what was done, also where Ctrl-C ends it.
async fn work(
    request: &impl Fn(bool) -> Request,
    done: &str,
    named: bool,
    format: Format,
    config: &Config,
    output: &mut Output,
) -> anyhow::Result<ExitCode> {
    let mut so_far = Acted::default();
    let mut progress = Progress::new(Clock::system());
    let mut each = |acted: Acted| {
        progress.say(|| acted_line(done, &acted));
        so_far = acted;
    };
    let asked = async {
        match ask(&request(true), config, &mut each).await {
            // It is older than the question how far it is.
            Err(error) if error.is_not_understood() => ask(&request(false), config, &mut each).await,
            asked => asked,
        }
    };
    let asked = unless_interrupted(asked).await?;
    progress.end();
    let Some(asked) = asked else {
        let at_least = acted_line(done, &so_far);
        output::say(&format!(
            "interrupted. At least so much was done and stays done: {at_least}; the same command does the rest"
        ));
        return Ok(ExitCode::from(INTERRUPTED));
    };
    asked?;
    tell(done, named, &so_far, format, output)?;
    Ok(ExitCode::SUCCESS)
}

async fn ask(request: &Request, config: &Config, each: &mut impl FnMut(Acted)) -> Result<(), ClientError> {
    let mut client = Client::connect(&config.data_dir).await?;
    let mut records = client.ask(request).await?;
    while let Some(acted) = records.next().await? {
        each(acted);
    }
    Ok(())
}

fn tell(done: &str, named: bool, acted: &Acted, format: Format, output: &mut Output) -> anyhow::Result<()> {
    if named && acted.messages == 0 {
        bail!("none of these messages is in the queue, or none matches: `weir queue list` shows what is");
    }
    if format.json {
        return output.json(acted);
    }
    output.line(&acted_line(done, acted))?;
    if let Some(note) = &acted.note {
        output::say(note);
    }
    Ok(())
}

fn done(action: Action) -> &'static str {
    match action {
        Action::Flush => "made due",
        Action::Hold => "held",
        Action::Release => "released",
        Action::Bounce => "bounced",
        Action::Remove => "removed",
    }
}

fn acted_line(done: &str, acted: &Acted) -> String {
    format!("{done}: {}, {}", human::count(acted.messages, "message"), human::count(acted.recipients, "recipient"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;
    use crate::admin::LaneState;
    use crate::admin::record::tests::{delivery, envelope, lane};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        queue: Queue,
    }

    fn give_up(line: &str) -> anyhow::Result<Act> {
        match Line::try_parse_from(line.split_whitespace()).unwrap().queue {
            Queue::Bounce(command) => command.checked("bounce"),
            Queue::Remove(command) => command.checked("remove"),
            Queue::Reroute(command) => command.which.checked("reroute"),
            other => panic!("another command: {other:?}"),
        }
    }

    #[test]
    fn what_is_due_and_cannot_go_is_not_called_due() {
        let due = QueueRecord { next_attempt: None, ..QueueRecord::of(&envelope(), &delivery()) };
        assert_eq!(next_attempt(&due, now()), "due");
        let paused = QueueRecord { stopped: Some(LaneState::Paused), ..due };
        assert_eq!(next_attempt(&paused, now()), "paused, until resumed");
        let until = QueueRecord { next_attempt: Some(now() + Duration::from_secs(300)), ..paused };
        assert_eq!(next_attempt(&until, now()), "paused, in 5m");
    }

    fn now() -> Timestamp {
        envelope().received + Duration::from_secs(600)
    }

    #[test]
    fn the_whole_queue_is_given_up_only_by_name() {
        for line in [
            "queue bounce",
            "queue remove",
            "queue reroute --to 127.0.0.1:2525",
            "queue bounce --all --domain outlook.com",
        ] {
            let error = give_up(line).unwrap_err();
            assert!(error.is::<super::super::Usage>(), "{line}: {error}");
        }
        assert!(give_up("queue bounce --all").unwrap().selection.filter(Vec::new(), None).is_everything());
        let act = give_up("queue remove --recipient a@outlook.com").unwrap();
        assert_eq!(act.selection.filter(act.ids, None).recipient.unwrap().to_string(), "a@outlook.com");
        assert_eq!(give_up("queue remove 0123456789ABC").unwrap().ids.len(), 1);
    }

    #[test]
    fn a_reroute_needs_a_next_hop_that_can_be_one() {
        for line in ["queue reroute --provider outlook", "queue reroute --provider outlook --to nowhere"] {
            assert!(Line::try_parse_from(line.split_whitespace()).is_err(), "{line}");
        }
        let line = "queue reroute --provider outlook --older-than 1h --to [::1]:2600";
        let Queue::Reroute(command) = Line::try_parse_from(line.split_whitespace()).unwrap().queue else {
            panic!("another command");
        };
        assert_eq!(command.to.to_string(), "[::1]:2600");
        let filter = command.which.checked("reroute").unwrap().selection.filter(Vec::new(), None);
        assert_eq!((filter.provider.as_deref(), filter.older_than.is_some()), (Some("outlook"), true));
    }

    #[test]
    fn every_filter_reaches_the_request() {
        let line = "queue list --domain outlook.com --sender <> --recipient @outlook.com --provider outlook --state held \
                    --user app --message-id <1@x> --older-than 2h --limit 7";
        let Queue::List(list) = Line::try_parse_from(line.split_whitespace()).unwrap().queue else {
            panic!("another command");
        };
        let filter = serde_json::to_value(list.selection.filter(Vec::new(), list.limit)).unwrap();
        let expected = serde_json::json!({
            "domain": "outlook.com", "sender": "<>", "recipient": "@outlook.com", "provider": "outlook", "state": "held",
            "user": "app", "message_id": "<1@x>", "older_than": "2h", "limit": 7
        });
        assert_eq!(filter, expected);
    }

    #[test]
    fn show_says_why_it_waits() {
        let waits_for = Some("the lane at outlook".to_string());
        let known = QueueDetail { lane: Some(lane()), waits_for, ..QueueDetail::of(&envelope(), &delivery()) };
        let detail = QueueDetail { ahead: Some(3000), turn_at: Some(now() + Duration::from_secs(7200)), ..known };
        let mut detail = detail;
        detail.last.as_mut().unwrap().rule = "ip-rate-limited".into();
        explained(&mut detail, &Rules::shipped(), &Profiles::new(&[]));
        let text = describe(&detail, now());
        for part in [
            "last reply:    451 4.7.650 The mail server [192.0.2.1] has been temporarily rate limited\n",
            "said by:       outlook-com.olc.protection.outlook.com\n",
            "read as:       rate-limit (rule ip-rate-limited)\n",
            "next attempt:  in 2m 59s\n",
            "why:           Microsoft slows our address down because of its reputation",
            "weir does:     The message keeps its place in the queue, and no attempt is counted against it. All mail from this \
             address to this receiver pauses for 40m",
            "what to do:    The mail stays queued",
            "waits for:     the lane at outlook\n",
            "its turn:      after 3,000 others, about 22:43 UTC\n",
            "lane:          outlook from default is paused, until 2026-11-21 20:46:40 UTC (in 2m 59s): 451 4.7.650 slow down",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let told = QueueDetail { waits_for: Some("the lane: 451 4.7.650 slow down".to_string()), ..detail };
        let text = describe(&told, now());
        assert_eq!(text.matches("451 4.7.650 slow down").count(), 1, "{text}");
    }

    #[test]
    fn what_no_rule_has_read_is_not_explained() {
        let mut detail = QueueDetail::of(&envelope(), &delivery());
        for (rule, reply) in [("gone-since", "451 x"), ("ip-rate-limited", "connect to 192.0.2.1:25: timed out")] {
            let last = detail.last.as_mut().unwrap();
            (last.rule, last.reply) = (rule.into(), reply.into());
            explained(&mut detail, &Rules::shipped(), &Profiles::new(&[]));
            assert_eq!((&detail.cause, &detail.does, &detail.remedy), (&None, &None, &None));
        }
        let text = describe(&detail, now());
        assert!(text.contains("last reply:    connect to 192.0.2.1:25: timed out\n"), "{text}");
        assert!(!text.contains("weir does"), "{text}");
    }

    #[test]
    fn a_list_row_is_short() {
        let mut record = QueueRecord::of(&envelope(), &delivery());
        record.recipients.push("eve@outlook.com".into());
        let row = list_row(&record, now());
        assert_eq!(
            row[1..8],
            ["10m", "news@example.com", "bob@outlook.com +1", "outlook", "waiting", "2", "in 2m 59s"]
        );
        let held = QueueRecord { state: QueueState::Held, sender: String::new(), ..record };
        let row = list_row(&held, now());
        assert_eq!((row[2].as_str(), row[7].as_str()), ("<>", "when released"));
    }

    #[test]
    fn what_was_done_is_counted() {
        let acted = Acted { messages: 1, recipients: 1200, note: None };
        assert_eq!(acted_line(done(Action::Flush), &acted), "made due: 1 message, 1,200 recipients");
    }
}
