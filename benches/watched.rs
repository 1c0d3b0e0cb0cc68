//! What looking on costs mail: 2,000 messages a second with nobody at the port of `[http]`, and beside 20 programs that ask the API ten times
//! a second each and five open pages.
//!
//! Both in turn, several times, against one relay; what counts is the ratio of their medians. A disk or a machine that cannot take the rate shows
//! in both. `cargo bench --bench watched`; `WEIR_BENCH_RATE` sets another rate (0: as fast as possible), `WEIR_BENCH_PROGRAM` names
//! another build.

#![expect(clippy::disallowed_methods, reason = "a bench measures real time")]

#[path = "load/generator.rs"]
mod generator;
#[allow(dead_code, unused_imports, reason = "the kit serves the tests first")]
#[path = "../tests/suite/kit/mod.rs"]
mod kit;
#[allow(dead_code, reason = "shared with the bench of the relay")]
mod load;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use generator::{SESSIONS, content, hand_in};
use kit::relay::WEIR;
use kit::{Config, Dns, Relay, until_within};
use load::sink::Sink;
use load::{millis, process};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(8);
const RATE: f64 = 2000.0;
/// So many a round where there is no pace.
const UNPACED: usize = 20_000;

const PROGRAMS: usize = 20;
const ASKED_EVERY: Duration = Duration::from_millis(100);
const PAGES: usize = 5;
/// How often an open page draws its plots anew.
const PLOTS_EVERY: Duration = Duration::from_secs(10);

/// What programs ask for.
const ASKED: [&str; 6] = [
    "/api/v1/status",
    "/api/v1/queue?limit=50",
    "/api/v1/events?limit=50",
    "/api/v1/providers",
    "/api/v1/history?span=1h",
    "/metrics",
];

const LIMIT: Duration = Duration::from_secs(600);
/// What is left of the rate while people look on.
const TARGET: f64 = 0.95;

struct Round {
    /// Relayed a second.
    rate: f64,
    /// Of the relay's process, in microseconds a message.
    cpu: f64,
    /// The wait for the 250 that 99 of 100 stay below, in milliseconds.
    slow: f64,
}

fn main() {
    let rate = std::env::var("WEIR_BENCH_RATE").ok().and_then(|text| text.parse().ok()).unwrap_or(RATE);
    let pace = (rate > 0.0).then_some(rate);
    let messages = pace.map_or(UNPACED, |pace| (pace * ROUND.as_secs_f64()) as usize);
    let (dns, sink, content) = (Dns::start(), Sink::start(), content());
    dns.mx("bench.test", &[(10, "mx.bench.test")]);
    dns.addresses("mx.bench.test", &[sink.address().ip()]);
    let relay = start(&dns, &sink);
    let mut expected = SESSIONS * 50;
    hand_in(relay.address(), expected, None, &content);
    let mut round = || {
        let (begun, cpu) = (Instant::now(), process::cpu(&relay.pid().to_string()));
        let mut waits = hand_in(relay.address(), messages, pace, &content);
        expected += messages;
        until_within(LIMIT, "all messages at the receiver", || (sink.accepted() >= expected).then_some(()));
        let rate = messages as f64 / begun.elapsed().as_secs_f64();
        let cpu = process::cpu(&relay.pid().to_string()) - cpu;
        waits.sort();
        Round { rate, cpu: cpu.as_secs_f64() * 1e6 / messages as f64, slow: millis(&waits, 99) }
    };
    let (mut alone, mut watched, mut answers) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        alone.push(round());
        let (seen, answered) = beside(&Site::of(&relay), &mut round);
        watched.push(seen);
        answers += answered;
    }
    let (without, with) = (told("nobody looks", alone), told("20 programs, 5 pages", watched));
    println!("{answers} answers of the API in {ROUNDS} rounds");
    let word = if with / without >= TARGET { "reached" } else { "missed" };
    println!("{:.1} % of the rate is left while they look on; target {word}", 100.0 * with / without);
}

/// Prints the medians; the rate.
fn told(name: &str, rounds: Vec<Round>) -> f64 {
    let median = |value: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let (rate, cpu, slow) = (median(|r| r.rate), median(|r| r.cpu), median(|r| r.slow));
    println!(
        "{name:<22} {rate:>7.0} messages/s, {cpu:>5.0} µs of the relay a message, 250 within {slow:>6.1} ms for 99 %"
    );
    rate
}

fn start(dns: &Dns, sink: &Sink) -> Relay {
    let config =
        Config::new(dns.address(), sink.address().port()).set("http", "address", "\"127.0.0.1:0\"").table(&format!(
            "[[provider]]\nname = \"bench\"\nmx = [\"*.bench.test\"]\nmax_connections = {SESSIONS}\n\
         initial_connections = {SESSIONS}\nmessages_per_connection = 1000"
        ));
    let program = std::env::var_os("WEIR_BENCH_PROGRAM").map_or_else(|| PathBuf::from(WEIR), PathBuf::from);
    Relay::start_program(program, config)
}

/// The port of `[http]`, and what opens it.
struct Site {
    address: SocketAddr,
    token: String,
}

impl Site {
    fn of(relay: &Relay) -> Site {
        let log = relay.log();
        let (_, rest) = log.rsplit_once("page, API and metrics on http://").expect("the relay says where its page is");
        let address = rest.split('/').next().and_then(|text| text.parse().ok()).expect("an address");
        let token = std::fs::read_to_string(relay.data_dir().join("http-token")).expect("the token of the page");
        Site { address, token: token.trim().to_string() }
    }

    /// A request on a connection of its own, as a script makes it.
    fn asked(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).expect("the port of [http]");
        let (host, token) = (self.address, &self.token);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("a request is taken");
        stream
    }

    fn answer(&self, path: &str) {
        let mut answer = Vec::new();
        self.asked(path).read_to_end(&mut answer).expect("a whole answer");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
    }
}

/// Does something while programs and pages ask; how many answers they got with it.
fn beside<T>(site: &Site, work: impl FnOnce() -> T) -> (T, usize) {
    let (over, answers) = (AtomicBool::new(false), AtomicUsize::new(0));
    let result = std::thread::scope(|scope| {
        for n in 0..PROGRAMS {
            let (over, answers) = (&over, &answers);
            scope.spawn(move || program(site, n, over, answers));
        }
        for _ in 0..PAGES {
            scope.spawn(|| page(site, &over, &answers));
        }
        let result = work();
        over.store(true, Ordering::Relaxed);
        result
    });
    (result, answers.into_inner())
}

/// Asks for one thing after the other, at its pace, and never for two at once.
fn program(site: &Site, number: usize, over: &AtomicBool, answers: &AtomicUsize) {
    let mut next = Instant::now() + ASKED_EVERY * number as u32 / PROGRAMS as u32;
    for path in ASKED.iter().cycle().skip(number) {
        if over.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        next = (next + ASKED_EVERY).max(Instant::now());
        site.answer(path);
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

/// An open page: the live stream, and the plots now and then.
fn page(site: &Site, over: &AtomicBool, answers: &AtomicUsize) {
    site.answer("/api/v1/status");
    let mut live = site.asked("/api/v1/live");
    live.set_read_timeout(Some(Duration::from_millis(500))).expect("a time limit");
    let (mut piece, mut drawn) = ([0; 16 << 10], None::<Instant>);
    while !over.load(Ordering::Relaxed) {
        let told = live.read(&mut piece);
        assert!(!matches!(told, Ok(0)), "the live stream ended");
        if drawn.is_none_or(|drawn| drawn.elapsed() >= PLOTS_EVERY) {
            site.answer("/api/v1/history?span=1h");
            answers.fetch_add(1, Ordering::Relaxed);
            drawn = Some(Instant::now());
        }
    }
}
