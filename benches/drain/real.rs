//! Scenarios twice: in virtual time with the relay's core alone, and in real time with the whole relay, its spool and real sockets.
//!
//! Both meet the same receiver and are measured against the same ideal sender. In real time there is what virtual time leaves out: a
//! disk, a scheduler, other programs. So the two agree if they are within [`DRAIN_OFF`] and [`REFUSED_OFF`] of one another, the
//! virtual side taken as the span of its seeds.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use weir::clock::Clock;
use weir::config::Config;
use weir::route::Dns;
use weir::route::dns::{Answer, Mx, NoAnswer};
use weir::server::Embedded;
use weir::simulate::{Judgement, MxHost, Simulator};
use weir::types::Timestamp;

use super::run::Course;
use super::scenario::Scenario;

/// The scenarios that are short enough, by name.
pub const SCENARIOS: [(&str, &str); 3] = [
    ("rate and connections", include_str!("real/short.toml")),
    ("bucket", include_str!("real/bucket.toml")),
    ("window with noise", include_str!("real/noise.toml")),
];
/// Drain times may differ by so much, as a share of the virtual one.
pub const DRAIN_OFF: f64 = 0.25;
/// Refused attempts may differ by so many, as a share of the messages.
pub const REFUSED_OFF: f64 = 0.02;
/// So many times as long as the ideal sender takes, and a start: a relay slower than that is broken, not slow.
const PATIENCE: u32 = 10;
const START_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Connections over which the backlog is handed in, all at once as in virtual time.
const CLIENTS: usize = 8;
/// A relay on this host that says nothing for so long hangs.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Ratios {
    /// Time until the last message was accepted ÷ that of the ideal sender.
    pub drain: f64,
    /// Refused connections and transactions ÷ messages.
    pub refused: f64,
}

#[derive(Debug)]
pub struct Comparison {
    pub messages: usize,
    pub ideal: Duration,
    /// One for each seed.
    pub virtually: Vec<Ratios>,
    pub really: Ratios,
    pub faults: Vec<String>,
}

impl Comparison {
    /// Where the two differ by more than they may.
    pub fn differences(&self) -> Vec<String> {
        let mut differences = self.faults.clone();
        let span = |value: fn(&Ratios) -> f64| {
            let values = self.virtually.iter().map(value);
            values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)))
        };
        let (least, most) = span(|ratios| ratios.drain);
        if self.really.drain < least * (1.0 - DRAIN_OFF) || self.really.drain > most * (1.0 + DRAIN_OFF) {
            differences.push(format!("the drain times differ by more than {:.0} %", DRAIN_OFF * 100.0));
        }
        let (least, most) = span(|ratios| ratios.refused);
        if self.really.refused < least - REFUSED_OFF || self.really.refused > most + REFUSED_OFF {
            differences.push(format!("the refusals differ by more than {:.0} % of the messages", REFUSED_OFF * 100.0));
        }
        differences
    }
}

/// Runs a scenario in both times. Takes as long as the real one takes.
pub fn compare(name: &str, text: &str) -> anyhow::Result<Comparison> {
    let scenario = Scenario::parse(name, text)?;
    let course = Course::new(&scenario)?;
    let ideal = course.ideal().time_for(course.messages).context("the receiver never takes the backlog")?;
    let virtually = (1..=scenario.seeds).map(|seed| course.drain(seed, None));
    let virtually = virtually.map(|score| Ratios { drain: score.whole, refused: score.refused }).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (time, judgement) = runtime.block_on(drain(&scenario, course.messages, ideal))?;
    #[expect(clippy::cast_precision_loss, reason = "counts of some hundred messages")]
    let refused = (judgement.refused.attempts() + judgement.refused.noise) as f64 / course.messages as f64;
    let really = Ratios { drain: time.as_secs_f64() / ideal.as_secs_f64(), refused };
    Ok(Comparison { messages: course.messages, ideal, virtually, really, faults: judgement.faults() })
}

/// In real time: how long it took, and what the receiver counted.
async fn drain(scenario: &Scenario, messages: usize, ideal: Duration) -> anyhow::Result<(Duration, Judgement)> {
    let clock = Clock::system();
    let local = |last| SocketAddr::from(([127, 88, 0, last], 0));
    let hosts = [1, 2].map(|n| MxHost { name: format!("mx{n}.real.test"), address: local(n) });
    let simulator = Simulator::start(scenario.receiver.clone(), 1, &hosts, clock.clone())?;
    let folder = tempfile::tempdir()?;
    let config = configuration(scenario, simulator.hosts(), folder.path())?;
    let relay = tokio::time::timeout(START_MAX, Embedded::start(config, Arc::new(Nothing), clock.clone()))
        .await
        .context("the relay does not start")??;
    let address = *relay.addresses().first().context("the relay listens nowhere")?;
    let start = clock.now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| tokio::task::spawn_blocking(move || hand_in(address, (client..messages).step_by(CLIENTS))))
        .collect();
    let done = until_accepted(&simulator, messages, &clock, start + ideal * PATIENCE + START_MAX).await;
    for client in clients {
        client.await?.context("the backlog could not be handed in")?;
    }
    relay.stop().await;
    let judgement = simulator.stop().await;
    let done = done.with_context(|| format!("{} of {messages} messages were accepted", judgement.messages_accepted))?;
    Ok((done.since(start), judgement))
}

/// When the receiver had all messages; none if it was too late.
async fn until_accepted(simulator: &Simulator, messages: usize, clock: &Clock, latest: Timestamp) -> Option<Timestamp> {
    while clock.now() < latest {
        if simulator.judgement().messages_accepted >= messages as u64 {
            return Some(clock.now());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    None
}

/// The relay as shipped, but for what the scenario tells it; mail goes to the simulated hosts by routes, so no name is looked up.
fn configuration(scenario: &Scenario, hosts: &[MxHost], folder: &Path) -> anyhow::Result<Config> {
    let mut text = "hostname = \"relay.real.test\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                    [delivery]\ntls = \"off\"\n[bounces]\nmode = \"none\"\n"
        .to_string();
    for (host, domain) in hosts.iter().zip(DOMAINS) {
        let provider = &scenario.relay.name;
        text += &format!("[[route]]\ndomain = \"{domain}\"\nto = \"{}\"\nlimits = \"{provider}\"\n", host.address);
    }
    let mut config: Config = toml::from_str(&text)?;
    config.data_dir = folder.to_path_buf();
    config.provider = vec![scenario.relay.clone()];
    Ok(config)
}

/// One for each host.
const DOMAINS: [&str; 2] = ["outlook.com", "hotmail.com"];

/// Hands in the messages with these numbers, one after another on one connection.
fn hand_in(relay: SocketAddr, numbers: impl Iterator<Item = usize>) -> anyhow::Result<()> {
    let stream = TcpStream::connect(relay)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    let mut replies = BufReader::new(stream.try_clone()?);
    let mut say = |words: &str, answers: &[&str]| -> anyhow::Result<()> {
        (&stream).write_all(words.as_bytes())?;
        for answer in answers {
            let mut line = String::new();
            // The last line of a reply has a space behind its code.
            while line.as_bytes().get(3) != Some(&b' ') {
                line.clear();
                ensure!(replies.read_line(&mut line)? > 0, "the relay ended the connection");
            }
            ensure!(line.starts_with(answer), "the relay said {}", line.trim_end());
        }
        Ok(())
    };
    say("", &["220"])?;
    say("EHLO app.test\r\n", &["250"])?;
    for number in numbers {
        let to = format!("u{number}@{}", DOMAINS[number % DOMAINS.len()]);
        say(&format!("MAIL FROM:<app@sender.test>\r\nRCPT TO:<{to}>\r\nDATA\r\n"), &["250", "250", "354"])?;
        say(&format!("Subject: {number}\r\n\r\nHello\r\n.\r\n"), &["250"])?;
    }
    say("QUIT\r\n", &["221"])
}

/// A name service that knows of nothing.
struct Nothing;

impl Nothing {
    fn answer<'a, T: Send + 'a>() -> Answer<'a, T> {
        Box::pin(async { Err(NoAnswer::NoSuchName { ttl: None }) })
    }
}

impl Dns for Nothing {
    fn mx<'a>(&'a self, _name: &'a str) -> Answer<'a, Mx> {
        Nothing::answer()
    }

    fn v4<'a>(&'a self, _name: &'a str) -> Answer<'a, Ipv4Addr> {
        Nothing::answer()
    }

    fn v6<'a>(&'a self, _name: &'a str) -> Answer<'a, Ipv6Addr> {
        Nothing::answer()
    }

    fn ptr(&self, _address: IpAddr) -> Answer<'_, String> {
        Nothing::answer()
    }
}
