//! What comes of an answer: who is not written to any more, and by whom; or why nothing does.
//!
//! Rules that always hold: without a token whose signature is right nothing does; a report that names somebody else than the recipient of its
//! token does nothing to either; a reply of a program, and what is only delayed, does nothing. Pure.

use super::reading::{Action, Complaint, Kind, Reading, Status};
use super::token::Purpose;
use crate::types::{Domain, Mailbox};

/// A tenant's own domain: Exchange names mailboxes by it whatever address they have outside.
const TENANTS: &str = "onmicrosoft.com";

/// The token by which an answer is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    pub purpose: Purpose,
    /// The answer was sent to it; else it stands in what it returns.
    pub addressed: bool,
    /// For whom it was made.
    pub recipient: &'a Mailbox,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement<'a> {
    /// The message came back.
    Returned(&'a Status),
    Complained(&'a Complaint),
    Unsubscribed,
    /// An event and no more; why, for a person.
    Nothing(&'static str),
}

/// `known`: none where it carries no token that counts.
pub fn judge<'a>(reading: &'a Reading, known: Option<Known<'_>>) -> Judgement<'a> {
    use Judgement::Nothing;
    let Some(known) = known else { return Nothing(without_token(&reading.kind)) };
    let is_wish = known.addressed && known.purpose == Purpose::Unsubscribe;
    match &reading.kind {
        Kind::AutoReply => Nothing("a program replied in somebody's absence"),
        Kind::Other if is_wish => Judgement::Unsubscribed,
        Kind::Other => Nothing("it says nothing that is understood"),
        Kind::Complaint(complaint) if !complaint.is_unwanted() => Nothing("it does not say that the mail is unwanted"),
        Kind::Complaint(complaint) if is_stranger(&complaint.named, known.recipient) => Nothing(STRANGER),
        Kind::Complaint(complaint) => Judgement::Complained(complaint),
        Kind::Returned(_) if is_wish => Nothing("a report came to an address for unsubscribing"),
        Kind::Returned(statuses) => match pick(statuses, known.recipient) {
            None => Nothing(STRANGER),
            Some(status) => match status.action {
                Action::Failed => Judgement::Returned(status),
                Action::Delayed => Nothing("the message is delayed and still tried"),
                Action::Delivered | Action::Relayed | Action::Expanded => {
                    Nothing("the message was delivered or sent on")
                }
            },
        },
    }
}

const STRANGER: &str = "it names somebody else than the recipient of its token";

fn without_token(kind: &Kind) -> &'static str {
    match kind {
        Kind::Returned(_) => "a bounce without a token that counts",
        Kind::Complaint(_) => "a complaint without a token that counts",
        Kind::AutoReply => "a program replied in somebody's absence",
        Kind::Other => "it says nothing that is understood",
    }
}

/// The one of several that speaks of this recipient.
fn pick<'a>(statuses: &'a [Status], recipient: &Mailbox) -> Option<&'a Status> {
    let exactly = |status: &&Status| status.named.iter().any(|named| is_same(named, recipient));
    let near = |status: &&Status| !is_stranger(&status.named, recipient);
    statuses.iter().find(exactly).or_else(|| statuses.iter().find(near))
}

fn is_same(named: &str, recipient: &Mailbox) -> bool {
    Mailbox::parse(named).is_ok_and(|named| named.key() == recipient.key())
}

/// Is somebody named, and nobody who can be the recipient? Systems name people by addresses of their own: the same local part elsewhere, or
/// another address of the same domain.
fn is_stranger(named: &[String], recipient: &Mailbox) -> bool {
    let mut named = named.iter().filter_map(|named| Mailbox::parse(named).ok()).peekable();
    named.peek().is_some() && !named.any(|named| can_be(&named, recipient))
}

fn can_be(named: &Mailbox, recipient: &Mailbox) -> bool {
    let (ours, theirs) = (recipient.domain(), named.domain());
    let is_near = |one: &Domain, other: &Domain| one.is_within(other.as_str()) || other.is_within(one.as_str());
    named.local_part().eq_ignore_ascii_case(recipient.local_part())
        || is_near(ours, theirs)
        || theirs.is_within(TENANTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(kind: Kind) -> Reading {
        Reading { kind, message_id: None, from: None, original_id: None, addressed: Vec::new(), quoted: Vec::new() }
    }

    fn status(action: Action, named: &[&str]) -> Status {
        let named = named.iter().map(ToString::to_string).collect();
        Status { action, reply: "550 5.1.1 no".into(), named, hosts: Vec::new(), derived: Vec::new() }
    }

    fn complaint(what: &str, named: &[&str]) -> Kind {
        let named = named.iter().map(ToString::to_string).collect();
        Kind::Complaint(Complaint { what: what.into(), by: "x".into(), named, derived: Vec::new() })
    }

    #[test]
    fn only_a_token_for_this_recipient_and_a_plain_word_do_anything() {
        let anna = Mailbox::parse("anna@hotmail.com").unwrap();
        let known = |purpose, addressed| Some(Known { purpose, addressed, recipient: &anna });
        let (back, out) = (known(Purpose::Return, true), known(Purpose::Unsubscribe, true));
        let quoted = known(Purpose::Unsubscribe, false);
        let failed = |named: &[&str]| Kind::Returned(vec![status(Action::Failed, named)]);
        for (kind, known, expected) in [
            (failed(&["anna@hotmail.com"]), back, "returned"),
            (failed(&["ANNA@HOTMAIL.COM"]), quoted, "returned"),
            (failed(&[]), back, "returned"),
            (failed(&["a.smith@hotmail.com"]), back, "returned"),
            (failed(&["anna@mbx.local"]), back, "returned"),
            (failed(&["a.smith@tenant.onmicrosoft.com"]), back, "returned"),
            (failed(&["victim@other.example"]), back, "nothing"),
            (failed(&["anna@hotmail.com"]), None, "nothing"),
            (failed(&["anna@hotmail.com"]), out, "nothing"),
            (Kind::Returned(vec![status(Action::Delayed, &[])]), back, "nothing"),
            (Kind::Returned(vec![status(Action::Relayed, &[])]), back, "nothing"),
            (
                Kind::Returned(vec![
                    status(Action::Failed, &["b@y.example"]),
                    status(Action::Failed, &["anna@hotmail.com"]),
                ]),
                back,
                "returned",
            ),
            (Kind::Returned(Vec::new()), back, "nothing"),
            (complaint("abuse", &[]), back, "complained"),
            (complaint("fraud", &["anna@hotmail.com"]), quoted, "complained"),
            (complaint("abuse", &["victim@other.example"]), back, "nothing"),
            (complaint("not-spam", &[]), back, "nothing"),
            (complaint("auth-failure", &[]), back, "nothing"),
            (complaint("abuse", &[]), None, "nothing"),
            (Kind::Other, out, "unsubscribed"),
            (Kind::Other, quoted, "nothing"),
            (Kind::Other, back, "nothing"),
            (Kind::AutoReply, out, "nothing"),
            (Kind::AutoReply, back, "nothing"),
        ] {
            let reading = reading(kind);
            let found = match judge(&reading, known) {
                Judgement::Returned(_) => "returned",
                Judgement::Complained(_) => "complained",
                Judgement::Unsubscribed => "unsubscribed",
                Judgement::Nothing(_) => "nothing",
            };
            assert_eq!(found, expected, "{reading:?} {known:?}");
        }
    }
}
