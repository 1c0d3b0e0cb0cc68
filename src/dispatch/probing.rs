//! Which delivery asks a receiver that has blocked us whether the way is free again.
//!
//! ```text
//! a canary is named         -> a message of our own to it
//! else bulk that may go     -> that nearest its expiry: it is lost if the block lasts
//! else ordinary mail        -> that nearest its expiry
//! else (all of it urgent)   -> none before the block's third wait is over; told in `status` and by an alert
//! ```
//!
//! Where the block may have been about the content of one sender, mail of another goes before all of the same sender's, which
//! is risked once the usual first wait is over: a relay with one sender must come out of such a block too. A message
//! whose hosts cannot be reached is no probe; the next one is taken.

use std::collections::BTreeSet;

use super::core::Core;
use super::destination::TargetId;
use super::message::Action;
use super::pump::{LOOK_AGAIN, NotNow, Told};
use crate::queue::Place;
use crate::spool::Change;
use crate::throttle::{LaneName, LaneStatus, Probe};
use crate::types::{
    Alert, BodyType, Delivery, DeliveryId, DeliveryState, Envelope, Mailbox, Notify, Origin, Priority, Recipient,
    ReversePath, Timestamp,
};

/// An urgent message is risked after so many first waits: the first three, each twice as long as the one before.
const URGENT_AFTER: u32 = 1 + 2 + 4;
/// Targets that cannot be reached and are passed over in one search.
const PASSED_OVER_MAX: usize = 8;

/// What there is to be risked.
enum Expendable {
    Found(TargetId, DeliveryId),
    /// All that could go is urgent.
    OnlyUrgent,
    Nothing,
}

impl Core {
    /// The lane's time to ask has come: the delivery that is to be risked goes out, alone.
    pub(super) fn probe_lane(&mut self, lane: &LaneName, probe: Probe, now: Timestamp) {
        self.waits.probed(lane, now);
        self.look_at_lane(lane, now + LOOK_AGAIN);
        let is_out = self.connections.values().any(|c| c.permit.lane() == lane && c.probes);
        if is_out || !self.may_begin() {
            return;
        }
        if let Some(canary) = self.canary_of(lane) {
            if let Some((target, id)) = self.canary(lane, canary, now) {
                self.risk(lane, target, id, now);
            }
            return;
        }
        let mut passed_over = BTreeSet::new();
        while passed_over.len() < PASSED_OVER_MAX {
            match self.expendable(lane, probe, &passed_over, now) {
                Expendable::Found(target, id) => {
                    self.something_to_risk(lane);
                    if self.risk(lane, target, id, now) {
                        return;
                    }
                    passed_over.insert(target);
                }
                Expendable::OnlyUrgent => return self.only_urgent(lane, now),
                Expendable::Nothing => return self.something_to_risk(lane),
            }
        }
    }

    /// Sends it from the lane; false: it cannot go there, another may.
    fn risk(&mut self, lane: &LaneName, target: TargetId, id: DeliveryId, now: Timestamp) -> bool {
        let was_tried = self.attempts.get(&id).is_some_and(|attempt| !attempt.said.is_empty());
        match self.open(target, id, Told::default(), Some(lane), now) {
            Ok(()) => true,
            Err(NotNow::Exhausted) if was_tried => {
                self.take(target, id);
                self.unreachable(target, id, now);
                false
            }
            // No host of it is reached from this lane; what other lanes can do is not decided here.
            Err(NotNow::Exhausted) => {
                self.attempts.remove(&id);
                false
            }
            // What keeps it from going now is looked at again with the lane, and then all its addresses are.
            Err(_) => {
                self.forget_fresh_attempt(id);
                true
            }
        }
    }

    /// When an urgent message may be risked.
    fn urgent_from(&self, lane: &LaneName) -> Option<Timestamp> {
        let first = self.throttle.profile(&lane.provider).probe_block;
        Some(self.throttle.closed_since(lane)? + first * URGENT_AFTER)
    }

    fn only_urgent(&mut self, lane: &LaneName, now: Timestamp) {
        let Some(from) = self.urgent_from(lane) else { return };
        if self.only_urgent.insert(lane.clone(), from) == Some(from) {
            return;
        }
        let provider = &lane.provider;
        let alert = Alert {
            key: only_urgent_key(lane),
            raised: true,
            text: format!(
                "{lane}: the block may be over, but only urgent mail waits, and none of it is risked to find out before {from}"
            ),
            remedy: format!(
                "`weir resume {provider}` sends one message now. With a mailbox of your own there as `canary` no user's mail is risked."
            ),
            provider: Some(provider.clone()),
        };
        self.raise(alert, now);
    }

    /// There is mail to ask with, or none at all, or no block any more.
    pub(super) fn something_to_risk(&mut self, lane: &LaneName) {
        if self.only_urgent.remove(lane).is_some() {
            self.over(&only_urgent_key(lane));
        }
    }

    /// Says of a blocked lane what keeps it from asking.
    pub(super) fn put_in_words(&self, lane: &mut LaneStatus, now: Timestamp) {
        if self.only_urgent.is_empty() {
            return;
        }
        let name = LaneName { provider: lane.provider.clone(), source: lane.source.clone() };
        if let Some(from) = self.only_urgent.get(&name).filter(|from| **from > now && lane.state == "probing") {
            let reply = lane.reason.take().unwrap_or_default();
            lane.until = Some(*from);
            lane.reason = Some(format!(
                "only urgent mail waits, and none of it is risked to ask before {from} (weir resume {} asks now): {reply}",
                lane.provider
            ));
        }
    }

    fn canary_of(&self, lane: &LaneName) -> Option<Mailbox> {
        let canary = self.throttle.profile(&lane.provider).canary.clone()?;
        Mailbox::parse(&canary).ok()
    }

    /// The test message to the lane's canary; it is written if there is none.
    fn canary(&mut self, lane: &LaneName, canary: Mailbox, now: Timestamp) -> Option<(TargetId, DeliveryId)> {
        let known = self
            .canaries
            .get(lane)
            .copied()
            .filter(|id| id.message.received() + LOOK_AGAIN > now || self.queue.get(*id).is_some());
        let Some(id) = known else {
            let id = self.send_canary(canary, now);
            self.canaries.insert(lane.clone(), id);
            return None;
        };
        let target = self.target_of(id).filter(|_| self.is_at(id, Place::Ready))?;
        self.places.targets.get(target).filter(|place| place.provider == lane.provider)?;
        Some((target, id))
    }

    fn send_canary(&mut self, canary: Mailbox, now: Timestamp) -> DeliveryId {
        let message = (self.ids)(now);
        let content = canary_message(&canary, &self.helo, message, now);
        let domain = canary.domain().clone();
        let envelope = Envelope {
            id: message,
            received: now,
            sender: ReversePath::Null,
            ret: None,
            envid: None,
            body_type: BodyType::SevenBit,
            smtputf8: false,
            size_bytes: content.len() as u64,
            message_id: Some(format!("<{message}@{}>", self.helo)),
            client: None,
            user: None,
            requests: Default::default(),
            expire: None,
            class: Priority::Normal,
            origin: Origin::Report,
        };
        let id = DeliveryId { message, part: 0 };
        let delivery = Delivery {
            id,
            domain,
            recipients: vec![Recipient { address: canary, orcpt: None, notify: Notify::NEVER }],
            state: DeliveryState::Waiting,
            attempts: 0,
            next_attempt: None,
            delay_reported: false,
            refusal: None,
            failed: Vec::new(),
            next_hop: None,
            own: None,
        };
        let changes = vec![
            Change::Note(super::report::accepted(&envelope, now)),
            Change::Report {
                envelope: envelope.into(),
                deliveries: vec![delivery],
                content: content.into_bytes().into(),
            },
        ];
        self.act(Action::Commit(changes));
        id
    }

    /// What can best be spared of the lane's lines, where its hosts can be reached.
    fn expendable(
        &self,
        lane: &LaneName,
        probe: Probe,
        passed_over: &BTreeSet<TargetId>,
        now: Timestamp,
    ) -> Expendable {
        let hit = self.blocked_by.get(lane).filter(|_| probe == Probe::OtherSender);
        let since = self.throttle.closed_since(lane).unwrap_or(now);
        let may_be_same = now >= since + self.throttle.profile(&lane.provider).probe_block;
        let urgent_too = self.urgent_from(lane).is_none_or(|from| now >= from);
        let may_go = |id: DeliveryId| {
            let entry = self.queue.get(id).filter(|entry| entry.place == Place::Ready)?;
            let is_same = hit == Some(&entry.flow);
            let goes = (may_be_same || !is_same)
                && self.gate.is_open(id, entry.recipients.as_slice())
                && !self.is_over(id, now)
                && !self.is_set_aside(entry.domain);
            goes.then(|| (is_same, self.retry.expires(id.message, entry.lifetime), id))
        };
        let of_lane = |(target, place): &(TargetId, &super::destination::Target)| {
            place.provider == lane.provider
                && !passed_over.contains(target)
                && place.down_until.is_none_or(|until| until <= now)
        };
        let of_class = |class: Priority| {
            let lines = self.places.targets.iter().filter(of_lane);
            let all = lines.flat_map(move |(target, place)| place.line.iter(class).map(move |id| (target, id)));
            all.filter_map(|(target, id)| Some((may_go(id)?, target)))
        };
        let spared = [Priority::Bulk, Priority::Normal].into_iter().filter_map(|class| of_class(class).min());
        // Of two classes the less urgent one, unless it is of the sender that met the block.
        let best = spared.min_by_key(|((is_same, ..), _)| *is_same);
        let best = best.or_else(|| if urgent_too { of_class(Priority::High).min() } else { None });
        match best {
            Some(((.., id), target)) => Expendable::Found(target, id),
            None if !urgent_too && of_class(Priority::High).next().is_some() => Expendable::OnlyUrgent,
            None => Expendable::Nothing,
        }
    }
}

fn only_urgent_key(lane: &LaneName) -> String {
    format!("only urgent {} {}", lane.provider, lane.source)
}

/// A real subject and over 2 KB of text: less is taken for a probe of a spammer.
fn canary_message(to: &Mailbox, host: &str, id: crate::types::QueueId, now: Timestamp) -> String {
    let mut text = format!(
        "From: Mail relay {host} <postmaster@{host}>\r\nTo: <{to}>\r\nSubject: Delivery check of the mail relay {host}\r\n\
         Date: {}\r\nMessage-ID: <{id}@{host}>\r\nAuto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n\
         This message was written by the mail relay {host}.\r\n\r\n\
         The receiver of this mailbox has refused mail from the relay's address. Nothing more has been sent to\r\n\
         it since, and the mail of users waits in the queue. This message asks whether the way is free again:\r\n\
         if it arrives, the waiting mail follows, slowly at first.\r\n\r\n",
        now.rfc5322()
    );
    for (number, line) in CANARY_TEXT.iter().enumerate() {
        text.push_str(&format!("{}. {line}\r\n\r\n", number + 1));
    }
    text
}

const CANARY_TEXT: [&str; 8] = [
    "You need not do anything. The mailbox that this message was sent to has been named by the\r\n   operator of the relay \
     for this purpose (key `canary` of the provider). Nobody else receives it.",
    "If many of these messages arrive, the receiver refuses the relay again and again. The command\r\n   `weir status` says \
     which address is concerned, what the receiver said, and when the next check is due.",
    "The command `weir report` followed by the name of the provider writes the text that the form\r\n   of the receiver asks \
     for: addresses, names, authentication, and the refusals word for word.",
    "Common reasons are mail to addresses that do not exist, complaints of recipients, passwords\r\n   that were guessed, and \
     a volume that grew faster than the receiver expected.",
    "Before asking for a delisting, find the cause and end it. A block that is lifted while the\r\n   cause lasts comes \
     back, and the second one usually lasts longer than the first.",
    "After a delisting it can take a day until every server of the receiver knows of it. The relay\r\n   does not hurry: it \
     sends one message, then two, then four, and stops at the first refusal.",
    "Mail that waits keeps its place in the queue and its time to live. What would expire before\r\n   the way is free is \
     told to its sender; an operator can also send it another way.",
    "A message that was refused for good is not sent again to the same recipient, neither by this\r\n   check nor later. \
     Only mail that was not offered yet, or was put off, is affected by it.",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::QueueId;

    #[test]
    fn the_test_message_has_over_two_kilobytes_and_lines_as_mail_wants_them() {
        let to = Mailbox::parse("canary@outlook.com").unwrap();
        let now = Timestamp::from_secs(1_795_293_220);
        let text = canary_message(&to, "relay.example.com", QueueId::from_key(7).unwrap(), now);
        assert!(text.len() > 2048 && text.is_ascii(), "{}", text.len());
        assert!(text.contains("Subject: Delivery check of the mail relay relay.example.com\r\n"));
        assert!(text.split("\r\n").all(|line| line.len() <= 120 && !line.contains('\n')));
    }
}
