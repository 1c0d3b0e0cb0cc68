//! What one more refusal comes to: nothing, a count, or an entry.
//!
//! Rules that always hold:
//! - an address comes onto the list when the class's number of refusals is reached, each of another message and, beyond
//!   one, each on another day (UTC);
//! - the first time holds as long as the class says, every later time until it is removed; in a wave it holds seven
//!   days, whichever time it is;
//! - a provisional entry that ran out without a decision was one counted refusal, and no first time;
//! - an entry in force is only counted on: who put it there, and for how long, stands;
//! - counts are forgotten when no refusal came for a while.
//!
//! Pure: the time is the refusal's own.

use std::time::Duration;

use super::entry::{Entry, Hit, Source};
use super::options::Rule;
use crate::types::{Class, Timestamp};

/// How long a wave's entries hold without a decision.
pub const WAVE_KEEP: Duration = Duration::from_secs(7 * 86_400);
/// Counts without an entry are forgotten this long after the last refusal: a monthly letter's refusals still add up.
pub(super) const COUNT_KEEP: Duration = Duration::from_secs(60 * 86_400);
const DAY_SECS: i64 = 86_400;

/// Refusals so far that came to no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub hits: u32,
    pub first: Timestamp,
    pub last: Timestamp,
    /// The message that was refused last, as `QueueId::key`; 0: not known.
    pub message: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// The same message, or the same day.
    Nothing,
    Counted(Count),
    /// It is held back already: counted on its entry.
    Again(Entry),
    /// It comes onto the list; its counts have done their work.
    Listed(Entry),
}

/// Does this class speak of one sender's mail alone?
pub(super) fn is_of_sender(class: Class) -> bool {
    class == Class::RecipientPolicy
}

/// `entry`: the recipient's for the scope of this hit, expired or not. `count`: of the same scope and class.
pub(super) fn decide(entry: Option<Entry>, count: Option<Count>, hit: &Hit, rule: Rule) -> Decision {
    let in_force = entry.as_ref().is_some_and(|entry| entry.is_in_force(hit.at));
    if let Some(entry) = entry.clone().filter(|_| in_force) {
        let (last, hits) = (entry.last.max(hit.at), entry.hits.saturating_add(1));
        return Decision::Again(Entry { last, hits, ..entry });
    }
    let so_far = count
        .filter(|count| hit.at.since(count.last) < COUNT_KEEP)
        .or_else(|| entry.as_ref().and_then(|entry| left_by_wave(entry, hit)));
    if so_far.is_some_and(|count| !is_another(count, hit, rule)) {
        return Decision::Nothing;
    }
    let hits = so_far.map_or(0, |count| count.hits).saturating_add(1);
    let first = so_far.map_or(hit.at, |count| count.first.min(hit.at));
    if hits < rule.after {
        return Decision::Counted(Count { hits, first, last: hit.at, message: hit.message.key() });
    }
    Decision::Listed(listed(entry, first, hits, hit, rule))
}

/// What a wave's entry leaves when it runs out.
fn left_by_wave(entry: &Entry, hit: &Hit) -> Option<Count> {
    let counts = entry.is_provisional() && entry.class == hit.class && hit.at.since(entry.last) < COUNT_KEEP;
    counts.then_some(Count { hits: 1, first: entry.first, last: entry.last, message: 0 })
}

/// Another message and, where more than one is needed, another day. Refusals are judged in the order in which they come;
/// a clock that was set back makes no day of its own.
fn is_another(count: Count, hit: &Hit, rule: Rule) -> bool {
    let day = |moment: Timestamp| moment.secs().div_euclid(DAY_SECS);
    count.message != hit.message.key() && (rule.after <= 1 || day(hit.at) > day(count.last))
}

fn listed(old: Option<Entry>, first: Timestamp, hits: u32, hit: &Hit, rule: Rule) -> Entry {
    let terms = old.as_ref().map_or(0, |entry| entry.terms);
    let (source, terms_now, expires) = match hit.wave {
        Some(_) => (Source::Wave, terms, Some(hit.at + WAVE_KEEP)),
        None => (hit.source, terms.saturating_add(1), lasting(terms, hit.at, rule)),
    };
    // The one that a wave left is among the hits already.
    let before = old.as_ref().map_or(0, |entry| entry.hits.saturating_sub(u64::from(entry.is_provisional())));
    Entry {
        sender_domain: hit.sender_domain.clone().filter(|_| is_of_sender(hit.class)),
        first: old.as_ref().map_or(first, |entry| entry.first.min(first)),
        hits: before.saturating_add(u64::from(hits)),
        expires,
        terms: terms_now,
        tag: hit.tag.clone(),
        provider: Some(hit.provider.to_string()),
        rule: Some(hit.rule.to_string()),
        wave: hit.wave.as_ref().map(ToString::to_string),
        last: hit.at,
        ..Entry::new(&hit.mailbox, hit.class, &hit.reply, source, hit.at)
    }
}

/// When an entry ends that came onto the list `terms` times before.
pub(super) fn lasting(terms: u32, last: Timestamp, rule: Rule) -> Option<Timestamp> {
    (terms == 0).then(|| last + rule.keep)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::suppress::options::Policy;
    use crate::types::{Domain, Mailbox, QueueId};

    const START: Timestamp = Timestamp::from_secs(1_795_046_400);
    const DAY: Duration = Duration::from_secs(86_400);

    fn hit(class: Class, message: i64, at: Timestamp) -> Hit {
        Hit {
            mailbox: Mailbox::parse("User@x.example").unwrap(),
            class,
            reply: "552 5.2.2 full".into(),
            rule: "mailbox-full".into(),
            tag: Some("S1".into()),
            provider: "x".into(),
            source: Source::Bounce,
            sender_domain: Domain::parse("sender.example").ok(),
            message: QueueId::from_key(message).unwrap(),
            wave: None,
            at,
        }
    }

    fn in_wave(hit: Hit) -> Hit {
        Hit { wave: Some("w1".into()), ..hit }
    }

    fn rule(class: Class) -> Rule {
        Policy::default().rule(class).unwrap()
    }

    /// What stands after all hits, one after the other.
    fn after(hits: &[Hit]) -> (Option<Entry>, Option<Count>) {
        let (mut entry, mut count) = (None, None);
        for hit in hits {
            match decide(entry.clone(), count, hit, rule(hit.class)) {
                Decision::Nothing => {}
                Decision::Counted(now) => count = Some(now),
                Decision::Again(now) => entry = Some(now),
                Decision::Listed(now) => (entry, count) = (Some(now), None),
            }
        }
        (entry, count)
    }

    #[test]
    fn each_class_takes_its_number_of_days_and_holds_its_time() {
        for (class, days, keep) in [
            (Class::RecipientUnknown, 1, 90),
            (Class::RecipientDisabled, 1, 90),
            (Class::MailboxFull, 3, 14),
            (Class::RecipientPolicy, 3, 30),
            (Class::Other, 3, 30),
        ] {
            let hits: Vec<Hit> = (0..days).map(|n| hit(class, n + 1, START + DAY * n as u32)).collect();
            assert_eq!(after(&hits[1..]).0, None, "{class}");
            let entry = after(&hits).0.unwrap();
            let last = START + DAY * (days - 1) as u32;
            assert_eq!((entry.first, entry.last, entry.hits), (START, last, days as u64), "{class}");
            assert_eq!(entry.expires, Some(last + DAY * keep), "{class}");
            assert_eq!(entry.sender_domain.is_some(), class == Class::RecipientPolicy, "{class}");
            assert_eq!((entry.tag.as_deref(), entry.provider.as_deref()), (Some("S1"), Some("x")));
        }
        assert_eq!(Policy::default().rule(Class::RateLimit), None);
    }

    #[test]
    fn one_day_and_one_message_count_once() {
        let full = |message, hours: u32| hit(Class::MailboxFull, message, START + Duration::from_secs(3600) * hours);
        assert_eq!(after(&[full(1, 0), full(2, 1), full(3, 23)]).1.unwrap().hits, 1);
        assert_eq!(after(&[full(1, 0), full(1, 30), full(1, 60)]).1.unwrap().hits, 1);
        assert_eq!(after(&[full(1, 23), full(2, 24), full(3, 47)]).1.unwrap().hits, 2);
        assert!(after(&[full(1, 23), full(2, 24), full(3, 48)]).0.is_some());
    }

    #[test]
    fn a_count_is_forgotten_after_a_quiet_time() {
        let hits = |gap: Duration| {
            let at = |n: u32| START + DAY * (n - 1) + if n > 1 { gap } else { Duration::ZERO };
            after(&[1, 2].map(|n| hit(Class::Other, i64::from(n), at(n)))).1.unwrap().hits
        };
        assert_eq!((hits(COUNT_KEEP - DAY * 2), hits(COUNT_KEEP)), (2, 1));
    }

    #[test]
    fn the_second_time_holds_until_it_is_removed() {
        let unknown = |message, days: u32| hit(Class::RecipientUnknown, message, START + DAY * days);
        let again = after(&[unknown(1, 0), unknown(2, 89)]).0.unwrap();
        assert_eq!((again.hits, again.expires, again.terms), (2, Some(START + DAY * 90), 1));
        let second = after(&[unknown(1, 0), unknown(2, 90)]).0.unwrap();
        assert_eq!((second.hits, second.expires, second.terms, second.first), (2, None, 2, START));
        // A full mailbox must be full on three days once more.
        let full = |message: i64, days| hit(Class::MailboxFull, message, START + DAY * days);
        let days = [0, 1, 2, 30, 31];
        let hits: Vec<Hit> = (1..).zip(days).map(|(n, days)| full(n, days)).collect();
        let (entry, count) = after(&hits);
        assert_eq!((entry.unwrap().expires, count.unwrap().hits), (Some(START + DAY * 16), 2));
        let hits: Vec<Hit> = hits.into_iter().chain([full(9, 32)]).collect();
        assert_eq!(after(&hits).0.map(|entry| (entry.expires, entry.hits)), Some((None, 6)));
    }

    #[test]
    fn a_wave_holds_seven_days_and_leaves_one_counted_refusal() {
        let first = after(&[in_wave(hit(Class::RecipientUnknown, 1, START))]).0.unwrap();
        assert_eq!((first.expires, first.terms, first.source), (Some(START + WAVE_KEEP), 0, Source::Wave));
        assert_eq!(first.wave.as_deref(), Some("w1"));
        // Undecided, it was no first time: the next refusal is.
        let next = hit(Class::RecipientUnknown, 2, START + WAVE_KEEP);
        let Decision::Listed(next) = decide(Some(first.clone()), None, &next, rule(Class::RecipientUnknown)) else {
            panic!("not listed");
        };
        assert_eq!((next.expires, next.hits, next.terms), (Some(START + WAVE_KEEP + DAY * 90), 2, 1));
        // Where more than one is needed it counts as one.
        let full = Entry { class: Class::MailboxFull, ..first };
        let next = hit(Class::MailboxFull, 2, START + WAVE_KEEP);
        let decided = decide(Some(full), None, &next, rule(Class::MailboxFull));
        assert!(matches!(decided, Decision::Counted(Count { hits: 2, .. })), "{decided:?}");
    }

    #[test]
    fn an_entry_in_force_keeps_its_words_and_its_end() {
        let manual =
            Entry::new(&Mailbox::parse("user@x.example").unwrap(), Class::Other, "asked to", Source::Complaint, START);
        let decided =
            decide(Some(manual.clone()), None, &hit(Class::RecipientUnknown, 1, START + DAY), rule(Class::Other));
        assert_eq!(decided, Decision::Again(Entry { hits: 2, last: START + DAY, ..manual }));
    }

    proptest! {
        /// However refusals come, nobody is held back before the class's number of them, each of another message on
        /// another day, and nobody goes free who has it.
        #[test]
        fn it_takes_the_number_and_no_less(
            gaps in proptest::collection::vec(0u32..40, 1..12),
            messages in proptest::collection::vec(1i64..6, 12),
        ) {
            let (mut at, mut hits) = (START, Vec::new());
            for (gap, message) in gaps.iter().zip(&messages) {
                at = at + Duration::from_secs(3600) * *gap;
                hits.push(hit(Class::MailboxFull, *message, at));
            }
            // The same, told in another way: a new day and another message than the one counted last.
            let (mut counted, mut last) = (0, None);
            let mut expected = None;
            for (n, hit) in hits.iter().enumerate() {
                let day = hit.at.secs() / 86_400;
                if last.is_none_or(|(d, m)| day > d && m != hit.message) {
                    counted += 1;
                    last = Some((day, hit.message));
                }
                if counted == 3 {
                    expected = Some(n);
                    break;
                }
            }
            for n in 0..hits.len() {
                let listed = after(&hits[..=n]).0.is_some();
                prop_assert_eq!(listed, expected.is_some_and(|when| n >= when), "after {} of {:?}", n + 1, gaps);
            }
        }

        /// Whatever comes, no entry gets shorter while it is in force, and hits never shrink.
        #[test]
        fn more_refusals_never_shorten_an_entry(
            steps in proptest::collection::vec((0u32..60, any::<bool>()), 1..20),
        ) {
            let (mut entry, mut at): (Option<Entry>, Timestamp) = (None, START);
            for (n, (days, wave)) in (1..).zip(steps) {
                at = at + DAY * days;
                let one = hit(Class::RecipientUnknown, n, at);
                let one = if wave { in_wave(one) } else { one };
                let before = entry.clone();
                let (Decision::Again(now) | Decision::Listed(now)) = decide(entry, None, &one, rule(one.class)) else {
                    panic!("one is enough")
                };
                prop_assert!(now.is_in_force(at));
                if let Some(before) = before {
                    let end = |entry: &Entry| entry.expires.unwrap_or(Timestamp::NEVER);
                    prop_assert!(!before.is_in_force(at) || end(&now) >= end(&before));
                    prop_assert!(now.hits >= before.hits && now.terms >= before.terms && now.first == before.first);
                }
                entry = Some(now);
            }
        }
    }
}
