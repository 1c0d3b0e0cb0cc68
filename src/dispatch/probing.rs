//! Which delivery asks a receiver that has blocked us whether the way is free again.
//!
//! A message of our own to the `canary`, if there is one; else the bulk message nearest its expiry, since it may be lost.
//! Never an urgent one: if nothing else waits, the question waits too, until there is something or an operator says
//! `resume`.

use super::core::Core;
use super::destination::TargetId;
use super::message::Action;
use super::pump::{LOOK_AGAIN, Told};
use crate::queue::Place;
use crate::spool::Change;
use crate::throttle::{LaneName, Probe};
use crate::types::{
    BodyType, Delivery, DeliveryId, DeliveryState, Envelope, Mailbox, Notify, Origin, Priority, Recipient, ReversePath,
    Timestamp,
};

impl Core {
    /// The lane's time to ask has come: the delivery that is to be risked goes out, alone.
    pub(super) fn probe_lane(&mut self, lane: &LaneName, probe: Probe, now: Timestamp) {
        self.look_at_lane(lane, now + LOOK_AGAIN);
        let is_out = self.connections.values().any(|c| c.permit.lane() == lane && c.probes);
        if is_out || !self.may_begin() {
            return;
        }
        let chosen = match self.canary_of(lane) {
            Some(canary) => self.canary(lane, canary, now),
            None => self.expendable(lane, probe, now),
        };
        let Some((target, id)) = chosen else { return };
        // What keeps it from going now is looked at again with the lane, and then all its addresses are.
        if self.open(target, id, Told::default(), Some(lane), now).is_err() {
            self.forget_fresh_attempt(id);
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

    /// The bulk message in the lane's lines that would expire first.
    fn expendable(&self, lane: &LaneName, probe: Probe, now: Timestamp) -> Option<(TargetId, DeliveryId)> {
        let but = self.blocked_by.get(lane).filter(|_| probe == Probe::OtherSender);
        let may_go = |id: &DeliveryId| {
            self.queue.get(*id).is_some_and(|entry| {
                entry.place == Place::Ready
                    && but != Some(&entry.flow)
                    && self.gate.is_open(*id, entry.recipients.as_slice())
                    && !self.is_over(*id, now)
                    && !self.is_set_aside(entry.domain)
            })
        };
        let expiry = |id: &DeliveryId| self.retry.expires(id.message, self.queue.get(*id).and_then(|e| e.lifetime));
        self.places
            .targets
            .iter()
            .filter(|(_, place)| place.provider == lane.provider)
            .flat_map(|(target, place)| place.line.iter(Priority::Bulk).map(move |id| (target, id)))
            .filter(|(_, id)| may_go(id))
            .min_by_key(|(_, id)| (expiry(id), *id))
    }
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
