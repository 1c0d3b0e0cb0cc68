//! Reads a delivery report (RFC 3464) as its receiver would: parts, fields of the message, fields of each recipient.

use super::mx::Transaction;

/// A `multipart/report`, taken apart.
#[derive(Debug)]
pub struct Report {
    pub header: String,
    /// For people.
    pub text: String,
    /// Fields about the message.
    pub message: String,
    /// Fields about each recipient.
    pub recipients: Vec<String>,
    /// The third part: its type, and the message or its header.
    pub returned_type: String,
    pub returned: String,
}

impl Report {
    #[track_caller]
    pub fn read(transaction: &Transaction) -> Report {
        let text = transaction.text();
        let (header, body) = text.split_once("\r\n\r\n").expect("a report has a header and a body");
        let kind = field(header, "Content-Type").expect("a report has a Content-Type");
        assert!(kind.starts_with("multipart/report"), "no report: {kind}");
        assert!(
            kind.contains("report-type=delivery-status") || kind.contains("report-type=\"delivery-status\""),
            "{kind}"
        );
        let boundary = parameter(&kind, "boundary").expect("a multipart has a boundary");
        let parts = parts(body, &boundary);
        assert_eq!(parts.len(), 3, "a report has three parts:\n{text}");
        let (status_head, status) = parts[1];
        assert!(
            field(status_head, "Content-Type").is_some_and(|t| t.starts_with("message/delivery-status")),
            "{status_head}"
        );
        let mut groups = status.split("\r\n\r\n").map(str::trim).filter(|g| !g.is_empty()).map(str::to_string);
        Report {
            header: header.to_string(),
            text: parts[0].1.to_string(),
            message: groups.next().expect("fields about the message"),
            recipients: groups.collect(),
            returned_type: field(parts[2].0, "Content-Type").unwrap_or_default(),
            returned: parts[2].1.to_string(),
        }
    }

    /// The fields about `address`.
    #[track_caller]
    pub fn of(&self, address: &str) -> &str {
        let wanted = format!("rfc822;{address}");
        let is_it = |g: &&String| field(g, "Final-Recipient").is_some_and(|f| f.replace(' ', "") == wanted);
        self.recipients
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("nothing about {address} in {:#?}", self.recipients))
    }
}

/// The value of a field in a header or a group of fields, folding undone, without its comments.
pub fn field(header: &str, name: &str) -> Option<String> {
    let mut value: Option<String> = None;
    for line in header.split("\r\n") {
        if line.is_empty() {
            break;
        }
        match &mut value {
            Some(value) if line.starts_with([' ', '\t']) => {
                value.push(' ');
                value.push_str(line.trim());
            }
            Some(_) => break,
            None => {
                let matches = line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name));
                value = matches.map(|(_, v)| v.trim().to_string());
            }
        }
    }
    value
}

fn parameter(value: &str, name: &str) -> Option<String> {
    let (_, rest) = value.split_once(&format!("{name}="))?;
    let quoted = rest.strip_prefix('"').and_then(|r| r.split('"').next());
    Some(quoted.unwrap_or_else(|| rest.split([';', ' ']).next().unwrap_or(rest)).to_string())
}

/// Header and content of each part.
fn parts<'a>(body: &'a str, boundary: &str) -> Vec<(&'a str, &'a str)> {
    let delimiter = format!("--{boundary}");
    let pieces = body.split(delimiter.as_str()).skip(1).take_while(|p| !p.starts_with("--"));
    pieces.map(|p| p.trim_start_matches("\r\n").split_once("\r\n\r\n").unwrap_or((p, ""))).collect()
}
