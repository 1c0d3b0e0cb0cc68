//! Reports to senders: when there is one, to whom it goes, and its way back into the queue.
//!
//! A report is a message of its own with an empty sender, in the same commit as its cause (RFC 5321 section 6.1, RFC 3461
//! section 6). Rules that always hold: none goes to `<>`, none is about a report, none goes where NOTIFY says no. What
//! can be returned to nobody goes to `[relay] postmaster` if that is set, once: a report to the postmaster makes no other.

use std::sync::Arc;

use super::bounce::{Diagnostic, Original, ReportKind, ReportRequest, ReportedRecipient, compose};
use super::core::Core;
use super::ending::for_sender;
use super::message::Excerpt;
use super::options::BounceMode;
use super::passed_on::PassedOn;
use crate::spool::Change;
use crate::types::{
    Delivery, DeliveryId, DeliveryState, Enhanced, Envelope, Event, EventKind, Failed, Notify, Origin, Recipient,
    Reply, ReversePath, Timestamp,
};

impl Core {
    /// One report for all recipients that failed in one attempt.
    pub(super) fn report_failure(
        &mut self,
        envelope: &Arc<Envelope>,
        failed: &[Failed],
        excerpt: Option<&Excerpt>,
        changes: &mut Vec<Change>,
        now: Timestamp,
    ) {
        // A report is sent with NOTIFY=NEVER: that speaks of its sender, and there is none. The postmaster wants to know.
        let is_report = envelope.origin == Origin::Report;
        let is_wanted = |f: &&Failed| is_report || ReportKind::Failure.is_wanted(&f.recipient.notify);
        let wanted: Vec<&Failed> = failed.iter().filter(is_wanted).collect();
        self.report(ReportKind::Failure, envelope, &wanted, excerpt, None, changes, now);
    }

    /// Delivered, to those who are told of it.
    pub(super) fn report_relayed(
        &mut self,
        envelope: &Arc<Envelope>,
        relayed: &[(Recipient, PassedOn)],
        excerpt: Option<&Excerpt>,
        changes: &mut Vec<Change>,
        now: Timestamp,
    ) {
        let told: Vec<Failed> =
            relayed.iter().map(|(recipient, why)| told(recipient, "2.0.0", None, why.cause())).collect();
        let makes_none = relayed.iter().any(|(_, why)| *why == PassedOn::WithoutReports);
        let kind = if makes_none { ReportKind::Relayed } else { ReportKind::PassedOn };
        self.report(kind, envelope, &told.iter().collect::<Vec<_>>(), excerpt, None, changes, now);
    }

    /// Tells those who asked with NOTIFY=DELAY, or named a time with BY and did not say that they want to hear nothing of delays; true if
    /// there was somebody to tell.
    pub(super) fn report_delay(
        &mut self,
        envelope: &Arc<Envelope>,
        delivery: &Delivery,
        excerpt: Option<&Excerpt>,
        changes: &mut Vec<Change>,
        now: Timestamp,
    ) -> bool {
        let last = delivery.refusal.as_ref();
        let is_late = envelope.requests.notifies_at(envelope.received).is_some();
        let is_wanted = |notify: &Notify| ReportKind::Delay.is_wanted(notify) || (is_late && !notify.given);
        let (status, cause) = match is_late {
            true => (
                "4.4.7",
                "The message was not delivered within the time that it was given (DELIVERBY with N), and is still being tried.",
            ),
            false => ("4.0.0", "The message waits and is still being tried. You need not send it again."),
        };
        let told: Vec<Failed> = delivery
            .recipients
            .iter()
            .filter(|recipient| is_wanted(&recipient.notify))
            .map(|recipient| told(recipient, status, last.and_then(for_sender), cause))
            .collect();
        let until = self.retry.expires(envelope.id, super::lifetime_of(envelope.expire));
        self.report(ReportKind::Delay, envelope, &told.iter().collect::<Vec<_>>(), excerpt, Some(until), changes, now);
        !told.is_empty()
    }

    #[expect(clippy::too_many_arguments, reason = "one report with all that it says")]
    fn report(
        &mut self,
        kind: ReportKind,
        envelope: &Arc<Envelope>,
        told: &[&Failed],
        excerpt: Option<&Excerpt>,
        until: Option<Timestamp>,
        changes: &mut Vec<Change>,
        now: Timestamp,
    ) {
        // Nobody wants to hear what became of a question of ours.
        let is_canary = self.canaries.values().any(|canary| canary.message == envelope.id);
        if told.is_empty() || is_canary || self.bounces.mode == BounceMode::None {
            return;
        }
        let Some(addressee) = self.addressee(kind, envelope, told) else { return };
        let replies: Vec<Option<Reply>> = told.iter().map(|f| f.reply.as_deref().and_then(Reply::parse)).collect();
        let recipients = told.iter().zip(&replies).map(|(failed, reply)| ReportedRecipient {
            recipient: &failed.recipient,
            status: Enhanced::at_start(failed.status.as_bytes()),
            diagnostic: match (reply, &failed.reply) {
                (Some(reply), _) => Some(Diagnostic::Reply(reply)),
                (None, Some(text)) => Some(Diagnostic::Local(text)),
                (None, None) => None,
            },
            mx: failed.mx.as_deref(),
            provider: None,
            cause: &failed.cause,
            remedy: &failed.remedy,
            does: &failed.does,
            last_attempt: Some(now),
            will_retry_until: until,
        });
        let original = match excerpt {
            Some(excerpt) if excerpt.complete => Original::Whole(&excerpt.bytes),
            Some(excerpt) => Original::Header(&excerpt.bytes),
            None => Original::Header(b""),
        };
        let id = (self.ids)(now);
        let request = ReportRequest {
            kind,
            envelope: &addressee,
            recipients: recipients.collect(),
            original,
            hostname: &self.helo,
            id,
            now,
        };
        let Some(report) = compose(&request) else { return };
        changes.push(Change::Note(accepted(&report.envelope, now)));
        let delivery = Delivery {
            id: DeliveryId { message: id, part: 0 },
            domain: report.recipient.address.domain().clone(),
            recipients: vec![report.recipient],
            state: DeliveryState::Waiting,
            attempts: 0,
            next_attempt: None,
            delay_reported: false,
            refusal: None,
            failed: Vec::new(),
            next_hop: None,
            own: None,
        };
        changes.push(Change::Report {
            envelope: Arc::new(report.envelope),
            deliveries: vec![delivery],
            content: report.content.into(),
        });
    }

    /// The envelope as the report answers it: the original's, or with the postmaster in the place of a sender that
    /// cannot be written to.
    fn addressee(&self, kind: ReportKind, envelope: &Arc<Envelope>, told: &[&Failed]) -> Option<Envelope> {
        if envelope.origin == Origin::Client && envelope.sender != ReversePath::Null {
            return Some(Envelope::clone(envelope));
        }
        let postmaster = self.postmaster.clone().filter(|_| kind == ReportKind::Failure)?;
        // What could not be brought to the postmaster is not reported to the postmaster.
        if told.iter().any(|failed| failed.recipient.address.key() == postmaster.key()) {
            return None;
        }
        let sender = ReversePath::Mailbox(postmaster);
        Some(Envelope { sender, origin: Origin::Client, ..Envelope::clone(envelope) })
    }
}

fn told(recipient: &Recipient, status: &str, reply: Option<String>, cause: &str) -> Failed {
    Failed {
        recipient: recipient.clone(),
        status: status.to_string(),
        reply,
        mx: None,
        cause: cause.to_string(),
        remedy: String::new(),
        does: String::new(),
    }
}

/// Every message has its line, also one of ours.
pub(super) fn accepted(envelope: &Envelope, now: Timestamp) -> Event {
    let mut event = Event::new(now, EventKind::Accepted);
    event.id = Some(envelope.id);
    event.sender = Some("".into());
    event.message_id = envelope.message_id.clone();
    event.recipients = Some(1);
    event.size_bytes = Some(envelope.size_bytes);
    event
}
