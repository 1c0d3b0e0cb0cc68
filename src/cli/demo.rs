//! `weir demo`: relay and simulated receivers in one process, looked at live, then a table and a plot.
//!
//! Needs nothing and leaves nothing behind but the plot: with `--plot FILE` there, else among the system's temporary files.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use super::table::{self, Column};
use super::{Format, human};
use crate::clock::Clock;
use crate::demo::{self, MESSAGES, MESSAGES_MAX, Outcome, SPEED, Sample, Seen, plot};
use crate::simulate::Judgement;

/// Where nobody looks at a terminal, a line comes this often, in minutes of the demo.
const LINE_EVERY: f64 = 2.0;
/// Goes to the first line of a terminal; clears what is left of a line, and what is below (ECMA-48: CUP, EL, ED).
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\n";
const CLEAR_BELOW: &str = "\x1b[J";
/// The whole screen, once.
const CLEAR: &str = "\x1b[H\x1b[2J";
const BAR: u32 = 40;
/// As wide as every terminal.
const COLUMNS: usize = 80;
/// Over the lines; rates are by the minute.
const HEADINGS: &str = "min  receiver        open  rate/min  learned  accepted  refused  state";
/// Whose limits the plot is of.
const PLOTTED: &str = "outlook.com and hotmail.com";
/// A start takes a moment; more means that something hangs.
const START_MAX: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Where the plot goes (SVG). Default: a new file in the system's folder for temporary files; `none` writes none
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// How many messages are sent
    #[arg(long, default_value_t = MESSAGES, value_parser = clap::value_parser!(u32).range(1..=i64::from(MESSAGES_MAX)))]
    messages: u32,
    /// The same number, the same receivers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    format: Format,
}

/// What `--json` prints at the end.
#[derive(Serialize)]
struct End<'a> {
    provider: &'a str,
    minutes: f64,
    left: u64,
    faults: Vec<String>,
    counts: &'a Judgement,
    plot: Option<String>,
}

pub(super) async fn demo(demo: &Demo, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let starting = demo::Demo::start(demo.seed, demo.messages);
    let mut running = tokio::time::timeout(START_MAX, starting).await.context("the demo does not start")??;
    let mut view = View { json: demo.format.json, messages: demo.messages, next_line: 0.0, said: BTreeMap::new() };
    view.begin(output)?;
    let seen = loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            looked = running.look() => match looked.and_then(|sample| view.show(sample, output)) {
                Ok(()) if running.is_over() => break Ok(()),
                Ok(()) => {}
                Err(error) => break Err(error),
            },
        }
    };
    let outcome = running.end().await;
    seen?;
    let plot = write_plot(demo.plot.as_deref(), &outcome)?;
    view.end(&outcome, plot.as_deref(), output)?;
    output.flush()?;
    Ok(if outcome.left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is shown while it runs: a screen, lines or records.
struct View {
    json: bool,
    messages: u32,
    next_line: f64,
    /// Accepted and refused, as last told of each receiver.
    said: BTreeMap<&'static str, (u64, u64)>,
}

impl View {
    fn begin(&self, output: &mut Output) -> anyhow::Result<()> {
        if self.json {
            return Ok(());
        }
        if output.is_terminal() {
            output.control(CLEAR)?;
        }
        output.line(&self.title())?;
        output.flush()
    }

    fn title(&self) -> String {
        format!(
            "weir demo: {} messages to outlook.com, hotmail.com and contoso.com,\n\
             all of them simulated on loopback; its clock runs {SPEED} times faster than time",
            human::number(self.messages.into())
        )
    }

    fn show(&mut self, sample: &Sample, output: &mut Output) -> anyhow::Result<()> {
        if self.json {
            output.json(sample)?;
        } else if output.is_terminal() {
            self.paint(sample, output)?;
        } else if sample.minute >= self.next_line {
            self.next_line = sample.minute + LINE_EVERY;
            if self.said.is_empty() {
                output.line(HEADINGS)?;
            }
            for seen in &sample.receivers {
                // Whoever has everything, or stands still, is not told of again and again.
                if self.said.insert(seen.provider, (seen.accepted, seen.refused)) != Some((seen.accepted, seen.refused))
                {
                    output.line(&line(sample.minute, seen))?;
                }
            }
        }
        output.flush()
    }

    fn paint(&self, sample: &Sample, output: &mut Output) -> anyhow::Result<()> {
        output.control(HOME)?;
        for line in self.screen(sample) {
            output.text(&line)?;
            output.control(CLEAR_LINE)?;
        }
        output.control(CLEAR_BELOW)
    }

    fn screen(&self, sample: &Sample) -> Vec<String> {
        let mut lines = vec![self.title(), String::new()];
        for seen in &sample.receivers {
            lines.extend(block(seen));
            lines.push(String::new());
        }
        lines.push(format!(
            "{:.0} min, {} queued; Ctrl-C ends it",
            sample.minute,
            human::count(sample.queued, "message")
        ));
        lines
    }

    fn end(&self, outcome: &Outcome, plot: Option<&Path>, output: &mut Output) -> anyhow::Result<()> {
        let minutes = outcome.samples.last().map_or(0.0, |sample| sample.minute);
        if self.json {
            for (provider, counts) in &outcome.judgements {
                let (faults, plot) = (counts.faults(), plot.map(|plot| plot.display().to_string()));
                output.json(&End { provider, minutes, left: outcome.left, faults, counts, plot })?;
            }
            return Ok(());
        }
        output.line("")?;
        output.text(&summary(outcome))?;
        output.line("")?;
        let left = match outcome.left {
            0 => "Everything was sent".to_string(),
            left => format!("{} were still queued", human::count(left, "message")),
        };
        output.line(&format!(
            "{left} after {minutes:.0} minutes of the demo's clock; nothing of it stays on this host."
        ))?;
        if let Some(plot) = plot {
            output.line(&format!("How the limits of {PLOTTED} were found: {}", plot.display()))?;
        }
        output.line("What a refusal means, and what weir does then: weir explain '421 RP-001'")?;
        output.line("To go on: weir simulate --help")
    }
}

/// A receiver on a terminal.
fn block(seen: &Seen) -> Vec<String> {
    let (state, reason) = seen.state();
    let (ceiling, allowed) = seen.lane.as_ref().map_or((0, 0), |lane| (lane.ceiling, lane.connections_allowed));
    let learned = seen.learned_rate();
    vec![
        format!(
            "{:<14} {}{}",
            seen.provider,
            state,
            reason.map(|reason| format!(": {}", human::short(reason, 90))).unwrap_or_default()
        ),
        format!(
            "  connections  {:>4} open, {} allowed by what was learned, ceiling {}   [{}]",
            seen.connections,
            human::number(allowed),
            human::number(ceiling),
            bar(f64::from(seen.connections), seen.limits.connections_per_source)
        ),
        format!(
            "  rate         {:>4.0} a minute, {}   [{}]",
            seen.rate,
            learned.map_or("no limit learned".to_string(), |learned| format!("learned limit {learned:.0}")),
            bar(seen.rate, seen.limits.per_minute)
        ),
        format!(
            "  accepted     {:>4}, {} refused",
            human::number(seen.accepted),
            human::count(seen.refused, "attempt")
        ),
    ]
}

/// A full bar is what the receiver really allows.
fn bar(value: f64, limit: Option<u32>) -> String {
    let limit = f64::from(limit.unwrap_or(u32::MAX)).max(1.0);
    let filled = (1..=BAR).filter(|step| f64::from(*step) <= value / limit * f64::from(BAR)).count();
    let (filled, empty) = ("#".repeat(filled), ".".repeat(BAR as usize - filled));
    filled + &empty
}

/// A receiver as one line of a log, 80 columns at most.
fn line(minute: f64, seen: &Seen) -> String {
    let (state, _) = seen.state();
    let allowed = seen.lane.as_ref().map_or(0, |lane| lane.connections_allowed);
    let learned = seen.learned_rate();
    let line = format!(
        "{minute:>3.0}  {:<12}  {:>6}  {:>8.0}  {:>7}  {:>8}  {:>7}  {state}",
        seen.provider,
        format!("{}/{allowed}", seen.connections),
        seen.rate,
        learned.map_or("?".to_string(), |rate| format!("{:.0}", rate)),
        human::number(seen.accepted),
        seen.refused,
    );
    human::short(&line, COLUMNS)
}

/// What happened, line by line, with a column for each receiver: read by people who see the words for the first time.
fn summary(outcome: &Outcome) -> String {
    let receivers: Vec<Ended<'_>> = ends(outcome).collect();
    let limit = |limit: Option<u32>| limit.map_or("none".to_string(), |limit| human::number(limit.into()));
    let row = |title: &str, value: &dyn Fn(&Ended<'_>) -> String| {
        std::iter::once(title.to_string()).chain(receivers.iter().map(value)).collect::<Vec<String>>()
    };
    let rows = [
        row("messages delivered", &|end| human::number(end.counts.messages_accepted)),
        row("unknown addresses, bounced at once", &|end| human::number(end.counts.refused.unknown)),
        row("refused for going too fast", &|end| {
            let refused = end.counts.refused.attempts();
            format!("{} ({})", human::number(refused), share(refused, end.counts.messages_accepted))
        }),
        row("messages a minute it allows", &|end| limit(end.seen.and_then(|seen| seen.limits.per_minute))),
        row("connections it allows", &|end| limit(end.seen.and_then(|seen| seen.limits.connections_per_source))),
        row("  most open, refused ones too", &|end| end.counts.connections_peak.to_string()),
        row("it calls weir", &|end| {
            let faults = end.counts.faults();
            if faults.is_empty() { "a sender that listens".to_string() } else { faults.join("; ") }
        }),
    ];
    let columns: Vec<Column> = std::iter::once(Column::Left(""))
        .chain(receivers.iter().map(|end| Column::Right(domains(end.provider))))
        .collect();
    table::render(&columns, &rows)
}

/// Whose mail a receiver takes.
fn domains(provider: &str) -> &'static str {
    match provider {
        "outlook" => "outlook, hotmail.com",
        _ => "contoso.com",
    }
}

/// A receiver at the end: its own count, and the last that was seen of it.
struct Ended<'a> {
    provider: &'static str,
    counts: &'a Judgement,
    seen: Option<&'a Seen>,
}

fn ends(outcome: &Outcome) -> impl Iterator<Item = Ended<'_>> {
    let seen = |provider: &str| outcome.samples.last()?.receivers.iter().find(|seen| seen.provider == provider);
    outcome.judgements.iter().map(move |(provider, counts)| Ended { provider, counts, seen: seen(provider) })
}

#[expect(clippy::cast_precision_loss, reason = "counts of a demo")]
fn share(refused: u64, accepted: u64) -> String {
    format!("{:.1} %", 100.0 * refused as f64 / (accepted.max(1)) as f64)
}

/// Where the plot lies now; none if none was wanted.
fn write_plot(wanted: Option<&Path>, outcome: &Outcome) -> anyhow::Result<Option<PathBuf>> {
    let svg = plot::svg(&outcome.samples, 0, PLOTTED);
    let path = match wanted {
        Some(path) if path == Path::new("none") => return Ok(None),
        Some(path) => {
            std::fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))?;
            return Ok(Some(path.to_path_buf()));
        }
        None => {
            let name = format!("weir-demo-{}-{:04x}.svg", Clock::system().now().compact(), fastrand::u16(..));
            std::env::temp_dir().join(name)
        }
    };
    // Others may write to that folder: what lies there already is not followed.
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    file.and_then(|mut file| file.write_all(svg.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Some(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Limits;

    fn seen() -> Seen {
        let limits = Limits { connections_per_source: Some(10), per_minute: Some(40), ..Limits::default() };
        Seen { provider: "outlook", limits, accepted: 1234, refused: 5, connections: 5, rate: 20.0, lane: None }
    }

    #[test]
    fn a_bar_is_full_at_the_limit() {
        assert_eq!(bar(5.0, Some(10)).matches('#').count(), 20);
        assert_eq!(bar(50.0, Some(10)).matches('#').count(), 40);
        assert_eq!(bar(5.0, None).matches('#').count(), 0);
    }

    #[test]
    fn a_line_says_what_a_log_needs() {
        let line = line(12.4, &seen());
        for part in ["12  outlook", "   5/0        20        ?     1,234        5  "] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        assert!(line.chars().count() <= COLUMNS, "{line}");
    }

    #[test]
    fn the_table_tells_a_newcomer_what_happened() {
        let samples = vec![Sample { minute: 30.0, queued: 0, receivers: vec![seen()] }];
        let counts = Judgement { messages_accepted: 1000, connections_peak: 9, ..Judgement::default() };
        let outcome = Outcome { samples, judgements: vec![("outlook", counts)], left: 0 };
        let text = summary(&outcome);
        for part in ["outlook, hotmail.com", "messages delivered", "1,000", "a sender that listens"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let line = |title: &str| text.lines().find(|line| line.trim_start().starts_with(title)).unwrap();
        assert!(line("connections it allows").ends_with(" 10"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    }

    #[test]
    fn a_plot_goes_where_it_is_wanted_or_nowhere() {
        let outcome = Outcome { samples: Vec::new(), judgements: Vec::new(), left: 0 };
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("plot.svg");
        assert_eq!(write_plot(Some(&file), &outcome).unwrap().unwrap(), file);
        assert!(std::fs::read_to_string(file).unwrap().starts_with("<svg"));
        assert_eq!(write_plot(Some(Path::new("none")), &outcome).unwrap(), None);
    }
}
