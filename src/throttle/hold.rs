//! Holds: mail that a lane keeps back for whose domain it is from or to, while all other mail goes on.
//!
//! A receiver may refuse one sender domain (5.7.515, S8002) or speak for one of its organisations alone (4.7.3 quota, an allow
//! list): to go on would burn that domain's mail message by message, to stop the lane would punish everybody else.
//! Rules that always hold:
//!
//! - a sender domain is held from its `effects.after`-th refusal on, if they were of different messages, within an hour, and
//!   nothing of that domain was delivered between them; a recipient domain likewise, mostly from the first;
//! - when a hold ends, one message goes ahead; until it is answered the others wait, and only a delivery sets them free;
//! - each repeat doubles the wait: a refusal of the message that went ahead, or one within the length of the last wait after its end;
//! - refusals that come in while the hold lasts, of messages that were on their way, change nothing;
//! - at most 10,000 domains of each kind are remembered.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bounded::Bounded;
use super::profile::Profile;
use super::{About, Held};
use crate::types::{Class, Domain, QueueId, Reading, Scope, Timestamp, printable};

/// A sender domain first waits so long.
const SENDER_WAIT: Duration = Duration::from_secs(3600);
const SENDER_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Refusals that are counted lie within this.
const COUNTED_WITHIN: Duration = Duration::from_secs(3600);
/// The message that goes ahead is waited for so long: past it an answer was lost. Longer than any dialogue.
const AHEAD_MAX: Duration = Duration::from_secs(3600);
/// Domains of each kind; some 300 octets each.
const DOMAINS_MAX: usize = 10_000;
/// Of a receiver's reply in a reason.
const REPLY_CHARS_MAX: usize = 300;

/// What one lane holds back. The empty one holds nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Holds {
    senders: Bounded<Domain, Hold, DOMAINS_MAX>,
    recipients: Bounded<Domain, Hold, DOMAINS_MAX>,
}

/// Whose mail is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// All mail from the domain.
    Sender,
    /// All mail to the domain.
    Recipient,
}

/// A hold that began, or was prolonged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldBegan {
    pub side: Side,
    pub domain: Domain,
    pub held: Held,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Hold {
    /// Refusals that do not hold yet, oldest first; as many as `effects.after` asks for, so at most 255.
    counted: Vec<(Option<QueueId>, Timestamp)>,
    /// The last hold; none: never held.
    last: Option<Last>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Last {
    until: Timestamp,
    wait: Duration,
    /// No message of the domain has been delivered since.
    closed: bool,
    /// When the message that goes ahead was begun.
    ahead: Option<Timestamp>,
    reason: Arc<str>,
    /// Nobody refused anything: we hold it ourselves.
    #[serde(default)]
    ours: bool,
}

impl Holds {
    /// Is mail of this sender domain, or to this recipient domain, held back?
    pub fn held(&self, sender: Option<&Domain>, recipient: &Domain, now: Timestamp) -> Option<Held> {
        let sender = sender.and_then(|domain| self.senders.get(domain)).and_then(|hold| hold.held(now));
        let recipient = self.recipients.get(recipient).and_then(|hold| hold.held(now));
        sender.into_iter().chain(recipient).max_by_key(|held| held.until)
    }

    /// A transaction of such mail begins: where a hold has ended, it goes ahead.
    pub fn started(&mut self, about: &About<'_>, now: Timestamp) {
        for hold in self.of(about, now) {
            hold.started(now);
        }
    }

    /// A message was accepted: its domains are free again.
    pub fn accepted(&mut self, about: &About<'_>, now: Timestamp) {
        for hold in self.of(about, now) {
            hold.delivered();
        }
    }

    /// The transaction ended without an answer: another message may go ahead.
    pub fn broken(&mut self, about: &About<'_>, now: Timestamp) {
        for hold in self.of(about, now) {
            hold.unanswered();
        }
    }

    /// Mail from this domain is held back because we say so, or let go again (`until` has passed): one message goes ahead then. What the receiver
    /// asked for itself stays: none.
    pub fn hold_sender(&mut self, domain: &Domain, until: Timestamp, why: &str, now: Timestamp) -> Option<HoldBegan> {
        let held = Held { until, reason: reason(Side::Sender, domain, why) };
        let hold = self.senders.entry(domain, now);
        let is_theirs = |last: &Last| last.closed && !last.ours && (until <= now || last.until >= until);
        if hold.last.as_ref().is_some_and(is_theirs) {
            return None;
        }
        let wait = until.since(now).min(SENDER_WAIT);
        hold.last = Some(Last { until, wait, closed: true, ahead: None, reason: held.reason.clone(), ours: true });
        Some(HoldBegan { side: Side::Sender, domain: domain.clone(), held })
    }

    /// Something was refused; what that holds back from now on.
    pub fn refused(
        &mut self,
        reading: &Reading,
        reply: &str,
        about: &About<'_>,
        profile: &Profile,
        now: Timestamp,
    ) -> Option<HoldBegan> {
        // Whatever was refused has been answered; if it was about something else, the next message goes ahead.
        self.broken(about, now);
        let (side, domain) = subject(reading, about)?;
        let (first, most) = waits(reading, side, profile);
        let domains = match side {
            Side::Sender => &mut self.senders,
            Side::Recipient => &mut self.recipients,
        };
        let hold = domains.entry(domain, now);
        if !hold.counts(about.message, reading.effects.after, now) {
            return None;
        }
        let held = hold.begin(first, most, reason(side, domain, reply), now)?;
        Some(HoldBegan { side, domain: domain.clone(), held })
    }

    /// Every domain that is held now, for `status`.
    pub fn iter(&self, now: Timestamp) -> impl Iterator<Item = (Side, &Domain, Held)> {
        let senders = self.senders.iter().map(|(domain, hold)| (Side::Sender, domain, hold));
        let recipients = self.recipients.iter().map(|(domain, hold)| (Side::Recipient, domain, hold));
        senders.chain(recipients).filter_map(move |(side, domain, hold)| Some((side, domain, hold.held(now)?)))
    }

    /// Sets every domain free, with all that was counted: an operator says so.
    pub fn release(&mut self) {
        *self = Holds::default();
    }

    /// An operator lets mail to the domain go again: one message goes ahead, and sets the others free.
    pub fn ask_first(&mut self, domain: &Domain, now: Timestamp) {
        let reason = format!("mail to {domain} was resumed by an operator: one message goes first").into();
        let last = Last { until: now, wait: Duration::ZERO, closed: true, ahead: None, reason, ours: false };
        *self.recipients.entry(domain, now) = Hold { counted: Vec::new(), last: Some(last) };
    }

    /// The clock was set by so much.
    pub(super) fn shift(&mut self, by_millis: i64) {
        for (used, hold) in self.senders.iter_mut().chain(self.recipients.iter_mut()) {
            *used = used.shifted(by_millis);
            hold.counted.iter_mut().for_each(|(_, at)| *at = at.shifted(by_millis));
            if let Some(last) = &mut hold.last {
                last.until = last.until.shifted(by_millis);
                last.ahead = last.ahead.map(|at| at.shifted(by_millis));
            }
        }
    }

    /// Forgets what has no meaning any more.
    pub fn sweep(&mut self, now: Timestamp) {
        self.senders.retain(|hold| hold.is_worth_keeping(now));
        self.recipients.retain(|hold| hold.is_worth_keeping(now));
    }

    pub fn is_empty(&self) -> bool {
        self.senders.is_empty() && self.recipients.is_empty()
    }

    /// What is known of the domains of `about`.
    fn of(&mut self, about: &About<'_>, now: Timestamp) -> impl Iterator<Item = &mut Hold> {
        let sender = about.sender_domain.and_then(|domain| self.senders.get_mut(domain, now));
        let recipient = about.recipient_domain.and_then(|domain| self.recipients.get_mut(domain, now));
        sender.into_iter().chain(recipient)
    }
}

impl Hold {
    fn held(&self, now: Timestamp) -> Option<Held> {
        let last = self.last.as_ref().filter(|last| last.closed)?;
        let ahead = last.ahead.map(|begun| begun + AHEAD_MAX);
        let until = ahead.unwrap_or(last.until).max(last.until);
        (now < until).then(|| Held { until, reason: last.reason.clone() })
    }

    fn started(&mut self, now: Timestamp) {
        if let Some(last) = self.last.as_mut().filter(|last| last.closed && now >= last.until) {
            last.ahead.get_or_insert(now);
        }
    }

    fn delivered(&mut self) {
        self.counted.clear();
        if let Some(last) = &mut self.last {
            (last.closed, last.ahead) = (false, None);
        }
    }

    fn unanswered(&mut self) {
        if let Some(last) = &mut self.last {
            last.ahead = None;
        }
    }

    /// Counts a refusal; is it the one that holds the domain?
    fn counts(&mut self, message: Option<QueueId>, after: u8, now: Timestamp) -> bool {
        if after <= 1 || self.last.as_ref().is_some_and(|last| last.closed) {
            return true;
        }
        self.counted.retain(|(_, at)| now.since(*at) < COUNTED_WITHIN && *at <= now);
        let is_known = message.is_some() && self.counted.iter().any(|(counted, _)| *counted == message);
        if !is_known {
            self.counted.push((message, now));
        }
        self.counted.len() >= usize::from(after)
    }

    fn begin(&mut self, first: Duration, most: Duration, reason: Arc<str>, now: Timestamp) -> Option<Held> {
        self.counted.clear();
        let wait = match &self.last {
            Some(last) if last.closed && now < last.until => return None,
            Some(last) if last.closed || now < last.until + last.wait => (last.wait * 2).clamp(first, most.max(first)),
            _ => first,
        };
        let until = now + wait;
        self.last = Some(Last { until, wait, closed: true, ahead: None, reason: reason.clone(), ours: false });
        Some(Held { until, reason })
    }

    fn is_worth_keeping(&self, now: Timestamp) -> bool {
        let is_counted = self.counted.iter().any(|(_, at)| now.since(*at) < COUNTED_WITHIN);
        let holds = |last: &Last| last.closed || now < last.until + last.wait;
        is_counted || self.last.as_ref().is_some_and(holds)
    }
}

/// Whose mail a reading speaks of, if it is a hold's business.
fn subject<'a>(reading: &Reading, about: &About<'a>) -> Option<(Side, &'a Domain)> {
    match reading.scope {
        Scope::SenderDomain => about.sender_domain.map(|domain| (Side::Sender, domain)),
        // The wrong host for a domain: the way is looked up again, the domain itself is not refused.
        Scope::RecipientDomain if reading.class == Class::Routing && reading.effects.wait.is_none() => None,
        Scope::RecipientDomain => about.recipient_domain.map(|domain| (Side::Recipient, domain)),
        _ => None,
    }
}

/// The first wait, and what it may grow to.
fn waits(reading: &Reading, side: Side, profile: &Profile) -> (Duration, Duration) {
    let part = match (side, reading.effects.wait) {
        (_, Some(hundredths)) => f64::from(hundredths) / 100.0,
        // A domain that sends too fast is slowed down as a lane is; one that is refused is left alone for long.
        (Side::Sender, None) if reading.class != Class::RateLimit => return (SENDER_WAIT, SENDER_WAIT_MAX),
        (_, None) => 1.0,
    };
    (profile.pause.mul_f64(part), profile.pause_max.mul_f64(part.min(1.0)))
}

fn reason(side: Side, domain: &Domain, reply: &str) -> Arc<str> {
    let preposition = match side {
        Side::Sender => "from",
        Side::Recipient => "to",
    };
    let reply: String =
        reply.chars().take(REPLY_CHARS_MAX).map(|c| if printable::steers(c) { ' ' } else { c }).collect();
    format!("mail {preposition} {domain} is held back: {}", reply.trim()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::throttle::Profiles;
    use crate::types::{Effects, Verdict};
    use proptest::prelude::*;

    const REPLY: &str = "550 5.7.515 Access denied";
    const HOUR: i64 = 3600;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(1_795_000_000 + secs)
    }

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn profile() -> Profile {
        Profiles::new(&[]).get("outlook")
    }

    fn reading(class: Class, scope: Scope, after: u8, wait: Option<u16>) -> Reading {
        Reading {
            verdict: Verdict::Bounce,
            class,
            scope,
            suppress: false,
            breaker: false,
            rule: "test".into(),
            tag: None,
            cause: "".into(),
            remedy: "".into(),
            effects: Effects { wait, after, ..Effects::default() },
        }
    }

    /// A lane's holds and the two domains mail goes between.
    struct Scene {
        holds: Holds,
        sender: Domain,
        recipient: Domain,
    }

    impl Scene {
        fn new() -> Scene {
            Scene { holds: Holds::default(), sender: domain("shop.example"), recipient: domain("corp.example") }
        }

        fn about(&self, message: i64) -> About<'_> {
            About {
                message: QueueId::from_key(message),
                sender_domain: Some(&self.sender),
                recipient_domain: Some(&self.recipient),
                carried: 0,
            }
        }

        /// Seconds of the hold that a refusal brings.
        fn refuse(&mut self, reading: &Reading, message: i64, now: i64) -> Option<i64> {
            let Scene { mut holds, sender, recipient } = std::mem::replace(self, Scene::new());
            let about = About {
                message: QueueId::from_key(message),
                sender_domain: Some(&sender),
                recipient_domain: Some(&recipient),
                carried: 0,
            };
            let began = holds.refused(reading, REPLY, &about, &profile(), at(now));
            *self = Scene { holds, sender, recipient };
            began.map(|began| began.held.until.secs() - at(now).secs())
        }

        fn start(&mut self, now: i64) {
            let mut holds = std::mem::take(&mut self.holds);
            holds.started(&self.about(1), at(now));
            self.holds = holds;
        }

        fn accept(&mut self, now: i64) {
            let mut holds = std::mem::take(&mut self.holds);
            holds.accepted(&self.about(1), at(now));
            self.holds = holds;
        }

        fn is_held(&self, now: i64) -> bool {
            self.holds.held(Some(&self.sender), &self.recipient, at(now)).is_some()
        }
    }

    #[test]
    fn a_sender_domain_is_held_at_the_third_of_three_and_nobody_else() {
        let mut scene = Scene::new();
        let dmarc = reading(Class::Authentication, Scope::SenderDomain, 3, None);
        assert_eq!(scene.refuse(&dmarc, 1, 0), None);
        assert_eq!(scene.refuse(&dmarc, 1, 10), None, "the same message");
        assert_eq!(scene.refuse(&dmarc, 2, 20), None);
        assert!(!scene.is_held(20));
        assert_eq!(scene.refuse(&dmarc, 3, 30), Some(HOUR));
        let elsewhere = domain("other.example");
        let held = scene.holds.held(Some(&scene.sender), &elsewhere, at(31)).unwrap();
        assert_eq!(&*held.reason, "mail from shop.example is held back: 550 5.7.515 Access denied");
        assert_eq!(scene.holds.held(Some(&elsewhere), &scene.recipient, at(31)), None);
        assert_eq!(scene.holds.held(None, &scene.recipient, at(31)), None);
        assert_eq!(
            scene.holds.iter(at(31)).map(|(side, domain, _)| (side, domain.as_str())).collect::<Vec<_>>(),
            [(Side::Sender, "shop.example")]
        );
    }

    #[test]
    fn refusals_that_lie_apart_or_around_a_delivery_do_not_add_up() {
        let mut scene = Scene::new();
        let dmarc = reading(Class::Authentication, Scope::SenderDomain, 3, None);
        for n in 0..10 {
            assert_eq!(scene.refuse(&dmarc, n + 1, n * 1900), None, "two within any hour");
        }
        scene.accept(17_101);
        assert_eq!(scene.refuse(&dmarc, 20, 17_102), None);
        assert_eq!(scene.refuse(&dmarc, 21, 17_103), None);
    }

    #[test]
    fn our_own_hold_begins_and_ends_as_we_say_and_touches_none_of_the_receivers() {
        let (shop, to) = (domain("shop.example"), domain("outlook.com"));
        let mut holds = Holds::default();
        let began = holds.hold_sender(&shop, at(100), "dkim is missing", at(0)).unwrap();
        assert_eq!(&*began.held.reason, "mail from shop.example is held back: dkim is missing");
        assert_eq!(holds.held(Some(&shop), &to, at(99)).map(|held| held.until), Some(at(100)));
        assert!(holds.held(Some(&domain("other.example")), &to, at(50)).is_none());
        holds.hold_sender(&shop, at(200), "dkim is missing", at(90)).unwrap();
        assert!(holds.held(Some(&shop), &to, at(150)).is_some(), "it goes on");
        // Let go: one message first, and its delivery sets the others free.
        holds.hold_sender(&shop, at(150), "", at(150)).unwrap();
        assert!(holds.held(Some(&shop), &to, at(150)).is_none());
        let about = About { sender_domain: Some(&shop), recipient_domain: Some(&to), ..About::default() };
        holds.started(&about, at(151));
        assert!(holds.held(Some(&shop), &to, at(152)).is_some(), "until it is answered the others wait");
        holds.accepted(&about, at(153));
        assert!(holds.held(Some(&shop), &to, at(153)).is_none());
        // What the receiver refused is not ours to end.
        let block = reading(Class::SenderBlock, Scope::SenderDomain, 1, None);
        assert!(holds.refused(&block, REPLY, &about, &profile(), at(200)).is_some());
        assert_eq!(holds.hold_sender(&shop, at(300), "", at(300)), None);
        assert!(holds.held(Some(&shop), &to, at(300)).is_some());
    }

    #[test]
    fn a_block_of_a_sender_domain_holds_at_the_first_hit_and_doubles_up_to_a_day() {
        let mut scene = Scene::new();
        let block = reading(Class::SenderBlock, Scope::SenderDomain, 0, None);
        let mut now = 0;
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            assert_eq!(scene.refuse(&block, 1, now), Some(hours * HOUR));
            assert!(scene.is_held(now + hours * HOUR - 1));
            now += hours * HOUR;
            assert!(!scene.is_held(now));
            scene.start(now);
        }
    }

    #[test]
    fn one_message_goes_ahead_and_a_delivery_frees_the_others() {
        let mut scene = Scene::new();
        let quota = reading(Class::RateLimit, Scope::RecipientDomain, 0, None);
        assert_eq!(scene.refuse(&quota, 1, 0), Some(600));
        scene.start(599);
        assert!(!scene.is_held(600), "what began before the end does not go ahead");
        scene.start(600);
        assert!(scene.is_held(601) && scene.is_held(700));
        scene.accept(700);
        assert!(!scene.is_held(700));
        scene.start(701);
        assert!(!scene.is_held(702));
    }

    #[test]
    fn a_message_that_went_ahead_and_was_lost_is_followed_by_another() {
        let mut scene = Scene::new();
        let quota = reading(Class::RateLimit, Scope::RecipientDomain, 0, None);
        scene.refuse(&quota, 1, 0);
        scene.start(600);
        assert!(scene.is_held(4199));
        assert!(!scene.is_held(4200), "no answer for an hour");
        scene.start(700);
        let mut holds = scene.holds.clone();
        holds.broken(&scene.about(1), at(800));
        scene.holds = holds;
        assert!(!scene.is_held(800));
        scene.start(801);
        let unknown = reading(Class::RecipientUnknown, Scope::Recipient, 0, None);
        assert_eq!(scene.refuse(&unknown, 2, 810), None);
        assert!(!scene.is_held(810), "an answer about something else");
    }

    #[test]
    fn a_repeat_soon_after_the_end_doubles_and_a_late_one_begins_anew() {
        let quota = reading(Class::RateLimit, Scope::RecipientDomain, 0, None);
        for (later, expected) in [(599, 1200), (601, 600)] {
            let mut scene = Scene::new();
            scene.refuse(&quota, 1, 0);
            scene.accept(600);
            assert_eq!(scene.refuse(&quota, 2, 600 + later), Some(expected));
        }
        let mut scene = Scene::new();
        let mut now = 0;
        let waits: Vec<i64> = (0..7)
            .map(|n| {
                let wait = scene.refuse(&quota, n + 1, now).unwrap();
                now += wait;
                wait / 60
            })
            .collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640]);
    }

    #[test]
    fn a_rule_may_ask_for_a_part_of_the_pause_or_for_many() {
        for (wait, first, most) in [(20, 120, 17_280), (150, 900, 86_400), (400, 2400, 86_400)] {
            let mut scene = Scene::new();
            let quota = reading(Class::RateLimit, Scope::RecipientDomain, 0, Some(wait));
            let mut now = 0;
            let mut waits = Vec::new();
            for n in 0..12 {
                waits.push(scene.refuse(&quota, n + 1, now).unwrap());
                now += waits[waits.len() - 1];
            }
            assert_eq!((waits[0], waits[11]), (first, most));
        }
    }

    #[test]
    fn refusals_of_what_was_on_its_way_change_nothing() {
        let mut scene = Scene::new();
        let quota = reading(Class::RateLimit, Scope::RecipientDomain, 0, None);
        assert_eq!(scene.refuse(&quota, 1, 0), Some(600));
        for n in 2..50 {
            assert_eq!(scene.refuse(&quota, n, n), None);
        }
        assert!(scene.is_held(599) && !scene.is_held(600));
    }

    #[test]
    fn what_is_about_the_way_the_message_or_the_lane_holds_no_domain() {
        let mut scene = Scene::new();
        for (class, scope) in [
            (Class::Routing, Scope::RecipientDomain),
            (Class::RateLimit, Scope::Source),
            (Class::Content, Scope::Message),
            (Class::RecipientUnknown, Scope::Recipient),
            (Class::Temporary, Scope::Server),
        ] {
            assert_eq!(scene.refuse(&reading(class, scope, 0, None), 1, 0), None, "{class} {scope}");
        }
        let greeting = reading(Class::SenderBlock, Scope::SenderDomain, 0, None);
        assert_eq!(scene.holds.refused(&greeting, REPLY, &About::default(), &profile(), at(0)), None);
        assert!(scene.holds.is_empty());
    }

    #[test]
    fn what_has_no_meaning_any_more_is_forgotten() {
        let mut scene = Scene::new();
        let dmarc = reading(Class::Authentication, Scope::SenderDomain, 3, None);
        let quota = reading(Class::RateLimit, Scope::RecipientDomain, 0, None);
        scene.refuse(&dmarc, 1, 0);
        scene.refuse(&quota, 1, 0);
        scene.accept(600);
        scene.holds.sweep(at(1199));
        assert!(!scene.holds.is_empty());
        scene.holds.sweep(at(1200));
        assert!(scene.holds.is_empty());
        scene.refuse(&quota, 1, 2000);
        scene.holds.sweep(at(900_000));
        assert!(!scene.holds.is_empty(), "nothing was delivered since");
        scene.holds.release();
        assert!(!scene.is_held(2001));
    }

    proptest! {
        #[test]
        fn whatever_happens_the_waits_have_an_end_and_the_state_is_read_as_it_was_written(
            steps in prop::collection::vec((0u8..4, 0i64..5000, 1i64..6, 0u8..4, prop::option::of(1u16..500)), 0..100),
        ) {
            let mut scene = Scene::new();
            let mut now = 0;
            for (step, wait, message, after, part) in steps {
                now += wait;
                match step {
                    0 => scene.start(now),
                    1 => scene.accept(now),
                    2 => {
                        scene.refuse(&reading(Class::SenderBlock, Scope::SenderDomain, after, None), message, now);
                    }
                    _ => {
                        scene.refuse(&reading(Class::RateLimit, Scope::RecipientDomain, after, part), message, now);
                    }
                }
                if let Some(held) = scene.holds.held(Some(&scene.sender), &scene.recipient, at(now)) {
                    prop_assert!(held.until > at(now));
                    prop_assert!(held.until.since(at(now)).as_secs() <= 24 * 3600);
                }
                if step == 1 {
                    prop_assert!(!scene.is_held(now));
                }
            }
            let text = serde_json::to_string(&scene.holds).unwrap();
            prop_assert_eq!(serde_json::from_str::<Holds>(&text).unwrap(), scene.holds);
        }
    }
}
