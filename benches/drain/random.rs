//! Random receivers, made of every part a profile has, and what must hold for each of them.
//!
//! A seed is a scenario: its text is what a person would write, so one that goes wrong can be saved as a file and looked at.
//!
//! - No promise is broken: the world itself checks at every step (no message offered after its last word, no permit
//!   beside its connection, the core sleeps), and here no ceiling is passed, nothing is sent again after a 5xx, and all mail comes
//!   to its end.
//! - No lane is idle without need: while mail waits and the receiver would take it, no stretch without an attempt is longer than
//!   [`IDLE_TIMES`] times the longest wait that was needed: the longest pause of the ideal sender, or the longest time for which the receiver really was
//!   shut, by a block or a penalty; what is shorter than [`IDLE_FREE`] is nobody's concern, nor, where there are blocks, what is shorter than
//!   [`BLOCK_FREE`]: a probe may cost a message, so the operator says when it goes (`probe_block`).
//! - How long it took ÷ the ideal sender's time is told as a distribution; it is not judged one by one. An ideal time of less than
//!   [`BEST_COUNTS`] counts as so much, or the first look at a fast receiver would weigh more than anything learned.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;

use super::run::Course;
use super::scenario::Scenario;
use super::score::Score;

pub const IDLE_TIMES: u32 = 2;
pub const IDLE_FREE: Duration = Duration::from_secs(10 * 60);
/// The first wait for a probe, made longer by a tenth by chance, and a message's time.
pub const BLOCK_FREE: Duration = Duration::from_secs(68 * 60);
/// A backlog has between so many messages: enough to meet the limits, few enough for a thousand seeds in minutes.
const MESSAGES: (f64, f64) = (100.0, 2000.0);
/// An ideal time counts as at least this.
const BEST_COUNTS: Duration = Duration::from_secs(60);
/// Longer than this no ideal sender takes: such a draw is drawn again.
const BEST_MAX: Duration = Duration::from_secs(86_400);

/// How one seed went.
#[derive(Clone, Debug)]
pub struct Played {
    pub seed: u64,
    pub score: Score,
    /// Time until the last message was accepted ÷ that of the ideal sender; for ever, if some never went.
    pub ratio: f64,
    /// The longest stretch without an attempt while the receiver would have taken mail.
    pub idle: Duration,
    /// The longest wait that was needed.
    pub needed: Duration,
    /// The receiver may block.
    pub blocks: bool,
}

impl Played {
    /// Promises that were broken.
    pub fn broken(&self) -> Vec<String> {
        let Score { peak, ceiling, retransmitted, .. } = self.score;
        [
            (peak > ceiling).then(|| format!("{peak} connections, the ceiling is {ceiling}")),
            (retransmitted > 0).then(|| format!("{retransmitted} sent again after a 5xx")),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    pub fn is_idle(&self) -> bool {
        let free = if self.blocks { BLOCK_FREE } else { Duration::ZERO };
        self.idle > (self.needed.max(IDLE_FREE) * IDLE_TIMES).max(free)
    }
}

/// Plays the scenario of a seed.
pub fn play(seed: u64) -> anyhow::Result<Played> {
    for draw in 0.. {
        let text = scenario(seed, draw);
        let scenario = Scenario::parse(&format!("random-{seed}"), &text).with_context(|| text.clone())?;
        let Ok(course) = Course::new(&scenario) else { continue };
        if course.best <= BEST_MAX {
            let (score, idle) = course.drain_watched(seed);
            let needed = course.ideal().longest_pause(course.messages).max(idle.shut);
            let ratio = match score.left {
                0 => score.time.as_secs_f64() / course.best.max(BEST_COUNTS).as_secs_f64(),
                _ => f64::INFINITY,
            };
            return Ok(Played { seed, score, ratio, idle: idle.idle, needed, blocks: scenario.may_block() });
        }
    }
    unreachable!("one draw after the other is tried")
}

/// The scenario of a seed, for people.
pub fn text(seed: u64) -> String {
    let is_good = |text: &String| {
        let scenario = Scenario::parse("random", text).ok()?;
        Course::new(&scenario).ok().filter(|course| course.best <= BEST_MAX).map(|_| ())
    };
    (0..).map(|draw| scenario(seed, draw)).find(|text| is_good(text).is_some()).unwrap_or_default()
}

struct Draw(fastrand::Rng);

fn scenario(seed: u64, draw: u64) -> String {
    let mut chance = Draw(fastrand::Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(draw)));
    let mut text =
        format!("about = \"random, seed {seed}\"\nmessages = {}\nseeds = 1\n", chance.between(MESSAGES.0, MESSAGES.1));
    chance.sender(&mut text);
    chance.limits(&mut text);
    chance.troubles(&mut text);
    chance.manners(&mut text);
    chance.changes(&mut text);
    text
}

impl Draw {
    fn happens(&mut self, share: f64) -> bool {
        self.0.f64() < share
    }

    /// As often of each order of magnitude.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the two bounds")]
    fn between(&mut self, least: f64, most: f64) -> u64 {
        (least.ln() + self.0.f64() * (most / least).ln()).exp().round() as u64
    }

    fn one_of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.0.usize(..words.len())]
    }

    /// The relay and its mail.
    fn sender(&mut self, text: &mut String) {
        let mix = self.one_of(&[
            "{ normal = 1 }",
            "{ bulk = 1 }",
            "{ high = 0.1, normal = 0.6, bulk = 0.3 }",
            "{ high = 0.02, bulk = 0.98 }",
        ]);
        let domains = self.between(1.0, 12.0);
        let sets = self.0.u64(1..=domains);
        let sources = if self.happens(0.25) { self.0.u64(2..=3) } else { 1 };
        let _ = writeln!(text, "mix = {mix}\ndomains = {domains}\nmx_sets = {sets}\nsources = {sources}");
        if self.happens(0.2) {
            let share = |chance: &mut Draw, most: f64| if chance.0.bool() { chance.0.f64() * most } else { 0.0 };
            let shares = [0.05, 0.02, 0.02, 0.3].map(|most| share(self, most));
            let [unreachable, lost, doubt, idle_closed] = shares;
            let _ = writeln!(
                text,
                "\n[faults]\nunreachable = {unreachable:.4}\nlost = {lost:.4}\ndoubt = {doubt:.4}\nidle_closed = {idle_closed:.4}"
            );
        }
        if self.happens(0.1) {
            let (after, way, off) =
                (self.between(60.0, 7200.0), self.one_of(&["ahead", "behind"]), self.between(10.0, 7200.0));
            let _ = writeln!(text, "\n[[clock]]\nafter = \"{after}s\"\n{way} = \"{off}s\"");
        }
        let most = self.between(2.0, 500.0);
        let _ = writeln!(text, "\n[relay]\nmax_connections = {most}\ninitial_connections = {}", most.min(20));
    }

    fn limits(&mut self, text: &mut String) {
        let _ = writeln!(text, "\n[receiver.limits]");
        for (key, share, least, most) in
            [("connections_per_source", 0.4, 2.0, 30.0), ("messages_per_connection", 0.3, 1.0, 30.0)]
        {
            if self.happens(share) {
                let limit = self.between(least, most);
                let _ = writeln!(text, "{key} = {limit}");
            }
        }
        let windows = [0.15, 0.65, 0.2];
        let drawn = self.0.f64();
        let count = if drawn < windows[0] {
            0
        } else if drawn < windows[0] + windows[1] {
            1
        } else {
            2
        };
        for _ in 0..count {
            self.window(text);
        }
        let latency = |chance: &mut Draw, most: f64| chance.between(10.0, most);
        let [connect, command, data] = [2000.0, 1000.0, 3000.0].map(|most| latency(self, most));
        let _ = writeln!(
            text,
            "\n[receiver.latency]\nconnect = \"{connect}ms\"\ncommand = \"{command}ms\"\ndata = \"{data}ms\"\njitter = 0.3"
        );
    }

    fn window(&mut self, text: &mut String) {
        const SPANS: [(&str, f64); 12] = [
            ("1s", 1.0),
            ("3s", 3.0),
            ("10s", 10.0),
            ("1m", 60.0),
            ("1m", 60.0),
            ("5m", 300.0),
            ("10m", 600.0),
            ("30m", 1800.0),
            ("1h", 3600.0),
            ("1h", 3600.0),
            ("6h", 21_600.0),
            ("1d", 86_400.0),
        ];
        let (span, seconds) = SPANS[self.0.usize(..SPANS.len())];
        // Between 40 an hour and 20 a second, and at least one.
        let (least, most) = ((seconds / 90.0).max(1.0), (seconds * 20.0).clamp(2.0, 2000.0));
        let count = self.between(least.min(most), most);
        let _ = writeln!(text, "\n[[receiver.limits.window]]\ncount = {count}\nspan = \"{span}\"");
        match self.0.u8(..4) {
            0 => drop(writeln!(text, "kind = \"clock\"")),
            1 => {
                let depth = self.between(1.0, 500.0);
                let _ = writeln!(text, "kind = \"bucket\"\ndepth = {depth}");
            }
            _ => {}
        }
        if self.happens(0.15) {
            let _ = writeln!(text, "scope = \"all\"");
        }
        if self.happens(0.1) {
            let _ = writeln!(text, "counts_refused = true");
        }
    }

    fn troubles(&mut self, text: &mut String) {
        if self.happens(0.35) {
            let (stage, reply) = match self.0.u8(..5) {
                0 => ("connect", "RP-003"),
                1 => ("mail", "RP-001"),
                2 => ("rcpt", "RP-001"),
                3 => ("data", "4.7.500"),
                _ => ("mail", "4.7.500"),
            };
            let share = self.0.f64() * 0.02;
            let _ =
                writeln!(text, "\n[[receiver.trouble]]\nstage = \"{stage}\"\nshare = {share:.4}\nreply = \"{reply}\"");
        }
        if self.happens(0.2) {
            let share = self.0.f64() * 0.03;
            let _ = writeln!(text, "\n[receiver.mailboxes]\nunknown_share = {share:.4}");
        }
    }

    /// What becomes of those who press on.
    fn manners(&mut self, text: &mut String) {
        match self.0.u8(..8) {
            0 | 1 => text.push_str("\n[receiver.reputation]\npunishes = true\n"),
            2 => {
                let (first, most) = (self.between(30.0, 600.0), self.between(1200.0, 18_000.0));
                let _ = writeln!(text, "\n[receiver.reputation]\npenalty = \"{first}s\"\npenalty_max = \"{most}s\"");
            }
            _ => {}
        }
    }

    fn changes(&mut self, text: &mut String) {
        let after = self.between(300.0, 14_400.0);
        match self.0.u8(..10) {
            0 | 1 => {
                let length = self.between(20.0, 14_400.0);
                let _ = writeln!(text, "\n[[receiver.change]]\nafter = \"{after}s\"\nblock = \"{length}s\"");
            }
            2 => {
                let scale = 0.1 + self.0.f64();
                let _ = writeln!(text, "\n[[receiver.change]]\nafter = \"{after}s\"\nscale = {scale:.3}");
            }
            3 => {
                let factor = 0.9 + self.0.f64() * 0.08;
                let _ = writeln!(
                    text,
                    "\n[[receiver.change]]\nafter = \"30m\"\nevery = \"30m\"\ntimes = 20\nfactor = {factor:.3}"
                );
            }
            4 => {
                let scale = 0.2 + self.0.f64() * 0.6;
                let _ = writeln!(
                    text,
                    "\n[[receiver.change]]\nafter = \"30m\"\nevery = \"1h\"\ntimes = 100\nscale = {scale:.3}"
                );
                let _ =
                    writeln!(text, "\n[[receiver.change]]\nafter = \"1h\"\nevery = \"1h\"\ntimes = 100\nscale = 1.0");
            }
            _ => {}
        }
    }
}

/// How many seeds took how long.
pub struct Distribution(Vec<f64>);

impl Distribution {
    pub fn of(played: &[Played]) -> Distribution {
        let mut ratios: Vec<f64> = played.iter().map(|played| played.ratio).collect();
        ratios.sort_by(f64::total_cmp);
        Distribution(ratios)
    }

    /// The ratio that so large a share of all did not pass.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count")]
    pub fn at(&self, share: f64) -> f64 {
        let place = (share * self.0.len() as f64).ceil() as usize;
        self.0.get(place.clamp(1, self.0.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
    }
}
