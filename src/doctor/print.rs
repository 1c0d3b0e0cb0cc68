//! Findings for people: lines of 80 columns at most, what is bad with why it matters and what mends it.
//!
//! Records, lines and commands begin at the left edge, as they must be copied: a blank in front would make them parts of the line before
//! in many files. One that is longer than a line is broken at blanks; whole it stands in the JSON.

use super::finding::Finding;
use crate::types::Status;

/// Columns of a line.
const WIDTH: usize = 80;
/// Behind the status.
const INDENT: usize = 6;

/// All of them, and how many of each kind there are.
pub fn lines(findings: &[Finding]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut before: Option<&Finding> = None;
    for finding in findings {
        let head = format!("{} {}: {}", finding.check.as_str(), finding.subject, finding.text);
        let status = finding.status.word();
        let mut text = wrapped(&head, INDENT);
        if let Some(first) = text.first_mut() {
            first.replace_range(..INDENT, &format!("{status:<INDENT$}"));
        }
        lines.append(&mut text);
        let Some(remedy) = &finding.remedy else { continue };
        let is_same = before.is_some_and(|before| before.check == finding.check && before.remedy == finding.remedy);
        if !is_same {
            if before.is_none_or(|before| before.check != finding.check) {
                lines.extend(wrapped(&format!("why: {}", finding.why), INDENT));
            }
            for (at, line) in remedy.lines().enumerate() {
                match at {
                    0 => lines.extend(wrapped(&format!("do: {line}"), INDENT)),
                    _ if line.chars().count() <= WIDTH => lines.push(line.to_string()),
                    _ => lines.extend(wrapped(line, 0)),
                }
            }
        }
        before = Some(finding);
    }
    let count = |status| findings.iter().filter(|finding| finding.status == status).count();
    lines.push(format!("{} fail, {} warn, {} ok", count(Status::Fail), count(Status::Warn), count(Status::Ok)));
    lines
}

/// Broken at blanks, and where there are none, where the line ends.
fn wrapped(text: &str, indent: usize) -> Vec<String> {
    let margin = " ".repeat(indent);
    let mut lines = Vec::new();
    let mut line = margin.clone();
    for word in text.split_whitespace() {
        let mut word = word;
        let is_begun = line.len() > margin.len();
        if is_begun && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, margin.clone()));
        } else if is_begun {
            line.push(' ');
        }
        while line.chars().count() + word.chars().count() > WIDTH {
            let room = WIDTH - line.chars().count();
            let cut = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
            line.push_str(&word[..cut]);
            lines.push(std::mem::replace(&mut line, margin.clone()));
            word = &word[cut..];
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::super::finding::Check;
    use super::*;

    #[test]
    fn a_finding_is_told_in_lines_that_fit() {
        let findings = [
            Finding::ok(Check::Ptr, "52.31.7.9", "relay.weir.dev"),
            Finding::fail(Check::Spf, "weir.dev", "no record", "publish:\nweir.dev. IN TXT \"v=spf1 -all\""),
        ];
        assert_eq!(
            lines(&findings).join("\n"),
            "ok    ptr 52.31.7.9: relay.weir.dev\n\
             FAIL  spf weir.dev: no record\n      \
             why: Outlook refuses From domains with over 5,000 messages a day without\n      \
             SPF: 550 5.7.515\n      \
             do: publish:\n\
             weir.dev. IN TXT \"v=spf1 -all\"\n\
             1 fail, 0 warn, 1 ok"
        );
    }

    #[test]
    fn no_line_is_too_long_and_what_was_said_is_not_said_again() {
        let long = format!("{} {}", "é".repeat(300), "word ".repeat(100));
        let one = |subject: &str| Finding::warn(Check::Port25, subject, long.clone(), format!("ask\n{long}"));
        let lines = lines(&[one("a"), one("b")]);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
        assert_eq!(lines.iter().filter(|line| line.contains("why:")).count(), 1);
        assert_eq!(lines.iter().filter(|line| line.contains("do:")).count(), 1);
    }
}
