//! When so many recipients will have gone: the lanes of a provider are played forward, hour by hour.
//!
//! What the growth guard and the warm-up let through rises while mail goes, so to divide by today's pace is wrong by hours or
//! days. Here their own counting is used, on copies: each hour that is full is a busy one for the next, each day a step.

use std::sync::Arc;
use std::time::Duration;

use super::growth::Growth;
use super::history::History;
use super::profile::Profile;
use super::warmup::Warmup;
use crate::types::Timestamp;

const HOUR_MILLIS: i64 = 3_600_000;
const MILLIS_PER_MINUTE: f64 = 60_000.0;
/// Nobody waits longer: mail has expired by then.
const STEPS_MAX: usize = 24 * 40 * 4;
/// A window is played in so many steps.
const STEPS: u32 = 60;

/// A lane as it is played.
#[derive(Clone, Debug)]
pub(super) struct Player {
    /// Nothing goes before.
    pub opens: Timestamp,
    /// What the receiver takes, recipients a minute; infinite: that is not what holds it back.
    pub takes: f64,
    /// It has taught that, or an operator says so; else it is what went lately.
    pub is_known: bool,
    /// A long window of the receiver: what goes waits for what leaves it.
    pub filling: Option<Filling>,
    pub growth: Option<Growth>,
    pub warmup: Option<Warmup>,
    pub profile: Arc<Profile>,
}

/// A window that is filled, and emptied by time.
#[derive(Clone, Debug)]
pub(super) struct Filling {
    pub history: History,
    pub most: f64,
    pub length: Duration,
    /// Recipients a minute while it has room.
    pub fastest: f64,
}

impl Filling {
    /// Recipients a minute until `end`.
    fn pace(&self, now: Timestamp, end: Timestamp) -> f64 {
        let room = (self.most - self.history.count(self.length, end) as f64).max(0.0);
        (room * 60.0 / end.since(now).as_secs_f64().max(1.0)).min(self.fastest)
    }

    /// It is looked at so often.
    fn step(&self) -> Duration {
        (self.length / STEPS).max(Duration::from_secs(60))
    }
}

impl Player {
    /// Recipients a minute from then on, until `end`.
    fn pace(&self, now: Timestamp, end: Timestamp) -> f64 {
        if now < self.opens {
            return 0.0;
        }
        let takes = self.filling.as_ref().map_or(self.takes, |filling| filling.pace(now, end));
        let guard = self.growth.as_ref().and_then(|growth| growth.pace(&self.profile, now));
        let warmup = self.warmup.as_ref().and_then(|warmup| warmup.pace(&self.profile.warm_up, now));
        guard.into_iter().chain(warmup).fold(takes, f64::min)
    }

    fn accepted(&mut self, n: f64, now: Timestamp) {
        // A cast from floating point saturates.
        let n = n.round() as u32;
        if let Some(filling) = &mut self.filling {
            filling.history.add(n, now, now);
        }
        if let Some(growth) = &mut self.growth {
            growth.accepted(n, now);
        }
        if let Some(warmup) = &mut self.warmup {
            warmup.accepted(n, now);
        }
    }
}

/// The lanes of a provider, to be played forward where there is time for it: it may take thousands of steps.
#[derive(Clone, Debug)]
pub struct Forecast(Vec<Player>);

impl Forecast {
    pub(super) fn new(players: Vec<Player>) -> Forecast {
        Forecast(players)
    }

    /// Where no limit of the receiver is known, so many recipients a minute are presumed in each lane, whatever went lately.
    pub fn presuming(mut self, pace: f64) -> Forecast {
        for player in &mut self.0 {
            player.takes = if player.is_known { player.takes.min(pace) } else { pace };
        }
        self
    }

    /// When so many recipients will have gone; none: it cannot be told.
    pub fn done_by(self, count: usize, now: Timestamp) -> Option<Timestamp> {
        done_by(self.0, count, now)
    }
}

/// When `count` recipients will have gone through these lanes together; none: it cannot be told, or not within weeks.
pub(super) fn done_by(mut players: Vec<Player>, count: usize, now: Timestamp) -> Option<Timestamp> {
    if players.is_empty() {
        return None;
    }
    let (mut left, mut from) = (count as f64, now);
    for _ in 0..STEPS_MAX {
        let end = next_change(&players, from);
        let paces: Vec<f64> = players.iter().map(|player| player.pace(from, end)).collect();
        let pace: f64 = paces.iter().sum();
        if pace.is_infinite() {
            return None;
        }
        let minutes = end.since(from).as_secs_f64() / 60.0;
        if pace > 0.0 && left <= pace * minutes {
            return Some(from + Duration::try_from_secs_f64(left / pace * MILLIS_PER_MINUTE / 1000.0).ok()?);
        }
        left -= pace * minutes;
        // Counted in the hour that ends, not in the next.
        let counted = Timestamp::from_millis(end.millis() - 1);
        for (player, pace) in players.iter_mut().zip(paces) {
            player.accepted(pace * minutes, counted);
        }
        from = end;
    }
    None
}

/// The end of the hour, or when a lane opens, if that is before.
fn next_change(players: &[Player], from: Timestamp) -> Timestamp {
    let hour = Timestamp::from_millis((from.millis().div_euclid(HOUR_MILLIS) + 1) * HOUR_MILLIS);
    let steps = players.iter().filter_map(|player| player.filling.as_ref()).map(|filling| from + filling.step());
    players.iter().map(|player| player.opens).filter(|opens| *opens > from).chain(steps).fold(hour, Timestamp::min)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::Profiles;

    /// The beginning of a day and so of an hour.
    const START: i64 = 1_794_960_000;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(START + secs)
    }

    fn player(takes: f64) -> Player {
        let profile = Arc::new(Profiles::new(&[]).get("outlook"));
        Player { opens: at(0), takes, is_known: true, filling: None, growth: None, warmup: None, profile }
    }

    /// Sends so many under the guard or the warm-up, as fast as they let it; when the last one went.
    fn sent(mut player: Player, count: usize, from: Timestamp) -> Timestamp {
        let (mut now, mut gone) = (from, 0);
        while gone < count {
            let asked = match (&mut player.growth, &mut player.warmup) {
                (Some(growth), _) => growth.ask(&player.profile, 1, now),
                (_, Some(warmup)) => warmup.ask(&player.profile.warm_up, 1, now),
                _ => Ok(()),
            };
            match asked {
                Ok(()) => {
                    player.accepted(1.0, now);
                    gone += 1;
                }
                Err(moment) => now = moment,
            }
        }
        now
    }

    #[test]
    fn the_guards_doubling_is_played() {
        for count in [400, 3000, 40_000] {
            for offset in [0, 1500, 3500] {
                let guarded = Player { growth: Some(Growth::default()), ..player(f64::INFINITY) };
                let told = done_by(vec![guarded.clone()], count, at(offset)).unwrap();
                let (told, took) = (told.since(at(offset)), sent(guarded, count, at(offset)).since(at(offset)));
                let ratio = told.as_secs_f64() / took.as_secs_f64();
                assert!((0.9..1.1).contains(&ratio), "{count} from {offset}: told {told:?}, took {took:?}");
            }
        }
    }

    #[test]
    fn the_days_of_the_warm_up_are_played() {
        let warming = Player { warmup: Some(Warmup::default()), ..player(f64::INFINITY) };
        let told = done_by(vec![warming.clone()], 5000, at(7200)).unwrap().since(at(7200));
        let took = sent(warming, 5000, at(7200)).since(at(7200));
        let ratio = told.as_secs_f64() / took.as_secs_f64();
        assert!((0.95..1.05).contains(&ratio), "told {told:?}, took {took:?}");
        assert!(took.as_secs() > 7 * 86_400, "{took:?}");
    }

    #[test]
    fn a_long_window_is_emptied_by_time() {
        let (day, mut history) = (Duration::from_secs(86_400), History::default());
        history.add(10_000, at(0), at(0));
        let filling = Filling { history, most: 10_000.0, length: day, fastest: 20.0 };
        let told = done_by(vec![Player { filling: Some(filling), ..player(7.0) }], 15_000, at(600)).unwrap();
        let hours = told.since(at(0)).as_secs_f64() / 3600.0;
        assert!(
            (51.5..53.5).contains(&hours),
            "a day of silence, ten thousand, and the rest a day after their beginning: {hours}"
        );
    }

    #[test]
    fn what_the_receiver_takes_and_when_the_lane_opens_count_too() {
        assert_eq!(done_by(vec![player(60.0)], 600, at(0)), Some(at(600)));
        let closed = Player { opens: at(5000), ..player(60.0) };
        assert_eq!(done_by(vec![closed.clone()], 600, at(0)), Some(at(5600)));
        assert_eq!(done_by(vec![closed, player(60.0)], 6000, at(0)), Some(at(5500)), "5,000 s alone, then both");
        let guarded = Player { growth: Some(Growth::default()), ..player(2.0) };
        assert_eq!(done_by(vec![guarded], 120, at(0)), Some(at(3600)), "slower than the guard");
    }

    #[test]
    fn what_cannot_be_told_is_not_told() {
        assert_eq!(done_by(vec![player(f64::INFINITY)], 5, at(0)), None);
        assert_eq!(done_by(Vec::new(), 5, at(0)), None);
        let never = Player { opens: Timestamp::NEVER, ..player(60.0) };
        assert_eq!(done_by(vec![never], 5, at(0)), None);
        assert_eq!(done_by(vec![player(1e-9)], 5, at(0)), None);
    }
}
