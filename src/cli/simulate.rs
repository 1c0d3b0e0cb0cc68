//! `weir simulate`: a receiver that behaves like Outlook.com, for trials, until it is interrupted; then it judges.
//!
//! With `--try CONFIG` the relay of that configuration stands before it in the same process, and it ends when all mail is gone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use super::output::Output;
use super::{Format, human};
use crate::admin::LaneRecord;
use crate::clock::Clock;
use crate::demo::trial::{Glance, Trial};
use crate::demo::{MESSAGES, MESSAGES_MAX, SPEED};
use crate::simulate::{Judgement, Limits, MxHost, Profile, Scope, Simulator, WindowKind, WindowLimit};

/// How often the counts are printed while they change.
const EVERY: Duration = Duration::from_secs(2);
/// A profile is a page of text.
const PROFILE_MAX: u64 = 1 << 20;
/// A trial tells how it goes so often, by its own clock.
const LINE_EVERY: Duration = Duration::from_secs(120);
/// Characters of a lane's reason that are shown.
const REASON_MAX: usize = 140;
/// A start takes a moment; more means that something hangs.
const START_MAX: Duration = Duration::from_secs(20);

#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// What the receiver is like: a shipped profile (outlook, gentle, strict, punishing, dead-hosts, falling, blocking, window, bucket, fast, noisy, penalties, flapping) or a TOML file
    #[arg(long, default_value = "outlook", value_name = "NAME|FILE")]
    profile: String,
    /// Where it listens, as MX hosts mx1, mx2 …; another name stands before the address: NAME=127.0.0.1:2600
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "127.0.0.1:2600,127.0.0.2:2600,127.0.0.3:2600",
        value_name = "ADDRESS,…",
        value_parser = host
    )]
    listen: Vec<Named>,
    /// The same number, the same receiver: which addresses are unknown, how long it takes, when something goes wrong
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many messages in a hundred are refused by chance, as real receivers do; 0: none
    #[arg(long, default_value = "0.1", value_name = "PERCENT", value_parser = percent)]
    noise: f64,
    /// Try this configuration: its relay is started in this process, on loopback and with a folder of its own, and fed
    #[arg(long = "try", value_name = "CONFIG", conflicts_with = "listen")]
    tried: Option<PathBuf>,
    /// How many messages a trial sends
    #[arg(long, default_value_t = MESSAGES, requires = "tried", value_parser = clap::value_parser!(u32).range(1..=i64::from(MESSAGES_MAX)))]
    messages: u32,
    #[command(flatten)]
    format: Format,
}

/// An address of `--listen`, and its name if one was given.
#[derive(Clone, Debug)]
struct Named {
    name: Option<String>,
    address: SocketAddr,
}

/// What is printed with `--json`, one record a line.
#[derive(Serialize)]
#[serde(tag = "record", rename_all = "lowercase")]
enum Record<'a> {
    Listening { profile: &'a str, seed: u64, hosts: Vec<Address<'a>>, limits: Limits },
    Counts(&'a Judgement),
    Judgement { faults: Vec<String>, counts: &'a Judgement },
    Trial { minutes: f64, queued: u64, rate: f64, lanes: &'a [LaneRecord], counts: &'a Judgement },
}

#[derive(Serialize)]
struct Address<'a> {
    name: &'a str,
    address: SocketAddr,
}

fn host(text: &str) -> Result<Named, String> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => (Some(name.to_string()), address),
        None => (None, text),
    };
    match address.parse() {
        Ok(address) if name.as_deref() != Some("") => Ok(Named { name, address }),
        _ => Err(format!("`{text}` is no address to listen on: write 127.0.0.1:2600 or NAME=127.0.0.1:2600")),
    }
}

/// A share, written as a percentage.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim_end_matches('%').trim_end();
    match number.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err(format!("`{text}` is no percentage: write a number from 0 to 100")),
    }
}

pub(super) async fn simulate(simulate: &Simulate, output: &mut Output) -> anyhow::Result<ExitCode> {
    let profile = profile(&simulate.profile)?.with_noise(simulate.noise);
    if let Some(config) = &simulate.tried {
        return trial(simulate, config, &profile, output).await;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hosts: Vec<MxHost> = simulate.listen.iter().enumerate().map(|(n, named)| named.host(n + 1)).collect();
    let simulator = Simulator::start(profile, simulate.seed, &hosts, Clock::system())?;
    begin(simulate, &simulator, output)?;
    let mut before = Judgement::default();
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
        let now = simulator.judgement();
        if now != before {
            match simulate.format.json {
                true => output.json(&Record::Counts(&now))?,
                false => output.line(&counts(&now))?,
            }
            output.flush()?;
        }
        before = now;
    }
    end(simulate, &simulator.stop().await, output)
}

/// A configuration before the receiver, until all its mail is gone.
async fn trial(simulate: &Simulate, config: &Path, profile: &Profile, output: &mut Output) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let config = super::config::load(Some(config))?;
    let starting = Trial::start(&config.settings, profile, simulate.seed, simulate.messages);
    let mut running = tokio::time::timeout(START_MAX, starting).await.context("the trial does not start")??;
    let json = simulate.format.json;
    if !json {
        output.line(&format!(
            "trying {} with {} messages against `{}` on loopback; its clock runs {SPEED} times faster than time; Ctrl-C ends it",
            config.origin,
            human::number(simulate.messages.into()),
            simulate.profile
        ))?;
        output.flush()?;
    }
    let mut next_line = Duration::ZERO;
    let mut last = None;
    let seen = loop {
        let looked = tokio::select! {
            biased;
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            looked = running.look() => looked,
        };
        let glance = match looked {
            Ok(glance) => glance,
            Err(error) => break Err(error),
        };
        if (glance.time >= next_line || glance.is_over)
            && let Err(error) = show(&glance, json, output)
        {
            break Err(error);
        }
        if glance.time >= next_line {
            next_line = glance.time + LINE_EVERY;
        }
        if last.insert(glance).is_over {
            break Ok(());
        }
    };
    let judgement = running.end().await;
    seen?;
    let is_over = last.as_ref().is_some_and(|glance| glance.is_over);
    if let (false, Some(glance)) = (json, &last) {
        let minutes = human::count(glance.time.as_secs() / 60, "minute");
        let queued = human::count(glance.queued, "message");
        output.line(&match is_over {
            true => format!("\nall mail came to its end after {minutes} of the trial's clock"),
            false => format!("\nended after {minutes} of the trial's clock; {queued} left in the queue"),
        })?;
    }
    end(simulate, &judgement, output)?;
    Ok(if is_over { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(glance: &Glance, json: bool, output: &mut Output) -> anyhow::Result<()> {
    let Glance { time, queued, rate, counts, lanes, .. } = glance;
    if json {
        let minutes = time.as_secs_f64() / 60.0;
        output.json(&Record::Trial { minutes, queued: *queued, rate: *rate, lanes, counts })?;
    } else {
        output.line(&format!(
            "{:>5} min  accepted {:>7}  {:>7.1} a minute  refused {:>5}  by chance {:>4}  queued {:>7}  connections {}",
            time.as_secs() / 60,
            human::number(counts.messages_accepted),
            rate,
            human::number(counts.refused.attempts()),
            human::number(counts.refused.noise),
            human::number(*queued),
            counts.connections_open,
        ))?;
        for lane in lanes {
            let reason = lane.reason.as_deref().map(|reason| format!(": {}", human::short(reason, REASON_MAX)));
            let reason = reason.unwrap_or_default();
            output.line(&format!("           {} from {}: {}{reason}", lane.provider, lane.source, lane.state))?;
        }
    }
    output.flush()
}

impl Named {
    fn host(&self, number: usize) -> MxHost {
        let name = self.name.clone().unwrap_or_else(|| format!("mx{number}.simulated.example"));
        MxHost { name, address: self.address }
    }
}

fn profile(name: &str) -> anyhow::Result<Profile> {
    if let Some(profile) = Profile::shipped(name) {
        return Ok(profile);
    }
    let file = PathBuf::from(name);
    if !file.exists() {
        let names: Vec<&str> = Profile::shipped_names().collect();
        return Err(super::usage(format!("`{name}` is neither a file nor a profile: {}", names.join(", "))));
    }
    let text = read(&file).with_context(|| format!("cannot read the profile {name}"))?;
    Profile::parse(&text).map_err(|error| super::usage(format!("{name}: {}", error.to_string().trim_end())))
}

fn read(file: &Path) -> anyhow::Result<String> {
    anyhow::ensure!(std::fs::metadata(file)?.len() <= PROFILE_MAX, "it is larger than {PROFILE_MAX} bytes");
    Ok(std::fs::read_to_string(file)?)
}

fn begin(simulate: &Simulate, simulator: &Simulator, output: &mut Output) -> anyhow::Result<()> {
    let hosts = simulator.hosts();
    if simulate.format.json {
        let hosts = hosts.iter().map(|host| Address { name: &host.name, address: host.address }).collect();
        let (profile, seed, limits) = (simulate.profile.as_str(), simulate.seed, simulator.limits());
        output.json(&Record::Listening { profile, seed, hosts, limits })?;
    } else {
        let listens: Vec<String> = hosts.iter().map(|host| format!("{} ({})", host.address, host.name)).collect();
        output.line(&format!("simulating `{}` on {}; Ctrl-C ends it", simulate.profile, listens.join(", ")))?;
        output.line(&limits(&simulator.limits()))?;
        output.line("")?;
        output.text(&configuration(hosts))?;
        output.line("")?;
    }
    output.flush()
}

fn limits(limits: &Limits) -> String {
    let limit = |limit: Option<u32>, noun: &str, per: &str| limit.map(|n| format!("{}{per}", human::count(n, noun)));
    let of_one_source = |n: u32| format!("{} of one source", human::number(n.into()));
    let limits: Vec<String> = [
        limit(limits.connections, "connection", ""),
        limits.connections_per_source.map(of_one_source),
        limit(limits.per_second, "recipient", " a second"),
        limit(limits.per_minute, "recipient", " a minute"),
        limit(limits.per_hour, "recipient", " an hour"),
        limit(limits.per_day, "recipient", " a day"),
        limit(limits.messages_per_connection, "message", " a connection"),
        limit(limits.recipients_per_message, "recipient", " a message"),
    ]
    .into_iter()
    .flatten()
    .chain(limits.window.iter().flatten().map(window))
    .collect();
    if limits.is_empty() { "no limits".into() } else { format!("limits: {}", limits.join(", ")) }
}

/// `600 recipients in any 10m`, `1 recipient each 1s, 300 at once, of all sources together`.
fn window(window: &WindowLimit) -> String {
    let count = human::count(window.count, "recipient");
    let span = window.span;
    let mut text = match window.kind {
        WindowKind::Sliding => format!("{count} in any {span}"),
        WindowKind::Clock => format!("{count} in each {span} by the clock"),
        WindowKind::Bucket => {
            let depth = human::number(window.depth.unwrap_or(window.count).into());
            format!("{count} each {span} and {depth} at once")
        }
    };
    if window.scope == Scope::All {
        text += " of all sources together";
    }
    if window.counts_refused {
        text += ", refused ones too";
    }
    text
}

/// Ready to be pasted: a relay of its own beside whatever runs on this host.
fn configuration(hosts: &[MxHost]) -> String {
    let route = |domain: &str, number: usize| {
        let to = hosts.get(number).or(hosts.first()).map(|host| host.address.to_string()).unwrap_or_default();
        format!("[[route]]\ndomain = \"{domain}\"\nto = \"{to}\"\nlimits = \"outlook\"\n")
    };
    format!(
        "# A relay to try it with: save this as try.toml, then `weir run --config try.toml`.\n\
         hostname = \"relay.example.com\"\n\
         data_dir = \"./weir-try\"\n\
         [[listener]]\naddress = \"127.0.0.1:2526\"\n\
         # Shorter than with a real receiver, but longer than the minute over which a rate is counted.\n\
         [[provider]]\nname = \"outlook\"\npause = \"90s\"\ngrowth = 0\n{}{}",
        route("*", 0),
        route("hotmail.com", 1)
    )
}

fn counts(judgement: &Judgement) -> String {
    let refused = &judgement.refused;
    format!(
        "open {:>4}  peak {:>4}  accepted {:>9}  refused {:>6} (connections {}, rate {}, messages {}, limited {}, blocked {}, \
         penalty {})  by chance {}  pressed on {}",
        judgement.connections_open,
        judgement.connections_peak,
        human::number(judgement.messages_accepted),
        human::number(refused.attempts()),
        refused.connections,
        refused.rate,
        refused.messages,
        refused.limited,
        refused.block,
        refused.penalty,
        refused.noise,
        judgement.pressed_on
    )
}

fn end(simulate: &Simulate, judgement: &Judgement, output: &mut Output) -> anyhow::Result<ExitCode> {
    match simulate.format.json {
        true => output.json(&Record::Judgement { faults: judgement.faults(), counts: judgement })?,
        false => output.line(&format!("\n{judgement}"))?,
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_names_or_get_them() {
        let named = |text: &str, number| host(text).unwrap().host(number).name;
        assert_eq!(named("127.0.0.1:2600", 2), "mx2.simulated.example");
        assert_eq!(named("a.test=127.0.0.1:2600", 2), "a.test");
        for text in ["127.0.0.1", "=127.0.0.1:2600", "a.test=", ""] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_profile_that_is_none_names_those_there_are() {
        let error = profile("outlok").unwrap_err();
        assert!(error.to_string().contains("punishing"), "{error}");
        assert!(profile("strict").is_ok());
    }

    #[test]
    fn the_configuration_to_paste_is_one() {
        let hosts = [MxHost { name: "mx1".into(), address: ([127, 0, 0, 1], 2600).into() }];
        let text = configuration(&hosts);
        let config: Result<crate::config::Config, _> = toml::from_str(&text);
        let config = config.unwrap();
        assert_eq!(config.route.len(), 2);
        assert!(config.route.iter().all(|route| route.to == "127.0.0.1:2600" && route.limits == "outlook"));
    }
}
