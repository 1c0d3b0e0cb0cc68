//! Relays side by side: the same mail through each of them, in turn, on one machine.
//!
//! A plug (`benches/plugs/NAME.sh`) starts a relay; load and receiver are the same for all and share the machine with it, so ratios count. In each round
//! every relay begins anew in an empty folder. Each run is a line of JSON; the table at the end has medians and their spread.
//!
//! `make compare`, or `cargo bench --bench compare -- [OPTIONS] [PLUG …]`; without plugs: weir, postfix, exim. As root: Postfix and Exim need it.
//! It measures target/release/weir, or what WEIR_BENCH_PROGRAM names.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

#[allow(dead_code, reason = "shared with other benches")]
mod load;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use load::millis;
use load::sink::{Manner, Sink};
use load::traffic::{Traffic, Until};
use load::tree::Tree;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

const USAGE: &str = "\
cargo bench --bench compare -- [OPTIONS] [PLUG …]
  --rounds N            how often each relay is measured (5)
  --seconds N           how long mail comes in, in each run (10)
  --sessions N          side by side (20)
  --size OCTETS         of a message (10240)
  --recipients N        of a message (1)
  --rate N              messages a second in all; without it as fast as they are taken
  --connection-each     each message on a connection of its own
  --plain               the receiver offers no CHUNKING
  --delay MILLISECONDS  before each answer of the receiver
  --calls N             counts system calls of so many messages in a run of their own (strace)
A plug is the name of a file in benches/plugs, or the path of another one.";

/// Before anything is counted: caches and connections are as they will be.
const WARM_UP: usize = 400;
/// A run that is not through by then has hung.
const LIMIT: Duration = Duration::from_secs(600);
const START_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at memory.
const GLANCE: Duration = Duration::from_millis(250);

struct Options {
    rounds: usize,
    seconds: u64,
    traffic: Traffic,
    manner: Manner,
    calls: usize,
    plugs: Vec<PathBuf>,
}

fn main() {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            eprintln!("{fault}\n{USAGE}");
            std::process::exit(2);
        }
    };
    let mut runs: Vec<Vec<Value>> = vec![Vec::new(); options.plugs.len()];
    for _ in 0..options.rounds {
        for (plug, runs) in options.plugs.iter().zip(&mut runs) {
            let Some(run) = measure(plug, &options) else { continue };
            println!("{run}");
            runs.push(run);
        }
    }
    if options.calls > 0 {
        for (plug, runs) in options.plugs.iter().zip(&mut runs) {
            let Some(calls) = calls(plug, &options) else { continue };
            println!("{calls}");
            runs.iter_mut().for_each(|run| run["calls"] = calls["calls"].clone());
        }
    }
    print!("{}", table(&runs));
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let traffic = Traffic { sessions: 20, size_bytes: 10 << 10, recipients: 1, rate: None, connection_each: false };
    let manner = Manner { stamped: true, ..Manner::default() };
    let mut options = Options { rounds: 5, seconds: 10, traffic, manner, calls: 0, plugs: Vec::new() };
    while let Some(word) = words.next() {
        let mut number = || -> Result<usize, String> {
            let text = words.next().ok_or_else(|| format!("{word} takes a number"))?;
            text.parse().map_err(|_| format!("{word}: `{text}` is no number"))
        };
        match word.as_str() {
            "--rounds" => options.rounds = number()?.max(1),
            "--seconds" => options.seconds = number()?.max(1) as u64,
            "--sessions" => options.traffic.sessions = number()?.max(1),
            "--size" => options.traffic.size_bytes = number()?,
            "--recipients" => options.traffic.recipients = number()?.max(1),
            "--rate" => options.traffic.rate = Some(number()? as f64).filter(|rate| *rate > 0.0),
            "--connection-each" => options.traffic.connection_each = true,
            "--plain" => options.manner.plain = true,
            "--delay" => options.manner.delay = Duration::from_millis(number()? as u64),
            "--calls" => options.calls = number()?,
            // What cargo itself says to a bench.
            "--bench" => {}
            word if word.starts_with('-') => return Err(format!("{word}: there is no such option")),
            plug => options.plugs.push(found(plug)?),
        }
    }
    if options.plugs.is_empty() {
        options.plugs = ["weir", "postfix", "exim"].into_iter().map(found).collect::<Result<_, _>>()?;
    }
    Ok(options)
}

fn found(plug: &str) -> Result<PathBuf, String> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/plugs").join(format!("{plug}.sh"));
    let named = PathBuf::from(plug);
    [shipped, named].into_iter().find(|path| path.is_file()).ok_or_else(|| format!("there is no plug {plug}"))
}

fn name(plug: &Path) -> String {
    plug.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// A relay that a plug has started, until this is dropped.
struct Started {
    child: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Started {
    /// None, with the reason printed: it cannot run here.
    fn start(plug: &Path, sink: SocketAddr) -> Option<Started> {
        let folder = tempfile::Builder::new().prefix("weir-compare-").tempdir().expect("a folder for the relay");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let child = Command::new(plug)
            .arg(folder.path())
            .arg(sink.to_string())
            .arg(port.to_string())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", plug.display()));
        let mut started = Started { child, address: SocketAddr::from(([127, 0, 0, 1], port)), folder };
        let begun = Instant::now();
        while TcpStream::connect(started.address).is_err() {
            if started.child.try_wait().expect("ask for its end").is_some() || begun.elapsed() >= START_LIMIT {
                eprintln!("left out: {} does not start here. {}", name(plug), started.log().trim());
                return None;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(started)
    }

    fn tree(&self) -> Tree {
        Tree(self.child.id())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        for pid in self.tree().pids().into_iter().chain([self.child.id()]) {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// One run of one relay; none where it cannot run.
fn measure(plug: &Path, options: &Options) -> Option<Value> {
    let sink = Sink::with(options.manner);
    let relay = Started::start(plug, sink.address())?;
    let tree = relay.tree();
    let recipients = options.traffic.recipients;
    let warm = Traffic { rate: None, connection_each: false, ..options.traffic.clone() };
    warm.run(relay.address, Until::Messages(WARM_UP));
    wait_for(&sink, WARM_UP * recipients, plug);
    sink.take_delays();

    let (over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let (before, begun) = (tree.used(), Instant::now());
    let (taken, relayed) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                peak.fetch_max(tree.memory(), Ordering::Relaxed);
                std::thread::sleep(GLANCE);
            }
        });
        let taken = options.traffic.run(relay.address, Until::Time(Duration::from_secs(options.seconds)));
        wait_for(&sink, (WARM_UP + taken.messages) * recipients, plug);
        let relayed = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        (taken, relayed)
    });
    let (used, messages) = (tree.used(), taken.messages as f64);
    let delays: Vec<Duration> = sink.take_delays().into_iter().map(Duration::from_micros).collect();
    Some(json!({
        "relay": name(plug),
        "messages": taken.messages,
        "accepted_per_second": (messages / taken.took.as_secs_f64()).round(),
        "relayed_per_second": (messages / relayed.as_secs_f64()).round(),
        "accept_ms": [rounded(millis(&taken.waits, 50)), rounded(millis(&taken.waits, 99))],
        "through_ms": [rounded(millis(&delays, 50)), rounded(millis(&delays, 99))],
        "cpu_micros": ((used.cpu.saturating_sub(before.cpu)).as_secs_f64() * 1e6 / messages).round(),
        "memory_mib": rounded(peak.load(Ordering::Relaxed) as f64 / f64::from(1 << 20)),
        "written_per_message": ((used.written.saturating_sub(before.written)) as f64 / messages).round(),
    }))
}

fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Until the receiver has so many recipients' mail; a transaction to several counts for each.
fn wait_for(sink: &Sink, recipients: usize, plug: &Path) {
    let begun = Instant::now();
    while sink.recipients() < recipients {
        assert!(begun.elapsed() < LIMIT, "{}: {} of {recipients} came through", plug.display(), sink.recipients());
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// System calls a message, as strace counts them; it makes everything slow, so nothing else is measured with it.
fn calls(plug: &Path, options: &Options) -> Option<Value> {
    let sink = Sink::with(options.manner);
    let relay = Started::start(plug, sink.address())?;
    let traffic = Traffic { rate: None, ..options.traffic.clone() };
    traffic.run(relay.address, Until::Messages(WARM_UP));
    wait_for(&sink, WARM_UP * traffic.recipients, plug);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("calls");
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-U", "calls,name", "-o"]).arg(&file);
    for pid in relay.tree().pids() {
        command.arg("-p").arg(pid.to_string());
    }
    let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut strace) = strace else {
        eprintln!("left out: system calls, for strace is not installed");
        return None;
    };
    std::thread::sleep(Duration::from_secs(1));
    traffic.run(relay.address, Until::Messages(options.calls));
    wait_for(&sink, (WARM_UP + options.calls) * traffic.recipients, plug);
    if let Some(pid) = i32::try_from(strace.id()).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, Signal::INT);
    }
    let _ = strace.wait();
    let text = std::fs::read_to_string(&file).unwrap_or_default();
    let counts: Vec<(u64, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.parse().ok()?, words.next()?))
        })
        .collect();
    let all: u64 = counts.iter().filter(|(_, name)| *name != "total").map(|(count, _)| count).sum();
    let syncs: u64 = counts.iter().filter(|(_, name)| name.contains("sync")).map(|(count, _)| count).sum();
    let each = |count: u64| rounded(count as f64 / options.calls as f64);
    Some(json!({ "relay": name(plug), "calls": { "all": each(all), "syncs": each(syncs) } }))
}

/// Medians of all runs, the first relay's figures over each other's in brackets, and the spread of what counts most.
fn table(runs: &[Vec<Value>]) -> String {
    let columns: [(&str, &str); 9] = [
        ("relayed/s", "/relayed_per_second"),
        ("accepted/s", "/accepted_per_second"),
        ("CPU µs", "/cpu_micros"),
        ("250 p50 ms", "/accept_ms/0"),
        ("250 p99 ms", "/accept_ms/1"),
        ("through p50 ms", "/through_ms/0"),
        ("PSS MiB", "/memory_mib"),
        ("written", "/written_per_message"),
        ("calls", "/calls/all"),
    ];
    let columns: Vec<_> =
        columns.into_iter().filter(|(_, path)| runs.iter().flatten().any(|run| run.pointer(path).is_some())).collect();
    let mut text =
        format!("\n| relay | {} | ratio |\n", columns.iter().map(|(head, _)| *head).collect::<Vec<_>>().join(" | "));
    text += &format!("|{}\n", " --- |".repeat(columns.len() + 2));
    let first = runs.first().map(|runs| values(runs, "/relayed_per_second")).unwrap_or_default();
    for runs in runs.iter().filter(|runs| !runs.is_empty()) {
        let cells: Vec<String> = columns.iter().map(|(_, path)| format!("{}", median(&values(runs, path)))).collect();
        let own = values(runs, "/relayed_per_second");
        // Of one round each: what the machine did otherwise meanwhile is in both.
        let mut ratios: Vec<f64> = first.iter().zip(&own).map(|(first, own)| first / own).collect();
        ratios.sort_by(f64::total_cmp);
        let spread = match (ratios.first(), ratios.last()) {
            (Some(low), Some(high)) => format!("{:.1} × ({low:.1} to {high:.1})", median(&ratios)),
            _ => String::new(),
        };
        let name = runs.first().and_then(|run| run["relay"].as_str()).unwrap_or_default();
        text += &format!("| {name} | {} | {spread} |\n", cells.join(" | "));
    }
    text
}

fn values(runs: &[Value], path: &str) -> Vec<f64> {
    runs.iter().filter_map(|run| run.pointer(path)?.as_f64()).collect()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
