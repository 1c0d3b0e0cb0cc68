//! What is wrong with a configuration: what, where, and what to do.
//!
//! Rules that always hold: a finding is one line of text, however odd the value it speaks of; the place is the key's
//! own, in the file or in the environment, never a guess; the excerpt of the file comes only where it is asked for, and no secret
//! stands in either.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::types::printable;

/// The configuration cannot be used.
pub type Fault = Finding;
/// The configuration can be used, but somebody should look.
pub type Warning = Finding;

/// One thing to say about a configuration. `{}` is one line, `{:#}` adds the line of the file with a caret below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub what: String,
    #[serde(flatten)]
    pub place: Place,
    /// What to do.
    pub remedy: String,
}

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Place {
    /// Line and column count from 1, the column in characters.
    File {
        file: PathBuf,
        line: usize,
        column: usize,
        /// The line and a second one with carets below the place; empty for a line too long to show, or with a secret.
        excerpt: String,
    },
    /// An environment variable.
    Variable { variable: String },
    /// A file as a whole.
    Whole { file: PathBuf },
    /// Nobody wrote it: a default, or something that is missing everywhere.
    Nowhere {},
}

/// Everything that was found on the way.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Warning>,
}

impl Findings {
    pub(super) fn fault(&mut self, place: Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.faults.push(Finding { what: what.into(), place, remedy: remedy.into() });
    }

    pub(super) fn warning(&mut self, place: Place, what: impl Into<String>, remedy: impl Into<String>) {
        self.warnings.push(Finding { what: what.into(), place, remedy: remedy.into() });
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = match &self.place {
            Place::Nowhere {} => String::new(),
            place => format!("{place}: "),
        };
        line.push_str(&self.what);
        if !self.remedy.is_empty() {
            line.push_str(": ");
            line.push_str(&self.remedy);
        }
        f.write_str(&one_line(&line))?;
        match &self.place {
            Place::File { excerpt, .. } if f.alternate() && !excerpt.is_empty() => write!(f, "\n{excerpt}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { file, line, column, .. } => write!(f, "{}:{line}:{column}", file.display()),
            Place::Variable { variable } => f.write_str(variable),
            Place::Whole { file } => write!(f, "{}", file.display()),
            Place::Nowhere {} => f.write_str("configuration"),
        }
    }
}

/// A line with one of these in it may hold a secret, and is not shown.
/// The second is a slip of the finger; the path of a webhook's URL is its password.
const SECRET_WORDS: [&str; 8] = ["pass", "pasw", "secret", "$argon2", "token", "webhook", "url", "://"];
/// A longer line is not shown: the caret would stand somewhere on the third line of the screen.
const EXCERPT_MAX: usize = 200;

impl Place {
    pub(super) fn variable(name: &str) -> Place {
        Place::Variable { variable: name.to_string() }
    }
}

/// The text of a file, with the places in it.
pub(super) struct Document<'a> {
    file: &'a Path,
    text: &'a str,
    /// Where each line begins: a file may have many thousand values.
    lines: Vec<usize>,
}

impl<'a> Document<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Document<'a> {
        let breaks = memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1);
        Document { file, text, lines: std::iter::once(0).chain(breaks).collect() }
    }

    /// The place of the bytes `span`.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let start = floor(self.text, span.start);
        let line = self.lines.partition_point(|&begin| begin <= start);
        let line_start = self.lines[line - 1];
        let line_end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
        // A span can begin at the line feed itself, or behind the end.
        let start = start.min(line_end);
        let column = self.text[line_start..start].chars().count() + 1;
        let end = floor(self.text, span.end).clamp(start, line_end);
        let marked = self.text[start..end].trim_end().chars().count().max(1);
        let excerpt = excerpt(line, self.text[line_start..line_end].trim_end(), column, marked);
        Place::File { file: self.file.to_path_buf(), line, column, excerpt }
    }
}

fn excerpt(line: usize, content: &str, column: usize, marked: usize) -> String {
    let lower = content.to_lowercase();
    if content.chars().count() > EXCERPT_MAX || SECRET_WORDS.iter().any(|word| lower.contains(word)) {
        return String::new();
    }
    let number = line.to_string();
    let margin = " ".repeat(number.len());
    let content: String = content.chars().map(|c| if printable::steers(c) { ' ' } else { c }).collect();
    format!("{number} | {content}\n{margin} | {}{}", " ".repeat(column - 1), "^".repeat(marked))
}

/// The last character boundary of `text` that is not behind `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0)
}

/// A value from outside may hold line feeds and worse; a finding is one line all the same.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => line.push(' '),
            c if printable::steers(c) => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let text = "a = 1\nbé = 'x'\n";
        let at = text.find("'x'").unwrap();
        let place = Document::new(Path::new("w.toml"), text).place(at..at + 3);
        let Place::File { line, column, excerpt, .. } = &place else { panic!("{place:?}") };
        assert_eq!((*line, *column), (2, 6));
        assert_eq!(excerpt, "2 | bé = 'x'\n  |      ^^^");
    }

    #[test]
    fn every_span_of_every_text_has_a_place() {
        let text = "é\r\n\tx = 1\n\n";
        let document = Document::new(Path::new("w"), text);
        for start in 0..=text.len() + 2 {
            for end in 0..=text.len() + 2 {
                let place = document.place(start..end);
                assert!(matches!(place, Place::File { line: 1..=4, .. }), "{place:?}");
            }
        }
    }

    #[test]
    fn a_line_that_may_hold_a_secret_is_not_shown() {
        for text in ["password_hash = $argon2id$v=19$x", "webhook = \"htps://h/T0KEN\"", "user = [{ password = 5 }]"] {
            let place = Document::new(Path::new("w.toml"), text).place(0..3);
            assert!(matches!(&place, Place::File { excerpt, .. } if excerpt.is_empty()), "{place:?}");
        }
    }

    #[test]
    fn a_finding_is_one_line_and_the_excerpt_comes_when_asked_for() {
        let place = Document::new(Path::new("w.toml"), "x = 1").place(0..1);
        let finding = Finding { what: "unknown key `x\ny\u{1b}`".into(), place, remedy: "take it out".into() };
        assert_eq!(finding.to_string(), "w.toml:1:1: unknown key `x y\\u{1b}`: take it out");
        assert_eq!(format!("{finding:#}").lines().count(), 3);
    }
}
