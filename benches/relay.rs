//! The whole relay under load: messages accepted and delivered a second, what each costs, how long a client waits.
//!
//! The load generator (20 sessions, 10 KiB messages) and the receiver live in this process, the relay is the release
//! program beside it; all of them share the machine, so the rates are a floor. The bare spool is measured in the same
//! run: what it commits a second is what the relay could reach if everything else were free.
//!
//! `cargo bench --bench relay`; `WEIR_BENCH_MESSAGES` sets the number of messages, `WEIR_BENCH_PROGRAM` names another
//! build to measure, `WEIR_BENCH_DKIM=rsa` or `ed25519` has each message signed.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "load/generator.rs"]
mod generator;
#[allow(dead_code, unused_imports, reason = "the kit serves the tests first")]
#[path = "../tests/suite/kit/mod.rs"]
mod kit;
#[expect(dead_code, reason = "the bench of the bare spool reads more of what it measures")]
mod load;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use generator::{MESSAGE_BYTES, SESSIONS, content, hand_in};
use kit::relay::WEIR;
use kit::{Config, Dns, Relay, until_within};
use load::sink::Sink;
use load::{millis, process};

/// A run that takes longer has hung.
const LIMIT: Duration = Duration::from_secs(600);
/// How long the bare spool is measured.
const BARE_TIME: Duration = Duration::from_secs(5);

/// What is good enough on two processors that generator and receiver share.
const RATE_TARGET: f64 = 3000.0;
/// The same where the disk allows less, of what the bare spool commits.
const RATIO_TARGET: f64 = 0.6;

fn main() {
    let messages = std::env::var("WEIR_BENCH_MESSAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(30_000);
    let content = content();
    let (dns, sink) = (Dns::start(), Sink::start());
    dns.mx("bench.test", &[(10, "mx.bench.test")]);
    dns.addresses("mx.bench.test", &[sink.address().ip()]);
    let keys = tempfile::tempdir().expect("a folder for keys");
    let relay = start(&dns, &sink, keys.path());
    let pid = relay.pid().to_string();
    let idle = process::memory_peak(&pid);
    // The first messages open connections and fill caches.
    let warm = SESSIONS * 50;
    hand_in(relay.address(), warm, None, &content);
    until_within(LIMIT, "the first messages", || (sink.accepted() >= warm).then_some(()));

    let (cpu_before, begun) = (process::cpu(&pid), Instant::now());
    let mut waits = hand_in(relay.address(), messages, None, &content);
    let accepted = begun.elapsed();
    until_within(LIMIT, "all messages at the receiver", || (sink.accepted() >= warm + messages).then_some(()));
    let relayed = rate(messages, begun.elapsed());
    let cpu = process::cpu(&pid) - cpu_before;
    waits.sort();
    println!("{messages} messages of {} KiB, {SESSIONS} sessions", MESSAGE_BYTES / 1024);
    println!("accepted     {:>8.0} messages/s", rate(messages, accepted));
    println!("relayed      {relayed:>8.0} messages/s (accepted and delivered)");
    println!("CPU          {:>8.0} µs a message (the relay's process)", cpu.as_secs_f64() * 1e6 / messages as f64);
    println!("accept       {:>8.1} ms at the median, {:.1} ms at 99 %", millis(&waits, 50), millis(&waits, 99));
    println!("memory peak  {:>8.1} MiB ({:.1} MiB before the load)", mib(process::memory_peak(&pid)), mib(idle));
    println!("connections  {:>8} at most at the receiver", sink.peak());
    drop(relay);

    let folder = tempfile::tempdir().expect("a folder to write in");
    let bare = load::spool::measure(folder.path(), SESSIONS, MESSAGE_BYTES, BARE_TIME).rate;
    println!("bare spool   {bare:>8.0} messages/s, same sizes and writers, same disk");
    let good = relayed >= RATE_TARGET.min(RATIO_TARGET * bare);
    let word = if good { "reached" } else { "missed" };
    println!("ratio        {:>8.0} % of the bare spool; target {word}", 100.0 * relayed / bare);
}

fn start(dns: &Dns, sink: &Sink, keys: &Path) -> Relay {
    let mut config = Config::new(dns.address(), sink.address().port()).table(&format!(
        "[[provider]]\nname = \"bench\"\nmx = [\"*.bench.test\"]\nmax_connections = {SESSIONS}\n\
         initial_connections = {SESSIONS}\nmessages_per_connection = 1000"
    ));
    let program = std::env::var_os("WEIR_BENCH_PROGRAM").map_or_else(|| PathBuf::from(WEIR), PathBuf::from);
    if let Ok(kind) = std::env::var("WEIR_BENCH_DKIM") {
        let file = keys.join("key.pem").display().to_string();
        let arguments =
            ["dkim", "keygen", "--domain", "sender.test", "--selector", "s", "--type", &kind, "--out", &file];
        assert!(std::process::Command::new(&program).args(arguments).status().is_ok_and(|status| status.success()));
        config = config.table(&format!("[[dkim]]\ndomain = \"sender.test\"\nselector = \"s\"\nkey_file = \"{file}\""));
        println!("each message is signed with {kind}");
    }
    Relay::start_program(program, config)
}

fn rate(messages: usize, time: Duration) -> f64 {
    messages as f64 / time.as_secs_f64()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
