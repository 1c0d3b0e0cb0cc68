//! Which fields of a header are signed (RFC 6376 section 5.4).
//!
//! Rules that always hold:
//! - of a field that is signed every one there is is signed, from the bottom up (section 5.4.2);
//! - fields that make a message what its reader sees are signed once more than they are there: nobody can add a second one (section 8.15);
//! - fields that hosts on the way add or change, `Received` and `Return-Path` above all, are never signed.

use super::header::Field;

/// Entries of `h=` at most: a message of which there would be more is no message.
const ENTRIES_MAX: usize = 200;

/// How a field is signed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Once more than it is there, also where it is not there at all.
    Closed,
    /// Once more than it is there, where it is there.
    ClosedIfThere,
    /// As often as it is there: whoever sends the message on may add one.
    AsThere,
}
use Manner::{AsThere, Closed, ClosedIfThere};

/// In the order of `h=`. Section 5.4.1 lists most of them, RFC 8058 section 4 and receivers the rest. Lists add their own fields to mail
/// that had none, and people who resend add theirs: these are closed only where there is one already.
const SIGNED: [(&str, Manner); 29] = [
    ("From", Closed),
    ("Reply-To", Closed),
    ("To", Closed),
    ("Cc", Closed),
    ("Subject", Closed),
    ("Date", Closed),
    ("Message-ID", Closed),
    ("In-Reply-To", Closed),
    ("References", Closed),
    ("Sender", ClosedIfThere),
    ("MIME-Version", ClosedIfThere),
    ("Content-Type", ClosedIfThere),
    ("Content-Transfer-Encoding", ClosedIfThere),
    ("Content-Disposition", ClosedIfThere),
    ("Content-ID", ClosedIfThere),
    ("List-Id", ClosedIfThere),
    ("List-Help", ClosedIfThere),
    ("List-Unsubscribe", ClosedIfThere),
    ("List-Unsubscribe-Post", ClosedIfThere),
    ("List-Subscribe", ClosedIfThere),
    ("List-Post", ClosedIfThere),
    ("List-Owner", ClosedIfThere),
    ("List-Archive", ClosedIfThere),
    ("Feedback-ID", AsThere),
    ("Resent-Date", AsThere),
    ("Resent-From", AsThere),
    ("Resent-To", AsThere),
    ("Resent-Cc", AsThere),
    ("Auto-Submitted", AsThere),
];

/// Is a field of this name, in any letter case, ever signed?
pub(super) fn is_signed(name: &[u8]) -> bool {
    SIGNED.iter().any(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name))
}

/// What is signed of one header.
pub(super) struct Selection<'a> {
    /// The entries of `h=`.
    pub(super) names: Vec<&'static str>,
    /// The fields in the same order; those that are not there are left out.
    pub(super) fields: Vec<&'a Field>,
}

/// None: there are more than can be signed. `later`: fields that each copy of the message gets for itself, where the message has none of
/// their names; they are signed behind all others, and closed.
pub(super) fn select<'a>(fields: &'a [Field], later: &[&'static str]) -> Option<Selection<'a>> {
    let mut selection = Selection { names: Vec::new(), fields: Vec::new() };
    for (name, manner) in SIGNED {
        let before = selection.fields.len();
        selection.fields.extend(fields.iter().rev().filter(|field| field.is(name)));
        let count = selection.fields.len() - before;
        let once_more = match manner {
            Closed => true,
            ClosedIfThere => count > 0,
            AsThere => false,
        };
        selection.names.extend(std::iter::repeat_n(name, count + usize::from(once_more)));
        if selection.names.len() > ENTRIES_MAX {
            return None;
        }
    }
    selection.names.extend(later.iter().flat_map(|name| [*name, *name]));
    Some(selection).filter(|selection| selection.names.len() <= ENTRIES_MAX)
}

#[cfg(test)]
mod tests {
    use super::super::header::Scan;
    use super::*;

    fn names(header: &str) -> Option<String> {
        let mut scan = Scan::default();
        scan.take(header.as_bytes());
        select(scan.fields(), &[]).map(|selection| selection.names.join(":"))
    }

    #[test]
    fn what_a_reader_sees_is_closed_against_a_second_one() {
        let all = "From:From:Reply-To:To:To:Cc:Subject:Subject:Date:Message-ID:In-Reply-To:References";
        let header = "received: x\r\nFROM: a\r\nto : b\r\nSubject: s\r\nReturn-Path: <>\r\nX-Mine: 1\r\n\r\n";
        assert_eq!(names(header).unwrap(), all);
        let list = "From: a\r\nList-Unsubscribe: <x>\r\nList-Unsubscribe-Post: y\r\nResent-To: z\r\n\r\n";
        let found = names(list).unwrap();
        assert!(
            found.ends_with("List-Unsubscribe:List-Unsubscribe:List-Unsubscribe-Post:List-Unsubscribe-Post:Resent-To")
        );
    }

    #[test]
    fn every_one_of_a_name_is_signed_from_the_bottom_up() {
        let mut scan = Scan::default();
        scan.take(b"To: first\r\nFrom: a\r\nTo: second\r\n\r\n");
        let selection = select(scan.fields(), &[]).unwrap();
        let fields: Vec<_> = selection.fields.iter().map(|field| String::from_utf8_lossy(field.relaxed())).collect();
        assert_eq!(fields, ["from:a\r\n", "to:second\r\n", "to:first\r\n"]);
        assert_eq!(names(&format!("{}\r\n", "To: x\r\n".repeat(300))), None);
    }
}
