//! Which alerts stand, and what of them is to be told when. Pure: the time comes in as an argument.
//!
//! Rules that always hold:
//! - what is raised is told at once (after `GATHER`, so that what comes together is told together), then once every
//!   `repeat` as long as it stays raised, and its end is told once if its beginning was;
//! - what comes and goes is told less and less often: after a return the next one waits twice as long, up to `repeat`;
//!   what is told last is always the truth;
//! - at most `HOUR_MAX` notices leave in any hour, over all alerts. What comes beyond waits, and goes out as one notice.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Standing;
use crate::types::{Alert, Timestamp};

/// How long the first of several alerts waits for the others: a block of our address hits several lanes within moments.
pub(super) const GATHER: Duration = Duration::from_secs(1);
/// Notices an hour over all alerts: one person reads them.
pub(super) const HOUR_MAX: usize = 12;
/// What has come back waits this long since it was last told; doubled with each return.
const RETURN_PAUSE: Duration = Duration::from_secs(900);
/// Alerts kept at once. Each is about a lane or a part of this host; beyond that there are more than anybody reads.
const KEYS_MAX: usize = 1000;

const HOUR: Duration = Duration::from_secs(3600);

/// One alert as a person is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub alert: Alert,
    /// When it began.
    pub since: Timestamp,
    /// It was told before and still lasts.
    pub is_repeat: bool,
    /// It is over, and its text says so in words of its own.
    pub is_all_clear: bool,
}

/// What an alert that comes in means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It begins, or is over.
    Change,
    Known,
    /// There is no place for one more.
    NoPlace,
}

#[derive(Debug)]
pub(super) struct Board {
    repeat: Duration,
    entries: BTreeMap<String, Entry>,
    /// When the notices of the last hour left, oldest first.
    told: VecDeque<Timestamp>,
}

#[derive(Debug)]
struct Entry {
    alert: Alert,
    since: Timestamp,
    /// It is over, and has words of its own for that.
    is_all_clear: bool,
    /// The last thing a person heard was that it is raised.
    is_told: bool,
    /// When a person last heard that it is raised.
    told_at: Option<Timestamp>,
    /// How long a return waits after `told_at`.
    return_pause: Duration,
    /// When a person is to hear of it.
    due: Option<Timestamp>,
}

impl Board {
    pub(super) fn new(repeat: Duration) -> Board {
        Board { repeat, entries: BTreeMap::new(), told: VecDeque::new() }
    }

    /// Takes another `repeat`; what stands is told again by the new one.
    pub(super) fn set_repeat(&mut self, repeat: Duration) {
        self.repeat = repeat;
        for entry in self.entries.values_mut().filter(|entry| entry.alert.raised && entry.is_told) {
            entry.due = entry.told_at.map(|at| at + repeat);
        }
    }

    /// Takes the state of an alert; saying the same again changes nothing but the words.
    pub(super) fn note(&mut self, alert: Alert, now: Timestamp) -> News {
        self.forget(now);
        if let Some(entry) = self.entries.get_mut(&alert.key) {
            return entry.note(alert, self.repeat, now);
        }
        if !alert.raised {
            return News::Known;
        }
        if self.entries.len() >= KEYS_MAX {
            return News::NoPlace;
        }
        self.entries.insert(alert.key.clone(), Entry::new(alert, now));
        News::Change
    }

    /// What is raised.
    pub(super) fn standing(&self) -> Vec<Standing> {
        let raised = self.entries.values().filter(|entry| entry.alert.raised);
        raised.map(|entry| Standing { alert: entry.alert.clone(), since: entry.since }).collect()
    }

    /// What a person is to be told now, as one notice.
    pub(super) fn take(&mut self, now: Timestamp) -> Vec<Told> {
        self.forget(now);
        if self.next().is_none_or(|next| next > now) {
            return Vec::new();
        }
        // What is about to be due goes along.
        let horizon = now + GATHER;
        let repeat = self.repeat;
        let due = self.entries.values_mut().filter(|entry| entry.due.is_some_and(|due| due <= horizon));
        let told: Vec<Told> = due.map(|entry| entry.tell(repeat, now)).collect();
        self.told.push_back(now);
        told
    }

    /// When `take` has something to tell; none: not before something is noted.
    pub(super) fn next(&self) -> Option<Timestamp> {
        let due = self.entries.values().filter_map(|entry| entry.due).min()?;
        let full = self.told.len() >= HOUR_MAX;
        match self.told.front() {
            Some(&oldest) if full => Some(due.max(oldest + HOUR)),
            _ => Some(due),
        }
    }

    /// A clock that was set back makes what lies ahead of it count from now on, so that nothing is silent for as long.
    fn set_right(&mut self, now: Timestamp) {
        self.told.iter_mut().for_each(|at| *at = (*at).min(now));
        let longest = now + self.repeat.max(RETURN_PAUSE);
        for entry in self.entries.values_mut() {
            entry.since = entry.since.min(now);
            entry.told_at = entry.told_at.map(|at| at.min(now));
            entry.due = entry.due.map(|due| due.min(longest));
        }
    }

    fn forget(&mut self, now: Timestamp) {
        self.set_right(now);
        while self.told.front().is_some_and(|&at| now.since(at) >= HOUR) {
            self.told.pop_front();
        }
        let repeat = self.repeat;
        self.entries.retain(|_, entry| {
            entry.alert.raised || entry.due.is_some() || entry.told_at.is_some_and(|at| now.since(at) < repeat)
        });
    }
}

impl Entry {
    fn new(alert: Alert, now: Timestamp) -> Entry {
        Entry {
            alert,
            since: now,
            is_all_clear: false,
            is_told: false,
            told_at: None,
            return_pause: RETURN_PAUSE,
            due: Some(now + GATHER),
        }
    }

    fn note(&mut self, alert: Alert, repeat: Duration, now: Timestamp) -> News {
        let was_raised = self.alert.raised;
        self.is_all_clear = alert.all_clear().is_some();
        if alert.raised {
            self.alert = alert;
        } else {
            // What is over is told where its beginning went, and in the same words if it has none of its own.
            self.alert.raised = false;
            if let Some(words) = alert.all_clear() {
                self.alert.text = words.to_string();
            }
        }
        match (was_raised, self.alert.raised) {
            (false, false) | (true, true) => return News::Known,
            (true, false) => self.due = self.is_told.then_some(now + GATHER),
            (false, true) => {
                self.since = now;
                self.due = match self.told_at {
                    // Its end was never told: for those who were told it has lasted.
                    Some(at) if self.is_told => Some(at + repeat),
                    Some(at) => Some((at + self.return_pause.min(repeat)).max(now + GATHER)),
                    None => Some(now + GATHER),
                };
            }
        }
        News::Change
    }

    fn tell(&mut self, repeat: Duration, now: Timestamp) -> Told {
        let is_repeat = self.is_told && self.alert.raised;
        if self.alert.raised {
            if !is_repeat && self.told_at.is_some() {
                self.return_pause = (self.return_pause * 2).min(repeat.max(RETURN_PAUSE));
            }
            self.told_at = Some(now);
        }
        self.is_told = self.alert.raised;
        self.due = self.alert.raised.then_some(now + repeat);
        let is_all_clear = self.is_all_clear && !self.alert.raised;
        Told { alert: self.alert.clone(), since: self.since, is_repeat, is_all_clear }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REPEAT: Duration = Duration::from_secs(4 * 3600);
    const START: Timestamp = Timestamp::from_secs(1_000_000);

    #[test]
    fn a_clock_that_is_set_back_silences_nothing_for_as_long() {
        let repeat = Duration::from_secs(4 * 3600);
        let ahead = START + Duration::from_secs(86_400 * 30);
        let mut board = Board::new(repeat);
        let alert = |key: &str| Alert {
            key: key.into(),
            raised: true,
            text: key.into(),
            remedy: String::new(),
            provider: None,
        };
        board.note(alert("a"), ahead);
        assert_eq!(board.take(ahead + GATHER).len(), 1);
        board.note(alert("b"), START);
        assert!(board.take(START + GATHER).iter().any(|told| told.alert.key == "b"));
        assert!(board.next().is_some_and(|next| next <= START + GATHER + repeat), "{:?}", board.next());
    }

    fn alert(key: &str, raised: bool) -> Alert {
        Alert { key: key.into(), raised, text: format!("{key} {raised}"), remedy: "look".into(), provider: None }
    }

    fn at(secs: u64) -> Timestamp {
        START + Duration::from_secs(secs)
    }

    /// Plays until `end` and returns what was told: second, key, raised.
    fn play(board: &mut Board, notes: &[(u64, &str, bool)], end: u64) -> Vec<(u64, String, bool)> {
        let mut told = Vec::new();
        let mut notes = notes.iter().peekable();
        for second in 0..=end {
            while let Some((_, key, raised)) = notes.next_if(|(when, ..)| *when == second) {
                board.note(alert(key, *raised), at(second));
            }
            for one in board.take(at(second)) {
                told.push((second, one.alert.key, one.alert.raised));
            }
        }
        told
    }

    fn said(second: u64, key: &str, raised: bool) -> (u64, String, bool) {
        (second, key.to_string(), raised)
    }

    #[test]
    fn what_is_raised_is_told_at_once_again_after_repeat_and_when_it_is_over() {
        let told = play(&mut Board::new(REPEAT), &[(0, "a", true), (20_000, "a", false)], 50_000);
        assert_eq!(told, [said(1, "a", true), said(14_401, "a", true), said(20_001, "a", false)]);
    }

    #[test]
    fn saying_the_same_again_tells_nothing() {
        let notes: Vec<(u64, &str, bool)> = (0..3000).map(|second| (second, "a", true)).collect();
        assert_eq!(play(&mut Board::new(REPEAT), &notes, 3000), [said(1, "a", true)]);
    }

    #[test]
    fn what_was_never_told_needs_no_end() {
        let mut board = Board::new(REPEAT);
        assert_eq!(board.note(alert("a", false), START), News::Known);
        board.note(alert("b", true), START);
        board.note(alert("b", false), START);
        assert!(board.take(at(10)).is_empty());
        assert_eq!(board.next(), None);
        assert!(board.entries.is_empty());
    }

    #[test]
    fn many_at_once_are_one_notice() {
        let mut board = Board::new(REPEAT);
        for n in 0..100 {
            board.note(alert(&format!("lane {n}"), true), START + Duration::from_millis(n * 10));
        }
        assert!(board.take(START).is_empty());
        assert_eq!(board.take(at(1)).len(), 100);
        assert_eq!(board.next(), Some(at(1) + REPEAT));
    }

    #[test]
    fn what_comes_and_goes_is_told_less_and_less_often() {
        let notes: Vec<(u64, &str, bool)> = (0..480).map(|minute| (minute * 60, "a", minute % 2 == 0)).collect();
        let told = play(&mut Board::new(REPEAT), &notes, 480 * 60);
        let raised: Vec<u64> = told.iter().filter(|one| one.2).map(|one| one.0).collect();
        assert_eq!(raised.len(), 6, "{raised:?}");
        assert!(raised.windows(3).all(|w| w[2] - w[1] >= w[1] - w[0]), "{raised:?}");
        assert!(!told.last().unwrap().2, "the last word is the truth: {told:?}");
    }

    #[test]
    fn after_a_quiet_time_it_is_told_at_once_again() {
        let notes = [(0, "a", true), (60, "a", false), (20_000, "a", true)];
        let told = play(&mut Board::new(REPEAT), &notes, 20_100);
        assert_eq!(told, [said(1, "a", true), said(61, "a", false), said(20_001, "a", true)]);
    }

    #[test]
    fn beyond_the_ceiling_of_an_hour_alerts_wait_and_go_together() {
        let keys: Vec<String> = (0..40).map(|n| format!("k{n:02}")).collect();
        let notes: Vec<(u64, &str, bool)> = keys.iter().zip(0..).map(|(key, n)| (n * 10, key.as_str(), true)).collect();
        let told = play(&mut Board::new(REPEAT), &notes, 3700);
        assert_eq!(told.len(), 40);
        assert_eq!(told[11].0, 111);
        assert!(told[12..].iter().all(|one| one.0 == 3601), "{told:?}");
    }

    #[test]
    fn a_flood_of_keys_has_an_end() {
        let mut board = Board::new(REPEAT);
        for n in 0..KEYS_MAX {
            assert_eq!(board.note(alert(&n.to_string(), true), START), News::Change);
        }
        assert_eq!(board.note(alert("one more", true), START), News::NoPlace);
    }

    #[test]
    fn another_repeat_holds_for_what_stands() {
        let mut board = Board::new(REPEAT);
        board.note(alert("a", true), START);
        board.take(at(1));
        board.set_repeat(Duration::from_secs(600));
        assert_eq!(board.next(), Some(at(601)));
    }

    proptest! {
        #[test]
        fn no_hour_has_too_many_notices_and_the_last_word_is_the_truth(
            notes in prop::collection::vec((0u64..20_000, 0usize..5, any::<bool>()), 0..200)
        ) {
            let mut notes = notes;
            notes.sort_by_key(|note| note.0);
            let mut board = Board::new(REPEAT);
            let (mut heard, mut raised, mut notices) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
            let mut tell = |board: &mut Board, now: Timestamp| {
                let told = board.take(now);
                if !told.is_empty() {
                    notices.push(now);
                }
                for one in told {
                    heard.insert(one.alert.key, one.alert.raised);
                }
            };
            for (second, key, is_raised) in notes {
                while let Some(next) = board.next().filter(|next| *next <= at(second)) {
                    tell(&mut board, next);
                }
                board.note(alert(&key.to_string(), is_raised), at(second));
                raised.insert(key.to_string(), is_raised);
            }
            while let Some(next) = board.next().filter(|next| *next <= at(60_000)) {
                tell(&mut board, next);
            }
            for window in notices.windows(HOUR_MAX + 1) {
                prop_assert!(window[HOUR_MAX].since(window[0]) >= HOUR);
            }
            for (key, is_raised) in raised {
                prop_assert_eq!(heard.get(&key).copied().unwrap_or(false), is_raised);
            }
        }
    }
}
