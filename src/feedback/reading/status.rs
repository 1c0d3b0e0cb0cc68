//! Delivery status notifications (RFC 3464): what became of each recipient, in the words of whoever says so.
//!
//! Real ones bend the standard: addresses in angle brackets, a diagnostic without its type, a status in the diagnostic alone. What had to be
//! found out is marked as derived.

use super::mime::Fields;
use crate::types::{Enhanced, Reply, printable};

/// Recipients of one report that are looked at: ours have one.
const GROUPS_MAX: usize = 50;
/// Of a reply that is made of a report.
const REPLY_MAX: usize = 900;

/// What is said to have been done (section 2.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Failed,
    Delayed,
    Delivered,
    Relayed,
    Expanded,
}

impl Action {
    fn parse(text: &str) -> Option<Action> {
        let word = text.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty())?;
        Some(match word.to_ascii_lowercase().as_str() {
            "failed" | "failure" => Action::Failed,
            "delayed" => Action::Delayed,
            "delivered" => Action::Delivered,
            "relayed" => Action::Relayed,
            "expanded" => Action::Expanded,
            _ => return None,
        })
    }
}

/// What a report says of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub action: Action,
    /// As if the receiver had said it: `550 5.1.1 …`.
    pub reply: String,
    /// Whom it names: the final and the original recipient.
    pub named: Vec<String>,
    /// The host that reports, and the one that refused.
    pub hosts: Vec<String>,
    /// What is not said as such.
    pub derived: Vec<&'static str>,
}

/// All that a `message/delivery-status` says.
pub(super) fn read(text: &str) -> Vec<Status> {
    let (mut hosts, mut all) = (Vec::new(), Vec::new());
    let mut rest = text.as_bytes();
    while !rest.is_empty() && all.len() < GROUPS_MAX {
        let (fields, end) = Fields::read(rest);
        // A line that is no field is passed over.
        let line = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        rest = &rest[if end == 0 { line } else { end }..];
        if fields.is_empty() {
            continue;
        }
        hosts.extend(fields.get("reporting-mta").map(behind_type));
        if fields.has("final-recipient") || fields.has("original-recipient") || fields.has("action") {
            all.push(of_recipient(&fields, &hosts));
        }
    }
    all
}

fn of_recipient(fields: &Fields, hosts: &[String]) -> Status {
    let mut derived = Vec::new();
    let diagnostic = fields.get("diagnostic-code").map(behind_type).unwrap_or_default();
    let said = fields.get("status").and_then(enhanced);
    let heard = Reply::parse(&one_line(&diagnostic));
    if said.is_none() {
        derived.push("status");
    }
    let status = said.or(heard.as_ref().and_then(Reply::enhanced));
    let action = fields.get("action").and_then(Action::parse).unwrap_or_else(|| {
        derived.push("action");
        match status.map(|status| status.class) {
            Some(2) => Action::Delivered,
            Some(4) => Action::Delayed,
            _ => Action::Failed,
        }
    });
    let mut hosts = hosts.to_vec();
    hosts.extend(fields.get("remote-mta").map(behind_type));
    let named =
        ["final-recipient", "original-recipient"].iter().filter_map(|name| fields.get(name)).filter_map(address);
    Status { action, reply: reply(&diagnostic, status), named: named.collect(), hosts, derived }
}

/// The words of the receiver with their code, which is made of the status where they have none.
pub(super) fn reply(diagnostic: &str, status: Option<Enhanced>) -> String {
    let words = one_line(diagnostic);
    let text = match (Reply::parse(&words).filter(|reply| (400..600).contains(&reply.code())), status) {
        (Some(reply), Some(status)) if reply.enhanced().is_none() && status.class == (reply.code() / 100) as u8 => {
            format!("{} {status} {}", reply.code(), reply.text())
        }
        (Some(reply), _) => format!("{} {}", reply.code(), reply.text()),
        (None, Some(status)) => format!("{} {status} {words}", code_of(status)),
        (None, None) => format!("550 {words}"),
    };
    text.trim().chars().take(REPLY_MAX).collect()
}

/// The code that goes with a status where no code is told.
fn code_of(status: Enhanced) -> u16 {
    match (status.class, status.subject, status.detail) {
        (4, 2, 2) => 452,
        (4, ..) => 450,
        (5, 2, 2) => 552,
        (2, ..) => 250,
        _ => 550,
    }
}

/// `5.1.1 (bad destination mailbox)`
fn enhanced(text: &str) -> Option<Enhanced> {
    let word = text.split(|c: char| !(c.is_ascii_digit() || c == '.')).find(|word| word.contains('.'))?;
    Reply::new(550, word).enhanced().or_else(|| {
        let mut numbers = word.split('.').map(str::parse::<u16>);
        let class = u8::try_from(numbers.next()?.ok()?).ok().filter(|class| matches!(class, 2 | 4 | 5))?;
        Some(Enhanced::new(class, numbers.next()?.ok()?, numbers.next()?.ok()?))
    })
}

/// A typed value (section 2.1.2) without its type.
fn behind_type(value: &str) -> String {
    match value.split_once(';') {
        Some((kind, rest)) if !kind.trim().is_empty() && !kind.trim().contains(char::is_whitespace) => {
            rest.trim().to_string()
        }
        _ => value.trim().to_string(),
    }
}

/// An address, bare, in angle brackets or behind its type; none: it is none.
pub(super) fn address(value: &str) -> Option<String> {
    let value = behind_type(value);
    let inner = match value.split_once('<') {
        Some((_, rest)) => rest.split('>').next().unwrap_or_default(),
        None => value.split_whitespace().next().unwrap_or_default(),
    };
    let inner = inner.trim().trim_matches(['"', '\'', ',', '(', ')']).trim_start_matches("mailto:");
    (inner.contains('@') && inner.len() <= 320).then(|| inner.to_string())
}

/// Lines of one reply made one line, each code but the first left out: `550-5.1.1 no 550 5.1.1 such user`.
pub(super) fn one_line(text: &str) -> String {
    let line = printable::one_line(text).split_whitespace().collect::<Vec<_>>().join(" ");
    let Some(code) = line.get(..3).filter(|code| code.bytes().all(|octet| octet.is_ascii_digit())) else { return line };
    if !matches!(line.as_bytes().get(3), None | Some(b' ' | b'-')) {
        return line;
    }
    let rest = line.get(4..).unwrap_or_default();
    let status = rest.split(' ').next().filter(|word| enhanced(word).is_some() && word.starts_with(['2', '4', '5']));
    let mut rest = rest.to_string();
    for mark in ["-", " "] {
        let again = status.map_or_else(|| format!(" {code}{mark}"), |status| format!(" {code}{mark}{status}"));
        if status.is_some() || mark == "-" {
            rest = rest.replace(&again, "");
        }
    }
    format!("{code} {rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_recipient_is_read_however_it_is_written() {
        let of = |text: &str| read(text).pop().unwrap();
        let usual = of(
            "Reporting-MTA: dns; mx.example\n\nFinal-Recipient: rfc822; a@x.example\nAction: failed\nStatus: 5.1.1\n\
                        Remote-MTA: dns;mail.x.example\nDiagnostic-Code: smtp; 550 5.1.1 <a@x.example>: no such\n user\n",
        );
        assert_eq!((usual.action, usual.reply.as_str()), (Action::Failed, "550 5.1.1 <a@x.example>: no such user"));
        assert_eq!(
            (usual.hosts, usual.named),
            (vec!["mx.example".into(), "mail.x.example".into()], vec!["a@x.example".into()])
        );
        assert!(usual.derived.is_empty());
        let bent = of("Final-Recipient: <a@x.example>\nDiagnostic-Code: 550 5.2.2 full\n");
        assert_eq!((bent.action, bent.derived), (Action::Failed, vec!["status", "action"]));
        assert_eq!(bent.named, ["a@x.example"]);
        for (fields, reply) in [
            ("Status: 5.1.1\nDiagnostic-Code: smtp;550 no such user", "550 5.1.1 no such user"),
            ("Status: 5.1.1", "550 5.1.1"),
            ("Status: 5.2.2 (full)\nDiagnostic-Code: X-Unix; 75", "552 5.2.2 75"),
            ("Status: 4.4.7\nDiagnostic-Code: smtp; delivery time expired", "450 4.4.7 delivery time expired"),
            (
                "Status: 5.0.0\nDiagnostic-Code: smtp;550-5.1.1 no\n 550-5.1.1 such\n 550 5.1.1 user",
                "550 5.1.1 no such user",
            ),
            ("Diagnostic-Code: smtp;550-no\n 550 user", "550 no 550 user"),
        ] {
            assert_eq!(of(&format!("Action: failed\n{fields}\n")).reply, reply, "{fields}");
        }
    }

    #[test]
    fn each_recipient_has_a_group_and_there_is_an_end_to_them() {
        let group = |n: usize| format!("Final-Recipient: rfc822;u{n}@x.example\nAction: delayed\nStatus: 4.2.2\n\n");
        let two = read(&format!("Reporting-MTA: dns;mx\n\n{}{}", group(1), group(2)));
        assert_eq!(
            two.iter().map(|status| status.named[0].as_str()).collect::<Vec<_>>(),
            ["u1@x.example", "u2@x.example"]
        );
        assert_eq!(two[1].action, Action::Delayed);
        assert_eq!(read(&(0..500).map(group).collect::<String>()).len(), GROUPS_MAX);
        assert!(read("nothing of the kind\n\n\nat all").is_empty());
    }
}
