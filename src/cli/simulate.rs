//! `weir simulate`: a receiver that behaves like Outlook.com, for trials, until it is interrupted; then it judges.

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
use crate::clock::Clock;
use crate::simulate::{Judgement, Limits, MxHost, Profile, Simulator};

/// How often the counts are printed while they change.
const EVERY: Duration = Duration::from_secs(2);
/// A profile is a page of text.
const PROFILE_MAX: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(super) struct Simulate {
    /// What the receiver is like: a shipped profile (outlook, gentle, strict, punishing, dead-hosts, falling, blocking) or a TOML file
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

pub(super) async fn simulate(simulate: &Simulate, output: &mut Output) -> anyhow::Result<ExitCode> {
    let profile = profile(&simulate.profile)?;
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
    let limit = |limit: Option<u32>, unit: &str| limit.map(|n| format!("{} {unit}", human::number(n.into())));
    let limits: Vec<String> = [
        limit(limits.connections, "connections"),
        limit(limits.connections_per_source, "of one source"),
        limit(limits.per_second, "recipients a second"),
        limit(limits.per_minute, "recipients a minute"),
        limit(limits.per_hour, "recipients an hour"),
        limit(limits.per_day, "recipients a day"),
        limit(limits.messages_per_connection, "messages a connection"),
        limit(limits.recipients_per_message, "recipients a message"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if limits.is_empty() { "no limits".into() } else { format!("limits: {}", limits.join(", ")) }
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
        "open {:>4}  peak {:>4}  accepted {:>9}  refused {:>6} (connections {}, rate {}, messages {}, limited {}, blocked {})  \
         pressed on {}",
        judgement.connections_open,
        judgement.connections_peak,
        human::number(judgement.messages_accepted),
        human::number(refused.attempts()),
        refused.connections,
        refused.rate,
        refused.messages,
        refused.limited,
        refused.block,
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
