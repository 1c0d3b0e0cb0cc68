//! How fast a backlog drains, and what it costs the receiver, measured in virtual time.
//!
//! The relay's own core (`dispatch`: queue, throttle, verdict) sends a backlog to a simulated receiver whose limits it is not
//! told. It is compared with an ideal sender that knows every limit at every moment (`drain/ideal.rs`), and beside it stand
//! three relays as they are found elsewhere (`drain/naive.rs`). `drain/score.rs` says what is measured and which targets there are.
//!
//! ```text
//! cargo bench --bench drain                            all scenarios of benches/drain/, three seeds each
//! cargo bench --bench drain -- WORD…                   those of them with one of the words in their name or that are of such a family
//! cargo bench --bench drain -- FILE…                   scenarios from elsewhere; docs/drain.md tells how to write one
//! cargo bench --bench drain -- --trace OUT.csv FILE    one run of one scenario, minute by minute; OUT.svg: as a plot
//! cargo bench --bench drain -- --random 200            so many receivers made of all parts at random: the distribution, and what must hold
//! cargo bench --bench drain -- --random-seed 17        the scenario of one of them, to be saved as a file
//! cargo bench --bench drain -- --real                  a short one in real time with real sockets, beside the same in virtual time
//! ```
//!
//! `--seed N` runs that seed alone; `--relay` leaves the naive relays out, `--others` sends them against every receiver and not only
//! against the first ones. The exit code is 1 where a target is missed, and where
//! real and virtual time differ.

#[path = "drain/mod.rs"]
mod drain;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};

use anyhow::{Context, bail};

use weir::clock::Clock;

use drain::naive::Policy;
use drain::random::{self, Distribution, Played};
use drain::real::{self, Ratios};
use drain::run::Course;
use drain::scenario::{self, Family, Scenario};
use drain::score::{ESTIMATE_MAX, FOUND_MAX, REFUSED_FROM, REFUSED_MAX, Score, WHOLE_MAX};
use drain::trace::Trace;

/// As in the relay itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// So many of the slowest random receivers are named.
const SLOWEST: usize = 12;
const SCENARIOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/drain");

fn main() -> ExitCode {
    match Arguments::read(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("drain: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Arguments {
    /// Files, or words of names.
    wanted: Vec<String>,
    trace: Option<PathBuf>,
    seed: Option<u64>,
    relay_only: bool,
    others: bool,
    real: bool,
    random: Option<u64>,
    random_seed: Option<u64>,
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> anyhow::Result<Arguments> {
        let mut arguments = Arguments::default();
        while let Some(word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word.as_str() {
                "--trace" => arguments.trace = Some(value()?.into()),
                "--seed" => arguments.seed = Some(value()?.parse().context("--seed: a whole number")?),
                "--relay" => arguments.relay_only = true,
                "--others" => arguments.others = true,
                "--real" => arguments.real = true,
                "--random" => arguments.random = Some(value()?.parse().context("--random: a whole number")?),
                "--random-seed" => {
                    arguments.random_seed = Some(value()?.parse().context("--random-seed: a whole number")?)
                }
                // Cargo says so to every bench.
                "--bench" => {}
                _ if !word.starts_with('-') => arguments.wanted.push(word),
                _ => {
                    bail!(
                        "{word} is no argument: WORD…, FILE…, --trace FILE.csv, --seed N, --relay, --others, --real, --random N, --random-seed N"
                    )
                }
            }
        }
        Ok(arguments)
    }
}

/// True if every target was reached.
fn run(arguments: &Arguments) -> anyhow::Result<bool> {
    if arguments.real {
        return really();
    }
    if let Some(seed) = arguments.random_seed {
        print!("{}", random::text(seed));
        return Ok(true);
    }
    if let Some(seeds) = arguments.random {
        return at_random(arguments.seed.map_or(0..seeds, |seed| seed..seed + 1));
    }
    let scenarios = wanted(&arguments.wanted)?;
    let courses = scenarios
        .iter()
        .map(|scenario| Course::new(scenario).with_context(|| format!("scenario {}", scenario.name)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if let Some(path) = &arguments.trace {
        let [course] = &courses[..] else { bail!("--trace wants one scenario") };
        let mut trace = Trace::default();
        let score = course.drain(arguments.seed.unwrap_or(1), Some(&mut trace));
        let is_plot = path.extension().is_some_and(|extension| extension == "svg");
        let text = if is_plot { trace.svg(&course.scenario.about) } else { trace.csv() };
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        head();
        return Ok(line(course, "weir", &score, true));
    }
    let (clock, rows) = (Clock::system(), rows(&courses, arguments));
    let start = clock.now();
    let mut own = Vec::new();
    head();
    measure(&courses, &rows, |row, score| {
        let course = &courses[row.course];
        if row.policy.is_none() {
            println!("{}", course.scenario.about);
        }
        line(course, row.name(), score, row.policy.is_none());
        if row.policy.is_none() {
            own.push(score.clone());
        }
    });
    legend();
    summary(&own, clock.now().since(start).as_secs_f64());
    Ok(own.iter().all(|score| score.missed().is_empty()))
}

/// The scenarios of the files, and the shipped ones that the words mean; all of these without either.
fn wanted(wanted: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let shipped = scenario::files(Path::new(SCENARIOS))?;
    let shipped = shipped.iter().map(|file| Scenario::read(file)).collect::<anyhow::Result<Vec<_>>>()?;
    if wanted.is_empty() {
        return Ok(shipped);
    }
    let mut scenarios = Vec::new();
    for word in wanted {
        if Path::new(word).is_file() || word.ends_with(".toml") {
            scenarios.push(Scenario::read(Path::new(word))?);
            continue;
        }
        let meant = |scenario: &&Scenario| scenario.name.contains(word) || scenario.family.name() == word;
        let before = scenarios.len();
        scenarios.extend(shipped.iter().filter(meant).cloned());
        if scenarios.len() == before {
            let names: Vec<&str> = shipped.iter().map(|scenario| scenario.name.as_str()).collect();
            bail!("`{word}` is neither a file nor part of a scenario's name or family: {}", names.join(", "));
        }
    }
    Ok(scenarios)
}

/// A line of the table: who sends, and with which seeds; the worst of them is shown.
struct Row {
    course: usize,
    /// None: the relay itself.
    policy: Option<Policy>,
    seeds: std::ops::RangeInclusive<u64>,
}

impl Row {
    fn name(&self) -> &'static str {
        self.policy.map_or("weir", Policy::name)
    }
}

fn rows(courses: &[Course<'_>], arguments: &Arguments) -> Vec<Row> {
    let mut rows = Vec::new();
    for (number, course) in courses.iter().enumerate() {
        let seeds = arguments.seed.map_or(1..=course.scenario.seeds, |seed| seed..=seed);
        let first = *seeds.start();
        rows.push(Row { course: number, policy: None, seeds });
        let beside = arguments.others || course.scenario.family == Family::Old;
        if beside && !arguments.relay_only {
            rows.extend(Policy::ALL.map(|policy| Row { course: number, policy: Some(policy), seeds: first..=first }));
        }
    }
    rows
}

/// All runs, on as many threads as there are processors; each row is shown, in order, as soon as its runs are over.
fn measure(courses: &[Course<'_>], rows: &[Row], mut show: impl FnMut(&Row, &Score)) {
    let runs: Vec<(usize, u64)> =
        rows.iter().enumerate().flat_map(|(number, row)| row.seeds.clone().map(move |seed| (number, seed))).collect();
    let mut left: Vec<usize> = rows.iter().map(|row| row.seeds.clone().count()).collect();
    let mut worst: Vec<Option<Score>> = rows.iter().map(|_| None).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, (done, results)) = (AtomicUsize::new(0), mpsc::sync_channel(threads));
    let work = |done: mpsc::SyncSender<(usize, Score)>| {
        while let Some((number, seed)) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (row, course) = (&rows[*number], &courses[rows[*number].course]);
            let score = match row.policy {
                None => course.drain(*seed, None),
                Some(policy) => course.drain_naively(policy, *seed),
            };
            if done.send((*number, score)).is_err() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (work, done) = (&work, done.clone());
            scope.spawn(move || work(done));
        }
        drop(done);
        let mut shown = 0;
        for (number, score) in results {
            left[number] -= 1;
            worst[number] = Some(match worst[number].take() {
                Some(worst) => worst.worst(score),
                None => score,
            });
            while let (Some(0), Some(Some(score))) = (left.get(shown), worst.get(shown)) {
                show(&rows[shown], score);
                shown += 1;
            }
        }
    });
}

/// Who went on for too long, or lost its mail, has no time.
fn times(ratio: f64) -> String {
    if ratio.is_finite() { format!("{ratio:.2}") } else { "never".into() }
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn head() {
    println!(
        "{:<28} {:<26} {:>8} {:>6} {:>6} {:>10} {:>6} {:>6} {:>6} {:>8}",
        "receiver", "relay", "messages", "whole", "found", "refused", "peak", "lost", "left", "estimate"
    );
}

/// One line of the table; with `judged` it says which targets were missed. True if none was.
fn line(course: &Course<'_>, who: &str, score: &Score, judged: bool) -> bool {
    let missed = score.missed();
    let word = match (judged, missed.is_empty()) {
        (false, _) => String::new(),
        (true, true) => "  ok".into(),
        (true, false) => format!("  MISSED: {}", missed.join(", ")),
    };
    println!(
        "{:<28} {who:<26} {:>8} {:>6} {:>6} {:>10} {:>6} {:>6} {:>6} {:>8}{word}",
        course.scenario.name,
        score.messages,
        times(score.whole),
        score.found.map_or("-".into(), times),
        percent(score.refused),
        score.peak,
        score.lost,
        score.left,
        score.estimate.map_or("-".into(), |off| format!("{:.0} %", off * 100.0)),
    );
    missed.is_empty()
}

fn legend() {
    println!(
        "\n\
         whole     time for the whole backlog ÷ that of a sender who knows every limit at every moment; target: at most {WHOLE_MAX}\n\
         found     the same for the last 80 % of the messages, where the limits stay as they are; target: at most {FOUND_MAX}\n\
         refused   connections and transactions the receiver refused ÷ messages; target: at most {} (of {REFUSED_FROM} messages or more),\n\
         \x20         and what it refuses by chance\n\
         peak      connections at a time, counted at the receiver; target: never over the ceiling of the provider\n\
         lost      messages that ended with a 5xx; target: no more than were in flight when a block began, and one a probe\n\
         left      messages neither accepted nor lost when nobody waited any longer; target: 0\n\
         estimate  how far the relay's own \"empty at\" was off at worst, where the limits stay as they are; target: at most {:.0} %\n\
         These are the targets of the first receivers; each family has its own, docs/drain.md tells them.\n\
         Of several seeds the worst number is shown. never: not done in four times the time, given up after ten refusals for each\n\
         message, or more than one message in a hundred lost.",
        percent(REFUSED_MAX),
        ESTIMATE_MAX * 100.0,
    );
}

/// How the relay did over all.
fn summary(scores: &[Score], seconds: f64) {
    let reached = scores.iter().filter(|score| score.missed().is_empty()).count();
    let worst = |value: &dyn Fn(&Score) -> f64| scores.iter().map(value).fold(0.0, f64::max);
    println!(
        "\nweir reached every target with {reached} of {} receivers; at worst whole {}, found {}, refused {}. Measured in {seconds:.0} s.",
        scores.len(),
        times(worst(&|score| score.whole)),
        times(worst(&|score| score.found.unwrap_or(0.0))),
        percent(worst(&|score| score.refused)),
    );
}

/// Random receivers. True if all that must hold, held.
fn at_random(seeds: std::ops::Range<u64>) -> anyhow::Result<bool> {
    let (next, played) = (AtomicU64::new(seeds.start), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(|| random::play(seed));
                    played.lock().unwrap_or_else(PoisonError::into_inner).push((seed, outcome));
                }
            });
        }
    });
    let (mut good, mut all_well) = (Vec::<Played>::new(), true);
    for (seed, outcome) in played.into_inner().unwrap_or_else(PoisonError::into_inner) {
        match outcome {
            Ok(played) => good.push(played?),
            Err(_) => {
                all_well = false;
                println!("seed {seed}: a promise was broken, see above");
            }
        }
    }
    good.sort_by_key(|played| played.seed);
    for played in &good {
        let mut faults = played.broken();
        if played.is_idle() {
            faults.push(format!("idle for {} s, {} s were needed", played.idle.as_secs(), played.needed.as_secs()));
        }
        all_well &= faults.is_empty();
        if !faults.is_empty() {
            println!("seed {}: {}", played.seed, faults.join("; "));
        }
    }
    let distribution = Distribution::of(&good);
    let [median, most, worst] = [0.5, 0.9, 1.0].map(|share| times(distribution.at(share)));
    let never = good.iter().filter(|played| played.ratio.is_infinite());
    let never: Vec<String> = never.map(|played| played.seed.to_string()).collect();
    println!("\ndrain ÷ ideal over {} receivers: median {median}, nine in ten {most}, worst {worst}", good.len());
    println!("never done: {} ({})", never.len(), never.join(" "));
    good.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    let slowest = good.iter().take(SLOWEST).map(|played| format!("{} ({})", played.seed, times(played.ratio)));
    println!("slowest seeds: {}", slowest.collect::<Vec<_>>().join(", "));
    Ok(all_well)
}

/// The short scenarios in real and in virtual time. True if they agree.
fn really() -> anyhow::Result<bool> {
    println!("short backlogs in real time, with the whole relay and real sockets: wait some minutes");
    let mut all_agree = true;
    for (name, text) in real::SCENARIOS {
        let comparison = real::compare(name, text)?;
        println!("\n{name}: {} messages; the ideal sender takes {} s", comparison.messages, comparison.ideal.as_secs());
        println!("{:<16} {:>14} {:>20}", "time", "drain ÷ ideal", "refused ÷ messages");
        let show = |time: &str, ratios: &Ratios| {
            println!("{time:<16} {:>14.2} {:>20}", ratios.drain, percent(ratios.refused));
        };
        comparison.virtually.iter().zip(1..).for_each(|(ratios, seed)| show(&format!("virtual, seed {seed}"), ratios));
        show("real", &comparison.really);
        let differences = comparison.differences();
        all_agree &= differences.is_empty();
        match differences.is_empty() {
            true => println!(
                "they agree: drain within {:.0} %, refusals within {:.0} % of the messages",
                real::DRAIN_OFF * 100.0,
                real::REFUSED_OFF * 100.0
            ),
            false => println!("they differ: {}", differences.join("; ")),
        }
    }
    Ok(all_agree)
}
