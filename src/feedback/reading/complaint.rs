//! Complaints: RFC 5965 reports, and those of Outlook.com's JMRP in all the forms it had.
//!
//! JMRP before June 2026 sent `multipart/mixed` with the message, whose first field is `X-HmXmrOriginalRecipient`. Since then it sends a feedback
//! report with no more than its type, its agent and its version, and the original header; the recipient is left out.

use super::mime::{Fields, Part};
use super::status::address;

/// The field in which JMRP names the recipient.
const JMRP_RECIPIENT: &str = "x-hmxmroriginalrecipient";
const WORD_MAX: usize = 60;

/// Somebody there says that our mail is unwanted, or something else about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// `abuse`, `fraud`, `not-spam` and the like (RFC 5965 section 7.3).
    pub what: String,
    /// The program that reports.
    pub by: String,
    /// Whom it names, if it does.
    pub named: Vec<String>,
    pub derived: Vec<&'static str>,
}

impl Complaint {
    /// Does the recipient not want our mail? `not-spam`, `auth-failure`, `virus` and what nobody knows say something else.
    pub fn is_unwanted(&self) -> bool {
        matches!(&*self.what, "abuse" | "fraud" | "opt-out")
    }
}

/// None: it is no complaint.
pub(super) fn read(parts: &[Part<'_>]) -> Option<Complaint> {
    let own = parts.first()?;
    if let Some(report) = parts.iter().find(|part| part.nested == 0 && part.kind.name == "message/feedback-report") {
        return Some(of_report(&report.text(), parts));
    }
    if own.kind.name == "multipart/report"
        && own.kind.parameter("report-type").is_some_and(|kind| kind == "feedback-report")
    {
        // Its second part calls itself plain text.
        let text = parts.iter().filter(|part| part.nested == 0).map(Part::text).find(|text| is_report(text))?;
        return Some(of_report(&text, parts));
    }
    let named: Vec<String> =
        parts.iter().flat_map(|part| part.fields.all(JMRP_RECIPIENT)).filter_map(address).collect();
    let is_jmrp = parts.iter().any(|part| part.fields.has(JMRP_RECIPIENT));
    is_jmrp.then(|| Complaint { what: "abuse".into(), by: "JMRP".into(), named, derived: vec!["type"] })
}

fn is_report(text: &str) -> bool {
    Fields::read(text.trim_start().as_bytes()).0.has("feedback-type")
}

fn of_report(text: &str, parts: &[Part<'_>]) -> Complaint {
    let (fields, _) = Fields::read(text.trim_start().as_bytes());
    let mut derived = Vec::new();
    let what = fields.get("feedback-type").map(word).filter(|what| !what.is_empty()).unwrap_or_else(|| {
        derived.push("type");
        "abuse".to_string()
    });
    let named = fields.all("original-rcpt-to").chain(fields.all("removal-recipient")).filter_map(address);
    let of_jmrp = parts.iter().flat_map(|part| part.fields.all(JMRP_RECIPIENT)).filter_map(address);
    let named: Vec<String> = named.chain(of_jmrp).collect();
    let by = fields.get("user-agent").map(|agent| agent.chars().take(WORD_MAX).collect()).unwrap_or_default();
    Complaint { what, by, named, derived }
}

/// Without a comment, in lower case.
fn word(value: &str) -> String {
    let word = value.split(['(', ';', ' ']).next().unwrap_or_default();
    word.trim().chars().take(WORD_MAX).collect::<String>().to_ascii_lowercase()
}
