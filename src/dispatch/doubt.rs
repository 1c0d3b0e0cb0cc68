//! How much a refusal of a recipient says about the recipient.
//!
//! A receiver may mean us and not say so: "no" to everybody is a block, whatever its words. Rules that always hold:
//! - whoever is listed because nothing but a no was said (*concluded*) is listed for some days; as long as any other he is only when the
//!   receiver takes somebody else within the hour before or after;
//! - the same words to [`MANY`] different recipients, with nobody taken between, are about us: by them nobody is listed any more
//!   on a conclusion, and who was is taken off; whom they call unknown outright is listed for some days, those before as well;
//! - as soon as the receiver takes somebody, its words count anew, and who was doubted in the last hour is doubted no more;
//! - memory is bounded, whatever receivers say.
//!
//! Pure: it says what is to be done to the suppression list.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::queue::RecipientKey;
use crate::suppress::UNPROVEN;
use crate::types::{Mailbox, Timestamp};

/// Different recipients whom the same words refuse.
pub(super) const MANY: usize = 5;
/// For so long a recipient who was taken speaks for the receiver's word about another.
const NEAR: Duration = Duration::from_secs(3600);
/// Receivers that are remembered; those that were quiet for an hour go first.
const RECEIVERS_MAX: usize = 5000;
/// Different words of one receiver since it took somebody.
const WORDS_MAX: usize = 50;
/// Recipients of one receiver whose listing may still be changed.
const LISTED_MAX: usize = 500;

/// Who is under doubt, by receiver.
#[derive(Debug, Default)]
pub(super) struct Doubts(BTreeMap<Arc<str>, Receiver>);

#[derive(Debug, Default)]
struct Receiver {
    /// When it last took a recipient.
    took: Option<Timestamp>,
    /// When it last said anything of recipients.
    heard: Timestamp,
    /// Whom it refused since then, by its words.
    refused: BTreeMap<Arc<str>, BTreeSet<RecipientKey>>,
    /// Listed in the last hour, oldest first.
    listed: VecDeque<Listed>,
    /// The wave of unknown recipients that is on there: a person decides about all of it together.
    wave: Option<Arc<str>>,
}

/// Somebody who came onto the list.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub mailbox: Mailbox,
    /// What was said, without what names the recipient, the time and the server.
    pub words: Arc<str>,
    /// From silence: nothing but a no was said.
    pub concluded: bool,
    /// He stands there provisionally, under the receiver's own id.
    pub provisional: bool,
    pub at: Timestamp,
}

/// What a refusal says about the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The receiver took somebody within the hour, so it means this one.
    Proven,
    /// Nothing is known.
    Unproven,
    /// It says the same to everybody. `now`: since this refusal.
    Doubted { now: bool },
}

/// What is to be done to somebody on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relist {
    /// He stays as long as any other.
    Firmly,
    /// For some days only, under this wave.
    Provisionally(Arc<str>),
    Off,
}

impl Doubts {
    /// The receiver took a recipient: who stays on the list for good.
    pub(super) fn took(&mut self, receiver: &Arc<str>, now: Timestamp) -> Vec<(Mailbox, Relist)> {
        let known = self.receiver(receiver, now);
        known.took = Some(now);
        known.refused.clear();
        let near = std::mem::take(&mut known.listed).into_iter().filter(|listed| now.since(listed.at) < NEAR);
        near.filter(|listed| listed.provisional).map(|listed| (listed.mailbox, Relist::Firmly)).collect()
    }

    /// Counts a refusal of a recipient in a transaction in which nobody was taken; who is listed otherwise from now on.
    pub(super) fn refused(
        &mut self,
        receiver: &Arc<str>,
        words: &Arc<str>,
        key: RecipientKey,
        now: Timestamp,
    ) -> (Trust, Vec<(Mailbox, Relist)>) {
        let known = self.receiver(receiver, now);
        if known.refused.len() >= WORDS_MAX && !known.refused.contains_key(words) {
            known.refused.clear();
        }
        let same = known.refused.entry(words.clone()).or_default();
        let were_many = same.len() >= MANY;
        if !were_many {
            same.insert(key);
        }
        match (were_many, same.len() >= MANY) {
            (true, _) => (Trust::Doubted { now: false }, Vec::new()),
            (false, true) => {
                let (by_these, others): (Vec<Listed>, Vec<Listed>) =
                    std::mem::take(&mut known.listed).into_iter().partition(|listed| listed.words == *words);
                known.listed = others.into();
                (Trust::Doubted { now: true }, known.doubt(receiver, by_these))
            }
            (false, false) => (self.trust(receiver, now), Vec::new()),
        }
    }

    /// A wave is on, or none is any more: who was doubted belongs to it from now on.
    pub(super) fn in_wave(
        &mut self,
        receiver: &Arc<str>,
        wave: Option<&Arc<str>>,
        now: Timestamp,
    ) -> Vec<(Mailbox, Relist)> {
        let known = self.receiver(receiver, now);
        if known.wave.as_ref() == wave {
            return Vec::new();
        }
        known.wave = wave.cloned();
        let Some(wave) = wave else { return Vec::new() };
        let (doubted, others): (Vec<Listed>, Vec<Listed>) =
            std::mem::take(&mut known.listed).into_iter().partition(|listed| listed.provisional);
        known.listed = others.into();
        doubted.into_iter().map(|listed| (listed.mailbox, Relist::Provisionally(wave.clone()))).collect()
    }

    /// What a refusal says where others of the same transaction were taken, or nothing was counted.
    pub(super) fn trust(&self, receiver: &str, now: Timestamp) -> Trust {
        let took = self.0.get(receiver).and_then(|known| known.took);
        if took.is_some_and(|took| now.since(took) < NEAR) { Trust::Proven } else { Trust::Unproven }
    }

    /// Somebody has come onto the list; what has become known meanwhile.
    pub(super) fn listed(&mut self, receiver: &Arc<str>, listed: Listed, now: Timestamp) -> Vec<(Mailbox, Relist)> {
        let known = self.receiver(receiver, now);
        if known.took.is_some_and(|took| took >= listed.at) {
            return if listed.provisional { vec![(listed.mailbox, Relist::Firmly)] } else { Vec::new() };
        }
        if known.refused.get(&listed.words).is_some_and(|same| same.len() >= MANY) {
            return known.doubt(receiver, vec![listed]);
        }
        match known.wave.clone().filter(|_| listed.provisional) {
            Some(wave) => vec![(listed.mailbox, Relist::Provisionally(wave))],
            None => {
                known.remember(listed);
                Vec::new()
            }
        }
    }

    fn receiver(&mut self, name: &Arc<str>, now: Timestamp) -> &mut Receiver {
        if self.0.len() >= RECEIVERS_MAX && !self.0.contains_key(name) {
            self.0.retain(|_, known| now.since(known.heard) < NEAR);
            if self.0.len() >= RECEIVERS_MAX {
                self.0.clear();
            }
        }
        let known = self.0.entry(name.clone()).or_default();
        known.heard = now;
        while known.listed.front().is_some_and(|listed| now.since(listed.at) >= NEAR) {
            known.listed.pop_front();
        }
        known
    }
}

impl Receiver {
    fn doubt(&mut self, name: &str, listed: Vec<Listed>) -> Vec<(Mailbox, Relist)> {
        let wave = self.wave.clone().unwrap_or_else(|| unproven(name));
        let mut orders = Vec::new();
        for one in listed {
            if one.concluded {
                orders.push((one.mailbox, Relist::Off));
                continue;
            }
            if !one.provisional {
                orders.push((one.mailbox.clone(), Relist::Provisionally(wave.clone())));
            }
            if self.wave.is_none() {
                self.remember(Listed { provisional: true, ..one });
            }
        }
        orders
    }

    fn remember(&mut self, listed: Listed) {
        if self.listed.len() >= LISTED_MAX {
            self.listed.pop_front();
        }
        self.listed.push_back(listed);
    }
}

/// Under which those of a receiver are listed of whom it is not known whether it means them.
pub(super) fn unproven(receiver: &str) -> Arc<str> {
    format!("{receiver}{UNPROVEN}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_795_302_900 + secs)
    }

    fn mailbox(n: usize) -> Mailbox {
        Mailbox::parse(&format!("u{n}@x.test")).unwrap()
    }

    fn listed(n: usize, words: &str, concluded: bool, provisional: bool, secs: i64) -> Listed {
        Listed { mailbox: mailbox(n), words: words.into(), concluded, provisional, at: at(secs) }
    }

    fn provisionally(wave: &str) -> Relist {
        Relist::Provisionally(wave.into())
    }

    struct Scene(Doubts, Arc<str>);

    impl Scene {
        fn new() -> Scene {
            Scene(Doubts::default(), "x".into())
        }

        fn refused(&mut self, words: &str, n: usize, secs: i64) -> (Trust, Vec<(Mailbox, Relist)>) {
            self.0.refused(&self.1, &words.into(), n as RecipientKey, at(secs))
        }

        fn listed(&mut self, listed: Listed, secs: i64) -> Vec<(Mailbox, Relist)> {
            self.0.listed(&self.1, listed, at(secs))
        }

        fn took(&mut self, secs: i64) -> Vec<(Mailbox, Relist)> {
            self.0.took(&self.1, at(secs))
        }
    }

    #[test]
    fn a_conclusion_is_proven_by_whom_the_receiver_takes_within_the_hour() {
        let mut scene = Scene::new();
        assert_eq!(scene.refused("no", 1, 0), (Trust::Unproven, vec![]));
        assert_eq!(scene.listed(listed(1, "no", true, true, 0), 1), []);
        assert_eq!(scene.took(3599), [(mailbox(1), Relist::Firmly)]);
        assert_eq!(scene.took(3600), [], "once");
        assert_eq!(scene.refused("no", 2, 3600 + 3500).0, Trust::Proven);
        assert_eq!(scene.refused("no", 3, 3600 + 3600).0, Trust::Unproven);
        assert_eq!(scene.listed(listed(3, "no", true, true, 7200), 7201), []);
        assert_eq!(scene.took(7200 + 3600), [], "too late: it runs out by itself");
    }

    #[test]
    fn the_same_words_to_many_are_about_us_and_undo_what_they_did() {
        let mut scene = Scene::new();
        for n in 0..MANY - 1 {
            assert_eq!(scene.refused("no", n, n as i64).0, Trust::Unproven);
            assert_eq!(scene.listed(listed(n, "no", true, true, n as i64), n as i64), []);
        }
        // Other words, and the same recipient again, are no step towards it.
        assert_eq!(scene.refused("never", 70, 8).0, Trust::Unproven);
        assert_eq!(scene.refused("no", 0, 9).0, Trust::Unproven);
        let (trust, orders) = scene.refused("no", 71, 10);
        assert_eq!(trust, Trust::Doubted { now: true });
        assert_eq!(orders, (0..MANY - 1).map(|n| (mailbox(n), Relist::Off)).collect::<Vec<_>>());
        assert_eq!(scene.refused("no", 72, 11), (Trust::Doubted { now: false }, vec![]));
        // One whose entry was still being written.
        assert_eq!(scene.listed(listed(73, "no", true, true, 9), 12), [(mailbox(73), Relist::Off)]);
        // It was not about us: the words count anew.
        assert_eq!(scene.took(13), []);
        assert_eq!(scene.refused("no", 74, 14).0, Trust::Proven);
    }

    #[test]
    fn whom_a_receiver_calls_unknown_is_doubted_and_not_forgotten() {
        let mut scene = Scene::new();
        for n in 0..MANY - 1 {
            scene.refused("unknown", n, n as i64);
            scene.listed(listed(n, "unknown", false, false, n as i64), n as i64);
        }
        let (_, orders) = scene.refused("unknown", 9, 10);
        assert_eq!(orders, (0..MANY - 1).map(|n| (mailbox(n), provisionally("x-unproven"))).collect::<Vec<_>>());
        assert_eq!(scene.listed(listed(9, "unknown", false, true, 10), 11), []);
        // As soon as one is taken, the others were what it said they were.
        assert_eq!(scene.took(20).len(), MANY);
    }

    #[test]
    fn a_wave_takes_over_who_was_doubted_so_that_one_decision_is_enough() {
        let mut scene = Scene::new();
        scene.refused("unknown", 1, 0);
        scene.listed(listed(1, "unknown", false, true, 0), 0);
        scene.listed(listed(2, "unknown", false, false, 0), 0);
        let wave: Arc<str> = "x-20261121-2315".into();
        let name = scene.1.clone();
        assert_eq!(scene.0.in_wave(&name, Some(&wave), at(1)), [(mailbox(1), provisionally(&wave))]);
        assert_eq!(scene.0.in_wave(&name, Some(&wave), at(2)), []);
        assert_eq!(scene.listed(listed(3, "unknown", false, true, 0), 3), [(mailbox(3), provisionally(&wave))]);
        assert_eq!(scene.took(4), [], "what is in a wave is a person's to decide");
        assert_eq!(scene.0.in_wave(&name, None, at(5)), []);
        scene.listed(listed(4, "unknown", false, true, 6), 6);
        assert_eq!(scene.took(7), [(mailbox(4), Relist::Firmly)]);
    }

    #[test]
    fn one_who_is_taken_between_is_enough() {
        let mut scene = Scene::new();
        for n in 0..50 {
            assert!(!matches!(scene.refused("no", n, n as i64).0, Trust::Doubted { .. }));
            if n % (MANY - 1) == 0 {
                scene.took(n as i64);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn memory_is_bounded(steps in proptest::collection::vec((0usize..9000, 0usize..200, 0usize..4000), 0..3000)) {
            let mut doubts = Doubts::default();
            for (receiver, words, n) in steps {
                let (receiver, words): (Arc<str>, String) = (format!("r{receiver}").into(), format!("w{words}"));
                doubts.refused(&receiver, &words.as_str().into(), n as RecipientKey, at(n as i64));
                doubts.listed(&receiver, listed(n, &words, n % 2 == 0, n % 3 == 0, n as i64), at(n as i64));
            }
            proptest::prop_assert!(doubts.0.len() <= RECEIVERS_MAX);
            for known in doubts.0.values() {
                proptest::prop_assert!(known.refused.len() <= WORDS_MAX && known.listed.len() <= LISTED_MAX);
                proptest::prop_assert!(known.refused.values().all(|same| same.len() <= MANY));
            }
        }
    }
}
