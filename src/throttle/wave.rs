//! Waves of unknown users, and clients of ours that mine for names.
//!
//! Microsoft has had waves of false "unknown user", and a dirty list looks the same from here. While a wave lasts, whoever
//! is suppressed is suppressed provisionally under the wave's id, so that one command undoes or confirms it. The same sign
//! from one client of ours is namespace mining: checking addresses by sending to them, which receivers forbid.
//!
//! Rules that always hold:
//! - the sign is: within 15 minutes at least 20 unknown recipients, and a share of them above 5 % and above four times
//!   the mean of the day;
//! - what is counted during a wave is no part of the mean, for a week, as long as provisional entries hold; what lasts
//!   longer is the normal state;
//! - a wave ends when the share has been back to normal for 15 minutes;
//! - of clients only the thousand seen last are remembered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bounded::Bounded;
use crate::types::Timestamp;

const WINDOW_MINUTES: i64 = 15;
const HITS_MIN: u32 = 20;
const SHARE_MIN: f64 = 0.05;
const OVER_MEAN: f64 = 4.0;
const DAY_HOURS: i64 = 24;
/// The mean of fewer recipients than this says nothing: three of four would allow everything.
const MEAN_OF_MIN: u64 = 200;
/// After a week a wave is no news: provisional entries run out then.
const NEWS_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
const MINUTE_MILLIS: i64 = 60_000;
const CALM_MILLIS: i64 = WINDOW_MINUTES * MINUTE_MILLIS;
/// Clients that are remembered, at some 700 octets each.
const CLIENTS_MAX: usize = 1000;

/// What one provider said about recipients, and whether it is a wave. The empty one has heard nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wave {
    shares: Shares,
    on: Option<On>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct On {
    id: String,
    began: Timestamp,
    /// The last moment at which the share was too large.
    over: Timestamp,
}

/// What came of one answer about a recipient.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The wave that is on.
    pub wave: Option<Arc<str>>,
    pub change: Option<WaveChange>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaveChange {
    /// Somebody should look, and the lanes are slowed down.
    Began {
        id: Arc<str>,
        unknown: u32,
        all: u32,
    },
    Ended {
        id: Arc<str>,
    },
}

impl Wave {
    /// Counts one answer of `provider` about a recipient: unknown, or anything else.
    pub fn note(&mut self, provider: &str, unknown: bool, now: Timestamp) -> Noted {
        let ended = self.tick(now);
        let lasts = self.on.as_ref().is_some_and(|on| now.since(on.began) < NEWS_FOR);
        self.shares.count(unknown, now, !lasts);
        let window = self.shares.window(now);
        if !self.shares.is_over(window, now) {
            return Noted { wave: self.id(), change: ended };
        }
        if let Some(on) = &mut self.on {
            on.over = now;
            return Noted { wave: self.id(), change: None };
        }
        let id = id_of(provider, now);
        self.on = Some(On { id: id.to_string(), began: now, over: now });
        let began = WaveChange::Began { id: id.clone(), unknown: window.unknown, all: window.all };
        Noted { wave: Some(id), change: Some(began) }
    }

    /// Ends a wave after which all is quiet. Called once in a while.
    pub fn tick(&mut self, now: Timestamp) -> Option<WaveChange> {
        let on = self.on.as_mut()?;
        // A clock that has jumped back: the calm begins now.
        on.over = on.over.min(now);
        if now.millis() - on.over.millis() < CALM_MILLIS {
            return None;
        }
        let on = self.on.take()?;
        Some(WaveChange::Ended { id: on.id.into() })
    }

    /// Recipients that were answered in the busier one of the last two minutes.
    pub fn per_minute(&self, now: Timestamp) -> u32 {
        let last = self.shares.minutes.iter().filter(|slice| slice.at >= minute_of(now) - 1);
        last.map(|slice| slice.all).max().unwrap_or(0)
    }

    /// The wave that is on.
    pub fn id(&self) -> Option<Arc<str>> {
        self.on.as_ref().map(|on| on.id.as_str().into())
    }
}

/// The clients of ours, each an address or the name of a user, by what receivers say about the recipients of their mail.
#[derive(Clone, Debug, Default)]
pub struct Clients {
    known: Bounded<Arc<str>, Client, CLIENTS_MAX>,
}

#[derive(Clone, Debug, Default)]
struct Client {
    shares: Shares,
    named: Option<Timestamp>,
}

/// A client that is to be slowed down and named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mining {
    pub client: Arc<str>,
    /// Within 15 minutes.
    pub unknown: u32,
    pub all: u32,
}

impl std::fmt::Display for Mining {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Mining { client, unknown, all } = self;
        write!(f, "{client} mails unknown recipients: {unknown} of {all} within {WINDOW_MINUTES} minutes")
    }
}

impl Clients {
    /// Counts one answer about a recipient of `client`. While the client mines, it is named every ten minutes.
    pub fn note(&mut self, client: &str, unknown: bool, now: Timestamp) -> Option<Mining> {
        let name: Arc<str> = client.into();
        let known = self.known.entry(&name, now);
        let recently = known.named.is_some_and(|named| now.since(named) < super::SLOWED_FOR && named <= now);
        known.shares.count(unknown, now, !recently);
        let window = known.shares.window(now);
        if !unknown || recently || !known.shares.is_over(window, now) {
            return None;
        }
        known.named = Some(now);
        Some(Mining { client: name, unknown: window.unknown, all: window.all })
    }
}

/// Answers about recipients: the last minutes one by one, the day in hours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Shares {
    /// Oldest first; `at` in minutes since 1970.
    minutes: VecDeque<Slice>,
    /// What has left the window, oldest first; `at` in hours.
    hours: VecDeque<Slice>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Slice {
    at: i64,
    all: u32,
    unknown: u32,
}

impl Slice {
    fn add(&mut self, all: u32, unknown: u32) {
        self.all = self.all.saturating_add(all);
        self.unknown = self.unknown.saturating_add(unknown);
    }
}

impl Shares {
    /// `normal`: what leaves the window now is part of the mean.
    fn count(&mut self, unknown: bool, now: Timestamp, normal: bool) {
        let minute = minute_of(now);
        if self.minutes.back().is_some_and(|last| last.at > minute + WINDOW_MINUTES) {
            // The clock was far ahead.
            *self = Shares::default();
        }
        while let Some(old) = self.minutes.front().copied().filter(|slice| slice.at <= minute - WINDOW_MINUTES) {
            self.minutes.pop_front();
            if normal {
                add(&mut self.hours, old.at.div_euclid(60), old.all, old.unknown);
            }
        }
        let hour = minute.div_euclid(60);
        self.hours.retain(|slice| slice.at > hour - DAY_HOURS);
        add(&mut self.minutes, minute, 1, u32::from(unknown));
    }

    fn window(&self, now: Timestamp) -> Slice {
        let oldest = minute_of(now) - WINDOW_MINUTES;
        sum(self.minutes.iter().filter(|slice| slice.at > oldest))
    }

    fn is_over(&self, window: Slice, now: Timestamp) -> bool {
        let oldest = minute_of(now).div_euclid(60) - DAY_HOURS;
        let day = sum(self.hours.iter().filter(|slice| slice.at > oldest));
        let mean = if u64::from(day.all) < MEAN_OF_MIN { 0.0 } else { f64::from(day.unknown) / f64::from(day.all) };
        let share = f64::from(window.unknown) / f64::from(window.all.max(1));
        window.unknown >= HITS_MIN && share > SHARE_MIN.max(OVER_MEAN * mean)
    }
}

/// Adds to the last slice, or to a new one behind it if time has gone on.
fn add(slices: &mut VecDeque<Slice>, at: i64, all: u32, unknown: u32) {
    match slices.back_mut() {
        Some(last) if last.at >= at => last.add(all, unknown),
        _ => slices.push_back(Slice { at, all, unknown }),
    }
}

fn sum<'a>(slices: impl Iterator<Item = &'a Slice>) -> Slice {
    slices.fold(Slice::default(), |mut sum, slice| {
        sum.add(slice.all, slice.unknown);
        sum
    })
}

fn minute_of(now: Timestamp) -> i64 {
    now.millis().div_euclid(MINUTE_MILLIS)
}

/// `outlook-20261121-2315`: what an operator types.
fn id_of(provider: &str, now: Timestamp) -> Arc<str> {
    let compact = now.compact();
    let (date, time) = (compact.get(..8).unwrap_or_default(), compact.get(9..13).unwrap_or_default());
    format!("{provider}-{date}-{time}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 2026-11-21T23:15:00Z.
    const START: i64 = 1_795_302_900;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(START + secs)
    }

    /// One answer a second, `unknown` of each hundred; what changed and when.
    fn flow(wave: &mut Wave, from: i64, secs: i64, unknown: i64) -> Vec<(i64, WaveChange)> {
        (from..from + secs)
            .filter_map(|n| Some((n, wave.note("outlook", n.rem_euclid(100) < unknown, at(n)).change?)))
            .collect()
    }

    #[test]
    fn a_wave_has_an_id_and_ends_when_all_has_been_normal_for_a_while() {
        let mut wave = Wave::default();
        assert_eq!(flow(&mut wave, -7200, 7200, 2), []);
        let began = flow(&mut wave, 0, 600, 50);
        let [(second, WaveChange::Began { id, unknown: 20.., .. })] = &began[..] else { panic!("{began:?}") };
        assert!((20..300).contains(second), "{second}");
        assert!(id.starts_with("outlook-20261121-231"), "{id}");
        assert_eq!(wave.id().as_ref(), Some(id));
        let ended = flow(&mut wave, 600, 3600, 2);
        let [(second, WaveChange::Ended { id: over })] = &ended[..] else { panic!("{ended:?}") };
        assert_eq!((over, wave.id()), (id, None));
        assert!((600 + 900..600 + 1900).contains(second), "{second}");
    }

    #[test]
    fn the_share_decides_and_not_the_number() {
        let rows = [(0, 4, false), (0, 7, true), (2, 7, false), (2, 10, true), (3, 10, false), (3, 14, true)];
        for (usual, then, is_wave) in rows {
            let mut wave = Wave::default();
            assert_eq!(flow(&mut wave, -36_000, 36_000, usual), [], "{usual}");
            assert_eq!(!flow(&mut wave, 0, 1800, then).is_empty(), is_wave, "{usual} then {then}");
        }
    }

    #[test]
    fn fewer_than_twenty_are_no_wave() {
        let mut wave = Wave::default();
        for n in 0..19 {
            assert_eq!(wave.note("p", true, at(n)), Noted::default());
        }
        assert!(wave.note("p", true, at(900 + 60)).wave.is_none(), "the first ones are too old");
        let mut wave = Wave::default();
        let noted: Vec<Noted> = (0..20).map(|n| wave.note("p", true, at(n))).collect();
        assert_eq!(noted[19].wave.as_deref(), Some("p-20261121-2315"));
        assert!(noted[..19].iter().all(|noted| noted.wave.is_none()));
    }

    #[test]
    fn a_wave_that_lasts_stays_a_wave_for_a_week() {
        let mut wave = Wave::default();
        flow(&mut wave, -7200, 7200, 1);
        let often = (0..9 * 24 * 360).map(|n| n * 10);
        let changes: Vec<(i64, WaveChange)> =
            often.filter_map(|n| Some((n, wave.note("p", n % 50 > 0, at(n)).change?))).collect();
        let [(_, WaveChange::Began { .. }), (end, WaveChange::Ended { .. })] = &changes[..] else {
            panic!("{changes:?}")
        };
        assert!((7 * 86_400..8 * 86_400).contains(end), "{end}");
    }

    #[test]
    fn a_wave_ends_without_traffic_too() {
        let mut wave = Wave::default();
        flow(&mut wave, 0, 60, 100);
        assert_eq!(wave.tick(at(59 + 899)), None);
        assert!(matches!(wave.tick(at(59 + 900)), Some(WaveChange::Ended { .. })));
        assert_eq!((wave.tick(at(5000)), wave.id()), (None, None));
    }

    #[test]
    fn a_clock_that_jumps_back_ends_no_wave_and_keeps_none_for_ever() {
        let mut wave = Wave::default();
        flow(&mut wave, 86_400, 60, 100);
        assert_eq!(wave.tick(at(0)), None);
        assert!(matches!(wave.tick(at(900)), Some(WaveChange::Ended { .. })));
    }

    #[test]
    fn a_client_that_mines_is_named_and_the_others_are_not() {
        let mut clients = Clients::default();
        let mut named = Vec::new();
        for n in 0..1200 {
            named.extend(clients.note("10.0.0.7", n % 3 > 0, at(n)));
            assert_eq!(clients.note("shop", n % 50 == 0, at(n)), None);
        }
        let names: Vec<String> = named.iter().map(Mining::to_string).collect();
        assert_eq!(names[0], "10.0.0.7 mails unknown recipients: 20 of 30 within 15 minutes");
        assert_eq!(names.len(), 2, "every ten minutes: {names:?}");
    }

    #[test]
    fn clients_are_forgotten_before_they_fill_the_memory() {
        let mut clients = Clients::default();
        for n in 0..20_000 {
            clients.note(&n.to_string(), true, at(n));
        }
        assert!(clients.known.iter().count() <= CLIENTS_MAX);
    }

    proptest! {
        #[test]
        fn state_stays_small_and_is_read_as_it_was_written(
            steps in prop::collection::vec((-2_000i64..8_000, any::<bool>(), 1usize..50), 0..200),
        ) {
            let mut wave = Wave::default();
            let mut now = 0;
            for (step, unknown, times) in steps {
                now += step;
                for _ in 0..times {
                    wave.note("p", unknown, at(now));
                }
                prop_assert!(wave.shares.minutes.len() as i64 <= 2 * WINDOW_MINUTES + 1);
                prop_assert!(wave.shares.hours.len() as i64 <= DAY_HOURS + 1);
            }
            let text = serde_json::to_string(&wave).unwrap();
            prop_assert_eq!(serde_json::from_str::<Wave>(&text).unwrap(), wave);
        }
    }
}
